"""Chapter 16's sentences on the decoder that was trained on are held to its card."""

from math import comb

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
    right, none, another = first["shapes"]
    assert another == 0 and since["shapes"][2] <= 2
    gained = [more - less for less, more in zip(first["right"], since["right"], strict=True)][1:]
    wrong = [films - right for right in first["right"][1:]]
    assert first["right"][0] == since["right"][0] == films and "helps more where less was lost" in said
    shares = [mended / lost for mended, lost in zip(gained, wrong, strict=True)]
    assert min(shares[:2]) > max(shares[2:])
    new, old = ({*a["wrong"]} - {*b["wrong"]} for a, b in ((first, since), (since, first)))
    many = len(new) + len(old)
    chance = 2 * sum(comb(many, k) for k in range(len(old) + 1)) / 2**many
    before, now = (card["metrics"]["copies"][whose] for whose in (experiment.BEFORE, experiment.AFTER))
    batches = recipe.CLOUDS[1] + sum(share for _, share in recipe.FILMS.values())
    assert recipe.CLOUDS[1] == 2
    for sentence in (
        f"Of {films} simple films that the transformer made of noise and the autoencoder's decoder shows, {right} have "
        f"the right shape in every frame. In {none} at least one frame shows none of the six",
        f"a time $t$ between 0 and {shared.LATEST}",
        f"Beyond $t = {shared.LATEST}$ another film would come back",
        f"in up to {['eight'][shared.WAY - 8]} steps",
        "become fewer by {} of {} at 0.3 and by {} of {} at 0.6, but by {} of {} at 0.9 and by {} of {} from noise "
        "alone".format(*(number for pair in zip(gained, wrong, strict=True) for number in pair)),
        f"From noise alone {len(new)} films are right by the new decoder only, and {len(old)} by the first only; if "
        f"each way were as likely, so uneven a split would come {1000 * chance:.0f} times in 1,000",
        f"where {none} films had a frame without the right shape, {films - since['shapes'][0]} have one",
        f"Copies of simple films fall from {before['simple']['psnr']:.1f} to {now['simple']['psnr']:.1f} dB, three "
        f"times the squared error, and of full ones from {before['full']['psnr']:.1f} to {now['full']['psnr']:.1f}. "
        "To the referee",
        f"copies of other clouds have {now['textures']['psnr']:.1f} dB ({before['textures']['psnr']:.1f} before)",
        "copies of simple films {:.1f} % are right ({:.1f} before), of full ones {:.1f} ({:.1f} before)".format(*(
            100 * of[level]["all"] for level in ("simple", "full") for of in (now, before))),
        f"Two batches in {batches} are films of drifting clouds",
    ):
        assert sentence in said, sentence
    assert len(new) > 2 * len(old)
    error = 10 ** ((before["simple"]["psnr"] - now["simple"]["psnr"]) / 10)
    assert 2.8 < error < 3.2
