"""The log of a run: one line per event, as text for people or as JSON for programs."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from protenix_multiseed import events
from protenix_multiseed.failures import reason_of
from protenix_multiseed.files import open_to_write
from protenix_multiseed.types import Failure, Prediction


class EventLog:
    """A watcher that appends to a file. Several processes may write to one file, because each line is appended whole.

    The file is opened when the run begins to write to its output folder. A run that is refused earlier leaves no log.

    A log that cannot be written does not stop the run. It then loses lines: a pipe that nobody reads, or a full disk,
    must not hold the run up.

    Args:
        path: The log file.
        folder: The folder in which the log file must be; None if the user chose the path.
        as_json: Whether to write lines as JSON.

    Attributes:
        problem: Why lines are missing in the log; None if none are.
    """

    def __init__(self, path: Path, folder: Path | None, *, as_json: bool) -> None:
        self._path, self._folder, self._as_json = path, folder, as_json
        self.problem: str | None = None
        self._waiting: list[str] | None = []  # lines before the file is opened; None from then on
        self._file: BinaryIO | None = None
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
                rows = event.n_msa if event.job.spec.has_msa else 1  # the sequence, which the model may get twice
                sizes = {"tokens": event.n_token, "atoms": event.n_atom, "msa_rows": rows}
                self._line("features", job=event.job.name, **sizes, seconds=round(event.seconds, 2))
            case events.BatchProgress():
                if event.done == event.total:
                    others = {"others": {job: list(seeds) for job, seeds in event.others}} if event.others else {}
                    self._line("progress", job=event.job.name, seeds=list(event.seeds), **others, stage=event.stage)
            case Prediction():
                facts = {"seconds": event.run.get("seconds"), "best": round(max(event.scores), 4)}
                self._line("predicted", job=event.job.name, seed=event.seed, **facts)
            case events.Written():
                facts = {"seconds": event.seconds, "best": round(max(event.scores), 4)}
                place = {"where": event.where} if event.where else {}
                self._line("predicted", job=event.job.name, seed=event.seed, **facts, **place)
            case events.Skipped():
                self._line("stable", job=event.job.name, seeds_not_run=list(event.seeds))
            case Failure():
                facts = {"stage": event.stage, "message": event.message, "try": event.advice}
                self._line("failed", job=event.job.name, seed=event.seed, **facts, traceback=event.traceback)
            case events.Note():
                self._line("note", **({"job": event.job.name} if event.job else {}), text=event.text)
            case events.Stopping():
                self._line("stopping", signal=event.signal, grace=event.grace)

    def _open(self) -> None:
        """Open the file and write the waiting lines."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = open_to_write(self._path, self._folder, os.O_WRONLY | os.O_APPEND)
            self._file = os.fdopen(handle, "wb", buffering=0)
        except OSError as error:
            self.problem = reason_of(error)
        with self._lock:
            waiting, self._waiting = self._waiting or [], None
            self._write(waiting)

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
        if self._waiting is not None:
            self._waiting += lines
            return
        if self._file is None:
            return
        for line in lines:
            content = f"{line}\n".encode(errors="backslashreplace")
            try:  # each line in one call, because other processes may append to the file
                if self._file.write(content) != len(content):
                    self.problem = f"{self._path}: no room"
            except OSError as error:
                self.problem = reason_of(error)
