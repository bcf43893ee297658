"""The operations, a module each. A module that is put here is found by itself: by the probe, and by its compiler."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from protenix_multiseed.kernels import device_functions
from protenix_multiseed.kernels.operation import Operation

_modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def operations() -> Iterator[Operation[Any, Any]]:
    """Every operation of every module."""
    for module in _modules:
        for value in tuple(vars(module).values()):
            if isinstance(value, Operation) and value.plain.__module__ == module.__name__:
                yield value


def _name_kernels() -> None:
    """Have Triton make the names under which it caches compiled kernels, callees first.

    A name depends on those of the functions that a kernel calls, and comes out differently if these have none yet. In
    this order all processes make the same names, and each finds what another has compiled.
    """
    for module in (device_functions, *_modules):
        for value in tuple(vars(module).values()):
            getattr(value, "cache_key", None)  # kernels that are interpreted have none


_name_kernels()
