"""Chapter 15: what a frame sees, what is trained, and a film that is walked back to noise and filmed again."""

import pytest
import torch
from tiny_models import numbers, randomise

from soralab.blocks import SpatialTransformer
from soralab.blocks.attention import attention
from soralab.diffusion import ddim, invert
from soralab.latent_diffusion import PROCESS, LatentDiffusion, LatentDiffusionConfig, Painter, UNetConfig, word_ids
from soralab.tune_a_video import (
    SEES,
    AcrossFrames,
    Editor,
    TunedTransformer,
    all_frames,
    inflate,
    latents_of,
    sparse_causal,
    tuning_loss,
)

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)
FRAMES, PROMPT, OTHER = 4, "a red circle slides right", "a blue square slides right"


def painter(seed=1):
    return randomise(LatentDiffusion(LatentDiffusionConfig(UNET, vocabulary=128, words=12, depth=1)), seed).double()


def alive(sees="sparse-causal"):
    """An inflated painter with nothing at zero."""
    return randomise(inflate(painter(), FRAMES, sees), 2).double().eval()


def film(seed=0):
    return numbers(FRAMES, 4, 4, 4, seed=seed).double()


def ids(text=PROMPT):
    return word_ids([text], 12)


# ---------------------------------------------------------------------------------------------- what a frame sees


@pytest.mark.parametrize("frames", [2, 5])
def test_sparse_causal_is_the_first_frame_and_the_one_before(frames):
    """Against the paper's formula, frame by frame."""
    q, k, v = (numbers(2 * frames, 3, 6, 8, seed=s).double() for s in range(3))
    got = AcrossFrames(frames)(q, k, v).unflatten(0, (2, frames))
    q, k, v = (x.unflatten(0, (2, frames)) for x in (q, k, v))
    for i in range(frames):
        keys, values = (torch.cat([x[:, 0], x[:, max(i - 1, 0)]], dim=2) for x in (k, v))
        torch.testing.assert_close(got[:, i], attention(q[:, i], keys, values))


@pytest.mark.parametrize("sees, want", [
    ("sparse-causal", [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]]),
    ("all", [[1] * 4] * 4),
    ("own", torch.eye(4).int().tolist()),
])  # fmt: skip
def test_who_sees_whom(sees, want):
    attend = AcrossFrames(FRAMES, SEES[sees])
    q, k, v = (numbers(FRAMES, 2, 3, 8, seed=s).double() for s in range(3))
    before, seen = attend(q, k, v), torch.zeros(FRAMES, FRAMES, dtype=torch.int)
    for frame in range(FRAMES):
        moved = v.clone()
        moved[frame] += 1
        seen[:, frame] = (attend(q, k, moved) != before).flatten(1).any(1)
    assert seen.tolist() == want


def test_own_frame_alone_is_the_painters_attention():
    q, k, v = (numbers(FRAMES, 2, 3, 8, seed=s).double() for s in range(3))
    torch.testing.assert_close(AcrossFrames(FRAMES, SEES["own"])(q, k, v), attention(q, k, v))
    assert sparse_causal(k.unflatten(0, (1, FRAMES))).shape[3] == 6 and all_frames(k[None]).shape[3] == 3 * FRAMES


@torch.no_grad()
def test_films_in_a_batch_do_not_meet():
    model, z, t = alive(), numbers(2 * FRAMES, 4, 4, 4).double(), torch.full((2 * FRAMES,), 0.5).double()
    before = model(z, t, ids().expand(2 * FRAMES, -1))
    z[FRAMES + 1] += 1
    changed = (model(z, t, ids().expand(2 * FRAMES, -1)) != before).flatten(1).any(1)
    assert changed.tolist() == [False] * FRAMES + [True] * FRAMES


# ---------------------------------------------------------------------------------------------- the inflated painter


@torch.no_grad()
def test_a_film_of_equal_frames_is_the_painters_picture():
    """Before tuning: what is over time adds zero, and keys that are there twice change no softmax."""
    base, z = painter(), film()[:1].expand(FRAMES, -1, -1, -1)
    t, words = torch.full((FRAMES,), 0.6).double(), ids().expand(FRAMES, -1)
    want = base(z, t, words)
    for sees in SEES:
        torch.testing.assert_close(inflate(base, FRAMES, sees)(z, t, words), want)
    own = inflate(base, FRAMES, "own")(film(), t, words)
    torch.testing.assert_close(own, base(film(), t, words))
    assert not torch.allclose(inflate(base, FRAMES)(film(), t, words), base(film(), t, words), atol=1e-3)


def test_the_painter_is_left_alone():
    base = painter()
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    model = inflate(base, FRAMES)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    assert all(torch.equal(value, weights[name]) for name, value in base.state_dict().items())
    assert all(p.requires_grad for p in base.parameters())
    kinds = {type(m) for m in base.modules() if isinstance(m, SpatialTransformer)}
    assert kinds == {SpatialTransformer}


def test_only_queries_and_time_are_trained_and_all_of_them():
    model = alive()
    tuning_loss(model, film(), ids(), torch.Generator().manual_seed(0)).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    ends = {name.rsplit(".", 2)[-2] for name in moved if "over_time" not in name}
    places = {name.split(".")[-3] for name in moved if name.endswith("to_q.weight")}
    assert ends == {"to_q"} and places == {"among", "across", "over_time"}
    new = {name.rsplit("over_time.")[-1] for name in moved if "over_time" in name}
    assert new == {"to_q.weight", "to_kv.weight", "to_out.weight", "to_out.bias"}


def test_the_first_step_can_move_what_is_over_time():
    model = inflate(painter(), FRAMES)
    tuning_loss(model, film(), ids(), torch.Generator().manual_seed(0)).backward()
    outs = [m.over_time.to_out for m in model.modules() if isinstance(m, TunedTransformer)]
    assert len(outs) == 7 and all(out.weight.abs().max() == 0 and out.weight.grad.abs().max() > 0 for out in outs)


def test_the_official_counts():
    """On Stable Diffusion 1.4: 49.6 M are new, 8.2 % are trained."""
    with torch.device("meta"):
        base = LatentDiffusion(LatentDiffusionConfig(UNetConfig.stable_diffusion(), words=77, depth=1))
    unet = inflate(base, 24).unet
    assert sum(p.numel() for p in base.unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in unet.parameters()) == 909_120_004
    assert sum(p.numel() for p in unet.parameters() if p.requires_grad) == 74_354_880


@torch.no_grad()
def test_frames_in_another_order_are_another_film():
    model, t, order = alive(), torch.full((FRAMES,), 0.5).double(), torch.tensor([2, 0, 3, 1])
    words = ids().expand(FRAMES, -1)
    difference = model(film()[order], t, words) - model(film(), t, words)[order]
    assert difference.abs().max() > 1e-4  # rounding is 1e-15 here


@torch.no_grad()
def test_attention_over_time_sees_one_place():
    """A change at one place of the last frame is seen there in all frames, and nowhere else: no frame meets itself."""
    block, x = TunedTransformer(SpatialTransformer(8, 2, 16, 4), FRAMES), numbers(FRAMES, 8, 3, 3).double()
    block = randomise(block, 3).double()
    block.norm = torch.nn.Identity()  # which is over all places
    words = numbers(FRAMES, 2, 16).double()
    before = block(x, words)
    x[3, :, 1, 2] = numbers(8, seed=5).double()
    changed = (block(x, words) != before).any(1)
    assert changed[:, 1, 2].all() and changed.sum() == FRAMES


# ---------------------------------------------------------------------------------------------- tuning


def test_the_loss_has_one_time_and_a_noise_for_each_frame():
    seen = {}

    def network(x, t, ids):
        seen.update(x=x, t=t, ids=ids)
        return torch.zeros_like(x)

    loss = tuning_loss(network, film(), ids(), torch.Generator().manual_seed(3))
    assert len(set(seen["t"].tolist())) == 1 and seen["t"].shape == (FRAMES,)
    assert torch.equal(seen["ids"], ids().expand(FRAMES, -1))
    alpha, sigma = PROCESS.alpha(seen["t"][0]), PROCESS.sigma(seen["t"][0])
    eps = (seen["x"] - alpha * film()) / sigma
    torch.testing.assert_close(loss, eps.square().mean())
    assert not torch.allclose(eps[0], eps[1], atol=0.1)


def test_tuning_lowers_the_error_of_one_draw():
    model, z = inflate(painter(), FRAMES).float(), film().float()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = tuning_loss(model, z, ids(), torch.Generator().manual_seed(5))
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.9 * errors[0]


# ---------------------------------------------------------------------------------------------- inversion and edits


def editor(steps=10, **options):
    return Editor(alive().float(), film().float() * 0.3, PROMPT, steps, **options)


def test_a_film_that_is_inverted_and_filmed_again_is_the_film():
    """The more steps, the closer, and another film's noise is no answer."""
    errors = []
    for steps in (5, 20, 80):
        maker = editor(steps)
        again = maker.edit(PROMPT, guidance=1.0)
        errors.append(float((again - maker.z).square().mean().sqrt() / maker.z.std()))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.5 * errors[0]
    maker = editor(20)
    other = maker.edit(PROMPT, numbers(*maker.z.shape, seed=9), guidance=1.0)
    assert float((other - maker.z).square().mean().sqrt() / maker.z.std()) > 2 * errors[1]


@torch.no_grad()
def test_the_film_is_walked_back_under_its_own_prompt_or_the_empty_one():
    maker = editor()
    assert torch.equal(maker.inverted(), maker.inverted(PROMPT))
    assert not torch.allclose(maker.inverted(), maker.inverted(""), atol=1e-3)
    assert not torch.allclose(maker.inverted(), maker.inverted(guidance=3.0), atol=1e-3)


@torch.no_grad()
def test_an_edit_is_filmed_from_the_inverted_noise_under_the_new_words():
    maker = editor()
    network = maker.network(OTHER, 3.0)
    want = ddim(PROCESS.denoiser(network, "eps"), maker.inverted(), PROCESS, maker.steps)
    assert torch.equal(maker.edit(OTHER), want)
    assert not torch.allclose(maker.edit(OTHER), maker.edit(PROMPT), atol=1e-3)
    x, t = numbers(*maker.z.shape, seed=4), torch.full((FRAMES,), 0.4)
    words = [ids(text).expand(FRAMES, -1) if text else torch.zeros(FRAMES, 12, dtype=torch.long)
             for text in (OTHER, "")]  # fmt: skip
    told, untold = (maker.model(x, t, each) for each in words)
    torch.testing.assert_close(network(x, t), untold + 3 * (told - untold))


@torch.no_grad()
def test_a_film_that_is_walked_back_half_way_is_filmed_from_there():
    """The way back ends at that time, and the edit begins there: more of the film is left."""
    maker, half = editor(20), editor(20, back=0.5)
    denoise = PROCESS.denoiser(half.network(PROMPT, 1.0), "eps")
    assert torch.equal(half.inverted(), invert(denoise, half.z, PROCESS, 20, t_start=0.5))
    want = ddim(PROCESS.denoiser(half.network(OTHER, 3.0), "eps"), half.inverted(), PROCESS, 20, t_start=0.5)
    assert torch.equal(half.edit(OTHER), want)
    far = [float((each.edit(OTHER) - each.z).square().mean()) for each in (half, maker)]
    assert far[0] < 0.8 * far[1]


def test_a_film_becomes_latents():
    class Halved(torch.nn.Module):
        def encode(self, x):
            return x[:, :, ::2, ::2]

    shown = numbers(3, 3, 8, 8)
    assert torch.equal(latents_of(Painter(painter(), Halved()), shown), shown[:, :, ::2, ::2])
    assert torch.equal(latents_of(Painter(painter(), None), shown), shown)


def blind():
    model = torch.nn.Module()
    model.unet = torch.nn.ModuleList()
    return model


@pytest.mark.parametrize("make, says", [
    (lambda: inflate(painter(), 1), "frames is 1; it takes a film of 2 frames or more"),
    (lambda: inflate(painter(), 3, "some"), "sees is 'some'; it takes one of sparse-causal, all, own"),
    (lambda: inflate(blind(), 3), "painter has no attention to a prompt"),
    (lambda: Editor(None, film(), "slides right"), "prompt is 'slides right'; it takes one that names a thing of the"),
    (lambda: editor(back=0.0), "back is 0.0; it takes a number above 0, up to 1"),
    (lambda: editor(back=1.1), "back is 1.1; it takes a number above 0, up to 1"),
    (lambda: editor().edit("grows"), "prompt is 'grows'; it takes one that names a thing, as 'a red circle slides"),
    (lambda: editor().edit(OTHER, film()[:2]), r"noise is \[2, 4, 4, 4\]; it takes the film's, \[4, 4, 4, 4\]"),
    (lambda: latents_of(Painter(painter(), None), film()[0]), r"film is \[4, 4, 4\]; it takes \[frames, 3, height"),
    (lambda: latents_of(Painter(painter(), None), film()[:1]), r"film is \[1, 4, 4, 4\]; .* of 2 frames or more"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()
