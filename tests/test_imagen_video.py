"""Chapter 09: what layers of time see, pictures among films, augmentation, thresholds, scales, distillation."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_models import numbers, randomise

from soralab.blocks.temporal import TemporalConv, TemporalTransformer
from soralab.diffusion import Cosine, ddim, guide
from soralab.imagen_video import (
    PAPER,
    PROCESS,
    Cascade,
    Stage,
    StageConfig,
    augmented,
    dynamic_threshold,
    film_stage,
    fold,
    guided_loss,
    halving_loss,
    larger_frames,
    more_frames,
    oscillating,
    stage_loss,
    stochastic,
    two_steps,
    unfold,
)
from soralab.latent_diffusion import UNetConfig, noise, word_ids

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)
BASE = StageConfig(UNET, vocabulary=128, words=8, depth=1)
LARGER = StageConfig.enlarging(UNetConfig(8, 4, 8, blocks=1, groups=4, heads=2, context=16), clean=True,
                               vocabulary=128, words=8, depth=1)  # fmt: skip
FILMS, FRAMES = 2, 4
T = torch.tensor([0.3, 0.8], dtype=torch.float64)
LEVEL = torch.tensor([0.1, 0.5], dtype=torch.float64)
IDS = word_ids(["a red circle", "a blue square grows"], 8)


def stage(config=BASE, seed=1):
    return randomise(Stage(config), seed).double()


def films(seed=0, frames=FRAMES):
    return numbers(FILMS, frames, 4, 4, 4, seed=seed).double()


def told(config):
    return {"low": films(7), "level": LEVEL} if config.enlarges else {}


# ------------------------------------------------------------------------------------------------------- the network


def test_the_cascade_of_the_paper():
    """Seven models, 11.6 billion weights, 5.3 seconds of 1280 x 768; each stage enlarges one thing."""
    sizes, parameters = zip(*PAPER, strict=True)
    assert sum(parameters) == pytest.approx(11.6e9, rel=0.005) and sizes[0] == (16, 40, 24, 3)
    for (f, w, h, rate), (f2, w2, h2, rate2) in zip(sizes, sizes[1:], strict=False):
        assert (f2 > f) != (w2 > w) and f2 / f == rate2 / rate and w2 / w == h2 / h
    frames, *_, rate = sizes[-1]
    assert frames / rate == pytest.approx(5.3, abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize("config", [BASE, LARGER], ids=["base", "enlarging"])
def test_at_first_a_film_is_its_frames_one_by_one_bit_for_bit(config):
    torch.manual_seed(0)
    model, z = Stage(config).double().eval(), films()
    randomise(model.unet), randomise(model.text)
    model = model.double()
    words, mask, _ = model.text(IDS)
    said = torch.stack([film[there].mean(0) for film, there in zip(words, mask, strict=True)])
    words, mask = words.repeat_interleave(FRAMES, 0), mask.repeat_interleave(FRAMES, 0)
    over = None if not config.enlarges else films(7).flatten(0, 1)
    more = (model.whole(said) + (model.level(LEVEL) if config.enlarges else 0)).repeat_interleave(FRAMES, 0)
    x = model.unet(z.flatten(0, 1), T.repeat_interleave(FRAMES), words, mask, over, told=more)
    alpha, sigma = (of(T.repeat_interleave(FRAMES))[:, None, None, None] for of in (PROCESS.alpha, PROCESS.sigma))
    want = (alpha * z.flatten(0, 1) - x) / sigma if config.clean else x
    assert torch.equal(model(z, T, IDS, **told(config)).flatten(0, 1), want) and want.std() > 0.1


def test_convolution_over_time_behind_every_block_and_attention_for_the_base_alone():
    base, larger = (Counter(type(layer) for layer in Stage(config).over_time.values()) for config in (BASE, LARGER))
    assert base == {TemporalConv: 8, TemporalTransformer: 7} and larger == {TemporalConv: 8}


@torch.no_grad()
@pytest.mark.parametrize("name", ["down_1_1", "middle_1", "up_0_1"])
def test_each_attention_of_the_base_gets_a_hint_of_its_own(name):
    """Of the prompt's mean, the place and the moment, added to what it sees: as a layer in its place would get it."""
    model, z = stage(), films()
    names = {of for of, layer, *_ in model.unet.layers() if isinstance(model.over_time[of], TemporalTransformer)}
    assert set(model.hints) == names and name in names and not Stage(LARGER).hints
    plain, layer, hint, seen = model(z, T, IDS), model.over_time[name], model.hints[name], []
    handle = layer.register_forward_pre_hook(lambda _, told: seen.append(told[0]))
    model(z, T, IDS), hint.mlp[-1].weight.zero_(), hint.mlp[-1].bias.zero_()
    assert not torch.allclose(model(z, T, IDS), plain, atol=1e-3)
    handle.remove()
    words, mask, _ = model.text(IDS)
    said = torch.stack([film[there].mean(0) for film, there in zip(words, mask, strict=True)])
    side = round(seen[0].shape[-1] ** 0.5)
    want = randomised(model, name)(said, torch.arange(FRAMES), (side, side))
    got = (seen[0] - seen[1]).transpose(1, 2).flatten(0, 1).unflatten(2, (side, side))
    torch.testing.assert_close(got, want)


def randomised(model, name):
    """The hint of a stage as `stage` makes it."""
    return stage(model.config).hints[name]


@torch.no_grad()
def test_what_the_u_net_gives_is_v_or_the_film_and_v_follows(monkeypatch):
    """Of a clean stage it is x_0 of the v; with hardly any noise, where v would blow its errors up, z is trusted."""
    model, z, film = stage(replace(BASE, clean=True)), films(), films(5)
    monkeypatch.setattr(model.unet, "forward", lambda *told: film.flatten(0, 1))
    plain = stage()
    monkeypatch.setattr(plain.unet, "forward", lambda *told: film.flatten(0, 1))
    assert torch.equal(plain(z, T, IDS), film)
    for t in (0.1, 0.5, 1.0):
        times = torch.full((FILMS,), t).double()
        x, eps = PROCESS.to_x0_eps(model(z, times, IDS), z, times, "v")
        torch.testing.assert_close(x, film)
        torch.testing.assert_close(PROCESS.add_noise(x, eps, times), z)
    almost = torch.full((FILMS,), 0.001).double()
    x, _ = PROCESS.to_x0_eps(model(z, almost, IDS), z, almost, "v")
    torch.testing.assert_close(x, z, atol=0.1, rtol=0)


@torch.no_grad()
def test_the_moments_are_0_1_2_if_nobody_says_otherwise():
    model, z = stage(), films()
    plain = model(z, T, IDS)
    torch.testing.assert_close(model(z, T, IDS, moments=torch.arange(FRAMES)), plain)
    assert not torch.allclose(model(z, T, IDS, moments=2 * torch.arange(FRAMES)), plain, atol=1e-3)


def test_no_prompt_at_all_is_named():
    base = stage(replace(BASE, unet=replace(UNET, channels=12, out=12))).float()
    with pytest.raises(ValueError, match="prompts is empty; it takes one or more"):
        Cascade(base).small([])


@torch.no_grad()
@pytest.mark.parametrize("config", [BASE, LARGER], ids=["base", "enlarging"])
def test_frames_see_each_other_and_films_do_not(config):
    model, z = stage(config), films()
    before = model(z, T, IDS, **told(config))
    z[0, 3] += numbers(4, 4, 4, seed=3).double()
    changed = (model(z, T, IDS, **told(config)) != before).flatten(2).any(2)
    assert changed[0].all() and not changed[1].any()


@torch.no_grad()
@pytest.mark.parametrize("config", [BASE, LARGER], ids=["base", "enlarging"])
def test_pictures_in_the_place_of_a_film_do_not_see_each_other(config):
    model, z, alone = stage(config), films(), torch.tensor([True, False])
    before = model(z, T, IDS, **told(config), alone=alone)
    moved = z.clone()
    moved[:, 3] += numbers(4, 4, 4, seed=3).double()
    changed = (model(moved, T, IDS, **told(config), alone=alone) != before).flatten(2).any(2)
    assert changed.tolist() == [[False, False, False, True], [True] * 4]
    film = model(z, T, IDS, **told(config))
    torch.testing.assert_close(before[1], film[1])
    assert not torch.allclose(before[0], film[0], atol=1e-3)
    one = {name: value[:, :1] if name == "low" else value for name, value in told(config).items()}
    picture = model(z[:, :1], T, IDS, **one, alone=alone)  # a picture is a film of one frame
    torch.testing.assert_close(picture[0], before[0, :1])


def test_pictures_do_not_train_the_layers_of_time():
    for config in (BASE, LARGER):
        model, alone = stage(config), torch.tensor([True, True])
        low = films(7) if config.enlarges else None
        stage_loss(model, films(), IDS, torch.Generator().manual_seed(0), low, alone=alone).sum().backward()
        assert all(not p.grad.any() for p in model.over_time.parameters() if p.grad is not None)
        assert all(p.grad.any() for name, p in model.unet.named_parameters() if name.endswith("conv1.weight"))


@torch.no_grad()
def test_what_a_stage_is_told_counts_film_by_film():
    model, z, given = stage(LARGER), films(), told(LARGER)
    before = model(z, T, IDS, **given)
    for name, other in (("low", films(8)), ("level", LEVEL + 0.2)):
        mixed = torch.cat([other[:1], given[name][1:]])
        assert (model(z, T, IDS, **{**given, name: mixed}) != before).flatten(1).any(1).tolist() == [True, False], name
    ids = torch.stack([IDS[1], IDS[1]])
    assert (model(z, T, ids, **given) != before).flatten(1).any(1).tolist() == [True, False]


# ----------------------------------------------------------------------------------------- what enlarging stages see


@pytest.mark.parametrize("n, frames, want", [
    (5, 9, [0, 0, 1, 1, 2, 2, 3, 3, 4]), (3, 3, [0, 1, 2]), (2, 5, [0, 0, 0, 0, 1]), (1, 4, [0] * 4), (1, 1, [0]),
])  # fmt: skip
def test_more_frames_are_those_that_there_were_by_then(n, frames, want):
    low = torch.arange(n).float()[None, :, None, None, None].expand(2, -1, 1, 2, 2)
    assert more_frames(low, frames)[0, :, 0, 0, 0].tolist() == want


def test_larger_frames_are_each_frame_alone():
    low = films()
    shown = larger_frames(low, (8, 12))
    assert shown.shape == (FILMS, FRAMES, 4, 8, 12)
    want = torch.nn.functional.interpolate(low[1, 2:3], (8, 12), mode="bilinear")[0]
    torch.testing.assert_close(shown[1, 2], want)


def test_noise_on_what_is_enlarged_has_its_level():
    low, generator = torch.ones(2, 3, 4, 40, 40), torch.Generator().manual_seed(0)
    level = torch.tensor([0.0, 0.5])
    noisy = augmented(low, level, generator)
    torch.testing.assert_close(noisy[0], low[0])
    half = math.sqrt(0.5)  # alpha and sigma of the quarter circle at its middle
    assert float(noisy[1].mean()) == pytest.approx(half, abs=0.03)
    assert float(noisy[1].std()) == pytest.approx(half, rel=0.03)


def test_the_loss_is_that_of_v_and_the_level_is_told():
    asked = {}

    def network(x, t, ids, low=None, level=None, **told):
        asked.update(x=x, t=t, low=low, level=level, told=told)
        return torch.zeros_like(x)

    x, low = films(), films(7)
    loss = stage_loss(network, x, IDS, torch.Generator().manual_seed(1), low, most=0.4)
    alpha, sigma = (f(asked["t"])[:, None, None, None, None] for f in (PROCESS.alpha, PROCESS.sigma))
    eps = (asked["x"] - alpha * x) / sigma
    torch.testing.assert_close(loss, (alpha * eps - sigma * x).square().flatten(1).mean(1))
    assert not asked["told"] and 0 < asked["level"].min() and asked["level"].max() < 0.4
    assert len(set(asked["level"].tolist())) == FILMS
    share = PROCESS.alpha(asked["level"])[:, None, None, None, None]
    noise = (asked["low"] - share * low) / PROCESS.sigma(asked["level"])[:, None, None, None, None]
    assert abs(float(noise.mean())) < 0.2 and float(noise.std()) == pytest.approx(1, abs=0.15)
    assert not torch.allclose(noise, eps, atol=0.1)
    levels = []
    for seed in range(200):
        stage_loss(network, x, IDS, torch.Generator().manual_seed(seed), low)
        levels += asked["level"].tolist()
    assert 0.57 < max(levels) < 0.6 and min(levels) < 0.03
    assert stage_loss(network, x, IDS, torch.Generator().manual_seed(1)).shape == (FILMS,) and asked["t"].max() <= 1
    stage_loss(network, x, IDS, torch.Generator().manual_seed(1), t=T, alone=True, moments=T)
    assert asked["t"] is T and asked["told"] == {"alone": True, "moments": T}


# ------------------------------------------------------------------------------------- guidance, thresholds, sampling


def test_dynamic_thresholding_by_hand():
    x = torch.tensor([[0.5, -0.9, 0.1, 0.2], [4.0, -2.0, 1.0, 0.0]])
    torch.testing.assert_close(dynamic_threshold(x, 1.0), torch.tensor([[0.5, -0.9, 0.1, 0.2], [1.0, -0.5, 0.25, 0.0]]))
    q = 2.0 + 0.5 * 2  # half way from the third largest of four to the largest, at 5/6 of the way
    torch.testing.assert_close(dynamic_threshold(x, 5 / 6)[1], torch.tensor([1.0, -2 / q, 1 / q, 0.0]))
    loud = 5 * numbers(3, 4, 3, 8, 8)
    made = dynamic_threshold(loud)
    assert made.abs().max() <= 1 and 0.001 < float((made.abs() == 1).float().mean()) < 0.02
    quiet = loud.clamp(-1, 1)
    assert torch.equal(dynamic_threshold(quiet), quiet)
    assert dynamic_threshold(loud.half()).dtype == torch.float16


def test_scales_by_turns():
    assert oscillating(5, 15.0, 1.0) == [15, 1, 15, 1, 15]
    assert oscillating(6, 8.0, 2.0, constant=3) == [8, 8, 8, 8, 2, 8]
    assert oscillating(2, 8.0, 2.0, constant=2) == [8, 8] and oscillating(0) == []


@torch.no_grad()
def test_each_step_has_its_own_scale():
    model, noise, scales = stage().float(), films(5).float(), [4.0, 1.0, 2.0]
    got = film_stage(model, noise, IDS, scales)
    x, times = noise, torch.linspace(1, 0, 4, dtype=torch.float64).tolist()
    for k, scale in enumerate(scales):
        t = torch.full((FILMS,), times[k])
        with_words, without = model(x, t, IDS), model(x, t, IDS * 0)
        v = without + scale * (with_words - without)
        (a, s), (a2, s2) = ((float(PROCESS.alpha(time)), float(PROCESS.sigma(time))) for time in times[k : k + 2])
        x = a2 * (a * x - s * v) + s2 * (s * x + a * v)
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)
    other = film_stage(model, noise, IDS, [4.0, 2.0, 1.0])
    assert not torch.allclose(other, got, atol=1e-3)


@torch.no_grad()
def test_an_enlarging_stage_gets_its_noise_and_level_and_the_threshold_is_kept():
    model, noise, low = stage(LARGER).float(), films(5).float(), films(7).float()
    asked = []

    def watched(x, t, ids, low, level):
        asked.append((low, level))
        return model(x, t, ids, low, level)

    generator = torch.Generator().manual_seed(3)
    made = film_stage(watched, noise, IDS, [2.0, 2.0], low, 0.2, lambda x: x.clamp(-0.1, 0.1), generator)
    assert made.abs().max() <= 0.1 + 1e-6 and len(asked) == 4
    want = augmented(low, torch.full((FILMS,), 0.2), torch.Generator().manual_seed(3))
    assert all(torch.equal(seen, want) and torch.equal(level, torch.full((FILMS,), 0.2)) for seen, level in asked)


# ----------------------------------------------------------------------------------------- progressive distillation


def test_a_student_of_a_guided_teacher_learns_its_answer():
    teacher, student = stage(seed=2), stage(seed=3)
    guided = guide(teacher, {"ids": IDS}, {"ids": IDS * 0}, 3.0)
    loss = guided_loss(student, guided, films(), IDS, torch.Generator().manual_seed(1))
    loss.sum().backward()
    assert all(p.grad is None for p in teacher.parameters()) and any(p.grad is not None for p in student.parameters())
    asked = []
    guided_loss(lambda x, t, ids: asked.append((x, t)) or torch.zeros_like(x), guided, films(), IDS,
                torch.Generator().manual_seed(1))  # fmt: skip
    with torch.no_grad():
        (z, t), = asked
        torch.testing.assert_close(loss, (student(z, t, IDS) - guided(z, t)).square().flatten(1).mean(1))
        nothing = guided_loss(lambda x, t, ids: guided(x, t), guided, films(), IDS, torch.Generator().manual_seed(1))
    assert nothing.abs().max() < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_one_step_to_the_target_is_two_of_the_teachers(steps):
    """The defining property, from every time of the student's."""
    teacher = stage(seed=2)

    def network(z, t):
        return teacher(z, t, IDS)

    for number in range(1, steps + 1):
        t, s = number / steps, (number - 1) / steps
        z = films(number)
        x0 = two_steps(network, z, torch.full((FILMS,), t, dtype=torch.float64), steps)
        eps = (z - float(PROCESS.alpha(t)) * x0) / float(PROCESS.sigma(t))
        arrived = float(PROCESS.alpha(s)) * x0 + float(PROCESS.sigma(s)) * eps
        there = z
        for now, then in ((t, (t + s) / 2), ((t + s) / 2, s)):
            x, e = PROCESS.denoiser(network, "v")(there, now)
            there = float(PROCESS.alpha(then)) * x + float(PROCESS.sigma(then)) * e
        torch.testing.assert_close(arrived, there, rtol=1e-6, atol=1e-6)


def test_a_perfect_teacher_has_itself_for_a_student():
    """For one film alone x_0 is known: every step leads to it, long or short."""
    x = films()

    def knows(z, t, ids=None):
        alpha, sigma = (f(t)[:, None, None, None, None] for f in (PROCESS.alpha, PROCESS.sigma))
        return alpha * (z - alpha * x) / sigma - sigma * x

    loss = halving_loss(knows, knows, x, IDS, 4, torch.Generator().manual_seed(0))
    assert loss.abs().max() < 1e-18
    other = halving_loss(lambda z, t, ids: knows(z, t) + 0.1, knows, x, IDS, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(other, torch.full((FILMS,), 0.01, dtype=torch.float64))


def test_a_student_is_asked_at_its_own_times_alone():
    asked = []

    def student(z, t, ids):
        asked.extend(t.tolist())
        return torch.zeros_like(z, requires_grad=True)

    for seed in range(40):
        halving_loss(student, lambda z, t: torch.zeros_like(z), films(), IDS, 4, torch.Generator().manual_seed(seed))
    assert set(asked) == {0.25, 0.5, 0.75, 1.0}


@torch.no_grad()
def test_the_stochastic_sampler_goes_twice_as_far_and_half_of_it_back():
    """Against q(z_s | z_r) of the process itself, with the same draws."""
    def denoise(x, t):
        asked.append(t)
        return (0.7 * x).tanh(), 0.3 * x

    x, asked, steps = numbers(4, 3000).double(), [], 6
    made = stochastic(denoise, x, steps, torch.Generator().manual_seed(0))
    assert asked == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6])  # the last two steps are one
    draws = torch.Generator().manual_seed(0)
    for k in range(steps - 1):
        s, far = 1 - (k + 1) / steps, 1 - (k + 2) / steps
        x0, eps = denoise(x, 1 - k / steps)
        x = float(PROCESS.alpha(far)) * x0 + float(PROCESS.sigma(far)) * eps
        if k < steps - 2:
            scale, variance = PROCESS.transition(s, far)
            x = float(scale) * x + float(variance) ** 0.5 * torch.randn(x.shape, generator=draws, dtype=x.dtype)
    torch.testing.assert_close(made, x, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(stochastic(denoise, x, steps, torch.Generator().manual_seed(1)), made, atol=0.1)
    torch.testing.assert_close(stochastic(denoise, x, 1, torch.Generator()), ddim(denoise, x, PROCESS, 1))


# -------------------------------------------------------------------------------------------------------- the cascade


def test_a_place_is_a_square_of_pixels():
    film = torch.arange(2 * 3 * 3 * 4 * 8.0).reshape(2, 3, 3, 4, 8)
    z = fold(film, 2)
    assert z.shape == (2, 3, 12, 2, 4) and torch.equal(unfold(z, 2), film)
    assert sorted(z[1, 2, :, 1, 3].tolist()) == sorted(film[1, 2, :, 2:4, 6:8].flatten().tolist())


def folded(channels, enlarges=False):
    c = UNetConfig(channels * (1 + enlarges), channels, 8, blocks=1, groups=4, heads=2, context=16, multipliers=(1,))
    return randomise(Stage(StageConfig(c, enlarges, vocabulary=128, words=8, depth=1)), channels + enlarges)


TEXTS = ["a red circle", "a blue square grows"]


@pytest.fixture(scope="module")
def cascade():
    return Cascade(folded(12), folded(12, True), folded(48, True))


@torch.no_grad()
def test_a_cascade_is_its_stages_one_after_the_other(cascade):
    few = cascade.small(TEXTS, 3, steps=2)
    more = cascade.more(few, TEXTS, 3)
    whole = cascade.larger(more, TEXTS, 3)
    assert [list(film.shape[1:]) for film in (few, more, whole)] == [[5, 3, 8, 8], [9, 3, 8, 8], [9, 3, 32, 32]]
    assert torch.equal(cascade.film(TEXTS, 3, steps=2), whole) and max(x.abs().max() for x in (few, more, whole)) <= 1


@torch.no_grad()
def test_each_stage_films_from_its_own_noise(cascade, monkeypatch):
    """Film k of the base is that of seed + k alone; what a later stage starts from and what augments are others."""
    both, second = cascade.small(TEXTS, 5, steps=2), cascade.small(TEXTS[1:], 6, steps=2)
    torch.testing.assert_close(both[1:], second, rtol=1e-3, atol=1e-4)
    asked = []

    def watched(model, z, ids, scales, low=None, level=0.0, threshold=None, generator=None):
        asked.append((z, low, level, scales, threshold, generator))
        return z

    monkeypatch.setattr("soralab.imagen_video.film_stage", watched)
    cascade.film(TEXTS, 5, guidance=3.0)
    (base, *_), (time, low, level, *_), (space, large, *_) = asked
    assert torch.equal(base, noise(5, 2, (5, 12, 4, 4))) and time.shape[1] == space.shape[1] == 9
    assert all(float(x.flatten()[:800] @ base.flatten()[:800]) / 800 < 0.15 for x in (time, space))
    assert not torch.equal(time.flatten()[:100], space.flatten()[:100])
    assert torch.equal(low, fold(more_frames(unfold(base, 2), 9), 2)) and level == 0.1
    assert torch.equal(large, fold(larger_frames(unfold(time, 2), (32, 32)), 4))
    assert asked[0][3] == [3.0] * 32 and all(each[4] is dynamic_threshold for each in asked)
    for z, *_, generator in asked[1:]:
        fresh = torch.randn(z.shape, generator=generator)
        assert abs(float(fresh.flatten() @ z.flatten()) / z.numel()) < 0.1


@torch.no_grad()
def test_a_student_takes_its_steps_without_guidance(cascade, monkeypatch):
    asked = []
    monkeypatch.setattr("soralab.imagen_video.film_stage", lambda m, z, ids, scales, *a: asked.append(scales) or z)
    Cascade(cascade.base, student=4).small(TEXTS, steps=32, guidance=5.0)
    cascade.small(TEXTS, guidance=oscillating(6, 4.0))
    assert asked == [[1.0] * 4, [4, 1, 4, 1, 4, 1]]


def test_the_process_is_the_quarter_circle():
    t = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(PROCESS.alpha(t), (torch.pi / 2 * t).cos())
    torch.testing.assert_close(PROCESS.sigma(t), (torch.pi / 2 * t).sin())
    assert isinstance(PROCESS, Cosine)


@pytest.mark.parametrize("make, says", [
    (lambda: Stage(StageConfig(UNET, enlarges=True)), "unet takes 4 channels; with enlarges=True it takes 8"),
    (lambda: stage()(films()[0], T, IDS), r"z, low: got \[4, 4, 4, 4\], None"),
    (lambda: stage()(films(), T, IDS, films()), r"got \[2, 4, 4, 4, 4\], \[2, 4, 4, 4, 4\]; .* neither low nor level"),
    (lambda: stage()(films(), T, IDS, level=LEVEL), "neither low nor level"),
    (lambda: stage(LARGER)(films(), T, IDS), "low of z's shape and a level"),
    (lambda: stage(LARGER)(films(), T, IDS, films()), "low of z's shape and a level"),
    (lambda: stage(LARGER)(films(), T, IDS, films()[:, :2], LEVEL), r"\[2, 2, 4, 4, 4\]; .* low of z's shape"),
    (lambda: stage()(films(), T[:1], IDS), r"t is \[1\]; with z \[2, 4, 4, 4, 4\] it takes 2 in a row"),
    (lambda: stage()(films(), T, IDS[:1]), r"ids is \[1, \d+\]; .* takes 2 in a row"),
    (lambda: stage(LARGER)(films(), T, IDS, films(), LEVEL[:1]), r"level is \[1\]; .* takes 2 in a row"),
    (lambda: stage()(films(), T, IDS, alone=torch.ones(3) > 0), r"alone is \[3\]; .* takes 2 in a row"),
    (lambda: stage()(films(), T, IDS, moments=torch.arange(3)), r"moments is \[3\]; .* takes 4 in a row"),
    (lambda: Cascade(stage()).small("a circle"), "prompts is the text 'a circle'; it takes a list of texts"),
    (lambda: Cascade(stage()).small(["a"], guidance=float("nan")), "guidance is nan; it takes a number from 0"),
    (lambda: Cascade(stage()).small(["a"], guidance=[1.0, float("nan")]), "guidance is nan"),
    (lambda: Cascade(None, None, None).film(["a"]), "time is missing; this takes a cascade with that stage"),
    (lambda: Cascade(None, stage()).film(["a"]), "space is missing; this takes a cascade with that stage"),
    (lambda: Cascade(stage()).larger(films(), ["a"]), "space is missing"),
    (lambda: more_frames(films(), 3), "frames is 3; it takes as many as low has, 4, or more"),
    (lambda: fold(films(), 3), r"frames are \[4, 4\]; with side 3 it takes multiples of 3"),
    (lambda: dynamic_threshold(films(), 0.0), "share is 0.0; it takes a number above 0, up to 1"),
    (lambda: dynamic_threshold(films(), 1.5), "share is 1.5"),
    (lambda: oscillating(3, constant=4), "constant is 4; it takes 0 to steps, which is 3"),
    (lambda: oscillating(3, constant=-1), "constant is -1"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()
