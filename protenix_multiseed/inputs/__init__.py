"""Input JSON files to jobs, every problem found before any work starts."""

from protenix_multiseed.inputs.read import read_jobs

__all__ = ["read_jobs"]
