"""Triangle attention on Hopper GPUs (compute capability 9.0), in bfloat16 with heads of 32 channels and no gate.

It computes the operation of :mod:`.attention`, and :mod:`.attention` calls it. It is written in Gluon, which comes with
Triton 3.6.

A multiprocessor makes 16 exponentials per clock cycle. This limits the kernel, so everything else is kept cheap:

* One warp fetches with the tensor memory accelerator. Four groups of four warps compute. A group takes 64 queries of
  two rows. A tile has 128 queries of four rows: two groups share the keys of a row, and four rows share a block of
  biases. If at most 64 queries are left for the last tiles, these have 64 queries of eight rows, in a second launch.
* Keys come in blocks of 64. Of the last block, only the first 16 or 32 keys are processed if no more are left.
* The softmax is that of :mod:`..device_functions_hopper_attention`.
* Biases are the start value of the product of queries and keys. Two instructions convert two biases to 32 bits.
"""

from typing import Any

import torch

from protenix_multiseed.kernels.attention_arguments_hopper import are_readable, describe_bias, inverse_of
from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.device_functions_hopper import make_barriers, widen
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

N_QUERY, N_ROW, CHANNELS = 128, 4, 32
QUERIES = gl.constexpr(N_QUERY)  # queries of a tile, if PIECES is 1
ROWS = gl.constexpr(N_ROW)  # rows of the pair representation whose keys are fetched at once
WIDTH = gl.constexpr(CHANNELS)
CACHED_BIAS_BYTES = 12 * 2**20  # biases that stay in the second-level cache beside keys and values
MIN_SPLIT = 4 * N_QUERY  # with fewer tokens, another launch costs more than it saves
LAST_KEYS = (16, 32, N_KEY)  # numbers of keys of the last block
SIZES = [
    "o_seed", "o_shared", "o_row", "o_head", "n_query", "n_shared", "first", "n_query_block", "n_chunk", "n_row_group",
    "n_pair", "inverse_head", "inverse_pair", "inverse_chunk", "inverse_size", "inverse_last", "n_block", "n_tile",
]  # fmt: skip


@gluon.jit
def place(tile, sizes, HEADS: gl.constexpr):
    """Return the block of queries, group of rows, head and seed of a tile.

    The block of queries changes fastest, so that neighbouring thread blocks share keys. The group of rows changes after
    as many blocks of queries as have biases that fit in the cache. Two heads alternate, because their channels share
    cache lines.
    """
    n_query_block, n_chunk, n_row_group, n_pair, inverses = sizes
    inverse_head, inverse_pair, inverse_chunk, inverse_size, inverse_last = inverses
    per_head = n_query_block * n_row_group * HEADS
    rest = divide(tile, per_head, inverse_head)
    tile -= rest * per_head
    seed = divide(rest, n_pair, inverse_pair)
    head = (rest - seed * n_pair) * HEADS
    per_chunk = n_chunk * n_row_group * HEADS
    chunk = divide(tile, per_chunk, inverse_chunk)
    tile -= chunk * per_chunk
    left = n_query_block - chunk * n_chunk
    size = gl.minimum(n_chunk, left)
    rest = divide(tile, size, gl.where(left < n_chunk, inverse_last, inverse_size))
    return chunk * n_chunk + tile - rest * size, rest // HEADS, head + rest % HEADS, seed


@gluon.jit
def fetch_tiles(descriptors, work, step, turn, HEADS: gl.constexpr, PIECES: gl.constexpr, AGAIN: gl.constexpr):
    """Fetch the data of all tiles; with AGAIN of the tiles to compute again.

    ``step`` counts the stages that were filled, ``turn`` tiles.
    """
    q_desc, k_desc, v_desc, b_desc = descriptors
    buffers, barriers, wrong, _out, _strides, extent, sizes, n_block, n_tile = work
    queries, keys, values, biases = buffers
    full, empty, q_full, q_empty, _done = barriers
    _n_query, _n_shared, first = extent
    for tile in range(gl.program_id(0), n_tile, gl.num_programs(0)):
        due = True
        if AGAIN:
            due = is_due(wrong, tile)
        if due:
            block, group, head, seed = place(tile, sizes, HEADS)
            buffer = turn & 1
            hopper.mbarrier.wait(q_empty.index(buffer), ((turn >> 1) & 1) ^ 1)
            bar = q_full.index(buffer)
            hopper.mbarrier.expect(bar, QUERIES * ROWS * WIDTH * 2)
            row, query = group * ROWS * PIECES, first + block * (QUERIES // PIECES)
            hopper.tma.async_copy_global_to_shared(q_desc, [seed, row, query, head, 0], bar, queries.index(buffer))
            for j in range(n_block):
                for part in gl.static_range(PIECES):
                    stage = step % STAGES
                    hopper.mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
                    bar = full.index(stage)
                    hopper.mbarrier.expect(bar, (QUERIES // PIECES * KEYS + 2 * ROWS * KEYS * WIDTH) * 2)
                    at = [seed, row + part * ROWS, j * KEYS, head, 0]
                    hopper.tma.async_copy_global_to_shared(k_desc, at, bar, keys.index(stage))
                    at_bias = [seed, head, query, j * KEYS]
                    hopper.tma.async_copy_global_to_shared(b_desc, at_bias, bar, biases.index(stage))
                    hopper.tma.async_copy_global_to_shared(v_desc, at, bar, values.index(stage))
                    step += 1
            turn += 1
    return step, turn


@gluon.jit
def fetch(descriptors, work, HEADS: gl.constexpr, PIECES: gl.constexpr):
    """Work of the fetching warp."""
    step, turn = fetch_tiles(descriptors, work, gl.to_tensor(0), gl.to_tensor(0), HEADS, PIECES, False)
    _buffers, barriers, wrong, _out, _strides, _extent, _sizes, _n_block, n_tile = work
    hopper.mbarrier.wait(barriers[4], 0)
    if is_due(wrong, n_tile + gl.program_id(0)):
        fetch_tiles(descriptors, work, step, turn, HEADS, PIECES, True)


@gluon.jit
def wait_for(full, step):
    """Wait for the keys, values and biases of a step. Returns their stage."""
    stage = step % STAGES
    hopper.mbarrier.wait(full.index(stage), (step // STAGES) & 1)
    return stage


@gluon.jit
def of_row(slots, stage, ROW: gl.constexpr, COUNT: gl.constexpr):
    """The first COUNT keys or values of one of the rows in a stage."""
    return slots.index(stage).reshape([ROWS * KEYS, WIDTH]).slice(ROW * KEYS, COUNT)


@gluon.jit
def biases_of(biases, stage, FIRST: gl.constexpr, COUNT: gl.constexpr):
    """The biases of 64 queries, from the tile's query FIRST on, and of the first COUNT keys in a stage."""
    LENGTH: gl.constexpr = biases.shape[3]
    return biases.index(stage).reshape([LENGTH, KEYS]).slice(FIRST, PART).slice(0, COUNT, dim=1)


@gluon.jit
def attend_block(query, key, value, bias, reference, total, attended, earlier, EXACT: gl.constexpr):
    """Process one block of keys of one row.

    ``earlier``: a product that may still run. It ends together with the logits.
    """
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, key.shape[0], 16])
    reference = gl.convert_layout(reference, gl.SliceLayout(1, s_layout), assert_trivial=True)
    logits = hopper.warpgroup_mma(query, transposed(key), widen(bias.load(s_layout)), is_async=True)
    logits, earlier = hopper.warpgroup_mma_wait(0, deps=[logits, earlier])
    weight, shrink, reference, total = weigh(logits, reference, total, EXACT, gl.bfloat16)
    if EXACT:
        attended *= gl.convert_layout(shrink, gl.SliceLayout(1, attended.type.layout))[:, None]
    of_values = gl.convert_layout(weight, gl.DotOperandLayout(0, s_layout, 2), assert_trivial=True)
    attended = hopper.warpgroup_mma(of_values, value, attended, is_async=True)
    return reference, total, attended, earlier


@gluon.jit
def attend_keys(
    query, query_2, state, work, step, FIRST: gl.constexpr, ROW: gl.constexpr, ROW_2: gl.constexpr, COUNT: gl.constexpr,
    AGAIN: gl.constexpr,
):  # fmt: skip
    """Process the first COUNT keys of a block for both rows of a group. Returns the new ``state`` and ``step``.

    The keys of a ROW_2 of 4 or more are in the next stage.
    """
    reference, total, attended, reference_2, total_2, attended_2 = state
    _queries, keys, values, biases = work[0]
    full, empty, _q_full, _q_empty, _done = work[1]
    stage = wait_for(full, step)
    key, value, bias = (
        of_row(keys, stage, ROW, COUNT),
        of_row(values, stage, ROW, COUNT),
        biases_of(biases, stage, FIRST, COUNT),
    )
    reference, total, attended, attended_2 = attend_block(
        query, key, value, bias, reference, total, attended, attended_2, AGAIN
    )
    last = stage
    if ROW_2 >= ROWS:
        step += 1
        last = wait_for(full, step)
    key, value = of_row(keys, last, ROW_2 % ROWS, COUNT), of_row(values, last, ROW_2 % ROWS, COUNT)
    reference_2, total_2, attended_2, attended = attend_block(
        query_2, key, value, bias, reference_2, total_2, attended_2, attended, AGAIN
    )
    if ROW_2 >= ROWS:  # the product with the first row's values ended together with the second row's logits
        leave(empty.index(stage))
    attended_2 = hopper.warpgroup_mma_wait(0, deps=[attended_2])
    leave(empty.index(last))
    return (reference, total, attended, reference_2, total_2, attended_2), step + 1


@gluon.jit
def find_references(query, query_2, work, step, FIRST: gl.constexpr, ROW: gl.constexpr, ROW_2: gl.constexpr):
    """Return the references of both rows of a group, from the tile's first 8 keys."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 8, 16])
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    _queries, keys, _values, biases = work[0]
    stage = wait_for(work[1][0], step)
    last = stage
    if ROW_2 >= ROWS:
        last = wait_for(work[1][0], step + 1)
    few, key = biases_of(biases, stage, FIRST, 8), of_row(keys, stage, ROW, 8)
    key_2 = of_row(keys, last, ROW_2 % ROWS, 8)
    logits = hopper.warpgroup_mma(query, transposed(key), widen(few.load(layout)), is_async=True)
    logits_2 = hopper.warpgroup_mma(query_2, transposed(key_2), widen(few.load(layout)), is_async=True)
    logits, logits_2 = hopper.warpgroup_mma_wait(0, deps=[logits, logits_2])
    return highest_of_few(logits, s_layout, False), highest_of_few(logits_2, s_layout, False)


@gluon.jit
def attend_tiles(
    work, step, turn, GROUP: gl.constexpr, HEADS: gl.constexpr, PIECES: gl.constexpr, LAST: gl.constexpr,
    AGAIN: gl.constexpr,
):  # fmt: skip
    """Compute all tiles; with AGAIN the tiles to compute again, with the running maximum."""
    buffers, barriers, wrong, out, strides, extent, sizes, n_block, n_tile = work
    o_seed, o_shared, o_row, o_head = strides
    n_query, n_shared, first = extent
    _full, _empty, q_full, q_empty, _done = barriers
    # First query of this group, and its two rows in the tile.
    FIRST: gl.constexpr = GROUP % 2 * PART if PIECES == 1 else 0
    ROW: gl.constexpr = GROUP // 2 * 2 if PIECES == 1 else GROUP
    DISTANCE: gl.constexpr = 1 if PIECES == 1 else ROWS
    ROW_2: gl.constexpr = ROW + DISTANCE
    LENGTH: gl.constexpr = QUERIES // PIECES
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    t_layout: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [4, 1], [16, 8])
    w_layout: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0])
    any_wrong = gl.to_tensor(0)
    for tile in range(gl.program_id(0), n_tile, gl.num_programs(0)):
        due = True
        if AGAIN:
            due = is_due(wrong, tile)
        if due:
            total = gl.full([PART, 8], 0.0, gl.float32, t_layout)
            attended = gl.full([PART, WIDTH], 0.0, gl.float32, o_layout)
            reference = gl.full([PART], -1.0e30, gl.float32, gl.SliceLayout(1, s_layout))
            reference_2 = reference
            buffer = turn & 1
            both = buffers[0].index(buffer).reshape([ROWS * QUERIES, WIDTH])
            query, query_2 = both.slice(ROW * LENGTH + FIRST, PART), both.slice(ROW_2 * LENGTH + FIRST, PART)
            hopper.mbarrier.wait(q_full.index(buffer), (turn >> 1) & 1)
            if not AGAIN:
                reference, reference_2 = find_references(query, query_2, work, step, FIRST, ROW, ROW_2)
            state = reference, total, attended, reference_2, total, attended
            for _j in range(n_block - (LAST < KEYS)):
                state, step = attend_keys(query, query_2, state, work, step, FIRST, ROW, ROW_2, KEYS, AGAIN)
            if LAST < KEYS:
                state, step = attend_keys(query, query_2, state, work, step, FIRST, ROW, ROW_2, LAST, AGAIN)
            leave(q_empty.index(buffer))
            block, group, head, seed = place(tile, sizes, HEADS)
            whole = gl.convert_layout(gl.max(state[1], axis=1), gl.SliceLayout(1, o_layout))  # all 8 columns are equal
            whole_2 = gl.convert_layout(gl.max(state[4], axis=1), gl.SliceLayout(1, o_layout))
            if not AGAIN:
                is_fine = (whole < MAX_SUM) & (whole_2 < MAX_SUM)  # false for NaN too
                is_wrong = 1 - gl.min(is_fine.to(gl.int32), axis=0)
                gl.store(wrong + tile * GROUPS + GROUP, is_wrong)
                any_wrong |= is_wrong
            row = first + block * LENGTH + FIRST + gl.arange(0, PART, gl.SliceLayout(1, w_layout))
            channel = gl.arange(0, WIDTH, gl.SliceLayout(0, w_layout))
            shared = group * ROWS * PIECES + ROW
            at = out + (seed.to(gl.int64) * o_seed + head.to(gl.int64) * o_head + shared.to(gl.int64) * o_shared) * 8
            at = at + (row.to(gl.int64)[:, None] * o_row * 8 + channel[None, :])
            made = gl.convert_layout((state[2] * reciprocal(whole)[:, None]).to(gl.bfloat16), w_layout)
            gl.store(at, made, mask=(row[:, None] < n_query) & (shared < n_shared))
            made = gl.convert_layout((state[5] * reciprocal(whole_2)[:, None]).to(gl.bfloat16), w_layout)
            inside = (row[:, None] < n_query) & (shared + DISTANCE < n_shared)
            gl.store(at + o_shared.to(gl.int64) * (8 * DISTANCE), made, mask=inside)
            turn += 1
    return step, turn, any_wrong


@gluon.jit
def attend_group(work, GROUP: gl.constexpr, HEADS: gl.constexpr, PIECES: gl.constexpr, LAST: gl.constexpr):
    """Work of one group of warps."""
    step, turn, is_wrong = attend_tiles(work, gl.to_tensor(0), gl.to_tensor(0), GROUP, HEADS, PIECES, LAST, False)
    _buffers, barriers, wrong, _out, _strides, _extent, _sizes, _n_block, n_tile = work
    done, program = barriers[4], n_tile + gl.program_id(0)
    gl.store(wrong + program * GROUPS + GROUP, is_wrong)
    hopper.mbarrier.arrive(done, count=1)
    hopper.mbarrier.wait(done, 0)
    if is_due(wrong, program):
        attend_tiles(work, step, turn, GROUP, HEADS, PIECES, LAST, True)


@gluon.jit(do_not_specialize=SIZES)
def attention_hopper_kernel(
    q_desc, k_desc, v_desc, b_desc, wrong, out, o_seed, o_shared, o_row, o_head, n_query, n_shared, first,
    n_query_block, n_chunk, n_row_group, n_pair, inverse_head, inverse_pair, inverse_chunk, inverse_size, inverse_last,
    n_block, n_tile, HEADS: gl.constexpr, PIECES: gl.constexpr, LAST: gl.constexpr,
):  # fmt: skip
    """Compute all tiles of one multiprocessor, one after another, from query ``first`` on.

    A tile has 128 queries of 4 rows, or with PIECES 2 64 queries of 8 rows, whose keys come in two stages. LAST keys of
    the last block are processed. Strides of ``out`` are in units of 8 elements.
    """
    queries = gl.allocate_shared_memory(gl.bfloat16, [2, 1, ROWS * PIECES, QUERIES // PIECES, 1, WIDTH], q_desc.layout)
    keys = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, ROWS, KEYS, 1, WIDTH], k_desc.layout)
    values = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, ROWS, KEYS, 1, WIDTH], v_desc.layout)
    biases = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, 1, QUERIES // PIECES, KEYS], b_desc.layout)
    full, empty = make_barriers(STAGES, 1), make_barriers(STAGES, GROUPS * 128)
    q_full, q_empty = make_barriers(2, 1), make_barriers(2, GROUPS * 128)
    inverses = (inverse_head, inverse_pair, inverse_chunk, inverse_size, inverse_last)
    sizes = (n_query_block, n_chunk, n_row_group, n_pair, inverses)
    strides, extent = (o_seed, o_shared, o_row, o_head), (n_query, n_shared, first)
    buffers = (queries, keys, values, biases)
    barriers = (full, empty, q_full, q_empty, make_barriers(1, GROUPS).index(0))
    work = (buffers, barriers, wrong, out, strides, extent, sizes, n_block, n_tile)
    gl.warp_specialize([
        (attend_group, (work, 0, HEADS, PIECES, LAST)),
        (attend_group, (work, 1, HEADS, PIECES, LAST)),
        (attend_group, (work, 2, HEADS, PIECES, LAST)),
        (attend_group, (work, 3, HEADS, PIECES, LAST)),
        (fetch, ((q_desc, k_desc, v_desc, b_desc), work, HEADS, PIECES)),
    ], [4, 4, 4, 1], [112, 112, 112, 24])  # fmt: skip


def fits(
    kernels: Kernels,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor | None,
    bias: torch.Tensor,
    out: torch.Tensor,
    n_key: int,
) -> bool:
    """Whether this kernel takes the arguments of :func:`.attention.attention`."""
    return kernels.hopper and gate is None and are_readable(CHANNELS, (torch.bfloat16,), query, key, value, bias, out)


def attend(
    kernels: Kernels,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor | None,
    bias: torch.Tensor,
    out: torch.Tensor,
    n_key: int,
) -> None:
    """Launch the kernel. For arguments and result see :func:`.attention.attention`."""
    n_seed, n_shared, n, n_head, _ = query.shape
    pair_layout = gl.NVMMASharedLayout(64, 16, 5)

    def describe(x: torch.Tensor, rows: int, block: int) -> Any:
        return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, rows, block, 1, CHANNELS], pair_layout)

    heads, n_block = 2 if n_head % 2 == 0 else 1, -(-n_key // N_KEY)
    last = next(count for count in LAST_KEYS if n_key - (n_block - 1) * N_KEY <= count)
    for first, n_query_block, pieces in divide_queries(n):
        rows, block = N_ROW * pieces, N_QUERY // pieces
        n_row_group = -(-n_shared // rows)
        bias_bytes = n_query_block * block * -(-bias.shape[-1] // N_KEY) * N_KEY * 2 * heads
        n_chunk = -(-n_query_block // max(1, round(bias_bytes / CACHED_BIAS_BYTES)))
        n_tile = n_query_block * n_row_group * n_head * n_seed
        n_program = kernels.n_block(query.device, n_tile, 1)
        wrong = torch.empty((n_tile + n_program) * N_GROUP, device=query.device, dtype=torch.int32)
        divisors = (n_query_block * n_row_group * heads, n_head // heads, n_chunk * n_row_group * heads, n_chunk)
        launch(
            attention_hopper_kernel, (n_program,), describe(query, rows, block), describe(key, N_ROW, N_KEY),
            describe(value, N_ROW, N_KEY), describe_bias(bias, block), wrong, out,
            *(stride // 8 for stride in out.stride()[:4]), n, n_shared, first, n_query_block, n_chunk, n_row_group,
            n_head // heads, *map(inverse_of, (*divisors, n_query_block % n_chunk)), n_block, n_tile, heads, pieces,
            last, num_warps=4,
        )  # fmt: skip


def divide_queries(n: int) -> list[tuple[int, int, int]]:
    """Divide ``n`` queries into launches: the first query, the number of blocks of queries, and PIECES of each."""
    rest = n % N_QUERY
    if n < MIN_SPLIT or not 0 < rest <= N_PART:
        return [(0, -(-n // N_QUERY), 1)]
    return [(0, n // N_QUERY, 1), (n - rest, 1, 2)]
