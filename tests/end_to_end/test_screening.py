"""Different small jobs in one batch, through the real command: the results are those of each job alone."""

import json
import time

import gemmi
import numpy as np
import pytest
from support.command import leftovers, run, start

JOBS = {
    "a": "MKTAYIAKQRQISFVKSHFSRQLEERLGLI",
    "b": "GSHMLEDPVRAKWTNQEFYCIGHKLMNPQRS",
    "c": "AEELKRAAELVARIIEEALKRGDPELVRRVL",
    "d": "SPEELLKRAREALERGNLDEALRLALEAAR",
    "e": "TDEEKAQRILEELIRLAKEAGVEVEVEVRG",
    "f": "DEVRKLIEEAIRLAKEGNKELALKLVAEAAR",
    "large": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKV",
}
SMALL = sorted(set(JOBS) - {"large"})
OPTIONS = ("predict", "in.json", "--config", "quick.yaml", "--device", "cpu", "--log-format", "json")
SHARED = ("--max-jobs-per-batch", "6")
# A prelude: all small jobs are featurized before the first batch, whatever the machine does meanwhile.
PATIENT = """
from protenix_multiseed.execution import transfer
transfer.Transfer.is_awaited = property(lambda self: False, lambda self, value: None)
"""
# Job c raises an error while it runs, alone or with others.
BREAK_C = """
from protenix_multiseed.execution import model
whole = model.run_stages
def broken(stages, network, batch):
    for step in whole(stages, network, batch):
        if any(part.job.name == "c" for part in batch.parts):
            raise ValueError("c cannot be computed")
        yield step
model.run_stages = broken
"""


def write(folder):
    content = [
        {"name": name, "sequences": [{"proteinChain": {"sequence": sequence, "count": 1}}]}
        for name, sequence in JOBS.items()
    ]
    (folder / "in.json").write_text(json.dumps(content))
    (folder / "quick.yaml").write_text("model: demo\nsteps: 2\ncycles: 1\nsamples: 2\nworkers: 1\n")


def record(out, name, seed=1):
    return json.loads((out / name / f"seed_{seed}" / "record.json").read_text())["run"]


def events(out):
    return [json.loads(line) for line in (out / "protenix-ms" / "run.log").read_text().splitlines()]


def same(ours, theirs):
    """Whether two predictions are equal within rounding: the printed coordinates and scores."""
    if ours.suffix == ".cif":
        one, other = (np.array([atom.atom.pos.tolist() for atom in gemmi.read_structure(str(path))[0].all()])
                      for path in (ours, theirs))  # fmt: skip
        return np.allclose(one, other, rtol=1e-5, atol=5e-4)
    scores = [json.loads(path.read_text()) for path in (ours, theirs)]
    # The confidence head reads distances in bins: by rounding alone, a distance at an edge may fall into the next one.
    # The coordinates show the errors that are smaller. pLDDT is from 0 to 100.
    bounds = {"ranking_score": 1e-3, "plddt": 0.02, "ptm": 1e-3}
    return all(abs(scores[0][name] - scores[1][name]) <= bound for name, bound in bounds.items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The output folder of a run in which each job has its own batches."""
    folder = tmp_path_factory.mktemp("alone")
    write(folder)
    done = run(*OPTIONS, "--seeds", "1", "--max-jobs-per-batch", "1", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert record(folder / "out", "a")["batch"] == [1]
    assert "batch_jobs" not in record(folder / "out", "a")
    return folder / "out"


def assert_equal(out, alone, names=tuple(JOBS)):
    for name in names:
        files = sorted((alone / name / "seed_1" / "predictions").iterdir())
        assert len(files) == 4
        assert all(same(out / path.relative_to(alone), path) for path in files), name


def test_six_jobs_in_one_batch_equal_each_job_alone(tmp_path, alone):
    write(tmp_path)
    done = run(*OPTIONS, *SHARED, "--seeds", "1", "--out", "out", cwd=tmp_path, prelude=PATIENT)
    out = tmp_path / "out"
    assert done.returncode == 0, done.stdout + done.stderr
    assert record(out, "a")["batch_jobs"] == {name: [1] for name in SMALL}
    assert record(out, "a")["batch"] == [1]
    assert "batch_jobs" not in record(out, "large")
    assert_equal(out, alone)
    batches = {(line["job"], len(line.get("others", ()))) for line in events(out) if line["event"] == "progress"}
    assert sorted(others for _, others in batches) == [0, 5]
    assert len(list(out.glob("*/ranking.csv"))) == len(JOBS)


def test_one_job_that_fails_in_a_batch_fails_alone(tmp_path, alone):
    write(tmp_path)
    done = run(*OPTIONS, *SHARED, "--seeds", "1", "--out", "out", cwd=tmp_path, prelude=PATIENT + BREAK_C)
    out = tmp_path / "out"
    assert done.returncode == 1, done.stdout + done.stderr
    (failed,) = (json.loads(line) for line in (out / "protenix-ms" / "failures.jsonl").read_text().splitlines())
    assert (failed["job"], failed["seed"], failed["message"]) == ("c", 1, "ValueError: c cannot be computed")
    assert not (out / "c" / "seed_1").exists()
    assert_equal(out, alone, [name for name in JOBS if name != "c"])
    assert "6 jobs, 6 seeds, 2 samples at a time" in done.stdout
    assert "6 jobs" in record(out, "a")["retries"][0]


def test_a_run_that_is_killed_is_resumed_and_no_seed_is_written_twice(tmp_path, alone):
    write(tmp_path)
    script = tmp_path / "command.py"
    script.write_text(PATIENT + "from protenix_multiseed.cli import app\nif __name__ == '__main__':\n    app()\n")
    arguments = (*OPTIONS, *SHARED, "--seeds", "1-2", "--out", "out")
    out, end = tmp_path / "out", time.monotonic() + 500
    process = start(*arguments, cwd=tmp_path, script=str(script))
    while len(list(out.glob("*/seed_*"))) < 4:
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(2)  # workers notice that the run was killed
    before = times(out)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before.items() <= times(out).items()
    assert len(times(out)) == 2 * len(JOBS)
    assert leftovers(out) == []
    assert_equal(out, alone)


def times(out):
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("*/seed_*/record.json")}


def test_a_dry_run_shows_which_jobs_share_a_batch(tmp_path):
    write(tmp_path)
    done = run(*OPTIONS, *SHARED, "--seeds", "1", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plans = {plan["job"]: plan for plan in json.loads(done.stdout)}
    assert sorted(plans["a"]["shared_with"]) == [name for name in SMALL if name != "a"]
    assert "shared_with" not in plans["large"]
    assert [batch["seeds"] for batch in plans["a"]["batches"]] == [[1]]
    shown = run(*OPTIONS, *SHARED, "--seeds", "1", "--dry-run", cwd=tmp_path)
    assert "shared by 6 jobs" in shown.stdout
