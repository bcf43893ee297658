"""What all machines of a run must share: the output folder, the inputs, the checkpoint and the versions.

The run describes its own machine and sends the description to each node, which compares it with what it finds.
"""

import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.hashes import sketch
from protenix_multiseed.types import Task
from protenix_multiseed.upstream.dictionary import find_dictionary


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A description of what one machine has.

    Attributes:
        versions: The version of each program, by name.
        out: The output folder, absolute.
        mark: A file of the run in the output folder, or in the closest folder above it that exists.
        inode: The number of that file, the same on all machines that share the folder.
        files: What identifies the content of each file, by path.
    """

    versions: Mapping[str, str]
    out: Path
    mark: Path
    inode: int
    files: Mapping[str, str]


@contextmanager
def marked(out: Path) -> Iterator[Path]:
    """Make a file for :class:`Shared` while the output folder may not exist. It is deleted at the end."""
    folder = next(part for part in (out.absolute(), *out.absolute().parents) if part.is_dir())
    with tempfile.NamedTemporaryFile(prefix=".protenix-ms-", dir=folder) as file:
        yield Path(file.name)


def describe(config: RunConfig, tasks: Sequence[Task], mark: Path) -> Shared:
    """Describe this machine."""
    files = {str(task.job.source.absolute()) for task in tasks}
    if config.checkpoint_path is not None:
        files.add(str(config.checkpoint_path.absolute()))
    return Shared(
        versions=_versions(),
        out=config.out.absolute(),
        mark=mark,
        inode=mark.stat().st_ino,
        files={file: _content(file) for file in sorted(files)},
    )


def differences(expected: Shared) -> list[str]:
    """Compare this machine with the description of another one. Return what differs, each with the way out."""
    return list(_differences(expected))


def _differences(expected: Shared) -> Iterator[str]:
    versions = _versions()
    for name, version in expected.versions.items():
        if versions[name] != version:
            yield f"{name} is {versions[name]}, and {version} on the machine of the run: install the same version"
    if not expected.mark.is_file() or expected.mark.stat().st_ino != expected.inode:
        yield f"--out {expected.out} is another folder there: choose one on a file system that all machines share"
    elif not os.access(expected.mark.parent, os.W_OK | os.X_OK):
        yield f"--out {expected.out} cannot be written there: give this account access to it"
    for file, content in expected.files.items():
        if (found := _content(file)) != content:
            what = "is missing" if found == "missing" else "has other content"
            yield f"{file} {what} there: put the file at the same place on all machines"


def _versions() -> dict[str, str]:
    """Return the versions. Of Python the first two numbers; the chemical dictionary's names RDKit and biotite too."""
    found = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "protenix-ms": __version__,
        "the chemical dictionary": find_dictionary().identity,
    }
    for name in ("protenix", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _content(file: str) -> str:
    try:
        return sketch(Path(file))
    except OSError:
        return "missing"
