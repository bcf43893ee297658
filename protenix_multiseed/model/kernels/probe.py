"""``python -m protenix_multiseed.model.kernels.probe cuda:0``: do the compiled kernels give PyTorch's results here?

Prints a line of JSON for each kind, ``{"triton": "ok"}`` or the reason why not, so that a kind that aborts the process
spares what came before it.
"""

import json
import sys
from collections.abc import Callable, Sequence

import torch

from protenix_multiseed.model.kernels import Kernels, mask_keys, split_heads
from protenix_multiseed.model.kernels.plain import PlainKernels, outside

TOLERANCE = 0.02  # of the norm; bfloat16 rounds to 0.004


def main(device_name: str) -> None:
    """Probe each kind and print what came of it."""
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    for kind, probe in (("triton", probe_triton), ("cuequivariance", probe_cuequivariance)):
        try:
            difference = probe(device)
            outcome = "ok" if difference < TOLERANCE else f"results differ from PyTorch's by {difference:.1e}"
        except Exception as error:
            outcome = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        print(json.dumps({kind: outcome}), flush=True)


def probe_triton(device: torch.device) -> float:
    """The largest relative difference between Triton's kernels and PyTorch's over all operations and both types."""
    from protenix_multiseed.model.kernels.fused import FusedKernels

    return max(
        _difference(run(FusedKernels()), run(PlainKernels()))
        for dtype in (torch.float32, torch.bfloat16)
        for run in operations(device, dtype)
    )


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


def operations(device: torch.device, dtype: torch.dtype) -> list[Callable[[Kernels], torch.Tensor]]:
    """Each operation on random numbers, of sizes at which blocks end within them."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, generator=generator).to(dtype)

    seeds, shared, n, heads, width = 2, 3, 43, 4, 24
    tokens, conditioning = random(seeds, shared, n, 48), random(seeds, 1, n, 4 * 48).chunk(4, dim=-1)
    rows, weight, bias = random(50, 96), random(96), random(96)
    pairs, product = random(seeds, 48, 48, 64), random(32, seeds, 48, 48)
    norm, norm_out, to_channels = (random(64), random(64)), (random(32), random(32)), random(4 * 32, 64)
    wide, expand, contract = random(40, 96), random(2 * 80, 96), random(96, 80)
    joined = random(seeds, shared, n, 4 * heads * width)
    pair_bias = random(heads, seeds, n, n).transpose(0, 1)
    windows = random(seeds, heads, 2, 32, 128) + outside(n, device) * -1e4
    atoms = torch.arange(n, device=device).view(-1, 1)

    def attend(kernels: Kernels, joined: torch.Tensor = joined) -> torch.Tensor:
        query, key, value, gate = split_heads(joined, 4, heads)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        bias = mask_keys(pair_bias, n - 2, kernels.key_block)
        kernels.attention(query, key, value, gate, bias, out, n - 2)
        return out

    def add_triangle(kernels: Kernels) -> torch.Tensor:
        out = pairs.clone()
        kernels.add_triangle(out, product, norm, to_channels[:64], norm_out, to_channels[:, :32][:64].contiguous())
        return out

    def add_transition(kernels: Kernels, x: torch.Tensor = pairs) -> torch.Tensor:
        out, width = x.clone(), x.shape[-1]
        kernels.add_transition(out, (weight[:width], bias[:width]), expand[:, :width].contiguous(), contract[:width])
        return out

    msa, average = random(37, 45, 64), random(8, 45, 37 * 8)
    outer, square = random(7 * 32, 48 * 32), random(64, 32 * 32)

    def add_outer(kernels: Kernels) -> torch.Tensor:
        out = pairs[0, :7].clone()
        kernels.add_outer(out, outer, square, norm[1], 12.5)
        return out

    def add_gated_average(kernels: Kernels) -> torch.Tensor:
        out = msa.clone()
        kernels.add_gated_average(out, average, norm, to_channels[:64], to_channels[64:].t().contiguous())
        return out

    def attend_locally(kernels: Kernels) -> torch.Tensor:
        query, key, value, gate = split_heads(joined, 4, heads)
        return kernels.local_attention(query, key, value, gate, windows)

    return [
        lambda kernels: kernels.norm(rows, weight, bias),
        lambda kernels: kernels.modulated_norm(tokens, conditioning[0], conditioning[1]),
        lambda kernels: kernels.add_modulated(tokens.clone(), tokens, conditioning[2]),
        lambda kernels: kernels.swiglu(rows),
        lambda kernels: kernels.norm_linear(pairs, norm, to_channels),
        lambda kernels: kernels.norm_linear(rows, (weight, bias), wide),
        lambda kernels: kernels.pair_bias(pairs, norm, to_channels[:heads], 45)[..., :45],
        lambda kernels: kernels.pair_bias(pairs, norm, to_channels[:heads], 45, starting=False)[..., :45],
        lambda kernels: kernels.gated_channels(pairs, norm, to_channels, 45),
        add_triangle,
        add_transition,
        add_outer,
        add_gated_average,
        lambda kernels: kernels.head_values(msa, norm, to_channels[:64], 8),
        lambda kernels: add_transition(kernels, rows),
        lambda kernels: kernels.mean_of_atoms(tokens, atoms, torch.ones(n, dtype=torch.int64, device=device)),
        attend,
        lambda kernels: attend(kernels, joined[:, 1:]),  # an even number, of which two may be attended to together
        attend_locally,
    ]


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


if __name__ == "__main__":
    main(sys.argv[1])
