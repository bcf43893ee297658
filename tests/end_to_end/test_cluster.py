"""Real faults on a Ray cluster of several nodes, all on this machine. Each node has one CPU, which serves as a GPU."""

import json
import os
import random
import signal
import time

import pytest
from support import cases
from support.command import leftovers, predictions, run, start, write_jobs
from support.ray_processes import gpu_processes, still_alive

pytest.importorskip("ray")
import psutil

pytestmark = pytest.mark.slow
JOBS = {"a": "MKTAYIAKQR", "b": "GHKLMNPQRSTV"}
COMMON = (
    "predict", "in.json", "--config", "quick.yaml", "--max-seeds-per-batch", "1", "--samples", "1", "--device", "cpu",
    "--log-format", "json", "--out", "out",
)  # fmt: skip
# In every process: end it when it predicts seed 3 of job a, and at the first load if the file "broken" exists.
FAULTS = """
import os, sys, threading, time
def inject():
    name = "protenix_multiseed.execution.model"
    while not hasattr(sys.modules.get(name), "LoadedModel"):
        time.sleep(0.02)
    model = sys.modules[name].LoadedModel
    run_batch, load = model.run_batch, model.load
    def deadly(self, jobs, retries, gate, plan):
        if any(jobs[number].job.name == "a" and seed == 3 for number, seed in plan.entries):
            os.kill(os.getpid(), 9)
        return run_batch(self, jobs, retries, gate, plan)
    def broken(self, *arguments):
        try:
            os.unlink(os.environ["BROKEN"])
        except OSError:
            return load(self, *arguments)
        os._exit(1)
    model.run_batch, model.load = deadly, broken
threading.Thread(target=inject, daemon=True).start()
"""
# In the run: shorter times until a process counts as stuck, and no node is left out.
PATIENCE = """
from protenix_multiseed.execution import fleet, ray
fleet.SILENT_SECONDS, fleet.LOOK_SECONDS, fleet.RESTART_SECONDS = 30.0, 1.0, 0.5
fleet.MAX_DEATHS = ray.MAX_KILLS = 1000
"""


class Nodes:
    """A cluster. Nodes can be added, and taken away."""

    def __init__(self, count):
        from ray.cluster_utils import Cluster

        self.arguments = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args={**self.arguments, "num_cpus": 0})
        self.nodes = [self.cluster.add_node(**self.arguments) for _ in range(count)]

    def add(self):
        self.nodes.append(self.cluster.add_node(**self.arguments))

    def take_away(self):
        """As a cloud takes back a machine: SIGTERM, and the node ends."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=True)


@pytest.fixture
def nodes(monkeypatch):
    """Returns a function that makes a cluster of some nodes; more variables may be set in their environment."""
    made = []

    def make(count, **variables):
        for name, value in {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(cases.REPOSITORY), **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made.append(Nodes(count))
        return made[-1]

    yield make
    for one in made:
        one.cluster.shutdown()


def begin(folder, address, *arguments, prelude=PATIENCE):
    """Start a run on the cluster, with changed constants. Its output goes to a file."""
    write_jobs(folder, JOBS)
    lines = (*prelude.splitlines(), "from protenix_multiseed.cli import app", "app()")
    indented = "".join(f"    {line}\n" for line in lines)  # the CPU workers import this file too
    (folder / "command.py").write_text(f'if __name__ == "__main__":\n{indented}')
    return start(*COMMON, "--ray", address, *arguments, cwd=folder, script="command.py", OMP_NUM_THREADS="1")


def n_written(out):
    return len(list(out.glob("*/seed_*")))


def lines(out):
    return [json.loads(line) for line in (out / "protenix-ms" / "run.log").read_text().splitlines()]


def wait_for(condition, process, seconds=900):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.05)


def check_whole(folder, one, n_seed):
    """Every seed is there, was written once, and has the bytes of a run in one process."""
    out = folder / "out"
    done = [(event["job"], event["seed"]) for event in lines(out) if event["event"] == "predicted"]
    assert sorted(done) == sorted((job, seed) for job in JOBS for seed in range(1, n_seed + 1))
    assert predictions(out) == predictions(one / "out")
    assert leftovers(out) == []
    assert "Traceback" not in (folder / "output").read_text()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of a run in one process."""
    folder = tmp_path_factory.mktemp("one")
    write_jobs(folder, JOBS)
    done = run(*COMMON, "--seeds", "1-40", cwd=folder, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_twenty_random_kills_a_node_taken_away_and_a_node_that_joins_lose_nothing(tmp_path, nodes, one):
    cluster, out, chance = nodes(3), tmp_path / "out", random.Random(1)
    process = begin(tmp_path, cluster.cluster.address, "--seeds", "1-40")
    killed = 0
    while killed < 20 and process.poll() is None:
        before = n_written(out)
        wait_for(lambda: gpu_processes(psutil.Process()) and n_written(out) > before, process)  # noqa: B023  called at once
        chance.choice(gpu_processes(psutil.Process())).kill()
        killed += 1
        if killed == 7:
            cluster.take_away()
        if killed == 10:
            cluster.add()
    everyone = psutil.Process(process.pid).children(recursive=True)
    assert process.wait(900) == 0, (tmp_path / "output").read_text()
    assert killed == 20
    assert not still_alive(everyone)
    check_whole(tmp_path, one, 40)


def test_a_process_that_stands_still_is_killed_and_its_seeds_go_elsewhere(tmp_path, nodes, one):
    cluster, out = nodes(2), tmp_path / "out"
    process = begin(tmp_path, cluster.cluster.address, "--seeds", "1-40")
    wait_for(lambda: n_written(out) >= 3, process)
    stopped = gpu_processes(psutil.Process())[0]
    stopped.send_signal(signal.SIGSTOP)
    assert process.wait(900) == 0, (tmp_path / "output").read_text()
    assert not still_alive([stopped])
    assert any("the process did not answer" in event.get("text", "") for event in lines(out))
    check_whole(tmp_path, one, 40)


def test_a_deadly_seed_fails_and_a_process_that_does_not_start_is_started_again(tmp_path, nodes, one):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAULTS)
    broken = tmp_path / "broken"
    broken.touch()
    path = f"{tmp_path / 'site'}{os.pathsep}{cases.REPOSITORY}"
    cluster, out = nodes(2, PYTHONPATH=path, BROKEN=str(broken)), tmp_path / "out"
    process = begin(tmp_path, cluster.cluster.address, "--seeds", "1-6", prelude="")
    assert process.wait(900) == 1, (tmp_path / "output").read_text()
    (failed,) = [json.loads(line) for line in (out / "protenix-ms" / "failures.jsonl").read_text().splitlines()]
    assert (failed["job"], failed["seed"], failed["stage"]) == ("a", 3, "predict")
    assert "the process that predicted it ended 3 times" in failed["message"]
    assert not broken.exists()
    assert n_written(out) == 11
    assert "'a' seed 3 (predict): the process that predicted it ended 3 times" in (tmp_path / "output").read_text()
    ours, theirs = predictions(out), predictions(one / "out")
    assert ours == {name: theirs[name] for name in ours}
