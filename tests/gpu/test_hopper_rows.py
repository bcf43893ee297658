"""Hopper kernels on rows of 128 and 256 channels, compared with PyTorch in float64. Skipped on other machines."""

from dataclasses import replace

import pytest
import torch
from protenix.model.modules.pairformer import PairformerBlock

from protenix_multiseed.kernels import language, probe_process
from protenix_multiseed.kernels.base import Lengths, torch_kernels, triton_kernels
from protenix_multiseed.kernels.known import NOTHING, PairBias
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Inputs
from protenix_multiseed.kernels.ops.msa_average import add_gated_average
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.pair_bias import pair_bias
from protenix_multiseed.kernels.ops.transition import add_transition
from protenix_multiseed.kernels.ops.triangle_product import add_triangle, gated_channels
from protenix_multiseed.model.cuda_graphs import GraphedLoop
from protenix_multiseed.model.fast import pairformer
from protenix_multiseed.model.fast.pairformer import PairBlock

pytestmark = pytest.mark.skipif(
    not (
        torch.cuda.is_available() and torch.cuda.get_device_capability() == probe_process.HOPPER and language.HAS_GLUON
    ),
    reason="no Hopper GPU, or no Triton 3.6",
)
OPERATIONS = {
    operation.__name__: operation
    for operation in (norm_linear, add_transition, gated_channels, add_triangle, add_gated_average)
}
UPDATES = {name: OPERATIONS[name] for name in ("add_triangle", "add_gated_average", "add_transition")}
# Less than one tile, whole and partial tiles of 64 to 192 rows, and more tiles than multiprocessors.
SIZES = [(1, 4), (1, 8), (1, 16), (1, 37), (2, 44), (3, 52), (1, 176), (1, 300)]
WIDTHS = [128, 256]
HOPPER = triton_kernels(hopper=True)


def real_tokens(n_seed, n):
    """The number of real tokens of each entry: different numbers, not all tokens."""
    return [n - 3 - index for index in range(n_seed)]


@pytest.fixture(scope="module")
def block():
    """A pair block with the widths of protenix-v2 and random weights."""
    module = PairformerBlock(c_z=256, c_hidden_mul=256, no_heads_pair=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            is_matrix = parameter.dim() == 2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.06 if is_matrix else 0.3))
    return PairBlock(module.to("cuda"), torch.bfloat16)


def pairs_of(n_seed, n):
    generator = torch.Generator("cuda").manual_seed(1)
    return torch.randn(n_seed, n, n, 256, device="cuda", generator=generator).to(torch.bfloat16)


def arguments_of(name, width, n_seed, n, seed=0, mean=0.1):
    """Arguments of an operation on pairs [n_seed, n, n, width] with small values, so that updates outweigh them.

    ``mean`` is the spread of the means of rows, whose deviations are 0.1.
    """
    generator = torch.Generator("cuda").manual_seed(seed)

    def random(*shape, scale=1.0, shift=0.0):
        return (scale * torch.randn(shape, device="cuda", generator=generator) + shift).to(torch.bfloat16)

    z = random(n_seed, n, n, width, scale=0.1) + random(n_seed, n, n, 1, scale=mean)
    norm, norm_out = ((random(width, scale=0.3, shift=1.0), random(width, scale=0.3)) for _ in range(2))

    def weight(n_out, n_in=width):
        return random(n_out, n_in, scale=n_in**-0.5)

    def linear(n_out):
        return NormedLinear(norm, weight(n_out))

    rstd, lengths = Inputs.rstd(z), Lengths.of(real_tokens(n_seed, n), z.device)
    return {
        "norm_linear": lambda: (z, linear(3 * width), rstd),
        "add_transition": lambda: (z, norm, weight(8 * width), weight(width, 4 * width)),
        "gated_channels": lambda: (z, linear(4 * width), lengths),
        "add_triangle": lambda: (
            z,
            random(width, n_seed, n, n),
            linear(width),
            NormedLinear(norm_out, weight(width)),
            rstd,
        ),
        "add_gated_average": lambda: (z, random(n_seed, n, n, width // 32, 32), linear(width), weight(width), rstd),
    }[name]()


def run(function, kernels, arguments):
    """The result of an operation: what it returns, or its first argument, of which it changes a copy."""
    first = arguments[0].clone()
    made = function(kernels, first, *arguments[1:])
    if function.__name__.startswith("add_"):
        return first
    return made[0] if isinstance(made, tuple) else made


def double(value):
    if isinstance(value, tuple):
        return tuple(map(double, value))
    if isinstance(value, NormedLinear):
        return NormedLinear(double(value.norm), value.weight.double())
    return value.double() if isinstance(value, torch.Tensor) else value


def allowed(truth):
    """How many times the general kernel's error is allowed: of few numbers the norm of their errors varies."""
    return max(1.1, 1 + 5 / truth.numel() ** 0.5)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_match_pytorch_in_float64(name, width, size):
    operation = OPERATIONS[name]
    arguments = arguments_of(name, width, *size)
    truth = run(operation.plain, torch_kernels(on_gpu=True), tuple(map(double, arguments)))
    poison = torch.full_like(truth, float("nan"), dtype=torch.bfloat16)
    del poison  # the next tensor of this size gets its memory: what a kernel does not write is NaN
    made = run(operation, HOPPER, arguments)
    general = run(operation, triton_kernels(), arguments)
    off, general_off = (float((x.double() - truth).norm() / truth.norm()) for x in (made, general))
    assert off < 5e-3
    assert off < allowed(truth[truth != 0]) * general_off
    if name == "gated_channels":
        for index, real in enumerate(real_tokens(*size)):
            assert not made[:, index, real:].any()
            assert not made[:, index, :, real:].any()
            assert made[:, index, :real, :real].any()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_kernel_for_hopper_runs_unless_the_rows_are_unaligned(name, width):
    operation = OPERATIONS[name]
    needs_aligned_rows = name in ("gated_channels", "add_triangle")
    for size in SIZES:
        arguments, n_pair = arguments_of(name, width, *size), size[0] * size[1] ** 2
        taken = any(fits(HOPPER, *arguments) for fits, _ in operation._launches[:2])
        assert taken == (n_pair % 8 == 0 or not needs_aligned_rows)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_repeated_runs_give_the_same_bytes_with_any_number_of_thread_blocks(name, width):
    operation, arguments = OPERATIONS[name], arguments_of(name, width, 1, 208)
    first = run(operation, HOPPER, arguments)
    for count in 30 * (None, 7, 3, 2, 1):
        assert torch.equal(run(operation, triton_kernels(hopper=True, blocks_at_once=count), arguments), first)


@pytest.mark.parametrize("n_out", [256, 512, 1024])
def test_projections_to_other_numbers_of_channels_match_pytorch_in_float64(n_out):
    z, linear, rstd = arguments_of("norm_linear", 256, 2, 44)
    linear = NormedLinear(linear.norm, linear.weight.repeat(2, 1)[:n_out])
    truth = norm_linear.plain(torch_kernels(), z.double(), double(linear))
    for count in (None, 1, 2, 3, 5, 7):
        made = norm_linear(triton_kernels(hopper=True, blocks_at_once=count), z, linear, rstd)
        assert float((made.double() - truth).norm() / truth.norm()) < 5e-3


@torch.no_grad()
def test_a_pair_block_in_chunks_of_rows_and_channels_is_as_near_to_pytorch_as_the_block_at_once(block):
    start, real = pairs_of(2, 48), (45, 37)
    lengths = Lengths.of(real, start.device)
    made = {}
    for name, kernels in {
        "plain": torch_kernels(on_gpu=True),
        "at once": HOPPER,
        "in chunks": replace(HOPPER, pair_elements=2**20, factor_elements=2**20),
    }.items():
        z = start.clone()
        block(kernels, z, lengths)
        made[name] = torch.cat([z[index, :n, :n].flatten() for index, n in enumerate(real)]).double()
    off, off_in_chunks = (float((made[name] - made["plain"]).norm()) for name in ("at once", "in chunks"))
    update = float((made["plain"] - torch.cat([start[i, :n, :n].flatten() for i, n in enumerate(real)])).norm())
    assert off < 0.03 * update
    assert off_in_chunks <= 1.1 * off


@torch.no_grad()
def test_a_captured_pair_block_gives_the_same_bytes(block):
    start = pairs_of(1, 48)
    z, lengths = start.clone(), Lengths.of([45], start.device)
    loop = GraphedLoop(lambda: block(HOPPER, z, lengths), [z], [])
    made = []
    for _ in range(3):
        z.copy_(start)
        loop()
        made.append(z.clone())
    assert not torch.equal(made[0], start)
    assert all(torch.equal(each, made[0]) for each in made)


@pytest.mark.parametrize("name", ["norm_linear", "add_triangle", "add_gated_average", "gated_channels"])
def test_kernels_with_a_folded_norm_are_as_exact_if_means_are_thirty_deviations(name):
    arguments = arguments_of(name, 256, 1, 176, mean=3.0)
    truth = run(OPERATIONS[name].plain, torch_kernels(on_gpu=True), tuple(map(double, arguments)))
    made, general = (run(OPERATIONS[name], kernels, arguments) for kernels in (HOPPER, triton_kernels()))
    off, general_off = (float((x.double() - truth).norm() / truth.norm()) for x in (made, general))
    assert off < 1.1 * general_off


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernels_give_the_deviations_of_rows(size):
    z, linear, lengths = arguments_of("gated_channels", 256, *size, mean=3.0)
    truth = torch.rsqrt(z.double().var(dim=-1, correction=0) + 1e-5)
    few_heads = NormedLinear(linear.norm, linear.weight[:16])
    found = [pair_bias(HOPPER, z, few_heads, lengths, starting)[1] for starting in (True, False)]
    if z[..., 0].numel() % 8 == 0:
        found.append(gated_channels(HOPPER, z, linear, lengths)[1])
    for rstd in found:
        assert float((rstd.double() / truth - 1).abs().max()) < 1e-3


@pytest.mark.parametrize("mean", [0.1, 3.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("name", "n_head", "starting"),
    [("add_triangle", 8, True), ("add_gated_average", 8, False), ("add_transition", 16, True)],
)
def test_updates_find_the_deviations_and_biases_of_what_they_leave(name, n_head, starting, size, mean):
    if name == "add_triangle" and size[0] * size[1] ** 2 % 8:
        pytest.skip("the general kernel takes unaligned rows")
    z, *others = arguments_of(name, 256, *size, mean=mean)
    _, linear, lengths = arguments_of("gated_channels", 256, *size, seed=1)
    asked = PairBias(NormedLinear(linear.norm, linear.weight[:n_head]), lengths, starting)
    n_key = 64 * -(-size[1] // 64)
    poison = (
        z.new_full((size[0], n_head, size[1], n_key), float("nan")),
        torch.full_like(z[..., 0].float(), float("nan")),
    )
    del poison  # as above
    rstd, bias = UPDATES[name](HOPPER, z, *others, after=asked)
    without = arguments_of(name, 256, *size, mean=mean)[0]
    assert UPDATES[name](HOPPER, without, *others).bias is None
    assert torch.equal(z, without)
    truth = torch.rsqrt(z.double().var(dim=-1, correction=0) + 1e-5)
    assert float((rstd.double() / truth - 1).abs().max()) < 1e-3
    truth = pair_bias.plain(torch_kernels(), z.double(), double(asked.linear), lengths, starting)[0]
    general, _ = pair_bias(triton_kernels(), z, asked.linear, lengths, starting)
    masked = truth < -1e9
    assert (bias[..., : size[1]][masked] < -1e9).all()
    assert (bias[..., size[1] :] < -1e9).all()
    off, general_off = (
        float((x.double() - truth)[~masked].norm() / truth[~masked].norm()) for x in (bias[..., : size[1]], general)
    )
    assert off < allowed(truth[~masked]) * general_off
    assert off < 5e-3


@pytest.mark.parametrize("name", UPDATES)
def test_what_updates_find_is_the_same_with_any_number_of_thread_blocks(name):
    z, *others = arguments_of(name, 256, 1, 208)
    _, linear, lengths = arguments_of("gated_channels", 256, 1, 208, seed=1)
    n_head = 16 if name == "add_transition" else 8
    asked = PairBias(NormedLinear(linear.norm, linear.weight[:n_head]), lengths, name != "add_gated_average")
    first = UPDATES[name](HOPPER, z.clone(), *others, after=asked)
    for count in 20 * (None, 7, 3, 2, 1):
        made = UPDATES[name](triton_kernels(hopper=True, blocks_at_once=count), z.clone(), *others, after=asked)
        assert all(map(torch.equal, made, first))


@torch.no_grad()
def test_blocks_that_pass_on_what_they_know_are_as_near_to_pytorch_as_blocks_that_compute_it_again(block, monkeypatch):
    start, real = pairs_of(2, 48), (45, 37)
    lengths = Lengths.of(real, start.device)
    made = {}
    for name, kernels in {"plain": torch_kernels(on_gpu=True), "passed": HOPPER, "again": HOPPER}.items():
        if name == "again":
            for update in UPDATES.values():
                forgetful = lambda *arguments, update=update: update(*arguments) and None  # noqa: E731  it is short
                monkeypatch.setattr(pairformer, update.__name__, forgetful)
        z, known = start.clone(), NOTHING
        for _ in range(2):
            known = block(kernels, z, lengths, known)
        assert (known.rstd is not None) == (name == "passed")
        made[name] = torch.cat([z[index, :n, :n].flatten() for index, n in enumerate(real)]).double()
    off, off_passed = (float((made[name] - made["plain"]).norm()) for name in ("again", "passed"))
    assert off_passed <= 1.1 * off


@pytest.mark.parametrize("mean", [0.1, 3.0])
@pytest.mark.parametrize("starting", [True, False])
def test_biases_with_a_folded_norm_match_pytorch_in_float64(starting, mean):
    z, linear, lengths = arguments_of("gated_channels", 256, 3, 52, mean=mean)
    few_heads = NormedLinear(linear.norm, linear.weight[:16])
    real = real_tokens(3, 52)
    truth, made, general = (
        torch.cat([x[index, ..., :n].double().flatten() for index, n in enumerate(real)])
        for x in (
            pair_bias.plain(torch_kernels(), z.double(), double(few_heads), lengths, starting)[0],
            *(pair_bias(kernels, z, few_heads, lengths, starting)[0] for kernels in (HOPPER, triton_kernels())),
        )
    )
    off, general_off = (float((x - truth).norm() / truth.norm()) for x in (made, general))
    assert off < 1.1 * general_off
    assert off < 5e-3
