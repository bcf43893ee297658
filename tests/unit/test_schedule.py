"""Units of many GPUs: no seed is lost and none is handed out twice, whatever GPUs come, die or give back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_multiseed.execution.schedule import Schedule, Unit

JOBS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 30)), min_size=1, max_size=6)


def schedule(jobs):
    return Schedule((cost, range(1, count + 1)) for cost, count in jobs)


def everything(jobs):
    return {(job, seed) for job, (_, count) in enumerate(jobs) for seed in range(1, count + 1)}


@settings(max_examples=100)
@given(JOBS, st.lists(st.integers(1, 9), min_size=6, max_size=6), st.data())
def test_every_seed_is_finished_once_whatever_happens(jobs, fits, data):
    """Any order of starts, finished seeds, lost GPUs, moved seeds and new GPUs."""
    made = schedule(jobs)
    gpus, n_gpu, finished, begun = {0}, 1, [], set()
    made.add(0)
    held = {0: []}

    def lose(gpu):
        started, waiting = made.remove(gpu)
        assert sorted([*started, *waiting]) == sorted(held.pop(gpu))
        gpus.discard(gpu)
        for (job, seed), alone in [(one, True) for one in started] + [(one, False) for one in waiting]:
            made.give_back(job, [seed], alone=alone)

    for _ in range(data.draw(st.integers(0, 40))):
        action = data.draw(st.sampled_from(["next", "finish", "start", "lose", "add", "move"]))
        if action == "add" and len(gpus) < 4:
            gpus.add(n_gpu)
            made.add(n_gpu)
            held[n_gpu] = []
            n_gpu += 1
        if not gpus:
            continue
        gpu = data.draw(st.sampled_from(sorted(gpus)))
        if action == "next" and (unit := made.next(gpu, fits.__getitem__)):
            assert 1 <= len(unit.seeds) <= fits[unit.job]
            held[gpu] += [(unit.job, seed) for seed in unit.seeds]
        elif action == "start" and held[gpu]:
            job, seed = held[gpu][0]
            made.started(gpu, job, [seed])
            begun.add((gpu, job, seed))
        elif action == "finish" and held[gpu]:
            job, seed = held[gpu].pop(0)
            assert made.finished(gpu, job, seed)
            assert not made.finished(gpu, job, seed)
            finished.append((job, seed))
        elif action == "lose":
            lose(gpu)
        elif action == "move" and (move := made.move(gpu, fits.__getitem__)):
            busy, units = move
            for unit in units:
                for seed in unit.seeds:
                    held[busy].remove((unit.job, seed))
                    assert made.finished(busy, unit.job, seed)
                made.give_back(unit.job, unit.seeds)
        for gpu in gpus:
            assert made.waiting(gpu) == sum(jobs[job][0] for job, seed in held[gpu] if (gpu, job, seed) not in begun)
    for gpu in sorted(gpus):
        lose(gpu)
    made.add(99)
    while (unit := made.next(99, fits.__getitem__)) is not None:
        for seed in unit.seeds:
            made.finished(99, unit.job, seed)
            finished.append((unit.job, seed))
    assert made.is_done
    assert sorted(finished) == sorted(everything(jobs))


@given(JOBS, st.integers(1, 5), st.integers(1, 9))
def test_without_faults_no_gpu_works_more_than_one_seed_longer_than_its_share(jobs, n_gpu, most):
    """Whichever GPU is free next gets the next unit, as a run does."""
    made = schedule(jobs)
    clocks = dict.fromkeys(range(n_gpu), 0)
    for gpu in clocks:
        made.add(gpu)
    idle = set()
    while len(idle) < n_gpu:
        gpu = min((gpu for gpu in clocks if gpu not in idle), key=clocks.__getitem__)
        unit = made.next(gpu, lambda job: most)
        if unit is None:
            idle.add(gpu)
            continue
        clocks[gpu] += made.cost(unit.job) * len(unit.seeds)
    assert made._rest == 0
    assert max(clocks.values()) <= sum(clocks.values()) / n_gpu + max(cost for cost, _ in jobs)


def test_units_become_smaller_near_the_end():
    made = Schedule([(1, range(40))])
    made.add(0)
    made.add(1)
    assert [len(made.next(gpu, lambda job: 30).seeds) for gpu in (0, 1)] == [20, 20]
    made = Schedule([(1, range(50))])
    made.add(0)
    made.add(1)
    counts = [len(made.next(gpu, lambda job: 20).seeds) for gpu in (0, 1, 0, 1)]
    assert sum(counts) == 50
    assert sum(counts[::2]) == 25


def test_a_gpu_that_is_ready_first_leaves_a_share_for_one_that_still_loads_and_never_waits_for_it():
    """Regression: of few seeds the first GPU took all, and the second one idled."""
    made = schedule([(1, 6)])
    made.add(0)
    made.n_expected = 2
    sizes = []
    while (unit := made.next(0, lambda job: 20)) is not None:
        assert made.next(0, lambda job: 20) is None
        sizes.append(len(unit.seeds))
        for seed in unit.seeds:
            made.finished(0, unit.job, seed)
    assert sizes == [3, 2, 1]
    assert made.is_done


def test_the_first_job_comes_first_and_a_job_that_does_not_fit_waits_for_another_gpu():
    made = schedule([(9, 2), (1, 4)])
    made.add(0)
    made.add(1)
    assert made.next(0, lambda job: 0 if job == 0 else 4).job == 1
    assert made.next(1, lambda job: 4).job == 0


def test_a_gpu_without_work_gets_half_of_what_another_one_has_not_begun():
    made = schedule([(1, 12)])
    made.add(0)
    made.next(0, lambda job: 6)
    made.next(0, lambda job: 6)
    made.started(0, 0, range(1, 7))
    made.add(1)
    assert made.move(1, lambda job: 1) == (0, (Unit(0, (7, 8, 9, 10, 11, 12)),))
    for seed in range(1, 7):
        made.finished(0, 0, seed)
    assert made.move(1, lambda job: 1) == (0, (Unit(0, (10, 11, 12)),))
    made.started(0, 0, range(7, 13))
    assert made.move(1, lambda job: 1) is None


def test_a_gpu_without_work_gets_nothing_that_it_cannot_predict():
    made = schedule([(9, 4), (1, 3)])
    made.add(0)
    made.next(0, lambda job: 4)
    made.next(0, lambda job: 4)
    made.add(1)
    assert made.move(1, lambda job: 0) is None
    assert made.move(1, lambda job: job) == (0, (Unit(1, (1, 2, 3)),))


def test_a_gpu_without_work_gets_half_of_many_small_jobs():
    made = schedule([(2, 1)] * 9)
    made.add(0)
    for _ in range(9):
        made.next(0, lambda job: 1)
    made.started(0, 0, [1])
    made.add(1)
    busy, units = made.move(1, lambda job: 1)
    assert (busy, sorted(unit.job for unit in units)) == (0, [5, 6, 7, 8])


def test_a_seed_that_must_be_alone_is_a_unit_of_its_own():
    made = schedule([(1, 5)])
    made.add(0)
    made.give_back(0, [8, 9], alone=True)
    units = [made.next(0, lambda job: 9) for _ in range(3)]
    assert units == [Unit(0, (8,), is_alone=True), Unit(0, (9,), is_alone=True), Unit(0, (1, 2, 3, 4, 5))]


@pytest.mark.parametrize(("n_started", "moved"), [(0, []), (1, [2])])
def test_gpus_without_work_do_not_take_the_last_seed_from_each_other(n_started, moved):
    """Regression: it went to and fro, each time before its features were there, and the run did not end."""
    made = schedule([(1, 2)])
    made.add(0)
    assert made.next(0, lambda job: 2) == Unit(0, (1, 2))
    made.add(1)
    made.started(0, 0, range(1, 1 + n_started))
    if not n_started:
        made.finished(0, 0, 2)  # it was taken back
    move = made.move(1, lambda job: 1)
    assert [seed for unit in (move[1] if move else ()) for seed in unit.seeds] == moved
