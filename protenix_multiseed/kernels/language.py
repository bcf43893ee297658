"""Triton, its language and its Gluon for Hopper GPUs, or a stand-in for each that is not installed.

With the stand-in, modules with kernels can be imported, but no kernel is ever launched.
"""

import contextlib
import importlib
from collections.abc import Mapping
from typing import Any


class _Missing:
    """Stand-in for a module: decorators return the decorated function; other attributes and calls return itself."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return arguments[0] if arguments and callable(arguments[0]) and not named else self


triton: Any = _Missing()
tl: Any = _Missing()
with contextlib.suppress(ImportError):
    triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")

gluon: Any = _Missing()
gl: Any = _Missing()
hopper: Any = _Missing()
ampere: Any = _Missing()
TensorDescriptor: Any = _Missing()
HAS_GLUON = False
with contextlib.suppress(ImportError):  # Gluon for Hopper comes with Triton 3.6
    TensorDescriptor = importlib.import_module("triton.experimental.gluon.nvidia.hopper").TensorDescriptor
    hopper = importlib.import_module("triton.experimental.gluon.language.nvidia.hopper")
    ampere = importlib.import_module("triton.experimental.gluon.language.nvidia.ampere")
    gl = importlib.import_module("triton.experimental.gluon.language")
    gluon = importlib.import_module("triton.experimental.gluon")
    HAS_GLUON = True

launches_kept: list[tuple[Any, tuple[Any, ...], Mapping[str, Any]]] | None = None


def launch(kernel: Any, grid: tuple[int], *arguments: Any, **options: Any) -> None:
    """Launch a Triton kernel. While ``launches()`` of :mod:`.compile` runs, only record the launch.

    The grid has one dimension, because CUDA limits the others to 65,535.
    """
    if launches_kept is not None:
        launches_kept.append((kernel, arguments, options))
    else:
        kernel[grid](*arguments, **options)


def hash_triton() -> None:
    """Let Triton hash its own files, and keep the hash.

    It would do so at the first launch, where it takes 0.3 s or more: one of the files is its library.
    """
    for module in ("triton.runtime.cache", "triton.compiler.compiler"):  # in Triton 3.6; in older versions
        with contextlib.suppress(ImportError, AttributeError, OSError):
            importlib.import_module(module).triton_key()
            return
