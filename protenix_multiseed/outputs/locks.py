"""Locks that stop several processes in one output folder from doing the same work.

Each unit of work has one byte in a lock file. The process that works on the unit locks this byte. The operating system
releases the lock when the process ends for any reason, also on the shared file systems of clusters (NFS, Lustre, GPFS).
The file is never removed.
"""

import errno
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from protenix_multiseed.errors import ConfigError, RunError
from protenix_multiseed.files import check_inside, open_file, open_to_write
from protenix_multiseed.paths import RUN_FOLDER

LOCK_FILE = "locks"
POLL_SECONDS = 0.05
_FLOCK = "hhqqi"  # struct flock of Linux: type, whence, start, length, process


class Locks:
    """The locks of one output folder. A run creates the lock file before it writes anything else there.

    Make only one object per process and folder: POSIX releases all of a process's locks on a file when the process
    closes any handle of the file.

    Args:
        should_stop: Called while :meth:`held` waits. If it returns True, the wait ends.
        option: The option that names the folder, for messages.

    Raises:
        ConfigError: if the folder cannot be written, or its file system does not support locks.
    """

    def __init__(self, out: Path, should_stop: Callable[[], bool] = lambda: False, *, option: str = "--out") -> None:
        self._out, self._should_stop = out, should_stop
        path = out / RUN_FOLDER / LOCK_FILE
        try:
            check_inside(path.parent, out)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_to_write(path, out, os.O_RDWR)
        except OSError as error:
            place = f"{error.filename}: " if error.filename not in (None, str(out)) else ""
            raise ConfigError(
                f"{option} {out}: cannot be written: {place}{error.strerror}; choose another folder"
            ) from None
        try:
            self.take("probe")
            self.give_back("probe")
        except RunError as error:
            os.close(self._file)
            raise ConfigError(
                f"{error}, which stop two runs from doing the same work; choose a folder on another file system"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread may still ask for a lock. The number of a closed file soon belongs to another file.
        closed, self._file = self._file, -1
        os.close(closed)

    def take(self, name: str) -> bool:
        """Try to lock a name. Return False if another process holds the lock."""
        return self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def give_back(self, name: str) -> None:
        """Unlock a name."""
        self._lock(name, fcntl.LOCK_UN)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Wait for the lock of a name, and hold it inside the ``with`` block.

        Raises:
            InterruptedError: if ``should_stop`` returned True meanwhile.
        """
        while not self.take(name):  # the system call that waits would not end at a signal
            if self._should_stop():
                text = "another process holds a lock, and this run was asked to stop"
                raise InterruptedError(errno.EINTR, text, str(self._out / RUN_FOLDER / LOCK_FILE))
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            self.give_back(name)

    def _lock(self, name: str, how: int) -> bool:
        try:
            fcntl.lockf(self._file, how, 1, _place(name))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):  # the holder may wait for this process
                return False
            raise RunError(
                f"--out {self._out}: its file system does not support file locks ({error.strerror})"
            ) from None
        return True


def is_locked(out: Path, name: str) -> bool:
    """Return whether another process holds the lock of a name. It only reads.

    A process that has a :class:`Locks` of the folder may not call it: closing the file would release its locks.

    Raises:
        OSError: if the lock file cannot be read.
    """
    with open_file(out / RUN_FOLDER / LOCK_FILE, out) as file:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _place(name), 1, 0)
        kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return bool(kind != fcntl.F_UNLCK)


def _place(name: str) -> int:
    """Return the byte of the lock file that stands for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
