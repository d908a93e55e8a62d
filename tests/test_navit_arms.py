"""Chapter 07's two experiments beside its card: ways of dropping tokens, and positions where they were not trained."""

import json
from random import Random
from statistics import mean

import pytest
import torch

from soralab.datasets.native_sizes import size
from soralab.experiments import navit_dropping as dropping
from soralab.experiments import navit_positions as positions
from soralab.experiments import navit_speed
from soralab.navit import NaViT
from soralab.recipes.navit import CONFIG, LENGTH, ROWS, Batches

TOKENS = [size(10, k)[0] * size(10, k)[1] // 16 for k in range(3000)]
STEPS = 60


def rates(arm):
    """The rates of as many pictures as a training of STEPS sees, from the first to the last."""
    rate, rng = dropping.rate(arm, TOKENS, STEPS), Random(1)
    total = round(STEPS * ROWS * LENGTH / (mean(TOKENS) * 0.5))
    return [rate(rng, TOKENS[seen % len(TOKENS)], seen) for seen in range(total)]


@pytest.mark.parametrize("arm", [arm for arm in dropping.ARMS if arm != "whole pictures"])
def test_all_ways_drop_half_on_the_mean(arm):
    assert mean(rates(arm)) == pytest.approx(0.5, abs=0.012)


def test_each_way_is_what_its_name_says():
    assert dropping.rate("whole pictures", TOKENS, STEPS) is None
    assert set(rates("constant")) == {0.5}
    beta, by_size, falling, rising = (rates(arm) for arm in dropping.ARMS[2:])
    assert min(beta) < 0.02 and max(beta) > 0.98 and abs(mean(beta[:1500]) - mean(beta[-1500:])) < 0.05
    assert falling[0] == pytest.approx(0.8, abs=0.01) and falling[-1] == pytest.approx(0.2, abs=0.01)
    assert falling == sorted(falling, reverse=True)
    assert rising == pytest.approx([1 - rate for rate in falling])
    small, large = ([rate for rate, n in zip(by_size, TOKENS, strict=False) if low <= n < high]
                    for low, high in ((0, 25), (120, 200)))  # fmt: skip
    assert mean(small) < 0.35 and mean(large) > 0.75


def test_a_rate_is_told_how_many_pictures_came_before():
    """As the epoch's order has it, and on through the epochs; each picture once an epoch."""
    shown = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 50
    told = []
    batches = Batches(shown, torch.arange(50), length=12, rows=2, seed=1,
                      rate=lambda rng, tokens, seen: told.append(seen) or seen / 1000)  # fmt: skip
    batches(0), batches(20)
    assert sorted(told[:50]) == list(range(50)) and sorted(told[50:100]) == list(range(50, 100))
    assert told[:50] != sorted(told[:50])
    order = [told.index(seen) for seen in range(50)]  # the picture that comes first, second, ...
    first = batches(0)["label"].tolist()
    assert first == order[: len(first)]


def test_every_way_trains_a_copy_with_its_own_rates_once(tmp_path, monkeypatch):
    asked = []

    def further(folder, build, batches, steps, seeds):
        made = batches(seeds[0])
        asked.append((folder.name, steps, seeds, made.seed, made.rate))
        return [build()]

    shipped = NaViT(CONFIG)
    monkeypatch.setattr(dropping, "load", lambda: shipped)
    monkeypatch.setattr(dropping, "further", further)
    monkeypatch.setattr(dropping, "over_dropping", lambda model, count: {"0.0": float(model is shipped), "of": count})
    table = dropping.compare(tmp_path, 2, (4, 5), 9, 120)
    assert [*table] == [*dropping.ARMS] and all(len(rows) == 2 for rows in table.values())
    assert [name for name, *_ in asked[:6]] == [arm.replace(" ", "_") for arm in dropping.ARMS]
    assert [(steps, seeds, seed) for _, steps, seeds, seed, _ in asked] == [(2, (4,), 4)] * 6 + [(2, (5,), 5)] * 6
    assert [rate is None for *_, rate in asked] == [True, *[False] * 5] * 2
    for way, rows in table.items():
        assert all(row["0.0"] == 0 and row["of"] == 9 for row in rows)  # a copy: the shipped one is left alone
        assert all((row["pictures"] > 110) == (way != "whole pictures") for row in rows)
    assert dropping.compare(tmp_path, 2, (4, 5), 9, 120) == table and len(asked) == 12


def test_pictures_of_each_kind_are_as_large_and_as_long_as_it_says():
    for kind, ((low, high), (least, most)) in positions.ASKED.items():
        shown, labels = positions.pictures(60, "test", kind)
        assert len(shown) == len(labels) == 60 and 0 <= labels.min() and labels.max() <= 8
        for picture in shown:
            height, width = picture.shape[1:]
            assert low - 2.5 <= (height * width) ** 0.5 <= high + 2.5
            assert least <= max(height, width) / min(height, width) <= most
        assert positions.the_middle(kind, 60) == (labels == 4).double().mean().item()
    shown, _ = positions.pictures(60, "train")
    assert not any(torch.equal(a, b) for a in shown[:20] for b in positions.pictures(60, "test")[0])
    with pytest.raises(KeyError):
        positions.pictures(1, "test", "square")


def test_both_kinds_of_positions_train_alike(tmp_path, monkeypatch):
    asked = []

    def fit(build, training, batches, folder):
        torch.manual_seed(training.seed)
        made = build()
        asked.append((folder.name, made.positions.kind, made.config, training, batches(0)))
        return made, None

    monkeypatch.setattr(positions, "fit", fit)
    monkeypatch.setattr(positions, "accuracy", lambda model, shown, labels: len(shown))
    table = positions.compare(tmp_path, 3, (1, 2), 7, 90)
    assert table == {kind: [dict.fromkeys(positions.ASKED, 7)] * 2 for kind in ("absolute", "fractional")}
    assert [name for name, *_ in asked] == ["absolute_1", "fractional_1", "absolute_2", "fractional_2"]
    for one, other in ((asked[0], asked[1]), (asked[2], asked[3])):
        assert (one[1], other[1]) == ("absolute", "fractional") and one[3] == other[3]
        assert {key for key in vars(one[2]) if vars(one[2])[key] != vars(other[2])[key]} == {"positions"}
        assert all(torch.equal(one[4][key], other[4][key]) for key in one[4])
    assert positions.compare(tmp_path, 3, (1, 2), 7, 90) == table and len(asked) == 4


@pytest.mark.parametrize("experiment", [dropping, positions])
def test_the_file_is_what_the_code_would_make(experiment, tmp_path, monkeypatch):
    """Sizes and names; that the numbers are these is what the training shows."""
    told = []
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    monkeypatch.setattr(experiment, "compare", lambda folder, **sizes: told.append(sizes) or {"a": [1]})
    experiment.main(tmp_path / "here" / "made.json", tmp_path)
    made = json.loads((tmp_path / "here" / "made.json").read_text())
    shipped = json.loads(experiment.FILE.read_text(encoding="utf-8"))
    assert made.pop("runs") == {"a": [1]} and {key: shipped[key] for key in made} == made
    assert set(shipped["runs"]) == set(getattr(experiment, "ARMS", ("absolute", "fractional")))
    assert {len(rows) for rows in shipped["runs"].values()} == {len(told[0]["seeds"])} == {3}


@pytest.mark.parametrize("measured", [navit_speed.throughput, navit_speed.dropping])
def test_measuring_speed_leaves_the_readers_draws_alone(measured, monkeypatch):
    """And its own weights are the same each time."""
    made, real = [], navit_speed.in_turns
    monkeypatch.setattr(navit_speed, "in_turns", lambda works, times: made.append(works) or real(works, times))
    torch.manual_seed(3)
    wanted = torch.rand(4)
    for before in (3, 4):
        torch.manual_seed(before)
        assert measured(count=2, times=1)
        assert before == 4 or torch.equal(torch.rand(4), wanted)
    first, second = (next(iter(works.values())).args[0].state_dict() for works in made)
    assert all(torch.equal(first[key], second[key]) for key in first)
