"""SHA-256 of files, and the file that records the SHA-256 of a fetched checkpoint."""

import contextlib
import hashlib
import json
import os
import re
import time
from pathlib import Path

from protenix_multiseed.files import read_text, write_text
from protenix_multiseed.paths import cache_dir

_BLOCK = 1 << 26
_SHA256 = re.compile("[0-9a-f]{64}")
_SETTLED_SECONDS = 2.0  # a file that changed less long ago may change again without a later time, so nothing is kept
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


def sha256_kept(path: Path) -> str:
    """Return the SHA-256 of a large file. The user's cache keeps it for later runs.

    The file is hashed again if its place on the disk, its length or one of its times has changed. Among them is the
    time of the inode (``st_ctime``), which each write sets, and which programs cannot choose on the usual file systems.

    Raises:
        OSError: if the file cannot be read. A cache that cannot be read or written only costs time.
    """
    folder, name = cache_dir() / "hashes", os.fsencode(path.absolute())
    kept, now = folder / f"{hashlib.sha256(name).hexdigest()[:24]}.json", time.time()
    with path.open("rb") as file:  # opened first: a network file system then asks its server for the file's state
        found = os.fstat(file.fileno())
    state = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    with contextlib.suppress(OSError, ValueError, RecursionError):  # damaged in any way
        then = json.loads(read_text(kept, folder))
        if isinstance(then, dict) and then.get("state") == state and _SHA256.fullmatch(str(then.get("sha256"))):
            return str(then["sha256"])
    digest = sha256(path)
    if now - found.st_ctime > _SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            write_text(kept, json.dumps({"path": os.fsdecode(name), "state": state, "sha256": digest}) + "\n")
    return digest


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
