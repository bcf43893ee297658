"""Events that a run sends to its watchers. The terminal display and the log are two watchers.

An executor yields all events in one stream. :class:`~protenix_multiseed.types.Prediction` and
:class:`~protenix_multiseed.types.Failure` are events too. The seed of a Prediction is still to be written.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from protenix_multiseed.types import Failure, Job, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOpened:
    """Everything is loaded and checked. From now on the run writes to its output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntered:
    """The whole run enters a stage, such as ``loading protenix-v2``."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Featurized:
    """The features of a job have arrived from a CPU worker."""

    job: Job
    n_token: int
    n_atom: int
    n_msa: int
    n_chain: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """A batch has finished some steps of a stage.

    Attributes:
        job, seeds: The job, and its seeds in the batch; if the batch has several jobs, the first one.
        others: Name and seeds of the other jobs of the batch.
        stage: ``trunk``, ``sample`` or ``score``.
        done, total: Number of trunk cycles, diffusion steps or scored seeds, of all jobs.
        share: Estimated share of the batch's time that is over, 0 to 1.
        where: The GPU, such as ``node7 GPU 2``; empty if there is only one.
    """

    job: Job
    seeds: tuple[int, ...]
    stage: str
    done: int
    total: int
    share: float
    where: str = ""
    others: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files of a seed are complete. An executor that writes predictions itself yields this and no Prediction.

    Attributes:
        scores: The ranking score of each sample.
        seconds: Seconds that the device took for the seed.
        where: The GPU that predicted the seed, such as ``node7 GPU 2``; empty if there is only one.
    """

    job: Job
    seed: int
    scores: tuple[float, ...]
    seconds: float
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Seeds skipped by early stopping."""

    job: Job
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something about a job, or about the whole run if there is no job, that the user should know.

    Attributes:
        lost: The GPU whose process has ended, as in ``where`` of :class:`BatchProgress`; empty for other notes.
    """

    job: Job | None
    text: str
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """The run was asked to stop. The running batch has ``grace`` seconds to finish."""

    signal: str
    grace: float


Event: TypeAlias = (
    OutputOpened
    | StageEntered
    | Featurized
    | BatchProgress
    | Prediction
    | Written
    | Skipped
    | Failure
    | Note
    | Stopping
)
Watcher: TypeAlias = Callable[[Event], None]


class Watchers:
    """Sends each event to several watchers, in order. Put the log first, so that it misses no event."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def __call__(self, event: Event) -> None:
        """Send the event to all watchers."""
        for watcher in self._watchers:
            # A closed terminal, a broken pipe or a full disk must not end the run.
            with contextlib.suppress(OSError, ValueError):
                watcher(event)
