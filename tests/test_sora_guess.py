"""The best possible guess at a film under noise: a posterior mean, and no guess is better."""

import pytest
import torch

from soralab.experiments.sora_guess import TIMES, best_guess, sliding
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
