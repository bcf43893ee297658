"""What this machine's files say about its GPUs. This module imports neither torch nor Ray."""

import importlib.util
import os
import re
from pathlib import Path

from protenix_multiseed.errors import ConfigError

_RAY = "ray>=2.60,<2.61"  # as in pyproject.toml


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        ConfigError: if it is not.
    """
    if importlib.util.find_spec("ray") is None:
        # Not by the name of our extra: pip would install Protenix's pins over a PyTorch of the host's own.
        raise ConfigError(f"gpus: Ray is not installed: pip install '{_RAY}', or leave --gpus and --ray out")


def no_gpu(ray: str | None, kind: str = "GPU") -> ConfigError:
    """Return the error of a Ray cluster, or of this machine if ``ray`` is None, without a GPU, or without a CPU."""
    where = f"ray: {ray}" if ray else "gpus: this machine"
    return ConfigError(f"{where} has no {kind}; use --device cpu, or leave the option out")


def visible_gpus() -> list[str]:
    """Return the GPUs that a program started here may use: indices or identifiers, as CUDA names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def chosen_gpus(gpus: str | None) -> list[str]:
    """Return the GPUs of this machine that a run uses.

    Args:
        gpus: ``all``, a number of GPUs, or their indices: ``0,2``.

    Raises:
        ConfigError: if one of them does not exist.
    """
    here = visible_gpus()
    if not here:
        raise no_gpu(None)
    if gpus is not None and "," in gpus:
        wanted = [int(part) for part in gpus.split(",") if part]
        if missing := [index for index in wanted if index >= len(here)]:
            raise ConfigError(f"gpus: there is no GPU {missing[0]}; this machine has {len(here)}")
        return [here[index] for index in dict.fromkeys(wanted)]
    count = int(gpus) if gpus is not None and gpus.isdigit() else len(here)
    if count > len(here):
        raise ConfigError(f"gpus: {count} asked for, and this machine has {len(here)}")
    return here[:count]


def driver_version() -> str | None:
    """Return the version of the GPU driver, such as ``550.54.15``; None if there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None
