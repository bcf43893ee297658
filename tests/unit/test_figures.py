"""Estimates of time come from the measurements in docs/engine.md, and from nothing else."""

import re
from pathlib import Path

import pytest

from protenix_multiseed.execution.figures import FIGURES, batch_seconds, hold_for, share_done, stage_seconds

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "engine.md"
H100 = "NVIDIA H100 80GB HBM3"


def seconds(batches, tokens, **changes):
    what = {"card": H100, "model": "protenix_base_default_v1.0.0", "tokens": tokens} | changes
    if not hold_for(what.pop("card"), what.pop("model"), what["tokens"]):
        return None
    usual = {"precision": "reference", "cycles": 10, "steps": 200, "samples": 5}
    return sum(batch_seconds(seeds, **{**usual, **what}) for seeds in batches)


def documented():
    """Rows of the document's table: tokens, precision, seeds, all seconds, and seconds of trunk, sampling, scoring."""
    rows, size = [], ()
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        if len(cells) == 11 and cells[0][:1].isdigit():
            size = int(cells[0].split()[0]), int(cells[2])
        if len(cells) == 11 and cells[3] in ("reference", "fast") and size:
            rows.append((size[0], cells[3], size[1], *(float(cells[place]) for place in (4, 6, 7, 8))))
    return rows


def test_figures_are_those_of_the_document():
    table = {row[:3]: row[4:] for row in documented()}
    assert len(table) > 15
    for figure in FIGURES:
        if figure.tokens == 4096:  # the table of large complexes
            assert re.search(r"^\| 4,096 \| 10 \| 200 \| 215.3 \| 0.6 \| 13.0 \| 8.5 \|", DOCUMENT.read_text(), re.M)
            assert tuple(figure[3:]) == (215.3, 13.0, 8.5)
        else:
            assert tuple(figure[3:]) == table[tuple(figure[:3])], figure


@pytest.mark.parametrize("row", documented())
def test_every_documented_time_is_met_also_of_batches_that_no_figure_has(row):
    tokens, precision, seeds, measured = row[:4]
    assert seconds([seeds], tokens, precision=precision) == pytest.approx(measured, rel=0.07)


def test_batches_of_other_hosts_are_met_less_well():
    others = {(600, "reference"): 86.5, (1200, "reference"): 307, (600, "fast"): 71.0, (1200, "fast"): 269}
    for (tokens, precision), measured in others.items():
        assert seconds([20], tokens, precision=precision) == pytest.approx(measured, rel=0.1)


def test_time_grows_with_size_seeds_cycles_steps_and_samples():
    sizes = [seconds([5], tokens) for tokens in (60, 120, 200, 245, 400, 600, 1700, 2000, 3000, 4096)]
    assert sizes == sorted(sizes)
    assert sizes[0] == sizes[1]  # smaller jobs were not measured
    assert len(set(sizes[1:])) == len(sizes) - 1
    assert seconds([5, 5], 600) == 2 * seconds([5], 600)
    trunk, sample, score = next(row for row in FIGURES if row[:3] == (600, "reference", 1))[3:]
    assert seconds([1], 600) == pytest.approx(trunk + sample + score)
    assert seconds([1], 600, cycles=20) == pytest.approx(2 * trunk + sample + score)
    assert seconds([1], 600, steps=100) == pytest.approx(trunk + sample / 2 + score)
    assert seconds([1], 600, samples=10) == pytest.approx(trunk + 2 * sample + 2 * score)


@pytest.mark.parametrize(
    "unknown",
    [{"card": None}, {"card": "NVIDIA A100-SXM4-80GB"}, {"model": "protenix-v2"}, {"model": "demo"}, {"tokens": 4097}],
)
def test_nothing_is_said_of_what_was_not_measured(unknown):
    assert seconds([1], **{"tokens": 245, **unknown}) is None


def test_the_share_of_a_batch_follows_its_stages():
    seconds_of = {"trunk": 6.0, "sample": 3.0, "score": 1.0}
    assert share_done(seconds_of, "trunk", 1, 2) == pytest.approx(0.3)
    assert share_done(seconds_of, "sample", 0, 200) == pytest.approx(0.6)
    assert share_done(seconds_of, "sample", 100, 200) == pytest.approx(0.75)
    assert share_done(seconds_of, "score", 5, 5) == 1


def test_the_first_batch_is_expected_to_take_what_was_measured():
    usual = {"cycles": 10, "steps": 200, "on_gpu": True}
    large, small = (stage_seconds("reference", tokens, **usual) for tokens in (9000, 60))
    assert large["trunk"] > 10 * large["sample"]
    assert small["trunk"] < small["sample"]
    assert stage_seconds("reference", 60, **{**usual, "cycles": 20})["trunk"] == pytest.approx(2 * small["trunk"])
    cpu = stage_seconds("reference", 60, cycles=2, steps=8, on_gpu=False)
    assert cpu == {"trunk": 54.5, "sample": 29.3, "score": 40.9}
    assert "| all seeds batched | 54.5 | 29.3 | 40.9 |" in DOCUMENT.read_text()
