"""Cache of alignment and template features: they take most of featurization, and no seed changes them.

Files hold plain arrays and no pickles, in the user's cache folder. The least recently used are deleted when the cache
grows too large.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed import __version__
from protenix_multiseed.inputs.content import entities_content
from protenix_multiseed.paths import cache_dir
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Job

LAYOUT = 3  # raise when the arrays change their meaning
MAX_BYTES = 2 * 2**30
_WARNINGS = "warnings"

Made = tuple[dict[str, np.ndarray], tuple[str, ...]]
"""Arrays, and warnings for the user."""


def cached(job: Job, settings: FeatureSettings, tokens: Sequence[np.ndarray], make: Callable[[], Made]) -> Made:
    """The arrays of a job's alignments and templates: from the cache, or else made by ``make`` and kept.

    Args:
        tokens: Arrays that describe the job's tokens, which bonds and ligands change too.
    """
    path = cache_dir() / "features" / f"{_key(job, settings, tokens)}.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        os.utime(path)
        return arrays, tuple(json.loads(str(arrays.pop(_WARNINGS))))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or cut short
        pass
    arrays, warnings = make()
    if warnings:  # such as a template that could not be fetched now, and may be another time
        return arrays, warnings
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the run
        _store(path, {**arrays, _WARNINGS: np.array(json.dumps(warnings))})
    return arrays, warnings


def _key(job: Job, settings: FeatureSettings, tokens: Sequence[np.ndarray]) -> str:
    """Everything the arrays depend on; template structures are taken to be those of the PDB."""
    content = {"entities": entities_content(job.spec, settings.reads), "settings": asdict(settings)}
    content["tokens"] = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in tokens]
    versions = [metadata.version("protenix"), __version__, LAYOUT]
    return hashlib.sha256(json.dumps([content, versions], sort_keys=True, default=str).encode()).hexdigest()[:32]


def _store(path: Path, arrays: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
        try:
            np.savez(file, **arrays)
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Delete the least recently used files beyond the limit."""
    files = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # another process made room
            files.append((file.stat().st_mtime, file.stat().st_size, file))
    held = 0
    for _, size, file in sorted(files, key=lambda entry: -entry[0]):
        held += size
        if held > MAX_BYTES:
            file.unlink(missing_ok=True)
