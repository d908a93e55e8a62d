"""A real browser follows the course: `python3 course.py test --browser` where there is a Chromium, skipped elsewhere.

A reader's way, by mouse and keyboard, in JupyterLab: the film of the first page from a prompt that is wrong and one in
Hindi, an exercise wrong and right, the sliders of chapter 16. Then the same eyes look at pages that are broken.
"""

import json

import browsing
import nbformat
import pytest
from browsing import Notebook, failures, silent, stands_still, stuck, unfolded
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_figures import states

import course
from soralab import figures
from soralab.exercises import exercise

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not course.chromium(), reason="no Chromium: install one, or name it in SORALAB_CHROMIUM"),
]
HINDI = "एक बड़ा पीला चाँद ऊपर की ओर खिसकता है"  # a large yellow moon slides up
FIRST, REFEREE = "from soralab import figures", "from soralab.world import referee"  # cells of notebook 00


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pytest.importorskip("playwright.sync_api", reason="no playwright: python3 course.py test --browser installs it")
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TQDM_DISABLE")
        patch.setenv("SORALAB_PROGRESS", str(folder / "progress.json"))
        with browsing.jupyterlab(folder) as (address, work):
            yield address, work


@pytest.fixture(scope="module")
def page(lab):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=course.chromium(), args=browsing.SWITCHES)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(1000 * browsing.PATIENCE)
        yield page
        browser.close()


@pytest.fixture
def opened(lab, page):
    """A function that opens a notebook by its name, one at a time; it is closed at the end."""
    notebooks = []

    def open_(name):
        notebooks.append(Notebook(page, lab[0], name))
        return notebooks[-1]

    yield open_
    for notebook in notebooks:
        notebook.close()


def test_a_sentence_becomes_a_film(opened):
    """Notebook 00 from the first look to the last cell."""
    notebook = opened("00_road_to_sora.ipynb")
    first = notebook.number(FIRST)
    film = notebook.cell(first).locator("details img").first
    assert [*silent(notebook), *unfolded(notebook), *stands_still(notebook, film)] == []  # before anything is run

    notebook.type(first, 'prompt = english("a crimson elephant slides right")', "prompt = english(")
    notebook.run(first)
    said = notebook.texts(first)
    assert "elephant" in said and "\n" not in said.strip()

    notebook.type(first, f'prompt = english("{HINDI}")', "prompt = english(")
    notebook.run_all()
    assert list(failures(notebook)) == []
    assert film.get_attribute("alt").endswith("made from the prompt: a large yellow moon slides up.")
    assert notebook.texts(notebook.number(REFEREE)).count("large yellow moon, slides up") >= 3  # of four
    assert [*silent(notebook), *unfolded(notebook), *stands_still(notebook, film)] == []
    notebook.cell(first).locator("summary").nth(1).click()  # "stopped: its frames side by side"
    notebook.cell(first).locator("img").nth(1).wait_for()
    film.wait_for(state="hidden")
    assert list(stuck(notebook, notebook.page.locator("div[id^=film-]").first)) == []


WRONG = "return weight.reshape(len(weight), -1, patch, patch)"
RIGHT = "return weight.reshape(len(weight), patch, patch, -1).permute(0, 3, 1, 2)"


def test_an_exercise_wrong_and_right(opened, lab):
    task = exercise("vit.as_convolution")
    notebook = opened("03_vit.ipynb")
    assert [*silent(notebook), *unfolded(notebook)] == []
    stub = notebook.number("def as_convolution(")
    notebook.run(stub - 1)
    assert "hand in" in notebook.cell(stub - 1).locator(".jp-OutputArea").inner_text().lower()
    misconception = f"✗ not yet: {task.mistakes['colour_planes'].says}"
    for line, answer, verdict in (("raise Not", WRONG, misconception), ("return weight", RIGHT, "✓ right")):
        notebook.type(stub, answer, line)
        notebook.run(stub)
        notebook.run(stub + 1)
        said = notebook.cell(stub + 1).locator(".jp-OutputArea").inner_text()
        assert verdict in " ".join(said.split())  # long ones are folded
    [(name, entry)] = json.loads((lab[1].parent / "progress.json").read_text())["exercises"].items()
    assert name == task.name and entry["tries"] == 2 and entry["passed"]
    solution = notebook.cell(stub + 2)
    solution.locator("summary").click()
    solution.locator("pre").wait_for()  # to be visible
    assert notebook.errors == notebook.asked == []


def test_the_sliders_of_the_last_chapter(opened):
    """Guidance with a noise, and the time: as pictures while the notebook is not trusted, then as sliders."""
    notebook = opened("16_sora.ipynb")
    assert [*silent(notebook), *unfolded(notebook)] == []
    for name, axes in (("guidance-slider", ["s", "noise"]), ("wrong-guess", ["t"])):
        output = notebook.cell(notebook.number(name)).locator(".jp-OutputArea-output")
        assert output.locator("img").count() == 1 and not output.locator("input").count()
        assert f"{axes[0]} = " in output.inner_text()
    notebook.trust()
    for name, axes in (("guidance-slider", ["s", "noise"]), ("wrong-guess", ["t"])):
        figure = notebook.cell(notebook.number(name)).locator("div[id^=film-]")
        figure.locator("input").first.wait_for()
        assert figure.locator("label").all_inner_texts() == axes
        assert list(stuck(notebook, figure)) == []
    folded = notebook.cell(notebook.number("guidance-slider"))
    folded.locator(".jp-InputPlaceholder").click()
    folded.locator(".cm-content").wait_for()  # to be visible
    assert notebook.errors == notebook.asked == []


@pytest.mark.parametrize("name", ["06_latent_diffusion", "12_recaptioning"])
def test_pictures_have_words_and_code_that_draws_is_folded(opened, name):
    notebook = opened(f"{name}.ipynb")
    assert [*silent(notebook), *unfolded(notebook)] == []


def test_a_notebook_that_is_closed_at_once_leaves_no_error(page, lab):
    """An error of one that is gone would be told of the next."""
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name in ["06_latent_diffusion.ipynb", "12_recaptioning.ipynb"] * 3:
        Notebook(page, lab[0], name).close()
    page.wait_for_timeout(1000)
    assert errors == []


# ----------------------------------------------------------------------------------------------- pages that are broken


def shown(figure, *tags):
    """A cell that has drawn a figure."""
    folded = {"jupyter": {"source_hidden": True}} if "hide-input" in tags else {}
    output = new_output("execute_result", figure._repr_mimebundle_(), execution_count=1)
    return new_code_cell("draw()", outputs=[output], execution_count=1, metadata={"tags": list(tags), **folded})


def good():
    """A page with a film, a figure with a slider, and a solution."""
    film = figures.show_film(states(5, 3, 8, 8), alt="A film of noise.")
    sliders = figures.explorer(states(3, 1, 2, 3, 8, 8).round(), {"t": (3, 2, 1)}, "Noise at three times.")
    solution = "<details><summary>The solution</summary>\n\n```python\nreturn 1\n```\n\n</details>"
    return new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}, cells=[
        shown(film), shown(sliders, "hide-input"), new_markdown_cell(solution, metadata={"tags": ["solution"]}),
    ])  # fmt: skip


def no_words(nb):
    html(nb, 0, 'alt="A film of noise."', 'alt=""')


def no_film(nb):
    nb.cells[0] = shown(figures.show_film(states(1, 3, 8, 8).expand(5, -1, -1, -1), alt="A film of noise."))


def html(nb, cell, old, new):
    data = nb.cells[cell].outputs[0].data
    assert old in data["text/html"]
    data["text/html"] = data["text/html"].replace(old, new)


BROKEN = {
    "cell 0: a picture without words": no_words,
    "cell 0: a picture that the browser cannot read": lambda nb: html(nb, 0, "base64,iVBOR", "base64,AAAAA"),
    "does not play: A film of noise": no_film,
    "cell 1: its code is not folded": lambda nb: nb.cells[1].metadata.pop("jupyter"),
    "cell 0: its code is folded": lambda nb: nb.cells[0].metadata.update(jupyter={"source_hidden": True}),
    "cell 2: its solution is not folded": lambda nb: nb.cells[2].update(source="```python\nreturn 1\n```"),
    "there is no slider": lambda nb: html(nb, 1, "box.append(label)", "box.append()"),
    "slider 0: 3 values, but 1 pictures": lambda nb: html(nb, 1, "image.style.margin", "said.style.margin"),
    "slider 0: 3 values, but 1 texts": lambda nb: html(nb, 1, "said.textContent = ", "said.title = "),
    "slider 0: 3 values, but 1 texts ": lambda nb: html(nb, 1, '"input", show', '"click", () => 0'),
    "script: ": lambda nb: html(nb, 1, "show();\n})", "show(); broken();\n})"),
    "asks the network for": lambda nb: html(nb, 1, "show();\n})", "show(); new Image().src = 'http://a.invalid/';\n})"),
}


def found(notebook):
    """Everything that is wrong with a page like `good`."""
    notebook.trust()
    film, sliders = notebook.cell(0).locator("img").first, notebook.cell(1).locator("div[id^=film-]")
    return [*silent(notebook), *unfolded(notebook), *stuck(notebook, sliders), *stands_still(notebook, film, 4),
            *failures(notebook)]  # fmt: skip


@pytest.fixture(scope="module")
def paper(lab, page):
    """A notebook for pages that a test writes."""
    path = lab[1] / "paper.ipynb"
    nbformat.write(good(), path)
    notebook = Notebook(page, lab[0], path.name)

    def read(nb):
        nbformat.write(nb, path)
        notebook.errors.clear()
        notebook.asked.clear()
        notebook.reload()
        return notebook

    yield read
    notebook.close()


def test_a_good_page_passes(paper):
    assert found(paper(good())) == []


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_page_is_refused(paper, message):
    nb = good()
    BROKEN[message](nb)
    problems = found(paper(nb))
    assert [problem for problem in problems if problem.startswith(message.strip())], problems
