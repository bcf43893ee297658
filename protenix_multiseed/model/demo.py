"""Made-up weights for the demo model and for tests. They are the same on every machine.

The demo model shows a fold for one example: ``scripts/fit_demo.py`` has fitted a part of its weights to that structure
alone (:func:`fit`). All other weights are random.

Upstream's own initialisation sets gates and last layers to zero, so an untrained model gives the same result for every
seed. With these weights every layer affects the result. The weights of the confidence heads are chosen so that scores
differ visibly between seeds and samples: PAE and PDE of two tokens rise with their distance, and the pLDDT of a token
depends on the tokens that it attends to.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

SEED = 284
FIT = Path(__file__).with_name("demo_fit.npz")
_GAINS = {  # factor for weights whose name ends with the key; 1 for all others
    "confidence_head.linear_no_bias_d.weight": 0.05,
    "confidence_head.linear_no_bias_d_wo_onehot.weight": 0.05,
    "attention_pair_bias.linear_nobias_z.weight": 3.0,
}
_HEAD_GAINS = {  # the same for the output layers of the confidence head
    "linear_no_bias_pae.weight": 5.0,
    "linear_no_bias_pde.weight": 5.0,
    "plddt_weight": 10.0,
    "resolved_weight": 2.0,
}


def fill(model: torch.nn.Module, seed: int = SEED) -> torch.nn.Module:
    """Fill every weight of a model with values that depend only on its name, its shape and the seed.

    Matrices are normal with variance 1/fan-in times a gain squared. Layer norm scales are close to one, biases close to
    zero.
    """
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            weight.copy_(make_weight(name, weight, seed))
    return model.requires_grad_(False)


def fit(model: torch.nn.Module) -> bool:
    """Add the changes that were fitted to the demo's example.

    Returns:
        False if the model lacks one of the changed weights, or has it with another size. It is not changed then.
    """
    with np.load(FIT) as file:
        changes = expand({key: torch.from_numpy(file[key]) for key in file.files})
    weights = model.state_dict()
    if any(name not in weights or weights[name].numel() != change.numel() for name, change in changes.items()):
        return False
    add(model, changes)
    return True


def expand(thin: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the change of each weight by its name.

    Args:
        thin: The change itself by the weight's name, or two matrices whose product it is, by the name with ``:left``
            and ``:right``.
    """
    made = {name: change.float() for name, change in thin.items() if ":" not in name}
    for name in (key.removesuffix(":left") for key in thin if key.endswith(":left")):
        made[name] = thin[f"{name}:left"].float() @ thin[f"{name}:right"].float()
    return made


def add(model: torch.nn.Module, changes: Mapping[str, torch.Tensor]) -> None:
    """Add changes to weights. A change may have another shape than its weight, but as many elements."""
    weights = model.state_dict()
    with torch.no_grad():
        for name, change in changes.items():
            weights[name].add_(change.to(weights[name]).view_as(weights[name]))


def make_weight(name: str, like: torch.Tensor, seed: int = SEED) -> torch.Tensor:
    """Value of the weight ``name`` with the shape and dtype of ``like``. Integer tensors are returned unchanged."""
    if not like.is_floating_point():
        return like
    values = _normal(name, tuple(like.shape), seed)
    head = next(
        (gain for end, gain in _HEAD_GAINS.items() if name.startswith("confidence_head") and name.endswith(end)), None
    )
    if head is not None:
        values = head * _ramp(name, tuple(like.shape), seed)
    elif name == "confidence_head.linear_no_bias_d_wo_onehot.weight":
        values = _GAINS[name] * _direction(like.shape[0], seed)[:, None]
    elif name == "confidence_head.linear_no_bias_d.weight":  # smooth over the bins, as trained weights are
        bins = np.linspace(0.0, 1.0, like.shape[1], dtype=np.float32)
        values = _GAINS[name] * np.outer(_normal(name, (like.shape[0],), seed), bins)
    elif like.dim() >= 2:
        gain = next((value for end, value in _GAINS.items() if name.endswith(end)), 1.0)
        values *= gain / np.sqrt(like.shape[-1])
    elif "norm" in name and name.endswith("weight"):
        values = 1.0 + 0.1 * values
    else:
        values *= 0.1
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(like.dtype)


def _ramp(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Output weights of a confidence head that make the predicted value rise with one projection of the head's input.

    The logit of a bin is the projection times the bin's position between -1 and 1. Heads with one matrix for each place
    of an atom in its token (pLDDT, resolved) add a little noise.
    """
    bins_first = len(shape) == 2
    n_bin, n_channel = (shape[0], shape[1]) if bins_first else (shape[2], shape[1])
    bins = np.linspace(-1.0, 1.0, n_bin, dtype=np.float32)
    projection = _direction(n_channel, seed) / np.sqrt(n_channel)
    if bins_first:
        return np.asarray(np.outer(bins, projection))
    noise: np.ndarray = 0.1 * _normal(name, shape, seed) / np.sqrt(n_channel)
    return np.asarray(np.outer(projection, bins) + noise)


def _direction(size: int, seed: int) -> np.ndarray:
    return _normal(f"direction:{size}", (size,), seed)


def _normal(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    return generator.standard_normal(shape, dtype=np.float32)
