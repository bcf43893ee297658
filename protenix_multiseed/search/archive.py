"""Read the results of a server that speaks ColabFold's protocol: a tar file of alignments.

Each a3m file in it holds the alignments of all sequences of a ticket, each ended by a NUL byte. The header of an
alignment's first row is the number of its sequence.
"""

import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.alignment_records import Record, read_records, species_header
from protenix_multiseed.inputs.alignments import MAX_BYTES
from protenix_multiseed.search.base import Found, first_row

FIRST_NUMBER = 101  # of the sequences of a ticket, as ColabFold counts them
_PAIRED = "pair.a3m"
_UNIREF = "uniref.a3m"


class DamagedArchiveError(Exception):
    """The archive is cut short, or holds something else than the alignments of the ticket."""


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the a3m files of an archive by their names. Nothing is written to the disk.

    Raises:
        DamagedArchiveError: if it cannot be read.
    """
    found: dict[str, bytes] = {}
    left = MAX_BYTES
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if not member.isfile() or not member.name.endswith(".a3m"):
                    continue
                left -= member.size
                if left < 0:
                    raise DamagedArchiveError(f"it unpacks to more than {MAX_BYTES} bytes")
                file = archive.extractfile(member)
                found[Path(member.name).name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DamagedArchiveError(str(error) or type(error).__name__) from None
    return found


def unpaired_of(files: Mapping[str, bytes], sequences: Sequence[str]) -> list[Found]:
    """Return the alignments of a ticket's sequences: the rows of UniRef first, then those of other databases.

    Raises:
        DamagedArchiveError: if the archive lacks one of them.
    """
    names = sorted((name for name in files if name != _PAIRED), key=lambda name: (name != _UNIREF, name))
    blocks = [_blocks(files[name]) for name in names]
    made = []
    for number, sequence in enumerate(sequences, start=FIRST_NUMBER):
        mine = [block[number] for block in blocks if number in block]
        if not mine:
            raise DamagedArchiveError(f"it has no alignment of sequence {number - FIRST_NUMBER + 1} of the ticket")
        rows = [f">{one.header.decode()}\n{one.row.decode()}\n" for block in mine for one in _rows(block, sequence)]
        made.append(Found(unpaired=first_row(sequence) + "".join(rows)))
    return made


def paired_of(files: Mapping[str, bytes], sequences: Sequence[str]) -> list[str]:
    """Return the paired rows of each chain of a ticket.

    Row k of one chain belongs to row k of all others. Protenix pairs rows of one species, which it reads from the
    header, so each header gets the number of its row as its species. The server fills up rows of which a chain has
    none with gaps. They are left out: Protenix fills them up in the same way.

    Raises:
        DamagedArchiveError: if the archive lacks the rows of a chain.
    """
    blocks = _blocks(files.get(_PAIRED, b""))
    made = []
    for number, sequence in enumerate(sequences, start=FIRST_NUMBER):
        if number not in blocks:
            raise DamagedArchiveError(f"it has no paired rows of sequence {number - FIRST_NUMBER + 1} of the ticket")
        rows = [
            f">{paired_header(one.header.decode(), str(one.number))}\n{one.row.decode()}\n"
            for one in _rows(blocks[number], sequence)
            if one.columns.strip(b"-")
        ]
        made.append(first_row(sequence) + "".join(rows))
    return made


def paired_header(header: str, species: str) -> str:
    """Return a row's header with the species that its row is paired by."""
    name, _, rest = header.partition("\t")
    words = name.split()
    made = species_header(words[0].removeprefix("UniRef100_") if words else "", species)
    return f"{made}\t{rest}" if rest else made


def _blocks(content: bytes) -> dict[int, bytes]:
    """Split a file into the alignments of its sequences, by the number of the sequence."""
    blocks = {}
    for block in content.split(b"\0"):
        if text := block.strip():
            number = re.match(rb">\s*(\d+)\s", text)
            if number is None:
                raise DamagedArchiveError("an alignment in it does not begin with the number of its sequence")
            blocks[int(number[1])] = text
    return blocks


def _rows(block: bytes, sequence: str) -> list[Record]:
    """The rows of an alignment after the first one, which is the sequence. Each row has as many columns."""
    try:
        first, *rows = read_records(BytesIO(block))
    except InputError as error:
        raise DamagedArchiveError(str(error)) from None
    if first.columns.decode() != sequence:
        raise DamagedArchiveError("the first row of an alignment in it is not the sequence of the ticket")
    for row in rows:
        if len(row.columns) != len(sequence):
            raise DamagedArchiveError(f"row {row.number} of an alignment in it is cut short")
    return rows
