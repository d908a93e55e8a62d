"""Which chapters a file is made of, read from the imports of the code, and the plan of it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from textwrap import wrap

import matplotlib

from soralab.figures import style
from soralab.figures.diagrams import NOTEBOOKS
from soralab.figures.pictures import Picture, picture
from soralab.figures.shapes import Box, badge, frame, ribbon, tint, word
from soralab.figures.syllabus import CHAPTERS, PARTS

ROOT = NOTEBOOKS.parent
OWN = {f"soralab.{chapter.name}": chapter.number for chapter in CHAPTERS}  # a chapter's own file
SHARED = {"soralab.blocks", "soralab.diffusion", "soralab.kernels"}  # what several chapters work with
MADE = {"soralab.kernels": 17, "soralab.blocks.dit": 16}  # by these chapters, whoever is the first to use them


def imported(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of all that a source imports from the package. Raises SyntaxError for what is no Python."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("soralab."):
            yield from ((node.module, alias.name) for alias in node.names)


def room(module: str) -> str:
    """Such as soralab.blocks, with all that is in it."""
    return ".".join(module.split(".")[:2])


@lru_cache(maxsize=1)
def first_uses() -> dict[tuple[str, str], int]:
    """{(room, name): the first chapter whose file or page imports it}."""
    found: dict[tuple[str, str], int] = {}
    for chapter in CHAPTERS[1:]:
        own = ROOT / "soralab" / f"{chapter.name}.py"
        sources = [own.read_text(encoding="utf-8")] if own.exists() else []
        for page in NOTEBOOKS.glob(f"{chapter.number:02d}_*.ipynb"):
            cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
            sources += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        for source in sources:
            for module, name in imported(source):
                found.setdefault((room(module), name), chapter.number)
    return found


def chapters_of(path: str) -> dict[int, list[str]]:
    """{chapter: the names that a file of the clone takes from it}, in the chapters' order.

    A name of a chapter's own file is that chapter's. One that several work with is the first's whose file or page
    imports it, and of what is in `MADE` that chapter's as well. A file's own chapter is left out.
    """
    here = (ROOT / path).stem
    found: dict[int, set[str]] = {}
    for module, name in imported((ROOT / path).read_text(encoding="utf-8")):
        of = {OWN.get(room(module)), first_uses().get((room(module), name)) if room(module) in SHARED else None}
        of |= {chapter for made, chapter in MADE.items() if f"{module}.".startswith(f"{made}.")}
        for number in of - {None, OWN.get(f"soralab.{here}")}:
            found.setdefault(number, set()).add(name)
    return {number: sorted(found[number], key=str.lower) for number in sorted(found)}


def made_of(files: Mapping[str, str], alt: str | None = None) -> Picture:
    """The plan of some files: the chapters that they are made of on the left, each with what is taken from it.

    files: {path in the clone: what it is}. Raises FileNotFoundError for a file that there is none of,
    ValueError for no files.
    """
    if not files:
        raise ValueError("files: got none, takes {path in the clone: what it is}")
    taken = {path: chapters_of(path) for path in files}
    if alt is None:
        says = (f"{path} takes from " + "; ".join(f"chapter {number:02d} {', '.join(names)}"
                for number, names in chapters.items()) for path, chapters in taken.items())  # fmt: skip
        alt = "Chapters, and the files that are made of them, read from the imports. " + ". ".join(says) + "."
    return picture(_draw(files, taken), alt, colours=24)


@matplotlib.rc_context(style.STYLE)
def _draw(files: Mapping[str, str], taken: Mapping[str, Mapping[int, list[str]]]):
    numbers = sorted({number for chapters in taken.values() for number in chapters})
    names = {n: sorted({name for chapters in taken.values() for name in chapters.get(n, [])}, key=str.lower)
             for n in numbers}  # fmt: skip
    lines = {n: wrap(", ".join(names[n]), 62) for n in numbers}
    tall = {n: 30 + 13 * len(lines[n]) for n in numbers}
    height = sum(tall.values()) + 8 * len(numbers) + 12
    fig, axes = style.drawing(900, height)
    y, boxes = height - 6, {}
    for n in numbers:
        y -= tall[n] + 8
        boxes[n] = box = Box(14, y + 4, 432, tall[n])
        chapter, top = CHAPTERS[n], box.y + box.height
        colour = PARTS.get(chapter.feeds, style.INK)
        frame(axes, box, "white", colour, 1.4)
        badge(axes, (box.x + 19, box.y + box.height / 2), n, colour)
        word(axes, box.x + 39, top - 14, chapter.title, 10, ha="left", weight="bold")
        for k, line in enumerate(lines[n]):
            word(axes, box.x + 39, top - 31 - 13 * k, line, 8, style.MUTED, "left", family="monospace")
    each = height / len(files)
    for k, (path, says) in enumerate(files.items()):
        box = Box(620, height - each * (k + 0.5) - 33, 266, 66)
        frame(axes, box, tint(style.INK, 0.05), style.INK, 1.6)
        word(axes, box.x + 133, box.y + 43, style.plain(says), 10, weight="bold")
        word(axes, box.x + 133, box.y + 22, path, 8, style.MUTED, family="monospace")
        for place, n in enumerate(taken[path]):
            end = (box.x, box.y + box.height * (len(taken[path]) - place) / (len(taken[path]) + 1))
            ribbon(axes, boxes[n].right, end, PARTS.get(CHAPTERS[n].feeds, style.INK), 1.7, 0.8)
    return fig
