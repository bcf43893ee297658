"""Features kept between runs: the same as made anew, and never another job's."""

import json

import numpy as np
import pytest
from support import cases
from support.jobs import job_of

from protenix_multiseed.features import cache
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

BOND = {"entity1": 2, "position1": 3, "atom1": "ND2", "position2": 1, "atom2": "C1"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_dir", lambda: tmp_path / "cache")
    environment.prepare(EmbeddedDictionary())
    return tmp_path


def features(folder, spec):
    path = folder / "in.json"
    path.write_text(json.dumps([{"name": "a", **spec}]))
    (job,) = read_jobs([path], (1,), InputRules(model="m"), EmbeddedDictionary())
    (made,) = featurize(job, FeatureSettings())
    return made


def test_a_second_run_reads_what_the_first_made(folder, monkeypatch):
    paths = cases.write_cases(folder)
    spec = json.loads(paths["ligands"].read_text())[0]
    first = features(folder, spec)
    (kept,) = (folder / "cache" / "features").iterdir()
    monkeypatch.setattr(cache, "_store", lambda *_: pytest.fail("made again"))
    second = features(folder, spec)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    kept.write_bytes(kept.read_bytes()[:1000])  # as a full disk or a power cut leaves it
    monkeypatch.undo()
    monkeypatch.setattr(cache, "cache_dir", lambda: folder / "cache")
    third = features(folder, spec)
    assert all(np.array_equal(first.arrays[name], third.arrays[name]) for name in first.arrays)


def test_a_bond_moves_the_tokens_and_so_what_is_kept(folder):
    """The same sequences, but another ligand loses an atom: the protein's columns stand elsewhere."""
    (folder / "p.a3m").write_text(">q\\nMKNASTVGAS\\n>r\\nMKNASTVGAK\\n".replace("\\n", chr(10)))
    nag = {"ligand": {"ligand": "CCD_NAG", "count": 1}}
    protein = {"proteinChain": {"sequence": "MKNASTVGAS", "count": 1, "unpairedMsaPath": "p.a3m"}}
    spec = {"sequences": [nag, protein, nag]}
    one = features(folder, {**spec, "covalent_bonds": [{**BOND, "entity2": 3}]})
    other = features(folder, {**spec, "covalent_bonds": [{**BOND, "entity2": 1}]})
    assert one.n_token == other.n_token
    for made in (one, other):
        protein_columns = made.arrays["asym_id"] == 1
        assert np.array_equal(made.arrays["msa"][0][protein_columns], made.arrays["restype"][protein_columns])


@pytest.mark.parametrize("entity", [{"unpairedMsaPath": "gone.a3m"}, {"templatesPath": "relative/gone.hhr"}], ids=str)
def test_a_file_that_is_not_read_is_not_looked_at(folder, entity):
    """Without MSA or templates the file passed validation, and then the cache tried to hash it."""
    path = folder / "in.json"
    path.write_text(json.dumps([{"name": "a", "sequences": [{"proteinChain": {"sequence": "MKNAS", **entity}}]}]))
    reads = ReadSettings(msa=False)
    (job,) = read_jobs([path], (1,), InputRules(model="m", reads=reads), EmbeddedDictionary())
    (made,) = featurize(job, FeatureSettings(reads=reads))
    assert made.n_token == 5


def test_what_is_missing_for_a_passing_reason_is_not_kept(folder):
    job = job_of()
    made = cache.cached(job, FeatureSettings(), [], lambda: ({"a": np.zeros(1)}, ("a template could not be fetched",)))
    assert made[1] == ("a template could not be fetched",)
    assert not (folder / "cache").exists()
