"""What chapter 16 measures of its whole model: `soralab evaluate sora_full`, and the card's metrics."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from soralab.experiments import sora_full_abilities as abilities
from soralab.experiments.sora_full_scores import ASKED, measure
from soralab.figures.curves import wilson
from soralab.files.atomic import kept
from soralab.recipes import RUNS, Trained
from soralab.sora_full import FullFilmmaker, load_autoencoder
from soralab.training.profiles import by_profile, device

STRENGTHS = (0.6, 0.7, 0.8)  # of edits


def metrics(name: str, trained: Trained, folder: Path | None = None) -> dict[str, dict]:
    """The card's: for each kind of prompt and each ability {what: [films right, films]}. What is measured is kept in
    runs/NAME/metrics, so that a measuring which is stopped goes on."""
    maker = FullFilmmaker(trained.model, load_autoencoder(trained.card["autoencoder"]).to(device()))
    folder, count = folder or RUNS / name / "metrics", by_profile(smoke=2, laptop=200, gpu=400)
    found = {}
    for title, work in work_on(maker, count).items():
        found[title] = kept(folder / f"{title.replace(' ', '_').replace(',', '')}.json", work)
    return found


def work_on(maker: FullFilmmaker, count: int) -> dict:
    """{what is measured: the function that measures it}."""
    some = max(2, count // 4)
    work = {kind: partial(measure, maker, kind, count if kind.startswith(("simple", "full")) else some)
            for kind in ASKED}  # fmt: skip
    work |= {
        "brought to life": partial(abilities.animated, maker, some),
        "extended": partial(abilities.extended, maker, some, False),
        "extended backwards": partial(abilities.extended, maker, some, True),
        "looped": partial(abilities.looped, maker, some),
    }
    for strength in STRENGTHS:
        work[f"edited by noise, {strength}"] = partial(abilities.edited, maker, some, strength)
        work[f"edited by inversion, {strength}"] = partial(abilities.edited, maker, some, strength, True)
    return work


def evaluate(name: str = "sora_full", checkpoint: str | None = None) -> str:
    """The table of `metrics` for a checkpoint, with 95 % Wilson intervals."""
    maker = FullFilmmaker.load(checkpoint or name, device())
    return table({title: work() for title, work in work_on(maker, by_profile(smoke=2, laptop=200, gpu=400)).items()})


def table(found: dict[str, dict]) -> str:
    """One line for each kind of prompt and each ability: what is right of how many, in percent."""
    lines = []
    for title, row in found.items():
        cells = []
        for what, (right, films) in row.items():
            low, high = wilson(right, films)
            cells.append(f"{what} {100 * right / films:.0f} ({100 * low:.0f}\u2013{100 * high:.0f})")
        lines.append(f"{title:30s} of {max(of for _, of in row.values())}: " + ", ".join(cells))
    return "\n".join(lines)
