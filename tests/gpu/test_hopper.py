"""The kernels for Hopper GPUs against 64 bits, at several sizes. Skipped on machines without such a GPU."""

import pytest
import torch

from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.base import Lengths, mask_keys, split_heads, torch_kernels, triton_kernels
from protenix_multiseed.kernels.compile import launches
from protenix_multiseed.kernels.language import HAS_GLUON
from protenix_multiseed.kernels.operation import Inputs
from protenix_multiseed.kernels.ops.attention import attention
from protenix_multiseed.kernels.ops.attention_hopper_tokens import MIN_TOKENS
from protenix_multiseed.kernels.ops.msa_average import add_gated_average
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.transition import add_transition
from protenix_multiseed.kernels.ops.triangle_product import add_triangle, gated_channels
from protenix_multiseed.limits import KEY_BLOCK

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and torch.cuda.get_device_capability() == probe_process.HOPPER and HAS_GLUON),
    reason="no Hopper GPU, or no Triton 3.6",
)
DEVICE = torch.device("cuda:0")
PAIRS = [(1, 8), (2, 36), (3, 40), (1, 152), (1, 200)]  # entries, tokens
BLOCKS = (None, 1, 7)  # thread blocks: as many as there are multiprocessors, or so few that each has several tiles
WORST = 4e-3  # relative difference from 64 bits; an operation in bfloat16 has 2e-3 to 3e-3


def on_pairs(name, width, n_entry, n):
    """An operation on pairs, its arguments, and whether it changes the first of them."""
    inputs = Inputs(DEVICE, torch.bfloat16)
    z, norm, other = inputs.random(n_entry, n, n, width), inputs.norm(width), inputs.norm(width)
    square, back = inputs.matrix(width, width), inputs.matrix(width, width)
    lengths = inputs.lengths(*(n - 3 * entry for entry in range(n_entry)))
    return {
        "norm_linear": (norm_linear, (z, norm, inputs.matrix(3 * width, width)), False),
        "norm_linear_64": (norm_linear, (z, norm, inputs.matrix(64 if width == 128 else 128, width)), False),
        "gated_channels": (gated_channels, (z, norm, inputs.matrix(4 * width, width), lengths), False),
        "gated_channels_of_a_group": (gated_channels, (z, norm, inputs.matrix(width, width), lengths), False),
        "add_triangle": (add_triangle, (z, inputs.random(width, n_entry, n, n), norm, square, other, back), True),
        "add_transition": (
            add_transition, (z, norm, inputs.matrix(8 * width, width), inputs.matrix(width, 4 * width)), True,
        ),
        "add_gated_average": (
            add_gated_average, (z, inputs.random(n_entry, n, n, width // 32, 32), norm, square, back), True,
        ),
    }[name]  # fmt: skip


def doubled(value):
    if isinstance(value, Lengths):
        return value
    if isinstance(value, tuple):
        return tuple(map(doubled, value))
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def result(kernels, operation, arguments, changes):
    first = arguments[0].clone()
    made = operation(kernels, first, *arguments[1:])
    return first if changes else made


def check(operation, arguments, changes):
    """Close to 64 bits, and the same bytes however the tiles are spread over thread blocks."""
    used = launches(triton_kernels(hopper=True), [lambda kernels: result(kernels, operation, arguments, changes)])
    assert [kernel.is_gluon() for kernel, *_ in used] == [True]
    exact = result(torch_kernels(on_gpu=True), operation, doubled(arguments), changes)
    made = [
        result(triton_kernels(hopper=True, blocks_at_once=count), operation, arguments, changes)
        for count in (*BLOCKS, *BLOCKS)
    ]
    assert float((made[0].double() - exact).norm() / exact.norm()) < WORST
    assert all(torch.equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize(("n_entry", "n"), PAIRS)
@pytest.mark.parametrize("width", [128, 256])
@pytest.mark.parametrize(
    "name",
    [
        "norm_linear", "norm_linear_64", "gated_channels", "gated_channels_of_a_group", "add_triangle",
        "add_transition", "add_gated_average",
    ],
)  # fmt: skip
def test_rows_of_pairs(name, width, n_entry, n):
    check(*on_pairs(name, width, n_entry, n))


@pytest.mark.parametrize(
    ("n_entry", "n_shared", "n", "n_head", "width", "n_key"),
    [
        (1, 8, 8, 4, 32, 8),
        (2, 27, 27, 4, 32, 25),
        (1, 130, 130, 8, 32, 130),
        (1, 5, MIN_TOKENS, 16, 48, MIN_TOKENS),
        (2, 3, MIN_TOKENS + 77, 2, 48, MIN_TOKENS + 70),
    ],
)
@pytest.mark.parametrize("spike", [False, True])
def test_attention(n_entry, n_shared, n, n_head, width, n_key, spike):
    """With a spike one late key outweighs all others, which needs the kernel's second, exact pass."""
    inputs = Inputs(DEVICE, torch.bfloat16)
    query, key, value, gate = split_heads(inputs.random(n_entry, n_shared, n, 4 * n_head * width), 4, n_head)
    if spike:
        key[:, :, n_key - 1] *= 300
    bias = mask_keys(inputs.random(n_entry, n_head, n, n), n_key, KEY_BLOCK)
    gated = gate if width == 48 else None

    def attend(kernels, query, key, value, gate, bias):
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        attention(kernels, query, key, value, gate, bias, out, n_key)
        return out

    check(attend, (query, key, value, gated, bias), False)
