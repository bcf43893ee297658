"""Averages of an MSA's values (Alg. 10), and the gated addition of these and of attention's to their rows."""

import triton
import triton.language as tl

from protenix_multiseed.model.kernels.source.rows import load_rows, load_weight, norm_rows, sigmoid, store_rows


@triton.jit
def places_of_heads(first, row, token, by_row, by_token, by_head, HEAD: tl.constexpr, COLUMNS: tl.constexpr):
    """Where channels from ``first`` on of a token's rows lie; strides count pieces of a head's channels."""
    channel = first + tl.arange(0, COLUMNS)[None, :]
    piece = row[:, None].to(tl.int64) * by_row + token.to(tl.int64) * by_token + channel // HEAD * by_head
    return piece * HEAD + channel % HEAD


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
        at = places_of_heads(first, row, token, 1, n_row, n * n_row, HEAD, COLUMNS)
        tl.store(out + at, made.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_row", "n", "by_row", "by_token", "by_head"])
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
    by_row,
    by_token,
    by_head,
    epsilon,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of one token's rows; what lies in the order of ``x`` comes as rows of one token."""
    token = tl.program_id(0) % n
    row = tl.program_id(0) // n * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    a = load_rows(x, row * n + token, n_row * n, WIDTH)
    normed = norm_rows(a, norm, shift, epsilon, WIDTH)
    for first in range(0, n_out, COLUMNS):
        gates = tl.dot(normed, tl.trans(load_weight(gate, first, n_out, WIDTH, COLUMNS)), input_precision="tf32")
        channel = first + tl.arange(0, COLUMNS)[None, :]
        inside = (row[:, None] < n_row) & (channel < n_out)
        at = places_of_heads(first, row, token, by_row, by_token, by_head, HEAD, COLUMNS)
        gated = tl.load(average + at, mask=inside, other=0.0).to(tl.float32) * sigmoid(gates)
        back = tl.load(weight + column[:, None] * n_out + channel, mask=channel < n_out, other=0.0)
        a = tl.dot(gated.to(weight.dtype.element_ty), tl.trans(back), a, input_precision="tf32")
    store_rows(x, a, row * n + token, n_row * n, WIDTH)
