"""How chapter 14's networks are trained: `soralab train make_a_video_prior`, `make_a_video_space`, `make_a_video`.

The prior reads pairs of a frame and a text, the enlarger single frames. The third is trained twice in a row, first on
frames, told what they look like by chapter 04's CLIP, then on films; neither lesson holds a word. It begins with the
U-Net of the painter of frames (soralab.recipes.film_painter), which from here on predicts v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab import world
from soralab.blocks.first_stage import Autoencoder
from soralab.clip import CLIP
from soralab.datasets import frames
from soralab.datasets.frames import FRAMES
from soralab.diffusion import diffusion_loss
from soralab.figures import Watched
from soralab.files.checkpoints import config_of, load_model
from soralab.latent_diffusion import PROCESS, Painter, UNet, UNetConfig, load_autoencoder, noise
from soralab.make_a_video import Decoder, DecoderConfig, FilmDecoder, Filmmaker, Prior, PseudoConv, film_loss
from soralab.recipes import RUNS, Trained
from soralab.recipes import clip as chapter_04
from soralab.recipes.align_your_latents import picture_decoder
from soralab.recipes.film_painter import FIRST
from soralab.recipes.film_painter import SECOND as PAINTER
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.profiles import by_profile, device, larger
from soralab.training.progress import progress

SEED, SIDE = 14, 32
FILM, PRIOR, SPACE = "make_a_video", "make_a_video_prior", "make_a_video_space"
FINE = 4 * (FRAMES - 1) + 4  # frames of a training film, 36: every fourth is the nine-frame film of other chapters
EVERY = 4  # of them has a look of its own, that CLIP sees
FILMS = 3000  # of the training
NOTHING = 0.1  # share of looks left out, for guidance

# ------------------------------------------------------------------------------------------------- what is learned


@dataclass(frozen=True)
class Sizes:
    """Of the film decoder, on its card."""

    unet: UNetConfig
    decoder: DecoderConfig = DecoderConfig()


@dataclass(frozen=True)
class PriorSizes:
    """Of the prior, on its card."""

    embed: int = 64
    width: int = 192
    layers: int = 3


@dataclass(frozen=True)
class Library:
    """Films without a word: latents z [films, 36, c, height, width] and looks [films, 9, embed], in half precision."""

    z: Tensor
    looks: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, scenes: Sequence[world.Scene], autoencoder: Autoencoder, clip: CLIP, chunk: int = 25) -> Library:
        """The films of scenes, each frame encoded by itself."""
        generator, z, looks = torch.Generator().manual_seed(SEED), [], []
        for start in progress(range(0, len(scenes), chunk), desc="encoding films", unit="batch"):
            film = beside(autoencoder, world.to_film(world.render(scenes[start : start + chunk], FINE, SIDE, SIDE)))
            z.append(autoencoder.encode(film.flatten(0, 1), generator).unflatten(0, film.shape[:2]).half())
            seen = clip.encode_image(film[:, ::EVERY].flatten(0, 1))
            looks.append(seen.unflatten(0, (len(film), -1)).half())
        return cls(torch.cat(z), torch.cat(looks))


def scenes_of(count: int, split: str = "train") -> list[world.Scene]:
    """The first `count` scenes of the simple world, with one thing each."""
    return [world.sample_scene(SEED, index, "simple", split) for index in range(count)]


class PictureBatches:
    """Frames of films, each with its look or, at times, with none: {"z" [batch, c, h, w], "seen" [batch, embed]}."""

    def __init__(self, library: Library, batch: int = 64):
        self.library, self.batch = library, batch

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`."""
        rng, (films, looks) = Random(f"{SEED}/pictures/{step}"), self.library.looks.shape[:2]
        film, frame = (torch.tensor([rng.randrange(n) for _ in range(self.batch)]) for n in (films, looks))
        told = torch.tensor([[rng.random() >= NOTHING] for _ in film])
        seen = self.library.looks[film, frame].float()
        return {"z": self.library.z[film, EVERY * frame].float(), "seen": seen * told.to(seen)}


SHORT = 0.4  # for this share of the steps windows are short, and so many more that a step costs the same
WINDOW = 3  # frames of a short window
STRIDES = {WINDOW: (4, 6, 8, 12, 16), FRAMES: (1, 2, 3, 4)}  # of the 36 frames, from one frame of a window to the next
# What is given of a window, with its share: so many of the first frames, or every second one.
GIVEN = {WINDOW: ((0, 0.2), (1, 0.25), (2, 0.55)), FRAMES: ((0, 0.2), (1, 0.15), (2, 0.15), (3, 0.3), ("second", 0.2))}
TIMES = (0.4, 0.9)  # of the noise of every second window: with less the frames tell where things go


class FilmBatches:
    """Windows of films, without a word: of short ones in the first `short` steps, of nine frames after them.

    How far apart a window's frames are is drawn anew each time, evenly, through all of the training.
    """

    def __init__(self, library: Library, batch: int = 16, short: int = 0):
        self.library, self.batch, self.short = library, batch, short

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"z" [batch, frames, c, h, w], "seen" [batch, embed], "rate", "t" [batch], "given" [batch,
        frames]}."""
        rng, frames = Random(f"{SEED}/films/{step}"), WINDOW if step < self.short else FRAMES
        windows = [self.window(rng, frames) for _ in range(self.batch * FRAMES // frames)]
        z, seen, rate, given = zip(*windows, strict=True)
        t = torch.tensor([rng.uniform(*(TIMES if k % 2 else (0.0, 1.0))) for k in range(len(windows))])
        batch = {"z": torch.stack(z), "seen": torch.stack(seen), "given": torch.stack(given)}
        return batch | {"rate": torch.tensor(rate), "t": t}

    def window(self, rng: Random, frames: int) -> tuple[Tensor, Tensor, float, Tensor]:
        """One window: its latents, the look of one of its film's frames, its rate in frames a clip, which are given."""
        film, stride = int(rng.random() * len(self.library.z)), rng.choice(STRIDES[frames])
        reach = stride * (frames - 1) + 1
        start = int(rng.random() * (FINE - reach + 1))
        z = self.library.z[film, start : start + reach : stride].float()
        seen = self.library.looks[film, int(rng.random() * self.library.looks.shape[1])].float()
        seen = seen * (rng.random() >= NOTHING)
        kinds, shares = zip(*GIVEN[frames], strict=True)
        kind, place = rng.choices(kinds, shares)[0], torch.arange(frames)
        return z, seen, FINE / stride, place % 2 == 0 if kind == "second" else place < kind


# ----------------------------------------------------------------------------------------------------- the decoder

TRAINING = TrainConfig(steps=2500, lr=4e-3, warmup=50, cooldown=0.4, ema=0.995, seed=SEED, log_every=25, save_every=100,
                       precision="bfloat16")  # fmt: skip
PICTURES = replace(TRAINING, steps=1800, lr=2e-3)
BATCH, PICTURE_BATCH = 16, 64
SHORT_STEPS, SHORT_BATCH, SHORT_FILMS, PROBED = 80, 4, 60, 64
OLD = 0.3  # what is no layer over time learns films at this share of the rate: it has had its lesson
EDGE = ("tokens", "head", "unet.time", "unet.down.0", "rate", "known")  # what reads or writes other things than values


def decoder(seed: int = SEED) -> Decoder:
    """D before its first step: the painter of frames, which reads a look in place of words."""
    torch.manual_seed(seed)
    return Decoder(Painter.load(PAINTER).model.unet, DecoderConfig(embed=64))


def picture_loss(model: Decoder, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Squared error of v of frames, each by itself."""
    told = {"seen": batch["seen"]}
    return diffusion_loss(PROCESS, model, batch["z"], "v", generator=generator, condition=told).mean()


def loss(model: FilmDecoder, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The training loss of films, all of it measured in frames that are not given."""
    return film_loss(model, **batch, generator=generator).mean()


def parameters(model: nn.Module, old: float = 1.0) -> list[dict]:
    """Matrices and kernels train with Muon, all else with AdamW, more slowly; what is no layer over time at `old` of
    its rate. In the shipped model's training the residual blocks' projections of the diffusion time, old too, learned
    at the full rate."""
    over_time = {id(p) for layer in model.modules() if isinstance(layer, PseudoConv) for p in layer.time.parameters()}
    groups: dict[tuple[bool, bool], list] = {(muon, new): [] for muon in (True, False) for new in (True, False)}
    for name, p in model.named_parameters():
        new = name.startswith(("over_time", "rate", "known")) or id(p) in over_time
        groups[p.ndim > 1 and not any(part in name for part in EDGE), new].append(p)
    scale = {True: 1.0, False: 0.2}
    return [{"params": some, "muon": muon, "scale": scale[muon] * (1.0 if new else old)}
            for (muon, new), some in groups.items() if some]  # fmt: skip


def fit(
    model: nn.Module, training: TrainConfig, batches: Callable, folder: Path, loss: Callable = loss, old: float = 1.0,
    probes: Watched | None = None,
) -> tuple[nn.Module, TrainResult]:  # fmt: skip
    """Train a network, or go on with it: the averaged weights, and the result."""
    groups = parameters(model, old)
    result = loop.train(model, loss, batches, training, folder, parameters=groups, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


# ------------------------------------------------------------------------------------------ the prior, the enlarger

PAIRS = 30_000  # a frame and its text each
PRIOR_TRAINING = replace(TRAINING, steps=3000, lr=2e-3, precision="float32")
PRIOR_BATCH = 256
ENLARGER = UNetConfig(channels=6, out=3, width=24, multipliers=(1, 2), blocks=1, attention=(), context=None, groups=8)
CROP, SPACE_BATCH = 32, 16  # of a frame of 64 x 64, what one training picture shows
SPACE_TRAINING = replace(TRAINING, steps=1500, lr=2e-3)


class PairBatches:
    """Pairs of CLIP's embeddings, of a frame and of a text: {"image", "text" [batch, embed]}, drawn anew each step."""

    @torch.no_grad()
    def __init__(self, clip: CLIP, count: int = PAIRS, batch: int = PRIOR_BATCH, split: str = "train"):
        samples, rng = [frames.sample(SEED, k, split) for k in range(count)], Random(SEED)
        shown, texts = frames.pictures(samples), [frames.prompt(scene, rng, null=0.0) for scene, _ in samples]
        self.batch = min(batch, count)
        self.image = torch.cat([clip.encode_image(beside(clip, part)).cpu() for part in shown.split(500)])
        self.text = torch.cat([embedded(texts[k : k + 500], clip).cpu() for k in range(0, count, 500)])

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`."""
        which = torch.randint(len(self.image), (self.batch,), generator=torch.Generator().manual_seed(step))
        return {"image": self.image[which], "text": self.text[which]}


@torch.no_grad()
def embedded(texts: Sequence[str], clip: CLIP) -> Tensor:
    """What CLIP's text tower makes of texts: [texts, embed], where it is."""
    return clip.encode_text(beside(clip, chapter_04.tokenizer()(list(texts), clip.config.context)))


def prior_loss(prior: Prior, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The squared error of image embeddings."""
    return prior.loss(**batch, generator=generator).mean()


class CropBatches:
    """Corners of large frames, and the same ones small: {"x" [batch, 3, 32, 32], "low" [batch, 3, 16, 16]}."""

    def __init__(self, count: int = PAIRS // 10, batch: int = SPACE_BATCH, split: str = "train"):
        samples = [frames.sample(SEED, k, split) for k in range(count)]
        self.large, self.batch = (127.5 * frames.pictures(samples, 2 * SIDE) + 127.5).byte(), min(batch, count)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`; corners begin at even places, so that each small pixel is the mean of four."""
        rng, parts = Random(f"{SEED}/crops/{step}"), []
        for _ in range(self.batch):
            k, down, across = int(rng.random() * len(self.large)), *(2 * rng.randrange(CROP // 2 + 1) for _ in "xy")
            parts.append(self.large[k, :, down : down + CROP, across : across + CROP])
        x = torch.stack(parts).float() / 127.5 - 1
        return {"x": x, "low": F.avg_pool2d(x, 2)}


def space_loss(network: UNet, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Squared error of v, of large pictures that small ones lie over."""
    over = F.interpolate(batch["low"], scale_factor=2, mode="bilinear")
    told = {"concat": over}
    return diffusion_loss(PROCESS, network, batch["x"], "v", generator=generator, condition=told).mean()


# ----------------------------------------------------------------------------------------------- train, and load


def train(name: str = FILM, steps: int | None = None) -> Trained:
    """Train one of the three, or go on with it, in runs/NAME. The film decoder's `steps` are those with films; its
    lesson with frames comes before them, with as large a share as in the whole training. They also move the switch from
    short windows to nine frames, a share of them: a run that is lengthened is not one that was long at once."""
    clip = chapter_04.load()[0].to(device())
    full = {FILM: TRAINING, PRIOR: PRIOR_TRAINING, SPACE: SPACE_TRAINING}[name]
    training = replace(full, steps=steps or by_profile(smoke=2, laptop=full.steps, gpu=full.steps))
    torch.manual_seed(SEED)
    if name == PRIOR:
        batches = PairBatches(clip, by_profile(smoke=50, laptop=PAIRS, gpu=4 * PAIRS), larger(PRIOR_BATCH, 4))
        model, result = fit(Prior(**asdict(PriorSizes())), training, batches, RUNS / name, prior_loss)
        return Trained.of(model, PriorSizes(), result, data_seed=SEED, batch=batches.batch, pairs=len(batches.image))
    if name == SPACE:
        batches = CropBatches(by_profile(smoke=20, laptop=PAIRS // 10, gpu=PAIRS), larger(SPACE_BATCH, 4))
        model, result = fit(UNet(ENLARGER), training, batches, RUNS / name, space_loss)
        return Trained.of(model, ENLARGER, result, data_seed=SEED, batch=batches.batch, pictures=len(batches.large))
    first, count = load_autoencoder(FIRST).to(device()), by_profile(smoke=8, laptop=FILMS, gpu=4 * FILMS)
    library = Library.of(scenes_of(count), first, clip)
    lesson = replace(PICTURES, steps=max(1, PICTURES.steps * training.steps // TRAINING.steps))
    picture, before = fit(decoder(), lesson, PictureBatches(library, larger(PICTURE_BATCH, 8)), RUNS / name / "frames",
                          picture_loss)  # fmt: skip
    batches = FilmBatches(library, larger(BATCH, 8), int(SHORT * training.steps))
    model, result = fit(FilmDecoder(picture), training, batches, RUNS / name, old=OLD)
    entries = {"autoencoder": FIRST, "painter": PAINTER, "films": count}
    entries |= {"picture_steps": before.steps, "picture_seconds": round(before.seconds), "batch": batches.batch}
    return Trained.of(model, Sizes(picture.unet.config, picture.config), result, data_seed=SEED, **entries)


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """The first steps of a training of films like the shipped one's, with fewer of them; its log as columns {"step",
    ...}.

    It begins with the painter, without the lesson with frames, and so all weights go at the full rate. Of the probes'
    windows nothing is given. Float32 on any machine, and a constant learning rate after the warm-up, so that the band
    holds for every reader.
    """
    training = replace(TRAINING, steps=steps, seed=seed, warmup=30, cooldown=0.0, ema=0.98, log_every=2,
                       save_every=steps, precision="float32")  # fmt: skip
    clip, first = chapter_04.load()[0].to(device()), load_autoencoder(FIRST).to(device())
    batches = FilmBatches(Library.of(scenes_of(min(SHORT_FILMS, 2 * steps)), first, clip), SHORT_BATCH, steps)
    unseen = scenes_of(PROBED, "test")
    library = Library.of(unseen, first, clip)
    z, seen, stride = library.z[:, 2::16].float(), library.looks[:, 4].float(), 16
    times = torch.linspace(*TIMES, PROBED)[torch.randperm(PROBED, generator=torch.Generator().manual_seed(0))]
    held = {"z": z, "seen": seen, "rate": torch.full((PROBED,), FINE / stride), "t": times}
    held["given"] = torch.zeros(PROBED, WINDOW).bool()

    def film(model: FilmDecoder) -> Tensor:
        start = noise(0, 1, tuple(z.shape[1:])).to(device())
        maker = Filmmaker(model, picture_decoder(first))
        return maker.decode(maker.latents(seen[:1].to(device()), start, FINE / stride, steps=10))[0].clamp(-1, 1)

    truth = world.to_film(world.render(unseen[:1], FINE, SIDE, SIDE))[0, 2::16]
    probes = Watched(FILM, loss, held, steps, swap=("seen",), truth=truth, sample=film)
    with TemporaryDirectory() as temporary:
        model = FilmDecoder(decoder(seed))
        return probes.log(fit(model, training, batches, Path(folder or temporary), probes=probes)[1].log)


def load(name: str = FILM, where: torch.device | str = "cpu") -> Filmmaker:
    """The shipped film decoder behind the first stage's decoder of pictures, verified. Raises CheckpointError."""

    def build(entries: dict) -> FilmDecoder:
        sizes = config_of(Sizes, entries)
        return FilmDecoder(Decoder(UNet(sizes.unet), sizes.decoder))

    model, card = load_model(name, build, "FilmDecoder", ("autoencoder",))
    return Filmmaker(model.to(where), picture_decoder(load_autoencoder(card["autoencoder"]).to(where)))


def load_prior(name: str = PRIOR) -> Prior:
    """The shipped prior, verified. Raises CheckpointError."""
    return load_model(name, lambda sizes: Prior(**sizes), "Prior")[0]


def load_enlarger(name: str = SPACE) -> UNet:
    """The shipped enlarger, verified. Raises CheckpointError."""
    return load_model(name, lambda sizes: UNet(config_of(UNetConfig, sizes)), "UNet")[0]


def looks(texts: Sequence[str], prior: Prior, seed: int = 0) -> Tensor:
    """What pictures of texts look like to CLIP, as the prior guesses it: [texts, embed]. A text names what a picture
    shows (`frames.still` makes one of a film's prompt)."""
    clip = chapter_04.load()[0].to(next(prior.parameters()).device)
    return prior.sample(embedded(texts, clip), torch.Generator().manual_seed(seed))
