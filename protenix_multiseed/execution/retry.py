"""Run the batches of a plan, and handle batches that run out of memory. Only this module handles them.

A batch that runs out of memory is replaced by smaller batches. Each seed starts again from its first random number, so
the result is the same. Entries (seeds of a job) that were already finished are kept. The estimate of the failed batch
limits the plans of later jobs.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from protenix_multiseed.errors import Stopped
from protenix_multiseed.execution.plan import BatchEstimate, only, smaller
from protenix_multiseed.types import BatchPlan, Entry

Result = TypeVar("Result")
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """An entry is finished, or has failed and is not retried."""

    entry: Entry
    result: Result


@dataclass(frozen=True, slots=True)
class Retrying:
    """A batch failed, and the batches in ``instead`` run in its place."""

    batch: BatchPlan
    reason: str
    instead: tuple[BatchPlan, ...]


@dataclass(slots=True)
class MemoryLimit:
    """The bytes that plans may use: the free memory, or less once an estimate was too low. It refuses no job.

    Attributes:
        learned: Upper limit of a batch's estimated bytes; None until a batch has run out of memory.
    """

    learned: int | None = None

    def budget(self, free: int) -> int:
        """Return the bytes to plan with if ``free`` bytes are free."""
        return free if self.learned is None else min(free, self.learned)

    def learn(self, batch: BatchPlan) -> None:
        """Lower the limit after a batch ran out of memory: later batches must have a smaller estimate."""
        self.learned = self.budget(batch.estimated_bytes - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Generic[Result, Other]):
    """How to run a batch, and what to do when it fails.

    Attributes:
        run: Runs a batch. It yields a :class:`Done` for each finished entry, and may yield other items.
        estimate: Estimates a batch's peak bytes.
        is_out_of_memory: Returns whether an error means that memory ran out.
        release: Frees the memory of a failed batch. Called when nothing refers to the error any more.
        fail: Makes the result of an entry that failed and cannot be retried.
        limit: The bytes that plans may use, lowered after a batch has run out of memory.
        admit: Called before every batch with its entries. Returns the entries that may start now.
    """

    run: "Callable[[BatchPlan], Iterator[Done[Result] | Other]]"
    estimate: BatchEstimate
    is_out_of_memory: Callable[[BaseException], bool]
    release: Callable[[], None]
    fail: Callable[[BatchPlan, Entry, Exception], Result]
    limit: MemoryLimit
    admit: Callable[[Sequence[Entry]], Sequence[Entry]] = lambda entries: entries

    def run_all(
        self, batches: Sequence[BatchPlan], *, is_first_admitted: bool = False
    ) -> "Iterator[Done[Result] | Retrying | Other]":
        """Run batches. Yield each admitted entry once, with its result.

        Args:
            is_first_admitted: Whether the entries of the first batch have been admitted already.
        """
        waiting = deque((batch, is_first_admitted and place == 0) for place, batch in enumerate(batches))
        while waiting:
            batch, is_admitted = waiting.popleft()
            if batch.estimated_bytes > self.limit.budget(batch.estimated_bytes) and (
                parts := smaller(batch, self.estimate)
            ):
                waiting.extendleft((part, is_admitted) for part in reversed(parts))
                continue
            if not is_admitted:
                admitted = tuple(self.admit(batch.entries))
                if not admitted:
                    continue
                batch = only(batch, admitted, self.estimate)
            outcome = _Outcome()
            try:
                yield from self._attempt(batch, outcome)
            except Stopped:
                return  # the finished entries of the batch were already yielded
            if outcome.reason:  # here nothing refers to the error any more, nor to the tensors in its stack frames
                self.release()
            yield from outcome.lost
            if outcome.instead:
                yield Retrying(batch, outcome.reason, outcome.instead)
                waiting.extendleft((part, True) for part in reversed(outcome.instead))

    def _attempt(self, batch: BatchPlan, outcome: "_Outcome") -> "Iterator[Done[Result] | Other]":
        left = list(batch.entries)
        try:
            for item in self.run(batch):
                if isinstance(item, Done):
                    left.remove(item.entry)
                yield item
        except Stopped:
            raise
        except Exception as error:
            ran_out = self.is_out_of_memory(error)
            outcome.reason = "out of memory" if ran_out else f"{type(error).__name__}: {error}"
            outcome.instead = _replacements(batch, tuple(left), self.estimate, ran_out=ran_out)
            if ran_out:
                self.limit.learn(batch)
            if not outcome.instead:
                outcome.lost = [Done(entry, self.fail(batch, entry, error)) for entry in left]


@dataclass(slots=True)
class _Outcome:
    """The outcome of one attempt. Empty if it succeeded.

    Attributes:
        reason: Why it failed.
        instead: The batches to run in its place.
        lost: The results of entries that cannot be retried.
    """

    reason: str = ""
    instead: tuple[BatchPlan, ...] = ()
    lost: Sequence[Done[Any]] = ()


def _replacements(
    batch: BatchPlan, left: tuple[Entry, ...], estimate: BatchEstimate, *, ran_out: bool
) -> tuple[BatchPlan, ...]:
    """Return the batches to run in place of a batch that failed with the entries ``left`` unfinished.

    After an out-of-memory error these are smaller batches. After another error each job runs alone, and if it was
    alone, each of its seeds, because the error of one entry must not affect the others.
    """
    if not left:
        return ()
    if ran_out:
        return smaller(batch, estimate, left)
    if len(batch.entries) == 1:
        return ()
    jobs = {job: tuple(entry for entry in left if entry[0] == job) for job, _ in left}
    parts = tuple(jobs.values()) if len(batch.jobs) > 1 else tuple((entry,) for entry in left)
    return tuple(only(batch, part, estimate) for part in parts)
