"""Chapter 03's task and its recipe: what a class means, which pictures a batch holds, what the experiments compare."""

import pytest
import torch

from soralab import world
from soralab.datasets.what_and_where import CELLS, CLASSES, Batches, frames, label, name_of, sample, to_pixels
from soralab.experiments import vit as experiments
from soralab.experiments import vit_crossing, vit_scores
from soralab.vit import ViT, ViTConfig


def test_a_class_is_the_shape_and_the_ninth_of_its_centre():
    scenes = [sample(0, index) for index in range(60)]
    for scene, truth in zip(scenes, world.truth(scenes, 1, 96, 96), strict=True):
        x, y = truth["trajectory"][0][0]  # pixels
        shape, place = divmod(label(scene), CELLS**2)
        assert world.SHAPES[shape] == scene.objects[0].shape
        assert divmod(place, CELLS) == (int(y // 32), int(x // 32))


def test_names_of_classes():
    assert CLASSES == 54
    assert name_of(0) == "circle, top left"
    assert name_of(53) == "moon, bottom right"
    assert name_of(2 * 9 + 1 * 3 + 2) == "triangle, middle right"
    assert len({name_of(k) for k in range(CLASSES)}) == CLASSES


def test_splits_differ_and_held_out_colours_are_only_there():
    for split, held in (("train", False), ("test", False), ("held_out", True)):
        things = [sample(3, index, split).objects[0] for index in range(40)]
        assert {world.held_out(thing.shape, thing.colour) for thing in things} == {held}
        assert "small" not in {thing.size for thing in things}
    train, test = (frames(3, range(20), split=split)[0] for split in ("train", "test"))
    assert not torch.equal(train, test)


def test_frames_depend_on_seed_and_index_alone():
    pictures, labels = frames(5, range(6))
    again, same = frames(5, range(4, 6))
    assert torch.equal(pictures[4:], again) and torch.equal(labels[4:], same)
    assert pictures.dtype == torch.uint8 and pictures.shape == (6, 3, 32, 32)
    assert frames(5, range(1), side=48)[1] == labels[0]  # a larger frame shows the same scene
    pixels = to_pixels(pictures)
    assert pixels.min() >= -1 and pixels.max() <= 1 and torch.equal(to_pixels(pixels), pixels)


def test_an_epoch_holds_every_picture_once_and_the_next_in_another_order():
    pictures = torch.arange(12.0).reshape(12, 1, 1, 1)
    batches = Batches(pictures, torch.arange(12), batch=4, seed=1)
    first, second = (torch.cat([batches(3 * epoch + k)["label"] for k in range(3)]) for epoch in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert first.tolist() != second.tolist()
    batch = batches(1)
    assert torch.equal(batch["pixels"].flatten(), batch["label"].float())
    assert torch.equal(batches(1)["label"], batch["label"])  # pure in the step
    assert len(Batches(pictures, torch.arange(12), batch=99)(0)["label"]) == 12


def test_what_and_where_are_counted_apart(monkeypatch):
    """Of five frames two are right, one has the shape alone, one the place alone, one neither."""
    labels, found, asked = torch.tensor([0, 10, 20, 53, 5]), torch.tensor([0, 11, 11, 0, 5]), []
    monkeypatch.setattr(vit_scores, "frames", lambda *given: asked.append(given) or (torch.zeros(5, 3, 32, 32), labels))
    monkeypatch.setattr(vit_scores, "predict", lambda model, pictures: found)
    assert vit_scores.measure(None, "held_out", 5) == {"frames": 5, "what and where": 0.4, "what": 0.6, "where": 0.6}
    assert list(asked[0][1]) == [0, 1, 2, 3, 4] and asked[0][-1] == "held_out"


def test_the_two_networks_cost_the_same():
    costs = vit_crossing.costs()
    assert costs["ResNet"]["macs"] == pytest.approx(costs["ViT"]["macs"], rel=0.05)
    assert costs["ResNet"]["parameters"] == pytest.approx(costs["ViT"]["parameters"], rel=0.3)


def test_shuffling_moves_whole_patches_the_same_way_in_every_picture():
    places = torch.arange(32 * 32.0).reshape(1, 1, 32, 32).expand(2, 3, 32, 32)
    mixed = vit_crossing.shuffled(places)
    assert torch.equal(mixed[0], mixed[1]) and not torch.equal(mixed, places)
    assert torch.equal(mixed[0, 0].flatten().sort()[0], places[0, 0].flatten())
    inside = mixed.reshape(2, 3, 8, 4, 8, 4)
    assert torch.equal(inside[..., :, 1:] - inside[..., :, :-1], torch.ones(2, 3, 8, 4, 8, 3))
    assert torch.equal(inside[:, :, :, 1:] - inside[:, :, :, :-1], torch.full((2, 3, 8, 3, 8, 4), 32.0))


@torch.no_grad()
def test_a_vit_cannot_tell_that_patches_were_shuffled():
    """What the third line of the crossing leaves unsaid: with its positions in that order it is the same machine."""
    torch.manual_seed(0)
    model = ViT(ViTConfig(dim=16, depth=2, heads=2))
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.positions)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    before = model(pixels)
    grid = model.positions[1:].T.reshape(1, 16, 8, 8)
    model.positions[1:] = vit_crossing.shuffled(grid, patch=1).reshape(16, 64).T
    torch.testing.assert_close(model(vit_crossing.shuffled(pixels)), before, rtol=1e-4, atol=1e-5)


def test_what_each_start_brings_along():
    torch.manual_seed(0)
    model = ViT(ViTConfig(dim=16, depth=1, heads=2, classes=CLASSES, hidden=8))
    kept, anew, scratch = (experiments.start(model, kind) for kind in experiments.STARTS)
    for tuned in (kept, anew, scratch):
        assert tuned.config.image == 48 and tuned.positions.shape == (145, 16)
        assert not tuned(torch.zeros(1, 3, 48, 48)).any()
    assert torch.equal(kept.embed.weight, model.embed.weight) and torch.equal(anew.embed.weight, model.embed.weight)
    assert not torch.equal(scratch.embed.weight, model.embed.weight)
    assert torch.equal(anew.positions[0], model.positions[0])  # the class token's stays
    assert torch.equal(kept.positions[[1, 12, 144]], model.positions[[1, 8, 64]])  # corners on corners
    assert not torch.isclose(anew.positions[[1, 12, 144]], model.positions[[1, 8, 64]]).all()


def test_the_experiments_are_labelled_as_the_notebook_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr(vit_crossing, "SEEDS", (1,))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    pool = frames(0, range(12))
    table = vit_crossing.crossing(tmp_path, pool, pool, CLASSES, {4: 1, 12: 1})
    assert list(table) == list(vit_crossing.ARMS)
    for row in table.values():
        assert list(row) == ["4", "12"] and all(len(runs) == 1 and 0 <= runs[0] <= 1 for runs in row.values())
    assert vit_crossing.crossing(tmp_path, pool, pool, CLASSES, {4: 1, 12: 1}) == table  # done already, not done again
