"""Chapter 03's sentences with numbers are held to the card of its checkpoint, and to the published sizes."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from soralab.datasets.what_and_where import label, sample
from soralab.experiments import vit as chapter_03
from soralab.experiments import vit_crossing, vit_look_up
from soralab.files.checkpoints import read_card
from soralab.recipes import vit as recipe
from soralab.vit import ViTConfig, cost, position_similarity

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
    assert round(cost(ViTConfig.b16())[0] / 1e6) == 87 and "In the table B/16 rounds to 87" in prose()
    found = []
    for config in (ViTConfig.b16(), ViTConfig.l32(), ViTConfig.h14()):
        last = (config.dim + 1) * config.classes
        found.append(round((cost(replace(config, hidden=config.dim))[0] - last) / 1e6))
    assert found == [86, 307, 632]


def look_up(rate: str, arm: str, size: int) -> float:
    """The mean share of test boards read right, in per cent."""
    return 100 * mean(METRICS["look up"]["crossing"]["test"][rate][arm][str(size)])


def test_what_is_said_of_looking_up():
    said, tables = prose(), METRICS["look up"]
    leads = {size: look_up("0.002", "ViT", size) - look_up("0.003", "ResNet", size) for size in vit_look_up.SIZES}
    assert [size for size in leads if leads[size] > 0] == [4000, 16_000, 64_000]  # "between 2,000 and 4,000 boards"
    gains = [f"{look_up('0.006', 'ResNet', size) - look_up('0.003', 'ResNet', size):.0f}" for size in
             (2000, 4000, 64_000)]
    assert "at 0.006 it gains {} points at 2,000 boards, {} at 4,000 and {} at 64,000".format(*gains) in said
    assert all(35 < look_up("0.006", "ViT", size) < 45 for size in vit_look_up.SIZES)  # "stuck near 40 %"
    best = vit_look_up.at_best_rate(tables["crossing"])[1]
    ahead = {size: 100 * (mean(best["ViT"][size]) - mean(best["ResNet"][size])) for size in best["ViT"]}
    assert max(abs(ahead["16000"]), abs(ahead["64000"])) < 1 and f"ahead by {ahead['4000']:.0f} points" in said
    assert min(best["ViT"]["4000"]) > max(best["ResNet"]["4000"])  # "all three of its runs above all three"
    runs = [round(100 * right) for right in sorted(tables["again"]["ViT"]["4000"])]
    assert f"one of the six ends at {runs[0]} %, another at {runs[-1]}." in said and len(runs) == 6
    assert all(mean(tables["again"]["ResNet"][size]) > mean(tables["again"]["ViT"][size]) for size in ("4000", "64000"))
    assert f"the same {vit_look_up.STEPS} steps of {vit_look_up.BATCH} boards" in said
    assert vit_look_up.REACH == (2, 2) and vit_look_up.RATES == (0.002, 0.003, 0.006)


def test_what_is_said_of_the_trainings_is_what_they_do():
    said = prose()
    card, short = read_card("vit"), inspect.signature(recipe.short_run).parameters["steps"].default
    assert f"took {card['steps'] // short} times the steps" in said
    first, *_, last = vit_crossing.WORLD_STEPS.items()
    assert f"from {first[1]:,} at {first[0]} frames to {last[1]:,} at {last[0]:,}" in said
    assert f"Both have the same learning rate here, {vit_crossing.ARM_TRAINING.lr:g}" in said
    averages = (chapter_03.TUNING.ema, recipe.TRAINING.ema, vit_crossing.ARM_TRAINING.ema)
    assert f"by {min(averages)} to {max(averages)} a step" in said
    assert f"up to {max(vit_look_up.SIZES):,} pictures" in said and max(vit_look_up.SIZES) > card["frames"]
    large = replace(recipe.CONFIG, image=chapter_03.LARGER)
    assert f"from {recipe.CONFIG.tokens} words to {large.tokens} for {large.image} × {large.image} pixels" in said
    assert f"{chapter_03.TUNING.steps} steps on {chapter_03.TUNING_FRAMES:,} frames" in said
    guide = (ROOT / "notebooks" / "sessions" / "03_vit.md").read_text(encoding="utf-8")
    assert "about a hundred passes over few frames, the right end six over many" in guide
    assert [round(recipe.BATCH * steps / size) for size, steps in (first, last)] == [107, 6]


def test_the_loss_first_falls_to_the_entropy_of_the_classes():
    classes = torch.tensor([label(sample(recipe.SEED, index)) for index in range(1500)])
    share = torch.bincount(classes).double() / len(classes)
    entropy = -(share * share.clamp(min=1e-12).log()).sum().item()
    assert abs(entropy - 3.8) < 0.05 and "falls to 3.8 and stays near it for a while. 3.8 is the entropy" in prose()
    runs = json.loads((ROOT / "tests" / "band_runs" / "vit.json").read_text(encoding="utf-8"))
    logs = [run["log"] for run in runs if run["kind"] == "good"]
    early = [loss for log in logs for step, loss in zip(log["step"], log["loss"], strict=True)
             if loss and 60 <= step <= 180]
    assert len(early) > 10 and abs(mean(early) - 3.8) < 0.03


def test_what_is_said_of_the_maps_of_positions():
    """Neighbours alike, far places not, rows and columns faintly: of the shipped weights."""
    alike = position_similarity(recipe.load().positions, (8, 8)).reshape(64, 64)
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8)).double()
    apart, in_line = torch.cdist(places, places), (places[:, None] == places).any(-1)
    near, far, line = (alike[where].mean() for where in (apart == 1, apart >= 4, in_line & (apart > 3)))
    assert near > 0.4 and abs(far) < 0.1 and far + 0.1 < line < near / 2
