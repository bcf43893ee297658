"""The device of a run, and its memory: the one place that asks CUDA."""

import contextlib
import gc
import os
import resource

import torch

from protenix_multiseed.errors import ConfigError


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


def card_of(device: torch.device) -> str | None:
    """The name of a GPU that compiled kernels run on; None for a CPU, or for a GPU too old for bfloat16."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    return torch.cuda.get_device_name(device)


def let_segments_grow() -> None:
    """Have PyTorch grow its segments of GPU memory instead of adding others, unless the user has set an allocator.

    Each stage needs blocks of other sizes than the one before: without this a sixth of the memory can lie in gaps.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"} & os.environ.keys():
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):  # it only saves memory
            torch.cuda.memory._set_allocator_settings("expandable_segments:True")


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """Compute capability of a GPU; None for a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def available_bytes(device: torch.device) -> int:
    """Bytes of a device's memory that this process may fill, including what it holds already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device)
    import psutil

    return int(psutil.virtual_memory().available)


def reset_peak(device: torch.device) -> None:
    """Start to measure a GPU's peak memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held: on a GPU since the last reset, on a CPU since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device) -> str | None:
    """Free cached memory. Returns why the device no longer answers, or None if it does."""
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
