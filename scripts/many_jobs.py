"""Run many small jobs in one run on the CPU. Check that no process's memory grows and that every result exists.

Example:
    python scripts/many_jobs.py --jobs 200
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SETTINGS = "model: demo\nsteps: 2\ncycles: 1\nsamples: 1\nworkers: 1\ndevice: cpu\n"
GROWTH = 1.10  # allowed growth of peak memory from the second to the last quarter of the run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    arguments = parser.parse_args()
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        jobs = [
            {"name": f"job{number}", "sequences": [{"proteinChain": {
                "sequence": "".join(generator.choices("ACDEFGHIKLMNPQRSTVWY", k=generator.randint(8, 24))), "count": 1,
            }}]}
            for number in range(arguments.jobs)
        ]  # fmt: skip
        (folder / "in.json").write_text(json.dumps(jobs))
        (folder / "run.yaml").write_text(SETTINGS)
        command = [sys.executable, "-m", "protenix_multiseed.cli", "predict", "in.json", "--config", "run.yaml"]
        process = subprocess.Popen([*command, "--seeds", "1", "--out", "out", "-q"], cwd=folder)
        memory = watch(process)
        found = len(list(folder.glob("out/job*/best.cif")))
    print(f"{found} of {arguments.jobs} jobs have results; exit code {process.returncode}")
    is_flat = True
    for name, samples in memory.items():
        quarter = len(samples) // 4
        if not quarter:
            continue
        early, late = (max(part) for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
        is_flat &= late <= GROWTH * early
        print(f"{name}: {early / 2**20:.0f} MiB in the second quarter, {late / 2**20:.0f} MiB in the last")
    sys.exit(0 if is_flat and process.returncode == 0 and found == arguments.jobs else 1)


def watch(process: subprocess.Popen) -> dict[str, list[int]]:
    """Record the resident bytes of the run and of each worker every half second, until the run ends."""
    memory: dict[str, list[int]] = {}
    main_process = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for one in (main_process, *main_process.children(recursive=True)):
                kind = "main process" if one.pid == process.pid else f"worker {one.pid}"
                memory.setdefault(kind, []).append(one.memory_info().rss)
        except psutil.Error:
            pass
        time.sleep(0.5)
    return memory


if __name__ == "__main__":
    main()
