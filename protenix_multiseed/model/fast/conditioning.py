"""Alg. 21 lines 1-5 and Alg. 5 lines 1-6 and 10 for all entries, in chunks of rows of the pair representation."""

import torch

from protenix_multiseed.kernels.base import row_chunks
from protenix_multiseed.model import inputs as inputs_module
from protenix_multiseed.model.fast.relative_positions import one_hots, places
from protenix_multiseed.model.inputs import Inputs, padded
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.stages import Conditioning, TrunkOutput

_ATOM_FEATURES = (
    *("ref_pos", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars", "atom_to_token_idx"),
    *("d_lm", "v_lm", "pad_info"),
)


def prepare_conditioning(network: Network, inputs: Inputs, trunk: TrunkOutput) -> Conditioning:
    """Upstream's ``prepare_cache`` of the diffusion conditioning and of the atom encoder for all entries."""
    from protenix.model.modules.primitives import broadcast_token_to_local_atom_pair

    width = trunk.z.shape[-1]
    conditioner = network.module.diffusion_module.diffusion_conditioning
    encoder = network.module.diffusion_module.atom_attention_encoder
    pair_cond = torch.empty_like(trunk.z, dtype=torch.float32)
    if not inputs.lengths.are_equal:
        pair_cond.fill_(inputs_module.PADDING)  # memory that nothing was written to may hold NaN
    of_tokens: list[list[torch.Tensor]] = [[] for _ in range(inputs.n_entry)]
    with network.full_precision("sample_diffusion", inputs.parts[0].n_token):
        table = one_hots(conditioner.relpe, network.device)
        for part, span in inputs.spans():
            own = slice(part.n_token)
            for rows in row_chunks(part.n_token, 8 * width, network.kernels.elements):
                relp = table[places(conditioner.relpe, part.shared, rows)]
                for index in range(span.start, span.stop):
                    made = pair_cond[index, rows, own]
                    z = trunk.z[index, rows, own]
                    made.copy_(conditioner.prepare_cache(relp, z.float(), inplace_safe=True))
                    of_tokens[index].append(encoder.linear_no_bias_z(encoder.layernorm_z(made)))
        atom_pairs, atom_singles = [], []
        for index in range(inputs.n_entry):
            features = inputs.of_entry(index)
            atom_pair, atom_single = encoder.prepare_cache(**{name: features[name] for name in _ATOM_FEATURES})
            from_tokens, _ = broadcast_token_to_local_atom_pair(
                torch.cat(of_tokens[index]),
                features["atom_to_token_idx"],
                encoder.n_queries,
                encoder.n_keys,
                compute_mask=False,
            )
            atom_pairs.append(padded(atom_pair + from_tokens, inputs.n_window, 0))
            atom_singles.append(padded(atom_single, inputs.n_atom, 0))
    return Conditioning(pair_cond=pair_cond, atom_pair=torch.stack(atom_pairs), atom_single=torch.stack(atom_singles))
