"""Chapter 17's sentences and table about speed are those of data/benchmarks/gpu.json, measured of earlier kernels."""

import json
from pathlib import Path

import pytest
import torch

from soralab.experiments import triton_attention as card
from soralab.kernels import tables, windows

ROOT = Path(__file__).resolve().parents[1]


def cells(kind: str) -> list[dict]:
    book = json.loads((ROOT / "notebooks" / "17_triton_attention.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == kind]


def prose() -> str:
    return "\n".join("".join(cell["source"]) for cell in cells("markdown"))


def test_what_is_said_of_the_speed():
    file, said = card.measured(), prose()
    forwards, backwards = zip(*(card.speed("dense", dim, "flash") for dim in (64, 128)), strict=True)
    assert f"{forwards[0]:.2f} and {forwards[1]:.2f} times as fast as PyTorch's flash kernel" in said
    assert f"it reached {backwards[0]:.2f} and {backwards[1]:.2f} of that one's speed" in said
    slower = {mask for mask in card.MASKS for dim in (64, 128) for way in card.times(mask, dim)
              if min(card.speed(mask, dim, way)) < 1}
    assert set(card.MASKS) - slower == {"sliding tiles"} and "the fastest with sliding tiles alone" in said
    dq = card.tried("dense", 64, "backward_q")
    took = f"took {dq['ms']} ms in place of {dq['shipped_ms']} ({dq['tokens']:,} tokens, D 64)"
    assert dq["loads"] == "pointers" and took in said
    plain = file["calls_us"]["installed_packages_asked"] + file["calls_us"]["without_gradients"]
    assert round(plain, -2) == 800 and "some 800 where no gradient is asked" in said
    assert f"{file['calls_us']['ours']:,} µs" in said and f"PyTorch's takes {file['calls_us']['SDPA']}" in said
    call, kernel = card.times("windows", 64)["ours"][0], card.kernel_alone("windows", 64, "forward")
    assert f"Of the {call:.2f} ms for windows the kernel had {kernel}" in said
    assert f"reached {card.trial(64):.2f} and {card.trial(128):.2f} times the speed of flash" in said


def test_what_the_guide_says_of_the_speed():
    guide = (ROOT / "notebooks" / "sessions" / "17_triton_attention.md").read_text(encoding="utf-8")
    slower = sorted(card.speed("dense", dim, "flash")[1] for dim in (64, 128))
    assert f"at {slower[0]:.2f} to {slower[1]:.2f} of the speed of torch's flash kernel" in guide


def test_the_table_is_shown_as_the_file_has_it():
    (cell,) = (cell for cell in cells("code") if "card.table()" in "".join(cell["source"]))
    shown = "".join(cell["outputs"][0]["text"])
    assert shown.strip() == card.table().strip()
    assert card.measured()["date"] in shown and "as they were then" in shown


def test_what_is_said_of_the_memory():
    """The last line that the page shows, and the squares in float32 that it is said to be."""
    (cell,) = (cell for cell in cells("code") if "class Written" in "".join(cell["source"]))
    last = "".join(cell["outputs"][0]["text"]).strip().splitlines()[-1]
    tokens, plain, tiled = (float(last.split(mark)[n].split()[-1])
                            for mark, n in ((" tokens", 0), (" MiB", 0), (" MiB", 1)))
    said = prose()
    assert f"at {tokens:,.0f} tokens {plain:.0f} MiB, two squares and little else, against {tiled:.0f}." in said
    assert 1 < plain / (2 * 4 * tokens**2 / 2**20) < 1.05 and f"Our factor of {plain / tiled:.0f} in memory" in said


def test_what_is_said_of_the_idea():
    """A film's square, the roofline's numbers, and what a weight remembered would cost."""
    said, tokens = prose(), 16 * 32 * 32
    assert f"has {tokens:,} of them, so {tokens**2 / 1e6:.0f} million pairs" in said
    assert f"makes {2 * tokens**2 / 2**20:.0f} MiB" in said
    operations = 989e12 / 3.35e12  # as the page's cell has them, of NVIDIA's data sheet
    (cell,) = (cell for cell in cells("code") if "peak, bandwidth = 989e12, 3.35e12" in "".join(cell["source"]))
    shown = "".join(cell["outputs"][0]["text"])
    assert f"an H100 does {operations:.0f} operations" in shown and "The chip wants some 300." in said
    assert round(operations, -2) == 300 > operations and "could do almost 300" in said
    assert f"{128 / operations:.1%} of the peak" in shown and f"seem to stop at {100 * 128 / operations:.0f} %" in said
    assert round(4 * operations, -2) == 1200 and "worth some 1,200 operations" in said


@pytest.mark.parametrize("mask, dim", [(mask, dim) for mask in card.MASKS for dim in (64, 128)])
def test_the_tables_rows(mask, dim):
    """By hand from the file: the fastest of the others, and the ratio."""
    rows = [row for row in card.measured()["shipped"] if (row["mask"], row["dim"]) == (mask, dim)]
    (ours,) = (row for row in rows if row["way"] == "ours")
    (line,) = (line for line in card.table().splitlines() if line.startswith(f"{mask:13s} D {dim:3d}"))
    for key in ("forward_ms", "backward_ms"):
        best = min((row for row in rows if row is not ours), key=lambda row: row[key])
        ratio = best[key] / ours[key]
        assert f"{ours[key]:.2f}, {best['way']} {best[key]:.2f}: {ratio:.2f} x" in line


def test_the_keys_that_a_query_sees():
    """As the benchmark's masks have them."""
    film, tokens = (16, 32, 32), card.measured()["tokens"]
    assert film[0] * film[1] * film[2] == tokens == card.KEYS["dense"] == 2 * card.KEYS["causal"]
    cu, _ = windows(film, (1, 16, 16))
    assert set(cu.diff().tolist()) == {card.KEYS["windows"]}
    layout = tables.sliding(film, (4, 4, 4), (3, 3, 3), 1, torch.device("cpu"))
    assert set((4**3 * layout.near.sum(1)).tolist()) == {card.KEYS["sliding tiles"]}


def test_a_point_of_the_roofline():
    """Forwards, dense, flash: 4 N^2 D H operations, 8 N D H bytes."""
    file = card.measured()
    n, heads = file["tokens"], file["heads"]
    (point,) = (p for p in card.points(128, "forward") if (p.mask, p.way) == ("dense", "flash"))
    assert point.intensity == 4 * n * n / (8 * n)
    assert point.rate == pytest.approx(4 * n * n * 128 * heads / (card.times("dense", 128)["flash"][0] * 1e9))
    (back,) = (p for p in card.points(128, "backward") if (p.mask, p.way) == ("dense", "flash"))
    assert back.intensity == 10 * n * n / (16 * n)
    assert back.rate == pytest.approx(10 * n * n * 128 * heads / (card.times("dense", 128)["flash"][1] * 1e9))


def test_nothing_reaches_beyond_the_roof():
    peak = card.measured()["peak"]
    for dim in (64, 128):
        for direction in ("forward", "backward"):
            for point in card.points(dim, direction):
                roof = min(peak["bfloat16_tflops"], point.intensity * peak["bytes_a_second"] / 1e12)
                assert 0 < point.rate < roof, point


def test_kernels_alone_are_of_the_films_length():
    """Dense ones were timed at another length, and a call takes at least what its kernels do."""
    assert card.kernel_alone("dense", 64, "forward") is None and card.kernel_alone("dense", 128, "backward") is not None
    assert card.kernel_alone("windows", 64, "backward") == pytest.approx(0.167 + 0.214)
    assert card.kernel_alone("causal", 128, "forward") is None


@pytest.mark.parametrize("untrue", ["That is not known", "more than thirty", "None of it is confirmed",
                                    "no speed of ours", "No GPU was at hand", "compiled without spills"])
def test_what_the_present_kernels_made_untrue_is_gone(untrue):
    guide = (ROOT / "notebooks" / "sessions" / "17_triton_attention.md").read_text(encoding="utf-8")
    assert untrue not in prose() and untrue not in guide
