"""Chapter 13's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from soralab.exercises import exercise


def solution(name):
    return exercise(f"llava.{name}").solution


def grid_by_einops(x, layers):
    z = rearrange(x, "films frames tokens dim -> (films frames) tokens dim")
    for k in range(len(layers) - 1):
        z = layers[k](z)
    return rearrange(z[:, 1:], "(films frames) places dim -> films (frames places) dim", films=len(x))


def grid_frame_by_frame(x, layers):
    *most, _ = layers
    frames = []
    for z in x.unbind(1):
        for layer in most:
            z = layer(z)
        frames.append(z[:, 1:])
    return torch.cat(frames, 1)


@torch.no_grad()
def grid_of_a_frozen_tower(x, layers):
    return grid_by_einops(x, layers)


def grid_by_hidden_states(x, layers):
    states = [x.flatten(0, 1)]
    for layer in layers[:-1]:
        states.append(layer(states[-1]))
    return states[-1][:, 1:].reshape(len(x), -1, x.shape[-1])


def spliced_by_writing_into_zeros(ids, embedding, pictures, place):
    tokens = pictures.shape[1]
    here = [row == place for row in ids]
    if sum(int(mark.sum()) for mark in here) != len(pictures):
        raise ValueError("pictures")
    sizes = [torch.where(mark, tokens, 1) for mark in here]
    lengths = torch.stack([size.sum() for size in sizes])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    out, taken = embedding.new_zeros(*mask.shape, embedding.shape[1]), 0
    for i, (row, size) in enumerate(zip(ids, sizes, strict=True)):
        for id, start in zip(row.tolist(), (size.cumsum(0) - size).tolist(), strict=True):
            if id == place:
                out[i, start : start + tokens] = pictures[taken]
                taken += 1
            else:
                out[i, start] = embedding[id]
    return out, mask


def spliced_by_repeated_ids(ids, embedding, pictures, place):
    """As newer code does it: the id stands as often as there are tokens, and they are scattered in."""
    tokens = pictures.shape[1]
    rows = [row.repeat_interleave(torch.where(row == place, tokens, 1)) for row in ids]
    longest = max(map(len, rows))
    whole = torch.stack([F.pad(row, (0, longest - len(row))) for row in rows])
    mask = torch.stack([torch.arange(longest) < len(row) for row in rows])
    here = (whole == place) & mask
    if int(here.sum()) != pictures[..., 0].numel():
        raise ValueError("pictures")
    words = embedding[torch.where(here, 0, whole)] * (mask & ~here)[..., None]
    return words.masked_scatter(here[..., None].expand_as(words), pictures.to(words)), mask


def spliced_by_splitting(ids, embedding, pictures, place):
    given, rows = list(pictures), []
    for row in ids:
        parts, start = [embedding[:0]], 0
        for k in (row == place).nonzero().flatten().tolist():
            if not given:
                raise ValueError("pictures are too few")
            parts += [embedding[row[start:k]], given.pop(0)]
            start = k + 1
        rows.append(torch.cat([*parts, embedding[row[start:]]]))
    if given:
        raise ValueError("pictures are too many")
    longest = max(len(row) for row in rows)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for k, row in enumerate(rows):
        mask[k, : len(row)] = True
    return torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows]), mask


def targets_by_a_mask(talks, stop):
    ids, said = [], []
    for talk in talks:
        row, marks = [], []
        for question, answer in talk:
            row += question + answer + [stop]
            marks += [0] * len(question) + [1] * len(answer) + [1]
        ids.append(torch.tensor(row))
        said.append(torch.tensor(marks))
    ids, said = (torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (ids, said))
    following, marked = F.pad(ids[:, 1:], (0, 1)), F.pad(said[:, 1:], (0, 1)).bool()
    return ids, following.masked_fill(~marked, -100)


def targets_by_label_rows(talks, stop):
    """Labels beside ids, as the published code keeps them, moved at the end."""
    ids = [sum((question + answer + [stop] for question, answer in talk), []) for talk in talks]
    labels = [sum(([-100] * len(question) + answer + [stop] for question, answer in talk), []) for talk in talks]
    n = max(map(len, ids))
    return (torch.tensor([row + [0] * (n - len(row)) for row in ids]),
            torch.tensor([row[1:] + [-100] * (n - len(row) + 1) for row in labels]))  # fmt: skip


def written_by_a_counter(decode, embed, prompt, stop, longest):
    x, first, cache, words = prompt, 0, None, []
    for _ in range(longest):
        logits, cache = decode(x, first, cache)
        first += len(x)
        word = logits[-1].topk(1).indices
        if word.item() == stop:
            return words
        words.append(word.item())
        x = embed(word)
    return words


@pytest.mark.parametrize("name, answer", [
    ("grid", grid_by_einops), ("grid", grid_frame_by_frame), ("grid", grid_by_hidden_states),
    ("grid", grid_of_a_frozen_tower),
    ("spliced", spliced_by_writing_into_zeros), ("spliced", spliced_by_repeated_ids),
    ("spliced", spliced_by_splitting), ("targets", targets_by_a_mask), ("targets", targets_by_label_rows),
    ("written", written_by_a_counter),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"llava.{name}").judge(answer)) == "✓ right"


# --------------------------------------------------------- slips as readers write them, and what each of them is told


def grid_of_the_third_from_the_end(x, layers):
    """hidden_states[-2] counts the input; layers[:-2] does not."""
    z = x.flatten(0, 1)
    for layer in layers[:-2]:
        z = layer(z)
    return z[:, 1:].reshape(len(x), -1, x.shape[-1])


def grid_cut_after_flattening(x, layers):
    z = x.flatten(0, 1)
    for layer in layers[:-1]:
        z = layer(z)
    return z.reshape(len(x), -1, x.shape[-1])[:, 1:]


def grid_with_frames_behind_places(x, layers):
    z = x.flatten(0, 1)
    for layer in layers[:-1]:
        z = layer(z)
    return rearrange(z[:, 1:], "(b t) n d -> b (n t) d", b=len(x))


def spliced_at_one_index(ids, embedding, pictures, place):
    """Inserts a picture's tokens one by one at the same index."""
    rest, rows = iter(pictures), []
    for row in ids:
        parts = []
        for id in row.tolist():
            if id == place:
                at = len(parts)
                for token in next(rest):
                    parts.insert(at, token)
            else:
                parts.append(embedding[id])
        rows.append(torch.stack(parts))
    mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(mask, batch_first=True)


def spliced_with_an_iterator_a_row(ids, embedding, pictures, place):
    rows = []
    for row in ids:
        rest = iter(pictures)
        rows.append(torch.cat([next(rest) if id == place else embedding[id][None] for id in row.tolist()]))
    mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(mask, batch_first=True)


def targets_that_ignore_zero(talks, stop):
    ids, targets = targets_by_a_mask(talks, stop)
    following = F.pad(ids[:, 1:], (0, 1))
    return ids, torch.where(following == 0, -100, targets)


def targets_asked_one_place_early(talks, stop):
    ids = [sum((question + answer + [stop] for question, answer in talk), []) for talk in talks]
    said = [sum(([0] * len(question) + [1] * (len(answer) + 1) for question, answer in talk), []) for talk in talks]
    n = max(map(len, ids))
    whole = torch.tensor([row + [0] * (n - len(row)) for row in ids])
    targets = [[following if mark else -100 for following, mark in zip(row[1:], marks, strict=False)]
               + [-100] * (n - len(row) + 1) for row, marks in zip(ids, said, strict=True)]  # fmt: skip
    for k, row in enumerate(ids):
        if len(row) < n:
            targets[k][len(row) - 1] = 0  # the padding follows the last stop
    return whole, torch.tensor(targets)


def targets_with_stops_where_their_id_is(talks, stop):
    ids, targets = solution("targets")(talks, stop)
    for row, learnt, talk in zip(ids, targets, talks, strict=True):
        length = sum(len(question) + len(answer) + 1 for question, answer in talk)
        following = row[1:length]
        learnt[: length - 1] = torch.where(following == stop, stop, learnt[: length - 1])
    return ids, targets


def targets_rolled(talks, stop):
    ids = [sum((question + answer + [stop] for question, answer in talk), []) for talk in talks]
    labels = [sum(([-100] * len(question) + answer + [stop] for question, answer in talk), []) for talk in talks]
    n = max(map(len, ids))
    return (torch.tensor([row + [0] * (n - len(row)) for row in ids]),
            torch.tensor([row + [-100] * (n - len(row)) for row in labels]).roll(-1, dims=1))  # fmt: skip


def written_at_the_words_own_count(decode, embed, prompt, stop, longest):
    logits, cache = decode(prompt, 0, None)
    words = []
    for k in range(longest):
        word = int(logits[-1].argmax())
        if word == stop:
            break
        words.append(word)
        logits, cache = decode(embed(torch.tensor([word])), k, cache)
    return words


def written_behind_a_place_left_free(decode, embed, prompt, stop, longest):
    logits, cache = decode(prompt, 0, None)
    words = []
    while len(words) < longest and int(logits[-1].argmax()) != stop:
        words.append(int(logits[-1].argmax()))
        logits, cache = decode(embed(torch.tensor(words[-1:])), len(prompt) + len(words), cache)
    return words


@pytest.mark.parametrize("name, mistake, answer", [
    ("grid", "two_layers_left_out", grid_of_the_third_from_the_end),
    ("grid", "one_class_token_dropped", grid_cut_after_flattening),
    ("grid", "place_after_place", grid_with_frames_behind_places),
    ("spliced", "tokens_backwards", spliced_at_one_index),
    ("spliced", "started_again", spliced_with_an_iterator_a_row),
    ("targets", "zeros_taken_for_padding", targets_that_ignore_zero),
    ("targets", "moved_round", targets_rolled),
    ("targets", "stops_by_their_id", targets_with_stops_where_their_id_is),
    ("targets", "mask_not_moved", targets_asked_one_place_early),
    ("written", "words_counted_alone", written_at_the_words_own_count),
    ("written", "one_too_far", written_behind_a_place_left_free),
])  # fmt: skip
def test_a_slip_is_told_by_its_own_sentence(name, mistake, answer):
    task = exercise(f"llava.{name}")
    says = task.mistakes[mistake].says
    assert task.judge(answer).message == says and [one.says for one in task.mistakes.values()].count(says) == 1


def grid_doubled(x, layers):
    return solution("grid")(x, layers) * 2


def spliced_twice(ids, embedding, pictures, place):
    rows, mask = solution("spliced")(ids, embedding, pictures, place)
    return torch.cat([rows, rows], 1), torch.cat([mask, mask], 1)


def targets_of_minus_one(talks, stop):
    ids, targets = solution("targets")(talks, stop)
    return ids, targets.masked_fill(targets == -100, -1)


def written_by_the_unlikeliest(decode, embed, prompt, stop, longest):
    return solution("written")(lambda *given: (-decode(*given)[0], decode(*given)[1]), embed, prompt, stop, longest)


@pytest.mark.parametrize("name, answer", [
    ("grid", grid_doubled), ("spliced", spliced_twice), ("targets", targets_of_minus_one),
    ("written", written_by_the_unlikeliest),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    task = exercise(f"llava.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def spliced_cut(ids, embedding, pictures, place):
    return spliced_by_splitting(ids, embedding, pictures.detach(), place)


def test_what_cannot_be_trained_through_is_refused():
    verdict = exercise("llava.spliced").judge(spliced_cut)
    assert verdict.state == "wrong" and "gradient" in verdict.message


def test_an_answer_in_one_piece_is_the_answer_word_by_word():
    """The exercise's toy decoder: logits of all places at once are those of one place after the other."""
    decode, embed, prompt, _, _ = exercise("llava.written").drawn(0)[3].args
    words = solution("written")(decode, embed, prompt, -1, 8)
    whole, _ = decode(torch.cat([prompt, embed(torch.tensor(words))]), 0, None)
    assert whole[len(prompt) - 1 : -1].argmax(-1).tolist() == words
