"""Everything that is trained, sampled or measured can be so on another device than the CPU, and gives the same there.

The other device is tests/card.py's: it refuses what a GPU would refuse, and computes on the processor. What a GPU
itself does is in test_cuda.py.
"""

import inspect
import json
import re
import textwrap
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import torch
from card import CARD, Card, Generator, OnCard, exact
from tiny_models import OTHER, PROMPT, SORA, tiny_autoencoder, tiny_maker, tiny_sora
from torch import nn

from soralab import latent_diffusion, sora, transformer
from soralab.blocks import patches, positions
from soralab.clip import PromptEncoder
from soralab.command import main
from soralab.diffusion import process as processes
from soralab.experiments import experiment
from soralab.files.checkpoints import load_checkpoint
from soralab.recipes import RECIPES, recipe
from soralab.training import loop, profiles
from soralab.training.ema import EMA

for name in RECIPES:  # a Card reaches what is imported by then
    recipe(name), experiment(name)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.delenv("SORALAB_DEVICE", raising=False)
    monkeypatch.chdir(tmp_path)


def here_and_there(act):
    """What `act()` gives where the device is the CPU, and where it is the card."""
    with exact():
        here = act()
    with Card(pytest.MonkeyPatch()):
        return here, act()


# ------------------------------------------------------------------------------------------------------ the card itself


def test_the_card_computes_and_stays():
    with Card(pytest.MonkeyPatch()):
        x = torch.arange(6.0, device=CARD).reshape(2, 3).requires_grad_()
        y = (x * 2 + torch.tensor(1.0)) @ torch.ones(3, 2).to(CARD)  # a tensor without dimensions may be the CPU's
        y.square().sum().backward()
        assert isinstance(y, OnCard) and y.device == x.grad.device == CARD and profiles.device() == CARD
        assert y.tolist() == [[9.0, 9.0], [27.0, 27.0]] and x.grad.sum().item() == 2 * 2 * 2 * 3 * 36
        assert x[torch.tensor([1])].device == CARD and x.cpu().device.type == "cpu"
        drawn = torch.randn(3, generator=torch.Generator(CARD).manual_seed(1), device=CARD)
    assert torch.equal(drawn.inner, torch.randn(3, generator=torch.Generator().manual_seed(1)))
    assert profiles.device().type == "cpu" and torch.Generator is not Generator


@pytest.mark.parametrize("wrong", [
    lambda x: x + torch.ones(3),
    lambda x: torch.cat([x, torch.ones(1)]),
    lambda x: nn.Linear(3, 2)(x),
    lambda x: torch.where(torch.ones(3) > 0, x, x),
    lambda x: torch.ones(3)[x.long()],
    lambda x: torch.randn(3, generator=torch.Generator(), device=CARD),
    lambda x: torch.randn(3, generator=torch.Generator(CARD)),
    lambda x: x.numpy(),
    lambda x: torch.optim.AdamW([nn.Parameter(torch.ones(3))]).param_groups[0]["params"][0].data.add_(x),
])  # fmt: skip
def test_the_card_refuses_what_a_gpu_refuses(wrong):
    with Card(pytest.MonkeyPatch()), pytest.raises((RuntimeError, TypeError)):
        wrong(torch.ones(3, device=CARD))


# ------------------------------------------------------------------------------------------------- films and pictures


def film(samplers=("dpm_solver_pp",), maker=None):
    maker = maker or tiny_maker()
    maker.sora.to(profiles.device()), maker.autoencoder.to(profiles.device())
    return torch.cat([maker.film([PROMPT, OTHER], 3, steps=2, sampler=name).cpu() for name in samplers])


def test_a_film_is_the_same_on_the_card():
    here, there = here_and_there(partial(film, ("dpm_solver_pp", "heun", "euler", "ddim")))
    assert torch.equal(here, there) and here.std() > 0.01


def translated():
    translator = transformer.Translator.load()
    translator.model.to(profiles.device())
    return translator(["एक लाल वृत्त उछलता है", "एक छोटा नीला वर्ग"])


def test_a_translation_is_the_same_on_the_card():
    here, there = here_and_there(translated)
    assert here == there and here[0].endswith("red circle bounces")


def slip(monkeypatch, function, old, new):
    """Put `new` in place of `old` in a function's code, for all who have imported it."""
    function = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old} stands {source.count(old)} times in {function.__qualname__}"
    names = dict(function.__globals__)
    lines = source.replace(old, new).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("def "))
    exec("from __future__ import annotations\n" + "\n".join(lines[start:]), names)
    monkeypatch.setattr(function, "__code__", names[function.__name__].__code__)


@pytest.mark.parametrize("function, old, new", [
    (sora.Filmmaker.film, "*shape, device=device)", "*shape)"),  # noise not moved
    (sora.Filmmaker.film, "self.sora.config.words).to(device)", "self.sora.config.words)"),  # words not moved
    (sora.Sora.grid, "(steps, self.head.weight.device)", "(steps)"),
    (positions.sincos, ", device=positions.device)", ")"),
    (positions.rotary_angles, ", device=positions.device)", ")"),
    (patches.grid_positions, ", device=device)", ")"),
    (transformer.causal_mask, ", device=device)", ")"),
    (PromptEncoder.forward, ", device=ids.device)", ")"),
    (processes.Process.denoiser, ", device=x_t.device)", ")"),
])  # fmt: skip
def test_a_tensor_made_on_the_wrong_device_is_refused(monkeypatch, function, old, new):
    maker = sora.Filmmaker(tiny_sora(replace(SORA, rotary=True)), tiny_autoencoder())
    with monkeypatch.context() as wrong:
        slip(wrong, function, old, new)
        with Card(pytest.MonkeyPatch()), pytest.raises(RuntimeError, match="same device"):
            film(maker=maker)


# ------------------------------------------------------------------------------------------------------- the training


class Net(nn.Module):
    """Two layers and a buffer that moves; noise is in its loss."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 6))


def loss_of(model, batch, generator):
    noise = processes.noise_like(batch["x"], generator)
    return (model.body(batch["x"] + 0.1 * noise) - batch["x"]).square().mean(), {"norm": batch["x"].norm()}


def numbers(step):
    return {"x": torch.randn(8, 6, generator=torch.Generator().manual_seed(step)), "words": ["a"]}


CONFIG = loop.TrainConfig(steps=12, lr=0.02, warmup=2, log_every=3, save_every=6, precision="float32", ema=0.8)


def train(folder, steps=12):
    torch.manual_seed(0)
    model = Net()
    names = {id(p): name for name, p in model.named_parameters()}
    result = loop.train(model, loss_of, numbers, replace(CONFIG, steps=steps), folder, parameters=[*model.parameters()])
    assert {id(p): name for name, p in model.named_parameters()} == names
    kept = load_checkpoint(folder / "state")[0]
    return {**model.state_dict(), **{f"ema {k}": v for k, v in result.ema.shadow.items()},
            **{f"kept {k}": v for k, v in kept.items()}}  # fmt: skip


def test_a_training_on_the_card_is_the_cpus_and_comes_home(tmp_path):
    """Weights, average and saved state: the CPU's numbers, on the CPU again."""
    places = iter((tmp_path / "here", tmp_path / "there"))
    here, there = here_and_there(lambda: train(next(places)))
    assert here.keys() == there.keys()
    for key, value in there.items():
        assert type(value) is not OnCard and value.device.type == "cpu", key
        torch.testing.assert_close(value, here[key], rtol=1e-4, atol=1e-6)
    logs = [json.loads((tmp_path / at / "log.jsonl").read_text().splitlines()[-1]) for at in ("here", "there")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-5)


def test_a_run_may_go_on_on_the_other_device(tmp_path):
    """Half on the card, the rest on the CPU: the run that was on the CPU from the start."""
    whole = train(tmp_path / "whole")
    with Card(pytest.MonkeyPatch()):
        train(tmp_path / "parts", steps=6)
    for state in (tmp_path / "parts").glob("stable.*"):
        state.unlink()
    config = json.loads((tmp_path / "parts" / "state.json").read_text())
    assert config["step"] == 6
    parts = train(tmp_path / "parts", steps=6)  # it is done: what is saved is taken up, on the CPU
    assert all(value.device.type == "cpu" for value in parts.values()) and len(parts) == len(whole)


def test_the_model_comes_home_from_a_training_that_breaks(tmp_path):
    def broken(model, batch, generator):
        raise FloatingPointError("no")

    model = Net()
    with Card(pytest.MonkeyPatch()), pytest.raises(FloatingPointError):
        loop.train(model, broken, numbers, CONFIG, tmp_path)
    assert all(type(p.data) is not OnCard for p in model.parameters())


@pytest.mark.parametrize("function, old, new", [
    (loop._steps, "device=run.device)", 'device="cpu")'),  # the batches stay behind
    (loop._Run.__init__, "torch.Generator(self.device)", "torch.Generator()"),
    (EMA.to, "value.to(device)", "value"),
    (loop.train, "model.to(home)", "pass"),
])  # fmt: skip
def test_slips_of_the_loop_are_seen(monkeypatch, tmp_path, function, old, new):
    slip(monkeypatch, function, old, new)

    def on_the_models(model, batch, generator):  # a loss that asks the device for its own noise
        noise = torch.randn(batch["x"].shape, generator=generator, device=batch["x"].device)
        return (model.body(batch["x"] + noise) - batch["x"]).square().mean()

    monkeypatch.setitem(globals(), "loss_of", on_the_models)
    with pytest.raises((RuntimeError, AssertionError)):
        with Card(pytest.MonkeyPatch()):
            found = train(tmp_path)
        assert all(type(value) is not OnCard for value in found.values())


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_films_on_the_card_what_it_films_on_the_cpu(tmp_path, capsys):
    names = iter(("here.png", "there.png"))
    seen = []

    def act():
        with pytest.MonkeyPatch.context() as patch:
            load = sora.Filmmaker.load
            patch.setattr(sora.Filmmaker, "load", lambda *given: seen.append(given[1]) or load(*given))
            assert main(["film", PROMPT, "--steps", "2", "-o", str(tmp_path / next(names))]) in (0, None)

    here_and_there(act)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
    assert [each.type for each in seen] == ["cpu", CARD.type]


def test_doctor_names_the_device_and_how_to_choose_another(monkeypatch, capsys):
    main(["doctor"])
    assert "device                cpu (SORALAB_DEVICE)" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: f"a card, {where.type}")
    main(["doctor"])
    assert "device                cuda, a card, cuda (SORALAB_DEVICE)" in capsys.readouterr().out
    monkeypatch.setenv("SORALAB_DEVICE", "cpu")  # the way back to the CPU
    main(["doctor"])
    assert "device                cpu (SORALAB_DEVICE)" in capsys.readouterr().out
    assert profiles.hardware()["gpu"] is None
    for odd in ("cpu:", "cpu:1", "cuda:", "cuda:\u00b2", "cpu:" + 20 * "9", "mps:0"):
        monkeypatch.setenv("SORALAB_DEVICE", odd)
        with pytest.raises(ValueError, match="it takes cpu, cuda, cuda:N or mps"):
            profiles.device()
    monkeypatch.setenv("SORALAB_DEVICE", "tpu")
    assert main(["doctor"]) == 2
    assert "SORALAB_DEVICE is 'tpu', it takes cpu, cuda, cuda:N or mps" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ the gpu profile


def test_the_gpu_profile_takes_larger_batches_in_as_many_steps(monkeypatch):
    sizes = {}
    for profile in ("laptop", "gpu"):
        monkeypatch.setenv("SORALAB_PROFILE", profile)
        sizes[profile] = [len(recipe("sora_autoencoder").batch(0)), len(recipe("unet").frame_batch(0)),
                          len(recipe("vqvae").film_batch(0)["pixels"]), recipe("sora").batch_size()]  # fmt: skip
    assert sizes == {"laptop": [16, 32, 8, 64], "gpu": [64, 128, 32, 512]}
    for name in RECIPES:
        source = inspect.getsource(recipe(name))
        assert "steps=steps or by_profile(smoke=2" in source and not re.search(r"gpu=\d+ \* \w*\.?(full|steps)", source)


def test_the_gpu_profiles_networks_are_larger_and_compute():
    """Chapter 16's has DiT-S's sizes: 33 M parameters with the words' encoder, and cross-attention in each block."""
    large, usual = (recipe("sora").build(r) for r in (recipe("sora").RECIPES["sora"].large(),
                                                      recipe("sora").RECIPES["sora"]))  # fmt: skip
    assert (large.config.dim, large.config.depth, large.config.heads) == (384, 12, 6) and large.config.rotary
    counts = [sum(p.numel() for p in model.parameters()) for model in (large, usual)]
    assert counts[0] > 6 * counts[1]
    x, t, ids = torch.randn(1, 5, 8, 8, 8), torch.rand(1), torch.ones(1, 4).long()
    assert large(x, t, ids).shape == x.shape
    painters = [latent_diffusion.LatentDiffusion(c) for c in (recipe("latent_diffusion").LARGE,
                                                              recipe("latent_diffusion").CONFIG)]  # fmt: skip
    assert painters[0](torch.randn(1, 4, 8, 8), t, ids).shape == (1, 4, 8, 8)
    counts = [sum(p.numel() for p in model.parameters()) for model in painters]
    assert counts[0] > 4 * counts[1]


def test_captions_read_ahead_are_those_that_were_read_for_each_batch():
    """LatentBatches' tables give the words that `prompt` gives, in the same draws, as wide as the longest."""
    chapter = recipe("sora")
    for hard_ones in (False, True):
        batches = chapter.LatentBatches(tiny_autoencoder(), 600, batch=8, hard_ones=hard_ones)
        for step in range(12):
            rng = Random(f"{chapter.SEED}/{step}")
            said = [chapter.prompt(batches.scenes[k], rng, batches.null) for k in batches._which(step)]
            assert torch.equal(batches(step)["ids"], sora.word_ids(said, sora.SoraConfig.words))


def test_a_batch_of_latents_is_gathered_on_the_card():
    """Latents and words of all films lie there; for a step the host sends two rows of indices."""
    with Card(pytest.MonkeyPatch()):
        batches = recipe("sora").LatentBatches(tiny_autoencoder().to(CARD), 200, batch=8)
        assert batches.latents.device == batches.ids.device == CARD
        assert {value.device for value in batches(1).values()} == {CARD}
