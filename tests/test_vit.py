"""Chapter 03: the Vision Transformer. That published weights give published outputs is in tests/parity."""

import math

import pytest
import torch
from einops import rearrange
from torch import nn

from soralab.blocks import patchify
from soralab.vit import (
    ViT,
    ViTConfig,
    attention_distance,
    cost,
    interpolate_positions,
    patch_filters,
    position_similarity,
    rollout,
)

TINY = ViTConfig(image=16, patch=4, channels=3, dim=16, depth=3, heads=2, classes=5)


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def alive(config=TINY):
    """A model in float64 with nothing at zero: the class token and the head start there, and would hide mistakes."""
    model = ViT(config).double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            scale = 0.5 if parameter.ndim < 2 or parameter is model.positions else parameter.shape[1] ** -0.5
            parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model


# ------------------------------------------------------------------------------------------------ the paper's tables


@pytest.mark.parametrize("name, parameters, macs", [
    ("b16", 86_567_656, 17.564), ("b32", 88_224_232, 4.409), ("l16", 304_326_632, 61.555),
    ("l32", 306_535_400, 15.378), ("h14", 632_045_800, 167.295),
])  # fmt: skip
def test_published_sizes(name, parameters, macs):
    """With a head of 1000 classes; what Table 1 counts is in test_vit_numbers.py."""
    counted, products = cost(getattr(ViTConfig, name)())
    assert counted == parameters
    assert products / 1e9 == pytest.approx(macs, abs=6e-4)


@pytest.mark.parametrize("config, tokens", [
    (ViTConfig.b16(), 197), (ViTConfig.b16(image=384), 577), (ViTConfig.b32(), 50), (ViTConfig.h14(), 257),
    (ViTConfig(), 65),
])  # fmt: skip
def test_tokens(config, tokens):
    assert config.tokens == tokens


def test_the_pretraining_head_adds_one_layer():
    plain, deep = (cost(ViTConfig(hidden=hidden))[0] for hidden in (0, 64))
    assert deep - plain == 64 * 65


# ----------------------------------------------------------------------------------------------------- the equations


def test_equation_1():
    model, pixels = alive(), numbers(2, 3, 16, 16, seed=40)
    z = model.tokens(pixels)
    assert z.shape == (2, 17, 16)
    torch.testing.assert_close(z[:, 0], (model.class_token + model.positions[0]).expand(2, -1))
    for row, column in ((0, 0), (1, 2), (3, 3)):
        patch = pixels[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        x_p = patch.permute(0, 2, 3, 1).flatten(1)  # rows, columns, then colours
        n = 1 + 4 * row + column
        torch.testing.assert_close(z[:, n], model.embed(x_p) + model.positions[n])


def test_equations_2_and_3():
    block, z = alive().blocks[0], numbers(2, 5, 16, seed=41)
    half = z + block.attention(block.norm1(z))
    torch.testing.assert_close(block(z), half + block.mlp(block.norm2(half)))
    # Pre-norm: the residual path is never normalised, so what is added does not grow with z.
    big = 1000 * z
    torch.testing.assert_close(block(big) - big, block(10 * big) - 10 * big, atol=1e-3, rtol=1e-3)


def test_equation_4_reads_the_class_token_alone():
    model, pixels = alive(), numbers(2, 3, 16, 16, seed=42)
    z = model.tokens(pixels)
    for block in model.blocks:
        z = block(z)
    y = model.features(pixels)
    torch.testing.assert_close(y, model.norm(z)[:, 0])
    torch.testing.assert_close(model(pixels), model.head(y))


def test_the_last_layer_is_needed_for_the_class_token_only():
    """The other tokens' last states are thrown away: asked for the class token alone, the last layer says the same."""
    model, pixels = alive(), numbers(2, 3, 16, 16, seed=43)
    z = model.tokens(pixels)
    for block in model.blocks[:-1]:
        z = block(z)
    last = model.blocks[-1]
    normed = last.norm1(z)
    only = z[:, :1] + last.attention(normed[:, :1], context=normed)
    only = only + last.mlp(last.norm2(only))
    torch.testing.assert_close(model.norm(only)[:, 0], model.features(pixels))


# --------------------------------------------------------------------------------------------------------- behaviour


def test_patches_that_move_with_their_positions_change_nothing():
    """Attention is blind to order: all that a ViT knows of where a patch is stands in its position."""
    model, pixels = alive(), numbers(3, 3, 16, 16, seed=44)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    patches = rearrange(pixels, "b c (r p) (s q) -> b (r s) c p q", p=4, q=4)
    shuffled = rearrange(patches[:, order], "b (r s) c p q -> b c (r p) (s q)", r=4)
    before = model(pixels)
    assert (model(shuffled) - before).abs().max() > 1e-3  # the patches alone: another picture
    with torch.no_grad():
        model.positions[1:] = model.positions[1:][order]
    torch.testing.assert_close(model(shuffled), before)


@pytest.mark.parametrize("row, column", [(0, 0), (7, 8), (15, 15)])
def test_every_pixel_is_seen(row, column):
    model, pixels = alive(), numbers(1, 3, 16, 16, seed=45)
    before = model(pixels)
    pixels[0, 1, row, column] += 1
    assert (model(pixels) - before).abs().min() > 1e-8


def test_a_picture_does_not_see_its_neighbours_in_the_batch():
    model, pixels = alive(), numbers(3, 3, 16, 16, seed=46)
    torch.testing.assert_close(model(pixels)[1], model(pixels[1:2])[0])


@pytest.mark.parametrize("hidden", [0, 24])
def test_an_untrained_head_gives_every_class_the_same_chance(hidden):
    torch.manual_seed(0)
    model = ViT(ViTConfig(hidden=hidden, classes=7))
    logits = model(torch.randn(4, 3, 32, 32))
    assert not logits.any()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert model.positions.grad is not None and not model.positions.grad.any()  # at first only the head learns
    last = model.head[-1] if hidden else model.head
    assert last.weight.grad.abs().sum() > 0


def test_the_pretraining_head_has_one_hidden_layer_with_tanh():
    model = alive(ViTConfig(image=16, dim=16, depth=1, heads=2, classes=5, hidden=24))
    y = numbers(2, 16, seed=47)
    hidden = torch.tanh(y @ model.head[0].weight.T + model.head[0].bias)
    torch.testing.assert_close(model.head(y), hidden @ model.head[2].weight.T + model.head[2].bias)


def test_initial_sizes():
    """Xavier for each of q, k and v by itself: bound sqrt(6 / (D + D)), not sqrt(6 / (D + 2 D)) for keys and values."""
    torch.manual_seed(0)
    model = ViT(ViTConfig(dim=192, heads=3))
    attention, bound = model.blocks[1].attention, math.sqrt(6 / (2 * 192))
    for weight in (attention.to_q.weight, *attention.to_kv.weight.chunk(2), attention.to_out.weight):
        assert 0.99 * bound < weight.abs().max() <= bound
    assert model.embed.weight.std().item() == pytest.approx(48**-0.5, rel=0.02)
    assert model.positions.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.class_token.any()


# ------------------------------------------------------------------------------------------------------- fine-tuning


def test_finetuning_gives_exactly_uniform_logits_and_leaves_the_old_model_alone():
    model, pixels = alive(ViTConfig(**{**vars(TINY), "hidden": 24})), numbers(2, 3, 24, 24, seed=48)
    before = model.positions.detach().clone()
    tuned = model.finetune(classes=9, image=24)
    assert tuned.config.hidden == 0 and isinstance(tuned.head, nn.Linear)
    assert tuned(pixels).shape == (2, 9) and not tuned(pixels).any()
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(1)
    assert torch.equal(model.positions, before) and model.config.image == 16


def test_finetuning_at_the_same_size_keeps_the_features():
    model, pixels = alive(), numbers(2, 3, 16, 16, seed=49)
    assert torch.equal(model.finetune(classes=3).features(pixels), model.features(pixels))


def test_all_of_a_finetuned_model_is_trained():
    tuned = alive().finetune(classes=3, image=24)
    nn.init.normal_(tuned.head.weight)
    tuned(numbers(2, 3, 24, 24)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in tuned.parameters())


def test_a_picture_of_flat_patches_means_the_same_at_every_size():
    """Where the positions are a straight line over the grid, stretching them is exact: corners stay on corners."""
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    plane = torch.stack([rows.flatten(), columns.flatten(), torch.ones(16)], 1)
    positions = torch.cat([torch.tensor([[9.0, 9.0, 9.0]]), plane])
    wide = interpolate_positions(positions, (4, 4), (7, 7))
    assert wide[0].tolist() == [9, 9, 9]
    torch.testing.assert_close(wide[1:, 0].reshape(7, 7), torch.arange(0, 3.1, 0.5)[:, None].expand(7, 7))
    torch.testing.assert_close(wide[1:, 1].reshape(7, 7), torch.arange(0, 3.1, 0.5).expand(7, 7))


def test_interpolation_to_the_same_grid_is_the_identity():
    positions = numbers(1 + 3 * 5, 8)
    assert torch.equal(interpolate_positions(positions, (3, 5), (3, 5)), positions)


@pytest.mark.parametrize("old, new", [((4, 4), (6, 6)), ((14, 14), (24, 24)), ((3, 5), (4, 9)), ((8, 8), (4, 4))])
def test_interpolation_is_the_official_one(old, new):
    """The official code calls scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)."""
    ndimage = pytest.importorskip("scipy.ndimage")
    positions = numbers(1 + old[0] * old[1], 8)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    want = ndimage.zoom(positions[1:].reshape(*old, 8).numpy(), zoom, order=1)
    assert want.shape[:2] == new
    ours = interpolate_positions(positions, old, new)
    torch.testing.assert_close(ours[1:], torch.from_numpy(want).reshape(-1, 8))
    assert torch.equal(ours[0], positions[0])


# ---------------------------------------------------------------------------------------------------- looking inside


def test_attention_maps_are_what_the_layers_use():
    model, pixels = alive(), numbers(2, 3, 16, 16, seed=50)
    maps = model.attention_maps(pixels)
    assert len(maps) == 3
    z = model.tokens(pixels)
    for block, weights in zip(model.blocks, maps, strict=True):
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 17, dtype=torch.float64))
        values = block.attention.to_kv(block.norm1(z))[..., 16:]
        mixed = weights @ rearrange(values, "b n (h d) -> b h n d", h=2)
        out = block.attention.to_out(rearrange(mixed, "b h n d -> b n (h d)"))
        torch.testing.assert_close(out, block.attention(block.norm1(z)))
        z = block(z)


def test_attention_distance_of_known_maps():
    """Attention to oneself reaches nowhere, to the right-hand neighbour one patch, to everything the mean distance."""
    to_itself = torch.eye(10)
    right = torch.eye(10)
    right[1:] = 0
    for row in range(3):
        for column in range(3):
            right[1 + 3 * row + column, 1 + 3 * row + (column + 1) % 3] = 1  # the last one looks back two patches
    everywhere = torch.full((10, 10), 0.1)
    weights = torch.stack([to_itself, right, everywhere])[None].expand(2, -1, -1, -1)
    distance = attention_distance(weights, (3, 3), patch=4)
    places = [(r, c) for r in range(3) for c in range(3)]
    mean = sum(math.dist(a, b) for a in places for b in places) / 81
    torch.testing.assert_close(distance, torch.tensor([0.0, 4 * (1 + 1 + 2) / 3, 4 * mean]))


def test_attention_distance_leaves_the_class_token_out():
    weights = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)).softmax(-1)
    before = attention_distance(weights, (3, 3), 4)
    other = weights.clone()
    other[:, :, 0] = torch.eye(10)[5]  # where the class token looks
    other[:, :, 1:] *= 0.5  # and half of what the others give, to it
    other[:, :, 1:, 0] += 0.5
    torch.testing.assert_close(attention_distance(other, (3, 3), 4), before)


def test_position_similarity_is_the_cosine_map_of_each_place():
    positions = numbers(1 + 2 * 3, 4)
    maps = position_similarity(positions, (2, 3))
    assert maps.shape == (2, 3, 2, 3)
    a, b = positions[1 + 1 * 3 + 2], positions[1 + 0 * 3 + 1]
    assert maps[1, 2, 0, 1] == pytest.approx((a @ b / a.norm() / b.norm()).item())
    torch.testing.assert_close(maps.flatten(2).flatten(0, 1).diagonal(), torch.ones(6, dtype=torch.float64))


def test_rollout_follows_attention_through_the_layers():
    """Layer 1: patch 2 reads patch 3; layer 2: the class token reads patch 2. So patch 3 reaches the class token."""
    first, second = torch.eye(4), torch.eye(4)
    first[2] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    second[0] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    maps = [first[None, None], second[None, None]]
    assert rollout(maps).tolist() == [[0.0, 0.25, 0.25]]
    assert rollout(maps[::-1]).tolist() == [[0.0, 0.5, 0.0]]  # the other way round the news comes too late


def test_patch_filters_are_the_main_directions_of_the_projection():
    model = alive(ViTConfig(image=16, dim=16, depth=1, heads=2))
    kind = numbers(4, 4, 3, seed=60)
    with torch.no_grad():
        model.embed.weight.mul_(0.01)
        model.embed.weight[3] += kind.flatten()  # one direction of the width listens for one kind of patch
    first = patch_filters(model, 2)[0]
    want = (kind / kind.abs().max()).permute(2, 0, 1)
    sign = torch.sign((first * want).sum())
    torch.testing.assert_close(sign * first, want, atol=0.05, rtol=0)
    picture = numbers(1, 1, 3, 4, 4, seed=61)
    values = patchify(picture, (1, 4, 4)).flatten()
    assert (values @ kind.flatten()).item() == pytest.approx((picture[0, 0] * kind.permute(2, 0, 1)).sum().item())


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("make, says", [
    (lambda: ViTConfig(image=30, patch=4), "image is 30; it takes a multiple of patch, which is 4"),
    (lambda: ViT(ViTConfig(dim=30, heads=4)), "dim is 30; it takes a multiple of heads, which is 4"),
    (lambda: alive()(numbers(2, 3, 24, 24)), r"pixels are \[2, 3, 24, 24\]; it takes \[batch, 3, 16, 16\].*finetune"),
    (lambda: alive()(numbers(2, 1, 16, 16)), r"pixels are \[2, 1, 16, 16\]"),
    (lambda: alive()(numbers(3, 16, 16)), r"pixels are \[3, 16, 16\]"),
    (lambda: alive().finetune(image=18), "image is 18; it takes a multiple of patch, which is 4"),
    (lambda: interpolate_positions(numbers(16, 8), (4, 4), (6, 6)), r"positions has 16 rows; it takes 1 .* 4 x 4"),
    (lambda: attention_distance(torch.rand(1, 1, 9, 9), (3, 3), 4), r"weights has 9 keys; it takes 1 \+ 3 x 3"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()
