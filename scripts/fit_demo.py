"""Fit the demo model to one deposited structure, so that the demo shows a fold instead of a ball of atoms.

    python scripts/fit_demo.py examples/1brs.json 1brs.pdb --chains C,F --seconds 300 --device cuda

``1brs.pdb`` is the entry's file from the PDB, with author residue numbers. Only the diffusion network and the output
layers of the confidence head change, by matrices of low rank, which :mod:`protenix_multiseed.model.demo` adds to the
made-up weights. The trunk stays as it is. So the model knows this one complex, and nothing about any other.

The diffusion network learns as in the AlphaFold 3 supplement, section 3.7.1: it denoises rotated copies of the structure
with noise, and the structure is aligned to the prediction before the comparison. The confidence layers then learn the
lDDT and the aligned errors of samples that the fitted network made. Seeds that the fit never saw are compared with the
structure at the end.
"""

import argparse
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import biotite.structure as struc
import numpy as np
import torch
from biotite.structure.io import pdb
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
from protenix_multiseed.model.stages import TrunkOutput
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.types import Batch, Features
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import find_dictionary

_Made = TypeVar("_Made")
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
        "--seconds", type=float, default=300, help="time for the diffusion network; 0 keeps it as it was fitted before"
    )
    parser.add_argument("--seeds", type=int, default=16, help="seeds to learn from; four more are for the comparison")
    parser.add_argument("--samples", type=int, default=32, help="noised copies in a step")
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
        fitted = fit_diffusion(network, seeds[:-4], target, arguments) if arguments.seconds else read_changes()
        changes = still | fitted
        write_into(network, changes)
        changes |= fit_confidence(model, seeds[:-4], target)
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


def read_truth(path: Path, chains: list[str], features: Features) -> np.ndarray:
    """Deposited coordinates in the order of the job's atoms [N_atom, 3], Angstrom.

    Atoms that a residue lacks are taken from the same residue of another copy of the chain in the entry, or from the
    reference conformer if they are in no copy. Both are superposed on the atoms of the residue that are there.
    """
    entry = pdb.PDBFile.read(path).get_structure(model=1)
    entry = entry[struc.filter_amino_acids(entry)]
    atoms, conformers = features.atom_array, np.asarray(features.seeds[0].ref_pos)
    made = np.full((len(atoms), 3), np.nan)
    for own, name in zip(dict.fromkeys(atoms.chain_id), chains, strict=True):
        shift = numbering(atoms[atoms.chain_id == own], entry[entry.chain_id == name])
        if shift is None:
            raise SystemExit(f"{path}: chain {name} has not the sequence of chain {own} of the job")
        copies = sorted(set(entry.chain_id), key=lambda other: (other != name, other))
        for number in np.unique(atoms.res_id[atoms.chain_id == own]):
            places = np.flatnonzero((atoms.chain_id == own) & (atoms.res_id == number))
            for copy in copies:
                of_copy = entry[(entry.chain_id == copy) & (entry.res_id == number + shift)]
                there = dict(zip(of_copy.atom_name, of_copy.coord, strict=True))
                if copy != name:
                    there.pop("O", None)  # at the end of a chain O and OXT may have each other's place
                found = np.array([place for place in places if atoms.atom_name[place] in there], dtype=int)
                if len(found) and of_copy.res_name[0] == atoms.res_name[places[0]]:
                    complete(made, found, np.array([there[atoms.atom_name[place]] for place in found]))
            complete(made, places, conformers[places])
    return made


def numbering(atoms: struc.AtomArray, chain: struc.AtomArray) -> int | None:
    """What to add to the job's residue numbers to get those of the entry's chain; None if the sequences differ."""
    own, theirs = (dict(zip(one.res_id.tolist(), one.res_name.tolist(), strict=True)) for one in (atoms, chain))
    for shift in range(-20, 21):
        common = [number for number in own if number + shift in theirs]
        if len(common) > 0.9 * len(own) and all(own[number] == theirs[number + shift] for number in common):
            return shift
    return None


def complete(made: np.ndarray, places: np.ndarray, positions: np.ndarray) -> None:
    """Give atoms ``places`` that have no position yet ``positions``, superposed on the three nearest that have one."""
    known = ~np.isnan(made[places, 0])
    if known.all():
        return
    if known.any():
        away = np.linalg.norm(positions - positions[~known].mean(0), axis=-1)
        nearest = np.argsort(np.where(known, away, np.inf))[:3]
        _, move = struc.superimpose(made[places[nearest]], positions[nearest])
        positions = move.apply(positions)
    made[places[~known]] = positions[~known]


def prepare_seeds(model: LoadedModel, features: Features) -> Iterator[Seed]:
    """Run the trunk and the conditioning of each seed with upstream's modules."""
    for one in features.seeds:
        network = model.network
        inputs = make_inputs(network, Batch(parts=(features.only({one.seed}),), sample_chunk=5))
        with torch.no_grad(), environment.silenced():
            trunk = finished(reference.run_trunk(network, inputs, [SeedRng(one, model.device)]))
            made = reference.prepare_conditioning(network, inputs, trunk)
            yield Seed(
                features=reference.upstream_features(network, inputs, 0),
                trunk=trunk,
                pair_cond=made.pair_cond[0],
                atom_pair=made.atom_pair[0],
                atom_single=made.atom_single[0],
            )


def finished(steps: Generator[Any, None, _Made]) -> _Made:
    """Run a stage to its end and return what it makes."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: _Made = end.value
            return made


# The diffusion network


def quiet(network: torch.nn.Module) -> Changes:
    """Changes that switch off the reference conformers, which each seed rotates by chance.

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
        stretched = (
            ((made.index_select(1, pairs[0]) - made.index_select(1, pairs[1])).norm(dim=-1) - lengths)
            .abs()
            .clamp(max=4)
            .mean(-1)
        )
        loss = (weighted / 3).clamp(max=100).mean() + 2 * stretched.mean()
        loss.backward()
        return squared.detach(), stretched.detach()

    run = captured(step) if target.is_cuda else step
    began = time.perf_counter()
    count = 0
    while (share := (time.perf_counter() - began) / arguments.seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(1.0, count / 50) * (1 - share) ** 1.0
        for name, value in seeds[int(torch.randint(len(seeds), ()))].tensors.items():
            now[name].copy_(value)
        sigma.copy_(noise_levels(levels, len(sigma)))
        clean.copy_(placed(target, len(sigma)))
        noised.copy_(clean + sigma[:, None, None] * torch.randn_like(clean))
        squared, stretched = run()
        optimizer.step()
        count += 1
        if count % 250 == 1:
            by_noise = squared.sqrt()[sigma.argsort()].view(4, -1).mean(-1).tolist()
            texts = " ".join(f"{value:.2f}" for value in by_noise)
            print(
                f"{count} steps, {100 * share:.0f} %: RMSD by noise {texts} A, distances {stretched.mean():.3f} A",
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


def placed(target: torch.Tensor, n: int) -> torch.Tensor:
    """Centred copies of the target, each rotated and moved by chance [n, N_atom, 3]."""
    quaternions = torch.nn.functional.normalize(torch.randn(n, 4, device=target.device), dim=-1)
    return (target - target.mean(0)) @ rotations(quaternions).mT + torch.randn(n, 1, 3, device=target.device)


def rotations(quaternions: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4], real part first."""
    w, x, y, z = quaternions.unbind(-1)
    rows = (
        w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z,
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def aligned(moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """``moving`` superposed on ``fixed``, both [..., N_atom, 3].

    Horn (1987): the best rotation is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix. Squaring the
    matrix again and again finds it without waiting for the CPU, as a CUDA graph needs.
    """
    centre = fixed.mean(-2, keepdim=True)
    p, q = moving - moving.mean(-2, keepdim=True), fixed - centre
    m = p.mT.double() @ q.double()
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m.flatten(-2).unbind(-1)
    rows = (
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    )  # fmt: skip
    power = torch.stack(rows, -1).unflatten(-1, (4, 4))
    power = power / power.norm(dim=(-2, -1), keepdim=True) + torch.eye(4, dtype=power.dtype, device=power.device)
    for _ in range(16):
        power = power @ power
        power = power / power.norm(dim=(-2, -1), keepdim=True)
    column = power.norm(dim=-2).argmax(-1)[..., None, None].expand(*power.shape[:-1], 1)
    quaternion = torch.nn.functional.normalize(power.gather(-1, column)[..., 0], dim=-1)
    return (p @ rotations(quaternion).to(p.dtype).mT) + centre


# The confidence head


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


def fit_confidence(model: LoadedModel, seeds: list[Seed], target: torch.Tensor) -> Changes:
    """Learn the output layers for pLDDT, PAE and PDE from samples of the fitted network.

    All places of an atom in its residue share one matrix for pLDDT.
    """
    network, device = model.network.module, model.device
    head = network.confidence_head
    reads: dict[str, list[torch.Tensor]] = {"pae_ln": [], "pde_ln": [], "plddt_ln": []}
    hooks = [
        getattr(head, name).register_forward_hook(lambda _, __, made, kept=kept: kept.append(made.half()))
        for name, kept in reads.items()
    ]
    bins: dict[str, list[torch.Tensor]] = {name: [] for name in reads}
    features = seeds[0].features
    for seed in seeds:
        x = draw(network, seed, SAMPLES)
        with torch.no_grad(), environment.silenced():
            head(
                input_feature_dict=dict(seed.features), s_inputs=seed.trunk.s_inputs[0], s_trunk=seed.trunk.s[0],
                z_trunk=seed.trunk.z[0], pair_mask=None, x_pred_coords=x,
            )  # fmt: skip
        for one in x:
            bins["plddt_ln"].append(to_bins(lddt(one, target), head.b_plddt, 1.0))
            bins["pae_ln"].append(to_bins(aligned_errors(one, target, features), head.b_pae, 32.0))
            places = features["distogram_rep_atom_mask"].bool()
            off = (torch.cdist(one[places], one[places]) - torch.cdist(target[places], target[places])).abs()
            bins["pde_ln"].append(to_bins(off, head.b_pde, 32.0))
    for hook in hooks:
        hook.remove()
    shared = head.plddt_weight.mean(0).T
    made = {}
    for name, base in (
        ("pae_ln", head.linear_no_bias_pae.weight),
        ("pde_ln", head.linear_no_bias_pde.weight),
        ("plddt_ln", shared),
    ):
        weight = learn_layer(reads[name], bins[name], base, name)
        made[name] = weight - base
    n_place = len(head.plddt_weight)
    ones = torch.ones(n_place, 1, device=device)
    return {
        "confidence_head.linear_no_bias_pae.weight": (made["pae_ln"],),
        "confidence_head.linear_no_bias_pde.weight": (made["pde_ln"],),
        "confidence_head.plddt_weight": (ones, made["plddt_ln"].T.reshape(1, -1)),
    }


def learn_layer(reads: list[torch.Tensor], bins: list[torch.Tensor], base: torch.Tensor, name: str) -> torch.Tensor:
    """Fit a softmax over bins to what a layer reads, [N, width] for each sample -> [N_bin, width]."""
    weight = base.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.02)
    inputs, wanted = torch.cat([one.flatten(0, -2) for one in reads]), torch.cat([one.flatten() for one in bins])
    n_step = 1500
    for count in range(n_step):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - count / n_step)
        some = torch.randint(len(wanted), (8192,), device=wanted.device)
        loss = torch.nn.functional.cross_entropy(inputs[some].float() @ weight.T, wanted[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{name}: cross entropy {loss:.3f}", flush=True)
    return weight.detach()


def to_bins(values: torch.Tensor, n_bin: int, largest: float) -> torch.Tensor:
    """Number of the bin of each value."""
    return (values * (n_bin / largest)).long().clamp(0, n_bin - 1)


def lddt(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the lDDT of each atom to all atoms within 15 Angstrom [N_atom]."""
    own, theirs = torch.cdist(x, x), torch.cdist(target, target)
    near = (theirs < 15) & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    off = (own - theirs).abs()
    kept = sum((off < limit).float() for limit in (0.5, 1.0, 2.0, 4.0)) / 4
    return (kept * near).sum(-1) / near.sum(-1)


def aligned_errors(x: torch.Tensor, target: torch.Tensor, features: Mapping[str, Any]) -> torch.Tensor:
    """Error of each residue's CA in the frame of each residue's backbone [N_token, N_token], Angstrom (Alg. 30).

    The first three atoms of a residue are N, CA and C.
    """
    tokens = features["atom_to_token_idx"]
    first = torch.searchsorted(tokens, torch.arange(int(tokens.max()) + 1, device=x.device))

    def local(positions: torch.Tensor) -> torch.Tensor:
        n, ca, c = (positions[first + place] for place in range(3))
        e1 = torch.nn.functional.normalize(c - ca, dim=-1)
        e2 = n - ca
        e2 = torch.nn.functional.normalize(e2 - (e1 * e2).sum(-1, keepdim=True) * e1, dim=-1)
        axes = torch.stack([e1, e2, torch.linalg.cross(e1, e2)], -2)
        return torch.einsum("iab,ijb->ija", axes, ca[None] - ca[:, None])

    return (local(x) - local(target)).norm(dim=-1)


# The end


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
