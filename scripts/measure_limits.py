"""Limit a process to some GiB of its GPU's memory. Check that it still predicts all seeds, with the same results.

    python scripts/measure_limits.py examples/7r6r.json --limits 6,12,24 --seeds 5

The planner does not know the limit: it plans for the whole GPU. So every batch that does not fit is retried, and the
output lists the retries. Results are compared with a run without limit. That run is made twice; the difference between
the two is the yardstick. Made-up weights amplify every rounding error: ``--gain 0.3`` damps them, as in
``measure_parity.py``.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from benchmark_engine import read_features
from measure_parity import damp, rmsd

from protenix_multiseed.commands.bench import loaded_model
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.events import Note
from protenix_multiseed.execution.group_run import GroupRun, Ready
from protenix_multiseed.execution.retry import MemoryLimit
from protenix_multiseed.execution.transfer import Arriving
from protenix_multiseed.types import Failure, Job, Prediction
from protenix_multiseed.units import format_bytes
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.models import DEFAULT_MODEL


class OpenGate:
    """A gate that admits all seeds."""

    is_closed = time_is_up = False

    def needs_no_more(self, job: Job) -> bool:
        """All seeds are wanted."""
        return False

    def wait_until_known(self) -> None:
        """Nobody has to know."""

    def admit(self, job: Job, seeds: Sequence[int]) -> Sequence[int]:
        """Admit all seeds."""
        return seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--limits", default="24,12,6", help="memory limits in GiB, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="reference")
    parser.add_argument("--gain", type=float, default=1.0, help="factor that scales the trunk's made-up matrices")
    parser.add_argument("--out", type=Path, default=Path("limits.json"))
    arguments = parser.parse_args()
    config = load_config({
        "model": arguments.model, "cycles": arguments.cycles, "steps": arguments.steps, "precision": arguments.precision,
    })  # fmt: skip
    environment.prepare(find_dictionary())
    features = read_features(str(arguments.job), Path(), arguments.seeds)
    rows = []
    with loaded_model(config) as model:
        device = model.device
        damp(model.network.module, arguments.gain)
        known: dict[int, np.ndarray] = {}
        for limit in [None, None, *(float(part) for part in arguments.limits.split(","))]:
            model.limit = MemoryLimit()  # forget what the previous memory limit taught
            model.network.graphs.forget()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                whole = torch.cuda.get_device_properties(device).total_memory
                torch.cuda.set_per_process_memory_fraction(1.0 if limit is None else limit * 2**30 / whole, device)
            start = time.perf_counter()
            outcomes = list(GroupRun(model, Ready((Arriving(features),)), OpenGate()).events())
            seconds = time.perf_counter() - start
            failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
            made = {one.seed: one for one in outcomes if isinstance(one, Prediction)}
            known = known or {seed: one.coordinates for seed, one in made.items()}
            far = [
                rmsd(sample, other)
                for seed, one in made.items()
                for sample, other in zip(one.coordinates, known[seed], strict=True)
            ]
            row = {
                "limit_gib": limit, "tokens": features.n_token, "seeds": len(made), "failed": [str(one) for one in failed],
                "seconds": round(seconds, 1), "rmsd_median": float(np.median(far)) if far else None,
                "rmsd_max": max(far, default=None), "retries": [one.text for one in outcomes if isinstance(one, Note)],
                "batches": sorted({tuple(one.run["batch"]) for one in made.values()}),
                "peak": format_bytes(max((one.run["peak_bytes"] for one in made.values()), default=0)),
            }  # fmt: skip
            rows.append(row)
            print(json.dumps(row), flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
