"""The output folder of a run: claims units, writes results off the executor's path, ranks at the end."""

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from pebble import ProcessExpired

from protenix_multiseed.analysis.findings import gather
from protenix_multiseed.config import RunConfig
from protenix_multiseed.events import Event, OutputOpened, Skipped, StageEntered, Watcher
from protenix_multiseed.failures import failure_of, ranking_failure
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.outputs.claims import Claims
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.record import RunRecord, write_failures
from protenix_multiseed.outputs.scan import done_samples, read_record
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Failure, Job, Prediction, Task
from protenix_multiseed.upstream.dictionary import find_dictionary

POLL_SECONDS = 1.0
MAX_WRITES = 3  # how often a prediction is tried to be written whose worker is killed


class OutputFolder:
    """Opening it is the first thing that a run writes; on leaving, everything done is written and ranked.

    Args:
        tasks: Everything asked for.
        workers: Write predictions.
        tell: Told of failures, skipped seeds and stages.
        result: Brought up to date as the run goes on.
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
        """Begin the run's record.

        Raises:
            ConfigError: if nothing can be written there.
        """
        self._record = RunRecord(self._config, self._tasks, facts, find_dictionary().name, self._locks)
        self._record.begin()
        self._tell(OutputOpened())

    def take(self, event: Event) -> None:
        """Take what the executor made: a prediction is written, a failure recorded. Anything else is ignored."""
        if isinstance(event, Failure):
            self._fail(event)
        elif isinstance(event, Prediction):
            self._pending.append((event, self._write(event)))
            while len(self._pending) > self._max_pending:  # the workers are far behind
                self._gather()

    def claim(self, job: Job, seeds: Sequence[int]) -> list[int]:
        """The seeds that are for this process to do."""
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
        """Wait until everything that was taken is written."""
        while self._pending:
            self._gather()

    def released(self, signals: Signals) -> list[Task]:
        """Wait for other processes that have units of this run in hand; what they let go of is to be done here."""
        if self._claims.elsewhere:
            text = f"waiting for {self._claims.elsewhere} seeds that other processes have in hand"
            self._tell(StageEntered(text=text))
        return self._claims.released(lambda: signals.pause(POLL_SECONDS))

    def _fail(self, failed: Failure) -> None:
        self._result.failures.append(failed)
        if failed.seed is not None:
            self._claims.give_back(failed.job, failed.seed)

    def _write(self, prediction: Prediction) -> Any:
        identity = self._identities[prediction.job.name]
        return self._workers.submit(write_prediction, prediction, self._settings, identity)

    def _gather(self) -> None:
        """Wait for the prediction that was handed over first."""
        prediction, future = self._pending.popleft()
        try:
            for again in range(MAX_WRITES):
                try:
                    future.result()
                    break
                except (ProcessExpired, BrokenProcessPool):  # its worker was killed, or the pool gave up as a whole
                    if again + 1 == MAX_WRITES:
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
        """Rank each job over all its seeds, and bring the list of failures and the record up to date.

        Other processes may do the same: the last to rank has seen everything.
        """
        result, out = self._result, self._config.out
        result.n_elsewhere = self._claims.n_done_elsewhere
        if self._record is not None:
            self._tell(StageEntered(text="ranking"))
        for task in self._tasks:
            name = task.job.name
            with self._locks.held(f"ranking:{name}"):
                try:
                    samples = done_samples(out, name, task.identity)
                    if samples:
                        result.samples[name] = samples
                        folders = {sample.seed: sample.folder for sample in samples}
                        records = {seed: read_record(folder) or {} for seed, folder in folders.items()}
                        result.findings[name] = gather(samples, records)
                        write_findings(out / name, result.findings[name])
                except Exception as error:  # it is this job's own failure; the others are ranked
                    result.failures.append(ranking_failure(task.job, error))
        # On a full disk the list stays as it was; the terminal and the exit code tell of the failures all the same.
        with self._locks.held("failures"), contextlib.suppress(OSError):
            done = {(sample.job, sample.seed) for samples in result.samples.values() for sample in samples}
            write_failures(out, result.failures, done)
        if self._record is not None:
            self._record.finish(result.summary())
