"""Alg. 17 for all seeds: Pairformer blocks with joined weights, cast once, on a padded pair representation.

The number of tokens is padded to a multiple of :attr:`Network.padding`, because matrix units want aligned rows. Padding
tokens take part in no sum: triangle products are zeroed there and attention does not look there.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.model.kernels import Kernels, split_heads
from protenix_multiseed.model.stages import Network


class PairBlock:
    """Alg. 17 lines 2-6 on ``z`` [N_seed, N, N, c_z], in place."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self._steps: list[_TriangleProduct | _TriangleAttention] = [
            _TriangleProduct(block.tri_mul_out, dtype, outgoing=True),
            _TriangleProduct(block.tri_mul_in, dtype, outgoing=False),
            _TriangleAttention(block.tri_att_start, dtype, starting=True),
            _TriangleAttention(block.tri_att_end, dtype, starting=False),
        ]
        self._transition = Transition(block.pair_transition, dtype)

    def __call__(self, kernels: Kernels, z: torch.Tensor, n_token: int) -> None:
        """Update ``z``, of which the first ``n_token`` rows and columns are real."""
        for step in self._steps:
            step(kernels, z, n_token)
        self._transition(kernels, z)


class SingleBlock:
    """Alg. 17 lines 7-8 on ``s`` [N_seed, N, c_s], in place."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        attention = block.attention_pair_bias
        core = attention.attention
        self._n_head = attention.n_heads
        self._norm, self._pair_norm = (
            norm_weights(attention.layernorm_a, dtype),
            norm_weights(attention.layernorm_z, dtype),
        )
        parts = (core.linear_q, core.linear_k, core.linear_v, core.linear_g)
        self._weight = torch.cat([part.weight for part in parts]).to(dtype)
        self._bias = torch.cat([core.linear_q.bias, core.linear_q.bias.new_zeros(3 * len(core.linear_q.bias))]).to(
            dtype
        )
        self._pair_weight, self._out = attention.linear_nobias_z.weight.to(dtype), core.linear_o.weight.to(dtype)
        self._transition = Transition(block.single_transition, dtype)

    def __call__(self, kernels: Kernels, s: torch.Tensor, z: torch.Tensor, n_token: int) -> None:
        """Update ``s`` from itself and ``z``."""
        projected = functional.linear(kernels.norm(s, *self._norm), self._weight, self._bias)[:, None]
        query, key, value, gate = split_heads(projected, 4, self._n_head)
        bias = pair_bias(kernels.norm(z, *self._pair_norm), self._pair_weight)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        kernels.attention(query, key, value, gate, bias, out, n_token)
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
    """Fill up the tokens of ``x``, which are its last ``dims`` dimensions before the channels, in memory of its own."""
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
        n_seed, n, _, width = z.shape
        x = kernels.norm(z, *self._norm)
        gated = z.new_empty(len(self._project) // 2, n_seed, n, n)
        for seeds, rows in pieces(z, len(self._project), kernels.pair_elements):
            part = x[seeds, rows]
            projected = (self._project @ part.reshape(-1, width).t()).view(-1, *part.shape[:-1])
            gated[:, seeds, rows] = kernels.gated_channels(projected, n_token, rows.start or 0)
            del projected
        first, second = gated.view(2, -1, n, n)
        product = torch.bmm(first, second.mT) if self._outgoing else torch.bmm(first.mT, second)
        del gated, first, second
        product = product.view(-1, n_seed, n, n)
        for seeds, rows in pieces(z, 3 * len(product), kernels.pair_elements):
            normed = kernels.norm_channels(product[:, seeds, rows], *self._norm_out)
            update, gate = functional.linear(normed, self._out), functional.linear(x[seeds, rows], self._gate)
            kernels.add_gated(z[seeds, rows], update, gate)


class _TriangleAttention:
    """Alg. 14, and 15 as the same on transposed views."""

    def __init__(self, module: Any, dtype: torch.dtype, *, starting: bool) -> None:
        self._starting = starting
        self._n_head = module.no_heads
        self._norm = norm_weights(module.layer_norm, dtype)
        core = module.mha
        parts = (core.linear_q, core.linear_k, core.linear_v, core.linear_g)
        self._weight = torch.cat([part.weight for part in parts]).to(dtype)
        self._pair_weight, self._out = module.linear.weight.to(dtype), core.linear_o.weight.to(dtype)

    def __call__(self, kernels: Kernels, z: torch.Tensor, n_token: int) -> None:
        x = kernels.norm(z, *self._norm)
        bias = pair_bias(x, self._pair_weight)
        if not self._starting:
            bias = bias.mT.contiguous()
        for seeds, rows in pieces(z, len(self._weight), kernels.pair_elements):
            place = (seeds, rows) if self._starting else (seeds, slice(None), rows)
            part = x[place].contiguous()
            projected = functional.linear(part, self._weight)
            out = projected.new_empty(*projected.shape[:-1], self._n_head, projected.shape[-1] // (4 * self._n_head))
            query, key, value, gate, into = (*split_heads(projected, 4, self._n_head), out)
            if not self._starting:
                query, key, value, gate, into = (part.transpose(1, 2) for part in (query, key, value, gate, into))
            kernels.attention(query, key, value, gate, bias[seeds], into, n_token)
            del part, query, key, value, gate, projected
            add_product(z[place], out.flatten(-2), self._out)


class Transition:
    """Alg. 11, in chunks of rows where its hidden rows would fill the memory."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self._norm = norm_weights(module.layernorm1, dtype)
        self._expand = torch.cat([module.linear_no_bias_a.weight, module.linear_no_bias_b.weight]).to(dtype)
        self._contract = module.linear_no_bias.weight.to(dtype)

    def __call__(self, kernels: Kernels, x: torch.Tensor) -> None:
        """Update ``x`` [..., c]."""
        for rows in torch.split(x.view(-1, x.shape[-1]), max(1, kernels.elements // len(self._expand))):
            hidden = kernels.swiglu(functional.linear(kernels.norm(rows, *self._norm), self._expand))
            rows.addmm_(hidden, self._contract.t())


def pieces(z: torch.Tensor, width: int, elements: int | None) -> Iterator[tuple[slice, slice]]:
    """Seeds and rows of ``z`` [N_seed, N, N, c] to take at once so that ``width`` channels make ``elements`` or fewer.

    All of them if they fit or ``elements`` is None, else rows of one seed at a time.
    """
    n_seed, n = z.shape[:2]
    if elements is None or n_seed * n * n * width <= elements:
        yield slice(None), slice(None)
        return
    step = max(1, elements // (n * width))
    for seed in range(n_seed):
        for start in range(0, n, step):
            yield slice(seed, seed + 1), slice(start, start + step)


def add_product(z: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """``z += x weight^T``."""
    if z.is_contiguous():
        z.view(-1, z.shape[-1]).addmm_(x.view(-1, x.shape[-1]), weight.t())
    else:
        z += functional.linear(x, weight)


def norm_weights(module: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer norm's scale and shift."""
    return module.weight.to(dtype), module.bias.to(dtype)


def pair_bias(normed: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Alg. 14 line 3: [N_seed, N, N, c_z] -> [N_seed, n_head, N, N], the heads foremost in memory."""
    n_seed, n = normed.shape[:2]
    return (weight @ normed.view(-1, normed.shape[-1]).t()).view(-1, n_seed, n, n).transpose(0, 1)
