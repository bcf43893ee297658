"""Versions of installed packages. Each is read once, because reading one takes milliseconds and each job needs some."""

from functools import cache
from importlib import metadata


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package."""
    return metadata.version(package)
