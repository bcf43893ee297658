"""Alg. 12 and 13 except their matrix product on Hopper GPUs, for pairs of 256 channels in bfloat16.

It computes the operations of :mod:`.triangle_product`. For the design see :mod:`..device_functions_hopper`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Lengths, Norm
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    CHANNELS,
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_PART,
    OUTPUTS,
    PART,
    PARTS,
    PRODUCT,
    ROWS,
    add_rows,
    eights,
    fetch_pair,
    fetch_rows,
    fetch_whole_weight,
    make_rows,
    make_weights,
    multiply,
    multiply_half,
    multiply_twice,
    norm_rows,
    norm_twice,
    release,
    sigmoid,
    store_block,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    TALL_TILE,
    TILE,
    describe,
    describe_weight,
    fits_hopper,
    grid,
    in_eights,
    in_turn,
)

FACTOR_SLOTS = gl.constexpr(5)  # of 16 KiB of weights
UPDATE_SLOTS = gl.constexpr(3)  # of 32 KiB of weights
BY_COLUMN = gl.constexpr(gl.BlockedLayout([1, 8], [16, 2], [1, 4], [1, 0]))


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
def gate_pairs(out, made_blocks, rows, weights, norm, lengths, size, n, n_out, GROUP: gl.constexpr):
    """Work of one warp group that computes the factors."""
    empty = rows[2]
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 4 * ROWS), gl.num_programs(0)):
        first = (tile * 4 + GROUP * 2) * ROWS
        real0, real1 = are_real(first, lengths, size, n), are_real(first + ROWS, lengths, size, n)
        norm_twice(rows, GROUP, turn, norm)
        for channel in range(0, n_out, PART):
            made0, made1 = multiply_twice(rows, GROUP, weights, step, FACTOR_SLOTS)
            step += PARTS
            store_block(out, made_blocks.index(GROUP), gated_values(made0, real0), channel, first, 0)
            store_block(out, made_blocks.index(GROUP), gated_values(made1, real1), channel, first + ROWS, 0)
        hopper.mbarrier.arrive(empty.index(GROUP * 2), count=1)
        hopper.mbarrier.arrive(empty.index(GROUP * 2 + 1), count=1)
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size", "n"])
def gated_channels_hopper_kernel(z, weight, scale, shift, lengths, out, size, n, n_out, epsilon):
    rows, weights = make_rows(4), make_weights(FACTOR_SLOTS, 1)
    made_blocks = gl.allocate_shared_memory(gl.bfloat16, [2, PART, ROWS], BLOCK_LAYOUT)
    norm = (scale, shift, epsilon)
    gl.warp_specialize([
        (gate_pairs, (out, made_blocks, rows, weights, norm, lengths, size, n, n_out, 0)),
        (gate_pairs, (out, made_blocks, rows, weights, norm, lengths, size, n, n_out, 1)),
        (fetch_rows, (z, rows, size, 2, False)),
        (fetch_whole_weight, (weight, weights, size, 2 * n_out, FACTOR_SLOTS)),
    ], [4, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


@gluon.jit
def fetch_triangle_weights(back, gate, weights, size):
    """Work of the warp that fetches weights: for every 128 output channels their rows of both weights."""
    step = 0
    for _ in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        for first in range(0, CHANNELS, OUTPUTS):
            fetch_pair(back, first, 0, weights, step, UPDATE_SLOTS, False)
            fetch_pair(back, first, 2 * PART, weights, step + 1, UPDATE_SLOTS, False)
            fetch_pair(gate, first, 0, weights, step + 2, UPDATE_SLOTS, False)
            fetch_pair(gate, first, 2 * PART, weights, step + 3, UPDATE_SLOTS, False)
            step += 4


@gluon.jit
def norm_columns(buffers, slot, norm):
    """Layer norm of the 64 columns of a slot [256, 64], in place."""
    scale, shift, epsilon = norm
    first = slot * PARTS
    channel = gl.arange(0, PART, gl.SliceLayout(1, BY_COLUMN))
    a0 = buffers.index(first).load(BY_COLUMN).to(gl.float32)
    a1 = buffers.index(first + 1).load(BY_COLUMN).to(gl.float32)
    a2 = buffers.index(first + 2).load(BY_COLUMN).to(gl.float32)
    a3 = buffers.index(first + 3).load(BY_COLUMN).to(gl.float32)
    mean = (gl.sum(a0 + a1 + a2 + a3, axis=0) / CHANNELS)[None, :]
    a0 -= mean
    a1 -= mean
    a2 -= mean
    a3 -= mean
    inverse = gl.rsqrt(gl.sum(a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3, axis=0) / CHANNELS + epsilon)[None, :]
    gl.thread_barrier()
    store_normed_columns(buffers.index(first), a0 * inverse, scale + channel, shift + channel)
    store_normed_columns(buffers.index(first + 1), a1 * inverse, scale + PART + channel, shift + PART + channel)
    store_normed_columns(buffers.index(first + 2), a2 * inverse, scale + 2 * PART + channel, shift + 2 * PART + channel)
    store_normed_columns(buffers.index(first + 3), a3 * inverse, scale + 3 * PART + channel, shift + 3 * PART + channel)
    hopper.fence_async_shared()  # wgmma must see what the threads stored
    gl.thread_barrier()


@gluon.jit
def store_normed_columns(block, a, scale, shift):
    a = a * gl.load(scale).to(gl.float32)[:, None] + gl.load(shift).to(gl.float32)[:, None]
    block.store(a.to(gl.bfloat16))


@gluon.jit
def update_pairs(z, rows, products, weights, norm, norm_out, size, GROUP: gl.constexpr):
    """Work of one warp group that computes the update."""
    x_buffers, x_full, x_empty = rows
    p_buffers, p_full, p_empty = products
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
        hopper.mbarrier.wait(p_full.index(GROUP), turn & 1)
        norm_columns(p_buffers, GROUP, norm_out)
        hopper.mbarrier.wait(x_full.index(GROUP), turn & 1)
        norm_rows(x_buffers, GROUP, norm)
        for first in range(0, CHANNELS, OUTPUTS):
            is_last = first + OUTPUTS == CHANNELS
            update = multiply(p_buffers, GROUP, weights, step, UPDATE_SLOTS, True)
            gates = hopper.warpgroup_mma_init(gl.zeros([ROWS, OUTPUTS], gl.float32, PRODUCT))
            gates = multiply_half(x_buffers, GROUP, weights, step + 2, gates, 0, UPDATE_SLOTS, False)
            update = hopper.warpgroup_mma_wait(2, deps=[update])  # the two wgmma of the gates may still run
            release(weights, step, 2, UPDATE_SLOTS)
            hopper.mbarrier.arrive(p_empty.index(GROUP), count=1, pred=is_last)
            gates = multiply_half(x_buffers, GROUP, weights, step + 3, gates, 1, UPDATE_SLOTS, False)
            gates = hopper.warpgroup_mma_wait(0, deps=[gates])
            release(weights, step + 2, 2, UPDATE_SLOTS)
            hopper.mbarrier.arrive(x_empty.index(GROUP), count=1, pred=is_last)
            step += 4
            add_rows(z, eights(update * sigmoid(gates)), (tile * 2 + GROUP) * ROWS, first, size, CHANNELS)
        turn += 1


@gluon.jit(do_not_specialize=["size"])
def add_triangle_hopper_kernel(z, x, product, back, gate, scale, shift, scale_out, shift_out, size, epsilon):
    """``x`` describes the rows of ``z``."""
    rows, products, weights = make_rows(2), make_rows(2), make_weights(UPDATE_SLOTS, 2)
    norm, norm_out = (scale, shift, epsilon), (scale_out, shift_out, epsilon)
    gl.warp_specialize([
        (update_pairs, (z, rows, products, weights, norm, norm_out, size, 0)),
        (update_pairs, (z, rows, products, weights, norm, norm_out, size, 1)),
        (fetch_rows, (product, products, size, 1, True)),
        (fetch_rows, (x, rows, size, 1, False)),
        (fetch_triangle_weights, (back, gate, weights, size)),
    ], [4, 1, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def factors_fit(
    kernels: Kernels,
    z: torch.Tensor,
    norm: Norm,
    weight: torch.Tensor,
    lengths: Lengths,
    width: int = N_CHANNEL,
) -> bool:
    """Whether a kernel for ``width`` channels takes the arguments of :func:`.triangle_product.gated_channels`.

    The channels of the result are rows of pairs for the tensor memory accelerator: multiples of 16 bytes.
    """
    n_pair = z.numel() // z.shape[-1]
    return fits_hopper(kernels, width, z, *norm, weight) and len(weight) % (2 * N_PART) == 0 and n_pair % 8 == 0


def make_factors(
    kernels: Kernels,
    z: torch.Tensor,
    norm: Norm,
    weight: torch.Tensor,
    lengths: Lengths,
    kernel: Any = gated_channels_hopper_kernel,
    tile: int = TALL_TILE,
    options: Mapping[str, int] = OPTIONS,
) -> torch.Tensor:
    """Launch a kernel. For arguments and result see :func:`.triangle_product.gated_channels`."""
    rows, n_out = z.view(-1, z.shape[-1]), len(weight) // 2
    out = z.new_empty(n_out, *z.shape[:-1])
    launch(
        kernel, grid(kernels, rows, tile), describe(rows), describe_weight(weight, in_turn), *norm, lengths.each,
        describe(out.view(n_out, -1)), len(rows), z.shape[-2], n_out, EPSILON, **options,
    )  # fmt: skip
    return out


def update_fits(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    norm: Norm,
    gate: torch.Tensor,
    norm_out: Norm,
    out: torch.Tensor,
    width: int = N_CHANNEL,
) -> bool:
    """Whether a kernel for ``width`` channels takes the arguments of :func:`.triangle_product.add_triangle`."""
    n_pair = z.numel() // z.shape[-1]
    fit = fits_hopper(kernels, width, z, product, *norm, gate, *norm_out, out)
    return fit and len(product) == width and n_pair % 8 == 0


def add_update(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    norm: Norm,
    gate: torch.Tensor,
    norm_out: Norm,
    out: torch.Tensor,
) -> None:
    """Launch the kernel. For the arguments see :func:`.triangle_product.add_triangle`."""
    rows = z.view(-1, z.shape[-1])
    launch(
        add_triangle_hopper_kernel, grid(kernels, rows, TILE), z, describe(rows),
        describe(product.view(len(product), -1)), describe_weight(out, in_eights), describe_weight(gate, in_eights),
        *norm, *norm_out, len(rows), EPSILON, **OPTIONS,
    )  # fmt: skip
