"""Alignments that were found, as files. What is stored is not searched again."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.files import write_text
from protenix_multiseed.paths import cache_dir


class Store:
    """The alignments of one source, in the user's folder and in the cache.

    A file's name is a hash of the source and of what was searched. A file is written at once or not at all.

    Args:
        folder: The user's folder, where every alignment of this run ends.
        source: Name of the source.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._source = folder, source
        self._cache = cache_dir() / "msa"

    def get(self, role: str, sequences: Sequence[str]) -> Path | None:
        """Return the file of an alignment in the user's folder; None if it was not searched before.

        Args:
            role: What the alignment is, such as ``unpaired``. It becomes part of the file's name.
            sequences: The sequences that determine the alignment, the aligned one first.
        """
        name = self._name(role, sequences)
        path, cached = self._folder / name, self._cache / name
        if not path.is_file():
            if not cached.is_file():
                return None
            write_text(path, cached.read_text())
        return path

    def put(self, role: str, sequences: Sequence[str], text: str) -> Path:
        """Store an alignment. Return its file in the user's folder.

        Raises:
            OSError: if it cannot be written.
        """
        name = self._name(role, sequences)
        for folder in (self._cache, self._folder):
            write_text(folder / name, text)
        return self._folder / name

    def _name(self, role: str, sequences: Sequence[str]) -> str:
        key = json.dumps([self._source, *sequences])
        return f"{hashlib.sha256(key.encode()).hexdigest()[:24]}_{role}.a3m"
