"""Running a plan where memory may run out all the same: the one place that handles it.

A batch that runs out is retried smaller, from its streams' start, so that the answer is the same. What it had finished
is kept. What did not fit bounds the jobs after it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from protenix_multiseed.errors import Dropped
from protenix_multiseed.plan import Estimate, smaller
from protenix_multiseed.types import Batch

Result = TypeVar("Result")
Finished = Callable[[int, Result], None]


@dataclass(slots=True)
class MemoryLimit:
    """Bytes that plans may count on: what is free, and less once an estimate has proved too low."""

    learned: int | None = None

    def budget(self, free: int) -> int:
        """The bytes to plan with where ``free`` seem free."""
        return free if self.learned is None else min(free, self.learned)

    def learn(self, batch: Batch) -> None:
        """A batch ran out of memory: none estimated as high is planned again."""
        self.learned = self.budget(batch.estimated_bytes - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder(Generic[Result]):
    """How to run a batch, and what to do when it fails.

    Attributes:
        run: Runs a batch and calls ``finished(seed, result)`` as each of its seeds is done.
        is_out_of_memory: Whether an error means that memory ran out.
        release: Frees what a failed batch held. Called when nothing refers to its error any more.
        told: Says that a batch failed, why, and what is tried instead.
        lost: Makes the result of a seed that failed where nothing smaller is left to try.
        goes_on: Whether to begin another batch.
    """

    run: Callable[[Batch, Finished[Result]], None]
    is_out_of_memory: Callable[[BaseException], bool]
    release: Callable[[], None]
    told: Callable[[Batch, str, Sequence[Batch]], None]
    lost: Callable[[Batch, int, Exception], Result]
    limit: MemoryLimit
    goes_on: Callable[[], bool] = lambda: True

    def climb(self, batches: Sequence[Batch], estimate: Estimate) -> Iterator[tuple[int, Result]]:
        """Run batches: each of their seeds comes out once, with its result, until the run is asked to stop."""
        waiting = deque(batches)
        while waiting and self.goes_on():
            batch = waiting.popleft()
            if batch.estimated_bytes > self.limit.budget(batch.estimated_bytes) and (parts := smaller(batch, estimate)):
                waiting.extendleft(reversed(parts))
                continue
            done: dict[int, Result] = {}
            instead: tuple[Batch, ...] = ()
            failed = ""
            try:
                self.run(batch, done.__setitem__)
            except Dropped:
                waiting.clear()  # what was finished of the batch still comes out
            except Exception as error:
                ran_out = self.is_out_of_memory(error)
                failed = "out of memory" if ran_out else f"{type(error).__name__}: {error}"
                left = tuple(seed for seed in batch.seeds if seed not in done)
                instead = _instead(batch, left, estimate, ran_out=ran_out)
                if ran_out:
                    self.limit.learn(batch)
                if not instead:
                    done |= {seed: self.lost(batch, seed, error) for seed in left}
            if failed:  # the error and the tensors its frames held are gone by now
                self.release()
            if instead:
                self.told(batch, failed, instead)
                waiting.extendleft(reversed(instead))
            yield from done.items()


def _instead(batch: Batch, left: tuple[int, ...], estimate: Estimate, *, ran_out: bool) -> tuple[Batch, ...]:
    """What to run in place of a batch that failed with some seeds left."""
    if not left:
        return ()
    if ran_out:
        return smaller(batch, estimate, left)
    if len(batch.seeds) == 1:
        return ()
    alone = estimate(1, batch.sample_chunk)  # one seed's failure is no other's
    return tuple(Batch(seeds=(seed,), sample_chunk=batch.sample_chunk, estimated_bytes=alone) for seed in left)
