"""SHA-256 of files, and where a fetched file's is kept."""

import hashlib
import mmap
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    In one piece where the file system can map it: after each of many a thread has to wait for Python's lock, which
    doubles the time for a checkpoint that is hashed while modules are loaded.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return hashlib.sha256(content).hexdigest()
        except (ValueError, OSError):  # an empty file, or one that cannot be mapped
            return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_sha256(checkpoint: Path) -> str | None:
    """The SHA-256 that ``fetch`` recorded beside a checkpoint, if it did."""
    record = hash_file(checkpoint)
    try:
        return record.read_text().split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def hash_file(checkpoint: Path) -> Path:
    """Where the SHA-256 of a fetched checkpoint is kept, in the format of ``sha256sum``."""
    return checkpoint.with_name(checkpoint.name + ".sha256")
