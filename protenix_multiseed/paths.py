"""Folders that several parts of the program use."""

import os
from pathlib import Path

import platformdirs

RUN_FOLDER = "protenix-ms"  # subfolder of the output folder, for files that belong to the run and not to one job
REPORT = "report.html"  # the page, in the output folder
REPORT_FOLDER = "report"  # the pages of single jobs, in the output folder
SUMMARY = "summary.csv"  # the table of all jobs, in the output folder
RANKING = "ranking.csv"  # in the folder of a job
RESERVED_NAMES = frozenset({RUN_FOLDER, REPORT, REPORT_FOLDER, SUMMARY})  # no job's folder may have such a name


def cache_dir() -> Path:
    """Return the folder for derived files, which may be deleted: ``PROTENIX_MS_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("PROTENIX_MS_CACHE") or platformdirs.user_cache_dir("protenix-ms"))
