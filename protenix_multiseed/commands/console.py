"""What commands show on the terminal: the console, notes, and the table of a job's results."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from protenix_multiseed.paths import RANKING
from protenix_multiseed.units import counted, format_bytes, visible

if TYPE_CHECKING:
    from protenix_multiseed.analysis.findings import Findings
    from protenix_multiseed.outputs.found import RankedJob

_FILE_COLUMNS = 140  # line width if the output goes to a file

MAX_ROWS = 20  # rows that a listing shows, unless the user asks for all


class _Console(Console):
    """A console that shows text as it is, and breaks messages between words.

    Args:
        indent: Spaces before the lines that follow a break.
    """

    def __init__(self, indent: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._indent = indent

    def print(self, *objects: Any, soft_wrap: bool | None = None, **settings: Any) -> None:
        """Print. On a terminal, a message of any length breaks between words, and a long path stays whole."""
        if soft_wrap and self.is_terminal:
            markup = settings.get("markup")
            made = (self.render_str(one, markup=markup) if isinstance(one, str) else one for one in objects)
            objects = tuple(_broken(one, self.width, self._indent) if isinstance(one, Text) else one for one in made)
        super().print(*objects, soft_wrap=soft_wrap, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Make escape sequences and other control characters visible. They may come from names in input files."""
        return super().render_str(visible(text), **settings)


def _broken(text: Text, width: int, indent: int) -> Text:
    """Return the text with line breaks between words, where a line would be longer than ``width``.

    The lines after a break begin with ``indent`` spaces.
    """
    lines: list[Text] = []
    for line in text.split(allow_blank=True):
        breaks, start, room = [], 0, width
        for word in re.finditer(r"\S+", line.plain):
            if word.end() - start > room and line.plain[start : word.start()].strip():
                breaks.append(start := word.start())
                room = width - indent
        first, *rest = line.divide(breaks)
        lines += [first, *(Text(" " * indent) + part for part in rest)]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def make_console(stream: TextIO | None = None, indent: int = 0) -> Console:
    """Return a console on a stream, by default on standard output. Lines after a break begin with ``indent`` spaces.

    It keeps the stream object, because upstream's prints are silenced by replacing ``sys.stdout``.
    """
    stream = stream or sys.stdout
    is_file = not stream.isatty() and "COLUMNS" not in os.environ  # Rich would wrap a file at 80 columns
    return _Console(indent, file=stream, highlight=False, emoji=False, width=_FILE_COLUMNS if is_file else None)


def show_note(console: Console, job: str, text: str) -> None:
    """Print a note on a job."""
    console.print(f"[yellow]note[/yellow] {escape(job)}: {escape(text)}", soft_wrap=True)


def show_problems(console: Console, job: "RankedJob") -> None:
    """Print which results of a job were left out, and why."""
    for note in job.notes:
        show_note(console, job.name, note)
    for problem in job.problems:
        console.print(f"[red]failed[/red] {escape(job.name)}: {escape(problem)}", soft_wrap=True)


def _fitting(width: int, rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the columns to show of a table whose first row has their names, so that no number is cut.

    If the lines are too wide, columns are left out; ``ranking.csv`` has them.
    """
    widths = {number: max(map(len, column)) + 2 for number, column in enumerate(zip(*rows, strict=True))}
    for name in ("pTM", "cluster", "ipSAE", "pLDDT"):
        if sum(widths.values()) - 2 > width and name in rows[0]:
            del widths[rows[0].index(name)]
    return list(widths)


def show_findings(console: Console, name: str, findings: "Findings", folder: Path) -> None:
    """Print a job's best samples, whether the samples agree, and the paths of the results."""
    order, found = findings.samples, findings.agreement
    size = f"{counted(len(order), 'sample')} of {counted(len({s.seed for s in order}), 'seed')}"
    table = Table(
        title=f"{escape(name)}: {size}, best first",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    cluster_of = found.cluster_of if found else {}
    scores = [findings.interface_scores(sample) for sample in order[:MAX_ROWS]]
    has_pairs, has_clash = any(scores), any(sample.has_clash for sample in order)
    columns = ["rank", "seed", "sample", "score", "pLDDT", "pTM", "ipTM"]
    columns += ["ipSAE"] * has_pairs + ["cluster", "to best"] * (found is not None) + ["clash"] * has_clash
    rows = []
    for place, sample in enumerate(order[:MAX_ROWS]):
        row = [str(place + 1), str(sample.seed), str(sample.sample), f"{sample.ranking_score:.4f}"]
        row += [f"{sample.plddt:.2f}", f"{sample.ptm:.4f}", "-" if sample.iptm is None else f"{sample.iptm:.4f}"]
        ipsae = scores[place].get("ipsae")
        row += ["-" if ipsae is None else f"{ipsae:.3f}"] * has_pairs
        row += [str(cluster_of.get(place, "-")), f"{found.rmsd[0, place]:.1f} A"] if found is not None else []
        row += ["yes" if sample.has_clash else "no"] * has_clash
        rows.append(row)
    shown = _fitting(console.width, [columns, *rows])
    for column in shown:
        table.add_column(columns[column], justify="right", no_wrap=True)
    for place, row in enumerate(rows):
        table.add_row(*(row[column] for column in shown), style="green" if place == 0 else None)
    console.print(table)
    if len(order) > MAX_ROWS:
        console.print(f"[dim]... and {len(order) - MAX_ROWS} more in {escape(str(folder / 'ranking.csv'))}[/dim]")
    if order[0].iptm is None:
        console.print("One chain has no ipTM, so its score is 0.2 pTM, less 100 if atoms clash.", soft_wrap=True)
    for sentence in findings.sentences:
        console.print(escape(sentence[0].upper() + sentence[1:] + "."), soft_wrap=True)
    from protenix_multiseed.analysis.findings import has_structure  # loads numpy, which is here already

    kept = sum(map(has_structure, order))
    places = {"best structure": folder / "best.cif", "all samples": folder / RANKING}  # a full disk may lack them
    texts = [f"{name}: [bold]{escape(str(path))}[/bold]" for name, path in places.items() if path.is_file()]
    texts.append(f"{counted(kept, 'structure')}, {format_bytes(findings.n_bytes)}\n")
    console.print("   ".join(texts), soft_wrap=True)
