"""The executor for several GPUs, of one machine or of a Ray cluster.

Each GPU has a process (:mod:`protenix_multiseed.execution.gpu_worker`) that predicts and writes. The run hands out
units (:mod:`protenix_multiseed.execution.schedule`), receives small messages, and never sees features or predictions.
Answers arrive in one queue, so the work for a message does not grow with the number of GPUs.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, DamagedError, Stopped
from protenix_multiseed.events import BatchProgress, Event, Featurized, Note, StageEntered, Watcher, Written
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.gpu_worker import Closed, Loaded, Message, Started
from protenix_multiseed.execution.ray_cluster import Cluster, Place
from protenix_multiseed.execution.schedule import Schedule
from protenix_multiseed.features.pool import AHEAD, WorkerPool
from protenix_multiseed.outputs.scan import inspect, read_seed, seed_folder
from protenix_multiseed.types import Failure, Job, Sizes, Task

MAX_KILLS = 3  # a seed whose process ends this often is a failure
MAX_DEATHS = 5  # a GPU whose process ends this often, with no seed written in between, is left out
RESTART_SECONDS = 2.0  # until a GPU's process is started again; twice as long after each further death
COLLECT_SECONDS = 10.0  # a process answers at least this often
SILENT_SECONDS = 180.0  # a process that does not answer for this long is killed
STUCK_FACTOR, STUCK_SECONDS = 20.0, 600.0  # a batch without progress is killed after 20 times its usual time, and this
FIRST_SECONDS = 3600.0  # the same while loading, and before the usual time is known
WRITE_SECONDS = 120.0  # from a signal until all processes must have written what is finished
NODES_SECONDS = 5.0  # between two looks for nodes that have joined
_POLL_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class _Gpu:
    """One GPU, and its process."""

    number: int
    place: Place
    handle: Any
    loaded: Loaded | None = None
    n_received: int = 0
    answered: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    units: list[tuple[int, set[int]]] = field(default_factory=list)
    is_giving_back: bool = False
    is_closed: bool = False

    @property
    def name(self) -> str:
        return f"{self.place.host} GPU {self.place.slot}"


@dataclass(slots=True)
class _Slot:
    """What has happened at one place."""

    deaths: int = 0
    restart_at: float = float("inf")
    is_left_out: bool = False


class RayExecutor:
    """See :class:`protenix_multiseed.execution.base.Executor`. The CPU workers of this process only rank."""

    def __init__(self, config: RunConfig, workers: WorkerPool, tell: Watcher) -> None:
        self._config, self._tell = config, tell
        self._cluster: Cluster | None = None
        self._gpus: dict[int, _Gpu] = {}
        self._slots: dict[Place, _Slot] = {}
        self._answers: SimpleQueue[tuple[_Gpu, str, Any, Future[Any]]] = SimpleQueue()
        self._n_gpu = 0
        self._last_reason = ""
        self._refusals: list[str] = []
        self._rate = 0.0  # the slowest seconds per cost that was seen
        self._looked = 0.0
        self._kills: Counter[tuple[str, int]] = Counter()
        self._notes: set[tuple[str, str]] = set()
        self._sizes: dict[str, Sizes] = {}
        self._fits: dict[tuple[str, int], int] = {}
        self._tasks: Sequence[Task] = ()
        self._numbers: dict[str, int] = {}
        self._schedule = Schedule(())
        self._gate: Gate | None = None
        self._is_closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cluster is None:
            return
        for gpu in list(self._gpus.values()):
            self._end(gpu)
        self._cluster.close()
        self._cluster = None

    def load(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> None:
        """Start a process for each GPU, and wait until one is ready.

        Raises:
            ConfigError: if no process starts, or a job is too large for all GPUs.
            Stopped: if ``should_stop`` returns True meanwhile.
        """
        self._tell(StageEntered(text="starting Ray"))
        self._cluster = Cluster(self._config)
        self._start_new()
        hosts = len({place.node for place in self._slots})
        self._tell(StageEntered(text=f"loading {self._config.model} on {len(self._gpus)} GPUs of {hosts} machines"))
        problems: list[str] = []
        while not self._is_ready or (problems := self._too_large(tasks)):
            if should_stop():
                raise Stopped
            waiting = [gpu for gpu in self._gpus.values() if gpu.loaded is None]
            if not waiting and not any(slot.restart_at < float("inf") for slot in self._slots.values()):
                raise ConfigError("\n".join(problems or dict.fromkeys(self._refusals)) or self._last_reason)
            for event in self._step():
                self._tell(event)
        self._tell(StageEntered(text=f"predicting on {len(self._gpus)} GPUs"))

    def predict(self, tasks: Sequence[Task], gate: Gate) -> Iterator[Event]:
        """Predict tasks on all GPUs. Each seed comes once, as a Written or a Failure."""
        self._tasks, self._gate = tasks, gate
        self._numbers = {task.job.name: number for number, task in enumerate(tasks)}
        self._sizes = {task.job.name: _minimum_sizes(task.job) for task in tasks}
        self._schedule = Schedule((_cost(task.job.n_token), task.todo) for task in tasks)
        for gpu in self._gpus.values():
            if gpu.loaded is not None:
                self._schedule.add(gpu.number)
        closed_at = float("inf")
        while not self._schedule.is_done:
            if gate.is_closed and not self._is_closing:
                self._close()
            if gate.time_is_up and closed_at == float("inf"):
                closed_at = time.monotonic()
                for gpu in self._gpus.values():
                    self._ask(gpu, "abandon")
            is_over = all(gpu.is_closed for gpu in self._gpus.values())
            if self._is_closing and (is_over or time.monotonic() > closed_at + WRITE_SECONDS):
                return
            if not self._gpus and not any(slot.restart_at < float("inf") for slot in self._slots.values()):
                yield from self._give_up()
                return
            self._feed_all()
            yield from self._step()

    def facts(self) -> Mapping[str, Any]:
        """See :class:`protenix_multiseed.execution.base.Executor`. The facts of the first GPU, and all GPUs' names."""
        ready = [gpu for gpu in self._gpus.values() if gpu.loaded is not None]
        if not ready or ready[0].loaded is None:
            raise RuntimeError("load() comes before facts()")
        names = ("host", "device", "gpu", "driver")
        gpus = [{name: gpu.loaded.facts[name] for name in names if name in gpu.loaded.facts} for gpu in ready]  # type: ignore[union-attr]
        return {**ready[0].loaded.facts, "device": f"{len(self._gpus)} GPUs", "gpus": gpus}

    # Processes

    @property
    def _is_ready(self) -> bool:
        return any(gpu.loaded is not None for gpu in self._gpus.values())

    def _too_large(self, tasks: Sequence[Task]) -> list[str]:
        """Return the refusal of each job that is too large for every GPU that is ready."""
        kinds = {(gpu.loaded.planner, gpu.loaded.budget) for gpu in self._gpus.values() if gpu.loaded is not None}
        problems = []
        for task in tasks:
            refusals = [planner.refusal(_minimum_sizes(task.job), budget) for planner, budget in kinds]
            if refusals and all(refusals):
                problems.append(f"{task.job.where}: {refusals[0]}")
        return problems

    def _start_new(self) -> None:
        """Start a process at each place that has none: new nodes, and places where it is time to try again."""
        assert self._cluster is not None
        taken = {gpu.place for gpu in self._gpus.values()}
        now = time.monotonic()
        for place in self._cluster.places():
            slot = self._slots.setdefault(place, _Slot(restart_at=0.0))
            if place in taken or slot.is_left_out or now < slot.restart_at:
                continue
            slot.restart_at = float("inf")
            gpu = _Gpu(self._n_gpu, place, self._cluster.start(place))
            self._n_gpu += 1
            self._gpus[gpu.number] = gpu
            self._ask(gpu, "load")

    def _ask(self, gpu: _Gpu, method: str, *arguments: Any, about: Any = None) -> None:
        """Call a method of a process. Its answer arrives in the queue."""
        assert self._cluster is not None
        future = self._cluster.call(gpu.handle, method, *arguments)
        future.add_done_callback(lambda done: self._answers.put((gpu, method, about, done)))

    def _end(self, gpu: _Gpu, *, is_stuck: bool = False) -> None:
        assert self._cluster is not None
        del self._gpus[gpu.number]
        self._cluster.kill(gpu.handle, gpu.place, gpu.loaded.process if gpu.loaded and is_stuck else None)

    def _step(self) -> Iterator[Event]:
        """Wait for an answer, and handle all that have come. Look after processes and nodes from time to time."""
        answers = []
        try:
            answers.append(self._answers.get(timeout=_POLL_SECONDS))
            while True:
                answers.append(self._answers.get_nowait())
        except Empty:
            pass
        for gpu, method, about, future in answers:
            if self._gpus.get(gpu.number) is gpu:
                yield from self._answered(gpu, method, about, future)
        if time.monotonic() > self._looked + NODES_SECONDS and not self._is_closing:
            self._looked = time.monotonic()
            for gpu in list(self._gpus.values()):
                if (reason := self._stuck(gpu)) is not None:
                    yield from self._lost(gpu, reason, is_stuck=True)
            self._start_new()

    def _answered(self, gpu: _Gpu, method: str, about: Any, future: "Future[Any]") -> Iterator[Event]:
        gpu.answered = time.monotonic()
        try:
            answer = future.result()
        except Exception as error:  # the process ended, or its node, or it raised an error that it must not raise
            yield from self._lost(gpu, _reason(error))
            return
        if method == "load":
            if isinstance(answer, str):
                self._refusals.append(answer)
                yield from self._lost(gpu, answer)
                return
            gpu.loaded, gpu.moved = answer, time.monotonic()
            self._schedule.add(gpu.number)
            self._ask(gpu, "collect", 0, COLLECT_SECONDS)
        elif method == "collect":
            gpu.n_received += len(answer)
            if answer:
                gpu.moved = time.monotonic()
            for message in answer:
                yield from self._received(gpu, message)
                if gpu.number not in self._gpus:
                    return
            self._ask(gpu, "collect", gpu.n_received, COLLECT_SECONDS)
        elif method == "take_back":
            gpu.is_giving_back = False
            job: int = about
            for seed in answer:
                self._finished(gpu, job, seed)
            self._schedule.give_back(job, answer)

    def _stuck(self, gpu: _Gpu) -> str | None:
        """Return why the process of a GPU must be killed; None if it works."""
        now, is_loading = time.monotonic(), gpu.loaded is None
        if not is_loading and now > gpu.answered + SILENT_SECONDS:
            return f"the process did not answer for {now - gpu.answered:.0f} s"
        usual = max((self._rate * self._schedule.cost(job) * len(seeds) for job, seeds in gpu.units), default=0.0)
        limit = max(STUCK_SECONDS, STUCK_FACTOR * usual) if self._rate and not is_loading else FIRST_SECONDS
        if (is_loading or gpu.units) and now > gpu.moved + limit:
            return f"{'loading' if is_loading else 'a batch'} made no progress for {now - gpu.moved:.0f} s"
        return None

    def _lost(self, gpu: _Gpu, reason: str, *, is_stuck: bool = False) -> Iterator[Event]:
        """A process has ended or is killed. Its seeds are written, go to other GPUs, or have failed."""
        self._end(gpu, is_stuck=is_stuck)
        self._last_reason = reason
        slot = self._slots[gpu.place]
        slot.deaths += 1
        slot.is_left_out = slot.deaths >= MAX_DEATHS or reason in self._refusals
        slot.restart_at = float("inf") if slot.is_left_out else time.monotonic() + RESTART_SECONDS * 2**slot.deaths
        what = "left out from now on" if slot.is_left_out else "started again"
        yield StageEntered(text=f"lost {gpu.name} ({what}): {reason}")
        if gpu.loaded is None:
            return
        started, waiting = self._schedule.remove(gpu.number)
        if not started and waiting:
            started, waiting = waiting[:1], waiting[1:]  # nothing is known but the order
        for number, seed in started:
            task = self._tasks[number]
            if (written := self._written(task, seed, gpu.name)) is not None:
                yield written
                continue
            self._kills[task.job.name, seed] += 1
            if (kills := self._kills[task.job.name, seed]) < MAX_KILLS:
                self._schedule.give_back(number, [seed], alone=True)
                continue
            message = f"the process that predicted it ended {kills} times, last on {gpu.name}: {reason}"
            advice = "look at the machine's memory and its kernel log; run the same command again to try once more"
            yield Failure(job=task.job, seed=seed, stage="predict", message=message, advice=advice)
        for number, seed in reversed(waiting):
            self._schedule.give_back(number, [seed])

    def _written(self, task: Task, seed: int, where: str) -> Written | None:
        """Return that a seed is written, if the process wrote it before it ended."""
        folder = seed_folder(self._config.out, task.job.name, seed)
        if inspect(folder, task.identity, seed).state != "done":
            return None
        try:
            record, samples = read_seed(folder, task.job.name, seed)
        except DamagedError:
            return None
        scores = tuple(sample.ranking_score for sample in samples)
        seconds = float(record.get("run", {}).get("seconds", 0))
        return Written(job=task.job, seed=seed, scores=scores, seconds=seconds, where=where)

    def _give_up(self) -> Iterator[Event]:
        """No GPU is left: every seed that is left fails."""
        for number, task in enumerate(self._tasks):
            if seeds := self._schedule.drop(number):
                job = replace(task.job, seeds=seeds)
                message = f"no GPU is left to predict it: {self._last_reason}"
                advice = "run the same command again: finished seeds are kept"
                yield Failure(job=job, seed=None, stage="predict", message=message, advice=advice)

    def _close(self) -> None:
        """Begin nothing new. Each process finishes its batch and writes."""
        self._is_closing = True
        for gpu in list(self._gpus.values()):
            if gpu.loaded is None:
                self._end(gpu)
            else:
                self._ask(gpu, "close")

    # Units

    def _feed_all(self) -> None:
        if self._is_closing:
            return
        for gpu in self._gpus.values():
            if gpu.loaded is None:
                continue
            self._feed(gpu)
            if not gpu.units and (move := self._schedule.move(gpu.number)) is not None:
                busy, unit = self._gpus[move[0]], move[1]
                if not busy.is_giving_back:
                    busy.is_giving_back = True
                    name = self._tasks[unit.job].job.name
                    self._ask(busy, "take_back", name, unit.seeds, about=unit.job)

    def _feed(self, gpu: _Gpu) -> None:
        """Hand out units until the GPU has enough that its CPU workers are busy."""
        assert self._gate is not None
        given = []
        while len(gpu.units) < (self._config.workers or 1) + AHEAD:
            unit = self._schedule.next(gpu.number, lambda job: self._n_fit(gpu, job))
            if unit is None:
                break
            task = self._tasks[unit.job]
            admitted = set(self._gate.admit(task.job, unit.seeds))
            for seed in unit.seeds:
                if seed not in admitted:
                    self._schedule.finished(gpu.number, unit.job, seed)
            if admitted:
                gpu.units.append((unit.job, admitted))
                given.append(replace(task, todo=tuple(seed for seed in unit.seeds if seed in admitted)))
        if given:
            gpu.moved = time.monotonic() if len(gpu.units) == len(given) else gpu.moved
            self._ask(gpu, "give", given)

    def _n_fit(self, gpu: _Gpu, number: int) -> int:
        """Return how many seeds of a job a GPU predicts at once; 0 if the job is too large."""
        assert gpu.loaded is not None
        planner, budget = gpu.loaded.planner, gpu.loaded.budget
        job = self._tasks[number].job.name
        key = job, budget >> 28
        if key not in self._fits:
            sizes = self._sizes[job]
            limit = planner.settings.max_seeds
            fits = planner.refusal(sizes, budget) is None
            self._fits[key] = len(planner.plan(sizes, range(limit), budget)[0].seeds) if fits else 0
        return self._fits[key]

    def _finished(self, gpu: _Gpu, number: int, seed: int) -> bool:
        for job, seeds in gpu.units:
            if job == number:
                seeds.discard(seed)
        gpu.units = [unit for unit in gpu.units if unit[1]]
        return self._schedule.finished(gpu.number, number, seed)

    def _received(self, gpu: _Gpu, message: Message) -> Iterator[Event]:
        """Handle a message. Its job has no content, and is replaced by the job of the task."""
        if isinstance(message, Closed):
            gpu.is_closed = True
            if message.reason:
                yield from self._lost(gpu, message.reason)
            return
        job = getattr(message, "job", None)
        if job is None or job.name not in self._numbers:
            return
        number = self._numbers[job.name]
        task = self._tasks[number]
        match message:
            case Started():
                self._schedule.started(gpu.number, number, message.seeds)
            case Written() if self._finished(gpu, number, message.seed):
                self._slots[gpu.place].deaths = 0
                self._rate = max(self._rate, message.seconds / self._schedule.cost(number))
                yield replace(message, job=task.job, where=gpu.name)
            case Failure(seed=None):
                mine = [seed for seed in job.seeds if self._finished(gpu, number, seed)]
                yield replace(message, job=replace(task.job, seeds=(*mine, *self._schedule.drop(number))))
            case Failure(seed=int(seed)) if self._finished(gpu, number, seed):
                yield replace(message, job=task.job)
            case Featurized() if (job.name, "") not in self._notes:
                self._notes.add((job.name, ""))
                self._sizes[job.name] = Sizes(n_token=message.n_token, n_atom=message.n_atom, n_msa=message.n_msa)
                self._fits = {key: fits for key, fits in self._fits.items() if key[0] != job.name}
                yield replace(message, job=task.job)
            case Note() if (job.name, message.text) not in self._notes:
                self._notes.add((job.name, message.text))
                yield replace(message, job=task.job)
            case BatchProgress():
                yield replace(message, job=task.job)


def _minimum_sizes(job: Job) -> Sizes:
    return Sizes(n_token=job.n_token, n_atom=job.n_token, n_msa=1)


def _cost(n_token: int) -> int:
    """Return the relative time of one seed. It follows the measured times of 120 to 2,000 tokens within a third."""
    return n_token**2 + 100 * n_token + n_token**3 // 1500


def _reason(error: BaseException) -> str:
    """Return the first sentence of an error of Ray, which has many lines."""
    text = " ".join(str(error).split())
    return text.partition(". ")[0][:300] or type(error).__name__
