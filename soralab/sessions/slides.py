"""Slides from the notebooks: one file a deck, which opens by a double click and needs no network.

What goes on a slide is said in the notebook itself, by JupyterLab's own field (Property Inspector, Slide Type, stored
as `metadata.slideshow.slide_type`):

    slide       begins a slide, to the right of the last one
    subslide    begins a slide below the last one
    fragment    comes onto the slide that is open, at the next key press
    notes       goes into the speaker's window (key S) of the slide that is open
    skip, none  is not shown

The pages are reveal.js, the formulas KaTeX; both lie in `static/` with their licences and are copied into each deck,
as are the pictures and films. `?print-pdf` behind the address gives pages for printing.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from soralab.sessions import NOTEBOOKS, chosen, numbered
from soralab.sessions.cells import STATIC, cell_html, code_css, markdown_html

SHOWN = ("slide", "subslide", "fragment")


@dataclass
class Slide:
    """One slide. parts: [(HTML, whether it waits for a key press)]; notes: HTML for the speaker alone.

    running: the heading that it stands under, where it has none of its own.
    """

    name: str
    parts: list[tuple[str, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    running: str = ""


def build(numbers: Iterable[int], folder: str | Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write the decks of these chapters into `folder` as NN_name.html; return their paths.

    numbers: none means every notebook that has slides. Nothing is written unless every deck can be made. Raises
    ValueError for an unknown number, a notebook without slides and a cell that cannot be shown, OSError of one
    sentence where `folder` cannot be written.
    """
    from soralab.files.atomic import atomic_write, make_folder

    numbers, there = list(dict.fromkeys(numbers)), numbered(Path(notebooks), ".ipynb")
    paths = [chosen(there, number, "numbers") for number in numbers] or list(there.values())
    read = {path: _read(path) for path in paths}
    if not numbers:
        read = {path: nb for path, nb in read.items() if any(map(slide_type, nb.cells))}
        if not read:
            raise ValueError(f"numbers: no notebook in {notebooks} has a cell with a Slide Type, so none has slides")
    decks = {f"{path.stem}.html": deck(nb, path) for path, nb in read.items()}
    folder, written = make_folder(folder), []
    for name, html in decks.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(html, encoding="utf-8", newline="\n")
        written.append(folder / name)
    return written


def slide_type(cell) -> str:
    """A cell's Slide Type, "" where it is not shown ("skip" and "-" among them)."""
    kind = cell.metadata.get("slideshow", {}).get("slide_type", "")
    return "" if kind in ("skip", "-") else kind


def columns(nb, path: Path) -> list[list[Slide]]:
    """The slides of a notebook: columns from left to right, each with its slides from top to bottom.

    Raises ValueError, naming the cell, for a Slide Type that there is not, notes before the first slide, and a cell
    that cannot be shown.
    """
    found: list[list[Slide]] = []
    heading: list[str] = []  # the one that stands above a cell; a slide without its own has it small
    for index, cell in enumerate(nb.cells):
        kind = slide_type(cell)
        under, heading = heading, headings(cell)[-1:] or heading
        if not kind:
            continue
        where = f"{path.name}, cell {index}"
        if kind not in (*SHOWN, "notes"):
            raise ValueError(f"{where}: slide_type is {kind!r}; it takes {', '.join(SHOWN)}, notes or skip")
        if kind == "notes" and not found:
            raise ValueError(f"{where}: notes before the first slide")
        try:
            html = cell_html(cell, path.parent)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if not html.strip():
            raise ValueError(f"{where}: nothing to show, it hides its code and has no output: run the notebook first")
        if kind == "slide" or not found:
            found.append([Slide(cell.get("id") or f"cell-{index}")])
        elif kind == "subslide":
            found[-1].append(Slide(cell.get("id") or f"cell-{index}"))
        slide = found[-1][-1]
        if kind != "notes" and not slide.parts and under and not headings(cell):
            slide.running = inline_html(under[0])
        if kind == "notes":
            slide.notes.append(html)
        else:
            slide.parts.append((html, kind == "fragment"))
    return found


def headings(cell) -> list[str]:
    """The headings in a cell's text, of any level, without their marks."""
    text = re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S) if cell.cell_type == "markdown" else ""
    return re.findall(r"^#{1,6} +(.+?) *$", text, re.M)


def inline_html(text: str) -> str:
    """A line of Markdown as HTML, without a paragraph round it."""
    return re.sub(r"</?p>", "", markdown_html(text, STATIC)).strip()


def deck(nb, path: Path) -> str:
    """The whole deck of a notebook as one HTML page. Raises ValueError where no cell has a Slide Type."""
    found = columns(nb, path)
    if not found:
        raise ValueError(f"{path.name} has no slides: no cell of it has a Slide Type (JupyterLab, Property Inspector)")
    title = title_of(nb, path)
    slides = "\n".join(_column(column) for column in found)
    code = {name: _script(name) for name in ("reveal.js", "notes.js", "katex.min.js", "deck.js")}
    scripts = "\n".join(f"<script>{text}</script>" for text in code.values())
    styles = "\n".join([_style("reveal.css"), _katex_css(), code_css(), _style("deck.css")])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{styles}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<div class="foot">{escape(title)}</div>
{scripts}
</body>
</html>
"""


def title_of(nb, path: Path) -> str:
    """The notebook's first heading, or the file's name."""
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    found = re.search(r"^# +(.+)$", text, re.M)
    return found.group(1).strip() if found else path.stem


def _column(column: list[Slide]) -> str:
    slides = "\n".join(_section(slide) for slide in column)
    return slides if len(column) == 1 else f"<section>\n{slides}\n</section>"


def _section(slide: Slide) -> str:
    """One page. deck.css needs to know: does it begin with a heading, which cells show a picture, which wait?"""
    titled = " titled" if re.match(r"\s*<h[23]\b", slide.parts[0][0]) else ""
    lines = [f'<section id="{escape(slide.name)}"><div class="page{titled}">']
    if slide.running:
        lines.append(f'<h3 class="running">{slide.running}</h3>')
    for html, waits in slide.parts:
        seen = " seen" if 'class="picture"' in html else ""
        lines.append(f'<div class="cell{seen}{" fragment" if waits else ""}">\n{html}\n</div>')
    lines += [f'<aside class="notes">\n{html}\n</aside>' for html in slide.notes]
    return "\n".join([*lines, "</div></section>"])


def _read(path: Path):
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a notebook: {str(error)[:80]}") from error


@functools.cache
def _script(name: str) -> str:
    """A script of static/, fit to stand between <script> tags."""
    text = (STATIC / name).read_text(encoding="utf-8")
    text = re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.M)  # a browser would look for that file
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _style(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@functools.cache
def _katex_css() -> str:
    """KaTeX's style with its fonts inside; the fonts that static/ leaves out are left out here as well."""

    def inside(rule: re.Match) -> str:
        name = re.search(r"fonts/([\w-]+\.woff2)", rule.group()).group(1)
        if not (STATIC / "fonts" / name).exists():
            return ""
        font = base64.b64encode((STATIC / "fonts" / name).read_bytes()).decode()
        return re.sub(r"src:[^}]*", f'src:url(data:font/woff2;base64,{font}) format("woff2")', rule.group())

    return re.sub(r"@font-face\{[^}]*\}", inside, _style("katex.min.css"))
