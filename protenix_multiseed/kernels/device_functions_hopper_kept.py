"""Device functions of kernels for Hopper GPUs that keep their weights in shared memory, in Gluon.

They serve products of rows of 256 channels in bfloat16 with more output channels than fit into one multiprocessor, with
the norm of the rows folded into the weight (:mod:`.normed`). What differs from :mod:`.device_functions_hopper`:

* A thread block makes 256 output channels only. Their weights stay in shared memory. The thread blocks that take the
  same rows at the same time read them from the second-level cache.
* The two warp groups take one tile of 64 rows after another in turn. One multiplies while the other stores.
* Rows are fetched in blocks of 64 channels into a ring of COUNT blocks.
"""

from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    CHANNELS,
    OUTPUTS,
    PART,
    PARTS,
    PRODUCT,
    ROWS,
    WIDE_PRODUCT,
    fetch_block,
    halves,
    make_barriers,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper


@gluon.jit
def part_of(n_out):
    """Return the first tile of this thread block, the number of tiles to its next one, and its first output channel."""
    n_part = n_out // CHANNELS
    return gl.program_id(0) // n_part, gl.num_programs(0) // n_part, gl.program_id(0) % n_part * CHANNELS


@gluon.jit
def make_ring(COUNT: gl.constexpr):
    """Make a ring of COUNT blocks [64, 64] in shared memory, with their mbarriers."""
    buffers = gl.allocate_shared_memory(gl.bfloat16, [COUNT, ROWS, PART], BLOCK_LAYOUT)
    return buffers, make_barriers(COUNT, 1), make_barriers(COUNT, 1)


@gluon.jit
def make_kept():
    """Make a place for the weights [256, 256], with an mbarrier, and the mbarriers with which groups take turns."""
    kept = gl.allocate_shared_memory(gl.bfloat16, [2 * PARTS, OUTPUTS, PART], BLOCK_LAYOUT)
    return kept, make_barriers(1, 1).index(0), make_barriers(2, 1)


@gluon.jit
def fetch_kept(x, weight, ring, weights, size, first, stride, column, COUNT: gl.constexpr):
    """Work of the fetching warp: the weights once, then all rows of this thread block."""
    buffers, full, empty = ring
    kept, ready, _ = weights
    hopper.mbarrier.expect(ready, CHANNELS * CHANNELS * 2)
    for part in gl.static_range(PARTS):
        fetch_block(weight, column, part * PART, ready, kept.index(2 * part))
        fetch_block(weight, column + OUTPUTS, part * PART, ready, kept.index(2 * part + 1))
    step = 0
    for tile in range(first, gl.cdiv(size, ROWS), stride):
        for part in gl.static_range(PARTS):
            slot = step % COUNT
            hopper.mbarrier.wait(empty.index(slot), (step // COUNT & 1) ^ 1)
            hopper.mbarrier.expect(full.index(slot), ROWS * PART * 2)
            hopper.tma.async_copy_global_to_shared(x, [tile * ROWS, part * PART], full.index(slot), buffers.index(slot))
            step += 1


@gluon.jit
def multiply_kept(ring, weights, turn, GROUP: gl.constexpr, COUNT: gl.constexpr):
    """Product of the next 64 rows of this warp group with the weights -> two tensors [64, 128]."""
    buffers, full, empty = ring
    kept, _, turns = weights
    wide = kept._reinterpret(gl.bfloat16, [PARTS, CHANNELS, PART], BLOCK_LAYOUT)
    step = (2 * turn + GROUP) * PARTS
    made = hopper.warpgroup_mma_init(gl.zeros([ROWS, CHANNELS], gl.float32, WIDE_PRODUCT))
    # Each group begins when the other's product is nearly done; the first one begins at once.
    hopper.mbarrier.wait(turns.index(GROUP), (turn & 1) ^ (1 - GROUP))
    for part in gl.static_range(PARTS):
        slot = (step + part) % COUNT
        hopper.mbarrier.wait(full.index(slot), (step + part) // COUNT & 1)
        weight = wide.index(part).permute((1, 0))
        made = hopper.warpgroup_mma(buffers.index(slot), weight, made, use_acc=part > 0, is_async=True)
    # Wait for all but the last part. ptxas serialises wgmma if this wait names their result, so it names zeros.
    hopper.warpgroup_mma_wait(1, deps=[gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, PRODUCT))])
    hopper.mbarrier.arrive(turns.index(1 - GROUP), count=1)
    made = hopper.warpgroup_mma_wait(0, deps=[made])
    for part in gl.static_range(PARTS):
        hopper.mbarrier.arrive(empty.index((step + part) % COUNT), count=1)
    return halves(made)
