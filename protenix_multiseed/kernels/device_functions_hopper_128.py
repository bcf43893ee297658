"""Device functions that the kernels for rows of 128 channels on Hopper GPUs share, in Gluon.

As in :mod:`.device_functions_hopper`, each multiprocessor runs one thread block, whose warps have different work. Some
things differ, because rows and weights are smaller:

* Three warp groups compute, each on 64 rows. They norm rows in registers, which are then the first factor of a product.
* All weights fit in shared memory. One warp fetches them once.
* Rows that are updated stay in shared memory. A warp group adds to them there, and the TMA stores them.

The transition, whose weights do not fit, shares only the first of these (:mod:`.ops.transition_hopper_128`).
"""

from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    PART,
    PRODUCT,
    ROWS,
    fetch_slot,
    make_barriers,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper

N_CHANNEL, N_GROUP = 128, 3
CHANNELS = gl.constexpr(N_CHANNEL)
GROUPS = gl.constexpr(N_GROUP)
COMPUTE_REGISTERS = gl.constexpr(160)  # of one thread of the three warp groups
VECTOR_LAYOUT = gl.constexpr(gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[0]))
NARROW_PRODUCT = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 64, 16]))


@gluon.jit
def make_rows(SLOTS: gl.constexpr):
    """Make SLOTS slots for 64 rows for each warp group in shared memory, in blocks [64, 64], with their mbarriers."""
    buffers = gl.allocate_shared_memory(gl.bfloat16, [GROUPS * SLOTS * 2, ROWS, PART], BLOCK_LAYOUT)
    return buffers, make_barriers(GROUPS * SLOTS, 1), make_barriers(GROUPS * SLOTS, 1)


@gluon.jit
def fetch_rows(x, rows, size, SLOTS: gl.constexpr, IS_TURNED: gl.constexpr):
    """Work of the warp that fetches rows. ``x`` describes [size, 128], with IS_TURNED [128, size]."""
    turn = 0
    for tile in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        for group in gl.static_range(GROUPS):
            slot = group * SLOTS + turn % SLOTS
            fetch_slot(x, rows, slot, (tile * GROUPS + group) * ROWS, turn // SLOTS, 2, IS_TURNED)
        turn += 1


@gluon.jit
def slot_of(rows, GROUP: gl.constexpr, turn, SLOTS: gl.constexpr, IS_TURNED: gl.constexpr):
    """Wait for the rows that a warp group processes in this turn. Returns their place [64, 128] in shared memory."""
    buffers, full, _ = rows
    slot = GROUP * SLOTS + turn % SLOTS
    hopper.mbarrier.wait(full.index(slot), turn // SLOTS & 1)
    if IS_TURNED:
        place = buffers._reinterpret(gl.bfloat16, [GROUPS * SLOTS, CHANNELS, ROWS], BLOCK_LAYOUT).index(slot)
        place = place.permute((1, 0))
    else:
        place = buffers._reinterpret(gl.bfloat16, [GROUPS * SLOTS, ROWS, CHANNELS], BLOCK_LAYOUT).index(slot)
    return place


@gluon.jit
def take_rows(rows, GROUP: gl.constexpr, turn, IS_TURNED: gl.constexpr):
    """Read the 64 rows of a warp group's only slot -> [64, 128]. The slot is then free."""
    x = slot_of(rows, GROUP, turn, 1, IS_TURNED).load(PRODUCT)
    hopper.fence_async_shared()  # a load that still waits must not read what the copy engine writes next
    gl.thread_barrier()
    hopper.mbarrier.arrive(rows[2].index(GROUP), count=1)
    return x


@gluon.jit
def make_norm(scale, shift, epsilon):
    """Copy the scale and shift of a layer norm to shared memory. From there they come sooner than from the cache."""
    channel = gl.arange(0, CHANNELS, gl.BlockedLayout([1], [32], [4], [0]))
    scales = gl.allocate_shared_memory(gl.float32, [CHANNELS], VECTOR_LAYOUT)
    shifts = gl.allocate_shared_memory(gl.float32, [CHANNELS], VECTOR_LAYOUT)
    scales.store(gl.load(scale + channel).to(gl.float32))
    shifts.store(gl.load(shift + channel).to(gl.float32))
    return scales, shifts, epsilon


@gluon.jit
def norm_whole(x, norm):
    """Layer norm of rows [64, 128] in registers. The result is rounded as in the Triton kernels' ``norm_rows``."""
    scale, shift, epsilon = norm
    a = x.to(gl.float32)
    a -= (gl.sum(a, axis=1) / CHANNELS)[:, None]
    a *= gl.rsqrt(gl.sum(a * a, axis=1) / CHANNELS + epsilon)[:, None]
    a *= scale.load(gl.SliceLayout(0, PRODUCT))[None, :]
    a += shift.load(gl.SliceLayout(0, PRODUCT))[None, :]
    return a.to(gl.bfloat16)


@gluon.jit
def make_weight(MOST: gl.constexpr, CHUNK: gl.constexpr):
    """Make room for a weight of up to MOST rows in shared memory, in blocks [CHUNK, 64]."""
    return gl.allocate_shared_memory(gl.bfloat16, [MOST // CHUNK * 2, CHUNK, PART], BLOCK_LAYOUT)


@gluon.jit
def fetch_weight(weight, blocks, ready):
    """Fetch a weight. The descriptor splits its rows into four dimensions, to reorder them.

    The TMA fills blocks after the weight's end with zeros, and counts their bytes too.
    """
    COUNT: gl.constexpr = blocks.shape[0]
    CHUNK: gl.constexpr = blocks.shape[1]
    hopper.mbarrier.expect(ready, COUNT * CHUNK * PART * 2)
    for place in gl.static_range(COUNT):
        at = [place // 2 * (CHUNK // 32), 0, 0, 0, place % 2 * PART]
        hopper.tma.async_copy_global_to_shared(weight, at, ready, blocks.index(place).reshape(weight.block_shape))


@gluon.jit
def fetch_both(one, other, one_blocks, other_blocks, ready):
    """Work of the warp that fetches two weights."""
    fetch_weight(one, one_blocks, ready)
    fetch_weight(other, other_blocks, ready)


@gluon.jit
def begin_product(factor, blocks, chunk):
    """Begin the product of 64 rows in registers [64, 128] with a chunk of a weight -> [64, CHUNK]."""
    CHUNK: gl.constexpr = blocks.shape[1]
    layout: gl.constexpr = PRODUCT if CHUNK == 128 else NARROW_PRODUCT
    factor = gl.convert_layout(factor, gl.DotOperandLayout(0, layout, 2), assert_trivial=True)
    weight = blocks._reinterpret(gl.bfloat16, [blocks.shape[0] // 2, CHUNK, CHANNELS], BLOCK_LAYOUT).index(chunk)
    made = gl.zeros([ROWS, CHUNK], gl.float32, layout)
    return hopper.warpgroup_mma(factor, weight.permute((1, 0)), made, use_acc=False, is_async=True)


@gluon.jit
def store_updated(z, rows, GROUP: gl.constexpr, turn, row):
    """Begin to store the rows of a slot that this warp group has changed."""
    hopper.fence_async_shared()  # the TMA must see what the threads stored
    gl.thread_barrier()
    for part in gl.static_range(2):
        block = rows[0].index((GROUP * 2 + turn % 2) * 2 + part)
        hopper.tma.async_copy_shared_to_global(z, [row, part * PART], block)


@gluon.jit
def release_updated(rows, GROUP: gl.constexpr, turn):
    """Give the slot of the last turn back, whose rows have been stored meanwhile."""
    hopper.tma.store_wait(0)
    gl.thread_barrier()
    hopper.mbarrier.arrive(rows[2].index(GROUP * 2 + (turn + 1) % 2), count=1, pred=turn > 0)
