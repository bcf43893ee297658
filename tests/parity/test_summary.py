"""Compare the summary confidence with upstream's, on made-up complexes of every kind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.jobs import configs_of

from protenix_multiseed.model.fast.summary import Chains, has_clash, summarise
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary


@pytest.fixture(scope="module")
def configs():
    environment.prepare(EmbeddedDictionary())
    return configs_of()


def ours_and_upstreams(configs, arguments):
    from protenix.model.sample_confidence import _compute_full_data_and_summary

    return [made(configs=configs, N_recycle=10, return_full_data=True, **arguments)
            for made in (summarise, _compute_full_data_and_summary)]  # fmt: skip


def complex_of(chains, *, seed, n_sample=2, names=None, spread=20.0, frames=0.8, mixed=False):
    """Arguments of both summary functions, for a made-up complex.

    Args:
        chains: Of each chain, its number of tokens and whether it is a ligand.
        names: ``asym_id`` of each chain; by default counted from 0.
        spread: Standard deviation of the atoms' coordinates, Angstrom.
        frames: The share of tokens that have a frame.
        mixed: Whether to shuffle the tokens of all chains.
    """
    generator = torch.Generator().manual_seed(seed)
    names = names or range(len(chains))
    asym_id = torch.tensor([name for name, (size, _) in zip(names, chains, strict=True) for _ in range(size)])
    is_ligand = torch.tensor([ligand for size, ligand in chains for _ in range(size)])
    if mixed:
        order = torch.randperm(len(asym_id), generator=generator)
        asym_id, is_ligand = asym_id[order], is_ligand[order]
    n_token = len(asym_id)
    atoms = torch.randint(1, 6, (n_token,), generator=generator)
    atom_to_token = torch.repeat_interleave(torch.arange(n_token), atoms)
    n_atom = len(atom_to_token)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "pae_logits": 2 * random(n_sample, n_token, n_token, 64),
        "plddt_logits": random(n_sample, n_atom, 50),
        "pde_logits": 2 * random(n_sample, n_token, n_token, 64),
        "contact_probs": torch.rand(n_token, n_token, generator=generator),
        "token_asym_id": asym_id,
        "token_has_frame": torch.rand(n_token, generator=generator) < frames,
        "atom_coordinate": spread * random(n_sample, n_atom, 3),
        "atom_to_token_idx": atom_to_token,
        "atom_is_polymer": 1 - is_ligand.long()[atom_to_token],
    }


def assert_alike(ours, theirs):
    for mine, reference in zip(ours, theirs, strict=True):
        assert len(mine) == len(reference)
        for one, other in zip(mine, reference, strict=True):
            assert one.keys() == other.keys()
            for key in one:
                assert one[key].dtype == other[key].dtype, key
                scale = 100 if key.endswith("plddt") or key == "ranking_score" else 32
                assert torch.allclose(one[key], other[key], rtol=0, atol=1e-6 * scale), key


chain = st.tuples(st.integers(1, 12), st.booleans())


@settings(max_examples=60)
@given(
    chains=st.lists(chain, min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.3, 2.0, 30.0]),
    frames=st.sampled_from([0.0, 0.2, 1.0]),
    mixed=st.booleans(),
    gap=st.booleans(),
)
def test_scores_match_upstreams(configs, chains, seed, spread, frames, mixed, gap):
    names = [2 * place + 1 for place in range(len(chains))] if gap else None
    arguments = complex_of(chains, seed=seed, names=names, spread=spread, frames=frames, mixed=mixed)
    assert_alike(*ours_and_upstreams(configs, arguments))


@pytest.mark.parametrize(("spread", "clashes"), [(0.3, True), (300.0, False)])
def test_clashes_are_counted_between_polymers_only(configs, spread, clashes):
    polymers = complex_of([(40, False), (30, False), (9, True)], seed=1, spread=spread)
    ours, theirs = ours_and_upstreams(configs, polymers)
    assert [bool(sample["has_clash"]) for sample in ours[0]] == 2 * [clashes]
    assert_alike(ours, theirs)
    ligands = complex_of([(40, False), (30, True), (9, True)], seed=1, spread=spread)
    assert not any(bool(sample["has_clash"]) for sample in ours_and_upstreams(configs, ligands)[0][0])


@pytest.mark.parametrize(("n_close", "clashes"), [(100, False), (101, True)])
def test_more_than_a_hundred_close_atoms_are_a_clash(n_close, clashes):
    """The chains have 300 atoms each, so that the close atoms are less than half of them: only their number decides."""
    from protenix.model.sample_confidence import calculate_clash

    n_atom = 300
    asym_id, atom_to_token = torch.arange(2).repeat_interleave(n_atom), torch.arange(2 * n_atom)
    is_polymer = torch.ones(2 * n_atom, dtype=torch.int64)
    coordinates = 10.0 * torch.arange(2 * n_atom)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    coordinates[n_atom : n_atom + n_close] = coordinates[:n_close] + 0.5
    ours = has_clash(Chains.of(asym_id, atom_to_token, is_polymer), coordinates[None], 1.1)
    assert ours.tolist() == calculate_clash(coordinates[None], asym_id, atom_to_token, is_polymer, 1.1).tolist()
    assert ours.tolist() == [clashes]


def test_clashes_computed_in_chunks_equal_those_computed_at_once(configs, monkeypatch):
    arguments = complex_of([(40, False), (30, False)], seed=3, spread=1.5)
    chains = Chains.of(*(arguments[name] for name in ("token_asym_id", "atom_to_token_idx", "atom_is_polymer")))
    coordinates = torch.cat([arguments["atom_coordinate"] * factor for factor in (0.5, 1, 2, 4, 8)])
    whole = has_clash(chains, coordinates, 1.1)
    monkeypatch.setattr("protenix_multiseed.model.fast.summary._MAX_ATOM_PAIRS", 1000)
    assert torch.equal(has_clash(chains, coordinates, 1.1), whole)
    assert len(set(whole.tolist())) == 2
