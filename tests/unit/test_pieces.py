"""The seeds of one job, featurized in several workers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.jobs import job_of
from support.workers import fail_with_seed_0

from protenix_multiseed.features import pool as module
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.features.pieces import MIN_SEEDS, joined, pieces
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Failure, Features
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.environment import prepare

PROTEIN = {"sequences": [{"proteinChain": {"sequence": "MKCAY", "count": 1}}]}
CACODYLATE = {  # keeps one of its two leaving oxygens, and the seed decides which
    "sequences": [
        {"proteinChain": {"sequence": "MKCAY", "count": 1}},
        {"ligand": {"ligand": "CCD_CAC", "count": 1}},
        {"ligand": {"ligand": "CC(=O)Oc1ccccc1C(=O)O", "count": 2}},
    ],
    "covalent_bonds": [{"entity1": 1, "position1": 3, "atom1": "SG", "entity2": 2, "position2": 1, "atom2": "AS"}],
}


@given(n_seed=st.integers(1, 2000), most=st.integers(1, 200))
def test_pieces_are_a_division_of_the_seeds(n_seed, most):
    job = job_of(seeds=range(5, 5 + n_seed))
    made = pieces(job, most)
    assert [seed for piece in made for seed in piece.seeds] == list(job.seeds)
    sizes = [len(piece.seeds) for piece in made]
    assert max(sizes) - min(sizes) <= 1
    assert len(made) <= most
    assert len(made) == 1 or min(sizes) >= MIN_SEEDS
    assert len(made) == min(most, n_seed // MIN_SEEDS) or len(made) == 1  # as many as these limits allow


def test_several_workers_make_what_one_makes():
    job, settings = job_of(CACODYLATE, seeds=range(3 * MIN_SEEDS)), FeatureSettings()
    prepare(find_dictionary())
    alone = featurize(job, settings)
    with WorkerPool(3) as pool:
        (together,) = pool.featurize([job], settings)
    assert len(pieces(job, 3)) == 3
    assert len(alone) == len(together) == 2
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.job == job
        assert [one.seed for one in ours.seeds] == [one.seed for one in theirs.seeds]
        assert ours.arrays.keys() == theirs.arrays.keys()
        assert all(np.array_equal(ours.arrays[name], theirs.arrays[name]) for name in ours.arrays)
        atoms, expected = ours.atom_array.value, theirs.atom_array.value
        for name in expected.get_annotation_categories():
            assert np.array_equal(atoms.get_annotation(name), expected.get_annotation(name)), name
        assert atoms.bonds == expected.bonds
        assert ours.sizes == theirs.sizes
        for seed, other in zip(ours.seeds, theirs.seeds, strict=True):
            assert np.array_equal(seed.ref_pos, other.ref_pos)
            assert np.array_equal(seed.has_frame, other.has_frame)
            assert seed.python_state == other.python_state
            assert all(np.array_equal(a, b) for a, b in zip(seed.numpy_state, other.numpy_state, strict=True))
            assert np.array_equal(seed.torch_state, other.torch_state)


@pytest.fixture(scope="module")
def features():
    prepare(find_dictionary())
    return featurize(job_of(PROTEIN, seeds=(1, 2)), FeatureSettings())[0]


def test_features_that_differ_stay_apart(features):
    arrays = {**features.arrays, "restype": features.arrays["restype"] + 1}
    first, second = features.only({1}), replace(features.only({2}), arrays=arrays)
    job = job_of(seeds=(1, 2))
    assert [[one.seed for one in made.seeds] for made in joined(job, [[first], [second]])] == [[1], [2]]
    (merged,) = joined(job, [[first], [features.only({2})]])
    assert [one.seed for one in merged.seeds] == [1, 2]


def test_each_warning_comes_once(features):
    first = replace(features.only({1}), warnings=("a", "b"))
    second = replace(features.only({2}), warnings=("b", "c"))
    (merged,) = joined(job_of(seeds=(1, 2)), [[first], [second]])
    assert merged.warnings == ("a", "b", "c")


def test_failures_of_seeds_come_first_and_belong_to_the_whole_job(features):
    job = job_of(seeds=(1, 2, 3))
    failure = Failure(job=replace(job, seeds=(3,)), seed=3, stage="featurize", message="no conformer", advice="")
    found, made = joined(job, [[features], [failure]])
    assert isinstance(found, Failure)
    assert (found.seed, found.job) == (3, job)
    assert isinstance(made, Features)


def test_a_job_that_fails_in_every_piece_fails_once(monkeypatch):
    monkeypatch.setattr(module, "_featurize", fail_with_seed_0)
    jobs = [job_of(PROTEIN, name=name, seeds=range(2 * MIN_SEEDS)) for name in ("all", "first")]
    with WorkerPool(2) as pool:
        (failed,), (first, second) = pool.featurize(jobs, FeatureSettings())
    assert (failed.seed, failed.job, failed.message) == (None, jobs[0], "ValueError: no such seed")
    assert (first.seed, first.job.seeds) == (None, tuple(range(MIN_SEEDS)))
    assert [one.seed for one in second.seeds] == list(range(MIN_SEEDS, 2 * MIN_SEEDS))
