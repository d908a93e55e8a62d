"""Chapter 06's tests are shown wrong versions of the code, and each must be refused by the test that is named."""

import pytest
import test_latent_diffusion as right
import torch
import torch.nn.functional as F

from soralab.blocks import first_stage
from soralab.blocks.convolution import GEGLU, ResBlock, SpatialTransformer
from soralab.blocks.first_stage import Autoencoder
from soralab.blocks.perception import hinge_loss
from soralab.diffusion import guide
from soralab.latent_diffusion import Codebook, Painter, UNet
from soralab.vqvae import VectorQuantizer

RES, TRANSFORMER, UNET = ResBlock.forward, SpatialTransformer.forward, UNet.forward
POSTERIOR, RECONSTRUCT = Autoencoder.posterior, Autoencoder.reconstruct


def deaf_to_time(self, x, time=None):
    return RES(self, x, None if time is None else torch.zeros_like(time))


def mask_ignored(self, x, context, mask=None):
    return TRANSFORMER(self, x, context, None)


def mask_upside_down(self, x, context, mask=None):
    return TRANSFORMER(self, x, context, None if mask is None else ~mask)


def gate_and_value_exchanged(self, x):
    gate, value = self[0](x).chunk(2, dim=-1)
    return self[1](value * F.gelu(gate))


def everyone_reads_the_first_prompt(self, z, t, context=None, mask=None, concat=None):
    context = None if context is None else context[:1].expand_as(context)
    return UNET(self, z, t, context, mask, concat)


def two_skips_exchanged(self, z, t, context=None, mask=None, concat=None):
    z = z if concat is None else torch.cat([z, concat], dim=1)
    time, kept = self.time(t), []
    for layers in self.down:
        z = layers(z, time, context, mask)
        kept.append(z)
    kept[-2:] = kept[:-3:-1]  # of one shape
    z = self.middle(z, time, context, mask)
    for layers in self.up:
        z = layers(torch.cat([z, kept.pop()], dim=1), time, context, mask)
    return self.head(z)


def concat_forgotten(self, z, t, context=None, mask=None, concat=None):
    return UNET(self, z, t, context, mask, None if concat is None else torch.zeros_like(concat))


def quantised_in_the_encoder(self, x):
    mean, logvar = POSTERIOR(self, x)
    return (mean if self.quantiser is None else self.quantiser(mean)[0]), logvar


def never_quantised(self, z):
    return self.decoder(z), z.new_zeros(())


def channels_for_places(self, z):
    z_q, ids, loss, _ = VectorQuantizer.forward(self, z.reshape(len(z), *z.shape[2:], z.shape[1]))
    return z_q.reshape(z.shape), loss, ids


def no_way_back(self, z):
    quantised = VectorQuantizer.forward(self, z.permute(0, 2, 3, 1))
    return quantised.z_q.detach().permute(0, 3, 1, 2) + 0 * z, quantised.loss, quantised.indices


@torch.no_grad()
def scale_of_the_deviation(self, x):
    self.scale.copy_(self.posterior(x)[0].std())


def variance_for_deviation(mean, logvar, generator):
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + torch.exp(logvar) * noise


def whole_module(module):
    return module


def weight_upside_down(reconstruction, adversarial, last):
    size = [torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (reconstruction, adversarial)]
    return (size[1] / (size[0] + 1e-4)).clamp(0, 1e4).detach()


def not_of_length_1(features, x, copy):
    pairs = zip(features(x), features(copy), strict=True)
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)


def real_and_fake_exchanged(real, fake):
    return hinge_loss(fake, real)


def mean_kl(mean, logvar):
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1)


def one_noise_for_all(seed, count, shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)).expand(count, *shape)


def unguided(network, condition, null, scale, **options):
    return guide(network, condition, null, 1.0, **options)


def any_size(self, size):
    height, width = size or (self.side, self.side)
    return self.model.config.unet.out, height // self.f, width // self.f


WRONG = {  # name: (owner, what is replaced, by what, the test that must notice)
    "deaf_to_time": (ResBlock, "forward", deaf_to_time, right.test_every_picture_has_its_own_time_and_condition),
    "mask_ignored": (SpatialTransformer, "forward", mask_ignored,
                     right.test_masked_words_are_not_read_and_the_order_of_words_is_the_encoders),
    "mask_upside_down": (SpatialTransformer, "forward", mask_upside_down,
                         right.test_masked_words_are_not_read_and_the_order_of_words_is_the_encoders),
    "gate_and_value": (GEGLU, "forward", gate_and_value_exchanged, right.test_a_transformer_block_in_full),
    "first_prompt_for_all": (UNet, "forward", everyone_reads_the_first_prompt,
                             right.test_every_picture_has_its_own_time_and_condition),
    "two_skips_exchanged": (UNet, "forward", two_skips_exchanged,
                            right.test_skips_are_taken_back_in_reverse_and_each_once),
    "concat_forgotten": (UNet, "forward", concat_forgotten,
                         right.test_what_is_concatenated_lies_place_by_place_over_z),
    "quantised_in_the_encoder": (Autoencoder, "posterior", quantised_in_the_encoder,
                                 right.test_vector_quantisation_is_the_decoders_first_layer),
    "never_quantised": (Autoencoder, "reconstruct", never_quantised,
                        right.test_vector_quantisation_is_the_decoders_first_layer),
    "channels_for_places": (Codebook, "forward", channels_for_places,
                            right.test_the_codebook_finds_the_nearest_code_of_every_place),
    "no_way_back": (Codebook, "forward", no_way_back,
                    right.test_the_codebook_finds_the_nearest_code_of_every_place),
    "scale_upside_down": (Autoencoder, "fit_scale", scale_of_the_deviation,
                          right.test_latents_have_deviation_1_after_the_scale_is_fitted),
    "variance_for_deviation": (right, "draw", variance_for_deviation,
                               right.test_samples_have_the_mean_and_variance_that_the_encoder_says),
    "gradients_leak": (first_stage, "frozen", whole_module,
                       right.test_autoencoder_and_discriminator_each_learn_from_their_own_part),
    "leaky_freezer": (right, "frozen", whole_module, right.test_a_frozen_module_lets_gradients_through_and_keeps_none),
    "weight_upside_down": (right, "adaptive_weight", weight_upside_down,
                           right.test_the_adaptive_weight_makes_both_losses_pull_alike),
    "not_of_length_1": (right, "perceptual_distance", not_of_length_1, right.test_perceptual_distance),
    "hinge_exchanged": (right, "hinge_loss", real_and_fake_exchanged, right.test_hinge_loss),
    "mean_kl": (right, "kl_divergence", mean_kl, right.test_kl_is_torchs),
    "mean_kl_in_the_loss": (first_stage, "kl_divergence", mean_kl, right.test_the_kl_weight_is_the_official_codes),
}  # fmt: skip
PAINTED = {  # the same for what `Painter` uses; the tests take a painter
    "one_noise": ("soralab.latent_diffusion.noise", one_noise_for_all,
                  right.test_a_picture_depends_on_its_own_seed_and_prompt),
    "unguided": ("soralab.latent_diffusion.guide", unguided,
                 right.test_guidance_0_forgets_the_prompt_and_1_needs_no_other),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_version_is_refused(name, monkeypatch):
    owner, what, wrong, test = WRONG[name]
    test()
    monkeypatch.setattr(owner, what, wrong)
    with pytest.raises(AssertionError):
        test()


@pytest.mark.parametrize("name", PAINTED)
def test_wrong_painter_is_refused(name, monkeypatch):
    where, wrong, test = PAINTED[name]
    painter = Painter(right.alive(right.LatentDiffusion(right.TINY), torch.float32),
                      right.alive(Autoencoder(right.FIRST), torch.float32), side=16)  # fmt: skip
    monkeypatch.setattr(where, wrong)
    with pytest.raises(AssertionError):
        test(painter)


def test_a_painter_that_takes_any_size_is_refused(monkeypatch):
    monkeypatch.setattr(Painter, "shape", any_size)
    painter = Painter(right.alive(right.LatentDiffusion(right.TINY), torch.float32), None, side=16)
    with pytest.raises(pytest.fail.Exception):
        right.test_errors_name_the_argument(painter, lambda p: p.shape((30, 32)), "the height is 30")
