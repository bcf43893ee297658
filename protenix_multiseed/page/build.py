"""Build the HTML pages from our template, style sheet and scripts, and the data of the jobs."""

import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import quote

from protenix_multiseed import __version__
from protenix_multiseed.page.collect import JobData, pack_json, pack_text
from protenix_multiseed.page.viewer import viewer_script

VIEWER = "molstar.js"  # the viewer's file, beside the pages of the jobs
MARK = '<meta name="generator" content="protenix-ms">'  # tells our pages from files of others
_SCRIPTS = (
    "base.js", "table.js", "svg.js", "residues.js", "plots.js", "molecule.js", "tables.js", "job.js", "index.js",
    "main.js",
)  # fmt: skip


def single_page(title: str, jobs: Sequence[JobData]) -> str:
    """Return one page with all jobs and the viewer.

    Raises:
        ConfigError: if the viewer's package is missing.
    """
    viewer = _block("viewer-source", pack_text(viewer_script()))
    rows = [job.row for job in jobs]
    return _page(title, {"rows": rows}, jobs, viewer)


def index_page(title: str, rows: Sequence[Mapping[str, Any]], folder: str) -> str:
    """Return the page that lists all jobs.

    Args:
        title: Title of the page.
        rows: The row of each job. A row with a ``problem`` has no page.
        folder: The folder of the jobs' pages, relative to this page.
    """
    pages = [f"{quote(folder)}/{quote(page_name(row['name']))}" for row in rows]
    linked = [row if "problem" in row else {**row, "page": page} for row, page in zip(rows, pages, strict=True)]
    return _page(title, {"rows": linked}, ())


def job_page(title: str, job: JobData, index: str, neighbours: tuple[str | None, str | None]) -> str:
    """Return the page of one job. It needs the viewer's file beside it.

    Args:
        title: Title of all pages.
        job: The job's data.
        index: The page that lists all jobs, relative to this page.
        neighbours: Names of the jobs before and after this one.
    """
    before, after = (name and quote(page_name(name)) for name in neighbours)
    links = {"index": quote(index), "before": before, "after": after, "viewer": VIEWER}
    return _page(title, {"rows": [job.row], **links}, [job])


def page_name(job: str) -> str:
    """Return the file name of a job's page."""
    return f"{job}.html"


def _page(title: str, setup: Mapping[str, Any], jobs: Sequence[JobData], viewer: str = "") -> str:
    """Fill the template. What the first view needs comes before the large arrays, so the browser shows it first."""
    files = resources.files(__package__)
    first = [_block("setup", pack_json(setup))]
    first += [_block(f"job-{place}", pack_json(job.summary)) for place, job in enumerate(jobs)]
    large = [
        _block(f"{name}-{place}", content) for place, job in enumerate(jobs) for name, content in job.arrays.items()
    ]
    values = {
        "mark": MARK,
        "title": html.escape(title),
        "version": html.escape(__version__),
        "style": files.joinpath("page.css").read_text(encoding="utf-8"),
        "script": "".join(files.joinpath("js", name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "first": "\n".join(first),
        "large": "\n".join([*large, viewer]),
    }
    template = files.joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\[\[(\w+)\]\]", lambda found: values[found[1]], template)


def _block(name: str, content: str) -> str:
    return f'<script type="text/plain" id="{name}">{content}</script>'
