"""Chapter 06's pictures, and its recipe: what is drawn and said, how it is judged, and that all of it trains."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from soralab import world
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.command import main
from soralab.datasets import stills
from soralab.experiments import latent_diffusion as experiments
from soralab.experiments import latent_diffusion_conditions as conditions
from soralab.experiments import latent_diffusion_digits as digits
from soralab.experiments import latent_diffusion_relation as relation
from soralab.experiments import latent_diffusion_scores as scores
from soralab.experiments import latent_diffusion_trade_off as trade_off
from soralab.experiments.latent_diffusion_digits import as_digits, as_pictures, write_digits
from soralab.experiments.latent_diffusion_scores import gaussian_distance
from soralab.latent_diffusion import (
    LatentDiffusion,
    LatentDiffusionConfig,
    Painter,
    UNetConfig,
    load_autoencoder,
    noise,
    word_ids,
)
from soralab.recipes import latent_diffusion as recipe
from soralab.vit import ViT, ViTConfig
from soralab.world.language import encode
from soralab.world.reader import read_caption, read_setting

FIRST = AutoencoderConfig(width=8, groups=4)
TINY = LatentDiffusionConfig(UNetConfig(width=8, groups=4, blocks=1, heads=2, context=12), 160, 24, 1)


def still(*things, background="black", relation=None):
    objects = [world.Object(shape, colour, size, "stays still", x=x, y=y) for size, colour, shape, x, y in things]
    return world.Scene(tuple(objects), background, relation=relation)


CIRCLE, SQUARE = ("small", "red", "circle", -0.25, 0.0), ("medium", "blue", "square", 0.22, 0.05)
PROMPT = "a small red circle is left of a medium blue square"


# ------------------------------------------------------------------------------------------------------ what is drawn


def test_scenes_depend_on_seed_and_index_and_splits_differ():
    assert stills.sample(1, 5) == stills.sample(1, 5) != stills.sample(2, 5)
    assert stills.sample(1, 5) != stills.sample(1, 5, "test")
    counts = [len(stills.mixed(0, k).objects) for k in range(10)]
    assert counts == [1, 2, 1, 2, 1] * 2


@pytest.mark.parametrize("things", [1, 2])
def test_held_out_colours_are_in_their_split_alone(things):
    for split in world.SPLITS:
        for index in range(40):
            held = [world.held_out(o.shape, o.colour) for o in stills.sample(3, index, split, things).objects]
            assert sum(held) == (split == "held_out") and len(held) == things


def test_two_things_keep_apart_stay_inside_and_stand_as_the_caption_says():
    scenes = [stills.sample(4, index, "train", 2) for index in range(60)]
    for scene in scenes:
        (a, b), kind = scene.objects, scene.relation.kind
        assert (b.x - a.x if kind == "left of" else b.y - a.y) > 0.2 and a.colour != b.colour
        assert all(max(abs(o.x), abs(o.y)) + o.radius * o.reach <= 0.5 for o in (a, b))
    for truth in world.truth(scenes, 1, 64, 64):
        assert ((truth["masks"] > 0).sum(0) < 2).all()
    assert {scene.relation.kind for scene in scenes} == {"left of", "above"}


def test_captions_say_all_that_is_judged():
    for index in range(40):
        scene = stills.mixed(5, index)
        text = stills.caption(scene)
        said, encoded = read_caption(text), encode(text, 24)
        want = [(o.size, o.colour, o.shape) for o in scene.objects]
        assert [(s["size"], s["colour"], s["shape"]) for s in said] == want
        assert read_setting(text)["relation"] == ((scene.relation.kind, 0, 1) if scene.relation else None)
        assert len(encoded) == 24
    assert stills.caption(still(CIRCLE, SQUARE, relation=world.Relation("left of", 0, 1))) == PROMPT


def test_training_prompts_at_times_leave_things_out():
    from random import Random

    rng, scene = Random(0), still(CIRCLE, background="grey")
    said = [stills.prompt(scene, rng) for _ in range(2000)]
    assert set(said) == {"", "a small red circle", "a red circle", "a small red circle on a grey background",
                         "a red circle on a grey background"}  # fmt: skip
    assert said.count("") / 2000 == pytest.approx(0.1, abs=0.03)


# ------------------------------------------------------------------------------------------------------------- judging


def judge(*things, text=PROMPT):
    return {key for key, right in stills.marks(stills.pictures([still(*things)])[0], text).items() if right}


def test_the_judge_on_right_and_wrong_pictures():
    right = {"shape", "colour", "size", "count", "relation", "all"}
    assert judge(CIRCLE, SQUARE) == right
    assert judge(CIRCLE) == set()  # a thing is missing: nothing can be right of both
    assert judge(("medium", "red", "circle", -0.25, 0.0), SQUARE) == right - {"size", "all"}
    assert judge(("small", "red", "circle", 0.25, 0.0), ("medium", "blue", "square", -0.22, 0.05)) == right - {
        "relation", "all"}  # fmt: skip
    assert judge(("small", "red", "ring", -0.25, 0.0), SQUARE) == right - {"shape", "all"}


def test_the_offset_goes_from_the_first_thing_to_the_second():
    read = lambda *things: stills.read(stills.pictures([still(*things)])[0])  # noqa: E731
    assert stills.offset(read(SQUARE, CIRCLE), PROMPT) == pytest.approx((0.47, 0.05), abs=0.03)
    under, over = (("medium", "blue", "square", -0.25, y) for y in (0.25, -0.3))
    assert stills.offset(read(CIRCLE, under), PROMPT) == pytest.approx((0.0, 0.25), abs=0.03)
    above = PROMPT.replace("left of", "above")
    assert "relation" in judge(CIRCLE, under, text=above) and "relation" not in judge(CIRCLE, over, text=above)
    assert stills.offset(read(CIRCLE), PROMPT) is None
    assert stills.offset(read(CIRCLE, ("small", "red", "ring", 0.25, 0.25)), PROMPT) is None


def test_swapped_attributes_are_errors_of_binding():
    swapped = judge(("small", "blue", "circle", -0.25, 0.0), ("medium", "red", "square", 0.22, 0.05))
    assert "binding" in swapped and "all" not in swapped
    other = judge(("small", "green", "circle", -0.25, 0.0), ("medium", "red", "square", 0.22, 0.05))
    assert "binding" not in other  # a colour that nobody asked for is another error
    assert "binding" not in judge(CIRCLE, text="a small red circle")


def test_what_is_unsaid_is_right():
    assert "all" in judge(CIRCLE, text="a red circle") and "all" in judge(CIRCLE, text="a circle")
    assert "all" not in judge(CIRCLE, text="a blue circle")


def test_the_judge_reads_true_pictures():
    for things in (1, 2):
        assert stills.true_scores("test", things, 60)["all"] >= 0.98


def test_spread():
    same = stills.pictures([still(CIRCLE)] * 3)
    assert stills.spread(same) < 1e-6
    apart = stills.pictures([still(("small", "red", "circle", x, 0.0)) for x in (-0.2, 0.2)])
    assert stills.spread(apart) == pytest.approx(0.2 * 2**0.5, abs=0.03)  # of two, by one
    assert stills.spread(torch.cat([apart] * 50)) == pytest.approx(0.2, abs=0.02)


def test_distance_of_known_gaussians():
    """Means 3 apart: 9; deviations 1 and 2 in each of two directions: 2 (2 - 1)^2."""
    x = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert gaussian_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert gaussian_distance(x, x + torch.tensor([3.0, 0.0])) == pytest.approx(9)
    assert gaussian_distance(x, 2 * x) == pytest.approx(2, rel=0.02)


def test_psnr_is_the_mean_over_pictures():
    off = torch.tensor([0.2, 0.02])[:, None, None, None].expand(2, 3, 4, 4)
    assert scores.psnr(torch.zeros(2, 3, 4, 4), off) == 30.0  # 20 dB and 40


def test_copies_are_read_as_their_own_prompts_say():
    def stage(decode):
        return SimpleNamespace(encode=lambda x: x, decode=decode)

    found = scores.measure_first_stage(stage(lambda z: z), 5)
    assert found == {"psnr": float("inf"), "read_right": 1.0, "read_right_true": 1.0}
    black = scores.measure_first_stage(stage(lambda z: -torch.ones_like(z)), 5)
    assert black["read_right"] == 0 and black["read_right_true"] == 1 and 5 < black["psnr"] < 30


class Truth:
    """A painter that has what was asked for; of two things it forgets one where it is `forgetful`."""

    def __init__(self, forgetful=False):
        self.forgetful, self.seeds = forgetful, []
        scenes = [scene for split in ("test", "held_out") for n in (1, 2) for scene in stills.prompts(split, n, 4)[1]]
        self.scenes = {stills.caption(scene): scene for scene in scenes}

    def paint(self, texts, seed, **options):
        self.seeds.append((len(texts), seed))
        scenes = [self.scenes[text] for text in texts]
        return stills.pictures([replace(s, objects=s.objects[:1]) if self.forgetful else s for s in scenes])


def test_a_painter_is_judged_by_what_was_asked_on_both_splits():
    found = scores.measure(Truth(), 4)
    assert list(found) == ["test, 1", "test, 2", "held_out, 1", "held_out, 2"]
    assert all(row["pictures"] == 4 and row["all"] == 1 for row in found.values())
    half = scores.measure(Truth(forgetful=True), 4)
    assert [half[row]["all"] for row in half] == [1, 0, 1, 0]
    painter = Truth()
    assert scores.quality(painter, 4) == {"read_right": 1.0, "distance": pytest.approx(0, abs=1e-3)}
    scores.painted(painter, stills.prompts("test", 1, 4)[0], seed=7, chunk=3)
    assert painter.seeds == [(4, 60_000), (3, 7), (1, 10)]  # a picture's noise is not another's


def test_digits_are_read_as_they_were_asked_for(monkeypatch, tmp_path):
    """Digits that are their number in grey, written rightly with guidance, and one too high without."""
    def grey(labels):
        return labels.float()[:, None, None, None].expand(-1, 1, 28, 28) / 10

    def written(painter, ids, guidance):
        return as_pictures(grey((ids[:, 0] - (1 if guidance == 3 else 0)) % 10))

    labels = torch.tensor([7, 2, 1, 0])
    monkeypatch.setattr(digits.mnist, "load", lambda *_: (grey(labels), labels))
    monkeypatch.setattr(digits, "digit_models", lambda *_: (None, None, None))
    monkeypatch.setattr(digits, "copies", lambda first, pictures: pictures.roll(1, 0))
    monkeypatch.setattr(digits, "write_digits", written)
    monkeypatch.setattr(digits, "accuracy", lambda reader, shown, wanted: (
        (10 * shown[:, 0, 14, 14]).round().long() == wanted).float().mean().item())  # fmt: skip
    found = digits.mnist_digits(tmp_path, count=4)
    assert found == {"true": 1.0, "copies": 0.0, "guidance 1": 0.0, "guidance 3": 1.0}


# --------------------------------------------------------------------------------------------------------- experiments


def test_a_step_of_the_trade_off_costs_the_same_for_every_f():
    from soralab.training.data import model_flops

    flops = {}
    for f, channels in trade_off.LATENT.items():
        with torch.device("meta"):
            config = replace(recipe.CONFIG, unet=replace(trade_off.TRADE_UNET, channels=channels, out=channels))
            model, n = LatentDiffusion(config), trade_off.TRADE_BATCH[f]
            z, ids = torch.empty(n, channels, 32 // f, 32 // f), torch.zeros(n, config.words, dtype=torch.long)
            flops[f] = model_flops(model, z, torch.empty(n), ids)
    assert max(flops.values()) / min(flops.values()) < 1.5, flops


def test_latents_are_samples_and_drawn_once():
    """Of q(z | x), which is what the paper trains on: not its mean, and the same at every call."""
    torch.manual_seed(0)
    model, pictures = Autoencoder(FIRST).eval(), torch.rand(6, 3, 16, 16) * 2 - 1
    z = recipe.encoded(model, pictures)
    torch.manual_seed(1)
    assert torch.equal(recipe.encoded(model, pictures, chunk=6), z) and z.dtype == torch.float16
    with torch.no_grad():
        mean, logvar = model.posterior(pictures)
    off = (z.float() / model.scale - mean) / torch.exp(0.5 * logvar)
    assert off.std().item() == pytest.approx(1, rel=0.1) and abs(off.mean().item()) < 0.15
    assert recipe.encoded(None, pictures) is pictures


def test_holes_lie_on_the_grid_of_the_latents():
    masks = conditions.holes(30, 32, seed=1)
    small = torch.nn.functional.avg_pool2d(masks, 4)
    assert set(small.flatten().tolist()) == {0.0, 1.0} and torch.equal(masks, conditions.holes(30, 32, seed=1))
    assert 0.08 < 1 - masks.mean() < 0.4 and (masks == 0).flatten(1).any(1).all()


def test_conditions_have_the_size_of_the_latents():
    first, pictures = Autoencoder(FIRST).eval(), stills.pictures([still(CIRCLE)] * 2)
    over, given = conditions.condition("inpainting", first, pictures, seed=0)
    assert over.shape == (2, 5, 8, 8) and torch.equal(given, pictures * conditions.holes(2, 32, 0))
    over, given = conditions.condition("super-resolution", first, pictures, seed=0)
    assert over.shape == (2, 3, 8, 8) and given.shape == pictures.shape
    with pytest.raises(ValueError, match="task is 'colouring'; it takes one of inpainting, super-resolution"):
        conditions.condition("colouring", first, pictures, seed=0)


def test_what_is_completed_is_told_what_lies_over_it_and_nothing_else():
    """A network that answers with what it is shown, beside a noise that is the seed's."""
    asked = []

    def model(z, t, ids, concat):
        asked.append((z, ids))
        return concat[:, :2]

    model.config = SimpleNamespace(unet=SimpleNamespace(out=2))
    painter = SimpleNamespace(model=model, sample=lambda network, z, steps: network(z, torch.zeros(len(z))),
                              autoencoder=SimpleNamespace(decode=lambda z: 2 * z))  # fmt: skip
    over = torch.linspace(-1, 1, 3 * 3 * 4 * 4).reshape(3, 3, 4, 4)
    assert torch.equal(conditions.complete(painter, over), (2 * over[:, :2]).clamp(-1, 1))
    conditions.complete(painter, over, seed=1)
    assert not asked[0][1].any() and not torch.equal(asked[0][0], asked[-1][0])


def test_tasks_are_judged_on_holes_that_training_never_saw(monkeypatch, tmp_path):
    """Of one task all is given and nothing made, of the other the reverse."""
    asked, black = [], -torch.ones(4, 3, 32, 32)

    def condition(task, first, pictures, seed):
        asked.append((task, len(pictures), seed))
        return pictures, pictures if task == "inpainting" else black

    monkeypatch.setattr(conditions, "condition", condition)
    monkeypatch.setattr(conditions, "complete", lambda _, over: black if asked[-1][0] == "inpainting" else over)
    monkeypatch.setattr(conditions, "copies", lambda first, pictures: pictures)
    monkeypatch.setattr(conditions, "encoded", lambda first, pictures: pictures)
    monkeypatch.setattr(conditions, "LatentBatches", lambda *_: None)
    monkeypatch.setattr(conditions, "fit_second_stage", lambda *_: (torch.nn.Identity(), None))
    first = SimpleNamespace(config=SimpleNamespace(latent=4))
    found = conditions.concatenation(tmp_path, (None, torch.zeros(9, 3, 32, 32)), first, steps=1, count=4)
    assert found == {"inpainting": {"given": 1, "made": 0, "copies": 1},
                     "super-resolution": {"given": 0, "made": 1, "copies": 1}}  # fmt: skip
    assert asked == [(task, n, seed) for task in conditions.TASKS for n, seed in ((9, 0), (4, 1))]


def test_digits_and_pictures():
    digits = torch.rand(3, 1, 28, 28)
    shown = as_pictures(digits)
    assert shown.shape == (3, 3, 32, 32) and (shown[:, :, 0] == -1).all()
    torch.testing.assert_close(as_digits(shown), digits)


def test_digits_are_painted_by_their_number():
    torch.manual_seed(0)
    model = LatentDiffusion(replace(TINY, vocabulary=11, words=1))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    painter = Painter(model, Autoencoder(FIRST))
    ids = torch.tensor([[1], [2]])
    shown = write_digits(painter, ids, steps=2)
    other = write_digits(painter, ids.flip(0), steps=2)
    assert shown.shape == (2, 3, 32, 32) and not torch.allclose(shown, other)


# ----------------------------------------------------------------------------------------------- where two things stand


def test_standing_of_true_pictures_and_of_pictures_that_are_turned():
    texts, scenes = stills.prompts("test", 2, 40, seed=3)
    shown = stills.pictures(scenes)
    right = relation.standing(shown, texts)
    assert relation.told(right).startswith(f"pictures {len(texts)}, both {right['both']}, ")
    beside = sum("left of" in text for text in texts)
    assert 0 < beside < 40
    assert right == {"pictures": 40, "both": 40, "axis": 40, "beside": beside, "order": 40, "all": 40}
    turned = relation.standing(shown.flip(-2, -1), texts)  # by half a turn, which moons notice
    assert 0 < turned["both"] == turned["axis"] and turned["order"] == turned["all"] == 0
    none = relation.standing(torch.zeros(2, 3, 32, 32), texts[:2])
    assert none == {"pictures": 2, "both": 0, "axis": 0, "beside": 0, "order": 0, "all": 0}


def test_each_half_follows_its_own_thing_until_the_whole_prompt_takes_over():
    """A network that says which prompt it was given: the picture of noise that guidance makes of that is known."""
    model = LatentDiffusion(TINY).eval()
    painter = Painter(model, None, side=8)
    texts = ["a small red circle is left of a medium blue square", "a small red ring is above a small blue moon"]
    asked = []
    said, begun = [], []

    def which_prompt(z, t, ids):
        begun.extend(z.clone() if t[0] == 1 and not ids.any() else ())
        asked.append((t[0].item(), ids))
        return ids.sum(1)[:, None, None, None].float().expand_as(z)

    model.forward = which_prompt

    def guided(none, each, where, scale):
        said.append((none, each, where, scale))
        return relation.arrows(none, each, where, scale)

    relation.by_halves(painter, texts, guided, steps=5, seed=7)
    (none, each, where, scale), (_, below, rows, _) = said[0], said[3]
    first, second = (word_ids([text], TINY.words).sum() for text in ("a small red circle", "a medium blue square"))
    assert len(said) == 6 and scale == 3.0  # t = 1, 0.8 and 0.6 of five steps, for each axis
    assert torch.equal(torch.stack(begun), noise(7, 2, (4, 8, 8)))  # picture k from the noise of seed + k
    assert none.unique().tolist() == [0] and each[0].unique() == first and each[1].unique() == second
    assert where[0, :, :4].all() and not where[0, :, 4:].any() and torch.equal(where[1], 1 - where[0])
    assert torch.equal(rows, where.mT) and below[0].unique() == word_ids(["a small red ring"], TINY.words).sum()
    whole = [ids for t, ids in asked if t < 0.6 and ids.any()]
    assert [ids.tolist() for ids in whole[::2]] == [word_ids([text], TINY.words).tolist() for text in texts]


@pytest.mark.parametrize("seed", range(3))
def test_arrows_are_guidance_where_one_prompt_speaks(seed):
    generator = torch.Generator().manual_seed(seed)
    none, said = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 2, 3, 4, 5, generator=generator)
    where = torch.zeros(2, 4, 5)
    where[0, :, :2] = where[1, 1] = 1
    got = relation.arrows(none, said, where, 2.5)
    first, second = (none + 2.5 * (each - none) for each in said)
    torch.testing.assert_close(got[..., 0, :2], first[..., 0, :2])
    torch.testing.assert_close(got[..., 1, 2:], second[..., 1, 2:])
    torch.testing.assert_close(got[..., 1, :2], first[..., 1, :2] + second[..., 1, :2] - none[..., 1, :2])
    torch.testing.assert_close(got[..., 2:, 2:], none[..., 2:, 2:])


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The recipe with models of test size, and folders of its own; its batches and losses are the real ones."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path / "none"))
    torch.manual_seed(0)
    seeing = ViT(ViTConfig(dim=16, depth=2, heads=2, classes=5)).eval()
    monkeypatch.setattr(recipe.chapter_03, "load", lambda name="vit": seeing)
    monkeypatch.setattr(recipe, "AUTOENCODER", FIRST)
    monkeypatch.setattr(recipe, "CONFIG", TINY)
    monkeypatch.setattr(recipe, "BATCH", 8)
    return tmp_path / "checkpoints"


def test_perceptual_features_are_maps_of_patches(small):
    features = recipe.perceptual_features()
    seen = features(stills.pictures([still(CIRCLE), still(SQUARE)]))
    assert [value.shape for value in seen] == [(2, 16, 8, 8)] * 2
    pixels = torch.zeros(1, 3, 32, 32, requires_grad=True)
    sum(value.square().sum() for value in features(pixels)).backward()
    assert pixels.grad.abs().sum() > 0


def test_train_the_autoencoder_then_paint(small, monkeypatch, capsys):
    """The way in which the shipped ones are made, in small: the first one's checkpoint is the second one's tool."""
    monkeypatch.setattr(experiments, "experiments", lambda folder, painter: {"done": 1})
    for name in ("latent_autoencoder", "latent_diffusion"):
        assert main(["train", name, "--folder", str(small)]) == 0
        card = json.loads((small / f"{name}.json").read_text(encoding="utf-8"))
        assert card["steps"] == 2 and card["command"] == f"soralab train {name}" and card["data_seed"] == 6
        assert f"saved {small / name}.safetensors" in capsys.readouterr().out
    first = load_autoencoder()
    assert first.config == FIRST and first.scale != 1
    scores = card["metrics"]["scores"]
    assert set(scores) == {"test, 1", "test, 2", "held_out, 1", "held_out, 2"} and card["metrics"]["done"] == 1
    assert Painter.load().paint([PROMPT], steps=2).shape == (1, 3, 32, 32)


def test_the_adversary_joins_half_way():
    pictures = stills.pictures([still(CIRCLE)] * 20)
    batches = recipe.PictureBatches(pictures, start=recipe.ADVERSARY_FROM * 10, batch=4)
    assert [batches(k)["adversary"] for k in range(10)] == [False] * 5 + [True] * 5
    assert not recipe.PictureBatches(pictures)(10**6)["adversary"]


def test_latent_batches_hold_each_picture_once_an_epoch():
    latents = torch.arange(12.0).reshape(12, 1, 1, 1)
    batches = recipe.LatentBatches(latents, lambda k, rng: torch.tensor([k]), concat=latents + 100, batch=4)
    seen = torch.cat([batches(k)["ids"][:, 0] for k in range(3)])
    assert sorted(seen.tolist()) == list(range(12))
    batch = batches(1)
    assert torch.equal(batch["z"].flatten(), batch["ids"][:, 0].float())
    assert torch.equal(batch["concat"], batch["z"] + 100) and torch.equal(batches(1)["ids"], batch["ids"])
    again = torch.cat([batches(3 + k)["ids"][:, 0] for k in range(3)])
    assert sorted(again.tolist()) == sorted(seen.tolist()) and again.tolist() != seen.tolist()


def test_every_experiment_runs_and_fills_its_table(small, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(trade_off, "TRADE_BATCH", {1: 2, 2: 2, 4: 4, 8: 4})
    painter = Painter(LatentDiffusion(TINY), Autoencoder(FIRST).eval())
    for module in (trade_off, conditions):
        monkeypatch.setattr(module, "CONFIG", TINY)
    monkeypatch.setattr(trade_off, "TRADE_UNET", replace(TINY.unet, multipliers=(1, 2, 2)))
    table = experiments.experiments(tmp_path / "experiments", painter)
    assert list(table["trade-off"]) == ["1", "2", "4", "8"] and "psnr" not in table["trade-off"]["1"]
    assert list(table["guidance"]) == ["true", "1", "3"] and table["guidance"]["true"]["spread"] > 0
    assert {name: list(row) for name, row in table["samplers"].items()} == {
        "ddpm": ["2"], "ddim": ["2"], "heun": ["1"], "dpm_solver_pp": ["2"]}  # fmt: skip
    assert list(table["relation"]) == ["from the prompt", "by halves"]
    for row in table["relation"].values():
        assert row["pictures"] == 4 >= row["both"] >= max(row["axis"], row["beside"])
    assert list(table["floor"]) == ["3", "4"] and all(0 < low <= high for low, high in table["floor"].values())
    assert list(table["concatenation"]) == list(conditions.TASKS) and table["mnist"] is None
    assert list(table["regularisation"]) == ["KL", "VQ"]
    assert table["regularisation"]["KL"] == table["trade-off"]["4"]  # the same two networks
    json.dumps(table, allow_nan=False)
