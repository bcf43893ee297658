"""Times of earlier batches on a device give the time of later jobs on it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.execution import speeds
from protenix_multiseed.execution.figures import MOST_TOKENS, batch_seconds
from protenix_multiseed.execution.speeds import Notes, Speed, Timing, note, timings_of

LIKE = {"model": "protenix-v2", "precision": "fast", "kernels": "triton"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def speed_of(device, **like):
    return speeds.speed_of(timings_of(device), **like)


def timing(ratio, **changes):
    return Timing(**{**LIKE, "tokens": 500, "ratio": ratio, "is_first": False, **changes})


def test_the_median_of_like_batches_counts():
    for ratio in (2.0, 3.0, 10.0):
        note("NVIDIA A100-SXM4-80GB", timing(ratio))
    others = [{"model": "demo"}, {"precision": "reference"}, {"kernels": "torch"}, {"tokens": 120}, {"tokens": 1500}]
    for other in others:
        note("NVIDIA A100-SXM4-80GB", timing(100.0, **other))
    assert speed_of("NVIDIA A100-SXM4-80GB", **LIKE, tokens=600) == Speed(ratio=3.0, is_first=False)
    assert speed_of("NVIDIA A100-SXM4-40GB", **LIKE, tokens=600) is None
    assert speed_of("NVIDIA A100-SXM4-80GB", **LIKE, tokens=2000).ratio == 100.0


def test_a_first_batch_which_compiles_counts_only_alone():
    note("CPU", timing(9.0, is_first=True))
    assert speed_of("CPU", **LIKE, tokens=500) == Speed(ratio=9.0, is_first=True)
    note("CPU", timing(2.0))
    assert speed_of("CPU", **LIKE, tokens=500) == Speed(ratio=2.0, is_first=False)


def test_batches_of_another_version_do_not_count():
    note("CPU", timing(2.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speeds, "__version__", "0.0.1")
        assert timings_of("CPU") == []
        note("CPU", timing(3.0))
    assert [one.ratio for one in timings_of("CPU")] == [2.0]


def test_old_batches_are_forgotten():
    for number in range(speeds._MOST + 50):
        note("CPU", timing(1.0 + number))
    assert len(timings_of("CPU")) == speeds._MOST
    assert speed_of("CPU", **LIKE, tokens=500).ratio > 50


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[3]", '[{"tokens": 1}]', json.dumps([{**LIKE, "tokens": 0, "ratio": 1, "is_first": True}])]
)
def test_a_damaged_file_says_nothing_and_is_written_anew(cache, text):
    note("CPU", timing(2.0))
    (path,) = (cache / "speeds").rglob("*.json")
    path.write_text(text)
    assert speed_of("CPU", **LIKE, tokens=500) is None
    note("CPU", timing(3.0))
    assert speed_of("CPU", **LIKE, tokens=500).ratio == 3.0


def test_a_cache_that_cannot_be_written_costs_nothing(cache):
    cache.write_text("a file")
    note("CPU", timing(2.0))
    assert speed_of("CPU", **LIKE, tokens=500) is None


@given(st.text(min_size=1))
def test_any_name_of_a_device_is_a_file_in_the_folder(name):
    assert speeds._path(name).parent == speeds._path("CPU").parent


def test_a_process_keeps_a_few_batches_of_each_size():
    notes = Notes("CPU", "demo", cycles=10, steps=200, samples=5)
    usual = batch_seconds(2, precision="fast", tokens=300, cycles=10, steps=200, samples=5)
    for _ in range(8):
        notes.add(2, 300, 3 * usual, precision="fast", kernels="triton")
    notes.add(1, 1200, 60.0, precision="fast", kernels="triton")
    notes.add(1, MOST_TOKENS + 1, 60.0, precision="fast", kernels="triton")
    kept = timings_of("CPU")
    assert [one.tokens for one in kept] == [300] * 5 + [1200]
    assert [one.is_first for one in kept] == [True] + [False] * 5
    assert [one.ratio for one in kept[:5]] == pytest.approx([3.0] * 5)
    assert kept[0] == Timing(
        model="demo", precision="fast", kernels="triton", tokens=300, ratio=kept[0].ratio, is_first=True
    )
