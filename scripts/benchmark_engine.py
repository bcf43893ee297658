"""Time Protenix, the design of its pull request 284 and this engine side by side on one GPU.

``--floor`` adds the least possible time of each stage.

    python scripts/benchmark_engine.py 120 examples/7r6r.json:1,5,20 1200:1 --seeds 1,5 --repeats 3 --out engine.json

A job is an input file, or a number of tokens for a made-up job. Numbers of seeds after a colon apply to that job only.
Weights are made up if there is no checkpoint, which does not change the timings. No side includes featurization or
writing.

Protenix predicts seeds one after another, each in the same time. So every seed that it predicts here counts as a repeat,
and its time for N seeds is N times the time of one seed. Its two kinds of triangle kernels are timed with one seed; only
the faster kind is timed with more seeds.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engine_floor import floor, measure_ceilings
from pull_request_284 import pull_request_284

from protenix_multiseed.commands.bench import (
    Side,
    kernels_of_protenix,
    loaded_model,
    make_job,
    make_sides,
    measure,
    summarise,
)
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution.model import LoadedModel
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.model.network import Network
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.types import Features
from protenix_multiseed.units import format_bytes
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.models import DEFAULT_MODEL

MSA_ROWS = {120: 500, 245: 700, 600: 4000}  # tokens of a made-up job -> MSA rows; 1,000 for all other sizes
Measured = tuple[float, Mapping[str, float], int]
Sides = dict[str, Callable[[], dict[str, float]]]


def main() -> None:
    arguments = read_arguments()
    wanted = arguments.sides.split(",")
    config = load_config({"model": arguments.model, "cycles": arguments.cycles, "steps": arguments.steps})
    environment.prepare(find_dictionary())
    rows: list[dict[str, Any]] = []
    with loaded_model(config) as model, tempfile.TemporaryDirectory() as scratch:
        device = model.device
        ceilings = measure_ceilings(device) if arguments.floor else {}
        about = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "torch": torch.__version__, "model": config.model, "kernels": model.kernels, "ceilings": ceilings,
            "cycles": model.network.module.N_cycle, "steps": model.network.configs.sample_diffusion.N_step,
            "samples": config.samples,
        }  # fmt: skip
        print(json.dumps(about), flush=True)
        for name in arguments.jobs:
            name, _, own = name.partition(":")
            counts = [int(number) for number in (own or arguments.seeds).split(",")]
            features = read_features(name, Path(scratch), max([*counts, arguments.protenix_seeds]))
            theirs = measure_protenix(model, features, wanted, arguments)
            for n_seed in counts:
                batch = of_seeds(features, n_seed)
                sides = [scaled(side, n_seed) for side in theirs]
                if "pr284" in wanted and n_seed == arguments.pr284_seeds:
                    sides += measure_sides(model, batch, partial(pr284, model, theirs), arguments)
                sides += measure_sides(model, batch, partial(ours, model, wanted), arguments)
                row = {
                    "tokens": features.n_token, "atoms": features.n_atom, "msa_rows": features.n_msa, "seeds": n_seed,
                    "sides": [
                        {"name": side.name, "median": side.median, "seconds": side.seconds,
                         "stages": dict(side.stages), "peak_bytes": side.peak_bytes}
                        for side in sides
                    ],
                }  # fmt: skip
                if ceilings:
                    row["floor"] = floor(model.network, features, n_seed, ceilings)
                    print(json.dumps(row["floor"]["seconds"]), flush=True)
                rows.append(row)
                arguments.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    print(table(rows))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "jobs",
        nargs="+",
        help="input files or numbers of tokens, each with its numbers of seeds after a colon if wanted",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seeds", default="5", help="numbers of seeds, separated by commas")
    parser.add_argument(
        "--sides",
        default="torch,cuequivariance,pr284,reference,fast",
        help="sides to time; torch and cuequivariance are Protenix with these kernels",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--patience", type=float, default=1e9, help="do not repeat a side that has taken this many seconds in all"
    )
    parser.add_argument("--protenix-seeds", type=int, default=3, help="number of seeds that Protenix predicts")
    parser.add_argument(
        "--pr284-seeds", type=int, default=5, help="time pull request 284 with this number of seeds only"
    )
    parser.add_argument("--warm-seeds", type=int, default=20, help="largest number of seeds for warm-up")
    parser.add_argument("--cycles", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument(
        "--profile", action="store_true", help="print the slowest GPU kernels of every side but Protenix"
    )
    parser.add_argument(
        "--floor",
        action="store_true",
        help="compute the least possible time from counted operations and bytes and the GPU's measured peak rates",
    )
    parser.add_argument("--out", type=Path, default=Path("engine.json"))
    return parser.parse_args()


def read_features(name: str, scratch: Path, n_seed: int) -> Features:
    """Featurize a job for seeds 1 to ``n_seed``."""
    seeds = range(1, n_seed + 1)
    if name.isdigit():
        job = make_job(scratch, int(name), MSA_ROWS.get(int(name), 1000), seeds)
    else:
        rules = InputRules(model="any", reads=ReadSettings(rna_msa=False, template=False))
        (job,) = read_jobs([Path(name)], tuple(seeds), rules, find_dictionary())
    (features,) = featurize(job, FeatureSettings())
    return features


def of_seeds(features: Features, n_seed: int) -> Features:
    return replace(features, seeds=features.seeds[:n_seed])


@contextmanager
def few_rounds(network: Network) -> Iterator[None]:
    """Set one cycle and four steps: enough to load, compile and allocate everything that a full run needs."""
    module, settings = network.module, network.configs.sample_diffusion
    before = module.N_cycle, settings.N_step
    module.N_cycle, settings.N_step = 1, 4
    try:
        yield
    finally:
        module.N_cycle, settings.N_step = before


def measure_protenix(
    model: LoadedModel, features: Features, wanted: Sequence[str], arguments: argparse.Namespace
) -> list[Side]:
    """Time Protenix seed by seed: each kind of kernels with one seed, the faster kind with all seeds."""
    each = [make_sides(model, replace(features, seeds=(seed,))) for seed in features.seeds]
    names = [name for name in each[0] if name.startswith("Protenix") and name.split()[1] in wanted]
    taken: dict[str, list[Measured]] = {}
    for name in names:
        forget(model)
        with few_rounds(model.network):
            each[0][name]()
        taken[name] = [measure(model.device, each[0][name])]
        tell(features, 1, summarise(name, taken[name]))
    if taken:
        best = min(taken, key=lambda name: taken[name][0][0])
        for sides in each[1 : arguments.protenix_seeds]:
            if sum(seconds for seconds, *_ in taken[best]) < arguments.patience:
                taken[best].append(measure(model.device, sides[best]))
        tell(features, 1, summarise(best, taken[best]))
    return [summarise(name, measured) for name, measured in taken.items()]


def scaled(side: Side, n_seed: int) -> Side:
    """Multiply the time of one seed by ``n_seed``, because Protenix predicts seeds one after another."""
    return replace(
        side,
        seconds=tuple(n_seed * seconds for seconds in side.seconds),
        stages={name: n_seed * seconds for name, seconds in side.stages.items()},
    )


def ours(model: LoadedModel, wanted: Sequence[str], features: Features) -> Sides:
    """Our sides: all seeds of a job in the batches that a run would plan, in each precision."""
    sides = make_sides(model, features)
    return {name: side for name, side in sides.items() if name.rsplit(maxsplit=1)[-1] in wanted}


def pr284(model: LoadedModel, theirs: Sequence[Side], features: Features) -> Sides:
    """The design of pull request 284 with the faster of Protenix's kernels."""
    best = min(theirs, key=lambda side: side.median).name.split()[1] if theirs else "torch"

    def run() -> dict[str, float]:
        with kernels_of_protenix(model.network, best):
            return pull_request_284(model.network, features)

    return {"pull request 284": run}


def measure_sides(
    model: LoadedModel, features: Features, make: Callable[[Features], Sides], arguments: argparse.Namespace
) -> list[Side]:
    """Time the sides that predict all seeds at once, each after a short warm-up."""
    made = []
    first = make(of_seeds(features, min(len(features.seeds), arguments.warm_seeds)))
    for name, side in make(features).items():
        forget(model)
        taken: list[Measured] = []
        try:
            with few_rounds(model.network):
                first[name]()
            while len(taken) < arguments.repeats and sum(one[0] for one in taken) < arguments.patience:
                taken.append(measure(model.device, side))
            if arguments.profile:
                profile(side)
        except torch.OutOfMemoryError as error:
            print(f"{name}: {str(error).splitlines()[0]}", flush=True)
            continue
        made.append(summarise(name, taken))
        tell(features, len(features.seeds), made[-1])
    return made


def forget(model: LoadedModel) -> None:
    model.network.graphs.forget()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def tell(features: Features, n_seed: int, side: Side) -> None:
    spread = f"{min(side.seconds):.2f}-{max(side.seconds):.2f} of {len(side.seconds)}"
    stages = " ".join(f"{name} {seconds:.2f}" for name, seconds in side.stages.items())
    print(
        f"{features.n_token:5d} tokens {n_seed:3d} seeds  {side.name:32s} {side.median:8.2f} s ({spread})  {stages}  "
        f"{format_bytes(side.peak_bytes)}",
        flush=True,
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows as a Markdown table. The last column is the speed-up over the faster of Protenix's sides."""
    lines = ["| tokens | seeds | side | seconds | spread | trunk | sample | score | peak | |", "|---" * 10 + "|"]
    for row in rows:
        base = min((side["median"] for side in row["sides"] if side["name"].startswith("Protenix")), default=None)
        for side in row["sides"]:
            ratio = f"{base / side['median']:.1f} x" if base else ""
            stages = " | ".join(f"{side['stages'].get(name, 0):.2f}" for name in ("trunk", "sample", "score"))
            lines.append(
                f"| {row['tokens']} | {row['seeds']} | {side['name']} | {side['median']:.2f} | "
                f"{min(side['seconds']):.2f}-{max(side['seconds']):.2f} | {stages} | "
                f"{format_bytes(side['peak_bytes'])} | {ratio} |"
            )
    return "\n".join(lines)


def profile(side: Callable[[], Any]) -> None:
    """Print the 40 GPU kernels that take most time in one run of a side."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    with watch(activities=[ProfilerActivity.CUDA]) as watched:
        side()
        torch.cuda.synchronize()
    kernels = sorted(watched.key_averages(), key=lambda one: -one.self_device_time_total)
    total = sum(one.self_device_time_total for one in kernels)
    print(f"  kernels, {total / 1e6:.2f} s")
    for one in kernels[:40]:
        share = one.self_device_time_total / 1e3
        print(f"  {share:9.1f} ms {one.count:7d} x {share / one.count * 1e3:9.1f} us  {one.key[:110]}")


if __name__ == "__main__":
    main()
