"""Chapter 05's recipe: what the measures measure, what a batch holds, and what the two kinds of bits are."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from soralab import world
from soralab.command import main
from soralab.datasets.what_and_where import CELLS, frames, sample, to_pixels
from soralab.experiments import vqvae as experiment
from soralab.experiments import vqvae_rate_distortion as rate_distortion
from soralab.experiments import vqvae_scores
from soralab.files.checkpoints import CHECKPOINTS, read_card
from soralab.recipes import vqvae
from soralab.vqvae import VQVAE, VQVAEConfig

TINY = VQVAEConfig(codes=9, dim=4, width=8)


def test_psnr_of_a_known_error():
    assert vqvae_scores.psnr(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.2)) == 20.0


def test_the_referee_sees_what_a_frame_shows_and_nothing_in_an_empty_one():
    pictures = to_pixels(frames(vqvae.SEED, range(8), split="test")[0])
    things = [sample(vqvae.SEED, k, "test").objects[0] for k in range(8)]
    assert vqvae_scores.seen(pictures) == [(thing.shape, thing.colour) for thing in things]
    assert vqvae_scores.seen(torch.full((1, 3, 32, 32), -1.0)) == [None]


class Numbers:
    """A model whose map of a picture is one code, the picture's number; it copies the picture `off` places on."""

    config = SimpleNamespace(codes=16, bits=lambda *size: float(sum(size)))

    def __init__(self, off=0):
        self.off, self.shown = off, []

    def encode(self, x):
        self.shown += [*x]
        return torch.arange(len(self.shown) - len(x), len(self.shown))[:, None, None]

    def decode(self, maps):
        return torch.stack([self.shown[(k + self.off) % len(self.shown)] for k in maps.flatten().tolist()])


def test_a_copy_is_read_right_where_it_is_of_its_own_frame():
    things = [sample(vqvae.SEED, k, "held_out").objects[0] for k in range(6)]
    right = vqvae_scores.measure(Numbers(), "held_out", 6)
    assert right == {"frames": 6, "bits": 64.0, "psnr": math.inf, "perplexity": 6.0, "codes used": 6,
                     "read right": 1.0, "originals": 1.0}  # fmt: skip
    off = vqvae_scores.measure(Numbers(off=1), "held_out", 6, read=4)
    alike = [(a.shape, a.colour) == (b.shape, b.colour) for a, b in zip(things[:4], things[1:], strict=False)]
    assert off["read right"] == sum(alike) / 4 < 1 and off["originals"] == 1 and off["psnr"] < 30


def test_a_copy_of_a_film_must_move_as_it_does():
    right, off = (vqvae_scores.measure_films(Numbers(off), 3) for off in (0, 1))
    assert right == {"films": 3, "bits": 32.0 + 32 + vqvae.FILM_FRAMES, "psnr": math.inf, "perplexity": 3.0,
                     "read right": 1.0, "originals": 1.0}  # fmt: skip
    assert off["read right"] == 0 and off["originals"] == 1


def test_a_prior_is_asked_for_each_shape_and_its_bits_are_the_mean_over_maps(monkeypatch):
    """It says of a map as many bits as its shape's number, and draws every shape but the last, of which the first."""
    shapes = [sample(vqvae.SEED, k, "test").objects[0].shape for k in range(300)]
    model, classes = Numbers(), len(world.SHAPES)
    order = torch.tensor([shapes.index(shape) for shape in (*world.SHAPES[:-1], world.SHAPES[0])])
    prior = SimpleNamespace(config=SimpleNamespace(classes=classes), bits=lambda z, shape: shape.float().mean(),
                            sample=lambda wanted, size, rng: order[wanted].reshape(-1, *size))  # fmt: skip
    monkeypatch.setattr(vqvae_scores, "by_place", lambda model, maps: 1.25)
    found = vqvae_scores.measure_prior(prior, model, count=300, samples=2)
    assert found.pop("bits") == pytest.approx(np.mean([world.SHAPES.index(shape) for shape in shapes]), abs=1e-3)
    assert found == {"bits by place": 1.25, "bits of nothing": 4.0, "samples": 2 * classes, "one thing": 1.0,
                     "right shape": (classes - 1) / classes}  # fmt: skip


def test_films_of_a_batch_are_pure_in_the_step_and_never_the_same():
    first, again, other = vqvae.film_batch(3), vqvae.film_batch(3), vqvae.film_batch(4)
    assert first["pixels"].shape == (8, 9, 3, 32, 32) and torch.equal(first["pixels"], again["pixels"])
    assert not torch.equal(first["pixels"], other["pixels"])


def test_maps_come_with_the_shape_of_their_frame():
    torch.manual_seed(0)
    model = VQVAE(TINY).eval()
    pictures, labels = frames(vqvae.SEED, range(40))
    maps, shapes = vqvae.encoded(model, pictures), labels // CELLS**2
    batch = vqvae.Maps(model, 40)(0)
    assert batch["indices"].shape == (32, 8, 8) and set(shapes.tolist()) == set(range(len(world.SHAPES)))
    for indices, label in zip(batch["indices"], batch["label"], strict=True):
        assert label in shapes[(maps == indices).flatten(1).all(1)]


@pytest.mark.parametrize("known", [0, 3])
def test_bits_by_place_count_how_often_a_code_stood_there(known, monkeypatch):
    """200 times code 0 at every place, and one more of each of the four: 201 of 204, or 1 of 204."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    model = SimpleNamespace(config=SimpleNamespace(codes=4), encode=lambda x: x.new_zeros(len(x), 2, 2).long())
    bits = vqvae_scores.by_place(model, torch.full((5, 2, 2), known))
    assert bits == pytest.approx(math.log2(204 / (201 if known == 0 else 1)), rel=1e-5)


def test_the_vaes_bits_are_its_divergence_from_the_standard_normal():
    torch.manual_seed(0)
    model = rate_distortion.GaussianVAE(TINY)
    x = torch.rand(3, 3, 8, 8) * 2 - 1
    mean, logvar = model.encoder(x).chunk(2, dim=-1)
    q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    want = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    copy, divergence = model(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(divergence, want, rtol=1e-4, atol=1e-5)
    assert mean.shape == (3, 2, 2, 4) and copy.shape == x.shape
    loss = rate_distortion.vae_loss(2.0)(model, {"pixels": x}, torch.Generator().manual_seed(1))
    by_hand = (copy - x).square().mean() / vqvae.VARIANCE + 2.0 * want.mean() / (3 * 8 * 8)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_what_the_chapter_says_of_its_tables_holds_in_the_cards():
    """Sentences of notebook 05 as numbers: a new training could make one of them untrue."""
    metrics, prior = read_card("vqvae")["metrics"], read_card("vqvae_prior")["metrics"]["test"]
    bits, psnr = zip(*sorted((row["bits"], row["psnr"]) for row in metrics["vae"].values()), strict=True)
    codes = metrics["codes"]
    both = [row for row in codes.values() if bits[0] <= row["bits"] <= bits[-1]]
    assert len(both) >= 3 and all(np.interp(row["bits"], bits, psnr) > row["psnr"] for row in both)
    assert codes["8"]["psnr"] - codes["2"]["psnr"] > 3 and codes["512"]["psnr"] - codes["128"]["psnr"] < 1
    books = {name: row["psnr"] for name, row in metrics["codebooks"].items()}
    assert books["gradient"] < books["averages"] < books["averages, revived"]
    assert abs(books["averages"] - codes["32"]["psnr"]) < 0.5  # "the picture of a smaller codebook"
    small = {name: books[name + rate_distortion.SMALL] for name in rate_distortion.CODEBOOKS}
    assert small["averages"] - books["averages"] > 1 and abs(small["averages"] - small["averages, revived"]) < 0.2
    used = {name: row["perplexity"] for name, row in metrics["codebooks"].items()}
    twice = used["averages, revived" + rate_distortion.SMALL] / used["averages" + rate_distortion.SMALL]
    assert 1.8 < twice < 2.2  # "twice the codes in use"
    assert round(np.log2(used["averages"])) == 4  # "7 bits paid, 4 used"
    prose = chapter_5()
    assert f"{books['averages']:.1f} dB to {small['averages']:.1f}" in prose
    assert f"costs {64 * prior['bits']:.0f} bits in place of 448" in prose
    assert f"the shipped model, {metrics['test']['psnr']:.1f} dB on all {metrics['test']['frames']:,} test" in prose
    assert metrics["test"]["read right"] > 0.95  # "read right nearly always"
    assert prior["bits"] < prior["bits by place"] < prior["bits of nothing"] and prior["bits"] < 2


def test_a_short_run_ends_where_the_chapter_says():
    runs = json.loads((Path(__file__).parent / "band_runs" / "vqvae.json").read_text(encoding="utf-8"))
    ends = [[loss for loss in run["log"]["loss"] if loss][-1] for run in runs if run["kind"] == "good"]
    assert len(ends) >= 2 and all(0.08 < loss < 0.12 for loss in ends)
    assert "Expect a loss near 0.1 at the end" in chapter_5()


def chapter_5() -> str:
    path = Path(__file__).resolve().parents[1] / "notebooks" / "05_vqvae.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_a_small_start_is_the_same_network_with_shorter_codes():
    for decay in (0.0, 0.9):
        config = VQVAEConfig(codes=64, dim=16, width=8, decay=decay)
        one, short = vqvae.build(config), rate_distortion.shortened(vqvae.build(config))
        torch.testing.assert_close(short.quantizer.codebook * 4, one.quantizer.codebook)
        assert short.quantizer.codebook.square().sum(1).mean().item() == pytest.approx(1, rel=0.1)
        if decay:
            torch.testing.assert_close(short.quantizer.total, short.quantizer.codebook)
        assert torch.equal(next(short.encoder.parameters()), next(one.encoder.parameters()))


def test_a_code_stands_for_what_lay_where_it_was_chosen(monkeypatch):
    """Two frames of four places, painted by hand: the mean over a code's places, its neighbours' pixels around it."""
    maps = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [2, 1]]])
    x = (maps.double() + torch.tensor([0.0, 10.0])[:, None, None]).repeat_interleave(4, 1).repeat_interleave(4, 2)
    x = x[:, None].expand(-1, 3, -1, -1)
    monkeypatch.setattr(vqvae_scores, "encoded", lambda model, pictures: maps)
    shown = vqvae_scores.around_codes(SimpleNamespace(config=SimpleNamespace(codes=4)), x.float(), reach=1)
    assert shown.shape == (4, 3, 6, 6) and not shown[3].any()
    assert shown[2, 0, 1:5, 1:5].unique().tolist() == [12.0] and shown[2, 0, 0, 2] == 10 and shown[2, 0, 2, 5] == 11
    assert shown[2, 0, 2, 0] == 12 and shown[2, 0, 5, 2] == 12  # beyond the frame lies its last pixel again
    wide = vqvae_scores.around_codes(SimpleNamespace(config=SimpleNamespace(codes=4)), x.float())
    assert wide.shape == (4, 3, 8, 8)  # two pixels more on each side
    assert shown[0, 0, 2, 2].item() == pytest.approx((0 + 10 + 10) / 3)


def test_the_three_codebooks_differ_in_what_they_are_named_for():
    gradient, averages, revived = rate_distortion.CODEBOOKS.values()
    assert (gradient.decay, gradient.revive) == (0.0, 0.0)
    assert (averages.decay, averages.revive) == (0.99, 0.0)
    assert revived == vqvae.CONFIG and revived.revive > 0
    assert {(c.codes, c.dim, c.width) for c in rate_distortion.CODEBOOKS.values()} == {(128, 16, 64)}


def test_the_experiments_are_labelled_as_the_notebook_reads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(rate_distortion, "CODES", (2, 128))
    monkeypatch.setattr(rate_distortion, "KL_WEIGHTS", (1.0,))
    tables = rate_distortion.experiments(tmp_path)
    assert list(tables) == ["codes", "vae", "codebooks"]
    assert {k: row["bits"] for k, row in tables["codes"].items()} == {"2": 64.0, "128": 448.0}
    assert tables["codebooks"]["averages, revived"] is tables["codes"]["128"]
    assert all(row["learning"] and row["psnr"] > 0 for row in tables["codebooks"].values())
    assert list(tables["vae"]) == ["1.0"] and tables["vae"]["1.0"]["bits"] >= 0


@pytest.mark.parametrize("name, other", [*itertools.permutations(("vqvae", "vqvae_films", "vqvae_prior"), 2)])
def test_a_checkpoint_of_another_kind_is_told_by_what_measures_it(name, other, capsys, monkeypatch):
    monkeypatch.setattr(experiment, "scores", lambda *_: pytest.fail("it was measured"))
    assert main(["evaluate", name, "--checkpoint", other]) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert f"--checkpoint is {other!r}, which `soralab evaluate {other}` measures: name another for {name}" in line


def test_a_checkpoint_of_the_same_kind_is_measured(monkeypatch):
    monkeypatch.setattr(experiment, "scores", lambda name, model: {"test": {"codes": model.config.codes}})
    for name, codes in (("vqvae", 128), ("vqvae_films", 256), ("vqvae_prior", 128)):
        for checkpoint in (None, str(CHECKPOINTS / name)):
            assert experiment.evaluate(name, checkpoint).split() == ["test", "codes", str(codes)]
