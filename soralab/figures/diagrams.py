"""The course's map and the plan of Sora's parts, drawn from the syllabus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.patches import Circle, Polygon, Rectangle

from soralab.figures import style
from soralab.figures.pictures import Picture, picture
from soralab.figures.shapes import Box, arrow, badge, frame, ribbon, tint, word
from soralab.figures.syllabus import BACKGROUND, CHAPTERS, FINAL, LANGUAGE, PARTS, VIDEO, Chapter

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LIT = "#FFE3A3"  # the ground of "you are here": light enough for ink on it


def road_map(here: int | None = None, available: Iterable[int] | None = None, alt: str | None = None) -> Picture:
    """The course's map: chapters 00 to 17 by group, and the part of Sora that each feeds.

    here: the number of the chapter that the reader is in, lit. available: numbers of the chapters that are
    there already (default: those with a notebook in this clone); the others are drawn lighter, with a broken edge.
    `here` counts as available.
    Raises ValueError for a number that is no chapter.
    """
    numbers = {chapter.number for chapter in CHAPTERS}
    available = written() if available is None else set(available)
    wrong = ({here} if here is not None else set()) | available
    if not wrong <= numbers:
        raise ValueError(f"here, available: got {sorted(wrong - numbers, key=str)}, takes chapters from 0 to 17")
    if alt is None:
        where = f" You are in chapter {here:02d}, {CHAPTERS[here].title}." if here is not None else ""
        alt = (
            "Map of the course: background papers 01 to 07, video generation 08 to 11, language and video "
            f"12 to 15, each leading to the part of Sora that it feeds, and Sora itself in 16 and 17.{where}"
        )
    return picture(_draw_map(here, available | {here}), alt)


def written() -> set[int]:
    """The numbers of the chapters that have a notebook in this clone."""
    return {c.number for c in CHAPTERS if (NOTEBOOKS / f"{c.number:02d}_{c.name}.ipynb").is_file()}


def _map_boxes() -> dict[int, Box]:
    """Where each chapter's box stands on the 900 x 768 map: 00 on top, 01-15 below it by group, 16 and 17
    right."""
    boxes, y, group = {0: Box(20, 718, 312, 32)}, 718, "the map"
    for chapter in CHAPTERS[1:16]:
        y -= 39 + (27 if chapter.group != group else 0)
        group = chapter.group
        boxes[chapter.number] = Box(20, y, 312, 32)
    return boxes | {16: Box(704, 388, 164, 32), 17: Box(704, 306, 164, 32)}


def _chapter_box(axes, chapter: Chapter, box: Box, there: bool, here: bool):
    colour = PARTS.get(chapter.feeds, style.INK)
    edge = style.INK if here else colour if there else style.FAINT
    frame(axes, box, LIT if here else "white" if there else style.PAPER, edge, 2.4 if here else 1.4, not there)
    middle = box.y + box.height / 2
    badge(axes, (box.x + 19, middle), chapter.number, colour, 0.85 if there else 0.3)
    word(axes, box.x + 39, middle, chapter.title, colour=style.INK if there else style.MUTED, ha="left")
    inside = chapter.group != FINAL  # Sora's own boxes are narrow and have their notes below
    x, y = (box.x + box.width - 9, middle) if inside else (box.x + box.width, box.y - 13)
    if here:
        word(axes, x, y, "you are here", 8, "#A84300", ha="right", weight="bold")
    elif not inside:
        says = "puts the parts together" if chapter.number == 16 else "makes its attention fast"
        word(axes, x, y, says, 8, style.MUTED, ha="right")


@matplotlib.rc_context(style.STYLE)
def _draw_map(here: int | None, available: set):
    fig, axes = style.drawing(900, 768)
    boxes = _map_boxes()
    for group in (BACKGROUND, VIDEO, LANGUAGE):
        box = boxes[next(c.number for c in CHAPTERS if c.group == group)]
        word(axes, box.x, box.y + box.height + 8, group, 9.5, style.MUTED, "left", "baseline", style="italic")
    sora = Box(692, 264, 188, 204)
    frame(axes, sora, tint(style.INK, 0.05), style.INK, 1.6, rounding=10, zorder=0)
    word(axes, 786, 442, "Sora", 14, weight="bold")
    for chapter in CHAPTERS:
        there, own = chapter.number in available, chapter.number == here
        _chapter_box(axes, chapter, boxes[chapter.number], there, own)

    tall, low, high = 46, 50, 634
    everything = here in (None, 0, 16, 17)  # from these chapters one looks at the whole map
    for number, (part, colour) in enumerate(PARTS.items()):
        box = Box(434, high - number * (high - low) / (len(PARTS) - 1), 192, tall)
        chapters = [c for c in CHAPTERS if c.feeds == part]
        lit = everything or here in {c.number for c in chapters}
        frame(axes, box, tint(colour), colour, 1.8)
        word(axes, box.x + box.width / 2, box.y + tall / 2, part, weight="bold")
        for place, chapter in enumerate(chapters):
            end = (box.x, box.y + tall * (len(chapters) - place) / (len(chapters) + 1))
            own = chapter.number == here
            shade = (0.95 if chapter.number in available else 0.5) if everything or own else 0.25
            ribbon(axes, boxes[chapter.number].right, end, colour, 3 if own else 1.7, shade)
        entry = (sora.x, sora.y + sora.height * (len(PARTS) - number) / (len(PARTS) + 1))
        ribbon(axes, box.right, entry, colour, 3 if lit and not everything else 2, 0.95 if lit else 0.25)
    if len(available) < len(CHAPTERS):
        word(axes, 880, 734, "solid: ready     broken edge: to come", 8.5, style.MUTED, ha="right")
    return fig


def sora_parts(alt: str | None = None) -> Picture:
    """The plan of Sora's parts, from prompt and film to film, each with the numbers of the chapters that
    build it."""
    if alt is None:
        alt = (
            "Plan of Sora. A prompt is lengthened by recaptioning (chapter 12) and read by the text encoder "
            "(02, 04). While it learns, a film is compressed by an encoder (05, 06, 11) and noise is added "
            "(06). The noisy latents are cut into spacetime patches (03, 07, 08); the diffusion transformer "
            "(16; attention kernels 17), told by the text, predicts what is noise; steps with guidance "
            "(06, 09) remove a little of it, again and again. A decoder (05, 06, 10) turns the clean latents "
            "into a film."
        )
    return picture(_draw_parts(), alt)


@matplotlib.rc_context(style.STYLE)
def _draw_parts():
    fig, axes = style.drawing(900, 452)
    prompt, recaption, text = Box(14, 366, 168, 58), Box(250, 350, 150, 90), Box(510, 350, 150, 90)
    encoder, patches, network = Box(118, 160, 134, 130), Box(330, 170, 128, 110), Box(510, 155, 150, 140)
    decoder, noise, steps = Box(686, 160, 104, 130), Box(258, 20, 66, 66), Box(510, 14, 150, 90)
    frame(axes, prompt, "white", style.FAINT, 1.4)
    word(
        axes,
        98,
        395,
        "“a small red circle\nslides right”",
        9.5,
        va="center",
        style="italic",
        linespacing=1.35,
    )
    _part(axes, recaption, "Recaptioning", (12,), "captions")
    _part(axes, text, "Text encoder", (2, 4), "text encoder")
    _part(axes, encoder, "Compression\nnetwork:\nencoder", (5, 6, 11), "compression network", narrow="right")
    _part(axes, patches, "Spacetime\npatches", (3, 7, 8), "spacetime patches")
    _part(axes, network, "Diffusion\ntransformer", (16, 17), "denoising network")
    word(axes, 585, 172, "17: its attention kernels", 8, style.MUTED)
    _part(axes, decoder, "Decoder", (5, 6, 10), "compression network", narrow="left")
    _part(axes, steps, "Steps and\nguidance", (6, 9), "steps and guidance")
    _noise_icon(axes, noise)
    _film_icon(axes, 14, 192)
    _film_icon(axes, 818, 192)

    axes.add_patch(Circle((291, 225), 11, facecolor="white", edgecolor=style.MUTED, linewidth=1.4, zorder=3))
    word(axes, 291, 225, "+", 13)
    arrow(axes, (90, 225), encoder.left, dashed=True)
    arrow(axes, encoder.right, (280, 225), dashed=True)
    arrow(axes, noise.top, (291, 214))
    badge(axes, (291, 150), 6, PARTS["steps and guidance"])
    arrow(axes, (302, 225), patches.left)
    for one, next_one in ((patches, network), (network, decoder), (prompt, recaption), (recaption, text)):
        arrow(axes, one.right, next_one.left)
    arrow(axes, decoder.right, (818, 225))
    arrow(axes, text.bottom, network.top)
    arrow(axes, network.bottom, steps.top)
    arrow(axes, steps.left, (394, 59), patches.bottom)
    arrow(axes, (700, 58), (736, 58), dashed=True)
    _notes(axes)
    return fig


def _notes(axes):
    """What passes along the plan's arrows."""
    for x, y, text, ha, va in (
        (50, 172, "a film", "center", "top"),
        (854, 172, "a new film", "center", "top"),
        (455, 404, "a long caption", "center", "bottom"),
        (595, 325, "tokens of text", "left", "center"),
        (595, 129, "what it takes for noise", "left", "center"),
        (452, 66, "a little cleaner,", "center", "bottom"),
        (452, 51, "and again", "center", "top"),
        (248, 53, "noise: where\nevery new film\nbegins", "right", "center"),
        (744, 58, "only while it learns,\nor edits a film", "left", "center"),
    ):
        word(axes, x, y, text, 8.5, style.MUTED, ha, va, linespacing=1.3)


def _part(axes, box: Box, title: str, chapters: tuple[int, ...], part: str, narrow: str = ""):
    """A part's box, or a funnel that is narrow on one side, with its title above the numbers of its
    chapters."""
    colour, (x, y) = PARTS[part], (box.x, box.y)
    if narrow:
        left, right = (0, 18) if narrow == "right" else (18, 0)
        corners = [
            (x, y + left),
            (x, y + box.height - left),
            (x + box.width, y + box.height - right),
            (x + box.width, y + right),
        ]
        axes.add_patch(
            Polygon(corners, facecolor=tint(colour), edgecolor=colour, linewidth=1.8, joinstyle="round", zorder=2)
        )
    else:
        frame(axes, box, tint(colour), colour, 1.8)
    lines, centre = title.count("\n") + 1, box.left[1]
    word(axes, x + box.width / 2, centre + 15, title, 10.5, va="center", weight="bold", linespacing=1.25)
    for place, number in enumerate(chapters):
        spot = (x + box.width / 2 + (place - (len(chapters) - 1) / 2) * 28, centre - 8 - 9 * lines)
        badge(axes, spot, number, colour)


def _film_icon(axes, x: float, y: float):
    """Three frames of a film, one behind another, with a disc that moves."""
    for back in (2, 1, 0):
        left, low = x + 11 * back, y + 11 * back
        axes.add_patch(
            Rectangle(
                (left, low),
                48,
                48,
                facecolor="#111418",
                edgecolor=style.PAPER,
                linewidth=1.5,
                zorder=5 - back,
            )
        )
        axes.add_patch(
            Circle(
                (left + 12 + 12 * (2 - back), low + 36 - 10 * (2 - back)),
                7,
                color=style.VERMILLION,
                linewidth=0,
                zorder=5 - back,
            )
        )


def _noise_icon(axes, box: Box):
    """Grey squares without a pattern, the same in every drawing."""
    cells, state = 11, 1
    for cell in range(cells * cells):
        state = state * 16807 % 2147483647
        corner = (box.x + cell % cells * box.width / cells, box.y + cell // cells * box.height / cells)
        grey = 0.1 + 0.8 * state / 2147483647
        axes.add_patch(Rectangle(corner, box.width / cells, box.height / cells, color=str(grey), linewidth=0))
