"""The operations in Triton: every one reads its inputs once and writes its output once.

Arithmetic is float32 inside; matrix products take bfloat16 operands as they are and float32 ones as TF32, which is what
upstream's own settings allow on a GPU. Sizes are arguments, not constants, so that one compilation serves all jobs.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton

from protenix_multiseed.memory import KEY_BLOCK
from protenix_multiseed.model.kernels import EPSILON, MASKED, N_KEY, N_QUERY, Norm, source
from protenix_multiseed.model.kernels.plain import PlainKernels

# Whether two that share a bias are attended to together, rows of queries and of keys, warps, pipeline stages and
# registers of a thread (None: as many as it likes) by type and width of a head, padded or of its two parts: the fastest
# on an H100 of those in scripts/tune_kernels.py.
_TILES: dict[tuple[torch.dtype, int], tuple[bool, int, int, int, int, int | None]] = {
    (torch.bfloat16, 32): (True, 64, 32, 4, 3, None),
    (torch.bfloat16, 48): (False, 64, 32, 4, 3, 96),
    (torch.float32, 32): (True, 128, 32, 8, 3, 128),
    (torch.float32, 48): (False, 128, 32, 8, 3, 128),
}
_MOST_KEYS = 128  # in a tile
_WINDOW_WARPS = 2
_ANY_TILES = (False, 64, 32, 4, 2, None)
_HEADS = (8, 16, 32, 64)  # widths of which a thread reads whole pieces
_WHOLE_ROWS = (16, 32, 64, 128, 256)  # widths of which rows are held whole, as powers of two are
_LONGEST_ROW = 512  # bytes of such a row: of longer ones the weights they meet do not fit beside them
_KEPT = 64 * 1024  # bytes of weights that a program can keep
# Rows and columns of a tile, warps, pipeline stages and registers of the programs that hold whole rows: in bfloat16 the
# fastest on an H200 or H100 of those in scripts/tune_kernels.py. A width can have tiles of its own.
_ROW_TILES: dict[tuple[str, torch.dtype, int | None], tuple[int, int, int, int, int | None]] = {
    ("norm_linear", torch.bfloat16, None): (64, 64, 4, 3, None),
    ("norm_linear", torch.float32, None): (128, 64, 8, 3, None),
    ("pair_bias", torch.bfloat16, None): (64, 16, 4, 2, None),
    ("pair_bias", torch.float32, None): (64, 16, 4, 2, None),
    ("gated_channels", torch.bfloat16, None): (128, 32, 8, 2, 80),
    ("gated_channels", torch.float32, None): (64, 32, 8, 2, None),
    ("add_triangle", torch.bfloat16, None): (64, 128, 4, 1, None),
    ("add_triangle", torch.float32, None): (32, 128, 4, 1, None),
    ("add_transition", torch.bfloat16, None): (128, 32, 8, 3, 128),
    ("add_transition", torch.float32, None): (64, 16, 4, 3, None),
    ("add_conditioned_transition", torch.bfloat16, None): (64, 32, 4, 2, None),
    ("add_conditioned_transition", torch.float32, None): (64, 16, 4, 3, None),
    ("add_outer", torch.bfloat16, None): (128, 0, 8, 5, None),
    ("add_outer", torch.float32, None): (64, 0, 4, 3, None),
    ("head_values", torch.bfloat16, None): (64, 64, 4, 3, None),
    ("head_values", torch.float32, None): (64, 64, 4, 2, None),
    ("add_gated_average", torch.bfloat16, None): (64, 32, 4, 3, None),
    ("add_gated_average", torch.float32, None): (64, 32, 4, 1, None),
    # Of 256 channels, as protenix-v2's pairs have: all but the last chosen by the registers they take, and not timed.
    ("gated_channels", torch.bfloat16, 256): (128, 32, 8, 2, None),
    ("add_triangle", torch.bfloat16, 256): (32, 128, 8, 1, None),
    ("add_transition", torch.bfloat16, 256): (64, 32, 8, 2, None),
    ("add_gated_average", torch.bfloat16, 256): (64, 64, 8, 2, None),
}


class FusedKernels(PlainKernels):
    """See :class:`protenix_multiseed.model.kernels.Kernels`. Rows too wide to be held whole take the plain way, whose
    parts are fused.
    """  # noqa: D205

    name = "triton"

    def __init__(self, *, at_once: int | None = None) -> None:
        super().__init__(on_gpu=True)
        self._at_once = at_once  # programs where each takes many blocks; None for two on each multiprocessor
        self.key_block = KEY_BLOCK
        self._identities: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def _identity(self, x: torch.Tensor) -> torch.Tensor:
        """The identity matrix in the type of ``x``, which attention adds biases with."""
        key = x.device, x.dtype
        if key not in self._identities:
            self._identities[key] = torch.eye(_MOST_KEYS, device=x.device, dtype=x.dtype)
        return self._identities[key]

    def norm(self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
        x = x.contiguous()
        width = x.shape[-1]
        n_row = x.numel() // width
        out = torch.empty_like(x)
        rows, columns = _tile(width)
        source.norm[(triton.cdiv(n_row, rows),)](
            x, weight, bias, out, n_row, width, EPSILON, weight is not None, bias is not None, rows, columns
        )
        return out

    def modulated_norm(self, a: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self._modulated_norm(a.contiguous(), None, None, scale, shift)

    def _add_then_norm(
        self, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        return self._modulated_norm(a, update, gate, scale, shift)

    def _modulated_norm(
        self,
        a: torch.Tensor,
        update: torch.Tensor | None,
        gate: torch.Tensor | None,
        scale: torch.Tensor,
        shift: torch.Tensor,
    ) -> torch.Tensor:
        _, shared, length, width = a.shape
        n_row = a.numel() // width
        out = torch.empty_like(a)
        rows, columns = _tile(width)
        source.modulated_norm[(triton.cdiv(n_row, rows),)](
            a, update, gate, scale, shift, out, n_row, width, shared * length, length,
            0 if gate is None else _stride(gate), _stride(scale), EPSILON, update is not None, rows, columns,
        )  # fmt: skip
        return out

    def _add_modulated(self, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        _, shared, length, width = a.shape
        n_row = a.numel() // width
        rows, columns = _tile(width)
        source.add_modulated[(triton.cdiv(n_row, rows),)](
            a, update, gate, n_row, width, shared * length, length, _stride(gate), rows, columns
        )
        return a

    def _swiglu(self, x: torch.Tensor) -> torch.Tensor:
        width = x.shape[-1] // 2
        out = x.new_empty(*x.shape[:-1], width)
        n_row = out.numel() // width
        rows, columns = _tile(width)
        source.swiglu[(triton.cdiv(n_row, rows),)](x, out, n_row, width, rows, columns)
        return out

    def add_conditioned_transition(
        self,
        a: torch.Tensor,
        update: torch.Tensor,
        conditioning: Sequence[torch.Tensor],
        expand: torch.Tensor,
        contract: torch.Tensor,
    ) -> torch.Tensor:
        _, shared, length, width = a.shape
        size, tiles = _by_rows("add_conditioned_transition", a)
        if not _fits(width, a) or contract.shape[1] % tiles.columns:
            return super().add_conditioned_transition(a, update, conditioning, expand, contract)
        gate, scale, *_ = conditioning
        source.add_conditioned_transition[tiles.grid](
            a, update, *conditioning, expand, contract, size, shared * length, length, _stride(scale), _stride(gate),
            contract.shape[1], EPSILON, width, tiles.rows, tiles.columns, **tiles.options,
        )  # fmt: skip
        return a

    def norm_linear(self, x: torch.Tensor, norm: Norm, weight: torch.Tensor) -> torch.Tensor:
        if not _fits(x.shape[-1], x):
            return super().norm_linear(x, norm, weight)
        x = x.contiguous()
        out = x.new_empty(*x.shape[:-1], len(weight))
        size, tiles = _by_rows("norm_linear", x)
        source.norm_linear[tiles.grid](
            x, *norm, weight, out, size, len(weight), EPSILON, x.shape[-1], tiles.rows, tiles.columns, **tiles.options
        )
        return out

    def pair_bias(
        self, z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int, *, starting: bool = True
    ) -> torch.Tensor:
        n_head, (n_pair, n, _, width) = len(weight), z.shape
        if not _fits(width, z):
            return super().pair_bias(z, norm, weight, n_token, starting=starting)
        long = triton.cdiv(n, self.key_block) * self.key_block
        out = z.new_empty(n_head, n_pair, n, long).transpose(0, 1)
        rows, _, options = _row_tiles("pair_bias", z)
        sizes, strides = ((n, long), out.stride()[2:]) if starting else ((long, n), out.stride()[:1:-1])
        heads = max(16, triton.next_power_of_2(n_head))
        grid = (n_pair * sizes[0] * triton.cdiv(sizes[1], rows),)
        source.pair_bias[grid](
            z, *norm, weight, out, n, *sizes, n_token, *out.stride()[:2], *strides, n_head, EPSILON, MASKED,
            not starting, width, rows, heads, **options,
        )  # fmt: skip
        return out[..., :n]

    def gated_channels(self, z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int) -> torch.Tensor:
        n_out, n = len(weight) // 2, z.shape[-2]
        size, tiles = _by_rows("gated_channels", z)
        if not _fits(z.shape[-1], z) or n_out % tiles.columns:
            return super().gated_channels(z, norm, weight, n_token)
        out = z.new_empty(n_out, *z.shape[:-1])
        source.gated_channels[tiles.grid](
            z, *norm, weight, out, size, n, n_token, n_out, EPSILON, z.shape[-1], tiles.rows, tiles.columns,
            **tiles.options,
        )  # fmt: skip
        return out

    def add_triangle(
        self,
        z: torch.Tensor,
        product: torch.Tensor,
        norm: Norm,
        gate: torch.Tensor,
        norm_out: Norm,
        out: torch.Tensor,
    ) -> None:
        if not (_fits(z.shape[-1], z) and _fits(len(product), z)):
            super().add_triangle(z, product, norm, gate, norm_out, out)
            return
        size, tiles = _by_rows("add_triangle", z)
        keeps_weights = gate.nbytes + out.nbytes <= _KEPT
        grid = (min(*tiles.grid, self._at_once or _two_each(z.device)),) if keeps_weights else tiles.grid
        source.add_triangle[grid](
            z, product, *norm, gate, *norm_out, out, size, EPSILON, z.shape[-1], len(product), tiles.rows,
            keeps_weights, **tiles.options,
        )  # fmt: skip

    def add_transition(self, x: torch.Tensor, norm: Norm, expand: torch.Tensor, contract: torch.Tensor) -> None:
        size, tiles = _by_rows("add_transition", x)
        if not _fits(x.shape[-1], x) or contract.shape[1] % tiles.columns:
            super().add_transition(x, norm, expand, contract)
            return
        source.add_transition[tiles.grid](
            x, *norm, expand, contract, size, len(expand) // 2, EPSILON, x.shape[-1], tiles.rows, tiles.columns,
            **tiles.options,
        )  # fmt: skip

    def add_outer(
        self, z: torch.Tensor, outer: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: float
    ) -> None:
        n_row, n, width = z.shape
        hidden = len(outer) // n_row
        if not (_fits(width, z) and _fits(hidden, z)):
            super().add_outer(z, outer, weight, bias, count)
            return
        rows, _, options = _row_tiles("add_outer", z)
        grid = (n_row * triton.cdiv(n, rows),)
        source.add_outer[grid](z, outer, weight, bias, n, count, width, hidden, rows, **options)

    def head_values(self, m: torch.Tensor, norm: Norm, weight: torch.Tensor, n_head: int) -> torch.Tensor:
        n_row, n, width = m.shape
        head = len(weight) // n_head
        if not (_fits(width, m) and head in _HEADS):
            return super().head_values(m, norm, weight, n_head)
        out = m.new_empty(n_head, n, n_row * head)
        rows, columns, options = _row_tiles("head_values", m)
        grid = (n * triton.cdiv(n_row, rows),)
        source.head_values[grid](
            m, *norm, weight, out, n_row, n, len(weight), EPSILON, width, head, rows, columns, **options
        )
        return out

    def add_gated_average(
        self, x: torch.Tensor, average: torch.Tensor, norm: Norm, gate: torch.Tensor, out: torch.Tensor
    ) -> None:
        width, head = x.shape[-1], average.shape[-1]
        if not (_fits(width, x) and head in _HEADS and x.is_contiguous()):
            super().add_gated_average(x, average, norm, gate, out)
            return
        # What lies in the order of x comes as rows of one token.
        average = average.flatten(0, -3)[:, None] if average.is_contiguous() else average.flatten(0, -4)
        n_row, n = average.shape[:2]
        strides = [stride // head for stride in average.stride()[:3]]
        rows, columns, options = _row_tiles("add_gated_average", x)
        grid = (n * triton.cdiv(n_row, rows),)
        source.add_gated_average[grid](
            x, average, *norm, gate, out, n_row, n, len(gate), *strides, EPSILON, width, head, rows, columns, **options,
        )  # fmt: skip

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        gate: torch.Tensor | None,
        bias: torch.Tensor,
        out: torch.Tensor,
        n_key: int,
    ) -> None:
        n_seed, shared, n, n_head, width = query.shape
        whole, rest = _parts_of_head(width)
        pairs, block_m, block_n, warps, stages, registers = _TILES.get((query.dtype, whole + rest), _ANY_TILES)
        is_pair = pairs and shared > 1 and not rest
        grid = (triton.cdiv(n, block_m) * triton.cdiv(shared, 2 if is_pair else 1) * n_seed * n_head,)
        source.attention[grid](
            query,
            key,
            value,
            gate,
            bias,
            self._identity(query),
            out,
            *query.stride()[:4],
            *bias.stride(),
            *out.stride()[:4],
            n,
            n_key,
            shared,
            n_head,
            width,
            _MOST_KEYS,
            whole,
            rest,
            width == whole + rest,
            is_pair,
            gate is not None,
            block_m,
            block_n,
            num_warps=warps,
            num_stages=stages,
            maxnreg=registers,
        )

    def mean_of_atoms(self, x: torch.Tensor, atoms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        n_seed, shared, n_atom, width = x.shape
        n_token, most = atoms.shape
        out = x.new_empty(n_seed, shared, n_token, width)
        source.mean_of_atoms[(n_token, n_seed * shared)](
            x, atoms, count, out, n_atom, n_token, most, width, triton.next_power_of_2(width)
        )
        return out

    def local_attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        n_seed, shared, n_atom, n_head, width = query.shape
        out = query.new_empty(query.shape)
        n_window = bias.shape[2]
        source.local_attention[(n_window * n_head, shared * n_seed)](
            query,
            key,
            value,
            gate,
            bias,
            out,
            *query.stride()[:4],
            *out.stride()[:4],
            n_atom,
            n_window,
            shared,
            n_head,
            width,
            max(16, triton.next_power_of_2(width)),
            N_QUERY,
            N_KEY,
            num_warps=_WINDOW_WARPS,
        )
        return out


@dataclass(frozen=True, slots=True)
class _Tiles:
    """How a program over whole rows is cut: its grid, rows and columns of a tile, and Triton's own options."""

    grid: tuple[int]
    rows: int
    columns: int
    options: dict[str, int | None]


def _by_rows(program: str, x: torch.Tensor) -> tuple[int, _Tiles]:
    """The number of rows of ``x``, and their tiles."""
    size = x.numel() // x.shape[-1]
    rows, columns, options = _row_tiles(program, x)
    return size, _Tiles((triton.cdiv(size, rows),), rows, columns, options)


def _row_tiles(program: str, x: torch.Tensor) -> tuple[int, int, dict[str, int | None]]:
    """Rows and columns of a program's tiles, and Triton's own options."""
    usual = _ROW_TILES[program, x.dtype, None]
    rows, columns, warps, stages, registers = _ROW_TILES.get((program, x.dtype, x.shape[-1]), usual)
    return rows, columns, {"num_warps": warps, "num_stages": stages, "maxnreg": registers}


@functools.cache
def _two_each(device: torch.device) -> int:
    """Two programs for each of a GPU's multiprocessors."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _fits(width: int, x: torch.Tensor) -> bool:
    """Whether rows of this width, in the type of ``x``, are held whole in a program."""
    return width in _WHOLE_ROWS and width * x.element_size() <= _LONGEST_ROW


def _tile(width: int) -> tuple[int, int]:
    """Rows and columns of a program that reads whole rows."""
    columns = triton.next_power_of_2(width)
    return max(1, 1024 // columns), columns


def _parts_of_head(width: int) -> tuple[int, int]:
    """A head's channels as two blocks, powers of two and at least 16 wide, or as one that is padded and none."""
    whole = 1 << width.bit_length() - 1
    rest = width - whole
    if rest >= 16 and rest & (rest - 1) == 0:
        return whole, rest
    return max(16, triton.next_power_of_2(width)), 0


def _stride(conditioning: torch.Tensor) -> int:
    """Distance of two rows of a conditioning tensor [A, 1, N, c], which may be a part of wider rows."""
    return conditioning.stride(2)
