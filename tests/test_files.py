"""Atomic writes, checkpoints, film files: what is written is whole, what is read is proved; clear errors."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from soralab.files import atomic, checkpoints, films
from soralab.files.atomic import atomic_write, check_writable, explain, make_folder
from soralab.files.checkpoints import (
    CheckpointError,
    checkpoint_paths,
    list_checkpoints,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from soralab.files.films import FILM_SUFFIXES, check_film_path, read_film, save_film

needs_rights = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0,
                                  reason="the superuser may write everywhere")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def names(folder):
    return sorted(os.listdir(folder))


def full_disk(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---------------------------------------------------------------- atomic writes


def test_atomic_write_replaces_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.gif"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent and temporary.suffix == ".gif"
    assert path.read_text() == "new" and names(tmp_path) == ["a.gif"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_write_leaves_the_old_file_and_nothing_else_after_any_failure(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_atomic_write_on_a_full_disk_says_what_is_free(tmp_path):
    path = tmp_path / "a.txt"
    text = r"^the disk is full, a\.txt was not written \(.* free in .*make room"
    with pytest.raises(OSError, match=text) as info:
        with atomic_write(path):
            full_disk()
    assert info.value.errno == errno.ENOSPC and names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_gives_the_same_sentence(tmp_path):
    with pytest.raises(OSError, match="the disk is full"):
        with atomic_write(tmp_path / "a.txt"), open("/dev/full", "w") as handle:
            handle.write("x" * 100_000)
    assert names(tmp_path) == []


def test_check_writable_names_what_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder .*missing does not exist: make it first"):
        check_writable(tmp_path / "missing" / "a.gif")
    with pytest.raises(OSError, match="not a folder|does not exist"):
        check_writable(tmp_path / "file" / "a.gif")
    with pytest.raises(NotADirectoryError, match="a file is in the way"):
        make_folder(tmp_path / "file" / "below")
    assert names(tmp_path) == ["file"]


@needs_posix
def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"), atomic_write(tmp_path / "pipe"):
        pass
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@needs_rights
def test_an_unwritable_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="may not be written: give yourself the right"):
            check_writable(tmp_path / "a.gif")
    finally:
        tmp_path.chmod(0o700)


def test_a_refused_creation_is_one_sentence(tmp_path, monkeypatch):
    """The same for the superuser, whom nothing refuses: the system's answer is mocked."""

    def refuse(path, *_):
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(atomic.os, "open", refuse)
    with pytest.raises(PermissionError, match=r"a\.gif may not be written: give yourself the right") as info:
        check_writable(tmp_path / "a.gif")
    assert "Errno" not in str(info.value)


@needs_posix
def test_atomic_write_follows_links_and_keeps_rights(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    with atomic_write(tmp_path / "fresh.txt"):
        pass
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "fresh.txt").stat().st_mode) == 0o666 & ~umask


@needs_posix
def test_a_write_leaves_nothing_open(tmp_path, monkeypatch):
    """Neither the file nor its folder: a long training saves more often than a process may hold files open."""
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda *given: opened.append(real(*given)) or opened[-1])
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert len(opened) >= 2
    for handle in set(opened):
        with pytest.raises(OSError):
            os.fstat(handle)


# ---------------------------------------------------------------- checkpoints


def tensors(seed=0):
    make = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 3, generator=make)
    return {"weight": weight, "tied": weight, "column": weight[:, 1], "half": weight.bfloat16(),
            "count": torch.tensor(7), "none": torch.zeros(0, 3)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.fixture
def saved(tmp_path):
    save_checkpoint(tmp_path / "toy", tensors(), {"config": {"width": 3, "sizes": (1, 2)}, "steps": 10})
    return tmp_path


def test_a_checkpoint_comes_back_bit_for_bit_with_its_card(saved):
    loaded, card = load_checkpoint(saved / "toy")
    assert same(loaded, tensors())
    assert names(saved) == ["toy.json", "toy.safetensors"]
    data = (saved / "toy.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest() and card["bytes"] == len(data)
    assert card["parameters"] == 15 + 15 + 5 + 15 + 1 and card["steps"] == 10
    for other in ("toy.safetensors", "toy.json"):
        assert same(load_checkpoint(saved / other)[0], tensors())


def test_a_plain_name_lies_in_the_checkpoints_folder(saved, monkeypatch):
    monkeypatch.delenv("SORALAB_CHECKPOINTS", raising=False)
    root = Path(checkpoints.__file__).resolve().parents[2]
    assert checkpoint_paths("sora")[0] == root / "data" / "checkpoints" / "sora.safetensors"
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(saved))
    assert same(load_checkpoint("toy")[0], tensors())
    assert checkpoint_paths("runs/a/state")[1] == Path("runs/a/state.json")
    assert checkpoint_paths("sora.v2")[1].name == "sora.v2.json"


def damage(path, how):
    data = path.read_bytes()
    path.write_bytes(how(data))


def flip_last_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("name, how, text", [
    ("toy.safetensors", flip_last_bit, "was altered, its SHA-256"),
    ("toy.safetensors", lambda d: d[: len(d) // 2], "is truncated, "),
    ("toy.safetensors", lambda d: b"", "is truncated, 0 bytes where"),
    ("toy.safetensors", lambda d: d + b"x", "is too long, "),
    ("toy.json", lambda d: d[: len(d) // 2], "is not JSON"),
    ("toy.json", lambda d: b"\xff\xfe\x00", "is not JSON"),
    ("toy.json", lambda d: b"[1]", "names no sha256"),
])
def test_a_damaged_checkpoint_is_refused_with_its_mend(saved, name, how, text):
    damage(saved / name, how)
    with pytest.raises(CheckpointError) as info:
        load_checkpoint(saved / "toy")
    assert text in str(info.value) and str(info.value).endswith(": name another, or train it anew")
    with pytest.raises(CheckpointError, match="bake another$"):
        load_checkpoint(saved / "toy", mend="bake another")
    [entry] = list_checkpoints(saved)
    assert not entry["verified"] and text in entry["problem"]


def test_missing_parts_are_told_apart(saved):
    shutil.copy(saved / "toy.json", saved / "lone.json")
    shutil.copy(saved / "toy.safetensors", saved / "bare.safetensors")
    for name, text in (("none", "there is no checkpoint none"), ("lone", "its tensors .* are missing"),
                       ("bare", r"has no card bare\.json")):
        with pytest.raises(CheckpointError, match=text):
            load_checkpoint(saved / name)


def test_another_models_card_is_refused_by_field(saved):
    assert load_checkpoint(saved / "toy", config={"width": 3, "sizes": (1, 2)})
    text = "another model: depth is 'nothing' there and 2 here; width is 3 there and 4 here"
    with pytest.raises(ValueError, match=text):
        load_checkpoint(saved / "toy", config={"width": 4, "sizes": [1, 2], "depth": 2})


def test_pickle_under_the_right_name_and_hash_runs_nothing(saved, tmp_path):
    """A file that torch.load would execute is refused, even if its card vouches for it."""

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save(Bomb(), saved / "toy.safetensors")
    data = (saved / "toy.safetensors").read_bytes()
    card = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (saved / "toy.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_checkpoint(saved / "toy")
    assert not (tmp_path / "ran").exists()


class Crash(BaseException):
    """The process ends here: nothing after it may be counted on to run."""


CUTS = ("writing the tensors", "the tensors half written", "before the card", "between the renames",
        "after both")


def crash_while_saving(folder, cut, monkeypatch, seed=1):
    """Save tensors(seed) over "toy" and be cut off at `cut`, with no clean-up, as by kill -9."""
    real_replace, real_write, calls = os.replace, Path.write_bytes, []

    def write_bytes(self, data):
        if cut == CUTS[0]:
            raise Crash
        if cut == CUTS[1]:
            real_write(self, data[: len(data) // 2])
            raise Crash
        return real_write(self, data)

    def replace(source, target):
        calls.append(Path(target).name)
        if (cut == CUTS[2] and len(calls) == 1) or (cut == CUTS[3] and len(calls) == 2):
            raise Crash
        real_replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(Path, "write_bytes", write_bytes)
        patch.setattr(os, "replace", replace)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # what is dead cleans nothing up
        save_checkpoint(folder / "toy", tensors(seed), {"steps": 20})
    return calls


@pytest.mark.parametrize("cut", CUTS)
def test_a_crash_at_any_point_loses_nothing(saved, cut, monkeypatch):
    calls = crash_while_saving(saved, cut, monkeypatch)
    assert calls == {0: [], 1: [], 2: ["toy.json"]}.get(CUTS.index(cut), ["toy.json", "toy.safetensors"])
    new = CUTS.index(cut) >= 3
    loaded, card = load_checkpoint(saved / "toy")
    assert same(loaded, tensors(1 if new else 0)) and card["steps"] == (20 if new else 10)
    assert [e["verified"] for e in list_checkpoints(saved)] == [True]


@pytest.mark.parametrize("again", CUTS)
def test_a_second_crash_after_one_between_the_renames_loses_nothing_either(saved, again, monkeypatch):
    crash_while_saving(saved, "between the renames", monkeypatch)
    checkpoints._finish(*checkpoint_paths(saved / "toy"))  # a save does it first; its rename is not counted
    crash_while_saving(saved, again, monkeypatch, seed=2)
    loaded, _ = load_checkpoint(saved / "toy")
    assert same(loaded, tensors(2 if CUTS.index(again) >= 3 else 1))


def test_saving_finishes_an_interrupted_save_before_it_begins(saved, monkeypatch):
    """Or the new tensors would be written over the only copy of those that the card names."""
    crash_while_saving(saved, "between the renames", monkeypatch)
    monkeypatch.setattr(checkpoints, "_create", full_disk)
    with pytest.raises(OSError, match="the disk is full"):
        save_checkpoint(saved / "toy", tensors(2), {})
    assert same(load_checkpoint(saved / "toy")[0], tensors(1))


def test_ctrl_c_just_after_the_cards_rename_keeps_the_new_tensors(saved, monkeypatch):
    """The card on disk speaks of them already: here the clean-up must not throw them away."""

    def interrupt(_folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync_folder", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved / "toy", tensors(1), {})
    assert same(load_checkpoint(saved / "toy")[0], tensors(1))


@pytest.mark.parametrize("where", ["sync", "atomic_write", "_create"])
def test_a_full_disk_keeps_the_old_checkpoint_and_leaves_no_rest(saved, where, monkeypatch):
    monkeypatch.setattr(checkpoints, where, full_disk)
    with pytest.raises(OSError):
        save_checkpoint(saved / "toy", tensors(1), {"steps": 20})
    assert names(saved) == ["toy.json", "toy.safetensors"]
    assert same(load_checkpoint(saved / "toy")[0], tensors(0))


def test_a_card_that_json_cannot_hold_is_refused_before_writing(saved):
    for value in (float("nan"), torch.ones(1), Path("x")):
        with pytest.raises(ValueError, match="card of checkpoint toy holds what JSON cannot"):
            save_checkpoint(saved / "toy", tensors(1), {"loss": value})
    assert same(load_checkpoint(saved / "toy")[0], tensors(0)) and len(names(saved)) == 2


def test_remove_and_list(saved):
    save_checkpoint(saved / "b", tensors(1), {})
    (saved / ".left.part.json").write_text("{")
    assert [(e["name"], e["verified"], e["parameters"]) for e in list_checkpoints(saved)] == \
        [("b", True, 51), ("toy", True, 51)]
    remove_checkpoint(saved / "b")
    remove_checkpoint(saved / "b")
    assert [e["name"] for e in list_checkpoints(saved)] == ["toy"]
    assert list_checkpoints(saved / "missing") == []


@pytest.fixture
def disk(monkeypatch):
    """What the disk is told, in order: "keep FILE", "keep folder", "NAME becomes NAME"."""
    told, replace, fsync = [], os.replace, os.fsync

    def spy_sync(handle):
        told.append("keep folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "keep file")
        fsync(handle)

    def spy_replace(source, target):
        told.append(f"becomes {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(os, "replace", spy_replace)
    return told


@needs_posix
def test_a_rename_is_kept_only_if_file_and_folder_are_synced_around_it(tmp_path, disk, monkeypatch):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    whole = ["keep file", "becomes a.txt", "keep folder"]
    assert disk == whole
    disk.clear()
    save_checkpoint(tmp_path / "toy", tensors(), {})
    saving = ["keep file", "keep file", "becomes toy.json", "keep folder", "becomes toy.safetensors", "keep folder"]
    assert disk == saving
    paths = checkpoint_paths(tmp_path / "toy")
    for finish in (lambda: load_checkpoint(tmp_path / "toy"), lambda: checkpoints._finish(*paths)):
        crash_while_saving(tmp_path, "between the renames", monkeypatch)
        disk.clear()
        finish()  # the rename that a crash left out
        assert disk == ["becomes toy.safetensors", "keep folder"]


def waiting_stranger(folder, name="toy"):
    """Other tensors than the card's, whole and readable, under the name of a save that was cut off."""
    save_checkpoint(folder / "stranger", tensors(9), {})
    os.replace(folder / "stranger.safetensors", folder / f"{name}.safetensors.new")
    (folder / "stranger.json").unlink()


@pytest.mark.parametrize("how", [lambda path: path.unlink(), lambda path: damage(path, flip_last_bit)])
def test_waiting_tensors_that_the_card_does_not_name_are_never_taken(saved, how):
    """Whoever can put a file beside a checkpoint must not get it loaded: the card's hash decides."""
    waiting_stranger(saved)
    how(saved / "toy.safetensors")
    with pytest.raises(CheckpointError, match="are missing|was altered"):
        load_checkpoint(saved / "toy")
    assert not list_checkpoints(saved)[0]["verified"]
    assert (saved / "toy.safetensors.new").exists()  # and it did not take the place of the tensors
    checkpoints._finish(*checkpoint_paths(saved / "toy"))
    assert (saved / "toy.safetensors.new").exists()


def test_a_stranger_that_waits_changes_nothing_and_goes_with_the_next_save(saved):
    waiting_stranger(saved)
    assert same(load_checkpoint(saved / "toy")[0], tensors())
    save_checkpoint(saved / "toy", tensors(1), {})
    assert same(load_checkpoint(saved / "toy")[0], tensors(1)) and names(saved) == ["toy.json", "toy.safetensors"]


def test_a_stranger_that_waits_takes_no_place_when_a_save_is_cut_off(saved, monkeypatch):
    """A save first finishes one that was cut off: if what waits is not that, the good tensors stay where they are."""
    waiting_stranger(saved)

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full"):
        patch.setattr(Path, "write_bytes", full)
        save_checkpoint(saved / "toy", tensors(1), {"steps": 20})
    loaded, card = load_checkpoint(saved / "toy")
    assert same(loaded, tensors()) and card["steps"] == 10


def test_late_tensors_are_read_where_they_cannot_be_renamed(saved, monkeypatch):
    crash_while_saving(saved, "between the renames", monkeypatch)

    def refuse(*_):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    assert same(load_checkpoint(saved / "toy")[0], tensors(1))


@pytest.mark.parametrize("done", [1, 2])
def test_a_removal_that_is_cut_off_leaves_no_card_without_tensors(saved, done, monkeypatch):
    waiting_stranger(saved)
    unlink, calls = Path.unlink, []

    def cut(self, missing_ok=False):
        if len(calls) == done:
            raise Crash
        calls.append(self.name)
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Path, "unlink", cut)
        remove_checkpoint(saved / "toy")
    assert not (saved / "toy.json").exists()
    remove_checkpoint(saved / "toy")
    assert names(saved) == []


@pytest.mark.parametrize("card, wanted", [
    ({"width": 3, "depth": 2}, {"width": 3}), ({"width": 3}, {"width": 3, "depth": 2}),
])  # fmt: skip
def test_a_field_that_only_one_side_has_is_another_model(tmp_path, card, wanted):
    save_checkpoint(tmp_path / "toy", tensors(), {"config": card})
    with pytest.raises(ValueError, match="depth is"):
        load_checkpoint(tmp_path / "toy", config=wanted)


def test_the_mend_of_a_checkpoint_can_work(saved, monkeypatch, tmp_path):
    """`git checkout` only in a clone, the training only of what has one, a name only where names are."""
    def told(name):
        with pytest.raises(CheckpointError) as info:
            load_checkpoint(name)
        return str(info.value)

    assert told(saved / "sora").endswith("name another, or train it anew")
    empty = tmp_path / "empty"
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(empty))
    assert f"name one of {checkpoints.SHIPPED[0]}, " in told("nosuch") and "train nosuch" not in told("nosuch")
    assert "copy it from the course's data/checkpoints" in told("sora")
    assert f"`soralab train sora --folder {empty}`" in told("sora") and "git" not in told("sora")
    monkeypatch.delenv("SORALAB_CHECKPOINTS")
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", empty)
    assert "a fresh copy of the course" in told("sora") and "git" not in told("sora")
    (tmp_path / ".git").mkdir()
    assert "git checkout -- data/checkpoints" in told("sora")


def test_what_is_done_goes_before_what_is_begun(tmp_path, monkeypatch):
    """A plain name lies in the folder of what is in training where the course's own lacks it: not where a save of it
    was cut off before its last step, and not for a path."""
    own, begun = tmp_path / "own", tmp_path / "begun"
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", own)
    monkeypatch.setattr(checkpoints, "BEGUN", begun)
    monkeypatch.delenv("SORALAB_CHECKPOINTS", raising=False)
    save_checkpoint(begun / "mine", tensors(), {"steps": 5})
    assert load_checkpoint("mine")[1]["steps"] == 5
    with pytest.raises(CheckpointError, match="there is no checkpoint mine"):
        load_checkpoint(own / "mine")
    save_checkpoint("mine", tensors(), {"steps": 24})
    assert load_checkpoint("mine")[1]["steps"] == 24
    (own / "mine.safetensors").rename(own / "mine.safetensors.new")
    assert load_checkpoint("mine")[1]["steps"] == 24


def test_a_name_with_a_dot_before_it_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path)
    save_checkpoint("./mine", tensors(), {"steps": 1})
    assert (tmp_path / "mine.json").exists() and load_checkpoint("./mine")[1]["steps"] == 1
    save_checkpoint("mine", tensors(), {"steps": 2})
    assert (load_checkpoint("mine")[1]["steps"], load_checkpoint("./mine")[1]["steps"]) == (2, 1)


def test_a_read_only_file_is_not_replaced(tmp_path):
    path = tmp_path / "mine.gif"
    path.write_text("mine")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="is there already and is read-only: make it writable or name another"):
        with atomic_write(path):
            pytest.fail("it was told too late")
    assert path.read_text() == "mine"
    path.chmod(0o644)


def test_a_name_of_300_letters_is_one_sentence(tmp_path):
    long = tmp_path / ("n" * 300 + ".gif")
    for what in (check_writable, read_film, lambda path: load_checkpoint(path.with_suffix(".json"))):
        with pytest.raises(OSError) as info:
            what(long)
        assert "Errno" not in str(info.value) and ("too long" in str(info.value) or os.name == "nt")


@pytest.mark.parametrize("number, said", [
    (errno.ENAMETOOLONG, "the name my.gif... is too long: shorten it"),
    (errno.ENXIO, r"my.gif cannot be written \(what the system says\): choose another place"),
])  # fmt: skip
def test_each_error_of_the_system_has_its_mend(tmp_path, number, said):
    with pytest.raises(OSError, match=said) as info:
        raise explain(OSError(number, "what the system says"), tmp_path / "my.gif")
    assert info.value.errno == number


# ---------------------------------------------------------------- film files


def film(time=5, h=12, w=16):
    """A red bar moves over black, above a still row of blue; two frames are equal."""
    out = torch.full((time, 3, h, w), -1.0)
    for t in range(time):
        x = min(t, time - 2)
        out[t, 0, 2:6, x : x + 4] = 1.0
    out[:, 2, 8:10] = 0.5
    return out


@pytest.mark.parametrize("suffix", FILM_SUFFIXES)
@pytest.mark.parametrize("which", ["moving", "still", "one frame"])
def test_films_come_back_frame_by_frame(tmp_path, suffix, which):
    clip = {"moving": film(), "still": film()[:1].expand(5, -1, -1, -1), "one frame": film()[:1]}[which]
    path = save_film(tmp_path / f"a{suffix}", clip)
    assert names(tmp_path) == [f"a{suffix}"]
    big = read_film(path)
    assert min(big.shape[-2:]) >= films.SHORT_SIDE and big.shape[0] == len(clip)
    back = read_film(path, height=12, width=16)
    error = (back - clip).abs()
    if suffix == ".mp4":  # colour at half resolution, quantised
        assert error.mean() < 0.03 and error.max() < 0.3
    else:
        assert error.max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("suffix", FILM_SUFFIXES)
def test_files_have_the_format_of_their_suffix_and_the_asked_speed(tmp_path, suffix):
    path = save_film(tmp_path / f"a{suffix}", film(time=4), fps=5)
    head = path.read_bytes()[:12]
    assert {".gif": head[:6] == b"GIF89a", ".png": head[:4] == b"\x89PNG", ".webp": head[8:] == b"WEBP",
            ".mp4": head[4:8] == b"ftyp"}[suffix]
    if suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == 5 and stream.codec_context.pix_fmt == "yuv420p"
    else:
        from PIL import Image

        with Image.open(path) as image:
            durations = []
            for index in range(image.n_frames):
                image.seek(index)
                image.load()
                durations.append(image.info["duration"])
            assert sum(durations) == 800 and image.info.get("loop") == 0


@pytest.mark.parametrize("suffix", FILM_SUFFIXES)
def test_odd_sizes_and_numpy_are_taken(tmp_path, suffix):
    clip = film(time=3, h=257, w=301)
    back = read_film(save_film(tmp_path / f"a{suffix}", clip.numpy()))
    even = (258, 302) if suffix == ".mp4" else (257, 301)
    assert tuple(back.shape) == (3, 3, *even)
    assert (back[..., :257, :301] - clip).abs().mean() < 0.03


def test_several_films_lie_side_by_side(tmp_path):
    a, b = film(h=300, w=300), -film(h=300, w=300)
    back = read_film(save_film(tmp_path / "a.png", torch.stack([a, b])))
    assert tuple(back.shape) == (5, 3, 300, 600 + films.GAP)
    assert (back[..., :300] - a).abs().max() < 0.01 and (back[..., -300:] - b).abs().max() < 0.01
    row = read_film(save_film(tmp_path / "c.png", torch.stack([a] * 4)))
    assert tuple(row.shape[-2:]) == (300, 4 * 300 + 3 * films.GAP)  # four are still a row
    grid = read_film(save_film(tmp_path / "b.png", torch.stack([a] * 5)))
    assert tuple(grid.shape[-2:]) == (2 * 300 + films.GAP, 3 * 300 + 2 * films.GAP)
    assert (grid[..., -300:, 301:601] - a).abs().max() < 0.01  # the fifth, under the second
    assert (grid[..., -300:, -300:] == 1).all()  # the free place is white


def test_a_value_is_stored_as_the_nearest_grey_level(tmp_path):
    """Rounded, not cut off: half a level of 1/127.5 is the most that may be lost, and nothing on average."""
    clip = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(3)) * 2 - 1
    error = read_film(save_film(tmp_path / "a.png", clip)) - clip
    assert error.abs().max() < 0.5 / 127.5 + 1e-6 and error.mean().abs() < 2e-5


def test_values_outside_are_clipped_not_wrapped(tmp_path):
    back = read_film(save_film(tmp_path / "a.png", film() * 1.5))
    assert back.max() == 1 and back.min() == -1


def test_bad_films_are_refused(tmp_path):
    path, speck = tmp_path / "a.gif", film()
    speck[2, 0, 3, 4] = float("nan")  # one number of one frame
    for bad, text in ((film()[:, :1], r"shape \[5, 1, 12, 16\]"), (film()[0], "shape"), (film()[:0], "shape"),
                      (film() * float("nan"), "not finite"), (speck, "not finite")):
        with pytest.raises(ValueError, match=text):
            save_film(path, bad)
    for fps in (0, -1, 1000, float("nan")):
        with pytest.raises(ValueError, match="fps"):
            save_film(path, film(), fps=fps)
    assert names(tmp_path) == []


def test_check_film_path_decides_before_any_work(tmp_path):
    for name in ("a.avi", "a", "a.gif.txt"):
        with pytest.raises(ValueError, match=r"known are \.gif \.mp4 \.webp \.png"):
            check_film_path(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="make it first"):
        check_film_path(tmp_path / "no" / "a.gif")
    (tmp_path / "b.gif").mkdir()
    with pytest.raises(IsADirectoryError):
        check_film_path(tmp_path / "b.gif")
    assert check_film_path(tmp_path / "A.GIF") == tmp_path / "A.GIF"
    assert names(tmp_path) == ["b.gif"]


@pytest.mark.parametrize("suffix", FILM_SUFFIXES)
def test_a_full_disk_while_a_film_is_written_keeps_the_older_one(tmp_path, suffix, monkeypatch):
    path = save_film(tmp_path / f"a{suffix}", film())
    before = path.read_bytes()
    monkeypatch.setattr(films, "_enlarged", full_disk)
    with pytest.raises(OSError, match="the disk is full"):
        save_film(path, -film())
    assert path.read_bytes() == before and names(tmp_path) == [path.name]


def test_a_full_disk_inside_the_encoder_is_the_same_sentence(tmp_path, monkeypatch):
    import av

    def refuse(*_args, **_options):
        av.error.err_check(-errno.ENOSPC)

    monkeypatch.setattr(films, "_enlarged", refuse)
    with pytest.raises(OSError, match="the disk is full"):
        save_film(tmp_path / "a.mp4", film())
    assert names(tmp_path) == []


def test_read_film_takes_the_asked_frames(tmp_path):
    clip = film(time=6, h=256, w=256)
    path = save_film(tmp_path / "a.png", clip)
    assert torch.allclose(read_film(path, frames=2, start=1, step=2), clip[1:5:2], atol=0.01)
    assert torch.allclose(read_film(path, start=4), clip[4:], atol=0.01)
    for options in ({"frames": 7}, {"frames": 3, "start": 1, "step": 3}, {"start": 6}):
        with pytest.raises(ValueError, match=r"a\.png has 6 frames, too few"):
            read_film(path, **options)
    for options in ({"frames": 0}, {"start": -1}, {"height": 0}, {"step": 1.5}, {"frames": 10**9}):
        with pytest.raises(ValueError, match=next(iter(options))):
            read_film(path, **options)


def test_resizing_cuts_the_middle_and_averages(tmp_path):
    """Fine stripes must become grey (no aliasing), and the sides of a wide film must not be squeezed in."""
    clip = torch.ones(1, 3, 256, 512)
    clip[..., ::2, :] = -1
    clip[..., :128] = clip[..., 384:] = 1
    path = save_film(tmp_path / "a.png", clip)
    small = read_film(path, height=16, width=16)
    assert tuple(small.shape) == (1, 3, 16, 16) and small.abs().max() < 0.01
    assert tuple(read_film(path, height=32).shape[-2:]) == (32, 64)
    assert tuple(read_film(path, width=32).shape[-2:]) == (16, 32)
    assert tuple(read_film(path, height=300, width=300).shape[-2:]) == (300, 300)


@pytest.mark.parametrize("h, w, size", [(256, 640, (64, 64)), (640, 256, (64, 64)), (640, 256, (64, 128)),
                                         (300, 500, (50, 50))])  # fmt: skip
def test_the_largest_middle_part_is_kept(tmp_path, h, w, size):
    """A white cross through the exact middle of a frame stays there, and as wide as its share of the part."""
    clip = torch.full((1, 3, h, w), -1.0)
    clip[..., h // 2 - 10 : h // 2 + 10, :] = clip[..., w // 2 - 10 : w // 2 + 10] = 1.0
    small = read_film(save_film(tmp_path / "a.png", clip), height=size[0], width=size[1])
    scale = min(h / size[0], w / size[1])  # pixels of the film to one of the small frame
    for axis in (-1, -2):
        line = (small[0, 0].select(-1 if axis == -2 else -2, 1) + 1) / 2  # near a corner: the other bar is far
        assert line.sum() * scale == pytest.approx(20, abs=0.2)
        centre = (line * torch.arange(len(line))).sum() / line.sum()
        assert centre == pytest.approx((len(line) - 1) / 2, abs=0.02)


def test_frames_held_longer_are_given_back_only_where_our_note_says_so(tmp_path):
    from PIL import Image

    pictures = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (0, 255)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[1000, 100])
    assert len(read_film(tmp_path / "a.gif")) == 2
    bad = b"frames=999999 fps=100"
    pictures[0].save(tmp_path / "b.gif", save_all=True, append_images=pictures[1:], duration=100, comment=bad)
    with pytest.raises(ValueError, match="more than 1024 frames"):
        read_film(tmp_path / "b.gif")


def test_a_still_picture_is_a_film_of_one_frame(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((8, 10, 3), 255, np.uint8)).save(tmp_path / "a.jpg")
    assert tuple(read_film(tmp_path / "a.jpg").shape) == (1, 3, 8, 10)
    Image.fromarray(np.zeros((8, 10), bool)).save(tmp_path / "b.png")  # one bit a pixel
    assert (read_film(tmp_path / "b.png") == -1).all()


@pytest.mark.parametrize("suffix", FILM_SUFFIXES)
def test_a_cut_off_film_is_an_error_not_a_shorter_film(tmp_path, suffix):
    clip = torch.rand(6, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    path = save_film(tmp_path / f"a{suffix}", clip)
    damage(path, lambda data: data[: len(data) // 2])
    with pytest.raises(OSError, match=f"a{suffix} is (damaged|not a film)"):
        read_film(path)


@pytest.mark.parametrize("name", ["a.txt", "a.mp4", "a.gif", "a.json"])
@pytest.mark.parametrize("content", [b"hello\n" * 200, bytes(range(256)) * 20, b"GIF89a", b"{}"])
def test_what_is_no_film_is_refused_whatever_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match="is (damaged|not a film)"):
        read_film(tmp_path / name)


def test_missing_empty_and_folder_are_told_apart(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name, text in (("empty.mp4", "is empty"), ("no.mp4", "there is no file"), ("", "is a folder")):
        with pytest.raises(OSError, match=text):
            read_film(tmp_path / name)


def test_a_list_of_other_files_is_not_followed(tmp_path):
    save_film(tmp_path / "secret.mp4", film())
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        with pytest.raises(OSError, match="is not a film"):
            read_film("a.ffconcat")
    finally:
        os.chdir(here)


def test_too_much_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    gif, mp4 = (save_film(tmp_path / f"a{s}", film(h=256, w=256)) for s in (".gif", ".mp4"))
    monkeypatch.setattr(films, "MAX_SIDE_PRODUCT", 255 * 256)
    for path in (gif, mp4):
        with pytest.raises(ValueError, match="has frames of 256x256 pixels"):
            read_film(path)
    monkeypatch.setattr(films, "MAX_SIDE_PRODUCT", 256 * 256)
    monkeypatch.setattr(films, "MAX_VALUES", 3 * 256 * 256)
    assert len(read_film(gif, frames=3)) == 3
    with pytest.raises(ValueError, match="too large to be held whole"):
        read_film(gif)
    monkeypatch.setattr(films, "MAX_FRAMES", 4)
    with pytest.raises(ValueError, match="more than 4 frames: cut a part of it.*takes `frames`"):
        read_film(mp4, height=8)


def test_real_clips():
    root = os.environ.get("SORALAB_DATA")
    clips = sorted(Path(root).rglob("*.avi"))[:2] if root else []
    if not clips:
        pytest.skip("SORALAB_DATA names no folder with .avi films")
    for path in clips:
        clip = read_film(path, frames=8, height=32, width=48, step=3)
        assert tuple(clip.shape) == (8, 3, 32, 48)
        assert clip.std() > 0.1 and (clip[0] - clip[7]).abs().max() > 0.05


def test_paths_are_checked_without_importing_torch():
    import subprocess

    code = "import sys, soralab.files.films, soralab.files.checkpoints; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])
