"""Chapter 02: right answers that are written otherwise are taken, and wrong ones are told what is wrong with them."""

import math

import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def attention_by_torch(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention_in_logs(q, k, v, mask):
    logits = (torch.einsum("...md,...nd->...mn", q, k) * q.shape[-1] ** -0.5).masked_fill(~mask, -1e9)
    return ((logits - logits.logsumexp(-1, keepdim=True)).exp() * mask) @ v


def attention_in_double(q, k, v, mask):
    weights = (q.double() @ k.mT.double() / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf).softmax(-1)
    return torch.where(mask.any(-1, keepdim=True), weights, 0.0) @ v.double()


def beam_of_numbers(log_p, after, beam):
    table = (log_p[:, None] + after).tolist()
    best = sorted(((p, row, word) for row, line in enumerate(table) for word, p in enumerate(line)), reverse=True)
    p, row, word = zip(*best[:beam], strict=True)
    return torch.tensor(row), torch.tensor(word), torch.tensor(p)


def turn(angle, minus=(1, -1)):
    return torch.tensor([[math.cos(angle), minus[1] * math.sin(angle)], [minus[0] * math.sin(angle), math.cos(angle)]])


def shift_by_blocks(k, d_model):
    return torch.block_diag(*[turn(k / 10_000 ** (2 * i / d_model)) for i in range(d_model // 2)])


@pytest.mark.parametrize("name, answer", [
    ("attention", attention_by_torch), ("attention", attention_in_logs), ("attention", attention_in_double),
    ("beam_step", beam_of_numbers), ("shift", shift_by_blocks),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"transformer.{name}").judge(answer)) == "✓ right"


def logits(q, k):
    return q @ k.mT / math.sqrt(q.shape[-1])


def masked_with_a_small_number(q, k, v, mask):
    return (logits(q, k).masked_fill(~mask, -100).softmax(-1) * mask) @ v


def masked_and_shared_again(q, k, v, mask):
    weights = logits(q, k).softmax(-1) * mask
    return weights / (weights.sum(-1, keepdim=True) + 1e-9) @ v


def less_the_largest_of_all(q, k, v, mask):
    table = logits(q, k).masked_fill(~mask, -1e9)
    weights = (table - table.max()).exp() * mask
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30) @ v


def naive_in_a_product(q, k, v, mask):
    weights = logits(q, k).exp() * mask
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, 1, total) @ v


def beam_of_probabilities(log_p, after, beam):
    best, place = (log_p.exp()[:, None] * after.exp()).flatten().topk(beam)
    return place // after.shape[1], place % after.shape[1], best.log()


def shift_without_a_minus(k, d_model):
    return torch.block_diag(*[turn(k / 10_000 ** (2 * i / d_model), (1, 1)) for i in range(d_model // 2)])


def shift_with_two(k, d_model):
    return torch.block_diag(*[turn(k / 10_000 ** (2 * i / d_model), (-1, -1)) for i in range(d_model // 2)])


def shift_multiplied(k, d_model):
    return torch.block_diag(*[turn(k * 10_000 ** (2 * i / d_model)) for i in range(d_model // 2)])


def shift_multiplied_as_tensor(k, d_model):
    angles = k * 10_000.0 ** (torch.arange(0, d_model, 2) / d_model)
    rows = [torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])]) for a in angles]
    return torch.block_diag(*rows)


def one_word_too_many(queries, keys):
    return torch.arange(keys) <= torch.arange(keys - queries, keys)[:, None] + 1


@pytest.mark.parametrize("name, answer, says", [
    ("attention", masked_with_a_small_number, "in place of -∞ is not low enough"),
    ("attention", masked_and_shared_again, "share out again what is left"),
    ("attention", less_the_largest_of_all, "logits from -120 to 120"),
    ("attention", naive_in_a_product, "right as long as the logits are small"),
    ("beam_step", beam_of_probabilities, "right for short beginnings"),
    ("shift", shift_without_a_minus, "the minus is missing or in the wrong place"),
    ("shift", shift_with_two, "the minus is missing or in the wrong place"),
    ("shift", shift_multiplied, "multiplied by 10000^(2i / d_model)"),
    ("shift", shift_multiplied_as_tensor, "multiplied by 10000^(2i / d_model)"),
    ("causal_mask", one_word_too_many, "also sees the one after it"),
])  # fmt: skip
def test_what_people_get_wrong_is_named(name, answer, says):
    assert says in exercise(f"transformer.{name}").judge(answer).message
