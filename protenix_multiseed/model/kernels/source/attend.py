"""Attention with a bias, over all keys and over windows of atoms."""

import triton
import triton.language as tl

from protenix_multiseed.model.kernels.source.rows import sigmoid

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_heads(at, in_channel, IS_WHOLE: tl.constexpr):
    """A block of queries, keys or values [BLOCK, WIDTH]."""
    return tl.load(at) if IS_WHOLE else tl.load(at, mask=in_channel, other=0.0)


@triton.jit
def attend_block(
    q, k, v, q_rest, k_rest, v_rest, b, one, highest, total, attended, attended_rest, HAS_REST: tl.constexpr
):
    """One block of keys of the online softmax; values of 32 bits come in the order of :func:`order_of_values`.

    Biases of 16 bits are added as their product with the identity ``one``, which is exact: the matrix units have time,
    and read them as they lie in memory, where all else would be converted and moved between threads. What is added to
    products of 32 bits is added by a fused multiplication: only added, it would be what the product starts from, which
    is not read ahead, and which keeps the product from being pipelined.
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
    # Eight sums a row, each of which stays within a thread; their sum can wait.
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
    """What was attended to so far, with that of another block of keys."""
    shrink = tl.broadcast_to(shrink[:, None], attended.shape)
    if v.dtype == tl.float32:
        return tl.fma(attended, shrink, tl.dot(weight, v, input_precision="tf32"))
    else:
        return attended * shrink + tl.dot(weight.to(v.dtype), v)


@triton.jit
def order_of_values(column, IS_TURNED: tl.constexpr):
    """In which order a block's values are read.

    Of 8 logits the matrix units give a thread two neighbours; of 8 weights of 32 bits they take every fourth from it.
    With values in this order these are the same, and no weight is moved between threads.
    """
    return column // 8 * 8 + column % 4 * 2 + column % 8 // 4 if IS_TURNED else column


@triton.jit
def store_attended(out, gate, attended, total, inside, in_channel, HAS_GATE: tl.constexpr):
    """Gate what is attended to, if it is gated here, and store it."""
    made = attended / tl.sum(total, axis=1)[:, None]
    if HAS_GATE:
        made *= sigmoid(tl.load(gate, mask=in_channel, other=0.0).to(tl.float32))
    tl.store(out, made.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_query", "n_key", "n_shared", "n_head"])
def attention(
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
    """One head's block of queries, or two such of rows that share a bias.

    A block of biases is as large as those of keys and values together, and is read once for both rows. A head of 48
    channels is taken as 32 and a rest of 16, since only powers of two can be the size of a block.
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
    # Offsets within a block are small, and only these and no pointers are held from block to block.
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
        is_two = (shared + 1 < n_shared).to(tl.int64)  # the last of an odd number is done twice
        q_next, o_next = is_two * q_shared, is_two * o_shared
        q_2 = load_heads(query + q_next + at_rows + channel, in_channel, IS_WHOLE)
        highest_2, total_2, attended_2 = highest, total, attended
    # Read, not made: the matrix units take it from where it is read to, and what is made through registers every time.
    one = tl.load(identity + column[:, None] * n_identity + column[None, :])
    for start in range(0, n_key, BLOCK_N):
        # Beyond the last key it is read again, and its bias lets nothing through.
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
        gate = out  # read nowhere
    is_row = row[:, None] < n_query
    store_attended(out + channel, gate + channel, attended, total, is_row & in_channel, in_channel, HAS_GATE)
    if REST:
        store_attended(out + rest, gate + rest, attended_rest, total, is_row, rest >= WIDTH, HAS_GATE)
    if IS_PAIR:
        out += o_next + channel
        gate += q_next + channel
        store_attended(out, gate, attended_2, total_2, is_row & in_channel, in_channel, HAS_GATE)


@triton.jit(do_not_specialize=["n_atom", "n_window", "n_shared", "n_head"])
def local_attention(
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
    window = tl.program_id(0) // n_head
    head = tl.program_id(0) % n_head
    shared = (tl.program_id(1) % n_shared).to(tl.int64)
    seed = (tl.program_id(1) // n_shared).to(tl.int64)
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
