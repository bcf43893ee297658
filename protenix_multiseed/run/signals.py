"""Handle SIGINT and SIGTERM: finish or abandon the running batch, write finished results, end the run.

SIGHUP is ignored: a run does not end with its terminal.

Before the run begins, the first signal ends the process. Python's own exception for SIGINT would wait until the main
thread runs Python code, and a library that is being imported could catch it.

During the run, no new batch starts after the first signal. The running batch has ``grace`` seconds to finish, then it
is abandoned. The second signal ends the process at once. Neither signal leaves a partial result, because each seed's
folder is published atomically.

The signal handler only sets a flag. Python also writes the signal's number to a pipe, and a thread reads the pipe.
After the first signal another thread sends an event to the watchers. After the second signal the process ends. Thus
signals take effect while the main thread is in a long call. The handler prints nothing, because it may have interrupted
a print. The last line, after the second signal, is written by a thread that the process does not wait for longer than a
second, because the terminal may take nothing.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from protenix_multiseed.events import Stopping, Watcher

POLL_SECONDS = 0.1
_LAST_WORDS_SECONDS = 10.0  # longest time that the end of the run waits for the watchers to take the event
_LAST_LINE_SECONDS = 1.0  # longest time that the second signal waits for the terminal
_LAST_LINE = b"stopped at once; run the same command again to continue\n"
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Watches for SIGINT and SIGTERM, as a context manager. Outside the main thread it does nothing.

    Args:
        grace: Seconds that the running batch has to finish.
        tell: Receives a ``Stopping`` event after the first signal. None until :meth:`begun` is entered.
    """

    def __init__(self, grace: float, tell: Watcher | None = None) -> None:
        self._grace, self._tell = grace, tell
        self._signal: int | None = None
        self._deadline = float("inf")
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1
        self._reader: threading.Thread | None = None
        self._teller: threading.Thread | None = None
        self._followers: list[Watcher] = []

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @property
    def time_is_up(self) -> bool:
        """Whether the running batch must be abandoned."""
        return self.is_over_by(0)

    def is_over_by(self, seconds: float) -> bool:
        """Whether the grace time has ended this many seconds ago."""
        return time.monotonic() >= self._deadline + seconds

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in shells."""
        return 128 + (self._signal or 0)

    def pause(self, seconds: float) -> bool:
        """Wait for some seconds, or until the run is asked to stop. Return False if it was asked to stop."""
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
            self._before[number] = signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # the workers inherit that it is ignored
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._reader = threading.Thread(
            target=_watch, args=(self._pipe[0], self._on_first), daemon=True, name="signals"
        )
        self._reader.start()
        return self

    @contextmanager
    def begun(self, tell: Watcher) -> Iterator[None]:
        """Inside the ``with`` block the first signal asks the run to stop, and the watcher gets an event.

        After the block the work is over, and signals have no effect.
        """
        self._tell = tell
        try:
            yield
        finally:
            self._end()

    def follow(self, watcher: Watcher) -> None:
        """Let one more watcher get the event of the first signal."""
        self._followers.append(watcher)

    def shield_workers(self) -> None:
        """Block the signals in this thread, because the processes and threads that it starts inherit this.

        Otherwise a worker that is interrupted while it imports its modules prints a traceback. The thread that reads
        the pipe still receives the signals.
        """
        if self._pipe is None:
            return
        from multiprocessing import resource_tracker  # imported late: a run with nothing to do starts no workers

        resource_tracker.ensure_running()  # if a worker's start did this, it would unblock the signals again
        signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._before:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)  # now the handler takes those that came meanwhile
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self) -> None:
        """Let the watcher take the event of a signal that has come, then stop the threads."""
        if self._pipe is None:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._pipe[1])  # the thread reads the pipe to its end, and closes the other end
        self._pipe = None
        for name in ("_reader", "_teller"):  # the first one starts the second one
            thread: threading.Thread | None = getattr(self, name)
            if thread is not None:
                thread.join(_LAST_WORDS_SECONDS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._deadline = time.monotonic() + self._grace
            self._signal = number

    def _on_first(self, number: int) -> None:
        self._on_signal(number, None)
        if self._tell is None:  # nothing has been written
            _kill_all(number)
        event = Stopping(signal=signal.Signals(number).name, grace=self._grace)
        # In a separate thread: a log on a disk that does not answer must not delay the second signal.
        self._teller = threading.Thread(target=self._tell_all, args=(event,), daemon=True, name="stopping")
        self._teller.start()

    def _tell_all(self, event: Stopping) -> None:
        for tell in (self._tell, *self._followers):
            if tell is not None:
                tell(event)


def _watch(pipe: int, on_first: Callable[[int], None]) -> None:
    """Read signal numbers from the pipe until its other end is closed."""
    count = 0
    while data := os.read(pipe, 1):
        number = data[0]
        if number not in _NUMBERS:
            continue
        count += 1
        if count == 1:
            on_first(number)
        else:
            _kill_all(number, _write_last_line)
    os.close(pipe)


def _write_last_line() -> None:
    """Write the last line to standard error, below the bars of a terminal, which hide its cursor."""
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")
        os.write(2, _LAST_LINE)


def _kill_all(number: int, say: Callable[[], None] | None = None) -> NoReturn:
    """Kill all child processes and end this process at once, with exit code 128 + ``number``.

    Args:
        say: Writes the last line. It may hang or fail.
    """
    try:
        import psutil  # imported late: few runs need it

        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        if say is not None:
            teller = threading.Thread(target=say, daemon=True)
            teller.start()
            teller.join(_LAST_LINE_SECONDS)
    finally:
        os._exit(128 + number)
