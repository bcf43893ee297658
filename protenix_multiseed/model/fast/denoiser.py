"""Alg. 20 for all seeds and samples at once, with everything that depends on neither noise nor step computed before.

Three things make upstream's step redundant, and are mended here:

- The attention biases of token and atom transformers read pair tensors that no step changes (Alg. 24 line 8): computed
  once per seed.
- The atom transformers are conditioned on ``c_l``, which reads the trunk's single representation and no noise (Alg. 5
  lines 8-9): their adaptive layer norms and gates (Alg. 24-26) are computed once per seed.
- The token transformer is conditioned on the trunk and the noise level, which all samples of a seed share (Alg. 21):
  computed once per (seed, step), not per sample.

Weights that meet the same input are joined into one matrix, and the scale of a layer norm whose output meets only a
matrix is folded into it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.model.stages import Conditioning, Inputs, Network, TrunkOutput

N_QUERY, N_KEY = 32, 128  # Alg. 7: local attention windows
MASKED = -1e10  # upstream's bias outside the sequence
EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """Adaptive layer norm with its conditioning applied (Alg. 26): ``norm(a) * scale + shift``."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __call__(self, a: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.shift, _normalise(a), self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockConditioning:
    """One transformer block's view of its conditioning, broadcastable over samples."""

    attention_norm: _Affine
    key_norm: _Affine | None
    attention_gate: torch.Tensor
    transition_norm: _Affine
    transition_gate: torch.Tensor


class _Block:
    """Alg. 23 lines 2-3: attention with pair bias, then the conditioned transition, with joined weights."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        attention, transition = block.attention_pair_bias, block.conditioned_transition_block
        self.n_heads = attention.n_heads
        self.is_cross = attention.cross_attention_mode
        norms = [attention.layernorm_a, transition.adaln]
        if self.is_cross:
            norms.insert(1, attention.layernorm_kv)
        self._norm_weight = torch.cat(
            [_folded(norm, linear) for norm in norms for linear in (norm.linear_s, norm.linear_nobias_s)]
        )
        self._norm_bias = torch.cat(
            [part for norm in norms for part in (norm.linear_s.bias, torch.zeros_like(norm.linear_s.bias))]
        )
        self._gate_weight = torch.cat([attention.linear_a_last.weight, transition.linear_s.weight])
        self._gate_bias = torch.cat([attention.linear_a_last.bias, transition.linear_s.bias])
        core = attention.attention
        scale = core.c_hidden**-0.5
        self._query_weight = torch.cat([core.linear_q.weight * scale, core.linear_g.weight])
        self._query_bias = torch.cat([core.linear_q.bias * scale, torch.zeros_like(core.linear_q.bias)])
        self._key_weight = torch.cat([core.linear_k.weight, core.linear_v.weight])
        self._out_weight = core.linear_o.weight
        self._expand_weight = torch.cat([transition.linear_nobias_a1.weight, transition.linear_nobias_a2.weight])
        self._contract_weight = transition.linear_nobias_b.weight
        self._bias_weight = attention.linear_nobias_z.weight * attention.layernorm_z.weight
        for name, weight in vars(self).items():
            if isinstance(weight, torch.Tensor):
                setattr(self, name, weight.to(dtype))

    def condition(self, s: torch.Tensor) -> _BlockConditioning:
        """Everything the block reads of its conditioning ``s`` [..., N, c_s]."""
        s = s.to(self._norm_weight.dtype)
        normed = functional.linear(_normalise(s), self._norm_weight, self._norm_bias)
        parts = normed.chunk(6 if self.is_cross else 4, dim=-1)
        norms = [
            _Affine(scale=torch.sigmoid(scale), shift=shift)
            for scale, shift in zip(parts[::2], parts[1::2], strict=True)
        ]
        gates = torch.sigmoid(functional.linear(s, self._gate_weight, self._gate_bias)).chunk(2, dim=-1)
        return _BlockConditioning(
            attention_norm=norms[0],
            key_norm=norms[1] if self.is_cross else None,
            attention_gate=gates[0],
            transition_norm=norms[-1],
            transition_gate=gates[1],
        )

    def pair_bias(self, normed_pair: torch.Tensor) -> torch.Tensor:
        """Alg. 24 line 8 from a normalised pair tensor [..., c_z] -> [..., n_heads]."""
        return functional.linear(normed_pair.to(self._bias_weight.dtype), self._bias_weight)

    def __call__(self, a: torch.Tensor, conditioning: _BlockConditioning, bias: torch.Tensor) -> torch.Tensor:
        """One block on ``a`` [N_seed, N_sample, N, c_a]; attention is local where its keys have a norm of their own."""
        queried = conditioning.attention_norm(a)
        keyed = queried if conditioning.key_norm is None else conditioning.key_norm(queried)
        query, gate = functional.linear(queried, self._query_weight, self._query_bias).chunk(2, dim=-1)
        key, value = functional.linear(keyed, self._key_weight).chunk(2, dim=-1)
        attend = _attend_locally if self.is_cross else _attend
        attended = attend(self._heads(query), self._heads(key), self._heads(value), bias)
        attended = attended.transpose(-2, -3).flatten(-2) * torch.sigmoid(gate)
        a = torch.addcmul(a, functional.linear(attended, self._out_weight), conditioning.attention_gate)
        first, second = functional.linear(conditioning.transition_norm(a), self._expand_weight).chunk(2, dim=-1)
        hidden = functional.linear(functional.silu(first) * second, self._contract_weight)
        return torch.addcmul(a, hidden, conditioning.transition_gate)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.n_heads, -1).transpose(-2, -3)


class Weights:
    """The diffusion module's transformer blocks with joined weights, cast once to the type they compute in."""

    def __init__(self, diffusion: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.token, self.encoder, self.decoder = (
            [_Block(block, dtype) for block in transformer.blocks]
            for transformer in (
                diffusion.diffusion_transformer,
                diffusion.atom_attention_encoder.atom_transformer.diffusion_transformer,
                diffusion.atom_attention_decoder.atom_transformer.diffusion_transformer,
            )
        )


class Denoiser:
    """The denoising network of one batch: a pure function of noisy coordinates and the step's number.

    Built once per batch, it holds every tensor that the steps share. Calling it draws nothing and waits for nothing.

    Args:
        noise_levels: ``t_hat`` of every step [N_step], on the device.
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs,
        trunk: TrunkOutput,
        conditioning: Conditioning,
        noise_levels: torch.Tensor,
    ) -> None:
        diffusion = network.module.diffusion_module
        self._module, self._weights = diffusion, network.joined(Weights)
        self._sigma_data = diffusion.sigma_data
        self._atom_to_token = inputs.shared["atom_to_token_idx"]
        self._atoms_of_token, self._atom_count = _token_atoms(self._atom_to_token, inputs.n_token)
        self._levels = noise_levels
        s_trunk, s_inputs = trunk.s.float(), trunk.s_inputs.float()
        conditioner = diffusion.diffusion_conditioning
        self._single = conditioner.linear_no_bias_s(conditioner.layernorm_s(torch.cat([s_trunk, s_inputs], dim=-1)))
        embedded = conditioner.fourier_embedding(torch.log(noise_levels / self._sigma_data) / 4)
        self._noise = conditioner.linear_no_bias_n(conditioner.layernorm_n(embedded))
        pair = _normalise(conditioning.pair_cond.float())
        self._token_bias = [block.pair_bias(pair).permute(0, 3, 1, 2)[:, None] for block in self._weights.token]
        self._prepare_atoms(diffusion, conditioning, s_trunk)

    def _prepare_atoms(self, diffusion: Any, conditioning: Conditioning, s_trunk: torch.Tensor) -> None:
        """Alg. 5 lines 8-14 without the coordinates, and both atom transformers' biases and conditioning."""
        encoder = diffusion.atom_attention_encoder
        from_trunk = encoder.linear_no_bias_s(encoder.layernorm_s(s_trunk))[:, self._atom_to_token]
        self._atom_single = (conditioning.atom_single + from_trunk)[:, None]  # [N_seed, 1, N_atom, c_atom]
        rectified = torch.relu(self._atom_single[:, 0])
        queries = _windows(encoder.linear_no_bias_cl(rectified), N_QUERY)
        keys = _windows(encoder.linear_no_bias_cm(rectified), N_KEY)
        pair = conditioning.atom_pair + queries[..., :, None, :] + keys[..., None, :, :]
        pair = _normalise(pair + encoder.small_mlp(pair))
        outside = _outside(len(self._atom_to_token), pair.device).to(self._weights.dtype)
        every = [*self._weights.encoder, *self._weights.decoder]
        self._atom_bias = [block.pair_bias(pair).permute(0, 4, 1, 2, 3)[:, None] + outside for block in every]
        self._atom_conditioning = [block.condition(self._atom_single) for block in every]

    def __call__(self, x_noisy: torch.Tensor, step: int) -> torch.Tensor:
        """Denoise ``x_noisy`` [N_seed, N_sample, N_atom, 3] at a step's noise level, Angstrom."""
        diffusion, t_hat = self._module, self._levels[step]
        encoder, decoder, conditioner = (
            diffusion.atom_attention_encoder,
            diffusion.atom_attention_decoder,
            diffusion.diffusion_conditioning,
        )
        r_noisy = x_noisy / torch.sqrt(self._sigma_data**2 + t_hat**2)
        single = self._single + self._noise[step]
        single = single + conditioner.transition_s1(single)
        single = (single + conditioner.transition_s2(single))[:, None]  # [N_seed, 1, N_token, c_s]

        q = (self._atom_single + encoder.linear_no_bias_r(r_noisy)).to(self._weights.dtype)
        for index, block in enumerate(self._weights.encoder):
            q = block(q, self._atom_conditioning[index], self._atom_bias[index])
        a = self._mean_of_atoms(torch.relu(encoder.linear_no_bias_q(q.float())))
        a = (a + diffusion.linear_no_bias_s(diffusion.layernorm_s(single))).to(self._weights.dtype)
        for block, bias in zip(self._weights.token, self._token_bias, strict=True):
            a = block(a, block.condition(single), bias)
        from_tokens = decoder.linear_no_bias_a(diffusion.layernorm_a(a.float()))
        q = q + from_tokens[..., self._atom_to_token, :].to(q.dtype)
        for index, block in enumerate(self._weights.decoder, start=len(self._weights.encoder)):
            q = block(q, self._atom_conditioning[index], self._atom_bias[index])
        r_update = decoder.linear_no_bias_out(decoder.layernorm_q(q.float()))
        ratio = t_hat / self._sigma_data
        x_denoised: torch.Tensor = x_noisy / (1 + ratio**2) + r_update * (t_hat / torch.sqrt(1 + ratio**2))
        return x_denoised

    def _mean_of_atoms(self, q: torch.Tensor) -> torch.Tensor:
        """Mean over each token's atoms, always summed in the same order -> [N_seed, N_sample, N_token, c]."""
        padded = functional.pad(q, (0, 0, 0, 1))  # the last row, of zeros, stands for no atom
        total = padded[:, :, self._atoms_of_token].sum(dim=-2)
        return total / self._atom_count


def _normalise(x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=EPSILON)


def _folded(norm: Any, linear: Any) -> torch.Tensor:
    """A matrix that meets the conditioning's layer norm, with that norm's scale in it."""
    weight: torch.Tensor = linear.weight * norm.layernorm_s.weight
    return weight


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Full attention; the query is scaled already."""
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)


def _attend_locally(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Alg. 7: each window of 32 atoms attends to the 128 around it."""
    n_atom = query.shape[-2]
    attended = functional.scaled_dot_product_attention(
        _windows(query, N_QUERY), _windows(key, N_KEY), _windows(value, N_KEY), attn_mask=bias, scale=1.0
    )
    return attended.flatten(-3, -2)[..., :n_atom, :]


def _windows(x: torch.Tensor, width: int) -> torch.Tensor:
    """Windows of ``width`` atoms around every 32, zeros outside: [..., N_atom, c] -> [..., N_window, width, c]."""
    n_atom = x.shape[-2]
    n_window = -(-n_atom // N_QUERY)
    before = (width - N_QUERY) // 2
    after = n_window * N_QUERY - n_atom + before
    windows: torch.Tensor = functional.pad(x, (0, 0, before, after)).unfold(-2, width, N_QUERY)
    return windows.transpose(-1, -2)


def _outside(n_atom: int, device: torch.device) -> torch.Tensor:
    """Bias that masks what lies outside the sequence [N_window, 32, 128]."""
    inside = torch.ones(n_atom, 1, device=device)
    both = _windows(inside, N_QUERY) * _windows(inside, N_KEY).transpose(-1, -2)
    masked: torch.Tensor = (1 - both) * MASKED
    return masked


def _token_atoms(atom_to_token: torch.Tensor, n_token: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms of each token, padded with N_atom, and their number [N_token, 1]."""
    counts = torch.bincount(atom_to_token, minlength=n_token)
    order = torch.argsort(atom_to_token, stable=True)
    first = torch.cumsum(counts, 0) - counts
    offsets = torch.arange(int(counts.max()), device=atom_to_token.device)
    places = (first[:, None] + offsets).clamp(max=len(atom_to_token) - 1)
    atoms = torch.where(offsets < counts[:, None], order[places], len(atom_to_token))
    return atoms, counts.clamp(min=1)[:, None].float()
