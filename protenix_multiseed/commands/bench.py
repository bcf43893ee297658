"""``protenix-ms bench``: time Protenix seed by seed and all seeds in batches, side by side on this machine.

The job is made up, so that no input file is needed. The weights are the checkpoint's. If there is no checkpoint, they
are made up, which does not change the timings. No side includes featurization or writing. Every side runs once to warm
up. Then the sides run in turn, so that other load on the machine affects all sides alike.
"""

import json
import random
import statistics
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from protenix_multiseed.commands.console import make_console
from protenix_multiseed.config import RunConfig
from protenix_multiseed.execution.hardware import peak_bytes, reset_peak
from protenix_multiseed.execution.memory import bytes_of_parts
from protenix_multiseed.execution.model import LoadedModel
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.job_spec import Alignment, JobSpec, Polymer, SourceFile
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import predict_seed, to_prediction
from protenix_multiseed.model.stages import Scored, run_stages
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Batch, Features, Job
from protenix_multiseed.units import counted, format_bytes
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.environment import prepare

_LETTERS = "ACDEFGHIKLMNPQRSTVWY"
BATCHED = "all seeds batched, "  # name of a side, before its precision
_MAX_CHAIN_RESIDUES = 600  # longest chain of a made-up job
_TITLE_COLUMNS = 14  # of a column of the table
# Names of stages: upstream's -> ours.
_STAGES = {"pairformer": "trunk", "diffusion": "sample", "confidence": "score"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Measurements of one way to predict all seeds.

    Attributes:
        name: Name of the side, for tables.
        seconds: Seconds of every repeat, for all seeds together.
        stages: Median seconds of each stage. For Protenix on a GPU, they come from Protenix's log, which does not
            synchronize the GPU between stages.
        peak_bytes: Peak memory in bytes: on a GPU the device memory in the last repeat, on a CPU the process's memory
            since it started.
    """

    name: str
    seconds: tuple[float, ...]
    stages: Mapping[str, float]
    peak_bytes: int

    @property
    def median(self) -> float:
        """Median seconds of the repeats."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Measurements of all sides on one job."""

    features: Features
    device: str
    made_up_weights: bool
    sides: tuple[Side, ...]

    @property
    def baseline(self) -> Side:
        """The faster of Protenix's sides, which differ in their triangle kernels."""
        return min((side for side in self.sides if side.name.startswith("Protenix")), key=lambda side: side.median)


def bench(config: RunConfig, *, tokens: int, rows: int, repeats: int, as_json: bool) -> None:
    """Measure every side on one made-up job and show the figures.

    Args:
        config: Model, seeds, samples, cycles, steps and device. A missing checkpoint is replaced by made-up weights.
        tokens: Number of residues of the job.
        rows: Number of MSA rows.
        repeats: Number of measured runs per side.
        as_json: Print JSON instead of a table.
    """
    progress = Console(file=sys.stderr, highlight=False)
    with progress.status("loading", spinner="dots") as status:
        made = measure_all(config, tokens=tokens, rows=rows, repeats=repeats, tell=status.update)
    _show(make_console(), made, config, as_json=as_json)


def measure_all(config: RunConfig, *, tokens: int, rows: int, repeats: int, tell: Callable[[str], None]) -> Bench:
    """Measure every side as :func:`bench` does, without showing the figures.

    Args:
        config: As for :func:`bench`.
        tokens: Number of residues of the job.
        rows: Number of MSA rows.
        repeats: Number of measured runs per side.
        tell: Called with a short text before each step.
    """
    prepare(find_dictionary())
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder), tokens, rows, config.seeds or (1,))
        (features,) = featurize(job, FeatureSettings())
        assert isinstance(features, Features)  # a protein alone needs no conformer
    with loaded_model(config) as model:
        sides = make_sides(model, features)
        # On a GPU, kernels and memory depend on the number of seeds. On a CPU, one seed is enough to warm up.
        first = features if model.device.type == "cuda" else replace(features, seeds=features.seeds[:1])
        for name, side in make_sides(model, first).items():
            tell(f"warming up: {name}")
            side()
        taken: dict[str, list[tuple[float, Mapping[str, float], int]]] = {name: [] for name in sides}
        for repeat in range(repeats):
            for name, side in sides.items():
                tell(f"repeat {repeat + 1} of {repeats}: {name}")
                taken[name].append(measure(model.device, side))
        for name, measured in taken.items():
            if name.startswith(BATCHED):  # what the dry runs of this device are estimated from
                seconds = statistics.median(seconds for seconds, *_ in measured)
                precision = name.removeprefix(BATCHED)
                model.speeds.add(
                    len(features.seeds),
                    features.n_token,
                    seconds,
                    precision=precision,
                    kernels=model.kernels["batched"],
                    is_first=False,
                )
        return Bench(
            features=features,
            device=torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "CPU",
            made_up_weights=model.checkpoint is None,
            sides=tuple(summarise(name, measured) for name, measured in taken.items()),
        )


@contextmanager
def loaded_model(config: RunConfig, probe: KernelProbe | None = None) -> Iterator[LoadedModel]:
    """Yield a loaded model with kernels for both paths. Its weights are made up if its checkpoint is missing."""
    with probe or KernelProbe(config.device, config.kernels) as found:
        model = LoadedModel(config, found)
        if model.checkpoint is not None and not model.checkpoint.is_file():
            model.checkpoint = None
        model.load()
        try:
            yield model
        finally:
            model.close()


def make_job(folder: Path, n_token: int, n_row: int, seeds: Sequence[int]) -> Job:
    """Return a job of protein chains, each with an MSA of mutants. The MSA files are written to ``folder``."""
    generator = random.Random(n_token)
    chains = []
    for start in range(0, n_token, _MAX_CHAIN_RESIDUES):
        sequence = "".join(generator.choices(_LETTERS, k=min(_MAX_CHAIN_RESIDUES, n_token - start)))
        path = folder / f"{start}.a3m"
        with path.open("w") as file:
            file.write(f">query\n{sequence}\n")
            for number in range(1, n_row):
                row = list(sequence)
                for place in generator.sample(range(len(row)), k=max(1, len(row) // 5)):
                    row[place] = generator.choice(_LETTERS)
                file.write(f">mutant{number}\n{''.join(row)}\n")
        alignment = Alignment(file=SourceFile(path=path, written=path.name))
        chains.append(Polymer(kind="protein", sequence=sequence, unpaired=alignment))
    spec = JobSpec(name=f"bench_{n_token}", entities=tuple(chains))
    return Job(name=spec.name, seeds=tuple(seeds), source=folder, index=0, spec=spec, n_token=n_token)


def make_sides(model: LoadedModel, features: Features) -> dict[str, Callable[[], dict[str, float]]]:
    """Return each side as a function that predicts all seeds and returns the seconds of each stage."""
    network = model.network
    kinds = ["torch"] + (["cuequivariance"] if model.kernels["reference"] == "cuequivariance" else [])
    sides: dict[str, Callable[[], dict[str, float]]] = {
        f"Protenix, {kind} kernels": partial(_seed_by_seed, network, features, kind) for kind in kinds
    }
    on_gpu = network.device.type == "cuda"
    for precision in ("reference", "fast") if on_gpu else ("reference",):  # bfloat16 is slow on a CPU
        sides[f"{BATCHED}{precision}"] = partial(_batched, model, precision, features)
    return sides


def _seed_by_seed(network: Network, features: Features, kernels: str) -> dict[str, float]:
    with kernels_of_protenix(network, kernels):
        made = [predict_seed(network, features, seed, full=False).run["stage_seconds"] for seed in features.seeds]
    return {ours: sum(seconds.get(theirs, 0.0) for seconds in made) for theirs, ours in _STAGES.items()}


def _batched(model: LoadedModel, precision: str, features: Features) -> dict[str, float]:
    """Predict all seeds in the batches that a run would plan. Returns the seconds of each stage."""
    network, planner = replace(model.network, precision=precision), model.planner
    n_byte = bytes_of_parts(precision, half=network.kernels.half)
    planner = replace(planner, memory=replace(planner.memory, **n_byte))
    stages: dict[str, float] = defaultdict(float)
    seeds = tuple(seed.seed for seed in features.seeds)
    for plan in planner.plan(features.sizes, seeds, model.free_bytes()):
        batch = Batch(parts=(features.only(plan.seeds),), sample_chunk=plan.sample_chunk, roomy=plan.roomy)
        of_batch: Mapping[str, float] = {}
        for step in run_stages(FAST, network, batch):
            if isinstance(step, Scored):
                of_batch = step.seconds
                to_prediction(step.raw, features, batch.seeds[step.index], full=False)
        for stage, seconds in of_batch.items():
            stages[stage] += seconds
    return {
        **stages,
        "trunk": stages["trunk"] + stages.pop("inputs"),
        "sample": stages["sample"] + stages.pop("conditioning"),
    }


@contextmanager
def kernels_of_protenix(network: Network, kind: str) -> Iterator[None]:
    """Make Protenix use this kind of triangle kernels inside the ``with`` block."""
    names = ("triangle_attention", "triangle_multiplicative")
    before = {name: network.configs[name] for name in names}
    network.configs.update(dict.fromkeys(names, kind))
    try:
        yield
    finally:
        network.configs.update(before)


def measure(device: torch.device, side: Callable[[], dict[str, float]]) -> tuple[float, Mapping[str, float], int]:
    """Run a side once. Returns its seconds, the seconds of each stage, and the peak memory in bytes."""
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.synchronize(device)
        reset_peak(device)
    start = time.perf_counter()
    stages = side()
    if is_cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, stages, peak_bytes(device)


def summarise(name: str, measured: Sequence[tuple[float, Mapping[str, float], int]]) -> Side:
    """Combine all repeats of one side."""
    seconds, stages, peaks = zip(*measured, strict=True)
    medians = {part: statistics.median(one[part] for one in stages) for part in _STAGES.values()}
    return Side(name=name, seconds=seconds, stages=medians, peak_bytes=peaks[-1])


def _show(console: Console, bench: Bench, config: RunConfig, *, as_json: bool) -> None:
    """Print each side with its speed-up over the faster of Protenix's sides."""
    features, base = bench.features, bench.baseline
    versions = {name: metadata.version(name) for name in ("protenix", "torch")}
    programs = f"Protenix {versions['protenix']}, torch {versions['torch']}"
    facts = {
        "device": bench.device,
        "model": config.model,
        "made_up_weights": bench.made_up_weights,
        "tokens": features.n_token,
        "atoms": features.n_atom,
        "msa_rows": features.n_msa,
        "seeds": len(features.seeds),
        "samples": config.samples,
        "cycles": config.cycles,
        "steps": config.steps,
        "versions": versions,
    }
    if as_json:
        sides = [asdict(side) | {"median": side.median, "speedup": base.median / side.median} for side in bench.sides]
        console.print_json(json.dumps({**facts, "sides": sides}))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for side in bench.sides:  # a column each: beside each other, all figures fit 80 columns
        title = "\n".join(textwrap.wrap(side.name, _TITLE_COLUMNS))
        table.add_column(escape(title), justify="right", no_wrap=True)
    names = ("seconds", "from", "to", "speed-up", *_STAGES.values(), "memory")
    for row in zip(names, *(_figures(side, base) for side in bench.sides), strict=True):
        table.add_row(*row)
    weights = "made-up weights, " if bench.made_up_weights else ""
    console.print(
        f"{bench.device}: {config.model}, {weights}{features.n_token} tokens, {features.n_msa} MSA rows, "
        f"{counted(len(features.seeds), 'seed')} x {counted(config.samples, 'sample')}, {config.cycles} cycles, "
        f"{config.steps} steps; medians of {len(base.seconds)}; {programs}",
        soft_wrap=True,
    )
    console.print(table)


def _figures(side: Side, base: Side) -> list[str]:
    """Return the column of a side in the table."""
    return [
        *(f"{seconds:.2f}" for seconds in (side.median, min(side.seconds), max(side.seconds))),
        f"{base.median / side.median:.2f} x",
        *(f"{seconds:.2f}" for seconds in side.stages.values()),
        format_bytes(side.peak_bytes),
    ]
