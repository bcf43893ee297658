"""Locks that keep several processes in one output folder from doing the same work.

Every unit of work has one byte of a file, which its process locks while it works. The kernel releases the lock however
the process ends, also on the shared file systems of clusters (NFS, Lustre, GPFS). The file is never removed.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.paths import RUN_FOLDER


class Locks:
    """The locks of one output folder. Opening them is also the first thing that is written there.

    POSIX drops all locks of a file when a process closes it anywhere: open one of these per process and folder.

    Raises:
        ConfigError: if the folder cannot be written, or its file system has no locks.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        folder = out / RUN_FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ConfigError(f"--out {out}: cannot be written: {error.strerror}; choose another folder") from None
        self.take("probe")
        self.give_back("probe")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def take(self, name: str) -> bool:
        """Lock a name if no other process holds it; whether it is ours now."""
        return self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def give_back(self, name: str) -> None:
        """Unlock a name."""
        self._lock(name, fcntl.LOCK_UN)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold a name for the length of a block, after waiting for it."""
        self._lock(name, fcntl.LOCK_EX)
        try:
            yield
        finally:
            self.give_back(name)

    def _lock(self, name: str, how: int) -> bool:
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        try:
            fcntl.lockf(self._file, how, 1, place)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise ConfigError(
                f"--out {self._out}: its file system has no locks ({error.strerror}), which keep two runs from doing "
                "the same work; choose a folder on another file system"
            ) from None
        return True
