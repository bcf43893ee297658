"""Which rows a Triton kernel can hold whole."""

import torch

_WIDTHS = (16, 32, 64, 128, 256)  # powers of two, as sizes of blocks are
_MAX_ROW_BYTES = 512  # the weights that longer rows meet do not fit beside them


def fits_whole(width: int, x: torch.Tensor) -> bool:
    """Whether rows of this width, in the type of ``x``, are held whole by a block of threads."""
    return width in _WIDTHS and width * x.element_size() <= _MAX_ROW_BYTES
