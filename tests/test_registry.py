"""The registry of real data sets, and `soralab data`: listed, fetched from a host of the test's own, checked."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import hosts
import pytest

from soralab.command import main
from soralab.datasets import registry, shelf
from soralab.datasets.registry import DATASETS, DataSet, File, published
from soralab.files import download

ROOT = Path(__file__).resolve().parents[1]
REAL = os.environ.get("SORALAB_DATA")  # before a test sets another


def digest(content, kind="md5"):
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def packed(**members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"pictures/{name}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with a small set, "tiny": two files and an archive; returns it, its set's folder as `host.folder`."""
    monkeypatch.setattr(download, "WAIT", 0)
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path / "data"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with hosts.running() as host:
        host.files = {"/a": b"first " * 100, "/b": b"second " * 100, "/c.tgz": packed(one=b"1" * 999, two=b"2" * 999)}
        host.folder = tmp_path / "data" / "tiny"
        a, b, c = host.files.values()
        files = (File("raw/a", len(a), digest(a), (host.url("/gone"), host.url("/a"))),
                 File("raw/b", len(b), digest(b, "sha256"), (host.url("/b"),)),
                 File("c.tgz", len(c), digest(c), (host.url("/c.tgz"),), {"pictures/*.png": 2}))  # fmt: skip
        tiny = DataSet("tiny", "a tiny set", "none", "http://home", (1, 2))
        asked = DataSet("asked", "a set to be asked for", "theirs", "", (3,), ask="ask its authors",
                        puts={"Images/*.jpg": 3, "words.txt": 1})  # fmt: skip
        monkeypatch.setattr(registry, "published", lambda: {"tiny": files})
        monkeypatch.setattr(registry, "DATASETS", {"tiny": tiny, "asked": asked, "films": DATASETS["films"]})
        host.how["/gone"] = "404"
        host.tiny, host.asked_set = tiny, asked
        yield host


def run(capsys, *argv, code=0):
    """Run `soralab data ...`; returns what it printed, and its one line where it failed."""
    assert main(["data", *argv]) == code
    out, err = capsys.readouterr()
    if code:
        assert len((err or out).splitlines()) >= 1 and "Traceback" not in err and "[Errno" not in err
        assert len(err.splitlines()) <= 1
    return out + err


# -------------------------------------------------------------------------------------------------------------- get


def test_a_set_is_fetched_unpacked_and_checked(host, capsys):
    assert "tiny is in" in run(capsys, "get", "tiny") and shelf.state(host.tiny) == "whole"
    assert (host.folder / "raw" / "a").read_bytes() == host.files["/a"]
    assert sorted(path.name for path in (host.folder / "pictures").iterdir()) == ["one.png", "two.png"]
    assert sorted(path.name for path in host.folder.iterdir()) == ["c.tgz.sha256", "pictures", "raw"]  # no litter
    said = run(capsys, "check", "tiny")
    assert "2 of 2 files are as published" in said and "2 of 2 files are as c.tgz had them" in said
    note = (host.folder / "c.tgz.sha256").read_text()
    assert f"{hashlib.sha256(b'1' * 999).hexdigest()}  pictures/one.png" in note  # what sha256sum -c takes


def test_what_is_here_is_not_fetched_again(host, capsys):
    run(capsys, "get", "tiny")
    host.asked.clear()
    run(capsys, "get", "tiny")
    assert host.asked == []
    (host.folder / "raw" / "b").write_bytes(b"damaged")
    run(capsys, "get", "tiny")
    assert [path for path, _ in host.asked] == ["/b"] and (host.folder / "raw" / "b").read_bytes() == host.files["/b"]


def test_a_kill_between_unpacking_and_cleaning_up_is_made_good(host, capsys):
    """The archive is still there: it is unpacked again, and what it held is written down."""
    run(capsys, "get", "tiny")
    (host.folder / "c.tgz.sha256").unlink()
    (host.folder / "c.tgz").write_bytes(host.files["/c.tgz"])
    host.asked.clear()
    run(capsys, "get", "tiny")
    assert host.asked == [] and not (host.folder / "c.tgz").exists()
    assert "2 of 2 files are as c.tgz had them" in run(capsys, "check", "tiny")


def test_check_of_several_is_wrong_if_one_is(capsys, monkeypatch):
    from soralab.command import data

    found = {"a": ([], ["damaged"]), "b": (["whole"], [])}
    monkeypatch.setattr(shelf, "check", lambda one: found[one.name])
    sets = [SimpleNamespace(name=name) for name in found]
    assert data._check(sets) == data._check(sets[::-1]) == 2 and data._check(sets[1:]) == 0


def test_a_reader_who_has_the_files_needs_no_network(host, capsys):
    for name in ("raw/a", "raw/b", "pictures/one.png", "pictures/two.png"):
        (host.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (host.folder / name).write_bytes(host.files.get("/" + name[-1], b"png"))
    run(capsys, "get", "tiny")
    assert host.asked == [] and "2 here, counted and not compared" in run(capsys, "check", "tiny")


@pytest.mark.parametrize("how, said", [
    ("404", "answers 404, Not Found"), ("empty", "127.0.0.1"), ("login", "sends a web page instead (a login"),
    ("page", "sends a web page instead"), ("cut", "the same command goes on from there"),
])  # fmt: skip
def test_where_the_host_refuses_the_line_says_which_files_to_put_where(host, capsys, how, said):
    host.how["/b"] = host.how["/c.tgz"] = how
    text = run(capsys, "get", "tiny", code=2)
    assert text.startswith("soralab: b of tiny could not be fetched (") and said in text
    put = f"put into {host.folder}: raw/b (700 bytes), pictures/*.png (2 files); then `soralab data check tiny`"
    assert put in text
    assert "raw/a" not in text  # that one came
    host.how.clear()
    run(capsys, "get", "tiny")
    assert shelf.state(host.tiny) == "whole"


def test_without_a_network_the_line_says_the_same(host, capsys, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    with hosts.running() as other:
        gone = other.url("/a")
    files = tuple(dataclasses.replace(file, urls=(gone,)) for file in host.tiny.files)
    monkeypatch.setattr(registry, "published", lambda: {"tiny": files})
    text = run(capsys, "get", "tiny", code=2)
    assert "a of tiny could not be fetched (127.0.0.1" in text and "cannot be reached" in text
    assert f"put into {host.folder}: raw/a (600 bytes), raw/b (700 bytes), pictures/*.png (2 files)" in text


def test_an_archive_of_something_else_is_told(host, capsys, monkeypatch):
    host.files["/c.tgz"] = packed(one=b"1")
    files = (*host.tiny.files[:2], File("c.tgz", 0, "", (host.url("/c.tgz"),), {"pictures/*.png": 2}))
    monkeypatch.setattr(registry, "published", lambda: {"tiny": files})
    text = run(capsys, "get", "tiny", code=2)
    assert "tiny is not whole: its archive holds less than it should" in text and "pictures/*.png" in text


def test_what_is_asked_for_and_what_is_ones_own(host, capsys):
    text = run(capsys, "get", "asked", code=2)
    assert "ask its authors" in text and "Images/*.jpg (3 files), words.txt" in text and "data/asked" in text
    text = run(capsys, "get", "films", code=2)
    assert "are your own, and nowhere to be fetched: put your own films into" in text


def test_two_at_a_time_are_refused(host, capsys):
    from soralab.files.lock import alone

    host.folder.mkdir(parents=True)
    with alone(host.folder, "get", "download"):
        assert re.search(r"another download runs in .*tiny \(process \d+\)", run(capsys, "get", "tiny", code=2))


def test_many_files_of_a_folder_are_named_together():
    with_sizes = shelf.by_hand(DATASETS["isbi2012"], Path("nowhere"))
    assert "membrane/train/image/*.png (30 files), membrane/train/label/*.png (30 files)" in with_sizes
    assert "MNIST/raw/t10k-labels-idx1-ubyte.gz (4,542 bytes)" in shelf.by_hand(DATASETS["mnist"], Path("nowhere"))


# ------------------------------------------------------------------------------------------------------ check, list


def test_check_names_what_is_damaged_and_what_is_missing(host, capsys):
    assert "MEND  is not whole: `soralab data get tiny`, or put into" in run(capsys, "check", "tiny", code=2)
    run(capsys, "get", "tiny")
    (host.folder / "raw" / "a").write_bytes(b"x" * 600)
    (host.folder / "pictures" / "two.png").write_bytes(b"2" * 998 + b"3")
    text = run(capsys, "check", code=2)  # all that are here
    assert "1 of 2 files are as published" in text and f"{host.folder / 'raw' / 'a'} is not as published: rem" in text
    assert "1 of 2 files are as c.tgz had them" in text and f"{host.folder / 'pictures' / 'two.png'} and 0 m" in text
    (host.folder / "pictures" / "one.png").unlink()
    assert "pictures/*.png" in run(capsys, "check", "tiny", code=2)


def test_a_part_of_a_set_will_do(host, capsys):
    (host.folder.parent / "asked_mini" / "Images").mkdir(parents=True)
    (host.folder.parent / "asked_mini" / "Images" / "a.jpg").touch()
    assert shelf.state(host.asked_set) == "a part" and "is a part of the set" in run(capsys, "check", "asked")


def test_list_tells_what_is_here_and_what_it_is(host, capsys):
    assert "no data set is in" in run(capsys, "check")
    run(capsys, "get", "tiny")
    text = run(capsys, "list")
    assert re.search(r"tiny +whole +1\.\d kB   a tiny set\n +none; http://home; chapters 01, 02", text)
    assert re.search(r"asked +none +by hand   a set to be asked for", text) and str(host.folder.parent) in text


@pytest.mark.parametrize("argv, said", [
    (("get",), "data get takes the NAME of a set: one of tiny, asked, films"),
    (("get", "nist"), "NAME is 'nist'; it takes one of tiny, asked, films"),
    (("check", "nist"), "NAME is 'nist'"), (("list", "nist"), "NAME is 'nist'"),
])  # fmt: skip
def test_a_name_that_is_none(host, capsys, monkeypatch, argv, said):
    assert said in run(capsys, *argv, code=2)


def test_an_act_that_is_none_gets_one_line(capsys):
    with pytest.raises(SystemExit) as error:
        main(["data", "fetch"])
    assert error.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


# --------------------------------------------------------------------------------------------------------- the table


def test_the_published_files_are_well_formed():
    assert set(published()) <= set(DATASETS)
    for name, files in published().items():
        assert len({file.path for file in files}) == len(files), name
        for file in files:
            assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
            assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", file.digest) and file.size >= 0
            assert file.urls and all(url.startswith(("http://", "https://")) for url in file.urls)
            assert bool(file.holds) == file.path.endswith((".zip", ".tar.gz"))
            assert bool(file.size) == bool(file.digest)  # what has no digest is bounded by MOST
    assert all(one.files or one.ask for one in DATASETS.values())
    assert {name for name in DATASETS if not DATASETS[name].files} == {"flickr8k", "pictures", "films"}


def test_torchvision_publishes_the_same_digests():
    datasets = pytest.importorskip("torchvision.datasets")
    for name, theirs in (("mnist", datasets.MNIST), ("fashionmnist", datasets.FashionMNIST)):
        ours = [(file.path.rpartition("/")[2], file.digest) for file in published()[name]]
        assert ours == [(file, f"md5:{md5}") for file, md5 in theirs.resources]
        assert [{*file.urls} for file in published()[name]] == [  # its releases differ in the order
            {f"{mirror}{file}" for mirror in theirs.mirrors} for file, _ in theirs.resources
        ]
    pets = [file.urls[0] for file in published()["oxford_pets"]]
    assert pets == [url for url, _ in datasets.OxfordIIITPet._RESOURCES]
    assert published()["movingmnist"][0].urls == (datasets.MovingMNIST._URL,)


def card_rows() -> list[list[str]]:
    """The rows of the data card's table of real sets."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- data sets -->")[2].partition("<!-- /data sets -->")[0]
    return [[cell.strip() for cell in line.strip("| \n").split("|")] for line in table.strip().splitlines()[2:]]


def test_the_data_card_and_the_registry_agree():
    assert card_rows() == [[f"`{name}`", *rest] for name, *rest in map(shelf.row, DATASETS.values())]


def test_the_readme_names_the_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| `soralab data list` |" in text and "`soralab data get NAME`" in text


# --------------------------------------------------------------------------------------------- where, and the switch


def test_where_a_set_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", "")
    assert registry.root() == ROOT / "data" / "downloads"
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    assert registry.place("mnist") == tmp_path / "mnist"
    (tmp_path / "mnist_mini").mkdir()
    assert registry.place("mnist") == tmp_path / "mnist_mini"
    assert registry.place("mnist", lambda folder: False) == tmp_path / "mnist"
    (tmp_path / "mnist").mkdir()
    assert registry.place("mnist") == tmp_path / "mnist"
    with pytest.raises(ValueError, match="NAME is 'nist'; it takes one of mnist, fashionmnist"):
        registry.place("nist")


def test_the_switch(monkeypatch):
    monkeypatch.delenv("SORALAB_DATASET")
    assert registry.chosen() is None
    monkeypatch.setenv("SORALAB_DATASET", "cifar10")
    assert registry.chosen() is DATASETS["cifar10"]
    monkeypatch.setenv("SORALAB_DATASET", "imagenet")
    with pytest.raises(ValueError, match="SORALAB_DATASET is 'imagenet'; it takes one of mnist"):
        registry.chosen()


@pytest.mark.skipif(not REAL, reason="SORALAB_DATA names no folder with real data")
def test_the_real_bytes_are_as_published(capsys):
    here = [one for one in DATASETS.values() if shelf.state(one) != "none"]
    if not here:
        pytest.skip("no set of the registry is in SORALAB_DATA")
    for one in here:
        right, wrong = shelf.check(one)
        assert wrong == [] and right, one.name


def test_a_zip_is_unpacked_too(host, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hin.txt", "Wow!\tवाह!\tCC-BY\n")
    host.files["/h.zip"] = buffer.getvalue()
    file = File("h.zip", 0, "", (host.url("/h.zip"),), {"hin.txt": 1})
    monkeypatch.setattr(registry, "published", lambda: {"tiny": (file,)})
    shelf.get(host.tiny)
    assert (host.folder / "hin.txt").read_text(encoding="utf-8").startswith("Wow!")
