"""Chapter 07's exercises: right answers written otherwise are taken, other slips are told as what they are."""

from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def rows_in_a_table(sizes, length):
    """A row is [room, members]; the packer walks through all of them."""
    table = []
    for k, size in enumerate(sizes):
        tokens = int(np.prod(size))
        for row in table:
            if row[0] >= tokens:
                break
        else:
            row = [length, []]
            table.append(row)
        row[0] -= tokens
        row[1].append(k)
    return [members for _, members in table]


def rows_by_sums(sizes, length):
    rows = []
    for k, size in enumerate(sizes):
        tokens = torch.tensor(size).prod().item()
        fits = [row for row in rows if sum(torch.tensor(sizes[j]).prod().item() for j in row) + tokens <= length]
        (fits[0] if fits else rows.append([]) or rows[-1]).append(k)
    return rows


def dropped_by_numpy(sizes, length, seed):
    rng = Random(seed)
    rates = np.array([rng.random() for _ in sizes])
    stay = np.maximum(1, np.round(np.prod(sizes, axis=1) * (1 - rates))).astype(int).tolist()
    return [tuple((k, stay[k]) for k in row) for row in rows_in_a_table([(n,) for n in stay], length)]


def pooled_one_by_one(z, ids, query, pictures):
    vectors = []
    for k in range(pictures):
        own = z[ids == k].double()
        logits = own @ query.double() / own.shape[1] ** 0.5
        weights = torch.exp(logits - logits.max().detach())
        vectors.append((weights[:, None] * own).sum(0) / weights.sum())
    return torch.stack(vectors).to(z)


def pooled_by_attention(z, ids, query, pictures):
    flat, owner = z.flatten(0, 1), ids.flatten()
    flat = torch.where(owner[:, None] >= 0, flat, 0)
    mask = F.one_hot(owner.clamp(min=0), pictures).T.bool() & (owner >= 0)
    return F.scaled_dot_product_attention(query.expand(pictures, -1), flat, flat, attn_mask=mask)


def fractional_by_interp(table, side):
    places, entries = ((np.arange(n) + 0.5) / n for n in (side, len(table)))
    columns = [np.interp(places, entries, column) for column in table.double().numpy().T]
    return torch.from_numpy(np.stack(columns, 1)).to(table)


def fractional_by_torch(table, side):
    return F.interpolate(table.T[None], side, mode="linear", align_corners=False)[0].T


@pytest.mark.parametrize("name, answer", [
    ("navit.pack", rows_in_a_table), ("navit.pack", rows_by_sums), ("navit.drop_and_pack", dropped_by_numpy),
    ("navit.pooled", pooled_one_by_one), ("navit.pooled", pooled_by_attention),
    ("navit.fractional", fractional_by_torch),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(name).judge(answer)) == "✓ right"


def test_a_table_read_without_its_gradient_is_refused():
    """np.interp cuts the way back to the table, which is learned."""
    with torch.no_grad():
        message = exercise("navit.fractional").judge(lambda table, side: fractional_by_interp(table.detach(), side))
    assert message.state == "wrong" and "gradient" in message.message


def pooled_with_minus_100(z, ids, query, pictures):
    own = ids.flatten() == torch.arange(pictures)[:, None]
    flat = z.flatten(0, 1)
    return (flat @ query / z.shape[-1] ** 0.5).masked_fill(~own, -100.0).softmax(-1) @ flat


def packs_sorted_sizes(sizes, length):
    return exercise("navit.pack").solution(sorted(sizes), length)


def drops_from_the_end(sizes, length, seed):
    return exercise("navit.drop_and_pack").solution(sizes, length, seed)[::-1]


@pytest.mark.parametrize("name, answer", [
    ("navit.pooled", pooled_with_minus_100), ("navit.pack", packs_sorted_sizes),
    ("navit.drop_and_pack", drops_from_the_end),
    ("navit.fractional", lambda table, side: fractional_by_torch(table, side).flip(0)),
    ("navit.pack", lambda sizes, length: [[k] for k in range(len(sizes))]),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    verdict = exercise(name).judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in exercise(name).mistakes.values()}
