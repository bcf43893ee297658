"""Attention over tokens on Hopper GPUs (compute capability 9.0), in 16 bits with gated heads of 48 channels.

It computes the operation of :mod:`.attention`, and :mod:`.attention` calls it. It is written in Gluon. The softmax is
that of :mod:`..device_functions_hopper_attention`. What differs from :mod:`.attention_hopper`:

* Sizes in Gluon are powers of two, so the 48 channels of a head are fetched and multiplied as 32 and 16.
* Queries are split into parts of 64. A tile has four successive parts, one for each of four groups of four warps. They
  may be the last ones of one sample and head and the first ones of the next; so keys and values have two places.
* A group keeps its queries in registers: from shared memory they would be read again for each block of keys.
* In float16 a tile is computed once, with the running maximum.
"""

from typing import Any

import torch

from protenix_multiseed.kernels.attention_arguments_hopper import are_readable, describe_bias, inverse_of
from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.device_functions_hopper import make_barriers, sigmoid, widen
from protenix_multiseed.kernels.device_functions_hopper_attention import (
    GROUPS,
    KEYS,
    MAX_SUM,
    N_GROUP,
    N_KEY,
    N_PART,
    PART,
    STAGES,
    divide,
    highest_of_few,
    is_due,
    leave,
    reciprocal,
    transposed,
    weigh,
)
from protenix_multiseed.kernels.language import TensorDescriptor, gl, gluon, hopper, launch

# On an H200, five seeds with five samples of 600 tokens take 125 us, with the general kernel 164 us; in float16 138 and
# 166 us. Five samples of 2,000 tokens take about 195 and 329 us.
MIN_TOKENS = 576
N_WIDE, N_REST = 32, 16
WIDE = gl.constexpr(N_WIDE)  # channels of the two parts of a head
REST = gl.constexpr(N_REST)
CHANNELS = N_WIDE + N_REST
SIZES = [
    "g_seed", "g_shared", "g_row", "g_head", "o_seed", "o_shared", "o_row", "o_head", "n_query", "n_shared", "n_head",
    "n_part", "n_unit", "inverse_shared", "inverse_head", "inverse_part", "n_block", "n_tile",
]  # fmt: skip
S_LAYOUT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N_KEY, 16]))  # logits
WIDE_LAYOUT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N_WIDE, 16]))  # attended values
REST_LAYOUT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N_REST, 16]))
FEW_LAYOUT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 8, 16]))  # a row's first logits
SUM_LAYOUT = gl.constexpr(gl.NVMMADistributedLayout([2, 0], [4, 1], [16, 8]))  # sums of weights


@gluon.jit
def place(tile, GROUP: gl.constexpr, sizes):
    """Return where a group's part of a tile is: sample and head as one number, first query, sample, head and seed.

    The part changes fastest, then the sample, so that neighbouring thread blocks share keys and biases. A group after
    the last part gets the last one.
    """
    n_shared, n_head, n_part, n_unit, inverse_shared, inverse_head, inverse_part = sizes
    unit = gl.minimum(tile * GROUPS + GROUP, n_unit - 1)
    whole = divide(unit, n_part, inverse_part)
    pair = divide(whole, n_shared, inverse_shared)
    seed = divide(pair, n_head, inverse_head)
    return whole, (unit - whole * n_part) * PART, whole - pair * n_shared, pair - seed * n_head, seed


@gluon.jit
def fetch_parts(descriptors, seed, sample, row, head, bar, parts, slot):
    """Fetch both parts of 64 queries, keys or values into a slot."""
    hopper.tma.async_copy_global_to_shared(descriptors[0], [seed, sample, row, head, 0], bar, parts[0].index(slot))
    hopper.tma.async_copy_global_to_shared(descriptors[1], [seed, sample, row, head, WIDE], bar, parts[1].index(slot))


@gluon.jit
def fetch_biases(descriptor, seed, head, row, column, bar, biases, slot):
    hopper.tma.async_copy_global_to_shared(descriptor, [seed, head, row, column], bar, biases.index(slot))


@gluon.jit
def fetch_tiles(descriptors, work, step, turn, AGAIN: gl.constexpr):
    """Fetch the data of all tiles; with AGAIN of the tiles to compute again.

    ``step`` counts blocks of keys, ``turn`` tiles.
    """
    q_desc, k_desc, v_desc, b_desc = descriptors
    buffers, barriers, wrong, _gate, _out, _strides, _n_query, sizes, n_block, n_tile = work
    queries, keys, values, biases = buffers
    full, empty, q_full, q_empty, _ = barriers
    BYTES: gl.constexpr = PART * (WIDE + REST) * 2  # 64 queries, keys or values
    for tile in range(gl.program_id(0), n_tile, gl.num_programs(0)):
        if not AGAIN or is_due(wrong, tile):
            whole, row_0, sample_0, head_0, seed_0 = place(tile, 0, sizes)
            _1, row_1, sample_1, head_1, seed_1 = place(tile, 1, sizes)
            _2, row_2, sample_2, head_2, seed_2 = place(tile, 2, sizes)
            last, row_3, sample_3, head_3, seed_3 = place(tile, 3, sizes)
            hopper.mbarrier.wait(q_empty, (turn & 1) ^ 1)
            hopper.mbarrier.expect(q_full, GROUPS * BYTES)
            fetch_parts(q_desc, seed_0, sample_0, row_0, head_0, q_full, queries, 0)
            fetch_parts(q_desc, seed_1, sample_1, row_1, head_1, q_full, queries, 1)
            fetch_parts(q_desc, seed_2, sample_2, row_2, head_2, q_full, queries, 2)
            fetch_parts(q_desc, seed_3, sample_3, row_3, head_3, q_full, queries, 3)
            for j in range(n_block):
                stage, column = step % STAGES, j * KEYS
                hopper.mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
                bar, slot, at = full.index(stage), stage * 2, stage * GROUPS
                if last != whole:
                    hopper.mbarrier.expect(bar, GROUPS * PART * KEYS * 2 + 4 * BYTES)
                    fetch_parts(k_desc, seed_3, sample_3, column, head_3, bar, keys, slot + 1)
                    fetch_parts(v_desc, seed_3, sample_3, column, head_3, bar, values, slot + 1)
                else:
                    hopper.mbarrier.expect(bar, GROUPS * PART * KEYS * 2 + 2 * BYTES)
                fetch_parts(k_desc, seed_0, sample_0, column, head_0, bar, keys, slot)
                fetch_biases(b_desc, seed_0, head_0, row_0, column, bar, biases, at)
                fetch_biases(b_desc, seed_1, head_1, row_1, column, bar, biases, at + 1)
                fetch_biases(b_desc, seed_2, head_2, row_2, column, bar, biases, at + 2)
                fetch_biases(b_desc, seed_3, head_3, row_3, column, bar, biases, at + 3)
                fetch_parts(v_desc, seed_0, sample_0, column, head_0, bar, values, slot)
                step += 1
            turn += 1
    return step, turn


@gluon.jit
def fetch(descriptors, work):
    """Work of the fetching warp."""
    step, turn = fetch_tiles(descriptors, work, gl.to_tensor(0), gl.to_tensor(0), False)
    _buffers, barriers, wrong, _gate, out, _strides, _n_query, _sizes, _n_block, n_tile = work
    if out.dtype.element_ty == gl.bfloat16:
        hopper.mbarrier.wait(barriers[4], 0)
        if is_due(wrong, n_tile + gl.program_id(0)):
            fetch_tiles(descriptors, work, step, turn, True)


@gluon.jit
def parts_of(parts, slot):
    """Return both parts of the 64 queries, keys or values in a slot."""
    return parts[0].index(slot).reshape([KEYS, WIDE]), parts[1].index(slot).reshape([KEYS, REST])


@gluon.jit
def ask(query, query_rest, key, key_rest, bias):
    """Compute logits. The product of queries and keys starts with the biases."""
    logits = hopper.warpgroup_mma(query, transposed(key), bias, is_async=True)
    logits = hopper.warpgroup_mma(query_rest, transposed(key_rest), logits, is_async=True)
    return hopper.warpgroup_mma_wait(0, deps=[logits])


@gluon.jit
def add_values(logits, values, reference, total, attended, attended_rest, EXACT: gl.constexpr):
    """Add the values of one block of keys times their weights; with EXACT with the running maximum."""
    weight, shrink, reference, total = weigh(logits, reference, total, EXACT, values[0].dtype)
    if EXACT:
        attended *= gl.convert_layout(shrink, gl.SliceLayout(1, WIDE_LAYOUT))[:, None]
        attended_rest *= gl.convert_layout(shrink, gl.SliceLayout(1, REST_LAYOUT))[:, None]
    of_wide = gl.convert_layout(weight, gl.DotOperandLayout(0, WIDE_LAYOUT, 2), assert_trivial=True)
    of_rest = gl.convert_layout(weight, gl.DotOperandLayout(0, REST_LAYOUT, 2), assert_trivial=True)
    attended = hopper.warpgroup_mma(of_wide, values[0], attended, is_async=True)
    attended_rest = hopper.warpgroup_mma(of_rest, values[1], attended_rest, is_async=True)
    attended, attended_rest = hopper.warpgroup_mma_wait(0, deps=[attended, attended_rest])
    return reference, total, attended, attended_rest


@gluon.jit
def pointers(x, strides, at, n_query, FIRST: gl.constexpr, WIDTH: gl.constexpr, layout):
    """Return pointers to WIDTH channels of a group's queries, from channel FIRST on, and which of the queries exist."""
    first, sample, head, seed = at
    s_seed, s_shared, s_row, s_head = strides
    x += (seed.to(gl.int64) * s_seed + sample.to(gl.int64) * s_shared + head.to(gl.int64) * s_head) * 8
    row = first + gl.arange(0, PART, gl.SliceLayout(1, layout))[:, None]
    channel = FIRST + gl.arange(0, WIDTH, gl.SliceLayout(0, layout))[None, :]
    return x + (row.to(gl.int64) * s_row * 8 + channel), row < n_query


@gluon.jit
def store_part(attended, gate, total, out, strides, at, n_query, FIRST: gl.constexpr):
    """Divide attended values by the sums of weights, multiply them by gates, and store them from channel FIRST on."""
    WIDTH: gl.constexpr = attended.shape[1]
    w_layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // WIDTH, WIDTH // 8], [4, 1], [1, 0])
    whole = gl.convert_layout(gl.max(total, axis=1), gl.SliceLayout(1, attended.type.layout))
    made = attended * reciprocal(whole)[:, None] * sigmoid(gate.to(gl.float32))
    to, exists = pointers(out, strides, at, n_query, FIRST, WIDTH, w_layout)
    gl.store(to, gl.convert_layout(made.to(out.dtype.element_ty), w_layout), mask=exists)


@gluon.jit
def free(q_empty):
    """Tell the fetching warp that this group has read a tile's queries."""
    hopper.fence_async_shared()  # a load that still waits must not read what the copy engine writes next
    gl.thread_barrier()
    hopper.mbarrier.arrive(q_empty, count=1)


@gluon.jit
def attend_tile(work, at, which, step, GROUP: gl.constexpr, AGAIN: gl.constexpr):
    """Compute this group's queries of a tile. Return the next ``step``, and 1 if a row's sum is too large, else 0.

    ``at``: first query, sample, head and seed. ``which``: which of the two places of keys and values to read.
    """
    HALF: gl.constexpr = work[4].dtype.element_ty == gl.float16
    buffers, barriers, _wrong, gate, out, strides, n_query, _sizes, n_block, _n_tile = work
    queries, keys, values, biases = buffers
    full, empty, _q_full, q_empty, _ = barriers
    total = gl.full([PART, 8], 0.0, gl.float32, SUM_LAYOUT)
    attended = gl.full([PART, WIDE], 0.0, gl.float32, WIDE_LAYOUT)
    attended_rest = gl.full([PART, REST], 0.0, gl.float32, REST_LAYOUT)
    query, query_rest = parts_of(queries, GROUP)
    hopper.mbarrier.wait(full.index(step % STAGES), (step // STAGES) & 1)
    key, key_rest = parts_of(keys, step % STAGES * 2 + which)
    few = biases.index(step % STAGES * GROUPS + GROUP).reshape([PART, KEYS]).slice(0, 8, dim=1).load(FEW_LAYOUT)
    few = ask(query, query_rest, key.slice(0, 8), key_rest.slice(0, 8), widen(few))
    reference = highest_of_few(few, S_LAYOUT, HALF)
    query = query.load(gl.DotOperandLayout(0, S_LAYOUT, 2))
    query_rest = query_rest.load(gl.DotOperandLayout(0, S_LAYOUT, 2))
    free(q_empty)
    for _j in range(n_block):
        stage = step % STAGES
        hopper.mbarrier.wait(full.index(stage), (step // STAGES) & 1)
        key, key_rest = parts_of(keys, stage * 2 + which)
        bias = biases.index(stage * GROUPS + GROUP).reshape([PART, KEYS]).load(S_LAYOUT)
        logits = ask(query, query_rest, key, key_rest, widen(bias))
        reference, total, attended, attended_rest = add_values(
            logits, parts_of(values, stage * 2 + which), reference, total, attended, attended_rest, AGAIN or HALF
        )
        leave(empty.index(stage))
        step += 1
    g_strides, o_strides = strides
    from_wide, exists = pointers(gate, g_strides, at, n_query, 0, WIDE, WIDE_LAYOUT)
    gate_wide = gl.load(from_wide, mask=exists, other=0.0)
    from_rest, exists = pointers(gate, g_strides, at, n_query, WIDE, REST, REST_LAYOUT)
    gate_rest = gl.load(from_rest, mask=exists, other=0.0)
    store_part(attended, gate_wide, total, out, o_strides, at, n_query, 0)
    store_part(attended_rest, gate_rest, total, out, o_strides, at, n_query, WIDE)
    is_fine = gl.max(total, axis=1) < MAX_SUM  # all 8 columns are equal; false for NaN too
    return step, 1 - gl.min(is_fine.to(gl.int32), axis=0)


@gluon.jit
def attend_tiles(work, step, turn, GROUP: gl.constexpr, AGAIN: gl.constexpr):
    """Compute all tiles; with AGAIN the tiles to compute again, with the running maximum."""
    _buffers, barriers, wrong, _gate, _out, _strides, _n_query, sizes, n_block, n_tile = work
    full, empty, q_full, q_empty, _ = barriers
    any_wrong = gl.to_tensor(0)
    for tile in range(gl.program_id(0), n_tile, gl.num_programs(0)):
        if not AGAIN or is_due(wrong, tile):
            n_part, n_unit, inverse_part = sizes[2], sizes[3], sizes[6]
            whole, first, sample, head, seed = place(tile, GROUP, sizes)
            which = (whole != divide(tile * GROUPS, n_part, inverse_part)).to(gl.int32)
            is_wrong = gl.to_tensor(0)
            hopper.mbarrier.wait(q_full, turn & 1)
            due = tile * GROUPS + GROUP < n_unit
            if AGAIN:  # whether a part is computed again depends on no other one
                due = gl.load(wrong + tile * GROUPS + GROUP) != 0
            if due:
                step, is_wrong = attend_tile(work, (first, sample, head, seed), which, step, GROUP, AGAIN)
            else:  # let the tile pass
                free(q_empty)
                for _j in range(n_block):
                    hopper.mbarrier.wait(full.index(step % STAGES), (step // STAGES) & 1)
                    leave(empty.index(step % STAGES))
                    step += 1
            if not AGAIN:
                gl.store(wrong + tile * GROUPS + GROUP, is_wrong)
                any_wrong |= is_wrong
            turn += 1
    return step, turn, any_wrong


@gluon.jit
def attend_group(work, GROUP: gl.constexpr):
    """Work of one group of warps."""
    step, turn, is_wrong = attend_tiles(work, gl.to_tensor(0), gl.to_tensor(0), GROUP, False)
    _buffers, barriers, wrong, _gate, out, _strides, _n_query, _sizes, _n_block, n_tile = work
    if out.dtype.element_ty == gl.bfloat16:
        program = n_tile + gl.program_id(0)
        gl.store(wrong + program * GROUPS + GROUP, is_wrong)
        hopper.mbarrier.arrive(barriers[4], count=1)
        hopper.mbarrier.wait(barriers[4], 0)
        if is_due(wrong, program):
            attend_tiles(work, step, turn, GROUP, True)


@gluon.jit(do_not_specialize=SIZES)
def attention_tokens_hopper_kernel(
    q_wide, q_rest, k_wide, k_rest, v_wide, v_rest, b_desc, wrong, gate, out, g_seed, g_shared, g_row, g_head, o_seed,
    o_shared, o_row, o_head, n_query, n_shared, n_head, n_part, n_unit, inverse_shared, inverse_head, inverse_part,
    n_block, n_tile,
):  # fmt: skip
    """Compute all tiles of one multiprocessor, one after another. Strides are in units of 8 elements."""
    dtype = out.dtype.element_ty
    queries = gl.allocate_shared_memory(dtype, [GROUPS, 1, 1, PART, 1, WIDE], q_wide.layout)
    rest_queries = gl.allocate_shared_memory(dtype, [GROUPS, 1, 1, PART, 1, REST], q_rest.layout)
    keys = gl.allocate_shared_memory(dtype, [STAGES * 2, 1, 1, KEYS, 1, WIDE], k_wide.layout)
    rest_keys = gl.allocate_shared_memory(dtype, [STAGES * 2, 1, 1, KEYS, 1, REST], k_rest.layout)
    values = gl.allocate_shared_memory(dtype, [STAGES * 2, 1, 1, KEYS, 1, WIDE], v_wide.layout)
    rest_values = gl.allocate_shared_memory(dtype, [STAGES * 2, 1, 1, KEYS, 1, REST], v_rest.layout)
    biases = gl.allocate_shared_memory(dtype, [STAGES * GROUPS, 1, 1, PART, KEYS], b_desc.layout)
    full, empty = make_barriers(STAGES, 1), make_barriers(STAGES, GROUPS * 128)
    q_full, q_empty = make_barriers(1, 1).index(0), make_barriers(1, GROUPS).index(0)
    done = make_barriers(1, GROUPS).index(0)
    sizes = (n_shared, n_head, n_part, n_unit, inverse_shared, inverse_head, inverse_part)
    strides = ((g_seed, g_shared, g_row, g_head), (o_seed, o_shared, o_row, o_head))
    descriptors = ((q_wide, q_rest), (k_wide, k_rest), (v_wide, v_rest), b_desc)
    buffers = ((queries, rest_queries), (keys, rest_keys), (values, rest_values), biases)
    work = (buffers, (full, empty, q_full, q_empty, done), wrong, gate, out, strides, n_query, sizes, n_block, n_tile)
    gl.warp_specialize([
        (attend_group, (work, 0)), (attend_group, (work, 1)), (attend_group, (work, 2)), (attend_group, (work, 3)),
        (fetch, (descriptors, work)),
    ], [4, 4, 4, 1], [112, 112, 112, 40])  # fmt: skip


def fits(
    kernels: Kernels, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor | None,
    bias: torch.Tensor, out: torch.Tensor, n_key: int,
) -> bool:  # fmt: skip
    """Whether this kernel takes the arguments of :func:`.attention.attention`, and is faster than the general one."""
    return (
        kernels.hopper
        and gate is not None
        and query.shape[2] >= MIN_TOKENS  # above 128, so that a tile needs at most two places of keys
        and are_readable(CHANNELS, (torch.bfloat16, torch.float16), query, key, value, bias, gate, out)
    )


def attend(
    kernels: Kernels, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor | None,
    bias: torch.Tensor, out: torch.Tensor, n_key: int,
) -> None:  # fmt: skip
    """Launch the kernel. For arguments and result see :func:`.attention.attention`."""
    assert gate is not None

    def describe(x: torch.Tensor, width: int) -> Any:
        layout = gl.NVMMASharedLayout(2 * width, 16, 5)
        return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, N_KEY, 1, width], layout)

    n_seed, n_shared, n, n_head, _ = query.shape
    n_part, n_block = -(-n // N_PART), -(-n_key // N_KEY)
    n_unit = n_part * n_shared * n_head * n_seed
    n_tile = -(-n_unit // N_GROUP)
    n_program = kernels.n_block(query.device, n_tile, 1)
    wrong = torch.empty((n_tile + n_program) * N_GROUP, device=query.device, dtype=torch.int32)
    launch(
        attention_tokens_hopper_kernel, (n_program,),
        *(describe(x, width) for x in (query, key, value) for width in (N_WIDE, N_REST)), describe_bias(bias, N_PART),
        wrong, gate, out, *(stride // 8 for x in (gate, out) for stride in x.stride()[:4]), n, n_shared, n_head, n_part,
        n_unit, *map(inverse_of, (n_shared, n_head, n_part)), n_block, n_tile, num_warps=4,
    )  # fmt: skip
