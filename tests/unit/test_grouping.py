"""Small jobs of like size share batches: no seed is lost, memory and padding keep their limits, one job is as alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.jobs import job_of
from support.planners import ON_GPU, PLANNER

from protenix_multiseed.execution.grouping import group
from protenix_multiseed.execution.plan import arithmetic
from protenix_multiseed.limits import SHARED_BATCH_MAX_TOKENS
from protenix_multiseed.types import Failure, Sizes

GIB = 2**30

sizes = st.builds(
    lambda tokens, atoms, rows: Sizes(n_token=tokens, n_atom=tokens * atoms, n_msa=rows),
    st.integers(4, 700), st.integers(4, 24), st.integers(1, 3000),
)  # fmt: skip
alike = st.builds(
    lambda tokens, atoms, rows: Sizes(n_token=tokens, n_atom=8 * tokens + atoms, n_msa=rows),
    st.integers(100, 128), st.integers(0, 60), st.integers(400, 520),
)  # fmt: skip
jobs_lists = st.lists(st.tuples(st.one_of(sizes, alike, alike), st.integers(1, 45)), max_size=40).flatmap(
    lambda jobs: st.sampled_from([jobs, sorted(jobs, key=lambda job: -job[0].n_token)])
)
planners = st.builds(
    lambda jobs, entries, seeds: replace(
        PLANNER, settings=replace(PLANNER.settings, max_jobs=jobs, max_entries=entries, max_seeds=seeds)
    ),
    st.one_of(st.none(), st.integers(1, 30)), st.integers(1, 40), st.integers(1, 40),
)  # fmt: skip


def planned(planner, jobs, budget):
    """The batches of all jobs, each as (number of the job, seed) pairs, estimated bytes."""
    members = list(enumerate(jobs))
    made = []
    for chosen in group(members, lambda some: planner.may_share([job for _, job in some], budget)):
        numbers = [number for number, _ in chosen]
        plan = planner.plan_group(
            {place: (one, range(count)) for place, (_, (one, count)) in enumerate(chosen)}, budget
        )
        made += [([(numbers[job], seed) for job, seed in batch.entries], batch) for batch in plan]
    return made


@given(jobs_lists, planners, st.integers(2 * GIB, 12 * GIB))
def test_every_seed_is_in_one_batch_and_shared_batches_keep_the_limits(jobs, planner, budget):
    batches = planned(planner, jobs, budget)
    entries = [entry for batch, _ in batches for entry in batch]
    assert entries == [(number, seed) for number, (_, count) in enumerate(jobs) for seed in range(count)]
    for batch, plan in batches:
        numbers = list(dict.fromkeys(number for number, _ in batch))
        if len(numbers) == 1:
            continue
        chosen = [(jobs[number][0], sum(one == number for one, _ in batch)) for number in numbers]
        assert planner.max_jobs > 1
        assert len(numbers) <= planner.max_jobs
        assert len(batch) <= planner.settings.max_entries
        assert max(count for _, count in chosen) <= planner.settings.max_seeds
        assert max(one.n_token for one, _ in chosen) <= SHARED_BATCH_MAX_TOKENS
        assert 0 < plan.estimated_bytes <= budget
        assert planner.padding_percent(chosen) <= 10
        assert plan.sample_chunk == 5


@given(st.one_of(sizes, alike), st.integers(1, 45), planners, st.integers(GIB, 12 * GIB))
def test_one_job_alone_is_planned_as_if_jobs_shared_nothing(one, count, planner, budget):
    assert [plan for _, plan in planned(planner, [(one, count)], budget)] == list(
        planner.plan(one, range(count), budget)
    )


@given(jobs_lists, st.integers(2 * GIB, 12 * GIB))
def test_with_one_job_per_batch_the_plans_are_those_of_each_job(jobs, budget):
    planner = replace(PLANNER, settings=replace(PLANNER.settings, max_jobs=1))
    alone = [plan.seeds for one, count in jobs for plan in planner.plan(one, range(count), budget)]
    assert [plan.seeds for _, plan in planned(planner, jobs, budget)] == alone


@given(st.lists(alike, min_size=20, max_size=60))
def test_a_screen_fills_its_batches(screen):
    """Jobs of 100 to 128 tokens with one seed, sorted by tokens as in a run."""
    batches = planned(PLANNER, [(one, 1) for one in sorted(screen, key=lambda one: -one.n_token)], 70 * GIB)
    assert len(batches) <= len(screen) / 20 + 5


def test_padding_is_measured_against_what_each_job_computes_alone():
    """Tokens are padded to 16 anyway. 100 and 112 tokens are alike; 32 and 112 are not."""

    def job(tokens):
        return Sizes(n_token=tokens, n_atom=8 * 112, n_msa=1), 1

    assert PLANNER.padding_percent([job(100), job(112)]) == 0
    assert PLANNER.padding_percent([job(32), job(112)]) > 10
    assert PLANNER.may_share([job(100), job(112)], 70 * GIB)
    assert not PLANNER.may_share([job(32), job(112)], 70 * GIB)


def test_a_cpu_shares_no_batch_unless_it_is_asked_to():
    on_cpu = replace(PLANNER, memory=replace(ON_GPU, on_gpu=False, padding=1))
    assert (PLANNER.max_jobs, on_cpu.max_jobs) == (20, 1)
    assert replace(on_cpu, settings=replace(on_cpu.settings, max_jobs=6)).max_jobs == 6
    alone = replace(PLANNER.settings, max_jobs=6, reference_reason="--sequential")
    assert replace(PLANNER, settings=alone).max_jobs == 1


@pytest.mark.parametrize(("tokens", "atoms", "rows", "seconds"), [
    (120, 950, 501, 0.348), (245, 2529, 703, 0.865), (600, 5222, 12_424, 4.11),
], ids=str)  # fmt: skip
def test_arithmetic_follows_the_measured_times_of_a_seed_in_a_full_batch(tokens, atoms, rows, seconds):
    """Seconds of one seed on an H100 (docs/engine.md), relative to 245 tokens."""
    middle = arithmetic(Sizes(n_token=245, n_atom=2529, n_msa=703))
    assert arithmetic(Sizes(n_token=tokens, n_atom=atoms, n_msa=rows)) / middle == pytest.approx(
        seconds / 0.865, rel=0.34
    )


def test_a_group_is_yielded_when_the_device_waits_and_no_member_is_ready():
    waits = [False, True]
    made = group([1, 2, None, 3, None, None, 4], lambda some: len(some) < 5, lambda: waits.pop(0))
    assert list(made) == [(1, 2, 3), (4,)]
    assert not waits  # without an open group the device is not asked


def test_a_failure_passes_at_once_and_the_open_group_goes_on():
    failed = Failure(job=job_of(), seed=None, stage="featurize", message="no")
    coming = iter([1, failed, 2])
    made = group(coming, lambda some: len(some) < 5)
    assert next(made) == failed
    assert list(made) == [(1, 2)]


def test_members_that_may_not_share_are_groups_of_one_and_keep_their_order():
    made = group([1, 2, 30, 3, 4, 5], lambda some: max(some) < 10 and len(some) <= 2)
    assert list(made) == [(1, 2), (30,), (3, 4), (5,)]
