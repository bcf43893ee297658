"""Alignment and template features kept between runs: they take most of featurization and no seed changes them.

Files hold plain arrays and no pickles, under the user's cache folder, and the oldest go when they grow too many.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed import __version__
from protenix_multiseed.dictionary import cache_dir
from protenix_multiseed.hashes import sha256
from protenix_multiseed.types import FeatureSettings, Job

LAYOUT = 2  # raise when the arrays change their meaning
MAX_BYTES = 2 * 2**30
_FILES = ("pairedMsaPath", "unpairedMsaPath", "templatesPath")
_WARNINGS = "warnings"

Made = tuple[dict[str, np.ndarray], tuple[str, ...]]
"""Arrays, and what the user should know about them."""


def cached(job: Job, settings: FeatureSettings, tokens: Sequence[np.ndarray], make: Callable[[], Made]) -> Made:
    """What ``make`` makes of a job's alignments and templates, or what it made of them before.

    Args:
        tokens: Arrays that tell the job's tokens, by which its arrays are laid out: bonds and ligands change them.
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
    content = {"sequences": list(_contents(job.spec["sequences"])), "settings": asdict(settings)}
    content["tokens"] = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in tokens]
    versions = [metadata.version("protenix"), __version__, LAYOUT]
    return hashlib.sha256(json.dumps([content, versions], sort_keys=True, default=str).encode()).hexdigest()[:32]


def _contents(sequences: list[Mapping[str, Any]]) -> Iterator[Any]:
    for item in sequences:
        for kind, entity in item.items():
            yield kind, {key: sha256(Path(entity[key])) if key in _FILES else entity[key] for key in sorted(entity)}


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
    """Remove what was not used for longest."""
    files = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # another process made room
            files.append((file.stat().st_mtime, file.stat().st_size, file))
    held = 0
    for _, size, file in sorted(files, key=lambda entry: -entry[0]):
        held += size
        if held > MAX_BYTES:
            file.unlink(missing_ok=True)
