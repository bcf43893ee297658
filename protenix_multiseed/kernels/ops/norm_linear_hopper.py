"""A layer norm followed by a matrix product on Hopper GPUs, for rows of 256 channels in bfloat16.

It computes the operation of :mod:`.norm_linear` with the norm folded into the weight (:mod:`..normed`), so the
reciprocal standard deviations of the rows must be known. For the design see :mod:`..device_functions_hopper_kept`.
"""

import torch

from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.device_functions_hopper import (
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    OUTPUTS,
    ROWS,
    eights,
    finish,
    load_rstd,
    load_shift,
    make_shift,
    store_rows,
)
from protenix_multiseed.kernels.device_functions_hopper_kept import (
    fetch_kept,
    make_kept,
    make_ring,
    multiply_kept,
    part_of,
)
from protenix_multiseed.kernels.language import gl, gluon, hopper, launch
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    describe,
    describe_weight,
    fits_hopper,
    in_eights,
    kept_grid,
)

RING = gl.constexpr(12)  # blocks of rows: three tiles


@gluon.jit
def project_rows(out, ring, weights, rstds, shift, size, n_out, first, stride, column, GROUP: gl.constexpr):
    """Work of one warp group: every other tile of the thread block."""
    hopper.mbarrier.wait(weights[1], 0)
    turn = 0
    for tile in range(first + GROUP * stride, gl.cdiv(size, ROWS), 2 * stride):
        row = tile * ROWS
        rstd = load_rstd(rstds, row, size)
        one, other = multiply_kept(ring, weights, turn, GROUP, RING)
        store_rows(out, eights(finish(one, rstd, load_shift(shift, 0))), row, column, size, n_out)
        made = eights(finish(other, rstd, load_shift(shift, OUTPUTS)))
        store_rows(out, made, row, column + OUTPUTS, size, n_out)
        turn += 1


@gluon.jit(do_not_specialize=["size"])
def norm_linear_hopper_kernel(x, weight, shift, rstds, out, size, n_out):
    first, stride, column = part_of(n_out)
    ring, weights, shift = make_ring(RING), make_kept(), make_shift(shift + column)
    gl.warp_specialize([
        (project_rows, (out, ring, weights, rstds, shift, size, n_out, first, stride, column, 0)),
        (project_rows, (out, ring, weights, rstds, shift, size, n_out, first, stride, column, 1)),
        (fetch_kept, (x, weight, ring, weights, size, first, stride, column, RING)),
    ], [4, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> bool:
    """Whether this kernel takes the arguments of :func:`.norm_linear.norm_linear`."""
    fit = fits_hopper(kernels, N_CHANNEL, x, *linear.norm, linear.weight)
    return fit and rstd is not None and rstd.is_contiguous() and len(linear) % N_CHANNEL == 0


def run(kernels: Kernels, x: torch.Tensor, linear: NormedLinear, rstd: torch.Tensor | None = None) -> torch.Tensor:
    """Launch the kernel. For arguments and result see :func:`.norm_linear.norm_linear`."""
    out = x.new_empty(*x.shape[:-1], len(linear))
    rows = x.view(-1, x.shape[-1])
    launch(
        norm_linear_hopper_kernel, kept_grid(kernels, rows, len(linear)), describe(rows),
        describe_weight(linear.folded, in_eights), linear.shift_in_eights, rstd, out, len(rows), len(linear),
        **OPTIONS,
    )  # fmt: skip
    return out
