"""Time the ``predict`` command on one GPU and on several GPUs of this machine, on the same inputs, in one run.

    python scripts/measure_scaling.py ROOT --gpus 1,2,4 --sets small:100x5,one:1x200,large:12x1 --out scaling.json
    python scripts/measure_scaling.py ROOT --gpus 4 --sets small:40x5 --kill 20

ROOT becomes a PROTENIX_ROOT_DIR with a full-size checkpoint of made-up weights. Sets: ``small`` has complexes of 150-450
tokens, ``one`` of 245, ``large`` of 1,000-1,500, as ``name:JOBSxSEEDS``. One GPU is the command without ``--gpus``.

For each run: seconds of the whole command and from the first batch to the last file; structures a second; the share of
the time in which a GPU was not in a batch, and in which nvidia-smi saw no kernel on it; time to the first result; and
processor seconds of the command itself (on one GPU it predicts too), of the GPUs' processes, of the CPU workers and of
Ray, as last seen. ``--kill SECONDS`` kills one GPU's process that long after the first result, and checks that nothing
is lost.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil
from benchmark_command import OURS, REPOSITORY, prepare
from measure_screening import AMINO_ACIDS, alignment

SIZES = {"tiny": (8, 24), "small": (150, 450), "one": (245, 245), "large": (1000, 1500)}
LOOK_SECONDS = 1.0  # between two looks at the processor time of all processes
QUERY = ["nvidia-smi", "--query-gpu=index,utilization.gpu,clocks.sm", "--format=csv,noheader,nounits", "-lms", "200"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--gpus", default="1,2")
    parser.add_argument("--sets", default="small:100x5,one:1x200")
    parser.add_argument("--rows", type=int, default=200, help="rows of each chain's made-up MSA")
    parser.add_argument("--options", default="--precision fast", help="more options of predict")
    parser.add_argument("--kill", type=float, help="kill one GPU's process this many seconds after the first result")
    parser.add_argument("--out", type=Path, default=Path("scaling.json"))
    arguments = parser.parse_args()
    environment = {
        **os.environ, "PROTENIX_ROOT_DIR": str(arguments.root.resolve()), "LAYERNORM_TYPE": "torch",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)])),
    }  # fmt: skip
    if "--model" not in arguments.options:
        prepare(arguments.root)
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, n_job, n_seed in parse_sets(arguments.sets):
            inputs = write_inputs(Path(scratch) / name, SIZES[name], n_job, arguments.rows)
            for gpus in arguments.gpus.split(","):
                row = measure(arguments, inputs, n_job, n_seed, int(gpus), environment)
                made.append({"set": name, "jobs": n_job, "seeds": n_seed, "gpus": int(gpus), **row})
                print(json.dumps(made[-1]), flush=True)
                arguments.out.write_text(json.dumps(made, indent=1) + "\n")


def parse_sets(text: str) -> list[tuple[str, int, int]]:
    """Read ``small:100x5,one:1x200``."""
    parts = (one.partition(":") for one in text.split(","))
    return [(name, *(int(number) for number in counts.split("x"))) for name, _, counts in parts]


def write_inputs(folder: Path, sizes: tuple[int, int], n_job: int, n_row: int) -> Path:
    """Write jobs of two protein chains, each with an MSA of changed copies. Sizes are evenly spread and shuffled."""
    folder.mkdir()
    generator = random.Random(0)
    low, high = sizes
    tokens = [low + (high - low) * number // max(1, n_job - 1) for number in range(n_job)]
    generator.shuffle(tokens)
    jobs = []
    for number, n_token in enumerate(tokens):
        chains = []
        for chain, length in enumerate((n_token - n_token // 3, n_token // 3)):
            sequence = "".join(generator.choices(AMINO_ACIDS, k=length))
            path = folder / f"{number}_{chain}.a3m"
            path.write_text(alignment(sequence, n_row, generator))
            chains.append({"proteinChain": {"sequence": sequence, "count": 1, "unpairedMsaPath": str(path)}})
        jobs.append({"name": f"job{number}", "sequences": chains})
    path = folder / "in.json"
    path.write_text(json.dumps(jobs))
    return path


def measure(
    arguments: argparse.Namespace, inputs: Path, n_job: int, n_seed: int, n_gpu: int, environment: dict[str, str]
) -> dict:
    """Run the command once, and check that it has written every seed."""
    out = inputs.parent / "out"
    options = [*arguments.options.split(), *(["--gpus", str(n_gpu)] if n_gpu > 1 else [])]
    command = [sys.executable, "-c", OURS, "predict", str(inputs), "--seeds", f"1-{n_seed}", "--out", str(out)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    query = [*QUERY, *(["-i", visible] if visible else [])]
    # Files, not pipes: a pipe holds 64 KiB, and then its writer waits.
    looks, said = inputs.parent / "looks.csv", inputs.parent / "output.txt"
    with looks.open("w") as sink:
        watching = subprocess.Popen(query, stdout=sink) if shutil.which("nvidia-smi") else None
    started = time.time()
    with said.open("w") as sink:
        process = subprocess.Popen(
            [*command, *options, "--quiet"], env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
    killed, first_seen, looked = None, None, 0.0
    used: dict[int, tuple[str, float]] = {}
    while process.poll() is None:
        if time.time() > looked + LOOK_SECONDS:
            looked = time.time()
            used |= processor_seconds(process.pid)
        if first_seen is None and any(out.glob("*/seed_*/record.json")):
            first_seen = time.time()
        if arguments.kill and killed is None and first_seen and time.time() - first_seen > arguments.kill:
            killed = kill_one(process.pid)
        time.sleep(0.1)
    whole = time.time() - started
    output = said.read_text()
    if watching is not None:
        watching.terminate()
        watching.wait()
    seen = watched(looks.read_text(), n_gpu) if watching is not None else {}
    records = {path: json.loads(path.read_text()) for path in out.glob("*/seed_*/record.json")}
    ranked = list(out.glob("*/best.cif"))
    if arguments.kill and killed is None:
        sys.exit("nothing was killed: the run ended before, or has no process for each GPU (one GPU)")
    if process.returncode or len(records) != n_job * n_seed or len(ranked) != n_job:
        sys.exit(f"code {process.returncode}, {len(records)} seeds, {len(ranked)} jobs ranked\n{output[-4000:]}")
    batches, devices, stage_seconds = {}, {}, {}
    for path, record in records.items():
        seconds = sum(record["run"]["stage_seconds"].values())
        written = path.stat().st_mtime
        of_jobs = record["run"].get("batch_jobs") or {record["job"]: record["run"]["batch"]}  # else counted once a job
        key = json.dumps(of_jobs, sort_keys=True)
        batches[key] = max(batches.get(key, (0.0, written)), (seconds, written))
        devices[key] = record["run"].get("gpu_uuid", record["run"]["device"])
        stage_seconds.setdefault(key, record["run"]["stage_seconds"])
    busy = sum(seconds for seconds, _ in batches.values())
    begin = min(written - seconds for seconds, written in batches.values())
    end = max(path.stat().st_mtime for path in records)
    span, n_structure = end - begin, len(list(out.glob("*/seed_*/predictions/*.cif")))
    row = {
        "whole_s": round(whole, 2),
        "span_s": round(span, 2),
        "structures_per_s": round(n_structure / span, 2),
        "outside_batches": round(1 - busy / (n_gpu * span), 4),
        **seen,
        "first_batch_s": round(begin - started, 2),
        "first_result_s": round(min(path.stat().st_mtime for path in records) - started, 2),
        "batches": len(batches),
        "by_device": by_device(batches, devices, started),
        "stage_seconds": {
            stage: round(sum(one[stage] for one in stage_seconds.values()), 2)
            for stage in next(iter(stage_seconds.values()))
        },
        "seconds_per_seed": round(statistics.mean(record["run"]["seconds"] for record in records.values()), 3),
        "log": stages(out, started),
        "processor_s": {
            kind: round(sum(seconds for one, seconds in used.values() if one == kind), 1)
            for kind in sorted({kind for kind, _ in used.values()})
        },
        "killed": killed,
        "retries": sum(bool(record["run"]["retries"]) for record in records.values()),
    }
    shutil.rmtree(out)
    return row


def by_device(
    batches: dict[str, tuple[float, float]], devices: dict[str, str], started: float
) -> dict[str, list[list[float]]]:
    """Return the seconds of the first three and the last three batches of each GPU, and when each was written."""
    made: dict[str, list[list[float]]] = {}
    for key, (seconds, written) in sorted(batches.items(), key=lambda pair: pair[1][1]):
        made.setdefault(devices[key], []).append([round(seconds, 2), round(written - started, 2)])
    return {device: rows[:3] + rows[3:][-3:] for device, rows in made.items()}


def stages(out: Path, started: float) -> dict[str, float]:
    """Return when each stage began by the run's log, in whole seconds since the start of the command."""
    lines = (line.split(" ", 3) for line in (out / "protenix-ms" / "run.log").read_text().splitlines())
    times = ((datetime.fromisoformat(parts[0]), parts[3]) for parts in lines if parts[2] == "stage:")
    return {text: round(time.timestamp() - started) for time, text in times}


def processor_seconds(parent: int) -> dict[int, tuple[str, float]]:
    """Return the kind, and the processor seconds so far, of a command and of each process that it has started."""
    made = {}
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(parent)
        made[parent] = ("command", sum(process.cpu_times()[:2]))
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                kind = "gpus" if "ray::_RayWorker" in line else "workers" if "multiprocessing." in line else "ray"
                made[child.pid] = (kind, sum(child.cpu_times()[:2]))
    return made


def kill_one(parent: int) -> str | None:
    """Kill (SIGKILL) the process of one GPU. Returns its command line."""
    for process in psutil.Process(parent).children(recursive=True):
        name = " ".join(process.cmdline())
        if "ray::_RayWorker" in name:
            os.kill(process.pid, signal.SIGKILL)
            return name
    return None


def watched(looks: str, n_gpu: int) -> dict[str, list[float]]:
    """Return the share of the time without a kernel for each GPU that was used, from its first to its last kernel.

    And the median clock of its multiprocessors while kernels ran, MHz.
    """
    seen: dict[int, list[tuple[int, int]]] = {}
    for line in looks.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and all(map(str.isdigit, parts)):
            seen.setdefault(int(parts[0]), []).append((int(parts[1]), int(parts[2])))
    made: dict[str, list[float]] = {"no_kernel": [], "clock_mhz": []}
    for index in sorted(seen)[:n_gpu]:
        busy = [place for place, (used, _) in enumerate(seen[index]) if used]
        rows = seen[index][busy[0] : busy[-1] + 1] if busy else [(0, 0)]
        made["no_kernel"].append(round(1 - statistics.mean(used for used, _ in rows) / 100, 3))
        made["clock_mhz"].append(statistics.median(clock for used, clock in rows if used or not busy))
    return made


if __name__ == "__main__":
    main()
