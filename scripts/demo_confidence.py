"""Fit the output layers of the demo's confidence head to samples of the fitted network. For ``fit_demo.py``."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from demo_structure import aligned_errors, lddt

from protenix_multiseed.model.stages import TrunkOutput
from protenix_multiseed.upstream import environment


class Seed(Protocol):
    """What the confidence head reads for one seed."""

    features: Mapping[str, Any]
    trunk: TrunkOutput


def fit_confidence(
    head: Any, samples: Sequence[tuple[Seed, torch.Tensor]], target: torch.Tensor
) -> dict[str, tuple[torch.Tensor, ...]]:
    """Learn the output layers for pLDDT, PAE and PDE. All places of an atom in its residue share one matrix for pLDDT.

    Args:
        head: The confidence head.
        samples: Samples of each seed [N_sample, N_atom, 3], Angstrom.
        target: The deposited structure [N_atom, 3], Angstrom.

    Returns:
        For each weight its change, or two matrices whose product it is.
    """
    reads: dict[str, list[torch.Tensor]] = {"pae_ln": [], "pde_ln": [], "plddt_ln": []}
    hooks = [
        getattr(head, name).register_forward_hook(lambda _, __, made, kept=kept: kept.append(made.half()))
        for name, kept in reads.items()
    ]
    bins: dict[str, list[torch.Tensor]] = {name: [] for name in reads}
    for seed, x in samples:
        features = seed.features
        with torch.no_grad(), environment.silenced():
            head(
                input_feature_dict=dict(seed.features), s_inputs=seed.trunk.s_inputs[0], s_trunk=seed.trunk.s[0],
                z_trunk=seed.trunk.z[0], pair_mask=None, x_pred_coords=x,
            )  # fmt: skip
        for one in x:
            bins["plddt_ln"].append(to_bins(lddt(one, target), head.b_plddt, 1.0))
            bins["pae_ln"].append(to_bins(aligned_errors(one, target, features), head.b_pae, 32.0))
            places = features["distogram_rep_atom_mask"].bool()
            off = (torch.cdist(one[places], one[places]) - torch.cdist(target[places], target[places])).abs()
            bins["pde_ln"].append(to_bins(off, head.b_pde, 32.0))
    for hook in hooks:
        hook.remove()
    bases = {
        "pae_ln": head.linear_no_bias_pae.weight,
        "pde_ln": head.linear_no_bias_pde.weight,
        "plddt_ln": head.plddt_weight.mean(0).T,
    }
    pae, pde, plddt = (learn_layer(reads[name], bins[name], base, name) - base for name, base in bases.items())
    return {
        "confidence_head.linear_no_bias_pae.weight": (pae,),
        "confidence_head.linear_no_bias_pde.weight": (pde,),
        "confidence_head.plddt_weight": (plddt.new_ones(len(head.plddt_weight), 1), plddt.T.reshape(1, -1)),
    }


def learn_layer(reads: list[torch.Tensor], bins: list[torch.Tensor], base: torch.Tensor, name: str) -> torch.Tensor:
    """Fit a softmax over bins to what a layer reads, [N, width] for each sample -> [N_bin, width]."""
    weight = base.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.02)
    inputs, wanted = torch.cat([one.flatten(0, -2) for one in reads]), torch.cat([one.flatten() for one in bins])
    n_step = 1500
    for count in range(n_step):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - count / n_step)
        some = torch.randint(len(wanted), (8192,), device=wanted.device)
        loss = torch.nn.functional.cross_entropy(inputs[some].float() @ weight.T, wanted[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{name}: cross entropy {loss:.3f}", flush=True)
    return weight.detach()


def to_bins(values: torch.Tensor, n_bin: int, largest: float) -> torch.Tensor:
    """Number of the bin of each value, in ``n_bin`` even bins from 0 to ``largest``. Larger values are in the last bin."""
    return (values * (n_bin / largest)).long().clamp(0, n_bin - 1)
