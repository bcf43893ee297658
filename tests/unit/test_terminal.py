"""The live display: one line for the run, and one for each GPU if there are several."""

import io
from dataclasses import replace

from rich.console import Console
from support.jobs import job_of
from support.predictions import prediction

from protenix_multiseed.events import BatchProgress, Note, StageEntered, Stopping, Written
from protenix_multiseed.run import terminal as module
from protenix_multiseed.run.terminal import Terminal
from protenix_multiseed.types import Failure


def shown(events, *, is_terminal=True):
    """What the display holds after these events: the live lines on a terminal, else all lines."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=150, color_system=None)
    terminal = Terminal(console, 10, 0)
    with terminal.shown():
        for event in events:
            terminal(event)
        if is_terminal:
            plain = Console(file=io.StringIO(), width=150)
            plain.print(terminal._progress.get_renderable())
            return plain.file.getvalue()
    return console.file.getvalue()


def batch(where, seeds=(1, 2), done=3, stage="sample", **more):
    more = {"job": job_of(), "total": 8, "share": done / 8, **more}
    return BatchProgress(seeds=seeds, stage=stage, done=done, where=where, **more)


def test_each_gpu_has_a_line_that_follows_it_and_the_run_has_one():
    text = shown([StageEntered(text="predicting"), batch("n1 GPU 0"), batch("n2 GPU 1"), batch("n1 GPU 0", (7,), 8)])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert len(lines) == 3
    assert "predicting" in lines[0]
    assert "0/10 seeds" in lines[0]
    assert "n1 GPU 0: a, seed 7" in lines[1]
    assert "8/8 steps" in lines[1]
    assert "n2 GPU 1: a, seeds 1-2" in lines[2]
    assert "3/8 steps" in lines[2]


def test_a_lost_gpu_has_no_line():
    lost = Note(job=None, text="lost n2 GPU 1", lost="n2 GPU 1")
    text = shown([batch("n1 GPU 0"), batch("n2 GPU 1"), lost, replace(lost, lost="n3 GPU 0")])
    assert "n1 GPU 0: a" in text
    assert "n2 GPU 1" not in text


def test_a_batch_of_several_jobs_is_shown_by_its_numbers_of_jobs_and_seeds():
    others = (("b", (1,)), ("c", (1, 2)))
    text = " ".join(shown([replace(batch(""), others=others)]).split())
    assert "3 jobs, 5 seeds" in text
    assert "3/8 steps" in text
    assert "n1 GPU 0: 3 jobs, 5 seeds" in shown([replace(batch("n1 GPU 0"), others=others)])


def test_more_gpus_than_lines_leave_the_line_of_the_run_on_the_screen():
    text = shown([batch(f"n{number} GPU 0") for number in range(module.MAX_GPUS + 5)])
    assert len(text.splitlines()) == 1 + module.MAX_GPUS


def test_the_batch_of_a_single_gpu_has_a_line_until_the_next_stage_of_the_run():
    run, line = shown([batch("", stage="trunk", done=2)]).splitlines()
    assert "0/10 seeds" in " ".join(run.split())
    assert "a, seeds 1-2" in line
    assert "2/8 cycles" in " ".join(line.split())
    assert len(shown([batch(""), StageEntered(text="ranking")]).splitlines()) == 1


def test_a_batch_shows_the_time_to_go_which_counts_down(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    terminal = Terminal(console, 10, 0)

    def line():
        plain = Console(file=io.StringIO(), width=80)
        plain.print(terminal._progress.get_renderable())
        return plain.file.getvalue().splitlines()[-1].rstrip()

    with terminal.shown():
        terminal(batch("", stage="trunk", share=0.0, done=0))
        assert line().split()[-2:] == ["0/8", "cycles"]
        clock[0] += 30
        terminal(batch("", share=0.1, done=1))
        assert not line().endswith("to go")  # the time of the first step is not known
        clock[0] += 10
        terminal(batch("", share=0.3, done=3))
        assert line().endswith("35 s to go")  # 0.7 of the batch, at 0.2 in 10 s
        clock[0] += 20
        assert line().endswith("15 s to go")
        terminal(batch("", seeds=(3,), share=0.05, done=1))
        assert not line().endswith("to go")
        clock[0] += 5
        terminal(batch("", seeds=(3,), share=0.55, done=4))
        assert line().endswith("4 s to go")


def test_lines_fit_80_columns_and_only_names_are_cut(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    terminal, clock = Terminal(console, 1000, 0), [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with terminal.shown():
        for done in (1, 150):
            clock[0] += 1000
            job = job_of(name="a-complex-with-a-name-that-is-rather-long-for-a-line")
            terminal(batch("node17 GPU 3", job=job, share=done / 200, done=done, total=200))
        plain = Console(file=io.StringIO(), width=80)
        plain.print(terminal._progress.get_renderable())
    lines = plain.file.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "150/200 steps" in " ".join(lines[1].split())
    assert "…, seeds 1-2 " in lines[1]
    assert lines[1].rstrip().endswith("6 min to go")


def test_without_a_terminal_there_are_plain_lines_that_name_the_gpu():
    written = Written(job=job_of(), seed=7, scores=(0.5, 0.75), seconds=2.0, where="n1 GPU 0")
    text = shown(
        [batch("n1 GPU 0"), written],
        is_terminal=False,
    )
    assert "a seed 7: 2 samples in 2.0 s on n1 GPU 0, best ranking score 0.7500 (1/10)" in text
    assert len(text.splitlines()) == 1


def test_a_note_of_the_whole_run_stays_on_the_screen():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    terminal = Terminal(console, 10, 0)
    with terminal.shown():
        terminal(Note(job=None, text="the checkpoint lacks 3 weights"))
        terminal(StageEntered(text="predicting"))
    assert "note: the checkpoint lacks 3 weights" in console.file.getvalue()


def test_the_first_signal_says_what_becomes_of_the_running_batch():
    """Regression: it said "has 20 s to finish", and not that the batch is dropped if it does not."""
    text = shown([Stopping(signal="SIGINT", grace=20.0)], is_terminal=False)
    assert "stopping after SIGINT: the running batch is dropped if it does not finish within 20 s, then" in text


def test_a_seed_that_cannot_be_written_counts_once():
    """Its prediction was counted before. Regression: the display counted up to twice the seeds."""
    job = job_of(seeds=(1, 2, 3))
    failed = Failure(job=job, seed=3, stage="write", message="no room")
    made = [prediction(job=job, seed=seed) for seed in (1, 2, 3)]
    lines = shown([made[0], made[2], failed, made[1]], is_terminal=False).splitlines()
    assert "(3/10)" in lines[-1]
