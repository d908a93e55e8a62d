"""Chapter 16's sentences on what to predict, and where to count the error, are held to what was measured."""

import pytest
from prose import prose_of

from soralab.experiments import sora_prediction
from soralab.experiments.sora_prediction import BATCH, HELD, KINDS, PLACES, SMALL, TIMES, TRAINING
from soralab.sora import SoraConfig


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("16_sora")


@pytest.fixture(scope="module")
def runs() -> dict:
    return sora_prediction.load_experiment()["runs"]


def error(runs, place, kind, space, t) -> float:
    return runs[f"{place}_{kind}_in_{space}"]["errors"][TIMES.index(t)]


def test_all_eighteen_are_there_and_are_what_the_page_says(said, runs):
    assert len(runs) == len(PLACES) * len(KINDS) ** 2 == 18 and "eighteen trainings of a network 96 wide" in said
    assert SMALL["dim"] == 96 and f"{TRAINING.steps} steps of {BATCH} films each" in said
    assert HELD == 64 and "for 64 films that it never saw" in said
    patch = SoraConfig.pixels(**SMALL)
    numbers = patch.channels * patch.patch[0] * patch.patch[1] * patch.patch[2]
    assert numbers == 192 == 2 * patch.dim and "A patch has 192 numbers there, twice as many as" in said
    assert not any(row["all"] for row in runs.values()) and "After 400 steps no film is right in everything" in said


def test_where_the_error_is_counted(said, runs):
    film, noise, velocity = (error(runs, "latents", "x", space, 0.1) for space in KINDS)
    assert 2.7 < film / max(noise, velocity) and film / min(noise, velocity) < 3.5
    assert "three times as wrong at $t = 0.1$ as where its error is counted elsewhere" in said
    assert f"elsewhere ({film:.3f} for {noise:.3f} and {velocity:.3f})" in said
    late = {(place, kind): [error(runs, place, kind, space, 0.9) for space in KINDS]
            for place in PLACES for kind in KINDS}  # fmt: skip
    assert [panel for panel, each in late.items() if max(each) != each[1]] == [("pixels", "eps")]
    assert "at $t = 0.9$ that line is the worst of every panel but one" in said
    above = max(error(runs, place, kind, "v", t) / min(error(runs, place, kind, space, t) for space in KINDS)
                for place in PLACES for kind in KINDS for t in TIMES) - 1  # fmt: skip
    assert f"at no time more than {100 * above:.0f} % above the best of the three" in said


def test_what_is_predicted(said, runs):
    film, noise, velocity = (error(runs, "latents", kind, "v", 0.1) for kind in KINDS)
    assert f"{noise:.3f}" == f"{velocity:.3f}" and f"{noise:.3f} at $t = 0.1$" in said
    assert f"saying the film anew leaves {film:.3f}" in said
    apart = {t: max(each) / min(each) for t in TIMES for each in [[error(runs, "latents", k, "v", t) for k in KINDS]]}
    assert max(apart, key=apart.get) == 0.1 and "In latents it matters most where there is little noise" in said
    film, noise, velocity = (error(runs, "pixels", kind, "v", 0.9) for kind in KINDS)
    assert f"a squared error of {noise:.0f}." in said and f"the error is {velocity:.2f}" in said
    assert round(velocity / film) == 10 and f"ten times that of a network that says the film ({film:.3f})" in said
