"""Chapter 12: why chapter 06's painter hears no relation. One change a row, and a measure without painting.

Of true pictures the network is asked for the noise twice: told what is there, and told something else of the same
words. If it hears the difference, the second error is the larger. `heard` says by how much, time by time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from soralab import world
from soralab.clip import PromptEncoder, blocks
from soralab.datasets import recaptions, stills
from soralab.experiments.latent_diffusion_relation import standing
from soralab.experiments.latent_diffusion_scores import painted
from soralab.experiments.recaptioning_scores import TEST_SEED, WALK
from soralab.files.atomic import kept
from soralab.latent_diffusion import PROCESS, LatentDiffusion, Painter, word_ids
from soralab.recipes.latent_diffusion import SIDE, LatentBatches, encoded
from soralab.recipes.latent_diffusion import loss as chapter_06_loss
from soralab.recipes.recaptioning import NULL, PAINTER_TRAINING, SEED, fit_painter, painter_loss
from soralab.training.data import beside
from soralab.training.profiles import by_profile

TIMES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
PICTURES, MORE = 5000, 20_000  # of two things
LOUD = 0.3  # deviation of the positions' vectors in a text tower that is told places of words loudly
TRAINING = replace(PAINTER_TRAINING, steps=360, ema=0.98)
PLACES = recaptions.descriptive  # captions that tell places


def plain(scene: world.Scene) -> str:
    """A caption as chapter 06 has it."""
    return stills.caption(scene)


# --------------------------------------------------------------------------------------------- what the network hears


def turned(scene: world.Scene, how: str) -> world.Scene:
    """A scene of two things that is told otherwise, of the same words: "order", the second is left of the first;
    "axis", above instead of left of; "colours", each has the other's.

    Things told in another order take each other's place, so that captions that tell places are turned too.
    """
    a, b = scene.objects
    if how == "colours":
        return replace(scene, objects=(replace(a, colour=b.colour), replace(b, colour=a.colour)))
    if how == "order":
        return replace(scene, objects=(replace(b, x=a.x, y=a.y), replace(a, x=b.x, y=b.y)))
    kind = stills.AXES[1 - stills.AXES.index(scene.relation.kind)]
    lie = tuple(replace(one, x=one.y, y=one.x) for one in scene.objects)
    return replace(scene, objects=lie, relation=world.Relation(kind, 0, 1))


@torch.no_grad()
def heard(painter: Painter, say: Callable = plain, count: int = 128, times: Sequence[float] = TIMES) -> dict:
    """By how many per cent the error of the noise grows when a caption is turned: {"order", "axis", "colours": a
    number for each of `times`}, the same noise for all."""
    scenes = [stills.sample(TEST_SEED, k, "test", 2) for k in range(count)]
    z = encoded(painter.autoencoder, stills.pictures(scenes)).float()
    model, length = painter.model, painter.model.config.words
    told = {"right": [say(scene) for scene in scenes]}
    told |= {how: [say(turned(scene, how)) for scene in scenes] for how in ("order", "axis", "colours")}
    ids = beside(model, {key: word_ids(lines, length) for key, lines in told.items()})
    found: dict[str, list[float]] = {"times": list(times), **{key: [] for key in told if key != "right"}}
    for t in times:
        eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(int(1000 * t))).to(z.device)
        at = torch.full((count,), t, device=z.device)
        noisy = PROCESS.add_noise(z, eps, at)
        errors = {key: (model(noisy, at, line) - eps).square().mean().item() for key, line in ids.items()}
        for key in found.keys() - {"times"}:
            found[key].append(round(100 * (errors[key] / errors["right"] - 1), 2))
    return found


# -------------------------------------------------------------------------------------------------- one change a row


@dataclass(frozen=True)
class Row:
    """How a painter is trained on: chapter 06's way, but for one of these."""

    say: Callable = plain  # the captions
    count: int = PICTURES  # the pictures
    both_ways: bool = False  # the mask of the text tower: may a word read later ones?
    loud: bool = False  # the text tower's positions: drawn anew, larger
    deeper: int = 0  # layers added to the text tower
    loss: Callable = chapter_06_loss


ROWS = {
    "two things alone": Row(), "captions that tell places": Row(say=PLACES), "four times the pictures": Row(count=MORE),
    "words read both ways": Row(both_ways=True), "positions told loudly": Row(loud=True),
    "a deeper text tower": Row(deeper=2), "heavy noise counts more": Row(loss=painter_loss),
}  # fmt: skip


class BothWays(PromptEncoder):
    """A text tower in which every word reads all words, later ones too."""

    def states(self, ids: Tensor) -> Tensor:
        """As `TextTransformer.states`, with a mask that keeps padding out alone."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, (ids > 0)[:, None, None])
        return self.ln_final(x)


def changed(model: LatentDiffusion, row: Row) -> LatentDiffusion:
    """The model with the row's change in its text tower; what is added begins as nothing."""
    c, text = model.config, model.text
    if row.both_ways:
        model.text = BothWays(c.vocabulary, c.unet.context, c.words, c.depth)
        model.text.load_state_dict(text.state_dict())
    if row.loud:
        nn.init.normal_(text.positional_embedding, std=LOUD)
    if row.deeper:
        head = c.unet.context // text.blocks[0].attention.heads
        for block in blocks(c.unet.context, row.deeper, head):
            nn.init.zeros_(block.attention.to_out.weight)
            nn.init.zeros_(block.mlp[2].weight)
            text.blocks.append(block)
    return model


def trained(start: Painter, row: Row, folder: Path, steps: int = TRAINING.steps, count: int = 200) -> dict:
    """A painter trained on as the row says, and judged by prompts of two things: {"standing", "heard", "seconds"}."""
    pictures = by_profile(smoke=8, laptop=row.count, gpu=row.count)
    scenes = [stills.sample(SEED, k, "train", 2) for k in range(pictures)]
    torch.manual_seed(TRAINING.seed)
    model = LatentDiffusion(start.model.config)
    model.load_state_dict(start.model.state_dict())
    model = changed(model, row).to(next(start.model.parameters()).device)
    ids = word_ids(["", *(row.say(scene) for scene in scenes)], model.config.words)

    def prompt(k: int, rng: Random) -> Tensor:
        return ids[0 if rng.random() < NULL else k + 1]

    batches = LatentBatches(encoded(start.autoencoder, stills.pictures(scenes)), prompt)
    result = fit_painter(model, replace(TRAINING, steps=steps, save_every=steps), batches, folder, row.loss)
    painter = Painter(model.to(start.autoencoder.encoder[0].weight.device), start.autoencoder, SIDE)
    return judged(painter, row.say, count) | {"seconds": round(result.seconds)}


def judged(painter: Painter, say: Callable = plain, count: int = 200) -> dict:
    """How two things stand in what is painted from captions of test scenes, and what is heard of true ones."""
    asked = [say(stills.sample(TEST_SEED, k, "test", 2)) for k in range(count)]
    steps = by_profile(smoke=2, laptop=10, gpu=10)
    shown = painted(painter, asked, seed=122_000, steps=steps, **WALK).cpu()
    return {"standing": standing(shown, asked), "heard": heard(painter, say, min(count, 128))}


def rows(start: Painter, folder: Path, **options) -> dict[str, dict]:
    """{row: what `trained` finds}, beside the painter as it is shipped; what was measured is not measured again."""
    count = {key: value for key, value in options.items() if key == "count"}
    table = {"as shipped": kept(folder / "as_shipped.json", partial(judged, start, **count))}
    for name, row in ROWS.items():
        where = folder / name.replace(" ", "_")
        table[name] = kept(where.with_suffix(".json"), partial(trained, start, row, where, **options))
    return table
