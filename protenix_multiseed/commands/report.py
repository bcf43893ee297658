"""``protenix-ms report``: make one HTML page of finished results."""

from collections.abc import Sequence
from pathlib import Path

import typer

from protenix_multiseed.commands.console import make_console
from protenix_multiseed.commands.rank import (
    FoundJob,
    RankedJob,
    find_jobs,
    gather_job,
    leave_out,
    refuse_if_none,
    show_problems,
    skipped,
)
from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.files import write_text
from protenix_multiseed.page.build import build_page, job_data
from protenix_multiseed.paths import REPORT


def report(outs: Sequence[Path], to: Path | None, *, slim: bool) -> int:
    """Write the HTML page of the results in these output folders.

    A damaged seed or job is named and left out. Returns 1 if there is one, else 0.

    Args:
        outs: Output folders of predict.
        to: Path of the page; None for ``report.html`` in the first folder.
        slim: Include fewer structures.

    Raises:
        ConfigError: if there are no results, or if the page cannot be made.
    """
    made = [_collect(job, slim=slim) for job in find_jobs(outs)]
    console, page = make_console(), to or outs[0] / REPORT
    for job, _ in made:
        show_problems(console, job)
    refuse_if_none([job for job, _ in made])
    data = [text for _, text in made if text is not None]
    try:
        write_text(page, build_page(outs[0].resolve().name, data))
    except OSError as error:
        raise ConfigError(f"{reason_of(error)}; {advice_for(error)}, or choose another file with --to") from None
    typer.echo(f"{page}: {page.stat().st_size / 2**20:.1f} MB, {len(data)} jobs")
    return int(any(job.problems for job, _ in made))


def _collect(found: FoundJob, *, slim: bool) -> tuple[RankedJob, str | None]:
    """Return a job and its data for the page; None if the job was skipped.

    The page needs more of each seed than the ranking. If this part is damaged, the seed is left out too.
    """
    while (job := gather_job(found)).findings is not None:
        try:
            return job, job_data(job.name, job.findings, slim=slim)
        except DamagedError as error:
            leave_out(found, error)
        except Exception as error:  # this job is skipped; the page shows the others
            return skipped(found, error), None
    return job, None
