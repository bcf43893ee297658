"""Alg. 17 for all seeds: Pairformer blocks with joined weights, cast once, on a padded pair representation.

Tokens are padded to a multiple of :attr:`Network.padding`, because matrix units want aligned rows. Padding tokens take
part in no sum: triangle products are zero there, and attention masks them.
"""

from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Kernels, Norm, chunks, scale_queries, split_heads
from protenix_multiseed.kernels.ops.attention import attention
from protenix_multiseed.kernels.ops.msa_average import add_gated_average
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.pair_bias import pair_bias
from protenix_multiseed.kernels.ops.transition import add_transition
from protenix_multiseed.kernels.ops.triangle_product import add_triangle, gated_channels
from protenix_multiseed.model.network import Network


class PairBlock:
    """Alg. 17 lines 2-6 on ``z`` [N_seed, N, N, c_z], in place."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self.triangles: list[_TriangleProduct | _TriangleAttention] = [
            _TriangleProduct(block.tri_mul_out, dtype, outgoing=True),
            _TriangleProduct(block.tri_mul_in, dtype, outgoing=False),
            _TriangleAttention(block.tri_att_start, dtype, starting=True),
            _TriangleAttention(block.tri_att_end, dtype, starting=False),
        ]
        self._transition = Transition(block.pair_transition, dtype)

    def __call__(self, kernels: Kernels, z: torch.Tensor, n_token: int) -> None:
        """Update ``z``, of which the first ``n_token`` rows and columns are real."""
        for update in self.triangles:
            update(kernels, z, n_token)
        self._transition(kernels, z)


class SingleBlock:
    """Alg. 17 lines 7-8 on ``s`` [N_seed, N, c_s], in place."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        module = block.attention_pair_bias
        core = module.attention
        self._n_head = module.n_heads
        self._norm, self._pair_norm = (
            norm_weights(module.layernorm_a, dtype),
            norm_weights(module.layernorm_z, dtype),
        )
        self._weight = torch.cat([joined_projections(core, self._n_head), core.linear_g.weight]).to(dtype)
        bias = scale_queries(core.linear_q.bias, self._n_head)
        self._bias = torch.cat([bias, bias.new_zeros(3 * len(bias))]).to(dtype)
        self._pair_weight, self._out = module.linear_nobias_z.weight.to(dtype), core.linear_o.weight.to(dtype)
        self._transition = Transition(block.single_transition, dtype)

    def __call__(self, kernels: Kernels, s: torch.Tensor, z: torch.Tensor, n_token: int) -> None:
        """Update ``s`` from itself and ``z``."""
        projected = functional.linear(layer_norm(kernels, s, *self._norm), self._weight, self._bias)[:, None]
        query, key, value, gate = split_heads(projected, 4, self._n_head)
        bias = pair_bias(kernels, z, self._pair_norm, self._pair_weight, n_token)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        attention(kernels, query, key, value, gate, bias, out, n_token)
        s.view(-1, s.shape[-1]).addmm_(out.view(-1, self._out.shape[1]), self._out.t())
        self._transition(kernels, s)


class PairStack:
    """The pair part of a whole stack (Alg. 8, 16 and 31 have short ones)."""

    def __init__(self, stack: Any, dtype: torch.dtype) -> None:
        self.blocks = [PairBlock(block, dtype) for block in stack.blocks]

    def __call__(self, kernels: Kernels, z: torch.Tensor, n_token: int) -> None:
        """Update ``z``."""
        for block in self.blocks:
            block(kernels, z, n_token)


class PairformerStack:
    """Alg. 17 on ``s`` and ``z``, in place."""

    def __init__(self, stack: Any, dtype: torch.dtype) -> None:
        self._blocks = [(PairBlock(block, dtype), SingleBlock(block, dtype)) for block in stack.blocks]

    def __call__(self, kernels: Kernels, s: torch.Tensor, z: torch.Tensor, n_token: int) -> None:
        """Update ``s`` and ``z``."""
        for pair, single in self._blocks:
            pair(kernels, z, n_token)
            single(kernels, s, z, n_token)


def pad(x: torch.Tensor, network: Network, *, dims: int) -> torch.Tensor:
    """Pad the tokens of ``x``, which are its last ``dims`` dimensions before the channels; always a copy."""
    missing = -x.shape[-2] % network.padding
    return functional.pad(x, (0, 0) + dims * (0, missing)) if missing else x.clone()


class _TriangleProduct:
    """Alg. 12 and 13."""

    def __init__(self, module: Any, dtype: torch.dtype, *, outgoing: bool) -> None:
        self._outgoing = outgoing
        self._norm, self._norm_out = (
            norm_weights(module.layer_norm_in, dtype),
            norm_weights(module.layer_norm_out, dtype),
        )
        parts = (module.linear_a_p, module.linear_b_p, module.linear_a_g, module.linear_b_g)
        self._project = torch.cat([part.weight for part in parts]).to(dtype)
        self._gate, self._out = module.linear_g.weight.to(dtype), module.linear_z.weight.to(dtype)

    def __call__(self, kernels: Kernels, z: torch.Tensor, n_token: int) -> None:
        n_seed, n = z.shape[:2]
        first, second = gated_channels(kernels, z, self._norm, self._project, n_token).view(2, -1, n, n)
        product = torch.bmm(first, second.mT) if self._outgoing else torch.bmm(first.mT, second)
        del first, second
        add_triangle(kernels, z, product.view(-1, n_seed, n, n), self._norm, self._gate, self._norm_out, self._out)


class _TriangleAttention:
    """Alg. 14, and 15 as the same on transposed views."""

    def __init__(self, module: Any, dtype: torch.dtype, *, starting: bool) -> None:
        self._starting = starting
        self._n_head = module.no_heads
        self._norm = norm_weights(module.layer_norm, dtype)
        self._weight = joined_projections(module.mha, self._n_head).to(dtype)
        self._pair_weight = module.linear.weight.to(dtype)
        self._gate, self._out = module.mha.linear_g.weight.to(dtype), module.mha.linear_o.weight.to(dtype)

    def __call__(self, kernels: Kernels, z: torch.Tensor, n_token: int) -> None:
        bias = pair_bias(kernels, z, self._norm, self._pair_weight, n_token, self._starting)
        for seeds, rows in chunks(z, len(self._weight), kernels.pair_elements):
            place = (seeds, rows) if self._starting else (seeds, slice(None), rows)
            projected = norm_linear(kernels, z[place], self._norm, self._weight)
            query, key, value = split_heads(projected, 3, self._n_head)
            out = torch.empty_like(query, memory_format=torch.contiguous_format)
            into = out
            if not self._starting:
                query, key, value, into = (part.transpose(1, 2) for part in (query, key, value, out))
            attention(kernels, query, key, value, None, bias[seeds], into, n_token)
            del query, key, value, into, projected
            add_gated_average(kernels, z[place], out, self._norm, self._gate, self._out)


class Transition:
    """Alg. 11."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self._norm = norm_weights(module.layernorm1, dtype)
        self._expand = torch.cat([module.linear_no_bias_a.weight, module.linear_no_bias_b.weight]).to(dtype)
        self._contract = module.linear_no_bias.weight.to(dtype)

    def __call__(self, kernels: Kernels, x: torch.Tensor) -> None:
        """Update ``x`` [..., c]."""
        add_transition(kernels, x, self._norm, self._expand, self._contract)


def joined_projections(attention: Any, n_head: int) -> torch.Tensor:
    """Projections to scaled queries, keys and values, in one matrix."""
    query = scale_queries(attention.linear_q.weight, n_head)
    return torch.cat([query, attention.linear_k.weight, attention.linear_v.weight])


def norm_weights(module: Any, dtype: torch.dtype) -> Norm:
    """A layer norm's scale and shift."""
    return module.weight.to(dtype), module.bias.to(dtype)
