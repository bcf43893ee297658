"""Arguments of the kernels for Hopper GPUs that process rows of 128 or 256 channels.

For their designs see :mod:`.device_functions_hopper_128` and :mod:`.device_functions_hopper`.

A wgmma gives each thread two neighbouring output channels of every eight. If the rows of the weight are reordered, the
thread gets eight neighbouring channels instead, which it stores at once, or a value and its gate. The tensor memory
accelerator (TMA) reorders the rows while it reads them, so there are no reordered copies of weights: a TMA descriptor
has up to five dimensions, which here are those of a permuted view.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from protenix_multiseed.kernels import device_functions_hopper_128 as of_128
from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.device_functions_hopper import N_CHANNEL, N_OUTPUT, N_PART, N_ROW
from protenix_multiseed.kernels.language import TensorDescriptor, gl

# Rows of a tile of 256 channels (64 for each of two warp groups), and of a tile of 128 channels.
TILE, TILE_128 = 2 * N_ROW, of_128.N_GROUP * N_ROW
# The warps of a thread block start with 168 (128) registers a thread. Warps that fetch then pass most of theirs on.
OPTIONS, OPTIONS_128 = {"num_warps": 4, "maxnreg": 168}, {"num_warps": 4, "maxnreg": 128}
_LAYOUT, _WEIGHT_LAYOUT = gl.NVMMASharedLayout(128, 16, 2), gl.NVMMASharedLayout(128, 16, 5)
View: TypeAlias = Callable[[int, int], tuple[list[int], list[int]]]
"""Shape and strides of a view [c_out / 32, a, b, d, c] of a weight [c_out, c], where a * b * d = 32."""


def fits_hopper(kernels: Kernels, width: int, x: torch.Tensor, *others: torch.Tensor) -> bool:
    """Whether kernels for rows of ``width`` channels take rows ``x`` [..., c] and can read the other tensors.

    The TMA needs addresses that are multiples of 16 bytes.
    """
    return (
        kernels.hopper
        and x.shape[-1] == width
        and all(each.dtype == torch.bfloat16 and each.is_contiguous() for each in (x, *others))
        and all(each.data_ptr() % 16 == 0 for each in (x, *others))
    )


def grid(kernels: Kernels, rows: torch.Tensor, tile: int) -> tuple[int]:
    """Launch grid for ``rows`` [n, c] in tiles of ``tile`` rows: one thread block for each multiprocessor."""
    return (kernels.n_block(rows.device, -(-len(rows) // tile), 1),)


def kept_grid(kernels: Kernels, rows: torch.Tensor, n_out: int) -> tuple[int]:
    """Launch grid for ``rows`` [n, 256] and weights that stay in shared memory, 256 output channels in a thread block.

    There is at least one thread block for each 256 output channels, whatever ``kernels.blocks_at_once`` says.
    """
    n_part = n_out // N_CHANNEL
    n_program = kernels.n_block(rows.device, -(-len(rows) // N_ROW) * n_part, 1)
    return (max(1, n_program // n_part) * n_part,)


def describe(x: torch.Tensor) -> Any:
    """TMA descriptor for blocks [64, 64] of a matrix."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [N_ROW, N_PART], _LAYOUT)


def describe_weight(weight: torch.Tensor, order: View, n_row: int = N_OUTPUT) -> Any:
    """TMA descriptor for blocks [n_row, 64] of a weight [c_out, c], whose rows are read in the order of a view."""
    shape, strides = order(*weight.shape)
    return TensorDescriptor(weight, shape, strides, [n_row // 32, *shape[1:4], N_PART], _WEIGHT_LAYOUT)


def in_order(n_out: int, width: int) -> tuple[list[int], list[int]]:
    """Shape and strides of a view with 32 rows at a time split into [4, 4, 2], in their own order."""
    return [n_out // 32, 4, 4, 2, width], [32 * width, 8 * width, 2 * width, width, 1]


def in_eights(n_out: int, width: int) -> tuple[list[int], list[int]]:
    """Shape and strides of a view of a weight of whose product a thread holds eight neighbouring channels."""
    return [n_out // 32, 4, 4, 2, width], [32 * width, 2 * width, 8 * width, width, 1]


def in_turn(n_out: int, width: int) -> tuple[list[int], list[int]]:
    """Shape and strides of a view with eight rows of the first half of a weight, eight of the second, and so on.

    A thread then holds a value and its gate.
    """
    return [n_out // 32, 2, 2, 8, width], [16 * width, 8 * width, n_out // 2 * width, width, 1]
