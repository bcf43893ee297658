"""Run one job on a model: claim its first batch and upload its features, then run its batches with retry."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from protenix_multiseed.events import Event, Featurized, Note
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.plan import only
from protenix_multiseed.execution.retry import Done, Retry, Retrying
from protenix_multiseed.failures import failure_of
from protenix_multiseed.types import BatchPlan, Failure, Features, Prediction
from protenix_multiseed.units import format_bytes

if TYPE_CHECKING:  # these modules import torch, which takes seconds; the workers and the probe start before that
    from protenix_multiseed.execution.model import LoadedModel
    from protenix_multiseed.execution.transfer import Arriving


@dataclass(frozen=True, slots=True)
class Ready:
    """A job whose features are on their way to the device.

    Attributes:
        batches: The plan of the job. The seeds of the first batch are admitted already. None: nothing is planned or
            admitted yet.
    """

    arriving: "Arriving"
    batches: tuple[BatchPlan, ...] | None = None


def make_ready(model: "LoadedModel", gate: Gate | None, made: Features | Failure) -> Ready | Failure | None:
    """Plan a job, claim its first batch, and start to upload its features.

    Called while the job before is running. So the upload is only made for a job of which this process has a share.

    Args:
        gate: Claims the first batch; None: only upload.

    Returns:
        None if no seed of the job was admitted.
    """
    from protenix_multiseed.execution.transfer import Arriving

    if isinstance(made, Failure):
        return made
    try:
        if model.refusal(made.sizes) is not None:
            return Ready(Arriving(made))
        batches = None if gate is None else _first_admitted(model, gate, made)
    except RuntimeError:  # the device no longer answers: the run of the job says so
        return Ready(Arriving(made))
    if batches == ():
        return None
    try:
        return Ready(model.transfer.upload(made), batches)
    except RuntimeError:  # no memory now: the batch itself moves the features to the device, and retry handles errors
        return Ready(Arriving(made), batches)
    except Exception as error:
        return failure_of(made.job, None, "featurize", error)


def _first_admitted(model: "LoadedModel", gate: Gate, features: Features) -> tuple[BatchPlan, ...]:
    """Plan a job. Return its batches from the first one that has admitted seeds; empty if there is none."""
    estimate = model.planner.peak_bytes(features.sizes)
    batches = model.planner.plan(features.sizes, [seed.seed for seed in features.seeds], model.free_bytes())
    for place, batch in enumerate(batches):
        if admitted := gate.admit(features.job, batch.seeds):
            return (only(batch, tuple(admitted), estimate), *batches[place + 1 :])
    return ()


def notes_of(features: Features) -> Iterator[Event]:
    """Yield what is known about a job once it is featurized."""
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

    def __init__(self, model: "LoadedModel", ready: Ready, gate: Gate) -> None:
        self._model, self._arriving, self._gate = model, ready.arriving, gate
        self._features, self._batches = ready.arriving.features, ready.batches
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
        batches = self._batches
        if refusal is not None:
            admitted = batches[0].seeds if batches else ()
            rest = [seed for seed in seeds if seed not in admitted]
            for seed in (*admitted, *self._gate.admit(features.job, rest)):
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
        if batches is None:
            items = retry.run_all(planner.plan(features.sizes, seeds, model.free_bytes()))
        else:
            items = retry.run_all(batches, is_first_admitted=True)
        for item in items:
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
