"""Marginal paths: their velocity is the mean of all lines through a place, exactly, and they bend."""

import json
import re
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

from soralab import figures
from soralab.experiments import sora_prediction
from soralab.figures import paths
from soralab.figures.paths import POINTS, marginal_path, marginal_paths, marginal_velocity, posterior

CASES = {"two": (POINTS, None), "uneven": ((-1.0, 0.5, 2.0), (0.2, 0.5, 0.3)), "one": ((0.7,), (3.0,))}
NORMAL = NormalDist()


def density(z, t, points, weights=None):
    """Of z_t, by its definition: a mixture of normal distributions."""
    weights = np.ones(len(points)) if weights is None else np.asarray(weights)
    bells = [w * np.exp(-((z - (1 - t) * x) ** 2) / (2 * t * t)) / t for x, w in zip(points, weights, strict=True)]
    return np.sum(bells, 0) / weights.sum() / np.sqrt(2 * np.pi)


def below(z, t, points, weights=None):
    """P(z_t <= z)."""
    weights = np.ones(len(points)) if weights is None else np.asarray(weights)
    return sum(w * NORMAL.cdf((z - (1 - t) * x) / t) for x, w in zip(points, weights, strict=True)) / weights.sum()


def continuity(velocity, points, weights):
    """The largest of dp/dt + d(p v)/dz, by differences, over p's largest: 0 if the velocity moves the density."""
    z, worst, h = np.linspace(-3, 3, 241), 0.0, 1e-4
    for t in (0.25, 0.5, 0.8):
        dt = (density(z, t + h, points, weights) - density(z, t - h, points, weights)) / (2 * h)
        flow = [density(z + d, t, points, weights) * velocity(z + d, t, points, weights) for d in (h, -h)]
        worst = max(worst, np.abs(dt + (flow[0] - flow[1]) / (2 * h)).max() / density(z, t, points, weights).max())
    return worst


def with_posterior(share):
    """The velocity with another posterior."""
    return lambda z, t, points, weights: (z - share(z, t, np.array(points), weights) @ np.array(points)) / t


def bayes(z, t, points, weights, scale=lambda t: 1 - t, variance=lambda t: t * t):
    """Equation 2, with a place for what may be wrong in it."""
    weights = np.ones(len(points)) if weights is None else np.asarray(weights)
    share = weights * np.exp(-((z[:, None] - scale(t) * points) ** 2) / (2 * variance(t)))
    return share / share.sum(1, keepdims=True)


WRONG = {
    "the deviation for the variance": with_posterior(lambda *a: bayes(*a, variance=lambda t: t)),
    "the points not scaled": with_posterior(lambda *a: bayes(*a, scale=lambda t: 1)),
    "all points alike": with_posterior(lambda z, t, points, _: np.full((len(z), len(points)), 1 / len(points))),
    "the nearest point": with_posterior(
        lambda z, t, points, _: np.eye(len(points))[np.abs(z[:, None] - (1 - t) * points).argmin(1)]
    ),
    "the other way": lambda *a: -marginal_velocity(*a),
}


@pytest.mark.parametrize("case", CASES)
def test_the_velocity_carries_the_density_from_noise_to_the_films(case):
    """The continuity equation, which only the mean velocity fulfils; the wrong ones do not."""
    assert continuity(marginal_velocity, *CASES[case]) < 1e-5
    right = with_posterior(bayes)
    assert continuity(right, *CASES[case]) < 1e-5
    if case == "uneven":
        for name, velocity in WRONG.items():
            assert continuity(velocity, *CASES[case]) > 0.02, name


@pytest.mark.parametrize("t, z", [(0.2, 1.0), (0.5, -0.3), (0.9, 2.0), (1.0, 0.4)])
def test_the_posterior_against_numerical_integration(t, z):
    """Films that are normal, as a sum over a fine grid: there the mean film has a formula of its own."""
    mean, spread = 0.6, 0.5
    grid = np.linspace(mean - 6 * spread, mean + 6 * spread, 4001)
    weights = np.exp(-((grid - mean) ** 2) / (2 * spread**2))
    gain = (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2)
    film = mean + gain * (z - (1 - t) * mean)
    assert posterior(z, t, grid, weights) @ grid == pytest.approx(film, abs=1e-6)
    assert marginal_velocity(z, t, grid, weights) == pytest.approx((z - film) / t, abs=1e-5)


def test_it_is_the_mean_of_the_lines_that_go_through():
    """Drawn pairs, and of them those that are near z at t."""
    rng = np.random.default_rng(0)
    x, eps, t = rng.choice(POINTS, 2_000_000), rng.standard_normal(2_000_000), 0.6
    z = (1 - t) * x + t * eps
    for place in (-0.8, 0.1, 0.5):
        near = np.abs(z - place) < 0.01
        assert (eps - x)[near].mean() == pytest.approx(marginal_velocity(place, t, POINTS), abs=0.05)


def test_few_points_far_away_are_no_matter():
    shares = posterior([50.0, -50.0], 0.01, POINTS)
    np.testing.assert_allclose(shares, [[0, 1], [1, 0]], atol=1e-12)
    for t in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match=f"t is {t}; it takes a number above 0 and up to 1"):
            posterior(0.0, t, POINTS)


@pytest.mark.parametrize("case", ["two", "uneven"])
def test_a_path_keeps_the_share_that_lies_below_it(case):
    """In one dimension paths cannot cross, so as much of the density stays below a path as at its beginning."""
    points, weights = CASES[case]
    starts = np.array([-2.0, -0.9, -0.4, 0.1, 0.6, 1.7])
    times, way = marginal_path(starts, points, weights)
    assert times[0] == 1 and times[-1] == paths.LAST and way.shape == (paths.STEPS + 1, 6)
    for t, row in list(zip(times, way, strict=True))[::20]:
        for start, z in zip(starts, row, strict=True):
            assert below(z, t, points, weights) == pytest.approx(NORMAL.cdf(start), abs=2e-3)
    assert np.abs(way[-1][:, None] - np.array(points)).min(1).max() < 0.02  # each ends at a film


def test_lines_cross_and_paths_do_not_and_bend():
    starts = np.array([-0.6, -0.2, 0.2, 0.6])
    times, way = marginal_path(starts, POINTS)
    assert (np.diff(way, axis=1) > 0).all()
    ends = [(a, x) for a in starts for x in POINTS]
    assert any((a - b) * (x - y) < 0 for (a, x), (b, y) in combinations(ends, 2))
    straight = times[:, None] * way[0] + (1 - times[:, None]) * way[-1]
    assert np.abs(way - straight).max() > 0.3
    one_step = starts - marginal_velocity(starts, 1.0, POINTS)
    np.testing.assert_allclose(one_step, 0, atol=1e-12)  # the mean of the films, which is none of them
    times, alone = marginal_path(starts, (0.7,))
    lines = times[:, None] * starts + (1 - times[:, None]) * 0.7
    np.testing.assert_allclose(alone, lines, atol=1e-9)  # with one film there is nothing to average


def test_the_picture_shows_both_and_its_words_are_true(monkeypatch):
    drawn = []
    monkeypatch.setattr(paths, "picture", lambda fig, alt, colours: drawn.append(fig) or alt)
    alt = marginal_paths()
    lines, ways = drawn[0].axes
    assert len(lines.lines) == 24 + 1 and len(ways.lines) == 12 + 1 + 1 and lines.get_xlim() == (1, 0)
    start, least, t = (float(x) for x in re.search(r"from (\S+) first sinks to (\S+), at t = (\S+),", alt).groups())
    times, way = marginal_path([NORMAL.inv_cdf(6.5 / 12)], POINTS)
    assert (start, least) == (round(way[0, 0], 2), round(way.min(), 2)) and way.min() < 0.9 * start
    assert t == round(times[way.argmin()], 2)
    assert marginal_paths(alt="else") == "else"


# ----------------------------------------------------------------------------------- what is predicted, where it counts


def row(run, _):
    """As a run's, without its training."""
    low = len(run.kind + run.space) / 10
    return {"errors": [low * (k + 1) for k in range(5)], "films": 2, **dict.fromkeys(sora_prediction.COLUMNS, 0.5)}


@pytest.fixture
def found(monkeypatch, tmp_path):
    """The file that the experiment writes."""
    monkeypatch.setattr(sora_prediction, "FILE", tmp_path / "sora_prediction.json")
    monkeypatch.setattr(sora_prediction, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(sora_prediction, "measured", row)
    sora_prediction.main()
    assert json.loads(sora_prediction.FILE.read_text()) == sora_prediction.load_experiment(sora_prediction.FILE)
    return sora_prediction.load_experiment(sora_prediction.FILE)


def test_all_eighteen_are_drawn(found, monkeypatch):
    from soralab.figures import predictions

    drawn = []
    monkeypatch.setattr(predictions, "picture", lambda fig, alt, colours: drawn.append(fig) or alt)
    alt = figures.prediction_errors(found)
    panels = drawn[0].axes
    assert len(panels) == 6 and all(len(axes.lines) == 3 for axes in panels) and alt.count("counted in") == 18
    assert [axes.get_title("left") for axes in panels[:2]] == ["predicts the film x", "predicts the noise ε"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["squared error, latents", "squared error, pixels"]
    assert list(panels[1].lines[2].get_ydata()) == found["runs"]["latents_eps_in_v"]["errors"]
    assert len({line.get_linestyle() for line in panels[0].lines}) == 3  # a second cue beside the colour
    assert drawn[0].legends[0].get_texts()[1].get_text() == "the noise ε"


def test_what_is_missing_is_left_out(found):
    some = {name: run for name, run in found["runs"].items() if name.startswith("latents_v")}
    assert figures.prediction_errors({**found, "runs": some}).alt.count("counted in") == 3
    with pytest.raises(ValueError, match="found has the runs .*latents_v_in_x"):
        figures.prediction_errors({"times": [], "runs": {}})
    assert sora_prediction.load_experiment(sora_prediction.FILE.parent / "none.json")["runs"] == {}


def test_the_table_says_what_the_films_show(found):
    lines = sora_prediction.table(found).splitlines()
    assert len(lines) == 19 and "50 (9–91)" in lines[1] and lines[1].startswith("latents  x    in x")
    assert len(sora_prediction.table({"times": [], "runs": {}}).splitlines()) == 1
