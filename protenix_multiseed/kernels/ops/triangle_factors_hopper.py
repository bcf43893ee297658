"""Alg. 12 and 13 before their matrix product on Hopper GPUs, for pairs of 256 channels in bfloat16.

It computes the operation ``gated_channels`` of :mod:`.triangle_product` with the norm folded into the weight
(:mod:`..normed`). For the design see :mod:`..device_functions_hopper_kept`.
"""

import torch

from protenix_multiseed.kernels.base import Kernels, Lengths
from protenix_multiseed.kernels.device_functions_hopper import (
    BLOCK_LAYOUT,
    COMPUTE_REGISTERS,
    FETCH_REGISTERS,
    N_CHANNEL,
    N_OUTPUT,
    OUTPUTS,
    PART,
    PRODUCT,
    ROWS,
    finish,
    load_rstd,
    load_shift,
    make_shift,
    sigmoid,
    store_block,
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
from protenix_multiseed.kernels.ops.norm import reciprocal_deviations
from protenix_multiseed.kernels.rows_hopper import (
    OPTIONS,
    describe,
    describe_weight,
    fits_hopper,
    in_turn,
    kept_grid,
)

RING = gl.constexpr(10)  # blocks of rows: the factors need a place too


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
def gate_pairs(
    out, made_blocks, ring, weights, rstds, shift, lengths, size, n, first, stride, column, GROUP: gl.constexpr
):  # fmt: skip
    """Work of one warp group that computes the factors: every other tile of the thread block."""
    hopper.mbarrier.wait(weights[1], 0)
    turn, channel, block = 0, column // 2, made_blocks.index(GROUP)
    for tile in range(first + GROUP * stride, gl.cdiv(size, ROWS), 2 * stride):
        row = tile * ROWS
        rstd, real = load_rstd(rstds, row, size), are_real(row, lengths, size, n)
        one, other = multiply_kept(ring, weights, turn, GROUP, RING)
        store_block(out, block, gated_values(finish(one, rstd, load_shift(shift, 0)), real), channel, row, 0)
        made = gated_values(finish(other, rstd, load_shift(shift, OUTPUTS)), real)
        store_block(out, block, made, channel + PART, row, 0)
        turn += 1
    hopper.tma.store_wait(0)


@gluon.jit(do_not_specialize=["size", "n"])
def gated_channels_hopper_kernel(z, weight, shift, rstds, lengths, out, size, n, n_out):
    first, stride, column = part_of(2 * n_out)
    ring, weights, shift = make_ring(RING), make_kept(), make_shift(shift + column)
    made_blocks = gl.allocate_shared_memory(gl.bfloat16, [2, PART, ROWS], BLOCK_LAYOUT)
    gl.warp_specialize([
        (gate_pairs, (out, made_blocks, ring, weights, rstds, shift, lengths, size, n, first, stride, column, 0)),
        (gate_pairs, (out, made_blocks, ring, weights, rstds, shift, lengths, size, n, first, stride, column, 1)),
        (fetch_kept, (z, weight, ring, weights, size, first, stride, column, RING)),
    ], [4, 1], [COMPUTE_REGISTERS, FETCH_REGISTERS])  # fmt: skip


def fits(
    kernels: Kernels,
    z: torch.Tensor,
    linear: NormedLinear,
    lengths: Lengths,
    rstd: torch.Tensor | None = None,
) -> bool:
    """Whether this kernel takes the arguments of :func:`.triangle_product.gated_channels`."""
    fit = can_make(kernels, z, linear, N_CHANNEL) and len(linear) % N_CHANNEL == 0
    return fit and (rstd is None or rstd.is_contiguous())


def can_make(kernels: Kernels, z: torch.Tensor, linear: NormedLinear, width: int) -> bool:
    """Whether a kernel for ``width`` channels can read these arguments.

    The channels of the result are rows of pairs for the tensor memory accelerator: multiples of 16 bytes.
    """
    n_pair = z.numel() // z.shape[-1]
    fit = fits_hopper(kernels, width, z, *linear.norm, linear.weight)
    return fit and len(linear) % N_OUTPUT == 0 and n_pair % 8 == 0


def run(
    kernels: Kernels,
    z: torch.Tensor,
    linear: NormedLinear,
    lengths: Lengths,
    rstd: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Launch the kernel. For arguments and results see :func:`.triangle_product.gated_channels`."""
    rstd = reciprocal_deviations(kernels, z) if rstd is None else rstd
    rows, n_out = z.view(-1, z.shape[-1]), len(linear) // 2
    out = z.new_empty(n_out, *z.shape[:-1])
    launch(
        gated_channels_hopper_kernel, kept_grid(kernels, rows, len(linear)), describe(rows),
        describe_weight(linear.folded, in_turn), linear.shift_in_turn, rstd, lengths.each,
        describe(out.view(n_out, -1)), len(rows), z.shape[-2], n_out, **OPTIONS,
    )  # fmt: skip
    return out, rstd
