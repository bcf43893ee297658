"""Real faults, such as a full disk or a killed worker, with the exit code and the message of each."""

import contextlib
import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from support import cases
from support.command import DELETE_ALIGNMENT, environment, leftovers, run, start, write_jobs

OPTIONS = ("predict", "in.json", "--config", "quick.yaml", "--seeds", "1-2")
JOBS = {"a": "MKTAYIAKQR", "b": "GHKLMNPQRSTV"}


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def failures(out):
    return [json.loads(line) for line in (out / "protenix-ms" / "failures.jsonl").read_text().splitlines()]


def test_a_run_on_a_full_disk_fails_and_can_be_completed_later(tmp_path, small_disk):
    write_jobs(tmp_path, JOBS)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4 * 2**20 - 96 * 1024))  # room for the first files only
    done = run(*OPTIONS, "--out", small_disk / "out", "--samples", "5", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device" in done.stdout
    assert "free some space" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr
    ballast.unlink()
    again = run(*OPTIONS, "--out", small_disk / "out", "--samples", "5", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert not (small_disk / "out" / "protenix-ms" / "failures.jsonl").exists()
    assert leftovers(small_disk / "out") == []


def test_a_read_only_output_folder_is_refused(tmp_path, small_disk):
    write_jobs(tmp_path, JOBS)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = run(*OPTIONS, "--out", small_disk / "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "choose another folder" in done.stderr


def test_an_alignment_deleted_after_the_checks_fails_only_its_job(tmp_path):
    write_jobs(tmp_path, JOBS)
    jobs = json.loads((tmp_path / "in.json").read_text())
    jobs[0]["sequences"][0]["proteinChain"]["unpairedMsaPath"] = "gone.a3m"
    (tmp_path / "in.json").write_text(json.dumps(jobs))
    (tmp_path / "gone.a3m").write_text(">q\nMKTAYIAKQR\n>r\nMKTAYIAKQK\n")
    done = run(*OPTIONS, "--out", "out", cwd=tmp_path, prelude=DELETE_ALIGNMENT)
    assert done.returncode == 1, done.stdout + done.stderr
    (failed,) = failures(tmp_path / "out")
    assert (failed["job"], failed["seed"], failed["stage"]) == ("a", None, "featurize")
    assert "gone.a3m" in failed["message"]
    assert (tmp_path / "out" / "b" / "best.cif").exists()
    assert "Traceback" not in done.stdout
    assert "FeaturizationError" in (tmp_path / "out" / "protenix-ms" / "run.log").read_text()


def test_a_run_ends_although_its_workers_are_killed(tmp_path):
    """Whatever the workers were doing, the run ends and reports the seeds that it did not finish."""
    write_jobs(tmp_path, JOBS)
    process = start(*OPTIONS, "--seeds", "1-15", "--max-seeds-per-batch", "1", "--out", "out", cwd=tmp_path)
    end = time.monotonic() + 600
    killed = 0
    while killed < 2 and process.poll() is None and time.monotonic() < end:
        for worker in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "forkserver" in " ".join(worker.cmdline()) and list(tmp_path.glob("out/*/seed_*")):
                    worker.kill()
                    killed += 1
        time.sleep(0.2)
    code = process.wait(900)
    assert killed >= 1
    text = (tmp_path / "output").read_text()
    done = len(list(tmp_path.glob("out/*/seed_*")))
    assert code == (0 if done == 30 else 1), text
    if code:
        assert len(failures(tmp_path / "out")) == 30 - done
        assert "the worker process" in text


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(1000)], ids=["empty", "text", "cut"]
)
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    (tmp_path / "quick.yaml").write_text("steps: 2\ncycles: 1\n")
    (tmp_path / "weights.pt").write_bytes(content)
    options = ("--model", "protenix_tiny_default_v0.5.0", "--checkpoint", "weights.pt", "--out", "out")
    done = run(*OPTIONS, *options, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "is truncated or not a Protenix checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


LOG_SOCKET_CALLS = """
import os, sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        if getattr(arguments[0], "family", None) != 1:  # AF_UNIX, of the workers' server
            with open(os.environ["SOCKETS"], "a") as file:
                file.write(f"{event} {arguments!r}\\n")
sys.addaudithook(watch)
"""
BIND = "import socket; made = socket.socket(socket.AF_INET); made.bind(('127.0.0.1', 0)); made.close()"


def test_offline_opens_no_network_socket(tmp_path):
    """An audit hook in sitecustomize logs socket calls of the command and of its workers."""
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LOG_SOCKET_CALLS)
    paths = f"{tmp_path / 'site'}{os.pathsep}{cases.REPOSITORY}"
    seen = tmp_path / "sockets"
    control = subprocess.run(
        [sys.executable, "-c", BIND],
        env=environment(PYTHONPATH=paths, SOCKETS=str(seen)), check=True,
    )  # fmt: skip
    assert control.returncode == 0
    assert len(seen.read_text().splitlines()) == 1  # the hook logs a bind
    seen.unlink()
    done = run(*OPTIONS, "--offline", "--out", "out", cwd=tmp_path, PYTHONPATH=paths, SOCKETS=str(seen))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not seen.exists(), seen.read_text()
