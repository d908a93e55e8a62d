"""What a run is asked beside its loss: each probe sees the one mistake that the loss does not."""

import math
import signal

import pytest
import torch
from torch import nn

from soralab.training.ema import EMA
from soralab.training.loop import TrainConfig, train
from soralab.training.probes import MARKS, Probes
from soralab.training.state import read_log

CONFIG = TrainConfig(steps=40, lr=0.05, warmup=1, cooldown=0, ema=0.8, log_every=3, precision="float32")
TRUTH = torch.randn(6, 3, generator=torch.Generator().manual_seed(7))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def batch_fn(step, size=16):
    x = torch.randn(size, 6, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x @ TRUTH}


def loss_fn(model, batch, generator):
    noise = 0.01 * torch.randn(batch["x"].shape, generator=generator)
    return (model(batch["x"] + noise) - batch["y"]).square().mean(), {"extra": 1.0}


def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Dropout(0.1), nn.Linear(12, 3))


def probes(**options):
    return Probes(loss_fn, batch_fn(10**6, 128), CONFIG.steps, **{"swap": ("y",), "groups": 32, **options})


def marks_of(folder, model=None, config=CONFIG, batches=batch_fn, **options):
    """The probed lines of a run's log, and the model."""
    model = model or build()
    result = train(model, loss_fn, batches, config, folder, probes=probes(**options))
    return [record for record in read_log(result.log) if "held" in record], model, result


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_marks_are_the_first_lines_at_or_after_a_tenth_three_tenths_and_the_end(tmp_path):
    found, _, _ = marks_of(tmp_path)
    assert MARKS == (0.1, 0.3, 1.0)
    assert [record["step"] for record in found] == [6, 12, 40]
    assert all({"held", "pairing", "lag", "way", "still"} <= record.keys() for record in found)


def test_the_run_is_the_same_with_and_without_probes(tmp_path):
    _, model, result = marks_of(tmp_path / "with", sample=lambda model: torch.randn(2))
    other = build()
    plain = train(other, loss_fn, batch_fn, CONFIG, tmp_path / "without")
    assert same(model, other)
    assert [r["loss"] for r in read_log(result.log)] == [r["loss"] for r in read_log(plain.log)]
    assert model.training


def test_each_probe_is_what_it_says(tmp_path):
    """By hand, from the weights of the start, the last ones and the average."""
    start = [p.detach().clone() for p in build().parameters()]
    found, model, result = marks_of(tmp_path)
    last = [p.detach().clone() for p in model.parameters()]
    mean = list(result.ema.shadow.values())

    def length(values):
        return math.sqrt(sum(v.square().sum().item() for v in values))

    way = length([a - b for a, b in zip(last, start, strict=True)])
    behind = length([a - b for a, b in zip(last, mean, strict=True)])
    assert found[-1]["way"] == pytest.approx(way / length(start), rel=1e-5)
    assert found[-1]["lag"] == pytest.approx(behind / way, rel=1e-5) and 0.02 < behind / way < 0.5
    assert found[-1]["still"] == 0
    model.eval()
    result.ema.copy_to(model)
    groups = [{k: v[4 * g : 4 * g + 4] for k, v in batch_fn(10**6, 128).items()} for g in range(32)]
    with torch.no_grad():
        right, wrong = ([loss_fn(model, each, torch.Generator().manual_seed(g))[0] for g, each in enumerate(which)]
                        for which in (groups, [{"x": b["x"], "y": b["y"].roll(1, 0)} for b in groups]))  # fmt: skip
    worse = torch.stack(wrong) - torch.stack(right)
    assert found[-1]["held"] == pytest.approx(sum(right).item() / 32, rel=1e-5)
    assert found[-1]["pairing"] == pytest.approx((worse.mean() / worse.std()).item(), rel=1e-4)


def test_each_mistake_has_its_probe(tmp_path, monkeypatch):
    right = marks_of(tmp_path / "right")[0]
    slow = marks_of(tmp_path / "slow", config=TrainConfig(**(CONFIG.card() | {"lr": CONFIG.lr / 10})))[0]
    assert 8 < right[0]["way"] / slow[0]["way"] < 12
    off = marks_of(tmp_path / "off", config=TrainConfig(**(CONFIG.card() | {"ema": 0.0})))[0]
    assert [mark["lag"] for mark in off] == [0, 0, 0] and all(mark["lag"] > 0.02 for mark in right)
    frozen = build()
    frozen[3].requires_grad_(False)
    assert [mark["still"] for mark in marks_of(tmp_path / "frozen", frozen)[0]] == [2, 2, 2]
    mixed = marks_of(tmp_path / "mixed", batches=lambda step: batch_fn(step) | {"y": batch_fn(step)["y"].roll(1, 0)})[0]
    assert right[-1]["pairing"] > 1 and mixed[-1]["pairing"] < right[-1]["pairing"] / 2
    monkeypatch.setattr(EMA, "update", lambda self, model: None)
    never = marks_of(tmp_path / "never")[0]
    assert [mark["lag"] for mark in never] == pytest.approx([1, 1, 1])
    assert never[-1]["held"] == pytest.approx(never[0]["held"], rel=1e-6) and never[-1]["held"] > 2 * right[-1]["held"]


def test_what_is_made_at_a_mark_is_made_by_the_average_in_eval_mode(tmp_path):
    seen = []

    def sample(model):
        seen.append((model.training, model[0].weight.detach().clone()))
        return len(seen)

    watch = probes(sample=sample)
    model = build()
    result = train(model, loss_fn, batch_fn, CONFIG, tmp_path, probes=watch)
    assert watch.samples == {6: 1, 12: 2, 40: 3}
    assert [training for training, _ in seen] == [False] * 3
    assert torch.equal(seen[-1][1], result.ema.shadow["0.weight"]) and not torch.equal(seen[-1][1], model[0].weight)


def test_an_error_in_a_probe_gives_the_weights_and_the_mode_back(tmp_path):
    def broken(model):
        raise KeyError("no sample")

    model = build()
    with pytest.raises(KeyError, match="no sample"):
        train(model, loss_fn, batch_fn, CONFIG, tmp_path / "broken", probes=probes(sample=broken))
    other = build()
    train(other, loss_fn, batch_fn, TrainConfig(**(CONFIG.card() | {"steps": 6})), tmp_path / "six")
    assert model.training and same(model, other)


def test_a_resumed_run_knows_its_start(tmp_path):
    found, _, _ = marks_of(tmp_path / "whole")
    stop = TrainConfig(**(CONFIG.card() | {"save_every": 20}))

    def until(step):
        if step == 25:
            raise ZeroDivisionError
        return batch_fn(step)

    with pytest.raises(ZeroDivisionError):
        train(build(), loss_fn, until, stop, tmp_path / "again", probes=probes())
    again, _, _ = marks_of(tmp_path / "again", config=stop)
    assert again[-1]["way"] == found[-1]["way"] and again[-1]["held"] == found[-1]["held"]


def test_a_resumed_run_has_the_marks_of_an_undisturbed_one(tmp_path):
    """Those that are behind it are not made up for at the next line."""
    found, _, _ = marks_of(tmp_path / "whole")

    def until(step):
        if step == 25:
            signal.raise_signal(signal.SIGINT)
        return batch_fn(step)

    with pytest.raises(KeyboardInterrupt):
        train(build(), loss_fn, until, CONFIG, tmp_path / "again", probes=probes())
    again, _, _ = marks_of(tmp_path / "again")
    assert [record["step"] for record in again] == [record["step"] for record in found] == [6, 12, 40]


def test_without_a_swap_there_is_no_pairing_and_too_many_groups_are_refused(tmp_path):
    found = marks_of(tmp_path, swap=(), groups=128)[0]
    assert all("pairing" not in mark and "held" in mark for mark in found)
    for groups, swap in ((129, ()), (65, ("y",)), (128, ("y",))):
        with pytest.raises(ValueError, match=f"groups is {groups}, too many for 128 examples"):
            probes(groups=groups, swap=swap)


def test_a_network_that_does_not_listen_has_no_pairing(tmp_path):
    """The head at zero: a wrong label does the same harm; no spread, and no division by it."""
    model = build()
    nn.init.zeros_(model[3].weight)
    nn.init.zeros_(model[3].bias)
    watch = probes()
    watch.begin(model)
    found = watch({"step": 4}, model, EMA(model))
    assert abs(found["pairing"]) < 0.2 and found["way"] == 0 and found["lag"] == 0 and found["still"] == 4


def test_groups_may_be_given_where_examples_cannot_be_cut_apart(tmp_path):
    whole = batch_fn(10**6, 128)
    groups = [{k: v[4 * g : 4 * g + 4] for k, v in whole.items()} for g in range(32)]
    given = Probes(loss_fn, groups, CONFIG.steps, swap=("y",))
    cut = probes()
    model = torch.nn.Linear(1, 1)
    assert len(given.groups) == len(cut.groups) == 32
    for one, other in zip(given.groups, cut.groups, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    given.begin(model)
