"""Batches of several different jobs: each entry equals its job alone, stage by stage and at the end, on the CPU.

The jobs differ in tokens, atoms, MSA rows, templates, chains and kinds of molecules. The model is narrow, so that the
tests are short. Padding holds a large number in most tests. A test for each mask takes the mask away, and shows that
the comparison with the job alone then fails.
"""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import configs_of, network_of

from protenix_multiseed.errors import PredictionError
from protenix_multiseed.kernels.base import Lengths
from protenix_multiseed.kernels.ops.pair_bias import biases
from protenix_multiseed.model import cuda_graphs, demo
from protenix_multiseed.model import inputs as inputs_module
from protenix_multiseed.model.buckets import padded_sizes
from protenix_multiseed.model.fast import FAST, denoiser, msa, pairformer, sampler, trunk
from protenix_multiseed.model.inputs import make_inputs
from protenix_multiseed.model.reference.predict import predict_seed, to_prediction
from protenix_multiseed.model.reference.stages import REFERENCE
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import Conditioning, Scored, TrunkOutput, result_of, run_stages
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.types import Batch

SEEDS = (1, 284)  # MC dropout is on for the one seed and off for the other
NARROW = {
    **{f"model.{part}.c_z": 32 for part in (
        "relative_position_encoding", "template_embedder", "msa_module", "pairformer", "diffusion_module",
        "confidence_head", "distogram_head",
    )},
    **{f"model.{part}.c_s": 32 for part in ("pairformer", "diffusion_module", "confidence_head")},
    "c_z": 32, "c_s": 32,
    "model.msa_module.n_blocks": 2,  # the last block does not update the MSA
    "model.pairformer.n_heads": 4,
    "model.diffusion_module.c_token": 64,
    "model.diffusion_module.transformer.n_heads": 4,
}  # fmt: skip
RMSD, CONFIDENCE = 1e-3, 1e-4  # Angstrom; share of a score's range
RANGES = {"plddt": 100, "gpde": 32}
RELATIVE = 1e-5  # of the largest value, for a tensor of a stage
SMALL = ("bonded", "template", "rna")  # 37, 30 and 43 tokens; distinct templates: 2, 3 and 2


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    made = cases.featurize_cases(tmp_path_factory.mktemp("inputs"), SEEDS)
    of_job = made["template"]
    arrays = {
        name: value[[1, 0, 2, 3]] if name.startswith("template_") else value for name, value in of_job.arrays.items()
    }
    return made | {"template": replace(of_job, arrays=arrays)}  # the template lies between empty ones


@pytest.fixture(scope="module")
def model(features):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small: threads wait for each other longer than they work
    yield demo.fill(build_model(configs_of(**NARROW)))
    torch.set_num_threads(threads)


@pytest.fixture
def network(model):
    model.configs = configs_of(**NARROW)
    return network_of(model, model.configs)


@pytest.fixture
def filled(monkeypatch):
    """Padding holds a large number, so that a leak is seen."""
    monkeypatch.setattr(inputs_module, "PADDING", 30.0)


def batch_of(features, entries):
    """A batch of jobs with some of their seeds: ``[("rna", (1, 284)), ("bonded", (1,))]``."""
    return Batch(parts=tuple(features[name].only(seeds) for name, seeds in entries), sample_chunk=5)


def predicted(network, batch, stages=FAST):
    steps = [step for step in run_stages(stages, network, batch) if isinstance(step, Scored)]
    assert [step.index for step in steps] == list(range(len(batch.entries)))
    return [
        to_prediction(step.raw, part, seed.seed, full=True)
        for step, (part, seed) in zip(steps, batch.entries, strict=True)
    ]


def assert_agree(ours, theirs):
    assert (ours.job.name, ours.seed) == (theirs.job.name, theirs.seed)
    off = np.sqrt(((ours.coordinates - theirs.coordinates) ** 2).sum(-1).mean(-1)).max()
    assert off < RMSD
    for mine, other in zip(ours.summary, theirs.summary, strict=True):
        assert mine.keys() == other.keys()
        for key in mine:
            scale = next((value for end, value in RANGES.items() if key.endswith(end)), 1)
            assert np.allclose(mine[key], other[key], rtol=0, atol=CONFIDENCE * scale), key
    for mine, other in zip(ours.full, theirs.full, strict=True):
        assert np.allclose(mine["atom_plddt"], other["atom_plddt"], rtol=0, atol=CONFIDENCE)
        # The distance of a token to itself is zero but for rounding, and some edges of the made-up bins are near zero,
        # so it may fall into another bin.
        off = np.abs(mine["token_pair_pae"] - other["token_pair_pae"])
        is_self = np.eye(len(off), dtype=bool)
        assert off[~is_self].max() <= 32 * CONFIDENCE
        assert off[is_self].max() < 0.1


def coins(features, network):
    rate = network.configs.mc_dropout_apply_rate
    return {SeedRng(seed, network.device).coin(rate) for name in SMALL for seed in features[name].seeds}


def test_each_entry_equals_its_job_alone_in_upstreams_own_code(features, network, filled):
    """Five entries of four jobs of 30 to 106 tokens; two seeds of one job; MC dropout for some of the entries."""
    network.configs.sample_diffusion.N_sample = 1
    batch = batch_of(features, [("ligands", (1,)), ("rna", (1, 284)), ("bonded", (284,)), ("template", (1,))])
    assert coins(features, network) == {True, False}
    for ours, (part, seed) in zip(predicted(network, batch), batch.entries, strict=True):
        with torch.no_grad():
            assert_agree(ours, predict_seed(network, part, seed, full=True))


@pytest.fixture(scope="module")
def alone(features, model):
    """Each small job alone in a batch."""
    model.configs = configs_of(**NARROW)
    network = network_of(model, model.configs)
    return {name: predicted(network, batch_of(features, [(name, (1,))]))[0] for name in SMALL}


@pytest.mark.parametrize("names", [*permutations(SMALL, 2), SMALL], ids="-".join)
def test_any_order_of_jobs_gives_the_same_predictions(features, network, alone, filled, names):
    for ours in predicted(network, batch_of(features, [(name, (1,)) for name in names])):
        assert_agree(ours, alone[ours.job.name])


def test_factors_in_float16_keep_jobs_apart(features, network, filled):
    """The bias of a masked key is smaller in float16. A sum in another order may round a factor to another number."""
    half = replace(network, kernels=replace(network.kernels, half=True))
    for ours in predicted(half, batch_of(features, [(name, (1,)) for name in SMALL])):
        (theirs,) = predicted(half, batch_of(features, [(ours.job.name, (1,))]))
        assert np.sqrt(((ours.coordinates - theirs.coordinates) ** 2).sum(-1).mean(-1)).max() < 50 * RMSD


def test_reference_stages_give_the_same_bytes_in_any_batch(features, network, filled):
    names = ("bonded", "template")
    mixed = predicted(network, batch_of(features, [(name, (1,)) for name in names]), REFERENCE)
    for ours, name in zip(mixed, names, strict=True):
        (theirs,) = predicted(network, batch_of(features, [(name, (1,))]), REFERENCE)
        assert np.array_equal(ours.coordinates, theirs.coordinates)
        assert all(
            np.array_equal(a[key], b[key]) for a, b in zip(ours.summary, theirs.summary, strict=True) for key in a
        )


@pytest.mark.parametrize("stage", ["run_trunk", "prepare_conditioning", "sample", "score"])
def test_a_stage_may_be_swapped_for_its_twin_in_a_mixed_batch(features, network, alone, filled, stage):
    batch = batch_of(features, [(name, (1,)) for name in SMALL[:2]])
    for ours in predicted(network, batch, replace(FAST, **{stage: getattr(REFERENCE, stage)})):
        assert_agree(ours, alone[ours.job.name])


def test_a_job_that_is_not_finite_leaves_its_neighbours_alone(features, network):
    """Not one bit of a neighbour changes."""
    batch = batch_of(features, [(name, (1,)) for name in SMALL])
    good = [step.raw for step in run_stages(FAST, network, batch) if isinstance(step, Scored)]
    first, broken, last = batch.parts
    seeds = tuple(replace(seed, ref_pos=seed.ref_pos * np.nan) for seed in broken.seeds)
    poisoned = replace(batch, parts=(first, replace(broken, seeds=seeds), last))
    made = [step.raw for step in run_stages(FAST, network, poisoned) if isinstance(step, Scored)]
    for index in (0, 2):
        assert torch.equal(made[index]["coordinate"], good[index]["coordinate"])
        for ours, theirs in zip(made[index]["summary_confidence"], good[index]["summary_confidence"], strict=True):
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    with pytest.raises(PredictionError, match="'template' seed 1: a coordinate is not finite"):
        to_prediction(made[1], broken, 1, full=True)


def test_a_graph_is_replayed_for_a_batch_of_other_jobs_of_the_same_padded_sizes(
    features, network, alone, filled, monkeypatch
):
    """A replay runs on the tensors of the first batch, with the second batch's values: its lengths are among them."""
    captured = []
    monkeypatch.setattr(cuda_graphs, "can_capture", lambda device: True)
    monkeypatch.setattr(cuda_graphs, "capture", lambda body: (captured.append(body), body)[1])
    for names in (("bonded", "template"), ("template", "bonded")):
        for ours in predicted(network, batch_of(features, [(name, (1,)) for name in names])):
            assert_agree(ours, alone[ours.job.name])
    assert len(captured) == 2  # the trunk's and the sampler's, both in the first batch


def test_jobs_of_different_precision_cannot_share_a_batch(network):
    limit = next(n for n in range(1, 10_000) if network.spec.skip_amp(n) != network.spec.skip_amp(n + 1))
    with pytest.raises(ValueError, match="differ in precision"):
        network.set_sizes([limit, limit + 1])
    network.set_sizes([limit, limit - 1])


# Stage by stage. Each mask is taken away in turn: how, and the first stage whose result changes.


def stages_of(network, batch):
    """The tensors of each stage for a batch, without padding: a list of tensors for each entry."""
    with torch.no_grad():
        network.set_sizes([part.n_token for part in batch.parts])
        inputs = make_inputs(network, batch)
        rngs = [SeedRng(seed, network.device) for _, seed in batch.entries]
        made = result_of(FAST.run_trunk(network, inputs, rngs))
        conditioning = FAST.prepare_conditioning(network, inputs, made)
        x = result_of(FAST.sample(network, inputs, made, conditioning, rngs, 5))
    for value in (made.s_inputs, made.s, made.z, conditioning.pair_cond, conditioning.atom_pair, x):
        assert torch.isfinite(value).all()  # padding too: zero times NaN is NaN
    return [entry_of(part, index, made, conditioning, x) for index, part in enumerate(inputs.owners)]


def entry_of(part, index, made: TrunkOutput, conditioning: Conditioning, x):
    n, n_atom = slice(part.n_token), slice(part.n_atom)
    return {
        "run_trunk": [made.s_inputs[index, n], made.s[index, n], made.z[index, n, n]],
        "prepare_conditioning": [
            conditioning.pair_cond[index, n, n],
            conditioning.atom_pair[index, : part.n_window],
            conditioning.atom_single[index, n_atom],
        ],
        "sample": [x[index, :, n_atom]],
    }


def differing(mixed, single):
    """The stages in which an entry of a mixed batch differs from the job alone."""
    return {
        stage
        for ours, (theirs,) in zip(mixed, single, strict=True)
        for stage in ours
        for mine, other in zip(ours[stage], theirs[stage], strict=True)
        if not torch.allclose(mine, other, rtol=0, atol=RELATIVE * float(other.abs().max()))
    }


@pytest.fixture(scope="module")
def short(model):
    """One cycle and two steps: each mask is passed at least once."""
    model.configs = configs_of(steps=2, **{**NARROW, "mc_dropout_apply_rate": 1.0})
    return network_of(model, model.configs)


@pytest.fixture(scope="module")
def single(features, short):
    short.module.configs = short.configs
    return [stages_of(short, batch_of(features, [(name, (1,))])) for name in SMALL]


def biases_of_real_tokens(kernels, z, known, asked):
    """``biases`` with lengths that call no token padding."""
    return biases(kernels, z, known, replace(asked, lengths=replace(asked.lengths, are_equal=True)))


def everything_is_real(operation):
    """The operation with lengths that call no token padding."""

    def call(kernels, z, linear, lengths, *more):
        return operation(kernels, z, linear, replace(lengths, are_equal=True), *more)

    return call


def dropout_of_padded_block(self, x, p):
    """Draws the numbers for 48 tokens and uses those of the real ones."""
    n = len(x)
    whole = x.new_ones(48, 48, x.shape[-1])
    with self.as_globals():
        return x * torch.nn.functional.dropout(whole, p=p)[:n, :n]


def draw_for_padded_atoms(original):
    return lambda rng, draws, entry, samples, n_atom: original(rng, draws, entry, samples, 384)


def without_last_pass(original):
    """Templates of which the last distinct one of a job with more than others is left out."""
    return lambda network, inputs: original(network, inputs)[:2]


MASKS = {
    "biases of pairs": (
        "run_trunk", lambda patch: patch.setattr(pairformer, "biases", biases_of_real_tokens)
    ),
    "factors of triangle products": (
        "run_trunk",
        lambda patch: patch.setattr(pairformer, "gated_channels", everything_is_real(pairformer.gated_channels)),
    ),
    "weights of the MSA": (
        "run_trunk", lambda patch: patch.setattr(msa, "pair_bias", everything_is_real(msa.pair_bias))
    ),
    "lengths of a pass over some templates": (
        "run_trunk",
        lambda patch: patch.setattr(
            Lengths, "only", lambda self, spans: replace(self, each=self.each[: sum(s.stop - s.start for s in spans)])
        ),
    ),
    "number of templates": (
        "run_trunk", lambda patch: patch.setattr(trunk, "project_templates", without_last_pass(trunk.project_templates))
    ),
    "block of the dropout": ("run_trunk", lambda patch: patch.setattr(SeedRng, "dropout", dropout_of_padded_block)),
    "biases of tokens": (
        "sample",
        lambda patch: patch.setattr(
            denoiser.Denoiser, "_token_biases",
            lambda self, pair_cond, inputs, original=denoiser.Denoiser._token_biases: original(
                self, pair_cond, replace(inputs, parts=inputs.parts[:1])
            ),
        ),
    ),
    "keys of atoms": (
        "sample",
        lambda patch: patch.setattr(
            denoiser, "outside",
            lambda n_atom, device, n_window, original=denoiser.outside: original(32 * n_window, device),
        ),
    ),
    "atoms of a token": (
        "sample",
        lambda patch: patch.setattr(
            denoiser, "mean_of_atoms",
            lambda kernels, x, atoms, count, original=denoiser.mean_of_atoms: original(
                kernels, x, atoms[:1], count[:1]
            ),
        ),
    ),
    "token of an atom": (
        "sample",
        lambda patch: patch.setattr(
            denoiser, "atoms_and_tokens",
            lambda inputs, most, original=denoiser.atoms_and_tokens: (
                lambda tokens, *rest: (tokens[:1], *rest)
            )(*original(inputs, most)),
        ),
    ),
    "centre of the atoms": (
        "sample", lambda patch: patch.setattr(sampler._Padding, "of", classmethod(lambda cls, inputs: None))
    ),
    "draws of the atoms": (
        "sample", lambda patch: patch.setattr(sampler, "_draw_chunk", draw_for_padded_atoms(sampler._draw_chunk))
    ),
}  # fmt: skip


def mixed_stages(features, short):
    short.module.configs = short.configs
    batch = batch_of(features, [(name, (1,)) for name in SMALL])
    sizes = padded_sizes([part.sizes for part in batch.parts])
    assert (sizes.n_token, sizes.n_atom) == (48, 384)
    return stages_of(short, batch)


def test_each_stage_of_a_mixed_batch_equals_the_job_alone(features, short, single, filled):
    assert differing(mixed_stages(features, short), single) == set()


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_that_is_missing_is_found(features, short, single, filled, monkeypatch, mask):
    stage, take_away = MASKS[mask]
    take_away(monkeypatch)
    found = differing(mixed_stages(features, short), single)
    assert found, mask
    assert next(name for name in single[0][0] if name in found) == stage
