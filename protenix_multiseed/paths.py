"""Folders that several parts of the program share."""

import os
from pathlib import Path

import platformdirs

RUN_FOLDER = "protenix-ms"  # inside the output folder: files that belong to the run and not to one job


def cache_dir() -> Path:
    """The folder for derived files that can be deleted: ``PROTENIX_MS_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("PROTENIX_MS_CACHE") or platformdirs.user_cache_dir("protenix-ms"))
