"""Chapter 12's data: pictures with what the web, a hurried and a patient writer call them.

    alt text     "photo of a red square"          the world's own (soralab.world.language): patchy, sometimes wrong
    short        "a red circle"                   the main thing alone: the report's SSC
    descriptive  "a small red circle up on the left is left of a medium blue square on the right on a black background"

The pictures are chapter 06's, one or two things that stand still. The films are the simple world's, and what they are
called tells motions too. Everything is a function of numbers, so there is no end of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from torch import Tensor

from soralab import world
from soralab.datasets import stills
from soralab.world.language import alt_text, article, descriptive_caption, short_caption, thing, words

FRAMES = 9  # of a film
SPLIT_AT = 1 / 6  # short sides from the middle: the frame is cut into thirds
FILMS_EVERY = 3  # every third batch is of films
DROP = 0.5  # chance that a short prompt leaves out each thing's size, and (half as often) its colour

_LEFT, _RIGHT = ["on", "the", "left"], ["on", "the", "right"]

Say = Callable[[world.Scene, Random], str]

# ------------------------------------------------------------------------------------------ what a picture is called


def place(thing: world.Object) -> str:
    """Where a thing stands, in the thirds of the frame: "up on the left", "down", "on the right"; "" in the middle."""
    across = "on the left" if thing.x < -SPLIT_AT else "on the right" if thing.x > SPLIT_AT else ""
    along = "up" if thing.y < -SPLIT_AT else "down" if thing.y > SPLIT_AT else ""
    return f"{along} {across}".strip()


def told_places(text: str) -> list[str]:
    """The places that a text gives to its things, one for each shape that it names, as `place` says them."""
    said = words(text)
    found, nouns = [], [k for k, word in enumerate(said) if word in world.SHAPES]
    for noun in nouns:
        after, here = said[noun + 1 : noun + 5], []
        here += after[:1] if after[:1] in (["up"], ["down"]) else []
        here += after[len(here) : len(here) + 3] if after[len(here) :][:3] in (_LEFT, _RIGHT) else []
        found.append(" ".join(here))
    return found


def main_thing(scene: world.Scene) -> world.Object:
    """The largest thing; among equals the one that captions name first, on the left or above."""
    return max(scene.objects, key=lambda one: one.radius)  # the first of equals


def short(scene: world.Scene, rng: Random | None = None) -> str:
    """The main thing's colour and shape: "a red circle"."""
    return thing(replace(main_thing(scene), size=""))


def descriptive(scene: world.Scene, rng: Random | None = None, places: bool = True) -> str:
    """All that a picture shows: sizes, colours, shapes, places, the relation, the background. At most 23 words."""
    first, *rest = (f"{thing(o)} {place(o)}".strip() if places else thing(o) for o in scene.objects)
    said = f"{first} is {scene.relation.kind} {rest[0]}" if rest else first
    return f"{said} on {article(scene.background)} {scene.background} background"


def described_film(scene: world.Scene, rng: Random | None = None) -> str:
    """All that a film shows, in the world's words, without punctuation: motion, speed, turn and the camera too."""
    return " ".join(words(descriptive_caption(scene)))


def short_film(scene: world.Scene, rng: Random | None = None) -> str:
    """The things of a film and what they do, without their sizes."""
    return " ".join(word for word in words(short_caption(scene)) if word not in world.SIZES)


def web(scene: world.Scene, rng: Random) -> str:
    """An alt text as captions are written here: lower case, no punctuation, a digit a word."""
    return " ".join(words(alt_text(scene, rng)))


def web_text(seed: int, index: int, scene: world.Scene) -> str:
    """The alt text that stands beside picture number `index`, always the same."""
    return web(scene, Random(f"alt/{seed}/{index}"))


def shortened(scene: world.Scene, rng: Random) -> str:
    """A prompt as somebody in a hurry types it: some sizes, colours and the background are left out, and never a place.

    Two things keep their relation three times in four; else they stand side by side in the prompt, in either order.
    """
    names = [thing(replace(o, size="" if rng.random() < DROP else o.size,
                           colour="" if rng.random() < DROP / 2 else o.colour)) for o in scene.objects]  # fmt: skip
    said = names[0]
    if len(names) == 2:
        if rng.random() < 0.75:
            said = f"{names[0]} is {scene.relation.kind} {names[1]}"
        else:
            said = " and ".join(names if rng.random() < 0.5 else names[::-1])
    return f"{said} on {article(scene.background)} {scene.background} background" if rng.random() < 0.2 else said


# --------------------------------------------------------------------------------------------------------- batches


def pictures(scenes: Sequence[world.Scene]) -> Tensor:
    """Stills as films of one frame [n, 1, 3, 32, 32] in [-1, 1]."""
    return stills.pictures(scenes)[:, None]


def films(scenes: Sequence[world.Scene]) -> Tensor:
    """Films [n, FRAMES, 3, 32, 32] in [-1, 1]."""
    return world.to_film(world.render(scenes, FRAMES, 32, 32))


def film_scene(seed: int, index: int, split: str = "train") -> world.Scene:
    """Scene number `index` of the films: one thing and what it does."""
    return world.sample_scene(seed, index, "simple", split)


class Captioned:
    """Batches of pictures with texts, drawn anew for ever; every FILMS_EVERY-th of films, if `say_film` is given.

    say, say_film: a scene to its text. count: how many pictures there are; None: no end. to_ids: texts to ids, as
    `soralab.recaptioning.to_ids`. read: texts to another reader's ids, CLIP's.
    """

    def __init__(
        self, say: Say, to_ids: Callable, batch: int, seed: int, say_film: Say | None = None, film_batch: int = 16,
        count: int | None = None, read: Callable | None = None,
    ):  # fmt: skip
        self.say, self.say_film, self.to_ids, self.read = say, say_film, to_ids, read
        self.batch, self.film_batch, self.seed, self.count = batch, film_batch, seed, count

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"film": [batch, time, 3, 32, 32] in [-1, 1], "target": [batch, words], "ids" if read}."""
        rng, of_films = Random(f"captioned/{self.seed}/{step}"), bool(self.say_film) and step % FILMS_EVERY == 2
        size = self.film_batch if of_films else self.batch
        which = range(step * size, (step + 1) * size)
        if self.count:
            which = [int(rng.random() * self.count) for _ in range(size)]
        sample, show = (film_scene, films) if of_films else (stills.mixed, pictures)
        scenes = [sample(self.seed, k) for k in which]
        texts = [(self.say_film if of_films else self.say)(scene, rng) for scene in scenes]
        found = {"film": show(scenes), "target": self.to_ids(texts)}
        return found | ({"ids": self.read(texts)} if self.read else {})
