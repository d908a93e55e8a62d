"""Who finds in a film what its prompt asks for: the chapters' readers, and the referee."""

import json
from itertools import count

import pytest
import torch

from soralab.datasets import order
from soralab.experiments import sora_full_readers as readers
from soralab.experiments.sora_full_scores import asked, true_films
from soralab.llava import pick_frames
from soralab.vivit import ViViTConfig
from soralab.world.scene import WALL


class Knows:
    """An assistant that finds each film's scene again and tells the truth, but of those in `lies`."""

    def __init__(self, films, scenes, lies=()):
        self.shown, self.scenes, self.lies = torch.stack([pick_frames(film) for film in films]), scenes, lies

    def see(self, frames):
        return frames.flatten(2).unsqueeze(2)  # [films, frames, one token, pixels]

    def answers(self, Z, questions):
        said = []
        for z, question in zip(Z, questions, strict=True):
            away = (self.shown.flatten(1) - z.flatten()).abs().sum(1)
            k = int(away.argmin())
            assert away[k] == 0  # it was shown these four frames and no others
            what = question.split()[1]
            assert question == f"What {what} is the object?"
            said.append("nonsense" if (k, what) in self.lies else getattr(self.scenes[k].objects[0], what))
        return said


class Follows(torch.nn.Module):
    """A reader that says these classes, one film after the other."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.config = iter(classes), ViViTConfig(frames=order.FRAMES)

    def forward(self, films):
        self.seen = films
        return torch.nn.functional.one_hot(torch.tensor([next(self.classes) for _ in films]), order.CLASSES).float()


@pytest.fixture
def shown():
    films, _ = true_films("simple", 24)
    return films, asked("simple", 24)[1]


def truth(scenes):
    """The class of each scene, and one where it has none."""
    names = [order.name_of(scene.objects[0].motion, scene.objects[0].turn) for scene in scenes]
    return [order.NAMES.index(name) if name in order.NAMES else 0 for name in names]


def test_what_is_asked_is_what_a_film_shows(shown):
    films, scenes = shown
    found = readers.looks(Knows(films, scenes), films, scenes)
    for row, scene in zip(found, scenes, strict=True):
        thing = scene.objects[0]
        changes = thing.motion in ("grows", "shrinks")
        wanted = {what: [getattr(thing, what)] * 2 for what in readers.LOOKS if not (changes and what == "size")}
        assert row == wanted
    assert any("size" not in row for row in found) and any("size" in row for row in found)


def test_the_reader_is_asked_for_its_own_motions_and_a_wall_has_no_side(shown):
    films, scenes = shown
    found = readers.motions(reader := Follows(truth(scenes)), films, scenes)
    assert torch.equal(reader.seen, films[:, : order.FRAMES])
    for row, scene in zip(found, scenes, strict=True):
        thing = scene.objects[0]
        name = order.name_of(thing.motion, thing.turn)
        assert row == ({} if name not in order.NAMES else {"motion": [WALL if thing.motion == WALL else name, name]})
    assert {} in found and any(row.get("motion", [""])[0] == WALL for row in found)


def test_an_opinion_has_what_was_asked_what_was_said_and_the_referees(shown):
    films, scenes = shown
    k = next(k for k, scene in enumerate(scenes) if scene.objects[0].motion.startswith("slides"))
    films[k] = -films[k].abs()  # nothing of the colour is left
    rows = readers.opinions(Knows(films, scenes, {(k, "shape")}), Follows(truth(scenes)), films)
    texts, _ = asked("simple", len(films))
    assert [(row["prompt"], row["text"]) for row in rows] == list(zip(count(), texts))
    thing = scenes[k].objects[0]
    assert rows[k]["shape"][:2] == [thing.shape, "nonsense"]
    assert rows[k]["colour"] == [thing.colour, thing.colour, False]
    others = [row[what] for row in rows[:k] + rows[k + 1 :] for what in readers.PARTS if what in row]
    assert all(referee for *_, referee in others) and len(others) > 3 * len(rows) - 10


@pytest.mark.parametrize("said, referee, who", [
    ("ring", True, "both"), ("ring", False, "reader"), ("moon", True, "referee"), ("moon", False, "neither"),
])  # fmt: skip
def test_who_finds_it(said, referee, who):
    assert readers.found_by("ring", said, referee) == who
    assert readers.found_by(WALL, f"{WALL} to the left", referee) == ("both" if referee else "reader")
    row = {"prompt": 7, "text": "a ring", "shape": ["ring", said, referee]}
    table = readers.counts([row, row, {"prompt": 8, "text": "b"}])
    assert table["shape"] == dict.fromkeys(readers.WHO, 0) | {who: 2}
    assert table["all"] == {name: 2 * (name == who) + (name == "both") for name in readers.WHO}  # nothing is asked of 8
    assert all(not any(table[what].values()) for what in ("colour", "size", "motion"))
    two = readers.counts([row | {"motion": ["grows", "shrinks", True], "size": ["large", "large", False]}])
    assert two["motion"]["referee"] == two["size"]["reader"] == two["all"]["neither"] == 1
    differs = [{"prompt": 7, "text": "a ring", "reader": said}] if who in ("reader", "referee") else []
    assert readers.differ([row, {"prompt": 8, "text": "b"}], "shape") == differs


def test_the_table_has_a_line_for_what_is_asked_and_the_columns_stand_below_their_films():
    of = {what: {who: 10 * k + j for j, who in enumerate(readers.WHO)}
          for k, what in enumerate(readers.PARTS)}  # fmt: skip
    head, names, *lines = readers.table({"true films": of, "others": of}).splitlines()
    assert head.split("  ")[0] == "" and head.split() == ["true", "films", "others"]
    assert names.split() == [*readers.WHO] * 2
    assert [line.split() for line in lines] == [
        [what, *map(str, [*row.values()] * 2)] for what, row in of.items()]  # fmt: skip
    second = names.index("both", names.index("neither"))
    assert abs(head.index("others") - second) < 8 and lines[0].index("0", second - 1) == second + 3


def test_what_was_read_is_kept_and_written_whole(tmp_path, monkeypatch, capsys):
    """Stopped before the model's films, the next run reads these alone; of other models nothing is taken."""
    monkeypatch.setattr(readers, "FILE", tmp_path / "found.json")
    monkeypatch.setattr(readers, "RUNS", tmp_path)
    monkeypatch.setattr(readers.Assistant, "load", lambda **_: None)
    monkeypatch.setattr(readers, "load_reader", lambda: torch.nn.Linear(1, 1))
    monkeypatch.setattr(readers.FullFilmmaker, "load", lambda *_: None)
    monkeypatch.setattr(readers, "who", lambda: name)
    monkeypatch.setattr(readers, "true_films", lambda kind, count: (torch.zeros(count), []))
    calls, stop, name = [], True, "a"

    def films_of(maker, kind, count):
        if stop:
            raise KeyboardInterrupt
        return torch.ones(count), []

    def opinions(assistant, reader, films, kind=readers.KIND):
        calls.append(int(films[0]))
        right = calls[-1] == 0
        return [{"prompt": k, "text": f"{k}", "shape": ["ring", "ring", right]} for k in range(len(films))]

    monkeypatch.setattr(readers, "films_of", films_of)
    monkeypatch.setattr(readers, "opinions", opinions)
    with pytest.raises(KeyboardInterrupt):
        readers.main()
    assert not readers.FILE.exists()
    stop = False
    readers.main()
    assert calls == [0, 1]
    found = readers.load_experiment()
    assert json.loads(readers.FILE.read_text(encoding="utf-8")) == found
    many = found["films"]
    assert {whose: of["shape"] for whose, of in found["tables"].items()} == {
        "true films": {"both": many, "reader": 0, "referee": 0, "neither": 0},
        "the whole model's": {"both": 0, "reader": many, "referee": 0, "neither": 0}}  # fmt: skip
    true, made = found["differ"].values()
    assert [row["prompt"] for row in made["shape"]] == list(range(many)) and not any((*true.values(), made["colour"]))
    assert "the whole model's" in capsys.readouterr().out
    name = "b"
    readers.main()
    assert calls == [0, 1, 0, 1]


def test_the_course_holds_both_and_every_prompt_is_counted_where_it_is_asked():
    found = readers.load_experiment()
    scenes = asked(readers.KIND, found["films"])[1]
    names = [order.name_of(scene.objects[0].motion, scene.objects[0].turn) for scene in scenes]
    fixed = sum(scene.objects[0].motion not in ("grows", "shrinks") for scene in scenes)
    wanted = {"all": len(scenes), "colour": len(scenes), "shape": len(scenes), "size": fixed,
              "motion": sum(name in order.NAMES for name in names)}  # fmt: skip
    assert tuple(found["tables"]) == readers.WHOSE
    for of in found["tables"].values():
        assert {what: sum(row.values()) for what, row in of.items()} == wanted
    for whose, of in found["tables"].items():
        for what, rows in found["differ"][whose].items():
            assert len(rows) == of[what]["reader"] + of[what]["referee"]
