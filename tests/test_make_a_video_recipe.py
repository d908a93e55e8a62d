"""Chapter 14's trainings and scores: what each network is taught, that no word reaches a film, what measures see."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import numbers, randomise
from torch import nn

from soralab import world
from soralab.datasets import frames
from soralab.experiments import make_a_video as experiment
from soralab.experiments import make_a_video_scores as scores
from soralab.experiments import publish
from soralab.experiments.sora_scores import prompts
from soralab.latent_diffusion import UNet, UNetConfig
from soralab.make_a_video import Decoder, DecoderConfig, FilmDecoder, Filmmaker, Prior, PseudoConv, same_noise
from soralab.recipes import Trained
from soralab.recipes import make_a_video as recipe
from soralab.recipes.make_a_video import FINE, FRAMES, WINDOW

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)
SIZES = recipe.Sizes(UNET, DecoderConfig(embed=6, tokens=2, heads=2))


def film_decoder(seed=1):
    return randomise(FilmDecoder(Decoder(UNet(UNET), SIZES.decoder)), seed).eval()


@pytest.fixture(scope="module")
def library():
    """Latents that say which film and which frame they are of, and looks that say which film and which ninth."""
    film, frame = torch.meshgrid(torch.arange(50.0), torch.arange(FINE) / FINE, indexing="ij")
    z = torch.stack([film, frame], -1)[..., None, None].expand(-1, -1, -1, 2, 2)
    looks = torch.stack([film[:, ::4], frame[:, ::4], *[film[:, ::4] * 0 + 1] * 4], -1)
    return recipe.Library(z.half(), looks.half())


# -------------------------------------------------------------------------------------------------------------- batches


def test_a_library_is_the_worlds_films_frame_by_frame():
    """Every fourth of its frames is a frame of the nine-frame film, and has its look."""

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.at = nn.Parameter(torch.zeros(1))

        def encode(self, pixels, generator=None):
            return pixels[:, :, ::8, ::8]

    class Clip(nn.Module):
        def encode_image(self, pixels):
            return pixels.mean((2, 3))

    scenes = recipe.scenes_of(3)
    made = recipe.Library.of(scenes, First(), Clip(), chunk=2)
    films = world.to_film(world.render(scenes, FRAMES, 32, 32))
    assert made.z.shape == (3, FINE, 3, 4, 4) and made.z.dtype == torch.float16
    torch.testing.assert_close(made.z[:, ::4].float(), films[..., ::8, ::8], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(made.looks.float(), films.mean((3, 4)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("make", [
    lambda library: recipe.PictureBatches(library, 6), lambda library: recipe.FilmBatches(library, 6, 3),
])  # fmt: skip
def test_a_batch_is_a_pure_function_of_its_step(library, make):
    batches = make(library)
    one, again, other = batches(2), batches(2), batches(1)
    assert all(torch.equal(one[key], again[key]) for key in one) and not torch.equal(one["z"], other["z"])


def test_no_batch_holds_a_word(library):
    assert set(recipe.PictureBatches(library, 4)(0)) == {"z", "seen"}
    for step in (0, 1):
        assert set(recipe.FilmBatches(library, 4, 1)(step)) == {"z", "seen", "rate", "given", "t"}


def test_frames_have_their_own_look_or_none(library):
    batches, none = recipe.PictureBatches(library, 100), 0
    for step in range(10):
        batch = batches(step)
        for z, seen in zip(batch["z"], batch["seen"], strict=True):
            none += not seen.any()
            assert not seen.any() or torch.equal(seen[:2], z[:, 0, 0])
    assert 0.07 < none / 1000 < 0.13


@pytest.mark.parametrize("frames, step", [(WINDOW, 0), (FRAMES, 5)])
def test_windows_are_evenly_spaced_and_told_their_rate(library, frames, step):
    """As many frames a step in short windows as in long ones; rates, looks and given frames as often as they should."""
    batches, rates, kinds, looks, starts = recipe.FilmBatches(library, 300, 5), Counter(), Counter(), Counter(), set()
    batch = batches(step)
    assert batch["z"].shape[:2] == (300 * FRAMES // frames, frames) and batch["given"].shape == batch["z"].shape[:2]
    for z, seen, rate, given in zip(*(batch[key] for key in ("z", "seen", "rate", "given")), strict=True):
        film, moments = z[:, 0, 0, 0], (z[:, 1, 0, 0] * FINE).round()
        assert (film == film[0]).all() and (moments.diff() == moments[1] - moments[0]).all()
        stride = int(moments[1] - moments[0])
        assert float(rate) == pytest.approx(FINE / stride) and moments.max() < FINE
        assert not seen.any() or seen[0] == film[0]
        looks[float(seen[1]) if seen.any() else None] += 1
        rates[stride] += 1
        kinds[tuple(given.tolist())] += 1
        starts.add((stride, int(moments[0])))
    count = len(batch["z"])
    assert set(rates) == set(recipe.STRIDES[frames]) and min(rates.values()) > 0.7 * count / len(rates)
    assert len(looks) == 10 and {(1, 0), (1, FINE - frames)} <= starts | {(1, 0), (1, FINE - frames)}
    for kind, share in recipe.GIVEN[frames]:
        mask = tuple(k % 2 == 0 if kind == "second" else k < kind for k in range(frames))
        assert abs(kinds.pop(mask) / count - share) < 4 * (share * (1 - share) / count) ** 0.5
    assert not kinds


def test_every_second_window_is_very_noisy(library):
    t = recipe.FilmBatches(library, 400)(0)["t"]
    (low, high), noisy, others = recipe.TIMES, t[1::2], t[::2]
    assert low <= noisy.min() < low + 0.03 and high - 0.03 < noisy.max() <= high
    assert others.min() < 0.03 and others.max() > 0.97


def test_corners_are_of_large_frames_and_their_small_ones():
    batches = recipe.CropBatches(5, 5)
    one, again = batches(1), batches(1)
    assert torch.equal(one["x"], again["x"]) and one["x"].shape == (5, 3, 32, 32)
    torch.testing.assert_close(one["low"], F.avg_pool2d(one["x"], 2))
    large, places = batches.large.float() / 127.5 - 1, set()
    assert large.shape[2:] == (64, 64) and large.min() >= -1 and large.max() <= 1
    for step in range(40):
        for x in batches(step)["x"]:
            found = [(k, y, c) for k in range(5) for y in range(0, 33, 2) for c in range(0, 33, 2)
                     if torch.equal(large[k, :, y : y + 32 : 31, c : c + 32 : 31], x[:, ::31, ::31])]  # fmt: skip
            assert found
            places |= set(found) if len(found) == 1 else set()
    assert len({place[0] for place in places}) > 3 and max(place[1] for place in places) > 24


def test_pairs_are_of_one_picture():
    class Clip(nn.Module):
        config = recipe.chapter_04.config()

        def __init__(self):
            super().__init__()
            self.at = nn.Parameter(torch.zeros(1))

        def encode_image(self, pixels):
            return pixels.mean((2, 3))

        def encode_text(self, ids):
            return ids[:, :9].float()

    pairs = recipe.PairBatches(Clip(), 12, 8)
    samples = [recipe.frames.sample(recipe.SEED, k) for k in range(12)]
    torch.testing.assert_close(pairs.image, recipe.frames.pictures(samples).mean((2, 3)))
    said = [recipe.chapter_04.tokenizer().decode(ids.long().tolist()) for ids in pairs.text]
    assert all(scene.objects[0].colour in text for (scene, _), text in zip(samples, said, strict=True))
    batch = pairs(3)
    for image, text in zip(batch["image"], batch["text"], strict=True):
        k = next(k for k in range(12) if torch.equal(pairs.image[k], image))
        assert torch.equal(pairs.text[k], text)
    assert torch.equal(pairs(3)["image"], batch["image"]) and not torch.equal(pairs(4)["image"], batch["image"])


# ------------------------------------------------------------------------------------------------------------- training


def test_every_weight_is_trained_once_and_layers_over_time_at_the_full_rate():
    model = film_decoder()
    groups = recipe.parameters(model, old=0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    where = {names[id(p)]: (group["muon"], round(group["scale"], 4)) for group in groups for p in group["params"]}
    assert len(where) == len(names) == sum(len(group["params"]) for group in groups)
    assert where["over_time.0.attention.to_q.weight"] == where["picture.unet.down.1.0.conv1.time.weight"] == (True, 1.0)
    assert where["picture.unet.down.1.0.conv1.space.weight"] == (True, 0.3)
    assert where["picture.unet.down.1.0.time.weight"] == (True, 0.3)  # of the diffusion time, not over time
    assert where["picture.unet.down.1.0.time.bias"] == (False, 0.06)
    full = {name for name, (muon, scale) in where.items() if scale == (1.0 if muon else 0.2)}
    over_time = {f"{name}.time.{of}" for name, layer in model.named_modules() if isinstance(layer, PseudoConv)
                 for of in ("weight", "bias")}  # fmt: skip
    assert full == over_time | {name for name in where if name.startswith(("over_time.", "rate.", "known."))}
    assert where["known.weight"] == where["rate.mlp.2.weight"] == (False, 0.2)
    assert where["picture.tokens.weight"] == where["picture.unet.head.2.space.weight"] == (False, 0.06)


def test_the_loss_hears_all_of_a_batch():
    model, generator = film_decoder(), lambda: torch.Generator().manual_seed(0)
    batch = {"z": numbers(4, 5, 4, 4, 4), "seen": F.normalize(numbers(4, 6), dim=1), "t": torch.rand(4),
             "rate": torch.tensor([1.0, 2.0, 3.0, 9.0]), "given": torch.eye(4, 5) > 0}  # fmt: skip
    with torch.no_grad():
        before = recipe.loss(model, batch, generator())
        for key in batch:
            assert recipe.loss(model, batch | {key: batch[key].roll(1, 0)}, generator()) != before, key


def test_frames_come_before_films_and_films_begin_where_frames_end(tmp_path, monkeypatch, library):
    """The lesson with frames has its share of the steps; all that it taught is in the film decoder's start."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(recipe, "RUNS", tmp_path)
    monkeypatch.setattr(recipe, "decoder", lambda seed=0: randomise(Decoder(UNet(UNET), SIZES.decoder), 3))
    monkeypatch.setattr(recipe.Library, "of", classmethod(lambda cls, *told: library))
    monkeypatch.setattr(recipe, "load_autoencoder", lambda name: nn.Identity())
    monkeypatch.setattr(recipe.chapter_04, "load", lambda: (nn.Identity(), None))
    asked = []

    def fit(model, training, batches, folder, loss=recipe.loss, old=1.0):
        asked.append((type(model), training.steps, type(batches), folder.relative_to(tmp_path).as_posix(), loss, old))
        if isinstance(model, FilmDecoder):
            first = asked[0][0] and made[0]
            assert torch.equal(model.picture.tokens.weight, first.tokens.weight) and batches.short == 40
        made.append(randomise(model, 5))
        return model.eval(), type("Result", (), {"steps": training.steps, "seconds": 3.0, "log": tmp_path})

    made = []
    monkeypatch.setattr(recipe, "fit", fit)
    trained = recipe.train(steps=100)
    share = 100 * recipe.PICTURES.steps // recipe.TRAINING.steps
    assert asked == [
        (Decoder, share, recipe.PictureBatches, "make_a_video/frames", recipe.picture_loss, 1.0),
        (FilmDecoder, 100, recipe.FilmBatches, "make_a_video", recipe.loss, recipe.OLD),
    ]
    assert trained.card["picture_steps"] == share and trained.card["steps"] == 100
    assert trained.card["autoencoder"] == "film_autoencoder" and trained.card["painter"] == "film_painter"


def test_a_fit_gives_the_averaged_weights(tmp_path, library):
    prior = Prior(6, 16, 1)
    batch = {"image": F.normalize(numbers(4, 6), dim=1), "text": F.normalize(numbers(4, 6, seed=1), dim=1)}
    training = replace(recipe.PRIOR_TRAINING, steps=3, warmup=1)
    model, result = recipe.fit(prior, training, lambda step: batch, tmp_path, recipe.prior_loss)
    assert all(torch.equal(value, result.ema.shadow[name]) for name, value in model.named_parameters())
    assert not model.training


def test_what_is_shipped_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    first = nn.Identity()
    monkeypatch.setattr(recipe, "load_autoencoder", lambda name: first if name == "one" else None)
    parts = {"films": (film_decoder(), SIZES, {"autoencoder": "one"}),
             "prior": (randomise(Prior(6, 16, 1)), recipe.PriorSizes(6, 16, 1), {}),
             "large": (randomise(UNet(recipe.ENLARGER)), recipe.ENLARGER, {})}  # fmt: skip
    for name, (model, sizes, more) in parts.items():
        card = Trained.of(model, sizes, type("R", (), {"steps": 1, "seconds": 1.0, "log": None}), **more).card
        publish(tmp_path / name, model.state_dict(), json.loads(json.dumps(card)))
    loads = {"films": lambda name: recipe.load(name).model, "prior": recipe.load_prior, "large": recipe.load_enlarger}
    for name, load in loads.items():
        saved = parts[name][0].state_dict()
        assert all(torch.allclose(value, saved[key], atol=2e-3) for key, value in load(name).state_dict().items())


# --------------------------------------------------------------------------------------------------------------- scores


class Echo(Filmmaker):
    """Films by a rule; keeps what it was asked."""

    def __init__(self, rule):
        super().__init__(nn.Linear(1, 1), lambda z: z)
        self.rule, self.asked = rule, []

    def go_on(self, z, seen, frames, seed=0, **told):
        self.asked.append((z.shape[1], frames, told["rate"]))
        return self.rule(z, frames)

    def between(self, z, seen, skip, seed=0, **told):
        self.asked.append((z.shape[1], skip, told["rate"]))
        whole = z.repeat_interleave(skip, 1)[:, : (z.shape[1] - 1) * skip + 1].clone()
        whole[:, 1::2] = (z[:, :-1] + z[:, 1:]) / 2
        return whole


def repeat(z, frames):
    return torch.cat([z, z[:, -1:].expand(-1, frames - z.shape[1], -1, -1, -1)], 1)


@pytest.fixture
def pixels(monkeypatch):
    """Pixels for latents, and looks that say nothing."""
    monkeypatch.setattr(scores, "encoded", lambda autoencoder, films: films)
    monkeypatch.setattr(scores, "copied", lambda autoencoder, films: films.clone())
    monkeypatch.setattr(scores.Studio, "seen", lambda self, films: films[:, 0].mean((2, 3)))


def studio(rule=repeat):
    return scores.Studio(Echo(rule), None, None, None, None)


def test_a_film_that_repeats_is_chance_and_the_truth_is_right(pixels):
    true, texts = scores.true_films(6)
    still = scores.goes_on(studio(), 3, 6)
    limits = scores.chance(studio(), 6)
    assert {key: still[key] for key in still} == {"films": 6, **limits["repeated"]}
    room = studio(lambda z, frames: true)
    exact = scores.goes_on(room, 3, 6)
    assert exact["motion"] == limits["copied"]["motion"] == 1 and exact["psnr"] > 100
    assert still["motion"] < 0.6 and room.maker.asked == [(3, FRAMES, scores.RATE)]
    assert sum(right for right, _ in exact["motions"].values()) == 6
    assert exact["way"] == 1 and still["way"] < 0.4


def test_a_film_goes_on_in_windows_that_begin_with_its_last_frames(pixels):
    true, _ = scores.true_films(3, 2 * FRAMES)
    room = studio()
    table = scores.longer(room, 3)
    assert room.maker.asked == [(3, FRAMES, 2 * scores.RATE)] * 2 and table["filmed"] == table["repeated"]

    def exact(z, frames):
        start = next(k for k in range(16) if torch.equal(true[:, k : k + 3], z))
        return repeat(true[:, start : start + frames], frames)

    assert scores.longer(studio(exact), 3)["filmed"]["psnr"] > 100


def test_new_frames_alone_are_measured_between(pixels):
    room = studio()
    table = scores.between(room, 4)
    assert table["filmed"] == table["mean"] and table["copied"]["psnr"] > 100 > 45 > table["mean"]["psnr"]
    assert room.maker.asked == [(5, 2, 2 * scores.RATE)] * 2


def test_speed_is_measured_and_can_be_wrong(pixels):
    """A film that goes on truly has the true speed at each rate; one that stands still has none."""
    def exact(z, frames):
        rate = room.maker.asked[-1][2]
        return world.to_film(world.render(scores.sliding(3), rate, 32, 32))[:, :FRAMES]

    room = studio(exact)
    table = scores.rates(room, 3)
    assert [row["asked"] for row in table] == [36, 18, 12, 9]
    assert all(row["filmed"] == row["true"] > 0 and row["films"] == 3 for row in table)
    assert table[3]["true"] == pytest.approx(4 * table[0]["true"], rel=0.1)
    assert all(row["filmed"] < 0.2 * row["true"] for row in scores.rates(studio(), 3))


def test_pictures_are_judged_by_their_words(monkeypatch):
    """True frames are right, and right for no other words."""
    texts, scenes = scores.prompts("test", 5)
    names = [scores.frames.still(text) for text in texts]
    films = world.to_film(world.render(scenes, 3, 32, 32))
    assert scores.right(films[:, :1], names) > 0.7 > 0.5 > scores.right(films[:, :1].roll(1, 0), names)


def test_each_look_is_filmed_and_the_painter_paints(monkeypatch):
    told, painted = [], []

    class Maker:
        model = nn.Linear(1, 1)

        def latents(self, seen, start, rate, **options):
            told.append((float(seen[0, 0]), tuple(start.shape[:2]), rate, options))
            return start

        def decode(self, z):
            return z.new_zeros(len(z), z.shape[1], 3, 32, 32)

    class Paint:
        def paint(self, names, seed, **options):
            painted.append((len(names), options))
            return torch.zeros(len(names), 3, 32, 32)

    monkeypatch.setattr(scores, "looks", lambda names, prior, seed: torch.full((len(names), 2), 1.0))
    monkeypatch.setattr(scores, "embedded", lambda names, clip: torch.full((len(names), 2), 2.0))
    monkeypatch.setattr(scores.Studio, "seen", lambda self, films: torch.full((len(films), 2), 3.0))
    monkeypatch.setattr(scores, "CHUNK", 2)
    first = type("First", (), {"config": type("C", (), {"latent": 4, "f": 4})})
    found = scores.single_frames(scores.Studio(Maker(), None, None, first, Paint()), 3, steps=7)
    assert [one[0] for one in told] == [1, 1, 2, 2, 3, 3] and painted == [(2, {"steps": 7}), (1, {"steps": 7})]
    assert all(one[2:] == (scores.RATE, {"steps": 7}) for one in told) and told[0][1] == (2, WINDOW)
    who = {"pictures", "painter", "words", "no prior", "true look"}
    assert set(found) == who | {"in sight"} and set(found["in sight"]) == who and found["words"] == 0

    texts = prompts("test", 12)[0]
    apart = [k for k, text in enumerate(texts) if "wall" not in text]
    monkeypatch.setattr(scores, "right", lambda films, names: (len(films), names))
    found = scores.single_frames(scores.Studio(Maker(), None, None, first, Paint()), 12, steps=7)
    names = [frames.still(text) for text in texts]
    assert 0 < len(apart) < 12 and found["words"] == (12, names) and found["in sight"]["pictures"] == len(apart)
    assert found["in sight"]["true look"] == (len(apart), [names[k] for k in apart])


def test_one_noise_flickers_less_and_true_pixels_not_at_all(monkeypatch):
    """A network that lets some of its noise through flickers with one noise a frame alone."""
    def leaky(network, small, start, **options):
        return F.interpolate(small.flatten(0, 1), scale_factor=2).unflatten(0, small.shape[:2]) + 0.1 * start

    monkeypatch.setattr(scores, "enlarge", leaky)
    table = scores.enlarged(nn.Linear(1, 1), 3)
    assert table["one noise"]["flicker"] < table["bilinear"]["flicker"] + 1 < 0.5 * table["one a frame"]["flicker"]
    assert set(table) == {"films", "one noise", "one a frame", "bilinear"}
    assert torch.equal(same_noise(1, 2, 3, (4,))[:, 0], same_noise(1, 2, 3, (4,))[:, 2])


def test_cosines_tell_a_guess_from_another(monkeypatch):
    image = F.normalize(numbers(40, 6), dim=1)

    class Pairs:
        def __init__(self, clip, count, split):
            assert split == "test"
            self.image, self.text = image, image.roll(1, 0)

    class Guess(nn.Module):
        def __init__(self):
            super().__init__()
            self.at = nn.Parameter(torch.zeros(1))

        def sample(self, text, generator):
            return text.roll(-1, 0)

    monkeypatch.setattr(scores, "PairBatches", Pairs)
    found = scores.cosines(Guess(), None, 40)
    assert found["prior"] == 1 and abs(found["text"]) < 0.4


def test_a_table_that_is_there_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(experiment, "RUNS", tmp_path)
    monkeypatch.setattr(experiment, "load_autoencoder", lambda name: nn.Identity())
    monkeypatch.setattr(experiment, "studio", lambda maker, first: "studio")
    asked = Counter()

    def measure(name, value):
        def table(*told, **options):
            asked[name] += 1
            return value
        return table

    for name in ("single_frames", "from_words", "rates", "between", "longer"):
        monkeypatch.setattr(experiment, name, measure(name, name))
    monkeypatch.setattr(experiment, "goes_on", lambda room, n, count, steps: asked.update([n]) or {"films": count})
    monkeypatch.setattr(experiment, "chance", measure("chance", {"films": 2, "repeated": 1, "copied": 2}))
    trained = Trained(nn.Identity(), {"autoencoder": "one", "steps": 7}, None)
    table = experiment.metrics(recipe.FILM, trained)
    assert experiment.metrics(recipe.FILM, trained) == table and set(asked.values()) == {1} and len(asked) == 9
    assert set(table) == {"frames", "words", "rate", "between", "longer", "goes on"}
    assert set(table["goes on"]) == {"1", "2", "3", "films", "repeated", "copied"}
