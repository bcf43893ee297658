"""Alg. 1 lines 1-13 for all entries: embedding, templates, MSA and Pairformer with a leading dimension of entries.

No module here mixes the tensors of different entries, so the leading dimension of entries changes no result. Each entry
keeps its own reference conformers, its own MC-dropout decision and masks, and its own MSA rows in each cycle. The
number of MSA rows differs between entries, so the MSA operations run entry by entry. Only the pair stack of the MSA
module is batched. The input embedding runs job by job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import chunks, row_chunks
from protenix_multiseed.kernels.ops.mean_of_atoms import mean_of_atoms
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.model.cuda_graphs import GraphedLoop
from protenix_multiseed.model.fast.atoms import token_atoms
from protenix_multiseed.model.fast.msa import MsaModule, draw_rows
from protenix_multiseed.model.fast.pairformer import PairformerStack, PairStack, norm_weights, normed, pad
from protenix_multiseed.model.fast.relative_positions import one_hots, places
from protenix_multiseed.model.inputs import Inputs, JobInputs, join_parts
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import StepsDone, TrunkOutput, TrunkSteps

_BROADCAST = ("restype", "profile", "deletion_mean", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars")


def run_trunk(network: Network, inputs: Inputs, rngs: Sequence[SeedRng]) -> TrunkSteps:
    """Upstream's ``Protenix.get_pairformer_output`` for all entries."""
    module, n, dtype = network.module, inputs.n_token, network.trunk_dtype()
    has_dropout = [rng.coin(network.configs.mc_dropout_apply_rate) for rng in rngs]
    s_inputs = join_parts([embed_inputs(network, part) for part in inputs.parts], n, 1)
    s_init = module.linear_no_bias_sinit(s_inputs)
    z_init = module.linear_no_bias_zinit1(s_init)[..., None, :] + module.linear_no_bias_zinit2(s_init)[..., None, :, :]
    encoding = module.relative_position_encoding
    table = encoding(one_hots(encoding, network.device))
    for part, span in inputs.spans():
        own = (span, *2 * (slice(part.n_token),))  # no view that lives on: it would keep the whole tensor
        z_init[own].add_(table[places(encoding, part.shared)])
        z_init[own].add_(module.linear_no_bias_token_bond(part.shared["token_bonds"].unsqueeze(-1)))
    templates = [project_templates(network, part) for part in inputs.parts]
    s, z = (pad(torch.zeros_like(x), network, dims=x.dim() - 2).to(dtype) for x in (s_init, z_init))
    recycling = normed(module.layernorm_z_cycle, module.linear_no_bias_z_cycle, dtype)
    stack = network.prepared(PairformerStack, module.pairformer_stack, dtype)
    is_small = len(z) * z.shape[1] ** 2 <= network.graphs.most_pairs
    lengths = inputs.lengths
    fresh = GraphedLoop(
        partial(stack, network.kernels, s, z, lengths),
        tensors=(s, z, lengths.each),
        fixed=(lengths.most, lengths.are_equal),
        captures=is_small,
    )
    run_stack = network.graphs.take("trunk", fresh)
    s, z, _ = run_stack.tensors
    for cycle in range(module.N_cycle):
        update = torch.empty_like(z)
        for some in chunks(z, 2 * z.shape[-1], network.kernels.elements):
            update[some] = norm_linear(network.kernels, z[some], recycling)
        for index, (part, rng) in enumerate(zip(inputs.owners, rngs, strict=True)):
            if has_dropout[index]:
                place = (index, *2 * (slice(part.n_token),))
                update[place] = rng.dropout(update[place].contiguous(), p=network.configs.mc_dropout_rate)
        torch.add(z_init, update[:, :n, :n], out=z[:, :n, :n])
        del update
        if any(templates):
            add_templates(network, inputs, z[:, :n, :n], templates)
        run_msa(network, inputs, z, s_inputs, rngs)
        s[:, :n] = s_init + module.linear_no_bias_s(module.layernorm_s(s[:, :n]))
        run_stack()
        yield StepsDone("trunk", cycle + 1, module.N_cycle)
    del z_init, templates
    return TrunkOutput(s_inputs=s_inputs, s=s[:, :n].clone(), z=z[:, :n, :n].clone())


def embed_inputs(network: Network, inputs: JobInputs) -> torch.Tensor:
    """Alg. 2 for all seeds of a job -> [N_seed, N_token, 449]. Seeds have their own reference conformers."""
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
        places, count = token_atoms(features["atom_to_token_idx"], inputs.n_token)
        embedded[..., : made.shape[-1]] = mean_of_atoms(network.kernels, made[:, None], places[None], count[None])[:, 0]
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


def project_templates(network: Network, inputs: JobInputs) -> list[_Template]:
    """Project the features of a job's templates. Adjacent slots with equal features become one template.

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
    made = []
    for run in runs:
        template = {name.removeprefix("template_"): features[name][run[0]] for name in names}
        parts = [
            embedder.linear_no_bias_a(_pair_features(template, features["asym_id"], rows))
            for rows in row_chunks(inputs.n_token, embedder.linear_no_bias_a.in_features, network.kernels.elements)
        ]
        made.append(_Template(n_slot=len(run), projected=torch.cat(parts)))
    return made


def _pair_features(template: Mapping[str, torch.Tensor], asym_id: torch.Tensor, rows: slice) -> torch.Tensor:
    """Rows of the pair features of a template that Alg. 16 projects -> [n_row, N_token, 108], on the device."""
    n = len(asym_id)
    same_chain = (asym_id[rows, None] == asym_id).float()[..., None]
    restype = functional.one_hot(template["aatype"], 32).float()
    distogram, beta_mask, unit_vector, frame_mask = (
        template[name][rows].to(asym_id.device)
        for name in ("distogram", "pseudo_beta_mask", "unit_vector", "backbone_frame_mask")
    )
    return torch.cat(
        [
            distogram * same_chain,
            beta_mask[..., None] * same_chain,
            restype.expand(len(same_chain), n, -1),
            restype[rows, None].expand(-1, n, -1),
            unit_vector * same_chain,
            frame_mask[..., None] * same_chain,
        ],
        dim=-1,
    )


def add_templates(network: Network, inputs: Inputs, z: torch.Tensor, templates: Sequence[Sequence[_Template]]) -> None:
    """Alg. 16 for all entries. Adds to ``z`` [N_entry, N, N, c_z].

    Pass number k computes the k-th distinct template of all jobs that have one.

    Args:
        templates: The templates of each part of the batch.
    """
    embedder, dtype = network.module.template_embedder, network.trunk_dtype()
    stack = network.prepared(PairStack, embedder.pairformer_stack, dtype)
    linear = normed(embedder.layernorm_z, embedder.linear_no_bias_z, dtype)
    n_token, width = z.shape[2:]
    parts = list(chunks(z, 2 * width, network.kernels.elements))
    base = z.new_empty(*z.shape[:-1], embedder.c)
    for part in parts:
        base[part] = norm_linear(network.kernels, z[part], linear)
    out_norm = norm_weights(embedder.layernorm_v, dtype)
    total = torch.zeros_like(base, dtype=torch.float32)
    for nth in range(max(map(len, templates))):
        having = [(span, of[nth]) for (_, span), of in zip(inputs.spans(), templates, strict=True) if nth < len(of)]
        sums = []
        for span, template in having:
            own = slice(len(template.projected))
            sums.append(base[span, own, own] + template.projected)
        v = pad(join_parts(sums, n_token, 1, 2), network, dims=2).to(dtype)
        del sums
        stack(network.kernels, v, inputs.lengths.only([span for span, _ in having]))
        made = torch.split(v[:, :n_token, :n_token], [span.stop - span.start for span, _ in having])
        for (span, template), of_job in zip(having, made, strict=True):
            into = total[span]
            for part in chunks(into, 2 * width, network.kernels.elements):
                into[part].add_(layer_norm(network.kernels, of_job[part], *out_norm), alpha=template.n_slot)
        del v, made, of_job  # the next pass makes its own v
    for (_, span), of in zip(inputs.spans(), templates, strict=True):
        total[span] /= 1e-7 + sum(template.n_slot for template in of)
    for part in parts:
        z[part] += embedder.linear_no_bias_u(embedder.relu(total[part]))


def run_msa(network: Network, inputs: Inputs, z: torch.Tensor, s_inputs: torch.Tensor, rngs: Sequence[SeedRng]) -> None:
    """Alg. 8 for all entries. Overwrites the padded pair representation ``z`` [N_entry, N, N, c_z]."""
    module = network.module.msa_module
    if module.n_blocks < 1:
        return
    ours = network.prepared(MsaModule, module, network.trunk_dtype())
    single = ours.single(s_inputs)
    msa = [
        ours.embed(network.kernels, part, draw_rows(module, part, rng), of_entry[: part.n_token], z.shape[1])
        for part, rng, of_entry in zip(inputs.owners, rngs, single, strict=True)
    ]
    ours(network.kernels, msa, z, inputs.lengths)
