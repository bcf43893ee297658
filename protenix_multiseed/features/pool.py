"""CPU workers: they featurize jobs ahead of the executor and write results behind it."""

import contextlib
import errno
import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from protenix_multiseed.errors import FeaturizationError, ProtenixMsError
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.types import Failure, Features, FeatureSettings, Job

AHEAD = 2  # jobs featurized beyond those in work, so that the executor never waits and memory stays bounded


class WorkerPool:
    """Worker processes that die alone: one that is killed takes down its task, and another takes its place.

    Results travel through pipes, so ``/dev/shm`` may be small.
    """

    def __init__(self, workers: int, *, offline: bool = False) -> None:
        self._workers, self._offline = workers, offline
        self._has_left, self._takes_jobs = False, True
        self._given: list[Any] = []  # futures that may be waited for
        self._ahead: list[Any] = []  # of them, those of features
        self._pool = self._start()

    def _start(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._workers,
            context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._offline,),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers at once: who leaves the pool has what was asked of it, or wants no more."""
        self._has_left = True
        self._pool.stop()
        for worker in multiprocessing.active_children():  # which leave SIGTERM to this process
            worker.kill()
        self._pool.join()
        for future in self._given:  # the pool may leave some open, and who waits for one would wait for ever
            future.cancel()

    def drop_features(self) -> None:
        """Give up jobs that wait to be featurized or are in work, so that writing has the workers to itself."""
        self._takes_jobs = False
        for future in self._ahead:
            future.cancel()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in a worker; the future's ``result()`` gives its value or raises."""
        self._given = [future for future in self._given if not future.done()]
        try:
            try:
                future = self._pool.schedule(function, args=arguments)
            except RuntimeError:  # it gives up as a whole where an idle worker is killed: another takes its place
                if self._has_left:
                    raise
                self._pool = self._start()
                future = self._pool.schedule(function, args=arguments)
        except RuntimeError as error:
            broken: Future[Any] = Future()
            broken.set_exception(
                FeaturizationError(f"the worker processes cannot go on ({error}); run the command again")
            )
            return broken
        self._given.append(future)
        return future

    def featurize(self, jobs: Iterable[Job], settings: FeatureSettings) -> Iterator[list[Features] | Failure]:
        """Features of each job, in the order of the jobs, or the failure that stands in their place."""
        waiting: deque[tuple[Job, Any]] = deque()
        coming = iter(jobs)

        def fill() -> None:
            while len(waiting) < self._workers + AHEAD and self._takes_jobs and (job := next(coming, None)) is not None:
                waiting.append((job, self.submit(_featurize, job, settings)))
            self._ahead = [future for _, future in waiting]

        def gather() -> Iterator[list[Features] | Failure]:
            while waiting:
                job, future = waiting.popleft()
                try:
                    try:
                        made = future.result()
                    except BrokenProcessPool:  # an idle worker was killed, which was not at this job
                        made = self.submit(_featurize, job, settings).result()
                except Exception as error:
                    made = failure(job, None, "featurize", error)
                fill()
                yield made

        fill()  # at once, so that workers start while the caller loads its model
        return gather()


def failure(job: Job, seed: int | None, stage: str, error: BaseException) -> Failure:
    """An exception as the failure of a job, or of one seed of it."""
    again = "then run the same command again: what is done is kept"
    if isinstance(error, ProcessExpired | BrokenProcessPool):
        message = f"the worker process ended (exit code {getattr(error, 'exitcode', 'unknown')})"
        advice = f"if it was killed for memory, use fewer --workers or a machine with more, {again}"
    elif isinstance(error, ProtenixMsError):
        message, advice = str(error), f"mend it, {again}"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message, advice = f"{error.strerror}: {error.filename or 'the output folder'}", f"free some space, {again}"
    elif isinstance(error, OSError) and error.strerror:
        message, advice = f"{error.strerror}: {error.filename or ''}".removesuffix(": "), f"mend it, {again}"
    else:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        advice = "see its traceback in the log; run the same command again, or with --sequential"
    trace = "".join(traceback.format_exception(error))
    return Failure(job=job, seed=seed, stage=stage, message=message, advice=advice, traceback=trace)


def _start_worker(offline: bool) -> None:
    """A worker's first acts: leave signals and the terminal to the main process, keep to one thread, ready upstream.

    A worker may be given a prediction to write before it has ever featurized: both need upstream with its dictionary.
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

    from protenix_multiseed import upstream
    from protenix_multiseed.dictionary import find_dictionary

    torch.set_num_threads(1)
    upstream.prepare(find_dictionary())
    # What its first job and its first prediction would wait for; who sits idle until then has time for it.
    importlib.import_module("protenix_multiseed.features.featurize")
    upstream.load_data_dumper()


def _featurize(job: Job, settings: FeatureSettings) -> list[Features]:
    from protenix_multiseed.features.featurize import featurize

    return featurize(job, settings)
