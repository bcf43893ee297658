"""CPU workers: processes that featurize jobs for the executor in advance, and write its results."""

import importlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from protenix_multiseed.analysis.findings import NEEDED
from protenix_multiseed.errors import FeaturizationError
from protenix_multiseed.failures import failure_of, is_worker_death
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Failure, Features, Job

if TYPE_CHECKING:
    from pebble import ProcessPool

    from protenix_multiseed.features.processes import WorkerContext

AHEAD = 2  # jobs submitted beyond one per worker: enough that the executor does not wait, few enough for memory
MAX_TRIES = 3  # of a job whose worker is killed: memory that ran out is often another task's fault
POLL_SECONDS = 0.1
# What the workers' server imports.
NO_NETWORK = "protenix_multiseed.features.no_network"
AHEAD_OF_JOBS = "protenix_multiseed.features.ahead"


class WorkerPool:
    """A pool of worker processes. If a worker is killed, a new one replaces it; other tasks go on.

    The workers start when the first task is submitted, which waits for their imports. Any thread may submit tasks.
    Results travel through pipes. The pool needs two semaphores in ``/dev/shm``.

    Args:
        workers: Number of worker processes.
        offline: Whether to keep the workers off the network.
        only_rank: Whether the only tasks are rankings, which need neither torch nor upstream.
    """

    def __init__(self, workers: int, *, offline: bool = False, only_rank: bool = False) -> None:
        self._workers = workers
        self._modules = (*([NO_NETWORK] if offline else ()), *(() if only_rank else [AHEAD_OF_JOBS]), *NEEDED)
        self._lock = threading.Lock()  # guards all attributes below
        self._has_left, self._takes_jobs = False, True
        self._given: list[Any] = []  # futures that somebody may wait for
        self._ahead: list[Any] = []  # the futures of features
        self._pool: ProcessPool | None = None
        self._context: WorkerContext | None = None  # of the pool, and of pools before it that broke

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the workers at once. The caller has all its results, or does not want them any more.

        It is safe to leave again.
        """
        with self._lock:
            self._has_left = True
            pool, context, given = self._pool, self._context, list(self._given)
        if context is None:
            return
        context.end(pool)
        for future in given:  # the pool may leave futures unfinished; a thread that waits for one would never end
            future.cancel()

    def limit(self, workers: int) -> None:
        """Start at most this many workers. Call it before the first task is submitted."""
        self._workers = min(self._workers, workers)

    def start(self) -> None:
        """Begin the imports of the workers, which take seconds, before there is a task. Does not wait for them.

        Raises:
            ConfigError: if the workers cannot be started.
            RuntimeError: if they have ended.
        """
        with self._lock:
            self._begin()

    def drop_features(self) -> None:
        """Cancel all featurization, waiting or running, so that the workers only write results."""
        with self._lock:
            self._takes_jobs = False
            ahead = list(self._ahead)
        for future in ahead:
            future.cancel()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in a worker. Returns a future, whose ``result()`` returns the value or raises the error.

        That the workers cannot be started, for example for lack of memory, is such an error too.
        """
        with self._lock:
            self._given = [future for future in self._given if not future.done()]
            try:
                future = self._schedule(function, arguments)
            except Exception as error:
                broken: Future[Any] = Future()
                text = f"the worker processes cannot continue ({error}); run the command again"
                broken.set_exception(FeaturizationError(text) if isinstance(error, RuntimeError) else error)
                return broken
            self._given.append(future)
            return future

    def featurize(
        self, jobs: Iterable[Job], settings: FeatureSettings, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[list[Features | Failure]]:
        """Yield the features and failures of each job, in the order of the jobs. See :meth:`stream`."""
        return (made for made in self.stream(jobs, settings, should_stop) if made is not None)

    def stream(
        self,
        jobs: Iterable[Job],
        settings: FeatureSettings,
        should_stop: Callable[[], bool],
        more: Callable[[Job], int] = lambda job: 0,
    ) -> Iterator[list[Features | Failure] | None]:
        """Yield the features and failures of each job, in the order of the jobs; None while the next are not ready.

        The workers start at once, before the caller asks for the first result.

        Args:
            jobs: Jobs to featurize.
            settings: Settings of featurization.
            should_stop: Called while the generator waits for a result. Once it returns True, the generator ends.
            more: How many more jobs than usual may be featurized in advance, if this one was the last to be begun.
        """
        waiting: deque[Featurization] = deque()
        coming = iter(jobs)

        def has_room() -> bool:
            return len(waiting) < self._workers + AHEAD + (more(waiting[-1].job) if waiting else 0)

        def fill() -> None:
            while has_room() and self._takes_jobs and (job := next(coming, None)) is not None:
                waiting.append(self.begin(job, settings))

        def gather() -> Iterator[list[Features | Failure] | None]:
            while waiting:
                if not waiting[0].is_ready():
                    if should_stop():
                        return
                    yield None
                    continue
                made = waiting.popleft().result()
                fill()
                yield made

        fill()
        return gather()

    def begin(self, job: Job, settings: FeatureSettings) -> "Featurization":
        """Start to featurize a job."""
        return Featurization(self, job, settings)

    def practise(self, job: Job, settings: FeatureSettings) -> None:
        """Featurize a job in a worker for nothing: the workers start, and the cache has what needs no seed."""
        self.submit(_practise, job, settings)

    def submit_features(self, job: Job, settings: FeatureSettings) -> Any:
        """Featurize a job in a worker. Returns a future, which is cancelled after :meth:`drop_features`."""
        future = self.submit(_featurize, job, settings)
        with self._lock:
            self._ahead = [*(one for one in self._ahead if not one.done()), future]
            is_late = not self._takes_jobs
        if is_late:
            future.cancel()
        return future

    def _schedule(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Give a task to the pool. If a killed idle worker has broken the whole pool, start a new pool."""
        from protenix_multiseed.features.processes import shielded  # imported late, like pebble, which it starts

        with shielded():  # the first task of a pool starts its workers
            if self._pool is None:
                self._pool = self._start()
            try:
                return self._pool.schedule(function, args=arguments)
            except RuntimeError:
                if self._has_left:
                    raise
                self._pool = self._start()
                return self._pool.schedule(function, args=arguments)

    def _begin(self) -> "WorkerContext":
        from protenix_multiseed.features.processes import WorkerContext  # late: a run with nothing to do needs it not

        if self._has_left:
            raise RuntimeError("the workers have ended")
        if self._context is None:
            self._context = WorkerContext(self._modules)
        self._context.begin()
        return self._context

    def _start(self) -> "ProcessPool":
        from pebble import ProcessPool

        return ProcessPool(
            max_workers=self._workers,
            context=self._begin(),
            initializer=_start_worker,
            initargs=(self._modules,),
        )


class Featurization:
    """The features of one job, which a worker makes. If the worker is killed, another one tries again.

    Attributes:
        job: The job.
    """

    def __init__(self, workers: WorkerPool, job: Job, settings: FeatureSettings) -> None:
        self.job, self._workers, self._settings = job, workers, settings
        self._n_try = 0
        self._begin()

    def is_ready(self) -> bool:
        """Return whether the result has come. Waits a short time for it."""
        if not self._future.done():  # wait() alone is not enough: it does not notice a cancelled future
            wait([self._future], timeout=POLL_SECONDS)
        if not self._future.done():
            return False
        if self._future.cancelled() or self._n_try == MAX_TRIES or not is_worker_death(self._future.exception()):
            return True
        self._begin()
        return False

    def result(self) -> list[Features | Failure]:
        """Return the features, and why some are missing. Call it when :meth:`is_ready`."""
        try:
            made: list[Features | Failure] = self._future.result()
        except Exception as error:
            return [failure_of(self.job, None, "featurize", error)]
        return made

    def _begin(self) -> None:
        self._n_try += 1
        self._future = self._workers.submit_features(self.job, self._settings)


def _start_worker(modules: Sequence[str]) -> None:
    """Ignore signals, open the dictionary, and import what the server could not import."""
    from protenix_multiseed.features.processes import SETUP

    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal or a batch system sends these to all processes
        signal.signal(number, signal.SIG_IGN)
    for name in (SETUP, *modules):
        importlib.import_module(name)
    if AHEAD_OF_JOBS in modules:
        from protenix_multiseed.upstream.dictionary import find_dictionary
        from protenix_multiseed.upstream.environment import prepare

        prepare(find_dictionary())


def _practise(job: Job, settings: FeatureSettings) -> None:
    _featurize(job, settings)  # nothing is returned, because it would be sent and kept


def _featurize(job: Job, settings: FeatureSettings) -> list[Features | Failure]:
    from protenix_multiseed.features.featurize import featurize

    return featurize(job, settings)
