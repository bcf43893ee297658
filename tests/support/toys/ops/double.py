"""A toy operation that doubles a tensor. It has only the parts that every operation needs."""

import torch

from protenix_multiseed.kernels.base import Tiles, TileTable
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Operation

TILES = TileTable({torch.bfloat16: Tiles(64, 1, 4, 1), torch.float32: Tiles(64, 1, 4, 1)})


@Operation
def double(kernels, x):
    """``2 x``."""
    return x * 2


@triton.jit(do_not_specialize=["size"])
def double_kernel(x, out, size, ROWS: tl.constexpr):
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(out + at, tl.load(x + at, mask=at < size) * 2, mask=at < size)


@double.triton()
def _(kernels, x):
    out, tiles = torch.empty_like(x), TILES.of(x)
    launch(double_kernel, (triton.cdiv(x.numel(), tiles.rows),), x, out, x.numel(), tiles.rows, **tiles.options)
    return out


@double.probed
def _(inputs):
    yield double.making(inputs.random(100))
