"""Chapter 12's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def called_by_searching(truth, synthetic, ratio, null, lots):
    edges = torch.tensor([null, null + (1 - null) * ratio], dtype=torch.float64)
    kind = torch.searchsorted(edges, lots.double(), right=True).tolist()
    return [("", ours, web)[k] for k, ours, web in zip(kind, synthetic, truth, strict=True)]


def called_by_a_second_share(truth, synthetic, ratio, null, lots):
    found = []
    for k, lot in enumerate(float(v) for v in lots):
        if lot < null:
            found.append("")
        else:
            found.append(synthetic[k] if lot - null < (1 - null) * ratio else truth[k])
    return found


def precision_recall_by_sets(told, true):
    told, true = ({(k, *item) for k, one in enumerate(side) for item in one.items()} for side in (told, true))
    right = len(told & true)
    return (right / len(told) if told else 1.0), (right / len(true) if true else 1.0)


def precision_recall_by_counting(told, true):
    right = wrong = missed = 0
    for claims, there in zip(told, true, strict=True):
        for key, value in claims.items():
            good = key in there and there[key] == value
            right, wrong = right + good, wrong + (not good)
        missed += sum(claims.get(key) != value for key, value in there.items())
    share = lambda other: right / (right + other) if right + other else 1.0  # noqa: E731
    return share(wrong), share(missed)


def log_p_by_cross_entropy(logits, target):
    return -F.cross_entropy(logits.transpose(1, 2), target, ignore_index=0, reduction="none").sum(1)


def log_p_by_loops(logits, target):
    rows = []
    for table, ids in zip(logits, target, strict=True):
        end = ids.tolist().index(2)
        rows.append(sum(table[j, ids[j]] - table[j].logsumexp(-1) for j in range(end + 1)))
    return torch.stack(rows)


def nucleus_by_loops(log_p, p):
    kept = torch.full_like(log_p, -math.inf)
    for row, out in zip(log_p, kept, strict=True):
        total = 0.0
        for word in row.argsort(descending=True).tolist():
            if total >= p:
                break
            out[word] = row[word]
            total += math.exp(float(row[word]))
    return kept - kept.logsumexp(-1, keepdim=True)


def nucleus_by_ranks(log_p, p):
    order = log_p.argsort(dim=-1, descending=True)
    rank = order.argsort(dim=-1)
    chances = log_p.gather(-1, order).double().exp()
    before = F.pad(chances.cumsum(-1)[:, :-1], (1, 0))
    outside = (before >= p).gather(-1, rank)
    return torch.where(outside, -math.inf, log_p).log_softmax(-1)


@pytest.mark.parametrize("name, answer", [
    ("called", called_by_searching), ("called", called_by_a_second_share),
    ("precision_recall", precision_recall_by_sets), ("precision_recall", precision_recall_by_counting),
    ("log_p", log_p_by_cross_entropy), ("log_p", log_p_by_loops),
    ("nucleus", nucleus_by_loops), ("nucleus", nucleus_by_ranks),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"recaptioning.{name}").judge(answer)) == "✓ right"


# --------------------------------------------------------- slips as readers write them, and what each of them is told


def called_below_the_ratio(truth, synthetic, ratio, null, lots):
    return ["" if u < null else s if u < ratio else t for t, s, u in zip(truth, synthetic, lots, strict=True)]


def called_by_numpy_shares(truth, synthetic, ratio, null, lots):
    kind = np.digitize(lots.numpy(), [null, null + ratio])
    return [("", s, t)[k] for k, s, t in zip(kind, synthetic, truth, strict=True)]


def precision_recall_by_captions(told, true):
    if not told:
        return 1.0, 1.0
    pairs = [precision_recall_by_sets([a], [b]) for a, b in zip(told, true, strict=True)]
    return tuple(np.mean(pairs, axis=0).tolist())


def precision_recall_as_a_jaccard(told, true):
    told, true = ({(k, key) for k, one in enumerate(side) for key in one} for side in (told, true))
    right = len(told & true)
    return (right / len(told) if told else 1.0), (right / len(true) if true else 1.0)


def log_p_as_the_loss_has_it(logits, target):
    rows = zip(logits, target, strict=True)
    return torch.stack([-F.cross_entropy(table, ids, ignore_index=0) for table, ids in rows])


def log_p_of_all_places(logits, target):
    return -F.cross_entropy(logits.transpose(1, 2), target, reduction="none").sum(1)


def log_p_positive(logits, target):
    return F.cross_entropy(logits.transpose(1, 2), target, ignore_index=0, reduction="none").sum(1)


def nucleus_of_the_usual_snippet(log_p, p):
    """The one that is copied most, without its shift by one place."""
    best, order = log_p.sort(descending=True)
    remove = best.double().exp().cumsum(-1) >= p
    remove[..., 0] = False
    return log_p.masked_fill(remove.scatter(1, order, remove), -math.inf).log_softmax(-1)


def nucleus_unnormalised(log_p, p):
    found = nucleus_by_ranks(log_p, p)
    return torch.where(found.isinf(), found, log_p)


@pytest.mark.parametrize("name, mistake, answer", [
    ("called", "ratio_of_all", called_below_the_ratio), ("called", "added", called_by_numpy_shares),
    ("precision_recall", "mean_of_captions", precision_recall_by_captions),
    ("precision_recall", "keys_alone", precision_recall_as_a_jaccard),
    ("log_p", "mean_of_words", log_p_as_the_loss_has_it), ("log_p", "with_padding", log_p_of_all_places),
    ("log_p", "turned_round", log_p_positive),
    ("nucleus", "without_the_last", nucleus_of_the_usual_snippet),
    ("nucleus", "not_to_one_again", nucleus_unnormalised),
])  # fmt: skip
def test_a_slip_is_told_by_its_own_sentence(name, mistake, answer):
    task = exercise(f"recaptioning.{name}")
    says = task.mistakes[mistake].says
    assert task.judge(answer).message == says and [one.says for one in task.mistakes.values()].count(says) == 1


def called_backwards(truth, synthetic, ratio, null, lots):
    return called_by_searching(truth, synthetic, ratio, null, lots)[::-1]


def precision_recall_rounded(told, true):
    return tuple(round(value, 1) for value in precision_recall_by_sets(told, true))


def log_p_in_bits(logits, target):
    return log_p_by_cross_entropy(logits, target) / math.log(2)


def nucleus_of_the_rest(log_p, p):
    return exercise("recaptioning.nucleus").solution(log_p, 1 - p / 2)


@pytest.mark.parametrize("name, answer", [
    ("called", called_backwards), ("precision_recall", precision_recall_rounded), ("log_p", log_p_in_bits),
    ("nucleus", nucleus_of_the_rest),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    task = exercise(f"recaptioning.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def log_p_cut(logits, target):
    return log_p_by_cross_entropy(logits.detach(), target)


def test_what_cannot_be_trained_through_is_refused():
    verdict = exercise("recaptioning.log_p").judge(log_p_cut)
    assert verdict.state == "wrong" and "gradient" in verdict.message
