"""``protenix-ms predict``: check everything, cheap checks first, then run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from protenix_multiseed.commands.common import searching, show_input_note, show_nothing
from protenix_multiseed.commands.console import MAX_ROWS, make_console, show_findings
from protenix_multiseed.config import RunConfig
from protenix_multiseed.events import Note, Watchers
from protenix_multiseed.inputs.seeds import format_seeds
from protenix_multiseed.outputs.scan import Scan
from protenix_multiseed.paths import RUN_FOLDER, SUMMARY
from protenix_multiseed.process import finish_output
from protenix_multiseed.run.prepare import make_workers, prepare
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.units import counted

if TYPE_CHECKING:
    from protenix_multiseed.features.pool import WorkerPool
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
    with Signals(config.grace) as signals, make_workers(config) as workers:
        return _predict(config, inputs, verbosity, signals, workers)


def _predict(config: RunConfig, inputs: Sequence[Path], verbosity: int, signals: Signals, workers: "WorkerPool") -> int:
    is_quiet = verbosity < 0
    show_note = show_nothing if is_quiet else show_input_note
    prepared = prepare(config, inputs, show_note, partial(searching, is_quiet=is_quiet), workers)
    config, found = prepared.config, prepared.scan
    console = make_console()
    if verbosity >= 0:
        _show_scan(console, found)
    from protenix_multiseed.run.log import EventLog
    from protenix_multiseed.run.pipeline import run
    from protenix_multiseed.run.result import RunResult
    from protenix_multiseed.run.terminal import Terminal

    terminal, result = Terminal(console, found.n_todo, verbosity), RunResult.begin(found.tasks, prepared.notes)
    inside = config.out if config.log_file is None else None
    with EventLog(config.log_path, inside, as_json=config.log_format == "json") as log:
        for text in prepared.notes:  # they are on the screen already
            log(Note(job=None, text=text))
        watchers = Watchers(log, terminal)  # the log first, so that it misses no event
        with signals.begun(watchers):
            with terminal.shown():
                for _ in run(config, found.tasks, workers, watchers, signals, result):
                    pass
            if verbosity >= 0:
                _show_result(console, result, config)
            if log.problem:
                console.print(f"[yellow]note[/yellow] lines are missing in the log: {escape(log.problem)}")
            finish_output(lambda: signals.is_asked)
    return result.exit_code


def _show_scan(console: Console, found: Scan) -> None:
    """Print how many seeds the output folder holds already, and which results are replaced."""
    for word, text in found.remarks():
        console.print(f"[yellow]{word}[/yellow] {escape(text)}", soft_wrap=True)
    if found.n_done:
        verb = "is" if found.n_done == 1 else "are"
        console.print(f"{counted(found.n_done, 'seed')} {verb} done already, {found.n_todo:,} to do")


def _show_result(console: Console, result: "RunResult", config: RunConfig) -> None:
    """Print rankings and the paths of best structures, of the first jobs if there are many, and the failures."""
    kept = [(name, one.findings) for name, one in result.rankings.items() if one.findings is not None]
    for name, findings in kept[:MAX_ROWS]:
        show_findings(console, name, findings, config.out / name)
    if hidden := len(result.rankings) - len(kept[:MAX_ROWS]):
        console.print(escape(f"... and {counted(hidden, 'more job')}: {config.out / SUMMARY}\n"), soft_wrap=True)
    _show_failures(console, result, config)
    if result.n_elsewhere:
        console.print(f"{counted(result.n_elsewhere, 'seed')} done by other processes during this run")
    if result.n_left:
        console.print(
            f"[yellow]stopped[/yellow] with {result.n_left:,} of {counted(result.n_unit, 'seed')} to do; "
            "run the same command again to continue",
            soft_wrap=True,
        )
    if config.spec.notice and result.rankings:
        console.print(f"[yellow]{escape(config.spec.notice)}[/yellow]")


def _show_failures(console: Console, result: "RunResult", config: RunConfig) -> None:
    """Print the failures, their reasons, and what to try. Seeds that failed in the same way are one row."""
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
    alike: dict[tuple[str, ...], list[int]] = {}
    for failed in result.failures:
        message = failed.message.removeprefix(f"{failed.job.where}: ")
        kind = (failed.job.name, failed.stage, message, failed.advice, "all" if failed.seed is None else "")
        alike.setdefault(kind, []).extend([] if failed.seed is None else [failed.seed])
    for (name, stage, message, advice, whole), seeds in list(alike.items())[:MAX_ROWS]:
        table.add_row(*map(escape, (name, whole or format_seeds(sorted(seeds)), stage, message, advice)))
    console.print(table)
    if len(alike) > MAX_ROWS:
        console.print(f"[dim]... and {len(alike) - MAX_ROWS} more kinds of failure[/dim]")
    places = {"all failures": config.out / RUN_FOLDER / "failures.jsonl", "tracebacks": config.log_path}
    texts = [f"{name}: {path}" for name, path in places.items() if path.exists()]  # a full disk may have kept them away
    console.print(escape("   ".join(texts)) + "\n", soft_wrap=True)
