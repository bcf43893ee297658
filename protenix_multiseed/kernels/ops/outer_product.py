"""Alg. 9 lines 3-4: project outer products and add them to the pair representation."""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Kernels, Tiles, TileTable
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.rows import fits_whole

TILES = TileTable({torch.bfloat16: Tiles(128, 0, 8, 5), torch.float32: Tiles(64, 0, 4, 3)})


@Operation
def add_outer(
    kernels: Kernels, z: torch.Tensor, outer: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: float
) -> None:
    """In place: ``z += (outer weight^T + bias) / count``.

    Args:
        z: R rows of the pair representation of one seed [R, N, c_z].
        outer: Outer products of these rows, summed over the MSA rows [R * c, N * c].
        weight: [c_z, c * c].
        bias: [c_z].
        count: Divisor: the number of MSA rows plus upstream's epsilon.
    """
    n_row, n, _ = z.shape
    products = outer.view(n_row, -1, n, outer.shape[1] // n).transpose(1, 2).reshape(n_row, n, -1)
    z += functional.linear(products, weight, bias) / count


@triton.jit(do_not_specialize=["n"])
def add_outer_kernel(z, outer, weight, bias, n, count, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr):
    n_block = tl.cdiv(n, ROWS)
    first = (tl.program_id(0) // n_block).to(tl.int64)
    second = tl.program_id(0) % n_block * ROWS + tl.arange(0, ROWS)
    inside = second[:, None] < n
    channel, column = tl.arange(0, HIDDEN)[None, :], tl.arange(0, WIDTH)
    stride = n.to(tl.int64) * HIDDEN
    outer += first * HIDDEN * stride + second[:, None] * HIDDEN + channel
    made = tl.zeros([ROWS, WIDTH], tl.float32)
    for part in range(HIDDEN):
        products = tl.load(outer + part * stride, mask=inside, other=0.0)
        of_part = tl.load(weight + column[:, None] * (HIDDEN * HIDDEN) + part * HIDDEN + channel)
        made = tl.dot(products, tl.trans(of_part), made, input_precision="tf32")
    made = (made + tl.load(bias + column).to(tl.float32)[None, :]) / count
    at = (first * n + second[:, None]) * WIDTH + column[None, :]
    made += tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(z + at, made.to(z.dtype.element_ty), mask=inside)


@add_outer.triton(
    lambda kernels, z, outer, weight, bias, count: fits_whole(z.shape[-1], z) and fits_whole(len(outer) // len(z), z)
)
def _(
    kernels: Kernels, z: torch.Tensor, outer: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: float
) -> None:
    n_row, n, width = z.shape
    tiles = TILES.of(z)
    grid = (n_row * triton.cdiv(n, tiles.rows),)
    launch(
        add_outer_kernel, grid, z, outer, weight, bias, n, count, width, len(outer) // n_row, tiles.rows,
        **tiles.options,
    )  # fmt: skip


@add_outer.probed
def _(inputs: Inputs) -> Iterator[Case]:
    for width in (256, 128):
        outer, weight = inputs.random(7 * 32, 32 * 32), inputs.matrix(width, 32 * 32)
        yield add_outer.changing(inputs.random(7, 32, width), outer, weight, inputs.random(width), 12.5)
