"""The four stages of a prediction, and the types that they pass on. Fast and reference stages share these signatures.

``replace(FAST, sample=reference.sample)`` replaces one fast stage by its reference twin. Use this to find the stage
that causes a difference. All tensors have a leading dimension of entries, one for each (job, seed) of the batch.

Entries of several jobs differ in their numbers of tokens and atoms. The tensors then have the sizes of
:mod:`.buckets`, and each entry is padded at its end. What padding holds is finite, and no stage lets it into the result
of an entry. A batch of one job has no padding.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias, TypeVar

import torch

from protenix_multiseed.model.buckets import padded_sizes
from protenix_multiseed.model.inputs import Inputs, make_inputs
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.types import Batch
from protenix_multiseed.upstream.environment import silenced

_Made = TypeVar("_Made")
POLL_SECONDS = 0.001  # between two checks whether the GPU has finished
WAITING_SECONDS = 0.1  # between two Waiting steps


@dataclass(frozen=True, slots=True)
class StepsDone:
    """Progress of a stage.

    Attributes:
        stage: ``trunk``, ``sample`` or ``score``.
        done, total: Number of trunk cycles, diffusion steps or entries. A stage that runs on a GPU counts launched
            steps, :func:`run_stages` counts finished ones.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The GPU is still computing. The caller may stop the stages here."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One entry of the batch is finished.

    Attributes:
        index: Index of the entry in the batch.
        raw: Upstream's output dictionary of this entry.
        seconds: Seconds that each stage has taken so far, for the whole batch.
    """

    index: int
    raw: dict[str, Any]
    seconds: Mapping[str, float]


Step: TypeAlias = StepsDone | Waiting | Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkOutput:
    """Result of the trunk (Alg. 1 lines 1-13).

    Attributes:
        s_inputs: [N_entry, N_token, 449].
        s: [N_entry, N_token, c_s].
        z: [N_entry, N_token, N_token, c_z].
    """

    s_inputs: torch.Tensor
    s: torch.Tensor
    z: torch.Tensor

    def of_entry(self, index: int, n_token: int) -> Self:
        """The tensors of one entry with ``n_token`` tokens, without their leading dimension and without padding."""
        own = slice(n_token)
        return replace(self, s_inputs=self.s_inputs[index, own], s=self.s[index, own], z=self.z[index, own, own])


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """Conditioning of the diffusion module that depends on neither noise nor step.

    Attributes:
        pair_cond: Alg. 21 lines 1-5 [N_entry, N_token, N_token, c_z]; upstream's ``pair_z``.
        atom_pair: Alg. 5 lines 2-6 and 10 [N_entry, N_window, 32, 128, c_atompair]; upstream's ``p_lm``.
        atom_single: Alg. 5 line 1 [N_entry, N_atom, c_atom]; upstream's ``c_l``.
    """

    pair_cond: torch.Tensor
    atom_pair: torch.Tensor
    atom_single: torch.Tensor


TrunkSteps: TypeAlias = Generator[StepsDone, None, TrunkOutput]
SampleSteps: TypeAlias = Generator[StepsDone, None, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """One implementation of each stage.

    Long stages are generators, so that the caller can show progress and stop them. ``run_trunk`` and ``sample`` yield
    their progress and return their result. ``score`` yields upstream's output dictionary of each entry, so that a
    finished entry is kept if a later one fails.
    """

    run_trunk: Callable[[Network, Inputs, Sequence[SeedRng]], TrunkSteps]
    prepare_conditioning: Callable[[Network, Inputs, TrunkOutput], Conditioning]
    sample: Callable[[Network, Inputs, TrunkOutput, Conditioning, Sequence[SeedRng], int], SampleSteps]
    score: Callable[[Network, Inputs, TrunkOutput, torch.Tensor, int], Iterator[dict[str, Any]]]


def result_of(steps: Generator[StepsDone, None, _Made]) -> _Made:
    """Run a stage to its end, without showing progress, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: _Made = end.value
            return made


def run_stages(stages: Stages, network: Network, batch: Batch) -> Iterator[Step]:
    """Run all stages for a batch. Yields progress, and upstream's dictionary of each entry as :class:`Scored`."""
    steps = _run(stages, network, batch)
    while True:
        # Enter the contexts anew for each step, because other code runs in this thread between steps.
        with torch.no_grad(), network.autocast(), silenced():
            step = next(steps, None)
        if step is None:
            return
        yield step


def _run(stages: Stages, network: Network, batch: Batch) -> Iterator[Step]:
    if batch.roomy:
        network = replace(network, kernels=network.kernels.roomy())
    rngs = [SeedRng(seed, network.device) for _, seed in batch.entries]
    clock = _Clock(network.device)
    network.set_sizes([features.n_token for features in batch.parts])
    sizes = padded_sizes([features.sizes for features in batch.parts])
    network.graphs.begin(len(rngs), sizes.n_token, sizes.n_atom, batch.sample_chunk, roomy=batch.roomy)
    inputs = make_inputs(network, batch)
    yield from clock.lap("inputs")
    trunk = yield from clock.follow(stages.run_trunk(network, inputs, rngs))
    yield from clock.lap("trunk")
    conditioning = stages.prepare_conditioning(network, inputs, trunk)
    yield from clock.lap("conditioning")
    sampling = stages.sample(network, inputs, trunk, conditioning, rngs, batch.sample_chunk)
    del conditioning  # so that the stage can free it before its first step
    coordinates = yield from clock.follow(sampling)
    yield from clock.lap("sample")
    for index, made in enumerate(stages.score(network, inputs, trunk, coordinates, batch.sample_chunk)):
        yield from clock.lap("score")
        yield Scored(index, made, dict(clock.seconds))
        yield StepsDone("score", index + 1, len(rngs))


class _Clock:
    """Measures the seconds of each stage, and tells which steps the GPU has finished.

    It waits for the GPU at the end of each stage. This costs no time, because the work of two stages never overlaps.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds = device, dict[str, float]()
        self._last = time.perf_counter()
        self._launched: deque[tuple[torch.cuda.Event, StepsDone]] = deque()

    def follow(self, steps: Generator[StepsDone, None, _Made]) -> Generator[Step, None, _Made]:
        """Run a stage. Yield its steps when they are finished: a GPU finishes them later than they are launched."""
        if self._device.type != "cuda":
            return (yield from steps)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                made: _Made = end.value
                return made
            self._launched.append((self._mark(), step))
            yield self._finished() or Waiting()

    def lap(self, stage: str) -> Iterator[Step]:
        """Wait until the GPU has finished, and add the time since the last lap to ``stage``."""
        last_report = time.perf_counter()
        if self._device.type == "cuda":
            done = self._mark()
            while not done.query():  # type: ignore[no-untyped-call]  # waiting inside CUDA would delay signals
                time.sleep(POLL_SECONDS)
                if time.perf_counter() - last_report > WAITING_SECONDS:
                    last_report = time.perf_counter()
                    yield self._finished() or Waiting()
            if step := self._finished():
                yield step
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 4)
        self._last = now

    def _mark(self) -> torch.cuda.Event:
        """Return an event that is over when the GPU has finished everything launched so far."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))  # type: ignore[no-untyped-call]
        return event

    def _finished(self) -> StepsDone | None:
        """Return the last step that was finished since the last call; None if there is none."""
        step = None
        while self._launched and self._launched[0][0].query():  # type: ignore[no-untyped-call]
            _, step = self._launched.popleft()
        return step
