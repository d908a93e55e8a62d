"""A notebook's cell as HTML for a slide, with everything that it shows inside it: nothing is fetched to see it.

Formulas stay LaTeX in `<span class="math">` and are set by KaTeX when the slides open; what KaTeX would not know is
refused here, so that no slide shows a formula in red.
"""

from __future__ import annotations

import base64
import functools
import itertools
import mimetypes
import re
from html import escape
from pathlib import Path

STATIC = Path(__file__).with_name("static")
PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")
BARE_REPR = re.compile(r"<[^<>]*>")  # <Figure size 600x400 with 1 Axes>: no description
OURS = re.compile(r'<img alt=|<details name="film-|<div id="film-')  # how soralab.figures begins
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# What would make a browser fetch something. A link that a reader may follow is another matter.
FETCHES = re.compile(
    r"<(?:script|link|iframe|object|embed|base)\b"
    r"|\b(?:src|srcset|poster|data|xlink:href)\s*=\s*[\"']?(?!data:)[^\"'\s>]"
    r"|url\(\s*[\"']?(?!data:|#)|@import", re.I)


def tags(cell) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def cell_html(cell, folder: Path) -> str:
    """A cell as HTML: its text, or its code (not with the tag `hide-input`) and what came out (`hide-output`).

    folder: where the notebook lies, for pictures that its text names. Raises ValueError for a formula that cannot be
    set and for anything that would be fetched when the slide is shown.
    """
    if cell.cell_type == "markdown":
        html = markdown_html(cell.source, folder)
    elif cell.cell_type == "code":
        hidden = set(tags(cell))
        parts = [] if hidden & {"hide-input", "remove-input"} else [code_html(cell.source)]
        if not hidden & {"hide-output", "remove-output"}:
            parts += [output_html(output, folder) for output in cell.outputs]
        html = _side_by_side([part for part in parts if part])
    else:
        html = f"<pre>{escape(cell.source)}</pre>"
    found = FETCHES.search(re.sub(r"<pre.*?</pre>", "", html, flags=re.S))
    if found:
        raise ValueError(f"it would fetch something when shown ({html[found.start():][:60]!r}); slides take what lies "
                         "in the notebook itself")
    return html


# ------------------------------------------------------------------------------------------------------------- text


def markdown_html(text: str, folder: Path) -> str:
    """Markdown with formulas as HTML, read as Jupyter reads it."""
    from nbconvert.filters.markdown_mistune import MarkdownWithMath

    return MarkdownWithMath(renderer=_renderer(folder)).render(text)


def _renderer(folder: Path):
    """nbconvert's renderer, but formulas go to KaTeX, and a link to a file beside the notebook is its words alone."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer

    class Renderer(IPythonRenderer):
        """nbconvert's, with three methods changed."""

        def block_math(self, body):
            return formula_html(body, display=True)

        def inline_math(self, body):
            return formula_html(body, display=False)

        def latex_environment(self, name, body):
            return formula_html(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)

        def block_code(self, code, info=None):
            return code_html(code.rstrip("\n"), (info or "text").split()[0])

        def link(self, text, url, title=None):
            return super().link(text, url, title) if re.match(r"https?://", url) else text

        def image(self, text, url, title=None):
            return f'<div class="picture"><img alt="{escape(text)}" src="{_file_url(folder, url)}"></div>'

    return Renderer(escape=False, exclude_anchor_links=True)


def _file_url(folder: Path, url: str) -> str:
    """A picture beside the notebook as a data: address; any other address as it is."""
    path = folder / url
    if re.match(r"[a-z]+:", url) or not path.is_file():
        return url
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def formula_html(latex: str, display: bool) -> str:
    """A formula for KaTeX to set. Raises ValueError for one that it does not know how to set."""
    commands, names = _katex_words()
    words = re.findall(r"\\([A-Za-z]+)", latex)
    unknown = sorted({f"\\{word}" for word in words if word not in commands})
    environments = re.findall(r"\\(begin|end)\{([^}]*)\}", latex)
    unknown += sorted({name for _, name in environments if name not in names})
    if unknown:
        raise ValueError(f"the formula {_short(latex)} uses {', '.join(unknown)}, which the slides cannot set")
    opened = []
    for which, name in environments:
        if which == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            opened = ["?"]
            break
    bare = re.sub(r"\\.", "", latex, flags=re.S)
    if opened or bare.count("{") != bare.count("}") or words.count("left") != words.count("right"):
        raise ValueError(f"the formula {_short(latex)} leaves a brace, a \\left or a \\begin open")
    return f'<span class="math{" display" if display else ""}">{escape(latex.strip())}</span>'


@functools.cache
def _katex_words() -> tuple[frozenset[str], frozenset[str]]:
    """The commands that KaTeX's own source names ("frac" of \\frac), and the environments ("aligned")."""
    source = (STATIC / "katex.min.js").read_text(encoding="utf-8")
    return (frozenset(re.findall(r"[\"'`]\\\\([A-Za-z]+)[\"'`]", source)),
            frozenset(re.findall(r"[\"'`]([a-z]+\*?)[\"'`]", source)))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


# ----------------------------------------------------------------------------------------------------- code, outputs


def code_html(code: str, language: str = "python") -> str:
    """Code in colours; its letters become smaller where a line is long (`--columns` in deck.css)."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    inner = highlight(code, lexer, HtmlFormatter(nowrap=True)).rstrip("\n")
    return f'<pre class="code" style="--columns:{_columns(code)}"><code>{inner}</code></pre>'


def code_css() -> str:
    """The colours of `code_html`."""
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style="default").get_style_defs(".code")


def output_html(output, folder: Path) -> str:
    """One output of a code cell: a picture with its words, HTML, text; "" for warnings and widgets."""
    if output.output_type == "stream":
        return _text_html(output.text) if output.name == "stdout" else ""
    if output.output_type == "error":
        return _text_html(f"{output.ename}: {output.evalue}")
    data = output.data
    for kind in PICTURES:
        if kind in data:
            return _picture_html(kind, output)
    if any("widget" in kind for kind in data):
        return ""
    if OURS.match(data.get("text/html", "")):  # of a film or a figure with sliders, the picture
        picture = f'<div class="picture">{re.search(r"<img [^>]*>", data["text/html"]).group()}</div>'
        order = re.search(r"^<p>.*?</p>", data["text/html"], re.M)  # of sliders: what stands where
        return f"{picture}\n{order.group()}" if order else picture
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return f'<div class="output">{markdown_html(data["text/markdown"], folder)}</div>'
    if "text/latex" in data:
        return formula_html(data["text/latex"].strip().strip("$"), display=True)
    return _text_html(data.get("text/plain", ""))


def _text_html(text: str) -> str:
    text = ANSI.sub("", text).strip("\n")
    if not text:
        return ""
    return f'<pre class="output" style="--columns:{_columns(text)}">{escape(text)}</pre>'


def _picture_html(kind: str, output) -> str:
    value, metadata = output.data[kind], output.get("metadata", {})
    own = metadata.get(kind, {}) if isinstance(metadata.get(kind), dict) else {}
    plain = output.data.get("text/plain", "").strip()
    words = own.get("alt") or metadata.get("alt") or ("" if BARE_REPR.fullmatch(plain) else plain)
    if kind == "image/svg+xml":
        value = base64.b64encode(value.encode()).decode()
    # alt="" would tell a screen reader to pass over the picture
    return (f'<div class="picture"><img alt="{escape(words or "a picture; the text beside it tells what it shows")}" '
            f'src="data:{kind};base64,{"".join(value.split())}"></div>')


def _side_by_side(parts: list[str]) -> str:
    """The parts below each other, but pictures that follow each other in one row."""
    rows = []
    parts = [piece for part in parts for piece in re.split(r"(?<=</div>)\n(?=<p>)", part)]  # words under sliders
    for picture, group in itertools.groupby(parts, lambda part: part.startswith('<div class="picture">')):
        inner = "\n".join(group)
        rows.append(f'<div class="pictures">\n{inner}\n</div>' if picture else inner)
    return "\n".join(rows)


def _columns(text: str) -> int:
    return max([len(line) for line in text.splitlines()] + [40])
