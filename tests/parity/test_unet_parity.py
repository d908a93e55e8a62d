"""Chapter 01's network against a second one, written in another way: functions on a table of weights, whose keys are
those of the widely used pytorch-unet (no package of the paper's net exists); against torchvision's cropping, numpy's
mirror and torch's grid_sample. The same weights, the same answer to 1e-5."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from soralab.unet import UNet, UNetConfig, centre_crop, elastic_deformation, mirror


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(model):
    """Also the biases, which start at zero and would hide where they are added."""
    for seed, parameter in enumerate(model.parameters()):
        scale = 0.2 if parameter.ndim < 2 else (2 / parameter[0].numel()) ** 0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.eval()


def table(model):
    """Our weights under the other's names: down_path.N.block.{0,2}, up_path.N.up, up_path.N.conv_block.block, last."""
    names = {}
    for ours, theirs, blocks in (("down", "down_path", model.down), ("merge", "up_path", model.merge)):
        for number, block in enumerate(blocks):
            inner = "block" if ours == "down" else "conv_block.block"
            for place, layer in ((0, block.first), (2, block.second)):
                names[f"{theirs}.{number}.{inner}.{place}"] = layer
    names |= {f"up_path.{number}.up": layer for number, layer in enumerate(model.up)}
    names["last"] = model.head
    weights = {f"{name}.weight": layer.weight for name, layer in names.items()}
    return weights | {f"{name}.bias": layer.bias for name, layer in names.items()}


def convolve(x, weights, name):
    """A valid 3x3 convolution as a matrix product of all 3x3 windows: nothing of conv2d."""
    w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
    windows = x.unfold(2, 3, 1).unfold(3, 3, 1)  # [b, c, h, w, 3, 3]
    return torch.einsum("bchwij,ocij->bohw", windows, w) + b[:, None, None]


def up_convolve(x, weights, name):
    """Each pixel becomes a 2x2 block, by one product and a reshaping: nothing of conv_transpose2d."""
    w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
    blocks = torch.einsum("bchw,coij->bohiwj", x, w)
    return blocks.reshape(x.shape[0], w.shape[1], 2 * x.shape[2], 2 * x.shape[3]) + b[:, None, None]


def pool(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).amax((3, 5))


def forward(x, weights, levels, skips=True):
    """The paper's network on a table of weights, the deepest level first called for by itself."""

    def block(x, name):
        return convolve(convolve(x, weights, f"{name}.0").clamp(min=0), weights, f"{name}.2").clamp(min=0)

    def level(x, number):
        x = block(x, f"down_path.{number}.block")
        if number == levels - 1:
            return x
        below = level(pool(x), number + 1)
        rung = levels - 2 - number
        up = up_convolve(below, weights, f"up_path.{rung}.up")
        rows, columns = (x.shape[k] - up.shape[k] for k in (2, 3))
        copy = x[:, :, rows // 2 : x.shape[2] - rows // 2, columns // 2 : x.shape[3] - columns // 2]
        return block(torch.cat((copy, up), 1) if skips else up, f"up_path.{rung}.conv_block.block")

    x = level(x, 0)
    w, b = weights["last.weight"][:, :, 0, 0], weights["last.bias"]
    return torch.einsum("bchw,oc->bohw", x, w) + b[:, None, None]


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("levels, side", [(1, (9, 12)), (3, (52, 44)), (5, (188, 204))])
@torch.no_grad()
def test_the_network_is_the_papers(levels, side, skips):
    model = randomise(UNet(UNetConfig(channels=2, classes=3, width=4, levels=levels, skips=skips)))
    x = numbers(2, 2, *side, seed=99)
    theirs = forward(x, table(model), levels, skips)
    ours = model(x)
    assert ours.abs().max() > 0.1 and ours.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * max(1.0, theirs.abs().max().item()))


def test_the_gradients_are_too():
    model = randomise(UNet(UNetConfig(width=3, levels=3)))
    x, pull = numbers(1, 1, 48, 44, seed=5), numbers(1, 2, 8, 4, seed=6)
    (model(x) * pull).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (forward(x, table(model), 3) * pull).sum().backward()
    for name, p in model.named_parameters():
        scale = max(1.0, p.grad.abs().max().item())
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-5, atol=1e-5 * scale)


def test_the_crop_is_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms.functional")
    x = numbers(2, 3, 64, 48)
    assert torch.equal(centre_crop(x, 56, 40), transforms.center_crop(x, [56, 40]))


def test_the_mirror_is_numpys_also_over_several_reflections():
    picture = numbers(2, 7, 5).numpy()
    folded = picture[:, fold(np.arange(-20, 7 + 9), 7)][:, :, fold(np.arange(-3, 5 + 17), 5)]
    assert np.array_equal(mirror(torch.from_numpy(picture), 20, 9, 3, 17).numpy(), folded)
    if int(np.__version__.split(".")[0]) >= 2:  # before, it lost its way at the second reflection
        assert np.array_equal(np.pad(picture, ((0, 0), (20, 9), (3, 17)), mode="reflect"), folded)


def fold(places, size):
    """Where places beyond an edge lie once they are reflected at both edges, which are not doubled."""
    return (size - 1) - np.abs(places % (2 * (size - 1)) - (size - 1))


@torch.no_grad()
def test_a_bent_picture_is_torchs_grid_sample_of_the_same_places():
    """The places are read off a picture of coordinates; then torch reads another picture there."""
    h, w = 40, 56
    y, x = np.mgrid[:h, :w].astype(np.float32)
    picture = numbers(1, h, w)
    stack = torch.cat([picture, torch.from_numpy(np.stack([y, x]))])
    bent, _ = elastic_deformation(stack, np.zeros((h, w), np.int32), np.random.default_rng(2), std=3.0)
    places = torch.stack([bent[2] / (w - 1), bent[1] / (h - 1)], -1)[None] * 2 - 1
    theirs = F.grid_sample(picture[None], places, mode="bilinear", padding_mode="reflection", align_corners=True)[0]
    inside = (bent[1] > 0.5) & (bent[1] < h - 1.5) & (bent[2] > 0.5) & (bent[2] < w - 1.5)
    # where the deformation leaves the picture, the coordinates were mirrored, and so is the reading of them
    torch.testing.assert_close(bent[0][inside], theirs[0][inside], rtol=0, atol=1e-4)
    assert (bent[0] - picture[0]).abs().mean() > 0.3
