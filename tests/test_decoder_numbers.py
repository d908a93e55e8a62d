"""Chapter 16's sentences on the decoder that was trained on are held to its card."""

import pytest
from prose import prose_of

from soralab.experiments import sora_full_decoder as experiment
from soralab.figures.curves import wilson
from soralab.files.checkpoints import BEGUN, read_card
from soralab.recipes import decoder as shared
from soralab.recipes import sora_full_decoder as recipe


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("16_sora")


@pytest.fixture(scope="module")
def card() -> dict:
    return read_card(BEGUN / experiment.Trained.__name__) if False else read_card(recipe.NAME)


def test_it_reads_what_the_model_that_is_held_writes(card):
    sora = read_card("sora_full")
    assert card["autoencoder_sha256"] == sora["autoencoder_sha256"] == read_card("sora_full_autoencoder")["sha256"]
    assert card["sora_sha256"] == sora["sha256"] and card["steps"] == recipe.TRAINING.steps


def test_what_it_mends(said, card):
    told, films = card["metrics"]["taken back"], card["metrics"]["films"]
    first, since = told[experiment.BEFORE], told[experiment.AFTER]
    right, none, another = first["shapes"]
    assert len(first["right"]) == len(experiment.TIMES) and first["right"][-1] == films - len(first["wrong"])
    for sentence in (
        f"a time $t$ between 0 and {shared.LATEST}",
    ):
        assert sentence in said, sentence
    assert wilson(since["right"][-1], films)[0] > first["right"][-1] / films
