"""Runs of the command that are repeated, interrupted, killed, or share a folder with other runs."""

import json
import os
import random
import signal
import time

import psutil
import pytest
from support.command import leftovers, predictions, run, start, write_jobs

KILLS = int(os.environ.get("PROTENIX_MS_KILLS", "3"))
PROCESSES = int(os.environ.get("PROTENIX_MS_PROCESSES", "2"))
SEEDS = max(8, 2 * KILLS)  # of each job: enough that the run is still at work at every kill
OPTIONS = ("predict", "in.json", "--config", "quick.yaml", "--out", "out")
JOBS = {"a": "MKTAYIAKQR", "b": "GHKLMNPQRSTV"}  # b is larger and runs first, but is shown last


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of an uninterrupted run. Batches have one seed, so that files can be compared byte for byte."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_jobs(folder, JOBS)
    done = run(*OPTIONS, "--seeds", f"1-{SEEDS}", "--max-seeds-per-batch", "1", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("b seed 1") < done.stdout.index("a seed 1")
    assert done.stdout.index(f"a: {2 * SEEDS} samples") < done.stdout.index(f"b: {2 * SEEDS} samples")
    return folder


def times(out):
    """The time at which each seed's record was written, in ns."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("*/seed_*/record.json")}


def test_repeating_a_finished_command_computes_nothing(undisturbed):
    before = times(undisturbed / "out")
    done = run(*OPTIONS, "--seeds", f"1-{SEEDS}", cwd=undisturbed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * SEEDS} seeds are done already, 0 to do" in done.stdout
    assert f"a: {2 * SEEDS} samples of {SEEDS} seeds" in done.stdout
    assert times(undisturbed / "out") == before
    assert "loading" not in done.stdout  # no model is loaded


def test_changed_settings_are_refused_with_the_difference(undisturbed):
    done = run(*OPTIONS, "--seeds", "1-4", "--steps", "3", cwd=undisturbed)
    assert done.returncode == 2
    assert "out/a: seed 1, 2, 3, 4" in done.stderr
    assert ": --steps was 2, is 3" in done.stderr
    assert "--overwrite" in done.stderr


def test_a_second_run_adds_new_seeds_and_redoes_damaged_ones(undisturbed, tmp_path):
    write_jobs(tmp_path, JOBS)
    first = run(*OPTIONS, "--seeds", "1-2", "--max-seeds-per-batch", "1", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    before = times(tmp_path / "out")
    damaged = tmp_path / "out" / "a" / "seed_2" / "predictions" / "a_sample_0.cif"
    damaged.write_text(damaged.read_text().replace("ATOM", "ATOX", 1))
    done = run(*OPTIONS, "--seeds", f"1-{SEEDS}", "--max-seeds-per-batch", "1", "--verify", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "damaged a/seed_2: predictions/a_sample_0.cif has other content" in done.stdout
    assert f"3 seeds are done already, {2 * SEEDS - 3} to do" in done.stdout
    after = times(tmp_path / "out")
    assert {name for name in before if after[name] == before[name]} == set(before) - {"a/seed_2/record.json"}
    assert predictions(tmp_path / "out") == predictions(undisturbed / "out")
    assert (tmp_path / "out" / "a" / "ranking.csv").read_bytes() == (
        undisturbed / "out" / "a" / "ranking.csv"
    ).read_bytes()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_keeps_finished_seeds(tmp_path, number, code):
    """The signal goes to every process of the group, as a terminal and a batch system send it.

    The job has a SMILES ligand: RDKit replaces the handler of SIGINT when it embeds one.
    """
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    (job,) = json.loads((tmp_path / "in.json").read_text())
    job["sequences"].append({"ligand": {"ligand": "CC(=O)O", "count": 1}})
    (tmp_path / "in.json").write_text(json.dumps([job]))
    process = start(*OPTIONS, "--seeds", "1-200", "--max-seeds-per-batch", "1", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("out/a/seed_*")))
    os.killpg(process.pid, number)
    assert process.wait(300) == code, (tmp_path / "output").read_text()
    text = (tmp_path / "output").read_text()
    done = len(list((tmp_path / "out" / "a").glob("seed_*")))
    assert 1 <= done < 200
    assert f"stopped with {200 - done} of 200 seeds to do" in text
    assert f"a: {2 * done} samples of {done} seeds" in text
    assert "Traceback" not in text
    assert leftovers(tmp_path / "out") == []


def test_a_signal_ends_a_run_of_many_jobs(tmp_path):
    """The signal comes while the run waits for the next job's features. Regression: the process once never ended."""
    write_jobs(tmp_path, {f"job{number:02}": "MKTAYIAKQR" + number * "G" for number in range(40)})
    process = start(*OPTIONS, "--seeds", "1", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("out/*/seed_1")))
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(300) == 143, (tmp_path / "output").read_text()
    done = len(list(tmp_path.glob("out/*/seed_1")))
    assert f"stopped with {40 - done} of 40 seeds to do" in (tmp_path / "output").read_text()
    assert len(list(tmp_path.glob("out/*/ranking.csv"))) == done


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    """At once: the batch had an hour to finish, and the run neither ranks nor says how many seeds are left."""
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    process = start(*OPTIONS, "--seeds", "1-200", "--samples", "60", "--steps", "500", "--grace", "3600", cwd=tmp_path)
    wait_for(lambda: "a: 10 tokens" in (tmp_path / "output").read_text())
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping after SIGTERM" in (tmp_path / "output").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert "seeds to do" not in (tmp_path / "output").read_text()
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive


def test_a_run_killed_at_random_moments_resumes_to_the_same_files(undisturbed, tmp_path):
    """In the end the files equal those of an uninterrupted run, and no seed that was written is computed again."""
    write_jobs(tmp_path, JOBS)
    generator = random.Random(KILLS)
    arguments = (*OPTIONS, "--seeds", f"1-{SEEDS}", "--max-seeds-per-batch", "1")
    out = tmp_path / "out"
    seen = {}
    for _ in range(KILLS):
        process = start(*arguments, cwd=tmp_path)
        # A random moment: during the start, or shortly after a new seed has appeared, perhaps in the middle of a write.
        count = len(times(out))
        last = time.monotonic() + (generator.uniform(0, 8) if generator.random() < 0.3 else 1000)
        wait_for(lambda count=count, last=last: len(times(out)) > count or time.monotonic() > last)
        if time.monotonic() <= last:
            time.sleep(generator.uniform(0, 0.5))
        assert process.poll() is None, "the run ended before it was killed: use more seeds"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive, "workers outlive a killed run"
        now = times(out)
        assert all(now[name] == when for name, when in seen.items()), "a seed that was written was computed again"
        seen = now
        for record in out.glob("*/seed_*/record.json"):
            for name, file in json.loads(record.read_text())["files"].items():
                assert (record.parent / name).stat().st_size == file["bytes"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    now = times(out)
    assert all(now[name] == when for name, when in seen.items())
    assert predictions(out) == predictions(undisturbed / "out")
    assert leftovers(out) == []


def test_processes_on_one_folder_share_the_work(tmp_path):
    """Like a SLURM array on one folder: each seed is done once, and every process waits until all seeds are done."""
    write_jobs(tmp_path, JOBS)
    arguments = (*OPTIONS, "--seeds", "1-4", "--max-seeds-per-batch", "1", "--log-format", "json")
    processes = [start(*arguments, cwd=tmp_path) for _ in range(PROCESSES)]
    codes = [process.wait(500) for process in processes]
    assert codes == [0] * PROCESSES, (tmp_path / "output").read_text()
    events = [json.loads(line) for line in (tmp_path / "out" / "protenix-ms" / "run.log").read_text().splitlines()]
    done = [(event["job"], event["seed"]) for event in events if event["event"] == "predicted"]
    assert sorted(done) == [(job, seed) for job in JOBS for seed in range(1, 5)]
    assert len((tmp_path / "out" / "a" / "ranking.csv").read_text().splitlines()) == 1 + 4 * 2
    assert leftovers(tmp_path / "out") == []


def test_processes_share_the_seeds_of_one_job_batch_by_batch(tmp_path):
    """The first process stands still in its first batch; the second one does all other seeds, and then waits."""
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    arguments = (*OPTIONS, "--seeds", "1-6", "--max-seeds-per-batch", "2", "--steps", "40", "--log-format", "json")
    log = tmp_path / "out" / "protenix-ms" / "run.log"
    first = start(*arguments, cwd=tmp_path)
    wait_for(lambda: "progress" in kinds(log), 500)
    first.send_signal(signal.SIGSTOP)
    second = start(*arguments, cwd=tmp_path)
    wait_for(lambda: "that other processes are predicting" in log.read_text(), 500)
    held = 6 - len(list(tmp_path.glob("out/a/seed_*")))
    assert 2 <= held <= 4  # the batch in which the first process stands, and one more if it had just finished one
    first.send_signal(signal.SIGCONT)
    assert (first.wait(300), second.wait(300)) == (0, 0), (tmp_path / "output").read_text()
    done = [(event["process"], event["seed"]) for event in events(log) if event["event"] == "predicted"]
    assert sorted(seed for _, seed in done) == [1, 2, 3, 4, 5, 6]
    assert sum(process == second.pid for process, _ in done) >= 2


def events(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def kinds(log):
    return {event["event"] for event in events(log)}


def test_early_stopping_skips_seeds_that_a_later_run_does(tmp_path):
    """A run without early stopping then does the skipped seeds. Early stopping changes the result of no seed."""
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    common = ("predict", "in.json", "--config", "quick.yaml", "--seeds", "1-9")
    first = run(*common, "--out", "out", "--stop-when-stable", "2", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "stable" in first.stdout
    record = json.loads((tmp_path / "out" / "protenix-ms" / "run.json").read_text())
    skipped = record["stopped_when_stable"]["a"]["seeds_not_run"]
    assert record["units"]["skipped"] == len(skipped) > 0
    assert record["units"]["left"] == 0
    (status,) = json.loads(run("status", "out", "--json", cwd=tmp_path).stdout)["jobs"]
    assert (status["skipped"], status["left"]) == (len(skipped), 0)
    done = {int(path.name[5:]) for path in (tmp_path / "out" / "a").glob("seed_*")}
    assert done == set(range(1, 10)) - set(skipped)
    again = run(*common, "--out", "out", cwd=tmp_path)
    assert again.returncode == 0
    assert f"{len(done)} seeds are done already, {len(skipped)} to do" in again.stdout
    whole = run(*common, "--out", "whole", "--max-seeds-per-batch", "2", cwd=tmp_path)
    assert whole.returncode == 0
    ours, theirs = predictions(tmp_path / "out"), predictions(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    before = [name for name in ours if int(name.split("/")[1][5:]) in done]  # in batches of two in both runs
    assert [ours[name] for name in before] == [theirs[name] for name in before]
