"""Tests that need a GPU: its random draws, its CUDA graphs, and the engine on it. Skipped on machines without a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import configs_of, predictions

from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.base import torch_kernels
from protenix_multiseed.kernels.language import HAS_GLUON
from protenix_multiseed.model import cuda_graphs, demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import predict_seed
from protenix_multiseed.model.stages import Scored, run_stages
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.types import Batch
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.models import model_spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SEEDS = (1, 2, 284)


@pytest.fixture(scope="module")
def features():
    environment.prepare(EmbeddedDictionary())
    rules = InputRules(model="m", reads=ReadSettings(rna_msa=False, template=False))
    (job,) = read_jobs([cases.EXAMPLE], SEEDS, rules, EmbeddedDictionary())
    return featurize(job, FeatureSettings())[0]


@pytest.fixture(scope="module")
def network():
    """The small architecture in float32, so that paths with the same computation give the same numbers."""
    configs = configs_of(samples=5, template=False, rna_msa=False, dtype="fp32")
    device = torch.device("cuda:0")
    return Network(
        module=demo.fill(build_model(configs)).to(device), configs=configs, spec=model_spec(cases.MODEL), device=device,
        kernels=torch_kernels(on_gpu=True), padding=16,
    )  # fmt: skip


def test_draws_are_upstreams_bit_for_bit(network, features, monkeypatch):
    drawn = []
    for name in ("randn", "randperm", "randint"):
        original = getattr(torch, name)

        def record(*args, original=original, name=name, **kwargs):
            made = original(*args, **kwargs)
            drawn.append((name, made.cpu().clone()))
            return made

        monkeypatch.setattr(torch, name, record)

    def record_in_place(x, *args, original=torch.Tensor.normal_, **kwargs):
        drawn.append(("randn", original(x, *args, **kwargs).cpu().clone()))
        return x

    monkeypatch.setattr(torch.Tensor, "normal_", record_in_place)
    monkeypatch.setitem(network.configs, "mc_dropout_apply_rate", 1.0)  # dropout draws from the same generator
    for seed in features.seeds:
        drawn.clear()
        predict_seed(network, features, seed, full=False)
        theirs = list(drawn)
        drawn.clear()
        predictions(network, features, [seed])
        assert len(drawn) == len(theirs) > 20
        for (our_name, ours), (name, reference) in zip(drawn, theirs, strict=True):
            assert our_name == name
            assert torch.equal(ours.flatten(), reference.flatten())


def test_each_seed_of_a_batch_equals_that_seed_run_alone(network, features):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for seed, ours in zip(features.seeds, predictions(network, features, features.seeds), strict=True):
        theirs = predict_seed(network, features, seed, full=True)
        distance = np.sqrt(((ours.coordinates - theirs.coordinates) ** 2).sum(-1).mean(-1)).max()
        assert distance < 1e-3
        for mine, reference in zip(ours.summary, theirs.summary, strict=True):
            assert float(mine["ptm"]) == pytest.approx(float(reference["ptm"]), abs=1e-4)


def test_results_do_not_depend_on_earlier_batches(network, features):
    """A CUDA graph captured for an earlier batch and a newly captured one give the same bytes."""
    seeds = features.seeds
    network.graphs.forget()
    first = predictions(network, features, seeds[:1])[0]
    predictions(network, features, seeds[1:2])
    again = predictions(network, features, seeds[:1])[0]
    assert np.array_equal(first.coordinates, again.coordinates)
    network.graphs.forget()
    assert np.array_equal(predictions(network, features, seeds[:1])[0].coordinates, first.coordinates)


def test_a_cuda_graph_replay_allocates_no_memory(network, features, monkeypatch):
    """Graphs are captured anew. PyTorch's allocation counter is read before and after each replay."""
    network.graphs.forget()
    counted = []
    replay = torch.cuda.CUDAGraph.replay

    def count(graph):
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        replay(graph)
        counted.append(torch.cuda.memory_stats()["allocation.all.allocated"] - before)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", count)
    predictions(network, features, features.seeds)
    assert len(counted) >= 9
    assert set(counted) == {0}


def test_batches_with_enough_memory_capture_each_shape_once_and_give_the_same_bytes(network, features, monkeypatch):
    """Also if their loops are larger than those that every batch may keep. Without memory, each batch captures anew."""
    monkeypatch.setattr(cuda_graphs, "CUDA_GRAPH_MAX_KEPT_BYTES", 1)
    captured = []
    capture = cuda_graphs.capture
    monkeypatch.setattr(cuda_graphs, "capture", lambda body: captured.append(body) or capture(body))
    made, counts = {}, {}
    for roomy in (False, True):
        network.graphs.forget()
        captured.clear()
        for seed in features.seeds:
            batch = Batch(parts=(features.only((seed.seed,)),), sample_chunk=5, roomy=roomy)
            (step,) = (step for step in run_stages(FAST, network, batch) if isinstance(step, Scored))
            made[roomy, seed.seed] = step.raw["coordinate"].clone()
        counts[roomy] = len(captured)
    assert counts[True] < counts[False]
    assert all(torch.equal(made[True, seed.seed], made[False, seed.seed]) for seed in features.seeds)


@pytest.mark.parametrize(("precision", "half"), [("reference", False), ("reference", True), ("fast", True)])
def test_triton_kernels_change_coordinates_far_less_than_samples_differ(network, features, precision, half):
    from protenix_multiseed.kernels.base import can_be_half, triton_kernels

    fused = replace(network, kernels=triton_kernels(half=half and can_be_half()), precision=precision)
    (plain,), (ours,) = (predictions(which, features, features.seeds[:1]) for which in (network, fused))
    difference = np.sqrt(((ours.coordinates - plain.coordinates) ** 2).sum(-1).mean(-1)).max()
    spread = np.sqrt(((plain.coordinates[0] - plain.coordinates[1]) ** 2).sum(-1).mean(-1))
    assert difference < spread / (1000 if precision == "reference" else 20)


@pytest.mark.skipif(
    not (torch.cuda.is_available() and torch.cuda.get_device_capability() == probe_process.HOPPER and HAS_GLUON),
    reason="no Hopper GPU, or no Triton 3.6",
)
def test_hopper_kernels_match_pytorch_also_when_one_key_outweighs_all_others():
    """The probe's cases; one of them needs the kernel's second, exact pass."""
    device = torch.device("cuda:0")
    used = [launch for launch in probe_process.wanted_launches(hopper=True)[0] if launch[0].is_gluon()]
    assert used
    assert probe_process.probe_triton(device, hopper=True) < probe_process.TOLERANCE
