"""The terminal display of a run: a live progress line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from protenix_multiseed import events
from protenix_multiseed.inputs.seeds import format_seeds
from protenix_multiseed.types import Failure, Job, Prediction

MAX_GPUS = 16  # lines of GPUs; more would push the other lines off the screen


class Terminal:
    """A watcher that shows a run on a console.

    Args:
        console: The console to print on.
        n_seed: Total number of seeds to predict, over all jobs.
        verbosity: -1 shows errors only, 0 also progress and results, 1 also every seed.
    """

    def __init__(self, console: Console, n_seed: int, verbosity: int) -> None:
        self._console, self._verbosity = console, verbosity
        self._is_live = console.is_terminal and verbosity >= 0
        self._n_seed, self._n_done, self._n_token = n_seed, 0, 0
        self._started = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._gpus: dict[str, TaskID] = {}  # the line of each GPU, if there are several

    @contextmanager
    def shown(self) -> Iterator["Terminal"]:
        """Show the live progress line inside the ``with`` block."""
        if not self._is_live or not self._n_seed:
            yield self
            return
        with self._progress:
            self._task = self._progress.add_task("starting", total=self._n_seed, unit="seeds")
            yield self

    def __call__(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.StageEntered():
                self._stage(event.text)
            case events.Featurized():
                self._featurized(event)
            case events.BatchProgress():
                self._batch(event)
            case Prediction():
                self._predicted(event.job, event.seed, event.scores, float(event.run.get("seconds", 0)))
            case events.Written():
                self._predicted(event.job, event.seed, event.scores, event.seconds, event.where)
            case events.Skipped():
                self._advance(len(event.seeds))
                text = f"the last seeds did not improve the best score; seeds not run: {format_seeds(event.seeds)}"
                self._say(0, f"[green]stable[/green] {escape(event.job.name)}: {text}")
            case Failure():
                self._failed(event)
            case events.Note():
                self._say(0, f"[yellow]note[/yellow] {escape(event.job.name)}: {escape(event.text)}")
            case events.Stopping():
                text = (
                    f"the running batch has {event.grace:g} s to finish, then finished results are written; a second "
                    "signal ends the run at once"
                )
                self._say(-1, f"[yellow]stopping[/yellow] after {event.signal}: {text}")

    def _stage(self, text: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, description=escape(text))
        elif self._verbosity >= 0:
            self._line(text)

    def _featurized(self, event: events.Featurized) -> None:
        name = event.job.name
        self._n_token = event.n_token
        size = f"{event.n_token} tokens, {event.n_atom} atoms, {event.n_msa} MSA rows"
        if self._task is not None and not self._gpus:
            self._progress.update(self._task, description=f"{escape(name)}: {size}")
        if self._shows_seeds:
            self._line(f"{name}: {size}, {event.n_chain} chains; featurized in {event.seconds:.1f} s")

    def _batch(self, event: events.BatchProgress) -> None:
        if self._task is None:
            return
        if event.where:
            self._on_gpu(event)
            return
        batch = f"{event.job.name}, {self._n_token} tokens: {_seeds(event)}" if not event.others else _seeds(event)
        self._progress.update(self._task, description=escape(f"{batch}, {event.stage} {event.done}/{event.total}"))

    def _on_gpu(self, event: events.BatchProgress) -> None:
        """Update the line of one of several GPUs."""
        if event.where not in self._gpus:
            if len(self._gpus) == MAX_GPUS:
                return
            self._gpus[event.where] = self._progress.add_task("", total=event.total, unit="")
        batch = f"{event.job.name}, {_seeds(event)}" if not event.others else _seeds(event)
        text, unit = f"{event.where}: {batch}", {"trunk": "cycles", "sample": "steps"}
        self._progress.update(
            self._gpus[event.where],
            description=escape(text),
            completed=event.done,
            total=event.total,
            unit=unit.get(event.stage, "scored"),
        )

    def _predicted(self, job: Job, seed: int, scores: Sequence[float], seconds: float, where: str = "") -> None:
        self._advance()
        if self._shows_seeds:
            self._line(
                f"{job.name} seed {seed}: {len(scores)} samples in {seconds:.1f} s{where and f' on {where}'}, best "
                f"ranking score {max(scores):.4f} ({self._n_done}/{self._n_seed})"
            )

    def _failed(self, failure: Failure) -> None:
        self._advance(1 if failure.seed is not None else len(failure.job.seeds))
        place = failure.job.where + (f" seed {failure.seed}" if failure.seed is not None else "")
        message = failure.message.removeprefix(f"{place}: ").removeprefix(f"{failure.job.where}: ")
        self._say(-1, f"[red]failed[/red] {escape(place)} ({failure.stage}): {escape(message)}")

    @property
    def _shows_seeds(self) -> bool:
        return self._verbosity >= 1 or (not self._is_live and self._verbosity >= 0)

    def _advance(self, seeds: int = 1) -> None:
        self._n_done += seeds
        if self._task is not None:
            self._progress.update(self._task, completed=min(self._n_done, self._n_seed))

    def _say(self, least: int, markup: str) -> None:
        if self._verbosity >= least:
            self._console.print(markup, soft_wrap=True)

    def _line(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._started:7.1f} s[/dim]  {escape(text)}", soft_wrap=True)


def _seeds(event: events.BatchProgress) -> str:
    """The seeds of a batch as text: ``seed 3``, ``seeds 1-5``, or ``12 jobs, 24 seeds``."""
    if event.others:
        n_seed = len(event.seeds) + sum(len(seeds) for _, seeds in event.others)
        return f"{1 + len(event.others)} jobs, {n_seed} seeds"
    return f"seeds {format_seeds(event.seeds)}" if len(event.seeds) > 1 else f"seed {event.seeds[0]}"
