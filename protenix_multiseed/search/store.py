"""Alignments that were found, as files. What is stored is not searched again."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.files import write_text
from protenix_multiseed.paths import cache_dir
from protenix_multiseed.search.base import Tell


class Store:
    """The alignments of one source, in the user's folder and in the cache.

    A file's name is a hash of the source and of what was searched. A file is written at once or not at all.

    Args:
        folder: The user's folder, where every alignment of this run ends.
        source: Name of the source.
        tell: Receives a sentence if the cache cannot be written. This costs time only.
    """

    def __init__(self, folder: Path, source: str, tell: Tell = lambda text: None) -> None:
        self._folder, self._source, self._tell = folder, source, tell
        self._cache, self._is_cached = cache_dir() / "msa", True

    def get(self, role: str, sequences: Sequence[str]) -> Path | None:
        """Return the file of an alignment in the user's folder; None if it was not searched before.

        Args:
            role: What the alignment is, such as ``unpaired``. It becomes part of the file's name.
            sequences: The sequences that determine the alignment, the aligned one first.
        """
        name = self._name(role, sequences)
        path = self._folder / name
        if not path.is_file():
            try:
                text = (self._cache / name).read_text()
            except (OSError, UnicodeDecodeError):
                return None
            write_text(path, text)
        return path

    def put(self, role: str, sequences: Sequence[str], text: str) -> Path:
        """Store an alignment. Return its file in the user's folder, as another process may have written it meanwhile.

        Raises:
            OSError: if it cannot be written to the user's folder.
        """
        name = self._name(role, sequences)
        if not (self._folder / name).is_file():  # another process may have begun to predict with its text
            write_text(self._folder / name, text)
        if self._is_cached:
            try:
                write_text(self._cache / name, text)
            except OSError as error:
                self._is_cached = False
                self._tell(f"the cache {self._cache} cannot be written ({error.strerror}): searches are not kept there")
        return self._folder / name

    def _name(self, role: str, sequences: Sequence[str]) -> str:
        key = json.dumps([self._source, *sequences])
        return f"{hashlib.sha256(key.encode()).hexdigest()[:24]}_{role}.a3m"
