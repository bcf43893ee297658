"""The terminal display of a run: live progress lines on a terminal, plain lines elsewhere.

One line is about the whole run, and one about the batch of each GPU.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from protenix_multiseed import events
from protenix_multiseed.inputs.seeds import format_seeds
from protenix_multiseed.types import Failure, Job, Prediction
from protenix_multiseed.units import counted, format_seconds

MAX_GPUS = 16  # lines of GPUs; more would push the other lines off the screen
_BESIDE = 46  # characters of a live line beside its text
_UNITS = {"trunk": "cycles", "sample": "steps", "score": "scored"}


@dataclass(slots=True)
class _Batch:
    """The running batch of a GPU.

    Attributes:
        line: Its progress line.
        name: Its job and seeds.
        begun: When its first event came, and the share of the batch that was over then.
        share: The share that is over now.
    """

    line: TaskID
    name: str = ""
    begun: tuple[float, float] = (0.0, 0.0)
    share: float = 1.0

    def seconds_to_go(self, name: str, share: float, now: float) -> float:
        """Take the next event of the GPU, and return the estimated time to go of the batch; 0 if it is unknown."""
        # Another batch, or the same one again; the first step of a batch takes longer than the others.
        if name != self.name or share < self.share or not self.share:
            self.name, self.begun = name, (now, share)
        self.share = share
        since, first = self.begun
        return (now - since) * (1 - share) / (share - first) if share > first else 0.0


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(1, room - 1)] + "…"


class _Time(ProgressColumn):
    """The time to go of a batch, which counts down between two steps; the time since its start for the run."""

    def render(self, task: Task) -> Text:
        """Return the text of a line."""
        if "until" not in task.fields:
            return TimeElapsedColumn().render(task)
        left = task.fields["until"] - time.monotonic()
        return Text(f"{format_seconds(left)} to go" if left >= 1 else "", style="cyan")


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
        self._n_seed = n_seed
        self._over: set[tuple[str, int]] = set()  # job and seed; one that cannot be written was predicted before
        self._started = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            _Time(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._batches: dict[str, _Batch] = {}  # of each GPU

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
                self._advance(event.job, event.seeds)
                text = f"the last seeds did not improve the best score; seeds not run: {format_seeds(event.seeds)}"
                self._say(0, f"[green]stable[/green] {escape(event.job.name)}: {text}")
            case Failure():
                self._failed(event)
            case events.Note():
                name = f" {escape(event.job.name)}" if event.job else ""
                if event.lost in self._batches:
                    self._progress.remove_task(self._batches.pop(event.lost).line)
                self._say(0, f"[yellow]note[/yellow]{name}: {escape(event.text)}")
            case events.Stopping():
                text = (
                    f"the running batch is dropped if it does not finish within {event.grace:g} s, then finished "
                    "results are written; a second signal ends the run at once"
                )
                self._say(-1, f"[yellow]stopping[/yellow] after {event.signal}: {text}")

    def _stage(self, text: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, description=escape(_cut(text, self._room)))
            for batch in self._batches.values():
                self._progress.remove_task(batch.line)
            self._batches.clear()
        elif self._verbosity >= 0:
            self._line(text)

    def _featurized(self, event: events.Featurized) -> None:
        name = event.job.name
        rows = counted(event.n_msa, "MSA row") if event.job.spec.has_msa else "no MSA"
        size = f"{counted(event.n_token, 'token')}, {counted(event.n_atom, 'atom')}, {rows}"
        if self._task is not None and not any(self._batches):  # several GPUs have several jobs at once
            self._progress.update(self._task, description=escape(_cut(f"{name}, {event.n_token} tokens", self._room)))
        if self._shows_seeds:
            self._line(f"{name}: {size}, {counted(event.n_chain, 'chain')}; featurized in {event.seconds:.1f} s")

    def _batch(self, event: events.BatchProgress) -> None:
        if self._task is None:
            return
        if event.where not in self._batches:
            if len(self._batches) == MAX_GPUS:
                return
            self._batches[event.where] = _Batch(self._progress.add_task("", total=event.total, unit=""))
        where, text = event.where and f"{event.where}: ", _seeds(event)
        name = event.job.name
        shown = text if event.others else f"{_cut(name, self._room - len(where) - len(text) - 2)}, {text}"
        batch, now = self._batches[event.where], time.monotonic()
        seconds = batch.seconds_to_go(f"{where}{name}, {text}", event.share, now)
        self._progress.update(
            batch.line,
            description=escape(_cut(f"{where}{shown}", self._room)),
            completed=event.done,
            total=event.total,
            unit=_UNITS[event.stage],
            until=now + seconds,
        )

    def _predicted(self, job: Job, seed: int, scores: Sequence[float], seconds: float, where: str = "") -> None:
        self._advance(job, (seed,))
        if self._shows_seeds:
            made, place = counted(len(scores), "sample"), where and f" on {where}"
            self._line(
                f"{job.name} seed {seed}: {made} in {seconds:.1f} s{place}, best ranking score {max(scores):.4f} "
                f"({len(self._over)}/{self._n_seed})"
            )

    def _failed(self, failure: Failure) -> None:
        self._advance(failure.job, failure.seeds)
        place = failure.job.where + (f" seed {failure.seed}" if failure.seed is not None else "")
        message = failure.message.removeprefix(f"{place}: ").removeprefix(f"{failure.job.where}: ")
        self._say(-1, f"[red]failed[/red] {escape(place)} ({failure.stage}): {escape(message)}")

    @property
    def _room(self) -> int:
        """Characters of a live line that its text may take; the rest is for the bar, the numbers and the time."""
        return max(20, self._console.width - _BESIDE)

    @property
    def _shows_seeds(self) -> bool:
        return self._verbosity >= 1 or (not self._is_live and self._verbosity >= 0)

    def _advance(self, job: Job, seeds: Iterable[int]) -> None:
        self._over.update((job.name, seed) for seed in seeds)
        if self._task is not None:
            self._progress.update(self._task, completed=min(len(self._over), self._n_seed))

    def _say(self, least: int, markup: str) -> None:
        if self._verbosity >= least:
            self._console.print(markup, soft_wrap=True)

    def _line(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._started:7.1f} s[/dim]  {escape(text)}", soft_wrap=True)


def _seeds(event: events.BatchProgress) -> str:
    """The seeds of a batch as text: ``seed 3``, ``seeds 1-5``, or ``12 jobs, 24 seeds``."""
    if event.others:
        n_seed = len(event.seeds) + sum(len(seeds) for _, seeds in event.others)
        return f"{1 + len(event.others)} jobs, {counted(n_seed, 'seed')}"
    return f"seeds {format_seeds(event.seeds)}" if len(event.seeds) > 1 else f"seed {event.seeds[0]}"
