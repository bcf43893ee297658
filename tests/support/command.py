"""Run the command as a process, on small jobs."""

import json
import os
import subprocess
import sys

from support import cases

COMMAND = [sys.executable, "-m", "protenix_multiseed.cli"]
QUICK = "model: demo\nsteps: 2\ncycles: 1\nsamples: 2\nworkers: 1\n"


# A prelude: the run finds its inputs in order, and then a file of them is gone.
DELETE_ALIGNMENT = """
import os
from protenix_multiseed.outputs import scan as module
original = module.scan
def scan_and_delete(*arguments, **named):
    found = original(*arguments, **named)
    os.unlink("gone.a3m")
    return found
module.scan = scan_and_delete
"""


def environment(**variables):
    return {**os.environ, "PYTHONPATH": str(cases.REPOSITORY), "COLUMNS": "120", **variables}


def with_prelude(prelude):
    """The command as arguments of a process that first runs this Python, to change something on purpose."""
    return [sys.executable, "-c", f"{prelude}\nfrom protenix_multiseed.cli import app\napp()"]


def run(*arguments, cwd=None, prelude=None, **variables):
    """Run the command to its end.

    Args:
        prelude: Python that runs before the command in the same process, to break something on purpose.
    """
    command = COMMAND if prelude is None else with_prelude(prelude)
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment(**variables), timeout=570,
    )  # fmt: skip


def start(*arguments, cwd=None, script=None, **variables):
    """Start the command in a process group of its own; its output goes to a file named ``output``.

    Args:
        script: A file of Python that runs the command; None: the command itself.
    """
    command = COMMAND if script is None else [sys.executable, script]
    with open(cwd / "output", "ab") as output:
        return subprocess.Popen(
            [*command, *map(str, arguments)], cwd=cwd, env=environment(**variables), stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip


def write_jobs(folder, jobs):
    """Write ``in.json`` with one protein per job, and ``quick.yaml``.

    Args:
        jobs: The protein's sequence by the job's name.
    """
    content = [
        {"name": name, "sequences": [{"proteinChain": {"sequence": sequence, "count": 1}}]}
        for name, sequence in jobs.items()
    ]
    (folder / "in.json").write_text(json.dumps(content))
    (folder / "quick.yaml").write_text(QUICK)


def predictions(out):
    """The bytes of every prediction file of an output folder, by path. Records are left out: they contain run times."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/seed_*/predictions/*"))}


def leftovers(out):
    """Hidden folders in job folders: an unfinished write leaves them."""
    return list(out.glob("*/.*"))
