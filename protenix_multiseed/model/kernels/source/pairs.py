"""The programs of the pair representation."""

import triton
import triton.language as tl

from protenix_multiseed.model.kernels.source.rows import load_rows, load_weight, norm_rows, sigmoid, store_rows


@triton.jit(do_not_specialize=["n", "n_row", "n_token", "n_head"])
def pair_bias(
    z,
    norm,
    shift,
    weight,
    out,
    n,
    n_row,
    n_column,
    n_token,
    o_pair,
    o_head,
    o_row,
    o_column,
    n_head,
    epsilon,
    MASKED: tl.constexpr,
    IS_TRANSPOSED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
):
    """A part of one row of pairs; rows or columns beyond ``n`` are there to be masked."""
    n_block = tl.cdiv(n_column, ROWS)
    row = tl.program_id(0) // n_block % n_row
    pair = tl.program_id(0) // (n_block * n_row)
    column = tl.program_id(0) % n_block * ROWS + tl.arange(0, ROWS)
    z += (pair * n + row).to(tl.int64) * n * WIDTH
    a = norm_rows(load_rows(z, column, tl.where(row < n, n, 0), WIDTH), norm, shift, epsilon, WIDTH)
    made = tl.dot(load_weight(weight, 0, n_head, WIDTH, HEADS), tl.trans(a), input_precision="tf32")
    head = tl.arange(0, HEADS)[:, None]
    is_key = row < n_token if IS_TRANSPOSED else column[None, :] < n_token
    made = tl.where(is_key, made, MASKED)
    out += pair.to(tl.int64) * o_pair + row * o_row
    at = head.to(tl.int64) * o_head + column[None, :] * o_column
    tl.store(out + at, made.to(out.dtype.element_ty), mask=(head < n_head) & (column[None, :] < n_column))


@triton.jit(do_not_specialize=["n", "n_token"])
def gated_channels(
    z,
    norm,
    shift,
    weight,
    out,
    size,
    n,
    n_token,
    n_out,
    epsilon,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = (row // n % n < n_token) & (row % n < n_token)
    normed = norm_rows(load_rows(z, row, size, WIDTH), norm, shift, epsilon, WIDTH)
    a = tl.trans(tl.where(real[:, None], normed, 0.0).to(normed.dtype))
    # Eight values and their eight gates in turn, in one product: a thread then has a value with its gate.
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
def add_triangle(
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
    """Blocks of rows, of which a program takes many where it can keep both weights meanwhile."""
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


@triton.jit(do_not_specialize=["n"])
def add_outer(z, outer, weight, bias, n, count, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr):
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
