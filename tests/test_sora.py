"""Chapter 16: the spacetime autoencoder and the diffusion transformer. What they film is in `test_sora_films`."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import AUTOENCODER, OTHER, PROMPT, SORA, numbers, randomise, tiny_autoencoder, tiny_maker, tiny_sora
from torch import nn

from soralab.blocks import sincos
from soralab.blocks.dit import Block
from soralab.blocks.film_codec import autoencoder_loss
from soralab.sora import Sora, SoraConfig, word_ids
from soralab.training.data import model_flops


@pytest.fixture(scope="module")
def autoencoder():
    return tiny_autoencoder()


@pytest.fixture(scope="module")
def sora():
    return tiny_sora()


def changed(a, b):
    """Which places in time differ at all: [time] list of bool."""
    return (a != b).transpose(0, 1).flatten(1).any(1).tolist()


# ------------------------------------------------------------------------------------------ the spacetime autoencoder


@pytest.mark.parametrize("frame", range(9))
@torch.no_grad()
def test_a_latent_is_of_its_own_two_frames_alone(autoencoder, frame):
    film = numbers(1, 9, 3, 8, 8).tanh()
    before = autoencoder.encode(film)
    film[:, frame] = film[:, frame].flip(-1)
    after = autoencoder.encode(film)
    # Frames (0), (1, 2), (3, 4), ...: the first latent is one frame, and holds it twice.
    assert changed(after, before) == [latent == (frame + 1) // 2 for latent in range(5)]
    halves = (after != before).unflatten(2, (2, 4)).transpose(0, 2).flatten(1).any(1).tolist()
    assert halves == [frame % 2 == 1 or frame == 0, frame % 2 == 0]


@pytest.mark.parametrize("latent", range(5))
@torch.no_grad()
def test_a_frame_sees_no_later_latent(autoencoder, latent):
    z = numbers(1, 5, AUTOENCODER.latent, 2, 2)
    before = autoencoder.decode(z)
    z[:, latent] += 1
    first = max(0, 2 * latent - 1)  # latent 0 is one frame, each later one is two
    after = changed(autoencoder.decode(z), before)
    assert after[:first] == [False] * first
    assert all(after[first:])  # it looks back, so every later frame knows of it


@torch.no_grad()
def test_one_frame_is_a_film_of_length_one(autoencoder):
    film = numbers(2, 9, 3, 8, 8).tanh()
    for frames in (1, 3, 7):
        part = autoencoder.encode(film[:, :frames])
        torch.testing.assert_close(part, autoencoder.encode(film)[:, : part.shape[1]], rtol=1e-5, atol=1e-5)
        copy = autoencoder.decode(part)
        torch.testing.assert_close(copy, autoencoder.decode(autoencoder.encode(film))[:, :frames], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k, height, width", [(0, 8, 8), (1, 16, 8), (4, 4, 12)])
@torch.no_grad()
def test_sizes_in_and_out(autoencoder, k, height, width):
    film = numbers(2, 1 + 2 * k, 3, height, width)
    latents = autoencoder.encode(film)
    assert latents.shape == (2, 1 + k, 8, height // 4, width // 4)
    assert autoencoder.decode(latents).shape == film.shape


@pytest.mark.parametrize("frames, height, width", [(8, 8, 8), (9, 10, 8), (9, 8, 6)])
def test_sizes_that_cannot_be_encoded_are_named(autoencoder, frames, height, width):
    with pytest.raises(ValueError, match=f"{frames}x{height}x{width}; it takes an odd number of frames"):
        autoencoder.encode(torch.zeros(1, frames, 3, height, width))


@torch.no_grad()
def test_what_is_seen_stays_in_its_place(autoencoder):
    """A change in one spot of a large film moves the latents around that spot alone, and its copy there."""

    def spot(a, b):
        rows, columns = (a != b)[0, 0].any(0).nonzero().unbind(1)
        return rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()

    film = numbers(1, 1, 3, 128, 128).tanh()
    moved, z = film.clone(), autoencoder.encode(film)
    moved[..., 80:84, 36:40] *= -1  # latent (20, 9)
    top, bottom, left, right = spot(autoencoder.encode(moved), z)
    assert 13 <= top <= 20 <= bottom <= 27 and 2 <= left <= 9 <= right <= 16
    other = z.clone()
    other[..., 20, 9] += 1
    top, bottom, left, right = spot(autoencoder.decode(other), autoencoder.decode(z))
    assert 56 <= top <= 80 < 83 <= bottom <= 108 and 12 <= left <= 36 < 39 <= right <= 64


@torch.no_grad()
def test_fit_scale_gives_mean_0_and_deviation_1(autoencoder):
    films = numbers(4, 5, 3, 16, 16, seed=4).tanh()
    model = tiny_autoencoder()
    unscaled = model.encode(films)
    model.fit_scale(films)
    z = model.encode(films).transpose(1, 2).transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(1), torch.ones(8), rtol=1e-4, atol=1e-4)
    assert (unscaled.std() - 1).abs() > 0.01
    # Scaling is undone on the way back: the copy is the same as before.
    torch.testing.assert_close(model.decode(model.encode(films)), autoencoder.decode(unscaled), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_the_autoencoders_loss_term_by_term(kl):
    film, autoencoder = numbers(2, 5, 3, 8, 8, seed=5).tanh(), tiny_autoencoder()
    with torch.no_grad():
        autoencoder.encoder[-1].weight.mul_(2)  # far enough from the prior for the divergence to count
        loss, numbers_of = autoencoder_loss(autoencoder, film, torch.Generator().manual_seed(7), kl=kl)
        mean, logvar = autoencoder.posterior(film)
        q = torch.distributions.Normal(mean, (logvar / 2).exp())
        prior = torch.distributions.Normal(0.0, 1.0)
        divergence = torch.distributions.kl_divergence(q, prior).mean()
        z = mean + q.scale * torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
        error = autoencoder.reconstruct(z) - film
    square = error.pow(2).mean()
    torch.testing.assert_close(loss, square + 0.1 * error.abs().mean() + kl * divergence, rtol=1e-5, atol=1e-6)
    assert numbers_of["kl"] == pytest.approx(divergence.item(), rel=1e-4) and divergence > 0.1
    peak = 2.0  # from -1 to 1
    assert numbers_of["psnr"] == pytest.approx(20 * math.log10(peak / square.sqrt().item()), rel=1e-5)


# ---------------------------------------------------------------------------------------- the diffusion transformer


def test_at_the_start_every_block_is_the_identity_and_the_output_zero():
    """adaLN-Zero (2212.09748, section 3.2), and the way out of it: the head learns from the first step."""
    torch.manual_seed(0)
    model = Sora(SORA)
    x, c, words = numbers(2, 20, 16), numbers(2, 16, seed=1), numbers(2, 3, 16, seed=2)
    seen = torch.ones(2, 1, 1, 3, dtype=torch.bool)
    for block in model.blocks:
        assert torch.equal(block(x, c, words, seen), x)
        assert not torch.equal(randomise(Block(16, 2))(x, c, words, seen), x)
    film, ids = numbers(2, *latent_shape()), word_ids([PROMPT, OTHER], 48)
    out = model(film, torch.tensor([0.2, 0.9]), ids)
    assert out.shape == film.shape and (out == 0).all()
    (out - film).square().mean().backward()
    assert model.head.weight.grad.abs().max() > 0


def latent_shape(config=SORA):
    return config.size[0], config.channels, *config.size[1:]


def run(model, film, prompts=(PROMPT,), t=0.5, mask=None, words=48):
    with torch.no_grad():
        ids = word_ids(list(prompts), words)
        return model(film, torch.full((len(film),), t), ids, mask)


def test_what_is_told_changes_what_is_predicted(sora):
    film = numbers(1, *latent_shape())
    said = run(sora, film)
    for different in (run(sora, film, [OTHER]), run(sora, film, [""]), run(sora, film, t=0.6), run(sora, film + 0.1)):
        assert (different - said).abs().max() > 1e-2
    swapped = run(sora, film, ["a small red right slides circle"])  # the same words
    assert (swapped - said).abs().max() > 1e-3


def test_the_prompt_reaches_the_film_by_modulation():
    """Without any cross-attention, the token of the whole prompt still speaks through c."""
    sora, film = tiny_sora(), numbers(1, *latent_shape())
    for block in sora.blocks:
        nn.init.zeros_(block.cross.to_out.weight)
    assert (run(sora, film) - run(sora, film, [OTHER])).abs().max() > 1e-2


def test_the_text_tower_starts_as_chapter_04_draws_it():
    """What enters its residual path is small: 1 / sqrt(2 layers) of what Xavier would give, as in the rest."""
    dim, model = 192, Sora(SoraConfig(depth=1))
    for block in model.text.blocks:
        assert block.attention.to_out.weight.std().item() == pytest.approx(dim**-0.5 / 2, rel=0.02)
    assert model.blocks[0].attention.to_out.weight.std().item() == pytest.approx(dim**-0.5, rel=0.02)


def test_the_words_reach_the_film_by_cross_attention(sora):
    """The same c, other words."""
    c = numbers(1, SORA.dim)
    x = numbers(1, 20, SORA.dim, seed=1)
    outs = []
    for prompt in (PROMPT, OTHER):
        words, mask, _ = sora.text(word_ids([prompt], 48))
        outs.append(sora.blocks[0](x, c, words, mask[:, None, None]))
    assert (outs[0] - outs[1]).abs().max() > 1e-2


def test_padding_of_the_prompt_is_not_read(sora):
    film, t = numbers(1, *latent_shape()), torch.tensor([0.5])
    ids = word_ids([PROMPT], 48)
    padded = nn.functional.pad(ids, (0, 48 - ids.shape[1]))
    with torch.no_grad():
        torch.testing.assert_close(sora(film, t, padded), sora(film, t, ids), rtol=1e-4, atol=1e-5)


def test_every_patch_sees_every_other(sora):
    """Full attention over space and time: a change in the last patch of the last frame reaches the first."""
    film = numbers(1, *latent_shape())
    moved = film.clone()
    moved[:, -1, :, -1, -1] += 3
    assert (run(sora, moved) != run(sora, film))[0].any(1).all()


def test_the_order_of_frames_and_rows_counts(sora):
    film, order = numbers(1, *latent_shape()), [2, 0, 4, 1, 3]
    assert (run(sora, film[:, order]) - run(sora, film)[:, order]).abs().max() > 1e-2
    assert (run(sora, film.transpose(-1, -2)) - run(sora, film).transpose(-1, -2)).abs().max() > 1e-2


def test_a_mask_keeps_packed_films_apart(sora):
    """Two films in one row of tokens, with a block-diagonal mask, are to the block what they are alone."""
    block, c = sora.blocks[0], numbers(1, 16, seed=3)
    words, word_mask = numbers(1, 4, 16, seed=4), torch.ones(1, 1, 1, 4, dtype=torch.bool)
    films = numbers(1, 12, 16), numbers(1, 8, 16, seed=1)
    of = torch.tensor([0] * 12 + [1] * 8)
    mask = (of[:, None] == of)[None, None]
    with torch.no_grad():
        packed = block(torch.cat(films, dim=1), c, words, word_mask, mask)
        alone = torch.cat([block(film, c, words, word_mask) for film in films], dim=1)
        together = block(torch.cat(films, dim=1), c, words, word_mask)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)
    assert (together - alone).abs().max() > 1e-2


def test_the_whole_transformer_hands_the_mask_to_every_block(sora):
    of = torch.tensor([0, 0, 1, 1, 1]).repeat_interleave(4)  # frames 0 and 1 apart from 2, 3 and 4
    mask = (of[:, None] == of)[None, None]
    film = numbers(1, *latent_shape())
    moved = film.clone()
    moved[:, :2] += 1
    assert changed(run(sora, moved, mask=mask), run(sora, film, mask=mask)) == [True, True, False, False, False]
    assert all(changed(run(sora, moved), run(sora, film)))


def test_positions_are_unique_and_the_same_in_every_size(sora):
    table = Sora(SoraConfig(depth=0)).positions((9, 32, 16))
    grid = table.reshape(9, 16, 8, -1)
    apart = torch.cdist(table, table, compute_mode="donot_use_mm_for_euclid_dist") + 10 * torch.eye(len(table))
    assert apart.min() > 0.1
    t, y, x = torch.meshgrid(*(torch.arange(side) for side in (9, 16, 8)), indexing="ij")
    parts = torch.cat([sincos(axis, dim, 100.0) for axis, dim in ((t, 48), (y, 72), (x, 72))], dim=-1)
    assert torch.equal(grid, parts)  # a quarter of the 192 channels for time
    small = Sora(SoraConfig(depth=0)).positions((5, 8, 8)).reshape(5, 4, 4, -1)
    assert torch.equal(grid[:5, :4, :4], small)
    film = run(sora, numbers(1, 9, SORA.channels, 16, 8))  # 17 x 64 x 32 pixels, no size it was made for
    assert film.shape == (1, 9, SORA.channels, 16, 8) and torch.isfinite(film).all() and film.std() > 0.1


def test_with_rotary_attention_knows_how_far_apart_two_patches_are(monkeypatch):
    """Without the sines of the places nothing else tells patches apart: a film moved by a patch is answered moved."""
    config = replace(SORA, rotary=True)
    turned, plain = tiny_sora(config), tiny_sora(SORA)
    film = numbers(1, *latent_shape())
    assert (run(turned, film) - run(plain, film)).abs().max() > 1e-2  # the weights are the same
    assert turned.angles((5, 4, 4)).shape == (20, SORA.dim // SORA.heads // 2) and plain.angles((5, 4, 4)) is None
    monkeypatch.setattr(Sora, "positions", lambda self, size: torch.zeros(()))
    swapped = film[:, [1, 0, 2, 3, 4]]
    assert torch.allclose(run(plain, swapped), run(plain, film)[:, [1, 0, 2, 3, 4]], atol=1e-4)  # a bag of patches
    assert not torch.allclose(run(turned, swapped), run(turned, film)[:, [1, 0, 2, 3, 4]], atol=1e-2)
    moment, row, column = Sora(config).angles((5, 4, 4))[[4, 2, 1]]  # one step along each axis, in patches of 2 x 2
    assert [(axis != 0).tolist() for axis in (moment, row, column)] == [
        [True, True, False, False], [False, False, True, False], [False, False, False, True]
    ]
    later = Sora(config).angles((9, 4, 4))[4 * 4 :] - Sora(config).angles((5, 4, 4))
    assert torch.allclose(later, later[:1].expand_as(later), atol=1e-5)  # four moments later, all by the same angle


def test_a_size_that_the_patch_does_not_divide_is_named(sora):
    with pytest.raises(ValueError, match="height is 5"):
        run(sora, numbers(1, 5, SORA.channels, 5, 4))


# ------------------------------------------------------------------------------- the paper's table, at published size

# depth, width, heads, parameters and GFLOPs (multiply-adds) with patches of 2 on 32 x 32 x 4 latents
PUBLISHED = {
    "S": (12, 384, 6, 32_963_360, 6.06),
    "B": (12, 768, 12, 130_512_416, 23.01),
    "L": (24, 1024, 16, 458_102_816, 80.71),
    "XL": (28, 1152, 16, 675_129_632, 118.64),
}


class NoWords(nn.Module):
    """In place of the text encoder: DiT has class labels."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, ids):
        words = torch.zeros(len(ids), 1, self.dim, device="meta")
        return words, torch.ones(len(ids), 1, device="meta").bool(), words[:, 0]


class NoCross(nn.Module):
    """In place of cross-attention: DiT has none."""

    def forward(self, x, words, mask, attend=None):
        return torch.zeros_like(x)


def dit(depth, dim, heads):
    """Our transformer at a published size, without what DiT does not have. No memory is taken."""
    with torch.device("meta"):
        model = Sora(SoraConfig(channels=4, patch=(1, 2, 2), dim=dim, depth=depth, heads=heads, size=(1, 32, 32)))
    model.text = NoWords(dim)
    for block in model.blocks:
        block.cross, block.norm_words = NoCross(), nn.Identity()
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_gflops_of_dit(name):
    """DiT's are ours, and four things that ours has not: a label for each class, a table of positions (counted among
    the parameters, though it is fixed), and a head of twice the width, for the variance."""
    depth, dim, heads, parameters, gflops = PUBLISHED[name]
    model, tokens, values = dit(depth, dim, heads), 256, 16
    labels, positions, variance = 1001 * dim, tokens * dim, (dim + 1) * values
    assert sum(p.numel() for p in model.parameters()) + labels + positions + variance == parameters
    assert sum(p.numel() for p in model.blocks.parameters()) == depth * (18 * dim**2 + 15 * dim)
    inputs = (torch.zeros(shape, device="meta") for shape in ((1, 1, 4, 32, 32), (1,), (1, 1)))
    counted = model_flops(model, *inputs) / 2 + tokens * dim * values  # two operations in a multiply-add
    assert counted / 1e9 == pytest.approx(gflops, rel=1e-3)


@pytest.mark.parametrize("side, patch, tokens", [(32, 2, 256), (32, 4, 64), (32, 8, 16), (64, 2, 1024)])
def test_tokens_of_dit(side, patch, tokens):
    model = Sora(SoraConfig(channels=4, patch=(1, patch, patch), depth=0))
    assert len(model.positions((1, side, side))) == tokens


def test_a_film_follows_from_its_seed_where_the_sampler_draws_noise_too():
    """Each film draws its own, whatever is filmed beside it and was drawn before."""
    maker, make = tiny_maker(), dict(steps=3, sampler="ddpm")
    first = maker.film([PROMPT], seed=5, **make)
    torch.manual_seed(1)
    assert torch.equal(maker.film([PROMPT], seed=5, **make), first)
    torch.testing.assert_close(maker.film([PROMPT, PROMPT], seed=4, **make)[1:], first, rtol=1e-4, atol=1e-4)
    assert (maker.film([PROMPT], seed=6, **make) - first).abs().max() > 1e-2
