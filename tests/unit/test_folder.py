"""How many predictions wait to be written before the run waits for the workers."""

from collections import deque

import pytest
from support.jobs import job_of
from support.predictions import prediction

from protenix_multiseed.run import folder as module
from protenix_multiseed.run.folder import OutputFolder


class SlowWrite:
    """A write that takes until somebody waits for it."""

    is_over = False

    def __init__(self, *arguments):
        pass


@pytest.mark.parametrize(("n_token", "most"), [(150, 4 + 40), (2000, 4)])
def test_predictions_of_two_small_batches_may_wait_but_few_large_ones(monkeypatch, n_token, most):
    monkeypatch.setattr(module, "PendingWrite", SlowWrite)
    made = OutputFolder.__new__(OutputFolder)
    made._progress, made._workers, made._settings, made._max_pending = None, None, None, 4
    made._pending, made._identities, waited = deque(), {"a": {}}, []
    monkeypatch.setattr(made, "_wait_for_oldest", lambda: waited.append(made._pending.popleft()))
    for _ in range(60):
        made.take(prediction(job=job_of(n_token=n_token)))
    assert (len(made._pending), len(waited)) == (most, 60 - most)
