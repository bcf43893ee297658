"""A layer norm followed by a matrix product on Hopper GPUs, for rows of 256 channels in bfloat16.

It computes the operation of :mod:`.norm_linear` with the norm folded into the weight (:mod:`..normed`), so the
reciprocal standard deviations of the rows must be known. What differs from :mod:`..device_functions_hopper`:

* A thread block makes 256 output channels only. Their weights stay in shared memory. The thread blocks that take the
  same rows at the same time read them from the second-level cache.
* The two warp groups take one tile of 64 rows after another in turn. One multiplies while the other stores.
* Rows are fetched in blocks of 64 channels into a ring of twelve: three tiles.
"""

import torch

from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    CHANNELS,
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_ROW,
    OUTPUTS,
    PART,
    PARTS,
    PRODUCT,
    ROWS,
    WIDE_PRODUCT,
    eights,
    fetch_block,
    finish,
    load_rstd,
    load_shift,
    make_barriers,
    make_shift,
    store_rows,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.rows_hopper import OPTIONS, describe, describe_weight, fits_hopper, in_eights

RING = gl.constexpr(12)


@gluon.jit
def fetch(x, weight, ring, kept, ready, size, first, stride, column):
    """Work of the fetching warp: the weights [256, 256] once, then all rows of this thread block."""
    buffers, full, empty = ring
    hopper.mbarrier.expect(ready, CHANNELS * CHANNELS * 2)
    for part in gl.static_range(PARTS):
        fetch_block(weight, column, part * PART, ready, kept.index(2 * part))
        fetch_block(weight, column + OUTPUTS, part * PART, ready, kept.index(2 * part + 1))
    step = 0
    for tile in range(first, gl.cdiv(size, ROWS), stride):
        for part in gl.static_range(PARTS):
            slot = step % RING
            hopper.mbarrier.wait(empty.index(slot), (step // RING & 1) ^ 1)
            hopper.mbarrier.expect(full.index(slot), ROWS * PART * 2)
            hopper.tma.async_copy_global_to_shared(x, [tile * ROWS, part * PART], full.index(slot), buffers.index(slot))
            step += 1


@gluon.jit
def multiply_kept(ring, kept, turns, turn, GROUP: gl.constexpr):
    """Product of the next 64 rows of this warp group with the weights -> two tensors [64, 128]."""
    buffers, full, empty = ring
    weights = kept._reinterpret(gl.bfloat16, [PARTS, CHANNELS, PART], BLOCK_LAYOUT)
    step = (2 * turn + GROUP) * PARTS
    made = hopper.warpgroup_mma_init(gl.zeros([ROWS, CHANNELS], gl.float32, WIDE_PRODUCT))
    # Each group begins when the other's product is nearly done; the first one begins at once.
    hopper.mbarrier.wait(turns.index(GROUP), (turn & 1) ^ (1 - GROUP))
    for part in gl.static_range(PARTS):
        slot = (step + part) % RING
        hopper.mbarrier.wait(full.index(slot), (step + part) // RING & 1)
        weight = weights.index(part).permute((1, 0))
        made = hopper.warpgroup_mma(buffers.index(slot), weight, made, use_acc=part > 0, is_async=True)
    # Wait for all but the last part. ptxas serialises wgmma if this wait names their result, so it names zeros.
    hopper.warpgroup_mma_wait(1, deps=[gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, PRODUCT))])
    hopper.mbarrier.arrive(turns.index(1 - GROUP), count=1)
    made = hopper.warpgroup_mma_wait(0, deps=[made])
    for part in gl.static_range(PARTS):
        hopper.mbarrier.arrive(empty.index((step + part) % RING), count=1)
    one, other = gl.split(gl.permute(gl.reshape(made, (ROWS, 2, OUTPUTS)), (0, 2, 1)))
    one = gl.convert_layout(one, PRODUCT, assert_trivial=True)
    return one, gl.convert_layout(other, PRODUCT, assert_trivial=True)


@gluon.jit
def project_rows(
    out, ring, kept, ready, turns, rstds, shift, size, n_out, first, stride, column, GROUP: gl.constexpr
):  # fmt: skip
    """Work of one warp group: every other tile of the thread block."""
    hopper.mbarrier.wait(ready, 0)
    turn = 0
    for tile in range(first + GROUP * stride, gl.cdiv(size, ROWS), 2 * stride):
        row = tile * ROWS
        rstd = load_rstd(rstds, row, size)
        one, other = multiply_kept(ring, kept, turns, turn, GROUP)
        store_rows(out, eights(finish(one, rstd, load_shift(shift, 0))), row, column, size, n_out)
        made = eights(finish(other, rstd, load_shift(shift, OUTPUTS)))
        store_rows(out, made, row, column + OUTPUTS, size, n_out)
        turn += 1


@gluon.jit(do_not_specialize=["size"])
def norm_linear_hopper_kernel(x, weight, shift, rstds, out, size, n_out):
    n_part = n_out // CHANNELS
    first, stride = gl.program_id(0) // n_part, gl.num_programs(0) // n_part
    column = gl.program_id(0) % n_part * CHANNELS
    buffers = gl.allocate_shared_memory(gl.bfloat16, [RING, ROWS, PART], BLOCK_LAYOUT)
    ring = buffers, make_barriers(RING, 1), make_barriers(RING, 1)
    kept = gl.allocate_shared_memory(gl.bfloat16, [2 * PARTS, OUTPUTS, PART], BLOCK_LAYOUT)
    ready, turns, shift = make_barriers(1, 1).index(0), make_barriers(2, 1), make_shift(shift + column)
    gl.warp_specialize([
        (project_rows, (out, ring, kept, ready, turns, rstds, shift, size, n_out, first, stride, column, 0)),
        (project_rows, (out, ring, kept, ready, turns, rstds, shift, size, n_out, first, stride, column, 1)),
        (fetch, (x, weight, ring, kept, ready, size, first, stride, column)),
    ], [4, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> bool:
    """Whether this kernel takes the arguments of :func:`.norm_linear.norm_linear`."""
    fit = fits_hopper(kernels, N_CHANNEL, x, *linear.norm, linear.weight)
    return fit and rstd is not None and rstd.is_contiguous() and len(linear) % N_CHANNEL == 0


def run(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> torch.Tensor:
    """Launch the kernel. For arguments and result see :func:`.norm_linear.norm_linear`."""
    out = x.new_empty(*x.shape[:-1], len(linear))
    rows, n_part = x.view(-1, x.shape[-1]), len(linear) // N_CHANNEL
    # At least one thread block for each 256 output channels, whatever kernels.blocks_at_once says.
    n_program = kernels.n_block(x.device, -(-len(rows) // N_ROW) * n_part, 1)
    launch(
        norm_linear_hopper_kernel, (max(1, n_program // n_part) * n_part,), describe(rows),
        describe_weight(linear.folded, in_eights), linear.shift_in_eights, rstd, out, len(rows), len(linear),
        **OPTIONS,
    )  # fmt: skip
    return out
