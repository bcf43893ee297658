"""Device functions that several kernels for Hopper GPUs share, in Gluon.

They serve the kernels that process rows of 256 channels in bfloat16; some, such as ``sigmoid``, serve all. Each
multiprocessor runs one thread block, which takes one tile of rows after another. The warps of a thread block have
different work:

* Two warp groups of four warps compute. Each takes half of a tile's rows, 64 at a time.
* One warp for each input fetches the rows of the next tile with the tensor memory accelerator (TMA).
* One warp fetches weights with the TMA. They are read again for each tile, from the second-level cache.

Fetched data are in slots of shared memory. Each slot has two mbarriers, ``full`` and ``empty``. A warp that fetches
waits until a slot is empty, a warp group waits until it is full. The warp groups do not wait for each other, so one can
multiply while the other computes norms or gates or stores.

Channels in shared memory are in blocks of 64, because a swizzled row of a TMA or wgmma tile has at most 128 bytes.

Names in capital letters are compile-time constants.
"""

from protenix_multiseed.kernels.language import gl, gluon, hopper

N_CHANNEL, N_ROW, N_PART, N_OUTPUT = 256, 64, 64, 128
CHANNELS = gl.constexpr(N_CHANNEL)  # channels of a row
ROWS = gl.constexpr(N_ROW)  # rows that a warp group multiplies at a time
PART = gl.constexpr(N_PART)  # channels of one block in shared memory
PARTS = gl.constexpr(N_CHANNEL // N_PART)
OUTPUTS = gl.constexpr(N_OUTPUT)  # rows of a weight in one block of shared memory
# Registers of one thread. Two warp groups that compute get nearly all registers of a multiprocessor.
COMPUTE_REGISTERS, FETCH_REGISTERS = gl.constexpr(240), gl.constexpr(24)
MINUS_LOG2_E = gl.constexpr(-1.4426950408889634)
BLOCK_LAYOUT = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2))
BARRIER_LAYOUT = gl.constexpr(hopper.mbarrier.MBarrierLayout())
BY_ROW = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
PRODUCT = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 128, 16]))
WIDE_PRODUCT = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 256, 16]))
FACTOR = gl.constexpr(gl.DotOperandLayout(0, WIDE_PRODUCT, 2))  # first factor of WIDE_PRODUCT, in registers
# Layout of a product [64, 128] of which a thread holds eight neighbouring channels of every 32.
EIGHTS = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [8, 0], [0, 32], [0, 64]],
        lane_bases=[[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[64, 128],
    )
)


@gluon.jit
def sigmoid(x):
    """Compute the sigmoid with the formula of the Triton kernels' ``sigmoid``."""
    root = gl.rsqrt(1.0 + gl.exp2(x * MINUS_LOG2_E))
    return root * root


@gluon.jit
def widen(x):
    """Convert 16 bits to float32. A register holds two neighbours; of bfloat16 one instruction extracts each."""
    if x.dtype == gl.float16:
        return x.to(gl.float32)
    return gl.inline_asm_elementwise(
        "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=r,=r,r", [x], dtype=gl.float32, is_pure=True, pack=2
    )


@gluon.jit
def make_barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    """Make mbarriers in shared memory. Each completes a phase after ARRIVALS arrivals."""
    barriers = gl.allocate_shared_memory(gl.int64, [COUNT, 1], BARRIER_LAYOUT)
    for place in gl.static_range(COUNT):
        hopper.mbarrier.init(barriers.index(place), count=ARRIVALS)
    hopper.fence_async_shared()  # the TMA must see them too
    return barriers


@gluon.jit
def make_rows(COUNT: gl.constexpr):
    """Make COUNT slots for 64 rows in shared memory, four blocks [64, 64] each, with their mbarriers."""
    buffers = gl.allocate_shared_memory(gl.bfloat16, [COUNT * PARTS, ROWS, PART], BLOCK_LAYOUT)
    return buffers, make_barriers(COUNT, 1), make_barriers(COUNT, 1)


@gluon.jit
def make_weights(SLOTS: gl.constexpr, BLOCKS: gl.constexpr):
    """Make slots for BLOCKS blocks [128, 64] of weights each in shared memory, with their mbarriers."""
    buffers = gl.allocate_shared_memory(gl.bfloat16, [SLOTS * BLOCKS, OUTPUTS, PART], BLOCK_LAYOUT)
    return buffers, make_barriers(SLOTS, 1), make_barriers(SLOTS, 2)  # two warp groups empty a slot


@gluon.jit
def fetch_slot(x, rows, slot, first, uses, COUNT: gl.constexpr, IS_TURNED: gl.constexpr):
    """Fetch 64 rows of COUNT blocks, from row ``first`` on, into a slot that was used ``uses`` times before.

    ``x`` describes rows, with IS_TURNED columns.
    """
    buffers, full, empty = rows
    hopper.mbarrier.wait(empty.index(slot), (uses & 1) ^ 1)
    hopper.mbarrier.expect(full.index(slot), COUNT * ROWS * PART * 2)
    for part in gl.static_range(COUNT):
        block = buffers.index(slot * COUNT + part)
        if IS_TURNED:
            hopper.tma.async_copy_global_to_shared(x, [part * PART, first], full.index(slot), block)
        else:
            hopper.tma.async_copy_global_to_shared(x, [first, part * PART], full.index(slot), block)


@gluon.jit
def fetch_rows(x, rows, size, IS_TURNED: gl.constexpr):
    """Work of the warp that fetches rows: all tiles of this thread block, one slot for each warp group.

    ``x`` describes [size, 256], with IS_TURNED [256, size].
    """
    turn = 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        for group in gl.static_range(2):
            fetch_slot(x, rows, group, (tile * 2 + group) * ROWS, turn, PARTS, IS_TURNED)
        turn += 1


@gluon.jit
def fetch_block(weight, row, column, full, block):
    """Fetch a block [128, 64] of a weight. The descriptor splits the rows into four dimensions, to reorder them."""
    hopper.tma.async_copy_global_to_shared(
        weight, [row // 32, 0, 0, 0, column], full, block.reshape(weight.block_shape)
    )


@gluon.jit
def fetch_pair(weight, row, column, weights, step, SLOTS: gl.constexpr, IS_TALL: gl.constexpr):
    """Fetch two blocks of a weight into a slot: together [128, 128], with IS_TALL [256, 64]."""
    buffers, full, empty = weights
    slot = step % SLOTS
    hopper.mbarrier.wait(empty.index(slot), (step // SLOTS & 1) ^ 1)
    hopper.mbarrier.expect(full.index(slot), 2 * OUTPUTS * PART * 2)
    fetch_block(weight, row, column, full.index(slot), buffers.index(slot * 2))
    if IS_TALL:
        fetch_block(weight, row + OUTPUTS, column, full.index(slot), buffers.index(slot * 2 + 1))
    else:
        fetch_block(weight, row, column + PART, full.index(slot), buffers.index(slot * 2 + 1))


@gluon.jit
def release(weights, step, COUNT: gl.constexpr, SLOTS: gl.constexpr):
    """Mark COUNT slots of weights as empty."""
    empty = weights[2]
    for place in gl.static_range(COUNT):
        hopper.mbarrier.arrive(empty.index((step + place) % SLOTS), count=1)


# With a norm that is folded into the weight (kernels/normed.py), a product is scaled and shifted after it is made.


@gluon.jit
def make_shift(shift):
    """Copy the shift of 256 output channels into shared memory."""
    layout: gl.constexpr = gl.BlockedLayout([2], [32], [4], [0])
    copy = gl.allocate_shared_memory(gl.float32, [CHANNELS], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    copy.store(gl.load(shift + gl.arange(0, CHANNELS, layout)))
    return copy


@gluon.jit
def load_shift(shift, FIRST: gl.constexpr):
    """Load the shift of 128 output channels."""
    return shift.slice(FIRST, OUTPUTS).load(gl.SliceLayout(0, PRODUCT))


@gluon.jit
def load_rstd(rstds, row, size):
    """Load the reciprocal standard deviations of 64 rows."""
    at = row + gl.arange(0, ROWS, gl.SliceLayout(1, PRODUCT))
    return gl.load(rstds + at, mask=at < size, other=0.0)


@gluon.jit
def rstd_of_sums(total, squares, epsilon):
    """Reciprocal standard deviations of rows, from the sums and the sums of squares of their 256 channels.

    Squares of bfloat16 are exact in float32. Their sum less the square of the mean is less exact than sums of squared
    differences, by less than the rounding of the numbers themselves.
    """
    mean = total / CHANNELS
    return gl.rsqrt(gl.maximum(squares / CHANNELS - mean * mean, 0.0) + epsilon)


@gluon.jit
def finish(made, rstd, shift):
    """Make the output of 64 rows and 128 channels from their product with a folded weight."""
    return made * rstd[:, None] + shift[None, :]


@gluon.jit
def multiply_half(
    buffers, row_slot, weights, step, made, HALF: gl.constexpr, SLOTS: gl.constexpr, IS_TURNED: gl.constexpr
):
    """Begin the product of half the channels of 64 rows with a slot of weights [128, 128]."""
    w_buffers, full, _ = weights
    slot = step % SLOTS
    hopper.mbarrier.wait(full.index(slot), step // SLOTS & 1)
    for part in gl.static_range(2):
        a = buffers.index(row_slot * PARTS + 2 * HALF + part)
        if IS_TURNED:
            a = a.permute((1, 0))
        b = w_buffers.index(slot * 2 + part).permute((1, 0))
        made = hopper.warpgroup_mma(a, b, made, use_acc=HALF + part > 0, is_async=True)
    return made


@gluon.jit
def multiply(buffers, row_slot, weights, step, SLOTS: gl.constexpr, IS_TURNED: gl.constexpr):
    """Begin the product of 64 rows with two slots of weights, which hold 128 rows of one weight -> [64, 128]."""
    made = hopper.warpgroup_mma_init(gl.zeros([ROWS, OUTPUTS], gl.float32, PRODUCT))
    made = multiply_half(buffers, row_slot, weights, step, made, 0, SLOTS, IS_TURNED)
    return multiply_half(buffers, row_slot, weights, step + 1, made, 1, SLOTS, IS_TURNED)


@gluon.jit
def contract(hidden, weights, step, made, SLOTS: gl.constexpr):
    """Begin to add the product of 64 hidden channels in registers [64, 64] with a slot of weights [256, 64]."""
    buffers, full, _ = weights
    wide = buffers._reinterpret(gl.bfloat16, [SLOTS, CHANNELS, PART], BLOCK_LAYOUT)
    slot = step % SLOTS
    hopper.mbarrier.wait(full.index(slot), step // SLOTS & 1)
    return hopper.warpgroup_mma(hidden, wide.index(slot).permute((1, 0)), made, is_async=True)


@gluon.jit
def halves(made):
    """Split a product [64, 256] into two of 128 channels. No data move."""
    one, other = gl.split(gl.permute(gl.reshape(made, (ROWS, 2, OUTPUTS)), (0, 2, 1)))
    one = gl.convert_layout(one, PRODUCT, assert_trivial=True)
    return one, gl.convert_layout(other, PRODUCT, assert_trivial=True)


@gluon.jit
def in_other_order(made):
    """Change the order of 128 channels from that of ``in_eights`` to their own, or back."""
    made = gl.permute(gl.reshape(made, (ROWS, OUTPUTS // 32, 4, 4, 2)), (0, 1, 3, 2, 4))
    return gl.reshape(made, (ROWS, OUTPUTS))


@gluon.jit
def eights(made):
    """Convert a product, whose weight has its rows in the order of ``in_eights``, to EIGHTS. No data move."""
    return gl.convert_layout(in_other_order(made), EIGHTS, assert_trivial=True)


@gluon.jit
def pointers(x, row, column, size, stride):
    """Return pointers to 128 channels of 64 rows in layout EIGHTS, and whether each row is before row ``size``."""
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, EIGHTS))
    columns = gl.arange(0, OUTPUTS, gl.SliceLayout(0, EIGHTS))
    x += gl.to_tensor(row).to(gl.int64) * stride + column
    return x + (rows[:, None] * stride + columns[None, :]), (row + rows < size)[:, None]


@gluon.jit
def store_rows(out, made, row, column, size, stride):
    """Store 128 channels of 64 rows from layout EIGHTS."""
    at, inside = pointers(out, row, column, size, stride)
    gl.store(at, made.to(gl.bfloat16), mask=inside)


@gluon.jit
def store_block(out, block, made, row, column, PENDING: gl.constexpr):
    """Begin to store a block [64, 64] through its place in shared memory.

    The place is free once all but the last PENDING stores of this warp group have read theirs.
    """
    hopper.tma.store_wait(PENDING)
    gl.thread_barrier()
    block.store(made)
    hopper.fence_async_shared()  # the TMA must see what the threads stored
    gl.thread_barrier()
    hopper.tma.async_copy_shared_to_global(out, [row, column], block)
