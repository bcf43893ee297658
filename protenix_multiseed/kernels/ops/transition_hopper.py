"""Alg. 11 on Hopper GPUs, for rows of 256 channels in bfloat16.

It computes the operation ``add_transition`` of :mod:`.transition`. The hidden channels stay in registers, 64 at a time.
For the design see :mod:`..device_functions_hopper`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Norm
from protenix_multiseed.kernels.device_functions_hopper import (
    CHANNELS,
    COMPUTE_REGISTERS,
    FACTOR,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_PART,
    PART,
    ROWS,
    WIDE_PRODUCT,
    add_rows,
    contract,
    eights,
    fetch_pair,
    fetch_rows,
    make_rows,
    make_weights,
    multiply,
    norm_rows,
    release,
    sigmoid,
)
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
def transform_rows(z, rows, weights, norm, size, n_hidden, GROUP: gl.constexpr):
    """Work of one warp group."""
    buffers, full, empty = rows
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 2 * ROWS), gl.num_programs(0)):
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
        add_rows(z, eights(made), (tile * 2 + GROUP) * ROWS, 0, size, CHANNELS)
        turn += 1


@gluon.jit(do_not_specialize=["size"])
def add_transition_hopper_kernel(z, x, expand, contract_weight, scale, shift, size, n_hidden, epsilon):
    """``x`` describes the rows of ``z``."""
    rows, weights = make_rows(2), make_weights(SLOTS, 2)
    norm = (scale, shift, epsilon)
    gl.warp_specialize([
        (transform_rows, (z, rows, weights, norm, size, n_hidden, 0)),
        (transform_rows, (z, rows, weights, norm, size, n_hidden, 1)),
        (fetch_rows, (x, rows, size, 1, False)),
        (fetch_transition_weights, (expand, contract_weight, weights, size, n_hidden)),
    ], [4, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(
    kernels: Kernels,
    x: torch.Tensor,
    norm: Norm,
    expand: torch.Tensor,
    contract: torch.Tensor,
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
    kernel: Any = add_transition_hopper_kernel,
    tile: int = TILE,
    options: Mapping[str, int] = OPTIONS,
) -> None:
    """Launch a kernel. For the arguments see :func:`.transition.add_transition`."""
    rows = x.view(-1, x.shape[-1])
    launch(
        kernel, grid(kernels, rows, tile), x, describe(rows), describe_weight(expand, in_turn),
        describe_weight(contract, in_eights), *norm, len(rows), contract.shape[1], EPSILON, **options,
    )  # fmt: skip
