"""What a film transformer costs on paper: tokens, operations, bytes of a GPU, hours, dollars.

All from its sizes, by counting products of matrices: 2 operations for a multiplication with its addition. Forwards

    F(n) = L (2 n w + 4 n^2 d)        n tokens, L blocks of width d, w weights of a block that meet every token

where n w is what the layers do with tokens one by one, and n^2 d what attention does with pairs of them: q k^T and the
weighted sum of values. Backwards is twice that. `REPORTS` holds what others have published of their trainings, with
where it stands; the tests hold the arithmetic against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

PEAK = 989e12  # operations a second of an H100 or H200 in bfloat16, as NVIDIA gives them, without sparsity
MEMORY = 80e9  # bytes of an H100
STATES = 16  # bytes for each weight while it trains: 2 itself, 2 its gradient, 4 in float32, 8 Adam's two moments


@dataclass(frozen=True)
class Sizes:
    """Of a transformer: blocks, width, width inside the feed-forward layer.

    gated: that layer has three matrices (SwiGLU) where it has two; cross: there is attention to `words` in each block;
    modulated: each block makes its six modulations (adaLN-Zero) by a layer of its own, once a film.
    """

    depth: int
    dim: int
    inner: int
    gated: bool = False
    cross: bool = False
    words: int = 0
    modulated: bool = True

    @property
    def weights(self) -> int:
        """Of a block, those that meet every token: w."""
        feed = (3 if self.gated else 2) * self.dim * self.inner
        return 4 * self.dim**2 + feed + (2 * self.dim**2 if self.cross else 0)  # of cross-attention: its q and output

    @property
    def parameters(self) -> int:
        """Of all blocks."""
        words = 2 * self.dim**2 if self.cross else 0  # keys and values, which meet the words alone
        return self.depth * (self.weights + words + (6 * self.dim**2 if self.modulated else 0))

    def by_token(self, tokens: int) -> int:
        """Operations of a forward pass in which tokens do not meet."""
        return 2 * self.depth * tokens * self.weights

    def by_pair(self, tokens: int) -> int:
        """Operations of a forward pass in which tokens meet: attention of each to all."""
        return 4 * self.depth * tokens**2 * self.dim

    def forward(self, tokens: int) -> int:
        """Operations of a forward pass on a film of so many tokens."""
        once = 2 * 6 * self.dim**2 if self.modulated else 0
        words = 4 * self.words * self.dim * (self.dim + tokens) if self.cross else 0
        return self.by_token(tokens) + self.by_pair(tokens) + self.depth * (once + words)

    def training(self, tokens: int, recomputed: bool = False) -> int:
        """Operations of a training step on one film. recomputed: each block runs forwards twice, to store less."""
        return (4 if recomputed else 3) * self.forward(tokens)


DIT_XL = Sizes(depth=28, dim=1152, inner=4608)  # 2212.09748, table 1
MOVIE_GEN = Sizes(depth=48, dim=6144, inner=16384, gated=True, cross=True, words=512, modulated=False)  # 2410.13720
# 2503.09642, table 2: 19 blocks of two streams and 38 of one. The words' own weights, in the 19, are not counted here.
OPEN_SORA = Sizes(depth=19 + 38, dim=3072, inner=12288)


def tokens(
    frames: int, height: int, width: int, codec: tuple[int, int, int] = (4, 8, 8),
    patch: tuple[int, int, int] = (1, 2, 2), causal: bool = True,
) -> int:  # fmt: skip
    """Of a film of so many frames and pixels: what a codec shrinks by in (time, height, width), then a patch.

    causal: the first frame is a latent by itself. What does not fit is padded.
    """
    time = 1 + ceil((frames - 1) / codec[0]) if causal else ceil(frames / codec[0])
    sides = [ceil(side / (by * p)) for side, by, p in zip((height, width), codec[1:], patch[1:], strict=True)]
    return ceil(time / patch[0]) * sides[0] * sides[1]


def gpu_hours(operations: float, share: float, peak: float = PEAK) -> float:
    """Of one GPU that reaches this share of its peak (0.4 is good)."""
    return operations / (share * peak * 3600)


def share_of_peak(operations: float, seconds: float, gpus: int = 1, peak: float = PEAK) -> float:
    """What GPUs reach of their peak if they need so long."""
    return operations / (seconds * gpus * peak)


def bytes_of_a_gpu(sizes: Sizes, n: int, films: int = 1, shards: int = 1, context: int = 1) -> dict[str, float]:
    """What a GPU has to hold: {"states", "stored"}.

    states: weights, gradients and moments, cut into `shards` (FSDP). stored: the input of every block for the backward
    pass, in bfloat16; all else is computed again. context: so many GPUs share the tokens of a film.
    """
    stored = 2 * sizes.depth * films * n * sizes.dim
    return {"states": STATES * sizes.parameters / shards, "stored": stored / context}


def least_gpus(sizes: Sizes, n: int, memory: float = MEMORY, spare: float = 0.7) -> int:
    """The fewest GPUs that can train on one film together, states and tokens cut into as many parts. spare: the share
    of the memory that these may take; the rest is for the block at work, gathered weights and buffers."""
    return ceil(sum(bytes_of_a_gpu(sizes, n).values()) / (spare * memory))


def sampling(sizes: Sizes, n: int, steps: int = 50, guided: bool = True) -> int:
    """Operations of making one film: every step runs the network, twice under guidance."""
    return steps * (2 if guided else 1) * sizes.forward(n)


def bill(sizes: Sizes, n: int, films: float, share: float = 0.4, dollars: float = 2.0, gpus: int = 1024) -> dict:
    """A training on so many films: {"operations", "gpu_hours", "days" on so many GPUs, "dollars" at so many an hour}"""
    operations = films * sizes.training(n)
    hours = gpu_hours(operations, share)
    return {"operations": operations, "gpu_hours": hours, "days": hours / gpus / 24, "dollars": hours * dollars}


# ------------------------------------------------------------------------------------------------- what others report


@dataclass(frozen=True)
class Throughput:
    """A row of Open-Sora 2.0's tables 5 and 6: on how many films a second eight H200 train, of so many frames."""

    side: int
    frames: int
    tokens: int
    films_a_second: float

    @property
    def share(self) -> float:
        """What the GPUs reach of their peak by it, recomputing not counted."""
        return share_of_peak(self.films_a_second * OPEN_SORA.training(self.tokens), 1.0, gpus=8)


THROUGHPUT = (
    Throughput(256, 33, 2304, 12.7), Throughput(256, 65, 4352, 6.3), Throughput(256, 97, 6400, 4.2),
    Throughput(256, 129, 8448, 3.2), Throughput(768, 33, 20736, 0.25), Throughput(768, 65, 39168, 0.17),
    Throughput(768, 97, 57600, 0.13), Throughput(768, 129, 76032, 0.08),
)  # fmt: skip
STAGES = (  # Open-Sora 2.0's table 3: what is trained, GPU days, thousands of dollars
    ("256 pixels, from text", 2240, 107.5), ("256 pixels, from text or picture", 384, 18.4),
    ("768 pixels, from text or picture", 1536, 73.7),
)  # fmt: skip
REPORTS = {
    "DiT-XL/2, 256 x 256, multiplications forwards": (118.64e9, "2212.09748, table 4"),
    "Movie Gen, parameters": (30e9, "2410.13720, abstract"),
    "Movie Gen, tokens of 16 s at 16 frames a second": (73e3, "2410.13720, abstract"),
    "Llama 3 405B, operations of the training": (3.8e25, "2407.21783, section 1"),
    "Llama 3.1 405B, hours of H100": (30.84e6, "its model card"),
    "Sora, H100 for a month, by an outsider's estimate": ((4200, 10_500), "Factorial Funds, March 2024"),
}
"""What is published, and where. Of Sora itself its makers have published none of this."""
