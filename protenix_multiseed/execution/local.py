"""The local executor: one model on one device of this machine."""

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, Stopped
from protenix_multiseed.events import Event, Note, StageEntered, Watcher
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.capacity import minimum_sizes
from protenix_multiseed.execution.group_run import GroupRun, make_ready, notes_of
from protenix_multiseed.execution.grouping import group
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.limits import SHARED_BATCH_MAX_TOKENS
from protenix_multiseed.process import in_background
from protenix_multiseed.types import Failure, Features, Job, Task
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.environment import prepare, prepare_imports

if TYPE_CHECKING:  # these modules import torch, which takes seconds; the probe starts before that
    from protenix_multiseed.execution.model import LoadedModel


Coming: TypeAlias = Iterator[list[Features | Failure] | None]
_Made = TypeVar("_Made")


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
        self._begun: tuple[Sequence[Task], Future[Coming]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._probe.__exit__()
        if self._model is not None:
            self._model.close()
            self._model = None

    def load(self, tasks: Sequence[Task], should_stop: Callable[[], bool], example: Job | None = None) -> None:
        """Start the workers and the probe. Load torch and the model while they run.

        A thread gives the workers their first jobs, because it has to wait for their imports.

        Args:
            example: A job that a worker featurizes for practice, if the tasks are not known yet.

        Raises:
            ConfigError: if the device or the kernels are missing, or a job is too large for the device.
            WeightsError: if the checkpoint cannot be used.
            Stopped: if ``should_stop`` returns True during loading.
        """
        config, dictionary = self._config, find_dictionary()
        if config.spec.esm:
            self._embed(tasks, should_stop)
        self._probe.start_early()
        self._workers.start()
        self._begun = (tasks, _in_thread(partial(self._featurize, tasks, should_stop)))
        if example is not None:
            _in_thread(partial(self._workers.practise, example, config.feature_settings))
        self._tell(StageEntered(text=f"loading {config.model}"))
        _check(should_stop)
        importlib.import_module("torch")
        _check(should_stop)
        prepare_imports()
        from protenix_multiseed.execution.warm_up import warm_up

        warming = in_background(partial(warm_up, config.device))
        from protenix_multiseed.execution.model import LoadedModel

        self._model = LoadedModel(config, self._probe)
        if self._probe.is_at_work:
            text = f"loading {config.model} and compiling kernels (on the first run with this GPU model)"
            self._tell(StageEntered(text=text))
        self._refuse_too_large(tasks)
        _check(should_stop)
        self._model.load(should_stop)
        warming.join()  # no allocation of its own during a batch
        for text in self._remarks(dictionary.name):
            self._tell(Note(job=None, text=text))
        self._tell(StageEntered(text=f"predicting on {self._model.device}"))

    def predict(self, tasks: Sequence[Task], gate: Gate) -> Iterator[Event]:
        """Predict tasks, small ones of like size together. The features of the next ones are uploaded meanwhile."""
        if self._begun is not None and self._begun[0] is tasks:
            coming = self._begun[1].result()
        else:
            coming = self._featurize(tasks, lambda: gate.is_closed)
        self._begun = None
        yield from self.run(coming, gate)

    def run(
        self,
        coming: Coming,
        gate: Gate,
        *,
        claims_ahead: bool = True,
        is_alone: Callable[[Features], bool] = lambda features: False,
    ) -> Iterator[Event]:
        """Predict featurized jobs one group after another, until the gate closes.

        Args:
            coming: Features of each job, or its failure; None if the next ones are not ready yet.
            claims_ahead: Whether the first batch of a group is admitted before the upload, or right before it begins.
            is_alone: Whether a job must not share its batches with other jobs.
        """
        model = self.model

        def flat() -> Iterator[Features | Failure | None]:
            for made in coming:
                yield from [None] if made is None else made

        def may_share(jobs: Sequence[Features]) -> bool:
            return not any(map(is_alone, jobs)) and model.may_share(jobs)

        for ready in model.transfer.ahead(
            group(flat(), may_share, lambda: model.transfer.is_awaited),
            partial(make_ready, model, gate if claims_ahead else None),
            lambda: gate.is_closed,
        ):
            if gate.is_closed:
                return
            if isinstance(ready, Failure):
                yield ready
            elif ready is not None:
                for features in ready.jobs:
                    yield from notes_of(features)
                yield from GroupRun(model, ready, gate).events()

    def facts(self) -> Mapping[str, Any]:
        """See :class:`protenix_multiseed.execution.base.Executor`."""
        return self.model.facts()

    @property
    def model(self) -> "LoadedModel":
        """The loaded model."""
        if self._model is None:
            raise RuntimeError("load() comes before predict()")
        return self._model

    def _featurize(self, tasks: Sequence[Task], should_stop: Callable[[], bool]) -> Coming:
        jobs = (task.remaining for task in tasks)
        return self._workers.stream(jobs, self._config.feature_settings, should_stop, self._more)

    def _more(self, job: Job) -> int:
        """A small job may share its batch, so the jobs of the next batch are featurized in advance."""
        settings = self._config.plan_settings
        is_shared = settings.max_jobs != 1 and settings.reference_reason is None
        return settings.max_entries if is_shared and job.n_token <= SHARED_BATCH_MAX_TOKENS else 0

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
        model, reason = self.model, self._config.reference_reason
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
        model = self.model
        refusals = ((task.job, model.refusal(minimum_sizes(task.job))) for task in tasks)
        if problems := [f"{job.where}: {refusal}" for job, refusal in refusals if refusal]:
            raise ConfigError("\n".join(problems))


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped


def _in_thread(function: Callable[[], _Made]) -> "Future[_Made]":
    made: Future[_Made] = Future()

    def work() -> None:
        try:
            made.set_result(function())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=work, daemon=True, name="featurize").start()
    return made
