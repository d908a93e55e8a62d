"""Data sets fetched, unpacked and checked: what `soralab data` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from soralab.datasets.registry import DataSet, File, mend, place, root
from soralab.files.archives import unpack
from soralab.files.atomic import atomic_write, human_bytes, make_folder
from soralab.files.download import Refused, digest_of, fetch, is_right
from soralab.files.lock import alone

NOTE = ".sha256"  # what an archive's list of digests is called, behind the archive's name


def get(one: DataSet, tell: Callable[[File, int], object] = lambda file, got: None) -> Path:
    """Fetch what a set lacks, unpack it, and return its folder; what is there and right is not fetched again.

    tell: is told, again and again, how many bytes of a file are here. Raises OSError of one line that says which files
    are missing, why, and where each goes: where a host refuses, and where a set is not to be had by a program.
    """
    if one.own:
        raise FileNotFoundError(f"{one.name} are your own, and nowhere to be fetched: {mend(one.name)}")
    folder = make_folder(root() / one.name)
    if lacking := [file for file in one.files if not there(file, folder)]:
        with alone(folder, "get", "download"):
            for file in lacking:
                try:
                    _get(file, folder, tell)
                except Refused as error:
                    raise OSError(f"{file.path.rpartition('/')[2]} of {one.name} could not be fetched ({error}): try "
                                  f"again later, or {by_hand(one, folder)}") from error  # fmt: skip
    if one.missing(folder):
        raise FileNotFoundError(f"{one.name} is not whole: {one.ask or 'its archive holds less than it should'}; "
                                f"{by_hand(one, folder)}")  # fmt: skip
    return folder


def _get(file: File, folder: Path, tell: Callable) -> None:
    path = folder / file.path
    make_folder(path.parent)
    if not is_right(path, file.size, file.digest) or not file.digest:
        fetch(file.urls, path, file.size, file.digest, lambda got: tell(file, got))
    if file.holds:
        digests = unpack(path, path.parent)
        with atomic_write(path.with_name(path.name + NOTE)) as temporary:
            lines = (f"{digest}  {name}\n" for name, digest in digests.items())
            temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
        path.unlink()


def there(file: File, folder: Path) -> bool:
    """Whether a file was fetched whole; of an archive, whether as many files as it holds are there, and it is gone."""
    if file.holds:  # the archive goes last, when all that it holds is written down
        return not DataSet("", "", "", "", (), puts=file.holds).missing(folder) and not (folder / file.path).exists()
    return is_right(folder / file.path, file.size, file.digest)


def by_hand(one: DataSet, folder: Path) -> str:
    """The clause that says which files a reader puts where: all that the folder lacks, in few words."""
    return f"put into {folder}: {', '.join(_named(one.missing(folder), one))}; then `soralab data check {one.name}`"


def _named(missing: dict[str, int], one: DataSet) -> Iterator[str]:
    """Each missing file with its size, those of a folder together; of an archive, what it holds."""
    sizes = {file.path: file.size for file in one.files}
    groups: dict[str, list[str]] = {}
    for pattern in missing:
        parent, slash, name = pattern.rpartition("/")
        groups.setdefault(f"{parent}{slash}*.{name.rpartition('.')[2]}", []).append(pattern)
    for group, patterns in groups.items():
        if len(patterns) > 6:  # thirty slices are not named one by one
            yield f"{group} ({len(patterns)} files)"
            continue
        for pattern in patterns:
            count = missing[pattern]
            more = f"{sizes[pattern]:,} bytes" if sizes.get(pattern) else f"{count:,} files" if count > 1 else ""
            yield pattern + (f" ({more})" if more else "")


def state(one: DataSet) -> str:
    """How much of a set is there: "whole", "a part" or "none". Files are counted, not read."""
    missing = one.missing(place(one.name))
    return "whole" if not missing else "none" if missing == one.needs else "a part"


def check(one: DataSet) -> tuple[list[str], list[str]]:
    """Compare a set's files with what was published: (what is right, what is not and its mend), in lines.

    Of archives the unpacked files are compared with the digests noted as they were unpacked; without such a note (the
    reader put them there) they are counted. A part of a set, in NAME_mini, is not expected to be whole.
    """
    folder, right, wrong = place(one.name), [], []
    missing = one.missing(folder)
    known = [file for file in one.files if not file.holds and (folder / file.path).is_file()]
    damaged = [file for file in known if not is_right(folder / file.path, file.size, file.digest)]
    right += [f"{len(known) - len(damaged)} of {len(known)} files are as published"] * bool(known)
    wrong += [f"{folder / file.path} is not as published: remove it, then `soralab data get {one.name}`"
              for file in damaged]  # fmt: skip
    noted = {file.path for file in known}
    for file in one.files:
        note = folder / f"{file.path}{NOTE}"
        if file.holds and note.is_file():
            noted |= set(file.holds)
            lines = [line.partition("  ") for line in note.read_text(encoding="utf-8").splitlines()]
            bad = [name for digest, _, name in lines if not _same(note.parent / name, digest)]
            right.append(f"{len(lines) - len(bad)} of {len(lines)} files are as {file.path} had them")
            if bad:
                wrong.append(f"{note.parent / bad[0]} and {len(bad) - 1} more are not as {file.path} had them: remove "
                             f"{note} and what it names, then `soralab data get {one.name}`")  # fmt: skip
    counted = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in one.needs if pattern not in noted}
    right += [f"{pattern}: {count:,} here, counted and not compared" for pattern, count in counted.items() if count]
    if folder != root() / one.name:
        right.append(f"is a part of the set, in {folder}")
    elif missing and one.own:
        wrong.append(f"is not there: {mend(one.name)}")
    elif missing:
        way = "" if one.ask else f"`soralab data get {one.name}`, or "
        wrong.append(f"is not whole: {way}{by_hand(one, folder)}")
    return right, wrong


def said(one: DataSet) -> str:
    """What of a set is in its folder, in words: "4 files, 11.6 MB"."""
    files = [path for path in place(one.name).rglob("*") if path.is_file()]
    return f"{len(files):,} file{'s' * (len(files) != 1)}, {human_bytes(sum(path.stat().st_size for path in files))}"


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and digest_of(path, "sha256") == f"sha256:{digest}"


def row(one: DataSet) -> tuple[str, ...]:
    """What the command's list and the data card say of a set: name, what, chapters, licence, how much is fetched."""
    size = human_bytes(one.size) if one.size else "under 1 MB" if one.files else "–"
    how = size if not one.puts else "yours" if one.own else "by hand"
    return one.name, one.what, ", ".join(f"{chapter:02d}" for chapter in one.chapters), one.licence, how
