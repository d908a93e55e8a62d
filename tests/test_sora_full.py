"""Chapter 16's whole model: films of any sizes in one row, each as if it were alone; what a latent frame is told."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_full import CONFIG, by_hand, tiny_full
from tiny_models import numbers, randomise

from soralab import sora_full
from soralab.blocks import clips as strings
from soralab.blocks.clips import clip_for, latents, moments, nearest
from soralab.blocks.dit import Block
from soralab.sora_full import Films, FullSora, shift_of

PROMPTS = ((7, 8, 9), (11,), (), (5, 6, 7, 8, 9, 10))  # ids of words; the third film has none
IDS = torch.tensor([[*ids, *[0] * (6 - len(ids))] for ids in PROMPTS])


@pytest.fixture(scope="module")
def model():
    return tiny_full()


def row():
    """Two films of one size, a picture of another, and a string of two clips of a third: 24, 6 and 24 tokens."""
    times = map(torch.tensor, ([[0.0, 0.4, 0.4], [0.9, 0.9, 0.9]], [[0.7]], [[0, 0.2, 0.2, 0.0]]))
    parts = zip(((2, 3, 16, 4, 4), (1, 1, 16, 6, 4), (1, 4, 16, 4, 6)), times, ((9,), (1,), (5, 5)),
                ([9.0, 0.0], [0.0], [10.0]), strict=True)  # fmt: skip
    return [Films(numbers(*shape, seed=k), t, clips, torch.tensor(rate))
            for k, (shape, t, clips, rate) in enumerate(parts)]  # fmt: skip


def one_by_one():
    """(which part of the row, which film of it) of each film, in the order of the prompts."""
    return [(k, n) for k, part in enumerate(row()) for n in range(len(part.x))]


def alone(part, n=0):
    """Film n of a part, as a part of its own."""
    return Films(part.x[n : n + 1], part.times[n : n + 1], part.clips, part.rate[n : n + 1])


@pytest.fixture(scope="module")
def want(model):
    parts = row()
    return [by_hand(model, parts[k].x[n], parts[k].times[n], parts[k].clips, float(parts[k].rate[n]), ids)
            for (k, n), ids in zip(one_by_one(), PROMPTS, strict=True)]  # fmt: skip


@torch.no_grad()
def apart(model, want):
    """By how much the films of the row differ from what each is by hand."""
    told = model(row(), IDS)
    return [float((told[k][n] - w).abs().max()) for (k, n), w in zip(one_by_one(), want, strict=True)]


# ------------------------------------------------------------------------------------------- each film as if alone


@torch.no_grad()
def test_packed_films_are_each_what_it_is_by_hand(model, want):
    assert max(apart(model, want)) < 2e-6 * max(float(w.abs().max()) for w in want)
    assert all(w.std() > 0.1 for w in want)
    parts = row()
    for film, ((k, n), ids) in enumerate(zip(one_by_one(), PROMPTS, strict=True)):
        (single,) = model([alone(parts[k], n)], torch.tensor([[*ids, 0, 0]]))
        torch.testing.assert_close(single[0], want[film], rtol=1e-5, atol=2e-6)


def rolled(name, at=0):
    """A method of FullSora whose answer is that of the token, or latent frame, before."""
    right = getattr(FullSora, name)

    def wrong(self, *given):
        found = right(self, *given)
        return found.roll(1, 0) if at == 0 else (found[0], found[1].roll(1, 0))

    return wrong


def off_by_one(lengths):
    """The last token of every film is the next one's first."""
    bounds = F.pad(lengths.cumsum(0), (1, 0)).int()
    bounds[1:-1] -= 1
    return bounds


def unsaid_is_a_rate(self, films, whole):
    return CONDITIONS(self, [Films(f.x, f.times, f.clips, f.rate.clamp(min=1e-6)) for f in films], whole)


def one_time(self, films, whole):
    """As other models have it: one time for the whole film, its last latent's."""
    return CONDITIONS(self, [Films(f.x, f.times[:, -1:].expand_as(f.times), f.clips, f.rate) for f in films], whole)


def shared(clips, device=None):
    """Every clip begins at the film's first frame."""
    parts = [moments((clip,), device) for clip in clips]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def counted(clips, device=None):
    """Latents by their numbers, as if each held four frames."""
    first = moments(clips, device)[1]
    return 4.0 * torch.arange(len(first)), first


def films_first(clips, device=None):
    middles, first = moments(clips, device)
    return middles, torch.arange(len(first)) == 0


def exchanged(size, device=None):
    t, y, x = GRID(size, device).unbind(-1)
    return torch.stack([t, x, y], -1)


CONDITIONS, GRID = FullSora.conditions, sora_full.grid_positions
WRONG = {
    "bounds off by one": (sora_full, "_bounds", off_by_one),
    "times and prompts of the latent before": (FullSora, "conditions", rolled("conditions")),
    "angles of the token before": (FullSora, "place", rolled("place", 1)),
    "a rate that is not said is one": (FullSora, "conditions", unsaid_is_a_rate),
    "one time a film": (FullSora, "conditions", one_time),
    "clips share their places": (sora_full, "moments", shared),
    "latents of four frames": (sora_full, "moments", counted),
    "only the film's first is a first": (sora_full, "moments", films_first),
    "rows for columns": (sora_full, "grid_positions", exchanged),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_versions_are_not_what_it_is_by_hand(model, want, monkeypatch, name):
    where, what, wrong = WRONG[name]
    monkeypatch.setattr(where, what, wrong)
    assert max(apart(model, want)) > 1e-3


@pytest.mark.parametrize("which", [0, 2], ids=["words", "the whole prompt"])
def test_the_prompt_of_a_neighbour_is_not_what_it_is_by_hand(model, want, monkeypatch, which):
    right = model.text.forward

    def wrong(ids):
        told = list(right(ids))
        for k in (0, 1) if which == 0 else (2,):
            told[k] = told[k].roll(1, 0)
        return tuple(told)

    monkeypatch.setattr(model.text, "forward", wrong)
    assert max(apart(model, want)) > 1e-3


@torch.no_grad()
def test_a_neighbour_of_nan_changes_no_bit(model):
    before, parts = model(row(), IDS), row()
    parts[1] = replace(parts[1], x=parts[1].x * torch.nan, times=parts[1].times * torch.nan)
    parts[0].x[1] = torch.nan
    after = model(parts, IDS)
    assert torch.equal(after[0][0], before[0][0]) and torch.equal(after[2], before[2])
    assert after[1].isnan().all() and after[0][1].isnan().all()


def test_the_gradient_of_a_row_is_the_sum_of_the_films(model):
    """Each film's error counts by weights of its own."""
    def gradient(parts, ids, seeds):
        loss = sum((told * numbers(*told.shape, seed=seed)).sum()
                   for told, seed in zip(model(parts, ids), seeds, strict=True))  # fmt: skip
        names, weights = zip(*model.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, weights, allow_unused=True), strict=True))

    parts = [alone(row()[k], n) for k, n in one_by_one()]
    whole = gradient(parts, IDS, range(4))
    each = [gradient([part], IDS[k : k + 1], [k]) for k, part in enumerate(parts)]
    unused = {name for name, grad in whole.items() if grad is None}
    assert all(name.startswith("text.") for name in unused)
    for name in whole.keys() - unused:
        summed = sum(part[name] for part in each if part[name] is not None)
        size = float(summed.abs().max())
        assert size > 0 and float((whole[name] - summed).abs().max()) < 2e-5 * size, name


# --------------------------------------------------------------------------------------- what a latent frame is told


@torch.no_grad()
def test_the_order_of_frames_counts(model):
    """Were places forgotten, films with their frames in another order would be answered in that order."""
    part = replace(alone(row()[0]), times=torch.full((1, 3), 0.5), clips=(1, 1, 1))
    swapped = replace(part, x=part.x[:, [0, 2, 1]])
    straight, other = model([part], IDS[:1])[0], model([swapped], IDS[:1])[0]
    assert (other[:, [0, 2, 1]] - straight).abs().max() > 1e-2


@torch.no_grad()
def test_the_time_of_a_latent_frame_is_seen_by_the_others(model):
    part = alone(row()[0])
    later = replace(part, times=part.times + torch.tensor([[0.0, 0.0, 0.3]]))
    changed = (model([part], IDS[:1])[0] - model([later], IDS[:1])[0]).abs().amax((0, 2, 3, 4))
    assert (changed > 1e-3).all() and changed[2] == changed.max()


@torch.no_grad()
def test_words_and_rates_reach_their_own_film_alone(model):
    before = model(row(), IDS)
    for film, (k, n) in enumerate(one_by_one()):
        ids, parts = IDS.clone(), row()
        ids[film, 0] = 20
        parts[k].rate[n] = 18.0
        for after in (model(row(), ids), model(parts, IDS)):
            for j, m in one_by_one():
                differ = (after[j][m] - before[j][m]).abs().max()
                assert differ > 1e-3 if (j, m) == (k, n) else differ < 1e-6


@torch.no_grad()
def test_rate_0_says_nothing(model):
    """The layer that reads rates has no part in it; and no rate that is said is like it."""
    unsaid = replace(alone(row()[0]), rate=torch.tensor([0.0]))
    before = model([unsaid], IDS[:1])[0]
    for said in (1.0, 5.0, 9.0, 18.0):
        assert (model([replace(unsaid, rate=torch.tensor([said]))], IDS[:1])[0] - before).abs().max() > 1e-2
    deaf = tiny_full()
    torch.nn.init.zeros_(deaf.rate.weight)
    torch.testing.assert_close(deaf([unsaid], IDS[:1])[0], before)


@torch.no_grad()
def test_before_training_the_velocity_is_0_and_the_blocks_change_nothing():
    torch.manual_seed(0)
    fresh = FullSora(CONFIG)
    assert all(not told.any() for told in fresh(row(), IDS))
    randomise(fresh.head)
    before = fresh(row(), IDS)
    for block in fresh.blocks:
        randomise(block.mlp), randomise(block.attention)
    assert all(torch.equal(a, b) for a, b in zip(before, fresh(row(), IDS), strict=True)) and before[0].any()


@torch.no_grad()
def test_told_takes_the_place_of_all_modulations():
    """`told` of soralab.blocks.dit.Block, for a row of tokens of which each is told something of its own."""
    block, x, c = randomise(Block(32, 2)), numbers(3, 5, 32), numbers(3, 32, seed=1)
    words, base = numbers(3, 4, 32, seed=2), numbers(3, 6 * 32, seed=3)
    whole = block(x, c, words, None, base=base)
    torch.testing.assert_close(block(x, None, words, None, told=base + block.modulation(c)), whole)
    torch.testing.assert_close(block(x, 2 * c, words, None, base=3 * base, told=base + block.modulation(c)), whole)
    assert (block(x, c, words, None, told=base) - whole).abs().max() > 0.1
    none = torch.zeros(3, 6 * 32)  # gates of 0: only the words are heard
    want = x + block.cross(block.norm_words(x), words)
    torch.testing.assert_close(block(x, c, words, None, told=none), want)


# ------------------------------------------------------------------------------------------------ clips and their sizes


@pytest.mark.parametrize("clips, middles, first", [
    ((1,), [0], [1]),
    ((9,), [0, 2.5, 6.5], [1, 0, 0]),
    ((9, 9), [0, 2.5, 6.5, 9, 11.5, 15.5], [1, 0, 0, 1, 0, 0]),
    ((5, 9, 5), [0, 2.5, 5, 7.5, 11.5, 14, 16.5], [1, 0, 1, 0, 0, 1, 0]),
])  # fmt: skip
def test_moments_by_hand(clips, middles, first):
    """Frames 1 to 4 are in the middle at 2.5; the second of two clips of nine begins with frame 9."""
    found = moments(clips)
    assert found[0].tolist() == middles and found[1].tolist() == [bool(f) for f in first]
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.bool


def test_latents_and_the_clip_for_so_many_frames():
    assert [latents(n) for n in (1, 5, 9, 13, 17, 33)] == [1, 2, 3, 4, 5, 9]
    assert [clip_for(n) for n in (-3, 0, 1, 2, 5, 6, 9, 10, 17)] == [1, 1, 1, 5, 5, 9, 9, 13, 17]
    assert strings.LATENT == 4
    for frames in (0, -3, 2, 4, 8):
        with pytest.raises(ValueError, match=f"frames is {frames}; it takes 1, 5, 9"):
            latents(frames)


@pytest.mark.parametrize("size, near", [
    ((30, 40), [(32, 40), (24, 40)]), ((30, 44), [(32, 48), (24, 40)]), ((32, 32), [(32, 32)]),
    ((3, 9), [(8, 8), (8, 16)]), ((1, 8), [(8, 8)]), ((31, 33), [(32, 32), (24, 32), (32, 40)]),
    ((33, 47), [(32, 48), (32, 40), (40, 48)]),
])  # fmt: skip
def test_the_nearest_sizes(size, near):
    assert nearest(*size, 8) == near


def test_larger_films_have_their_times_bent_further():
    """Esser et al., Eq. 23: by the root of how many more values there are."""
    assert shift_of(48) == 3.0 and shift_of(4 * 48) == pytest.approx(6.0) and shift_of(12) == pytest.approx(1.5)


@pytest.mark.parametrize("changes, says", [
    ({"x": numbers(2, 4, 16, 4, 4)}, r"x is \[2, 4, 16, 4, 4\]; clips of \(9,\) frames take \[batch, 3, channels"),
    ({"x": numbers(2, 3, 16, 4)}, r"x is \[2, 3, 16, 4\]; clips"),
    ({"clips": (5, 5)}, r"clips of \(5, 5\) frames take \[batch, 4,"),
    ({"clips": (8,)}, "frames is 8; it takes 1, 5, 9"),
    ({"times": torch.rand(2)}, r"times, rate are \[2\], \[2\]; they take \[2, 3\], \[2\]"),
    ({"rate": torch.rand(2, 3)}, r"times, rate are \[2, 3\], \[2, 3\]; they take \[2, 3\], \[2\]"),
])  # fmt: skip
def test_films_that_do_not_fit_their_clips_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(row()[0], **changes)
