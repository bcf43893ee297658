"""Alg. 23-26: the diffusion transformer except its attention, conditioned on the noise level and the trunk.

All samples of a seed share their conditioning.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import EPSILON, Kernels, Tiles, TileTable, product
from protenix_multiseed.kernels.device_functions import load_rows, sigmoid, standardise, store_rows, transition
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops.norm import norm, tile_of
from protenix_multiseed.kernels.ops.transition import swiglu
from protenix_multiseed.kernels.rows import fits_whole

TILES = TileTable({
    torch.bfloat16: Tiles(64, 32, 4, 2), torch.float16: Tiles(64, 32, 4, 2), torch.float32: Tiles(64, 16, 4, 3)
})  # fmt: skip


@Operation
def modulated_norm(kernels: Kernels, a: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Alg. 26 with an already projected conditioning: ``norm(a) * sigmoid(scale) + shift``.

    Args:
        a: [A, B, N, c].
        scale, shift: [A, 1, N, c], two slices of one tensor along its last dimension, so their strides are equal.

    Returns:
        [A, B, N, c] in the dtype of ``scale``.
    """
    dtype, scale, shift = scale.dtype, scale.to(a.dtype), shift.to(a.dtype)
    return torch.addcmul(shift, norm(kernels, a, None, None), torch.sigmoid(scale)).to(dtype)


@Operation
def add_modulated(kernels: Kernels, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """In place: ``a += update * sigmoid(gate)``. Returns ``a``.

    Args:
        a, update: [A, B, N, c].
        gate: [A, 1, N, c].
    """
    return a.addcmul_(update.to(a.dtype), torch.sigmoid(gate.to(a.dtype)))


@Operation
def add_then_norm(
    kernels: Kernels,
    a: torch.Tensor,
    update: torch.Tensor,
    gate: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> torch.Tensor:
    """:func:`add_modulated` into ``a``, then :func:`modulated_norm` of it."""
    return modulated_norm(kernels, add_modulated(kernels, a, update, gate), scale, shift)


@Operation
def add_conditioned_transition(
    kernels: Kernels,
    a: torch.Tensor,
    update: torch.Tensor,
    conditioning: Sequence[torch.Tensor],
    expand: torch.Tensor,
    contract: torch.Tensor,
) -> torch.Tensor:
    """Alg. 23 after the attention: gate the attention output, add it to ``a``, then add Alg. 25. Returns ``a``.

    ``a += update * sigmoid(update_gate); a += swiglu(modulated_norm(a) expand^T) contract^T * sigmoid(gate)``

    If weights and conditioning are in 16 bits, ``a`` and ``update`` may be in 32.

    Args:
        a: [A, B, N, c]. Changed in place.
        update: Attention output before its gate [A, B, N, c].
        conditioning: ``update_gate``, scale and shift of the norm, and ``gate``, each [A, 1, N, c], before their
            sigmoids. The two gates are slices of one tensor along its last dimension. So are scale and shift.
        expand: Weights of both halves of the expansion [2 * c_hidden, c].
        contract: [c, c_hidden].
    """
    update_gate, scale, shift, gate = conditioning
    normed = add_then_norm(kernels, a, update, update_gate, scale, shift)
    hidden = swiglu(kernels, functional.linear(normed, expand))
    return add_modulated(kernels, a, product(hidden, contract, a.dtype), gate)


@triton.jit
def places_of_conditioning(row, size, rows_per_seed, length, stride):
    """Offset at which the conditioning of each row begins. Samples of one seed share their conditioning."""
    row = tl.minimum(row, size - 1)
    return (row // rows_per_seed * length + row % length).to(tl.int64) * stride


@triton.jit(do_not_specialize=["n_row", "rows_per_seed", "length"])
def modulated_norm_kernel(
    x,
    update,
    gate,
    scale,
    shift,
    out,
    n_row,
    width,
    rows_per_seed,
    length,
    gate_stride,
    stride,
    epsilon,
    HAS_UPDATE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    here = row.to(tl.int64) * width + column
    a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        b = tl.load(update + here, mask=inside, other=0.0).to(tl.float32)
        at = places_of_conditioning(row, n_row, rows_per_seed, length, gate_stride) + column
        b *= sigmoid(tl.load(gate + at, mask=inside, other=0.0).to(tl.float32))
        a = (a + b).to(x.dtype.element_ty)
        tl.store(x + here, a, mask=inside)
        a = a.to(tl.float32)
    mean = tl.sum(a, axis=1)[:, None] / width
    centred = tl.where(column < width, a - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / width
    a = centred * tl.rsqrt(variance + epsilon)
    at = places_of_conditioning(row, n_row, rows_per_seed, length, stride) + column
    a *= sigmoid(tl.load(scale + at, mask=inside, other=0.0).to(tl.float32))
    a += tl.load(shift + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + here, a.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row", "rows_per_seed", "length"])
def add_modulated_kernel(
    x, update, gate, n_row, width, rows_per_seed, length, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    here = row.to(tl.int64) * width + column
    at = places_of_conditioning(row, n_row, rows_per_seed, length, stride) + column
    a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(update + here, mask=inside, other=0.0).to(tl.float32)
    a += b * sigmoid(tl.load(gate + at, mask=inside, other=0.0).to(tl.float32))
    tl.store(x + here, a.to(x.dtype.element_ty), mask=inside)


@triton.jit
def modulate_rows(a, scale, shift, at, epsilon, WIDTH: tl.constexpr):
    """Adaptive layer norm of whole rows [ROWS, WIDTH]; each row's conditioning begins at offset ``at``."""
    column = tl.arange(0, WIDTH)[None, :]
    a = standardise(a, epsilon, WIDTH) * sigmoid(tl.load(scale + at[:, None] + column).to(tl.float32))
    return a + tl.load(shift + at[:, None] + column).to(tl.float32)


@triton.jit
def gates_of_rows(gate, at, WIDTH: tl.constexpr):
    """Sigmoid of the gates of whole rows [ROWS, WIDTH]; each row's gates begin at offset ``at``."""
    return sigmoid(tl.load(gate + at[:, None] + tl.arange(0, WIDTH)[None, :]).to(tl.float32))


@triton.jit
def add_gated(x, update, gate, at_gate, row, size, WIDTH: tl.constexpr):
    """Whole rows [ROWS, WIDTH] of ``x + update * sigmoid(gate)``, rounded to the dtype of ``x``."""
    b = load_rows(update, row, size, WIDTH) * gates_of_rows(gate, at_gate, WIDTH)
    return (load_rows(x, row, size, WIDTH) + b).to(x.dtype.element_ty)


@triton.jit(do_not_specialize=["size", "rows_per_seed", "length"])
def add_conditioned_transition_kernel(
    x,
    update,
    update_gate,
    scale,
    shift,
    gate,
    expand,
    contract,
    size,
    rows_per_seed,
    length,
    stride,
    gate_stride,
    n_hidden,
    epsilon,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = places_of_conditioning(row, size, rows_per_seed, length, stride)
    at_gate = places_of_conditioning(row, size, rows_per_seed, length, gate_stride)
    a = add_gated(x, update, update_gate, at_gate, row, size, WIDTH)
    normed = modulate_rows(a.to(tl.float32), scale, shift, at, epsilon, WIDTH).to(expand.dtype.element_ty)
    made = tl.zeros([ROWS, WIDTH], tl.float32)
    made = transition(normed, made, expand, contract, n_hidden, WIDTH, HIDDEN)
    made *= gates_of_rows(gate, at_gate, WIDTH)
    store_rows(x, a.to(tl.float32) + made, row, size, WIDTH)


@modulated_norm.triton()
def _(kernels: Kernels, a: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return _launch_norm(a.contiguous(), None, None, scale, shift)


@add_then_norm.triton()
def _(
    kernels: Kernels,
    a: torch.Tensor,
    update: torch.Tensor,
    gate: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> torch.Tensor:
    return _launch_norm(a, update, gate, scale, shift)


def _launch_norm(
    a: torch.Tensor,
    update: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> torch.Tensor:
    _, shared, length, width = a.shape
    n_row = a.numel() // width
    out = torch.empty_like(a, dtype=scale.dtype)
    rows, columns = tile_of(width)
    launch(
        modulated_norm_kernel, (triton.cdiv(n_row, rows),), a, update, gate, scale, shift, out, n_row, width,
        shared * length, length, 0 if gate is None else _stride(gate), _stride(scale), EPSILON, update is not None,
        rows, columns,
    )  # fmt: skip
    return out


@add_modulated.triton()
def _(kernels: Kernels, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    _, shared, length, width = a.shape
    n_row = a.numel() // width
    rows, columns = tile_of(width)
    launch(
        add_modulated_kernel, (triton.cdiv(n_row, rows),), a, update, gate, n_row, width, shared * length, length,
        _stride(gate), rows, columns,
    )  # fmt: skip
    return a


def _fits(
    kernels: Kernels,
    a: torch.Tensor,
    update: torch.Tensor,
    conditioning: Sequence[torch.Tensor],
    expand: torch.Tensor,
    contract: torch.Tensor,
) -> bool:
    return fits_whole(a.shape[-1], a) and contract.shape[1] % TILES.of(expand).columns == 0


@add_conditioned_transition.triton(_fits)
def _(
    kernels: Kernels,
    a: torch.Tensor,
    update: torch.Tensor,
    conditioning: Sequence[torch.Tensor],
    expand: torch.Tensor,
    contract: torch.Tensor,
) -> torch.Tensor:
    _, shared, length, width = a.shape
    size, tiles = a.numel() // width, TILES.of(expand)
    gate, scale, *_ = conditioning
    launch(
        add_conditioned_transition_kernel, (triton.cdiv(size, tiles.rows),), a, update, *conditioning, expand, contract,
        size, shared * length, length, _stride(scale), _stride(gate), contract.shape[1], EPSILON, width, tiles.rows,
        tiles.columns, **tiles.options,
    )  # fmt: skip
    return a


def _stride(conditioning: torch.Tensor) -> int:
    """Row stride of a conditioning tensor [A, 1, N, c], which may be a slice of wider rows."""
    return conditioning.stride(2)


@modulated_norm.probed_in_half_too
def _(inputs: Inputs) -> Iterator[Case]:
    for make, width in ((inputs.rows, 768), (inputs.rows, 128), (inputs.random, 128)):
        scale, shift, *_ = inputs.random(2, 1, 35, 4 * width).chunk(4, dim=-1)
        yield modulated_norm.making(make(2, 2, 35, width), scale, shift)


@add_conditioned_transition.probed_in_half_too
def _(inputs: Inputs) -> Iterator[Case]:
    # Rows of tokens (768 channels) are too wide for this kernel. The PyTorch version runs instead. It calls other
    # operations that have kernels, such as add_then_norm and add_modulated.
    for width, hidden in ((768, 1536), (128, 256)):
        a, update = inputs.rows(2, 2, 35, width), inputs.rows(2, 2, 35, width)
        norms, gates = inputs.random(2, 1, 35, 4 * width).chunk(4, dim=-1), inputs.random(2, 1, 35, 2 * width)
        first, last = gates.chunk(2, dim=-1)
        both = inputs.matrix(2 * hidden, width), inputs.matrix(width, hidden)
        yield add_conditioned_transition.changing(a, update, (first, *norms[2:], last), *both)
