"""The messages between a GPU's process and the run: none is lost, and a batch begins when the run knows of it."""

import threading
from collections import deque
from queue import SimpleQueue
from types import SimpleNamespace

from support.jobs import job_of, task_of

from protenix_multiseed.events import Written
from protenix_multiseed.execution import gpu_worker as module
from protenix_multiseed.execution.gpu_worker import Closed, GpuWorker, Started
from protenix_multiseed.types import Failure


def worker(*waiting):
    """A worker without a model, that has these seeds of job a."""
    made = GpuWorker.__new__(GpuWorker)
    made._waiting = {("a", seed) for seed in waiting}
    made._messages, made._n_taken, made._changed = deque(), 0, threading.Condition()
    made._told_progress, made.is_closed, made.time_is_up = 0.0, False, False
    return made


def test_a_message_is_kept_until_the_run_has_it_and_says_nothing_of_the_job_but_its_name():
    made = worker()
    job = job_of(seeds=(1, 2))
    for seed in (1, 2):
        made._tell(Written(job=job, seed=seed, scores=(0.5,), seconds=1.0))
    assert [one.seed for one in made.collect(0, 0)] == [1, 2]
    assert [one.seed for one in made.collect(0, 0)] == [1, 2]  # the answer was lost
    (left,) = made.collect(1, 0)
    assert (left.seed, left.job.name, left.job.seeds, left.job.spec.entities) == (2, "a", (1, 2), ())
    assert made.collect(2, 0) == []


def test_seeds_that_have_begun_cannot_be_taken_back_and_seeds_that_were_taken_back_do_not_begin():
    made = worker(1, 2, 3)
    assert made.take_back([("a", [2]), ("b", [2])]) == [[2], []]
    assert made.admit(job_of(), [1, 2]) == (1,)
    assert made.take_back([("a", [1, 2, 3])]) == [[3]]
    assert made.admit(job_of(), [3]) == ()
    assert [(type(one), one.seeds) for one in made.collect(0, 0)] == [(Started, (1,))]


def test_a_batch_begins_when_the_run_has_the_message(monkeypatch):
    monkeypatch.setattr(module, "RECEIVED_SECONDS", 300.0)
    made = worker(1)
    begun = threading.Event()
    thread = threading.Thread(target=lambda: (made.admit(job_of(), [1]), made.wait_until_known(), begun.set()))
    thread.start()
    assert len(made.collect(0, 60)) == 1
    assert not begun.is_set()
    made.collect(1, 0)
    thread.join(60)
    assert begun.is_set()


def test_a_closed_worker_begins_nothing():
    made = worker(1)
    made.is_closed = True
    assert made.admit(job_of(), [1]) == ()


def test_a_seed_that_is_given_alone_shares_no_batch():
    made = worker()
    made._alone, made._identities, made._config = set(), {}, SimpleNamespace(feature_settings=None)
    made._given, made._workers = SimpleQueue(), SimpleNamespace(begin=lambda job, settings: None)
    jobs = [job_of(name=name, seeds=(1, 2)) for name in ("a", "b")]
    made.give([task_of(job) for job in jobs], {("b", 2)})
    features = [SimpleNamespace(job=job, seeds=[SimpleNamespace(seed=seed) for seed in job.seeds]) for job in jobs]
    assert [made._is_alone(one) for one in features] == [False, True]


def test_a_process_whose_device_no_longer_answers_ends_and_fails_no_seed():
    made, job = worker(1, 2), job_of(seeds=(1, 2))
    failed = [Failure(job=job, seed=seed, stage="predict", message="illegal access") for seed in (1, 2)]
    model = SimpleNamespace(lost="CUDA error: an illegal memory access")
    made._executor = SimpleNamespace(model=model, run=lambda *arguments, **named: iter(failed))
    made._n_worker = 1
    made._work()
    (only,) = made.collect(0, 0)
    assert only == Closed("RuntimeError: CUDA error: an illegal memory access")
