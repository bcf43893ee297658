"""``predict --dry-run``: show what a run would do. It needs no weights and no GPU, and does not featurize."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from protenix_multiseed.commands.common import read_inputs
from protenix_multiseed.commands.console import MAX_ROWS, make_console, show_note
from protenix_multiseed.config import RunConfig
from protenix_multiseed.execution.disk import estimate_disk_bytes
from protenix_multiseed.execution.figures import CARD, MOST_TOKENS, batch_seconds, hold_for
from protenix_multiseed.execution.grouping import group
from protenix_multiseed.execution.memory import MARGIN, MemoryEstimate
from protenix_multiseed.execution.speeds import Speed, Timing, speed_of, timings_of
from protenix_multiseed.model.buckets import padded_sizes
from protenix_multiseed.run.preflight import check_surroundings, existing_part, missing_parts
from protenix_multiseed.run.prepare import has_hits
from protenix_multiseed.types import BatchPlan, Failure, Job, Sizes
from protenix_multiseed.units import counted, format_bytes, format_seconds
from protenix_multiseed.upstream.dictionary import Dictionary

if TYPE_CHECKING:
    from protenix_multiseed.execution.plan import Planner


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """Plan of a run for one job.

    Attributes:
        job: The job.
        sizes: Numbers of tokens, atoms and MSA rows.
        batches: Batches that the run would compute.
        one_seed, largest: Memory estimates of one seed with all its samples, and of the largest batch.
        budget: Bytes of device memory that the plan may fill.
        n_sample: Diffusion samples per seed.
        device: The device for which the run is planned.
        seconds: Estimated seconds of computing all batches; None if nothing was measured from which to estimate it.
        speed: What earlier batches on this device say, if the estimate comes from them.
        disk_bytes: Estimated bytes of the results of all seeds.
        reference_reason: Why every seed would run alone through Protenix's own modules; None if seeds are batched.
        refusal: Why the run would refuse the job; None if it would accept it.
        shared_with: Names of the other jobs of its batch, if it shares one.
    """

    job: Job
    sizes: Sizes
    batches: tuple[BatchPlan, ...]
    one_seed: MemoryEstimate
    largest: MemoryEstimate
    budget: int
    n_sample: int
    device: str
    seconds: float | None
    speed: Speed | None
    disk_bytes: int
    reference_reason: str | None
    refusal: str | None
    shared_with: tuple[str, ...] = ()


def dry_run(config: RunConfig, inputs: Sequence[Path], *, as_json: bool, show_all: bool) -> int:
    """Show the plan of every job, and what a run would miss here. Returns 1 if the run would be refused, else 0.

    With ``assume_free`` the plan is for another machine, so what this one lacks does not count.

    Raises:
        ProtenixMsError: if the whole run would be refused before sizes are known.
    """
    jobs, dictionary = read_inputs(config, inputs)
    config = check_surroundings(config, needs_checkpoint=False, has_hits=has_hits(jobs))
    console = make_console()
    missing, plans = list(missing_parts(config)), list(make_plans(config, jobs, dictionary))
    if as_json:
        console.print_json(json.dumps([_record(plan) for plan in plans]))
    else:
        _show(console, plans, show_all=show_all)
    beside = make_console(sys.stderr) if as_json else console
    for text in missing:
        beside.print(f"[red]missing[/red] {escape(text)}", soft_wrap=True)
    for note in (_full_disk(config, sum(plan.disk_bytes for plan in plans)), _found_before(config, jobs)):
        if note is not None:
            beside.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
    return int(any(plan.refusal for plan in plans) or (bool(missing) and config.assume_free is None))


def _found_before(config: RunConfig, jobs: Sequence[Job]) -> str | None:
    """Say that some jobs have results, whose seeds are planned all the same."""
    count = sum((config.out / job.name).exists() for job in jobs)
    if not count:
        return None
    return (
        f"{config.out} has results of {count:,} of these jobs: all seeds are planned here, and a "
        "run predicts those that are left, or is refused if settings or inputs differ"
    )


def make_plans(config: RunConfig, jobs: Sequence[Job], dictionary: Dictionary) -> Iterator[JobPlan]:
    """Plan every job as the run would. With ``assume_free``, plan for a GPU unless the user chose the CPU."""
    from protenix_multiseed.features.sizes import count_sizes
    from protenix_multiseed.upstream.environment import prepare

    prepare(dictionary)
    planner, budget = _planner(config)
    n_sample, reason = config.samples, planner.settings.reference_reason
    device, is_here = _device(config)
    card = device if is_here and planner.memory.fused and not reason else None
    timings = _timings(config) if is_here and not reason else []
    write = config.write_settings
    sized = [(job, count_sizes(job.spec, config.feature_settings)) for job in jobs]
    plans: dict[str, JobPlan] = {}
    for members in _groups(planner, sized, budget):
        planned = planner.plan_group({n: (sizes, job.seeds) for n, (job, sizes) in enumerate(members)}, budget)
        widest = max(planned, key=lambda batch: batch.estimated_bytes)
        padded = padded_sizes([sizes for _, sizes in members])
        speed = speed_of(
            timings,
            model=config.model,
            precision=config.precision,
            kernels="triton" if planner.memory.fused else "torch",
            tokens=padded.n_token,
        )
        if speed and speed.is_first and hold_for(card, config.model, padded.n_token):
            speed = None  # a first batch also compiles
        for number, (job, sizes) in enumerate(members):
            one_seed = planner.estimate(sizes, 1, n_sample)
            largest = planner.estimate(
                padded, len(widest.entries), widest.sample_chunk, len(members), roomy=widest.roomy
            )
            plans[job.name] = JobPlan(
                job=job,
                sizes=sizes,
                batches=tuple(
                    replace(batch, entries=tuple((0, seed) for seed in batch.seeds_of(number))) for batch in planned
                ),
                one_seed=one_seed,
                largest=one_seed if reason else largest,
                budget=budget,
                n_sample=n_sample,
                device=device,
                seconds=_seconds(config, card, speed, padded, planned, number),
                speed=speed,
                disk_bytes=estimate_disk_bytes(
                    sizes,
                    seeds=len(job.seeds),
                    n_sample=n_sample,
                    kept=write.kept,
                    full_confidence=write.full_confidence,
                    pae=write.pae,
                ),
                reference_reason=reason,
                refusal=planner.refusal(sizes, budget),
                shared_with=tuple(other.name for other, _ in members if other.name != job.name),
            )
    return (plans[job.name] for job in jobs)


def _timings(config: RunConfig) -> list[Timing]:
    """Return the earlier batches on the run's device."""
    from protenix_multiseed.execution import hardware

    return timings_of(hardware.speed_name(hardware.choose_device(config.device)))


def _seconds(
    config: RunConfig,
    card: str | None,
    speed: Speed | None,
    sizes: Sizes,
    batches: Sequence[BatchPlan],
    number: int,
) -> float | None:
    """Estimate the seconds of a job: its share of each batch. None if nothing was measured for this device."""
    if sizes.n_token > MOST_TOKENS or (speed is None and not hold_for(card, config.model, sizes.n_token)):
        return None
    total = 0.0
    for batch in batches:
        seconds = batch_seconds(
            len(batch.entries),
            precision=config.precision,
            tokens=sizes.n_token,
            cycles=config.upstream_settings.cycles or config.spec.cycles,
            steps=config.upstream_settings.steps or config.spec.steps,
            samples=config.samples,
        )
        total += seconds * len(batch.seeds_of(number)) / len(batch.entries)
    return total * (speed.ratio if speed else 1.0)


def _groups(
    planner: "Planner", sized: Sequence[tuple[Job, Sizes]], budget: int
) -> "Iterator[Sequence[tuple[Job, Sizes]]]":
    """Yield the jobs that share batches, in the order of the run."""

    def may_share(members: Sequence[tuple[Job, Sizes]]) -> bool:
        return planner.may_share([(sizes, len(job.seeds)) for job, sizes in members], budget)

    in_order = sorted(sized, key=lambda one: -one[0].n_token)
    return (made for made in group(in_order, may_share) if not isinstance(made, Failure))


def _planner(config: RunConfig) -> "tuple[Planner, int]":
    """Return the run's planner and the bytes of device memory that a plan may fill.

    It assumes that the weights, which are not loaded, fit float16.
    """
    from protenix_multiseed.execution import hardware
    from protenix_multiseed.execution.plan import make_planner
    from protenix_multiseed.kernels.probe import known_outcomes
    from protenix_multiseed.model.fast.diffusion_blocks import may_be_half
    from protenix_multiseed.model.weights import build_model
    from protenix_multiseed.upstream.configs import build_configs

    device = hardware.choose_device(config.device)
    on_gpu = device.type == "cuda" or (config.assume_free is not None and config.device != "cpu")
    configs = build_configs(config.upstream_settings, device_capability=hardware.capability_of(device))
    card = hardware.card_of(device)
    outcome = known_outcomes(card).get("triton", "ok") if card else "ok" if device.type == "cpu" else "no GPU for it"
    fused = on_gpu and config.kernels != "torch" and outcome == "ok"
    planner = make_planner(
        config.plan_settings,
        configs,
        build_model(configs),
        on_gpu=on_gpu,
        fused=fused,
        half=fused and may_be_half(configs),
    )
    return planner, int(MARGIN * (config.assume_free or hardware.available_bytes(device)))


def _device(config: RunConfig) -> tuple[str, bool]:
    """Return the name of the device, or a description if the plan is for another machine, and whether it is here."""
    from protenix_multiseed.execution import hardware

    device = hardware.choose_device(config.device)
    if device.type == "cpu" and config.assume_free is not None and config.device != "cpu":
        return "a GPU that is not here (--assume-free)", False
    return hardware.name_of(device), True


def _full_disk(config: RunConfig, n_byte: int) -> str | None:
    """Return a sentence if the results need more room than the output folder's disk has now."""
    if config.assume_free is not None:  # the plan is for another machine
        return None
    folder = existing_part(config.out)
    if n_byte <= (free := shutil.disk_usage(folder).free):
        return None
    return f"the results of all seeds take about {format_bytes(n_byte)}, and {format_bytes(free)} are free in {folder}"


def _show(console: Console, plans: Sequence[JobPlan], *, show_all: bool) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("job", min_width=12, overflow="fold")
    for column in ("tokens", "MSA rows", "batches", "memory", "time", "disk"):
        table.add_column(column, justify="right", no_wrap=column != "batches")
    shown = plans if show_all else plans[:MAX_ROWS]
    for plan in shown:
        table.add_row(
            escape(plan.job.name),
            f"{plan.sizes.n_token:,}",
            f"{plan.sizes.n_msa:,}" if plan.job.spec.has_msa else "none",
            _batches(plan),
            format_bytes(plan.largest.peak_bytes),
            "-" if plan.seconds is None else format_seconds(plan.seconds),
            format_bytes(plan.disk_bytes),
        )
    console.print(table)
    if len(shown) < len(plans):
        noted = sum(bool(plan.job.notes) for plan in plans[len(shown) :])
        left_out = f"... and {counted(len(plans) - len(shown), 'more job')}, {noted} of them with notes"
        console.print(f"{left_out} (-v shows all, --json has all)")
        n_batch = round(sum(len(plan.batches) / (1 + len(plan.shared_with)) for plan in plans))
        n_unit = sum(len(plan.job.seeds) for plan in plans)
        most, disk = max(plan.sizes.n_token for plan in plans), format_bytes(sum(plan.disk_bytes for plan in plans))
        batches = counted(n_batch, "batch")
        console.print(f"{len(plans)} jobs, {n_unit:,} predictions in {batches}, up to {most:,} tokens, {disk}")
    if plans:
        console.print(f"device: {escape(plans[0].device)}, {format_bytes(plans[0].budget)} for a batch; {_time(plans)}")
    for plan in shown:
        for note in plan.job.notes:
            show_note(console, plan.job.name, note)
        if plan.reference_reason and not plan.refusal:
            text = (
                "one seed at a time through Protenix's own modules, because of "
                f"{plan.reference_reason}; the memory estimate does not hold for it"
            )
            show_note(console, plan.job.name, text)
    refused = [plan for plan in plans if plan.refusal]
    for plan in refused if show_all else refused[:MAX_ROWS]:
        console.print(f"[red]refused[/red] {escape(plan.job.where)}: {escape(plan.refusal or '')}", soft_wrap=True)
    if not show_all and len(refused) > MAX_ROWS:
        console.print(f"[red]refused[/red] ... and {len(refused) - MAX_ROWS} more")


def _time(plans: Sequence[JobPlan]) -> str:
    """Return a sentence on the time of all jobs."""
    known = [plan.seconds for plan in plans if plan.seconds is not None]
    if not known:
        return "time unknown: no times of jobs like these are known for this device"
    n_unknown = len(plans) - len(known)
    left_out = f", {counted(n_unknown, 'job')} of unknown time left out" if n_unknown else ""
    sources = dict.fromkeys(source for plan in plans if (source := _source(plan)))
    return f"about {format_seconds(sum(known))} of computing, an estimate from {' and '.join(sources)}{left_out}"


def _source(plan: JobPlan) -> str | None:
    """Return what the estimated time of a job comes from."""
    if plan.seconds is None:
        return None
    if plan.speed is None:
        return f"times measured on one {CARD}"
    return f"{'first' if plan.speed.is_first else 'earlier'} batches on this device"


def _batches(plan: JobPlan) -> str:
    """Batches as text, such as ``2 x 10 seeds`` or ``shared by 12 jobs``.

    The sample chunk is added if it is smaller than all samples.
    """
    if plan.reference_reason:
        return f"{len(plan.batches)} x 1 seed"
    if plan.shared_with:
        return f"shared by {1 + len(plan.shared_with)} jobs"
    widths = Counter((len(batch.seeds), batch.sample_chunk) for batch in plan.batches)
    return ", ".join(
        f"{count} x {counted(width, 'seed')}"
        + (f", {counted(chunk, 'sample')} at once" if chunk < plan.n_sample else "")
        for (width, chunk), count in widths.items()
    )


def _record(plan: JobPlan) -> dict[str, Any]:
    return {
        "job": plan.job.name,
        "seeds": list(plan.job.seeds),
        "device": plan.device,
        "budget_bytes": plan.budget,
        "estimated_seconds": plan.seconds and round(plan.seconds, 2),
        "estimated_from": _source(plan),
        "tokens": plan.sizes.n_token,
        "atoms": plan.sizes.n_atom,
        "msa_rows": plan.sizes.n_msa,
        "one_seed_bytes": plan.one_seed.peak_bytes,
        "largest_batch_bytes": plan.largest.peak_bytes,
        "resident": dict(plan.largest.resident),
        "stages": {name: dict(terms) for name, terms in plan.largest.stages.items()},
        "batches": [
            {"seeds": list(b.seeds)} | {name: getattr(b, name) for name in ("sample_chunk", "roomy", "estimated_bytes")}
            for b in plan.batches
        ],
        **({"shared_with": list(plan.shared_with)} if plan.shared_with else {}),
        "disk_bytes": plan.disk_bytes,
        "path": "reference" if plan.reference_reason else "batched",
        "notes": list(plan.job.notes),
        **({"refused": plan.refusal} if plan.refusal else {}),
    }
