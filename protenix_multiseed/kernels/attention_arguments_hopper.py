"""Arguments of the attention kernels for Hopper GPUs (:mod:`.device_functions_hopper_attention`)."""

from collections.abc import Sequence
from typing import Any

import torch

from protenix_multiseed.kernels.device_functions_hopper_attention import N_KEY
from protenix_multiseed.kernels.language import TensorDescriptor, gl


def are_readable(
    width: int, dtypes: Sequence[torch.dtype], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    bias: torch.Tensor, *others: torch.Tensor,
) -> bool:  # fmt: skip
    """Whether a kernel for heads of ``width`` channels in one of ``dtypes`` can read or write these tensors.

    The tensor memory accelerator needs addresses and strides that are multiples of 16 bytes.
    """
    every = (query, key, value, bias, *others)
    return (
        query.dtype in dtypes
        and query.shape[-1] == width
        and bias.stride(-1) == 1
        and all(stride % 8 == 0 for x in every for stride in x.stride()[:-1])
        and all(x.data_ptr() % 16 == 0 for x in every)
    )


def describe_bias(bias: torch.Tensor, n_query: int) -> Any:
    """TMA descriptor for biases of ``n_query`` queries and 64 keys. Whole blocks of keys are read."""
    n_padded = -(-bias.shape[-1] // N_KEY) * N_KEY
    layout = gl.NVMMASharedLayout(128, 16, 4)
    return TensorDescriptor(bias, [*bias.shape[:3], n_padded], list(bias.stride()), [1, 1, n_query, N_KEY], layout)


def inverse_of(by: int) -> int:
    """The argument ``inverse`` of the device function ``divide``. Nothing is divided by zero: then any number does."""
    return (2**31 - 1) // max(by, 1)
