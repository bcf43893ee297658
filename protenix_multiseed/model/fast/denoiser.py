"""Alg. 20 for all entries and samples at once. All that depends on neither noise nor step is computed beforehand.

Upstream repeats three computations in every step. They are done less often here:

- The attention biases of token and atom transformers come from pair tensors that no step changes (Alg. 24 line 8). They
  are computed once per entry.
- The atom transformers are conditioned on ``c_l``, which depends on the trunk's single representation but not on noise
  (Alg. 5 lines 8-9). Projections for their adaptive layer norms and gates (Alg. 24-26) are computed once per entry.
- The token transformer is conditioned on the trunk and the noise level, which all samples of an entry share (Alg. 21).
  This conditioning is computed once per (entry, step), not once per sample.

The blocks and their weights are in :mod:`.diffusion_blocks`.
"""

from typing import Any

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import EPSILON, N_KEY, N_QUERY, chunks, masked
from protenix_multiseed.kernels.ops.local_attention import outside, windows
from protenix_multiseed.kernels.ops.mean_of_atoms import mean_of_atoms
from protenix_multiseed.kernels.ops.norm import norm as layer_norm
from protenix_multiseed.model.fast.atoms import atoms_and_tokens
from protenix_multiseed.model.fast.diffusion_blocks import Weights
from protenix_multiseed.model.inputs import Inputs
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.stages import Conditioning, TrunkOutput


class Denoiser:
    """The denoising network of one batch: a pure function of noisy coordinates and step index.

    It is built once per batch and holds all tensors that the steps share. A call draws no random numbers and does not
    wait for the GPU.

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
        self._module, self._kernels = diffusion, network.kernels
        self._weights = network.prepared(Weights, diffusion, network.factors_of_sampling(inputs.parts[0].n_token))
        self._sigma_data = diffusion.sigma_data
        most_atoms = len(network.module.confidence_head.plddt_weight)  # of a token, in any job
        self._atom_to_token, self._atoms, self._count = atoms_and_tokens(inputs, most_atoms)
        self._levels = noise_levels
        s_trunk, s_inputs = trunk.s.float(), trunk.s_inputs.float()
        conditioner = diffusion.diffusion_conditioning
        self._single = conditioner.linear_no_bias_s(conditioner.layernorm_s(torch.cat([s_trunk, s_inputs], dim=-1)))
        embedded = conditioner.fourier_embedding(torch.log(noise_levels / self._sigma_data) / 4)
        self._noise = conditioner.linear_no_bias_n(conditioner.layernorm_n(embedded))
        self._token_bias = self._token_biases(conditioning.pair_cond, inputs)
        self._prepare_atoms(diffusion, conditioning, s_trunk, inputs)

    def _token_biases(self, pair_cond: torch.Tensor, inputs: Inputs) -> list[torch.Tensor]:
        """Attention biases of each block of the token transformer [N_entry, n_head, N_token, N_token].

        In memory the heads are the outermost dimension, and rows are padded as :func:`.attention.attention` needs it.
        """
        n_seed, n, _, width = pair_cond.shape
        padded = -(-n // self._kernels.key_block) * self._kernels.key_block
        blocks, dtype = self._weights.token, self._weights.dtype
        biases = [pair_cond.new_empty(block.n_head, n_seed, n, padded, dtype=dtype) for block in blocks]
        for bias in biases:
            bias[..., n:] = masked(dtype)
        for seeds, rows in chunks(pair_cond, 2 * width, self._kernels.elements):
            normed = _normalise(pair_cond[seeds, rows].float()).to(dtype)
            for block, bias in zip(blocks, biases, strict=True):
                bias[:, seeds, rows, :n] = block.pair_bias(normed)
        if len(inputs.parts) > 1:
            for bias in biases:
                for part, span in inputs.spans():
                    bias[:, span, :, part.n_token :] = masked(dtype)
        return [bias.transpose(0, 1)[..., :n] for bias in biases]

    def _prepare_atoms(self, diffusion: Any, conditioning: Conditioning, s_trunk: torch.Tensor, inputs: Inputs) -> None:
        """Alg. 5 lines 8-14 without the noisy coordinates; the biases and conditioning of both atom transformers."""
        encoder = diffusion.atom_attention_encoder
        from_trunk = self._to_atoms(encoder.linear_no_bias_s(encoder.layernorm_s(s_trunk))[:, None])
        self._atom_single = conditioning.atom_single[:, None] + from_trunk  # [N_entry, 1, N_atom, c_atom]
        rectified = torch.relu(self._atom_single[:, 0])
        queries = windows(encoder.linear_no_bias_cl(rectified), N_QUERY)
        keys = windows(encoder.linear_no_bias_cm(rectified), N_KEY)
        pair = conditioning.atom_pair + queries[..., :, None, :] + keys[..., None, :, :]
        pair = _normalise(pair + encoder.small_mlp(pair))
        no_atom = torch.stack([outside(part.n_atom, pair.device, inputs.n_window) for part in inputs.owners])[:, None]
        weights = self._weights
        every, mask = [*weights.encoder, *weights.decoder], masked(weights.dtype)
        self._atom_bias = [
            block.pair_bias(pair).transpose(0, 1).masked_fill(no_atom, mask).contiguous() for block in every
        ]
        single, normed = self._atom_single.to(weights.rows), _normalise(self._atom_single).to(weights.dtype)
        self._atom_conditioning = [block.condition(single, normed) for block in every]

    def _to_atoms(self, x: torch.Tensor) -> torch.Tensor:
        """Each token's values for all its atoms: [N_entry, N_sample, N_token, c] -> [N_entry, N_sample, N_atom, c]."""
        n_entry, n_sample, n_token, _ = x.shape
        first = torch.arange(0, n_entry * n_sample * n_token, n_token, device=x.device).view(n_entry, n_sample, 1)
        return x.flatten(0, 2)[first + self._atom_to_token[:, None]]

    def tensors(self) -> list[torch.Tensor]:
        """All tensors of this batch that the steps read, without the weights."""
        conditioning = [part for block in self._atom_conditioning for part in block]
        tokens = [self._levels, self._noise, self._single, self._atom_to_token, self._atoms, self._count]
        return [*tokens, self._atom_single, *self._token_bias, *self._atom_bias, *conditioning]

    def __call__(self, x_noisy: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Denoise coordinates at the noise level of one step -> [N_entry, N_sample, N_atom, 3], Angstrom.

        Args:
            x_noisy: Noisy coordinates [N_entry, N_sample, N_atom, 3], Angstrom.
            step: Index of the step, on the device [1].
        """
        diffusion, weights, kernels = self._module, self._weights, self._kernels
        t_hat, noise = self._levels.index_select(0, step), self._noise.index_select(0, step)
        encoder, decoder, conditioner = (
            diffusion.atom_attention_encoder,
            diffusion.atom_attention_decoder,
            diffusion.diffusion_conditioning,
        )
        r_noisy = x_noisy / torch.sqrt(self._sigma_data**2 + t_hat**2)
        single = self._single + noise
        single = single + conditioner.transition_s1(single)
        single = (single + conditioner.transition_s2(single))[:, None]  # [N_entry, 1, N_token, c_s]

        q = (self._atom_single + encoder.linear_no_bias_r(r_noisy)).to(weights.rows)
        for index, block in enumerate(weights.encoder):
            q = block(kernels, q, self._atom_conditioning[index], self._atom_bias[index])
        a = mean_of_atoms(kernels, functional.linear(q, weights.to_tokens), self._atoms, self._count)
        a = (a + diffusion.linear_no_bias_s(diffusion.layernorm_s(single))).to(weights.rows)
        single, normed = single.to(weights.rows), _normalise(single).to(weights.dtype)
        for block, bias in zip(weights.token, self._token_bias, strict=True):
            a = block(kernels, a, block.condition(single, normed), bias)
        from_tokens = functional.linear(layer_norm(kernels, a, *weights.token_norm), weights.from_tokens)
        q = q + self._to_atoms(from_tokens)
        for index, block in enumerate(weights.decoder, start=len(weights.encoder)):
            q = block(kernels, q, self._atom_conditioning[index], self._atom_bias[index])
        norm = decoder.layernorm_q
        r_update = decoder.linear_no_bias_out(layer_norm(kernels, q.float(), norm.weight, norm.bias))
        ratio = t_hat / self._sigma_data
        x_denoised: torch.Tensor = x_noisy / (1 + ratio**2) + r_update * (t_hat / torch.sqrt(1 + ratio**2))
        return x_denoised


def _normalise(x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=EPSILON)
