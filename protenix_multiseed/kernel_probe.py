"""Do the compiled kernels give PyTorch's results on this card? Asked in a process of its own, and remembered.

Nothing here imports torch: where nothing is known yet, the process starts before this one has loaded it.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.dictionary import cache_dir
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs.files import write_text

KINDS = ("triton", "cuequivariance")  # those of the batched path, and of Protenix's own modules
PROBE_SECONDS = 180
_DRIVER = Path("/proc/driver/nvidia/version")


class KernelProbe:
    """Tries the compiled kernels in a process of their own, since one that does not suit a card may abort.

    It runs beside all that a run has to load, and leaves what it compiled in the kernels' own cache. What it found is
    kept for the next run on this card with these versions, unless it is asked for anew.

    Args:
        device: As the user names it.
        wanted: ``torch``, ``auto``, or the kind that must work.
        used: Kinds that the run can use.
        keep: Whether to read and keep what is known.
    """

    def __init__(self, device: str, wanted: str, used: Sequence[str] = KINDS, *, keep: bool = True) -> None:
        self._wanted, self._keep = wanted, keep
        self._kinds = () if wanted == "torch" else tuple(kind for kind in KINDS if kind in (*used, wanted))
        self._device = {"auto": "cuda:0", "cuda": "cuda:0"}.get(device, device)
        self._folder = cache_dir() / "kernels" / _fingerprint()
        self._path: Path | None = None
        self._known: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._tried: tuple[str, ...] = ()
        if self._kinds and device != "cpu" and _DRIVER.exists() and not any(self._folder.glob("*.json")):
            self._start(self._kinds)  # a first run, most likely: it need not wait for torch to name the card

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def begin(self, card: str | None) -> None:
        """Try what is not known yet, now that the card is.

        Args:
            card: Its name; None where there is none that compiled kernels run on.

        Raises:
            ConfigError: if compiled kernels are asked for by name and there is no card for them.
        """
        if card is None:
            if self._wanted in KINDS:
                raise ConfigError(
                    f"--kernels {self._wanted}: it needs a GPU of compute capability 8.0 or newer; use --kernels torch "
                    "or auto"
                )
            self._kinds = ()
            if self._process is not None:
                self._end()
                with contextlib.suppress(OSError):  # the next run need not start one
                    write_text(self._folder / "none.json", "{}")
            return
        self._path = self._folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', card)}.json"
        if self._keep:
            with contextlib.suppress(OSError, ValueError):
                self._known = json.loads(self._path.read_text())
        missing = tuple(kind for kind in self._kinds if kind not in self._known)
        if missing and self._process is None:
            self._start(missing)

    @property
    def is_at_work(self) -> bool:
        """Whether the result has to be waited for."""
        return self._process is not None and self._process.poll() is None

    def result(self) -> dict[str, str]:
        """What each kind came to: ``ok``, or why it cannot be used. Nothing was tried: empty.

        Raises:
            ConfigError: if a kind is asked for by name and cannot be used.
        """
        known = self._known | (self._probed(self._process) if self._process else {})
        found = {kind: known[kind] for kind in self._kinds if kind in known}
        if self._wanted in KINDS and found.get(self._wanted) != "ok":
            reason = found.get(self._wanted, "not tried")
            raise ConfigError(f"--kernels {self._wanted}: {reason}; use --kernels torch or auto")
        return found

    def _start(self, kinds: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "protenix_multiseed.model.kernels.probe", self._device, *kinds]
        # In a group of its own: Ctrl-C is the run's to handle, and its compilers end with it.
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )
        self._tried = kinds

    def _end(self) -> None:
        if self._process is not None:
            _kill(self._process)
            self._process = None

    def _probed(self, process: subprocess.Popen[str]) -> dict[str, str]:
        try:
            output, errors = process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            output, errors = _kill(process)
        found = dict.fromkeys(self._tried, "the probe ended early")
        for line in output.splitlines():  # a line for each kind, so that one that aborts spares those before it
            with contextlib.suppress(ValueError, TypeError):  # a library may print too
                found |= json.loads(line)
        if process.returncode and errors.strip():
            last = errors.strip().splitlines()[-1]
            found = {kind: outcome if outcome == "ok" else last for kind, outcome in found.items()}
        passing = any(sign in outcome.lower() for outcome in found.values() for sign in ("memory", "cuda error"))
        if process.returncode == 0 and self._keep and self._path is not None and not passing:
            with contextlib.suppress(OSError):
                write_text(self._path, json.dumps(self._known | found))
        self._process = None
        return found


def _kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Kill a process and those that it started, which hold its output open; returns what it had to say."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def make_probe(config: RunConfig) -> KernelProbe:
    """A probe of the kernels that a run can use."""
    used = ("cuequivariance",) if config.reference_reason else ("triton",)
    return KernelProbe(config.device, config.kernels, used)


def _fingerprint() -> str:
    """What a probe's outcome depends on beside the card: versions and our own programs."""
    versions = []
    for name in ("torch", "triton", "cuequivariance-torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    programs = sorted(Path(__file__).parent.joinpath("model", "kernels").glob("*.py"))
    hashes = [hashlib.sha256(program.read_bytes()).hexdigest() for program in programs]
    return hashlib.sha256("|".join([*versions, *hashes]).encode()).hexdigest()[:24]
