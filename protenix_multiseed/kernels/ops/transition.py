"""Alg. 11: the SwiGLU transition."""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import EPSILON, Kernels, Norm, Tiles, TileTable
from protenix_multiseed.kernels.device_functions import load_rows, norm_rows, sigmoid, store_rows, transition
from protenix_multiseed.kernels.known import Known, PairBias
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops import transition_hopper, transition_hopper_128
from protenix_multiseed.kernels.ops.norm import tile_of
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.pair_bias import known_cases
from protenix_multiseed.kernels.rows import fits_whole

TILES = TileTable({
    torch.bfloat16: Tiles(128, 32, 8, 3, 128),
    torch.float32: Tiles(64, 16, 4, 3),
    (torch.bfloat16, 256): Tiles(64, 16, 4, 3),
})  # fmt: skip


@Operation
def swiglu(kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
    """``silu(first half) * second half`` of the last dimension: [..., 2 * c] -> [..., c]."""
    first, second = x.chunk(2, dim=-1)
    return functional.silu(first).mul_(second)


@Operation
def add_transition(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
    after: PairBias | None = None,
) -> Known | None:
    """Alg. 11 in place: ``x += swiglu(norm(x) expand^T) contract^T``.

    Args:
        x: [..., c].
        expand: Weights of both halves of the expansion [2 * c_hidden, c].
        contract: [c, c_hidden].
        after: The attention biases that are read next. ``x`` is then [A, N, N, c].

    Returns:
        What is known of ``x`` now. None: nothing.
    """
    for rows in torch.split(x.view(-1, x.shape[-1]), max(1, kernels.elements // len(expand))):
        rows.addmm_(swiglu(kernels, norm_linear(kernels, rows, NormedLinear(norm, expand))), contract.t())
    return None


@triton.jit(do_not_specialize=["n_row"])
def swiglu_kernel(x, out, n_row, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    first = tl.load(x + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    a = first * sigmoid(first) * second
    tl.store(out + row * width + column, a.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["size"])
def add_transition_kernel(
    x,
    norm,
    shift,
    expand,
    contract,
    size,
    n_hidden,
    epsilon,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    a = load_rows(x, row, size, WIDTH)
    a = transition(norm_rows(a, norm, shift, epsilon, WIDTH), a, expand, contract, n_hidden, WIDTH, HIDDEN)
    store_rows(x, a, row, size, WIDTH)


@swiglu.triton()
def _(kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
    width = x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], width)
    n_row = out.numel() // width
    rows, columns = tile_of(width)
    launch(swiglu_kernel, (triton.cdiv(n_row, rows),), x, out, n_row, width, rows, columns)
    return out


def _fits(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
    after: PairBias | None = None,
) -> bool:
    return fits_whole(x.shape[-1], x) and contract.shape[1] % TILES.of(x).columns == 0


add_transition.triton(transition_hopper.fits)(transition_hopper.run)
add_transition.triton(transition_hopper_128.fits)(transition_hopper_128.run)


@add_transition.triton(_fits)
def _(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
    after: PairBias | None = None,
) -> None:
    size, tiles = x.numel() // x.shape[-1], TILES.of(x)
    launch(
        add_transition_kernel, (triton.cdiv(size, tiles.rows),), x, *norm, expand, contract, size, len(expand) // 2,
        EPSILON, x.shape[-1], tiles.rows, tiles.columns, **tiles.options,
    )  # fmt: skip


@add_transition.probed
def _(inputs: Inputs) -> Iterator[Case]:
    # Rows of the single representation (384 channels) are too wide for this kernel. The PyTorch version runs instead.
    # It calls other operations that have kernels, such as swiglu.
    yield add_transition.changing(
        inputs.random(2, 32, 384), inputs.norm(384), inputs.matrix(2 * 1536, 384), inputs.matrix(384, 1536)
    )
    for width in (256, 128, 64):
        z = inputs.random(2, 36, 36, width)
        both = inputs.matrix(8 * width, width), inputs.matrix(width, 4 * width)
        yield add_transition.changing(z, inputs.norm(width), *both)
    norm, expand, contract = inputs.norm(256), inputs.matrix(2048, 256), inputs.matrix(256, 1024)

    def update(kernels: Kernels, z: torch.Tensor, after: PairBias) -> Known | None:
        return add_transition(kernels, z, norm, expand, contract, after)

    yield from known_cases(inputs, 16, True, update)


@swiglu.probed
def _(inputs: Inputs) -> Iterator[Case]:
    yield swiglu.making(inputs.random(2, 35, 768))
