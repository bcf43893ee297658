"""Large pair tensors are computed in chunks, which changes no result. Relative positions are looked up in a table."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from protenix.model.modules.embedders import RelativePositionEncoding

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.kernels.base import Lengths, row_chunks, torch_kernels
from protenix_multiseed.limits import channel_groups, fewest_channels
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast.pairformer import PairBlock
from protenix_multiseed.model.fast.relative_positions import one_hots, places
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.upstream.configs import build_configs


@pytest.fixture(scope="module")
def model():
    return demo.fill(build_model(build_configs(load_config({"model": "demo"}).upstream_settings)))


@given(st.integers(1, 400), st.integers(1, 500), st.integers(1, 10**6))
def test_row_chunks_are_even_and_hold_every_row_once(n, width, elements):
    rows = [row for part in row_chunks(n, width, elements) for row in range(n)[part]]
    sizes = [len(range(n)[part]) for part in row_chunks(n, width, elements)]
    assert rows == list(range(n))
    assert max(sizes) * n * width <= elements or max(sizes) == 1
    assert max(sizes) - sizes[-1] < len(sizes)


@given(st.integers(1, 10**8), st.sampled_from([32, 64, 128, 256]), st.integers(1, 2**32) | st.none())
def test_channels_are_divided_until_both_factors_are_small(n_pair, n_channel, elements):
    groups = channel_groups(n_pair, n_channel, elements)
    assert n_channel % groups == 0
    assert n_channel // groups >= fewest_channels(n_channel)
    if elements is None or 2 * n_pair * n_channel <= elements:
        assert groups == 1
    else:
        assert 2 * n_pair * n_channel // groups <= elements or n_channel // groups == fewest_channels(n_channel)


@pytest.mark.parametrize("elements", [1, 2**16, 2**18])
@pytest.mark.parametrize("real", [(21, 21), (21, 17)], ids=str)
@torch.no_grad()
def test_a_pair_block_in_chunks_equals_the_block_at_once(model, elements, real):
    block = PairBlock(model.pairformer_stack.blocks[0], torch.float32)
    z = torch.randn(2, 24, 24, 128, generator=torch.Generator().manual_seed(1))
    lengths = Lengths.of(real, z.device)
    at_once, in_chunks, roomy = z.clone(), z.clone(), z.clone()
    kernels = replace(torch_kernels(), pair_elements=elements, factor_elements=elements)
    block(torch_kernels(on_gpu=True), at_once, lengths)
    block(kernels, in_chunks, lengths)
    block(kernels.roomy(), roomy, lengths)
    assert torch.equal(roomy, at_once)
    assert not torch.allclose(at_once, z, atol=1e-2)
    for index, n in enumerate(real):
        torch.testing.assert_close(in_chunks[index, :n, :n], at_once[index, :n, :n], rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 30, 200])
def test_relative_positions_are_upstreams_one_hot_vectors(n):
    """Residues and chains are farther apart than the largest distance with a bin of its own, and in any order."""
    generator = torch.Generator().manual_seed(n)
    most = {"asym_id": 3, "residue_index": 90, "entity_id": 2, "sym_id": 6}
    features = {name: torch.randint(0, high, (n,), generator=generator) for name, high in most.items()}
    features["token_index"] = torch.arange(n) * 5
    encoding = RelativePositionEncoding()
    made = one_hots(encoding, torch.device("cpu"))[places(encoding, features)]
    assert torch.equal(made, encoding.generate_relp(dict(features))["relp"])
    rows = slice(n // 3, n // 2 + 1)
    assert torch.equal(places(encoding, features, rows), places(encoding, features)[rows])
