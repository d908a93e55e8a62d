"""Chapter 06: latent diffusion. That diffusers' weights give diffusers' output is in tests/parity."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from einops import rearrange
from torch import nn

from soralab.blocks import SpatialAttention, SpatialTransformer
from soralab.blocks.convolution import ResBlock
from soralab.blocks.first_stage import (
    Autoencoder,
    AutoencoderConfig,
    draw,
    first_stage_loss,
    kl_divergence,
    misfit,
)
from soralab.blocks.perception import (
    PatchDiscriminator,
    adaptive_weight,
    frozen,
    hinge_loss,
    perceptual_distance,
)
from soralab.diffusion import ScaledLinearBeta, diffusion_loss
from soralab.files.checkpoints import CheckpointError, config_of, save_checkpoint
from soralab.latent_diffusion import (
    Codebook,
    LatentDiffusion,
    LatentDiffusionConfig,
    Painter,
    UNet,
    UNetConfig,
    build_autoencoder,
    load_autoencoder,
)

FIRST = AutoencoderConfig(width=8, groups=4)
UNET = UNetConfig(width=8, groups=4, blocks=1, heads=2, context=12)
TINY = LatentDiffusionConfig(UNET, vocabulary=160, words=8, depth=1)


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@torch.no_grad()
def alive(model, dtype=torch.float64):
    """With nothing at zero or one: fresh blocks do nothing, and would hide mistakes."""
    for seed, parameter in enumerate(model.parameters()):
        scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.to(dtype).eval()


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------ the paper's tables


@pytest.mark.parametrize("name, parameters", [
    ("ldm4", 274_056_163), ("imagenet", 400_920_579), ("text", 872_300_484), ("stable_diffusion", 859_520_964),
])  # fmt: skip
def test_published_unets(name, parameters):
    with torch.device("meta"):
        assert count(UNet(getattr(UNetConfig, name)())) == parameters


@pytest.mark.parametrize("name, encoder, decoder", [
    ("f4", 22_351_238, 32_960_771), ("f8", 34_163_592, 49_490_179),
])  # fmt: skip
def test_published_autoencoders(name, encoder, decoder):
    """The 1 x 1 convolutions around z, which the official code counts apart, are the last and the first layer here."""
    with torch.device("meta"):
        model = Autoencoder(getattr(AutoencoderConfig, name)())
    assert count(model.encoder) - count(model.encoder[-1]) == encoder
    assert count(model.decoder) - count(model.decoder[0]) == decoder
    assert name != "f8" or count(model) == 83_653_863  # Stable Diffusion's
    assert model.config.f == int(name[1:])


def test_published_discriminator():
    with torch.device("meta"):
        model = PatchDiscriminator()
        assert model(torch.empty(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert count(model) == 2_765_633


# --------------------------------------------------------------------------------------------------- the noise process


def test_the_schedule_is_linear_in_the_root_of_beta():
    process = ScaledLinearBeta()
    root = process.betas.sqrt()
    assert process.betas[[0, -1]].tolist() == pytest.approx([0.0015, 0.0195])
    torch.testing.assert_close(root.diff(), ((0.0195**0.5 - 0.0015**0.5) / 999 * torch.ones(999)).double())
    assert process.alpha(0.25).item() ** 2 == pytest.approx((1 - process.betas[:250]).prod().item())


def test_the_posterior_against_monte_carlo():
    """Walk from x_0 to x_s to x_t many times; what x_t tells of x_s is a line, and the scatter about it a variance."""
    process, s, t, x0 = ScaledLinearBeta(), 0.3, 0.35, 0.8
    x_s = process.alpha(s) * x0 + process.sigma(s) * numbers(400_000, seed=1)
    scale, variance = process.transition(t, s)
    x_t = scale * x_s + variance.sqrt() * numbers(400_000, seed=2)
    assert x_t.var().item() == pytest.approx((1 - process.alpha(t) ** 2).item(), rel=0.01)
    slope = torch.cov(torch.stack([x_s, x_t]))[0, 1] / x_t.var()
    level = x_s.mean() - slope * x_t.mean()
    on_x0, on_x, var = process.posterior(t, s)
    assert slope.item() == pytest.approx(on_x.item(), abs=0.004)
    assert level.item() == pytest.approx(on_x0.item() * x0, abs=0.004)
    assert (x_s - slope * x_t - level).var().item() == pytest.approx(var.item(), rel=0.01)
    assert var < 0.5 * process.sigma(s) ** 2  # x_t does tell something: the check is not of two equal numbers


def test_equation_3_is_the_error_of_the_noise():
    model = alive(LatentDiffusion(TINY))
    z, eps, t = numbers(2, 4, 4, 4, seed=3), numbers(2, 4, 4, 4, seed=4), torch.tensor([0.2, 0.8]).double()
    ids = torch.tensor([[3, 4, 0], [5, 0, 0]])
    process = ScaledLinearBeta()
    a, s = process.alpha(t)[:, None, None, None], process.sigma(t)[:, None, None, None]
    want = (eps - model(a * z + s * eps, t, ids)).square().mean((1, 2, 3))
    got = diffusion_loss(process, model, z, "eps", t=t, eps=eps, condition={"ids": ids})
    torch.testing.assert_close(got, want)


# ----------------------------------------------------------------------------------------------------- the first stage


def test_kl_is_torchs():
    mean, logvar = numbers(3, 4, 2, 2, seed=5), numbers(3, 4, 2, 2, seed=6)
    q, p = torch.distributions.Normal(mean, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(kl_divergence(mean, logvar), torch.distributions.kl_divergence(q, p).sum((1, 2, 3)))


def test_samples_have_the_mean_and_variance_that_the_encoder_says():
    mean, logvar = torch.full((1, 200_000), 1.5), torch.full((1, 200_000), -0.4)
    torch.manual_seed(0)
    assert torch.equal(draw(mean, logvar, None), draw(mean, logvar, torch.Generator().manual_seed(0)))  # the global one
    z = draw(mean, logvar, torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(1.5, abs=0.01) and z.var().log().item() == pytest.approx(-0.4, abs=0.02)


@torch.no_grad()
def test_latents_have_deviation_1_after_the_scale_is_fitted():
    model, x = alive(Autoencoder(FIRST)), numbers(40, 3, 16, 16, seed=7)
    before = model.encode(x)
    model.fit_scale(x)
    z = model.encode(x, torch.Generator().manual_seed(1))
    assert z.std().item() == pytest.approx(1, abs=0.03) and abs(before.std().item() - 1) > 0.1
    torch.testing.assert_close(model.encode(x), before * model.scale)  # one number for all channels
    torch.testing.assert_close(model.decode(model.encode(x)), model.reconstruct(before)[0])


@torch.no_grad()
def test_the_scale_by_hand_from_few_latents():
    """The law of total variance over all latents alike, n in the denominator: with few of them it shows."""
    model, x = alive(Autoencoder(replace(FIRST, latent=1))), numbers(1, 3, 8, 8, seed=7)
    mean, logvar = (part.flatten().tolist() for part in model.posterior(x))
    model.fit_scale(x)
    middle = sum(mean) / 4
    variance = sum((m - middle) ** 2 for m in mean) / 4 + sum(torch.tensor(logvar).exp().tolist()) / 4
    assert len(mean) == 4 and model.scale.item() == pytest.approx(variance**-0.5, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_first_stage_in_half_precision_decodes_what_it_encodes(dtype):
    """The posterior is in float32, for the sums of squares that it goes into; latents are of the pictures' kind."""
    model, x = alive(Autoencoder(FIRST), dtype), numbers(1, 3, 8, 8, dtype=torch.float32).to(dtype)
    assert [part.dtype for part in model.posterior(x)] == [torch.float32] * 2
    for generator in (None, torch.Generator().manual_seed(0)):
        z = model.encode(x, generator)
        assert z.dtype == dtype and model.decode(z).dtype == dtype


@pytest.mark.parametrize("multipliers, f", [((1,), 1), ((1, 2), 2), ((1, 2, 4), 4), ((1, 1, 1, 1), 8)])
@torch.no_grad()
def test_sizes_of_latents(multipliers, f):
    model = alive(Autoencoder(replace(FIRST, multipliers=multipliers)))
    assert model.config.f == f
    z = model.encode(numbers(2, 3, 16, 24))
    assert z.shape == (2, 4, 16 // f, 24 // f) and model.decode(z).shape == (2, 3, 16, 24)


class Rounded(nn.Module):
    """The narrowest quantiser: to whole numbers, straight-through."""

    def forward(self, z):
        """(z_q, loss, ids)."""
        return z + (z.round() - z).detach(), (z - z.round()).square().mean(), z.round().long()


def test_vector_quantisation_is_the_decoders_first_layer():
    model = alive(Autoencoder(FIRST, Rounded()))
    x = numbers(2, 3, 16, 16, seed=8)
    z = model.encode(x)
    assert z.shape == (2, 4, 4, 4) and (z != z.round()).any()  # the encoder gives what comes before it
    torch.testing.assert_close(model.decode(z), model.decoder(z.round()))
    loss, logged = first_stage_loss(model, PatchDiscriminator(3, 4, 1).double(), None, x, torch.Generator(), False)
    want = misfit(x - model.decoder(z.round())) + (z - z.round()).square().mean()
    assert loss.item() == pytest.approx(want.item()) and logged["regulariser"] > 0


def test_the_codebook_finds_the_nearest_code_of_every_place():
    torch.manual_seed(0)
    book, z, pull = Codebook(7, 4).double(), numbers(2, 4, 3, 5, seed=40).requires_grad_(), numbers(2, 4, 3, 5, seed=42)
    z_q, loss, ids = book(z)
    apart = (z[:, None] - book.codebook[None, :, :, None, None]).square().sum(2)  # [batch, codes, h, w]
    assert torch.equal(ids, apart.argmin(1)) and len(ids.unique()) > 2
    torch.testing.assert_close(z_q, book.codebook[ids].permute(0, 3, 1, 2))
    torch.testing.assert_close(loss, 1.25 * apart.amin(1).mean() / 4)  # the code's own term, and beta = 0.25
    torch.testing.assert_close(torch.autograd.grad((z_q * pull).sum(), z)[0], pull)  # straight through


def vq_training(steps=120):
    """A first stage with a codebook on eight coarse pictures: (model, pictures, misfit before, misfit after)."""
    torch.manual_seed(0)
    model, judge = build_autoencoder(replace(FIRST, codes=32)), PatchDiscriminator(3, 4, 1)
    x = nn.functional.interpolate(numbers(8, 3, 4, 4, seed=41, dtype=torch.float32).tanh(), scale_factor=4)
    optimizer, misses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(steps):
        loss, logged = first_stage_loss(model, judge, None, x, torch.Generator(), adversary=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        misses.append(logged["misfit"])
    return model.eval(), x, misses[0], misses[-1]


def test_a_first_stage_learns_through_its_codebook():
    model, x, before, after = vq_training()
    assert after < 0.5 * before
    model.fit_scale(x)
    z = model.encode(x, torch.Generator())
    assert torch.equal(z, model.encode(x)) and z.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    codes = model.quantiser(z / model.scale)[2]
    assert codes.shape == (8, 4, 4) and len(codes.unique()) > 4
    torch.testing.assert_close(model.decode(z), model.decoder(model.quantiser.codebook[codes].permute(0, 3, 1, 2)))


def maps(x):
    return [x[:, :, ::2, ::2], torch.tanh(x.roll(1, -1))]


def test_perceptual_distance():
    x, y = numbers(3, 5, 4, 4, seed=9), numbers(3, 5, 4, 4, seed=10)
    far = perceptual_distance(maps, x, y)
    one = [nn.functional.cosine_similarity(a, b, dim=1) for a, b in zip(maps(x), maps(y), strict=True)]
    torch.testing.assert_close(far, sum((2 - 2 * c).mean((1, 2)) for c in one) / 2)
    assert (perceptual_distance(maps, x, x) < 1e-6).all()
    halves = [perceptual_distance(lambda z, k=k: [maps(z)[k]], x, y) for k in range(2)]
    torch.testing.assert_close(far, (halves[0] + halves[1]) / 2)
    torch.testing.assert_close(perceptual_distance(lambda z: [z], x, -3 * x), torch.full((3,), 4.0).double())


def test_a_first_stage_begins_with_little_noise_and_bounds_its_variance():
    torch.manual_seed(0)
    model, x = Autoencoder(FIRST), numbers(2, 3, 16, 16, seed=5, dtype=torch.float32)
    mean, logvar = model.posterior(x)
    assert abs(logvar.mean().item() + 6) < 1 and abs(mean.mean().item()) < 1
    with torch.no_grad():
        for bias, bound in ((1000.0, 20.0), (-1000.0, -30.0)):
            model.encoder[-1].bias[FIRST.latent :] = bias
            assert (model.posterior(x)[1] == bound).all()


def test_a_discriminator_begins_as_published():
    """Isola et al. 2017, appendix 6.2: weights of deviation 0.02, gains about 1."""
    torch.manual_seed(0)
    for module in PatchDiscriminator(3, 64, 3):
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            weight, gain = module.weight, isinstance(module, nn.BatchNorm2d)
            assert weight.std().item() == pytest.approx(0.02, rel=0.25 if gain else 0.05)
            assert weight.mean().item() == pytest.approx(float(gain), abs=0.01)


@pytest.mark.parametrize("layers, widths", [(1, [8, 16]), (3, [8, 16, 32, 64]), (5, [8, 16, 32, 64, 64, 64])])
def test_a_discriminator_grows_no_wider_than_eight_times(layers, widths):
    found = [m.out_channels for m in PatchDiscriminator(3, 8, layers) if isinstance(m, nn.Conv2d)]
    assert found == [*widths, 1]


def test_hinge_loss():
    assert hinge_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])).item() == 0.5 * (0.25 + 0.5)


def test_the_adaptive_weight_makes_both_losses_pull_alike():
    last = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)

    def losses():
        return (last * 300).square().sum(), (last - 1).square().sum() * 0.01

    strong, weak = losses()
    weight = adaptive_weight(weak, strong, last)
    pull = [torch.autograd.grad(loss, last)[0].norm().item() for loss in (weak, weight * strong)]
    assert not weight.requires_grad and pull[0] == pytest.approx(pull[1], rel=1e-4)
    assert adaptive_weight(*losses(), last) == 1e4  # so far apart that the limit holds


def test_autoencoder_and_discriminator_each_learn_from_their_own_part():
    model, judge = alive(Autoencoder(FIRST)), alive(PatchDiscriminator(3, 4, 1)).train()
    x = numbers(4, 3, 16, 16, seed=11)
    first_stage_loss(model, judge, None, x, torch.Generator().manual_seed(0))[0].backward()
    got = [p.grad.clone() for p in judge.parameters()]
    mean, logvar = model.posterior(x)
    copy = model.reconstruct(draw(mean, logvar, torch.Generator().manual_seed(0)))[0]
    judge.zero_grad()
    hinge_loss(judge(x), judge(copy.detach())).backward()
    for a, b in zip(got, judge.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)  # no more and no less than the hinge loss
    both = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    first_stage_loss(model, judge, None, x, torch.Generator().manual_seed(0), adversary=False)[0].backward()
    assert any((a - p.grad).abs().max() > 1e-6 for a, p in zip(both, model.parameters(), strict=True))


def test_what_the_autoencoder_learns_from_is_its_own_part_alone():
    """Its gradient is that of misfit + LPIPS + KL + strength lambda L_adv, lambda from both errors of the copy."""
    model, judge = alive(Autoencoder(FIRST)), alive(PatchDiscriminator(3, 4, 1)).train()
    x, weights = numbers(4, 3, 16, 16, seed=11), list(model.parameters())
    settings = dict(kl=0.5, perceptual=0.7, strength=0.4)
    first_stage_loss(model, judge, maps, x, torch.Generator().manual_seed(0), **settings)[0].backward()
    got = [p.grad.clone() for p in weights]

    mean, logvar = model.posterior(x)
    copy = model.reconstruct(draw(mean, logvar, torch.Generator().manual_seed(0)))[0]
    error = misfit(x - copy) + 0.7 * perceptual_distance(maps, x, copy).mean()
    cheated = -judge(copy).mean()
    pull = adaptive_weight(error, cheated, model.decoder[-1].weight)
    want = error + 0.5 * kl_divergence(mean, logvar).mean() / x[0].numel() + 0.4 * pull * cheated
    for a, b in zip(got, torch.autograd.grad(want, weights, allow_unused=True), strict=True):
        torch.testing.assert_close(a, b)


def test_a_frozen_module_lets_gradients_through_and_keeps_none():
    layer, x = nn.Linear(3, 2), numbers(4, 3, dtype=torch.float32).requires_grad_()
    frozen(layer)(x).sum().backward()
    assert x.grad.abs().sum() > 0 and layer.weight.grad is None
    torch.testing.assert_close(frozen(layer)(x), layer(x))


def test_the_misfit_is_the_square_and_a_tenth_of_the_absolute_error():
    assert misfit(torch.tensor([1.0, -2.0, 0.0, 0.0])).item() == pytest.approx(5 / 4 + 0.1 * 3 / 4)


def test_the_kl_weight_is_the_official_codes():
    """There the sums over a picture are added: misfit + 1e-6 KL. Divided by its number of values, that is ours."""
    model, x = alive(Autoencoder(FIRST)), numbers(3, 3, 16, 16, seed=12)
    judge = PatchDiscriminator(3, 4, 1).double()
    weights = {"adversary": False, "kl": 0.01, "perceptual": 0.3}
    loss, logged = first_stage_loss(model, judge, maps, x, torch.Generator().manual_seed(0), **weights)
    mean, logvar = model.posterior(x)
    copy = model.reconstruct(draw(mean, logvar, torch.Generator().manual_seed(0)))[0]
    seen = perceptual_distance(maps, x, copy)
    missed = torch.stack([misfit(error) for error in x - copy])
    summed = x[0].numel() * (missed + 0.3 * seen) + 0.01 * kl_divergence(mean, logvar)
    assert loss.item() == pytest.approx(summed.mean().item() / x[0].numel(), rel=1e-6)
    assert sum(logged.values()) == pytest.approx(loss.item()) and logged["lambda"] == 0


# ----------------------------------------------------------------------------------------------- the denoising U-Net


def test_fresh_blocks_are_the_identity_and_a_fresh_unet_says_zero():
    x, context = numbers(2, 8, 4, 4, dtype=torch.float32), numbers(2, 3, 6, dtype=torch.float32)
    assert torch.equal(ResBlock(8, 8, 16, groups=4)(x, numbers(2, 16, dtype=torch.float32)), x)
    assert torch.equal(SpatialAttention(8, 2, groups=4)(x), x)
    assert torch.equal(SpatialTransformer(8, 2, 6, groups=4)(x, context), x)
    assert not UNet(UNET)(numbers(2, 4, 4, 4, dtype=torch.float32), torch.rand(2), torch.randn(2, 3, 12)).any()


def test_cross_attention_is_the_papers():
    """softmax(Q K^T / sqrt(d)) V with Q of the picture, K and V of the condition, head by head."""
    block = alive(SpatialTransformer(8, 2, 6, groups=4))
    z, context = numbers(1, 5, 8, seed=13), numbers(1, 3, 6, seed=14)
    keys, values = (context @ w.T for w in block.across.to_kv.weight.chunk(2))
    queries, mixed = z @ block.across.to_q.weight.T, []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        weights = (queries[..., part] @ keys[..., part].transpose(1, 2) / 2.0).softmax(-1)
        mixed.append(weights @ values[..., part])
    want = torch.cat(mixed, -1) @ block.across.to_out.weight.T + block.across.to_out.bias
    torch.testing.assert_close(block.across(z, context), want)


def test_a_transformer_block_in_full():
    block = alive(SpatialTransformer(8, 2, 6, groups=4))
    x, context = numbers(2, 8, 3, 2, seed=15), numbers(2, 3, 6, seed=16)
    z = rearrange(block.proj_in(block.norm(x)), "b c h w -> b (h w) c")
    z = z + block.among(block.norm1(z))
    z = z + block.across(block.norm2(z), context)
    hidden = block.norm3(z) @ block.mlp[0].weight.T + block.mlp[0].bias
    z = z + block.mlp[1](hidden[..., :32] * nn.functional.gelu(hidden[..., 32:]))
    want = x + block.proj_out(rearrange(z, "b (h w) c -> b c h w", h=3))
    torch.testing.assert_close(block(x, context), want)


def test_masked_words_are_not_read_and_the_order_of_words_is_the_encoders():
    model, z, t = alive(UNet(UNET)), numbers(2, 4, 4, 4, seed=17), torch.tensor([0.3, 0.6]).double()
    context = numbers(2, 5, 12, seed=18)
    mask = torch.tensor([[True, True, True, False, False]] * 2)
    answer = model(z, t, context, mask)
    other = context.clone()
    other[:, 3:] = 100.0
    assert torch.equal(model(z, t, other, mask), answer)
    torch.testing.assert_close(model(z, t, context[:, :3]), answer)
    order = [2, 0, 1]
    torch.testing.assert_close(model(z, t, context[:, order]), answer)  # cross-attention reads a set
    other[:, 0] += 1
    assert (model(z, t, other, mask) - answer).abs().max() > 1e-4


def test_a_prompts_padding_is_not_read_on_its_way_to_the_picture():
    """The encoder's mask reaches the U-Net: two more places of padding change nothing, another word does."""
    model, z, t = alive(LatentDiffusion(TINY)), numbers(2, 4, 4, 4, seed=17), torch.tensor([0.3, 0.6]).double()
    ids = torch.tensor([[5, 9, 2, 0, 0, 0], [7, 0, 0, 0, 0, 0]])
    answer = model(z, t, ids)
    torch.testing.assert_close(model(z, t, nn.functional.pad(ids, (0, 2))), answer)
    torch.testing.assert_close(model(z[1:], t[1:], ids[1:, :1]), answer[1:])
    other = ids.clone()
    other[1, 0] = 8
    changed = (model(z, t, other) - answer).abs().amax((1, 2, 3))
    assert changed[0] < 1e-12 and changed[1] > 1e-4


def test_every_picture_has_its_own_time_and_condition():
    model, z, context = alive(UNet(UNET)), numbers(3, 4, 4, 4, seed=19), numbers(3, 5, 12, seed=20)
    t = torch.tensor([0.1, 0.5, 0.9]).double()
    answer = model(z, t, context)
    for k in range(3):
        torch.testing.assert_close(model(z[k : k + 1], t[k : k + 1], context[k : k + 1])[0], answer[k])
    assert (model(z, t.flip(0), context)[[0, 2]] - answer[[0, 2]]).abs().amax((1, 2, 3)).min() > 1e-4
    assert (model(z, t, context.flip(0))[[0, 2]] - answer[[0, 2]]).abs().amax((1, 2, 3)).min() > 1e-4


def test_what_is_concatenated_lies_place_by_place_over_z():
    config = UNetConfig(channels=4 + 3, width=8, groups=4, blocks=1, attention=(), multipliers=(1,), context=None)
    model = alive(UNet(config))
    z, t, concat = numbers(1, 4, 8, 8, seed=21), torch.tensor([0.5]).double(), numbers(1, 3, 8, 8, seed=22)
    torch.testing.assert_close(model(z, t, concat=concat), model(torch.cat([z, concat], 1), t))
    other = concat.clone()
    other[:, 1, 2, 5] += 1
    first = model.down[0]
    changed = (first(torch.cat([z, other], 1), None, None, None) - first(torch.cat([z, concat], 1), None, None, None))
    assert changed[0].abs().amax(0).nonzero().float().mean(0).tolist() == [2.0, 5.0]
    assert (model(z, t, concat=other) - model(z, t, concat=concat)).abs().max() > 1e-4


def test_skips_are_taken_back_in_reverse_and_each_once():
    """Every entry of the way down meets its mirror image: it, and not another of its width and resolution."""
    config = UNetConfig(width=8, groups=4, blocks=2, multipliers=(1, 2, 3), attention=(1,), heads=2, context=12)
    model = alive(UNet(config))
    assert len(model.down) == len(model.up) == 3 * (2 + 1)
    kept, given = [], []
    for layers in model.down:
        layers.register_forward_hook(lambda _, into, out: kept.append(out))
    for layers in model.up:
        layers.register_forward_pre_hook(lambda _, into: given.append(into[0]))
    model(numbers(1, 4, 8, 12, seed=23), torch.tensor([0.5]).double(), numbers(1, 2, 12))
    widths = [24 + 24, 24 + 24, 24 + 16, 24 + 16, 16 + 16, 16 + 8, 16 + 8, 8 + 8, 8 + 8]
    sides = [(2, 3)] * 3 + [(4, 6)] * 3 + [(8, 12)] * 3
    assert [tuple(x.shape[1:]) for x in given] == [(width, *side) for width, side in zip(widths, sides, strict=True)]
    assert all(torch.equal(x[:, -skip.shape[1] :], skip) for x, skip in zip(given, reversed(kept), strict=True))


def test_a_larger_picture_is_seen_as_the_small_one_is():
    """Section 4.3.2: the U-Net is a convolution. Far from its edge and without attention, more picture changes nothing.

    Its norms look at the whole picture; they are taken out here.
    """
    config = UNetConfig(width=8, groups=4, blocks=1, multipliers=(1, 2), attention=(), heads=2, context=None)
    model = alive(UNet(config))
    model.middle[1] = nn.Identity()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    z, t = numbers(1, 4, 64, 64, seed=24), torch.tensor([0.5]).double()
    whole, part = model(z, t), model(z[..., :48, :48], t)
    torch.testing.assert_close(part[..., :16, :16], whole[..., :16, :16])
    assert (part - whole[..., :48, :48]).abs().max() > 1e-6  # near the new edge it does


# ------------------------------------------------------------------------------------------------- prompt to picture

PROMPT, OTHER = "a small red circle", "a large blue square"


@pytest.fixture
def painter():
    return Painter(alive(LatentDiffusion(TINY), torch.float32), alive(Autoencoder(FIRST), torch.float32), side=16)


def test_a_picture_depends_on_its_own_seed_and_prompt(painter):
    both = painter.paint([PROMPT, OTHER], seed=3, steps=3)
    assert both.shape == (2, 3, 16, 16) and both.abs().max() <= 1
    torch.testing.assert_close(painter.paint([OTHER], seed=4, steps=3)[0], both[1], rtol=1e-4, atol=1e-5)
    assert (painter.paint([OTHER], seed=5, steps=3)[0] - both[1]).abs().max() > 1e-3
    assert (painter.paint([PROMPT], seed=4, steps=3)[0] - both[1]).abs().max() > 1e-3


@pytest.mark.parametrize("sampler, options", [("ddpm", {}), ("ddim", {"eta": 1.0}), ("dpm_solver_pp", {})])
def test_samplers_give_the_same_picture_twice(painter, sampler, options):
    pictures = [painter.paint([PROMPT], steps=4, sampler=sampler, **options) for _ in range(2)]
    assert torch.equal(*pictures)
    assert (pictures[0] - painter.paint([PROMPT], steps=4)).abs().max() > 1e-3
    lots = [painter.paint([PROMPT], steps=4, sampler=sampler, generator=torch.Generator().manual_seed(k), **options)
            for k in (0, 1)]  # fmt: skip
    assert torch.equal(lots[0], pictures[0]) and torch.equal(*lots) == (sampler == "dpm_solver_pp")


def test_guidance_0_forgets_the_prompt_and_1_needs_no_other(painter):
    first, second = (painter.paint([text], steps=3, guidance=0.0) for text in (PROMPT, OTHER))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, painter.paint([""], steps=3, guidance=1.0))
    assert (painter.paint([PROMPT], steps=3, guidance=1.0) - first).abs().max() > 1e-3


def test_other_sizes(painter):
    assert painter.paint([PROMPT], steps=2, size=(24, 40)).shape == (1, 3, 24, 40)
    pixels = Painter(alive(LatentDiffusion(replace(TINY, unet=replace(UNET, channels=3, out=3))), torch.float32), None)
    assert pixels.f == 1 and pixels.paint([PROMPT], steps=2, size=(8, 6)).shape == (1, 3, 8, 6)


def save_both(folder):
    first = alive(Autoencoder(FIRST), torch.float32)
    model = alive(LatentDiffusion(TINY), torch.float32)
    save_checkpoint(folder / "latent_autoencoder", first.state_dict(), {"config": asdict(FIRST)})
    card = {"config": asdict(TINY), "autoencoder": "latent_autoencoder"}
    save_checkpoint(folder / "latent_diffusion", model.state_dict(), card)


def test_what_is_saved_paints_what_was_painted(tmp_path, monkeypatch, painter):
    save_both(tmp_path)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    loaded = Painter.load()
    assert loaded.model.config == TINY and loaded.autoencoder.config == FIRST and not loaded.model.training
    want = painter.paint([PROMPT], steps=2, size=(16, 16))
    assert torch.equal(loaded.paint([PROMPT], steps=2, size=(16, 16)), want)
    with pytest.raises(CheckpointError, match="latent_diffusion holds no Autoencoder: name another"):
        load_autoencoder("latent_diffusion")


def test_a_card_says_whether_there_is_a_codebook(tmp_path):
    config, x = replace(FIRST, codes=16), numbers(2, 3, 16, 16, dtype=torch.float32)
    model = build_autoencoder(config).eval()
    save_checkpoint(tmp_path / "vq", model.state_dict(), {"config": asdict(config)})
    loaded = load_autoencoder(tmp_path / "vq")
    assert loaded.config == config and isinstance(loaded.quantiser, Codebook)
    torch.testing.assert_close(loaded.decode(loaded.encode(x)), model.decode(model.encode(x)))
    assert build_autoencoder(FIRST).quantiser is None


def test_a_config_survives_its_card():
    assert config_of(LatentDiffusionConfig, json.loads(json.dumps(asdict(TINY)))) == TINY
    assert config_of(UNetConfig, json.loads(json.dumps(asdict(UNetConfig.ldm4())))) == UNetConfig.ldm4()


# ------------------------------------------------------------------------------------------------------------ errors


def paint(painter, **options):
    return painter.paint([PROMPT], **{"steps": 2, **options})


def told(painter, z=None, **changes):
    z, rest = torch.zeros(2, 4, 4, 4) if z is None else z, {"t": torch.zeros(2), "context": torch.zeros(2, 2, 12)}
    return painter.model.unet(z, **{**rest, **changes})


@pytest.mark.parametrize("make, says", [
    (lambda p: paint(p, steps=0), "steps is 0; it takes a whole number from 1 to 1000"),
    (lambda p: paint(p, steps=1001), "steps is 1001; it takes a whole number from 1 to 1000"),
    (lambda p: paint(p, steps=2.5), "steps: got 2.5, takes a whole number"),
    (lambda p: paint(p, guidance=-1.0), r"guidance is -1.0; it takes a number from 0 \(1: none\)"),
    (lambda p: paint(p, guidance=float("nan")), "guidance is nan; it takes a number from 0"),
    (lambda p: paint(p, guidance=float("inf")), "guidance is inf; it takes a number from 0"),
    (lambda p: paint(p, sampler="dim"), "sampler is 'dim'; it takes one of ddpm, ddim, euler, "),
    (lambda p: paint(p, size=(30, 32)), "the height is 30; it takes a multiple of 8: 24 or 32"),
    (lambda p: paint(p, size=(32, 4)), "the width is 4; it takes a multiple of 8: 8$"),
    (lambda p: paint(p, eta=2.0), "eta: got 2.0, takes a number in"),
    (lambda p: p.paint(["a purple circle"]), "unknown word in the prompt: 'purple'"),
    (lambda p: p.paint(["a small red circle left of a large blue square"]), "the prompt has 10 words; it takes"),
    (lambda p: p.autoencoder.encode(torch.zeros(1, 3, 30, 32)),
     "the height of x is 30; it takes a multiple of f, which is 4: 28 or 32"),
    (lambda p: p.autoencoder.encode(torch.zeros(1, 3, 32, 2)), "the width of x is 2; it takes a multiple of f, .*: 4$"),
    (lambda p: p.autoencoder.encode(torch.zeros(1, 1, 32, 32)), r"x is \[1, 1, 32, 32\]; it takes \[batch, 3, height"),
    (lambda p: p.autoencoder.encode(torch.zeros(3, 32, 32)), r"x is \[3, 32, 32\]; it takes \[batch, 3, height"),
    (lambda p: p.model.unet(torch.zeros(1, 4, 5, 4), torch.zeros(1), torch.zeros(1, 2, 12)),
     "the height of z is 5; it takes a multiple of 2"),
    (lambda p: p.model.unet(torch.zeros(1, 4, 4, 4), torch.zeros(1), concat=torch.zeros(1, 1, 4, 4)),
     r"z with concat is \[1, 5, 4, 4\]; it takes \[batch, 4, height, width\]"),
    (lambda p: p.model.unet(torch.zeros(1, 4, 4, 4), torch.zeros(1)), r"context is missing; .* \[batch, keys, 12\]"),
    (lambda p: UNet(replace(UNET, context=None))(torch.zeros(1, 4, 4, 4), torch.zeros(1), torch.zeros(1, 2, 12)),
     "context is given; this network takes none"),
    (lambda p: told(p, torch.zeros(2, 3, 4, 4), concat=torch.zeros(2, 1, 4, 2)),
     r"concat is \[2, 1, 4, 2\]; it takes z's \[2, 3, 4, 4\] but for the channels"),
    (lambda p: told(p, torch.zeros(2, 3, 4, 4), concat=torch.zeros(1, 1, 4, 4)),
     r"concat is \[1, 1, 4, 4\]; it takes z's \[2, 3, 4, 4\]"),
    (lambda p: told(p, context=torch.zeros(1, 2, 12)),
     r"context is \[1, 2, 12\]; it takes \[2, keys, 12\]"),
    (lambda p: told(p, context=torch.zeros(2, 2, 8)), r"context is \[2, 2, 8\]"),
    (lambda p: told(p, context=torch.zeros(2, 12)), r"context is \[2, 12\]"),
    (lambda p: told(p, t=torch.zeros(1)),
     r"t is \[1\]; it takes a time for each of z, \[2\]"),
    (lambda p: p.paint(PROMPT), "prompts is the text '.*'; it takes a list of texts"),
    (lambda p: p.paint([]), "prompts is empty; it takes one or more"),
    (lambda p: UNetConfig(width=30), "width is 30; it takes a multiple of groups, which is 32"),
    (lambda p: Autoencoder(replace(FIRST, codes=16)), "quantiser is missing; with 16 codes it takes a codebook"),
    (lambda p: AutoencoderConfig(width=30), "width is 30; it takes a multiple of groups, which is 8"),
])  # fmt: skip
def test_errors_name_the_argument(painter, make, says):
    with pytest.raises(ValueError, match=says):
        make(painter)
