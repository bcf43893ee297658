"""The output folder of a run: claim units of work, write results and rank jobs in the CPU workers.

A unit of work is one seed of one job.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from types import TracebackType
from typing import Any, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.events import Event, Note, OutputOpened, Skipped, StageEntered, Watcher, Written
from protenix_multiseed.execution.writing import PendingWrite
from protenix_multiseed.failures import advice_for, failure_of, reason_of
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.limits import MAX_SEEDS_PER_BATCH, SHARED_BATCH_MAX_TOKENS
from protenix_multiseed.outputs.claims import Claims
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.progress import Progress
from protenix_multiseed.outputs.ranking import rank_in_worker, rank_job, ranking_lock
from protenix_multiseed.outputs.record import RunRecord, write_failures
from protenix_multiseed.outputs.seed_files import seed_folders
from protenix_multiseed.outputs.summary import write_summary
from protenix_multiseed.paths import SUMMARY
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Failure, Job, Prediction, Task
from protenix_multiseed.units import counted
from protenix_multiseed.upstream.dictionary import find_dictionary

POLL_SECONDS = 1.0
MAX_SHOWN = 50  # jobs whose findings are kept, so that they can be shown
_MANY_JOBS = 200  # with more jobs to rank, the start of workers, which takes seconds, pays


class OutputFolder:
    """The output folder of a run, as a context manager.

    A run writes nothing to the output folder before it makes this object. A job is ranked
    when its last seed is written. On leaving the context, all predictions are written and all jobs are ranked.

    Args:
        tasks: All tasks of the run, done or not.
        workers: CPU workers, which write the predictions.
        tell: Receives failures, skipped seeds and stages.
        result: The result of the run, updated during the run.
        should_stop: If it returns True, the run no longer waits for locks that other processes hold.

    Attributes:
        is_full: Whether the disk takes no more files, as a write that failed has shown.
    """

    def __init__(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        workers: WorkerPool,
        tell: Watcher,
        result: RunResult,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config, self._tasks, self._workers, self._tell = config, tasks, workers, tell
        self._result = result
        self._identities = {task.job.name: task.identity for task in tasks}
        self._settings = config.write_settings
        self._max_pending = 2 * (config.workers or 1)
        self._pending: deque[PendingWrite] = deque()
        self._outcomes: deque[Written | Failure] = deque()
        self._open = {task.job.name: len(task.todo) for task in tasks}  # seeds that are neither written nor given up
        self._open_lock = threading.Lock()  # an executor may claim seeds, and so fail or skip them, in another thread
        self._rankings: dict[str, Any] = {}  # the futures of jobs that are being ranked
        self._shown = {task.job.name for task in tasks[:MAX_SHOWN]}
        self.is_full = False
        self._record: RunRecord | None = None
        self._progress: Progress | None = None
        self._locks = Locks(config.out, should_stop)
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
        self._progress = Progress(self._config.out, self._record.name, self._locks)
        self._tell(OutputOpened())

    def note(self, event: Event) -> None:
        """Add an event to the run's progress, which ``protenix-ms status`` shows."""
        if self._progress is not None:
            self._progress.see(event)

    def take(self, event: Event) -> None:
        """Write a prediction in the background, or record that a seed is written or failed. Ignore other events."""
        self.note(event)
        self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Failure):
            self._fail(event)
        elif isinstance(event, Written):
            self._outcomes.append(event)
            self._result.n_done += 1
            self._claims.give_back(event.job, event.seed)
            self._close(event.job, 1)
        elif isinstance(event, Prediction):
            identity = self._identities[event.job.name]
            self._pending.append(PendingWrite(self._workers, event, self._settings, identity))
            # Small predictions of two batches may wait, so that a batch does not stop the device at its end.
            more = 2 * MAX_SEEDS_PER_BATCH if event.job.n_token <= SHARED_BATCH_MAX_TOKENS else 0
            while len(self._pending) > self._max_pending + more:  # the workers write too slowly: wait for them
                self._wait_for_oldest()

    def outcomes(self) -> Iterator[Written | Failure]:
        """Yield the seeds that are written by now, and the failures, each once."""
        while self._pending and self._pending[0].is_over:
            self._wait_for_oldest()
        while self._outcomes:
            yield self._outcomes.popleft()

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
        for seed in seeds:
            self._claims.give_back(job, seed)
        event = Skipped(job=job, seeds=tuple(seeds))
        self.note(event)
        self._tell(event)
        self._close(job, len(seeds))

    def settle(self) -> None:
        """Wait until all predictions are written."""
        while self._pending:
            self._wait_for_oldest()

    def released(self, signals: Signals) -> list[Task]:
        """Wait for seeds that other processes have claimed. Return tasks with the seeds that they did not finish."""
        if self._claims.elsewhere:
            text = f"waiting for {counted(self._claims.elsewhere, 'seed')} that other processes are predicting"
            self._tell(StageEntered(text=text))
        return self._claims.released(lambda: signals.pause(POLL_SECONDS))

    def _fail(self, failed: Failure) -> None:
        self._add_failure(failed)
        if failed.seed is not None:
            self._claims.give_back(failed.job, failed.seed)
        self._close(failed.job, len(failed.seeds))

    def _close(self, job: Job, count: int) -> None:
        """Count seeds that are written or given up. After the last one, rank the job in a worker."""
        with self._open_lock:
            self._open[job.name] -= count
            is_last = self._open[job.name] == 0
        if is_last:
            self._begin_ranking(job.name)

    def _begin_ranking(self, name: str) -> None:
        rank = partial(rank_in_worker, whole=name in self._shown)
        self._rankings[name] = self._workers.submit(rank, self._config.out, name, self._identities[name])

    def _wait_for_oldest(self) -> None:
        """Wait until the oldest pending prediction is written, and record the outcome."""
        outcome = self._pending.popleft().outcome()
        if isinstance(outcome, Failure):
            self._tell(outcome)
            self.take(outcome)
        else:
            self._take(outcome)  # its prediction was counted as progress already

    def _conclude(self) -> None:
        """Rank each job that is not ranked yet, and update the list of failures and the run's record.

        Other processes may do the same at the same time. The last one to rank a job sees all its seeds.
        """
        result = self._result
        result.n_elsewhere = self._claims.n_done_elsewhere
        if result.failures:  # first, because ranking many jobs takes long, and the process may be killed meanwhile
            self._write_failures(set())
        if self._record is not None:
            self._tell(StageEntered(text="ranking"))
        # Jobs that were done before, or that other processes have finished.
        unranked = [task.job.name for task in self._tasks if task.job.name not in self._rankings]
        for name in unranked if len(unranked) > _MANY_JOBS else ():
            self._begin_ranking(name)
        for task in self._tasks:
            try:
                self._rank(task)
            except Exception as error:  # this job fails; the other jobs are still ranked
                self._fail_ranking(task.job, None, error)
        try:
            with self._locks.held("summary"):
                write_summary(self._config.out, {name: one.row for name, one in result.rankings.items() if one.row})
        except OSError as error:
            result.unwritten.append(SUMMARY)
            self._tell(Note(job=None, text=f"{SUMMARY} could not be written: {reason_of(error)}; {advice_for(error)}"))
        self._write_failures(set(result.ranked))
        if self._record is not None:
            self._record.finish(result.summary())
        if self._progress is not None:
            self._progress.end()

    def _write_failures(self, done: Set[tuple[str, int]]) -> None:
        """Update the list of failures. See :func:`protenix_multiseed.outputs.record.write_failures`.

        On a full disk the list is not updated. The terminal and the exit code still report the failures.
        """
        with contextlib.suppress(OSError), self._locks.held("failures"):
            write_failures(self._config.out, self._result.failures, done)

    def _rank(self, task: Task) -> None:
        """Rank a job over all its seeds that are done. A damaged seed is left out and reported."""
        result, name, out = self._result, task.job.name, self._config.out
        made = None
        if name in self._rankings:
            with contextlib.suppress(Exception):  # the worker was killed, or found an error that is found again here
                made = self._rankings.pop(name).result()
        # Other processes may add seeds.
        if made is None or made.seen != seed_folders(out / name, out).keys():
            with self._locks.held(ranking_lock(name)):
                made = rank_job(out, name, task.identity, whole=name in self._shown)
        done_before = set(task.job.seeds).difference(task.todo)
        spoiled = {seed: error for seed, error in made.others.items() if seed in done_before}
        for seed, error in {**spoiled, **made.damaged}.items():
            self._fail_ranking(task.job, seed, error)
        if made.row is not None:
            result.rankings[name] = made

    def _fail_ranking(self, job: Job, seed: int | None, error: Exception) -> None:
        failed = failure_of(job, seed, "rank", error)
        self._tell(failed)
        self._add_failure(failed)

    def _add_failure(self, failed: Failure) -> None:
        if failed.ends_run and not self.is_full:
            self.is_full = True
            text = f"no more seeds begin, because nothing can be written ({failed.message}); {failed.advice}"
            self._tell(Note(job=None, text=text))
        self._result.failures.append(failed)
        self._outcomes.append(failed)
