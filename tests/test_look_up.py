"""Chapter 03's boards: the answer is the shape of the thing that has the first square's colour, wherever it lies."""

import numpy as np
import pytest
import torch

from soralab import world
from soralab.experiments import vit_look_up as look_up
from soralab.experiments.vit_look_up import BUILD, CELL, CLASSES, GRID, boards

PALETTE = torch.tensor([world.PALETTE[name] for name in world.COLOURS])



def colours(cell: torch.Tensor) -> set[int]:
    """The palette's colours that a cell [3, CELL, CELL] shows unmixed."""
    same = (cell.flatten(1).T[:, None].int() - PALETTE[None]).abs().amax(-1) <= 1
    return set(same.any(0).nonzero().flatten().tolist())


def cells(frame: torch.Tensor) -> list[torch.Tensor]:
    board = frame[:, : GRID * CELL, : GRID * CELL]
    return list(board.unfold(1, CELL, CELL).unfold(2, CELL, CELL).flatten(1, 2).transpose(0, 1))


def answer(frame: torch.Tensor) -> int:
    """Read a board at (0, 0) without knowing how it was made: the shape that overlaps most, of the thing asked for."""
    first, *rest = cells(frame)
    (wanted,) = colours(first)
    found = [cell for cell in rest if wanted in colours(cell)]
    assert len(found) == 1
    cover = (found[0].float() - look_up.DARK) / (PALETTE[wanted][:, None, None].float() - look_up.DARK)
    cover = cover[(PALETTE[wanted] - look_up.DARK).abs().argmax()]
    grid = np.linspace(-0.08, 0.08, 9)
    radii = (0.38, 0.405, 0.43, 0.455, 0.48)
    poses = np.array([[(x, y, radius, 0.0)] for x in grid for y in grid for radius in radii], np.float32)
    misfit = []
    for shape in world.SHAPES:
        drawn = torch.from_numpy(world.coverage([shape] * len(poses), poses, CELL, CELL)[:, 0])
        misfit.append((drawn - cover).square().mean((1, 2)).min().item())
    return int(np.argmin(misfit))


def test_the_label_is_what_a_reader_of_the_board_finds():
    frames, labels = boards(0, 60)
    assert [answer(frame) for frame in frames] == labels.tolist()


def test_no_two_things_share_a_colour_and_their_number_varies():
    frames, _ = boards(1, 300)
    counts = []
    for frame in frames:
        first, *rest = cells(frame)
        seen = [colours(cell) for cell in rest]
        assert max(map(len, seen)) == 1
        seen = [next(iter(s)) for s in seen if s]
        assert len(set(seen)) == len(seen)
        counts.append(len(seen))
    assert set(counts) == set(range(1, look_up.THINGS + 1))


def test_shapes_places_and_colours_are_asked_for_alike():
    frames, labels = boards(2, 3000)
    assert (torch.bincount(labels, minlength=CLASSES) / 3000 - 1 / 6).abs().max() < 0.03
    asked = torch.tensor([next(iter(colours(cells(frame)[0]))) for frame in frames[:800]])
    assert (torch.bincount(asked, minlength=8) / 800 - 1 / 8).abs().max() < 0.05


@pytest.mark.parametrize("reach", [(0, 0), (2, 1), (0, 8)])
def test_a_board_lies_within_its_reach_and_everywhere_in_it(reach):
    still, labels = boards(3, 400)
    frames, same = boards(3, 400, reach)
    assert torch.equal(labels, same)
    found = set()
    for before, frame in zip(still, frames, strict=True):
        board = before[:, : GRID * CELL, : GRID * CELL]
        at = [
            (down, right) for down in range(reach[0] + 1) for right in range(reach[1] + 1)
            if torch.equal(frame[:, down : down + GRID * CELL, right : right + GRID * CELL], board)
        ]  # fmt: skip
        assert len(at) == 1
        found.add(at[0])
    assert len(found) == (reach[0] + 1) * (reach[1] + 1)


def test_boards_depend_on_the_seed_alone_and_a_reach_too_far_is_named():
    assert torch.equal(boards(4, 50)[0], boards(4, 50)[0])
    assert not torch.equal(boards(4, 50)[0], boards(5, 50)[0])
    for reach in ((9, 0), (0, -1)):
        with pytest.raises(ValueError, match="from 0 to 8"):
            boards(0, 1, reach)


def test_the_two_networks_cost_about_the_same():
    costs = look_up.costs()
    assert list(costs) == list(BUILD)
    assert costs["ViT"]["macs"] == pytest.approx(costs["ResNet"]["macs"], rel=0.1)


def test_at_no_reach_a_cell_is_a_patch():
    assert BUILD["ViT"]().config.patch == CELL


def test_the_crossing_holds_every_run(tmp_path, monkeypatch):
    monkeypatch.setattr(look_up, "RATES", (1e-3, 1e-1))
    table = look_up.crossing(tmp_path, sizes=(128, 256), steps=1, count=20)
    for split in ("validation", "test"):
        assert list(table[split]) == ["0.001", "0.1"]
        for row in table[split].values():
            assert {arm: {size: len(runs) for size, runs in sizes.items()} for arm, sizes in row.items()} == {
                arm: {"128": 3, "256": 3} for arm in BUILD
            }
            assert all(0 <= share <= 1 for sizes in row.values() for runs in sizes.values() for share in runs)
    assert table["validation"] != table["test"]


def test_the_rate_is_chosen_by_validation_boards_and_the_test_boards_are_shown():
    def shares(vit, resnet):
        return {"ViT": {"9": vit}, "ResNet": {"9": resnet}}

    table = {
        "validation": {"0.1": shares([0.2, 0.9], [0.4, 0.5]), "0.2": shares([0.5, 0.5], [0.6, 0.2])},
        "test": {"0.1": shares([0.1, 0.2], [0.3, 0.4]), "0.2": shares([0.9, 0.8], [0.7, 0.6])},
    }
    rates, found = look_up.at_best_rate(table)
    assert rates == {"ViT": {"9": 0.1}, "ResNet": {"9": 0.1}}
    assert found == {"ViT": {"9": [0.1, 0.2]}, "ResNet": {"9": [0.3, 0.4]}}


def test_the_second_look_takes_the_chosen_rates_and_fresh_boards(tmp_path, monkeypatch):
    monkeypatch.setattr(look_up, "RATES", (1e-3, 3e-3))
    asked, drawn = [], []
    monkeypatch.setattr(look_up, "fit", lambda *given: asked.append(given[:4]) or BUILD[given[0]]().eval())
    monkeypatch.setattr(look_up, "boards", lambda *given: drawn.append(given) or boards(*given))
    tables = look_up.tables(tmp_path, (64, 128), (128,), steps=1, count=20)
    rates, _ = look_up.at_best_rate(tables["crossing"])
    first, second = asked[: -2 * len(look_up.FRESH_SEEDS)], asked[-2 * len(look_up.FRESH_SEEDS) :]
    assert second == [(arm, rates[arm]["128"], 128, seed) for arm in BUILD for seed in look_up.FRESH_SEEDS]
    assert not {seed for *_, seed in first} & set(look_up.FRESH_SEEDS)
    assert len({seed for seed, *_ in drawn}) == len(drawn) == 5  # to train on, to choose by, to test; two fresh
    assert {size: len(runs) for size, runs in tables["again"]["ViT"].items()} == {"128": len(look_up.FRESH_SEEDS)}
