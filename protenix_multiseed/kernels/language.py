"""Triton and its language, or a stand-in if Triton is not installed.

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

launches_kept: list[tuple[Any, tuple[Any, ...], Mapping[str, Any]]] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch a Triton kernel. While ``launches()`` of :mod:`.compile` runs, only record the launch."""
    if launches_kept is not None:
        launches_kept.append((kernel, arguments, options))
    else:
        kernel[grid](*arguments, **options)
