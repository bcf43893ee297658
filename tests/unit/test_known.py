"""What an update finds of the pairs that it leaves reaches the operations that read it, and nothing else does."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from protenix.model.modules.pairformer import PairformerBlock
from torch import nn

from protenix_multiseed.kernels.base import Lengths, torch_kernels
from protenix_multiseed.kernels.known import NOTHING, Known, PairBias, empty_bias, place_known
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Inputs
from protenix_multiseed.kernels.ops import pair_bias as pair_bias_module
from protenix_multiseed.kernels.ops.pair_bias import biases, pair_bias
from protenix_multiseed.model.fast import pairformer

CPU = torch.device("cpu")
KERNELS = replace(torch_kernels(on_gpu=True), key_block=16)
N, WIDTH = 24, 32


@pytest.fixture(scope="module")
def stack():
    blocks = [
        PairformerBlock(n_heads=4, c_z=WIDTH, c_s=WIDTH, c_hidden_mul=WIDTH, c_hidden_pair_att=16, no_heads_pair=2)
        for _ in range(2)
    ]
    module = nn.Module()
    module.blocks = nn.ModuleList(blocks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() == 2 else 0.5))
    return pairformer.PairformerStack(module, torch.float32)


def found(z, asked):
    """What a kernel would find of ``z``: padded biases, and deviations."""
    rstd = Inputs.rstd(z)
    if asked is None:
        return Known(rstd)
    bias = empty_bias(KERNELS, z, len(asked.linear)).fill_(float("nan"))
    bias[..., :N] = pair_bias.plain(KERNELS, z, asked.linear, asked.lengths, asked.starting)[0]
    return Known(rstd, bias)


@pytest.fixture
def counted(monkeypatch):
    """Let all updates find something, check each deviation that is used, and count calls."""
    calls = Counter()

    def check(name, x, rstd):
        calls[name] += 1
        if rstd is not None:
            calls[f"{name} with deviations"] += 1
            torch.testing.assert_close(rstd, Inputs.rstd(x))

    def updating(name):
        original = getattr(pairformer, name)

        def update(kernels, x, *others):
            *others, asked = others
            if name != "add_transition":
                check(name, x, others[-1])
            if x.dim() != 4:
                return original(kernels, x, *others)
            original(kernels, x, *others)
            return found(x, asked)

        monkeypatch.setattr(pairformer, name, update)

    for name in ("add_triangle", "add_gated_average", "add_transition"):
        updating(name)

    def reading(name):
        original = getattr(pairformer, name)

        def read(kernels, x, *others):
            check(name, x, others[-1])
            return original(kernels, x, *others)

        monkeypatch.setattr(pairformer, name, read)

    for name in ("gated_channels", "norm_linear"):
        reading(name)

    def computing(*arguments):
        calls["pair_bias"] += 1
        return pair_bias(*arguments)

    monkeypatch.setattr(pair_bias_module, "pair_bias", computing)
    return calls


def run(stack, kernels):
    generator = torch.Generator().manual_seed(1)
    s, z = (torch.randn(2, *shape, WIDTH, generator=generator) for shape in ((N,), (N, N)))
    stack(kernels, s, z, Lengths.of([21, 17], CPU))
    return s, z


@pytest.mark.parametrize(
    ("elements", "computed", "with_deviations"),
    [
        (2**30, 0, {"gated_channels": 3, "add_triangle": 3, "norm_linear": 4, "add_gated_average": 4}),
        # Each entry is a chunk.
        (N * N * 3 * WIDTH, 0, {"gated_channels": 3, "add_triangle": 3, "norm_linear": 8, "add_gated_average": 8}),
        # A chunk is a part of an entry, whose update does not have all rows; the last one has fewer.
        (5 * N * 3 * WIDTH, 2, {"gated_channels": 3, "add_triangle": 3, "norm_linear": 20, "add_gated_average": 20}),
    ],
    ids=["at once", "entry by entry", "rows of an entry"],
)
@torch.no_grad()
def test_what_is_known_is_used_and_is_that_of_the_present_pairs(stack, counted, elements, computed, with_deviations):
    kernels = replace(KERNELS, pair_elements=elements, factor_elements=None)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("add_triangle", "add_gated_average", "add_transition", "gated_channels", "norm_linear"):
            patch.setattr(pairformer, name, original_of(name))
        truth = run(stack, kernels)
    counted.clear()
    made = run(stack, kernels)
    assert all(map(torch.equal, made, truth))
    assert counted["pair_bias"] == computed
    assert {name: counted[f"{name} with deviations"] for name in with_deviations} == with_deviations


@torch.no_grad()
def test_all_groups_of_channels_have_the_deviations(stack, counted, monkeypatch):
    monkeypatch.setattr(pairformer, "channel_groups", lambda *_: 2)
    run(stack, KERNELS)
    assert counted["gated_channels"] == 8
    assert counted["gated_channels with deviations"] == 6
    assert counted["add_triangle with deviations"] == 3


def original_of(name):
    from protenix_multiseed.kernels.ops import msa_average, norm_linear, transition, triangle_product

    return next(
        getattr(module, name)
        for module in (msa_average, norm_linear, transition, triangle_product)
        if hasattr(module, name)
    )


@torch.no_grad()
def test_nothing_is_known_where_updates_find_nothing(stack, monkeypatch):
    seen = []
    original = pairformer.biases
    monkeypatch.setattr(pairformer, "biases", lambda *arguments: seen.append(arguments[2]) or original(*arguments))
    run(stack, KERNELS)
    assert seen == 6 * [NOTHING]


def test_what_is_known_of_some_entries_is_joined():
    parts = [Known(torch.full((n, 2, 2), n), torch.full((n, 3, 2, 2), n)) for n in (1, 2)]
    joined = Known.joined(parts)
    assert joined.rstd[:, 0, 0].tolist() == joined.bias[:, 0, 0, 0].tolist() == [1, 2, 2]
    assert Known.joined(parts[:1]) is parts[0]
    assert Known.joined([parts[0], Known(parts[1].rstd)]).bias is None
    assert Known.joined([parts[0], NOTHING]) == NOTHING


def test_biases_of_some_entries_have_their_lengths():
    linear = NormedLinear((torch.zeros(WIDTH), torch.zeros(WIDTH)), torch.zeros(2, WIDTH))
    asked = PairBias(linear, Lengths.of([5, 3], CPU), starting=False)
    assert asked.only(slice(None)) is asked
    assert asked.only(slice(1, 2)).lengths.each.tolist() == [3]
    assert not asked.only(slice(1, 2)).starting


def test_known_biases_lose_their_padding():
    z = torch.randn(1, 20, 20, WIDTH)
    asked = PairBias(
        NormedLinear((torch.ones(WIDTH), torch.zeros(WIDTH)), torch.randn(2, WIDTH)), Lengths.of([18], CPU)
    )
    bias = torch.randn(1, 2, 20, 32)
    assert torch.equal(biases(KERNELS, z, Known(None, bias), asked)[0], bias[..., :20])
    assert torch.equal(biases(KERNELS, z, NOTHING, asked)[0], pair_bias(KERNELS, z, asked.linear, asked.lengths)[0])


@pytest.mark.parametrize("starting", [True, False])
def test_a_kernel_gets_places_for_biases_of_whole_entries_only(starting):
    linear = NormedLinear((torch.ones(256), torch.zeros(256)), torch.randn(8, 256).to(torch.bfloat16))
    asked = PairBias(linear, Lengths.of([18, 20], CPU), starting)
    z = torch.zeros(2, 20, 20, 256, dtype=torch.bfloat16)
    known, places, constants = place_known(KERNELS, z, asked)
    assert constants == (8, not starting)
    assert known.rstd.shape == (2, 20, 20)
    assert known.bias.shape == (2, 8, 20, 32)
    assert (known.bias[..., 20:] < -1e9).all()
    assert places[5:] == (20, 20 * 32, 2 * 20 * 32, 32)  # the heads are outermost
    for x, other in (
        (z[:, :10], asked),
        (z[0], asked),
        (z, None),
        (z, replace(asked, linear=linear.part(1, slice(4)))),
    ):
        known, _, constants = place_known(KERNELS, x, other)
        assert constants == (0, False)
        assert known.bias is None
        assert known.rstd.shape == x.shape[:-1]
