"""The device of a run and its memory. Only this module asks CUDA about them."""

import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from protenix_multiseed.errors import ConfigError

# Files of a control group, version 1 and 2: its limit, what it uses, and, in memory.stat, the cache that is not in use.
_LIMITS_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_LIMITS_2 = ("memory.max", "memory.current", "inactive_file")


def choose_device(name: str) -> torch.device:
    """Return the device of a run.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``.

    Raises:
        ConfigError: if the CUDA device does not exist.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices here; use --device cpu or auto"
        )
    return device


def card_of(device: torch.device) -> str | None:
    """Return the GPU's model name if compiled kernels can run on it.

    Returns:
        None for a CPU, and for a GPU of a compute capability below 8.0, which lacks bfloat16.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    return torch.cuda.get_device_name(device)


def name_of(device: torch.device) -> str:
    """Return the name of a GPU, or ``CPU``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def speed_name(device: torch.device) -> str:
    """Return a name for all devices that are as fast as this one: a GPU's, or a processor's with PyTorch's threads."""
    if device.type == "cuda":
        return name_of(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {torch.get_num_threads()} threads"
    return f"CPU, {torch.get_num_threads()} threads"


def open_device(name: str) -> torch.device:
    """Return the device of a run, and make a GPU the current device of the thread that calls this.

    Raises:
        ConfigError: if the CUDA device does not exist.
    """
    device = choose_device(name)
    if device.type == "cuda":  # CUDA graphs and Triton kernels use the current device
        torch.cuda.set_device(device)
        let_segments_grow()
    return device


def let_segments_grow() -> None:
    """Turn on PyTorch's expandable segments, unless the user has configured PyTorch's allocator.

    With expandable segments PyTorch grows a segment of GPU memory instead of allocating another one. Each stage needs
    blocks of other sizes than the stage before. Without this setting up to a sixth of the memory is lost to
    fragmentation.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"} & os.environ.keys():
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):  # the setting only saves memory
            torch.cuda.memory._set_allocator_settings("expandable_segments:True")


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """Return the compute capability of a GPU; None for a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def available_bytes(device: torch.device, before: int = 0, most: int = 0) -> int:
    """Return the bytes that this process may use on a device: what is free, and what it holds of the model already.

    Args:
        before: What :func:`resident_bytes` was before the model was loaded.
        most: On a CPU, at most so much of what this process has taken since is held by the model. The rest is not: it
            may be the caller's.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device)
    import psutil

    held = min(most, max(0, resident_bytes() - before))
    return min([int(psutil.virtual_memory().available), *_left_of_limits()]) + held


def resident_bytes() -> int:
    """Return the bytes of main memory that this process takes now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _left_of_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield the bytes that are left of each memory limit of a container or a batch system (Linux control groups).

    Memory of the page cache that is not in use counts as left, because Linux takes it back.
    """
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, kinds, inside = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            top, names = (root / "memory", _LIMITS_1) if kinds else (root, _LIMITS_2)
            folder = top / inside.lstrip("/")
            for level in (folder, *folder.parents):
                if not level.is_relative_to(top):
                    break
                with contextlib.suppress(OSError, ValueError, KeyError):  # no limit at this level
                    limit, used = (int((level / name).read_text()) for name in names[:2])
                    stat = dict(row.split() for row in (level / "memory.stat").read_text().splitlines())
                    yield max(0, limit - used + int(stat[names[2]]))


def reset_peak(device: torch.device) -> None:
    """Restart the measurement of a GPU's peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Return this process's peak memory, in bytes: on a GPU since the last reset, on a CPU since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device) -> str | None:
    """Free cached memory.

    Returns:
        None if the device still answers, else CUDA's error.
    """
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
        except RuntimeError as error:  # after such an error CUDA is unusable for the rest of this process
            return str(error).splitlines()[0]
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or its cause, means that memory ran out.

    An error during the capture of a CUDA graph wraps the error of the allocation.
    """
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
