"""Alg. 1 lines 1-13 for all seeds: embedding, templates, MSA and pairformer with a leading dimension of seeds.

What is batched, and why it is right: every module here acts on each seed's tensors alone, so a leading dimension
changes no answer. What differs between seeds stays theirs: reference conformers, the MC-dropout coin and its masks,
and the MSA rows of each cycle, whose number differs too, so that the MSA itself is run seed by seed and only its pair
stack is batched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.model.seed_stream import SeedStream
from protenix_multiseed.model.stages import Inputs, Network, TrunkOutput

_BROADCAST = ("restype", "profile", "deletion_mean", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars")


def run_trunk(network: Network, inputs: Inputs, streams: Sequence[SeedStream]) -> TrunkOutput:
    """``Protenix.get_pairformer_output`` for all seeds."""
    module = network.module
    has_dropout = [stream.coin(network.configs.mc_dropout_apply_rate) for stream in streams]
    s_inputs = embed_inputs(network, inputs)
    s_init = module.linear_no_bias_sinit(s_inputs)
    z_init = module.linear_no_bias_zinit1(s_init)[..., None, :] + module.linear_no_bias_zinit2(s_init)[..., None, :, :]
    z_init += module.relative_position_encoding(inputs.shared["relp"])
    z_init += module.linear_no_bias_token_bond(inputs.shared["token_bonds"].unsqueeze(-1))
    templates = _distinct_templates(network, inputs)
    z, s = torch.zeros_like(z_init), torch.zeros_like(s_init)
    for _ in range(module.N_cycle):
        update = module.linear_no_bias_z_cycle(module.layernorm_z_cycle(z))
        for index, stream in enumerate(streams):
            if has_dropout[index]:
                update[index] = stream.dropout(update[index], p=network.configs.mc_dropout_rate)
        z = z_init + update
        del update
        if templates:
            z += embed_templates(network, inputs, z, templates)
        z = run_msa(network, inputs, z, s_inputs, streams)
        s = s_init + module.linear_no_bias_s(module.layernorm_s(s))
        s, z = module.pairformer_stack(s, z, pair_mask=None, **_kernels(network, inputs))
    return TrunkOutput(s_inputs=s_inputs, s=s, z=z)


def embed_inputs(network: Network, inputs: Inputs) -> torch.Tensor:
    """Alg. 2 for all seeds: the same atoms, each seed's own conformers -> [N_seed, N_token, 449]."""
    features = dict(inputs.shared)
    for name in _BROADCAST:
        features[name] = features[name].expand(inputs.n_seed, *features[name].shape)
    embedded: torch.Tensor = network.module.input_embedder(
        {**features, "ref_pos": inputs.ref_pos, "d_lm": inputs.d_lm},
        inplace_safe=False,
        chunk_size=network.chunk_size(inputs.n_token),
    )
    return embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """One distinct template: the slots that hold it, and its features' projection [N_token, N_token, c]."""

    slots: tuple[int, ...]
    projected: torch.Tensor


def _distinct_templates(network: Network, inputs: Inputs) -> list[_Template]:
    """Template slots grouped by content. Without templates upstream fills four: one of gaps and three of zeros, all
    empty but for their residue types, so two passes do for four.
    """  # noqa: D205
    embedder = network.module.template_embedder
    features = inputs.shared
    if embedder.n_blocks < 1 or "template_aatype" not in features:
        return []
    names = tuple(
        f"template_{name}" for name in ("aatype", "distogram", "pseudo_beta_mask", "unit_vector", "backbone_frame_mask")
    )
    groups: list[list[int]] = []
    for slot in range(len(features["template_aatype"])):
        for group in groups:
            if all(torch.equal(features[name][slot], features[name][group[0]]) for name in names):
                group.append(slot)
                break
        else:
            groups.append([slot])
    asym_id = features["asym_id"]
    same_chain = (asym_id[:, None] == asym_id[None, :]).float()[..., None]
    made = []
    for group in groups:
        aatype, distogram, beta_mask, unit_vector, frame_mask = (features[name][group[0]] for name in names)
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
        made.append(_Template(slots=tuple(group), projected=embedder.linear_no_bias_a(pair)))
    return made


def embed_templates(network: Network, inputs: Inputs, z: torch.Tensor, templates: Sequence[_Template]) -> torch.Tensor:
    """Alg. 16 for all seeds, one pass per distinct template -> [N_seed, N_token, N_token, c_z]."""
    embedder = network.module.template_embedder
    base = embedder.linear_no_bias_z(embedder.layernorm_z(z))
    by_slot: dict[int, torch.Tensor] = {}
    for template in templates:
        _, v = embedder.pairformer_stack(
            s=None, z=base + template.projected, pair_mask=None, **_kernels(network, inputs)
        )
        by_slot |= dict.fromkeys(template.slots, embedder.layernorm_v(v))
    total: Any = 0
    for slot in sorted(by_slot):  # in upstream's order, as sums of floats depend on it
        total = total + by_slot[slot]
    embedded: torch.Tensor = embedder.linear_no_bias_u(embedder.relu(total / (1e-7 + len(by_slot))))
    return embedded


def run_msa(
    network: Network, inputs: Inputs, z: torch.Tensor, s_inputs: torch.Tensor, streams: Sequence[SeedStream]
) -> torch.Tensor:
    """Alg. 8 for all seeds: each seed's own rows, the pair stack batched; ``z`` is overwritten."""
    module = network.module.msa_module
    if module.n_blocks < 1:
        return z
    kernels = _kernels(network, inputs)
    chunk_size = kernels["chunk_size"]
    rows = [_msa_rows(module, inputs, stream) for stream in streams]
    msa = [module.linear_no_bias_m(one) + module.linear_no_bias_s(s_inputs[index]) for index, one in enumerate(rows)]
    del rows
    for block in module.blocks:
        for index in range(inputs.n_seed):
            z[index] += block.outer_product_mean_msa(msa[index], inplace_safe=True, chunk_size=chunk_size)
            if not block.is_last_block:
                msa[index] = block.msa_stack(msa[index], z[index])
        _, z = block.pair_stack(s=None, z=z, pair_mask=None, **kernels)
    return z


def _msa_rows(module: Any, inputs: Inputs, stream: SeedStream) -> torch.Tensor:
    """One cycle's MSA of one seed: residue types and deletions of the rows drawn [N_row, N_token, 34]."""
    features, settings = inputs.shared, module.msa_configs
    rows = stream.msa_rows(len(features["msa"]), settings["test_cutoff"], settings["test_lowerb"])
    residues = functional.one_hot(features["msa"][rows], 32)
    deletions = [features[name][rows][..., None] for name in ("has_deletion", "deletion_value")]
    return torch.cat([residues, *deletions], dim=-1)


def _kernels(network: Network, inputs: Inputs) -> dict[str, Any]:
    """What upstream's pair modules are told at every call."""
    return {
        "triangle_multiplicative": network.configs.triangle_multiplicative,
        "triangle_attention": network.configs.triangle_attention,
        "inplace_safe": True,
        "chunk_size": network.chunk_size(inputs.n_token),
    }
