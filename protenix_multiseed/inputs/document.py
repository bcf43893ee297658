"""One input file as text, with helpers that all dialects share. Nothing here depends on a dialect."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import InputError, yaml_problem
from protenix_multiseed.inputs.packed import is_packed, open_packed
from protenix_multiseed.inputs.words import PROTENIX, Words
from protenix_multiseed.job_spec import JobSpec, SourceFile, TemplateStructure

MAX_BYTES = 2**28
MAX_YAML_BYTES = 2**18  # a complex takes some kilobytes; PyYAML takes seconds for more
MAX_VALUES = 2_000_000  # 5,000 jobs have some 500,000; parsing two million takes half a GiB


def absolute(path: Path) -> Path:
    """Return the absolute path. A link keeps its name: workflows stage inputs as links to files of other names."""
    return path.parent.resolve() / path.name


@dataclass(frozen=True)
class Document:
    """An input file.

    Attributes:
        path: Path of the file. Relative paths inside the file start at its folder.
        text: Whole content of the file.
    """

    path: Path
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read a file.

        Raises:
            InputError: if the file cannot be read; the message names the reason.
        """
        try:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise InputError(
                    f"{path.name}: {size} bytes, at most {MAX_BYTES} are allowed: split it into several files"
                )
            return cls(path, path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            way_out = "save the file as UTF-8"
            if is_packed(error.object):
                way_out = "it is packed: unpack it (alignments, structures and components that it names may be packed)"
            raise InputError(f"{path.name}: not UTF-8 text (byte {error.start}): {way_out}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    @property
    def json(self) -> Any:
        """The content parsed as JSON. It is parsed once for all dialects.

        Raises:
            InputError: if the content is not JSON (the message gives line and column), if it holds too many values, or
                if a key is given twice in one object.
        """
        content, error = self._json
        if error is not None:
            raise error
        return content

    @property
    def json_or_none(self) -> Any:
        """The content parsed as JSON; None if it is not JSON."""
        return self._json[0]

    @cached_property
    def _json(self) -> tuple[Any, InputError | None]:
        """The content parsed as JSON, or the error."""
        try:
            return self._parse_json(), None
        except InputError as error:
            return None, error

    def _parse_json(self) -> Any:
        if (count := _count_values(self.text)) > MAX_VALUES:
            raise InputError(
                f"{self.path.name}: some {count} values, at most {MAX_VALUES} are allowed: split it into several files"
            )
        try:
            return json.loads(self.text, object_pairs_hook=_no_duplicate_keys, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            if not self.text.lstrip().startswith(("{", "[")):
                if self.path.suffix.lower() in (".csv", ".tsv"):
                    raise InputError(
                        f"{self.path.name}: tables are no inputs; write FASTA, for several complexes with ':' between "
                        "the chains of each record, as ColabFold does"
                    ) from None
                raise InputError(
                    f"{self.path.name}: not an input: neither JSON, nor FASTA (whose records begin with '>'), nor "
                    "Boltz YAML, mmCIF or PDB"
                ) from None
            place, problem = f"line {error.lineno}, column {error.colno}", error.msg
            before, after = self.text[: error.pos].rstrip(), self.text[error.pos :].lstrip(", \t\r\n")
            if (before.endswith(",") or self.text[error.pos : error.pos + 1] == ",") and after.startswith(("]", "}")):
                problem = f"a comma too many before {after[0]!r}"
            raise InputError(f"{self.path.name}: {place}: not valid JSON: {problem}") from None
        except (InputError, ValueError) as error:
            raise InputError(f"{self.path.name}: {error}") from None
        except RecursionError:
            raise InputError(f"{self.path.name}: nested too deeply to be an input file") from None

    @cached_property
    def yaml(self) -> Any:
        """The content parsed as YAML.

        Raises:
            InputError: if the content is not YAML (the message gives line and column), or if it is too large.
        """
        import yaml  # imported late: JSON is the usual form

        from protenix_multiseed.inputs import strict_yaml

        name = self.path.name
        if len(self.text) > MAX_YAML_BYTES:
            raise InputError(f"{name}: {len(self.text)} characters, at most {MAX_YAML_BYTES} are allowed in YAML")
        try:
            return strict_yaml.load(self.text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{name}: {yaml_problem(error)}") from None

    def find(self, written: str) -> SourceFile:
        """Find a file that this document names: beside the document first, then in the working folder."""
        try:
            path = Path(written).expanduser()
            beside = self.path.parent / path
            found = absolute(path if not beside.exists() and path.exists() else beside)
        except (OSError, RuntimeError, ValueError):  # too long for a path, no such user, a NUL byte
            found = self.path.parent / "?"
        return SourceFile(path=found, written=written)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedJob:
    """One job of a document, as a dialect read it.

    Attributes:
        index: Position in the document, from 0.
        name: Name as written; None if the job has no usable name.
        spec: The job in neutral form; None if the problems prevent it.
        seeds: Seeds that the job itself lists; None if it lists none.
        seed_problem: Error in the job's own seeds. It matters only if these seeds are used.
        problems: Problems found, each with its field.
        notes: Sentences about parts of the input that are not used.
        words: What messages call the parts of the job.
        coordinates: Coordinates in the document that can be templates, by the number of their entity.
    """

    index: int
    name: str | None
    spec: JobSpec | None = None
    seeds: tuple[int, ...] | None = None
    seed_problem: str | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    words: Words = PROTENIX
    coordinates: Mapping[int, TemplateStructure] = field(default_factory=dict)


def read_text(path: Path, most: int) -> str:
    """Return the content of a text file, which may be packed with gzip, xz or zstd.

    Raises:
        OSError: if the file cannot be read.
        InputError: if the file is damaged or no text, or has more than ``most`` bytes.
    """
    try:
        with open_packed(path, most) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise InputError(f"more than {most} bytes")
        return content.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path.name}: not text, nor text packed with gzip, xz or zstd") from None
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def _count_values(text: str) -> int:
    """Return a number that the values of a JSON text do not exceed: before each value stands one of ``[{,:``."""
    count = sum(map(text.count, "[{,:"))
    if count > MAX_VALUES and text.count('"') <= 4 * MAX_VALUES:  # the text of alignments may hold these signs too
        count = sum(map(_STRING.sub("", text).count, "[{,:"))
    return count


def first_twice(keys: Iterable[Any]) -> Any:
    """Return the first key that was there before; None if there is none."""
    seen: set[Any] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _no_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = first_twice(key for key, _ in pairs)
        raise InputError(f"the key {twice!r} is given twice in one object: keep one of the two")
    return result


def _no_constant(text: str) -> Any:
    raise InputError(f"{text} is not JSON: write a number")
