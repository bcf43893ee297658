"""Initialise a GPU while other threads of Python import and load, so that its first batch finds it ready.

CUDA loads a kernel when it is first used, which takes 1 to 20 ms. The first batch needs about a hundred of PyTorch's
and cuBLAS's. Python's other threads run meanwhile.
"""

import torch
from torch.nn import functional

from protenix_multiseed.execution.hardware import open_device

# Rows, inner size and columns, as in the model: cuBLAS has other kernels for small products.
_LINEAR = ((4096, 128, 512), (65536, 128, 128), (1225, 768, 768), (1225, 768, 1536))
_BATCHED = ((128, 256), (16, 245))  # number and size of square matrices
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # cards before compute capability 8.0 lack the last one


def warm_up(name: str) -> None:
    """Initialise CUDA on the device of a run, and load kernels that a first batch needs. Nothing on a CPU."""
    device = open_device(name)
    if device.type == "cuda":
        for dtype in _DTYPES:
            multiply(device, dtype)
            run_small_operations(device, dtype)
        torch.cuda.synchronize(device)


def multiply(device: torch.device, dtype: torch.dtype) -> None:
    """Make one product of each kind."""
    for n_row, n_inner, n_column in _LINEAR:
        rows = torch.zeros(n_row, n_inner, dtype=dtype, device=device)
        weight = torch.zeros(n_column, n_inner, dtype=dtype, device=device)
        functional.linear(rows, weight)
        functional.linear(rows, weight, weight.new_zeros(n_column))
    for count, size in _BATCHED:
        matrices = torch.zeros(count, size, size, dtype=dtype, device=device)
        for left, right in ((matrices, matrices), (matrices, matrices.mT), (matrices.mT, matrices)):
            torch.bmm(left, right)


def run_small_operations(device: torch.device, dtype: torch.dtype) -> None:
    """Run operations of the model's inputs, masks, draws and scores once."""
    x = torch.ones(4, 64, 64, dtype=dtype, device=device)
    number, some = torch.zeros(64, dtype=torch.int64, device=device), torch.zeros(64, dtype=torch.bool, device=device)
    for make in (torch.exp, torch.log, torch.sqrt, torch.square, torch.reciprocal, torch.sigmoid, torch.relu):
        make(x)
    for combine in (torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.lt, torch.gt, torch.eq):
        combine(x, x)
        combine(x, x.float())
    for reduce in (torch.sum, torch.mean, torch.amax):
        reduce(x, dim=-1)
    functional.silu(x)
    x.softmax(-1)
    functional.layer_norm(x, x.shape[-1:])
    functional.scaled_dot_product_attention(x[None], x[None], x[None])
    functional.pad(x, (0, 1))
    torch.addcmul(x, x, x)
    torch.cat([x, x])
    torch.stack([x, x])
    torch.where(some, x, x)
    x.clamp(min=0).masked_fill(some, 0)
    x.mT.contiguous()
    x[:, number]
    x.index_select(1, number)
    x.scatter_add(1, number.expand(4, 64, 64), x)
    x.sum()
    x.to(torch.int64).float()
    functional.one_hot(number, 2).sum(0)
    functional.embedding(number, x[0])
    torch.bincount(number)
    number.argsort()
    number.cumsum(0)
    torch.unique(number)
    number[:, None].eq(number).logical_and(some).any()
    (~some & some).all()
    number.clamp(0, 1).add(number).max()
    generator = torch.Generator(device).manual_seed(0)
    torch.randn(64, 3, generator=generator, device=device)
    torch.randperm(64, generator=generator, device=device)
    if dtype == torch.float32:
        torch.cdist(x, x)
        x.triu()
        x.cos()
