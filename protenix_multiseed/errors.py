"""Errors that reach the user. Each message names the place, the problem and the way out."""

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

VERIFY = "predict with --verify finds damaged seeds and predicts them again"


class ProtenixMsError(Exception):
    """Base class of errors whose message is meant for the user. The command prints it without a traceback.

    Attributes:
        exit_code: The command's exit code. 2: nothing has been written.
    """

    exit_code: ClassVar[int] = 2


class ConfigError(ProtenixMsError):
    """An option, a YAML file or a combination of settings cannot be run."""


class InputError(ProtenixMsError):
    """One problem in one place of an input file."""


class RefusedInputsError(ProtenixMsError):
    """All problems in the inputs of a run, reported together so that the user can fix them in one edit."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DictionaryError(ProtenixMsError):
    """The chemical dictionary cannot be built, read or written."""


class WeightsError(ProtenixMsError):
    """A checkpoint is missing or truncated, belongs to another model, or has changed since its download."""


class FeaturizationError(ProtenixMsError):
    """A job that passed the checks could not be featurized.

    Attributes:
        way_out: What the user can do; None if the reason alone says it.
    """

    def __init__(self, reason: str, way_out: str | None = None) -> None:
        self.way_out = way_out
        super().__init__(reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.way_out)  # a worker sends it to the run


class ConformerError(FeaturizationError):
    """A ligand has no conformer with one seed; other seeds may have one."""


class PredictionError(ProtenixMsError):
    """The result of a seed cannot be used, for example because coordinates are not finite."""


class RunError(ProtenixMsError):
    """Work that has begun cannot go on. Everything that was written stays."""

    exit_code = 1


class DamagedError(ProtenixMsError):
    """A file of a finished seed cannot be read, or does not hold what the program wrote.

    Args:
        folder: The folder of the seed.
        reason: The file and what is wrong with it.
        way_out: What the user can do.
    """

    def __init__(self, folder: Path, reason: str, way_out: str = VERIFY) -> None:
        self.folder, self.reason, self.way_out = folder, reason, way_out
        super().__init__(f"{folder}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.reason, self.way_out)  # a worker may send it to the run


class ProtenixMsWarning(UserWarning):
    """What the user of the Python interface should know, and what the command prints as a note."""


def warn(text: str) -> None:
    """Warn the user of the Python interface. The warning names the line of the user's code."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("protenix_multiseed."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, ProtenixMsWarning, stacklevel=level)


class Stopped(Exception):  # noqa: N818  not an error: the user asked the run to stop
    """The run was asked to stop, and abandons the batch or the loading that is in progress."""


def yaml_problem(error: Exception) -> str:
    """Return why a text is not YAML, with line and column if PyYAML's error has them."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}not valid YAML: {problem or str(error).splitlines()[0]}"
