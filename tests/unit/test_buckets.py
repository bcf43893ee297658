"""The padded sizes of a batch of several jobs."""

from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.limits import TOKEN_PADDING_GPU
from protenix_multiseed.model.buckets import padded_sizes
from protenix_multiseed.types import Sizes

sizes_of_jobs = st.builds(
    Sizes, n_token=st.integers(1, 6000), n_atom=st.integers(1, 60_000), n_msa=st.integers(1, 20_000)
)


@given(sizes_of_jobs)
def test_one_job_is_not_padded(sizes):
    assert padded_sizes([sizes]) == sizes


@given(st.lists(sizes_of_jobs, min_size=2, max_size=6))
def test_every_job_fits_and_little_is_added(sizes):
    padded = padded_sizes(sizes)
    n_token, n_atom = (max(getattr(one, name) for one in sizes) for name in ("n_token", "n_atom"))
    assert 0 <= padded.n_token - n_token < max(TOKEN_PADDING_GPU, n_token / 16 + 1)
    assert 0 <= padded.n_atom - n_atom < max(32, n_atom / 8 + 1)
    assert padded.n_msa == max(one.n_msa for one in sizes)
    assert padded.n_token % TOKEN_PADDING_GPU == 0
    assert padded.n_atom % 32 == 0


@given(st.lists(sizes_of_jobs, min_size=2, max_size=4), st.lists(sizes_of_jobs, max_size=4))
def test_more_jobs_are_never_padded_to_less(some, more):
    few, many = padded_sizes(some), padded_sizes([*some, *more])
    assert few.n_token <= many.n_token
    assert few.n_atom <= many.n_atom


def test_a_screening_run_has_few_shapes():
    """Jobs of 100 to 180 tokens with 6 to 9 atoms a token, in batches of two jobs of the same size."""
    of_jobs = [Sizes(n_token=n, n_atom=n * per // 10, n_msa=500) for n in range(100, 181) for per in range(60, 91)]
    padded = [padded_sizes([one, one]) for one in of_jobs]
    assert {one.n_token for one in padded} == {112, 128, 144, 160, 176, 192}
    assert len({(one.n_token, one.n_atom) for one in padded}) < 40
