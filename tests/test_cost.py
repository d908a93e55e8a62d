"""The arithmetic of a film transformer's cost, held against what others have published and what torch counts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from soralab.experiments import cost
from soralab.experiments.cost import DIT_XL, MOVIE_GEN, OPEN_SORA, REPORTS, STAGES, THROUGHPUT, Sizes, tokens
from soralab.files.checkpoints import read_card
from soralab.sora import Sora, SoraConfig
from soralab.training.data import model_flops

MOVIE = tokens(256, 768, 768, codec=(8, 8, 8), causal=False)  # 16 seconds


def published(name):
    return REPORTS[name][0]


def test_dit_multiplies_as_its_paper_says():
    """Table 4's Gflops are multiplications. Attention's part is 4 %: without it the sum is off by far more."""
    wanted = published("DiT-XL/2, 256 x 256, multiplications forwards")
    assert DIT_XL.forward(256) / 2 == pytest.approx(wanted, rel=1e-3)
    assert DIT_XL.by_token(256) / 2 < 0.97 * wanted
    assert DIT_XL.parameters == pytest.approx(675e6, rel=0.01)  # the blocks' own; all is 675 M


def test_our_sora_multiplies_as_torch_counts():
    """But for patches, head, time and text encoder, which the arithmetic leaves out."""
    config = SoraConfig(dim=96, depth=4, heads=2, words=24, size=(5, 16, 16))
    model = Sora(config)
    x, n = torch.zeros(1, 5, 8, 16, 16), 5 * 8 * 8
    counted = model_flops(model, x, torch.zeros(1), torch.ones(1, 24, dtype=torch.long))
    sizes = Sizes(depth=4, dim=96, inner=4 * 96, cross=True, words=24)
    around = 2 * n * 96 * 32 * 2 + model_flops(model.text, torch.ones(1, 24, dtype=torch.long))
    assert sizes.forward(n) + around == pytest.approx(counted, rel=0.005)
    for wrong in (replace(sizes, cross=False), replace(sizes, modulated=False), replace(sizes, inner=96)):
        assert abs(wrong.forward(n) + around - counted) > 0.0005 * counted
    blocks = sum(p.numel() for p in model.blocks.parameters())
    assert sizes.parameters == pytest.approx(blocks, rel=0.02)  # and biases


def test_movie_gen_is_as_large_as_it_says():
    assert MOVIE == 32 * 48 * 48
    assert pytest.approx(published("Movie Gen, tokens of 16 s at 16 frames a second"), rel=0.02) == MOVIE
    assert MOVIE_GEN.parameters == pytest.approx(published("Movie Gen, parameters"), rel=0.05)
    assert replace(MOVIE_GEN, cross=False).parameters < 0.8 * published("Movie Gen, parameters")


@pytest.mark.parametrize("row", THROUGHPUT, ids=lambda row: f"{row.frames} of {row.side}")
def test_tokens_are_those_of_open_soras_tables(row):
    assert tokens(row.frames, row.side, row.side) == row.tokens


def test_throughput_is_a_steady_share_of_the_peak():
    """Of small films the GPUs make 16 to 19 % of their peak by our count, of large ones at most as much."""
    small, large = ([row.share for row in THROUGHPUT if row.side == side] for side in (256, 768))
    assert 0.15 < min(small) and max(small) < 0.20 and max(small) < 1.25 * min(small)
    assert 0.05 < min(large) and max(large) < 0.20
    films = [row for row in THROUGHPUT if row.frames == 129]
    slower = films[0].films_a_second / films[1].films_a_second
    predicted = OPEN_SORA.training(films[1].tokens) / OPEN_SORA.training(films[0].tokens)
    assert predicted == pytest.approx(slower, rel=0.3)
    assert films[1].tokens / films[0].tokens < 0.25 * slower  # tokens alone would not tell


def test_open_soras_bill_is_two_dollars_an_hour():
    for _, days, thousands in STAGES:
        assert 24 * days * 2 == pytest.approx(1000 * thousands, rel=0.002)
    seen = STAGES[0][1] * 86_400 / 8 * THROUGHPUT[3].films_a_second  # stage 1, all of it with the longest films
    assert seen == pytest.approx(70e6, rel=0.15)  # its 70 million films, once


def test_llama_needed_six_operations_a_weight_and_token():
    operations = published("Llama 3 405B, operations of the training")
    assert 6 * 405e9 * 15.6e12 == pytest.approx(operations, rel=0.01)
    hours = published("Llama 3.1 405B, hours of H100")
    assert cost.gpu_hours(operations, 0.43) < cost.gpu_hours(operations, 0.38) < hours  # at the shares it reports
    assert cost.share_of_peak(operations, 3600 * hours) == pytest.approx(0.346, abs=0.001)


def test_pairs_of_tokens_outgrow_tokens():
    n = OPEN_SORA.weights // (2 * OPEN_SORA.dim)  # where both are as much
    assert OPEN_SORA.by_pair(n) == pytest.approx(OPEN_SORA.by_token(n), rel=1e-6)
    assert MOVIE_GEN.by_pair(MOVIE) == pytest.approx(1.71 * MOVIE_GEN.by_token(MOVIE), rel=0.01)
    minute = tokens(60 * 24, 1080, 1920, codec=(8, 8, 8), causal=False)
    assert minute == 180 * 68 * 120 and MOVIE_GEN.by_pair(minute) > 30 * MOVIE_GEN.by_token(minute)


def test_training_is_three_forward_passes_and_four_where_they_are_repeated():
    assert MOVIE_GEN.training(MOVIE) == 3 * MOVIE_GEN.forward(MOVIE)
    assert MOVIE_GEN.training(MOVIE, recomputed=True) == 4 * MOVIE_GEN.forward(MOVIE)
    assert cost.sampling(MOVIE_GEN, MOVIE, steps=50) == 100 * MOVIE_GEN.forward(MOVIE)
    assert cost.sampling(MOVIE_GEN, MOVIE, steps=50, guided=False) == 50 * MOVIE_GEN.forward(MOVIE)


def test_bytes_of_a_gpu():
    """By hand, for two blocks of width 10: 2 (400 + 2 x 10 x 40 + 600) weights of 16 bytes, 2 inputs of 2 bytes."""
    sizes = Sizes(depth=2, dim=10, inner=40)
    found = cost.bytes_of_a_gpu(sizes, 100, films=3, shards=4, context=5)
    assert found == {"states": 16 * 3600 / 4, "stored": 2 * 2 * 3 * 100 * 10 / 5}
    alone = cost.bytes_of_a_gpu(MOVIE_GEN, MOVIE)
    assert alone["states"] > 5 * cost.MEMORY and alone["stored"] > 0.5 * cost.MEMORY  # not one GPU, not five
    fewest = cost.least_gpus(MOVIE_GEN, MOVIE)
    held = [sum(cost.bytes_of_a_gpu(MOVIE_GEN, MOVIE, shards=n, context=n).values()) for n in (fewest - 1, fewest)]
    assert held[1] <= 0.7 * cost.MEMORY < held[0]


def test_a_bill_adds_up():
    bill = cost.bill(MOVIE_GEN, MOVIE, films=1e8, share=0.4, dollars=2.0, gpus=6144)
    assert bill["operations"] == 1e8 * MOVIE_GEN.training(MOVIE)
    assert bill["gpu_hours"] * 3600 * 0.4 * 989e12 == pytest.approx(bill["operations"])
    assert bill["dollars"] == 2 * bill["gpu_hours"] and bill["days"] == pytest.approx(bill["gpu_hours"] / 24 / 6144)
    low, high = (gpus * 30 * 24 for gpus in published("Sora, H100 for a month, by an outsider's estimate"))
    assert 0.5 * low < bill["gpu_hours"] < high  # of the same order as the outsider's estimate


@pytest.mark.parametrize("frames, height, width, options, found", [
    (1, 256, 256, {}, 256), (5, 256, 256, {}, 512), (6, 256, 256, {}, 768), (8, 64, 64, {"causal": False}, 32),
    (129, 250, 256, {}, 8448), (9, 32, 32, {"codec": (2, 4, 4)}, 80),
])  # fmt: skip
def test_tokens(frames, height, width, options, found):
    assert tokens(frames, height, width, **options) == found


# ---------------------------------------------------------------- the sentences of chapter 16


def test_the_sentences_of_chapter_16_are_what_the_arithmetic_says():
    page = Path(__file__).resolve().parents[1] / "notebooks" / "16_sora.ipynb"
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]}
    assert f"{MOVIE:,} tokens. Squared, that is {MOVIE**2 / 1e9:.1f} billion pairs" in cells["cost-intro"]
    second = next(s for s in range(1, 61)
                  if MOVIE_GEN.by_pair(n := tokens(16 * s, 768, 768, (8, 8, 8), causal=False)) > MOVIE_GEN.by_token(n))
    assert second == 10 and "At nine seconds it has caught up" in cells["cost-terms-read"]  # nine and a third
    assert f"tokens is {100 * DIT_XL.by_pair(256) / DIT_XL.by_token(256):.0f} % beside" in cells["cost-terms-read"]

    short, long, largest, read = THROUGHPUT[0], THROUGHPUT[3], THROUGHPUT[-1], cells["cost-rates-read"]
    shares = [round(100 * row.share) for row in THROUGHPUT]
    assert f"between {min(shares[:4])} and {max(shares[:4])} %" in read and f"does not explain: {shares[4]} %" in read
    assert 3.5 < long.tokens / short.tokens < 4 and short.films_a_second / long.films_a_second == pytest.approx(4, 0.01)
    counted = OPEN_SORA.training(largest.tokens) / OPEN_SORA.training(long.tokens)
    assert largest.tokens == 9 * long.tokens and long.films_a_second == pytest.approx(40 * largest.films_a_second)
    assert f"tokens grow by nine and the rate falls by forty; the count says {counted:.0f}." in read
    seen = STAGES[0][1] * 86_400 / 8 * long.films_a_second
    assert f"took {STAGES[0][1]} GPU days" in read and f"that is {seen / 1e6:.0f} million films" in read

    bill, small = cost.bill(MOVIE_GEN, MOVIE, 1e8), tokens(256, 256, 256, codec=(8, 8, 8), causal=False)
    assert "Two to eight million hours" in cells["cost-bill-read"] and 2e6 < bill["gpu_hours"] < 3e6
    assert published("Sora, H100 for a month, by an outsider's estimate")[1] * 720 < 8e6
    assert MOVIE_GEN.forward(MOVIE) / MOVIE_GEN.forward(small) == pytest.approx(20, rel=0.05)  # "costs a twentieth"
    ours = read_card("sora")
    hours, own = ours["seconds"] / 3600, Sizes(depth=6, dim=192, inner=768, cross=True, words=48)
    assert (ours["config"]["depth"], ours["config"]["dim"], ours["config"]["words"]) == (own.depth, own.dim, own.words)
    assert "cost.Sizes(depth=6, dim=192, inner=768, cross=True, words=48)" in cells["cost-bill"]
    assert bill["operations"] == pytest.approx(1e9 * ours["steps"] * ours["batch"] * own.training(80), rel=0.1)
    assert hours == pytest.approx(4.75, abs=0.05)
    assert "four and three quarter hours on one core bought a billionth of the bill's" in cells["cost-bill-read"]
    half = tokens(256, 384, 384, codec=(8, 8, 8), causal=False)
    share = cost.bill(MOVIE_GEN, half, 1e8)["dollars"] / bill["dollars"]
    assert 4 * half == MOVIE and f"together {100 * share:.0f} % of the bill" in cells["cost-bill-read"]
