"""The main path: input -> jobs -> features -> predictions -> files.

What takes torch is imported when the workers are on their way: to load it takes all of them seconds, at the same time.
"""

import platform
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.dictionary import Dictionary, cache_dir
from protenix_multiseed.ensemble.convergence import is_stable
from protenix_multiseed.errors import ConfigError, Dropped
from protenix_multiseed.features.pool import WorkerPool, failure
from protenix_multiseed.kernel_probe import make_probe
from protenix_multiseed.logs import Display
from protenix_multiseed.outputs.claims import Claims
from protenix_multiseed.outputs.identity import Identity
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.record import write_run
from protenix_multiseed.outputs.survey import Survey, done_samples
from protenix_multiseed.outputs.write import WriteSettings, write_prediction
from protenix_multiseed.report import RunReport, conclude
from protenix_multiseed.stop import Stop
from protenix_multiseed.types import Failure, FeatureSettings, Job, Prediction
from protenix_multiseed.upstream import DEMO_NOTICE, default_checkpoint_dir, prepare

if TYPE_CHECKING:
    from protenix_multiseed.executor import Executor

POLL_SECONDS = 1.0
WRITES = 3  # how often a prediction is tried to be written whose worker is killed


def run(
    config: RunConfig,
    jobs: Sequence[Job],
    survey: Survey,
    identities: Mapping[str, Identity],
    dictionary: Dictionary,
    display: Display,
) -> RunReport:
    """Run what is to be done of checked jobs.

    Args:
        jobs: All jobs, with all their seeds.
        survey: What the output folder holds of them already.
        identities: What determines each job's predictions, by name.

    Raises:
        ProtenixMsError: if the run cannot start; nothing has been written then.
    """
    started = time.time()
    report = RunReport(n_unit=sum(len(job.seeds) for job in jobs), n_before=survey.n_done)
    if config.model_preset.esm_model:
        prepare(dictionary)  # for the language model, which runs before all else
    settings = feature_settings(config, survey.todo, display)
    todo = sorted(survey.todo, key=lambda job: job.n_token)  # like sizes together, which share graphs and buffers
    with Stop(config.grace, display.stopping) as stop, ExitStack() as stack:
        try:
            with stop.droppable():
                probe = stack.enter_context(make_probe(config))
                # Two more than jobs: results of the last, many seeds at once, are written with nothing to featurize.
                workers = min(config.workers or 1, len(todo) + 2)
                pool = stack.enter_context(WorkerPool(workers, offline=config.offline))
                coming = pool.featurize(todo, settings)
                display.stage(f"loading {config.model}")
                from protenix_multiseed.executor import Executor

                prepare(dictionary)
                executor = Executor(config, probe)
                if probe.is_at_work:
                    display.stage(f"loading {config.model} and compiling kernels, as a first run on a card does")
                executor.refuse_too_large(todo)
                stack.enter_context(executor)
        except Dropped:
            report.stopped_by = stop.exit_code
            return report
        locks = stack.enter_context(Locks(config.out))
        record = begin(config, jobs, dictionary, executor, identities, display)
        display.started()
        for folder in survey.others:
            shutil.rmtree(folder, ignore_errors=True)
        claims = Claims(locks, config.out, identities, verify=config.verify, overwrite=config.overwrite)
        writer = Writer(config, pool, report, display, claims, identities)
        patience = Patience(config, jobs, identities)
        display.stage(f"predicting on {executor.device}")
        try:
            while todo:
                for arriving in stop.each(executor.arriving(coming)):
                    if isinstance(arriving, Failure):
                        writer.submit(arriving)
                        continue
                    display.features(arriving.features)
                    job = arriving.features.job
                    mine, refused = claims.claim(job, [s.seed for s in arriving.features.seeds])
                    goes_on = partial(patience.goes_on, job, stop)
                    left = set(mine)
                    for result in chain(refused, stop.rest(executor.predict(arriving.only(mine), display, goes_on))):
                        left.discard(result.seed)
                        patience.watch(result)
                        writer.submit(result)
                    if left and not stop.asked:
                        writer.spare(job, sorted(left))
                if stop.asked:
                    pool.drop_features()
                writer.settle()
                if claims.elsewhere:
                    display.stage(f"waiting for {claims.elsewhere} seeds that other processes are at")
                todo = claims.left_to_us(survey.todo, lambda: _pause(stop))
                coming = pool.featurize(todo, settings)
        finally:  # whatever happened: what is done is written and ranked
            writer.settle()
            display.stage("ranking")
            report.n_elsewhere = claims.n_done_elsewhere
            report.stopped_by = stop.exit_code if stop.asked else None
            conclude(report, config.out, jobs, identities, locks)
        finish(config, record, report, started)
    return report


def begin(
    config: RunConfig,
    jobs: Sequence[Job],
    dictionary: Dictionary,
    executor: "Executor",
    identities: Mapping[str, Identity],
    display: Display,
) -> dict[str, Any]:
    """The run's first acts: what is special about it is said, and its record begun.

    Raises:
        ConfigError: if nothing can be written there.
    """
    if config.reference_reason and not config.sequential:
        display.stage(f"one seed at a time through Protenix's own modules, because of {config.reference_reason}")
    if dictionary.name == "upstream":
        text = "the dictionary is Protenix's own; its molecules are a pickle, which can run anything: trust its source"
        display.stage(text)
    for name, reason in executor.kernels.items():
        if name.startswith("no "):
            display.stage(f"{name} kernels, PyTorch's are used: {reason}")
    if executor.missing_weights:
        count = len(executor.missing_weights)
        display.stage(f"{count} weights are not in the checkpoint and keep their initial values: see run.json")
    record = _record(config, jobs, dictionary, executor, identities)
    try:
        write_run(config, record)
    except OSError as error:
        raise ConfigError(f"--out {config.out}: cannot be written: {error.strerror}; choose another folder") from None
    return record


def finish(config: RunConfig, record: dict[str, Any], report: RunReport, started: float) -> None:
    """Complete the run's record."""
    record["seconds"] = round(time.time() - started, 1)
    record["failures"] = len(report.failures)
    record["samples"] = sum(len(samples) for samples in report.samples.values())
    record["units"] = {
        "asked": report.n_unit,
        "done_before": report.n_before,
        "done": report.n_done,
        "done_elsewhere": report.n_elsewhere,
        "spared": sum(map(len, report.spared.values())),
        "left": report.n_left,
    }
    if report.spared:
        record["stopped_when_stable"] = {name: {"seeds_not_run": seeds} for name, seeds in report.spared.items()}
    with suppress(OSError):  # a disk that is full by now has been told of
        write_run(config, record)


def _pause(stop: Stop) -> bool:
    """Wait a little for other processes; whether to wait on."""
    with suppress(Dropped), stop.droppable():
        time.sleep(POLL_SECONDS)
    return not stop.asked


class Patience:
    """Whether a job has seeds enough: ``--stop-when-stable``."""

    def __init__(self, config: RunConfig, jobs: Sequence[Job], identities: Mapping[str, Identity]) -> None:
        self._needed = config.stop_when_stable
        self._best: dict[str, dict[int, float]] = {job.name: {} for job in jobs}
        for job in jobs if self._needed else ():
            for sample in done_samples(config.out, job.name, identities[job.name]):
                self._see(job.name, sample.seed, sample.ranking_score)

    def watch(self, result: Prediction | Failure) -> None:
        """Take note of a seed's best score."""
        if isinstance(result, Prediction):
            for summary in result.summary:
                self._see(result.job.name, result.seed, float(summary["ranking_score"]))

    def goes_on(self, job: Job, stop: Stop) -> bool:
        """Whether to begin another batch of a job."""
        scores = list(self._best[job.name].values())  # seeds of earlier runs first, then in the order of this one
        return not stop.asked and not (self._needed and is_stable(scores, self._needed))

    def _see(self, job: str, seed: int, score: float) -> None:
        known = self._best[job]
        known[seed] = max(score, known.get(seed, score))


class Writer:
    """Hands predictions to the workers for writing, off the executor's path, and gives back each unit's claim."""

    def __init__(
        self,
        config: RunConfig,
        pool: WorkerPool,
        report: RunReport,
        display: Display,
        claims: Claims,
        identities: Mapping[str, Identity],
    ) -> None:
        self._claims = claims
        self._settings = WriteSettings(
            out=config.out,
            full_confidence=config.full_confidence,
            pae=config.pae,
            kept=config.kept_samples,
            notice=DEMO_NOTICE if config.is_demo else None,
        )
        self._pool, self._report, self._display, self._identities = pool, report, display, identities
        self._bound = 2 * (config.workers or 1)
        self._pending: deque[tuple[Prediction, Any]] = deque()

    def submit(self, result: Prediction | Failure) -> None:
        """Take one result; waits only if the workers are far behind."""
        if isinstance(result, Failure):
            self.fail(result)
            return
        self._display.predicted(result)
        self._pending.append((result, self._write(result)))
        while len(self._pending) > self._bound:
            self._gather()

    def fail(self, failed: Failure) -> None:
        """Record a failure."""
        self._report.failures.append(failed)
        self._display.failed(failed)
        if failed.seed is not None:
            self._claims.give_back(failed.job, failed.seed)

    def spare(self, job: Job, seeds: Sequence[int]) -> None:
        """Seeds that are not predicted, since those before them brought no better score."""
        self._report.spared.setdefault(job.name, []).extend(seeds)
        self._display.spared(job, seeds)
        for seed in seeds:
            self._claims.give_back(job, seed)

    def settle(self) -> None:
        """Wait until all that was handed over is written."""
        while self._pending:
            self._gather()

    def _write(self, prediction: Prediction) -> Any:
        identity = self._identities[prediction.job.name]
        return self._pool.submit(write_prediction, prediction, self._settings, identity)

    def _gather(self) -> None:
        prediction, future = self._pending.popleft()
        try:
            for again in range(WRITES):
                try:
                    future.result()
                    break
                except (ProcessExpired, BrokenProcessPool):  # its worker was killed, or the pool gave up as a whole
                    if again + 1 == WRITES:
                        raise
                    future = self._write(prediction)
        except Exception as error:
            self.fail(failure(prediction.job, prediction.seed, "write", error))
        else:
            self._report.n_done += 1
            self._claims.give_back(prediction.job, prediction.seed)


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
    config: RunConfig,
    jobs: Sequence[Job],
    dictionary: Dictionary,
    executor: "Executor",
    identities: Mapping[str, Identity],
) -> dict[str, Any]:
    device: dict[str, Any] = {"device": str(executor.device)}
    if executor.device.type == "cuda":
        import torch

        device["gpu"] = torch.cuda.get_device_name(executor.device)
    unused = "batched" if config.reference_reason else "reference"
    versions = {name: metadata.version(name) for name in ("protenix", "torch", "numpy", "rdkit", "biotite")}
    return {
        "protenix_ms": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "versions": versions,
        **device,
        "kernels": {name: found for name, found in executor.kernels.items() if name != unused},
        "precision": config.precision,
        "model": config.model,
        "checkpoint": str(executor.checkpoint) if executor.checkpoint else None,
        "checkpoint_sha256": next((one["checkpoint_sha256"] for one in identities.values()), None),
        "missing_weights": list(executor.missing_weights),
        "dictionary": dictionary.name,
        **({"notice": DEMO_NOTICE} if config.is_demo else {}),
        "jobs": [
            {"name": job.name, "seeds": list(job.seeds), "source": str(job.source), "index": job.index} for job in jobs
        ],
    }
