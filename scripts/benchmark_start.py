"""Time the work before the first prediction, side by side with upstream, in one run on this machine's CPU.

    python scripts/benchmark_start.py [--skip-model]

- Model: build protenix_base_default_v1.0.0 (368 M weights) and load a full-size checkpoint in upstream's format.
- Featurization: a complex of about 1,200 tokens, for one seed and for five seeds; also the bytes passed to the model.
- Dictionary: build the index of all components, and open it.

Both sides use the same dictionary and warm caches. Featurization times are medians over alternating repetitions.
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LAYERNORM_TYPE", "torch")

import numpy as np
import torch
from protenix.data.inference import infer_dataloader

from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.features.msa_and_templates import dataset_configs
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.model import demo
from protenix_multiseed.model.weights import build_model, load_model
from protenix_multiseed.settings import FeatureSettings, InputRules, UpstreamSettings
from protenix_multiseed.types import Job
from protenix_multiseed.upstream import dictionary_index, environment
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.job_dict import to_upstream

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "7r6r.json"
MODEL = "protenix_base_default_v1.0.0"
SEEDS = (1, 2, 3, 4, 5)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def large_job(folder: Path) -> Job:
    """Return a job of ten chains and about 1,200 tokens: five proteins with MSAs, two DNA strands, three ligands."""
    (small,) = json.loads(EXAMPLE.read_text())
    protein, *dna = small["sequences"]
    for key in ("pairedMsaPath", "unpairedMsaPath"):
        protein["proteinChain"][key] = str(EXAMPLE.parent / protein["proteinChain"][key])
    for item in small["sequences"]:
        next(iter(item.values())).pop("id")
    protein["proteinChain"]["count"] = 5
    ligands = [{"ligand": {"ligand": "CCD_ATP", "count": 2}}, {"ligand": {"ligand": "CCD_HEM", "count": 1}}]
    path = folder / "large.json"
    path.write_text(json.dumps([{"name": "large", "sequences": [protein, *dna, *ligands]}]))
    return read_jobs([path], SEEDS, InputRules(model=MODEL), EmbeddedDictionary())[0]


def compare_features(repetitions: int) -> None:
    settings = FeatureSettings()
    with tempfile.TemporaryDirectory() as folder:
        job = large_job(Path(folder))
        path = Path(folder) / "upstream.json"
        path.write_text(json.dumps([to_upstream(job.spec)]))
        configs = dataset_configs(settings, path)
        dataset = infer_dataloader.InferenceDataset(configs)

        def theirs(seeds: tuple[int, ...]) -> dict[str, Any]:
            for seed in seeds:
                random.seed(seed)
                np.random.seed(seed)
                with environment.silenced():
                    data, _, _ = dataset.process_one(dataset.inputs[0])
            return data["input_feature_dict"]

        def ours(seeds: tuple[int, ...]) -> Any:
            return featurize(Job(name=job.name, seeds=seeds, source=job.source, index=0, spec=job.spec), settings)

        times: dict[str, list[float]] = {}
        theirs((1,)), ours((1,))
        for _ in range(repetitions):
            for name, function, seeds in (
                ("theirs 1", theirs, SEEDS[:1]),
                ("ours 1", ours, SEEDS[:1]),
                ("theirs 5", theirs, SEEDS),
                ("ours 5", ours, SEEDS),
            ):
                seconds, result = timed(lambda function=function, seeds=seeds: function(seeds))
                times.setdefault(name, []).append(seconds)
                if name == "theirs 1":
                    their_bytes = total_bytes(result)
                elif name == "ours 5":
                    (features,) = result
    print(
        f"featurization of {features.n_token} tokens, {features.n_atom} atoms, {features.n_msa} MSA rows, {features.n_asym} chains"
    )
    for count in (1, 5):
        a, b = (statistics.median(times[f"{side} {count}"]) for side in ("theirs", "ours"))
        spread = ", ".join(
            f"{side} {min(v):.2f}-{max(v):.2f}" for side in ("theirs", "ours") for v in [times[f"{side} {count}"]]
        )
        print(f"  {count} seed(s): upstream {a:6.2f} s, ours {b:5.2f} s: {100 * b / a:4.1f}%   ({spread})")
    print(
        f"  bytes: upstream {their_bytes / 2**20:.0f} MiB per seed, ours {features.nbytes / 2**20:.1f} MiB for five seeds: "
        f"{100 * features.nbytes / their_bytes:.2f}% of one"
    )


def total_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(total_bytes(item) for item in value.values())
    return value.numel() * value.element_size() if torch.is_tensor(value) else 0


def compare_model() -> None:
    from protenix.model.protenix import Protenix

    configs = build_configs(UpstreamSettings(model=MODEL))
    state = demo.fill(build_model(configs)).state_dict()
    count = sum(value.numel() for value in state.values())
    for prefix in ("", "module."):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{MODEL}.pt"
            torch.save({"model": {prefix + key: value for key, value in state.items()}}, path)

            def theirs(path: Path = path) -> torch.nn.Module:
                """Do what upstream's InferenceRunner does: init_model, then load_checkpoint."""
                model = environment.call_quietly(Protenix, configs)
                checkpoint = torch.load(path, map_location="cpu", weights_only=False)["model"]
                model.load_state_dict(
                    {key.removeprefix("module."): value for key, value in checkpoint.items()}, strict=True
                )
                return model.eval()

            ours_seconds, ours_model = timed(lambda path=path: load_model(configs, path, MODEL))
            theirs_seconds, theirs_model = timed(theirs)
            size = path.stat().st_size
        ours_state, theirs_state = ours_model.state_dict(), theirs_model.state_dict()
        equal = list(ours_state) == list(theirs_state) and all(
            torch.equal(ours_state[key], theirs_state[key]) for key in theirs_state
        )
        print(
            f"build and load {MODEL}, keys {prefix or 'plain'!r}, {count / 1e6:.0f} M weights, {size / 2**30:.2f} GiB: upstream "
            f"{theirs_seconds:.1f} s, ours {ours_seconds:.1f} s: {100 * ours_seconds / theirs_seconds:.1f}%; tensors equal: {equal}"
        )


def time_dictionary() -> None:
    with tempfile.TemporaryDirectory() as folder:
        built, _ = timed(lambda: EmbeddedDictionary(Path(folder) / "index"))
        opened, dictionary = timed(lambda: EmbeddedDictionary(Path(folder) / "index"))
        one, _ = timed(lambda: dictionary["ATP"])
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(
        f"dictionary: {len(dictionary)} components indexed in {built:.1f} s ({size / 2**20:.0f} MiB, layout "
        f"{dictionary_index.LAYOUT}), opened in {1000 * opened:.1f} ms, one component in {1000 * one:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-model", action="store_true", help="leave the full-size model out")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    environment.prepare(EmbeddedDictionary())
    time_dictionary()
    compare_features(arguments.repetitions)
    if not arguments.skip_model:
        compare_model()


if __name__ == "__main__":
    main()
