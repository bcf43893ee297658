"""What this machine's files say about its GPUs. This module imports neither torch nor Ray."""

import os
import re
from pathlib import Path


def visible_gpus() -> list[str]:
    """Return the GPUs that a program started here may use: indices or identifiers, as CUDA names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def driver_version() -> str | None:
    """Return the version of the GPU driver, such as ``550.54.15``; None if there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None
