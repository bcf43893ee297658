"""Worker processes: the order of results, killed workers, and the messages that the user gets."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing.process import BaseProcess

import pebble
import psutil
import pytest
from pebble import ProcessExpired
from support.command import environment
from support.jobs import job_of
from support.predictions import prediction
from support.workers import act, imported

from protenix_multiseed.errors import FeaturizationError
from protenix_multiseed.execution.writing import PendingWrite
from protenix_multiseed.failures import failure_of
from protenix_multiseed.features import pool as module
from protenix_multiseed.features import processes
from protenix_multiseed.features.pool import AHEAD, WorkerPool
from protenix_multiseed.settings import FeatureSettings, WriteSettings
from protenix_multiseed.types import Failure


def job(name):
    return job_of(name=name)


@pytest.fixture(scope="module")
def made():
    """Results of six jobs on two workers, by job name. One job kills its worker."""
    names = ["slow", "a", "killed", "wrong", "noisy", "b"]
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "_featurize", act)
    with WorkerPool(2) as pool:
        results = list(pool.featurize([job(name) for name in names], FeatureSettings()))
    patch.undo()
    return dict(zip(names, results, strict=True))


def test_results_come_in_the_order_of_the_jobs(made):
    assert [made[name][0] for name in ("slow", "a", "noisy", "b")] == ["slow", "a", "noisy", "b"]


def test_a_worker_that_is_killed_each_time_fails_only_its_own_job(made):
    (failed,) = made["killed"]
    assert isinstance(failed, Failure)
    assert failed.job.name == "killed"
    assert "worker process ended (exit code -9)" in failed.message
    assert "fewer --workers" in failed.advice


def test_a_job_whose_worker_is_killed_is_tried_again(monkeypatch, tmp_path):
    """Regression: the first death of a worker failed all seeds of the job."""
    monkeypatch.setattr(module, "_featurize", act)
    monkeypatch.setenv("KILLS", str(tmp_path / "kills"))
    with WorkerPool(1) as pool:
        made = list(pool.featurize([job("killed twice"), job("b")], FeatureSettings()))
    assert [one[0] for one in made] == ["killed twice", "b"]
    assert (tmp_path / "kills").stat().st_size == 3


def test_a_job_that_is_tried_again_does_not_hold_up_a_stop(monkeypatch, tmp_path):
    """Regression: whoever waited for the second try did not ask whether the run has to stop."""
    monkeypatch.setattr(module, "_featurize", act)
    monkeypatch.setenv("KILLS", str(kills := tmp_path / "kills"))

    def is_tried_again():
        return kills.exists() and kills.stat().st_size == 2

    made = []
    with WorkerPool(1) as pool:
        results = pool.featurize([job("killed, then asleep")], FeatureSettings(), is_tried_again)
        waiting = threading.Thread(target=lambda: made.append(list(results)), daemon=True)
        waiting.start()
        waiting.join(200)
        assert made == [[]]


def test_no_features_are_made_after_they_were_dropped(monkeypatch):
    """Regression: a job that was tried again at that moment kept a worker from writing."""
    monkeypatch.setattr(module, "_featurize", act)
    with WorkerPool(1) as pool:
        pool.drop_features()
        begun = pool.begin(job("a"), FeatureSettings())
        assert begun.is_ready()
        (failed,) = begun.result()
        assert isinstance(failed, Failure)


def test_a_job_that_fails_says_why(made):
    (failed,) = made["wrong"]
    assert failed.message == "in.json[0] 'wrong': no such thing"
    assert failed.stage == "featurize"
    assert "FeaturizationError" in failed.traceback


def test_jobs_run_in_other_processes(made):
    assert os.getpid() not in {made[name][1] for name in ("slow", "a", "b")}


def test_prefetch_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_featurize", act)
    taken = []

    def jobs():
        for index in range(20):
            taken.append(index)
            yield job(f"job{index}")

    with WorkerPool(1) as pool:
        results = pool.featurize(jobs(), FeatureSettings())
        assert len(taken) == 1 + AHEAD  # at once, before the first result is asked for
        next(results)
        assert len(taken) == 2 + AHEAD
        list(results)


def test_workers_print_nothing_to_the_terminal(capfd, monkeypatch):
    monkeypatch.setattr(module, "_featurize", act)
    with WorkerPool(1) as pool:
        list(pool.featurize([job("noisy")], FeatureSettings()))
    assert capfd.readouterr() == ("", "")


def test_failures_name_the_error_or_the_exit_code():
    assert failure_of(job("a"), 3, "predict", ValueError("two\nlines")).message == "ValueError: two lines"
    assert "exit code 7" in failure_of(job("a"), None, "featurize", ProcessExpired("", code=7)).message


def test_a_stopped_pool_gives_a_failure_and_no_crash():
    with WorkerPool(1) as pool:
        pool.submit(os.getpid).result()
        pool._has_left = True
        pool._pool.stop()
        ((made,),) = pool.featurize([job("a")], FeatureSettings())
    assert isinstance(made, Failure)
    assert "worker processes cannot continue" in made.message


def test_many_threads_replace_a_broken_pool_only_once(monkeypatch):
    """One thread submits jobs to featurize, another predictions to write. Regression: each replaced a broken pool."""
    started, together = [], threading.Barrier(4)

    class Broken:
        def schedule(self, function, args):
            time.sleep(0.05)
            raise RuntimeError("The pool is not active")

    class Working:
        def schedule(self, function, args):
            made = Future()
            made.set_result(function(*args))
            return made

    pool = WorkerPool(1)
    pool._pool = Broken()
    monkeypatch.setattr(pool, "_start", lambda: (started.append(1), Working())[1])

    def submit():
        together.wait(20)
        pool.submit(abs, -1)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(started) == 1


def test_no_future_is_lost_while_many_threads_submit(monkeypatch):
    """A future missing from the list is not cancelled when the pool ends, and a thread may wait for it for ever."""
    made = []

    class Slow:
        def schedule(self, function, args):
            made.append(Future())
            return made[-1]

    class SlowList(list):
        def append(self, future):
            time.sleep(0.002)  # regression: a switch of threads here lost another thread's future
            super().append(future)

    pool = WorkerPool(1)
    pool._pool, pool._given = Slow(), SlowList()
    threads = [threading.Thread(target=lambda: [pool.submit(abs, 1) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 80
    assert {id(future) for future in pool._given} == {id(future) for future in made}


def test_a_killed_idle_worker_is_replaced(monkeypatch):
    monkeypatch.setattr(module, "_featurize", act)
    with WorkerPool(1) as pool:
        ((_, worker),) = pool.featurize([job("a")], FeatureSettings())
        os.kill(worker, signal.SIGKILL)
        time.sleep(1)
        made = list(pool.featurize([job("b"), job("c")], FeatureSettings()))
    assert [name for name, _ in made] == ["b", "c"]


@pytest.mark.parametrize("drops", [True, False])
def test_a_thread_that_waits_for_features_ends_with_the_pool(monkeypatch, drops):
    """Regression: a thread that waited for a result when the pool ended kept the process from ending."""
    monkeypatch.setattr(module, "_featurize", act)
    for _ in range(6):
        ended = []
        with WorkerPool(1) as pool:
            results = pool.featurize([job("slow"), job("slow2"), job("slow3")], FeatureSettings())
            waiting = threading.Thread(
                target=lambda results=results, ended=ended: ended.append(len(list(results))), daemon=True
            )
            waiting.start()
            time.sleep(0.2)
            if drops:
                pool.drop_features()
        waiting.join(20)
        assert not waiting.is_alive()


def test_workers_that_featurize_are_free_at_once_when_features_are_dropped(monkeypatch):
    """They ignore SIGTERM, after which the pool would wait: finished predictions must be written before a SIGKILL."""
    monkeypatch.setattr(pebble.CONSTS, "term_timeout", 60.0)
    monkeypatch.setattr(module, "_featurize", act)
    signals = []
    monkeypatch.setattr(processes._Process, "kill", lambda self: (signals.append(self.pid), BaseProcess.kill(self)))
    with WorkerPool(2) as pool:
        begun = [pool.begin(job("endless"), FeatureSettings()) for _ in range(2)]
        while not all(one._future.running() for one in begun):
            time.sleep(0.01)
        pool.drop_features()
        assert pool.submit(len, "ab").result(timeout=600) == 2
        assert len(set(signals)) == 2  # SIGKILL, and no SIGTERM before it


def test_a_worker_that_starts_while_the_pool_ends_is_killed_too(monkeypatch):
    """Without the pool's semaphores it would print a traceback."""
    with WorkerPool(1) as pool:
        assert pool.submit(len, "ab").result() == 2
        inner, join = pool._pool, pool._pool.join

        def start_one_more():
            join()
            pool._context.Process(target=time.sleep, args=(600,)).start()

        monkeypatch.setattr(inner, "join", start_one_more)
    assert multiprocessing.active_children() == []


def test_workers_that_only_rank_have_imported_what_ranking_needs_and_no_torch():
    names = ["protenix_multiseed.analysis.agreement", "protenix_multiseed.analysis.dockq", "torch", "protenix"]
    with WorkerPool(1, only_rank=True) as pool:
        for _ in range(2):
            pool.start()
        assert pool.submit(imported, names).result() == names[:2]


def test_processes_of_the_caller_are_left_alone():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        with WorkerPool(1) as pool:
            assert pool.submit(os.getpid).result() != os.getpid()
        assert other.is_alive()
    finally:
        other.kill()
        other.join()


def test_workers_that_cannot_be_started_fail_the_task_and_not_the_run(monkeypatch, tmp_path):
    """Regression: the error ended the run; in the process of a GPU, nobody heard of the seed any more."""
    with WorkerPool(1) as pool:
        monkeypatch.setattr(pool, "_start", lambda: (_ for _ in ()).throw(OSError(errno.EAGAIN, "no more processes")))
        pending = PendingWrite(pool, prediction(), WriteSettings(out=tmp_path), {})
        assert pending.is_over
        failed = pending.outcome()
        assert (failed.seed, failed.stage, failed.message) == (3, "write", "no more processes")
        assert "run the same command again" in failed.advice
        ((failed,),) = pool.featurize([job("a")], FeatureSettings())
        assert (failed.stage, failed.message) == ("featurize", "no more processes")


def running_servers():
    return [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]


def test_workers_are_forks_of_a_server_that_has_imported_what_they_need(tmp_path, monkeypatch):
    """The server ignores modules of the working folder, as the command does."""
    for name in ("torch", "protenix"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    with WorkerPool(2) as pool:
        pool.start()
        servers = {pool.submit(os.getppid).result() for _ in range(4)}
        (server,) = running_servers()
        assert servers == {server.pid}
        names = ["protenix_multiseed.features.featurize", "torch", "sklearn", "pandas", "matplotlib"]
        assert pool.submit(imported, names).result() == names[:2]
    assert not server.is_running()
    assert not (tmp_path / "imported").exists()


LATE = """
from protenix_multiseed.upstream.environment import hidden, postponed
with postponed("colorsys"), hidden("chunk_of_nothing"):
    import colorsys
    from typing import Union
    kinds = Union[colorsys.any.Type, None], dict[str, colorsys.Other]
    try:
        colorsys.rgb_to_hls(0, 0, 0)
    except TypeError as error:
        print(error)
    try:
        import chunk_of_nothing
    except ModuleNotFoundError:
        print("hidden")
import sys
print("colorsys" in sys.modules, "chunk_of_nothing" in sys.modules)
print(colorsys.rgb_to_hls(1, 1, 1), "colorsys" in sys.modules, hasattr(colorsys, "__file__"))
with postponed("colorsys"), postponed("chunk_of_nothing"):
    import colorsys
    print(colorsys.rgb_to_hls(1, 1, 1))
    try:
        import chunk_of_nothing
    except ModuleNotFoundError:
        print("not installed")
"""


def test_a_postponed_module_is_imported_when_it_is_used_after_the_block():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines() == [
        "a module is used while it is postponed", "hidden", "False False", "(0.0, 1.0, 0.0) True True",
        "(0.0, 1.0, 0.0)", "not installed",
    ]  # fmt: skip


def test_a_pool_that_got_no_task_leaves_no_server():
    with WorkerPool(2) as pool:
        pool.start()
        assert len(running_servers()) == 1
    assert running_servers() == []


LONG = """
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.features.pool import WorkerPool
with WorkerPool(1) as pool:
    try:
        pool.start()
    except ConfigError as error:
        print(error)
"""


def test_a_temporary_folder_whose_path_is_too_long_for_a_socket_is_refused(tmp_path):
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    environment = os.environ | {"TMPDIR": str(folder)}
    made = subprocess.run([sys.executable, "-c", LONG], env=environment, capture_output=True, text=True, timeout=300)
    assert made.stdout.startswith(f"the workers' socket cannot be made in {folder}/pymp-")
    assert "set TMPDIR to a folder with a short path" in made.stdout
    assert made.stderr == ""


def test_a_pool_may_be_left_twice():
    """A run leaves the pool at its end, and the command, which made it, once more."""
    with WorkerPool(1) as pool:
        with pool:
            assert pool.submit(os.getpid).result() != os.getpid()
        assert running_servers() == []
        pool._pool = None
        with pytest.raises(FeaturizationError, match="the workers have ended"):
            pool.submit(os.getpid).result()
    assert running_servers() == []
