"""Safe access to files that other programs may damage, replace or read at the same time.

Writing is atomic: a reader sees either the old content or the new, never a part of it. Reading opens only regular files
inside a given folder. A pipe or a device could block for ever, and a link could lead to a file of somebody else.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import stat
import time
from pathlib import Path

_SCRATCH = re.compile(r"\.(.+)\.(?:new|old)-[^.]*")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_inside(path: Path, folder: Path) -> None:
    """Check that a path is below a folder, also after links are followed. The path need not exist.

    Raises:
        OSError: if the path leads out of the folder, or if a folder on the way cannot be entered.
    """
    current = folder
    try:
        parts = path.relative_to(folder).parts
    except ValueError:
        raise OSError(errno.ELOOP, f"it leads out of {folder}", str(path)) from None
    for part in parts:
        current /= part
        if part == ".." or current.is_symlink():  # resolve only if needed: this costs time for many files
            if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
                raise OSError(errno.ELOOP, f"it leads out of {folder}", str(path))
            return


def file_size(path: Path, folder: Path) -> int:
    """Return the length of a regular file inside a folder, bytes.

    Raises:
        OSError: if there is no such file.
    """
    check_inside(path, folder)
    try:
        found = path.stat()
    except ValueError:  # the path has a NUL character
        raise OSError(errno.EINVAL, "it is not the name of a file", str(path)) from None
    _check_regular(found, path)
    return found.st_size


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the lengths of the regular files in a folder and in the folders in it, bytes, by name below the folder.

    One look at a folder in place of one at each file. Links, and what cannot be read, are left out.
    """
    sizes: dict[str, int] = {}
    inner = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry)
            elif entry.is_file(follow_symlinks=False):
                sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
    for one in inner:
        with contextlib.suppress(OSError), os.scandir(one) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    sizes[f"{one.name}/{entry.name}"] = entry.stat(follow_symlinks=False).st_size
    return sizes


def is_file(path: Path, folder: Path) -> bool:
    """Return whether a path is a regular file inside a folder."""
    try:
        file_size(path, folder)
    except OSError:
        return False
    return True


def open_file(path: Path, folder: Path) -> io.BufferedReader:
    """Open a regular file inside a folder for reading. It never blocks.

    Raises:
        OSError: if there is no such file, or if it cannot be read.
    """
    file_size(path, folder)  # opening a device can have effects, so look before
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(handle), path)  # it may have been replaced since
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, folder: Path) -> bytes:
    """Return the content of a regular file inside a folder.

    Raises:
        OSError: if there is no such file, or if it cannot be read.
    """
    with open_file(path, folder) as file:
        return file.read()


def read_text(path: Path, folder: Path) -> str:
    """Return the text of a regular UTF-8 file inside a folder.

    Raises:
        OSError, UnicodeDecodeError: if there is no such file, or if it cannot be read.
    """
    return read_bytes(path, folder).decode("utf-8")


def open_to_write(path: Path, folder: Path | None, flags: int) -> int:
    """Open a file to write to it in place, or make it. Return the file descriptor. It never blocks.

    Args:
        folder: The folder in which the path must be a regular file; None if the user chose the path, which may then be
            a terminal, or a pipe that another program reads.
        flags: How to open it, such as ``os.O_WRONLY | os.O_APPEND``.

    Raises:
        OSError: if the file cannot be written.
    """
    if folder is not None:
        check_inside(path, folder)
    handle = os.open(path, flags | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        if folder is not None:
            _check_regular(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return handle


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically. If the path is a link, the link is replaced, and not the file that it leads to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch_name(path, "new")
    try:
        with open(scratch, "xb") as file:  # the user's umask decides who may read it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # the user does not know the temporary name
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def make_scratch(target: Path) -> Path:
    """Make an empty folder beside ``target``, for :func:`publish_folder`. The user's umask decides who may read it."""
    scratch = _scratch_name(target, "new")
    scratch.mkdir()
    return scratch


def publish_folder(scratch: Path, target: Path) -> None:
    """Flush a finished folder to disk and move it to ``target``. Whatever is there is replaced, links not followed."""
    for entry in (*scratch.rglob("*"), scratch):
        _sync(entry)
    old = None
    if target.is_dir() and not target.is_symlink():
        old = _scratch_name(target, "old")
        os.replace(target, old)
    else:
        target.unlink(missing_ok=True)
    try:
        os.replace(scratch, target)
    except OSError:
        if old is not None:
            os.replace(old, target)
        raise
    _sync(target.parent)
    if old is not None:
        remove(old)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all its content, if possible. Links are not followed."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # the caller looks at the path again, or it does not matter
        pass


def remove_leftovers(target: Path, *, older_than: float = 0) -> None:
    """Remove the temporary folders that a killed process left beside ``target``.

    Args:
        older_than: Seconds since the last change that show that no process uses a folder; 0 if the caller holds the
            target's lock.
    """
    for left in find_leftovers(target.parent).get(target.name, ()):
        with contextlib.suppress(OSError):  # another process has removed it
            if older_than == 0 or time.time() - left.lstat().st_mtime > older_than:
                remove(left)


def find_leftovers(folder: Path) -> dict[str, list[Path]]:
    """Find the temporary folders that unfinished writes left in a folder, by the name of their target."""
    found: dict[str, list[Path]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and (match := _SCRATCH.fullmatch(entry.name)):
                found.setdefault(match[1], []).append(Path(entry.path))
    return found


def _scratch_name(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}-{os.urandom(6).hex()}")


def _check_regular(found: os.stat_result, path: Path) -> None:
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise OSError(errno.EINVAL, f"it is {name}, not a file", str(path))


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
