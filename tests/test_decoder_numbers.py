"""Chapter 16's sentences on the decoder that was trained on are held to its card."""

import pytest
from prose import prose_of

from soralab.experiments import sora_full_decoder as experiment
from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.recipes import decoder as shared
from soralab.recipes import sora_full_decoder as recipe


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("16_sora")


@pytest.fixture(scope="module")
def card() -> dict:
    return read_card(recipe.NAME)


def test_it_reads_what_the_model_that_is_held_writes(card):
    sora = read_card("sora_full")
    assert card["autoencoder_sha256"] == sora["autoencoder_sha256"] == read_card("sora_full_autoencoder")["sha256"]
    assert card["sora_sha256"] == sora["sha256"] and card["steps"] == recipe.TRAINING.steps


def test_what_it_mends_and_what_it_costs(said, card):
    told, films = card["metrics"]["taken back"], card["metrics"]["films"]
    first, since = told[experiment.BEFORE], told[experiment.AFTER]
    assert list(experiment.TIMES) == [0, 0.3, 0.6, 0.9, 1] and len(first["right"]) == len(since["right"]) == 5
    assert first["right"][-1] == films - len(first["wrong"]) and since["right"][-1] == films - len(since["wrong"])
    right, none, another = first["shapes"]
    assert another == 0 and since["shapes"][2] <= 1
    gains = [more - less for less, more in zip(first["right"], since["right"], strict=True)]
    new, old = ({*a["wrong"]} - {*b["wrong"]} for a, b in ((first, since), (since, first)))
    before, now = (card["metrics"]["copies"][whose] for whose in (experiment.BEFORE, experiment.AFTER))
    batches = recipe.CLOUDS[1] + sum(share for _, share in recipe.FILMS.values())
    assert recipe.CLOUDS[1] == 2
    for sentence in (
        f"Of {films} simple films that the transformer made of noise and the autoencoder's decoder shows, {right} have "
        f"the right shape, {none} none of the six, and none another",
        f"a time $t$ between 0 and {shared.LATEST}",
        f"{gains[2]} more of {films} are right at 0.6, {gains[4]} from noise alone, and {gains[1]} at 0.3, where only "
        f"{films - first['right'][1]} were wrong",
        f"From noise alone {len(new)} films are right by the new decoder only, and {len(old)} by the first only",
        f"of {none} bent shapes {since['shapes'][1]} are left",
        f"{before['simple']['psnr']:.1f} dB become {now['simple']['psnr']:.1f} for copies of simple films, and "
        f"{before['full']['psnr']:.1f} become {now['full']['psnr']:.1f} for full ones",
        f"{before['textures']['psnr']:.1f} dB before, {now['textures']['psnr']:.1f} now",
        "copies of simple films {:.1f} % are right ({:.1f} before), of full ones {:.1f} ({:.1f} before)".format(*(
            100 * of[level]["all"] for level in ("simple", "full") for of in (now, before))),
        f"Two batches in {batches} are clouds",
    ):
        assert sentence in said, sentence
    assert len(new) > 2 * len(old)
    assert max(gains) == gains[2] and min(gains[1:]) > 0 == gains[0] and "most in the middle" in said
    counts = [round(300 * of["full"]["all"]) for of in (before, now)]  # intervals that overlap: it may be chance
    assert wilson(counts[1], 300)[1] > wilson(counts[0], 300)[0] and len(new) > 2 * len(old)
