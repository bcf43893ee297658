"""Test in a separate process whether compiled kernels give PyTorch's results on this GPU, and cache the outcome.

This module does not import torch: on a first run the probe starts before the run has loaded torch.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Self

from protenix_multiseed import __version__
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import read_text, write_text
from protenix_multiseed.paths import cache_dir

KINDS = ("triton", "cuequivariance")  # Triton: the batched path; cuEquivariance: Protenix's own modules
ENDED_EARLY = "the probe ended early"
PROBE_SECONDS = 300  # the probe process is killed after this time
_DRIVER = Path("/proc/driver/nvidia/version")


class KernelProbe:
    """Tests compiled kernels in a separate process, because a kernel that does not suit the GPU may abort its process.

    The process runs in parallel while the run loads torch, its inputs and the model. It also fills Triton's cache of
    compiled kernels. The outcome is saved for later runs on the same GPU model with the same versions.

    Use it as a context manager: leaving the context kills a probe process that still runs.

    Args:
        device: The user's device option, such as ``auto``, ``cpu`` or ``cuda:1``.
        wanted: ``torch``, ``auto``, or the kind that must work.
        used: Kinds that the run can use.
        keep: Whether to read and save outcomes.
    """

    def __init__(self, device: str, wanted: str, used: Sequence[str] = KINDS, *, keep: bool = True) -> None:
        self._wanted, self._keep = wanted, keep
        self._kinds = () if wanted == "torch" else tuple(kind for kind in KINDS if kind in (*used, wanted))
        self._device = {"auto": "cuda:0", "cuda": "cuda:0"}.get(device, device)
        self._folder = cache_dir() / "kernels" / _fingerprint()
        self._path: Path | None = None
        self._known: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._deadline = 0.0
        self._output: tuple[IO[str], IO[str]] | None = (
            None  # files, not pipes: nobody reads them until the process ends
        )
        self._tried: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def start_early(self) -> None:
        """Start the probe before the GPU model is known, if this is most likely a first run.

        A first run: there is an NVIDIA driver, and there is no saved outcome for these versions.
        """
        is_first = _DRIVER.exists() and not any(self._folder.glob("*.json"))
        if self._kinds and self._device != "cpu" and is_first:
            self._start(self._kinds)

    def begin(self, card: str | None) -> None:
        """Start the probe for kinds without a saved outcome, once the GPU model is known.

        Args:
            card: Name of the GPU model. None if there is no GPU that can run compiled kernels.

        Raises:
            ConfigError: if the user asks for compiled kernels by name and no GPU can run them.
        """
        if card is None:
            if self._wanted in KINDS:
                raise ConfigError(
                    f"--kernels {self._wanted}: it needs a GPU of compute capability 8.0 or newer; use --kernels torch "
                    "or auto"
                )
            self._kinds = ()
            if self._process is not None:
                self._stop()
                with contextlib.suppress(OSError):  # the file stops the next run from starting early
                    write_text(self._folder / "none.json", "{}")
            return
        self._path = self._folder / _file_name(card)
        if self._keep:
            self._known = _read(self._path)
        missing = tuple(kind for kind in self._kinds if kind not in self._known)
        if missing and self._process is None:
            self._start(missing)

    @property
    def is_at_work(self) -> bool:
        """Whether the probe process still runs, so that :meth:`result` would wait for it. Ends one that hangs."""
        if self._process is None or self._process.poll() is not None:
            return False
        if time.monotonic() < self._deadline:
            return True
        _kill(self._process)
        return False

    def result(self) -> dict[str, str]:
        """Wait for the probe and return the outcome of each kind.

        Returns:
            ``ok`` for each kind that can be used, else the reason why it cannot. Empty if no kind was tested. With
            ``triton`` comes ``hopper`` on a Hopper GPU: whether the kernels written for it can be used.

        Raises:
            ConfigError: if the user asks for a kind by name and it cannot be used.
        """
        known = self._known | (self._wait_for(self._process) if self._process else {})
        kinds = (*self._kinds, "hopper") if "triton" in self._kinds else self._kinds
        found = {kind: known[kind] for kind in kinds if kind in known}
        if self._wanted in KINDS and found.get(self._wanted) != "ok":
            reason = found.get(self._wanted, "the probe did not run")
            raise ConfigError(f"--kernels {self._wanted}: {reason}; use --kernels torch or auto")
        return found

    def _start(self, kinds: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "protenix_multiseed.kernels.probe_process", self._device, *kinds]
        # A separate process group: Ctrl-C reaches only the run, and _kill also kills the probe's compiler processes.
        out, err = (tempfile.TemporaryFile("w+", errors="replace") for _ in range(2))  # noqa: SIM115  read and closed later
        self._output = out, err
        self._process = subprocess.Popen(command, stdout=out, stderr=err, text=True, process_group=0)
        self._deadline = time.monotonic() + PROBE_SECONDS
        self._tried = kinds

    def _stop(self) -> None:
        if self._process is not None:
            _kill(self._process)
            self._process = None
            self._read_output()

    def _read_output(self) -> tuple[str, str]:
        """Return what the process wrote to stdout and stderr."""
        files, self._output = self._output or (), None
        texts = []
        for file in files:
            with file:
                file.seek(0)
                texts.append(file.read())
        return (texts[0], texts[1]) if texts else ("", "")

    def _wait_for(self, process: subprocess.Popen[str]) -> dict[str, str]:
        """Wait for the probe process, and return and save its outcomes."""
        try:
            process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process)
        output, errors = self._read_output()
        found = dict.fromkeys(self._tried, ENDED_EARLY)
        for line in output.splitlines():  # one line for each kind that did not abort the process
            with contextlib.suppress(ValueError, TypeError):  # not a line of the probe: libraries may print too
                found |= json.loads(line)
        if process.returncode and errors.strip():
            last = errors.strip().splitlines()[-1]
            found = {kind: outcome if outcome == "ok" else last for kind, outcome in found.items()}
        # Out of memory and other CUDA errors may be gone on the next run, so they are not saved.
        may_pass = any(sign in outcome.lower() for outcome in found.values() for sign in ("memory", "cuda error"))
        if process.returncode == 0 and self._keep and self._path is not None and not may_pass:
            with contextlib.suppress(OSError):
                write_text(self._path, json.dumps(self._known | found))
        self._process = None
        return found


def known_outcomes(card: str) -> dict[str, str]:
    """Saved outcomes of earlier probes on this GPU model with these versions. Does not start a probe."""
    return _read(cache_dir() / "kernels" / _fingerprint() / _file_name(card))


def _read(path: Path) -> dict[str, str]:
    try:
        known = json.loads(read_text(path, path.parent))
    except (OSError, ValueError, RecursionError):
        return {}
    is_whole = isinstance(known, dict) and all(isinstance(outcome, str) for outcome in known.values())
    return known if is_whole else {}


def _file_name(card: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', card)}.json"


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and its child processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _fingerprint() -> str:
    """Hash of everything that an outcome depends on besides the GPU model.

    It covers the versions of this package, torch, Triton and cuEquivariance, and the source files of the kernels.
    """
    versions = [__version__]
    for name in ("torch", "triton", "cuequivariance-torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    hashes = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return hashlib.sha256("|".join([*versions, *hashes]).encode()).hexdigest()[:24]
