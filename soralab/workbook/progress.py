"""A reader's record: which exercises are solved, after how many tries, with which hints. One local file.

    {"soralab": "record", "version": 1, "name": "ada",
     "exercises": {"unet.weight_map": {"passed": "2026-03-14", "tries": 2, "hints": [1]}}}

It lies in the home folder (`.soralab/progress.json`); the environment variable SORALAB_PROGRESS names another file,
or is `off` for none. Nothing is sent anywhere. A notebook never fails for the record's sake: what cannot be recorded
is told in one line. Records of several people make a group's board (`merge`), so a file may come from anybody: its
size, its names and its numbers are bounded, and everything else in it is refused.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from soralab.files.atomic import atomic_write, explain, human_bytes, make_folder

MAX_BYTES = 1_000_000
MAX_EXERCISES = 2000
MAX_TRIES = 1_000_000
MAX_NAME = 40  # letters of a person's name
TURNS = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # what turns the letters behind it round
EXERCISE = re.compile(r"[a-z][a-z0-9_]{0,39}\.[A-Za-z][A-Za-z0-9_]{0,59}")


class DamagedRecord(ValueError):
    """A file that is no record; the text names the file and what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """One exercise. passed: the day, "2026-03-14", or None; tries: answers checked until then; hints: tiers read."""

    passed: str | None = None
    tries: int = 0
    hints: tuple[int, ...] = ()


@dataclass(frozen=True)
class Record:
    """One person. name: as the board shows it; entries: {exercise's name: Entry}."""

    name: str
    entries: dict[str, Entry] = field(default_factory=dict)

    def entry(self, exercise: str) -> Entry:
        """The entry of an exercise; an empty one if it was never tried."""
        return self.entries.get(exercise, Entry())

    def solved(self, exercise: str) -> bool:
        """Whether the exercise is solved."""
        return self.entry(exercise).passed is not None


# ---------------------------------------------------------------------------------------------- the reader's own


def record_path() -> Path | None:
    """Where the reader's record lies, or None if SORALAB_PROGRESS is off. Raises OSError without a home folder."""
    chosen = os.environ.get("SORALAB_PROGRESS")
    if chosen == "off":
        return None
    try:
        return Path(chosen).expanduser() if chosen else Path.home() / ".soralab" / "progress.json"
    except RuntimeError as error:
        raise OSError("there is no home folder for the record: name a file in SORALAB_PROGRESS") from error


def own_record() -> Record:
    """The reader's record, or an empty one. Raises DamagedRecord, OSError."""
    try:
        return _own(record_path())
    except DamagedRecord as error:
        raise DamagedRecord(f"{error}; mend it, or move it away and a new one begins") from error


def _own(path: Path | None) -> Record:
    return read(path) if path is not None and os.path.lexists(path) else Record(_login())


def change_own(change: Callable[[Record], Record]) -> str:
    """Replace the reader's record by `change(record)`; return "" or one line that the reader should see.

    A damaged record is never written over: it is kept beside, under another name, and a new one begins. Two
    notebooks that record in the same instant may lose one of the two; a file is never half written.
    Raises OSError (a full or read-only disk) and ValueError (what `change` refuses).
    """
    path = record_path()
    if path is None:
        return ""
    line = ""
    try:
        record = _own(path)
    except DamagedRecord as error:
        line = f"{error}; it is kept as {_put_aside(path).name}, and a new one begins"
        record = Record(_login())
    changed = change(record)
    if changed != record or line:
        make_folder(path.parent)
        write(path, changed)
    return line


def note_try(exercise: str, right: bool) -> str:
    """Record an answer; return "" or the line that tells why it was not recorded. Never raises for a bad disk."""

    def change(record: Record) -> Record:
        entry = record.entry(exercise)
        if entry.passed:
            return record  # a notebook that is run again does not count as more tries
        day = datetime.date.today().isoformat() if right else None
        entry = replace(entry, passed=day, tries=min(entry.tries + 1, MAX_TRIES))
        return replace(record, entries={**record.entries, exercise: entry})

    return _quietly(change)


def note_hint(exercise: str, tiers: Iterable[int]) -> str:
    """Record hints that were read; return as `note_try` does."""

    def change(record: Record) -> Record:
        entry = record.entry(exercise)
        entry = replace(entry, hints=tuple(sorted({*entry.hints, *tiers})))
        return replace(record, entries={**record.entries, exercise: entry})

    return _quietly(change)


def rename(name: str) -> str:
    """Give the reader's record another name; return as `change_own` does. Raises ValueError for no name."""
    clean = _typed_name(name)
    _needs_recording()
    return change_own(lambda record: replace(record, name=clean))


def _typed_name(name: str) -> str:
    clean = _clean_name(name)
    if TURNS.search(name):
        raise ValueError(f"--name is {name[:60]!r}, with a mark that turns the letters behind it round: leave it out")
    if clean is None:
        raise ValueError(f"--name is {name[:60]!r}; it takes 1 to {MAX_NAME} letters in one line")
    return clean


def _quietly(change: Callable[[Record], Record]) -> str:
    try:
        return change_own(change)
    except (OSError, ValueError) as error:
        return f"not recorded: {' '.join(str(error).split())}"


def _needs_recording() -> None:
    if record_path() is None:
        raise ValueError("SORALAB_PROGRESS is off, so there is no record: unset it first")


def _put_aside(path: Path) -> Path:
    """Move a damaged record to the first free name beside it; return that."""
    for number in range(1, 1000):
        aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
        if not os.path.lexists(aside):
            try:
                os.rename(path, aside)
            except OSError as error:
                raise explain(error, path) from error
            return aside
    raise OSError(f"{path} is damaged, and so are 999 beside it: remove them")


def _login() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # without a login name, each system raises another
        return _clean_name(getpass.getuser()) or "learner"
    return "learner"


# ------------------------------------------------------------------------------------------------------ files


def read(path: str | os.PathLike) -> Record:
    """Read a record. Raises OSError (no such file, unreadable) and DamagedRecord (no record, too large)."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no record {path}: check the name")
    if not path.is_file():
        raise OSError(f"{path} is not a regular file: name a record that `soralab progress --export` wrote")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}): give yourself the right to") from error
    if len(data) > MAX_BYTES:
        raise DamagedRecord(f"{path} is no record of exercises: it is larger than {human_bytes(MAX_BYTES)}")
    try:
        return _record(json.loads(data.decode("utf-8")))
    except RecursionError:
        problem = "it is nested too deeply"
    except UnicodeDecodeError:
        problem = "it is not text"
    except json.JSONDecodeError as error:
        problem = f"it is empty or cut off, or no JSON at line {error.lineno}"
    except ValueError as error:
        problem = str(error)
    raise DamagedRecord(f"{path} is no record of exercises: {problem}")


def write(path: str | os.PathLike, record: Record) -> None:
    """Write a record, whole or not at all. Raises OSError."""
    with atomic_write(path) as temporary:
        _fill(temporary, record)


def _fill(file: Path, record: Record) -> None:
    entries = {name: {"passed": entry.passed, "tries": entry.tries, "hints": list(entry.hints)}
               for name, entry in sorted(record.entries.items())}
    data = {"soralab": "record", "version": 1, "name": record.name, "exercises": entries}
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def export(path: str | os.PathLike, name: str | None = None) -> tuple[Record, str]:
    """Write the reader's record to `path`, over an older record there but over nothing else; return it, and a line as
    `change_own` does. name: give it this one first, if it can be exported then; what fails changes nothing."""
    clean = None if name is None else _typed_name(name)
    _needs_recording()
    try:
        record = own_record()
    except DamagedRecord:
        if name is None:
            raise
        record = Record(_login())  # as `rename` begins a new one
    record, line = replace(record, name=clean or record.name), ""
    if os.path.lexists(path):
        try:
            read(path)
        except DamagedRecord as error:
            raise ValueError(f"{error}, and it is not written over: name another file") from error
    with atomic_write(path) as temporary:
        _fill(temporary, record)
        if name is not None:  # now that only its place in the folder is wanting
            line = rename(name)
    return record, line


def merge(records: Iterable[Record]) -> list[Record]:
    """One record a person, by name: of two with the same name the union. The order given does not matter."""
    people: dict[str, Record] = {}
    for record in records:
        entries = people.get(record.name, record).entries
        both = {name: _union(entries.get(name, Entry()), record.entry(name)) for name in {*entries, *record.entries}}
        people[record.name] = Record(record.name, both)
    return sorted(people.values(), key=lambda record: (record.name.casefold(), record.name))


def _union(a: Entry, b: Entry) -> Entry:
    """Solved on the earlier day; tries are not added up, as one may be an older copy of the other."""
    days = [day for day in (a.passed, b.passed) if day]
    return Entry(min(days, default=None), max(a.tries, b.tries), tuple(sorted({*a.hints, *b.hints})))


# ----------------------------------------------------------------------------------------- what a file may hold


def _record(data) -> Record:
    """The record in a file's JSON. Raises ValueError that says which part is wrong."""
    if not isinstance(data, dict) or data.get("soralab") != "record":
        raise ValueError("it says nothing of the course")
    if data.get("version") != 1:
        raise ValueError(f"its version is {str(data.get('version'))[:20]!r}, this course reads 1")
    name, entries = _clean_name(data.get("name")), data.get("exercises")
    if name is None:
        raise ValueError(f"its name is not 1 to {MAX_NAME} letters in one line")
    if not isinstance(entries, dict) or len(entries) > MAX_EXERCISES:
        raise ValueError(f"its exercises are not a table of at most {MAX_EXERCISES}")
    return Record(name, {exercise: _entry(exercise, entry) for exercise, entry in entries.items()})


def _entry(exercise: str, data) -> Entry:
    if not EXERCISE.fullmatch(exercise):
        raise ValueError(f"{exercise[:60]!r} is not an exercise's name")
    try:
        passed, tries, hints = data["passed"], data["tries"], data["hints"]
        if passed is not None and datetime.date.fromisoformat(passed).isoformat() != passed:
            raise ValueError
        if type(tries) is not int or not 0 <= tries <= MAX_TRIES:
            raise ValueError
        if type(hints) is not list or len(hints) > 3 or any(type(tier) is not int for tier in hints):
            raise ValueError
        if not {*hints} <= {1, 2, 3}:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"its entry of {exercise} is not passed, tries and hints") from None
    return Entry(passed, tries, tuple(sorted({*hints})))


def _clean_name(name) -> str | None:
    """A name with single spaces in Unicode's usual spelling, or None for what is none. No control characters:
    they could write over a terminal. Marks of a writing direction are left out: they would turn a board's line round,
    and a record that an older course wrote may have one."""
    if not isinstance(name, str) or len(name) > 4 * MAX_NAME:
        return None
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return None
    name = " ".join(unicodedata.normalize("NFC", TURNS.sub("", name)).split())
    return name if 0 < len(name) <= MAX_NAME else None
