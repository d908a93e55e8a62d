"""Chapter 06: do two things stand as their prompt says, and what if each is led to its half of the picture?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from soralab.datasets import stills
from soralab.experiments.latent_diffusion_scores import painted, walk
from soralab.latent_diffusion import Painter, noise, word_ids

LED_UNTIL = 0.6  # the time down to which halves are led: what stands where is decided before
SCALE, PROMPTS_SEED = 3.0, 61


def relation(painter: Painter, count: int = 300) -> dict[str, dict[str, int]]:
    """`standing` of what is painted "from the prompt", and "by halves"; of test prompts that no other table has."""
    texts, _ = stills.prompts("test", 2, count, PROMPTS_SEED)
    return {"from the prompt": standing(painted(painter, texts, steps=walk(), guidance=SCALE), texts),
            "by halves": standing(by_halves(painter, texts, arrows, walk()), texts)}  # fmt: skip


def standing(shown: Tensor, texts: Sequence[str]) -> dict[str, int]:
    """Of pictures [n, 3, height, width] of two things, how many have what.

    "both": both things, with all that belongs to them, and no third; of these "axis": along the axis that the prompt
    names, "beside": one beside the other, whatever it names, "order": in the prompt's order. "all" is what the referee
    calls all right.
    """
    found = dict.fromkeys(("pictures", "both", "axis", "beside", "order", "all"), 0)
    for picture, text in zip(shown, texts, strict=True):
        mark = stills.marks(picture, text)
        found["pictures"] += 1
        found["all"] += mark["all"]
        if all(mark[part] for part in ("shape", "colour", "size", "count")):
            right, down = stills.offset(stills.read(picture), text)
            found["both"] += 1
            found["beside"] += abs(right) > abs(down)
            found["axis"] += (abs(right) > abs(down)) == ("left of" in text)
            found["order"] += mark["relation"]
    return found


def told(found: dict[str, int]) -> str:
    """A line of what `standing` found."""
    return ", ".join(f"{what} {number}" for what, number in found.items())


def arrows(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    """Guidance by n prompts, each for its own places: none + scale sum_k where_k (said_k - none), of none's shape.

    none [batch, channel, height, width], said [n, batch, channel, height, width], where [n, height, width].
    """
    return none + scale * torch.einsum("nhw,nbchw->bchw", where, said - none)


@torch.no_grad()
def by_halves(
    painter: Painter, texts: Sequence[str], guided: Callable = arrows, steps: int = 25, seed: int = 0
) -> Tensor:
    """Pictures [n, 3, height, width] of prompts of two things, each thing led to the half that the prompt names.

    Down to LED_UNTIL each half follows the prompt of its own thing alone, by `guided` (see `arrows`); after that the
    whole picture follows the whole prompt. Picture k starts from the noise of seed + k.
    """
    z = noise(seed, len(texts), painter.shape(None))
    for axis in stills.AXES:
        which = [k for k, text in enumerate(texts) if f" is {axis} " in text]
        if which:
            network = _led([texts[k] for k in which], axis, painter, guided)
            z[which] = painter.sample(network, z[which], steps)
    return (painter.autoencoder.decode(z) if painter.autoencoder else z).clamp(-1, 1)


def _led(texts: Sequence[str], axis: str, painter: Painter, guided: Callable) -> Callable:
    """The network z, t -> noise for prompts of one axis: "left of" is the first of `stills.AXES`."""
    words, (_, height, width) = painter.model.config.words, painter.shape(None)
    things = zip(*(text.split(f" is {axis} ") for text in texts), strict=True)
    none, whole, *alone = (word_ids(list(each), words) for each in ([""] * len(texts), texts, *things))
    row, column = torch.arange(height)[:, None] / height, torch.arange(width)[None] / width
    first = ((row if axis == "above" else column) < 0.5).float().expand(height, width)
    halves = torch.stack([first, 1 - first])

    def network(z: Tensor, t: Tensor) -> Tensor:
        without = painter.model(z, t, none)
        if t[0] < LED_UNTIL:
            return without + SCALE * (painter.model(z, t, whole) - without)
        return guided(without, torch.stack([painter.model(z, t, ids) for ids in alone]), halves, SCALE)

    return network
