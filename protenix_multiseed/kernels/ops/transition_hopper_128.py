"""Alg. 11 on Hopper GPUs, for rows of 128 channels in bfloat16.

It computes the operation ``add_transition`` of :mod:`.transition`. The hidden channels stay in registers, 64 at a time.
Both products need registers, so the normed rows replace the rows in shared memory, and the rows are read again for
their update. Weights are fetched again for each tile. For the rest see :mod:`..device_functions_hopper_128`.
"""

from functools import partial

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Norm
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    FETCH_REGISTERS,
    OUTPUTS,
    PART,
    PRODUCT,
    ROWS,
    eights,
    make_barriers,
    pointers,
)
from protenix_multiseed.kernels.device_functions_hopper_128 import (
    CHANNELS,
    COMPUTE_REGISTERS,
    GROUPS,
    N_CHANNEL,
    fetch_rows,
    make_norm,
    make_rows,
    norm_whole,
    slot_of,
)
from protenix_multiseed.kernels.known import PairBias
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.ops import transition_hopper
from protenix_multiseed.kernels.ops.transition_hopper import swiglu_of
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS_128,
    TILE_128,
    describe,
    describe_weight,
    grid,
    in_eights,
    in_turn,
)

SLOTS = gl.constexpr(2)  # for each weight: of 32 KiB of the first, of 16 KiB of the second
FACTOR = gl.constexpr(gl.DotOperandLayout(0, PRODUCT, 2))


@gluon.jit
def make_slots(BLOCKS: gl.constexpr):
    """Make slots for BLOCKS blocks [128, 64] of a weight in shared memory, with their mbarriers."""
    buffers = gl.allocate_shared_memory(gl.bfloat16, [SLOTS * BLOCKS, OUTPUTS, PART], BLOCK_LAYOUT)
    return buffers, make_barriers(SLOTS, 1), make_barriers(SLOTS, GROUPS)


@gluon.jit
def fetch_blocks(weight, slots, step, row, column, BLOCKS: gl.constexpr):
    """Fetch BLOCKS neighbouring blocks [128, 64] of a weight into a slot."""
    buffers, full, empty = slots
    slot = step % SLOTS
    hopper.mbarrier.wait(empty.index(slot), (step // SLOTS & 1) ^ 1)
    hopper.mbarrier.expect(full.index(slot), BLOCKS * OUTPUTS * PART * 2)
    for place in gl.static_range(BLOCKS):
        block = buffers.index(slot * BLOCKS + place).reshape(weight.block_shape)
        at = [row // 32, 0, 0, 0, column + place * PART]
        hopper.tma.async_copy_global_to_shared(weight, at, full.index(slot), block)


@gluon.jit
def fetch_transition_weights(expand, contract, expand_slots, contract_slots, size, n_hidden):
    """Work of the warp that fetches weights: for every 64 hidden channels 128 rows of one and 64 columns of another."""
    step = 0
    for _ in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        for first in range(0, n_hidden, PART):
            fetch_blocks(expand, expand_slots, step, 2 * first, 0, 2)
            fetch_blocks(contract, contract_slots, step, 0, first, 1)
            step += 1


@gluon.jit
def transform_rows(z, rows, expand_slots, contract_slots, norm, size, n_hidden, GROUP: gl.constexpr):
    """Work of one warp group."""
    e_buffers, e_full, e_empty = expand_slots
    c_buffers, c_full, c_empty = contract_slots
    wide = e_buffers._reinterpret(gl.bfloat16, [SLOTS, OUTPUTS, CHANNELS], BLOCK_LAYOUT)
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        x = slot_of(rows, GROUP, turn, 2, False)
        normed = norm_whole(x.load(PRODUCT), norm)
        gl.thread_barrier()
        x.store(normed)
        hopper.fence_async_shared()  # wgmma must see what the threads stored
        gl.thread_barrier()
        made = hopper.warpgroup_mma_init(gl.zeros([ROWS, CHANNELS], gl.float32, PRODUCT))
        for first in range(0, n_hidden, PART):
            slot, phase = step % SLOTS, step // SLOTS & 1
            hopper.mbarrier.wait(e_full.index(slot), phase)
            both = gl.zeros([ROWS, OUTPUTS], gl.float32, PRODUCT)
            both = hopper.warpgroup_mma(x, wide.index(slot).permute((1, 0)), both, use_acc=False, is_async=True)
            both = hopper.warpgroup_mma_wait(0, deps=[both])
            hopper.mbarrier.arrive(e_empty.index(slot), count=1)
            is_last = first + PART >= n_hidden
            hopper.mbarrier.arrive(rows[2].index(GROUP * 2 + turn % 2), count=1, pred=is_last)
            hidden = gl.convert_layout(swiglu_of(both), FACTOR, assert_trivial=True)
            hopper.mbarrier.wait(c_full.index(slot), phase)
            made = hopper.warpgroup_mma(hidden, c_buffers.index(slot).permute((1, 0)), made, is_async=True)
            made = hopper.warpgroup_mma_init(hopper.warpgroup_mma_wait(0, deps=[made]))
            hopper.mbarrier.arrive(c_empty.index(slot), count=1)
            step += 1
        made = hopper.warpgroup_mma_wait(0, deps=[made])
        at, inside = pointers(z, (tile * GROUPS + GROUP) * ROWS, 0, size, CHANNELS)
        made = eights(made) + gl.load(at, mask=inside, other=0.0).to(gl.float32)
        gl.store(at, made.to(gl.bfloat16), mask=inside)
        turn += 1


@gluon.jit(do_not_specialize=["size"])
def add_transition_128_hopper_kernel(z, x, expand, contract, scale, shift, size, n_hidden, epsilon):
    """``x`` describes the rows of ``z``."""
    rows, norm = make_rows(2), make_norm(scale, shift, epsilon)
    expand_slots, contract_slots = make_slots(2), make_slots(1)
    gl.warp_specialize([
        (transform_rows, (z, rows, expand_slots, contract_slots, norm, size, n_hidden, 0)),
        (transform_rows, (z, rows, expand_slots, contract_slots, norm, size, n_hidden, 1)),
        (transform_rows, (z, rows, expand_slots, contract_slots, norm, size, n_hidden, 2)),
        (fetch_rows, (x, rows, size, 2, False)),
        (fetch_transition_weights, (expand, contract, expand_slots, contract_slots, size, n_hidden)),
    ], [4, 4, 1, 1], [COMPUTE_REGISTERS, COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


fits = partial(transition_hopper.fits, width=N_CHANNEL)


def run(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
    after: PairBias | None = None,
) -> None:
    """Launch the kernel. For the arguments see :func:`.transition.add_transition`."""
    rows = x.view(-1, x.shape[-1])
    launch(
        add_transition_128_hopper_kernel, grid(kernels, rows, TILE_128), x, describe(rows),
        describe_weight(expand, in_turn), describe_weight(contract, in_eights), *norm, len(rows), contract.shape[1],
        EPSILON, **OPTIONS_128,
    )  # fmt: skip
