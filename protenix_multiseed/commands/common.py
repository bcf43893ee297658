"""Code that several commands share."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape

from protenix_multiseed.commands.console import make_console
from protenix_multiseed.commands.message import say
from protenix_multiseed.config import RunConfig
from protenix_multiseed.run import prepare
from protenix_multiseed.search.base import Tell
from protenix_multiseed.types import Job
from protenix_multiseed.units import visible
from protenix_multiseed.upstream.dictionary import Dictionary


def read_inputs(config: RunConfig, inputs: Sequence[Path]) -> tuple[list[Job], Dictionary]:
    """Return the checked jobs of a run and the chemical dictionary, and print notes about the inputs.

    Raises:
        RefusedInputsError: if there are problems; the error lists them.
    """
    return prepare.read_inputs(config, inputs, show_input_note)


def show_input_note(text: str) -> None:
    """Print a note about the inputs."""
    say(f"note: {text}", err=True)


def show_nothing(text: str) -> None:
    """Print no note, because the user asked for errors only."""


@contextmanager
def searching(*, is_quiet: bool = False) -> Iterator[Tell]:
    """Show sentences on the progress of a search: on a terminal the last one with a spinner, else each on its line."""
    if is_quiet:
        yield show_nothing
        return
    if not sys.stderr.isatty():
        yield lambda text: say(f"msa: {text}", err=True)
        return
    console = make_console(sys.stderr)
    with console.status("msa") as status:

        def tell(text: str) -> None:
            console.print(f"[dim]msa[/dim] {escape(visible(text))}", soft_wrap=True)
            status.update(escape(visible(text)))

        yield tell
