"""Measure the engine's differences from Protenix at full size, beside Protenix's differences from itself.

    python scripts/measure_parity.py examples/7r6r.json --seeds 3 --out parity.json

Weights are made up. All sides use the same random numbers, so coordinates are compared without superposition. The
yardstick is Protenix with its two kinds of triangle kernels, and Protenix run twice. Each fast stage is also compared
alone with its reference twin, from the same input. Made-up weights amplify rounding errors from block to block; trained
weights do not. ``--gain 0.3`` scales the trunk's matrices down, so that rounding errors keep their original size.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_engine import read_features

from protenix_multiseed.commands.bench import kernels_of_protenix, loaded_model
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.inputs import make_inputs
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import predict_seed, to_prediction
from protenix_multiseed.model.reference.stages import REFERENCE
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import Scored, result_of, run_stages
from protenix_multiseed.types import Batch, Features, Prediction
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.environment import silenced
from protenix_multiseed.upstream.models import DEFAULT_MODEL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cycles", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--gain", type=float, default=1.0, help="factor that scales the trunk's made-up matrices")
    parser.add_argument(
        "--stages",
        default="reference,fast",
        help="precisions whose stages are compared one by one, separated by commas; or none",
    )
    parser.add_argument(
        "--sides", default="", help="run only sides whose names contain one of these words, separated by commas"
    )
    parser.add_argument("--out", type=Path, default=Path("parity.json"))
    arguments = parser.parse_args()
    config = load_config({"model": arguments.model, "cycles": arguments.cycles, "steps": arguments.steps})
    environment.prepare(find_dictionary())
    features = read_features(str(arguments.job), Path(), arguments.seeds)
    rows = []
    with loaded_model(config) as model:
        network, device = model.network, model.device
        damp(network.module, arguments.gain)
        stages = []
        for precision in ("reference", "fast"):
            if precision not in arguments.stages.split(","):
                continue
            stages += by_stage(replace(network, precision=precision), features)
        for stage in stages:
            print(json.dumps(stage), flush=True)
        other = "cuequivariance" if model.kernels["reference"] == "cuequivariance" else "torch"
        base = protenix(network, features, "torch")
        sides = {
            "Protenix again": lambda: protenix(network, features, "torch"),
            f"Protenix, {other} kernels": lambda: protenix(network, features, other),
            "reference, all seeds in a batch": lambda: batched(network, features, len(features.seeds)),
            "reference, seed by seed": lambda: batched(network, features, 1),
            "fast, all seeds in a batch": lambda: batched(
                replace(network, precision="fast"), features, len(features.seeds)
            ),
        }
        for name, side in sides.items():
            if not any(word in name for word in arguments.sides.split(",")):
                continue
            rows.append({"side": name, **compare(side(), base)})
            print(json.dumps(rows[-1]), flush=True)
        again = batched(network, features, len(features.seeds))
        same = all(
            np.array_equal(one.coordinates, two.coordinates)
            for one, two in zip(again, batched(network, features, len(features.seeds)), strict=True)
        )
    spread = float(np.median([rmsd(p.coordinates[0], p.coordinates[1]) for p in base]))
    print(f"two samples of a seed differ by {spread:.2f} A; repeating a batch gives the same bytes: {same}")
    about = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__, "model": config.model, "tokens": features.n_token, "seeds": arguments.seeds,
        "gain": arguments.gain, "spread": spread, "same_bytes": same,
    }  # fmt: skip
    arguments.out.write_text(json.dumps({"about": about, "rows": rows, "stages": stages}, indent=1) + "\n")
    print(
        "| | RMSD median, A | RMSD largest, A | pLDDT | pTM | ipTM | PAE median, A | PAE largest, A |\n"
        + "|---" * 8
        + "|"
    )
    for row in rows:
        print(f"| {row['side']} | " + " | ".join(f"{value:.2g}" for key, value in row.items() if key != "side") + " |")


def damp(module: Any, gain: float) -> None:
    """Multiply every matrix of the trunk by ``gain``."""
    for part in (module.pairformer_stack, module.msa_module, module.template_embedder):
        for weight in part.parameters():
            if weight.dim() >= 2:
                weight.data.mul_(gain)


def protenix(network: Network, features: Features, kernels: str) -> list[Prediction]:
    with kernels_of_protenix(network, kernels):
        return [predict_seed(network, features, seed, full=True) for seed in features.seeds]


def batched(network: Network, features: Features, width: int) -> list[Prediction]:
    made: list[Prediction] = []
    for start in range(0, len(features.seeds), width):
        seeds = features.seeds[start : start + width]
        batch = Batch(parts=(replace(features, seeds=seeds),), sample_chunk=5)
        steps = [step for step in run_stages(FAST, network, batch) if isinstance(step, Scored)]
        made += [to_prediction(step.raw, features, seeds[step.index].seed, full=True) for step in steps]
    return made


def rmsd(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one - other) ** 2).sum(-1).mean(-1)))


def compare(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> dict[str, float]:
    """Compare all seeds and samples: RMSD without superposition, and the largest differences of the scores."""
    distances, plddt, ptm, iptm, pae = [], [], [], [], []
    for mine, base in zip(ours, theirs, strict=True):
        for index in range(len(base.summary)):
            distances.append(rmsd(mine.coordinates[index], base.coordinates[index]))
            plddt.append(100 * np.abs(mine.full[index]["atom_plddt"] - base.full[index]["atom_plddt"]).max())
            ptm.append(abs(float(mine.summary[index]["ptm"]) - float(base.summary[index]["ptm"])))
            iptm.append(abs(float(mine.summary[index]["iptm"]) - float(base.summary[index]["iptm"])))
            pae.append(np.abs(mine.full[index]["token_pair_pae"] - base.full[index]["token_pair_pae"]))
    return {
        "rmsd_median": float(np.median(distances)), "rmsd_max": max(distances), "plddt_max": float(max(plddt)),
        "ptm_max": max(ptm), "iptm_max": max(iptm), "pae_median": float(np.median(pae)), "pae_max": float(np.max(pae)),
    }  # fmt: skip


def by_stage(network: Network, features: Features) -> list[dict[str, Any]]:
    """Compare each fast stage with its reference twin on the same input: relative differences; Angstrom for coordinates."""
    seeds = features.seeds[:1]
    network.set_size(features.n_token)
    made: list[dict[str, Any]] = []

    def tell(stage: str, **values: float) -> None:
        made.append({"precision": network.precision, "stage": stage, **values})

    with torch.no_grad(), network.autocast(), silenced():
        inputs = make_inputs(network, Batch(parts=(replace(features, seeds=seeds),), sample_chunk=5))
        rngs = [[SeedRng(seed, network.device) for seed in seeds] for _ in range(2)]
        theirs, ours = (result_of(stages.run_trunk(network, inputs, each))
                        for stages, each in zip((REFERENCE, FAST), rngs, strict=True))  # fmt: skip
        tell("trunk", s=relative(ours.s, theirs.s), z=relative(ours.z, theirs.z))
        conditioning = REFERENCE.prepare_conditioning(network, inputs, theirs)
        mine = FAST.prepare_conditioning(network, inputs, theirs)
        tell("conditioning", pair=relative(mine.pair_cond, conditioning.pair_cond))
        first = result_of(REFERENCE.sample(network, inputs, theirs, conditioning, rngs[0], 5))
        second = result_of(FAST.sample(network, inputs, theirs, conditioning, rngs[1], 5))
        far = ((first - second) ** 2).sum(-1).mean(-1).sqrt()
        tell("sample", rmsd_median=float(far.median()), rmsd_max=float(far.max()))
        scored = [to_prediction(next(iter(stages.score(network, inputs, theirs, first, 5))), features, 0, full=True)
                  for stages in (FAST, REFERENCE)]  # fmt: skip
        tell("score", **{key: value for key, value in compare(scored[:1], scored[1:]).items() if "rmsd" not in key})
    return made


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


if __name__ == "__main__":
    main()
