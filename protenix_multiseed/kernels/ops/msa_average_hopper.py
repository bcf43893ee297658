"""Alg. 14 lines 4, 6 and 7 on Hopper GPUs, for pairs of 256 channels in bfloat16.

It computes the operation ``add_gated_average`` of :mod:`.msa_average`, for averages in the memory order of the pairs.
The norm is folded into the gates' weight (:mod:`..normed`), so the reciprocal standard deviations of the pairs must be
known. For the design see :mod:`..device_functions_hopper`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels
from protenix_multiseed.kernels.device_functions_hopper import (
    CHANNELS,
    COMPUTE_REGISTERS,
    FACTOR,
    FETCH_REGISTERS,
    N_CHANNEL,
    OUTPUTS,
    PART,
    PRODUCT,
    ROWS,
    WIDE_PRODUCT,
    contract,
    fetch_pair,
    fetch_rows,
    finish,
    halves,
    load_rstd,
    load_shift,
    make_rows,
    make_shift,
    make_weights,
    multiply,
    release,
    sigmoid,
)
from protenix_multiseed.kernels.device_functions_hopper_update import start_known, store_known, update_half
from protenix_multiseed.kernels.known import Known, PairBias, place_known
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    TILE,
    describe,
    describe_weight,
    fits_hopper,
    grid,
    in_eights,
    in_order,
)

SLOTS = gl.constexpr(5)  # of 32 KiB of weights


@gluon.jit
def fetch_average_weights(gate, back, weights, size):
    """Work of the warp that fetches weights: all of the gates' weight, then all of the output's."""
    step = 0
    for _ in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        for first in range(0, CHANNELS, OUTPUTS):
            fetch_pair(gate, first, 0, weights, step, SLOTS, False)
            fetch_pair(gate, first, 2 * PART, weights, step + 1, SLOTS, False)
            step += 2
        for first in range(0, CHANNELS, PART):
            fetch_pair(back, 0, first, weights, step, SLOTS, True)
            step += 1


@gluon.jit
def load_average(average, row, column, size):
    """Load 128 channels of 64 rows of an average in the layout of the gates' product -> [64, 128]."""
    # A thread reads two neighbouring channels at once. To read eight and then exchange them between threads is slower.
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, PRODUCT))
    columns = gl.arange(0, OUTPUTS, gl.SliceLayout(0, PRODUCT))
    average += gl.to_tensor(row).to(gl.int64) * CHANNELS + column
    at = average + (rows[:, None] * CHANNELS + columns[None, :])
    return gl.load(at, mask=(row + rows < size)[:, None], other=0.0)


@gluon.jit
def gate_average(average, gates):
    """Gate 128 channels of an average -> two first factors [64, 64] of the next product."""
    gated = (average.to(gl.float32) * sigmoid(gates)).to(gl.bfloat16)
    one, other = gl.split(gl.permute(gl.reshape(gated, (ROWS, 2, PART)), (0, 2, 1)))
    one = gl.convert_layout(one, FACTOR, assert_trivial=True)
    return one, gl.convert_layout(other, FACTOR, assert_trivial=True)


@gluon.jit
def update_rows(
    z, average, rows, weights, rstds, shift, after, size, epsilon, HEADS: gl.constexpr, IS_TURNED: gl.constexpr,
    GROUP: gl.constexpr,
):  # fmt: skip
    """Work of one warp group."""
    buffers, full, empty = rows
    turn, step = 0, 0
    next_rstd = load_rstd(rstds, (gl.program_id(0) * 2 + GROUP) * ROWS, size)
    for tile in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        row = (tile * 2 + GROUP) * ROWS
        hopper.mbarrier.wait(full.index(GROUP), turn & 1)
        gates = multiply(buffers, GROUP, weights, step, SLOTS, False)
        average0 = load_average(average, row, 0, size)
        rstd = next_rstd
        gates = hopper.warpgroup_mma_wait(0, deps=[gates])
        release(weights, step, 2, SLOTS)
        gates1 = multiply(buffers, GROUP, weights, step + 2, SLOTS, False)
        average1 = load_average(average, row, OUTPUTS, size)
        gated0, gated1 = gate_average(average0, finish(gates, rstd, load_shift(shift, 0)))
        gates1 = hopper.warpgroup_mma_wait(0, deps=[gates1])
        release(weights, step + 2, 2, SLOTS)
        hopper.mbarrier.arrive(empty.index(GROUP), count=1)
        gated2, gated3 = gate_average(average1, finish(gates1, rstd, load_shift(shift, OUTPUTS)))
        made = hopper.warpgroup_mma_init(gl.zeros([ROWS, CHANNELS], gl.float32, WIDE_PRODUCT))
        next_rstd = load_rstd(rstds, row + 2 * ROWS * gl.num_programs(0), size)
        made = contract(gated0, weights, step + 4, made, SLOTS)
        made = contract(gated1, weights, step + 5, made, SLOTS)
        made = contract(gated2, weights, step + 6, made, SLOTS)
        made = hopper.warpgroup_mma_wait(1, deps=[made])
        release(weights, step + 4, 2, SLOTS)
        made = hopper.warpgroup_mma_init(made)
        made = contract(gated3, weights, step + 7, made, SLOTS)
        made = hopper.warpgroup_mma_wait(0, deps=[made])
        release(weights, step + 6, 2, SLOTS)
        step += 8
        known = start_known(HEADS)
        one, other = halves(made)
        known = update_half(z, one, row, 0, size, known, after, HEADS)
        known = update_half(z, other, row, OUTPUTS, size, known, after, HEADS)
        store_known(row, size, known, after, epsilon, HEADS, IS_TURNED)
        turn += 1


@gluon.jit(do_not_specialize=["size", "n"])
def add_gated_average_hopper_kernel(
    z, x, average, gate, back, rstds, shift, after, shift_after, lengths, new_rstds, bias, n, by_pair, by_head,
    by_query, size, epsilon, HEADS: gl.constexpr, IS_TURNED: gl.constexpr,
):  # fmt: skip
    """``x`` describes the rows of ``z``."""
    rows, weights, shift = make_rows(2), make_weights(SLOTS, 2), make_shift(shift)
    after = after, shift_after, lengths, new_rstds, bias, n, by_pair, by_head, by_query
    gl.warp_specialize([
        (update_rows, (z, average, rows, weights, rstds, shift, after, size, epsilon, HEADS, IS_TURNED, 0)),
        (update_rows, (z, average, rows, weights, rstds, shift, after, size, epsilon, HEADS, IS_TURNED, 1)),
        (fetch_rows, (x, rows, size, False)),
        (fetch_average_weights, (gate, back, weights, size)),
    ], [4, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(
    kernels: Kernels,
    x: torch.Tensor,
    average: torch.Tensor,
    gate: NormedLinear,
    out: torch.Tensor,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> bool:
    """Whether this kernel takes the arguments of :func:`.msa_average.add_gated_average`."""
    return can_update(kernels, x, average, gate, out, N_CHANNEL) and rstd is not None and rstd.is_contiguous()


def can_update(
    kernels: Kernels, x: torch.Tensor, average: torch.Tensor, gate: NormedLinear, out: torch.Tensor, width: int
) -> bool:
    """Whether a kernel for ``width`` channels can read these arguments."""
    return fits_hopper(kernels, width, x, average, *gate.norm, gate.weight, out) and len(gate) == width


def run(
    kernels: Kernels,
    x: torch.Tensor,
    average: torch.Tensor,
    gate: NormedLinear,
    out: torch.Tensor,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> Known:
    """Launch the kernel. For arguments and result see :func:`.msa_average.add_gated_average`."""
    rows = x.view(-1, x.shape[-1])
    known, places, constants = place_known(kernels, x, after)
    launch(
        add_gated_average_hopper_kernel, grid(kernels, rows, TILE), x, describe(rows), average,
        describe_weight(gate.folded, in_order), describe_weight(out, in_eights), rstd, gate.shift, *places, len(rows),
        EPSILON, *constants, **OPTIONS,
    )  # fmt: skip
    return known
