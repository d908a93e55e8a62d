"""How chapter 12's models are trained: `soralab train recaptioning`, `recaptioning_expander`, `recaptioning_painter`.

The captioner in the report's three steps: a base on pictures and their alt texts (CoCa's two losses, from chapter 04's
CLIP), and from it, twice, a captioner of its own: short captions, and descriptive ones, which is shipped. The expander
of prompts is a small one of chapter 02's models. The painter is chapter 06's, taught words anew from the captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import world
from soralab.clip import CLIP, PromptEncoder
from soralab.datasets import recaptions, stills
from soralab.datasets.recaptions import Captioned
from soralab.diffusion import diffusion_loss
from soralab.figures import Watched
from soralab.latent_diffusion import PROCESS, LatentDiffusion, Painter
from soralab.recaptioning import (
    CAPTIONING,
    CONTRASTIVE,
    TOKENS,
    Captioner,
    CaptionerConfig,
    CoCa,
    Recaptioner,
    blend,
    caption_loss,
    shifted,
    to_ids,
)
from soralab.recipes import RUNS, Trained
from soralab.recipes import clip as chapter_04
from soralab.recipes.latent_diffusion import BATCH as PAINTER_BATCH
from soralab.recipes.latent_diffusion import FIRST as AUTOENCODER
from soralab.recipes.latent_diffusion import SECOND as PICTURES_PAINTER
from soralab.recipes.latent_diffusion import LatentBatches, encoded
from soralab.training import loop
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, device, larger
from soralab.transformer import Transformer, TransformerConfig, label_smoothing_loss
from soralab.world.language import encode, words

SEED = 12
NAME, SHORT, BASE = "recaptioning", "recaptioning_short", "recaptioning_base"  # the first is shipped
EXPANDER, PAINTER = "recaptioning_expander", "recaptioning_painter"
BATCH, FILM_BATCH = 64, 16
TOWER = 0.3  # the tower's learning rate, in those of the rest: it can see already

# ----------------------------------------------------------------------------------------------------- the captioner

BASE_TRAINING = TrainConfig(
    steps=600, lr=1.5e-3, warmup=100, cooldown=0.3, betas=(0.9, 0.98), ema=0.99, seed=SEED, log_every=20,
    save_every=100, precision="float32",
)  # fmt: skip
SHORT_TRAINING = replace(BASE_TRAINING, steps=400, warmup=50)
TRAINING = replace(BASE_TRAINING, steps=2600, warmup=50, cooldown=0.5, ema=0.995, save_every=250)


def fresh(places: bool = True, clip: CLIP | None = None, **sizes) -> Captioner:
    """A captioner that has not learned a word, with the tower of a CLIP (default: chapter 04's shipped one); `sizes`
    are further fields of its config."""
    clip = clip or chapter_04.load()[0]
    model = Captioner(CaptionerConfig(clip=clip.config, places=places, **sizes))
    state = clip.image.state_dict()
    model.tower.load_state_dict({name: state[name] for name in model.tower.state_dict()})
    return model


def groups(model: nn.Module) -> list[dict]:
    """All parameters; the tower's, and all of CLIP's, learn more slowly."""
    rest, seeing = [], []
    for name, p in model.named_parameters():
        (seeing if "tower." in name or "clip." in name else rest).append(p)
    return [{"params": rest}, {"params": seeing, "scale": TOWER}] if seeing else [{"params": rest}]


def joint_loss(model: CoCa, batch: dict[str, Tensor], generator: torch.Generator):
    """CoCa's, and its two parts for the log."""
    model.clip.clip_scale()
    con, cap = model(batch["film"], batch["target"], batch["ids"])
    return CONTRASTIVE * con + CAPTIONING * cap, {"contrastive": con.detach(), "captioning": cap.detach()}


def loss(model: Captioner, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Minus Eq. (2), a word."""
    return caption_loss(model, batch["film"], batch["target"])


def fit(
    model: nn.Module, loss_fn: Callable, training: TrainConfig, batches: Callable, folder: Path,
    probes: Probes | None = None,
) -> TrainResult:
    """Train a model, or go on with it, and give it its averaged weights."""
    result = loop.train(model, loss_fn, batches, training, folder, parameters=groups(model), probes=probes)
    result.ema.copy_to(model)
    model.eval()
    return result


def base(training: TrainConfig = BASE_TRAINING, folder: Path = RUNS / BASE) -> tuple[Captioner, TrainResult]:
    """The base captioner: it writes as the web does."""
    torch.manual_seed(training.seed)
    clip, tokenizer = chapter_04.load()
    model = CoCa(fresh(), clip)
    read = partial(tokenizer, context=clip.config.context, cut=True)
    batches = Captioned(recaptions.web, to_ids, larger(BATCH, 4), SEED, read=read)
    result = fit(model, joint_loss, training, batches, folder)
    return model.captioner, result


def tuned(
    start: Captioner, say: Callable, training: TrainConfig, folder: Path, films: Callable | None = None,
    count: int | None = None,
) -> tuple[Captioner, TrainResult]:
    """A captioner, tuned to what `say` says of pictures, and `films` of films; count: of so many pictures alone."""
    batches = Captioned(say, to_ids, larger(BATCH, 4), SEED, films, larger(FILM_BATCH, 4), count)
    model = Captioner(start.config)
    model.load_state_dict(start.state_dict())
    return model, fit(model, loss, training, batches, folder)


def steps_of(training: TrainConfig, steps: int | None = None) -> TrainConfig:
    """A training at the profile's length, or of so many steps."""
    return replace(training, steps=steps or by_profile(smoke=2, laptop=training.steps, gpu=training.steps))


# --------------------------------------------------------------------------------------------- the expander of prompts

EXPANDER_CONFIG = TransformerConfig.small(len(TOKENS), N=2, d_model=64, d_ff=256, d_k=16, d_v=16, P_drop=0.0)
EXPANDER_TRAINING = replace(BASE_TRAINING, steps=1600, lr=3e-3, cooldown=0.5, ema=0.995, save_every=200)


class Prompts:
    """Batches of hurried prompts and what they are in full: {"source", "target"} [batch, words]."""

    def __init__(self, batch: int = BATCH, seed: int = SEED):
        self.batch, self.seed = batch, seed

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`."""
        rng = Random(f"prompts/{self.seed}/{step}")
        scenes = [stills.mixed(self.seed, step * self.batch + k) for k in range(self.batch)]
        prompts = [recaptions.shortened(scene, rng) for scene in scenes]
        return {"source": to_ids(prompts, end=False), "target": to_ids([recaptions.descriptive(s) for s in scenes])}


def expander_loss(model: Transformer, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Minus log P of a word. No label smoothing: what is open is drawn by these chances."""
    target = batch["target"]
    return label_smoothing_loss(model(batch["source"], shifted(target)), target, epsilon=0.0)


def expander(training: TrainConfig, folder: Path) -> tuple[Transformer, TrainResult]:
    """The expander of prompts."""
    torch.manual_seed(training.seed)
    model = Transformer(EXPANDER_CONFIG)
    return model, fit(model, expander_loss, training, Prompts(larger(BATCH, 4)), folder)


# ------------------------------------------------------------------------------------------------------- the painter

PICTURES, RATIO, NULL = 12_000, 0.95, 0.1
PAINTER_TRAINING = TrainConfig(
    steps=4500, lr=1.5e-3, warmup=50, cooldown=0.4, ema=0.99, seed=SEED, log_every=25, save_every=100
)


def library(count: int) -> tuple[list[world.Scene], Tensor]:
    """The first `count` pictures of a painter's training, every second one of two things: scenes, and pictures."""
    scenes = [stills.sample(SEED, k, "train", 1 + k % 2) for k in range(count)]
    return scenes, stills.pictures(scenes)


def web_texts(scenes: Sequence[world.Scene]) -> list[str]:
    """What stands beside each picture of a library."""
    return [recaptions.web_text(SEED, k, scene) for k, scene in enumerate(scenes)]


def forgetful(painter: Painter) -> LatentDiffusion:
    """A painter's model that has forgotten what words mean: its encoder of prompts is drawn anew."""
    config = painter.model.config
    model = LatentDiffusion(config)
    model.load_state_dict(painter.model.state_dict())
    model.text = PromptEncoder(config.vocabulary, config.unet.context, config.words, config.depth)
    return model.to(next(painter.model.parameters()).device)


def painter_loss(model: LatentDiffusion, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Chapter 06's error of the noise, weighed as that of v: what stands where is decided where the noise is heavy."""
    condition = {"ids": batch["ids"]}
    return diffusion_loss(PROCESS, model, batch["z"], "eps", space="v", generator=generator, condition=condition).mean()


def prompt_ids(texts: Sequence[str], length: int) -> Tensor:
    """Prompts to ids [texts, length] as `soralab.latent_diffusion.word_ids` has them, alt texts' words too.

    A caption that is longer loses its end, as it would unseen in many a pipeline; `too_long` counts them.
    """
    cut = [" ".join(words(text)[:length]) for text in texts]
    return torch.tensor([encode(text, length) if text else [0] * length for text in cut])


def too_long(texts: Sequence[str], length: int) -> int:
    """How many texts lose words to a painter that reads `length`."""
    return sum(len(words(text)) > length for text in texts)


def named(truth: Sequence[str], synthetic: Sequence[str], ratio: float, length: int, seed: int) -> Callable:
    """What a picture is called in a batch: nothing, by the chance NULL, or the blend of its two texts."""
    ids = [prompt_ids(texts, length) for texts in (["", *truth], ["", *synthetic])]

    def prompt(k: int, rng: Random) -> Tensor:
        lots = Random(f"{seed}/{rng.random()}")
        if lots.random() < NULL:
            return ids[0][0]
        which = blend("truth", "synthetic", ratio, lots)
        return ids[which == "synthetic"][k + 1]

    return prompt


def fit_painter(
    model: LatentDiffusion, training: TrainConfig, batches: Callable, folder: Path, loss_fn: Callable = painter_loss
) -> TrainResult:
    """Train a painter, or go on with it, and give it its averaged weights."""
    result = loop.train(model, loss_fn, batches, training, folder)
    result.ema.copy_to(model)
    model.eval()
    return result


def painter(training: TrainConfig, folder: Path, pictures: int = PICTURES) -> tuple[LatentDiffusion, TrainResult, int]:
    """Chapter 06's painter, taught words anew by the shipped captioner's descriptions, blended at RATIO.

    Also the result, and how many captions were cut.
    """
    start = Painter.load(PICTURES_PAINTER, device())
    scenes, shown = library(pictures)
    written = Recaptioner.load(NAME, device())(shown)
    torch.manual_seed(training.seed)
    model = forgetful(start).cpu()  # as every recipe's; the loop takes it to the device and back
    prompt = named(web_texts(scenes), written, RATIO, model.config.words, SEED)
    batches = LatentBatches(encoded(start.autoencoder, shown), prompt, batch=larger(PAINTER_BATCH, 8))
    return model, fit_painter(model, training, batches, folder), too_long(written, model.config.words)


# ---------------------------------------------------------------------------------------------------------------- train

SHORT_STEPS, SHORT_BATCH, PROBED = 200, 32, 128


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """A captioner that learns to describe, from chapter 04's tower at once; its log as columns {"step", "loss", ...}.

    Half the batch and pictures alone; float32 on any machine, and a constant learning rate after the warm-up, so that
    the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, ema=0.98, log_every=2, save_every=steps
    )
    unseen = [stills.mixed(SEED, k, "test") for k in range(PROBED)]
    texts, shown = [recaptions.descriptive(scene) for scene in unseen], recaptions.pictures(unseen)
    probes = Watched(NAME, loss, {"film": shown, "target": to_ids(texts)}, steps, swap=("target",), truth=texts[1:3],
                     sample=lambda model: Recaptioner(model)(shown[1:3]))  # fmt: skip
    torch.manual_seed(seed)
    model, batches = fresh(), Captioned(recaptions.descriptive, to_ids, SHORT_BATCH, seed)
    with TemporaryDirectory() as temporary:
        return probes.log(fit(model, loss, training, batches, Path(folder or temporary), probes).log)


def train(name: str = NAME, steps: int | None = None) -> Trained:
    """Train one of the three, or go on with it, in runs/NAME; the captioner's base lies in runs/recaptioning_base.

    The painter needs the captioner's checkpoint and chapter 06's.
    """
    if name == EXPANDER:
        model, result = expander(steps_of(EXPANDER_TRAINING, steps), RUNS / name)
        return Trained.of(model, model.config, result, tokens=TOKENS, data_seed=SEED, batch=larger(BATCH, 4))
    if name == PAINTER:
        count = by_profile(smoke=20, laptop=PICTURES, gpu=4 * PICTURES)
        model, result, cut = painter(steps_of(PAINTER_TRAINING, steps), RUNS / name, count)
        entries = {"autoencoder": AUTOENCODER, "captioner": NAME, "painter": PICTURES_PAINTER, "pictures": count,
                   "captions cut": cut}  # fmt: skip
        return Trained.of(model, model.config, result, data_seed=SEED, batch=larger(PAINTER_BATCH, 8), **entries)
    start, first = base(steps_of(BASE_TRAINING))
    model, result = tuned(start, recaptions.descriptive, steps_of(TRAINING, steps), RUNS / name,
                          recaptions.described_film)  # fmt: skip
    entries = {"base": {"steps": first.steps, "seconds": round(first.seconds)}, "batch": larger(BATCH, 4)}
    return Trained.of(model, model.config, result, tokens=TOKENS, data_seed=SEED, **entries)
