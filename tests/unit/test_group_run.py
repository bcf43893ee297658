"""The first batch of a job is claimed before its features are uploaded, on a model that only records its calls."""

from types import SimpleNamespace

import pytest
from support.jobs import job_of

from protenix_multiseed.execution.group_run import make_ready
from protenix_multiseed.types import BatchPlan, Sizes

JOB = job_of(seeds=(1, 2, 3, 4))
FEATURES = SimpleNamespace(
    job=JOB, sizes=Sizes(n_token=4, n_atom=4, n_msa=1), seeds=[SimpleNamespace(seed=seed) for seed in JOB.seeds]
)


class Model:
    """Plans batches of two seeds."""

    def __init__(self, calls):
        self.calls = calls
        self.planner = SimpleNamespace(
            entries_bytes=lambda jobs: lambda entries, chunk: 10 * len(entries), plan_group=self.plan
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

    return make_ready(Model(calls), SimpleNamespace(admit=admit), [FEATURES]), calls


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
