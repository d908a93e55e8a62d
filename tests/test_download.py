"""Downloads from a host of the test's own: continued, compared, bounded; what is no file is refused in one line."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import time
import zipfile
from types import SimpleNamespace

import hosts
import pytest

from soralab.files import archives, download
from soralab.files.archives import unpack
from soralab.files.download import Refused, fetch, is_right

BODY = bytes(range(256)) * 3000
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0)
    monkeypatch.setattr(download, "TIMEOUT", 5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with hosts.running() as host:
        host.files["/a"] = BODY
        yield host


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a"


def names(folder):
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("digest", [MD5, SHA, ""])
def test_a_file_is_fetched_whole_and_told_of(host, path, digest):
    told = []
    fetch([host.url("/a")], path, len(BODY), digest, told.append)
    assert path.read_bytes() == BODY and names(path.parent) == ["a"]
    assert told == sorted(told) and told[-1] == len(BODY) and len(told) > 1
    assert is_right(path, len(BODY), MD5) and is_right(path, 0, SHA) and is_right(path, 0, "")
    assert not is_right(path, 5, "") and not is_right(path, 0, MD5[:-1] + "x") and not is_right(path / "b", 0, "")


def test_what_is_fetched_is_kept_before_it_has_its_name(host, path, monkeypatch):
    told = []
    monkeypatch.setattr(download, "sync", lambda part: told.append(f"keep {part.name}"))
    monkeypatch.setattr(download, "sync_folder", lambda folder: told.append("keep folder"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (told.append(f"becomes {b.name}"), replace(a, b)))
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert told == ["keep a.part", "becomes a", "keep folder"]
    assert host.headers["Accept-Encoding"] == "identity" and "soralab" in host.headers["User-Agent"]


def test_a_host_that_stalls_is_not_waited_for(host, path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    host.how["/a"] = "stalls"
    began = time.monotonic()
    with pytest.raises(Refused):
        fetch([host.url("/a")], path, len(BODY), MD5)
    assert time.monotonic() - began < 3


def test_a_line_that_was_cut_is_taken_up_where_it_broke(host, path):
    host.how["/a"] = "cut once"
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY
    assert host.ranges("/a") == [None, f"bytes={len(BODY) // 2}-"]


def test_what_came_before_the_line_failed_for_good_is_kept_for_the_next_call(host, path, monkeypatch):
    host.how["/a"] = "cut"
    monkeypatch.setattr(download, "TRIES", 1)
    with pytest.raises(Refused, match=r"breaks off after 384.0 kB of 768.0 kB .*the same command goes on from there"):
        fetch([host.url("/a")], path, len(BODY), MD5)
    assert names(path.parent) == ["a.part"] and (path.parent / "a.part").read_bytes() == BODY[: len(BODY) // 2]
    host.how["/a"] = "fine"
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY and host.ranges("/a")[-1] == f"bytes={len(BODY) // 2}-"


def test_an_interrupt_leaves_the_part_and_no_file(host, path):
    def stop(got):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([host.url("/a")], path, len(BODY), MD5, stop)
    assert names(path.parent) == ["a.part"]
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY and host.ranges("/a")[-1].startswith("bytes=")


@pytest.mark.parametrize("part", [b"another file's", BODY + b"x", BODY[:-9] + bytes(9)])
def test_a_part_of_something_else_is_begun_anew(host, path, part):
    (path.parent / "a.part").write_bytes(part)
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY and names(path.parent) == ["a"]


def test_a_part_that_is_whole_already_is_not_fetched_again(host, path):
    (path.parent / "a.part").write_bytes(BODY)
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY and host.asked == []
    path.unlink()
    (path.parent / "a.part").write_bytes(BODY)
    fetch([host.url("/a")], path, 0, MD5)  # of unknown size the host is asked, and answers 416
    assert path.read_bytes() == BODY


def test_without_a_digest_a_part_is_not_trusted(host, path):
    (path.parent / "a.part").write_bytes(b"old bytes of a file that has grown since")
    fetch([host.url("/a")], path)
    assert path.read_bytes() == BODY and host.ranges("/a") == [None]


@pytest.mark.parametrize("how", ["no ranges", "other range"])
def test_a_host_that_does_not_go_on_where_it_is_asked(host, path, how):
    host.how["/a"] = how
    (path.parent / "a.part").write_bytes(BODY[:1000])
    fetch([host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY


def test_the_second_address_helps_where_the_first_refuses(host, path):
    host.how["/gone"], host.how["/login?"] = "404", "login"
    fetch([host.url("/gone"), host.url("/login?"), host.url("/a")], path, len(BODY), MD5)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("how, said", [
    ("404", "answers 404, Not Found"), ("403", "answers 403, Forbidden"), ("500", "answers 500"),
    ("empty", "has another file (0 bytes; 768000 were published)|sends an empty file"), ("login", "a web page instead"),
    ("page", "a web page instead"), ("page as bytes", "another file (54 bytes|a web page instead"),
    ("endless", "sends more than 768.0 kB"),
])  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_the_file_is_refused_in_one_line(host, path, monkeypatch, how, said, known):
    host.how["/a"] = how
    monkeypatch.setattr(download, "MOST", len(BODY))
    with pytest.raises(Refused) as error:
        fetch([host.url("/a")], path, *((len(BODY), MD5) if known else ()))
    text = str(error.value)
    assert any(part in text for part in said.split("|")) and "127.0.0.1" in text and "\n" not in text, text
    assert not path.exists()


def test_another_file_of_the_same_size_is_refused_and_not_kept(host, path):
    host.files["/a"] = BODY[::-1]
    with pytest.raises(Refused, match=r"sends another file than was published \(768000 bytes, md5:[0-9a-f]{32}\)"):
        fetch([host.url("/a")], path, len(BODY), MD5)
    assert names(path.parent) == []


def test_a_longer_or_shorter_file_is_refused_before_it_is_read(host, path):
    for size in (len(BODY) - 1, len(BODY) + 1):
        with pytest.raises(Refused, match=rf"has another file \(768000 bytes; {size} were published\)"):
            fetch([host.url("/a")], path, size, MD5)
    host.how["/a"] = "no length"
    with pytest.raises(Refused, match="sends more than"):
        fetch([host.url("/a")], path, len(BODY) - 1, MD5)


def test_no_host_no_disk_no_address(host, path, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 2)
    with hosts.running() as other:
        gone = other.url("/a")
    with pytest.raises(Refused, match=r"127.0.0.1:\d+ cannot be reached \("):
        fetch([gone], path, len(BODY), MD5)
    with pytest.raises(Refused, match=r"no-such-host.invalid cannot be reached \("):
        fetch(["http://no-such-host.invalid/a"], path, len(BODY), MD5)
    for url in ("file:///etc/hostname", "ftp://a/b", "a"):
        with pytest.raises(ValueError, match="url is .*; it takes an http or https address"):
            fetch([url], path)
    with pytest.raises(OSError, match=r"free, the file takes .* more: make room"):
        fetch([host.url("/a")], path, 10**18, MD5)
    with pytest.raises(OSError, match="does not exist"):
        fetch([host.url("/a")], path / "b", len(BODY), MD5)
    assert names(path.parent) == []


def test_a_file_as_large_as_the_room_is_fetched_and_a_larger_one_is_not(host, path, monkeypatch):
    """What lies there of it already takes no room again."""
    def with_free(size):
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=size))
        fetch([host.url("/a")], path, len(BODY), MD5)

    for have in (0, 1000):
        if have:
            path.rename(path.with_name("a.part")).write_bytes(BODY[:have])
        with pytest.raises(OSError, match="make room"):
            with_free(len(BODY) - have - 1)
        with_free(len(BODY) - have)
        assert path.read_bytes() == BODY


def test_a_disk_that_fills_up_is_one_sentence(host, path, monkeypatch):
    import errno

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "open", lambda *_: Full(), raising=False)
    with pytest.raises(OSError, match=r"^the disk is full, a.part was not written \(.* free in .*\): make room"):
        fetch([host.url("/a")], path, len(BODY), MD5)
    assert not path.exists()


# --------------------------------------------------------------------------------------------------------- archives


def tar(path, *members, mode="w:gz"):
    """A tar of (name, content) or TarInfo members."""
    with tarfile.open(path, mode) as packed:
        for member in members:
            plain = not isinstance(member, tarfile.TarInfo)
            info, content = (tarfile.TarInfo(member[0]), member[1]) if plain else (member, b"")
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for info, content in members:
            packed.writestr(info, content)
    return path


def made(kind, tmp_path, *members):
    return (tar if kind == "tar" else zipped)(tmp_path / f"archive.{kind}", *members)


KINDS = pytest.mark.parametrize("kind", ["tar", "zip"])


@KINDS
def test_an_archive_is_unpacked_and_its_digests_given(tmp_path, kind):
    archive = made(kind, tmp_path, ("images/a.txt", b"one"), ("./images/deep/b.txt", b"two"), ("c.txt", b""))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.txt").write_text("older")
    (tmp_path / "images" / "mine.txt").write_text("kept")
    (tmp_path / archives.STAGE).mkdir()
    (tmp_path / archives.STAGE / "left").write_text("by a call that was killed")
    digests = unpack(archive, tmp_path)
    assert (tmp_path / "images" / "a.txt").read_text() == "one" and (tmp_path / "c.txt").read_text() == ""
    assert (tmp_path / "images" / "deep" / "b.txt").read_text() == "two"
    assert (tmp_path / "images" / "mine.txt").read_text() == "kept" and not (tmp_path / archives.STAGE).exists()
    assert digests["images/a.txt"] == hashlib.sha256(b"one").hexdigest() and len(digests) == 3


@KINDS
@pytest.mark.parametrize("name", [
    "../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "C:/out.txt", "a:b",
])  # fmt: skip
def test_a_name_that_leads_out_is_refused_and_nothing_is_left(tmp_path, kind, name):
    folder = tmp_path / "deep" / "in"
    folder.mkdir(parents=True)
    archive = made(kind, tmp_path, ("fine.txt", b"1"), (name, b"2"))
    if kind == "zip" and os.sep == "\\":
        pytest.skip("zipfile makes these names harmless there")
    with pytest.raises(ValueError, match="leads out of its folder: do not use it"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == [] and names(tmp_path) == [archive.name, "deep"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(ValueError, match="holds 'link', a link or a device"):
        unpack(tar(tmp_path / "a.tar", ("fine.txt", b"1"), info), folder)
    assert list(folder.iterdir()) == []


def test_a_link_in_a_zip_and_a_locked_file_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ValueError, match="'link', a link or a locked file"):
        unpack(zipped(tmp_path / "a.zip", (link, b"/etc/passwd")), tmp_path)
    archive = zipped(tmp_path / "b.zip", ("a.txt", b"1"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="'a.txt', a link or a locked file"):
        unpack(archive, tmp_path)


@KINDS
def test_a_bomb_is_refused(tmp_path, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(ValueError, match="unpacks to more than .* 20 times its size .*not what was published"):
        unpack(made(kind, tmp_path, ("a", bytes(30 << 20))), folder)
    assert list(folder.iterdir()) == []


@KINDS
def test_too_many_files_are_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "COUNT", 2)
    with pytest.raises(ValueError, match="unpacks to more than 2 files"):
        unpack(made(kind, tmp_path, *((f"{k}", b"1") for k in range(3))), tmp_path)


def test_an_archive_packed_by_lzma_and_damaged_is_refused(tmp_path):
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a", bytes(range(256)) * 90)
    data = bytearray(archive.read_bytes())
    data[60:100] = bytes(40)
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"archive.zip is damaged \(.*\): remove it and fetch it again"):
        unpack(archive, tmp_path)


@KINDS
@pytest.mark.parametrize("spoil", [
    lambda data: data[: len(data) // 2], lambda data: b"no archive at all", lambda data: b"",
    lambda data: data[:60] + bytes(200) + data[260:],
], ids=["cut", "text", "empty", "bytes inside"])  # fmt: skip
def test_a_damaged_archive_is_refused_and_nothing_is_left(tmp_path, kind, spoil):
    folder = tmp_path / "in"
    folder.mkdir()
    archive = made(kind, tmp_path, ("a", bytes(range(256)) * 9), ("b", os.urandom(5000)))
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"archive.* is damaged \(.*\): remove it and fetch it again"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []
