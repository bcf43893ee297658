"""Alg. 14 lines 4, 6 and 7 on Hopper GPUs, for pairs of 128 channels in bfloat16.

It computes the operation ``add_gated_average`` of :mod:`.msa_average`, for averages in the memory order of the pairs.
For the design see :mod:`..device_functions_hopper_128`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels
from protenix_multiseed.kernels.device_functions_hopper import (
    FETCH_REGISTERS,
    PRODUCT,
    ROWS,
    make_barriers,
    sigmoid,
)
from protenix_multiseed.kernels.device_functions_hopper_128 import (
    CHANNELS,
    COMPUTE_REGISTERS,
    GROUPS,
    N_CHANNEL,
    begin_product,
    fetch_both,
    fetch_rows,
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
from protenix_multiseed.kernels.ops.msa_average_hopper import can_update
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS_128,
    TILE_128,
    describe,
    describe_weight,
    grid,
    in_order,
)


@gluon.jit
def update_rows(z, rows, averages, gate, back, ready, norm, size, GROUP: gl.constexpr):
    """Work of one warp group."""
    hopper.mbarrier.wait(ready, 0)
    turn = 0
    for tile in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        place = slot_of(rows, GROUP, turn, 2, False)
        gates = begin_product(norm_whole(place.load(PRODUCT), norm), gate, 0)
        release_updated(rows, GROUP, turn)
        average = take_rows(averages, GROUP, turn, False).to(gl.float32)
        gates = hopper.warpgroup_mma_wait(0, deps=[gates])
        made = begin_product((average * sigmoid(gates)).to(gl.bfloat16), back, 0)
        old = place.load(PRODUCT).to(gl.float32)
        made = hopper.warpgroup_mma_wait(0, deps=[made])
        place.store((old + made).to(gl.bfloat16))
        store_updated(z, rows, GROUP, turn, (tile * GROUPS + GROUP) * ROWS)
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size"])
def add_gated_average_128_hopper_kernel(z, average, gate, back, scale, shift, size, epsilon):
    rows, averages, ready = make_rows(2), make_rows(1), make_barriers(1, 2).index(0)
    gates, backs = make_weight(CHANNELS, CHANNELS), make_weight(CHANNELS, CHANNELS)
    norm = make_norm(scale, shift, epsilon)
    gl.warp_specialize([
        (update_rows, (z, rows, averages, gates, backs, ready, norm, size, 0)),
        (update_rows, (z, rows, averages, gates, backs, ready, norm, size, 1)),
        (update_rows, (z, rows, averages, gates, backs, ready, norm, size, 2)),
        (fetch_rows, (z, rows, size, 2, False)),
        (fetch_rows, (average, averages, size, 1, False)),
        (fetch_both, (gate, back, gates, backs, ready)),
    ], [4, 4, 1, 1, 1],
       [COMPUTE_REGISTERS, COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


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
    return can_update(kernels, x, average, gate, out, N_CHANNEL)


def run(
    kernels: Kernels,
    x: torch.Tensor,
    average: torch.Tensor,
    gate: NormedLinear,
    out: torch.Tensor,
    rstd: torch.Tensor | None = None,
    after: PairBias | None = None,
) -> None:
    """Launch the kernel. For the arguments see :func:`.msa_average.add_gated_average`."""
    rows = x.view(-1, x.shape[-1])
    launch(
        add_gated_average_128_hopper_kernel, grid(kernels, rows, TILE_128), describe(rows),
        describe(average.view(-1, N_CHANNEL)), describe_weight(gate.weight, in_order), describe_weight(out, in_order),
        *gate.norm, len(rows), EPSILON, **OPTIONS_128,
    )  # fmt: skip
