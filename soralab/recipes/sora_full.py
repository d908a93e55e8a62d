"""How chapter 16's whole model is trained: `soralab train sora_full`.

Each batch is a row of films and pictures of all KINDS. The first EARLY steps see small ones alone: two thirds of the
tokens, and what a thing is called and how it moves is the same in all sizes. Those from LATE on see three times as many
large films as before, which were the worst. Films are latents of chapter 11's autoencoder, trained on, made once and
kept in runs/NAME/latents. The repository holds what the training came to so far (`keep`); `train` goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import accumulate, count, islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.blocks.film_codec import FilmCodec
from soralab.diffusion import RectifiedFlow, sample_times
from soralab.diffusion.process import noise_like
from soralab.files.checkpoints import BEGUN, checkpoint_paths, load_checkpoint, read_card, save_checkpoint
from soralab.latent_diffusion import word_ids
from soralab.recipes import RUNS, Trained, parts
from soralab.recipes.sora import wordings
from soralab.sora_full import Films, FullConfig, FullSora, latents, shift_of
from soralab.training import loop
from soralab.training.config import TrainConfig, learning_rate
from soralab.training.muon import muon_groups
from soralab.training.profiles import by_profile, device, hardware
from soralab.training.progress import progress
from soralab.training.state import weights_hash
from soralab.walt import CausalAutoencoder, load_autoencoder
from soralab.world.scene import WALL

NAME, AUTOENCODER, SEED = "sora_full", "sora_full_autoencoder", 20
NULL, UNSAID = 0.1, 0.3  # shares of films without a prompt, and whose rate is not said
GIVEN = 0.25  # share of films of one clip that are shown their beginning: one latent frame or more, and not the last
PROCESS = RectifiedFlow()
KEPT = {"orbits": 1.0, "spins": 1.0, WALL: 0.6, "bounces": 0.7, "grows": 0.5, "shrinks": 0.5}  # of films of one thing
PLACES = ("left of", "above")  # the relations that a picture shows
REST = 0.25  # of all other motions: they are learnt soonest


@dataclass(frozen=True)
class Kind:
    """Films of one size: their clips, how many the library holds, and what share of a batch is of this kind."""

    clips: tuple[int, ...]  # frames
    height: int  # pixels
    width: int
    films: int
    share: float
    early: float = 0.0  # its share of the first EARLY steps
    late: float = 0.0  # its share from step LATE on
    rate: int = 0  # frames that the motion takes; 0: as many as the film has. Of a slower one, a window is seen

    @property
    def frames(self) -> int:
        """Frames in all."""
        return sum(self.clips)

    @property
    def name(self) -> str:
        """Such as "9_32x48"."""
        slow = f"_of_{self.rate}" if self.rate else ""
        return "+".join(map(str, self.clips)) + f"_{self.height}x{self.width}" + slow

    def before(self, step: int, batch: int, early: int, late: int) -> int:
        """How many films of this kind the batches before number `step` hold; those before `early` and from `late` on
        have shares of their own."""
        early, late = min(step, early), max(0, step - late)
        return int((self.early * early + self.share * (step - early - late) + self.late * late) * batch + 1e-6)


EARLY, LATE = 4000, 21_800
KINDS = (
    Kind((9,), 32, 32, 40_000, 0.50, early=0.80, late=0.36),
    Kind((9,), 32, 48, 5000, 0.08, late=0.07),
    Kind((9,), 48, 32, 5000, 0.08, late=0.07),
    Kind((9,), 32, 32, 8000, 0.06, early=0.10, late=0.05, rate=18),
    Kind((17,), 32, 32, 4000, 0.08, late=0.06),
    Kind((9,), 48, 64, 10_000, 0.04, late=0.15),
    Kind((17,), 48, 64, 4000, 0.02, late=0.05),
    Kind((1,), 32, 32, 6000, 0.05, early=0.10, late=0.04),
    Kind((1,), 48, 64, 2000, 0.03, late=0.05),
    Kind((9, 9), 32, 32, 3000, 0.04, late=0.05),
    Kind((5, 9, 5), 32, 32, 1500, 0.02, late=0.05),
)
BATCH = 48  # films
CHUNK, PART = 50, 2000  # films that are encoded at once, and between two saves: a minute of one core, or two
TRAINING = TrainConfig(
    steps=30_000, lr=4e-3, warmup=300, cooldown=0.3, ema=0.999, seed=SEED, log_every=50, precision="bfloat16"
)


def build() -> FullSora:
    """The transformer, its weights drawn from the recipe's seed."""
    torch.manual_seed(SEED)
    return FullSora(FullConfig())


def parameters(model: FullSora) -> list[dict]:
    """The blocks' matrices train with Muon; embeddings, modulations, biases and norms with AdamW, more slowly."""
    return muon_groups(model, inside="blocks", outside=("modulation",), scale=0.2)


# ---------------------------------------------------------------------------------------------------------- the library


def scenes(kind: Kind, number: int) -> Iterator[world.Scene]:
    """The scenes of a kind, without end: two of five simple; of those of one thing, fewer of what is learnt soon."""
    for index in count():
        rng = Random(f"{SEED}/{number}/{index}")
        level = "simple" if rng.random() < 0.4 else "full"
        scene = world.sample_scene(SEED + number, index, level, "train", kind.width / kind.height)
        if len(scene.objects) > 1 or rng.random() < KEPT.get(scene.objects[0].motion, REST):
            yield scene


def still(scene: world.Scene) -> world.Scene:
    """The scene as one picture of it is described: no motion, and of relations those of places."""
    things = tuple(replace(thing, motion="", speed="", turn="") for thing in scene.objects)
    placed = scene.relation is not None and scene.relation.kind in PLACES
    return replace(scene, objects=things, camera="still", relation=scene.relation if placed else None)


def render(kind: Kind, scenes: list[world.Scene], first: int) -> Tensor:
    """Films [batch, frames, 3, height, width]; of a picture or a window of a slow film, a moment drawn for each."""
    if kind.frames > 1 and not kind.rate:
        return world.to_film(world.render(scenes, kind.frames, kind.height, kind.width))
    whole = world.to_film(world.render(scenes, kind.rate or 9, kind.height, kind.width))
    room = whole.shape[1] - kind.frames + 1
    begins = (Random(f"{SEED}/{kind.name}/{first + k}").randrange(room) for k in range(len(scenes)))
    return torch.stack([film[begin : begin + kind.frames] for film, begin in zip(whole, begins, strict=True)])


@torch.no_grad()
def encode(autoencoder: FilmCodec, film: Tensor, clips: tuple[int, ...]) -> Tensor:
    """The latents of a string of clips, each coded alone: [batch, latent frames, 16, height / 4, width / 4]."""
    there = film.to(autoencoder.std.device)
    with loop.autocast(loop.autocast_dtype("bfloat16", there.device), there.device):
        return torch.cat([autoencoder.encode(clip) for clip in there.split(clips, dim=1)], dim=1).half()


def library(number: int, autoencoder: FilmCodec, folder: Path | None, films: int | None = None) -> dict[str, Tensor]:
    """The films of KINDS[number]: {"latents" [films, ...] float16, "ids" [films, 4 wordings, words] int16}.

    Those that `folder` holds, of the same autoencoder, are taken from there.
    """
    kind = KINDS[number]
    films = films or kind.films
    of = {"kind": kind.name, "films": films, "seed": SEED, "kept": {**KEPT, "rest": REST},
          "autoencoder": weights_hash(autoencoder)}  # fmt: skip
    of |= {"told": list(PLACES)} if kind.frames == 1 else {}
    listed = list(islice(scenes(kind, number), films))

    def make(first: int, end: int) -> dict[str, Tensor]:
        latents, batches = [], range(first, end, CHUNK)
        for at in progress(batches, desc=f"encoding {kind.name} from {first:,}", unit="batch"):
            some = listed[at : min(at + CHUNK, end)]
            latents.append(encode(autoencoder, render(kind, some, at), kind.clips))
        told = [still(scene) if kind.frames == 1 else scene for scene in listed[first:end]]
        ids = [word_ids(wordings(scene), FullConfig.words).short() for scene in told]
        return {"latents": torch.cat(latents), "ids": torch.stack(ids)}

    return parts.made(folder and folder / kind.name, of, films, PART, make, f"{kind.name} encoded")


# --------------------------------------------------------------------------------------------------------- the batches


class Batches:
    """Rows of films of all kinds: of each as many as its share, and its films in a new order each epoch. The first
    `early` batches and those from number `late` on have shares of their own; batch 0 is number `first` of them all."""

    def __init__(self, libraries: list[dict[str, Tensor]], batch: int = BATCH, kinds: tuple[Kind, ...] | None = None,
                 early: int = 0, first: int = 0, late: int = 10**9):  # fmt: skip
        self.libraries, self.batch, self.kinds = libraries, batch, kinds or KINDS
        self.early, self.first, self.late = early, first, late

    def __call__(self, step: int) -> dict[str, list]:
        """Batch `step`: {"x0": a tensor of latents for each kind that has films in it, "kinds": their numbers, "ids"
        [films, words], "rate": a tensor for each kind}."""
        step += self.first
        rng, found = Random(f"{SEED}/batch/{step}"), {"x0": [], "kinds": [], "ids": [], "rate": []}
        for number, (kind, held) in enumerate(zip(self.kinds, self.libraries, strict=True)):
            low, high = (kind.before(at, self.batch, self.early, self.late) for at in (step, step + 1))
            if low == high:
                continue
            of = len(held["ids"])
            rows = torch.tensor([order(of, number, k // of)[k % of] for k in range(low, high)])
            said = [wording(rng) for _ in rows]
            rate = [0.0 if rng.random() < UNSAID or kind.frames == 1 else float(kind.rate or kind.frames) for _ in rows]
            found["x0"].append(held["latents"][rows].float())
            found["kinds"].append(number)
            found["ids"].append(held["ids"][rows, torch.tensor(said)].long())
            found["rate"].append(torch.tensor(rate))
        ids = torch.cat(found.pop("ids"))
        return {"ids": ids[:, : max(1, int((ids > 0).sum(1).max()))], **found}

    @staticmethod
    def cut(batch: dict[str, list], parts: int) -> list[dict[str, list]]:
        """A batch in so many parts, which take its films in turn, so that all have nearly as much to do."""
        starts = [0, *accumulate(len(x) for x in batch["x0"])]
        found = []
        for part in range(parts):
            rows = [torch.arange(len(x))[(part - start) % parts :: parts]
                    for start, x in zip(starts, batch["x0"], strict=False)]  # fmt: skip
            some = [k for k, mine in enumerate(rows) if len(mine)]
            if not some:
                raise ValueError(f"batch has too few films for {parts} parts: take fewer processes or parts")
            ids = torch.cat([batch["ids"][rows[k] + starts[k]] for k in some])
            found.append({"ids": ids, "kinds": [batch["kinds"][k] for k in some],
                          **{name: [batch[name][k][rows[k]] for k in some] for name in ("x0", "rate")}})  # fmt: skip
        return found

    @staticmethod
    def weigh(batch: dict[str, list]) -> int:
        """What a part counts for: its values, of which the loss is the mean."""
        return sum(x.numel() for x in batch["x0"])


@lru_cache(maxsize=4 * len(KINDS))
def order(films: int, number: int, epoch: int) -> list[int]:
    """In which order an epoch has the films of a kind's library."""
    generator = torch.Generator().manual_seed(loop.step_seed(SEED + number, epoch))
    return torch.randperm(films, generator=generator).tolist()


def wording(rng: Random) -> int:
    """Which of `wordings` a film has in a batch: none, the descriptive one, the short one, that without sizes."""
    draw = rng.random()
    return sum(draw >= end for end in (NULL, 0.5, 0.88))


def known(kind: Kind, films: int, generator: torch.Generator) -> Tensor:
    """Which latent frames are given: [films, latent frames]. Of one clip, at times its beginning; of several, the first
    clip, the last, both, or none."""
    per = [latents(frames) for frames in kind.clips]
    given = torch.zeros(films, sum(per), dtype=torch.bool)
    draws = torch.rand(films, generator=generator, device=generator.device).tolist()
    for row, draw in zip(given, draws, strict=True):
        if len(per) == 1:
            row[: int(draw < GIVEN) * (1 + int(draw / GIVEN * (len(row) - 1)))] = len(row) > 1
        elif draw > 0.25:
            both, first = len(per) == 3 and draw < 0.65, draw < (0.825 if len(per) == 3 else 0.625)
            row[: per[0]] = both or first
            row[-per[-1] :] = both or not first
    return given


def make_loss(batch_kinds=KINDS):
    """The training loss of a row: mean squared error of the velocity of all that is not known."""

    def loss(model: FullSora, batch: dict, generator: torch.Generator) -> Tensor:
        films, targets = [], []
        for number, x0, rate in zip(batch["kinds"], batch["x0"], batch["rate"], strict=True):
            tokens = x0[0, :, 0].numel() // model.config.patch**2
            t = sample_times(len(x0), generator, "logit_normal", shift=shift_of(tokens), device=x0.device)
            free = ~known(batch_kinds[number], len(x0), generator).to(x0.device)
            times = t[:, None] * free
            eps = noise_like(x0, generator)
            x = torch.lerp(x0, eps, times[:, :, None, None, None])
            films.append(Films(x, times, batch_kinds[number].clips, rate))
            targets.append((eps - x0, free))
        told = model(films, batch["ids"])
        error, values = 0.0, 0
        for velocity, (target, free) in zip(told, targets, strict=True):
            wrong = (velocity.float() - target).square().mean((2, 3, 4))
            size = target[0, 0, 0].numel()
            error, values = error + (wrong * free).sum() * size, values + free.sum() * size
        return error / values

    return loss


# -------------------------------------------------------------------------------------------------------- the training


def begun() -> tuple[FullSora, dict[str, int]]:
    """What the repository holds of the training: the model, and {"steps": ..., "seconds": ...} that it took; where it
    holds nothing, a new one."""
    model = build()
    if not checkpoint_paths(BEGUN / NAME)[1].exists():
        return model, {"steps": 0, "seconds": 0}
    tensors, card = load_checkpoint(BEGUN / NAME)
    model.load_state_dict(tensors)
    return model, {key: card[key] for key in ("steps", "seconds")}


def first_stage() -> CausalAutoencoder:
    """The autoencoder that the training goes on with."""
    return load_autoencoder(_where())


def _where() -> str:
    held = BEGUN / AUTOENCODER
    return str(held) if checkpoint_paths(held)[1].exists() else AUTOENCODER


def _entries() -> dict[str, str | int]:
    sha = read_card(_where())["sha256"]
    return {"autoencoder": AUTOENCODER, "autoencoder_sha256": sha, "level": "full", "data_seed": SEED}


def average(name: str = NAME) -> tuple[dict[str, Tensor], dict[str, int | float]]:
    """What the training in runs/NAME came to so far: the average of its weights, and {"steps": ..., "seconds": ...,
    "rate": what the learning rate is of its highest, 0 at the end of a training}."""
    _, before = begun()
    state, card = load_checkpoint(_run(name, before) / "state")
    weights = {key.removeprefix("ema/"): value for key, value in state.items() if key.startswith("ema/")}
    config = TrainConfig(**card["config"])
    done = {"steps": before["steps"] + card["step"], "seconds": round(before["seconds"] + card["seconds"]),
            "rate": round(learning_rate(card["step"], config) / config.lr, 3)}  # fmt: skip
    return weights, done


def keep(name: str = NAME) -> Path:
    """Put `average` into the repository, in eight bits. Returns the file."""
    weights, done = average(name)
    to = f" --steps {done['steps']}" if not done["rate"] else ""
    card = {**done, "config": asdict(FullConfig()), **_entries(), "batch": BATCH,
            "command": f"soralab train {name}{to}", "hardware": hardware()}  # fmt: skip
    return save_checkpoint(BEGUN / NAME, weights, card, eight_bits=True)


def _run(name: str, before: dict[str, int]) -> Path:
    """Where the training lies that goes on from so many steps."""
    return RUNS / name / f"from_{before['steps']}"


def train(name: str = NAME, steps: int | None = None) -> Trained:
    """Train the model, or go on with it, in runs/NAME; `steps` in all, those that were done before with them."""
    (model, before), autoencoder = begun(), first_stage().to(device())
    full = TRAINING.steps
    config = replace(TRAINING, steps=steps or by_profile(smoke=2 + before["steps"], laptop=full, gpu=full))
    if config.steps <= before["steps"]:
        raise ValueError(f"steps is {steps}; {before['steps']} were done before, so it takes more than these")
    config = replace(config, steps=config.steps - before["steps"])
    films, batch = by_profile(smoke=(2, 12), laptop=(None, BATCH), gpu=(None, BATCH))
    libraries = [library(number, autoencoder, RUNS / name / "latents", films) for number in range(len(KINDS))]
    batches = Batches(libraries, batch, early=EARLY, first=before["steps"], late=LATE)
    result = loop.train(model, make_loss(), batches, config, _run(name, before), parameters=parameters(model))
    result.ema.copy_to(model)
    trained = Trained.of(model, model.config, result, **_entries(), batch=batch)
    return replace(trained, card=trained.card | {key: trained.card[key] + before[key] for key in before})
