"""Surroundings that are closed, stuck, read-only or of another account: sentences, and the right exit codes."""

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.command import COMMAND, environment, leftovers, predictions, run, write_jobs

OPTIONS = ("predict", "in.json", "--config", "quick.yaml", "--out", "out", "--log-format", "json")


@pytest.fixture
def folder(tmp_path):
    write_jobs(tmp_path, {"a": "GHKLM"})
    return tmp_path


def wait_for(condition):
    """Wait for an event, however slow the machine is. The limit only ends a test that would never end."""
    end = time.monotonic() + 500
    while not condition():
        assert time.monotonic() < end, "the event did not come"
        time.sleep(0.02)


def log_of(folder):
    try:
        return [json.loads(line) for line in (folder / "out" / "protenix-ms" / "run.log").read_text().splitlines()]
    except (OSError, ValueError):
        return []


def events(folder):
    return [line["event"] for line in log_of(folder)]


def unprivileged():
    """Arguments that run a command as an account for which the modes of files hold, also if the tests run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


def run_unprivileged(*arguments, cwd, **variables):
    return subprocess.run(
        [*unprivileged(), *COMMAND, *map(str, arguments)], cwd=cwd, env=environment(**variables), check=False,
        capture_output=True, text=True,
    )  # fmt: skip


@contextlib.contextmanager
def closed_folder(path):
    path.mkdir(exist_ok=True)
    path.chmod(0)
    try:
        yield path
    finally:
        path.chmod(0o755)


def assert_refused(done, *texts):
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for text in texts:
        assert text in " ".join(done.stderr.split()), done.stderr


def test_folders_that_cannot_be_entered_are_refused_with_a_sentence(folder):
    with closed_folder(folder / "closed") as closed:
        for out in (closed, closed / "out"):
            done = run_unprivileged(*OPTIONS, "--out", out, cwd=folder)
            assert_refused(done, "closed")
            said = " ".join(done.stderr.replace("│", " ").split())  # Typer's own refusal stands in a box
            assert any(text in said for text in ("cannot be entered", "is not readable"))
            for command in ("rank", "report"):
                assert_refused(run_unprivileged(command, out, cwd=folder), "closed")
        assert_refused(run_unprivileged("validate", closed / "in.json", cwd=folder), "closed", "access")
        for cache in (closed, closed / "cache"):
            done = run_unprivileged("validate", "in.json", cwd=folder, PROTENIX_MS_CACHE=str(cache))
            assert_refused(
                done, "cannot be read: Permission denied; set PROTENIX_MS_CACHE to a folder that can be read"
            )
        done = run_unprivileged("doctor", "--model", "demo", cwd=folder, PROTENIX_MS_CACHE=str(closed))
        assert done.returncode == 1
        assert "set PROTENIX_MS_CACHE" in done.stdout


def test_a_cache_of_another_account_is_used(folder):
    """Root builds an image, and other accounts run it. Regression: the index had the mode 0700."""
    cache = folder / "cache"
    before = os.umask(0o022)
    try:
        assert run("validate", "in.json", cwd=folder, PROTENIX_MS_CACHE=str(cache)).returncode == 0
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        for path in (cache, *cache.rglob("*")):
            os.chown(path, 65534, 65534)
    done = run_unprivileged("validate", "in.json", cwd=folder, PROTENIX_MS_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    (index,) = cache.iterdir()
    with (index / "atoms.npy").open("r+b") as file:
        file.truncate(1000)
    done = run("validate", "in.json", cwd=folder, PROTENIX_MS_CACHE=str(cache))
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "was damaged (atoms.npy has another length than was written); it was made again" in done.stderr


@pytest.mark.parametrize("options", ["ro", "size=4k"])
def test_shared_memory_without_room_is_refused_and_doctor_says_so(folder, options):
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm || exit 99; exec "$@"'
    mounted = ["unshare", "-m", "sh", "-c", script, "sh"]
    if os.geteuid() != 0 or subprocess.run([*mounted, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a mount of its own needs root and unshare")

    def run_there(*arguments):
        return subprocess.run(
            [*mounted, *COMMAND, *arguments], cwd=folder, env=environment(), check=False, capture_output=True, text=True
        )

    assert_refused(run_there(*OPTIONS), "/dev/shm: the workers cannot make semaphores there", "--shm-size")
    assert not (folder / "out").exists()
    done = run_there("doctor", "--model", "demo")
    assert done.returncode == 1
    assert "wrong shared memory: the workers cannot make semaphores in /dev/shm" in done.stdout


def test_names_and_files_are_utf8_if_the_locale_is_not(folder):
    out = folder / "Größe Å"
    write_jobs(folder, {"a": "GHKLM"})
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    for arguments in ((*OPTIONS, "--seeds", "1", "--out", out), ("rank", out), ("report", out)):
        done = run(*arguments, cwd=folder, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "Gr\\xf6\\xdfe \\xc5" in done.stdout
    assert (out / "a" / "seed_1" / "predictions" / "a_sample_0.cif").exists()
    assert "Größe Å" in (out / "report.html").read_text(encoding="utf-8")


def test_closed_streams_change_no_exit_code(folder):
    command = 'exec "$@" >&- 2>&- <&-'
    for arguments, code in (
        ((*OPTIONS, "--seeds", "1"), 0), (("rank", "out"), 0), (("report", "out"), 0), (("validate", "in.json"), 0),
        (("--help",), 0), (("validate", "missing.json"), 2), ((*OPTIONS, "--steps", "3"), 2),
    ):  # fmt: skip
        done = subprocess.run(
            ["sh", "-c", command, "sh", *COMMAND, *arguments], cwd=folder, env=environment(), check=False
        )
        assert done.returncode == code, arguments
    assert events(folder)[-1] == "stage"
    assert (folder / "out" / "a" / "best.cif").exists()
    assert (folder / "out" / "report.html").exists()


class Stdout:
    """A pipe for the standard output of a command, whose reader is slow, gone, or never reads."""

    def __init__(self, kind):
        self._kind = kind
        self._read, self.write = os.pipe()
        fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, 4096)
        if kind == "closed":
            os.close(self._read)
        elif kind == "stuck":
            os.write(self.write, bytes(4096))
        else:
            os.set_blocking(self._read, False)

    def look(self):
        if self._kind == "slow":
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 40)

    def close(self):
        if self._kind != "closed":
            os.close(self._read)


@contextlib.contextmanager
def started(folder, kind, *arguments, prelude=""):
    """Start a command in a process group of its own.

    Yields the process, and a function that waits until a condition holds or the process has ended.
    """
    stdout = Stdout(kind)
    command = [sys.executable, "-c", f"{prelude}\nfrom protenix_multiseed.cli import app\napp()", *OPTIONS, *arguments]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=stdout.write, stderr=stderr, start_new_session=True
        )
    os.close(stdout.write)

    def wait(condition):
        def holds():
            stdout.look()
            return condition() or process.poll() is not None

        wait_for(holds)

    try:
        yield process, wait
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stdout.close()


def ended(process):
    return lambda: process.poll() is not None


@pytest.mark.parametrize("kind", ["slow", "closed", "stuck"])
def test_a_run_does_not_wait_for_its_reader(folder, kind):
    """All seeds are predicted, whatever the reader does. Then the run waits for a reader that may go on to read."""
    with started(folder, kind, "--seeds", "1-30", "-v") as (process, wait):
        wait(lambda: (folder / "out" / "a" / "best.cif").exists())
        if kind == "stuck":
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        wait(ended(process))
    assert process.returncode == 0, (folder / "stderr").read_text()
    assert events(folder).count("predicted") == 30
    assert (folder / "stderr").read_text() == ""


@pytest.mark.parametrize("kind", ["slow", "closed", "stuck"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_random_moment_ends_the_run(folder, kind, number):
    """The finished seeds stay and are ranked, the log has its line, and the terminal has no traceback."""
    chosen = random.Random(f"{kind}{number}")
    awaited = chosen.choice(["features", "progress", "predicted"])
    with started(folder, kind, "--seeds", "1-300", "--max-seeds-per-batch", "1", "--grace", "300") as (process, wait):
        wait(lambda: awaited in events(folder))
        pause = time.monotonic() + chosen.uniform(0, 1)
        wait(lambda: time.monotonic() > pause)
        os.killpg(process.pid, number)
        wait(ended(process))
    assert process.returncode == 128 + number, (folder / "stderr").read_text()
    assert (folder / "stderr").read_text() == ""
    assert events(folder).count("stopping") == 1
    done = predictions(folder / "out")
    n_done = len({name.split("/")[1] for name in done})
    assert events(folder).count("predicted") == n_done
    assert (folder / "out" / "a" / "ranking.csv").exists() == bool(n_done)
    assert leftovers(folder / "out") == []


SIGNAL_DURING_RANKING = """
import os, signal
from protenix_multiseed.run import folder
original = folder.OutputFolder._rank
def rank(*arguments):
    os.kill(os.getpid(), signal.{number})
    original(*arguments)
folder.OutputFolder._rank = rank
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_last_seed_lets_the_ranking_finish(folder, number):
    prelude = SIGNAL_DURING_RANKING.format(number=number)
    with started(folder, "closed", "--seeds", "1", prelude=prelude) as (process, wait):
        wait(ended(process))
    assert process.returncode == 0
    assert (folder / "out" / "a" / "ranking.csv").exists()
    assert events(folder).count("stopping") == 1
    assert (folder / "stderr").read_text() == ""


def test_a_worker_that_is_interrupted_while_it_starts_prints_nothing(folder):
    """Regression: the worker printed the traceback of a KeyboardInterrupt."""
    with started(folder, "closed", "--seeds", "1") as (process, wait):

        def has_worker():
            children = psutil.Process(process.pid).children()
            return any("forkserver" in " ".join(child.cmdline()) for child in children)

        wait(has_worker)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        wait(ended(process))
    assert process.returncode == 130
    assert (folder / "stderr").read_text() == ""
