"""Chapter 16's whole model, how it is trained: its library, its batches, what is given, and what the loss counts."""

import json
from collections import Counter
from dataclasses import replace
from itertools import count, islice
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from tiny_full import CONFIG, tiny_codec
from tiny_models import numbers

from soralab import world
from soralab.blocks.film_codec import FilmCodec
from soralab.files.checkpoints import CheckpointError, read_card
from soralab.latent_diffusion import word_ids
from soralab.recipes import sora_full as recipe
from soralab.recipes import sora_full_autoencoder as stage
from soralab.recipes.sora import wordings
from soralab.recipes.sora_full import KEPT, KINDS, NULL, REST, UNSAID, Batches, Kind, known, make_loss, still
from soralab.sora_full import FullConfig, FullSora, latents, shift_of
from soralab.training.distributed import Team
from soralab.world.language import decode, words
from soralab.world.reader import read_caption, read_setting
from soralab.world.scene import Object, Relation, Scene

TINY = (Kind((9,), 16, 16, 7, 0.5, early=0.6, late=0.2), Kind((1,), 16, 24, 5, 0.3, early=0.4, late=0.1),
        Kind((5, 5), 24, 16, 6, 0.2, late=0.7))  # fmt: skip


class EveryFourth(FilmCodec):
    """In place of the autoencoder: a latent is the frame at its end, so that a library can be looked at."""

    def __init__(self, weight=1.0):
        super().__init__(3)
        self.weight, self.calls = torch.nn.Parameter(torch.tensor(weight)), []

    def encode(self, film):
        self.calls.append(tuple(film.shape))
        return film[:, ::4]


def within(times, share, of):
    """Whether a count is within four deviations of its share."""
    return abs(times - share * of) <= 4 * (share * (1 - share) * of) ** 0.5 + 1e-9


# ---------------------------------------------------------------------------------------------------------------- kinds


def test_the_kinds_are_a_whole_and_can_be_filmed():
    for phase in ("share", "early", "late"):
        assert sum(getattr(kind, phase) for kind in KINDS) == pytest.approx(1)
    assert all(kind.late > kind.share for kind in KINDS if kind.height == 48 and kind.width == 64)
    assert 0 < recipe.EARLY < recipe.LATE < recipe.TRAINING.steps
    assert all(kind.height * kind.width * kind.frames <= 9 * 32 * 32 for kind in KINDS if kind.early)
    assert len({kind.name for kind in KINDS}) == len(KINDS) == len({kind.name for kind in (*KINDS, *TINY)}) - len(TINY)
    for kind in KINDS:
        assert kind.frames == sum(kind.clips) and all(latents(frames) for frames in kind.clips)
        assert kind.height % 8 == kind.width % 8 == 0 and kind.films > max(kind.share, kind.late) * recipe.BATCH
        assert not kind.rate or kind.rate > kind.frames
    assert KINDS[3].name == "9_32x32_of_18" and KINDS[-1].name == "5+9+5_32x32" and KINDS[0].name == "9_32x32"
    assert {"pictures" if k.frames == 1 else len(k.clips) for k in KINDS} == {"pictures", 1, 2, 3}


def test_the_scenes_are_two_of_five_simple_and_what_is_learnt_soon_is_rarer():
    """Against all that are drawn, by the motion of the one thing."""
    kind, number, every, taken = KINDS[0], 0, Counter(), Counter()
    mine = list(islice(recipe.scenes(kind, number), 500))
    held = {id(scene) for scene in mine}
    assert mine == list(islice(recipe.scenes(kind, number), 500)) and len(held) == 500
    left, levels = list(mine), Counter()
    for index in count():
        level = "simple" if Random(f"{recipe.SEED}/{number}/{index}").random() < 0.4 else "full"
        levels[level] += 1
        scene = world.sample_scene(recipe.SEED + number, index, level, "train", 1.0)
        what = scene.objects[0].motion if len(scene.objects) == 1 else "several"
        every[what] += 1
        if left and scene == left[0]:
            taken[what] += 1
            left.pop(0)
        if not left:
            break
    assert within(levels["simple"], 0.4, levels.total()) and taken["several"] == every["several"] > 100
    for motion, total in every.items():
        if motion != "several":
            assert within(taken[motion], KEPT.get(motion, REST), total), motion
    assert taken["orbits"] == every["orbits"] > 5 and taken["spins"] == every["spins"] > 5
    assert not any(scene.held_out for scene in mine)
    assert next(recipe.scenes(KINDS[5], 5)).aspect == 64 / 48


# ------------------------------------------------------------------------------------------------------- the library


def a_scene(**changes):
    red = Object("square", "red", "small", "slides right", "slow", x=-0.3, velocity=(0.28, 0.0))
    blue = Object("cross", "blue", "large", "spins", "fast", "clockwise", x=0.2)
    return Scene((red, blue), **{"background": "striped", "camera": "pans left", **changes})


def test_a_picture_is_told_without_motion():
    """Whatever the scene, no wording of its picture says that something moves, bumps, turns or pans."""
    drawn = [world.sample_scene(3, k, level, "train") for k in range(120) for level in world.LEVELS]
    for scene in drawn:
        for text in wordings(still(scene)):
            setting = read_setting(text)
            assert all(thing["motion"] is thing["speed"] is thing["turn"] is None for thing in read_caption(text))
            assert setting["camera"] in (None, "still")
            assert (setting["relation"] or [None])[0] in (None, "above", "left of")
            assert not {"bumps", "pans", "then", "passes", "wall", "clockwise", "anticlockwise"} & set(words(text))
        named = [sorted((thing["colour"], thing["shape"], thing["size"]) for thing in read_caption(wordings(of)[2]))
                 for of in (scene, still(scene))]  # fmt: skip
        assert named[0] == named[1]
    above = still(a_scene(relation=Relation("above", 0, 1)))
    assert "is above" in wordings(above)[2] and above.background == "striped" and above.camera == "still"
    assert still(a_scene(relation=Relation("bumps into", 0, 1))).relation is None


def test_pictures_and_windows_are_moments_of_the_film():
    some = [replace(a_scene(), camera="still"), a_scene()] * 2
    whole = world.to_film(world.render(some, 9, 32, 32))
    assert torch.equal(recipe.render(Kind((9,), 32, 32, 4, 1.0), some, 0), whole)
    assert torch.equal(recipe.render(Kind((5, 5), 32, 32, 4, 1.0), some, 0)[0],
                       world.to_film(world.render(some[:1], 10, 32, 32))[0])  # fmt: skip
    picture, slow = Kind((1,), 32, 32, 4, 1.0), Kind((9,), 32, 32, 4, 1.0, rate=18)
    long = world.to_film(world.render(some, 18, 32, 32))
    for kind, source in ((picture, whole), (slow, long)):
        begins = set()
        for first in (0, 4, 8):
            for made, film in zip(recipe.render(kind, some, first), source, strict=True):
                windows = film.unfold(0, kind.frames, 1).movedim(-1, 1)
                found = [k for k, window in enumerate(windows) if torch.equal(window, made)]
                assert found
                begins.add(found[0])
        assert len(begins) > 3  # drawn, not always the first
        assert torch.equal(recipe.render(kind, some, 4), recipe.render(kind, some, 4))


@pytest.fixture
def tiny_kinds(monkeypatch):
    monkeypatch.setattr(recipe, "KINDS", TINY)


def test_the_library_holds_the_films_of_its_scenes_in_their_words(tiny_kinds):
    assert next(recipe.scenes(TINY[0], 0)) != next(recipe.scenes(TINY[0], 1))  # each library has scenes of its own
    for number, kind in enumerate(TINY):
        codec = EveryFourth()
        held = recipe.library(number, codec, None)
        some = list(islice(recipe.scenes(kind, number), kind.films))
        shown = recipe.render(kind, some, 0)
        want = torch.cat([clip[:, ::4] for clip in shown.split(kind.clips, 1)], 1)
        torch.testing.assert_close(held["latents"].float(), want, rtol=0, atol=2e-3)
        assert held["latents"].dtype == torch.float16 and held["ids"].shape == (kind.films, 4, 48)
        assert codec.calls == [(kind.films, frames, 3, kind.height, kind.width) for frames in kind.clips]
        for scene, ids in zip(some, held["ids"], strict=True):
            told = wordings(still(scene) if kind.frames == 1 else scene)
            assert torch.equal(ids.long(), word_ids(told, FullConfig.words)) and not ids[0].any()


def test_of_each_picture_a_moment_of_its_own_is_taken(tiny_kinds):
    """Also after the first fifty, which are rendered together."""
    held = recipe.library(1, EveryFourth(), None, 60)
    some = list(islice(recipe.scenes(TINY[1], 1), 60))
    want = torch.cat([recipe.render(TINY[1], some[:50], 0), recipe.render(TINY[1], some[50:], 50)])
    torch.testing.assert_close(held["latents"].float(), want, rtol=0, atol=2e-3)
    assert not torch.equal(want[50:], recipe.render(TINY[1], some[50:], 0))


def test_a_library_is_kept_for_its_autoencoder_and_its_kind_alone(tiny_kinds, tmp_path, monkeypatch):
    def encoded(number=0, weight=1.0, films=None):
        codec = EveryFourth(weight)
        held = recipe.library(number, codec, tmp_path, films)
        return held, len(codec.calls)

    first, calls = encoded()
    assert calls == 1 and len(first["latents"]) == 7
    again, calls = encoded()
    assert calls == 0 and all(torch.equal(again[key], first[key]) for key in first)
    assert encoded(weight=2.0)[1] == 1 and encoded(weight=2.0)[1] == 0  # another autoencoder, which is kept in turn
    assert encoded(weight=2.0, films=3)[1] == 1
    assert encoded(weight=2.0)[1] == 1
    assert encoded(number=1, weight=2.0)[1] == 1 and encoded(weight=2.0)[1] == 0  # each kind has a file of its own
    assert encoded(number=1, weight=2.0)[1] == 0  # of pictures too
    monkeypatch.setattr(recipe, "KINDS", (replace(TINY[0], share=0.1, early=0.9, late=0.3), *TINY[1:]))
    assert encoded(weight=2.0)[1] == 0  # how often a film is shown does not change it
    other = (replace(TINY[0], rate=18), *TINY[1:])
    for changed in (lambda: monkeypatch.setattr(recipe, "KINDS", other), lambda: monkeypatch.setattr(recipe, "SEED", 1),
                    lambda: monkeypatch.setattr(recipe, "REST", 0.5),
                    lambda: monkeypatch.setitem(recipe.KEPT, "grows", 0.9)):  # fmt: skip
        changed()
        assert (encoded(weight=2.0)[1], encoded(weight=2.0)[1]) == (1, 0)


def test_a_damaged_library_is_named_with_the_mend(tiny_kinds, tmp_path):
    recipe.library(0, EveryFourth(), tmp_path)
    tensors = tmp_path / f"{TINY[0].name}.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match="remove .*9_16x16.json, and its films are made again"):
        recipe.library(0, EveryFourth(), tmp_path)
    (tmp_path / f"{TINY[0].name}.json").unlink()
    tensors.unlink()
    assert len(recipe.library(0, EveryFourth(), tmp_path)["ids"]) == 7


# ------------------------------------------------------------------------------------------------------- the batches


def libraries():
    """Latents that tell their kind and their number, and ids that tell their wording."""
    found = []
    for number, kind in enumerate(TINY):
        shape = (kind.films, sum(map(latents, kind.clips)), 16, kind.height // 4, kind.width // 4)
        z = (100 * number + torch.arange(kind.films)).view(-1, 1, 1, 1, 1).expand(shape)
        ids = torch.zeros(kind.films, 4, 48, dtype=torch.short)
        for wording in (1, 2, 3):
            ids[:, wording, : 4 + wording] = wording
        found.append({"latents": z.half(), "ids": ids})
    return found


def rows(batch):
    """(kind, film, wording, rate) of each film of a batch."""
    said, films = batch["ids"].amax(1).tolist(), []
    for number, z, rate in zip(batch["kinds"], batch["x0"], batch["rate"], strict=True):
        assert (z == z[:, :1, :1, :1, :1]).all()
        for k in range(len(z)):
            films.append((number, int(z[k, 0, 0, 0, 0]) - 100 * number, said[len(films)], float(rate[k])))
    assert len(films) == len(said)
    return films


def test_each_kind_has_its_share_over_many_steps(tiny_kinds):
    """Batches of 5: 2.5, 1.5 and 1 films a step."""
    batches, met = Batches(libraries(), 5), Counter()
    for step in range(200):
        here = Counter(kind for kind, *_ in rows(batches(step)))
        met += here
        for number, kind in enumerate(TINY):
            assert abs(met[number] - kind.share * 5 * (step + 1)) < 1 + 1e-6
    assert met == {0: 500, 1: 300, 2: 200}


def test_the_first_batches_are_of_the_early_kinds_and_no_film_is_skipped_where_they_end(tiny_kinds):
    """Batches of 5, of which the first six have 3 and 2 films of two kinds, the next twenty 2.5, 1.5 and 1 of three,
    and those from number 26 on 1, 0.5 and 3.5."""
    batches, met, places = Batches(libraries(), 5, early=6, late=26), Counter(), {0: [], 1: [], 2: []}
    for step in range(46):
        for number, film, *_ in rows(batches(step)):
            met[number] += 1
            places[number].append(film)
        if step < 6:
            assert met == Counter({0: 3 * (step + 1), 1: 2 * (step + 1)})
        if step == 25:
            assert met == {0: 18 + 50, 1: 12 + 30, 2: 20}
    assert met == {0: 68 + 20, 1: 42 + 10, 2: 20 + 70}
    for number, kind in enumerate(TINY):
        assert sorted(places[number][: kind.films]) == list(range(kind.films))
        on = Batches(libraries(), 5, early=6, first=9, late=26)
        assert [rows(on(step)) for step in (0, 4, 21)] == [rows(batches(step)) for step in (9, 13, 30)]
        where = [recipe.order(kind.films, number, k // kind.films)[k % kind.films] for k in range(len(places[number]))]
        assert places[number] == where


def test_a_batch_is_a_pure_function_of_its_step(tiny_kinds):
    a, b = Batches(libraries(), 5), Batches(libraries(), 5)
    first = [rows(a(step)) for step in range(12)]
    assert [rows(b(step)) for step in reversed(range(12))] == first[::-1]
    assert first[0] != first[1]


def test_every_epoch_has_each_film_once_in_another_order(tiny_kinds):
    batches, met = Batches(libraries(), 5), {0: [], 1: [], 2: []}
    for step in range(70):
        for number, film, *_ in rows(batches(step)):
            met[number].append(film)
    for number, kind in enumerate(TINY):
        epochs = [met[number][k : k + kind.films] for k in range(0, 10 * kind.films, kind.films)]
        assert all(sorted(epoch) == list(range(kind.films)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) > 8
    assert recipe.order(7, 0, 1) != recipe.order(7, 1, 1)


def test_wordings_and_rates_have_their_shares(tiny_kinds):
    films = [row for step in range(400) for row in rows(Batches(libraries(), 5)(step))]
    said = Counter(wording for _, _, wording, _ in films)
    for wording, share in enumerate((NULL, 0.4, 0.38, 0.12)):
        assert within(said[wording], share, len(films))
    for number, kind in enumerate(TINY):
        rates = Counter(rate for at, _, _, rate in films if at == number)
        if kind.frames == 1:
            assert set(rates) == {0.0}
        else:
            assert set(rates) == {0.0, float(kind.frames)} and within(rates[0.0], UNSAID, rates.total())


def test_of_a_slower_film_its_own_rate_is_said(monkeypatch):
    monkeypatch.setattr(recipe, "KINDS", (replace(TINY[0], rate=18, share=1.0, early=1.0, late=1.0),))
    assert {rate for step in range(20) for *_, rate in rows(Batches(libraries()[:1], 5)(step))} == {0.0, 18.0}


def test_prompts_are_as_long_as_the_longest_of_the_row(tiny_kinds):
    for step in range(30):
        ids = Batches(libraries(), 5)(step)["ids"]
        assert ids.dtype == torch.long and ids.shape[1] == max(1, int((ids > 0).sum(1).max()))


@pytest.mark.parametrize("parts", [2, 3, 4, 8])
def test_the_recipe_s_batches_are_cut_into_parts_of_nearly_the_same_size(parts):
    """A kind that has one film in a batch has none in most parts; each film is in one part, with its words and rate."""
    many = [{"latents": torch.full((40, latents(kind.clips[0]), 1, 2, 2), float(number)),
             "ids": torch.arange(1, 41).view(40, 1, 1).expand(40, 4, 5).short()}
            for number, kind in enumerate(KINDS)]  # fmt: skip
    batches = Batches(many, recipe.BATCH, early=recipe.EARLY, late=recipe.LATE)
    for step in (0, recipe.EARLY, 9923, 9931, recipe.LATE, recipe.LATE + 1):
        whole, pieces = batches(step), batches.cut(batches(step), parts)
        films = [[(number, int(ids[0]), float(rate)) for number, ids, rate in zip(
                 [n for n, x in zip(piece["kinds"], piece["x0"], strict=True) for _ in x], piece["ids"],
                 torch.cat(piece["rate"]), strict=True)] for piece in (whole, *pieces)]  # fmt: skip
        assert sorted(film for piece in films[1:] for film in piece) == sorted(films[0])
        sizes = [len(piece) for piece in films[1:]]
        assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(whole["ids"])
        for piece in pieces:
            assert all((x == number).all() for number, x in zip(piece["kinds"], piece["x0"], strict=True))
    with pytest.raises(ValueError, match="too few films for 49 parts"):
        batches.cut(batches(0), 49)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_count_by_their_values_as_the_loss_does(monkeypatch, parts):
    """With nothing given, the mean of the parts' losses, each by its weight, is the loss of the whole row."""
    monkeypatch.setattr(recipe, "known", lambda kind, films, _: torch.zeros(films, sum(map(latents, kind.clips))) > 0)
    monkeypatch.setattr(recipe, "noise_like", lambda x, _: torch.zeros_like(x))
    batch, model = a_batch(), Blank()
    share = Team(accumulate=parts).share(batch, parts, Batches(libraries(), 9, TINY))
    loss = make_loss(TINY)
    pieces = [part.weight * loss(model, part.batch, torch.Generator().manual_seed(0)) for part in share.parts]
    whole = loss(model, batch, torch.Generator().manual_seed(0))
    assert sum(pieces).item() == pytest.approx(whole.item(), rel=1e-5)
    assert len({round(part.weight * 9, 3) for part in share.parts}) > 1  # by films it would be another


# ------------------------------------------------------------------------------------------------- what is given


def patterns(kind, draws=4000):
    given = known(kind, draws, torch.Generator().manual_seed(4))
    assert given.shape == (draws, sum(map(latents, kind.clips))) and given.dtype == torch.bool
    return Counter("".join("10"[not x] for x in row) for row in given.tolist())


@pytest.mark.parametrize("clips, shares", [
    ((1,), {"0": 1}),
    ((5,), {"00": 0.75, "10": 0.25}),
    ((9,), {"000": 0.75, "100": 0.125, "110": 0.125}),
    ((17,), {"00000": 0.75, "10000": 1 / 16, "11000": 1 / 16, "11100": 1 / 16, "11110": 1 / 16}),
    ((9, 9), {"000000": 0.25, "111000": 0.375, "000111": 0.375}),
    ((5, 9, 5), {"0000000": 0.25, "1100011": 0.4, "1100000": 0.175, "0000011": 0.175}),
])  # fmt: skip
def test_which_latents_are_given_and_how_often(clips, shares):
    """Never all of them: something is left to be learnt."""
    found = patterns(Kind(clips, 32, 32, 1, 1.0))
    assert set(found) == set(shares)
    assert all(within(found[row], share, 4000) for row, share in shares.items())


class Blank(torch.nn.Module):
    """In the transformer's place: says nothing, and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.config, self.shown = CONFIG, []

    def forward(self, films, ids):
        self.shown.append((films, ids))
        return [torch.zeros_like(part.x) for part in films]


def a_batch(seed=0):
    shapes = ((4, 3, 16, 4, 4), (2, 1, 16, 4, 6), (3, 4, 16, 6, 4))
    return {"x0": [numbers(*shape, seed=seed + k) for k, shape in enumerate(shapes)], "kinds": [0, 1, 2],
            "ids": torch.randint(1, 20, (9, 4), generator=torch.Generator().manual_seed(1)),
            "rate": [torch.tensor([9.0, 0, 9, 0]), torch.zeros(2), torch.full((3,), 10.0)]}  # fmt: skip


def loss_of(batch, seed, model=None):
    model = model or Blank()
    return make_loss(TINY)(model, batch, torch.Generator().manual_seed(seed)), model


def by_definition(batch, films):
    """Of a model that says 0: the mean square of eps - x0 over all values that are not known. eps from x and x0."""
    total = values = 0
    for x0, part in zip(batch["x0"], films, strict=True):
        for film, noisy, times in zip(x0, part.x, part.times, strict=True):
            for z, x, t in zip(film, noisy, times, strict=True):
                if t > 0:
                    eps = (x - (1 - t) * z) / t
                    total, values = total + float((eps - z).square().sum()), values + z.numel()
                else:
                    assert torch.equal(x, z)  # what is known is shown as it is
    return total / values


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_loss_is_over_what_is_not_known(seed):
    """Every value counts alike, of whatever film; one time for all that is free of a film."""
    batch = a_batch()
    loss, model = loss_of(batch, seed)
    ((films, ids),) = model.shown
    assert loss.item() == pytest.approx(by_definition(batch, films), rel=2e-3)
    assert ids is batch["ids"]
    free = torch.cat([(part.times > 0).flatten() for part in films])
    assert 0 < free.sum() < len(free)  # this seed gives something
    for part, rate, kind in zip(films, batch["rate"], TINY, strict=True):
        assert part.clips == kind.clips and torch.equal(part.rate, rate)
        assert all(len(set(times[times > 0].tolist())) == 1 for times in part.times)
    each = [(part.x - x0).square().mean().item() for part, x0 in zip(films, batch["x0"], strict=True)]
    assert len(set(each)) == 3


def test_the_target_of_known_frames_is_poison_that_is_not_tasted():
    """The answer for what is known may be anything: no gradient comes of it. For what is free, all of it counts."""
    batch, given = a_batch(), []

    class Free(Blank):
        def forward(self, films, ids):
            self.said = [torch.zeros_like(part.x, requires_grad=True) for part in films]
            given.extend(part.times == 0 for part in films)
            return self.said

    model = Free()
    loss, _ = loss_of(batch, 1, model)
    loss.backward()
    assert any(mask.any() for mask in given)
    for said, mask in zip(model.said, given, strict=True):
        touched = said.grad.abs().amax((2, 3, 4)) > 0
        assert torch.equal(touched, ~mask)


@pytest.mark.parametrize("wrong", [lambda *a: ~known(*a), lambda *a: known(*a).flip(1), lambda *a: known(*a) & False])
def test_another_mask_is_another_loss(monkeypatch, wrong):
    batch = a_batch()
    before = loss_of(batch, 1)[0]
    monkeypatch.setattr(recipe, "known", wrong)
    assert abs(loss_of(batch, 1)[0] - before) > 1e-4


def test_the_mean_of_the_films_means_is_another_loss():
    """Were each kind to count alike, the three latents of a picture would weigh as much as the nine of films."""
    batch = a_batch()
    batch["x0"][1] *= 5
    loss, model = loss_of(batch, 1)
    ((films, _),) = model.shown
    each = [by_definition({"x0": [x0]}, [part]) for x0, part in zip(batch["x0"], films, strict=True)]
    assert abs(loss.item() - sum(each) / 3) > 0.1 * loss.item()
    assert loss.item() == pytest.approx(by_definition(batch, films), rel=2e-3)


def test_times_are_logit_normal_and_bent_by_the_tokens_of_the_film():
    """The median of the times is that of a half, bent: shift / (1 + shift)."""
    for shape, kind, tokens in (((1500, 1, 16, 4, 4), 0, 4), ((1500, 1, 16, 16, 16), 0, 64)):
        kinds = (Kind((1,), 16, 16, 1, 1.0),)
        batch = {"x0": [torch.zeros(shape)], "kinds": [kind], "ids": torch.ones(1500, 1), "rate": [torch.zeros(1500)]}
        model = Blank()
        make_loss(kinds)(model, batch, torch.Generator().manual_seed(0))
        times, shift = model.shown[0][0][0].times[:, 0], shift_of(tokens)
        assert times.median().item() == pytest.approx(shift / (1 + shift), abs=0.04)
        logits = (times / (1 - times)).log()
        assert logits.std().item() == pytest.approx(1, abs=0.08)


# ------------------------------------------------------------------------------------------------------- the training


def test_blocks_train_with_muon_but_not_their_modulations():
    model = FullSora(CONFIG)
    muon, rest = recipe.parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    fast = {names[id(p)] for p in muon["params"]}
    assert muon["muon"] and all("blocks" in name and "modulation" not in name for name in fast)
    assert {f"blocks.0.{name}.weight" for name in ("attention.to_q", "cross.to_kv", "mlp.0")} <= fast
    assert len(muon["params"]) + len(rest["params"]) == len(names)


def test_a_short_training_goes_on_and_its_card_names_the_first_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "KINDS", TINY)
    monkeypatch.setattr(recipe, "RUNS", tmp_path)
    monkeypatch.setattr(recipe, "BEGUN", tmp_path / "held")
    monkeypatch.setattr(recipe, "BATCH", 6)
    monkeypatch.setattr(recipe, "TRAINING", replace(recipe.TRAINING, warmup=1, log_every=1))
    monkeypatch.setattr(recipe, "build", lambda: FullSora(CONFIG))
    made = []
    monkeypatch.setattr(recipe, "load_autoencoder", lambda name: made.append(name) or tiny_codec())
    monkeypatch.setattr(recipe, "read_card", lambda path, *mend: read_card(path, *mend) if "latents" in str(path) else {
        "sha256": f"of {path}"})  # fmt: skip
    monkeypatch.setattr(recipe, "EARLY", 2)
    monkeypatch.setattr(recipe, "LATE", 2)
    monkeypatch.setattr(recipe, "make_loss", lambda: make_loss(TINY))
    right = recipe.library
    monkeypatch.setattr(recipe, "library", lambda number, codec, folder, films: right(number, codec, folder))
    seen, cut = [], recipe.Batches.__call__
    with monkeypatch.context() as patch:
        patch.setattr(recipe.Batches, "__call__",
                      lambda self, step: seen.append((step, cut(self, step))) or seen[-1][1])  # fmt: skip
        done = recipe.train("tiny", 3)
    assert [batch["kinds"] for _, batch in sorted(seen, key=lambda row: row[0])] == [[0, 1], [0, 1], [0, 1, 2]]
    (last,) = (batch for step, batch in seen if step == 2)
    assert [len(x) for x in last["x0"]] == [2, 1, 8]  # of twelve: the late shares
    assert done.card["autoencoder_sha256"] == f"of {recipe.AUTOENCODER}"
    assert made == [recipe.AUTOENCODER] and done.card["autoencoder"] == recipe.AUTOENCODER and done.card["steps"] == 3
    assert {path.name for path in (tmp_path / "tiny" / "latents").glob("*.json")} == {f"{k.name}.json" for k in TINY}
    losses = [json.loads(line)["loss"] for line in done.log.read_text().splitlines() if '"loss"' in line]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)
    assert recipe.train("tiny", 3).card["steps"] == 3  # nothing is left to do
    assert done.model.config == CONFIG and not done.model.training

    # What it came to is put into the repository, and a training elsewhere goes on from there.
    average = {key: value.clone() for key, value in done.model.state_dict().items()}
    recipe.keep("tiny")
    raw = load_file(tmp_path / "held" / f"{recipe.NAME}.safetensors")
    assert raw["embed.weight"].dtype == torch.int8 and "embed.weight.step" in raw  # in eight bits
    card = json.loads((tmp_path / "held" / f"{recipe.NAME}.json").read_text())
    assert (card["level"], card["data_seed"], card["batch"]) == ("full", recipe.SEED, 6)
    assert card["autoencoder_sha256"] == f"of {recipe.AUTOENCODER}"
    shown, first = [], recipe.Batches.__call__
    monkeypatch.setattr(recipe.Batches, "__call__", lambda self, step: shown.append(step + self.first) or first(
        self, step))  # fmt: skip
    model, before = recipe.begun()
    assert before == {"steps": 3, "seconds": done.card["seconds"]}
    for key, value in model.state_dict().items():
        step = average[key].abs().max() / 127
        torch.testing.assert_close(value, average[key], rtol=0, atol=float(0.51 * step) if value.ndim > 1 else 0)
    longer = recipe.train("elsewhere", 5)
    assert longer.card["steps"] == 5 and sorted(set(shown)) == [3, 4]
    assert longer.card["seconds"] >= before["seconds"]
    recipe.save_checkpoint(tmp_path / "held" / recipe.AUTOENCODER, {"weight": torch.ones(1)}, {})
    assert recipe.train("elsewhere", 5).card["steps"] == 5 and made[-1] == str(tmp_path / "held" / recipe.AUTOENCODER)
    with pytest.raises(ValueError, match="steps is 3; 3 were done before"):
        recipe.train("elsewhere", 3)


# ------------------------------------------------------------------------------------------------- the first stage


def thing(**changes):
    return replace(Object("cross", "red", "small", "spins", "slow", "clockwise"), **changes)


@pytest.mark.parametrize("things, relation, hard", [
    ([thing()], None, True), ([thing(motion="grows")], None, True), ([thing(motion="shrinks")], None, False),
    ([thing(size="medium")], None, False), ([thing(shape="square")], None, False),
    ([thing(shape="moon"), thing()], None, True), ([thing(motion="bounces"), thing(size="large")], None, False),
    ([thing(shape="moon"), thing(shape="ring")], "in front of", True),
    ([thing(shape="moon"), thing(shape="ring")], "above", False),
    ([thing(shape="moon"), thing(shape="ring")], "bumps into", False),
])  # fmt: skip
def test_what_is_hard_for_the_first_stage(things, relation, hard):
    assert stage.hard(Scene(tuple(things), relation=relation and Relation(relation, 0, 1))) is hard


def test_half_of_a_batch_of_the_first_stage_is_hard(monkeypatch):
    """By the scenes that are rendered; each batch has scenes of its own, none that chapter 11 was shown."""
    asked = []
    monkeypatch.setattr(stage.world, "render", lambda scenes, t, h, w: asked.append(scenes) or torch.zeros(
        len(scenes), t, h, w, 3, dtype=torch.uint8).numpy())  # fmt: skip
    monkeypatch.setattr(stage.world, "to_film", lambda made: torch.as_tensor(made).movedim(-1, 2).float())
    monkeypatch.setattr(stage, "textures", lambda n, t, h, w, seed: torch.full((n, t, 3, h, w), 0.5))
    drawn = []
    sample = stage.world.sample_scene
    monkeypatch.setattr(stage.world, "sample_scene", lambda *a: drawn.append(a) or sample(*a))
    for step, (frames, height, width, size) in enumerate(stage.SIZES):
        films, scenes = stage.batch(step), asked[-1]
        clouds = int((films == 0.5).all((1, 2, 3, 4)).sum())
        assert films.shape == (size, frames, 3, height, width) and clouds == (size >= 8)
        need = (size + 1) // 2
        assert all(map(stage.hard, scenes[:need])) and len(scenes) == size - clouds
        assert all(scene.aspect == width / height for scene in scenes)
        assert any(len(scene.objects) > 1 for scene in scenes) and all(
            len(scene.objects) == 1 for scene in scenes[need + size // 4 :]
        )
    assert all(index >= stage.STREAM and split == "train" for _, index, _, split, _ in drawn)
    before = asked[0]
    stage.batch(0)
    assert asked[-1] == before and asked[1] != before


def test_words_of_the_library_can_be_read_back():
    ids = word_ids(wordings(a_scene()), FullConfig.words)
    assert decode(ids[2].tolist()) == " ".join(words(wordings(a_scene())[2]))


def test_a_batch_is_cut_into_films_with_their_own_prompts(tiny_kinds):
    """Each film is in one part, with its own prompt and rate, whatever its kind."""
    batch = Batches(libraries(), 12)(3)
    sizes = [len(x) for x in batch["x0"]]
    batch["ids"] = torch.arange(sum(sizes))[:, None]  # a film's prompt is its number
    batch["rate"] = [part.squeeze(1).float() for part in batch["ids"].split(sizes)]
    seen = []
    for part in Batches.cut(batch, 3):
        assert len(part["ids"]) == sum(len(x) for x in part["x0"]) == sum(len(r) for r in part["rate"])
        numbers = part["ids"][:, 0]
        assert torch.equal(numbers.float(), torch.cat(part["rate"]))
        for number, x, mine in zip(part["kinds"], part["x0"], numbers.split([len(x) for x in part["x0"]]), strict=True):
            whole, start = batch["x0"][batch["kinds"].index(number)], sum(sizes[: batch["kinds"].index(number)])
            assert torch.equal(x, whole[mine - start])
        seen += numbers.tolist()
    assert sorted(seen) == list(range(sum(sizes)))
