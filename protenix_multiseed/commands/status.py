"""``protenix-ms status``: what of an output folder is done, running, failed and left. It only reads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from protenix_multiseed.commands.console import MAX_ROWS, make_console
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.files import read_text
from protenix_multiseed.inputs.seeds import format_seeds
from protenix_multiseed.outputs.locks import LOCK_FILE
from protenix_multiseed.outputs.progress import read_progress
from protenix_multiseed.outputs.record import read_failures
from protenix_multiseed.outputs.seed_files import RECORD, seed_folders
from protenix_multiseed.paths import RUN_FOLDER

_STATES = {True: "running", False: "killed", None: "running or killed (its lock cannot be read)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The numbers of seeds of one job, over all runs of the folder."""

    job: str
    asked: int
    done: int
    running: int
    failed: int
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
    for column in ("job", "asked", "done", "running", "failed", "left"):
        table.add_column(column, justify="left" if column == "job" else "right")
    for row in [*jobs[:MAX_ROWS], {**total, "job": "all jobs"}]:
        table.add_row(escape(row["job"]), *(str(row[name]) for name in ("asked", "done", "running", "failed", "left")))
    console.print(table)
    if len(jobs) > MAX_ROWS:
        console.print(f"[dim]{len(jobs) - MAX_ROWS} more jobs are not shown: use --json[/dim]")
    for run in content["runs"]:
        state = _STATES[run["is_alive"]]
        console.print(f"{state}: {escape(run['run'])}, {run['done']} seeds in {run['seconds']:.0f} s", soft_wrap=True)
        for batch in run["running"] if run["is_alive"] is not False else ():
            place = f"{batch['where']}: " if batch["where"] else ""
            others = f" and {len(batch['others'])} more jobs" if batch["others"] else ""
            text = f"  {place}{batch['job']} seeds {format_seeds(batch['seeds'])}{others}, "
            text += f"{batch['stage']} {batch['done']}/{batch['total']}"
            console.print(escape(text), soft_wrap=True)
    if content["seeds_per_minute"]:
        minutes = content["seconds_to_go"] / 60
        console.print(f"{content['seeds_per_minute']:.1f} seeds a minute, about {minutes:.0f} minutes to go")
    return 0


def read_status(out: Path) -> dict[str, Any]:
    """Return the state of an output folder: ``jobs``, ``total``, ``runs``, ``seeds_per_minute``, ``seconds_to_go``."""
    runs = list(read_progress(out))
    asked: dict[str, set[int]] = {}
    for path in sorted((out / RUN_FOLDER / "runs").glob("*.json")):
        for job in _jobs(path):
            asked.setdefault(job["name"], set()).update(job["seeds"])
    failures = read_failures(out / RUN_FOLDER / "failures.jsonl")
    lost = {(line["job"], line["seed"]) for line in failures if line.get("stage") != "rank"}
    lost.update(failed for run in runs for failed in run.failed)
    alive = [run for run in runs if run.is_alive is not False]
    batches = [{batch["job"]: batch["seeds"], **batch["others"]} for run in alive for batch in run.running]
    jobs = []
    for name, seeds in asked.items():
        there = seed_folders(out / name, out)
        done = {seed for seed in seeds if seed in there and (there[seed] / RECORD).is_file()}
        failed = {seed for seed in seeds - done if (name, seed) in lost or (name, None) in lost}
        running = {seed for parts in batches for seed in parts.get(name, ())}
        running &= seeds - done - failed
        left = len(seeds) - len(done) - len(failed) - len(running)
        jobs.append(
            JobStatus(job=name, asked=len(seeds), done=len(done), running=len(running), failed=len(failed), left=left)
        )
    names = ("asked", "done", "running", "failed", "left")
    total = {name: sum(getattr(job, name) for job in jobs) for name in names}
    rate = sum(run.done / run.seconds for run in alive if run.seconds)
    return {
        "jobs": [asdict(job) for job in jobs],
        "total": total,
        "runs": [asdict(run) for run in runs],
        "seeds_per_minute": round(60 * rate, 2),
        "seconds_to_go": round((total["left"] + total["running"]) / rate) if rate else None,
    }


def _jobs(path: Path) -> list[dict[str, Any]]:
    """Return the jobs of a run's record; none if it cannot be read."""
    try:
        jobs = json.loads(read_text(path, path.parent))["jobs"]
        return [job for job in jobs if isinstance(job["name"], str) and all(type(seed) is int for seed in job["seeds"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
