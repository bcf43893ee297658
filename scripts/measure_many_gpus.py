"""Measure what one unit of work (one seed of one job) costs the process that hands out the work of many GPUs.

Examples:
    python scripts/measure_many_gpus.py run --units 100000 --gpus 1000   # whole runs, on GPUs that answer at once
    python scripts/measure_many_gpus.py calls                            # calls of Ray, to processes on this machine
    python scripts/measure_many_gpus.py simulate --gpus 1000 --units 1000000 --cost-us 500   # with the measured sum
    python scripts/measure_many_gpus.py open --units 100000              # a folder of finished units, made by copying
"""

import argparse
import heapq
import json
import os
import pickle
import random
import resource
import shutil
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.events import Watchers, Written
from protenix_multiseed.execution import ray as executor
from protenix_multiseed.execution.fleet import Place
from protenix_multiseed.execution.gpu_worker import Loaded, Started, light
from protenix_multiseed.execution.schedule import Schedule
from protenix_multiseed.hashes import sha256
from protenix_multiseed.inputs.dialects import protenix
from protenix_multiseed.inputs.document import Document
from protenix_multiseed.outputs.identity import fingerprint
from protenix_multiseed.outputs.scan import scan
from protenix_multiseed.run.log import EventLog
from protenix_multiseed.run.pipeline import run
from protenix_multiseed.run.prepare import make_workers
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Job, Task

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVVHSLAKWKRQTLGQHDFSAGEGLYTHMKALRPDEDR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "calls", "simulate", "open"])
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--batch-seconds", type=float, default=10.0, help="mean time of a batch in the simulation")
    parser.add_argument("--cost-us", type=float, default=500.0, help="time of the handing process for one unit")
    arguments = parser.parse_args()
    made = {"run": measure_run, "calls": measure_calls, "simulate": simulate, "open": measure_open}
    print(json.dumps(made[arguments.what](arguments), indent=2))


def jobs_of(count, seeds):
    content = [
        {"name": f"job{number}", "sequences": [{"proteinChain": {"sequence": SEQUENCE, "count": 1}}]}
        for number in range(count)
    ]
    parsed = protenix.parse(Document(Path("in.json"), json.dumps(content)))
    return [
        Job(
            name=one.name, seeds=tuple(range(1, seeds + 1)), source=Path("in.json"), index=0, spec=one.spec, n_token=105
        )
        for one in parsed
    ]


class _Planner:
    """One seed at a time, so that a unit is one seed."""

    settings, max_jobs = SimpleNamespace(max_seeds=1), 1

    def refusal(self, sizes, budget):
        return None

    def may_share(self, jobs, budget):
        return False

    def plan(self, sizes, seeds, budget):
        return [SimpleNamespace(seeds=tuple(seeds)[:1])]


class _Process:
    """A GPU's process without a GPU: everything that it gets is written at once."""

    def __init__(self):
        self.messages, self.waiting, self.n_taken = deque(), None, 0

    def answer(self, method, arguments):
        made = Future()
        if method == "check":
            made.set_result([])
        elif method == "load":
            made.set_result(Loaded(planner=PLANNER, budget=2**36, process=1, facts={"host": "h", "device": "none"}))
        elif method == "collect":
            while self.n_taken < arguments[0]:
                self.messages.popleft()
                self.n_taken += 1
            self.waiting = made
        elif method == "give":
            for task in arguments[0]:
                for seed in task.todo:
                    self.messages.append(Started(task.job, (seed,)))
                    self.messages.append(Written(job=task.job, seed=seed, scores=(0.5,) * 5, seconds=1.0))
            made.set_result(None)
        else:
            made.set_result([])
        if self.waiting is not None and self.messages:
            waiting, self.waiting = self.waiting, None
            waiting.set_result(list(self.messages))
        return made


PLANNER = _Planner()


class _Machines:
    def __init__(self, count):
        self.count = count

    def places(self):
        return [Place(f"node{number}", f"node{number}", 0) for number in range(self.count)]

    def start(self, place):
        return _Process()

    def call(self, process, method, *arguments):
        return process.answer(method, arguments)

    def kill(self, process, place, number):
        pass

    def close(self):
        pass


def measure_run(arguments):
    """Whole runs: schedule, claims, messages, log, record. Bytes are those of the messages, and memory per unit."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        Path("in.json").write_text("[]")
        config = load_config({"model": "demo", "device": "cpu", "gpus": "2", "out": Path("out"), "workers": 2})
        jobs = jobs_of(arguments.jobs, arguments.units // arguments.jobs)
        tasks = [Task(job=job, identity=identity_of(job), todo=job.seeds) for job in jobs]
        executor.connect = lambda config: _Machines(arguments.gpus)
        before, started = memory(), time.process_time()
        with Signals(1.0) as signals, EventLog(Path("log"), None, as_json=False) as log:
            result = RunResult.begin(tasks)
            for _ in run(config, tasks, make_workers(config), Watchers(log), signals, result):
                pass
        seconds, n_unit = time.process_time() - started, sum(len(job.seeds) for job in jobs)
        assert result.n_done == n_unit
        job = replace(jobs[0], seeds=(1,))
        given = Task(job=job, identity=tasks[0].identity, todo=(1,))
        written = light(Written(job=job, seed=1, scores=(0.5,) * 5, seconds=1.0))
        return {
            "units": n_unit,
            "gpus": arguments.gpus,
            "us_per_unit": round(1e6 * seconds / n_unit, 1),
            "memory_bytes_per_unit": round((memory() - before) / n_unit),
            "bytes_given_per_unit": len(pickle.dumps(given)),
            "bytes_received_per_unit": len(pickle.dumps(written)),
        }


def identity_of(job):
    return {"model": "demo", "checkpoint_sha256": None, "job": job.name, "settings": {"steps": 200, "cycles": 10}}


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_calls(arguments):
    """The processor time of a call of Ray and of its answer in the calling process."""
    from protenix_multiseed.execution import ray_connection

    ray_connection.import_ray(is_local=True)
    ray = ray_connection.ray
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    class Answering:
        def answer(self, given):
            return given

    actor = ray.remote(Answering).remote()
    message = os.urandom(2000)
    ray.get(actor.answer.remote(message))
    answered = []
    started, wall, count = time.process_time(), time.perf_counter(), arguments.units
    for _ in range(count):
        actor.answer.remote(message).future().add_done_callback(lambda done: answered.append(done.result()))
        while len(answered) < _ - 100:
            time.sleep(0.001)
    while len(answered) < count:
        time.sleep(0.001)
    made = {
        "calls": count,
        "us_per_call": round(1e6 * (time.process_time() - started) / count, 1),
        "wall_us_per_call": round(1e6 * (time.perf_counter() - wall) / count, 1),
    }
    ray.shutdown()
    return made


def simulate(arguments):
    """Discrete events: GPUs that compute batches, and one process that needs ``cost_us`` for each unit.

    A unit is a batch. A GPU waits when it has none. The handing process does one thing after the other: it receives
    what a GPU has finished, and gives it the next unit.
    """
    generator, depth = random.Random(0), 4
    schedule = Schedule([(1, range(arguments.units))])
    cost, n_gpu = arguments.cost_us * 1e-6, arguments.gpus
    queues = [0] * n_gpu
    idle_since = [0.0] * n_gpu
    waited = worked = driver_free = 0.0
    events = []  # (time, what, gpu)
    held = [deque() for _ in range(n_gpu)]
    last_give = 0.0

    def give(now, gpu):
        nonlocal driver_free
        driver_free = max(driver_free, now) + cost
        while len(held[gpu]) < depth and (unit := schedule.next(gpu, lambda job: 1)) is not None:
            held[gpu].append(unit.seeds[0])
            heapq.heappush(events, (driver_free, 1, gpu))

    for gpu in range(n_gpu):
        schedule.add(gpu)
    for gpu in range(n_gpu):
        give(0.0, gpu)
    busy = [False] * n_gpu

    def begin(now, gpu):
        nonlocal waited, worked
        waited += now - idle_since[gpu]
        seconds = arguments.batch_seconds * generator.uniform(0.5, 1.5)
        worked += seconds
        busy[gpu] = True
        queues[gpu] -= 1
        heapq.heappush(events, (now + seconds, 0, gpu))

    started = time.process_time()
    now = 0.0
    while events:
        now, what, gpu = heapq.heappop(events)
        if what == 1:
            queues[gpu] += 1
            last_give = now
            if not busy[gpu]:
                begin(now, gpu)
            continue
        busy[gpu], idle_since[gpu] = False, now
        schedule.finished(gpu, 0, held[gpu].popleft())
        if queues[gpu]:
            begin(now, gpu)
        give(now, gpu)
    assert schedule.is_done
    return {
        "gpus": n_gpu,
        "units": arguments.units,
        "hours": round(now / 3600, 2),
        "waiting_share_percent": round(100 * waited / (waited + worked), 4),
        "handing_process_busy_percent": round(100 * arguments.units * cost / last_give, 2),
        "idle_at_the_end_percent": round(100 * (1 - (waited + worked) / (now * n_gpu)), 4),
        "us_per_unit_of_the_simulation": round(1e6 * (time.process_time() - started) / arguments.units, 1),
    }


def measure_open(arguments):
    """Find what is left in a folder of finished units. Each unit has the files of one seed with five samples."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        jobs = jobs_of(arguments.jobs, arguments.units // arguments.jobs)
        identities = {job.name: identity_of(job) for job in jobs}
        first = None
        for job in jobs:
            for seed in job.seeds:
                folder = out / job.name / f"seed_{seed}"
                if first is None:
                    first = folder
                    make_seed(folder, job)
                else:
                    shutil.copytree(first, folder)
                content = json.loads((first / "record.json").read_text())
                identity = identities[job.name]
                record = content | {"seed": seed, "made_from": identity, "fingerprint": fingerprint(identity, seed)}
                (folder / "record.json").write_text(json.dumps(record, indent=2))
        config = load_config({"model": "demo", "out": out})
        before, started = memory(), time.perf_counter()
        found = scan(jobs, identities, config.folder_settings)
        seconds = time.perf_counter() - started
        assert found.n_todo == 0
        return {
            "units": found.n_done,
            "seconds": round(seconds, 2),
            "ms_per_unit": round(1e3 * seconds / found.n_done, 3),
            "memory_bytes_per_unit": round((memory() - before) / found.n_done),
        }


def make_seed(folder, job):
    """Write files of the sizes that five samples of a small protein have."""
    predictions = folder / "predictions"
    predictions.mkdir(parents=True)
    for sample in range(5):
        (predictions / f"{job.name}_sample_{sample}.cif").write_text("x" * 100)
        (predictions / f"{job.name}_summary_confidence_sample_{sample}.json").write_text("{}" + " " * 1000)
    (folder / "compact.npz").write_bytes(bytes(4000))
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in folder.rglob("*")
        if file.is_file()
    }
    chains = [{"chain": "A", "index": 0, "entity": 1, "copy": 1, "kind": "polypeptide(L)", "residues": 105}]
    stages = dict.fromkeys(("inputs", "trunk", "conditioning", "sample", "score"), 1.0)
    record = {"job": job.name, "seed": 1, "run": {"stage_seconds": stages}, "chains": chains, "files": files}
    (folder / "record.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
