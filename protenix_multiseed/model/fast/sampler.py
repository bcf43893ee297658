"""Alg. 18 for all entries and samples. All random numbers are drawn before the loop of steps.

Each step is a function of static tensors, so a CUDA graph can replay it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import torch

from protenix_multiseed.model.cuda_graphs import GraphedLoop
from protenix_multiseed.model.fast.denoiser import Denoiser
from protenix_multiseed.model.inputs import Inputs, full_of_padding
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import Conditioning, SampleSteps, StepsDone, TrunkOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Upstream's noise levels and the factors of each step. All are on the device, [N_step] except ``start``.

    Attributes:
        start: The first noise level, a scalar. The initial noise is scaled by it.
        t_hat: Noise level after noise is added (Alg. 18 line 5).
        added: Standard deviation of the noise added (lines 6-7).
        change: ``eta * (c_tau - t_hat) / t_hat``, the factor of the denoising direction (lines 9-11).
    """

    start: torch.Tensor
    t_hat: torch.Tensor
    added: torch.Tensor
    change: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """All random numbers of a batch, drawn in upstream's order within each entry, for its own atoms.

    Attributes:
        initial: Standard normal noise [N_entry, N_sample, N_atom, 3].
        rotations: Random rotation matrices [N_step, N_entry, N_sample, 3, 3].
        translations: [N_step, N_entry, N_sample, 1, 3], Angstrom.
        noise: Standard normal noise [N_step, N_entry, N_sample, N_atom, 3].
    """

    initial: torch.Tensor
    rotations: torch.Tensor
    translations: torch.Tensor
    noise: torch.Tensor


def sample(
    network: Network,
    inputs: Inputs,
    trunk: TrunkOutput,
    conditioning: Conditioning,
    rngs: Sequence[SeedRng],
    sample_chunk: int,
) -> SampleSteps:
    """Upstream's ``sample_diffusion`` for all entries -> coordinates [N_entry, N_sample, N_atom, 3], Angstrom."""
    with _explicit_dtypes(network):
        schedule = make_schedule(network, inputs)
        draws = make_draws(network, inputs, rngs, n_step=len(schedule.t_hat))
        denoise = Denoiser(network, inputs, trunk, conditioning, schedule.t_hat)
        del conditioning
        x = schedule.start * draws.initial
        step = torch.zeros(1, dtype=torch.int64, device=x.device)
        drawn = (draws.rotations, draws.translations, draws.noise)
        padding = _Padding.of(inputs)
        fresh = GraphedLoop(
            partial(take_step, denoise, schedule, draws, x, step, sample_chunk, padding),
            tensors=(x, step, *drawn, *(padding or ()), schedule.added, schedule.change, *denoise.tensors()),
            fixed=(sample_chunk, inputs.n_token),
        )
        advance = network.graphs.take("sample", fresh)
    n_step = len(schedule.t_hat)
    for done in range(1, n_step + 1):
        with _explicit_dtypes(network):
            advance()
        yield StepsDone("sample", done, n_step)
    return advance.tensors[0].clone()


@contextmanager
def _explicit_dtypes(network: Network) -> Iterator[None]:
    """Turn autocast off, and keep sums of products in float16 in 32 bits."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_reduced_precision_reduction
    settings.allow_fp16_reduced_precision_reduction = False
    try:
        with torch.autocast(network.device.type, enabled=False):
            yield
    finally:
        settings.allow_fp16_reduced_precision_reduction = before


def take_step(
    denoise: Denoiser,
    schedule: Schedule,
    draws: Draws,
    x: torch.Tensor,
    step: torch.Tensor,
    sample_chunk: int,
    padding: "_Padding | None",
) -> None:
    """Alg. 18 lines 4-11: one diffusion step, which updates ``x`` and ``step`` in place.

    It never reads a tensor's value on the CPU, so that a CUDA graph can replay it.

    Args:
        x: Coordinates [N_entry, N_sample, N_atom, 3], Angstrom.
        step: Index of the step, on the device [1]. It is increased by one.
        sample_chunk: Number of samples to denoise at once.
        padding: Which atoms are padding; None if no atom is.
    """
    rotations, translations, noise = (
        draw.index_select(0, step)[0] for draw in (draws.rotations, draws.translations, draws.noise)
    )
    if padding is None:
        centred = x - x.mean(dim=-2, keepdim=True)
    else:
        x.masked_fill_(padding.is_padding, 0.0)
        centred = x - x.sum(dim=-2, keepdim=True) / padding.n_atom
    x_noisy = _rotate(rotations, centred) + translations  # Alg. 19
    x_noisy += schedule.added.index_select(0, step) * noise
    x_denoised = torch.cat([denoise(part, step) for part in torch.split(x_noisy, sample_chunk, dim=1)], dim=1)
    # Line 9; upstream takes the direction from x_noisy where the paper prints x_l_hat.
    x.copy_(x_noisy + schedule.change.index_select(0, step) * (x_noisy - x_denoised))
    step += 1


class _Padding(NamedTuple):
    """The padding atoms of entries of several jobs.

    Attributes:
        n_atom: Number of atoms without padding [N_entry, 1, 1, 1].
        is_padding: Whether an atom is padding [N_entry, 1, N_atom, 1].
    """

    n_atom: torch.Tensor
    is_padding: torch.Tensor

    @classmethod
    def of(cls, inputs: Inputs) -> Self | None:
        """The padding of a batch; None for a batch of one job."""
        if len(inputs.parts) == 1:
            return None
        device = inputs.parts[0].ref_pos.device
        n_atom = torch.tensor([part.n_atom for part in inputs.owners], device=device).view(-1, 1, 1, 1)
        return cls(n_atom=n_atom, is_padding=torch.arange(inputs.n_atom, device=device)[:, None] >= n_atom)


def make_schedule(network: Network, inputs: Inputs) -> Schedule:
    """Noise levels of upstream's ``InferenceNoiseScheduler``, and the factors of its sampling loop for all steps."""
    settings = network.configs.sample_diffusion
    levels = network.module.inference_noise_scheduler(N_step=settings.N_step, device=inputs.parts[0].ref_pos.device)
    last, now = levels[:-1], levels[1:]
    grown = torch.where(now > settings.gamma_min, float(settings.gamma0) + 1.0, 1.0)
    t_hat = last * grown
    added = settings.noise_scale_lambda * torch.sqrt(t_hat**2 - last**2)
    return Schedule(start=levels[0], t_hat=t_hat, added=added, change=settings.step_scale_eta * (now - t_hat) / t_hat)


def make_draws(network: Network, inputs: Inputs, rngs: Sequence[SeedRng], *, n_step: int) -> Draws:
    """Draw all random numbers of all entries.

    Upstream processes samples in chunks. It draws the numbers for all steps of one chunk before it begins the next
    chunk. This function draws in the same order, with upstream's chunk size. The computation uses its own chunks.
    """
    settings, chunk = network.configs.sample_diffusion, network.configs.infer_setting.sample_diffusion_chunk_size
    n_sample, n_entry = settings.N_sample, len(rngs)

    room = partial(full_of_padding, network.device)
    # Each number is drawn into its place: the noise of all steps may be the largest tensor of the batch.
    draws = Draws(
        initial=room(n_entry, n_sample, inputs.n_atom, 3),
        rotations=room(n_step, n_entry, n_sample, 3, 3),
        translations=room(n_step, n_entry, n_sample, 1, 3),
        noise=room(n_step, n_entry, n_sample, inputs.n_atom, 3),
    )
    for entry, (part, rng) in enumerate(zip(inputs.owners, rngs, strict=True)):
        for start in range(0, n_sample, chunk or n_sample):
            _draw_chunk(rng, draws, entry, slice(start, start + (chunk or n_sample)), part.n_atom)
    return draws


def _draw_chunk(rng: SeedRng, draws: Draws, entry: int, samples: slice, n_atom: int) -> None:
    """Draw the numbers of one chunk: initial noise, then rotations, translations and noise for each step."""
    rng.fill(draws.initial[entry, samples, :n_atom])
    rotations = []
    of_steps = zip(draws.noise[:, entry, samples, :n_atom], draws.translations[:, entry, samples], strict=True)
    for noise, translations in of_steps:
        rotations.append(rng.rotations(len(noise)))
        rng.fill(translations)
        rng.fill(noise)
    draws.rotations[:, entry, samples] = torch.from_numpy(np.stack(rotations)).float()


def _rotate(rotations: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Rotate ``x`` [..., N_atom, 3] by ``rotations`` [..., 3, 3]. No matrix product: it could round to TF32."""
    return (rotations[..., None, :, :] * x[..., None, :]).sum(dim=-1)
