"""Bring the course's notebooks into the form that all of them share, without running them.

    python notebooks/normalise.py                     every notebook
    python notebooks/normalise.py 00 16               the chapters of these numbers

Code that only draws (tag `hide-input`) is folded in JupyterLab as on slides. Every notebook has a line of links,
previous · map · next, under its title and at its end, and "chapter 06" leads to that chapter where there is one. The
title card says the exercises' minutes, summed from the exercises, and the peak memory; a cell that takes more than 20
seconds is announced. Both come from the last execution (`execute.py`), which notes them in the notebook's metadata.
A second call changes nothing; tests/test_pages.py asks every notebook for it.
"""
import re
import sys
from pathlib import Path

from nbformat.v4 import new_markdown_cell

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
sys.path[:0] = [str(FOLDER), str(ROOT)]

from soralab.figures.syllabus import CHAPTERS  # noqa: E402
from soralab.files.atomic import atomic_write  # noqa: E402
from soralab.files.notebooks import clean  # noqa: E402

NAVIGATION = "navigation"                 # the tag of the cells of links
# Where "chapter 06" is not prose: code, formulas, links, headings and summaries.
KEPT = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|\[[^\]]*\]\([^)\n]*\)|^#[^\n]*|<summary>.*?</summary>",
                  re.S | re.M)
MENTION = re.compile(r"\b(?P<word>[Cc]hapter )(?P<one>\d\d?)\b"
                     r"|\b[Cc]hapters (?P<list>\d\d?(?:(?:, |,? and |,? or |–| to )\d\d?)*)\b")
ANNOUNCED = re.compile(r"\n\n\*The next cell takes about [^*\n]*\*$")
TIMED = re.compile(r"\b(?:seconds?|minutes?)\b")
GENERATED = re.compile(r"\*\*(?:Exercises|Memory)\*\* [^*]*?(?=\*\*)")


def find(numbers: list[str], folder: Path = FOLDER) -> list[Path]:
    """The notebooks of these chapter numbers ("16", "7"), or all. Raises ValueError for an unknown number."""
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not numbers:
        return notebooks
    by_number = {path.name[:2]: path for path in notebooks}
    missing = [n for n in numbers if n.zfill(2) not in by_number]
    if missing:
        there = ", ".join(by_number) or "none"
        raise ValueError(f"numbers: no notebook has {', '.join(missing)}; there are {there}")
    return [by_number[n.zfill(2)] for n in numbers]


def there(folder: Path = FOLDER) -> dict[int, str]:
    """The chapters that have a notebook: {6: "06_latent_diffusion.ipynb"}."""
    return {int(path.name[:2]): path.name for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}


def normalise(nb, number: int, chapters: dict[int, str], minutes: int = 0) -> None:
    """Bring the notebook of chapter `number` into form. minutes: what its exercises take together."""
    clean(nb)
    fold(nb)
    navigate(nb, number, chapters)
    title_card(nb, minutes)
    announce(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown" and NAVIGATION not in cell.metadata.get("tags", []):
            cell.source = link(cell.source, number, chapters)


def fold(nb) -> None:
    """Fold in JupyterLab what the tag `hide-input` folds on slides and pages, and nothing else."""
    for cell in nb.cells:
        jupyter = cell.metadata.pop("jupyter", {})
        jupyter.pop("source_hidden", None)
        if "hide-input" in cell.metadata.get("tags", []):
            jupyter["source_hidden"] = True
        if jupyter:
            cell.metadata["jupyter"] = jupyter


def navigate(nb, number: int, chapters: dict[int, str]) -> None:
    """The line of links as the second and as the last cell."""
    nb.cells = [cell for cell in nb.cells if NAVIGATION not in cell.metadata.get("tags", [])]
    line = links(number, chapters)
    for place, name in ((1, "way-above"), (len(nb.cells) + 1, "way-below")):
        nb.cells.insert(place, new_markdown_cell(line, id=name, metadata={"tags": [NAVIGATION]}))


def links(number: int, chapters: dict[int, str]) -> str:
    """Previous · map · next, of the chapters that there are."""
    before = max((n for n in chapters if 0 < n < number), default=None)
    after = min((n for n in chapters if n > number), default=None)
    parts = []
    if before is not None:
        parts.append(f"← [{before:02d} · {CHAPTERS[before].title}]({chapters[before]})")
    if number:
        parts.append(f"[the map]({chapters.get(0, '00_road_to_sora.ipynb')})")
    if after is not None:
        parts.append(f"[{after:02d} · {CHAPTERS[after].title}]({chapters[after]}) →")
    return " · ".join(parts)


def link(text: str, number: int, chapters: dict[int, str]) -> str:
    """Text in which "chapter 06" leads to that chapter's notebook, unless it is chapter `number` itself."""

    def to(words: str, name: str) -> str:
        target = chapters.get(int(name))
        return f"[{words}]({target})" if target and int(name) != number else words

    def linked(mention: re.Match) -> str:
        if mention["one"]:
            return to(mention.group(), mention["one"])
        names = re.sub(r"\d\d?", lambda name: to(name.group(), name.group()), mention["list"])
        return mention.group().replace(mention["list"], names)

    pieces, end = [], 0
    for kept in KEPT.finditer(text):
        pieces += [MENTION.sub(linked, text[end: kept.start()]), kept.group()]
        end = kept.end()
    return "".join([*pieces, MENTION.sub(linked, text[end:])])


def title_card(nb, minutes: int) -> None:
    """On the title card, before what the reader needs, the exercises' minutes and the memory."""
    says = [f"**Exercises** {minutes} minutes. "] if minutes else []
    peak = nb.metadata.get("soralab", {}).get("peak_gb")
    if peak:
        says.append(f"**Memory** {peak:.1f} GB. ")
    card = GENERATED.sub("", nb.cells[0].source)
    nb.cells[0].source = card.replace("**You need**", "".join(says) + "**You need**", 1)


def announce(nb) -> None:
    """Before a cell whose seconds were noted as many, say how long, unless the text there does."""
    seconds = nb.metadata.get("soralab", {}).get("seconds", {})
    nb.cells = [cell for cell in nb.cells if not cell.id.endswith("-takes")]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = ANNOUNCED.sub("", cell.source)
    for before, cell in list(zip(nb.cells, nb.cells[1:], strict=False)):
        if cell.id not in seconds:
            continue
        text = f"*The next cell takes about {duration(seconds[cell.id])} on two CPU cores.*"
        if before.cell_type != "markdown":
            nb.cells.insert(nb.cells.index(cell), new_markdown_cell(text, id=f"{cell.id[:58]}-takes"))
        elif not TIMED.search(before.source):
            before.source += f"\n\n{text}"


def duration(seconds: float) -> str:
    """Seconds as one says them: half a minute, a minute, 3 minutes."""
    if seconds < 40:
        return "half a minute"
    return "a minute" if seconds < 90 else f"{round(seconds / 60)} minutes"


def exercise_minutes(name: str) -> int:
    """What a chapter's exercises take together, by their own account; 0 where it has none."""
    from soralab.exercises import exercises

    try:
        return sum(task.minutes for task in exercises(name))
    except ValueError:                    # the chapter has no exercises
        return 0


def normalised(path: Path) -> str:
    """The text of the notebook at `path` in its normal form."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    number, name = int(path.name[:2]), path.stem[3:]
    normalise(nb, number, there(path.parent), exercise_minutes(name))
    nbformat.validate(nb)
    return nbformat.writes(nb) + "\n"


def store(path: Path, text: str) -> None:
    """Write a notebook whole or not at all. Raises OSError of one clear sentence where it cannot be written."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def main(numbers: list[str]) -> int:
    """The command line: see the top of this file."""
    try:
        paths = find(numbers)
    except ValueError as error:
        print(f"normalise: {error}", file=sys.stderr)
        return 2
    for path in paths:
        text = normalised(path)
        if text != path.read_text(encoding="utf-8"):
            store(path, text)
            print(f"{path.name}: changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
