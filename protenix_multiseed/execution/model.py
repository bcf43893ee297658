"""The local executor's model on its device: load it, decide which jobs fit in memory, run one batch."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, Stopped
from protenix_multiseed.events import BatchProgress, Event
from protenix_multiseed.execution import hardware
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.figures import share_done, stage_seconds
from protenix_multiseed.execution.gpus import driver_version
from protenix_multiseed.execution.memory import MARGIN, bytes_of_parts
from protenix_multiseed.execution.plan import make_planner
from protenix_multiseed.execution.retry import Done, MemoryLimit
from protenix_multiseed.execution.speeds import Notes
from protenix_multiseed.execution.transfer import Transfer
from protenix_multiseed.kernels.base import torch_kernels, triton_kernels
from protenix_multiseed.kernels.language import hash_triton
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.limits import TOKEN_PADDING_GPU
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.fast.diffusion_blocks import fits_half, may_be_half
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import predict_seed, to_prediction
from protenix_multiseed.model.stages import Scored, StepsDone, run_stages
from protenix_multiseed.model.weights import build_model, load_model
from protenix_multiseed.types import Batch, BatchPlan, Entry, Failure, Features, Prediction, Sizes
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.models import DEMO_MODEL

_KEPT = ("coordinate", "summary_confidence", "full_data")  # entries of upstream's output that predictions need


class LoadedModel:
    """One model on one device for a whole run.

    Args:
        probe: Probe of the compiled kernels.

    Attributes:
        lost: Why the device no longer answers; None while it answers.
        speeds: Times of batches, for the estimates of later runs.

    Raises:
        ConfigError: if the device or the kernels are missing.
    """

    def __init__(self, config: RunConfig, probe: KernelProbe) -> None:
        self.config, self._probe = config, probe
        self.device = hardware.open_device(config.device)
        probe.begin(hardware.card_of(self.device))
        self.configs = build_configs(config.upstream_settings, device_capability=hardware.capability_of(self.device))
        self.checkpoint = config.checkpoint_path
        self.missing_weights: tuple[str, ...] = ()
        self.kernels: dict[str, str] = {}
        on_gpu = self.device.type == "cuda"
        self._bytes_before = 0 if on_gpu else hardware.resident_bytes()
        self._built = build_model(self.configs)
        self.network = self._make_network(self._built)
        self.planner = make_planner(
            config.plan_settings,
            self.configs,
            self._built,
            on_gpu=on_gpu,
            fused=on_gpu,
            half=on_gpu and may_be_half(self.configs),
        )
        self._place = {"device": str(self.device)}
        if on_gpu:
            properties = torch.cuda.get_device_properties(self.device)
            self._place |= {
                "gpu": properties.name,
                "gpu_uuid": f"GPU-{properties.uuid}",  # as nvidia-smi -L prints it
                "driver": driver_version() or "unknown",
            }
        self.lost: str | None = None
        self.limit = MemoryLimit()
        self._stage_seconds: dict[str, Mapping[str, float]] = {}  # of the last job's last batch
        self.speeds = Notes(
            hardware.speed_name(self.device),
            config.model,
            cycles=self.configs.model.N_cycle,
            steps=self.configs.sample_diffusion.N_step,
            samples=config.samples,
        )
        self.transfer = Transfer(self.device)

    def load(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Load the weights, and choose kernels that passed the probe.

        Raises:
            WeightsError: if the checkpoint cannot be used.
            ConfigError: if the user asks for kernels by name and they cannot be used, or changes the demo's layers.
            Stopped: if ``should_stop`` returns True during loading.
        """
        with ThreadPoolExecutor() as beside:  # the weights, which come from a file
            if self.device.type == "cuda":
                beside.submit(hash_triton)
            self.network = self._make_network(self._load_weights().to(self.device))
        while self._probe.is_at_work:
            if should_stop():
                raise Stopped
            time.sleep(0.05)
        self._choose_kernels()

    def _load_weights(self) -> torch.nn.Module:
        if self.checkpoint is None:
            model = demo.fill(self._built)
            if self.config.model == DEMO_MODEL and not demo.fit(model):
                raise ConfigError(
                    "upstream: the demo's weights fit its own layers only; leave out the settings that change them"
                )
            return model
        is_mapped = self.device.type == "cuda"
        model = load_model(self.configs, self.checkpoint, self.config.model, self._built, mapped=is_mapped)
        self.missing_weights = model.missing_weights  # type: ignore[assignment]
        return model

    def close(self) -> None:
        """End the copying threads and release the model."""
        self.transfer.close()
        del self.network

    def facts(self) -> dict[str, Any]:
        """Return facts about the device, the kernels and the weights, for the run's record."""
        unused = "batched" if self.config.reference_reason else "reference"
        return self._place | {
            "kernels": {name: found for name, found in self.kernels.items() if name != unused},
            "missing_weights": list(self.missing_weights),
        }

    # Memory

    def free_bytes(self) -> int:
        """Return the bytes that a plan may use: less than are free, once an estimate was too low."""
        return self.limit.budget(self._usable_bytes())

    def _usable_bytes(self) -> int:
        """Return the bytes that are free now, without the margin for other use.

        What is kept of the last batch counts as free: the next batch drops it, or its estimate contains it. So do the
        weights, which each estimate contains.
        """
        held = 2 * 4 * self.planner.model.n_weight  # the weights, and their joined copies for the fast path
        free = self.config.assume_free or hardware.available_bytes(self.device, self._bytes_before, held)
        return int(MARGIN * free)

    def refusal(self, sizes: Sizes) -> str | None:
        """Return why a job of these sizes cannot be predicted with the memory that is free now; None if it can.

        A batch that ran out of memory refuses no later job: another program may have had the memory for a while.
        """
        if self.lost is not None:
            return f"the device no longer answers ({self.lost}); run the same command again: finished seeds are kept"
        return self.planner.refusal(sizes, self._usable_bytes())

    def may_share(self, jobs: Sequence[Features]) -> bool:
        """Return whether these jobs may be one batch, or others may join one job."""
        if self.planner.max_jobs == 1 or self.lost is not None:
            return False
        try:
            return self.planner.may_share([(one.sizes, len(one.seeds)) for one in jobs], self.free_bytes())
        except RuntimeError:  # the device no longer answers: the run of the next group says so
            return False

    @staticmethod
    def is_out_of_memory(error: BaseException) -> bool:
        """Return whether an error means that memory ran out."""
        return hardware.is_out_of_memory(error)

    def release(self) -> None:
        """Free the memory of a failed batch, and check whether the device still answers."""
        self.network.graphs.forget()
        self.lost = hardware.free_memory(self.device)

    # Batches

    def run_batch(
        self, jobs: Sequence[Features], retries: Sequence[str], gate: Gate, plan: BatchPlan
    ) -> Iterator[Done[Failure | Future[Prediction]] | Event]:
        """Run one batch. Yield the future of each entry's prediction, and the batch's progress.

        A future is finished when the results of the entry have been copied from the device.

        Args:
            jobs: Features of the jobs, by their number in the plan.
            retries: Descriptions of the group's earlier attempts, for the record.
            plan: Plan of the batch.

        Raises:
            Stopped: if the gate's ``time_is_up`` is True.
        """
        hardware.reset_peak(self.device)
        batch = Batch(
            parts=tuple(jobs[job].only(plan.seeds_of(job)) for job in plan.jobs),
            sample_chunk=plan.sample_chunk,
            estimated_bytes=plan.estimated_bytes,
            roomy=plan.roomy,
        )
        if self.config.reference_reason is None:
            return self._run_batched(batch, plan.entries, retries, gate)
        return self._run_reference(batch, plan.entries, retries, gate)

    def _run_batched(
        self, batch: Batch, entries: Sequence[Entry], retries: Sequence[str], gate: Gate
    ) -> Iterator[Done[Failure | Future[Prediction]] | Event]:
        started, job = time.perf_counter(), batch.parts[0].job
        seeds_of: dict[str, tuple[int, ...]] = {}  # of each job, which may have several parts
        for part in batch.parts:
            seeds_of[part.job.name] = (*seeds_of.get(part.job.name, ()), *(seed.seed for seed in part.seeds))
        first, *others = seeds_of.items()
        expected = self._stage_seconds.get(job.name) or stage_seconds(
            self.config.precision,
            max(part.n_token for part in batch.parts),
            cycles=self.configs.model.N_cycle,
            steps=self.configs.sample_diffusion.N_step,
            on_gpu=self.device.type == "cuda",
        )
        begun = StepsDone("trunk", 0, self.configs.model.N_cycle)  # on a CPU the first cycle may take minutes
        for step in itertools.chain([begun], run_stages(FAST, self.network, batch)):
            if isinstance(step, StepsDone):
                share = share_done(expected, step.stage, step.done, step.total)
                yield BatchProgress(
                    job=job,
                    seeds=first[1],
                    others=tuple(others),
                    stage=step.stage,
                    done=step.done,
                    total=step.total,
                    share=share,
                )
            elif isinstance(step, Scored):
                self._stage_seconds = {job.name: step.seconds}
                features, seed = batch.entries[step.index]
                run = {
                    "path": "batched",
                    "batch": list(seeds_of[features.job.name]),
                    **({"batch_jobs": {name: list(seeds) for name, seeds in seeds_of.items()}} if others else {}),
                    "sample_chunk": batch.sample_chunk,
                    "roomy": batch.roomy,
                    "precision": self.config.precision,
                    "sampling_factors": str(self.network.factors_of_sampling(features.n_token)).split(".")[1],
                    "kernels": self.kernels["batched"],
                    "stage_seconds": dict(step.seconds),
                    "estimated_bytes": batch.estimated_bytes,
                    "seconds": round((time.perf_counter() - started) / len(entries), 3),
                }
                made = self._fetch(step.raw, features, seed.seed, self._full_record(run, retries))
                yield Done(entries[step.index], made)
            if gate.time_is_up:
                raise Stopped
        (seconds,) = self._stage_seconds.values()
        self.speeds.add(
            len(batch.entries),
            max(part.n_token for part in batch.parts),
            sum(seconds.values()),
            precision=self.config.precision,
            kernels=self.kernels["batched"],
        )

    def _run_reference(
        self, batch: Batch, entries: Sequence[Entry], retries: Sequence[str], gate: Gate
    ) -> Iterator[Done[Failure | Future[Prediction]] | Event]:
        def check() -> None:
            if gate.time_is_up:
                raise Stopped

        ((features, seed),) = batch.entries
        full = self.config.full_confidence
        made = predict_seed(self.network, features, seed, full=full, check=check)
        more = {
            "why": self.config.reference_reason,
            "precision": "reference",
            "kernels": self.kernels["reference"],
        }
        finished: Future[Prediction] = Future()
        finished.set_result(replace(made, run=self._full_record({**made.run, **more}, retries)))
        yield Done(entries[0], finished)

    def _fetch(
        self, raw: Mapping[str, Any], features: Features, seed: int, run: Mapping[str, Any]
    ) -> "Future[Prediction]":
        """Copy a seed's results from the device and make a prediction from them, in the background."""
        full = self.config.full_confidence

        def make(fetched: dict[str, Any]) -> Prediction:
            return replace(to_prediction(fetched, features, seed, full=full), run=run)

        return self.transfer.download({name: raw[name] for name in _KEPT}, make)

    def _full_record(self, run: Mapping[str, Any], retries: Sequence[str]) -> dict[str, Any]:
        return {
            **run,
            "host": socket.gethostname(),
            **self._place,
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
        """Choose Triton for the batched path, and cuEquivariance for Protenix's own modules, if they passed the probe.

        Otherwise the kernels are PyTorch's.
        """
        found = self._probe.result()
        triangles = "cuequivariance" if found.get("cuequivariance") == "ok" else "torch"
        for name in ("triangle_attention", "triangle_multiplicative"):
            self.configs[name] = triangles
        self.kernels = {"batched": "torch", "reference": triangles}
        if found.get("triton") == "ok":
            half = self.config.precision == "reference" and may_be_half(self.configs)
            if half and not fits_half(self.network.module.diffusion_module):
                half, self.kernels["no float16"] = False, "with these weights a number could exceed its range"
            self.network = replace(self.network, kernels=triton_kernels(hopper=found.get("hopper") == "ok", half=half))
            self.kernels["batched"] = "triton"
        kernels = self.network.kernels
        uses = {"fused": kernels.name == "triton", "folds": kernels.hopper}
        n_byte = bytes_of_parts(self.config.precision, half=kernels.half)
        self.planner = replace(self.planner, memory=replace(self.planner.memory, **uses, **n_byte))
        self.kernels |= {f"no {kind}": outcome for kind, outcome in found.items() if outcome != "ok"}
