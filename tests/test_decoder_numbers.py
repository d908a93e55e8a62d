"""Chapter 16's sentences on the decoder that was trained on are held to its card."""

import pytest
from prose import prose_of

from soralab.experiments import sora_full_decoder as experiment
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
    right, none, another = (f"{100 * count / films:.0f}" for count in first["shapes"])
    percent = [[f"{100 * count / films:.0f}" for count in rows["right"]] for rows in (first, since)]
    gains = [more - less for less, more in zip(first["right"], since["right"], strict=True)][1:]
    new, old = ({*a["wrong"]} - {*b["wrong"]} for a, b in ((first, since), (since, first)))
    before, now = (card["metrics"]["copies"][whose] for whose in (experiment.BEFORE, experiment.AFTER))
    for sentence in (
        f"of {films} the referee sees the right one in {right} %, none of the six in {none} %, and another in "
        f"{another} %",
        f"a time $t$ between 0 and {shared.LATEST}",
        f"{min(gains)} to {max(gains)} more of {films} films are right, at 0.6 as well as from noise alone, where "
        f"{percent[1][4]} % are and not {percent[0][4]}",
        f"There {len(new)} films are right by the new decoder only, and {len(old)} by the first only",
        f"in {100 * since['shapes'][1] / films:.0f} % the shape is none of the six still",
        *(f"from {before[level]['psnr']:.1f} to {now[level]['psnr']:.1f}" for level in ("simple", "full")),
        f"{before['textures']['psnr']:.1f} dB before, {now['textures']['psnr']:.1f} now",
        "true simple films {:.1f} % are right, as before ({:.1f}), but of full ones {:.1f} and not {:.1f}".format(*(
            100 * of[level]["all"] for level in ("simple", "full") for of in (now, before))),
        f"{recipe.CLOUDS[1]} batches in {recipe.CLOUDS[1] + sum(share for _, share in recipe.FILMS.values())}".replace(
            "2 b", "Two b"),
    ):
        assert sentence in said, sentence
    assert len(new) > 2 * len(old)
    assert min(gains) > 0 and gains[1] >= gains[3] and now["full"]["all"] < before["full"]["all"]
