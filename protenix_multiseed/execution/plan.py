"""Decide which seeds go through the model together. Pure functions: integers in, batches out.

A plan changes memory and time, but never a result, because each seed has its own random numbers.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from protenix_multiseed.execution.memory import (
    MemoryEstimate,
    ModelSize,
    Settings,
    bytes_of_parts,
    estimate_peak_bytes,
)
from protenix_multiseed.limits import (
    MAX_SEEDS_PER_BATCH,
    MAX_SHARED_PADDING_PERCENT,
    SHARED_BATCH_MAX_TOKENS,
    TOKEN_PADDING_GPU,
)
from protenix_multiseed.model.buckets import padded_sizes
from protenix_multiseed.settings import PlanSettings
from protenix_multiseed.types import BatchPlan, Entry, Sizes
from protenix_multiseed.units import format_bytes
from protenix_multiseed.upstream.models import model_spec

Estimate = Callable[[int, int], int]
"""Function of the number of seeds and the sample chunk. It returns the peak bytes of a batch and grows with both."""

BatchEstimate = Callable[[BatchPlan], int]
"""The same for a planned batch, whose entries may belong to several jobs of different sizes."""


def plan_batches(
    seeds: Sequence[int], n_sample: int, budget: int, estimate: Estimate, max_seeds: int = MAX_SEEDS_PER_BATCH
) -> tuple[BatchPlan, ...]:
    """Plan the fewest batches that fit in ``budget`` bytes. Their sizes are even; seeds keep their order.

    Samples are split into chunks only if one seed does not fit with all its samples. If even one seed with one sample
    at a time does not fit, the plan still has batches of that size.

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
            entries=tuple((0, seed) for seed in seeds[start : start + width]),
            sample_chunk=chunk,
            estimated_bytes=estimate(min(width, len(seeds) - start), chunk),
        )
        for start in range(0, len(seeds), width)
    )


def arithmetic(sizes: Sizes) -> int:
    """Return the relative arithmetic of one seed with all its samples; 1 is that of one token pair.

    The trunk and the confidence head grow with the pairs and with the MSA, the diffusion with tokens and atoms. The
    weights follow the measured times of 120 to 600 tokens (docs/engine.md) within a third.
    """
    tokens = sizes.n_token
    return tokens**2 + 240 * tokens + 20 * sizes.n_atom + sizes.n_msa * tokens // 125


def only(batch: BatchPlan, entries: Sequence[Entry], estimate: BatchEstimate) -> BatchPlan:
    """Return the batch with only these entries of it."""
    if tuple(entries) == batch.entries:
        return batch
    made = replace(batch, entries=tuple(entries))
    return _estimated(made, estimate) if batch.estimated_bytes else made


def smaller(batch: BatchPlan, estimate: BatchEstimate, left: Sequence[Entry] | None = None) -> tuple[BatchPlan, ...]:
    """Return smaller batches to run in place of a batch that did not fit.

    A roomy batch runs as a usual one. A batch of several entries is split into batches of half its size. A batch of one
    entry runs half as many samples at once. For one entry with one sample at a time, the result is empty.

    Args:
        left: Entries of the batch that are not done yet; None for all.
    """
    entries = tuple(batch.entries if left is None else left)
    if batch.roomy:
        return (_estimated(replace(batch, entries=entries, roomy=False), estimate),)
    if len(batch.entries) > 1:
        half = (len(batch.entries) + 1) // 2
        parts = [entries[start : start + half] for start in range(0, len(entries), half)]
        return tuple(_estimated(replace(batch, entries=part), estimate) for part in parts)
    if batch.sample_chunk > 1:
        return (_estimated(replace(batch, sample_chunk=(batch.sample_chunk + 1) // 2), estimate),)
    return ()


def _estimated(batch: BatchPlan, estimate: BatchEstimate) -> BatchPlan:
    return replace(batch, estimated_bytes=estimate(batch))


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

    def estimate(
        self, sizes: Sizes, seeds: int, sample_chunk: int, n_job: int = 1, *, roomy: bool = False
    ) -> MemoryEstimate:
        """Estimate the memory of a batch on the fast path."""
        settings = replace(self.memory, roomy=roomy)
        return estimate_peak_bytes(
            sizes, jobs=n_job, seeds=seeds, sample_chunk=sample_chunk, settings=settings, model=self.model
        )

    def peak_bytes(self, sizes: Sizes) -> Estimate:
        """Return the estimate for batches of one job as a function, for :func:`plan_batches`."""
        return lambda seeds, sample_chunk: self.estimate(sizes, seeds, sample_chunk).peak_bytes

    @property
    def max_jobs(self) -> int:
        """Largest number of jobs in one batch. By default a GPU takes as many as seeds; a CPU gains nothing by it."""
        if self.settings.reference_reason is not None:
            return 1
        return self.settings.max_jobs or (self.settings.max_entries if self.memory.on_gpu else 1)

    def batch_bytes(self, jobs: Mapping[int, Sizes]) -> BatchEstimate:
        """Return the estimate for batches of these jobs as a function. Jobs are given by their number in the plan."""
        return lambda batch: self._of_batch(batch, jobs).peak_bytes

    def _of_batch(self, batch: BatchPlan, jobs: Mapping[int, Sizes]) -> MemoryEstimate:
        sizes = padded_sizes([jobs[job] for job in batch.jobs])
        return self.estimate(sizes, len(batch.entries), batch.sample_chunk, len(batch.jobs), roomy=batch.roomy)

    def shared_bytes(self, jobs: Sequence[Sizes], n_entry: int, sample_chunk: int) -> int:
        """Return the estimated peak bytes of one batch of these jobs, which is padded if there are several."""
        return self.estimate(padded_sizes(jobs), n_entry, sample_chunk, n_job=len(jobs)).peak_bytes

    def may_share(self, jobs: Sequence[tuple[Sizes, int]], budget: int) -> bool:
        """Return whether these jobs may be one batch in ``budget`` bytes, and gain from it.

        Args:
            jobs: Sizes and number of seeds of each job. For one job: whether others could join it.
        """
        sizes, n_entry = [one for one, _ in jobs], sum(count for _, count in jobs)
        most = self.settings.max_entries - (len(jobs) == 1)
        if self.max_jobs == 1 or len(jobs) > self.max_jobs or n_entry > most:
            return False
        largest = min(SHARED_BATCH_MAX_TOKENS, self.settings.max_tokens or SHARED_BATCH_MAX_TOKENS)
        if any(one.n_token > largest or count > self.settings.max_seeds for one, count in jobs):
            return False
        return self.padding_percent(jobs) <= MAX_SHARED_PADDING_PERCENT and (
            self.shared_bytes(sizes, n_entry, self.settings.samples) <= budget
        )

    def padding_percent(self, jobs: Sequence[tuple[Sizes, int]]) -> float:
        """Return the arithmetic that these jobs need more as one batch than each alone, in percent.

        Alone a job is padded too, to whole tiles of tokens.
        """
        if len(jobs) == 1:
            return 0.0
        tile = self.memory.padding
        alone = sum(count * arithmetic(replace(one, n_token=-(-one.n_token // tile) * tile)) for one, count in jobs)
        together = arithmetic(padded_sizes([one for one, _ in jobs])) * sum(count for _, count in jobs)
        return 100 * (together - alone) / alone

    def plan_group(self, jobs: Mapping[int, tuple[Sizes, Sequence[int]]], budget: int) -> tuple[BatchPlan, ...]:
        """Plan jobs that run together: one batch of several jobs, or the batches of one job.

        Args:
            jobs: Sizes and seeds of each job, by its number in the group.
        """
        if len(jobs) == 1:
            ((job, (sizes, seeds)),) = jobs.items()
            return tuple(
                replace(batch, entries=tuple((job, seed) for seed in batch.seeds))
                for batch in self.plan(sizes, seeds, budget)
            )
        entries = tuple((job, seed) for job, (_, seeds) in jobs.items() for seed in seeds)
        of_jobs = {job: sizes for job, (sizes, _) in jobs.items()}
        batch = BatchPlan(entries=entries, sample_chunk=self.settings.samples, estimated_bytes=0)
        return (self._roomy(_estimated(batch, self.batch_bytes(of_jobs)), of_jobs, budget),)

    def plan(self, sizes: Sizes, seeds: Sequence[int], budget: int) -> tuple[BatchPlan, ...]:
        """Plan the batches of a job that fit in ``budget`` bytes.

        If every seed runs alone through Protenix's own modules, each batch has one seed and no estimate.
        """
        if self.settings.reference_reason is not None:
            return tuple(BatchPlan(entries=((0, seed),), sample_chunk=1, estimated_bytes=0) for seed in seeds)
        n_sample, most = self.settings.samples, self.settings.max_seeds
        batches = plan_batches(seeds, n_sample, budget, self.peak_bytes(sizes), most)
        return tuple(self._roomy(batch, {0: sizes}, budget) for batch in batches)

    def _roomy(self, batch: BatchPlan, jobs: Mapping[int, Sizes], budget: int) -> BatchPlan:
        """Return the batch as a roomy one, if that makes a difference and the memory allows it."""
        usual, roomy = (self._of_batch(replace(batch, roomy=roomy), jobs) for roomy in (False, True))
        if roomy == usual or roomy.peak_bytes > budget:
            return batch
        return replace(batch, roomy=True, estimated_bytes=roomy.peak_bytes)

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
            part = replace(sizes, n_token=n_token, n_atom=sizes.n_atom * n_token // sizes.n_token)
            return self.estimate(part, 1, 1).peak_bytes <= budget

        # Not a binary search: above some sizes parts run in 16 bits, and a larger complex can take less memory.
        return next((n for n in range(sizes.n_token // 16 * 16, 0, -16) if fits(n)), 0)


def make_planner(
    settings: PlanSettings, configs: Any, model: Any, *, on_gpu: bool, fused: bool, half: bool = False
) -> Planner:
    """Return the planner of a run. The model's weights need not be loaded.

    Args:
        configs: Upstream's configuration.
        model: Upstream's model.
        fused: Whether Triton kernels run.
        half: Whether they take factors in float16 where upstream takes TF32.
    """
    spec = model_spec(settings.model)
    return Planner(
        model=ModelSize.of(configs, model),
        memory=Settings(
            n_sample=settings.samples,
            n_step=configs.sample_diffusion.N_step,
            trunk_bytes=2 if on_gpu and configs.dtype != "fp32" else 4,
            **bytes_of_parts(settings.precision, half=half),
            sampling_full_precision_max_tokens=spec.sampling_full_precision_max_tokens if on_gpu else sys.maxsize,
            confidence_full_precision_max_tokens=spec.confidence_full_precision_max_tokens if on_gpu else sys.maxsize,
            padding=TOKEN_PADDING_GPU if on_gpu else 1,
            on_gpu=on_gpu,
            fused=fused,
        ),
        settings=settings,
    )
