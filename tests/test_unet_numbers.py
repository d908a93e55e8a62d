"""Chapter 01's sentences with numbers are held to what they speak of; its painted cells can be told apart."""

import json
import re
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from scipy import ndimage

from soralab.datasets import cells
from soralab.experiments.unet import ARM_SEEDS, ARM_STEPS
from soralab.experiments.unet_isbi import ISBI_NET
from soralab.figures.labels import paint_labels
from soralab.files.checkpoints import read_card
from soralab.recipes.unet import BATCH, CONFIG, SEED, TILE
from soralab.unet import UNet, UNetConfig, separate, weight_map

ROOT = Path(__file__).resolve().parents[1]


def page() -> list[dict]:
    return json.loads((ROOT / "notebooks" / "01_unet.ipynb").read_text(encoding="utf-8"))["cells"]


def prose() -> str:
    return "\n".join("".join(cell["source"]) for cell in page() if cell["cell_type"] == "markdown")


def test_the_gaps_are_as_many_pixels_as_is_said():
    _, labels = cells.draw(seed=0, index=3, side=100)
    gap = (separate(labels) == 0) & (labels > 0)
    assert f"All such lines are {gap.sum()} of the ten thousand pixels above." in prose()


def test_what_is_said_of_the_three_arms():
    metrics = read_card("unet")["metrics"]
    counts = {arm: mean(row["count_error"] for row in rows) for arm, rows in metrics["weight_map"].items()}
    assert counts["Eq. (2)"] < counts["no map"] < counts["w_c alone"]          # "worse than no map at all"
    assert all(len(rows) == len(ARM_SEEDS) == 3 for rows in metrics["weight_map"].values())
    assert f"for {ARM_STEPS} steps and counted on 40 pictures" in prose()
    background = [np.mean(separate(cells.draw(7, index, 100)[1]) == 0) > 0.5 for index in range(40)]
    assert np.mean(background) > 0.75                                          # "on most pictures"


def test_what_is_said_of_the_edge_is_what_the_page_prints():
    """nbval holds the printed numbers, this the words after them."""
    printed, = ("".join(out["text"]) for cell in page() for out in cell.get("outputs", ()) if "text" in out
                and "at the edge" in "".join(out["text"]))
    seen, mirrored, zeros = ([float(x) for x in re.findall(r"\d\.\d+", line)] for line in printed.splitlines())
    assert seen[0] < seen[1] and "The edge itself is no harder than the middle" in prose()
    assert (round(mirrored[0] / seen[0]), round(zeros[0] / seen[0])) == (2, 3)
    assert "A mirror image doubles the errors there, and zeros triple them" in prose()
    assert seen[1] == mirrored[1] == zeros[1]  # "further in, all three are alike"


def test_what_is_said_of_the_losses_of_our_runs_is_their_bands():
    weight = np.mean([weight_map(separate(cells.draw(SEED, index, TILE)[1])).mean() for index in range(16)])
    logs = json.loads((ROOT / "data" / "bands" / "unet.json").read_text(encoding="utf-8"))["mean"]
    assert 1.9 < weight < 2 and f"To know nothing costs {np.log(2) * weight:.1f}:" in prose()
    assert np.log(2) * weight < np.exp(logs[0]) < 1.6      # "a little above on average"
    assert f"at the end the loss should be about {np.exp(logs[-1]):.1f}" in prose()


def test_how_many_tiles_the_momentum_averages():
    tiles = round(BATCH / (1 - CONFIG.betas[0]))
    assert tiles == 40 and f"AdamW's {CONFIG.betas[0]} over batches of four, about forty" in prose()


def test_the_levels_are_those_of_the_networks():
    assert (UNetConfig.small().levels, ISBI_NET.levels, UNetConfig.paper().levels) == (3, 4, 5)
    assert "ours for the slices has four levels, one more than for the cells; the paper's has five" in prose()


def test_cells_side_by_side_are_painted_in_different_colours():
    pairs = 0
    for index in range(12):
        labels = separate(cells.draw(5, index, 100)[1])
        painted = paint_labels(labels)
        assert (painted[:, labels == 0] == -1).all()
        colour = {k: tuple(painted[:, labels == k][:, 0].tolist()) for k in np.unique(labels[labels > 0])}
        for k in colour:
            assert (painted[:, labels == k].T == painted[:, labels == k][:, 0]).all()
            beside = np.unique(labels[ndimage.binary_dilation(labels == k, iterations=3)])
            for other in beside[beside > k]:
                pairs += 1
                assert colour[k] != colour[other]
    assert pairs > 100


def test_what_is_said_of_573_and_574():
    """A network that does not refuse them: 573 gives exactly 572's answer, 574 another of the same size."""
    torch.manual_seed(0)
    model = UNet(UNetConfig(width=1)).double().eval()
    model.check = lambda x, t: None
    x = torch.randn(1, 1, 574, 574, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        answers = {side: model(x[..., :side, :side]) for side in (572, 573, 574)}
    assert all(answer.shape == (1, 2, 388, 388) for answer in answers.values())
    assert torch.equal(answers[573], answers[572])
    assert (answers[574] - answers[572]).abs().max() > 0.1
