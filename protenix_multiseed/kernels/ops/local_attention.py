"""Alg. 7: attention in local windows of atoms."""

from collections.abc import Iterator

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import N_KEY, N_QUERY, Kernels, split_heads
from protenix_multiseed.kernels.device_functions import sigmoid
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation

_WARPS = 2
LOG2_E = tl.constexpr(1.4426950408889634)


@Operation
def local_attention(
    kernels: Kernels,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Gated attention of each window of 32 query atoms to the 128 key atoms around it -> [A, B, N_atom, n_head, c].

    Args:
        query, key, value, gate: [A, B, N_atom, n_head, c]. Queries are already scaled. ``gate`` is before its sigmoid.
        bias: [A, n_head, N_window, 32, 128]. It masks keys outside the sequence with a large negative value.
    """
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
    """Windows of ``width`` atoms, centred on each block of 32 atoms; zero outside the sequence.

    [..., N_atom, c] -> [..., N_window, width, c].
    """
    n_atom = x.shape[-2]
    n_window = -(-n_atom // N_QUERY)
    before = (width - N_QUERY) // 2
    after = n_window * N_QUERY - n_atom + before
    made: torch.Tensor = functional.pad(x, (0, 0, before, after)).unfold(-2, width, N_QUERY)
    return made.transpose(-1, -2)


def outside(n_atom: int, device: torch.device, n_window: int | None = None) -> torch.Tensor:
    """Whether a window's key lies outside the sequence [N_window, 1, 128].

    Args:
        n_window: Number of windows; None: those of the sequence.
    """
    first = torch.arange(n_window or -(-n_atom // N_QUERY), device=device)[:, None, None] * N_QUERY
    atom = first + torch.arange(N_KEY, device=device) - (N_KEY - N_QUERY) // 2
    return (atom < 0) | (atom >= n_atom)


@triton.jit(do_not_specialize=["n_atom", "n_window", "n_shared", "n_head"])
def local_attention_kernel(
    query,
    key,
    value,
    gate,
    bias,
    out,
    q_seed,
    q_shared,
    q_row,
    q_head,
    o_seed,
    o_shared,
    o_row,
    o_head,
    n_atom,
    n_window,
    n_shared,
    n_head,
    width,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    window = tl.program_id(0) // n_head % n_window
    head = tl.program_id(0) % n_head
    sample = tl.program_id(0) // (n_head * n_window)
    shared = (sample % n_shared).to(tl.int64)
    seed = (sample // n_shared).to(tl.int64)
    rows = window * QUERIES + tl.arange(0, QUERIES)
    columns = window * QUERIES - (KEYS - QUERIES) // 2 + tl.arange(0, KEYS)
    channel = tl.arange(0, WIDTH)
    base = seed * q_seed + shared * q_shared + head * q_head
    in_rows = (rows[:, None] < n_atom) & (channel[None, :] < width)
    in_columns = (columns[:, None] >= 0) & (columns[:, None] < n_atom) & (channel[None, :] < width)
    at_rows = base + rows[:, None].to(tl.int64) * q_row + channel[None, :]
    at_columns = base + columns[:, None].to(tl.int64) * q_row + channel[None, :]
    q = tl.load(query + at_rows, mask=in_rows, other=0.0)
    k = tl.load(key + at_columns, mask=in_columns, other=0.0)
    v = tl.load(value + at_columns, mask=in_columns, other=0.0)
    tile = ((seed * n_head + head) * n_window + window) * QUERIES * KEYS
    at_bias = tl.arange(0, QUERIES)[:, None] * KEYS + tl.arange(0, KEYS)[None, :]
    b = tl.load(bias + tile + at_bias).to(tl.float32)
    logits = tl.dot(q, tl.trans(k), input_precision="tf32") + b
    weight = tl.exp2((logits - tl.max(logits, axis=1)[:, None]) * LOG2_E)
    attended = tl.dot(weight.to(v.dtype), v, input_precision="tf32") / tl.sum(weight, axis=1)[:, None]
    attended *= sigmoid(tl.load(gate + at_rows, mask=in_rows, other=0.0).to(tl.float32))
    at_out = seed * o_seed + shared * o_shared + head * o_head + rows[:, None].to(tl.int64) * o_row + channel[None, :]
    tl.store(out + at_out, attended.to(out.dtype.element_ty), mask=in_rows)


@local_attention.triton()
def _(
    kernels: Kernels,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    n_seed, shared, n_atom, n_head, width = query.shape
    out = query.new_empty(query.shape)
    n_window = bias.shape[2]
    launch(
        local_attention_kernel, (n_window * n_head * shared * n_seed,), query, key, value, gate, bias, out,
        *query.stride()[:4], *out.stride()[:4], n_atom, n_window, shared, n_head, width,
        max(16, triton.next_power_of_2(width)), N_QUERY, N_KEY, num_warps=_WARPS,
    )  # fmt: skip
    return out


@local_attention.probed_in_half_too
def _(inputs: Inputs) -> Iterator[Case]:
    n = 35
    bias = inputs.random(2, 4, 2, 32, 128) + outside(n, inputs.device) * -1e4
    parts = split_heads(inputs.random(2, 2, n, 4 * 4 * 32) / 2, 4, 4)
    yield local_attention.making(*parts, bias.to(inputs.dtype))
