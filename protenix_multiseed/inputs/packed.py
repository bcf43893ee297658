"""Open a file that may be packed with gzip, xz or zstd. The content decides, not the name of the file."""

import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from protenix_multiseed.errors import InputError

GZIP, XZ, ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"  # what such files begin with


def is_packed(start: bytes) -> bool:
    """Return whether a file that begins so is packed."""
    return start.startswith((GZIP, XZ, ZSTD))


def open_packed(path: Path, limit: int) -> io.BufferedReader:
    """Open a file to read its content.

    Args:
        limit: The most bytes that it may unpack to.

    Raises:
        OSError: if the file cannot be opened.
    """
    file = path.open("rb")
    try:
        start = file.peek(len(XZ))
        return io.BufferedReader(_Unpacked(file, start, limit)) if is_packed(start) else file
    except BaseException:
        file.close()
        raise


class _Unpacked(io.RawIOBase):
    """The content of a packed file. Reading raises InputError if the file is damaged, or larger than the limit."""

    def __init__(self, packed: BinaryIO, start: bytes, limit: int) -> None:
        self._packed, self._limit, self._left = packed, limit, limit
        self._content: Any
        if start.startswith(ZSTD):
            from backports import zstd  # imported late: few inputs need it

            self._errors: tuple[type[Exception], ...] = (zstd.ZstdError, EOFError)
            self._content = zstd.ZstdFile(packed)
        elif start.startswith(XZ):
            self._errors = (lzma.LZMAError, EOFError)
            self._content = lzma.LZMAFile(packed)  # noqa: SIM115  close() closes the packed file
        else:
            self._errors = (gzip.BadGzipFile, EOFError, zlib.error)
            self._content = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            block = self._content.read(len(buffer))
        except self._errors as error:
            raise InputError(f"damaged: it cannot be unpacked ({error})") from None
        self._left -= len(block)
        if self._left < 0:
            raise InputError(f"it unpacks to more than {self._limit} bytes")
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._packed.close()
        super().close()
