"""The record of solved exercises: what is written, what is never lost, what a stranger's file may not do; the verbs."""

import errno
import itertools
import json
import os
import stat
import sys
import types

import pytest
import toy_exercises
from toy_exercises import corner, crop, mine, stub

from soralab.command import main
from soralab.workbook import board, progress
from soralab.workbook.progress import DamagedRecord, Entry, Record

CROP = "unet.centre_crop"


@pytest.fixture(autouse=True)
def path(monkeypatch, tmp_path):
    """A record of this test's own, and a course of three toys. The day and the login name stand still."""
    chapters = tmp_path / "chapters"
    chapters.mkdir()
    toy_exercises.install(monkeypatch, chapters)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    own = tmp_path / "home" / ".soralab" / "progress.json"
    monkeypatch.setenv("SORALAB_PROGRESS", str(own))
    monkeypatch.setattr(progress.getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(progress.datetime, "date", Day)
    return own


class Day(progress.datetime.date):
    """The class of days, whose today is always the same."""

    @classmethod
    def today(cls):
        return cls(2026, 3, 14)


def refused(capsys, *argv):
    """Run a command that must be refused; return its one line."""
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("soralab: "), err
    return err


def said(capsys, *argv):
    """Run a command that must succeed in silence on stderr; return what it printed."""
    assert main([str(word) for word in argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# ------------------------------------------------------------------------------------------------------- recording


def test_tries_count_until_the_exercise_is_solved(path):
    task = crop()
    task.check(stub)
    assert not path.exists()
    task.check(corner), task.check(corner)
    assert progress.own_record() == Record("ada", {CROP: Entry(None, 2)})
    task.check(mine)
    solved = Record("ada", {CROP: Entry("2026-03-14", 3)})
    assert progress.own_record() == solved
    before = path.stat().st_mtime_ns, path.read_bytes()
    task.check(mine), task.check(corner)  # the notebook is run again, and then spoilt
    assert progress.own_record() == solved and (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_the_record_is_readable_json_and_leaves_nothing_else(path):
    crop().check(mine)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "soralab": "record", "version": 1, "name": "ada",
        "exercises": {CROP: {"passed": "2026-03-14", "tries": 1, "hints": []}},
    }  # fmt: skip
    assert os.listdir(path.parent) == ["progress.json"]


def test_the_record_lies_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("SORALAB_PROGRESS")
    monkeypatch.setattr(progress.Path, "home", classmethod(lambda cls: cls(tmp_path)))
    assert progress.record_path() == tmp_path / ".soralab" / "progress.json"
    crop().check(mine)
    assert (tmp_path / ".soralab" / "progress.json").exists()


def test_off_records_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SORALAB_PROGRESS", "off")
    before = sorted(tmp_path.rglob("*"))
    crop().check(mine)
    assert capsys.readouterr().out.splitlines()[0] == "✓ right"
    said(capsys, "hint", CROP)
    assert "0 of 3" in said(capsys, "progress")
    assert "SORALAB_PROGRESS is off" in refused(capsys, "progress", "--name", "Ada")
    assert "SORALAB_PROGRESS is off" in refused(capsys, "progress", "--export", "mine.json")
    new = set(tmp_path.rglob("*")) - set(before)
    assert {item.name for item in new if "__pycache__" not in str(item)} == set()


def test_tests_record_nothing_of_the_readers():
    import conftest

    assert conftest.ENV["SORALAB_PROGRESS"] == "off"


def check_quietly(capsys):
    """A check with a broken record: the answer comes back, and one line tells. Returns that line."""
    assert crop().check(mine) is mine
    out, err = capsys.readouterr()
    first, second, _ = out.splitlines()
    assert first == "✓ right" and err == "" and second.startswith("  (") and second.endswith(")")
    return second


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_cannot_be_written_does_not_stop_a_notebook(path, capsys, monkeypatch, number):
    crop().check(corner)
    before = path.read_bytes()
    capsys.readouterr()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert "not recorded: " in check_quietly(capsys)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["progress.json"]


@pytest.mark.parametrize("how", ["a file for a folder", "a folder for a file", "no home", "no right to read"])
def test_a_place_that_is_none_does_not_stop_a_notebook(path, capsys, monkeypatch, how):
    if how == "a file for a folder":
        path.parents[1].mkdir()
        path.parent.write_text("mine")
    elif how == "a folder for a file":
        path.mkdir(parents=True)
    elif how == "no home":
        monkeypatch.delenv("SORALAB_PROGRESS")
        monkeypatch.setattr(progress.Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no"))))
    else:
        crop().check(corner)
        capsys.readouterr()

        def closed(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("builtins.open", closed)
    assert "not recorded: " in check_quietly(capsys)


@pytest.mark.parametrize("login", [OSError, KeyError, ImportError, "\x1b[2J", "", "x" * 200])
def test_a_login_name_that_is_none(path, monkeypatch, login):
    def getuser():
        if isinstance(login, str):
            return login
        raise login

    monkeypatch.setattr(progress.getpass, "getuser", getuser)
    crop().check(mine)
    assert progress.own_record().name == "learner"


DAMAGES = {
    "empty": b"", "cut off": b'{"soralab": "record", "ver', "no text": b"\xff\xfe\x00", "a list": b"[]",
    "another file": b'{"name": "soralab"}', "a later version": b'{"soralab": "record", "version": 2}',
    "deep": b"[" * 100_000, "large": b" " * 1_000_001,
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record_is_kept_aside_never_written_over(path, capsys, how):
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGES[how])
    assert "is no record" in refused(capsys, "progress") and path.read_bytes() == DAMAGES[how]
    line = check_quietly(capsys)
    assert "progress.damaged-1.json" in line and "a new one begins" in line
    assert (path.parent / "progress.damaged-1.json").read_bytes() == DAMAGES[how]
    assert progress.own_record().solved(CROP)

    path.write_bytes(b"again")  # and a second one does not go over the first
    assert "progress.damaged-2.json" in check_quietly(capsys)
    assert (path.parent / "progress.damaged-1.json").read_bytes() == DAMAGES[how]
    assert (path.parent / "progress.damaged-2.json").read_bytes() == b"again"


@pytest.mark.skipif(os.name != "posix", reason="Windows has other rights")
def test_rights_and_links_stay(path, tmp_path):
    real = tmp_path / "synced.json"
    progress.write(real, Record("ada"))
    real.chmod(0o600)
    path.parent.mkdir(parents=True)
    path.symlink_to(real)
    crop().check(mine)
    assert path.is_symlink() and progress.read(real).solved(CROP) and stat.S_IMODE(real.stat().st_mode) == 0o600


# ----------------------------------------------------------------------------------------------- what a file may hold


def good(**changes):
    """A record's JSON with changes."""
    entry = {"passed": "2026-03-14", "tries": 2, "hints": [1, 3]}
    return {"soralab": "record", "version": 1, "name": "ada", "exercises": {CROP: entry}, **changes}


def with_entry(**changes):
    return good(exercises={CROP: {**good()["exercises"][CROP], **changes}})


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = Record("आदा L.", {CROP: Entry("2026-03-14", 2, (1, 3)), "vit.pooling": Entry(None, 7, (2,))})
    progress.write(tmp_path / "a.json", record)
    assert progress.read(tmp_path / "a.json") == record


STRANGE = [
    good(name="\x1b[2J"), good(name=""), good(name="x" * 41), good(name=None), good(name="a\nb"), good(name="a\u2028b"),
    good(name=["a"]), good(version=1.5), good(version=None), good(soralab=1), good(exercises=[]),
    good(exercises={"a b": {}}), good(exercises={"unet.\x1b": {}}), good(exercises={"../x.y": {}}),
    good(exercises={CROP: None}), good(exercises={CROP: []}), good(exercises={CROP: {}}),
    good(exercises={f"unet.e{k}": good()["exercises"][CROP] for k in range(2001)}),
    with_entry(passed=True), with_entry(passed="yesterday"), with_entry(passed=20260314), with_entry(passed="20260314"),
    with_entry(tries=-1), with_entry(tries=1.5), with_entry(tries=True), with_entry(tries="2"),
    with_entry(tries=10**9), with_entry(hints=[4]), with_entry(hints=[True]), with_entry(hints="12"),
    with_entry(hints=[1] * 4), with_entry(hints=None),
]  # fmt: skip


@pytest.mark.parametrize("data", STRANGE, ids=range(len(STRANGE)))
def test_a_strangers_file_is_refused_in_one_line(capsys, data):
    with open("theirs.json", "w", encoding="utf-8") as file:
        json.dump(data, file)
    with pytest.raises(DamagedRecord):
        progress.read("theirs.json")
    line = refused(capsys, "progress", "theirs.json")
    assert "theirs.json" in line and "\x1b" not in line and len(line) < 300


def test_the_good_file_of_these_tests_is_good(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(good()))
    assert progress.read(tmp_path / "a.json") == Record("ada", {CROP: Entry("2026-03-14", 2, (1, 3))})


@pytest.mark.parametrize("how, part", [
    ("missing", "there is no record missing.json"), ("folder", "is not a regular file"),
    ("large", "larger than 1.0 MB"), ("deep", "nested too deeply"), ("no text", "is not text"),
    ("cut off", "no JSON at line 1"),
])  # fmt: skip
def test_a_file_that_is_no_record_is_named(capsys, how, part):
    name = f"{how.replace(' ', '')}.json"
    if how == "folder":
        os.mkdir(name)
    elif how != "missing":
        with open(name, "wb") as file:
            file.write(DAMAGES[how])
    with open("good.json", "w") as file:
        json.dump(good(), file)
    line = refused(capsys, "progress", "good.json", name)
    assert part in line and name in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(capsys):
    os.mkfifo("pipe.json")
    assert "is not a regular file" in refused(capsys, "progress", "pipe.json")


# ------------------------------------------------------------------------------------------------------------- merging


def test_a_person_in_two_files_is_the_union():
    old = Record("ada", {CROP: Entry("2026-03-20", 2, (1,)), "vit.pooling": Entry(None, 3, (1,))})
    new = Record("ada", {CROP: Entry("2026-03-14", 1, (2,)), "unet.weight_map": Entry("2026-03-15", 1)})
    (one,) = progress.merge([old, new])
    assert one == Record("ada", {
        CROP: Entry("2026-03-14", 2, (1, 2)), "vit.pooling": Entry(None, 3, (1,)),
        "unet.weight_map": Entry("2026-03-15", 1),
    })  # fmt: skip


def test_merging_knows_no_order_and_no_duplicates():
    records = [
        Record("bo", {CROP: Entry(None, 1)}), Record("Ada", {CROP: Entry("2026-01-01", 1)}),
        Record("bo", {CROP: Entry("2026-01-02", 2, (1,))}), Record("cem"),
    ]  # fmt: skip
    expected = [records[1], records[2], records[3]]
    for order in itertools.permutations(records):
        assert progress.merge([*order, *order]) == expected


def test_the_board(capsys):
    people = {
        "a.json": Record("Zoë", {CROP: Entry("2026-03-14", 2), "vit.pooling": Entry("2026-03-14", 1)}),
        "b.json": Record("आदा", {"unet.weight_map": Entry("2026-03-14", 1)}),
        "c.json": Record("Bo", {CROP: Entry(None, 5, (1, 2, 3))}),
        "again.json": Record("Zoë", {"unet.weight_map": Entry("2026-03-14", 1)}),
    }
    for name, record in people.items():
        progress.write(name, record)
    expected = ("     01  03  solved\nBo   ○○  ○   0 of 3\nZoë  ●●  ●   3 of 3\nआदा  ○●  ○   1 of 3\n\n"
                "01 U-Net, 03 ViT\n")
    for order in itertools.permutations(people):
        assert said(capsys, "progress", *order) == expected


def test_a_name_written_in_two_ways_is_one_person(capsys):
    for name, spelt in (("a.json", "Zoe\u0308"), ("b.json", " Zo\u00eb  ")):
        with open(name, "w") as file:
            json.dump(good(name=spelt), file)
    assert "Zo\u00eb  ●○  ○   1 of 3\n" in said(capsys, "progress", "a.json", "b.json")


def test_entries_of_another_version_of_the_course_are_kept_and_named(path, capsys):
    progress.write("a.json", Record("ada", {"unet.gone": Entry("2026-03-14", 1)}))
    assert "no such exercise: unet.gone" in said(capsys, "progress", "a.json")
    path.parent.mkdir(parents=True)
    progress.write(path, progress.read("a.json"))
    crop().check(mine)
    assert progress.own_record().solved("unet.gone") and progress.own_record().solved(CROP)
    assert "no such exercise: unet.gone" in said(capsys, "progress")


# ------------------------------------------------------------------------------------------------------ own table


def test_the_own_table(capsys):
    crop().check(corner), crop().check(mine)
    crop(name="vit.pooling").check(corner)
    capsys.readouterr()
    said(capsys, "hint", "vit.pooling"), said(capsys, "hint", "vit.pooling")
    assert said(capsys, "progress") == (
        "ada: 1 of 3 exercises solved, 10 of 30 minutes' worth\n"
        "\n01 U-Net\n"
        "  centre_crop  ●●○   10 min  ✓ 2026-03-14, 2 tries\n"
        "  weight_map   ●●○   10 min  –\n"
        "\n03 ViT\n"
        "  pooling      ●●○   10 min  1 try                   hints 1, 2\n"
    )


def test_export_and_name(path, capsys):
    crop().check(mine)
    capsys.readouterr()
    assert said(capsys, "progress", "--name", "  Ada   Lovelace ", "--export", "mine.json") == (
        "mine.json: the record of Ada Lovelace\n")
    assert progress.read("mine.json") == progress.own_record() == Record(
        "Ada Lovelace", {CROP: Entry("2026-03-14", 1)})
    said(capsys, "progress", "--export", "mine.json")  # over an older export, yes
    with open("diary.json", "w") as file:
        file.write("{}")
    assert "diary.json is no record" in refused(capsys, "progress", "--export", "diary.json")
    with open("diary.json") as file:
        assert file.read() == "{}"
    assert "does not exist" in refused(capsys, "progress", "--export", "missing/mine.json")


@pytest.mark.parametrize("where, says", [
    ("missing/x.json", "does not exist"), ("diary.json", "is no record"), (".", "is not a regular file"),
])  # fmt: skip
@pytest.mark.parametrize("damaged", [False, True])
def test_an_export_that_fails_gives_no_other_name(path, capsys, where, says, damaged):
    progress.write("own.json", Record("ada", {CROP: Entry(None, 2)}))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{" if damaged else open("own.json", "rb").read())
    open("diary.json", "w").close()
    before = path.read_bytes()
    assert says in refused(capsys, "progress", "--name", "Bo", "--export", where)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_name_that_cannot_be_recorded_is_not_exported(path, capsys, monkeypatch):
    progress.write("x.json", Record("before"))
    path.parent.parent.mkdir()
    path.parent.write_text("a file where the folder should be")
    assert "a file is in the way" in refused(capsys, "progress", "--name", "Bo", "--export", "x.json")
    assert progress.read("x.json") == Record("before") and os.listdir() == ["x.json"]


def test_a_damaged_record_is_kept_where_a_new_one_is_exported(path, capsys):
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert main(["progress", "--name", "Bo", "--export", "x.json"]) == 0
    out, err = capsys.readouterr()
    assert out == "x.json: the record of Bo\n" and "it is kept as progress.damaged-1.json" in err
    assert progress.read("x.json") == progress.own_record() == Record("Bo")
    path.write_text("{")
    assert "mend it" in refused(capsys, "progress", "--export", "x.json")


def test_a_name_before_any_exercise(path, capsys):
    assert said(capsys, "progress", "--name", "Bo").startswith("Bo: 0 of 3")
    crop().check(mine)
    assert progress.own_record().name == "Bo"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[31m", "x" * 41])
def test_a_name_that_is_none(path, capsys, name):
    assert "--name is" in refused(capsys, "progress", "--name", name)
    assert not path.exists()


@pytest.mark.parametrize("mark", [*"\u061c\u200e\u200f\u202a\u202d\u202e\u2066\u2069"])
def test_a_name_with_a_mark_that_turns_letters_round(path, capsys, monkeypatch, mark):
    """Typed it is refused; in a file, which an older course may have written, it is left out, and so of a login."""
    line = refused(capsys, "progress", "--name", f"A{mark}da")
    assert "a mark that turns the letters behind it round: leave it out" in line and mark not in line
    assert not path.exists()
    for file, name in (("a.json", f"{mark}Ada"), ("b.json", "Ada"), ("c.json", mark)):
        with open(file, "w", encoding="utf-8") as opened:
            json.dump(good(name=name), opened)
    shown = said(capsys, "progress", "a.json", "b.json")
    assert mark not in shown and shown.count("Ada") == 1
    assert "its name is not" in refused(capsys, "progress", "c.json")
    monkeypatch.setattr(progress.getpass, "getuser", lambda: f"b{mark}o")
    assert progress.own_record().name == "bo"
    assert said(capsys, "progress", "--name", "क्\u200dष").startswith("क्\u200dष: "), "a joiner is spelling"


@pytest.mark.parametrize("option", [["--name", "Bo"], ["--export", "x.json"]])
def test_options_that_do_not_go_together(capsys, option):
    progress.write("a.json", Record("ada"))
    assert "without other records" in refused(capsys, "progress", "a.json", *option)


# ------------------------------------------------------------------------------------------------------------ hints


def test_hints_come_one_after_the_other(path, capsys):
    one, two, three = crop().hints
    first = said(capsys, "hint", CROP)
    assert first == f"{CROP} · hint 1 of 3\n\n{one}\n\nthe next one: soralab hint {CROP} --tier 2\n"
    assert progress.own_record() == Record("ada", {CROP: Entry(None, 0, (1,))})
    assert two in said(capsys, "hint", CROP)
    last = f"{CROP} · hint 3 of 3\n\n{three}\n\nthe solution is folded below the exercise in notebooks/01_unet.ipynb\n"
    assert said(capsys, "hint", CROP) == last == said(capsys, "hint", CROP)
    assert progress.own_record().entry(CROP).hints == (1, 2, 3)
    assert one in said(capsys, "hint", "vit.pooling")


def test_a_tier_and_all(capsys):
    one, two, three = crop().hints
    assert two in said(capsys, "hint", CROP, "--tier", "2")
    assert progress.own_record().entry(CROP).hints == (2,)
    assert one in said(capsys, "hint", CROP) and three in said(capsys, "hint", CROP)  # the one left out comes first
    everything = said(capsys, "hint", "vit.pooling", "--all")
    assert [everything.index(hint) for hint in (one, two, three)] == sorted(map(everything.index, (one, two, three)))
    assert everything.endswith("notebooks/03_vit.ipynb\n")
    assert progress.own_record().entry("vit.pooling").hints == (1, 2, 3)


def test_hint_alone_lists_all(capsys):
    assert said(capsys, "hint") == (
        "01 U-Net\n  unet.centre_crop  ●●○   10 min  Toy centre_crop\n"
        "  unet.weight_map   ●●○   10 min  Toy weight_map\n"
        "\n03 ViT\n  vit.pooling  ●●○   10 min  Toy pooling\n\na hint: soralab hint NAME\n")


def test_a_hint_that_cannot_be_given(path, capsys):
    assert "nearest: unet.centre_crop" in refused(capsys, "hint", "unet.center_crop")
    assert "NAME is missing" in refused(capsys, "hint", "--all")
    with pytest.raises(SystemExit):
        main(["hint", CROP, "--tier", "4"])
    assert not path.exists()


def test_a_hint_is_given_even_where_it_cannot_be_recorded(path, capsys):
    path.mkdir(parents=True)
    assert main(["hint", CROP]) == 0
    out, err = capsys.readouterr()
    assert crop().hints[0] in out and err.startswith("soralab: not recorded: ") and len(err.splitlines()) == 1


# -------------------------------------------------------------------------------------------------- sessions, slides


def test_session_and_slides_hand_their_arguments_on(capsys, monkeypatch):
    asked = []
    guide, slides = types.ModuleType("guide"), types.ModuleType("slides")
    guide.show = lambda number, part: asked.append((number, part)) or "the guide"
    slides.build = lambda numbers, folder: asked.append((numbers, str(folder))) or ["a.html", "b.html"]
    monkeypatch.setitem(sys.modules, "soralab.sessions", types.ModuleType("sessions"))
    monkeypatch.setitem(sys.modules, "soralab.sessions.guide", guide)
    monkeypatch.setitem(sys.modules, "soralab.sessions.slides", slides)
    assert said(capsys, "session", 1, "--part", "handout") == "the guide\n"
    assert said(capsys, "session", 17) == "the guide\n"
    assert said(capsys, "slides", 1, 2, "-o", "out") == "a.html\nb.html\n"
    assert said(capsys, "slides") == "a.html\nb.html\n"
    assert asked == [(1, "handout"), (17, None), ([1, 2], "out"), ([], "slides")]
    for argv in (["session"], ["session", "0"], ["session", "18"], ["session", "one"], ["slides", "99"]):
        with pytest.raises(SystemExit):
            main(argv)


def test_columns_of_a_terminal():
    assert [board._width(text) for text in ("Zoë", "Zoe\u0308", "आदा", "ルカ", "")] == [3, 3, 3, 4, 0]
