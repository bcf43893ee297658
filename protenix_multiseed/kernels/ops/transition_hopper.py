"""Alg. 11 on Hopper GPUs, for rows of 256 channels in bfloat16.

It computes the operation ``add_transition`` of :mod:`.transition`. The hidden channels stay in registers, 64 at a time.
For the design see :mod:`..device_functions_hopper`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Norm
from protenix_multiseed.kernels.device_functions_hopper import (
    BY_ROW,
    CHANNELS,
    COMPUTE_REGISTERS,
    FACTOR,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_PART,
    OUTPUTS,
    PART,
    PARTS,
    ROWS,
    WIDE_PRODUCT,
    contract,
    fetch_pair,
    fetch_rows,
    halves,
    make_rows,
    make_weights,
    multiply,
    release,
    sigmoid,
)
from protenix_multiseed.kernels.device_functions_hopper_update import start_known, store_known, update_half
from protenix_multiseed.kernels.known import Known, PairBias, place_known
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    TILE,
    describe,
    describe_weight,
    fits_hopper,
    grid,
    in_eights,
    in_turn,
)

SLOTS = gl.constexpr(5)  # of 32 KiB of weights


@gluon.jit
def fetch_transition_weights(expand, contract_weight, weights, size, n_hidden):
    """Work of the warp that fetches weights: for every 64 hidden channels 128 rows of one and 64 columns of another."""
    step = 0
    for _ in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        for first in range(0, n_hidden, PART):
            fetch_pair(expand, 2 * first, 0, weights, step, SLOTS, False)
            fetch_pair(expand, 2 * first, 2 * PART, weights, step + 1, SLOTS, False)
            fetch_pair(contract_weight, 0, first, weights, step + 2, SLOTS, True)
            step += 3


@gluon.jit
def swiglu_of(both):
    """SwiGLU of eight values and their eight gates in turn [64, 128] -> [64, 64]."""
    one, other = gl.split(gl.permute(gl.reshape(both, (ROWS, 8, 2, 8)), (0, 1, 3, 2)))
    return gl.reshape(one * sigmoid(one) * other, (ROWS, PART)).to(gl.bfloat16)


@gluon.jit
def norm_rows(buffers, slot, norm):
    """Layer norm of the 64 rows of a slot, in place. The result is rounded as in the Triton kernels' ``norm_rows``."""
    scale, shift, epsilon = norm
    first = slot * PARTS
    column = gl.arange(0, PART, gl.SliceLayout(0, BY_ROW))
    a0 = buffers.index(first).load(BY_ROW).to(gl.float32)
    a1 = buffers.index(first + 1).load(BY_ROW).to(gl.float32)
    a2 = buffers.index(first + 2).load(BY_ROW).to(gl.float32)
    a3 = buffers.index(first + 3).load(BY_ROW).to(gl.float32)
    mean = (gl.sum(a0 + a1 + a2 + a3, axis=1) / CHANNELS)[:, None]
    a0 -= mean
    a1 -= mean
    a2 -= mean
    a3 -= mean
    rstd = gl.rsqrt(gl.sum(a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3, axis=1) / CHANNELS + epsilon)
    gl.thread_barrier()
    store_normed(buffers.index(first), a0 * rstd[:, None], scale + column, shift + column)
    store_normed(buffers.index(first + 1), a1 * rstd[:, None], scale + PART + column, shift + PART + column)
    store_normed(buffers.index(first + 2), a2 * rstd[:, None], scale + 2 * PART + column, shift + 2 * PART + column)
    store_normed(buffers.index(first + 3), a3 * rstd[:, None], scale + 3 * PART + column, shift + 3 * PART + column)
    hopper.fence_async_shared()  # wgmma must see what the threads stored
    gl.thread_barrier()


@gluon.jit
def store_normed(block, a, scale, shift):
    a = a * gl.load(scale).to(gl.float32)[None, :] + gl.load(shift).to(gl.float32)[None, :]
    block.store(a.to(gl.bfloat16))


@gluon.jit
def transform_rows(
    z, rows, weights, norm, after, size, n_hidden, HEADS: gl.constexpr, IS_TURNED: gl.constexpr, GROUP: gl.constexpr
):  # fmt: skip
    """Work of one warp group."""
    buffers, full, empty = rows
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        row = (tile * 2 + GROUP) * ROWS
        hopper.mbarrier.wait(full.index(GROUP), turn & 1)
        norm_rows(buffers, GROUP, norm)
        made = hopper.warpgroup_mma_init(gl.zeros([ROWS, CHANNELS], gl.float32, WIDE_PRODUCT))
        for first in range(0, n_hidden, PART):
            both = multiply(buffers, GROUP, weights, step, SLOTS, False)
            both = hopper.warpgroup_mma_wait(0, deps=[both])
            release(weights, step, 2, SLOTS)
            hopper.mbarrier.arrive(empty.index(GROUP), count=1, pred=first + PART >= n_hidden)
            # Two products at once would need too many registers. The other warp group multiplies meanwhile.
            hidden = gl.convert_layout(swiglu_of(both), FACTOR, assert_trivial=True)
            made = contract(hidden, weights, step + 2, made, SLOTS)
            made = hopper.warpgroup_mma_init(hopper.warpgroup_mma_wait(0, deps=[made]))
            release(weights, step + 2, 1, SLOTS)
            step += 3
        made = hopper.warpgroup_mma_wait(0, deps=[made])
        known = start_known(HEADS)
        one, other = halves(made)
        known = update_half(z, one, row, 0, size, known, after, HEADS)
        known = update_half(z, other, row, OUTPUTS, size, known, after, HEADS)
        store_known(row, size, known, after, norm[2], HEADS, IS_TURNED)
        turn += 1


@gluon.jit(do_not_specialize=["size", "n"])
def add_transition_hopper_kernel(
    z, x, expand, contract_weight, scale, shift, after, shift_after, lengths, new_rstds, bias, n, by_pair, by_head,
    by_query, size, n_hidden, epsilon, HEADS: gl.constexpr, IS_TURNED: gl.constexpr,
):  # fmt: skip
    """``x`` describes the rows of ``z``."""
    rows, weights = make_rows(2), make_weights(SLOTS, 2)
    after = after, shift_after, lengths, new_rstds, bias, n, by_pair, by_head, by_query
    gl.warp_specialize([
        (transform_rows, (z, rows, weights, (scale, shift, epsilon), after, size, n_hidden, HEADS, IS_TURNED, 0)),
        (transform_rows, (z, rows, weights, (scale, shift, epsilon), after, size, n_hidden, HEADS, IS_TURNED, 1)),
        (fetch_rows, (x, rows, size, False)),
        (fetch_transition_weights, (expand, contract_weight, weights, size, n_hidden)),
    ], [4, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
    after: PairBias | None = None,
    *,
    width: int = N_CHANNEL,
) -> bool:
    """Whether a kernel for ``width`` channels takes the arguments of :func:`.transition.add_transition`."""
    return fits_hopper(kernels, width, x, *norm, expand, contract) and contract.shape[1] % N_PART == 0


def run(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
    after: PairBias | None = None,
) -> Known:
    """Launch the kernel. For arguments and result see :func:`.transition.add_transition`."""
    rows = x.view(-1, x.shape[-1])
    known, places, constants = place_known(kernels, x, after)
    launch(
        add_transition_hopper_kernel, grid(kernels, rows, TILE), x, describe(rows), describe_weight(expand, in_turn),
        describe_weight(contract, in_eights), *norm, *places, len(rows), contract.shape[1], EPSILON, *constants,
        **OPTIONS,
    )  # fmt: skip
    return known
