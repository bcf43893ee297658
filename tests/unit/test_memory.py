"""Compare the memory estimate with measured peaks, and check properties that planning relies on."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import cases
from support.allocations import Allocations
from support.jobs import network_of, scored

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution import memory
from protenix_multiseed.execution.memory import MARGIN, ModelSize, Settings, bytes_of_parts, estimate_peak_bytes
from protenix_multiseed.execution.plan import make_planner
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.kernels import language
from protenix_multiseed.kernels.base import Lengths, chunks, torch_kernels, triton_kernels
from protenix_multiseed.limits import EMPTY_TEMPLATES, TEMPLATE_SLOTS, TOKEN_PADDING_GPU
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast.pairformer import PairBlock, PairStack
from protenix_multiseed.model.fast.sampler import make_draws
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.settings import FeatureSettings, InputRules
from protenix_multiseed.types import Sizes
from protenix_multiseed.units import format_bytes, parse_bytes
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.models import DEFAULT_MODEL, model_spec


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    paths = cases.write_cases(tmp_path_factory.mktemp("inputs"))
    dictionary = EmbeddedDictionary()
    environment.prepare(dictionary)
    (job,) = read_jobs([paths["ligands"]], (1, 2, 3), InputRules(model="demo"), dictionary)
    (made,) = featurize(job, FeatureSettings())
    return made


@pytest.mark.parametrize(("seeds", "samples", "chunk", "precision"), [
    (1, 1, 1, "reference"), (3, 1, 1, "reference"), (1, 5, 5, "fast"), (2, 4, 2, "fast"),
    (1, 5, 5, "reference"),
])  # fmt: skip
def test_the_estimate_is_at_most_25_percent_above_the_peak_and_never_below(features, seeds, samples, chunk, precision):
    config = load_config({"model": "demo", "samples": samples, "steps": 2, "cycles": 1, "precision": precision})
    configs = build_configs(config.upstream_settings)
    model = demo.fill(build_model(configs))
    network = network_of(model, configs, "demo", precision=precision)
    planner = make_planner(config.plan_settings, configs, model, on_gpu=False, fused=False)
    estimate = planner.estimate(features.sizes, seeds, chunk)
    weights = sum(weight.nbytes for weight in model.parameters())
    with Allocations() as counted:
        for _ in range(2):  # the second pass has all joined weights, as most of a run does
            scored(network, features, features.seeds[:seeds], sample_chunk=chunk)
    measured = weights + counted.peak
    assert measured <= estimate.peak_bytes <= 1.25 * measured


@pytest.mark.parametrize("n_atoms", [(40,), (40, 40), (40, 31)], ids=str)
@pytest.mark.parametrize("upstream_chunk", [None, 7])
def test_random_numbers_of_all_steps_are_held_once(features, n_atoms, upstream_chunk):
    """With many samples and steps they are the largest tensors of a batch, and no smaller chunk makes them smaller."""
    configs = SimpleNamespace(
        sample_diffusion=SimpleNamespace(N_sample=30),
        infer_setting=SimpleNamespace(sample_diffusion_chunk_size=upstream_chunk),
    )
    network = SimpleNamespace(configs=configs, device=torch.device("cpu"))
    inputs = SimpleNamespace(owners=[SimpleNamespace(n_atom=n) for n in n_atoms], n_atom=max(n_atoms))
    rngs = [SeedRng(features.seeds[place], network.device) for place in range(len(n_atoms))]
    with Allocations() as counted:
        draws = make_draws(network, inputs, rngs, n_step=100)
    held = sum(x.nbytes for x in (draws.initial, draws.rotations, draws.translations, draws.noise))
    assert held <= counted.peak < 1.1 * held
    upstream = SeedRng(features.seeds[len(n_atoms) - 1], network.device)
    own = n_atoms[-1]
    for start in range(0, 30, upstream_chunk or 30):
        some = slice(start, min(start + (upstream_chunk or 30), 30))
        assert torch.equal(draws.initial[-1, some, :own], upstream.normal(some.stop - start, own, 3))
        for step in range(100):
            rotations = torch.from_numpy(upstream.rotations(some.stop - start)).float()
            assert torch.equal(draws.rotations[step, -1, some], rotations)
            assert torch.equal(draws.translations[step, -1, some, 0], upstream.normal(some.stop - start, 3))
            assert torch.equal(draws.noise[step, -1, some, :own], upstream.normal(some.stop - start, own, 3))


def test_no_tensor_of_an_earlier_step_is_alive_while_templates_are_embedded(features, monkeypatch):
    """A name that still holds a view keeps the whole tensor: 6 GiB at 4,096 tokens, most of it with MC dropout only."""
    alive, original = [], PairStack.__call__

    def watched(*arguments):
        alive.append(counted.now)
        original(*arguments)

    monkeypatch.setattr(PairStack, "__call__", watched)
    config = load_config({"model": "demo", "samples": 1, "steps": 2, "cycles": 2})
    configs = build_configs(config.upstream_settings)
    network = network_of(demo.fill(build_model(configs)), configs, "demo")
    with Allocations() as counted:
        for configs.mc_dropout_apply_rate in (0.0, 0.0, 1.0):  # the first pass allocates the weights that are kept
            scored(network, features, features.seeds[:1], sample_chunk=1)
    template = features.n_token**2 * network.module.template_embedder.c * 4
    assert len(alive) == 3 * 2 * 2  # two different templates in each of two cycles
    assert max(alive[4:]) - min(alive[4:]) < template / 2


class DiscardingList(list):
    """Drops every launch, whose arguments would otherwise stay in memory."""

    def append(self, launch):
        pass


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("elements", [2**30, 2**20, 2**19, 2**17])
@torch.no_grad()
def test_the_estimate_of_a_triangle_update_matches_its_peak(planner, is_fused, elements, monkeypatch):
    """Measured on the CPU. The tensors of Triton kernels are allocated there too; the kernels are not launched.

    With fewer elements in a temporary, the update is made in more chunks.
    """
    monkeypatch.setattr(memory, "MAX_PAIR_ELEMENTS_GPU", elements)
    settings = Settings(
        n_sample=1, n_step=1, trunk_bytes=4, padding=16, on_gpu=True, fused=is_fused,
        **bytes_of_parts("reference", half=False),
    )  # fmt: skip
    estimate = estimate_peak_bytes(
        Sizes(n_token=64, n_atom=64, n_msa=1), seeds=2, sample_chunk=1, settings=settings, model=planner.model
    )
    z = torch.randn(2, 64, 64, planner.model.c_z)
    block = build_model(build_configs(load_config({"model": "demo"}).upstream_settings)).pairformer_stack.blocks[0]
    triangles, biases = PairBlock(block, torch.float32).triangles, block.tri_att_start.no_heads * z[..., 0].nbytes
    kernels = torch_kernels(on_gpu=True)
    if is_fused:
        pytest.importorskip("triton")
        kernels = triton_kernels()
        monkeypatch.setattr(language, "launches_kept", DiscardingList())
    kernels = replace(kernels, pair_elements=elements, factor_elements=elements)
    lengths = Lengths.of([60, 60], z.device)
    triangles[-1](kernels, z, lengths)  # allocates the tensors that are kept between updates
    with Allocations() as counted:
        for update in triangles:
            update(kernels, z, lengths)
    updates = estimate.stages["trunk, triangle product"]["updates"]
    assert 0.9 * updates < counted.peak <= updates + biases


@given(st.integers(1, 5), st.integers(16, 900), st.sampled_from([32, 128, 256]))
def test_no_update_holds_more_than_its_estimate(seeds, n, width):
    """Arithmetic for every size, also between those that are measured: a step of one token can double the chunks."""
    most = 2**22
    settings = Settings(
        n_sample=1, n_step=1, trunk_bytes=2, padding=16, on_gpu=True, fused=True, **bytes_of_parts("fast", half=True)
    )
    attention = []
    parts = list(chunks(SimpleNamespace(shape=(seeds, n, n, width)), 3 * width, most))
    for some, rows in parts:
        n_pair = len(range(seeds)[some]) * len(range(n)[rows]) * n
        attention.append((4 if len(parts) == 1 else 5) * n_pair * width)  # query, key, value, output, and a copy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "MAX_PAIR_ELEMENTS_GPU", most)
        estimate = memory._triangle_bytes(seeds * n * n, width, 2, settings)
    rounding = 1 + 1 / n  # rows of a chunk
    assert 2 * max(attention) <= estimate * rounding


def test_empty_templates_need_half_the_memory_of_templates(planner):
    sizes = Sizes(n_token=600, n_atom=5000, n_msa=1000)
    empty, full = (planner.estimate(replace(sizes, n_template=n), 1, 5) for n in (EMPTY_TEMPLATES, TEMPLATE_SLOTS))
    name = "templates, projected"
    assert 2 * empty.stages["trunk, recycling"][name] == full.stages["trunk, recycling"][name]
    assert planner.estimate(sizes, 1, 5) == full


def limits_of(model):
    """Settings of a model: the numbers of tokens up to which its parts run in 32 bits."""
    names = ("sampling_full_precision_max_tokens", "confidence_full_precision_max_tokens")
    return {name: getattr(model_spec(model), name) for name in names}


CALIBRATION = {
    model: json.loads((cases.REPOSITORY / "tests" / "support" / name).read_text())
    for model, name in ((DEFAULT_MODEL, "memory_points.json"), ("protenix-v2", "memory_points_v2.json"))
}
POINTS = [(model, point) for model, measured in CALIBRATION.items() for point in measured["points"]]


@pytest.mark.parametrize(
    ("model", "point"),
    POINTS,
    ids=[f"{m}-{p['tokens']}-{p['msa_rows']}-{p['seeds']}-{p['precision']}-{p['factors']}" for m, p in POINTS],
)
def test_the_estimate_matches_peaks_measured_on_a_gpu(model, point):
    """Peaks by ``scripts/calibrate_memory.py``. No stage is estimated too low, the highest at most 25 % too high.

    In reference precision the denoiser's factors are in TF32 where float16 cannot be used. No job has templates.
    Points that do not say so are from before norms were folded into weights.
    """
    n_byte = bytes_of_parts(point["precision"], half=point["factors"] != "tf32")
    settings = Settings(
        n_sample=point["samples"], n_step=point["steps"], trunk_bytes=2, padding=TOKEN_PADDING_GPU, on_gpu=True,
        folds=point.get("folds", False), **n_byte, **limits_of(model),
    )  # fmt: skip
    sizes = {"n_token": point["tokens"], "n_atom": point["atoms"], "n_msa": point["msa_rows"]}
    estimate = estimate_peak_bytes(
        Sizes(**sizes, n_template=EMPTY_TEMPLATES),
        seeds=point["seeds"], sample_chunk=point["sample_chunk"], settings=settings,
        model=ModelSize(**CALIBRATION[model]["model"]),
    )  # fmt: skip
    assert point["measured"] <= estimate.peak_bytes <= 1.25 * point["measured"]
    for stage, measured in point["measured_by_stage"].items():
        assert measured <= estimate.peak_bytes_of(stage), stage


@pytest.fixture(scope="module")
def planner():
    config = load_config({"model": "demo"})
    configs = build_configs(config.upstream_settings)
    return make_planner(config.plan_settings, configs, build_model(configs), on_gpu=True, fused=True)


sizes = st.builds(
    lambda token, atom, msa: Sizes(n_token=token, n_atom=token * atom, n_msa=msa),
    st.integers(10, 4000), st.integers(1, 12), st.integers(1, 16_000),
)  # fmt: skip


@given(sizes, st.integers(1, 20), st.integers(1, 5))
def test_more_seeds_or_samples_never_take_less_memory(planner, sizes, seeds, chunk):
    peak = planner.peak_bytes(sizes)
    assert peak(seeds, chunk) <= peak(seeds + 1, chunk)
    assert peak(seeds, chunk) <= peak(seeds, chunk + 1)


@given(sizes, st.integers(2**31, 2**38))
def test_no_plan_exceeds_the_budget_unless_refused(planner, sizes, budget):
    batches = planner.plan(sizes, range(5), budget)
    if planner.refusal(sizes, budget) is None:
        assert all(batch.estimated_bytes <= budget for batch in batches)


@pytest.mark.parametrize(("tokens", "seeds", "is_roomy"), [(60, 1, False), (200, 20, True), (2_000, 1, True)])
def test_a_batch_is_roomy_if_that_makes_a_difference_and_the_memory_allows_it(planner, tokens, seeds, is_roomy):
    """Of 200 tokens and 20 seeds, the steps are kept for the next batch; of 2,000 tokens, chunks are larger."""
    sizes = Sizes(n_token=tokens, n_atom=8 * tokens, n_msa=100)
    usual, roomy = (planner.estimate(sizes, seeds, 5, roomy=roomy).peak_bytes for roomy in (False, True))
    assert (roomy > usual) == is_roomy
    for budget, wanted in ((roomy, is_roomy), (roomy - 1, False)):
        for batch in planner.plan(sizes, range(seeds), budget):
            expected = planner.estimate(sizes, len(batch.entries), batch.sample_chunk, roomy=wanted).peak_bytes
            assert (batch.roomy, batch.estimated_bytes) == (wanted, expected)
    jobs = {3: (sizes, range(seeds)), 5: (sizes, range(seeds))}
    (batch,) = planner.plan_group(jobs, 2**40)
    assert (batch.roomy, batch.jobs) == (is_roomy, (3, 5))


@pytest.mark.parametrize("model", CALIBRATION)
def test_folded_weights_count_where_pairs_are_wide_and_kernels_for_hopper_may_run(model):
    size = ModelSize(**CALIBRATION[model]["model"])
    settings = Settings(n_sample=5, n_step=200, trunk_bytes=2, on_gpu=True, **bytes_of_parts("fast", half=True))
    sizes = Sizes(n_token=608, n_atom=5000, n_msa=500, n_template=EMPTY_TEMPLATES)
    with_folds, without = (
        estimate_peak_bytes(sizes, seeds=2, sample_chunk=5, settings=replace(settings, folds=folds), model=size)
        for folds in (True, False)
    )
    folded = 56 * 20 * size.c_z**2 * 2  # 56 blocks; twenty matrices of this size in each, in bfloat16
    more = with_folds.peak_bytes_of("trunk, triangle product") - without.peak_bytes_of("trunk, triangle product")
    if size.c_z == 256:
        assert folded + 24 * 2 * 608**2 < more < 1.3 * folded + 24 * 2 * 608**2
    else:
        assert more == 0


def test_a_batch_with_enough_memory_counts_the_graph_of_a_larger_pairformer(planner):
    sizes, name = Sizes(n_token=245, n_atom=2000, n_msa=100), "last batch's trunk and its graph"
    usual, roomy = (planner.estimate(sizes, 5, 5, roomy=roomy).resident[name] for roomy in (False, True))
    assert roomy == 2.5 * usual  # 5 x 256 x 256 pairs, and 2 ** 17


def test_a_refusal_states_the_bytes_and_the_way_out(planner):
    refusal = planner.refusal(Sizes(n_token=5000, n_atom=40_000, n_msa=1), 8 * 2**30)
    assert "5000 tokens need about" in refusal
    assert "8.0 GiB are free" in refusal
    assert "--force" in refusal


@pytest.mark.parametrize("budget", [8 * 2**30, 24 * 2**30, 40 * 2**30])
def test_a_refusal_names_the_largest_size_that_fits(planner, budget):
    """In proportion to the refused complex. Up to 16 tokens more do not fit, since sizes are rounded to 16 tokens."""

    def sizes(n_token):
        return Sizes(n_token=n_token, n_atom=8 * n_token, n_msa=2000)

    refusal = planner.refusal(sizes(7000), budget)
    largest = int(re.search(r"at most (\d+) tokens would fit", refusal)[1])
    assert largest == planner.largest(sizes(7000), budget)
    assert planner.refusal(sizes(largest), budget) is None
    assert planner.refusal(sizes(largest + 16), budget) is not None


def test_a_refusal_says_if_no_size_fits(planner):
    assert planner.largest(Sizes(n_token=100, n_atom=800, n_msa=1), 2**20) == 0


def test_5120_tokens_fit_on_80_gb():
    """The default model, one seed with five samples, in reference precision. An H100 has 79 GiB free."""
    settings = Settings(
        n_sample=5,
        n_step=200,
        trunk_bytes=2,
        padding=TOKEN_PADDING_GPU,
        on_gpu=True,
        **bytes_of_parts("reference", half=False),
        **limits_of(DEFAULT_MODEL),
    )
    sizes = Sizes(n_token=5120, n_atom=44_000, n_msa=16_384)
    estimate = estimate_peak_bytes(
        sizes, seeds=1, sample_chunk=5, settings=settings, model=ModelSize(**CALIBRATION[DEFAULT_MODEL]["model"])
    )
    assert estimate.peak_bytes <= MARGIN * 79 * 2**30


@pytest.mark.parametrize(("text", "count"), [
    ("24GiB", 24 * 2**30), ("500 MB", 500_000_000), ("1.5gib", 3 * 2**29), ("2097152", 2**21),
])  # fmt: skip
def test_numbers_of_bytes_are_parsed_with_their_units(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-3GiB", "24 GBits", "0", "24", "4096"])
def test_text_that_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(ValueError, match="GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (2048, "2.0 KiB"), (3 * 2**30, "3.0 GiB")])
def test_numbers_of_bytes_are_formatted_with_units(count, text):
    assert format_bytes(count) == text
