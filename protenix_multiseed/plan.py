"""Which seeds go through the model together. Pure: integers in, batches out.

A plan changes memory and time, never an answer: draws belong to seeds, not to batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from protenix_multiseed.memory import MemoryEstimate, ModelSize, Settings, estimate_peak_bytes, format_bytes
from protenix_multiseed.types import Batch, Sizes

MAX_SEEDS = 20  # more in one batch gain nothing measurable, and delay the first result

Estimate = Callable[[int, int], int]
"""Estimated peak bytes of a batch from its number of seeds and its sample chunk; it grows with both."""


def plan_batches(
    seeds: Sequence[int], n_sample: int, budget: int, estimate: Estimate, max_seeds: int = MAX_SEEDS
) -> tuple[Batch, ...]:
    """The fewest batches that fit in ``budget`` bytes, of even sizes, in the order of the seeds.

    Samples are chunked only where one seed does not fit with all of them. Where not even one seed with one sample at a
    time fits, such batches are planned all the same: whether to try is the caller's to decide (:func:`fits`).
    """
    if not seeds:
        return ()
    most = _largest(min(len(seeds), max_seeds), lambda count: estimate(count, n_sample) <= budget)
    chunk = n_sample
    if most == 0:
        most = 1
        chunk = max(1, _largest(n_sample, lambda count: estimate(1, count) <= budget))
        chunk = _even(n_sample, chunk)
    width = _even(len(seeds), most)
    return tuple(
        Batch(
            seeds=tuple(seeds[start : start + width]),
            sample_chunk=chunk,
            estimated_bytes=estimate(min(width, len(seeds) - start), chunk),
        )
        for start in range(0, len(seeds), width)
    )


def fits(batches: Sequence[Batch], budget: int) -> bool:
    """Whether every batch of a plan fits in ``budget`` bytes."""
    return all(batch.estimated_bytes <= budget for batch in batches)


def smaller(batch: Batch, estimate: Estimate, left: Sequence[int] | None = None) -> tuple[Batch, ...]:
    """What to try where a batch did not fit: half the seeds at a time, then half the samples; nothing after that.

    Args:
        left: The seeds still to be run, if some of the batch's are done.
    """
    seeds = tuple(batch.seeds if left is None else left)
    if len(batch.seeds) > 1:
        half = (len(batch.seeds) + 1) // 2
        parts = [seeds[start : start + half] for start in range(0, len(seeds), half)]
        return tuple(
            Batch(
                seeds=part,
                sample_chunk=batch.sample_chunk,
                estimated_bytes=estimate(len(part), batch.sample_chunk),
            )
            for part in parts
        )
    if batch.sample_chunk > 1:
        chunk = (batch.sample_chunk + 1) // 2
        return (replace(batch, sample_chunk=chunk, estimated_bytes=estimate(1, chunk)),)
    return ()


def _largest(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest count from 1 to ``limit`` that holds, 0 if none does; what holds for a count holds below it."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _even(total: int, most: int) -> int:
    """The smallest part that divides ``total`` into as few parts as ``most`` does."""
    return -(-total // -(-total // most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Plans for one model and one way of running it."""

    model: ModelSize
    settings: Settings
    max_seeds: int = MAX_SEEDS

    def estimate(self, sizes: Sizes, seeds: int, sample_chunk: int) -> MemoryEstimate:
        """A batch's memory."""
        return estimate_peak_bytes(
            sizes, seeds=seeds, sample_chunk=sample_chunk, settings=self.settings, model=self.model
        )

    def peak_bytes(self, sizes: Sizes) -> Estimate:
        """The estimate of one job's batches, as planning wants it."""
        return lambda seeds, sample_chunk: self.estimate(sizes, seeds, sample_chunk).peak_bytes

    def plan(self, sizes: Sizes, seeds: Sequence[int], budget: int) -> tuple[Batch, ...]:
        """A job's batches."""
        return plan_batches(seeds, self.settings.n_sample, budget, self.peak_bytes(sizes), self.max_seeds)

    def refusal(self, sizes: Sizes, available: int) -> str | None:
        """Why a job of these sizes cannot run in ``available`` bytes, with the figures; None if it can."""
        least = self.estimate(sizes, 1, 1)
        if least.peak_bytes <= available:
            return None
        return (
            f"{sizes.n_token} tokens need about {format_bytes(least.peak_bytes)} for one seed, one sample at a time "
            f"({least.peak_stage} stage), and {format_bytes(available)} are free: use a larger GPU or a smaller "
            "complex, or try all the same with --force"
        )
