"""The device of a run and the kernels that work on it."""

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from protenix_multiseed.dictionary import cache_dir
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs.files import write_text

PROBE_SECONDS = 180


def choose_device(name: str) -> torch.device:
    """The device of a run.

    Raises:
        ConfigError: if CUDA is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices here; use --device cpu or auto"
        )
    return device


def let_segments_grow() -> None:
    """Have PyTorch grow its blocks of a GPU's memory instead of adding others, unless the user has it otherwise.

    Stages want blocks of other sizes than those before them: without it a sixth of the memory can lie in gaps.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"} & os.environ.keys():
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):  # a help, not a need
            torch.cuda.memory._set_allocator_settings("expandable_segments:True")


class KernelProbe:
    """Tries the compiled kernels in a process of their own, since one that does not suit a card may abort.

    It runs beside the loading of weights, and leaves what it compiled in the kernels' own cache. What it found is kept
    for the next run on this card with these versions, unless it is asked for anew.
    """

    def __init__(self, device: torch.device, wanted: str, *, keep: bool = True) -> None:
        self._keep = keep
        self._wanted = wanted
        self._process: subprocess.Popen[str] | None = None
        self._known: dict[str, str] = {}
        if wanted == "cuequivariance" and device.type == "cpu":
            raise ConfigError("--kernels cuequivariance: it needs a GPU; use --kernels torch or auto")
        if device.type == "cuda" and wanted != "torch":
            self._path = cache_dir() / "kernels" / f"{_fingerprint(device)}.json"
            with contextlib.suppress(OSError, ValueError):
                self._known = json.loads(self._path.read_text()) if keep else {}
            if self._known:
                return
            command = [sys.executable, "-m", "protenix_multiseed.model.kernels.probe", str(device)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> dict[str, str]:
        """What each compiled kind came to: ``ok``, or why it cannot be used. Nothing was tried: empty.

        Raises:
            ConfigError: if cuEquivariance is asked for and cannot be used.
        """
        found = self._known or self._probed()
        if self._wanted == "cuequivariance" and found.get("cuequivariance") != "ok":
            reason = found.get("cuequivariance", "not tried")
            raise ConfigError(f"--kernels cuequivariance: {reason}; use --kernels torch or auto")
        return found

    def _probed(self) -> dict[str, str]:
        if self._process is None:
            return {}
        try:
            output, errors = self._process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, errors = self._process.communicate()
        found = {"triton": "the probe ended early", "cuequivariance": "the probe ended early"}
        for line in output.splitlines():  # a line for each kind, so that one that aborts spares those before it
            with contextlib.suppress(ValueError, TypeError):  # a library may print too
                found |= json.loads(line)
        if self._process.returncode and errors.strip():
            last = errors.strip().splitlines()[-1]
            found = {kind: outcome if outcome == "ok" else last for kind, outcome in found.items()}
        passing = any(sign in outcome.lower() for outcome in found.values() for sign in ("memory", "cuda error"))
        if self._process.returncode == 0 and self._keep and not passing:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._path, json.dumps(found))
        return found


def _fingerprint(device: torch.device) -> str:
    """What a probe's outcome depends on: the card, the versions and our own programs."""
    versions = [torch.__version__]
    for name in ("triton", "cuequivariance-torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    programs = sorted(Path(__file__).parent.joinpath("model", "kernels").glob("*.py"))
    hashes = [hashlib.sha256(program.read_bytes()).hexdigest() for program in programs]
    what = [torch.cuda.get_device_name(device), *versions, *hashes]
    return hashlib.sha256("|".join(what).encode()).hexdigest()[:24]


def free_memory(device: torch.device) -> str | None:
    """Give back memory that nothing holds any more; returns why the device no longer answers, if it does not."""
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
        except RuntimeError as error:  # CUDA's state is lost for this process, and stays lost
            return str(error).splitlines()[0]
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; one that a CUDA graph's capture wraps counts too."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(seen, RuntimeError) and any(
            sign in text for sign in ("out of memory", "alloc_failed", "can't allocate memory")
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
