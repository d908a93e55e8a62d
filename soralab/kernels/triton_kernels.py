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
where a token stands in packed order, its *row* where it lies in memory: the same, or row = map[place].
"""

import triton
import triton.language as tl


@triton.jit
def own_tile(table):
    """This program's row of the table. It visits [full_lo, full_hi) without and [edge_lo, edge_hi) with compares."""
    table += tl.program_id(0) * 9
    batch, first, end = tl.load(table).to(tl.int64), tl.load(table + 1), tl.load(table + 2)
    other_first, other_end = tl.load(table + 3), tl.load(table + 4)
    full = (tl.load(table + 5), tl.load(table + 6))
    edge = (tl.load(table + 7), tl.load(table + 8))
    return batch, first, end, other_first, other_end, full, edge


@triton.jit
def visited_tile(visits, t, other_first, other_end, BLOCK: tl.constexpr, LISTED: tl.constexpr):
    """First place and end of the visited tile t: the t-th of the segment, or the t-th of a list."""
    first, end = other_first + t * BLOCK, other_end
    if LISTED:
        first, end = tl.load(visits + 2 * t), tl.load(visits + 2 * t + 1)
    return first, end


@triton.jit
def locate(map, first, end, BLOCK: tl.constexpr, MAPPED: tl.constexpr):
    """Places [BLOCK] of a tile, which of them exist, and their rows. int64: a row times its stride can pass 2^31."""
    place = first + tl.arange(0, BLOCK)
    inside = place < end
    row = place
    if MAPPED:
        row = tl.load(map + place, mask=inside, other=0)
    return place, inside, row.to(tl.int64)


@triton.jit
def load_rows(x, row, inside, stride, DIM: tl.constexpr, BLOCK_D: tl.constexpr, WHOLE: tl.constexpr):
    """Rows [BLOCK, BLOCK_D] of a tensor, zeros where there are none. WHOLE: every row exists."""
    d = tl.arange(0, BLOCK_D)
    pointers = x + row[:, None] * stride + d[None, :]
    if WHOLE and DIM == BLOCK_D:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=inside[:, None] & (d[None, :] < DIM), other=0.0)
    return tile


@triton.jit
def store_rows(x, value, row, inside, stride, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """The inverse of load_rows; rows that do not exist are not written."""
    d = tl.arange(0, BLOCK_D)
    pointers = x + row[:, None] * stride + d[None, :]
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
    o, m, ell, q, i, shift, k_in, v_in, map, visits, other_first, other_end, k_row, v_row, scale, lo, hi,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAPPED: tl.constexpr, LISTED: tl.constexpr, BLOCK_K: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The online softmax over key tiles [lo, hi). Before and after it, for the keys seen so far:

    m = max s,  ell = sum 2^(s - m),  o = sum 2^(s - m) v.   (2307.08691, section 3.1, algorithm 1)
    """
    for t in range(lo, hi):
        first, end = visited_tile(visits, t, other_first, other_end, BLOCK_K, LISTED)
        j, inside, row = locate(map, first, end, BLOCK_K, MAPPED)
        k = load_rows(k_in, row, inside, k_row, DIM, BLOCK_D, not EDGE)
        s = product(q, tl.trans(k), ACC)
        if EDGE:
            allowed = inside[None, :] & may_attend(i[:, None], j[None, :], shift, CAUSAL)
            s = tl.where(allowed, s, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1) * scale)
        base = m_new
        if EDGE:  # a row that has seen no key yet has m = -inf, and -inf - -inf is NaN
            base = tl.where(m_new == float("-inf"), 0.0, m_new)
        p = tl.exp2(s * scale - base[:, None])
        shrink = tl.exp2(m - base)
        ell = ell * shrink + tl.sum(p, 1)
        v = load_rows(v_in, row, inside, v_row, DIM, BLOCK_D, not EDGE)
        o = o * shrink[:, None] + product(p.to(v.dtype), v, ACC)
        m = m_new
    return o, m, ell


@triton.jit
def forward(
    q_in, k_in, v_in, o_out, lse_out, map, table, visits, scale, q_at, k_at, v_at, o_at, lse_at,
    CAUSAL: tl.constexpr, MAPPED: tl.constexpr, LISTED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """o = softmax(scale q k^T) v and lse = log2 sum 2^s of one tile of queries of one head."""
    batch, first, end, other_first, other_end, full, edge = own_tile(table)
    head = tl.program_id(1).to(tl.int64)
    k_in += batch * k_at[0] + head * k_at[1]
    v_in += batch * v_at[0] + head * v_at[1]
    i, inside, row = locate(map, first, end, BLOCK_Q, MAPPED)
    q = load_rows(q_in + batch * q_at[0] + head * q_at[1], row, inside, q_at[2], DIM, BLOCK_D, False)
    o = tl.zeros([BLOCK_Q, BLOCK_D], ACC)
    ell = tl.zeros([BLOCK_Q], ACC)
    m = ell - float("inf")
    o, m, ell = forward_visits(
        o, m, ell, q, i, other_end - end, k_in, v_in, map, visits, other_first, other_end, k_at[2], v_at[2], scale,
        full[0], full[1], False, CAUSAL, MAPPED, LISTED, BLOCK_K, DIM, BLOCK_D, ACC)  # fmt: skip
    o, m, ell = forward_visits(
        o, m, ell, q, i, other_end - end, k_in, v_in, map, visits, other_first, other_end, k_at[2], v_at[2], scale,
        edge[0], edge[1], True, CAUSAL, MAPPED, LISTED, BLOCK_K, DIM, BLOCK_D, ACC)  # fmt: skip
    # A query without keys gets o = 0, and lse = +inf: then 2^(s - lse), all its weights in the backward pass, are 0.
    seen = ell > 0
    ell = tl.where(seen, ell, 1.0)
    o_out += batch * o_at[0] + head * o_at[1]
    store_rows(o_out, o / ell[:, None], row, inside, o_at[2], DIM, BLOCK_D)
    lse = tl.where(seen, m + tl.log2(ell), float("inf"))
    tl.store(lse_out + batch * lse_at[0] + head * lse_at[1] + row, lse, mask=inside)


@triton.jit
def backward_q_visits(
    dq, q, do, lse, delta, i, shift, k_in, v_in, map, visits, other_first, other_end, k_row, v_row, scale, lo, hi,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAPPED: tl.constexpr, LISTED: tl.constexpr, BLOCK_K: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dq / scale over key tiles [lo, hi): dq_i = scale sum_j ds_ij k_j with ds = p (dp - delta) and dp = do v^T."""
    for t in range(lo, hi):
        first, end = visited_tile(visits, t, other_first, other_end, BLOCK_K, LISTED)
        j, inside, row = locate(map, first, end, BLOCK_K, MAPPED)
        k = load_rows(k_in, row, inside, k_row, DIM, BLOCK_D, not EDGE)
        v = load_rows(v_in, row, inside, v_row, DIM, BLOCK_D, not EDGE)
        s = product(q, tl.trans(k), ACC)
        if EDGE:  # before the exponential: a masked logit may be far above lse, and 2^s then overflows
            allowed = inside[None, :] & may_attend(i[:, None], j[None, :], shift, CAUSAL)
            s = tl.where(allowed, s, float("-inf"))
        p = tl.exp2(s * scale - lse[:, None])
        ds = p * (product(do, tl.trans(v), ACC) - delta[:, None])
        dq += product(ds.to(k.dtype), k, ACC)
    return dq


@triton.jit
def backward_q(
    q_in, k_in, v_in, o_in, do_in, lse_in, delta_out, dq_out, map, table, visits, scale, dq_scale,
    q_at, k_at, v_at, o_at, do_at, lse_at, dq_at,
    CAUSAL: tl.constexpr, MAPPED: tl.constexpr, LISTED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dq of one tile of queries of one head; delta on the way, because o and do are at hand here."""
    batch, first, end, other_first, other_end, full, edge = own_tile(table)
    head = tl.program_id(1).to(tl.int64)
    k_in += batch * k_at[0] + head * k_at[1]
    v_in += batch * v_at[0] + head * v_at[1]
    i, inside, row = locate(map, first, end, BLOCK_Q, MAPPED)
    q = load_rows(q_in + batch * q_at[0] + head * q_at[1], row, inside, q_at[2], DIM, BLOCK_D, False)
    o = load_rows(o_in + batch * o_at[0] + head * o_at[1], row, inside, o_at[2], DIM, BLOCK_D, False)
    do = load_rows(do_in + batch * do_at[0] + head * do_at[1], row, inside, do_at[2], DIM, BLOCK_D, False)
    at = batch * lse_at[0] + head * lse_at[1] + row
    lse = tl.load(lse_in + at, mask=inside, other=float("inf"))
    delta = tl.sum(o.to(ACC) * do.to(ACC), 1)
    tl.store(delta_out + at, delta, mask=inside)
    dq = tl.zeros([BLOCK_Q, BLOCK_D], ACC)
    dq = backward_q_visits(
        dq, q, do, lse, delta, i, other_end - end, k_in, v_in, map, visits, other_first, other_end, k_at[2], v_at[2],
        scale, full[0], full[1], False, CAUSAL, MAPPED, LISTED, BLOCK_K, DIM, BLOCK_D, ACC)  # fmt: skip
    dq = backward_q_visits(
        dq, q, do, lse, delta, i, other_end - end, k_in, v_in, map, visits, other_first, other_end, k_at[2], v_at[2],
        scale, edge[0], edge[1], True, CAUSAL, MAPPED, LISTED, BLOCK_K, DIM, BLOCK_D, ACC)  # fmt: skip
    store_rows(dq_out + batch * dq_at[0] + head * dq_at[1], dq * dq_scale, row, inside, dq_at[2], DIM, BLOCK_D)


@triton.jit
def backward_k_visits(
    dk, dv, k, v, j, shift, q_in, do_in, lse_in, delta_in, map, visits, other_first, other_end, q_row, do_row, scale,
    lo, hi, EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAPPED: tl.constexpr, LISTED: tl.constexpr,
    BLOCK_Q: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dk / scale and dv over query tiles [lo, hi): dv_j = sum_i p_ij do_i, dk_j = scale sum_i ds_ij q_i.

    Everything is transposed, keys down and queries across. Rows past the end need no compare: a query that does not
    exist has lse = +inf, so its weight is 0; a key that does not exist spoils its own row only, which is not stored.
    """
    for t in range(lo, hi):
        first, end = visited_tile(visits, t, other_first, other_end, BLOCK_Q, LISTED)
        i, inside, row = locate(map, first, end, BLOCK_Q, MAPPED)
        q = load_rows(q_in, row, inside, q_row, DIM, BLOCK_D, False)
        do = load_rows(do_in, row, inside, do_row, DIM, BLOCK_D, False)
        lse = tl.load(lse_in + row, mask=inside, other=float("inf"))
        delta = tl.load(delta_in + row, mask=inside, other=0.0)
        s = product(k, tl.trans(q), ACC)
        if EDGE:
            s = tl.where(may_attend(i[None, :], j[:, None], shift, CAUSAL), s, float("-inf"))
        p = tl.exp2(s * scale - lse[None, :])
        dv += product(p.to(do.dtype), do, ACC)
        ds = p * (product(v, tl.trans(do), ACC) - delta[None, :])
        dk += product(ds.to(q.dtype), q, ACC)
    return dk, dv


@triton.jit
def backward_k(
    q_in, k_in, v_in, do_in, lse_in, delta_in, dk_out, dv_out, map, table, visits, scale, dk_scale,
    q_at, k_at, v_at, do_at, lse_at, dk_at, dv_at,
    CAUSAL: tl.constexpr, MAPPED: tl.constexpr, LISTED: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dk and dv of one tile of keys of one head."""
    batch, first, end, other_first, other_end, full, edge = own_tile(table)
    head = tl.program_id(1).to(tl.int64)
    q_in += batch * q_at[0] + head * q_at[1]
    do_in += batch * do_at[0] + head * do_at[1]
    lse_in += batch * lse_at[0] + head * lse_at[1]
    delta_in += batch * lse_at[0] + head * lse_at[1]
    j, inside, row = locate(map, first, end, BLOCK_K, MAPPED)
    k = load_rows(k_in + batch * k_at[0] + head * k_at[1], row, inside, k_at[2], DIM, BLOCK_D, False)
    v = load_rows(v_in + batch * v_at[0] + head * v_at[1], row, inside, v_at[2], DIM, BLOCK_D, False)
    dk = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    dv = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    if CAUSAL:  # the diagonal; without one there is no edge
        dk, dv = backward_k_visits(
            dk, dv, k, v, j, end - other_end, q_in, do_in, lse_in, delta_in, map, visits, other_first, other_end,
            q_at[2], do_at[2], scale, edge[0], edge[1], True, CAUSAL, MAPPED, LISTED, BLOCK_Q, DIM, BLOCK_D,
            ACC)  # fmt: skip
    dk, dv = backward_k_visits(
        dk, dv, k, v, j, end - other_end, q_in, do_in, lse_in, delta_in, map, visits, other_first, other_end,
        q_at[2], do_at[2], scale, full[0], full[1], False, CAUSAL, MAPPED, LISTED, BLOCK_Q, DIM, BLOCK_D,
        ACC)  # fmt: skip
    store_rows(dk_out + batch * dk_at[0] + head * dk_at[1], dk * dk_scale, row, inside, dk_at[2], DIM, BLOCK_D)
    store_rows(dv_out + batch * dv_at[0] + head * dv_at[1], dv, row, inside, dv_at[2], DIM, BLOCK_D)
