"""``<out>/summary.csv``: one line for each job, in the order of the names."""

import contextlib
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protenix_multiseed.analysis.findings import Findings
from protenix_multiseed.files import read_text, write_bytes
from protenix_multiseed.outputs.seed_files import SCORES
from protenix_multiseed.outputs.tables import BEST, rounded, table
from protenix_multiseed.paths import SUMMARY

COLUMNS = (
    "job", "seeds", "samples", "clusters", "best_seed", "best_sample", "ranking_score", "plddt_of_100", "ptm", "iptm",
    "ipsae", "has_clash", "chains_without_msa", "structure",
)  # fmt: skip


def write_summary(out: Path, made: Mapping[str, Sequence[Any]]) -> None:
    """Write the lines of these jobs (:func:`summary_row`). The lines of other jobs whose folders are there are kept.

    The caller holds a lock, since other processes may write the same file.

    Raises:
        OSError: if the file cannot be written.
    """
    rows: dict[str, Sequence[Any]] = {name: row for name, row in _known(out).items() if (out / name).is_dir()}
    rows |= made
    write_bytes(out / SUMMARY, table(COLUMNS, (rows[name] for name in sorted(rows))))


def _known(out: Path) -> dict[str, list[Any]]:
    with contextlib.suppress(OSError, ValueError, csv.Error):  # a damaged table is made again
        header, *rows = csv.reader(read_text(out / SUMMARY, out).splitlines())
        if header == list(COLUMNS):
            return {row[0]: row for row in rows if len(row) == len(COLUMNS)}
    return {}


def summary_row(name: str, found: Findings) -> tuple[Any, ...]:
    """Return the line of a job."""
    best = found.best
    return (
        name,
        len(found.convergence.seeds),
        len(found.samples),
        len(found.agreement.clusters) if found.agreement else "",
        best.seed,
        best.sample,
        *(getattr(best, score) for score in SCORES),
        rounded(found.interface_scores(best).get("ipsae")),
        int(best.has_clash),
        " ".join(found.without_msa),
        f"{name}/{BEST}" if best.structure else "",
    )
