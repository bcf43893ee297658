"""Build the page from our template, style sheet and script, the 3D viewer from its package, and every job's data."""

import html
import importlib.util
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from protenix_multiseed import __version__
from protenix_multiseed.analysis.findings import Findings
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.page.collect import collect, pack, pack_json

_VIEWER = ("dash_molstar", "rcsb-molstar.js")  # package and file of Mol*, MIT licence


def build_page(title: str, jobs: Mapping[str, Findings], *, slim: bool) -> str:
    """Return the whole page as HTML.

    Args:
        title: Title of the page.
        jobs: Ranked and compared samples of every job, by name.
        slim: Include fewer structures.

    Raises:
        ConfigError: if the viewer's package is missing.
        OSError, ValueError, KeyError: if a result cannot be read.
    """
    parts = {kind: resources.files(__package__).joinpath(f"page.{kind}").read_text() for kind in ("html", "css", "js")}
    data = "\n".join(
        f'<script type="text/plain" class="job">{pack_json(collect(name, findings, slim=slim))}</script>'
        for name, findings in jobs.items()
    )
    made: str = parts["html"]
    for key, value in (
        ("title", html.escape(title)),
        ("version", html.escape(__version__)),
        ("style", parts["css"]),
        ("script", parts["js"]),
        ("viewer", pack(viewer_source())),
        ("data", data),
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
