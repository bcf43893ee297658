"""Alg. 12 and 13 except their matrix product: the two gated factors before it, and the gated update after it."""

from collections.abc import Iterator

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Lengths, Tiles, TileTable, chunks
from protenix_multiseed.kernels.device_functions import load_rows, load_weight, norm_rows, sigmoid, store_rows
from protenix_multiseed.kernels.known import Known, PairBias
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops import triangle_factors_hopper, triangle_product_hopper_128, triangle_update_hopper
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.pair_bias import known_cases
from protenix_multiseed.kernels.rows import fits_whole

# Tiles for 256 channels (pairs of protenix-v2) are chosen by their register use; they are not timed.
FACTOR_TILES = TileTable({
    torch.bfloat16: Tiles(128, 32, 8, 2, 80),
    torch.float32: Tiles(64, 32, 8, 2),
    (torch.bfloat16, 256): Tiles(64, 32, 4, 2),
})  # fmt: skip
UPDATE_TILES = TileTable({
    torch.bfloat16: Tiles(64, 128, 4, 1),
    torch.float32: Tiles(32, 128, 4, 1),
    (torch.bfloat16, 256): Tiles(64, 128, 8, 1),
})  # fmt: skip
_MAX_KEPT_BYTES = 64 * 1024  # a persistent kernel keeps both weights of the update on the chip if they fit in this


@Operation
def gated_channels(
    kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths, rstd: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Alg. 12 lines 1-2: the two gated factors of a triangle product, zero at padding tokens.

    Args:
        z: [A, N, N, c_z].
        linear: The norm, and the projections to the values of both factors, then to their gates [4 * c, c_z].
        lengths: Numbers of real tokens of each pair representation.
        rstd: Reciprocal standard deviations of ``z`` [A, N, N] in float32, if known. A kernel may need them, and makes
            them if they are not.

    Returns:
        The factors [2 * c, A, N, N], and ``rstd``, if it is known now.
    """
    gated = z.new_empty(len(linear) // 2, *z.shape[:-1])
    for seeds, rows in chunks(z, len(linear), kernels.pair_elements):
        x = layer_norm(kernels, z[seeds, rows], *linear.norm)
        values, gates = (linear.weight @ x.view(-1, x.shape[-1]).t()).view(-1, *x.shape[:-1]).chunk(2)
        torch.mul(gates.sigmoid_(), values, out=gated[:, seeds, rows])
    gated[:, :, lengths.most :] = 0
    gated[..., lengths.most :] = 0
    if not lengths.are_equal:
        is_padding = lengths.is_padding(z.shape[1])
        gated.masked_fill_(is_padding[:, :, None] | is_padding[:, None], 0.0)
    return gated, rstd


@Operation
def add_triangle(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> Known | None:
    """Alg. 12 lines 3-4 in place: ``z += norm_out(product) out^T * sigmoid(norm(z) gate^T)``.

    Args:
        z: [A, N, N, c_z].
        product: [c, A, N, N]; ``norm_out`` is over its first dimension.
        gate: The norm, and a weight [c_z, c_z].
        out: ``norm_out``, and a weight [c_z, c].
        rstd: Reciprocal standard deviations of ``z`` [A, N, N] in float32, if known. A faster kernel needs them.
        after: The attention biases that are read next.

    Returns:
        What is known of ``z`` now. None: nothing.
    """
    for seeds, rows in chunks(z, 3 * len(product), kernels.pair_elements):
        update = norm_linear(kernels, product[:, seeds, rows].permute(1, 2, 3, 0), out)
        z[seeds, rows].addcmul_(update, torch.sigmoid(norm_linear(kernels, z[seeds, rows], gate)))
    return None


@triton.jit(do_not_specialize=["n"])
def gated_channels_kernel(
    z,
    norm,
    shift,
    weight,
    lengths,
    out,
    size,
    n,
    n_out,
    epsilon,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n_token = tl.load(lengths + row // n // n, mask=row < size, other=0)
    real = (row // n % n < n_token) & (row % n < n_token)
    normed = norm_rows(load_rows(z, row, size, WIDTH), norm, shift, epsilon, WIDTH)
    a = tl.trans(tl.where(real[:, None], normed, 0.0).to(normed.dtype))
    # One product computes eight values, then their eight gates, in turn. Each thread then holds a value and its gate.
    place = tl.arange(0, 2 * COLUMNS)
    at_row = place // 16 * 8 + place % 8 + tl.where(place // 8 % 2 == 1, n_out, 0)
    at_weight = at_row[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    for first in range(0, n_out, COLUMNS):
        both = tl.dot(tl.load(weight + first * WIDTH + at_weight), a, input_precision="tf32")
        value, gates = tl.split(tl.permute(tl.reshape(both, (COLUMNS // 8, 2, 8, ROWS)), (0, 2, 3, 1)))
        made = tl.reshape(value * sigmoid(gates), (COLUMNS, ROWS))
        channel = first + tl.arange(0, COLUMNS)[:, None]
        at = channel.to(tl.int64) * size + row[None, :]
        tl.store(out + at, made.to(out.dtype.element_ty), mask=row[None, :] < size)


@triton.jit
def add_triangle_kernel(
    z,
    product,
    norm,
    shift,
    gate,
    norm_out,
    shift_out,
    weight,
    size,
    epsilon,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    KEEPS_WEIGHTS: tl.constexpr,
):
    """Blocks of rows. With KEEPS_WEIGHTS the kernel is persistent: it loads both weights once for many blocks."""
    channel = tl.arange(0, HIDDEN)[:, None]
    if KEEPS_WEIGHTS:
        back = load_weight(weight, 0, WIDTH, HIDDEN, WIDTH)
        gates = load_weight(gate, 0, WIDTH, WIDTH, WIDTH)
    for block in range(tl.program_id(0), tl.cdiv(size, ROWS), tl.num_programs(0)):
        row = block * ROWS + tl.arange(0, ROWS)
        at = channel.to(tl.int64) * size + row[None, :]
        p = tl.load(product + at, mask=row[None, :] < size, other=0.0).to(tl.float32)
        p = norm_rows(tl.trans(p), norm_out, shift_out, epsilon, HIDDEN)
        if not KEEPS_WEIGHTS:
            back = load_weight(weight, 0, WIDTH, HIDDEN, WIDTH)
        update = tl.dot(p, tl.trans(back), input_precision="tf32")
        a = load_rows(z, row, size, WIDTH)
        if not KEEPS_WEIGHTS:
            gates = load_weight(gate, 0, WIDTH, WIDTH, WIDTH)
        gated = tl.dot(norm_rows(a, norm, shift, epsilon, WIDTH), tl.trans(gates), input_precision="tf32")
        store_rows(z, a + update * sigmoid(gated), row, size, WIDTH)


def _factors_fit(
    kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths, rstd: torch.Tensor | None = None
) -> bool:
    return fits_whole(z.shape[-1], z) and len(linear) // 2 % FACTOR_TILES.of(z).columns == 0


gated_channels.triton(triangle_factors_hopper.fits)(triangle_factors_hopper.run)
gated_channels.triton(triangle_product_hopper_128.factors_fit)(triangle_product_hopper_128.make_factors)


@gated_channels.triton(_factors_fit)
def _(
    kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths, rstd: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    n_out, n = len(linear) // 2, z.shape[-2]
    size, tiles = z.numel() // z.shape[-1], FACTOR_TILES.of(z)
    out = z.new_empty(n_out, *z.shape[:-1])
    launch(
        gated_channels_kernel, (triton.cdiv(size, tiles.rows),), z, *linear.norm, linear.weight, lengths.each, out,
        size, n, n_out, EPSILON, z.shape[-1], tiles.rows, tiles.columns, **tiles.options,
    )  # fmt: skip
    return out, rstd


def _update_fits(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> bool:
    return fits_whole(z.shape[-1], z) and fits_whole(len(product), z)


add_triangle.triton(triangle_update_hopper.fits)(triangle_update_hopper.run)
add_triangle.triton(triangle_product_hopper_128.update_fits)(triangle_product_hopper_128.add_update)


@add_triangle.triton(_update_fits)
def _(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> None:
    size, tiles = z.numel() // z.shape[-1], UPDATE_TILES.of(z)
    n_tile = triton.cdiv(size, tiles.rows)
    keeps_weights = gate.weight.nbytes + out.weight.nbytes <= _MAX_KEPT_BYTES
    grid = (kernels.n_block(z.device, n_tile, 2) if keeps_weights else n_tile,)
    launch(
        add_triangle_kernel, grid, z, product, *gate.norm, gate.weight, *out.norm, out.weight, size, EPSILON,
        z.shape[-1], len(product), tiles.rows, keeps_weights, **tiles.options,
    )  # fmt: skip


@gated_channels.probed
def _(inputs: Inputs) -> Iterator[Case]:
    lengths = inputs.lengths(27, 14)

    def cases(width: int) -> Iterator[Case]:
        z, linear = inputs.random(2, 36, 36, width), inputs.linear(4 * max(width, 128), width)
        yield lambda kernels: gated_channels(kernels, z, linear, lengths)[0]

    for width in (256, 128, 64):
        yield from cases(width)


@add_triangle.probed
def _(inputs: Inputs) -> Iterator[Case]:
    for width, hidden in ((256, 256), (128, 128), (64, 128), (64, 64)):
        z, product = inputs.random(2, 36, 36, width), inputs.random(hidden, 2, 36, 36)
        yield add_triangle.changing(
            z, product, inputs.linear(width, width), inputs.linear(width, hidden), inputs.rstd(z)
        )
    gate, out = inputs.linear(256, 256), inputs.linear(256, 256)

    def update(kernels: Kernels, z: torch.Tensor, after: PairBias) -> Known | None:
        return add_triangle(kernels, z, factors, gate, out, inputs.rstd(z), after)

    factors = inputs.random(256, 2, 36, 36)
    yield from known_cases(inputs, 8, True, update)
