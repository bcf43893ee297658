"""Which seeds may start, and that each seed of a run is counted once: done, failed, skipped or left."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.jobs import job_of, task_of

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.failures import failure_of
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.gate import RunGate
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.types import Failure

JOB = job_of(seeds=(1, 2, 3, 4))


class Workers:
    def submit(self, function, *arguments):
        return SimpleNamespace(result=lambda: function(*arguments))


class Run:
    """A run of one job. Other processes hold the seeds in ``held``, and the job is stable if ``is_stable``."""

    def __init__(self, out):
        self.result, tasks = RunResult.begin([task_of(JOB)]), [task_of(JOB)]
        self.held, self.is_stable, self.is_asked = set(), False, False
        config = load_config({"model": "demo", "out": out})
        self.folder = OutputFolder(config, tasks, Workers(), lambda event: None, self.result)
        locks = SimpleNamespace(take=lambda name: int(name[-1]) not in self.held, give_back=lambda name: None)
        self.folder._claims._locks = locks
        self.gate = RunGate(tasks, self, self.folder, SimpleNamespace(is_stable=lambda job: self.is_stable))

    def released(self):
        tasks = self.folder.released(SimpleNamespace(pause=lambda seconds: False))
        return [seed for task in tasks for seed in task.todo]


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path)
    yield made
    with made.folder:
        pass


def test_seeds_that_failed_together_are_not_skipped_too(run):
    """Regression: early stopping counted them again, and the job was never ranked in a worker."""
    failure = failure_of(replace(JOB, seeds=(3, 4)), None, "featurize", ValueError("no"))
    run.folder.take(failure)
    run.gate.watch(failure)
    assert run.gate.admit(JOB, (1,)) == [1]
    run.result.n_done += 1
    run.is_stable = True
    assert run.gate.admit(JOB, (2,)) == ()
    assert run.result.skipped == {"a": [2]}
    assert run.result.n_left == 0


def test_a_stable_job_skips_a_seed_that_another_process_leaves_undone(run):
    """Regression: the seed was neither done nor skipped, and the run ended with exit code 0 and a seed to do."""
    run.held = {2}
    assert run.gate.admit(JOB, (1, 2)) == [1]
    run.result.n_done += 1
    run.is_stable = True
    assert run.gate.admit(JOB, (3, 4)) == ()
    assert run.result.skipped == {"a": [3, 4]}
    run.held = set()
    assert run.released() == [2]
    assert run.gate.admit(JOB, (2,)) == ()
    assert run.result.skipped == {"a": [3, 4, 2]}
    assert (run.result.n_left, run.result.exit_code) == (0, 0)


def test_a_seed_is_skipped_once_however_often_it_is_asked_for(run):
    assert run.gate.admit(JOB, (1, 2)) == [1, 2]
    run.is_stable = True
    for _ in range(2):
        for seeds in ((1, 2), (3, 4)):  # the executor has lost the seeds 1 and 2
            assert run.gate.admit(JOB, seeds) == ()
    assert sorted(run.result.skipped["a"]) == [1, 2, 3, 4]


def test_a_seed_that_another_process_holds_is_waited_for_once(run):
    run.held = {1}
    for _ in range(3):
        assert run.gate.admit(JOB, (1, 2)) == [2]
    run.is_stable = True
    assert run.gate.admit(JOB, (1,)) == ()
    assert run.folder._claims.elsewhere == 1
    assert run.result.skipped == {"a": [3, 4]}
    run.held = set()
    assert run.gate.admit(JOB, (1,)) == ()
    assert run.folder._claims.elsewhere == 0
    assert run.result.skipped == {"a": [3, 4, 1]}


@pytest.mark.parametrize(("failures", "stopped_by", "n_done", "code"), [
    (0, None, 4, 0), (0, None, 3, 1), (1, None, 3, 1), (0, 143, 3, 143), (1, 143, 2, 143), (1, 143, 3, 1),
    (0, 143, 4, 0),
])  # fmt: skip
def test_the_exit_code_is_0_only_if_all_seeds_are_done(failures, stopped_by, n_done, code):
    failed = [Failure(job=JOB, seed=4, stage="predict", message="no")] * failures
    made = RunResult(n_unit=4, n_done=n_done, failures=failed, stopped_by=stopped_by)
    assert made.exit_code == code


def test_a_stable_job_needs_no_more(run):
    assert not run.gate.needs_no_more(JOB)
    run.is_stable = True
    assert run.gate.needs_no_more(JOB)


def test_nothing_begins_once_the_disk_takes_no_more_files(run):
    """Regression: all seeds were computed and thrown away."""
    assert run.gate.admit(JOB, (1,)) == [1]
    for error in (OSError(5, "Input/output error"), OSError(28, "No space left on device")):
        assert run.gate.admit(JOB, (2,)) == [2]
        run.folder.take(failure_of(JOB, 2, "write", error))
    assert run.gate.is_closed
    assert run.gate.admit(JOB, (3, 4)) == ()
    assert run.result.exit_code == 1
    assert not failure_of(JOB, 2, "predict", OSError(28, "No space left on device")).ends_run


def test_a_seed_that_failed_before_it_was_asked_for_is_not_skipped_too(run):
    """A ligand may have no conformer with one seed, which is then never asked for."""
    failed = failure_of(JOB, 3, "featurize", ValueError("no conformer"))
    run.gate.watch(failed)
    run.folder.take(failed)
    run.is_stable = True
    assert run.gate.admit(JOB, (1, 2)) == ()
    assert run.result.skipped == {"a": [1, 2, 4]}
    assert (run.result.n_left, len(run.result.failures)) == (0, 1)
