"""The output folder of a run: claim units of work, write results in the CPU workers, rank the jobs at the end.

A unit of work is one seed of one job.
"""

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.events import Event, OutputOpened, Skipped, StageEntered, Watcher
from protenix_multiseed.failures import failure_of, is_worker_death
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.outputs.claims import Claims
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.ranking import read_seeds
from protenix_multiseed.outputs.record import RunRecord, write_failures
from protenix_multiseed.outputs.scan import done_seeds
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Failure, Job, Prediction, Task
from protenix_multiseed.upstream.dictionary import find_dictionary

POLL_SECONDS = 1.0
MAX_WRITES = 3  # attempts to write a prediction if its worker is killed


class OutputFolder:
    """The output folder of a run, as a context manager.

    A run writes nothing to the output folder before it makes this object. On leaving the context, all predictions are
    written and all jobs are ranked.

    Args:
        tasks: All tasks of the run, done or not.
        workers: CPU workers, which write the predictions.
        tell: Receives failures, skipped seeds and stages.
        result: The result of the run, updated during the run.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[Task], workers: WorkerPool, tell: Watcher, result: RunResult
    ) -> None:
        self._config, self._tasks, self._workers, self._tell = config, tasks, workers, tell
        self._result = result
        self._identities = {task.job.name: task.identity for task in tasks}
        self._settings = config.write_settings
        self._max_pending = 2 * (config.workers or 1)
        self._pending: deque[tuple[Prediction, Any]] = deque()
        self._record: RunRecord | None = None
        self._locks = Locks(config.out)
        self._claims = Claims(self._locks, tasks, config.folder_settings)

    def __enter__(self) -> Self:
        self._claims.delete_others()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.settle()
            self._conclude()
        finally:
            self._locks.__exit__(kind, error, trace)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write the first version of the run's record.

        Args:
            facts: Facts from the executor about the device, the kernels and the weights.

        Raises:
            ConfigError: if the output folder cannot be written.
        """
        self._record = RunRecord(self._config, self._tasks, facts, find_dictionary().name, self._locks)
        self._record.begin()
        self._tell(OutputOpened())

    def take(self, event: Event) -> None:
        """Write a prediction in the background, or record a failure. Ignore all other events."""
        if isinstance(event, Failure):
            self._fail(event)
        elif isinstance(event, Prediction):
            self._pending.append((event, self._write(event)))
            while len(self._pending) > self._max_pending:  # the workers write too slowly: wait for them
                self._wait_for_oldest()

    def claim(self, job: Job, seeds: Sequence[int]) -> list[int]:
        """Claim seeds for this process. Return the seeds that it has to predict."""
        mine, refused = self._claims.claim(job, seeds)
        for failed in refused:
            self._tell(failed)
            self._fail(failed)
        return mine

    def skip(self, job: Job, seeds: Sequence[int]) -> None:
        """Record seeds skipped by early stopping."""
        self._result.skipped.setdefault(job.name, []).extend(seeds)
        self._tell(Skipped(job=job, seeds=tuple(seeds)))

    def settle(self) -> None:
        """Wait until all predictions are written."""
        while self._pending:
            self._wait_for_oldest()

    def released(self, signals: Signals) -> list[Task]:
        """Wait for seeds that other processes have claimed. Return tasks with the seeds that they did not finish."""
        if self._claims.elsewhere:
            text = f"waiting for {self._claims.elsewhere} seeds that other processes are predicting"
            self._tell(StageEntered(text=text))
        return self._claims.released(lambda: signals.pause(POLL_SECONDS))

    def _fail(self, failed: Failure) -> None:
        self._result.failures.append(failed)
        if failed.seed is not None:
            self._claims.give_back(failed.job, failed.seed)

    def _write(self, prediction: Prediction) -> Any:
        identity = self._identities[prediction.job.name]
        return self._workers.submit(write_prediction, prediction, self._settings, identity)

    def _wait_for_oldest(self) -> None:
        """Wait until the oldest pending prediction is written, and record the outcome."""
        prediction, future = self._pending.popleft()
        try:
            for again in range(MAX_WRITES):
                try:
                    future.result()
                    break
                except Exception as error:
                    if again + 1 == MAX_WRITES or not is_worker_death(error):
                        raise
                    future = self._write(prediction)
        except Exception as error:
            failed = failure_of(prediction.job, prediction.seed, "write", error)
            self._tell(failed)
            self._fail(failed)
        else:
            self._result.n_done += 1
            self._claims.give_back(prediction.job, prediction.seed)

    def _conclude(self) -> None:
        """Rank each job over all its seeds, and update the list of failures and the run's record.

        Other processes may do the same at the same time. The last one to rank a job sees all its seeds.
        """
        result, out = self._result, self._config.out
        result.n_elsewhere = self._claims.n_done_elsewhere
        if self._record is not None:
            self._tell(StageEntered(text="ranking"))
        for task in self._tasks:
            name = task.job.name
            with self._locks.held(f"ranking:{name}"):
                try:
                    self._rank(task)
                except Exception as error:  # this job fails; the other jobs are still ranked
                    self._fail_ranking(task.job, None, error)
        # On a full disk the list is not updated. The terminal and the exit code still report the failures.
        with self._locks.held("failures"), contextlib.suppress(OSError):
            done = {(sample.job, sample.seed) for samples in result.samples.values() for sample in samples}
            write_failures(out, result.failures, done)
        if self._record is not None:
            self._record.finish(result.summary())

    def _rank(self, task: Task) -> None:
        """Rank a job over all its seeds that are done. A damaged seed is left out and reported."""
        result, out, name = self._result, self._config.out, task.job.name
        seeds = read_seeds(name, done_seeds(out, name, task.identity))
        findings = seeds.rank()
        for seed, error in seeds.damaged.items():
            self._fail_ranking(task.job, seed, error)
        if findings is not None:
            result.samples[name] = list(findings.samples)
            result.findings[name] = findings
            write_findings(out / name, findings)

    def _fail_ranking(self, job: Job, seed: int | None, error: Exception) -> None:
        failed = failure_of(job, seed, "rank", error)
        self._tell(failed)
        self._result.failures.append(failed)
