"""What chapter 16's small DiTs learn from, how they are measured, and that a stopped comparison goes on."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny_models import numbers, randomise, tiny_autoencoder

from soralab import world
from soralab.dit import CONDITIONINGS, DiT, dit_loss
from soralab.experiments import dit as experiment
from soralab.figures.curves import read_log
from soralab.recipes import dit as recipe
from soralab.recipes import sora
from soralab.recipes.dit import BASE, CLASSES, SIZES, STEPS, Labelled, Run, fit, label, loss, simple_loss, unseen
from soralab.training.probes import MARKS as USUAL

CONFIG = replace(BASE, dim=16, depth=1, heads=2, size=(2, 2, 2), patch=(1, 1, 1))


def few(count=32, seed=0):
    return {"x0": numbers(count, 2, 8, 2, 2, seed=seed), "y": torch.arange(count) % CLASSES}


@pytest.fixture(autouse=True)
def smoke(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")


# -------------------------------------------------------------------------------------------------- what is learnt from


def test_a_class_is_a_colour_and_a_motion():
    scenes = [world.sample_scene(5, index, "simple") for index in range(2000)]
    named = {(scene.objects[0].colour, scene.objects[0].motion): label(scene) for scene in scenes}
    assert len(set(named.values())) == len(named) == CLASSES == 120
    assert all(named[scene.objects[0].colour, scene.objects[0].motion] == label(scene) for scene in scenes)
    assert BASE.classes == CLASSES and (BASE.size, BASE.channels) == ((5, 8, 8), 8)


def test_batches_have_the_classes_of_their_films(monkeypatch):
    """The films of a batch, encoded here, and their labels, one by one."""
    monkeypatch.setattr(recipe, "BATCH", 6)
    autoencoder = tiny_autoencoder()
    batches = Labelled(autoencoder, cache=None)
    batch = batches(3)
    assert batch["x0"].shape == (6, 5, 8, 8, 8) and batch["y"].shape == (6,)
    scenes = [batches.scenes[k] for k in batches._which(3)]
    films = world.to_film(world.render(scenes, sora.FRAMES, sora.SIDE, sora.SIDE))
    with torch.no_grad():
        apart = (batch["x0"] - autoencoder.encode(films)).flatten(1).abs().amax(1)
    assert apart.max() < 0.02 and batch["y"].tolist() == [label(scene) for scene in scenes]
    assert len({tuple(batches._which(step)) for step in range(8)}) == 8


def test_measured_on_films_that_training_never_sees():
    held = unseen(tiny_autoencoder())
    assert held["x0"].shape == (32, 5, 8, 8, 8)
    scenes = [world.sample_scene(sora.SEED, k, sora.LEVEL, "test") for k in range(400)]
    kept = [s for k, s in enumerate(scenes) if k % sora.EVERY.get(s.objects[0].motion, sora.REST) == 0]
    assert held["y"].tolist() == [label(scene) for scene in kept[:32]]
    assert list(sora.used(range(400), "test")) == kept != list(sora.used(range(400)))


def test_runs_are_of_the_sizes_that_are_named():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SORALAB_PROFILE", "laptop")
        runs = {size: Run.of(size, STEPS[size], 7) for size in SIZES}
    assert [run.training.steps for run in runs.values()] == [6144, 4096, 2048, 1024]
    assert not any(steps % 32 for steps in (*STEPS.values(), experiment.COMPARED_STEPS))  # so a mark is at a log's line
    assert {run.training.lr for run in runs.values()} == {1e-3} and {run.training.seed for run in runs.values()} == {7}
    for size, run in runs.items():
        assert size == f"{run.config.depth} x {run.config.dim}" and run.config.dim == 32 * run.config.heads
    costs = [experiment.multiply_adds(DiT(run.config).eval()) for run in runs.values()]
    assert all(2 < after / before < 4 for before, after in zip(costs, costs[1:], strict=False))
    assert Run.of("3 x 96", 9, 1, conditioning="adaLN").config.conditioning == "adaLN"


def test_the_loss_is_both_and_models_are_compared_by_one():
    model, batch = randomise(DiT(CONFIG)), few()
    simple, term = dit_loss(model, batch["x0"], batch["y"], torch.Generator().manual_seed(1))
    whole, parts = loss(model, batch, torch.Generator().manual_seed(1))
    torch.testing.assert_close(whole, simple.mean() + term.mean())
    torch.testing.assert_close(torch.stack([parts["simple"], parts["vlb"]]), torch.stack([simple.mean(), term.mean()]))
    torch.testing.assert_close(simple_loss(model, batch, torch.Generator().manual_seed(1)), simple.mean())


# ----------------------------------------------------------------------------------------------------- what is measured


def test_a_run_is_measured_on_the_way(tmp_path):
    run = Run(CONFIG, replace(recipe.TRAINING, steps=64, warmup=2, lr=1e-2))
    model, result = fit(run, lambda step: few(8, step), few(seed=99), tmp_path)
    log = read_log(result.log)
    marks = log["step"][~torch.tensor(log["held"]).isnan().numpy()]
    assert marks.tolist() == [2, 4, 8, 16, 32, 64] and len(recipe.MARKS) > len(USUAL)
    last = torch.stack([simple_loss(model, {key: value[2 * k : 2 * k + 2] for key, value in few(seed=99).items()},
                                    torch.Generator().manual_seed(k)) for k in range(16)])  # fmt: skip
    # What the log holds is the average's, and the model that is given back is the average.
    assert log["held"][-1] == pytest.approx(float(last.mean().detach()), rel=1e-5)
    assert not model.training


def test_a_code_is_shortest_with_a_variance_that_was_learnt():
    """A head that says "least" everywhere is the least; one in between is neither."""
    model, held = randomise(DiT(CONFIG)), few()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[8:] = -1  # a patch is one place: 8 of noise, then 8 of variance
    found = experiment.code_length(model, held, range(1, 1001, 100))
    assert found["learned"] == found["least"] != found["largest"]
    with torch.no_grad():
        model.head.bias[8:] = 1
    assert experiment.code_length(model, held, range(1, 1001, 100))["learned"] == found["largest"]
    assert experiment.code_length(model, held, range(500, 501))["least"] != found["least"]


def test_a_comparison_that_was_stopped_goes_on(tmp_path, monkeypatch):
    made = []

    def row(run, where, films):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append((run.config.conditioning, run.config.depth, run.training.seed))
        return {"marks": [{"held": 0.5, "pairing": 1.0}], "multiply-adds": 1e6, "parameters": 1000}

    monkeypatch.setattr(experiment, "measured", row)
    with pytest.raises(KeyboardInterrupt):
        experiment.conditioning(None, tmp_path), experiment.sizes(None, tmp_path)
    assert len(made) == 5
    made[:] = made[:1]
    ways = experiment.conditioning(None, tmp_path)
    assert made[1:] == [] and list(ways) == list(CONDITIONINGS)
    assert list(experiment.sizes(None, tmp_path)) == list(SIZES) and [depth for _, depth, _ in made[1:]] == [3, 5, 6]
    said = experiment.table({"conditioning": ways})
    assert "in-context" in said and "0.5000 (0.5000–0.5000)" in said


def test_every_seed_is_trained_for_each_way(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    made = []
    monkeypatch.setattr(experiment, "measured", lambda run, where, films: made.append(
        (run.config.conditioning, run.training.seed, run.training.steps, run.config.dim)) or {"k": 1})  # fmt: skip
    experiment.conditioning(None, tmp_path)
    assert sorted(made) == sorted((way, seed, 1024, 96) for way in CONDITIONINGS for seed in (1, 2, 3))
    assert len(list(tmp_path.glob("*.json"))) == 12


def test_a_row_tells_what_a_training_cost(tmp_path):
    run = Run(CONFIG, replace(recipe.TRAINING, steps=4))
    films = cache(lambda: (lambda step: few(recipe.BATCH, step), few()))
    row = experiment.measured(run, tmp_path / "run", films)
    macs = experiment.multiply_adds(DiT(CONFIG).eval())
    assert row["multiply-adds"] == macs and row["steps"] == 4
    assert [mark["flops"] for mark in row["marks"]] == [6 * macs * recipe.BATCH * mark["step"] for mark in row["marks"]]
    assert row["marks"][-1]["step"] == 4 and set(row["bits"]) == {"learned", "least", "largest"}
    json.dumps(row)


def test_the_file_that_is_not_there_is_a_table_without_rows(tmp_path):
    assert experiment.load_experiment(tmp_path / "dit.json") == {"conditioning": {}, "sizes": {}}
    with pytest.raises(SystemExit, match="PART is 'speed'; it takes one of conditioning, sizes"):
        experiment.main(["speed"])
