"""``python -m protenix_multiseed.model.kernels.probe cuda:0 triton``: do compiled kernels give PyTorch's results here?

Prints a line of JSON for each kind, ``{"triton": "ok"}`` or the reason why not, so that a kind that aborts the process
spares what came before it.
"""

import contextlib
import json
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from protenix_multiseed.model.kernels import Kernels, Norm, mask_keys, split_heads
from protenix_multiseed.model.kernels.ahead import Run, capability_of, compile_ahead, launches
from protenix_multiseed.model.kernels.plain import PlainKernels, outside

TOLERANCE = 0.02  # of the norm; bfloat16 rounds to 0.004


def main(device_name: str, *kinds: str) -> None:
    """Probe each of these kinds and print what came of it."""
    device = torch.device(device_name)
    if device.type == "cuda":
        if "triton" in kinds and torch.version.hip is None:
            with contextlib.suppress(Exception):  # a help, not a need
                compile_all(device)
        torch.cuda.set_device(device)
    for kind in kinds:
        try:
            difference = {"triton": probe_triton, "cuequivariance": probe_cuequivariance}[kind](device)
            outcome = "ok" if difference < TOLERANCE else f"results differ from PyTorch's by {difference:.1e}"
        except Exception as error:
            outcome = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        print(json.dumps({kind: outcome}), flush=True)


def compile_all(device: torch.device) -> None:
    """Compile what the operations launch; one by one, as they run, it would keep a first run waiting for a minute."""
    from protenix_multiseed.model.kernels.fused import FusedKernels

    torch.set_num_threads(1)
    compile_ahead(launches(FusedKernels(), all_operations(torch.device("cpu"))), capability_of(device))


def probe_triton(device: torch.device) -> float:
    """The largest relative difference between Triton's kernels and PyTorch's over all operations and both types."""
    from protenix_multiseed.model.kernels.fused import FusedKernels

    # So few programs at once that each takes several blocks, which would otherwise take large tensors.
    kernels = FusedKernels(at_once=7)
    return max(_difference(run(kernels), run(PlainKernels())) for run in all_operations(device))


def probe_cuequivariance(device: torch.device) -> float:
    """The relative difference between cuEquivariance's triangle attention and PyTorch's."""
    from cuequivariance_torch.primitives.triangle import triangle_attention

    generator = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(1, 32, 4, 32, 32, device=device, generator=generator, dtype=torch.bfloat16) for _ in range(3)
    )
    bias = torch.randn(1, 1, 4, 32, 32, device=device, generator=generator)
    mask = torch.ones(1, 32, 1, 1, 32, device=device, dtype=torch.bool)
    ours = torch.nn.functional.scaled_dot_product_attention(
        query[0].float(), key[0].float(), value[0].float(), attn_mask=bias[0]
    )
    theirs = triangle_attention(query, key, value, bias, mask=mask, scale=32**-0.5)
    theirs = theirs[0] if isinstance(theirs, Sequence) else theirs
    return _difference(theirs.reshape(ours.shape), ours)


def all_operations(device: torch.device) -> list[Run]:
    """Each operation in both types."""
    return [run for dtype in (torch.bfloat16, torch.float32) for run in operations(device, dtype)]


def operations(device: torch.device, dtype: torch.dtype) -> list[Run]:
    """Each operation on random numbers, at the widths of Protenix's models, so that a run finds its programs compiled.

    Sizes are such that blocks of rows, of queries and of keys end within them, with padding tokens in the trunk.
    """
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, generator=generator).to(dtype)

    def norm_of(width: int) -> Norm:
        return random(width), random(width)

    def matrix(n_out: int, n_in: int) -> torch.Tensor:
        return random(n_out, n_in) / math.sqrt(n_in)

    made: list[Run] = []

    # The trunk: single and pair representation, the latter at the widths of protenix-v2 and of templates too; the MSA.
    n, n_padded, n_row, n_seed = 27, 32, 70, 2
    single, of_single = random(n_seed, n_padded, 384), norm_of(384)
    made.append(lambda kernels: kernels.norm(single, *of_single))
    made.append(_changing(single, "add_transition", of_single, matrix(2 * 1536, 384), matrix(384, 1536)))
    for width in (256, 128, 64):
        hidden = max(width, 128)
        z, of_pair, projection = random(n_seed, n_padded, n_padded, width), norm_of(width), matrix(4 * hidden, width)
        biases, product, of_product = matrix(4, width), random(hidden, n_seed, n_padded, n_padded), norm_of(hidden)
        gate, out = matrix(width, width), matrix(width, hidden)
        average = random(n_seed, n_padded, n_padded, hidden // 32, 32)
        made += [
            _making("norm_linear", z, of_pair, projection),
            _making("gated_channels", z, of_pair, projection, n),
            partial(_biases, z, of_pair, biases, n, True),
            partial(_biases, z, of_pair, biases, n, False),
            _changing(z, "add_triangle", product, of_pair, gate, of_product, out),
            _changing(z, "add_gated_average", average, of_pair, matrix(hidden, width), out),
            _changing(z, "add_transition", of_pair, matrix(8 * width, width), matrix(width, 4 * width)),
        ]
    made.append(partial(_biases, random(n_seed, n_padded, n_padded, 128), norm_of(128), matrix(16, 128), n, True))
    z, of_pair, product = random(n_seed, n_padded, n_padded, 64), norm_of(64), random(64, n_seed, n_padded, n_padded)
    made.append(_changing(z, "add_triangle", product, of_pair, matrix(64, 64), norm_of(64), matrix(64, 64)))
    few = random(7, n_padded, 128)
    made.append(_changing(few, "add_outer", random(7 * 32, n_padded * 32), matrix(128, 32 * 32), random(128), 12.5))
    averaged = random(8, n_padded, n_row, 8).permute(2, 1, 0, 3)
    for width in (64, 128):
        msa, of_msa, values, gates = (
            random(n_row, n_padded, width),
            norm_of(width),
            matrix(64, width),
            matrix(64, width),
        )
        made += [
            _making("norm_linear", msa, of_msa, matrix(32, width)),
            _making("head_values", msa, of_msa, values, 8),
            _changing(msa, "add_gated_average", averaged, of_msa, gates, matrix(width, 64)),
        ]

    # Attention over pairs, which is not gated there, and an odd and an even number of whose rows may be attended to in
    # twos; and over tokens.
    for n_part, shared, length, n_key, n_head, width in (
        (3, 3, 48, 43, 2, 32), (3, 2, 48, 43, 2, 32), (4, 1, 48, 43, 2, 24), (4, 2, 139, 137, 1, 48),
    ):  # fmt: skip
        parts = split_heads(random(n_seed, shared, length, n_part * n_head * width) / 2, n_part, n_head)
        bias = random(n_head, n_seed, length, length).transpose(0, 1)
        made.append(partial(_attend, parts, bias, n_key))
    # Over more than a block of keys, with biases as the kernels themselves make them.
    length = 72
    z, of_pair, biases = random(1, length, length, 64), norm_of(64), matrix(2, 64)
    parts = split_heads(random(1, 2, length, 3 * 2 * 32) / 2, 3, 2)
    made += [partial(_attend_pairs, parts, z, of_pair, biases, length - 7, starting) for starting in (True, False)]

    # The diffusion network: tokens and atoms, whose conditioning is a part of wider rows.
    n, n_sample = 35, 2
    for width, hidden in ((768, 1536), (128, 256)):
        a, update = random(n_seed, n_sample, n, width), random(n_seed, n_sample, n, width)
        norms, of_gates = random(n_seed, 1, n, 4 * width).chunk(4, dim=-1), random(n_seed, 1, n, 2 * width)
        first_gate, last_gate = of_gates.chunk(2, dim=-1)
        rest, both = (first_gate, *norms[2:], last_gate), (matrix(2 * hidden, width), matrix(width, hidden))
        made += [
            _making("modulated_norm", a, *norms[:2]),
            _changing(a, "add_conditioned_transition", update, rest, *both),
        ]
    tokens, scale = random(n_seed, n_sample, n, 768), random(768)
    made.append(lambda kernels: kernels.norm(tokens, scale, None))
    atoms, count = torch.arange(n, device=device).view(-1, 1), torch.ones(n, dtype=torch.int64, device=device)
    made += [_making("mean_of_atoms", random(n_seed, n_sample, n, width), atoms, count) for width in (768, 384)]
    windows = random(n_seed, 4, 2, 32, 128) + outside(n, device) * -1e4
    made.append(partial(_attend_locally, random(n_seed, n_sample, n, 4 * 4 * 32) / 2, windows.to(dtype)))
    return made


def _making(name: str, *arguments: Any) -> Run:
    """An operation that returns what it makes."""

    def run(kernels: Kernels) -> torch.Tensor:
        made: torch.Tensor = getattr(kernels, name)(*arguments)
        return made

    return run


def _changing(x: torch.Tensor, name: str, *arguments: Any) -> Run:
    """An operation that changes its first argument."""

    def run(kernels: Kernels) -> torch.Tensor:
        changed = x.clone()
        getattr(kernels, name)(changed, *arguments)
        return changed

    return run


def _biases(
    z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int, starting: bool, kernels: Kernels
) -> torch.Tensor:
    return kernels.pair_bias(z, norm, weight, n_token, starting=starting)[..., :n_token]


def _attend(parts: list[torch.Tensor], bias: torch.Tensor, n_key: int, kernels: Kernels) -> torch.Tensor:
    return _attend_to(parts, mask_keys(bias, n_key, kernels.key_block), n_key, kernels)


def _attend_pairs(
    parts: list[torch.Tensor],
    z: torch.Tensor,
    norm: Norm,
    weight: torch.Tensor,
    n_key: int,
    starting: bool,
    kernels: Kernels,
) -> torch.Tensor:
    return _attend_to(parts, kernels.pair_bias(z, norm, weight, n_key, starting=starting), n_key, kernels)


def _attend_to(parts: list[torch.Tensor], bias: torch.Tensor, n_key: int, kernels: Kernels) -> torch.Tensor:
    query, key, value, *gates = parts
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    kernels.attention(query, key, value, gates[0] if gates else None, bias, out, n_key)
    return out


def _attend_locally(joined: torch.Tensor, windows: torch.Tensor, kernels: Kernels) -> torch.Tensor:
    query, key, value, gate = split_heads(joined, 4, windows.shape[1])
    return kernels.local_attention(query, key, value, gate, windows)


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative to the norm; endless where a result is not finite, since a maximum would pass over what is no number."""
    difference = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
    return difference if math.isfinite(difference) else math.inf


if __name__ == "__main__":
    main(*sys.argv[1:])
