"""How chapter 13's model is taught: what it reads, what stage 2 begins with, and which words the loss counts."""

import pytest
import torch
import torch.nn.functional as F

from soralab import world
from soralab.llava import IMAGE, PAD, answer_loss, expand, is_answer
from soralab.recipes import llava as recipe


@pytest.fixture(scope="module")
def shown():
    return recipe.library()


def said(row):
    return " ".join(recipe.TOKENS[id] for id in row.tolist() if id != PAD)


def turns(row):
    """(question, answer) of each turn of a row, in words."""
    parts = said(row).split("<human>")[1:]
    return [tuple(side.replace("<stop>", "").strip() for side in part.split("<assistant>")) for part in parts]


def test_a_story_stands_where_the_picture_would_and_is_asked_more(shown):
    stories, talks = recipe.Stories(shown, batch=8), recipe.Talks(shown, batch=8)
    lengths, two, first = [], 0, set()
    for step in range(9):
        batch, seen = stories(step), talks(step)
        assert set(batch) == {"ids"} and set(seen) == {"ids", "Z"}
        assert not (batch["ids"] == IMAGE).any() and ((seen["ids"] == IMAGE).sum(1) == seen["Z"].shape[1]).all()
        for row in batch["ids"]:
            (opening, _), *rest = turns(row)
            lengths.append(1 + len(rest))
            two += len({word for word in opening.split() if word in world.COLOURS}) > 1
            first.add(opening.split()[0] in ("what", "where", "is", "how", "which", "do", "does", "describe", "give"))
        assert all(len(turns(row)) <= recipe.TURNS for row in seen["ids"])
    assert max(lengths) == recipe.ASKED > recipe.TURNS and first == {True, False}
    assert two == len(lengths)  # all tell of two things


def test_of_two_things_is_what_has_two(shown):
    for here in shown.values():
        few = here.of_two()
        at = [k for k, told in enumerate(here.told) if len(told.boxes) == 2]
        assert 0 < len(at) < len(here.told) and torch.equal(few.Z, here.Z[at])
        for name in ("scenes", "told", "talk", "brief"):
            assert getattr(few, name) == [getattr(here, name)[k] for k in at]


def test_every_other_batch_of_stage_2_is_of_films(shown):
    batches = recipe.STAGES["stage_2"][1](shown, batch=8)
    assert [batches.which(step)[0] for step in range(6)] == ["picture", "film"] * 3
    plain = recipe.Talks(shown, batch=8, films=2)
    assert all(torch.equal(batches(step)["ids"], plain(step)["ids"]) for step in range(4)) and not batches.brief


@pytest.mark.parametrize("way", ["read", "seen"])
def test_reading_learns_every_word_and_looking_the_answers_alone(shown, way):
    batch = recipe.Stories(shown, batch=4)(1) if way == "read" else recipe.Talks(shown, batch=4)(1)
    ids, Z = batch["ids"], batch.get("Z")
    logits = recipe.fresh()(ids, Z).detach().requires_grad_()
    recipe.loss(lambda *_: logits, batch).backward()
    full = ids if Z is None else expand(ids, Z.shape[2])
    next_, pulled = full[:, 1:], logits.grad.abs().sum(2)[:, :-1] > 0
    answers = is_answer(full)[:, 1:]
    assert torch.equal(pulled, next_ != PAD if way == "read" else answers)
    if way == "read":  # an answer's word counts in both means
        means = answer_loss(logits, ids) + F.cross_entropy(logits[:, :-1][next_ != PAD], next_[next_ != PAD])
        assert recipe.loss(lambda *_: logits, batch).item() == pytest.approx(means.item(), rel=1e-6)
        pull = logits.grad[:, :-1].abs().sum(2)
        assert pull[answers].min() > pull[pulled & ~answers].max()


@pytest.mark.parametrize("films", [0, 2, 3])
def test_one_batch_of_so_many_is_about_films_and_no_scene_is_left_out(shown, films):
    talks = recipe.Talks(shown, batch=6, films=films)
    batches = [talks.which(step) for step in range(24)]
    assert [show == "film" for show, _ in batches] == [bool(films) and step % films == films - 1 for step in range(24)]
    for show, size in (("picture", 6), ("film", 3)):
        seen = [k for here, which in batches if here == show for k in which]
        count = len(shown[show].told)
        assert count % size == 0 and all(len(which) == size for here, which in batches if here == show)
        epochs = [seen[epoch * count : (epoch + 1) * count] for epoch in range(len(seen) // count)]
        assert all(sorted(order) == list(range(count)) for order in epochs)
        assert len({tuple(order) for order in epochs}) == len(epochs)  # each in an order of its own


def test_stage_1_asks_for_the_caption_and_for_nothing_else(shown):
    batches = recipe.STAGES["stage_1"][1](shown, batch=8)
    for step in (0, 1, 2):
        show, which = batches.which(step)
        for k, row in zip(which, batches(step)["ids"], strict=True):
            ((question, answer),) = turns(row)
            brief = [" ".join(recipe.TOKENS[id] for id in side) for side in shown[show].brief[k]]
            assert [question.replace("<image>", "").strip(), answer] == brief
            assert set(answer.split()) <= {*shown[show].told[k].caption.replace(",", "").split()}
