"""Device functions and sizes that the attention kernels for Hopper GPUs share, in Gluon.

In the softmax, the maximum of a row's logits is not searched for. The reference of a row's weights is the maximum of
its first 8 logits plus ROOM. The weight of another logit may be up to 2 ** 150 times theirs. If it is larger, the sum
of the row's weights is too large, and the row's tile is computed again with the running maximum before the kernel
ends. The tensor cores sum the weights, as a product with ones. The range of float16 is too small for this, so weights
in float16 always have the running maximum.
"""

from protenix_multiseed.kernels.language import gl, gluon, hopper

LOG2_E = gl.constexpr(1.4426950408889634)
ROOM = gl.constexpr(60.0)  # in powers of two: the sum of a row's weights is at least 2 ** -60
MAX_SUM = gl.constexpr(1.0e30)  # a row with a larger sum is computed again
N_KEY, N_PART, N_GROUP = 64, 64, 4
KEYS = gl.constexpr(N_KEY)  # keys of a block
PART = gl.constexpr(N_PART)  # queries of one group of warps
STAGES = gl.constexpr(3)  # blocks of keys in shared memory
GROUPS = gl.constexpr(N_GROUP)


@gluon.jit
def reciprocal(x):
    return gl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def divide(x, by, inverse):
    """Compute ``x // by`` for numbers below 2 ** 29 without a division. ``inverse`` is ``(2 ** 31 - 1) // by``."""
    whole = ((x.to(gl.int64) * inverse) >> 31).to(gl.int32)
    return whole + (x - whole * by >= by).to(gl.int32)


@gluon.jit
def is_due(wrong, index):
    """Return whether any group of warps found a row with too large a sum."""
    at = wrong + index * GROUPS
    return (gl.load(at) | gl.load(at + 1) | gl.load(at + 2) | gl.load(at + 3)) != 0


@gluon.jit
def leave(barrier):
    """Arrive at a barrier. Each thread arrives by itself, so that the warps of a group need not wait for each other."""
    hopper.async_copy.mbarrier_arrive(barrier, increment_count=False)


@gluon.jit
def transposed(x):
    return x.permute((1, 0))


@gluon.jit
def highest_of_few(logits, s_layout: gl.constexpr, EXACT: gl.constexpr):
    highest = gl.convert_layout(gl.max(logits, axis=1), gl.SliceLayout(1, s_layout)) * LOG2_E
    return highest if EXACT else highest + ROOM


@gluon.jit
def weigh(logits, reference, total, EXACT: gl.constexpr, DTYPE: gl.constexpr):
    """Return the weights of one block of keys, what earlier sums shrink by, the references, and the sums of weights.

    Without EXACT, nothing shrinks and the references stay.
    """
    t_layout: gl.constexpr = total.type.layout
    shrink = reference
    if EXACT:
        now = gl.maximum(reference, gl.max(logits, axis=1) * LOG2_E)
        shrink = gl.exp2(reference - now)
        total *= gl.convert_layout(shrink, gl.SliceLayout(1, t_layout))[:, None]
        reference = now
    weight = gl.exp2(logits * LOG2_E - reference[:, None]).to(DTYPE)
    # The older matrix instruction takes both factors from registers and is synchronous.
    ones = gl.full([logits.shape[1], 8], 1.0, DTYPE, gl.DotOperandLayout(1, t_layout, 2))
    of_sum = gl.convert_layout(weight, gl.DotOperandLayout(0, t_layout, 2), assert_trivial=True)
    return weight, shrink, reference, hopper.mma_v2(of_sum, ones, total)
