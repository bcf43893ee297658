"""How many seeds of each job a GPU predicts at once, and how long a seed takes relative to those of other jobs."""

from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING

from protenix_multiseed.execution.plan import Planner
from protenix_multiseed.features.pool import AHEAD
from protenix_multiseed.limits import EMPTY_TEMPLATES, SHARED_BATCH_MAX_TOKENS
from protenix_multiseed.types import Failure, Job, Sizes, Task

if TYPE_CHECKING:
    from protenix_multiseed.execution.gpu_worker import Loaded


def minimum_sizes(job: Job) -> Sizes:
    """Return lower bounds of a job's sizes, from the number of tokens that is known before featurization."""
    return Sizes(n_token=job.n_token, n_atom=job.n_token, n_msa=1, n_template=EMPTY_TEMPLATES)


def cost(n_token: int) -> int:
    """Return the relative time of one seed. It follows docs/engine.md's times of 120 to 2,000 tokens within a third."""
    return n_token**2 + 100 * n_token + n_token**3 // 1500


def too_large(tasks: Iterable[Task], gpus: Iterable[tuple[Planner, int]]) -> list[str]:
    """Return the refusal of each job that is too large for all these GPUs, given their planners and free bytes."""
    kinds = set(gpus)
    problems = []
    for task in tasks:
        refusals = [planner.refusal(minimum_sizes(task.job), budget) for planner, budget in kinds]
        if refusals and all(refusals):
            problems.append(f"{task.job.where}: {refusals[0]}")
    return problems


class Capacity:
    """The numbers of seeds that fit, computed once for each job, planner and amount of memory.

    Args:
        tasks: The tasks, numbered from 0.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._sizes = [minimum_sizes(task.job) for task in tasks]
        self._known: list[dict[tuple[Planner, int], int]] = [{} for _ in tasks]
        self._barred: dict[int, dict[str, Failure]] = {}

    def learn(self, number: int, sizes: Sizes) -> None:
        """The true sizes of a job are known."""
        self._sizes[number] = sizes
        self._known[number].clear()

    def bar(self, number: int, node: str, failure: Failure) -> None:
        """No GPU of this node predicts the job any more, because it failed as a whole there."""
        self._barred.setdefault(number, {})[node] = failure

    def seeds(self, number: int, gpu: "Loaded", node: str) -> int:
        """Return how many seeds of a job a GPU of a node predicts at once; 0 if it cannot predict the job."""
        if node in self._barred.get(number, ()):
            return 0
        known, planner, budget = self._known[number], gpu.planner, gpu.budget
        if (planner, budget) not in known:
            sizes = self._sizes[number]
            fits = planner.refusal(sizes, budget) is None
            most = len(planner.plan(sizes, range(planner.settings.max_seeds), budget)[0].seeds) if fits else 0
            known[planner, budget] = most
        return known[planner, budget]

    def failure(self, task: Task, number: int, gpu: "Loaded") -> Failure:
        """Return the failure of a job that no GPU can predict: its own, if it has failed, or that it is too large."""
        if number in self._barred:
            return next(iter(self._barred[number].values()))
        message = gpu.planner.refusal(self._sizes[number], gpu.budget) or "no GPU can predict it"
        return Failure(job=task.job, seed=None, stage="predict", message=message)

    def may_share(self, units: Sequence[tuple[int, int]], gpu: "Loaded") -> bool:
        """Return whether a GPU may predict units, each a number of a job and of its seeds, in one batch."""
        return gpu.planner.may_share([(self._sizes[number], count) for number, count in units], gpu.budget)

    def has_room(
        self, units: Sequence[tuple[int, Sized]], planner: Planner, n_worker: int, is_enough: bool | None
    ) -> bool:
        """Return whether a GPU should get another unit: its CPU workers must not wait, and its batches must be full.

        It gets no more than that, because the other GPUs cannot have it then, and the work balances worse.

        Args:
            units: Number of the job, and seeds, of each unit that it has.
            is_enough: Whether the units that wait last long enough for the features of the next one; None: nobody knows
                yet, because no unit has ended. Then a GPU has one unit that runs and AHEAD that wait.
        """
        batches = 0  # entries of the running batch and the next one, if jobs share batches
        if units and planner.max_jobs > 1 and self._sizes[units[-1][0]].n_token <= SHARED_BATCH_MAX_TOKENS:
            batches = 2 * planner.settings.max_entries
            if sum(len(seeds) for _, seeds in units) < batches:
                return True
        if is_enough is None:
            return len(units) < 1 + AHEAD
        return len(units) < (2 if is_enough else n_worker + AHEAD + batches)
