"""Alg. 10: the values of each head from MSA rows, and the gated, projected update of the MSA from their averages.

The update is also used for triangle attention (Alg. 14).
"""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import EPSILON, Kernels, Tiles, TileTable
from protenix_multiseed.kernels.device_functions import load_rows, load_weight, norm_rows, sigmoid, store_rows
from protenix_multiseed.kernels.known import Known, PairBias
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops import msa_average_hopper, msa_average_hopper_128
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.pair_bias import known_cases
from protenix_multiseed.kernels.rows import fits_whole

VALUE_TILES = TileTable({torch.bfloat16: Tiles(64, 64, 4, 3), torch.float32: Tiles(64, 64, 4, 2)})
UPDATE_TILES = TileTable({
    torch.bfloat16: Tiles(64, 32, 4, 3),
    torch.float32: Tiles(64, 32, 4, 1),
    (torch.bfloat16, 256): Tiles(128, 64, 8, 2),
})  # fmt: skip
_HEAD_WIDTHS = (8, 16, 32, 64)  # channels of a head for which a thread reads contiguous pieces of memory


@Operation
def head_values(kernels: Kernels, m: torch.Tensor, linear: NormedLinear, n_head: int) -> torch.Tensor:
    """Alg. 10 lines 1-2: ``norm(m) weight^T``, split into heads -> [n_head, N, N_row * c].

    Args:
        m: MSA rows [N_row, N, c_m].
        linear: The norm, and a weight [n_head * c, c_m].
    """
    n_row, n, _ = m.shape
    values = norm_linear(kernels, m, linear).view(n_row, n, n_head, -1)
    return values.permute(2, 1, 0, 3).reshape(n_head, n, -1)


@Operation
def add_gated_average(
    kernels: Kernels,
    x: torch.Tensor,
    average: torch.Tensor,
    gate: NormedLinear,
    out: torch.Tensor,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> Known | None:
    """Alg. 10 lines 4-7 and Alg. 14 lines 4, 6, 7 in place: ``x += (average * sigmoid(norm(x) gate^T)) out^T``.

    Args:
        x: MSA or pair representation [..., N, c_x]. Any strides; the last dimension is contiguous.
        average: Each head's average of values [..., N, n_head, c]. The last dimension is contiguous. All other strides
            are multiples of c.
        gate: The norm, and a weight [n_head * c, c_x].
        out: [c_x, n_head * c].
        rstd: Reciprocal standard deviations of ``x`` [..., N] in float32, if known. A faster kernel needs them.
        after: The attention biases that are read next. ``x`` is then [A, N, N, c].

    Returns:
        What is known of ``x`` now. None: nothing.
    """
    gated = norm_linear(kernels, x, gate).sigmoid_().mul_(average.flatten(-2))
    if x.is_contiguous():
        x.view(-1, x.shape[-1]).addmm_(gated.view(-1, gated.shape[-1]), out.t())
    else:
        x += functional.linear(gated, out)
    return None


@triton.jit
def places_of_heads(first, row, token, by_row, by_token, by_head, HEAD: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of channels ``first`` to ``first + COLUMNS`` in the given rows of one token: [ROWS, COLUMNS].

    The strides ``by_row``, ``by_token`` and ``by_head`` are in units of HEAD elements, the channels of one head.
    """
    channel = first + tl.arange(0, COLUMNS)[None, :]
    piece = row[:, None].to(tl.int64) * by_row + token.to(tl.int64) * by_token + channel // HEAD * by_head
    return piece * HEAD + channel % HEAD


@triton.jit(do_not_specialize=["n_row", "n"])
def head_values_kernel(
    x,
    norm,
    shift,
    weight,
    out,
    n_row,
    n,
    n_out,
    epsilon,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of MSA rows of one token. Reads are contiguous over channels, writes over the channels of one head."""
    token = tl.program_id(0) % n
    row = tl.program_id(0) // n * ROWS + tl.arange(0, ROWS)
    a = norm_rows(load_rows(x, row * n + token, n_row * n, WIDTH), norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        made = tl.dot(a, tl.trans(load_weight(weight, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        inside = (row[:, None] < n_row) & (first + tl.arange(0, COLUMNS)[None, :] < n_out)
        at = places_of_heads(first, row, token, 1, n_row, n * n_row, HEAD, COLUMNS)
        tl.store(out + at, made.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row", "n", "by_row", "by_token", "by_head"])
def add_gated_average_kernel(
    x,
    average,
    norm,
    shift,
    gate,
    weight,
    n_row,
    n,
    n_out,
    by_row,
    by_token,
    by_head,
    epsilon,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of rows of one token. If ``average`` has the memory order of ``x``, all its rows come as one token."""
    token = tl.program_id(0) % n
    row = tl.program_id(0) // n * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    a = load_rows(x, row * n + token, n_row * n, WIDTH)
    normed = norm_rows(a, norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        gates = tl.dot(normed, tl.trans(load_weight(gate, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        channel = first + tl.arange(0, COLUMNS)[None, :]
        inside = (row[:, None] < n_row) & (channel < n_out)
        at = places_of_heads(first, row, token, by_row, by_token, by_head, HEAD, COLUMNS)
        gated = tl.load(average + at, mask=inside, other=0.0).to(tl.float32) * sigmoid(gates)
        back = tl.load(weight + column[:, None] * n_out + channel, mask=channel < n_out, other=0.0)
        a = tl.dot(gated.to(weight.dtype.element_ty), tl.trans(back), a, input_precision="tf32")
    store_rows(x, a, row * n + token, n_row * n, WIDTH)


def _values_fit(kernels: Kernels, m: torch.Tensor, linear: NormedLinear, n_head: int) -> bool:
    return fits_whole(m.shape[-1], m) and len(linear) // n_head in _HEAD_WIDTHS


@head_values.triton(_values_fit)
def _(kernels: Kernels, m: torch.Tensor, linear: NormedLinear, n_head: int) -> torch.Tensor:
    n_row, n, width = m.shape
    head, tiles = len(linear) // n_head, VALUE_TILES.of(m)
    out = m.new_empty(n_head, n, n_row * head)
    grid = (n * triton.cdiv(n_row, tiles.rows),)
    launch(
        head_values_kernel, grid, m, *linear.norm, linear.weight, out, n_row, n, len(linear), EPSILON, width, head,
        tiles.rows, tiles.columns, **tiles.options,
    )  # fmt: skip
    return out


def _update_fits(
    kernels: Kernels,
    x: torch.Tensor,
    average: torch.Tensor,
    gate: NormedLinear,
    out: torch.Tensor,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> bool:
    return fits_whole(x.shape[-1], x) and average.shape[-1] in _HEAD_WIDTHS and x.is_contiguous()


add_gated_average.triton(msa_average_hopper.fits)(msa_average_hopper.run)
add_gated_average.triton(msa_average_hopper_128.fits)(msa_average_hopper_128.run)


@add_gated_average.triton(_update_fits)
def _(
    kernels: Kernels,
    x: torch.Tensor,
    average: torch.Tensor,
    gate: NormedLinear,
    out: torch.Tensor,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> None:
    width, head = x.shape[-1], average.shape[-1]
    # If the averages have the memory order of x, treat all of them as rows of a single token.
    average = average.flatten(0, -3)[:, None] if average.is_contiguous() else average.flatten(0, -4)
    n_row, n = average.shape[:2]
    strides = [stride // head for stride in average.stride()[:3]]
    tiles = UPDATE_TILES.of(x)
    grid = (n * triton.cdiv(n_row, tiles.rows),)
    launch(
        add_gated_average_kernel, grid, x, average, *gate.norm, gate.weight, out, n_row, n, len(gate), *strides,
        EPSILON, width, head, tiles.rows, tiles.columns, **tiles.options,
    )  # fmt: skip


@head_values.probed
def _(inputs: Inputs) -> Iterator[Case]:
    for width in (64, 128):
        yield head_values.making(inputs.random(70, 32, width), inputs.linear(64, width), 8)


@add_gated_average.probed
def _(inputs: Inputs) -> Iterator[Case]:
    averaged = inputs.random(8, 32, 70, 8).permute(2, 1, 0, 3)
    for width in (64, 128):  # an MSA
        msa, gate, out = inputs.random(70, 32, width), inputs.linear(64, width), inputs.matrix(width, 64)
        yield add_gated_average.changing(msa, averaged, gate, out)
    for width in (256, 128, 64):  # pairs
        z, hidden = inputs.random(2, 36, 36, width), max(width, 128)
        average = inputs.random(2, 36, 36, hidden // 32, 32)
        gate, out = inputs.linear(hidden, width), inputs.matrix(width, hidden)
        yield add_gated_average.changing(z, average, gate, out, inputs.rstd(z))
    average, gate, out = inputs.random(2, 36, 36, 8, 32), inputs.linear(256, 256), inputs.matrix(256, 256)

    def update(kernels: Kernels, z: torch.Tensor, after: PairBias) -> Known | None:
        return add_gated_average(kernels, z, average, gate, out, inputs.rstd(z), after)

    yield from known_cases(inputs, 8, False, update)
