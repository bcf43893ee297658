"""Locks between processes."""

import errno
import signal
import subprocess
import sys

import pytest

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs import locks as module
from protenix_multiseed.outputs.locks import Locks

HOLD = """
import sys, time
from pathlib import Path
from protenix_multiseed.outputs.locks import Locks
locks = Locks(Path(sys.argv[1]))
print([locks.take(name) for name in sys.argv[2:]], flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Starts another process that takes the locks of some names and holds them."""
    started = []

    def start(*names):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), *names], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_lock_has_one_holder(tmp_path, other):
    with Locks(tmp_path) as locks:
        assert locks.take("one")
        _, got = other("one", "two")
        assert got == "[False, True]"
        assert not locks.take("two")
        locks.give_back("one")
        _, got = other("one", "two")
        assert got == "[True, False]"


def test_locks_that_are_closed_lock_no_other_file(tmp_path):
    """Regression: a thread of a run that had ended could take and give back the locks of the next run."""
    with Locks(tmp_path) as before:
        pass
    with Locks(tmp_path):  # its file has the number that is free now
        for ask in (before.take, before.give_back):
            with pytest.raises(ValueError, match="negative"):
                ask("one")


def test_a_holder_that_is_killed_leaves_nothing_locked(tmp_path, other):
    process, got = other("one")
    assert got == "[True]"
    with Locks(tmp_path) as locks:
        assert not locks.take("one")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert locks.take("one")


def test_waiting_for_a_lock_ends_when_its_holder_is_killed(tmp_path, other):
    process, _ = other("one")
    process.kill()
    with Locks(tmp_path) as locks, locks.held("one"):
        assert other("one")[1] == "[False]"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another folder"):
        Locks(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"--to .*file: cannot be written"):
        Locks(tmp_path / "file", option="--to")


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def lockf(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(module.fcntl, "lockf", lockf)
    with pytest.raises(ConfigError, match="does not support file locks"):
        Locks(tmp_path)


def test_a_wait_for_a_lock_ends_when_the_run_is_asked_to_stop(tmp_path, other):
    other("one")
    asked = iter([False, False, True])
    with Locks(tmp_path, lambda: next(asked)) as locks:
        text = "another process holds a lock, and this run was asked to stop"
        with pytest.raises(InterruptedError, match=text), locks.held("one"):
            pass
        with locks.held("two"):  # a lock that is free is taken all the same
            assert other("two")[1] == "[False]"


def test_a_circle_of_processes_that_wait_is_no_fault_of_the_file_system(tmp_path, monkeypatch):
    with Locks(tmp_path) as locks:
        with monkeypatch.context() as patched:
            patched.setattr(module.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(errno.EDEADLK, "")))
            assert not locks.take("one")
        assert locks.take("one")
