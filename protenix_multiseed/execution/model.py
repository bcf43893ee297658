"""The model of the local executor on its device: what is loaded, what fits, and how one batch runs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import Stopped
from protenix_multiseed.events import BatchProgress, Event
from protenix_multiseed.execution import hardware
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.memory import DIFFUSION_BYTES, MARGIN, ModelSize, Settings
from protenix_multiseed.execution.plan import Planner
from protenix_multiseed.execution.retry import Done, MemoryLimit
from protenix_multiseed.execution.transfer import Transfer
from protenix_multiseed.kernels.base import torch_kernels, triton_kernels
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.limits import TOKEN_PADDING_GPU
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import predict_seed, to_prediction
from protenix_multiseed.model.stages import Scored, StepsDone, run_stages
from protenix_multiseed.model.weights import build_model, load_model
from protenix_multiseed.settings import PlanSettings
from protenix_multiseed.types import Batch, BatchPlan, Failure, Features, Prediction, Sizes
from protenix_multiseed.upstream.configs import build_configs

_KEPT = ("coordinate", "summary_confidence", "full_data")  # of upstream's output dictionary


def make_planner(settings: PlanSettings, configs: Any, model: Any, *, on_gpu: bool, fused: bool) -> Planner:
    """The planner of a run. The model's weights need not be loaded.

    Args:
        configs: Upstream's configuration.
        fused: Whether Triton kernels run.
    """
    return Planner(
        model=ModelSize.of(configs, model),
        memory=Settings(
            n_sample=settings.samples,
            n_step=configs.sample_diffusion.N_step,
            trunk_bytes=2 if on_gpu and configs.dtype != "fp32" else 4,
            diffusion_bytes=DIFFUSION_BYTES[settings.precision],
            padding=TOKEN_PADDING_GPU if on_gpu else 1,
            on_gpu=on_gpu,
            fused=fused,
        ),
        settings=settings,
    )


class LoadedModel:
    """One model on one device for a whole run.

    Args:
        probe: Of the compiled kernels.

    Attributes:
        lost: Why the device no longer answers; None while it does.

    Raises:
        ConfigError: if the device or the kernels are not there.
    """

    def __init__(self, config: RunConfig, probe: KernelProbe) -> None:
        self.config, self._probe = config, probe
        self.device = hardware.choose_device(config.device)
        if self.device.type == "cuda":  # graphs are captured and Triton kernels launched on the current device
            torch.cuda.set_device(self.device)
            hardware.let_segments_grow()
        probe.begin(hardware.card_of(self.device))
        self.configs = build_configs(config.upstream_settings, device_capability=hardware.capability_of(self.device))
        self.checkpoint = config.checkpoint_path
        self.missing_weights: tuple[str, ...] = ()
        self.kernels: dict[str, str] = {}
        self._built = build_model(self.configs)
        self.network = self._make_network(self._built)
        on_gpu = self.device.type == "cuda"
        self.planner = make_planner(config.plan_settings, self.configs, self._built, on_gpu=on_gpu, fused=on_gpu)
        self.lost: str | None = None
        self.limit = MemoryLimit()
        self.transfer = Transfer(self.device)

    def load(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Load the weights, and choose the kernels that the probe found right.

        Raises:
            WeightsError: if the checkpoint cannot be used.
            ConfigError: if kernels are asked for by name and cannot be used.
            Stopped: if ``should_stop`` says so meanwhile.
        """
        if self.checkpoint is None:
            model = demo.fill(self._built)
        else:
            is_mapped = self.device.type == "cuda"
            model = load_model(self.configs, self.checkpoint, self.config.model, self._built, mapped=is_mapped)
            self.missing_weights = model.missing_weights  # type: ignore[assignment]
        self.network = self._make_network(model.to(self.device))
        while self._probe.is_at_work:
            if should_stop():
                raise Stopped
            time.sleep(0.05)
        self._choose_kernels()

    def close(self) -> None:
        """End the threads that copy, and let go of the model."""
        self.transfer.close()
        del self.network

    def facts(self) -> dict[str, Any]:
        """What the run's record says of device, kernels and weights."""
        unused = "batched" if self.config.reference_reason else "reference"
        facts: dict[str, Any] = {"device": str(self.device)}
        if self.device.type == "cuda":
            facts["gpu"] = torch.cuda.get_device_name(self.device)
        return facts | {
            "kernels": {name: found for name, found in self.kernels.items() if name != unused},
            "missing_weights": list(self.missing_weights),
        }

    # Memory

    def free_bytes(self) -> int:
        """Bytes that a plan may count on."""
        free = self.config.assume_free or hardware.available_bytes(self.device)
        return self.limit.budget(int(MARGIN * free))

    def refusal(self, sizes: Sizes) -> str | None:
        """Why a job of these sizes cannot be predicted; None if it can."""
        if self.lost is not None:
            return f"the device no longer answers ({self.lost}); run the same command again: what is done is kept"
        return self.planner.refusal(sizes, self.free_bytes())

    @staticmethod
    def is_out_of_memory(error: BaseException) -> bool:
        """Whether an error means that memory ran out."""
        return hardware.is_out_of_memory(error)

    def release(self) -> None:
        """Free what a failed batch held."""
        self.network.graphs.forget()
        self.lost = hardware.free_memory(self.device)

    # Batches

    def run_batch(
        self, features: Features, retries: Sequence[str], gate: Gate, plan: BatchPlan
    ) -> Iterator[Done[Failure | Future[Prediction]] | Event]:
        """Run one batch: each seed's prediction on its way from the device, and the batch's progress.

        Args:
            retries: What was tried before, for the record.

        Raises:
            Stopped: if the gate says that time is up.
        """
        hardware.reset_peak(self.device)
        batch = Batch(
            features=features.only(plan.seeds), sample_chunk=plan.sample_chunk, estimated_bytes=plan.estimated_bytes
        )
        if self.config.reference_reason is None:
            return self._run_batched(batch, retries, gate)
        return self._run_reference(batch, retries, gate)

    def _run_batched(
        self, batch: Batch, retries: Sequence[str], gate: Gate
    ) -> Iterator[Done[Failure | Future[Prediction]] | Event]:
        started = time.perf_counter()
        for step in run_stages(FAST, self.network, batch):
            if isinstance(step, StepsDone):
                yield BatchProgress(
                    job=batch.features.job, seeds=batch.seeds, stage=step.stage, done=step.done, total=step.total
                )
            elif isinstance(step, Scored):
                run = {
                    "path": "batched",
                    "batch": list(batch.seeds),
                    "sample_chunk": batch.sample_chunk,
                    "precision": self.config.precision,
                    "kernels": self.kernels["batched"],
                    "stage_seconds": dict(step.seconds),
                    "estimated_bytes": batch.estimated_bytes,
                    "seconds": round((time.perf_counter() - started) / len(batch.seeds), 3),
                }
                seed = batch.seeds[step.index]
                yield Done(seed, self._fetch(step.raw, batch.features, seed, self._full_record(run, retries)))
            if gate.time_is_up:
                raise Stopped

    def _run_reference(
        self, batch: Batch, retries: Sequence[str], gate: Gate
    ) -> Iterator[Done[Failure | Future[Prediction]] | Event]:
        def check() -> None:
            if gate.time_is_up:
                raise Stopped

        (seed,) = batch.features.seeds
        full = self.config.full_confidence
        made = predict_seed(self.network, batch.features, seed, full=full, check=check)
        more = {
            "why": self.config.reference_reason,
            "precision": "reference",
            "kernels": self.kernels["reference"],
        }
        finished: Future[Prediction] = Future()
        finished.set_result(replace(made, run=self._full_record({**made.run, **more}, retries)))
        yield Done(seed.seed, finished)

    def _fetch(
        self, raw: Mapping[str, Any], features: Features, seed: int, run: Mapping[str, Any]
    ) -> "Future[Prediction]":
        """Fetch a seed's results from the device and make a prediction of them, in the background."""
        full = self.config.full_confidence

        def make(fetched: dict[str, Any]) -> Prediction:
            return replace(to_prediction(fetched, features, seed, full=full), run=run)

        return self.transfer.download({name: raw[name] for name in _KEPT}, make)

    def _full_record(self, run: Mapping[str, Any], retries: Sequence[str]) -> dict[str, Any]:
        return {
            **run,
            "device": str(self.device),
            "retries": list(retries),
            "peak_bytes": hardware.peak_bytes(self.device),
        }

    def _make_network(self, model: Any) -> Network:
        on_gpu = self.device.type == "cuda"
        return Network(
            module=model,
            configs=self.configs,
            spec=self.config.spec,
            device=self.device,
            precision=self.config.precision,
            padding=TOKEN_PADDING_GPU if on_gpu else 1,
            kernels=torch_kernels(on_gpu=on_gpu),
        )

    def _choose_kernels(self) -> None:
        """Triton's for the batched path, cuEquivariance's for Protenix's own modules, if the probe found them right."""
        found = self._probe.result()
        triangles = "cuequivariance" if found.get("cuequivariance") == "ok" else "torch"
        for name in ("triangle_attention", "triangle_multiplicative"):
            self.configs[name] = triangles
        self.kernels = {"batched": "torch", "reference": triangles}
        if found.get("triton") == "ok":
            self.network = replace(self.network, kernels=triton_kernels())
            self.kernels["batched"] = "triton"
        else:
            self.planner = replace(self.planner, memory=replace(self.planner.memory, fused=False))
        self.kernels |= {f"no {kind}": outcome for kind, outcome in found.items() if outcome != "ok"}
