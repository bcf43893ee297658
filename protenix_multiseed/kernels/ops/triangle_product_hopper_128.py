"""Alg. 12 and 13 except their matrix product on Hopper GPUs, for pairs of 128 channels in bfloat16.

It computes the operations of :mod:`.triangle_product`. For the design see :mod:`..device_functions_hopper_128`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Lengths
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    FETCH_REGISTERS,
    N_PART,
    OUTPUTS,
    PART,
    PRODUCT,
    ROWS,
    make_barriers,
    sigmoid,
    store_block,
)
from protenix_multiseed.kernels.device_functions_hopper_128 import (
    CHANNELS,
    COMPUTE_REGISTERS,
    GROUPS,
    N_CHANNEL,
    NARROW_PRODUCT,
    begin_product,
    fetch_both,
    fetch_rows,
    fetch_weight,
    make_norm,
    make_rows,
    make_weight,
    norm_whole,
    release_updated,
    slot_of,
    store_updated,
    take_rows,
)
from protenix_multiseed.kernels.known import PairBias
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.ops.triangle_factors_hopper import are_real, can_make, gated_values
from protenix_multiseed.kernels.ops.triangle_update_hopper import can_update
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS_128,
    TILE_128,
    describe,
    describe_weight,
    grid,
    in_order,
    in_turn,
)


@gluon.jit
def gate_pairs(out, staged, rows, weight, ready, norm, lengths, size, n, n_out, GROUP: gl.constexpr):
    """Work of one warp group that computes the factors."""
    hopper.mbarrier.wait(ready, 0)
    turn, count = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        first = (tile * GROUPS + GROUP) * ROWS
        real = are_real(first, lengths, size, n)
        x = norm_whole(take_rows(rows, GROUP, turn, False), norm)
        for chunk in range(n_out // PART):
            made = hopper.warpgroup_mma_wait(0, deps=[begin_product(x, weight, chunk)])
            block = staged.index(GROUP * 2 + count % 2)
            store_block(out, block, gated_values(made, real), chunk * PART, first, 1)
            count += 1
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size", "n"])
def gated_channels_128_hopper_kernel(z, weight, scale, shift, lengths, out, size, n, n_out, epsilon):
    rows, kept, ready = make_rows(1), make_weight(4 * CHANNELS, OUTPUTS), make_barriers(1, 1).index(0)
    staged = gl.allocate_shared_memory(gl.bfloat16, [GROUPS * 2, PART, ROWS], BLOCK_LAYOUT)
    norm = make_norm(scale, shift, epsilon)
    gl.warp_specialize([
        (gate_pairs, (out, staged, rows, kept, ready, norm, lengths, size, n, n_out, 0)),
        (gate_pairs, (out, staged, rows, kept, ready, norm, lengths, size, n, n_out, 1)),
        (gate_pairs, (out, staged, rows, kept, ready, norm, lengths, size, n, n_out, 2)),
        (fetch_rows, (z, rows, size, 1, False)),
        (fetch_weight, (weight, kept, ready)),
    ], [4, 4, 1, 1], [COMPUTE_REGISTERS, COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


@gluon.jit
def update_pairs(z, rows, products, gate, back, ready, norm, norm_out, size, GROUP: gl.constexpr):
    """Work of one warp group that computes the update."""
    hopper.mbarrier.wait(ready, 0)
    turn = 0
    for tile in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        product = norm_whole(take_rows(products, GROUP, turn, True), norm_out)
        release_updated(rows, GROUP, turn)
        x = norm_whole(slot_of(rows, GROUP, turn, 2, False).load(PRODUCT), norm)
        for chunk in range(CHANNELS // PART):
            gates, update = begin_product(x, gate, chunk), begin_product(product, back, chunk)
            block = rows[0].index((GROUP * 2 + turn % 2) * 2 + chunk)
            old = block.load(NARROW_PRODUCT).to(gl.float32)
            gates, update = hopper.warpgroup_mma_wait(0, deps=[gates, update])
            block.store((old + update * sigmoid(gates)).to(gl.bfloat16))
        store_updated(z, rows, GROUP, turn, (tile * GROUPS + GROUP) * ROWS)
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size"])
def add_triangle_128_hopper_kernel(z, product, gate, back, scale, shift, scale_out, shift_out, size, epsilon):
    rows, products, ready = make_rows(2), make_rows(1), make_barriers(1, 2).index(0)
    gates, backs = make_weight(CHANNELS, PART), make_weight(CHANNELS, PART)
    norm, norm_out = make_norm(scale, shift, epsilon), make_norm(scale_out, shift_out, epsilon)
    gl.warp_specialize([
        (update_pairs, (z, rows, products, gates, backs, ready, norm, norm_out, size, 0)),
        (update_pairs, (z, rows, products, gates, backs, ready, norm, norm_out, size, 1)),
        (update_pairs, (z, rows, products, gates, backs, ready, norm, norm_out, size, 2)),
        (fetch_rows, (z, rows, size, 2, False)),
        (fetch_rows, (product, products, size, 1, True)),
        (fetch_both, (gate, back, gates, backs, ready)),
    ], [4, 4, 1, 1, 1],
       [COMPUTE_REGISTERS, COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def factors_fit(
    kernels: Kernels,
    z: torch.Tensor,
    linear: NormedLinear,
    lengths: Lengths,
    rstd: torch.Tensor | None = None,
) -> bool:
    """Whether the kernel takes the arguments of :func:`.triangle_product.gated_channels`: more weights do not fit."""
    return can_make(kernels, z, linear, N_CHANNEL) and len(linear) <= 4 * N_CHANNEL


def make_factors(
    kernels: Kernels,
    z: torch.Tensor,
    linear: NormedLinear,
    lengths: Lengths,
    rstd: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Launch the kernel. For arguments and results see :func:`.triangle_product.gated_channels`."""
    rows, n_out = z.view(-1, z.shape[-1]), len(linear) // 2
    out = z.new_empty(n_out, *z.shape[:-1])
    launch(
        gated_channels_128_hopper_kernel, grid(kernels, rows, TILE_128), describe(rows),
        describe_weight(linear.weight, in_turn), *linear.norm, lengths.each, describe(out.view(n_out, -1)), len(rows),
        z.shape[-2], n_out, EPSILON, **OPTIONS_128,
    )  # fmt: skip
    return out, None


def update_fits(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> bool:
    """Whether the kernel takes the arguments of :func:`.triangle_product.add_triangle`."""
    return can_update(kernels, z, product, gate, out, N_CHANNEL)


def add_update(
    kernels: Kernels,
    z: torch.Tensor,
    product: torch.Tensor,
    gate: NormedLinear,
    out: NormedLinear,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> None:
    """Launch the kernel. For the arguments see :func:`.triangle_product.add_triangle`."""
    rows = z.view(-1, z.shape[-1])
    launch(
        add_triangle_128_hopper_kernel, grid(kernels, rows, TILE_128), describe(rows),
        describe(product.view(len(product), -1)), describe_weight(gate.weight, in_order, N_PART),
        describe_weight(out.weight, in_order, N_PART), *gate.norm, *out.norm, len(rows), EPSILON, **OPTIONS_128,
    )  # fmt: skip
