"""The four stages of a prediction, and the types that they pass on. Fast and reference stages share these signatures.

``replace(FAST, sample=reference.sample)`` replaces one fast stage by its reference twin. Use this to find the stage
that causes a difference. All tensors have a leading dimension of seeds; one seed is a batch of one.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch

from protenix_multiseed.features.layout import expand, place
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
        done, total: Number of trunk cycles, diffusion steps or seeds. A stage that runs on a GPU counts launched steps,
            :func:`run_stages` counts finished ones.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The GPU is still computing. The caller may stop the stages here."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One seed of the batch is finished.

    Attributes:
        index: Index of the seed in the batch.
        raw: Upstream's output dictionary of this seed.
        seconds: Seconds that each stage has taken so far, for the whole batch.
    """

    index: int
    raw: dict[str, Any]
    seconds: Mapping[str, float]


Step: TypeAlias = StepsDone | Waiting | Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A batch's features on the device.

    Attributes:
        shared: Upstream's feature dictionary with the features that are equal for all seeds, including ``v_lm``, but
            without ``relp``. The pair features of real templates are not on the device.
        ref_pos: Placed reference conformers [N_seed, N_atom, 3].
        d_lm: Atom pair offsets in local windows [N_seed, N_window, 32, 128, 3] (Alg. 5 line 2).
        has_frame: 1 for tokens with a frame [N_seed, N_token].
    """

    shared: Mapping[str, Any]
    ref_pos: torch.Tensor
    d_lm: torch.Tensor
    has_frame: torch.Tensor
    n_token: int
    n_atom: int

    @property
    def n_seed(self) -> int:
        """Number of seeds in the batch."""
        return self.ref_pos.shape[0]

    def of_seed(self, index: int) -> dict[str, Any]:
        """A new feature dictionary of one seed, in upstream's form except for ``relp``. Callers may change its keys."""
        return {
            **self.shared,
            "ref_pos": self.ref_pos[index],
            "d_lm": self.d_lm[index],
            "has_frame": self.has_frame[index],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkOutput:
    """Result of the trunk (Alg. 1 lines 1-13).

    Attributes:
        s_inputs: [N_seed, N_token, 449].
        s: [N_seed, N_token, c_s].
        z: [N_seed, N_token, N_token, c_z].
    """

    s_inputs: torch.Tensor
    s: torch.Tensor
    z: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """Conditioning of the diffusion module that depends on neither noise nor step.

    Attributes:
        pair_cond: Alg. 21 lines 1-5 [N_seed, N_token, N_token, c_z]; upstream's ``pair_z``.
        atom_pair: Alg. 5 lines 2-6 and 10 [N_seed, N_window, 32, 128, c_atompair]; upstream's ``p_lm``.
        atom_single: Alg. 5 line 1 [N_seed, N_atom, c_atom]; upstream's ``c_l``.
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
    their progress and return their result. ``score`` yields upstream's output dictionary of each seed, so that a
    finished seed is kept if a later seed fails.
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


def make_inputs(network: Network, batch: Batch) -> Inputs:
    """Put the features of a batch on the device, and add the features that ``Protenix.forward`` adds."""
    from protenix.model.protenix import update_input_feature_dict

    features, seeds = batch.features, batch.features.seeds
    shared = expand(features, seeds[0], device=network.device, templates=torch.device("cpu"))
    ref_pos = torch.stack([place(seed.ref_pos, network.device) for seed in seeds])
    d_lm = []
    for one in ref_pos:
        shared = update_input_feature_dict({**shared, "ref_pos": one})
        d_lm.append(shared["d_lm"])
    has_frame = torch.stack([place(seed.has_frame, network.device).long() for seed in seeds])
    shared = {key: value for key, value in shared.items() if key not in {"ref_pos", "d_lm", "has_frame"}}
    return Inputs(
        shared=shared,
        ref_pos=ref_pos,
        d_lm=torch.stack(d_lm),
        has_frame=has_frame,
        n_token=features.n_token,
        n_atom=features.n_atom,
    )


def run_stages(stages: Stages, network: Network, batch: Batch) -> Iterator[Step]:
    """Run all stages for a batch. Yields progress, and upstream's output dictionary of each seed as :class:`Scored`."""
    steps = _run(stages, network, batch)
    while True:
        # Enter the contexts anew for each step, because other code runs in this thread between steps.
        with torch.no_grad(), network.autocast(), silenced():
            step = next(steps, None)
        if step is None:
            return
        yield step


def _run(stages: Stages, network: Network, batch: Batch) -> Iterator[Step]:
    features = batch.features
    rngs = [SeedRng(seed, network.device) for seed in features.seeds]
    clock = _Clock(network.device)
    network.set_size(features.n_token)
    network.graphs.begin(len(rngs), features.n_token, features.n_atom, batch.sample_chunk)
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
