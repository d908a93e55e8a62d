"""Better captions: a captioner that is tuned to describe, and a painter that learns from what it wrote.

Paper: Betker et al. 2023, "Improving Image Generation with Better Captions" (the report on DALL-E 3, which is not on
arXiv). A language model learns to foretell the next token of a text t. Told what CLIP sees in the picture i, F(i), it
is a captioner (z_j is not explained there):

    L(t)    = sum_j log P(t_j | t_<j; Theta)                  (1)
    L(t, i) = sum_j log P(t_j | t_<j; z_j; F(i); Theta)       (2)

    pictures, alt texts  --CoCa's two losses-->  base captioner
    base captioner       --a few main subjects-->      short synthetic captions (SSC)
    base captioner       --a few full descriptions-->  descriptive synthetic captions (DSC)
    all pictures         --recaptioned, blended with their alt texts-->  a painter is trained
    a prompt             --lengthened by a language model-->  the painter

F is chapter 04's picture tower, read before it pools its places; the language model is chapter 02's Transformer, whose
encoder reads these places instead of a sentence and whose decoder attends to them, as CoCa's does (Yu et al. 2022,
2205.01917). A picture is a film of one frame: the places of all frames lie in one row, as CoCa's tokens of films do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from soralab.blocks import search
from soralab.blocks.search import Writer
from soralab.clip import CLIP, CLIPConfig, _unit, contrastive_loss
from soralab.files.checkpoints import config_of, load_model
from soralab.training.data import beside
from soralab.transformer import (
    END,
    START,
    Transformer,
    TransformerConfig,
    Writing,
    label_smoothing_loss,
    sinusoid,
)
from soralab.world.claims import keeps
from soralab.world.language import DESCRIPTIVE_LENGTH, VOCABULARY, words

TOKENS = ("<pad>", "<start>", "<end>", *VOCABULARY[1:])  # what a captioner writes with: the words of the world
CONTRASTIVE, CAPTIONING = 1.0, 2.0  # lambda_Con and lambda_Cap, CoCa's Eq. 4
CLOCK = 9  # a film is as long as so many positions of chapter 02's sinusoid


@dataclass(frozen=True)
class CaptionerConfig(TransformerConfig):
    """Sizes of the Transformer, and of the CLIP whose picture tower it reads.

    places: whether it reads the places of the tower's last two stages, or the one vector that CLIP makes of them.
    """

    vocabulary: int = len(TOKENS)
    N: int = 2
    d_model: int = 128
    d_ff: int = 512
    h: int = 4
    d_k: int = 32
    d_v: int = 32
    P_drop: float = 0.0
    clip: CLIPConfig = CLIPConfig()
    places: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.clip.layers, int) or len(self.clip.layers) < 2:
            raise ValueError(f"clip has layers {self.clip.layers}; it takes a ResNet of two stages or more")


class Captioner(Transformer):
    """P(t_j | t_<j; F(i)): chapter 02's Transformer with a film [batch, time, 3, image, image] for a source."""

    def __init__(self, config: CaptionerConfig = CaptionerConfig()):
        super().__init__(config)
        self.tower = CLIP(config.clip).image  # F
        if config.places:
            self.tower.attnpool = nn.Identity()  # what makes one vector of them is left out
        self.tower.eval()
        stages, width = len(config.clip.layers), 4 * config.clip.width
        last = [width * 2**stage for stage in range(stages)][-2:]
        side = config.clip.image // 2 ** (stages + 1)  # of the last stage; the one before has twice as many places
        self.into = nn.Linear(sum(last) if config.places else config.clip.embed, config.d_model)
        self.place = nn.Parameter(0.02 * torch.randn(4 * side**2 if config.places else 1, config.d_model))
        self.norm = nn.LayerNorm(config.d_model)

    def train(self, mode: bool = True) -> Captioner:
        """As of any module; but the tower's batch norms keep CLIP's statistics, whatever is shown to it."""
        super().train(mode)
        self.tower.eval()
        return self

    def see(self, pixels: Tensor, states: list[Tensor] | None = None) -> Tensor:
        """F(i): pixels [n, 3, image, image] to what is read of each [n, places, channels].

        Each place of the last stage but one, and above it the last stage's, which is half as wide and as high. Or the
        one vector of CLIP, [n, 1, embed]. states: of the tower, if it has seen the pixels already.
        """
        states = self.tower.states(pixels) if states is None else states
        if not self.config.places:
            return self.tower.attnpool(states[-1])[:, None]
        *_, fine, coarse = states
        both = torch.cat([fine, coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)], dim=1)
        return rearrange(both, "n c h w -> n (h w) c")

    def encode(self, source: Tensor, states: list[Tensor] | None = None) -> Tensor:
        """A film [batch, time, 3, image, image] to the memory [batch, time * places, d_model], frame after frame.

        A frame's moment is its share of the film, so that films of any number of frames have one clock. states: as in
        `see`, of all frames.
        """
        self._check_film(source)
        batch, time = source.shape[:2]
        seen = self.into(self.see(source.flatten(0, 1), states)) + self.place
        moments = sinusoid(CLOCK * torch.arange(time, device=seen.device) / time, self.config.d_model).to(seen)
        x = rearrange(seen, "(b t) p d -> b t p d", b=batch) + moments[:, None]
        x = self.norm(rearrange(x, "b t p d -> b (t p) d"))
        for layer in self.encoder:
            x = layer(x, None)
        return x

    def begin(self, source: Tensor, copies: int = 1, states: list[Tensor] | None = None) -> Writing:
        """Begin to write captions of films; `copies` of each, one after another. Every place may be attended to."""
        return Writing(self, self.encode(source, states).repeat_interleave(copies, 0), None)

    def _check_film(self, film: Tensor) -> None:
        side = self.config.clip.image
        if film.ndim != 5 or film.shape[2:] != (3, side, side):
            raise ValueError(f"film is {list(film.shape)}; it takes [batch, time, 3, {side}, {side}], a picture with "
                             "one frame")  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ training


def shifted(target: Tensor) -> Tensor:
    """What the decoder reads to say target [batch, words]: START, and all words but the last."""
    return torch.cat([torch.full_like(target[:, :1], START), target[:, :-1]], dim=1)


def caption_loss(model: Captioner, film: Tensor, target: Tensor) -> Tensor:
    """Minus Eq. (2) of the report, the mean over the words of target [batch, words], which end with END; PAD counts
    nothing. film [batch, time, 3, image, image].
    """
    return label_smoothing_loss(model(film, shifted(target)), target, epsilon=0.0)


class Pooled(nn.Module):
    """A picture tower whose stages are another's: it makes CLIP's one vector of what a captioner sees."""

    def __init__(self, tower: nn.Module, pool: nn.Module):
        super().__init__()
        self.tower, self.pool = tower, pool

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, 3, image, image] to [batch, embed], not normalised."""
        return self.pool(self.tower.states(pixels)[-1])


class CoCa(nn.Module):
    """A captioner and the rest of a CLIP, on one tower: what is trained first, on pictures and their alt texts.

    CoCa's text encoder is the lower half of its decoder; here it is chapter 04's own, beside the decoder.
    """

    def __init__(self, captioner: Captioner, clip: CLIP):
        super().__init__()
        clip.image = Pooled(captioner.tower, clip.image.attnpool)
        self.captioner, self.clip = captioner, clip

    def train(self, mode: bool = True) -> CoCa:
        """As of any module, and the tower's norms as a captioner's."""
        super().train(mode)
        self.captioner.tower.eval()
        return self

    def forward(self, film: Tensor, target: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(L_Con, L_Cap) of pictures film [batch, 1, 3, image, image], their texts as the captioner writes them, target
        [batch, words], and as CLIP reads them, ids [batch, tokens]. What is minimised is
        CONTRASTIVE L_Con + CAPTIONING L_Cap (CoCa's Eq. 4).
        """
        states = self.captioner.tower.states(film[:, 0])  # once, for both losses
        I_e, T_e = _unit(self.clip.image.pool(states[-1])), self.clip.encode_text(ids)
        logits = self.captioner.decode(shifted(target), self.captioner.begin(film, states=states))
        return contrastive_loss(I_e, T_e, self.clip.scale), label_smoothing_loss(logits, target, epsilon=0.0)


# ------------------------------------------------------------------------------------------- captions, and their blend


def to_ids(texts: Sequence[str], tokens: Sequence[str] = TOKENS, end: bool = True) -> Tensor:
    """Texts to ids [texts, longest], PAD behind them, and END after each if `end`. Raises ValueError for other words,
    and for no text at all."""
    if not texts:
        raise ValueError("texts is empty; it takes one or more")
    index = {word: id for id, word in enumerate(tokens)}
    told = [words(text) for text in texts]
    if new := next((word for said in told for word in said if word not in index), None):
        raise ValueError(f"texts has the word '{new}'; it takes the {len(tokens) - 3} words of the world")
    rows = [torch.tensor([index[word] for word in said] + [END] * end, dtype=torch.long) for said in told]
    return pad_sequence(rows, batch_first=True)


@dataclass(frozen=True)
class Recaptioner:
    """A captioner that writes words. `tokens[id]` is the word of an id; the first three are no words."""

    model: Captioner
    tokens: tuple[str, ...] = TOKENS

    @classmethod
    def load(cls, name: str = "recaptioning", device: torch.device | str = "cpu") -> Recaptioner:
        """Load and verify a checkpoint. Raises CheckpointError."""
        model, card = load_model(name, lambda c: Captioner(config_of(CaptionerConfig, c)), "Captioner", ("tokens",))
        return cls(model.to(device), tuple(card["tokens"]))

    @torch.no_grad()
    def __call__(self, films: Tensor, chunk: int = 100) -> list[str]:
        """The likeliest caption, word by word, of each picture [n, 3, image, image] or film [n, time, 3, image, image],
        in [-1, 1]. Raises ValueError for no picture at all.
        """
        if not len(films):
            raise ValueError("films is empty; it takes one picture or film, or more")
        films = films[:, None] if films.ndim == 4 else films
        found = []
        for part in films.split(chunk):
            part = beside(self.model, part)
            start = torch.full((len(part),), START, device=part.device)
            found += search.greedy(self.model.begin(part), start, END, DESCRIPTIVE_LENGTH)
        return [" ".join(self.tokens[id] for id in ids) for ids in found]


def blend(truth: str, synthetic: str, ratio: float, rng: Random) -> str:
    """What a picture is called this time: the synthetic caption with probability `ratio`, else what stood beside it.

    The lot is drawn at each sampling of each picture, so every picture keeps both. Raises ValueError for a ratio that
    is none.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is {ratio}; it takes a share from 0 to 1")
    return synthetic if rng.random() < ratio else truth


# ----------------------------------------------------------------------------------------------------- longer prompts


class Drawn:
    """A writer whose likeliest word is a draw: log P of another is noised so that its largest is one drawn from P.

    log P / temperature + g, g = -log(-log u), u uniform: the Gumbel-max trick. Greedy search then draws whole texts.
    """

    def __init__(self, writer: Writer, temperature: float, generator: torch.Generator):
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it takes a number above 0")
        self.writer, self.temperature, self.generator = writer, temperature, generator

    def next(self, words: Tensor) -> Tensor:
        """Write words [rows]; returns log P [rows, vocabulary] of the next, noised."""
        log_p = self.writer.next(words)
        u = torch.rand(log_p.shape, generator=self.generator).clamp(min=1e-20).to(log_p.device)
        return log_p / self.temperature - (-u.log()).log()

    def select(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has written."""
        self.writer.select(rows)


@dataclass(frozen=True)
class Expander:
    """Chapter 02's Transformer, trained to lengthen prompts as the captioner describes (the report has GPT-4 do it)."""

    model: Transformer
    tokens: tuple[str, ...] = TOKENS

    @classmethod
    def load(cls, name: str = "recaptioning_expander", device: torch.device | str = "cpu") -> Expander:
        """Load and verify a checkpoint. Raises CheckpointError."""
        model, card = load_model(name, lambda c: Transformer(TransformerConfig(**c)), "prompt expander", ("tokens",))
        return cls(model.to(device), tuple(card["tokens"]))

    def __call__(
        self, prompts: Sequence[str], seed: int = 0, temperature: float = 1.0, tries: int = 8
    ) -> list[str]:
        """Each prompt with what it leaves open filled in, by lot; one that contradicts its prompt is drawn again.

        After `tries` draws a prompt stays as it is. Raises ValueError for words that are not the world's.
        """
        generator, found = torch.Generator().manual_seed(seed), list(prompts)
        unfilled = [k for k, prompt in enumerate(prompts) if prompt]
        for _ in range(tries):
            drawn = self.draw([prompts[k] for k in unfilled], generator, temperature) if unfilled else []
            kept = {k: text for k, text in zip(unfilled, drawn, strict=True) if keeps(prompts[k], text)}
            found = [kept.get(k, text) for k, text in enumerate(found)]
            unfilled = [k for k in unfilled if k not in kept]
        return found

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], generator: torch.Generator, temperature: float = 1.0) -> list[str]:
        """One longer text for each prompt, unchecked."""
        source = beside(self.model, to_ids(prompts, self.tokens, end=False))
        start = torch.full((len(source),), START, device=source.device)
        writer = Drawn(self.model.begin(source), temperature, generator)
        found = search.greedy(writer, start, END, DESCRIPTIVE_LENGTH)
        return [" ".join(self.tokens[id] for id in ids) for ids in found]
