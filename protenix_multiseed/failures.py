"""Turn exceptions into failures of a job or seed, with advice that fits the cause."""

import errno
import traceback

from protenix_multiseed.errors import ProtenixMsError
from protenix_multiseed.types import Failure, Job

_AGAIN = "then run the same command again: finished seeds are kept"


def is_worker_death(error: BaseException) -> bool:
    """Return whether an error says that a worker process ended, or that the whole pool is broken."""
    from pebble import ProcessExpired  # imported late: a run with nothing to do starts no workers

    return isinstance(error, ProcessExpired) or is_broken_pool(error)


def is_broken_pool(error: BaseException) -> bool:
    """Return whether an error says that the whole pool is broken, because an idle worker was killed."""
    from concurrent.futures.process import BrokenProcessPool

    return isinstance(error, BrokenProcessPool)


def failure_of(job: Job, seed: int | None, stage: str, error: BaseException) -> Failure:
    """Return the failure of a job, or of one seed of the job.

    Args:
        seed: None if the whole job failed.
        stage: ``featurize``, ``predict``, ``write`` or ``rank``.
    """
    if is_worker_death(error):
        message = f"the worker process ended (exit code {getattr(error, 'exitcode', 'unknown')})"
        advice = f"if memory ran out, use fewer --workers or a machine with more memory, {_AGAIN}"
    elif isinstance(error, ProtenixMsError):
        message, advice = str(error), f"correct it, {_AGAIN}"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message, advice = f"{error.strerror}: {error.filename or 'the output folder'}", f"free some space, {_AGAIN}"
    elif isinstance(error, OSError) and error.strerror:
        message, advice = f"{error.strerror}: {error.filename or ''}".removesuffix(": "), f"correct it, {_AGAIN}"
    else:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        advice = "see its traceback in the log; run the same command again, or with --sequential"
    trace = "".join(traceback.format_exception(error))
    return Failure(job=job, seed=seed, stage=stage, message=message, advice=advice, traceback=trace)


def ranking_failure(job: Job, error: Exception) -> Failure:
    """Return the failure of a job whose seeds are done but could not be ranked."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Failure(
        job=job,
        seed=None,
        stage="rank",
        message=f"its seeds are done, but could not be ranked: {reason}",
        advice="run the same command again with --verify",
    )
