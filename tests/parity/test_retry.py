"""Out of memory during sampling, twice in a row, or during scoring: the retry gives the same results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import OpenGate

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.events import BatchProgress, Note
from protenix_multiseed.execution import hardware
from protenix_multiseed.execution.group_run import GroupRun, Ready
from protenix_multiseed.execution.memory import MARGIN
from protenix_multiseed.execution.model import LoadedModel
from protenix_multiseed.execution.transfer import Arriving
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.model import cuda_graphs
from protenix_multiseed.model.fast import FAST, confidence, sampler, trunk
from protenix_multiseed.model.stages import run_stages
from protenix_multiseed.settings import FeatureSettings, InputRules
from protenix_multiseed.types import Batch, Failure, Prediction
from protenix_multiseed.units import format_bytes
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
    """Predictions of a run without errors, by seed."""
    return {made.seed: made for made in predict(loaded(), features)}


def predict(model, features, notes=None):
    """Run one job. Returns predictions and failures, and appends the texts of notes to ``notes``."""
    made = list(GroupRun(model, Ready((Arriving(features),)), OpenGate()).events())
    if notes is not None:
        notes += [event.text for event in made if isinstance(event, Note)]
    return [event for event in made if isinstance(event, Prediction | Failure)]


def failing(function, calls):
    """``function``, but the calls with these numbers (from 1) run out of memory."""
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


def test_a_batch_is_told_before_its_first_step_is_done(features, model):
    """Regression: on a CPU nothing was shown of a batch during its first cycle, which may take minutes."""
    events = GroupRun(model, Ready((Arriving(features),)), OpenGate()).events()
    first = next(event for event in events if isinstance(event, BatchProgress))
    assert (first.seeds, first.stage, first.done, first.total, first.share) == (SEEDS, "trunk", 0, 1, 0.0)
    events.close()


@pytest.mark.parametrize(("calls", "retries"), [
    ({4}, [1, 1, 1]), ({4, 5}, [2, 2, 2]), ({4, 15}, [1, 1, 2]),
], ids=["in the sampler", "twice in a row", "then a seed alone"])  # fmt: skip
def test_a_retry_after_out_of_memory_gives_the_same_results(features, model, truth, monkeypatch, calls, retries):
    monkeypatch.setattr(sampler, "take_step", failing(sampler.take_step, calls))
    notes = []
    made = predict(model, features, notes)
    assert_same(made, truth)
    assert [len(prediction.run["retries"]) for prediction in made] == retries
    assert "3 seeds, 2 samples at a time" in notes[0]
    assert "out of memory; trying 2 seeds" in notes[0]


def test_seeds_scored_before_out_of_memory_are_kept(features, model, truth, monkeypatch):
    monkeypatch.setattr(confidence, "confidence_logits", failing(confidence.confidence_logits, {3}))
    made = predict(model, features)
    assert_same(made, truth)
    assert [prediction.run["batch"] for prediction in made] == [[1, 2, 3], [1, 2, 3], [3]]


def test_a_seed_that_never_fits_fails_with_its_size_in_the_message(features, model, monkeypatch):
    monkeypatch.setattr(sampler, "take_step", failing(sampler.take_step, range(1000)))
    made = predict(model, features)
    assert sorted(failed.seed for failed in made) == list(SEEDS)
    for failed in made:
        assert (
            f"out of memory with {features.n_token} tokens, one seed, one sample at a time (estimated" in failed.message
        )


def test_a_job_is_refused_by_the_free_memory_and_not_by_an_earlier_failure(features, model, monkeypatch):
    """Regression: another program had the card for a moment, and every later job of that size was refused untried."""
    one = replace(features, seeds=features.seeds[:1])
    with monkeypatch.context() as busy:
        busy.setattr(sampler, "take_step", failing(sampler.take_step, range(1000)))
        (failed,) = predict(model, one)
    assert failed.message.startswith("out of memory")
    (made,) = predict(model, one)
    assert isinstance(made, Prediction)
    assert made.run["sample_chunk"] == 1  # the plan keeps to what was learned
    monkeypatch.setattr(hardware, "available_bytes", lambda *_: 2**20)
    (failed,) = predict(model, one)
    assert f"and {format_bytes(int(MARGIN * 2**20))} are free" in failed.message


def test_graphs_kept_for_the_next_batch_do_not_change_results(features, model, truth, monkeypatch):
    """On a GPU a graph replays on the tensors of the batch before. Here a plain function stands in for the graph."""
    captures = []
    monkeypatch.setattr(cuda_graphs, "can_capture", lambda device: True)
    monkeypatch.setattr(cuda_graphs, "capture", lambda body: (captures.append(body), body)[1])
    for _ in range(2):
        made = predict(model, features)
        assert_same(made, truth)
    assert len(captures) == 2  # in batch 1 the denoising step; in batch 2 the trunk, which runs once a batch


def test_only_a_batch_with_enough_memory_captures_a_larger_pairformer(features, model, monkeypatch):
    captures = []

    def watched(*arguments, **named):
        captures.append(named["captures"])
        return cuda_graphs.GraphedLoop(*arguments, **named)

    monkeypatch.setattr(trunk, "GraphedLoop", watched)
    monkeypatch.setattr(cuda_graphs, "CUDA_GRAPH_MAX_PAIRS", features.n_token**2 - 1)
    monkeypatch.setattr(cuda_graphs, "CUDA_GRAPH_MAX_PAIRS_ROOMY", features.n_token**2)
    for roomy in (False, True):
        batch = Batch(parts=(features.only(SEEDS[:1]),), sample_chunk=1, roomy=roomy)
        next(run_stages(FAST, model.network, batch))
    assert captures == [False, True]


def test_a_lost_device_fails_all_remaining_seeds_at_once(features, model, monkeypatch):
    """After a GPU is lost, every CUDA call raises."""

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


class TimedGate(OpenGate):
    """A gate whose time is up after ``steps`` checks."""

    def __init__(self, steps):
        self.left = steps

    @property
    def time_is_up(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(("steps", "finished"), [(3, []), (12, [1]), (14, [1, 2]), (100, [1, 2, 3])])
def test_a_batch_that_is_given_up_between_steps_returns_its_finished_seeds(features, model, steps, finished):
    """A batch has one cycle and ten steps. Then the seeds are scored one by one, each followed by progress."""
    made = list(GroupRun(model, Ready((Arriving(features),)), TimedGate(steps)).events())
    assert [event.seed for event in made if isinstance(event, Prediction)] == finished


def test_a_seed_on_protenixs_own_modules_can_be_given_up_too(features):
    config = load_config({"model": "demo", "samples": 2, "steps": 10, "cycles": 1, "device": "cpu", "sequential": True})
    model = LoadedModel(config, KernelProbe("cpu", "torch"))
    model.load()
    made = list(GroupRun(model, Ready((Arriving(features),)), TimedGate(20)).events())
    assert [event.seed for event in made if isinstance(event, Prediction)] == [1]  # about 13 checks per seed
    model.close()
