"""Which chapters a file is made of, read from the imports of the code, and a table of it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from html import escape

from soralab.figures.diagrams import NOTEBOOKS
from soralab.figures.syllabus import CHAPTERS

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


@dataclass(frozen=True)
class Plan:
    """What files take from which chapters, a table: chapters from top to bottom, files from left to right.

    files: {path: what it is}; taken: {path: `chapters_of` it}. As a cell's last line it is shown.
    """

    files: Mapping[str, str]
    taken: Mapping[str, Mapping[int, list[str]]]

    def __repr__(self) -> str:
        says = (f"{path} takes from " + "; ".join(f"chapter {number:02d} {', '.join(names)}"
                for number, names in chapters.items()) for path, chapters in self.taken.items())  # fmt: skip
        return ". ".join(says) + "."

    def html(self) -> str:
        """The table as HTML without script or style; JupyterLab sets cells to the right, hence the inner boxes."""
        rows = [["", *(f"{escape(says)}<br>{_path(path)}" for path, says in self.files.items())]]
        for number in sorted({number for chapters in self.taken.values() for number in chapters}):
            names = (self.taken[path].get(number, []) for path in self.files)
            cells = (", ".join(f"<code>{name}</code>" for name in each) for each in names)
            rows.append([f"{number:02d} · {escape(CHAPTERS[number].title)}", *cells])
        lines = ("".join(_cell("th" if not (row and column) else "td", text) for column, text in enumerate(texts))
                 for row, texts in enumerate(rows))  # fmt: skip
        return "<table>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html(), "text/plain": repr(self)}


def _path(path: str) -> str:
    """A path whose folders stand below each other, so that a column is as narrow as its names."""
    return "<br>".join(f"<code>{escape(part)}</code>" for part in re.findall("[^/]+/?", path))


def _cell(tag: str, text: str) -> str:
    return f'<{tag}><div align="left">{text}</div></{tag}>' if text else f"<{tag}></{tag}>"


def made_of(files: Mapping[str, str]) -> Plan:
    """The plan of some files: the chapters that they are made of, and what is taken from each.

    files: {path in the clone: what it is}. Raises FileNotFoundError for a file that there is none of,
    ValueError for no files.
    """
    if not files:
        raise ValueError("files: got none, takes {path in the clone: what it is}")
    return Plan(files, {path: chapters_of(path) for path in files})
