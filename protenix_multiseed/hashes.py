"""SHA-256 of files, and where a fetched file's is kept."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
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
