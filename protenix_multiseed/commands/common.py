"""Code that several commands share."""

from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.commands.message import say
from protenix_multiseed.config import RunConfig
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.dictionary import Dictionary, find_dictionary

MAX_ROWS = 20  # rows that a listing shows, unless the user asks for all


def read_inputs(config: RunConfig, inputs: Sequence[Path]) -> tuple[list[Job], Dictionary]:
    """Return the checked jobs of a run and the chemical dictionary.

    Raises:
        RefusedInputsError: if there are problems; the error lists them.
    """
    dictionary = find_dictionary()
    if dictionary.note:
        _note(dictionary.note)
    return read_jobs(inputs, config.seeds, config.input_rules, dictionary, _note), dictionary


def _note(text: str) -> None:
    say(f"note: {text}", err=True)


def has_hits(jobs: Sequence[Job]) -> bool:
    """Whether a job names hits of a template search."""
    return any(polymer.templates for job in jobs for _, polymer in job.spec.polymers())
