"""The best possible guess at a film under noise: a posterior mean, and no guess is better."""

import re
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_maker

from soralab.diffusion import RectifiedFlow
from soralab.experiments.sora_guess import ROWS, TIMES, best_guess, guesses, sliding, turning
from soralab.sora import word_ids
from soralab.world import render, to_film
from soralab.world.language import short_caption

KNOWN = torch.randn(5, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("t", [0.2, 0.7, 1.0])
def test_it_weighs_each_film_by_bayes_rule(t):
    """Each film's weight is the density of z_t under it, N((1 - t) z, t^2), by torch's own density."""
    z_t = (1 - t) * KNOWN[3] + t * torch.randn(KNOWN[0].shape, generator=torch.Generator().manual_seed(1))
    log = torch.distributions.Normal((1 - t) * KNOWN.double(), t).log_prob(z_t.double()).flatten(1).sum(1)
    weight = (log - log.logsumexp(0)).exp()
    wanted = (weight[:, None, None, None, None] * KNOWN).sum(0)
    torch.testing.assert_close(best_guess(z_t, t, KNOWN)[0].double(), wanted, rtol=1e-4, atol=1e-5)


def test_it_is_the_mean_in_pure_noise_and_the_film_in_next_to_none():
    noise = torch.randn(KNOWN[0].shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(best_guess(noise, 1.0, KNOWN)[0], KNOWN.mean(0))
    torch.testing.assert_close(best_guess(0.95 * KNOWN[2] + 0.05 * noise, 0.05, KNOWN)[0], KNOWN[2])
    for t in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"t: got {t}"):
            best_guess(noise, t, KNOWN)


def test_the_films_of_a_sentence_are_of_that_sentence_and_all_differ():
    scenes = sliding()
    assert {short_caption(scene) for scene in scenes} == {"a small red circle slides right"} and len(scenes) == 144
    films = to_film(render(scenes, 9, 32, 32))
    assert len(torch.unique(films.flatten(1), dim=0)) == 144
    black = films[:, :, 0].amin((2, 3))
    edge = torch.cat([films[..., 0, :], films[..., -1, :]], -1).amax((1, 2, 3))
    assert black.shape == (144, 9) and (edge < 0.9).all(), "no film leaves the frame"
    assert all(0 < t <= 1 for t in TIMES)


@pytest.mark.parametrize("shape, corners", [("square", 4), ("triangle", 3)])
def test_the_films_of_a_thing_that_turns_are_of_one_sentence_and_all_differ(shape, corners):
    scenes = turning(shape=shape, corners=corners)
    assert {short_caption(scene) for scene in scenes} == {f"a medium orange {shape} spins"} and len(scenes) == 64
    films = to_film(render(scenes, 9, 32, 32)).flatten(1)
    assert torch.cdist(films, films).fill_diagonal_(99).min() > 1, "no film is another turned by a corner"
    thing, phases = scenes[0].objects[0], sorted({scene.objects[0].phase for scene in scenes})
    on = [replace(scenes[0], objects=(replace(thing, phase=phases[-1] + k * phases[1]),)) for k in (0, 1)]
    film, before, whole = to_film(render([scenes[0], *on], 9, 32, 32))
    assert (film - whole).abs().max() < 0.02 < 0.2 < (film - before).abs().max(), "one angle more, and it is a corner"


def test_what_the_guesses_are_guesses_at():
    """Row by row and time by time: the film under the noise, the network's opinion, Bayes' guess; and their errors."""
    maker, times = tiny_maker(), (1.0, 0.6, 0.02)
    films, says = guesses(maker, "a red circle spins", sliding(), truth=70, seed=3, times=times)
    assert films.shape == (3, len(ROWS), 9, 3, 32, 32) and films.abs().max() <= 1 and len(says) == 3
    with torch.no_grad():
        known = maker.autoencoder.encode(to_film(render(sliding(), 9, 32, 32)))
        noise = torch.randn(known[:1].shape, generator=torch.Generator().manual_seed(3))
        for t, shown, said in zip(times, films, says, strict=True):
            z_t = RectifiedFlow().add_noise(known[70:71], noise, torch.tensor([t]))
            opinion = RectifiedFlow().denoiser(lambda z, at: maker.sora(
                z, at, word_ids(["a red circle spins"], 48)), "v")(z_t, t)[0]
            best = best_guess(z_t, t, known)
            wanted = maker.autoencoder.decode(torch.cat([z_t, opinion, best])).clamp(-1, 1)
            torch.testing.assert_close(shown, wanted, rtol=1e-4, atol=1e-4)
            errors = [float(word) for word in re.findall(r"\d+\.\d+", said)]
            assert errors == pytest.approx([(guess - known[70]).square().mean().item() for guess in (opinion, best)],
                                           abs=6e-4)  # fmt: skip
            assert re.match(r"squared error of the opinion [\d.]+, of the best guess [\d.]+$", said)
    assert float(says[2].split()[-1]) < 1e-3
