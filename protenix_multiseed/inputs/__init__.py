"""Read input files and return checked jobs. Every problem is reported before any work starts."""

from protenix_multiseed.inputs.read import read_jobs

__all__ = ["read_jobs"]
