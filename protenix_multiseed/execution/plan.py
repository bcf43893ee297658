"""Decide which seeds go through the model together. Pure functions: integers in, batches out.

A plan changes memory and time, but never a result, because each seed has its own random numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from protenix_multiseed.execution.memory import MemoryEstimate, ModelSize, Settings, estimate_peak_bytes
from protenix_multiseed.limits import MAX_SEEDS_PER_BATCH
from protenix_multiseed.settings import PlanSettings
from protenix_multiseed.types import BatchPlan, Sizes
from protenix_multiseed.units import format_bytes

Estimate = Callable[[int, int], int]
"""Function of the number of seeds and the sample chunk. It returns the peak bytes of a batch and grows with both."""


def plan_batches(
    seeds: Sequence[int], n_sample: int, budget: int, estimate: Estimate, max_seeds: int = MAX_SEEDS_PER_BATCH
) -> tuple[BatchPlan, ...]:
    """Plan the fewest batches that fit in ``budget`` bytes. Their sizes are even; seeds keep their order.

    Samples are split into chunks only if one seed does not fit with all its samples. If even one seed with one sample
    at a time does not fit, the plan still has batches of that size. The caller decides whether to run them
    (:func:`fits`).

    Args:
        seeds: Seeds to plan.
        n_sample: Samples per seed.
        budget: Bytes of device memory that a batch may use.
        estimate: Estimate of a batch's peak bytes.
        max_seeds: Largest number of seeds in one batch.
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
        BatchPlan(
            seeds=tuple(seeds[start : start + width]),
            sample_chunk=chunk,
            estimated_bytes=estimate(min(width, len(seeds) - start), chunk),
        )
        for start in range(0, len(seeds), width)
    )


def fits(batches: Sequence[BatchPlan], budget: int) -> bool:
    """Return whether every batch of a plan fits in ``budget`` bytes."""
    return all(batch.estimated_bytes <= budget for batch in batches)


def only(batch: BatchPlan, seeds: Sequence[int], estimate: Estimate) -> BatchPlan:
    """Return the batch with only these seeds of it."""
    if tuple(seeds) == batch.seeds:
        return batch
    estimated = estimate(len(seeds), batch.sample_chunk) if batch.estimated_bytes else 0
    return replace(batch, seeds=tuple(seeds), estimated_bytes=estimated)


def smaller(batch: BatchPlan, estimate: Estimate, left: Sequence[int] | None = None) -> tuple[BatchPlan, ...]:
    """Return smaller batches to run in place of a batch that did not fit.

    A batch of several seeds is split into batches of half its size. A batch of one seed runs half as many samples at
    once. For one seed with one sample at a time, the result is empty.

    Args:
        left: Seeds of the batch that are not done yet; None for all.
    """
    seeds = tuple(batch.seeds if left is None else left)
    if len(batch.seeds) > 1:
        half = (len(batch.seeds) + 1) // 2
        parts = [seeds[start : start + half] for start in range(0, len(seeds), half)]
        return tuple(
            replace(batch, seeds=part, estimated_bytes=estimate(len(part), batch.sample_chunk)) for part in parts
        )
    if batch.sample_chunk > 1:
        chunk = (batch.sample_chunk + 1) // 2
        return (replace(batch, sample_chunk=chunk, estimated_bytes=estimate(1, chunk)),)
    return ()


def _largest(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the largest count from 1 to ``limit`` for which ``holds`` is True; 0 if there is none.

    If ``holds`` is True for a count, it must be True for all smaller counts.
    """
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _even(total: int, most: int) -> int:
    """Return the smallest part size that splits ``total`` into as few parts as the part size ``most``."""
    return -(-total // -(-total // most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Plans the batches of a run. A run and ``--dry-run`` use the same planner.

    Attributes:
        model: Sizes of the model.
        memory: How a batch runs, for the estimate of its memory.
        settings: Planning settings of the run.
    """

    model: ModelSize
    memory: Settings
    settings: PlanSettings

    def estimate(self, sizes: Sizes, seeds: int, sample_chunk: int) -> MemoryEstimate:
        """Estimate the memory of a batch on the fast path."""
        return estimate_peak_bytes(
            sizes, seeds=seeds, sample_chunk=sample_chunk, settings=self.memory, model=self.model
        )

    def peak_bytes(self, sizes: Sizes) -> Estimate:
        """Return the estimate for batches of one job as a function, for :func:`plan_batches`."""
        return lambda seeds, sample_chunk: self.estimate(sizes, seeds, sample_chunk).peak_bytes

    def plan(self, sizes: Sizes, seeds: Sequence[int], budget: int) -> tuple[BatchPlan, ...]:
        """Plan the batches of a job that fit in ``budget`` bytes.

        If every seed runs alone through Protenix's own modules, each batch has one seed and no estimate.
        """
        if self.settings.reference_reason is not None:
            return tuple(BatchPlan(seeds=(seed,), sample_chunk=1, estimated_bytes=0) for seed in seeds)
        n_sample, most = self.settings.samples, self.settings.max_seeds
        return plan_batches(seeds, n_sample, budget, self.peak_bytes(sizes), most)

    def refusal(self, sizes: Sizes, budget: int) -> str | None:
        """Return why a job of these sizes cannot run in ``budget`` bytes, with the sizes; None if it can."""
        limit = self.settings.max_tokens
        if limit is not None and sizes.n_token > limit:
            return f"{sizes.n_token} tokens: {self.settings.model} takes at most {limit}; choose another --model"
        if self.settings.reference_reason is not None or self.settings.force:
            return None
        least = self.estimate(sizes, 1, 1)
        if least.peak_bytes <= budget:
            return None
        return (
            f"{sizes.n_token} tokens need about {format_bytes(least.peak_bytes)} for one seed, one sample at a time "
            f"({least.peak_stage} stage), and {format_bytes(budget)} are free: use a larger GPU or a smaller complex "
            f"(at most {self.largest(sizes, budget)} tokens would fit), or try it anyway with --force"
        )

    def largest(self, sizes: Sizes, budget: int) -> int:
        """Return the largest size that fits in ``budget`` bytes, one sample at a time: a multiple of 16 tokens, or 0.

        Args:
            sizes: Sizes of a larger job. The atoms of a smaller one are in proportion, the MSA rows are as many.
        """

        def fits(n_token: int) -> bool:
            smaller = replace(sizes, n_token=n_token, n_atom=sizes.n_atom * n_token // sizes.n_token)
            return self.estimate(smaller, 1, 1).peak_bytes <= budget

        # Not a binary search: above some sizes parts run in 16 bits, and a larger complex can take less memory.
        return next((n for n in range(sizes.n_token // 16 * 16, 0, -16) if fits(n)), 0)
