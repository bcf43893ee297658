"""SHA-256 of files, and where the SHA-256 of a fetched file is kept."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 26
_known: dict[tuple[str, int, int], str] = {}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    The file is read in large blocks: hashing releases the GIL, and a thread that hashes beside imports waits for it
    after each block.
    """
    digest, block = hashlib.sha256(), bytearray(min(_BLOCK, path.stat().st_size + 1))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(block):
            digest.update(memoryview(block)[:length])
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """SHA-256 of a file that many jobs may share: hashed again only after its length or time of change has changed."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        _known[key] = sha256(path)
    return _known[key]


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
