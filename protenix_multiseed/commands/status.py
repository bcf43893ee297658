"""``protenix-ms status``: what of an output folder is done, running, failed and left. It only reads."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from protenix_multiseed.commands.console import MAX_ROWS, make_console
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.files import read_text
from protenix_multiseed.inputs.seeds import format_seeds
from protenix_multiseed.outputs.identity import digest
from protenix_multiseed.outputs.locks import LOCK_FILE
from protenix_multiseed.outputs.progress import Seen, read_progress
from protenix_multiseed.outputs.record import read_failures, seeds_of
from protenix_multiseed.outputs.seed_files import RECORD, read_record, seed_folders
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.units import counted, format_seconds

_COUNTS = ("asked", "done", "running", "failed", "skipped", "left")
# By whether the run was asked to stop, and whether its process still runs.
_STATES = {
    (False, True): "running",
    (False, False): "killed",
    (False, None): "running or killed (its lock cannot be read)",
    (True, True): "stopping",
    (True, False): "stopped",
    (True, None): "stopping or stopped (its lock cannot be read)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The numbers of seeds of one job, over all runs of the folder. Early stopping has skipped the skipped ones."""

    job: str
    asked: int
    done: int
    running: int
    failed: int
    skipped: int
    left: int


def status(out: Path, *, as_json: bool) -> int:
    """Show the state of an output folder. Returns 0.

    Raises:
        ConfigError: if no run has written to the folder.
    """
    try:
        if not (out / RUN_FOLDER / LOCK_FILE).is_file():
            raise ConfigError(f"{out}: no run has written here; give the folder that --out named")
        content = read_status(out)
    except PermissionError as error:
        raise ConfigError(f"{reason_of(error)}; {advice_for(error)}") from None
    console = make_console()
    if as_json:
        console.print_json(json.dumps(content))
        return 0
    jobs, total = content["jobs"], content["total"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job")
    for column in _COUNTS:
        table.add_column(column, justify="right")
    for row in [*jobs[:MAX_ROWS], {**total, "job": "all jobs"}]:
        table.add_row(escape(row["job"]), *(str(row[name]) for name in _COUNTS))
    console.print(table)
    if len(jobs) > MAX_ROWS:
        console.print(f"[dim]... and {counted(len(jobs) - MAX_ROWS, 'more job')} (--json has all)[/dim]")
    if total["skipped"]:
        text = "skipped: the last seeds of the job did not improve its best score (--stop-when-stable)"
        console.print(text, soft_wrap=True)
    for run in content["runs"]:
        state = _STATES[run["is_stopping"], run["is_alive"]]
        made = f"{counted(run['done'], 'seed')} in {format_seconds(run['seconds'])}"
        console.print(f"{state}: {escape(run['run'])}, {made}", soft_wrap=True)
        for batch in run["running"] if run["is_alive"] is not False else ():
            place = f"{batch['where']}: " if batch["where"] else ""
            others = f", with {counted(len(batch['others']), 'more job')}" if batch["others"] else ""
            seeds = f"seed{'s' if len(batch['seeds']) > 1 else ''} {format_seeds(batch['seeds'])}"
            text = f"  {place}{batch['job']} {seeds}{others}, "
            text += f"{batch['stage']} {batch['done']}/{batch['total']}"
            console.print(escape(text), soft_wrap=True)
    if content["seeds_per_minute"]:
        to_go = format_seconds(content["seconds_to_go"])
        console.print(f"{content['seeds_per_minute']:.1f} seeds a minute, about {to_go} to go")
    return 0


def read_status(out: Path) -> dict[str, Any]:
    """Return the state of an output folder: ``jobs``, ``total``, ``runs``, ``seeds_per_minute``, ``seconds_to_go``."""
    runs = list(read_progress(out))
    skips, fails = {run.run: run.skipped for run in runs}, {run.run: run.failed for run in runs}
    alive = {run.run for run in runs if run.is_alive}
    asked: dict[str, set[int]] = {}
    # What the last run that was asked for a seed has skipped, and what it has failed if it has not ended by itself.
    stable, failing = set[tuple[str, int]](), set[tuple[str, int]]()
    failures = read_failures(out / RUN_FOLDER / "failures.jsonl")
    lost = {(line["job"], seed) for line in failures if line.get("stage") != "rank" for seed in seeds_of(line)}
    asked_by: dict[str, Mapping[str, Set[int]]] = {}
    made_from: dict[str, list[str | None]] = {}
    for path in sorted((out / RUN_FOLDER / "runs").glob("*.json")):  # the oldest first
        record = _record(path)
        asked_by[path.stem] = record.asked
        runs += [record.stopped] if record.stopped else []
        for name, seeds in record.asked.items():
            asked.setdefault(name, set()).update(seeds)
            again = {(name, seed) for seed in seeds}
            stable -= again
            failing -= again
            if path.stem in alive:  # it tries again what has failed before
                lost -= {*again, (name, None)}
            made_from.setdefault(name, []).append(record.made_from.get(name))
        stable.update(record.skipped, skips.get(path.stem, ()))
        failing.update(fails.get(path.stem, ()))
    lost |= failing
    going = [run for run in runs if run.is_alive is not False]
    batches = [{batch["job"]: batch["seeds"], **batch["others"]} for run in going for batch in run.running]
    jobs, to_do = [], {}
    for name, seeds in asked.items():
        done = _done(seed_folders(out / name, out), seeds, made_from[name])
        failed = {seed for seed in seeds - done if (name, seed) in lost or (name, None) in lost}
        running = {seed for parts in batches for seed in parts.get(name, ())}
        running &= seeds - done - failed
        skipped = {seed for seed in seeds - done - failed - running if (name, seed) in stable}
        parts = {"done": done, "running": running, "failed": failed, "skipped": skipped}
        to_do[name] = left = seeds.difference(*parts.values())
        jobs.append(
            JobStatus(job=name, asked=len(seeds), left=len(left), **{part: len(found) for part, found in parts.items()})
        )
    total = {name: sum(getattr(job, name) for job in jobs) for name in _COUNTS}
    rate = sum(run.done / run.seconds for run in going if run.seconds)
    return {
        "jobs": [asdict(job) for job in jobs],
        "total": total,
        "runs": [asdict(run) for run in runs if run.is_alive is not False or _is_undone(asked_by.get(run.run), to_do)],
        "seeds_per_minute": round(60 * rate, 2),
        "seconds_to_go": round((total["left"] + total["running"]) / rate) if rate else None,
    }


def _done(there: Mapping[int, Path], seeds: Set[int], made_from: Sequence[str | None]) -> set[int]:
    """Return the seeds that are done.

    Their records are only read if a run has replaced the results of earlier ones (``--overwrite``).

    Args:
        there: The folder of each seed.
        made_from: What the results of the job are made from, for each run, the latest last.
    """
    done = {seed for seed in seeds if seed in there and (there[seed] / RECORD).is_file()}
    if len(set(made_from)) == 1:
        return done
    records = {seed: read_record(there[seed]) for seed in done}
    return {seed for seed, record in records.items() if record and digest(record["made_from"]) == made_from[-1]}


def _is_undone(asked: Mapping[str, Set[int]] | None, left: Mapping[str, Set[int]]) -> bool:
    """Whether a run was asked for seeds that are still left; True if it is not known what it was asked for."""
    return asked is None or any(not seeds.isdisjoint(left[name]) for name, seeds in asked.items())


@dataclass(frozen=True, slots=True)
class _Record:
    """What the record of a run says.

    Attributes:
        asked: The seeds of each job.
        made_from: What the results of each job are made from, as a hash.
        skipped: Job and seed of each seed that early stopping has skipped.
        stopped: The progress of a run that a signal ended; None for other runs.
    """

    asked: dict[str, set[int]] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    skipped: set[tuple[str, int]] = field(default_factory=set)
    stopped: Seen | None = None


def _record(path: Path) -> _Record:
    """Read the record of a run. It is empty if it cannot be read."""
    try:
        content = json.loads(read_text(path, path.parent))
        asked = {str(job["name"]): {int(seed) for seed in job["seeds"]} for job in content["jobs"]}
        made_from = {str(job["name"]): str(job["made_from"]) for job in content["jobs"] if "made_from" in job}
        stable = content.get("stopped_when_stable", {})
        skipped = {(name, seed) for name, job in stable.items() for seed in job["seeds_not_run"]}
        stopped = None
        if "stopped_by" in content:
            stopped = Seen(
                run=path.stem, seconds=float(content["seconds"]), done=int(content["units"]["done"]),
                running=(), failed=(), skipped=(), is_stopping=True, is_alive=False,
            )  # fmt: skip
        return _Record(asked, made_from, skipped, stopped)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _Record()
