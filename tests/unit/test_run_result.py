"""What the record of a run says about its end."""

import pytest
from support.jobs import job_of, task_of

from protenix_multiseed.run.result import RunResult


@pytest.mark.parametrize(("n_done", "said"), [(3, "SIGTERM"), (4, None)])
def test_the_record_names_the_signal_that_left_seeds_undone(n_done, said):
    result = RunResult.begin([task_of(job_of(seeds=(1, 2, 3, 4)))])
    result.n_done, result.stopped_by = n_done, 143
    assert result.summary().get("stopped_by") == said
