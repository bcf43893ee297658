"""Attention kernels for Hopper GPUs, compared with PyTorch in float64. Skipped on other machines."""

import pytest
import torch

from protenix_multiseed.kernels import language, probe_process
from protenix_multiseed.kernels.base import mask_keys, split_heads, torch_kernels, triton_kernels
from protenix_multiseed.kernels.compile import launches
from protenix_multiseed.kernels.ops import attention_hopper
from protenix_multiseed.kernels.ops.attention import attention
from protenix_multiseed.kernels.ops.attention_hopper import MIN_SPLIT
from protenix_multiseed.kernels.ops.attention_hopper_tokens import MIN_TOKENS
from protenix_multiseed.limits import KEY_BLOCK

pytestmark = pytest.mark.skipif(
    not (
        torch.cuda.is_available() and torch.cuda.get_device_capability() == probe_process.HOPPER and language.HAS_GLUON
    ),
    reason="no Hopper GPU, or no Triton 3.6",
)
DEVICE = torch.device("cuda:0")
TOKENS = MIN_TOKENS + 77


@pytest.mark.parametrize(
    ("n_seed", "n_shared", "n", "n_head", "width", "n_key"),
    [(1, 8, 8, 4, 32, 8), (2, 27, 27, 4, 32, 25), (1, 130, 130, 8, 32, 130),
     (2, 11, MIN_SPLIT + 1, 4, 32, MIN_SPLIT - 7), (1, 21, MIN_SPLIT + 64, 3, 32, MIN_SPLIT + 64),
     (1, 9, MIN_SPLIT + 30, 2, 32, MIN_SPLIT + 17), (2, 8, MIN_SPLIT + 9, 2, 32, MIN_SPLIT + 9),
     (1, 5, MIN_TOKENS, 16, 48, MIN_TOKENS), (2, 3, TOKENS, 2, 48, TOKENS - 7),
     (1, 1, MIN_TOKENS, 1, 48, MIN_TOKENS), (1, 3, TOKENS, 1, 48, TOKENS)],  # the last tile is not full
)  # fmt: skip
@pytest.mark.parametrize("spike", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_attention_matches_pytorch_in_float64(n_seed, n_shared, n, n_head, width, n_key, spike, dtype):
    """With a spike the last key outweighs all others, which needs the kernel's second, exact pass."""
    if width == 32 and dtype == torch.float16:
        pytest.skip("attention over pairs is never in float16")
    generator = torch.Generator(DEVICE).manual_seed(n)
    joined = torch.randn(n_seed, n_shared, n, 4 * n_head * width, device=DEVICE, generator=generator) / 2
    query, key, value, gate = split_heads(joined.to(dtype), 4, n_head)
    if spike:
        key[:, :, n_key - 1] *= 300
    bias = torch.randn(n_seed, n_head, n, n, device=DEVICE, generator=generator).to(dtype)
    bias = mask_keys(bias, n_key, KEY_BLOCK)
    parts = query, key, value, gate if width == 48 else None, bias

    def run(kernels, query, key, value, gate, bias):
        out = torch.full(query.shape, float("nan"), device=DEVICE, dtype=query.dtype)
        attention(kernels, query, key, value, gate, bias, out, n_key)
        return out

    launched = launches(triton_kernels(hopper=True), [lambda kernels: run(kernels, *parts)])
    assert len(launched) == (2 if width == 32 and n > MIN_SPLIT else 1)
    assert all(kernel.is_gluon() for kernel, _, _ in launched)
    truth = run(torch_kernels(on_gpu=True), *(None if part is None else part.double() for part in parts))
    made = run(triton_kernels(hopper=True), *parts)
    assert float((made.double() - truth).norm() / truth.norm()) < (4e-3 if dtype == torch.bfloat16 else 6e-4)
    for count in (None, 7, 1):
        assert torch.equal(run(triton_kernels(hopper=True, blocks_at_once=count), *parts), made)


def test_tiles_of_eight_rows_give_the_same_bits(monkeypatch):
    generator = torch.Generator(DEVICE).manual_seed(0)
    n_seed, n_shared, n, n_head = 2, 13, MIN_SPLIT + 50, 4
    joined = torch.randn(n_seed, n_shared, n, 3 * n_head * 32, device=DEVICE, generator=generator)
    query, key, value = split_heads(joined.to(torch.bfloat16), 3, n_head)
    bias = torch.randn(n_seed, n_head, n, n, device=DEVICE, generator=generator).to(torch.bfloat16)
    bias = mask_keys(bias, n - 3, KEY_BLOCK)

    def run():
        out = torch.full(query.shape, float("nan"), device=DEVICE, dtype=query.dtype)
        attention(triton_kernels(hopper=True), query, key, value, None, bias, out, n - 3)
        return out

    made = run()
    monkeypatch.setattr(attention_hopper, "MIN_SPLIT", n + 1)
    assert torch.equal(run(), made)


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize(
    ("n_shared", "n", "n_head", "width", "row", "rows"),
    [(14, 150, 4, 32, 5, slice(4, 8)), (5, TOKENS, 2, 48, 3, slice(3, 4))],
)
def test_what_is_computed_again_changes_nothing_else(n_shared, n, n_head, width, row, rows, count):
    """One key of one row (or sample) and head outweighs all others. Its tile of rows, or its sample, may change."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    joined = torch.randn(2, n_shared, n, 4 * n_head * width, device=DEVICE, generator=generator) / 2
    query, key, value, gate = split_heads(joined.to(torch.bfloat16), 4, n_head)
    bias = mask_keys(torch.randn(2, n_head, n, n, device=DEVICE, generator=generator).to(torch.bfloat16), n, KEY_BLOCK)

    def run(kernels, *parts):
        out = torch.full(query.shape, float("nan"), device=DEVICE, dtype=parts[0].dtype)
        attention(kernels, *parts[:3], parts[3] if width == 48 else None, parts[4], out, n)
        return out

    kernels = triton_kernels(hopper=True, blocks_at_once=count)
    before = run(kernels, query, key, value, gate, bias)
    key[1, row, n - 1, n_head - 1] *= 300
    after = run(kernels, query, key, value, gate, bias)
    truth = run(torch_kernels(on_gpu=True), *(part.double() for part in (query, key, value, gate, bias)))
    assert float((after.double() - truth).norm() / truth.norm()) < 4e-3
    may_change = torch.zeros_like(after, dtype=torch.bool)
    may_change[1, rows, :, n_head - 1] = True
    assert not torch.equal(after, before)
    assert torch.equal(after[~may_change], before[~may_change])
