"""Device functions with which kernels for Hopper GPUs update rows of 256 channels, in Gluon.

While a warp group adds an update to its 64 rows, it finds what the operation after it reads (:mod:`.known`): the
deviations of the rows, and with HEADS 8 or 16 the attention biases of that many heads. The numbers that a thread has
stored are at once the first factor of the biases' product, a small one for which each warp reads the weight from the
first-level cache.

``after`` is what :func:`.known.place_known` returns for the kernel.
"""

from protenix_multiseed.kernels.base import MASKED
from protenix_multiseed.kernels.device_functions_hopper import (
    CHANNELS,
    EIGHTS,
    OUTPUTS,
    PART,
    PRODUCT,
    ROWS,
    eights,
    in_other_order,
    pointers,
    rstd_of_sums,
    widen,
)
from protenix_multiseed.kernels.language import ampere, gl, gluon

MASK = gl.constexpr(MASKED)
HEAD_PRODUCT = gl.constexpr(gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[4, 1], instr_shape=[16, 8]))
HEAD_FACTOR = gl.constexpr(gl.DotOperandLayout(0, HEAD_PRODUCT, 2))
HEAD_WEIGHT = gl.constexpr(gl.DotOperandLayout(1, HEAD_PRODUCT, 2))


@gluon.jit
def start_known(HEADS: gl.constexpr):
    """Return the sums, sums of squares and products of no channels. There are two products, which run side by side."""
    zero = gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, EIGHTS))
    product = gl.zeros([ROWS, max(HEADS, 8)], gl.float32, HEAD_PRODUCT)
    return zero, zero, product, product


@gluon.jit
def load_heads(weight, HEADS: gl.constexpr):
    """Load 64 channels of the weight of the heads -> [64, HEADS]. A thread loads eight neighbouring ones at once."""
    layout: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [0, 32]] + ([[8, 0]] if HEADS == 16 else []),
        lane_bases=[[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[0, 0], [0, 0]],
        block_bases=[],
        shape=[HEADS, PART],
    )
    head = gl.arange(0, HEADS, gl.SliceLayout(1, layout))
    channel = gl.arange(0, PART, gl.SliceLayout(0, layout))
    made = gl.load(weight + (head[:, None] * CHANNELS + channel[None, :]))
    # The order of the channels in the first factor, which is that of in_eights.
    made = gl.reshape(gl.permute(gl.reshape(made, (HEADS, 2, 4, 4, 2)), (0, 1, 3, 2, 4)), (HEADS, PART))
    return gl.convert_layout(gl.permute(made, (1, 0)), HEAD_WEIGHT, assert_trivial=True)


@gluon.jit
def update_half(z, made, row, column, size, known, after, HEADS: gl.constexpr):
    """Add 128 channels of an update to 64 rows, and what they add to ``known``.

    The rows are read again, mostly from the second-level cache.
    """
    total, squares, one, other = known
    at, inside = pointers(z, row, column, size, CHANNELS)
    made = (eights(made) + gl.load(at, mask=inside, other=0.0).to(gl.float32)).to(gl.bfloat16)
    gl.store(at, made, mask=inside)
    a = widen(made)
    total += gl.sum(a, axis=1)
    squares += gl.sum(a * a, axis=1)
    if HEADS > 0:
        weight = after[0] + column
        made = gl.convert_layout(in_other_order(made), PRODUCT, assert_trivial=True)
        a0, a1 = gl.split(gl.permute(gl.reshape(made, (ROWS, OUTPUTS // PART, PART)), (0, 2, 1)))
        a0 = gl.convert_layout(a0, HEAD_FACTOR, assert_trivial=True)
        a1 = gl.convert_layout(a1, HEAD_FACTOR, assert_trivial=True)
        one = ampere.mma_v2(a0, load_heads(weight, HEADS), one)
        other = ampere.mma_v2(a1, load_heads(weight + PART, HEADS), other)
    return total, squares, one, other


@gluon.jit
def store_known(row, size, known, after, epsilon, HEADS: gl.constexpr, IS_TURNED: gl.constexpr):
    """Store what is known of 64 rows after both halves. With IS_TURNED columns of pairs are the biases' queries."""
    _, shift, lengths, rstds, bias, n, by_pair, by_head, by_query = after
    total, squares, one, other = known
    rstd = rstd_of_sums(total, squares, epsilon)
    at = row + gl.arange(0, ROWS, gl.SliceLayout(1, EIGHTS))
    gl.store(rstds + at, rstd, mask=at < size)
    if HEADS > 0:
        at = row + gl.arange(0, ROWS, gl.SliceLayout(1, HEAD_PRODUCT))
        head = gl.arange(0, HEADS, gl.SliceLayout(0, HEAD_PRODUCT))
        pair, first, second = at // n // n, at // n % n, at % n
        query = second if IS_TURNED else first
        key = first if IS_TURNED else second
        n_token = gl.load(lengths + pair, mask=at < size, other=0)
        rstd = gl.convert_layout(rstd, gl.SliceLayout(1, HEAD_PRODUCT), assert_trivial=True)
        made = (one + other) * rstd[:, None] + gl.load(shift + head)[None, :]
        made = gl.where((key < n_token)[:, None], made, MASK).to(gl.bfloat16)
        to = pair.to(gl.int64) * by_pair + query.to(gl.int64) * by_query + key
        to = bias + (to[:, None] + (head.to(gl.int64) * by_head)[None, :])
        gl.store(to, made, mask=(at < size)[:, None])
