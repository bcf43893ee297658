"""A layer norm followed by a matrix product."""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import EPSILON, Kernels, Tiles, TileTable
from protenix_multiseed.kernels.device_functions import load_rows, load_weight, norm_rows
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops import norm_linear_hopper, norm_linear_hopper_128
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.rows import fits_whole

TILES = TileTable({
    torch.bfloat16: Tiles(64, 64, 4, 3),
    torch.float32: Tiles(128, 64, 8, 3),
    (torch.bfloat16, 256): Tiles(64, 32, 4, 3),
})  # fmt: skip
_MAX_ROWS = 2048  # the PyTorch version of norm_linear_parts takes as many at a time, so that temporaries stay small


@Operation
def norm_linear(
    kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None
) -> torch.Tensor:
    """``norm(x) weight^T`` -> [..., c_out].

    Args:
        x: [..., c].
        linear: The norm, and a weight [c_out, c].
        rstd: Reciprocal standard deviations of ``x`` [...] in float32, if known. A faster kernel needs them.
    """
    return functional.linear(layer_norm(kernels, x, *linear.norm), linear.weight)


@Operation
def norm_linear_parts(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, n_part: int) -> torch.Tensor:
    """Like :func:`norm_linear`, with each of ``n_part`` equal parts of the output in memory of its own.

    Args:
        x: [R, ..., c].

    Returns:
        [n_part, R, ..., c_out / n_part].
    """
    out = x.new_empty(n_part, *x.shape[:-1], len(linear) // n_part)
    for start in range(0, len(x), _MAX_ROWS):
        rows = slice(start, start + _MAX_ROWS)
        for part, made in zip(out, norm_linear(kernels, x[rows], linear).chunk(n_part, dim=-1), strict=True):
            part[rows] = made
    return out


@triton.jit(do_not_specialize=["size"])
def norm_linear_kernel(
    x, norm, shift, weight, out, size, n_out, n_of_part, epsilon, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """The output has parts of ``n_of_part`` channels, one after another in memory."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    a = norm_rows(load_rows(x, row, size, WIDTH), norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        made = tl.dot(a, tl.trans(load_weight(weight, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        column = first + tl.arange(0, COLUMNS)[None, :]
        at = (column // n_of_part * size.to(tl.int64) + row[:, None]) * n_of_part + column % n_of_part
        tl.store(out + at, made.to(out.dtype.element_ty), mask=(row[:, None] < size) & (column < n_out))


norm_linear.triton(norm_linear_hopper.fits)(norm_linear_hopper.run)
norm_linear.triton(norm_linear_hopper_128.fits)(norm_linear_hopper_128.run)


@norm_linear.triton(lambda kernels, x, linear, rstd=None: fits_whole(x.shape[-1], x))
def _(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> torch.Tensor:
    out = x.new_empty(*x.shape[:-1], len(linear))
    _launch(x.contiguous(), linear, out)
    return out


@norm_linear_parts.triton(lambda kernels, x, linear, n_part: fits_whole(x.shape[-1], x))
def _(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, n_part: int) -> torch.Tensor:
    out = x.new_empty(n_part, *x.shape[:-1], len(linear) // n_part)
    _launch(x.contiguous(), linear, out)
    return out


def _launch(x: torch.Tensor, linear: NormedLinear, out: torch.Tensor) -> None:
    size, tiles, n_of_part = x.numel() // x.shape[-1], TILES.of(x), out.shape[-1]
    columns = min(tiles.columns, triton.next_power_of_2(n_of_part))
    launch(
        norm_linear_kernel, (triton.cdiv(size, tiles.rows),), x, *linear.norm, linear.weight, out, size, len(linear),
        n_of_part, EPSILON, x.shape[-1], tiles.rows, columns, **tiles.options,
    )  # fmt: skip


@norm_linear.probed
def _(inputs: Inputs) -> Iterator[Case]:
    for width in (256, 128, 64):  # pair channels: protenix-v2, the other models, templates
        z, hidden = inputs.random(2, 36, 36, width), max(width, 128)
        yield norm_linear.making(z, inputs.linear(3 * hidden, width), inputs.rstd(z))
        if width == 128:  # recycling, and the projection to templates
            yield from (norm_linear.making(z, inputs.linear(n_out, width)) for n_out in (128, 64))
    for width in (64, 128):  # MSA channels
        yield norm_linear.making(inputs.random(70, 32, width), inputs.linear(32, width))


@norm_linear_parts.probed
def _(inputs: Inputs) -> Iterator[Case]:
    for width in (64, 128):
        yield norm_linear_parts.making(inputs.random(70, 35, width), inputs.linear(2 * 32, width), 2)
