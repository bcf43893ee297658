"""The log of a run, in places that cannot be written."""

import os

import pytest
from support.jobs import job_of

from protenix_multiseed.events import Featurized, Note, OutputOpened
from protenix_multiseed.run.log import EventLog


def write(path, folder, *texts):
    with EventLog(path, folder, as_json=False) as log:
        for text in texts:
            log(Note(job=job_of(name="a"), text=text))
        log(OutputOpened())
        log(Note(job=job_of(name="a"), text="last \udc80"))
    return log


def test_lines_from_before_the_output_is_opened_are_written(tmp_path):
    log = write(tmp_path / "run.log", tmp_path, "one", "two")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.partition("a ")[2] for line in lines] == ["one", "two", "last \\udc80"]
    assert log.problem is None


def test_a_job_without_msa_has_one_row(tmp_path):
    with_msa = {"sequences": [{"proteinChain": {"sequence": "MKT", "count": 1, "unpairedMsa": ">q\nMKT\n"}}]}
    with EventLog(tmp_path / "run.log", tmp_path, as_json=False) as log:
        log(OutputOpened())
        for job in (job_of(), job_of(with_msa)):
            log(Featurized(job=job, n_token=3, n_atom=20, n_msa=2, n_chain=1, seconds=0.1))
    rows = [line.partition("msa_rows")[2][1:2] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert rows == ["1", "2"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link out", "chosen pipe", "full disk"])
def test_a_log_that_cannot_be_written_holds_nothing_up(tmp_path, kind):
    """Regression: opening a pipe waited for a reader for ever."""
    folder, path = tmp_path / "out", tmp_path / "out" / "run.log"
    folder.mkdir()
    if kind in ("pipe", "chosen pipe"):
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link out":
        path.symlink_to(tmp_path / "outside")
    else:
        path.symlink_to("/dev/full")
    log = write(path, None if kind in ("chosen pipe", "full disk") else folder, "one")
    assert log.problem is not None
    assert not (tmp_path / "outside").exists()


def test_a_pipe_that_nobody_empties_loses_lines(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    log = write(tmp_path / "pipe", None, *["x" * 1000] * 200)
    assert log.problem is not None
    assert os.read(reader, 1000)
    os.close(reader)
