"""Records of runs: one for each process, and a summary of all."""

import json

import yaml
from support.jobs import job_of, task_of

from protenix_multiseed.config import load_config
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.record import RunRecord

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


def test_a_damaged_summary_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "protenix-ms").mkdir()
    (tmp_path / "protenix-ms" / "run.json").write_text('{"runs": [nul')
    with Locks(tmp_path) as locks:
        record = begin(tmp_path, locks, 2, monkeypatch, 11)
    summary = json.loads((tmp_path / "protenix-ms" / "run.json").read_text())
    assert [run["run"] for run in summary["runs"]] == [record.name]
