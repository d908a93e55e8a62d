"""Every chapter's notebook has the parts that readers look for; each rule refuses a notebook that lacks its part."""
import ast
import copy
import functools
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from anatomy import LAST, ROOT, RULES, Chapter, package_functions, problems
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EARLIER = "its first version has a section for each of Sora's parts, which explains and builds it in one go"
MAP = "the map is no paper's chapter"
# What a notebook need not have, each with its reason.
EXEMPT = {
    "00_road_to_sora": dict.fromkeys(set(RULES) - {"functions", "order", "printed", "folds", "headings"}, MAP),
    "16_sora": {
        "The mathematics": EARLIER, "Build it": EARLIER, "How Sora uses this": "it is Sora",
    },
}


@functools.cache
def chapter_of(path):
    """The chapter of a notebook, with the package's exercises for it, if there are any."""
    from soralab.exercises import exercises

    number, name = path.stem.split("_", 1)
    has = {room: bool([*(ROOT / "soralab" / room).glob(f"{name}{end}")])
           for room, end in (("exercises", "/__init__.py"), ("recipes", ".py"))}
    own = tuple(exercises(name)) if has["exercises"] else ()
    module = "kernels" if name == "triton_attention" else name  # a folder, since it is machinery
    return Chapter(int(number), name, nbformat.read(path, as_version=4), own, module, has["recipes"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter(path):
    assert problems(chapter_of(path), EXEMPT.get(path.stem, ())) == []


def test_the_map_has_a_deck_within_the_limits():
    path, = (path for path in NOTEBOOKS if path.stem[:2] == "00")
    assert list(RULES["slides"](chapter_of(path))) == ["the cell with '## The idea' is no slide"]


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem[:2] != "00"], ids=lambda path: path.stem)
def test_the_rooms_of_readers_and_leaders(path):
    """tests/test_house.py looks for the module, the recipe and the test; these are the other two."""
    name = path.stem.split("_", 1)[1]
    rooms = {"exercises": f"soralab/exercises/{name}/__init__.py", "guide": f"notebooks/sessions/{path.stem}.md"}
    missing = {room for room, file in rooms.items() if not (ROOT / file).exists()}
    assert missing == set()


def test_every_guide_belongs_to_a_notebook():
    guides = {path.stem for path in (ROOT / "notebooks" / "sessions").glob("*.md")}
    assert guides <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_exemption_outlives_its_reason(path):
    """An exemption of a rule that the notebook keeps by now is to be taken away."""
    if path.stem[:2] == "00":
        pytest.skip(MAP)
    chapter = chapter_of(path)
    for rule in EXEMPT.get(path.stem, ()):
        others = set(RULES) - {rule}
        assert problems(chapter, others), f"{path.stem} keeps the rule {rule!r}: it needs no exemption"


# ---------------------------------------------------------------------------------- a good notebook, and broken ones


PNG = [new_output("execute_result", {"text/html": '<img alt="a map" src="data:image/png;base64,iVBORw0KGgo=">',
                                     "text/plain": "a map"}, execution_count=1)]
TEXT = [new_output("stream", name="stdout", text="error 0.31\n")]
NAMES = ("weight_map", "crop", "tile")


def task_of(name):
    stub = f'def {name}(x):\n    """Write it."""\n    raise NotImplementedError'
    solution = f"import torch\n\n\ndef {name}(x):\n    return torch.sin(x)"
    return SimpleNamespace(name=f"unet.{name}", title=f"The {name}", dots="●●○", minutes=10,
                           first_cell=lambda: f'task = exercise("unet.{name}")\ntask',
                           stub_source=lambda: stub, solution_source=lambda: solution)


TASKS = tuple(task_of(name) for name in NAMES)


def markdown(source, kind="", *tags, **more):
    return new_markdown_cell(source, metadata={"slideshow": {"slide_type": kind}, "tags": list(tags)}, **more)


def code(source, kind="", *tags, outputs=(), **more):
    return new_code_cell(source, metadata={"slideshow": {"slide_type": kind}, "tags": list(tags)},
                         outputs=copy.deepcopy(list(outputs)), execution_count=1, **more)


def exercise_cells(k, task):
    name = task.name.split(".")[1]
    statement = [new_output("display_data", {"text/markdown": f"**{task.title}** · {task.dots} · 10 minutes"})]
    return [
        markdown(f"### Exercise 1.{k} · {task.title}\n\nWhy it matters."),
        code(task.first_cell(), outputs=statement),
        code(task.stub_source(), "", "exercise"),
        code(f"{name} = task.check({name})", outputs=TEXT),
        code(f"print({name}(x))", outputs=TEXT),
        markdown("<details><summary>The solution</summary>\n\n```python\n" + task.solution_source()
                 + "\n```\n\nIt is a sine.\n\n</details>", "", "solution"),
    ]


QUESTION = ("**{}** (think 2 minutes, talk 8). What then?\n\n<details><summary>A model answer</summary>\n\n"
            "No. The usual misconception is yes.\n\n</details>\n\n")


def good():
    nb = new_notebook(cells=[
        markdown("# 01 · U-Net\n\n**Paper**: R. et al. 2015 ([1505.04597](https://arxiv.org/abs/1505.04597)). "
                 "**You build** a net. **Time** five minutes of computing on two CPU cores, fifty of reading. "
                 "**You need** nothing.",
                 "slide"),
        code("from soralab import figures\n\nfigures.road_strip(here=1, available=[0])", "fragment", outputs=PNG),
        markdown("## The idea\n\n" + "Where is each thing? " * 16, "slide"),
        code("figures.image_grid(films)", "fragment", outputs=PNG),
        markdown("## The mathematics\n\nEq. (2) of the paper:\n\n$$w = w_c + w_0$$", "slide"),
        markdown("## A section of its own\n\nMore.\n\n## Build it\n\nBy hand first.", "slide"),
        code("from soralab.unet import UNet\n\n\ndef net(x):\n    y = x + 1\n    return 3 * y\n\n\n"
             "torch.testing.assert_close(net(x), UNet()(x))", "slide", outputs=TEXT),
        markdown("## Train it a little\n\nTwo minutes. The loss falls from 0.7 to 0.2."),
        code("steps = by_profile(smoke=2, laptop=9, gpu=9)"),
        code('figures.loss_curve(log, band="unet")\nfigures.verdict(log, "unet")', "slide", outputs=PNG),
        markdown("## The trained model\n\nOn held-out cells, the paper's claim in small."),
        code('net = UNet.load("unet")\nprint(error)', "slide", outputs=TEXT, id="weights"),
        code("figures.before_after(x, y)", outputs=PNG),
        markdown("## Ours and the paper's\n\n| | paper | here | harm? |\n|---|---|---|---|\n"
                 + "| size | 1 | 2 | `tests/test_house.py` |\n" * 4, "", ),
        markdown("## Exercises\n\nThree."),
        *[cell for k, task in enumerate(TASKS, 1) for cell in exercise_cells(k, task)],
        markdown("## To discuss\n\n" + QUESTION.format("One."), id="question"),
        markdown(QUESTION.format("Two?")),
        markdown("## How Sora uses this\n\n" + "It is the net that takes noise away. " * 5
                 + "\n\n**Next.** Chapter 02 reads sentences."),
    ])
    return Chapter(1, "unet", nb, TASKS)


def swap(i, old, new):
    """Replace text in the i-th cell of the good notebook."""
    def change(chapter):
        source = chapter.nb.cells[i].source
        assert old in source, source
        chapter.nb.cells[i].source = source.replace(old, new)
    return change


def drop(i):
    return lambda chapter: chapter.nb.cells.__delitem__(i)


def mute(i):
    return lambda chapter: chapter.nb.cells[i].update(outputs=[])


def tag(i, kind):
    return lambda chapter: chapter.nb.cells[i].metadata.slideshow.update(slide_type=kind)


def exchange(i, j):
    def change(chapter):
        cells = chapter.nb.cells
        cells[i], cells[j] = cells[j], cells[i]
    return change


def prints(text, output=None):
    """The cell that shows the trained weights prints this, or gives it back, or stops with it."""
    def change(chapter):
        shown = output or new_output("stream", name="stderr", text="")
        if shown.output_type == "stream":
            shown.text = text
        elif shown.output_type == "error":
            shown.traceback = [text]
        else:
            shown.data["text/plain"] = text
        chapter.nb.cells[11].outputs.append(shown)
    return change


LONG = "def f():\n" + "    x = 1\n" * 45
FIRST = 15          # the first exercise's six cells begin here
BREAK = [
    ("title card: does not begin with '# 01 ·", swap(0, "# 01 ·", "# 1 ·")),
    ("title card: no **Paper**", swap(0, "**Paper**", "Paper")),
    ("title card: no **You need**", swap(0, "**You need**", "You need")),
    ("title card: no link to arxiv", swap(0, "arxiv.org/abs", "example.org")),
    ("title card: the time", swap(0, "two CPU cores", "a machine")),
    ("title card: the time", swap(0, "five minutes", "a while")),
    ("road map: no figures.road_strip(here=1", swap(1, "here=1", "here=2")),
    ("road map: the strip is not drawn", mute(1)),
    ("order: ", exchange(2, 4)),
    ("The idea: no heading", swap(2, "## The idea", "## An idea")),
    ("The idea: fewer than 60 words", swap(2, "Where is each thing? ", "Where? ")),
    ("The idea: no picture", mute(3)),
    ("The idea: no picture", lambda chapter: chapter.nb.cells[3].outputs[0].data.update({"text/html": "<b>map</b>"})),
    ("The mathematics: no displayed formula", swap(4, "$$", "$")),
    ("The mathematics: does not say where", swap(4, "Eq. (2) of", "One of")),
    ("Build it: no heading", swap(5, "## Build it", "## Build")),
    ("Build it: the first version is compared with nothing", swap(6, "torch.testing.assert_close", "print")),
    ("Build it: imports nothing from soralab.unet", swap(6, "soralab.unet", "soralab.vit")),
    ("Train it a little: its length", swap(8, "by_profile(", "dict(")),
    ("Train it a little: the loss is not held", swap(9, ', band="unet"', "")),
    ("Train it a little: the loss is not held", swap(9, "verdict", "opinion")),
    ("Train it a little: does not say how long", swap(7, "Two minutes.", "Wait.")),
    ("Train it a little: does not say which loss", swap(7, "from 0.7 to 0.2", "a little")),
    ("The trained model: no shipped checkpoint", swap(11, ".load(", "(")),
    ("The trained model: nothing to look at", mute(12)),
    ("The trained model: no numbers", mute(11)),
    ("The trained model: does not say that its data", swap(10, "held-out ", "")),
    ("The trained model: does not reproduce", swap(10, "the paper's", "a")),
    ("Ours and the paper's: no table", swap(13, "| size", "size")),
    ("Ours and the paper's: names no test", swap(13, "tests/test_house.py", "a test")),
    ("tests/test_houses.py does not exist", swap(13, "test_house.py", "test_houses.py")),
    ("Exercises: no heading", swap(14, "## Exercises", "## Tasks")),
    ("Exercises: 2 exercises; it takes three", lambda chapter: chapter.nb.cells.__delitem__(slice(FIRST, FIRST + 6))),
    ("Exercises: the cells come as HTSL", drop(FIRST + 3)),
    ("Exercises: the cells come as HSTCL", exchange(FIRST + 1, FIRST + 2)),
    ("Exercises: the cells come as HTCL", lambda chapter: chapter.nb.cells[FIRST + 2].metadata.update(tags=[])),
    ("Exercises: 3 exercises here, 2 in the package", lambda chapter: setattr(chapter, "exercises", TASKS[:2])),
    ("exercise 1: the heading is not '### Exercise 1.1 · The weight_map'", swap(FIRST, "1.1", "1.2")),
    ("exercise 1: the heading is not", swap(FIRST, "The weight_map", "The weights")),
    ("exercise 1: the heading says ●●○ · 15 minutes, the exercise ●●○ · 10", swap(FIRST, "Why", "●●○ · 15 minutes")),
    ("exercise 1: the heading says ●○○ · 10 minutes, the exercise ●●○ · 10", swap(FIRST, "Why", "●○○ · 10 minutes")),
    ("exercise 1: the statement's cell is not", swap(FIRST + 1, "weight_map", "crop")),
    ("exercise 1: ●●○ and 10 minutes are not shown", mute(FIRST + 1)),
    ("exercise 1: the stub is not", swap(FIRST + 2, "Write it.", "Write that.")),
    ("exercise 1: the check is not", swap(FIRST + 3, "weight_map =", "_ =")),
    ("exercise 1: the solution is not folded", swap(FIRST + 5, "<details>", "")),
    ("exercise 1: the solution is not the package's", swap(FIRST + 5, "torch.sin(x)", "torch.cos(x)")),
    ("own functions: no cell runs weight_map after its check", swap(FIRST + 4, "weight_map", "solution")),
    ("own functions: no cell runs tile after its check", drop(FIRST + 2 * 6 + 4)),
    ("To discuss: 1 questions", swap(34, "**Two?** (think 2 minutes, talk 8). ", "Two? ")),
    ("question 1: no folded model answer", swap(33, "<details><summary>A model answer", "<details><summary>Answer")),
    ("question 1: the answer does not name", swap(33, "The usual misconception is yes.", "Not yes.")),
    ("How Sora uses this: fewer than 30 words", swap(35, "It is the net that takes noise away. ", "")),
    ("How Sora uses this: does not end", swap(35, "**Next.**", "Next.")),
    ("How Sora uses this: does not end", swap(35, "Chapter 02", "Chapter 01")),
    ("slides: 7 cells", lambda chapter: [tag(i, "")(chapter) for i in (9, 11)]),
    ("slides: the title card is not", tag(0, "")),
    ("slides: the cell with '## The idea'", tag(2, "fragment")),
    ("slides: no formula", swap(4, "$$w = w_c + w_0$$", "w")),
    ("slides: fewer than two pictures", lambda chapter: [mute(i)(chapter) for i in (1, 3)]),
    ("has 98 words; a slide takes 90", swap(4, "Eq. (2)", "word " * 85 + "Eq. (2)")),
    ("has more than 18 lines", swap(6, "UNet\n", "UNet\n" + "x = 1\n" * 20)),
    ("functions: f is longer than 40 lines", swap(8, "steps", LONG + "steps")),
    ("printed: the cell weights prints 119 columns", prints("w" * 119)),
    ("printed: the cell weights prints 119 columns", prints("step 1\rstep 2 " + "=" * 112)),
    ("printed: the cell weights prints 119 columns", prints("\tw" * 14 + "wwwwww")),
    ("printed: the cell weights prints 120 columns", prints("重" * 60)),
    ("printed: the cell weights prints 119 columns", prints(
        "w" * 119, new_output("execute_result", execution_count=1))),
    ("printed: the cell weights prints 119 columns", prints(
        "\x1b[0;31mw" * 119, new_output("error", ename="ValueError", evalue="w", traceback=[]))),
    ("folds: the cell question goes on behind a fold, with 'More.'", swap(33, "</details>", "</details>\n\nMore.")),
    ("headings: more than 6 cells of code under 'Build it'", lambda chapter: chapter.nb.cells.__setitem__(
        slice(7, 7), [code("x = 1") for _ in range(6)])),
    ("functions: clone is a copy of ", lambda chapter: chapter.nb.cells[8].update(source=a_copy("clone"))),
]


def a_copy(name):
    """A function of the package with another name and without its docstring."""
    tree = ast.parse((ROOT / "soralab" / "files" / "atomic.py").read_text(encoding="utf-8"))
    node = next(node for node in tree.body if getattr(node, "name", "") == "sync_folder")
    node.name, node.body = name, node.body[1:]
    return ast.unparse(node)


def test_a_good_notebook_passes():
    assert problems(good()) == []


@pytest.mark.parametrize("message, change", BREAK, ids=[f"{i} {message}" for i, (message, _) in enumerate(BREAK)])
def test_rule_refuses(message, change):
    chapter = good()
    change(chapter)
    found = problems(chapter)
    assert any(message in problem for problem in found), found


def good_without_training():
    """A chapter that builds no weights of its own, and is the last."""
    chapter = good()
    chapter.nb.cells[7].source = "## Train it a little\n\nThere is nothing to train. A step takes some seconds."
    chapter.nb.cells[8].source = "loss(net).backward()\ntorch.testing.assert_close(mine, theirs)"
    chapter.trains = False
    return chapter


@pytest.mark.parametrize("message, change", [
    ("Train it a little: does not say how long", swap(7, "seconds", "steps")),
    ("Train it a little: does not say that there is nothing", swap(7, "nothing", "little")),
    ("Train it a little: no step's gradients", swap(8, ".backward", ".forward")),
    ("Train it a little: no step's gradients", swap(8, "torch.testing.assert_close", "print")),
])
def test_rule_of_a_chapter_that_trains_nothing(message, change):
    assert problems(good_without_training()) == []
    chapter = good_without_training()
    change(chapter)
    assert [problem for problem in problems(chapter) if message in problem]


def test_the_last_chapter_need_not_name_a_later_one():
    chapter = good()
    swap(35, "Chapter 02 reads", "The map shows")(chapter)
    assert problems(chapter) != []
    chapter.number = LAST
    assert not any(problem.startswith("How Sora uses this") for problem in problems(chapter))


def test_a_chapters_module_may_have_another_name():
    chapter = good()
    chapter.module = "kernels"
    assert problems(chapter) == ["Build it: imports nothing from soralab.kernels to compare with"]
    chapter = good()
    chapter.module = "kernels"
    swap(6, "soralab.unet", "soralab.kernels")(chapter)
    assert problems(chapter) == []


def test_every_rule_is_broken_once():
    assert {message.partition(":")[0] for message, _ in BREAK} >= set(RULES)


def test_a_long_cell_may_hide_its_code_on_the_slide():
    chapter = good()
    swap(6, "UNet\n", "UNet\n" + "x = 1\n" * 20)(chapter)
    chapter.nb.cells[6].metadata.tags.append("hide-input")
    assert problems(chapter) == []


@pytest.mark.parametrize("text, output", [
    ("w" * 118, None),
    ("step 1 " * 17 + "\rstep 2", None),                       # a line that is written over, each time from its start
    ("छोटी अंगूठी " * 11, None),                                # signs above and below take no column
    ("\x1b[0;31mw" * 118, new_output("error", ename="ValueError", evalue="w", traceback=[])),
    ("w" * 119, new_output("execute_result", {"text/html": "<b>w</b>"}, execution_count=1)),  # the HTML is shown
])
def test_what_fits_may_be_printed(text, output):
    chapter = good()
    prints(text, output)(chapter)
    assert problems(chapter) == []


def test_an_exercises_cell_may_look_like_the_package():
    chapter = good()
    chapter.nb.cells[FIRST + 2].source = a_copy("weight_map")
    assert not any(problem.startswith("functions") for problem in problems(chapter))


def test_functions_of_one_statement_are_nobodys_copy():
    assert all(body.count("\n") >= 1 for body in package_functions())
    assert len(package_functions()) > 100


def test_an_exemption_is_one_of_the_rules_and_has_a_reason():
    for rules in EXEMPT.values():
        assert set(rules) <= set(RULES) and all(len(reason.split()) > 2 for reason in rules.values())
    assert {Path(path).stem for path in NOTEBOOKS} >= set(EXEMPT)
