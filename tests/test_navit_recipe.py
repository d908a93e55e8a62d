"""How chapter 07's NaViT is trained and what is measured with it: batches, the arms at an equal budget, the speeds."""

from dataclasses import replace
from functools import partial
from random import Random

import pytest
import torch

from soralab.datasets.native_sizes import pictures, to_pixels
from soralab.experiments import navit_budget as budget
from soralab.experiments import navit_scores as scores
from soralab.experiments import navit_speed as speed
from soralab.navit import NaViT, NaViTConfig, beta_rate, collate
from soralab.recipes.navit import CONFIG, LENGTH, ROWS, TRAINING, Batches, fit, loss, packed
from soralab.vit import ViT, ViTConfig


@pytest.fixture(scope="module")
def pool():
    return pictures(7, range(300))


def model(**changes):
    torch.manual_seed(0)
    made = NaViT(NaViTConfig(**{**vars(CONFIG), **changes}))
    torch.nn.init.normal_(made.head.weight)
    return made.eval()


def shown_in(batch):
    """How often each label's picture lies in a batch, by the bytes of its first patch and its size."""
    return [(batch["sizes"][k].tolist(), int((batch["ids"] == k).sum())) for k in range(len(batch["label"]))]


def test_an_epoch_shows_no_picture_twice_and_leaves_few_out(pool):
    numbered = torch.arange(len(pool[0]))  # the label tells which picture it is
    batches = Batches(pool[0], numbered, length=200, rows=2, seed=1)
    batches(0)
    steps = batches.begins[1]
    first = torch.cat([batches(step)["label"] for step in range(steps)])
    second = torch.cat([batches(step)["label"] for step in range(steps, 2 * steps - 2)])
    assert len(set(first.tolist())) == len(first) > 0.97 * len(numbered)
    assert len(set(second.tolist())) == len(second) and first[:20].tolist() != second[:20].tolist()
    assert steps > 30


def test_batches_hold_whole_pictures_with_their_labels_and_are_pure_in_the_step(pool):
    batches = Batches(*pool, length=200, rows=2, seed=1)
    numbered = Batches(pool[0], torch.arange(len(pool[0])), length=200, rows=2, seed=1)
    for step in (7, 3, 90):
        batch, which = batches(step), numbered(step)["label"]
        assert batch["ids"].shape == (2, 200)
        assert torch.equal(batch["label"], pool[1][which])
        again = packed([pool[0][k] for k in which.tolist()], 200)
        for name in again:
            assert torch.equal(batch[name], again[name])
        other = Batches(*pool, length=200, rows=2, seed=1)(step)
        assert all(torch.equal(batch[name], other[name]) for name in batch)
    assert batch["patches"].min() >= -1 and batch["patches"].max() <= 1
    assert not torch.equal(Batches(*pool, length=200, rows=2, seed=2)(0)["label"][:9], batches(0)["label"][:9])


def test_dropped_tokens_make_room_for_more_pictures(pool):
    """The rate is drawn once for a picture and epoch: what the packer was told is what is kept."""
    rate = lambda rng, tokens, seen: beta_rate(rng, 0.5)  # noqa: E731
    whole, part = (Batches(*pool, length=200, rows=2, seed=1, rate=each) for each in (None, rate))
    more = sum(len(part(step)["label"]) for step in range(15)) / sum(len(whole(step)["label"]) for step in range(15))
    assert more == pytest.approx(2, abs=0.35)
    batch = part(3)
    rows, rates = part.epochs[0]
    chosen = [k for row in rows[6:8] for k in row]
    for k, (size, count) in enumerate(shown_in(batch)):
        tokens = size[0] * size[1]
        assert count == max(1, round(tokens * (1 - rates[chosen[k]]))) and part.tokens[chosen[k]] == tokens
    assert len(set(rates)) == len(rates)
    later, same = part(part.begins[1]), part(3)
    assert len(part.epochs) > 1 and part.epochs[1][1] != rates and later["label"].numel()
    assert all(torch.equal(batch[name], same[name]) for name in batch)
    assert (batch["ids"] < 0).float().mean() < 0.25


def test_the_loss_weighs_pictures_alike(pool):
    made, batch = model(), {"label": pool[1][:9], **packed(pool[0][:9], 256)}
    whole, extra = loss(made, batch, None)
    each = [loss(made, {"label": pool[1][k : k + 1], **packed([pool[0][k]], 256)}, None)[0] for k in range(9)]
    torch.testing.assert_close(whole, torch.stack(each).mean())
    answers = made(**packed(pool[0][:9], 256)).argmax(-1)
    assert extra["right"] == (answers == pool[1][:9]).float().mean()


# ------------------------------------------------------------------------------------------------------------- judging


def test_predictions_are_the_same_in_any_company(pool):
    made, some = model(), pool[0][:30]
    one_by_one = torch.tensor([made(**packed([picture])).argmax().item() for picture in some])
    assert torch.equal(scores.predict(made, some, chunk=7), one_by_one)
    assert len(set(one_by_one.tolist())) > 1
    assert scores.accuracy(made, some, one_by_one) == 1.0
    assert scores.accuracy(made, some, one_by_one, rate=0.75) < 1.0


def test_a_vit_is_shown_squares(pool):
    class Mean(torch.nn.Module):
        def forward(self, pixels):
            assert pixels.shape[1:] == (3, 32, 32)
            return pixels.mean((2, 3))

    some = pool[0][:8]
    means = torch.stack([to_pixels(picture).mean((1, 2)) for picture in some])
    assert torch.equal(scores.predict(Mean(), some, chunk=3), means.argmax(-1))
    torch.testing.assert_close(scores.squares(some).mean((2, 3)), means, atol=0.03, rtol=0)


def test_tables_by_size_and_shape(monkeypatch):
    """A judge that is right on wide pictures alone."""
    monkeypatch.setattr(scores, "predict", lambda made, shown, rate=0.0: torch.tensor(
        [truth[id(picture)] if picture.shape[2] > picture.shape[1] else -1 for picture in shown]))  # fmt: skip
    truth = {}

    def watched(draw):
        def act(*given):
            shown, labels = draw(*given)
            truth.update({id(picture): label for picture, label in zip(shown, labels.tolist(), strict=True)})
            kept.append(shown)
            return shown, labels
        return act

    kept = []
    monkeypatch.setattr(scores, "pictures", watched(scores.pictures))
    monkeypatch.setattr(scores, "drawn", watched(scores.drawn))
    table = scores.by_aspect(None, 200)
    assert sum(row["pictures"] for row in table.values()) == 200 and [*table] == [*scores.ASPECTS]
    assert table["up to 4:3"]["right"] < table["to 2:1"]["right"] and 0.3 < table["to 3:1"]["right"] < 0.7
    for picture in kept[0]:
        assert max(picture.shape[1:]) / min(picture.shape[1:]) <= 3
    sides = scores.by_side(None, 60)
    assert [*sides] == ["16", "24", "32", "40", "48"] and all(0.25 < share < 0.65 for share in sides.values())
    areas = [sum(p.shape[1] * p.shape[2] for p in shown) / 60 for shown in kept[1:]]
    assert areas == sorted(areas) and areas[-1] == pytest.approx(48**2, rel=0.1)


# ---------------------------------------------------------------------------------------------------------- the budget


def test_every_arm_begins_where_it_should_and_spends_as_many_tokens(pool, tmp_path, monkeypatch):
    """Within the padding of a small pool, 2,048 a step, of whatever kind; the same seeds; one size has one size."""
    asked = []

    def fit(build, training, batches, folder, probes=None):
        made = build()
        asked.append((folder.name, training, made, batches(0)))
        return made.eval(), None

    monkeypatch.setattr(budget, "fit", fit)
    monkeypatch.setattr(budget, "by_side", lambda made, count: count)
    monkeypatch.setattr(budget, "by_aspect", lambda made, count: count)
    vit = ViT(ViTConfig(classes=54))
    table = budget.compare(tmp_path, vit, steps=7, seeds=(1, 2), count=5, pool=150, first=9)
    assert {name: len(rows) for name, rows in table.items()} == {"start": 1, **dict.fromkeys(budget.ARMS, 2)}
    assert table["squares"][0] == {"by side": 5, "by aspect": 10}
    names = [name for name, *_ in asked]
    assert names == ["start", *(f"{arm}_{seed}" for arm in ("mixed_sizes", "one_size", "squares") for seed in (1, 2))]
    assert [training.steps for _, training, *_ in asked] == [9, *[7] * 6]
    assert [training.seed for _, training, *_ in asked[1:]] == [1, 2] * 3
    begun = asked[0][2].state_dict()
    for name, _, made, batch in asked:
        given = vit.state_dict() if "squares" in name else begun
        assert all(torch.equal(value, given[key]) for key, value in made.state_dict().items())
        tokens = batch["pixels"].shape[0] * 65 if "squares" in name else int((batch["ids"] >= 0).sum())
        assert 0.9 * 2048 < tokens <= 2048
        logits = made(**{key: value for key, value in batch.items() if key != "label"})
        assert logits.shape == (len(batch["label"]), 54)
        if "pixels" not in batch:
            sides = batch["sizes"].prod(1).float().sqrt() * 4
            assert (sides.std() < 2) == (name != "mixed_sizes_1" and name != "mixed_sizes_2")
    assert not torch.equal(asked[1][3]["label"][:9], asked[2][3]["label"][:9])


def test_half_dropped_drops_half(tmp_path, monkeypatch):
    asked = []

    def fit(build, training, batches, folder, probes=None):
        asked.append((folder.name, batches(0)))
        return build(), None

    monkeypatch.setattr(budget, "fit", fit)
    monkeypatch.setattr(budget, "over_dropping", lambda made, count: made is not shipped)
    shipped = model()
    table = budget.dropped(tmp_path, shipped, steps=5, seeds=(4,), count=3, pool=150)
    assert table == {"whole pictures": [True], "half dropped": [True]}  # a copy: the shipped one is left alone
    shares = [(batch["ids"] >= 0).sum() / batch["sizes"].prod(1).sum() for _, batch in asked]
    assert [name for name, _ in asked] == ["whole_pictures_4", "half_dropped_4"]
    assert shares[0] == 1 and shares[1].item() == pytest.approx(0.5, abs=0.12)


def test_the_square_arm_s_batches_are_pure(pool):
    batches = budget.Squares(*pool, seed=3)
    again = budget.Squares(*pool, seed=3)
    assert torch.equal(batches(25)["pixels"], again(25)["pixels"])
    assert ROWS * LENGTH - ViTConfig().tokens < batches.batch * ViTConfig().tokens <= ROWS * LENGTH  # a step of rows
    assert len(budget.Squares(pool[0][:5], pool[1][:5], 3)(0)["label"]) == 5  # or all that there are
    epoch = len(pool[0]) // batches.batch
    labels = torch.cat([budget.Squares(pool[0], torch.arange(300), 3)(step)["label"] for step in range(epoch)])
    assert len(set(labels.tolist())) == len(labels) == epoch * batches.batch


# ---------------------------------------------------------------------------------------------------------- the speeds


def test_the_padded_way_gives_the_packed_answers(pool):
    """The opponent computes the same, so only its padding makes it slower."""
    made, some = model(), pool[0][:20]
    batch = speed.padded(some)
    assert batch["real"].sum(1).tolist() == [p.shape[1] * p.shape[2] // 16 for p in some]
    want = made(**packed(some))
    torch.testing.assert_close(speed.PaddedNaViT(made)(**batch), want, atol=1e-5 * want.abs().max().item(), rtol=0)
    ruined = batch | {"patches": batch["patches"].masked_fill(~batch["real"][..., None], 99.0)}
    torch.testing.assert_close(speed.PaddedNaViT(made)(**ruined), want, atol=1e-5 * want.abs().max().item(), rtol=0)


def test_speeds_are_of_the_same_pictures_in_turns(monkeypatch):
    """By a clock that counts the calls: each way runs once uncounted, then in turns."""
    seen = []
    works = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    best = speed.in_turns(works, times=2)
    assert "".join(seen) == "abcabcabc" and all(value >= 0 for value in best.values())
    monkeypatch.setattr(speed, "in_turns", lambda works, times: {name: 2.0 for name in works if not works[name]()})
    table = speed.throughput(count=12, times=1)
    assert [*table] == ["packed", "padded", "squares"]
    assert all(row["pictures a second"] == 6.0 for row in table.values())
    assert table["padded"]["padding"] > 0.3 and table["squares"]["padding"] == 0
    assert speed.dropping(count=12, times=1) == {"0.0": 6.0, "0.25": 6.0, "0.5": 6.0, "0.75": 6.0}


def test_a_part_of_the_tokens_is_dropped_before_packing(pool):
    some = pool[0][:12]
    rng = Random(0)
    kept = [torch.arange(rng.randint(1, p.shape[1] * p.shape[2] // 16)) for p in some]
    batch = collate(some, 4, 512, kept)
    assert [int((batch["ids"] == k).sum()) for k in range(12)] == [len(stay) for stay in kept]


def test_what_and_where_are_counted_apart(monkeypatch):
    """Of 54 pictures every second one is taken for another shape, every third for another place."""
    asked = []
    monkeypatch.setattr(scores, "pictures", lambda *given: asked.append(given) or (list(range(54)), torch.arange(54)))
    shape, place = torch.arange(54) // 9, torch.arange(54) % 9
    found = (shape + (torch.arange(54) % 2 == 0)) % 6 * 9 + (place + (torch.arange(54) % 3 == 0)) % 9
    monkeypatch.setattr(scores, "predict", lambda made, shown: found)
    row = scores.measure(None, "held_out", 54)
    assert asked == [(scores.SEED, range(54), "held_out")]
    assert row == {"pictures": 54, "what and where": 0.3333, "what": 0.5, "where": 0.6667}


def test_a_training_begins_with_its_own_seed_s_weights(pool, tmp_path):
    ends = []
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(100 + number)  # whatever was drawn before
        training = replace(TRAINING, steps=1, seed=seed, warmup=0)
        small = NaViTConfig(**{**vars(CONFIG), "dim": 32, "depth": 1, "heads": 2})
        made, _ = fit(partial(NaViT, small), training, Batches(*pool, seed=1), tmp_path / str(number))
        ends.append(made.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert not torch.equal(ends[0]["embed.weight"], ends[2]["embed.weight"])


def test_a_batch_is_cut_by_rows_with_the_pictures_that_lie_in_them(pool):
    """Each picture is in one part, with its logits of the whole batch: the loss is the mean by their numbers."""
    batch = Batches(*pool, length=200, rows=4, seed=1)(3)
    parts = Batches.cut(batch, 3)
    assert [len(part["ids"]) for part in parts] == [1, 1, 2] and next(iter(parts[0])) == "label"
    assert sum(len(part["label"]) for part in parts) == len(batch["label"]) > 8
    net = model()
    with torch.no_grad():
        whole = loss(net, batch, None)[0]
        mean = sum(len(part["label"]) * loss(net, part, None)[0] for part in parts) / len(batch["label"])
        torch.testing.assert_close(mean, whole, rtol=1e-5, atol=0)
        for part in parts:
            part["label"] = part["label"].roll(1)
        wrong = sum(len(part["label"]) * loss(net, part, None)[0] for part in parts) / len(batch["label"])
    assert abs(wrong - whole) > 1e-3
