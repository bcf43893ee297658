"""Which seeds may begin: not after a signal, not after early stopping, not if another process has them in hand."""

from collections.abc import Sequence

from protenix_multiseed.events import Event
from protenix_multiseed.run.early_stopping import EarlyStopping
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Job, Prediction, Task


class RunGate:
    """See :class:`protenix_multiseed.execution.base.Gate`."""

    def __init__(
        self, tasks: Sequence[Task], signals: Signals, folder: OutputFolder, early_stopping: EarlyStopping
    ) -> None:
        self._signals, self._folder, self._early_stopping = signals, folder, early_stopping
        self._not_asked = {task.job.name: list(task.todo) for task in tasks}

    @property
    def is_closed(self) -> bool:
        """Whether the run was asked to stop."""
        return self._signals.is_asked

    @property
    def time_is_up(self) -> bool:
        """Whether work in hand must be given up."""
        return self._signals.time_is_up

    def admit(self, job: Job, seeds: Sequence[int]) -> Sequence[int]:
        """The seeds of a job that may begin now. Early stopping skips all that are left of the job at once."""
        if self.is_closed:
            return ()
        left = self._not_asked[job.name]
        if self._early_stopping.is_stable(job):
            if left:
                self._folder.skip(job, left)
                self._not_asked[job.name] = []
            return ()
        self._not_asked[job.name] = [seed for seed in left if seed not in seeds]
        return self._folder.claim(job, seeds)

    def watch(self, event: Event) -> None:
        """Note the scores of a prediction."""
        if isinstance(event, Prediction):
            self._early_stopping.watch(event)
