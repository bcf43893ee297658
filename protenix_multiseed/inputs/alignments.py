"""Read alignments: what each character of a row means, and which characters are refused.

In a3m an upper-case letter or ``-`` is a column of the query, and a lower-case letter is an insertion between columns.
Protenix drops every other character without a word (``MSACore.sequences_to_array``), so that the rest of the row moves
into other columns. Here every character has a meaning or is refused. The columns are counted as Protenix counts them.

In aligned FASTA all rows have as many characters, and the query has gaps where other rows have insertions. Any row can
be the query. If no row is, but the rows have as many columns as the sequence, the sequence is added as the first row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.alignment_formats import is_plain, open_alignment
from protenix_multiseed.inputs.alignment_records import INSERTIONS, Record, read_records
from protenix_multiseed.job_spec import Alignment, PolymerKind

MAX_BYTES = 2**31  # searches of the largest databases return a few hundred megabytes
MAX_ROWS = 2_000_000
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
_GAP = ord("-")
# Share of equal residues at which a row is taken for a homolog. Unrelated proteins have some 0.06, nucleic acids 0.25.
_SIMILAR: dict[PolymerKind, float] = {"protein": 0.25, "rna": 0.6, "dna": 0.6}
_COLUMNS: dict[PolymerKind, bytes] = {"protein": _LETTERS, "rna": _NUCLEIC, "dna": _NUCLEIC}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentFacts:
    """Facts about an alignment of one sequence.

    Attributes:
        n_row: Number of rows in the file.
        query: Number of the first row that is the sequence; 0 if none is.
        gaps: The query with its gaps, if the alignment is aligned FASTA; otherwise None.
        is_plain: Whether the file is text, and neither Stockholm nor Parquet.
        has_signs: Whether characters that mean nothing for the alignment were left out: padding dots, ``*`` at the end
            of a row, NUL bytes at the end of the file.
        has_thymine: Whether a row has a T. In an RNA it stands for U.
    """

    n_row: int
    query: int
    gaps: bytes | None
    is_plain: bool
    has_signs: bool
    has_thymine: bool

    @property
    def is_in_order(self) -> bool:
        """Whether the first row is the sequence, and the rows are a3m."""
        return self.query == 1 and self.gaps is None


def facts_of(alignment: Alignment, kind: PolymerKind, sequence: str) -> AlignmentFacts:
    """Read an alignment of a sequence and check each of its rows. A file that many jobs share is read once.

    Raises:
        InputError: if the alignment cannot be read, holds a character that means nothing for this kind of polymer, or
            belongs to another sequence. The message names the file, the record and the column.
    """
    if alignment.file is None:
        return _facts_of_text(alignment.text or "", kind, sequence)
    path = alignment.file.path
    try:
        stat = path.stat()
        return _facts_of_file(alignment, kind, sequence, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)  # it keeps the texts, each up to tens of megabytes
def _facts_of_text(text: str, kind: PolymerKind, sequence: str) -> AlignmentFacts:
    return _facts(Alignment(text=text), kind, sequence, is_plain=True)


@lru_cache(maxsize=4096)
def _facts_of_file(alignment: Alignment, kind: PolymerKind, sequence: str, size: int, changed: int) -> AlignmentFacts:
    assert alignment.file is not None
    path = alignment.file.path
    try:
        return _facts(alignment, kind, sequence, is_plain=is_plain(path))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def _facts(alignment: Alignment, kind: PolymerKind, sequence: str, *, is_plain: bool) -> AlignmentFacts:
    wanted, first, n_row, query, gaps = _residues(sequence.encode(), kind), b"", 0, 0, b""
    has_signs = has_thymine = False
    with _open(alignment) as file:
        for record in read_records(file):
            columns = record.columns
            n_row += 1
            if n_row == 1:
                first = columns
            if foreign := columns.translate(None, _COLUMNS[kind]):
                raise InputError(_foreign(record, foreign[:1], kind))
            if len(columns) != len(first):
                raise InputError(
                    f"record {record.number} has {len(columns)} aligned columns, the first {len(first)}: "
                    "the file is cut short or damaged, or a row writes gaps as '.' instead of '-'"
                )
            if n_row > MAX_ROWS:
                raise InputError(
                    f"more than {MAX_ROWS} rows: Protenix reads at most 16384 of them; shorten the alignment"
                )
            if not query and _residues(columns.replace(b"-", b""), kind) == wanted:
                query, gaps = n_row, columns
            has_signs |= record.has_signs
            has_thymine |= b"T" in columns
    if not n_row:
        raise InputError("not an a3m alignment: no line starts with '>'")
    if not query:
        _check_columns(alignment, first.decode(), sequence, kind)
    return AlignmentFacts(
        n_row=n_row,
        query=query,
        gaps=gaps if b"-" in gaps else None,
        is_plain=is_plain,
        has_signs=has_signs,
        has_thymine=has_thymine,
    )


def _check_columns(alignment: Alignment, first: str, sequence: str, kind: PolymerKind) -> None:
    """Refuse an alignment without the sequence, unless its columns are those of the sequence and a row resembles it."""
    if not first:
        raise InputError(
            "the first row has no column: in a3m, columns are upper-case letters, and lower-case insertions"
        )
    if len(first) == len(sequence):
        with _open(alignment) as file:
            if any(_is_similar(record.columns, sequence.encode(), kind) for record in read_records(file)):
                return
    pairs = enumerate(zip(first, sequence, strict=False), start=1)
    position = next((i for i, (a, b) in pairs if a != b), min(len(first), len(sequence)) + 1)
    raise InputError(
        "no row of the alignment is the sequence, and none is similar to it: the first row differs from it at position "
        f"{position} ({len(first)} and {len(sequence)} residues); use the alignment made for this sequence"
    )


def _is_similar(columns: bytes, sequence: bytes, kind: PolymerKind) -> bool:
    """Whether a row covers half of the sequence, and a good part of the residues it covers are the sequence's."""
    pairs = [(a, b) for a, b in zip(columns, sequence, strict=True) if a != _GAP]
    same = sum(a == b for a, b in pairs)
    return 2 * len(pairs) >= len(sequence) and same >= _SIMILAR[kind] * len(pairs)


def _residues(columns: bytes, kind: PolymerKind) -> bytes:
    """Residues in a form in which equal ones are equal: RNA is written with T or with U."""
    return columns.replace(b"T", b"U") if kind == "rna" else columns


def problem_of(alignment: Alignment, kind: PolymerKind, sequence: str, *, exact: bool) -> str | None:
    """Return why an alignment cannot be used for a chain; None if it can be used.

    Args:
        exact: Whether Protenix reads the alignment as it is written. Then it must be a3m text, and its first row the
            sequence.
    """
    if alignment.text == "":
        return None
    try:
        facts = facts_of(alignment, kind, sequence)
    except InputError as error:
        return str(error)
    if exact and not facts.is_plain:
        return "Protenix reads only a3m text: unpack or convert the alignment, or leave --protenix-exact out"
    if exact and not facts.is_in_order:
        return (
            "Protenix takes the first row for the sequence, and here it is not: put the sequence first, or leave "
            "--protenix-exact out"
        )
    return None


def rewritten(alignment: Alignment, kind: PolymerKind, sequence: str) -> str:
    """Return the alignment as a3m text in which Protenix reads every column as it is meant.

    The sequence is the first row. Signs that mean nothing are left out. In the rows of an RNA, T becomes U.
    """
    rows = (b">%b\n%b\n" % (record.header, record.row) for record in _meant(alignment, kind, sequence))
    return b"".join(rows).decode()


def rows_of(alignment: Alignment, kind: PolymerKind, sequence: str, *, exact: bool) -> Iterator[tuple[int, bool]]:
    """Yield of each row a hash without its insertions, and whether its residues are the query's.

    Upstream drops a row that equals an earlier one without its insertions.

    Args:
        exact: Whether Protenix reads the alignment as it is written, else as :func:`rewritten` gives it.
    """
    if alignment.text == "":
        return
    query: bytes | None = None
    for record in _written(alignment) if exact else _meant(alignment, kind, sequence):
        columns = record.columns
        residues = columns.translate(_SAME_RESIDUE[kind], _NO_COLUMN)
        query = residues if query is None else query
        yield hash(columns), residues == query


def _written(alignment: Alignment) -> Iterator[Record]:
    with _open(alignment) as file:
        yield from read_records(file, keep_signs=True)


def _meant(alignment: Alignment, kind: PolymerKind, sequence: str) -> Iterator[Record]:
    """Yield the rows as a3m, the sequence first."""
    facts = facts_of(alignment, kind, sequence)
    if facts.query != 1:
        yield Record(0, b"query", _residues(sequence.encode(), kind), has_signs=False)
    with _open(alignment) as file:
        for record in read_records(file):
            if record.number == facts.query != 1:
                continue
            row = record.row if facts.gaps is None else _as_a3m(record.row, facts.gaps)
            yield record._replace(row=_residues(row, kind))


def _as_a3m(row: bytes, gaps: bytes) -> bytes:
    """Return a row whose columns are those of the query with gaps: its residues there become insertions."""
    columns = iter(gaps)
    made = bytearray()
    for sign in row:
        if sign in INSERTIONS or next(columns) != _GAP:
            made.append(sign)
        elif sign != _GAP:
            made.append(sign | 0x20)  # to lower case
    return bytes(made)


def _open(alignment: Alignment) -> BinaryIO:
    if alignment.file is None:
        return BytesIO((alignment.text or "").encode())
    return open_alignment(alignment.file.path, MAX_BYTES)


def _foreign(record: Record, sign: bytes, kind: PolymerKind) -> str:
    """Say which character of a row is not a column or an insertion."""
    place = record.columns.index(sign) + 1
    hints = {b"*": "write X for an unknown residue", b"~": "write - for a gap", b" ": "rows have no spaces"}
    hint = hints.get(sign, f"columns of a {kind} row are {'A-Z' if kind == 'protein' else 'nucleotides'} and -")
    name = record.header.split(b" ")[0][:40].decode()
    return f"record {record.number} ({name}): {sign.decode()!r} in column {place} is not a residue; {hint}"
