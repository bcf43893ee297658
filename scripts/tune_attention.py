"""Time the attention program's tiles on this GPU, at the shapes of the trunk and of the diffusion network.

    python scripts/tune_attention.py

Prints, for every type and width of a head, the tiles by their time over all shapes relative to the best of each, with
the largest difference from PyTorch's result; and cuEquivariance's triangle attention beside ours where it is installed.
"""

import argparse
import itertools
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from triton.testing import do_bench

from protenix_multiseed.model.kernels import fused, split_heads
from protenix_multiseed.model.kernels.plain import PlainKernels

# seeds, what shares a bias, tokens, heads, width of a head, and whether it is an ending node's, which is transposed
TRUNK = [
    (5, 256, 256, 4, 32, False),
    (1, 608, 608, 4, 32, False),
    (1, 608, 608, 4, 32, True),
    (1, 1200, 1200, 4, 32, False),
    (1, 1200, 1200, 4, 32, True),
]
TOKENS = [(5, 5, 245, 16, 48, False), (1, 5, 600, 16, 48, False), (1, 5, 1200, 16, 48, False)]
CASES = {
    (torch.bfloat16, 32): TRUNK,
    (torch.bfloat16, 64): TOKENS,
    (torch.float32, 32): [(1, 608, 608, 4, 32, False), (1, 608, 608, 4, 32, True)],
    (torch.float32, 64): TOKENS[:2],
}
TILES = [
    (pairs, *rest)
    for pairs, rest in itertools.product(
        (False, True),
        [
            (64, 32, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2), (64, 128, 4, 2), (64, 128, 4, 3), (128, 32, 4, 3),
            (128, 64, 4, 2), (128, 32, 8, 3), (128, 64, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2), (64, 32, 4, 2), (128, 32, 8, 2),
        ],
    )
]  # fmt: skip


def make(case: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Query, key, value, gate, bias and the tensor to fill, laid out as the trunk and the denoiser lay them out."""
    n_seed, shared, n, n_head, width, ending = case
    joined = torch.randn(n_seed, shared, n, 4 * n_head * width, device="cuda", dtype=dtype)
    parts = split_heads(joined, 4, n_head)
    bias = torch.randn(n_head, n_seed, n, -(-n // 16) * 16, device="cuda", dtype=dtype).transpose(0, 1)
    out = torch.empty(n_seed, shared, n, n_head, width, device="cuda", dtype=dtype)
    if ending:
        parts, out = [part.transpose(1, 2) for part in parts], out.transpose(1, 2)
    return (*parts, bias, out)


def run(key: tuple[torch.dtype, int], tiles: tuple[int, ...], tensors: tuple[torch.Tensor, ...]) -> None:
    fused._TILES[key] = tiles
    fused.FusedKernels().attention(*tensors, n_key=tensors[0].shape[2] - 3)


def compile_one(work: tuple[tuple[torch.dtype, int], tuple[int, ...]]) -> None:
    key, tiles = work
    _, _, n, n_head, width, _ = CASES[key][0]
    try:
        run(key, tiles, make((1, 2, n, n_head, width, False), key[0]))
    except Exception as error:
        print(f"{key} {tiles}: {str(error).splitlines()[0][:100]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the best tiles of each type and width as JSON")
    parser.add_argument("--processes", type=int, default=12, help="that compile")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_one, [(key, tiles) for key in CASES for tiles in TILES]))
    chosen = {}
    for key, cases in CASES.items():
        taken: dict[tuple[int, ...], list[float]] = {}
        far: dict[tuple[int, ...], float] = {}
        for case in cases:
            tensors = make(case, key[0])
            PlainKernels(on_gpu=True).attention(*tensors, n_key=case[2] - 3)
            wanted = tensors[-1].float().clone()
            for tiles in TILES:
                try:
                    tensors[-1].fill_(torch.nan)
                    run(key, tiles, tensors)
                    difference = float((tensors[-1].float() - wanted).norm() / wanted.norm())
                    far[tiles] = max(far.get(tiles, 0.0), difference)
                    time = do_bench(partial(run, key, tiles, tensors), warmup=5, rep=30, return_mode="median")
                    taken.setdefault(tiles, []).append(time)
                except Exception as error:
                    print(f"{key} {tiles}: {str(error).splitlines()[0][:100]}")
        best = [min(times[place] for times in taken.values() if len(times) > place) for place in range(len(cases))]
        scores = {
            tiles: statistics.geometric_mean(time / least for time, least in zip(times, best, strict=True))
            for tiles, times in taken.items()
            if len(times) == len(cases)
        }
        chosen[str(key)] = min(scores, key=scores.__getitem__)
        for tiles in sorted(scores, key=scores.__getitem__)[:8]:
            times = " ".join(f"{1e3 * time:9.1f} us" for time in taken[tiles])
            print(f"{key} {tiles} {scores[tiles]:.3f} {times}  off by {far[tiles]:.1e}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(chosen))
    beside_cuequivariance()


def beside_cuequivariance() -> None:
    try:
        from cuequivariance_torch.primitives.triangle import triangle_attention
    except ImportError:
        return
    for n_seed, shared, n, n_head, width, _ in TRUNK[::2]:
        shape = (n_seed, shared, n_head, n, width)
        parts = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        bias = torch.randn(n_seed, 1, n_head, n, n, device="cuda")
        time = do_bench(partial(triangle_attention, *parts, bias, scale=width**-0.5))
        print(f"cuEquivariance {shape} {1e3 * time:.1f} us, without gate", flush=True)


if __name__ == "__main__":
    main()
