"""Groups of one and several jobs on models that only record their calls: claims, uploads, failures of one job."""

from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.jobs import job_of
from support.planners import PLANNER

from protenix_multiseed.errors import PredictionError
from protenix_multiseed.execution.group_run import GroupRun, Ready, make_ready
from protenix_multiseed.execution.retry import Done, MemoryLimit, Retrying
from protenix_multiseed.execution.transfer import Arriving
from protenix_multiseed.types import BatchPlan, Failure, Sizes

JOB = job_of(seeds=(1, 2, 3, 4))
FEATURES = SimpleNamespace(
    job=JOB, sizes=Sizes(n_token=4, n_atom=4, n_msa=1), seeds=[SimpleNamespace(seed=seed) for seed in JOB.seeds]
)


class Model:
    """Plans batches of two seeds."""

    def __init__(self, calls):
        self.calls = calls
        self.planner = SimpleNamespace(
            batch_bytes=lambda jobs: lambda batch: 10 * len(batch.entries), plan_group=self.plan
        )
        self.transfer = SimpleNamespace(upload=self.upload)

    def plan(self, jobs, budget):
        ((_, seeds),) = jobs.values()
        pairs = [((0, first), (0, second)) for first, second in zip(seeds[::2], seeds[1::2], strict=True)]
        return tuple(BatchPlan(entries=pair, sample_chunk=1, estimated_bytes=20) for pair in pairs)

    def refusal(self, sizes):
        return None

    def free_bytes(self):
        return 100

    def upload(self, features):
        self.calls.append("upload")
        return "arriving"


def ready(taken):
    """What is made of the job if other processes hold these seeds, and the calls in their order."""
    calls = []

    def admit(job, seeds):
        calls.append(tuple(seeds))
        return [seed for seed in seeds if seed not in taken]

    return make_ready(Model(calls), SimpleNamespace(admit=admit, wait_until_known=lambda: None), [FEATURES]), calls


@pytest.mark.parametrize(("taken", "asked", "planned"), [
    ((), [(1, 2)], [(1, 2), (3, 4)]),
    ((2,), [(1, 2)], [(1,), (3, 4)]),
    ((1, 2), [(1, 2), (3, 4)], [(3, 4)]),
    ((1, 2, 4), [(1, 2), (3, 4)], [(3,)]),
], ids=str)  # fmt: skip
def test_the_first_batch_is_claimed_before_the_upload_and_no_other(taken, asked, planned):
    made, calls = ready(taken)
    assert calls == [*asked, "upload"]
    assert [batch.seeds for batch in made.batches] == planned
    assert made.batches[0].estimated_bytes == 10 * len(planned[0])


def test_a_job_that_others_do_is_not_uploaded():
    assert ready((1, 2, 3, 4)) == (None, [(1, 2), (3, 4)])


class SharingModel:
    """Runs any batch. Some jobs fail in one way.

    Args:
        unsent: Jobs whose upload fails, with the error.
        broken: Jobs whose features cannot be used.
        refused: Numbers of tokens that are refused, from the call after ``make_ready`` on.
        wrong: Jobs whose results are not finite, which shows when they are downloaded.
    """

    device, limit = None, MemoryLimit()

    def __init__(self, unsent=(), refused=(), wrong=(), broken=()):
        self.unsent, self.refused, self.wrong, self.broken = dict(unsent), refused, wrong, broken
        self.uploaded, self.batches, self.known = [], [], []
        self.planner = PLANNER
        self.transfer = SimpleNamespace(upload=self.upload)

    def upload(self, features):
        if features.job.name in self.unsent:
            raise self.unsent[features.job.name]
        self.uploaded.append(features.job.name)
        return Arriving(features)

    def refusal(self, sizes):
        return "too large" if self.uploaded and sizes.n_token in self.refused else None

    def free_bytes(self):
        return 2**36

    def is_out_of_memory(self, error):
        return False

    def release(self):
        pass

    def run_batch(self, jobs, retries, gate, plan):
        self.batches.append([(jobs[job].job.name, seed) for job, seed in plan.entries])
        if any(jobs[job].job.name in self.broken for job, _ in plan.entries):
            raise ValueError("no such template")
        for job, seed in plan.entries:
            made = Future()
            if jobs[job].job.name in self.wrong:
                made.set_exception(PredictionError("coordinates are not finite"))
            else:
                made.set_result((jobs[job].job.name, seed))
            yield Done((job, seed), made)


def features_of(name, n_token, seeds=(1,)):
    return SimpleNamespace(
        job=job_of(name=name, seeds=seeds), sizes=Sizes(n_token=n_token, n_atom=8 * n_token, n_msa=1), n_token=n_token,
        seeds=[SimpleNamespace(seed=seed) for seed in seeds],
    )  # fmt: skip


GROUP = [features_of("a", 120), features_of("b", 119, seeds=(1, 2)), features_of("c", 118)]


def run_group(model, taken=(), *, claims_ahead=True):
    """Run the group. Returns predictions as (job, seed), and failures as (job, seed, message)."""

    def admit(job, seeds):
        return [seed for seed in seeds if (job.name, seed) not in taken]

    gate = SimpleNamespace(admit=admit, wait_until_known=lambda: model.known.append(1))
    made = make_ready(model, gate if claims_ahead else None, GROUP)
    events = [] if made is None else list(GroupRun(model, made, gate).events())
    failed = [(one.job.name, one.seed, one.message) for one in events if isinstance(one, Failure)]
    return [one for one in events if isinstance(one, tuple)], failed


def test_the_note_on_a_retry_says_that_chunks_are_smaller():
    arriving = tuple(SimpleNamespace(features=features) for features in GROUP)
    group = GroupRun(SharingModel(), Ready(arriving), SimpleNamespace())
    roomy = BatchPlan(entries=((1, 1), (1, 2)), sample_chunk=5, estimated_bytes=2**30, roomy=True)
    note = group._note(Retrying(roomy, "out of memory", (replace(roomy, roomy=False),)))
    assert note.text == (
        "2 seeds, 5 samples at a time (estimated 1.0 GiB): out of memory; "
        "trying 2 seeds, 5 samples at a time, in smaller chunks"
    )


@pytest.mark.parametrize("claims_ahead", [True, False])
def test_jobs_of_a_group_are_one_batch(claims_ahead):
    model = SharingModel()
    everything = [("a", 1), ("b", 1), ("b", 2), ("c", 1)]
    assert run_group(model, claims_ahead=claims_ahead) == (everything, [])
    assert model.batches == [everything]
    assert len(model.known) == 1  # the run is waited for once, not for each job
    assert model.uploaded == ["a", "b", "c"]


@pytest.mark.parametrize("claims_ahead", [True, False])
def test_seeds_that_other_processes_hold_are_in_no_batch(claims_ahead):
    model = SharingModel()
    made, failed = run_group(model, taken={("a", 1), ("b", 1)}, claims_ahead=claims_ahead)
    assert (made, failed) == ([("b", 2), ("c", 1)], [])
    assert model.batches == [[("b", 2), ("c", 1)]]
    assert model.uploaded == (["b", "c"] if claims_ahead else ["a", "b", "c"])


def test_a_group_that_others_do_is_not_uploaded():
    model = SharingModel()
    assert run_group(model, taken={("a", 1), ("b", 1), ("b", 2), ("c", 1)}) == ([], [])
    assert (model.batches, model.uploaded) == ([], [])


@pytest.mark.parametrize("claims_ahead", [True, False])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("out of memory")], ids=repr)
def test_a_job_whose_upload_fails_is_predicted_nevertheless(error, claims_ahead):
    """Regression: a job failed as a whole, because the host's memory was used up for a moment."""
    model = SharingModel(unsent={"b": error})
    everything = [("a", 1), ("b", 1), ("b", 2), ("c", 1)]
    assert run_group(model, claims_ahead=claims_ahead) == (everything, [])
    assert (model.batches, model.uploaded) == ([everything], ["a", "c"])


@pytest.mark.parametrize("claims_ahead", [True, False])
def test_a_job_whose_features_cannot_be_used_fails_alone_with_each_of_its_seeds(claims_ahead):
    error = ValueError("no such template")
    made, failed = run_group(SharingModel(unsent={"b": error}, broken={"b"}), claims_ahead=claims_ahead)
    assert made == [("a", 1), ("c", 1)]
    assert failed == [("b", seed, "ValueError: no such template") for seed in (1, 2)]


@pytest.mark.parametrize("claims_ahead", [True, False])
def test_a_job_that_is_refused_fails_alone_with_each_of_its_seeds(claims_ahead):
    made, failed = run_group(SharingModel(refused={119}), claims_ahead=claims_ahead)
    assert made == [("a", 1), ("c", 1)]
    assert failed == [("b", 1, "too large"), ("b", 2, "too large")]


def test_results_that_are_not_finite_are_the_failure_of_their_job_alone():
    made, failed = run_group(SharingModel(wrong={"c"}))
    assert made == [("a", 1), ("b", 1), ("b", 2)]
    assert failed == [("c", 1, "coordinates are not finite")]
