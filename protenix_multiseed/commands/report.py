"""``protenix-ms report``: make HTML pages of finished results."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.progress import Progress

from protenix_multiseed.commands.console import make_console, show_problems
from protenix_multiseed.commands.message import say
from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.files import check_inside, open_file, remove, write_bytes, write_text
from protenix_multiseed.outputs.found import FoundJob, RankedJob, find_jobs, gather_job, leave_out, skipped
from protenix_multiseed.outputs.record import read_notes
from protenix_multiseed.page.build import MARK, VIEWER, index_page, job_page, page_name, single_page
from protenix_multiseed.page.collect import JobData, collect
from protenix_multiseed.page.plots import draw
from protenix_multiseed.page.viewer import viewer_script
from protenix_multiseed.page.workers import in_parallel
from protenix_multiseed.paths import REPORT
from protenix_multiseed.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One job to make a page of.

    Attributes:
        title: Title of all pages.
        notes: Remarks on the job's input.
        slim: Include fewer structures.
        page: Path of the job's page; None if the job goes into one file with all jobs.
        index: The list of all jobs, relative to the page.
        neighbours: Names of the jobs before and after this one.
        plots: Folder for plots as PNG files; None if they are not wanted.
    """

    found: FoundJob
    title: str
    notes: tuple[str, ...]
    slim: bool
    page: Path | None
    index: str
    neighbours: tuple[str | None, str | None]
    plots: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What became of a task.

    Attributes:
        job: The job's notes and problems. It is without findings if it was skipped; they are not sent from the worker.
        row: The job's row in the list of jobs.
        data: The job's data if it goes into one file with all jobs.
        n_bytes: Size of the job's page, bytes.
    """

    job: RankedJob
    row: Mapping[str, Any]
    data: JobData | None = None
    n_bytes: int = 0


def report(outs: Sequence[Path], to: Path | None, *, slim: bool, one_file: bool, png: bool) -> int:
    """Write the HTML pages of the results in these output folders.

    A single job makes one file. Several jobs make one page each, beside a page that lists them. A damaged seed or job
    is named and left out. Returns 1 if there is one, else 0.

    Args:
        outs: Output folders of predict.
        to: Path of the page; None for ``report.html`` in the first folder.
        slim: Include fewer structures.
        one_file: Put all jobs into one file.
        png: Write plots as PNG files too.

    Raises:
        ConfigError: if there are no results, or if a page cannot be made.
    """
    if png and find_spec("matplotlib") is None:
        raise ConfigError("--png needs the package matplotlib: pip install matplotlib, or leave --png out")
    jobs, console, page = find_jobs(outs), make_console(), to or outs[0] / REPORT
    try:
        folder = None if one_file or len(jobs) == 1 else _folder_of(page, jobs)
        tasks = _tasks(jobs, outs, page, folder, slim=slim, png=png)
        for path in (page, *(task.page for task in tasks if task.page)):
            if path.exists() and not _is_page(path, page.parent):
                raise ConfigError(f"{path} exists, and no report wrote it; choose another file with --to")
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            made = list(progress.track(in_parallel(_make, tasks), len(tasks), description="pages"))
        for one in made:
            show_problems(console, one.job)
        if all("problem" in one.row for one in made):
            raise ConfigError("no job can be ranked")
        text = _write(page, folder, made, _title(outs))
        if n_stale := _remove_stale(page, {task.page for task, one in zip(tasks, made, strict=True) if one.n_bytes}):
            text += f"; {n_stale} page{'s' * (n_stale != 1)} of an earlier report removed"
    except OSError as error:
        raise ConfigError(f"{reason_of(error)}; {advice_for(error)}, or choose another file with --to") from None
    say(text)
    if drawn := [task.plots for task, one in zip(tasks, made, strict=True) if task.plots and "problem" not in one.row]:
        say(f"plots: {drawn[0] if len(drawn) == 1 else outs[0] / '*' / drawn[0].name}")
    return int(any(one.job.problems for one in made))


def _folder_of(page: Path, jobs: Sequence[FoundJob]) -> Path:
    """Return the folder for the pages of single jobs: the path of the page that lists them, without its ending.

    Raises:
        ConfigError: if a job's results are in this folder.
        OSError: if a link leads to another place.
    """
    folder = _pages_of(page)
    for job in jobs:
        for seed in job.seeds.values():
            if seed.parent.resolve() == folder.resolve():
                raise ConfigError(f"{folder}: results of a job are there; choose another file with --to")
    check_inside(folder, page.parent)
    return folder


def _pages_of(page: Path) -> Path:
    return page.with_suffix("") if page.suffix else page.with_name(f"{page.name}-pages")


def _remove_stale(page: Path, written: Collection[Path | None]) -> int:
    """Remove the pages of an earlier report that are not among those written now, such as those of jobs that are gone.

    Files that are no pages of ours stay. Returns the number of removed pages.
    """
    folder, n_removed = _pages_of(page), 0
    for path in sorted(folder.glob("*.html")):
        with suppress(OSError):  # a link that leads elsewhere, or a folder
            if path not in written and not path.is_symlink() and _is_page(path, page.parent):
                path.unlink()
                n_removed += 1
    if n_removed and [path.name for path in folder.iterdir()] == [VIEWER]:
        remove(folder)
    return n_removed


def _is_page(path: Path, folder: Path) -> bool:
    with open_file(path, folder) as file:
        return MARK.encode() in file.read(2000)


def _tasks(
    jobs: Sequence[FoundJob], outs: Sequence[Path], page: Path, folder: Path | None, *, slim: bool, png: bool
) -> list[_Task]:
    notes: dict[str, list[str]] = {}
    for out in reversed(outs):
        notes |= read_notes(out)
    names = [None, *(job.name for job in jobs), None]
    return [
        _Task(
            found=job,
            title=_title(outs),
            notes=tuple(notes.get(job.name, ())),
            slim=slim,
            page=folder and folder / page_name(job.name),
            index=f"../{page.name}",
            neighbours=(names[place], names[place + 2]),
            plots=outs[0] / job.name / "plots" if png else None,
        )
        for place, job in enumerate(jobs)
    ]


def _title(outs: Sequence[Path]) -> str:
    return ", ".join(dict.fromkeys(out.resolve().name for out in outs))


def _make(task: _Task) -> _Made:
    """Make the page and the plots of one job.

    The page needs more of each seed than the ranking. If this part is damaged, the seed is left out too.

    Raises:
        OSError: if a file cannot be written.
    """
    while (job := gather_job(task.found)).findings is not None:
        try:
            data = collect(job.name, job.findings, task.notes, slim=task.slim)
            plots = draw(job.findings) if task.plots else {}
        except DamagedError as error:
            leave_out(task.found, error)
        except Exception as error:  # this job is skipped; the other jobs get their pages
            job = skipped(task.found, error)
            break
        else:
            return _write_job(task, replace(job, findings=None), data, plots)
    return _Made(job=job, row={"name": job.name, "problem": job.problems[-1]})


def _write_job(task: _Task, job: RankedJob, data: JobData, plots: Mapping[str, bytes]) -> _Made:
    for name, content in plots.items():
        assert task.plots is not None
        check_inside(task.plots, task.plots.parents[1])
        write_bytes(task.plots / f"{name}.png", content)
    row = {**data.row, "problems": list(job.problems)}
    if task.page is None:
        return _Made(job=job, row=row, data=replace(data, row=row))
    text = job_page(task.title, replace(data, row=row), task.index, task.neighbours)
    write_text(task.page, text)
    return _Made(job=job, row=row, n_bytes=len(text))


def _write(page: Path, folder: Path | None, made: Sequence[_Made], title: str) -> str:
    """Write the page, or the list of the jobs and the viewer that their pages share. Return a line that says so."""
    n_job = sum("problem" not in one.row for one in made)
    if folder is None:
        write_text(page, single_page(title, [one.data for one in made if one.data is not None]))
        return f"{page}: {format_bytes(page.stat().st_size)}, {n_job} job{'s' * (n_job != 1)}"
    viewer = viewer_script()
    write_text(folder / VIEWER, viewer)
    write_text(page, index_page(title, [one.row for one in made], folder.name))
    size = format_bytes(sum(one.n_bytes for one in made) + len(viewer) + page.stat().st_size)
    return f"{page}: the list of {n_job} jobs; their pages are in {folder} ({size}). --one-file makes one file to send"
