"""Chapter 16's other paper: DiT's tables at published size, its four blocks, labels, places, and learned variance."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import numbers, randomise

from soralab import dit
from soralab.blocks import unpatchify
from soralab.blocks.dit import read_out
from soralab.diffusion import LinearBeta
from soralab.dit import (
    CONDITIONINGS,
    PROCESS,
    SIZES,
    Constant,
    DiT,
    DiTConfig,
    Labels,
    OpenGates,
    bits,
    dit_loss,
    guided,
    places,
    reverse,
    sample,
    told_block,
    variance_range,
)
from soralab.recipes import sora as films
from soralab.sora import SoraConfig
from soralab.training.data import model_flops

TINY = DiTConfig(channels=2, dim=16, depth=2, heads=2, size=(1, 4, 4), classes=5)
X, T, Y = numbers(3, 1, 2, 4, 4), torch.tensor([0.2, 0.6, 1.0]), torch.tensor([0, 3, 4])


def tiny(**changes) -> DiT:
    return randomise(DiT(replace(TINY, **changes)), 1)


# ------------------------------------------------------------------------------- the paper's tables, at published size

GFLOPS = {  # multiply-adds, 10^9, on the latents of 256 x 256 pixels
    "S/8": 0.36, "S/4": 1.41, "S/2": 6.06, "B/8": 1.42, "B/4": 5.56, "B/2": 23.01,
    "L/8": 5.01, "L/4": 19.70, "L/2": 80.71, "XL/8": 7.39, "XL/4": 29.05, "XL/2": 118.64,
}  # fmt: skip
PARAMETERS = {"S/2": 32_963_360, "B/2": 130_512_416, "L/2": 458_102_816, "XL/2": 675_129_632}
WAYS = {"in-context": (119.37, 449), "cross-attention": (137.62, 598), "adaLN": (118.56, 600),
        "adaLN-Zero": (118.64, 675)}  # fmt: skip


def unmade(config: DiTConfig) -> DiT:
    """A model that takes no memory."""
    with torch.device("meta"):
        return DiT(config).eval()


def weights_of(model: DiT) -> int:
    return sum(p.numel() for p in [*model.parameters(), model.positions])


def counted(config: DiTConfig) -> tuple[float, int]:
    """Multiply-adds of a pass in 10^9, and weights, the fixed table of places among them as in the official code."""
    model = unmade(config)
    with torch.device("meta"):
        x = torch.zeros(1, config.size[0], config.channels, *config.size[1:])
        flops = model_flops(model, x, torch.ones(1), torch.zeros(1, dtype=torch.long))
    return flops / 2e9, weights_of(model)


def near(gflops: float, printed: float) -> bool:
    """Half a unit of the last printed digit, and 0.02 % besides."""
    return abs(gflops - printed) <= 0.005 + 2e-4 * printed


@pytest.mark.parametrize("name", GFLOPS)
def test_multiply_adds_and_weights_of_the_twelve(name):
    config = DiTConfig.published(name)
    gflops, weights = counted(config)
    assert near(gflops, GFLOPS[name])
    tokens, patch = (32 // config.patch[1]) ** 2, config.patch[1]
    more = (tokens - 256) * config.dim + (patch**2 - 4) * (12 * config.dim + 8)  # places, and the first and last layer
    assert weights == PARAMETERS[f"{name.split('/')[0]}/2"] + more


def test_the_thirteenth_has_512_pixels():
    gflops, weights = counted(DiTConfig.published("XL/2", size=(1, 64, 64)))
    assert near(gflops, 524.60) and weights == PARAMETERS["XL/2"] + (1024 - 256) * 1152


def test_what_is_left_out_is_missed_in_the_tables():
    for changes in ({"learned_variance": False}, {"classes": 999}, {"conditioning": "adaLN"}):
        assert weights_of(unmade(DiTConfig.published("S/2", **changes))) != PARAMETERS["S/2"]
    for changes in ({"conditioning": "in-context"}, {"depth": 11}, {"patch": (1, 2, 1)}):
        assert not near(counted(DiTConfig.published("S/2", **changes))[0], GFLOPS["S/2"])


@pytest.mark.parametrize("way", CONDITIONINGS)
def test_what_the_four_ways_cost(way):
    gflops, weights = counted(DiTConfig.published("XL/2", conditioning=way))
    assert near(gflops, WAYS[way][0]) and weights / 1e6 == pytest.approx(WAYS[way][1], abs=1)


def test_films_have_the_sizes_of_the_table():
    for name, size in SIZES.items():
        small, there = SoraConfig().sized(name), DiTConfig.published(f"{name}/2")
        assert {key: getattr(small, key) for key in size} == {key: getattr(there, key) for key in size} == size
        assert small.channels == 8
    assert films.RECIPES["sora"].large().config.dim == 384


@pytest.mark.parametrize("name", ["M/2", "XL", "XL/", "XL/2.0", "S/0", "S/²"])
def test_a_size_that_is_none_is_named(name):
    with pytest.raises(ValueError, match="it takes S, B, L, XL and a patch's side"):
        DiTConfig.published(name)
    with pytest.raises(ValueError, match="conditioning is 'film'; it takes one of in-context"):
        DiTConfig(conditioning="film")


@pytest.mark.parametrize("changes", [{"size": (1, 32, 31)}, {"size": (3, 32, 32), "patch": (2, 2, 2)}])
def test_patches_that_do_not_fill_the_latents_are_refused(changes):
    with pytest.raises(ValueError, match=r"size is .*; it takes multiples of the patch's sides, \(., 2, 2\)"):
        DiTConfig(**changes)
    with pytest.raises(ValueError, match=r"size is \(1, 32, 32\); .* \(1, 3, 3\)"):
        DiTConfig.published("S/3")


# ------------------------------------------------------------------------------------------------- four ways of telling


@pytest.mark.parametrize("way", CONDITIONINGS)
def test_at_the_start_only_adaln_zero_is_the_identity(way):
    torch.manual_seed(0)
    model = DiT(replace(TINY, conditioning=way)).eval()
    tokens, c, both = numbers(3, 4, 16), numbers(3, 16), numbers(3, 2, 16)
    moved = (model.blocks[0](tokens, c, both, None) - tokens).abs().max()
    assert moved == 0 if way == "adaLN-Zero" else moved > 0.1
    assert model(X, T, Y).abs().max() == 0  # the head is zero in all


@pytest.mark.parametrize("way", CONDITIONINGS)
def test_what_tells_the_label_and_the_time_is_drawn_small(way):
    """With a deviation of 0.02, as in the official code; Xavier's would be 0.12 here."""
    torch.manual_seed(0)
    model = DiT(replace(TINY, dim=64, classes=500, conditioning=way))
    for weight in (model.label.weight, model.time.mlp[0].weight, model.time.mlp[2].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05) and abs(weight.mean().item()) < 1e-3


@torch.no_grad()
@pytest.mark.parametrize("way", CONDITIONINGS)
def test_every_way_is_told_the_time_and_the_label(way):
    model = tiny(conditioning=way)
    answer = model(X, T, Y)
    assert answer.shape == (3, 1, 4, 4, 4)
    for other in (model(X, T, Y.roll(1)), model(X, T.roll(1), Y), model(X.flip(-1), T, Y).flip(-1)):
        assert (other - answer).abs().flatten(1).amax(1).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("way", CONDITIONINGS)
def test_two_ways_know_the_sum_alone(way):
    """The other time and the other label with the same sum: tokens tell them from the first, a sum does not."""
    model = tiny(conditioning=way)
    before = model(X, T, Y)
    later = (T / 2).clamp(min=0.1)
    vectors = model.label.weight[Y] + model.time(T - 0.001) - model.time(later - 0.001)
    model.label.weight[[0, 3, 4]] = vectors
    apart = (model(X, later, Y) - before).abs().max()
    assert apart < 1e-5 if "adaLN" in way else apart > 0.05


def test_blocks_of_four_kinds_differ_in_what_figure_3_says():
    """A layer norm's weight and bias are a modulation that listens to nobody; gates there are in one kind alone."""
    kinds = {way: told_block(replace(TINY, conditioning=way)) for way in CONDITIONINGS}
    assert [block.cross is not None for block in kinds.values()] == [False, True, False, False]
    count = {way: sum(p.numel() for p in block.modulation.parameters()) for way, block in kinds.items()}
    assert list(count.values()) == [4 * 16, 4 * 16, 4 * (16 + 1) * 16, 6 * (16 + 1) * 16]
    still = Constant(8)
    torch.nn.init.normal_(still.vectors)
    assert torch.equal(still(numbers(2, 3)), still.vectors.repeat(2, 1))
    shift1, scale1, gate1, shift2, scale2, gate2 = OpenGates()(torch.arange(8.0).expand(3, 8)).chunk(6, -1)
    assert (gate1 == 1).all() and (gate2 == 1).all()
    assert [float(each[0, 0]) for each in (shift1, scale1, shift2, scale2)] == [0, 2, 4, 6]


@torch.no_grad()
def test_tokens_of_the_condition_are_taken_away_again():
    """In context the two stand behind the picture's; what is decoded is the picture's."""
    model = tiny(conditioning="in-context")
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda block, given, out: seen.append((given[0], out)))
    answer = model(X, T, Y)
    given, last = seen[0][0], seen[-1][1]
    assert given.shape[1] == last.shape[1] == 4 + 2
    c = F.silu(model.time(T - 0.001) + model.label(Y))
    torch.testing.assert_close(answer, unpatchify(read_out(model, last[:, :4], c), (1, 2, 2), (1, 4, 4)))
    torch.testing.assert_close(given[:, 4], model.time(T - 0.001))
    torch.testing.assert_close(given[:, 5], model.label(Y))


# ------------------------------------------------------------------------------------------------- labels and places


def test_a_label_is_left_out_now_and_then_and_only_in_training():
    labels, y = Labels(5, 16, 0.1), torch.arange(5).repeat(2000)
    torch.manual_seed(0)
    shown = labels.train()(y)
    dropped = (shown == labels.weight[5]).all(-1)
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(shown[~dropped], labels.weight[y][~dropped])
    assert torch.equal(labels.eval()(y), F.embedding(y, labels.weight))


def test_a_film_s_patches_know_their_moment_and_a_picture_s_are_the_paper_s():
    picture, film = places((1, 3, 3), 16), places((5, 3, 3), 16).reshape(5, 9, 16)
    moments = film - picture
    assert torch.allclose(moments, moments[:, :1].expand_as(moments), atol=1e-6)  # the same for a whole moment
    assert (torch.cdist(film.flatten(0, 1), film.flatten(0, 1)) + torch.eye(45)).min() > 1e-2  # no two alike
    row, column = picture[3] - picture[0], picture[1] - picture[0]
    assert row[:8].abs().max() == 0 and column[8:].abs().max() == 0 and row.abs().max() > 0.5  # columns come first
    assert torch.equal(picture[0], torch.tensor(([0.0] * 4 + [1.0] * 4) * 2))  # sines before cosines


@torch.no_grad()
def test_a_film_s_frames_are_no_bag():
    model = tiny(size=(3, 4, 4))
    film = numbers(2, 3, 2, 4, 4)
    order = [1, 0, 2]
    assert (model(film[:, order], T[:2], Y[:2]) - model(film, T[:2], Y[:2])[:, order]).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [(1, 1, 2, 4, 6), (1, 2, 2, 4, 4), (1, 1, 3, 4, 4)])
def test_latents_of_another_size_are_named(shape):
    with pytest.raises(ValueError, match=r"x is .*; it takes \(1, 4, 4\) with 2"):
        tiny()(torch.zeros(shape), T[:1], Y[:1])


# ---------------------------------------------------------------------------------------------------- official weights


def official(dim=16, depth=2, channels=2, patch=2, classes=5) -> dict:
    """Weights under the official code's names."""
    state = {
        "pos_embed": places((1, 2, 2), dim)[None], "x_embedder.proj.weight": numbers(dim, channels, patch, patch),
        "x_embedder.proj.bias": numbers(dim), "y_embedder.embedding_table.weight": numbers(classes + 1, dim),
    }  # fmt: skip
    layers = {
        "t_embedder.mlp.0": (dim, 256), "t_embedder.mlp.2": (dim, dim),
        "final_layer.linear": (2 * channels * patch**2, dim), "final_layer.adaLN_modulation.1": (2 * dim, dim),
    }  # fmt: skip
    for k in range(depth):
        layers |= {f"blocks.{k}.{name}": (out, into) for name, out, into in (
            ("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim), ("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim),
            ("adaLN_modulation.1", 6 * dim, dim))}  # fmt: skip
    for name, (out, into) in layers.items():
        state |= {f"{name}.weight": numbers(out, into), f"{name}.bias": numbers(out)}
    return state


def test_official_weights_say_their_sizes():
    model = DiT.from_official(official(), heads=2)
    assert model.config == TINY and not model.training
    assert torch.equal(model.blocks[1].attention.to_kv.weight, official()["blocks.1.attn.qkv.weight"][16:])


@pytest.mark.parametrize("change, says", [
    ({"blocks.1.attn.q_norm.weight": torch.ones(8)}, "has blocks.1.attn.q_norm.weight, which official DiT has not"),
    ({"blocks.1.mlp.fc2.bias": None, "blocks.0.attn.qkv.bias": None},
     "lacks blocks.0.attn.qkv.bias, blocks.1.mlp.fc2.bias"),
    ({"pos_embed": None}, "lacks pos_embed"),
    ({"blocks.0.mlp.fc1.weight": torch.zeros(60, 16)},
     r"blocks.0.mlp.fc1.weight is \[60, 16\]; it takes \[64, 16\]"),
    ({"x_embedder.proj.weight": None, "pos_embed": None}, "lacks x_embedder.proj.weight, pos_embed"),
])  # fmt: skip
def test_keys_that_do_not_match_are_named(change, says):
    state = {key: value for key, value in (official() | change).items() if value is not None}
    with pytest.raises(ValueError, match=says):
        DiT.from_official(state, heads=2)


def test_heads_are_known_of_the_paper_s_sizes_alone():
    with pytest.raises(ValueError, match="heads is None; it takes their number, for 2 blocks of width 16"):
        DiT.from_official(official())
    state = {key: torch.empty(0) for key in [f"blocks.{k}.a" for k in range(12)]}
    state |= {
        "x_embedder.proj.weight": torch.empty(384, 4, 2, 2), "pos_embed": torch.empty(1, 256, 384),
        "y_embedder.embedding_table.weight": torch.empty(1001, 384), "final_layer.linear.bias": torch.empty(32),
    }  # fmt: skip
    assert dit._config_of(state, None) == DiTConfig.published("S/2")
    state["final_layer.linear.bias"] = torch.empty(16)
    assert dit._config_of(state, None) == DiTConfig.published("S/2", learned_variance=False)


# ----------------------------------------------------------------------------------------------- the learned variance


def times(*steps):
    now = torch.tensor(steps, dtype=torch.float64)
    return now / 1000, (now - 1) / 1000


def test_the_range_of_a_variance():
    """Eq. 15's ends: beta~ and beta; of the first step, whose beta~ is 0, that of the second."""
    t, s = times(1, 2, 500, 1000)
    least, most = variance_range(t, s)
    beta, bar = PROCESS.betas, PROCESS.alpha_bar[1:]
    tilde = beta[1:] * (1 - bar[:-1]) / (1 - bar[1:])
    torch.testing.assert_close(most.exp(), beta[[0, 1, 499, 999]])
    torch.testing.assert_close(least.exp(), tilde[[0, 0, 498, 998]])
    assert (least < most).all()


def test_where_in_its_range_a_variance_lies():
    x, (t, s) = numbers(2, 1, 2, 4, 4), times(2, 40)
    least, most = variance_range(t, s)
    for place, end in ((-1, least), (1, most), (0, (least + most) / 2)):
        answer = torch.cat([numbers(2, 1, 2, 4, 4, seed=1), torch.full_like(x, place)], dim=2)
        log_variance = reverse(answer, x, t, s)[1]
        torch.testing.assert_close(log_variance, end.float().reshape(2, 1, 1, 1, 1).expand_as(x))


@pytest.mark.parametrize("t, half", [(1.0, (1.0, 0.5)), (0.75, (1.0, 0.5)), (0.5, (1.0, 0.5)), (0.25, (0.5, 0.25))])
def test_of_a_last_step_that_nothing_comes_before_the_range_is_one_too(t, half):
    """The step before begins at 2 t, and at 1 where that lies beyond."""
    t, s = (torch.tensor([at], dtype=torch.float64) for at in (t, 0.0))
    least, most = variance_range(t, s)
    torch.testing.assert_close(least.exp()[0], PROCESS.posterior(*half)[2])
    assert least < most


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_step_is_enough(steps):
    made = sample(lambda x, t: torch.cat([0.5 * x, 0 * x], dim=2), X, steps, torch.Generator().manual_seed(0))
    assert made.shape == X.shape and made.isfinite().all()


def test_an_answer_without_a_variance_is_refused():
    model = tiny(learned_variance=False)
    with pytest.raises(ValueError, match="answer has 2 channels; it takes 4: noise and variance"):
        sample(lambda x, t: model(x, t, Y), X, 3)
    with pytest.raises(ValueError, match="answer has 3 channels; it takes 4"):
        reverse(numbers(2, 1, 3, 4, 4), X[:2], *times(2, 40))


def test_at_the_last_step_bits_are_the_density_of_the_latents():
    x0, (t, s) = numbers(2, 1, 2, 4, 4), times(1, 1)
    mean, log_variance = numbers(2, 1, 2, 4, 4, seed=1), numbers(2, 1, 2, 4, 4, seed=2)
    each = -torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(x0) / math.log(2)
    torch.testing.assert_close(bits((mean, log_variance), x0, numbers(2, 1, 2, 4, 4, seed=3), t, s),
                               each.flatten(1).mean(1))  # fmt: skip


STD = 0.3


def ideal(process, t, s):
    """For data N(0, STD^2): (factor of x_t that is the best eps, the true variance of x_s given x_t)."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    whole = alpha**2 * STD**2 + sigma**2
    a, _, variance = process.posterior(t, s)
    left = STD**2 * sigma**2 / whole  # of x_0, given x_t
    return sigma / whole, variance + a**2 * left


def test_the_bound_is_least_at_the_true_variance():
    x0, eps = STD * numbers(400, 1, 2, 4, 4), numbers(400, 1, 2, 4, 4, seed=1)
    t, s = (each.expand(400) for each in times(20))
    x_t = PROCESS.add_noise(x0, eps, t)
    factor, true = ideal(PROCESS, t[0], s[0])
    least, most = (float(end[0]) for end in variance_range(t, s))
    best = (math.log(float(true)) - least) / (most - least)
    assert 0.2 < best < 0.98
    shares = torch.linspace(0, 1, 21).tolist()
    costs = [float(bits(reverse(torch.cat([float(factor) * x_t, torch.full_like(x_t, 2 * v - 1)], 2), x_t, t, s),
                        x0, x_t, t, s).mean()) for v in shares]  # fmt: skip
    assert shares[min(range(21), key=costs.__getitem__)] == pytest.approx(best, abs=0.1)


@pytest.mark.parametrize("variance, right", [("true", True), ("least", False), ("largest", False)])
def test_few_steps_are_right_with_the_true_variance_alone(variance, right):
    """Six steps from noise to N(0, STD^2)."""
    grid = torch.linspace(1, 0, 7, dtype=torch.float64)

    def network(x, t):
        k = int((grid - float(t[0])).abs().argmin())
        now, then = grid[k].reshape(1), grid[k + 1].reshape(1)
        factor, true = ideal(PROCESS, now, then)
        least, most = variance_range(now, then)
        v = {"true": float((true.log() - least) / (most - least)), "least": 0.0, "largest": 1.0}[variance]
        return torch.cat([float(factor) * x, torch.full_like(x, 2 * v - 1)], dim=2)

    made = sample(network, numbers(4000, 1, 1, 2, 2), 6, torch.Generator().manual_seed(3))
    # The last step adds no noise: it gives the mean of x_0, whose deviation is smaller than STD.
    factor, _ = ideal(PROCESS, grid[5].reshape(1), grid[6].reshape(1))
    alpha, sigma = float(PROCESS.alpha(grid[5])), float(PROCESS.sigma(grid[5]))
    whole = alpha**2 * STD**2 + sigma**2
    expected = alpha * STD**2 / whole * math.sqrt(whole)  # the deviation of E[x_0 | x_t]
    assert (abs(float(made.std()) - expected) < 0.02 * expected) is right


def gradient_of(which: int, model: DiT) -> torch.Tensor:
    """|gradient| of each bias of the head by one of the two losses, for (noise, variance) of each place of a patch."""
    model.zero_grad()
    dit_loss(model, X, Y, torch.Generator().manual_seed(0))[which].mean().backward()
    return model.head.bias.grad.abs().reshape(4, 2, 2).sum((0, 2))


def test_each_loss_teaches_its_half(monkeypatch):
    model = tiny()
    noise, variance = gradient_of(0, model)
    assert noise > 1e-3 and variance == 0
    noise, variance = gradient_of(1, model)
    assert noise == 0 and variance > 1e-4
    monkeypatch.setattr(torch.Tensor, "detach", lambda self: self)  # the slip that this is here for
    assert gradient_of(1, model)[0] > 1e-4


def test_without_a_learned_variance_there_is_one_loss():
    model = tiny(learned_variance=False)
    simple, term = dit_loss(model, X, Y, torch.Generator().manual_seed(0))
    assert model(X, T, Y).shape == X.shape and (simple > 0).all() and (term == 0).all()
    both = dit_loss(tiny(), X, Y, torch.Generator().manual_seed(0))
    assert (both[1] != 0).all()


def test_the_noise_of_the_loss_is_that_of_1000_steps(monkeypatch):
    """Steps 1 to 1000 alike, and the model is told the level that they are at."""
    asked = []

    class Told(torch.nn.Module):
        config = replace(TINY, learned_variance=False)

        def forward(self, x, t, y):
            asked.extend((1000 * t).tolist())
            return torch.zeros_like(x)

    x0 = torch.full((4000, 1, 1, 1, 1), 2.0)
    simple, _ = dit_loss(Told(), x0, torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(1))
    steps = torch.tensor(asked).round()
    assert steps.min() == 1 and steps.max() == 1000 and float(steps.mean()) == pytest.approx(500.5, abs=15)
    assert float(simple.mean()) == pytest.approx(1, abs=0.1)  # E eps^2


@torch.no_grad()
def test_guidance_of_one_is_the_condition_and_of_zero_none():
    model = tiny()
    none = torch.full_like(Y, 5)
    torch.testing.assert_close(guided(model, Y, 1.0)(X, T), model(X, T, Y), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(guided(model, Y, 0.0)(X, T)[:, :, :2], model(X, T, none)[:, :, :2], rtol=1e-5, atol=1e-5)
    assert PROCESS == LinearBeta(1000, 1e-4, 0.02)


@torch.no_grad()
def test_guidance_of_some_channels_leaves_the_others_as_they_are_told():
    model = tiny()
    told, all_guided = model(X, T, Y), guided(model, Y, 3.0)(X, T)
    one = guided(model, Y, 3.0, channels=1)(X, T)
    torch.testing.assert_close(one[:, :, :1], all_guided[:, :, :1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one[:, :, 1:], told[:, :, 1:], rtol=1e-5, atol=1e-5)
    assert (one - all_guided)[:, :, 1].abs().max() > 1e-2 and (one - told)[:, :, 0].abs().max() > 1e-2
