"""What ``bench`` shows."""

import io
from types import SimpleNamespace

from rich.console import Console

from protenix_multiseed.commands import bench
from protenix_multiseed.config_loading import load_config


def test_no_figure_of_the_table_is_cut_at_80_columns():
    """Regression: at 80 columns the figures of long runs lost their digits."""
    names = ("Protenix, torch kernels", "Protenix, cuequivariance kernels", "all seeds batched, reference",
             "all seeds batched, fast")  # fmt: skip
    stages = {"trunk": 6321.11, "sample": 6322.22, "score": 6323.33}
    sides = tuple(
        bench.Side(name=name, seconds=(9121.41 + place, 9221.41 + place), stages=stages, peak_bytes=150 * 2**30)
        for place, name in enumerate(names)
    )
    features = SimpleNamespace(n_token=1000, n_atom=8000, n_msa=700, seeds=(1,))
    made = bench.Bench(features=features, device="GPU", made_up_weights=False, sides=sides)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    bench._show(console, made, load_config({"model": "demo", "samples": 1}), as_json=False)
    table = console.file.getvalue().split("torch", 1)[1].split("\n", 1)[1]
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line[0] != " "}
    assert rows["seconds"] == ["9171.41", "9172.41", "9173.41", "9174.41"]
    assert rows["to"] == ["9221.41", "9222.41", "9223.41", "9224.41"]
    assert rows["sample"] == ["6322.22"] * 4
    assert rows["memory"] == ["150.0", "GiB"] * 4
    assert table.splitlines()[2].split() == ["torch", "kernels", "kernels", "reference", "batched,", "fast"]
    assert "1 seed x 1 sample," in console.file.getvalue()
