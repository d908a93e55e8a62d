"""Chapter 16's batches from film shards in place of the world: `soralab train sora --stream FOLDER`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from random import Random

from torch import Tensor

from soralab.datasets.film_shards import FilmShards, named, words
from soralab.sora import SoraConfig, word_ids


def captioned(shards: FilmShards, null: float, encode: Callable[[Tensor], Tensor] | None = None) -> Callable:
    """Batches of films, or of what `encode` makes of them, with their words; the share `null` has lost these.

    Raises ValueError at once for words that the course's vocabulary has not, by the film's name.
    """
    for sample in chain.from_iterable(shards.shards):
        with named(sample):
            word_ids([words(sample)], SoraConfig.words)

    def batch(step: int) -> dict[str, Tensor]:
        (films, texts), rng = shards(step), Random(f"{shards.seed}/{step}")
        said = ["" if rng.random() < null else text for text in texts]
        return {"x0": encode(films) if encode else films, "ids": word_ids(said, SoraConfig.words)}

    return batch


def entry(stream: Path | None) -> dict[str, str]:
    """What a card says of the films that were learnt from."""
    return {"stream": Path(stream).name} if stream else {}
