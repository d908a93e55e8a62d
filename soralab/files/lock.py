"""One process at a time in a folder: the system keeps the lock, so it ends with the process, however that ends."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from soralab.files.atomic import explained

BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
FAR = 1 << 30  # the byte that Windows locks, behind the text, which others must be able to read


@contextlib.contextmanager
def alone(folder: str | os.PathLike, name: str, what: str = "training") -> Iterator[None]:
    """Inside the block no other process is in `alone(folder, name)`. Raises OSError of one line that names the other,
    a `what`.

    The file folder/NAME.lock holds this process's number while the block runs. One that a crash left behind locks
    nothing. On a file system without locks the block runs unguarded.
    """
    path = Path(folder) / f"{name}.lock"
    file = _open(path, what)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock stands all the same
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield
    finally:
        if os.name == "posix":
            path.unlink(missing_ok=True)  # while it is locked: whoever waits for it sees that it is gone
        with contextlib.suppress(OSError):
            file.close()
        if os.name != "posix":  # there an open file cannot be removed
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _open(path: Path, what: str):
    """The lock's file, open and locked."""
    while True:
        with explained(path):
            file = open(path, "a+", encoding="ascii")
        try:
            _lock(file)
        except OSError as error:
            if error.errno in BUSY:
                file.seek(0)
                other = file.read().strip() or "unknown"
                file.close()
                raise OSError(f"another {what} runs in {path.parent} (process {other}): wait for its end, or stop "
                              "it") from error
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the other ended between open and lock, and took its file away


def _lock(file) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
