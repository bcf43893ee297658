"""Row widths for which a Triton kernel keeps a whole row on the chip."""

import torch

_WIDTHS = (16, 32, 64, 128, 256)  # Triton block sizes must be powers of two
_MAX_ROW_BYTES = 512  # with longer rows, the weights no longer fit on the chip together with the rows


def fits_whole(width: int, x: torch.Tensor) -> bool:
    """Whether a thread block can hold whole rows of ``width`` channels in the dtype of ``x``."""
    return width in _WIDTHS and width * x.element_size() <= _MAX_ROW_BYTES
