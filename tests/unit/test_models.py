"""The list of models: complete at 80 columns, and right about what is on the disk."""

import json

from support.command import run

from protenix_multiseed.upstream.models import MODELS


def test_the_list_fits_80_columns_and_cuts_nothing():
    shown = run("models", COLUMNS="80").stdout
    assert "…" not in shown
    assert all(spec.name in shown for spec in MODELS)
    assert all(spec.cutoff in shown for spec in MODELS if spec.cutoff)
    assert max(map(len, shown.splitlines())) <= 80


def test_weights_that_are_here_are_found(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "protenix-v2.pt").touch()
    (tmp_path / "checkpoint" / "protenix_mini_esm_v0.5.0.pt").touch()  # its language model is missing
    made = {one["model"]: one for one in json.loads(run("models", "--json", PROTENIX_ROOT_DIR=str(tmp_path)).stdout)}
    assert made["protenix-v2"]["missing"] == []
    assert len(made["protenix_mini_esm_v0.5.0"]["missing"]) == 2
    assert made["protenix_base_default_v0.5.0"]["missing"]
    assert made["demo"]["files"] == []
    assert made["protenix-v2"]["max_tokens"] == 2560
