"""The processes that make the pages of a report."""

import subprocess
import sys

from support.command import environment

# The script has no guard of the main module. Each of the two pages is made in a process of its own.
SCRIPT = """
import os
os.sched_getaffinity = lambda process: {0, 1}
print("script")
from protenix_multiseed.page.workers import in_parallel
print(list(in_parallel(abs, [-1, -2])))
"""


def test_workers_do_not_run_the_script_again(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("script\n[1, 2]\n", "")
