"""Alg. 8 lines 1-4: embed the rows of an MSA."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation

N_RESIDUE = 32  # kinds of residues in an MSA, the gap among them
_TOKENS = 32  # tokens of one row that one thread block embeds


class Msa(NamedTuple):
    """Features of all rows of an MSA, each [N_row, N].

    Attributes:
        residue: Kinds of residues, int64.
        has_deletion: Whether residues are deleted before this one: 0 or 1.
        deletion: How many residues are deleted, as upstream scales it.
    """

    residue: torch.Tensor
    has_deletion: torch.Tensor
    deletion: torch.Tensor


@Operation
def embed_msa(
    kernels: Kernels, msa: Msa, rows: torch.Tensor, weight: torch.Tensor, single: torch.Tensor, n_padded: int
) -> torch.Tensor:
    """Embed some rows of an MSA -> [R, n_padded, c]. Padding tokens are zero.

    Residues are looked up in the weight, which replaces a product with one-hot vectors.

    Args:
        rows: Indices of the rows [R], int64.
        weight: The transposed matrix of the embedding [N_RESIDUE + 2, c].
        single: What is added to each row [N, c].
        n_padded: Number of tokens with padding.
    """
    m = functional.embedding(msa.residue[rows], weight[:N_RESIDUE])
    for feature, of_feature in zip((msa.has_deletion, msa.deletion), weight[N_RESIDUE:], strict=True):
        m += feature[rows][..., None].to(weight.dtype) * of_feature
    m += single
    return functional.pad(m, (0, 0, 0, n_padded - m.shape[1]))


@triton.jit(do_not_specialize=["n", "n_padded"])
def embed_msa_kernel(
    residue, has_deletion, deletion, rows, weight, single, out, n, n_padded, width, N_KIND: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    n_block = tl.cdiv(n_padded, TOKENS)
    row = (tl.program_id(0) // n_block).to(tl.int64)
    token = tl.program_id(0) % n_block * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, COLUMNS)[None, :]
    is_token, is_channel = token < n, column < width
    inside = is_token[:, None] & is_channel
    at = tl.load(rows + row) * n + token
    kind = tl.load(residue + at, mask=is_token, other=0)[:, None]
    made = tl.load(weight + kind * width + column, mask=inside, other=0.0).to(tl.float32)
    weight += N_KIND * width
    # Features are rounded like all factors of a product.
    has = tl.load(has_deletion + at, mask=is_token, other=0.0).to(weight.dtype.element_ty).to(tl.float32)[:, None]
    made += has * tl.load(weight + column, mask=is_channel, other=0.0).to(tl.float32)
    number = tl.load(deletion + at, mask=is_token, other=0.0).to(weight.dtype.element_ty).to(tl.float32)[:, None]
    made += number * tl.load(weight + width + column, mask=is_channel, other=0.0).to(tl.float32)
    made += tl.load(single + token[:, None] * width + column, mask=inside, other=0.0).to(tl.float32)
    to = out + (row * n_padded + token[:, None]) * width + column
    tl.store(to, made.to(out.dtype.element_ty), mask=(token < n_padded)[:, None] & is_channel)


@embed_msa.triton()
def _(
    kernels: Kernels, msa: Msa, rows: torch.Tensor, weight: torch.Tensor, single: torch.Tensor, n_padded: int
) -> torch.Tensor:
    n, width = single.shape
    out = single.new_empty(len(rows), n_padded, width)
    launch(
        embed_msa_kernel, (len(rows) * triton.cdiv(n_padded, _TOKENS),), *msa, rows, weight, single, out, n, n_padded,
        width, N_RESIDUE, _TOKENS, triton.next_power_of_2(width),
    )  # fmt: skip
    return out


@embed_msa.probed
def _(inputs: Inputs) -> Iterator[Case]:
    n, generator = 35, torch.Generator().manual_seed(0)
    for width in (128, 64):
        residue = torch.randint(N_RESIDUE, (9, n), generator=generator).to(inputs.device)
        has = (inputs.random(9, n) > 0).float()
        rows = torch.tensor([0, 3, 8, 7], device=inputs.device)
        msa = Msa(residue, has, has * inputs.random(9, n).float().abs())
        yield embed_msa.making(msa, rows, inputs.matrix(N_RESIDUE + 2, width), inputs.random(n, width), n + 13)
