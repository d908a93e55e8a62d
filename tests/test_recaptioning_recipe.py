"""How chapter 12's models are trained, and how captions and pictures are judged."""

import json
import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch
from tiny_models import numbers

from soralab import world
from soralab.clip import MOST_SCALE
from soralab.datasets import recaptions, stills
from soralab.diffusion import diffusion_loss
from soralab.experiments import recaptioning as experiment
from soralab.experiments import recaptioning_painters as painters
from soralab.experiments import recaptioning_relation as relation
from soralab.experiments import recaptioning_scores as scores
from soralab.files.checkpoints import SHIPPED
from soralab.latent_diffusion import PROCESS, LatentDiffusion, LatentDiffusionConfig, Painter, UNetConfig, word_ids
from soralab.recaptioning import TOKENS, Captioner, CaptionerConfig, caption_loss, to_ids
from soralab.recipes import recaptioning as recipe
from soralab.recipes.clip import load as load_clip
from soralab.training.profiles import by_profile
from soralab.world.claims import keeps
from soralab.world.language import PROMPT_WORDS, VOCABULARY, words
from soralab.world.reader import read_caption

assert "clip" in SHIPPED and by_profile(smoke=True, laptop=False, gpu=False)
SIZES = {"N": 1, "d_model": 16, "d_ff": 24, "h": 2, "d_k": 8, "d_v": 8}


@pytest.fixture(scope="module")
def clip():
    return load_clip()


def small(clip):
    """A tiny captioner on the shipped tower."""
    torch.manual_seed(0)
    return Captioner(CaptionerConfig(**SIZES, clip=clip[0].config))


def painter(**changes):
    """A tiny painter in pixels, 8 x 8, with random weights."""
    torch.manual_seed(1)
    config = LatentDiffusionConfig(UNetConfig(3, 3, 16, (1,), 1, (0,), 2, context=16, groups=8), len(VOCABULARY) + 1)
    model = LatentDiffusion(replace(config, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return Painter(model.eval(), None, 8)


# ------------------------------------------------------------------------------------------------------- the captioner


def test_a_fresh_captioner_sees_as_chapter_04_does(clip):
    model, pixels = recipe.fresh(), numbers(2, 3, 32, 32)
    with torch.no_grad():
        fine = clip[0].image.states(pixels)[-2]
        torch.testing.assert_close(model.see(pixels)[..., :256], fine.flatten(2).transpose(1, 2))
        torch.testing.assert_close(recipe.fresh(places=False).see(pixels)[:, 0], clip[0].image(pixels))


def test_every_weight_is_in_one_group_and_the_tower_learns_slowly(clip):
    model = small(clip)
    rest, seeing = recipe.groups(model)
    assert seeing["scale"] == recipe.TOWER < 1 and "scale" not in rest
    assert {id(p) for p in seeing["params"]} == {id(p) for p in model.tower.parameters()}
    joint = recipe.CoCa(model, clip[0].__class__(clip[0].config))
    for found in (recipe.groups(model), recipe.groups(joint)):
        ids = [id(p) for group in found for p in group["params"]]
        assert len(ids) == len(set(ids))
    assert len(ids) == len(list(joint.parameters()))
    assert len(recipe.groups(torch.nn.Linear(2, 2))) == 1


def test_the_base_learns_by_both_losses(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "fresh", lambda: small(clip))
    training = replace(recipe.BASE_TRAINING, steps=3, warmup=1, log_every=1)
    monkeypatch.setattr(recipe, "BATCH", 6)
    model, result = recipe.base(training, tmp_path)
    rows = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert all(row["loss"] == pytest.approx(row["contrastive"] + 2 * row["captioning"], rel=1e-5) for row in rows)
    assert rows[0]["captioning"] == pytest.approx(math.log(len(TOKENS)), rel=0.3) and not model.training
    assert all(torch.equal(p, result.ema.shadow[f"captioner.{name}"]) for name, p in model.named_parameters())


def test_a_step_of_the_base_clips_the_scale_first(clip):
    """As CLIP's own training does (2103.00020, section 2.5): exp(t) is at most 100."""
    joint = recipe.CoCa(small(clip), clip[0].__class__(clip[0].config))
    joint.clip.t.data.fill_(7.0)
    batch = {"film": numbers(2, 1, 3, 32, 32), "target": to_ids(["a red circle", "a"])}
    ids = torch.full((2, 3), joint.clip.text.end)
    recipe.joint_loss(joint, batch | {"ids": ids}, torch.Generator())
    assert joint.clip.scale.item() == pytest.approx(MOST_SCALE, rel=1e-5)


def test_two_voices_are_tuned_from_one_base(clip, tmp_path, monkeypatch):
    """Each from the base, which stays as it is; and they learn what they are told."""
    monkeypatch.setattr(recipe, "BATCH", 16)
    start = small(clip)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    training = replace(recipe.TRAINING, steps=25, warmup=5, lr=5e-3, ema=0.5)
    said = {}
    for say in (recaptions.short, recaptions.descriptive):
        model, _ = recipe.tuned(start, say, training, tmp_path / say.__name__)
        scenes = [stills.mixed(1, k, "test") for k in range(8)]
        with torch.no_grad():
            said[say] = [caption_loss(model, recaptions.pictures(scenes), to_ids([s(x) for x in scenes])).item()
                         for s in (recaptions.short, recaptions.descriptive)]  # fmt: skip
    assert said[recaptions.short][0] < 0.8 * said[recaptions.descriptive][0]
    assert said[recaptions.descriptive][1] < 0.8 * said[recaptions.short][1]
    assert all(torch.equal(value, before[key]) for key, value in start.state_dict().items())


def test_the_short_run_describes_pictures(tmp_path):
    log = recipe.short_run(1, steps=10, folder=tmp_path)
    assert log["loss"][0] == pytest.approx(math.log(len(TOKENS)), rel=0.3) and log["loss"][-1] < log["loss"][0]
    assert len(log["samples"]) >= 3 and log["samples"]["truth"][0].endswith("background")
    assert {"held", "pairing", "lag", "way", "still"} <= set(log)


# -------------------------------------------------------------------------------------------------------- the expander


def test_prompts_and_what_they_are_in_full():
    batch = recipe.Prompts(8, 3)(2)
    again = recipe.Prompts(8, 3)(2)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    for k in range(8):
        short, longer = (" ".join(TOKENS[id] for id in ids[k].tolist() if id > 2) for ids in batch.values())
        assert keeps(short, longer) and longer == recaptions.descriptive(stills.mixed(3, 16 + k))
    assert not (batch["source"] == 2).any() and (batch["target"] == 2).sum() == 8


# --------------------------------------------------------------------------------------------------------- the painter


def test_a_forgetful_painter_paints_on_and_has_lost_its_words():
    start = painter()
    model = recipe.forgetful(start)
    mine, theirs = dict(model.named_parameters()), dict(start.model.named_parameters())
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]) == name.startswith("unet."), name
    assert model.config == start.model.config


def test_a_pictures_two_texts_are_blended_and_sometimes_there_is_none():
    truth, ours = ["photo of a moon"] * 3, ["a red moon", "a blue moon", "a small cyan moon"]
    prompt = recipe.named(truth, ours, 0.8, 6, seed=1)
    rng = Random(2)
    drawn = Counter(tuple(prompt(2, rng).tolist()) for _ in range(4000))
    kinds = {tuple(recipe.prompt_ids([text], 6)[0].tolist()): share
             for text, share in (("", 0.1), (truth[2], 0.18), (ours[2], 0.72))}  # fmt: skip
    assert set(drawn) == set(kinds)
    for ids, share in kinds.items():
        assert drawn[ids] / 4000 == pytest.approx(share, abs=0.025)
    other = recipe.named(truth, ours, 0.8, 6, seed=2)
    first = [tuple(p(0, Random(7)).tolist()) for p in (prompt, other)]
    assert len({tuple(tuple(p(0, Random(k)).tolist()) for k in range(30)) for p in (prompt, other)}) == 2, first


def test_long_captions_are_cut_and_counted():
    long = "a small red circle is left of a small blue square"
    assert recipe.prompt_ids([long], 4).tolist() == recipe.prompt_ids(["a small red circle"], 4).tolist()
    assert recipe.too_long([long, "a moon"], 4) == 1 and recipe.too_long([long], 11) == 0
    assert torch.equal(recipe.prompt_ids(["a red ring"], 5), word_ids(["a red ring"], 5))


def test_the_painters_loss_is_that_of_v():
    """For one time and noise: the error of eps over alpha^2, held from 0.05."""
    model, batch = painter().model, {"z": numbers(2, 3, 8, 8), "ids": word_ids(["a red ring", "a moon"], 24)}
    with torch.no_grad():
        found = recipe.painter_loss(model, batch, torch.Generator().manual_seed(3))
        rng = torch.Generator().manual_seed(3)
        t = torch.rand(2, generator=rng)
        eps = torch.randn(batch["z"].shape, generator=rng)
        noisy = PROCESS.add_noise(batch["z"], eps, t)
        error = (model(noisy, t, batch["ids"]) - eps).square().flatten(1).mean(1)
        want = (error / PROCESS.alpha(t).clamp(min=0.05) ** 2).mean()
    torch.testing.assert_close(found, want)
    plain = diffusion_loss(PROCESS, model, batch["z"], "eps", t=t, eps=eps, condition={"ids": batch["ids"]}).mean()
    assert found > 1.05 * plain


def test_a_library_has_one_thing_and_two_by_turns():
    scenes, shown = recipe.library(6)
    assert [len(scene.objects) for scene in scenes] == [1, 2] * 3 and shown.shape == (6, 3, 32, 32)
    texts = recipe.web_texts(scenes)
    assert texts == recipe.web_texts(scenes) and len(set(texts)) > 3


# -------------------------------------------------------------------------------------------------------------- scores


def oracle(scenes):
    """A writer that knows the scenes, and says them in order."""
    return lambda shown: [recaptions.descriptive(scene) for scene in scenes[: len(shown)]]


def test_an_oracles_captions_have_every_score_and_the_webs_have_not(monkeypatch):
    scenes = scores.unseen("test", 2, 30)
    row = scores.claims(oracle(scenes)(scenes), scenes)
    assert row["precision"] == row["recall"] == 1 and row["places"]["right"] == row["places"]["told"] > 30
    web = scores.of_the_web(60)
    assert all(row["precision"] < 0.97 and row["recall"] < 0.6 for row in web.values()) and len(web) == 4
    off = [recaptions.descriptive(scene) for scene in scenes[1:] + scenes[:1]]
    assert scores.claims(off, scenes)["precision"] < 0.6
    films = scores.unseen_films("held_out", 8)
    row = scores.claims([recaptions.described_film(s) for s in films], films, film=True)
    assert row["precision"] == row["recall"] == 1 and row["places"] is None
    held = scores.unseen("held_out", 1, 10)
    assert all(world.held_out(s.objects[0].shape, s.objects[0].colour) for s in held)


def test_captions_are_judged_by_the_pictures_and_films_that_they_are_of():
    """Whoever knows each picture has every score on every row; whoever tells of the next one has not."""
    pictures = [scene for split in ("test", "held_out") for n in (1, 2) for scene in scores.unseen(split, n, 4)]
    films = [scene for split in ("test", "held_out") for scene in scores.unseen_films(split, 3)]

    def writer(scenes, draw, tell, off=0):
        known = [bytes(shown.numpy()) for shown in draw(scenes)]
        return lambda shown: [tell(scenes[(known.index(bytes(one.numpy())) + off) % len(known)]) for one in shown]

    for found, rows, tell in (
        (scores.of_pictures, (4, pictures, stills.pictures), recaptions.descriptive),
        (scores.of_films, (3, films, recaptions.films), recaptions.described_film),
    ):
        count, scenes, draw = rows
        right, off = (found(writer(scenes, draw, tell, k), count) for k in (0, 1))
        assert len(right) == len(scenes) // count
        assert all(row["precision"] == row["recall"] == 1 and row["texts"] == count for row in right.values())
        assert all(row["precision"] < 1 for row in off.values())


@pytest.mark.parametrize("where, x, y, right", [
    ("up on the left", -0.3, -0.3, True), ("up on the left", -0.3, 0.0, False), ("up", 0.0, -0.3, True),
    ("up", 0.3, -0.3, False), ("on the right", 0.3, 0.0, True), ("on the right", -0.3, 0.0, False),
    ("down", 0.0, 0.3, True), ("down", 0.0, -0.3, False),
    ("on the right", 1 / 6 - 0.02, 0.0, True), ("on the right", 1 / 6 - 0.05, 0.0, False),  # a pixel is 0.031
])  # fmt: skip
def test_places_have_a_pixels_slack(where, x, y, right):
    assert scores.in_place(where, x, y) is right


def test_prompts_are_taken_at_their_word():
    for kind in scores.KINDS:
        for things in (1, 2):
            asked, scenes = scores.prompts(kind, things, 12)
            assert len(asked) == len(scenes) == 12 and all(len(scene.objects) == things for scene in scenes)
            assert all(set(words(text)) <= set(PROMPT_WORDS) and read_caption(text) for text in asked)
    word_ids(asked, 24)


def test_true_pictures_have_every_mark():
    asked, scenes = scores.prompts("descriptive", 2, 12)
    shown = stills.pictures(scenes)
    assert set(scores.marks(shown, asked).values()) == {1.0}
    off = scores.marks(shown.roll(1, 0), asked)
    assert off["shows"] < 0.3 and off["placed"] < 0.3
    # of a short prompt more may be shown; the strict column counts it
    short = scores.marks(shown, [recaptions.short(scene) for scene in scenes])
    assert short["shows"] == 1 and short["count"] == short["all"] == 0
    turned = [recaptions.descriptive(relation.turned(scene, "order")) for scene in scenes]
    found = scores.marks(shown, turned)
    assert found["relation"] == 0 and found["placed"] < 0.2 and found["colour"] == 1


def test_clip_gives_true_pictures_more_than_others():
    scenes = scores.unseen("test", 1, 8)
    shown = stills.pictures(scenes)
    assert scores.clip_score(shown, scenes) > scores.clip_score(shown.roll(1, 0), scenes) + 10


# ------------------------------------------------------------------------------------------------- arms and expansion


class Tells(Painter):
    """A painter that paints the truth of its prompts when they tell all, and nothing otherwise."""

    def __init__(self, scenes):
        self.scenes, self.asked = {recaptions.descriptive(scene): scene for scene in scenes}, []

    def paint(self, prompts, seed=0, **options):
        self.asked += prompts
        blank = -torch.ones(3, 32, 32)
        return torch.stack([stills.pictures([self.scenes[p]])[0] if p in self.scenes else blank for p in prompts])


def test_longer_prompts_are_judged_by_what_was_asked():
    table = {}
    scenes = {things: scores.unseen("test", things, 5) for things in (1, 2)}
    known = [scene for several in scenes.values() for scene in several]
    full = {stills.caption(scene): recaptions.descriptive(scene) for scene in known}
    table = painters.expansion({"tells": Tells(known)}, lambda asked: [full[text] for text in asked], 5)["tells"]
    assert table["1"]["on"]["all"] == table["2"]["on"]["all"] == 1 and table["2"]["off"]["all"] == 0
    assert set(table) == {"1", "2"} and set(table["1"]) == {"off", "on"}


def test_what_a_draw_keeps_is_counted():
    class Draws:
        def __init__(self):
            self.texts = [["a small red circle", "a blue moon"], ["a large red circle", "a blue moon"]]

        def draw(self, asked, generator):
            return self.texts.pop(0)

    found = painters.lengthened(Draws(), ["a red circle", "a red moon"])
    assert found["kept"] == 0.5 and found["various"] == 0.5 and found["placed"] == 0 and found["prompts"] == 2
    assert found["examples"][0] == ["a red circle", "a small red circle", "a large red circle"]


def test_arms_differ_in_captions_alone_and_are_kept(tmp_path, monkeypatch):
    start = painter()
    texts = {"short": ["a red ring"] * 8, "descriptive": ["a small red ring"] * 8}
    shelf = painters.Shelf(start, numbers(8, 3, 8, 8), ["ring"] * 8, texts)
    seen = []

    def fit(model, training, batches, folder):
        batch = batches(0)
        seen.append((training.seed, float(model.text.token_embedding.weight.detach().sum()), batch["z"], batch["ids"]))
        return type("Result", (), {"seconds": 1.0})

    monkeypatch.setattr(painters, "fit_painter", fit)
    monkeypatch.setattr(painters, "scores", lambda painter, count: {"web, 1": {"shows": count / 100}})
    table = painters.arms(shelf, tmp_path, (1, 2), count=50)
    assert list(table) == list(painters.ARMS) and all(len(rows) == 2 for rows in table.values())
    assert len(seen) == 12 and len({start for _, start, _, _ in seen[:6]}) == 1 and seen[0][1] != seen[6][1]
    assert all(torch.equal(seen[0][2], z) for _, _, z, _ in seen[1:6])
    lengths = [sorted(set((ids > 0).sum(1).tolist())) for _, _, _, ids in seen[:6]]
    assert lengths[0] in ([0, 1], [1]) and max(lengths[1]) == 3 and all(max(row) == 4 for row in lengths[2:])
    assert painters.arms(shelf, tmp_path, (1, 2), count=50) == table and len(seen) == 12  # measured once
    assert painters.summary(table["alt texts"], "web, 1", "shows") == (0.5, 0.0)


def test_the_pictures_of_the_page_are_read_as_they_were_painted(tmp_path, monkeypatch):
    shown, heard = dict(zip(painters.SHOWN, numbers(3, 6, 3, 8, 8), strict=True)), []

    def painted(name, asked, **walk):
        heard.append(asked)
        return shown[name]

    monkeypatch.setattr(painters, "taught", lambda shelf, name, seed, folder: (name, 0.0))
    monkeypatch.setattr(painters, "painted", painted)
    found = painters.examples(None, tmp_path)
    kinds = [scores.prompts(kind, things, 1)[0] for things in (1, 2) for kind in ("web", "short", "descriptive")]
    assert [[text] for text in found["asked"]] == kinds and heard == [found["asked"]] * 3
    read = painters.pictures_of(json.loads(json.dumps(found)))
    assert list(read) == list(painters.SHOWN) and set(painters.SHOWN) <= set(painters.ARMS)
    for name, pictures in read.items():
        assert (pictures - shown[name].clamp(-1, 1)).abs().max() < 1 / 127


def test_the_interval_over_seeds_is_students():
    rows = [{"scores": {"a": {"all": value}}} for value in (0.5, 0.6, 0.7)]
    middle, half = painters.summary(rows, "a", "all")
    assert middle == pytest.approx(0.6) and half == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)


# ----------------------------------------------------------------------------------------------------------- relations


def test_a_scene_told_otherwise():
    scene = stills.sample(1, 0, "test", 2)
    a, b = scene.objects
    order, axis, colours = (relation.turned(scene, how) for how in ("order", "axis", "colours"))
    kind, other = scene.relation.kind, "above" if scene.relation.kind == "left of" else "left of"
    plain = relation.plain
    assert plain(order).split(f" is {kind} ") == plain(scene).split(f" is {kind} ")[::-1]
    assert plain(axis) == plain(scene).replace(f"is {kind}", f"is {other}")
    assert [o.colour for o in colours.objects] == [b.colour, a.colour]
    assert sorted(words(plain(order))) == sorted(words(plain(scene))) == sorted(words(plain(colours)))
    assert recaptions.told_places(recaptions.descriptive(order)) == [recaptions.place(a), recaptions.place(b)]
    assert (axis.objects[0].x, axis.objects[0].y) == (a.y, a.x)


def test_who_hears_nothing_and_who_hears():
    deaf, hears = painter(), painter()
    with torch.no_grad():
        deaf.model.text.token_embedding.weight.zero_()
        deaf.model.text.positional_embedding.zero_()
        hears.model.text.token_embedding.weight.mul_(10)
        for name, p in hears.model.named_parameters():
            if "across" in name or "proj_out" in name:
                p.mul_(3)
    found = relation.heard(deaf, count=6, times=(0.5, 0.9))
    assert found["times"] == [0.5, 0.9] and found["order"] == found["axis"] == found["colours"] == [0.0, 0.0]
    found = relation.heard(hears, count=6, times=(0.5,))
    assert all(found[key] != [0.0] for key in ("order", "axis", "colours"))


def test_a_painters_ear_is_asked_with_places_and_without_and_it_is_scored_at_a_third(tmp_path, monkeypatch):
    one, asked = painter(), []
    monkeypatch.setattr(experiment, "short_captioner", lambda: (None, 0.0))
    writer = type("Writer", (), {"__init__": lambda *_: None, "load": lambda *_: None})
    monkeypatch.setattr(experiment, "Recaptioner", writer)
    monkeypatch.setattr(experiment.Painter, "load", lambda *_: one)
    monkeypatch.setattr(experiment, "Expander", type("Longer", (), {"load": lambda *_: None}))
    monkeypatch.setattr(experiment.relation, "heard", lambda painter, say, count: say)
    monkeypatch.setattr(experiment, "steps_of", lambda training, steps=None: training)
    monkeypatch.setattr(experiment, "scores", lambda painter, count: {"count": count})

    def taught(training, folder):
        asked.append(training.steps)
        return one.model, type("Result", (), {"steps": training.steps}), 0

    monkeypatch.setattr(experiment, "taught", taught)
    measures = experiment.painters(one, tmp_path, 100, {})
    ears, scene = measures["ears"](), stills.sample(1, 0, "test", 2)
    told = {name: say(scene) for name, say in ears.items()}
    assert any(recaptions.told_places(told["descriptions"])) and not any(recaptions.told_places(told["without places"]))
    assert all(scene.relation.kind in text for text in told.values())
    assert measures["sooner"]() == {"steps": 1500, "count": 200} and asked == [1500]


def test_each_row_changes_one_thing():
    plain = relation.ROWS["two things alone"]
    for name, row in relation.ROWS.items():
        differs = [key for key in vars(row) if getattr(row, key) != getattr(plain, key)]
        assert len(differs) == (0 if row == plain else 1), name


def test_changed_text_towers():
    start = painter()
    ids = word_ids(["a red ring is left of a moon", "a moon"], 24)
    copy = LatentDiffusion(start.model.config)

    def changed(**changes):
        copy.load_state_dict(start.model.state_dict())
        fresh = LatentDiffusion(start.model.config)
        fresh.load_state_dict(start.model.state_dict())
        return relation.changed(fresh, relation.Row(**changes)).text(ids)[0]

    with torch.no_grad():
        before = start.model.text(ids)[0]
        torch.testing.assert_close(changed(deeper=2), before)  # what is added begins as nothing
        assert (changed(loud=True) - before).abs().max() > 0.01
        both = changed(both_ways=True)
        assert (both[:, 0] - before[:, 0]).abs().max() > 1e-3  # the first word reads the later ones
        other = ids.clone()
        other[0, 7] = ids[0, 1]
        fresh = LatentDiffusion(start.model.config)
        fresh.load_state_dict(start.model.state_dict())
        text = relation.changed(fresh, relation.Row(both_ways=True)).text
        assert (text(other)[0][0, 0] - both[0, 0]).abs().max() > 1e-4
        assert torch.equal(start.model.text(other)[0][0, :6], before[0, :6])
        longer = torch.nn.functional.pad(ids, (0, 0))
        torch.testing.assert_close(text(longer)[0][1, :3], text(ids[1:, :])[0][0, :3])  # padding is not read
    assert len(relation.changed(fresh, relation.Row(deeper=2)).text.blocks) == start.model.config.depth + 2
