"""CPU workers: processes that featurize jobs ahead of the executor and write results behind it."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from pebble import ProcessPool

from protenix_multiseed.errors import FeaturizationError
from protenix_multiseed.failures import failure_of
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Failure, Features, Job

AHEAD = 2  # jobs featurized beyond those in work, so that the executor never waits and memory stays bounded
POLL_SECONDS = 0.1


class WorkerPool:
    """Worker processes that die alone: one that is killed takes down its task, and another takes its place.

    They start when the first task is submitted. Any thread may submit. Results travel through pipes, so ``/dev/shm``
    may be small.
    """

    def __init__(self, workers: int, *, offline: bool = False) -> None:
        self._workers, self._offline = workers, offline
        self._lock = threading.Lock()  # of all that follows
        self._has_left, self._takes_jobs = False, True
        self._given: list[Any] = []  # futures that may be waited for
        self._ahead: list[Any] = []  # futures of features among them
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers at once: who leaves the pool has its results, or wants no more."""
        with self._lock:
            self._has_left = True
            pool, given = self._pool, list(self._given)
        if pool is None:
            return
        pool.stop()
        for worker in multiprocessing.active_children():  # workers ignore SIGTERM
            worker.kill()
        pool.join()
        for future in given:  # the pool may leave some open, and who waits for one would wait for ever
            future.cancel()

    def drop_features(self) -> None:
        """Cancel featurization that waits or is in work, so that writing has the workers to itself."""
        with self._lock:
            self._takes_jobs = False
            ahead = list(self._ahead)
        for future in ahead:
            future.cancel()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in a worker; the future's ``result()`` gives its value or raises."""
        with self._lock:
            self._given = [future for future in self._given if not future.done()]
            try:
                future = self._schedule(function, arguments)
            except RuntimeError as error:
                broken: Future[Any] = Future()
                broken.set_exception(
                    FeaturizationError(f"the worker processes cannot go on ({error}); run the command again")
                )
                return broken
            self._given.append(future)
            return future

    def featurize(
        self, jobs: Iterable[Job], settings: FeatureSettings, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[list[Features] | Failure]:
        """Features of each job, in the order of the jobs, or the failure in their place.

        Work begins at once, before the first result is asked for.

        Args:
            should_stop: Asked while a result is waited for; once it says so, no more results come.
        """
        waiting: deque[tuple[Job, Any]] = deque()
        coming = iter(jobs)

        def fill() -> None:
            while len(waiting) < self._workers + AHEAD and self._takes_jobs and (job := next(coming, None)) is not None:
                waiting.append((job, self.submit(_featurize, job, settings)))
            with self._lock:
                self._ahead = [future for _, future in waiting]

        def gather() -> Iterator[list[Features] | Failure]:
            while waiting:
                job, future = waiting.popleft()
                while not future.done():  # asked of the future itself: wait() overlooks one that is cancelled
                    if should_stop():
                        return
                    wait([future], timeout=POLL_SECONDS)
                try:
                    try:
                        made = future.result()
                    except BrokenProcessPool:  # an idle worker was killed, which did not work at this job
                        made = self.submit(_featurize, job, settings).result()
                except Exception as error:
                    made = failure_of(job, None, "featurize", error)
                fill()
                yield made

        fill()
        return gather()

    def _schedule(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Hand a task to the pool. A pool that has given up as a whole, for a killed idle worker, is replaced."""
        if self._pool is None:
            self._pool = self._start()
        try:
            return self._pool.schedule(function, args=arguments)
        except RuntimeError:
            if self._has_left:
                raise
            self._pool = self._start()
            return self._pool.schedule(function, args=arguments)

    def _start(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._workers,
            context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._offline,),
        )


def _start_worker(offline: bool) -> None:
    """Leave signals and the terminal to the main process, keep to one thread, prepare upstream.

    A worker may write a prediction before it has ever featurized: both need upstream with its dictionary.
    """
    if offline:
        forbid_network()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a terminal or a batch job
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
    for stream in ("stdout", "stderr"):
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115  for the life of the worker
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    import torch

    from protenix_multiseed.upstream import environment
    from protenix_multiseed.upstream.dictionary import find_dictionary

    torch.set_num_threads(1)
    environment.prepare(find_dictionary())
    # Imports that the first job and the first prediction would wait for; an idle worker has time for them now.
    importlib.import_module("protenix_multiseed.features.featurize")
    environment.load_data_dumper()


def _featurize(job: Job, settings: FeatureSettings) -> list[Features]:
    from protenix_multiseed.features.featurize import featurize

    return featurize(job, settings)
