"""Alg. 17 for all entries: Pairformer blocks on a padded pair representation. Weights are joined and cast once.

Tokens are padded to a multiple of :attr:`Network.padding`, because matrix units need aligned rows; entries of several
jobs also to the same number. Padding tokens do not affect real tokens: the factors of triangle products are zero at
padding, and attention masks padding.
"""

from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Kernels, Lengths, Norm, chunks, scale_queries, split_heads
from protenix_multiseed.kernels.known import NOTHING, Known, PairBias
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.ops.attention import attention
from protenix_multiseed.kernels.ops.msa_average import add_gated_average
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.pair_bias import biases
from protenix_multiseed.kernels.ops.transition import add_transition
from protenix_multiseed.kernels.ops.triangle_product import add_triangle, gated_channels
from protenix_multiseed.limits import channel_groups
from protenix_multiseed.model.network import Network


class PairBlock:
    """Alg. 17 lines 2-6 on ``z`` [N_seed, N, N, c_z], in place."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self.triangles = (
            _TriangleProduct(block.tri_mul_out, dtype, outgoing=True),
            _TriangleProduct(block.tri_mul_in, dtype, outgoing=False),
            _TriangleAttention(block.tri_att_start, dtype, starting=True),
            _TriangleAttention(block.tri_att_end, dtype, starting=False),
        )
        self._transition = Transition(block.pair_transition, dtype)

    def __call__(
        self,
        kernels: Kernels,
        z: torch.Tensor,
        lengths: Lengths,
        known: Known = NOTHING,
        after: PairBias | None = None,
    ) -> Known:
        """Update ``z``. The first rows and columns of each entry are real tokens, the others are padding.

        Args:
            known: What is known of ``z``.
            after: The attention biases that are read next.

        Returns:
            What is known of ``z`` now.
        """
        outgoing, incoming, starting, ending = self.triangles
        known = outgoing(kernels, z, lengths, known)
        known = incoming(kernels, z, lengths, known, starting.bias(lengths))
        known = starting(kernels, z, lengths, known, ending.bias(lengths))
        ending(kernels, z, lengths, known)
        del known  # frees the biases
        return self._transition(kernels, z, after)


class SingleBlock:
    """Alg. 17 lines 7-8 on ``s`` [N_seed, N, c_s], in place."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        module = block.attention_pair_bias
        core = module.attention
        self._n_head = module.n_heads
        self._norm = norm_weights(module.layernorm_a, dtype)
        self._weight = torch.cat([joined_projections(core, self._n_head), core.linear_g.weight]).to(dtype)
        bias = scale_queries(core.linear_q.bias, self._n_head)
        self._bias = torch.cat([bias, bias.new_zeros(3 * len(bias))]).to(dtype)
        self._pair = normed(module.layernorm_z, module.linear_nobias_z, dtype)
        self._out = core.linear_o.weight.to(dtype)
        self._transition = Transition(block.single_transition, dtype)

    def bias(self, lengths: Lengths) -> PairBias:
        """The biases that this block reads."""
        return PairBias(self._pair, lengths)

    def __call__(self, kernels: Kernels, s: torch.Tensor, z: torch.Tensor, lengths: Lengths, known: Known) -> None:
        """Update ``s`` from ``s`` and ``z`` [N_seed, N, N, c_z], of which something may be known."""
        projected = functional.linear(layer_norm(kernels, s, *self._norm), self._weight, self._bias)[:, None]
        query, key, value, gate = split_heads(projected, 4, self._n_head)
        bias, _ = biases(kernels, z, known, self.bias(lengths))
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        attention(kernels, query, key, value, gate, bias, out, lengths.most)
        s.view(-1, s.shape[-1]).addmm_(out.view(-1, self._out.shape[1]), self._out.t())
        self._transition(kernels, s)


class PairStack:
    """The pair blocks of a stack, without its single blocks. For the template embedder (Alg. 16)."""

    def __init__(self, stack: Any, dtype: torch.dtype) -> None:
        self.blocks = [PairBlock(block, dtype) for block in stack.blocks]

    def __call__(self, kernels: Kernels, z: torch.Tensor, lengths: Lengths) -> None:
        """Update ``z``."""
        for block in self.blocks:
            block(kernels, z, lengths)


class PairformerStack:
    """Alg. 17 on ``s`` and ``z``, in place."""

    def __init__(self, stack: Any, dtype: torch.dtype) -> None:
        self._blocks = [(PairBlock(block, dtype), SingleBlock(block, dtype)) for block in stack.blocks]

    def __call__(self, kernels: Kernels, s: torch.Tensor, z: torch.Tensor, lengths: Lengths) -> None:
        """Update ``s`` and ``z``."""
        known = NOTHING
        for pair, single in self._blocks:
            known = pair(kernels, z, lengths, known, single.bias(lengths))
            single(kernels, s, z, lengths, known)
            known = Known(known.rstd)  # frees the biases


def pad(x: torch.Tensor, network: Network, *, dims: int) -> torch.Tensor:
    """Pad the tokens of ``x`` with zeros to a multiple of ``network.padding``. The result is always a copy.

    Args:
        x: [..., N_token, c] or [..., N_token, N_token, c].
        dims: Number of token dimensions before the channels: 1 or 2.
    """
    missing = -x.shape[-2] % network.padding
    return functional.pad(x, (0, 0) + dims * (0, missing)) if missing else x.clone()


class _TriangleProduct:
    """Alg. 12 (outgoing edges) and Alg. 13 (incoming edges)."""

    def __init__(self, module: Any, dtype: torch.dtype, *, outgoing: bool) -> None:
        self._outgoing = outgoing
        parts = (module.linear_a_p, module.linear_b_p, module.linear_a_g, module.linear_b_g)
        self._n_channel = len(parts[0].weight)
        self._gate = normed(module.layer_norm_in, module.linear_g, dtype)
        self._project = NormedLinear(self._gate.norm, torch.cat([part.weight for part in parts]).to(dtype))
        self._out = normed(module.layer_norm_out, module.linear_z, dtype)

    def __call__(
        self,
        kernels: Kernels,
        z: torch.Tensor,
        lengths: Lengths,
        known: Known = NOTHING,
        after: PairBias | None = None,
    ) -> Known:
        """For the arguments see :meth:`PairBlock.__call__`."""
        (n_seed, n), rstd = z.shape[:2], known.rstd
        n_group = channel_groups(n_seed * n * n, self._n_channel, kernels.factor_elements)
        if n_group == 1:
            product, rstd = self._multiply(kernels, z, self._project, lengths, rstd)
        else:
            product = z.new_empty(self._n_channel * n_seed, n, n)
            n_some = self._n_channel // n_group
            for index, into in enumerate(product.chunk(n_group)):
                some = self._project.part(4, slice(index * n_some, (index + 1) * n_some))
                _, rstd = self._multiply(kernels, z, some, lengths, rstd, into)
        product = product.view(-1, n_seed, n, n)
        return add_triangle(kernels, z, product, self._gate, self._out, rstd, after) or NOTHING

    def _multiply(
        self,
        kernels: Kernels,
        z: torch.Tensor,
        linear: NormedLinear,
        lengths: Lengths,
        rstd: torch.Tensor | None,
        out: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The product [C * N_seed, N, N] for the C channels that ``linear`` projects to.

        Also the reciprocal standard deviations of ``z``, if they are known now.
        """
        factors, rstd = gated_channels(kernels, z, linear, lengths, rstd)
        first, second = factors.view(2, -1, *factors.shape[-2:])
        return torch.bmm(*((first, second.mT) if self._outgoing else (first.mT, second)), out=out), rstd


class _TriangleAttention:
    """Alg. 14 (starting node), and Alg. 15 (ending node) as Alg. 14 on transposed views."""

    def __init__(self, module: Any, dtype: torch.dtype, *, starting: bool) -> None:
        self._starting = starting
        self._n_head = module.no_heads
        norm = norm_weights(module.layer_norm, dtype)
        self._project = NormedLinear(norm, joined_projections(module.mha, self._n_head).to(dtype))
        self._pair, self._gate = (
            normed(module.layer_norm, part, dtype) for part in (module.linear, module.mha.linear_g)
        )
        self._out = module.mha.linear_o.weight.to(dtype)

    def bias(self, lengths: Lengths) -> PairBias:
        """The biases that this update reads."""
        return PairBias(self._pair, lengths, self._starting)

    def __call__(
        self,
        kernels: Kernels,
        z: torch.Tensor,
        lengths: Lengths,
        known: Known = NOTHING,
        after: PairBias | None = None,
    ) -> Known:
        """For the arguments see :meth:`PairBlock.__call__`."""
        bias, rstds = biases(kernels, z, known, self.bias(lengths))
        found = []
        for seeds, rows in chunks(z, len(self._project), kernels.pair_elements):
            index = (seeds, rows) if self._starting else (seeds, slice(None), rows)
            part = z[index]
            is_whole = part.shape[1:] == z.shape[1:]  # not some rows or columns of an entry
            rstd = None if rstds is None else rstds[index].contiguous()
            x = part.contiguous()  # a copy of some columns: the kernels of rows need contiguous rows
            projected = norm_linear(kernels, x, self._project, rstd)
            query, key, value = split_heads(projected, 3, self._n_head)
            out = torch.empty_like(query, memory_format=torch.contiguous_format)
            into = out
            if not self._starting:
                query, key, value, into = (part.transpose(1, 2) for part in (query, key, value, out))
            attention(kernels, query, key, value, None, bias[seeds], into, lengths.most)
            del query, key, value, into, projected
            asked = after.only(seeds) if after and is_whole else None
            made = add_gated_average(kernels, x, out, self._gate, self._out, rstd, asked)
            found.append(made if made and is_whole else NOTHING)
            if not part.is_contiguous():
                part.copy_(x)
        return Known.joined(found) if after else NOTHING


class Transition:
    """Alg. 11: SwiGLU transition."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self._norm = norm_weights(module.layernorm1, dtype)
        self._expand = torch.cat([module.linear_no_bias_a.weight, module.linear_no_bias_b.weight]).to(dtype)
        self._contract = module.linear_no_bias.weight.to(dtype)

    def __call__(self, kernels: Kernels, x: torch.Tensor, after: PairBias | None = None) -> Known:
        """Update ``x`` [..., c] in place. Returns what is known of ``x`` now.

        Args:
            after: The attention biases that are read next. ``x`` is then [N_seed, N, N, c_z].
        """
        return add_transition(kernels, x, self._norm, self._expand, self._contract, after) or NOTHING


def joined_projections(attention: Any, n_head: int) -> torch.Tensor:
    """Join the projections to scaled queries, keys and values into one matrix."""
    query = scale_queries(attention.linear_q.weight, n_head)
    return torch.cat([query, attention.linear_k.weight, attention.linear_v.weight])


def normed(norm: Any, linear: Any, dtype: torch.dtype) -> NormedLinear:
    """A layer norm and the weight of the linear layer after it, cast to ``dtype``."""
    return NormedLinear(norm_weights(norm, dtype), linear.weight.to(dtype))


def norm_weights(module: Any, dtype: torch.dtype) -> Norm:
    """Scale and shift of a layer norm, cast to ``dtype``."""
    return module.weight.to(dtype), module.bias.to(dtype)
