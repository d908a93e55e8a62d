"""Writes that either happen whole or not at all, and say in one line what went wrong."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def human_bytes(count: float) -> str:
    """`count` bytes as people read them: 999 bytes, 1.2 kB, 3.4 MB, 5.6 GB."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def _error(kind: type[OSError], number: int, text: str) -> OSError:
    """An OSError whose text is exactly `text` (no "[Errno 28]") and whose `.errno` still is `number`."""
    error = kind(text)
    error.errno = number
    return error


def explain(error: OSError, path: str | os.PathLike) -> OSError:
    """Return `error`, raised while writing `path`, as an OSError of one sentence that names the mend."""
    path = Path(path)
    folder = path.parent
    if error.strerror is None or not _concerns(error, folder):
        return error  # it is a clear sentence already, or about another file
    if error.errno in FULL:
        try:
            free = f"{human_bytes(shutil.disk_usage(folder).free)} free in {folder}"
        except OSError:
            free = f"nothing free in {folder}"
        return _error(OSError, errno.ENOSPC, f"the disk is full, {path.name} was not written ({free}): "
                      "make room there or choose another folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _error(PermissionError, error.errno, f"{path} may not be written: give yourself the right to "
                      f"write in {folder}, or choose another folder")
    if error.errno == errno.ENAMETOOLONG:
        return _error(OSError, error.errno, f"the name {path.name[:40]}... is too long: shorten it")
    return _error(type(error), error.errno, f"{path} cannot be written ({error.strerror}): choose another "
                  "place")


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether `error` names no file, or one in `folder`."""
    named = error.filename
    return not isinstance(named, str) or os.path.realpath(os.path.dirname(named)) == os.path.realpath(folder)


@contextlib.contextmanager
def explained(path: str | os.PathLike) -> Iterator[None]:
    """Turn every OSError of the block, which writes `path`, into one clear sentence (see `explain`)."""
    try:
        yield
    except OSError as error:
        clear = explain(error, path)
        if clear is error:
            raise
        raise clear from error


def make_folder(folder: str | os.PathLike) -> Path:
    """Make `folder` and its parents where they are missing; return it. Raises OSError of one sentence."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _error(NotADirectoryError, errno.ENOTDIR, f"{folder} cannot be a folder, a file is in the way: "
                     "remove that file or choose another folder") from error
    except OSError as error:
        raise explain(OSError(error.errno, error.strerror), folder) from error
    return folder


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """`make_folder` for a block: of the folders that it made, those that are empty at the block's end go again."""
    folder = Path(folder)
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        yield make_folder(folder)
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # there is something in it
                each.rmdir()


def check_writable(path: str | os.PathLike) -> Path:
    """Return the real target of `path` (links followed); raise OSError if no file can be written there.

    Nothing is left behind. Raises FileNotFoundError (the folder is missing), NotADirectoryError,
    IsADirectoryError, PermissionError, or OSError for a device or a pipe.
    """
    given, path = Path(path), Path(os.path.realpath(path))
    with explained(given):
        return _checked(given, path)


def _checked(given: Path, path: Path) -> Path:
    folder = path.parent
    if path.is_dir():
        raise _error(IsADirectoryError, errno.EISDIR, f"{given} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise _error(OSError, errno.EINVAL, f"{given} is not a regular file: name another")
    if not folder.exists():
        raise _error(FileNotFoundError, errno.ENOENT, f"the folder {given.parent} does not exist: make it "
                     "first or choose another")
    if not folder.is_dir():
        raise _error(NotADirectoryError, errno.ENOTDIR, f"{given.parent} is not a folder: choose another")
    # A rename would replace it all the same, as the folder may be written; and for the superuser all is writable.
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise _error(PermissionError, errno.EACCES, f"{given} is there already and is read-only: make it writable or "
                     "name another")
    # os.access is not enough for the folder (it knows neither every read-only mount nor Windows' lists), so try.
    _create(folder / f".{secrets.token_hex(8)}.part").unlink()
    return path


def _create(path: Path) -> Path:
    """Make the empty file `path`; it must be new. Its rights are those that the user's umask gives."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def sync(path: Path) -> None:
    """Have the disk keep what was written to the file `path` before the caller goes on."""
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Have the disk keep the renames made in `folder`, where the system has such a call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse; the rename stands all the same
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`, of the same suffix; on success it becomes `path`, else it goes.

        with atomic_write("film.gif") as temporary:
            temporary.write_bytes(data)

    Until the block ends well an older `path` stays as it was, also after Ctrl-C. Raises OSError of one clear
    sentence for a missing or unwritable folder, a folder or device in place of the file, and a full disk.
    """
    target = check_writable(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.part{target.suffix}")
    try:
        with explained(path):
            _create(temporary)
            yield temporary
            sync(temporary)
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
            sync_folder(target.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def kept(path: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` finds, as JSON at `path`: measured once, whatever stops the next; what lies there is taken.

    Raises ValueError of one line if that is no JSON.
    """
    if not path.exists():
        found = measure()
        make_folder(path.parent)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and it is measured again") from error
