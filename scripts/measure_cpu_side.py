"""Measure what a screening run needs of the CPU: featurize jobs, and write, rank and show made-up results.

    python scripts/measure_cpu_side.py --jobs 200 --tokens 150 --msa-rows 500

The first part featurizes jobs in this process, on one core. The second part is the whole ``predict`` command with an
executor that has all answers at once, so that only claims, writing, ranking, display and log are left. Processor seconds
depend less on what else the machine does than wall times.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Register an executor that answers at once, then run the command.
COMMAND = """
import sys, time
import numpy as np
from dataclasses import replace
from protenix_multiseed.execution import base
from protenix_multiseed.types import Failure, Prediction

class MadeUp:
    def __init__(self, config, workers, tell):
        self.config, self.workers = config, workers
    def __enter__(self):
        return self
    def __exit__(self, *error):
        print("seconds", time.time() - self.started)
    def load(self, tasks, should_stop):
        (made,) = self.workers.featurize([tasks[0].job], self.config.feature_settings)
        (self.features,) = made
    def facts(self):
        return {"device": "none"}
    def predict(self, tasks, gate):
        self.started, features, chance = time.time(), self.features, np.random.default_rng(0)
        n, n_atom = features.n_token, features.n_atom
        for task in tasks:
            for seed in gate.admit(task.job, task.todo):
                summary = tuple(
                    {"ranking_score": score, "plddt": 80.0, "ptm": score, "iptm": score, "has_clash": 0.0,
                     "chain_ptm": np.full(1, score), "chain_pair_iptm": np.full((1, 1), score)}
                    for score in chance.uniform(0.3, 0.9, 5)
                )
                pae = chance.uniform(0, 31, (5, n, n)).astype(np.float32)
                yield Prediction(
                    job=task.job, seed=seed, coordinates=chance.normal(size=(5, n_atom, 3)).astype(np.float32) * 20,
                    summary=summary, atom_array=features.atom_array, entity_poly_type=features.entity_poly_type,
                    full=tuple({"atom_plddt": np.full(n_atom, 0.8), "token_pair_pae": one} for one in pae),
                    run={"seconds": 0.3},
                )

sys.modules["made_up"] = sys.modules["__main__"]
base.EXECUTORS["made_up"] = "made_up:MadeUp"
if __name__ == "__main__":
    from protenix_multiseed.cli import app
    app()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="few jobs cost less than the spread of the start")
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--msa-rows", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="print where featurization spends its time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["PROTENIX_MS_CACHE"] = str(folder / "cache")
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"
        write_jobs(folder, arguments)
        print(json.dumps({**measure_features(folder, arguments), **measure_rest(folder, arguments)}, indent=1))


def write_jobs(folder: Path, arguments: argparse.Namespace) -> None:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    from measure_screening import AMINO_ACIDS, alignment

    chance, jobs = random.Random(0), []
    for number in range(arguments.jobs + 1):
        sequence = "".join(chance.choices(AMINO_ACIDS, k=arguments.tokens))
        path = folder / f"{number}.a3m"
        path.write_text(alignment(sequence, arguments.msa_rows, chance))
        chain = {"sequence": sequence, "count": 1, "unpairedMsaPath": str(path)}
        jobs.append({"name": f"complex{number}", "sequences": [{"proteinChain": chain}]})
    (folder / "jobs.json").write_text(json.dumps(jobs))


def measure_features(folder: Path, arguments: argparse.Namespace) -> dict:
    import torch

    from protenix_multiseed.features.featurize import featurize
    from protenix_multiseed.inputs.read import read_jobs
    from protenix_multiseed.settings import FeatureSettings, InputRules
    from protenix_multiseed.upstream import environment
    from protenix_multiseed.upstream.dictionary import find_dictionary

    torch.set_num_threads(1)
    dictionary = find_dictionary()
    environment.prepare(dictionary)
    started = time.process_time()
    first, *jobs = read_jobs([folder / "jobs.json"], (1,), InputRules(model="demo"), dictionary)
    checked = time.process_time() - started
    featurize(first, FeatureSettings())
    if arguments.profile:
        import cProfile
        import pstats

        profile = cProfile.Profile()
        profile.runcall(lambda: [featurize(job, FeatureSettings()) for job in jobs])
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
        return {}
    started, wall = time.process_time(), time.perf_counter()
    for job in jobs:
        featurize(job, FeatureSettings())
    used, wall = time.process_time() - started, time.perf_counter() - wall
    return {
        "check_ms_per_job": round(1e3 * checked / (len(jobs) + 1), 2),
        "featurize_processor_ms_per_job": round(1e3 * used / len(jobs), 1),
        "featurize_wall_ms_per_job": round(1e3 * wall / len(jobs), 1),
        "featurized_jobs_per_second_of_one_core": round(len(jobs) / used, 2),
    }


def measure_rest(folder: Path, arguments: argparse.Namespace) -> dict:
    """The command without featurization and model, on all jobs and on a few: the difference is without the start."""
    script = folder / "command.py"
    script.write_text(COMMAND)
    (folder / "run.yaml").write_text("executor: made_up\nmodel: demo\n")
    jobs = json.loads((folder / "jobs.json").read_text())
    few = max(1, len(jobs) // 5)
    used, seconds = {}, {}
    for count in (few, len(jobs)):
        (folder / "jobs.json").write_text(json.dumps(jobs[:count]))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, str(script), "predict", "jobs.json", "--config", "run.yaml", "--seeds", "1",
             "--workers", str(arguments.workers), "--out", f"out{count}"],
            cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used[count] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds[count] = float(
            next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds "))
        )
    each = (used[len(jobs)] - used[few]) / (len(jobs) - few)
    return {
        "write_rank_show_processor_ms_per_job": round(1e3 * each, 1),
        "write_rank_show_jobs_per_second_of_two_cores": round(2 / each, 1),
        "write_rank_show_wall_seconds": seconds,
    }


if __name__ == "__main__":
    main()
