"""Device functions that several Triton kernels share.

Names in capital letters are compile-time constants. Indices that may exceed 2**31 are 64 bits wide. Job sizes that only
bound indices are in ``do_not_specialize``, so that jobs of different sizes share one compiled kernel.
"""

from protenix_multiseed.kernels.language import tl, triton

MINUS_LOG2_E = tl.constexpr(-1.4426950408889634)


@triton.jit
def sigmoid(x):
    """Sigmoid in five instructions, as the square of a reciprocal square root.

    Triton's own sigmoid takes some 18 instructions: it guards its exponential against tiny results and its division
    against large ones. The formula here needs neither guard.
    """
    root = tl.rsqrt(1.0 + tl.exp2(x * MINUS_LOG2_E))
    return root * root


@triton.jit
def load_rows(x, row, size, WIDTH: tl.constexpr):
    """Load whole rows of a matrix as float32 [ROWS, WIDTH]; zero for rows from ``size`` on."""
    at = row[:, None].to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
    return tl.load(x + at, mask=row[:, None] < size, other=0.0).to(tl.float32)


@triton.jit
def store_rows(x, a, row, size, WIDTH: tl.constexpr):
    """Store whole rows [ROWS, WIDTH] of a matrix; rows from ``size`` on are not stored."""
    at = row[:, None].to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(x + at, a.to(x.dtype.element_ty), mask=row[:, None] < size)


@triton.jit
def standardise(a, epsilon, WIDTH: tl.constexpr):
    """Standardise whole rows [ROWS, WIDTH] to mean 0 and variance 1."""
    a = a - tl.sum(a, axis=1)[:, None] / WIDTH
    return a * tl.rsqrt(tl.sum(a * a, axis=1)[:, None] / WIDTH + epsilon)


@triton.jit
def norm_rows(a, weight, bias, epsilon, WIDTH: tl.constexpr):
    """Layer norm of whole rows [ROWS, WIDTH]; the result has the dtype of ``weight``."""
    column = tl.arange(0, WIDTH)
    a = standardise(a, epsilon, WIDTH)
    a = a * tl.load(weight + column).to(tl.float32)[None, :] + tl.load(bias + column).to(tl.float32)[None, :]
    return a.to(weight.dtype.element_ty)


@triton.jit
def load_weight(weight, first, n, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """Load COUNT rows of a weight matrix [n, WIDTH] from row ``first`` on: [COUNT, WIDTH], zero after row ``n - 1``."""
    row = first + tl.arange(0, COUNT)[:, None]
    return tl.load(weight + row * WIDTH + tl.arange(0, WIDTH)[None, :], mask=row < n, other=0.0)


@triton.jit
def transition(normed, made, expand, contract, n_hidden, WIDTH: tl.constexpr, HIDDEN: tl.constexpr):
    """``made + swiglu(normed expand^T) contract^T`` for whole rows [ROWS, WIDTH], HIDDEN hidden channels at a time."""
    # One product computes both halves of the expansion. Its channels are ordered so that each thread already holds the
    # values that the next product takes from this thread: every fourth channel in 32 bits, two neighbours in 16 bits.
    IS_WIDE: tl.constexpr = normed.dtype == tl.float32
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


@triton.jit
def variance(a, WIDTH: tl.constexpr):
    """Variances of whole rows [ROWS, WIDTH]. Rounding makes them inexact by less than rows of bfloat16 are."""
    mean = tl.sum(a, axis=1) / WIDTH
    return tl.maximum(tl.sum(a * a, axis=1) / WIDTH - mean * mean, 0.0)
