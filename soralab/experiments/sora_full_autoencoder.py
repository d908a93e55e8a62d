"""What chapter 16 measures of the whole model's first stage: `soralab evaluate sora_full_autoencoder`."""

from __future__ import annotations

from soralab import world
from soralab.blocks.film_codec import FilmCodec
from soralab.experiments import walt_autoencoder
from soralab.experiments.sora_autoencoder import reconstruct
from soralab.experiments.walt_autoencoder import measure
from soralab.recipes import Trained
from soralab.recipes.sora_full_autoencoder import BEGINS_WITH, hard
from soralab.training.profiles import by_profile, device
from soralab.walt import load_autoencoder
from soralab.world import referee

SEED, CROWDED = 5000, 400


def metrics(name: str, trained: Trained) -> dict:
    """The card's: chapter 11's table, of as many films, and `by_kind` of this autoencoder and the one it began as."""
    count = by_profile(smoke=4, laptop=walt_autoencoder.FILMS, gpu=walt_autoencoder.FILMS)
    before = load_autoencoder(BEGINS_WITH).to(device())
    kinds = {of: by_kind(model) for of, model in ((BEGINS_WITH, before), (name, trained.model))}
    return {"films": count, name: measure(trained.model, count), "kinds": kinds}


def by_kind(model: FilmCodec) -> dict[str, list[int]]:
    """{kind of crowded film: [copies that are read wrong, films]}."""
    films, scenes = world.clips(SEED, range(by_profile(smoke=4, laptop=CROWDED, gpu=CROWDED)), 9, split="test")
    found = {kind: [0, 0] for kind in ("in front of", "small crosses that spin or grow", "others")}
    for report, scene in zip(referee.read_all(reconstruct(model, films).cpu()), scenes, strict=True):
        before = scene.relation is not None and scene.relation.kind == "in front of"
        kind = "in front of" if before else "small crosses that spin or grow" if hard(scene) else "others"
        found[kind][0] += not referee.score(report, scene)["all"]
        found[kind][1] += 1
    return found


def evaluate(name: str = "sora_full_autoencoder", checkpoint: str | None = None) -> str:
    """The table of chapter 11, with this autoencoder in the place of that chapter's."""
    return walt_autoencoder.evaluate(name, checkpoint)
