"""The notebooks as pages: every picture's words reach the reader, links lead somewhere, what only draws is folded, and
opening a notebook does not change it."""
import copy
import importlib
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import conftest
from soralab.files.notebooks import clean, on_save
from soralab.training.memory import peak_gb

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
sys.path.insert(0, str(FOLDER))
import normalise as pages  # noqa: E402

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
LINK = re.compile(r"\]\(([^)#\s]+)[^)\s]*\)")
CHAPTERS = {0: "00_road_to_sora.ipynb", 5: "05_vqvae.ipynb", 6: "06_latent_diffusion.ipynb", 16: "16_sora.ipynb"}


class Images(HTMLParser):
    """The images of a page: a list of their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))

    handle_startendtag = handle_starttag


# -------------------------------------------------------------------------------------------- the course's notebooks


@each
def test_it_is_in_form(path):
    same = pages.normalised(path) == path.read_text(encoding="utf-8")
    assert same, f"{path.name}: run python notebooks/normalise.py {path.name[:2]}"


@each
def test_every_pictures_words_are_on_the_page(path):
    """No picture is stored but as HTML with its words, and nbconvert's page has each of them, whole."""
    from nbconvert import HTMLExporter

    nb = nbformat.read(path, as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", ())]
    assert not [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]
    html = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    stored = [image["alt"] for image in Images(html).found]
    assert stored and all(len(words.split()) >= 2 for words in stored)
    html, _ = HTMLExporter().from_notebook_node(nb)
    shown = [image for image in Images(html).found if image.get("src", "").startswith("data:image/png")]
    assert [image["alt"] for image in shown] == stored


@each
def test_every_link_leads_to_a_file_of_the_course(path):
    nb = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    targets = [target for target in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.S))
               if not re.match(r"[a-z]+:", target)]
    assert targets and [target for target in targets if not (FOLDER / target).exists()] == []


@each
def test_one_can_go_on_from_its_top_and_its_foot(path):
    nb = nbformat.read(path, as_version=4)
    names = [other.name for other in NOTEBOOKS]
    place = names.index(path.name)
    for cell in (nb.cells[1], nb.cells[-1]):
        targets = LINK.findall(cell.source)
        assert targets == [*names[max(1, place - 1): place][:place], *names[:1][:place], *names[place + 1: place + 2]]


@each
def test_the_card_of_each_chapter_says_what_the_exercises_and_the_memory_take(path):
    from soralab.exercises import chapters, exercises

    card = nbformat.read(path, as_version=4).cells[0].source
    found = re.search(r"\*\*Memory\*\* (\d+\.\d) GB\.", card)
    assert found and 0.3 < float(found[1]) < 8
    name = path.stem[3:]
    if name in {chapter.name for chapter in chapters()}:
        assert f"**Exercises** {sum(task.minutes for task in exercises(name))} minutes." in card


@each
def test_nothing_is_told_twice(path):
    """Slides have their words from the page's own cells: twelve words in a row stand in one cell alone."""
    seen = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and "navigation" not in cell.metadata.get("tags", []):
            text = re.sub(r"```.*?```|^\*The next cell takes .*?\*$", "", cell.source, flags=re.S | re.M)
            words = re.findall(r"[\w']+", text.lower())
            for k in range(len(words) - 11):
                assert seen.setdefault(tuple(words[k : k + 12]), cell.id) == cell.id, " ".join(words[k : k + 12])


SLIDERS = {"00": [["t"]], "06": [["s", "noise"]], "16": [["s", "noise"], ["t"]]}


@each
def test_time_and_guidance_can_be_slid_without_a_kernel(path):
    """Guidance with a noise in 06 and 16; in 00 and 16 the time, with the network's opinion and the best guess."""
    nb = nbformat.read(path, as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", ())]
    html = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    told = [json.loads(found) for found in re.findall(r"\), o = (\{.*?\});\n", html)]
    assert [[axis[0] for axis in one["axes"]] for one in told] == SLIDERS.get(path.stem[:2], [])
    for one in told:
        assert all(len(values) >= 3 for _, values, _ in one["axes"])
        assert one["axes"][0][0] == "s" or len(one["rows"]) == 3 and len(one["says"]) == len(one["axes"][0][1])


@each
def test_code_that_only_draws_is_folded(path):
    for cell in nbformat.read(path, as_version=4).cells:
        hidden = "hide-input" in cell.metadata.get("tags", [])
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) is hidden


# --------------------------------------------------------------------------------------------------- bringing into form


def page(*cells, **metadata):
    cells = [new_markdown_cell("# 06 · It\n\n**Time** a minute. **You need** Python.", id="card"), *cells]
    return new_notebook(cells=cells, metadata=metadata)


def formed(nb, number=6, minutes=0):
    nb = copy.deepcopy(nb)
    pages.normalise(nb, number, CHAPTERS, minutes)
    again = copy.deepcopy(nb)
    pages.normalise(again, number, CHAPTERS, minutes)
    assert again == nb, "a second call changes something"
    return nb


@pytest.mark.parametrize("text, wanted", [
    ("As chapter 05 says", "As [chapter 05](05_vqvae.ipynb) says"),
    ("Chapter 5's decoder", "[Chapter 5](05_vqvae.ipynb)'s decoder"),
    ("chapters 05, 09 and 16.", "chapters [05](05_vqvae.ipynb), 09 and [16](16_sora.ipynb)."),
    ("chapters 05–16", "chapters [05](05_vqvae.ipynb)–[16](16_sora.ipynb)"),
    ("chapter 16, 5 films", "[chapter 16](16_sora.ipynb), 5 films"),
    ("in chapter 06 itself", "in chapter 06 itself"),
    ("chapter 09 is to come, chapter 160 never", "chapter 09 is to come, chapter 160 never"),
    ("## As in chapter 05\n\nchapter 05", "## As in chapter 05\n\n[chapter 05](05_vqvae.ipynb)"),
    ("`chapter 05` and\n```python\n# chapter 05\n```", "`chapter 05` and\n```python\n# chapter 05\n```"),
    ("$chapter 05$ [see chapter 05](x.md)", "$chapter 05$ [see chapter 05](x.md)"),
    ("<summary>chapter 05</summary> chapter 05",
     "<summary>chapter 05</summary> [chapter 05](05_vqvae.ipynb)"),
])
def test_a_chapter_that_is_named_is_a_link(text, wanted):
    assert pages.link(text, 6, CHAPTERS) == wanted
    assert pages.link(wanted, 6, CHAPTERS) == wanted


@pytest.mark.parametrize("number, line", [
    (0, "[05 · VQ-VAE](05_vqvae.ipynb) →"),
    (5, "[the map](00_road_to_sora.ipynb) · [06 · Latent diffusion](06_latent_diffusion.ipynb) →"),
    (6, "← [05 · VQ-VAE](05_vqvae.ipynb) · [the map](00_road_to_sora.ipynb) · [16 · Sora (DiT)](16_sora.ipynb) →"),
    (16, "← [06 · Latent diffusion](06_latent_diffusion.ipynb) · [the map](00_road_to_sora.ipynb)"),
])
def test_the_way_on(number, line):
    nb = formed(page(new_code_cell("1")), number)
    assert nb.cells[1].source == nb.cells[-1].source == line and len(nb.cells) == 4


def test_a_fold_follows_the_tag():
    nb = page(new_code_cell("draw()", metadata={"tags": ["hide-input"]}),
              new_code_cell("x = 1", metadata={"jupyter": {"source_hidden": True, "outputs_hidden": True}}),
              new_code_cell("y = 1", metadata={"jupyter": {"source_hidden": True}}))
    folded, other, last = formed(nb).cells[2:5]
    assert folded.metadata.jupyter == {"source_hidden": True}
    assert other.metadata.jupyter == {"outputs_hidden": True} and "jupyter" not in last.metadata


def test_the_title_card_says_the_exercises_minutes_and_the_memory():
    nb = formed(page(soralab={"peak_gb": 1.34}), minutes=45)
    assert nb.cells[0].source.endswith("**Time** a minute. **Exercises** 45 minutes. **Memory** 1.3 GB. "
                                       "**You need** Python.")
    nb.metadata.soralab.peak_gb = 0.8
    assert "**Exercises** 50 minutes. **Memory** 0.8 GB. **You" in formed(nb, minutes=50).cells[0].source
    assert formed(page(soralab={"peak_gb": 1.34}), minutes=45) == formed(formed(page(soralab={"peak_gb": 1.34})), 6, 45)
    assert formed(page()).cells[0] == page().cells[0]


@pytest.mark.parametrize("seconds, says", [(25, "half a minute"), (60, "a minute"), (170, "3 minutes")])
def test_a_long_cell_is_announced(seconds, says):
    line = f"*The next cell takes about {says} on two CPU cores.*"
    cells = [new_markdown_cell("Train it."), new_code_cell("train()", id="long"), new_code_cell("print()", id="quick")]
    nb = formed(page(*cells, soralab={"seconds": {"long": seconds}}))
    assert nb.cells[2].source == f"Train it.\n\n{line}" and len(nb.cells) == 6
    nb.metadata.soralab.seconds = {}
    assert formed(nb).cells[2].source == "Train it.", "it became quick"
    told = [new_markdown_cell("Train it for two minutes."), cells[1]]
    assert formed(page(*told, soralab={"seconds": {"long": seconds}})).cells[2].source == told[0].source
    bare = [new_code_cell("x = 1"), cells[1]]
    assert formed(page(*bare, soralab={"seconds": {"long": seconds}})).cells[3].source == line


# ---------------------------------------------------------------------------------------------------- opened and saved


def as_jupyterlab_saves(nb):
    """What JupyterLab 4 changes in a notebook whose kernel it has started, and a run's progress bar."""
    nb = json.loads(nbformat.writes(nb))
    nb["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    nb["metadata"]["language_info"]["version"] = "3.12.7"
    return nb


@each
def test_a_notebook_that_was_only_opened_stays_as_it_is(path):
    text = path.read_text(encoding="utf-8")
    content = as_jupyterlab_saves(nbformat.reads(text, as_version=4))
    on_save(model={"type": "notebook", "content": content}, path=f"notebooks/{path.name}", contents_manager=None)
    assert nbformat.writes(nbformat.from_dict(content)) + "\n" == text


def test_a_saved_notebook_has_no_dead_progress_bar():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "0%"}
    bar = new_output("display_data", view)
    film = new_output("execute_result", {"text/plain": "a film"}, execution_count=1)
    nb = page(new_code_cell("film()", outputs=[bar, film]), widgets={"state": {}})
    clean(nb)
    assert nb.cells[1].outputs == [film] and "widgets" not in nb.metadata


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_printed_in_pieces_is_saved_as_one(whole):
    """JupyterLab joins the pieces when it opens a notebook, and would save another file."""
    pieces = [("stdout", "a\n"), ("stdout", "b\nc\n"), ("stderr", "oh\n"), ("stdout", "d\n")]
    outputs = [new_output("stream", name=name, text=text if whole else text.splitlines(True)) for name, text in pieces]
    nb = page(new_code_cell("x", outputs=[*outputs, new_output("display_data", {"text/plain": "1"})]))
    clean(nb)
    *streams, shown = nb.cells[1].outputs
    wanted = [("stdout", "a\nb\nc\n"), ("stderr", "oh\n"), ("stdout", "d\n")]
    assert [(stream.name, "".join(stream.text)) for stream in streams] == wanted and shown.data == {"text/plain": "1"}


def test_other_files_are_saved_as_they_are():
    nb = page(kernelspec={"name": "julia-1.10", "display_name": "Julia"})
    before = copy.deepcopy(nb)
    on_save(model={"type": "notebook", "content": nb}, path="notebooks/my notes.ipynb")
    assert nb == before
    on_save(model={"type": "file", "content": "text"}, path="notebooks/00_road_to_sora.ipynb")
    on_save(model={"type": "notebook", "content": None}, path="notebooks/00_road_to_sora.ipynb")
    clean(nb)
    assert nb.metadata.kernelspec == before.metadata.kernelspec, "a reader's own kernel stays"


# ----------------------------------------------------------------------------------------- how nbval compares pictures


@pytest.mark.parametrize("fresh, same", [
    ('<img alt="a map" width="860" src="data:image/png;base64,QUJD">', True),
    ('<img alt="a plan" width="860" src="data:image/png;base64,iVBO">', False),
    ('<img alt="a map" width="430" src="data:image/png;base64,iVBO">', False),
    ('<img alt="a map" width="860" src="data:image/gif;base64,iVBO">', False),
    ('<img alt="a map" width="860" src="data:image/png;base64,iVBO"><img>', False),
])
def test_pictures_are_compared_by_their_words_and_not_by_their_bytes(fresh, same):
    stored = '<img alt="a map" width="860" src="data:image/png;base64,iVBO">'
    outputs = [[new_output("display_data", {"text/html": html, "text/plain": "a map"})] for html in (stored, fresh)]
    for one in outputs:
        conftest.mask_pictures(one)
    assert (outputs[0] == outputs[1]) is same


@pytest.mark.parametrize("fresh, snapped", [
    ((860, 430), (860, 430)), ((861, 428), (860, 430)), ((863, 430), (863, 430)), ((860, 427), (860, 427)),
    ((861,), (861,)), ((861, 430, 9), (861, 430, 9)),
])
def test_a_picture_may_be_a_pixel_wider_by_another_matplotlib(fresh, snapped):
    def html(widths):
        return "".join(f'<img alt="a" width="{width}" src="data:image/png;base64,i">' for width in widths)

    assert conftest.snap_widths(html(fresh), html((860, 430))) == html(snapped)
    plain = '<p width="7">7</p>'
    assert conftest.snap_widths(plain, plain.replace("7", "8")) == plain
    outputs, stored = ([new_output("display_data", {"text/html": html(widths)})] for widths in (fresh, (860, 430)))
    conftest._snap_outputs(outputs, stored, 1e-3)
    assert outputs[0].data["text/html"] == html(snapped)


@pytest.mark.parametrize("again", ["", "_2", "_13"])
def test_a_films_name_is_of_its_bytes_and_is_not_compared(again):
    outputs = [new_output("display_data", {"text/html": f'<details name="film-{name}{again}" open>'})
               for name in ("0123abcd", "fedc9876")]
    conftest.mask_pictures(outputs)
    assert outputs[0] == outputs[1]


def test_a_prompt_that_cannot_be_read_is_one_line_in_a_notebook(tmp_path):
    """Not the 53 lines of the way through the code: in English, in Hindi, and in a Filmmaker's own words."""
    from nbclient import NotebookClient

    hindi = "\u0932\u093e\u0932 \u0935\u0943\u0924"
    nb = new_notebook(cells=[new_code_cell(f"from soralab.command.film import english\nenglish({prompt!r})")
                             for prompt in ("a crimson elephant", hindi, "", "red " * 60)]
                      + [new_code_cell("from soralab.world.language import encode\nencode('a crimson circle')")])
    env = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    where = {"metadata": {"path": tmp_path}}
    NotebookClient(nb, kernel_name="python3", allow_errors=True, resources=where).execute(env=env)
    lines = [output.traceback for cell in nb.cells for output in cell.outputs]
    assert all(len(trace) == 1 and "\n" not in trace[0] for trace in lines) and len(lines) == 5
    for [line], words in zip(lines, ("elephant", "Hindi", "", "", "red"), strict=True):
        assert words in line


def test_the_server_is_told_to_clean_what_it_saves():
    """The package brings a file that Jupyter's server reads, which names this module; what it loads registers."""
    project = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert '"soralab/files/jupyter.json" = "etc/jupyter/jupyter_server_config.d/soralab.json"' in project
    told = json.loads((FOLDER.parent / "soralab/files/jupyter.json").read_text(encoding="utf-8"))
    [name] = told["ServerApp"]["jpserver_extensions"]
    module, hooks = importlib.import_module(name), []
    assert module._jupyter_server_extension_points() == [{"module": name}]
    manager = SimpleNamespace(register_pre_save_hook=hooks.append)
    module._load_jupyter_server_extension(SimpleNamespace(contents_manager=manager))
    assert hooks == [on_save]


def test_the_peak_of_memory_is_in_gigabytes():
    before = peak_gb()
    block = bytearray(int((before + 0.3) * 1e9))            # more than was ever held: the peak must rise
    block[::4096] = b"x" * len(block[::4096])
    assert 0.02 < before < peak_gb() < before + 0.3 + before + 0.3
    assert peak_gb() - before > 0.2
