"""The executor for several GPUs on a cluster of threads: whatever ends or stands still, each seed comes out once."""

import contextlib
import os
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support import fleet as fleet_module
from support.fleet import Machines
from support.jobs import OpenGate, job_of, task_of

pytest.importorskip("ray")

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.events import Featurized, Note, StageEntered, Written
from protenix_multiseed.execution import fleet, ray_cluster, ray_connection
from protenix_multiseed.execution import ray as module
from protenix_multiseed.execution.capacity import Capacity
from protenix_multiseed.execution.fleet import Gpu, Place
from protenix_multiseed.execution.schedule import Schedule
from protenix_multiseed.features.pool import AHEAD
from protenix_multiseed.types import Failure


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(fleet, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fleet, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "COLLECT_SECONDS", 0.2)


def tasks_of(*counts):
    return [
        task_of(job_of(name=f"job{number}", seeds=range(1, count + 1), n_token=10 - number))
        for number, count in enumerate(counts)
    ]


class Run:
    """Outcomes of a whole run."""

    def __init__(self, monkeypatch, tmp_path, machines, tasks, gate=None, during=lambda event: None):
        monkeypatch.setattr(module, "connect", lambda config: machines)
        config = load_config({"model": "demo", "gpus": "2", "device": "cpu", "out": tmp_path / "out", "workers": 1})
        self.lines, self.failures, written = [], [], []
        workers = SimpleNamespace(start=lambda: self.lines.append(f"workers start with {len(written)} written"))
        with module.RayExecutor(config, workers, self.hear) as executor:
            executor.load(tasks, lambda: False)
            for event in executor.predict(tasks, gate or OpenGate()):
                self.hear(event)
                during(event)
                if isinstance(event, Written):
                    written.append((event.job.name, event.seed))
                elif isinstance(event, Failure):
                    self.failures.append(event)
        self.written = written
        failed = [(one.job.name, seed) for one in self.failures for seed in ([one.seed] if one.seed else one.job.seeds)]
        assert max(Counter([*written, *failed]).values(), default=1) == 1, "a seed came out twice"
        self.all = sorted([*written, *failed])

    def hear(self, event):
        if isinstance(event, StageEntered | Note):
            self.lines.append(event.text)


def everything(tasks):
    return sorted((task.job.name, seed) for task in tasks for seed in task.todo)


def test_all_seeds_of_all_jobs_come_once_and_every_gpu_gets_some(monkeypatch, tmp_path):
    machines, tasks = Machines(3, seconds=0.005), tasks_of(20, 7, 1)
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.written
    assert run.all == everything(tasks) == sorted(machines.written)
    assert not run.failures
    assert run.lines[:2] == ["starting Ray", "loading demo on 3 GPUs of 3 machines"]


def test_a_second_call_takes_over_what_another_run_has_left(monkeypatch, tmp_path):
    """Regression: numbers of jobs of the first call were looked up among the jobs of the second."""
    machines, tasks = Machines(2), tasks_of(3, 3, 3, 3, 3)
    monkeypatch.setattr(module, "connect", lambda config: machines)
    config = load_config({"model": "demo", "gpus": "2", "device": "cpu", "out": tmp_path / "out", "workers": 1})
    with module.RayExecutor(config, SimpleNamespace(start=lambda: None), lambda event: None) as executor:
        executor.load(tasks, lambda: False)
        assert sum(isinstance(event, Written) for event in executor.predict(tasks, OpenGate())) == 15
        executor._scored.add(4)  # the last events may end the call before it looks at them
        machines.written.clear()
        again = [replace(tasks[1], todo=(2,))]
        (written,) = (event for event in executor.predict(again, OpenGate()) if isinstance(event, Written))
    assert (written.job.name, written.seed) == ("job1", 2)


def test_workers_begin_with_the_first_batch(monkeypatch, tmp_path):
    """They rank. At the end of the run their start took seconds, in which no GPU had anything to do."""
    run = Run(monkeypatch, tmp_path, Machines(2), tasks_of(3))
    assert run.lines[2:4] == ["predicting on 2 GPUs", "workers start with 0 written"]


def test_a_seed_that_kills_its_process_three_times_fails_alone(monkeypatch, tmp_path):
    tasks = tasks_of(12)
    run = Run(monkeypatch, tmp_path, Machines(2, deadly={5}, seconds=0.05), tasks)
    (failed,) = run.failures
    assert (failed.seed, failed.stage) == (5, "predict")
    assert "the process that predicted it ended 3 times, last on node" in failed.message
    assert "seed 5 is deadly" in failed.message
    assert run.all == everything(tasks)


def test_a_process_that_stands_still_is_killed_and_its_seeds_go_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(fleet, "FIRST_SECONDS", 3.0)
    machines, tasks = Machines(2, hanging={0, 1}), tasks_of(8)
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.all == everything(tasks)
    assert not run.failures
    assert any("a batch made no progress" in line and "it is started again" in line for line in run.lines)


@pytest.mark.parametrize(("rate_known", "silent", "reason"), [
    (True, 0, None), (True, 700, "a batch made no progress for 700 s"), (False, 700, None),
    (False, 4000, "a batch made no progress for 4000 s"),
], ids=str)  # fmt: skip
def test_a_batch_may_take_20_times_its_usual_time_and_at_least_ten_minutes(rate_known, silent, reason):
    made = fleet.Fleet(Machines(1), None)
    gpu = fleet.Gpu(0, None, None, loaded=object(), units=[(0, {1, 2})])
    gpu.moved -= silent
    assert made.stuck(gpu, [30.0 if rate_known else 0.0]) == reason
    gpu.moved = gpu.answered
    gpu.answered -= 200
    assert made.stuck(gpu, []) == "the process did not answer for 200 s"


@pytest.mark.parametrize(("handling", "reason"), [
    ([500.0], None),  # a script that works on one result
    ([5.0] * 170, None),  # at most one second of each counts: answers may still wait in the queue
    ([5.0] * 190, "the process did not answer for 190 s"),
    ([0.5] * 362, "the process did not answer for 181 s"),  # the run's own work counts whole
])  # fmt: skip
def test_a_slow_caller_makes_no_process_look_stuck(monkeypatch, handling, reason):
    seconds = [0.0]
    monkeypatch.setattr(fleet, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    monkeypatch.setattr(fleet, "_POLL_SECONDS", 0.0)
    made = fleet.Fleet(Machines(1), None)
    gpu = fleet.Gpu(0, None, None, loaded=object())
    for one in handling:
        seconds[0] += one
        assert made.answers() == []
    assert made.stuck(gpu, []) == reason


def test_a_gpu_that_never_starts_is_left_out_and_the_others_do_the_work(monkeypatch, tmp_path):
    tasks = tasks_of(200)
    run = Run(monkeypatch, tmp_path, Machines(2, broken={"node0"}, seconds=0.01), tasks)
    assert run.all == everything(tasks)
    assert not run.failures
    (line,) = [line for line in run.lines if "left out" in line]
    assert line == "lost node0 GPU 0 (left out, after 5 times): The process died: no memory to load"


def test_if_no_gpu_starts_the_run_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no memory to load"):
        Run(monkeypatch, tmp_path, Machines(2, broken={"node0", "node1"}), tasks_of(3))


def test_machines_that_differ_are_named_and_refused(monkeypatch, tmp_path):
    machines = Machines(3)
    machines.differing = {"node1": ["torch is 1, and 2 on the machine of the run"], "node2": ["x is missing there"]}
    with pytest.raises(ConfigError) as error:
        Run(monkeypatch, tmp_path, machines, tasks_of(3))
    lines = ["node1: torch is 1, and 2 on the machine of the run", "node2: x is missing there"]
    assert sorted(str(error.value).split("\n")) == lines
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_starts_late_still_finds_the_mark_of_the_output_folder(monkeypatch, tmp_path):
    """Regression: it was compared after the mark was deleted, and its GPU was left out."""
    marks = []

    class Late(Machines):
        def start(self, place):
            process = super().start(place)
            if len(self.processes) == 1:
                process.load = lambda: process.die("a fault") or process.check_alive()
            process.check = lambda shared: marks.append(shared.mark.exists()) or []
            return process

    run = Run(monkeypatch, tmp_path, Late(2), tasks_of(4), during=lambda event: None)
    assert not run.failures
    assert marks
    assert all(marks)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_joins_and_differs_is_left_out_and_said(monkeypatch, tmp_path):
    machines, tasks = Machines(1, seconds=0.02), tasks_of(60)
    machines.differing = {"node7": ["torch is 1"]}
    run = Run(monkeypatch, tmp_path, machines, tasks, during=lambda event: machines.nodes.add("node7"))
    assert len(run.written) == 60
    assert "lost node7 GPU 0 (left out, after 1 times): node7: torch is 1" in run.lines


def test_if_all_gpus_are_lost_the_seeds_that_are_left_fail(monkeypatch, tmp_path):
    machines, tasks = Machines(1, seconds=0.01), tasks_of(50, 3)

    def lose_all(event):
        if isinstance(event, Written):
            machines.broken = {"node0"}
            machines.processes[0].die("the node burns")

    run = Run(monkeypatch, tmp_path, machines, tasks, during=lose_all)
    assert run.all == everything(tasks)
    assert run.written
    assert all("no GPU is left to predict it: The process died" in one.message for one in run.failures)


def test_nodes_that_leave_and_join_during_a_run(monkeypatch, tmp_path):
    machines, tasks = Machines(1, seconds=0.01), tasks_of(120)

    def change(event):
        if len(machines.written) > 20:
            machines.nodes = {"node7"}
            machines.processes[0].die("the node was taken away")

    run = Run(monkeypatch, tmp_path, machines, tasks, during=change)
    assert run.all == everything(tasks)
    assert not run.failures
    assert {process.place.node for process in machines.processes} == {"node0", "node7"}


def test_twenty_random_kills_lose_nothing_and_write_nothing_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(fleet, "MAX_DEATHS", 1000)
    monkeypatch.setattr(module, "MAX_KILLS", 1000)
    machines, tasks = Machines(4, seconds=0.003), tasks_of(300, 200, 100)
    chance = random.Random(1)
    done = threading.Event()
    kills = []

    def kill():
        while not done.wait(0.03) and len(kills) < 20:
            alive = [process for process in machines.processes if process.death is None and process.n_taken]
            if alive:
                with machines.lock:
                    process = chance.choice(alive)
                    process.die("shot")
                    kills.append(process.number)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        run = Run(monkeypatch, tmp_path, machines, tasks)
    finally:
        done.set()
        thread.join()
    assert len(kills) == 20
    assert run.all == everything(tasks)
    assert not run.failures


def test_a_signal_ends_the_run_with_the_running_seeds_written(monkeypatch, tmp_path):
    class Gate(OpenGate):
        is_closed = False

    gate, machines, tasks = Gate(), Machines(2, seconds=0.02), tasks_of(100)

    def stop(event):
        gate.is_closed = gate.is_closed or isinstance(event, Written)

    started = time.monotonic()
    run = Run(monkeypatch, tmp_path, machines, tasks, gate=gate, during=stop)
    assert time.monotonic() - started < 60
    assert 1 <= len(run.written) < 50
    assert sorted(run.written) == sorted(machines.written)


def test_seeds_that_the_gate_does_not_admit_go_to_no_gpu(monkeypatch, tmp_path):
    """As after early stopping: the gate is asked about every seed of the job, whichever GPU would get it."""

    asked = set()

    class Gate(OpenGate):
        def admit(self, job, seeds):
            asked.update(seeds)
            return [seed for seed in seeds if seed <= 12]

    run = Run(monkeypatch, tmp_path, Machines(2), tasks_of(40), gate=Gate())
    assert sorted(asked) == list(range(1, 41))
    assert sorted(run.written) == [("job0", seed) for seed in range(1, 13)]


def test_a_gpu_gets_enough_small_jobs_to_fill_the_running_batch_and_the_next_one(monkeypatch, tmp_path):
    machines, tasks = Machines(1, max_jobs=20), tasks_of(*[1] * 90)
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.all == everything(tasks)
    assert not run.failures
    assert len(machines.given[0][0]) == 2 * 20


def test_jobs_that_share_a_batch_go_to_one_gpu_together(monkeypatch, tmp_path):
    """Regression: two GPUs got every other job, so the jobs of a batch were less alike, and padded more."""
    machines, tasks = Machines(2, max_jobs=5, seconds=0.002), tasks_of(*[1] * 200)
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.all == everything(tasks)
    calls = [[int(name.removeprefix("job")) for name, *_ in call] for call, _ in machines.given]
    early = [call for call in calls if call[0] < 150]  # near the end a GPU gets no more than its share
    assert all(call == list(range(call[0], call[0] + len(call))) for call in early)
    assert all(len(call) % 5 == 0 for call in early)


@pytest.mark.parametrize(
    ("n_unit", "is_enough", "has_room"),
    [(2, None, True), (3, None, False), (1, True, True), (2, True, False), (5, False, True), (6, False, False)],
)
def test_a_gpu_gets_the_next_batch_and_what_its_workers_need_and_leaves_the_rest_to_others(n_unit, is_enough, has_room):
    planner = SimpleNamespace(max_jobs=1)
    units = [(0, {seed}) for seed in range(n_unit)]
    assert Capacity(tasks_of(9)).has_room(units, planner, 4, is_enough) is has_room
    assert AHEAD == 2


@pytest.mark.parametrize(
    ("rates", "features_seconds", "n_unit"),
    [
        ((), 0.0, 3),  # nothing has ended yet
        ((40.0, 900.0), 1.0, 2),
        ((10.0, 900.0), 1.0, 3),  # the slower one may have compiled kernels
        ((1.0, 1.0), 1.0, 6),  # four workers, and two units
        ((40.0, 40.0), 90.0, 3),
    ],
)
def test_work_for_half_a_minute_or_for_the_slowest_features_waits_at_a_gpu(tmp_path, rates, features_seconds, n_unit):
    tasks = [task_of(job_of(name=f"job{number}", seeds=[1], n_token=9)) for number in range(30)]
    config = load_config({"model": "demo", "gpus": "1", "device": "cpu", "out": tmp_path / "out", "workers": 4})
    executor, asked = module.RayExecutor(config, None, None), []
    executor._tasks, executor._capacity = tasks, Capacity(tasks)
    executor._schedule = Schedule((1, task.todo) for task in tasks)
    executor._schedule.add(0)
    executor._fleet = SimpleNamespace(now=0.0, ask=lambda gpu, method, given, alone: asked.extend(given))
    executor._numbers = {task.job.name: number for number, task in enumerate(tasks)}
    process = Machines(1).start(Place("node0", "node0", 0))
    gpu = Gpu(0, process.place, process, loaded=process.load(None))
    process.die("the end")
    executor._fleet.forgive = lambda gpu: None
    for rate in rates:  # these jobs have ended
        unit = executor._schedule.next(0, lambda job: 1)
        job = tasks[unit.job].job
        sizes = {"n_token": 9, "n_atom": 1, "n_msa": 1, "n_chain": 1}
        list(executor._received(gpu, Featurized(job=job, seconds=features_seconds, **sizes)))
        list(executor._received(gpu, Written(job=job, seed=1, scores=(0.5,), seconds=rate)))
    assert list(executor._feed(gpu, OpenGate())) == []
    assert len(asked) == n_unit


def test_each_gpu_practises_one_of_the_first_jobs_and_none_after_a_restart(monkeypatch, tmp_path):
    machines = Machines(2, deadly={3}, seconds=0.01)
    Run(monkeypatch, tmp_path, machines, tasks_of(4, 4))
    assert sorted(filter(None, machines.examples)) == [("job0", (1,)), ("job1", (1,))]
    assert None in machines.examples


def test_features_that_do_not_come_from_the_cache_are_not_practised(monkeypatch, tmp_path):
    task = task_of(job_of(name="job0", seeds=[1], n_token=9))
    spec = replace(task.job.spec, has_constraint=True)
    machines = Machines(1)
    Run(monkeypatch, tmp_path, machines, [replace(task, job=replace(task.job, spec=spec))])
    assert machines.examples == [None]


def test_a_gpu_that_is_ready_first_leaves_seeds_to_one_that_still_loads(monkeypatch, tmp_path):
    class Late(Machines):
        def start(self, place):
            process = super().start(place)
            if place.node == "node1":
                load = process.load
                process.load = lambda example: (has_work.wait(60), load(example))[1]
            return process

    has_work = threading.Event()
    machines, tasks = Late(2), tasks_of(2)
    run = Run(monkeypatch, tmp_path, machines, tasks, during=lambda event: has_work.set())
    assert run.all == everything(tasks)
    assert machines.given[0][0] == [("job0", 1)]


def test_the_second_gpu_gets_large_jobs_too(monkeypatch, tmp_path):
    """Regression: the first GPU that was ready got its whole share at once, all of the largest jobs."""
    machines, tasks = Machines(2, seconds=0.05), tasks_of(*[1] * 10)
    Run(monkeypatch, tmp_path, machines, tasks)
    assert [len(given) for given, _ in machines.given[:2]] == [3, 3]


def test_jobs_that_were_running_when_their_process_ended_are_given_alone_and_the_deadly_one_fails(
    monkeypatch, tmp_path
):
    machines, tasks = Machines(1, deadly={7}, max_jobs=20, seconds=0.3), tasks_of(*[1] * 6)
    tasks[4] = task_of(job_of(name="job4", seeds=[7], n_token=6))
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.all == everything(tasks)
    assert [(one.job.name, one.seed) for one in run.failures] == [("job4", 7)]
    assert [alone for _, alone in machines.given if alone] == [{("job4", 7)}] * 2


def test_a_job_that_turns_out_too_large_for_all_gpus_fails_and_the_others_are_predicted(monkeypatch, tmp_path):
    tasks = tasks_of(30, 5)
    machines = Machines(2, atoms={"job0": 90}, max_atoms={"node0": 50, "node1": 60})
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.all == everything(tasks)
    assert {name for name, _ in run.written} == {"job1"}
    assert run.failures
    assert all(failure.message == "90 atoms are too many" for failure in run.failures)


def test_a_job_that_fits_on_one_kind_of_gpu_goes_there(monkeypatch, tmp_path):
    tasks = tasks_of(12, 5)
    machines = Machines(2, atoms={"job0": 90}, max_atoms={"node0": 50}, seconds=0.01)
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert sorted(run.written) == everything(tasks)
    assert not run.failures


def test_a_gpu_that_is_lost_while_the_others_load_leaves_no_run_without_a_gpu(monkeypatch, tmp_path):
    """Regression: no GPU was left to refuse the job, and the run began without one: its record ended in a traceback."""

    class Slow(Machines):
        def start(self, place):
            process = super().start(place)
            if place.node == "node1":
                load = process.load
                process.load = lambda example: self.lose_first() or load(example)
            return process

        def lose_first(self):
            is_ready.wait(60)
            self.broken = {"node0"}
            self.processes[0].die("a fault")
            is_lost.wait(60)

    is_ready, is_lost = threading.Event(), threading.Event()
    machines, tasks = Slow(2, max_atoms={"node0": 5}), tasks_of(3)
    monkeypatch.setattr(module, "connect", lambda config: machines)
    too_large = module.too_large

    def watched(tasks, kinds):
        is_ready.set()
        return too_large(tasks, kinds)

    def hear(event):
        if isinstance(event, Note) and "a fault" in event.text:
            is_lost.set()

    monkeypatch.setattr(module, "too_large", watched)
    config = load_config({"model": "demo", "gpus": "2", "device": "cpu", "out": tmp_path / "out", "workers": 1})
    with module.RayExecutor(config, SimpleNamespace(start=lambda: None), hear) as executor:
        executor.load(tasks, lambda: False)
        assert [gpu["host"] for gpu in executor.facts()["gpus"]] == ["node1"]


def test_a_job_that_cannot_be_featurized_on_one_node_goes_to_another(monkeypatch, tmp_path):
    tasks = tasks_of(8, 6)
    run = Run(monkeypatch, tmp_path, Machines(2, lacking={"node0"}, seconds=0.01), tasks)
    assert sorted(run.written) == everything(tasks)
    assert not run.failures


def test_a_job_that_cannot_be_featurized_anywhere_fails_once(monkeypatch, tmp_path):
    tasks = tasks_of(8, 6)
    run = Run(monkeypatch, tmp_path, Machines(2, lacking={"node0", "node1"}), tasks)
    assert run.all == everything(tasks)
    assert not run.written
    assert {failure.message for failure in run.failures} == {"a file is missing"}


def test_a_caller_that_is_slow_makes_no_process_look_stuck(monkeypatch, tmp_path):
    monkeypatch.setattr(fleet, "SILENT_SECONDS", 5.0)
    monkeypatch.setattr(fleet, "FIRST_SECONDS", 5.0)
    seen = []

    def slow(event):
        seen.append(event)
        if len([one for one in seen if isinstance(one, Written)]) == 3:
            seen.clear()
            time.sleep(7)

    machines, tasks = Machines(2, seconds=0.2), tasks_of(10)
    run = Run(monkeypatch, tmp_path, machines, tasks, during=slow)
    assert sorted(run.written) == everything(tasks)
    assert not any("lost" in line for line in run.lines)


def test_if_all_nodes_are_taken_away_and_none_comes_back_the_seeds_that_are_left_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(fleet, "GONE_SECONDS", 1.0)
    machines, tasks = Machines(2, seconds=0.05), tasks_of(30)

    def take_away(event):
        if isinstance(event, Written) and machines.nodes:
            machines.nodes.clear()
            for process in machines.processes:
                process.die("its node was taken away")

    run = Run(monkeypatch, tmp_path, machines, tasks, during=take_away)
    assert run.all == everything(tasks)
    assert "no GPU is left to predict it: The process died: its node was taken away" in run.failures[0].message
    assert any("waiting for one to come back" in line for line in run.lines)


def test_an_error_after_the_connection_is_reported_and_ends_the_cluster(monkeypatch, tmp_path):
    def full(out):
        raise OSError("No space left on device")

    machines, closed = Machines(1), []
    monkeypatch.setattr(machines, "close", lambda: closed.append(True))
    monkeypatch.setattr(module, "marked", full)
    with pytest.raises(OSError, match="No space left"):
        Run(monkeypatch, tmp_path, machines, tasks_of(1))
    assert closed


def test_processes_that_started_ahead_are_used_unless_the_checks_have_changed_the_configuration(monkeypatch, tmp_path):
    killed, place = [], Place("node", "host", 0)
    monkeypatch.setattr(ray_cluster.Cluster, "kill", lambda self, handle, place, process: killed.append(handle))
    monkeypatch.setattr(ray_connection, "connect", lambda config: None)
    monkeypatch.setattr(ray_cluster.Cluster, "places", lambda self: [place])
    config = load_config({"model": "demo", "gpus": "1", "device": "cpu", "out": tmp_path / "out"})
    for now, expected in ((config.model_copy(), []), (config.model_copy(update={"samples": 9}), ["process"])):
        cluster, made = ray_cluster.Cluster(config), Future()
        cluster._started[place] = "process"
        made.set_result(cluster)
        monkeypatch.setattr(ray_cluster, "_ahead", [made])
        assert ray_cluster.connect(now) is cluster
        assert killed == expected
        if not expected:
            assert cluster.start(place) == "process"
        assert not cluster._started
        assert ray_cluster.connect(now) is not cluster, "it belongs to one run"


@pytest.mark.parametrize("place", ["connect", "start"])
def test_what_hinders_the_cluster_that_is_made_ahead_is_said_when_the_run_needs_it(monkeypatch, tmp_path, place):
    """The connection is closed: Ray would end with the thread that has started it, and the run would wait for Ray."""

    def fail(*_):
        raise ConfigError("there is no room for Ray")

    closed = []
    monkeypatch.setattr(ray_connection, "connect", fail if place == "connect" else lambda config: None)
    monkeypatch.setattr(ray_connection, "import_ray", lambda is_local: None)
    monkeypatch.setattr(ray_connection, "ray", SimpleNamespace(shutdown=lambda: closed.append("closed")))
    monkeypatch.setattr(ray_cluster.Cluster, "places", lambda self: [Place("node", "host", 0)])
    monkeypatch.setattr(ray_cluster.Cluster, "start", fail)
    config = load_config({"model": "demo", "gpus": "1", "device": "cpu", "out": tmp_path / "out"})
    ray_cluster.connect_ahead(config)
    with pytest.raises(ConfigError, match="no room for Ray"):
        ray_cluster.connect(config)
    assert closed == ["closed"]


def test_a_cluster_that_was_made_for_other_gpus_is_closed(monkeypatch, tmp_path):
    closed = []
    monkeypatch.setattr(ray_cluster.Cluster, "close", lambda self: closed.append(self))
    monkeypatch.setattr(ray_cluster.Cluster, "places", lambda self: [Place("node", "host", 0)])
    monkeypatch.setattr(ray_connection, "connect", lambda config: None)
    config = load_config({"model": "demo", "gpus": "1", "device": "cpu", "out": tmp_path / "out"})
    made = Future()
    made.set_result(ray_cluster.Cluster(config))
    monkeypatch.setattr(ray_cluster, "_ahead", [made])
    assert ray_cluster.connect(config.model_copy(update={"gpus": "2"})) is not made.result()
    assert closed == [made.result()]


def test_a_second_run_of_a_process_may_choose_gpus_again(monkeypatch, tmp_path):
    """Regression: the second one counted the GPUs that the first had chosen, and was refused."""
    seen = []
    init = SimpleNamespace(init=lambda **_: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setattr(ray_connection, "ray", init)
    monkeypatch.setattr(ray_connection, "_without_helpers", contextlib.nullcontext)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    config = load_config({"model": "demo", "gpus": "0,2", "out": tmp_path / "out"})
    for _ in range(2):
        ray_connection._start_local(config, {})
    assert seen == ["4,6", "4,6"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6"


def test_the_cluster_that_is_found_is_the_named_one_or_the_one_that_ray_start_left(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert ray_connection.reachable(address) == address
        with pytest.raises(ConnectionError, match="no 'ray start' has run"):
            ray_connection.reachable("auto")
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"{address}\n")
        assert ray_connection.reachable("auto") == address
        monkeypatch.setenv("RAY_ADDRESS", "not an address")
        with pytest.raises(ValueError, match="not HOST:PORT"):
            ray_connection.reachable("auto")
    with pytest.raises(ConnectionError):
        ray_connection.reachable(address)


def executor_with(tmp_path, tasks, gpus=1):
    """An executor whose GPUs have all seeds of the first job, and what it asks of them."""
    made = module.RayExecutor(load_config({"model": "demo", "out": tmp_path / "out"}), SimpleNamespace(), print)
    made._tasks, made._numbers = tasks, {task.job.name: number for number, task in enumerate(tasks)}
    made._schedule, asked = Schedule((1, task.todo) for task in tasks), []
    every = {number: Gpu(number, Place(f"node{number}", f"host{number}", 0), None) for number in range(gpus)}
    for gpu in every.values():
        made._schedule.add(gpu.number)
    for gpu in every.values():
        while (unit := made._schedule.next(gpu.number, lambda job: 5)) is not None:
            gpu.units.append((unit.job, set(unit.seeds)))
    made._fleet = SimpleNamespace(
        gpus=every,
        ready=list(every.values()),
        is_hopeless=False,
        is_gone=lambda gpu: True,
        lose=lambda gpu, reason, **_: f"lost {gpu.name}",
        ask=lambda gpu, method, *arguments, about=None: asked.append((gpu.number, method, *arguments, about)),
    )
    return made, asked


def test_seeds_that_failed_while_they_were_asked_back_are_not_given_back(tmp_path):
    """Regression: they were handed out again, failed or were written twice, and the run did not end."""
    made, _ = executor_with(tmp_path, tasks_of(5))
    (gpu,) = made._fleet.ready
    assert made._finished(gpu, 0, 4)
    assert made._finished(gpu, 0, 5)
    assert list(made._answered(fleet.Answer(gpu, "take_back", (0, [0]), [[3, 4, 5]]))) == []
    assert made._schedule.left(0) == (3,)
    assert made._schedule.load(0) == 2
    assert not made._schedule.is_done


def test_seeds_of_a_job_that_needs_no_more_are_taken_back_unless_they_have_begun(tmp_path):
    made, asked = executor_with(tmp_path, tasks_of(20), gpus=2)
    held = {gpu.number: made._schedule.not_begun(gpu.number, 0) for gpu in made._fleet.ready}
    assert sorted((*held[0], *held[1])) == list(range(1, 21))
    made._schedule.started(0, 0, held[0][:3])
    made._scored, gate = {0}, SimpleNamespace(needs_no_more=lambda job: True)
    made._recall(gate)
    made._recall(gate)  # the answers have not come
    assert asked == [
        (0, "take_back", [("job0", held[0][3:])], (0, [0])),
        (1, "take_back", [("job0", held[1])], (0, [0])),
    ]
    for gpu, seeds in zip(made._fleet.ready, (held[0][3:], held[1]), strict=True):
        list(made._answered(fleet.Answer(gpu, "take_back", (0, [0]), [list(seeds)])))
    assert sorted(made._schedule.left(0)) == sorted((*held[0][3:], *held[1]))
    made._recall(gate)
    assert len(asked) == 2
    assert not made._scored


def test_an_answer_to_an_earlier_call_of_predict_changes_nothing(tmp_path):
    """The numbers of jobs were those of the earlier call."""
    made, _ = executor_with(tmp_path, tasks_of(5))
    (gpu,) = made._fleet.ready
    made._round, gpu.is_giving_back = 1, True
    assert list(made._answered(fleet.Answer(gpu, "take_back", (0, [0]), [[3, 4, 5]]))) == []
    assert made._schedule.left(0) == ()
    assert not gpu.is_giving_back


def test_no_seed_is_taken_back_from_a_job_that_needs_more(tmp_path):
    made, asked = executor_with(tmp_path, tasks_of(5))
    made._scored = {0}
    made._recall(SimpleNamespace(needs_no_more=lambda job: False))
    assert not asked
    assert not made._scored


def test_early_stopping_ends_a_run_on_several_gpus(monkeypatch, tmp_path):
    """Each process has many seeds when the first score comes."""
    written = []

    class Gate(OpenGate):
        def needs_no_more(self, job):
            return bool(written)

        def admit(self, job, seeds):
            return () if written else seeds

    machines, tasks = Machines(2, seconds=0.2), tasks_of(60)

    def see(event):
        if isinstance(event, Written):
            written.append(event.seed)

    run = Run(monkeypatch, tmp_path, machines, tasks, gate=Gate(), during=see)
    n_given = sum(len(job) - 1 for jobs, _ in machines.given for job in jobs)
    assert not run.failures
    assert 1 <= len(run.written) < n_given


@pytest.mark.parametrize("is_gone", [True, False])
def test_no_seed_is_blamed_for_a_node_that_was_taken_away(tmp_path, is_gone):
    made, _ = executor_with(tmp_path, tasks_of(2))
    made._fleet.is_gone = lambda gpu: is_gone
    gpu = made._fleet.gpus[0]
    gpu.loaded = SimpleNamespace()
    for _ in range(module.MAX_KILLS):
        made._schedule.started(0, 0, [1, 2])
        events = list(made._lost(gpu, "preempted"))
        made._schedule.add(0)
        units = list(iter(lambda: made._schedule.next(0, lambda job: 5), None))
    assert events[0] == Note(job=None, text="lost host0 GPU 0", lost="host0 GPU 0")
    failures = [event for event in events if isinstance(event, Failure)]
    assert len(failures) == (0 if is_gone else 2)
    assert [(unit.seeds, unit.is_alone) for unit in units] == ([((1, 2), False)] if is_gone else [])


def test_a_gpu_is_gone_with_its_node():
    machines = Machines(2)
    made = fleet.Fleet(machines, None)
    made.start_new()
    assert not any(map(made.is_gone, made.gpus.values()))
    machines.nodes = {"node1"}
    assert [gpu.place.node for gpu in made.gpus.values() if made.is_gone(gpu)] == ["node0"]
    machines.close()


def test_a_run_begins_without_a_gpu_that_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.2)
    machines, tasks, check = Machines(3, seconds=0.01), tasks_of(30), fleet_module.Process.check

    def stand_still(process, shared):
        if process.place.node == "node1":
            with process.changed:
                process.changed.wait_for(lambda: process.death is not None)
        return check(process, shared)

    monkeypatch.setattr(fleet_module.Process, "check", stand_still)
    run = Run(monkeypatch, tmp_path, machines, tasks)
    assert run.all == everything(tasks)
    assert not run.failures
    assert "the run begins without node1 GPU 0: no answer yet" in run.lines


def test_a_process_reads_the_data_of_the_run_and_not_those_of_its_node(monkeypatch, tmp_path):
    """Regression: with --ray the processes had the PROTENIX_ROOT_DIR of whoever had started Ray on their node."""
    sent = []
    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *arguments: sent.append(arguments)))
    stand_in = SimpleNamespace(nodes=list, remote=lambda _: actor)
    monkeypatch.setattr(ray_connection, "connect", lambda config: None)
    monkeypatch.setattr(ray_connection, "ray", stand_in)
    monkeypatch.setattr(ray_cluster, "_on", lambda place: None)
    monkeypatch.setattr(ray_cluster.Cluster, "places", lambda self: [Place("node", "host", 0)])
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path / "run"))
    config = load_config({"gpus": "1", "out": tmp_path / "out"})
    ray_cluster.Cluster(config).start(Place("node", "host", 0))
    ((received, folder, workers, root),) = sent

    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path / "node"))
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_accelerator_ids=lambda: {"GPU": []}))
    monkeypatch.setattr(ray_cluster.GpuWorker, "__init__", lambda *_: None)
    ray_cluster._RayWorker(received, folder, workers, None)
    assert "PROTENIX_ROOT_DIR" not in os.environ
    assert received.checkpoint_path == tmp_path / "run" / "checkpoint" / f"{config.model}.pt"
    ray_cluster._RayWorker(received, folder, workers, root)
    assert os.environ["PROTENIX_ROOT_DIR"] == str(tmp_path / "run")
