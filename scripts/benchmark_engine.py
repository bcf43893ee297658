"""Protenix, the design of its pull request 284 and this engine side by side on one GPU, with the floor under each.

    python scripts/benchmark_engine.py 120 examples/7r6r.json 1200 --seeds 1,5,20 --repeats 3 --out engine.json

A job is an input file or a number of tokens, for which one is made up. Weights are made up where there is no
checkpoint, which changes no time. Featurization and writing are left out on every side. Protenix predicts seeds one
after another, so that beyond ``--protenix-seeds`` its time is that of the seeds measured, times the rest.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from protenix_multiseed import upstream
from protenix_multiseed.bench import Side, make_executor, make_job, make_sides, measure, summarise
from protenix_multiseed.config import load_config
from protenix_multiseed.dictionary import find_dictionary
from protenix_multiseed.executor import Executor
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.inputs.check import InputRules
from protenix_multiseed.memory import format_bytes
from protenix_multiseed.model import reference_stages
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.fast.denoiser import Denoiser
from protenix_multiseed.model.kernels.plain import PlainKernels
from protenix_multiseed.model.reference import to_prediction
from protenix_multiseed.model.seed_stream import SeedStream
from protenix_multiseed.model.stages import Network, make_inputs, run_stages
from protenix_multiseed.types import Features, FeatureSettings
from protenix_multiseed.upstream import silenced

MSA_ROWS = {120: 500, 245: 700, 600: 4000}  # of made-up jobs; 1,000 for all other sizes
Sides = dict[str, Callable[[], dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", help="input files, or numbers of tokens")
    parser.add_argument("--model", default=upstream.DEFAULT_MODEL)
    parser.add_argument("--seeds", default="5", help="numbers of seeds, separated by commas")
    parser.add_argument(
        "--sides", default="torch,cuequivariance,pr284,reference,fast", help="Protenix's by their kernels"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--protenix-seeds", type=int, default=5, help="how many seeds Protenix itself predicts")
    parser.add_argument("--cycles", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument(
        "--profile", action="store_true", help="print the kernels that take most, for every side of ours"
    )
    parser.add_argument(
        "--floor", action="store_true", help="count operations and bytes, and measure the card's ceilings"
    )
    parser.add_argument("--out", type=Path, default=Path("engine.json"))
    arguments = parser.parse_args()
    wanted = arguments.sides.split(",")
    config = load_config({"model": arguments.model, "cycles": arguments.cycles, "steps": arguments.steps})
    dictionary = find_dictionary()
    upstream.prepare(dictionary)
    executor = make_executor(config)
    counts = [int(number) for number in arguments.seeds.split(",")]
    rows: list[dict[str, Any]] = []
    with executor, tempfile.TemporaryDirectory() as scratch:
        device = executor.device
        ceilings = measure_ceilings(device) if arguments.floor else {}
        about = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "torch": torch.__version__, "model": config.model, "kernels": executor.kernels, "ceilings": ceilings,
            "cycles": executor.network.module.N_cycle, "steps": executor.network.configs.sample_diffusion.N_step,
            "samples": config.samples,
        }  # fmt: skip
        print(json.dumps(about), flush=True)
        for name in arguments.jobs:
            features = read_features(name, Path(scratch), max(counts))
            for n_seed in counts:
                row = benchmark(executor, features, n_seed, wanted, arguments)
                if ceilings:
                    row["floor"] = floor(executor.network, of_seeds(features, n_seed), ceilings)
                    print(json.dumps(row["floor"]), flush=True)
                rows.append(row)
                arguments.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    print(table(rows))


def read_features(name: str, scratch: Path, n_seed: int) -> Features:
    """Featurize a job for seeds 1 to ``n_seed``."""
    seeds = range(1, n_seed + 1)
    if name.isdigit():
        job = make_job(scratch, int(name), MSA_ROWS.get(int(name), 1000), seeds)
    else:
        rules = InputRules(model="any", rna_msa=False, template=False)
        (job,) = read_jobs([Path(name)], tuple(seeds), rules, find_dictionary())
    (features,) = featurize(job, FeatureSettings())
    return features


def of_seeds(features: Features, n_seed: int) -> Features:
    return replace(features, seeds=features.seeds[:n_seed])


def benchmark(
    executor: Executor, features: Features, n_seed: int, wanted: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """All sides of one job, in turn, after each has run once."""
    n_alone = min(n_seed, arguments.protenix_seeds)
    alone, one, batch = (of_seeds(features, count) for count in (n_alone, 1, n_seed))
    theirs, warming, ours = (make_sides(executor, some) for some in (alone, one, batch))
    sides: Sides = {}
    for name in theirs:
        if name.startswith("Protenix") and name.removesuffix(" kernels").rsplit(maxsplit=1)[-1] in wanted:
            sides[name] = theirs[name]
    if "pr284" in wanted:
        sides["pull request 284"] = lambda: pull_request_284(executor.network, alone)
    sides |= {name: side for name, side in ours.items() if name.rsplit(maxsplit=1)[-1] in wanted}
    taken: dict[str, list[Any]] = {}
    first: dict[str, float] = {}
    for name, side in sides.items():
        executor.network.loops.forget()
        torch.cuda.empty_cache()
        try:
            # Protenix runs one seed to warm up, as all of its seeds run alike.
            first[name] = measure(executor.device, warming[name] if name.startswith("Protenix") else side)[0]
            taken[name] = [measure(executor.device, side) for _ in range(arguments.repeats)]
            if arguments.profile and name.startswith("all"):
                profile(side)
        except torch.OutOfMemoryError as error:
            print(f"{name}: {str(error).splitlines()[0]}", flush=True)
            executor.network.loops.forget()
            continue
        scale = n_seed / n_alone if not name.startswith("all") else 1.0
        if scale > 1:
            taken[name] = [
                (seconds * scale, {part: of * scale for part, of in stages.items()}, peak)
                for seconds, stages, peak in taken[name]
            ]
        print(line(features, n_seed, summarise(name, taken[name]), first[name]), flush=True)
    made = [summarise(name, measured) for name, measured in taken.items()]
    return {
        "tokens": features.n_token, "atoms": features.n_atom, "msa_rows": features.n_msa, "seeds": n_seed,
        "protenix_seeds": n_alone,
        "sides": [
            {"name": side.name, "median": side.median, "seconds": side.seconds, "first": first[side.name],
             "stages": dict(side.stages), "peak_bytes": side.peak_bytes}
            for side in made
        ],
    }  # fmt: skip


def line(features: Features, n_seed: int, side: Side, first: float) -> str:
    spread = f"{min(side.seconds):.2f}-{max(side.seconds):.2f}"
    stages = " ".join(f"{name} {seconds:.2f}" for name, seconds in side.stages.items())
    return (
        f"{features.n_token:5d} tokens {n_seed:3d} seeds  {side.name:32s} {side.median:8.2f} s ({spread}; first "
        f"{first:.2f})  {stages}  {format_bytes(side.peak_bytes)}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, each side beside the faster of Protenix's."""
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


def pull_request_284(network: Network, features: Features) -> dict[str, float]:
    """The design of Protenix's pull request 284, from Protenix's modules: the input embedding of the first seed for
    all, the trunk seed by seed, diffusion over all seeds at once without fused attention, confidence seed by seed.
    """  # noqa: D205
    module, settings = network.module, network.configs.sample_diffusion
    lap = _Laps(network.device)
    network.set_size(features.n_token)
    streams = [SeedStream(seed, network.device) for seed in features.seeds]
    with torch.no_grad(), network.autocast(), silenced(), _embedded_once(module):
        inputs = make_inputs(network, features, [features.seeds[0]] * len(features.seeds))
        trunk = reference_stages.run_trunk(network, inputs, streams)
        lap("trunk")
        made = reference_stages.prepare_conditioning(network, inputs, trunk)
        coordinates = module.sample_diffusion(
            denoise_net=module.diffusion_module,
            input_feature_dict=inputs.of_seed(0),
            s_inputs=trunk.s_inputs,
            s_trunk=trunk.s,
            z_trunk=None,
            pair_z=made.pair_cond,
            p_lm=made.atom_pair[:, None],
            c_l=made.atom_single,
            N_sample=settings.N_sample,
            noise_schedule=module.inference_noise_scheduler(
                N_step=settings.N_step, device=network.device, dtype=trunk.s_inputs.dtype
            ),
            inplace_safe=True,
            enable_efficient_fusion=False,
        )
        lap("sample")
        for seed, raw in zip(
            features.seeds, reference_stages.score(network, inputs, trunk, coordinates, settings.N_sample), strict=True
        ):
            to_prediction(raw, features, seed.seed, full=False)
        lap("score")
    return lap.seconds


@contextmanager
def _embedded_once(module: Any) -> Iterator[None]:
    embedder, known = module.input_embedder, []
    forward = embedder.forward

    def once(*args: Any, **kwargs: Any) -> Any:
        if not known:
            known.append(forward(*args, **kwargs))
        return known[0].clone()

    embedder.forward = once
    try:
        yield
    finally:
        del embedder.forward


class _Laps:
    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds, self._last = device, dict[str, float](), time.perf_counter()

    def __call__(self, stage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now


def profile(side: Callable[[], Any]) -> None:
    """Print the kernels that one run of a side spends most time in."""
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


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """What this card reaches: FLOP/s of a large matrix product by type, bytes/s of a large copy (read and written)."""
    if device.type != "cuda":
        return {"bf16": 1e11, "tf32": 1e11, "bytes": 1e10}  # nothing is claimed for a CPU
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32)):
        one, other = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
        found[name] = 2 * 8192**3 / _median_seconds(lambda: one @ other)  # noqa: B023
    source = torch.randn(2**30, device=device)
    target = torch.empty_like(source)
    found["bytes"] = 2 * source.nbytes / _median_seconds(lambda: target.copy_(source))
    return found


def _median_seconds(function: Callable[[], Any]) -> float:
    taken = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken[3:])


def floor(network: Network, features: Features, ceilings: Mapping[str, float]) -> dict[str, Any]:
    """The least time of each stage: operations of its matrix products and bytes it cannot but move, over the ceilings.

    Operations are counted by PyTorch over one cycle and one step. Bytes: weights and attention biases are read once per
    use, and each update of a representation reads and writes it once; all else could stay on the chip.
    """
    module, configs = network.module, network.configs
    counted: dict[str, int] = {}
    plain = replace(network, kernels=PlainKernels(on_gpu=network.device.type == "cuda"))
    n_cycle, n_step = module.N_cycle, configs.sample_diffusion.N_step
    one_seed = of_seeds(features, 1)

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with FlopCounterMode(display=False) as counter:
                made = function(*args)
                made = list(made) if name == "score" else made
            counted[name] = counter.get_total_flops()
            return made

        return run

    stages = {
        name: counting(name, getattr(FAST, name)) for name in ("run_trunk", "prepare_conditioning", "sample", "score")
    }
    step = Denoiser.__call__
    Denoiser.__call__ = counting("step", step)  # type: ignore[method-assign]
    module.N_cycle, configs.sample_diffusion.N_step = 1, 1
    try:
        run_stages(replace(FAST, **stages), plain, one_seed, one_seed.seeds, 5, lambda *_: None)
    finally:
        Denoiser.__call__ = step  # type: ignore[method-assign]
        module.N_cycle, configs.sample_diffusion.N_step = n_cycle, n_step
        network.loops.forget()
    n_seed = len(features.seeds)
    flops = {
        "trunk": n_seed * n_cycle * counted["run_trunk"],
        "sample": n_seed * (counted["prepare_conditioning"] + counted["sample"] + (n_step - 1) * counted["step"]),
        "score": n_seed * counted["score"],
    }
    moved = {name: bytes_moved(network, features, name) for name in flops}
    made: dict[str, Any] = {"flops": flops, "bytes": moved, "seconds": {}}
    for precision, kinds in (("reference", ("bf16", "tf32", "tf32")), ("fast", ("bf16", "bf16", "tf32"))):
        made["seconds"][precision] = {
            name: max(flops[name] / ceilings[kind], moved[name] / ceilings["bytes"])
            for name, kind in zip(flops, kinds, strict=True)
        }
    return made


def bytes_moved(network: Network, features: Features, stage: str) -> int:
    """See :func:`floor`; the diffusion network in bfloat16."""
    module, model, n, n_seed = network.module, network.configs.model, features.n_token, len(features.seeds)
    n_sample = network.configs.sample_diffusion.N_sample
    pair = n * n * module.confidence_head.c_z
    updates = 5 * 2 + 1  # five of z, and the single representation's reading of it
    if stage == "trunk":
        n_block = len(module.pairformer_stack.blocks) + len(module.msa_module.blocks)
        of_pair = (
            n_seed * n_block * updates * pair
            + n_seed * 2 * len(module.template_embedder.pairformer_stack.blocks) * 10 * n * n * 64
        )
        of_msa = n_seed * (features.n_msa / 2) * n * model.msa_module.c_m * len(module.msa_module.blocks) * 5
        weights = sum(w.numel() for part in (module.pairformer_stack, module.msa_module) for w in part.parameters())
        return int(2 * module.N_cycle * (of_pair + of_msa + weights))
    if stage == "sample":
        sizes = model.diffusion_module
        windows = -(-features.n_atom // 32) * 32 * 128
        n_atom_block = sizes.atom_encoder.n_blocks + sizes.atom_decoder.n_blocks
        biases = n_seed * (
            sizes.transformer.n_blocks * sizes.transformer.n_heads * n * n
            + n_atom_block * sizes.atom_encoder.n_heads * windows
        )
        tokens = n_seed * n_sample * sizes.transformer.n_blocks * 2 * 2 * n * sizes.c_token
        atoms = n_seed * n_sample * n_atom_block * 2 * 2 * features.n_atom * sizes.c_atom
        weights = sum(w.numel() for w in module.diffusion_module.parameters())
        return int(2 * network.configs.sample_diffusion.N_step * (biases + tokens + atoms + weights))
    n_block = len(module.confidence_head.pairformer_stack.blocks)
    return int(4 * n_seed * n_sample * (n_block * updates * pair + 2 * n * n * module.confidence_head.b_pae))


if __name__ == "__main__":
    main()
