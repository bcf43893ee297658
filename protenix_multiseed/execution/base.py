"""The door behind which a run is executed: the protocol of an executor, and the table of executors.

To add one, write a module with a class that follows :class:`Executor` and name it in :data:`EXECUTORS`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.events import Event, Watcher
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.types import Job, Task

EXECUTORS: dict[str, str] = {"local": "protenix_multiseed.execution.local:LocalExecutor"}
"""Module and class by the name that the configuration's ``executor`` gives."""


class Gate(Protocol):
    """What an executor asks the run while it works."""

    def admit(self, job: Job, seeds: Sequence[int]) -> Sequence[int]:
        """The seeds of a job that may begin now. The others are done, in other hands, or no longer wanted."""

    @property
    def is_closed(self) -> bool:
        """Whether the run was asked to stop: no further job is begun."""

    @property
    def time_is_up(self) -> bool:
        """Whether work in hand must be given up."""


class Executor(Protocol):
    """Predicts tasks. What it holds, such as a model on its device, it holds between ``__enter__`` and ``__exit__``."""

    def __enter__(self) -> Self:
        """Nothing is loaded yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of everything."""

    def load(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> None:
        """Get ready for these tasks; their featurization may begin. Called once, and only if there are any.

        Raises:
            ProtenixMsError: if one of them cannot run. Nothing has been written by then.
            Stopped: if ``should_stop`` says so meanwhile.
        """

    def predict(self, tasks: Sequence[Task], gate: Gate) -> Iterator[Event]:
        """Predict the seeds of tasks that the gate admits: each comes out once, as a Prediction or a Failure.

        Other events, such as progress, come in the same stream. A seed that fails stops nothing else.
        """

    def facts(self) -> Mapping[str, Any]:
        """What the run's record says of the device, the kernels and the weights."""


def make_executor(config: RunConfig, workers: WorkerPool, tell: Watcher) -> Executor:
    """The executor that the configuration names.

    Args:
        workers: CPU workers, which also write results.
        tell: Told events that belong to no stream of predictions, such as the stages of loading.

    Raises:
        ConfigError: if there is no executor of this name.
    """
    try:
        module, _, name = EXECUTORS[config.executor].partition(":")
    except KeyError:
        raise ConfigError(f"executor: {config.executor!r} is not known; known: {', '.join(EXECUTORS)}") from None
    make: Callable[[RunConfig, WorkerPool, Watcher], Executor] = getattr(importlib.import_module(module), name)
    return make(config, workers, tell)
