"""Chapter 04: CLIP. That published weights give published outputs is in tests/parity."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from soralab.blocks.resnet import AttentionPool, Bottleneck, ModifiedResNet
from soralab.clip import (
    CLIP,
    MOST_SCALE,
    PUBLISHED,
    CLIPConfig,
    QuickGELU,
    TextTransformer,
    VisionTransformer,
    _unit,
    accumulate,
    contrastive_loss,
    zero_shot,
)
from soralab.recipes import clip as recipe
from soralab.training.muon import decay_groups

TINY = CLIPConfig(embed=12, image=16, layers=2, width=16, patch=4, context=9, vocabulary=40, text_width=24,
                  text_layers=2, head=8)  # fmt: skip
TINY_RESNET = CLIPConfig(**{**vars(TINY), "layers": (1, 1), "width": 8, "patch": 0})


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def alive(config=TINY):
    """A model in float64 with nothing at zero."""
    model = CLIP(config).double().eval()
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            if name != "t":
                scale = 0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model


def some_ids(rows=5, length=9, seed=0, ends=None):
    """Random ids with an end of text (39) at ends[row], after which nothing is to be read."""
    ids = torch.randint(1, 38, (rows, length), generator=torch.Generator().manual_seed(seed))
    for row in range(rows):
        ids[row, (ends or [length - 1] * rows)[row]] = 39
    return ids


def unit(rows, dim, seed):
    return F.normalize(numbers(rows, dim, seed=seed), dim=-1)


# ------------------------------------------------------------------------------------------------ the paper's tables


@pytest.mark.parametrize("name, parameters", [
    ("RN50", 102_007_137), ("RN101", 119_688_033), ("RN50x4", 178_300_601), ("RN50x16", 290_979_217),
    ("RN50x64", 623_258_305), ("ViT-B/32", 151_277_313), ("ViT-B/16", 149_620_737), ("ViT-L/14", 427_616_513),
    ("ViT-L/14@336px", 427_944_193),
])  # fmt: skip
def test_the_nine_published_sizes(name, parameters):
    with torch.device("meta"):
        model = CLIP(CLIPConfig.published(name))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(PUBLISHED) == 9


def test_the_text_tower_has_63_million():
    """Section 2.4 says 63 million: of ViT-B/32's text tower with W_t and t."""
    with torch.device("meta"):
        model = CLIP(CLIPConfig.published("ViT-B/32"))
    counted = sum(p.numel() for part in (model.text, model.W_t) for p in part.parameters()) + model.t.numel()
    assert counted == 63_428_097 and round(counted / 1e6) == 63


def test_the_temperature_at_first():
    assert CLIP(TINY).t.item() == pytest.approx(2.6593, abs=1e-4)
    assert CLIP(TINY).scale.item() == pytest.approx(14.2857, abs=1e-4)


# ----------------------------------------------------------------------------------------------------- the text tower


@pytest.mark.parametrize("place", range(8))
def test_no_token_sees_a_later_one(place):
    """The Jacobian: what changes when the token at `place` does. Everything from there on, and nothing before."""
    text, ids = alive().text, some_ids(1, ends=[8])
    other = ids.clone()
    other[0, place] = 38
    moved = (text(torch.cat([ids, other]))[0].diff(dim=0)[0].abs().amax(-1)) > 1e-9
    assert moved.tolist() == [k >= place for k in range(9)]


def test_what_stands_behind_the_end_is_never_read():
    model, ends = alive(), [3, 8, 5, 1, 6]
    ids = some_ids(ends=ends)
    other = ids.clone()
    for row, end in enumerate(ends):
        other[row, end + 1 :] = 7
    tokens, feature = model.text(ids)
    torch.testing.assert_close(feature, tokens[range(5), ends])
    torch.testing.assert_close(model.encode_text(other), model.encode_text(ids), rtol=0, atol=1e-12)
    short = ids[3:4, :2]  # nor need it be there
    torch.testing.assert_close(model.encode_text(short), model.encode_text(ids)[3:4])
    assert (model.text(other)[0] - tokens).abs().max() > 1e-3  # the vectors behind the end do differ


def test_the_first_end_counts():
    model, ids = alive(), some_ids(1, ends=[4])
    other = ids.clone()
    other[0, 7] = 39
    torch.testing.assert_close(model.encode_text(other), model.encode_text(ids))


def test_the_text_tower_stands_alone():
    """As another chapter uses it: ids in, one vector a token and the text's out."""
    text = TextTransformer(context=9, vocabulary=40, width=24, layers=2, head=8)
    tokens, feature = text(some_ids(2))
    assert tokens.shape == (2, 9, 24) and feature.shape == (2, 24)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 9), atol=1e-5, rtol=0)  # the last norm is done
    feature.square().sum().backward()
    assert text.token_embedding.weight.grad.abs().sum() > 0


# --------------------------------------------------------------------------------------------------- the image towers


def test_quick_gelu():
    x = torch.linspace(-4, 4, 41)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    assert 0.01 < (QuickGELU()(x) - F.gelu(x)).abs().max() < 0.03  # near GELU, and not it


def test_the_vit_has_one_norm_more_than_chapter_03s():
    model, pixels = alive(), numbers(2, 3, 16, 16, seed=41)
    states = model.image.states(pixels)
    patches = F.unfold(pixels, 4, stride=4).transpose(1, 2) @ model.image.conv1.weight.flatten(1).T
    tokens = torch.cat([model.image.class_embedding.expand(2, 1, -1), patches], 1) + model.image.positional_embedding
    torch.testing.assert_close(states[0], model.image.ln_pre(tokens))
    assert len(states) == 3 and states[-1].shape == (2, 17, 16)
    out = model.image.ln_post(states[-1][:, 0]) @ model.image.W_i.weight.T
    torch.testing.assert_close(model.image(pixels), out)


def test_attention_pooling_asks_with_the_mean():
    """Against nn.MultiheadAttention with one query, the mean of all places, which is also the first key."""
    pool = AttentionPool(side=3, dim=16, heads=2, embed=5).double()
    x = numbers(2, 16, 3, 3, seed=42)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    weights = torch.cat([layer.weight for layer in (pool.q_proj, pool.k_proj, pool.v_proj)])
    biases = torch.cat([layer.bias for layer in (pool.q_proj, pool.k_proj, pool.v_proj)])
    want, _ = F.multi_head_attention_forward(
        tokens[:, :1].transpose(0, 1), tokens.transpose(0, 1), tokens.transpose(0, 1), 16, 2, weights, biases, None,
        None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias,
    )  # fmt: skip
    torch.testing.assert_close(pool(x), want[0])
    # Places that have no position are a set: moved about, they give the same answer.
    with torch.no_grad():
        pool.positional_embedding[1:] = 0
    torch.testing.assert_close(pool(x.flip(-1)), pool(x))


def test_strides_are_average_pools():
    """A pattern that flips with every pixel is averaged away; a strided convolution sees every other pixel of it."""
    block = Bottleneck(8, 4, stride=2).eval()
    nn.init.zeros_(block.conv3.weight)  # the skip alone
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checks = ((-1.0) ** (rows + columns)).expand(1, 8, 8, 8)
    torch.testing.assert_close(block(checks), block(torch.zeros(1, 8, 8, 8)), atol=1e-6, rtol=0)
    assert block(checks).shape == (1, 16, 4, 4)


def test_every_bottleneck_passes_its_input_on_at_first():
    net = ModifiedResNet((1, 2), embed=6, heads=2, image=32, width=8).eval()
    assert all(not m.bn3.weight.any() for m in net.modules() if isinstance(m, Bottleneck))
    x = torch.rand(1, 64, 4, 4)
    torch.testing.assert_close(net.layer2[1](x), x)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 6)


@pytest.mark.parametrize("config", [TINY, TINY_RESNET], ids=["ViT", "ResNet"])
def test_a_picture_does_not_see_its_neighbours_in_the_batch(config):
    model, pixels = alive(config), numbers(3, 3, 16, 16, seed=43)
    torch.testing.assert_close(model.encode_image(pixels)[1], model.encode_image(pixels[1:2])[0])
    torch.testing.assert_close(model.encode_image(pixels).norm(dim=-1), torch.ones(3, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_in_figure_3():
    """Written out with logarithms and sums: the mean over both directions of -log of the right one's share."""
    I_e, T_e, s = unit(6, 4, 1), unit(6, 4, 2), 5.0
    total = 0.0
    for k in range(6):
        row = [math.exp(s * float(I_e[k] @ T_e[j])) for j in range(6)]
        column = [math.exp(s * float(I_e[j] @ T_e[k])) for j in range(6)]
        total -= math.log(row[k] / sum(row)) + math.log(column[k] / sum(column))
    assert contrastive_loss(I_e, T_e, torch.tensor(s)).item() == pytest.approx(total / 12)


def test_the_loss_is_symmetric_and_blind_to_the_order_of_pairs():
    I_e, T_e, s = unit(7, 4, 1), unit(7, 4, 2), torch.tensor(20.0)
    want = contrastive_loss(I_e, T_e, s)
    torch.testing.assert_close(contrastive_loss(T_e, I_e, s), want)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(contrastive_loss(I_e[order], T_e[order], s), want)
    assert abs(contrastive_loss(I_e, T_e[order], s) - want) > 0.1  # but not to who belongs to whom


def test_a_model_that_knows_nothing_has_the_loss_of_a_guess():
    same = unit(1, 4, 3).expand(8, 4)
    assert contrastive_loss(same, same, torch.tensor(14.0)).item() == pytest.approx(math.log(8))


def test_two_equal_texts_cost_ln_2_each():
    """The lowest loss with twins: their pictures can be told apart by nobody who reads the texts alone."""
    T_e = torch.eye(6, dtype=torch.float64)
    T_e[5] = T_e[4]
    I_e = T_e.clone()
    assert contrastive_loss(I_e, T_e, torch.tensor(200.0)).item() == pytest.approx(2 / 6 * math.log(2), abs=1e-9)


# ---------------------------------------------------------------------------------------------------- the temperature


def test_the_scale_is_clipped_at_100_and_finds_its_way_back():
    model = CLIP(TINY)
    model.t.data.fill_(7.0)
    model.clip_scale()
    assert model.scale.item() == pytest.approx(MOST_SCALE, rel=1e-5)
    (2 * model.scale).backward()
    assert model.t.grad.item() == pytest.approx(200, rel=1e-5)  # a clamp in the forward pass would give 0
    model.t.data.fill_(-3.0)
    model.clip_scale()
    assert model.t.item() == -3.0


def test_a_training_step_clips_the_scale_first():
    """Section 2.5: what the loss multiplies by, reports and learns from is at most 100."""
    model, batch = CLIP(TINY), {"pixels": numbers(3, 3, 16, 16, dtype=torch.float32), "ids": some_ids(3)}
    model.t.data.fill_(7.0)
    value, told = recipe.loss(model, batch, torch.Generator())
    assert model.scale.item() == pytest.approx(MOST_SCALE, rel=1e-5)
    assert told["scale"].item() == pytest.approx(MOST_SCALE, rel=1e-5) and value.item() < 2 * MOST_SCALE


def test_gains_biases_and_t_are_not_decayed():
    model = CLIP(TINY_RESNET)
    decayed, plain = decay_groups(model, 0.2)
    names = {id(p): name for name, p in model.named_parameters()}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    assert decayed["weight_decay"] == 0.2 and plain["weight_decay"] == 0
    without = [names[id(p)] for p in plain["params"]]
    assert "t" in without and "image.bn1.weight" in without and "text.ln_final.weight" in without
    assert all(name == "t" or name.endswith(("weight", "bias")) for name in without)
    assert "image.conv1.weight" in [names[id(p)] for p in decayed["params"]]


# ---------------------------------------------------------------------------------------------------- a large batch


@pytest.mark.parametrize("chunk", [1, 3, 4, 11])
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(chunk):
    model, pixels, ids = alive(), numbers(11, 3, 16, 16, seed=50), some_ids(11)
    loss = contrastive_loss(model.encode_image(pixels), model.encode_text(ids), model.scale)
    loss.backward()
    want = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.testing.assert_close(accumulate(model, pixels, ids, chunk), loss.detach(), rtol=1e-12, atol=1e-12)
    for name, p in model.named_parameters():
        assert want[name].abs().max() > 1e-6, name
        torch.testing.assert_close(p.grad, want[name], rtol=1e-9, atol=1e-12, msg=name)


def test_the_sum_of_the_pieces_losses_is_something_else():
    """What accumulation does elsewhere: each piece would have three wrong answers instead of eleven."""
    model, pixels, ids = alive(), numbers(12, 3, 16, 16, seed=50), some_ids(12)
    contrastive_loss(model.encode_image(pixels), model.encode_text(ids), model.scale).backward()
    want = model.W_t.weight.grad.clone()
    model.zero_grad()
    for p, i in zip(pixels.split(4), ids.split(4), strict=True):
        (contrastive_loss(model.encode_image(p), model.encode_text(i), model.scale) / 3).backward()
    assert (model.W_t.weight.grad - want).norm() > 0.1 * want.norm()


# --------------------------------------------------------------------------------------------------------- zero-shot


def test_a_classifier_made_of_texts():
    model = alive()
    one, several = some_ids(1, seed=1), some_ids(3, seed=2)
    rows = zero_shot(model, [one, several])
    torch.testing.assert_close(rows[0], model.encode_text(one)[0])
    mean = sum(model.encode_text(several[k : k + 1])[0] for k in range(3))
    torch.testing.assert_close(rows[1], mean / mean.norm())
    assert not rows.requires_grad


def test_a_tiny_model_learns_which_text_belongs_to_which_picture():
    torch.manual_seed(0)
    model, pixels, ids = CLIP(TINY), numbers(8, 3, 16, 16, dtype=torch.float32), some_ids(8)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.2), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = contrastive_loss(model.encode_image(pixels), model.encode_text(ids), model.scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.clip_scale()
        losses.append(loss.item())
    assert losses[0] > 1 and losses[-1] < 0.1
    assert (model(pixels, ids).argmax(1) == torch.arange(8)).all()


def test_initial_sizes():
    """The residual path: what a layer adds at first is smaller by (2 layers)^-1/2."""
    torch.manual_seed(0)
    tower = VisionTransformer(CLIPConfig(width=256, layers=3, patch=4, head=64, text_width=64))
    block = tower.blocks[1]
    assert block.attention.to_q.weight.std().item() == pytest.approx(1 / 16, rel=0.03)
    assert block.attention.to_out.weight.std().item() == pytest.approx(1 / 16 / 6**0.5, rel=0.03)
    assert block.mlp[2].weight.std().item() == pytest.approx(1 / 16 / 6**0.5, rel=0.03)
    assert block.mlp[0].weight.std().item() == pytest.approx(512**-0.5, rel=0.03)
    both = CLIP(CLIPConfig(embed=200, text_width=320))
    assert both.W_t.weight.std().item() == pytest.approx(320**-0.5, rel=0.03)
    assert both.text.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert both.text.positional_embedding.std().item() == pytest.approx(0.01, rel=0.05)


def test_every_batch_norm_is_the_published_one():
    norms = [module for module in CLIP(CLIPConfig()).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 10 and {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_have_length_1_in_float32_however_the_towers_compute(dtype):
    """A cosine that is off by half precision's 0.004 would be multiplied by up to 100."""
    rough = 20 * numbers(64, 48).to(dtype)
    unit = _unit(rough)
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(64), rtol=0, atol=1e-6)
    torch.testing.assert_close(unit.double(), nn.functional.normalize(rough.double(), dim=-1), rtol=0, atol=1e-6)
    assert _unit(rough.double()).dtype == torch.float64


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("make, says", [
    (lambda: CLIPConfig(image=30), "image is 30; it takes a multiple of 16: the patch, or"),
    (lambda: CLIPConfig(layers=2, image=30, patch=4), "image is 30; it takes a multiple of 4"),
    (lambda: CLIPConfig(layers=2), "patch is 0; a ViT takes the side of its patches, in pixels, from 1"),
    (lambda: CLIPConfig(head=0), "head is 0; it takes a number that divides text_width 96"),
    (lambda: CLIPConfig(head=36), "head is 36; it takes a number that divides text_width 96"),
    (lambda: CLIPConfig(head=48), "head is 48; it takes a number that divides the image tower's 1024"),
    (lambda: CLIPConfig(layers=2, patch=4, width=24), "head is 16; it takes .* that divides the image tower's 24"),
    (lambda: CLIPConfig.published("ViT-B/8"), "name is 'ViT-B/8'; it takes one of RN50, .*ViT-L/14@336px"),
    (lambda: alive().encode_image(numbers(2, 3, 8, 16)), r"pixels are \[2, 3, 8, 16\]; it takes \[batch, 3, 16, 16\]"),
    (lambda: alive().encode_text(some_ids(1, 12)), r"ids are \[1, 12\]; it takes .* at most 9 tokens"),
    (lambda: alive().encode_text(some_ids(3).clamp(max=38)), r"ids has no end of text \(id 39\) in row 0"),
    (lambda: alive().encode_text(torch.cat([some_ids(2), some_ids(1).clamp(max=38)])), "no end of text .* in row 2"),
    (lambda: CLIP.from_openai({}), "state has no text_projection; it takes the weights of a CLIP"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_config_survives_json():
    assert CLIPConfig(**{**vars(TINY_RESNET), "layers": [1, 1]}) == TINY_RESNET
