"""The four stages of a prediction, and the types they hand over. Fast and reference stages share these signatures.

``replace(FAST, sample=reference.sample)`` runs one stage through its reference twin, which is how a difference is
traced. Everything carries a leading dimension of seeds; sequential is a batch of one seed.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from protenix_multiseed.features.layout import expand, place
from protenix_multiseed.model.kernels import Kernels
from protenix_multiseed.model.kernels.plain import PlainKernels
from protenix_multiseed.model.replay import Loops
from protenix_multiseed.model.seed_stream import SeedStream
from protenix_multiseed.types import Features, SeedFeatures
from protenix_multiseed.upstream import silenced, skip_amp_rules

_Made = TypeVar("_Made")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Protenix's model with the configuration it was built with, on its device.

    Attributes:
        module: ``protenix.model.protenix.Protenix``.
        configs: Upstream's configuration.
        name: The model's name, by which upstream chooses precision.
        precision: ``reference``, or ``fast``: the diffusion network in bfloat16.
        kernels: The operations that the fast stages are made of.
        padding: The fast trunk pads tokens to a multiple of this.
        loops: Kept from batch to batch.
    """

    module: Any
    configs: Any
    name: str
    device: torch.device
    precision: str = "reference"
    kernels: Kernels = field(default_factory=PlainKernels)
    padding: int = 1
    _prepared: dict[Any, Any] = field(default_factory=dict)
    loops: Loops = field(default_factory=Loops)

    def prepared(self, make: Callable[[Any, torch.dtype], _Made], module: Any, dtype: torch.dtype) -> _Made:
        """A module's weights as a fast stage wants them, made once per run: ``make(module, dtype)``."""
        key = (make, id(module), dtype)
        if key not in self._prepared:
            self._prepared[key] = make(module, dtype)
        made: _Made = self._prepared[key]
        return made

    def set_size(self, n_token: int) -> None:
        """Give the model its configuration with upstream's precision for jobs of this size."""
        for part, skipped in skip_amp_rules(self.name, n_token).items():
            self.configs.skip_amp[part] = skipped
        self.module.configs = self.configs

    def trunk_dtype(self) -> torch.dtype:
        """Type in which autocast computes the trunk."""
        return _DTYPES[self.configs.dtype] if self.device.type == "cuda" else torch.float32

    def dtype_of(self, part: str, n_token: int) -> torch.dtype:
        """Type of a part that upstream keeps out of autocast up to some size."""
        if part == "sample_diffusion" and self.precision == "fast":
            return torch.bfloat16
        is_full = self.device.type != "cuda" or skip_amp_rules(self.name, n_token)[part]
        return torch.float32 if is_full else self.trunk_dtype()

    def autocast(self) -> AbstractContextManager[Any]:
        """Upstream's automatic mixed precision: on a GPU only, in the configured type."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", dtype=_DTYPES[self.configs.dtype])

    def full_precision(self, part: str, n_token: int) -> AbstractContextManager[Any]:
        """Outside autocast where upstream runs ``part`` outside it at this size."""
        if self.device.type != "cuda" or not skip_amp_rules(self.name, n_token)[part]:
            return nullcontext()
        return torch.autocast("cuda", enabled=False)

    def chunk_size(self, n_token: int) -> int | None:
        """Upstream's chunk of triangle attention at this size (``_get_dynamic_chunk_size``)."""
        size: int | None = self.module._get_dynamic_chunk_size(n_token)
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A batch's features on the device.

    Attributes:
        shared: Upstream's feature dictionary of what the seeds share, ``relp`` and ``v_lm`` among it.
        ref_pos: Placed reference conformers [N_seed, N_atom, 3].
        d_lm: Atom pair offsets in local windows [N_seed, N_window, 32, 128, 3] (Alg. 5 line 2).
        has_frame: [N_seed, N_token].
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
        """Upstream's feature dictionary of one seed. Upstream adds and deletes keys in it; the batch is not touched."""
        return {
            **self.shared,
            "ref_pos": self.ref_pos[index],
            "d_lm": self.d_lm[index],
            "has_frame": self.has_frame[index],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkOutput:
    """Alg. 1 lines 1-13: ``s_inputs`` [N_seed, N_token, 449], ``s`` [N_seed, N_token, c_s],
    ``z`` [N_seed, N_token, N_token, c_z].
    """  # noqa: D205

    s_inputs: torch.Tensor
    s: torch.Tensor
    z: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What diffusion reads of the trunk and does not depend on noise or step.

    Attributes:
        pair_cond: Alg. 21 lines 1-5 [N_seed, N_token, N_token, c_z]; upstream's ``pair_z``.
        atom_pair: Alg. 5 lines 2-6 and 10 [N_seed, N_window, 32, 128, c_atompair]; upstream's ``p_lm``.
        atom_single: Alg. 5 line 1 [N_seed, N_atom, c_atom]; upstream's ``c_l``.
    """

    pair_cond: torch.Tensor
    atom_pair: torch.Tensor
    atom_single: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """One implementation of each stage. The last argument of two is how many samples of a seed run at once.

    ``score`` yields upstream's output dictionary of each seed, so that a finished one is safe when a later one fails.
    """

    run_trunk: Callable[[Network, Inputs, Sequence[SeedStream]], TrunkOutput]
    prepare_conditioning: Callable[[Network, Inputs, TrunkOutput], Conditioning]
    sample: Callable[[Network, Inputs, TrunkOutput, Conditioning, Sequence[SeedStream], int], torch.Tensor]
    score: Callable[[Network, Inputs, TrunkOutput, torch.Tensor, int], Iterator[dict[str, Any]]]


def make_inputs(network: Network, features: Features, seeds: Sequence[SeedFeatures]) -> Inputs:
    """Put a batch's features on the device, with what ``Protenix.forward`` adds to them."""
    from protenix.model.protenix import update_input_feature_dict

    shared = expand(features, seeds[0], device=network.device)
    shared = network.module.relative_position_encoding.generate_relp(shared)
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


def run_stages(
    stages: Stages,
    network: Network,
    features: Features,
    seeds: Sequence[SeedFeatures],
    sample_chunk: int,
    finished: Callable[[int, dict[str, Any], Mapping[str, float]], None],
    entered: Callable[[str], None] = lambda stage: None,
) -> None:
    """A batch of seeds from features to upstream's output dictionaries.

    Args:
        sample_chunk: How many samples of each seed to run at once. It changes memory, not the answer: draws are made
            for all samples before.
        finished: Called with a seed's index in the batch, its output dictionary and the seconds of each stage so far,
            as soon as it is scored.
        entered: Told which stage begins.
    """
    streams = [SeedStream(seed, network.device) for seed in seeds]
    clock = _Clock(network.device)
    network.set_size(features.n_token)
    network.loops.begin(len(seeds), features.n_token, features.n_atom, sample_chunk)
    with torch.no_grad(), network.autocast(), silenced():
        inputs = make_inputs(network, features, seeds)
        clock.lap("inputs")
        entered("trunk")
        trunk = stages.run_trunk(network, inputs, streams)
        clock.lap("trunk")
        conditioning = stages.prepare_conditioning(network, inputs, trunk)
        clock.lap("conditioning")
        entered("sample")
        coordinates = stages.sample(network, inputs, trunk, conditioning, streams, sample_chunk)
        del conditioning
        clock.lap("sample")
        entered("score")
        for index, made in enumerate(stages.score(network, inputs, trunk, coordinates, sample_chunk)):
            clock.lap("score")
            finished(index, made, dict(clock.seconds))


class _Clock:
    """Seconds of each stage; a GPU's work is waited for between stages, where nothing overlaps anyway."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds = device, dict[str, float]()
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if self._device.type == "cuda":
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self._device))  # type: ignore[no-untyped-call]
            while not done.query():  # type: ignore[no-untyped-call]  # a wait inside CUDA keeps signals waiting
                time.sleep(0.001)
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 4)
        self._last = now
