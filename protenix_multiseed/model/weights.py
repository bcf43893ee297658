"""Build Protenix without the initialisation that a checkpoint overwrites, and load upstream's released checkpoints."""

import importlib
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protenix_multiseed.errors import WeightsError
from protenix_multiseed.upstream.checkpoints import fetch_hint
from protenix_multiseed.upstream.environment import call_quietly, replaced, without

_INITIALISERS = (
    "uniform_",
    "normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "zeros_",
    "ones_",
    "constant_",
    "trunc_normal_",
)


def build_model(configs: Any, *, initialise: bool = False) -> torch.nn.Module:
    """``Protenix(configs)`` on the CPU, in evaluation mode.

    Nearly all of upstream's construction time goes into drawing initial weights with SciPy.

    Args:
        initialise: Whether to draw initial weights. If False, weights hold arbitrary values, and the caller must load
            every weight.
    """
    importlib.import_module("scipy")  # its other modules are imported inside the block
    with without("scipy.stats", "truncnorm"):
        from protenix.model.protenix import Protenix

    with ExitStack() as stack:
        if not initialise:
            stack.enter_context(_without_initialisation())
        model: torch.nn.Module = call_quietly(Protenix, configs)
    return model.eval()


def load_model(
    configs: Any, checkpoint: Path, model_name: str, built: torch.nn.Module | None = None, *, mapped: bool = False
) -> torch.nn.Module:
    """Load a checkpoint in upstream's format: ``{"model": state}``, with or without ``module.`` in its keys.

    Upstream loads some models non-strictly. If such a checkpoint lacks weights, these weights keep upstream's own
    initialisation, as in upstream, but drawn from a fixed seed. The model's ``missing_weights`` lists their names.

    Args:
        built: The model, if it is already built.
        mapped: Whether to map the file into memory instead of reading it. Mapping halves the time to move the weights
            to a GPU. Until they are moved, the weights depend on the file, so do not map a model that stays on the CPU.

    Raises:
        WeightsError: if the file is missing, truncated, not a checkpoint, or of another architecture.
    """
    state = read_checkpoint(checkpoint, model_name, mapped=mapped)
    model = build_model(configs) if built is None else built
    wanted = model.state_dict()
    missing, unexpected = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    reshaped = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    strict = bool(configs.load_strict)
    if reshaped or ((missing or unexpected) and strict) or len(missing) == len(wanted):
        example = next(iter([*reshaped, *missing, *unexpected]))
        raise WeightsError(
            f"{checkpoint} does not fit {model_name}: {len(missing)} weights are missing, {len(unexpected)} unknown "
            f"and {len(reshaped)} have another shape (first: {example}); choose the --model that it belongs to, or "
            f"move it away and {fetch_hint(model_name)}"
        )
    if missing:
        with torch.random.fork_rng(devices=[]):  # a fixed seed: the same values on every run, unlike upstream
            np_state = np.random.get_state()
            torch.manual_seed(0)
            np.random.seed(0)
            model = build_model(configs, initialise=True)
            np.random.set_state(np_state)
    model.load_state_dict(
        {key: state[key].to(wanted[key].dtype) for key in wanted if key in state}, strict=not missing, assign=True
    )
    model.missing_weights = tuple(missing)  # type: ignore[assignment]  # for the run's record
    return model.requires_grad_(False)


def read_checkpoint(path: Path, model_name: str, *, mapped: bool = False) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint to the CPU, without the ``module.`` prefix of distributed training.

    Args:
        mapped: Whether to map the file into memory instead of reading it.

    Raises:
        WeightsError: if there is no such file or it is not a checkpoint.
    """
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}; {fetch_hint(model_name)}")
    try:
        mapped = mapped and zipfile.is_zipfile(path)  # the format before PyTorch 1.6 cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        state = content["model"]
        tensors = {key.removeprefix("module."): value for key, value in state.items()}
    except (
        RuntimeError,
        EOFError,
        OSError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        if isinstance(error, PermissionError):
            raise WeightsError(f"{path}: cannot be read: {error.strerror}; give this account access to it") from None
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is truncated or not a Protenix checkpoint ({reason}); delete it, then {fetch_hint(model_name)}"
        ) from error
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} holds no weights under 'model'; delete it, then {fetch_hint(model_name)}")
    return tensors


@contextmanager
def _without_initialisation() -> Iterator[None]:
    """Replace all functions that draw or fill initial weights by functions that do nothing."""
    from protenix.model.modules import primitives
    from protenix.model.triangular import layers

    def leave(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    with ExitStack() as stack:
        for module in (primitives, layers):
            stack.enter_context(replaced(module, "trunc_normal_init_", leave))
        for name in _INITIALISERS:
            stack.enter_context(replaced(torch.nn.init, name, leave))
        yield
