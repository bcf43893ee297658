"""Alg. 14 line 3: attention biases from the pair representation."""

from collections.abc import Iterator

import torch

from protenix_multiseed.kernels.base import EPSILON, MASKED, Kernels, Lengths, Norm, Tiles, TileTable, mask_keys
from protenix_multiseed.kernels.device_functions import load_rows, load_weight, norm_rows
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.rows import fits_whole

TILES = TileTable({
    torch.bfloat16: Tiles(64, 16, 4, 2),
    torch.float32: Tiles(64, 16, 4, 2),
    (torch.bfloat16, 256): Tiles(32, 16, 4, 2),
})  # fmt: skip


@Operation
def pair_bias(
    kernels: Kernels, z: torch.Tensor, norm: Norm, weight: torch.Tensor, lengths: Lengths, starting: bool = True
) -> torch.Tensor:
    """Attention biases [A, n_head, N, N] from a layer norm and a projection of ``z``, masked at padding keys.

    In memory the heads are the outermost dimension, and rows are padded to a multiple of ``kernels.key_block`` keys.

    Args:
        z: Pair representation [A, N, N, c_z].
        weight: [n_head, c_z].
        lengths: Numbers of real keys of each pair representation.
        starting: True for Alg. 14. False for Alg. 15, whose queries are the columns of ``z``.
    """
    normed = layer_norm(kernels, z, *norm)
    bias = (weight @ normed.view(-1, z.shape[-1]).t()).view(-1, *z.shape[:-1]).transpose(0, 1)
    made = mask_keys(bias if starting else bias.mT.contiguous(), lengths.most, kernels.key_block)
    return made if lengths.are_equal else made.masked_fill_(lengths.is_padding(made.shape[-1])[:, None, None], MASKED)


@triton.jit(do_not_specialize=["n", "n_row", "n_head"])
def pair_bias_kernel(
    z,
    norm,
    shift,
    weight,
    lengths,
    out,
    n,
    n_row,
    n_column,
    o_pair,
    o_head,
    o_row,
    o_column,
    n_head,
    epsilon,
    MASKED: tl.constexpr,
    IS_TRANSPOSED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
):
    """One tile of a row of pairs. Rows or columns from ``n`` on exist only in ``out`` and are filled with MASKED."""
    n_block = tl.cdiv(n_column, ROWS)
    row = tl.program_id(0) // n_block % n_row
    pair = tl.program_id(0) // (n_block * n_row)
    column = tl.program_id(0) % n_block * ROWS + tl.arange(0, ROWS)
    z += (pair * n + row).to(tl.int64) * n * WIDTH
    a = norm_rows(load_rows(z, column, tl.where(row < n, n, 0), WIDTH), norm, shift, epsilon, WIDTH)
    made = tl.dot(load_weight(weight, 0, n_head, WIDTH, HEADS), tl.trans(a), input_precision="tf32")
    head = tl.arange(0, HEADS)[:, None]
    n_token = tl.load(lengths + pair)
    is_key = row < n_token if IS_TRANSPOSED else column[None, :] < n_token
    made = tl.where(is_key, made, MASKED)
    out += pair.to(tl.int64) * o_pair + row * o_row
    at = head.to(tl.int64) * o_head + column[None, :] * o_column
    tl.store(out + at, made.to(out.dtype.element_ty), mask=(head < n_head) & (column[None, :] < n_column))


@pair_bias.triton(lambda kernels, z, norm, weight, lengths, starting=True: fits_whole(z.shape[-1], z))
def _(
    kernels: Kernels, z: torch.Tensor, norm: Norm, weight: torch.Tensor, lengths: Lengths, starting: bool = True
) -> torch.Tensor:
    n_head, (n_pair, n, _, width) = len(weight), z.shape
    padded = triton.cdiv(n, kernels.key_block) * kernels.key_block
    out = z.new_empty(n_head, n_pair, n, padded).transpose(0, 1)
    tiles = TILES.of(z)
    sizes, strides = ((n, padded), out.stride()[2:]) if starting else ((padded, n), out.stride()[:1:-1])
    heads = max(16, triton.next_power_of_2(n_head))
    grid = (n_pair * sizes[0] * triton.cdiv(sizes[1], tiles.rows),)
    launch(
        pair_bias_kernel, grid, z, *norm, weight, lengths.each, out, n, *sizes, *out.stride()[:2], *strides, n_head,
        EPSILON, MASKED, not starting, width, tiles.rows, heads, **tiles.options,
    )  # fmt: skip
    return out[..., :n]


@pair_bias.probed
def _(inputs: Inputs) -> Iterator[Case]:
    n = 27
    lengths = inputs.lengths(n, 14)

    def case(width: int, n_head: int, starting: bool) -> Case:
        z, norm, weight = inputs.random(2, 32, 32, width), inputs.norm(width), inputs.matrix(n_head, width)
        # Masks are cut, or their size would hide differences of the other biases.
        return lambda kernels: pair_bias(kernels, z, norm, weight, lengths, starting)[..., :n].clamp(min=-10)

    for width in (256, 128, 64):
        yield case(width, 4, True)
        yield case(width, 4, False)
    yield case(128, 16, True)
