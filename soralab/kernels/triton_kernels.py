"""FlashAttention in Triton: three kernels for every mask of the course.

Dao et al. 2022 (2205.14135) and Dao 2023 (2307.08691): softmax(scale q k^T) v without the matrix of weights, in tiles
that fit on the chip. A program owns one tile of rows and visits the tiles of the other side. Which ones stands in its
row of a table (soralab.kernels.tables), so dense, causal, packed, windowed and sliding-tile attention are one kernel:

    forward       owns queries, visits keys:     o and the logarithm of each row's sum of weights
    backward_q    owns queries, visits keys:     dq, and delta = sum(do * o), which backward_k needs
    backward_k    owns keys,    visits queries:  dk and dv

No two programs write to one place, so there are no atomics and two runs agree to the last bit. Logits are in units of
log2: `scale` comes multiplied by log2(e), and 2^x is what the chip computes. Sums are in ACC (float32).

Every tensor is [batch, heads, rows, dim] with its strides (batch, head, row); the last axis is contiguous. A *place* is
where a token stands in packed order, its *row* where it lies in memory: the same, or row = map[place]. Whole tiles that
lie in one piece are copied by the chip's copy engine (BULK: `x_tiles` is a tensor descriptor of x), which takes no
registers for addresses. It knows where a tensor ends but not where a segment does, so a cut tile is loaded by pointers.
"""

import triton
import triton.language as tl


@triton.jit
def own_tile(table):
    """This program's row of the table. It visits whole tiles [full_lo, full_hi) without and pieces of the cut ones,
    [edge_lo, edge_hi), with compares: small ones, or their compares would take the registers of all."""
    table += tl.program_id(0) * 10
    batch, first, end = tl.load(table), tl.load(table + 1), tl.load(table + 2)
    other = (tl.load(table + 3), tl.load(table + 4), tl.load(table + 5))
    full = (tl.load(table + 6), tl.load(table + 7))
    edge = (tl.load(table + 8), tl.load(table + 9))
    return batch, tl.program_id(1), first, end, other, full, edge


@triton.jit
def load_numbers(x, row, inside, other: tl.constexpr, WHOLE: tl.constexpr):
    """One number a row, `other` where there is none. WHOLE: every row exists."""
    if WHOLE:
        values = tl.load(x + row)
    else:
        values = tl.load(x + row, mask=inside, other=other)
    return values


@triton.jit
def locate(map, first, begin, end, BLOCK: tl.constexpr, MAPPED: tl.constexpr, WHOLE: tl.constexpr):
    """Places [BLOCK] of a tile, which of them are of the segment, and their rows. int64: a row times its stride can
    pass 2^31."""
    place = first + tl.arange(0, BLOCK)
    inside = (place >= begin) & (place < end)
    row = place
    if MAPPED:
        row = load_numbers(map, place, inside, 0, WHOLE)
    return place, inside, row.to(tl.int64)


@triton.jit
def slab(x, batch, head, at):
    """Where the rows of one head begin. int64, as above."""
    return x + (batch.to(tl.int64) * at[0] + head.to(tl.int64) * at[1])


@triton.jit
def load_rows(x, row, inside, stride, DIM: tl.constexpr, BLOCK_D: tl.constexpr, WHOLE: tl.constexpr):
    """Rows [BLOCK, BLOCK_D] of a tensor, zeros where there are none. WHOLE: every row exists."""
    d = tl.arange(0, BLOCK_D)
    pointers = x + (row[:, None] * stride + d[None, :])
    if WHOLE and DIM == BLOCK_D:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=inside[:, None] & (d[None, :] < DIM), other=0.0)
    return tile


@triton.jit
def load_tile(
    x, x_tiles, batch, head, first, row, inside, stride,
    DIM: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, WHOLE: tl.constexpr, BULK: tl.constexpr,
):  # fmt: skip
    """A visited tile [BLOCK, BLOCK_D]: by the copy engine where it is whole, else by pointers."""
    if WHOLE and BULK:
        tile = x_tiles.load([batch, head, first, 0]).reshape([BLOCK, BLOCK_D])
    else:
        tile = load_rows(x, row, inside, stride, DIM, BLOCK_D, WHOLE)
    return tile


@triton.jit
def store_rows(x, value, row, inside, stride, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """The inverse of load_rows; rows that do not exist are not written."""
    d = tl.arange(0, BLOCK_D)
    pointers = x + (row[:, None] * stride + d[None, :])
    tl.store(pointers, value.to(x.dtype.element_ty), mask=inside[:, None] & (d[None, :] < DIM))


@triton.jit
def product(a, b, ACC: tl.constexpr):
    """a @ b, summed in ACC. "ieee": float32 is multiplied as float32, not as TF32, whose error is a thousandth."""
    return tl.dot(a, b, input_precision="ieee", out_dtype=ACC)


@triton.jit
def may_attend(i, j, shift, CAUSAL: tl.constexpr):
    """Whether the query at place i may attend the key at place j. The last query of a segment sees its last key."""
    allowed = (i >= 0) & (j >= 0)
    if CAUSAL:
        allowed = j <= i + shift
    return allowed


@triton.jit
def forward_visits(
    o, m, ell, q, i, end, k_in, v_in, k_tiles, v_tiles, map, batch, head, other, k_row, v_row, scale, visits,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAPPED: tl.constexpr, BULK: tl.constexpr, BLOCK: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The online softmax over a range of key tiles. Before and after it, for the keys seen so far:

    m = max s,  ell = sum 2^(s - m),  o = sum 2^(s - m) v.   (2307.08691, section 3.1, algorithm 1)
    """
    for t in tl.range(visits[0], visits[1], num_stages=1 if EDGE and BULK else None):
        first = other[2] + t * BLOCK
        j, inside, row = locate(map, first, other[0], other[1], BLOCK, MAPPED, not EDGE)
        k = load_tile(k_in, k_tiles, batch, head, first, row, inside, k_row, DIM, BLOCK, BLOCK_D, not EDGE, BULK)
        s = product(q, tl.trans(k), ACC)
        if EDGE:
            allowed = inside[None, :] & may_attend(i[:, None], j[None, :], other[1] - end, CAUSAL)
            s = tl.where(allowed, s, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1) * scale)
        base = m_new
        if EDGE:  # a row that has seen no key yet has m = -inf, and -inf - -inf is NaN
            base = tl.where(m_new == float("-inf"), 0.0, m_new)
        p = tl.exp2(s * scale - base[:, None])
        shrink = tl.exp2(m - base)
        ell = ell * shrink + tl.sum(p, 1)
        v = load_tile(v_in, v_tiles, batch, head, first, row, inside, v_row, DIM, BLOCK, BLOCK_D, not EDGE, BULK)
        o = o * shrink[:, None] + product(p.to(v.dtype), v, ACC)
        m = m_new
    return o, m, ell


@triton.jit
def forward(
    q_in, k_in, v_in, o_out, lse_out, k_tiles, v_tiles, own_map, map, table, scale, q_at, k_at, v_at, o_at, lse_at,
    CAUSAL: tl.constexpr, MAPPED: tl.constexpr, BULK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """o = softmax(scale q k^T) v and lse = log2 sum 2^s of one tile of queries of one head."""
    batch, head, first, end, other, full, edge = own_tile(table)
    k_in, v_in = slab(k_in, batch, head, k_at), slab(v_in, batch, head, v_at)
    i, inside, row = locate(own_map, first, first, end, BLOCK_Q, MAPPED, False)
    q = load_rows(slab(q_in, batch, head, q_at), row, inside, q_at[2], DIM, BLOCK_D, False)
    o = tl.zeros([BLOCK_Q, BLOCK_D], ACC)
    ell = tl.zeros([BLOCK_Q], ACC)
    m = ell - float("inf")
    o, m, ell = forward_visits(
        o, m, ell, q, i, end, k_in, v_in, k_tiles, v_tiles, map, batch, head, other, k_at[2], v_at[2], scale, full,
        False, CAUSAL, MAPPED, BULK, BLOCK_K, DIM, BLOCK_D, ACC)  # fmt: skip
    o, m, ell = forward_visits(
        o, m, ell, q, i, end, k_in, v_in, k_tiles, v_tiles, map, batch, head, other, k_at[2], v_at[2], scale, edge,
        True, CAUSAL, MAPPED, BULK, PIECE, DIM, BLOCK_D, ACC)  # fmt: skip
    # A query without keys gets o = 0, and lse = +inf: then 2^(s - lse), all its weights in the backward pass, are 0.
    seen = ell > 0
    ell = tl.where(seen, ell, 1.0)
    store_rows(slab(o_out, batch, head, o_at), o / ell[:, None], row, inside, o_at[2], DIM, BLOCK_D)
    lse = tl.where(seen, m + tl.log2(ell), float("inf"))
    tl.store(slab(lse_out, batch, head, lse_at) + row, lse, mask=inside)


@triton.jit
def backward_q_visits(
    dq, q, do, lse, delta, i, end, k_in, v_in, k_tiles, v_tiles, map, batch, head, other, k_row, v_row, scale, visits,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAPPED: tl.constexpr, BULK: tl.constexpr, BLOCK: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dq / scale over a range of key tiles: dq_i = scale sum_j ds_ij k_j with ds = p (dp - delta) and dp = do v^T."""
    for t in tl.range(visits[0], visits[1], num_stages=1 if EDGE and BULK else None):
        first = other[2] + t * BLOCK
        j, inside, row = locate(map, first, other[0], other[1], BLOCK, MAPPED, not EDGE)
        k = load_tile(k_in, k_tiles, batch, head, first, row, inside, k_row, DIM, BLOCK, BLOCK_D, not EDGE, BULK)
        v = load_tile(v_in, v_tiles, batch, head, first, row, inside, v_row, DIM, BLOCK, BLOCK_D, not EDGE, BULK)
        s = product(q, tl.trans(k), ACC)
        if EDGE:  # before the exponential: a masked logit may be far above lse, and 2^s then overflows
            allowed = inside[None, :] & may_attend(i[:, None], j[None, :], other[1] - end, CAUSAL)
            s = tl.where(allowed, s, float("-inf"))
        p = tl.exp2(s * scale - lse[:, None])
        ds = p * (product(do, tl.trans(v), ACC) - delta[:, None])
        dq += product(ds.to(k.dtype), k, ACC)
    return dq


@triton.jit
def backward_q(
    q_in, k_in, v_in, o_in, do_in, dq_out, lse_in, delta_out, k_tiles, v_tiles, own_map, map, table, scale, dq_scale,
    q_at, k_at, v_at, o_at, do_at, dq_at, lse_at,
    CAUSAL: tl.constexpr, MAPPED: tl.constexpr, BULK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dq of one tile of queries of one head; delta on the way, because o and do are at hand here."""
    batch, head, first, end, other, full, edge = own_tile(table)
    k_in, v_in = slab(k_in, batch, head, k_at), slab(v_in, batch, head, v_at)
    i, inside, row = locate(own_map, first, first, end, BLOCK_Q, MAPPED, False)
    q = load_rows(slab(q_in, batch, head, q_at), row, inside, q_at[2], DIM, BLOCK_D, False)
    o = load_rows(slab(o_in, batch, head, o_at), row, inside, o_at[2], DIM, BLOCK_D, False)
    do = load_rows(slab(do_in, batch, head, do_at), row, inside, do_at[2], DIM, BLOCK_D, False)
    lse = load_numbers(slab(lse_in, batch, head, lse_at), row, inside, float("inf"), False)
    delta = tl.sum(o.to(ACC) * do.to(ACC), 1)
    tl.store(slab(delta_out, batch, head, lse_at) + row, delta, mask=inside)
    dq = tl.zeros([BLOCK_Q, BLOCK_D], ACC)
    dq = backward_q_visits(
        dq, q, do, lse, delta, i, end, k_in, v_in, k_tiles, v_tiles, map, batch, head, other, k_at[2], v_at[2], scale,
        full, False, CAUSAL, MAPPED, BULK, BLOCK_K, DIM, BLOCK_D, ACC)  # fmt: skip
    dq = backward_q_visits(
        dq, q, do, lse, delta, i, end, k_in, v_in, k_tiles, v_tiles, map, batch, head, other, k_at[2], v_at[2], scale,
        edge, True, CAUSAL, MAPPED, BULK, PIECE, DIM, BLOCK_D, ACC)  # fmt: skip
    store_rows(slab(dq_out, batch, head, dq_at), dq * dq_scale, row, inside, dq_at[2], DIM, BLOCK_D)


@triton.jit
def backward_k_visits(
    dk, dv, k, v, j, end, q_in, do_in, q_tiles, do_tiles, lse_in, delta_in, map, batch, head, other, q_row, do_row,
    scale, visits,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAPPED: tl.constexpr, BULK: tl.constexpr, BLOCK: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dk / scale and dv over a range of query tiles: dv_j = sum_i p_ij do_i, dk_j = scale sum_i ds_ij q_i.

    Everything is transposed, keys down and queries across. Rows past the end need no compare: a query that does not
    exist has lse = +inf, so its weight is 0; a key that does not exist spoils its own row only, which is not stored.
    """
    for t in tl.range(visits[0], visits[1], num_stages=1 if EDGE and BULK else None):
        first = other[2] + t * BLOCK
        i, inside, row = locate(map, first, other[0], other[1], BLOCK, MAPPED, not EDGE)
        q = load_tile(q_in, q_tiles, batch, head, first, row, inside, q_row, DIM, BLOCK, BLOCK_D, not EDGE, BULK)
        do = load_tile(do_in, do_tiles, batch, head, first, row, inside, do_row, DIM, BLOCK, BLOCK_D, not EDGE, BULK)
        lse = load_numbers(lse_in, row, inside, float("inf"), not EDGE)
        delta = load_numbers(delta_in, row, inside, 0.0, not EDGE)
        s = product(k, tl.trans(q), ACC)
        if EDGE and CAUSAL:
            s = tl.where(may_attend(i[None, :], j[:, None], end - other[1], CAUSAL), s, float("-inf"))
        p = tl.exp2(s * scale - lse[None, :])
        dv += product(p.to(do.dtype), do, ACC)
        ds = p * (product(v, tl.trans(do), ACC) - delta[None, :])
        dk += product(ds.to(q.dtype), q, ACC)
    return dk, dv


@triton.jit
def backward_k(
    q_in, k_in, v_in, do_in, dk_out, dv_out, lse_in, delta_in, q_tiles, do_tiles, own_map, map, table, scale, dk_scale,
    q_at, k_at, v_at, do_at, dk_at, dv_at, lse_at,
    CAUSAL: tl.constexpr, MAPPED: tl.constexpr, BULK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dk and dv of one tile of keys of one head."""
    batch, head, first, end, other, full, edge = own_tile(table)
    q_in, do_in = slab(q_in, batch, head, q_at), slab(do_in, batch, head, do_at)
    lse_in, delta_in = slab(lse_in, batch, head, lse_at), slab(delta_in, batch, head, lse_at)
    j, inside, row = locate(own_map, first, first, end, BLOCK_K, MAPPED, False)
    k = load_rows(slab(k_in, batch, head, k_at), row, inside, k_at[2], DIM, BLOCK_D, False)
    v = load_rows(slab(v_in, batch, head, v_at), row, inside, v_at[2], DIM, BLOCK_D, False)
    dk = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    dv = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    dk, dv = backward_k_visits(
        dk, dv, k, v, j, end, q_in, do_in, q_tiles, do_tiles, lse_in, delta_in, map, batch, head, other, q_at[2],
        do_at[2], scale, full, False, CAUSAL, MAPPED, BULK, BLOCK_Q, DIM, BLOCK_D, ACC)  # fmt: skip
    dk, dv = backward_k_visits(
        dk, dv, k, v, j, end, q_in, do_in, q_tiles, do_tiles, lse_in, delta_in, map, batch, head, other, q_at[2],
        do_at[2], scale, edge, True, CAUSAL, MAPPED, BULK, PIECE, DIM, BLOCK_D, ACC)  # fmt: skip
    store_rows(slab(dk_out, batch, head, dk_at), dk * dk_scale, row, inside, dk_at[2], DIM, BLOCK_D)
    store_rows(slab(dv_out, batch, head, dv_at), dv, row, inside, dv_at[2], DIM, BLOCK_D)
