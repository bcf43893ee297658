"""The operations, one module each. The probe finds every module in this folder, and compiles and tests its kernels."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from protenix_multiseed.kernels import (
    device_functions,
    device_functions_hopper,
    device_functions_hopper_128,
    device_functions_hopper_attention,
    device_functions_hopper_kept,
    device_functions_hopper_update,
)
from protenix_multiseed.kernels.operation import Operation

_modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def operations() -> Iterator[Operation[Any, Any]]:
    """Every operation of every module."""
    for module in _modules:
        for value in tuple(vars(module).values()):
            if isinstance(value, Operation) and value.plain.__module__ == module.__name__:
                yield value


def _compute_cache_keys() -> None:
    """Make Triton compute its cache keys for all kernels, called functions before their callers.

    The cache key of a kernel depends on the keys of the functions that it calls, and is different if these functions
    have no key yet. With a fixed order all processes compute the same keys, so each process finds the kernels that
    another process has compiled.
    """
    shared = (
        device_functions,
        device_functions_hopper,
        device_functions_hopper_128,
        device_functions_hopper_attention,
        device_functions_hopper_kept,
        device_functions_hopper_update,
    )
    for module in (*shared, *_modules):
        for value in tuple(vars(module).values()):
            getattr(value, "cache_key", None)  # kernels in interpreter mode have no key


_compute_cache_keys()
