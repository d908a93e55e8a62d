"""Chapter 04's data: single frames of the world, and what can be said of a frame.

The world's captions tell what moves, and a single frame shows no motion. So the texts here name what one frame shows:

    descriptive  "a small red circle at the top left and a large blue square in the middle on a striped background"
    short        "a photo of a red circle and a blue square", as patchy as the texts that people put beside pictures

A frame is the middle one of its clip, where a growing thing has the size that its word says. Things behind a wall are
hidden then, so scenes with a wall are left out. The background "checkered" is kept from training altogether.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.blocks.bpe import Tokenizer
from soralab.world.language import article

UNSEEN = "checkered"  # the background that training never shows
SEEN = tuple(name for name in world.BACKGROUNDS if name != UNSEEN)
PLACES = (
    "at the top left", "at the top", "at the top right", "at the left", "in the middle", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
TEMPLATES = (  # of short texts, and of the prompts that a classifier is made of
    "{}", "a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}", "{}, stock photo", "there is {}",
    "look, {}!",
)  # fmt: skip
KEEP_SIZE, KEEP_COLOUR, KEEP_OBJECT = 0.3, 0.85, 0.75  # chances that a short text mentions it; the first thing always
CLASSES = len(world.SHAPES) * len(world.COLOURS)  # a thing's shape with its colour


# -------------------------------------------------------------------------------------------------- scenes and frames


def sample(seed: int, index: int, split: str = "train") -> world.Scene:
    """Scene number `index`: one to three things on a background that is not `UNSEEN`, without a wall."""
    scenes = (world.sample_scene(seed, 64 * index + k, "full", split) for k in range(64))
    return next(s for s in scenes if s.background != UNSEEN and not s.wall and _shows_it(s, split))


def thing(seed: int, index: int, split: str = "train", backgrounds: tuple[str, ...] = SEEN) -> world.Scene:
    """A scene with one thing on one of `backgrounds`, for classifiers.

    In the split "held_out" its shape never had that colour in training.
    """
    scenes = (world.sample_scene(seed, 64 * index + k, "simple", split) for k in range(64))
    scene = next(s for s in scenes if not s.wall and _shows_it(s, split))
    rng = Random(f"still/{split}/{seed}/{index}")
    return replace(scene, background=backgrounds[int(rng.random() * len(backgrounds))], texture=rng.random())


def _shows_it(scene: world.Scene, split: str) -> bool:
    """Whether what is held out can be seen in a frame: the world holds motions out as well as colours."""
    return split != "held_out" or any(world.held_out(thing.shape, thing.colour) for thing in scene.objects)


def frames(scenes: list[world.Scene], side: int = 32) -> Tensor:
    """The middle frame of each scene: uint8 [n, 3, side, side]."""
    return torch.from_numpy(world.render(scenes, 2, side, side)[:, 1])


def label(scene: world.Scene) -> int:
    """The class of a scene with one thing: shape, then colour."""
    thing = scene.objects[0]
    return world.SHAPES.index(thing.shape) * len(world.COLOURS) + world.COLOURS.index(thing.colour)


def name_of(number: int) -> str:
    """A class in words: "red circle"."""
    shape, colour = divmod(number, len(world.COLOURS))
    return f"{world.COLOURS[colour]} {world.SHAPES[shape]}"


def to_pixels(values: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return values.float().div(127.5).sub(1)


# -------------------------------------------------------------------------------------------------------------- texts


def place(scene: world.Scene, thing: world.Object) -> str:
    """The ninth of the frame in which the thing's centre lies, in words."""
    x, y = thing.pose(0.5)[:2]
    column, row = (min(2, max(0, int((value + 0.5) * 3))) for value in (x - scene.camera_x(0.5), y))
    return PLACES[3 * row + column]


def in_order(scene: world.Scene) -> list[world.Object]:
    """The things from left to right, as the frame shows them."""
    return sorted(scene.objects, key=lambda thing: thing.pose(0.5)[0])


def descriptive(scene: world.Scene) -> str:
    """Everything that the frame shows: sizes, colours, shapes, places, the background."""
    things = [f"{article(t.size)} {t.size} {t.colour} {t.shape} {place(scene, t)}" for t in in_order(scene)]
    return f"{_listed(things)} on {article(scene.background)} {scene.background} background"


def short(scene: world.Scene, rng: Random) -> str:
    """A text as it comes: some of the things, some of their attributes, in one of TEMPLATES."""
    order = sorted(scene.objects, key=lambda _: rng.random())
    things = [t for k, t in enumerate(order) if k == 0 or rng.random() < KEEP_OBJECT]
    said = []
    for t in things:
        words = [t.size] * (rng.random() < KEEP_SIZE) + [t.colour] * (rng.random() < KEEP_COLOUR) + [t.shape]
        said.append(f"{article(words[0])} {' '.join(words)}")
    return TEMPLATES[int(rng.random() * len(TEMPLATES))].format(_listed(said))


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def prompts(names: list[str], templates: tuple[str, ...] = TEMPLATES) -> list[list[str]]:
    """For each name of a class its texts: "red circle" in the template "a photo of {}" is "a photo of a red circle"."""
    return [[template.format(f"{article(name)} {name}") for template in templates] for name in names]


# ------------------------------------------------------------------------------------------------------------ batches


class Pairs:
    """Batches of frames with a text each, in a new order each epoch; half of the texts are short.

    twins: whether two texts of a batch may be equal. Each is then a wrong answer to the other's picture, though a right
    one. Without twins the second one is replaced by the frame's descriptive text, and if that is there too, stays.
    """

    def __init__(
        self, scenes: list[world.Scene], tokenizer: Tokenizer, batch: int, seed: int = 0, twins: bool = False,
        context: int = 32, shorts: float = 0.5,
    ):  # fmt: skip
        parts = [frames(scenes[k : k + 500]) for k in range(0, len(scenes), 500)]
        self.scenes, self.pictures = scenes, torch.cat(parts)
        self.tokenizer, self.batch, self.seed = tokenizer, min(batch, len(scenes)), seed
        self.twins, self.context, self.shorts = twins, context, shorts

    def which(self, step: int) -> Tensor:
        """The scenes of batch `step`, by number: [batch]."""
        epoch, place = divmod(step, len(self.scenes) // self.batch)
        order = torch.randperm(len(self.scenes), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        return order[place * self.batch : (place + 1) * self.batch]

    def texts(self, step: int, which: list[int]) -> list[str]:
        """A text for each of these scenes in batch number `step`."""
        rng, found = Random(f"texts/{self.seed}/{step}"), []
        for k in which:
            text = short(self.scenes[k], rng) if rng.random() < self.shorts else descriptive(self.scenes[k])
            found.append(descriptive(self.scenes[k]) if text in found and not self.twins else text)
        return found

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"pixels": [batch, 3, side, side] in [-1, 1], "ids": [batch, context]}."""
        which = self.which(step)
        ids = self.tokenizer(self.texts(step, which.tolist()), self.context)
        return {"pixels": to_pixels(self.pictures[which]), "ids": ids}


def share_of_twins(texts: list[str], batch: int) -> float:
    """The share of texts, cut into batches, that an equal one stands beside: 0 to 1."""
    parts = [texts[k : k + batch] for k in range(0, len(texts) - batch + 1, batch)]
    return sum(part.count(text) > 1 for part in parts for text in part) / max(1, sum(map(len, parts)))
