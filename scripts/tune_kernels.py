"""Time candidate tiles of the Triton kernels on this GPU, at the shapes of the trunk and of the diffusion network.

    python scripts/tune_kernels.py --only attention,add_transition

For every kernel and dtype, the script prints the six best tiles. Tiles are ranked by their time relative to the fastest,
as geometric mean over all shapes. It also prints the largest relative difference from PyTorch's result, and the time of
cuEquivariance's triangle attention if that package is installed.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from triton.testing import do_bench

from protenix_multiseed.kernels.base import (
    Kernels,
    Lengths,
    Tiles,
    TileTable,
    mask_keys,
    split_heads,
    torch_kernels,
    triton_kernels,
)
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.kernels.ops import (
    attention,
    conditioned_transition,
    msa_average,
    norm_linear,
    outer_product,
    pair_bias,
    transition,
    triangle_product,
)
from protenix_multiseed.limits import KEY_BLOCK

Case = tuple[Any, ...]
Run = Callable[[Kernels], torch.Tensor]

# Candidates for AttentionTiles: pairs, queries, keys, warps, stages, registers.
_ATTENTION = {
    torch.bfloat16: [
        (True, 64, 32, 4, 3, None), (True, 64, 32, 4, 3, 96), (True, 64, 32, 4, 2, 96), (True, 64, 32, 4, 2, None),
        (True, 64, 64, 4, 2, 128), (True, 64, 64, 4, 2, 168), (False, 64, 32, 4, 2, None), (False, 64, 32, 4, 3, 96), (False, 64, 32, 4, 4, 80),
        (False, 64, 64, 4, 2, 96), (False, 64, 64, 4, 2, 128), (False, 64, 64, 4, 3, None), (False, 64, 64, 4, 3, 128),
    ],
    torch.float32: [
        (True, 64, 32, 4, 3, 168), (True, 64, 32, 4, 2, 128), (True, 128, 32, 8, 3, 128), (True, 128, 32, 8, 2, 128),
        (False, 64, 32, 4, 3, 128), (False, 64, 32, 4, 2, 168), (False, 64, 32, 4, 2, 128), (False, 64, 32, 4, 2, 96),
        (False, 64, 64, 4, 2, None), (False, 128, 32, 8, 2, 128), (False, 128, 32, 8, 3, 128),
    ],
}  # fmt: skip
# Candidates for Tiles: rows, columns, warps, stages, registers. _ROWS is for bfloat16, _WIDE_ROWS for float32.
_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "add_transition": [
        (64, 64, 4, 2, None), (64, 32, 4, 2, 168), (128, 32, 8, 2, None), (128, 32, 8, 2, 128), (128, 32, 8, 3, 128),
        (128, 16, 8, 3, 128), (256, 32, 8, 2, None), (256, 32, 16, 2, None), (256, 32, 16, 3, 128),
    ],
    "gated_channels": [
        (128, 64, 8, 2, None), (64, 32, 4, 2, None), (128, 32, 8, 2, None), (128, 32, 8, 2, 80), (128, 32, 4, 2, None),
        (256, 32, 8, 2, None), (256, 32, 8, 2, 128), (256, 32, 16, 2, None), (256, 32, 16, 3, None),
    ],
    "add_triangle": [
        (64, 128, 4, 1, None), (64, 128, 4, 2, None), (64, 128, 8, 2, None), (64, 128, 8, 2, 128), (128, 128, 8, 2, None),
        (32, 128, 4, 2, None), (32, 128, 4, 3, 168), (32, 128, 4, 1, None), (32, 128, 4, 2, 128),
    ],
    "norm_linear": [
        (64, 64, 4, 2, None), (64, 64, 4, 3, None), (64, 64, 8, 2, None), (64, 128, 8, 2, None), (128, 64, 8, 2, None),
        (128, 64, 8, 3, None), (128, 128, 8, 2, None), (128, 32, 8, 3, None), (64, 32, 4, 3, None),
    ],
    "pair_bias": [
        (128, 16, 8, 2, None), (64, 16, 4, 2, None), (128, 16, 4, 2, None), (64, 16, 8, 2, None), (32, 16, 4, 2, None),
    ],
    "add_outer": [(128, 0, 8, 3, None), (128, 0, 4, 3, None), (64, 0, 4, 3, None), (64, 0, 4, 5, None), (128, 0, 8, 5, None)],
    "head_values": [(128, 64, 8, 2, None), (64, 64, 4, 2, None), (64, 64, 4, 3, None), (64, 32, 4, 3, None)],
    "add_gated_average": [
        (128, 64, 8, 2, None), (128, 64, 8, 3, None), (64, 64, 4, 2, None), (64, 64, 4, 3, None), (64, 32, 4, 3, None),
    ],
}  # fmt: skip
_WIDE_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "add_transition": [(128, 32, 8, 2, None), (64, 32, 4, 2, None), (64, 16, 4, 2, None), (64, 16, 4, 3, None), (128, 16, 8, 2, None)],
    "gated_channels": [(128, 64, 8, 2, None), (64, 32, 4, 2, None), (64, 32, 8, 2, None), (128, 32, 8, 2, None)],
    "add_triangle": [
        (64, 128, 8, 1, None), (64, 128, 8, 2, None), (32, 128, 8, 2, None), (32, 128, 4, 2, None), (32, 128, 4, 1, None),
    ],
    "norm_linear": [(128, 64, 8, 3, None), (64, 64, 4, 2, None), (64, 64, 8, 2, None), (64, 32, 4, 3, None)],
}  # fmt: skip
# Candidates for add_gated_average over pairs, by dtype and number of channels.
_GATED_PAIRS = {
    (torch.bfloat16, 128): [
        (64, 64, 4, 2, None), (64, 64, 4, 1, None), (64, 64, 4, 3, None), (64, 32, 4, 2, None), (64, 32, 4, 3, None),
        (64, 128, 4, 1, None), (32, 64, 4, 2, None), (32, 64, 4, 1, None), (32, 128, 4, 1, None), (128, 32, 8, 2, None),
        (128, 64, 8, 2, None), (128, 64, 8, 1, None), (128, 32, 8, 3, 128), (128, 128, 8, 1, None),
    ],
    (torch.bfloat16, 256): [
        (64, 32, 8, 2, None), (32, 64, 8, 1, None), (64, 64, 8, 1, None), (32, 32, 4, 2, None), (64, 64, 8, 2, None),
    ],
    (torch.float32, 128): [
        (32, 32, 4, 1, None), (32, 32, 4, 2, None), (64, 32, 8, 1, None), (64, 32, 4, 1, None), (32, 64, 4, 1, None),
    ],
}  # fmt: skip
_ATOM_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "add_conditioned_transition": [
        (64, 16, 4, 2, None), (64, 16, 4, 3, None), (64, 32, 4, 2, None), (64, 32, 4, 2, 168), (64, 32, 8, 2, None),
        (128, 16, 8, 2, None), (128, 32, 8, 2, None), (128, 32, 8, 2, 128), (64, 64, 4, 2, None),
    ],
}  # fmt: skip
# seeds, rows that share a bias, tokens, heads, channels of a head, whether it is the ending node (transposed)
_TRUNK = [
    (5, 256, 256, 4, 32, False),
    (1, 608, 608, 4, 32, False),
    (1, 608, 608, 4, 32, True),
    (1, 1200, 1200, 4, 32, False),
    (1, 1200, 1200, 4, 32, True),
]
_TOKENS = [(5, 5, 245, 16, 48, False), (1, 5, 600, 16, 48, False), (1, 5, 1200, 16, 48, False)]
_PAIRS = [(5, 256), (1, 608), (1, 1200)]  # seeds, tokens
_MSA = [(350, 256), (2048, 608)]  # rows, tokens
_ATOMS = [(5, 2100), (1, 5222), (5, 5222)]  # seeds, atoms


# Operation name -> its table of tiles and its function.
TABLES: dict[str, tuple[TileTable, Any]] = {
    "add_transition": (transition.TILES, transition.add_transition),
    "gated_channels": (triangle_product.FACTOR_TILES, triangle_product.gated_channels),
    "add_triangle": (triangle_product.UPDATE_TILES, triangle_product.add_triangle),
    "norm_linear": (norm_linear.TILES, norm_linear.norm_linear),
    "pair_bias": (pair_bias.TILES, pair_bias.pair_bias),
    "add_outer": (outer_product.TILES, outer_product.add_outer),
    "head_values": (msa_average.VALUE_TILES, msa_average.head_values),
    "add_gated_average": (msa_average.UPDATE_TILES, msa_average.add_gated_average),
    "add_conditioned_transition": (
        conditioned_transition.TILES, conditioned_transition.add_conditioned_transition,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """An operation to tune: its key in a table of tiles, the candidate tiles, and the shapes to time."""

    name: str
    key: tuple[Any, ...]
    tiles: Sequence[tuple[Any, ...]]
    cases: Sequence[Case]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the operation's inputs."""
        return next(part for part in self.key if isinstance(part, torch.dtype))

    def set(self, tiles: tuple[Any, ...]) -> None:
        """Put these tiles into the operation's table."""
        if self.name == "attention":
            attention.TILES[self.key] = attention.AttentionTiles(*tiles)
            return
        _, dtype, width = self.key
        TABLES[self.name][0].tiles[(dtype, width) if width else dtype] = Tiles(*tiles)

    def make(self, case: Case) -> Run:
        """Make random inputs of a shape. Returns a function that runs the operation on them with given kernels."""
        if self.name == "attention":
            return _attention(case, self.dtype)
        return _rows(self.name, self.key[2], case, self.dtype)


def _single(tiles: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Keep the tiles whose thread block processes one row: the kernel does not pair rows of heads with 48 channels."""
    return [tile for tile in tiles if not tile[0]]


PROGRAMS = [
    Program("attention", (torch.bfloat16, 32), _ATTENTION[torch.bfloat16], _TRUNK),
    Program("attention", (torch.bfloat16, 48), _single(_ATTENTION[torch.bfloat16]), _TOKENS),
    Program("attention", (torch.float32, 32), _ATTENTION[torch.float32], _TRUNK[1:3]),
    Program("attention", (torch.float32, 48), _single(_ATTENTION[torch.float32]), _TOKENS[:2]),
    *(
        Program(
            name,
            (name, torch.bfloat16, None),
            tiles,
            _MSA if name in ("head_values", "add_gated_average") else _PAIRS,
        )
        for name, tiles in _ROWS.items()
    ),
    *(Program(name, (name, torch.float32, None), tiles, _PAIRS[1:2]) for name, tiles in _WIDE_ROWS.items()),
    *(
        Program("add_gated_average", ("add_gated_average", *key), tiles, _PAIRS[:2] if key[1] > 128 else _PAIRS)
        for key, tiles in _GATED_PAIRS.items()
    ),
    *(
        Program(name, (name, dtype, None), tiles, _ATOMS)
        for name, tiles in _ATOM_ROWS.items()
        for dtype in (torch.bfloat16, torch.float32)
    ),
]


def _attention(case: Case, dtype: torch.dtype) -> Run:
    n_seed, shared, n, n_head, width, ending = case
    n_part = 3 if width == 32 else 4  # triangle attention applies its gate in a later kernel
    joined = torch.randn(n_seed, shared, n, n_part * n_head * width, device="cuda", dtype=dtype)
    parts = split_heads(joined, n_part, n_head)
    bias = torch.randn(n_head, n_seed, n, n, device="cuda", dtype=dtype).transpose(0, 1)
    out = torch.empty(n_seed, shared, n, n_head, width, device="cuda", dtype=dtype)
    masked = mask_keys(bias, n - 3, KEY_BLOCK)
    if ending:
        parts, out = [part.transpose(1, 2) for part in parts], out.transpose(1, 2)
    query, key, value, *gates = parts

    def run(kernels: Kernels) -> torch.Tensor:
        attention.attention(kernels, query, key, value, gates[0] if gates else None, masked, out, n - 3)
        return out

    return run


def _rows(name: str, width: int | None, case: Case, dtype: torch.dtype) -> Run:
    n_seed, n = case

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=dtype)

    if name in ("head_values", "add_gated_average") and width is None:
        m, linear = random(n_seed, n, 64), NormedLinear((random(64), random(64)), random(64, 64) / 8)
        if name == "head_values":
            return lambda kernels: msa_average.head_values(kernels, m, linear, 8)
        average, back = random(8, n, n_seed, 8).permute(2, 1, 0, 3), random(64, 64) / 8
        return _changing(name, m, average, linear, back)
    width = width or 128
    if name in _ATOM_ROWS:
        a, update = random(n_seed, 5, n, width), random(n_seed, 5, n, width)
        rest = random(n_seed, 1, n, 4 * width).chunk(4, dim=-1)
        expand, contract = random(4 * width, width) / width**0.5, random(width, 2 * width) / (2 * width) ** 0.5
        return _changing(name, a, update, rest, expand, contract)
    if name == "add_outer":
        step = min(n, 2**27 // (n * 32 * 32))
        few, outer, weight, bias = random(step, n, width), random(step * 32, n * 32), random(width, 1024), random(width)
        return _changing(name, few, outer, weight, bias, 1000.0)
    z, norm, matrix = random(n_seed, n, n, width), (random(width), random(width)), random(4 * width, width) / width**0.5
    lengths, linear, gate = (
        Lengths.of([n - 3] * n_seed, z.device),
        NormedLinear(norm, matrix),
        NormedLinear(norm, matrix[:width]),
    )
    if name == "gated_channels":
        return lambda kernels: triangle_product.gated_channels(kernels, z, linear, lengths)[0]
    if name == "pair_bias":
        few_heads = NormedLinear(norm, matrix[:4])
        return lambda kernels: pair_bias.pair_bias(kernels, z, few_heads, lengths)[0][..., : n - 3]
    if name == "norm_linear":
        return lambda kernels: norm_linear.norm_linear(kernels, z, linear)
    if name == "add_gated_average":
        average = random(n_seed, n, n, width // 32, 32)
        return _changing(name, z, average, gate, matrix[width : 2 * width])
    if name == "add_triangle":
        product = random(width, n_seed, n, n)
        return _changing(name, z, product, gate, NormedLinear(norm, matrix[width : 2 * width]))
    expand, contract = random(8 * width, width) / width**0.5, random(width, 4 * width) / (4 * width) ** 0.5
    return _changing(name, z, norm, expand, contract)


def _changing(name: str, x: torch.Tensor, *arguments: Any) -> Run:
    """Wrap an operation that updates ``x`` in place, so that it returns ``x``."""

    def run(kernels: Kernels) -> torch.Tensor:
        TABLES[name][1](kernels, x, *arguments)
        return x

    return run


def compile_one(work: tuple[int, tuple[Any, ...]]) -> None:
    program = PROGRAMS[work[0]]
    program.set(work[1])
    case = program.cases[0]
    try:
        program.make((1, 2, *case[2:]) if program.name == "attention" else (16, 64))(triton_kernels())
    except Exception as error:
        print(f"{program.key} {work[1]}: {str(error).splitlines()[0][:100]}")


def tune(program: Program) -> tuple[Any, ...]:
    """Time all candidate tiles of an operation, print the six best and return the best."""
    taken: dict[tuple[Any, ...], list[float]] = {tiles: [] for tiles in program.tiles}
    far: dict[tuple[Any, ...], float] = dict.fromkeys(program.tiles, 0.0)
    for case in program.cases:
        torch.manual_seed(0)
        wanted = program.make(case)(torch_kernels(on_gpu=True)).float().clone()
        for tiles in program.tiles:
            program.set(tiles)
            torch.manual_seed(0)
            run = partial(program.make(case), triton_kernels())
            try:
                far[tiles] = max(far[tiles], float((run().float() - wanted).norm() / wanted.norm()))
                taken[tiles].append(do_bench(run, warmup=5, rep=30, return_mode="median"))
            except Exception as error:  # for example, tiles that are too large for the GPU's shared memory
                taken[tiles].append(float("inf"))
                print(f"{program.key} {tiles}: {str(error).splitlines()[0][:100]}")
            del run
    best = [min(times) for times in zip(*taken.values(), strict=True)]
    scores = {
        tiles: statistics.geometric_mean(time / least for time, least in zip(times, best, strict=True))
        for tiles, times in taken.items()
    }
    ranked = sorted(scores, key=scores.__getitem__)
    for tiles in ranked[:6]:
        times = " ".join(f"{1e3 * time:8.1f}" for time in taken[tiles])
        print(f"{program.key} {tiles} {scores[tiles]:.3f} {times} us  off by {far[tiles]:.1e}", flush=True)
    return ranked[0]


def beside_cuequivariance() -> None:
    try:
        import cuequivariance_ops_torch  # noqa: F401
        from cuequivariance_torch.primitives.triangle import triangle_attention
    except ImportError:
        return
    for n_seed, shared, n, n_head, width, ending in _TRUNK:
        if not ending:
            shape = (n_seed, shared, n_head, n, width)
            parts = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
            bias = torch.randn(n_seed, 1, n_head, n, n, device="cuda")
            time = do_bench(partial(triangle_attention, *parts, bias, scale=width**-0.5))
            print(f"cuEquivariance {shape} {1e3 * time:.1f} us, without gate", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="operations to tune, separated by commas (all)")
    parser.add_argument("--out", type=Path, help="write the best tiles as JSON")
    parser.add_argument("--processes", type=int, default=12, help="number of processes that compile")
    arguments = parser.parse_args()
    wanted = [
        place for place, program in enumerate(PROGRAMS)
        if not arguments.only or program.name in arguments.only.split(",")
    ]  # fmt: skip
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_one, [(place, tiles) for place in wanted for tiles in PROGRAMS[place].tiles]))
    chosen = {str(PROGRAMS[place].key): tune(PROGRAMS[place]) for place in wanted}
    if arguments.out:
        arguments.out.write_text(json.dumps(chosen))
    beside_cuequivariance()


if __name__ == "__main__":
    main()
