"""Compute the least time that a prediction can take on a GPU.

It is the larger of counted operations over the measured peak FLOP/s, and counted bytes over the measured bandwidth.
"""

import statistics
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from protenix_multiseed.kernels.base import torch_kernels
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.fast.denoiser import Denoiser
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.stages import result_of, run_stages
from protenix_multiseed.types import Batch, Features


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Measure this GPU's peak rates: FLOP/s of a large matrix product by dtype, bytes/s of a large copy (reads + writes)."""
    if device.type != "cuda":
        return {"bf16": 1e11, "tf32": 1e11, "bytes": 1e10}  # placeholders: results on a CPU mean nothing
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32)):
        one, other = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
        found[name] = 2 * 8192**3 / _median_seconds(lambda: one @ other)  # noqa: B023
    source = torch.randn(2**30, device=device)
    target = torch.empty_like(source)
    found["bytes"] = 2 * source.nbytes / _median_seconds(lambda: target.copy_(source))
    return found


def _median_seconds(function: Callable[[], Any]) -> float:
    taken = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken[3:])


def floor(network: Network, features: Features, n_seed: int, ceilings: Mapping[str, float]) -> dict[str, Any]:
    """Compute the least time of each stage from the operations of its matrix products and the bytes that it must move.

    PyTorch counts the operations over one cycle and one step. Bytes: each use of a weight or an attention bias reads it
    once. Each update of a representation reads and writes it once. All other data could stay on the chip.
    """
    module, configs = network.module, network.configs
    counted: dict[str, int] = {}
    plain = replace(network, kernels=torch_kernels(on_gpu=network.device.type == "cuda"))
    n_cycle, n_step = module.N_cycle, configs.sample_diffusion.N_step
    one_seed = replace(features, seeds=features.seeds[:1])

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with FlopCounterMode(display=False) as counter:
                made = function(*args)
                if name in ("run_trunk", "sample"):
                    made = result_of(made)
                made = list(made) if name == "score" else made
            counted[name] = counter.get_total_flops()
            return made

        def steps(*args: Any) -> Generator[Any, None, Any]:
            yield from ()
            return run(*args)

        return steps if name in ("run_trunk", "sample") else run

    stages = {
        name: counting(name, getattr(FAST, name)) for name in ("run_trunk", "prepare_conditioning", "sample", "score")
    }
    step = Denoiser.__call__
    Denoiser.__call__ = counting("step", step)  # type: ignore[method-assign]
    module.N_cycle, configs.sample_diffusion.N_step = 1, 1
    try:
        list(run_stages(replace(FAST, **stages), plain, Batch(parts=(one_seed,), sample_chunk=5)))
    finally:
        Denoiser.__call__ = step  # type: ignore[method-assign]
        module.N_cycle, configs.sample_diffusion.N_step = n_cycle, n_step
        network.graphs.forget()
    flops = {
        "trunk": n_seed * n_cycle * counted["run_trunk"],
        "sample": n_seed * (counted["prepare_conditioning"] + counted["sample"] + (n_step - 1) * counted["step"]),
        "score": n_seed * counted["score"],
    }
    made: dict[str, Any] = {"flops": flops, "bytes": {}, "seconds": {}}
    sampling = "bf16" if network.kernels.half else "tf32"  # float16 has bfloat16's peak rate
    for precision, kinds in (("reference", ("bf16", sampling, "tf32")), ("fast", ("bf16", "bf16", "bf16"))):
        moved = {name: bytes_moved(network, features, n_seed, name, precision) for name in flops}
        made["bytes"][precision] = moved
        made["seconds"][precision] = {
            name: max(flops[name] / ceilings[kind], moved[name] / ceilings["bytes"])
            for name, kind in zip(flops, kinds, strict=True)
        }
    return made


def bytes_moved(network: Network, features: Features, n_seed: int, stage: str, precision: str) -> int:
    """Count the bytes that a stage must move, as :func:`floor` explains.

    The diffusion network is taken in 16 bits, the confidence head's pairs in float32 or, for ``fast``, in bfloat16.
    Logits are float32.
    """
    module, model, n = network.module, network.configs.model, features.n_token
    n_sample = network.configs.sample_diffusion.N_sample
    pair = n * n * module.confidence_head.c_z
    updates = 5 * 2 + 1  # five updates read and write z; the update of s reads z once
    if stage == "trunk":
        n_block = len(module.pairformer_stack.blocks) + len(module.msa_module.blocks)
        of_pair = (
            n_seed * n_block * updates * pair
            + n_seed * 2 * len(module.template_embedder.pairformer_stack.blocks) * 10 * n * n * 64
        )
        of_msa = n_seed * (features.n_msa / 2) * n * model.msa_module.c_m * len(module.msa_module.blocks) * 5
        weights = sum(w.numel() for part in (module.pairformer_stack, module.msa_module) for w in part.parameters())
        return int(2 * module.N_cycle * (of_pair + of_msa + weights))
    if stage == "sample":
        sizes = model.diffusion_module
        windows = -(-features.n_atom // 32) * 32 * 128
        n_atom_block = sizes.atom_encoder.n_blocks + sizes.atom_decoder.n_blocks
        biases = n_seed * (
            sizes.transformer.n_blocks * sizes.transformer.n_heads * n * n
            + n_atom_block * sizes.atom_encoder.n_heads * windows
        )
        tokens = n_seed * n_sample * sizes.transformer.n_blocks * 2 * 2 * n * sizes.c_token
        atoms = n_seed * n_sample * n_atom_block * 2 * 2 * features.n_atom * sizes.c_atom
        weights = sum(w.numel() for w in module.diffusion_module.parameters())
        return int(2 * network.configs.sample_diffusion.N_step * (biases + tokens + atoms + weights))
    n_block = len(module.confidence_head.pairformer_stack.blocks)
    of_pair = (2 if precision == "fast" else 4) * n_block * updates * pair
    return int(n_seed * n_sample * (of_pair + 4 * 2 * n * n * module.confidence_head.b_pae))
