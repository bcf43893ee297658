"""How the process behaves: its encoding, its standard streams, and its end.

Standard output may be closed, a pipe whose reader has ended or has stopped reading, or a file on a full disk. A thread
passes the text on, so a print never waits and never fails.
"""

import atexit
import codecs
import contextlib
import ctypes
import errno
import gc
import io
import locale
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

MAX_WAITING = 2**26  # bytes; text that comes while more waits for the reader is dropped
_CHUNK = 2**10  # small, so that a slow reader is not taken for one that takes nothing
PATIENCE_SECONDS = 2.0
_POLL_SECONDS = 0.1
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SIGACTION_BYTES = 512  # more than the C library's struct sigaction


class Output(io.TextIOBase):
    """A text stream that never blocks. A thread writes the text to a file descriptor.

    Args:
        handle: The file descriptor.
        encoding: Characters that it lacks are written as escapes.
    """

    def __init__(self, handle: int, encoding: str) -> None:
        self._handle, self._encoding = handle, encoding
        self._waiting = bytearray()
        self._is_over = False  # nothing is passed on any more
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.problem: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the text."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """The treatment of characters that the encoding lacks."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._handle

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return os.isatty(self._handle)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Take text. It is passed on as fast as the reader takes it."""
        content = text.encode(self._encoding, self.errors)
        with self._changed:
            if self._is_over or len(self._waiting) > MAX_WAITING:
                return len(text)
            self._waiting += content
            if self._thread is None:
                self._thread = threading.Thread(target=self._pass_on, daemon=True, name="output")
                self._thread.start()
            self._changed.notify_all()
        return len(text)

    def wait(self, is_urgent: Callable[[], bool] = lambda: False) -> None:
        """Wait until all text is passed on.

        Args:
            is_urgent: Whether to give up once the reader has taken nothing for two seconds.
        """
        with self._changed:
            left, end = len(self._waiting), time.monotonic() + PATIENCE_SECONDS
            while self._waiting and self.problem is None:
                if len(self._waiting) != left or not is_urgent():
                    left, end = len(self._waiting), time.monotonic() + PATIENCE_SECONDS
                elif time.monotonic() > end:
                    return
                self._changed.wait(_POLL_SECONDS)

    def finish(self, is_urgent: Callable[[], bool] = lambda: False) -> None:
        """Wait like :meth:`wait`, then discard the text that is left and all text that comes later."""
        if not self._is_over:
            try:
                self.wait(is_urgent)
            finally:
                self._is_over = True

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                chunk = bytes(self._waiting[:_CHUNK])
            try:
                written = os.write(self._handle, chunk)
            except BlockingIOError:  # another program has made the shared pipe non-blocking
                with self._changed:
                    self._changed.wait(_POLL_SECONDS)
                continue
            except OSError as error:
                with self._changed:
                    self.problem, self._is_over = error, True
                    self._changed.notify_all()
                return
            with self._changed:
                del self._waiting[:written]
                self._changed.notify_all()


def use_utf8() -> None:
    """Start Python again in UTF-8 mode if the locale has another encoding.

    Otherwise the locale decides how names of files and contents of files are encoded, in this process, its workers and
    the libraries, and a job's name may have letters that the locale lacks.
    """
    try:
        is_utf8 = codecs.lookup(locale.getencoding()).name == "utf-8"
    except LookupError:
        is_utf8 = False
    if is_utf8 or os.environ.get("PYTHONUTF8") == "1":  # the variable: never start again twice
        return
    shown = os.environ.get("PYTHONIOENCODING") or str(getattr(sys.stdout, "encoding", "utf-8"))
    variables = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": shown}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], variables)


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Make the standard streams safe. At the end of the block wait for the output, and end the process.

    The exit code is that of the ``SystemExit`` which the block raises. It is 1 if all else went well, but the output
    could not be written.
    """
    atexit.register(_prepare_end)  # the first to be registered is the last to be called
    _open_missing()
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    is_terminal = os.isatty(1)
    output = Output(1, getattr(sys.stdout, "encoding", None) or "utf-8")
    sys.stdout = output
    code, is_interrupted = 0, False
    try:
        yield
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code, is_interrupted = 128 + signal.SIGINT, True
    except BaseException:  # a fault of the program: Python prints it
        output.wait(lambda: True)
        raise
    try:
        output.finish(lambda: is_interrupted)
    except KeyboardInterrupt:  # the reader does not read
        code = code or 128 + signal.SIGINT
    problem = output.problem
    gone = (errno.EPIPE, errno.EIO) if is_terminal else (errno.EPIPE,)  # a terminal that was closed answers with EIO
    if problem is not None and problem.errno not in gone:  # a reader that ends does not want the rest
        print(f"error: standard output cannot be written: {problem.strerror}", file=sys.stderr)
        code = code or 1
    # The work is over, so a signal must not change the exit code. It ends the process at once while Python waits for
    # threads, and is ignored while Python removes its modules, when it would kill the process.
    for number in _NUMBERS:
        signal.signal(number, lambda *_: os._exit(code))
    sys.exit(code)


def finish_output(is_urgent: Callable[[], bool]) -> None:
    """Wait until standard output has taken all text. If it is urgent, do not wait for a reader that takes nothing."""
    if isinstance(sys.stdout, Output):
        sys.stdout.finish(is_urgent)


def settle_output() -> None:
    """Let standard output take all text, so that errors are shown after it. Do not wait for a reader that is stuck."""
    if isinstance(sys.stdout, Output):
        sys.stdout.wait(lambda: True)


def _prepare_end() -> None:
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # else Python searches all objects for cycles before it ends, which takes a second with torch


def _open_missing() -> None:
    """Open /dev/null in place of closed standard streams. Otherwise the next file that is opened takes their number."""
    for handle, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(handle, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  for the process's life


def in_background(slow: Callable[[], object]) -> threading.Thread:
    """Begin in a thread what takes seconds and is needed soon, such as an import. Returns the thread.

    Errors are ignored: whoever needs it does it again, fails the same way, and reports it.
    """

    def work() -> None:
        with contextlib.suppress(Exception):
            slow()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@contextlib.contextmanager
def handler_kept(number: int) -> Iterator[None]:
    """Keep the process's handler of a signal, which a library replaces through the C library, unseen by Python."""
    library, before = ctypes.CDLL(None), ctypes.create_string_buffer(_SIGACTION_BYTES)
    library.sigaction(int(number), None, before)
    try:
        yield
    finally:
        library.sigaction(int(number), before, None)


@contextlib.contextmanager
def interrupt_kept() -> Iterator[None]:
    """Keep the process's handler of SIGINT, which RDKit replaces when it embeds a molecule, and does not put back.

    Without this a later Ctrl-C is lost, and the one after it ends the process at once. Inside the ``with`` block the
    signal waits, so that it ends no embedding halfway.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with handler_kept(signal.SIGINT):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
