"""Memory runs out at chosen sizes and calls: every seed comes out once, finished or with a reason."""

from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.errors import Stopped
from protenix_multiseed.execution.plan import plan_batches
from protenix_multiseed.execution.retry import Done, MemoryLimit, Retry, Retrying
from protenix_multiseed.types import BatchPlan


class OutOfMemoryError(Exception):
    pass


class FakeDevice:
    """Runs out of memory above a size. In chosen calls it runs out at any size, after it has finished some seeds.

    Args:
        capacity: Seeds times samples that fit at once.
        failing: By number of the call, from 1, how many seeds finish before it runs out of memory.
        broken: Seeds that raise another error, which fails their batch.
    """

    def __init__(self, capacity, failing, broken):
        self.capacity, self.failing, self.broken = capacity, failing, broken
        self.calls = 0
        self.released = 0
        self.tried = []

    def run(self, batch):
        self.calls += 1
        self.tried.append(batch)
        fails_after = self.failing.get(self.calls)
        for number, (_, seed) in enumerate(batch.entries):
            if fails_after is not None and number >= fails_after:
                raise OutOfMemoryError
            if len(batch.seeds) * batch.sample_chunk > self.capacity:
                raise OutOfMemoryError
            if seed in self.broken:
                raise ValueError(f"seed {seed} is broken")
            yield Done((0, seed), f"done {seed}")

    def release(self):
        self.released += 1


def estimate(batch):
    return 10 * len(batch.entries) * batch.sample_chunk


def events(device, seeds, n_sample, limit, budget=10_000, **more):
    retry = Retry(
        run=device.run,
        estimate=estimate,
        is_out_of_memory=lambda error: isinstance(error, OutOfMemoryError),
        release=device.release,
        fail=lambda batch, entry, error: f"lost {entry[1]}: {type(error).__name__}",
        limit=limit,
        **more,
    )
    return retry.run_all(plan_batches(seeds, n_sample, limit.budget(budget), lambda count, chunk: 10 * count * chunk))


def run_seeds(*arguments, **more):
    """Run seeds with retry. Returns each seed with its result, in the order in which they come out."""
    return [(item.entry[1], item.result) for item in events(*arguments, **more) if isinstance(item, Done)]


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(0, 60),
    st.dictionaries(st.integers(1, 30), st.integers(0, 4), max_size=8),
    st.sets(st.integers(0, 99), max_size=5),
)
def test_every_seed_comes_out_exactly_once(jobs, n_sample, capacity, failing, broken):
    device, limit = FakeDevice(capacity, failing, broken), MemoryLimit()
    for seeds in jobs:
        results = run_seeds(device, seeds, n_sample, limit)
        assert sorted(seed for seed, _ in results) == sorted(seeds)
        for seed, result in results:
            assert result in (f"done {seed}", f"lost {seed}: OutOfMemoryError", f"lost {seed}: ValueError")
            if seed in broken:
                assert result != f"done {seed}"
    assert all(len(batch.seeds) == len(set(batch.seeds)) for batch in device.tried)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 60))
def test_seeds_that_fit_alone_always_finish(n_seed, n_sample, capacity):
    results = run_seeds(FakeDevice(capacity, {}, set()), list(range(n_seed)), n_sample, MemoryLimit())
    assert [result for _, result in sorted(results)] == [f"done {seed}" for seed in range(n_seed)]


def test_seeds_are_halved_before_samples():
    device = FakeDevice(2, {}, set())
    run_seeds(device, [1, 2], 4, MemoryLimit())
    assert [(batch.seeds, batch.sample_chunk) for batch in device.tried][:3] == [((1, 2), 4), ((1,), 4), ((1,), 2)]


def test_a_learned_limit_bounds_the_batches_of_later_jobs():
    device, limit = FakeDevice(6, {}, set()), MemoryLimit()
    run_seeds(device, [1, 2, 3, 4], 3, limit)
    first = device.calls
    results = run_seeds(device, [5, 6, 7, 8], 3, limit)
    assert all(len(batch.seeds) * batch.sample_chunk <= 6 for batch in device.tried[first:])
    assert len(results) == 4


def test_finished_seeds_are_not_run_again():
    device = FakeDevice(100, {1: 3}, set())
    run_seeds(device, [1, 2, 3, 4, 5], 1, MemoryLimit())
    assert [batch.seeds for batch in device.tried] == [(1, 2, 3, 4, 5), (4, 5)]


def test_a_batch_that_runs_out_of_memory_twice_is_halved_twice():
    device = FakeDevice(100, {1: 0, 2: 0}, set())
    results = run_seeds(device, [1, 2, 3, 4], 1, MemoryLimit())
    assert [result for _, result in sorted(results)] == ["done 1", "done 2", "done 3", "done 4"]
    assert [len(batch.seeds) for batch in device.tried[:3]] == [4, 2, 1]
    assert device.released == 2


def test_one_broken_seed_fails_no_other():
    device = FakeDevice(100, {}, {2})
    results = dict(run_seeds(device, [1, 2, 3], 1, MemoryLimit()))
    assert results == {1: "done 1", 2: "lost 2: ValueError", 3: "done 3"}


def test_a_failed_batchs_tensors_are_freed_before_the_retry():
    """The error's traceback holds the tensors, so nothing may refer to the error when memory is released."""
    import gc
    import weakref

    class Tensor:
        pass

    held = []

    class Device(FakeDevice):
        def run(self, batch):
            tensor = Tensor()
            held.append(weakref.ref(tensor))
            yield from super().run(batch)

        def release(self):
            gc.collect()
            assert held[-1]() is None

    run_seeds(Device(1, {}, set()), [1, 2], 1, MemoryLimit())
    assert len(held) == 3


def test_a_retry_is_announced_between_the_results():
    device = FakeDevice(100, {1: 1}, set())
    received = list(events(device, [1, 2, 3], 1, MemoryLimit()))
    assert [type(item) for item in received] == [Done, Retrying, Done, Done]
    assert (received[1].reason, [batch.seeds for batch in received[1].instead]) == ("out of memory", [(2, 3)])


def test_finished_seeds_come_out_when_the_run_is_stopped():
    """The run is stopped in the fourth seed. The three finished seeds come out, and no new seed begins."""

    class Device(FakeDevice):
        def run(self, batch):
            for seed in batch.seeds[:3]:
                yield Done((0, seed), f"done {seed}")
            raise Stopped

    device = Device(100, {}, set())
    assert [seed for seed, _ in run_seeds(device, list(range(30)), 1, MemoryLimit())] == [0, 1, 2]


def test_only_admitted_seeds_run_and_each_is_asked_for_once():
    asked = []

    def admit(entries):
        asked.extend(seed for _, seed in entries)
        return [entry for entry in entries if entry[1] % 2]

    device = FakeDevice(3, {}, set())
    results = run_seeds(device, list(range(8)), 1, MemoryLimit(), admit=admit)
    assert sorted(seed for seed, _ in results) == [1, 3, 5, 7]
    assert asked == list(range(8))


class MixedDevice(FakeDevice):
    """Runs entries of several jobs. The jobs in ``broken`` raise an error before any entry is finished."""

    def run(self, batch):
        self.tried.append(batch)
        if len(batch.entries) * batch.sample_chunk > self.capacity:
            raise OutOfMemoryError
        if broken := self.broken.intersection(batch.jobs):
            raise ValueError(f"job {broken} is broken")
        for entry in batch.entries:
            yield Done(entry, f"done {entry}")


def run_mixed(device, entries):
    retry = Retry(
        run=device.run, estimate=estimate, is_out_of_memory=lambda error: isinstance(error, OutOfMemoryError),
        release=device.release, fail=lambda batch, entry, error: f"lost {entry}: {type(error).__name__}",
        limit=MemoryLimit(),
    )  # fmt: skip
    plan = BatchPlan(entries=entries, sample_chunk=2, estimated_bytes=20 * len(entries))
    return {item.entry: item.result for item in retry.run_all([plan]) if isinstance(item, Done)}


def test_an_error_in_a_batch_of_several_jobs_fails_only_the_job_that_causes_it():
    entries = ((0, 1), (1, 1), (1, 2), (2, 1))
    device = MixedDevice(100, {}, {1})
    results = run_mixed(device, entries)
    assert results == {
        (0, 1): "done (0, 1)", (1, 1): "lost (1, 1): ValueError", (1, 2): "lost (1, 2): ValueError",
        (2, 1): "done (2, 1)",
    }  # fmt: skip
    assert [batch.entries for batch in device.tried] == [
        entries, ((0, 1),), ((1, 1), (1, 2)), ((1, 1),), ((1, 2),), ((2, 1),),
    ]  # fmt: skip


def test_a_batch_of_several_jobs_is_halved_and_a_single_entry_then_runs_fewer_samples():
    entries = tuple((job, 1) for job in range(4))
    device = MixedDevice(1, {}, set())
    assert run_mixed(device, entries) == {entry: f"done {entry}" for entry in entries}
    tried = [(len(batch.jobs), batch.sample_chunk) for batch in device.tried]
    assert tried == [(4, 2), (2, 2), (1, 2), (1, 1), (1, 1), (1, 1), (1, 1)]
