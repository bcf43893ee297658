"""Compare jobs in a batch of several jobs with each job alone, at full size, beside a batch of two seeds of each job.

    python scripts/measure_shared_parity.py --gain 0.3
    python scripts/measure_shared_parity.py --model demo --device cpu --tokens 20-40

Weights are made up. All sides use the same random numbers, so coordinates are compared without superposition. Batches of
seeds of one job are the yardstick: they differ from a seed alone by rounding only. Made-up weights of full size amplify
rounding; ``--gain 0.3`` scales the trunk's matrices down, as in ``measure_parity.py``.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure_parity import damp, rmsd
from measure_screening import write_jobs

from protenix_multiseed.commands.bench import loaded_model
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import to_prediction
from protenix_multiseed.model.stages import Scored, run_stages
from protenix_multiseed.types import Batch, Features, Prediction
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.models import DEFAULT_MODEL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--tokens", default="100-180")
    parser.add_argument("--msa-rows", type=int, default=100)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gain", type=float, default=1.0, help="factor that scales the trunk's made-up matrices")
    arguments = parser.parse_args()
    arguments.alone_jobs = None
    dictionary = find_dictionary()
    environment.prepare(dictionary)
    config = load_config({"model": arguments.model, "device": arguments.device})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_jobs(folder, arguments)
        path = folder / f"jobs{arguments.jobs}.json"
        jobs = read_jobs([path], (1, 2), config.input_rules, dictionary)
        every = [featurize(job, config.feature_settings)[0] for job in jobs]
    with loaded_model(config) as model:
        damp(model.network.module, arguments.gain)
        for precision in ("reference", "fast"):
            network = replace(model.network, precision=precision)
            alone = [predict(network, [features.only((1,))])[0] for features in every]
            shared = predict(network, [features.only((1,)) for features in every])
            two = [predict(network, [features])[0] for features in every]
            for name, side in (("shared with other jobs", shared), ("with a second seed", two)):
                print(json.dumps({"precision": precision, "side": name, **compare(side, alone)}), flush=True)


def predict(network: Network, parts: Sequence[Features]) -> list[Prediction]:
    """Run one batch. Returns the prediction of each entry."""
    batch = Batch(parts=tuple(parts), sample_chunk=5)
    entries = batch.entries
    steps = [step for step in run_stages(FAST, network, batch) if isinstance(step, Scored)]
    return [to_prediction(step.raw, entries[step.index][0], entries[step.index][1].seed, full=False) for step in steps]


def compare(side: Sequence[Prediction], base: Sequence[Prediction]) -> dict[str, float]:
    """Compare all jobs and samples: RMSD without superposition (Angstrom), and the largest differences of scores."""
    pairs = [(one, other, index) for one, other in zip(side, base, strict=True) for index in range(len(one.summary))]
    distances = [rmsd(one.coordinates[index], other.coordinates[index]) for one, other, index in pairs]
    made = {"rmsd_median": float(np.median(distances)), "rmsd_largest": max(distances)}
    for score in ("plddt", "ptm", "iptm"):
        made[score] = max(
            abs(float(one.summary[at][score]) - float(other.summary[at][score])) for one, other, at in pairs
        )
    made["samples_above_1_A"] = sum(distance > 1 for distance in distances)
    return {**made, "samples": len(distances)}


if __name__ == "__main__":
    main()
