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


def test_slurms_signal_reaches_the_command_and_not_ray(tmp_path):
    """Regression: Ray got the signal, and killed the command at once."""
    script = (REPOSITORY / "scripts" / "slurm_ray.sh").read_text()
    assert "#SBATCH --signal=B:TERM@" in script  # B: this script alone
    for name, content in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)
    lines = [line for line in script.splitlines() if not line.startswith("source ")]
    (tmp_path / "job.sh").write_text("\n".join(lines))
    slurm = {
        "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "64",
    }  # fmt: skip
    with subprocess.Popen(
        ["bash", tmp_path / "job.sh"], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
    ) as job:  # fmt: skip
        options = "--seeds 1-1000 --out /shared/output --precision fast --ray auto"
        assert job.stdout.readline() == f"runs predict jobs.json {options}\n"
        job.terminate()
        assert job.stdout.read() == "ends well\n"
        assert job.wait() == 143
