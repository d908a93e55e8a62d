"""Chapter 14: layers that change nothing at first, what frames see, the prior, and one noise for all frames."""

from collections import Counter

import pytest
import torch
from tiny_models import numbers, randomise
from torch import nn

from soralab.align_your_latents import given_frames
from soralab.blocks import sincos
from soralab.latent_diffusion import PROCESS, UNet, UNetConfig
from soralab.make_a_video import (
    Decoder,
    DecoderConfig,
    FilmDecoder,
    Filmmaker,
    JointAttention,
    Prior,
    PseudoAttention,
    PseudoConv,
    attending,
    enlarge,
    film_loss,
    inflate,
    same_noise,
)

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)
CONFIG = DecoderConfig(embed=6, tokens=3, heads=2)
FILMS, FRAMES = 2, 5
T, RATE = torch.tensor([0.3, 0.8], dtype=torch.float64), torch.tensor([2.0, 7.0], dtype=torch.float64)


def decoder():
    return randomise(Decoder(UNet(UNET), CONFIG), 1).double()


def fresh():
    return FilmDecoder(decoder()).double().eval()


def trained():
    return randomise(FilmDecoder(decoder()), 3).double().eval()


@pytest.fixture(scope="module")
def model():
    return trained()


def films(seed=0, frames=FRAMES):
    return numbers(FILMS, frames, 4, 4, 4, seed=seed).double()


def looks(seed=5):
    return nn.functional.normalize(numbers(FILMS, 6, seed=seed).double(), dim=1)


# ---------------------------------------------------------------------------------------------- function-preserving


@torch.no_grad()
@pytest.mark.parametrize("told", [{}, {"rate": RATE}, {"known": given_frames(films(7), torch.eye(FILMS, FRAMES) > 0)}])
def test_at_first_it_is_the_decoder_frame_by_frame_bit_for_bit(told):
    """Frames that are given are, to the decoder too, pictures without noise."""
    model, base, z = fresh(), decoder(), films()
    given = torch.eye(FILMS, FRAMES) > 0 if "known" in told else torch.zeros(FILMS, FRAMES).bool()
    seen = torch.where(given[:, :, None, None, None], films(7), z)
    times, context = (T[:, None] * ~given).flatten(), base.context(looks()).repeat_interleave(FRAMES, 0)
    want = base.unet(seen.flatten(0, 1), times, context).unflatten(0, z.shape[:2])
    assert torch.equal(model(z, T, looks(), **told), want) and want.std() > 0.1


def test_all_of_it_is_trained_also_at_the_first_step():
    generator, given = torch.Generator().manual_seed(0), torch.eye(FILMS, FRAMES) > 0
    model = trained()
    film_loss(model, films(), looks(), RATE, generator, given).sum().backward()
    assert not {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    model = fresh()
    film_loss(model, films(), looks(), RATE, generator, given).sum().backward()
    new = [m.time.weight for m in model.modules() if isinstance(m, PseudoConv)]
    new += [m.attention.to_out.weight for m in model.over_time] + [model.known.bias, model.rate.mlp[2].weight]
    assert all(weight.grad.abs().max() > 0 for weight in new)


def test_the_decoder_is_left_alone():
    base = decoder()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = FilmDecoder(base)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_each_convolution_of_3_x_3_is_made_ready():
    unet = UNet(UNetConfig(width=8, multipliers=(1, 2, 2), blocks=1, groups=4, heads=2, context=16))
    ready = inflate(unet)
    inside = {id(m.space) for m in ready.modules() if isinstance(m, PseudoConv)}
    left = [m for m in ready.modules() if isinstance(m, nn.Conv2d) and id(m) not in inside and m.kernel_size == (3, 3)]
    assert not left and len(inside) == sum(m.kernel_size == (3, 3) for m in unet.modules() if isinstance(m, nn.Conv2d))
    z, words = numbers(2, 4, 8, 8), numbers(2, 3, 16)
    with torch.no_grad():
        randomise(unet)
        t = torch.tensor([0.2, 0.9])
        assert torch.equal(inflate(unet)(z, t, words), unet(z, t, words))


# ---------------------------------------------------------------------------------------------- what sees what


@torch.no_grad()
def test_eq_2_by_hand():
    layer, x = randomise(PseudoConv(nn.Conv2d(3, 4, 3, padding=1))).double(), numbers(6, 3, 5, 4).double()
    layer.frames = 3
    h = layer.space(x).unflatten(0, (2, 3))
    want = torch.zeros(2, 3, 4, 5, 4).double() + layer.time.bias[:, None, None]
    for frame in range(3):
        for tap in range(3):
            if 0 <= (other := frame + tap - 1) < 3:
                want[:, frame] += torch.einsum("oc,bchw->bohw", layer.time.weight[:, :, tap, 0], h[:, other])
    torch.testing.assert_close(layer(x), want.flatten(0, 1))


@torch.no_grad()
def test_eq_3_sees_its_place_in_all_frames_and_their_order():
    layer, x = randomise(PseudoAttention(8, 2)).double(), numbers(2 * FRAMES, 8, 2, 3).double()
    before, order = layer(x, FRAMES), torch.tensor([2, 0, 4, 1, 3])
    moved = x.clone()
    moved[3, :, 1, 2] = numbers(8, seed=9).double()
    changed = (layer(moved, FRAMES) != before).any(1)
    assert changed[:FRAMES, 1, 2].all() and changed.sum() == FRAMES
    assert (layer(x[:FRAMES][order], FRAMES) - before[:FRAMES][order]).abs().max() > 1e-4


@torch.no_grad()
def test_where_the_map_is_smallest_all_places_of_all_frames_see_each_other():
    layer, x = randomise(JointAttention(8, 2)).double(), numbers(2 * FRAMES, 8, 2, 3).double()
    before, moved = layer(x, FRAMES), x.clone()
    moved[3, :, 1, 2] = numbers(8, seed=9).double()
    changed = (layer(moved, FRAMES) != before).any(1)
    assert changed[:FRAMES].all() and not changed[FRAMES:].any()
    for axis in (0, 2, 3):  # frame, row, column: each is told
        other = x[:FRAMES].flip(axis)
        assert (layer(other, FRAMES).flip(axis) - before[:FRAMES]).abs().max() > 1e-4
    assert torch.equal(JointAttention(8, 2).double()(x, FRAMES), x)
    kinds = [(type(m), m.norm.normalized_shape[0]) for m in fresh().over_time]
    assert set(kinds) == {(JointAttention, 16), (PseudoAttention, 8)}


@torch.no_grad()
def test_the_joint_attention_by_hand():
    """One token for each place of each frame, which is told where and when it is in units that no size changes."""
    layer, x = randomise(JointAttention(8, 2)).double(), numbers(2, 8, 2, 3).double()
    tokens = [x[f, :, r, c] for f in range(2) for r in range(2) for c in range(3)]
    places = [(f, 8 * (r + 0.5) / 2, 8 * (c + 0.5) / 3) for f in range(2) for r in range(2) for c in range(3)]
    told = torch.stack([torch.cat([sincos(torch.tensor(value), 32) for value in place]) for place in places]).double()
    added = layer.attention((layer.norm(torch.stack(tokens)) + layer.where(told))[None])[0]
    want = x.clone()
    for k, (f, r, c) in enumerate((f, r, c) for f in range(2) for r in range(2) for c in range(3)):
        want[f, :, r, c] += added[k]
    torch.testing.assert_close(layer(x, 2), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_frames_see_each_other_and_films_do_not(model):
    z = films()
    before = model(z, T, looks(), RATE)
    z[1, 0] += 1
    changed = (model(z, T, looks(), RATE) != before).flatten(2).any(2)
    assert changed.tolist() == [[False] * FRAMES, [True] * FRAMES]


@torch.no_grad()
def test_what_it_is_told_counts_film_by_film(model):
    z, given = films(), torch.eye(FILMS, FRAMES) > 0
    told = {"seen": looks(), "rate": RATE, "known": given_frames(films(8), given)}
    before = model(z, T, **told)
    for name, other in (("seen", looks(6)), ("rate", RATE + 1), ("known", given_frames(films(9), given))):
        mixed = torch.cat([other[:1], told[name][1:]])
        changed = (model(z, T, **{**told, name: mixed}) != before).flatten(1).any(1)
        assert changed.tolist() == [True, False], name


@torch.no_grad()
def test_of_frames_that_are_given_the_noise_is_not_seen(model):
    z, given = films(), torch.tensor([[True, False, True, False, False]] * FILMS)
    told = {"seen": looks(), "rate": RATE, "known": given_frames(films(8), given)}
    before = model(z, T, **told)
    z[:, [0, 2]] += 5
    assert torch.equal(model(z, T, **told), before)
    z[:, 1] += 1
    assert not torch.allclose(model(z, T, **told), before, atol=1e-3)


@torch.no_grad()
def test_films_of_any_length_pass_one_after_the_other(model):
    """The number of frames is the call's, not the last call's."""
    long = model(films(), T, looks(), RATE)
    model(films(frames=2), T, looks(), RATE)
    assert torch.equal(model(films(), T, looks(), RATE), long)


@torch.no_grad()
def test_the_image_embedding_is_brought_to_the_size_of_numbers():
    base = decoder()
    want = (looks() * 6**0.5) @ base.tokens.weight.T + base.tokens.bias
    torch.testing.assert_close(base.context(looks()), want.unflatten(1, (3, 16)))
    assert not torch.allclose(base(films()[:, 0], T, looks()), base(films()[:, 0], T, looks(6)), atol=1e-3)


# ---------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_that_of_v_in_frames_that_are_not_given():
    asked = {}

    def network(x, t, seen, rate, known):
        asked.update(x=x, t=t, seen=seen, rate=rate, known=known)
        return torch.zeros_like(x)

    def errors():
        alpha, sigma = (f(asked["t"])[:, None, None, None, None] for f in (PROCESS.alpha, PROCESS.sigma))
        eps = (asked["x"] - alpha * films()) / sigma
        return (alpha * eps - sigma * films()).square().flatten(2).mean(2)

    loss = film_loss(network, films(), looks(), RATE, torch.Generator().manual_seed(2))
    assert asked["known"] is None and torch.equal(asked["seen"], looks()) and torch.equal(asked["rate"], RATE)
    torch.testing.assert_close(loss, errors().mean(1))
    given = torch.tensor([[True, True, False, False, True], [False, True, False, False, False]])
    loss = film_loss(network, films(), looks(), RATE, torch.Generator().manual_seed(2), given, T)
    assert torch.equal(asked["known"], given_frames(films(), given)) and torch.equal(asked["t"], T)
    want = torch.stack([row[~mask].mean() for row, mask in zip(errors(), given, strict=True)])
    torch.testing.assert_close(loss, want)


# ---------------------------------------------------------------------------------------------- the prior


def test_the_prior_predicts_the_embedding_itself():
    prior, asked = randomise(Prior(6, 16, 1)).double(), {}
    image, text = looks(1), looks(2)
    hook = prior.register_forward_hook(lambda _, given, out: asked.update(x=given[0], t=given[1], out=out),
                                       always_call=True)  # fmt: skip
    loss = prior.loss(image, text, torch.Generator().manual_seed(0))
    hook.remove()
    torch.testing.assert_close(loss, (asked["out"] - image * 6**0.5).square().mean(1))
    alpha, sigma = prior.PROCESS.alpha(asked["t"]), prior.PROCESS.sigma(asked["t"])
    eps = (asked["x"] - alpha[:, None] * image * 6**0.5) / sigma[:, None]
    assert eps.abs().max() < 5 and float(prior.PROCESS.alpha(torch.ones(1))) == pytest.approx(0, abs=1e-6)


def test_the_prior_learns_which_picture_goes_with_which_text():
    torch.manual_seed(0)
    prior = Prior(6, 64, 2)
    image, text = (nn.functional.normalize(numbers(4, 6, seed=s), dim=1) for s in (3, 4))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        which = torch.randint(4, (64,), generator=generator)
        optimizer.zero_grad()
        prior.loss(image[which], text[which], generator).mean().backward()
        optimizer.step()
    made = prior.sample(text, torch.Generator().manual_seed(2))
    torch.testing.assert_close(made.norm(dim=1), torch.ones(4))
    cosines = made @ image.T
    assert cosines.argmax(1).tolist() == [0, 1, 2, 3] and cosines.diagonal().min() > 0.9


# ---------------------------------------------------------------------------------------------- sampling


class Recorder(Filmmaker):
    """Keeps what `latents` is asked."""

    def latents(self, seen, noise, rate=None, z=None, given=None, **options):
        self.asked = (given, rate)
        return super().latents(seen, noise, rate, z, given, **options)


@pytest.mark.parametrize("skip", [2, 3])
def test_frames_between(skip):
    maker, z = Recorder(trained().float(), None), films(frames=3).float()
    whole = maker.between(z, looks().float(), skip, rate=18.0, steps=2)
    assert whole.shape[1] == 2 * skip + 1 and torch.equal(whole[:, ::skip], z)
    assert maker.asked[0].tolist() == [[k % skip == 0 for k in range(2 * skip + 1)]] * 2
    assert maker.asked[1] == 18
    other = maker.between(z + 1, looks().float(), skip, rate=18.0, steps=2)
    assert not torch.allclose(other[:, 1], whole[:, 1], atol=1e-3)


def test_frames_after():
    maker, z = Recorder(trained().float(), None), films(frames=3).float()
    whole = maker.go_on(z, looks().float(), 7, seed=2, rate=9.0, steps=2)
    assert whole.shape[1] == 7 and torch.equal(whole[:, :3], z)
    assert maker.asked[0].tolist() == [[k < 3 for k in range(7)]] * 2 and maker.asked[1] == 9
    assert not torch.allclose(maker.go_on(z, looks().float(), 7, seed=3, rate=9.0, steps=2)[:, 3], whole[:, 3])


def test_16_frames_become_76():
    maker = Recorder(lambda x, t, **told: x * 0, None)
    assert maker.between(torch.zeros(1, 16, 4, 2, 2), torch.zeros(1, 6), 5, steps=1).shape[1] == 76


def test_guidance_is_away_from_nothing_in_particular():
    asked = Counter()

    def network(x, t, seen, rate, known):
        asked[bool(seen.any()), rate is not None and float(rate[0])] += 1
        return x * 0 + seen.any()

    start = films(3).float()
    made = Filmmaker(network, None).latents(looks().float(), start, rate=4.0, steps=1, guidance=3.0)
    alpha, sigma = PROCESS.alpha(torch.ones(1)), PROCESS.sigma(torch.ones(1))
    assert float(((alpha * start - made) / sigma).mean()) == pytest.approx(3, abs=1e-3)
    assert asked == {(True, 4.0): 1, (False, 4.0): 1}


def test_one_noise_for_all_frames_of_a_film():
    noise = same_noise(4, 2, 3, (3, 8, 8))
    assert noise.shape == (2, 3, 3, 8, 8) and torch.equal(noise[:, 0], noise[:, 2])
    assert not torch.equal(noise[0], noise[1]) and torch.equal(noise[1:], same_noise(5, 1, 3, (3, 8, 8)))


@torch.no_grad()
def test_enlarging_sees_each_frame_alone_and_equal_frames_stay_equal():
    unet = randomise(UNet(UNetConfig(channels=6, out=3, width=8, blocks=1, groups=4, context=None, attention=())))
    small = numbers(1, 1, 3, 4, 4).expand(-1, 3, -1, -1, -1).clone()
    still = enlarge(unet, small, same_noise(0, 1, 3, (3, 8, 8)), steps=3)
    assert still.shape == (1, 3, 3, 8, 8)
    torch.testing.assert_close(still[:, 1], still[:, 0], rtol=1e-4, atol=1e-5)
    own = enlarge(unet, small, numbers(1, 3, 3, 8, 8), steps=3)
    assert (own[:, 1] - own[:, 0]).abs().mean() > 0.05  # flicker
    small[0, 1] += 1
    moved = enlarge(unet, small, same_noise(0, 1, 3, (3, 8, 8)), steps=3)
    assert not torch.allclose(moved[0, 1], still[0, 1], atol=1e-2)
    torch.testing.assert_close(moved[0, [0, 2]], still[0, [0, 2]], rtol=1e-4, atol=1e-5)


def test_layers_attend_in_the_order_of_the_network():
    unet = UNet(UNET)
    seen = []
    unet(numbers(1, 4, 4, 4), torch.tensor([0.5]), numbers(1, 3, 16), after=lambda layer, x: seen.append(layer) or x)
    assert [layer for layer in seen if layer in attending(unet)] == attending(unet) and len(attending(unet)) == 7


@pytest.mark.parametrize("make, says", [
    (lambda m: m(films()[0], T, looks()), r"z is \[5, 4, 4, 4\]; it takes \[batch, frames, channels, height, width\]"),
    (lambda m: m(films(), T, looks(), RATE - 2), "rate reaches 0.0; it takes numbers above 0"),
    (lambda m: m(films(), T, looks()[:, :4]), r"seen is \[2, 4\]; it takes \[batch, 6\]"),
    (lambda m: Filmmaker(m, None).between(films()[:, :1], looks()), "z, skip: got 1 frame and 5; takes two frames"),
    (lambda m: Filmmaker(m, None).between(films(), looks(), 1), "z, skip: got 5 frames and 1"),
    (lambda m: m(films(), T, looks(), known=films()), r"known is \[2, 5, 4, 4, 4\]; .* takes \[2, 5, 5, 4, 4\]"),
    (lambda m: Filmmaker(m, None).latents(looks(), films(), steps=1, guidance=float("nan")), "guidance is nan; it"),
    (lambda m: Filmmaker(m, None).go_on(films(), looks(), 5), "z, frames: got 5 and 5; takes one or more, and more in"),
    (lambda m: enlarge(None, films(), films()[:, :2]), r"start is \[2, 2, 4, 4, 4\], small \[2, 5, 4, 4, 4\]"),
])  # fmt: skip
def test_errors_name_the_argument(model, make, says):
    with pytest.raises(ValueError, match=says):
        make(model)
