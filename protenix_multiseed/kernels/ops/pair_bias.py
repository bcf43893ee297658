"""Alg. 14 line 3: attention biases from the pair representation."""

from collections.abc import Callable, Iterator

import torch

from protenix_multiseed.kernels.base import EPSILON, MASKED, Kernels, Lengths, Tiles, TileTable, mask_keys
from protenix_multiseed.kernels.device_functions import load_rows, load_weight, norm_rows, variance
from protenix_multiseed.kernels.known import NOTHING, Known, PairBias, empty_bias
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.rows import fits_whole
from protenix_multiseed.limits import FOLDED_CHANNELS

TILES = TileTable({
    torch.bfloat16: Tiles(64, 16, 4, 2),
    torch.float32: Tiles(64, 16, 4, 2),
    (torch.bfloat16, 256): Tiles(32, 16, 4, 2),
})  # fmt: skip
FOLDED_TILES = Tiles(64, 16, 4, 2)


@Operation
def pair_bias(
    kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths, starting: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention biases from a layer norm and a projection of ``z``, masked at padding keys.

    Args:
        z: Pair representation [A, N, N, c_z].
        linear: The norm, and a weight [n_head, c_z].
        lengths: Numbers of real keys of each pair representation.
        starting: True for Alg. 14. False for Alg. 15, whose queries are the columns of ``z``.

    Returns:
        The biases [A, n_head, N, N]: in memory the heads are the outermost dimension, and rows are padded to a multiple
        of ``kernels.key_block`` keys. And the reciprocal standard deviations of ``z`` [A, N, N] in float32. None: they
        are not known.
    """
    normed = layer_norm(kernels, z, *linear.norm)
    bias = (linear.weight @ normed.view(-1, z.shape[-1]).t()).view(-1, *z.shape[:-1]).transpose(0, 1)
    made = mask_keys(bias if starting else bias.mT.contiguous(), lengths.most, kernels.key_block)
    if not lengths.are_equal:
        made = made.masked_fill_(lengths.is_padding(made.shape[-1])[:, None, None], MASKED)
    return made, None


def biases(
    kernels: Kernels, z: torch.Tensor, known: Known, asked: PairBias
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The biases that were asked for and the deviations of ``z``, as :func:`pair_bias` returns them.

    They are computed unless they are known.
    """
    if known.bias is None:
        return pair_bias(kernels, z, asked.linear, asked.lengths, asked.starting)
    return known.bias[..., : z.shape[2]], known.rstd


@triton.jit(do_not_specialize=["n", "n_row", "n_head"])
def pair_bias_kernel(
    z,
    norm,
    shift,
    weight,
    lengths,
    rstds,
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
    """One tile of a row of pairs. Rows or columns from ``n`` on exist only in ``out`` and are filled with MASKED.

    With a place for ``rstds``, the norm is folded into ``weight``, ``shift`` is that of the heads, and ``norm`` is not
    read.
    """
    n_block = tl.cdiv(n_column, ROWS)
    row = tl.program_id(0) // n_block % n_row
    pair = tl.program_id(0) // (n_block * n_row)
    column = tl.program_id(0) % n_block * ROWS + tl.arange(0, ROWS)
    first = (pair * n + row).to(tl.int64) * n
    head = tl.arange(0, HEADS)[:, None]
    a = load_rows(z + first * WIDTH, column, tl.where(row < n, n, 0), WIDTH)
    weights = load_weight(weight, 0, n_head, WIDTH, HEADS)
    if rstds is None:
        made = tl.dot(weights, tl.trans(norm_rows(a, norm, shift, epsilon, WIDTH)), input_precision="tf32")
    else:
        made = tl.dot(weights, tl.trans(a.to(weights.dtype)))
        rstd = tl.rsqrt(variance(a, WIDTH) + epsilon)
        tl.store(rstds + first + column, rstd, mask=(column < n) & (row < n))
        made = made * rstd[None, :] + tl.load(shift + head, mask=head < n_head, other=0.0)
    n_token = tl.load(lengths + pair)
    is_key = row < n_token if IS_TRANSPOSED else column[None, :] < n_token
    made = tl.where(is_key, made, MASKED)
    out += pair.to(tl.int64) * o_pair + row * o_row
    at = head.to(tl.int64) * o_head + column[None, :] * o_column
    tl.store(out + at, made.to(out.dtype.element_ty), mask=(head < n_head) & (column[None, :] < n_column))


@pair_bias.triton(lambda kernels, z, linear, lengths, starting=True: fits_whole(z.shape[-1], z))
def _(
    kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths, starting: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    n_head, (n_pair, n, _, width) = len(linear), z.shape
    out = empty_bias(kernels, z, n_head)
    padded = out.shape[-1]
    tiles, rstd, weights = TILES.of(z), None, (*linear.norm, linear.weight)
    if kernels.hopper and z.dtype == torch.bfloat16 and width == FOLDED_CHANNELS:
        tiles, rstd = FOLDED_TILES, z.new_empty(n_pair, n, n, dtype=torch.float32)
        weights = linear.norm[0], linear.shift, linear.folded
    sizes, strides = ((n, padded), out.stride()[2:]) if starting else ((padded, n), out.stride()[:1:-1])
    heads = max(16, triton.next_power_of_2(n_head))
    grid = (n_pair * sizes[0] * triton.cdiv(sizes[1], tiles.rows),)
    launch(
        pair_bias_kernel, grid, z, *weights, lengths.each, rstd, out, n, *sizes, *out.stride()[:2], *strides, n_head,
        EPSILON, MASKED, not starting, width, tiles.rows, heads, **tiles.options,
    )  # fmt: skip
    return out[..., :n], rstd


def known_cases(
    inputs: Inputs, n_head: int, starting: bool, update: Callable[[Kernels, torch.Tensor, PairBias], Known | None]
) -> Iterator[Case]:
    """Cases of the biases and deviations that an update of pairs of 256 channels finds for the operation after it."""
    if not inputs.folds(FOLDED_CHANNELS):
        return
    z = inputs.random(2, 36, 36, FOLDED_CHANNELS)
    asked = PairBias(inputs.linear(n_head, FOLDED_CHANNELS), inputs.lengths(31, 14), starting)

    def bias(kernels: Kernels) -> torch.Tensor:
        x = z.clone()
        return biases(kernels, x, update(kernels, x, asked) or NOTHING, asked)[0].clamp(min=-10)

    def rstd(kernels: Kernels) -> torch.Tensor:
        x = z.clone()
        known = update(kernels, x, asked)
        return inputs.rstd(x, known and known.rstd)

    yield bias
    yield rstd


@pair_bias.probed
def _(inputs: Inputs) -> Iterator[Case]:
    n = 27
    lengths = inputs.lengths(n, 14)

    def cases(width: int, n_head: int, starting: bool) -> Iterator[Case]:
        z, linear = inputs.random(2, 32, 32, width), inputs.linear(n_head, width)
        # Masks are cut, or their size would hide differences of the other biases.
        yield lambda kernels: pair_bias(kernels, z, linear, lengths, starting)[0][..., :n].clamp(min=-10)
        if inputs.folds(width):
            yield lambda kernels: inputs.rstd(z, pair_bias(kernels, z, linear, lengths, starting)[1])

    for width in (256, 128, 64):
        yield from cases(width, 4, True)
        yield from cases(width, 4, False)
    yield from cases(128, 16, True)
