"""Predict one seed at a time with Protenix's own modules, unchanged. These predictions define the correct results."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from protenix_multiseed.errors import PredictionError
from protenix_multiseed.features.layout import expand
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.types import Features, Prediction, SeedFeatures
from protenix_multiseed.upstream.environment import silenced


def predict_seed(
    network: Network,
    features: Features,
    seed: SeedFeatures,
    *,
    full: bool,
    check: Callable[[], None] = lambda: None,
) -> Prediction:
    """Predict one seed like upstream's ``InferenceRunner.predict``, in upstream's precision for this model and size.

    Args:
        full: Whether to keep all confidence values of every atom and token pair. If False, keep only pLDDT and PAE.
        check: Called before each trunk block and each denoising step. It may raise an error to stop the prediction.

    Raises:
        PredictionError: if a coordinate or a confidence score is not finite.
    """
    start = time.perf_counter()
    network.set_size(features.n_token)
    inputs = expand(features, seed, device=network.device, constraint=_reads_constraint(network.configs))
    with (
        torch.no_grad(),
        silenced(),
        SeedRng(seed, network.device).as_globals(),
        network.autocast(),
        _checked(network.module, check),
    ):
        raw, _, log = network.module(
            input_feature_dict=inputs,
            label_full_dict=None,
            label_dict=None,
            mode="inference",
            mc_dropout_apply_rate=network.configs.mc_dropout_apply_rate,
        )
    prediction = to_prediction(raw, features, seed.seed, full=full)
    run = {
        "path": "reference",
        "batch": [seed.seed],
        "seconds": round(time.perf_counter() - start, 3),
        "stage_seconds": {name: round(value, 3) for name, value in log["time"].items()},
    }
    return replace(prediction, run=run)


def to_prediction(raw: dict[str, Any], features: Features, seed: int, *, full: bool) -> Prediction:
    """Convert upstream's output dictionary to a prediction on the CPU, and check that all values are finite.

    Args:
        full: Whether to keep all confidence values of every atom and token pair. If False, keep only pLDDT and PAE.

    Raises:
        PredictionError: if a coordinate or a confidence score is not finite.
    """
    summary = tuple(_to_numpy(sample) for sample in raw["summary_confidence"])
    kept = raw["full_data"]
    if not full:
        kept = [{name: sample[name] for name in ("atom_plddt", "token_pair_pae")} for sample in kept]
    full_data = tuple(_to_numpy(sample) for sample in kept)
    coordinates = raw["coordinate"].float().cpu().numpy()
    for what, values in (("a coordinate", [coordinates]), ("a confidence score", [*summary, *full_data])):
        if not all(_is_finite(value) for value in values):
            raise PredictionError(
                f"{features.job.where} seed {seed}: {what} is not finite; "
                "nothing was written for this seed. Try --kernels torch, or another seed"
            )
    return Prediction(
        job=features.job,
        seed=seed,
        coordinates=coordinates,
        summary=summary,
        full=full_data,
        atom_array=features.atom_array,
        entity_poly_type=features.entity_poly_type,
    )


@contextmanager
def _checked(module: Any, check: Callable[[], None]) -> Iterator[None]:
    """Inside the context, call ``check`` before each block of the trunk and before each denoising step."""
    watched = [*module.pairformer_stack.blocks, *module.msa_module.blocks, module.diffusion_module]
    hooks = [part.register_forward_pre_hook(lambda *_: check()) for part in watched]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _reads_constraint(configs: Any) -> bool:
    return any(
        embedder.get("enable", False)
        for embedder in configs.model.constraint_embedder.values()
        if hasattr(embedder, "get")
    )


def _to_numpy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_numpy(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
    return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    return not isinstance(value, np.ndarray | float) or bool(np.isfinite(value).all())
