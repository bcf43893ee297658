"""Attention with a bias: triangle attention over rows of the pair representation, and attention over tokens."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import MAX_IDENTITY, Kernels, mask_keys, split_heads
from protenix_multiseed.kernels.device_functions import sigmoid
from protenix_multiseed.kernels.language import launch, tl, triton
from protenix_multiseed.kernels.operation import Case, Inputs, Operation
from protenix_multiseed.kernels.ops import attention_hopper, attention_hopper_tokens
from protenix_multiseed.kernels.ops.attention_hopper import MIN_SPLIT
from protenix_multiseed.kernels.ops.attention_hopper_tokens import MIN_TOKENS
from protenix_multiseed.kernels.ops.pair_bias import pair_bias


class AttentionTiles(NamedTuple):
    """Tile sizes and launch options of the attention kernel.

    Attributes:
        pairs: Whether one thread block processes two rows that share a bias, so that it reads the bias once.
        queries, keys: Numbers of queries and keys in one tile.
        warps: Warps of one thread block.
        stages: Stages of the software pipeline.
        registers: Maximum number of registers of one thread. None: the compiler decides.
    """

    pairs: bool
    queries: int
    keys: int
    warps: int
    stages: int
    registers: int | None = None


# Keys: dtype and channels of a head, after padding. The fastest tiles on an H100 of those in scripts/tune_kernels.py.
TILES: dict[tuple[torch.dtype, int], AttentionTiles] = {
    (torch.bfloat16, 32): AttentionTiles(True, 64, 32, 4, 3),
    (torch.bfloat16, 48): AttentionTiles(False, 64, 32, 4, 3, 96),
    (torch.float16, 48): AttentionTiles(False, 64, 32, 4, 3, 96),
    (torch.float32, 32): AttentionTiles(True, 128, 32, 8, 3, 128),
    (torch.float32, 48): AttentionTiles(False, 128, 32, 8, 3, 128),
}
OTHER_TILES = AttentionTiles(False, 64, 32, 4, 2)


@Operation
def attention(
    kernels: Kernels,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor | None,
    bias: torch.Tensor,
    out: torch.Tensor,
    n_key: int,
) -> None:
    """Write ``softmax(query key^T + bias) value * sigmoid(gate)`` into ``out``. Queries are already scaled.

    Args:
        query, key, value, gate: [A, B, N, n_head, c], all with the same strides. The last dimension is contiguous.
            If ``gate`` is None, the output is not gated.
        out: [A, B, N, n_head, c]. It may have other strides; the last dimension is contiguous.
        bias: [A, n_head, N, N], finite, with any strides. In memory, rows are padded to a multiple of ``key_block``
            keys, and hold the bias of a masked key (:func:`~protenix_multiseed.kernels.base.masked`) from ``n_key`` on.
        n_key: Keys from this one on are padding.
    """
    key, value, bias = key[:, :, :n_key], value[:, :, :n_key], bias[..., :n_key]
    for index in range(len(query)):  # PyTorch's fused attention takes 4 dimensions and broadcasts a bias over the first
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


LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_heads(at, in_channel, IS_WHOLE: tl.constexpr):
    """Load a block of queries, keys or values [BLOCK, WIDTH]. IS_WHOLE: no channel is padding, so no mask is needed."""
    return tl.load(at) if IS_WHOLE else tl.load(at, mask=in_channel, other=0.0)


@triton.jit
def attend_block(
    q, k, v, q_rest, k_rest, v_rest, b, one, highest, total, attended, attended_rest, HAS_REST: tl.constexpr
):
    """Process one block of keys in the online softmax. 32-bit values are in the order of :func:`order_of_values`.

    16-bit biases are multiplied by the identity matrix ``one`` in the matrix units, and the product is the start value
    of the logits. This is exact, and the matrix units have time to spare. They read the biases as they lie in memory;
    a plain addition would convert the biases and move them between threads.

    32-bit biases are added to the logits by a fused multiply-add with factor 1. With a plain addition the compiler
    would make the biases the start value of the product. A start value is not prefetched, and it keeps the product
    from being pipelined. The running sums of attended values are added in the same way.
    """
    if q.dtype == tl.float32:
        logits = tl.dot(q, tl.trans(k), input_precision="tf32")
    else:
        logits = tl.dot(q, tl.trans(k), tl.dot(b, one))
    if HAS_REST:
        logits = tl.dot(q_rest, tl.trans(k_rest), logits, input_precision="tf32")
    if q.dtype == tl.float32:
        logits = tl.fma(logits, 1.0, b)
    now = tl.maximum(highest, tl.max(logits, axis=1))
    weight = tl.exp2(logits * LOG2_E - (now * LOG2_E)[:, None])
    shrink = tl.exp2((highest - now) * LOG2_E)
    # Eight partial sums for each row, so that each sum stays within one thread. They are added up after the last block.
    sums = tl.sum(tl.reshape(weight, (weight.shape[0], weight.shape[1] // 8, 8)), axis=1)
    total = total * shrink[:, None] + sums
    if q.dtype == tl.float32:
        pairs = tl.reshape(weight, (weight.shape[0], weight.shape[1] // 8, 4, 2))
        weight = tl.reshape(tl.permute(pairs, (0, 1, 3, 2)), weight.shape)
    attended = shrink_and_add(attended, shrink, weight, v)
    if HAS_REST:
        attended_rest = shrink_and_add(attended_rest, shrink, weight, v_rest)
    return now, total, attended, attended_rest


@triton.jit
def shrink_and_add(attended, shrink, weight, v):
    """Rescale the sum of attended values so far, and add the values of another block of keys."""
    shrink = tl.broadcast_to(shrink[:, None], attended.shape)
    if v.dtype == tl.float32:
        return tl.fma(attended, shrink, tl.dot(weight, v, input_precision="tf32"))
    else:
        return attended * shrink + tl.dot(weight.to(v.dtype), v)


@triton.jit
def order_of_values(column, IS_TURNED: tl.constexpr):
    """Order in which the values of a block are read. IS_TURNED is for 32 bits; otherwise the order is unchanged.

    Of 8 logits, the matrix units give each thread two neighbours. Of 8 weights in 32 bits, the next product takes every
    fourth from each thread. With the values in this order a thread already holds the weights that the product takes,
    so no weight moves between threads.
    """
    return column // 8 * 8 + column % 4 * 2 + column % 8 // 4 if IS_TURNED else column


@triton.jit
def store_attended(out, gate, attended, total, inside, in_channel, HAS_GATE: tl.constexpr):
    """Divide the attended values by the sum of weights, apply the gate if HAS_GATE, and store them."""
    made = attended / tl.sum(total, axis=1)[:, None]
    if HAS_GATE:
        made *= sigmoid(tl.load(gate, mask=in_channel, other=0.0).to(tl.float32))
    tl.store(out, made.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_query", "n_key", "n_shared", "n_head"])
def attention_kernel(
    query,
    key,
    value,
    gate,
    bias,
    identity,
    out,
    q_seed,
    q_shared,
    q_row,
    q_head,
    b_seed,
    b_head,
    b_row,
    b_column,
    o_seed,
    o_shared,
    o_row,
    o_head,
    n_query,
    n_key,
    n_shared,
    n_head,
    width,
    n_identity,
    WIDTH: tl.constexpr,
    REST: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    IS_PAIR: tl.constexpr,
    HAS_GATE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One block of queries of one head. With IS_PAIR: the same block of queries in two rows that share a bias.

    A block of biases is as large as the blocks of keys and values together, so with IS_PAIR it is read once for both
    rows. A head of 48 channels is split into 32 channels and a rest of 16, because block sizes must be powers of two.
    """
    n_block = tl.cdiv(n_query, BLOCK_M)
    n_group = tl.cdiv(n_shared, 2) if IS_PAIR else n_shared
    pid = tl.program_id(0)
    block = pid % n_block
    head = (pid // n_block % n_head).to(tl.int64)
    shared = (pid // (n_block * n_head) % n_group).to(tl.int64)
    if IS_PAIR:
        shared *= 2
    seed = (pid // (n_block * n_head * n_group)).to(tl.int64)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    read = tl.minimum(row, n_query - 1).to(tl.int64)[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    in_channel = channel < width
    base = seed * q_seed + shared * q_shared + head * q_head
    rest = WIDTH + tl.arange(0, REST)[None, :] if REST else channel
    at_rows = base + read * q_row
    q = load_heads(query + at_rows + channel, in_channel, IS_WHOLE)
    q_rest = tl.load(query + at_rows + rest) if REST else q
    # From block to block only offsets within a block are kept: a pointer for each element would need more registers.
    column = tl.arange(0, BLOCK_N)
    turned = order_of_values(column, query.dtype.element_ty == tl.float32)
    row_stride = q_row.to(tl.int64)
    at_bias = tl.minimum(row, n_query - 1)[:, None] * b_row + column[None, :] * b_column
    key += base
    value += base
    bias += seed * b_seed + head * b_head
    highest = tl.full([BLOCK_M], -1.0e30, tl.float32)
    total = tl.zeros([BLOCK_M, 8], tl.float32)
    attended = tl.zeros([BLOCK_M, WIDTH], tl.float32)
    attended_rest = tl.zeros([BLOCK_M, REST], tl.float32) if REST else attended
    if IS_PAIR:
        is_two = (shared + 1 < n_shared).to(tl.int64)  # if the number of rows is odd, the last row is computed twice
        q_next, o_next = is_two * q_shared, is_two * o_shared
        q_2 = load_heads(query + q_next + at_rows + channel, in_channel, IS_WHOLE)
        highest_2, total_2, attended_2 = highest, total, attended
    # The identity is loaded, not computed: the matrix units read a loaded matrix directly. A computed matrix would go
    # through registers for every block of keys.
    one = tl.load(identity + column[:, None] * n_identity + column[None, :])
    for start in range(0, n_key, BLOCK_N):
        # Positions after the last key load the last key again. Their bias is a masked key's, so their weight is zero.
        of_key = start * row_stride + tl.minimum(column, n_key - 1 - start)[:, None] * q_row
        of_value = start * row_stride + tl.minimum(turned, n_key - 1 - start)[:, None] * q_row
        at_keys, at_values = of_key + channel, of_value + channel
        b = tl.load(bias + start * b_column + at_bias)
        k = load_heads(key + at_keys, in_channel, IS_WHOLE)
        v = load_heads(value + at_values, in_channel, IS_WHOLE)
        k_rest = tl.load(key + (of_key + rest)) if REST else k
        v_rest = tl.load(value + (of_value + rest)) if REST else v
        highest, total, attended, attended_rest = attend_block(
            q, k, v, q_rest, k_rest, v_rest, b, one, highest, total, attended, attended_rest, REST > 0
        )
        if IS_PAIR:
            k = load_heads(key + q_next + at_keys, in_channel, IS_WHOLE)
            v = load_heads(value + q_next + at_values, in_channel, IS_WHOLE)
            highest_2, total_2, attended_2, _ = attend_block(
                q_2, k, v, q_2, k, v, b, one, highest_2, total_2, attended_2, attended_2, False
            )
    out += seed * o_seed + shared * o_shared + head * o_head + read * o_row
    if HAS_GATE:
        gate += at_rows
    else:
        gate = out  # a placeholder that is never read
    is_row = row[:, None] < n_query
    store_attended(out + channel, gate + channel, attended, total, is_row & in_channel, in_channel, HAS_GATE)
    if REST:
        store_attended(out + rest, gate + rest, attended_rest, total, is_row, rest >= WIDTH, HAS_GATE)
    if IS_PAIR:
        out += o_next + channel
        gate += q_next + channel
        store_attended(out, gate, attended_2, total_2, is_row & in_channel, in_channel, HAS_GATE)


attention.triton(attention_hopper.fits)(attention_hopper.attend)
attention.triton(attention_hopper_tokens.fits)(attention_hopper_tokens.attend)


@attention.triton()
def _(
    kernels: Kernels,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor | None,
    bias: torch.Tensor,
    out: torch.Tensor,
    n_key: int,
) -> None:
    n_seed, shared, n, n_head, width = query.shape
    whole, rest = _split_head_width(width)
    tiles = TILES.get((query.dtype, whole + rest), OTHER_TILES)
    is_pair = tiles.pairs and shared > 1 and not rest
    grid = (triton.cdiv(n, tiles.queries) * triton.cdiv(shared, 2 if is_pair else 1) * n_seed * n_head,)
    launch(
        attention_kernel, grid, query, key, value, gate, bias, kernels.identity(query), out, *query.stride()[:4],
        *bias.stride(), *out.stride()[:4], n, n_key, shared, n_head, width, MAX_IDENTITY, whole, rest,
        width == whole + rest, is_pair, gate is not None, tiles.queries, tiles.keys,
        num_warps=tiles.warps, num_stages=tiles.stages, maxnreg=tiles.registers,
    )  # fmt: skip


def _split_head_width(width: int) -> tuple[int, int]:
    """Split the channels of a head into block sizes that are powers of two and at least 16.

    Returns:
        Two block sizes that add up to ``width``; or one block size of at least ``width``, and 0.
    """
    whole = 1 << width.bit_length() - 1
    rest = width - whole
    if rest >= 16 and rest & (rest - 1) == 0:
        return whole, rest
    return max(16, triton.next_power_of_2(width)), 0


@attention.probed_in_half_too
def _(inputs: Inputs) -> Iterator[Case]:
    # Attention over pairs (gated elsewhere) with an odd and an even number of rows; then attention over tokens. Hopper
    # GPUs have other tiles or another kernel for many tokens. Few of them are keys, so that the case is small.
    many_pairs = [(3, 3, MIN_SPLIT + 11, n_key, 2, 32) for n_key in (75, 90, 128)]  # 11, 26 and 64 in the last block
    of_pairs = [] if inputs.is_half else [(3, 3, 48, 43, 2, 32), (3, 2, 48, 43, 2, 32), *many_pairs]
    of_tokens = [(4, 1, 48, 43, 2, 24), (4, 2, 139, 137, 1, 48), (4, 1, MIN_TOKENS + 70, 75, 1, 48)]
    for n_part, shared, length, n_key, n_head, width in (*of_pairs, *of_tokens):
        parts = split_heads(inputs.random(2, shared, length, n_part * n_head * width) / 2, n_part, n_head)
        bias = inputs.random(n_head, 2, length, length).transpose(0, 1)
        yield _case(parts, bias, n_key)
    # One key outweighs all others by far, and is not among the first.
    of_pairs = [] if inputs.is_half else [(3, 3, 139, 137, 2, 32), many_pairs[0]]
    for n_part, shared, length, n_key, _, width in (*of_pairs, (4, 1, MIN_TOKENS + 6, 75, 2, 48)):
        parts = split_heads(inputs.random(1, shared, length, n_part * 2 * width) / 2, n_part, 2)
        bias = inputs.random(1, 2, length, length)
        bias[..., 70] += 200
        yield _case(parts, bias, n_key)
    if inputs.is_half:
        return
    # More than one block of keys, with biases from the pair_bias operation.
    length = 72
    z, linear = inputs.random(1, length, length, 64), inputs.linear(2, 64)
    parts = split_heads(inputs.random(1, 2, length, 3 * 2 * 32) / 2, 3, 2)
    for starting in (True, False):
        yield _case_of_pairs(parts, (z, linear, inputs.lengths(length - 7), starting))


def _case(parts: list[torch.Tensor], bias: torch.Tensor, n_key: int) -> Case:
    return lambda kernels: _attend(kernels, parts, mask_keys(bias, n_key, kernels.key_block), n_key)


def _case_of_pairs(parts: list[torch.Tensor], of_bias: tuple[Any, ...]) -> Case:
    return lambda kernels: _attend(kernels, parts, pair_bias(kernels, *of_bias)[0], of_bias[2].most)


def _attend(kernels: Kernels, parts: list[torch.Tensor], bias: torch.Tensor, n_key: int) -> torch.Tensor:
    query, key, value, *gates = parts
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    attention(kernels, query, key, value, gates[0] if gates else None, bias, out, n_key)
    return out
