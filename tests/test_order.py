"""Chapter 08's task: what a class means, that a bag of frames is at chance by construction, how films are scored."""

from collections import Counter

import pytest
import torch
from tiny_models import randomise

from soralab import world
from soralab.datasets import order
from soralab.datasets.order import CLASSES, FRAMES, NAMES, PAIRS, Batches, films, label, name_of, reverse, sample
from soralab.experiments import vivit_scores as scores
from soralab.experiments import vivit_sora as beside
from soralab.vivit import ViViT, ViViTConfig


def test_classes_are_motions_with_a_direction_in_time_and_their_reverses():
    assert CLASSES == 14 and len(set(NAMES)) == 14
    turns = {"orbits": ("clockwise", "anticlockwise"), "spins": ("clockwise", "anticlockwise"),
             "passes behind a wall": ("left", "right")}  # fmt: skip
    named = {name_of(motion, turn) for motion in world.MOTIONS for turn in turns.get(motion, ("",))}
    turning = {name for pair in order.TURNS for name in pair}
    assert named == ({*NAMES, "stays still"} | turning) - {"bounces backwards"} and ViViTConfig().classes == CLASSES
    assert not turning & set(NAMES)
    assert all(reverse(reverse(k)) == k and {NAMES[k], NAMES[reverse(k)]} == set(PAIRS[k // 2]) for k in range(14))
    assert torch.equal(reverse(torch.arange(4)), torch.tensor([1, 0, 3, 2]))


def test_the_referee_reads_of_a_film_what_its_class_says():
    """Forwards and backwards; only a bounce that runs backwards follows no law of the world."""
    shown, labels = films(3, range(90))
    right = Counter()
    for film, k in zip(order.to_pixels(shown), labels.tolist(), strict=True):
        said = beside.by_referee(film)
        right[NAMES[k], said == (None if NAMES[k] == "bounces backwards" else NAMES[k])] += 1
    assert {name for name, _ in right} == set(NAMES)
    assert sum(n for (_, hit), n in right.items() if hit) >= 85


def test_backwards_is_the_same_film_from_its_end():
    numbers = range(40)
    shown, labels = films(5, numbers)
    both = Counter()
    for k in numbers:
        scene, backwards = sample(5, k)
        film = torch.from_numpy(world.render([scene], order.CLIP, 32, 32)[0, :FRAMES])
        assert torch.equal(shown[k], film.flip(0) if backwards else film)
        assert labels[k] == label(scene, backwards) == (reverse(label(scene)) if backwards else label(scene))
        both[backwards] += 1
    assert min(both.values()) > 10


def test_which_way_is_a_fair_coin_whatever_the_scene():
    """So what a bag of frames can tell, all about the scene, says nothing of the direction."""
    drawn = [sample(1, k) for k in range(1500)]
    pairs, forwards, first = Counter(), Counter(), Counter()
    for scene, backwards in drawn:
        pair = label(scene) // 2
        pairs[pair] += 1
        forwards[label(scene)] += not backwards
        first[label(scene)] += 1
    assert len(pairs) == len(PAIRS) and min(pairs.values()) > 160  # 214 are expected
    for k, n in first.items():
        assert abs(forwards[k] / n - 0.5) < 4 * 0.5 / n**0.5


def test_what_turns_has_classes_of_its_own():
    names = [name for pair in order.TURNS for name in pair]
    shown, labels = films(2, range(24), "test", order.TURNS)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    right = 0
    for film, k in zip(order.to_pixels(shown), labels.tolist(), strict=True):
        right += beside.by_referee(film) == names[k]
    assert right >= 22
    assert torch.equal(Batches(2, 4, order.TURNS)(1)["label"], films(2, range(4, 8), pairs=order.TURNS)[1])
    with pytest.raises(ValueError):
        label(sample(2, 0, pairs=order.TURNS)[0])


def test_splits():
    for split in ("train", "test"):
        for k in range(150):
            thing = sample(2, k, split)[0].objects[0]
            assert not world.held_out(thing.shape, thing.colour, thing.motion)
            back = NAMES[reverse(NAMES.index(name_of(thing.motion, thing.turn)))]
            assert not world.held_out(thing.shape, motion=back)
    held = [sample(2, k, "held_out")[0] for k in range(30)]
    assert all(scene.held_out for scene in held)
    assert not torch.equal(films(2, range(8))[0], films(2, range(8), "test")[0])


def test_batches_are_pure_in_the_step_and_no_film_comes_twice():
    batches = Batches(4, 6)
    one, two = batches(3), batches(4)
    assert one["films"].shape == (6, FRAMES, 3, 32, 32) and one["films"].min() >= -1 and one["films"].max() <= 1
    assert torch.equal(one["films"], Batches(4, 6)(3)["films"]) and torch.equal(one["label"], batches(3)["label"])
    whole, labels = films(4, range(18, 30))
    assert torch.equal(torch.cat([one["films"], two["films"]]), order.to_pixels(whole))
    assert torch.equal(torch.cat([one["label"], two["label"]]), labels)


# ------------------------------------------------------------------------------------------------------------- scores


class Told(torch.nn.Module):
    """Answers by looking a film up: films [n, ...] and the logits [n, 14] that it gives to them; to others, zeros."""

    def __init__(self, shown, logits, frames=FRAMES):
        super().__init__()
        self.known = {film.numpy().tobytes(): row for film, row in zip(order.to_pixels(shown), logits, strict=True)}
        self.config = ViViTConfig(frames=frames)

    def forward(self, x):
        return torch.stack([self.known.get(film.numpy().tobytes(), torch.zeros(CLASSES)) for film in x])


@pytest.fixture(scope="module")
def some():
    return films(6, range(60))


def one_hot(labels):
    return torch.nn.functional.one_hot(labels, CLASSES).float()


def test_a_perfect_reader_has_full_marks(some):
    shown, labels = some
    perfect = Told(torch.cat([shown, shown.flip(1)]), one_hot(torch.cat([labels, reverse(labels)])))
    row = scores.row(perfect, shown, labels)
    assert [row[column] for column in scores.COLUMNS] == [1, 1, 1, 1]
    assert sum(n for _, n in row["by pair"].values()) == 60
    assert all(right == n for right, n in row["by pair"].values())


def test_a_bag_is_right_half_of_the_time_and_never_both_ways(some):
    shown, labels = some
    bag = 2.0 * one_hot(labels // 2 * 2) + one_hot(labels // 2 * 2 + 1)  # the pair is known, the first is guessed
    row = scores.row(Told(torch.cat([shown, shown.flip(1)]), torch.cat([bag, bag])), shown, labels)
    assert row["pair"] == 1 and row["both ways"] == 0
    assert row["class"] == row["direction"] == round((labels % 2 == 0).float().mean().item(), 4)


def test_who_reads_all_films_as_their_reverse_has_no_marks_for_direction(some):
    shown, labels = some
    row = scores.row(Told(shown, one_hot(reverse(labels))), shown, labels)
    assert (row["class"], row["pair"], row["direction"], row["both ways"]) == (0, 1, 0, 0)
    assert all(right == 0 for right, _ in row["by pair"].values())


def test_no_opinion_is_no_direction(some):
    shown, labels = some
    assert scores.row(Told(shown, torch.zeros(60, CLASSES)), shown, labels)["direction"] == 0


def test_a_wrong_class_can_have_the_right_direction(some):
    """The direction is asked of the true pair alone, so that it can be had without knowing the motion."""
    shown, labels = some
    other = (labels + 2) % CLASSES
    row = scores.row(Told(shown, 2 * one_hot(other) + one_hot(labels)), shown, labels)
    assert (row["class"], row["pair"], row["direction"]) == (0, 0, 1)


def test_what_turns_is_scored_by_its_own_pairs(some):
    shown, labels = some
    row = scores.row(Told(shown, one_hot(labels % 4)), shown, labels % 4, order.TURNS)
    assert row["class"] == 1 and row["by pair"].keys() == {"orbits clockwise", "spins clockwise"}


def test_what_order_does(monkeypatch, some):
    shown, labels = some
    monkeypatch.setattr(order, "films", lambda seed, indices, split: (shown, labels))
    both = torch.cat([shown, shown.flip(1)])
    perfect = Told(both, one_hot(torch.cat([labels, reverse(labels)])))
    found = scores.order_of_time(perfect, 60)
    assert found["turned"] == 1 and 0 < found["shuffled"] < 0.3  # of four moments' orders, 1 in 24 is the film's own
    deaf = Told(both, one_hot(torch.cat([labels, labels])))
    assert scores.order_of_time(deaf, 60)["turned"] == 0


@torch.no_grad()
def test_which_order_a_reader_hears():
    """A bag of pairs hears of the frames in each moment alone, a reader of single frames of the moments alone."""
    sizes = {"dim": 8, "depth": 1, "heads": 2}
    pairs = randomise(ViViT(ViViTConfig(2, tubelet=(2, 16, 16), temporal_depth=0, **sizes)))
    found = scores.order_of_time(pairs, 40)
    assert found["moments turned"] == 0 and found["turned"] == found["tubelets turned"]
    assert found["shuffled"] == scores.measure(pairs, "test", 40)["class"]
    single = randomise(ViViT(ViViTConfig(4, tubelet=(1, 16, 16), **sizes)))
    found = scores.order_of_time(single, 40)
    assert found["tubelets turned"] == 0 and found["turned"] == found["moments turned"]


def test_a_reader_of_few_frames_is_given_few(some):
    shown, labels = some
    few = Told(shown[:, 1::2], one_hot(labels), frames=4)
    assert scores.row(few, shown, labels)["class"] == 1


# ------------------------------------------------------------------------------------------------ beside the referee


def test_prompts_that_move():
    numbers, texts, scenes = beside.moving(12)
    assert len(numbers) == len(texts) == len(scenes) == 12 and numbers == sorted(set(numbers))
    everything = beside.prompts("test", numbers[-1] + 1)[0]
    assert [everything[k] for k in numbers] == texts
    left_out = ("stays still", "orbits", "spins")
    for k, text in enumerate(everything):
        assert (k in numbers) != any(motion in text for motion in left_out)


def test_the_films_are_those_that_chapter_16s_card_is_about():
    class Maker:
        def film(self, prompts, seed):
            return torch.full((1, 2), float(seed))

    assert beside.filmed(Maker(), [4, 9], ["a", "b"])[:, 0].tolist() == [beside.NOISE + 4, beside.NOISE + 9]


def test_the_referee_has_its_say_in_the_words_of_the_task():
    scenes = [scene for scene, _ in (sample(8, k) for k in range(25))]
    shown = world.to_film(world.render(scenes, order.CLIP, 32, 32))
    said = [beside.by_referee(film) for film in shown]
    assert sum(a == NAMES[label(scene)] for a, scene in zip(said, scenes, strict=True)) >= 24
    assert beside.by_referee(-torch.ones(9, 3, 32, 32)) is None  # nothing there
    assert beside.by_referee(shown[0][:1].expand(9, -1, -1, -1)) == "stays still"


def test_who_is_right_is_counted():
    rows = [{"asked": a, "reader": b, "referee": c} for a, b, c in ("xxx", "xxx", "xxy", "xyx", "xyy", "xyz")]
    assert beside.counts(rows) == {"both": 2, "reader alone": 1, "referee alone": 1, "neither, the same": 1,
                                   "neither, apart": 1}  # fmt: skip


def test_a_prompt_of_a_wall_names_no_side():
    left, right = (f"{world.MOTIONS[-1]} to the {side}" for side in ("left", "right"))
    assert beside.finds(left, world.MOTIONS[-1]) and beside.finds(right, world.MOTIONS[-1])
    assert beside.finds(left, left) and not beside.finds(right, left)
    assert not beside.finds(None, world.MOTIONS[-1]) and not beside.finds("grows", world.MOTIONS[-1])
    _, texts, scenes = beside.moving(40)
    walls = [text for text, scene in zip(texts, scenes, strict=True) if scene.objects[0].motion == world.MOTIONS[-1]]
    assert walls and not any(" left" in text or " right" in text for text in walls)


def test_the_table_beside_the_referee(monkeypatch):
    """A reader that knows the true films, and a maker that films the first prompt's reverse."""
    numbers, texts, scenes = beside.moving(6)
    true = world.to_film(world.render(scenes, order.CLIP, 32, 32))
    labels = torch.tensor([label(scene) for scene in scenes])

    class Maker:
        def film(self, prompts, seed):
            k = numbers.index(seed - beside.NOISE)
            return true[k : k + 1].flip(1) if k == 0 else true[k : k + 1]

    monkeypatch.setattr(beside.Filmmaker, "load", lambda name, where: Maker())
    assert torch.equal(beside.made_again(numbers[1:3]), true[1:3])
    found = beside.beside_the_referee(Told(true[:, :FRAMES], one_hot(labels)), 6)
    assert found["prompts"] == 6 and found["true"]["both"] == 6
    first = next(row for row in found["differ"] if row["prompt"] == numbers[0])
    assert first["text"] == texts[0] and first["asked"] == NAMES[labels[0]]
    assert first["reader"] == NAMES[0] and first["sure"] == round(1 / 14, 3)  # it does not know this film
    assert sum(found["made"].values()) == 6 and found["made"]["both"] == 5
