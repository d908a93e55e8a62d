"""What only a GPU can show: `python3 course.py test -m cuda` on a machine that has one; skipped elsewhere.

Not one of these has been run yet: they were written on machines without a GPU, beside test_device.py, which holds the
same things on a second device that the processor plays. Tolerances are guesses from the sizes of roundings.
"""

import json
from dataclasses import replace

import pytest
import torch
from test_device import numbers
from test_device_chapters import MEASURES, SHORT
from tiny_models import PROMPT, tiny_maker

from soralab import sora
from soralab.recipes import RECIPES, recipe
from soralab.training import loop, profiles
from soralab.training.muon import fused_round, plain_round

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(),
                       reason="no CUDA GPU is to be seen; where there is one: python3 course.py test -m cuda"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on(device, act, monkeypatch):
    monkeypatch.setenv("SORALAB_DEVICE", device)
    assert profiles.device().type == device
    return act()


@pytest.mark.parametrize("sampler", ["dpm_solver_pp", "heun", "ddim"])
def test_a_film_is_the_cpus_to_four_digits(sampler):
    """float32 products in another order: 1e-3 of a range of 2 after four steps."""
    maker = tiny_maker()
    here = maker.film([PROMPT], 3, steps=4, sampler=sampler)
    maker.sora.cuda(), maker.autoencoder.cuda()
    there = maker.film([PROMPT], 3, steps=4, sampler=sampler)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-3)


def test_the_shipped_film_is_the_cpus(monkeypatch):
    here, there = (on(device, lambda: sora.Filmmaker.load("sora", profiles.device()).film([PROMPT]).cpu(), monkeypatch)
                   for device in ("cpu", "cuda"))
    torch.testing.assert_close(there, here, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name, monkeypatch, tmp_path):
    """Two steps: a finite loss, weights that come back to the CPU, files that hold CPU tensors."""
    monkeypatch.setattr(recipe("sora_full"), "BEGUN", tmp_path)
    trained = on("cuda", lambda: recipe(name).train(name, 2), monkeypatch)
    assert all(value.device.type == "cpu" for value in trained.model.state_dict().values())
    last = json.loads(trained.log.read_text().splitlines()[-1])
    assert last["step"] == 2 and 0 < last["loss"] < 1e4


@pytest.mark.parametrize("name", SHORT)
def test_a_notebooks_run_runs(name, monkeypatch):
    found = on("cuda", lambda: recipe(name).short_run(1, 4), monkeypatch)
    log = found[0] if isinstance(found, tuple) else found
    assert all(torch.isfinite(torch.tensor(log["loss"])))


@pytest.mark.parametrize("what", MEASURES)
def test_a_measure_runs(what, monkeypatch):
    assert on("cuda", MEASURES[what], monkeypatch)


def test_a_training_is_repeated_bit_for_bit_after_a_break(tmp_path, monkeypatch):
    """What the loop promises on the CPU: six steps and six more are twelve."""
    monkeypatch.setenv("SORALAB_DEVICE", "cuda")
    config = loop.TrainConfig(steps=12, lr=0.02, warmup=2, cooldown=0.0, save_every=6, precision="float32")

    def run(folder, steps):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 6))
        loop.train(model, lambda m, batch, rng: (m(batch["x"]) - batch["x"]).square().mean(), numbers,
                   replace(config, steps=steps), folder)  # fmt: skip
        return model.state_dict()

    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 6)
    parts = run(tmp_path / "parts", 12)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_muons_three_launches_are_its_seven():
    x = torch.randn(3, 192, 384, device="cuda", dtype=torch.float64)
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(fused_round(x), plain_round(x), rtol=0, atol=1e-12)


def test_a_compiled_step_of_the_large_transformer(monkeypatch):
    """Chapter 16 under the gpu profile: forwards and backwards through torch.compile, in two widths of prompts."""
    monkeypatch.setenv("SORALAB_PROFILE", "gpu")
    chosen = recipe("sora").RECIPES["sora"].large()
    model = recipe("sora").build(chosen).cuda()
    loss = recipe("sora").make_loss(chosen, profiles.compiled(model))
    for words in (9, 14):
        batch = {"x0": torch.randn(8, 5, 8, 8, 8, device="cuda"), "ids": torch.ones(8, words).long().cuda()}
        rng = torch.Generator("cuda").manual_seed(0)
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(model, batch, rng)
        value.backward()
        rng.manual_seed(0)
        plain = recipe("sora").make_loss(chosen)(model, batch, rng)
        assert value.item() == pytest.approx(plain.item(), rel=0.02)
