"""Chapter 01: the network's sizes, its equations, its tiles, its data, how it is judged, and its recipe."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from soralab import world
from soralab.datasets import cells
from soralab.diffusion import RectifiedFlow, diffusion_loss
from soralab.exercises import exercises
from soralab.experiments import make, unet_isbi
from soralab.experiments import unet as experiments
from soralab.experiments import unet_scores as segmentation_scores
from soralab.experiments.unet_scores import components, count_error, otsu, overlap, pixel_error, rand_error
from soralab.files.checkpoints import load_checkpoint
from soralab.recipes import unet as recipe
from soralab.unet import (
    UNet,
    UNetConfig,
    centre_crop,
    crop_and_concat,
    elastic_deformation,
    load_unet,
    mirror,
    mirror_for,
    overlap_tile,
    separate,
    weight_map,
    weighted_cross_entropy,
)

TINY = UNetConfig(width=4, levels=3, dropout=0.5)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(config=TINY, seed=0):
    torch.manual_seed(seed)
    return UNet(config).eval()


# --------------------------------------------------------------------------------------------------- the paper's net


@pytest.fixture(scope="module")
def papers_net():
    with torch.device("meta"):
        return UNet(UNetConfig.paper())


def test_the_papers_parameters_layers_sizes_and_cost(papers_net):
    assert sum(p.numel() for p in papers_net.parameters()) == 31_030_658
    layers = [m for m in papers_net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(layers) == 23
    sizes = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    with FlopCounterMode(display=False) as counter:
        out = papers_net(torch.empty(1, 1, 572, 572, device="meta"))
    assert out.shape == (1, 2, 388, 388)
    down = [570, 568, 282, 280, 138, 136, 66, 64, 30, 28]
    up = [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388]
    assert sizes == down + up  # figure 1, number by number
    assert counter.get_total_flops() / 2e9 == pytest.approx(150.43, abs=0.005)  # multiply-adds


def test_the_papers_channels(papers_net):
    assert [block.second.out_channels for block in papers_net.down] == [64, 128, 256, 512, 1024]
    for up, merge in zip(papers_net.up, papers_net.merge, strict=True):
        assert up.out_channels * 2 == up.in_channels == merge.first.in_channels  # halved, then doubled by the copy
        assert up.kernel_size == up.stride == (2, 2)


def test_a_side_is_valid_where_every_pooling_finds_an_even_number_and_a_pixel_comes_out():
    for levels in (1, 2, 3, 4, 5):
        config, side = UNetConfig(levels=levels), None
        for size in range(1, 260):
            side, fits = size, True
            for _ in range(levels - 1):
                fits, side = fits and (side - 4) % 2 == 0, (side - 4) // 2
            side -= 4
            for _ in range(levels - 1):
                fits, side = fits and side > 0, 2 * side - 4
            if fits and side > 0:
                assert config.output_size(size) == side
            else:
                with pytest.raises(ValueError, match=f"tile is {size}; it takes"):
                    config.output_size(size, "tile")


@pytest.mark.parametrize("size, nearest", [(573, "572 and 588"), (571, "556 and 572"), (140, "188"), (0, "188")])
def test_a_wrong_tile_is_told_the_nearest_right_ones(size, nearest):
    with pytest.raises(ValueError, match=rf"tile is {size}; it takes 16k \+ 12 from 188 on: the nearest {nearest}$"):
        UNetConfig.paper().output_size(size, "tile")


def test_what_the_network_does_not_take_is_named():
    model = net()
    with pytest.raises(ValueError, match=r"x is \[1, 3, 44, 44\]; it takes \[batch, 1, height, width\]"):
        model(torch.zeros(1, 3, 44, 44))
    with pytest.raises(ValueError, match="the width of x is 45; it takes 4k from 44 on: the nearest 44 and 48"):
        model(torch.zeros(1, 1, 44, 45))
    with pytest.raises(ValueError, match="t: this network is told no time"):
        model(torch.zeros(1, 1, 44, 44), torch.zeros(1))
    denoiser = net(UNetConfig.denoiser(width=4, time=8))
    with pytest.raises(ValueError, match="t is missing"):
        denoiser(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"t is \[2\]; it takes one time for each of the 1 pictures"):
        denoiser(torch.zeros(1, 3, 8, 8), torch.zeros(2))
    for changes, name in (({"levels": 0}, "levels"), ({"width": 2.0}, "width"), ({"dropout": 1.0}, "dropout")):
        with pytest.raises(ValueError, match=f"^{name} is"):
            UNetConfig(**changes)


# ------------------------------------------------------------------------------------------------ how it is connected


def test_the_copy_is_cropped_to_its_middle_and_comes_first():
    skip, x = numbers(2, 3, 12, 10), numbers(2, 5, 8, 4, seed=1)
    both = crop_and_concat(skip, x)
    assert torch.equal(both[:, :3], skip[:, :, 2:10, 3:7]) and torch.equal(both[:, 3:], x)
    with pytest.raises(ValueError, match="height, width: got 13x4; it takes at most x's 12x10"):
        centre_crop(skip, 13, 4)


def test_a_copy_lies_under_the_pixels_that_it_shows():
    """With the way from below cut off, an output pixel sees the copy alone: four convolutions, nine pixels, centred."""
    model, x = net(), numbers(1, 1, 76, 68).requires_grad_()
    for value in (model.up[-1].weight, model.up[-1].bias):
        nn.init.zeros_(value)
    model(x)[0, 0, 17, 9].backward()  # 20 pixels go on each side: it stands for the picture's (37, 29)
    seen = torch.nonzero(x.grad[0, 0])
    assert seen.min(0).values.tolist() == [33, 25] and seen.max(0).values.tolist() == [41, 33]


def test_without_skips_nothing_is_copied():
    x, found = numbers(1, 1, 60, 60), []
    for model in (net(), net(replace(TINY, skips=False))):
        assert model(x).shape == (1, 2, 20, 20)
        found.append(_gradient_beside_the_pooling(model, x))
    assert found[0] > 1e-3 and found[1] == 0


def _gradient_beside_the_pooling(model, x):
    """The output's gradient in those pixels of the first level that lose the pooling and so only the copy carries."""
    kept = []

    def keep(_, __, out):
        out.retain_grad()
        kept.append(out)

    hook = model.down[0].register_forward_hook(keep)
    model(x).square().sum().backward()
    hook.remove()
    level = kept[0]
    pooled, places = nn.functional.max_pool2d(level, 2, return_indices=True)
    wins = nn.functional.max_unpool2d(torch.ones_like(pooled), places, 2, output_size=level.shape)
    return level.grad[wins == 0].abs().max().item()


def test_dropout_is_at_the_end_of_the_contracting_path():
    model, x, seen = net(UNetConfig(width=4, levels=3)).train(), numbers(1, 1, 100, 100), {}

    def note(name):
        def hook(_, args, __):
            seen[name] = args[0]

        return hook

    model.up[0].register_forward_hook(note("deepest"))
    model.merge[0].register_forward_hook(note("first merge"))
    model.merge[1].register_forward_hook(note("last merge"))
    torch.manual_seed(0)
    model(x)
    assert (seen["deepest"] == 0).float().mean() > 0.6  # half of it dropped, and half of the rest below the ReLU
    assert (seen["first merge"][:, :8] == 0).float().mean() > 0.6  # the copy of the level above: the end has two levels
    copy = seen["last merge"][:, :4]  # the shallowest copy: dropped nowhere
    torch.testing.assert_close(copy, centre_crop(model.down[0](x), *copy.shape[-2:]))


def test_hes_initialisation_keeps_the_variance():
    """Through ten convolutions and ReLUs numbers neither die nor explode; PyTorch's own would shrink them 6 each."""
    torch.manual_seed(0)
    config = UNetConfig(channels=64, width=64, levels=1, same=True)
    model = UNet(config)
    stack, x = [UNet(config).down[0] for _ in range(5)], numbers(1, 64, 24, 24).abs()
    x = x / x.square().mean().sqrt()
    with torch.no_grad():
        for block in stack:
            x = block(x)
        inner = x.square().mean().item()
    assert 0.2 < inner < 5  # the padding's zeros take a little
    for layer in (stack[0].first, model.head):
        gain = 2 if layer.kernel_size == (3, 3) else 1
        n = layer.in_channels * layer.kernel_size[0] ** 2
        assert layer.weight.var().item() == pytest.approx(gain / n, rel=0.15) and not layer.bias.any()
    up = UNet(UNetConfig(width=32, levels=2)).up[0]  # each output pixel is made of 64 numbers, not of 4 x 64
    assert up.weight.var().item() == pytest.approx(1 / 64, rel=0.1)


def block_input(model, x, t):
    """What the first block's second convolution is given."""
    seen = []
    hook = model.down[0].second.register_forward_hook(lambda _, args, __: seen.append(args[0].clone()))
    model(x, t)
    hook.remove()
    return seen[0]


def test_the_denoiser_keeps_the_size_and_heeds_the_time():
    model = net(UNetConfig.denoiser(width=8, time=16))
    x = numbers(2, 3, 16, 24)
    early, late = model(x, torch.zeros(2)), model(x, torch.ones(2))
    assert early.shape == x.shape and (early - late).abs().max() > 1e-2
    mixed = model(x, torch.tensor([0.0, 1.0]))  # each picture its own time
    torch.testing.assert_close(mixed, torch.stack([early[0], late[1]]))
    deep = model.double()
    for layer in (m for m in deep.modules() if hasattr(m, "bias") and m.bias is not None):
        nn.init.normal_(layer.bias, std=0.5)
    x, t = x.double(), torch.tensor([0.2, 0.7], dtype=torch.float64)
    c = nn.functional.silu(deep.time(t))
    first = deep.down[0].first(x) + deep.down[0].time(c)[:, :, None, None]  # the time, then the ReLU
    torch.testing.assert_close(block_input(deep, x, t), first.clamp(min=0))
    model, x = model.float(), x.float()
    loss = diffusion_loss(RectifiedFlow(), model, x, "v", generator=torch.Generator().manual_seed(0)).mean()
    loss.backward()
    assert all(p.grad.abs().max() > 0 for name, p in model.named_parameters() if "time" in name)
    with pytest.raises(ValueError, match="the height of x is 18; it takes 4k from 4 on: the nearest 16 and 20"):
        model(numbers(1, 3, 18, 16), torch.zeros(1))


# ---------------------------------------------------------------------------------------------------- loss and weights


def test_eq_1_is_the_weighted_mean_of_minus_log_p():
    logits, target = numbers(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    weights = numbers(2, 4, 5, seed=2).abs()
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    total = 0.0
    for b, y, x in np.ndindex(2, 4, 5):
        total -= float(weights[b, y, x]) * math.log(p[b, target[b, y, x], y, x])
    assert weighted_cross_entropy(logits, target, weights).item() == pytest.approx(total / 40, rel=1e-5)
    ones = weighted_cross_entropy(logits, target, torch.ones(2, 4, 5))
    torch.testing.assert_close(weighted_cross_entropy(logits, target), ones)
    with pytest.raises(ValueError, match=r"weights is \[2, 6, 5\]; it takes \[2, 4, 5\]"):
        weighted_cross_entropy(logits, target, torch.ones(2, 6, 5))


def test_eq_2_is_what_its_definition_says():
    """Against distances taken pixel by pixel, to every pixel of every cell: O(n^2), and nothing of scipy."""
    labels = separate(cells.draw(3, 0, 28)[1])
    assert labels.max() >= 3
    w_c, w0, sigma = (0.4, 2.5), 7.0, 3.0
    expected = np.where(labels > 0, w_c[1], w_c[0]).astype(float)
    for y, x in zip(*np.nonzero(labels == 0), strict=True):
        distances = []
        for name in set(labels[labels > 0].tolist()):
            ys, xs = np.nonzero(labels == name)
            distances.append(min(math.hypot(y - b, x - a) for b, a in zip(ys, xs, strict=True)))
        d1, d2 = sorted(distances)[:2]
        expected[y, x] += w0 * math.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    ours = weight_map(labels, w0, sigma, w_c)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_by_itself_each_class_weighs_half():
    labels = np.zeros((10, 10), np.int32)
    labels[:2, :5] = 1
    weights = weight_map(labels)
    assert weights[labels > 0].sum() == pytest.approx(50) and weights[labels == 0].sum() == pytest.approx(50)
    assert torch.equal(weight_map(np.zeros((4, 4), int)), torch.ones(4, 4))
    with pytest.raises(ValueError, match=r"labels is float64 \[4, 4\]; it takes whole numbers"):
        weight_map(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="sigma is 0; it takes pixels, above 0"):
        weight_map(labels, sigma=0)


def test_touching_cells_are_parted_and_nothing_else_is_touched():
    _, labels = cells.draw(0, 1, 64)
    parted = separate(labels)
    pieces, count = ndimage.label(parted)
    for name in range(1, count + 1):
        assert len(np.unique(parted[pieces == name])) == 1  # no piece holds two cells
    lost = (labels > 0) & (parted == 0)
    distance = ndimage.distance_transform_edt(labels == 0)  # 0 in cells
    near = np.stack([ndimage.binary_dilation(labels == n, np.ones((3, 3))) for n in range(1, labels.max() + 1)]).sum(0)
    assert lost.any() and (near[lost] >= 2).all() and not distance[lost].any()


# -------------------------------------------------------------------------------------------------- bent and cut


def test_bending_by_nothing_changes_nothing():
    picture, labels = cells.draw(0, 0, 40)
    bent, moved = elastic_deformation(picture, labels, np.random.default_rng(0), std=0.0)
    torch.testing.assert_close(bent, picture, rtol=0, atol=1e-6)
    assert np.array_equal(moved, labels) and moved.dtype == labels.dtype


def test_a_picture_and_its_labels_are_bent_alike():
    y, x = np.mgrid[:80, :80]
    labels = (40 * (np.hypot(y - 30, x - 45) < 15) + 90 * (np.hypot(y - 60, x - 20) < 9)).astype(np.int32)
    picture = torch.from_numpy(labels.astype(np.float32))[None]
    bent, moved = elastic_deformation(picture, labels, np.random.default_rng(1))
    assert set(np.unique(moved)) == {0, 40, 90}  # never a mixture: between 0 and 90 there would be many
    assert (moved != labels).mean() > 0.02
    inside = ndimage.minimum_filter(moved, 3) == ndimage.maximum_filter(moved, 3)
    torch.testing.assert_close(bent[0][inside], torch.from_numpy(moved[inside].astype(np.float32)), rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match=r"labels is \[80, 80\]; it takes the height and width of image \[1, 80, 70\]"):
        elastic_deformation(picture[..., :70], labels, np.random.default_rng(0))


def test_the_displacements_have_the_papers_size_and_are_smooth():
    """A picture of its own coordinates shows how far each pixel has moved."""
    y, x = np.mgrid[:61, :61].astype(np.float32)
    places = torch.from_numpy(np.stack([y, x])) + 1000
    rng, corners = np.random.default_rng(0), []
    for _ in range(60):
        bent, _ = elastic_deformation(places, np.zeros((61, 61), np.int32), rng, std=4.0)
        moves = (bent - places)[:, 20:41, 20:41]
        assert (moves.diff(dim=1).abs().max() < 1.5) and (moves.diff(dim=2).abs().max() < 1.5)
        corners.append(moves[:, 10, 10])  # the grid's middle point
    spread = torch.stack(corners).std(0)
    assert (spread - 4).abs().max() < 1.2


def test_a_mirror_stands_on_the_edge_pixel():
    row = torch.arange(4.0).reshape(1, 4)
    assert mirror(row, 0, 0, 3, 2).tolist() == [[3, 2, 1, 0, 1, 2, 3, 2, 1]]
    assert mirror(row, 0, 0, 7, 0).tolist() == [[1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]]  # reflected again
    picture = numbers(2, 1, 9, 12)
    torch.testing.assert_close(mirror(picture, 3, 2, 5, 4), nn.functional.pad(picture, (5, 4, 3, 2), mode="reflect"))


FOUR = replace(TINY, levels=4, width=2)  # of a tile of 8k + 4 come 8k + 4 pixels, no multiple of 8


@pytest.mark.parametrize(
    "config, side, tiles",
    [(TINY, (70, 53), (52, 60, 100)), (replace(TINY, levels=2), (31, 40), (20, 34)), (FOUR, (50, 40), (108, 124))],
)
def test_stitched_tiles_are_the_whole(config, side, tiles):
    """Whatever the tile, the seams do not show: the same as one forward pass of the mirrored picture."""
    model, picture = net(config), numbers(1, 1, *side)
    for tile in tiles:
        whole = model(mirror_for(config, picture, tile))[..., : side[0], : side[1]]
        stitched = overlap_tile(model, picture, tile)
        torch.testing.assert_close(stitched, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stitched, overlap_tile(model, picture, tiles[0]), rtol=1e-4, atol=1e-5)
    assert stitched.shape == (1, 2, *side) and stitched.std() > 0.1


def test_in_the_papers_steps_of_388_the_seams_would_show():
    """384 is a multiple of 16, 388 is not: the second tile's poolings would pair other pixels than the whole's."""
    model, picture = net(), numbers(1, 1, 40, 40)
    padded = mirror_for(TINY, picture, 64)
    whole = model(padded)
    out = TINY.output_size(60)  # 20
    aligned, shifted = (model(padded[..., :60, s : s + 60]) - whole[..., :out, s : s + out] for s in (20, 22))
    assert aligned.abs().max() < 1e-5 and shifted.abs().max() > 1e-2


def test_tiles_that_cannot_be_are_refused():
    model = net()
    with pytest.raises(ValueError, match="tile is 45; it takes 4k from 44 on: the nearest 44 and 48"):
        overlap_tile(model, torch.zeros(1, 1, 50, 50), 45)
    with pytest.raises(
        ValueError, match="tile is 188, of which 4 pixels come out; overlap-tile takes a side from 200 on"
    ):
        mirror_for(UNetConfig.paper(), torch.zeros(1, 1, 50, 50), 188)
    with pytest.raises(ValueError, match="overlap-tile takes a network that does not pad"):
        mirror_for(UNetConfig.denoiser(), torch.zeros(1, 3, 50, 50), 32)


def test_overlap_tile_drops_nothing_out_and_leaves_the_model_as_it_was():
    model = net().train()
    picture = numbers(1, 1, 40, 40)
    assert torch.equal(overlap_tile(model, picture, 60), overlap_tile(model, picture, 60)) and model.training
    with pytest.raises(ValueError, match=r"x is \[1, 2, 60, 60\]; it takes \[batch, 1, height, width\]"):
        overlap_tile(model, picture.repeat(1, 2, 1, 1), 60)
    assert model.training


# ------------------------------------------------------------------------------------------------------- the cells


def test_a_picture_of_cells_is_a_pure_function_of_its_seed_and_index():
    torch.manual_seed(0)
    picture, labels = cells.draw(1, 7, 48)
    torch.manual_seed(1)
    np.random.seed(1)
    again, same = cells.draw(1, 7, 48)
    assert torch.equal(picture, again) and np.array_equal(labels, same)
    for other in ((1, 8), (2, 7)):
        assert not torch.equal(picture, cells.draw(*other, 48)[0])
    assert picture.shape == (1, 48, 48) and picture.abs().max() <= 1 and labels.dtype == np.int32


def test_cells_touch_and_are_numbered_without_a_gap():
    touching = []
    for index in range(6):
        _, labels = cells.draw(5, index, 100)
        assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
        assert 6 <= labels.max() <= 40 and 0.15 < (labels > 0).mean() < 0.6
        joined = components(labels > 0, 1).max()
        touching.append(joined / labels.max())
    assert np.mean(touching) < 0.5  # most cells hang together with another


# ------------------------------------------------------------------------------------------------- how it is judged


def squares(*gaps):
    """Three 6 x 6 cells in a row with so many pixels between them."""
    truth = np.zeros((10, 30), bool)
    left = 1
    for gap in (*gaps, 0):
        truth[2:8, left : left + 6] = True
        left += 6 + gap
    return truth


def test_what_is_right_has_no_error_and_a_leak_costs():
    truth = squares(2, 2)
    assert count_error(truth, truth) == pixel_error(truth, truth) == rand_error(truth, truth) == 0
    leak = truth.copy()
    leak[4, 7:9] = True  # two pixels of 300
    assert count_error(leak, truth) == 1 and pixel_error(leak, truth) == pytest.approx(2 / 300)
    n = 36  # of three cells two are one: sum n_ij^2 = 3 n^2, the truth's 3 n^2, the guess's (2 n)^2 + n^2
    assert rand_error(leak, truth) == pytest.approx(1 - 2 * 3 * n**2 / (3 * n**2 + 5 * n**2))
    # the joined piece covers both cells whole, and is as large as both and the leak
    assert overlap(truth, truth) == 1 and overlap(leak, truth) == pytest.approx((1 + 2 * n / (2 * n + 2)) / 3)
    half = truth & (np.arange(30) % 3 > 0)
    assert overlap(half, truth, smallest=1) == 0  # stripes: no piece covers more than half of a cell
    shrunk = ndimage.binary_erosion(truth)
    assert overlap(shrunk, truth) == 0  # 16 of 36 pixels are less than half
    assert count_error(shrunk, truth) == 0 and pixel_error(shrunk, truth) == pytest.approx(60 / 300)
    # of 36 pixels 16 are a piece, 20 are pieces of one each
    together = 3 * (16**2 + 20)
    assert rand_error(shrunk, truth) == pytest.approx(1 - 2 * together / (3 * n**2 + together))
    assert rand_error(~truth, truth) > 0.9


def test_the_rand_error_is_the_one_of_all_pairs():
    rng = np.random.default_rng(0)
    truth, guess = rng.random((2, 9, 9)) < 0.7
    t, g = components(truth, 1).ravel(), components(guess, 1).ravel().copy()
    inside = np.nonzero(t)[0]
    g[g == 0] = 1000 + np.arange((g == 0).sum())  # each a piece of its own
    same_t = t[inside][:, None] == t[inside]
    same_g = g[inside][:, None] == g[inside]
    both = (same_t & same_g).sum()
    precision, recall = both / same_g.sum(), both / same_t.sum()
    assert rand_error(guess, truth) == pytest.approx(1 - 2 * precision * recall / (precision + recall))


def test_dirt_is_no_cell():
    truth = squares(2, 2)
    dirty = truth.copy()
    dirty[9, 25:28] = True
    assert count_error(dirty, truth) == 0 and count_error(dirty, truth, smallest=1) == 1


def test_otsus_threshold_lies_between_two_hills():
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.normal(-0.5, 0.1, 3000), rng.normal(0.4, 0.1, 1000)])
    threshold = otsu(image)
    assert -0.25 < threshold < 0.2
    levels = np.linspace(-0.9, 0.9, 400)

    def within(level):
        parts = image[image <= level], image[image > level]
        return sum(len(part) * part.var() for part in parts if len(part))

    assert within(threshold) <= min(map(within, levels)) * 1.001  # the same as the least variance within


# ------------------------------------------------------------------------------------------------------- the recipe


def test_batches_are_pure_in_the_step_and_hold_what_comes_out():
    dish = recipe.Dish(1, 10.0, pictures=6)
    first = dish(3)
    dish(4)
    again = recipe.Dish(1, 10.0, pictures=6)(3)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first["x"].shape == (recipe.BATCH, 1, 100, 100) and first["target"].shape == (recipe.BATCH, 60, 60)
    assert (first["target"] == 1).any() and first["weights"][first["target"] == 0].max() > 5
    plain = recipe.Dish(1, None, pictures=6)(3)
    assert torch.equal(plain["x"], first["x"]) and (plain["weights"] == 1).all()
    low = recipe.Dish(1, 0.0, pictures=6)(3)["weights"]
    assert low.max() < 5


def test_the_target_lies_under_its_picture():
    """Turned and mirrored alike: the picture's middle and the target match the same drawing."""
    dish = recipe.Dish(2, None, pictures=1)
    picture, labels = cells.draw(2, 0, 100)
    truth = torch.from_numpy((separate(labels) > 0).astype(np.int64))
    views = [(lambda a, k=k, f=f: (a.rot90(k, (-2, -1)).flip(-1) if f else a.rot90(k, (-2, -1)))) for k in range(4)
             for f in (False, True)]  # fmt: skip
    for step in range(6):
        batch = dish(step)
        view = next(view for view in views if torch.equal(view(picture), batch["x"][0]))
        assert torch.equal(centre_crop(view(truth), 60, 60), batch["target"][0])


def test_a_short_run_learns_is_probed_and_shows_what_it_makes(tmp_path, monkeypatch):
    for name, value in (("BATCH", 2), ("PICTURES", 4), ("PROBED", 4)):
        monkeypatch.setattr(recipe, name, value)
    log = recipe.short_run(1, steps=12, folder=tmp_path / "run")
    assert len(log["step"]) == 6 and log["loss"][-1] < log["loss"][0]
    assert [s for s, held in zip(log["step"], log["held"], strict=True) if held == held] == [2, 4, 12]
    assert {"pairing", "lag", "way", "still"} <= set(log)
    *made, truth = log["samples"].items()
    assert [step for step, _ in made] == [2, 4, 12] and truth[0] == "truth"
    assert all(shown.shape == (4, 1, 60, 60) and shown.abs().max() <= 1 for _, shown in (*made, truth))
    assert set(truth[1].unique().tolist()) == {-1.0, 1.0}


def test_train_evaluate_and_load(tmp_path, monkeypatch):
    for name, value in (("BATCH", 2), ("PICTURES", 2), ("DENOISER_BATCH", 2), ("UNetConfig", Small)):
        monkeypatch.setattr(recipe, name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "TEST_SIDE", 60)
    monkeypatch.setattr(experiments, "TEST_TILE", 100)
    for module in (experiments, unet_isbi):
        monkeypatch.setattr(module, "UNetConfig", Small)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path / "nothing"))
    for name in ("unet", "unet_denoiser"):
        path = make(name, tmp_path)
        tensors, card = load_checkpoint(path)
        assert card["command"] == f"soralab train {name}" and card["steps"] == 2
        assert all(value.dtype == torch.float16 for value in tensors.values())
        model = load_unet(name)
        assert torch.equal(model.head.weight, tensors["head.weight"].float()) and not model.training
        text = experiments.evaluate(name)
        assert ("t=0.5" if "denoiser" in name else "count_error") in text
    metrics = load_checkpoint(tmp_path / "unet")[1]["metrics"]
    assert set(metrics["weight_map"]) == set(experiments.ARMS) and metrics["isbi"] is None
    assert set(metrics["test"]) == {"count_error", "overlap", "pixel_error", "rand_error"}


class Small(UNetConfig):
    """The recipe's configurations, narrow."""

    @classmethod
    def small(cls, **changes):
        return UNetConfig.small(**{"width": 4, **changes})

    @classmethod
    def denoiser(cls, **changes):
        return UNetConfig.denoiser(**{"width": 4, "time": 8, **changes})


def test_a_perfect_network_has_no_error(monkeypatch):
    pictures = [experiments.unseen_picture(index, 60) for index in range(3)]
    by_picture = {id(picture): truth for picture, truth in pictures}
    monkeypatch.setattr(experiments, "unseen_picture", lambda index: pictures[index])
    monkeypatch.setattr(experiments, "predict", lambda model, picture: by_picture[id(picture)])
    assert experiments.measure(None, 3) == {"count_error": 0, "overlap": 1, "pixel_error": 0, "rand_error": 0}
    monkeypatch.setattr(experiments, "predict", lambda model, picture: np.zeros((60, 60), bool))
    assert experiments.measure(None, 3)["count_error"] == pytest.approx(
        np.mean([components(truth).max() for _, truth in pictures]), abs=1e-4
    )


def test_a_denoiser_that_knows_the_frames_has_no_error_at_any_time():
    frames = world.clips(recipe.SEED, range(5), frames=1, level="simple", split="test")[0][:, 0]
    knows = experiments.denoiser_error(lambda x, t: (x - frames) / t[:, None, None, None], 5)
    assert knows == {f"t={t}": pytest.approx(0, abs=1e-4) for t in (0.1, 0.3, 0.5, 0.7, 0.9)}
    asked = []
    nothing = experiments.denoiser_error(lambda x, t: asked.append(t[0].item()) or 0 * x, 5)
    assert asked == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9]) and len(set(nothing.values())) == 1
    assert nothing["t=0.5"] == pytest.approx(1 + frames.square().mean().item(), rel=0.05)  # noise, and the frames


def test_what_is_tested_is_not_what_is_learnt(monkeypatch):
    """No picture of a test is one that the shipped network or an arm learns from: every picture that is drawn."""
    drawn, picture = set(), cells.draw(0, 0, recipe.TILE)
    monkeypatch.setattr(cells, "draw", lambda seed, index, side: drawn.add((seed, index)) or picture)
    for dish in ({}, *({"seed": seed} for seed in experiments.ARM_SEEDS)):
        recipe.Dish(**dish, w0=None)
    learnt = set(drawn)
    drawn.clear()
    for index in range(experiments.TEST_PICTURES):
        experiments.unseen_picture(index)
    assert len(learnt) == recipe.PICTURES * len({recipe.SEED, *experiments.ARM_SEEDS})
    assert len(drawn) == experiments.TEST_PICTURES and not drawn & learnt


def test_the_mean_of_scores():
    assert set(segmentation_scores.mean([{"a": 1.0}, {"a": 2.0}]).items()) == {("a", 1.5)}


# ------------------------------------------------------------------------------------------------------- exercises


def test_the_exercises_solutions_are_the_packages():
    crop, weigh = (
        next(t for t in exercises("unet") if t.name == f"unet.{n}") for n in ("crop_and_concat", "weight_map")
    )
    skip, x = numbers(1, 2, 14, 12), numbers(1, 1, 6, 4)
    assert torch.equal(crop.solution(skip, x), crop_and_concat(skip, x))
    labels = separate(cells.draw(0, 0, 40)[1])
    ours = weight_map(labels, class_weights=(1.0, 3.0)).numpy()
    np.testing.assert_allclose(weigh.solution(labels, np.where(labels > 0, 3.0, 1.0)), ours, rtol=1e-5)
    sizes = next(t for t in exercises("unet") if t.name == "unet.valid_sizes").solution(5, 600)
    assert sizes[0] == 188 and 572 in sizes and all(UNetConfig.paper().output_size(s) for s in sizes)
    tile = next(t for t in exercises("unet") if t.name == "unet.mirror_tile").solution
    picture = numbers(1, 20, 30)
    assert torch.equal(tile(picture, -5, -5, 40), mirror(picture, 5, 15, 5, 5))
