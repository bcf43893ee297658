"""Alg. 23-26: blocks of the diffusion transformers, with their weights in the form in which the denoiser uses them.

Weight matrices with the same input are joined into one matrix. If a layer norm is followed only by a matrix, the scale
of the norm is folded into the matrix.

Products in float16
    On a GPU upstream computes products of this network in TF32: factors are rounded to 10 bits of fraction, sums are in
    32 bits. A number in float16 also has 10 bits of fraction. It takes half of the memory, and the matrix units process
    it twice as fast. So factors may be in float16 here. The rows that a block updates stay in float32, and so do sums,
    norms and the softmax.

    Numbers in float16 end at 65,504. The weights of a block say how large its numbers can become, whatever its input
    (:func:`fits_half`). Hidden channels of a transition may become larger, so each is scaled by a power of two.
"""

from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Kernels, can_be_half, product, scale_queries, split_heads
from protenix_multiseed.kernels.ops.attention import attention
from protenix_multiseed.kernels.ops.conditioned_transition import add_conditioned_transition, modulated_norm
from protenix_multiseed.kernels.ops.local_attention import local_attention

LARGEST = 6e4  # of any number in float16, with some room for rounding
LARGEST_BIAS = 1e4  # of an attention bias: far from the bias of a masked key, which is -6e4


class Block:
    """Alg. 23 lines 2-3: attention with pair bias, then the conditioned transition, with joined weights.

    Args:
        block: Upstream's ``DiffusionTransformerBlock``.
        dtype: Dtype of the factors of products. The rows that the block updates are in float32 if it is float16, else
            in the same dtype.
    """

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        module, transition = block.attention_pair_bias, block.conditioned_transition_block
        self.n_head = module.n_heads
        self._is_local = module.cross_attention_mode
        norms = [module.layernorm_a, transition.adaln]
        if self._is_local:
            norms.insert(1, module.layernorm_kv)
        self._norm_weight = torch.cat(
            [_fold_norm_scale(norm, linear) for norm in norms for linear in (norm.linear_s, norm.linear_nobias_s)]
        )
        self._norm_bias = torch.cat(
            [part for norm in norms for part in (norm.linear_s.bias, torch.zeros_like(norm.linear_s.bias))]
        )
        gate_weight = torch.cat([module.linear_a_last.weight, transition.linear_s.weight])
        gate_bias = torch.cat([module.linear_a_last.bias, transition.linear_s.bias])
        core = module.attention
        query_weight, query_bias = (
            scale_queries(part, self.n_head) for part in (core.linear_q.weight, core.linear_q.bias)
        )
        queries, keys = [query_weight, core.linear_g.weight], [core.linear_k.weight, core.linear_v.weight]
        if self._is_local:  # keys have a second norm, so their projection is separate
            self._query_weight, self._key_weight = torch.cat(queries), torch.cat(keys)
        else:
            self._query_weight = torch.cat([*queries, *keys])
        self._query_bias = torch.cat([query_bias, query_bias.new_zeros(len(self._query_weight) - len(query_bias))])
        self._out_weight = core.linear_o.weight
        self._expand_weight = torch.cat([transition.linear_nobias_a1.weight, transition.linear_nobias_a2.weight])
        self._contract_weight = transition.linear_nobias_b.weight
        self._bias_weight = module.linear_nobias_z.weight * module.layernorm_z.weight
        if dtype == torch.float16:
            self._scale_hidden()
        for name, weight in vars(self).items():
            if isinstance(weight, torch.Tensor):
                setattr(self, name, weight.to(dtype))
        self._gate_weight, self._gate_bias = (part.to(rows_of(dtype)) for part in (gate_weight, gate_bias))

    def _scale_hidden(self) -> None:
        """Scale each hidden channel of the transition by a power of two, so that it cannot exceed float16.

        The linear half is scaled, and the matrix after it has the inverse scale. Both are exact.
        """
        first, second = self._largest(self._expand_weight, -1).chunk(2)
        power = torch.exp2(torch.log2(first * second / LARGEST).ceil().clamp(min=0))
        self._expand_weight = self._expand_weight / torch.cat([torch.ones_like(power), power])[:, None]
        self._contract_weight = self._contract_weight * power

    def fits_half(self) -> bool:
        """Whether no number of a block with these weights can exceed the range of float16."""
        self._scale_hidden()
        every = [
            self._norm_weight,
            self._norm_bias,
            *(
                largest(self._shift(norm)) + self._query_weight.shape[1] ** 0.5
                for norm in range(3 if self._is_local else 2)
            ),
            self._largest(self._query_weight, 0) + self._query_bias.abs(),
            *([self._largest(self._key_weight, 1)] if self._is_local else []),
            self._out_weight,
            self._largest(self._expand_weight, -1),
            self._contract_weight,
        ]
        is_small = bool((largest(self._bias_weight) < LARGEST_BIAS).all())
        return is_small and all(bool((part.abs() < LARGEST).all()) for part in every)

    def _shift(self, norm: int) -> torch.Tensor:
        """The matrix [c_a, c_s] that makes the shift of an adaptive layer norm from the standardised conditioning."""
        made: torch.Tensor = torch.split(self._norm_weight, self._query_weight.shape[1])[1::2][norm]
        return made

    def _largest(self, weight: torch.Tensor, norm: int) -> torch.Tensor:
        """The largest magnitude of each channel of ``x weight^T`` [c_out], for any row ``x`` that a norm can make.

        ``x`` is a standardised row times gates below 1, plus the shift, which is a matrix times another standardised
        row. A standardised row of c channels has a norm of at most sqrt(c).
        """
        shift = self._shift(norm)
        made: torch.Tensor = largest(weight) + largest(weight @ shift)
        return made

    def condition(self, s: torch.Tensor, normed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Project the conditioning for this block (Alg. 24-26).

        Args:
            s: Conditioning [..., N, c_s], in the dtype of the rows.
            normed: ``s`` after a layer norm without scale and shift [..., N, c_s], in the dtype of the factors.

        Returns:
            Scale and shift of each adaptive layer norm, then the two gates, before their sigmoids.
        """
        norms = functional.linear(normed, self._norm_weight, self._norm_bias).chunk(6 if self._is_local else 4, dim=-1)
        gates = functional.linear(s, self._gate_weight, self._gate_bias).to(normed.dtype).chunk(2, dim=-1)
        return (*norms, *gates)

    def pair_bias(self, normed_pair: torch.Tensor) -> torch.Tensor:
        """Alg. 24 line 8: attention biases [n_head, ...] from a normalised pair tensor [..., c_z]."""
        flat: torch.Tensor = (
            self._bias_weight @ normed_pair.reshape(-1, normed_pair.shape[-1]).to(self._bias_weight.dtype).t()
        )
        return flat.view(-1, *normed_pair.shape[:-1])

    def __call__(
        self, kernels: Kernels, a: torch.Tensor, conditioning: tuple[torch.Tensor, ...], bias: torch.Tensor
    ) -> torch.Tensor:
        """Run the block on ``a`` [N_entry, N_sample, N, c_a]. Overwrites ``a`` and returns it."""
        *norms, attention_gate, transition_gate = conditioning
        queried = modulated_norm(kernels, a, *norms[:2])
        if self._is_local:
            queries = functional.linear(queried, self._query_weight, self._query_bias)
            keys = functional.linear(modulated_norm(kernels, queried, *norms[2:4]), self._key_weight)
            query, gate, key, value = (part for x in (queries, keys) for part in split_heads(x, 2, self.n_head))
            attended = local_attention(kernels, query, key, value, gate, bias)
        else:
            projected = functional.linear(queried, self._query_weight, self._query_bias)
            query, gate, key, value = split_heads(projected, 4, self.n_head)
            attended = torch.empty_like(query, memory_format=torch.contiguous_format)
            attention(kernels, query, key, value, gate, bias, attended, a.shape[2])
        update = product(attended.flatten(-2), self._out_weight, a.dtype)
        rest = (attention_gate, *norms[-2:], transition_gate)
        return add_conditioned_transition(kernels, a, update, rest, self._expand_weight, self._contract_weight)


class Weights:
    """Weights of the diffusion module's transformer blocks and of the layers between them, cast once.

    Attributes:
        dtype: Dtype of the factors of products.
        rows: Dtype of the rows that the blocks update, and of the layers between them.
    """

    def __init__(self, diffusion: Any, dtype: torch.dtype) -> None:
        self.dtype, self.rows = dtype, rows_of(dtype)
        self.token, self.encoder, self.decoder = (
            [Block(block, dtype) for block in blocks] for blocks in blocks_of(diffusion)
        )
        self.to_tokens = diffusion.atom_attention_encoder.linear_no_bias_q.weight.to(self.rows)
        self.from_tokens = diffusion.atom_attention_decoder.linear_no_bias_a.weight.to(self.rows)
        norm = diffusion.layernorm_a
        self.token_norm = tuple(None if part is None else part.to(self.rows) for part in (norm.weight, norm.bias))


def blocks_of(diffusion: Any) -> tuple[Any, Any, Any]:
    """Upstream's blocks of the transformer of tokens, and of those of the atom encoder and decoder."""
    return (
        diffusion.diffusion_transformer.blocks,
        diffusion.atom_attention_encoder.atom_transformer.diffusion_transformer.blocks,
        diffusion.atom_attention_decoder.atom_transformer.diffusion_transformer.blocks,
    )


def may_be_half(configs: Any) -> bool:
    """Whether factors may be in float16, if the weights fit: upstream takes TF32, and PyTorch has such products."""
    return can_be_half() and bool(configs.enable_tf32)


def fits_half(diffusion: Any) -> bool:
    """Whether factors of the products of all blocks can be in float16: no number can exceed its range."""
    return all(Block(block, torch.float32).fits_half() for blocks in blocks_of(diffusion) for block in blocks)


def largest(weight: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each channel of ``x weight^T`` [c_out], for any standardised row ``x``."""
    made: torch.Tensor = weight.norm(dim=1) * weight.shape[1] ** 0.5
    return made


def rows_of(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the rows that blocks update, for a dtype of the factors."""
    return torch.float32 if dtype == torch.float16 else dtype


def _fold_norm_scale(norm: Any, linear: Any) -> torch.Tensor:
    """The matrix ``linear`` with the scale of the preceding layer norm (of the conditioning) folded in."""
    weight: torch.Tensor = linear.weight * norm.layernorm_s.weight
    return weight
