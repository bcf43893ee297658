"""The advice in a failure fits its cause."""

import errno
import os
from pathlib import Path

import pytest
from support.jobs import job_of

from protenix_multiseed.errors import ConfigError, DamagedError, PredictionError
from protenix_multiseed.failures import failure_of


def of(number):
    return OSError(number, os.strerror(number), "out/a/file")


@pytest.mark.parametrize(("error", "stage", "advice"), [
    (of(errno.ENOSPC), "write", "free some space, then"),
    (of(errno.ENOSPC), "rank", "free some space, then"),
    (of(errno.EDQUOT), "rank", "free some space, then"),
    (of(errno.EACCES), "rank", "give this account access to it, then"),
    (of(errno.EROFS), "write", "mount its file system for writing, then"),
    (of(errno.ENOENT), "featurize", "put it back, then"),
    (of(errno.EISDIR), "rank", "move it away, then"),
    (of(errno.EIO), "rank", "check the disk"),
    (of(errno.EMFILE), "write", "ulimit -n"),
    (MemoryError(), "featurize", "fewer --workers"),
    (MemoryError(), "rank", "use a machine with more memory"),
    (DamagedError(Path("out/a/seed_1"), "record.json is cut"), "rank", "--verify"),
    (DamagedError(Path("out/a/seed_1"), "no folder", "move it away"), "rank", "move it away"),
    (PredictionError("not finite"), "predict", "another seed"),
    (ConfigError("no such file"), "featurize", "correct it, then"),
    (ValueError("odd"), "predict", "or with --sequential"),
], ids=str)  # fmt: skip
def test_every_cause_has_its_own_advice(error, stage, advice):
    made = failure_of(job_of(name="a"), 1, stage, error)
    assert advice in made.advice
    assert ("--verify" in made.advice) == (advice == "--verify"), "--verify helps only against damage"
    assert ("--sequential" in made.advice) == (stage == "predict" and isinstance(error, ValueError))
    if isinstance(error, OSError):
        assert f"out/a/file: {error.strerror}" in made.message


def test_a_failed_ranking_says_that_the_seeds_are_done():
    whole = failure_of(job_of(name="a"), None, "rank", of(errno.ENOSPC))
    assert whole.message == "its seeds are done, but could not be ranked: out/a/file: No space left on device"
    one = failure_of(job_of(name="a"), 1, "rank", DamagedError(Path("out/a/seed_1"), "record.json is cut"))
    assert one.message == "left out of the ranking: out/a/seed_1: record.json is cut"
