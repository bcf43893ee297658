"""Measure a screening run: many different small complexes, one batch for each and several in a batch.

    python scripts/measure_screening.py ROOT --jobs 200                         # both precisions, four commands
    python scripts/measure_screening.py ROOT --jobs 200 --precisions fast
    python scripts/measure_screening.py ROOT --jobs 12 --model demo --tokens 28-40 --device cpu --cycles 1 --steps 2

Each way is the whole ``predict`` command in its own process. ROOT becomes a PROTENIX_ROOT_DIR with a full-size
checkpoint of made-up weights. The jobs are random, and the same in each call. A small run of each way before the
others compiles the kernels. Alignments are featurized anew in each run. The report gives the whole command, the time
from the first batch to the last file, and the share of that time in which no batch ran. With an NVIDIA GPU it also
gives the mean of the utilization that ``nvidia-smi`` shows: the share of time in which a kernel ran.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark_command import REPOSITORY, SPANS

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
WARM_UP = {"alone": 2, "shared": 8}  # numbers of jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--alone-jobs", type=int, help="jobs of the way of one batch for each job, fewer to save time")
    parser.add_argument("--tokens", default="100-180")
    parser.add_argument("--msa-rows", type=int, default=500, help="0: no alignment")
    parser.add_argument("--model", default="protenix_base_default_v1.0.0")
    parser.add_argument("--precisions", default="reference,fast")
    parser.add_argument("--max-jobs", type=int, help="jobs in a batch; the program's own number if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("screening.json"))
    arguments = parser.parse_args()
    if arguments.model != "demo":
        make_weights(arguments.root, arguments.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_jobs(folder, arguments)
        precisions = arguments.precisions.split(",")
        for precision in precisions:
            for way, n_job in WARM_UP.items():  # compiles kernels, reads the checkpoint into memory
                run(folder, arguments, way, precision, min(n_job, arguments.jobs))
        rows = []
        for precision in precisions:
            rows += [
                run(folder, arguments, "shared", precision, arguments.jobs),
                run(folder, arguments, "alone", precision, arguments.alone_jobs or arguments.jobs),
            ]
            report(rows[-2:])
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


def make_weights(root: Path, model: str) -> None:
    path = root / "checkpoint" / f"{model}.pt"
    if path.exists():
        return
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    from make_checkpoint import make_checkpoint

    path.parent.mkdir(parents=True, exist_ok=True)
    make_checkpoint(model, path, {})


def write_jobs(folder: Path, arguments: argparse.Namespace) -> None:
    """Write ``jobs<N>.json`` for each number of jobs. Every third complex has two chains."""
    chance = random.Random(0)
    least, most = map(int, arguments.tokens.split("-"))
    jobs = []
    for number in range(arguments.jobs):
        n_token = chance.randint(least, most)
        lengths = [n_token] if number % 3 else [n_token * 3 // 5, n_token - n_token * 3 // 5]
        chains = []
        for place, length in enumerate(lengths):
            chain = {"sequence": "".join(chance.choices(AMINO_ACIDS, k=length)), "count": 1}
            if arguments.msa_rows:
                path = folder / f"{number}_{place}.a3m"
                path.write_text(alignment(chain["sequence"], arguments.msa_rows, chance))
                chain["unpairedMsaPath"] = str(path)
            chains.append({"proteinChain": chain})
        jobs.append({"name": f"complex{number}", "sequences": chains})
    for count in {arguments.jobs, arguments.alone_jobs or arguments.jobs, *WARM_UP.values()}:
        (folder / f"jobs{count}.json").write_text(json.dumps(jobs[:count]))


def alignment(sequence: str, rows: int, chance: random.Random) -> str:
    """Return an alignment whose rows differ from the sequence at a third of the positions."""
    lines = [">query", sequence]
    for row in range(1, rows):
        changed = chance.choices(AMINO_ACIDS + "-", k=len(sequence))
        kept = chance.choices((True, True, False), k=len(sequence))
        lines += [f">row{row}", "".join(old if keeps else new for old, new, keeps in zip(sequence, changed, kept))]  # noqa: B905
    return "\n".join(lines) + "\n"


def run(folder: Path, arguments: argparse.Namespace, way: str, precision: str, n_job: int) -> dict:
    """Run the command on the first jobs. Return what was measured."""
    cache, out = folder / "cache", folder / "out"
    most = 1 if way == "alone" else arguments.max_jobs
    command = [
        sys.executable, "-c", SPANS, str(folder / "spans.json"), "predict", str(folder / f"jobs{n_job}.json"),
        "--seeds", "1", "--out", str(out), "--model", arguments.model, "--precision", precision, "--quiet",
        "--device", arguments.device, "--cycles", str(arguments.cycles), "--steps", str(arguments.steps),
        "--samples", str(arguments.samples), *(["--max-jobs-per-batch", str(most)] if most else []),
        *(["--workers", str(arguments.workers)] if arguments.workers else []),
    ]  # fmt: skip
    environment = {
        **os.environ, "PROTENIX_ROOT_DIR": str(arguments.root.resolve()), "LAYERNORM_TYPE": "torch",
        "PROTENIX_MS_CACHE": str(cache), "TRITON_CACHE_DIR": str(folder / "triton"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    shutil.rmtree(cache / "features", ignore_errors=True)
    with open(folder / "utilization", "w") as sink:
        watching = watch(sink)
        start = time.time()
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        whole = time.time() - start
        if watching is not None:
            watching.terminate()
            watching.wait()
    written = [path.stat().st_mtime for path in out.glob("*/seed_*/record.json")]
    if done.returncode or len(written) != n_job:
        sys.exit(f"{way}: code {done.returncode}, {len(written)} of {n_job} seeds\n{done.stdout}{done.stderr[-4000:]}")
    spans = json.loads((folder / "spans.json").read_text())
    shutil.rmtree(out)
    begun, span = spans[0][0], max(written) - spans[0][0]
    used = [int(line) for line in (folder / "utilization").read_text().split() if line.isdigit()]
    # A sample is taken every 0.2 s. Keep those of the time from the first batch to the last file.
    first, last = (round((moment - start) / 0.2) for moment in (begun, max(written)))
    widths = [entries for *_, entries in spans]
    return {
        "way": way,
        "precision": precision,
        "jobs": n_job,
        "batches": len(spans),
        "largest_batch": max(widths),
        "jobs_in_shared_batches": sum(entries for _, _, parts, entries in spans if parts > 1),
        "whole_seconds": round(whole, 1),
        "until_first_batch_seconds": round(begun - start, 1),
        "batches_to_files_seconds": round(span, 1),
        "structures_per_second": round(n_job * arguments.samples / span, 2),
        "no_batch_percent": round(100 * (1 - sum(end - begin for begin, end, *_ in spans) / span), 1),
        "gpu_utilization_percent": round(statistics.mean(used[first:last]), 1) if used[first:last] else None,
        "batch_seconds": [[entries, round(end - begin, 3)] for begin, end, _, entries in spans],
    }


def watch(sink: object) -> "subprocess.Popen | None":
    """Start to write the GPU's utilization into a file, five times a second; None without ``nvidia-smi``."""
    if shutil.which("nvidia-smi") is None:
        return None
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0")  # nvidia-smi itself does not read it
    query = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        f"--id={card}",
        "-lms",
        "200",
    ]
    return subprocess.Popen(query, stdout=sink, stderr=subprocess.DEVNULL)


def report(rows: list[dict]) -> None:
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items() if name != "batch_seconds"), flush=True)
    shared, alone = rows
    print(
        f"{shared['precision']}: first batch to last file "
        f"{shared['structures_per_second'] / alone['structures_per_second']:.2f} x, whole command "
        + (
            f"{alone['whole_seconds'] / shared['whole_seconds']:.2f} x"
            if alone["jobs"] == shared["jobs"]
            else "not comparable: the ways had different numbers of jobs"
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
