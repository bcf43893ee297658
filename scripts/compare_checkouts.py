"""Compare two checkouts of this repository: the bytes of every prediction, and the start-up time.

    python scripts/compare_checkouts.py /path/to/before /path/to/after [--write hashes.json] [--known hashes.json]

Both checkouts predict the test suite's inputs (proteins, RNA, ligands, bonds, modifications, templates) and the example
with the demo model on the CPU, batched and one seed at a time. The script prints each file whose SHA-256 differs. mmCIF files name
the version of protenix-ms, so both checkouts need the same ``__version__``. The
exit code is 1 if a file differs. Then it times the start-up commands of both checkouts in turn, so that other load on
the machine affects both alike.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLES = ("ranking.csv", "metrics.csv", "chains.csv", "spread.csv", "ensemble.json", "best.cif")
RUNS = {
    "batched": ["--seeds", "1-3"],
    "fast": ["--seeds", "1,2", "--precision", "fast"],
    "one seed a batch": ["--seeds", "1-3", "--max-seeds-per-batch", "1", "--pae", "npz", "--store", "top:1"],
    "sequential": ["--seeds", "1-3", "--sequential", "--full-confidence"],
}


def prepare(folder: Path) -> list[str]:
    """Write the inputs with this checkout's test support. Returns the command-line options that name them."""
    repository = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(repository), str(repository / "tests")]
    from support import cases

    paths = cases.write_cases(folder / "inputs")
    root = folder / "root"
    cases.write_root(root)
    config = {
        "model": "demo", "samples": 2, "cycles": 2, "steps": 3, "workers": 1, "rna_msa": True, "template": True,
        "device": "cpu",
        "templates": {"mmcif_dir": str(folder / "inputs" / "mmcif"), "kalign": str(root / "bin" / "kalign")},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    os.environ["PROTENIX_ROOT_DIR"] = str(root)
    return [*map(str, paths.values()), str(cases.EXAMPLE), "--config", str(folder / "config.json")]


def command(checkout: Path, *arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run ``protenix-ms`` of one checkout, from a folder where Python finds no other copy of the package."""
    cache.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": str(checkout), "PROTENIX_MS_CACHE": str(cache), "COLUMNS": "120",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "protenix_multiseed.cli", *arguments],
        env=environment, capture_output=True, text=True, check=False, cwd=cache.parent,
    )  # fmt: skip


def hashes(checkout: Path, inputs: list[str], folder: Path) -> dict[str, str]:
    """Predict with one checkout and return the SHA-256 of all prediction files and tables."""
    found = {}
    for name, options in RUNS.items():
        out = folder / name.replace(" ", "_")
        done = command(checkout, "predict", *inputs, "--out", str(out), *options, cache=folder / "cache")
        if done.returncode:
            raise SystemExit(f"{checkout}: {name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        files = [*out.glob("*/seed_*/predictions/*.*"), *(path for table in TABLES for path in out.glob(f"*/{table}"))]
        for path in sorted(files):
            found[f"{name}: {path.relative_to(out)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def start_up(sides: dict[str, Path], inputs: list[str], folder: Path, repeats: int) -> None:
    """Print the median seconds of commands that predict nothing, for both checkouts in turn."""
    done_already = ["predict", *inputs, *RUNS["batched"], "-q"]
    commands = {"--help": ["--help"], "predict --help": ["predict", "--help"], "validate": ["validate", *inputs]}
    for name, arguments in (commands | {"predict, all done": done_already}).items():
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, checkout in sides.items():
                more = ["--out", str(folder / side / "batched")] if arguments is done_already else []
                start = time.perf_counter()
                command(checkout, *arguments, *more, cache=folder / side / "cache")
                taken[side].append(time.perf_counter() - start)
        print(name, {side: f"{statistics.median(times):.3f} s" for side, times in taken.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--write", type=Path, help="write the hashes of the first checkout to this file")
    parser.add_argument("--known", type=Path, help="read the hashes of the first checkout from this file")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs = prepare(folder)
        if arguments.known:
            before = json.loads(arguments.known.read_text())
        else:
            before = hashes(arguments.before.resolve(), inputs, folder / "before")
        if arguments.write:
            arguments.write.write_text(json.dumps(before, indent=1))
        after = hashes(arguments.after.resolve(), inputs, folder / "after")
        other = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
        for name in other:
            print(f"differs: {name}")
        print(f"{len(before)} files before, {len(after)} after, {len(other)} differ", flush=True)
        if not arguments.known and arguments.repeats:
            sides = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
            start_up(sides, inputs, folder, arguments.repeats)
    sys.exit(bool(other))


if __name__ == "__main__":
    main()
