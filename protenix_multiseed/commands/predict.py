"""``protenix-ms predict``: check everything, cheap checks first, then run."""

import contextlib
import importlib
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from protenix_multiseed.commands.common import MAX_ROWS, has_hits, read_inputs
from protenix_multiseed.commands.console import make_console, show_findings
from protenix_multiseed.config import RunConfig
from protenix_multiseed.events import Watchers
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.outputs.identity import identify
from protenix_multiseed.outputs.scan import Scan, scan
from protenix_multiseed.paths import RUN_FOLDER, SUMMARY
from protenix_multiseed.process import finish_output
from protenix_multiseed.run.preflight import CheckpointHash, check_surroundings, check_workers
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.search.base import SearchError
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.dictionary import Dictionary

if TYPE_CHECKING:
    from protenix_multiseed.run.result import RunResult


def predict(config: RunConfig, inputs: Sequence[Path], *, verbosity: int) -> int:
    """Predict every job of the inputs with every seed, and rank the samples. Returns the exit code.

    Args:
        config: Configuration of the run.
        inputs: Input files, or folders of them.
        verbosity: -1 shows errors only, 0 progress and results, 1 details of every seed.

    Raises:
        ProtenixMsError: if the run is refused. Nothing has been written in this case.
    """
    with Signals(config.grace) as signals:
        return _predict(config, inputs, verbosity, signals)


def _predict(config: RunConfig, inputs: Sequence[Path], verbosity: int, signals: Signals) -> int:
    if config.offline:
        forbid_network(loopback=config.executor == "ray")
    checkpoint_hash = CheckpointHash(config)
    jobs, dictionary = read_inputs(config, inputs)
    config = check_surroundings(config, has_hits=has_hits(jobs))
    jobs = _with_alignments(config, jobs, dictionary)
    _import_ahead(config, jobs)
    identities = {job.name: identify(config, job, dictionary, checkpoint_hash.result()) for job in jobs}
    found = scan(jobs, identities, config.folder_settings)
    if found.n_todo:
        check_workers()
    console = make_console()
    if verbosity >= 0:
        _show_scan(console, found)
    from protenix_multiseed.run.log import EventLog
    from protenix_multiseed.run.pipeline import run
    from protenix_multiseed.run.terminal import Terminal

    terminal = Terminal(console, found.n_todo, verbosity)
    inside = config.out if config.log_file is None else None
    with EventLog(config.log_path, inside, as_json=config.log_format == "json") as log:
        watchers = Watchers(log, terminal)  # the log first, so that it misses no event
        with signals.begun(watchers):
            with terminal.shown():
                result = run(config, found.tasks, watchers, signals)
            if verbosity >= 0:
                _show_result(console, result, config)
            if log.problem:
                console.print(f"[yellow]note[/yellow] lines are missing in the log: {escape(log.problem)}")
            finish_output(lambda: signals.is_asked)
    return result.exit_code


def _with_alignments(config: RunConfig, jobs: list[Job], dictionary: Dictionary) -> list[Job]:
    """Search the alignments that jobs lack, if the configuration names a source.

    Raises:
        ProtenixMsError: if a search failed. Finished searches are kept.
    """
    if not (config.msa_server or config.msa_database or config.rna_databases):
        return jobs
    from protenix_multiseed.commands.msa import ALIGNMENTS, search

    made, failures = search(config, jobs, dictionary, config.out / RUN_FOLDER / ALIGNMENTS)
    if failures:
        way_out = "'protenix-ms msa' writes a job file without these jobs, which can be predicted"
        raise SearchError("\n".join([*failures, f"nothing was predicted; {way_out}"]))
    return made


def _import_ahead(config: RunConfig, jobs: Sequence[Job]) -> None:
    """Import torch in a thread during the remaining checks, if this is most likely a first run of these jobs."""
    if any((config.out / job.name).exists() for job in jobs):
        return
    importlib.import_module("protenix_multiseed.run.pipeline")
    importlib.import_module("concurrent.futures.thread")  # torch imports it, which fails while a refused run is exiting
    threading.Thread(target=_import_torch).start()


def _import_torch() -> None:
    with contextlib.suppress(Exception):  # the module that needs torch will fail the same way and report it
        importlib.import_module("torch")


def _show_scan(console: Console, found: Scan) -> None:
    """Print how many seeds the output folder holds already, and which results are replaced."""
    for problem in found.damaged:
        console.print(f"[yellow]damaged[/yellow] {escape(problem)}; its seed is predicted again", soft_wrap=True)
    for problem in found.left_out:
        text = "it was not asked for, and is left out of the ranking"
        console.print(f"[yellow]damaged[/yellow] {escape(problem)}; {text}", soft_wrap=True)
    if found.n_other:
        console.print(
            f"[yellow]removing[/yellow] {found.n_other} seeds that were made with other settings, inputs or versions"
        )
    if found.n_done:
        console.print(f"{found.n_done} seeds are done already, {found.n_todo} to do")


def _show_result(console: Console, result: "RunResult", config: RunConfig) -> None:
    """Print rankings and the paths of best structures, of the first jobs if there are many, and the failures."""
    for name, findings in itertools.islice(result.findings.items(), MAX_ROWS):
        show_findings(console, name, findings, config.out / name)
    if (hidden := len(result.findings) - MAX_ROWS) > 0:
        console.print(escape(f"... and {hidden} more jobs: {config.out / SUMMARY}\n"), soft_wrap=True)
    _show_failures(console, result, config)
    if result.n_elsewhere:
        console.print(f"{result.n_elsewhere} seeds were done by other processes during this run")
    if result.n_left:
        console.print(
            f"[yellow]stopped[/yellow] with {result.n_left} of {result.n_unit} seeds to do; "
            "run the same command again to continue",
            soft_wrap=True,
        )
    if config.spec.notice:
        console.print(f"[yellow]{escape(config.spec.notice)}[/yellow]")


def _show_failures(console: Console, result: "RunResult", config: RunConfig) -> None:
    """Print the failures, their reasons, and what to try."""
    if not result.failures:
        return
    table = Table(
        title=f"{len(result.failures)} failed",
        title_justify="left",
        title_style="bold red",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for column in ("job", "seed", "stage", "message", "what to try"):
        table.add_column(column, overflow="fold")
    for failed in result.failures[:MAX_ROWS]:
        seed = "all" if failed.seed is None else str(failed.seed)
        message = failed.message.removeprefix(f"{failed.job.where}: ")
        table.add_row(*map(escape, (failed.job.name, seed, failed.stage, message, failed.advice)))
    console.print(table)
    if len(result.failures) > MAX_ROWS:
        console.print(f"[dim]... and {len(result.failures) - MAX_ROWS} more[/dim]")
    places = {"all failures": config.out / RUN_FOLDER / "failures.jsonl", "tracebacks": config.log_path}
    texts = [f"{name}: {path}" for name, path in places.items() if path.exists()]  # a full disk may have kept them away
    console.print(escape("   ".join(texts)) + "\n", soft_wrap=True)
