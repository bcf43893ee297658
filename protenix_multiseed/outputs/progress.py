"""The progress of a run, in a file that ``protenix-ms status`` reads on any machine.

Each process writes ``<out>/protenix-ms/runs/<run>.progress`` every few seconds and deletes it at its end. While it runs
it holds the lock ``run:<run>``, so a file without the lock belongs to a process that was killed, or that a second
signal ended.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.events import BatchProgress, Event, Note, Skipped, Stopping, Written
from protenix_multiseed.files import read_text, write_text
from protenix_multiseed.inputs.seeds import format_seeds, parse_seeds
from protenix_multiseed.outputs.locks import Locks, is_locked
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.types import Failure, Prediction

WRITE_SECONDS = 5.0
_SUFFIX = ".progress"


class Progress:
    """Writes the progress of one process.

    Args:
        out: The output folder.
        run: The name of the run's record.
        locks: The locks of the output folder.
    """

    def __init__(self, out: Path, run: str, locks: Locks) -> None:
        self._path, self._locks, self._run = out / RUN_FOLDER / "runs" / f"{run}{_SUFFIX}", locks, run
        self._started, self._written = time.monotonic(), float("-inf")
        self._running: dict[str, dict[str, Any]] = {}
        self._failed: list[tuple[str, str]] = []
        self._skipped: list[tuple[str, str]] = []
        self._lock = threading.Lock()  # other threads skip seeds, and tell that the run was asked to stop
        self._n_done = 0
        self._is_stopping = self._is_over = False
        locks.take(_lock(run))
        self._write()

    def see(self, event: Event) -> None:
        """Follow the events of the run."""
        with self._lock:
            self._see(event)
            if isinstance(event, Stopping) or time.monotonic() > self._written + WRITE_SECONDS:
                self._write()

    def _see(self, event: Event) -> None:
        match event:
            case BatchProgress():
                self._running[event.where] = {
                    "job": event.job.name,
                    "seeds": list(event.seeds),
                    "others": {job: list(seeds) for job, seeds in event.others},
                    "stage": event.stage,
                    "done": event.done,
                    "total": event.total,
                }
            case Note() if event.lost:
                self._running.pop(event.lost, None)
            case Prediction() | Written():
                self._n_done += 1
            case Failure():
                self._failed.append((event.job.name, format_seeds(event.seeds)))
            case Skipped():
                self._skipped.append((event.job.name, format_seeds(event.seeds)))
            case Stopping():
                self._is_stopping = True

    def end(self) -> None:
        """The run has ended."""
        with self._lock, contextlib.suppress(OSError):
            self._is_over = True
            self._path.unlink(missing_ok=True)
        self._locks.give_back(_lock(self._run))

    def _write(self) -> None:
        if self._is_over:
            return
        self._written = time.monotonic()
        running = [{"where": where, **batch} for where, batch in sorted(self._running.items())]
        content = {
            "run": self._run,
            "seconds": round(self._written - self._started, 1),
            "done": self._n_done,
            "running": running,
            "failed": self._failed,
            "skipped": self._skipped,
            "stopping": self._is_stopping,
        }
        with contextlib.suppress(OSError):  # a full disk, which the run reports
            write_text(self._path, json.dumps(content) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The progress of one process, as read from its file.

    Attributes:
        run: The name of the run's record.
        seconds: Time since the process began to predict, seconds.
        done: Seeds that it has predicted.
        running: Job, seeds, other jobs with their seeds, stage and place of each batch.
        failed: Job and seed of each seed that has failed.
        skipped: Job and seed of each seed that early stopping has skipped.
        is_stopping: Whether the user asked the process to stop.
        is_alive: Whether the process still runs; None if this account may not know.
    """

    run: str
    seconds: float
    done: int
    running: tuple[dict[str, Any], ...]
    failed: tuple[tuple[str, int], ...]
    skipped: tuple[tuple[str, int], ...]
    is_stopping: bool
    is_alive: bool | None


def read_progress(out: Path) -> Iterator[Seen]:
    """Yield the progress of each process that has not ended by itself. It only reads."""
    folder = out / RUN_FOLDER / "runs"
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        # It may end, or be damaged, just now.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ConfigError):
            content = json.loads(read_text(path, folder))
            is_alive = None
            with contextlib.suppress(OSError):  # the file of the locks belongs to another account
                is_alive = is_locked(out, _lock(content["run"]))
            yield Seen(
                run=content["run"],
                seconds=float(content["seconds"]),
                done=int(content["done"]),
                running=tuple({"others": {}, **batch} for batch in content["running"]),
                failed=_flat(content["failed"]),
                skipped=_flat(content["skipped"]),
                is_stopping=bool(content["stopping"]),
                is_alive=is_alive,
            )


def _flat(parts: Iterable[tuple[str, str]]) -> tuple[tuple[str, int], ...]:
    """Return each seed with its job, of pairs of a job and some seeds."""
    return tuple((str(job), seed) for job, text in parts for seed in parse_seeds(text))


def _lock(run: str) -> str:
    return f"run:{run}"
