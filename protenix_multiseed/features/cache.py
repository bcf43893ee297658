"""Cache of alignment and template features. They take most of featurization's time and do not depend on the seed.

The files hold plain arrays, no pickles. They are in the user's cache folder. When the cache exceeds 2 GiB, the least
recently used files are deleted.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protenix_multiseed import __version__
from protenix_multiseed.files import open_file, open_to_write, write_bytes
from protenix_multiseed.inputs.content import entities_content
from protenix_multiseed.paths import cache_dir
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Job
from protenix_multiseed.versions import version_of

LAYOUT = 4  # increase it when the meaning of the arrays changes
MAX_BYTES = 2 * 2**30
_WARNINGS = "warnings"


class Made(NamedTuple):
    """What is made from a job's alignments and templates.

    Attributes:
        arrays: Feature arrays by name.
        warnings: Warnings for the user that are the same each time.
        passing: Warnings that may not come the next time: for example a template could not be fetched.
    """

    arrays: dict[str, np.ndarray]
    warnings: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


def cached(job: Job, settings: FeatureSettings, tokens: Sequence[np.ndarray], make: Callable[[], Made]) -> Made:
    """Return what was made from a job's alignments and templates from the cache. Else call ``make`` and store it.

    Nothing is stored if there are warnings that may not come the next time, or if a file has changed meanwhile.

    Args:
        tokens: Arrays that describe the job's tokens. They are part of the cache key, because bonds and ligands change
            the tokens too.
    """
    key = _key(job, settings, tokens)
    path = cache_dir() / "features" / f"{key}.npz"
    if (found := _read(path)) is not None:
        return found
    with _alone(key):
        if (found := _read(path)) is not None:  # another process has made it meanwhile
            return found
        made = make()
        if not made.passing:
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                if _key(job, settings, tokens) == key:  # else a file has changed meanwhile
                    _store(path, {**made.arrays, _WARNINGS: np.array(json.dumps(made.warnings))})
        return made


def _read(path: Path) -> Made | None:
    """Return what a file of the cache holds; None if it is missing, or damaged in any way."""
    try:
        with open_file(path, path.parent) as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        with contextlib.suppress(OSError):  # an account that may only read uses what is there
            os.utime(path)
        return Made(arrays, tuple(json.loads(str(arrays.pop(_WARNINGS)))))
    except Exception:
        return None


@contextlib.contextmanager
def _alone(key: str) -> Iterator[None]:
    """Let one process after the other make the arrays of a key: the processes of several GPUs may want them at once.

    The operating system gives the lock back when its holder ends. Without locks, each process makes the arrays.
    """
    handle = None
    with contextlib.suppress(OSError):
        cache_dir().mkdir(parents=True, exist_ok=True)
        handle = open_to_write(cache_dir() / "features.lock", cache_dir(), os.O_RDWR)
        fcntl.lockf(handle, fcntl.LOCK_EX, 1, int(key[:14], 16))
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _key(job: Job, settings: FeatureSettings, tokens: Sequence[np.ndarray]) -> str:
    """Return a hash of everything that the arrays depend on. Template structures are assumed to be the PDB's."""
    content = {"entities": entities_content(job.spec, settings.reads), "settings": asdict(settings)}
    content["components"] = [[one.code, one.text] for one in job.spec.components]
    content["tokens"] = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in tokens]
    versions = [version_of("protenix"), __version__, LAYOUT]
    return hashlib.sha256(json.dumps([content, versions], sort_keys=True, default=str).encode()).hexdigest()[:32]


def _store(path: Path, arrays: Mapping[str, Any]) -> None:
    held = io.BytesIO()
    np.savez(held, **arrays)
    write_bytes(path, held.getvalue())
    _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Delete the least recently used files beyond the limit."""
    files = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # another process has deleted the file
            files.append((file.stat().st_mtime, file.stat().st_size, file))
    held = 0
    for _, size, file in sorted(files, key=lambda entry: -entry[0]):
        held += size
        if held > MAX_BYTES:
            file.unlink(missing_ok=True)
