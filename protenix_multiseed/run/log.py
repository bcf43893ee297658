"""The log of a run: one line per event, as text for people or as JSON for programs."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from protenix_multiseed import events
from protenix_multiseed.types import Failure, Prediction


class EventLog:
    """A watcher that appends to a file. Several processes may write to one file, because each line is appended whole.

    The file is opened when the run begins to write to its output folder. A run that is refused earlier leaves no log.

    Args:
        path: The log file.
        as_json: Whether to write lines as JSON.
    """

    def __init__(self, path: Path, *, as_json: bool) -> None:
        self._path, self._as_json = path, as_json
        self._waiting: list[str] = []
        self._file: TextIO | None = None
        self._lock = threading.Lock()  # the Stopping event comes from another thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def __call__(self, event: events.Event) -> None:
        """Write one event."""
        match event:
            case events.OutputOpened():
                self._open()
            case events.StageEntered():
                self._line("stage", text=event.text)
            case events.Featurized():
                sizes = {"tokens": event.n_token, "atoms": event.n_atom, "msa_rows": event.n_msa}
                self._line("features", job=event.job.name, **sizes, seconds=round(event.seconds, 2))
            case events.BatchProgress():
                if event.done == event.total:
                    self._line("progress", job=event.job.name, seeds=list(event.seeds), stage=event.stage)
            case Prediction():
                best = max(float(sample["ranking_score"]) for sample in event.summary)
                seconds = event.run.get("seconds")
                self._line("predicted", job=event.job.name, seed=event.seed, seconds=seconds, best=round(best, 4))
            case events.Skipped():
                self._line("stable", job=event.job.name, seeds_not_run=list(event.seeds))
            case Failure():
                facts = {"stage": event.stage, "message": event.message, "try": event.advice}
                self._line("failed", job=event.job.name, seed=event.seed, **facts, traceback=event.traceback)
            case events.Note():
                self._line("note", job=event.job.name, text=event.text)
            case events.Stopping():
                self._line("stopping", signal=event.signal, grace=event.grace)

    def _open(self) -> None:
        """Open the file and write the waiting lines. A log that cannot be written does not stop the run."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        with self._lock:
            self._write(self._waiting)

    def _line(self, event: str, **facts: Any) -> None:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._as_json:
            line = json.dumps({"time": when, "process": os.getpid(), "event": event, **facts})
        else:
            trace = facts.pop("traceback", "")
            told = [str(facts[name]) if name == "text" else f"{name}={facts[name]}" for name in facts]
            line = "\n    ".join([f"{when} [{os.getpid()}] {event}: {' '.join(told)}", *trace.splitlines()])
        with self._lock:
            self._write([line])

    def _write(self, lines: list[str]) -> None:
        if self._file is None:
            self._waiting = [*self._waiting, *lines]
            return
        with contextlib.suppress(OSError):
            for line in lines:
                self._file.write(f"{line}\n")
