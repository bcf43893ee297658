"""SIGINT and SIGTERM: finish or give up the batch in hand, write what is done, end.

The first signal asks: no new work begins, and the batch in hand has ``grace`` seconds to finish before it is given up.
The second ends the process at once. Neither can leave half a result, since results appear whole.

A handler only sets a flag. Python also writes the signal's number to a pipe. A thread reads it there, tells the
watchers, and ends the process after the second. So neither waits for a long call of the main thread, and nothing is
printed from a handler, which may itself have interrupted a print.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

from protenix_multiseed.events import Stopping, Watcher

POLL_SECONDS = 0.1
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Whether the run was asked to stop. Outside the main thread it watches for nothing.

    Args:
        grace: Seconds that work in hand has to finish.
        tell: Told when the first signal comes.
    """

    def __init__(self, grace: float, tell: Watcher) -> None:
        self._grace, self._tell = grace, tell
        self._signal: int | None = None
        self._deadline = float("inf")
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @property
    def time_is_up(self) -> bool:
        """Whether work in hand must be given up."""
        return time.monotonic() >= self._deadline

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells have it."""
        return 128 + (self._signal or 0)

    def pause(self, seconds: float) -> bool:
        """Wait, unless the run is asked to stop meanwhile. Whether to go on."""
        end = time.monotonic() + seconds
        while not self.is_asked and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return not self.is_asked

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, end == self._pipe[0])
        self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in _NUMBERS:
            self._before[number] = signal.signal(number, self._note)
        threading.Thread(target=_watch, args=(self._pipe[0], self._on_first), daemon=True, name="signals").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._pipe[1])  # the thread reads the end, and closes its own
            self._pipe = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._deadline = time.monotonic() + self._grace
            self._signal = number

    def _on_first(self, number: int) -> None:
        self._note(number, None)
        event = Stopping(signal=signal.Signals(number).name, grace=self._grace)
        # In a thread of its own: a terminal that is stuck must not keep the second signal waiting.
        threading.Thread(target=self._tell, args=(event,), daemon=True, name="stopping").start()


def _watch(pipe: int, on_first: Callable[[int], None]) -> None:
    """Read signals from the pipe until its other end is closed."""
    count = 0
    while data := os.read(pipe, 1):
        number = data[0]
        if number not in _NUMBERS:
            continue
        count += 1
        if count == 1:
            on_first(number)
        else:
            _end(number)
    os.close(pipe)


def _end(number: int) -> None:
    """End this process and its children at once."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(128 + number)
