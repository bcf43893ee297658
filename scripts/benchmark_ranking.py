"""Measure time and memory of ``protenix-ms rank`` and ``protenix-ms report`` on made-up results.

With ``--browser`` also measure how long Chromium takes to show the first table (needs playwright and Chromium).

Examples:
    python scripts/benchmark_ranking.py --seeds 200 --tokens 245
    python scripts/benchmark_ranking.py --seeds 5 --tokens 1200
    python scripts/benchmark_ranking.py --jobs 30 --seeds 3 --browser
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from protenix_multiseed.analysis.compact import Compact, Tokens, write_compact
from protenix_multiseed.analysis.interfaces import Interface

SAMPLES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=245)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--browser", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.jobs):
            write_results(Path(folder), f"job{number:04d}", arguments.seeds, arguments.tokens)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{arguments.jobs} jobs on {len(os.sched_getaffinity(0))} processors; load before: {load}")
        for command in (["rank"], ["report", "--slim"], ["report", "--one-file"], ["report"]):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "protenix_multiseed.cli", *command, folder],
                capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"},
            )  # fmt: skip
            seconds = time.perf_counter() - start
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # GiB; of the largest command so far
            print(
                f"{' '.join(command):17s} {arguments.seeds * SAMPLES} samples of {arguments.tokens} tokens: "
                f"{seconds:.1f} s, {peak:.2f} GiB"
            )
            print("\n".join(line for line in done.stdout.splitlines() if "report.html" in line))
        if arguments.browser:
            pages = [Path(folder, "report.html"), *sorted(Path(folder, "report").glob("*.html"))[:1]]
            for page, seconds in time_to_table(pages):
                print(f"{page.name}: {page.stat().st_size / 2**20:.2f} MiB, first table after {seconds:.2f} s")


def time_to_table(pages: list[Path]) -> Iterator[tuple[Path, float]]:
    """Measure the time from opening a page in Chromium to its first painted table, seconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for page in pages:
            tab = browser.new_page()
            start = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_selector("table:visible")
            yield page, time.perf_counter() - start
            tab.close()


def write_results(out: Path, job: str, n_seed: int, n_token: int) -> None:
    """Write made-up results: two chains in one of three conformations, with noise."""
    random = np.random.default_rng(0)
    half = n_token // 2
    base = np.cumsum(random.normal(size=(n_token, 3)), axis=0) * 2
    conformers = []
    for shift in ([0, 0, 0], [15, 0, 0], [0, 25, 0]):
        one = base.copy()
        one[half:] += shift
        conformers.append(one)
    tokens = Tokens(
        chain=np.array(["A"] * half + ["B"] * (n_token - half)), residue=np.arange(n_token) + 1,
        component=np.full(n_token, "ALA"), kind=np.full(n_token, "protein"), is_residue=np.ones(n_token, dtype=bool),
    )  # fmt: skip
    side = min(n_token, 256)
    structure = mmcif(base, tokens)
    for seed in range(1, n_seed + 1):
        folder = out / job / f"seed_{seed}"
        (folder / "predictions").mkdir(parents=True)
        coordinates = np.stack([
            conformers[random.integers(3)] + random.normal(size=(n_token, 3)) * 0.4 for _ in range(SAMPLES)
        ]).astype(np.float32)  # fmt: skip
        scores = sorted(random.uniform(0.3, 0.9, SAMPLES), reverse=True)
        pair = Interface(chain_1="A", chain_2="B", ipsae=0.5, pdockq2=0.2, lis=0.3, n_contact=12)
        write_compact(folder / "ensemble.npz", Compact(
            tokens=tokens, coordinates=coordinates, plddt=np.full((SAMPLES, n_token), 80.0),
            pae=random.uniform(0, 31, (SAMPLES, side, side)), interfaces=((pair,),) * SAMPLES,
        ))  # fmt: skip
        for place, score in enumerate(scores):
            summary = {
                "ranking_score": score, "plddt": 80.0, "ptm": score, "iptm": score, "has_clash": 0.0,
                "chain_ptm": [score, score], "chain_pair_iptm": [[0, score], [score, 0]],
            }  # fmt: skip
            stem = folder / "predictions" / f"{job}_summary_confidence_sample_{place}.json"
            stem.write_text(json.dumps(summary))
            (folder / "predictions" / f"{job}_sample_{place}.cif").write_text(structure)
        record = {"fingerprint": "x", "made_from": {"steps": 200}, "files": {"x": {"bytes": 1, "sha256": ""}}}
        (folder / "record.json").write_text(json.dumps(record))


def mmcif(base: np.ndarray, tokens: Tokens) -> str:
    """Return an mmCIF file with eight atoms per token, about as long as a real one."""
    from biotite.structure import AtomArray
    from biotite.structure.io.pdbx import CIFFile, set_structure

    random = np.random.default_rng(1)
    atoms = AtomArray(8 * len(base))
    atoms.coord = np.repeat(base, 8, axis=0) + random.normal(size=(len(atoms), 3))
    atoms.chain_id, atoms.res_id = np.repeat(tokens.chain, 8), np.repeat(tokens.residue, 8)
    atoms.atom_name = np.tile(["N", "CA", "C", "O", "CB", "CG", "CD", "CE"], len(base))
    atoms.element, atoms.res_name[:] = np.tile(["N", "C", "C", "O", "C", "C", "C", "C"], len(base)), "LYS"
    atoms.set_annotation("b_factor", random.uniform(30, 95, len(atoms)).round(2))
    file = CIFFile()
    set_structure(file, atoms, data_block="x")
    return file.serialize()


if __name__ == "__main__":
    main()
