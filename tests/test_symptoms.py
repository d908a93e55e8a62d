"""Each row of SYMPTOMS.md brought about, seen as the page says, and mended as it says."""

import importlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from test_faults import functions, named_tests, rows
from torch import nn

from soralab.blocks.attention import attention, causal_mask
from soralab.command import main
from soralab.diffusion.guidance import guide
from soralab.diffusion.process import Cosine
from soralab.diffusion.samplers import ddim
from soralab.exercises import exercise
from soralab.files.films import read_film, save_film
from soralab.files.published import export
from soralab.training.ema import EMA
from soralab.training.loop import TrainConfig, train
from soralab.training.profiles import device
from soralab.training.state import read_log
from soralab.vit import ViT, ViTConfig, torchvision_layout

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "SYMPTOMS.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_every_row_names_the_test_that_shows_it():
    table, here = rows(PAGE), functions(Path(__file__))
    assert len(table) > 18 and all(len(row) == 5 and all(row) for row in table)
    named = [name for row in table for name in named_tests(row[4])]
    assert len(named) == len(table)
    for file, name in named:
        assert name in functions(ROOT / "tests" / file), name
    unnamed = here - {name for _, name in named} - {"test_every_row_names_the_test_that_shows_it"}
    assert {name for name in unnamed if name.startswith("test_")} == set()
    assert "SYMPTOMS.md" in (ROOT / "README.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the loss


def learn(x, labels, classes=10, steps=150, cut=False, shuffled=False):
    """Train a small classifier on one batch; returns (the mean loss of the last steps, the gradient's norm)."""
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, classes))
    model[2].weight.data.zero_()
    model[2].bias.data.zero_()
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for _ in range(steps):
        logits = model(x.detach())
        given = labels[torch.randperm(len(labels))] if shuffled else labels
        loss = F.cross_entropy(logits.detach().requires_grad_() if cut else logits, given)
        optimizer.zero_grad()
        loss.backward()
        norm = sum(p.grad.norm() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20, float(norm)


def test_flat_at_ln_v():
    x, labels = torch.randn(500, 8), torch.arange(500) % 10
    assert abs(math.log(10) - 2.30) < 0.005 and abs(math.log(1000) - 6.91) < 0.005
    loss, norm = learn(x, labels, cut=True)
    assert loss == pytest.approx(math.log(10), abs=1e-5) and norm == 0
    loss, norm = learn(x, labels, shuffled=True)
    assert loss == pytest.approx(math.log(10), abs=0.1) and norm > 1e-3
    assert learn(x[:8], labels[:8])[0] < 0.1  # by heart
    assert learn(x[:8], labels[:8], shuffled=True)[0] > 1.5


def test_softmax_twice():
    labels = torch.arange(10)
    logits = 50 * F.one_hot(labels, 10).float()  # all right, and sure of it
    assert F.cross_entropy(logits, labels) < 1e-6
    twice = F.cross_entropy(logits.softmax(-1), labels)
    assert twice == pytest.approx(math.log(math.e + 9) - 1, abs=1e-4) and round(float(twice), 2) == 1.46
    assert "1.46" in PAGE


def test_nan_at_once():
    q, k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    mask = causal_mask(3)
    mask[1] = False
    assert (~mask).all(-1).any() and not (~causal_mask(3)).all(-1).any()
    by_hand = (q @ k.transpose(-1, -2)).masked_fill(~mask, -math.inf).softmax(-1) @ v
    assert by_hand.isnan().any() and torch.autograd.grad(by_hand.sum(), v)[0].isnan().any()
    ours = attention(q, k, v, mask)
    assert (ours[0, 0, 1] == 0).all() and torch.autograd.grad(ours.sum(), v)[0].isfinite().all()


def batch(step):
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1, keepdim=True)


def growth(model, batch, generator):
    return (model(batch[0]).exp() - batch[1].exp()).square().mean()


def test_nan_after_some_steps(tmp_path):
    config = TrainConfig(steps=60, lr=3.0, warmup=1, clip=None, log_every=1, save_every=5, precision="float32")
    with pytest.raises(FloatingPointError, match=r"became (nan|inf) at step \d+ .*lower learning rate than 3"):
        train(nn.Linear(4, 1), growth, batch, config, tmp_path / "large")
    norms = [record["grad_norm"] for record in read_log(tmp_path / "large" / "log.jsonl")]
    assert len(norms) > 1 and norms[-1] > 10 * norms[0]
    config = TrainConfig(steps=60, lr=0.02, warmup=1, clip=1.0, log_every=20, save_every=60, precision="float32")
    assert math.isfinite(train(nn.Linear(4, 1), growth, batch, config, tmp_path / "small").loss)


def test_gradients_that_add_up():
    model, (x, y) = nn.Linear(4, 1), batch(0)
    (model(x) - y).square().mean().backward()
    once = model.weight.grad.clone()
    (model(x) - y).square().mean().backward()
    assert torch.allclose(model.weight.grad, 2 * once)
    model.zero_grad()
    (model(x) - y).square().mean().backward()
    assert torch.allclose(model.weight.grad, once)


def test_a_mask_the_wrong_way_round():
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, -1] += 1
    theirs, mask = nn.MultiheadAttention(8, 2, batch_first=True).eval(), causal_mask(6)

    def moved(allowed):
        a, b = (theirs(y, y, y, attn_mask=allowed, need_weights=False)[0] for y in (x, changed))
        return ((a - b)[0, :-1].abs().amax(-1) > 1e-6).any()

    assert moved(mask) and not moved(~mask)
    heads = [rearrange(y, "b n (h d) -> b h n d", h=2) for y in (x, changed)]
    assert torch.equal(*(attention(q, q, q, mask)[:, :, :-1] for q in heads))  # ours takes it as it is
    assert not torch.equal(*(attention(q, q, q, ~mask)[:, :, :-1] for q in heads))


def test_a_run_that_goes_on_elsewhere(tmp_path):
    config = TrainConfig(steps=8, lr=0.05, warmup=1, save_every=100, log_every=8, precision="float32")

    def one_by_one():
        stream = torch.Generator().manual_seed(0)
        return lambda step: torch.randn(16, 4, generator=stream)

    def by_step():
        return lambda step: torch.randn(16, 4, generator=torch.Generator().manual_seed(step))

    def run(make, folder, stop=None):
        def loss(model, x, generator):
            calls.append(1)
            if len(calls) == stop:
                signal.raise_signal(signal.SIGINT)
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        torch.manual_seed(0)
        model, calls = nn.Linear(4, 1), []
        if stop:
            with pytest.raises(KeyboardInterrupt):
                train(model, loss, make(), config, folder)
            stop, model, calls = None, nn.Linear(4, 1), []
        train(model, loss, make(), config, folder)
        return model.weight

    for make, same in ((by_step, True), (one_by_one, False)):
        whole, stopped = run(make, tmp_path / f"{same}"), run(make, tmp_path / f"{same} stopped", stop=4)
        assert torch.equal(whole, stopped) is same
        again = make()
        assert torch.equal(again(7), again(7)) is same


# ---------------------------------------------------------------- pictures and films


def stored(folder, film):
    """What a film's file holds, as whole grey levels from 0 to 255."""
    return ((read_film(save_film(folder / "film.png", film)) + 1) * 127.5).round()


def test_pale_films(tmp_path):
    film = torch.rand(2, 3, 8, 8)
    film[0, :, 0, 0] = 0  # black
    assert film.min() == 0 and stored(tmp_path, film).min() == 128
    assert stored(tmp_path, 2 * film - 1).min() == 0


def test_two_normalisations(tmp_path):
    film = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)
    twice = 2 * film - 1
    assert twice.min() == -3 and (stored(tmp_path, twice) == 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert (stored(tmp_path, film) == 0).float().mean() < 0.02


def test_grey_after_one_step():
    """Films that are black or white, each as often; the best network that there can be guesses tanh(α x / σ²)."""
    process = Cosine()

    def network(x, t):
        alpha, sigma = (value.reshape(-1, 1) for value in (process.alpha(t), process.sigma(t)))
        return torch.tanh(alpha * x / sigma**2)

    noise = torch.randn(64, 4)
    found = {steps: ddim(process.denoiser(network, "x"), noise, process, steps).abs() for steps in (1, 5, 50)}
    assert found[1].max() < 0.05 and found[50].mean() > 0.95
    assert found[1].mean() < found[5].mean() < found[50].mean()


def test_the_wrong_kind_of_prediction():
    process, film = Cosine(), torch.randn(4, 3)

    def network(x, t):  # predicts v of this one film, without fault
        alpha, sigma = (value.reshape(-1, 1) for value in (process.alpha(t), process.sigma(t)))
        return process.target(film, (x - alpha * film) / sigma, t, "v")

    noised = process.add_noise(film, torch.randn(4, 3), torch.full((4,), 0.3))
    guess = {kind: process.denoiser(network, kind)(noised, 0.3)[0] for kind in ("v", "eps", "x")}
    assert torch.allclose(guess["v"], film, atol=1e-4)
    assert (guess["eps"] - film).abs().mean() > 0.1 and (guess["x"] - film).abs().mean() > 0.1


def test_a_film_that_flickers():
    still = torch.stack([torch.full((6, 3, 4, 4), value) for value in (-0.8, 0.8)])
    frames = rearrange(still, "b t c h w -> (b t) c h w")
    right, wrong = (rearrange(frames, f"({order}) c h w -> b t c h w", b=2) for order in ("b t", "t b"))
    assert torch.equal(right, still)
    assert still.diff(dim=1).abs().max() == 0 and wrong.diff(dim=1).abs().max() == pytest.approx(1.6)


def test_the_prompt_makes_no_difference():
    table = nn.Embedding(4, 3)

    def film(prompt, scale):
        network = guide(lambda x, t, c: x + c, {"c": table(prompt)}, {"c": table(torch.zeros(1, dtype=int))}, scale)
        return network(torch.ones(1, 3), torch.full((1,), 0.5))

    one, two = torch.tensor([1]), torch.tensor([2])
    assert torch.equal(film(one, 0), film(two, 0))
    apart = [(film(one, scale) - film(two, scale)).abs().sum() for scale in (1, 3)]
    assert 0 < apart[0] < apart[1]


def test_another_answer_each_time():
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3)), torch.randn(4, 8)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_an_average_of_the_start():
    assert 0.9 < 0.999**100 < 0.91
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)  # the start
    ema, plain = EMA(model, 0.999), 1.0
    assert ema.rate() == 0.1
    nn.init.zeros_(model.weight)  # and what was learnt
    for _ in range(100):
        ema.update(model)
        plain = 0.999 * plain + 0.001 * 0.0
    assert plain == pytest.approx(0.999**100) and float(ema.shadow["weight"]) < 1e-3


# ---------------------------------------------------------------- the course


def test_cuda_is_not_seen(monkeypatch):
    monkeypatch.delenv("SORALAB_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device().type == "cpu"
    monkeypatch.setenv("SORALAB_DEVICE", "cuda")
    with pytest.raises(ValueError, match="this machine has no such device: unset it"):
        device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("SORALAB_DEVICE", "cpu")
    assert device().type == "cpu"
    monkeypatch.delenv("SORALAB_DEVICE")
    assert device().type == "cuda"


def test_a_terminal_without_the_command(tmp_path):
    """The environment's folder of commands, which activating puts on the path, has it; another folder has not."""
    folder = sysconfig.get_path("scripts")
    assert shutil.which("soralab", path=tmp_path) is None
    assert shutil.which("soralab", path=os.pathsep.join([str(tmp_path), folder])) is not None


def test_weights_that_fit_and_are_read_wrongly(tmp_path, capsys):
    """The same file with other heads, and with pixels in [0, 1]: every name and shape fits, each answer is another."""
    theirs = ViT(ViTConfig(image=8, dim=768, depth=1, heads=12, classes=5)).requires_grad_(False)
    nn.init.normal_(theirs.head.weight)
    state, x = export(torchvision_layout(theirs)), torch.rand(2, 3, 8, 8) * 2 - 1
    save_file(state, tmp_path / "w.safetensors")
    right, other = ViT.from_torchvision(state), ViT.from_torchvision(state, heads=16)
    assert torch.equal(right(x), theirs(x))
    for wrong in (other(x), right((x + 1) / 2)):
        assert (wrong - theirs(x)).abs().max() > 1e-3
    assert main(["weights", "check", str(tmp_path / "w.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "match" in said and "no weight tells: heads" in said and "no weight tells: ..." in PAGE


def test_a_kernel_without_the_module(tmp_path):
    def other(*options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, *options, "-c", "import soralab"], cwd=tmp_path, capture_output=True,
                              text=True, env=environment)  # fmt: skip

    without = other("-I", "-S")  # a Python that knows nothing of this one's packages
    assert without.returncode and without.stderr.strip().endswith("No module named 'soralab'")
    assert other().returncode == 0


def test_a_module_that_is_older_than_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "toy_model_of_mine.py").write_text("WIDTH = 3\n")
    toy = importlib.import_module("toy_model_of_mine")
    (tmp_path / "toy_model_of_mine.py").write_text("WIDTH = 64\n")
    assert importlib.import_module("toy_model_of_mine").WIDTH == 3
    del sys.modules["toy_model_of_mine"]  # as a kernel that is restarted has nothing
    importlib.invalidate_caches()
    assert importlib.import_module("toy_model_of_mine").WIDTH == 64 and toy.WIDTH == 3


def test_a_check_that_is_run_twice(capsys):
    task = exercise("unet.valid_sizes")

    def valid_sizes(*_):
        return [1]

    said, handed = [], valid_sizes
    for _ in range(2):
        handed = task.check(handed)
        said.append(capsys.readouterr().out)
    assert said[0].startswith("✗ not yet") and said[1].startswith("☐ not yours") and "✓" not in "".join(said)
    assert all(mark in PAGE for mark in re.findall(r"[✗☐] not \w+", "".join(said)))
