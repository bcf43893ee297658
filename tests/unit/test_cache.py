"""Cached features equal newly made ones, and are never those of another job."""

import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import cases
from support.jobs import job_of
from support.workers import make_features

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import FeaturizationError
from protenix_multiseed.failures import failure_of
from protenix_multiseed.features import cache
from protenix_multiseed.features import featurize as featurize_module
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.outputs.identity import identify
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.types import Task
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

FILES = Path(__file__).parents[1] / "support" / "files"
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


def test_a_second_run_reads_cached_features(folder, monkeypatch):
    paths = cases.write_cases(folder)
    spec = json.loads(paths["ligands"].read_text())[0]
    first = features(folder, spec)
    (kept,) = (folder / "cache" / "features").iterdir()
    monkeypatch.setattr(cache, "_store", lambda *_: pytest.fail("made again"))
    second = features(folder, spec)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    monkeypatch.undo()
    monkeypatch.setattr(cache, "cache_dir", lambda: folder / "cache")
    whole = kept.read_bytes()
    entry = whole.index(b"PK\x01\x02")  # the first entry of the archive's directory
    for damage in (
        lambda: kept.write_bytes(whole[:1000]),  # cut short, as by a full disk or a power cut
        lambda: kept.write_bytes(whole[: entry + 10] + b"\x63\x00" + whole[entry + 12 :]),  # unknown compression
        lambda: kept.write_bytes(whole[: entry + 8] + b"\x01\x00" + whole[entry + 10 :]),  # encrypted
        lambda: kept.write_bytes(b"\xff" * len(whole)),
        lambda: (kept.unlink(), os.mkfifo(kept)),
    ):
        damage()
        third = features(folder, spec)
        assert all(np.array_equal(first.arrays[name], third.arrays[name]) for name in first.arrays)
        assert kept.read_bytes() == whole


def test_an_account_that_may_only_read_uses_what_is_there(folder, monkeypatch):
    """Regression: the time of use could not be written, and the features were made again for every job."""
    spec = json.loads(cases.write_cases(folder)["ligands"].read_text())[0]
    first = features(folder, spec)
    monkeypatch.setattr(cache, "_store", lambda *_: pytest.fail("made again"))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache.os, "utime", refuse)
    second = features(folder, spec)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)


def test_a_bond_that_moves_tokens_changes_the_cached_features(folder):
    """The sequences are the same, but another ligand loses an atom, so that the protein's columns move."""
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
def test_a_file_that_the_settings_do_not_read_may_be_missing(folder, entity):
    """Regression: without MSA or templates, a missing file passed validation, and then the cache tried to hash it."""
    path = folder / "in.json"
    path.write_text(json.dumps([{"name": "a", "sequences": [{"proteinChain": {"sequence": "MKNAS", **entity}}]}]))
    reads = ReadSettings(msa=False)
    (job,) = read_jobs([path], (1,), InputRules(model="m", reads=reads), EmbeddedDictionary())
    (made,) = featurize(job, FeatureSettings(reads=reads))
    assert made.n_token == 5


@pytest.mark.parametrize("name", ["p.a3m", "l.sdf"])
def test_a_file_that_changes_after_the_checks_fails_its_job(folder, name):
    """Regression: its content was used, and the record named the old one."""
    (folder / "p.a3m").write_text(">q\nMKNAS\n>r\nMKNAT\n")
    (folder / "l.sdf").write_bytes((FILES / "interleaved.sdf").read_bytes())
    path = folder / "in.json"
    protein = {"proteinChain": {"sequence": "MKNAS", "count": 1, "unpairedMsaPath": "p.a3m"}}
    ligand = {"ligand": {"ligand": "FILE_l.sdf", "count": 1}}
    path.write_text(json.dumps([{"name": "a", "sequences": [protein, ligand]}]))
    config = load_config({"model": "demo"})
    dictionary = EmbeddedDictionary()
    (read,) = read_jobs([path], (1, 2), config.input_rules, dictionary)
    job = Task(job=read, identity=identify(config, read, dictionary, None), todo=(2,)).remaining
    assert job.seeds == (2,)
    assert featurize(job, config.feature_settings)
    (folder / name).write_bytes((folder / name).read_bytes().replace(b"MKNAT", b"MKNAY") + b"\n")
    with pytest.raises(FeaturizationError, match="one of its files has changed since the run began") as error:
        featurize(job, config.feature_settings)
    assert failure_of(job, None, "featurize", pickle.loads(pickle.dumps(error.value))).advice.startswith("put it back")
    assert featurize(read, config.feature_settings)  # nobody has checked it
    (folder / name).unlink()
    with pytest.raises(FeaturizationError, match=name):
        featurize(job, config.feature_settings)


def test_features_of_a_file_that_changes_meanwhile_are_not_cached(folder, monkeypatch):
    """Regression: they were kept under the key of the old file, and used once the old file was back."""
    old, new = ">q\nMKNAS\n>r\nMKNAT\n", ">q\nMKNAS\n>r\nMKNAY\n>s\nMKNAW\n"
    (folder / "p.a3m").write_text(old)
    spec = {"sequences": [{"proteinChain": {"sequence": "MKNAS", "count": 1, "unpairedMsaPath": "p.a3m"}}]}
    original, expected = featurize_module.msa_arrays, features(folder, spec).n_msa
    shutil.rmtree(folder / "cache")

    def change_first(*arguments):
        (folder / "p.a3m").write_text(new)
        return original(*arguments)

    monkeypatch.setattr(featurize_module, "msa_arrays", change_first)
    assert features(folder, spec).n_msa != expected
    monkeypatch.setattr(featurize_module, "msa_arrays", original)
    (folder / "p.a3m").write_text(old)
    os.utime(folder / "p.a3m", ns=(1, 1))
    assert features(folder, spec).n_msa == expected


def test_features_with_a_warning_that_may_not_come_again_are_not_cached(folder):
    job, failed = job_of(), ("a template could not be fetched",)
    made = cache.cached(job, FeatureSettings(), [], lambda: cache.Made({"a": np.zeros(1)}, ("a hit",), failed))
    assert made.passing == failed
    assert not (folder / "cache" / "features").exists()
    for _ in range(2):  # made, and from the cache
        made = cache.cached(job, FeatureSettings(), [], lambda: cache.Made({"a": np.zeros(1)}, ("a hit",)))
        assert (made.warnings, made.passing) == (("a hit",), ())
        assert (folder / "cache" / "features").exists()


def test_processes_that_want_the_same_arrays_at_once_make_them_once(folder):
    context = multiprocessing.get_context("spawn")
    arguments = (folder / "cache", folder / "made")
    processes = [context.Process(target=make_features, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (folder / "made").read_text() == "made\n"
