"""A dry run asks the functions that a run asks."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from support.jobs import job_of

from protenix_multiseed.commands import dry_run
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution import hardware, speeds
from protenix_multiseed.execution.figures import batch_seconds
from protenix_multiseed.execution.memory import MARGIN, MemoryEstimate
from protenix_multiseed.kernels import probe
from protenix_multiseed.run import preflight
from protenix_multiseed.types import BatchPlan, Sizes
from protenix_multiseed.upstream.dictionary import find_dictionary


@pytest.mark.parametrize(
    ("kernels", "outcome", "fused"),
    [("auto", "ok", True), ("torch", "ok", False), ("auto", "results differ from PyTorch's by 0.3", False)],
)
def test_a_dry_run_plans_with_the_kernels_that_a_run_would_use(monkeypatch, kernels, outcome, fused):
    """``--kernels torch`` and a failed probe take more memory, so a dry run must not plan with Triton's estimate."""
    monkeypatch.setattr(hardware, "card_of", lambda device: "card")
    monkeypatch.setattr(probe, "known_outcomes", lambda card: {"triton": outcome})
    config = load_config({"model": "demo", "kernels": kernels, "assume_free": "24GiB"})
    planner, budget = dry_run._planner(config)
    assert planner.memory.fused == fused
    assert budget == int(MARGIN * 24 * 2**30)


def plan(name="a-complex-with-a-name-that-is-rather-long", seconds=75.4, **changes):
    estimate = MemoryEstimate(resident={}, stages={"sample": {"x": 10 * 2**30}})
    fixed = {"sizes": Sizes(n_token=2000, n_atom=15_000, n_msa=16_384), "one_seed": estimate, "largest": estimate}
    entries = tuple(tuple((0, seed) for seed in seeds) for seeds in ((1, 2, 3), (4, 5)))
    batches = tuple(BatchPlan(entries=one, sample_chunk=5, estimated_bytes=0) for one in entries)
    more = {"budget": 70 * 2**30, "n_sample": 5, "disk_bytes": 2**30, "reference_reason": None, "refusal": None}
    fixed |= {"device": "NVIDIA H100 80GB HBM3", "seconds": seconds, "speed": None, "batches": batches, **more}
    return dry_run.JobPlan(job=job_of(name=name), **{**fixed, **changes})


def shown(plans):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    dry_run._show(console, plans, show_all=False)
    return console.file.getvalue()


def test_the_table_fits_80_columns_and_begins_with_the_job():
    lines = shown([plan(), plan("short", seconds=None)]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["job", "tokens", "MSA", "rows", "batches", "memory", "time", "disk"]
    rows = "\n".join(lines[1:])
    assert "…" not in rows
    assert "".join(line[:18].strip() for line in lines[1:4]).startswith("a-complex-with-a-name")
    assert any(line.startswith("short") and line.split()[-3] == "-" for line in lines)
    assert "75 s" in rows


def test_the_device_and_the_time_are_said_to_be_an_estimate_or_unknown():
    text = " ".join(shown([plan(), plan("b", seconds=100.0), plan("c", seconds=None)]).split())
    assert "device: NVIDIA H100 80GB HBM3, 70.0 GiB for a batch" in text
    assert "about 3 min of computing, an estimate from times measured on one H100" in text
    assert "1 job of unknown time left out" in text
    text = " ".join(shown([plan(seconds=None, device="CPU")]).split())
    assert "device: CPU" in text
    assert "time unknown" in text
    assert "about" not in text


@pytest.mark.parametrize(
    ("options", "is_known"),
    [({}, True), ({"kernels": "torch"}, False), ({"sequential": True}, False), ({"model": "protenix-v2"}, False)],
)
def test_measured_times_hold_only_for_the_kernels_and_models_that_were_measured(
    tmp_path, monkeypatch, options, is_known
):
    """Without Triton's kernels, or seed by seed, a run takes longer than was measured."""
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path))
    monkeypatch.setattr(dry_run, "_device", lambda config: ("NVIDIA H100 80GB HBM3", True))
    (made,) = plans_of({**options, "assume_free": "24GiB"})
    assert (made.seconds is not None) == is_known
    assert made.speed is None


def timing(ratio, *, is_first=False, **changes):
    usual = {"model": "demo", "precision": "reference", "kernels": "torch", "tokens": 12}
    return speeds.Timing(**{**usual, **changes}, ratio=ratio, is_first=is_first)


def test_earlier_batches_on_this_device_give_the_time(tmp_path, monkeypatch):
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path))
    options = {"model": "demo", "device": "cpu", "steps": 4}
    (made,) = plans_of(options)
    assert made.seconds is None
    for ratio in (2.0, 4.0, 3.0):
        speeds.note(hardware.speed_name(torch.device("cpu")), timing(ratio))
    (made,) = plans_of(options)
    usual = batch_seconds(3, precision="reference", tokens=10, cycles=2, steps=4, samples=5)
    assert made.seconds == pytest.approx(3.0 * usual)
    assert "an estimate from earlier batches on this device" in " ".join(shown([made]).split())
    (sequential,) = plans_of({**options, "sequential": True})
    assert sequential.seconds is None


@pytest.mark.parametrize(("is_first", "seconds"), [(True, 1.0), (False, 5.0)])
def test_a_first_batch_which_compiles_says_less_than_measured_times(tmp_path, monkeypatch, is_first, seconds):
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path))
    card = "NVIDIA H100 80GB HBM3"
    monkeypatch.setattr(dry_run, "_device", lambda config: (card, True))
    monkeypatch.setattr(hardware, "speed_name", lambda device: card)
    model = "protenix_base_default_v1.0.0"
    speeds.note(card, timing(5.0, is_first=is_first, model=model, kernels="triton"))
    (made,) = plans_of({"assume_free": "24GiB"})
    usual = batch_seconds(3, precision="reference", tokens=10, cycles=10, steps=200, samples=5)
    assert made.seconds == pytest.approx(seconds * usual)


def test_nothing_is_said_of_jobs_larger_than_all_that_were_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path))
    for tokens in (3000, 4096):
        speeds.note(hardware.speed_name(torch.device("cpu")), timing(2.0, tokens=tokens))
    options = {"model": "demo", "device": "cpu", "assume_free": "500GiB"}
    (made,) = plans_of(options, "MKTAYIAKQR" * 400)
    assert made.seconds is not None
    (made,) = plans_of(options, "MKTAYIAKQR" * 512)
    assert made.seconds is None


def plans_of(options, sequence="MKTAYIAKQR"):
    """The plan of one job of one protein with three seeds."""
    job = job_of({"sequences": [{"proteinChain": {"sequence": sequence, "count": 1}}]}, seeds=(1, 2, 3))
    return list(dry_run.make_plans(load_config(options), [job], find_dictionary()))


def test_where_a_plan_is_for(monkeypatch):
    monkeypatch.setattr(hardware, "choose_device", lambda name: torch.device("cpu"))
    assert dry_run._device(load_config({"model": "demo"})) == ("CPU", True)
    elsewhere = load_config({"model": "demo", "assume_free": "24GiB"})
    assert dry_run._device(elsewhere) == ("a GPU that is not here (--assume-free)", False)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A job, on a machine without weights, without a GPU, and without Ray."""
    content = [{"name": "a", "sequences": [{"proteinChain": {"sequence": "MKTAYIAKQR", "count": 1}}]}]
    (tmp_path / "in.json").write_text(json.dumps(content))
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(dry_run, "make_plans", lambda *_: [plan("a")])
    return [tmp_path / "in.json"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"model": "demo"}, 0, None),
        ({}, 1, "missing no checkpoint at"),
        ({"assume_free": "24GiB"}, 0, "missing no checkpoint at"),
        ({"model": "demo", "gpus": "all"}, 1, "missing gpus: Ray is not installed: pip install"),
        ({"model": "demo", "msa_database": "nowhere"}, 1, "missing nowhere: no database of MMseqs2"),
    ],
)
def test_what_a_run_would_miss_is_said_after_the_plan(inputs, capsys, options, code, said):
    """Regression: a dry run said nothing of weights and of Ray, without which the run was refused."""
    config = load_config({**options, "device": "cpu", "out": inputs[0].parent / "out"})
    assert dry_run.dry_run(config, inputs, as_json=False, show_all=False) == code
    text = capsys.readouterr().out
    assert "job" in text
    assert (said in text) if said else ("missing" not in text)
    assert dry_run.dry_run(config, inputs, as_json=True, show_all=False) == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["job"] == "a"
    assert (said or "") in printed.err


def test_gpus_without_a_gpu_are_missing(inputs, monkeypatch):
    monkeypatch.setattr(preflight, "check_ray", lambda: None)
    parts = list(preflight.missing_parts(load_config({"model": "demo", "gpus": "2"})))
    assert parts == ["gpus: this machine has no GPU; use --device cpu, or leave the option out"]


def test_results_that_are_there_already_are_said(tmp_path):
    config = load_config({"model": "demo", "out": tmp_path})
    jobs = [job_of(name=name) for name in ("a", "b")]
    assert dry_run._found_before(config, jobs) is None
    (tmp_path / "b").mkdir()
    assert dry_run._found_before(config, jobs).startswith(f"{tmp_path} has results of 1 of these jobs: all seeds are")


def test_results_that_will_not_fit_on_the_disk_are_said(monkeypatch, tmp_path):
    config = load_config({"model": "demo", "out": tmp_path / "not" / "there"})
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30 * (folder == tmp_path)))
    assert dry_run._full_disk(config, 2**30) is None
    said = "the results of all seeds take about 2.0 GiB, and 1.0 GiB are free in"
    assert dry_run._full_disk(config, 2**31) == f"{said} {tmp_path}"
    elsewhere = load_config({"model": "demo", "out": tmp_path, "assume_free": "24GiB"})
    assert dry_run._full_disk(elsewhere, 2**31) is None
