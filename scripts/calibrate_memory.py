"""Compare the memory estimate with measured peaks on a GPU, for sizes from 120 to 5,120 tokens.

    python scripts/calibrate_memory.py --out points.json

Weights are made up, and cycles and steps are few. This does not change the peak, except for the diffusion noise, whose
bytes grow with the steps; the estimate counts them. A point that runs out of memory is reported without a measured peak.
The measured peak of every stage is printed beside its estimate, so that a wrong term can be found.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from protenix_multiseed.commands.bench import make_job
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution.plan import make_planner
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.kernels.base import torch_kernels, triton_kernels
from protenix_multiseed.limits import TOKEN_PADDING_GPU
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.fast.diffusion_blocks import may_be_half
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.stages import run_stages
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Batch, Features
from protenix_multiseed.units import format_bytes
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.models import DEFAULT_MODEL

# tokens, MSA rows, seeds, samples, samples per chunk, precision
POINTS = [
    (120, 64, 1, 5, 5, "reference"),
    (120, 64, 20, 5, 5, "fast"),
    (245, 700, 1, 5, 5, "reference"),
    (245, 700, 5, 5, 5, "reference"),
    (245, 700, 5, 1, 1, "fast"),
    (245, 700, 20, 5, 5, "fast"),
    (600, 1000, 1, 5, 5, "reference"),
    (600, 12000, 1, 5, 5, "reference"),
    (600, 12000, 5, 5, 2, "fast"),
    (1200, 1000, 1, 5, 5, "reference"),
    (1200, 4000, 5, 5, 5, "fast"),
    (2000, 1000, 1, 5, 5, "reference"),
    (2000, 1000, 1, 5, 1, "fast"),
    (2000, 1000, 5, 5, 5, "reference"),
    (2560, 1000, 1, 5, 5, "fast"),
    (3000, 1000, 1, 5, 5, "reference"),
    (4096, 1000, 1, 5, 5, "reference"),
    (5120, 1000, 1, 5, 5, "reference"),
]
SMALL = 600  # up to this many tokens, CUDA graphs can be captured and kept from one batch to the next
STAGES = {"run_trunk": "trunk", "prepare_conditioning": "conditioning", "sample": "sample", "score": "score"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=Path("points.json"))
    parser.add_argument("--smallest", type=int, default=0, help="skip points with fewer tokens")
    parser.add_argument("--largest", type=int, default=10**6, help="skip points with more tokens")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--roomy", action="store_true", help="measure with the large chunks of a roomy batch")
    arguments = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    dictionary = find_dictionary()
    environment.prepare(dictionary)
    configs = build_configs(load_config({"model": arguments.model}).upstream_settings)
    model = demo.fill(build_model(configs)).to(device)
    on_gpu = device.type == "cuda"
    is_hopper = on_gpu and torch.cuda.get_device_capability(device) == (9, 0)
    kernels = triton_kernels(hopper=is_hopper, half=may_be_half(configs)) if on_gpu else torch_kernels()
    points: list[dict[str, Any]] = []
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as scratch:
        for n_token, n_row, seeds, samples, chunk, precision in POINTS:
            if not arguments.smallest <= n_token <= arguments.largest:
                continue
            is_small = n_token <= SMALL
            cycles = 2 if is_small else 1  # the second cycle captures a graph
            config = load_config({
                "model": arguments.model, "samples": samples, "steps": arguments.steps, "cycles": cycles,
                "precision": precision,
            })  # fmt: skip
            configs = build_configs(config.upstream_settings)
            planner = make_planner(config.plan_settings, configs, model, on_gpu=on_gpu, fused=on_gpu, half=kernels.half)
            job = make_job(Path(scratch), n_token, n_row, range(seeds))
            (features,) = featurize(job, FeatureSettings())
            planner = replace(planner, memory=replace(planner.memory, folds=kernels.hopper))
            estimate = planner.estimate(features.sizes, seeds, chunk, roomy=arguments.roomy)
            estimated = {name: estimate.peak_bytes_of(name) for name in STAGES.values()}
            model.N_cycle = cycles
            network = Network(
                module=model, configs=configs, spec=config.spec, device=device, precision=precision,
                kernels=kernels, padding=TOKEN_PADDING_GPU if on_gpu else 1,
            )  # fmt: skip
            measured, peaks, seconds = None, {}, 0.0
            try:
                for _ in range(2 if is_small else 1):  # in the second run, the graphs of the first are still held
                    started = time.perf_counter()
                    peaks = stage_peaks(network, features, chunk, roomy=arguments.roomy)
                    seconds = time.perf_counter() - started
                measured = max(peaks.values(), default=None)
            except torch.OutOfMemoryError as error:
                print(f"{job.name}: {str(error)[:80]}")
            factors = network.factors_of_sampling(features.n_token)
            point = {
                "device": name, "torch": torch.__version__,
                "factors": {torch.float32: "tf32"}.get(factors, str(factors).removeprefix("torch.")),
                "tokens": features.n_token, "atoms": features.n_atom, "msa_rows": features.n_msa, "seeds": seeds,
                "samples": samples, "sample_chunk": chunk, "precision": precision, "steps": arguments.steps,
                "folds": kernels.hopper, **({"roomy": True} if arguments.roomy else {}), "measured": measured, "measured_by_stage": peaks,
            }  # fmt: skip
            points.append(point)
            about = {"model": asdict(planner.model), "points": points}
            arguments.out.write_text(json.dumps(about, indent=1) + "\n")
            ratio = f"{estimate.peak_bytes / measured:.2f}" if measured else "-"
            print(
                f"{n_token:5d} tokens {n_row:6d} rows {seeds:3d} seeds {chunk} of {samples} samples {precision:9s} "
                f"measured {format_bytes(measured or 0):>9s} estimated {format_bytes(estimate.peak_bytes):>9s} "
                f"ratio {ratio} ({estimate.peak_stage}) {seconds:.1f} s "
                + " ".join(f"{name} {peak / 2**30:.2f}/{estimated[name] / 2**30:.2f}" for name, peak in peaks.items()),
                flush=True,
            )
            del network, features


def stage_peaks(network: Network, features: Features, chunk: int, *, roomy: bool) -> dict[str, int]:
    """Run a batch and return the peak bytes of each stage; empty on a CPU."""
    peaks: dict[str, int] = {}

    def watched(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            torch.cuda.reset_peak_memory_stats()
            made = stage(*arguments)
            peaks[name] = torch.cuda.max_memory_allocated()
            return made

        def steps(*arguments: Any) -> Generator[Any, None, Any]:
            torch.cuda.reset_peak_memory_stats()
            running = stage(*arguments)
            del arguments  # a stage may free them
            made = yield from running
            peaks[name] = torch.cuda.max_memory_allocated()
            return made

        def score(*arguments: Any) -> Iterator[Any]:
            torch.cuda.reset_peak_memory_stats()
            for made in stage(*arguments):
                yield made
                peaks[name] = torch.cuda.max_memory_allocated()

        return {"score": score, "conditioning": run}.get(name, steps)

    stages = FAST
    if network.device.type == "cuda":
        torch.cuda.empty_cache()
        stages = replace(FAST, **{stage: watched(name, getattr(FAST, stage)) for stage, name in STAGES.items()})
    for _ in run_stages(stages, network, Batch(parts=(features,), sample_chunk=chunk, roomy=roomy)):
        pass
    return peaks


if __name__ == "__main__":
    main()
