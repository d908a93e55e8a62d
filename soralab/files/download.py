"""Files from the network: continued where they broke off, compared with what was published, whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from soralab import __version__
from soralab.files.atomic import check_writable, explained, human_bytes, sync, sync_folder

CHUNK = 1 << 18  # bytes read at a time
MOST = 64 << 20  # bytes of a file whose size was not published
TIMEOUT, TRIES, WAIT = 30, 4, 2  # seconds without a byte; how often a broken line is taken up again; seconds between
DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
AGENT = f"Mozilla/5.0 (compatible; soralab/{__version__})"  # some hosts answer 406 to a program that names itself alone
PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


def downloads() -> Path:
    """The folder of all that the course uses and does not ship: SORALAB_DATA, or data/downloads in the repository."""
    return Path(os.environ.get("SORALAB_DATA") or DOWNLOADS)


class Refused(OSError):
    """What a host sends is not the file: one clause without a stop, which begins with the host's name."""


class _BrokenOff(Exception):
    """The line broke; what came is kept."""


def fetch(
    urls: Iterable[str], path: Path, size: int = 0, digest: str = "", tell: Callable[[int], object] = lambda got: None
) -> None:
    """Fetch a file to `path` from the first of `urls` that has it; until it is whole and right it is PATH.part.

    size: its bytes, if they are known (else MOST at most are read). digest: "md5:..." or "sha256:..."; only with one
    is a part continued, for only then is it known to be a part of the same file. tell: is told how many bytes are here.
    Raises Refused, an OSError, for each host's reason; ValueError for what is no http address; OSError of one sentence
    for a folder or a disk that cannot take it.
    """
    path = check_writable(path)
    part = path.with_name(f"{path.name}.part")
    _check_room(part, size)
    reasons = []
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"url is {url!r}; it takes an http or https address")
        try:
            _all_of(url, part, size, digest, tell)
            break
        except Refused as error:
            reasons.append(str(error))
    else:
        raise Refused("; ".join(reasons))
    with explained(path):
        sync(part)
        os.replace(part, path)
        sync_folder(path.parent)


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file as the registry writes it, "md5:..." or "sha256:..."."""
    found = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return f"{kind}:{found.hexdigest()}"


def is_right(path: Path, size: int, digest: str) -> bool:
    """Whether a file is there, with this size and this digest, as far as they are known."""
    if not path.is_file() or size and path.stat().st_size != size:
        return False
    return not digest or digest_of(path, digest.partition(":")[0]) == digest


def _all_of(url: str, part: Path, size: int, digest: str, tell: Callable) -> None:
    """Read until the part is the whole file; a broken line is taken up again, a wrong part is begun anew once."""
    host, anew = urlsplit(url).netloc, False
    for left in reversed(range(TRIES)):
        have = part.stat().st_size if digest and part.exists() else 0
        try:
            if not size or have != size:
                have = _read(url, part, have, size, tell)
        except _BrokenOff as error:
            if left:
                time.sleep(WAIT)
                continue
            got = part.stat().st_size if part.exists() else 0
            if not got:
                raise Refused(f"{host} cannot be reached ({error})") from error
            raise Refused(f"{host} breaks off after {human_bytes(got)}" + (f" of {human_bytes(size)}" if size else "")
                          + f" ({error}); the same command goes on from there") from error  # fmt: skip
        if is_right(part, size, digest):
            return
        is_, bytes_ = digest_of(part, digest.partition(":")[0] or "md5"), part.stat().st_size
        part.unlink()
        if have == 0 or anew:
            raise Refused(f"{host} sends another file than was published ({bytes_} bytes, {is_})")
        anew = True  # the part was of something else
    raise Refused(f"{host} sends no whole file")


def _read(url: str, part: Path, have: int, size: int, tell: Callable) -> int:
    """Read what is missing behind the first `have` bytes; returns with how many of them the reading began.

    Raises _BrokenOff for a line that failed, Refused for an answer that is not the file.
    """
    host = urlsplit(url).netloc
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _opened(urllib.request.Request(url, headers=headers), part, have) as response:
        if response is None:
            return have  # 416: there is nothing behind what is here; the digest will tell
        if response.status != 206 or _first_byte(response) != have:
            have = 0  # the host begins at the beginning
        announced = int(response.headers.get("Content-Length") or 0)
        if response.headers.get_content_type() == "text/html":
            raise Refused(f"{host} sends a web page instead (a login, or a notice)")
        if size and announced and have + announced != size:
            raise Refused(f"{host} has another file ({have + announced} bytes; {size} were published)")
        got = have
        with explained(part), open(part, "ab" if have else "wb") as file:
            for chunk in _chunks(response):
                if got == 0 and chunk.lstrip()[:9].lower().startswith(PAGE):
                    raise Refused(f"{host} sends a web page instead (a login, or a notice)")
                got += len(chunk)
                if got > (size or MOST):
                    raise Refused(f"{host} sends more than {human_bytes(size or MOST)}: another file")
                file.write(chunk)
                tell(got)
        if got == 0:
            raise Refused(f"{host} sends an empty file")
        if announced and got < have + announced or size and got < size:
            raise _BrokenOff("the line was cut")
    return have


@contextlib.contextmanager
def _opened(request: urllib.request.Request, part: Path, have: int) -> Iterator:
    """The host's answer, or None for 416, where it has no more than `have` bytes."""
    host = urlsplit(request.full_url).netloc
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            yield None
            return
        raise Refused(f"{host} answers {error.code}, {error.reason or 'no reason given'}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise _BrokenOff(str(getattr(reason, "strerror", None) or reason) or type(reason).__name__) from error
    with response:
        yield response


def _chunks(response) -> Iterator[bytes]:
    """The body, a piece at a time; what the network raises becomes _BrokenOff."""
    while True:
        try:
            chunk = response.read(CHUNK)
        except (http.client.HTTPException, OSError) as error:
            raise _BrokenOff(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _first_byte(response) -> int:
    """Where the answered range begins; -1 if the answer does not say."""
    unit, _, rest = (response.headers.get("Content-Range") or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _check_room(part: Path, size: int) -> None:
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if size - have > free:
        raise OSError(f"{part.parent} has {human_bytes(free)} free, the file takes {human_bytes(size - have)} more: "
                      "make room there, or set SORALAB_DATA to another folder")  # fmt: skip
