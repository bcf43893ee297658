"""The executor: holds the model, and turns features into predictions, one seed at a time."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from protenix_multiseed import upstream
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, WeightsError
from protenix_multiseed.features.pool import failure
from protenix_multiseed.model import demo
from protenix_multiseed.model.reference import predict_seed
from protenix_multiseed.model.weights import build_model, check_sha256, load_model
from protenix_multiseed.preflight import checkpoint_path
from protenix_multiseed.types import Failure, Features, Prediction


class Executor:
    """One model on one device for a whole run.

    Raises:
        ConfigError: if the device or the kernels are not there.
        WeightsError: if the checkpoint cannot be used.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.kernels = choose_kernels(config.kernels, self.device)
        capability = torch.cuda.get_device_capability(self.device) if self.device.type == "cuda" else None
        self.configs = upstream.build_configs(
            model=config.model,
            cycles=config.cycles,
            steps=config.steps,
            samples=config.samples,
            msa=bool(config.msa),
            template=config.template,
            rna_msa=config.rna_msa,
            guidance=config.guidance,
            kernels=self.kernels,
            device_capability=capability,
            overrides=config.upstream,
        )
        self.kernels = self.configs.triangle_attention  # torch on cards that have no other
        self.checkpoint = checkpoint_path(config)
        self.checkpoint_sha256: str | None = None
        self.missing_weights: tuple[str, ...] = ()
        self.model: Any = None

    def __enter__(self) -> Self:
        if self.checkpoint is None:
            self.model = demo.fill(build_model(self.configs))
        else:
            hashing = _Hashing(self.checkpoint, self.config.model)
            self.model = load_model(self.configs, self.checkpoint, self.config.model)
            self.checkpoint_sha256 = hashing.result()
            self.missing_weights = self.model.missing_weights
        self.model.to(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.model = None

    def predict(self, features: Features) -> Iterator[Prediction | Failure]:
        """Predict every seed of the features, in their order. A seed that fails stops nothing else."""
        limit = self.config.model_preset.max_tokens
        if limit is not None and features.n_token > limit:
            message = f"{features.n_token} tokens: {self.config.model} takes at most {limit}; choose another --model"
            yield from (
                Failure(job=features.job, seed=s.seed, stage="predict", message=message) for s in features.seeds
            )
            return
        for seed in features.seeds:
            try:
                yield predict_seed(
                    self.model,
                    features,
                    seed,
                    self.configs,
                    self.device,
                    model_name=self.config.model,
                    full=self.config.full_confidence,
                )
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                yield Failure(
                    job=features.job,
                    seed=seed.seed,
                    stage="predict",
                    traceback=str(error),
                    message=f"out of GPU memory with {features.n_token} tokens; use fewer --samples or a larger GPU",
                )
            except Exception as error:
                yield failure(features.job, seed.seed, "predict", error)


class _Hashing(threading.Thread):
    """Hashes the checkpoint beside the loading of it; hashing leaves Python's lock alone."""

    def __init__(self, checkpoint: Path, model: str) -> None:
        super().__init__(daemon=True)
        self._checkpoint, self._model = checkpoint, model
        self._outcome: str | WeightsError | OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = check_sha256(self._checkpoint, self._model)
        except (WeightsError, OSError) as error:
            self._outcome = error

    def result(self) -> str:
        self.join()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return str(self._outcome)


def choose_device(name: str) -> torch.device:
    """The device of a run.

    Raises:
        ConfigError: if CUDA is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices here; use --device cpu or auto"
        )
    return device


def choose_kernels(name: str, device: torch.device) -> str:
    """Triangle kernels of a run: cuEquivariance on a GPU where it is installed, else torch.

    Raises:
        ConfigError: if cuEquivariance is asked for and cannot run.
    """
    if device.type == "cpu":
        if name == "cuequivariance":
            raise ConfigError("--kernels cuequivariance: it needs a GPU; use --kernels torch or auto")
        return "torch"
    if name == "torch":
        return "torch"
    try:
        import cuequivariance_ops_torch  # noqa: F401
        import cuequivariance_torch  # noqa: F401
    except ImportError as error:
        if name == "auto":
            return "torch"
        raise ConfigError(f"--kernels cuequivariance: it is not installed ({error}); use --kernels torch") from None
    return "cuequivariance"
