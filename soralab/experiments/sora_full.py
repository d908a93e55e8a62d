"""What chapter 16 measures of its whole model: `soralab evaluate sora_full`, and the card's metrics.

As long as its training is not done, `python -m soralab.experiments.sora_full` measures what the repository holds of it,
and writes that on its card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from soralab.blocks.film_codec import decoded_by
from soralab.experiments import sora_full_abilities as abilities
from soralab.experiments.side_by_side import side_by_side
from soralab.experiments.sora_full_scores import ASKED, measure, percent, shares, true_films
from soralab.figures.curves import wilson
from soralab.files.atomic import kept
from soralab.files.checkpoints import BEGUN, load_checkpoint, read_card, save_checkpoint
from soralab.recipes import RUNS, Trained
from soralab.recipes.sora_full import AUTOENCODER, NAME, begun
from soralab.sora_full import DECODER, FullFilmmaker
from soralab.training.profiles import by_profile, device
from soralab.training.state import weights_hash
from soralab.walt import load_autoencoder

STRENGTHS, FEW = (0.6, 0.7, 0.8), (4, 8)  # of edits; steps of the sampler in the place of 20
PLAIN = "simple, without fresh noise"  # as DPM-Solver++ goes, in as many steps as the usual sampler
FIRST = "simple, by the first decoder"  # that of the autoencoder, which saw true films alone
TRUE = "true films, "  # before a kind of prompt: what the referee reads in the world's own films of it


def metrics(name: str, trained: Trained, folder: Path | None = None) -> dict[str, dict]:
    """The card's: for each kind of prompt and each ability {what: [films right, films]}. What is measured is kept in
    runs/NAME/metrics_STEPS_WEIGHTS_FILMS_DECODER, so that a measuring which is stopped goes on; WEIGHTS and DECODER are
    hashes: another training may end at the same step."""
    shows = decoded_by(DECODER, str(trained.card["autoencoder"]))
    maker = FullFilmmaker(trained.model, load_autoencoder(shows).to(device()))
    count = by_profile(smoke=2, laptop=200, gpu=400)
    of, by = weights_hash(trained.model)[:8], read_card(shows)["sha256"][:8]
    folder = folder or RUNS / name / f"metrics_{trained.card['steps']}_{of}_{count}_{by}"
    return side_by_side(partial(keeping, folder, maker, count), work_on(maker, count))


def keeping(folder: Path, maker: FullFilmmaker, count: int) -> dict[str, Callable[[], dict]]:
    """`work_on`, whose results are kept in `folder` and taken from there."""
    return {title: partial(kept, folder / f"{title.replace(' ', '_').replace(',', '')}.json", work)
            for title, work in work_on(maker, count).items()}  # fmt: skip


def work_on(maker: FullFilmmaker, count: int) -> dict:
    """{what is measured: the function that measures it}."""
    some = max(2, count // 4)
    many = {kind: count if kind.startswith(("simple", "full")) else some for kind in ASKED}
    work = {}
    for kind, number in many.items():
        work |= {kind: partial(measure, maker, kind, number), f"{TRUE}{kind}": partial(_true, kind, number)}
    work |= {f"simple, in {steps} steps": partial(measure, maker, "simple", count, steps=steps) for steps in FEW}
    work |= {
        PLAIN: partial(measure, maker, "simple", count, sampler="dpm_solver_pp"),
        FIRST: lambda: measure(replace(maker, autoencoder=load_autoencoder(AUTOENCODER).to(device())), "simple", count),
        "brought to life": partial(abilities.animated, maker, some),
        "extended": partial(abilities.extended, maker, some, False),
        "extended backwards": partial(abilities.extended, maker, some, True),
        "joined": partial(abilities.joined, maker, some),
        "looped": partial(abilities.looped, maker, some),
    }
    for strength in STRENGTHS:
        work[f"edited by noise, {strength}"] = partial(abilities.edited, maker, some, strength)
        work[f"edited by inversion, {strength}"] = partial(abilities.edited, maker, some, strength, True)
    return work


def _true(kind: str, number: int) -> dict[str, list[int]]:
    return shares(*true_films(kind, number))


def evaluate(name: str = "sora_full", checkpoint: str | None = None) -> str:
    """The table of `metrics` for a checkpoint, with 95 % Wilson intervals."""
    maker, count = FullFilmmaker.load(checkpoint or name, device()), by_profile(smoke=2, laptop=200, gpu=400)
    return table(side_by_side(partial(work_on, maker, count), work_on(maker, count)))


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


def compact(found: Mapping[str, Mapping], titles: Iterable[str], columns: Sequence[str]) -> str:
    """A line for each of `titles`: in percent what is right in these columns; the last one with its 95 % interval, and
    beside it what the referee reads in true films."""
    titles = list(titles)
    wide, true = max(map(len, titles)) + 1, any(f"{TRUE}{title}" in found for title in titles)
    lines = [" " * wide + "".join(f"  {column}" for column in columns) + (" " * 8 + "true" if true else "")]
    for title in titles:
        shares = [f"{percent(found[title].get(column)):>{len(column) + 2}s}" for column in columns]
        low, high = wilson(*found[title][columns[-1]])
        beside = percent(found[f"{TRUE}{title}"][columns[-1]]) if true else ""
        interval = f" ({100 * low:.0f}\u2013{100 * high:.0f})"
        lines.append(f"{title:{wide}s}" + "".join(shares) + f"{interval:9s}{beside:>3s}")
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Measure what the repository holds of the training, and write it on its card."""
    tensors, card = load_checkpoint(BEGUN / NAME)
    trained = Trained(begun()[0].eval().to(device()), card, RUNS / NAME / "log.jsonl")
    found = metrics(NAME, trained)
    save_checkpoint(BEGUN / NAME, tensors, {**card, "metrics": found}, eight_bits=True)
    print(table(found))


if __name__ == "__main__":
    main()
