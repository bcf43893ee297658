"""Input files to checked jobs. Every problem is found before any work starts."""

from protenix_multiseed.inputs.read import read_jobs

__all__ = ["read_jobs"]
