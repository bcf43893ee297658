"""One input file as text, with what several dialects need of it. Nothing here knows any dialect."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import InputError
from protenix_multiseed.job_spec import JobSpec, SourceFile

MAX_BYTES = 2**28


@dataclass(frozen=True)
class Document:
    """An input file.

    Attributes:
        path: Its folder is where relative paths begin.
        text: The whole content.
    """

    path: Path
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read a file.

        Raises:
            InputError: if it cannot be read, naming the reason.
        """
        try:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise InputError(
                    f"{path.name}: {size} bytes, at most {MAX_BYTES} are read: split it into several files"
                )
            return cls(path, path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path.name}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    @cached_property
    def json(self) -> Any:
        """The content as JSON, parsed once for all dialects that ask.

        Raises:
            InputError: if it is not JSON, with line and column; or if a key is given twice in one object.
        """
        try:
            return json.loads(self.text, object_pairs_hook=_no_duplicate_keys, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise InputError(f"{self.path.name}: {place}: not valid JSON: {error.msg}") from None
        except (InputError, ValueError) as error:
            raise InputError(f"{self.path.name}: {error}") from None
        except RecursionError:
            raise InputError(f"{self.path.name}: nested too deeply to be an input file") from None

    def find(self, written: str) -> SourceFile:
        """A file that this one names: beside it, or else in the working folder if it is there."""
        try:
            path = Path(written).expanduser()
            beside = self.path.parent / path
            found = (path if not beside.exists() and path.exists() else beside).resolve()
        except (OSError, RuntimeError, ValueError):  # too long for a path, no such user, a NUL byte
            found = self.path.parent / "?"
        return SourceFile(path=found, written=written)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedJob:
    """One job of a document, as a dialect read it.

    Attributes:
        index: Position in the document, from 0.
        name: As written; None if there is none to name the job by.
        spec: None if the problems are such that there is none.
        seeds: The job's own; None if it names none.
        seed_problem: What is wrong with its own seeds, which matters only if they are used.
        problems: Each with its field.
        notes: What the dialect says that is not used, in words.
    """

    index: int
    name: str | None
    spec: JobSpec | None = None
    seeds: tuple[int, ...] | None = None
    seed_problem: str | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _no_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the key {twice!r} is given twice in one object: only one of the two would be read")
    return result


def _no_constant(text: str) -> Any:
    raise InputError(f"{text} is not JSON: write a number")
