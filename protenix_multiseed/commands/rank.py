"""``protenix-ms rank``: rank and compare finished results again, from one output folder or from several."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rich.markup import escape

from protenix_multiseed.commands.console import make_console, show_findings, show_problems
from protenix_multiseed.errors import ConfigError, RunError
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.files import check_inside, is_file
from protenix_multiseed.outputs.found import (
    FoundJob,
    RankedJob,
    find_jobs,
    gather_job,
    is_ours,
    refuse_if_none,
    skipped,
)
from protenix_multiseed.outputs.locks import LOCK_FILE, Locks
from protenix_multiseed.outputs.ranking import ranking_lock
from protenix_multiseed.outputs.summary import COLUMNS, summary_row, write_summary
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.paths import RUN_FOLDER, SUMMARY


def rank(outs: Sequence[Path], to: Path | None, *, cluster_rmsd: float, parquet: bool) -> int:
    """Rank every job found in the output folders, write its tables and show them.

    A damaged seed or job is named and left out. Returns 1 if there is one, else 0.

    Args:
        outs: Output folders of predict.
        to: Folder for the tables; None for the first output folder.
        cluster_rmsd: Average distance within a cluster, Angstrom.
        parquet: Write the tables as Parquet too.

    Raises:
        ConfigError: if a folder holds no results, or if no job can be ranked.
    """
    if parquet and find_spec("pyarrow") is None:
        raise ConfigError("--parquet needs the package pyarrow: pip install pyarrow, or leave --parquet out")
    console, target, found = make_console(), to or outs[0], find_jobs(outs)
    if all(target.resolve() != out.resolve() for out in outs):
        _refuse_other_files(target, found)
    jobs = []
    with _locks(target) as held:
        for one in found:
            with held(ranking_lock(one.name)):
                job = rank_job(one, target, cluster_rmsd=cluster_rmsd, parquet=parquet)
            show_problems(console, job)
            if job.findings is not None:
                show_findings(console, job.name, job.findings, target / job.name)
            jobs.append(job)
        refuse_if_none(jobs)
        try:
            with held("summary"):
                made = ((job.name, job.findings) for job in jobs)
                write_summary(target, {name: summary_row(name, found) for name, found in made if found is not None})
        except OSError as error:
            raise RunError(f"{reason_of(error)}; {advice_for(error)}, or choose another --to") from None
    for notice in dict.fromkeys(job.findings.notice for job in jobs if job.findings is not None):
        if notice:
            console.print(f"[yellow]{escape(notice)}[/yellow]")
    return int(any(job.problems for job in jobs))


def _refuse_other_files(to: Path, jobs: Sequence[FoundJob]) -> None:
    """Refuse to write tables where files are that rank did not write, which they could replace.

    Raises:
        ConfigError: if there are such files.
    """
    for folder in (to / job.name for job in jobs):
        with suppress(OSError):  # of a folder that cannot be read: the job is skipped later, which names the reason
            entries = list(folder.iterdir())
            if entries and not any(map(is_ours, entries)):
                raise ConfigError(f"--to: {folder} holds files that rank did not write; choose another --to")
    with suppress(OSError):
        if not (to / SUMMARY).read_bytes().startswith(",".join(COLUMNS).encode()):
            raise ConfigError(f"--to: rank did not write {to / SUMMARY}, which it would replace; choose another --to")


@contextmanager
def _locks(to: Path) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Return how to hold a lock of a folder, in which a run may write at the same time. Without a run it has none."""
    if not is_file(to / RUN_FOLDER / LOCK_FILE, to):
        yield lambda name: nullcontext()
        return
    with Locks(to, option="--to") as locks:
        yield locks.held


def rank_job(job: FoundJob, to: Path, *, cluster_rmsd: float, parquet: bool) -> RankedJob:
    """Rank a job and write its tables to ``to``."""
    made = gather_job(job, cluster_rmsd)
    if made.findings is not None:
        try:
            check_inside(to / job.name, to)
            write_findings(to / job.name, made.findings, parquet=parquet)
        except Exception as error:  # this job is skipped; the other jobs are still ranked
            made = replace(skipped(job, error), is_begun=isinstance(error, OSError))
    return made
