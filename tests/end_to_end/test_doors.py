"""Adding an executor, an input dialect, a model or a kernel takes one file or one entry, and no other change."""

import json
import subprocess
import sys

import pytest
from support import cases
from support.command import QUICK, environment, run

TESTS = str(cases.REPOSITORY / "tests")
EXECUTOR = f"""
import sys
sys.path.insert(0, {TESTS!r})
from protenix_multiseed.execution.base import EXECUTORS
EXECUTORS["conformers"] = "support.toys.executor:ConformerExecutor"
"""
DIALECT = f"""
import sys
sys.path.insert(0, {TESTS!r})
from support.toys import dialect
from protenix_multiseed.inputs.dialects import DIALECTS
DIALECTS.insert(0, dialect)
"""
MODEL = """
from protenix_multiseed.upstream import models
models.MODELS += (
    models.ModelSpec(
        name="toy",
        architecture="protenix_base_default_v0.5.0",
        overrides={**models._DEMO_ARCHITECTURE, "model.N_cycle": 1, "sample_diffusion.N_step": 2},
        max_tokens=20,
        made_up_weights=True,
        notice="A toy.",
    ),
)
"""
KERNEL = f"""
import sys
sys.path.insert(0, {TESTS!r})
from support import triton_interpreter
import json, pkgutil, torch
import importlib.util
# Make the package find the toy operation as if it were in the package's folder.
found = importlib.util.find_spec("protenix_multiseed.kernels.ops")
found.submodule_search_locations.append({TESTS + "/support/toys/ops"!r})
ops = importlib.util.module_from_spec(found)
sys.modules[found.name] = ops
found.loader.exec_module(ops)
from protenix_multiseed.kernels import compile, probe_process
from protenix_multiseed.kernels.base import torch_kernels, triton_kernels
from protenix_multiseed.kernels.operation import Inputs
(double,) = [operation for operation in ops.operations() if operation.__name__ == "double"]
(case,) = double.cases(Inputs(torch.device("cpu"), torch.float32))
print(json.dumps(probe_process.difference(case(triton_kernels()), case(torch_kernels()))))
"""


def write_lines(folder):
    (folder / "in.lines").write_text("first MKTAYIAKQR\nsecond GHKLM MKTAYI\n")
    (folder / "quick.yaml").write_text(QUICK)


def test_a_new_executor_works_in_a_whole_run(tmp_path):
    """Ranking, resume and records come from the run, not from the executor."""
    (tmp_path / "in.json").write_text(
        json.dumps([{"name": "a", "sequences": [{"proteinChain": {"sequence": "MKTAYIAKQR", "count": 1}}]}])
    )
    (tmp_path / "quick.yaml").write_text(QUICK + "executor: conformers\n")
    arguments = ("predict", "in.json", "--config", "quick.yaml", "--out", "out")
    done = run(*arguments, "--seeds", "1-2", cwd=tmp_path, prelude=EXECUTOR)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a: 2 samples of 2 seeds, best first" in done.stdout
    assert json.loads((tmp_path / "out/protenix-ms/run.json").read_text())["device"] == "none"
    done = run(*arguments, "--seeds", "1-3", cwd=tmp_path, prelude=EXECUTOR)
    assert "2 seeds are done already, 1 to do" in done.stdout
    assert len(list((tmp_path / "out/a").glob("seed_*/predictions/*.cif"))) == 3


def test_an_unknown_executor_is_refused_with_a_list_of_the_known_ones(tmp_path):
    write_lines(tmp_path)
    (tmp_path / "in.json").write_text(json.dumps([{"name": "a", "sequences": [{"ion": {"ion": "NH4", "count": 1}}]}]))
    (tmp_path / "quick.yaml").write_text(QUICK + "executor: cloud\n")
    done = run("predict", "in.json", "--config", "quick.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "executor: 'cloud' is not known; known: local" in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_a_new_dialect_is_read_by_every_command(tmp_path):
    write_lines(tmp_path)
    done = run("validate", tmp_path, cwd=tmp_path, prelude=DIALECT)
    assert "ok    in.lines[0] 'first': about 10 tokens, 1 seed" in done.stdout
    assert "ok    in.lines[1] 'second': about 11 tokens, 1 seed" in done.stdout
    (tmp_path / "bad.lines").write_text("third\nfourth MKXZ*\n")
    done = run("validate", "bad.lines", cwd=tmp_path, prelude=DIALECT)
    assert done.returncode == 2
    assert "bad.lines[0] 'third': sequences: none given: write one after the name" in done.stderr
    assert "bad.lines[1] 'fourth': sequence 1" in done.stderr
    done = run(
        "predict", "in.lines", "--config", "quick.yaml", "--out", "out", cwd=tmp_path, prelude=DIALECT + EXECUTOR
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/second/best.cif").exists()


def test_a_new_model_works_with_its_settings_and_token_limit(tmp_path):
    write_lines(tmp_path)
    (tmp_path / "quick.yaml").write_text("samples: 2\nworkers: 1\n")
    arguments = ("--model", "toy", "--config", "quick.yaml")
    done = run("predict", "in.lines", *arguments, "--out", "out", cwd=tmp_path, prelude=DIALECT + MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A toy." in done.stdout
    record = json.loads((tmp_path / "out/first/seed_101/record.json").read_text())
    assert record["made_from"]["model"] == "toy"
    assert (record["made_from"]["cycles"], record["made_from"]["steps"]) == (1, 2)
    (tmp_path / "large.lines").write_text(f"large {'MKTAYIAKQR' * 3}\n")
    done = run("predict", "large.lines", *arguments, "--out", "large", cwd=tmp_path, prelude=DIALECT + MODEL)
    assert done.returncode == 2
    assert "20" in done.stdout + done.stderr
    assert not (tmp_path / "large").exists()
    assert "toy" in run("predict", "in.lines", "--model", "no-such-model", cwd=tmp_path, prelude=DIALECT + MODEL).stderr


def test_a_new_kernel_is_found_and_compared_with_pytorch():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", KERNEL], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == 0
