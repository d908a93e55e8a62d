"""Chapter 11: the causal autoencoder, attention in windows, what a W.A.L.T is conditioned on, and films made longer."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from kernel_checks.process import run_apart, triton_is_here
from tiny_models import numbers, randomise
from torch import nn

from soralab.blocks import CausalTime
from soralab.blocks.attention import attention as masked_attention
from soralab.blocks.dit import Block
from soralab.latent_diffusion import word_ids
from soralab.training.data import model_flops
from soralab.walt import (
    PROCESS,
    AutoencoderConfig,
    CausalAutoencoder,
    Filmmaker,
    InWindows,
    Later,
    LowRank,
    Walt,
    WaltConfig,
    given_frames,
    inflate,
    remembering,
    segments,
    walt_loss,
)

SMALL = AutoencoderConfig(latent=4, width=8)
TINY = WaltConfig(channels=4, dim=32, depth=2, heads=2, size=(3, 4, 4), windows=((1, 4, 4), (3, 2, 2)))
IDS = word_ids(["a red circle slides right", "a large blue square stays still"], 48)


def tiny_autoencoder(**changes) -> CausalAutoencoder:
    return randomise(CausalAutoencoder(replace(SMALL, **changes)), 2)


def tiny_walt(**changes) -> Walt:
    return randomise(Walt(replace(TINY, **changes), "torch"), 3)


def changed(a, b):
    """Which places in time differ at all: [time] list of bool."""
    return (a != b).transpose(0, 1).flatten(1).any(1).tolist()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------------------------------------- the causal autoencoder


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 3])
def test_a_convolution_over_time_is_the_sum_over_past_frames(taps, stride):
    layer = randomise(CausalTime(3, 5, taps, stride)).double()
    x = numbers(2, 7, 4, 6, 3).double()
    kernels = layer.weight.unflatten(1, (taps, 3)).unbind(1)
    frames = []
    for present in range(0, 7, stride):
        seen = [(kernels[k], x[:, present - taps + 1 + k]) for k in range(taps) if present - taps + 1 + k >= 0]
        frames.append(sum(frame @ kernel.T for kernel, frame in seen) + layer.bias)
    torch.testing.assert_close(layer(x), torch.stack(frames, 1))


def test_later_repeats_all_frames_but_the_first():
    x = torch.arange(3.0).reshape(1, 3, 1, 1, 1)
    assert Later()(x).flatten().tolist() == [0, 1, 1, 2, 2]
    assert Later()(x[:, :1]).flatten().tolist() == [0]


@pytest.mark.parametrize("frame", range(9))
@torch.no_grad()
def test_no_latent_sees_the_future_and_each_sees_its_own_four_frames(frame):
    """NaN in one frame: it spreads to all that look at it and to nothing else, whatever the weights."""
    model, film = tiny_autoencoder(), numbers(2, 9, 3, 8, 8).tanh()
    before = model.encode(film)
    film[:, frame] = torch.nan
    first = -(-frame // 4)
    after = model.encode(film)
    assert torch.equal(after[:, :first], before[:, :first])
    assert after[:, first:].isnan().flatten(2).any(2).all()


@pytest.mark.parametrize("latent", range(3))
@torch.no_grad()
def test_no_frame_sees_a_later_latent(latent):
    model, z = tiny_autoencoder(), numbers(2, 3, 4, 2, 2)
    before = model.decode(z)
    z[:, latent] = torch.nan
    after, first = model.decode(z), max(0, 4 * latent - 3)
    assert torch.equal(after[:, :first], before[:, :first])
    assert after[:, first:].isnan().flatten(2).any(2).all()


@pytest.mark.parametrize("frames", [1, 5, 9])
@torch.no_grad()
def test_a_picture_is_a_film_of_one_frame_and_a_beginning_a_film_of_its_own(frames):
    model, film = tiny_autoencoder(), numbers(2, 13, 3, 8, 12).tanh()
    z, latents = model.encode(film), 1 + frames // 4
    torch.testing.assert_close(model.encode(film[:, :frames]), z[:, :latents], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.decode(z[:, :latents]), model.decode(z)[:, :frames], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_inflated_picture_model_begins_as_the_picture_model():
    picture, film = tiny_autoencoder(taps=1), numbers(2, 9, 3, 8, 8).tanh()
    picture.fit_scale(film)
    model = inflate(picture)
    assert model.config.taps == 3
    z = torch.cat([picture.encode(film[:, [frame]]) for frame in (0, 4, 8)], dim=1)
    torch.testing.assert_close(model.encode(film), z, rtol=1e-5, atol=1e-5)
    copies = torch.cat([picture.decode(z[:, [latent]]) for latent in (0, 1, 1, 1, 1, 2, 2, 2, 2)], dim=1)
    torch.testing.assert_close(model.decode(z), copies, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_in_any_other_slot_the_picture_kernel_shows_another_frame():
    """The usual slip: a picture's kernel in the centre of a causal one shows each frame the one before it."""
    model, film = inflate(tiny_autoencoder(taps=1)), numbers(1, 9, 3, 8, 8).tanh()
    right = model.encode(film)
    for layer in model.modules():
        if isinstance(layer, CausalTime):
            layer.weight.copy_(layer.weight.roll(-layer.in_features // 3, 1))
    assert (model.encode(film) - right).abs().max() > 0.05


def test_only_a_picture_model_can_be_inflated():
    with pytest.raises(ValueError, match="picture has kernels over 3 frames; it takes a model with taps=1"):
        inflate(tiny_autoencoder())


@pytest.mark.parametrize("frames, height, width", [(8, 8, 8), (7, 8, 8), (9, 10, 8), (9, 8, 6)])
def test_sizes_that_cannot_be_encoded_are_named(frames, height, width):
    with pytest.raises(ValueError, match=f"film is {frames}x{height}x{width}; it takes 1, 5, 9"):
        tiny_autoencoder().encode(torch.zeros(1, frames, 3, height, width))


@torch.no_grad()
def test_the_scale_of_the_latents_is_undone():
    model, film = tiny_autoencoder(), numbers(4, 9, 3, 8, 8).tanh()
    mean, logvar = model.posterior(film)
    assert mean.shape == logvar.shape == (4, 3, 4, 2, 2)
    plain = model.reconstruct(mean)
    model.fit_scale(film)
    z = model.encode(film)
    torch.testing.assert_close(z.movedim(2, 0).flatten(1).mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.movedim(2, 0).flatten(1).std(1), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.decode(z), plain, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ windows


def blocks_of(size, window):
    """[tokens, tokens], True where two tokens lie in one window: by their coordinates, no row map."""
    places = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, 3)
    cells = places // torch.tensor(window)
    return (cells[:, None] == cells[None]).all(-1)


@pytest.mark.parametrize("size, window", [
    ((3, 4, 4), (1, 4, 4)), ((3, 4, 4), (3, 2, 2)), ((3, 5, 7), (2, 2, 3)), ((1, 4, 6), (1, 1, 1)),
    ((2, 3, 4), (2, 3, 4)),
])  # fmt: skip
def test_windows_are_full_attention_with_a_block_mask(size, window):
    n = size[0] * size[1] * size[2]
    q, k, v = (numbers(2, 3, n, 16, seed=s).double().requires_grad_() for s in range(3))
    seen = InWindows(size, window, "torch")(q, k, v)
    want = masked_attention(q, k, v, blocks_of(size, window))
    torch.testing.assert_close(seen, want)
    weights = numbers(*seen.shape, seed=9).double()
    for ours, theirs in zip(*(torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (seen, want)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_alone_in_its_window_a_token_gets_its_own_value():
    q, k, v = (numbers(2, 2, 16, 16, seed=s) for s in range(3))
    torch.testing.assert_close(InWindows((1, 4, 4), (1, 1, 1), "torch")(q, k, v), v)


def test_a_picture_without_its_time_is_named():
    with pytest.raises(ValueError, match=r"film is \[1, 3, 8, 8\]; it takes \[batch, time, 3, height, width\]"):
        tiny_autoencoder().encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"film is \[1, 1, 4, 8, 8\]; it takes \[batch, time, 3,"):
        tiny_autoencoder().encode(torch.zeros(1, 1, 4, 8, 8))
    for shape in ((2, 4, 4, 4), (2, 1, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"x is \[2, .*4, 4\]; it takes \[batch, time, 4, height, width\]"):
            tiny_walt()(torch.zeros(shape), torch.rand(2), IDS)


def test_a_window_larger_than_the_film_is_named():
    with pytest.raises(ValueError, match=r"window is \(3, 2, 2\) tokens; it takes at most the film's, \(2, 4, 4\)"):
        segments((2, 4, 4), (3, 2, 2), 1, torch.device("cpu"))
    with pytest.raises(ValueError, match="window is"):
        tiny_walt()(torch.zeros(2, 2, 4, 4, 4), torch.rand(2), IDS)


def test_the_same_films_get_the_same_segments():
    one, two = (segments((3, 4, 4), (3, 2, 2), 2, torch.device("cpu")) for _ in range(2))
    assert one[0] is two[0] and one[1] is two[1]


@torch.no_grad()
def reach(model, size, place, block):
    """Which tokens a change at `place` moves, by the self-attention of one block alone: [time, height, width]."""
    n = size[0] * size[1] * size[2]
    x = numbers(1, n, 32)
    attend = model.attend(size, block)
    before = model.blocks[block].attention(x, attend=attend)
    x[0, place] += 1
    return (model.blocks[block].attention(x, attend=attend) != before).any(-1).reshape(size)


def test_blocks_see_one_frame_and_a_part_of_all_frames_in_turn():
    model = tiny_walt(depth=4)
    for block in (0, 2):
        seen = reach(model, (3, 4, 4), 16 + 5, block)
        assert seen[1].all() and not seen[[0, 2]].any()
    for block in (1, 3):
        seen = reach(model, (3, 4, 4), 16 + 5, block)
        assert seen[:, :2, :2].all() and seen.sum() == 12


def test_in_a_picture_every_second_block_shows_each_token_itself_alone():
    model = tiny_walt()
    assert reach(model, (1, 4, 4), 5, 0).all()
    assert reach(model, (1, 4, 4), 5, 1).nonzero().tolist() == [[0, 1, 1]]


def test_without_windows_all_see_all():
    model = tiny_walt(windows=None)
    assert all(reach(model, (3, 4, 4), 21, block).all() for block in (0, 1))


@torch.no_grad()
def test_windows_as_large_as_the_film_are_full_attention():
    x, t = numbers(2, 3, 4, 4, 4), torch.tensor([0.2, 0.9])
    whole = tiny_walt(windows=((3, 4, 4), (3, 4, 4)))(x, t, IDS)
    torch.testing.assert_close(whole, tiny_walt(windows=None)(x, t, IDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("windows", [TINY.windows, None])
def test_the_backend_is_the_one_that_was_asked_for(windows):
    model = Walt(replace(TINY, windows=windows), "nowhere")
    with pytest.raises(ValueError, match="backend is 'nowhere'"):
        model(torch.zeros(2, 3, 4, 4, 4), torch.rand(2), IDS)


@triton_is_here
def test_both_backends_agree():
    run_apart("walt.py", TRITON_INTERPRET="1")


# --------------------------------------------------------------------------------------------------------- AdaLN-LoRA


def parameters(**changes) -> float:
    """Millions of parameters of the paper's L."""
    with torch.device("meta"):
        return sum(p.numel() for p in Walt(WaltConfig.large(**changes)).parameters()) / 1e6


def test_the_papers_table_3d():
    """Its counts by r, in millions. What does not depend on r (text, positions) differs: differences are compared."""
    table = {2: 313, 4: 314, 16: 316, 64: 324, 256: 357, None: 458}
    counts = {rank: parameters(rank=rank) for rank in table}
    for rank, count in counts.items():
        assert abs(count - counts[2] - (table[rank] - table[2])) < 1.0  # both are rounded
    assert counts[256] - counts[2] == pytest.approx(24 * 7 * 1024 * 254 / 1e6)  # all 24 layers, W_a and W_b


def test_the_papers_l():
    config = WaltConfig.large()
    assert (config.dim, config.depth, config.heads, config.size) == (1024, 24, 16, (5, 16, 16))
    assert config.windows == ((1, 16, 16), (5, 8, 8))
    with torch.device("meta"):
        model = Walt(config)
    blocks = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    cross = 12 * 4 * 1024**2
    assert blocks - cross == 24 * (12 * 1024**2 + 7 * 1024 * 2)  # attention 4 d^2, MLP 8 d^2, LoRA 7 d r


@torch.no_grad()
def test_the_modulations_are_shared_and_each_block_adds_its_own_of_low_rank():
    """A^i = A^1 + W_b W_a c, read where each block's first norm is modulated."""
    model, heard = tiny_walt(depth=4), {}

    def hear(k, _, args, kwargs, __):
        heard[k] = args[1], kwargs["base"]

    for k, block in enumerate(model.blocks):
        block.register_forward_hook(partial(hear, k), with_kwargs=True)
    model(numbers(2, 3, 4, 4, 4), torch.tensor([0.3, 0.7]), IDS)
    for k, (c, base) in heard.items():
        torch.testing.assert_close(base, c @ model.base.weight.T + model.base.bias)
        down, up = model.blocks[k].modulation
        assert down.weight.shape == (2, 32) and up.weight.shape == (192, 2) and down.bias is up.bias is None
        torch.testing.assert_close(model.blocks[k].modulation(c), c @ down.weight.T @ up.weight.T)


@torch.no_grad()
def test_a_block_is_modulated_by_the_sum_of_both():
    x, c, base = numbers(2, 5, 32), numbers(2, 32, seed=1), numbers(2, 192, seed=2)
    whole = randomise(Block(32, 2, cross=False))
    lora = Block(32, 2, cross=False, modulation=LowRank(32, 3))
    lora.load_state_dict(whole.state_dict() | {f"modulation.{k}.weight": numbers(*shape, seed=k) for k, shape in
                                               enumerate([(3, 32), (192, 3)])}, strict=False)  # fmt: skip
    whole.modulation.weight.zero_()
    for k in range(2):  # a block whose own layer says the same for this example alone
        whole.modulation.bias.copy_(base[k] + lora.modulation(c[k]))
        torch.testing.assert_close(whole(x[[k]], c[[k]], x, None), lora(x[[k]], c[[k]], x, None, base=base[[k]]))


@pytest.mark.parametrize("rank", [2, None])
@torch.no_grad()
def test_at_its_start_it_says_zero_and_its_blocks_change_nothing(rank):
    model = Walt(replace(TINY, rank=rank), "torch")
    x, t = numbers(2, 3, 4, 4, 4), torch.rand(2)
    assert (model(x, t, IDS) == 0).all()
    tokens, c = numbers(2, 48, 32), numbers(2, 32)
    words, mask, _ = model.text(IDS)
    base = model.base(c) if rank else 0.0
    for k, block in enumerate(model.blocks):
        attend = model.attend((3, 4, 4), k)
        assert torch.equal(block(tokens, c, words, mask[:, None, None], None, None, attend, base=base), tokens)
        assert isinstance(block.attention.norm_q, nn.LayerNorm) and (block.cross is None) == (k % 2 == 1)


def test_every_weight_but_none_gets_a_gradient():
    model = tiny_walt()
    walt_loss(model, numbers(2, 3, 4, 4, 4), IDS, generator()).mean().backward()
    names = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert names == []


# ------------------------------------------------------------------------------------------------ what the model sees


@torch.no_grad()
def test_what_it_is_told_changes_what_it_says():
    model, x, t = tiny_walt(), numbers(2, 3, 4, 4, 4), torch.tensor([0.3, 0.7])
    said = model(x, t, IDS)
    other = numbers(2, 3, 4, 4, 4, seed=5)
    for heard in (
        model(other, t, IDS), model(x, 1 - t, IDS), model(x, t, IDS.flip(0)), model(x, t, IDS, previous=other),
        model(x, t, IDS, known=given_frames(other, torch.tensor([1, 1]))),
        model(x, t, IDS, known=given_frames(other * 0, torch.tensor([1, 1]))),  # black frames that are given
    ):
        assert (heard - said).abs().flatten(1).amax(1).min() > 1e-3
    zeros = torch.zeros(2, 3, 5, 4, 4)
    assert torch.equal(model(x, t, IDS, torch.zeros_like(x), zeros), said)


@torch.no_grad()
def test_frames_and_places_are_told_apart():
    model, x, t = tiny_walt(), numbers(2, 3, 4, 4, 4), torch.tensor([0.3, 0.7])
    said = model(x, t, IDS)
    assert (model(x.flip(1), t, IDS).flip(1) - said).abs().max() > 1e-2
    assert (model(x.flip(-1), t, IDS).flip(-1) - said).abs().max() > 1e-2
    for name in ("frames", "places"):
        silent = tiny_walt()
        getattr(silent, name).zero_()
        assert (silent(x, t, IDS) - said).abs().max() > 1e-2


@torch.no_grad()
def test_a_film_is_answered_as_it_is_alone():
    model, x, t = tiny_walt(), numbers(2, 3, 4, 4, 4), torch.tensor([0.3, 0.7])
    both = model(x, t, IDS)
    x[1] = torch.nan
    torch.testing.assert_close(model(x, t, IDS)[0], both[0])
    torch.testing.assert_close(model(x[:1], t[:1], IDS[:1])[0], both[0])


@torch.no_grad()
def test_another_aspect_ratio_has_its_positions_interpolated():
    model = tiny_walt()
    model.places.copy_(torch.arange(4.0)[None, :, None].expand(4, 4, 32))
    seen = []
    model.embed.register_forward_hook(lambda *args: torch.zeros_like(args[-1]))
    model.frames.zero_()
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.zeros(2, 3, 4, 4, 8), torch.rand(2), IDS)
    want = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]).repeat(12)
    torch.testing.assert_close(seen[0][0, :, 0], want)


@pytest.mark.parametrize("shape", [(2, 4, 4, 4, 4), (2, 3, 4, 5, 4), (2, 3, 4, 4, 7)])
def test_films_that_do_not_fit_are_named(shape):
    with pytest.raises(ValueError, match=f"x is {shape[1]}x{shape[3]}x{shape[4]} .*patch=2 divides"):
        tiny_walt(patch=2, windows=None)(torch.zeros(shape), torch.rand(2), IDS)


def test_given_frames_are_the_first_ones_and_marked():
    z = numbers(3, 3, 4, 2, 2)
    known = given_frames(z, torch.tensor([0, 1, 2]))
    assert known.shape == (3, 3, 5, 2, 2)
    for film, count in enumerate((0, 1, 2)):
        assert torch.equal(known[film, :count, :4], z[film, :count]) and (known[film, :count, 4] == 1).all()
        assert (known[film, count:] == 0).all()


# ------------------------------------------------------------------------------------------------------------ training


def test_the_noise_ends_in_pure_noise():
    """Zero terminal SNR: at t = 1 nothing is left of the data, and v is -x_0."""
    assert PROCESS.alpha(torch.tensor(1.0)) == 0 and PROCESS.sigma(torch.tensor(1.0)) == 1
    assert (PROCESS.first, PROCESS.last, PROCESS.steps) == (1e-4, 0.02, 1000)
    x0, eps = numbers(1, 2), numbers(1, 2, seed=1)
    assert torch.equal(PROCESS.target(x0, eps, torch.ones(1), "v"), -x0)


class Listening(nn.Module):
    """Says a constant and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.says, self.asked = nn.Parameter(torch.tensor(0.5)), []

    def forward(self, x, t, ids, previous=None, known=None):
        self.asked.append({"x": x, "t": t, "previous": previous, "known": known, "grad": torch.is_grad_enabled()})
        return self.says.expand_as(x)


def test_it_is_shown_what_it_believed_before_without_a_gradient():
    model, x0 = Listening(), numbers(400, 3, 2, 1, 1)
    walt_loss(model, x0, IDS[:1].expand(400, -1), generator(), p_sc=0.75).mean().backward()
    first, second = model.asked
    assert first["previous"] is None and not first["grad"] and second["grad"]
    assert torch.equal(first["x"], second["x"]) and torch.equal(first["t"], second["t"])
    believed = PROCESS.to_x0_eps(torch.full_like(x0, 0.5), first["x"], first["t"], "v")[0]
    shown = second["previous"].flatten(1).any(1)
    assert not second["previous"].requires_grad
    torch.testing.assert_close(second["previous"][shown], believed[shown])
    assert shown.float().mean().item() == pytest.approx(0.75, abs=0.065)  # 3 deviations


def test_without_self_conditioning_it_is_asked_once():
    model = Listening()
    walt_loss(model, numbers(2, 3, 2, 1, 1), IDS, generator(), p_sc=0.0)
    assert [asked["previous"] for asked in model.asked] == [None]


def test_one_or_two_frames_are_given_as_often_as_said():
    model, x0 = Listening(), numbers(900, 3, 2, 1, 1)
    walt_loss(model, x0, IDS[:1].expand(900, -1), generator(1), p_fp=0.6)
    count = model.asked[1]["known"][:, :, 2, 0, 0].sum(1)
    for value, share in ((0, 0.4), (1, 0.3), (2, 0.3)):
        assert (count == value).float().mean().item() == pytest.approx(share, abs=0.05)  # 3 deviations
    assert torch.equal(model.asked[1]["known"], given_frames(x0, count))
    assert torch.equal(model.asked[0]["known"], model.asked[1]["known"])


def test_a_picture_is_given_nothing():
    model = Listening()
    walt_loss(model, numbers(20, 1, 2, 1, 1), IDS[:1].expand(20, -1), generator(), p_fp=1.0)
    assert not model.asked[0]["known"].any()


def test_the_loss_is_that_of_v():
    model, x0 = Listening(), numbers(5, 3, 2, 1, 1)
    loss = walt_loss(model, x0, IDS[:1].expand(5, -1), generator(3))
    x_t, t = model.asked[0]["x"], model.asked[0]["t"]
    alpha, sigma = (f(t)[:, None, None, None, None] for f in (PROCESS.alpha, PROCESS.sigma))
    v = alpha * (x_t - alpha * x0) / sigma - sigma * x0
    torch.testing.assert_close(loss, (0.5 - v).square().flatten(1).mean(1), rtol=1e-4, atol=1e-4)
    assert len(set(t.tolist())) == 5


# ---------------------------------------------------------------------------------------------------------- to a film


def test_a_denoiser_remembers_its_last_opinion():
    asked = []

    def network(x, t, previous):
        asked.append(previous)
        return x * 0.1

    denoise = remembering(network)
    x = numbers(2, 3, 2, 1, 1)
    first, eps = denoise(x, 1.0)
    torch.testing.assert_close(first, -0.1 * x)
    torch.testing.assert_close(eps, x)
    denoise(x + 1, 0.5)
    assert asked[0] is None and torch.equal(asked[1], first)
    assert remembering(network)(x, 1.0) and asked[2] is None  # a new film begins with none


def tiny_maker():
    return Filmmaker(tiny_walt(), tiny_autoencoder())


def test_a_seed_is_a_film_whatever_is_filmed_beside_it():
    maker = tiny_maker()
    text = "a blue square stays still"
    both = maker.film(["a red circle slides right", text], seed=4, steps=3)
    assert both.shape == (2, 9, 3, 16, 16) and both.abs().max() <= 1
    torch.testing.assert_close(maker.film([text], seed=5, steps=3)[0], both[1], atol=1e-4, rtol=0)
    assert (maker.film([text], seed=6, steps=3)[0] - both[1]).abs().max() > 0.01
    assert torch.equal(maker.film([text], steps=3), maker.film([text], seed=0, steps=3))


@pytest.mark.parametrize("opinions", [True, False])
def test_a_network_that_never_had_an_opinion_is_shown_none(opinions):
    model, shown = tiny_walt(), []
    model.register_forward_pre_hook(lambda _, args, kwargs: shown.append(kwargs["previous"]), with_kwargs=True)
    Filmmaker(model, tiny_autoencoder(), opinions).latents(IDS, numbers(2, 3, 4, 4, 4), steps=3)
    assert shown[0] is None and all((previous is not None) == opinions for previous in shown[2:]) and len(shown) >= 3


def test_guidance_is_away_from_no_words_and_no_given_frames():
    maker, noise, start = tiny_maker(), numbers(2, 3, 4, 4, 4), numbers(2, 1, 4, 4, 4, seed=1)
    frames = given_frames(torch.cat([start, noise[:, 1:] * 0], 1), torch.tensor([1, 1]))
    t = torch.ones(2)
    with torch.no_grad():
        says = maker.walt(noise, t, IDS, None, frames)
        null = maker.walt(noise, t, IDS * 0, None, frames * 0)
    for scale in (1.0, 3.0):
        z = maker.latents(IDS, noise, start, steps=1, guidance=scale)
        assert torch.equal(z[:, :1], start)
        torch.testing.assert_close(z[:, 1:], -(null + scale * (says - null))[:, 1:], rtol=1e-4, atol=1e-4)


def test_a_film_is_continued_from_its_last_five_frames():
    maker, film = tiny_maker(), numbers(2, 9, 3, 16, 16, seed=7).tanh()
    words = ["a red circle slides right", "a blue square stays still"]
    longer = maker.extend(film, words, seed=3, steps=2)
    assert longer.shape == (2, 13, 3, 16, 16) and torch.equal(longer[:, :9], film)
    start = maker.autoencoder.encode(film[:, 4:])
    z = maker.latents(word_ids(words, 48), maker.noise(3, 2), start, steps=2)
    torch.testing.assert_close(longer[:, 9:], maker.autoencoder.decode(z)[:, 5:].clamp(-1, 1))
    assert torch.equal(maker.extend(film, words, steps=2), maker.extend(film, words, seed=0, steps=2))
    film[:, :4] = 0
    torch.testing.assert_close(maker.extend(film, words, seed=3, steps=2)[:, 9:], longer[:, 9:])


def test_a_picture_is_continued_from_itself_and_other_beginnings_are_named():
    maker, picture = tiny_maker(), numbers(1, 1, 3, 16, 16, seed=7).tanh()
    film = maker.extend(picture, ["a red circle slides right"], seed=3, steps=2)
    assert film.shape == (1, 9, 3, 16, 16) and torch.equal(film[:, :1], picture)
    start = maker.autoencoder.encode(picture)
    z = maker.latents(word_ids(["a red circle slides right"], 48), maker.noise(3, 1), start, steps=2)
    torch.testing.assert_close(film[:, 1:], maker.autoencoder.decode(z)[:, 1:].clamp(-1, 1))
    with pytest.raises(ValueError, match="guidance is nan; it takes a number from 0"):
        maker.film(["a red circle slides right"], steps=2, guidance=float("nan"))
    with pytest.raises(ValueError, match="film is 3x16x16"):
        maker.extend(film[:, :3], ["a red circle slides right"])


@torch.no_grad()
def test_windows_cost_less():
    """At 9 x 48 x 48, in latents of 3 x 12 x 12, the products of attention are 0.29 of those of full attention."""
    size, of = (3, 12, 12), {}
    q = torch.zeros(1, 2, 432, 16, device="cpu")
    for name, attend in (("full", masked_attention), ("frame", InWindows(size, (1, 12, 12), "torch")),
                         ("part", InWindows(size, (3, 6, 6), "torch"))):  # fmt: skip
        of[name] = model_flops(attend, q, q, q)
    assert of["frame"] / of["full"] == pytest.approx(144 / 432) and of["part"] / of["full"] == pytest.approx(108 / 432)
