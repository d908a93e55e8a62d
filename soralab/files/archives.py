"""Archives that others made, unpacked with care: nothing lands outside the folder, and nothing without bounds."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from soralab.files.atomic import explained, human_bytes, make_folder

TIMES, COUNT = 20, 200_000  # an archive holds at most so many times its own bytes (and a megabyte), and so many files
STAGE = ".unpacking"


def unpack(archive: Path, folder: Path) -> dict[str, str]:
    """Unpack a .zip or .tar (also .gz, .bz2, .xz) into `folder`; returns {name: SHA-256} of its files.

    They come into `folder` when all of them are there, and take the place of files of the same name. Raises ValueError
    of one line for an archive that is damaged, whose names lead out of the folder, that holds links or devices, or more
    than the bounds; OSError where the disk cannot take it.
    """
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a call that was killed
    try:
        with explained(stage / "file"):
            digests = _written(archive, make_folder(stage))
            for name in digests:
                make_folder((folder / name).parent)
                os.replace(stage / name, folder / name)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive} is damaged ({str(error).splitlines()[0] or 'cut short'}): remove it and fetch it "
                         "again") from error  # fmt: skip
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return digests


def _written(archive: Path, stage: Path) -> dict[str, str]:
    digests: dict[str, str] = {}
    room = TIMES * archive.stat().st_size + (1 << 20)
    for name, size, file in _members(archive):
        name, room = _inside(archive, name), room - size
        if room < 0 or len(digests) == COUNT:
            raise ValueError(f"{archive} unpacks to more than {COUNT} files or {TIMES} times its size "
                             f"({human_bytes(archive.stat().st_size)}): it is not what was published")  # fmt: skip
        target = stage / name
        make_folder(target.parent)
        digests[name] = _copied(file, target)
    return digests


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(name, bytes, opened) of every file; raises ValueError for a link, a device or a locked file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = info.external_attr >> 16
                if info.is_dir():
                    continue
                if stat.S_IFMT(kind) not in (0, stat.S_IFREG) or info.flag_bits & 1:
                    raise ValueError(f"{archive} holds {info.filename[:60]!r}, a link or a locked file: do not use it")
                with packed.open(info) as file:
                    yield info.filename, info.file_size, file
        return
    with tarfile.open(archive, "r:*") as packed:
        for info in packed:
            if info.isdir():
                continue
            if not info.isreg():
                raise ValueError(f"{archive} holds {info.name[:60]!r}, a link or a device: do not use it")
            yield info.name, info.size, packed.extractfile(info)


def _inside(archive: Path, name: str) -> str:
    """The name, if it stays in the folder on every system."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or set(name) & set('\\:\0*?"<>|'):
        raise ValueError(f"{archive} holds the name {name[:60]!r}, which leads out of its folder: do not use it")
    return str(path)


def _copied(file: IO[bytes], target: Path) -> str:
    """Write one file, which its archive's reader ends where it says it does; returns its SHA-256."""
    digest = hashlib.sha256()
    with open(target, "wb") as out:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()
