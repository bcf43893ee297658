"""Messages for the user of the Python interface, which name settings and not the options of the command."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ProtenixMsError
from protenix_multiseed.types import Failure

_SWITCHES = {name for name, field in RunConfig.model_fields.items() if field.annotation in (bool, bool | None)}
_NAMES = {*RunConfig.model_fields, "config"}
_OPTION = re.compile(r"(?<![^\s('\"])--([a-z][a-z-]*)(?: (auto|cpu|cuequivariance|fast|full|torch)\b| (was)\b)?")


def in_python(text: str) -> str:
    """Return a message with ``device="cpu"`` for ``--device cpu``. Options that are no settings stay."""

    def name(option: re.Match[str]) -> str:
        key, value = option[1].replace("-", "_"), option[2]
        if key in _NAMES and option[3]:  # a sentence about the setting, not a call
            return f"{key} was"
        if key not in _NAMES:
            return option[0]
        if key in _SWITCHES:
            return f"{key}=True" + (f" {value}" if value else "")
        return f'{key}="{value}"' if value else key

    return _OPTION.sub(name, text)


def failure_in_python(failure: Failure) -> Failure:
    """Return a failure with its message and its advice for the user of Python."""
    return replace(failure, message=in_python(failure.message), advice=in_python(failure.advice))


@contextmanager
def errors_in_python() -> Iterator[None]:
    """Reword the errors that the block raises."""
    try:
        yield
    except ProtenixMsError as error:
        error.args = tuple(in_python(one) if isinstance(one, str) else one for one in error.args)
        raise
