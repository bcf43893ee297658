"""Layer norm over the last dimension, and what it multiplies rows by."""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import EPSILON, Kernels
from protenix_multiseed.kernels.device_functions import load_rows, variance
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.rows import fits_whole
from protenix_multiseed.limits import FOLDED_CHANNELS

_ROWS = 32  # rows that one thread block of reciprocal_deviations reads


@Operation
def norm(kernels: Kernels, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """Layer norm over the last dimension of ``x`` [..., c]; the result has the dtype of ``x``."""
    return functional.layer_norm(x, x.shape[-1:], weight, bias, EPSILON).to(x.dtype)  # autocast makes float32


@Operation
def reciprocal_deviations(kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
    """What a layer norm multiplies each row of ``x`` [..., c] by -> [...] in float32."""
    return torch.rsqrt(x.float().var(dim=-1, correction=0) + EPSILON)


@triton.jit(do_not_specialize=["n_row"])
def norm_kernel(
    x,
    weight,
    bias,
    out,
    n_row,
    width,
    epsilon,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    a = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(a, axis=1)[:, None] / width
    centred = tl.where(column < width, a - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / width
    a = centred * tl.rsqrt(variance + epsilon)
    if HAS_WEIGHT:
        a *= tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    if HAS_BIAS:
        a += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, a.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["size"])
def reciprocal_deviations_kernel(x, out, size, epsilon, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    found = tl.rsqrt(variance(load_rows(x, row, size, WIDTH), WIDTH) + epsilon)
    tl.store(out + row, found, mask=row < size)


@norm.triton()
def _(kernels: Kernels, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    x = x.contiguous()
    width = x.shape[-1]
    n_row = x.numel() // width
    out = torch.empty_like(x)
    rows, columns = tile_of(width)
    launch(
        norm_kernel, (triton.cdiv(n_row, rows),), x, weight, bias, out, n_row, width, EPSILON, weight is not None,
        bias is not None, rows, columns,
    )  # fmt: skip
    return out


@reciprocal_deviations.triton(lambda kernels, x: fits_whole(x.shape[-1], x) and x.is_contiguous())
def _(kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.shape[:-1], dtype=torch.float32)
    grid = (triton.cdiv(out.numel(), _ROWS),)
    launch(reciprocal_deviations_kernel, grid, x, out, out.numel(), EPSILON, x.shape[-1], _ROWS)
    return out


def tile_of(width: int) -> tuple[int, int]:
    """Numbers of rows and columns in the tile of one thread block, which reads whole rows of ``width`` channels."""
    columns = triton.next_power_of_2(width)
    return max(1, 1024 // columns), columns


@norm.probed
def _(inputs: Inputs) -> Iterator[Case]:
    for width in (384, 256, 128, 64):  # single representation; pairs: protenix-v2, the other models, templates
        yield norm.making(inputs.random(2, 32, width), *inputs.norm(width))
    for width in (768, 128):  # tokens and atoms in the denoiser
        yield norm.making(inputs.random(2, 2, 35, width), inputs.random(width), None)


@reciprocal_deviations.probed
def _(inputs: Inputs) -> Iterator[Case]:
    yield reciprocal_deviations.making(inputs.random(2, 36, 36, FOLDED_CHANNELS))
