"""Alg. 12 and 13 after their matrix product on Hopper GPUs, for pairs of 256 channels in bfloat16.

It computes the operation ``add_triangle`` of :mod:`.triangle_product` with both norms folded into the weights after
them (:mod:`..normed`). The reciprocal standard deviations of the pairs must be known. Those of the product are found
while its first half is multiplied. For the design see :mod:`..device_functions_hopper`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels
from protenix_multiseed.kernels.device_functions_hopper import (
    CHANNELS,
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    OUTPUTS,
    PART,
    PARTS,
    PRODUCT,
    ROWS,
    fetch_pair,
    fetch_rows,
    finish,
    load_rstd,
    load_shift,
    make_rows,
    make_shift,
    make_weights,
    multiply,
    multiply_half,
    release,
    rstd_of_sums,
    sigmoid,
    widen,
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
)

SLOTS = gl.constexpr(3)  # of 32 KiB of weights
PIECE = gl.constexpr(32)  # channels that are summed at a time
# A warp holds the columns of its own rows of the product. Eight lanes read without a conflict of banks.
BY_COLUMN = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [1, 0]],
        lane_bases=[[0, 8], [2, 0], [4, 0], [8, 0], [16, 0]],
        warp_bases=[[0, 16], [0, 32]],
        block_bases=[],
        shape=[32, 64],
    )
)


@gluon.jit
def fetch_triangle_weights(back, gate, weights, size):
    """Work of the warp that fetches weights: for every 128 output channels their rows of both weights."""
    step = 0
    for _ in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        for first in range(0, CHANNELS, OUTPUTS):
            fetch_pair(back, first, 0, weights, step, SLOTS, False)
            fetch_pair(back, first, 2 * PART, weights, step + 1, SLOTS, False)
            fetch_pair(gate, first, 0, weights, step + 2, SLOTS, False)
            fetch_pair(gate, first, 2 * PART, weights, step + 3, SLOTS, False)
            step += 4


@gluon.jit
def rstd_of_columns(buffers, slot, epsilon):
    """Reciprocal standard deviations of the 64 columns of a slot [256, 64]."""
    first = slot * PARTS
    total = gl.zeros([PIECE, ROWS], gl.float32, BY_COLUMN)
    squares = total
    for piece in gl.static_range(CHANNELS // PIECE):
        a = widen(buffers.index(first + piece // 2).slice(piece % 2 * PIECE, PIECE, dim=0).load(BY_COLUMN))
        total += a
        squares += a * a
    rstd = rstd_of_sums(gl.sum(total, axis=0), gl.sum(squares, axis=0), epsilon)
    return gl.convert_layout(rstd, gl.SliceLayout(1, PRODUCT))


@gluon.jit
def give_back(empty, slot):
    """Mark a slot as empty, after all loads from it."""
    hopper.fence_async_shared()  # a load that still waits must not read what the TMA writes next
    gl.thread_barrier()
    hopper.mbarrier.arrive(empty.index(slot), count=1)


@gluon.jit
def update_pairs(
    z, rows, products, weights, rstds, shift, shift_out, after, size, epsilon, HEADS: gl.constexpr,
    IS_TURNED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Work of one warp group."""
    x_buffers, x_full, x_empty = rows
    p_buffers, p_full, p_empty = products
    turn, step = 0, 0
    rstd_out = gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, PRODUCT))
    for tile in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        row = (tile * 2 + GROUP) * ROWS
        rstd, known = load_rstd(rstds, row, size), start_known(HEADS)
        hopper.mbarrier.wait(p_full.index(GROUP), turn & 1)
        for half in gl.static_range(CHANNELS // OUTPUTS):
            update = multiply(p_buffers, GROUP, weights, step, SLOTS, True)
            if half == 0:
                rstd_out = rstd_of_columns(p_buffers, GROUP, epsilon)
                hopper.mbarrier.wait(x_full.index(GROUP), turn & 1)
            gates = hopper.warpgroup_mma_init(gl.zeros([ROWS, OUTPUTS], gl.float32, PRODUCT))
            gates = multiply_half(x_buffers, GROUP, weights, step + 2, gates, 0, SLOTS, False)
            update = hopper.warpgroup_mma_wait(2, deps=[update])  # the two wgmma of the gates may still run
            release(weights, step, 2, SLOTS)
            if half == 1:
                give_back(p_empty, GROUP)
            gates = multiply_half(x_buffers, GROUP, weights, step + 3, gates, 1, SLOTS, False)
            update = finish(update, rstd_out, load_shift(shift_out, half * OUTPUTS))
            gates = hopper.warpgroup_mma_wait(0, deps=[gates])
            release(weights, step + 2, 2, SLOTS)
            if half == 1:
                hopper.mbarrier.arrive(x_empty.index(GROUP), count=1)
            step += 4
            gates = sigmoid(finish(gates, rstd, load_shift(shift, half * OUTPUTS)))
            known = update_half(z, update * gates, row, half * OUTPUTS, size, known, after, HEADS)
        store_known(row, size, known, after, epsilon, HEADS, IS_TURNED)
        turn += 1


@gluon.jit(do_not_specialize=["size", "n"])
def add_triangle_hopper_kernel(
    z, x, product, back, gate, rstds, shift, shift_out, after, shift_after, lengths, new_rstds, bias, n, by_pair,
    by_head, by_query, size, epsilon, HEADS: gl.constexpr, IS_TURNED: gl.constexpr,
):  # fmt: skip
    """``x`` describes the rows of ``z``."""
    rows, products, weights = make_rows(2), make_rows(2), make_weights(SLOTS, 2)
    shift, shift_out = make_shift(shift), make_shift(shift_out)
    after = after, shift_after, lengths, new_rstds, bias, n, by_pair, by_head, by_query
    gl.warp_specialize([
        (update_pairs,
         (z, rows, products, weights, rstds, shift, shift_out, after, size, epsilon, HEADS, IS_TURNED, 0)),
        (update_pairs,
         (z, rows, products, weights, rstds, shift, shift_out, after, size, epsilon, HEADS, IS_TURNED, 1)),
        (fetch_rows, (product, products, size, True)),
        (fetch_rows, (x, rows, size, False)),
        (fetch_triangle_weights, (back, gate, weights, size)),
    ], [4, 1, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> bool:
    """Whether this kernel takes the arguments of :func:`.triangle_product.add_triangle`."""
    return can_update(kernels, z, product, gate, out, N_CHANNEL) and rstd is not None and rstd.is_contiguous()


def can_update(
    kernels: Kernels, z: torch.Tensor, product: torch.Tensor, gate: NormedLinear, out: NormedLinear, width: int
) -> bool:
    """Whether a kernel for ``width`` channels can read these arguments.

    The channels of the product are rows of pairs for the tensor memory accelerator: multiples of 16 bytes.
    """
    n_pair = z.numel() // z.shape[-1]
    fit = fits_hopper(kernels, width, z, product, *gate.norm, gate.weight, *out.norm, out.weight)
    return fit and len(product) == width and n_pair % 8 == 0


def run(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> Known:
    """Launch the kernel. For arguments and result see :func:`.triangle_product.add_triangle`."""
    rows = z.view(-1, z.shape[-1])
    known, places, constants = place_known(kernels, z, after)
    launch(
        add_triangle_hopper_kernel, grid(kernels, rows, TILE), z, describe(rows),
        describe(product.view(len(product), -1)), describe_weight(out.folded, in_eights),
        describe_weight(gate.folded, in_eights), rstd, gate.shift_in_eights, out.shift_in_eights, *places, len(rows),
        EPSILON, *constants, **OPTIONS,
    )  # fmt: skip
    return known
