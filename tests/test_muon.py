"""Muon: nearly orthogonal steps, AdamW's for the rest, and an exact resume of both."""

import pytest
import torch
from torch import nn

from soralab.training import loop
from soralab.training.muon import NEWTON_SCHULZ, MuonAdamW, fused_round, muon_groups, orthogonal, plain_round


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 12, 48), (2, 48, 12)])
def test_orthogonal_keeps_the_directions_and_levels_the_singular_values(shape):
    """Against U V^T of the singular value decomposition; a step that were only normalised would keep S."""
    matrices = numbers(*shape)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    out = orthogonal(matrices)
    levels = (u.mT @ out @ vh.mT).diagonal(dim1=-2, dim2=-1)  # the singular values, on the old directions
    big = s > 0.05 * s[:, :1]  # five rounds lift those that are not tiny
    assert levels[big].min() > 0.5 and levels[big].max() < 1.25
    torch.testing.assert_close(u @ torch.diag_embed(levels) @ vh, out, rtol=0, atol=1e-9)
    torch.testing.assert_close(orthogonal(1e-3 * matrices), out, rtol=1e-3, atol=1e-3)  # the scale does not matter


def test_each_matrix_of_a_stack_is_alone():
    """A large neighbour changes nothing: normalised over the stack, a small matrix would come out at a hundredth."""
    small, large = numbers(1, 8, 8), 100 * numbers(1, 8, 8, seed=1)
    both = orthogonal(torch.cat([small, large]))
    torch.testing.assert_close(both[:1], orthogonal(small), rtol=0, atol=1e-12)
    torch.testing.assert_close(both[1:], orthogonal(large), rtol=0, atol=1e-12)


def test_a_step_is_as_long_as_the_larger_side_says():
    """0.2 sqrt(max(rows, columns)) lr for each singular direction, after decay; matrices of several shapes at once."""
    tall, wide = nn.Parameter(numbers(32, 8)), nn.Parameter(numbers(4, 64))
    starts = [p.detach().clone() for p in (tall, wide)]
    optimizer = MuonAdamW([{"params": [tall, wide], "muon": True}], lr=0.1, weight_decay=0.5, dtype=torch.float64)
    tall.grad, wide.grad = numbers(32, 8, seed=2), numbers(4, 64, seed=3)
    optimizer.step()
    for p, start in ((tall, starts[0]), (wide, starts[1])):
        expected = start * (1 - 0.1 * 0.5) - 0.1 * 0.2 * max(p.shape) ** 0.5 * orthogonal(p.grad)
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 4, 3), (5, 2, 3, 3, 3)])
def test_a_kernel_steps_as_the_matrix_of_its_rows(shape):
    kernels = [nn.Parameter(numbers(*shape, seed=s)) for s in (0, 5)]
    rows = [nn.Parameter(p.detach().flatten(1).clone()) for p in kernels]
    optimizers = [MuonAdamW([{"params": group, "muon": True}], 0.1, dtype=torch.float64) for group in (kernels, rows)]
    for step in range(2):
        for k, (p, flat) in enumerate(zip(kernels, rows, strict=True)):
            p.grad = numbers(*shape, seed=7 + 2 * step + k)
            flat.grad = p.grad.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    for p, flat in zip(kernels, rows, strict=True):
        torch.testing.assert_close(p.detach().flatten(1), flat.detach(), rtol=0, atol=1e-12)


def test_momentum_looks_ahead():
    """The second step is of g + mu (mu m + g), Nesterov's; a frozen matrix, without a gradient, stays."""
    matrix, frozen = nn.Parameter(numbers(6, 6)), nn.Parameter(numbers(6, 6, seed=9))
    optimizer = MuonAdamW([{"params": [matrix, frozen], "muon": True}], lr=0.1, momentum=0.5, weight_decay=0.0,
                          dtype=torch.float64)  # fmt: skip
    first, second = numbers(6, 6, seed=1), numbers(6, 6, seed=2)
    matrix.grad = first
    optimizer.step()
    before, matrix.grad = matrix.detach().clone(), second
    optimizer.step()
    step = orthogonal(second + 0.5 * (0.5 * first + second))
    torch.testing.assert_close(matrix.detach(), before - 0.1 * 0.2 * 6**0.5 * step, rtol=0, atol=1e-9)
    assert torch.equal(frozen, numbers(6, 6, seed=9))


def test_step_is_torchs_muon():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon came with torch 2.9")
    ours, theirs = (nn.Parameter(numbers(16, 40).float()) for _ in range(2))
    start = ours.detach().clone()
    mine = MuonAdamW([{"params": [ours], "muon": True}], lr=0.01, weight_decay=0.1, dtype=torch.bfloat16)
    other = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for k in range(4):
        gradient = numbers(16, 40, seed=k + 1).float()
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved  # both multiply in bfloat16, not in the same order
    assert moved > 0.1


def test_the_rest_is_plain_adamw():
    matrix, vector, twin = nn.Parameter(numbers(4, 4)), nn.Parameter(numbers(4)), nn.Parameter(numbers(4))
    mine = MuonAdamW([{"params": [matrix], "muon": True}, {"params": [vector]}], lr=0.01, weight_decay=0.1)
    other = torch.optim.AdamW([twin], lr=0.01, weight_decay=0.1)
    for k in range(3):
        vector.grad = twin.grad = numbers(4, seed=k)
        matrix.grad = numbers(4, 4, seed=k)
        mine.step()
        other.step()
    assert torch.equal(vector, twin)
    assert len(mine.param_groups) == 2


def test_muon_takes_matrices_only():
    with pytest.raises(ValueError, match=r"shape \(4,\) for Muon; it takes matrices"):
        MuonAdamW([{"params": [nn.Parameter(numbers(4))], "muon": True}], lr=0.1)


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 8))


def test_groups_hold_every_parameter_once():
    model = net()
    muon, rest = muon_groups(model, inside="2", scale=0.3)
    assert [p is model[2].weight for p in muon["params"]] == [True] and muon["muon"] and "muon" not in rest
    assert len(rest["params"]) == 5 and rest["scale"] == 0.3
    muon, rest = muon_groups(model, inside="weight", outside=("0", "4"))
    assert [p is model[2].weight for p in muon["params"]] == [True]


def test_a_resumed_run_is_the_run(tmp_path):
    def train(model, steps, folder):
        config = loop.TrainConfig(steps=steps, lr=1e-2, warmup=5, cooldown=0.0, save_every=10, precision="float32")
        return loop.train(
            model, lambda m, batch, _: (m(batch) - batch.flip(-1)).square().mean(),
            lambda step: torch.randn(32, 8, generator=torch.Generator().manual_seed(step)),
            config, folder, parameters=muon_groups(model, "weight", scale=0.5),
        )  # fmt: skip

    whole, first, second = net(), net(), net()
    train(whole, 20, tmp_path / "whole")
    train(first, 10, tmp_path / "parts")
    train(second, 20, tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first[2].weight, second[2].weight)


def test_scale_slows_a_group_down(tmp_path):
    """AdamW's first step is as long as the learning rate, whatever the gradient."""
    config = loop.TrainConfig(steps=1, lr=1e-2, warmup=0, cooldown=0.0, precision="float32")
    model = net()
    before = model[4].bias.detach().clone()
    loop.train(model, lambda m, batch, _: m(batch).square().sum(), lambda step: torch.ones(4, 8), config, tmp_path,
               parameters=muon_groups(model, "weight", scale=0.25))  # fmt: skip
    torch.testing.assert_close((model[4].bias - before).abs(), torch.full((8,), 0.25e-2), rtol=1e-3, atol=0)


def one_by_one(weights, gradients, momenta, lr, momentum=0.95, decay=0.1):
    """A step of Muon, a matrix at a time, as the formulas have it."""
    for w, g, m in zip(weights, gradients, momenta, strict=True):
        m.copy_(momentum * m + g)
        w.copy_(w * (1 - lr * decay) - lr * 0.2 * max(w.shape) ** 0.5 * orthogonal((g + momentum * m)[None])[0])


def foreach_of(weights, gradients, momenta, lr, momentum=0.95, decay=0.1, change=lambda group, state: None):
    """The same step, all matrices at once."""
    parameters = [nn.Parameter(w.clone()) for w in weights]
    optimizer = MuonAdamW([{"params": parameters, "muon": True}], lr=lr, momentum=momentum, weight_decay=decay,
                          dtype=torch.float64)  # fmt: skip
    for p, g, m in zip(parameters, gradients, momenta, strict=True):
        p.grad, optimizer.state[p] = g.clone(), {"step": torch.zeros(()), "momentum": m.clone()}
    change(optimizer.param_groups[0], optimizer.state)
    optimizer.step()
    return [(p.detach(), optimizer.state[p]["momentum"]) for p in parameters]


def misses(change=lambda group, state: None):
    """The largest difference of weights and momenta between all at once and one by one, over drawn sets of shapes."""
    worst = 0.0
    for seed in range(6):
        rng = torch.Generator().manual_seed(seed)
        sides = [[4, 6, 12][k] for k in torch.randint(0, 3, (14,), generator=rng).tolist()]
        shapes = list(zip(sides[::2], sides[1::2], strict=True))
        weights, gradients, momenta = ([numbers(*s, seed=100 * seed + 10 * k + j) for j, s in enumerate(shapes)]
                                       for k in range(3))  # fmt: skip
        alone = [w.clone() for w in weights], [m.clone() for m in momenta]
        found = foreach_of(weights, gradients, momenta, lr=0.1, change=change)
        one_by_one(alone[0], gradients, alone[1], lr=0.1)
        for (w, m), right_w, right_m in zip(found, *alone, strict=True):
            worst = max(worst, (w - right_w).abs().max().item(), (m - right_m).abs().max().item())
    return worst


def test_all_matrices_at_once_are_one_by_one():
    assert misses() < 1e-12


def test_wrong_steps_at_once_are_told_from_one_by_one(monkeypatch):
    """Each slip moves a weight or a momentum by far more than rounding does."""
    assert misses(lambda group, state: group.update(weight_decay=0.0)) > 1e-3
    real = torch._foreach_add_
    with monkeypatch.context() as patch:  # the order of a shape's matrices is lost
        patch.setattr(torch, "_foreach_add_", lambda a, b, **k: real(a, list(b)[::-1] if k else b, **k))
        assert misses() > 1e-3
    with monkeypatch.context() as patch:  # the norm of a stack, not of each matrix
        patch.setattr("soralab.training.muon.orthogonal", lambda x: orthogonal(x / x.norm() + 0 * x))
        assert misses() < 1e-6  # that alone changes nothing: each is normalised again
        patch.setattr("soralab.training.muon.orthogonal", lambda x: orthogonal(x.mean(0, keepdim=True)).expand_as(x))
        assert misses() > 1e-3
    with monkeypatch.context() as patch:  # the look ahead is forgotten
        patch.setattr(torch, "_foreach_mul", lambda momenta, factor: [torch.zeros_like(m) for m in momenta])
        assert misses() > 1e-3


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 12, 48)])
def test_a_round_of_three_launches_is_the_round(shape):
    """To rounding, in float64; a wrong factor of either product is far off."""
    x = numbers(*shape)
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    right, scale = plain_round(x), plain_round(x).abs().max()
    assert (fused_round(x) - right).abs().max() < 1e-13 * scale
    gram, (a, b, c) = x @ x.mT, NEWTON_SCHULZ
    for wrong in (
        torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=c, alpha=b), x, beta=a),
        torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x),
        torch.baddbmm(x, torch.baddbmm(gram, gram, gram, alpha=c), x, beta=a),
    ):
        assert (wrong - right).abs().max() > 1e-3 * scale


def test_a_stack_of_matrices_takes_no_more_operations_than_one():
    """What a GPU is launched for does not grow with the number of matrices, their unbinding and stacking apart."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted.append(func)
            return func(*args, **(kwargs or {}))

    def operations(count):
        counted.clear()
        with Count():
            step(count)
        return len(counted)

    def step(count):
        parameters = [nn.Parameter(numbers(4, 6, seed=k)) for k in range(count)]
        optimizer = MuonAdamW([{"params": parameters, "muon": True}], lr=0.1, weight_decay=0.1)
        for p in parameters:
            p.grad, optimizer.state[p] = torch.ones_like(p), {"step": torch.zeros(()), "momentum": torch.ones_like(p)}
        counted.clear()
        with torch.no_grad():
            optimizer._muon_step(optimizer.param_groups[0])

    counted = []
    assert operations(12) == operations(2)
