"""Chapter 10's trainings and scores: what a batch holds, what is trained, and that each measure can fail."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from random import Random
from types import SimpleNamespace

import pytest
import torch
from card import Card
from tiny_models import numbers, randomise

from soralab import world
from soralab.align_your_latents import Animator, TemporalDecoder, TemporalLayers, VideoConfig, VideoLDM
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.datasets import frames
from soralab.experiments import align_your_latents as experiment
from soralab.experiments import align_your_latents_joined as joining
from soralab.experiments import align_your_latents_scores as scores
from soralab.experiments import publish
from soralab.files.checkpoints import CheckpointError
from soralab.latent_diffusion import LatentDiffusion, LatentDiffusionConfig, UNetConfig, word_ids
from soralab.recipes import align_your_latents as recipe
from soralab.training.loop import step_seed
from soralab.world.language import decode, short_caption

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)
VOCABULARY = recipe.CONFIG.vocabulary
FIRST = AutoencoderConfig(width=8, groups=4)


class Corner(torch.nn.Module):
    """In place of the first stage: a latent is every fourth pixel, with a fourth channel of zeros."""

    def __init__(self):
        super().__init__()
        self.weight, self.config = torch.nn.Parameter(torch.ones(())), SimpleNamespace(f=4)

    def encode(self, x, generator=None):
        return torch.nn.functional.pad(x[..., 1::4, 1::4], (0, 0, 0, 0, 0, 1))

    def decode(self, z):
        return z[..., :3, :, :].repeat_interleave(4, -1).repeat_interleave(4, -2)


def painter(seed=1):
    return randomise(LatentDiffusion(LatentDiffusionConfig(UNET, VOCABULARY, recipe.PICTURES.words, 1)), seed)


def layers(model, seed=2):
    return randomise(TemporalLayers(model.unet, VideoConfig(2, VOCABULARY, 16, recipe.CONFIG.words, 1)), seed)


@pytest.fixture(scope="module")
def batches():
    return recipe.FilmBatches(Corner(), films=40, fine=10, batch=8)


# -------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_a_pure_function_of_its_step(batches):
    one, again, other = batches(3), batches(3), batches(4)
    assert all(torch.equal(one[key], again[key]) for key in one) and not torch.equal(one["z"], other["z"])
    assert one["z"].shape == (8, 9, 4, 8, 8) and one["given"].shape == one["moments"].shape == (8, 9)


def test_films_are_of_their_prompts_at_their_moments(batches):
    """Every film is found again among the world's own, at just the moments that the batch names."""
    eighteen = {k: Corner().encode(world.to_film(world.render([scene], 18, 32, 32))[0]).half().float()
                for k, scene in enumerate(batches.scenes)}  # fmt: skip
    kinds = Counter()
    for step in range(12):
        batch = batches(step)
        for z, given, moments, ids, words in zip(*(batch[key] for key in ("z", "given", "moments", "ids", "words")),
                                                 strict=True):  # fmt: skip
            which = (2 * moments).long()
            found = [k for k, film in eighteen.items() if torch.allclose(film[which], z, atol=2e-3)]
            assert found
            kinds[tuple(given.tolist()), float(moments[1] - moments[0]), float(moments[0])] += 1
            text = decode(words.tolist())
            if text:
                scene = batches.scenes[found[0]]
                thing = scene.objects[0]
                assert thing.colour in text and thing.shape in text
                assert decode(ids.tolist()) == frames.still(text)
            else:
                assert not ids.any()
    nothing, first, two, second = ((False,) * 9, (True, *(False,) * 8), (True, True, *(False,) * 7),
                                   (True, False) * 4 + (True,))  # fmt: skip
    assert set(kinds) == {(nothing, 1, 0), (first, 1, 0), (two, 1, 0), (second, 0.5, 0), (second, 0.5, 4)}


def test_shares_of_what_is_given(batches):
    rng, kinds = Random(0), Counter()
    for _ in range(4000):
        _, given, moments, _ = batches.film(rng)
        kinds["between" if moments[1] != moments[0] + 1 else int(given.sum())] += 1
    want = {"between": 0.25, 0: 0.75 * 0.6, 1: 0.75 * 0.2, 2: 0.75 * 0.2}
    for kind, share in want.items():
        assert abs(kinds[kind] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_the_first_steps_are_of_five_frames_much_noise_and_nothing_given():
    """More films, of every second frame, at its moments; after `coarse` steps, the batches of before."""
    both = recipe.FilmBatches(Corner(), films=40, fine=10, batch=8, coarse=3)
    one, later = both(2), both(3)
    assert len(one["z"]) == 8 * recipe.COARSE_BATCH // recipe.BATCH == len(one["ids"]) == len(one["words"]) > 8
    assert torch.equal(one["moments"], torch.arange(0.0, 9, 2).expand(len(one["z"]), -1)) and not one["given"].any()
    for z in one["z"]:
        assert any(torch.equal(z, film[::2].float()) for film in both.whole)
    assert one["t"].min() >= recipe.TIMES[0] and one["t"].max() <= recipe.TIMES[1] and len(set(one["t"].tolist())) > 8
    times = torch.cat([both(step)["t"] for step in range(3)])
    assert abs(times.mean() - sum(recipe.TIMES) / 2) < 0.06 and times.std() > 0.1
    assert "t" not in later and later["z"].shape[:2] == (8, 9)
    assert all(torch.equal(both(2)[key], one[key]) for key in one)


def test_a_training_is_coarse_for_its_first_steps(monkeypatch):
    """By the share COARSE, whatever the number of steps."""
    made = {}
    monkeypatch.setattr(recipe, "FilmBatches", lambda first, films, fine, batch, coarse: made.update(coarse=coarse))
    monkeypatch.setattr(recipe, "fit", lambda *told: (_ for _ in ()).throw(InterruptedError))
    for steps, coarse in ((10, 6), (300, 180)):
        with pytest.raises(InterruptedError):
            recipe.train(steps=steps)
        assert made == {"coarse": coarse}


def test_what_a_film_is_called():
    scene = next(s for s in recipe.library(50) if s.objects[0].motion.startswith("slides"))
    rng = Random(1)
    said = Counter(recipe.prompt(scene, rng) for _ in range(2000))
    plain = short_caption(scene)
    bare = " ".join(word for word in plain.split() if word not in world.SIZES)
    on = f" on a {scene.background} background"
    assert set(said) == {"", plain, plain + on, bare, bare + on} and bare != plain
    want = {"": 0.1, plain: 0.9 * 0.49, bare + on: 0.9 * 0.09}
    for text, share in want.items():
        assert abs(said[text] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_latents_of_a_film_are_those_of_its_frames():
    scenes = recipe.library(7)
    z = recipe.encoded(Corner(), scenes, 9, chunk=3)
    films = world.to_film(world.render(scenes, 9, 32, 32))
    torch.testing.assert_close(z.float(), Corner().encode(films), atol=2e-3, rtol=0)


# ------------------------------------------------------------------------------------------------------------- training


def test_phi_alone_is_trained_and_every_part_of_it_by_one_group():
    model = painter()
    phi = layers(model)
    muon, alphas, rest = recipe.parameters(phi)
    names = {id(p): name for name, p in phi.named_parameters()}
    kinds = [{names[id(p)] for p in group["params"]} for group in (muon, alphas, rest)]
    assert sum(map(len, kinds)) == len(set().union(*kinds)) == len(names)
    assert muon["muon"] and all(p.ndim > 1 for p in muon["params"])
    assert all(name.endswith(".a") for name in kinds[1]) and len(kinds[1]) == len(phi.beside)
    assert any("conv1" in n for n in kinds[0]) and any("over_time" in n for n in kinds[0])
    assert any("text.blocks" in n for n in kinds[0]) and not any(".known." in n for n in kinds[0])


def test_a_fit_leaves_the_painter_alone_and_gives_the_averaged_weights(tmp_path, batches, monkeypatch):
    monkeypatch.setattr(recipe, "CONFIG", VideoConfig(2, VOCABULARY, 16, recipe.CONFIG.words, 1))
    model = painter()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training = replace(recipe.TRAINING, steps=2, warmup=1, precision="float32")
    phi, result = recipe.fit(model, training, batches, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, result.ema.shadow[name]) for name, value in phi.named_parameters())
    last = json.loads(result.log.read_text().splitlines()[-1])
    assert {key.removeprefix("alpha ") for key in last if key.startswith("alpha ")} == set(phi.beside)
    assert all(0 < last[f"alpha {name}"] < 1 for name in phi.beside) and not phi.training


def test_the_loss_hears_all_of_a_batch(batches):
    """Each entry changes it; and what it draws comes from the step's generator."""
    model, batch = painter(), batches(1)
    phi, of = layers(model), recipe.loss(model)

    def value(other=None, seed=0):
        with torch.no_grad():
            return float(of(phi, batch | (other or {}), torch.Generator().manual_seed(step_seed(seed, 0)))[0])

    assert value() == value() != value(seed=1)
    for key in ("z", "ids", "words", "given", "moments"):
        assert value({key: batch[key].roll(1, 0)}) != value(), key
    assert value({"t": torch.full((8,), 0.5)}) != value({"t": torch.full((8,), 0.9)}) != value()


def test_the_decoder_is_trained_and_what_it_stands_on_is_not(tmp_path):
    first = randomise(Autoencoder(FIRST))
    before = {key: value.clone() for key, value in first.state_dict().items()}
    training = replace(recipe.DECODER_TRAINING, steps=2, warmup=1)
    decoder, result = recipe.fit_decoder(first, training, recipe.DecoderBatches(1, 2), tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in first.state_dict().items())
    assert all(torch.equal(value, result.ema.shadow[f"beside.{name}"])
               for name, value in decoder.beside.named_parameters())  # fmt: skip
    last = json.loads(result.log.read_text().splitlines()[-1])
    assert last["lambda"] > 0 and last["misfit"] > 0 and not decoder.training


def test_what_a_fit_was_given_and_what_it_gives_lie_where_it_was_called_from(tmp_path, batches, monkeypatch):
    monkeypatch.setattr(recipe, "CONFIG", VideoConfig(2, VOCABULARY, 16, recipe.CONFIG.words, 1))
    training = replace(recipe.DECODER_TRAINING, steps=1, warmup=1)
    with Card(pytest.MonkeyPatch()):
        decoder, _ = recipe.fit_decoder(Autoencoder(FIRST), training, recipe.DecoderBatches(1, 2), tmp_path / "decoder")
        model = painter()
        phi, _ = recipe.fit(model, training, batches, tmp_path / "phi")
        places = {tensor.device.type for part in (decoder, model, phi) for tensor in part.state_dict().values()}
    assert places == {"cpu"}


def test_the_decoders_batches():
    batches = recipe.DecoderBatches(start=3, batch=2)
    one, again = batches(2), batches(2)
    assert torch.equal(one["film"], again["film"]) and one["film"].shape == (2, 9, 3, 32, 32)
    assert torch.equal(one["film"], world.clips(recipe.SEED, range(4, 6), 9, 32, 32, "simple")[0])
    assert [batches(step)["adversary"] for step in (0, 2, 3, 9)] == [False, False, True, True]


def test_what_was_saved_is_loaded_with_what_it_stands_on(tmp_path, monkeypatch):
    """All four checkpoints, in half precision; the films are those of the models that were saved."""
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    first, model = randomise(Autoencoder(FIRST)), painter()
    phi, decoder = layers(model), TemporalDecoder(first)
    randomise(decoder.beside)
    for module in (first, model, phi, decoder):
        module.half().float()
    config = {"config": asdict(model.config), "autoencoder": "copies"}
    publish(tmp_path / "copies", first.state_dict(), {"config": asdict(FIRST)})
    publish(tmp_path / "paints", model.state_dict(), config)
    publish(tmp_path / "phi", phi.state_dict(), {"config": asdict(phi.config), "painter": "paints"})
    publish(tmp_path / "decodes", decoder.beside.state_dict(), {"config": asdict(FIRST), "autoencoder": "copies"})
    maker = recipe.load("phi", decoder="decodes")
    texts, size = ["a red circle slides right"], (3, 4, 4, 4)
    want = recipe.animator(VideoLDM(model.eval(), phi.eval()), decoder.eval()).film(texts, 5, size, steps=2)
    torch.testing.assert_close(maker.film(texts, 5, size, steps=2), want)
    assert maker.still("a small red circle slides right") == "a small red circle"
    plain = recipe.picture_decoder(first)(numbers(1, 3, 4, 4, 4))
    torch.testing.assert_close(plain[0, 1], first.decode(numbers(1, 3, 4, 4, 4)[0])[1])
    for bad in ({"name": "copies"}, {"name": "phi", "decoder": "paints"}):
        with pytest.raises(CheckpointError, match="holds no Temporal"):
            recipe.load(**bad)


# --------------------------------------------------------------------------------------------------------------- scores


class Oracle(Animator):
    """Films the truth: in the latents of `Corner`, or whatever `answer` makes of them."""

    def __init__(self, answer=lambda films: films):
        self.answer, self.asked = answer, []
        self.model = VideoLDM(painter(), layers(painter()))
        self.decode, self.still = (lambda z: z), frames.still

    def truth(self, count, time=9):
        return self.answer(scores.true_films(count, time)[0])

    def latents(self, prompts, noise, z=None, given=None, moments=None, **options):
        self.asked.append(("latents", None if given is None else int(given[0].sum()), options))
        return self.truth(len(prompts))

    def between(self, z, prompts, seed=0, **options):
        self.asked.append(("between", z.shape[1], options))
        return self.truth(len(prompts), 18)[:, :-1]


class Whole(torch.nn.Module):
    """A first stage that copies exactly."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def encode(self, x, generator=None):
        return x

    def decode(self, z):
        return z


def test_an_oracle_has_every_score_and_a_frozen_one_has_not():
    films, texts = scores.true_films(12)
    right = scores.shares(scores.marks(films, texts))
    assert right == dict.fromkeys(scores.COLUMNS, 1.0) and scores.single_frames(films, texts) >= 0.9
    frozen = films[:, :1].expand(-1, 9, -1, -1, -1)
    assert scores.shares(scores.marks(frozen, texts))["motion"] < 0.2
    assert scores.shares(scores.marks(films.roll(1, 0), texts))["all"] < 0.3


def test_prediction_is_of_the_frames_that_are_not_given():
    maker = Oracle()
    found = scores.prediction(maker, Whole(), 6, steps=3)
    assert [found[str(n)]["all"] for n in (0, 1, 2)] == [1.0] * 3 and found["2"]["psnr"] > 100
    assert found["repeated"]["psnr"] < 30 and found["repeated"]["motion"] < 0.5 and found["copied"]["psnr"] > 100
    assert set(found["guidance"]) == {"2"} and found["films"] == 6
    told = [(given, options.get("context_guidance")) for _, given, options in maker.asked]
    assert told == [(None, None), (1, 1.0), (2, 1.0), (2, 2.0)]

    def late(films):
        films = films.clone()
        films[:, 2:] += 0.1
        return films

    assert scores.predicted(Oracle(late), Whole(), 1, 4)["psnr"] == pytest.approx(26.0, abs=0.2)  # cut at 1


def test_between_is_of_the_new_frames_alone():
    def off(films):
        films = films.clone()
        films[:, 1::2] += 0.2
        films[:, ::2] += 0.5
        return films

    found = scores.between(Oracle(off), Whole(), 4)
    assert found["filmed"]["psnr"] == pytest.approx(20, abs=0.2)  # white is cut at 1
    assert found["copied"]["psnr"] > 100 and 15 < found["mean"]["psnr"] < 60
    maker = Oracle()
    assert scores.between(maker, Whole(), 2)["filmed"]["all"] == 1 and maker.asked == [("between", 9, {})]


def test_flicker_is_of_what_stands_still():
    true = torch.zeros(2, 4, 3, 8, 8)
    true[:, :, :, :4] = torch.arange(4.0).reshape(1, 4, 1, 1, 1) / 10  # the upper half changes
    assert scores.flicker(true, true) == 0
    shown = true.clone()
    shown[:, 1::2, :, 4:] += 0.02  # the lower half flickers by 0.02
    assert scores.flicker(shown, true) == pytest.approx(127.5 * 0.02, rel=1e-3)
    assert scores.flicker(shown) > 127.5 * 0.05


def test_decoders_are_held_against_the_truth_at_both_kinds_of_latents():
    smooth = lambda z: z.mean(1, keepdim=True).expand_as(z)  # noqa: E731
    table = scores.decoded({"as it is": lambda z: z, "mean of all": smooth}, Whole(), 6, jitter=0.1)
    assert table["as it is"]["flicker"] == 0 and table["as it is"]["all"] == 1 and table["as it is"]["psnr"] > 100
    assert table["as it is"]["jittered psnr"] == pytest.approx(10 * math.log10(4 / 0.01), abs=1.5)  # cut at -1 and 1
    assert 127.5 * 0.08 < table["as it is"]["jittered flicker"] < 127.5 * 0.15
    assert table["mean of all"]["jittered flicker"] == 0 and table["mean of all"]["psnr"] < 30


def test_prompts_of_still_things():
    """The first ones of the split "test": what training is told is another five."""
    still = {split: [text for text in map(short_caption, recipe.library(400, split, scores.SEED))
                     if text.endswith("stays still")][:5] for split in ("train", "test")}  # fmt: skip
    assert scores.still_texts(5) == still["test"] != still["train"] and len(still["test"]) == 5


def test_alphas_of_a_log(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"step": 10 * k, "loss": 1.0, "alpha down_1_0": 0.5 - 0.001 * k, "alpha up_0_1": 0.5} for k in range(1, 49)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = experiment.alphas(log, rows=24)
    assert set(found) == {"step", "down_1_0", "up_0_1"} and len(found["step"]) == 24
    assert found["step"][:2] == [10, 30] and found["down_1_0"][1] == pytest.approx(0.497)


# --------------------------------------------------------------------------------------------------- another painter


def test_alpha_1_is_the_painter_alone():
    model = painter()
    maker = Animator(VideoLDM(model, layers(model)).eval(), lambda z: z)
    z, t = numbers(2, 3, 4, 8, 8), torch.tensor([0.3, 0.8])
    ids = word_ids(["a red circle", "a blue square"], recipe.PICTURES.words)
    words = word_ids(["a red circle slides right", "a blue square grows"], recipe.CONFIG.words)
    with torch.no_grad():
        alone = scores.painter_alone(maker).model(z, t, ids, words)
        want = model(z.flatten(0, 1), t.repeat_interleave(3), ids.repeat_interleave(3, 0)).unflatten(0, (2, 3))
        assert torch.equal(alone, want) and not torch.allclose(maker.model(z, t, ids, words), want, atol=1e-3)


def test_other_names_for_colours_name_every_colour_once():
    assert sorted(joining.NAMES) == sorted(joining.NAMES.values()) == sorted(world.COLOURS)
    assert all(old != new for old, new in joining.NAMES.items())
    scene = recipe.library(1)[0]
    other = joining.renamed(scene)
    assert other.objects[0].colour == joining.NAMES[scene.objects[0].colour]
    assert replace(other.objects[0], colour=scene.objects[0].colour) == scene.objects[0]


def test_films_behind_another_painter_are_judged_by_the_new_names(tmp_path, monkeypatch):
    asked = []

    class Fixed:
        def __init__(self, scenes):
            self.scenes = scenes

        def film(self, texts, seed, **options):
            asked.append((list(texts), seed, options))
            return world.to_film(world.render(self.scenes[: len(texts)], 9, 32, 32))

    texts, scenes = scores.prompts("test", 6)
    new = [joining.renamed(scene) for scene in scenes]
    monkeypatch.setattr(joining, "colour_painter", lambda painter, first, folder: "tuned")
    monkeypatch.setattr(joining, "behind", lambda maker, painter: Fixed(new) if painter == "tuned" else None)
    monkeypatch.setattr(joining, "painter_alone", lambda maker: Fixed(new[::-1]))
    before = Fixed(scenes)
    before.model = SimpleNamespace(painter=None)
    found = joining.colours(tmp_path, before, None, 6, steps=3)
    assert found["joined"] == dict.fromkeys(scores.COLUMNS, 1.0) and found["films"] == 6
    assert found["before"]["colour"] == 0 and found["before"]["motion"] == 1 and found["painter alone"]["all"] < 0.5
    assert asked == [(texts, joining.SEED, {"steps": 3})] * 3


def test_a_painter_is_tuned_and_the_old_one_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    model = painter()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr(joining, "TUNING", replace(joining.TUNING, warmup=1))
    tuned = joining.colour_painter(model, Corner(), tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    moved = [key for key, value in tuned.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(before) and not tuned.training


def test_where_ink_went():
    films = -torch.ones(4, 9, 3, 32, 32)
    for frame in range(9):
        films[0, frame, :, 10:14, 4 + frame : 8 + frame] = 1  # right
        films[1, frame, :, 20 - frame : 24 - frame, 6:10] = 1  # up
        films[2, frame, :, 10 + frame : 14 + frame, 4 + frame : 8 + frame] = 1  # right and down
        films[3, frame, :, 10:14, 10:14] = 1
    asked = ["right", "up", "right", "left"]
    assert joining.went(films, asked) == 0.5
    assert joining.went(films[:2], ["left", "down"]) == 0 and joining.went(films[:1], ["up"]) == 0
