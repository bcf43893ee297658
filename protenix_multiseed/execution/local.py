"""The local executor: one model on one device of this machine."""

import importlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, Stopped
from protenix_multiseed.events import Event, Featurized, Note, StageEntered, Watcher
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.retry import Done, Retry, Retrying
from protenix_multiseed.failures import failure_of
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.types import BatchPlan, Failure, Features, Job, Prediction, Sizes, Task
from protenix_multiseed.units import format_bytes
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.environment import prepare

if TYPE_CHECKING:  # these modules import torch, which takes seconds; the workers and the probe start before that
    from protenix_multiseed.execution.model import LoadedModel
    from protenix_multiseed.execution.transfer import Arriving


def make_probe(config: RunConfig, *, keep: bool = True) -> KernelProbe:
    """Return a probe of the compiled kernels that a run can use.

    Args:
        keep: Whether to read and save the outcomes of probes.
    """
    used = ("cuequivariance",) if config.reference_reason else ("triton",)
    return KernelProbe(config.device, config.kernels, used, keep=keep)


class LocalExecutor:
    """See :class:`protenix_multiseed.execution.base.Executor`.

    Args:
        workers: CPU workers, which featurize jobs ahead of the model.
        tell: Receives the stages of loading.
    """

    def __init__(self, config: RunConfig, workers: WorkerPool, tell: Watcher) -> None:
        self._config, self._workers, self._tell = config, workers, tell
        self._probe = make_probe(config)
        self._model: LoadedModel | None = None
        self._begun: tuple[Sequence[Task], Iterator[list[Features] | Failure]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._probe.__exit__()
        if self._model is not None:
            self._model.close()
            self._model = None

    def load(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> None:
        """Start the workers and the probe. Load torch and the model while they run.

        Raises:
            ConfigError: if the device or the kernels are missing, or a job is too large for the device.
            WeightsError: if the checkpoint cannot be used.
            Stopped: if ``should_stop`` returns True during loading.
        """
        config, dictionary = self._config, find_dictionary()
        if config.spec.esm:
            self._embed(tasks, should_stop)
        self._probe.start_early()
        self._begun = (tasks, self._featurize(tasks, should_stop))
        self._tell(StageEntered(text=f"loading {config.model}"))
        _check(should_stop)
        importlib.import_module("torch")
        _check(should_stop)
        prepare(dictionary)
        from protenix_multiseed.execution.model import LoadedModel

        self._model = LoadedModel(config, self._probe)
        if self._probe.is_at_work:
            text = f"loading {config.model} and compiling kernels (on the first run with this GPU model)"
            self._tell(StageEntered(text=text))
        self._refuse_too_large(tasks)
        _check(should_stop)
        self._model.load(should_stop)
        for text in (*self._remarks(dictionary.name), f"predicting on {self._model.device}"):
            self._tell(StageEntered(text=text))

    def predict(self, tasks: Sequence[Task], gate: Gate) -> Iterator[Event]:
        """Predict tasks one after another. The features of the next task are uploaded meanwhile."""
        model = self._loaded
        if self._begun is not None and self._begun[0] is tasks:
            coming = self._begun[1]
        else:
            coming = self._featurize(tasks, lambda: gate.is_closed)
        self._begun = None
        flat = (one for made in coming for one in ([made] if isinstance(made, Failure) else made))
        for arriving in model.transfer.ahead(flat, partial(_upload, model), lambda: gate.is_closed):
            if gate.is_closed:
                return
            if isinstance(arriving, Failure):
                yield arriving
                continue
            yield from _notes_of(arriving.features)
            yield from JobRun(model, arriving, gate).events()

    def facts(self) -> Mapping[str, Any]:
        """See :class:`protenix_multiseed.execution.base.Executor`."""
        return self._loaded.facts()

    @property
    def _loaded(self) -> "LoadedModel":
        if self._model is None:
            raise RuntimeError("load() comes before predict()")
        return self._model

    def _featurize(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> Iterator[list[Features] | Failure]:
        jobs = (_with_seeds(task) for task in tasks)
        return self._workers.featurize(jobs, self._config.feature_settings, should_stop)

    def _embed(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> None:
        """Compute the ESM embeddings of all proteins, which featurization reads."""
        from protenix_multiseed.features.esm import embed_proteins

        esm, folder = self._config.spec.esm, self._config.feature_settings.esm_folder
        assert esm is not None
        assert folder is not None
        prepare(find_dictionary())
        self._tell(StageEntered(text=f"embedding proteins with {esm.name}"))
        embed_proteins([task.job for task in tasks], esm.name, self._config.esm_checkpoint_dir, folder)
        _check(should_stop)

    def _remarks(self, dictionary: str) -> Iterator[str]:
        """Yield sentences on what the user should know about this run."""
        model, reason = self._loaded, self._config.reference_reason
        if reason and not self._config.sequential:
            yield f"one seed at a time through Protenix's own modules, because of {reason}"
        if dictionary == "upstream":
            yield (
                "the chemical dictionary is Protenix's own; its molecules are a pickle file, which can run code: "
                "use it only if you trust its source"
            )
        for name, outcome in model.kernels.items():
            if name.startswith("no "):
                instead = "Triton's general kernels" if name == "no hopper" else "PyTorch's"
                yield f"{name} kernels, {instead} are used: {outcome}"
        if model.missing_weights:
            count = len(model.missing_weights)
            yield f"{count} weights are not in the checkpoint and keep their initial values: see run.json"

    def _refuse_too_large(self, tasks: Sequence[Task]) -> None:
        """Refuse jobs that have too many tokens to run, before the weights are loaded."""
        model = self._loaded
        refusals = ((task.job, model.refusal(_minimum_sizes(task.job))) for task in tasks)
        if problems := [f"{job.where}: {refusal}" for job, refusal in refusals if refusal]:
            raise ConfigError("\n".join(problems))


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped


def _with_seeds(task: Task) -> Job:
    return replace(task.job, seeds=task.todo)


def _minimum_sizes(job: Job) -> Sizes:
    """Return lower bounds of a job's sizes, from the number of tokens that is known before featurization."""
    return Sizes(n_token=job.n_token, n_atom=job.n_token, n_msa=1)


def _upload(model: "LoadedModel", made: Features | Failure) -> "Arriving | Failure":
    from protenix_multiseed.execution.transfer import Arriving

    if isinstance(made, Failure):
        return made
    try:
        return model.transfer.upload(made)
    except RuntimeError:  # no memory now: the batch itself moves the features to the device, and retry handles errors
        return Arriving(made)
    except Exception as error:
        return failure_of(made.job, None, "featurize", error)


def _notes_of(features: Features) -> Iterator[Event]:
    yield Featurized(
        job=features.job,
        n_token=features.n_token,
        n_atom=features.n_atom,
        n_msa=features.n_msa,
        n_chain=features.n_asym,
        seconds=features.seconds,
    )
    for warning in features.warnings:
        yield Note(job=features.job, text=warning)


class JobRun:
    """Runs the batches of one job, with retry."""

    def __init__(self, model: "LoadedModel", arriving: "Arriving", gate: Gate) -> None:
        self._model, self._arriving, self._gate = model, arriving, gate
        self._features = arriving.features
        self._retries: list[str] = []
        self._pending: deque[tuple[int, Future[Prediction]]] = deque()

    def events(self) -> Iterator[Event]:
        """Yield the prediction or failure of every admitted seed, and the progress of the batches."""
        features, model = self._features, self._model
        seeds = [seed.seed for seed in features.seeds]
        try:
            refusal = model.refusal(features.sizes)
            self._arriving.wait(model.device)
        except RuntimeError as error:  # the device failed between two jobs
            model.lost = str(error).splitlines()[0]
            refusal = model.refusal(features.sizes)
        if refusal is not None:
            for seed in self._gate.admit(features.job, seeds):
                yield Failure(job=features.job, seed=seed, stage="predict", message=refusal)
            return
        planner = model.planner
        retry: Retry[Failure | Future[Prediction], Event] = Retry(
            run=partial(model.run_batch, features, self._retries, self._gate),
            estimate=planner.peak_bytes(features.sizes),
            is_out_of_memory=model.is_out_of_memory,
            release=model.release,
            fail=self._fail,
            limit=model.limit,
            admit=partial(self._gate.admit, features.job),
        )
        for item in retry.run_all(planner.plan(features.sizes, seeds, model.free_bytes())):
            if isinstance(item, Done):
                yield from self._take(item)
            elif isinstance(item, Retrying):
                yield self._note(item)
            else:
                yield item
            yield from self._finished(wait=False)
        yield from self._finished(wait=True)

    def _take(self, item: Done[Failure | Future[Prediction]]) -> Iterator[Event]:
        if isinstance(item.result, Failure):
            yield item.result
        else:
            self._pending.append((item.seed, item.result))

    def _finished(self, *, wait: bool) -> Iterator[Event]:
        """Yield predictions whose download from the device has finished, in the order of the downloads."""
        while self._pending and (wait or self._pending[0][1].done()):
            seed, future = self._pending.popleft()
            try:
                yield future.result()
            except Exception as error:  # the download failed; other seeds are not affected
                yield failure_of(self._features.job, seed, "predict", error)

    def _note(self, item: Retrying) -> Note:
        """Record that a batch failed, and return a note that says what runs instead."""
        was, now = (
            f"{len(batch.seeds)} seeds, {batch.sample_chunk} samples at a time"
            for batch in (item.batch, item.instead[0])
        )
        text = f"{was} (estimated {format_bytes(item.batch.estimated_bytes)}): {item.reason}; trying {now}"
        self._retries.append(text)
        return Note(job=self._features.job, text=text)

    def _fail(self, batch: BatchPlan, seed: int, error: Exception) -> Failure:
        """Return the failure of a seed that cannot be retried smaller. Out of memory: with sizes and estimate."""
        made = failure_of(self._features.job, seed, "predict", error)
        if not self._model.is_out_of_memory(error):
            return made
        need = f" (estimated {format_bytes(batch.estimated_bytes)})" if batch.estimated_bytes else ""
        samples = ", one sample at a time" if self._model.planner.settings.reference_reason is None else ""
        return replace(
            made,
            message=f"out of memory with {self._features.n_token} tokens, one seed{samples}{need}",
            advice="use a larger GPU or a smaller complex",
        )
