"""How the operations run on one device, and what they share.

The stages are made of few operations, one module each in :mod:`protenix_multiseed.kernels.ops`, which exist in plain
PyTorch and, most of them, as a Triton kernel. In their shapes ``A`` counts rows with an attention bias of their own
(seeds), ``B`` rows that share it (samples, or rows of the pair representation). ``eps`` of every norm is 1e-5, as
upstream's. Tensors are contiguous where nothing else is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch

from protenix_multiseed.limits import KEY_BLOCK, MAX_TEMPORARY_ELEMENTS_CPU, MAX_TEMPORARY_ELEMENTS_GPU

Norm: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Scale and shift of a layer norm, each [c]."""

N_QUERY, N_KEY = 32, 128  # Alg. 7: queries of a window of atoms, and the keys around them
EPSILON = 1e-5
MASKED = -1e10  # upstream's bias of a masked key: its weight is zero
MAX_IDENTITY = 128  # rows of the identity matrix that attention adds biases with: at least the keys of a tile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernels:
    """A way to run the operations.

    Attributes:
        name: ``torch`` or ``triton``.
        key_block: Rows of attention biases are padded to a multiple of this many keys.
        elements: Of a temporary of a transition or an outer product; larger ones are computed in chunks.
        pair_elements: The same for projections of a pair representation; None to compute them whole.
        blocks_at_once: Blocks that a persistent Triton kernel runs; None for two on each multiprocessor.
    """

    name: str
    key_block: int
    elements: int
    pair_elements: int | None
    blocks_at_once: int | None = None
    _identities: dict[tuple[torch.device, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def identity(self, like: torch.Tensor) -> torch.Tensor:
        """The identity matrix [MAX_IDENTITY, MAX_IDENTITY] on the device and in the type of a tensor."""
        key = like.device, like.dtype
        if key not in self._identities:
            self._identities[key] = torch.eye(MAX_IDENTITY, device=like.device, dtype=like.dtype)
        return self._identities[key]

    def n_block(self, device: torch.device) -> int:
        """How many blocks of a persistent Triton kernel run at once on a device."""
        if self.blocks_at_once is not None or device.type != "cuda":
            return self.blocks_at_once or 2
        return 2 * torch.cuda.get_device_properties(device).multi_processor_count


def torch_kernels(*, on_gpu: bool = False) -> Kernels:
    """Plain PyTorch."""
    return Kernels(
        name="torch",
        key_block=16 if on_gpu else 1,  # PyTorch's fused attention copies a mask whose rows are not aligned
        elements=MAX_TEMPORARY_ELEMENTS_GPU if on_gpu else MAX_TEMPORARY_ELEMENTS_CPU,
        pair_elements=None if on_gpu else MAX_TEMPORARY_ELEMENTS_CPU,
    )


def triton_kernels(*, blocks_at_once: int | None = None) -> Kernels:
    """Triton where an operation has a kernel that fits, else PyTorch. For a GPU."""
    return Kernels(
        name="triton",
        key_block=KEY_BLOCK,
        elements=MAX_TEMPORARY_ELEMENTS_GPU,
        pair_elements=None,
        blocks_at_once=blocks_at_once,
    )


class Tiles(NamedTuple):
    """How a Triton kernel over rows is cut.

    Attributes:
        rows, columns: Of a tile; columns are those of the weight that is read at once.
        warps: Of a block.
        stages: Of the software pipeline.
        registers: Of a thread; None for as many as the compiler likes.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    registers: int | None = None

    @property
    def options(self) -> dict[str, int | None]:
        """Triton's own options."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


class TileTable:
    """The tiles of one kernel by type and, where a width needs its own, by width."""

    def __init__(self, tiles: dict[torch.dtype | tuple[torch.dtype, int], Tiles]) -> None:
        self.tiles = tiles

    def of(self, x: torch.Tensor) -> Tiles:
        """The tiles for rows of ``x`` [..., c]."""
        usual = self.tiles[x.dtype]
        return self.tiles.get((x.dtype, x.shape[-1]), usual)


def mask_keys(bias: torch.Tensor, n_key: int, key_block: int) -> torch.Tensor:
    """Biases [..., N] as attention wants them; a copy if rows must become longer or be masked."""
    n = bias.shape[-1]
    if n % key_block == 0 and n_key == n:
        return bias
    made = bias.new_full((*bias.shape[:-1], -(-n // key_block) * key_block), MASKED)
    made[..., :n_key] = bias[..., :n_key]
    return made[..., :n]


def scale_queries(weight: torch.Tensor, n_head: int) -> torch.Tensor:
    """A projection to queries (its matrix or bias) with ``1 / sqrt(c)`` folded in.

    Upstream scales queries once they are projected, and so rounds once more.
    """
    scaled: torch.Tensor = weight * (len(weight) // n_head) ** -0.5
    return scaled


def split_heads(joined: torch.Tensor, n_part: int, n_head: int) -> list[torch.Tensor]:
    """Joined projections [..., n_part * n_head * c] as ``n_part`` views [..., n_head, c]."""
    return [part.view(*part.shape[:-1], n_head, -1) for part in joined.chunk(n_part, dim=-1)]


def chunks(z: torch.Tensor, width: int, elements: int | None) -> Iterator[tuple[slice, slice]]:
    """Seeds and rows of ``z`` [N_seed, N, N, c] to compute at once.

    With ``width`` channels they make at most ``elements`` numbers: all of ``z`` if that fits or ``elements`` is None,
    else rows of one seed at a time.
    """
    n_seed, n = z.shape[:2]
    if elements is None or n_seed * n * n * width <= elements:
        yield slice(None), slice(None)
        return
    step = max(1, elements // (n * width))
    for seed in range(n_seed):
        for start in range(0, n, step):
            yield slice(seed, seed + 1), slice(start, start + step)
