"""Plans hold every seed once, fit if anything fits, and can be halved down to one seed and one sample."""

from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.execution.plan import plan_batches, smaller
from protenix_multiseed.types import BatchPlan

seeds_lists = st.lists(st.integers(0, 2**31), min_size=1, max_size=40, unique=True)
estimates = st.builds(
    lambda base, per_seed, per_sample: lambda seeds, chunk: base + seeds * (per_seed + per_sample * chunk),
    st.integers(0, 1000), st.integers(1, 500), st.integers(0, 500),
)  # fmt: skip


@given(seeds_lists, st.integers(1, 12), st.integers(0, 20_000), estimates, st.integers(1, 30))
def test_a_plan_holds_every_seed_once_in_order_within_its_limits(seeds, n_sample, budget, estimate, most):
    batches = plan_batches(seeds, n_sample, budget, estimate, most)
    assert [seed for batch in batches for seed in batch.seeds] == seeds
    for batch in batches:
        assert 1 <= len(batch.seeds) <= most
        assert 1 <= batch.sample_chunk <= n_sample
        assert batch.estimated_bytes == estimate(len(batch.seeds), batch.sample_chunk)


@given(seeds_lists, st.integers(1, 12), st.integers(0, 20_000), estimates)
def test_a_plan_fits_if_one_seed_and_one_sample_fit(seeds, n_sample, budget, estimate):
    largest = max(batch.estimated_bytes for batch in plan_batches(seeds, n_sample, budget, estimate))
    assert (largest <= budget) == (estimate(1, 1) <= budget)


@given(seeds_lists, st.integers(1, 12), st.integers(0, 20_000), estimates)
def test_no_plan_of_fewer_batches_fits(seeds, n_sample, budget, estimate):
    batches = plan_batches(seeds, n_sample, budget, estimate, max_seeds=len(seeds))
    if len(batches) > 1:
        wider = -(-len(seeds) // (len(batches) - 1))
        assert estimate(wider, n_sample) > budget


def test_batches_are_even():
    batches = plan_batches(range(9), 5, 7, lambda seeds, chunk: seeds)
    assert [len(batch.seeds) for batch in batches] == [5, 4]


def test_samples_are_chunked_only_if_one_seed_does_not_fit():
    (batch, *_) = plan_batches([1, 2], 10, 4, lambda seeds, chunk: seeds * chunk)
    assert (batch.seeds, batch.sample_chunk) == ((1,), 4)


def test_a_roomy_batch_runs_as_a_usual_one_before_it_is_halved():
    batch = BatchPlan(entries=((0, 1), (0, 2)), sample_chunk=5, estimated_bytes=9, roomy=True)
    (small,) = smaller(batch, lambda part: 5 if part.roomy else 4, left=((0, 2),))
    assert small == BatchPlan(entries=((0, 2),), sample_chunk=5, estimated_bytes=4)


@given(st.integers(1, 64), st.integers(1, 64))
def test_halving_ends_at_one_seed_and_one_sample(n_seed, chunk):
    entries = tuple((0, seed) for seed in range(n_seed))
    batches = [BatchPlan(entries=entries, sample_chunk=chunk, estimated_bytes=0)]
    for _ in range(14):
        halved = [(batch, smaller(batch, lambda part: len(part.entries) * part.sample_chunk)) for batch in batches]
        for batch, parts in halved:
            assert parts or (len(batch.seeds), batch.sample_chunk) == (1, 1)
            assert not parts or tuple(seed for part in parts for seed in part.seeds) == batch.seeds
        batches = [part for _, parts in halved for part in parts]
    assert not batches
