"""Alg. 21 lines 1-5 and Alg. 5 lines 1-6 and 10 for all seeds, in chunks of rows of the pair representation."""

import torch

from protenix_multiseed.kernels.base import row_chunks
from protenix_multiseed.model.fast.relative_positions import one_hots, places
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.stages import Conditioning, Inputs, TrunkOutput

_ATOM_FEATURES = (
    *("ref_pos", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars", "atom_to_token_idx"),
    *("d_lm", "v_lm", "pad_info"),
)


def prepare_conditioning(network: Network, inputs: Inputs, trunk: TrunkOutput) -> Conditioning:
    """Upstream's ``prepare_cache`` of the diffusion conditioning and of the atom encoder for all seeds."""
    from protenix.model.modules.primitives import broadcast_token_to_local_atom_pair

    n_seed, n, _, width = trunk.z.shape
    conditioner = network.module.diffusion_module.diffusion_conditioning
    encoder = network.module.diffusion_module.atom_attention_encoder
    pair_cond = torch.empty_like(trunk.z, dtype=torch.float32)
    of_tokens: list[list[torch.Tensor]] = [[] for _ in range(n_seed)]
    with network.full_precision("sample_diffusion", n):
        table = one_hots(conditioner.relpe, network.device)
        for rows in row_chunks(n, 8 * width, network.kernels.elements):
            relp = table[places(conditioner.relpe, inputs.shared, rows)]
            for seed in range(n_seed):
                part = pair_cond[seed, rows]
                part.copy_(conditioner.prepare_cache(relp, trunk.z[seed, rows].float(), inplace_safe=True))
                of_tokens[seed].append(encoder.linear_no_bias_z(encoder.layernorm_z(part)))
        atom_pairs, atom_singles = [], []
        for seed in range(n_seed):
            features = inputs.of_seed(seed)
            atom_pair, atom_single = encoder.prepare_cache(**{name: features[name] for name in _ATOM_FEATURES})
            from_tokens, _ = broadcast_token_to_local_atom_pair(
                torch.cat(of_tokens[seed]),
                features["atom_to_token_idx"],
                encoder.n_queries,
                encoder.n_keys,
                compute_mask=False,
            )
            atom_pairs.append(atom_pair + from_tokens)
            atom_singles.append(atom_single)
    return Conditioning(pair_cond=pair_cond, atom_pair=torch.stack(atom_pairs), atom_single=torch.stack(atom_singles))
