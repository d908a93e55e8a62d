"""Three ways to lose less by windows: what each lets a token see, and how they are compared at equal seconds."""

import json
from dataclasses import replace
from statistics import mean
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from prose import prose_of

from soralab.experiments import walt_windows as experiment
from soralab.experiments.walt_ablations import attention_flops
from soralab.experiments.walt_windows import WAYS, Shifted, run_of
from soralab.recipes.walt import LARGE
from soralab.walt import InWindows, Walt

SMALL = replace(LARGE, dim=24, depth=4, heads=1, words=8)


def loud(model):
    """A network all of whose weights count: none is zero."""
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def inputs(frames=3):
    rng = torch.Generator().manual_seed(0)
    return (torch.randn(2, frames, 16, 12, 12, generator=rng), torch.rand(2, generator=rng),
            torch.randint(1, 99, (2, 5), generator=rng))  # fmt: skip


@pytest.mark.parametrize("size, window, shift", [
    ((1, 6, 6), (1, 3, 3), (0, 1, 1)), ((3, 4, 6), (3, 2, 3), (0, 1, 0)), ((3, 4, 4), (1, 2, 2), (1, 0, 1)),
])  # fmt: skip
def test_a_token_sees_the_window_that_it_has_after_the_film_was_rolled(size, window, shift):
    places = torch.cartesian_prod(*map(torch.arange, size))
    rng = torch.Generator().manual_seed(3)
    q, k, v = torch.randn(3, 2, 1, len(places), 16, dtype=torch.float64, generator=rng)
    cell = (places - torch.tensor(shift)) % torch.tensor(size) // torch.tensor(window)
    together = (cell[:, None] == cell[None]).all(-1)
    seen = Shifted(InWindows(size, window, "torch"), shift)(q, k, v)
    torch.testing.assert_close(seen, F.scaled_dot_product_attention(q, k, v, attn_mask=together))
    assert not torch.allclose(seen, InWindows(size, window, "torch")(q, k, v))


@pytest.mark.parametrize("frames", [1, 3])
def test_the_two_ends_are_chapter_11_s_networks(frames):
    for way, windows in (("windows", LARGE.windows), ("full", None)):
        other = loud(Walt(replace(SMALL, windows=windows), "torch"))
        model = run_of(way).build(SMALL)
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model(*inputs(frames)), other(*inputs(frames)))


def together(way, block, size=(3, 6, 6)):
    """Which tokens see which in a block of a way: bool [size, size]."""
    n = size[0] * size[1] * size[2]
    q, v = torch.zeros(1, 1, n, n), torch.eye(n)[None, None]
    return run_of(way).build(SMALL).attend(size, block)(q, q, v)[0, 0].view(*size, *size) > 0


def test_what_each_way_puts_into_one_window():
    t, h, w = (x.flatten() for x in torch.meshgrid(*map(torch.arange, (3, 6, 6)), indexing="ij"))

    def same(*groups):
        return torch.stack([group[:, None] == group[None] for group in groups]).all(0).view(3, 6, 6, 3, 6, 6)

    quarters, up, left = same(h // 3, w // 3), same(w // 3), same(h // 3)
    for way in list(WAYS)[:-1]:
        assert torch.equal(together(way, 0), same(t)) and torch.equal(together(way, 2), same(t))
    for way in ("windows", "shifted windows", "the last block full"):
        assert torch.equal(together(way, 1), quarters)
    assert torch.equal(together("windows", 3), quarters)
    # the second quarters begin a token further: the old border between rows 2 and 3 lies inside
    assert torch.equal(together("shifted windows", 3), same((h - 1) % 6 // 3, (w - 1) % 6 // 3))
    assert torch.equal(together("wider windows", 1), up) and torch.equal(together("wider windows", 3), left)
    assert together("the last block full", 3).all() and all(together("full", block).all() for block in range(4))


def test_each_way_films_otherwise_and_a_picture_differs_where_its_second_blocks_do():
    weights = loud(Walt(SMALL, "torch")).state_dict()
    films, pictures = [], []
    for way in WAYS:
        model = run_of(way).build(SMALL)
        model.load_state_dict(weights)
        films.append(model(*inputs()))
        pictures.append(model(*inputs(1)))
    pairs = [(a, b) for a in range(len(WAYS)) for b in range(a)]
    assert not any(torch.allclose(films[a], films[b], atol=1e-3) for a, b in pairs)
    assert torch.equal(pictures[0], pictures[1]) and torch.equal(pictures[0], pictures[2])
    assert not torch.allclose(pictures[0], pictures[3], atol=1e-3)


def test_all_take_at_most_six_tenths_of_full_attention_s_operations():
    full = attention_flops(run_of("full"))
    shares = {way: attention_flops(run_of(way)) / full for way in WAYS}
    assert shares == pytest.approx(dict(zip(WAYS, (7 / 24, 7 / 24, 5 / 12, 23 / 48, 1), strict=True)))
    assert sorted(shares.values())[-2] <= 0.6


def test_the_trainings_differ_in_windows_and_seed_alone():
    runs = [replace(run_of(way, 5, 77), build=None) for way in WAYS]
    assert len(set(map(repr, runs))) == 1
    assert (runs[0].training.seed, runs[0].training.steps, runs[0].config) == (5, 77, LARGE)
    assert runs[0].training.ema == 0.99  # half of what is averaged is younger than seventy steps, of six hundred


def stubbed(monkeypatch, tmp_path, pace):
    """Without trainings: what was timed, what was trained. The losses fall, from a thousandth of the films that they
    are of."""
    monkeypatch.setattr(experiment, "load_autoencoder", lambda: torch.nn.Linear(1, 1))
    monkeypatch.setattr(experiment, "Latents", lambda autoencoder, run: f"{run.scenes} scenes")
    timed, trained = [], []
    monkeypatch.setattr(experiment, "step_seconds", lambda runs, batches: timed.append(batches) or list(pace.values()))

    def fit(run, batches, folder):
        trained.append((run.training.steps, run.training.seed, batches, folder.name))
        return torch.nn.Linear(1, 1), SimpleNamespace()

    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.setattr(experiment, "loss", lambda model, autoencoder, films: (films - 10 * len(trained)) / 1000)
    monkeypatch.setattr(experiment, "FILE", tmp_path / "new" / "windows.json")
    monkeypatch.setattr(experiment, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    return timed, trained


def test_equal_seconds_and_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    pace = dict(zip(WAYS, (0.2, 0.4, 0.1, 0.2, 0.25), strict=True))
    timed, trained = stubbed(monkeypatch, tmp_path, pace)
    for _ in range(2):
        experiment.main()
    assert timed == ["4000 scenes"] and len(trained) == 15
    assert trained[:5] == [(steps, 1, "4000 scenes", f"{way.replace(' ', '_')}_1")
                           for way, steps in zip(WAYS, (600, 300, 1200, 600, 480), strict=True)]  # fmt: skip
    assert [seed for _, seed, *_ in trained] == [1] * 5 + [2] * 5 + [3] * 5
    found = experiment.load_experiment(experiment.FILE)
    assert found["full"]["losses"] == [0.206, 0.156, 0.106] and found["full"]["attention"] == 1.0
    assert json.loads(experiment.FILE.read_text(encoding="utf-8"))["films"] == 256
    line = experiment.table(found).splitlines()[1]
    assert line.split() == ["windows", "600", "29%", "0.2460", "0.1960", "0.1460", "0.1960", "+25.6%"]
    assert experiment.load_experiment(tmp_path / "none.json") == {}


def test_the_file_says_how_many_films_a_loss_is_of(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    stubbed(monkeypatch, tmp_path, dict.fromkeys(WAYS, 0.2))
    experiment.main()
    found = json.loads(experiment.FILE.read_text(encoding="utf-8"))
    assert found["films"] == 4 and found["ways"]["windows"]["losses"][0] == (4 - 10) / 1000


def test_the_page_tells_what_was_found():
    found, said = experiment.load_experiment(), prose_of("11_walt")
    losses = {way: row["losses"] for way, row in found.items()}
    assert list(found) == list(WAYS) and {len(row) for row in losses.values()} == {3} and "from three seeds" in said
    order = sorted(WAYS, key=lambda way: -mean(losses[way]))
    assert order == list(WAYS) == sorted(WAYS, key=lambda way: found[way]["attention"])
    for seed in zip(*losses.values(), strict=True):
        assert list(seed) == sorted(seed, reverse=True)
    assert "In every seed the order is that of the table" in said and "for as many, shifting helps a little" in said
    apart = max(losses["windows"]) - min(losses["windows"])
    assert mean(losses["windows"]) - mean(losses["shifted windows"]) < apart and "less than the seeds lie apart" in said
    above = {way: f"{100 * (mean(row) / mean(losses['full']) - 1):.1f}" for way, row in losses.items()}
    assert f"windows end {above['windows']} % above full attention, shifted ones {above['shifted windows']}" in said
    assert f"wider ones {above['wider windows']}" in said
    assert f"{above['the last block full']} are left, at 48 %" in said
    assert round(100 * found["the last block full"]["attention"]) == 48
    assert float(above["the last block full"]) < float(above["windows"]) / 2 and "wins back more than half" in said
    assert max(row["attention"] for way, row in found.items() if way != "full") < 0.6 and "**not met**" in said
    assert "upright in one round, lying in the next" in said and "Swin's mask keeps it apart there" in said
    assert found["windows"]["steps"] == experiment.STEPS == 600 and "620 steps for 600" in said
    assert found["full"]["steps"] == 620 and round(3 * 2.00 / 1.20) == 5 and "two thirds more steps" in said
