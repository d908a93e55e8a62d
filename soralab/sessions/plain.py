"""Markdown as plain text for a terminal: paragraphs wrapped, tables in columns, folded answers unfolded."""

from __future__ import annotations

import re
import textwrap

from soralab.sessions.formulas import readable

WIDTH = 96


def outside_fences(text: str, place: int) -> bool:
    """Whether the letter at `place` is outside every fenced block."""
    return len(re.findall(r"^```", text[:place], re.M)) % 2 == 0


def table(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, its head first; the rule below the head is left out."""
    rows = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                rows.append(cells)
        elif rows:
            break
    return rows


def plain(text: str, width: int = WIDTH) -> str:
    """Markdown `text` to be read in a terminal of `width` columns. Fenced blocks stay as they are."""
    out: list[str] = []
    indent = ""
    for block in _blocks(text):
        if block.startswith("```"):
            out.append(textwrap.indent("\n".join(block.splitlines()[1:-1]), "    "))
        elif block.startswith("<details"):
            summary = re.search(r"<summary>(.*?)</summary>", block)
            out.append(f"{summary.group(1) if summary else 'Answer'}:")
            indent = "    "
        elif block.startswith("</details"):
            indent = ""
        elif block.startswith("|"):
            out.append(_columns(table(block), width))
        else:
            out += [textwrap.indent(part, indent) for part in _paragraph(block, width - len(indent))]
    return "\n\n".join(part for part in out if part)


def _blocks(text: str) -> list[str]:
    """The text cut at empty lines, around fences and around <details>; list items and headings apart."""
    pieces = re.split(r"(^```.*?^```[^\n]*$|<details>\s*<summary>.*?</summary>|</details>)", text, flags=re.M | re.S)
    blocks = []
    for piece in pieces:
        if piece.startswith("```"):
            blocks.append(piece)
        else:
            blocks += [part.strip() for part in re.split(r"\n\s*\n|(?=^#+ )", piece, flags=re.M) if part.strip()]
    return blocks


def _paragraph(block: str, width: int) -> list[str]:
    """A heading, the items of a list as one part, or a wrapped paragraph."""
    if block.startswith("#"):
        head, _, rest = block.partition("\n")
        return [_words(head.lstrip("# ")), *(_paragraph(rest.strip(), width) if rest.strip() else [])]
    if block.startswith("$$"):
        return [textwrap.indent(readable(block.strip("$").strip()), "    ")]
    items = re.split(r"^(?=(?:[-*]|\d+\.) )", block, flags=re.M)
    if len(items) > 1:
        items = [" ".join(_words(item).split()) for item in items if item.strip()]
        return ["\n".join(textwrap.fill(item, width, subsequent_indent="  ") for item in items)]
    return [textwrap.fill(" ".join(_words(block).split()), width)]


def _words(text: str) -> str:
    """Without the marks for bold, slanted and code; a link as its words and its address."""
    kept = re.split(r"(`[^`]*`|\$[^$]*\$)", text)
    for i in range(0, len(kept), 2):  # code and formulas keep their stars
        part = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1 (\2)", kept[i])
        part = re.sub(r"\*\*(.+?)\*\*", r"\1", part, flags=re.S)
        kept[i] = re.sub(r"(?<![\w*])\*(?!\s)(.+?)(?<!\s)\*(?![\w*])", r"\1", part, flags=re.S)
    return "".join(_letters(part) for part in kept)


def _letters(part: str) -> str:
    """Code without its marks, a formula in plain letters, other text as it is."""
    if part.startswith("`"):
        return part[1:-1]
    return readable(part.strip("$")) if re.fullmatch(r"\$[^$]+\$", part) else part


def _columns(rows: list[list[str]], width: int) -> str:
    """A table in columns; where it is too wide, its widest column is wrapped."""
    count = max(map(len, rows))
    rows = [[_words(cell) for cell in [*row, *[""] * count][:count]] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(count)]
    while sum(widths) + 3 * (count - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for number, row in enumerate(rows):
        wrapped = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for k in range(max(map(len, wrapped))):
            cells = [part[k] if k < len(part) else "" for part in wrapped]
            lines.append("   ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip())
        if number == 0:
            lines.append("   ".join("-" * size for size in widths))
    return "\n".join(lines)
