"""Numbers, memory sizes and times as text, such as ``24GiB`` and ``2 min``. Text that is safe to show on a terminal."""

import re

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
# C0 and C1 control characters but tab and line feed, marks of writing direction, line separators, lone surrogates.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]")


def parse_bytes(text: str) -> int:
    """Return the bytes that a text such as ``24GiB`` or ``500 MB`` means.

    Raises:
        ValueError: if the text is not a positive size; the message shows valid examples.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ValueError(f"write for example 24GiB or 500MB, found {text!r}")
    size = int(float(match[1]) * _UNITS[match[2]])
    if not match[2] and size < 2**20:
        raise ValueError(f"write a unit, for example {match[1]}GiB; {text!r} would be bytes")
    return size


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 seed``, ``2,000 seeds`` and ``3 batches``."""
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{plural}"


def format_bytes(count: float) -> str:
    """Return bytes as text such as ``3.4 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def format_seconds(seconds: float) -> str:
    """Return a time as text such as ``4 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def visible(text: str) -> str:
    """Return the text with control characters written as escapes, so that a terminal does not obey them.

    Line breaks and tabs stay. Marks of writing direction and lone surrogates are written as escapes too.
    """
    return _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)
