"""Chapter 08's ViViT: its numbered equations, the paper's Table 2, who sees whom, and how a picture model begins it."""

import pytest
import tiny_models
import torch
from einops import rearrange
from tiny_models import randomise
from torch.nn import functional as F

from soralab import vivit
from soralab.vit import Block, ViT, ViTConfig
from soralab.vivit import (
    STARTS,
    FactorisedBlock,
    ViViT,
    ViViTConfig,
    cost,
    over_both,
    over_space,
    over_time,
    tubelet_weights,
    uniform_frames,
)

SMALL = {"frames": 6, "image": 12, "tubelet": (2, 4, 4), "dim": 16, "depth": 2, "heads": 4, "classes": 5}
PICTURE = ViTConfig(image=12, patch=4, dim=16, depth=2, heads=4, classes=5)
BAG = {**SMALL, "temporal_depth": 0}


def numbers(*shape, seed=0):
    return tiny_models.numbers(*shape, seed=seed).double()


def made(model, **changes):
    """A reader with nothing at zero or one, in float64."""
    return randomise(ViViT(ViViTConfig(model, **{**SMALL, **changes})), seed=model).double()


def picture():
    return randomise(ViT(PICTURE), seed=9).double()


def films(n=2, frames=6, seed=0):
    return numbers(n, frames, 3, 12, 12, seed=seed)


def begun(model, start="central frame", **changes):
    torch.manual_seed(0)
    return ViViT.from_vit(picture(), ViViTConfig(model, **{**SMALL, **changes}), start).double().eval()


def close(a, b, atol=1e-10):
    assert b.abs().max() > 0.01  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------------------------ Table 2

TABLE_2 = {  # (model, L_t): parameters, multiply-accumulates, what the paper prints: millions, thousand millions
    (1, 4): (88_954_000, 451.52e9, 88.9, 455.2),
    (2, 4): (115_062_928, 283.34e9, 115.1, 284.4),
    (3, 4): (117_319_312, 371.09e9, 117.3, 372.3),
    (4, 4): (88_952_464, 276.18e9, 88.9, 277.1),
    (2, 0): (86_696_080, 282.86e9, 86.7, 283.9),
}


@pytest.mark.parametrize("which", TABLE_2, ids=str)
def test_parameters_and_flops_of_table_2(which):
    count, macs, millions, giga = TABLE_2[which]
    parameters, found = cost(ViViTConfig.b16x2(which[0], temporal_depth=which[1]))
    assert parameters == count and abs(parameters / 1e6 - millions) < 0.1  # 88.954 is printed as 88.9
    assert abs(found / macs - 1) < 1e-4 and abs(found / 1e9 / giga - 1) < 0.01


def test_the_small_ones_cost_in_the_order_of_the_papers():
    small = {which: cost(ViViTConfig(which[0], temporal_depth=min(which[1], 2)))[1] for which in TABLE_2}
    assert sorted(small, key=small.get) == sorted(TABLE_2, key=lambda which: TABLE_2[which][3])


def test_multiplications_by_hand():
    """Model 1's tokens attend to all n_t n, those of Models 3 and 4 to n or n_t of them."""
    n_t, n, d, layers = 3, 9, 16, 2
    tokens, embed, head = n_t * n, 2 * 4 * 4 * 3 * 16, 16 * 5
    projections = 4 * d * d
    mlp = 8 * d * d
    want = {
        1: layers * ((tokens + 1) * (projections + mlp) + 2 * (tokens + 1) ** 2 * d),
        3: layers * tokens * (2 * projections + mlp + 2 * n * d + 2 * n_t * d),
        4: layers * tokens * (projections + mlp + n * d + n_t * d),
    }
    for model, macs in want.items():
        assert cost(ViViTConfig(model, **SMALL))[1] == macs + tokens * embed + head


# ------------------------------------------------------------------------------------------- section 3.2: the tokens


def test_tubelets_are_a_convolution_over_time_and_space():
    model, x = made(1), films()
    kernel = rearrange(model.embed.weight, "d (t h w c) -> d c t h w", t=2, h=4, w=4)
    found = F.conv3d(rearrange(x, "b t c h w -> b c t h w"), kernel, model.embed.bias, stride=(2, 4, 4))
    close(model.tokens(x), rearrange(found, "b d t h w -> b (t h w) d"))


def test_uniform_frames_are_the_middles_of_even_stretches():
    x = torch.arange(12.0)[None, :, None, None, None]
    assert uniform_frames(x, 12).flatten().tolist() == list(range(12))
    assert uniform_frames(x, 4).flatten().tolist() == [1, 4, 7, 10]
    assert uniform_frames(x, 6).flatten().tolist() == [1, 3, 5, 7, 9, 11]
    assert uniform_frames(x, 1).flatten().tolist() == [6]
    for count in (0, 5, 24):
        with pytest.raises(ValueError, match=f"count is {count}; it takes a number that divides the film's 12 frames"):
            uniform_frames(x, count)


@torch.no_grad()
def test_equation_1():
    """z_0 = [z_cls; E x] + p, and what has no class token z_0 = E x + p; with no layer, this is what is read."""
    x = films()
    for model in (1, 3, 4):
        reader = made(model, depth=0)
        z = reader.tokens(x)
        if model == 1:
            z = torch.cat([reader.class_token.expand(2, 1, -1), z], dim=1)
        z = z + reader.positions
        y = reader.norm(z)
        close(reader.features(x), y[:, 0] if model == 1 else y.mean(1))


# -------------------------------------------------------------------------------------- section 3.3: who sees whom


def by_hand(q, k, v, pairs):
    """softmax(q k^T / sqrt(d)) v for each token by itself, among the tokens that pairs[i] names; [heads, tokens, d]."""
    out = torch.zeros_like(v)
    for h in range(q.shape[0]):
        for i in range(q.shape[1]):
            among = [j for j in range(q.shape[1]) if pairs(i, j)]
            weights = torch.softmax(k[h, among] @ q[h, i] / q.shape[-1] ** 0.5, 0)
            out[h, i] = weights @ v[h, among]
    return out


N = 5  # places of a moment, below


def same_time(i, j):
    return i // N == j // N


def same_place(i, j):
    return i % N == j % N


@pytest.mark.parametrize("heads", (2, 4))
def test_equation_7_over_space_over_time_and_half_of_the_heads_each(heads):
    q, k, v = (2 * numbers(2, heads, 3 * N, 4, seed=s) for s in range(3))
    for b in range(2):
        space, time = by_hand(q[b], k[b], v[b], same_time), by_hand(q[b], k[b], v[b], same_place)
        close(over_space(q, k, v, 3)[b], space)
        close(over_time(q, k, v, 3)[b], time)
        close(over_both(q, k, v, 3)[b], torch.cat([space[: heads // 2], time[heads // 2 :]]))


def heads_of(layer, x, heads=4):
    q = rearrange(layer.to_q(x), "n (h d) -> h n d", h=heads)
    k, v = (rearrange(part, "n (h d) -> h n d", h=heads) for part in layer.to_kv(x).chunk(2, -1))
    return q, k, v


@torch.no_grad()
def test_equations_4_to_6_and_the_layer_of_model_4():
    z = numbers(1, 27, 16)
    at_once = {"same time": lambda i, j: i // 9 == j // 9, "same place": lambda i, j: i % 9 == j % 9}
    three, four = made(3).blocks[1], made(4).blocks[1]

    def msa(layer, x, name):
        return layer.to_out(rearrange(by_hand(*heads_of(layer, x), at_once[name]), "h n d -> n (h d)"))

    y_s = msa(three.attention, three.norm1(z[0]), "same time") + z[0]                 # (4)
    y_t = msa(three.attention_t, three.norm_t(y_s), "same place") + y_s               # (5)
    close(three(z)[0], three.mlp(three.norm2(y_t)) + y_t)                             # (6)

    q, k, v = heads_of(four.attention, four.norm1(z[0]))
    halves = [by_hand(q[part], k[part], v[part], pairs)
              for part, pairs in zip((slice(2), slice(2, 4)), at_once.values(), strict=True)]  # fmt: skip
    y = z[0] + four.attention.to_out(rearrange(torch.cat(halves), "h n d -> n (h d)"))
    close(four(z)[0], y + four.mlp(four.norm2(y)))


def seen(function, tokens, dim=16):
    """[outputs, inputs] bool: which token of z an output token depends on."""
    z = numbers(1, tokens, dim)
    jacobian = torch.autograd.functional.jacobian(lambda x: function(x)[0].sum(-1), z)  # [outputs, 1, inputs, dim]
    return (jacobian[:, 0].abs() > 1e-12).any(-1)


def test_whom_a_token_sees_in_one_layer():
    times, places = torch.arange(27) // 9, torch.arange(27) % 9
    same_time, same_place = times[:, None] == times, places[:, None] == places
    assert seen(made(1).blocks[0], 28).all()
    assert torch.equal(seen(made(4).blocks[0], 27), same_time | same_place)
    three = made(3).blocks[0]
    assert seen(three, 27).all()  # a token sees its place at all times, and these have seen their moments
    torch.nn.init.zeros_(three.attention_t.to_out.weight)
    assert torch.equal(seen(three, 27), same_time)


@torch.no_grad()
def test_a_moment_of_model_2_is_read_by_itself():
    """What L_t layers see of moment t does not depend on the other moments, and each moment counts."""
    model, x = made(2), films()
    heard = []
    model.over_moments.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
    before = model(x)
    x = x.clone()
    x[:, 2:4] = films(seed=5)[:, 2:4]
    after = model(x)
    assert (before - after).abs().max() > 1e-4
    assert torch.equal(heard[0][:, [0, 2]], heard[1][:, [0, 2]]) and not torch.equal(heard[0][:, 1], heard[1][:, 1])


ORDERS = {"moments swapped": [2, 3, 0, 1, 4, 5], "backwards": [5, 4, 3, 2, 1, 0]}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@torch.no_grad()
def test_every_model_tells_an_order_of_time(order):
    for model in (1, 2, 3, 4):
        reader, x = made(model), films()
        assert (reader(x) - reader(x[:, order])).abs().max() > 1e-4


@torch.no_grad()
def test_a_bag_of_frames_is_one_in_any_order():
    bag, x = made(2, **{**BAG, "tubelet": (1, 4, 4)}), films()
    close(bag(x), bag(x.flip(1)))
    assert (bag(x) - bag(x.roll(1, -1))).abs().max() > 1e-4


@torch.no_grad()
def test_a_film_is_read_by_itself():
    for model in (1, 2, 3, 4):
        reader, x = made(model), films(3)
        close(reader(x)[1:2], reader(x[1:2]))


@torch.no_grad()
def test_models_3_and_4_read_the_mean_of_all_tokens():
    for model in (3, 4):
        reader, x = made(model), films()
        last = []
        reader.blocks[-1].register_forward_hook(lambda module, inputs, z, last=last: last.append(z))
        close(reader(x), reader.head(reader.norm(last[0]).mean(1)))


# ------------------------------------------------------------------------------- section 3.4: from a picture model


@torch.no_grad()
def test_equation_8_reads_the_mean_frame():
    vit, x = picture(), films()
    found = begun(1, "inflated").tokens(x)
    mean = x.unflatten(1, (3, 2)).mean(2)
    want = torch.cat([vit.tokens(mean[:, t])[:, 1:] - vit.positions[1:] for t in range(3)], dim=1)
    close(found, want)


@torch.no_grad()
def test_equation_9_reads_uniform_frames():
    vit, x = picture(), films()
    found = begun(1, "central frame").tokens(x)
    few = uniform_frames(x, 3)
    close(found, torch.cat([vit.tokens(few[:, t])[:, 1:] - vit.positions[1:] for t in range(3)], dim=1))
    for t, middle in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
        kernel = tubelet_weights(vit.embed.weight, t).unflatten(1, (t, -1))
        assert [k for k in range(t) if kernel[:, k].any()] == [middle]


@pytest.mark.parametrize("start", STARTS[:2])
@torch.no_grad()
def test_still_films_are_read_as_pictures(start):
    vit, still = picture(), films(frames=1)
    x = still.expand(-1, 6, -1, -1, -1)
    close(begun(2, start, temporal_depth=0).features(x), vit.features(still[:, 0]))


@torch.no_grad()
def test_moving_films_are_read_frame_by_frame_at_first():
    vit, x = picture(), films()
    want = torch.stack([vit.features(x[:, t]) for t in (1, 3, 5)], 1).mean(1)
    close(begun(2, temporal_depth=0).features(x), want)


@torch.no_grad()
def test_tubelets_drawn_anew_are_of_a_vits_size():
    torch.manual_seed(1)
    patch = torch.zeros(64, 48)
    drawn = tubelet_weights(patch, 4, "random")
    assert drawn.shape == (64, 192) and not torch.equal(drawn, tubelet_weights(patch, 4, "random"))
    assert 0.97 < drawn.std() * 192**0.5 < 1.03


@torch.no_grad()
def test_what_a_reader_begins_with():
    vit = picture()
    for model in (1, 2, 3, 4):
        reader = begun(model)
        for k in range(2):
            for part in ("norm1", "attention", "norm2", "mlp"):
                ours, theirs = (getattr(m.blocks[k], part).state_dict() for m in (reader, vit))
                assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert not reader.head.weight.any() and torch.equal(reader.norm.weight, vit.norm.weight)
        places = reader.positions[-27:].unflatten(0, (3, 9)) if model != 2 else reader.positions[1:][None]
        assert all(torch.equal(moment, vit.positions[1:]) for moment in places)
        if model < 3:
            assert torch.equal(reader.positions[0], vit.positions[0])
            assert torch.equal(reader.class_token, vit.class_token)


@torch.no_grad()
def test_with_repeated_positions_no_moment_is_told_from_another():
    """So at first Models 1, 3 and 4 are bags of tubelets, and learn an order by moving p."""
    x, swapped = films(), films()[:, ORDERS["moments swapped"]]
    for model in (1, 3, 4):
        reader = begun(model)
        close(reader.features(swapped), reader.features(x))
        reader.positions += 0.5 * numbers(*reader.positions.shape)
        assert (reader.features(swapped) - reader.features(x)).abs().max() > 1e-4
    two = begun(2)
    assert (two.features(swapped) - two.features(x)).abs().max() > 1e-4  # L_t layers have positions of their own


@torch.no_grad()
def test_model_3s_attention_over_time_adds_nothing_at_first():
    reader, x = begun(3), films()
    z = reader.tokens(x) + reader.positions
    for ours, theirs in zip(reader.blocks, picture().blocks, strict=True):
        want = rearrange(theirs(rearrange(z, "b (t n) d -> (b t) n d", t=3)), "(b t) n d -> b (t n) d", t=3)
        z = ours(z)
        close(z, want)


def test_all_weights_at_zero_would_never_learn_and_one_matrix_does():
    def gradients(block):
        numbers(1, 27, 16).requires_grad_()
        block(numbers(1, 27, 16)).square().sum().backward()
        return {name: bool(p.grad.any()) for name, p in block.attention_t.named_parameters() if p.ndim > 1}

    ours, literal = begun(3).blocks[0], begun(3).blocks[0]
    assert not ours.attention_t.to_out.weight.any() and gradients(ours)["to_out.weight"]
    for value in literal.attention_t.parameters():
        torch.nn.init.zeros_(value)
    assert not any(gradients(literal).values())


# ------------------------------------------------------------------------------------------------ wrong versions


def over_all(q, k, v, times):
    """Mistake: no axis at all."""
    return vivit.attention(q, k, v)


def transposed(q, k, v, times):
    """Mistake: the tokens taken to run over places first, then time."""
    q, k, v = (rearrange(x, "b h (n t) d -> (b t) h n d", t=times) for x in (q, k, v))
    return rearrange(vivit.attention(q, k, v), "(b t) h n d -> b h (n t) d", t=times)


def heads_mixed(q, k, v, times):
    """Mistake: every second head over time, so that a picture model's heads are not those of Eq. (7)."""
    space, time = over_space(q, k, v, times), over_time(q, k, v, times)
    return torch.stack([space[:, ::2], time[:, 1::2]], 2).flatten(1, 2)


WRONG = [(over_all, "over_space"), (over_time, "over_space"), (transposed, "over_space"), (over_space, "over_time"),
         (heads_mixed, "over_both")]  # fmt: skip


@pytest.mark.parametrize("wrong, name", WRONG)
def test_wrong_attentions_are_seen(wrong, name, monkeypatch):
    monkeypatch.setitem(globals(), name, wrong)
    with pytest.raises(AssertionError):
        test_equation_7_over_space_over_time_and_half_of_the_heads_each(4)


# ------------------------------------------------------------------------------------------------------- bad input


def test_what_is_refused():
    with pytest.raises(ValueError, match="model is 5; it takes 1, 2, 3 or 4"):
        ViViTConfig(5)
    for tubelet in ((3, 4, 4), (2, 5, 4), (0, 4, 4)):
        with pytest.raises(ValueError, match=r"tubelet is \(\d, \d, \d\); it takes sides that divide .* \(8, 32, 32\)"):
            ViViTConfig(tubelet=tubelet)
    with pytest.raises(ValueError, match="heads is 3; Model 4 takes an even number"):
        ViViTConfig(4, heads=3)
    for wrong in (films(frames=4), films()[0], films()[:, :, :1]):
        with pytest.raises(ValueError, match=r"films are \[.*\]; it takes \[batch, 6, 3, 12, 12\]"):
            made(1)(wrong)
    with pytest.raises(ValueError, match="start is 'middle'; it takes one of central frame, inflated, random"):
        begun(1, "middle")
    with pytest.raises(ValueError, match="depth is 3; vit has 2"):
        begun(1, depth=3)
    with pytest.raises(ValueError, match=r"tubelet is \(2, 6, 6\); vit's patches are of 4 x 4"):
        begun(1, tubelet=(2, 6, 6))


def test_the_lists_of_layers():
    kinds = {k: {type(block) for block in made(k).blocks} for k in vivit.NAMES}
    assert kinds == {1: {Block}, 2: {Block}, 3: {FactorisedBlock}, 4: {FactorisedBlock}}
    assert [made(k).class_token is None for k in (1, 2, 3, 4)] == [False, False, True, True]
    assert ViViTConfig.b16x2().grid == (16, 14, 14) and ViViTConfig.b16x2().places == 196
    assert ViViTConfig(**{**vars(ViViTConfig(4)), "tubelet": [2, 4, 4]}) == ViViTConfig(4)  # as JSON has it
