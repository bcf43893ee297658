"""Do compiled kernels give PyTorch's results on this GPU? Asked in a process of its own, and remembered.

Nothing here imports torch: on a first run the probe starts before the run has loaded it.
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

from protenix_multiseed import __version__
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import write_text
from protenix_multiseed.paths import cache_dir

KINDS = ("triton", "cuequivariance")  # of the batched path, and of Protenix's own modules
PROBE_SECONDS = 180
_DRIVER = Path("/proc/driver/nvidia/version")


class KernelProbe:
    """Tries compiled kernels in a process of their own, since one that does not suit a GPU may abort.

    The process runs beside everything that a run has to load, and fills the cache of compiled kernels. Its outcome is
    kept for the next run on this kind of GPU with these versions.

    Args:
        device: As the user names it.
        wanted: ``torch``, ``auto``, or the kind that must work.
        used: Kinds that the run can use.
        keep: Whether to read and keep outcomes.
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start_early(self) -> None:
        """On what is most likely a first run, start before torch can name the GPU."""
        is_first = _DRIVER.exists() and not any(self._folder.glob("*.json"))
        if self._kinds and self._device != "cpu" and is_first:
            self._start(self._kinds)

    def begin(self, card: str | None) -> None:
        """Try what is not known yet, now that the GPU is.

        Args:
            card: Its name; None if there is no GPU that compiled kernels run on.

        Raises:
            ConfigError: if compiled kernels are asked for by name and there is no GPU for them.
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
        self._path = self._folder / _file_name(card)
        if self._keep:
            self._known = _read(self._path)
        missing = tuple(kind for kind in self._kinds if kind not in self._known)
        if missing and self._process is None:
            self._start(missing)

    @property
    def is_at_work(self) -> bool:
        """Whether the result has to be waited for."""
        return self._process is not None and self._process.poll() is None

    def result(self) -> dict[str, str]:
        """The outcome of each kind: ``ok``, or why it cannot be used. Empty if nothing was tried.

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
        command = [sys.executable, "-m", "protenix_multiseed.kernels.probe_process", self._device, *kinds]
        # In a process group of its own: Ctrl-C is for the run to handle, and its compilers are killed with it.
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
        for line in output.splitlines():  # a line for each kind that did not abort the process
            with contextlib.suppress(ValueError, TypeError):  # a library may print too
                found |= json.loads(line)
        if process.returncode and errors.strip():
            last = errors.strip().splitlines()[-1]
            found = {kind: outcome if outcome == "ok" else last for kind, outcome in found.items()}
        is_passing = any(sign in outcome.lower() for outcome in found.values() for sign in ("memory", "cuda error"))
        if process.returncode == 0 and self._keep and self._path is not None and not is_passing:
            with contextlib.suppress(OSError):
                write_text(self._path, json.dumps(self._known | found))
        self._process = None
        return found


def known_outcomes(card: str) -> dict[str, str]:
    """Outcomes of earlier probes on this kind of GPU with these versions; nothing is tried."""
    return _read(cache_dir() / "kernels" / _fingerprint() / _file_name(card))


def _read(path: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(path.read_text())
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def _file_name(card: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', card)}.json"


def _kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Kill a process and those that it started, which hold its output open; returns what it wrote."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def _fingerprint() -> str:
    """What an outcome depends on besides the GPU: versions, this program's among them, and the kernels' sources."""
    versions = [__version__]
    for name in ("torch", "triton", "cuequivariance-torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    hashes = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return hashlib.sha256("|".join([*versions, *hashes]).encode()).hexdigest()[:24]
