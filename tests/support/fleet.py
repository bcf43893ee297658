"""A cluster without Ray: each GPU's process is a thread that behaves as its machine says."""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

from protenix_multiseed.events import Featurized, Written
from protenix_multiseed.execution.fleet import Place
from protenix_multiseed.execution.gpu_worker import Closed, Loaded, Started
from protenix_multiseed.types import Failure


class Planner:
    """Three seeds of any job fit, if the job has no more atoms than ``max_atoms``."""

    settings = SimpleNamespace(max_seeds=4, max_entries=20)

    def __init__(self, max_jobs=1, max_atoms=10**9):
        self.max_jobs, self.max_atoms = max_jobs, max_atoms

    def refusal(self, sizes, budget):
        return f"{sizes.n_atom} atoms are too many" if sizes.n_atom > self.max_atoms else None

    def may_share(self, jobs, budget):
        return len(jobs) <= self.max_jobs and sum(count for _, count in jobs) <= self.settings.max_entries

    def plan(self, sizes, seeds, budget):
        return [SimpleNamespace(seeds=tuple(seeds)[:3])]


class Machines:
    """See :class:`protenix_multiseed.execution.fleet.Machines`.

    Args:
        n_gpu: Number of GPUs, one on each node.
        deadly: Seeds that end their process.
        hanging: Numbers of processes, in the order of their start, that stand still when they get work.
        broken: Nodes on which no process loads.
        max_jobs: Number of jobs that share a batch.
        atoms: Number of atoms of jobs, by name; a process knows it when it has featurized the job.
        max_atoms: Number of atoms that fit on the GPU of a node, by node; no limit on the others.
        lacking: Nodes on which no job can be featurized.

    Attributes:
        given: The tasks of each call of ``give``, and those of them that must be alone.
        examples: Name and seeds of the job that each process got for practice, or None.
    """

    def __init__(
        self, n_gpu, deadly=(), hanging=(), broken=(), seconds=0.0, max_jobs=1, atoms=None, max_atoms=None, lacking=()
    ):
        self.max_jobs, self.given, self.examples = max_jobs, [], []
        self.atoms, self.max_atoms, self.lacking = atoms or {}, max_atoms or {}, lacking
        self.nodes = {f"node{number}" for number in range(n_gpu)}
        self.deadly, self.hanging, self.broken, self.seconds = deadly, hanging, broken, seconds
        self.differing = {}
        self.processes, self.written, self.killed = [], [], 0
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(200)

    def places(self):
        return [Place(node, node, 0) for node in sorted(self.nodes)]

    def start(self, place):
        process = Process(self, place, len(self.processes))
        self.processes.append(process)
        return process

    def call(self, process, method, *arguments):
        made = Future()

        def run():
            try:
                value = getattr(process, method)(*arguments)
            except Exception as error:
                made.set_exception(error)
            else:
                made.set_result(value)

        self.pool.submit(run)
        return made

    def kill(self, process, place, number):
        self.killed += 1
        process.die("killed by the run")

    def close(self):
        for process in self.processes:
            process.die("the end")
        self.pool.shutdown(wait=True)


class Process:
    def __init__(self, machines, place, number):
        self.machines, self.place, self.number = machines, place, number
        self.changed = threading.Condition()
        self.todo, self.messages, self.death = deque(), deque(), None
        self.n_taken, self.is_closed = 0, False
        self.planner = Planner(machines.max_jobs, machines.max_atoms.get(place.node, 10**9))

    def die(self, reason):
        with self.changed:
            self.death = self.death or reason
            self.changed.notify_all()

    def check_alive(self):
        if self.death is not None:
            raise RuntimeError(f"The process died: {self.death}. More lines")

    def check(self, shared):
        self.check_alive()
        return self.machines.differing.get(self.place.node, [])

    def load(self, example):
        self.machines.examples.append(example and (example.name, example.seeds))
        if self.place.node in self.machines.broken:
            self.die("no memory to load")
        self.check_alive()
        threading.Thread(target=self.work, daemon=True).start()
        return Loaded(planner=self.planner, budget=2**30, process=1, facts={"host": self.place.host, "device": "fake"})

    def give(self, tasks, alone):
        with self.changed:
            self.check_alive()
            self.machines.given.append(([(task.job.name, *task.todo) for task in tasks], set(alone)))
            self.todo.extend((task.job, seed) for task in tasks for seed in task.todo)
            self.changed.notify_all()

    def take_back(self, wanted):
        with self.changed:
            self.check_alive()
            free = [
                [(one, seed) for one, seed in self.todo if one.name == job and seed in seeds] for job, seeds in wanted
            ]
            for entry in (entry for entries in free for entry in entries):
                self.todo.remove(entry)
            return [[seed for _, seed in entries] for entries in free]

    def collect(self, n_received, seconds):
        with self.changed:
            while self.n_taken < n_received:
                self.messages.popleft()
                self.n_taken += 1
            self.changed.wait_for(lambda: self.messages or self.death is not None, timeout=seconds)
            self.check_alive()
            return list(self.messages)

    def close(self):
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def abandon(self):
        pass

    def say(self, message):
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.todo or self.is_closed or self.death is not None)
                if self.death is not None:
                    return
                if self.is_closed:
                    break
                job, seed = self.todo.popleft()
                if self.place.node in self.machines.lacking:
                    seeds = [seed, *(other for one, other in self.todo if one.name == job.name)]
                    self.todo = deque(entry for entry in self.todo if entry[0].name != job.name)
                    failed = Failure(
                        job=replace(job, seeds=tuple(seeds)), seed=None, stage="featurize", message="a file is missing"
                    )
                    self.messages.append(failed)
                    continue
                n_atom = self.machines.atoms.get(job.name, 1)
                self.messages.append(Featurized(job=job, n_token=1, n_atom=n_atom, n_msa=1, n_chain=1, seconds=0.1))
                if (refusal := self.planner.refusal(SimpleNamespace(n_atom=n_atom), 0)) is not None:
                    self.messages.append(Failure(job=job, seed=seed, stage="predict", message=refusal))
                    self.changed.notify_all()
                    continue
                self.messages.append(Started(job, (seed,)))
                self.changed.notify_all()
                if self.number in self.machines.hanging:
                    self.changed.wait_for(lambda: self.death is not None)
                    return
                self.changed.wait_for(lambda: self.death is not None, timeout=self.machines.seconds)
            if seed in self.machines.deadly:
                self.die(f"seed {seed} is deadly")
            with self.machines.lock, self.changed:
                if self.death is not None:
                    return
                self.machines.written.append((job.name, seed))
                self.messages.append(Written(job=job, seed=seed, scores=(0.5,), seconds=0.01))
                self.changed.notify_all()
        self.say(Closed())
