"""Open an alignment as a3m or aligned FASTA, whichever format the file has.

Known formats are text, text packed with gzip, xz or zstd, Stockholm, and Chai's Parquet. The content of the file
decides, not its name.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.alignment_records import species_header
from protenix_multiseed.inputs.packed import GZIP, XZ, ZSTD, open_packed

_PARQUET, _STOCKHOLM = b"PAR1", b"# STOCKHOLM"
_SEQUENCE, _KEY = "sequence", "pairing_key"  # columns of Chai's Parquet


def is_plain(path: Path) -> bool:
    """Return whether a file is neither packed nor in a format that Protenix cannot read.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        return not file.read(len(_STOCKHOLM)).startswith((GZIP, XZ, ZSTD, _PARQUET, _STOCKHOLM))


def open_alignment(path: Path, limit: int) -> BinaryIO:
    """Open an alignment as a3m or aligned FASTA.

    Args:
        limit: The most bytes that it may unpack to.

    Raises:
        OSError: if the file cannot be opened.
        InputError: if it is damaged. Reading from the returned file raises it too.
    """
    file = open_packed(path, limit)
    try:
        start = file.peek(len(_STOCKHOLM))
        if start.startswith(_PARQUET):
            with file:
                return io.BytesIO(_from_parquet(file))
        if start.startswith(_STOCKHOLM):
            with io.TextIOWrapper(file, encoding="ascii") as stockholm:
                return io.BytesIO(_from_stockholm(stockholm))
    except BaseException:
        file.close()
        raise
    return file


def _from_stockholm(file: io.TextIOWrapper) -> bytes:
    """Return a Stockholm alignment as aligned FASTA. Lower case and dots of profile programs have no meaning here."""
    from Bio import AlignIO  # imported late: few inputs need it

    try:
        found = list(AlignIO.parse(file, "stockholm"))
    except (ValueError, AssertionError, IndexError, KeyError) as error:
        raise InputError(f"not a Stockholm alignment: {' '.join(str(error).split())[:200]}") from None
    if len(found) != 1:
        raise InputError(f"{len(found)} Stockholm alignments: a file must hold one")
    return _fasta((record.id, str(record.seq).upper()) for record in found[0])


def _from_parquet(file: BinaryIO) -> bytes:
    """Return Chai's table of aligned sequences as a3m. Rows with one pairing key are rows of one species."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs the package pyarrow: install it, or give the alignment as a3m") from None
    try:
        rows = pyarrow.parquet.read_table(file, columns=[_SEQUENCE, _KEY]).to_pylist()
    except (pyarrow.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"not a Parquet table with the columns {_SEQUENCE} and {_KEY}: {error}") from None
    return _fasta((_header(number, str(row[_KEY] or "")), str(row[_SEQUENCE])) for number, row in enumerate(rows))


def _header(number: int, key: str) -> str:
    return species_header(f"row{number}", key) if key else f"row{number}"


def _fasta(rows: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f">{header}\n{row}\n" for header, row in rows).encode()
