"""Factors of the denoiser's products in float16, as in runs on a GPU, compared with 32 bits and TF32 on the CPU."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import configs_of, network_of, predictions
from torch.nn import functional

from protenix_multiseed.kernels.base import torch_kernels
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


def blocks_with(model, factor):
    """Blocks in float16 and float32, with the weights before their hidden channels times ``factor``."""
    blocks = [
        model.diffusion_module.diffusion_transformer.blocks[0],
        model.diffusion_module.atom_attention_encoder.atom_transformer.diffusion_transformer.blocks[0],
    ]
    for block in map(deepcopy, blocks):
        transition = block.conditioned_transition_block
        for layer in (transition.linear_nobias_a1, transition.linear_nobias_a2):
            layer.weight.mul_(factor)
        yield tuple(diffusion_blocks.Block(block, dtype) for dtype in (torch.float16, torch.float32))


def run(block, dtype, n=35):
    """Run a block on rows with outliers, which a norm cannot even out."""
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


@pytest.mark.parametrize("factor", [1, 100])
def test_numbers_of_a_block_stay_in_the_range_of_float16(model, factor, monkeypatch):
    for half, full in blocks_with(model, factor):
        assert half.fits
        made, wanted = run(half, torch.float16), run(full, torch.float32)
        assert float((made - wanted).norm() / wanted.norm()) < 3e-3
    if factor > 1:
        monkeypatch.setattr(diffusion_blocks, "LARGEST", 1e30)  # hidden channels are not scaled
        assert not all(run(half, torch.float16).isfinite().all() for half, _ in blocks_with(model, factor))


def test_weights_that_may_exceed_float16_are_used_in_float32(model):
    diffusion = deepcopy(model.diffusion_module)
    made = diffusion_blocks.Weights(diffusion, torch.float16)
    assert (made.dtype, made.rows) == (torch.float16, torch.float32)
    diffusion.diffusion_transformer.blocks[0].attention_pair_bias.attention.linear_v.weight.mul_(1e4)
    made = diffusion_blocks.Weights(diffusion, torch.float16)
    assert (made.dtype, made.rows) == (torch.float32, torch.float32)
