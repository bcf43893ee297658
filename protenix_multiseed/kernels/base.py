"""Settings with which the operations run on one device, and helpers that several operations share.

The fast stages call the operations in :mod:`protenix_multiseed.kernels.ops`. Every operation has a plain PyTorch
version. Most operations also have a Triton kernel.

Conventions in the shapes of all operations:

- ``A`` is the number of attention biases: one for each entry of the batch, that is, for each (job, seed).
- ``B`` is the number of batch entries that share one bias: samples, or rows of the pair representation.
- ``eps`` of every layer norm is 1e-5, as in upstream.
- Tensors are contiguous unless the docstring says otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from torch.nn import functional
from torch.torch_version import TorchVersion

from protenix_multiseed.limits import (
    KEY_BLOCK,
    MAX_PAIR_ELEMENTS_GPU,
    MAX_PAIR_ELEMENTS_GPU_ROOMY,
    MAX_TEMPORARY_ELEMENTS_CPU,
    MAX_TEMPORARY_ELEMENTS_GPU,
)

Norm: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Scale and shift of a layer norm, each [c]."""

N_QUERY, N_KEY = 32, 128  # Alg. 7: query atoms and key atoms of one local window
EPSILON = 1e-5
MASKED = -1e10  # upstream's bias for a masked key: the softmax weight of this key is zero
MASKED_HALF = -6e4  # the same for biases in float16, whose largest number is 65,504
MAX_IDENTITY = 128  # size of the identity matrix that adds biases in attention; no tile may have more keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernels:
    """How to run the operations: in PyTorch or Triton, and with which sizes.

    Attributes:
        name: ``torch`` or ``triton``.
        key_block: Rows of attention biases are padded in memory to a multiple of this many keys.
        elements: Maximum number of elements in one temporary of a transition or an outer product. Larger temporaries
            are computed in chunks.
        pair_elements: The same maximum for projections of a pair representation.
        factor_elements: The same maximum for both factors of a triangle product. None: no maximum.
        hopper: Whether kernels for Hopper GPUs (compute capability 9.0) are used where there is one.
        half: Whether factors of products that upstream computes in TF32 may be in float16. Both have
            10 bits of fraction.
        blocks_at_once: Number of thread blocks that a persistent kernel launches at most. None: as many as the GPU runs
            at once.
    """

    name: str
    key_block: int
    elements: int
    pair_elements: int
    factor_elements: int | None = None
    hopper: bool = False
    half: bool = False
    blocks_at_once: int | None = None
    _identities: dict[tuple[torch.device, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def identity(self, like: torch.Tensor) -> torch.Tensor:
        """Identity matrix [MAX_IDENTITY, MAX_IDENTITY] with the device and dtype of ``like``."""
        key = like.device, like.dtype
        if key not in self._identities:
            self._identities[key] = torch.eye(MAX_IDENTITY, device=like.device, dtype=like.dtype)
        return self._identities[key]

    def roomy(self) -> "Kernels":
        """The same settings with larger tensors in updates of a pair representation."""
        return replace(self, pair_elements=MAX_PAIR_ELEMENTS_GPU_ROOMY, factor_elements=MAX_PAIR_ELEMENTS_GPU_ROOMY)

    def n_block(self, device: torch.device, n_tile: int, per_multiprocessor: int) -> int:
        """Number of thread blocks that a persistent kernel launches on ``device`` to process ``n_tile`` tiles.

        Args:
            per_multiprocessor: Number of thread blocks that one multiprocessor runs at once.
        """
        most = self.blocks_at_once
        if most is None:
            is_gpu = device.type == "cuda"  # else the kernel is only compiled, for a GPU that is absent
            n_multiprocessor = torch.cuda.get_device_properties(device).multi_processor_count if is_gpu else 1
            most = per_multiprocessor * n_multiprocessor
        return min(n_tile, most)


def torch_kernels(*, on_gpu: bool = False) -> Kernels:
    """Settings to run every operation in plain PyTorch."""
    return Kernels(
        name="torch",
        key_block=16 if on_gpu else 1,  # PyTorch's fused attention copies a mask with unaligned rows
        elements=MAX_TEMPORARY_ELEMENTS_GPU if on_gpu else MAX_TEMPORARY_ELEMENTS_CPU,
        pair_elements=MAX_PAIR_ELEMENTS_GPU if on_gpu else MAX_TEMPORARY_ELEMENTS_CPU,
        factor_elements=MAX_PAIR_ELEMENTS_GPU if on_gpu else None,
    )


def triton_kernels(*, hopper: bool = False, half: bool = False, blocks_at_once: int | None = None) -> Kernels:
    """Settings for a GPU: run the Triton kernel if the operation has one for these arguments, else PyTorch."""
    return Kernels(
        name="triton",
        key_block=KEY_BLOCK,
        elements=MAX_TEMPORARY_ELEMENTS_GPU,
        pair_elements=MAX_PAIR_ELEMENTS_GPU,
        factor_elements=MAX_PAIR_ELEMENTS_GPU,
        hopper=hopper,
        half=half,
        blocks_at_once=blocks_at_once,
    )


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens of each entry are real; the tokens after them are padding.

    Attributes:
        each: Number of real tokens of each entry [A], int32, on the device. Kernels read it there, so that a CUDA graph
            replays with other lengths.
        most: No entry has more real tokens. All tensors of the batch depend on this number.
        are_equal: Whether every entry has ``most`` real tokens. PyTorch's versions then need no mask.
    """

    each: torch.Tensor
    most: int
    are_equal: bool

    @classmethod
    def of(cls, numbers: Sequence[int], device: torch.device, most: int | None = None) -> Self:
        """Make the lengths from the number of real tokens of each entry. ``most`` is their maximum if it is None."""
        most = max(numbers) if most is None else most
        are_equal = set(numbers) == {most}
        each = torch.full((len(numbers),), most, dtype=torch.int32, device=device)  # needs no copy from the host
        if not are_equal:
            each = torch.tensor(numbers, dtype=torch.int32, device=device)
        return cls(each=each, most=most, are_equal=are_equal)

    def only(self, spans: Sequence[slice]) -> Self:
        """The lengths of some entries."""
        return replace(self, each=torch.cat([self.each[span] for span in spans]))

    def is_padding(self, n: int) -> torch.Tensor:
        """Whether a token is padding [A, n]."""
        return torch.arange(n, device=self.each.device) >= self.each[:, None]


class Tiles(NamedTuple):
    """Tile sizes and launch options of a Triton kernel that processes rows.

    Attributes:
        rows: Rows of the input in one tile.
        columns: Output or hidden channels in one tile: how many of them the kernel reads weights for at a time.
            0 for a kernel without such a loop.
        warps: Warps of one thread block.
        stages: Stages of the software pipeline.
        registers: Maximum number of registers of one thread. None: the compiler decides.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    registers: int | None = None

    @property
    def options(self) -> dict[str, int | None]:
        """The same launch options under Triton's names."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


class TileTable:
    """Tiles of one kernel for each dtype. A pair (dtype, width) overrides the entry of the dtype for this width."""

    def __init__(self, tiles: dict[torch.dtype | tuple[torch.dtype, int], Tiles]) -> None:
        self.tiles = tiles

    def of(self, x: torch.Tensor) -> Tiles:
        """The tiles for rows of ``x`` [..., c]."""
        usual = self.tiles[x.dtype]
        return self.tiles.get((x.dtype, x.shape[-1]), usual)


def masked(dtype: torch.dtype) -> float:
    """The bias of a masked key as a number of this dtype."""
    return MASKED_HALF if dtype == torch.float16 else MASKED


def mask_keys(bias: torch.Tensor, n_key: int, key_block: int) -> torch.Tensor:
    """Biases [..., N] for attention: keys from ``n_key`` on are masked, rows are padded in memory.

    Rows are padded to a multiple of ``key_block`` keys. The result is a view of the padded rows, or ``bias`` itself if
    it needs neither mask nor padding.
    """
    n = bias.shape[-1]
    if n % key_block == 0 and n_key == n:
        return bias
    made = bias.new_full((*bias.shape[:-1], -(-n // key_block) * key_block), masked(bias.dtype))
    made[..., :n_key] = bias[..., :n_key]
    return made[..., :n]


def scale_queries(weight: torch.Tensor, n_head: int) -> torch.Tensor:
    """Fold the attention scale ``1 / sqrt(c)`` into the query projection.

    Upstream scales the queries after the projection, which rounds once more.

    Args:
        weight: Matrix [n_head * c, c_in] or bias [n_head * c] of the query projection.
    """
    scaled: torch.Tensor = weight * (len(weight) // n_head) ** -0.5
    return scaled


def product(x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x weight^T``: [..., c_in] -> [..., c_out] in ``dtype``, which is that of both factors, or float32.

    Sums are in float32 and are rounded at most once, to ``dtype``.
    """
    if x.dtype == dtype:
        return functional.linear(x, weight)
    if x.device.type != "cuda":
        return functional.linear(x.to(dtype), weight.to(dtype))
    multiply: Any = torch.mm  # its argument for the dtype is newer than the oldest PyTorch
    made: torch.Tensor = multiply(x.reshape(-1, x.shape[-1]), weight.t(), dtype)
    return made.view(*x.shape[:-1], -1)


def can_be_half() -> bool:
    """Whether PyTorch returns products of 16-bit factors in 32 bits. 2.8 is the first version that does."""
    return TorchVersion(torch.__version__) >= "2.8"


def split_heads(joined: torch.Tensor, n_part: int, n_head: int) -> list[torch.Tensor]:
    """Split joined projections [..., n_part * n_head * c] into ``n_part`` views [..., n_head, c]."""
    return [part.view(*part.shape[:-1], n_head, -1) for part in joined.chunk(n_part, dim=-1)]


def row_chunks(n: int, width: int, elements: int) -> Iterator[slice]:
    """Split ``n`` rows of ``n`` pairs into even chunks, so that a temporary with ``width`` channels stays small.

    Yields:
        Slice of rows of each chunk: as many as ``elements`` allows, and at least one.
    """
    step = max(1, elements // (n * width))
    step = -(-n // -(-n // step))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def chunks(z: torch.Tensor, width: int, elements: int) -> Iterator[tuple[slice, slice]]:
    """Split ``z`` [N_seed, N, N, c] into chunks, so that a temporary with ``width`` channels stays small.

    One chunk is all of ``z`` if the whole temporary has at most ``elements`` elements. Otherwise a chunk holds rows of
    one seed (:func:`row_chunks`).

    Yields:
        Slice of seeds and slice of rows of each chunk.
    """
    n_seed, n = z.shape[:2]
    if n_seed * n * n * width <= elements:
        yield slice(None), slice(None)
        return
    for seed in range(n_seed):
        for rows in row_chunks(n, width, elements):
            yield slice(seed, seed + 1), rows
