"""Write tables of mmCIF files fast. biotite escapes and pads every value by itself, but most values are equal."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_MAX_KEPT_ROWS = 5_000  # columns with more rows are not kept, so that the kept ones take at most 60 MB of each worker
_SPECIAL = re.compile(r"""[\n\t '"]|\r_""")  # signs that biotite escapes; with a return before each value


def speed_up() -> None:
    """Let biotite write tables with :func:`serialize_looped`, if it still has the method that this replaces."""
    from biotite.structure.io.pdbx import cif

    if hasattr(cif.CIFCategory, "_serialize_looped") and hasattr(cif, "_escape"):
        cif.CIFCategory._serialize_looped = serialize_looped


def serialize_looped(category: Any) -> list[str]:
    """Return the lines of a category with several rows: the same text as biotite's ``_serialize_looped``."""
    columns = []
    for column in category.values():
        values = column.as_array(str).tolist()
        columns.append(_padded(values) if len(values) > _MAX_KEPT_ROWS else _kept(tuple(values)))
    lines = ["".join(row).strip() for row in zip(*columns, strict=True)]
    return ["loop_", *(f"_{category._name}.{name} " for name in category), *lines]


def _padded(values: Sequence[str]) -> list[str]:
    """Escape the values of a column, and pad them to the same width."""
    from biotite.structure.io.pdbx.cif import _escape

    distinct = set(values)
    is_plain = "" not in distinct and _SPECIAL.search("\r".join(("", *distinct))) is None
    escaped = {value: value if is_plain else _escape(value) for value in distinct}
    width = 1 + max(map(len, escaped.values()))
    padded = {value: text.ljust(width) for value, text in escaped.items()}
    return [padded[value] for value in values]


_kept = lru_cache(maxsize=80)(_padded)  # samples of a job differ in four columns of some 60
