"""A layer norm followed by a matrix product on Hopper GPUs, for rows of 256 channels in bfloat16.

It computes the operation of :mod:`.norm_linear`. For its design see :mod:`..device_functions_hopper`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Norm
from protenix_multiseed.kernels.device_functions_hopper import (
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_OUTPUT,
    OUTPUTS,
    PARTS,
    ROWS,
    eights,
    fetch_rows,
    fetch_whole_weight,
    make_rows,
    make_weights,
    multiply_twice,
    norm_twice,
    store_rows,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    TALL_TILE,
    describe,
    describe_weight,
    fits_hopper,
    grid,
    in_eights,
)

SLOTS = gl.constexpr(6)  # of 16 KiB of weights


@gluon.jit
def project_rows(out, rows, weights, norm, size, n_out, GROUP: gl.constexpr):
    """Work of one warp group."""
    empty = rows[2]
    turn, step = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, 4 * ROWS), gl.num_programs(0)):
        row = (tile * 4 + GROUP * 2) * ROWS
        norm_twice(rows, GROUP, turn, norm)
        for column in range(0, n_out, OUTPUTS):
            made0, made1 = multiply_twice(rows, GROUP, weights, step, SLOTS)
            step += PARTS
            store_rows(out, eights(made0), row, column, size, n_out)
            store_rows(out, eights(made1), row + ROWS, column, size, n_out)
        hopper.mbarrier.arrive(empty.index(GROUP * 2), count=1)
        hopper.mbarrier.arrive(empty.index(GROUP * 2 + 1), count=1)
        turn += 1


@gluon.jit(do_not_specialize=["size"])
def norm_linear_hopper_kernel(x, weight, scale, shift, out, size, n_out, epsilon):
    rows, weights = make_rows(4), make_weights(SLOTS, 1)
    norm = (scale, shift, epsilon)
    gl.warp_specialize([
        (project_rows, (out, rows, weights, norm, size, n_out, 0)),
        (project_rows, (out, rows, weights, norm, size, n_out, 1)),
        (fetch_rows, (x, rows, size, 2, False)),
        (fetch_whole_weight, (weight, weights, size, n_out, SLOTS)),
    ], [4, 1, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(kernels: Kernels, x: torch.Tensor, norm: Norm, weight: torch.Tensor) -> bool:
    """Whether this kernel takes the arguments of :func:`.norm_linear.norm_linear`."""
    return fits_hopper(kernels, N_CHANNEL, x, *norm, weight) and len(weight) % N_OUTPUT == 0


def run(kernels: Kernels, x: torch.Tensor, norm: Norm, weight: torch.Tensor) -> torch.Tensor:
    """Launch the kernel. For arguments and result see :func:`.norm_linear.norm_linear`."""
    out = x.new_empty(*x.shape[:-1], len(weight))
    rows = x.view(-1, x.shape[-1])
    launch(
        norm_linear_hopper_kernel, grid(kernels, rows, TALL_TILE), describe(rows),
        describe_weight(weight, in_eights), *norm, out, len(rows), len(weight), EPSILON, **OPTIONS,
    )  # fmt: skip
    return out
