"""Memory that runs out in the middle of the sampler, twice in a row, or while scoring: the answers stay the same."""

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import OpenGate

from protenix_multiseed.config import load_config
from protenix_multiseed.events import Note
from protenix_multiseed.execution import hardware
from protenix_multiseed.execution.local import JobRun
from protenix_multiseed.execution.model import LoadedModel
from protenix_multiseed.execution.transfer import Arriving
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.model import cuda_graphs
from protenix_multiseed.model.fast import confidence, sampler
from protenix_multiseed.settings import FeatureSettings, InputRules
from protenix_multiseed.types import Failure, Prediction
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

SEEDS = (1, 2, 3)
RMSD = 1e-3


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    paths = cases.write_cases(tmp_path_factory.mktemp("inputs"))
    dictionary = EmbeddedDictionary()
    environment.prepare(dictionary)
    jobs = read_jobs([paths["bonded"]], SEEDS, InputRules(model="demo"), dictionary)
    return featurize(jobs[0], FeatureSettings())[0]


def loaded():
    config = load_config({"model": "demo", "samples": 2, "steps": 10, "cycles": 1, "device": "cpu"})
    model = LoadedModel(config, KernelProbe("cpu", "torch"))
    model.load()
    return model


@pytest.fixture
def model():
    made = loaded()
    yield made
    made.close()


@pytest.fixture(scope="module")
def truth(features):
    """The answers of an undisturbed run."""
    return {made.seed: made for made in predict(loaded(), features)}


def predict(model, features, notes=None):
    """Predictions and failures; notes go to the list."""
    made = list(JobRun(model, Arriving(features), OpenGate()).events())
    if notes is not None:
        notes += [event.text for event in made if isinstance(event, Note)]
    return [event for event in made if isinstance(event, Prediction | Failure)]


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
def test_memory_that_runs_out_between_steps(features, model, truth, monkeypatch, calls, retries):
    monkeypatch.setattr(sampler, "take_step", failing(sampler.take_step, calls))
    notes = []
    made = predict(model, features, notes)
    assert_same(made, truth)
    assert [len(prediction.run["retries"]) for prediction in made] == retries
    assert "3 seeds, 2 samples at a time" in notes[0]
    assert "out of memory; trying 2 seeds" in notes[0]


def test_what_was_scored_before_memory_ran_out_is_kept(features, model, truth, monkeypatch):
    scored = []
    original = confidence.confidence_logits
    third = failing(original, {3})
    monkeypatch.setattr(
        confidence, "confidence_logits", lambda *arguments: (scored.append(arguments[4]), third(*arguments))[1]
    )
    made = predict(model, features)
    assert_same(made, truth)
    assert [prediction.run["batch"] for prediction in made] == [[1, 2, 3], [1, 2, 3], [3]]


def test_memory_that_never_suffices_fails_the_seed_with_its_figures(features, model, monkeypatch):
    monkeypatch.setattr(sampler, "take_step", failing(sampler.take_step, range(1000)))
    made = predict(model, features)
    assert sorted(failed.seed for failed in made) == list(SEEDS)
    for failed in made:
        assert (
            f"out of memory with {features.n_token} tokens, one seed, one sample at a time (estimated" in failed.message
        )


def test_loops_kept_for_the_next_batch_change_no_answer(features, model, truth, monkeypatch):
    """As on a GPU, where graphs replay on the last batch's tensors; here a function stands for a graph."""
    captures = []
    monkeypatch.setattr(cuda_graphs, "can_capture", lambda device: True)
    monkeypatch.setattr(cuda_graphs, "capture", lambda body: (captures.append(body), body)[1])
    for _ in range(2):
        made = predict(model, features)
        assert_same(made, truth)
    assert len(captures) == 2  # the steps in the first batch; the trunk, of one cycle each, in the second


def test_a_device_that_is_lost_fails_what_is_left_at_once(features, model, monkeypatch):
    """As CUDA does after a card has gone: every call raises."""

    def gone(*_, **__):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(sampler, "take_step", gone)
    monkeypatch.setattr(hardware, "free_memory", lambda device: "CUDA error: unspecified launch failure")
    made = predict(model, features)
    assert sorted(failed.seed for failed in made) == list(SEEDS)
    assert all("unspecified launch failure" in failed.message for failed in made)
    monkeypatch.undo()
    after = predict(model, features)
    assert all("the device no longer answers" in failed.message for failed in after)
    assert all("the same command again" in failed.message for failed in after)


class Gate(OpenGate):
    """Time is up after some steps."""

    def __init__(self, steps):
        self.left = steps

    @property
    def time_is_up(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(("steps", "finished"), [(3, []), (12, [1]), (14, [1, 2]), (100, [1, 2, 3])])
def test_a_batch_is_given_up_between_two_steps_and_what_is_finished_comes_out(features, model, steps, finished):
    """One cycle and ten steps; then a seed after the other is scored, each followed by its progress."""
    made = list(JobRun(model, Arriving(features), Gate(steps)).events())
    assert [event.seed for event in made if isinstance(event, Prediction)] == finished


def test_a_seed_on_protenixs_own_modules_is_given_up_too(features):
    config = load_config({"model": "demo", "samples": 2, "steps": 10, "cycles": 1, "device": "cpu", "sequential": True})
    model = LoadedModel(config, KernelProbe("cpu", "torch"))
    model.load()
    made = list(JobRun(model, Arriving(features), Gate(20)).events())
    assert [event.seed for event in made if isinstance(event, Prediction)] == [1]  # some 13 checks a seed
    model.close()
