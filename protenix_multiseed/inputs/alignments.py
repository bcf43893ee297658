"""Read alignments in a3m format, with the rules of Protenix's ``parse_fasta``."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from protenix_multiseed.errors import InputError
from protenix_multiseed.job_spec import Alignment, PolymerKind

MAX_BYTES = 2**31  # searches of the largest databases return a few hundred megabytes
_INSERTIONS = {ord(letter): None for letter in "abcdefghijklmnopqrstuvwxyz."}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentFacts:
    """Facts about an alignment that the checks and the plan need.

    Attributes:
        query: First row, without insertions.
        n_row: Number of rows.
        n_distinct: Number of distinct rows, insertions ignored. Upstream drops the duplicates.
        wrong_row: First row whose number of columns differs from the query's, as (row number from 1, its number of
            columns); None if all rows are equally long.
    """

    query: str
    n_row: int
    n_distinct: int
    wrong_row: tuple[int, int] | None


def read_alignment(alignment: Alignment) -> AlignmentFacts:
    """Read an alignment. A file that many jobs share is read once.

    Raises:
        InputError: if the file cannot be read or is not an a3m alignment.
    """
    if alignment.file is None:
        return facts_of(alignment.text or "")
    path = alignment.file.path
    try:
        stat = path.stat()
        return _read_file(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4096)
def _read_file(path: Path, size: int, changed: int) -> AlignmentFacts:
    try:
        return facts_of(path.read_text(encoding="ascii"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not an a3m file: byte {error.start} is not ASCII") from None


def read_text(alignment: Alignment) -> str:
    """Return the text of an alignment.

    Raises:
        OSError, UnicodeDecodeError: if the file cannot be read.
    """
    return alignment.file.path.read_text(encoding="ascii") if alignment.file else alignment.text or ""


def facts_of(text: str) -> AlignmentFacts:
    """Return the facts about an alignment given as text.

    Raises:
        InputError: if the text is not an a3m alignment.
    """
    if not text.isascii():
        raise InputError("not an a3m alignment: it has characters that are not ASCII")
    rows = aligned_rows(text)
    if not rows:
        raise InputError("not an a3m alignment: no line starts with '>'")
    length = len(rows[0])
    wrong = next(((number, len(row)) for number, row in enumerate(rows, start=1) if len(row) != length), None)
    return AlignmentFacts(query=rows[0], n_row=len(rows), n_distinct=len(set(rows)), wrong_row=wrong)


def problem_of(alignment: Alignment, kind: PolymerKind, sequence: str) -> str | None:
    """Return why an alignment cannot be used for a chain; None if it can be used.

    The first row must equal the sequence. All rows must have the same length: upstream would fill a short row up with
    residues. RNA is compared with T and U treated as equal.
    """
    if alignment.text == "":
        return None
    try:
        facts = read_alignment(alignment)
    except InputError as error:
        return str(error)
    query = facts.query
    if kind == "rna":
        query, sequence = query.replace("T", "U"), sequence.replace("T", "U")
    if query != sequence:
        pairs = enumerate(zip(query, sequence, strict=False), start=1)
        position = next((i for i, (a, b) in pairs if a != b), min(len(query), len(sequence)) + 1)
        return (
            f"the first row of the alignment is not the sequence: they differ at position {position} "
            f"({len(query)} and {len(sequence)} residues); use the alignment made for this sequence"
        )
    if facts.wrong_row is not None:
        number, length = facts.wrong_row
        found = f"row {number} has {length} aligned columns, the first {len(query)}"
        return f"{found}: the file is cut short or damaged"
    return None


def aligned_rows(text: str) -> list[str]:
    """Return the rows of an a3m text without insertions (lower-case letters and dots)."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(">"):
            rows.append([])
        elif rows and not line.startswith("#"):
            rows[-1].append(line.strip())
    return ["".join(row).translate(_INSERTIONS) for row in rows]
