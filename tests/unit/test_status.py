"""``protenix-ms status`` on folders of finished, running and killed runs."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.command import environment
from support.jobs import job_of
from typer.testing import CliRunner

from protenix_multiseed.cli import app
from protenix_multiseed.commands.status import read_status
from protenix_multiseed.outputs import locks
from protenix_multiseed.outputs.identity import digest
from protenix_multiseed.outputs.progress import Progress
from protenix_multiseed.types import Failure

# A process that holds the folder as a run does. It ends when its standard input does.
RUNNING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.jobs import job_of
from protenix_multiseed.events import BatchProgress, Note, Skipped, Stopping, Written
from protenix_multiseed.outputs import progress
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.types import Failure
progress.WRITE_SECONDS = -1.0
out = Path(sys.argv[1])
job = job_of(name="a")
made = progress.Progress(out, "run1", Locks(out))
made._started -= 60
made.see(Written(job=job, seed=1, scores=(0.5,), seconds=1.0))
made.see(Failure(job=job, seed=2, stage="predict", message="no"))
batch = dict(stage="sample", done=1, total=2, share=0.5)
made.see(BatchProgress(job=job, seeds=(3, 4), where="n1 GPU 0", **batch))
made.see(BatchProgress(job=job_of(name="c"), seeds=(1,), where="n1 GPU 1", others=(("a", (5,)), ("d", (1,))), **batch))
made.see(BatchProgress(job=job, seeds=(6,), where="n2 GPU 0", **batch))
made.see(Note(job=None, text="lost n2 GPU 0", lost="n2 GPU 0"))
print("ready", flush=True)
for line in sys.stdin:
    made.see(Skipped(job=job, seeds=(6,)))
    made.see(Stopping(signal="SIGINT", grace=20.0))
    print("skipped", flush=True)
"""


@pytest.fixture
def out(tmp_path):
    """Job a has seeds 1 to 6 and job b seeds 1 to 3 of two runs; a/1 and b/1 are done, and b as a whole failed."""
    folder = tmp_path / "out"
    (folder / "protenix-ms" / "runs").mkdir(parents=True)
    (folder / "protenix-ms" / "locks").touch()
    for run, jobs in {"run0": {"a": [1, 2, 3]}, "run1": {"a": [4, 5, 6], "b": [1, 2, 3]}}.items():
        content = {"jobs": [{"name": name, "seeds": seeds} for name, seeds in jobs.items()]}
        (folder / "protenix-ms" / "runs" / f"{run}.json").write_text(json.dumps(content))
    for seed in ("a/seed_1", "b/seed_1"):
        (folder / seed).mkdir(parents=True)
        (folder / seed / "record.json").write_text("{}")
    (folder / "a" / "seed_5").mkdir()  # no record: not done
    (folder / "protenix-ms" / "failures.jsonl").write_text(json.dumps({"job": "b", "seed": None}) + "\n")
    return folder


@pytest.fixture
def running(out):
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNING, str(out), str(__file__).rsplit("/unit/", 1)[0]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_without_a_running_process(out):
    made = read_status(out)
    assert made["jobs"] == [
        {"job": "a", "asked": 6, "done": 1, "running": 0, "failed": 0, "skipped": 0, "left": 5},
        {"job": "b", "asked": 3, "done": 1, "running": 0, "failed": 2, "skipped": 0, "left": 0},
    ]
    assert made["total"] == {"asked": 9, "done": 2, "running": 0, "failed": 2, "skipped": 0, "left": 5}
    assert (made["runs"], made["seconds_to_go"]) == ([], None)


def test_a_running_process_is_seen_with_its_batches_rate_and_time_to_go(out, running):
    made = read_status(out)
    assert made["jobs"][0] == {"job": "a", "asked": 6, "done": 1, "running": 3, "failed": 1, "skipped": 0, "left": 1}
    (run,) = made["runs"]
    assert run["is_alive"]
    assert made["seeds_per_minute"] == pytest.approx(1, abs=0.3)
    assert made["seconds_to_go"] == pytest.approx(6 * 60, rel=0.4)
    text = " ".join(CliRunner().invoke(app, ["status", str(out)]).stdout.split())
    assert "a 6 1 3 1 0 1" in text
    assert "all jobs 9 2 3 1 0 3" in text  # b failed in an earlier run, and is tried again
    assert "running: run1, 1 seed in" in text
    assert "n1 GPU 0: a seeds 3-4, sample 1/2" in text
    assert "n1 GPU 1: c seed 1, with 2 more jobs, sample 1/2" in text


def test_seeds_that_a_running_process_has_skipped_are_seen(out, running):
    running.stdin.write("skip\n")
    running.stdin.flush()
    assert running.stdout.readline() == "skipped\n"
    assert read_status(out)["jobs"][0] == {
        "job": "a", "asked": 6, "done": 1, "running": 3, "failed": 1, "skipped": 1, "left": 0
    }  # fmt: skip


def test_a_killed_process_runs_nothing(out, running):
    running.kill()
    running.wait()
    made = read_status(out)
    assert [run["is_alive"] for run in made["runs"]] == [False]
    assert made["jobs"][0]["running"] == 0
    assert made["seconds_to_go"] is None
    assert "killed: run1" in CliRunner().invoke(app, ["status", str(out)]).stdout


def test_the_state_is_read_without_a_right_to_write(out, running, monkeypatch):
    """Regression: the folder of another account could not be shown, because the lock file was opened for writing."""
    opened = os.open

    def may_only_read(path, flags, *more, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *more, **named)

    before = read_status(out)
    monkeypatch.setattr(os, "open", may_only_read)
    monkeypatch.setattr(Path, "mkdir", lambda self, **_: pytest.fail("a folder is made"))
    made = read_status(out)
    assert made["jobs"] == before["jobs"]
    assert [run["is_alive"] for run in made["runs"]] == [True]
    running.kill()
    running.wait()
    assert [run["is_alive"] for run in read_status(out)["runs"]] == [False]


def test_what_another_account_lets_nobody_read_is_said(out, running, monkeypatch):
    def refused(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(locks, "open_file", refused)
    made = CliRunner().invoke(app, ["status", str(out)])
    assert "running or killed (its lock cannot be read): run1" in made.stdout
    assert "n1 GPU 0: a seeds 3-4, sample 1/2" in made.stdout
    monkeypatch.setattr(Path, "is_file", refused)
    made = CliRunner().invoke(app, ["status", str(out)])
    assert made.exit_code == 2
    assert "Permission denied; give this account access to it" in " ".join(made.output.split())


def test_a_job_that_could_not_be_ranked_has_no_failed_seeds(out):
    line = {"job": "a", "seed": None, "stage": "rank"}
    (out / "protenix-ms" / "failures.jsonl").write_text(json.dumps(line) + "\n")
    assert read_status(out)["jobs"][0] == {
        "job": "a",
        "asked": 6,
        "done": 1,
        "running": 0,
        "failed": 0,
        "skipped": 0,
        "left": 5,
    }


def write_record(out, run, **content):
    (out / "protenix-ms" / "runs" / f"{run}.json").write_text(json.dumps({"jobs": [], **content}))


def test_seeds_skipped_by_early_stopping_are_not_left(out):
    """Regression: they were shown as left, although the run was over and had done all that it should."""
    jobs = [{"name": "a", "seeds": [1, 2, 3, 4, 5, 6]}]
    write_record(out, "run2", jobs=jobs, stopped_when_stable={"a": {"seeds_not_run": [4, 5, 6]}})
    a = read_status(out)["jobs"][0]
    assert a == {"job": "a", "asked": 6, "done": 1, "running": 0, "failed": 0, "skipped": 3, "left": 2}
    text = " ".join(CliRunner().invoke(app, ["status", str(out)]).stdout.split())
    assert "a 6 1 0 0 3 2" in text
    assert "skipped: the last seeds of the job did not improve its best score (--stop-when-stable)" in text
    write_record(out, "run3", jobs=[{"name": "a", "seeds": [4]}])  # a later run that was asked for one of them
    assert read_status(out)["jobs"][0]["skipped"] == 2


def lines_of_runs(out):
    text = CliRunner().invoke(app, ["status", str(out)]).stdout
    return [line for line in text.splitlines() if re.match(r"\w+: run\d", line)]


def test_a_run_that_a_second_signal_ended_was_stopped_and_not_killed(out, running):
    """Regression: it was called killed, also after another run had done its seeds."""
    running.stdin.write("stop\n")
    running.stdin.flush()
    assert running.stdout.readline() == "skipped\n"
    assert lines_of_runs(out)[0].startswith("stopping: run1, 1 seed in")
    running.kill()
    running.wait()
    assert [run["is_stopping"] for run in read_status(out)["runs"]] == [True]
    assert lines_of_runs(out)[0].startswith("stopped: run1, 1 seed in")
    for seed in (4, 5):  # 2 and b have failed, and 6 was skipped
        (out / "a" / f"seed_{seed}").mkdir(exist_ok=True)
        (out / "a" / f"seed_{seed}" / "record.json").write_text("{}")
    assert read_status(out)["total"]["left"] == 1
    assert lines_of_runs(out) == []  # run0 was asked for the last seed, run1 was not


def test_a_run_that_one_signal_stopped_is_named_until_its_seeds_are_done(out):
    """Regression: nothing said why seeds were left."""
    jobs = [{"name": "b", "seeds": [1]}, {"name": "a", "seeds": [1, 3]}]
    write_record(out, "run2", jobs=jobs, stopped_by="SIGINT", seconds=37.2, units={"done": 1})
    assert lines_of_runs(out) == ["stopped: run2, 1 seed in 37 s"]
    (out / "a" / "seed_3").mkdir()
    (out / "a" / "seed_3" / "record.json").write_text("{}")
    assert lines_of_runs(out) == []


def test_only_the_seeds_of_a_failure_have_failed(out):
    """Regression: a part of a job that failed made every unfinished seed of the job a failed one."""
    job = job_of(name="a", seeds=range(1, 7))
    with locks.Locks(out) as held:
        progress = Progress(out, "run2", held)
        progress._written = float("-inf")
        progress.see(Failure(job=replace(job, seeds=(2, 3)), seed=None, stage="featurize", message="killed"))
    write_record(out, "run2", jobs=[{"name": "a", "seeds": [1, 2, 3, 4, 5, 6]}])
    assert read_status(out)["jobs"][0] == {
        "job": "a", "asked": 6, "done": 1, "running": 0, "failed": 2, "skipped": 0, "left": 3
    }  # fmt: skip
    write_record(out, "run3", jobs=[{"name": "a", "seeds": [3]}])  # tries again what a killed run has failed
    assert read_status(out)["jobs"][0]["failed"] == 1


def test_json_is_the_whole_state(out):
    printed = CliRunner().invoke(app, ["status", str(out), "--json"]).stdout
    assert json.loads(printed) == read_status(out)


def test_a_folder_that_is_no_output_folder_is_refused_and_stays_empty(tmp_path):
    done = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert done.exit_code == 2
    assert "no run has written here" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_a_job_counts_only_the_seeds_that_its_run_asked_for(out):
    line = {"job": "a", "seed": None, "seeds": [2, 3], "stage": "featurize"}
    (out / "protenix-ms" / "failures.jsonl").write_text(json.dumps(line) + "\n")
    assert {key: read_status(out)["jobs"][0][key] for key in ("done", "failed", "left")} == {
        "done": 1, "failed": 2, "left": 3
    }  # fmt: skip


def test_old_results_that_a_run_with_overwrite_is_to_replace_are_not_done(out):
    """They were counted as done, so failures and what was left were hidden."""
    new, old = {"steps": 20}, {"steps": 200}
    for seed, identity in ((1, old), (2, new), (3, old)):
        (out / "c" / f"seed_{seed}").mkdir(parents=True)
        record = {"fingerprint": "x", "made_from": identity, "files": {"a": {"bytes": 1, "sha256": ""}}}
        (out / "c" / f"seed_{seed}" / "record.json").write_text(json.dumps(record))
    for run, identity in (("run2", old), ("run3", new)):
        content = {"jobs": [{"name": "c", "seeds": [1, 2, 3], "made_from": digest(identity)}]}
        (out / "protenix-ms" / "runs" / f"{run}.json").write_text(json.dumps(content))
    (out / "protenix-ms" / "failures.jsonl").write_text(json.dumps({"job": "c", "seed": 3, "stage": "write"}) + "\n")
    assert read_status(out)["jobs"][2] == {
        "job": "c", "asked": 3, "done": 1, "running": 0, "failed": 1, "skipped": 0, "left": 1
    }  # fmt: skip
