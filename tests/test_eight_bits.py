"""Weights in eight bits: how far they move, what stays, what is refused; what is measured is what is shipped."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from soralab import experiments
from soralab.files.catalogue import IN_EIGHT_BITS, IN_TRAINING, MEASURED, SHIPPED
from soralab.files.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from soralab.files.eight_bits import STEP, pack, unpack


def drawn(seed):
    """Tensors of a network, their rows of very different sizes, one of them zero."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"kernel": (7, 3, 3, 3), "matrix": (5, 40), "column": (6, 1), "table": (1, 9), "scalar in rows": (4, 1, 1)}
    found = {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
    for value in found.values():
        value *= 10.0 ** torch.randint(-6, 4, (len(value),), generator=g).reshape(-1, *[1] * (value.ndim - 1))
    found["matrix"][2] = 0
    return found


def moved(tensors, rounded):
    """By how many of its row's largest / 254 each tensor's worst weight has moved."""
    worst = {}
    for name, value in tensors.items():
        most = value.flatten(1).abs().amax(1).clamp(min=1e-300) / 254
        worst[name] = float(((rounded[name].double() - value).flatten(1).abs().amax(1) / most).max())
    return worst


def by_tensor(tensors):
    return {name: (v / (v.abs().max() / 127)).round() * (v.abs().max() / 127) for name, v in tensors.items()}


def cut_off(tensors):
    rows = {name: v.flatten(1).abs().amax(1).clamp(min=1e-300).reshape(-1, *[1] * (v.ndim - 1)) / 127
            for name, v in tensors.items()}  # fmt: skip
    return {name: (v / rows[name]).trunc() * rows[name] for name, v in tensors.items()}


def of_128(tensors):
    rows = {name: v.flatten(1).abs().amax(1).clamp(min=1e-300).reshape(-1, *[1] * (v.ndim - 1)) / 128
            for name, v in tensors.items()}  # fmt: skip
    return {name: (v / rows[name]).round().clamp(-127, 127) * rows[name] for name, v in tensors.items()}


@pytest.mark.parametrize("seed", range(5))
def test_no_weight_moves_by_more_than_half_a_step_of_its_row(seed):
    tensors = drawn(seed)
    rounded = unpack(pack(tensors))
    assert all(value.dtype == torch.float32 and value.shape == tensors[name].shape for name, value in rounded.items())
    assert max(moved(tensors, rounded).values()) < 1.0001
    assert bool((rounded["matrix"][2] == 0).all())
    for wrong in (by_tensor, cut_off, of_128):
        assert max(moved(tensors, wrong(tensors)).values()) > 1.5, wrong.__name__


def test_what_is_rounded_once_stays():
    once = unpack(pack(drawn(7)))
    again = unpack(pack(once))
    for name, value in once.items():
        assert torch.allclose(again[name], value, rtol=3e-7, atol=0), name


def test_gains_biases_and_whole_numbers_stay_as_they_are():
    kept = {"gain": torch.randn(5).half(), "steps": torch.tensor(7), "ids": torch.tensor([[1, 2], [3, 4]])}
    packed = pack(kept)
    assert packed == kept and unpack(packed) == kept


def test_a_tensor_called_like_steps_is_itself_where_there_is_nothing_that_they_are_steps_of():
    lone = {"time" + STEP: torch.randn(3, 4)}
    assert set(unpack(pack(lone))) == set(lone)
    with pytest.raises(ValueError, match="bears the name of the steps of time"):
        pack({**lone, "time": torch.randn(3, 4)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_no_whole_number_stands_for_is_named(bad):
    value = torch.randn(3, 4)
    value[1, 2] = bad
    with pytest.raises(ValueError, match="the tensor odd holds a number that is not finite"):
        pack({"odd": value})


@pytest.mark.parametrize("odd", [
    {"a": torch.ones(3, 4), "a.step": torch.ones(5)}, {"a": torch.ones(3, 4), "a.step": torch.tensor(1.0)},
    {"a": torch.tensor(1.0), "a.step": torch.ones(1)},
])  # fmt: skip
def test_steps_that_do_not_fit_their_tensor_are_no_checkpoint(tmp_path, odd):
    save_checkpoint(tmp_path / "odd", odd, {})
    with pytest.raises(CheckpointError, match="odd.safetensors is not a safetensors file"):
        load_checkpoint(tmp_path / "odd")


def test_a_checkpoint_in_eight_bits_takes_a_byte_a_weight_and_counts_its_weights(tmp_path):
    tensors = {"w": torch.randn(64, 500), "b": torch.randn(64).half()}
    path = save_checkpoint(tmp_path / "small", tensors, {"config": {}}, eight_bits=True)
    found, card = load_checkpoint(tmp_path / "small")
    assert card["parameters"] == 64 * 500 + 64 and 32_000 < path.stat().st_size < 33_000
    assert torch.equal(found["w"], unpack(pack(tensors))["w"]) and torch.equal(found["b"], tensors["b"])
    assert set(found) == {"w", "b"}


@pytest.mark.parametrize("eight", [True, False])
def test_what_is_measured_is_what_is_shipped(tmp_path, monkeypatch, eight):
    model, seen = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(6, 2)), {}
    first = {name: value.clone() for name, value in model.state_dict().items()}
    trained = SimpleNamespace(model=model, card={"config": {}})

    def metrics(name, trained):
        seen.update({key: value.clone() for key, value in trained.model.state_dict().items()})
        return {}

    monkeypatch.setattr(experiments, "recipe", lambda name: SimpleNamespace(train=lambda name, steps: trained))
    monkeypatch.setattr(experiments, "experiment", lambda name: SimpleNamespace(metrics=metrics))
    monkeypatch.setattr(experiments, "IN_EIGHT_BITS", ("tried",) if eight else ())
    experiments.make("tried", tmp_path)
    shipped, card = load_checkpoint(tmp_path / "tried")
    for name, value in shipped.items():
        close = {"rtol": 3e-7, "atol": 0} if eight and value.ndim > 1 else {"rtol": 1e-3, "atol": 1e-6}
        assert torch.allclose(seen[name], value.float(), **close), name  # gains and biases are in half precision
        if value.ndim > 1:
            assert (value.dtype == torch.float32) == eight
            assert torch.equal(seen[name], first[name]) != eight
    assert card["parameters"] == sum(value.numel() for value in first.values())


def test_those_in_eight_bits_are_the_courses():
    assert set(IN_EIGHT_BITS) <= {*SHIPPED, *MEASURED, *IN_TRAINING}
