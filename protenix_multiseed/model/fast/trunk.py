"""Alg. 1 lines 1-13 for all seeds: embedding, templates, MSA and Pairformer with a leading dimension of seeds.

No module here mixes the tensors of different seeds, so the leading dimension of seeds changes no result. Each seed
keeps its own reference conformers, its own MC-dropout decision and masks, and its own MSA rows in each cycle. The
number of MSA rows differs between seeds, so the MSA operations run seed by seed. Only the pair stack of the MSA module
is batched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.kernels.ops.mean_of_atoms import mean_of_atoms
from protenix_multiseed.limits import CUDA_GRAPH_MAX_PAIRS
from protenix_multiseed.model.cuda_graphs import GraphedLoop
from protenix_multiseed.model.fast.denoiser import token_atoms
from protenix_multiseed.model.fast.msa import MsaModule, draw_rows
from protenix_multiseed.model.fast.pairformer import PairformerStack, PairStack, pad
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import Inputs, StepsDone, TrunkOutput, TrunkSteps

_BROADCAST = ("restype", "profile", "deletion_mean", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars")


def run_trunk(network: Network, inputs: Inputs, rngs: Sequence[SeedRng]) -> TrunkSteps:
    """Upstream's ``Protenix.get_pairformer_output`` for all seeds."""
    module, n, dtype = network.module, inputs.n_token, network.trunk_dtype()
    has_dropout = [rng.coin(network.configs.mc_dropout_apply_rate) for rng in rngs]
    s_inputs = embed_inputs(network, inputs)
    s_init = module.linear_no_bias_sinit(s_inputs)
    z_init = module.linear_no_bias_zinit1(s_init)[..., None, :] + module.linear_no_bias_zinit2(s_init)[..., None, :, :]
    z_init += module.relative_position_encoding(inputs.shared["relp"])
    z_init += module.linear_no_bias_token_bond(inputs.shared["token_bonds"].unsqueeze(-1))
    templates = project_templates(network, inputs)
    s, z = (pad(torch.zeros_like(x), network, dims=x.dim() - 2).to(dtype) for x in (s_init, z_init))
    stack = network.prepared(PairformerStack, module.pairformer_stack, dtype)
    is_small = inputs.n_seed * n * n < CUDA_GRAPH_MAX_PAIRS
    fresh = GraphedLoop(partial(stack, network.kernels, s, z, n), tensors=(s, z), fixed=(n,), captures=is_small)
    run_stack = network.graphs.take("trunk", fresh)
    s, z = run_stack.tensors
    for cycle in range(module.N_cycle):
        update = module.linear_no_bias_z_cycle(module.layernorm_z_cycle(z[:, :n, :n]))
        for index, rng in enumerate(rngs):
            if has_dropout[index]:
                update[index] = rng.dropout(update[index], p=network.configs.mc_dropout_rate)
        z[:, :n, :n] = z_init + update
        del update
        if templates:
            z[:, :n, :n] += embed_templates(network, z, templates, n)
        run_msa(network, inputs, z, s_inputs, rngs)
        s[:, :n] = s_init + module.linear_no_bias_s(module.layernorm_s(s[:, :n]))
        run_stack()
        yield StepsDone("trunk", cycle + 1, module.N_cycle)
    return TrunkOutput(s_inputs=s_inputs, s=s[:, :n].clone(), z=z[:, :n, :n].clone())


def embed_inputs(network: Network, inputs: Inputs) -> torch.Tensor:
    """Alg. 2 for all seeds -> [N_seed, N_token, 449]. Seeds have the same atoms and their own reference conformers."""
    features = dict(inputs.shared)
    for name in _BROADCAST:
        features[name] = features[name].expand(inputs.n_seed, *features[name].shape)
    embedder = network.module.input_embedder
    of_atoms: list[torch.Tensor] = []
    hook = embedder.atom_attention_encoder.linear_no_bias_q.register_forward_hook(
        lambda module, arguments, made: of_atoms.append(made)
    )
    try:
        embedded: torch.Tensor = embedder(
            {**features, "ref_pos": inputs.ref_pos, "d_lm": inputs.d_lm},
            inplace_safe=False,
            chunk_size=network.chunk_size(inputs.n_token),
        )
    finally:
        hook.remove()
    if network.device.type == "cuda":
        # On a GPU upstream sums the atoms of a token in an order that differs between runs. Sum again in fixed order.
        (made,) = of_atoms
        places = token_atoms(features["atom_to_token_idx"], inputs.n_token)
        embedded[..., : made.shape[-1]] = mean_of_atoms(network.kernels, made[:, None], *places)[:, 0]
    return embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """A template that fills one or more adjacent slots.

    Attributes:
        n_slot: Number of slots.
        projected: Projection of the template's features [N_token, N_token, c].
    """

    n_slot: int
    projected: torch.Tensor


def project_templates(network: Network, inputs: Inputs) -> list[_Template]:
    """Project the features of the templates. Adjacent slots with equal features become one template.

    Without templates upstream fills four slots: one with gaps and three with zeros. These slots contain only residue
    types, and three of them are equal, so two passes replace four.
    """
    embedder = network.module.template_embedder
    features = inputs.shared
    if embedder.n_blocks < 1 or "template_aatype" not in features:
        return []
    names = tuple(
        f"template_{name}" for name in ("aatype", "distogram", "pseudo_beta_mask", "unit_vector", "backbone_frame_mask")
    )
    runs: list[list[int]] = []
    for slot in range(len(features["template_aatype"])):
        if runs and all(torch.equal(features[name][slot], features[name][slot - 1]) for name in names):
            runs[-1].append(slot)
        else:
            runs.append([slot])
    asym_id = features["asym_id"]
    same_chain = (asym_id[:, None] == asym_id[None, :]).float()[..., None]
    made = []
    for run in runs:
        aatype, distogram, beta_mask, unit_vector, frame_mask = (features[name][run[0]] for name in names)
        restype = functional.one_hot(aatype, 32).float()
        n = len(restype)
        pair = torch.cat(
            [
                distogram * same_chain,
                beta_mask[..., None] * same_chain,
                restype[None, :, :].expand(n, n, -1),
                restype[:, None, :].expand(n, n, -1),
                unit_vector * same_chain,
                frame_mask[..., None] * same_chain,
            ],
            dim=-1,
        )
        made.append(_Template(n_slot=len(run), projected=embedder.linear_no_bias_a(pair)))
    return made


def embed_templates(network: Network, z: torch.Tensor, templates: Sequence[_Template], n_token: int) -> torch.Tensor:
    """Alg. 16 for all seeds, with one pass for each distinct template -> [N_seed, N_token, N_token, c_z]."""
    embedder = network.module.template_embedder
    stack = network.prepared(PairStack, embedder.pairformer_stack, network.trunk_dtype())
    base = embedder.linear_no_bias_z(embedder.layernorm_z(z[:, :n_token, :n_token]))
    total: Any = 0
    for template in templates:
        v = pad(base + template.projected, network, dims=2).to(network.trunk_dtype())
        stack(network.kernels, v, n_token)
        v = embedder.layernorm_v(v[:, :n_token, :n_token])
        for _ in range(template.n_slot):  # add once for each slot, as upstream does: other float sums round differently
            total += v
    total /= 1e-7 + sum(template.n_slot for template in templates)
    embedded: torch.Tensor = embedder.linear_no_bias_u(embedder.relu(total))
    return embedded


def run_msa(network: Network, inputs: Inputs, z: torch.Tensor, s_inputs: torch.Tensor, rngs: Sequence[SeedRng]) -> None:
    """Alg. 8 for all seeds. Overwrites the padded pair representation ``z`` [N_seed, N, N, c_z]."""
    module = network.module.msa_module
    if module.n_blocks < 1:
        return
    ours = network.prepared(MsaModule, module, network.trunk_dtype())
    single = ours.single(s_inputs)
    rows = [draw_rows(module, inputs, rng) for rng in rngs]
    msa = [ours.embed(inputs, rows[seed], single[seed], z.shape[1]) for seed in range(inputs.n_seed)]
    ours(network.kernels, msa, z, inputs.n_token)
