"""Errors that reach the user. Each message names the place, the problem and the way out."""

from collections.abc import Iterable


class ProtenixMsError(Exception):
    """Base class of errors whose message is meant for the user. The command prints it without a traceback."""


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
    """A job that passed the checks could not be featurized."""


class PredictionError(ProtenixMsError):
    """The result of a seed cannot be used, for example because coordinates are not finite."""


class Stopped(Exception):  # noqa: N818  not an error: the user asked the run to stop
    """The run was asked to stop, and abandons the batch or the loading that is in progress."""
