"""How chapter 16's diffusion transformer is trained: `soralab train sora`, and `soralab train sora_pixels` beside it.

Both learn the same captions of the same world (`simple`: one thing, a plain background). `sora` films in the latents of
the spacetime autoencoder; `sora_pixels`, the baseline, has the same transformer and films in pixels. It predicts the
clean film with the loss in velocity space, because noise does not fit through its width (64 pixels x 3 colours = 192).
From a share of its steps on (`--steps` moves it) half of what `sora` sees is hard: shapes with corners that spin.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import latent_diffusion, world
from soralab.datasets.film_shards import FilmShards
from soralab.diffusion import RectifiedFlow, diffusion_loss, sample_times
from soralab.figures import Watched
from soralab.files.checkpoints import load_checkpoint, read_card, save_checkpoint
from soralab.recipes import RUNS, Trained
from soralab.recipes.stream import captioned, entry
from soralab.sora import Filmmaker, Sora, SoraConfig, SpacetimeAutoencoder, load_autoencoder, word_ids
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.muon import muon_groups
from soralab.training.profiles import by_profile, compiled, device, larger
from soralab.training.progress import progress
from soralab.training.state import weights_hash
from soralab.world.language import descriptive_caption, short_caption
from soralab.world.scene import WALL

SEED, LEVEL, FRAMES, SIDE = 16, "simple", 9, 32
BATCH = 64
FILMS = 288_000  # of the world's; those that are `used` are encoded once, for the model that films in latents
EVERY = {"orbits": 1, "spins": 1, WALL: 3}  # one film in so many is used, and of all other motions one in REST
REST = 9  # what turns is learnt last, so half of the films are to turn, not one in seven
HARD = {"square": 1, "triangle": 2, "cross": 2}  # what spins and is learnt last of all: one film in so many is used
LATE = 0.62  # of the steps; from there on half of a batch is hard
PART = 5000  # films that are encoded between two saves, a minute or two on one core
NULL = 0.1  # share of prompts left out, for classifier-free guidance
PROCESS = RectifiedFlow()


@dataclass(frozen=True)
class Recipe:
    """One of the two models: its sizes, what it predicts, how its times are drawn, and its training."""

    name: str
    config: SoraConfig
    kind: str  # what it predicts: "v" or "x"
    shift: float  # of the training and sampling times: where a thing goes is settled early, under much noise
    training: TrainConfig

    @property
    def autoencoder(self) -> str | None:
        """The checkpoint that it films through."""
        return "sora_autoencoder" if self.kind == "v" else None

    def large(self) -> Recipe:
        """The same recipe at DiT-S's sizes, for the gpu profile."""
        return replace(self, config=self.config.sized("S"))


TRAINING = TrainConfig(steps=26_000, lr=4e-3, warmup=200, cooldown=0.3, ema=0.999, seed=SEED, log_every=50)
RECIPES = {
    "sora": Recipe("sora", SoraConfig(rotary=True), "v", 2.0, TRAINING),
    "sora_pixels": Recipe(
        "sora_pixels", SoraConfig.pixels(rotary=True), "x", 2.0, replace(TRAINING, steps=9300, lr=3e-3)
    ),
}


def build(recipe: Recipe) -> Sora:
    """The transformer of the recipe, its weights drawn from the recipe's seed."""
    torch.manual_seed(SEED)
    return Sora(recipe.config)


def parameters(model: Sora) -> list[dict]:
    """The blocks' matrices train with Muon; embeddings, modulations, biases and norms with AdamW, more slowly."""
    return muon_groups(model, inside="blocks", outside=("modulation",), scale=0.2)


def wordings(scene: world.Scene) -> list[str]:
    """What a training film may be called: "", its descriptive caption, its short one, that without its size."""
    caption = short_caption(scene)
    return ["", descriptive_caption(scene), caption, " ".join(w for w in caption.split() if w not in world.SIZES)]


def wording(rng: Random, null: float = NULL) -> int:
    """Which of the wordings a film has in a batch; `null` is the share of "", from 0 to NULL."""
    draw = NULL - null + rng.random() * (1 - NULL + null)
    return sum(draw >= end for end in (NULL, 0.4, 0.85))


def prompt(scene: world.Scene, rng: Random, null: float = NULL) -> str:
    """What a training film is called: one of its wordings."""
    return wordings(scene)[wording(rng, null)]


def used(indices: Iterable[int], split: str = "train") -> Iterator[world.Scene]:
    """The scenes of the library that training uses, of these indices: all that turn, few of what is learnt soon."""
    for index in indices:
        scene = world.sample_scene(SEED, index, LEVEL, split)
        if index % EVERY.get(scene.objects[0].motion, REST) == 0:
            yield scene


def hard(indices: Iterable[int]) -> Iterator[world.Scene]:
    """The scenes of the library, of these indices, that spin and are of one of the HARD shapes."""
    for index in indices:
        thing = (scene := world.sample_scene(SEED, index, LEVEL)).objects[0]
        if thing.motion == "spins" and thing.shape in HARD and index % HARD[thing.shape] == 0:
            yield scene


def pixel_batch(step: int) -> dict[str, Tensor]:
    """Batch `step` of films themselves: {"x0": [batch, 9, 3, 32, 32], "ids": [batch, words]}."""
    rng, size = Random(f"{SEED}/{step}"), batch_size()
    scenes = list(islice(used(count(step * REST * size)), size))  # films of its own: a batch needs half of its range
    films = films_of(scenes)
    return as_batch(films, [prompt(scene, rng) for scene in scenes])


class LatentBatches:
    """Batches of latents: what is `used` of the library's first films, encoded once, in a new order each epoch.

    The latents and the words of all wordings stay where the autoencoder is, and batches are gathered there: for a step
    the host draws numbers and sends indices.
    Or, if `hard_ones`, what is `hard` of the next films, twice as many; none of these loses its prompt.
    """

    def __init__(
        self, autoencoder: SpacetimeAutoencoder, films: int, cache: Path | None = None, hard_ones: bool = False,
        steps: range | None = None, batch: int | None = None,
    ):  # fmt: skip
        """Encode what is used of so many films, in parts that are kept as the checkpoints `cache`_0, _1, ...

        A part that is there and of the same films is taken. steps: the batches that will be asked for, by default
        any; where they need less than half of the films, only these are encoded, and nothing is kept.
        """
        self.scenes = list(hard(range(films, 3 * films)) if hard_ones else used(range(films)))
        self.null, self.batch = 0.0 if hard_ones else NULL, batch or batch_size()
        every = HARD if hard_ones else {**EVERY, "rest": REST}
        want = {"films": films, "every": every, "autoencoder": weights_hash(autoencoder)}
        self.rows = torch.arange(len(self.scenes))  # of each scene in `latents`
        if steps is not None and 2 * self.batch * len(steps) < len(self.scenes):
            needed = sorted({scene for step in steps for scene in self._which(step)})
            self.rows[needed] = torch.arange(len(needed))
            self.latents = self._encode(autoencoder, [self.scenes[scene] for scene in needed])
        else:
            needed = range(len(self.scenes))
            starts = range(0, len(self.scenes), PART)
            self.latents = torch.cat([self._part(autoencoder, start, cache, want) for start in starts])
        parts = [word_table(self.scenes[scene]) for scene in progress(needed, desc="reading captions", unit="film")]
        table = torch.stack(parts) if parts else torch.zeros(0, 4, SoraConfig.words, dtype=torch.int16)
        self.ids, self.lengths = table.to(self.latents.device), (table > 0).sum(-1)  # [row, wording, words], on the CPU

    def _part(self, autoencoder: SpacetimeAutoencoder, start: int, cache: Path | None, want: dict) -> Tensor:
        """Latents of the scenes from `start` on, PART of them, from their checkpoint or encoded and kept there."""
        path, want = cache and cache.with_name(f"{cache.name}_{start // PART}"), {**want, "part": [start, PART]}
        mend = f"remove {path}.json, and its films are encoded again"
        if path and path.with_suffix(".json").exists() and read_card(path, mend).get("of") == want:
            return beside(autoencoder, load_checkpoint(path, mend=mend)[0]["latents"])
        try:
            latents = self._encode(autoencoder, self.scenes[start : start + PART])
            if path:
                save_checkpoint(path, {"latents": latents}, {"of": want})
        except KeyboardInterrupt:
            kept = f"kept in {path.parent}: run the same again to go on" if path else "not kept"
            print(f"stopped with {start:,} of {len(self.scenes):,} films encoded, {kept}", file=sys.stderr)
            raise
        return latents

    @staticmethod
    def _encode(autoencoder: SpacetimeAutoencoder, scenes: list[world.Scene]) -> Tensor:
        parts = progress(range(0, len(scenes), 100), desc="encoding films", unit="batch")
        return torch.cat([encode(autoencoder, films_of(scenes[start : start + 100])) for start in parts])

    def films(self, step: int, count: int | None = None) -> tuple[Tensor, Tensor, int]:
        """The first `count` (by default all) of batch `step`: latents [count, 5, 8, 8, 8], word ids [count, words], and
        how many words the longest prompt has."""
        rng = Random(f"{SEED}/{step}")
        rows = self.rows[self._which(step)[:count]]
        said = torch.tensor([wording(rng, self.null) for _ in rows])
        there = self.latents.device
        mine, as_said = rows.to(there, non_blocking=True), said.to(there, non_blocking=True)
        return self.latents[mine].float(), self.ids[mine, as_said].long(), int(self.lengths[rows, said].max())

    def _which(self, step: int) -> list[int]:
        """The scenes of batch `step`."""
        films = len(self.scenes)
        epoch, place = divmod(step * self.batch, max(1, films // self.batch) * self.batch)
        places = torch.arange(place, place + self.batch) % films  # a smoke run has less than a batch
        return epoch_order(films, SEED + epoch)[places].tolist()

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"x0": [batch, 5, 8, 8, 8], "ids": [batch, words]}."""
        x0, ids, longest = self.films(step)
        return {"x0": x0, "ids": ids[:, : max(longest, 1)]}


def films_of(scenes: list[world.Scene]) -> Tensor:
    """Their films [scenes, 9, 3, 32, 32]."""
    return world.to_film(world.render(scenes, FRAMES, SIDE, SIDE))


def encode(autoencoder: SpacetimeAutoencoder, films: Tensor) -> Tensor:
    """Latents of films, where the autoencoder is, in half precision."""
    films = beside(autoencoder, films)
    with torch.no_grad(), loop.autocast(loop.autocast_dtype("auto", films.device), films.device):
        return autoencoder.encode(films).half()


@lru_cache(maxsize=4)  # of both libraries, and of the next epoch
def epoch_order(films: int, seed: int) -> Tensor:
    """The order in which an epoch shows so many films: [films]."""
    return torch.randperm(films, generator=torch.Generator().manual_seed(seed))


def word_table(scene: world.Scene) -> Tensor:
    """The word ids of a film's wordings, as `soralab.latent_diffusion.word_ids` gives them: int16 [4, words]."""
    return latent_diffusion.word_ids(wordings(scene), SoraConfig.words).short()


def batch_size() -> int:
    """Films in a batch, by the profile."""
    return larger(BATCH, 8)


def as_batch(x0: Tensor, prompts: list[str]) -> dict[str, Tensor]:
    """What the loss takes: films or latents, and their prompts as word ids."""
    return {"x0": x0, "ids": word_ids(prompts, SoraConfig.words)}


@dataclass(frozen=True)
class Curriculum:
    """The usual batches; from step `late` on, half of each is of hard films."""

    usual: LatentBatches
    hard: LatentBatches
    late: int

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`, as LatentBatches gives it."""
        if step < self.late:
            return self.usual(step)
        half = batch_size() // 2
        (films, ids, longest), (spun, names, other) = (part.films(step, half) for part in (self.usual, self.hard))
        return {"x0": torch.cat([films, spun]), "ids": torch.cat([ids, names])[:, : max(longest, other, 1)]}


def make_loss(recipe: Recipe, network: nn.Module | None = None):
    """The training loss of a batch: mean squared error of the velocity, at logit-normal times.

    `network` computes the predictions in the model's place: the model itself, compiled.
    """

    def loss(model: Sora, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        predict = model if network is None else network
        t = sample_times(len(batch["x0"]), generator, "logit_normal", shift=recipe.shift)
        return diffusion_loss(
            PROCESS, predict, batch["x0"], recipe.kind, space="v", t=t, generator=generator,
            condition={"ids": batch["ids"]},
        ).mean()  # fmt: skip

    return loss


SHORT_STEPS, SHORT_BATCH, SHORT_FILMS = 80, 32, 5200
PROBED = 64  # unseen films that a short run is probed with


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """A short training like that of `sora`; returns the log as columns {"step", "loss", ...}.

    Half the batch; float32 on any machine, so that the band holds on any machine; a constant learning rate after the
    warm-up.
    """
    recipe = RECIPES["sora"]
    torch.manual_seed(seed)
    model = Sora(recipe.config)
    config = replace(
        recipe.training, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps,
        precision="float32",
    )  # fmt: skip
    films = min(SHORT_FILMS, 4 * steps * SHORT_BATCH)  # a quarter of them is used
    autoencoder, loss = load_autoencoder(recipe.autoencoder).to(device()), make_loss(recipe)
    batches = LatentBatches(autoencoder, films, batch=SHORT_BATCH)
    held, film, text = unseen(autoencoder)
    frames = [0, FRAMES // 2, FRAMES - 1]

    def filmed(model: Sora) -> Tensor:
        return Filmmaker(model, autoencoder, recipe.kind, recipe.shift).film([text], steps=10)[0, frames]

    probes = Watched("sora", loss, held, steps, swap=("ids",), sample=filmed, truth=film[frames])
    with TemporaryDirectory() as temporary:
        where = folder or temporary
        result = loop.train(model, loss, batches, config, where, parameters=parameters(model), probes=probes)
        return probes.log(result.log)


@torch.no_grad()
def unseen(autoencoder: SpacetimeAutoencoder) -> tuple[dict[str, Tensor], Tensor, str]:
    """What a short run is probed with: PROBED unseen films as a batch; the first of them, and its caption."""
    scenes = [world.sample_scene(SEED, index, LEVEL, "test") for index in range(PROBED)]
    films = films_of(scenes)
    texts = [short_caption(scene) for scene in scenes]
    return as_batch(autoencoder.encode(beside(autoencoder, films)), texts), films[0], texts[0]


def curriculum(recipe: Recipe, steps: int, folder: Path) -> Curriculum:
    """The batches of a training of so many steps in latents; what is encoded for them is kept in `folder`."""
    films, late = by_profile(smoke=400, laptop=FILMS, gpu=8 * FILMS), round(LATE * steps)
    autoencoder = load_autoencoder(recipe.autoencoder).to(device())
    usual = LatentBatches(autoencoder, films, folder / "latents", steps=range(steps))
    hard_ones = LatentBatches(autoencoder, films, folder / "latents_hard", hard_ones=True, steps=range(late, steps))
    return Curriculum(usual, hard_ones, late)


def train(name: str = "sora", steps: int | None = None, stream: Path | None = None) -> Trained:
    """Train a model, or go on with it, in runs/NAME. stream: a folder of film shards to learn from, not the world."""
    recipe = by_profile(smoke=RECIPES[name], laptop=RECIPES[name], gpu=RECIPES[name].large())
    model = build(recipe)
    full = recipe.training.steps
    config = replace(recipe.training, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    batches = pixel_batch
    if stream:
        autoencoder = load_autoencoder(recipe.autoencoder).to(device()) if recipe.autoencoder else None
        shards = FilmShards(stream, batch_size(), FRAMES, SIDE, SEED)
        batches = captioned(shards, NULL, autoencoder and (lambda films: encode(autoencoder, films).float()))
    elif recipe.autoencoder:
        batches = curriculum(recipe, config.steps, RUNS / name)
    loss = make_loss(recipe, compiled(model))
    result = loop.train(model, loss, batches, config, RUNS / name, parameters=parameters(model))
    result.ema.copy_to(model)
    return Trained.of(
        model, recipe.config, result, autoencoder=recipe.autoencoder, kind=recipe.kind, shift=recipe.shift,
        data_seed=SEED, level=LEVEL, batch=batch_size(), **entry(stream),
    )  # fmt: skip
