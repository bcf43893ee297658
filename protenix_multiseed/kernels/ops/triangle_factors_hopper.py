"""Alg. 12 and 13 before their matrix product on Hopper GPUs, for pairs of 256 channels in bfloat16.

It computes the operation ``gated_channels`` of :mod:`.triangle_product`. For the design see
:mod:`..device_functions_hopper`. A warp group takes 128 rows at a time, which halves the reads of weights.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Lengths
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    BY_ROW,
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_PART,
    OUTPUTS,
    PART,
    PARTS,
    PRODUCT,
    ROWS,
    fetch_block,
    fetch_rows,
    make_rows,
    make_weights,
    norm_rows,
    release,
    sigmoid,
    store_block,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    TALL_TILE,
    describe,
    describe_weight,
    fits_hopper,
    grid,
    in_turn,
)

SLOTS = gl.constexpr(5)  # of 16 KiB of weights


@gluon.jit
def fetch_whole_weight(weight, weights, size, n_out):
    """Work of the warp that fetches a weight [n_out, 256] for each tile of 256 rows, one block [128, 64] a slot."""
    buffers, full, empty = weights
    step = 0
    for _ in range(gl.program_id(0), gl.cdiv(size, 4 * ROWS), gl.num_programs(0)):
        for row in range(0, n_out, OUTPUTS):
            for part in gl.static_range(PARTS):
                slot = step % SLOTS
                hopper.mbarrier.wait(empty.index(slot), (step // SLOTS & 1) ^ 1)
                hopper.mbarrier.expect(full.index(slot), OUTPUTS * PART * 2)
                fetch_block(weight, row, part * PART, full.index(slot), buffers.index(slot))
                step += 1


@gluon.jit
def norm_twice(rows, GROUP: gl.constexpr, turn, norm, rstds, first, size):
    """Layer norm of both slots of a warp group, as soon as each is full. Stores what the rows were scaled by."""
    buffers, full, _ = rows
    for half in gl.static_range(2):
        hopper.mbarrier.wait(full.index(GROUP * 2 + half), turn & 1)
        rstd = norm_rows(buffers, GROUP * 2 + half, norm)
        at = first + half * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, BY_ROW))
        gl.store(rstds + at, rstd, mask=at < size)


@gluon.jit
def multiply_twice(rows, GROUP: gl.constexpr, weights, step):
    """Products of both slots of a warp group with 128 rows of a weight -> two tensors [64, 128]."""
    x_buffers = rows[0]
    w_buffers, w_full, _ = weights
    FIRST: gl.constexpr = GROUP * 2 * PARTS
    made0 = hopper.warpgroup_mma_init(gl.zeros([ROWS, OUTPUTS], gl.float32, PRODUCT))
    made1 = hopper.warpgroup_mma_init(gl.zeros([ROWS, OUTPUTS], gl.float32, PRODUCT))
    for part in gl.static_range(PARTS):
        slot = (step + part) % SLOTS
        hopper.mbarrier.wait(w_full.index(slot), (step + part) // SLOTS & 1)
        weight = w_buffers.index(slot).permute((1, 0))
        made0 = hopper.warpgroup_mma(x_buffers.index(FIRST + part), weight, made0, use_acc=part > 0, is_async=True)
        made1 = hopper.warpgroup_mma(
            x_buffers.index(FIRST + PARTS + part), weight, made1, use_acc=part > 0, is_async=True
        )
        if part > 0:
            # Wait for all but the two products just begun. ptxas serialises wgmma if this wait names their results, so
            # it names zeros.
            hopper.warpgroup_mma_wait(2, deps=[gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, PRODUCT))])
            release(weights, step + part - 1, 1, SLOTS)
    made0, made1 = hopper.warpgroup_mma_wait(0, deps=[made0, made1])
    release(weights, step + PARTS - 1, 1, SLOTS)
    return made0, made1


@gluon.jit
def are_real(first, lengths, size, n):
    """Return for 64 pairs whether both tokens are real and not padding."""
    pair = first + gl.arange(0, ROWS, gl.SliceLayout(1, PRODUCT))
    n_token = gl.load(lengths + pair // n // n, mask=pair < size, other=0)
    return (pair // n % n < n_token) & (pair % n < n_token)


@gluon.jit
def gated_values(made, real):
    """Gate 64 channels of 64 pairs -> [channels, pairs]. Those of pairs that are not ``real`` are zero.

    ``made``: eight values and their eight gates in turn [64, 128].
    """
    value, gates = gl.split(gl.permute(gl.reshape(made, (ROWS, 8, 2, 8)), (0, 1, 3, 2)))
    gated = gl.reshape(value * sigmoid(gates), (ROWS, PART))
    real = gl.convert_layout(real, gl.SliceLayout(1, gated.type.layout), assert_trivial=True)
    return gl.permute(gl.where(real[:, None], gated, 0.0).to(gl.bfloat16), (1, 0))


@gluon.jit
def gate_pairs(out, rstds, made_blocks, rows, weights, norm, lengths, size, n, n_out, GROUP: gl.constexpr):
    """Work of one warp group that computes the factors."""
    empty = rows[2]
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 4 * ROWS), gl.num_programs(0)):
        first = (tile * 4 + GROUP * 2) * ROWS
        real0, real1 = are_real(first, lengths, size, n), are_real(first + ROWS, lengths, size, n)
        norm_twice(rows, GROUP, turn, norm, rstds, first, size)
        for channel in range(0, n_out, PART):
            made0, made1 = multiply_twice(rows, GROUP, weights, step)
            step += PARTS
            store_block(out, made_blocks.index(GROUP), gated_values(made0, real0), channel, first, 0)
            store_block(out, made_blocks.index(GROUP), gated_values(made1, real1), channel, first + ROWS, 0)
        hopper.mbarrier.arrive(empty.index(GROUP * 2), count=1)
        hopper.mbarrier.arrive(empty.index(GROUP * 2 + 1), count=1)
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size", "n"])
def gated_channels_hopper_kernel(z, weight, scale, shift, lengths, out, rstds, size, n, n_out, epsilon):
    rows, weights = make_rows(4), make_weights(SLOTS, 1)
    made_blocks = gl.allocate_shared_memory(gl.bfloat16, [2, PART, ROWS], BLOCK_LAYOUT)
    norm = (scale, shift, epsilon)
    gl.warp_specialize([
        (gate_pairs, (out, rstds, made_blocks, rows, weights, norm, lengths, size, n, n_out, 0)),
        (gate_pairs, (out, rstds, made_blocks, rows, weights, norm, lengths, size, n, n_out, 1)),
        (fetch_rows, (z, rows, size, 2, False)),
        (fetch_whole_weight, (weight, weights, size, 2 * n_out)),
    ], [4, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths, width: int = N_CHANNEL) -> bool:
    """Whether a kernel for ``width`` channels takes the arguments of :func:`.triangle_product.gated_channels`.

    The channels of the result are rows of pairs for the tensor memory accelerator: multiples of 16 bytes.
    """
    n_pair = z.numel() // z.shape[-1]
    fit = fits_hopper(kernels, width, z, *linear.norm, linear.weight)
    return fit and len(linear) % (2 * N_PART) == 0 and n_pair % 8 == 0


def run(kernels: Kernels, z: torch.Tensor, linear: NormedLinear, lengths: Lengths) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel. For arguments and results see :func:`.triangle_product.gated_channels`."""
    rows, n_out = z.view(-1, z.shape[-1]), len(linear) // 2
    out, rstd = z.new_empty(n_out, *z.shape[:-1]), z.new_empty(z.shape[:-1], dtype=torch.float32)
    launch(
        gated_channels_hopper_kernel, grid(kernels, rows, TALL_TILE), describe(rows),
        describe_weight(linear.weight, in_turn), *linear.norm, lengths.each, describe(out.view(n_out, -1)), rstd,
        len(rows), z.shape[-2], n_out, EPSILON, **OPTIONS,
    )  # fmt: skip
    return out, rstd
