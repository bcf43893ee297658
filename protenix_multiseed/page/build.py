"""Build the page from our template, style sheet and script, the 3D viewer from its package, and every job's data."""

import html
import importlib.util
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from protenix_multiseed import __version__
from protenix_multiseed.analysis.findings import Findings
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.page.collect import collect, pack, pack_json

_VIEWER = ("dash_molstar", "rcsb-molstar.js")  # package and file of Mol*, MIT licence


def job_data(name: str, findings: Findings, *, slim: bool) -> str:
    """Return the data of one job for :func:`build_page`.

    Args:
        name: Name of the job.
        findings: Ranked and compared samples of the job.
        slim: Include fewer structures.

    Raises:
        DamagedError, OSError: if a result cannot be read.
    """
    return f'<script type="text/plain" class="job">{pack_json(collect(name, findings, slim=slim))}</script>'


def build_page(title: str, jobs: Sequence[str]) -> str:
    """Return the whole page as HTML.

    Args:
        title: Title of the page.
        jobs: The data of every job.

    Raises:
        ConfigError: if the viewer's package is missing.
    """
    files = resources.files(__package__)
    parts = {kind: files.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")}
    made: str = parts["html"]
    for key, value in (
        ("title", html.escape(title)),
        ("version", html.escape(__version__)),
        ("style", parts["css"]),
        ("script", parts["js"]),
        ("viewer", pack(viewer_source())),
        ("data", "\n".join(jobs)),
    ):
        made = made.replace(f"[[{key}]]", value)
    return made


def viewer_source() -> str:
    """Return the JavaScript of the 3D viewer.

    Raises:
        ConfigError: if the viewer's package is missing.
    """
    package, name = _VIEWER
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ConfigError("the 3D viewer's package dash-molstar is missing or changed; pip install 'dash-molstar>=1.4,<2'")
