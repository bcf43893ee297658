"""The executor: holds the model on its device, plans each job's batches from free memory, and runs them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import torch

from protenix_multiseed import upstream
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.features.pool import failure
from protenix_multiseed.hardware import card_of, choose_device, free_memory, is_out_of_memory, let_segments_grow
from protenix_multiseed.kernel_probe import KernelProbe, make_probe
from protenix_multiseed.ladder import Finished, Ladder, MemoryLimit
from protenix_multiseed.memory import (
    DIFFUSION_BYTES,
    MARGIN,
    ModelSize,
    Settings,
    available_bytes,
    format_bytes,
    peak_bytes,
)
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.kernels.plain import PlainKernels
from protenix_multiseed.model.reference import predict_seed, to_prediction
from protenix_multiseed.model.stages import Network, run_stages
from protenix_multiseed.model.transfer import Arriving, Transfer
from protenix_multiseed.model.weights import build_model, load_model
from protenix_multiseed.plan import MAX_SEEDS, Planner
from protenix_multiseed.preflight import checkpoint_path
from protenix_multiseed.seeds import format_seeds
from protenix_multiseed.types import Batch, Failure, Features, Job, Prediction, Sizes


class Watcher(Protocol):
    """Who is told of a run's course."""

    def progress(self, job: Job, text: str) -> None:
        """A batch of a job enters a stage."""

    def warn(self, job: Job, text: str) -> None:
        """Something that the user should know."""


_Outcome: TypeAlias = Future[Prediction] | Prediction | Failure
PADDING = 16  # of tokens on a GPU, whose matrix units and vector loads want aligned rows


def make_configs(config: RunConfig, device_capability: tuple[int, int] | None) -> Any:
    """Upstream's configuration for a run."""
    return upstream.build_configs(
        model=config.model,
        cycles=config.cycles,
        steps=config.steps,
        samples=config.samples,
        msa=bool(config.msa),
        template=config.template,
        rna_msa=config.rna_msa,
        guidance=config.guidance,
        device_capability=device_capability,
        overrides=config.upstream,
    )


def make_planner(config: RunConfig, configs: Any, model: Any, *, on_gpu: bool) -> Planner:
    """Plans for a run from its model, whose weights need not be loaded."""
    return Planner(
        model=ModelSize.of(configs, model),
        settings=Settings(
            n_sample=config.samples,
            n_step=configs.sample_diffusion.N_step,
            trunk_bytes=2 if on_gpu and configs.dtype != "fp32" else 4,
            diffusion_bytes=DIFFUSION_BYTES[config.precision],
            padding=PADDING if on_gpu else 1,
            on_gpu=on_gpu,
        ),
        max_seeds=min(config.max_seeds_per_batch or MAX_SEEDS, config.stop_when_stable or MAX_SEEDS),
    )


class Executor:
    """One model on one device for a whole run.

    Args:
        probe: Of the compiled kernels; the executor's own if None.

    Raises:
        ConfigError: if the device or the kernels are not there.
        WeightsError: if the checkpoint cannot be used.
    """

    def __init__(self, config: RunConfig, probe: KernelProbe | None = None) -> None:
        self.config = config
        self.device = choose_device(config.device)
        if self.device.type == "cuda":  # graphs are captured and Triton's kernels launched on the current device
            torch.cuda.set_device(self.device)
            let_segments_grow()
        capability = torch.cuda.get_device_capability(self.device) if self.device.type == "cuda" else None
        self._probe = make_probe(config) if probe is None else probe
        self._probe.begin(card_of(self.device))
        self.configs = make_configs(config, capability)
        self.checkpoint = checkpoint_path(config)
        self.missing_weights: tuple[str, ...] = ()
        self.kernels: dict[str, str] = {}
        self._built = build_model(self.configs)
        self._padding = PADDING if self.device.type == "cuda" else 1
        self.network = self._make_network(self._built)
        self.planner = make_planner(config, self.configs, self._built, on_gpu=self.device.type == "cuda")
        self.lost: str | None = None  # why the device no longer answers
        self._limit = MemoryLimit()
        self.transfer = Transfer(self.device)

    def __enter__(self) -> Self:
        if self.checkpoint is None:
            model = demo.fill(self._built)
        else:
            mapped = self.device.type == "cuda"
            model = load_model(self.configs, self.checkpoint, self.config.model, self._built, mapped=mapped)
            self.missing_weights = model.missing_weights  # type: ignore[assignment]
        self.network = self._make_network(model.to(self.device))
        self._choose_kernels()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transfer.close()
        del self.network

    def free_bytes(self) -> int:
        """What a plan may count on."""
        free = self.config.assume_free or available_bytes(self.device)
        return self._limit.budget(int(MARGIN * free))

    def refuse_too_large(self, jobs: Sequence[Job]) -> None:
        """Refuse jobs that cannot run by their number of tokens alone, before anything is loaded.

        Raises:
            ConfigError: with the figures, unless the run is forced.
        """
        if self.config.force or self.config.reference_reason is not None:
            return
        free = self.free_bytes()
        refusals = (
            (job, self.planner.refusal(Sizes(n_token=job.n_token, n_atom=job.n_token, n_msa=1), free)) for job in jobs
        )
        if problems := [f"{job.where}: {refusal}" for job, refusal in refusals if refusal]:
            raise ConfigError("\n".join(problems))

    def arriving(self, coming: Iterable[list[Features] | Failure]) -> Iterator[Arriving | Failure]:
        """Features on their way to the device, the next job's while the caller predicts the last one's."""
        flat = (one for made in coming for one in ([made] if isinstance(made, Failure) else made))
        return self.transfer.ahead(flat, self._upload)

    def _upload(self, made: Features | Failure) -> Arriving | Failure:
        if isinstance(made, Failure):
            return made
        try:
            return self.transfer.upload(made)
        except RuntimeError:  # no memory for it now: it is sent when its turn comes, where that is handled
            return Arriving(made)
        except Exception as error:
            return failure(made.job, None, "featurize", error)

    def predict(
        self, arriving: Arriving, watcher: Watcher, goes_on: Callable[[], bool] = lambda: True
    ) -> Iterator[Prediction | Failure]:
        """Predict every seed of the features. A seed that fails stops nothing else.

        Args:
            goes_on: Asked before every batch; where it says no, the seeds that are left do not come.
        """
        features = arriving.features
        seeds = [seed.seed for seed in features.seeds]
        try:
            refusal = self._refusal(features.sizes)
            arriving.wait(self.device)
        except RuntimeError as error:  # a device that was lost between two jobs
            self.lost = str(error).splitlines()[0]
            refusal = self._refusal(features.sizes)
        if refusal is not None:
            yield from (Failure(job=features.job, seed=seed, stage="predict", message=refusal) for seed in seeds)
            return
        yield from _Run(self, features, watcher, goes_on).outcomes(seeds)

    def _refusal(self, sizes: Sizes) -> str | None:
        """Why a job of these sizes cannot be predicted; None if it can."""
        if self.lost is not None:
            return f"the device no longer answers ({self.lost}); run the same command again: what is done is kept"
        limit = self.config.model_preset.max_tokens
        if limit is not None and sizes.n_token > limit:
            return f"{sizes.n_token} tokens: {self.config.model} takes at most {limit}; choose another --model"
        if self.config.reference_reason is not None or self.config.force:
            return None
        return self.planner.refusal(sizes, self.free_bytes())

    def _make_network(self, model: Any) -> Network:
        return Network(
            module=model,
            configs=self.configs,
            name=self.config.model,
            device=self.device,
            precision=self.config.precision,
            padding=self._padding,
            kernels=PlainKernels(on_gpu=self.device.type == "cuda"),
        )

    def _choose_kernels(self) -> None:
        """The kernels that the probe found right: Triton's for the batched path, cuEquivariance's for the other."""
        found = self._probe.result()
        triangles = "cuequivariance" if found.get("cuequivariance") == "ok" else "torch"
        for name in ("triangle_attention", "triangle_multiplicative"):
            self.configs[name] = triangles
        self.kernels = {"batched": "torch", "reference": triangles}
        if found.get("triton") == "ok":
            from protenix_multiseed.model.kernels.fused import FusedKernels

            self.network = replace(self.network, kernels=FusedKernels())
            self.kernels["batched"] = "triton"
        else:
            self.planner = replace(self.planner, settings=replace(self.planner.settings, fused=False))
        self.kernels |= {f"no {kind}": outcome for kind, outcome in found.items() if outcome != "ok"}


class _Run:
    """One job's way through the ladder."""

    def __init__(self, executor: Executor, features: Features, watcher: Watcher, goes_on: Callable[[], bool]) -> None:
        self._executor, self._features, self._watcher = executor, features, watcher
        self._by_seed = {seed.seed: seed for seed in features.seeds}
        self._retries: list[str] = []
        self._reason = executor.config.reference_reason
        self._estimate = executor.planner.peak_bytes(features.sizes)
        self._ladder: Ladder[_Outcome] = Ladder(
            run=self._run_reference if self._reason else self._run_batched,
            is_out_of_memory=is_out_of_memory,
            release=self._release,
            told=self._told,
            lost=self._lost,
            limit=executor._limit,
            goes_on=goes_on,
        )

    def outcomes(self, seeds: Sequence[int]) -> Iterator[Prediction | Failure]:
        """Every seed's prediction or failure."""
        for seed, outcome in self._ladder.climb(self._plan(seeds), self._estimate):
            try:
                made = outcome.result() if isinstance(outcome, Future) else outcome
            except Exception as error:  # on its way from the device: this seed's own failure, and no other's
                made = failure(self._features.job, seed, "predict", error)
            yield made

    def _plan(self, seeds: Sequence[int]) -> tuple[Batch, ...]:
        if self._reason:
            return tuple(Batch(seeds=(seed,), sample_chunk=1, estimated_bytes=0) for seed in seeds)
        return self._executor.planner.plan(self._features.sizes, seeds, self._executor.free_bytes())

    def _run_batched(self, batch: Batch, finished: Finished[_Outcome]) -> None:
        features, executor = self._features, self._executor
        started = time.perf_counter()
        self._reset_peak()

        def done(index: int, raw: dict[str, Any], seconds: Mapping[str, float]) -> None:
            seed = batch.seeds[index]
            run = {
                "path": "batched",
                "batch": list(batch.seeds),
                "sample_chunk": batch.sample_chunk,
                "precision": executor.config.precision,
                "kernels": executor.kernels["batched"],
                "stage_seconds": dict(seconds),
                "estimated_bytes": batch.estimated_bytes,
                "seconds": round((time.perf_counter() - started) / len(batch.seeds), 3),
            }
            run = self._full_record(run)

            def make(fetched: dict[str, Any]) -> Prediction:
                prediction = to_prediction(fetched, features, seed, full=executor.config.full_confidence)
                return replace(prediction, run=run)

            kept = ("coordinate", "summary_confidence", "full_data")
            finished(seed, executor.transfer.download({name: raw[name] for name in kept}, make))

        seeds = [self._by_seed[seed] for seed in batch.seeds]
        whose = f"seeds {format_seeds(batch.seeds)}" if len(batch.seeds) > 1 else f"seed {batch.seeds[0]}"
        run_stages(
            FAST,
            executor.network,
            features,
            seeds,
            batch.sample_chunk,
            done,
            lambda stage: self._watcher.progress(features.job, f"{whose}, {stage}"),
        )

    def _run_reference(self, batch: Batch, finished: Finished[_Outcome]) -> None:
        executor = self._executor
        self._reset_peak()
        (seed,) = batch.seeds
        prediction = predict_seed(
            executor.network, self._features, self._by_seed[seed], full=executor.config.full_confidence
        )
        more = {"why": self._reason, "precision": "reference", "kernels": executor.kernels["reference"]}
        finished(seed, replace(prediction, run=self._full_record({**prediction.run, **more})))

    def _full_record(self, run: Mapping[str, Any]) -> dict[str, Any]:
        device = self._executor.device
        return {**run, "device": str(device), "retries": list(self._retries), "peak_bytes": peak_bytes(device)}

    def _reset_peak(self) -> None:
        if self._executor.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._executor.device)

    def _release(self) -> None:
        """Free what a failed batch held."""
        self._executor.network.loops.forget()
        self._executor.lost = free_memory(self._executor.device)

    def _told(self, batch: Batch, reason: str, instead: Sequence[Batch]) -> None:
        """Say and record that a batch failed and what follows."""
        was = f"{len(batch.seeds)} seeds, {batch.sample_chunk} samples at a time"
        now = f"{len(instead[0].seeds)} seeds, {instead[0].sample_chunk} samples at a time"
        text = f"{was} (estimated {format_bytes(batch.estimated_bytes)}): {reason}; trying {now}"
        self._retries.append(text)
        self._watcher.warn(self._features.job, text)

    def _lost(self, batch: Batch, seed: int, error: Exception) -> Failure:
        """A seed that failed on the last rung, with its figures."""
        made = failure(self._features.job, seed, "predict", error)
        if not is_out_of_memory(error):
            return made
        need = f" (estimated {format_bytes(batch.estimated_bytes)})" if batch.estimated_bytes else ""
        samples = "" if self._reason else ", one sample at a time"
        message = (
            f"out of memory with {self._features.n_token} tokens, one seed{samples}{need}; "
            "use a larger GPU or a smaller complex"
        )
        return replace(made, message=message)
