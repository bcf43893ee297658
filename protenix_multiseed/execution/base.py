"""The protocol of an executor, and the table of executors. An executor runs the model on one or more devices.

To add an executor, write a module with a class that follows :class:`Executor`, and add the class to :data:`EXECUTORS`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.events import Event, Watcher
from protenix_multiseed.execution.gpus import visible_gpus
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.types import Job, Task

EXECUTORS: dict[str, str] = {
    "local": "protenix_multiseed.execution.local:LocalExecutor",
    "ray": "protenix_multiseed.execution.ray:RayExecutor",
}
"""Module and class of each executor, by its name in the configuration."""


class Gate(Protocol):
    """The questions that an executor asks the run while it works."""

    def admit(self, job: Job, seeds: Sequence[int]) -> Sequence[int]:
        """Return the seeds of a job that may start now. Any thread may ask.

        The other seeds are done, claimed by another process, or skipped.
        """

    def needs_no_more(self, job: Job) -> bool:
        """Return whether no further seed of a job will be admitted, because its scores are stable."""

    def wait_until_known(self) -> None:
        """Return when the run knows which seeds were admitted: at once, unless the run is another process."""

    @property
    def is_closed(self) -> bool:
        """Whether the run was asked to stop. If so, the executor starts no further job."""

    @property
    def time_is_up(self) -> bool:
        """Whether the running batch must be abandoned."""


class Executor(Protocol):
    """Predicts tasks. It holds resources, such as a model on a device, only between ``__enter__`` and ``__exit__``."""

    def __enter__(self) -> Self:
        """Return the executor. Nothing is loaded yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release all resources."""

    def load(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> None:
        """Prepare for these tasks. Their featurization may start. Called once, and only if there are tasks.

        Raises:
            ProtenixMsError: if a task cannot run. Nothing has been written at this point.
            Stopped: if ``should_stop`` returns True during loading.
        """

    def predict(self, tasks: Sequence[Task], gate: Gate) -> Iterator[Event]:
        """Predict the seeds that the gate admits. Yield each seed once, as a Prediction, a Failure or a Written.

        The run writes the files of a Prediction. An executor on several machines has them written there and yields a
        Written.

        Other events, such as progress, are part of the same stream. The failure of a seed does not stop other seeds.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return facts about the device, the kernels and the weights, for the run's record."""


def executor_name(config: RunConfig) -> str:
    """Return the name of the executor that runs. ``--gpus all`` on a machine with one GPU is a run on one GPU."""
    is_single = config.ray is None and config.gpus == "all" and config.device != "cpu" and len(visible_gpus()) == 1
    return "local" if is_single and config.executor == "ray" else config.executor


def make_executor(config: RunConfig, workers: WorkerPool, tell: Watcher) -> Executor:
    """Return the executor that the configuration names.

    Args:
        workers: CPU workers, which also write results.
        tell: Receives events outside the stream of predictions, such as the stages of loading.

    Raises:
        ConfigError: if there is no executor with this name.
    """
    chosen = executor_name(config)
    try:
        module, _, name = EXECUTORS[chosen].partition(":")
    except KeyError:
        raise ConfigError(f"executor: {config.executor!r} is not known; known: {', '.join(EXECUTORS)}") from None
    make: Callable[[RunConfig, WorkerPool, Watcher], Executor] = getattr(importlib.import_module(module), name)
    return make(config, workers, tell)
