"""How chapter 02's translator of Hindi into English is trained: `soralab train transformer`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from soralab import world
from soralab.figures import Watched
from soralab.files.checkpoints import load_checkpoint, save_checkpoint
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.ema import average_checkpoints
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile, larger
from soralab.training.progress import progress
from soralab.transformer import (
    END,
    START,
    Transformer,
    TransformerConfig,
    Translator,
    label_smoothing_loss,
)
from soralab.world.hindi import HINDI_VOCABULARY
from soralab.world.hindi_prompts import pair, typed
from soralab.world.hindi_reader import read_hindi
from soralab.world.language import PROMPT_WORDS, words

SEED, TEST_SEED = 2, 402
PAIRS = 64_000  # sentence pairs, drawn once
TOKENS = 3000  # source and target together, padding counted, in a batch
KEPT, EVERY = 5, 50  # checkpoints that are averaged, and the steps between them
CHUNK = 100  # sentences translated at once
TOKENS_OF_WORLD = ("<pad>", "<start>", "<end>", *HINDI_VOCABULARY[1:], *PROMPT_WORDS)
TRAINING = TrainConfig(
    steps=1800, lr=1.5e-3, warmup=300, cooldown=0.4, betas=(0.9, 0.98), seed=SEED, log_every=EVERY, save_every=250,
    precision="float32",
)  # fmt: skip

# ------------------------------------------------------------------------------------------------- sentence pairs


def draw_pairs(seed: int, count: int) -> list[tuple[str, str]]:
    """`count` training pairs, worded as people type prompts (`typed`); three in four are of the full world."""
    found = []
    for index in progress(range(count), desc="sentence pairs", unit="pair"):
        rng = Random(f"{seed}/{index}")
        scene = world.sample_scene(seed, index, "full" if rng.random() < 0.75 else "simple")
        found.append(pair(*typed(scene, rng)))
    return found


def to_ids(pairs: list[tuple[str, str]], tokens: tuple[str, ...] = TOKENS_OF_WORLD) -> list[tuple[list[int], ...]]:
    """Pairs of sentences as pairs of ids; English ends with END."""
    index = {word: id for id, word in enumerate(tokens)}
    return [([index[w] for w in read_hindi(h)], [index[w] for w in words(e)] + [END]) for h, e in pairs]


class Batches:
    """Batches of pairs of about one length (section 5.1), so that little is padding; another order in each epoch."""

    def __init__(self, pairs: list[tuple[list[int], ...]], tokens: int = TOKENS, seed: int = SEED):
        self.pairs, self.tokens, self.seed = pairs, tokens, seed
        self.epoch, self.rows = -1, []
        self._arrange(0)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.rows)

    def _arrange(self, epoch: int) -> None:
        """Shuffle, sort by length (the shuffle stays among equals), cut, shuffle the batches."""
        rng = Random(f"{self.seed}/{epoch}")
        order = sorted(range(len(self.pairs)), key=lambda _: rng.random())
        order.sort(key=lambda i: (len(self.pairs[i][1]), len(self.pairs[i][0])))
        rows: list[list[int]] = [[]]
        widest = 0
        for i in order:
            source, target = self.pairs[i]
            widest = max(widest, len(source)) if rows[-1] else len(source)
            if rows[-1] and (widest + len(target)) * (len(rows[-1]) + 1) > self.tokens:
                rows.append([])
                widest = len(source)
            rows[-1].append(i)
        self.rows = sorted(rows, key=lambda _: rng.random())
        self.epoch = epoch

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"source": [b, n], "target": [b, m]}, PAD at the end; the target has no START."""
        epoch, place = divmod(step, len(self.rows))
        if epoch != self.epoch:
            self._arrange(epoch)
        sides = zip(*(self.pairs[i] for i in self.rows[place]), strict=True)
        source, target = (pad_sequence([torch.tensor(ids) for ids in side], batch_first=True) for side in sides)
        return {"source": source, "target": target}


def loss(model: Transformer, batch: dict[str, Tensor], generator=None, epsilon: float = 0.1) -> Tensor:
    """Label smoothing's loss of a batch. The decoder reads START and every word but the last, and says the next."""
    target = batch["target"]
    shifted = torch.cat([torch.full_like(target[:, :1], START), target[:, :-1]], dim=1)
    return label_smoothing_loss(model(batch["source"], shifted), target, epsilon)


# ---------------------------------------------------------------------------------------------------------------- train


def train(name: str = "transformer", steps: int | None = None) -> Trained:
    """Train the translator, or go on with it, in runs/NAME: the mean of its last checkpoints (see `kept`)."""
    config = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=TRAINING.steps, gpu=TRAINING.steps))
    sizes = TransformerConfig.small(len(TOKENS_OF_WORLD))
    torch.manual_seed(SEED)
    model = Transformer(sizes)
    batches = Batches(to_ids(draw_pairs(SEED, by_profile(smoke=100, laptop=PAIRS, gpu=PAIRS))), larger(TOKENS, 4))
    result, states = train_and_keep(model, batches, config, RUNS / name)
    model.load_state_dict(average_checkpoints(states))
    return Trained.of(
        model, sizes, result, tokens=TOKENS_OF_WORLD, data_seed=SEED, pairs=len(batches.pairs),
        batch=f"{batches.tokens} tokens", checkpoints_averaged=len(states),
    )  # fmt: skip


def train_and_keep(model: Transformer, batches, config: TrainConfig, folder: Path):
    """Train in `folder`; returns (the loop's result, the states of the last KEPT checkpoints, EVERY steps apart)."""

    def keep(record: dict) -> None:
        if record["step"] > config.steps - KEPT * EVERY:
            save_checkpoint(folder / "kept" / f"{record['step']:07d}", model.state_dict(), {"step": record["step"]})

    result = loop.train(model, loss, batches, config, folder, on_log=keep)
    return result, kept(folder, config.steps) or [model.state_dict()]


def kept(folder: Path, steps: int) -> list[dict[str, Tensor]]:
    """The states that `train_and_keep` left in `folder` by the end of a training of so many steps, in order."""
    paths = [folder / "kept" / f"{step:07d}" for step in range(max(1, steps - KEPT * EVERY + 1), steps + 1)]
    return [load_checkpoint(path)[0] for path in paths if path.with_suffix(".json").exists()][-KEPT:]


# -------------------------------------------------------------------------------------------- the notebook's runs

SHORT = TransformerConfig.small(len(TOKENS_OF_WORLD), N=2, d_model=64, d_ff=256, d_k=16, d_v=16)
SHORT_STEPS, SHORT_PAIRS, SHORT_TOKENS = 400, 4000, 1500
# Sentences of scenes that no training sees; but the world has few words, and a tenth of these are also said there.
PROBED = 128


def short_run(
    seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None, d_k: int = SHORT.d_k
) -> tuple[dict, Transformer]:
    """Train a small translator for `steps` steps: its log as columns {"step", "loss", ...}, and the model.

    What it is probed with is of unseen scenes; about a tenth of these sentences are in the training too.
    Float32 on any machine, so that the band holds on any machine.
    """
    torch.manual_seed(seed)
    model = Transformer(replace(SHORT, d_k=d_k))
    batches = Batches(to_ids(draw_pairs(SEED, min(SHORT_PAIRS, 100 * steps))), SHORT_TOKENS, seed)
    config = replace(
        TRAINING, steps=steps, lr=4e-3, warmup=100, cooldown=0.3, seed=seed, log_every=4, save_every=steps,
        precision="float32",
    )  # fmt: skip
    unseen = [pair(world.sample_scene(TEST_SEED, k, "full", "test")) for k in range(PROBED)]
    held = Batches(to_ids(unseen), tokens=10**6)(0)
    hindi, english = unseen[0]
    probes = Watched("transformer", loss, held, steps, swap=("source",), truth=[" ".join(words(english))],
                     sample=lambda model: Translator(model, TOKENS_OF_WORLD)([hindi], beam=1))  # fmt: skip
    with TemporaryDirectory() as temporary:
        result = loop.train(model, loss, batches, config, folder or temporary, probes=probes)
        return probes.log(result.log), model.eval()
