"""The device of a run, and its memory."""

import contextlib
import gc
import os

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
    """The name of a GPU that compiled kernels run on; None for a CPU or one that is too old for Protenix's own."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    return torch.cuda.get_device_name(device)


def let_segments_grow() -> None:
    """Have PyTorch grow its blocks of a GPU's memory instead of adding others, unless the user has it otherwise.

    Stages want blocks of other sizes than those before them: without it a sixth of the memory can lie in gaps.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"} & os.environ.keys():
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):  # a help, not a need
            torch.cuda.memory._set_allocator_settings("expandable_segments:True")


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
