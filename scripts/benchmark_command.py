"""Time the whole ``predict`` command and Protenix's whole runner, each in its own process, from start to the last file.

    python scripts/benchmark_command.py ROOT --seeds 5 --repeats 2 --out command.json
    python scripts/benchmark_command.py ROOT --idle-jobs 10

ROOT becomes a PROTENIX_ROOT_DIR with a full-size checkpoint of made-up weights. Its dictionary has only the components
that the example needs, so Protenix reads less than from its full files. ``--idle-jobs N`` runs N jobs of different
sizes with ``predict`` and reports how long the device was idle between their batches.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = "protenix_base_default_v1.0.0"
EXAMPLE = REPOSITORY / "examples" / "7r6r.json"
CODES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL UNK DA DC DG DT"
PROTENIX = "from runner.batch_inference import protenix_cli; protenix_cli()"
OURS = "from protenix_multiseed.cli import app; app()"
# Run the command, and write when each batch begins and ends, its jobs and its entries into the file of the first argument.
SPANS = """
import json, sys, time
import torch
from protenix_multiseed.execution import model
spans, original = [], model.run_stages
def timed(stages, network, batch):
    if torch.cuda.is_available(): torch.cuda.synchronize()
    start = time.time()
    yield from original(stages, network, batch)
    if torch.cuda.is_available(): torch.cuda.synchronize()
    spans.append((start, time.time(), len(batch.parts), len(batch.entries)))
model.run_stages = timed
from protenix_multiseed.cli import app
path = sys.argv.pop(1)
try:
    app()
finally:
    open(path, "w").write(json.dumps(spans))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--protenix-repeats", type=int, help="repeats that include Protenix (all)")
    parser.add_argument("--input", type=Path, default=EXAMPLE)
    parser.add_argument(
        "--kernels", default="cuequivariance,torch", help="Protenix's triangle kernels; each one is timed"
    )
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--idle-jobs", type=int, default=0, help="measure idle time over this many jobs instead")
    parser.add_argument("--out", type=Path, default=Path("command.json"))
    arguments = parser.parse_args()
    prepare(arguments.root)
    environment = {
        **os.environ, "PROTENIX_ROOT_DIR": str(arguments.root.resolve()), "LAYERNORM_TYPE": "torch",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)])),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.idle_jobs:
            made = idle(Path(scratch), arguments, environment)
        else:
            made = side_by_side(Path(scratch), arguments, environment)
    arguments.out.write_text(json.dumps(made, indent=1) + "\n")


def prepare(root: Path) -> None:
    """Write the checkpoint and the files that Protenix requires at start."""
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    from make_checkpoint import make_checkpoint
    from write_dictionary import write_dictionary

    checkpoint = root / "checkpoint" / f"{MODEL}.pt"
    if checkpoint.exists():
        return
    write_dictionary(root, CODES.split())
    for name in ("clusters-by-entity-40.txt", "obsolete_release_date.csv"):
        (root / "common" / name).touch()
    checkpoint.parent.mkdir(parents=True)
    make_checkpoint(MODEL, checkpoint, {})


def side_by_side(scratch: Path, arguments: argparse.Namespace, environment: dict[str, str]) -> dict:
    """Run the commands in turn. Print their times and their speed-up over the faster of Protenix's.

    Our caches of compiled kernels and features are empty in the first repeat only.
    """
    job = with_whole_paths(arguments.input, scratch)
    seeds = ",".join(str(seed) for seed in range(1, arguments.seeds + 1))
    environment["PROTENIX_MS_CACHE"] = str(scratch / "cache")
    environment["TRITON_CACHE_DIR"] = str(scratch / "triton")
    few = ["-c", str(arguments.cycles), "-p", str(arguments.steps)]
    theirs = {
        f"Protenix, {kernels}": [
            sys.executable, "-c", PROTENIX, "pred", "-i", job, "-s", seeds, "-n", MODEL, *few, "-o", "OUT",
            "--trimul_kernel", kernels, "--triatt_kernel", kernels]
        for kernels in arguments.kernels.split(",")
    }  # fmt: skip
    ours = {
        f"protenix-ms, {precision}": [
            sys.executable, "-c", OURS, "predict", job, "--seeds", seeds, "--out", "OUT", "--precision", precision,
            "--cycles", str(arguments.cycles), "--steps", str(arguments.steps), "--quiet"]
        for precision in ("reference", "fast")
    }  # fmt: skip
    commands = theirs | ours
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    protenix_repeats = arguments.repeats if arguments.protenix_repeats is None else arguments.protenix_repeats
    for repeat in range(arguments.repeats):
        for name, command in commands.items():
            if name in theirs and repeat >= protenix_repeats:
                continue
            out = scratch / "out"
            start = time.perf_counter()
            done = subprocess.run(
                [str(out) if part == "OUT" else part for part in command],
                env=environment, cwd=scratch, capture_output=True, text=True,
            )  # fmt: skip
            seconds[name].append(round(time.perf_counter() - start, 2))
            n_file = len(list(out.rglob("predictions/*.cif")))
            if done.returncode or n_file != 5 * arguments.seeds:
                sys.exit(
                    f"{name}: code {done.returncode}, {n_file} structures\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
                )
            shutil.rmtree(out)
            print(f"{name}: {seconds[name][-1]} s", flush=True)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    best = min(medians[name] for name in theirs)
    for name in commands:
        print(f"{name:26s} median {medians[name]:7.1f} s  {best / medians[name]:.1f} x  {seconds[name]}")
    return {"seconds": seconds, "medians": medians, "first": {name: taken[0] for name, taken in seconds.items()}}


def idle(scratch: Path, arguments: argparse.Namespace, environment: dict[str, str]) -> dict:
    """Run many jobs in one command. Measure how much of the time between first and last batch the device was idle."""
    from protenix_multiseed.commands.bench import make_job
    from protenix_multiseed.upstream.job_dict import to_upstream

    jobs = []
    for number in range(arguments.idle_jobs):
        n_token = 120 + 37 * number
        spec = to_upstream(make_job(scratch, n_token, 300, (1,)).spec)
        alignment = scratch / f"job{number}.a3m"
        (scratch / "0.a3m").rename(alignment)
        spec["name"] = f"job{number}"
        spec["sequences"][0]["proteinChain"]["unpairedMsaPath"] = str(alignment)
        jobs.append(spec)
    path = scratch / "jobs.json"
    path.write_text(json.dumps(jobs))
    command = [
        sys.executable, "-c", SPANS, str(scratch / "spans.json"), "predict", str(path), "--seeds", f"1-{arguments.seeds}",
        "--out", str(scratch / "out"), "--precision", "fast", "--cycles", str(arguments.cycles),
        "--steps", str(arguments.steps), "--quiet",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    whole = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    spans = json.loads((scratch / "spans.json").read_text())
    busy, span = sum(end - start for start, end, *_ in spans), spans[-1][1] - spans[0][0]
    gaps = [round(later[0] - earlier[1], 4) for earlier, later in itertools.pairwise(spans)]
    made = {
        "jobs": arguments.idle_jobs,
        "batches": len(spans),
        "seconds": whole,
        "span": span,
        "idle": 1 - busy / span,
        "gaps": gaps,
    }
    print(
        f"{len(spans)} batches in {span:.1f} s ({whole:.1f} s for the whole command): idle {made['idle']:.1%}, gaps {gaps}"
    )
    return made


def with_whole_paths(source: Path, folder: Path) -> str:
    """Write the input with absolute paths to its alignments, because Protenix resolves them from the working folder."""
    jobs = json.loads(source.read_text())
    for job in jobs:
        for item in job["sequences"]:
            for chain in item.values():
                for key in ("pairedMsaPath", "unpairedMsaPath"):
                    if key in chain:
                        chain[key] = str((source.parent / chain[key]).resolve())
    path = folder / source.name
    path.write_text(json.dumps(jobs))
    return str(path)


if __name__ == "__main__":
    main()
