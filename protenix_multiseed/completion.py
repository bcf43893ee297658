"""The values that a shell offers for an option. They are imported when a shell asks, so the help appears at once."""

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args, get_origin

_SETTINGS = {
    "device": ("auto", "cpu", "cuda"),
    "gpus": ("all",),
    "ray": ("auto",),
    "store": ("full", "slim", "top:"),
}


def completer(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that returns the values that begin with a text."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def names_in(command: str, table: str) -> Callable[[str], list[str]]:
    """Return a function that completes the names in a table of a command's module, or those that a function returns."""

    def names() -> Iterable[str]:
        found: Any = getattr(importlib.import_module(f"protenix_multiseed.commands.{command}"), table)
        made: Iterable[str] = found() if callable(found) else found
        return made

    return completer(names)


def values_of(key: str) -> Callable[[str], list[str]]:
    """Return a function that completes the values of a setting. It offers none if there is no list of them."""
    return completer(lambda: _values_of(key))


def _values_of(key: str) -> Iterable[str]:
    if key == "model":
        from protenix_multiseed.upstream.models import MODELS

        return [spec.name for spec in MODELS]
    if key in _SETTINGS:
        return _SETTINGS[key]
    from protenix_multiseed.config import RunConfig

    kind = RunConfig.model_fields[key].annotation
    return get_args(kind) if get_origin(kind) is Literal else ()
