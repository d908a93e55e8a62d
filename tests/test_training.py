"""The training loop: exact resume, clear stops, a log that can be trusted; EMA, prefetching, profiles."""

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from soralab.files import checkpoints
from soralab.files.checkpoints import CheckpointError, load_checkpoint
from soralab.training import loop, profiles
from soralab.training.data import Prefetch, batch_size, beside, map_tensors, model_flops, peak_gflops
from soralab.training.distributed import TEAM, Team
from soralab.training.ema import EMA
from soralab.training.interrupt import StopSignal
from soralab.training.loop import TrainConfig, autocast_dtype, learning_rate, step_seed, train
from soralab.training.muon import MuonAdamW
from soralab.training.progress import progress
from soralab.training.state import append_log, read_log, same_trained, trained_as, trim_log

TIMES = {"seconds", "samples_s", "wait_share"}  # what two runs of the same may differ in
CONFIG = TrainConfig(steps=30, lr=0.05, warmup=5, log_every=7, save_every=8, precision="float32", ema=0.9)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for name in ("SORALAB_PROFILE", "SORALAB_DEVICE"):
        monkeypatch.delenv(name, raising=False)


def build(width=16):
    """A model with all that makes resuming hard: dropout, buffers that move, a frozen part."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(),
                              nn.Dropout(0.2), nn.Linear(width, 1))
    model[0].requires_grad_(False)
    return model


def batch_fn(step):
    x = torch.randn(12, 8, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def loss_fn(model, batch, generator):
    noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
    loss = (model(batch["x"] + noise) - batch["y"]).square().mean()
    return loss, {"twice": 2 * loss}


def at_step(number, act):
    """`loss_fn` that does `act` the moment step `number` (from 1) of the run begins."""
    seen = {"step": None}

    def batches(step):
        return batch_fn(step) | {"step": step}

    def loss(model, batch, generator):
        seen["step"] = batch["step"] + 1
        if seen["step"] == number:
            extra = act()
            if extra is not None:
                return extra * loss_fn(model, batch, generator)[0]
        return loss_fn(model, batch, generator)

    return loss, batches


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[k], b[k]) for k in a)


def same_logs(a, b):
    a, b = ([{k: v for k, v in record.items() if k not in TIMES} for record in read_log(p)] for p in (a, b))
    return a == b and len(a) > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed: (model, result)."""
    os.environ["TQDM_DISABLE"] = "1"
    model = build()
    return model, train(model, loss_fn, batch_fn, CONFIG, tmp_path_factory.mktemp("whole"))


def assert_same_run(model, result, whole):
    assert same_weights(model, whole[0])
    assert all(torch.equal(v, result.ema.shadow[k]) for k, v in whole[1].ema.shadow.items())
    assert same_logs(result.log, whole[1].log)
    saved = [load_checkpoint(r.state)[0] for r in (result, whole[1])]
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(saved[0][k], v) for k, v in saved[1].items())


# ---------------------------------------------------------------- a run


def test_it_trains_and_logs(whole):
    model, result = whole
    log = read_log(result.log)
    assert [r["step"] for r in log] == [7, 14, 21, 28, 30]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"] and result.loss == log[-1]["loss"]
    assert set(log[0]) == {"step", "loss", "lr", "grad_norm", "twice"} | TIMES
    assert all(math.isclose(r["twice"], 2 * r["loss"], rel_tol=1e-5) for r in log)
    assert all(0 <= r["wait_share"] <= 1 and r["samples_s"] > 0 for r in log)
    assert log[1]["lr"] == learning_rate(13, CONFIG)
    assert model.training and torch.equal(model[0].weight, build()[0].weight)  # the frozen part stays
    card = json.loads(result.state.with_suffix(".json").read_text())
    assert card["step"] == 30 and card["config"]["lr"] == 0.05
    assert card["hardware"]["torch"] == torch.__version__


def test_the_log_holds_the_mean_since_the_line_before(tmp_path):
    losses = []

    def loss(model, batch, generator):
        value = loss_fn(model, batch, generator)[0]
        losses.append(value.item())
        return value

    seen = []
    result = train(build(), loss, batch_fn, CONFIG, tmp_path, on_log=seen.append)
    log = read_log(result.log)
    assert log == seen
    assert math.isclose(log[1]["loss"], sum(losses[7:14]) / 7, rel_tol=1e-6)
    assert math.isclose(log[-1]["loss"], sum(losses[28:]) / 2, rel_tol=1e-6)


def test_one_step_is_adamw_with_clipping(tmp_path):
    config = TrainConfig(steps=1, lr=0.1, warmup=0, cooldown=0, weight_decay=0.3, clip=0.01,
                         precision="float32")
    model, by_hand = nn.Linear(8, 1), nn.Linear(8, 1)
    by_hand.load_state_dict(model.state_dict())
    train(model, lambda m, b, g: (m(b["x"]) - b["y"]).square().mean(), batch_fn, config, tmp_path)
    batch = batch_fn(0)
    (by_hand(batch["x"]) - batch["y"]).square().mean().backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in by_hand.parameters()))
    for p in by_hand.parameters():
        grad = p.grad * 0.01 / norm
        # first step of Adam: both moments' bias corrections leave g / |g|
        expected = p.detach() * (1 - 0.1 * 0.3) - 0.1 * grad / (grad.abs() + 1e-8)
        torch.testing.assert_close(dict(model.named_parameters())[{1: "bias", 2: "weight"}[p.ndim]].detach(),
                                   expected, rtol=1e-4, atol=1e-6)
    [record] = read_log(tmp_path / "log.jsonl")
    assert math.isclose(record["grad_norm"], norm, rel_tol=1e-4)


def test_many_steps_are_torchs_adamw(tmp_path):
    """Betas, weight decay and the rate of each step: one step alone would tell none of the first."""
    config = TrainConfig(steps=12, lr=0.05, warmup=4, cooldown=0.25, betas=(0.5, 0.7), weight_decay=0.2, clip=math.inf,
                         precision="float32", log_every=1)
    model, by_hand = nn.Linear(8, 1).double(), nn.Linear(8, 1).double()
    by_hand.load_state_dict(model.state_dict())

    def loss(m, b, g):
        return (m(b["x"].double()) - b["y"]).square().mean()

    train(model, loss, batch_fn, config, tmp_path)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1.0, betas=(0.5, 0.7), weight_decay=0.2)
    rates = [0.05 * min((step + 1) / 4, 1, (12 - step) / 3) for step in range(12)]
    for step, rate in enumerate(rates):
        optimizer.zero_grad()
        loss(by_hand, batch_fn(step), None).backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    torch.testing.assert_close(model.weight, by_hand.weight, rtol=1e-9, atol=1e-12)
    train(model, loss, batch_fn, config, tmp_path)  # a card without infinity, and the same configuration again
    assert load_checkpoint(tmp_path / "state")[1]["config"]["clip"] is None
    assert [record["lr"] for record in read_log(tmp_path / "log.jsonl")] == pytest.approx(rates, rel=1e-9)


def test_it_trains_in_train_mode_and_gives_the_mode_back(tmp_path):
    modes = []

    def loss(model, batch, generator):
        modes.append(model.training)
        return loss_fn(model, batch, generator)

    model = build().eval()
    train(model, loss, batch_fn, dataclasses.replace(CONFIG, steps=3), tmp_path)
    assert modes == [True] * 3 and not model.training
    assert model[2].num_batches_tracked == 3  # in eval mode batch norm would not have counted


def test_groups_learn_at_their_own_rates(tmp_path):
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 1))
    before = [layer.weight.detach().clone() for layer in model]
    groups = [{"params": list(model[k].parameters()), "scale": scale} for k, scale in enumerate((1, 0.25))]
    config = TrainConfig(steps=1, lr=0.1, warmup=0, cooldown=0, precision="float32")
    train(model, lambda m, b, g: (m(b["x"]) - b["y"]).square().mean(), batch_fn, config, tmp_path, parameters=groups)
    for layer, old, rate in zip(model, before, (0.1, 0.025), strict=True):  # Adam's first step is the rate itself
        torch.testing.assert_close((layer.weight - old).abs(), torch.full_like(old, rate), rtol=1e-3, atol=0)


def test_samples_a_second_count_the_samples(tmp_path, monkeypatch):
    """A clock that ticks once whenever it is asked: 7 steps of 12 examples."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(loop, "Prefetch", Instant)
    result = train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=14), tmp_path)
    for record in read_log(result.log):
        assert record["samples_s"] == 12.0 and record["wait_share"] == 0.5
    assert result.seconds == 14 and result.wait_s == 7


class Instant:
    """In the place of Prefetch: batches without a thread, and half a second of waiting for each."""

    def __init__(self, batch_fn, start, stop, device):
        self.batch_fn, self.steps, self.wait_s = batch_fn, range(start, stop), 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        for step in self.steps:
            self.wait_s += 0.5
            yield self.batch_fn(step)


def test_learning_rate_rises_holds_and_falls():
    config = TrainConfig(steps=100, lr=2.0, warmup=10, cooldown=0.2)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10:81] == [2.0] * 71
    assert rates[80:] == pytest.approx([2.0 * (20 - i) / 20 for i in range(20)])
    longer = dataclasses.replace(config, steps=300)
    assert [learning_rate(step, longer) for step in range(80)] == rates[:80]  # what lengthening rests on
    flat = TrainConfig(steps=10, lr=1.0, warmup=0, cooldown=0.0)
    assert [learning_rate(step, flat) for step in range(10)] == [1.0] * 10


def test_seeds_differ_by_seed_and_step():
    seeds = {step_seed(seed, step) for seed in range(40) for step in range(40)}
    assert len(seeds) == 1600 and all(0 <= s < 2**63 for s in seeds)
    assert step_seed(0, 1) == 6096812863120040317  # the same in every process, for ever


def test_the_seed_changes_the_run_and_the_global_generator_is_given_back(whole, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    other = build()
    train(other, loss_fn, batch_fn, dataclasses.replace(CONFIG, seed=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not same_weights(other, whole[0])


def test_only_the_given_parameters_move(tmp_path):
    model, start = build(), build()
    train(model, loss_fn, batch_fn, CONFIG, tmp_path, parameters=model[5].parameters())
    assert torch.equal(model[1].weight, start[1].weight) and not torch.equal(model[5].weight, start[5].weight)
    with pytest.raises(ValueError, match="parameters is empty"):
        train(model.requires_grad_(False), loss_fn, batch_fn, CONFIG, tmp_path / "b")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1.5}, {"lr": -1}, {"cooldown": 1.1}, {"ema": 1.0},
                                   {"precision": "half"}, {"clip": float("nan")}, {"save_every": 0}])
def test_a_bad_configuration_names_its_field(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is "):
        TrainConfig(**{"steps": 10, **wrong})


@pytest.mark.parametrize("amx", [True, False, None])  # None: a PyTorch that cannot be asked
@pytest.mark.parametrize("avx512", [True, False, None])
def test_precision_auto_follows_the_machine(monkeypatch, amx, avx512):
    cpu = torch.device("cpu")
    for name, there in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512)):
        monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)
        if there is None:
            monkeypatch.delattr(torch.cpu, name)
    assert autocast_dtype("auto", cpu) == (torch.bfloat16 if amx or avx512 else None)
    assert autocast_dtype("float32", cpu) is None and autocast_dtype("bfloat16", cpu) == torch.bfloat16
    assert autocast_dtype("auto", torch.device("meta")) is None


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path):
    kinds = set()

    def loss(model, batch, generator):
        out = model(batch["x"])
        kinds.add(out.dtype)
        return (out.float() - batch["y"]).square().mean()

    model = build()
    train(model, loss, batch_fn, dataclasses.replace(CONFIG, precision="bfloat16", steps=2), tmp_path)
    assert kinds == {torch.bfloat16} and model[0].weight.dtype == torch.float32


# ---------------------------------------------------------------- interrupted and resumed


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_interrupted_and_resumed_equals_undisturbed(whole, tmp_path, number, error, capsys):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    loss, batches = at_step(13, lambda: signal.raise_signal(number))
    with pytest.raises(error):
        train(build(), loss, batches, CONFIG, tmp_path)
    assert f"stopped at step 13 of 30, state saved in {tmp_path}" in capsys.readouterr().err
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 13
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    model = build()
    assert_same_run(model, train(model, loss_fn, batch_fn, CONFIG, tmp_path), whole)


def test_a_stop_where_the_rate_begins_to_fall_is_kept_to_go_on_from(tmp_path, capsys):
    """There another state is saved too, for a run that is lengthened: it is not the one that counts."""
    config = dataclasses.replace(CONFIG, steps=20, cooldown=0.25, save_every=10)  # it falls from step 15 on
    loss, batches = at_step(15, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        train(build(), loss, batches, config, tmp_path / "stopped")
    assert load_checkpoint(tmp_path / "stopped" / "state")[1]["step"] == 15
    model = build()
    result = train(model, loss_fn, batch_fn, config, tmp_path / "stopped")
    whole = build(), None
    assert_same_run(model, result, (whole[0], train(whole[0], loss_fn, batch_fn, config, tmp_path / "whole")))


def test_of_two_states_the_later_one_is_gone_on_from(tmp_path):
    """After a kill behind the save of the stable one."""
    config = dataclasses.replace(CONFIG, steps=20, cooldown=0.25, save_every=10)

    def fail():
        raise RuntimeError("power cut")

    loss, batches = at_step(17, fail)
    with pytest.raises(RuntimeError):
        train(build(), loss, batches, config, tmp_path / "cut")
    assert [load_checkpoint(tmp_path / "cut" / name)[1]["step"] for name in ("state", "stable")] == [10, 15]
    seen, model, whole = [], build(), build()
    result = train(model, loss_fn, lambda step: seen.append(step) or batch_fn(step), config, tmp_path / "cut")
    assert min(seen) == 15
    assert_same_run(model, result, (whole, train(whole, loss_fn, batch_fn, config, tmp_path / "whole")))


@pytest.mark.parametrize("entry", [
    {"step": "x"}, {"step": 10.5}, {"config": 5}, {"stretch": 5}, {"stretch": {"sums": {}}}, {"seconds": None},
    {"config": {**CONFIG.card(), "of_a_later_version": 1}}, {"stretch": {"model": None}}, {"trained": 3},
    {"groups": 3}, {"groups": [3]},
])  # fmt: skip
def test_a_card_that_is_no_states_is_refused_in_one_line(tmp_path, entry):
    train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=8), tmp_path)
    card = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(card | entry))
    with pytest.raises(CheckpointError, match="is not that of a training state: remove the folder"):
        train(build(), loss_fn, batch_fn, CONFIG, tmp_path)


def test_a_line_of_the_log_that_is_no_record_is_passed_over(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n5\n[2]\n{"step": 3}\n')
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 3]


def test_what_heard_the_signals_before_hears_them_again():
    def mine(*_):
        pytest.fail("it was heard inside")

    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with StopSignal() as stop:
            assert stop.received is None and mine not in map(signal.getsignal, before)
            signal.raise_signal(signal.SIGTERM)
            assert stop.received == signal.SIGTERM
        assert [signal.getsignal(number) for number in before] == [mine, mine]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_stop_in_the_last_step_is_heard_and_the_run_is_complete(whole, tmp_path):
    loss, batches = at_step(30, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as info:
        train(build(), loss, batches, CONFIG, tmp_path)
    assert info.value.code == 143
    model = build()
    assert_same_run(model, train(model, loss_fn, None, CONFIG, tmp_path), whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was swallowed")

    loss, batches = at_step(13, twice)
    with pytest.raises(KeyboardInterrupt):
        train(build(), loss, batches, CONFIG, tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 8


def test_killed_and_resumed_equals_undisturbed(whole, tmp_path):
    """A kill that nothing can catch, between two saves: the log is ahead of the state."""
    code = ("import os, sys; sys.path[:0] = sys.argv[1:3]; import test_training as t\n"
            "loss, batches = t.at_step(15, lambda: os._exit(9))\n"
            "t.train(t.build(), loss, batches, t.CONFIG, sys.argv[3])")
    here = Path(__file__).resolve()
    run = subprocess.run([sys.executable, "-c", code, str(here.parents[1]), str(here.parent), str(tmp_path)])
    assert run.returncode == 9
    assert [r["step"] for r in read_log(tmp_path / "log.jsonl")] == [7, 14]
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 1')  # and a line that was cut off
    model = build()
    assert_same_run(model, train(model, loss_fn, batch_fn, CONFIG, tmp_path), whole)


def test_crash_before_the_first_save_begins_anew(whole, tmp_path):
    def fail():
        raise RuntimeError("power cut")

    loss, batches = at_step(7, fail)
    with pytest.raises(RuntimeError):
        train(build(), loss, batches, CONFIG, tmp_path)
    model = build()
    assert_same_run(model, train(model, loss_fn, batch_fn, CONFIG, tmp_path), whole)


def test_resume_in_small_pieces(whole, tmp_path):
    for stop in (3, 8, 9, 22, 26):
        loss, batches = at_step(stop, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(build(), loss, batches, CONFIG, tmp_path)
    model = build()
    result = train(model, loss_fn, batch_fn, CONFIG, tmp_path)
    assert_same_run(model, result, whole)
    assert result.seconds >= read_log(result.log)[-2]["seconds"] > 0


def test_a_finished_run_is_returned_without_a_step(whole, tmp_path):
    train(build(), loss_fn, batch_fn, CONFIG, tmp_path)
    model = build()
    result = train(model, None, None, CONFIG, tmp_path)
    assert_same_run(model, result, whole)
    assert result.loss == whole[1].loss


def test_resume_false_begins_anew(whole, tmp_path):
    train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, seed=3, steps=20), tmp_path)
    model = build()
    assert_same_run(model, train(model, loss_fn, batch_fn, CONFIG, tmp_path, resume=False), whole)


def test_a_lengthened_run_equals_one_that_was_long_at_once(whole, tmp_path):
    train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=20), tmp_path)
    model = build()
    result = train(model, loss_fn, batch_fn, CONFIG, tmp_path)
    assert same_weights(model, whole[0]) and [r["step"] for r in read_log(result.log)][-2:] == [28, 30]
    # steps may not shrink below what is done with the rate held up
    with pytest.raises(ValueError, match="steps is 10, but the state in .* is of a run of 30 steps"):
        train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=10), tmp_path)


def test_another_configuration_or_model_is_refused_by_name(tmp_path):
    train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=8), tmp_path)
    state = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"lr is 0\.5, but the state in .* was trained with 0\.05"):
        train(build(), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=8, lr=0.5), tmp_path)
    with pytest.raises(ValueError, match=r"model differs .* 1\.bias is \(16,\) there and \(20,\) here"):
        train(build(20), loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=8), tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == state


def test_a_state_of_other_trained_parameters_is_refused_by_name(tmp_path):
    """Their moments are kept by number: those of one would go on as another's, where the shapes are alike."""
    config = dataclasses.replace(CONFIG, steps=8)

    def trained(order):
        model = build(8)
        return train(model, loss_fn, batch_fn, config, tmp_path, parameters=[model.get_parameter(k) for k in order])

    order = ["1.weight", "1.bias", "5.weight"]
    trained(order)
    state = (tmp_path / "state.safetensors").read_bytes()
    for other, says in (
        (["0.weight", "1.bias", "5.weight"], "parameter 1 is 1.weight there and 0.weight here"),
        (["1.weight", "5.weight", "1.bias"], "parameter 2 is 1.bias there and 5.weight here"),
        (order[:2], "parameter 3 is 5.weight there and none here"),
        ([*order, "5.bias"], "parameter 4 is none there and 5.bias here"),
    ):
        with pytest.raises(ValueError, match=f"what is trained differs from the saved state: {says}; give the same"):
            trained(other)
    assert (tmp_path / "state.safetensors").read_bytes() == state
    trained(order)


def test_a_state_whose_groups_were_trained_otherwise_is_refused_by_name(tmp_path):
    """By what, and in which group; the configuration does not know of groups."""
    config = dataclasses.replace(CONFIG, steps=8)

    def trained(cut=2, **second):
        model = build(8)
        named = [model.get_parameter(name) for name in ("1.weight", "5.weight", "1.bias", "5.bias")]
        groups = [{"params": named[:cut], "muon": True}, {"params": named[cut:], "scale": 0.5, **second}]
        return train(model, loss_fn, batch_fn, config, tmp_path, parameters=groups)

    trained()
    state = (tmp_path / "state.safetensors").read_bytes()
    for other, says in (
        ({"cut": 1}, "parameters of group 1 is 2 there and 1 here"),
        ({"scale": 0.25}, "scale of group 2 is 0.5 there and 0.25 here"),
        ({"weight_decay": 0.1}, "weight_decay of group 2 is 0.0 there and 0.1 here"),
        ({"betas": (0.8, 0.99)}, r"betas of group 2 is \[0.9, 0.99\] there and \[0.8, 0.99\] here"),
        ({"eps": 1e-6}, "eps of group 2 is 1e-08 there and 1e-06 here"),
        ({"amsgrad": True}, "amsgrad of group 2 is False there and True here"),
    ):
        with pytest.raises(ValueError, match=f"how it is trained differs from the saved state: {says}; give the same"):
            trained(**other)
    assert (tmp_path / "state.safetensors").read_bytes() == state
    trained()
    trained(fused=False)  # how it is computed makes no other run


def test_groups_of_a_state_are_compared_as_far_as_it_tells_of_them():
    weight, bias = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))
    optimizer = MuonAdamW([{"params": [weight], "muon": True}, {"params": [bias]}], lr=0.1, momentum=0.9)
    here = trained_as(nn.Linear(2, 2), optimizer)
    same_trained(json.loads(json.dumps(here)), here)
    same_trained({}, here)
    same_trained({"groups": [{"muon": True}, {"parameters": 1}]}, here)
    optimizer.momentum = 0.8
    for other, says in (
        (trained_as(nn.Linear(2, 2), optimizer)["groups"], "momentum of group 1 is 0.9 there and 0.8 here"),
        (here["groups"][:1], "parameters of group 2 is 1 there and 0 here"),
        ([*here["groups"], {"parameters": 3}], "parameters of group 3 is 0 there and 3 here"),
    ):
        with pytest.raises(ValueError, match=says):
            same_trained(here, {**here, "groups": other})


def test_a_state_that_does_not_say_what_was_trained_goes_on(whole, tmp_path):
    """As the course wrote them before."""
    loss, batches = at_step(20, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(build(), loss, batches, CONFIG, tmp_path)
    card = json.loads((tmp_path / "state.json").read_text())
    assert card.pop("trained") == [name for name, p in build().named_parameters() if p.requires_grad]
    assert card.pop("groups") == [{"parameters": 6, "muon": False, "scale": 1.0, "weight_decay": CONFIG.weight_decay,
                                   "betas": list(CONFIG.betas), "eps": 1e-8, "amsgrad": False, "maximize": False}]
    (tmp_path / "state.json").write_text(json.dumps(card))
    model = build()
    assert_same_run(model, train(model, loss_fn, batch_fn, CONFIG, tmp_path), whole)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_at_once(tmp_path, what):
    loss, batches = at_step(11, lambda: float(what))
    model = build()
    text = rf"the loss became {what} at step 11 \(step 8 is kept in .*lower learning rate"
    with pytest.raises(FloatingPointError, match=text):
        train(model, loss, batches, CONFIG, tmp_path)
    assert load_checkpoint(tmp_path / "state")[1]["step"] == 8
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_gradient_that_is_not_finite_stops_at_once(tmp_path):
    def loss(model, batch, generator):
        weight = model[1].weight
        return loss_fn(model, batch, generator)[0] + (weight - weight.detach()).abs().sqrt().sum()

    model = build()
    with pytest.raises(FloatingPointError, match=r"gradient became (nan|inf) at step 1 \(nothing saved"):
        train(model, loss, batch_fn, CONFIG, tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), build().parameters(), strict=True))


def test_a_full_disk_keeps_the_last_state(whole, tmp_path, monkeypatch):
    saves, real = [], checkpoints.sync

    def sync(path):
        saves.append(path)
        if len(saves) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync", sync)
        with pytest.raises(OSError, match="^the disk is full, state.safetensors was not written"):
            train(build(), loss_fn, batch_fn, CONFIG, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "state.json", "state.safetensors"]
    assert load_checkpoint(tmp_path / "state")[1]["step"] == 8
    model = build()
    assert_same_run(model, train(model, loss_fn, batch_fn, CONFIG, tmp_path), whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_is_clear():
    with pytest.raises(OSError, match="the disk is full, full was not written"):
        append_log(Path("/dev/full"), {"step": 1})


def test_a_damaged_state_says_what_to_do(tmp_path):
    config = dataclasses.replace(CONFIG, steps=8)
    train(build(), loss_fn, batch_fn, config, tmp_path)
    weights, card = tmp_path / "state.safetensors", tmp_path / "state.json"
    good = weights.read_bytes(), card.read_bytes()
    for path, data, text in (
        (weights, good[0][:-1] + bytes([good[0][-1] ^ 1]), "altered"), (weights, good[0][:99], "truncated"),
        (card, b"{", "not JSON"), (card, b'{"sha256": ""}', "not that of a training state"),
        (card, None, "has no card"), (weights, None, "missing"),
    ):
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{text}.*remove the folder .* to begin anew"):
            train(build(), loss_fn, batch_fn, config, tmp_path)
        weights.write_bytes(good[0])
        card.write_bytes(good[1])
    train(build(), loss_fn, batch_fn, config, tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="a file is in the way"):
        train(build(), loss_fn, batch_fn, CONFIG, tmp_path / "file")


def test_an_error_in_a_batch_is_raised_by_train(tmp_path):
    def broken(step):
        if step == 9:
            raise ZeroDivisionError("no such clip")
        return batch_fn(step)

    with pytest.raises(ZeroDivisionError, match="no such clip"):
        train(build(), loss_fn, broken, CONFIG, tmp_path)
    assert load_checkpoint(tmp_path / "state")[1]["step"] == 8


def test_log_lines_are_whole_and_trimmed(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    for step in (1, 2, 3):
        append_log(path, {"step": step})
    with open(path, "a") as log:
        log.write('{"st')
    assert [r["step"] for r in read_log(path)] == [1, 2, 3]
    trim_log(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_half_a_line_of_the_log_is_an_error(tmp_path, monkeypatch):
    """The disk has room for a part of it: os.write says how much, and nobody else does."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    with pytest.raises(OSError, match="log.jsonl") as caught:
        append_log(tmp_path / "log.jsonl", {"step": 1})
    assert caught.value.errno == errno.ENOSPC


def test_the_stable_state_is_that_of_the_step_at_which_the_rate_begins_to_fall(tmp_path):
    config = dataclasses.replace(CONFIG, steps=20, cooldown=0.25, save_every=100)
    train(build(), loss_fn, batch_fn, config, tmp_path)
    card = load_checkpoint(tmp_path / "stable")[1]
    assert card["step"] == 15 == config.cooldown_start
    assert learning_rate(15, config) == config.lr > learning_rate(16, config)
    short = train(build(), loss_fn, batch_fn, dataclasses.replace(config, steps=15, cooldown=0.0), tmp_path / "short")
    saved, there = load_checkpoint(tmp_path / "stable")[0], load_checkpoint(short.state)[0]
    assert all(torch.equal(saved[name], value) for name, value in there.items())
    for cooldown in (0.0, 1.0):  # no fall, or nothing but: there is no state to lengthen from
        train(build(), loss_fn, batch_fn, dataclasses.replace(config, cooldown=cooldown), tmp_path / f"{cooldown}")
        assert not (tmp_path / f"{cooldown}" / "stable.json").exists()


# ---------------------------------------------------------------- EMA


def test_ema_is_the_closed_form():
    """s_n = Σ_i (1 - d_i) Π_{j>i} d_j θ_i + Π_j d_j θ_0 with d_n = min(decay, (1 + n) / (10 + n))."""
    model = nn.Linear(3, 2).double()
    ema = EMA(model, decay=0.3)
    history = [model.weight.detach().clone()]
    for step in range(12):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=torch.Generator().manual_seed(step)))
        history.append(model.weight.detach().clone())
        ema.update(model)
    d = [min(0.3, (1 + n) / (10 + n)) for n in range(12)]
    assert d[0] == 0.1 and d[-1] == 0.3  # both branches of the minimum are met
    expected = math.prod(d) * history[0]
    for i in range(12):
        expected += (1 - d[i]) * math.prod(d[i + 1:]) * history[i + 1]
    torch.testing.assert_close(ema.shadow["weight"], expected)


def test_ema_applied_lends_the_average_and_gives_the_weights_back():
    model = build()
    ema = EMA(model, 0.9)
    own = [p.detach().clone() for p in model.parameters()]
    for value in ema.shadow.values():
        value.add_(1)
    with pytest.raises(KeyError), ema.applied(model):
        assert torch.equal(model[1].weight, own[2] + 1)
        assert torch.equal(model[0].weight, own[0])  # frozen: not averaged
        model.requires_grad_(False)  # samplers do this
        raise KeyError
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), own, strict=True))
    ema.copy_to(model)
    assert torch.equal(model[1].weight, own[2] + 1)
    with pytest.raises(ValueError, match="decay is 1"):
        EMA(model, 1.0)


# ---------------------------------------------------------------- batches


def test_prefetch_keeps_the_order_and_runs_only_so_far_ahead():
    made, gate = [], threading.Event()

    def make(step):
        made.append(step)
        if step == 6:
            gate.set()
        return torch.tensor([step])

    with Prefetch(make, 3, 50, depth=2) as batches:
        stream = iter(batches)
        assert next(stream).item() == 3
        assert gate.wait(5)  # 4 and 5 wait ready, 6 is in hand
        assert max(made) == 6
        assert [next(stream).item() for _ in range(20)] == list(range(4, 24))
        assert batches.wait_s >= 0
    assert not batches._thread.is_alive() and max(made) < 30


def test_prefetch_raises_an_error_at_its_own_step():
    def make(step):
        if step == 2:
            raise ValueError("clip 2 is broken")
        return step

    seen = []
    with pytest.raises(ValueError, match="clip 2"), Prefetch(make, 0, 9) as batches:
        for batch in batches:
            seen.append(batch)
    assert seen == [0, 1] and not batches._thread.is_alive()


def test_prefetch_makes_nothing_after_an_error():
    made = []

    def make(step):
        made.append(step)
        if step == 2:
            raise ValueError("clip 2 is broken")
        return step

    with Prefetch(make, 0, 9, depth=9) as batches:
        batches._thread.join(5)
        assert not batches._thread.is_alive()
    assert made == [0, 1, 2]


@pytest.mark.parametrize("trained", [True, False])
def test_batches_come_on_the_models_device(tmp_path, trained):
    """The device "meta" stands for any other than the CPU: it exists everywhere."""
    with Prefetch(lambda step: {"x": torch.ones(2), "words": ["a"]}, 0, 2, device="meta") as batches:
        assert [batch["x"].device.type for batch in batches] == ["meta"] * 2
    seen = []

    class Seen(Instant):
        def __init__(self, batch_fn, start, stop, device):
            seen.append(torch.device(device))
            super().__init__(batch_fn, start, stop, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Prefetch", Seen)
        model = build()
        if not trained:  # the first parameter tells the device, whether it learns or not
            model[0].requires_grad_(False)
        train(model, loss_fn, batch_fn, dataclasses.replace(CONFIG, steps=1), tmp_path)
    assert seen == [torch.device("cpu")]


def test_batches_may_be_nested():
    class Pair(NamedTuple):
        film: torch.Tensor
        words: list

    batch = {"a": Pair(torch.ones(4, 2), ["red", torch.zeros(4)]), "b": (torch.tensor(3.0), 5)}
    doubled = map_tensors(lambda t: t * 2, batch)
    assert isinstance(doubled["a"], Pair) and doubled["a"].words[0] == "red" and doubled["b"][1] == 5
    assert torch.equal(doubled["a"].film, 2 * torch.ones(4, 2)) and doubled["b"][0] == 6
    assert batch_size(batch) == 4 and batch_size((1, torch.tensor(2.0))) == 1


def test_a_batch_goes_to_where_the_model_is():
    batch = {"x": torch.ones(3, 2), "rest": [torch.zeros(3), "words"]}
    away = beside(nn.Linear(2, 1, device="meta"), batch)
    assert away["x"].is_meta and away["rest"][0].is_meta and away["rest"][1] == "words"
    assert beside(nn.Linear(2, 1), batch)["x"] is batch["x"]  # no copy of what is there already
    assert beside(nn.ReLU(), batch) is batch and beside(len, batch) is batch  # which have no weights


def test_model_flops_are_counted_by_hand():
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    assert model_flops(model, torch.zeros(5, 8)) == 2 * 5 * (8 * 16 + 16 * 4)
    assert model_flops(nn.Conv2d(3, 6, 3, padding=1), torch.zeros(2, 3, 8, 8)) == 2 * 2 * 64 * 6 * 27
    attention = torch.nn.functional.scaled_dot_product_attention
    q = torch.zeros(2, 3, 10, 16)
    assert model_flops(attention, q, q, q) == 2 * (2 * 2 * 3 * 10 * 10 * 16)


def test_peak_is_a_rate():
    assert 0.1 < peak_gflops(seconds=0.01) < 1e6


# ---------------------------------------------------------------- profiles


def test_profile_has_a_default_and_three_names(monkeypatch):
    assert profiles.profile() == "laptop"
    for name, value in (("smoke", 1), ("laptop", 2), ("gpu", 3)):
        monkeypatch.setenv("SORALAB_PROFILE", name)
        assert profiles.profile() == name and profiles.by_profile(smoke=1, laptop=2, gpu=3) == value
    monkeypatch.setenv("SORALAB_PROFILE", "phone")
    with pytest.raises(ValueError, match="SORALAB_PROFILE is 'phone', it takes one of smoke, laptop, gpu"):
        profiles.profile()


def test_device_is_chosen_and_checked(monkeypatch):
    for cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert profiles.device().type == ("cuda" if cuda else "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("SORALAB_DEVICE", "cuda:0")
    assert profiles.device() == torch.device("cuda:0")
    monkeypatch.setenv("SORALAB_DEVICE", "cuda:1")
    with pytest.raises(ValueError, match="this machine has no such device"):
        profiles.device()
    for wrong in ("gpu", "cuda:x"):
        monkeypatch.setenv("SORALAB_DEVICE", wrong)
        with pytest.raises(ValueError, match="it takes cpu, cuda, cuda:N or mps"):
            profiles.device()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("SORALAB_DEVICE", "mps")
    with pytest.warns(UserWarning, match="not the checked ones"):
        assert profiles.device().type == "mps"


def test_hardware_tells_the_machine_but_not_whose():
    import platform

    facts = profiles.hardware()
    assert facts["torch"] == torch.__version__ and facts["cores"] >= 1 and facts["cpu"]
    text = json.dumps(facts)
    assert os.sep + "home" not in text and (not platform.node() or platform.node() not in text.split('"'))


@pytest.mark.parametrize("name, told", [("Intel64 Family 6 Model 140", "Intel64 Family 6 Model 140"), ("", "arm64")])
def test_a_processor_without_a_name_is_told_by_its_architecture(monkeypatch, name, told):
    for what, value in (("system", "Windows"), ("processor", name), ("machine", "arm64")):
        monkeypatch.setattr(profiles.platform, what, lambda value=value: value)
    assert profiles.processor() == told


def test_progress_is_silenced_by_the_environment(monkeypatch, capsys):
    assert list(progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("TQDM_DISABLE")
    assert list(progress(range(3), desc="bar")) == [0, 1, 2]
    assert "bar" in capsys.readouterr().err
    assert loop.progress is progress


def test_in_a_notebook_a_bar_ends_as_a_line_of_text(tmp_path):
    """A widget would be dead when the saved notebook is opened again."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = ("import os; os.environ['TQDM_DISABLE'] = '0'\n"
            "from soralab.training.progress import progress\n"
            "for k in progress(range(7), desc='<filming>', mininterval=0): pass\n"
            "with progress(total=4, desc='half', mininterval=0) as bar: bar.update(2)")
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    env = {**os.environ, "PYTHONPATH": str(Path(progress.__code__.co_filename).parents[2])}
    nbclient.NotebookClient(nb, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute(env=env)
    done, half = nb.cells[0].outputs
    assert set(done.data) == set(half.data) == {"text/html", "text/plain"}
    assert done.data["text/html"].startswith("&lt;filming&gt;: 7 of 7 [")
    assert half.data["text/html"].startswith('<progress max="4" value="2"></progress> half: 2 of 4 [')


def test_a_model_is_compiled_where_that_is_possible(monkeypatch):
    model, compiled = nn.Linear(2, 2), []
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    asked = []

    def compile(what, **options):
        compiled.append(what)
        asked.append(options)
        return what

    monkeypatch.setattr(torch, "compile", compile)
    assert profiles.compiled(model) is model and compiled[-1] is model and asked[-1] == {}
    assert profiles.compiled(model, dynamic=False) is model and asked[-1] == {"dynamic": False}
    compiled.clear()
    in_shards = TEAM.set(Team(0, 2, shard=True))
    assert profiles.compiled(model) is model and not compiled
    TEAM.reset(in_shards)
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    assert profiles.compiled(model) is model and not compiled

    def broken(what):
        def call(x):
            raise RuntimeError("no C++ compiler")

        return call

    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    monkeypatch.setattr(torch, "compile", broken)
    assert profiles.compiled(model) is model  # it goes on without
