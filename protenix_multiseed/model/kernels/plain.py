"""The operations in plain PyTorch: what the Triton ones are held against, and what runs where they cannot."""

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from protenix_multiseed.memory import CPU_ELEMENTS, GPU_ELEMENTS
from protenix_multiseed.model.kernels import EPSILON, N_KEY, N_QUERY, Norm, mask_keys


class PlainKernels:
    """See :class:`protenix_multiseed.model.kernels.Kernels`."""

    name = "torch"

    def __init__(self, *, on_gpu: bool = False) -> None:
        self.key_block = 16 if on_gpu else 1  # PyTorch's fused kernels copy a mask whose rows are not aligned
        self.elements = GPU_ELEMENTS if on_gpu else CPU_ELEMENTS
        self.pair_elements: int | None = None if on_gpu else CPU_ELEMENTS

    def norm(self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, EPSILON)

    def modulated_norm(self, a: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(shift, self.norm(a, None, None), torch.sigmoid(scale))

    def _add_modulated(self, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return a.addcmul_(update, torch.sigmoid(gate))

    def _add_then_norm(
        self, a: torch.Tensor, update: torch.Tensor, gate: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        return self.modulated_norm(self._add_modulated(a, update, gate), scale, shift)

    def _swiglu(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return functional.silu(first).mul_(second)

    def add_conditioned_transition(
        self,
        a: torch.Tensor,
        update: torch.Tensor,
        conditioning: Sequence[torch.Tensor],
        expand: torch.Tensor,
        contract: torch.Tensor,
    ) -> torch.Tensor:
        update_gate, scale, shift, gate = conditioning
        hidden = self._swiglu(functional.linear(self._add_then_norm(a, update, update_gate, scale, shift), expand))
        return self._add_modulated(a, functional.linear(hidden, contract), gate)

    def norm_linear(self, x: torch.Tensor, norm: Norm, weight: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.norm(x, *norm), weight)

    def pair_bias(
        self, z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int, *, starting: bool = True
    ) -> torch.Tensor:
        bias = (weight @ self.norm(z, *norm).view(-1, z.shape[-1]).t()).view(-1, *z.shape[:-1]).transpose(0, 1)
        return mask_keys(bias if starting else bias.mT.contiguous(), n_token, self.key_block)

    def gated_channels(self, z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int) -> torch.Tensor:
        gated = z.new_empty(len(weight) // 2, *z.shape[:-1])
        for seeds, rows in pieces(z, len(weight), self.pair_elements):
            x = self.norm(z[seeds, rows], *norm)
            values, gates = (weight @ x.view(-1, x.shape[-1]).t()).view(-1, *x.shape[:-1]).chunk(2)
            torch.mul(gates.sigmoid_(), values, out=gated[:, seeds, rows])
        gated[:, :, n_token:] = 0
        gated[..., n_token:] = 0
        return gated

    def add_triangle(
        self,
        z: torch.Tensor,
        product: torch.Tensor,
        norm: Norm,
        gate: torch.Tensor,
        norm_out: Norm,
        out: torch.Tensor,
    ) -> None:
        for seeds, rows in pieces(z, 3 * len(product), self.pair_elements):
            update = self.norm_linear(product[:, seeds, rows].permute(1, 2, 3, 0), norm_out, out)
            z[seeds, rows].addcmul_(update, torch.sigmoid(self.norm_linear(z[seeds, rows], norm, gate)))

    def add_transition(self, x: torch.Tensor, norm: Norm, expand: torch.Tensor, contract: torch.Tensor) -> None:
        for rows in torch.split(x.view(-1, x.shape[-1]), max(1, self.elements // len(expand))):
            rows.addmm_(self._swiglu(self.norm_linear(rows, norm, expand)), contract.t())

    def add_outer(
        self, z: torch.Tensor, outer: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: float
    ) -> None:
        n_row, n, _ = z.shape
        products = outer.view(n_row, -1, n, outer.shape[1] // n).transpose(1, 2).reshape(n_row, n, -1)
        z += functional.linear(products, weight, bias) / count

    def head_values(self, m: torch.Tensor, norm: Norm, weight: torch.Tensor, n_head: int) -> torch.Tensor:
        n_row, n, _ = m.shape
        values = self.norm_linear(m, norm, weight).view(n_row, n, n_head, -1)
        return values.permute(2, 1, 0, 3).reshape(n_head, n, -1)

    def add_gated_average(
        self, x: torch.Tensor, average: torch.Tensor, norm: Norm, gate: torch.Tensor, out: torch.Tensor
    ) -> None:
        gated = self.norm_linear(x, norm, gate).sigmoid_().mul_(average.flatten(-2))
        if x.is_contiguous():
            x.view(-1, x.shape[-1]).addmm_(gated.view(-1, gated.shape[-1]), out.t())
        else:
            x += functional.linear(gated, out)

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
        key, value, bias = key[:, :, :n_key], value[:, :, :n_key], bias[..., :n_key]
        for index in range(len(query)):  # the fused kernels take four dimensions and share a bias over the first
            attended = functional.scaled_dot_product_attention(
                query[index].transpose(1, 2),
                key[index].transpose(1, 2),
                value[index].transpose(1, 2),
                attn_mask=bias[index].to(query.dtype)[None],
                scale=1.0,
            )
            if gate is None:
                out[index] = attended.transpose(1, 2)
            else:
                torch.mul(attended.transpose(1, 2), torch.sigmoid(gate[index]), out=out[index])

    def mean_of_atoms(self, x: torch.Tensor, atoms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(torch.relu(x), (0, 0, 0, 1))  # the last row, of zeros, stands for no atom
        return padded[:, :, atoms].sum(dim=-2) / count.clamp(min=1)[:, None]

    def local_attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        n_atom = query.shape[2]
        attended = []
        for index in range(len(query)):
            local = functional.scaled_dot_product_attention(
                windows(query[index].transpose(1, 2), N_QUERY),
                windows(key[index].transpose(1, 2), N_KEY),
                windows(value[index].transpose(1, 2), N_KEY),
                attn_mask=bias[index].to(query.dtype),
                scale=1.0,
            )
            attended.append(local.flatten(-3, -2)[..., :n_atom, :].transpose(1, 2))
        return torch.stack(attended) * torch.sigmoid(gate)


def windows(x: torch.Tensor, width: int) -> torch.Tensor:
    """Windows of ``width`` atoms around every 32, zeros outside: [..., N_atom, c] -> [..., N_window, width, c]."""
    n_atom = x.shape[-2]
    n_window = -(-n_atom // N_QUERY)
    before = (width - N_QUERY) // 2
    after = n_window * N_QUERY - n_atom + before
    windows: torch.Tensor = functional.pad(x, (0, 0, before, after)).unfold(-2, width, N_QUERY)
    return windows.transpose(-1, -2)


def outside(n_atom: int, device: torch.device) -> torch.Tensor:
    """Whether a window's key lies outside the sequence [N_window, 1, 128]."""
    first = torch.arange(-(-n_atom // N_QUERY), device=device)[:, None, None] * N_QUERY
    atom = first + torch.arange(N_KEY, device=device) - (N_KEY - N_QUERY) // 2
    return (atom < 0) | (atom >= n_atom)


def pieces(z: torch.Tensor, width: int, elements: int | None) -> Iterator[tuple[slice, slice]]:
    """Seeds and rows of ``z`` [N_seed, N, N, c] to take at once so that ``width`` channels make ``elements`` or fewer.

    All of them if they fit or ``elements`` is None, else rows of one seed at a time.
    """
    n_seed, n = z.shape[:2]
    if elements is None or n_seed * n * n * width <= elements:
        yield slice(None), slice(None)
        return
    step = max(1, elements // (n * width))
    for seed in range(n_seed):
        for start in range(0, n, step):
            yield slice(seed, seed + 1), slice(start, start + step)
