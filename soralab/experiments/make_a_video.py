"""What chapter 14 measures: `soralab evaluate make_a_video` and its like, and the cards' metrics."""

from __future__ import annotations

from functools import partial

from soralab.experiments.align_your_latents import interval
from soralab.experiments.make_a_video_scores import (
    Studio,
    between,
    chance,
    cosines,
    enlarged,
    from_words,
    goes_on,
    longer,
    rates,
    single_frames,
)
from soralab.experiments.sora_scores import COLUMNS
from soralab.files.atomic import kept
from soralab.files.checkpoints import read_card
from soralab.latent_diffusion import Painter, UNet, load_autoencoder
from soralab.make_a_video import Filmmaker
from soralab.recipes import RUNS, Trained
from soralab.recipes import clip as chapter_04
from soralab.recipes.align_your_latents import picture_decoder
from soralab.recipes.film_painter import SECOND as PAINTER
from soralab.recipes.make_a_video import FILM, PRIOR, load, load_enlarger, load_prior
from soralab.training.profiles import by_profile, device

STEPS = 25  # of DDIM


def sizes() -> dict[str, int]:
    """How many are judged, by the profile: films with three frames given, films of each other table, pairs."""
    names = ("many", "pictures", "few", "pairs")
    counts = by_profile(smoke=(2, 2, 2, 8), laptop=(120, 100, 30, 1000), gpu=(400, 400, 200, 4000))
    return dict(zip(names, counts, strict=True))


def steps() -> int:
    """Of DDIM, by the profile."""
    return by_profile(smoke=2, laptop=STEPS, gpu=STEPS)


def studio(maker: Filmmaker, first: str) -> Studio:
    """A film decoder beside all that it is used with, on the device."""
    parts = (load_prior(), chapter_04.load()[0], load_autoencoder(first))
    return Studio(maker, *(part.to(device()) for part in parts), Painter.load(PAINTER, device()))


def enlargements(network: UNet) -> dict[str, dict]:
    """True films made larger, as many and in as many steps as the profile says."""
    return enlarged(network, max(2, sizes()["few"] // 2), steps=by_profile(smoke=2, laptop=20, gpu=20))


def metrics(name: str, trained: Trained) -> dict:
    """The card's: of the prior, of the enlarger, or of the decoder of films, which needs the prior's checkpoint.

    What was measured already lies in runs/NAME_experiments, and is not measured again.
    """
    count, told = sizes(), {"steps": steps()}
    if name == PRIOR:
        return cosines(trained.model, chapter_04.load()[0].to(device()), count["pairs"])
    if name != FILM:
        return enlargements(trained.model)
    first = trained.card["autoencoder"]
    decode = picture_decoder(load_autoencoder(first).to(device()))
    all_of_it = studio(Filmmaker(trained.model, decode), first)
    folder = RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    measures = {
        "frames": partial(single_frames, all_of_it, count["pictures"], **told),
        "words": partial(from_words, all_of_it, count["few"], **told),
        **{f"given {n}": partial(goes_on, all_of_it, n, count["many" if n == 3 else "few"], **told) for n in (1, 2, 3)},
        "chance": partial(chance, all_of_it, count["many"]),
        "rate": partial(rates, all_of_it, count["few"], **told),
        "between": partial(between, all_of_it, count["few"], **told),
        "longer": partial(longer, all_of_it, count["few"], **told),
    }
    found = {of: kept(folder / f"{of.replace(' ', '_')}.json", measure) for of, measure in measures.items()}
    given = {str(n): found.pop(f"given {n}") for n in (1, 2, 3)} | found.pop("chance")
    return {**found, "goes on": given}


def evaluate(name: str = FILM, checkpoint: str | None = None) -> str:
    """The shipped network's scores, measured now; of the decoder of films: what goes on from three frames, beside
    chance, with 95 % intervals."""
    count = sizes()
    if name == PRIOR:
        found = cosines(load_prior(checkpoint or name).to(device()), chapter_04.load()[0].to(device()), count["pairs"])
        return "\n".join(f"{key:8s}{value:g}" for key, value in found.items())
    if name != FILM:
        table = enlargements(load_enlarger(checkpoint or name).to(device()))
        rows = {key: row for key, row in table.items() if key != "films"}
        return "\n".join(f"{key:14s}{row['psnr']:8.2f} dB   flicker {row['flicker']:.2f}" for key, row in rows.items())
    all_of_it = studio(load(checkpoint or name, device()), read_card(checkpoint or name)["autoencoder"])
    rows = {"three given": goes_on(all_of_it, 3, count["many"], steps=steps()), **chance(all_of_it, count["many"])}
    lines = [" " * 14 + "".join(f"{column:>18s}" for column in COLUMNS) + f"{'dB':>10s}"]
    for title, row in rows.items():
        if title != "films":
            cells = "".join(f"{interval(row[column], count['many']):>18s}" for column in COLUMNS)
            lines.append(f"{title:14s}{cells}{row['psnr']:10.2f}")
    return "\n".join(lines)
