"""``protenix-ms bench``: Protenix seed by seed and all seeds batched, side by side on this machine.

One job is made up, so that nothing but the tool is needed; its weights are the checkpoint's, or made up too where there
is none, which changes no time. Featurization and writing are left out on both sides. Every side runs once to warm up,
then all of them in turn, so that what disturbs the machine disturbs all alike.
"""

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from protenix_multiseed.config import RunConfig
from protenix_multiseed.dictionary import Dictionary
from protenix_multiseed.executor import Executor
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.kernel_probe import KernelProbe
from protenix_multiseed.memory import DIFFUSION_BYTES, peak_bytes
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.reference import predict_seed, to_prediction
from protenix_multiseed.model.stages import Network, run_stages
from protenix_multiseed.types import Features, FeatureSettings, Job, SeedFeatures
from protenix_multiseed.upstream import prepare

_LETTERS = "ACDEFGHIKLMNPQRSTVWY"
_CHAIN = 600  # residues of the longest chain of a made-up job
# Upstream's names of its parts -> ours.
_PARTS = {"pairformer": "trunk", "diffusion": "sample", "confidence": "score"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way of predicting all seeds, measured.

    Attributes:
        seconds: Of every repeat, all seeds together.
        stages: Median seconds of each stage. On a GPU, Protenix's own are those of its log, which does not wait for
            the GPU between them.
        peak_bytes: The most memory held: of the GPU in the last repeat, on a CPU of the process until then.
    """

    name: str
    seconds: tuple[float, ...]
    stages: Mapping[str, float]
    peak_bytes: int

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All sides of one job."""

    features: Features
    device: str
    made_up_weights: bool
    sides: tuple[Side, ...]

    @property
    def baseline(self) -> Side:
        """The faster of Protenix's sides: of its two kinds of triangle kernels, the better on this device."""
        return min((side for side in self.sides if side.name.startswith("Protenix")), key=lambda side: side.median)


def bench(
    config: RunConfig, dictionary: Dictionary, *, tokens: int, rows: int, repeats: int, told: Callable[[str], None]
) -> Bench:
    """Measure every side of one made-up job.

    Args:
        config: Model, seeds, samples, cycles, steps and device. A missing checkpoint is replaced by made-up weights.
        tokens: Residues of the job.
        rows: Of its MSA.
        told: Told what is being done.
    """
    prepare(dictionary)
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder), tokens, rows, config.seeds or (1,))
        (features,) = featurize(job, FeatureSettings())
    with KernelProbe(config.device, config.kernels) as probe, make_executor(config, probe) as executor:
        sides = make_sides(executor, features)
        # A GPU compiles and allocates for these sizes; a CPU has nothing to gain from more than one seed.
        first = features if executor.device.type == "cuda" else replace(features, seeds=features.seeds[:1])
        for name, side in make_sides(executor, first).items():
            told(f"warming up: {name}")
            side()
        taken: dict[str, list[tuple[float, Mapping[str, float], int]]] = {name: [] for name in sides}
        for repeat in range(repeats):
            for name, side in sides.items():
                told(f"repeat {repeat + 1} of {repeats}: {name}")
                taken[name].append(measure(executor.device, side))
        return Bench(
            features=features,
            device=torch.cuda.get_device_name(executor.device) if executor.device.type == "cuda" else "CPU",
            made_up_weights=executor.checkpoint is None,
            sides=tuple(summarise(name, measured) for name, measured in taken.items()),
        )


def make_executor(config: RunConfig, probe: KernelProbe | None = None) -> Executor:
    """An executor that makes its weights up where its checkpoint is missing, with kernels for both paths."""
    executor = Executor(config, probe or KernelProbe(config.device, config.kernels))
    if executor.checkpoint is not None and not executor.checkpoint.is_file():
        executor.checkpoint = None
    return executor


def make_job(folder: Path, n_token: int, n_row: int, seeds: Sequence[int]) -> Job:
    """A job of protein chains, each with an MSA of mutants, written to ``folder``."""
    generator = random.Random(n_token)
    chains = []
    for start in range(0, n_token, _CHAIN):
        sequence = "".join(generator.choices(_LETTERS, k=min(_CHAIN, n_token - start)))
        path = folder / f"{start}.a3m"
        with path.open("w") as file:
            file.write(f">query\n{sequence}\n")
            for number in range(1, n_row):
                row = list(sequence)
                for place in generator.sample(range(len(row)), k=max(1, len(row) // 5)):
                    row[place] = generator.choice(_LETTERS)
                file.write(f">mutant{number}\n{''.join(row)}\n")
        chains.append({"proteinChain": {"sequence": sequence, "count": 1, "unpairedMsaPath": str(path)}})
    spec = {"name": f"bench_{n_token}", "sequences": chains}
    return Job(name=spec["name"], seeds=tuple(seeds), source=folder, index=0, spec=spec, n_token=n_token)  # type: ignore[arg-type]


def make_sides(executor: Executor, features: Features) -> dict[str, Callable[[], dict[str, float]]]:
    """Each side as a function that predicts all seeds and returns the seconds of each stage."""
    network = executor.network
    kinds = ["torch"] + (["cuequivariance"] if executor.kernels["reference"] == "cuequivariance" else [])
    sides: dict[str, Callable[[], dict[str, float]]] = {
        f"Protenix, {kind} kernels": lambda kind=kind: _seed_by_seed(network, features, kind)  # type: ignore[misc]
        for kind in kinds
    }
    on_gpu = network.device.type == "cuda"
    for precision in ("reference", "fast") if on_gpu else ("reference",):  # bfloat16 is slow on a CPU
        sides[f"all seeds batched, {precision}"] = partial(_batched, executor, precision, features)
    return sides


def _seed_by_seed(network: Network, features: Features, kernels: str) -> dict[str, float]:
    with kernels_of_protenix(network, kernels):
        made = [predict_seed(network, features, seed, full=False).run["stage_seconds"] for seed in features.seeds]
    return {ours: sum(seconds.get(theirs, 0.0) for seconds in made) for theirs, ours in _PARTS.items()}


def _batched(executor: Executor, precision: str, features: Features) -> dict[str, float]:
    """All seeds, in the batches that a run would plan."""
    network, planner = replace(executor.network, precision=precision), executor.planner
    planner = replace(planner, settings=replace(planner.settings, diffusion_bytes=DIFFUSION_BYTES[precision]))
    by_seed = {seed.seed: seed for seed in features.seeds}
    stages: dict[str, float] = defaultdict(float)
    for batch in planner.plan(features.sizes, tuple(by_seed), executor.free_bytes()):
        seeds = [by_seed[seed] for seed in batch.seeds]
        for stage, seconds in _one_batch(network, features, seeds, batch.sample_chunk).items():
            stages[stage] += seconds
    return {
        **stages,
        "trunk": stages["trunk"] + stages.pop("inputs"),
        "sample": stages["sample"] + stages.pop("conditioning"),
    }


def _one_batch(
    network: Network, features: Features, seeds: Sequence[SeedFeatures], sample_chunk: int
) -> Mapping[str, float]:
    stages: dict[str, float] = {}

    def finished(index: int, raw: dict[str, Any], seconds: Mapping[str, float]) -> None:
        stages.update(seconds)
        to_prediction(raw, features, seeds[index].seed, full=False)

    run_stages(FAST, network, features, seeds, sample_chunk, finished)
    return stages


@contextmanager
def kernels_of_protenix(network: Network, kind: str) -> Iterator[None]:
    """Have Protenix use this kind of triangle kernels."""
    names = ("triangle_attention", "triangle_multiplicative")
    before = {name: network.configs[name] for name in names}
    network.configs.update(dict.fromkeys(names, kind))
    try:
        yield
    finally:
        network.configs.update(before)


def measure(device: torch.device, side: Callable[[], dict[str, float]]) -> tuple[float, Mapping[str, float], int]:
    """Seconds of one run of a side, those of its stages, and the most memory it held."""
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    stages = side()
    if is_cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, stages, peak_bytes(device)


def summarise(name: str, measured: Sequence[tuple[float, Mapping[str, float], int]]) -> Side:
    """All repeats of one side."""
    seconds, stages, peaks = zip(*measured, strict=True)
    medians = {part: statistics.median(one[part] for one in stages) for part in _PARTS.values()}
    return Side(name=name, seconds=seconds, stages=medians, peak_bytes=peaks[-1])
