"""The process that predicts on one GPU of several. It holds what a run on one GPU holds, but not the output folder.

The run gives it tasks and collects its events. Its methods are called from several threads and answer at once; the
prediction runs in a thread of its own. This module does not import Ray.
"""

import importlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ProtenixMsError, Stopped
from protenix_multiseed.events import BatchProgress, Event, Featurized, Note, StageEntered, Written
from protenix_multiseed.execution.local import LocalExecutor
from protenix_multiseed.execution.plan import Planner
from protenix_multiseed.execution.shared import Shared, differences
from protenix_multiseed.execution.writing import PendingWrite
from protenix_multiseed.failures import reason_of
from protenix_multiseed.features.pool import POLL_SECONDS, Featurization, WorkerPool
from protenix_multiseed.job_spec import JobSpec
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.process import in_background
from protenix_multiseed.types import Failure, Features, Identity, Job, Prediction, Task

PROGRESS_SECONDS = 1.0  # progress of a batch is sent at most this often
BUDGET_BYTES = 2**28  # equal GPUs differ by some MiB in what is free, and shall plan alike
RECEIVED_SECONDS = 0.5  # a batch waits at most this long until the run knows that it begins; usually a few ms
_N_WRITE = 2  # predictions that wait to be written, for each worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A worker that is ready.

    Attributes:
        planner: Plans batches for this GPU.
        budget: Bytes of device memory that a plan may use, a multiple of :data:`BUDGET_BYTES`.
        process: Process number on its host.
        facts: Facts for the run's record: host, device, GPU, driver, kernels, weights.
    """

    planner: Planner
    budget: int
    process: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Started:
    """Seeds of a job go through the model now."""

    job: Job
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything is written, and the worker does nothing more. ``reason`` says why, if nobody asked for it."""

    reason: str = ""


Message = Event | Started | Closed


class GpuWorker:
    """Predicts tasks on one GPU, and writes the results into the output folder.

    Args:
        config: The configuration of the run.
        folder: The working folder of the run, for relative paths.
        gpus: The GPUs that this process may use, as CUDA names them; None: leave the process as it is.
        workers: Number of CPU workers.
    """

    def __init__(self, config: RunConfig, folder: Path, gpus: Sequence[str] | None, workers: int) -> None:
        os.chdir(folder)
        if gpus is not None:  # a batch system, or a setting of Ray, may have left all GPUs visible
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if config.offline:
            forbid_network(loopback=True)
        self._config = config
        self._workers, self._n_worker = WorkerPool(workers, offline=config.offline), workers
        self._workers.start()
        in_background(partial(importlib.import_module, "torch"))  # until the run asks for load()
        self._executor = LocalExecutor(config, self._workers, self._tell)
        self._given: SimpleQueue[Featurization | None] = SimpleQueue()
        self._identities: dict[str, Identity] = {}
        self._waiting: set[tuple[str, int]] = set()  # (job, seed) that may still be taken back
        self._alone: set[tuple[str, int]] = set()  # (job, seed) that must not share a batch with other jobs
        self._messages: deque[Message] = deque()
        self._n_taken = 0  # messages that the run has received
        self._changed = threading.Condition()
        self._told_progress = 0.0
        self.is_closed = self.time_is_up = False

    # Methods that the run calls

    def check(self, expected: Shared) -> list[str]:
        """Return what of this machine differs from the machine of the run, and must not."""
        return differences(expected)

    def load(self, example: Job | None) -> Loaded | str:
        """Load the model and begin to predict what is given. Returns the message of an error that refuses the run.

        Args:
            example: A job that a worker featurizes meanwhile for practice.
        """
        try:
            self._executor.load((), lambda: self.is_closed, example)
        except Stopped:
            return "stopped"
        except ProtenixMsError as error:
            return str(error)
        model = self._executor.model
        threading.Thread(target=self._work, daemon=True, name="gpu").start()
        facts = {"host": socket.gethostname(), **self._executor.facts()}
        budget = model.free_bytes() // BUDGET_BYTES * BUDGET_BYTES
        return Loaded(planner=model.planner, budget=budget, process=os.getpid(), facts=facts)

    def give(self, tasks: Sequence[Task], alone: Collection[tuple[str, int]]) -> None:
        """Take tasks. Their featurization starts at once.

        Args:
            alone: Job and seed that must not share a batch with other jobs.
        """
        self._alone.update(alone)
        for task in tasks:
            job = task.remaining
            self._identities[job.name] = task.identity
            with self._changed:
                self._waiting.update((job.name, seed) for seed in task.todo)
            self._given.put(self._workers.begin(job, self._config.feature_settings))

    def take_back(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[int]]:
        """Give up those of the seeds of these jobs that have not begun. Returns them, for each job."""
        with self._changed:
            free = [[seed for seed in seeds if (job, seed) in self._waiting] for job, seeds in wanted]
            for (job, _), seeds in zip(wanted, free, strict=True):
                self._waiting.difference_update((job, seed) for seed in seeds)
        return free

    def collect(self, n_received: int, seconds: float) -> list[Message]:
        """Return the messages after the first ``n_received`` ones. Wait some seconds if there are none.

        A message is kept until the run says that it has received it, so none is lost if an answer is lost.
        """
        with self._changed:
            while self._n_taken < n_received:
                self._messages.popleft()
                self._n_taken += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._messages, timeout=seconds)
            return list(self._messages)

    def close(self) -> None:
        """Begin no more batches, finish the running one, write everything, then send :class:`Closed`."""
        self.is_closed = True
        self._given.put(None)

    def abandon(self) -> None:
        """Abandon the running batch too."""
        self.time_is_up = True

    # The gate of the executor

    def admit(self, job: Job, seeds: Sequence[int]) -> Sequence[int]:
        """Return the seeds that were not taken back. From now on they cannot be."""
        if self.is_closed:
            return ()
        with self._changed:
            mine = tuple(seed for seed in seeds if (job.name, seed) in self._waiting)
            self._waiting.difference_update((job.name, seed) for seed in mine)
        if mine:
            self._tell(Started(job, mine))
        return mine

    def needs_no_more(self, job: Job) -> bool:
        """The run knows, and takes seeds back."""
        return False

    def wait_until_known(self) -> None:
        """Wait until the run has all messages, so that it knows which seeds to blame if they end this process."""
        with self._changed:
            count = self._n_taken + len(self._messages)
            self._changed.wait_for(lambda: self._n_taken >= count, timeout=RECEIVED_SECONDS)

    # The thread that predicts

    def _work(self) -> None:
        reason = ""
        try:
            with ThreadPoolExecutor(_N_WRITE * self._n_worker, thread_name_prefix="write") as writers:
                room = threading.Semaphore(2 * _N_WRITE * self._n_worker)
                for event in self._executor.run(self._featurized(), self, claims_ahead=False, is_alone=self._is_alone):
                    if isinstance(event, Failure) and (lost := self._executor.model.lost) is not None:
                        raise RuntimeError(lost)  # this process ends, and another one predicts its seeds
                    if isinstance(event, Prediction):
                        room.acquire()  # the workers write too slowly: wait for them
                        writers.submit(self._write, event).add_done_callback(lambda _: room.release())
                    else:
                        self._tell(event)
        except BaseException as error:  # the run must know, whatever it was
            reason = reason_of(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        self._tell(Closed(reason))

    def _featurized(self) -> Iterator[list[Features | Failure] | None]:
        while True:
            try:
                given = self._given.get(timeout=POLL_SECONDS)
            except Empty:
                yield None
                continue
            if given is None:
                return
            while not given.is_ready():
                if self.is_closed:
                    return
                yield None
            yield given.result()

    def _is_alone(self, features: Features) -> bool:
        return any((features.job.name, seed.seed) in self._alone for seed in features.seeds)

    def _write(self, prediction: Prediction) -> None:
        settings, identity = self._config.write_settings, self._identities[prediction.job.name]
        self._tell(PendingWrite(self._workers, prediction, settings, identity).outcome())

    def _tell(self, message: Message) -> None:
        """Keep a message for the run."""
        if isinstance(message, StageEntered):
            return
        if isinstance(message, BatchProgress):
            if time.monotonic() < self._told_progress + PROGRESS_SECONDS and message.done < message.total:
                return
            self._told_progress = time.monotonic()
        with self._changed:
            self._messages.append(light(message))
            self._changed.notify_all()


def light(message: Message) -> Message:
    """Return the message without the content of its job, which the run knows."""
    if not isinstance(message, Started | Failure | BatchProgress | Featurized | Note | Written) or message.job is None:
        return message
    name = message.job.name
    job = Job(name=name, seeds=message.job.seeds, source=Path(), index=0, spec=JobSpec(name=name, entities=()))
    return replace(message, job=job)
