"""Records of runs: one for each process, and a summary of all."""

import json

import pytest
import yaml
from support.jobs import job_of, task_of

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.record import RunRecord, read_notes

IDENTITY = {"checkpoint_sha256": None}


def begin(out, locks, steps, monkeypatch, process):
    monkeypatch.setattr("os.getpid", lambda: process)
    config = load_config({"out": str(out), "model": "demo", "steps": steps})
    record = RunRecord(config, [task_of(job_of(), IDENTITY)], {"device": "cpu"}, "biotite", locks)
    record.begin()
    return record


def test_two_processes_on_one_folder_keep_a_record_each(tmp_path, monkeypatch):
    """Before, both wrote ``run.json``, and the record of the first was lost."""
    with Locks(tmp_path) as locks:
        first = begin(tmp_path, locks, 2, monkeypatch, 11)
        second = begin(tmp_path, locks, 3, monkeypatch, 12)
        second.finish({"samples": 7})
        first.finish({"samples": 5})
    folder = tmp_path / "protenix-ms"
    assert first.name != second.name
    for record, steps, samples in ((first, 2, 5), (second, 3, 7)):
        content = json.loads((folder / "runs" / f"{record.name}.json").read_text())
        assert (content["run"], content["samples"]) == (record.name, samples)
        assert yaml.safe_load((folder / "runs" / f"{record.name}.yaml").read_text())["steps"] == steps
    summary = json.loads((folder / "run.json").read_text())
    assert {run["run"]: run["samples"] for run in summary["runs"]} == {first.name: 5, second.name: 7}


DAMAGED = [
    b'{"runs": [nul', b"", b"\xff\x00", b"[]", b"5", b'{"runs": 5}', b'{"runs": {"run": "a"}}',
    b'{"runs": [5, {"run": 5}]}',
    b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a": ' + b"[" * 300 + b"]" * 300 + b', "runs": [null]}',
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_summary_is_replaced(tmp_path, monkeypatch, content):
    (tmp_path / "protenix-ms").mkdir()
    (tmp_path / "protenix-ms" / "run.json").write_bytes(content)
    with Locks(tmp_path) as locks:
        record = begin(tmp_path, locks, 2, monkeypatch, 11)
    summary = json.loads((tmp_path / "protenix-ms" / "run.json").read_text())
    assert [run["run"] for run in summary["runs"]] == [record.name]


@pytest.mark.parametrize("name", ["runs", "locks", "run.json"])
def test_links_out_of_the_output_folder_are_not_followed(tmp_path, monkeypatch, name):
    outside, out = tmp_path / "outside", tmp_path / "out"
    (out / "protenix-ms").mkdir(parents=True)
    outside.mkdir()
    (out / "protenix-ms" / name).symlink_to(outside / "new" if name == "locks" else outside)
    if name == "run.json":  # a link in a file's place is replaced
        with Locks(out) as locks:
            begin(out, locks, 2, monkeypatch, 11)
    else:
        with pytest.raises(ConfigError, match=rf"--out .*{name}: it leads out of .*; choose another folder"):  # noqa: SIM117
            with Locks(out) as locks:
                begin(out, locks, 2, monkeypatch, 11)
    assert list(outside.iterdir()) == []


def test_remarks_on_a_job_are_those_of_the_latest_run_with_it(tmp_path):
    """Regression: a later run of another input hid them."""
    runs = tmp_path / "protenix-ms" / "runs"
    runs.mkdir(parents=True)
    for run, notes in (
        ("1", {"a": ["old"], "b": ["kept"]}),
        ("2", {"a": ["new"]}),
        ("3", {"c": None}),
        ("4", {"d": ["x"]}),
    ):
        jobs = [{"name": name, "seeds": [1], **({"notes": said} if said else {})} for name, said in notes.items()]
        (runs / f"{run}.json").write_text(json.dumps({"jobs": jobs}))
    (runs / "5.json").write_text("{")
    assert read_notes(tmp_path) == {"a": ["new"], "b": ["kept"], "d": ["x"]}
    (runs / "6.json").write_text(json.dumps({"jobs": [{"name": "b", "seeds": [1]}]}))
    assert read_notes(tmp_path) == {"a": ["new"], "d": ["x"]}
