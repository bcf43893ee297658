"""``protenix-ms msa``: search the alignments that jobs lack, and write jobs that name them."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape

from protenix_multiseed.commands.common import read_inputs
from protenix_multiseed.commands.console import make_console
from protenix_multiseed.commands.message import say
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import write_text
from protenix_multiseed.inputs.convert import to_protenix
from protenix_multiseed.inputs.read import with_spec
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.search.run import search_jobs
from protenix_multiseed.search.sources import make_searchers
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.dictionary import Dictionary

ALIGNMENTS = "alignments"  # subfolder of the output folder


def msa(config: RunConfig, inputs: Sequence[Path], out: Path) -> int:
    """Search the alignments that jobs lack, and write for each input file a Protenix JSON that names them.

    Args:
        config: Configuration, which names the sources.
        inputs: Input files, or folders of them.
        out: Folder for the alignments and the job files.

    Returns:
        The exit code: 1 if searches of some jobs failed. The job files hold the other jobs.

    Raises:
        ProtenixMsError: if the inputs are refused, or if no search is possible.
    """
    if config.offline:
        forbid_network()
    jobs, dictionary = read_inputs(config, inputs)
    done, failures = search(config, jobs, dictionary, out / ALIGNMENTS)
    for source in dict.fromkeys(job.source for job in done):
        target = out / f"{source.stem}_msa.json"
        content = [to_protenix(job) for job in done if job.source == source]
        try:
            write_text(target, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--out {target}: cannot be written: {error.strerror}") from None
        say(f"wrote {target}: {len(content)} jobs")
    for failure in failures:
        say(f"error: {failure}", err=True)
    if failures:
        say(f"error: {len(jobs) - len(done)} of {len(jobs)} jobs lack an alignment; see above", err=True)
    return 1 if failures else 0


def search(
    config: RunConfig, jobs: Sequence[Job], dictionary: Dictionary, folder: Path
) -> tuple[list[Job], Sequence[str]]:
    """Search the alignments that jobs lack, and show the progress.

    Returns:
        The jobs whose alignments were found, and a sentence for each failure.

    Raises:
        ProtenixMsError: if no search is possible.
    """
    with _progress() as tell:
        searchers = make_searchers(config, tell)
        if not searchers:
            raise ConfigError(
                "no source of alignments is given: name a server (--server https://host/path, which is sent the "
                "sequences) or a database on this machine (--database)"
            )
        outcome = search_jobs(jobs, searchers, folder.absolute(), tell)
    return [with_spec(job, spec, config.input_rules, dictionary) for job, spec in outcome.specs], outcome.failures


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show sentences on the progress: on a terminal the last one with a spinner, else each on its line."""
    if not sys.stderr.isatty():
        yield lambda text: say(f"msa: {text}", err=True)
        return
    console = make_console(sys.stderr)
    with console.status("msa") as status:

        def tell(text: str) -> None:
            console.print(f"[dim]msa[/dim] {escape(text)}", soft_wrap=True)
            status.update(escape(text))

        yield tell
