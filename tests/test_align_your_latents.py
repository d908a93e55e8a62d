"""Chapter 10: layers over time behind a painter's; alpha = 1 is the painter, and what the new layers see and do not."""

import math

import pytest
import torch
from tiny_models import numbers, randomise

from soralab.align_your_latents import (
    Animator,
    Beside,
    TemporalConv,
    TemporalDecoder,
    TemporalLayers,
    TemporalTransformer,
    VideoConfig,
    VideoLDM,
    decoder_loss,
    given_frames,
    video_loss,
)
from soralab.blocks.convolution import ResBlock
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.blocks.perception import FilmDiscriminator
from soralab.blocks.positions import sincos
from soralab.blocks.temporal import Hint
from soralab.latent_diffusion import PROCESS, LatentDiffusion, LatentDiffusionConfig, UNet, UNetConfig, word_ids

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)
PAINTER = LatentDiffusionConfig(UNET, vocabulary=128, words=12, depth=1)
VIDEO = VideoConfig(heads=2, vocabulary=128, context=16, words=16, depth=1)
FILMS, FRAMES = 2, 5
T = torch.tensor([0.3, 0.8], dtype=torch.float64)
IDS = word_ids(["a red circle", "a blue square"], 12)
WORDS = word_ids(["a red circle slides right", "a blue square grows"], 16)


def painter(seed=1):
    return randomise(LatentDiffusion(PAINTER), seed).double()


def fresh(seed=3):
    """As before training: phi as it is drawn."""
    torch.manual_seed(seed)
    model = painter()
    return VideoLDM(model, TemporalLayers(model.unet, VIDEO).double()).eval()


def trained():
    """phi with nothing at zero."""
    model = fresh()
    randomise(model.phi, 4)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return trained()


def films(seed=0, frames=FRAMES):
    return numbers(FILMS, frames, 4, 4, 4, seed=seed).double()


def painted(model, z):
    """The painter's answer, frame by frame, in the same batch."""
    times, ids = (x.repeat_interleave(z.shape[1], 0) for x in (T, IDS))
    return model.painter(z.flatten(0, 1), times, ids).unflatten(0, z.shape[:2])


# -------------------------------------------------------------------------------------------- alpha, and the painter


@torch.no_grad()
def test_before_training_it_is_the_painter_bit_for_bit():
    model, z = fresh(), films()
    assert torch.equal(model(z, T, IDS, WORDS), painted(model, z)) and painted(model, z).std() > 0.1
    assert set(model.phi.alphas().values()) == {0.5}
    first = given_frames(films(seed=5), torch.arange(FRAMES).expand(FILMS, -1) < 1)
    assert torch.equal(model(z, T, IDS, WORDS, first), painted(model, z))


@torch.no_grad()
def test_at_alpha_1_it_is_the_painter_bit_for_bit_whatever_phi_has_learnt():
    model, z = trained(), films()
    assert not torch.allclose(model(z, T, IDS, WORDS), painted(model, z), atol=1e-2)
    for layer in model.phi.beside.values():
        layer.a.fill_(math.inf)
    assert set(model.phi.alphas().values()) == {1.0}
    assert torch.equal(model(z, T, IDS, WORDS), painted(model, z))


@torch.no_grad()
def test_alpha_is_the_share_of_the_picture_model():
    layer, z = randomise(Beside(TemporalConv(8, 16, 4))).double(), numbers(6, 8, 2, 3).double()
    time, folded = numbers(2, 16).double(), z.unflatten(0, (2, 3)).permute(0, 2, 1, 3, 4)
    new = layer.layer(folded.flatten(3), time).unflatten(3, (2, 3)).permute(0, 2, 1, 3, 4).flatten(0, 1)
    alpha = 1 / (1 + math.exp(-float(layer.a)))
    torch.testing.assert_close(layer(z, 3, time), alpha * z + (1 - alpha) * new)
    assert 0.05 < abs(alpha - 0.5) and not torch.allclose(new, z, atol=0.1)


def test_only_phi_is_trained_and_all_of_it():
    model = trained()
    given = torch.tensor([[True, True, False, False, False], [False] * 5])
    generator = torch.Generator().manual_seed(0)
    video_loss(model, films(), IDS, WORDS, given, generator).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in model.painter.parameters())
    still = {name for name, p in model.phi.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not {name for name in still if "text" not in name}, still


def test_the_first_step_moves_more_than_alpha():
    """At the start z' = z, so alpha gets no gradient; what makes the first difference are the layers."""
    model = fresh()
    video_loss(model, films(), IDS, WORDS, torch.zeros(2, 5).bool(), torch.Generator().manual_seed(0)).sum().backward()
    layers = model.phi.beside.values()
    assert all(layer.a.grad == 0 for layer in layers)
    last = [layer.layer.conv2 if isinstance(layer.layer, TemporalConv) else layer.layer.over_time.to_out
            for layer in layers]  # fmt: skip
    assert all(part.weight.grad.abs().max() > 0 for part in last)


def test_phi_serves_another_painter_of_its_sizes_and_no_other(model):
    other = VideoLDM(painter(seed=9), model.phi)
    with torch.no_grad():
        assert not torch.allclose(other(films(), T, IDS, WORDS), model(films(), T, IDS, WORDS), atol=1e-3)
    deeper = LatentDiffusion(LatentDiffusionConfig(UNetConfig(width=8, blocks=2, groups=4, heads=2, context=16), 128))
    with pytest.raises(ValueError, match=r"phi has layers for \['down_1_0'.*this painter takes \['down_1_0'"):
        VideoLDM(deeper, model.phi)


def test_the_papers_656_million():
    """Table of sizes: 656 M of temporal layers on Stable Diffusion 2.1's 866 M."""
    with torch.device("meta"):
        unet = UNet(UNetConfig.text(context=1024, head_dim=64))
        phi = TemporalLayers(unet, VideoConfig(heads=5, context=1024))
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    ours = sum(p.numel() for name, p in phi.beside.named_parameters() if ".known." not in name)
    assert ours == 656_076_838


def test_layers_know_the_sides_of_their_values():
    """What is given is made as small as what it is laid over."""
    unet = UNet(UNetConfig(width=8, multipliers=(1, 2, 2), blocks=1, groups=4, heads=2, context=16, attention=(0, 2)))
    seen, hooks = {}, {layer: (name, dim, level) for name, layer, dim, level in unet.layers()}

    def after(layer, x):
        if layer in hooks:
            name, dim, level = hooks[layer]
            seen[name] = (x.shape[1] == dim, x.shape[2] * 2**level)
        return x

    unet(numbers(1, 4, 8, 8), torch.tensor([0.5]), numbers(1, 3, 16), after=after)
    assert set(seen.values()) == {(True, 8)} and len(seen) == len(hooks) == 18


# -------------------------------------------------------------------------------------------- what sees what


@torch.no_grad()
def test_frames_see_each_other_and_films_do_not(model):
    z = films()
    before = model(z, T, IDS, WORDS)
    z[0, 3] += 1
    after = model(z, T, IDS, WORDS)
    assert (after != before).flatten(2).any(2).tolist() == [[True] * FRAMES, [False] * FRAMES]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["attention", "convolution"])
def test_a_layer_over_time_sees_its_own_place_in_all_frames(kind):
    x, words = numbers(2, 8, 5, 6).double(), numbers(2, 3, 16).double()
    if kind == "attention":
        layer, told = randomise(TemporalTransformer(8, 2, 16)).double(), (torch.arange(5), words, None)
    else:  # its norms are over all places, so they are taken away
        layer, told = randomise(TemporalConv(8, 16, 4)).double(), (numbers(2, 16).double(),)
        layer.norm1 = layer.norm2 = torch.nn.Identity()
    before = layer(x, *told)
    x[1, :, 2, 4] = numbers(8, seed=9)
    changed = (layer(x, *told) != before).any(1)  # [films, frames, places]
    assert not changed[0].any() and changed.any(1).sum() == 1
    assert changed[1, :, 4].all() and changed[1].sum() == 5  # two convolutions over three frames reach all five


@torch.no_grad()
def test_frames_in_another_order_are_another_film(model):
    z, order = films(), torch.tensor([2, 0, 4, 1, 3])
    assert not torch.allclose(model(z[:, order], T, IDS, WORDS), model(z, T, IDS, WORDS)[:, order], atol=1e-2)


@torch.no_grad()
def test_the_sines_alone_tell_attention_the_order():
    layer, x = randomise(TemporalTransformer(8, 2, 16)).double(), numbers(2, 8, 5, 6).double()
    words, order, moments = numbers(2, 3, 16).double(), torch.tensor([2, 0, 4, 1, 3]), torch.arange(5)
    ordered = layer(x, moments, words, None)[:, :, order]
    torch.testing.assert_close(layer(x[:, :, order], moments[order], words, None), ordered)
    assert not torch.allclose(layer(x[:, :, order], moments, words, None), ordered, atol=1e-2)
    assert not torch.allclose(layer(x, moments / 2, words, None), layer(x, moments, words, None), atol=1e-2)


@torch.no_grad()
def test_padding_of_the_prompt_is_not_read_and_words_are(model):
    z = films()
    longer = torch.nn.functional.pad(WORDS[:, :6], (0, 10))
    torch.testing.assert_close(model(z, T, IDS, WORDS[:, :6]), model(z, T, IDS, longer))
    other = WORDS.clone()
    other[0] = word_ids(["a red circle slides left"], 16)[0]
    changed = (model(z, T, IDS, other) != model(z, T, IDS, WORDS)).flatten(1).any(1)
    assert changed.tolist() == [True, False]


@torch.no_grad()
def test_the_whole_of_a_prompt_is_the_mean_of_its_words_and_of_no_padding(model):
    """What hints are made of: padding that is nan would be in it."""
    film, mask, whole = model.phi.read(WORDS)
    for k, length in enumerate((WORDS > 0).sum(1)):
        torch.testing.assert_close(whole[k], film[k, : length + 1].mean(0))  # the end is a word too
        assert mask[k].tolist() == [True] * (length + 1) + [False] * (WORDS.shape[1] - length)
    empty = model.phi.read(WORDS * 0)
    torch.testing.assert_close(empty[2], empty[0][:, 0])


@torch.no_grad()
def test_the_moments_are_0_1_2_if_nobody_says_otherwise(model):
    z = films()
    assert torch.equal(model(z, T, IDS, WORDS), model(z, T, IDS, WORDS, moments=torch.arange(FRAMES)))
    assert not torch.allclose(model(z, T, IDS, WORDS, moments=torch.arange(FRAMES) / 2), model(z, T, IDS, WORDS))


@torch.no_grad()
def test_each_film_may_have_its_own_moments(model):
    z, halves = films(), torch.arange(FRAMES) / 2
    both = model(z, T, IDS, WORDS, moments=torch.stack([torch.arange(FRAMES).float(), halves]))
    torch.testing.assert_close(both[0], model(z, T, IDS, WORDS)[0])
    torch.testing.assert_close(both[1], model(z, T, IDS, WORDS, moments=halves)[1])
    assert not torch.allclose(both[1], model(z, T, IDS, WORDS)[1])


# -------------------------------------------------------------------------------------------- frames that are given


def test_what_is_given_and_where():
    z, given = films(), torch.tensor([[True, False, False, True, False], [False] * 5])
    c = given_frames(z, given)
    assert c.shape == (FILMS, FRAMES, 5, 4, 4)
    for film in range(FILMS):
        for frame in range(FRAMES):
            want = z[film, frame] if given[film, frame] else torch.zeros(4, 4, 4)
            assert torch.equal(c[film, frame, :4], want.double()) and (c[film, frame, 4] == given[film, frame]).all()
    z[~given] = torch.nan  # what is not given holds whatever it holds
    assert torch.equal(given_frames(z, given), c)


# --------------------------------------------------------------------------------- what a prompt lets expect, and where


def hint(seed=6):
    return randomise(Hint(6, 16), seed).double()


@torch.no_grad()
def test_a_hint_is_of_its_prompt_its_place_and_its_moment():
    """Against the formula at single points, rows down and columns across, films one after the other."""
    one, prompts, moments = hint(), numbers(2, 16, seed=1).double(), torch.tensor([[0.0, 1.5, 4.0], [2.0, 2.5, 3.0]])
    whole = one(prompts, moments, (4, 2)).unflatten(0, (2, 3))
    for film, frame, row, column in ((0, 0, 0, 0), (0, 2, 3, 1), (1, 1, 1, 0), (1, 2, 0, 1)):
        place = torch.tensor([8 * (row + 0.5) / 4, 8 * (column + 0.5) / 2, float(moments[film, frame])])
        axes = torch.cat([sincos(value, one.AXIS) for value in place]).double()
        want = one.mlp(one.where(axes) + one.prompt(prompts[film]))
        torch.testing.assert_close(whole[film, frame, :, row, column], want)
    same = one(prompts, torch.arange(3), (4, 2)).unflatten(0, (2, 3))
    torch.testing.assert_close(same, one(prompts, torch.arange(3.0).expand(2, -1), (4, 2)).unflatten(0, (2, 3)))


@torch.no_grad()
def test_a_hint_is_the_same_on_a_coarser_grid():
    """The middle of the frame is the middle, in whatever layer."""
    one, prompts = hint(), numbers(2, 16, seed=1).double()
    torch.testing.assert_close(one(prompts, torch.arange(2), (1, 3))[..., 0, 1], one(prompts, torch.arange(2), (3, 1))
                               [..., 1, 0])  # fmt: skip
    assert not torch.allclose(one(prompts, torch.arange(2), (1, 3)).mT, one(prompts, torch.arange(2), (3, 1)))


@torch.no_grad()
def test_every_layer_of_attention_gets_its_hint_and_no_other_layer():
    model, z = trained(), films()
    named = {name for name, layer, *_ in model.painter.unet.layers() if not isinstance(layer, ResBlock)}
    assert set(model.phi.hints) == named and named
    plain, nothing = model(z, T, IDS, WORDS), torch.zeros(())
    for one in model.phi.hints.values():
        kept = one.mlp[-1].weight.clone(), one.mlp[-1].bias.clone()
        one.mlp[-1].weight.mul_(nothing), one.mlp[-1].bias.mul_(nothing)
        assert not torch.allclose(model(z, T, IDS, WORDS), plain, atol=1e-3)
        one.mlp[-1].weight.copy_(kept[0]), one.mlp[-1].bias.copy_(kept[1])
    assert torch.equal(model(z, T, IDS, WORDS), plain)


@torch.no_grad()
def test_no_frame_given_is_nothing_said(model):
    nothing = given_frames(films(seed=5), torch.zeros(FILMS, FRAMES).bool())
    torch.testing.assert_close(model(films(), T, IDS, WORDS, nothing), model(films(), T, IDS, WORDS))
    first = given_frames(films(seed=5), torch.arange(FRAMES).expand(FILMS, -1) < 1)
    assert not torch.allclose(model(films(), T, IDS, WORDS, first), model(films(), T, IDS, WORDS), atol=1e-3)


def test_the_loss_is_that_of_v_by_a_network_of_the_noise():
    """An error in eps times sigma / alpha is one in x_0, and that over sigma one in v; alpha is held above a tenth."""
    seen = {}

    def network(x, t, ids, words, known, moments):
        seen.update(x=x, t=t, known=known, moments=moments, ids=ids, words=words)
        return torch.zeros_like(x)

    z, given, halves = films(), torch.tensor([[True] + [False] * 4, [False] * 5]), torch.arange(FRAMES) / 2
    loss = video_loss(network, z, IDS, WORDS, given, torch.Generator().manual_seed(7), halves)
    assert torch.equal(seen["known"], given_frames(z, given)) and len(set(seen["t"].tolist())) == FILMS
    assert seen["moments"] is halves and seen["ids"] is IDS and seen["words"] is WORDS
    alpha, sigma = (f(seen["t"])[:, None, None, None, None] for f in (PROCESS.alpha, PROCESS.sigma))
    eps = (seen["x"] - alpha * z) / sigma
    share = PROCESS.alpha(seen["t"]).clamp(min=0.1)
    torch.testing.assert_close(loss, eps.square().flatten(1).mean(1) / share**2)
    noisy, clean = share.argmin(), share.argmax()
    assert share[noisy] < 0.5 * share[clean]  # so an error at the noisier film's time counts more
    video_loss(network, z, IDS, WORDS, given, torch.Generator().manual_seed(7), halves, t=T)
    assert seen["t"] is T


def animator(model, **options):
    return Animator(model, lambda z: z[:, :, :3], **options)


def test_guidance_by_words_and_by_frames():
    """Two scales, each by its own equation, on a network whose answer says what it was asked."""
    asked = []

    class Network(torch.nn.Module):
        painter, phi = painter(), TemporalLayers(painter().unet, VIDEO)

        def forward(self, x, t, ids, words, known=None, moments=None):
            asked.append((bool(ids.any()), bool(words.any()), known is not None and bool(known.any())))
            return x * 0 + words.any() + 10.0 * (0.0 if known is None else float(known.any()))

    z, given = films().float(), torch.arange(FRAMES).expand(FILMS, -1) < 2
    maker = animator(Network())
    noise = films(seed=8).float()

    def answer(**options):
        """What the sampler gets from the network in a single step: eps, from x_0 = (x - sigma eps) / alpha."""
        x0 = maker.latents(["a red circle", "a blue square"], noise, steps=1, **options)[:, 2:]
        alpha, sigma = PROCESS.alpha(torch.ones(1)), PROCESS.sigma(torch.ones(1))
        return float(((noise[:, 2:] - alpha * x0) / sigma).mean())

    told = {"z": z, "given": given}
    assert answer(guidance=1.0) == pytest.approx(1, abs=1e-3) and asked[-1] == (True, True, False)
    assert answer(guidance=3.0) == pytest.approx(3, abs=1e-3) and asked[-1] == (False, False, False)
    assert answer(guidance=1.0, **told) == pytest.approx(11, abs=1e-3) and asked[-1] == (True, True, True)
    # f(c) = 11 and f() = 1: 1 + 2 (11 - 1)
    assert answer(guidance=1.0, context_guidance=2.0, **told) == pytest.approx(21, abs=1e-3)
    assert answer(guidance=3.0, context_guidance=2.0, **told) == pytest.approx(23, abs=1e-3)


def test_a_film_depends_on_its_seed_alone(model):
    maker = animator(trained().float())
    both = maker.film(["a red circle", "a blue square grows"], seed=4, size=(3, 4, 4, 4), steps=2)
    alone = maker.film(["a blue square grows"], seed=5, size=(3, 4, 4, 4), steps=2)
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)
    assert both.shape == (2, 3, 3, 4, 4) and both.abs().max() <= 1 and both.std() > 0.05
    assert not both.requires_grad


def test_a_film_is_decoded_without_a_gradient():
    weight = torch.ones((), requires_grad=True)
    maker = Animator(trained().float(), lambda z: weight * z[:, :, :3])
    assert not maker.film(["a red circle"], size=(2, 4, 4, 4), steps=1).requires_grad


def test_the_painter_is_asked_for_the_still_and_phi_for_the_film():
    maker = animator(trained().float(), still=lambda text: " ".join(text.split()[:3]))
    heard = []
    for name, encoder in (("painter", maker.model.painter.text), ("phi", maker.model.phi.text)):
        encoder.register_forward_hook(lambda _, given, __, name=name: heard.append((name, given[0])))
    maker.film(["a red circle slides right"], size=(2, 4, 4, 4), steps=1, guidance=1.0)
    assert torch.equal(dict(heard)["painter"], word_ids(["a red circle"], PAINTER.words))
    assert torch.equal(dict(heard)["phi"], word_ids(["a red circle slides right"], VIDEO.words))


class Recorder(Animator):
    """Keeps what `latents` is asked, the last time and always."""

    always = ()

    def latents(self, prompts, noise, z=None, given=None, moments=None, **options):
        self.asked = (z, given, moments)
        self.always = (*self.always, (noise, *self.asked))
        return super().latents(prompts, noise, z, given, moments, **options)


@pytest.mark.parametrize("first", [1, 2])
def test_going_on_keeps_what_there_is(first):
    maker, z = Recorder(trained().float(), lambda z: z), films(frames=first).float()
    whole = maker.go_on(z, ["a red circle", "a blue square"], frames=5, steps=2)
    assert whole.shape[1] == 5 and torch.equal(whole[:, :first], z) and whole[:, first:].std() > 0.05
    assert maker.asked[1].tolist() == [[k < first for k in range(5)]] * 2 and maker.asked[2] is None
    other = maker.go_on(z + 1, ["a red circle", "a blue square"], frames=5, steps=2)
    assert not torch.allclose(other[:, first:], whole[:, first:], atol=1e-3)


def test_between_keeps_every_second_frame_and_asks_at_half_moments():
    maker, z = Recorder(trained().float(), lambda z: z), films(frames=3).float()
    whole = maker.between(z, ["a red circle", "a blue square"], steps=2)
    assert whole.shape[1] == 5 and torch.equal(whole[:, ::2], z)
    assert maker.asked[1].tolist() == [[True, False, True, False, True]] * 2
    assert maker.asked[2].tolist() == [0, 0.5, 1, 1.5, 2]
    assert not torch.allclose(whole[:, 1], z[:, 0], atol=1e-2)


def test_between_goes_on_window_by_window():
    """Each window begins where the last one ended, at its own moments and from its own noise."""
    maker, z = Recorder(trained().float(), lambda z: z), films(frames=6).float()
    texts = ["a red circle", "a blue square"]
    whole = maker.between(z, texts, seed=3, window=2, steps=2)
    assert whole.shape[1] == 11 and torch.equal(whole[:, ::2], z)
    noises, known, given, moments = zip(*maker.always, strict=True)
    assert [m.tolist() for m in moments] == [[0, 0.5, 1, 1.5, 2], [2, 2.5, 3, 3.5, 4], [4, 4.5, 5]]
    assert [g.shape[1] for g in given] == [5, 5, 3] and torch.equal(known[1][:, ::2], z[:, 2:5])
    assert not any(torch.equal(a, b) for n in noises[:2] for m in noises[:2] if n is not m for a in n for b in m)
    alone = maker.between(z[:, :3], texts, seed=3, window=2, steps=2)
    assert torch.equal(alone, whole[:, :5])


# -------------------------------------------------------------------------------------------- the decoder in time


def first_stage():
    return randomise(Autoencoder(AutoencoderConfig(width=8, multipliers=(1, 2), groups=4)), 6).double()


@torch.no_grad()
def test_the_decoder_begins_as_the_picture_decoder_and_then_sees_other_frames():
    autoencoder, z = first_stage(), films()
    autoencoder.scale.fill_(0.7)
    decoder = TemporalDecoder(autoencoder).double().eval()
    alone = autoencoder.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    assert torch.equal(decoder(z), alone)
    randomise(decoder.beside)
    before = decoder(z)
    z[0, 2] += 1
    changed = (decoder(z) != before).flatten(2).any(2)
    assert changed.tolist() == [[True] * FRAMES, [False] * FRAMES] and not torch.allclose(before, alone, atol=1e-2)


@torch.no_grad()
def test_a_codebook_stays_the_decoders_first_layer():
    class Rounded(torch.nn.Module):
        def forward(self, z):
            return z.round(), z.new_zeros(()), None

    autoencoder = Autoencoder(AutoencoderConfig(width=8, multipliers=(1, 2), groups=4, codes=8), Rounded()).double()
    z = films()
    decoder = TemporalDecoder(autoencoder).double()
    assert torch.equal(decoder(z), autoencoder.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2]))


@pytest.mark.parametrize("adversary", [True, False])
def test_the_decoder_and_its_judge_are_trained_by_their_own_weights(adversary):
    decoder, judge = TemporalDecoder(first_stage()).double(), FilmDiscriminator(3, 4).double()
    randomise(decoder.beside)
    film = numbers(2, 3, 3, 8, 8).double().tanh()
    loss, logged = decoder_loss(decoder, judge, film, torch.Generator().manual_seed(1), adversary)
    loss.backward()
    assert all(p.grad is None for p in decoder.autoencoder.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in decoder.beside.parameters())
    assert all((p.grad is not None) == adversary for p in judge.parameters())
    with torch.no_grad():
        drawn = decoder.autoencoder.encode(film.flatten(0, 1), torch.Generator().manual_seed(1))
        copy = decoder(drawn.unflatten(0, (2, 3)))
        error = film - copy
        assert logged["misfit"] == pytest.approx(float(error.square().mean() + 0.1 * error.abs().mean()))
        if adversary:
            real, fake = judge(film), judge(copy)
            want = logged["misfit"] - 0.5 * logged["lambda"] * float(fake.mean())
            want += 0.5 * float((1 - real).relu().mean() + (1 + fake).relu().mean())
            assert float(loss) == pytest.approx(want) and logged["lambda"] > 0


def test_latents_are_drawn_frame_by_frame_and_jittered():
    """What the decoder gets of a film that stands still: no two frames alike, and as far off as jitter says."""
    class Ear(torch.nn.Module):
        def __init__(self, autoencoder):
            super().__init__()
            self.autoencoder, self.heard = autoencoder, []

        def forward(self, z):
            self.heard.append(z)
            return torch.zeros(*z.shape[:2], 3, 8, 8, dtype=z.dtype)

    ear, film = Ear(first_stage()), numbers(8, 1, 3, 8, 8).double().expand(-1, 6, -1, -1, -1)
    for jitter in (0.0, 0.0, 0.5):
        decoder_loss(ear, None, film, torch.Generator().manual_seed(len(ear.heard) // 2), False, jitter=jitter)
    plain, same, moved = ear.heard
    assert torch.equal(plain, same) and (plain[:, 1:] != plain[:, :-1]).all()
    own = ear.autoencoder.posterior(film.flatten(0, 1))[1].mul(0.5).exp().unflatten(0, (8, 6)) * ear.autoencoder.scale
    mean = ear.autoencoder.encode(film.flatten(0, 1)).unflatten(0, (8, 6))
    for z, extra in ((plain, 0.0), (moved, 0.5)):
        off = (z - mean) / (own.square() + extra**2).sqrt()
        assert abs(off.mean()) < 0.1 and abs(off.std() - 1) < 0.1


@torch.no_grad()
def test_the_judge_sees_time():
    judge, film = randomise(FilmDiscriminator(3, 4)), numbers(1, 6, 3, 16, 16)
    assert judge(film).shape == (1, 1, 6, 4, 4)
    assert not torch.allclose(judge(film.flip(1)), judge(film).flip(2), atol=1e-3)
    before = judge(film)
    film[:, 2] = numbers(3, 16, 16, seed=5)
    assert (judge(film) != before).flatten(3).any(3)[0, 0].all()  # its three convolutions reach all six frames


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, says", [
    (lambda m: m(films()[:, 0], T, IDS, WORDS), r"z is \[2, 4, 4, 4\]; it takes \[batch, frames, channels"),
    (lambda m: m(films(), T, IDS, WORDS, moments=torch.arange(4)), r"moments, known: got \[4\] .* takes \[5\] and"),
    (lambda m: m(films(), T, IDS, WORDS, moments=torch.zeros(3, 5)), r"got \[3, 5\] and None; .* takes \[5\]"),
    (lambda m: m(films(), T, IDS, WORDS, films()), r"got \[5\] and \[2, 5, 4, 4, 4\]; .* \[2, 5, 5, 4, 4\]"),
    (lambda m: animator(m).between(films()[:, :1], ["a", "a"]), "z has 1 frame; it takes at least 2 to film between"),
    (lambda m: given_frames(films(), torch.zeros(2, 4).bool()), r"given is \[2, 4\]; .* it takes \[2, 5\]"),
    (lambda m: given_frames(films(), torch.tensor([[True] * 5, [False] * 5])), "given covers every frame of a film"),
    (lambda m: animator(m).film([]), "prompts is empty; it takes one or more"),
    (lambda m: animator(m).film("a"), "prompts is the text 'a'; it takes a list of texts"),
    (lambda m: animator(m).latents("aa", films()), "prompts is the text 'aa'"),
    (lambda m: animator(m).latents(["a", "a"], films(), steps=1, guidance=float("nan")), "guidance is nan; it takes"),
    (lambda m: animator(m).latents(["a", "a"], films(), films(), torch.eye(2, 5) > 0, steps=1,
                                   context_guidance=float("nan")), "guidance is nan; it takes a number from 0"),
    (lambda m: animator(m).go_on(films(), ["a", "a"], 9), "z, frames: got 5 and 9; takes 1 or 2"),
    (lambda m: animator(m).go_on(films()[:, :2], ["a", "a"], 2), "z, frames: got 2 and 2; takes 1 or 2"),
])  # fmt: skip
def test_errors_name_the_argument(model, make, says):
    with pytest.raises(ValueError, match=says):
        make(model)
