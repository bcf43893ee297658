"""The programs of the diffusion network but for its attention; a seed's samples share their conditioning."""

import triton
import triton.language as tl

from protenix_multiseed.model.kernels.source.rows import sigmoid


@triton.jit(do_not_specialize=["n_row", "rows_per_seed", "length"])
def modulated_norm(
    x,
    scale,
    shift,
    out,
    n_row,
    width,
    rows_per_seed,
    length,
    stride,
    epsilon,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    here = row.to(tl.int64) * width + column
    a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(a, axis=1)[:, None] / width
    centred = tl.where(column < width, a - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / width
    a = centred * tl.rsqrt(variance + epsilon)
    at = (row // rows_per_seed * length + row % length).to(tl.int64) * stride + column
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
    at = (row // rows_per_seed * length + row % length).to(tl.int64) * stride + column
    a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(update + here, mask=inside, other=0.0).to(tl.float32)
    a += b * sigmoid(tl.load(gate + at, mask=inside, other=0.0).to(tl.float32))
    tl.store(x + here, a.to(x.dtype.element_ty), mask=inside)


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
