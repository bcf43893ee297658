"""The executor for several GPUs, of one machine or of a Ray cluster.

Each GPU has a process (:mod:`protenix_multiseed.execution.gpu_worker`) that predicts and writes. The run hands out
units (:mod:`protenix_multiseed.execution.schedule`), receives small messages, and never sees features or predictions.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, Stopped
from protenix_multiseed.events import BatchProgress, Event, Featurized, Note, StageEntered, Watcher, Written
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.capacity import Capacity, cost, too_large
from protenix_multiseed.execution.fleet import Answer, Fleet, Gpu, Lost
from protenix_multiseed.execution.gpu_worker import Closed, Message, Started
from protenix_multiseed.execution.ray_cluster import connect
from protenix_multiseed.execution.schedule import Schedule
from protenix_multiseed.execution.shared import describe, marked
from protenix_multiseed.execution.writing import found_written
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.outputs.locks import LOCK_FILE
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.types import Failure, Job, Sizes, Task

MAX_KILLS = 3  # a seed whose process ends this often is a failure
CHECK_SECONDS = 120.0  # until a run begins without the GPUs that have not answered
COLLECT_SECONDS = 10.0  # a process answers at least this often
_ADVICE = "look at the memory and the kernel log of the machine, then run the same command again: done seeds are kept"
WAITING_SECONDS = 30.0  # of work that waits at a GPU; more, if features take longer
WRITE_SECONDS = 120.0  # from the end of the grace time until all processes must have written what is finished


class RayExecutor:
    """See :class:`protenix_multiseed.execution.base.Executor`. The CPU workers of this process only rank."""

    def __init__(self, config: RunConfig, workers: WorkerPool, tell: Watcher) -> None:
        self._config, self._workers, self._tell = config, workers, tell
        self._mark, self._opened = ExitStack(), ExitStack()
        self._refusals, self._differing = list[str](), list[str]()
        self._slowest, self._fastest = 0.0, float("inf")  # seconds per cost that were seen
        self._features_seconds = 0.0  # the slowest features that were seen
        self._kills: Counter[tuple[str, int]] = Counter()
        self._tried: set[tuple[int, int]] = set()  # job and seed that a process had when it ended
        self._told: set[tuple[str, str]] = set()  # job and text of notes that were shown
        self._capacity, self._schedule = Capacity(()), Schedule(())
        self._tasks: Sequence[Task] = ()
        self._numbers: dict[str, int] = {}
        self._round = 0  # counts calls of predict(): each has its own numbers of jobs
        self._scored: set[int] = set()  # jobs with a new score, which may need no more seeds
        self._hungry: set[int] = set()  # numbers of GPUs that may take more units
        self._is_closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark.close()
        self._opened.close()

    def load(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> None:
        """Start a process for each GPU, and wait until one is ready.

        Raises:
            ConfigError: if no process starts, or a job is too large for all GPUs.
            Stopped: if ``should_stop`` returns True meanwhile.
        """
        self._tasks = tasks
        self._tell(StageEntered(text="starting Ray"))
        cluster = connect(self._config)
        self._opened.callback(cluster.close)
        mark = self._mark.enter_context(marked(self._config.out))
        fleet = self._fleet = Fleet(cluster, describe(self._config, tasks, mark))
        self._opened.callback(fleet.end_all)
        fleet.start_new()
        hosts = len({gpu.place.node for gpu in fleet.gpus.values()})
        self._tell(StageEntered(text=f"loading {self._config.model} on {len(fleet.gpus)} GPUs of {hosts} machines"))
        late = time.monotonic() + CHECK_SECONDS

        def is_waiting() -> bool:
            checked = {gpu.is_checked for gpu in fleet.gpus.values()}
            return False in checked and not (True in checked and time.monotonic() > late)

        self._wait(is_waiting, should_stop)
        if self._differing:
            raise ConfigError("\n".join(dict.fromkeys(self._differing)))
        if silent := [gpu.name for gpu in fleet.gpus.values() if not gpu.is_checked]:
            self._tell(Note(job=None, text=f"the run begins without {', '.join(silent)}: no answer yet"))
        self._wait(lambda: not fleet.ready, should_stop)
        while problems := too_large(tasks, fleet.kinds):
            if len(fleet.ready) == len(fleet.gpus):
                raise ConfigError("\n".join(problems))
            count = len(fleet.ready)
            self._wait(lambda: not fleet.ready or len(fleet.ready) == count < len(fleet.gpus), should_stop)  # noqa: B023  called at once
        self._tell(StageEntered(text=f"predicting on {len(fleet.gpus)} GPUs"))

    def predict(self, tasks: Sequence[Task], gate: Gate) -> Iterator[Event]:
        """Predict tasks on all GPUs. Each seed comes once, as a Written or a Failure."""
        fleet, self._tasks = self._fleet, tasks
        locks = self._config.out.absolute() / RUN_FOLDER / LOCK_FILE  # nodes that join must find this file
        if locks.is_file():
            fleet.shared = replace(fleet.shared, mark=locks, inode=locks.stat().st_ino)
            if all(gpu.is_checked for gpu in fleet.gpus.values()):  # else one may still look for the mark
                self._mark.close()
        self._numbers = {task.job.name: number for number, task in enumerate(tasks)}
        self._capacity, self._tried, self._scored = Capacity(tasks), set(), set()
        self._round += 1
        self._schedule = Schedule((cost(task.job.n_token), task.todo) for task in tasks)
        for gpu in fleet.ready:
            self._schedule.add(gpu.number)
        self._hungry = set(fleet.gpus)
        last = float("inf")
        while not self._schedule.is_done:
            if gate.is_closed and not self._is_closing:
                self._is_closing = True
                fleet.close()
            if gate.time_is_up and last == float("inf"):
                last = time.monotonic() + WRITE_SECONDS
                for gpu in fleet.gpus.values():
                    fleet.ask(gpu, "abandon")
            if self._is_closing and (all(gpu.is_closed for gpu in fleet.gpus.values()) or time.monotonic() > last):
                return
            if fleet.is_hopeless:
                yield from self._give_up()
                return
            self._schedule.n_expected = len(fleet.gpus)
            if not self._is_closing:
                for gpu in (fleet.gpus[number] for number in self._hungry if number in fleet.gpus):
                    yield from self._feed(gpu, gate)
                self._recall(gate)
            self._hungry.clear()
            if not any(gpu.units for gpu in fleet.gpus.values()):
                yield from self._fail_if_nowhere(range(len(tasks)))
            yield from self._step()

    def facts(self) -> Mapping[str, Any]:
        """See :class:`protenix_multiseed.execution.base.Executor`."""
        return self._fleet.facts()

    # Processes

    def _wait(self, is_waiting: Callable[[], bool], should_stop: Callable[[], bool]) -> None:
        """Handle answers while loading. Raises the errors of :meth:`load`."""
        while is_waiting():
            if should_stop():
                raise Stopped
            if self._fleet.is_hopeless:
                raise ConfigError("\n".join(dict.fromkeys(self._refusals)) or self._fleet.last_reason)
            for event in self._step():
                self._tell(event)

    def _step(self) -> Iterator[Event]:
        """Wait for an answer, and handle all that have come. Look after processes and nodes from time to time."""
        fleet = self._fleet
        for answer in fleet.answers():
            if answer.gpu.number in fleet.gpus:  # it may have been lost by the answer before
                yield from self._answered(answer)
        if self._is_closing or not fleet.is_time_to_look():
            return
        for gpu in list(fleet.gpus.values()):
            usual = [self._slowest * self._schedule.cost(job) * len(seeds) for job, seeds in gpu.units]
            if (reason := fleet.stuck(gpu, usual)) is not None:
                yield from self._lost(gpu, reason, is_stuck=True)
        fleet.start_new()

    def _answered(self, answer: Answer) -> Iterator[Event]:
        gpu, value = answer.gpu, answer.value
        self._hungry.add(gpu.number)
        match answer.method:
            case _ if isinstance(value, Lost):
                yield from self._lost(gpu, value.reason)
            case "check" if value:
                differing = [f"{gpu.place.host}: {difference}" for difference in value]
                self._differing += differing
                yield from self._lost(gpu, "; ".join(differing), is_final=True)
            case "check":
                gpu.is_checked = True
                self._fleet.ask(gpu, "load", self._example(gpu.number))
            case "load" if isinstance(value, str):
                self._refusals.append(value)
                yield from self._lost(gpu, value, is_final=True)
            case "load":
                gpu.loaded, gpu.moved = value, self._fleet.now
                self._schedule.add(gpu.number)
                self._fleet.ask(gpu, "collect", 0, COLLECT_SECONDS)
            case "collect":
                gpu.n_received += len(value)
                gpu.moved = self._fleet.now if value else gpu.moved
                for message in value:
                    yield from self._received(gpu, message)
                if gpu.number in self._fleet.gpus:
                    self._fleet.ask(gpu, "collect", gpu.n_received, COLLECT_SECONDS)
            case "take_back":
                gpu.is_giving_back = False
                asked_in, jobs = answer.about
                for job, seeds in zip(jobs, value, strict=True) if asked_in == self._round else ():
                    # A failure that came meanwhile may have taken some of them from the GPU already.
                    self._schedule.give_back(job, [seed for seed in seeds if self._finished(gpu, job, seed)])
                self._hungry.update(self._fleet.gpus)

    def _lost(self, gpu: Gpu, reason: str, *, is_stuck: bool = False, is_final: bool = False) -> Iterator[Event]:
        """A process has ended or is killed. Its seeds are written, go to other GPUs, or have failed.

        No seed is blamed if the whole node was taken away.
        """
        text = self._fleet.lose(gpu, reason, is_stuck=is_stuck, is_final=is_final)
        yield Note(job=None, text=text, lost=gpu.name)
        if not self._fleet.gpus and not self._fleet.is_hopeless:
            yield StageEntered(text="no GPU is left; waiting for one to come back")
        if gpu.loaded is None:
            return
        started, waiting = self._schedule.remove(gpu.number)
        if not started and waiting:
            started, waiting = waiting[:1], waiting[1:]  # nothing is known but the order
        self._tried.update(started, waiting)
        is_gone = self._fleet.is_gone(gpu)
        for number, seed in reversed(started):  # each goes in front of the others
            task = self._tasks[number]
            if (written := found_written(self._config.out, task, seed, gpu.name)) is not None:
                self._fleet.forgive(gpu)
                yield written
                continue
            if is_gone:
                self._schedule.give_back(number, [seed])
                continue
            self._kills[task.job.name, seed] += 1
            if (kills := self._kills[task.job.name, seed]) < MAX_KILLS:
                self._schedule.give_back(number, [seed], alone=True)
                continue
            message = f"the process that predicted it ended {kills} times, last on {gpu.name}: {reason}"
            yield Failure(job=task.job, seed=seed, stage="predict", message=message, advice=_ADVICE)
        for number, seed in reversed(waiting):
            self._schedule.give_back(number, [seed])
        self._hungry.update(self._fleet.gpus)

    def _give_up(self) -> Iterator[Event]:
        """No GPU is left: every seed that is left fails."""
        for number, task in enumerate(self._tasks):
            if seeds := self._schedule.drop(number):
                job = replace(task.job, seeds=seeds)
                message = f"no GPU is left to predict it: {self._fleet.last_reason}"
                yield Failure(job=job, seed=None, stage="predict", message=message, advice=_ADVICE)

    # Units

    def _example(self, number: int) -> Job | None:
        """Return a job that a process featurizes for practice while it loads; None once units are handed out.

        It is one of the first jobs, with one seed, so that its alignments are in the cache when a GPU gets it.
        """
        task = self._tasks[number % len(self._tasks)]
        if self._numbers or task.job.spec.has_constraint or self._config.feature_settings.guidance:
            return None  # features of those two do not come from the cache
        return replace(task.job, seeds=task.todo[:1])

    def _feed(self, gpu: Gpu, gate: Gate) -> Iterator[Event]:
        """Hand out units, enough to keep the GPU's CPU workers busy. If none is left, another GPU gives some back.

        Jobs that share a batch are handed out together: if two GPUs got every other job, batches would be padded more.
        """
        if (loaded := gpu.loaded) is None:
            return
        batch = list[tuple[int, int]]()  # job and number of seeds of the last units, which will be one batch
        given, alone, fits = list[Task](), set[tuple[str, int]](), partial(self._most, gpu)
        n_worker = self._config.workers or 1

        def has_room() -> bool:
            enough, waiting = max(WAITING_SECONDS, self._features_seconds), self._schedule.waiting(gpu.number)
            is_enough = self._fastest * waiting >= enough if self._slowest else None
            return self._capacity.has_room(gpu.units, loaded.planner, n_worker, is_enough)

        def joins_batch() -> bool:
            first = self._schedule.first(fits) if batch else None
            if first is None:
                return False
            job, most = first
            return self._capacity.may_share([*batch, (job, min(most, len(self._schedule.left(job))))], loaded)

        while (joins := joins_batch()) or has_room():
            if (unit := self._schedule.next(gpu.number, fits)) is None:
                break
            batch = [*(batch if joins else ()), (unit.job, len(unit.seeds))]
            task = self._tasks[unit.job]
            tried = [seed for seed in unit.seeds if (unit.job, seed) in self._tried]  # their processes ended silently
            found = {seed: found_written(self._config.out, task, seed, gpu.name) for seed in tried}
            yield from filter(None, found.values())
            admitted = gate.admit(task.job, [seed for seed in unit.seeds if found.get(seed) is None])
            for seed in unit.seeds:
                if seed not in admitted:
                    self._schedule.finished(gpu.number, unit.job, seed)
            if admitted:
                gpu.units.append((unit.job, set(admitted)))
                alone.update((task.job.name, seed) for seed in admitted if unit.is_alone)
                seeds = tuple(admitted)  # and not all seeds of the job, which may be many
                given.append(replace(task, job=replace(task.job, seeds=seeds), todo=seeds))
        if given:
            gpu.moved = self._fleet.now if len(gpu.units) == len(given) else gpu.moved  # it had nothing to do
            self._fleet.ask(gpu, "give", given, alone)
        elif not gpu.units and (move := self._schedule.move(gpu.number, fits)) is not None:
            number, units = move
            self._ask_back(self._fleet.gpus[number], [(unit.job, unit.seeds) for unit in units])

    def _ask_back(self, gpu: Gpu, units: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Ask a GPU for seeds of jobs that it has not begun, unless it still has to answer such a call."""
        if not gpu.is_giving_back:
            gpu.is_giving_back = True
            wanted = [(self._tasks[job].job.name, seeds) for job, seeds in units]
            self._fleet.ask(gpu, "take_back", wanted, about=(self._round, [job for job, _ in units]))

    def _recall(self, gate: Gate) -> None:
        """Take the seeds back that no GPU has begun, of jobs that need no more. The gate then skips them."""
        for number in list(self._scored):
            held = []
            if gate.needs_no_more(self._tasks[number].job):
                not_begun = ((gpu, self._schedule.not_begun(gpu.number, number)) for gpu in self._fleet.ready)
                held = [(gpu, seeds) for gpu, seeds in not_begun if seeds]
            for gpu, seeds in held:
                self._ask_back(gpu, [(number, seeds)])
            if not held:
                self._scored.discard(number)

    def _most(self, gpu: Gpu, number: int) -> int:
        """Return how many seeds of a job a GPU predicts at once; 0 if it cannot predict the job, or has not loaded."""
        return 0 if gpu.loaded is None else self._capacity.seeds(number, gpu.loaded, gpu.place.node)

    def _give_elsewhere(self, number: int, seeds: Sequence[int]) -> Iterator[Event]:
        """Other GPUs predict seeds that one cannot predict. If none can, the job fails."""
        self._schedule.give_back(number, seeds)
        self._hungry.update(self._fleet.gpus)
        yield from self._fail_if_nowhere([number])

    def _fail_if_nowhere(self, numbers: Iterable[int]) -> Iterator[Event]:
        """Of these jobs, those that no GPU can predict fail. Nothing is decided while a GPU may still come."""
        gpus = self._fleet.ready
        loaded = [gpu.loaded for gpu in gpus if gpu.loaded is not None]
        if not loaded or len(gpus) < len(self._fleet.gpus) or self._fleet.may_grow:
            return
        for number in numbers:
            if self._schedule.left(number) and not any(self._most(gpu, number) for gpu in gpus):
                failure = self._capacity.failure(self._tasks[number], number, loaded[0])
                yield replace(failure, job=replace(self._tasks[number].job, seeds=self._schedule.drop(number)))

    def _finished(self, gpu: Gpu, number: int, seed: int) -> bool:
        for job, seeds in gpu.units:
            if job == number:
                seeds.discard(seed)
        gpu.units = [unit for unit in gpu.units if unit[1]]
        return self._schedule.finished(gpu.number, number, seed)

    def _received(self, gpu: Gpu, message: Message) -> Iterator[Event]:
        """Handle a message. Its job has no content, and is replaced by the job of the task."""
        if isinstance(message, Closed):
            gpu.is_closed = True
            if message.reason:
                yield from self._lost(gpu, message.reason)
            return
        job = getattr(message, "job", None)
        if isinstance(message, Note) and job is None:
            yield from self._note(None, message.text)
        if job is None or job.name not in self._numbers:
            return
        number = self._numbers[job.name]
        task = self._tasks[number]
        match message:
            case Started():
                self._schedule.started(gpu.number, number, message.seeds)
                with suppress(ConfigError):  # without workers, this process ranks at the end
                    self._workers.start()  # now a GPU has work, and no features wait for the processors
            case Written() if self._finished(gpu, number, message.seed):
                self._fleet.forgive(gpu)
                rate = message.seconds / self._schedule.cost(number)
                self._scored.add(number)
                self._slowest, self._fastest = max(self._slowest, rate), min(self._fastest, rate)
                yield replace(message, job=task.job, where=gpu.name)
            case Failure(seed=None):
                mine = [seed for seed in job.seeds if self._finished(gpu, number, seed)]
                self._capacity.bar(number, gpu.place.node, message)
                yield from self._give_elsewhere(number, mine)
                if self._schedule.left(number):
                    text = f"failed on {gpu.place.host}, other machines try it: {message.message}"
                    yield Note(job=task.job, text=text)
            case Failure(seed=int(seed)) if self._finished(gpu, number, seed):
                if self._most(gpu, number):
                    yield replace(message, job=task.job)
                    return
                yield from self._give_elsewhere(number, [seed])  # too large for this GPU, but maybe not for another
            case Featurized() if (job.name, "") not in self._told:
                self._told.add((job.name, ""))
                self._features_seconds = max(self._features_seconds, message.seconds)
                sizes = Sizes(n_token=message.n_token, n_atom=message.n_atom, n_msa=message.n_msa)
                self._capacity.learn(number, sizes)
                yield replace(message, job=task.job)
            case Note():
                yield from self._note(task.job, message.text)
            case BatchProgress():
                yield replace(message, job=task.job, where=gpu.name)

    def _note(self, job: Job | None, text: str) -> Iterator[Note]:
        """Yield a note, unless another process has said the same."""
        key = (job.name if job else "", text)
        if key not in self._told:
            self._told.add(key)
            yield Note(job=job, text=text)
