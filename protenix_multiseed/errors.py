"""Errors that reach the user. Each message says where it happened, what was found and what to do."""

from collections.abc import Iterable


class ProtenixMsError(Exception):
    """Base of every error with a message meant for the user: it is printed without a traceback."""


class ConfigError(ProtenixMsError):
    """An option, a YAML file or a combination of settings that cannot be run."""


class InputError(ProtenixMsError):
    """One problem in one input file, at one place."""


class RefusedInputsError(ProtenixMsError):
    """All problems found in the inputs of a run, together, so that one edit can mend them all."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DictionaryError(ProtenixMsError):
    """The chemical dictionary cannot be built, read or written."""


class WeightsError(ProtenixMsError):
    """A checkpoint is missing, truncated, of another model, or not the file that was downloaded."""


class FeaturizationError(ProtenixMsError):
    """A job that passed the checks could not be turned into features."""


class PredictionError(ProtenixMsError):
    """A seed whose result cannot be used, such as coordinates that are not finite."""


class Dropped(BaseException):
    """Work in hand was given up, because the run was asked to stop and its time is up."""
