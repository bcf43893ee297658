"""Read alignments in a3m format: what each character of a row means, and which characters are refused.

In a3m an upper-case letter or ``-`` is a column of the query, and a lower-case letter is an insertion between columns.
Protenix drops every other character without a word (``MSACore.sequences_to_array``), so that the rest of the row moves
into other columns. Here every character has a meaning or is refused. The columns are counted as Protenix counts them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from protenix_multiseed.errors import InputError
from protenix_multiseed.job_spec import Alignment, PolymerKind

MAX_BYTES = 2**31  # searches of the largest databases return a few hundred megabytes
MAX_ROWS = 2_000_000
_BLOCK = 2**20  # bytes; also the longest line
_ODD = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f-\xff]")  # what no alignment has, but NUL bytes at its end
_INSERTIONS = b"abcdefghijklmnopqrstuvwxyz"
_PADDING = b"."  # fills up insertions of other rows
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_NUCLEIC = b"ACGTUXINRYSWKMBDHV-"  # with IUPAC's ambiguous codes, which Protenix reads as unknown
_NO_COLUMN = bytes(set(range(256)) - set(_LETTERS))
_UNKNOWN = bytes(set(_LETTERS) - set(b"ACGTU-"))
# Letters that upstream reads as the same residue (MSA_PROTEIN_SEQ_TO_ID and its siblings).
_SAME_RESIDUE: dict[PolymerKind, bytes] = {
    "protein": bytes.maketrans(b"BJOUZ", b"DXXCE"),
    "rna": bytes.maketrans(_UNKNOWN + b"T", b"N" * (len(_UNKNOWN) + 1)),
    "dna": bytes.maketrans(_UNKNOWN + b"U", b"N" * (len(_UNKNOWN) + 1)),
}
_COLUMNS: dict[PolymerKind, bytes] = {"protein": _LETTERS, "rna": _NUCLEIC, "dna": _NUCLEIC}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentFacts:
    """Facts about an alignment that the checks need.

    Attributes:
        query: Columns of the first row.
        n_row: Number of rows.
        has_signs: Whether characters that mean nothing for the alignment were left out: padding dots, ``*`` at the end
            of a row, NUL bytes at the end of the file.
        has_thymine: Whether a row has a T. In an RNA it stands for U.
    """

    query: str
    n_row: int
    has_signs: bool
    has_thymine: bool


class Record(NamedTuple):
    """One record of an alignment: the header without ``>``, and the row with only columns and insertions."""

    number: int
    header: bytes
    row: bytes
    has_signs: bool

    @property
    def columns(self) -> bytes:
        """The row without its insertions."""
        return self.row.translate(None, _INSERTIONS)


def facts_of(alignment: Alignment, kind: PolymerKind) -> AlignmentFacts:
    """Read an alignment and check each of its rows. A file that many jobs share is read once.

    Raises:
        InputError: if the alignment cannot be read, or holds a character that means nothing for this kind of polymer.
            The message names the file, the record and the column.
    """
    if alignment.file is None:
        return _facts_of_text(alignment.text or "", kind)
    path = alignment.file.path
    try:
        stat = path.stat()
        return _facts_of_file(path, kind, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4096)
def _facts_of_text(text: str, kind: PolymerKind) -> AlignmentFacts:
    return _facts(BytesIO(text.encode()), kind)


@lru_cache(maxsize=4096)
def _facts_of_file(path: Path, kind: PolymerKind, size: int, changed: int) -> AlignmentFacts:
    with path.open("rb") as file:
        try:
            return _facts(file, kind)
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None


def _facts(file: BinaryIO, kind: PolymerKind) -> AlignmentFacts:
    query, n_row, has_signs, has_thymine = b"", 0, False, False
    for record in read_records(file):
        columns = record.columns
        n_row += 1
        if n_row == 1:
            query = columns
        if foreign := columns.translate(None, _COLUMNS[kind]):
            raise InputError(_foreign(record, foreign[:1], kind))
        if len(columns) != len(query):
            raise InputError(
                f"record {record.number} has {len(columns)} aligned columns, the first {len(query)}: "
                "the file is cut short or damaged, or a row writes gaps as '.' instead of '-'"
            )
        if n_row > MAX_ROWS:
            raise InputError(f"more than {MAX_ROWS} rows: Protenix reads at most 16384 of them; shorten the alignment")
        has_signs |= record.has_signs
        has_thymine |= b"T" in columns
    if not n_row:
        raise InputError("not an a3m alignment: no line starts with '>'")
    return AlignmentFacts(query=query.decode(), n_row=n_row, has_signs=has_signs, has_thymine=has_thymine)


def problem_of(alignment: Alignment, kind: PolymerKind, sequence: str) -> str | None:
    """Return why an alignment cannot be used for a chain; None if it can be used.

    The first row must equal the sequence. RNA is compared with T and U treated as equal.
    """
    if alignment.text == "":
        return None
    try:
        query = facts_of(alignment, kind).query
    except InputError as error:
        return str(error)
    if kind == "rna":
        query, sequence = query.replace("T", "U"), sequence.replace("T", "U")
    if query == sequence:
        return None
    if not query:
        return "the first row has no column: in a3m, columns are upper-case letters, and lower-case ones insertions"
    pairs = enumerate(zip(query, sequence, strict=False), start=1)
    position = next((i for i, (a, b) in pairs if a != b), min(len(query), len(sequence)) + 1)
    return (
        f"the first row of the alignment is not the sequence: they differ at position {position} "
        f"({len(query)} and {len(sequence)} residues); use the alignment made for this sequence"
    )


def differs_for_upstream(alignment: Alignment, kind: PolymerKind) -> bool:
    """Return whether :func:`rewritten` changes what Protenix reads."""
    if alignment.text == "":
        return False
    facts = facts_of(alignment, kind)
    return facts.has_signs or (kind == "rna" and facts.has_thymine)


def rewritten(alignment: Alignment, kind: PolymerKind) -> str:
    """Return the alignment as text in which Protenix reads every column as it is meant.

    Signs that mean nothing are left out. In the rows of an RNA, T becomes U.
    """
    with _open(alignment) as file:
        rows = (b">%b\n%b\n" % (record.header, _meant(record.row, kind)) for record in read_records(file))
        return b"".join(rows).decode()


def rows_of(alignment: Alignment, kind: PolymerKind, *, exact: bool) -> Iterator[tuple[int, bool]]:
    """Yield of each row a hash without its insertions, and whether its residues are the query's.

    Upstream drops a row that equals an earlier one without its insertions.

    Args:
        exact: Whether Protenix reads the alignment as it is written, else as :func:`rewritten` gives it.
    """
    query: bytes | None = None
    with _open(alignment) as file:
        for record in read_records(file, keep_signs=exact):
            columns = record.columns if exact else _meant(record.columns, kind)
            residues = columns.translate(_SAME_RESIDUE[kind], _NO_COLUMN)
            query = residues if query is None else query
            yield hash(columns), residues == query


def _meant(row: bytes, kind: PolymerKind) -> bytes:
    return row.replace(b"T", b"U") if kind == "rna" else row


def _open(alignment: Alignment) -> BinaryIO:
    if alignment.file is None:
        return BytesIO((alignment.text or "").encode())
    return alignment.file.path.open("rb")


def read_records(file: BinaryIO, *, keep_signs: bool = False) -> Iterator[Record]:
    """Yield the records of an alignment. Line breaks and comment lines are those of Protenix's ``parse_fasta``.

    Raises:
        InputError: if a line cannot be a line of an alignment; the message names it.
    """
    parts: list[bytes] = []
    number, header = 0, b""
    for line in _lines(file):
        if line.startswith(b">"):
            if number:
                yield _record(number, header, b"".join(parts), keep_signs=keep_signs)
            number, header, parts = number + 1, line[1:], []
        elif line.startswith(b"#") or not line:
            continue
        elif not number:
            raise InputError("not an a3m alignment: the first line does not start with '>'")
        else:
            parts.append(line)
    if number:
        yield _record(number, header, b"".join(parts), keep_signs=keep_signs)


def _record(number: int, header: bytes, written: bytes, *, keep_signs: bool) -> Record:
    row = written if keep_signs else written.rstrip(b"\0").rstrip(b"*").translate(None, _PADDING)
    return Record(number, header, row, len(row) < len(written))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines without surrounding space. Refuse lines that Protenix would split or join in another way."""
    rest, first, has_ended = b"", 1, False
    while block := file.read(_BLOCK):
        if block.endswith(b"\r"):
            block += file.read(1)
        text = rest + block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        if has_ended or _ODD.search(text):
            for number, line in enumerate(lines, start=first):
                has_ended = _check_signs(line, number, has_ended)
        first += len(lines)
        if len(rest) > _BLOCK:
            raise InputError(f"line {first} is longer than {_BLOCK} characters: not an a3m alignment")
        yield from (line.strip(b" \t") for line in lines)
    _check_signs(rest, first, has_ended)
    yield rest.strip(b" \t")


def _check_signs(line: bytes, number: int, has_ended: bool) -> bool:
    """Refuse a line with characters that no alignment has. Return whether it, or a line before it, ends with NUL bytes.

    Args:
        has_ended: Whether a line before it ends with NUL bytes.
    """
    text = line.rstrip(b" \t").rstrip(b"\0")
    if has_ended and text.strip():
        raise InputError(
            f"line {number}: text after a NUL byte: the file holds several alignments; split it into one each"
        )
    if found := _ODD.search(text):
        what = "not ASCII" if found.group() > b"\x7f" else f"the control character {found.group().decode()!r}"
        raise InputError(f"line {number} has a character that is {what}: not an a3m alignment")
    return has_ended or len(text) < len(line.rstrip(b" \t"))


def _foreign(record: Record, sign: bytes, kind: PolymerKind) -> str:
    """Say which character of a row is not a column or an insertion."""
    place = record.columns.index(sign) + 1
    hints = {b"*": "write X for an unknown residue", b"~": "write - for a gap", b" ": "rows have no spaces"}
    hint = hints.get(sign, f"columns of a {kind} row are {'A-Z' if kind == 'protein' else 'nucleotides'} and -")
    name = record.header.split(b" ")[0][:40].decode()
    return f"record {record.number} ({name}): {sign.decode()!r} in column {place} is not a residue; {hint}"
