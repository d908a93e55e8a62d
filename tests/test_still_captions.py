"""Chapter 04's data and its recipe: what a frame's text says, which texts a batch holds, what is measured."""

import json
from itertools import islice
from pathlib import Path
from random import Random
from statistics import mean
from types import SimpleNamespace

import pytest
import torch

from soralab import world
from soralab.clip import CLIP, CLIPConfig
from soralab.datasets.still_captions import (
    CLASSES,
    PLACES,
    TEMPLATES,
    UNSEEN,
    Pairs,
    descriptive,
    frames,
    in_order,
    label,
    name_of,
    place,
    prompts,
    sample,
    share_of_twins,
    short,
    thing,
    to_pixels,
)
from soralab.experiments import clip_binding, clip_classifiers, clip_scores
from soralab.experiments import clip_trainings as experiments
from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.recipes import clip as recipe

ROOT = Path(__file__).resolve().parents[1]
SCENES = [sample(0, index) for index in range(60)]


@pytest.fixture(scope="module")
def words():
    return recipe.tokenizer()


@pytest.fixture(scope="module")
def tiny(words):
    torch.manual_seed(0)
    sizes = {"embed": 16, "layers": 1, "width": 16, "patch": 8, "text_width": 16, "text_layers": 1, "head": 8}
    return CLIP(CLIPConfig(vocabulary=len(words), **sizes))


# -------------------------------------------------------------------------------------------------- scenes and texts


def test_places_are_those_of_the_rendered_frame():
    """The middle frame's own truth, in pixels, cameras that pan included."""
    panning = 0
    for scene, truth in zip(SCENES, world.truth(SCENES, 2, 96, 96), strict=True):
        panning += scene.camera != "still"
        for number, obj in enumerate(scene.objects):
            x, y = truth["trajectory"][number][1]
            row, column = (min(2, max(0, int(value // 32))) for value in (y, x))
            assert place(scene, obj) == PLACES[3 * row + column]
    assert panning > 0


def test_a_descriptive_text_says_everything_and_nothing_about_motion():
    for scene in SCENES:
        text = descriptive(scene)
        for obj in scene.objects:
            assert f"{obj.size} {obj.colour} {obj.shape} {place(scene, obj)}" in text
        assert text.endswith(f" {scene.background} background")
        assert not any(obj.motion in text for obj in scene.objects)
    one = next(scene for scene in SCENES if len(scene.objects) == 1)
    assert descriptive(one).startswith("a ") and " and " not in descriptive(one)


def test_things_are_named_from_left_to_right():
    for scene in SCENES:
        at = [obj.pose(0.5)[0] for obj in in_order(scene)]
        assert at == sorted(at)
        found = [descriptive(scene).index(f"{obj.colour} {obj.shape}") for obj in in_order(scene)]
        assert found == sorted(found)


def test_short_texts_leave_things_out_and_say_nothing_wrong():
    rng, seen = Random(0), set()
    for scene in SCENES * 4:
        text = short(scene, rng)
        kinds = [t.split("{}") for t in TEMPLATES[1:] + TEMPLATES[:1]]
        seen.add(next(i for i, (a, b) in enumerate(kinds) if text.startswith(a) and text.endswith(b)))
        shapes = [word for word in text.replace(",", "").replace("!", "").split() if word in world.SHAPES]
        assert 1 <= len(shapes) <= len(scene.objects)
        assert set(shapes) <= {obj.shape for obj in scene.objects}
        colours = [word for word in text.replace(",", "").split() if word in world.COLOURS]
        assert set(colours) <= {obj.colour for obj in scene.objects}
        assert "  " not in text and "background" not in text
    assert len(seen) >= 6


def test_what_is_kept_from_training():
    for scene in SCENES:
        assert scene.background != UNSEEN and not scene.wall
        assert not any(world.held_out(obj.shape, obj.colour) for obj in scene.objects)
    for index in range(30):
        scene = sample(0, index, "held_out")
        assert any(world.held_out(obj.shape, obj.colour) for obj in scene.objects)  # one that a frame shows
        one = thing(0, index, "held_out", ("black", UNSEEN))
        assert len(one.objects) == 1 and one.background in ("black", UNSEEN)
        assert world.held_out(one.objects[0].shape, one.objects[0].colour)


def test_the_size_that_is_said_is_seen():
    """In the middle of the clip things that grow or shrink have the size of their word."""
    for scene in SCENES:
        for obj in scene.objects:
            assert obj.pose(0.5)[2] == pytest.approx(obj.radius)


def test_classes_and_prompts():
    scene = thing(0, 3)
    obj = scene.objects[0]
    assert name_of(label(scene)) == f"{obj.colour} {obj.shape}"
    assert len({name_of(number) for number in range(CLASSES)}) == CLASSES == 48
    lines = prompts(["red circle", "orange moon"], ("a photo of {}", "{}"))
    assert lines == [["a photo of a red circle", "a red circle"], ["a photo of an orange moon", "an orange moon"]]


def test_frames_depend_on_seed_and_index_alone():
    again = frames(SCENES[4:6])
    assert torch.equal(frames(SCENES[:6])[4:], again) and again.dtype == torch.uint8 and again.shape == (2, 3, 32, 32)
    assert sample(0, 5) == SCENES[5] and sample(1, 5) != SCENES[5]
    assert -1 <= to_pixels(again).min() and to_pixels(again).max() <= 1


# ------------------------------------------------------------------------------------------------------------ batches


def test_twins_are_replaced_by_the_longer_text(words):
    ring = [scene for scene in SCENES if len(scene.objects) == 1]
    many = (ring * 20)[:60]
    with_twins, without = (Pairs(many, words, 60, twins=twins, shorts=1.0) for twins in (True, False))
    a, b = with_twins.texts(0, list(range(60))), without.texts(0, list(range(60)))
    assert len(set(a)) < len(set(b))
    for text, mended, scene in zip(a, b, many, strict=True):
        assert mended in (text, descriptive(scene))
    assert a[0] == b[0]


def test_a_batch_is_pure_in_its_step_and_an_epoch_holds_every_scene_once(words):
    pairs = Pairs(SCENES, words, 20, seed=3)
    first = pairs(1)
    assert torch.equal(first["ids"], pairs(1)["ids"]) and torch.equal(first["pixels"], pairs(1)["pixels"])
    epoch = torch.cat([pairs(step)["pixels"] for step in range(3)]).flatten(1).sum(1).sort()[0]
    torch.testing.assert_close(epoch, to_pixels(frames(SCENES)).flatten(1).sum(1).sort()[0])
    assert not torch.equal(pairs(0)["pixels"], pairs(3)["pixels"])
    assert first["ids"].shape == (20, 32) and (first["ids"] == words.end).any(1).all()


def test_every_descriptive_text_fits(words):
    """Three things at the longest places fill the context's 32 ids to the last, with the start and the end of text."""
    one = "a small red circle at the bottom right"
    longest = recipe.tokenizer().encode(f"{one}, {one} and {one} on a striped background")
    assert len(longest) + 2 == recipe.config().context
    assert len(recipe.tokenizer()) == recipe.config().vocabulary
    for index in range(300):
        recipe.tokenizer()([descriptive(sample(9, index))], recipe.config().context)


def test_share_of_twins():
    assert share_of_twins(["a", "a", "b", "c", "a", "b", "c", "d"], 4) == 0.25
    assert share_of_twins(["a", "a", "b", "c"], 2) == 0.5
    assert share_of_twins(["a", "b", "c"], 4) == 0


# ----------------------------------------------------------------------------------------------------------- measures


def test_recall_counts_texts_not_places():
    I_e = torch.eye(4)
    assert clip_scores.recall(I_e, I_e, list("abcd"), pool=4) == {"text of picture": 1.0, "picture of text": 1.0}
    assert clip_scores.recall(I_e, I_e.roll(1, 0), list("abcd"), pool=4)["text of picture"] == 0
    assert clip_scores.recall(I_e, I_e[[1, 0, 2, 3]], list("aacd"), pool=4)["text of picture"] == 1.0  # twins
    in_twos = clip_scores.recall(I_e, I_e[[1, 0, 2, 3]], list("abcd"), pool=2)
    assert in_twos == {"text of picture": 0.5, "picture of text": 0.5}
    one_wrong = I_e.clone()
    one_wrong[0] = 0.9 * I_e[1]  # text 0 looks like picture 1; each picture still finds a text
    assert clip_scores.recall(I_e, one_wrong, list("abcd"), pool=4)["picture of text"] == 0.75


def test_shares():
    labels = torch.tensor([0, 8, 9, 47])
    found = torch.tensor([0, 9, 1, 46])
    assert clip_scores.shares(found, labels) == {"both": 0.25, "shape": 0.75, "colour": 0.5}


def test_a_split_is_judged_by_its_own_scenes_and_all_texts_of_a_class(monkeypatch):
    """A tower that knows what each picture is called."""
    scenes = [sample(recipe.SEED, k, "held_out") for k in range(8)]
    lines = [descriptive(scene) for scene in scenes]
    numbers = {bytes(picture.numpy()): k for k, picture in enumerate(frames(scenes))}
    monkeypatch.setattr(clip_scores, "images", lambda model, pictures: torch.eye(8)[
        [numbers[bytes(picture.numpy())] for picture in pictures]])  # fmt: skip
    monkeypatch.setattr(clip_scores, "texts", lambda model, words, said: torch.eye(8)[[lines.index(s) for s in said]])
    right = {"text of picture": 1.0, "picture of text": 1.0}
    assert clip_scores.retrieval(None, None, "held_out", 8) == right
    off = clip_scores.retrieval(None, None, "held_out", 8, say=lambda scene: lines[lines.index(descriptive(scene)) - 1])
    assert max(off.values()) < 0.5

    asked, labels = [], torch.tensor([0, 9, 46, 47])
    monkeypatch.setattr(clip_scores, "classifier", lambda *given: asked.append(given[-1]) or torch.eye(CLASSES))
    monkeypatch.setattr(clip_scores, "images", lambda model, pictures: torch.eye(CLASSES)[[0, 9, 47, 47]])
    assert clip_scores.zero_shot_shares(None, None, None, labels) == {"both": 0.75, "shape": 1.0, "colour": 0.75}
    assert len(asked[0]) == CLASSES and all(name_of(k) in text for k, row in enumerate(asked[0]) for text in row)

    told = []
    monkeypatch.setattr(clip_scores, "retrieval", lambda *given: told.append(given[2:]) or right)
    monkeypatch.setattr(clip_scores, "things", lambda *given: told.append(given) or (None, None))
    monkeypatch.setattr(clip_scores, "zero_shot_shares", lambda *_: {"both": 0.5})
    found = clip_scores.measure(None, None, "test")
    assert told == [("test", clip_scores.TEST_SCENES), ("test", clip_scores.TEST_THINGS)]
    assert found == {"recall, text of picture": 1.0, "recall, picture of text": 1.0, "zero-shot, both": 0.5}


def test_the_loss_reports_the_share_of_pictures_that_find_their_text():
    table = torch.eye(4)
    swaps = SimpleNamespace(encode_image=lambda pixels: table, encode_text=lambda ids: table[[0, 1, 3, 2]],
                            clip_scale=lambda: None, scale=torch.tensor(10.0))  # fmt: skip
    assert recipe.loss(swaps, {"pixels": None, "ids": None}, None)[1]["right"] == 0.5


def test_a_short_runs_truth_is_what_a_model_finds_that_knows_every_picture(monkeypatch):
    class Asked(Exception):
        pass

    def stop(name, loss, held, steps, sample, truth, **_):
        table = torch.eye(len(held["ids"]))
        knows = SimpleNamespace(encode_image=lambda pixels: table[: len(pixels)], encode_text=lambda ids: table)
        raise Asked(sample(knows), truth, recipe.tokenizer().decode(held["ids"][1].tolist()))

    monkeypatch.setattr(recipe, "Watched", stop)
    with pytest.raises(Asked) as asked:
        recipe.short_run(1, steps=1)
    found, truth, other = asked.value.args
    assert found == truth != [other]


def test_swapped_texts_have_the_same_words():
    scene = next(s for s in SCENES if len(s.objects) == 2 and s.objects[0].shape != s.objects[1].shape)
    right, wrong = descriptive(scene), descriptive(clip_scores.swapped(scene))
    assert right != wrong and sorted(right.split()) == sorted(wrong.split())


def test_what_the_chapter_says_of_its_tables_holds_in_the_card():
    """Sentences of notebook 04 as numbers: a new training could make one of them untrue."""
    metrics = read_card("clip")["metrics"]
    assert all(metrics["test"][f"recall, {way}"] > 0.85 for way in ("text of picture", "picture of text"))
    rows = {arm: {name: found["both"] for name, found in row.items()} for arm, row in metrics["classifiers"].items()}
    zero, probe = rows["zero-shot"], rows["linear probe"]
    assert all(abs(zero[name] - probe[name]) < 0.02 for name in world.BACKGROUNDS)  # "they stand side by side"
    assert zero["held out"] > 0.9 and probe["held out"] < 0.05  # "in the last column the two part"
    assert min(row["black"] for row in rows.values()) == rows["shape, colour"]["black"] < 0.95  # "if it errs at home"
    short = {arm: row["text of picture"] for arm, row in metrics["short runs"].items()}
    assert abs(short["learned"] - short["fixed at 14.3"]) < 0.05 and short["fixed at 1"] < 0.3
    assert short["learned, ViT"] < short["learned"] - 0.1  # "the order is the other one"
    assert abs(metrics["binding"]["colours"] - 0.5) < 0.05 and metrics["binding"]["another"] > 0.95
    before, after = (metrics["exchanged texts"][arm]["colours"] for arm in ("as before", "with exchanged texts"))
    prose = chapter_4()
    assert f"wins for {100 * mean(after):.0f} % of the pictures, without them for {100 * mean(before):.0f} %" in prose
    assert wilson(round(500 * metrics["binding"]["colours"]), 500)[0] < 0.5 and "A coin would do as well" in prose
    gains = [100 * (b - a) for a, b in zip(before, after, strict=True)]
    assert f"Each seed gains, by {min(gains):.0f} to {max(gains):.0f} points of five hundred pictures" in prose
    scenes = (sample(recipe.SEED, index, "test") for index in range(5000))
    pairs = list(islice((s for s in scenes if len(s.objects) == 2 and s.objects[0].shape != s.objects[1].shape), 500))
    assert sum(clip_scores.swapped(scene).held_out for scene in pairs) == 154 and "three in ten of them" in prose
    for arm in metrics["exchanged texts"].values():
        assert min(arm["recall@1"]) > 0.98  # "finds its texts as before"


def chapter_4() -> str:
    cells = json.loads((ROOT / "notebooks" / "04_clip.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_texts_of_the_same_words_hardly_ever_meet_in_a_batch():
    """What the chapter says of 30 batches: one pair of texts with the same words in another order."""
    library = [sample(4, index) for index in range(3840)]
    batches = Pairs(library, recipe.tokenizer(), 128, seed=4)
    pairs = 0
    for step in range(30):
        texts = set(batches.texts(step, batches.which(step).tolist()))
        pairs += len(texts) - len({tuple(sorted(text.split())) for text in texts})
    assert pairs == 1 and "among 30 batches of 128 there is one such pair" in chapter_4()


def test_exchanged_texts_are_wrong_answers_of_their_own_picture_alone(tiny):
    scenes = [scene for scene in SCENES if scene.objects][:40]
    batch = clip_binding.Exchanged(scenes, recipe.tokenizer(), 40)(0)
    order = [scenes[k] for k in clip_binding.Exchanged(scenes, recipe.tokenizer(), 40).which(0).tolist()]
    pairs = [k for k, scene in enumerate(order) if clip_binding.exchangeable(scene)]
    assert batch["whose"].tolist() == pairs and 3 < len(pairs) < 40
    right = recipe.tokenizer()([descriptive(order[k]) for k in pairs], 32)
    assert torch.equal(batch["ids"][pairs], right) and not (batch["wrong"] == right).all(1).any()
    generator = torch.Generator()
    with torch.no_grad():
        none = {**batch, "wrong": batch["wrong"][:0], "whose": batch["whose"][:0]}
        plain = recipe.loss(tiny, batch, generator)[0]
        torch.testing.assert_close(clip_binding.with_exchanged(tiny, none, generator), plain)
        own = clip_binding.with_exchanged(tiny, {**batch, "wrong": right}, generator)  # the right text twice: ln 2 more
        I_e, T_e = tiny.encode_image(batch["pixels"]), tiny.encode_text(batch["ids"])
        share = (tiny.scale * I_e @ T_e.T).softmax(1).diagonal()[pairs]
        torch.testing.assert_close(own - plain, (1 + share).log().sum() / len(order) / 2, rtol=1e-3, atol=1e-5)


def test_a_linear_probe_leaves_the_model_alone_and_fits_what_is_linear(tiny):
    pictures, labels = clip_scores.things("train", 24)
    before = clip_scores.images(tiny, pictures)
    head = clip_classifiers.probe(tiny, pictures, torch.arange(24) % 2)
    assert (head(before).argmax(1) == torch.arange(24) % 2).float().mean() > 0.6
    assert torch.equal(clip_scores.images(tiny, pictures), before)


def test_every_classifier_is_asked_for_every_column(monkeypatch, tmp_path):
    """Pictures that are their classes: the texts' classifier is right, the probe one class too high, one network always
    says the first class and the other the last."""
    asked, built, labels = [], [], torch.tensor([0, 8, 9, 46])
    monkeypatch.setattr(clip_classifiers, "things", lambda *given: asked.append(given) or (labels, labels))
    monkeypatch.setattr(clip_classifiers, "images", lambda model, pictures: torch.eye(CLASSES)[pictures])
    monkeypatch.setattr(clip_classifiers, "classifier", lambda model, words, lines: torch.eye(CLASSES)[: len(lines)])
    monkeypatch.setattr(clip_classifiers, "probe", lambda *_: lambda features: features.roll(1, 1))
    monkeypatch.setattr(clip_classifiers, "Batches", lambda *_: None)
    monkeypatch.setattr(clip_classifiers, "fit", lambda build, *_: (built.append(build.args[1]) or len(built), None))
    monkeypatch.setattr(clip_classifiers, "predict", lambda network, shown: torch.full((4,), 0 if network == 1 else 47))
    table = clip_classifiers.classifiers(tmp_path, SimpleNamespace(config=None), None, train_things=7, count=4)
    assert built == [False, True] and all(list(row) == [*world.BACKGROUNDS, "held out"] for row in table.values())
    assert asked[0] == ("train", 7, ("black",)) and asked[-1] == ("held_out", 4, ("black",))
    assert asked[1:-1] == [("test", 4, (name,)) for name in world.BACKGROUNDS]
    want = {"zero-shot": (1.0, 1.0, 1.0), "linear probe": (0.0, 1.0, 0.0), "48 classes": (0.25, 0.25, 0.5),
            "shape, colour": (0.0, 0.25, 0.0)}  # fmt: skip
    for arm, (both, shape, colour) in want.items():
        assert all(found == {"both": both, "shape": shape, "colour": colour} for found in table[arm].values()), arm


def test_two_heads_multiply_their_shares():
    torch.manual_seed(0)
    model = clip_classifiers.Classifier(CLIPConfig(layers=(1, 1), width=8, head=8), two=True).eval()
    scores = model(torch.randn(3, 3, 32, 32))
    assert scores.shape == (3, CLASSES)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    table = scores.unflatten(1, (len(world.SHAPES), len(world.COLOURS)))
    torch.testing.assert_close(table[:, 0] - table[:, 1], (table[:, 0] - table[:, 1])[:, :1].expand(-1, 8))


def test_a_fixed_scale_does_not_learn():
    model = experiments.at_scale(100.0)
    assert model.scale.item() == pytest.approx(100, rel=1e-4) and not model.t.requires_grad
    assert experiments.at_scale(None).t.requires_grad
