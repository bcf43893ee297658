"""``protenix-ms report``: make one HTML page of finished results."""

from collections.abc import Sequence
from pathlib import Path

import typer

from protenix_multiseed.commands.rank import find_jobs, gather_jobs
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import write_text
from protenix_multiseed.page.build import build_page
from protenix_multiseed.paths import REPORT


def report(outs: Sequence[Path], to: Path | None, *, slim: bool) -> None:
    """Write the HTML page of the results in these output folders.

    Args:
        outs: Output folders of predict.
        to: Path of the page; None for ``report.html`` in the first folder.
        slim: Include fewer structures.

    Raises:
        ConfigError: if there are no results, or if the page cannot be made.
    """
    jobs = {job.name: job.findings for job in gather_jobs(find_jobs(outs))}
    page = to or outs[0] / REPORT
    try:
        write_text(page, build_page(outs[0].resolve().name, jobs, slim=slim))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{page}: the report could not be made: {error}") from None
    typer.echo(f"{page}: {page.stat().st_size / 2**20:.1f} MB, {len(jobs)} jobs")
