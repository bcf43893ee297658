"""Alg. 8 for all entries. The MSA operations run entry by entry, because entries have different numbers of MSA rows.

The pair stack is batched over all entries. The tokens of MSA rows are padded like the tokens of the pair
representation. Padding tokens get zero weight.
"""

from typing import Any

import torch

from protenix_multiseed.kernels.base import Kernels, Lengths
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.ops.msa_average import add_gated_average, head_values
from protenix_multiseed.kernels.ops.msa_embedding import Msa, embed_msa
from protenix_multiseed.kernels.ops.norm_linear import norm_linear_parts
from protenix_multiseed.kernels.ops.outer_product import add_outer
from protenix_multiseed.kernels.ops.pair_bias import pair_bias
from protenix_multiseed.model.fast.pairformer import PairBlock, Transition, norm_weights, normed
from protenix_multiseed.model.inputs import JobInputs
from protenix_multiseed.model.rng import SeedRng

_MAX_ROWS = 2048  # more MSA rows are computed in chunks of this size, as in upstream


class MsaModule:
    """Alg. 8 with weights that are joined and cast to ``dtype`` once."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._embed = module.linear_no_bias_m.weight.t().contiguous().to(dtype)
        self._embed_single = module.linear_no_bias_s
        self._outer = [_OuterProductMean(block.outer_product_mean_msa, dtype) for block in module.blocks]
        self._stacks = [None if block.is_last_block else _MsaStack(block.msa_stack, dtype) for block in module.blocks]
        self._pairs = [PairBlock(block.pair_stack, dtype) for block in module.blocks]

    def embed(
        self, kernels: Kernels, inputs: JobInputs, rows: torch.Tensor, single: torch.Tensor, n_padded: int
    ) -> torch.Tensor:
        """Alg. 8 lines 1-4 for the MSA rows of one entry -> [N_row, n_padded, c_m].

        Args:
            inputs: Features of the entry's job.
            rows: Indices of the MSA rows [N_row].
            single: The entry's part of :meth:`single`, without padding [N_token, c_m].
            n_padded: Number of tokens with padding.
        """
        features = Msa(*(inputs.shared[name] for name in ("msa", "has_deletion", "deletion_value")))
        return embed_msa(kernels, features, rows, self._embed, single, n_padded)

    def __call__(self, kernels: Kernels, msa: list[torch.Tensor], z: torch.Tensor, lengths: Lengths) -> None:
        """Alg. 8 lines 5-14. Overwrites ``z`` [N_entry, N, N, c_z] and the ``msa`` of each entry [N_row, N, c_m]."""
        for outer, stack, pairs in zip(self._outer, self._stacks, self._pairs, strict=True):
            for index, m in enumerate(msa):
                outer(kernels, m, z[index])
            if stack is not None:
                weights = stack.weights(kernels, z, lengths)
                for index, m in enumerate(msa):
                    stack(kernels, m, weights[index])
            pairs(kernels, z, lengths)

    def single(self, s_inputs: torch.Tensor) -> torch.Tensor:
        """The projection of ``s_inputs`` that Alg. 8 line 4 adds to every MSA row -> [N_entry, N_token, c_m]."""
        projected: torch.Tensor = self._embed_single(s_inputs).to(self._dtype)
        return projected


def draw_rows(module: Any, inputs: JobInputs, rng: SeedRng) -> torch.Tensor:
    """Draw the indices of the MSA rows that one cycle of one entry reads."""
    settings = module.msa_configs
    return rng.msa_rows(len(inputs.shared["msa"]), settings["test_cutoff"], settings["test_lowerb"])


class _OuterProductMean:
    """Alg. 9: outer product mean."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        weight = torch.cat([module.linear_1.weight, module.linear_2.weight])
        self._factors = NormedLinear(norm_weights(module.layer_norm, dtype), weight.to(dtype))
        self._out, self._bias = module.linear_out.weight.to(dtype), module.linear_out.bias.to(dtype)
        self._eps = module.eps

    def __call__(self, kernels: Kernels, m: torch.Tensor, z: torch.Tensor) -> None:
        n_row, n, _ = m.shape
        first, second = norm_linear_parts(kernels, m, self._factors, 2).flatten(2)
        width = second.shape[1] // n
        # Rounded to the dtype of m, like upstream's sum over a mask of ones.
        count = float(torch.tensor(float(n_row), dtype=m.dtype) + self._eps)
        step = max(1, kernels.elements // (n * width * width))
        for start in range(0, n, step):
            outer = first[:, start * width : (start + step) * width].t() @ second  # [i * c, j * c']
            add_outer(kernels, z[start : start + step], outer, self._out, self._bias, count)


class _MsaStack:
    """Alg. 10 (pair weighted averaging), then the transition of the MSA rows."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        averaging = module.msa_pair_weighted_averaging
        self._n_head = averaging.n_heads
        self._value = normed(averaging.layernorm_m, averaging.linear_no_bias_mv, dtype)
        self._gate = normed(averaging.layernorm_m, averaging.linear_no_bias_mg, dtype)
        self._pair = normed(averaging.layernorm_z, averaging.linear_no_bias_z, dtype)
        self._out = averaging.linear_no_bias_out.weight.to(dtype)
        self._transition = Transition(module.transition_m, dtype)

    def weights(self, kernels: Kernels, z: torch.Tensor, lengths: Lengths) -> torch.Tensor:
        """Alg. 10 line 3: averaging weights of all entries -> [N_entry, n_head, N, N]."""
        bias, _ = pair_bias(kernels, z, self._pair, lengths)
        return torch.softmax(bias.float(), dim=-1).to(z.dtype)

    def __call__(self, kernels: Kernels, m: torch.Tensor, weights: torch.Tensor) -> None:
        """Update ``m`` [N_row, N, c_m] of one entry in place, with its averaging weights [n_head, N, N]."""
        for rows in torch.split(m, _MAX_ROWS):
            values = head_values(kernels, rows, self._value, self._n_head)
            average = torch.bmm(weights, values).view(self._n_head, rows.shape[1], len(rows), -1).permute(2, 1, 0, 3)
            add_gated_average(kernels, rows, average, self._gate, self._out)
            del values, average
            self._transition(kernels, rows)
