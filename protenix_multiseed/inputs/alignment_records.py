"""Read the records of a3m or FASTA text, with the lines that Protenix sees (``parse_fasta``)."""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from protenix_multiseed.errors import InputError

_NOT_READ = r"[^A-Za-z0-9.-]"
INSERTIONS = b"abcdefghijklmnopqrstuvwxyz"
_BLOCK = 2**20  # bytes; also the longest line
_ODD = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f-\xff]")  # what no alignment has, but NUL bytes at its end
_PADDING = b"."  # fills up insertions of other rows


class Record(NamedTuple):
    """One record of an alignment: the header without ``>``, and the row with only columns and insertions."""

    number: int
    header: bytes
    row: bytes
    has_signs: bool

    @property
    def columns(self) -> bytes:
        """The row without its insertions."""
        return self.row.translate(None, INSERTIONS)


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


def species_header(name: str, species: str) -> str:
    """Return a header from which Protenix reads this species (``_UNIREF_REGEX`` of its ``msa_utils``).

    A species with signs that the pattern does not read is written as k and hexadecimal digits, so that two remain two.
    """
    name = re.sub(_NOT_READ, "", name) or "row"
    species = f"k{species.encode().hex()}" if re.search(f"^k|{_NOT_READ}", species) else species
    return f"UniRef100_{name}_{species}/"
