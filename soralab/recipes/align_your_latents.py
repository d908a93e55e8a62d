"""How chapter 10's layers over time are trained: `soralab train temporal_decoder`, `soralab train align_your_latents`.

Both are laid behind models of pictures that stay as they are: a first stage's decoder, and the painter of frames
(soralab.recipes.film_painter). The films are the simple world's, one thing and every motion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import world
from soralab.align_your_latents import (
    Animator,
    TemporalDecoder,
    TemporalLayers,
    VideoConfig,
    VideoLDM,
    decoder_loss,
    video_loss,
)
from soralab.blocks.first_stage import Autoencoder
from soralab.blocks.perception import FilmDiscriminator
from soralab.datasets import frames
from soralab.datasets.frames import FRAMES
from soralab.figures import Watched
from soralab.files.checkpoints import CheckpointError, config_of, load_model, read_card
from soralab.latent_diffusion import Painter, load_autoencoder, word_ids
from soralab.recipes import RUNS, Trained
from soralab.recipes.film_painter import FIRST
from soralab.recipes.film_painter import SECOND as PAINTER
from soralab.recipes.latent_diffusion import CONFIG as PICTURES
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.profiles import by_profile, device, larger
from soralab.training.progress import progress
from soralab.world.language import VOCABULARY, short_caption

SEED, SIDE = 10, 32
PHI, DECODER = "align_your_latents", "temporal_decoder"
CONFIG = VideoConfig(heads=4, vocabulary=len(VOCABULARY) + 1, context=64, words=24)
BATCH = 16
EVERY, COARSE, COARSE_BATCH = 2, 0.6, 28  # for a share COARSE of the steps, films of every second frame, and more films
TIMES = (0.5, 0.95)  # of these films' noise: with less of it the frames tell where things go, with more nothing does
FILMS, FINE = 4000, 500  # of the training: at nine frames, and at twice as many, for what is filmed between
NULL = 0.1  # share of prompts left out, for guidance
GIVEN = (0.6, 0.8)  # up to the first share of films nothing is given, up to the second one frame, then two
BETWEEN = 0.25  # share of films that are filled between given frames
TRAINING = TrainConfig(steps=3000, lr=4e-3, warmup=100, cooldown=0.4, ema=0.99, seed=SEED, log_every=25, save_every=100)
SHORT_STEPS, SHORT_BATCH, SHORT_FILMS, PROBED = 100, 8, 400, 64

# --------------------------------------------------------------------------------------- the layers over time


def library(count: int, split: str = "train", seed: int = SEED) -> list[world.Scene]:
    """The first `count` scenes of the simple world, with one thing each."""
    return [world.sample_scene(seed, index, "simple", split) for index in range(count)]


@torch.no_grad()
def encoded(autoencoder: Autoencoder, scenes: Sequence[world.Scene], time: int, chunk: int = 50) -> Tensor:
    """The films of scenes as latents in half precision, drawn once: [scenes, time, c, height, width]."""
    generator, parts = torch.Generator().manual_seed(SEED), []
    for start in progress(range(0, len(scenes), chunk), desc="encoding films", unit="batch"):
        film = beside(autoencoder, world.to_film(world.render(scenes[start : start + chunk], time, SIDE, SIDE)))
        parts.append(autoencoder.encode(film.flatten(0, 1), generator).unflatten(0, film.shape[:2]).half())
    return torch.cat(parts)


def prompt(scene: world.Scene, rng: Random, null: float = NULL) -> str:
    """What a training film is called: its caption, at times without sizes, at times with the background, or ""."""
    if rng.random() < null:
        return ""
    words = short_caption(scene)
    if rng.random() < 0.3:
        words = " ".join(word for word in words.split() if word not in world.SIZES)
    return f"{words} on a {scene.background} background" if rng.random() < 0.3 else words


def ids(texts: Sequence[str]) -> dict[str, Tensor]:
    """Prompts as the painter reads them, stills, and as the layers over time do: {"ids", "words"} [prompts, words]."""
    stills = [frames.still(text) if text else "" for text in texts]
    return {"ids": word_ids(stills, PICTURES.words), "words": word_ids(list(texts), CONFIG.words)}


class FilmBatches:
    """Batches of films as latents, drawn anew in each step, with the frames that are given of each.

    The first `coarse` steps are to learn the words for motions: films of five frames, at the moments 0, 2, 4, 6, 8, of
    which nothing is given, and much noise. Then most are nine frames at the moments 0 to 8, of which nothing, the first
    or the first two are given, and a share BETWEEN nine at half moments, 0 to 4 or 4 to 8, with every second one given.
    """

    def __init__(
        self, autoencoder: Autoencoder, films: int = FILMS, fine: int = FINE, batch: int = BATCH, coarse: int = 0,
        seed: int = SEED,
    ):  # fmt: skip
        self.scenes, self.batch, self.coarse, self.seed = library(films, seed=seed), batch, coarse, seed
        self.whole = encoded(autoencoder, self.scenes, FRAMES)
        self.fine = encoded(autoencoder, self.scenes[:fine], 2 * FRAMES)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"z" [batch, 9, c, h, w], "ids", "words" [batch, words], "given", "moments" [batch, 9]}."""
        rng, coarse = Random(f"{self.seed}/{step}"), step < self.coarse
        count = self.batch * COARSE_BATCH // BATCH if coarse else self.batch
        films = [self.film(rng, coarse) for _ in range(count)]
        z, given, moments, which = zip(*films, strict=True)
        said = ids([prompt(self.scenes[k], rng) for k in which])
        batch = {"z": torch.stack(z).float(), **said, "given": torch.stack(given), "moments": torch.stack(moments)}
        return batch | {"t": torch.tensor([rng.uniform(*TIMES) for _ in films])} if coarse else batch

    def film(self, rng: Random, coarse: bool = False) -> tuple[Tensor, Tensor, Tensor, int]:
        """One film: its latents, which frames are given, when they are, and which scene it is of."""
        place, draw = torch.arange(FRAMES), rng.random()
        if coarse:
            which, place = int(rng.random() * len(self.whole)), place[::EVERY]
            return self.whole[which, ::EVERY], place < 0, place.float(), which
        if rng.random() < BETWEEN:
            which, start = int(rng.random() * len(self.fine)), rng.choice((0, FRAMES - 1))
            return self.fine[which, start : start + FRAMES], place % 2 == 0, (start + place) / 2, which
        which = int(rng.random() * len(self.whole))
        return self.whole[which], place < sum(draw >= share for share in GIVEN), place.float(), which


def loss(painter: nn.Module) -> Callable:
    """The training loss of phi behind a painter, and alpha of each layer for the log."""

    def of(phi: TemporalLayers, batch: dict[str, Tensor], generator: torch.Generator):
        error = video_loss(VideoLDM(painter, phi), **batch, generator=generator).mean()
        return error, {f"alpha {name}": layer.alpha for name, layer in phi.beside.items()}

    return of


def parameters(phi: TemporalLayers) -> list[dict]:
    """Matrices and kernels train with Muon, all else with AdamW, more slowly; but alphas, each a number, faster."""
    groups: dict[str, list] = {"muon": [], "alpha": [], "rest": []}
    for name, p in phi.named_parameters():
        inner = p.ndim > 1 and ("blocks" in name or "hints" in name or ("beside" in name and ".known." not in name))
        groups["muon" if inner else "alpha" if name.endswith(".a") else "rest"].append(p)
    return [
        {"params": groups["muon"], "muon": True},
        {"params": groups["alpha"], "scale": 2.0},
        {"params": groups["rest"], "scale": 0.2},
    ]


def fit(
    painter: nn.Module, training: TrainConfig, batches: Callable, folder: Path, probes: Watched | None = None
) -> tuple[TemporalLayers, TrainResult]:
    """Train phi behind a painter that stays as it is, or go on with it: the averaged weights, and the result."""
    torch.manual_seed(training.seed)
    phi = TemporalLayers(painter.unet, CONFIG)
    groups, home = parameters(phi), next(painter.parameters()).device
    try:  # the loop takes phi alone to the device and back
        seen = loss(painter.to(device()))
        result = loop.train(phi, seen, batches, training, folder, parameters=groups, probes=probes)
    finally:
        painter.to(home)
    result.ema.copy_to(phi)
    return phi.eval(), result


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """The first steps of a training like the shipped one's, with half the batch; its log as columns {"step", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=30, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    painter, first = Painter.load(PAINTER).model, load_autoencoder(FIRST).to(device())
    batches = FilmBatches(first, min(SHORT_FILMS, 4 * steps), min(SHORT_FILMS // 8, steps), SHORT_BATCH)
    unseen, middle = library(PROBED, "test"), [0, FRAMES // 2, FRAMES - 1]
    texts, z = [short_caption(scene) for scene in unseen], encoded(first, unseen, FRAMES)
    held = {"z": z.float(), **ids(texts), "given": torch.zeros(PROBED, FRAMES).bool()}

    def film(phi: TemporalLayers) -> Tensor:
        return animator(VideoLDM(painter, phi), picture_decoder(first)).film(texts[:1], steps=10)[0, middle]

    truth = world.to_film(world.render(unseen[:1], FRAMES, SIDE, SIDE))[0, middle]
    probes = Watched(PHI, loss(painter), held, steps, swap=("words",), truth=truth, sample=film)
    with TemporaryDirectory() as temporary:
        return probes.log(fit(painter, training, batches, Path(folder or temporary), probes)[1].log)


# ------------------------------------------------------------------------------------------ the decoder in time

DECODER_BATCH = 8
ADVERSARY_FROM = 0.3  # share of the steps after which the discriminator joins
JITTER = 0.1  # of latents, whose deviation is 1: as much as a model's own are off
DECODER_TRAINING = TrainConfig(
    steps=800, lr=4e-3, warmup=50, cooldown=0.4, ema=0.99, seed=SEED, log_every=25, save_every=100,
    precision="float32",
)  # fmt: skip


class DecoderPair(nn.Module):
    """What is trained of a temporal decoder, its layers over time, and its discriminator."""

    def __init__(self, decoder: TemporalDecoder):
        super().__init__()
        self.beside, self.discriminator = decoder.beside, FilmDiscriminator()


class DecoderBatches:
    """Batches of films of their own: {"film": [batch, 9, 3, 32, 32] in [-1, 1], "adversary": bool}."""

    def __init__(self, start: float, batch: int = DECODER_BATCH):
        self.start, self.batch = start, batch

    def __call__(self, step: int) -> dict:
        """Batch `step`; the adversary comes at `start`."""
        films = world.clips(SEED, range(step * self.batch, (step + 1) * self.batch), FRAMES, SIDE, SIDE, "simple")[0]
        return {"film": films, "adversary": step >= self.start}


def fit_decoder(
    autoencoder: Autoencoder, training: TrainConfig, batches: DecoderBatches, folder: Path
) -> tuple[TemporalDecoder, TrainResult]:
    """Train the layers over time of a decoder, or go on with them: the averaged weights, and the result."""
    torch.manual_seed(training.seed)
    home = autoencoder.scale.device
    decoder = TemporalDecoder(autoencoder.to(device()))
    pair = DecoderPair(decoder)

    def of(pair: DecoderPair, batch: dict, generator: torch.Generator):
        return decoder_loss(decoder, pair.discriminator, batch["film"], generator, batch["adversary"], jitter=JITTER)

    kernels = [p for p in pair.beside.parameters() if p.ndim > 1]
    rest = [p for p in pair.parameters() if all(p is not kernel for kernel in kernels)]
    groups = [{"params": kernels, "muon": True}, {"params": rest, "scale": 0.2}]
    try:  # the loop takes the pair alone to the device and back
        result = loop.train(pair, of, batches, training, folder, parameters=groups)
    finally:
        autoencoder.to(home)
    result.ema.copy_to(pair)
    return decoder.to(home).eval(), result


# ----------------------------------------------------------------------------------------------- train, and load


def train(name: str = PHI, steps: int | None = None) -> Trained:
    """Train one of the two, or go on with it, in runs/NAME; both need the checkpoints of `film_painter`'s recipe.

    `steps` move the switch, from coarse films to fine ones or to where the discriminator joins: a run that is
    lengthened is not one that was long at once."""
    full = TRAINING if name == PHI else DECODER_TRAINING
    training = replace(full, steps=steps or by_profile(smoke=2, laptop=full.steps, gpu=full.steps))
    if name != PHI:
        first = load_autoencoder(FIRST)
        batches = DecoderBatches(ADVERSARY_FROM * training.steps, larger(DECODER_BATCH, 8))
        decoder, result = fit_decoder(first, training, batches, RUNS / name)
        return Trained.of(decoder.beside, first.config, result, autoencoder=FIRST, data_seed=SEED, batch=batches.batch)
    films, fine = by_profile(smoke=(16, 4), laptop=(FILMS, FINE), gpu=(8 * FILMS, 8 * FINE))
    coarse = int(COARSE * training.steps)
    batches = FilmBatches(load_autoencoder(FIRST).to(device()), films, fine, larger(BATCH, 8), coarse)
    phi, result = fit(Painter.load(PAINTER).model, training, batches, RUNS / name)
    entries = {"painter": PAINTER, "autoencoder": FIRST, "batch": batches.batch, "films": films, "between": fine}
    return Trained.of(phi, phi.config, result, data_seed=SEED, **entries)


def picture_decoder(autoencoder: Autoencoder) -> Callable[[Tensor], Tensor]:
    """The decoder of pictures, frame by frame: latents [batch, frames, c, h, w] to films."""
    return lambda z: autoencoder.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])


def animator(model: VideoLDM, decode: Callable[[Tensor], Tensor]) -> Animator:
    """A model that films by the course's prompts."""
    return Animator(model.eval(), decode, frames.still)


def load_decoder(name: str = DECODER) -> TemporalDecoder:
    """The shipped temporal decoder with the first stage that its card names, verified. Raises CheckpointError."""
    decoder = TemporalDecoder(load_autoencoder(read_card(name).get("autoencoder", FIRST)))
    decoder.beside = load_model(name, lambda _: decoder.beside, "TemporalDecoder", ("autoencoder",))[0]
    return decoder.eval()


def load(name: str = PHI, where: torch.device | str = "cpu", decoder: str = DECODER) -> Animator:
    """The shipped layers over time behind the painter that their card names, and the temporal decoder, verified.

    Raises CheckpointError.
    """
    card = read_card(name)
    if "painter" not in card:
        raise CheckpointError(f"the checkpoint {name} holds no TemporalLayers: name another")
    painter = Painter.load(card["painter"]).model
    phi, _ = load_model(name, lambda c: TemporalLayers(painter.unet, config_of(VideoConfig, c)), "TemporalLayers")
    return animator(VideoLDM(painter, phi).to(where), load_decoder(decoder).to(where))
