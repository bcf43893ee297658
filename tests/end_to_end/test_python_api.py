"""Scripts that predict: no guard of the main module, failures, interruption, and the same files as the command's."""

import json
import subprocess
import sys

import pytest
from support.command import DELETE_ALIGNMENT, environment, leftovers, predictions, run, write_jobs

SETTINGS = 'model="demo", steps=2, cycles=1, samples=2, workers=1'
# A script without a guard of its main module, which multiprocessing's documentation asks for.
PREDICT = f"""
print("script", flush=True)
import json, logging, sys
from protenix_multiseed import predict
jobs = json.load(open("in.json"))
for result in predict(jobs, seeds=SEEDS, out="out", {SETTINGS}):
    atoms = result.atoms()
    assert (result.coordinates() == atoms.coord).all()
    assert len(result.summary()) == atoms.stack_depth() == 2
    assert result.best.ranking_score == max(result.scores) == result.summary()[0]["ranking_score"]
    print(result.job, result.seed, atoms.shape, flush=True)
print("root logger", logging.root.handlers, logging.root.level, file=sys.stderr)
"""


def python(code, folder, **more):
    (folder / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment(), capture_output=True, text=True, check=False,
        timeout=570, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("api")
    write_jobs(made, {"short": "MKTAYI", "long": "MKTAYIAKQRQISF"})
    return made


@pytest.fixture(scope="module")
def done(folder):
    return python(PREDICT.replace("SEEDS", "[1, 2]"), folder)


def test_each_seed_is_yielded_once_and_the_script_is_not_run_by_the_workers(done):
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "script"
    assert [line.split(" (")[0] for line in lines] == ["long 1", "long 2", "short 1", "short 2"]


def test_the_callers_root_logger_is_left_as_it_was(done):
    assert "root logger [] 30\n" in done.stderr


def test_notes_are_warnings_at_the_line_of_the_caller(done):
    assert "script.py:6: ProtenixMsWarning: long: protein 1 has no MSA" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_writes_the_same_files(folder, done):
    arguments = ("predict", "in.json", "--seeds", "1-2", "--config", "quick.yaml", "--out", "of_command")
    assert run(*arguments, cwd=folder).returncode == 0
    made = predictions(folder / "out")
    assert len(made) == 16
    assert made == predictions(folder / "of_command")
    for name in ("short/ranking.csv", "long/best.cif", "summary.csv"):
        assert (folder / "out" / name).read_bytes() == (folder / "of_command" / name).read_bytes()


def test_finished_seeds_come_first_and_are_not_predicted_again(folder, done):
    before = (folder / "out" / "long" / "seed_1" / "record.json").stat().st_mtime_ns
    again = python(PREDICT.replace("SEEDS", "range(1, 4)"), folder)
    assert again.returncode == 0, again.stdout + again.stderr
    seeds = [line.split(" (")[0] for line in again.stdout.splitlines()[1:]]
    assert seeds == ["short 1", "short 2", "long 1", "long 2", "long 3", "short 3"]
    assert (folder / "out" / "long" / "seed_1" / "record.json").stat().st_mtime_ns == before


DAMAGED = f"""
from protenix_multiseed import FailedError, predict
try:
    for result in predict("in.json", seeds="1-3", out="out", {SETTINGS}):
        print("got", result.job, result.seed)
except FailedError as error:
    print([(one.job.name, one.seed, one.stage) for one in error.failures])
told = []
print(len(list(predict("in.json", seeds="1-3", out="out", {SETTINGS}, on_failure=told.append))))
print([(one.seed, one.message.partition(":")[0], "verify" in one.advice) for one in told])
"""


def test_a_damaged_result_stops_no_other_one(tmp_path):
    """Regression: the error was raised before the run, each time, so what was missing was never predicted."""
    write_jobs(tmp_path, {"a": "MKTAYI"})
    assert (
        run("predict", "in.json", "--seeds", "1-2", "--config", "quick.yaml", "--out", "out", cwd=tmp_path).returncode
        == 0
    )
    (path,) = (tmp_path / "out" / "a" / "seed_1" / "predictions").glob("*summary_confidence_sample_0.json")
    path.write_text("x" * len(path.read_text()))
    made = python(DAMAGED, tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.splitlines() == [
        "got a 2", "got a 3", "[('a', 1, 'rank')]", "2", "[(1, 'left out of the ranking', True)]",
    ]  # fmt: skip


FAILING = f"""{DELETE_ALIGNMENT}
from protenix_multiseed import FailedError, predict
failures = []
for result in predict("in.json", out="out", {SETTINGS}, on_failure=failures.append):
    print("got", result.job)
(failure,) = failures
print(failure.job.name, failure.stage)
try:
    for result in predict("in.json", out="other", {SETTINGS}):
        print("got", result.job)
except FileNotFoundError:
    raise
except FailedError as error:
    print(error.failures[0].job.name, str(error).splitlines()[0])
"""


def test_a_failure_stops_no_other_job_and_is_raised_at_the_end(tmp_path):
    write_jobs(tmp_path, {"good": "MKTAYI"})
    (tmp_path / "gone.a3m").write_text(">q\nMKTAYIAKQR\n")
    jobs = json.loads((tmp_path / "in.json").read_text())
    chain = {"sequence": "MKTAYIAKQR", "count": 1, "unpairedMsaPath": "gone.a3m"}
    jobs.append({"name": "bad", "sequences": [{"proteinChain": chain}]})
    (tmp_path / "in.json").write_text(json.dumps(jobs))
    again = 'open("gone.a3m", "w").write(">q\\nMKTAYIAKQR\\n")\ntry:'
    made = python(FAILING.replace("try:", again), tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.splitlines() == [
        "got good", "bad featurize", "got good", "bad 1 failed; the other results are written",
    ]  # fmt: skip


STOPPED = f"""
import os, signal, sys, threading
from protenix_multiseed import ProtenixMsError, predict
predicted = predict("in.json", seeds="1-12", out="out", {SETTINGS}, max_seeds_per_batch=1)
try:
    for result in predicted:
        print(result.job, result.seed, flush=True)
        try:
            list(predict("in.json", seeds=9, out="./out", {SETTINGS}))
        except ProtenixMsError as error:
            assert "another run of this process writes to" in str(error)
        else:
            raise AssertionError("a second run was not refused")
        if HOW == "break":
            break
        # As a notebook interrupts its kernel: the whole process group. Only once, because a second interrupt ends the
        # ranking too.
        if result.seed == 1:
            threading.Timer(0.01, os.killpg, (0, signal.SIGINT)).start()
    predicted.close()
except KeyboardInterrupt:  # in the run, or in the body of the loop if the next result was there at once
    print("interrupted")
    predicted.close()
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize("how", ["break", "interrupt"])
def test_a_run_that_is_left_early_can_be_continued(tmp_path, how):
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    stopped = python(STOPPED.replace("HOW", repr(how)), tmp_path, start_new_session=True)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    lines = stopped.stdout.splitlines()
    assert lines[0] == "a 1"
    assert lines[-1] == "True"
    assert ("interrupted" in lines) == (how == "interrupt")
    assert "Traceback" not in stopped.stderr
    assert not leftovers(tmp_path / "out")
    n_seed = len(list((tmp_path / "out" / "a").glob("seed_*/record.json")))
    assert (tmp_path / "out" / "a" / "ranking.csv").read_text().count("\n") == 1 + 2 * n_seed
    if how == "break":
        return
    again = python(PREDICT.replace("SEEDS", '"1-12"'), tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [line.split(" (")[0] for line in again.stdout.splitlines()[1:]] == [f"a {seed}" for seed in range(1, 13)]


KEPT = f"""
import signal
from protenix_multiseed import predict
def main():
    predicted = predict("in.json", seeds="1-4", out="out", {SETTINGS}, max_seeds_per_batch=1)
    for result in predicted:
        print(result.seed, flush=True)
        END
main()
"""


@pytest.mark.parametrize(
    ("end", "shown"),
    [('raise ValueError("mine")', "ValueError: mine"), ("signal.raise_signal(signal.SIGINT)", "KeyboardInterrupt")],
)
def test_a_script_that_ends_in_its_loop_leaves_ranked_results_though_it_keeps_the_iterator(tmp_path, end, shown):
    write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
    ended = python(KEPT.replace("END", end), tmp_path)
    assert ended.returncode != 0
    assert ended.stdout == "1\n"
    assert ended.stderr.splitlines()[-1] == shown
    assert not leftovers(tmp_path / "out")
    n_seed = len(list((tmp_path / "out" / "a").glob("seed_*/record.json")))
    assert (tmp_path / "out" / "a" / "ranking.csv").read_text().count("\n") == 1 + 2 * n_seed


def test_the_display_is_shown_if_it_is_asked_for(folder, done):
    code = f'from protenix_multiseed import predict\nlist(predict("in.json", 1, "new", {SETTINGS}, progress=True))\n'
    made = python(code, folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "predicting on cpu" in made.stdout
    assert "note long: protein 1 has no MSA" in made.stdout
    assert "Warning" not in made.stderr
