"""How chapter 15 tunes the painter of frames on one film: section 3.3.

Nothing is shipped: what is tuned serves its one film, so the notebook tunes its own. What came out on many films is in
data/experiments/tune_a_video.json (`soralab.experiments.tune_a_video`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from soralab import world
from soralab.datasets import frames
from soralab.figures import Watched
from soralab.latent_diffusion import LatentDiffusion, Painter, word_ids
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.probes import Probes
from soralab.training.profiles import device
from soralab.tune_a_video import Editor, inflate, latents_of, tuning_loss
from soralab.world.language import short_caption

SEED = 15  # of the films: those of the split "test", which the painter never saw
FILM = 11  # the one that the page tunes on: a square that orbits
PAINTER = "film_painter"
# The paper has 500 steps at 3e-5, for a network of 860 M weights; the card has 500 too. Weights are averaged.
STEPS = 100
TUNING = TrainConfig(steps=STEPS, lr=1e-3, warmup=20, cooldown=0.4, ema=0.98, seed=SEED, log_every=50, save_every=STEPS)
PROBED = 16  # fixed draws of noise that a short run is probed with


@dataclass(frozen=True)
class Shot:
    """A film of one thing: its scene, pixels [frames, 3, 32, 32] in [-1, 1], and what a picture of it is called."""

    scene: world.Scene
    film: Tensor
    prompt: str

    @classmethod
    def of(cls, scene: world.Scene) -> Shot:
        """The film of a scene, as long as the painter's films are."""
        film = world.to_film(world.render([scene], frames.FRAMES, 32, 32))[0]
        return cls(scene, film, frames.still(short_caption(scene)))


def shot(index: int) -> Shot:
    """Film number `index` of those that chapter 15 tunes on."""
    return Shot.of(world.sample_scene(SEED, index, "simple", "test"))


def loss(model: LatentDiffusion, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The tuning loss of the one film that there is."""
    return tuning_loss(model, batch["z"], batch["ids"], generator)


def fit(
    painter: Painter, z: Tensor, prompt: str, training: TrainConfig, folder: Path, sees: str = "sparse-causal",
    probes: Probes | None = None,
) -> tuple[LatentDiffusion, loop.TrainResult]:
    """Tune a copy of the painter on a film's latents z [frames, c, height, width], or go on with it: the averaged
    weights, and the result. What is over time begins with the training's seed."""
    torch.manual_seed(training.seed)
    model = inflate(painter.model, len(z), sees)
    batch = {"z": z.cpu(), "ids": word_ids([prompt], model.config.words)}
    result = loop.train(model, loss, lambda step: batch, training, folder, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def tuned(painter: Painter, shown: Shot, steps: int = STEPS, sees: str = "sparse-causal") -> Editor:
    """The painter tuned on a film: an Editor of it, which keeps nothing on the disk. 0 steps: inflated alone."""
    z = latents_of(painter, shown.film.to(next(painter.model.parameters()).device))
    if not steps:
        return Editor(inflate(painter.model, len(z), sees).eval(), z, shown.prompt)
    training = replace(TUNING, steps=steps, save_every=steps, precision="float32")
    with TemporaryDirectory() as folder:
        return Editor(fit(painter, z, shown.prompt, training, Path(folder), sees)[0], z, shown.prompt)


def short_run(seed: int, steps: int = STEPS, folder: str | Path | None = None, index: int = FILM) -> dict:
    """The first steps of the tuning on film number `index`; the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader. Its
    probes know no other film: "held" is the loss at draws of noise that are always the same, and "pairing" by how much
    worse it is for the film that begins with its last frame.
    """
    training = replace(TUNING, steps=steps, seed=seed, cooldown=0.0, log_every=2, save_every=steps, precision="float32")
    painter, shown = Painter.load(PAINTER, device()), shot(index)
    z = latents_of(painter, shown.film.to(device())).cpu()
    draw = {"z": z, "ids": word_ids([shown.prompt], painter.model.config.words)}
    few = slice(None, None, 4)

    def again(model: LatentDiffusion) -> Tensor:
        editor = Editor(model, z.to(device()), shown.prompt, steps=10)
        return painter.autoencoder.decode(editor.edit(shown.prompt, guidance=1.0))[few].clamp(-1, 1)

    probes = Watched("tune_a_video", loss, [draw] * PROBED, steps, swap=("z",), sample=again, truth=shown.film[few])
    with TemporaryDirectory() as temporary:
        _, result = fit(painter, z, shown.prompt, training, Path(folder or temporary), probes=probes)
        return probes.log(result.log)
