"""Alg. 5 line 16: mean over the atoms of each token."""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation


@Operation
def mean_of_atoms(kernels: Kernels, x: torch.Tensor, atoms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Mean of ``relu(x)`` over the atoms of each token. The order of summation is always the same.

    Args:
        x: [A, B, N_atom, c].
        atoms: Atom indices of each token, padded with N_atom [N_token, largest number of atoms in a token].
        count: Number of atoms of each token [N_token].

    Returns:
        [A, B, N_token, c].
    """
    padded = functional.pad(torch.relu(x), (0, 0, 0, 1))  # row N_atom holds zeros, for the padding in ``atoms``
    return padded[:, :, atoms].sum(dim=-2) / count.clamp(min=1)[:, None]


@triton.jit(do_not_specialize=["n_atom", "n_token", "most"])
def mean_of_atoms_kernel(x, atoms, count, out, n_atom, n_token, most, width, COLUMNS: tl.constexpr):
    token = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    n = tl.load(count + token)
    total = tl.zeros([COLUMNS], tl.float32)
    for nth in range(0, n):
        atom = tl.load(atoms + token * most + nth)
        a = tl.load(x + (sample * n_atom + atom) * width + column, mask=column < width, other=0.0).to(tl.float32)
        total += tl.maximum(a, 0.0)
    total /= tl.maximum(n, 1).to(tl.float32)
    tl.store(out + (sample * n_token + token) * width + column, total.to(out.dtype.element_ty), mask=column < width)


@mean_of_atoms.triton()
def _(kernels: Kernels, x: torch.Tensor, atoms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    n_seed, shared, n_atom, width = x.shape
    n_token, most = atoms.shape
    out = x.new_empty(n_seed, shared, n_token, width)
    launch(
        mean_of_atoms_kernel, (n_token, n_seed * shared), x, atoms, count, out, n_atom, n_token, most, width,
        triton.next_power_of_2(width),
    )  # fmt: skip
    return out


@mean_of_atoms.probed
def _(inputs: Inputs) -> Iterator[Case]:
    n = 35
    atoms = torch.arange(n, device=inputs.device).view(-1, 1)
    count = torch.ones(n, dtype=torch.int64, device=inputs.device)
    for width in (768, 384):
        yield mean_of_atoms.making(inputs.random(2, 2, n, width), atoms, count)
