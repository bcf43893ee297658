"""SHA-256 of files, and the file that records the SHA-256 of a fetched checkpoint."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 26
_known: dict[tuple[str, int, int], str] = {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    The file is read in blocks of 64 MiB. Hashing a block releases the GIL, but the next block has to wait for the GIL
    again. Few large blocks therefore keep a hashing thread fast while the main thread imports modules.
    """
    digest, block = hashlib.sha256(), bytearray(min(_BLOCK, path.stat().st_size + 1))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(block):
            digest.update(memoryview(block)[:length])
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """Return the SHA-256 of a file that many jobs may share.

    The file is hashed again only if its length or modification time has changed.
    """
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        _known[key] = sha256(path)
    return _known[key]


def sketch(path: Path) -> str:
    """Return a hash of a file's length, its first MiB and its last MiB. Hashing all of a large file takes seconds.

    Raises:
        OSError: if the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(1 << 20)
        file.seek(max(0, size - (1 << 20)))
        return hashlib.sha256(f"{size}:".encode() + start + file.read()).hexdigest()[:16]


def recorded_sha256(checkpoint: Path) -> str | None:
    """Return the SHA-256 that ``fetch`` recorded beside a checkpoint; None if there is no record."""
    record = hash_file(checkpoint)
    try:
        return record.read_text().split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def hash_file(checkpoint: Path) -> Path:
    """Return the path of the file that records a checkpoint's SHA-256, in the format of ``sha256sum``."""
    return checkpoint.with_name(checkpoint.name + ".sha256")
