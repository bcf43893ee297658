"""The Triton programs behind :mod:`protenix_multiseed.model.kernels.fused`, which documents their arguments.

Capital letters are compile-time constants. Indices that may pass 2**31 are 64 bits wide. Sizes of a job that only bound
indices are not specialised on, so that jobs of other sizes share what is compiled.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
MINUS_LOG2_E = tl.constexpr(-1.4426950408889634)


@triton.jit
def sigmoid(x):
    """Five instructions, where Triton's own guards its exponential and its division against what cannot come here."""
    root = tl.rsqrt(1.0 + tl.exp2(x * MINUS_LOG2_E))
    return root * root


@triton.jit(do_not_specialize=["n_row"])
def norm(
    x,
    weight,
    bias,
    out,
    n_row,
    width,
    epsilon,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    a = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(a, axis=1)[:, None] / width
    centred = tl.where(column < width, a - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / width
    a = centred * tl.rsqrt(variance + epsilon)
    if HAS_WEIGHT:
        a *= tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    if HAS_BIAS:
        a += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, a.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row", "rows_per_seed", "length"])
def modulated_norm(
    x,
    scale,
    shift,
    out,
    n_row,
    width,
    rows_per_seed,
    length,
    stride,
    epsilon,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    here = row.to(tl.int64) * width + column
    a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(a, axis=1)[:, None] / width
    centred = tl.where(column < width, a - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / width
    a = centred * tl.rsqrt(variance + epsilon)
    at = (row // rows_per_seed * length + row % length).to(tl.int64) * stride + column
    a *= sigmoid(tl.load(scale + at, mask=inside, other=0.0).to(tl.float32))
    a += tl.load(shift + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + here, a.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row", "rows_per_seed", "length"])
def add_modulated(
    x, update, gate, n_row, width, rows_per_seed, length, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    here = row.to(tl.int64) * width + column
    at = (row // rows_per_seed * length + row % length).to(tl.int64) * stride + column
    a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(update + here, mask=inside, other=0.0).to(tl.float32)
    a += b * sigmoid(tl.load(gate + at, mask=inside, other=0.0).to(tl.float32))
    tl.store(x + here, a.to(x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row"])
def swiglu(x, out, n_row, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_row) & (column < width)
    first = tl.load(x + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    a = first * sigmoid(first) * second
    tl.store(out + row * width + column, a.to(out.dtype.element_ty), mask=inside)


@triton.jit
def load_rows(x, row, size, WIDTH: tl.constexpr):
    """Whole rows of a matrix, in float32: [ROWS, WIDTH]."""
    at = row[:, None].to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
    return tl.load(x + at, mask=row[:, None] < size, other=0.0).to(tl.float32)


@triton.jit
def norm_rows(a, weight, bias, epsilon, WIDTH: tl.constexpr):
    """Layer norm of whole rows [ROWS, WIDTH], in the weight's type."""
    column = tl.arange(0, WIDTH)
    a = a - tl.sum(a, axis=1)[:, None] / WIDTH
    a *= tl.rsqrt(tl.sum(a * a, axis=1)[:, None] / WIDTH + epsilon)
    a = a * tl.load(weight + column).to(tl.float32)[None, :] + tl.load(bias + column).to(tl.float32)[None, :]
    return a.to(weight.dtype.element_ty)


@triton.jit
def load_weight(weight, first, n, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """Rows of a weight matrix [n, WIDTH] from ``first`` on: [COUNT, WIDTH], zero beyond the last."""
    row = first + tl.arange(0, COUNT)[:, None]
    return tl.load(weight + row * WIDTH + tl.arange(0, WIDTH)[None, :], mask=row < n, other=0.0)


@triton.jit(do_not_specialize=["size"])
def norm_linear(
    x, norm, shift, weight, out, size, n_out, epsilon, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    a = norm_rows(load_rows(x, row, size, WIDTH), norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        made = tl.dot(a, tl.trans(load_weight(weight, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        column = first + tl.arange(0, COLUMNS)[None, :]
        at = row[:, None].to(tl.int64) * n_out + column
        tl.store(out + at, made.to(out.dtype.element_ty), mask=(row[:, None] < size) & (column < n_out))


@triton.jit(do_not_specialize=["n", "n_row", "n_token", "n_head"])
def pair_bias(
    z,
    norm,
    shift,
    weight,
    out,
    n,
    n_row,
    n_column,
    n_token,
    o_pair,
    o_head,
    o_row,
    o_column,
    n_head,
    epsilon,
    MASKED: tl.constexpr,
    IS_TRANSPOSED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
):
    """A part of one row of pairs; rows or columns beyond ``n`` are there to be masked."""
    n_block = tl.cdiv(n_column, ROWS)
    row = tl.program_id(0) // n_block % n_row
    pair = tl.program_id(0) // (n_block * n_row)
    column = tl.program_id(0) % n_block * ROWS + tl.arange(0, ROWS)
    z += (pair * n + row).to(tl.int64) * n * WIDTH
    a = norm_rows(load_rows(z, column, tl.where(row < n, n, 0), WIDTH), norm, shift, epsilon, WIDTH)
    made = tl.dot(load_weight(weight, 0, n_head, WIDTH, HEADS), tl.trans(a), input_precision="tf32")
    head = tl.arange(0, HEADS)[:, None]
    is_key = row < n_token if IS_TRANSPOSED else column[None, :] < n_token
    made = tl.where(is_key, made, MASKED)
    out += pair.to(tl.int64) * o_pair + row * o_row
    at = head.to(tl.int64) * o_head + column[None, :] * o_column
    tl.store(out + at, made.to(out.dtype.element_ty), mask=(head < n_head) & (column[None, :] < n_column))


@triton.jit(do_not_specialize=["n", "n_token"])
def gated_channels(
    z,
    norm,
    shift,
    weight,
    out,
    size,
    n,
    n_token,
    n_out,
    epsilon,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = (row // n % n < n_token) & (row % n < n_token)
    normed = norm_rows(load_rows(z, row, size, WIDTH), norm, shift, epsilon, WIDTH)
    a = tl.trans(tl.where(real[:, None], normed, 0.0).to(normed.dtype))
    for first in range(0, n_out, COLUMNS):
        value = tl.dot(load_weight(weight, first, n_out, WIDTH, COLUMNS), a, input_precision="tf32")
        gates = load_weight(weight + n_out * WIDTH, first, n_out, WIDTH, COLUMNS)
        made = value * sigmoid(tl.dot(gates, a, input_precision="tf32"))
        channel = first + tl.arange(0, COLUMNS)[:, None]
        at = channel.to(tl.int64) * size + row[None, :]
        inside = (channel < n_out) & (row[None, :] < size)
        tl.store(out + at, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_triangle(
    z,
    product,
    norm,
    shift,
    gate,
    norm_out,
    shift_out,
    weight,
    size,
    epsilon,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < size
    channel = tl.arange(0, HIDDEN)[:, None]
    p = tl.load(product + channel.to(tl.int64) * size + row[None, :], mask=inside[None, :], other=0.0).to(tl.float32)
    p = norm_rows(tl.trans(p), norm_out, shift_out, epsilon, HIDDEN)
    update = tl.dot(p, tl.trans(load_weight(weight, 0, WIDTH, HIDDEN, WIDTH)), input_precision="tf32")
    a = load_rows(z, row, size, WIDTH)
    gates = tl.trans(load_weight(gate, 0, WIDTH, WIDTH, WIDTH))
    gated = tl.dot(norm_rows(a, norm, shift, epsilon, WIDTH), gates, input_precision="tf32")
    a += update * sigmoid(gated)
    at = row[:, None].to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(z + at, a.to(z.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["size"])
def add_transition(
    x,
    norm,
    shift,
    expand,
    contract,
    size,
    n_hidden,
    epsilon,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    a = load_rows(x, row, size, WIDTH)
    normed = norm_rows(a, norm, shift, epsilon, WIDTH)
    for first in range(0, n_hidden, HIDDEN):
        one = tl.dot(normed, tl.trans(load_weight(expand, first, n_hidden, WIDTH, HIDDEN)), input_precision="tf32")
        others = load_weight(expand + n_hidden * WIDTH, first, n_hidden, WIDTH, HIDDEN)
        other = tl.dot(normed, tl.trans(others), input_precision="tf32")
        hidden = (one * sigmoid(one) * other).to(contract.dtype.element_ty)
        at = first + tl.arange(0, HIDDEN)
        back = tl.load(contract + column[:, None] * n_hidden + at[None, :], mask=at[None, :] < n_hidden, other=0.0)
        a = tl.dot(hidden, tl.trans(back), a, input_precision="tf32")
    at_rows = row[:, None].to(tl.int64) * WIDTH + column[None, :]
    tl.store(x + at_rows, a.to(x.dtype.element_ty), mask=row[:, None] < size)


@triton.jit(do_not_specialize=["n"])
def add_outer(z, outer, weight, bias, n, count, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr):
    n_block = tl.cdiv(n, ROWS)
    first = (tl.program_id(0) // n_block).to(tl.int64)
    second = tl.program_id(0) % n_block * ROWS + tl.arange(0, ROWS)
    inside = second[:, None] < n
    channel, column = tl.arange(0, HIDDEN)[None, :], tl.arange(0, WIDTH)
    stride = n.to(tl.int64) * HIDDEN
    outer += first * HIDDEN * stride + second[:, None] * HIDDEN + channel
    made = tl.zeros([ROWS, WIDTH], tl.float32)
    for part in range(HIDDEN):
        products = tl.load(outer + part * stride, mask=inside, other=0.0)
        of_part = tl.load(weight + column[:, None] * (HIDDEN * HIDDEN) + part * HIDDEN + channel)
        made = tl.dot(products, tl.trans(of_part), made, input_precision="tf32")
    made = (made + tl.load(bias + column).to(tl.float32)[None, :]) / count
    at = (first * n + second[:, None]) * WIDTH + column[None, :]
    made += tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(z + at, made.to(z.dtype.element_ty), mask=inside)


@triton.jit
def places_of_heads(first, row, token, n_row, n, HEAD: tl.constexpr, COLUMNS: tl.constexpr):
    """Where channels from ``first`` on of a token's rows lie, of tensors [n_head, n, n_row, HEAD]."""
    channel = first + tl.arange(0, COLUMNS)[None, :]
    return ((channel // HEAD * n + token).to(tl.int64) * n_row + row[:, None]) * HEAD + channel % HEAD


@triton.jit(do_not_specialize=["n_row", "n"])
def head_values(
    x,
    norm,
    shift,
    weight,
    out,
    n_row,
    n,
    n_out,
    epsilon,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of one token's rows: what is read lies in whole lines of memory, what is written in a piece a head."""
    token = tl.program_id(0) % n
    row = tl.program_id(0) // n * ROWS + tl.arange(0, ROWS)
    a = norm_rows(load_rows(x, row * n + token, n_row * n, WIDTH), norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        made = tl.dot(a, tl.trans(load_weight(weight, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        inside = (row[:, None] < n_row) & (first + tl.arange(0, COLUMNS)[None, :] < n_out)
        at = places_of_heads(first, row, token, n_row, n, HEAD, COLUMNS)
        tl.store(out + at, made.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row", "n"])
def add_gated_average(
    x,
    average,
    norm,
    shift,
    gate,
    weight,
    n_row,
    n,
    n_out,
    epsilon,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    token = tl.program_id(0) % n
    row = tl.program_id(0) // n * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    a = load_rows(x, row * n + token, n_row * n, WIDTH)
    normed = norm_rows(a, norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        gates = tl.dot(normed, tl.trans(load_weight(gate, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        channel = first + tl.arange(0, COLUMNS)[None, :]
        inside = (row[:, None] < n_row) & (channel < n_out)
        at = places_of_heads(first, row, token, n_row, n, HEAD, COLUMNS)
        gated = tl.load(average + at, mask=inside, other=0.0).to(tl.float32) * sigmoid(gates)
        back = tl.load(weight + column[:, None] * n_out + channel, mask=channel < n_out, other=0.0)
        a = tl.dot(gated.to(weight.dtype.element_ty), tl.trans(back), a, input_precision="tf32")
    at_rows = (row * n + token)[:, None].to(tl.int64) * WIDTH + column[None, :]
    tl.store(x + at_rows, a.to(x.dtype.element_ty), mask=row[:, None] < n_row)


@triton.jit(do_not_specialize=["n_atom", "n_token", "most"])
def mean_of_atoms(x, atoms, count, out, n_atom, n_token, most, width, COLUMNS: tl.constexpr):
    token = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    n = tl.load(count + token)
    total = tl.zeros([COLUMNS], tl.float32)
    for nth in range(0, n):
        atom = tl.load(atoms + token * most + nth)
        a = tl.load(x + (sample * n_atom + atom) * width + column, mask=column < width, other=0.0).to(tl.float32)
        total += tl.maximum(a, 0.0)
    total /= tl.maximum(n, 1).to(tl.float32)
    tl.store(out + (sample * n_token + token) * width + column, total.to(out.dtype.element_ty), mask=column < width)


@triton.jit
def load_heads(at, in_channel, IS_WHOLE: tl.constexpr):
    """A block of queries, keys or values [BLOCK, WIDTH]."""
    return tl.load(at) if IS_WHOLE else tl.load(at, mask=in_channel, other=0.0)


@triton.jit
def attend_block(q, k, v, b, one, highest, total, attended):
    """One block of keys of the online softmax.

    Biases of 16 bits are added as their product with the identity ``one``, which is exact: the matrix units have time,
    and read them as they lie in memory, where all else would be converted and moved between threads.
    """
    if q.dtype == tl.float32:  # as powers of two: a bias that is only added would be read when it is wanted, not ahead
        logits = tl.dot(q, tl.trans(k), input_precision="tf32") * LOG2_E + b * LOG2_E
    else:
        logits = tl.dot(q, tl.trans(k), tl.dot(one, b))
    unit: tl.constexpr = 1.0 if q.dtype == tl.float32 else LOG2_E
    now = tl.maximum(highest, tl.max(logits, axis=1))
    weight = tl.exp2(logits * unit - (now * unit)[:, None])
    shrink = tl.exp2((highest - now) * unit)
    # Eight sums a row, each of which stays within a thread; their sum can wait.
    sums = tl.sum(tl.reshape(weight, (weight.shape[0], weight.shape[1] // 8, 8)), axis=1)
    total = total * shrink[:, None] + sums
    attended = attended * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="tf32")
    return now, total, attended


@triton.jit
def store_attended(out, gate, attended, total, inside, in_channel):
    """Gate what is attended to and store it."""
    g = tl.load(gate, mask=in_channel, other=0.0).to(tl.float32)
    made = attended / tl.sum(total, axis=1)[:, None] * sigmoid(g)
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
    IS_WHOLE: tl.constexpr,
    IS_PAIR: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One head's block of queries, or two such of rows that share a bias.

    A block of biases is as large as those of keys and values together, and is read once for both rows.
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
    at_rows = base + read * q_row + channel
    q = load_heads(query + at_rows, in_channel, IS_WHOLE)
    # Offsets within a block are small, and only these and no pointers are held from block to block.
    column = tl.arange(0, BLOCK_N)
    row_stride = q_row.to(tl.int64)
    at_bias = tl.minimum(row, n_query - 1)[:, None] * b_row + column[None, :] * b_column
    key += base
    value += base
    bias += seed * b_seed + head * b_head
    highest = tl.full([BLOCK_M], -1.0e30, tl.float32)
    total = tl.zeros([BLOCK_M, 8], tl.float32)
    attended = tl.zeros([BLOCK_M, WIDTH], tl.float32)
    if IS_PAIR:
        is_two = (shared + 1 < n_shared).to(tl.int64)  # the last of an odd number is done twice
        q_next, o_next = is_two * q_shared, is_two * o_shared
        q_2 = load_heads(query + q_next + at_rows, in_channel, IS_WHOLE)
        highest_2, total_2, attended_2 = highest, total, attended
    # Read, not made: the matrix units take it from where it is read to, and what is made through registers every time.
    one = tl.load(identity + tl.arange(0, BLOCK_M)[:, None] * n_identity + tl.arange(0, BLOCK_M)[None, :])
    for start in range(0, n_key, BLOCK_N):
        # Beyond the last key it is read again, and its bias lets nothing through.
        at_keys = start * row_stride + tl.minimum(column, n_key - 1 - start)[:, None] * q_row + channel
        b = tl.load(bias + start * b_column + at_bias)
        k = load_heads(key + at_keys, in_channel, IS_WHOLE)
        v = load_heads(value + at_keys, in_channel, IS_WHOLE)
        highest, total, attended = attend_block(q, k, v, b, one, highest, total, attended)
        if IS_PAIR:
            k = load_heads(key + q_next + at_keys, in_channel, IS_WHOLE)
            v = load_heads(value + q_next + at_keys, in_channel, IS_WHOLE)
            highest_2, total_2, attended_2 = attend_block(q_2, k, v, b, one, highest_2, total_2, attended_2)
    at_out = seed * o_seed + shared * o_shared + head * o_head + read * o_row + channel
    inside = (row[:, None] < n_query) & in_channel
    store_attended(out + at_out, gate + at_rows, attended, total, inside, in_channel)
    if IS_PAIR:
        store_attended(out + o_next + at_out, gate + q_next + at_rows, attended_2, total_2, inside, in_channel)


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


# Triton names a compiled program after those it calls, but differently if their own names were not made before: made in
# this order, callees first, they are the same in every process, which then finds what another compiled.
for _program in [value for value in globals().values() if hasattr(value, "params")]:
    getattr(_program, "cache_key", None)  # none where programs are interpreted
