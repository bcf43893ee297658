"""The operations in Triton: every one reads its inputs once and writes its output once.

Arithmetic is float32 inside; matrix products take bfloat16 operands as they are and float32 ones as TF32, which is what
upstream's own settings allow on a GPU. Sizes are arguments, not constants, so that one compilation serves all jobs.
"""

import torch
import triton

from protenix_multiseed.memory import GPU_ELEMENTS
from protenix_multiseed.model.kernels import EPSILON, N_KEY, N_QUERY, source

_LOG2_E = 1.4426950408889634
# Rows of queries and of keys, warps and pipeline stages by type and padded width of a head: the fastest on an H200 of
# 20 tried each, at 245, 600 and 1,200 tokens.
_TILES = {
    (torch.bfloat16, 32): (64, 32, 4, 3),
    (torch.bfloat16, 64): (64, 64, 4, 3),
    (torch.float32, 32): (128, 32, 4, 3),
    (torch.float32, 64): (128, 32, 4, 2),
}
_ANY_TILES = (64, 32, 4, 2)


class FusedKernels:
    """See :class:`protenix_multiseed.model.kernels.Kernels`."""

    name = "triton"
    elements = GPU_ELEMENTS
    pair_elements: int | None = None

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
        a = a.contiguous()
        _, shared, length, width = a.shape
        n_row = a.numel() // width
        out = torch.empty_like(a)
        rows, columns = _tile(width)
        source.modulated_norm[(triton.cdiv(n_row, rows),)](
            a, scale, shift, out, n_row, width, shared * length, length, _stride(scale), EPSILON, rows, columns
        )
        return out

    def add_modulated(self, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        _, shared, length, width = a.shape
        n_row = a.numel() // width
        rows, columns = _tile(width)
        source.add_modulated[(triton.cdiv(n_row, rows),)](
            a, update, gate, n_row, width, shared * length, length, _stride(gate), rows, columns
        )
        return a

    def swiglu(self, x: torch.Tensor) -> torch.Tensor:
        width = x.shape[-1] // 2
        out = x.new_empty(*x.shape[:-1], width)
        n_row = out.numel() // width
        rows, columns = _tile(width)
        source.swiglu[(triton.cdiv(n_row, rows),)](x, out, n_row, width, rows, columns)
        return out

    def add_gated(self, z: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> None:
        size = z.numel()
        source.add_gated[(triton.cdiv(size, 2048),)](z, update, gate, size, 2048)

    def gated_channels(self, projected: torch.Tensor, n_token: int, first_row: int = 0) -> torch.Tensor:
        channels, (length, n) = projected.shape[0] // 2, projected.shape[-2:]
        out = projected.new_empty(channels, *projected.shape[1:])
        rows, columns = _tile(n)
        n_row = out.numel() // n
        source.gated_channels[(triton.cdiv(n_row, rows),)](
            projected, out, out.numel(), n_row, n, length, first_row, n_token, rows, columns
        )
        return out

    def norm_channels(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        width, size = x.shape[0], x[0].numel()
        out = x.new_empty(*x.shape[1:], width)
        source.norm_channels[(triton.cdiv(size, 64),)](
            x, weight, bias, out, size, width, EPSILON, 64, triton.next_power_of_2(width)
        )
        return out

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        gate: torch.Tensor,
        bias: torch.Tensor,
        out: torch.Tensor,
        n_key: int,
    ) -> None:
        n_seed, shared, n, n_head, width = query.shape
        padded = max(16, triton.next_power_of_2(width))
        block_m, block_n, warps, stages = _TILES.get((query.dtype, padded), _ANY_TILES)
        grid = (triton.cdiv(n, block_m) * shared * n_seed * n_head,)
        source.attention[grid](
            query,
            key,
            value,
            gate,
            bias,
            out,
            *query.stride()[:4],
            *bias.stride(),
            *out.stride()[:4],
            n,
            n_key,
            shared,
            n_head,
            width,
            width**-0.5 * _LOG2_E,
            padded,
            width == padded,
            block_m,
            block_n,
            num_warps=warps,
            num_stages=stages,
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
            width**-0.5 * _LOG2_E,
            max(16, triton.next_power_of_2(width)),
            N_QUERY,
            N_KEY,
            num_warps=4,
        )
        return out


def _tile(width: int) -> tuple[int, int]:
    """Rows and columns of a program that reads whole rows."""
    columns = triton.next_power_of_2(width)
    return max(1, 4096 // columns), columns


def _stride(conditioning: torch.Tensor) -> int:
    """Distance of two rows of a conditioning tensor [A, 1, N, c], which may be a part of wider rows."""
    return conditioning.stride(2)
