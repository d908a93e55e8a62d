"""Chapter 16's recipes: what the models are trained on, how they are judged, and `soralab train` from end to end."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import AUTOENCODER, PIXELS, SORA, numbers, randomise, save_all, tiny_autoencoder

from soralab import world
from soralab.command import main
from soralab.experiments import EXPERIMENTS, experiment, make, publish
from soralab.experiments import referee as recipe_of_the_referee
from soralab.experiments import sora as experiments
from soralab.experiments import sora_autoencoder as copying
from soralab.experiments import sora_scores as film_scores
from soralab.files.checkpoints import load_checkpoint
from soralab.recipes import RECIPES, recipe, sora, sora_autoencoder
from soralab.sora import Filmmaker, SpacetimeAutoencoder, load_autoencoder
from soralab.world import referee
from soralab.world.language import decode, descriptive_caption, short_caption
from soralab.world.reader import read_caption
from soralab.world.scene import SLIDES, WALL


class Uncompressed(torch.nn.Module):
    """In place of the autoencoder: its latents are the films, so that the referee can look at a batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode(self, films):
        return films


def sentences(batch):
    return [decode(row) for row in batch["ids"].tolist()]


# --------------------------------------------------------------------------------------------------------- prompts


def test_the_shares_of_the_prompts():
    rng, scenes = Random("prompts"), [world.sample_scene(3, k, "simple") for k in range(50)]
    counts = dict.fromkeys(("null", "descriptive", "short", "no size"), 0)
    for k in range(4000):
        scene = scenes[k % 50]
        text, short = sora.prompt(scene, rng), short_caption(scene)
        kinds = {"": "null", descriptive_caption(scene): "descriptive", short: "short"}
        kind = kinds.get(text, "no size")
        if kind == "no size":
            read, whole = read_caption(text), read_caption(short)
            assert [{**thing, "size": None} for thing in whole] == read
        counts[kind] += 1
    shares = {kind: count / 4000 for kind, count in counts.items()}
    expected = {"null": 0.1, "descriptive": 0.3, "short": 0.45, "no size": 0.15}
    assert shares == pytest.approx(expected, abs=0.025)  # 3 deviations of 4000 throws


# --------------------------------------------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def latent_batches():
    return sora.LatentBatches(Uncompressed(), 400)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("x0", "ids")) if a["x0"].shape == b["x0"].shape else False


def test_batches_are_pure_functions_of_the_step(latent_batches):
    other = sora.LatentBatches(Uncompressed(), 400)
    for batch_fn, again in ((sora.pixel_batch, sora.pixel_batch), (latent_batches, other)):
        torch.manual_seed(0)
        first = batch_fn(4)
        torch.manual_seed(1)
        again(9)
        assert same(again(4), first)
        assert not torch.equal(batch_fn(5)["x0"], first["x0"])
    assert torch.equal(sora_autoencoder.batch(4), sora_autoencoder.batch(4))
    assert not torch.equal(sora_autoencoder.batch(5), sora_autoencoder.batch(4))


def test_an_epoch_of_latents_shows_every_film_once_and_the_next_comes_in_another_order(latent_batches, monkeypatch):
    index = {film.float().numpy().tobytes(): k for k, film in enumerate(latent_batches.latents)}
    films = len(latent_batches.scenes)
    assert len(index) == films > sora.BATCH
    monkeypatch.setattr(latent_batches, "batch", films)  # a batch that is an epoch
    epochs = [[index[film.numpy().tobytes()] for film in latent_batches(step)["x0"]] for step in (0, 1)]
    assert all(sorted(order) == [*range(films)] for order in epochs)
    assert epochs[0] != epochs[1]


def test_all_films_that_turn_are_used_and_few_others():
    """Of the world's 15 motions two turn, one in 15 passes behind the wall: 1/15 + 1/15 + 1/45 + 12/15/9 are used."""
    library = [world.sample_scene(sora.SEED, k, "simple") for k in range(6000)]
    used = list(sora.used(range(6000)))
    assert len(used) / 6000 == pytest.approx(2 / 15 + 1 / 45 + 4 / 45, abs=0.017)  # 3 deviations
    for motions, share in ((("orbits", "spins"), 1), ((WALL,), 1 / 3), (("stays still", *SLIDES), 1 / 9)):
        there, here = ([s for s in scenes if s.objects[0].motion in motions] for scenes in (library, used))
        assert len(here) / len(there) == pytest.approx(share, abs=0.08 if share < 1 else 0)
    assert set(used) <= set(library)


@pytest.fixture(scope="module")
def hard_batches():
    return sora.LatentBatches(Uncompressed(), 400, hard_ones=True)


def test_hard_films_spin_are_of_angular_shapes_and_keep_their_prompts(hard_batches):
    library = [world.sample_scene(sora.SEED, k, "simple") for k in range(400, 1200)]
    assert 20 < len(hard_batches.scenes) and set(hard_batches.scenes) <= set(library)
    assert not any(scene.held_out for scene in hard_batches.scenes)
    count = {shape: 0 for shape in world.SHAPES}
    for scene in sora.hard(range(400, 12_000)):
        assert scene.objects[0].motion == "spins"
        count[scene.objects[0].shape] += 1
    assert count["circle"] == count["moon"] == 0
    for shape in ("triangle", "cross"):  # every second one; 3 deviations of about 90
        assert count[shape] / count["square"] == pytest.approx(0.5, abs=0.2)
    assert all(text for step in range(10) for text in sentences(hard_batches(step)))


def test_late_batches_are_half_usual_and_half_hard(latent_batches, hard_batches):
    batches, half = sora.Curriculum(latent_batches, hard_batches, late=3), sora.BATCH // 2
    assert all(same(batches(step), latent_batches(step)) for step in range(3))
    for step in (3, 4):
        late, usual, hard = batches(step), latent_batches(step), hard_batches(step)
        assert same(batches(step), late)
        assert torch.equal(late["x0"], torch.cat([usual["x0"][:half], hard["x0"][:half]]))
        assert sentences(late) == sentences(usual)[:half] + sentences(hard)[:half]
    assert not torch.equal(batches(3)["x0"][half:], batches(4)["x0"][half:])


def test_training_turns_to_hard_films_after_its_share_of_the_steps(monkeypatch):
    class Stop(Exception):
        pass

    def stop(model, loss, batches, config, folder, **options):
        turn = batches.late
        assert turn / config.steps == pytest.approx(sora.LATE, abs=0.5 / config.steps)
        assert batches.usual.asked == {"hard_ones": False, "steps": range(50)}
        assert batches.hard.asked == {"hard_ones": True, "steps": range(31, 50)}
        raise Stop

    class Asked:
        def __init__(self, *given, hard_ones=False, steps=None):
            self.asked = {"hard_ones": hard_ones, "steps": steps}

    monkeypatch.setattr(sora.loop, "train", stop)
    monkeypatch.setattr(sora, "LatentBatches", Asked)
    with pytest.raises(Stop):
        sora.train("sora", steps=50)


def test_pixels_are_of_films_like_those_of_latents():
    said = [text for step in range(12) for text in sentences(sora.pixel_batch(step)) if text]
    turns = [read_caption(text)[0]["motion"] in ("orbits", "spins") for text in said]
    assert sum(turns) / len(turns) == pytest.approx(2 / 15 / (2 / 15 + 1 / 9), abs=0.057)  # 3 deviations of 702
    films = [film.numpy().tobytes() for step in range(4) for film in sora.pixel_batch(step)["x0"]]
    assert len(set(films)) == len(films)


def test_prompts_belong_to_their_films(latent_batches):
    """The referee looks at the films of a batch: they show what their prompts say."""
    for batch in (latent_batches(1), sora.pixel_batch(1)):
        said = [(film, text) for film, text in zip(batch["x0"], sentences(batch), strict=True) if text]
        films, texts = torch.stack([film for film, _ in said]), [text for _, text in said]
        assert len(films) > 20 and film_scores.judge(films, texts)["all"] > 0.93
        assert film_scores.judge(films, texts[1:] + texts[:1])["all"] < 0.2


def test_held_out_combinations_are_in_no_training_batch(latent_batches):
    def forbidden(text):
        return any(world.held_out(thing["shape"], thing["colour"], thing["motion"]) for thing in read_caption(text))

    told = [text for step in range(8) for text in sentences(sora.pixel_batch(step)) if text]
    assert len(told) > 200 and not any(map(forbidden, told))
    assert not any(scene.held_out for scene in latent_batches.scenes)
    assert not any(map(forbidden, film_scores.prompts("test", 50)[0]))
    assert all(map(forbidden, film_scores.prompts("held_out", 50)[0]))


def test_prompts_of_the_scores_are_not_those_of_training():
    """Another seed and another stream: the films are drawn apart, though a caption may be met twice."""
    trained = {scene for k in range(300) for scene in [world.sample_scene(sora.SEED, k, "simple")]}
    for split in ("test", "held_out"):
        texts, scenes = film_scores.prompts(split, 100)
        assert not trained & set(scenes)
        assert texts == [short_caption(scene) for scene in scenes] == film_scores.prompts(split, 100)[0]


def test_latents_are_encoded_once_and_kept_until_the_autoencoder_changes(tmp_path, monkeypatch):
    model, cache = tiny_autoencoder(), tmp_path / "latents"
    first = sora.LatentBatches(model, 400, cache)
    encode, encoded = SpacetimeAutoencoder.encode, []
    monkeypatch.setattr(SpacetimeAutoencoder, "encode", lambda *given: encoded.append(1) or encode(*given))
    assert same(sora.LatentBatches(model, 400, cache)(2), first(2)) and not encoded
    with torch.no_grad():
        model.encoder[0].weight.mul_(2)
    assert not same(sora.LatentBatches(model, 400, cache)(2), first(2)) and encoded


def test_an_encoding_that_is_stopped_keeps_its_parts_and_goes_on(tmp_path, monkeypatch, capsys):
    """Ctrl-C after a part and a half: the part is kept, a line says so, and only the rest is encoded."""
    model, cache, encode, encoded = tiny_autoencoder(), tmp_path / "latents", SpacetimeAutoencoder.encode, []
    whole = sora.LatentBatches(model, 1600)
    assert len(whole.scenes) > 350
    monkeypatch.setattr(sora, "PART", 100)

    def counted(*given):
        encoded.append(len(given[1]))
        if len(encoded) == 2 and "stop" in flags:
            raise KeyboardInterrupt
        return encode(*given)

    flags = {"stop"}
    monkeypatch.setattr(SpacetimeAutoencoder, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        sora.LatentBatches(model, 1600, cache)
    err = capsys.readouterr().err
    assert f"stopped with 100 of {len(whole.scenes)} films encoded, kept in {tmp_path}: run the same again" in err
    flags.clear()
    encoded.clear()
    again = sora.LatentBatches(model, 1600, cache)
    assert sum(encoded) == len(whole.scenes) - 100
    assert torch.equal(again.latents, whole.latents) and same(again(3), whole(3))
    encoded.clear()
    sora.LatentBatches(model, 800, cache)  # other films: nothing of them may be taken
    assert sum(encoded) > 0


@pytest.mark.parametrize("hard_ones", [False, True])
def test_a_short_training_encodes_only_what_it_needs(tmp_path, monkeypatch, hard_ones):
    model, encode, encoded = tiny_autoencoder(), SpacetimeAutoencoder.encode, []
    films = 4000 if hard_ones else 1600
    whole = sora.LatentBatches(model, films, hard_ones=hard_ones)
    assert len(whole.scenes) > 2 * sora.BATCH
    monkeypatch.setattr(SpacetimeAutoencoder, "encode", lambda *given: encoded.append(len(given[1])) or encode(*given))
    short = sora.LatentBatches(model, films, tmp_path / "latents", hard_ones=hard_ones, steps=range(1, 2))
    assert sum(encoded) == sora.BATCH and list(tmp_path.iterdir()) == []
    got, wanted = short(1), whole(1)
    assert torch.equal(got["ids"], wanted["ids"]) and (got["x0"] - wanted["x0"]).abs().max() < 0.02


def test_the_autoencoders_batch_has_toys_crowds_and_clouds():
    """Half of them crowded, 3 in 8 simple, 1 in 8 without any toy."""
    step, films = 5, sora_autoencoder.batch(5)
    assert films.shape == (16, 9, 3, 32, 32) and films.abs().max() <= 1
    assert torch.equal(films[:8], world.clips(16, range(40, 48), 9, level="full")[0])
    assert torch.equal(films[8:14], world.clips(16, range(30, 36), 9, level="simple")[0])
    assert torch.equal(films[14:], sora_autoencoder.textures(2, 9, 32, 32, seed=step))


def test_textures_are_clouds_that_drift():
    np.random.seed(0)
    clouds = sora_autoencoder.textures(6, 9, 32, 40, seed=1)
    np.random.seed(1)
    assert torch.equal(sora_autoencoder.textures(6, 9, 32, 40, seed=1), clouds)
    assert clouds.shape == (6, 9, 3, 32, 40)
    assert -1 <= clouds.min() < -0.8 and 0.8 < clouds.max() <= 1
    assert not torch.equal(sora_autoencoder.textures(6, 9, 32, 40, seed=2), clouds)
    for axis in (1, 3, 4):  # time, height, width: neighbours differ, and less than strangers do
        near = clouds.diff(dim=axis).abs().mean()
        far = (clouds - clouds.roll(clouds.shape[axis] // 2, axis)).abs().mean()
        assert 0.001 < near < far / 2
    assert (clouds[:, :, 0] - clouds[:, :, 1]).abs().mean() > 0.02  # coloured


# ---------------------------------------------------------------------------------------------------------- the loss


class OptimizedModule:
    """As torch.compile's: it asks the module for its length, which a transformer has not."""

    def __init__(self, call):
        self.call = call

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    def __len__(self):
        raise TypeError("Sora does not support len()")


@pytest.mark.parametrize("name", ["sora", "sora_pixels"])
def test_a_network_that_knows_the_film_has_no_loss(name):
    """It answers in the recipe's kind of prediction: the velocity (x_t - x_0) / t, or the film itself."""
    chosen, x0, told = sora.RECIPES[name], torch.rand(6, 2, 3, 4, 4) * 2 - 1, []
    ids = torch.arange(12).reshape(6, 2)

    def knows(x, t, ids):
        told.append((t, ids))
        return (x - x0) / t.reshape(-1, 1, 1, 1, 1) if chosen.kind == "v" else x0

    loss = sora.make_loss(chosen)
    assert loss(knows, {"x0": x0, "ids": ids}, torch.Generator().manual_seed(0)) < 1e-8
    compiled = sora.make_loss(chosen, OptimizedModule(knows))  # it answers in the model's place
    assert compiled(None, {"x0": x0, "ids": ids}, torch.Generator().manual_seed(0)) < 1e-8
    assert torch.equal(told[0][1], ids) and told[0][0].unique().numel() == 6
    wrong = loss(lambda x, t, ids: knows(x, t, ids) + 0.5, {"x0": x0, "ids": ids}, torch.Generator().manual_seed(0))
    # An error e of the velocity costs e^2; one of the film is e / t of velocity.
    factor = 1.0 if chosen.kind == "v" else (1 / told[0][0]).square().mean().item()
    assert wrong.item() == pytest.approx(0.25 * factor, rel=1e-3)


@pytest.mark.parametrize("name", ["sora", "sora_pixels"])
@pytest.mark.parametrize("shift, median", [(1.0, 1 / 2), (2.0, 2 / 3)])  # 0.5, bent by the shift
def test_the_times_of_training_are_bent_by_the_recipes_shift(name, shift, median):
    seen, x0 = [], torch.zeros(2000, 1, 1, 1, 1)
    loss = sora.make_loss(replace(sora.RECIPES[name], shift=shift))
    loss(lambda x, t, ids: seen.append(t) or x, {"x0": x0, "ids": None}, torch.Generator())
    assert seen[0].median().item() == pytest.approx(median, abs=0.03)


def test_both_models_have_the_same_transformer():
    latents, pixels = (sora.RECIPES[name].config for name in ("sora", "sora_pixels"))
    assert replace(pixels, channels=8, patch=(1, 2, 2), size=(5, 8, 8)) == latents
    assert sora.RECIPES["sora"].autoencoder == "sora_autoencoder" and sora.RECIPES["sora_pixels"].autoencoder is None
    assert torch.equal(sora.build(sora.RECIPES["sora"]).embed.weight, sora.build(sora.RECIPES["sora"]).embed.weight)


# ----------------------------------------------------------------------------------------------------------- judging


def test_the_judge_believes_true_films_and_no_others():
    texts, scenes = film_scores.prompts("test", 40)
    films = world.to_film(world.render(scenes, film_scores.FRAMES))
    right = film_scores.judge(films, texts)
    assert list(right) == list(film_scores.COLUMNS) and min(right.values()) >= 0.95
    shuffled = film_scores.judge(films, texts[7:] + texts[:7])
    assert shuffled["all"] < 0.1 and shuffled["colour"] < 0.4 and shuffled["count"] >= 0.95
    half = film_scores.judge(films, texts[:20] + texts[27:] + texts[20:27])
    assert 0.45 < half["all"] < 0.65
    assert film_scores.judge(torch.zeros_like(films), texts)["all"] == 0


def test_evaluate_films_each_prompt_of_the_split_in_order(monkeypatch):
    """In chunks, of which the last is short; a filmmaker that shows the truth has nearly everything right."""
    asked = []

    class Truth:
        def film(self, texts, seed, **options):
            asked.append((len(texts), seed, options))
            start = seed - 10_000
            scenes = film_scores.prompts("held_out", start + len(texts))[1][start:]
            return world.to_film(world.render(scenes, film_scores.FRAMES))

    monkeypatch.setattr(film_scores, "CHUNK", 8)
    assert film_scores.evaluate(Truth(), "held_out", 20, steps=3)["all"] >= 0.9
    assert asked == [(8, 10_000, {"steps": 3}), (8, 10_008, {"steps": 3}), (4, 10_016, {"steps": 3})]


def test_the_card_says_which_motions_are_wrong():
    """Films of the truth, but those that should bounce stand still: the colour is right, the motion is not."""

    class NoBounce:
        def film(self, texts, seed):
            scenes = film_scores.prompts("test", 60)[1][seed - 10_000 :][: len(texts)]
            films = world.to_film(world.render(scenes, film_scores.FRAMES))
            bounce = torch.tensor(["bounces" in text for text in texts])
            films[bounce] = films[bounce][:, :1].expand(-1, film_scores.FRAMES, -1, -1, -1)
            return films

    row = film_scores.measure(NoBounce(), "test", 60)
    assert row["films"] == 60 and sum(films for _, films in row["motions"].values()) == 60
    assert row["all"] == pytest.approx(sum(right for right, _ in row["motions"].values()) / 60)
    texts = film_scores.prompts("test", 60)[0]
    assert row["motions"]["bounces"] == [0, sum("bounces" in text for text in texts)]
    assert row["motions"]["slides"] == pytest.approx([sum("slides" in text for text in texts)] * 2, abs=1)
    bounces = {k for k, text in enumerate(texts) if "bounces" in text}
    assert bounces <= set(row["wrong"]) and len(row["wrong"]) == 60 - round(60 * row["all"])


def test_what_the_card_calls_wrong_is_counted_by_words_and_filmed_again(monkeypatch):
    texts, _ = film_scores.prompts("test", 30)
    wrong = [1, 4, 5, 28]
    card = {"metrics": {"test": {"films": 30, "wrong": wrong}}}
    monkeypatch.setattr(film_scores, "read_card", lambda name: card)
    shape = texts[4].split()[3]
    those = [k for k, text in enumerate(texts) if shape in text.split()]
    assert film_scores.card_right("sora", "test", shape) == (len([k for k in those if k not in wrong]), len(those))
    assert film_scores.card_right("sora", "test") == (26, 30) and film_scores.card_right("sora", "test", "x") == (0, 0)

    class Maker:
        """Its films hold the seed that they were made from."""

        def film(self, texts, seed):
            return torch.arange(seed, seed + len(texts), dtype=torch.float32)[:, None]

    films = film_scores.refused(Maker(), "test", 3)
    assert [text for _, text in films] == [texts[k] for k in wrong[:3]]
    assert [film.item() for film, _ in films] == [10_000 + k for k in wrong[:3]], "the card's films have these seeds"
    card["metrics"]["test"]["wrong"] = []
    assert film_scores.refused(Maker(), "test", 3) == []


def test_ceilings_are_those_of_true_films_and_of_copies():
    class Half:
        """An autoencoder that blackens every second film."""

        encode = staticmethod(lambda films: films)

        @staticmethod
        def decode(films):
            films = films.clone()
            films[::2] = -1
            return films

    rows = film_scores.ceilings(Half(), "test", 20)
    assert rows["true films"]["all"] >= 0.9
    assert rows["autoencoder's copies"]["all"] == pytest.approx(rows["true films"]["all"] / 2, abs=0.06)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Small checkpoints, and an empty working folder for what is trained."""
    save_all(tmp_path / "checkpoints")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return tmp_path / "checkpoints"


def test_the_table_has_both_splits_and_every_row(shelf, monkeypatch):
    monkeypatch.setattr(film_scores, "evaluate", lambda maker, split, count: dict.fromkeys(film_scores.COLUMNS, 0.75))
    counts = {"test": (60, 80), "held_out": (20, 80)}
    monkeypatch.setattr(film_scores, "card_counts",
                        lambda name, split: dict.fromkeys(film_scores.COLUMNS, counts[split]))  # fmt: skip
    lines = film_scores.table("sora", "sora_pixels", count=4).splitlines()
    assert "prompts like training's (4)" in lines[0] and lines[1].split() == list(film_scores.COLUMNS)
    starts = [line[:23].strip() for line in lines]
    rows = ["true films", "autoencoder's copies", "sora", "sora_pixels, its card"]
    assert starts[2:6] == rows and lines[6] == "" and starts[9:] == rows
    assert "combinations that training never saw (4)" in lines[7]
    assert lines[4].split()[1:] == ["75.0", "(30.1–95.4)"] * 5  # Wilson's interval of 3 in 4, by hand
    assert lines[5].split()[3] == "75.0" and lines[12].split()[3] == "25.0"  # the card's, of its own films
    # Without an autoencoder there are no copies to compare with.
    alone = film_scores.table("sora_pixels", None, count=4).splitlines()
    assert [line[:22].strip() for line in alone[2:]].count("sora_pixels") == 2 and "copies" not in " ".join(alone)


def test_the_widest_rows_of_the_table_fit_into_the_page(monkeypatch):
    """118 columns, as tests/anatomy.py has them; all films right make the longest numbers."""
    full = dict.fromkeys(film_scores.COLUMNS, 1.0)
    monkeypatch.setattr(film_scores.Filmmaker, "load", lambda *_: SimpleNamespace(autoencoder=True))
    monkeypatch.setattr(film_scores, "ceilings", lambda *_: {"true films": full, "autoencoder's copies": full})
    monkeypatch.setattr(film_scores, "evaluate", lambda *_: full)
    monkeypatch.setattr(film_scores, "card_counts", lambda *_: dict.fromkeys(film_scores.COLUMNS, (400, 400)))
    lines = film_scores.table("sora", "sora_pixels").splitlines()
    assert max(map(len, lines)) == 118 and sum("100.0 (99.0–100.0) 100.0" in line for line in lines) == 8


def test_the_command_prints_the_table(shelf, capsys, monkeypatch):
    table = film_scores.table
    monkeypatch.setattr(experiments, "table", lambda name, baseline: table(name, baseline, count=2))
    monkeypatch.setattr(film_scores, "card_counts", lambda name, split: dict.fromkeys(film_scores.COLUMNS, (1, 2)))
    assert main(["evaluate", "sora"]) == 0
    out = capsys.readouterr().out
    assert out.count("sora_pixels") == 2 and out.count("true films") == 2
    assert main(["evaluate", "sora", "--checkpoint", str(shelf / "sora")]) == 0
    assert "sora_pixels" not in capsys.readouterr().out


def test_the_referees_own_table(monkeypatch, capsys):
    """A row for each kind of film; what it says of a kind is what the referee says of each of its films."""
    assert recipe_of_the_referee.measure("simple, 9 frames", 40)["all"] >= 38
    with monkeypatch.context() as during:
        during.setattr(recipe_of_the_referee, "KINDS", {"simple, 8 frames": ("simple", 8, 32, 32)})
        during.setattr(referee, "read", lambda film: referee.Report((), "black", "still", None, len(film)))
        assert recipe_of_the_referee.measure("simple, 8 frames", 3) == dict.fromkeys(recipe_of_the_referee.COLUMNS, 0)
    monkeypatch.setattr(recipe_of_the_referee, "measure", lambda kind, count: dict.fromkeys(film_scores.COLUMNS, 999))
    assert main(["evaluate", "referee"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(recipe_of_the_referee.KINDS) and all(row.count("99.9") == 5 for row in rows)


def test_psnr_is_its_formula_film_by_film():
    films = torch.rand(3, 2, 3, 4, 4) * 2 - 1
    copies = films + torch.tensor([0.1, -0.2, 1.0]).reshape(3, 1, 1, 1, 1)
    expected = [20 * np.log10(2 / error) for error in (0.1, 0.2, 1.0)]
    assert copying.psnr(films, copies).tolist() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_reconstruct_in_chunks_is_the_same_and_stays_in_range():
    model, films = tiny_autoencoder(), torch.rand(5, 3, 3, 8, 8) * 2 - 1
    model.decoder_half[-1].weight.mul_(5)
    assert model.decode(model.encode(films)).abs().max() > 1
    whole = copying.reconstruct(model, films)
    torch.testing.assert_close(copying.reconstruct(model, films, chunk=2), whole, rtol=1e-4, atol=1e-5)
    assert whole.abs().max() <= 1 and whole.shape == films.shape


def test_measure_of_a_perfect_and_of_a_blind_autoencoder(monkeypatch):
    def noisy(model, films):
        return films + 0.02 * torch.randn(films.shape, generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(copying, "reconstruct", noisy)
    metrics = copying.measure(None, 12)
    psnrs = [value for key, value in metrics.items() if key.startswith("psnr")]
    assert len(psnrs) == 3 and psnrs == pytest.approx([40] * 3, abs=0.2)  # 20 log10(2 / 0.02)
    assert metrics["read_right_simple"] >= 0.9 and metrics["read_right_full"] >= 0.8
    assert sum(films for _, films in metrics["spins"].values()) == 24 and set(metrics["spins"]) <= set(world.SHAPES)
    assert sum(right for right, _ in metrics["spins"].values()) >= 22 and len(metrics["spins"]) >= 3
    monkeypatch.setattr(copying, "reconstruct", lambda model, films: -torch.ones_like(films))
    blind = copying.measure(None, 12)
    assert blind["read_right_simple"] == 0 and not any(right for right, _ in blind["spins"].values())


def test_the_table_of_the_autoencoder_has_a_row_for_each_shape_that_spins(monkeypatch, capsys):
    found = {"psnr_full": 33.915, "spins": {"cross": [3, 9], "square": [100, 101]}}
    monkeypatch.setattr(copying, "measure", lambda model: dict(found))
    assert main(["evaluate", "sora_autoencoder"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["psnr_full", "33.91"], ["spins,", "cross", "3", "of", "9"], ["spins,", "square", "100", "of", "101"]]


def test_of_things_that_spin_it_copies_those_that_spin_each_with_its_own_scene(monkeypatch):
    """Copies that are right for one shape alone: its films are counted right, and no others."""
    def blank_unless_square(model, films):
        scenes = [world.sample_scene(copying.SEED, k, "simple", "test") for k in range(2000)]
        shapes = [scene.objects[0].shape for scene in scenes if scene.objects[0].motion == "spins"][: len(films)]
        keep = torch.tensor([shape == "square" for shape in shapes]).reshape(-1, 1, 1, 1, 1)
        return torch.where(keep, films, -torch.ones_like(films))

    monkeypatch.setattr(copying, "reconstruct", blank_unless_square)
    for shape, (right, films) in copying.spins(None, 30).items():
        assert films > 0 and right == (films if shape == "square" else 0)


# ----------------------------------------------------------------------------------------------------------- training


def test_every_recipe_that_is_named_is_there():
    for name in EXPERIMENTS:
        module = experiment(name)
        assert callable(module.evaluate) and hasattr(module, "metrics") is (name in RECIPES) is (name != "referee")
    assert all(callable(recipe(name).train) for name in RECIPES)
    for find in (recipe, experiment):
        with pytest.raises(ValueError, match="NAME is 'unet2'; it takes one of sora, "):
            find("unet2")


@pytest.fixture
def small(shelf, monkeypatch):
    """The recipes with models of test size; their batches, losses and folders are the real ones."""
    measure = copying.measure
    monkeypatch.setattr(sora_autoencoder, "AutoencoderConfig", lambda: AUTOENCODER)
    monkeypatch.setattr(sora_autoencoder, "BATCH", 8)
    monkeypatch.setattr(copying, "measure", lambda model: measure(model, 4))
    tiny = {"sora": replace(SORA, size=(5, 8, 8)), "sora_pixels": replace(PIXELS, size=(9, 32, 32))}
    small = {name: replace(sora.RECIPES[name], config=config) for name, config in tiny.items()}
    monkeypatch.setattr(sora, "RECIPES", small)
    monkeypatch.setattr(sora, "BATCH", 8)
    return shelf


def card_of(path):
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def test_train_the_autoencoder_then_sora_then_film(small, capsys):
    """The way in which the shipped ones are made, in small: each command's checkpoint is the next one's tool."""
    for name in ("sora_autoencoder", "sora", "sora_pixels"):
        assert main(["train", name, "--folder", str(small)]) == 0
        path = small / f"{name}.safetensors"
        assert f"saved {path}" in capsys.readouterr().out
        card = card_of(path)
        assert card["steps"] == 2 and card["command"] == f"soralab train {name}" and card["data_seed"] == 16
        assert card["batch"] == 8 and {"cpu", "torch"} <= card["hardware"].keys()
        assert all(value.dtype != torch.float32 for value in load_checkpoint(path)[0].values())
    model = load_autoencoder()
    assert (model.std > 0).all() and not torch.equal(model.std, torch.ones(8))  # its scale has been measured
    films = world.clips(16, range(64), 9, level="full")[0]
    z = model.encode(films).transpose(0, 2).flatten(1)
    assert z.mean(1).abs().max() < 0.3 and (z.std(1) - 1).abs().max() < 0.3
    assert set(card_of(small / "sora.safetensors")["metrics"]) == {"test", "held_out"}
    for name, autoencoder in (("sora", True), ("sora_pixels", False)):
        maker = Filmmaker.load(name)
        assert maker.film(["a small red circle slides right"], steps=2).shape == (1, 9, 3, 32, 32)
        assert (maker.autoencoder is not None) is autoencoder
        assert (maker.kind, maker.shift) == ("v" if autoencoder else "x", sora.RECIPES[name].shift)
        counts = film_scores.card_counts(name, "test")
        assert set(counts) == set(film_scores.COLUMNS) and all(0 <= k <= n == 4 for k, n in counts.values())
    assert not list((small.parent / "work").rglob("latents*"))  # two steps need few films: nothing of them is kept


def test_an_experiment_that_fails_leaves_no_card_and_the_training_stays(small, monkeypatch, capsys):
    """A checkpoint is saved with all of its metrics or not at all; the next call does not train again."""
    with monkeypatch.context() as during:
        during.setattr(copying, "measure", lambda model: open(small / "no such file"))
        assert main(["train", "sora_autoencoder", "--folder", "kept"]) == 2
    assert "no such file" in capsys.readouterr().err and not Path("kept").exists()
    monkeypatch.setattr(sora_autoencoder, "loss", lambda *_: pytest.fail("it trained again"))
    assert main(["train", "sora_autoencoder", "--folder", "kept"]) == 0
    card = card_of(Path("kept/sora_autoencoder.safetensors"))
    assert card["steps"] == 2 and {"psnr_full", "read_right_simple"} <= set(card["metrics"])


def test_what_is_published_is_the_average_in_half_precision(small, monkeypatch):
    """The last weights stay with the run, to go on from; the averaged ones are what films."""
    path = make("sora_pixels", small, steps=3)
    published = load_checkpoint(path)[0]
    state = load_checkpoint(small.parent / "work" / "runs" / "sora_pixels" / "state")[0]
    for key, value in published.items():
        assert torch.equal(value, state[f"ema/{key}"].half())
    assert any(not torch.equal(published[key], state[f"model/{key}"].half()) for key in published)


def test_an_interrupted_sora_goes_on_as_if_it_had_not_been(small, monkeypatch):
    work, make_loss, calls = small.parent / "work", sora.make_loss, []

    def breaking(*recipe):
        loss = make_loss(*recipe)

        def broken(*given):
            calls.append(1)
            if len(calls) == 3:
                raise OSError("the power went")
            return loss(*given)

        return broken

    monkeypatch.setattr(sora, "RECIPES", {
        name: replace(chosen, training=replace(chosen.training, save_every=1)) for name, chosen in sora.RECIPES.items()
    })  # fmt: skip
    with monkeypatch.context() as during:
        during.setattr(sora, "make_loss", breaking)
        assert main(["train", "sora", "--steps", "4", "--folder", "first"]) == 2
        assert main(["train", "sora", "--steps", "4", "--folder", "first"]) == 0
    assert len(calls) == 5  # 1, 2, the broken one, 3, 4
    (work / "runs").rename(work / "runs_before")
    assert main(["train", "sora", "--steps", "4", "--folder", "second"]) == 0
    assert card_of(work / "first/sora.json")["sha256"] == card_of(work / "second/sora.json")["sha256"]


def test_publish_keeps_whole_numbers_and_adds_the_hardware(tmp_path):
    tensors = {"weight": torch.tensor([1.5, 1 / 3]), "count": torch.tensor([70_000])}
    path = publish(tmp_path / "model", tensors, {"config": {}})
    loaded, card = load_checkpoint(tmp_path / "model")
    assert path.name == "model.safetensors" and "cpu" in card["hardware"] and card["parameters"] == 3
    assert loaded["count"].tolist() == [70_000] and loaded["weight"].dtype == torch.float16


def test_the_smoke_profile_is_smaller_than_the_laptops(small, monkeypatch):
    """Two steps and 400 films, where a laptop takes thousands; on a GPU as many, of more films and a larger net."""
    asked = {}

    class Stop(Exception):
        pass

    def stop(model, loss, batches, config, folder, **options):
        asked[profile] = (config.steps, len(batches.usual.scenes), model.config.dim)
        raise Stop

    monkeypatch.setattr(sora.loop, "train", stop)
    monkeypatch.setattr(sora, "LatentBatches", lambda _, count, *_a, **_k: type("B", (), {"scenes": range(count)}))
    for profile in ("smoke", "laptop", "gpu"):
        monkeypatch.setenv("SORALAB_PROFILE", profile)
        with pytest.raises(Stop):
            sora.train("sora")
    steps, films, dims = zip(*asked.values(), strict=True)
    assert steps == (2, sora.TRAINING.steps, sora.TRAINING.steps) and films == (400, sora.FILMS, 8 * sora.FILMS)
    assert dims[0] == dims[1] < dims[2]


def losses():
    """{name: (loss(model, batch, generator), a model, a batch)} of the recipes that draw noise or times."""
    from soralab.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
    from soralab.latent_diffusion import UNetConfig as PainterConfig
    from soralab.recipes import latent_diffusion, sora_autoencoder, unet
    from soralab.unet import UNet, UNetConfig

    ids = torch.tensor([[5, 9, 0], [7, 0, 0]])
    sizes = PainterConfig(width=8, groups=4, blocks=1, heads=2, context=12)
    painter = randomise(LatentDiffusion(LatentDiffusionConfig(sizes, 160, 8, 1)))
    return {
        "unet_denoiser": (unet.denoising_loss, randomise(UNet(UNetConfig.denoiser(width=8, levels=2, time=16))),
                          numbers(2, 3, 8, 8)),
        "latent_diffusion": (latent_diffusion.loss, painter, {"z": numbers(2, 4, 8, 8), "ids": ids}),
        "sora_autoencoder": (lambda *given: sora_autoencoder.loss(*given)[0], tiny_autoencoder(),
                             numbers(2, 3, 3, 16, 16)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["unet_denoiser", "latent_diffusion", "sora_autoencoder"])
def test_what_a_loss_draws_comes_from_the_steps_generator(name):
    """So that a run that was stopped goes on as it would have gone."""
    loss, model, batch = losses()[name]
    found = []
    for seed, elsewhere in ((0, 1), (0, 2), (3, 2)):
        torch.manual_seed(elsewhere)
        with torch.no_grad():
            found.append(loss(model, batch, torch.Generator().manual_seed(seed)).item())
    assert found[0] == found[1] != found[2]
