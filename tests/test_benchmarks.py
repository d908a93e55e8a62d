"""`python -m benchmarks`: its rows are well formed, a peer that is missing is said, and nothing here asserts a time."""

import importlib
import json
import pickle
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import __main__ as command
from benchmarks import memory, rows, table, time_to_quality
from soralab.recipes import sora

TOML = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
CASES = [case for name in command.TABLE for case in importlib.import_module(f"benchmarks.{name}").cases()]


def layer() -> rows.Work:
    return rows.training(nn.Linear(8, 4), torch.randn(3, 8))


def wider() -> rows.Work:
    return rows.training(nn.Linear(8, 5), torch.randn(3, 8))


# ------------------------------------------------------------------------------------------------ the cases as they are


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.what}, {case.peer}")
def test_a_case_is_well_formed(case):
    """It fits its columns, goes to another process, and what it needs is in an extra of pyproject.toml."""
    widths = dict(rows.COLUMNS)
    assert len(case.what) <= -widths["what"] and len(case.peer) <= -widths["peer"]
    assert pickle.loads(pickle.dumps(case)) == case or "partial" in repr(case)
    assert bool(case.peer) == bool(case.theirs)
    for name in case.needs:
        package = {"open_clip": "open_clip_torch"}.get(name.split(".")[0], name.split(".")[0])
        assert f'"{package}>=' in TOML.replace("-", "_"), f"{package} is in no extra"


def test_a_row_is_known_by_what_and_beside_whom():
    assert len({(case.what, case.peer) for case in CASES}) == len(CASES) > 30


@pytest.mark.parametrize("subject", [
    "U-Net", "Transformer", "ViT", "CLIP", "LDM U-Net", "NaViT", "ViViT", "DiT", "W.A.L.T", "Sora", "world", "drawing",
])
def test_all_that_is_to_be_compared_is_there(subject):
    assert any(case.what.startswith(subject) for case in CASES)


# ------------------------------------------------------------------------------------------------------------ measuring


def test_turns_are_taken_and_the_first_run_does_not_count():
    """On a clock of its own: each run moves it by what is next for that work."""
    now, order = [0.0], []
    costs = {"a": iter([0.5, 9, 7, 8, 9]), "b": iter([0.25, 3, 4, 3.5, 2])}

    def work(name):
        order.append(name)
        now[0] += next(costs[name])

    best = rows.side_by_side(*(partial(work, name) for name in "ab"), seconds=0, turns=4, clock=lambda: now[0])
    assert best == [7, 2] and "".join(order) == "ab" * 5


def test_a_slow_work_has_its_turns_and_a_quick_one_has_more():
    now, runs = [0.0], []

    def work(cost):
        runs.append(cost)
        now[0] += cost

    rows.side_by_side(partial(work, 8.0), seconds=3, turns=4, clock=lambda: now[0])
    assert len(runs) == 1 + 4
    runs.clear()
    rows.side_by_side(partial(work, 0.25), seconds=3, turns=4, clock=lambda: now[0])
    assert len(runs) == 1 + 12


def test_a_training_step_counts_its_products_and_leaves_gradients():
    model = nn.Linear(8, 4)
    work = rows.training(model, torch.randn(3, 8))
    assert work.weights == 36 and work.flops() == 3 * 2 * 3 * 8 * 4
    work.run()
    once = model.weight.grad.clone()
    work.run()
    torch.testing.assert_close(model.weight.grad, once)  # not added up


def test_a_row_has_both_sides():
    case = rows.Case("layers", layer, "a wider one", wider)
    row = rows.measure(case, lambda make, needs: {layer: 5e6, wider: 7e6}[make], seconds=0)
    assert (row.weights, row.peer_weights, row.memory, row.peer_memory) == (36, 45, 5e6, 7e6)
    assert row.ours > 0 and row.theirs > 0 and row.ratio == row.ours / row.theirs and row.share > 0
    assert "a wider one (45)" in rows.line(row) and f"{row.ratio:.2f}" in rows.line(row)


@pytest.mark.parametrize("needs, words", [
    (("no_such_package.models",), "not installed"), (("torch.no_such_module",), "does not import"),
])
def test_a_peer_that_is_missing_is_said(needs, words):
    """The row has our side, and the last line names whom it was not compared with."""
    row = rows.measure(rows.Case("layers", layer, "nobody", wider, needs), seconds=0)
    assert row.theirs is None and row.ratio is None and row.ours > 0
    assert f"nobody: {words} " in rows.line(row)
    alone = rows.measure(rows.Case("layers", layer), seconds=0)
    assert len(rows.line(row)) == len(rows.line(alone))  # what follows stands in its columns
    assert "missing here: nobody" in table.summary([row], 1.0)
    there = rows.measure(rows.Case("layers", layer, "torch", wider, ("torch.nn",)), seconds=0)
    assert not there.trouble and there.theirs


def test_memory_is_what_a_process_of_its_own_was_given():
    """64 MB, and 64 MB more."""
    processes, numbers = memory.Processes(), 16_000_000
    one, two = (processes.peak(partial(rows.Work, partial(torch.ones, n)), threads=1) for n in (numbers, 2 * numbers))
    assert 56e6 < one < 96e6 and 56e6 < two - one < 72e6


# ------------------------------------------------------------------------------------------------------------- printing

ROW = rows.Row("ViT", 1_234_567, 0.0451, "timm", 0.09, 1_234_567, 12e6, 345e6, 0.63)


@pytest.mark.parametrize("row", [
    ROW, replace(ROW, peer="video-diffusion-pytorch", theirs=None, peer_memory=None, trouble="does not import"),
    replace(ROW, what="w" * 37, weights=48_200_000, ours=123.4, theirs=61.0, peer_weights=9_990_000, share=None),
    rows.Row("alone", 0, 3.0, ""),
])  # fmt: skip
def test_a_line_fits_in_120_columns(row):
    assert len(rows.line(row)) <= 120
    assert all(len(line) <= 120 for line in [*rows.heading(), *rows.NOTE.splitlines()])


def test_a_line_says_what_was_measured():
    assert " ".join(rows.line(ROW).split()) == "ViT 1.23 M 45.1 ms timm 90.0 ms 0.50 12 345 63%"
    assert "timm (1.30 M)" in rows.line(replace(ROW, peer_weights=1_300_000))
    assert " ".join(rows.line(rows.Row("alone", 0, 3.0, "")).split()) == "alone - 3.00 s - - - - - -"


@pytest.mark.parametrize("seconds, words", [
    (2.0, "2.00 s"), (59.96, "60.0 s"), (0.9996, "1.00 s"), (0.0123, "12.3 ms"), (0.2, "200 ms"), (0.00045, "450 us"),
    (None, "-"),
])
def test_durations_have_three_digits(seconds, words):
    assert rows.duration(seconds) == words


def test_the_summary_names_what_is_slower():
    slow = replace(ROW, what="DiT", peer="diffusers", ours=0.18)
    other = replace(slow, what="NaViT", peer="ours, padded")
    said = table.summary([ROW, slow, other, replace(ROW, ours=0.0909), rows.Row("alone", 0, 3.0, "")], 12.3)
    assert said == "2 of 3 rows as fast as their peer or faster; slower: DiT (2.00 of diffusers). 12 s in all."


def test_the_command_prints_the_table_and_writes_it(tmp_path, capsys, monkeypatch):
    case = rows.Case("layers", layer, "nobody", wider, ("no_such_package",))
    monkeypatch.setattr(importlib.import_module("benchmarks.vit"), "cases", lambda: iter([case]))
    monkeypatch.setattr(table, "product", lambda clock: 100e9)
    monkeypatch.setattr(table, "measure", lambda case, peak, seconds, clock: rows.measure(case, peak, 0.0, clock))
    command.main(["vit", "--no-memory", "--json", str(tmp_path / "rows.json")])
    printed = capsys.readouterr().out
    assert "100 GFLOP/s" in printed and "nobody: not installed" in printed and "what " in printed
    written = (tmp_path / "rows.json").read_text(encoding="utf-8")
    assert '"peer": "nobody"' in written and '"ratio": null' in written


def test_a_name_that_is_none_is_refused():
    with pytest.raises(SystemExit, match="'vits' is none; there are unet, "):
        command.main(["vits"])


# ------------------------------------------------------------------------------------------------------ time to quality


class Tiny(nn.Module):
    """In the place of a network that films."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        return self.layer(x)


def tiny_batches(steps, folder):
    return lambda step: {"x0": torch.randn(2, 3, generator=torch.Generator().manual_seed(step)),
                         "ids": torch.zeros(2, 1, dtype=torch.long)}  # fmt: skip


@pytest.fixture
def side(tmp_path, monkeypatch):
    """A side of a tiny network, scored 0.1, 0.2, ... at each line of its log."""
    scores = iter(k / 10 for k in range(1, 20))
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(time_to_quality, "FOLDER", tmp_path)
    monkeypatch.setattr(time_to_quality, "right", lambda side, model: (next(scores), 10))
    training = replace(time_to_quality.PIXELS.training, log_every=2)
    recipe = replace(time_to_quality.PIXELS, training=training)
    return time_to_quality.Side("tiny", recipe, Tiny, lambda _: None, tiny_batches, lambda: 120.0)


def test_a_budget_stops_and_the_next_goes_on(side):
    """Every budget of nothing is one line of the log; then the schedule's end."""
    for calls in (1, 2):
        time_to_quality.go_on(side, 8, seconds=0)
        log = time_to_quality.scored(side)
        assert [record["step"] for record in log] == [2, 4][:calls]
    time_to_quality.go_on(side, 8, seconds=1e9)
    log = time_to_quality.scored(side)
    assert [(record["step"], record["right"]) for record in log] == [(2, 0.1), (4, 0.2), (6, 0.3), (8, 0.4)]
    spent = [record["processor"] for record in log]
    assert spent == sorted(spent) and time_to_quality.reached(side) is None
    assert time_to_quality.minutes(side, log[-1]) >= 2 + spent[-1] / 60  # what it needs beforehand counts
    time_to_quality.go_on(side, 8, seconds=1e9)
    assert time_to_quality.scored(side) == log


def test_a_network_of_many_shapes_is_compiled_for_each_and_the_other_as_in_its_training(monkeypatch, side):
    asked, limit = [], torch._dynamo.config.cache_size_limit
    monkeypatch.setattr(time_to_quality, "compiled", lambda model, **options: asked.append(options))
    ours, theirs = (replace(side, shapes=shapes) for shapes in (0, 3 * limit))
    ours.compiled(Tiny())
    assert asked == [{}] and torch._dynamo.config.cache_size_limit == limit
    monkeypatch.setattr(torch._dynamo.config, "cache_size_limit", limit)  # put back afterwards
    theirs.compiled(Tiny())
    assert asked == [{}, {"dynamic": False}] and torch._dynamo.config.cache_size_limit == 3 * limit
    assert [bool(s.shapes) for s in time_to_quality.SIDES] == [False, True]


@pytest.mark.parametrize("precision, kind", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_plans_seconds_are_of_the_precision_that_it_trains_in(side, monkeypatch, precision, kind):
    seen = set()

    def make_loss(_, model):
        def loss(model, batch, generator):
            product = batch["x0"].flatten(1).requires_grad_() @ torch.ones(batch["x0"].flatten(1).shape[1], 1)
            seen.add(product.dtype)
            return product.sum()

        return loss

    monkeypatch.setattr(time_to_quality.recipe, "make_loss", make_loss)
    there = replace(side, recipe=replace(side.recipe, training=replace(side.recipe.training, precision=precision)))
    assert time_to_quality.seconds_a_step(there, times=1) > 0 and seen == {kind}


def test_it_stops_at_the_goal_and_says_when(side, monkeypatch):
    monkeypatch.setattr(time_to_quality, "SIDES", (side,))
    time_to_quality.go_on(side, 40, seconds=1e9)
    log = time_to_quality.scored(side)
    assert log[-1]["step"] == 18 and log[-1]["right"] == 0.9
    assert time_to_quality.reached(side) == time_to_quality.minutes(side, log[-1])
    time_to_quality.go_on(side, 40, seconds=1e9)
    assert time_to_quality.scored(side) == log
    assert time_to_quality.verdict().endswith(f"tiny {time_to_quality.reached(side):.1f}")


@pytest.mark.parametrize("share, filmed", [(0.0, [10]), (0.4, [10]), (0.5, [10, 100]), (0.97, [10, 100])])
def test_of_a_model_that_gets_few_right_few_films_are_made(monkeypatch, share, filmed):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    asked = []

    def evaluate(maker, split, films):
        assert not maker.sora.training and split == "test"
        asked.append(films)
        return {"all": share}

    monkeypatch.setattr(time_to_quality.sora_scores, "evaluate", evaluate)
    model = Tiny().train()
    side = time_to_quality.Side("tiny", time_to_quality.PIXELS, Tiny, lambda _: None, tiny_batches, lambda: 120.0)
    assert time_to_quality.right(side, model) == (share, filmed[-1]) and asked == filmed
    assert model.training


def test_ours_films_through_its_autoencoder_and_the_unet_in_pixels(monkeypatch):
    """Both predict velocities; what a side films has the size of what its batches hold."""
    sizes = []

    def evaluate(maker, split, films):
        sizes.append(maker.film(["a red circle slides left"], steps=1).shape)
        return {"all": 0.0}

    class Still(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config, self.head = config, nn.Linear(1, 1)

        def forward(self, z, t, ids):
            return torch.zeros_like(z)

    monkeypatch.setattr(time_to_quality.sora_scores, "evaluate", evaluate)
    for side in time_to_quality.SIDES:
        time_to_quality.right(side, Still(side.recipe.config))
    assert sizes == [(1, sora.FRAMES, 3, sora.SIDE, sora.SIDE)] * 2


def test_a_plan_of_half_the_steps(monkeypatch):
    """Ours has half of the recipe's; the U-Net as many as take as long, with what ours needs before."""
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    monkeypatch.setattr(time_to_quality, "seconds_a_step", lambda side: 0.5 if side.name == "ours" else 5.0)
    before = time_to_quality.SIDES[0].before()
    for share, ours in ((1.0, 26_000), (0.5, 13_000)):
        assert time_to_quality.plan(share) == {"ours": ours, "pixel U-Net": round((before + ours * 0.5) / 5)}
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    assert set(time_to_quality.plan(0.5).values()) == {2 * time_to_quality.LOG}


def test_the_share_of_the_steps_is_an_option(monkeypatch, side, tmp_path):
    monkeypatch.setattr(time_to_quality, "SIDES", ())
    monkeypatch.setattr(time_to_quality, "why_missing", lambda _: "")
    planned = []
    monkeypatch.setattr(time_to_quality, "plan", lambda share: planned.append(share) or {})
    monkeypatch.setattr(time_to_quality, "record", lambda steps: ["known"])
    for options in ((), ("--share", "0.5", "--minutes", "1", "--json", str(path := tmp_path / "known.json"))):
        (time_to_quality.FOLDER / "plan.json").unlink(missing_ok=True)
        assert len([*time_to_quality.run(*options)]) == 1
    assert planned == [1.0, 0.5] and json.loads(path.read_text(encoding="utf-8")) == ["known"]


def test_what_is_known_is_written_with_the_machine(side, monkeypatch, tmp_path):
    monkeypatch.setattr(time_to_quality, "SIDES", (side, replace(side, name="not begun")))
    time_to_quality.go_on(side, 4, seconds=1e9)
    known = time_to_quality.record({"tiny": 4, "not begun": 9})
    log = time_to_quality.scored(side)
    minutes = [round(time_to_quality.minutes(side, row), 1) for row in log]
    weights = sum(p.numel() for p in Tiny().parameters())
    assert known["sides"]["not begun"] == {"weights": weights, "steps": 9, "scores": []}
    assert known["sides"]["tiny"] == {
        "weights": weights, "steps": 4, "step": 4, "minutes": minutes[-1],
        "scores": [{"minutes": minutes[k], "step": 2 * k + 2, "right": (k + 1) / 10, "films": 10} for k in (0, 1)],
    }  # fmt: skip
    assert known["machine"]["threads"] == torch.get_num_threads() and known["goal"] == 0.9


def test_ctrl_c_is_not_taken_for_the_budgets_end(side):
    batches = tiny_batches(8, None)

    def interrupted(step):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        time_to_quality.go_on(replace(side, batches=lambda *_: interrupted), 8, seconds=1e9)


def test_time_to_quality_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(time_to_quality, "PACKAGE", "no_such_package")
    (said,) = time_to_quality.run("--minutes", "1")
    assert "video-diffusion-pytorch is not installed" in said and "soralab[benchmarks]" in said


def test_both_sides_see_hard_films_late():
    """The U-Net's batches are the recipe's films; in the last part half of them spin and are of a HARD shape."""
    batches = time_to_quality.pixel_batches(100, None)
    early, late = batches(0), batches(90)
    assert early["x0"].shape == late["x0"].shape == (time_to_quality.BATCH, 9, 3, 32, 32)
    assert torch.equal(batches(90)["x0"], late["x0"])
    assert (late["ids"][time_to_quality.BATCH // 2 :] > 0).any(1).all()  # none of these loses its prompt
    assert round(sora.LATE * 100) <= 90
