"""Start worker processes that do not run the user's script again, and that Ctrl-C does not reach.

The standard library's ``spawn`` imports the main script in each new process. A script that predicts without
``if __name__ == "__main__":`` would predict again there. The workers need nothing of the main script.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

_lock = threading.Lock()


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802  the standard library's name
        with _without_main():
            return SpawnProcess._Popen(process_obj)


class WorkerContext(SpawnContext):
    """Multiprocessing's ``spawn``, without the main script. It knows its processes: the caller may have others."""

    def __init__(self) -> None:
        self._made: list[_Process] = []

    def Process(self, *arguments: Any, **named: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        """Make a process."""
        made = _Process(*arguments, **named)
        self._made.append(made)
        return made

    def kill_all(self) -> None:
        """Kill all processes that run."""
        for process in list(self._made):
            if process.is_alive():
                process.kill()  # workers ignore SIGTERM
                process.join()


def end_pool(pool: Any, context: WorkerContext) -> None:
    """Kill the workers of a pool of pebble's, also those that are still starting.

    A worker that starts when the pool's semaphores are gone prints a traceback.
    """
    pool.stop()
    context.kill_all()
    pool.join()
    context.kill_all()


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
    """Block SIGINT inside the ``with`` block: the processes and threads that start there inherit this.

    Otherwise Ctrl-C interrupts a worker that still imports its modules, and it prints a traceback.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # if the start of a worker did this, it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
