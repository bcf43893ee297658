"""Memory that runs out in the middle of the sampler, twice in a row, or while scoring: the answers stay the same."""

import numpy as np
import pytest
import torch
from support import cases

from protenix_multiseed import executor as executor_module
from protenix_multiseed import upstream
from protenix_multiseed.config import load_config
from protenix_multiseed.dictionary import EmbeddedDictionary
from protenix_multiseed.executor import Executor
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.inputs.check import InputRules
from protenix_multiseed.model import replay
from protenix_multiseed.model.fast import confidence, sampler
from protenix_multiseed.model.transfer import Arriving
from protenix_multiseed.types import FeatureSettings, Prediction

SEEDS = (1, 2, 3)
RMSD = 1e-3


class Watcher:
    def __init__(self):
        self.warnings = []

    def progress(self, job, text):
        pass

    def warn(self, job, text):
        self.warnings.append(text)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    paths = cases.write_cases(tmp_path_factory.mktemp("inputs"))
    dictionary = EmbeddedDictionary()
    upstream.prepare(dictionary)
    jobs = read_jobs([paths["bonded"]], SEEDS, InputRules(model="demo"), dictionary)
    return featurize(jobs[0], FeatureSettings())[0]


@pytest.fixture
def executor():
    with Executor(load_config({"model": "demo", "samples": 2, "steps": 10, "cycles": 1, "device": "cpu"})) as made:
        yield made


@pytest.fixture(scope="module")
def truth(features):
    """The answers of an undisturbed run."""
    with Executor(load_config({"model": "demo", "samples": 2, "steps": 10, "cycles": 1, "device": "cpu"})) as executor:
        return {made.seed: made for made in executor.predict(Arriving(features), Watcher())}


def failing(function, calls):
    """``function``, for which memory runs out at the numbered calls."""
    count = [0]

    def run(*arguments, **named):
        count[0] += 1
        if count[0] in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return function(*arguments, **named)

    return run


def assert_same(made, truth):
    assert sorted(prediction.seed for prediction in made) == sorted(truth)
    for ours in made:
        assert isinstance(ours, Prediction), ours
        theirs = truth[ours.seed]
        assert np.sqrt(((ours.coordinates - theirs.coordinates) ** 2).sum(-1).mean(-1)).max() < RMSD
        for mine, reference in zip(ours.summary, theirs.summary, strict=True):
            assert float(mine["ranking_score"]) == pytest.approx(float(reference["ranking_score"]), abs=1e-4)


@pytest.mark.parametrize(("calls", "retries"), [
    ({4}, [1, 1, 1]), ({4, 5}, [2, 2, 2]), ({4, 15}, [1, 1, 2]),
], ids=["in the sampler", "twice in a row", "then a seed alone"])  # fmt: skip
def test_memory_that_runs_out_between_steps(features, executor, truth, monkeypatch, calls, retries):
    monkeypatch.setattr(sampler, "take_step", failing(sampler.take_step, calls))
    watcher = Watcher()
    made = list(executor.predict(Arriving(features), watcher))
    assert_same(made, truth)
    assert [len(prediction.run["retries"]) for prediction in made] == retries
    assert "3 seeds, 2 samples at a time" in watcher.warnings[0]
    assert "out of memory; trying 2 seeds" in watcher.warnings[0]


def test_what_was_scored_before_memory_ran_out_is_kept(features, executor, truth, monkeypatch):
    scored = []
    original = confidence.confidence_logits
    third = failing(original, {3})
    monkeypatch.setattr(
        confidence, "confidence_logits", lambda *arguments: (scored.append(arguments[4]), third(*arguments))[1]
    )
    made = list(executor.predict(Arriving(features), Watcher()))
    assert_same(made, truth)
    assert [prediction.run["batch"] for prediction in made] == [[1, 2, 3], [1, 2, 3], [3]]


def test_memory_that_never_suffices_fails_the_seed_with_its_figures(features, executor, monkeypatch):
    monkeypatch.setattr(sampler, "take_step", failing(sampler.take_step, range(1000)))
    made = list(executor.predict(Arriving(features), Watcher()))
    assert sorted(failed.seed for failed in made) == list(SEEDS)
    for failed in made:
        assert (
            f"out of memory with {features.n_token} tokens, one seed, one sample at a time (estimated" in failed.message
        )


def test_loops_kept_for_the_next_batch_change_no_answer(features, executor, truth, monkeypatch):
    """As on a GPU, where graphs replay on the last batch's tensors; here a function stands for a graph."""
    captures = []
    monkeypatch.setattr(replay, "can_capture", lambda device: True)
    monkeypatch.setattr(replay, "capture", lambda body: (captures.append(body), body)[1])
    for _ in range(2):
        made = list(executor.predict(Arriving(features), Watcher()))
        assert_same(made, truth)
    assert len(captures) == 2  # the steps in the first batch; the trunk, of one cycle each, in the second


def test_a_device_that_is_lost_fails_what_is_left_at_once(features, executor, monkeypatch):
    """As CUDA does after a card has gone: every call raises."""

    def gone(*_, **__):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(sampler, "take_step", gone)
    monkeypatch.setattr(executor_module, "free_memory", lambda device: "CUDA error: unspecified launch failure")
    made = list(executor.predict(Arriving(features), Watcher()))
    assert sorted(failed.seed for failed in made) == list(SEEDS)
    assert all("unspecified launch failure" in failed.message for failed in made)
    monkeypatch.undo()
    after = list(executor.predict(Arriving(features), Watcher()))
    assert all("the device no longer answers" in failed.message for failed in after)
    assert all("the same command again" in failed.message for failed in after)
