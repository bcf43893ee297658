"""Runs that rank the same jobs in one folder at the same time."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from support.command import environment
from support.jobs import job_of, task_of
from support.predictions import prediction

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.settings import WriteSettings
from protenix_multiseed.types import Failure

# A run whose tasks are the jobs of its arguments. It writes the last seed of one of them, which is then ranked in a
# worker, and goes on until its standard input ends. At its end it prints the seeds of each job's ranking.
RUN = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.events import Written
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.types import Job, Task
out, first, *names = sys.argv[1:]
jobs = {name: Job(name=name, seeds=(1,), source=Path("in.json"), index=0, spec=None) for name in names}
tasks = [Task(job=job, identity={}, todo=job.seeds) for job in jobs.values()]
result, config = RunResult.begin(tasks), load_config({"model": "demo", "out": Path(out)})
with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as workers:
    with OutputFolder(config, tasks, workers, lambda event: None, result) as folder:
        folder.take(Written(job=jobs[first], seed=1, scores=(0.5,), seconds=1.0))
        if first in folder._rankings:
            folder._rankings[first].result()
        print("ranked", flush=True)
        sys.stdin.read()
seeds = {name: sorted(one.seeds) for name, one in result.rankings.items()}
print(json.dumps([seeds, [failed.message for failed in result.failures]]), flush=True)
"""


@pytest.fixture
def out(tmp_path, prepared_dictionary):
    for name in ("x", "y"):
        write_seed(tmp_path / "out", name, 1)
    return tmp_path / "out"


def write_seed(out, name, seed):
    write_prediction(prediction(name=name, seed=seed, scores=(seed / 10,)), WriteSettings(out=out), {})


@pytest.fixture
def begin(out):
    """Starts a run, and returns when its first job is ranked."""
    started = []

    def start(*names):
        command = [sys.executable, "-c", RUN, str(out), *names]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
        )
        started.append(process)
        assert process.stdout.readline() == "ranked\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its worker
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def end(process):
    """Let a run end. Returns the seeds that it has ranked, and its failures."""
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(text)


def ranked(out, name):
    with (out / name / "ranking.csv").open() as file:
        return sorted(row["seed"] for row in csv.DictReader(file))


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_a_run_does_not_wait_for_another_one_that_has_ranked_the_job(out, begin, first_to_end):
    """Regression: a run kept the lock of each job that it had ranked until its own end, hours later."""
    runs = [begin("x", "x", "y"), begin("x", "x")]
    write_seed(out, "x", 2)  # by a third one
    assert end(runs.pop(first_to_end))[0]["x"] == [1, 2]
    assert ranked(out, "x") == ["1", "2"]
    write_seed(out, "x", 3)
    assert end(runs.pop())[0]["x"] == [1, 2, 3]
    assert ranked(out, "x") == ["1", "2", "3"]


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_runs_with_jobs_in_another_order_do_not_wait_in_a_circle(out, begin, first_to_end):
    """Regression: each waited for the job that the other one had ranked, and one ended with an error."""
    runs = [begin("x", "y", "x"), begin("y", "x", "y")]
    runs[first_to_end].stdin.close()
    runs[1 - first_to_end].stdin.close()
    for run in runs:
        run.stdin = None
        assert end(run) == [{"x": [1], "y": [1]}, []]


HOLD = """
import sys
from pathlib import Path
from protenix_multiseed.outputs.locks import Locks
locks = Locks(Path(sys.argv[1]))
print([locks.take(name) for name in sys.argv[2:]], flush=True)
sys.stdin.read()
"""


class Workers:
    """Runs a task at once, in this process."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(None)  # another process was ranking the job
        return future


def test_a_run_that_is_asked_to_stop_does_not_wait_for_a_lock_and_records_its_failures(out):
    """Regression: the first signal did not end the wait, and the failures were not written before it."""
    jobs = [job_of(name=name, seeds=(1, 2)) for name in ("x", "y")]
    tasks = [task_of(job, todo=(2,)) for job in jobs]
    list_of_failures, seen = out / "protenix-ms" / "failures.jsonl", []

    def should_stop():
        seen.append([json.loads(line)["message"] for line in list_of_failures.read_text().splitlines()])
        return len(seen) == 3

    command = [sys.executable, "-c", HOLD, str(out), "ranking:x"]
    result, config = RunResult.begin(tasks), load_config({"model": "demo", "out": out})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "[True]\n"
        with OutputFolder(config, tasks, Workers(), lambda event: None, result, should_stop) as folder:
            for job in jobs:
                folder.take(Failure(job=job, seed=2, stage="predict", message=f"{job.name} is broken"))
        holder.communicate()
    assert seen == [["x is broken", "y is broken"]] * 3
    assert list(result.rankings) == ["y"]
    *_, last = [json.loads(line) for line in list_of_failures.read_text().splitlines()]
    assert (last["job"], last["seed"], last["stage"]) == ("x", None, "rank")
    assert "could not be ranked" in last["message"]
    assert "another process holds a lock, and this run was asked to stop" in last["message"]
    assert "wait until the other process has ended" in last["try"]


def test_a_worker_ranks_no_job_that_another_process_is_ranking(out):
    from protenix_multiseed.outputs.ranking import rank_in_worker

    command = [sys.executable, "-c", HOLD, str(out), "ranking:x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "[True]\n"
        assert rank_in_worker(out, "x", {}) is None
        assert rank_in_worker(out, "y", {}) is not None
        holder.communicate()
    assert rank_in_worker(out, "x", {}) is not None
    with Locks(out) as locks:
        assert locks.take("ranking:x")


def test_a_seed_that_is_spoiled_during_the_run_is_named(out):
    """Regression: the ranking lacked it, and nothing said so."""
    write_seed(out, "x", 2)
    write_seed(out, "x", 3)
    write_seed(out, "x", 4)
    job = job_of(name="x", seeds=(1, 2, 3))
    task = task_of(job, todo=())
    result, config = RunResult.begin([task]), load_config({"model": "demo", "out": out})
    with OutputFolder(config, [task], Workers(), lambda event: None, result):
        (structure,) = (out / "x" / "seed_1" / "predictions").glob("*.cif")
        structure.write_text("half of it")
        (out / "x" / "seed_2" / "record.json").unlink()
        (out / "x" / "seed_4" / "record.json").unlink()  # not asked for
    assert {(failed.seed, failed.stage) for failed in result.failures} == {(1, "rank"), (2, "rank")}
    assert {failed.message.partition(":")[0] for failed in result.failures} == {"left out of the ranking"}
    assert result.exit_code == 1
    assert result.rankings["x"].seeds == {3}


@pytest.mark.parametrize(("n_kept", "kept"), [(0, []), (1, ["x"]), (50, ["x", "y"])])
def test_findings_are_kept_of_the_first_jobs_only(out, monkeypatch, n_kept, kept):
    """Regression: a run with 100,000 jobs held all of them in memory until its end."""
    monkeypatch.setattr("protenix_multiseed.run.folder.MAX_SHOWN", n_kept)
    tasks = [task_of(job_of(name=name), todo=()) for name in ("x", "y")]
    result, config = RunResult.begin(tasks), load_config({"model": "demo", "out": out})
    with OutputFolder(config, tasks, Workers(), lambda event: None, result):
        pass
    assert list(result.rankings) == ["x", "y"]
    assert [name for name, one in result.rankings.items() if one.findings is not None] == kept
    assert result.summary()["samples"] == 2
    assert [line.split(",")[0] for line in (out / "summary.csv").read_text().splitlines()] == ["job", "x", "y"]


@pytest.mark.parametrize("n_job", [3, 5])
def test_workers_rank_the_jobs_that_were_done_before_if_there_are_many(
    tmp_path, prepared_dictionary, monkeypatch, n_job
):
    monkeypatch.setattr("protenix_multiseed.run.folder._MANY_JOBS", 4)
    out, submitted = tmp_path / "out", []
    for number in range(n_job):
        write_seed(out, f"job{number}", 1)

    def submit(function, *arguments):
        submitted.append(arguments[1])
        future = Future()
        future.set_result(function(*arguments))
        return future

    tasks = [task_of(job_of(name=f"job{number}", seeds=(1,)), todo=()) for number in range(n_job)]
    result, config = RunResult.begin(tasks), load_config({"model": "demo", "out": out})
    with OutputFolder(config, tasks, SimpleNamespace(submit=submit), lambda event: None, result):
        pass
    names = [task.job.name for task in tasks]
    assert submitted == (names if n_job == 5 else [])
    assert list(result.rankings) == names
    assert not result.failures
    assert ranked(out, "job2") == ["1"]
