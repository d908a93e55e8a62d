"""Every recipe, notebook's run and measure on tests/card.py's second device, beside the CPU's numbers."""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from card import OnCard
from test_device import here_and_there, small  # noqa: F401  (the fixture of both files)
from tiny_models import PROMPT

from soralab import latent_diffusion, sora
from soralab.diffusion import samplers
from soralab.experiments import EXPERIMENTS, clip_scores, experiment, latent_diffusion_scores, sora_scores
from soralab.experiments import dit as dits
from soralab.experiments import sora_autoencoder as copying
from soralab.experiments import sora_guess as guessing
from soralab.experiments import vqvae_scores as codes
from soralab.files.checkpoints import IN_TRAINING, MEASURED
from soralab.recipes import RECIPES, recipe
from soralab.recipes import dit as dit_recipe
from soralab.training import loop, profiles
from soralab.training.probes import Probes
from soralab.vqvae import load as load_vqvae

pytestmark = pytest.mark.thorough
SLIGHT = {"BATCH": 4, "FIRST_BATCH": 4, "DENOISER_BATCH": 4, "FILM_BATCH": 4, "SHORT_BATCH": 4, "SPACE_BATCH": 4,
          "COARSE_BATCH": 4, "PICTURE_BATCH": 4, "PRIOR_BATCH": 4, "PROBED": 8, "PICTURES": 16}


@pytest.fixture(autouse=True)
def in_three_steps(monkeypatch):
    """Samplers take three steps at most: a first, one that knows of a step before it, and a last."""
    steps = samplers._steps
    monkeypatch.setattr(samplers, "_steps", lambda process, n, *grid: steps(process, min(n, 3), *grid))


@pytest.fixture
def slight(monkeypatch):
    """Batches of four, few pictures, less of a network: where a tensor lies does not depend on how many there are."""
    monkeypatch.setattr(recipe("walt"), "Run", partial(recipe("walt").Run, batch=4))
    for name in RECIPES:
        for constant in SLIGHT.keys() & vars(recipe(name)).keys():
            value = getattr(recipe(name), constant)
            if isinstance(value, int):
                monkeypatch.setattr(recipe(name), constant, min(SLIGHT[constant], value))
    # One device that rounds products to bfloat16 and one that plays a card and does not: chapter 14 asks for that.
    monkeypatch.setattr(loop, "autocast_dtype", lambda precision, device: None)
    begin = Probes.__init__
    monkeypatch.setattr(Probes, "__init__", lambda probes, loss_fn, batch, steps, swap, groups, sample: begin(
        probes, loss_fn, batch, steps, swap, 2, sample))  # fmt: skip
    monkeypatch.setattr(recipe("imagen_student"), "HALVINGS", (16,))
    painter, films = recipe("latent_diffusion"), recipe("sora").RECIPES
    monkeypatch.setattr(painter, "CONFIG", replace(painter.CONFIG, unet=replace(painter.CONFIG.unet, width=16)))
    for name in films:
        monkeypatch.setitem(films, name, replace(films[name], config=replace(films[name].config, depth=1)))


@pytest.mark.usefixtures("slight")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_on_the_card_as_on_the_cpu(name, tmp_path, monkeypatch):
    """Two steps: the loss of both, and weights that are the CPU's again; the average of the weights was taken there."""
    folders = iter(("here", "there"))
    if name == "sora_full":  # from the beginning, and with a first stage that is shipped
        monkeypatch.setattr(recipe(name), "BEGUN", tmp_path)
        monkeypatch.setattr(recipe(name), "AUTOENCODER", "walt_autoencoder")
        monkeypatch.setattr(recipe(name), "KINDS", [kind for kind in recipe(name).KINDS if kind.height == 32])

    def act():
        folder = tmp_path / next(folders)
        folder.mkdir()
        monkeypatch.chdir(folder)
        trained = recipe(name).train(name, 2)
        assert all(type(value) is not OnCard for value in trained.model.state_dict().values())
        return json.loads(trained.log.read_text().splitlines()[-1])

    here, there = here_and_there(act)
    assert here["step"] == there["step"] == 2
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)
    assert there["grad_norm"] == pytest.approx(here["grad_norm"], rel=1e-2)


SHORT = list({RECIPES[name]: name for name in RECIPES if hasattr(recipe(name), "short_run")}.values())  # one a chapter


@pytest.mark.usefixtures("slight")
@pytest.mark.parametrize("name", SHORT)
def test_a_notebooks_run_is_the_same_on_the_card(name):
    """Its log with all probes, and what its network made, as tensors of the CPU."""
    def act():
        found = recipe(name).short_run(1, 2)
        return found[0] if isinstance(found, tuple) else found

    here, there = here_and_there(act)
    assert here.keys() == there.keys() and {"held", "samples"} <= here.keys()
    for key in ("loss", "held"):
        torch.testing.assert_close(torch.tensor(there[key]), torch.tensor(here[key]), rtol=2e-3, atol=1e-5,
                                   equal_nan=True)  # fmt: skip
    for step, made in there["samples"].items():
        assert not isinstance(made, OnCard) and type(made) is type(here["samples"][step])


# ------------------------------------------------------------------------------------------------------- the measures


def there(model):
    return model.to(profiles.device())


def evaluated(name, **options):
    return lambda: experiment(name).evaluate(name, **options)


def small_dit():
    """A comparison's row of a DiT that is small, on the films of a smoke run; two steps of training go before it."""
    films = cache(dits.data)
    with TemporaryDirectory() as folder:
        run = dit_recipe.Run(replace(dit_recipe.BASE, dim=16, depth=1, heads=2), replace(dit_recipe.TRAINING, steps=2))
        return {key: value for key, value in dits.measured(run, Path(folder), films).items() if key != "seconds"}


MEASURES = {
    "dit": small_dit,
    "sora": lambda: sora_scores.table("sora", "sora_pixels", 1),
    "sora_autoencoder": lambda: copying.measure(there(sora.load_autoencoder()), 4),
    "the guesses": lambda: guessing.guesses(
        sora.Filmmaker.load("sora", profiles.device()), PROMPT, guessing.sliding()[:3], 1, times=(0.9, 0.3))[1],
    "transformer": evaluated("transformer", count=1),
    "latent_diffusion": lambda: latent_diffusion_scores.quality(
        latent_diffusion.Painter.load(device=profiles.device()), 4, steps=2),
    "codes": lambda: codes.around_codes(there(load_vqvae()), torch.zeros(1, 3, 32, 32)).shape,
    "binding": lambda: clip_scores.binding(there(recipe("clip").load()[0]), recipe("clip").load()[1], 4),
    "walt": evaluated("walt", count=1),
    **{name: evaluated(name) for name in EXPERIMENTS
       if name not in {"sora", *MEASURED, *IN_TRAINING, "sora_autoencoder", "transformer", "latent_diffusion", "walt",
                       "referee"}},
}  # fmt: skip


@pytest.mark.parametrize("what", MEASURES)
def test_a_measure_is_the_same_on_the_card(what):
    here, there = here_and_there(MEASURES[what])
    assert str(here) == str(there)
