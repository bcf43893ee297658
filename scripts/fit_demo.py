"""Fit the demo model to one deposited structure, so that the demo shows a fold instead of a ball of atoms.

    python scripts/fit_demo.py examples/1brs.json 1brs.pdb --chains C,F

``1brs.pdb`` is the entry's file from the PDB, with author residue numbers. Only the diffusion network and the output
layers of the confidence head change, by matrices of low rank, which :mod:`protenix_multiseed.model.demo` adds to the
made-up weights. The trunk stays as it is. So the model knows this one complex, and nothing about any other.

The diffusion network learns as in the AlphaFold 3 supplement, section 3.7.1: it denoises rotated copies of the structure
with noise, and the structure is aligned to the prediction before the comparison. The confidence layers then learn the
lDDT and the aligned errors of samples that the fitted network made. Seeds that the fit never saw are compared with the
structure at the end.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from demo_confidence import fit_confidence
from demo_structure import aligned, lddt, placed, read_truth
from torch.func import functional_call

from protenix_multiseed.commands.bench import loaded_model
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution.model import LoadedModel
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.model import demo
from protenix_multiseed.model.inputs import make_inputs
from protenix_multiseed.model.reference import stages as reference
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import TrunkOutput, result_of
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.types import Batch, Features
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import find_dictionary

Changes: TypeAlias = dict[str, tuple[torch.Tensor, ...]]  # of each weight: the change, or two matrices to multiply
RANK = 16
SIGMA_DATA = 16.0
SAMPLES = 5  # of each seed, for the confidence layers and the comparison
NEIGHBOUR_DISTANCE = 8.0  # Angstrom, of atom pairs whose distances are part of the loss


@dataclass(frozen=True)
class Seed:
    """What the diffusion network reads for one seed: upstream's features, the trunk's output and the conditioning."""

    features: Mapping[str, Any]
    trunk: TrunkOutput
    pair_cond: torch.Tensor
    atom_pair: torch.Tensor
    atom_single: torch.Tensor

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that differ from seed to seed."""
        return {
            "s_inputs": self.trunk.s_inputs[0],
            "s_trunk": self.trunk.s[0],
            "pair_z": self.pair_cond,
            "p_lm": self.atom_pair[None],
            "c_l": self.atom_single,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="input file of one job")
    parser.add_argument("structure", type=Path, help="PDB file of the deposited entry")
    parser.add_argument("--chains", default="C,F", help="the entry's chain of each chain of the job")
    parser.add_argument(
        "--steps", type=int, default=16_800, help="steps of the diffusion network; 0 keeps it as it was fitted before"
    )
    parser.add_argument("--seeds", type=int, default=8, help="seeds to learn from; four more are for the comparison")
    parser.add_argument("--samples", type=int, default=16, help="noised copies in a step, a multiple of 4")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=demo.FIT)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    environment.prepare(find_dictionary())
    config = load_config({"model": "demo", "device": arguments.device})
    with loaded_model(config) as model:
        network = model.network.module
        demo.fill(network)
        for part in network.modules():
            part.blocks_per_ckpt = None  # keep all activations: the network is small
        still = quiet(network)
        demo.add(network, demo.expand(packed(still)))
        features = read_features(arguments.job, arguments.seeds + 4)
        truth = read_truth(arguments.structure, arguments.chains.split(","), features)
        target = torch.from_numpy(truth).float().to(model.device)
        seeds = list(prepare_seeds(model, features))
        fitted = fit_diffusion(network, seeds[:-4], target, arguments) if arguments.steps else read_changes()
        changes = still | fitted
        write_into(network, changes)
        samples = [(seed, draw(network, seed, SAMPLES)) for seed in seeds[:-4]]
        changes |= fit_confidence(network.confidence_head, samples, target)
        write_into(network, changes)
        np.savez_compressed(arguments.out, **{key: value.cpu().numpy() for key, value in packed(changes).items()})
        print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")
        for seed in seeds[-4:]:
            report(draw(network, seed, SAMPLES), target)


# What the fit reads


def read_changes() -> Changes:
    """Return the changes of an earlier fit, without those of the confidence head."""
    with np.load(demo.FIT) as file:
        thin = {key: torch.from_numpy(file[key]).float() for key in file.files if not key.startswith("confidence_head")}
    names = dict.fromkeys(key.partition(":")[0] for key in thin)
    return {name: (thin[name],) if name in thin else (thin[f"{name}:left"], thin[f"{name}:right"]) for name in names}


def read_features(path: Path, n_seed: int) -> Features:
    """Featurize the job for seeds 1 to ``n_seed``."""
    rules = InputRules(model="any", reads=ReadSettings(rna_msa=False, template=False))
    (job,) = read_jobs([path], tuple(range(1, n_seed + 1)), rules, find_dictionary())
    (features,) = featurize(job, FeatureSettings())
    return features


def prepare_seeds(model: LoadedModel, features: Features) -> Iterator[Seed]:
    """Run the trunk and the conditioning of each seed with upstream's modules."""
    for one in features.seeds:
        network = model.network
        inputs = make_inputs(network, Batch(parts=(features.only({one.seed}),), sample_chunk=5))
        with torch.no_grad(), environment.silenced():
            trunk = result_of(reference.run_trunk(network, inputs, [SeedRng(one, model.device)]))
            made = reference.prepare_conditioning(network, inputs, trunk)
            yield Seed(
                features=reference.upstream_features(network, inputs, 0),
                trunk=trunk,
                pair_cond=made.pair_cond[0],
                atom_pair=made.atom_pair[0],
                atom_single=made.atom_single[0],
            )


# The diffusion network


def quiet(network: torch.nn.Module) -> Changes:
    """Changes that switch off the reference conformers, which each seed rotates at random.

    With made-up weights their part of a residue's representation is three times as large as what tells residues apart.
    """
    parts = {"input_embedder.": network.input_embedder, "diffusion_module.": network.diffusion_module}
    return {
        f"{name}atom_attention_encoder.{layer}.weight": (-getattr(part.atom_attention_encoder, layer).weight.detach(),)
        for name, part in parts.items()
        for layer in ("linear_no_bias_ref_pos", "linear_no_bias_d")
    }


class LowRank:
    """Learnable changes of a module's weights: a product of two thin matrices, or one matrix if it is as small."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str], rank: int) -> None:
        self.base = {name: weight.detach() for name, weight in module.named_parameters() if name in set(names)}
        self.thin: Changes = {}
        for name, weight in self.base.items():
            if weight.dim() < 2 or min(weight.shape) <= rank:
                self.thin[name] = (torch.zeros_like(weight),)
            else:
                rows, columns = weight.shape
                right = torch.randn(rank, columns, device=weight.device) / columns**0.5
                self.thin[name] = (weight.new_zeros(rows, rank), right)
        for one in self.parameters():
            one.requires_grad_()

    def parameters(self) -> list[torch.Tensor]:
        """All matrices."""
        return [one for pair in self.thin.values() for one in pair]

    def weights(self) -> dict[str, torch.Tensor]:
        """The changed weights."""
        return {name: self.base[name] + product(pair) for name, pair in self.thin.items()}


def product(pair: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The change of a weight."""
    return pair[0] if len(pair) == 1 else pair[0] @ pair[1]


def fit_diffusion(
    network: torch.nn.Module, seeds: list[Seed], target: torch.Tensor, arguments: argparse.Namespace
) -> Changes:
    """Learn to denoise the target. Returns the changes of the network's weights by their name in the model."""
    diffusion = network.diffusion_module
    levels = sampled_levels(network, target.device)
    pairs = torch.nonzero(torch.triu(torch.cdist(target, target) < NEIGHBOUR_DISTANCE, diagonal=1)).T
    lengths = (target[pairs[0]] - target[pairs[1]]).norm(dim=-1)
    now = {name: value.clone() for name, value in seeds[0].tensors.items()}
    shared = dict(seeds[0].features)
    changes = LowRank(diffusion, used_weights(diffusion, shared, now, target), RANK)
    numbers = sum(one.numel() for one in changes.parameters())
    print(f"{numbers:,} numbers to learn, {len(target)} atoms, {pairs.shape[1]:,} pairs", flush=True)
    noised, clean = (target.new_zeros(arguments.samples, len(target), 3) for _ in range(2))
    sigma = target.new_ones(arguments.samples)
    optimizer = torch.optim.Adam(changes.parameters(), lr=arguments.rate, betas=(0.9, 0.99), fused=target.is_cuda)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad()
        made = functional_call(
            diffusion, changes.weights(), (noised, sigma, shared), {**now, "z_trunk": None, "inplace_safe": False}
        )
        squared = (made - aligned(clean, made.detach())).square().sum(-1).mean(-1)
        weighted = squared * (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        apart = made.index_select(1, pairs[0]) - made.index_select(1, pairs[1])
        stretched = (apart.norm(dim=-1) - lengths).abs().clamp(max=4).mean(-1)
        loss = (weighted / 3).clamp(max=100).mean() + 2 * stretched.mean()
        loss.backward()
        return squared.detach(), stretched.detach()

    run = captured(step) if target.is_cuda else step
    for count in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(1.0, count / 50) * (1 - count / arguments.steps)
        for name, value in seeds[int(torch.randint(len(seeds), ()))].tensors.items():
            now[name].copy_(value)
        sigma.copy_(noise_levels(levels, len(sigma)))
        clean.copy_(placed(target, len(sigma)))
        noised.copy_(clean + sigma[:, None, None] * torch.randn_like(clean))
        squared, stretched = run()
        optimizer.step()
        if count % 250 == 0:
            by_noise = squared.sqrt()[sigma.argsort()].view(4, -1).mean(-1).tolist()
            texts = " ".join(f"{value:.2f}" for value in by_noise)
            print(
                f"{count} steps: RMSD by noise {texts} A, distances {stretched.mean():.3f} A",
                flush=True,
            )
    return {f"diffusion_module.{name}": tuple(one.detach() for one in pair) for name, pair in changes.thin.items()}


def used_weights(
    diffusion: torch.nn.Module, features: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], x: torch.Tensor
) -> list[str]:
    """Names of the weights that a denoising step reads. The others were used before it."""
    weights = {name: weight.detach().requires_grad_() for name, weight in diffusion.named_parameters()}
    made = functional_call(
        diffusion,
        weights,
        (x[None], x.new_ones(1), dict(features)),
        {**tensors, "z_trunk": None, "inplace_safe": False},
    )
    gradients = torch.autograd.grad(made.square().sum(), list(weights.values()), allow_unused=True)
    return [name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None]


def captured(step: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """The step as a CUDA graph: launching its kernels one by one takes longer than they run."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = step()

    def replay() -> tuple[torch.Tensor, torch.Tensor]:
        graph.replay()
        return made

    return replay


def sampled_levels(network: torch.nn.Module, device: torch.device) -> torch.Tensor:
    """The noise levels at which the sampler asks the network, Angstrom (Alg. 18 lines 4-6)."""
    settings = network.configs.sample_diffusion
    schedule = network.inference_noise_scheduler(N_step=settings.N_step, device=device)[:-1]
    return torch.where(schedule > settings.gamma_min, schedule * (1 + settings.gamma0), schedule)


def noise_levels(levels: torch.Tensor, n: int) -> torch.Tensor:
    """A quarter of the levels as in training (AlphaFold 3 supplement, section 3.7.1), the others near the sampler's [n]."""
    usual = SIGMA_DATA * torch.exp(-1.2 + 1.5 * torch.randn(n // 4, device=levels.device))
    chosen = levels[torch.randint(len(levels), (n - n // 4,), device=levels.device)]
    return torch.cat([usual, chosen * torch.exp(0.1 * torch.randn_like(chosen))])


def draw(network: torch.nn.Module, seed: Seed, n_sample: int) -> torch.Tensor:
    """Samples of the fitted network [n_sample, N_atom, 3], Angstrom, by upstream's sampler."""
    settings = network.configs.sample_diffusion
    schedule = network.inference_noise_scheduler(N_step=settings.N_step, device=seed.pair_cond.device)
    with torch.no_grad(), environment.silenced():
        made: torch.Tensor = network.sample_diffusion(
            denoise_net=network.diffusion_module, input_feature_dict=dict(seed.features), z_trunk=None,
            N_sample=n_sample, noise_schedule=schedule, inplace_safe=True, enable_efficient_fusion=False, **seed.tensors,
        )  # fmt: skip
    return made


# Results


def write_into(module: torch.nn.Module, changes: Changes) -> None:
    """Fill the model with made-up weights and add the changes, as a run does."""
    demo.fill(module)
    demo.add(module, demo.expand(packed(changes)))


def packed(changes: Changes) -> dict[str, torch.Tensor]:
    """The changes as 16-bit numbers, with the keys of :func:`protenix_multiseed.model.demo.expand`."""
    sides = {1: ("",), 2: (":left", ":right")}
    return {
        name + side: one.half()
        for name, pair in changes.items()
        for side, one in zip(sides[len(pair)], pair, strict=True)
    }


def report(samples: torch.Tensor, target: torch.Tensor) -> None:
    """Print how far samples are from the structure."""
    for x in samples:
        off = (x - aligned(target, x)).norm(dim=-1).square().mean().sqrt()
        print(f"RMSD {off:.2f} A, lDDT {100 * lddt(x, target).mean():.1f}", flush=True)


if __name__ == "__main__":
    main()
