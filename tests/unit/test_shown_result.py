"""The end of ``predict``: the rankings of the first jobs; a run of thousands does not print a table for each."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from support.jobs import job_of

from protenix_multiseed.commands import console, predict
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.outputs.ranking import Ranking
from protenix_multiseed.outputs.scan import Scan
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.types import Failure


def rankings(n_job, n_whole):
    """Jobs of which the first ones have all their findings."""
    return {
        f"job{number}": Ranking(
            row=("x",),
            seeds=frozenset({1}),
            n_sample=1,
            damaged={},
            others={},
            findings="all" if number < n_whole else None,
        )
        for number in range(n_job)
    }


@pytest.mark.parametrize(
    ("n_job", "n_whole", "shown", "hidden"), [(20, 20, 20, 0), (25, 25, 20, 5), (90, 50, 20, 70), (12, 9, 9, 3)]
)
def test_the_rankings_of_the_first_jobs_are_shown_and_the_others_are_in_the_summary(
    monkeypatch, n_job, n_whole, shown, hidden
):
    names = []
    monkeypatch.setattr(predict, "show_findings", lambda console, name, findings, folder: names.append(name))
    shown_on = Console(file=io.StringIO(), width=120)
    result = RunResult(rankings=rankings(n_job, n_whole))
    predict._show_result(shown_on, result, load_config({"out": Path("out")}))
    assert names == [f"job{number}" for number in range(shown)]
    assert (f"... and {hidden} more jobs: out/summary.csv" in shown_on.file.getvalue()) == bool(hidden)


def table(width, scores=(0.3632,), seed=1, n=15, chains=("A", "B"), more=0):
    """The lines of the ranking of made-up samples with interfaces and clusters."""
    samples = tuple(
        SimpleNamespace(
            seed=seed + place, sample=0, ranking_score=scores[0], plddt=19.31, ptm=0.376,
            iptm=0.36 if len(chains) > 1 else None, has_clash=scores[0] < 0, structure=None,
        )
        for place in range(n)
    )  # fmt: skip
    agreement = SimpleNamespace(cluster_of=dict.fromkeys(range(n), 15), rmsd=np.full((n, n), 121.13))
    findings = SimpleNamespace(
        samples=samples,
        agreement=agreement,
        interface_scores=lambda sample: {"ipsae": 0.041},
        sentences=(),
        n_bytes=0,
        tokens=SimpleNamespace(chains=chains),
    )
    stream = io.StringIO()
    console.show_findings(Console(file=stream, width=width, color_system=None), "7r6r", findings, Path("out"))
    return stream.getvalue().splitlines()[1 : n + 2 + more]


def test_the_ranking_fits_80_columns():
    """Regression: it was 81 characters wide, so its names took two lines, and its rows in a file were broken."""
    names, *rows = table(140)
    assert names.split() == [
        "rank",
        "seed",
        "sample",
        "score",
        "pLDDT",
        "pTM",
        "ipTM",
        "ipSAE",
        "cluster",
        "to",
        "best",
    ]
    assert max(map(len, (names, *rows))) <= 80
    assert [line.split() for line in table(80)] == [names.split(), *(row.split() for row in rows)]


def test_columns_are_left_out_before_a_number_is_cut():
    names, row, *_ = table(80, scores=(-99.6368,), seed=4_294_967_000)
    assert names.split() == ["rank", "seed", "sample", "score", "pLDDT", "ipTM", "ipSAE", "to", "best", "clash"]
    assert row.split() == ["1", "4294967000", "0", "-99.6368", "19.31", "0.3600", "0.041", "121.1", "A", "yes"]


@pytest.mark.parametrize(
    ("done", "todo", "said"), [(1, 1, "1 seed is done already, 1 to do"), (2, 1, "2 seeds are done already, 1 to do")]
)
def test_one_seed_is_a_singular(done, todo, said):
    """Regression: "1 seeds are done already"."""
    stream = io.StringIO()
    task = SimpleNamespace(todo=tuple(range(todo)))
    predict._show_scan(
        Console(file=stream, width=80), Scan(tasks=(task,), n_done=done, damaged=(), left_out=(), n_other=0)
    )
    assert stream.getvalue() == f"{said}\n"


@pytest.mark.parametrize("n_job", [0, 1])
def test_the_notice_of_the_model_is_shown_with_results_only(monkeypatch, n_job):
    """Regression: "Made by the demo model" was shown when nothing was made."""
    monkeypatch.setattr(predict, "show_findings", lambda *_: None)
    stream = io.StringIO()
    result = RunResult(n_unit=2, rankings=rankings(n_job, n_job))
    predict._show_result(Console(file=stream, width=120), result, load_config({"out": Path("out"), "model": "demo"}))
    assert ("Made by the demo model" in stream.getvalue()) == bool(n_job)
    assert "stopped with 2 of 2 seeds to do" in stream.getvalue()


def test_one_chain_has_no_iptm_and_its_low_score_is_explained():
    """Protenix's number is 0, and a score of 0.18 looks like a failed prediction."""
    names, *rows = table(140, n=2, chains=("A",))
    column = names.split().index("ipTM")
    assert [row.split()[column] for row in rows[:2]] == ["-", "-"]
    assert "One chain has no ipTM, so its score is 0.2 pTM" in " ".join(table(140, n=1, chains=("A",), more=3))
    assert [row.split()[column] for row in table(140, n=2)[1:]] == ["0.3600", "0.3600"]


def test_seeds_that_failed_in_the_same_way_are_one_row(tmp_path):
    """Regression: on a full disk each seed had three lines of the same text."""
    job, other = job_of(name="a", seeds=range(1, 21)), job_of(name="b", seeds=(1,))
    full = {"stage": "write", "message": "No space left on device", "advice": "free some space"}
    failures = [Failure(job=job, seed=seed, **full) for seed in (3, 1, 2, 9)]
    failures += [Failure(job=job, seed=5, **{**full, "message": "another"}), Failure(job=other, seed=None, **full)]
    stream = io.StringIO()
    config = load_config({"out": tmp_path})
    predict._show_failures(Console(file=stream, width=120, color_system=None), RunResult(failures=failures), config)
    rows = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert rows[0] == "6 failed"
    assert rows[2:5] == [
        "a 1-3,9 write No space left on device free some space",
        "a 5 write another free some space",
        "b all write No space left on device free some space",
    ]
