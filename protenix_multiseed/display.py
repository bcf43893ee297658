"""What a run shows: a live display on a terminal, plain lines elsewhere, and the ranking at the end."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from protenix_multiseed.config import RunConfig
from protenix_multiseed.doctor import Check
from protenix_multiseed.memory import format_bytes
from protenix_multiseed.outputs.findings import Findings
from protenix_multiseed.outputs.survey import Survey
from protenix_multiseed.report import RunReport
from protenix_multiseed.seeds import format_seeds
from protenix_multiseed.types import RUN_FOLDER, Batch, Failure, Features, Job, Prediction

if TYPE_CHECKING:  # these import torch
    from protenix_multiseed.bench import Bench
    from protenix_multiseed.preview import JobPlan

ROWS = 20  # of a job's ranking shown at the end


class RunDisplay:
    """Shows a run on a console.

    Args:
        verbosity: -1 shows errors only, 0 progress and results, 1 details of every seed.
    """

    def __init__(self, console: Console, jobs: Sequence[Job], verbosity: int) -> None:
        self._console, self._verbosity = console, verbosity
        self._is_live = console.is_terminal and verbosity >= 0
        self._seeds = sum(len(job.seeds) for job in jobs)
        self._done = 0
        self._tokens = 0
        self._started = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("seeds"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    @contextmanager
    def shown(self) -> Iterator["RunDisplay"]:
        """Show the display for the length of a block."""
        if not self._is_live:
            yield self
            return
        with self._progress:
            self._task = self._progress.add_task("starting", total=self._seeds)
            yield self

    def started(self) -> None:
        """From here on the run writes to its output folder."""

    def stopping(self, signal: str, grace: float) -> None:
        """The run was asked to stop."""
        text = (
            f"the batch in hand has {grace:g} s to finish, then what is done is written; a second signal ends at once"
        )
        self._console.print(f"[yellow]stopping[/yellow] after {signal}: {text}", soft_wrap=True)

    def stage(self, text: str) -> None:
        """The run as a whole enters a stage."""
        if self._task is not None:
            self._progress.update(self._task, description=text)
        elif self._verbosity >= 0:
            self._line(text)

    def features(self, features: Features) -> None:
        """A job's features have arrived."""
        name = features.job.name
        self._tokens = features.n_token
        size = f"{features.n_token} tokens, {features.n_atom} atoms, {features.n_msa} MSA rows"
        if self._task is not None:
            self._progress.update(self._task, description=f"{escape(name)}: {size}")
        if self._verbosity >= 1 or (not self._is_live and self._verbosity >= 0):
            self._line(f"{name}: {size}, {features.n_asym} chains; featurized in {features.seconds:.1f} s")
        for warning in features.warnings:
            self.warn(features.job, warning)

    def progress(self, job: Job, text: str) -> None:
        """A batch of a job enters a stage."""
        if self._task is not None:
            self._progress.update(self._task, description=escape(f"{job.name}, {self._tokens} tokens: {text}"))

    def predicted(self, prediction: Prediction) -> None:
        """A seed has been predicted."""
        self._advance()
        if self._verbosity >= 1 or (not self._is_live and self._verbosity >= 0):
            best = max(float(sample["ranking_score"]) for sample in prediction.summary)
            self._line(
                f"{prediction.job.name} seed {prediction.seed}: {len(prediction.summary)} samples in "
                f"{prediction.run['seconds']:.1f} s, best ranking score {best:.4f} ({self._done}/{self._seeds})"
            )

    def spared(self, job: Job, seeds: Sequence[int]) -> None:
        """Seeds that are not predicted, since those before them brought no better score."""
        self._advance(len(seeds))
        if self._verbosity >= 0:
            text = f"stopped, as further seeds brought no better score; not run: {format_seeds(seeds)}"
            self._console.print(f"[green]stable[/green] {escape(job.name)}: {text}", soft_wrap=True)

    def failed(self, failure: Failure) -> None:
        """A job or seed has failed."""
        self._advance(1 if failure.seed is not None else len(failure.job.seeds))
        place = failure.job.where + (f" seed {failure.seed}" if failure.seed is not None else "")
        message = failure.message.removeprefix(f"{place}: ").removeprefix(f"{failure.job.where}: ")
        self._console.print(f"[red]failed[/red] {escape(place)} ({failure.stage}): {escape(message)}", soft_wrap=True)

    def warn(self, job: Job, text: str) -> None:
        """Something about a job that the user should know."""
        if self._verbosity >= 0:
            self._console.print(f"[yellow]note[/yellow] {escape(job.name)}: {escape(text)}", soft_wrap=True)

    def _advance(self, seeds: int = 1) -> None:
        self._done += seeds
        if self._task is not None:
            self._progress.update(self._task, completed=min(self._done, self._seeds))

    def _line(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._started:7.1f} s[/dim]  {escape(text)}", soft_wrap=True)


def show_plans(console: Console, plans: "Sequence[JobPlan]", *, as_json: bool) -> None:
    """What a run would do with every job."""
    if as_json:
        console.print_json(json.dumps([_plan_record(plan) for plan in plans]))
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("job")
    for column in ("tokens", "atoms", "MSA rows", "one seed", "batch", "free", "batches", "disk"):
        table.add_column(column, justify="right", no_wrap=True)
    for plan in plans:
        if plan.sizes is None or plan.one_seed is None or plan.largest is None:
            table.add_row(escape(plan.job.name), *7 * ["-"], "-")
            continue
        table.add_row(
            escape(plan.job.name),
            f"{plan.sizes.n_token:,}",
            f"{plan.sizes.n_atom:,}",
            f"{plan.sizes.n_msa:,}",
            format_bytes(plan.one_seed.peak_bytes),
            format_bytes(plan.largest.peak_bytes),
            format_bytes(plan.budget),
            _batches(plan.batches, plan.n_sample),
            format_bytes(plan.disk_bytes),
        )
    console.print(table)
    for plan in plans:
        if plan.refusal:
            console.print(f"[red]refused[/red] {escape(plan.job.where)}: {escape(plan.refusal)}", soft_wrap=True)
        elif plan.reference_reason:
            console.print(
                f"[yellow]note[/yellow] {escape(plan.job.name)}: one seed at a time through Protenix's own modules, "
                f"because of {plan.reference_reason}; its memory is not what is estimated here",
                soft_wrap=True,
            )


def show_bench(console: Console, bench: "Bench", config: RunConfig, *, as_json: bool) -> None:
    """What ``protenix-ms bench`` measured, each side beside the faster of Protenix's."""
    features, base = bench.features, bench.baseline
    facts = {
        "device": bench.device,
        "model": config.model,
        "made_up_weights": bench.made_up_weights,
        "tokens": features.n_token,
        "atoms": features.n_atom,
        "msa_rows": features.n_msa,
        "seeds": len(features.seeds),
        "samples": config.samples,
        "cycles": config.cycles,
        "steps": config.steps,
        "versions": {name: metadata.version(name) for name in ("protenix", "torch")},
    }
    if as_json:
        sides = [asdict(side) | {"median": side.median, "speedup": base.median / side.median} for side in bench.sides]
        console.print_json(json.dumps({**facts, "sides": sides}))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for column in ("seconds", "from", "to", "speed-up", "trunk", "sample", "score", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for side in bench.sides:
        table.add_row(
            escape(side.name),
            f"{side.median:.2f}",
            f"{min(side.seconds):.2f}",
            f"{max(side.seconds):.2f}",
            f"{base.median / side.median:.2f} x",
            *(f"{seconds:.2f}" for seconds in side.stages.values()),
            format_bytes(side.peak_bytes),
        )
    weights = "made-up weights, " if bench.made_up_weights else ""
    console.print(
        f"{bench.device}: {config.model}, {weights}{features.n_token} tokens, {features.n_msa} MSA rows, "
        f"{len(features.seeds)} seeds x {config.samples} samples, {config.cycles} cycles, {config.steps} steps; "
        f"medians of {len(base.seconds)}; Protenix {facts['versions']['protenix']}, torch {facts['versions']['torch']}",  # type: ignore[index]
        soft_wrap=True,
    )
    console.print(table)


def _batches(batches: Sequence[Batch], n_sample: int) -> str:
    """``2 x 10 seeds``, and the sample chunk where it is not all samples."""
    widths = Counter((len(batch.seeds), batch.sample_chunk) for batch in batches)
    return ", ".join(
        f"{count} x {width} seed{'s' if width > 1 else ''}{f', {chunk} sample(s) at once' if chunk < n_sample else ''}"
        for (width, chunk), count in widths.items()
    )


def _plan_record(plan: "JobPlan") -> dict[str, Any]:
    record: dict[str, Any] = {"job": plan.job.name, "seeds": list(plan.job.seeds), "budget_bytes": plan.budget}
    if plan.sizes is not None and plan.one_seed is not None and plan.largest is not None:
        record |= {
            "tokens": plan.sizes.n_token,
            "atoms": plan.sizes.n_atom,
            "msa_rows": plan.sizes.n_msa,
            "one_seed_bytes": plan.one_seed.peak_bytes,
            "largest_batch_bytes": plan.largest.peak_bytes,
            "resident": dict(plan.largest.resident),
            "stages": {name: dict(terms) for name, terms in plan.largest.stages.items()},
            "batches": [
                {"seeds": list(b.seeds), "sample_chunk": b.sample_chunk, "estimated_bytes": b.estimated_bytes}
                for b in plan.batches
            ],
            "disk_bytes": plan.disk_bytes,
            "path": "reference" if plan.reference_reason else "batched",
        }
    return record | ({"refused": plan.refusal} if plan.refusal else {})


def show_results(console: Console, report: RunReport, out: Path, notice: str | None) -> None:
    """The ranking of every job, where its best structure is, and what failed."""
    for name, findings in report.findings.items():
        show_findings(console, name, findings, out / name)
    _show_failures(console, report, out)
    if report.n_elsewhere:
        console.print(f"{report.n_elsewhere} seeds were done by other processes meanwhile")
    if report.n_left:
        console.print(
            f"[yellow]stopped[/yellow] with {report.n_left} of {report.n_unit} seeds to do; the same command goes on",
            soft_wrap=True,
        )
    if notice:
        console.print(f"[yellow]{escape(notice)}[/yellow]")


def show_findings(console: Console, name: str, findings: Findings, folder: Path) -> None:
    """A job's best samples, whether the samples agree, and where to look."""
    order, found = findings.samples, findings.agreement
    table = Table(
        title=f"{escape(name)}: {len(order)} samples of {len({s.seed for s in order})} seeds, best first",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    cluster_of = found.cluster_of if found else {}
    scores = [findings.interface_scores(sample) for sample in order[:ROWS]]
    has_pairs, has_clash = any(scores), any(sample.has_clash for sample in order)
    columns = ["rank", "seed", "sample", "ranking score", "pLDDT", "pTM", "ipTM"]
    columns += ["ipSAE"] * has_pairs + ["cluster", "to best"] * (found is not None) + ["clash"] * has_clash
    for column in columns:
        table.add_column(column, justify="right")
    for place, sample in enumerate(order[:ROWS]):
        row = [str(place + 1), str(sample.seed), str(sample.sample), f"{sample.ranking_score:.4f}"]
        row += [f"{sample.plddt:.2f}", f"{sample.ptm:.4f}", f"{sample.iptm:.4f}"]
        row += [f"{scores[place].get('ipsae', 0):.3f}"] * has_pairs
        row += [str(cluster_of.get(place, "-")), f"{found.rmsd[0, place]:.1f} A"] if found is not None else []
        row += ["yes" if sample.has_clash else "no"] * has_clash
        table.add_row(*row, style="green" if place == 0 else None)
    console.print(table)
    if len(order) > ROWS:
        console.print(f"[dim]... and {len(order) - ROWS} more in {escape(str(folder / 'ranking.csv'))}[/dim]")
    for sentence in findings.sentences:
        console.print(escape(sentence[0].upper() + sentence[1:] + "."), soft_wrap=True)
    kept = sum(sample.structure is not None for sample in order)
    console.print(
        f"best structure: [bold]{escape(str(folder / 'best.cif'))}[/bold]   all samples: "
        f"{escape(str(folder / 'ranking.csv'))}   {kept} structures, {format_bytes(findings.n_bytes)}\n",
        soft_wrap=True,
    )


def _show_failures(console: Console, report: RunReport, out: Path) -> None:
    """What failed, why, and what to try."""
    if not report.failures:
        return
    table = Table(
        title=f"{len(report.failures)} failed",
        title_justify="left",
        title_style="bold red",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for column in ("job", "seed", "stage", "message", "what to try"):
        table.add_column(column, overflow="fold")
    for failed in report.failures[:ROWS]:
        seed = "all" if failed.seed is None else str(failed.seed)
        message = failed.message.removeprefix(f"{failed.job.where}: ")
        table.add_row(*map(escape, (failed.job.name, seed, failed.stage, message, failed.advice)))
    console.print(table)
    if len(report.failures) > ROWS:
        console.print(f"[dim]... and {len(report.failures) - ROWS} more[/dim]")
    folder = out / RUN_FOLDER
    console.print(f"all failures: {escape(str(folder / 'failures.jsonl'))}   tracebacks: the log\n", soft_wrap=True)


def show_survey(console: Console, found: Survey) -> None:
    """What is there already and will not be computed again."""
    for problem in found.damaged:
        console.print(f"[yellow]damaged[/yellow] {escape(problem)}; it is done again", soft_wrap=True)
    if found.others:
        console.print(f"[yellow]removing[/yellow] {len(found.others)} seeds that were made in another way")
    left = sum(len(job.seeds) for job in found.todo)
    if found.n_done:
        console.print(f"{found.n_done} seeds are done already, {left} to do")


def show_check(console: Console, check: Check) -> None:
    """One line of ``protenix-ms doctor``, and what to do."""
    colour = {"ok": "green", "note": "yellow", "wrong": "red"}[check.state]
    console.print(f"[{colour}]{check.state:5}[/{colour}] {escape(check.name)}: {escape(check.found)}", soft_wrap=True)
    if check.advice:
        console.print(f"      {escape(check.advice)}", soft_wrap=True)
