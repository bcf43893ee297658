"""The scripts import what exists. They are not packaged, and no other test runs most of them."""

import ast
import importlib
import os
import subprocess

import pytest
from support.cases import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_imports_what_exists(script, monkeypatch):
    monkeypatch.syspath_prepend(str(script.parent))
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (
            node.module.startswith("protenix_multiseed") or (script.parent / f"{node.module}.py").exists()
        ):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name):
                    importlib.import_module(f"{node.module}.{name}")


STAND_INS = {
    "scontrol": "echo node1; echo node2",
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',  # the first node's task
    # Like Ray's: the command is a child, which dies if Ray gets a signal.
    "ray": "trap 'echo ray was killed; kill -KILL $child; exit 1' TERM\n"
    'while [[ "$1" != -- ]]; do shift; done; shift; "$@" & child=$!; wait $child; exit $?',
    "protenix-ms": 'trap "echo ends well; exit 143" TERM; echo "runs $*"; while true; do sleep 0.05; done',
}


def job_of(folder, stand_ins):
    """The script in a folder with stand-ins for the programs that it calls, and the environment for it."""
    script = (REPOSITORY / "scripts" / "slurm_ray.sh").read_text()
    assert "#SBATCH --signal=B:TERM@" in script  # B: this script alone
    for name, content in stand_ins.items():
        (folder / name).write_text(f"#!/bin/bash\n{content}\n")
        (folder / name).chmod(0o755)
    lines = [line for line in script.splitlines() if not line.startswith("source ")]
    (folder / "job.sh").write_text("\n".join(lines))
    slurm = {
        "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "64",
    }  # fmt: skip
    (folder / "tmp").mkdir()
    path = f"{folder}:{os.environ['PATH']}"
    return {**os.environ, **slurm, "PATH": path, "TMPDIR": str(folder / "tmp")}


def test_slurms_signal_reaches_the_command_and_not_ray(tmp_path):
    """Regression: Ray got the signal, and killed the command at once."""
    environment = job_of(tmp_path, STAND_INS)
    with subprocess.Popen(
        ["bash", tmp_path / "job.sh"], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as job:
        options = "--seeds 1-1000 --out /shared/output --precision fast --ray auto"
        assert job.stdout.readline() == f"runs predict jobs.json {options}\n"
        job.terminate()
        assert job.stdout.read() == "ends well\n"
        assert job.wait() == 143
    assert not any((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(("code", "expected"), [(0, 1), (3, 3)])
def test_a_job_in_which_ray_never_starts_the_command_fails(code, expected, tmp_path):
    """Regression: Ray ends with 0 if it cannot start on the first node."""
    environment = job_of(tmp_path, {**STAND_INS, "ray": f"exit {code}"})
    job = subprocess.run(["bash", tmp_path / "job.sh"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert job.returncode == expected
    assert "was never started" in job.stderr
