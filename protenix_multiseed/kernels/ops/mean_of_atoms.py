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
        atoms: Atom indices of each token, padded with N_atom [A, N_token, largest number of atoms in a token]. The
            first dimension is 1 if all entries have the same atoms.
        count: Number of atoms of each token [A, N_token], or [1, N_token].

    Returns:
        [A, B, N_token, c].
    """
    padded = functional.pad(torch.relu(x), (0, 0, 0, 1))  # row N_atom holds zeros, for the padding in ``atoms``
    if len(atoms) == 1:
        total = padded[:, :, atoms[0]].sum(dim=-2)
    else:
        total = torch.stack([of_entry[:, places].sum(dim=-2) for of_entry, places in zip(padded, atoms, strict=True)])
    return total / count.clamp(min=1)[:, None, :, None]


@triton.jit(do_not_specialize=["n_atom", "n_token", "n_shared", "first_of_entry", "most"])
def mean_of_atoms_kernel(
    x, atoms, count, out, n_atom, n_token, n_shared, first_of_entry, most, width, COLUMNS: tl.constexpr
):
    token = tl.program_id(0) % n_token
    sample = tl.program_id(0) // n_token
    place = sample // n_shared * first_of_entry + token
    sample = sample.to(tl.int64)
    column = tl.arange(0, COLUMNS)
    n = tl.load(count + place)
    total = tl.zeros([COLUMNS], tl.float32)
    for nth in range(0, n):
        atom = tl.load(atoms + place * most + nth)
        a = tl.load(x + (sample * n_atom + atom) * width + column, mask=column < width, other=0.0).to(tl.float32)
        total += tl.maximum(a, 0.0)
    total /= tl.maximum(n, 1).to(tl.float32)
    tl.store(out + (sample * n_token + token) * width + column, total.to(out.dtype.element_ty), mask=column < width)


@mean_of_atoms.triton()
def _(kernels: Kernels, x: torch.Tensor, atoms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    n_seed, shared, n_atom, width = x.shape
    n_table, n_token, most = atoms.shape
    out = x.new_empty(n_seed, shared, n_token, width)
    launch(
        mean_of_atoms_kernel, (n_token * n_seed * shared,), x, atoms, count, out, n_atom, n_token, shared,
        n_token if n_table > 1 else 0, most, width, triton.next_power_of_2(width),
    )  # fmt: skip
    return out


@mean_of_atoms.probed
def _(inputs: Inputs) -> Iterator[Case]:
    n = 35
    places = torch.arange(n, device=inputs.device)
    none = torch.full_like(places, n)
    one = torch.stack([places, none], dim=-1), torch.ones_like(places)
    two = torch.stack([places.flip(0), places], dim=-1), torch.full_like(places, 2)
    for width in (768, 384):
        x = inputs.random(2, 2, n, width)
        yield mean_of_atoms.making(x, one[0][None], one[1][None])
        yield mean_of_atoms.making(x, *(torch.stack(each) for each in zip(one, two, strict=True)))
