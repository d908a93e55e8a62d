"""Chapter 16's films after more and more computing: what is counted, what is filmed, and that rows are added."""

from dataclasses import replace

import pytest
import torch
from tiny_full import CONFIG, tiny_codec, tiny_full

from soralab.experiments import sora_full_compute as compute
from soralab.experiments.sora_full_scores import asked
from soralab.files.checkpoints import save_checkpoint
from soralab.recipes import sora_full as recipe
from soralab.sora_full import FullConfig, FullSora
from soralab.training.data import model_flops


@pytest.fixture
def standing(tmp_path, monkeypatch):
    """A training that stands at 40 steps, and the file of the experiment, both in a folder of their own."""
    monkeypatch.setattr(compute, "FILE", tmp_path / "compute")
    monkeypatch.setattr(recipe, "BEGUN", tmp_path / "held")
    monkeypatch.setattr(recipe, "RUNS", tmp_path)
    monkeypatch.setattr(recipe, "build", lambda: FullSora(CONFIG))
    monkeypatch.setattr(recipe, "load_autoencoder", lambda name: tiny_codec())

    def stand(steps, of=1000):
        state = {f"ema/{key}": value for key, value in tiny_full().state_dict().items()}
        state |= {f"model/{key}": torch.zeros_like(value) for key, value in tiny_full().state_dict().items()}
        config = replace(recipe.TRAINING, steps=of, warmup=1).card()
        card = {"step": steps, "seconds": 2.0 * steps, "config": config}
        save_checkpoint(tmp_path / "sora_full" / "from_0" / "state", state, card)

    stand(40)
    return stand


def test_operations_are_three_forward_passes_a_step_and_early_steps_cost_less(monkeypatch):
    model = FullSora(CONFIG)
    early, late = (compute._forward(model, compute.Batches(compute.libraries(), early=recipe.EARLY)(k))
                   for k in (0, recipe.EARLY))  # fmt: skip
    assert early < late
    assert compute.operations(model, 1) == 3 * early
    monkeypatch.setattr(recipe, "EARLY", 10)
    ten, thirty = compute.operations(model, 10), compute.operations(model, 30)
    assert compute.operations(model, 20) - ten == pytest.approx((thirty - ten) / 2)  # as many late steps
    assert (thirty - ten) / 20 > ten / 10
    monkeypatch.setattr(recipe, "LATE", 20)
    fewer, more = compute.operations(model, 20), compute.operations(model, 30)
    assert fewer == compute.operations(model, 10) + (thirty - ten) / 2 and more - fewer > (thirty - ten) / 2
    last = [compute._forward(model, compute.Batches(compute.libraries(), early=10, late=20)(k)) for k in range(20, 28)]
    assert more - fewer == pytest.approx(3 * 10 * sum(last) / 8)


def test_a_forward_pass_of_a_row_is_that_of_its_films():
    """Counted by hand of a row of one kind: the packed row of n films takes n times what one does."""
    model = FullSora(CONFIG)
    one = compute.libraries()[0]
    films = [compute.Films(one["latents"].expand(n, -1, -1, -1, -1), torch.full((n, 3), 0.5), (9,), torch.zeros(n))
             for n in (1, 4)]  # fmt: skip
    single, four = (model_flops(model, [f], one["ids"][:, 0].expand(len(f.x), -1)) for f in films)
    assert four == pytest.approx(4 * single, rel=1e-6)


def test_the_average_of_the_weights_is_measured_and_rows_are_added_in_the_order_of_their_steps(standing, capsys):
    assert compute.load_experiment() == ({}, {})
    standing(200)
    compute.main()
    standing(40)
    compute.main()
    rows, films = compute.load_experiment()
    assert list(rows) == ["40", "200"] and rows["40"]["seconds"] == 80 and set(films) == {"40", "200"}
    assert rows["40"]["rate"] == rows["200"]["rate"] == 1
    assert rows["200"]["operations"] == pytest.approx(5 * rows["40"]["operations"], rel=0.05)
    for kind in compute.KINDS_ASKED:
        assert rows["40"][kind]["all"][1] == 2  # of the smoke profile
    assert capsys.readouterr().out.splitlines()[-2].split()[0] == "200"
    # The films are those of the average, from the same noise at every stage.
    made = compute.FullFilmmaker(tiny_full(), tiny_codec()).film(
        compute.shown(), seed=compute.SEED, sampler=compute.SAMPLER
    )
    want = ((made + 1) * 127.5).round().to(torch.uint8)
    assert films["40"].dtype == torch.uint8 and (films["40"].int() - want.int()).abs().max() <= 1
    assert torch.equal(films["40"], films["200"])
    maker = compute.FullFilmmaker(tiny_full(), tiny_codec())
    assert rows["40"]["full, two things"] == compute.measure(maker, "full, two things", 2, sampler=compute.SAMPLER)
    assert "background" in rows["40"]["full, two things"] and "background" not in rows["40"]["simple"]


@pytest.mark.parametrize("of, rate", [(40, 0), (50, 0.667), (1000, 1)])
def test_a_row_says_where_the_learning_rate_is(standing, of, rate):
    """It falls over the last three tenths of the steps: of 50, step 40 has ten of fifteen before it."""
    standing(40, of)
    weights, done = recipe.average()
    assert done == {"steps": 40, "seconds": 80, "rate": rate} and weights.keys() == tiny_full().state_dict().keys()
    recipe.keep()
    card = recipe.read_card(recipe.BEGUN / recipe.NAME)
    assert card["rate"] == rate and card["level"] == "full" and card["autoencoder"] == recipe.AUTOENCODER
    assert card["command"] == "soralab train sora_full" + (" --steps 40" if rate == 0 else "")


def test_the_prompts_are_the_first_of_each_kind():
    assert compute.shown() == [text for kind in ("simple", "full, two things") for text in asked(kind, 3)[0]]


def test_the_table_says_shares_with_intervals():
    one = {"colour": [100, 100], "motion": [60, 100], "shape": [58, 100], "size": [99, 100], "everything": [50, 100]}
    two = {**one, "colour": [12, 48], "background": [7, 10], "everything": [0, 100]}
    rows = {"1500": {"operations": 4.2e15, "simple": one, "full, two things": two}}
    assert compute.table({"1500": {**rows["1500"], "rate": 0.0}}).splitlines()[1].split()[1] == "0%"
    head, first, second = compute.table(rows).splitlines()
    assert head.split() == ["steps", "rate", "operations", "asked", *compute.TOLD]
    assert first.split() == ["1,500", "100%", "4.2e+15", "simple", "100", "60", "58", "99", "–", "50", "(40–60)"]
    assert second.split() == ["full,", "two", "things", "25", "60", "58", "99", "70", "0", "(0–4)"]


def test_libraries_are_of_the_recipes_sizes():
    assert [tuple(held["latents"].shape[1:]) for held in compute.libraries()][:2] == [(3, 16, 8, 8), (3, 16, 8, 12)]
    assert replace(FullConfig(), words=24).words >= compute.libraries()[0]["ids"].shape[2]
