"""Compare the fast stages with their reference twins, seed by seed, on the CPU in float32.

Random draws must be equal. Coordinates must agree within 1e-3 A RMSD without superposition, confidence scores within
1e-4 of their range. With the weights used here, both differ far more between seeds and between samples.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import batch_of, configs_of, network_of, predictions

from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.fast import denoiser as denoiser_module
from protenix_multiseed.model.fast.trunk import add_templates, project_templates
from protenix_multiseed.model.inputs import make_inputs
from protenix_multiseed.model.reference.predict import predict_seed
from protenix_multiseed.model.reference.stages import REFERENCE
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import result_of
from protenix_multiseed.model.weights import build_model

SEEDS = (1, 2, 284)
JOBS = ("ligands", "rna", "bonded", "template")
RMSD, CONFIDENCE = 1e-3, 1e-4
RANGES = {"plddt": 100, "gpde": 32, "pae": 32, "pde": 32}


@dataclass
class World:
    """The features of every job, and a small model."""

    features: dict
    model: torch.nn.Module
    known: dict
    name: str = cases.MODEL

    def network(self, samples=2, mc_dropout=None, **overrides):
        configs = configs_of(self.name, samples=samples, **overrides)
        if mc_dropout is not None:
            configs.mc_dropout_apply_rate = float(mc_dropout)
        self.model.configs = configs
        return network_of(self.model, configs, self.name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    features = cases.featurize_cases(tmp_path_factory.mktemp("inputs"), SEEDS, [cases.EXAMPLE])
    model = demo.fill(build_model(configs_of()))
    with torch.no_grad():
        yield World(features=features, model=model, known={})


def predict_alone(world, network, features, seed):
    """The result by definition: one seed alone through upstream's forward pass."""
    return predict_seed(network, features, seed, full=True)


def max_rmsd(a, b):
    return float(np.sqrt(((a - b) ** 2).sum(-1).mean(-1)).max())


def is_close(key, ours, theirs, tolerance=CONFIDENCE):
    scale = 1 if key == "atom_plddt" else next((value for end, value in RANGES.items() if key.endswith(end)), 1)
    return np.allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def assert_agree(ours, theirs):
    assert ours.seed == theirs.seed
    assert max_rmsd(ours.coordinates, theirs.coordinates) < RMSD
    for mine, reference in zip(ours.summary, theirs.summary, strict=True):
        assert mine.keys() == reference.keys()
        for key in mine:
            assert is_close(key, mine[key], reference[key]), key
    for mine, reference in zip(ours.full, theirs.full, strict=True):
        for key in ("atom_plddt", "token_pair_pde", "contact_probs"):
            assert is_close(key, mine[key].mean(), reference[key].mean()), key


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("job", [*JOBS, pytest.param("7r6r", marks=pytest.mark.slow)])
def test_each_seed_of_a_batch_equals_that_seed_run_alone(world, job, samples):
    network, features = world.network(samples), world.features[job]
    batch = predictions(network, features, features.seeds)
    for seed, ours in zip(features.seeds, batch, strict=True):
        assert_agree(ours, predict_alone(world, network, features, seed))


def test_the_example_with_msa_matches_its_reference(world, monkeypatch):
    monkeypatch.setattr(world.model, "N_cycle", 1)  # one cycle keeps the test short; the tests of other jobs recycle
    network, features = world.network(samples=1), world.features["7r6r"]
    first, _ = predictions(network, features, features.seeds[:2])
    assert_agree(first, predict_alone(world, network, features, features.seeds[0]))


def test_seeds_and_samples_differ_by_far_more_than_the_tolerance(world):
    features = world.features["ligands"]
    batch = predictions(world.network(5), features, features.seeds)
    coordinates = np.concatenate([prediction.coordinates for prediction in batch])
    ptm = [float(sample["ptm"]) for prediction in batch for sample in prediction.summary]
    pairs = [(i, j) for i in range(len(ptm)) for j in range(i)]
    assert min(max_rmsd(coordinates[i : i + 1], coordinates[j : j + 1]) for i, j in pairs) > 1000 * RMSD
    assert np.median([abs(ptm[i] - ptm[j]) for i, j in pairs]) > 5 * CONFIDENCE


@pytest.mark.parametrize("rate", [0, 1])
def test_mc_dropout_off_or_on_matches_its_reference(world, rate):
    network, features = world.network(mc_dropout=rate), world.features["rna"]
    for seed, ours in zip(features.seeds, predictions(network, features, features.seeds), strict=True):
        assert_agree(ours, predict_alone(world, network, features, seed))


def test_mc_dropout_is_on_for_only_some_of_the_seeds(world):
    network, features = world.network(), world.features["rna"]
    coins = {SeedRng(seed, network.device).coin(network.configs.mc_dropout_apply_rate) for seed in features.seeds}
    assert coins == {True, False}, "choose SEEDS so that dropout is on for some and off for others"


def test_batch_split_and_sample_chunk_do_not_change_results(world):
    network, features = world.network(5), world.features["bonded"]
    whole = predictions(network, features, features.seeds)
    for parts, chunk in (([[2], [0, 1]], 5), ([[1, 0, 2]], 2), ([[0], [1], [2]], 1)):
        split = {}
        for part in parts:
            for prediction in predictions(
                network, features, [features.seeds[index] for index in part], sample_chunk=chunk
            ):
                split[prediction.seed] = prediction
        for prediction in whole:
            assert max_rmsd(prediction.coordinates, split[prediction.seed].coordinates) < RMSD
            assert [float(sample["ptm"]) for sample in prediction.summary] == pytest.approx(
                [float(sample["ptm"]) for sample in split[prediction.seed].summary], abs=CONFIDENCE
            )


def test_token_padding_does_not_change_results(world):
    network, features = world.network(), world.features["ligands"]
    padded = replace(network, padding=16)
    assert features.n_token % 16
    (plain,), (ours,) = (predictions(which, features, features.seeds[:1]) for which in (network, padded))
    assert_agree(ours, plain)


def test_more_samples_than_upstreams_chunk_match_their_reference(world):
    """Upstream computes seven samples in two chunks. It draws all numbers of the first chunk before the second."""
    network, features = world.network(7), world.features["bonded"]
    for seed, ours in zip(features.seeds, predictions(network, features, features.seeds, sample_chunk=7), strict=True):
        assert_agree(ours, predict_alone(world, network, features, seed))


def test_models_without_extra_noise_match_their_reference(world):
    """Settings of the mini and tiny models: gamma0 = 0, step_scale_eta = 1."""
    network = world.network(**{"sample_diffusion.gamma0": 0.0, "sample_diffusion.step_scale_eta": 1.0})
    features = world.features["bonded"]
    for seed, ours in zip(features.seeds, predictions(network, features, features.seeds), strict=True):
        assert_agree(ours, predict_alone(world, network, features, seed))


def test_protenix_v2(world):
    """This model matches its reference twin too. Its pair representation has 256 channels and eight attention heads."""
    name = "protenix-v2"
    v2 = replace(world, name=name, model=demo.fill(build_model(configs_of(name))), known={})
    network, features = v2.network(), world.features["bonded"]
    for seed, ours in zip(features.seeds, predictions(network, features, features.seeds), strict=True):
        assert_agree(ours, predict_alone(v2, network, features, seed))


@pytest.mark.parametrize("job", JOBS[1:])
def test_reference_stages_equal_upstreams_forward(world, job):
    """Bit for bit, so that a stage can be swapped for its twin without changing the rest."""
    network, features = world.network(), world.features[job]
    for seed, ours in zip(features.seeds, predictions(network, features, features.seeds, REFERENCE), strict=True):
        theirs = predict_alone(world, network, features, seed)
        assert np.array_equal(ours.coordinates, theirs.coordinates)
        assert all(
            np.array_equal(a[key], b[key]) for a, b in zip(ours.summary, theirs.summary, strict=True) for key in a
        )


def test_each_trunk_tensor_matches_its_reference(world):
    network, features = world.network(), world.features["template"]
    inputs = make_inputs(network, batch_of(features))
    made = [result_of(stages.run_trunk(network, inputs, [SeedRng(seed, network.device) for seed in features.seeds]))
            for stages in (FAST, REFERENCE)]  # fmt: skip
    for name in ("s_inputs", "s", "z"):
        ours, theirs = (getattr(trunk, name) for trunk in made)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max())), name


@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [1, 0, 0, 1], [0], [1, 2]], ids=str)
def test_templates_in_any_slots_match_upstream(world, slots):
    """Equal slots may or may not be next to each other. Slot 0 holds the template that was found."""
    network, features = world.network(), world.features["template"]
    inputs = make_inputs(network, batch_of(features, features.seeds[:2]))
    (job,) = inputs.parts
    shared = {name: value[slots] if name.startswith("template_") else value for name, value in job.shared.items()}
    n = features.n_token
    z = torch.randn(2, n, n, network.module.confidence_head.c_z, generator=torch.Generator().manual_seed(1))
    updated = z.clone()
    add_templates(network, inputs, updated, [project_templates(network, replace(job, shared=shared))])
    ours = updated - z
    for seed in range(2):
        torch.testing.assert_close(ours[seed], network.module.template_embedder(shared, z[seed]), rtol=0, atol=2e-5)


def test_fast_and_reference_trunk_leave_generators_in_the_same_state(world):
    network, features = world.network(), world.features["rna"]
    inputs = make_inputs(network, batch_of(features))
    rngs = [[SeedRng(seed, network.device) for seed in features.seeds] for _ in range(2)]
    for stages, each in zip((FAST, REFERENCE), rngs, strict=True):
        result_of(stages.run_trunk(network, inputs, each))
    for ours, theirs in zip(*rngs, strict=True):
        assert torch.equal(ours.normal(8), theirs.normal(8))
        assert np.array_equal(ours.rotations(2), theirs.rotations(2))
        assert ours.coin(0.5) == theirs.coin(0.5)


def test_the_fast_path_draws_only_from_the_seeds_own_generators(world, monkeypatch):
    """A draw without an explicit generator raises here. The last lines check that it does."""
    network, features = world.network(mc_dropout=0), world.features["bonded"]

    def refuse(*_, **named):
        if named.get("generator") is None and named.get("random_state") is None:
            raise AssertionError("a random number was drawn outside the seed's generators")

    for name in ("rand", "randn", "randint", "randperm", "normal"):
        original = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, _original=original, **k: (refuse(*a, **k), _original(*a, **k))[1])
    for name in ("rand", "randn", "normal", "uniform", "choice"):
        monkeypatch.setattr(np.random, name, refuse)
    predictions(network, features, features.seeds)
    with pytest.raises(AssertionError, match="outside the seed's generators"):
        torch.randn(3)


def test_predictions_do_not_change_global_generators(world):
    network, features = world.network(mc_dropout=1), world.features["bonded"]
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    predictions(network, features, features.seeds)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


# Errors to plant, by the stage whose result they change.
PLANTED = {
    "run_trunk": lambda trunk: replace(trunk, z=trunk.z + 0.05),
    "prepare_conditioning": lambda made: replace(made, pair_cond=made.pair_cond + torch.linspace(-1, 1, 128)),
    "sample": lambda coordinates: coordinates + 0.01,
    "score": lambda made: [
        raw | {"summary_confidence": [s | {"ptm": s["ptm"] + 0.01} for s in raw["summary_confidence"]]} for raw in made
    ],
}


def planted(stage):
    """A stage of the fast path with a wrong result."""

    def steps(*arguments):
        return PLANTED[stage]((yield from getattr(FAST, stage)(*arguments)))

    def at_once(*arguments):
        return PLANTED[stage](getattr(FAST, stage)(*arguments))

    return steps if stage in ("run_trunk", "sample") else at_once


@pytest.mark.parametrize("stage", PLANTED)
def test_swapping_a_stage_for_its_twin_finds_a_planted_error(world, stage):
    network, features = world.network(), world.features["bonded"]
    wrong = replace(FAST, **{stage: planted(stage)})
    truth = [predict_alone(world, network, features, seed) for seed in features.seeds[:1]]

    def agrees(stages):
        try:
            assert_agree(predictions(network, features, features.seeds[:1], stages)[0], truth[0])
        except AssertionError:
            return False
        return True

    assert not agrees(wrong)
    healed = {name for name in PLANTED if agrees(replace(wrong, **{name: getattr(REFERENCE, name)}))}
    assert healed == {stage}


def test_bfloat16_moves_coordinates_by_less_than_1_angstrom(world):
    """``--precision fast``: bfloat16 in the blocks of the diffusion network, float32 coordinates and noise."""
    network, features = world.network(), world.features["bonded"]
    fast = replace(network, precision="fast")
    exact = predictions(network, features, features.seeds[:1])[0]
    near = predictions(fast, features, features.seeds[:1])[0]
    off = max_rmsd(near.coordinates, exact.coordinates)
    assert RMSD < off < 1.0
    assert near.coordinates.dtype == np.float32


def test_bfloat16_scores_of_the_same_coordinates_differ_little(world):
    """``--precision fast``: bfloat16 in the confidence head's Pairformer. Here only the scores are computed in it."""
    network, features = world.network(), world.features["bonded"]

    def sample_in_float32(fast, *arguments):
        return FAST.sample(replace(fast, precision="reference"), *arguments)

    stages = replace(FAST, sample=sample_in_float32)
    (exact,) = predictions(network, features, features.seeds[:1])
    (near,) = predictions(replace(network, precision="fast"), features, features.seeds[:1], stages)
    assert np.array_equal(near.coordinates, exact.coordinates)
    for ours, theirs in zip(near.summary, exact.summary, strict=True):
        assert all(is_close(key, ours[key], theirs[key], 10 * CONFIDENCE) for key in ours)
    for ours, theirs in zip(near.full, exact.full, strict=True):
        assert not np.array_equal(ours["token_pair_pae"], theirs["token_pair_pae"])


def test_a_denoising_step_never_waits_for_the_device(world, monkeypatch):
    """A denoising step reads no value of a tensor in Python: on a GPU every read would wait for the device."""
    network, features = world.network(), world.features["bonded"]
    inside = []
    step = denoiser_module.Denoiser.__call__

    def watched(self, *arguments):
        inside.append(True)
        try:
            return step(self, *arguments)
        finally:
            inside.pop()

    def forbid(name):
        original = getattr(torch.Tensor, name)

        def checked(self, *arguments, **named):
            assert not inside, f"Tensor.{name} inside the denoising step"
            return original(self, *arguments, **named)

        monkeypatch.setattr(torch.Tensor, name, checked)

    monkeypatch.setattr(denoiser_module.Denoiser, "__call__", watched)
    for name in ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "nonzero"):
        forbid(name)
    predictions(network, features, features.seeds[:2])
