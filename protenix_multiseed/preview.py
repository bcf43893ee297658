"""``--dry-run``: what a run would do, without weights and without a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass

from protenix_multiseed.config import RunConfig
from protenix_multiseed.dictionary import Dictionary
from protenix_multiseed.executor import make_configs, make_planner
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.hardware import choose_device
from protenix_multiseed.memory import MARGIN, MemoryEstimate, available_bytes, estimate_disk_bytes
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.pipeline import feature_settings
from protenix_multiseed.types import Batch, Failure, Job, Sizes
from protenix_multiseed.upstream import prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What a run would do with one job.

    Attributes:
        sizes: None where featurization failed; ``refusal`` says why.
        one_seed, largest: Estimates of one seed with all its samples, and of the largest batch.
        budget: Bytes that the plan may fill.
        reference_reason: Why its seeds would go one by one through Protenix's own modules, if they would.
    """

    job: Job
    sizes: Sizes | None
    batches: tuple[Batch, ...] = ()
    one_seed: MemoryEstimate | None = None
    largest: MemoryEstimate | None = None
    budget: int
    n_sample: int
    disk_bytes: int = 0
    reference_reason: str | None = None
    refusal: str | None = None


def preview(config: RunConfig, jobs: Sequence[Job], dictionary: Dictionary) -> list[JobPlan]:
    """Featurize and plan every job.

    A plan for ``assume_free`` bytes is one for a GPU, unless the CPU is asked for.
    """
    prepare(dictionary)
    device = choose_device(config.device)
    on_gpu = device.type == "cuda" or (config.assume_free is not None and config.device != "cpu")
    budget = int(MARGIN * (config.assume_free or available_bytes(device)))
    settings = feature_settings(config, jobs, None)
    with WorkerPool(config.workers or 1, offline=config.offline) as pool:
        coming = pool.featurize(jobs, settings)
        configs = make_configs(config, None)
        planner = make_planner(config, configs, build_model(configs), on_gpu=on_gpu)
        reason = config.reference_reason
        plans = []
        for made, job in zip(coming, jobs, strict=True):
            if isinstance(made, Failure):
                plans.append(JobPlan(job=job, sizes=None, budget=budget, n_sample=config.samples, refusal=made.message))
                continue
            sizes = made[0].sizes
            seeds = [[seed.seed for seed in features.seeds] for features in made]
            batches = tuple(batch for part in seeds for batch in planner.plan(sizes, part, budget))
            if reason:
                batches = tuple(
                    Batch(
                        seeds=(seed,),
                        sample_chunk=config.samples,
                        estimated_bytes=planner.estimate(sizes, 1, config.samples).peak_bytes,
                    )
                    for seed in job.seeds
                )
            widest = max(batches, key=lambda batch: batch.estimated_bytes)
            plans.append(
                JobPlan(
                    job=job,
                    sizes=sizes,
                    batches=batches,
                    one_seed=planner.estimate(sizes, 1, config.samples),
                    largest=planner.estimate(sizes, len(widest.seeds), widest.sample_chunk),
                    budget=budget,
                    n_sample=config.samples,
                    disk_bytes=estimate_disk_bytes(
                        sizes,
                        seeds=len(job.seeds),
                        n_sample=config.samples,
                        kept=config.kept_samples,
                        full_confidence=config.full_confidence,
                        pae=config.pae,
                    ),
                    reference_reason=reason,
                    refusal=None if reason or config.force else planner.refusal(sizes, budget),
                )
            )
    return plans
