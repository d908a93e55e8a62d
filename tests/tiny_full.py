"""Chapter 16's whole model, small enough for a test, and its velocity worked out film by film."""

from dataclasses import asdict

import torch
import torch.nn.functional as F
from tiny_models import randomise

from soralab.blocks import patchify, rotary_angles, sincos, sincos_grid, unpatchify
from soralab.files.checkpoints import save_checkpoint
from soralab.sora_full import FullConfig, FullFilmmaker, FullSora
from soralab.walt import AutoencoderConfig, CausalAutoencoder

CONFIG = FullConfig(dim=32, depth=2, heads=2, rank=4)
AUTOENCODER = AutoencoderConfig(width=8)


def tiny_full(config: FullConfig = CONFIG) -> FullSora:
    return randomise(FullSora(config), 1)


def tiny_codec() -> CausalAutoencoder:
    return randomise(CausalAutoencoder(AUTOENCODER), 2)


def tiny_filmmaker() -> FullFilmmaker:
    return FullFilmmaker(tiny_full(), tiny_codec())


def save_full(folder, name="sora_full", autoencoder="sora_full_autoencoder", **entries) -> None:
    """Both checkpoints of the whole model, in small."""
    save_checkpoint(folder / autoencoder, tiny_codec().state_dict(), {"config": asdict(AUTOENCODER)})
    card = {"config": asdict(CONFIG), "autoencoder": autoencoder, **entries}
    save_checkpoint(folder / name, tiny_full().state_dict(), card)


def places(clips, height, width):
    """(time, row, column) of each token of a film and whether its latent is its clip's first; time is in latents, the
    middle of the frames that the latent holds."""
    frames, rows, firsts = iter(range(sum(clips))), [], []
    for clip in clips:
        for k in range(1 + (clip - 1) // 4):
            held = [next(frames) for _ in range(4 if k else 1)]
            middle = sum(held) / len(held) / 4
            rows += [[middle, y, x] for y in range(height) for x in range(width)]
            firsts += [k == 0] * (height * width)
    return torch.tensor(rows), torch.tensor(firsts)


@torch.no_grad()
def by_hand(model: FullSora, x, times, clips, rate, ids):
    """The velocity of one film x [latent frames, channels, h, w], as if there were no other: every token attends all
    tokens and all words of the film's own prompt, by dense softmax. `ids` without padding, () for no prompt."""
    (latents, _, h, w), dim = x.shape, model.config.dim
    assert (dim, model.config.heads, model.config.patch) == (32, 2, 2)
    where, first = places(clips, h // 2, w // 2)
    tokens = model.embed(patchify(x[None], (1, 2, 2))[0]) + sincos_grid(where, (8, 12, 12), 100.0)
    tokens = tokens + torch.where(first[:, None], model.first, 0.0)
    angles = rotary_angles(where, (4, 2, 2), 100.0)
    words, _, whole = model.text(torch.tensor([list(ids)], dtype=torch.long))
    told = model.time(times) + whole[0] + (model.rate(sincos(torch.tensor(float(rate)), dim, 100.0)) if rate else 0.0)
    c = F.silu(told)

    def spread(made):
        return made.repeat_interleave(len(tokens) // latents, 0)

    for block in model.blocks:
        shift1, scale1, gate1, shift2, scale2, gate2 = spread(model.base(c) + block.modulation(c)).chunk(6, -1)
        seen = block.attention((block.norm1(tokens) * (1 + scale1) + shift1)[None], None, None, angles)[0]
        tokens = tokens + gate1 * seen
        tokens = tokens + block.cross(block.norm_words(tokens)[None], words)[0]
        tokens = tokens + gate2 * block.mlp(block.norm2(tokens) * (1 + scale2) + shift2)
    shift, scale = spread(model.modulation(c)).chunk(2, -1)
    out = model.head(model.norm(tokens) * (1 + scale) + shift)
    return unpatchify(out[None], (1, 2, 2), (latents, h, w))[0]
