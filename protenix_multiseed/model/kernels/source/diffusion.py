"""The programs of the diffusion network but for its attention; a seed's samples share their conditioning."""

import triton
import triton.language as tl

from protenix_multiseed.model.kernels.source.rows import load_rows, sigmoid, standardise, store_rows, transition


@triton.jit
def places_of_conditioning(row, size, rows_per_seed, length, stride):
    """Where the conditioning of rows begins, which a seed's samples share."""
    row = tl.minimum(row, size - 1)
    return (row // rows_per_seed * length + row % length).to(tl.int64) * stride


@triton.jit(do_not_specialize=["n_row", "rows_per_seed", "length"])
def modulated_norm(
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
def add_modulated(
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
    """Adaptive layer norm of whole rows [ROWS, WIDTH]; ``at`` says where each row's conditioning begins."""
    column = tl.arange(0, WIDTH)[None, :]
    a = standardise(a, epsilon, WIDTH) * sigmoid(tl.load(scale + at[:, None] + column).to(tl.float32))
    return a + tl.load(shift + at[:, None] + column).to(tl.float32)


@triton.jit
def gates_of_rows(gate, at, WIDTH: tl.constexpr):
    """The gates of whole rows, which begin at ``at``: [ROWS, WIDTH]."""
    return sigmoid(tl.load(gate + at[:, None] + tl.arange(0, WIDTH)[None, :]).to(tl.float32))


@triton.jit
def add_gated(x, update, gate, at_gate, row, size, WIDTH: tl.constexpr):
    """Whole rows of ``x + update * sigmoid(gate)``, rounded to the type of ``x``."""
    b = load_rows(update, row, size, WIDTH) * gates_of_rows(gate, at_gate, WIDTH)
    return (load_rows(x, row, size, WIDTH) + b).to(x.dtype.element_ty)


@triton.jit(do_not_specialize=["size", "rows_per_seed", "length"])
def add_conditioned_transition(
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
    normed = modulate_rows(a.to(tl.float32), scale, shift, at, epsilon, WIDTH).to(a.dtype)
    made = tl.zeros([ROWS, WIDTH], tl.float32)
    made = transition(normed, made, expand, contract, n_hidden, WIDTH, HIDDEN)
    made *= gates_of_rows(gate, at_gate, WIDTH)
    store_rows(x, a.to(tl.float32) + made, row, size, WIDTH)


@triton.jit(do_not_specialize=["n_atom", "n_token", "most"])
def mean_of_atoms(x, atoms, count, out, n_atom, n_token, most, width, COLUMNS: tl.constexpr):
    token = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    n = tl.load(count + token)
    total = tl.zeros([COLUMNS], tl.float32)
    for nth in range(0, n):
        atom = tl.load(atoms + token * most + nth)
        a = tl.load(x + (sample * n_atom + atom) * width + column, mask=column < width, other=0.0).to(tl.float32)
        total += tl.maximum(a, 0.0)
    total /= tl.maximum(n, 1).to(tl.float32)
    tl.store(out + (sample * n_token + token) * width + column, total.to(out.dtype.element_ty), mask=column < width)
