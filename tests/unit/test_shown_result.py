"""The end of ``predict``: the rankings of the first jobs; a run of thousands does not print a table for each."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from protenix_multiseed.commands import predict
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.run.result import RunResult


@pytest.mark.parametrize(("n_job", "shown", "hidden"), [(20, 20, 0), (25, 20, 5)])
def test_the_rankings_of_the_first_jobs_are_shown_and_the_others_are_in_the_summary(monkeypatch, n_job, shown, hidden):
    names = []
    monkeypatch.setattr(predict, "show_findings", lambda console, name, findings, folder: names.append(name))
    console = Console(file=io.StringIO(), width=120)
    result = RunResult(findings=dict.fromkeys(f"job{number}" for number in range(n_job)))
    predict._show_result(console, result, load_config({"out": Path("out")}))
    assert names == [f"job{number}" for number in range(shown)]
    assert (f"... and {hidden} more jobs: out/summary.csv" in console.file.getvalue()) == bool(hidden)
