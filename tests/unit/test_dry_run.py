"""A dry run asks the functions that a run asks."""

import pytest

from protenix_multiseed.commands import dry_run
from protenix_multiseed.config import load_config
from protenix_multiseed.execution import hardware
from protenix_multiseed.execution.memory import MARGIN
from protenix_multiseed.kernels import probe


@pytest.mark.parametrize(
    ("kernels", "outcome", "fused"),
    [("auto", "ok", True), ("torch", "ok", False), ("auto", "results differ from PyTorch's by 0.3", False)],
)
def test_a_dry_run_plans_with_the_kernels_that_a_run_would_use(monkeypatch, kernels, outcome, fused):
    """``--kernels torch`` and a failed probe take more memory, so a dry run must not plan with Triton's estimate."""
    monkeypatch.setattr(hardware, "card_of", lambda device: "card")
    monkeypatch.setattr(probe, "known_outcomes", lambda card: {"triton": outcome})
    config = load_config({"model": "demo", "kernels": kernels, "assume_free": "24GiB"})
    planner, budget = dry_run._planner(config)
    assert planner.memory.fused == fused
    assert budget == int(MARGIN * 24 * 2**30)
