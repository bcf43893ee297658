"""Start worker processes as forks of a server process, which has imported what they need.

These imports take seconds of a processor, and their memory is a large part of a worker's. Forks have them at once and
share the memory. The server is that of the standard library's ``forkserver``, which runs no threads and opens no files
of a run. Each pool has its own server: it has the environment of the run, it ends with the pool, and the caller may use
``forkserver`` for other things.

The standard library imports the main script in each new process. A script that predicts without
``if __name__ == "__main__":`` would predict again there. The workers need nothing of the main script.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, popen_forkserver, reduction, resource_tracker, spawn, util
from multiprocessing.context import ForkServerContext, set_spawning_popen
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import TYPE_CHECKING, Any

from protenix_multiseed.errors import ConfigError

SETUP = "protenix_multiseed.features.server_setup"
_lock = threading.Lock()


class _Server(forkserver.ForkServer):
    if TYPE_CHECKING:  # methods and attributes of the standard library's class that its types leave out
        _forkserver_pid: int | None

        def _stop(self) -> None: ...

    def kill(self) -> None:
        """Kill the server, which may still be importing. Its forks must have ended."""
        if self._forkserver_pid is not None:
            os.kill(self._forkserver_pid, signal.SIGKILL)
            self._stop()


class _Popen(popen_forkserver.Popen):
    """A fork of a server of our own. The standard library's class uses the one server of the whole process."""

    _fds: list[int]

    def __init__(self, process: BaseProcess, server: _Server) -> None:
        self._server = server
        super().__init__(process)

    def _launch(self, process: BaseProcess) -> None:
        content = io.BytesIO()
        with _without_main():
            set_spawning_popen(self)
            try:
                reduction.dump(spawn.get_preparation_data(process.name), content)
                reduction.dump(process, content)
            finally:
                set_spawning_popen(None)
        self.sentinel, to_worker = self._server.connect_to_new_process(self._fds)
        until_end = os.dup(to_worker)  # the worker sees by its other end that this process has ended
        self.finalizer = util.Finalize(self, _close, (until_end, self.sentinel))
        with open(to_worker, "wb") as stream:
            stream.write(content.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class _Process(BaseProcess):
    _start_method = "forkserver"
    server: _Server | None = None

    @staticmethod
    def _Popen(process: Any) -> _Popen:  # noqa: N802  the standard library's name
        return _Popen(process, process.server)

    def terminate(self) -> None:
        """Kill the worker, which ignores SIGTERM. The pool would wait for seconds for each one before it kills."""
        self.kill()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "server"}


class WorkerContext(ForkServerContext):
    """Multiprocessing's ``forkserver`` with an own server. It knows its processes: the caller may have others.

    Args:
        modules: Modules that the server imports.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._server = _Server()
        self._server.set_forkserver_preload([SETUP, *modules])
        self._made: list[_Process] = []

    def begin(self) -> None:
        """Start the server, and do not wait for its imports. The first fork waits for them.

        Raises:
            ConfigError: if the server's socket cannot be made.
        """
        try:
            with shielded():
                self._server.ensure_running()
        except OSError as error:
            folder = util.get_temp_dir()
            raise ConfigError(
                f"the workers' socket cannot be made in {folder}: {error.strerror or error}; set TMPDIR to a folder "
                "with a short path that can be written"
            ) from None

    def Process(self, *arguments: Any, **named: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        """Make a process."""
        made = _Process(*arguments, **named)
        made.server = self._server
        self._made.append(made)
        return made

    def end(self, pool: Any) -> None:
        """Kill all workers, also those that are still starting, and the server.

        A worker that starts when the pool's semaphores are gone prints a traceback.

        Args:
            pool: The pool of pebble's, or None if there is none yet.
        """
        if pool is not None:
            pool.stop()
            self._kill_workers()
            pool.join()
        self._kill_workers()
        self._server.kill()

    def _kill_workers(self) -> None:
        for process in list(self._made):
            if process.is_alive():
                process.kill()  # workers ignore SIGTERM
                process.join()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main script from multiprocessing, which looks for its file and its name."""
    with _lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def shielded() -> Iterator[None]:
    """Block SIGINT and SIGTERM inside the ``with`` block: processes and threads that start there inherit this.

    Otherwise Ctrl-C interrupts imports of the server or a worker, which prints a traceback, and a batch system's signal
    to all processes ends the server.
    """
    resource_tracker.ensure_running()  # if the start of a worker did this, it would unblock the signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
