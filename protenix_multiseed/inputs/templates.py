"""Check files of template hits before the run, with the rules of Protenix's two parsers (``template_parser.py``)."""

import re
from functools import lru_cache
from pathlib import Path

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.alignment_records import read_records

SUFFIXES = (".a3m", ".hhr")
MAX_BYTES = 2**31
_A3M_HEADER = re.compile(rb"[a-z0-9]{4}_\w+/\d+-\d+.*protein length:\d+")
_HHR_NAME = re.compile(r">\s*[a-zA-Z\d]{4}_[a-zA-Z0-9.]+")
_HHR_SUMMARY = re.compile(r"Aligned_cols=\d+.*Sum_probs=[0-9.]+")


def count_hits(path: Path) -> tuple[int, int]:
    """Return the number of hits that Protenix reads from a file, and the number of records that it leaves out.

    Raises:
        InputError: if Protenix cannot read the file. The message names the record.
    """
    try:
        stat = path.stat()
        return _count_hits(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4096)
def _count_hits(path: Path, size: int, changed: int) -> tuple[int, int]:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name}: expected a file of hits ending in {' or '.join(SUFFIXES)}")
    try:
        return _count_a3m(path) if path.suffix == ".a3m" else (_count_hhr(path), 0)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def _count_a3m(path: Path) -> tuple[int, int]:
    """Count the hits of hmmsearch. Protenix reads records with ``mol:protein`` in the header only."""
    hits = others = 0
    with path.open("rb") as file:
        for record in read_records(file):
            if b"mol:protein" not in record.header:
                others += 1
            elif _A3M_HEADER.match(record.header.strip()):
                hits += 1
            else:
                raise InputError(
                    f"record {record.number}: {record.header[:60].decode()!r} is not the header of a template hit; "
                    "it has the form 1abc_A/1-120 mol:protein length:120"
                )
    return hits, others


def _count_hhr(path: Path) -> int:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError("not UTF-8 text") from None
    starts = [number for number, line in enumerate(lines) if line.startswith("No ")]
    for start in starts:
        number, name, summary = (*lines[start : start + 3], "", "")[:3]
        if not number.split()[-1].isdigit() or not _HHR_NAME.match(name) or not _HHR_SUMMARY.search(summary):
            raise InputError(
                f"line {start + 1}: not a hit of HHsearch: a line 'No 1' is followed by '>1abc_A ...' and by "
                "'... Aligned_cols=... Sum_probs=...'"
            )
    return len(starts)
