"""Boltz's alignments as CSV, with the columns ``sequence`` and ``key``: rows of chains with equal keys are pairs.

Protenix pairs rows whose headers name the same species. So each key is written as the species of its row in a paired
alignment. Rows without a key go to the unpaired alignment. The first row is the query in both.
"""

import csv
import io
import re

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.alignment_records import species_header
from protenix_multiseed.inputs.document import read_text
from protenix_multiseed.job_spec import Alignment, SourceFile

MAX_BYTES = 2**28
_COLUMNS = ["key", "sequence"]
_NO_KEY = ("", "-1", "nan")  # as Boltz reads them
_WHOLE = re.compile(r"([-+]?\d+)\.0*")  # pandas writes whole numbers so if a cell of the column is empty


def alignments_of(file: SourceFile, place: str) -> dict[str, Alignment]:
    """Return the paired and the unpaired alignment of a CSV file.

    Raises:
        InputError: if the file cannot be read, or is not such a table. The message names the file and the line.
    """
    try:
        text = read_text(file.path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"{file.path.name}: cannot be read: {error.strerror}") from None
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        if sorted(reader.fieldnames or ()) != _COLUMNS:
            raise InputError("the first line must name the columns sequence and key, and no other column")
        rows = []
        for row in reader:
            key, sequence = row.get("key"), row.get("sequence")
            if key is None or sequence is None or None in row:
                raise InputError(f"line {reader.line_num} does not have two values")
            if sequence.strip():
                rows.append((reader.line_num, _WHOLE.sub(r"\1", key.strip()), sequence.strip()))
    except csv.Error as error:
        raise InputError(f"{file.path.name}: not CSV: {error}") from None
    except InputError as error:
        raise InputError(f"{file.path.name}: {error}") from None
    if not rows:
        raise InputError(f"{file.path.name}: the table has no row")
    (_, _, query), *others = rows
    paired, unpaired = f">query\n{query}\n", f">query\n{query}\n"
    for line, key, sequence in others:
        if key.lower() in _NO_KEY:
            unpaired += f">line{line}\n{sequence}\n"
        else:
            paired += f">{species_header(f'line{line}', key)}\n{sequence}\n"
    return {
        "paired": Alignment(text=paired, place=place),
        "unpaired": Alignment(text=unpaired, place=place),
    }
