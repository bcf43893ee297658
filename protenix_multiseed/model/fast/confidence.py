"""Alg. 31 for all samples of an entry at once. Entries are scored one by one, without padding."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from protenix_multiseed.kernels.base import Kernels, Lengths, row_chunks
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.limits import samples_scored_at_once
from protenix_multiseed.model.fast.pairformer import PairformerStack, pad
from protenix_multiseed.model.fast.summary import summarise
from protenix_multiseed.model.inputs import Inputs
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.stages import Scores
from protenix_multiseed.model.stages import TrunkOutput


def score(
    network: Network, inputs: Inputs, trunk: TrunkOutput, coordinates: torch.Tensor, sample_chunk: int
) -> Iterator[dict[str, Any]]:
    """``ConfidenceHead.forward`` and the summary, with batched samples. Yields upstream's dictionary of each entry."""
    for index, part in enumerate(inputs.owners):
        own, features = trunk.of_entry(index, part.n_token), inputs.of_entry(index)
        made = Scores(network, features, own.z, summarise)
        chunk = min(sample_chunk, samples_scored_at_once(part.n_token))
        for some in torch.split(coordinates[index, :, : part.n_atom], chunk):
            made.add(some, confidence_logits(network, features, own, some))
        yield made.raw()


def confidence_logits(
    network: Network, features: Mapping[str, Any], trunk: TrunkOutput, coordinates: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Confidence logits for samples of one entry.

    Args:
        features: Feature dictionary of the entry.
        trunk: Tensors of the entry, without their leading dimension (:meth:`.TrunkOutput.of_entry`).
        coordinates: [N_sample, N_atom, 3], Angstrom.

    Returns:
        Logits of pLDDT, PAE, PDE and resolved, each [N_sample, ...].
    """
    head, n = network.module.confidence_head, len(trunk.s)
    n_sample = len(coordinates)
    dtype = network.dtype_of("confidence_head", n)
    with network.full_precision("confidence_head", n):
        s_inputs = trunk.s_inputs
        s = head.input_strunk_ln(torch.clamp(trunk.s, min=-512, max=512))
        first, second = head.linear_no_bias_s1(s_inputs), head.linear_no_bias_s2(s_inputs)
    with torch.autocast(network.device.type, enabled=False):
        representatives = coordinates[:, features["distogram_rep_atom_mask"].bool()].float()
        distances = torch.cdist(representatives, representatives)
        s = pad(s.expand(n_sample, *s.shape), network, dims=1).to(dtype)
        z = s.new_zeros(n_sample, s.shape[1], s.shape[1], trunk.z.shape[-1])
        lengths = Lengths.of([n] * n_sample, s.device)
        parts = list(row_chunks(n, 4 * n_sample * z.shape[-1], network.kernels.elements))
        for rows in parts:
            z[:, rows, :n] = _embed_distances(head, distances[:, rows]) + (first + second[rows, None] + trunk.z[rows])
        network.prepared(PairformerStack, head.pairformer_stack, dtype)(network.kernels, s, z, lengths)
        s, z = s[:, :n].float(), z[:, :n, :n]
        pae, pde = (z.new_empty(*z.shape[:-1], n_bin, dtype=torch.float32) for n_bin in (head.b_pae, head.b_pde))
        for rows in parts:
            pairs, mirrored = z[:, rows].float(), z[:, :, rows].transpose(1, 2)
            pae[:, rows] = head.linear_no_bias_pae(_normalise(network.kernels, pairs, head.pae_ln))
            pde[:, rows] = head.linear_no_bias_pde(_normalise(network.kernels, pairs + mirrored, head.pde_ln))
        plddt = _atom_logits(head.plddt_ln(s), head.plddt_weight, features)
        resolved = _atom_logits(head.resolved_ln(s), head.resolved_weight, features)
    return plddt, pae, pde, resolved


def _normalise(kernels: Kernels, x: torch.Tensor, norm: Any) -> torch.Tensor:
    return layer_norm(kernels, x, norm.weight, norm.bias)


def _atom_logits(s: torch.Tensor, weight: torch.Tensor, features: Mapping[str, Any]) -> torch.Tensor:
    """Alg. 31 lines 7-8: logits of each atom from ``s`` of its token -> [N_sample, N_atom, n_bin].

    Logits are computed for all atom places of all tokens, then selected for the real atoms. This takes a fraction of
    the memory of one matrix per atom.

    Args:
        s: [N_sample, N_token, c_s].
        weight: One matrix for each place of an atom in its token [n_place, c_s, n_bin].
    """
    n_place, width, n_bin = weight.shape
    every = s @ weight.permute(1, 0, 2).reshape(width, n_place * n_bin)
    return every.view(*s.shape[:-1], n_place, n_bin)[:, features["atom_to_token_idx"], features["atom_to_tokatom_idx"]]


def _embed_distances(head: Any, distance: torch.Tensor) -> torch.Tensor:
    """Alg. 31 line 3 plus upstream's linear term for rows of distances [..., N_token] -> [..., N_token, c_z]."""
    from protenix.model.utils import one_hot

    embedded: torch.Tensor = head.linear_no_bias_d(
        one_hot(x=distance, lower_bins=head.lower_bins, upper_bins=head.upper_bins)
    )
    embedded += head.linear_no_bias_d_wo_onehot(distance[..., None])
    return embedded
