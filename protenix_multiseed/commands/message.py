"""Messages of commands on standard output and standard error."""

import shutil
import sys
import textwrap

import typer

from protenix_multiseed.units import visible


def say(text: str, *, err: bool = False) -> None:
    """Print a message. Control characters in it, which may come from an input file, are made visible.

    On a terminal, lines break between words. A word that is longer than a line, such as a path, stays whole.
    """
    text = visible(text)
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(_broken(line, width) for line in text.split("\n"))
    typer.echo(text, err=err)


def _broken(line: str, width: int) -> str:
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
