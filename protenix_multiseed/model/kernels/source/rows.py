"""What the other programs are made of, and the programs on whole rows that every stage has."""

import triton
import triton.language as tl

MINUS_LOG2_E = tl.constexpr(-1.4426950408889634)


@triton.jit
def sigmoid(x):
    """Five instructions, where Triton's own guards its exponential and its division against what cannot come here."""
    root = tl.rsqrt(1.0 + tl.exp2(x * MINUS_LOG2_E))
    return root * root


@triton.jit
def load_rows(x, row, size, WIDTH: tl.constexpr):
    """Whole rows of a matrix, in float32: [ROWS, WIDTH]."""
    at = row[:, None].to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
    return tl.load(x + at, mask=row[:, None] < size, other=0.0).to(tl.float32)


@triton.jit
def store_rows(x, a, row, size, WIDTH: tl.constexpr):
    """Whole rows [ROWS, WIDTH] of a matrix."""
    at = row[:, None].to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(x + at, a.to(x.dtype.element_ty), mask=row[:, None] < size)


@triton.jit
def standardise(a, epsilon, WIDTH: tl.constexpr):
    """Whole rows [ROWS, WIDTH] with mean 0 and variance 1."""
    a = a - tl.sum(a, axis=1)[:, None] / WIDTH
    return a * tl.rsqrt(tl.sum(a * a, axis=1)[:, None] / WIDTH + epsilon)


@triton.jit
def norm_rows(a, weight, bias, epsilon, WIDTH: tl.constexpr):
    """Layer norm of whole rows [ROWS, WIDTH], in the weight's type."""
    column = tl.arange(0, WIDTH)
    a = standardise(a, epsilon, WIDTH)
    a = a * tl.load(weight + column).to(tl.float32)[None, :] + tl.load(bias + column).to(tl.float32)[None, :]
    return a.to(weight.dtype.element_ty)


@triton.jit
def load_weight(weight, first, n, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """Rows of a weight matrix [n, WIDTH] from ``first`` on: [COUNT, WIDTH], zero beyond the last."""
    row = first + tl.arange(0, COUNT)[:, None]
    return tl.load(weight + row * WIDTH + tl.arange(0, WIDTH)[None, :], mask=row < n, other=0.0)


@triton.jit(do_not_specialize=["n_row"])
def norm(
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


@triton.jit(do_not_specialize=["n_row"])
def swiglu(x, out, n_row, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    first = tl.load(x + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    a = first * sigmoid(first) * second
    tl.store(out + row * width + column, a.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["size"])
def norm_linear(
    x, norm, shift, weight, out, size, n_out, epsilon, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    a = norm_rows(load_rows(x, row, size, WIDTH), norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        made = tl.dot(a, tl.trans(load_weight(weight, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        column = first + tl.arange(0, COLUMNS)[None, :]
        at = row[:, None].to(tl.int64) * n_out + column
        tl.store(out + at, made.to(out.dtype.element_ty), mask=(row[:, None] < size) & (column < n_out))


@triton.jit
def transition(normed, made, expand, contract, n_hidden, WIDTH: tl.constexpr, HIDDEN: tl.constexpr):
    """``made + swiglu(normed expand^T) contract^T`` of whole rows."""
    # Both halves of the expansion in one product, in such an order that a thread has what the next product takes of it:
    # of 32 bits every fourth channel, of 16 bits two neighbours.
    IS_WIDE: tl.constexpr = normed.dtype == tl.float32  # noqa: N806
    place = tl.arange(0, 2 * HIDDEN)
    in_16 = place // 16 % 2 * 8 + place // 2 % 4 * 2 + place // 8 % 2
    channel = place // 2 if IS_WIDE else place // 32 * 16 + in_16
    column = tl.arange(0, WIDTH)
    at_expand = (channel + tl.where(place % 2 == 1, n_hidden, 0))[:, None] * WIDTH + column[None, :]
    at_contract = column[:, None] * n_hidden + tl.arange(0, HIDDEN)[None, :]
    for first in range(0, n_hidden, HIDDEN):
        both = tl.dot(normed, tl.trans(tl.load(expand + first * WIDTH + at_expand)), input_precision="tf32")
        one, other = tl.split(tl.reshape(both, (both.shape[0], HIDDEN, 2)))
        hidden = (one * sigmoid(one) * other).to(normed.dtype)
        if not IS_WIDE:
            hidden = tl.permute(tl.reshape(hidden, (both.shape[0], HIDDEN // 16, 2, 2, 4)), (0, 1, 2, 4, 3))
            hidden = tl.reshape(hidden, (both.shape[0], HIDDEN))
        made = tl.dot(hidden, tl.trans(tl.load(contract + first + at_contract)), made, input_precision="tf32")
    return made


@triton.jit(do_not_specialize=["size"])
def add_transition(
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
