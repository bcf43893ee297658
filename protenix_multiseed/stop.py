"""SIGINT and SIGTERM: finish or drop the batch in hand, write what is done, end.

The first signal asks: no new work is begun, and what is being computed has ``grace`` seconds to finish before it is
dropped. The second ends the process at once. Neither can leave half a result, since results appear whole.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

import psutil

from protenix_multiseed.errors import Dropped

_Item = TypeVar("_Item")


class Stop:
    """Whether the run was asked to stop.

    Args:
        grace: Seconds that work in hand has to finish.
        told: Called with the signal's name and ``grace`` when it comes.
    """

    def __init__(self, grace: float, told: Callable[[str, float], None]) -> None:
        self._grace, self._told = grace, told
        self._signal: int | None = None
        self._deadline = float("inf")
        self._may_drop = False
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells have it."""
        return 128 + (self._signal or 0)

    def __enter__(self) -> Self:
        for number, act in ((signal.SIGINT, self._ask), (signal.SIGTERM, self._ask), (signal.SIGALRM, self._drop)):
            self._before[number] = signal.signal(number, act)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, act in self._before.items():
            signal.signal(number, act)

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """A block that may be dropped at any point when its time is up.

        Raises:
            Dropped: where it is.
        """
        self._may_drop = True
        try:
            if time.monotonic() >= self._deadline:
                raise Dropped
            yield
        finally:
            self._may_drop = False

    def each(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Items until the run is asked to stop; waiting for one may be dropped."""
        iterator = iter(items)
        with suppress(StopIteration, Dropped):
            while not self.asked:
                with self.droppable():
                    item = next(iterator)
                yield item

    def rest(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """All items; making one may be dropped, and then none follows."""
        iterator = iter(items)
        with suppress(StopIteration, Dropped):
            while True:
                self._may_drop = True  # also past the deadline: what is finished comes, and nothing new begins
                try:
                    item = next(iterator)
                finally:
                    self._may_drop = False
                yield item

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self._end(number)
        self._signal = number
        self._deadline = time.monotonic() + self._grace
        signal.setitimer(signal.ITIMER_REAL, max(self._grace, 1e-3))
        self._told(signal.Signals(number).name, self._grace)

    def _drop(self, number: int, frame: FrameType | None) -> None:
        if self._may_drop:
            raise Dropped

    def _end(self, number: int) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os._exit(128 + number)
