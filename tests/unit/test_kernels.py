"""Compare Triton kernels, interpreted on the CPU, with PyTorch; check that the probe finds wrong kernels."""

import json
import os
import subprocess
import sys
from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from support import cases

from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.base import (
    MASKED,
    MAX_IDENTITY,
    Lengths,
    mask_keys,
    split_heads,
    torch_kernels,
    triton_kernels,
)
from protenix_multiseed.kernels.language import HAS_GLUON
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.operation import Inputs
from protenix_multiseed.kernels.ops import attention as attention_module
from protenix_multiseed.kernels.ops import attention_hopper, attention_hopper_tokens, operations
from protenix_multiseed.kernels.ops import norm_linear as norm_linear_module
from protenix_multiseed.kernels.ops.local_attention import outside, windows
from protenix_multiseed.kernels.ops.norm_linear import norm_linear, norm_linear_parts
from protenix_multiseed.kernels.ops.pair_bias import pair_bias
from protenix_multiseed.kernels.ops.transition import swiglu
from protenix_multiseed.kernels.ops.triangle_product import gated_channels

CPU = torch.device("cpu")
CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
from support import triton_interpreter
import json, torch
from protenix_multiseed.kernels import base, probe_process
from protenix_multiseed.kernels.base import TileTable, torch_kernels, triton_kernels
from protenix_multiseed.kernels.operation import Inputs
from protenix_multiseed.kernels.ops import attention, msa_average, operations, outer_product, pair_bias, _modules
from protenix_multiseed.kernels.ops.attention import AttentionTiles

cpu = torch.device("cpu")
# Small tiles, so that kernels with tiles of rows and columns have several of each.
for module in (pair_bias, outer_product, msa_average):
    for table in [value for value in vars(module).values() if isinstance(value, TileTable)]:
        table.tiles = {key: tiles._replace(rows=32, columns=32) for key, tiles in table.tiles.items()}

def differences(dtype, only=None, is_half=False):
    made = {}
    for operation in operations():
        is_wanted = operation.has_half if is_half else only in (None, operation.__name__)
        if operation.cases is not None and is_wanted:
            inputs = Inputs(cpu, dtype)
            inputs.is_half = is_half
            cases = list(operation.cases(inputs))
            offs = [probe_process.difference(case(triton_kernels()), case(torch_kernels())) for case in cases]
            made[operation.__name__] = max(offs)
    return made

made = {}
for pairs, only in ((True, None), (False, "attention")):
    attention.TILES = {(torch.float32, 32): AttentionTiles(pairs, 32, 32, 4, 2)}
    made[f"float32 {pairs}"] = differences(torch.float32, only)
# Kernels in bfloat16 use float16, since the interpreter lacks bfloat16. The mask of -1e10 is below its range.
pair_bias.MASKED = base.MASKED = -6e4
for module in _modules:
    for table in [value for value in vars(module).values() if isinstance(value, TileTable)]:
        for key, tiles in list(table.tiles.items()):
            dtype, *width = key if isinstance(key, tuple) else (key,)
            if dtype == torch.bfloat16:
                table.tiles[(torch.float16, *width) if width else torch.float16] = tiles
for pairs, only in ((True, None), (False, "attention")):
    attention.TILES = {(torch.float16, 32): AttentionTiles(pairs, 32, 32, 4, 2)}
    made[f"float16 {pairs}"] = differences(torch.float16, only)
made["factors in float16, rows in float32"] = differences(torch.float16, is_half=True)
print(json.dumps(made))
"""


def test_triton_kernels_match_pytorch():
    """This runs in another process, because the interpreter must be chosen before Triton is imported."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(cases.REPOSITORY / "tests")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(cases.REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    probed = {operation.__name__ for operation in operations() if operation.cases is not None}
    half = {operation.__name__ for operation in operations() if operation.has_half}
    assert half == {"attention", "local_attention", "modulated_norm", "add_conditioned_transition"}
    assert [set(made) for made in found.values()] == [probed, {"attention"}, probed, {"attention"}, half]
    for kind, made in found.items():
        assert max(made.values()) < (1e-5 if kind.startswith("float32") else 2e-3), (kind, made)


def test_nan_is_a_difference_above_the_tolerance():
    wrong = torch.tensor([1.0, float("nan")])
    assert max(1e-6, probe_process.difference(wrong, torch.ones(2)), 2e-6) > probe_process.TOLERANCE


def test_every_operation_is_probed(monkeypatch):
    """An operation may be run by its own cases or by those of another operation."""
    called = set()
    for operation in operations():
        plain = operation.plain

        def watched(*arguments, plain=plain, name=operation.__name__, **named):
            called.add(name)
            return plain(*arguments, **named)

        monkeypatch.setattr(operation, "plain", watched)
    for case in probe_process.cases_of(CPU, torch.float32):
        case(torch_kernels())
    assert {operation.__name__ for operation in operations()} == called


def test_every_kernel_is_probed():
    pytest.importorskip("triton")
    of_hopper, general = probe_process.wanted_launches(hopper=HAS_GLUON)
    from protenix_multiseed.kernels.ops import _modules

    kernels = {name for module in _modules for name in vars(module) if name.endswith("_kernel")}
    without_gluon = set() if HAS_GLUON else {name for name in kernels if name.endswith("_hopper_kernel")}
    assert {kernel.__name__ for kernel, *_ in (*of_hopper, *general)} == kernels - without_gluon


def test_a_wrong_kernel_is_found(monkeypatch, capsys):
    plain = swiglu.plain
    wrong = next(operation for operation in operations() if operation.__name__ == "swiglu")
    cases_ = list(wrong.cases(Inputs(CPU, torch.float32)))
    truth = [case(torch_kernels()) for case in cases_]
    monkeypatch.setattr(wrong, "plain", lambda kernels, x: plain(kernels, x) * 1.05)
    offs = [probe_process.difference(case(torch_kernels()), true) for case, true in zip(cases_, truth, strict=True)]
    assert max(offs) > probe_process.TOLERANCE
    monkeypatch.setitem(probe_process.PROBES, "triton", lambda device: 0.05)
    monkeypatch.setitem(probe_process.PROBES, "cuequivariance", lambda device: 0.0)
    probe_process.main("cpu", "triton", "cuequivariance")
    first, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first == {"triton": "the probe ended early", "cuequivariance": "the probe ended early"}  # if it should
    assert lines == [{"triton": "results differ from PyTorch's by 5.0e-02"}, {"cuequivariance": "ok"}]


@pytest.mark.parametrize(
    ("capability", "has_gluon", "hopper"),
    [
        ((9, 0), True, ["ok"]),
        ((9, 0), False, ["Hopper's kernels need Triton 3.6, which comes with PyTorch 2.11"]),
        ((8, 0), True, []),
        ((8, 0), False, []),
    ],
)
def test_a_hopper_gpu_without_gluon_is_told_what_it_lacks(monkeypatch, capsys, capability, has_gluon, hopper):
    compiled = []
    general, of_hopper = ((SimpleNamespace(is_gluon=lambda is_=is_: is_), (), {}) for is_ in (False, True))
    asked = Future()
    asked.set_result(capability)
    monkeypatch.setattr(probe_process, "HAS_GLUON", has_gluon)
    monkeypatch.setattr(probe_process, "capability_of", lambda device: nullcontext(asked))
    monkeypatch.setattr(probe_process, "compile_ahead", lambda wanted, capability: compiled.extend(wanted))
    monkeypatch.setattr(probe_process, "wanted_launches", lambda *, hopper: ([of_hopper] if hopper else [], [general]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for kind in ("triton", "hopper"):
        monkeypatch.setitem(probe_process.PROBES, kind, lambda device: 0.0)
    probe_process.main("cuda:0", "triton")
    first, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first == dict.fromkeys(["triton", *(["hopper"] if hopper else [])], "the probe ended early")
    assert lines == [{"triton": "ok"}, *({"hopper": outcome} for outcome in hopper)]
    assert compiled == ([of_hopper, general] if hopper == ["ok"] else [general])

    def broken(*, hopper):
        raise RuntimeError("the kernels could not be listed")

    monkeypatch.setattr(probe_process, "wanted_launches", broken)  # only costs time
    probe_process.main("cuda:0", "triton")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [first, *lines]


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
def test_keys_are_masked_to_the_end_of_the_block(n, n_key, block, reach):
    """Kernels read whole blocks of keys, so the mask must reach the end of the last block in memory."""
    bias = torch.randn(2, 3, n, n)
    made = mask_keys(bias, n_key, block)
    assert made.shape == bias.shape
    assert torch.equal(made[..., :n_key], bias[..., :n_key])
    whole = torch.as_strided(made, (2, 3, n, reach), made.stride())
    assert bool((whole[..., n_key:] == MASKED).all())


@pytest.mark.parametrize("starting", [True, False])
def test_pair_biases_are_masked_at_padding_keys(starting):
    z, linear = torch.randn(2, 8, 8, 16), NormedLinear((torch.ones(16), torch.zeros(16)), torch.randn(4, 16))
    whole, _ = pair_bias(torch_kernels(), z, linear, Lengths.of([8, 8], CPU), starting)
    for real in ((5, 5), (5, 8), (3, 5)):
        made, _ = pair_bias(torch_kernels(), z, linear, Lengths.of(real, CPU), starting)
        for index, n in enumerate(real):
            assert torch.equal(made[index, ..., :n], whole[index, ..., :n])
            assert bool((made[index, ..., n:] == MASKED).all())


def test_factors_of_triangle_products_are_zero_at_the_padding_of_each_entry():
    z, linear = torch.randn(2, 8, 8, 16), NormedLinear((torch.ones(16), torch.zeros(16)), torch.randn(4 * 4, 16))
    whole, _ = gated_channels(torch_kernels(), z, linear, Lengths.of([8, 8], CPU))
    for real in ((5, 5), (5, 8), (3, 5)):
        made, _ = gated_channels(torch_kernels(), z, linear, Lengths.of(real, CPU))
        for index, n in enumerate(real):
            assert torch.equal(made[:, index, :n, :n], whole[:, index, :n, :n])
            assert not made[:, index, n:].any()
            assert not made[:, index, :, n:].any()


def test_the_keys_of_a_tile_divide_the_key_block():
    """Otherwise a kernel would read beyond the masked rows."""
    for tiles in (*attention_module.TILES.values(), attention_module.OTHER_TILES):
        assert triton_kernels().key_block % tiles.keys == 0
        assert tiles.keys <= MAX_IDENTITY


def test_launches_for_hopper_cover_each_query_once_and_waste_less_than_64():
    for n in range(1, 1300):
        parts = attention_hopper.divide_queries(n)
        ends = [first + n_block * attention_hopper.N_QUERY // pieces for first, n_block, pieces in parts]
        assert [first for first, _, _ in parts] == [0, *ends[:-1]]
        assert 0 <= ends[-1] - n < (64 if n >= attention_hopper.MIN_SPLIT else attention_hopper.N_QUERY)


def test_the_hopper_kernel_takes_only_arguments_that_it_can_read():
    """The tensor memory accelerator needs multiples of 16 bytes; all else goes to the general kernel."""
    hopper, general = triton_kernels(hopper=True), triton_kernels()
    x = torch.zeros(1, 3, 64, 2, 32, dtype=torch.bfloat16)
    bias = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16)

    def fits(kernels, x, gate, bias):
        return attention_hopper.fits(kernels, x, x, x, gate, bias, x, x.shape[2])

    assert fits(hopper, x, None, bias)
    assert not fits(general, x, None, bias)
    assert not fits(hopper, x, x, bias)
    assert not fits(hopper, x.float(), None, bias)
    assert not fits(hopper, x[..., :16], None, bias)
    assert not fits(hopper, x, None, bias.transpose(-1, -2))
    assert not fits(hopper, x, None, torch.zeros(1, 2, 64, 512, dtype=torch.bfloat16)[..., ::8])
    assert not fits(hopper, x, None, torch.zeros(1, 2, 64, 66, dtype=torch.bfloat16)[..., :64])
    assert not fits(hopper, x, None, bias.flatten()[4 : 4 + 2 * 63 * 64].view(1, 2, 63, 64))


def test_the_hopper_kernel_for_tokens_takes_only_arguments_that_it_can_read():
    n = attention_hopper_tokens.MIN_TOKENS
    hopper, general = triton_kernels(hopper=True), triton_kernels()
    parts = split_heads(torch.zeros(1, 3, n, 4 * 2 * 48, dtype=torch.bfloat16), 4, 2)
    bias = torch.zeros(1, 2, n, n, dtype=torch.bfloat16)

    def fits(kernels, parts, bias, out=None):
        query, key, value, gate = parts
        out = query if out is None else out
        return attention_hopper_tokens.fits(kernels, query, key, value, gate, bias, out, query.shape[2])

    assert fits(hopper, parts, bias)
    assert not fits(general, parts, bias)
    assert not fits(hopper, [x[:, :, 1:] for x in parts], bias[:, :, 1:])
    assert not fits(hopper, [*parts[:3], None], bias)
    assert not fits(hopper, [x.float() for x in parts], bias)
    assert not fits(hopper, [x[..., :32] for x in parts], bias)
    assert not fits(hopper, parts, bias.transpose(-1, -2))
    shifted = torch.zeros(4 + 3 * n * 4 * 2 * 48, dtype=torch.bfloat16)[4:].view(1, 3, n, 4 * 2 * 48)
    shifted = split_heads(shifted, 4, 2)
    assert not fits(hopper, shifted, bias)
    for place in range(4):
        assert not fits(hopper, [*parts[:place], shifted[place], *parts[place + 1 :]], bias), place
    assert not fits(hopper, parts, bias, out=shifted[0])


def test_parts_of_a_projection_lie_apart(monkeypatch):
    """More rows than PyTorch's version takes at a time, the last of them fewer."""
    monkeypatch.setattr(norm_linear_module, "_MAX_ROWS", 3)
    inputs = Inputs(CPU, torch.float32)
    x, linear = inputs.random(8, 5, 16), inputs.linear(12, 16)
    parts = norm_linear_parts(torch_kernels(), x, linear, 3)
    assert parts.shape == (3, 8, 5, 4)
    assert parts.is_contiguous()
    torch.testing.assert_close(torch.cat(tuple(parts), dim=-1), norm_linear(torch_kernels(), x, linear))
