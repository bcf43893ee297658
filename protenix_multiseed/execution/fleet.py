"""The processes of all GPUs: start them, call them, notice that one has ended or is stuck, and start it again.

Answers arrive in one queue, so the work for an answer does not grow with the number of GPUs.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from protenix_multiseed.execution.gpu_worker import Loaded
from protenix_multiseed.execution.plan import Planner
from protenix_multiseed.execution.shared import Shared

MAX_DEATHS = 5  # a GPU whose process ends this often, with no seed written in between, is left out
RESTART_SECONDS = 2.0  # until a GPU's process is started again; twice as long after each further death
SILENT_SECONDS = 180.0  # a process that does not answer for this long is killed
STUCK_FACTOR, STUCK_SECONDS = 20.0, 600.0  # a batch without progress is killed after 20 times its usual time, and this
FIRST_SECONDS = 3600.0  # the same while loading, and before the usual time is known
LOOK_SECONDS = 5.0  # between two looks for stuck processes and for nodes that have joined
GONE_SECONDS = 600.0  # a node that was taken away may come back within this time
_POLL_SECONDS = 0.5
_MAX_HANDLING_SECONDS = 1.0  # of the time between two calls of answers(); more is the caller's own work


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One GPU of a node of the cluster; on CPU runs, one CPU.

    Attributes:
        node: Ray's identifier of the node.
        host: Name of the node, for people.
        slot: Number of the GPU on its node, from 0.
    """

    node: str
    host: str
    slot: int


class Machines(Protocol):
    """What the fleet needs of a cluster (:class:`protenix_multiseed.execution.ray_cluster.Cluster`)."""

    def places(self) -> list[Place]:
        """Return the GPUs of all nodes that are alive now."""

    def start(self, place: Place) -> Any:
        """Start the process of one GPU. Returns its handle at once."""

    def call(self, handle: Any, method: str, *arguments: Any) -> "Future[Any]":
        """Call a method of a process."""

    def kill(self, handle: Any, place: Place, process: int | None) -> None:
        """Kill a process."""


@dataclass(slots=True, eq=False)
class Gpu:
    """One GPU and its process.

    Attributes:
        loaded: What the process said when it was ready; None before.
        n_received: Messages received.
        answered, moved: When the process last answered, and last made progress, by the fleet's clock.
        is_checked: Whether its machine has what all machines must share.
        units: The seeds of each unit that are not finished, by job number.
        is_giving_back: Whether it was asked to give seeds back, and has not answered.
    """

    number: int
    place: Place
    handle: Any
    loaded: Loaded | None = None
    is_checked: bool = False
    n_received: int = 0
    answered: float = 0.0
    moved: float = 0.0
    units: list[tuple[int, set[int]]] = field(default_factory=list)
    is_giving_back: bool = False
    is_closed: bool = False

    @property
    def name(self) -> str:
        """The GPU's name for people."""
        return f"{self.place.host} GPU {self.place.slot}"


@dataclass(slots=True)
class _Slot:
    """What has happened at one place.

    Attributes:
        restart_at: When a process may start there; infinite while one runs.
        seen: When its node was last there.
    """

    deaths: int = 0
    seen: float = 0.0
    restart_at: float = 0.0
    is_left_out: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Instead of an answer: the process, or its node, has ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a process to a call. ``value`` is what the method returned, or a :class:`Lost`."""

    gpu: Gpu
    method: str
    about: Any
    value: Any


class Fleet:
    """The processes of all GPUs.

    Args:
        machines: The cluster.
        shared: What each machine must have.

    Attributes:
        gpus: The GPUs whose process is alive, by number. A process that is started again has a new number.
        last_reason: Why the last process ended.
        shared: What each machine must have.
        now: A clock in seconds. It stands still while the caller handles answers: a caller that is slow, such as a
            script that works on each result, must not make processes look stuck.
    """

    def __init__(self, machines: Machines, shared: Shared) -> None:
        self._machines, self.shared = machines, shared
        self._slots: dict[Place, _Slot] = {}
        self._answers: SimpleQueue[tuple[Gpu, str, Any, Future[Any]]] = SimpleQueue()
        self._n_started, self._looked = 0, float("-inf")
        self.now, self._returned = 0.0, time.monotonic()
        self.gpus: dict[int, Gpu] = {}
        self.last_reason = ""

    @property
    def ready(self) -> list[Gpu]:
        """The GPUs that have loaded the model."""
        return [gpu for gpu in self.gpus.values() if gpu.loaded is not None]

    @property
    def kinds(self) -> set[tuple[Planner, int]]:
        """The planner and the free bytes of the GPUs that are ready."""
        return {(gpu.loaded.planner, gpu.loaded.budget) for gpu in self.gpus.values() if gpu.loaded is not None}

    @property
    def may_grow(self) -> bool:
        """Whether a process may still start at a place that has none: it ended, or its node may come back."""
        now = time.monotonic()
        return any(
            not slot.is_left_out and slot.restart_at < float("inf") and now < slot.seen + GONE_SECONDS
            for slot in self._slots.values()
        )

    @property
    def is_hopeless(self) -> bool:
        """Whether no process is alive, and none will be started."""
        return not self.gpus and not self.may_grow

    def facts(self) -> dict[str, Any]:
        """Return the facts of the first GPU that is ready, for the run's record, and the names of all of them."""
        facts = [gpu.loaded.facts for gpu in self.gpus.values() if gpu.loaded is not None]
        names = ("host", "device", "gpu", "driver")
        gpus = [{name: one[name] for name in names if name in one} for one in facts]
        more = {name: value for name, value in facts[0].items() if name != "host"}
        return {**more, "device": f"{len(self.gpus)} GPUs", "gpus": gpus}

    def start_new(self) -> None:
        """Start a process at each place that has none: on new nodes, and where it is time to try again."""
        now = time.monotonic()
        for place in self._machines.places():
            slot = self._slots.setdefault(place, _Slot())
            slot.seen = now
            if slot.is_left_out or now < slot.restart_at:
                continue
            slot.restart_at = float("inf")
            handle = self._machines.start(place)
            gpu = Gpu(self._n_started, place, handle, answered=self.now, moved=self.now)
            self._n_started += 1
            self.gpus[gpu.number] = gpu
            self.ask(gpu, "check", self.shared)

    def ask(self, gpu: Gpu, method: str, *arguments: Any, about: Any = None) -> None:
        """Call a method of a process. The answer comes from :meth:`answers`."""
        future = self._machines.call(gpu.handle, method, *arguments)
        future.add_done_callback(lambda done: self._answers.put((gpu, method, about, done)))

    def answers(self) -> list[Answer]:
        """Wait a short time for an answer. Return all that have come."""
        came, called = [], time.monotonic()
        self.now += min(called - self._returned, _MAX_HANDLING_SECONDS)
        try:
            came.append(self._answers.get(timeout=_POLL_SECONDS))
            while True:
                came.append(self._answers.get_nowait())
        except Empty:
            pass
        self._returned = time.monotonic()
        self.now += self._returned - called
        made = []
        for gpu, method, about, future in came:
            if self.gpus.get(gpu.number) is gpu:
                gpu.answered = self.now
                error = future.exception()
                value = future.result() if error is None else Lost(_first_sentence(error))
                made.append(Answer(gpu, method, about, value))
        return made

    def is_time_to_look(self) -> bool:
        """Return True once in some seconds: time for :meth:`stuck` and :meth:`start_new`."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        return True

    def stuck(self, gpu: Gpu, usual: Sequence[float]) -> str | None:
        """Return why the process of a GPU must be killed; None if it works.

        Args:
            usual: The usual seconds of each of its units; 0 if nothing is known.
        """
        now, is_loading = self.now, gpu.loaded is None
        if not is_loading and now > gpu.answered + SILENT_SECONDS:
            return f"the process did not answer for {now - gpu.answered:.0f} s"
        longest = max(usual, default=0.0)
        limit = max(STUCK_SECONDS, STUCK_FACTOR * longest) if longest and not is_loading else FIRST_SECONDS
        if (is_loading or gpu.units) and now > gpu.moved + limit:
            return f"{'loading' if is_loading else 'a batch'} made no progress for {now - gpu.moved:.0f} s"
        return None

    def is_gone(self, gpu: Gpu) -> bool:
        """Return whether the node of a GPU has been taken away."""
        return gpu.place not in self._machines.places()

    def forgive(self, gpu: Gpu) -> None:
        """A seed was written, so earlier deaths at this place are forgiven."""
        self._slots[gpu.place].deaths = 0

    def lose(self, gpu: Gpu, reason: str, *, is_stuck: bool = False, is_final: bool = False) -> str:
        """A process has ended, or is killed now. Return a sentence that says what happens at its place.

        Args:
            is_stuck: Whether it may not obey Ray.
            is_final: Whether to start none again at this place.
        """
        self.end(gpu, is_stuck=is_stuck)
        self.last_reason = reason
        slot = self._slots[gpu.place]
        slot.deaths += 1
        slot.is_left_out = is_final or slot.deaths >= MAX_DEATHS
        slot.restart_at = time.monotonic() + RESTART_SECONDS * 2 ** (slot.deaths - 1)
        then = f"left out, after {slot.deaths} times" if slot.is_left_out else "it is started again"
        return f"lost {gpu.name} ({then}): {reason}"

    def close(self) -> None:
        """Each process finishes its batch, writes, and begins nothing new."""
        for gpu in list(self.gpus.values()):
            if gpu.loaded is None:
                self.end(gpu)
            else:
                self.ask(gpu, "close")

    def end_all(self) -> None:
        """Kill all processes."""
        for gpu in list(self.gpus.values()):
            self.end(gpu)

    def end(self, gpu: Gpu, *, is_stuck: bool = False) -> None:
        """Kill a process."""
        del self.gpus[gpu.number]
        self._machines.kill(gpu.handle, gpu.place, gpu.loaded.process if gpu.loaded and is_stuck else None)


def _first_sentence(error: BaseException) -> str:
    """Return the first sentence of an error of Ray, which has many lines."""
    text = " ".join(str(error).split())
    return text.partition(". ")[0][:300] or type(error).__name__
