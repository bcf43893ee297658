"""When a result can be reused, and which seeds of an output folder are done, damaged or claimed."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.jobs import job_of, task_of

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.hashes import sha256
from protenix_multiseed.outputs.claims import Claims
from protenix_multiseed.outputs.identity import differences, fingerprint, identify
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.ranking import read_seeds
from protenix_multiseed.outputs.scan import found_seeds, inspect, scan
from protenix_multiseed.settings import FolderSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

DICTIONARY = EmbeddedDictionary()


def config(**options):
    return load_config({"model": "demo", **options})


def job(folder, name="a", seeds=(1, 2), sequence="MKTAYIAKQR", msa=">q\nMKTAYIAKQR\n", file="a.a3m", **more):
    path = folder / file
    path.write_text(msa)
    entity = {"sequence": sequence, "count": 1, "unpairedMsaPath": str(path), **more}
    return job_of({"sequences": [{"proteinChain": entity}]}, name=name, seeds=seeds)


def fingerprint_of(folder, **changes):
    return fingerprint(identify(config(**changes.pop("options", {})), job(folder, **changes), DICTIONARY, "0"), 1)


@pytest.mark.parametrize("changes", [
    {"sequence": "MKTAYIAKQK"}, {"msa": ">q\nMKTAYIAKQR\n>r\nMKTAYIAKQK\n"}, {"count": 2},
    {"options": {"steps": 7}}, {"options": {"samples": 1}}, {"options": {"cycles": 9}}, {"options": {"msa": False}},
    {"options": {"precision": "fast"}}, {"options": {"guidance": True}}, {"options": {"full_confidence": True}},
    {"options": {"model": "protenix_mini_default_v0.5.0"}},
], ids=str)  # fmt: skip
def test_settings_that_change_results_change_the_fingerprint(tmp_path, changes):
    assert fingerprint_of(tmp_path, **changes) != fingerprint_of(tmp_path)


@pytest.mark.parametrize("changes", [
    {"name": "b"}, {"file": "elsewhere.a3m"}, {"seeds": (1, 2, 3)}, {"templatesPath": "/not/read/here.hhr"},
    {"options": {"workers": 3}}, {"options": {"device": "cpu"}}, {"options": {"sequential": True}},
    {"options": {"max_seeds_per_batch": 1}}, {"options": {"kernels": "torch"}}, {"options": {"out": Path("x")}},
    {"options": {"max_jobs_per_batch": 1}},
], ids=str)  # fmt: skip
def test_settings_that_change_no_result_keep_the_fingerprint(tmp_path, changes):
    assert fingerprint_of(tmp_path, **changes) == fingerprint_of(tmp_path)


def test_an_alignment_that_is_not_read_keeps_the_fingerprint(tmp_path):
    options = {"msa": False}
    assert fingerprint_of(tmp_path, options=options, msa=">q\nMKTAYIAKQR\n>x\nMKTAYIAKQK\n") == fingerprint_of(
        tmp_path, options=options
    )


def test_another_seed_or_checkpoint_is_a_difference(tmp_path):
    one = identify(config(), job(tmp_path), DICTIONARY, "0")
    assert fingerprint(one, 1) != fingerprint(one, 2)
    other = identify(config(), job(tmp_path), DICTIONARY, "1")
    assert list(differences(one, other)) == ["the checkpoint is another file"]


def test_a_missing_file_is_named_in_the_error(tmp_path):
    made = job(tmp_path)
    (tmp_path / "a.a3m").unlink()
    with pytest.raises(ConfigError, match=r"in.json\[0\] 'a': .*a.a3m: cannot be read: No such file"):
        identify(config(), made, DICTIONARY, None)


@pytest.fixture
def out(tmp_path):
    """An output folder with two finished seeds of job a."""
    out = tmp_path / "out"
    identity = identify(config(), job(tmp_path), DICTIONARY, None)
    for seed in (1, 2):
        folder = out / "a" / f"seed_{seed}"
        (folder / "predictions").mkdir(parents=True)
        summary = {"ranking_score": seed / 10, "plddt": 50.0, "ptm": 0.5, "iptm": 0.25, "has_clash": 0.0}
        confidence = folder / "predictions" / "a_summary_confidence_sample_0.json"
        confidence.write_text(json.dumps(summary))
        files = {"predictions/" + confidence.name: {"bytes": confidence.stat().st_size, "sha256": sha256(confidence)}}
        record = {"fingerprint": fingerprint(identity, seed), "made_from": identity, "files": files}
        (folder / "record.json").write_text(json.dumps(record))
    return out


def scan_folder(tmp_path, out, *, seeds=(1, 2, 3), verify=False, overwrite=False, **options):
    jobs = [job(tmp_path, seeds=seeds)]
    identities = {"a": identify(config(**options), jobs[0], DICTIONARY, None)}
    return scan(jobs, identities, FolderSettings(out=out, verify=verify, overwrite=overwrite))


def todo(found):
    return [task.todo for task in found.tasks if task.todo]


def test_only_missing_seeds_are_to_do(tmp_path, out):
    found = scan_folder(tmp_path, out)
    assert todo(found) == [(3,)]
    assert (found.n_done, found.n_todo, found.damaged, found.n_other) == (2, 1, (), 0)
    assert todo(scan_folder(tmp_path, out, seeds=(2, 1))) == []


def test_results_of_other_settings_are_refused_with_the_difference(tmp_path, out):
    with pytest.raises(ConfigError, match="out/a: seed 1, 2: --steps was 8, is 7") as error:
        scan_folder(tmp_path, out, steps=7)
    assert "all seeds are predicted again" in str(error.value)
    assert "--overwrite" in str(error.value)
    with pytest.raises(ConfigError, match="seed 1, 2: --steps was 8, is 7"):
        scan_folder(tmp_path, out, seeds=(9,), steps=7)  # one ranking would hold seeds of both settings


def test_a_difference_names_the_option(tmp_path, out):
    """Regression: the message said "full_confidence was False", and the option is --full-confidence."""
    with pytest.raises(ConfigError, match="seed 1, 2: --full-confidence was off, is on"):
        scan_folder(tmp_path, out, full_confidence=True)


def test_overwrite_replaces_the_seeds_asked_for_and_deletes_other_outdated_ones(tmp_path, out):
    found = scan_folder(tmp_path, out, seeds=(2, 3), steps=7, overwrite=True)
    assert todo(found) == [(2, 3)]
    assert found.n_other == 1
    assert todo(scan_folder(tmp_path, out, seeds=(1, 2), overwrite=True)) == []  # results of the same settings are kept
    with Locks(out) as locks:
        _, units = claims(tmp_path, out, locks, seeds=(2, 3), overwrite=True, steps=7)
        units.delete_others()
    assert [path.name for path in sorted((out / "a").iterdir())] == ["seed_2"]


def test_overwrite_deletes_no_result_of_the_present_settings(tmp_path, out):
    """Regression: two runs for seeds 1 and 2 scanned one folder, loaded, and deleted each other's new results."""
    with Locks(out) as locks:
        _, units = claims(tmp_path, out, locks, seeds=(1,), overwrite=True)  # seed 2: another run, the same settings
        units.delete_others()
        assert (out / "a" / "seed_2").exists()
        _, units = claims(tmp_path, out, locks, seeds=(1,), overwrite=True, steps=7)
        held = SimpleNamespace(take=lambda name: name != "unit:a:2", give_back=lambda name: None)
        units._locks = held  # another process works on seed 2
        units.delete_others()
        assert (out / "a" / "seed_2").exists()
        units._locks = locks
        units.delete_others()
        assert not (out / "a" / "seed_2").exists()


def confidence_of(out, seed):
    return out / "a" / f"seed_{seed}" / "predictions" / "a_summary_confidence_sample_0.json"


def test_a_truncated_or_missing_file_is_found(tmp_path, out):
    path = confidence_of(out, 1)
    path.write_text(path.read_text()[:-3])
    confidence_of(out, 2).unlink()
    found = scan_folder(tmp_path, out)
    assert todo(found) == [(1, 2, 3)]
    assert "a/seed_1: predictions/a_summary_confidence_sample_0.json has another length" in found.damaged[0]
    assert "a/seed_2: predictions/a_summary_confidence_sample_0.json: No such file" in found.damaged[1]


def test_an_edited_file_is_found_only_with_verify(tmp_path, out):
    path = confidence_of(out, 1)
    path.write_text(path.read_text().replace("50.0", "90.0"))
    assert todo(scan_folder(tmp_path, out)) == [(3,)]
    assert todo(scan_folder(tmp_path, out, verify=True)) == [(1, 3)]


def test_results_of_a_job_that_was_renamed_are_refused(tmp_path, out):
    """Regression: they counted as done, and their ranking failed."""
    for seed in (1, 2):
        path = out / "a" / f"seed_{seed}" / "record.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "job": "a", "seed": seed}))
    assert todo(scan_folder(tmp_path, out)) == [(3,)]
    (out / "a").rename(out / "b")
    jobs = [job(tmp_path, name="b", seeds=(1, 2))]
    identities = {"b": identify(config(), jobs[0], DICTIONARY, None)}
    with pytest.raises(ConfigError, match="seed 1, 2: it was made for job 'a': name the job, or its folder, as it was"):
        scan(jobs, identities, FolderSettings(out=out, verify=False, overwrite=False))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"fingerprint": 1}', '{"files": {"a": 3}}', "[" * 50_000])
def test_a_record_that_cannot_be_read_is_damaged(tmp_path, out, text):
    folder = out / "a" / "seed_1"
    (folder / "record.json").write_text(text)
    assert inspect(folder, {}, 1).state == "damaged"


def test_results_without_a_record_are_refused(tmp_path, out):
    (out / "a" / "seed_1" / "record.json").unlink()
    with pytest.raises(ConfigError, match="seed 1: it has no record of how it was made"):
        scan_folder(tmp_path, out)


def test_other_folders_do_not_count_as_seeds(tmp_path, out):
    for name in ("seed_x", "seed_", "seed_٣", "notes", ".seed_5.new-abc"):
        (out / "a" / name).mkdir()
    assert scan_folder(tmp_path, out).n_done == 2


def test_the_ranking_holds_every_finished_seed_and_no_other(tmp_path, out):
    identity = identify(config(), job(tmp_path), DICTIONARY, None)
    confidence_of(out, 1).unlink()
    seeds = read_seeds("a", found_seeds(out, "a", identity)[0])
    assert [(sample.seed, sample.ranking_score) for sample in seeds.samples[2]] == [(2, 0.2)]
    assert (list(seeds.samples), seeds.damaged) == ([2], {})


def claims(tmp_path, out, locks, seeds=(1, 2, 3), overwrite=False, names=("a",), **options):
    made = [job(tmp_path, name=name, seeds=seeds) for name in names]
    tasks = [task_of(one, identify(config(**options), one, DICTIONARY, None)) for one in made]
    return made[0], Claims(locks, tasks, FolderSettings(out=out, overwrite=overwrite))


def test_seeds_that_another_process_finished_are_not_done_again(tmp_path, out):
    with Locks(out) as locks:
        made, units = claims(tmp_path, out, locks)
        for _ in range(2):  # an executor may ask again for seeds that it has not predicted
            assert units.claim(made, made.seeds) == ([3], [])
            assert units.n_done_elsewhere == 2


def test_seeds_that_another_process_wrote_with_other_settings_are_failures(tmp_path, out):
    with Locks(out) as locks:
        made, units = claims(tmp_path, out, locks, steps=7)
        mine, failures = units.claim(made, made.seeds)
    assert mine == [3]
    assert [(failed.seed, "steps was 8, is 7" in failed.message) for failed in failures] == [(1, True), (2, True)]


def test_every_seed_held_by_another_process_is_waited_for(tmp_path, out):
    """Two other processes hold one seed each. When one releases its seed, the other is still waited for."""
    with Locks(out) as locks:
        first, units = claims(tmp_path, out, locks, names=("a", "b"))
        second = replace(first, name="b", seeds=(1,))
        held = {"a:3", "b:1"}
        units._locks = SimpleNamespace(
            take=lambda name: name.removeprefix("unit:") not in held, give_back=lambda name: None
        )
        units.claim(first, (3,))
        units.claim(second, (1,))
        pauses = iter(range(10))
        held.discard("a:3")
        assert [(left.job.name, left.todo) for left in units.released(lambda: True)] == [("a", (3,))]
        assert units.elsewhere == 1

        def pause():
            if next(pauses) == 3:
                held.discard("b:1")
            return True

        assert [(left.job.name, left.todo) for left in units.released(pause)] == [("b", (1,))]
        assert units.elsewhere == 0
