"""A layer norm followed by a matrix product on Hopper GPUs, for rows of 128 channels in bfloat16.

It computes the operation of :mod:`.norm_linear`. For its design see :mod:`..device_functions_hopper_128`.
"""

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    FETCH_REGISTERS,
    N_PART,
    PART,
    ROWS,
    make_barriers,
    store_block,
)
from protenix_multiseed.kernels.device_functions_hopper_128 import (
    COMPUTE_REGISTERS,
    GROUPS,
    N_CHANNEL,
    begin_product,
    fetch_rows,
    fetch_weight,
    make_norm,
    make_rows,
    make_weight,
    norm_whole,
    take_rows,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS_128,
    TILE_128,
    describe,
    describe_weight,
    fits_hopper,
    grid,
    in_order,
)

MAX_OUTPUT = 384  # channels of the result; weights of more do not fit in shared memory
MOST = gl.constexpr(MAX_OUTPUT)


@gluon.jit
def project_rows(out, staged, rows, weight, ready, norm, size, n_out, GROUP: gl.constexpr):
    """Work of one warp group."""
    hopper.mbarrier.wait(ready, 0)
    turn, count = 0, 0
    for tile in range(gl.program_id(0), gl.cdiv(size, GROUPS * ROWS), gl.num_programs(0)):
        x = norm_whole(take_rows(rows, GROUP, turn, False), norm)
        for chunk in range(n_out // PART):
            made = hopper.warpgroup_mma_wait(0, deps=[begin_product(x, weight, chunk)])
            block = staged.index(GROUP * 2 + count % 2)
            store_block(out, block, made.to(gl.bfloat16), (tile * GROUPS + GROUP) * ROWS, chunk * PART, 1)
            count += 1
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size"])
def norm_linear_128_hopper_kernel(x, weight, scale, shift, out, size, n_out, epsilon):
    rows, kept, ready = make_rows(1), make_weight(MOST, PART), make_barriers(1, 1).index(0)
    staged = gl.allocate_shared_memory(gl.bfloat16, [GROUPS * 2, ROWS, PART], BLOCK_LAYOUT)
    norm = make_norm(scale, shift, epsilon)
    gl.warp_specialize([
        (project_rows, (out, staged, rows, kept, ready, norm, size, n_out, 0)),
        (project_rows, (out, staged, rows, kept, ready, norm, size, n_out, 1)),
        (project_rows, (out, staged, rows, kept, ready, norm, size, n_out, 2)),
        (fetch_rows, (x, rows, size, 1, False)),
        (fetch_weight, (weight, kept, ready)),
    ], [4, 4, 1, 1], [COMPUTE_REGISTERS, COMPUTE_REGISTERS, FETCH_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> bool:
    """Whether this kernel takes the arguments of :func:`.norm_linear.norm_linear`."""
    fit = fits_hopper(kernels, N_CHANNEL, x, *linear.norm, linear.weight)
    return fit and len(linear) % N_PART == 0 and len(linear) <= MAX_OUTPUT


def run(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> torch.Tensor:
    """Launch the kernel. For arguments and result see :func:`.norm_linear.norm_linear`."""
    out = x.new_empty(*x.shape[:-1], len(linear))
    rows = x.view(-1, x.shape[-1])
    launch(
        norm_linear_128_hopper_kernel, grid(kernels, rows, TILE_128), describe(rows),
        describe_weight(linear.weight, in_order, N_PART), *linear.norm, describe(out.view(-1, len(linear))), len(rows),
        len(linear), EPSILON, **OPTIONS_128,
    )  # fmt: skip
    return out
