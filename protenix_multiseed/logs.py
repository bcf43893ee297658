"""The log of a run: every event a line, as text for people or as JSON for machines."""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from protenix_multiseed.config import RunConfig
from protenix_multiseed.types import RUN_FOLDER, Failure, Features, Job, Prediction


class Display(Protocol):
    """Who is told of a run's course."""

    def started(self) -> None:
        """Everything is loaded; from here on the run writes to its output folder."""

    def stage(self, text: str) -> None:
        """The run as a whole enters a stage."""

    def features(self, features: Features) -> None:
        """A job's features have arrived."""

    def progress(self, job: Job, text: str) -> None:
        """A batch of a job enters a stage."""

    def predicted(self, prediction: Prediction) -> None:
        """A seed has been predicted."""

    def spared(self, job: Job, seeds: Sequence[int]) -> None:
        """Seeds that are not predicted, since those before them brought no better score."""

    def failed(self, failure: Failure) -> None:
        """A job or seed has failed."""

    def warn(self, job: Job, text: str) -> None:
        """Something about a job that the user should know."""

    def stopping(self, signal: str, grace: float) -> None:
        """The run was asked to stop; work in hand has ``grace`` seconds."""


class EventLog:
    """Writes events to a file. Several processes may write to one: each line is appended whole.

    The file is opened when the run starts to write; a run that is refused before leaves no log.
    """

    def __init__(self, config: RunConfig) -> None:
        self._path = config.log_file or config.out / RUN_FOLDER / "run.log"
        self._as_json = config.log_format == "json"
        self._waiting: list[str] = []
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def started(self) -> None:
        """Open the file. A log that cannot be written stops no run."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        self._write(self._waiting)

    def stage(self, text: str) -> None:
        """See :class:`Display`."""
        self._event("stage", text=text)

    def features(self, features: Features) -> None:
        """See :class:`Display`."""
        sizes = {"tokens": features.n_token, "atoms": features.n_atom, "msa_rows": features.n_msa}
        self._event("features", job=features.job.name, **sizes, seconds=round(features.seconds, 2))
        for warning in features.warnings:
            self.warn(features.job, warning)

    def progress(self, job: Job, text: str) -> None:
        """See :class:`Display`."""
        self._event("progress", job=job.name, text=text)

    def predicted(self, prediction: Prediction) -> None:
        """See :class:`Display`."""
        best = max(float(sample["ranking_score"]) for sample in prediction.summary)
        seconds = prediction.run.get("seconds")
        self._event("predicted", job=prediction.job.name, seed=prediction.seed, seconds=seconds, best=round(best, 4))

    def spared(self, job: Job, seeds: Sequence[int]) -> None:
        """See :class:`Display`."""
        self._event("stable", job=job.name, seeds_not_run=list(seeds))

    def failed(self, failure: Failure) -> None:
        """See :class:`Display`."""
        facts = {"stage": failure.stage, "message": failure.message, "try": failure.advice}
        self._event("failed", job=failure.job.name, seed=failure.seed, **facts, traceback=failure.traceback)

    def warn(self, job: Job, text: str) -> None:
        """See :class:`Display`."""
        self._event("note", job=job.name, text=text)

    def stopping(self, signal: str, grace: float) -> None:
        """See :class:`Display`."""
        self._event("stopping", signal=signal, grace=grace)

    def _event(self, event: str, **facts: Any) -> None:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._as_json:
            line = json.dumps({"time": when, "process": os.getpid(), "event": event, **facts})
        else:
            trace = facts.pop("traceback", "")
            told = [str(facts[name]) if name == "text" else f"{name}={facts[name]}" for name in facts]
            line = "\n    ".join([f"{when} [{os.getpid()}] {event}: {' '.join(told)}", *trace.splitlines()])
        self._write([line])

    def _write(self, lines: list[str]) -> None:
        if self._file is None:
            self._waiting = [*self._waiting, *lines]
            return
        with contextlib.suppress(OSError):
            for line in lines:
                self._file.write(f"{line}\n")


class Both:
    """Two displays as one."""

    def __init__(self, *displays: Display) -> None:
        self._displays = displays

    def __getattr__(self, name: str) -> Any:
        def tell(*arguments: Any) -> None:
            for display in self._displays:
                # A terminal that has gone, a pipe that was closed, a full disk: no reason to lose a run's work. And a
                # signal may come in the middle of a write, into which its handler cannot write.
                with contextlib.suppress(OSError, RuntimeError):
                    getattr(display, name)(*arguments)

        return tell
