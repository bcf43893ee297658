"""Turn exceptions into failures of a job or seed, with advice that fits the cause."""

import errno
import traceback
from collections.abc import Sequence
from typing import Any

from protenix_multiseed.errors import DamagedError, FeaturizationError, PredictionError, ProtenixMsError
from protenix_multiseed.types import Failure, Job

_MAX_LINES = 20  # of a message that lists failures
_AGAIN = "then run the same command again: finished seeds are kept"
_ADVICE = {
    (errno.ENOSPC, errno.EDQUOT): "free some space",
    (errno.EACCES, errno.EPERM): "give this account access to it",
    (errno.EROFS,): "mount its file system for writing",
    (errno.ENOENT,): "put it back",
    (errno.EIO, errno.ESTALE, errno.ETIMEDOUT): "check the disk or the network file system",
    (errno.EINTR,): "wait until the other process has ended",
    (errno.EMFILE, errno.ENFILE): "allow more open files (ulimit -n)",
    (errno.ENAMETOOLONG,): "choose a shorter path for --out",
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EINVAL): "move it away",
}
_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the disk takes no more files


class FailedError(ProtenixMsError):
    """Jobs or seeds of a run that has ended have failed. The other results are written.

    Attributes:
        failures: Each failure, with its reason and what to try.
    """

    exit_code = 1

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        lines = (
            f"{one.job.where}{'' if one.seed is None else f' seed {one.seed}'} ({one.stage}): {one.message}; "
            f"{one.advice}"
            for one in self.failures[:_MAX_LINES]
        )
        more = len(self.failures) - _MAX_LINES
        rest = [f"... and {more} more"] if more > 0 else []
        super().__init__("\n".join([f"{len(self.failures)} failed; the other results are written", *lines, *rest]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failures,)


def is_worker_death(error: BaseException | None) -> bool:
    """Return whether an error says that a worker process ended, or that the whole pool is broken."""
    from pebble import ProcessExpired  # imported late: a run with nothing to do starts no workers

    return isinstance(error, ProcessExpired) or is_broken_pool(error)


def is_broken_pool(error: BaseException | None) -> bool:
    """Return whether an error says that the whole pool is broken, because an idle worker was killed."""
    from concurrent.futures.process import BrokenProcessPool

    return isinstance(error, BrokenProcessPool)


def reason_of(error: OSError) -> str:
    """Return the file and the problem that an error of the operating system is about."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def advice_for(error: OSError) -> str:
    """Return what helps against an error of the operating system."""
    return next((advice for numbers, advice in _ADVICE.items() if error.errno in numbers), "correct it")


def failure_of(job: Job, seed: int | None, stage: str, error: BaseException) -> Failure:
    """Return the failure of a job, or of one seed of the job.

    Args:
        seed: None if the whole job failed.
        stage: ``featurize``, ``predict``, ``write`` or ``rank``.
    """
    if is_worker_death(error):
        message = f"the worker process ended (exit code {getattr(error, 'exitcode', 'unknown')})"
        advice = f"if memory ran out, use fewer --workers or a machine with more memory, {_AGAIN}"
    elif isinstance(error, DamagedError | FeaturizationError) and error.way_out is not None:
        message, advice = str(error), error.way_out
    elif isinstance(error, PredictionError):
        message, advice = str(error), "use --kernels torch, or another seed"
    elif isinstance(error, ProtenixMsError):
        message, advice = str(error), f"correct it, {_AGAIN}"
    elif isinstance(error, OSError):
        message, advice = reason_of(error), f"{advice_for(error)}, {_AGAIN}"
    elif isinstance(error, MemoryError):
        fewer = "" if stage == "rank" else "fewer --workers or "
        message, advice = "out of memory", f"use {fewer}a machine with more memory, {_AGAIN}"
    else:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        advice = "run the same command again" + (", or with --sequential" if stage == "predict" else "")
        advice += "; if it fails again, report the traceback"
    if stage == "rank":
        what = "its seeds are done, but could not be ranked" if seed is None else "left out of the ranking"
        message = f"{what}: {message}"
    trace = "".join(traceback.format_exception(error))
    is_over = stage == "write" and isinstance(error, OSError) and error.errno in _NO_MORE
    return Failure(job=job, seed=seed, stage=stage, message=message, advice=advice, traceback=trace, ends_run=is_over)
