"""The main path: input -> jobs -> features -> predictions -> files."""

import platform
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.dictionary import Dictionary, cache_dir
from protenix_multiseed.executor import Executor
from protenix_multiseed.features.pool import WorkerPool, failure
from protenix_multiseed.outputs.ranking import write_ranking
from protenix_multiseed.outputs.record import write_failures, write_run
from protenix_multiseed.outputs.write import WriteSettings, write_prediction
from protenix_multiseed.types import Failure, Features, FeatureSettings, Job, Prediction, Sample
from protenix_multiseed.upstream import DEMO_NOTICE, default_checkpoint_dir, prepare


class Display(Protocol):
    """What a run tells the person who watches it."""

    def stage(self, text: str) -> None:
        """The run as a whole enters a stage."""

    def features(self, features: Features) -> None:
        """A job's features have arrived."""

    def progress(self, job: Job, text: str) -> None:
        """A batch of a job enters a stage."""

    def predicted(self, prediction: Prediction) -> None:
        """A seed has been predicted."""

    def failed(self, failure: Failure) -> None:
        """A job or seed has failed."""

    def warn(self, job: Job, text: str) -> None:
        """Something about a job that the user should know."""


@dataclass(slots=True)
class RunReport:
    """What became of a run."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    best: dict[str, Sample] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if all is done, 1 if anything failed."""
        return 1 if self.failures else 0


def run(config: RunConfig, jobs: Sequence[Job], dictionary: Dictionary, display: Display) -> RunReport:
    """Run checked jobs.

    Raises:
        ProtenixMsError: if the run cannot start; nothing has been written then.
    """
    started = time.time()
    report = RunReport()
    prepare(dictionary)
    settings = feature_settings(config, jobs, display)
    # One more than jobs: results of the last are written while nothing is left to featurize.
    with WorkerPool(min(config.workers or 1, len(jobs) + 1)) as pool:
        # Like sizes together, which share graphs and buffers; small ones first, while workers are at the large.
        coming = pool.featurize(sorted(jobs, key=lambda job: job.n_token), settings)
        display.stage(f"loading {config.model}")
        executor = Executor(config)
        executor.refuse_too_large(jobs)
        if executor.reference_reason and not config.sequential:
            display.stage(f"one seed at a time through Protenix's own modules, because of {executor.reference_reason}")
        with executor:
            record = _record(config, jobs, dictionary, executor, started)
            if executor.missing_weights:
                count = len(executor.missing_weights)
                display.stage(f"{count} weights are not in the checkpoint and keep their initial values: see run.json")
            write_run(config, record)
            writer = Writer(config, pool, report, display)
            display.stage(f"predicting on {executor.device}")
            for arriving in executor.arriving(coming):
                if isinstance(arriving, Failure):
                    writer.fail(arriving)
                    continue
                display.features(arriving.features)
                for result in executor.predict(arriving, display):
                    writer.submit(result)
            display.stage("writing")
            writer.finish(jobs)
    write_failures(config.out, report.failures)
    record["seconds"] = round(time.time() - started, 1)
    record["failures"] = len(report.failures)
    record["samples"] = sum(len(samples) for samples in report.samples.values())
    write_run(config, record)
    return report


class Writer:
    """Hands predictions to the workers for writing, off the executor's path, and gathers what they wrote."""

    def __init__(self, config: RunConfig, pool: WorkerPool, report: RunReport, display: Display) -> None:
        self._settings = WriteSettings(
            out=config.out, full_confidence=config.full_confidence, notice=DEMO_NOTICE if config.is_demo else None
        )
        self._pool, self._report, self._display = pool, report, display
        self._bound = 2 * (config.workers or 1)
        self._pending: deque[tuple[Prediction, Any]] = deque()

    def submit(self, result: Prediction | Failure) -> None:
        """Take one result; waits only if the workers are far behind."""
        if isinstance(result, Failure):
            self.fail(result)
            return
        self._display.predicted(result)
        self._pending.append((result, self._pool.submit(write_prediction, result, self._settings)))
        while len(self._pending) > self._bound:
            self._gather()

    def fail(self, failed: Failure) -> None:
        """Record a failure."""
        self._report.failures.append(failed)
        self._display.failed(failed)

    def finish(self, jobs: Sequence[Job]) -> None:
        """Wait for all writing, then rank each job over its seeds."""
        while self._pending:
            self._gather()
        self._report.samples = {
            job.name: self._report.samples[job.name] for job in jobs if job.name in self._report.samples
        }
        for job in jobs:
            if samples := self._report.samples.get(job.name):
                try:
                    self._report.best[job.name] = write_ranking(self._settings.out / job.name, samples)
                except OSError as error:
                    self.fail(failure(job, None, "rank", error))

    def _gather(self) -> None:
        prediction, future = self._pending.popleft()
        try:
            self._report.samples.setdefault(prediction.job.name, []).extend(future.result())
        except Exception as error:
            self.fail(failure(prediction.job, prediction.seed, "write", error))


def feature_settings(config: RunConfig, jobs: Sequence[Job], display: Display | None) -> FeatureSettings:
    """What the workers need to know, with ESM embeddings made beforehand where the model reads them."""
    preset = config.model_preset
    esm_folder: Path | None = None
    if preset.esm_model:
        from protenix_multiseed.features.esm import embed_proteins

        if display:
            display.stage(f"embedding proteins with {preset.esm_model}")
        esm_folder = cache_dir() / "esm" / preset.esm_model
        folder = config.checkpoint.parent if config.checkpoint else default_checkpoint_dir()
        embed_proteins(jobs, preset.esm_model, folder, esm_folder)
    if display:
        for job in jobs:
            for note in job_notes(config, job):
                display.warn(job, note)
    return FeatureSettings(
        msa=bool(config.msa),
        rna_msa=config.rna_msa,
        template=config.template,
        guidance=config.guidance,
        constraint=preset.constraint,
        msa_pair_as_unpair=bool(config.upstream.get("msa_pair_as_unpair", True)),
        esm_folder=esm_folder,
        template_mmcif_dir=config.templates.mmcif_dir,
        fetch_template_structures=config.templates.fetch,
        kalign=config.templates.kalign,
    )


def job_notes(config: RunConfig, job: Job) -> Iterator[str]:
    """What Protenix does with a job that its author may not expect."""
    if job.spec.get("constraint") and not config.model_preset.constraint:
        yield f"its constraint has no effect on {config.model}; use protenix_base_constraint_v0.5.0"
    kinds = [kind for item in job.spec["sequences"] for kind in item]
    if "ion" in kinds and any(kind != "ion" for kind in kinds[kinds.index("ion") :]):
        # Upstream's MSA and template featurizers count no chains for an ion, so that what follows takes its place.
        yield "Protenix loses the MSA and templates of every chain after an ion; put ions last in 'sequences'"
    if config.msa:
        keys = ("pairedMsa", "unpairedMsa", "pairedMsaPath", "unpairedMsaPath")
        for number, item in enumerate(job.spec["sequences"], start=1):
            protein = item.get("proteinChain")
            if protein and not any(protein.get(key) for key in keys):
                yield f"protein {number} has no MSA; accuracy suffers. Make one with 'protenix msa'"


def _record(
    config: RunConfig, jobs: Sequence[Job], dictionary: Dictionary, executor: Executor, started: float
) -> dict[str, Any]:
    device: dict[str, Any] = {"device": str(executor.device)}
    if executor.device.type == "cuda":
        device["gpu"] = torch.cuda.get_device_name(executor.device)
    versions = {name: metadata.version(name) for name in ("protenix", "torch", "numpy", "rdkit", "biotite")}
    return {
        "protenix_ms": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "python": platform.python_version(),
        "versions": versions,
        **device,
        "kernels": executor.kernels,
        "precision": config.precision,
        "model": config.model,
        "checkpoint": str(executor.checkpoint) if executor.checkpoint else None,
        "checkpoint_sha256": executor.checkpoint_sha256,
        "missing_weights": list(executor.missing_weights),
        "dictionary": dictionary.name,
        **({"notice": DEMO_NOTICE} if config.is_demo else {}),
        "jobs": [
            {"name": job.name, "seeds": list(job.seeds), "source": str(job.source), "index": job.index} for job in jobs
        ],
    }
