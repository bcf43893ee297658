"""Run a group of jobs on a model: claim its first batch and upload its features, then run its batches with retry.

A group is one job, or several jobs that are one batch (:mod:`protenix_multiseed.execution.grouping`). In plans a job is
its number in the group.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from protenix_multiseed.events import Event, Featurized, Note
from protenix_multiseed.execution.base import Gate
from protenix_multiseed.execution.plan import only
from protenix_multiseed.execution.retry import Done, Retry, Retrying
from protenix_multiseed.failures import failure_of
from protenix_multiseed.types import BatchPlan, Entry, Failure, Features, Prediction, Sizes
from protenix_multiseed.units import counted, format_bytes

if TYPE_CHECKING:  # these modules import torch, which takes seconds; the probe starts before that
    from protenix_multiseed.execution.model import LoadedModel
    from protenix_multiseed.execution.transfer import Arriving


@dataclass(frozen=True, slots=True)
class Ready:
    """A group whose features are on their way to the device.

    Attributes:
        batches: The plan of the group. The entries of the first batch are admitted already. None: nothing is planned
            or admitted yet.
    """

    arriving: "tuple[Arriving, ...]"
    batches: tuple[BatchPlan, ...] | None = None

    @property
    def jobs(self) -> tuple[Features, ...]:
        """The features of each job."""
        return tuple(one.features for one in self.arriving)


def make_ready(model: "LoadedModel", gate: Gate | None, group: Sequence[Features] | Failure) -> Ready | Failure | None:
    """Plan a group, claim its first batch, and start to upload its features.

    Called while the group before is running. So the upload is only made for jobs of which this process has a share.

    Args:
        gate: Claims the first batch; None: only upload.

    Returns:
        None if no seed was admitted.
    """
    from protenix_multiseed.execution.transfer import Arriving

    if isinstance(group, Failure):
        return group
    arriving = [Arriving(features) for features in group]
    try:
        if any(model.refusal(features.sizes) is not None for features in group):
            return Ready(tuple(arriving))
        batches = None if gate is None else _first_admitted(model, gate, group)
    except RuntimeError:  # the device no longer answers: the run of the group says so
        return Ready(tuple(arriving))
    if batches == ():
        return None
    wanted = range(len(group)) if batches is None else {job for batch in batches for job in batch.jobs}
    for job in wanted:
        with suppress(Exception):  # such as no memory now: the batch itself moves the features, with retry
            arriving[job] = model.transfer.upload(group[job])
    return Ready(tuple(arriving), batches)


def _first_admitted(model: "LoadedModel", gate: Gate, group: Sequence[Features]) -> tuple[BatchPlan, ...]:
    """Plan a group. Return its batches from the first one that has admitted entries; empty if there is none."""
    batches = model.planner.plan_group(dict(enumerate(map(_planned, group))), model.free_bytes())
    for place, batch in enumerate(batches):
        if admitted := _admit(gate, group, batch.entries):
            estimate = model.planner.batch_bytes(_sizes(group))
            return (only(batch, admitted, estimate), *batches[place + 1 :])
    return ()


def _admit(gate: Gate, group: Sequence[Features], entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries that may start now."""
    jobs = dict.fromkeys(job for job, _ in entries)
    asked = {job: [seed for number, seed in entries if number == job] for job in jobs}
    admitted = tuple((job, seed) for job, seeds in asked.items() for seed in gate.admit(group[job].job, seeds))
    if admitted:
        gate.wait_until_known()
    return admitted


def _planned(features: Features) -> tuple[Sizes, list[int]]:
    return features.sizes, [seed.seed for seed in features.seeds]


def _sizes(group: Sequence[Features]) -> dict[int, Sizes]:
    return {number: features.sizes for number, features in enumerate(group)}


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


class GroupRun:
    """Runs the batches of one group, with retry."""

    def __init__(self, model: "LoadedModel", ready: Ready, gate: Gate) -> None:
        self._model, self._ready, self._gate, self._jobs = model, ready, gate, ready.jobs
        self._retries: list[str] = []
        self._pending: deque[tuple[Entry, Future[Prediction]]] = deque()

    def events(self) -> Iterator[Event]:
        """Yield the prediction or failure of every admitted entry, and the progress of the batches."""
        model, planner = self._model, self._model.planner
        refused = self._refusals()
        yield from self._refuse(refused)
        left = [job for job in range(len(self._jobs)) if job not in refused]
        if not left:
            return
        estimate = planner.batch_bytes(_sizes(self._jobs))
        if (ready := self._ready.batches) is None:
            batches = planner.plan_group({job: _planned(self._jobs[job]) for job in left}, model.free_bytes())
        else:
            kept = (only(batch, [one for one in batch.entries if one[0] in left], estimate) for batch in ready)
            batches = tuple(batch for batch in kept if batch.entries)
        retry: Retry[Failure | Future[Prediction], Event] = Retry(
            run=partial(model.run_batch, self._jobs, self._retries, self._gate),
            estimate=estimate,
            is_out_of_memory=model.is_out_of_memory,
            release=model.release,
            fail=self._fail,
            limit=model.limit,
            admit=partial(_admit, self._gate, self._jobs),
        )
        for item in retry.run_all(batches, is_first_admitted=ready is not None):
            if isinstance(item, Done):
                yield from self._take(item)
            elif isinstance(item, Retrying):
                yield self._note(item)
            else:
                yield item
            yield from self._finished(wait=False)
        yield from self._finished(wait=True)

    def _refusals(self) -> dict[int, str]:
        """Wait for the uploads. Return why jobs cannot run, by number."""
        model = self._model
        try:
            refusals = [model.refusal(features.sizes) for features in self._jobs]
            for arriving in self._ready.arriving:
                arriving.wait(model.device)
        except RuntimeError as error:  # the device failed between two groups
            model.lost = str(error).splitlines()[0]
            refusals = [model.refusal(features.sizes) for features in self._jobs]
        return {job: refusal for job, refusal in enumerate(refusals) if refusal}

    def _refuse(self, refused: Mapping[int, str]) -> Iterator[Failure]:
        """Fail every seed of these jobs that is admitted already, or may start now."""
        for job, message in refused.items():
            features = self._jobs[job]
            admitted = self._ready.batches[0].seeds_of(job) if self._ready.batches else ()
            rest = [seed.seed for seed in features.seeds if seed.seed not in admitted]
            for seed in (*admitted, *self._gate.admit(features.job, rest)):
                yield Failure(job=features.job, seed=seed, stage="predict", message=message)

    def _take(self, item: Done[Failure | Future[Prediction]]) -> Iterator[Event]:
        if isinstance(item.result, Failure):
            yield item.result
        else:
            self._pending.append((item.entry, item.result))

    def _finished(self, *, wait: bool) -> Iterator[Event]:
        """Yield predictions whose download from the device has finished, in the order of the downloads."""
        while self._pending and (wait or self._pending[0][1].done()):
            (job, seed), future = self._pending.popleft()
            try:
                yield future.result()
            except Exception as error:  # the download failed; other entries are not affected
                yield failure_of(self._jobs[job].job, seed, "predict", error)

    def _note(self, item: Retrying) -> Note:
        """Record that a batch failed, and return a note that says what runs instead."""
        first = item.instead[0]
        was, now = (
            f"{_width(batch)}, {counted(batch.sample_chunk, 'sample')} at a time" for batch in (item.batch, first)
        )
        if item.batch.roomy and not first.roomy:
            now += ", in smaller chunks"
        text = f"{was} (estimated {format_bytes(item.batch.estimated_bytes)}): {item.reason}; trying {now}"
        self._retries.append(text)
        return Note(job=self._jobs[item.batch.jobs[0]].job, text=text)

    def _fail(self, batch: BatchPlan, entry: Entry, error: Exception) -> Failure:
        """Return the failure of an entry that cannot be retried smaller. Out of memory: with sizes and estimate."""
        job, seed = entry
        made = failure_of(self._jobs[job].job, seed, "predict", error)
        if not self._model.is_out_of_memory(error):
            return made
        need = f" (estimated {format_bytes(batch.estimated_bytes)})" if batch.estimated_bytes else ""
        samples = ", one sample at a time" if self._model.planner.settings.reference_reason is None else ""
        return replace(
            made,
            message=f"out of memory with {self._jobs[job].n_token} tokens, one seed{samples}{need}",
            advice="use a larger GPU or a smaller complex",
        )


def _width(batch: BatchPlan) -> str:
    """The size of a batch as text, such as ``12 jobs, 12 seeds``."""
    jobs = f"{len(batch.jobs)} jobs, " if len(batch.jobs) > 1 else ""
    return f"{jobs}{counted(len(batch.entries), 'seed')}"
