"""The result of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from signal import Signals
from typing import TYPE_CHECKING, Any, Self

from protenix_multiseed.types import Failure, Task

if TYPE_CHECKING:
    from protenix_multiseed.outputs.ranking import Ranking


@dataclass(slots=True)
class RunResult:
    """The result of a run. A unit is one seed of one job.

    Attributes:
        n_unit: Units that the user asked for.
        n_before: Units that were done before this run.
        n_elsewhere: Units that other processes did during this run.
        n_done: Units that this run wrote.
        rankings: What was ranked of each job that has finished seeds, from this run and earlier ones, in their order.
        failures: Jobs and seeds that failed.
        unwritten: Names of tables of all jobs that could not be written.
        skipped: Seeds of each job skipped by early stopping.
        stopped_by: 128 plus the number of the signal that stopped the run; None if no signal came.
        notes: Sentences about the inputs as a whole.
    """

    n_unit: int = 0
    n_before: int = 0
    n_elsewhere: int = 0
    n_done: int = 0
    rankings: "dict[str, Ranking]" = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    skipped: dict[str, list[int]] = field(default_factory=dict)
    stopped_by: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def begin(cls, tasks: Sequence[Task], notes: tuple[str, ...] = ()) -> Self:
        """Return the result of a run that has not begun."""
        n_unit = sum(len(task.job.seeds) for task in tasks)
        return cls(n_unit=n_unit, n_before=n_unit - sum(len(task.todo) for task in tasks), notes=notes)

    @property
    def ranked(self) -> Iterator[tuple[str, int]]:
        """Job and seed of everything that was ranked."""
        return ((name, seed) for name, ranking in self.rankings.items() for seed in ranking.seeds)

    @property
    def n_left(self) -> int:
        """Number of units that are not done, failed or skipped."""
        lost = [failed for failed in self.failures if failed.stage != "rank"]
        failed = sum(len(one.seeds) for one in lost)
        skipped = sum(map(len, self.skipped.values()))
        return max(0, self.n_unit - self.n_before - self.n_elsewhere - self.n_done - failed - skipped)

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number if it left units undone; else 1 if any failed or is left, or a table; else 0."""
        if self.stopped_by is not None and self.n_left:
            return self.stopped_by
        return 1 if self.failures or self.n_left or self.unwritten else 0

    def summary(self) -> dict[str, Any]:
        """Return the counts and the notes for the run's record."""
        made: dict[str, Any] = {
            "failures": len(self.failures),
            "samples": sum(ranking.n_sample for ranking in self.rankings.values()),
            "units": {
                "asked": self.n_unit,
                "done_before": self.n_before,
                "done": self.n_done,
                "done_elsewhere": self.n_elsewhere,
                "skipped": sum(map(len, self.skipped.values())),
                "left": self.n_left,
            },
        }
        if self.stopped_by is not None and self.n_left:
            made["stopped_by"] = Signals(self.stopped_by - 128).name
        if self.notes:
            made["notes"] = list(self.notes)
        if self.skipped:
            made["stopped_when_stable"] = {name: {"seeds_not_run": seeds} for name, seeds in self.skipped.items()}
        return made
