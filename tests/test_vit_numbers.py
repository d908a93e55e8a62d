"""Chapter 03's sentences with numbers are held to the card of its checkpoint, and to the published sizes."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

from soralab.files.checkpoints import read_card
from soralab.vit import ViTConfig, cost

ROOT = Path(__file__).resolve().parents[1]
METRICS = read_card("vit")["metrics"]


def prose() -> str:
    cells = json.loads((ROOT / "notebooks" / "03_vit.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def of(table: str, arm: str, size: int) -> float:
    return mean(METRICS[table][arm][str(size)])


def surviving(table: str, size: int) -> str:
    """The share of the ResNet's lead over the ViT that is left when the patches are shuffled, in per cent."""
    vit, resnet, mixed = (of(table, arm, size) for arm in ("ViT", "ResNet", "ResNet, patches shuffled"))
    return f"{(mixed - vit) / (resnet - vit):.0%}".replace("%", " %")


def test_what_is_said_of_the_shuffled_frames():
    said = prose()
    few, more, many, most = (surviving("crossing", size) for size in (1000, 3000, 10_000, 30_000))
    assert f"{few} and {more} survive" in said and f"{many} and {most}" in said
    assert of("crossing", "ResNet, patches shuffled", 300) > of("crossing", "ResNet", 300)     # "with 300 all of it"
    on_digits = [surviving("mnist", size) for size in (300, 3000, 60_000)]
    assert f"{on_digits[-1].split()[0]} to {on_digits[0]} survives" in said
    assert on_digits == sorted(on_digits, reverse=True)


def test_the_answer_on_bias_or_data_is_the_tables():
    """More pictures at 300, convolutions at 1,000 and 3,000: as the card has it, not as one would expect."""
    said = prose().split("**Bias or data**")[1].split("</details>")[0]
    offers = {size: (of("crossing", "ViT", 10 * size), of("crossing", "ResNet", size)) for size in (300, 1000, 3000)}
    assert offers[300][0] > offers[300][1]
    assert all(offers[size][0] < offers[size][1] for size in (1000, 3000))
    for pictures, convolutions in offers.values():
        assert f"{100 * pictures:.1f}" in said and f"{100 * convolutions:.1f}" in said
    lead = of("crossing", "ResNet", 30_000) - of("crossing", "ViT", 30_000)
    assert f"{100 * lead:.1f} points" in said


def test_table_1_counts_the_tanh_layer_and_not_the_last_one():
    """One convention gives all three numbers of Table 1: 86, 307 (of L/32) and 632 million."""
    found = []
    for config in (ViTConfig.b16(), ViTConfig.l32(), ViTConfig.h14()):
        last = (config.dim + 1) * config.classes
        found.append(round((cost(replace(config, hidden=config.dim))[0] - last) / 1e6))
    assert found == [86, 307, 632]
