"""Triton's operations, interpreted on the CPU, against PyTorch's; and what the probe makes of wrong ones."""

import json
import os
import subprocess
import sys

import pytest
import torch
from support import cases

from protenix_multiseed.model.kernels import MASKED, mask_keys, probe
from protenix_multiseed.model.kernels.plain import PlainKernels, outside, windows

CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
from support import triton_interpreter
import json, torch
from protenix_multiseed.model import kernels
from protenix_multiseed.model.kernels import fused, probe
from protenix_multiseed.model.kernels.fused import FusedKernels
from protenix_multiseed.model.kernels.plain import PlainKernels

def differences(runs):
    return [probe._difference(run(FusedKernels()), run(PlainKernels())) for run in runs]

def attending(runs):
    return [run for run in runs if getattr(run, "func", None) in (probe._attend, probe._attend_pairs)]

# Tiles so small that programs that know rows from columns have several blocks of them.
few = ("pair_bias", "add_outer", "head_values", "add_gated_average")
fused._ROW_TILES |= {key: (32, 32, *others) for key, (_, _, *others) in fused._ROW_TILES.items() if key[0] in few}
cpu = torch.device("cpu")
operations = probe.operations(cpu, torch.float32)
made = {}
for pairs, runs in ((True, operations), (False, attending(operations))):
    fused._TILES = {(torch.float32, 32): (pairs, 32, 32, 4, 2, None)}
    made[f"float32 {pairs}"] = differences(runs)
# What is done in 16 bits: the interpreter knows no bfloat16, and float16 no such small number.
kernels.MASKED = fused.MASKED = -6e4
tiles = fused._ROW_TILES.items()
fused._ROW_TILES |= {(name, torch.float16, *of): tile for (name, dtype, *of), tile in tiles if dtype == torch.bfloat16}
operations = probe.operations(cpu, torch.float16)
for pairs, runs in ((True, operations), (False, attending(operations))):
    fused._TILES = {(torch.float16, 32): (pairs, 32, 32, 4, 2, None)}
    made[f"float16 {pairs}"] = differences(runs)
print(json.dumps(made))
"""


def test_tritons_operations_are_pytorchs():
    """In a process of its own: the interpreter must be chosen before Triton is imported."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(cases.REPOSITORY / "tests")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(cases.REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    differences = json.loads(done.stdout.splitlines()[-1])
    n_operation = len(probe.operations(torch.device("cpu"), torch.float32))
    assert [len(made) for made in differences.values()] == [n_operation, 6, n_operation, 6]
    for kind, made in differences.items():
        assert max(made) < (1e-5 if kind.startswith("float32") else 2e-3), kind


def test_what_is_no_number_is_no_small_difference():
    wrong = torch.tensor([1.0, float("nan")])
    assert max(1e-6, probe._difference(wrong, torch.ones(2)), 2e-6) > probe.TOLERANCE


def test_every_operation_of_the_protocol_is_probed():
    from protenix_multiseed.model.kernels import Kernels

    called = set()

    class Watched(PlainKernels):
        def __getattribute__(self, name):
            called.add(name)
            return super().__getattribute__(name)

    for run in probe.operations(torch.device("cpu"), torch.float32):
        run(Watched())
    assert {name for name in vars(Kernels) if not name.startswith("_")} <= called | {"name"}


def test_every_program_is_probed():
    source = pytest.importorskip("protenix_multiseed.model.kernels.source", exc_type=ImportError)
    from protenix_multiseed.model.kernels import ahead, fused

    launches = ahead.launches(fused.FusedKernels(), probe.operations(torch.device("cpu"), torch.float32))
    assert {program.__name__ for program, *_ in launches} == set(source.__all__)


def test_a_wrong_kernel_is_seen(monkeypatch, capsys):
    class Wrong(PlainKernels):
        def _swiglu(self, x):
            return super()._swiglu(x) * 1.05

    plain = probe.operations(torch.device("cpu"), torch.float32)
    assert max(probe._difference(run(Wrong()), run(PlainKernels())) for run in plain) > probe.TOLERANCE
    monkeypatch.setattr(probe, "probe_triton", lambda device: 0.05)
    monkeypatch.setattr(probe, "probe_cuequivariance", lambda device: 0.0)
    probe.main("cpu", "triton", "cuequivariance")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"triton": "results differ from PyTorch's by 5.0e-02"}, {"cuequivariance": "ok"}]


@pytest.mark.parametrize("n_atom", [5, 32, 70])
def test_windows_reach_48_atoms_to_either_side(n_atom):
    atoms = torch.arange(n_atom, dtype=torch.float32)[:, None] + 1
    around = windows(atoms, 128)[..., 0]
    beyond = outside(n_atom, atoms.device)[:, 0]
    assert torch.equal(around == 0, beyond)
    for window, row in enumerate(around):
        seen = row[row > 0] - 1
        assert seen.tolist() == list(range(max(0, 32 * window - 48), min(n_atom, 32 * window + 80)))


@pytest.mark.parametrize(
    ("n", "n_key", "block", "reach"), [(48, 45, 64, 64), (64, 64, 64, 64), (64, 60, 64, 64), (7, 7, 1, 7)]
)
def test_masked_keys_let_nothing_through(n, n_key, block, reach):
    """To the end of the last block in memory, which a program reads without asking where the keys end."""
    bias = torch.randn(2, 3, n, n)
    made = mask_keys(bias, n_key, block)
    assert made.shape == bias.shape
    assert torch.equal(made[..., :n_key], bias[..., :n_key])
    whole = torch.as_strided(made, (2, 3, n, reach), made.stride())
    assert bool((whole[..., n_key:] == MASKED).all())


@pytest.mark.parametrize("starting", [True, False])
def test_pair_biases_are_masked_at_padding_keys(starting):
    z, norm, weight = torch.randn(2, 8, 8, 16), (torch.ones(16), torch.zeros(16)), torch.randn(4, 16)
    whole = PlainKernels().pair_bias(z, norm, weight, 8, starting=starting)
    made = PlainKernels().pair_bias(z, norm, weight, 5, starting=starting)
    assert torch.equal(made[..., :5], whole[..., :5])
    assert bool((made[..., 5:] == MASKED).all())


def test_every_tile_of_keys_divides_a_block():
    """Else a program would read beyond the masked rows."""
    fused = pytest.importorskip("protenix_multiseed.model.kernels.fused", exc_type=ImportError)
    for _, _, keys, *_ in (*fused._TILES.values(), fused._ANY_TILES):
        assert fused.FusedKernels().key_block % keys == 0
        assert keys <= fused._MOST_KEYS
