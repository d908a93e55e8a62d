"""Decks: what is tagged is on them, in order; nothing else; and a browser needs no network to show them."""
import base64
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from soralab.sessions import NOTEBOOKS, cells, slides

STATIC = Path(cells.__file__).with_name("static")
PNG = base64.b64encode(b"\x89PNG a picture").decode()
FILM = new_output("display_data", {"image/png": PNG + "\n", "text/plain": "<Figure>"},
                  metadata={"image/png": {"alt": 'a "red" circle slides right'}})
PLOT = new_output("execute_result", {"image/png": PNG, "text/plain": "loss falls from 2 to 1"}, execution_count=1)
FORMULA = r"Read on. $$w(x) = w_c(x) + w_0 \exp\left(-\frac{d_1 < d_2}{2\sigma^2}\right)$$ and $\alpha_1$."


def markdown(source, kind=None, **metadata):
    return new_markdown_cell(source, metadata={**({"slideshow": {"slide_type": kind}} if kind else {}), **metadata})


def code(source, kind=None, outputs=(), tags=()):
    shown = {"slideshow": {"slide_type": kind}} if kind else {}
    return new_code_cell(source, metadata={**shown, "tags": list(tags)}, outputs=list(outputs), execution_count=1)


def toy():
    return new_notebook(cells=[
        markdown("# 01 · U-Net\n\nA net. [The paper](https://arxiv.org/abs/1505.04597), [data](../data/README.md).",
                 "slide"),
        markdown("Only in the notebook."),
        code("show(film)  # drawn", "fragment", [FILM], ["hide-input"]),
        markdown(f"## The mathematics\n\n{FORMULA}", "slide"),
        markdown("Say that $\\sigma$ is five pixels.", "notes"),
        code("x = 1\nprint(x < 2)", "subslide", [
            new_output("stream", name="stdout", text="True & so on\n"),
            new_output("stream", name="stderr", text="a warning\n"),
            new_output("display_data", {"text/plain": "bar", "application/vnd.jupyter.widget-view+json": {}})]),
        markdown("Skipped.", "skip"),
        markdown("Untold.", "-"),
        markdown("By hand?\n\n<details><summary>Check</summary>\n\n**388** wide.\n\n</details>", "slide"),
        code("plot()", "fragment", [PLOT, PLOT]),
        code("quiet()", "slide", [PLOT], ["hide-output"]),
    ])


class Page(HTMLParser):
    """The tree of a deck as lists: `sections` [(id, depth)], `tags` [(tag, attributes)], text by element."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sections, self.depth, self.text = [], [], 0, {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "section":
            self.depth += 1
            if "id" in attrs:
                self.sections.append((attrs["id"], self.depth))

    def handle_endtag(self, tag):
        self.depth -= tag == "section"

    def handle_data(self, data):
        if self.sections and self.tags[-1][0] not in ("script", "style"):
            self.text[self.sections[-1][0]] = self.text.get(self.sections[-1][0], "") + data

    def having(self, css):
        return [attrs for _, attrs in self.tags if css in attrs.get("class", "").split()]


@pytest.fixture(scope="module")
def html():
    return slides.deck(toy(), Path("01_unet.ipynb"))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_tagged_cell_is_on_the_deck_and_no_other(page):
    ids = [cell.id for cell in toy().cells]
    nb = toy()
    page = Page(slides.deck(nb, Path("01_unet.ipynb")))
    ids = [cell.id for cell in nb.cells]
    assert page.sections == [(ids[0], 1), (ids[3], 2), (ids[5], 2), (ids[8], 1), (ids[10], 1)]
    assert page.depth == 0
    assert (len(page.having("cell")), len(page.having("fragment")), len(page.having("notes"))) == (7, 2, 1)
    shown = " ".join(page.text.values())
    assert "A net." in shown and "five pixels" in shown and "388" in shown
    for text in ("Only in the notebook", "Skipped", "Untold", "a warning", "drawn", "bar"):
        assert text not in shown


def test_the_title_is_the_notebooks(html):
    assert "<title>01 · U-Net</title>" in html


def test_formulas_are_kept_whole_for_katex(html):
    formula = r"w(x) = w_c(x) + w_0 \exp\left(-\frac{d_1 &lt; d_2}{2\sigma^2}\right)"
    assert f'<span class="math display">{formula}</span>' in html
    assert '<span class="math">\\alpha_1</span>' in html and '<span class="math">\\sigma</span>' in html
    assert "$$" not in html.split("<body>")[1].split("<script>")[0]


def test_pictures_lie_in_the_deck_with_their_words(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [p["alt"] for p in pictures] == ['a "red" circle slides right', *["loss falls from 2 to 1"] * 2]
    assert all(p["src"] == f"data:image/png;base64,{PNG}" for p in pictures)
    assert len(page.having("pictures")) == 2             # two charts of one cell share a row
    assert len(page.having("seen")) == 2


def test_code_and_its_text(page, html):
    assert "x = 1" in "".join(page.text.values()) and "True & so on" in html.replace("&amp;", "&")
    assert "quiet" in "".join(page.text.values()) and "plot" in "".join(page.text.values())


def test_a_folded_answer_stays_folded(html):
    body = html.split("<body>")[1]
    answer = body[body.index("<details>"):body.index("</details>")]
    assert "<summary>Check</summary>" in answer and "<strong>388</strong>" in answer


def fetched(html):
    """What a browser would fetch on opening a page."""
    page, found = Page(html), []
    for tag, attrs in page.tags:
        for name in ("src", "srcset", "poster", "data", "xlink:href", "action"):
            if attrs.get(name, "data:").startswith("data:") is False:
                found.append((tag, attrs[name]))
        if tag in ("link", "base", "iframe"):
            found.append((tag, attrs.get("href")))
        found += [("style", url) for url in addresses(attrs.get("style", ""))]
    for style in re.findall(r"<style>(.*?)</style>", html, re.S):
        found += [("style", url) for url in addresses(style)]
    return found + re.findall(r"sourceMappingURL=\S+", html)


def addresses(css):
    urls = re.findall(r"url\(\s*[\"']?([^)\"']+)|@import\s+[\"']?([^\"';]+)", css)
    return [a or b for a, b in urls if not (a or b).startswith(("data:", "#"))]


def test_nothing_is_fetched(html):
    assert fetched(html) == []
    assert html.count("data:font/woff2") == len(list((STATIC / "fonts").iterdir())) > 5
    links = [attrs["href"] for tag, attrs in Page(html).tags if tag == "a" and "href" in attrs]
    assert links == ["https://arxiv.org/abs/1505.04597"]          # to be followed, not fetched


@pytest.mark.parametrize("bad", [
    "<img src='https://example.org/x.png'>", "<script src=x.js></script>", "<link rel=stylesheet href=x.css>",
    "<style>@import 'x.css';</style>", "<style>a{background:url(x.png)}</style>", "<p style='background:url(//x)'>",
    "<video poster=x.png></video>", "<iframe></iframe>",
])
def test_the_search_for_what_is_fetched_sees_it(bad):
    assert fetched(f"<body>{bad}</body>") != []


def broken(cell):
    nb = toy()
    nb.cells.insert(1, cell)
    return nb


@pytest.mark.parametrize("cell, message", [
    (markdown("![a film](https://example.org/x.gif)", "slide"), "fetch"),
    (markdown("![a film](missing.png)", "slide"), "fetch"),
    (code("x", "slide", [new_output("display_data", {"text/html": "<script src='x.js'></script>"})]), "fetch"),
    (code("x", "slide", [new_output("display_data", {"text/html": "<p style='background: url(x.png)'>"})]), "fetch"),
    (markdown(r"$\foo{x}$", "slide"), r"uses \\foo"),
    (markdown(r"$$\begin{flalgn} x \end{flalgn}$$", "slide"), "uses flalgn"),
    (markdown(r"$\frac{1}{2$", "slide"), "brace"),
    (markdown(r"$\left( x$", "slide"), "left"),
    (markdown(r"$$\begin{cases} x \end{pmatrix}$$", "slide"), "begin"),
    (code("draw()", "slide", [], ["hide-input"]), "nothing to show.*run the notebook"),
    (markdown("A slide.", "slid"), "slide_type is 'slid'; it takes slide, subslide, fragment"),
])
def test_what_cannot_be_shown_is_refused_with_its_cell(cell, message):
    with pytest.raises(ValueError, match=f"01_unet.ipynb, cell 1: .*{message}"):
        slides.deck(broken(cell), Path("01_unet.ipynb"))


def test_code_may_speak_of_what_is_fetched():
    cell = code("page = '<img src=x.png>'  # url(x)", "slide", [new_output("stream", name="stdout", text="<link>")])
    assert "&lt;link&gt;" in slides.deck(broken(cell), Path("01_unet.ipynb"))


def test_code_is_one_block_and_what_a_cell_gives_back_is_a_formula_or_text():
    shown = cells.code_html("x = 1\n", "python")
    assert shown.count("<pre") == shown.count("</pre>") == 1 and "<div" not in shown and unescape(
        re.sub("<[^>]+>", "", shown)) == "x = 1"  # fmt: skip
    for data, says in (({"text/plain": "3 < 4"}, "3 &lt; 4"), ({"text/latex": "$$x^2$$"}, "math display"),
                       ({"text/latex": "$x^2$", "text/plain": "x**2"}, "math display")):  # fmt: skip
        assert says in cells.output_html(new_output("execute_result", data), Path("."))


@pytest.mark.parametrize("latex", [
    r"\begin{aligned} a &= b \\ c &= d \end{aligned}", r"\underbrace{a}_{n} \bigl( \Big)",
    r"\lVert x \rVert \odot \tilde v \mathbb{E}_{x \sim p}[\mathcal{N}(0, I)]", r"\left\{ x \right\} \binom{n}{k}",
    r"\operatorname{sg}[z] \quad \operatorname*{argmax}_x \; \text{if } x \le \{y\} \ldots \cdots \times \to",
    r"\mathrm{softmax}\Big(\frac{QK^\top}{\sqrt{d_k}}\Big)V \varnothing \leftarrow \hat y \sum_{i=1}^n \log \min",
    r"\begin{cases} 1 & i = j \\ 0 & \text{otherwise} \end{cases} \begin{pmatrix} a \end{pmatrix} \boldsymbol{x}",
    r"\mathbf{x} \in \Omega \ell \alpha \nabla_\theta \propto \infty \partial \lfloor x \rfloor \lceil",
    r"\approx \neq \geq \bar x \vec u \dots \mathit{step} \mid \langle a \rangle \prod \int \prime \circ \ast \star",
])
def test_formulas_that_katex_sets_are_let_through(latex):
    assert "math display" in cells.formula_html(latex, display=True)


def test_pictures_beside_the_notebook_come_along(tmp_path):
    (tmp_path / "map.png").write_bytes(b"\x89PNG")
    nb = new_notebook(cells=[markdown("![The map](map.png)", "slide")])
    html = slides.deck(nb, tmp_path / "01_unet.ipynb")
    assert 'alt="The map" src="data:image/png;base64,iVBORw=="' in html


# ------------------------------------------------------------------------------------------------------------ build


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(toy(), folder / "01_unet.ipynb")
    nbformat.write(toy(), folder / "07_navit.ipynb")
    nbformat.write(new_notebook(cells=[markdown("# 16")]), folder / "16_sora.ipynb")
    return folder


def test_build_writes_the_chapters_asked_for(notebooks, tmp_path):
    paths = slides.build([7], tmp_path / "new" / "decks", notebooks)
    assert paths == [tmp_path / "new" / "decks" / "07_navit.html"]
    assert [path.name for path in paths[0].parent.iterdir()] == ["07_navit.html"]
    assert paths[0].read_text(encoding="utf-8").startswith("<!doctype html>")


def test_build_without_numbers_takes_every_notebook_with_slides(notebooks, tmp_path):
    assert [path.name for path in slides.build([], tmp_path, notebooks)] == ["01_unet.html", "07_navit.html"]


def test_build_says_what_is_wrong_and_writes_nothing(notebooks, tmp_path):
    out = tmp_path / "decks"
    with pytest.raises(ValueError, match="16_sora.ipynb has no slides: .* Slide Type"):
        slides.build([1, 16], out, notebooks)
    with pytest.raises(ValueError, match="numbers is 9; it takes one of 1, 7, 16"):
        slides.build([9], out, notebooks)
    (notebooks / "07_navit.ipynb").write_text("not json")
    with pytest.raises(ValueError, match="07_navit.ipynb is not a notebook"):
        slides.build([1, 7], out, notebooks)
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        slides.build([], out, notebooks / "nowhere")
    for path in notebooks.glob("*.ipynb"):
        nbformat.write(new_notebook(cells=[markdown("# A notebook")]), path)
    with pytest.raises(ValueError, match="none has slides"):
        slides.build([], out, notebooks)
    assert not out.exists()


def test_an_older_deck_stays_until_the_new_one_is_whole(notebooks, tmp_path, monkeypatch):
    path = slides.build([1], tmp_path, notebooks)[0]
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="full"):
        slides.build([1], tmp_path, notebooks)
    assert path.read_bytes() == before and [p.name for p in tmp_path.glob("*.html")] == [path.name]


TAGGED = [path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
          if any(map(slides.slide_type, nbformat.read(path, as_version=4).cells))]


@pytest.mark.parametrize("path", TAGGED, ids=lambda path: path.stem)
def test_the_courses_own_decks(path):
    nb = nbformat.read(path, as_version=4)
    html = slides.deck(nb, path)
    kinds = [slides.slide_type(cell) for cell in nb.cells]
    page = Page(html)
    assert len(page.sections) == kinds.count("slide") + kinds.count("subslide")
    assert len(page.having("cell")) == sum(kind in slides.SHOWN for kind in kinds)
    assert fetched(html) == []
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_what_others_wrote_comes_with_its_licence():
    words = (STATIC / "README.md").read_text(encoding="utf-8")
    for package in ("reveal", "katex"):
        assert "MIT" in (STATIC / f"LICENSE.{package}").read_text(encoding="utf-8") or package == "reveal"
        assert f"LICENSE.{package}" in words
    assert "reveal.js 5.2" in (STATIC / "reveal.js").read_text(encoding="utf-8")[:200]
    for path in STATIC.iterdir():
        assert path.name in words or path.name == "README.md"


@pytest.mark.parametrize("draw", ["image_grid", "show_film", "explorer"])
def test_a_figure_of_the_course_is_a_picture_on_its_slide(draw):
    """Whatever stands round it in the notebook, a slide has the picture with its words, without a script."""
    import torch

    from soralab import figures

    film = torch.full((3, 3, 8, 8), 0.2)
    shown = {"image_grid": lambda: figures.image_grid(film, alt="a 'black' picture"),
             "show_film": lambda: figures.show_film(film.cumsum(0) + film, alt="a black film"),
             "explorer": lambda: figures.explorer(film[:, None, None], {"t": (0, 1, 2)}, "black states")}[draw]()
    output = new_output("display_data", shown._repr_mimebundle_())
    html = cells.output_html(output, Path("."))
    assert html.startswith('<div class="picture"><img alt="') and html.count("<img") == 1
    assert shown.alt in unescape(html)
    assert "<script" not in html and "<details" not in html
    assert ("<p>From left to right: t = 0, 1, 2.</p>" in html) is (draw == "explorer"), "what stands where"
    page = cells.cell_html(new_code_cell("draw()", outputs=[output]), Path("."))
    assert ('"></div>\n</div>\n<p>From left' in page) is (draw == "explorer"), "below the picture, not beside it"
    assert "class=" in cells.output_html(new_output("display_data", {"text/html": "<table><tr><td>1"}), Path("."))


def test_every_slide_stands_under_a_heading():
    """One that has none of its own has, small, the heading that stands above its cell in the notebook."""
    nb = new_notebook(cells=[
        markdown("# 01 · It", "slide"), markdown("## The *idea*\n\nText.\n\n```python\n# no heading\n```"),
        new_code_cell("print(1)", metadata={"slideshow": {"slide_type": "slide"}},
                      outputs=[new_output("stream", name="stdout", text="1")]),
        markdown("more", "fragment"), markdown("### Own\n\nText", "subslide"), markdown("no heading", "subslide"),
    ])
    found = [slide for column in slides.columns(nb, Path("01_it.ipynb")) for slide in column]
    assert [slide.running for slide in found] == ["", "The <em>idea</em>", "", "Own"]
    assert [len(slide.parts) for slide in found] == [1, 2, 1, 1]
    html = slides.deck(nb, Path("01_it.ipynb"))
    assert '<h3 class="running">The <em>idea</em></h3>' in html and html.count('<h3 class="running">') == 2


def test_the_progress_line_is_seen():
    """reveal.js draws it in the colour of the page unless told otherwise."""
    rule = re.search(r"\.reveal \.progress \{([^}]*)\}", (STATIC / "deck.css").read_text(encoding="utf-8")).group(1)
    colours = dict(re.findall(r"(color|background): (#\w+)", rule))
    assert len(set(colours.values()) - {"#fff", "#ffffff"}) == 2


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_no_picture_on_a_slide_is_much_taller_than_wide(path):
    """Fitted into a slide's height, a tall picture is a few millimetres wide and its words cannot be read."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and slides.slide_type(cell) in ("slide", "subslide", "fragment"):
            for output in cell.outputs:
                shown = re.match(r'<img [^>]*base64,([^"]+)"', output.get("data", {}).get("text/html", ""))
                if shown:
                    size = base64.b64decode(shown[1])[16:24]  # of a PNG's header
                    width, height = int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big")
                    assert height < 1.4 * width, (cell.id, width, height)
