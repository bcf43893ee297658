"""How many predictions wait to be written before the run waits for the workers, and when a job is ranked."""

import contextlib
import threading
from collections import deque
from types import SimpleNamespace

import pytest
from support.jobs import job_of, task_of
from support.predictions import prediction

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.run import folder as module
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.result import RunResult


class SlowWrite:
    """A write that takes until somebody waits for it."""

    is_over = False

    def __init__(self, *arguments):
        pass


@pytest.mark.parametrize(("n_token", "most"), [(150, 4 + 40), (2000, 4)])
def test_predictions_of_two_small_batches_may_wait_but_few_large_ones(monkeypatch, n_token, most):
    monkeypatch.setattr(module, "PendingWrite", SlowWrite)
    made = OutputFolder.__new__(OutputFolder)
    made._progress, made._workers, made._settings, made._max_pending = None, None, None, 4
    made._pending, made._identities, waited = deque(), {"a": {}}, []
    monkeypatch.setattr(made, "_wait_for_oldest", lambda: waited.append(made._pending.popleft()))
    for _ in range(60):
        made.take(prediction(job=job_of(n_token=n_token)))
    assert (len(made._pending), len(waited)) == (most, 60 - most)


class SlowlyRead(dict):
    """Two threads that read a value at the same time both have the old one before one of them writes."""

    both = threading.Barrier(2)

    def __getitem__(self, key):
        value = super().__getitem__(key)
        with contextlib.suppress(threading.BrokenBarrierError):  # the other thread waits for a lock
            self.both.wait(0.5)
        return value


def test_a_job_is_ranked_whose_last_two_seeds_are_given_up_in_two_threads(tmp_path):
    """Regression: both threads counted down from two, the job was never at zero, and only the run's end ranked it."""
    job, submitted = job_of(seeds=(1, 2)), []
    workers = SimpleNamespace(submit=lambda function, *arguments: submitted.append(arguments[1]))
    made = OutputFolder(load_config({"model": "demo", "out": tmp_path}), [task_of(job)], workers, print, RunResult())
    made._open = SlowlyRead(made._open)
    threads = [threading.Thread(target=made.skip, args=(job, (seed,))) for seed in job.seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made._locks.__exit__(None, None, None)
    assert (dict(made._open), submitted) == ({"a": 0}, ["a"])


def test_a_table_of_all_jobs_that_cannot_be_written_is_said_and_shows_in_the_exit_code(tmp_path):
    (tmp_path / "summary.csv").mkdir()
    told, result = [], RunResult()
    with OutputFolder(load_config({"model": "demo", "out": tmp_path}), [], SimpleNamespace(), told.append, result):
        pass
    assert [event.text for event in told] == ["summary.csv could not be written: " + told[0].text.partition(": ")[2]]
    assert "Is a directory" in told[0].text
    assert result.exit_code == 1
