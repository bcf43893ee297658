"""Errors that reach the user. Each message says where it happened, what was found and what to do."""

from collections.abc import Iterable


class ProtenixMsError(Exception):
    """Base class of errors whose message is meant for the user. The command prints it without a traceback."""


class ConfigError(ProtenixMsError):
    """An option, a YAML file or a combination of settings that cannot be run."""


class InputError(ProtenixMsError):
    """One problem at one place of an input file."""


class RefusedInputsError(ProtenixMsError):
    """All problems found in the inputs of a run, so that one edit can fix them all."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DictionaryError(ProtenixMsError):
    """The chemical dictionary cannot be built, read or written."""


class WeightsError(ProtenixMsError):
    """A checkpoint is missing, truncated, of another model, or not the file that was downloaded."""


class FeaturizationError(ProtenixMsError):
    """A job that passed the checks could not be featurized."""


class PredictionError(ProtenixMsError):
    """A seed whose result cannot be used, for example because coordinates are not finite."""


class Stopped(Exception):  # noqa: N818  it is no error: the user asked for it
    """The run was asked to stop, and the work in hand is given up."""
