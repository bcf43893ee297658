"""SHA-256 of files, and where a fetched file's is kept."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 26


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    In large blocks: after each a thread has to wait for Python's lock, which takes longer than hashing a small one
    while modules are loaded.
    """
    digest, block = hashlib.sha256(), bytearray(min(_BLOCK, path.stat().st_size + 1))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(block):
            digest.update(memoryview(block)[:length])
    return digest.hexdigest()


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
