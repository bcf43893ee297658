"""Factors of the denoiser's products in float16, as in runs on a GPU, compared with 32 bits and TF32 on the CPU."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import configs_of, network_of, predictions
from torch.nn import functional

from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.base import can_be_half, torch_kernels
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST, diffusion_blocks
from protenix_multiseed.model.weights import build_model

HALF = replace(torch_kernels(), half=True)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return cases.featurize_cases(tmp_path_factory.mktemp("inputs"), (1, 2), [])["ligands"]


@pytest.fixture(scope="module")
def model():
    configs = configs_of(samples=2)
    made = demo.fill(build_model(configs))
    made.configs = configs
    with torch.no_grad():
        yield made


def to_tf32(x):
    """Round to 10 bits of fraction, to the nearest, as the matrix units of a GPU do with 32-bit factors."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


def sample_in_tf32(network, *arguments):
    """The fast sampling stage with the factors of its linear layers and attention rounded to TF32."""
    linear = functional.linear

    def attend(query, key, value, attn_mask, scale):
        weights = torch.softmax(to_tf32(query) @ to_tf32(key).transpose(-1, -2) * scale + attn_mask, dim=-1)
        return to_tf32(weights) @ to_tf32(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "linear", lambda x, weight, bias=None: linear(to_tf32(x), to_tf32(weight), bias))
        patch.setattr(functional, "scaled_dot_product_attention", attend)
        return (yield from FAST.sample(network, *arguments))


def test_float16_is_no_farther_from_32_bits_than_tf32(model, features):
    network = network_of(model, model.configs, cases.MODEL)

    def coordinates(network, stages=FAST):
        return np.stack([made.coordinates for made in predictions(network, features, features.seeds, stages)])

    exact = coordinates(network)

    def off(made):
        return np.sqrt(((made - exact) ** 2).sum(-1).mean(-1)).mean()

    in_tf32 = off(coordinates(network, replace(FAST, sample=sample_in_tf32)))
    in_half = off(coordinates(replace(network, kernels=HALF)))
    assert 1e-4 < in_half < in_tf32 < 0.1


def blocks_of(model):
    """A block of the transformer of tokens and one of a transformer of atoms."""
    of_tokens, of_atoms, _ = diffusion_blocks.blocks_of(model.diffusion_module)
    return deepcopy(of_tokens[0]), deepcopy(of_atoms[0])


def run(block, dtype, n=35):
    """Run a block on rows with outliers, which a norm cannot even out."""
    block = diffusion_blocks.Block(block, dtype)
    generator = torch.Generator().manual_seed(0)
    c_s, c_a, c_z = (x.shape[1] for x in (block._norm_weight, block._query_weight, block._bias_weight))

    def rows(*shape):
        made = torch.randn(shape, generator=generator)
        made[..., ::7, 3] *= 1e6
        return made

    s, a = rows(1, 1, n, c_s), rows(1, 2, n, c_a)
    normed = functional.layer_norm(s, s.shape[-1:])
    pairs = (1, 2, 32, 128, c_z) if block._is_local else (1, n, n, c_z)
    bias = block.pair_bias(functional.layer_norm(rows(*pairs), (c_z,))).transpose(0, 1)
    start = a.clone()
    return block(HALF, a, block.condition(s, normed.to(dtype)), bias) - start


def off(block):
    made, wanted = run(block, torch.float16), run(block, torch.float32)
    return float((made - wanted).norm() / wanted.norm())


def scale_hidden(block, factor, channels=slice(None)):
    """Make hidden channels of a transition ``factor ** 2`` times as large."""
    transition = block.conditioned_transition_block
    for layer in (transition.linear_nobias_a1, transition.linear_nobias_a2):
        layer.weight[channels] *= factor


def test_hidden_channels_beyond_the_range_of_float16_are_scaled(model, monkeypatch):
    blocks = blocks_of(model)
    for block in blocks:
        assert off(block) < 2e-3
        scale_hidden(block, 100)
        assert off(block) < 2e-3
    monkeypatch.setattr(diffusion_blocks, "LARGEST", 1e30)
    assert not all(run(block, torch.float16).isfinite().all() for block in blocks)


def test_a_large_hidden_channel_takes_no_digits_from_the_others(model):
    for block in blocks_of(model):
        scale_hidden(block, 100, channels=0)
        block.conditioned_transition_block.linear_nobias_b.weight[:, 0] /= 100**2
        assert off(block) < 2e-3


@pytest.mark.parametrize("name", [
    "layernorm_a.linear_s.weight", "layernorm_a.linear_s.bias", "layernorm_a.linear_nobias_s.weight",
    "layernorm_kv.linear_s.weight", "layernorm_kv.linear_nobias_s.weight",
    "attention.linear_q.weight", "attention.linear_q.bias", "attention.linear_k.weight", "attention.linear_v.weight",
    "attention.linear_g.weight", "attention.linear_o.weight", "linear_nobias_z.weight",
    "adaln.linear_nobias_s.weight", "linear_nobias_a1.weight", "linear_nobias_a2.weight", "linear_nobias_b.weight",
])  # fmt: skip
def test_weights_that_may_exceed_float16_do_not_fit(model, name):
    diffusion = deepcopy(model.diffusion_module)
    assert diffusion_blocks.fits_half(diffusion)
    block = diffusion_blocks.blocks_of(diffusion)[1][0]
    parts = {
        **dict(block.attention_pair_bias.named_parameters()),
        **dict(block.conditioned_transition_block.named_parameters()),
    }
    weight = parts[name]
    weight += 1e7 * (weight.mean() + 1)
    assert not diffusion_blocks.fits_half(diffusion)


def test_factors_are_in_float16_only_where_upstream_takes_tf32(model):
    network = replace(network_of(model, model.configs, cases.MODEL), kernels=HALF)
    assert network.factors_of_sampling(100) == torch.float16
    assert replace(network, kernels=torch_kernels()).factors_of_sampling(100) == torch.float32
    assert replace(network, precision="fast").factors_of_sampling(100) == torch.bfloat16
    on_gpu = replace(network, device=torch.device("cuda"))
    limit = network.spec.sampling_full_precision_max_tokens
    assert on_gpu.factors_of_sampling(limit) == torch.float16
    assert on_gpu.factors_of_sampling(limit + 1) == torch.bfloat16


def test_without_tf32_nothing_is_in_float16(model, monkeypatch):
    monkeypatch.setattr(diffusion_blocks, "can_be_half", lambda: True)
    configs = deepcopy(model.configs)
    for configs.enable_tf32 in (True, False):
        assert diffusion_blocks.may_be_half(configs) == configs.enable_tf32
    monkeypatch.setattr(diffusion_blocks, "can_be_half", lambda: False)
    configs.enable_tf32 = True
    assert not diffusion_blocks.may_be_half(configs)


def test_an_older_pytorch_has_no_cases_in_float16(monkeypatch):
    """It cannot return products of 16-bit factors in 32 bits, so such a case would fail and stop all kernels."""
    counted = {}
    for version in ("2.7.1", "2.8.0"):
        monkeypatch.setattr(torch, "__version__", version)
        counted[can_be_half()] = len(probe_process.all_cases(torch.device("cpu")))
    assert set(counted) == {False, True}
    assert counted[False] < counted[True]
