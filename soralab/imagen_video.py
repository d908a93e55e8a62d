"""Imagen Video: a small film from a text, then more frames, then larger ones, each by a diffusion model of its own.

Paper: Ho et al. 2022, "Imagen Video: High Definition Video Generation with Diffusion Models" (2210.02303). Section 2.1
is diffusion in continuous time (`soralab.diffusion.Cosine`); 2.2, 2.3 the cascade and its networks; 2.4 v-prediction;
2.5 noise on what is enlarged; 2.6 pictures too, guidance and thresholds; 2.7 progressive distillation and samplers:

    base film --TSR--> more frames --SSR--> larger frames            each stage trained alone, on true inputs
    z_t = alpha_t x + sigma_t eps,      v = alpha_t eps - sigma_t x,      x^ = alpha_t z_t - sigma_t v
    low~ = alpha_s low + sigma_s eps,   s drawn in training, told to the network, fixed in sampling
    x~ = clip(x^, -q, q) / q,           q the larger of 1 and a high quantile of |x^|   (dynamic thresholding)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.blocks import TimestepEmbedding
from soralab.blocks.convolution import ResBlock
from soralab.blocks.temporal import Hint, TemporalConv, TemporalTransformer
from soralab.clip import PromptEncoder
from soralab.diffusion import Cosine, Process, ddim, diffusion_loss, guide, sample_times, time_grid
from soralab.diffusion.process import noise_like
from soralab.latent_diffusion import UNet, UNetConfig, check_scale, noise, word_ids

PROCESS = Cosine(s=0.0)
LEAST = 0.1  # of sigma, by which x^ is made v
PAPER = (  # what each of the seven makes: (frames, width, height, frames a second), and its parameters
    ((16, 40, 24, 3), 5.6e9), ((32, 40, 24, 6), 1.7e9), ((32, 80, 48, 6), 1.4e9), ((32, 320, 192, 6), 1.2e9),
    ((64, 320, 192, 12), 0.78e9), ((128, 320, 192, 24), 0.63e9), ((128, 1280, 768, 24), 0.34e9),
)  # fmt: skip

# ------------------------------------------------------------------------------------------ one stage, section 2.3


@dataclass(frozen=True)
class StageConfig:
    """One network of the cascade: with attention over time for the base, convolutions over time for all."""

    unet: UNetConfig = UNetConfig()
    enlarges: bool = False  # sees a smaller film, laid over the noisy one
    clean: bool = False  # the U-Net gives x^, and v follows: where the noise of a place would not fit through it
    vocabulary: int = 256
    words: int = 48
    depth: int = 2  # layers of the prompt's encoder

    @classmethod
    def enlarging(cls, unet: UNetConfig, **changes) -> StageConfig:
        """A network that sees a smaller film; its U-Net takes twice the channels that it gives."""
        return cls(unet, enlarges=True, **changes)


class Stage(nn.Module):
    """A U-Net of films: layers of space see each frame alone, layers of time each place alone, and these start at zero.
    With the time it is told the prompt's mean. The base decides how things move, and gets hints of that."""

    def __init__(self, config: StageConfig = StageConfig()):
        super().__init__()
        self.config, c = config, config.unet
        if c.channels != c.out * (1 + config.enlarges):
            raise ValueError(f"unet takes {c.channels} channels; with enlarges={config.enlarges} it takes "
                             f"{c.out * (1 + config.enlarges)}")  # fmt: skip
        self.text = PromptEncoder(config.vocabulary, c.context, config.words, config.depth)
        # As CLIP draws them, words are so small that "left" and "right" of one thing soon read as the same.
        nn.init.normal_(self.text.token_embedding.weight)
        self.unet = UNet(c)
        self.over_time, self.hints = nn.ModuleDict(), nn.ModuleDict()
        for name, layer, dim, _ in self.unet.layers():
            if isinstance(layer, ResBlock):
                self.over_time[name] = TemporalConv(dim, 4 * c.width, c.groups)
            elif not config.enlarges:
                self.over_time[name] = TemporalTransformer(dim, c.heads, c.context)
                self.hints[name] = Hint(dim, c.context)
        self.level = TimestepEmbedding(4 * c.width, frequencies=c.width) if config.enlarges else None
        self.whole = nn.Linear(c.context, 4 * c.width)

    def forward(
        self, z: Tensor, t: Tensor, ids: Tensor, low: Tensor | None = None, level: Tensor | None = None,
        alone: Tensor | None = None, moments: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict v from z [batch, frames, c, height, width] at times t [batch], for prompts ids [batch, words].

        low, of z's shape, is the smaller film at this size, and level [batch] how noisy it was made: both or neither.
        alone [batch]: True where the frames are pictures that have nothing to do with each other; layers of time leave
        them as they are (section 2.6). moments [frames]: when each frame is, by default 0, 1, 2, ... Raises ValueError
        for what does not fit."""
        given = None if low is None else list(low.shape)
        if z.ndim != 5 or (given, level is None) != ((list(z.shape), False) if self.level else (None, True)):
            want = "low of z's shape and a level" if self.level else "neither low nor level"
            raise ValueError(f"z, low: got {list(z.shape)}, {given}; takes [batch, frames, c, height, width], {want}")
        for name, x in {"t": t, "ids": ids, "level": level, "alone": alone, "moments": moments}.items():
            rows = z.shape[1 if name == "moments" else 0]
            if x is not None and x.shape[:1] != (rows,):
                raise ValueError(f"{name} is {list(x.shape)}; with z {list(z.shape)} it takes {rows} in a row")
        frames, (words, mask, _) = z.shape[1], self.text(ids)
        mean = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        told = self.whole(mean) if level is None else self.whole(mean) + self.level(level)
        time = self.unet.time(t) + told
        moments = torch.arange(frames, device=z.device) if moments is None else moments
        layers = {layer: name for name, layer, *_ in self.unet.layers() if name in self.over_time}

        def after(layer: nn.Module, x: Tensor) -> Tensor:
            if (name := layers.get(layer)) is None:
                return x
            h = x if name not in self.hints else x + self.hints[name](mean, moments, x.shape[2:])
            h = h.unflatten(0, z.shape[:2]).flatten(3).transpose(1, 2)  # [batch, dim, frames, places]
            h = self.over_time[name](h, *((time,) if isinstance(layer, ResBlock) else (moments, words, mask)))
            h = h.transpose(1, 2).reshape(x.shape)
            return h if alone is None else torch.where(alone.repeat_interleave(frames)[:, None, None, None], x, h)

        each = [*(x.repeat_interleave(frames, 0) for x in (t, words, mask)), low if low is None else low.flatten(0, 1)]
        x = self.unet(z.flatten(0, 1), *each, after, told.repeat_interleave(frames, 0)).unflatten(0, z.shape[:2])
        if not self.config.clean:
            return x
        alpha, sigma = (of(t).reshape(-1, 1, 1, 1, 1) for of in (PROCESS.alpha, PROCESS.sigma))
        return (alpha * z - x) / sigma.clamp(min=LEAST)


# ----------------------------------------------------------------------- what an enlarging stage sees, section 2.5


def more_frames(low: Tensor, frames: int) -> Tensor:
    """A film [batch, n, ...] as one of `frames` frames, each the last of low's frames that there was by then.

    The first and the last frame are low's own. Raises ValueError for fewer frames than there are."""
    if frames < low.shape[1]:
        raise ValueError(f"frames is {frames}; it takes as many as low has, {low.shape[1]}, or more")
    return low[:, torch.arange(frames, device=low.device) * (low.shape[1] - 1) // max(frames - 1, 1)]


def larger_frames(low: Tensor, size: tuple[int, int]) -> Tensor:
    """A film [batch, frames, c, h, w] with frames of size (height, width), bilinearly."""
    frames = F.interpolate(low.flatten(0, 1), size, mode="bilinear", antialias=False)
    return frames.unflatten(0, low.shape[:2])


def fold(film: Tensor, side: int) -> Tensor:
    """Squares of side x side pixels as a place: [batch, frames, c, h, w] to [batch, frames, c side^2, h/side, w/side].

    A network of few places is a quick one. Raises ValueError for frames that cannot be cut so."""
    if film.shape[-2] % side or film.shape[-1] % side:
        raise ValueError(f"frames are {list(film.shape[-2:])}; with side {side} it takes multiples of {side}")
    return F.pixel_unshuffle(film, side)


def unfold(z: Tensor, side: int) -> Tensor:
    """What `fold` was given."""
    return F.pixel_shuffle(z, side)


def augmented(low: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """low [batch, frames, c, height, width] with noise of level s [batch], a time of `PROCESS` (section 2.5).

    What the stage before it makes is never quite a true film. Trained on noisy ones, and told how noisy they are, this
    stage does not trust small details of its input, true or not."""
    return PROCESS.add_noise(low, noise_like(low, generator), level)


def stage_loss(
    model: Stage, x: Tensor, ids: Tensor, generator: torch.Generator, low: Tensor | None = None,
    most: float = 0.6, t: Tensor | None = None, **told,
) -> Tensor:  # fmt: skip
    """Squared error of v for each film x [batch, frames, c, height, width]: [batch].

    low, of x's shape: the true smaller film, which gets noise of a level drawn from 0 to `most`. t [batch]: times of
    the noise, drawn evenly if None. told: as in `Stage`."""
    condition = {"ids": ids, **told}
    if low is not None:
        level = most * torch.rand(len(x), generator=generator, device=generator.device).to(x)
        condition |= {"low": augmented(low, level, generator), "level": level}
    return diffusion_loss(PROCESS, model, x, "v", t=t, generator=generator, condition=condition)


# --------------------------------------------------------------------------------- guidance and sampling, section 2.6


def dynamic_threshold(x: Tensor, share: float = 0.995) -> Tensor:
    """x_0 [batch, ...] brought into [-1, 1], each example by its own measure: clipped at q and divided by it.

    q is what `share` of an example's absolute values lie below, 1 at the least. Clipping at 1 alone would leave a film
    whose guidance is strong in full black and full white."""
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it takes a number above 0, up to 1")
    q = x.flatten(1).abs().float().quantile(share, dim=1).clamp(min=1).to(x)
    q = q.reshape(-1, *[1] * (x.ndim - 1))
    return x.clamp(-q, q) / q


def oscillating(steps: int, high: float = 15.0, low: float = 1.0, constant: int = 0) -> list[float]:
    """A scale of guidance for each step: high for the first `constant` steps, then high and low by turns.

    High scales follow the text, low ones let the film come back to what films look like."""
    if not 0 <= constant <= steps:
        raise ValueError(f"constant is {constant}; it takes 0 to steps, which is {steps}")
    return [high if k < constant or (k - constant) % 2 == 0 else low for k in range(steps)]


@torch.no_grad()
def film_stage(
    model: Callable, noise: Tensor, ids: Tensor, scales: Sequence[float], low: Tensor | None = None,
    level: float = 0.0, threshold: Callable | None = None, generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """A stage's film from noise [batch, frames, c, height, width], by as many DDIM steps as there are scales.

    low, of that shape, is made as noisy as `level` says by `generator`. threshold: for x_0, as `dynamic_threshold`."""
    told = {}
    if low is not None:
        levels = torch.full((len(noise),), float(level)).to(noise)
        told = {"low": augmented(low, levels, generator), "level": levels}
    left = iter(scales)

    def denoise(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        network = guide(model, {"ids": ids, **told}, {"ids": ids * 0, **told}, next(left))
        return PROCESS.denoiser(network, "v", threshold)(x, t)

    return ddim(denoise, noise, PROCESS, len(scales))


# ------------------------------------------------------------------------------- progressive distillation, section 2.7


def guided_loss(student: Stage, teacher: Callable, x: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    """First stage of distillation: the student answers at once what a guided teacher answers in two calls: [batch].

    teacher: network(z_t, t), guided (soralab.diffusion.guide), v in and out. x [batch, frames, c, height, width]."""
    t = sample_times(len(x), generator, device=x.device)
    z = PROCESS.add_noise(x, noise_like(x, generator), t)
    with torch.no_grad():
        target = teacher(z, t)
    return (student(z, t, ids) - target).square().flatten(1).mean(1)


@torch.no_grad()
def two_steps(teacher: Callable, z: Tensor, t: Tensor, steps: int, process: Process = PROCESS) -> Tensor:
    """x_0 [batch, ...] that takes z at times t in one DDIM step of 1 / steps to where two of the teacher's half steps
    take it (Salimans & Ho 2202.00512, algorithm 2). teacher: network(z, t), v. Times are whole multiples of 1 / steps.
    """
    there, middle, end = z, (t - 0.5 / steps).clamp(min=0), (t - 1 / steps).clamp(min=0)
    for now, then in ((t, middle), (middle, end)):
        there = process.add_noise(*process.to_x0_eps(teacher(there, now), there, now, "v"), then)
    ratio = process.sigma(end) / process.sigma(t)
    share = process.alpha(end) - ratio * process.alpha(t)
    ratio, share = (of.reshape(-1, *[1] * (z.ndim - 1)) for of in (ratio, share))
    return (there - ratio * z) / share


def halving_loss(
    student: Stage, teacher: Callable, x: Tensor, ids: Tensor, steps: int, generator: torch.Generator
) -> Tensor:
    """Second stage: a student of `steps` steps learns from a teacher of twice as many: [batch], squared error of v."""
    number = torch.randint(1, steps + 1, (len(x),), generator=generator, device=generator.device).to(x.device)
    t = number.to(x.dtype) / steps
    z = PROCESS.add_noise(x, noise_like(x, generator), t)
    x0 = two_steps(teacher, z, t, steps)
    _, eps = PROCESS.to_x0_eps(x0, z, t, "x")
    target = PROCESS.target(x0, eps, t, "v")
    return (student(z, t, ids) - target).square().flatten(1).mean(1)


@torch.no_grad()
def stochastic(
    denoise: Callable, x: Tensor, steps: int, generator: torch.Generator, process: Process = PROCESS
) -> Tensor:
    """The sampler for distilled models: a DDIM step of twice the length, then noise that takes it back by half.

    From x [batch, ...] at t = 1 to 0. The last two steps are one, without noise after it."""
    times = time_grid(steps).tolist()
    for k in range(steps):
        t, s, far = times[k], times[k + 1], times[min(k + 2, steps)]
        x0, eps = denoise(x, t)
        x = float(process.alpha(far)) * x0 + float(process.sigma(far)) * eps
        if far == 0:
            return x
        ratio = float(process.alpha(s) / process.alpha(far))
        fresh = float(process.sigma(s)) ** 2 - (ratio * float(process.sigma(far))) ** 2
        x = ratio * x + max(fresh, 0.0) ** 0.5 * noise_like(x, generator)
    return x


# ------------------------------------------------------------------------------------------------ prompt to film


@dataclass
class Cascade:
    """Everything between a prompt and a film: a base, a stage for more frames, one for larger ones (section 2.2).

    Films [prompts, frames, 3, height, width] lie in [-1, 1]. Film k starts from the noise of seed + k; `seed` draws
    what augments the input of a stage. student: the steps of the base, if it is distilled: it needs no guidance."""

    base: Stage
    time: Stage | None = None
    space: Stage | None = None
    student: int | None = None
    frames: tuple[int, int] = (5, 9)  # before and after `more`
    sides: tuple[int, int] = (8, 32)  # pixels on a side, before and after `larger`
    folds: tuple[int, int, int] = (2, 2, 4)  # of base, time and space

    def small(
        self, prompts: Sequence[str], seed: int = 0, steps: int = 32, guidance: float | Sequence[float] = 2.0
    ) -> Tensor:  # fmt: skip
        """The base's film of each prompt. guidance: one scale, or one for each step (`oscillating`)."""
        steps, guidance = (self.student, 1.0) if self.student else (steps, guidance)
        scales = [guidance] * steps if isinstance(guidance, int | float) else list(guidance)
        return self._film(0, prompts, seed, scales, self.frames[0], self.sides[0])

    def more(
        self, low: Tensor, prompts: Sequence[str], seed: int = 0, steps: int = 8, level: float = 0.1,
        guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """The base's film with more frames. level: of the noise on it (`augmented`)."""
        low = more_frames(low, self.frames[1])
        return self._film(1, prompts, seed, [guidance] * steps, self.frames[1], self.sides[0], low, level)

    def larger(
        self, low: Tensor, prompts: Sequence[str], seed: int = 0, steps: int = 8, level: float = 0.1,
        guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """A film of small frames with larger ones. level: of the noise on it (`augmented`)."""
        low = larger_frames(low, (self.sides[1], self.sides[1]))
        return self._film(2, prompts, seed, [guidance] * steps, low.shape[1], self.sides[1], low, level)

    def film(self, prompts: Sequence[str], seed: int = 0, **options) -> Tensor:
        """All three, one after the other. options: of `small`; the others work by their defaults."""
        for stage in (1, 2):
            self.stage(stage)  # before the first has worked for nothing
        return self.larger(self.more(self.small(prompts, seed, **options), prompts, seed), prompts, seed)

    def stage(self, number: int) -> Stage:
        """Stage 0, 1 or 2. Raises ValueError, with its name, for one that this cascade has not."""
        name = ("base", "time", "space")[number]
        if (found := getattr(self, name)) is None:
            raise ValueError(f"{name} is missing; this takes a cascade with that stage")
        return found

    def _film(
        self, stage: int, prompts: Sequence[str], seed: int, scales: list[float], frames: int, side: int,
        low: Tensor | None = None, level: float = 0.0,
    ) -> Tensor:  # fmt: skip
        model, by, scales = self.stage(stage), self.folds[stage], [check_scale(scale) for scale in scales]
        where = next(model.parameters()).device
        ids = word_ids(prompts, model.config.words).to(where)
        seed = seed + stage * 10**6  # each stage's noise is its own, and so is that which augments
        z = noise(seed, len(prompts), (frames, 3 * by**2, side // by, side // by)).to(where)
        low = None if low is None else fold(low.to(where), by)
        draws = torch.Generator().manual_seed(seed + 10**9)
        return unfold(film_stage(model, z, ids, scales, low, level, dynamic_threshold, draws), by)
