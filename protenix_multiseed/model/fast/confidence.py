"""Alg. 31 for all samples of a seed at once; the numbers are upstream's own summary of them."""

from typing import Any

import torch

from protenix_multiseed.model.reference_stages import summarise
from protenix_multiseed.model.stages import Inputs, Network, TrunkOutput


def score(
    network: Network, inputs: Inputs, trunk: TrunkOutput, coordinates: torch.Tensor, sample_chunk: int
) -> list[dict[str, Any]]:
    """``ConfidenceHead.forward`` and the summary, samples batched -> upstream's output dictionary of each seed."""
    made = []
    for index in range(inputs.n_seed):
        parts = [
            confidence_logits(network, inputs, trunk, part, index)
            for part in torch.split(coordinates[index], sample_chunk)
        ]
        logits = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        made.append(summarise(network, inputs, trunk, coordinates, index, logits))
    return made


def confidence_logits(
    network: Network, inputs: Inputs, trunk: TrunkOutput, coordinates: torch.Tensor, index: int
) -> tuple[torch.Tensor, ...]:
    """Logits of pLDDT, PAE, PDE and resolved of one seed's samples [N_sample, ...]."""
    head, features = network.module.confidence_head, inputs.of_seed(index)
    with network.full_precision("confidence_head", inputs.n_token):
        s_inputs, s_trunk, z_trunk = trunk.s_inputs[index], trunk.s[index], trunk.z[index]
        s_trunk = head.input_strunk_ln(torch.clamp(s_trunk, min=-512, max=512))
        z = head.linear_no_bias_s1(s_inputs)[..., None, :, :] + head.linear_no_bias_s2(s_inputs)[..., None, :] + z_trunk
        representatives = coordinates[:, features["distogram_rep_atom_mask"].bool()]
        n_sample = len(coordinates)
        plddt, pae, pde, resolved = head.memory_efficient_forward(
            input_feature_dict=features,
            s_trunk=s_trunk.expand(n_sample, *s_trunk.shape),
            z_pair=z.expand(n_sample, *z.shape).clone(),
            pair_mask=None,
            x_pred_rep_coords=representatives,
            triangle_multiplicative=network.configs.triangle_multiplicative,
            triangle_attention=network.configs.triangle_attention,
            inplace_safe=True,
            chunk_size=network.chunk_size(inputs.n_token),
        )
    return plddt, pae, pde, resolved
