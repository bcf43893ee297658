"""Decide which seeds may start: none after a signal, early stopping or on a full disk, and none that others claimed."""

import threading
from collections.abc import Sequence

from protenix_multiseed.events import Event, Written
from protenix_multiseed.run.early_stopping import EarlyStopping
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Failure, Job, Prediction, Task


class RunGate:
    """See :class:`protenix_multiseed.execution.base.Gate`."""

    def __init__(
        self, tasks: Sequence[Task], signals: Signals, folder: OutputFolder, early_stopping: EarlyStopping
    ) -> None:
        self._signals, self._folder, self._early_stopping = signals, folder, early_stopping
        self._lock = threading.Lock()  # an executor admits the next job's first batch from a thread
        self._skipped: dict[str, set[int]] = {task.job.name: set() for task in tasks}
        self._not_asked = {task.job.name: dict.fromkeys(task.todo) for task in tasks}

    @property
    def is_closed(self) -> bool:
        """Whether the run was asked to stop, or cannot write."""
        return self._signals.is_asked or self._folder.is_full

    @property
    def time_is_up(self) -> bool:
        """Whether the running batch must be abandoned."""
        return self._signals.time_is_up

    def admit(self, job: Job, seeds: Sequence[int]) -> Sequence[int]:
        """Return the seeds of a job that may start now. Early stopping skips all remaining seeds of the job at once."""
        if self.is_closed:
            return ()
        with self._lock:
            left, skipped = self._not_asked[job.name], self._skipped[job.name]
            if self._early_stopping.is_stable(job):
                # An executor asks again for seeds that it has not predicted, or that another process has left undone.
                again = [seed for seed in seeds if seed not in left and seed not in skipped]
                if more := [*left, *self._folder.claim(job, again)]:
                    self._folder.skip(job, more)
                    left.clear()
                    skipped.update(more)
                return ()
            for seed in seeds:
                left.pop(seed, None)
            return self._folder.claim(job, seeds)

    def needs_no_more(self, job: Job) -> bool:
        """Return whether early stopping skips the remaining seeds of a job."""
        return self._early_stopping.is_stable(job)

    def wait_until_known(self) -> None:
        """The run asks itself, so it knows."""

    def watch(self, event: Event) -> None:
        """Store the scores of a seed for early stopping, and seeds that failed unasked. Ignore all other events."""
        if isinstance(event, Prediction | Written):
            self._early_stopping.watch(event.job, event.seed, event.scores)
        elif isinstance(event, Failure):
            with self._lock:
                for seed in event.seeds:  # else early stopping would skip them too
                    self._not_asked[event.job.name].pop(seed, None)
