"""Triton's language, or a stand-in for it if Triton is not installed, where no kernel is ever launched."""

import contextlib
import importlib
from collections.abc import Mapping
from typing import Any


class _Missing:
    """Takes the place of a module: decorators return what they decorate, all else is more of the same."""

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
    """Launch a Triton kernel, or only keep the launch while ``launches()`` of :mod:`.compile` asks."""
    if launches_kept is not None:
        launches_kept.append((kernel, arguments, options))
    else:
        kernel[grid](*arguments, **options)
