"""What chapter 10 measures: `soralab evaluate align_your_latents` and `temporal_decoder`, and the cards' metrics."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from soralab.align_your_latents import Animator, TemporalDecoder, VideoLDM
from soralab.datasets import mnist
from soralab.experiments.align_your_latents_joined import colours, digits
from soralab.experiments.align_your_latents_scores import (
    between,
    decoded,
    from_words,
    own_flicker,
    painter_alone,
    prediction,
)
from soralab.experiments.sora_scores import COLUMNS
from soralab.figures.curves import read_log, wilson
from soralab.files.atomic import kept
from soralab.latent_diffusion import Painter, load_autoencoder
from soralab.recipes import RUNS, Trained
from soralab.recipes.align_your_latents import DECODER, JITTER, PHI, animator, load, load_decoder, picture_decoder
from soralab.training.profiles import by_profile, device

STEPS = 25  # of DDIM


def sizes() -> dict[str, int]:
    """How many films are judged, by the profile: from words, of which some are held out, by the painter alone, and of
    all else."""
    names = ("words", "alone", "held_out", "few")
    counts = by_profile(smoke=(2, 2, 2, 2), laptop=(150, 60, 90, 30), gpu=(400, 400, 400, 400))
    return dict(zip(names, counts, strict=True))


def alphas(log: Path, rows: int = 24) -> dict[str, list[float]]:
    """alpha of each layer over training, at so many steps of its log: {"step": [...], layer: [...]}."""
    columns = read_log(log)
    every = max(1, len(columns["step"]) // rows)
    found = {"step": [int(step) for step in columns["step"][::every]]}
    return found | {name.removeprefix("alpha "): [round(float(a), 4) for a in column[::every]]
                    for name, column in columns.items() if name.startswith("alpha ")}  # fmt: skip


def metrics(name: str, trained: Trained) -> dict:
    """The card's: of the decoder, or of the layers over time; these need the decoder's checkpoint.

    What was measured already lies in runs/NAME_experiments, and is not measured again.
    """
    first = load_autoencoder(trained.card["autoencoder"]).to(device())
    count, steps = sizes(), by_profile(smoke=2, laptop=STEPS, gpu=STEPS)
    if name == DECODER:
        decoder = TemporalDecoder(first)
        decoder.beside = trained.model
        decoders = {"pictures": picture_decoder(first), "in time": decoder.eval()}
        return {"films": count["words"], "jitter": JITTER, **decoded(decoders, first, count["words"], JITTER)}
    painter = Painter.load(trained.card["painter"]).model.to(device())
    in_time = load_decoder(DECODER).to(device())
    maker, few = animator(VideoLDM(painter, trained.model), in_time), count["few"]
    decoders = {"pictures": picture_decoder(first), "in time": in_time}
    folder = RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    measures = {
        "test": partial(from_words, maker, "test", count["words"], steps=steps),
        "painter alone": partial(from_words, painter_alone(maker), "test", count["alone"], steps=steps),
        "prediction": partial(prediction, maker, first, few, steps=steps),
        "between": partial(between, maker, first, few, steps=steps),
        "flicker": partial(own_flicker, maker, decoders, few, steps=steps),
        "held_out": partial(from_words, maker, "held_out", count["held_out"], steps=steps),
        "colours": partial(colours, folder, maker, first, few, steps=steps),
    }
    if mnist.available():
        measures["mnist"] = partial(digits, folder, maker, first, steps=steps)
    found = {of: kept(folder / f"{of.replace(' ', '_')}.json", measure) for of, measure in measures.items()}
    return {"mnist": None, **found, "alpha": alphas(trained.log)}


def evaluate(name: str = PHI, checkpoint: str | None = None) -> str:
    """The shipped model's scores on prompts that training never saw, measured now, with 95 % intervals."""
    count = sizes()
    if name == DECODER:
        decoder = load_decoder(checkpoint or name).to(device())
        first = decoder.autoencoder
        table = decoded({"pictures": picture_decoder(first), "in time": decoder}, first, count["words"], JITTER)
        return "\n".join(f"{of:10s}" + "   ".join(f"{key} {value:.4g}" for key, value in row.items())
                         for of, row in table.items())  # fmt: skip
    maker: Animator = load(checkpoint or name, device())
    steps = by_profile(smoke=2, laptop=STEPS, gpu=STEPS)
    lines = [" " * 16 + "".join(f"{column:>18s}" for column in COLUMNS) + f"{'frames':>8s}"]
    for title, model, split, films in (("painter alone", painter_alone(maker), "test", count["alone"]),
                                       ("test", maker, "test", count["words"]),
                                       ("held_out", maker, "held_out", count["held_out"])):  # fmt: skip
        row = from_words(model, split, films, steps=steps)
        cells = [f"{interval(row[column], films):>18s}" for column in COLUMNS]
        lines.append(f"{title:16s}" + "".join(cells) + f"{100 * row['frames']:8.1f}")
    return "\n".join(lines)


def interval(share: float, count: int) -> str:
    """A share of so many in per cent with its 95 % interval, 17 letters, so that shares stand below each other:
    " 99.8 (99.3–99.9)", "100.0 (99.6–100) ", "  0.0 (0.0–6.0)  "."""
    ends = "–".join(f"{100 * end:.1f}".replace("100.0", "100") for end in wilson(round(share * count), count))
    return f"{100 * share:5.1f} {f'({ends})':11s}"
