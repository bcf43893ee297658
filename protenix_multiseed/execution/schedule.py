"""Decide which GPU predicts which seeds. Integers in, decisions out; nothing here knows Ray, files or memory.

Jobs and GPUs are numbers. The cost of a seed is an integer in any unit that is the same for all jobs. A GPU gets a
unit: seeds of one job. It gets no more than the share of all remaining work that makes all GPUs end together, so units
become smaller near the end. If a GPU has nothing to do nevertheless, :meth:`Schedule.move` takes seeds from another.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Unit:
    """Seeds of one job that one GPU predicts. ``is_alone``: in no batch with others."""

    job: int
    seeds: tuple[int, ...]
    is_alone: bool = False


@dataclass(slots=True)
class _Held:
    """The seeds that a GPU has and has not finished, as (job, seed), in the order in which it got them.

    Attributes:
        load, begun: The cost of all of them, and of those that it has started.
    """

    waiting: dict[tuple[int, int], None] = field(default_factory=dict)
    started: dict[tuple[int, int], None] = field(default_factory=dict)
    load: int = 0
    begun: int = 0


class Schedule:
    """The seeds that no GPU has yet, and those that each GPU has.

    Args:
        jobs: The cost of one seed, and the seeds, of each job. The first job is handed out first.

    Attributes:
        n_expected: The number of GPUs with those that will be ready soon. A share is left for each of them.
    """

    def __init__(self, jobs: Iterable[tuple[int, Sequence[int]]]) -> None:
        self.n_expected = 0
        self._costs: list[int] = []
        self._left: list[deque[int]] = []
        for cost, seeds in jobs:
            self._costs.append(max(1, cost))
            self._left.append(deque(seeds))
        self._order = deque(job for job, seeds in enumerate(self._left) if seeds)
        self._rest = sum(cost * len(seeds) for cost, seeds in zip(self._costs, self._left, strict=True))
        self._alone: set[tuple[int, int]] = set()
        self._gpus: dict[int, _Held] = {}
        self._load = 0

    @property
    def is_done(self) -> bool:
        """Whether every seed is finished."""
        return not self._rest and not self._load

    def add(self, gpu: int) -> None:
        """A GPU is ready."""
        self._gpus[gpu] = _Held()

    def remove(self, gpu: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """A GPU is lost. Return the (job, seed) it had started and the ones it had not. They belong to nobody now."""
        held = self._gpus.pop(gpu)
        self._load -= held.load
        return list(held.started), list(held.waiting)

    def load(self, gpu: int) -> int:
        """Return the cost of the seeds that a GPU has and has not finished."""
        return self._gpus[gpu].load

    def waiting(self, gpu: int) -> int:
        """Return the cost of the seeds that a GPU has and has not started."""
        return self._gpus[gpu].load - self._gpus[gpu].begun

    def not_begun(self, gpu: int, job: int) -> tuple[int, ...]:
        """Return the seeds of a job that a GPU has and has not started."""
        return tuple(seed for one, seed in self._gpus[gpu].waiting if one == job)

    def cost(self, job: int) -> int:
        """Return the cost of one seed."""
        return self._costs[job]

    def left(self, job: int) -> tuple[int, ...]:
        """Return the seeds of a job that no GPU has."""
        return tuple(self._left[job])

    def next(self, gpu: int, fits: Callable[[int], int]) -> Unit | None:
        """Hand out a unit. The caller calls :meth:`finished` for each of its seeds, or gives seeds back.

        Args:
            gpu: The GPU that gets the unit.
            fits: Returns how many seeds of a job the GPU can predict at once; 0 if it cannot predict the job.

        Returns:
            None if no seed is left that the GPU can predict, or if it has its share of the work already.
        """
        held = self._gpus[gpu]
        room = -(-(self._rest + self._load) // max(len(self._gpus), self.n_expected)) - held.load
        if room <= 0 or not self._rest:
            return None
        found = self.first(fits)
        if found is None:
            return None
        job, most = found
        left = self._left[job]
        even = -(-len(left) // -(-len(left) // most))  # as few units as the largest ones, of even sizes
        count = min(even, max(1, (2 * room + self._costs[job]) // (2 * self._costs[job])))  # to the nearest seed
        seeds = [left.popleft()]
        is_alone = (job, seeds[0]) in self._alone
        if not is_alone:
            while len(seeds) < count and (job, left[0]) not in self._alone:
                seeds.append(left.popleft())
        self._sort_out(job)
        cost = self._costs[job] * len(seeds)
        self._rest -= cost
        self._load += cost
        held.load += cost
        held.waiting.update(((job, seed), None) for seed in seeds)
        return Unit(job, tuple(seeds), is_alone)

    def first(self, fits: Callable[[int], int]) -> tuple[int, int] | None:
        """Return the job of the next unit, and how many of its seeds the GPU predicts at once; None if there is none.

        Args:
            fits: See :meth:`next`.
        """
        return next(((job, most) for job in self._order if (most := fits(job)) > 0), None)

    def started(self, gpu: int, job: int, seeds: Iterable[int]) -> None:
        """A GPU has begun to predict seeds, so they cannot be moved any more."""
        held = self._gpus[gpu]
        for seed in seeds:
            if (job, seed) in held.waiting:
                del held.waiting[job, seed]
                held.started[job, seed] = None
                held.begun += self._costs[job]

    def finished(self, gpu: int, job: int, seed: int) -> bool:
        """A seed is written or has failed, or is not wanted. Return False if the GPU did not have it."""
        held = self._gpus[gpu]
        place = held.started if (job, seed) in held.started else held.waiting
        if (job, seed) not in place:
            return False
        del place[job, seed]
        held.load -= self._costs[job]
        if place is held.started:
            held.begun -= self._costs[job]
        self._load -= self._costs[job]
        return True

    def give_back(self, job: int, seeds: Sequence[int], *, alone: bool = False) -> None:
        """Put seeds that no GPU has in front of all others.

        Args:
            alone: Whether each of the seeds must be a unit of its own.
        """
        if not seeds:
            return
        self._left[job].extendleft(reversed(seeds))
        self._rest += self._costs[job] * len(seeds)
        if alone:
            self._alone.update((job, seed) for seed in seeds)
        if job in self._order:
            self._order.remove(job)
        self._order.appendleft(job)

    def drop(self, job: int) -> tuple[int, ...]:
        """Hand out no more seeds of a job. Return the seeds that no GPU had."""
        seeds = tuple(self._left[job])
        self._left[job].clear()
        self._rest -= self._costs[job] * len(seeds)
        self._sort_out(job)
        return seeds

    def move(self, gpu: int, fits: Callable[[int], int]) -> tuple[int, tuple[Unit, ...]] | None:
        """Return a GPU and seeds that it should give back, so that a GPU without work gets them. Changes nothing.

        Args:
            gpu: The GPU without work.
            fits: See :meth:`next`.
        """
        if self._gpus[gpu].load:
            return None
        for busy in sorted(self._gpus, key=self.load, reverse=True):
            held = self._gpus[busy]
            # A GPU that runs nothing keeps the seed that it begins with: two GPUs without work would take the last seed
            # from each other again and again, each time before its features are there.
            waiting = list(held.waiting)[0 if held.started else 1 :]
            if able := [(job, seed) for job, seed in waiting if fits(job)]:
                break
        else:
            return None
        # Half of the busy GPU's work, but nothing that it will begin before the other one could.
        room, taken = self._gpus[busy].load // 2, dict[int, list[int]]()
        for job, seed in reversed(able):
            room -= self._costs[job]
            if room < 0 and taken:
                break
            taken.setdefault(job, []).insert(0, seed)
        return busy, tuple(Unit(job, tuple(seeds)) for job, seeds in taken.items())

    def _sort_out(self, job: int) -> None:
        if not self._left[job] and job in self._order:
            self._order.remove(job)
