"""The shared blocks: attention, positions, patches, the time's embedding, the text encoder."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from soralab.blocks import (
    Attention,
    FeedForward,
    TimestepEmbedding,
    attention,
    grid_positions,
    modulate,
    patchify,
    rotary_angles,
    rotate,
    sincos,
    sincos_grid,
    unpatchify,
)
from soralab.blocks.causal import CausalTime, ResBlock, Space
from soralab.blocks.clips import moments
from soralab.blocks.convolution import ResBlock as PictureBlock
from soralab.blocks.convolution import SpatialAttention, SpatialTransformer
from soralab.blocks.film_codec import FilmCodec
from soralab.blocks.resnet import ModifiedResNet
from soralab.blocks.temporal import Hint


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def qkv(queries=5, keys=7, dtype=torch.float32):
    return (numbers(2, 3, n, 4, seed=n + k, dtype=dtype) for k, n in enumerate((queries, keys, keys)))


def test_attend_takes_the_place_of_attention_and_of_the_mask():
    """A function that attends is given queries, keys and values, turned by their angles, and its output is used."""
    torch.manual_seed(0)
    layer, x = Attention(8, 2), torch.randn(2, 5, 8)
    mask, angles = torch.ones(5, 5, dtype=torch.bool).tril(), torch.rand(5, 2)
    with torch.no_grad():
        want = layer(x, None, mask, angles)
        torch.testing.assert_close(layer(x, angles=angles, attend=lambda q, k, v: attention(q, k, v, mask)), want)
        nothing = layer(x, attend=lambda q, k, v: torch.zeros_like(q))
    torch.testing.assert_close(nothing, layer.to_out.bias.expand_as(x))
    with pytest.raises(ValueError, match="mask: got one beside attend"):
        layer(x, mask=mask, attend=attention)


def attention_by_hand(q, k, v, mask=None):
    """Eq. 1 of 1706.03762, one query at a time, in Python's own floats (64 bits)."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=torch.float64)
    for b, h, i in ((b, h, i) for b in range(q.shape[0]) for h in range(q.shape[1]) for i in range(q.shape[2])):
        query, keys, values = (part.double().tolist() for part in (q[b, h, i], k[b, h], v[b, h]))
        seen = [j for j in range(len(keys)) if mask is None or mask[b, h, i, j]]
        logits = [sum(a * c for a, c in zip(query, keys[j], strict=True)) / math.sqrt(len(query)) for j in seen]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        answer = [sum(w * values[j][d] for w, j in zip(weights, seen, strict=True)) for d in range(len(values[0]))]
        out[b, h, i] = torch.tensor(answer, dtype=torch.float64) / sum(weights)
    return out


# ------------------------------------------------------------------------------------------------------ attention


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_equation_1(masked):
    q, k, v = qkv()
    mask = None
    if masked:
        mask = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6
        mask[..., 4] = True  # nobody is left without a key
    expected = attention_by_hand(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask).double(), expected, rtol=1e-5, atol=1e-6)
    exact = attention(q.double(), k.double(), v.double(), mask)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=1e-12)


def test_true_means_may_attend():
    """Whatever a masked key and its value hold, nothing changes."""
    q, k, v = qkv()
    mask = torch.ones(1, 1, 1, 7, dtype=torch.bool)
    mask[..., 2] = False
    before = attention(q, k, v, mask)
    k[:, :, 2], v[:, :, 2] = 1e4, -1e6
    assert torch.equal(attention(q, k, v, mask), before)
    k[:, :, 3] += 1
    assert not torch.equal(attention(q, k, v, mask), before)


def test_the_mask_is_of_its_own_query():
    """A causal mask: changing key 3 changes queries 3 and later alone."""
    q, k, v = qkv(6, 6)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    before = attention(q, k, v, mask)
    v[:, :, 3] += 1
    changed = (attention(q, k, v, mask) != before).flatten(0, 1).any(-1).any(0)
    assert changed.tolist() == [False, False, False, True, True, True]


def test_a_query_that_may_attend_nothing_gets_zeros_and_finite_gradients():
    q, k, v = (part.requires_grad_() for part in qkv())
    mask = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    mask[:, :, 1] = False
    out = attention(q, k, v, mask)
    assert torch.equal(out[:, :, 1], torch.zeros_like(out[:, :, 1]))
    assert (out[:, :, 0] != 0).any()
    out.square().sum().backward()
    assert all(torch.isfinite(part.grad).all() for part in (q, k, v))
    assert torch.equal(q.grad[:, :, 1], torch.zeros_like(q.grad[:, :, 1])) and (q.grad != 0).any()


def test_large_logits_pick_one_key():
    q, k, v = qkv()
    k = nn.functional.one_hot(torch.arange(7) % 4, 4).float().expand(2, 3, 7, 4).clone()
    k[..., 4:, :] *= 0.5
    q = 1e5 * nn.functional.one_hot(torch.arange(5) % 4, 4).float().expand(2, 3, 5, 4)
    torch.testing.assert_close(attention(q, k, v), v[:, :, [0, 1, 2, 3, 0]])


def test_large_logits_with_a_mask_stay_on_what_may_be_seen():
    """Logits far below those of the masked key are attended all the same."""
    q, k, v = qkv()
    q, k = q * 0 - 1e4, k * 0 + 1e4
    mask = torch.zeros(1, 1, 1, 7, dtype=torch.bool)
    mask[..., 3] = True
    torch.testing.assert_close(attention(q, k, v, mask), v[:, :, 3:4].expand(2, 3, 5, 4))


@pytest.mark.parametrize("size", [1.0, 32.0, 100.0])
def test_in_float16_a_mask_of_everything_changes_nothing(size):
    """Logits of more than 65504 are numbers too, with a mask as without one."""
    q, k, v = (numbers(1, 2, 6, 64, seed=n).half() for n in range(3))
    q, k = size * q, size * k
    plain, masked = attention(q, k, v), attention(q, k, v, torch.ones(6, 6, dtype=torch.bool))
    assert masked.dtype == torch.float16 and masked.isfinite().all()
    torch.testing.assert_close(masked, plain, rtol=2e-3, atol=2e-3)
    long = torch.full((1, 1, 2, 64), 100.0, dtype=torch.float16, requires_grad=True)
    out = attention(long, long, torch.ones_like(long), torch.ones(2, 2, dtype=torch.bool))
    out.sum().backward()
    assert torch.equal(out, torch.ones_like(out)) and long.grad.isfinite().all()


def test_angles_beside_a_context_are_refused():
    layer, x = Attention(8, 2), numbers(1, 5, 8)
    with pytest.raises(ValueError, match="angles: got them beside a context, whose keys stand elsewhere"):
        layer(x, numbers(1, 7, 8), angles=torch.rand(5, 2))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_layer_is_torchs_with_the_same_weights(cross, masked):
    dim, heads, wide = 24, 3, 10 if cross else 24
    ours = Attention(dim, heads, context_dim=wide)
    theirs = nn.MultiheadAttention(dim, heads, kdim=wide, vdim=wide, batch_first=True)
    with torch.no_grad():
        for number, parameter in enumerate(ours.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=number) * 0.3)
        key, value = ours.to_kv.weight.chunk(2)
        if cross:
            for target, source in zip(("q", "k", "v"), (ours.to_q.weight, key, value), strict=True):
                getattr(theirs, f"{target}_proj_weight").copy_(source)
        else:
            theirs.in_proj_weight.copy_(torch.cat([ours.to_q.weight, key, value]))
        theirs.in_proj_bias.copy_(torch.cat([ours.to_q.bias, ours.to_kv.bias]))
        theirs.out_proj.load_state_dict(ours.to_out.state_dict())
    x, context = numbers(2, 5, dim, seed=20), numbers(2, 7, wide, seed=21)
    keys = 7 if cross else 5
    source = context if cross else x
    mask = torch.rand(2, 1, 5, keys, generator=torch.Generator().manual_seed(3)) < 0.6 if masked else None
    if masked:
        mask[..., 0] = True
    not_allowed = None if mask is None else ~mask.expand(2, heads, 5, keys).reshape(2 * heads, 5, keys)
    expected, _ = theirs(x, source, source, attn_mask=not_allowed, need_weights=False)
    result = ours(x, context if cross else None, mask)
    assert result.abs().max() > 0.1
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", ["queries", "keys"])
def test_qk_norm_bounds_the_logits(which):
    """Queries or keys a thousand times as long change nothing with it, and everything without it."""
    for norm in (True, False):
        layer, x = Attention(16, 2, qk_norm=norm), numbers(2, 5, 16)
        before = layer(x)
        with torch.no_grad():
            for parameter in (layer.to_q if which == "queries" else layer.to_kv).parameters():
                parameter[:16] *= 1000  # of the keys and values, the keys
        assert torch.allclose(layer(x), before, rtol=1e-3, atol=1e-4) is norm


def test_qk_norm_has_weights_of_its_own_for_queries_and_for_keys():
    layer, x = Attention(16, 1, qk_norm=True), numbers(1, 5, 16)
    with torch.no_grad():
        layer.norm_q.weight.copy_(numbers(16, seed=1))
        layer.norm_k.weight.copy_(numbers(16, seed=2))
        key, value = layer.to_kv(x).chunk(2, dim=-1)
        query, key = nn.functional.layer_norm(layer.to_q(x), (16,)), nn.functional.layer_norm(key, (16,))
        logits = (query * layer.norm_q.weight) @ (key * layer.norm_k.weight).transpose(1, 2) / 4
        torch.testing.assert_close(layer(x), layer.to_out(logits.softmax(-1) @ value), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_biases_of_attention_are_those_of_queries_keys_and_values(bias):
    """The output has one in any case; the norms of queries and keys have none."""
    for options in ({}, {"context_dim": 3, "qk_norm": True}):
        layer = Attention(8, 2, bias=bias, **options)
        names = {name for name, _ in layer.named_parameters() if name.endswith("bias")}
        assert names == ({"to_q.bias", "to_kv.bias"} if bias else set()) | {"to_out.bias"}


def test_attention_layer_names_dim_and_heads():
    with pytest.raises(ValueError, match="dim is 10.*heads, which is 4"):
        Attention(10, 4)


def test_feed_forward_works_on_each_token_alone_by_its_formula():
    layer, x = FeedForward(6, ratio=3).double(), numbers(2, 4, 6, dtype=torch.float64)
    hidden = x @ layer[0].weight.T + layer[0].bias
    assert hidden.shape[-1] == 18
    gelu = hidden / 2 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(layer(x), gelu @ layer[2].weight.T + layer[2].bias, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------------------ positions


def test_sincos_formula():
    positions, dim, period = torch.tensor([0.0, 1.0, 2.5, 17.0]), 12, 100.0
    result = sincos(positions, dim, period)
    assert result.shape == (4, 12)
    for row, p in enumerate(positions.tolist()):
        for i in range(dim // 2):
            angle = p * period ** (-2 * i / dim)
            assert result[row, i].item() == pytest.approx(math.cos(angle), abs=1e-5)
            assert result[row, dim // 2 + i].item() == pytest.approx(math.sin(angle), abs=1e-5)


def test_sincos_products_depend_on_the_distance_alone():
    """1706.03762, section 3.5: a shift is a rotation, so it leaves lengths and products as they are."""
    table = sincos(torch.arange(64), 32)
    products = table @ table.T
    assert torch.allclose(products.diagonal(), torch.full((64,), 16.0), atol=1e-4)
    for shift in (1, 5, 20):
        diagonal = products.diagonal(shift)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-3)
        assert diagonal[0] < 15.9


def test_sincos_of_positions_in_any_shape_and_of_odd_dim():
    grid = torch.tensor([[0, 1], [2, 3]])
    assert torch.equal(sincos(grid, 8)[1, 0], sincos(torch.tensor([2]), 8)[0])
    with pytest.raises(ValueError, match="dim is 7.*even"):
        sincos(grid, 7)


def test_sincos_grid_gives_each_axis_its_own_channels():
    dims, base = (4, 6, 8), torch.tensor([[3, 4, 5]])
    edges = [0, 4, 10, 18]
    for axis in range(3):
        moved = base.clone()
        moved[0, axis] += 2
        changed = (sincos_grid(moved, dims) != sincos_grid(base, dims))[0]
        inside = torch.zeros(18, dtype=torch.bool)
        inside[edges[axis] : edges[axis + 1]] = True
        assert changed[inside].any() and not changed[~inside].any()
        part = sincos_grid(base, dims)[:, inside]
        assert torch.equal(part, sincos(base[:, axis], dims[axis]))


def test_sincos_grid_counts_its_axes():
    with pytest.raises(ValueError, match="3 axes; dims names 2"):
        sincos_grid(torch.zeros(5, 3), (4, 4))


def test_rotate_multiplies_by_complex_numbers_of_length_1():
    """2104.09864, Eq. 12: the pair (a, b) is the number a + ib, and turning it is a product with exp(i angle)."""
    x, angles = numbers(2, 3, 5, 8).double(), numbers(5, 4, seed=1).double()
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(5, 4).double(), angles)
    torch.testing.assert_close(rotate(x, angles), torch.cat([turned.real, turned.imag], dim=-1), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="angles are of 3 pairs; x has 8 channels"):
        rotate(x, angles[:, :3])


def test_products_of_turned_queries_and_keys_know_the_difference_of_places_alone():
    """2104.09864, Eq. 16, on each of three axes: moving both moves nothing, moving one moves the product."""
    q, k = numbers(16).double(), numbers(16, seed=1).double()

    def product(m, n):
        angles = rotary_angles(torch.tensor([m, n]), (2, 3, 3), 100.0).double()
        turned = rotate(torch.stack([q, k]), angles)
        return (turned[0] @ turned[1]).item()

    for step in ([3, 0, 0], [0, 5, 0], [0, 0, 7], [1, 2, 3]):
        there = [a + b for a, b in zip([2, 1, 4], step, strict=True)]
        assert product(there, [2, 1, 4]) == pytest.approx(product(step, [0, 0, 0]), abs=1e-6)
        assert abs(product(there, [2, 1, 4]) - product([2, 1, 4], [2, 1, 4])) > 0.05
        assert abs(product(step, [0, 0, 0]) - product([0, 0, 0], step)) > 0.05  # before is not behind


def test_rotary_angles_give_each_axis_its_own_pairs():
    angles = rotary_angles(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), (2, 3), 100.0)
    thirds = [3 * 100 ** (-i / 3) for i in range(3)]
    expected = torch.tensor([[2.0, 0.2, 0, 0, 0], [0, 0, *thirds]])
    torch.testing.assert_close(angles, expected)
    with pytest.raises(ValueError, match="3 axes; pairs names 2"):
        rotary_angles(torch.zeros(5, 3), (4, 4))


def test_attention_with_angles_turns_queries_and_keys_and_not_values():
    layer, x = Attention(8, 2), numbers(1, 5, 8)
    angles = numbers(5, 2, seed=1)
    q, (k, v) = layer.to_q(x), layer.to_kv(x).chunk(2, dim=-1)
    heads = [slice(0, 4), slice(4, 8)]
    mixed = [
        (rotate(q[..., h], angles) @ rotate(k[..., h], angles).mT / 2).softmax(-1) @ v[..., h] for h in heads
    ]
    expected = layer.to_out(torch.cat(mixed, dim=-1))
    torch.testing.assert_close(layer(x, angles=angles), expected, rtol=1e-5, atol=1e-6)
    assert (layer(x) - expected).abs().max() > 1e-3
    torch.testing.assert_close(layer(x, angles=angles * 0 + 0.7), layer(x), rtol=1e-5, atol=1e-6)  # all turned alike


# -------------------------------------------------------------------------------------------------------- patches


def numbered(time, height, width):
    """A film of one channel in which pixel (t, y, x) holds 10000 t + 100 y + x."""
    t, y, x = torch.meshgrid(torch.arange(time), torch.arange(height), torch.arange(width), indexing="ij")
    return (10_000 * t + 100 * y + x)[None, :, None].float()


def test_tokens_run_over_time_then_rows_then_columns():
    tokens = patchify(numbered(4, 6, 8), (2, 3, 2))  # 2 x 2 x 4 patches
    assert tokens.shape == (1, 16, 12)
    assert tokens[0, :5, 0].tolist() == [0, 2, 4, 6, 300]  # the fifth is the first of row 2
    assert tokens[0, 8, 0] == 20_000  # the ninth is the first of the second pair of frames
    rows = [0, 1, 100, 101, 200, 201]
    assert tokens[0, 0].tolist() == [*rows, *(10_000 + value for value in rows)]


def test_a_pixels_channels_lie_side_by_side():
    film = numbers(1, 2, 3, 4, 4)
    tokens = patchify(film, (1, 2, 2))
    assert torch.equal(tokens[0, 1, 3:6], film[0, 0, :, 0, 3])  # patch 1, row 0, column 1


@pytest.mark.parametrize("patch", [(1, 1, 1), (2, 3, 2), (4, 6, 8), (1, 2, 4)])
def test_unpatchify_is_the_inverse(patch):
    film = numbers(2, 4, 3, 6, 8)
    assert torch.equal(unpatchify(patchify(film, patch), patch, (4, 6, 8)), film)


@pytest.mark.parametrize(
    "patch, name", [((3, 2, 2), "time is 4"), ((2, 4, 2), "height is 6"), ((2, 2, 3), "width is 8")]
)
def test_a_side_that_does_not_divide_is_named(patch, name):
    with pytest.raises(ValueError, match=f"{name}; it takes a multiple of the patch's {max(patch)}"):
        patchify(numbered(4, 6, 8), patch)
    with pytest.raises(ValueError, match=f"{name}; it takes a multiple of the patch's {max(patch)}"):
        unpatchify(numbers(1, 16, 12), patch, (4, 6, 8))


def test_a_picture_without_a_time_is_no_film():
    with pytest.raises(ValueError, match=r"film is \[2, 3, 4, 4\]; it takes \[batch, time, channel, height, width\]"):
        patchify(numbers(2, 3, 4, 4), (1, 2, 2))


def test_a_patch_that_is_no_whole_number_is_refused_and_spoils_no_later_call():
    """einops keeps what it was asked for by value, and 4.0 == 4."""
    for patch in ((1, 2.0, 4.0), (1, 0, 4), (1, 2, -4)):
        with pytest.raises(ValueError, match="patch is .*; it takes whole numbers from 1"):
            patchify(numbered(3, 10, 20), patch)
    assert patchify(numbered(3, 10, 20), (1, 2, 4)).shape[1] == 3 * 5 * 5


def test_grid_positions_stand_in_patchifys_order():
    t, y, x = grid_positions((2, 3, 4)).unbind(-1)
    tokens = patchify(numbered(4, 9, 8), (2, 3, 2))[0, :, 0]
    assert torch.equal(tokens, (20_000 * t + 300 * y + 2 * x).float())


# ----------------------------------------------------------------------------------------------- time, modulation


def test_modulate_is_its_formula_for_each_film():
    x, shift, scale = numbers(2, 3, 4), numbers(2, 4, seed=1), numbers(2, 4, seed=2)
    for b in range(2):
        for n in range(3):
            torch.testing.assert_close(modulate(x, shift, scale)[b, n], x[b, n] * (1 + scale[b]) + shift[b])
    assert torch.equal(modulate(x, 0 * shift, 0 * scale), x)


def test_timestep_embedding_reads_a_thousand_t_and_tells_times_apart():
    layer = TimestepEmbedding(256)
    layer.mlp = nn.Sequential(nn.Linear(256, 256, bias=False))
    nn.init.eye_(layer.mlp[0].weight)  # what the network is given
    table = layer(torch.linspace(0, 1, 101)).detach()
    assert table.shape == (101, 256)
    torch.testing.assert_close(table[25], sincos(torch.tensor(250.0), 256), rtol=0, atol=1e-4)
    apart = torch.cdist(table, table) + 100 * torch.eye(101)
    assert apart.min() > 1


def test_timestep_embedding_goes_through_its_network():
    layer, t = TimestepEmbedding(8), torch.tensor([0.1, 0.7])
    table = sincos(1000 * t, 256)
    hidden = table @ layer.mlp[0].weight.T + layer.mlp[0].bias
    expected = (hidden * hidden.sigmoid()) @ layer.mlp[2].weight.T + layer.mlp[2].bias
    torch.testing.assert_close(layer(t), expected, rtol=1e-4, atol=1e-5)


def test_fused_attention_says_the_same():
    q, k, v = torch.randn(3, 1, 2, 512, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = (16**-0.5 * q @ k.transpose(-1, -2)).softmax(-1) @ v
    everything = torch.ones(512, 512, dtype=torch.bool)
    for seen in (attention(q, k, v), attention(q, k, v, everything), attention(q[:, :, :500], k, v)):
        torch.testing.assert_close(seen, plain[:, :, : seen.shape[2]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tokens", "trains", "expected"),
    [
        (torch.float32, 64, True, True),
        (torch.bfloat16, 64, False, True),
        (torch.bfloat16, 64, True, False),
        (torch.bfloat16, 512, True, True),
    ],
)
def test_attention_is_fused_but_in_short_bfloat16_trainings(monkeypatch, dtype, tokens, trains, expected):
    calls, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args: calls.append(args) or fused(*args))
    q, k, v = torch.randn(3, 1, 2, tokens, 16, dtype=dtype, generator=torch.Generator().manual_seed(0))
    out = attention(q.requires_grad_(trains), k, v)
    assert bool(calls) == expected
    exact = (16**-0.5 * q.double() @ k.double().transpose(-1, -2)).softmax(-1) @ v.double()
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=4 * eps * v.abs().max().item())


# ------------------------------------------------------------------------------------------------------ films in time


def film_block(block):
    """The block in float64 with nothing at zero: the second convolution starts there, and would hide what it does."""
    with torch.no_grad():
        for seed, parameter in enumerate(block.double().parameters()):
            parameter.copy_(0.4 * numbers(*parameter.shape, seed=seed))
    return block


def test_a_convolution_in_time_sees_the_present_and_the_two_frames_before():
    """Its weights lie as [two before, one before, the present]; before the first frame there are zeros."""
    layer, x = film_block(CausalTime(3, 4)), numbers(2, 5, 2, 3, 3, dtype=torch.float64)
    taps = layer.weight.reshape(4, 3, 3)  # [out, tap, in]
    for t in range(5):
        seen = [(x[:, t - 2 + k], taps[:, k]) for k in range(3) if t - 2 + k >= 0]
        torch.testing.assert_close(layer(x)[:, t], layer.bias + sum(frame @ tap.T for frame, tap in seen))


def test_a_convolution_in_space_takes_every_frame_by_itself():
    layer, x = film_block(Space(3, 4, stride=2)), numbers(2, 5, 4, 6, 3, dtype=torch.float64)
    for b in range(2):
        for t in range(5):
            want = F.conv2d(x[b, t].permute(2, 0, 1)[None], layer.weight, layer.bias, stride=2, padding=1)[0]
            torch.testing.assert_close(layer(x)[b, t], want.permute(1, 2, 0))


@pytest.mark.parametrize("height, width", [(4, 6), (5, 7), (1, 2)])
def test_sides_that_a_stride_does_not_divide_are_rounded_up(height, width):
    out = Space(3, 4, stride=2)(numbers(2, 3, height, width, 3))
    assert out.shape == (2, 3, math.ceil(height / 2), math.ceil(width / 2), 4)


class Channels(FilmCodec):
    """A codec whose latents are the film itself."""

    def posterior(self, film):
        return film, torch.zeros_like(film)

    def reconstruct(self, z):
        return z


def test_the_scale_of_a_film_codec_by_hand():
    """The deviation of a sample, n - 1 in the denominator; a channel that never changes comes back as it was."""
    film = torch.tensor([[1.0, 2.0, 4.0, 9.0], [5.0, 5.0, 5.0, 5.0]]).reshape(1, 2, 1, 2, 2).transpose(1, 2)
    codec = Channels(2)
    codec.fit_scale(film)
    assert codec.mean.tolist() == [4.0, 5.0]
    assert codec.std[0].item() == pytest.approx(math.sqrt((9 + 4 + 0 + 25) / 3)) and codec.std[1].item() > 0
    z = codec.encode(film)
    assert (z[:, :, 1] == 0).all()
    torch.testing.assert_close(codec.decode(z), film)


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-2])
def test_small_values_feel_the_eps_of_the_norms(eps):
    """As small as the root of eps: a norm with another one gives other values."""
    x = math.sqrt(eps) * numbers(1, 4, 3, 3, dtype=torch.float64)

    def normed(norm, x):
        groups = x.reshape(1, 2, -1)
        spread = (groups.var(-1, correction=0, keepdim=True) + eps).sqrt()
        return ((groups - groups.mean(-1, keepdim=True)) / spread).reshape(x.shape)

    block = film_block(PictureBlock(4, 4, groups=2, eps=eps))
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.weight.fill_(1), norm.bias.fill_(0)
        block.conv1.weight.mul_(eps**0.5)
        block.conv1.bias.zero_()
    want = x + block.conv2(F.silu(normed(block.norm2, block.conv1(F.silu(normed(block.norm1, x))))))
    torch.testing.assert_close(block(x), want)
    layer = SpatialAttention(4, groups=2, eps=eps).double()
    torch.testing.assert_close(layer.norm(x), normed(layer.norm, x))


def test_the_published_eps_are_the_defaults():
    """1e-5 in U-Nets; 1e-6 before a transformer's tokens (2112.10752, official code)."""
    assert {PictureBlock(32, 32).norm1.eps, PictureBlock(32, 32).norm2.eps, SpatialAttention(32).norm.eps} == {1e-5}
    assert SpatialTransformer(32, 2, 8).norm.eps == 1e-6


@pytest.mark.parametrize("second", [Space, CausalTime])
def test_a_residual_block_is_norm_activation_convolution_twice_and_starts_by_adding_nothing(second):
    assert (ResBlock(4, second).conv2.weight == 0).all()
    block, x = film_block(ResBlock(4, second)), numbers(2, 3, 4, 4, 4, dtype=torch.float64)

    def active(norm, x):
        x = F.layer_norm(x, (4,), norm.weight, norm.bias)
        return x * torch.sigmoid(x)

    want = x + block.conv2(active(block.norm2, block.conv1(active(block.norm1, x))))
    torch.testing.assert_close(block(x), want)
    assert (want - x - block.conv2.bias).abs().mean() > 0.1


def test_moments_of_no_clips_are_of_the_same_kinds():
    for clips in ([], [1], [5, 1]):
        assert [each.dtype for each in moments(clips)] == [torch.float32, torch.bool]


@pytest.mark.parametrize("image", [63, 20, 0])
def test_a_resnet_takes_images_whose_sides_it_can_halve(image):
    with pytest.raises(ValueError, match=f"image is {image}; it takes a multiple of 8"):
        ModifiedResNet((1, 1), embed=6, heads=2, image=image, width=8)


@torch.no_grad()
def test_a_hint_by_hand():
    """For each place and moment: what the prompt says and where and when it is, added, and then an MLP."""
    hint = Hint(6, 5, hidden=8)
    for seed, p in enumerate(hint.parameters()):
        p.copy_(numbers(*p.shape, seed=seed))
    prompt, moments, (height, width) = numbers(2, 5, seed=9), torch.tensor([0.0, 3.0]), (3, 2)
    out = hint(prompt, moments, (height, width)).unflatten(0, (2, 2))
    for b, k, y, x in torch.cartesian_prod(*map(torch.arange, (2, 2, height, width))).tolist():
        at = torch.stack([8 * (y + 0.5) / torch.tensor(height), 8 * (x + 0.5) / torch.tensor(width), moments[k]])
        h = hint.where(sincos(at, 32).flatten()) + hint.prompt(prompt[b])
        want = hint.mlp[3](F.silu(hint.mlp[1](F.silu(h))))
        torch.testing.assert_close(out[b, k, :, y, x], want, rtol=1e-4, atol=1e-4)
