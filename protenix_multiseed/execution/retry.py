"""Runs a plan where memory may run out nevertheless: the one place that handles it.

A batch that runs out of memory is retried smaller, from the start of its random numbers, so that the answer is the
same. Seeds that it had finished are kept. A size that did not fit bounds the jobs after it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from protenix_multiseed.errors import Stopped
from protenix_multiseed.execution.plan import Estimate, smaller
from protenix_multiseed.types import BatchPlan

Result = TypeVar("Result")
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """A seed is finished, or has failed for good."""

    seed: int
    result: Result


@dataclass(frozen=True, slots=True)
class Retrying:
    """A batch failed, and smaller ones are run in its place."""

    batch: BatchPlan
    reason: str
    instead: tuple[BatchPlan, ...]


@dataclass(slots=True)
class MemoryLimit:
    """Bytes that plans may count on: what is free, and less once an estimate has proved too low."""

    learned: int | None = None

    def budget(self, free: int) -> int:
        """The bytes to plan with when ``free`` seem free."""
        return free if self.learned is None else min(free, self.learned)

    def learn(self, batch: BatchPlan) -> None:
        """A batch ran out of memory: no batch with such an estimate is planned again."""
        self.learned = self.budget(batch.estimated_bytes - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Generic[Result, Other]):
    """How to run a batch, and what to do when it fails.

    Attributes:
        run: Runs a batch; yields a :class:`Done` for each seed as it is finished, and anything else as it likes.
        estimate: Of a batch's memory.
        is_out_of_memory: Whether an error means that memory ran out.
        release: Frees what a failed batch held. Called when nothing refers to its error any more.
        fail: Makes the result of a seed that failed and for which nothing smaller is left to try.
        admit: Asked before every batch: which of these seeds may begin now.
    """

    run: "Callable[[BatchPlan], Iterator[Done[Result] | Other]]"
    estimate: Estimate
    is_out_of_memory: Callable[[BaseException], bool]
    release: Callable[[], None]
    fail: Callable[[BatchPlan, int, Exception], Result]
    limit: MemoryLimit
    admit: Callable[[Sequence[int]], Sequence[int]] = lambda seeds: seeds

    def run_all(self, batches: Sequence[BatchPlan]) -> "Iterator[Done[Result] | Retrying | Other]":
        """Run batches. Each of their seeds comes out once, with its result, unless it is not admitted."""
        waiting = deque((batch, False) for batch in batches)
        while waiting:
            batch, is_admitted = waiting.popleft()
            if batch.estimated_bytes > self.limit.budget(batch.estimated_bytes) and (
                parts := smaller(batch, self.estimate)
            ):
                waiting.extendleft((part, is_admitted) for part in reversed(parts))
                continue
            if not is_admitted:
                admitted = tuple(self.admit(batch.seeds))
                if not admitted:
                    continue
                batch = self._only(batch, admitted)
            outcome = _Outcome()
            try:
                yield from self._attempt(batch, outcome)
            except Stopped:
                return  # what was finished of the batch has come out
            if outcome.reason:  # the error, and the tensors that its frames held, are gone by now
                self.release()
            if outcome.instead:
                yield Retrying(batch, outcome.reason, outcome.instead)
                waiting.extendleft((part, True) for part in reversed(outcome.instead))

    def _attempt(self, batch: BatchPlan, outcome: "_Outcome") -> "Iterator[Done[Result] | Other]":
        left = list(batch.seeds)
        try:
            for item in self.run(batch):
                if isinstance(item, Done):
                    left.remove(item.seed)
                yield item
        except Stopped:
            raise
        except Exception as error:
            ran_out = self.is_out_of_memory(error)
            outcome.reason = "out of memory" if ran_out else f"{type(error).__name__}: {error}"
            outcome.instead = _instead(batch, tuple(left), self.estimate, ran_out=ran_out)
            if ran_out:
                self.limit.learn(batch)
            lost = [] if outcome.instead else [Done(seed, self.fail(batch, seed, error)) for seed in left]
        else:
            lost = []
        yield from lost

    def _only(self, batch: BatchPlan, seeds: tuple[int, ...]) -> BatchPlan:
        if seeds == batch.seeds:
            return batch
        estimated = self.estimate(len(seeds), batch.sample_chunk) if batch.estimated_bytes else 0
        return replace(batch, seeds=seeds, estimated_bytes=estimated)


@dataclass(slots=True)
class _Outcome:
    """What became of one attempt: why it failed, if it did, and what to run in its place."""

    reason: str = ""
    instead: tuple[BatchPlan, ...] = ()


def _instead(batch: BatchPlan, left: tuple[int, ...], estimate: Estimate, *, ran_out: bool) -> tuple[BatchPlan, ...]:
    """What to run in place of a batch that failed with some seeds left."""
    if not left:
        return ()
    if ran_out:
        return smaller(batch, estimate, left)
    if len(batch.seeds) == 1:
        return ()
    alone = estimate(1, batch.sample_chunk) if batch.estimated_bytes else 0  # one seed's failure is no other's
    return tuple(replace(batch, seeds=(seed,), estimated_bytes=alone) for seed in left)
