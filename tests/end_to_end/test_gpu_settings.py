"""Settings of a run mean the same on several GPUs as on one. Here each GPU is a share of the CPU."""

import json

import pytest
from support.command import predictions, run, write_jobs

pytest.importorskip("ray")

JOBS = {"a": "MKTAYIAKQR", "b": "GHKLMNPQRSTV"}
COMMON = ("predict", "in.json", "--config", "quick.yaml", "--samples", "2", "--device", "cpu", "--seeds")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # a process of Ray has one thread too, and the numbers depend on it
CASES = {
    "sequential": (("--sequential",), {}),
    "variable": ((), {"PROTENIX_NOBATCHED_SEEDS": "1"}),
    "fast": (("--precision", "fast", "--store", "top:1", "--max-seeds-per-batch", "1"), {}),
}


def record_of(folder):
    return json.loads((folder / "a" / "seed_1" / "record.json").read_text())["run"]


@pytest.mark.parametrize("name", CASES)
def test_a_setting_gives_the_same_files_on_two_gpus(tmp_path, name):
    options, variables = CASES[name]
    write_jobs(tmp_path, JOBS)
    for out, gpus in (("one", ()), ("two", ("--gpus", "2", "--offline"))):
        done = run(*COMMON, "1,2", *options, *gpus, "--out", out, cwd=tmp_path, **variables, **ONE_THREAD)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = tmp_path / "one", tmp_path / "two"
    assert predictions(two) == predictions(one)
    assert len(predictions(one)) == (6 if name == "fast" else 8) * 2  # files of a seed: confidences, and structures
    mine, theirs = record_of(one), record_of(two)
    for key in ("path", "precision", "kernels", "why"):
        assert mine.get(key) == theirs.get(key)
    assert mine["path"] == ("batched" if name == "fast" else "reference")
    done = run(*COMMON, "1,2", *options, "--gpus", "2", "--out", "two", cwd=tmp_path, **variables, **ONE_THREAD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 seeds are done already, 0 to do" in done.stdout


def test_a_job_ends_early_over_all_gpus(tmp_path):
    """The scores of the demo model hardly change, so a few seeds are enough."""
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    options = ("--max-seeds-per-batch", "1", "--stop-when-stable", "2", "--gpus", "2", "--out", "out")
    done = run(*COMMON, "1-60", *options, cwd=tmp_path, **ONE_THREAD)
    assert done.returncode == 0, done.stdout + done.stderr
    units = json.loads((tmp_path / "out" / "protenix-ms" / "run.json").read_text())["units"]
    assert units["done"] < 60
    assert units["skipped"] == 60 - units["done"]
    assert units["left"] == 0
    assert (tmp_path / "out" / "a" / "best.cif").is_file()
