"""The anatomy of a chapter's notebook, as rules: functions that take a `Chapter` and yield what is wrong with it.

tests/test_notebooks.py holds every notebook to what any notebook must be; these rules hold a chapter to the eight
parts that readers find in each one, in the same order, under the same headings.
"""
from __future__ import annotations

import ast
import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = [
    "The idea", "The mathematics", "Build it", "Train it a little", "The trained model", "Ours and the paper's",
    "Exercises", "To discuss", "How Sora uses this",
]
LAST = 17                      # after this chapter comes none
LONGEST_FUNCTION = 40          # lines
SLIDES = (8, 24)               # cells on a deck
SLIDE_WORDS, SLIDE_LINES = 90, 18
UNDER_ONE = 6                  # cells of code under one heading
COLUMNS = 118                  # of a printed line that JupyterLab, 1,400 pixels wide, does not break
COMPARISON = re.compile(r"\b(?:assert_close|assert_allclose|torch\.equal)\(")


@dataclass
class Piece:
    """A cell, or the part of a text cell between two level-2 headings."""

    cell: object
    text: str

    @property
    def code(self) -> bool:
        return self.cell.cell_type == "code"

    @property
    def tags(self) -> list[str]:
        return self.cell.metadata.get("tags", [])


@dataclass
class Chapter:
    """A notebook with its number, its name ("unet") and the package's exercises for it.

    module: what of soralab the chapter builds; trains: whether it has a recipe, and so a run to hold a loss against.
    """

    number: int
    name: str
    nb: object
    exercises: tuple = ()
    module: str = ""
    trains: bool = True

    def __post_init__(self):
        self.module = self.module or self.name

    @functools.cached_property
    def parts(self) -> dict[str, list[Piece]]:
        """The pieces under each heading of PARTS that is there, in the notebook's order; "" before the first."""
        found, here = {"": []}, ""
        for cell in self.nb.cells:
            if "navigation" in cell.metadata.get("tags", []):
                continue
            texts = re.split(r"^(?=## )", cell.source, flags=re.M) if cell.cell_type == "markdown" else [cell.source]
            for text in texts:
                head = re.match(r"## +(.+?) *\n", text + "\n") if cell.cell_type == "markdown" else None
                if head and head.group(1) in PARTS:
                    here = head.group(1)
                    found.setdefault(here, [])
                if text.strip():
                    found[here].append(Piece(cell, text))
        return found

    def words(self, part: str) -> str:
        """The text of a part."""
        return "\n\n".join(piece.text for piece in self.parts.get(part, ()) if not piece.code)

    def code(self, part: str) -> str:
        """The code of a part."""
        return "\n".join(piece.text for piece in self.parts.get(part, ()) if piece.code)

    def outputs(self, part: str) -> list:
        """The stored outputs of a part."""
        return [output for piece in self.parts.get(part, ()) if piece.code for output in piece.cell.outputs]


def has_picture(outputs) -> bool:
    """Whether an output shows a picture: an image, or HTML with one in it."""
    return any(kind.startswith("image/") or (kind == "text/html" and "<img " in value)
               for output in outputs for kind, value in output.get("data", {}).items())


def title_card(chapter: Chapter) -> Iterator[str]:
    card = chapter.nb.cells[0].source
    if not re.match(rf"# {chapter.number:02d} · \S", card):
        yield f"does not begin with '# {chapter.number:02d} · ' and a name"
    for word in ("Papers?", "You build", "Time", "You need"):
        if not re.search(rf"\*\*{word}\*\*", card):
            yield f"no **{word.rstrip('s?')}**"
    if not re.search(r"\]\(https://arxiv\.org/abs/[\w./-]+\)", card):
        yield "no link to arxiv.org/abs/"
    time = re.search(r"\*\*Time\*\*(.*?)(?:\*\*|\Z)", card, re.S)
    if not time or not ("two CPU cores" in time.group(1) and re.search(r"\bminutes?\b", time.group(1))):
        yield "the time is not given as minutes on two CPU cores"


def road_map(chapter: Chapter) -> Iterator[str]:
    if not re.search(rf"figures\.road_strip\(here={chapter.number}\b", chapter.code("")):
        yield f"no figures.road_strip(here={chapter.number}, ...) under the title card"
    elif not has_picture(chapter.outputs("")):
        yield "the strip is not drawn"


def order(chapter: Chapter) -> Iterator[str]:
    there = [part for part in chapter.parts if part]
    if there != [part for part in PARTS if part in there]:
        yield f"the headings stand in another order: {', '.join(there)}"


def idea(chapter: Chapter) -> Iterator[str]:
    if len(chapter.words("The idea").split()) < 60:
        yield "fewer than 60 words"
    if not has_picture(chapter.outputs("The idea")):
        yield "no picture drawn by code"


def mathematics(chapter: Chapter) -> Iterator[str]:
    words = chapter.words("The mathematics")
    if not re.search(r"\$\$.+?\$\$", words, re.S):
        yield "no displayed formula"
    if not re.search(r"\bEqs?\.|\b(?:equation|section|figure|table|algorithm)s? +\(?\d", words, re.I):
        yield "does not say where in the paper (Eq. (2), section 3.1)"


def build(chapter: Chapter) -> Iterator[str]:
    code = chapter.code("Build it")
    if not COMPARISON.search(code):
        yield "the first version is compared with nothing: torch.testing.assert_close"
    if not re.search(rf"^from soralab(?:\.{chapter.module}\b| import .*\b{chapter.module}\b)", code, re.M):
        yield f"imports nothing from soralab.{chapter.module} to compare with"


def training(chapter: Chapter) -> Iterator[str]:
    code, words = chapter.code("Train it a little"), chapter.words("Train it a little")
    if not re.search(r"\b(?:minute|second)s?\b", words):
        yield "does not say how long it takes"
    if not chapter.trains:
        yield from step(code, words)
        return
    if not re.search(r"\bby_profile\(", code):
        yield "its length does not follow the profile: by_profile"
    if not re.search(r"\bloss_curve\(.*?\bband=", code, re.S) or not re.search(r"\b(?:verdict|inside_band)\(", code):
        yield "the loss is not held against the reference runs: loss_curve(..., band=...) and verdict"
    if not re.search(r"\bloss\b", words) or not re.search(r"\d", words):
        yield "does not say which loss to expect"


def step(code: str, words: str) -> Iterator[str]:
    """A chapter without weights of its own has no loss and no band: it shows a step of training through its code."""
    if not re.search(r"\bnothing to train\b", words):
        yield "does not say that there is nothing to train"
    if ".backward(" not in code or not COMPARISON.search(code):
        yield "no step's gradients are compared: .backward() and torch.testing.assert_close"


def results(chapter: Chapter) -> Iterator[str]:
    part = "The trained model"
    outputs, words = chapter.outputs(part), chapter.words(part)
    if not re.search(r"\bload\w*\(|\bread_card\(|\.from_checkpoint\(", chapter.code(part)):
        yield "no shipped checkpoint is loaded"
    if not has_picture(outputs):
        yield "nothing to look at"
    if not any(re.search(r"\d", output.get("text", "")) for output in outputs):
        yield "no numbers"
    if not re.search(r"held[- ]out|never (?:saw|seen|touches)|\btest\b", words):
        yield "does not say that its data are held out"
    if "paper" not in words:
        yield "does not reproduce anything of the paper's"


def departures(chapter: Chapter) -> Iterator[str]:
    from soralab.sessions.plain import table

    words = chapter.words("Ours and the paper's")
    if len(table(words)) < 5:
        yield "no table of four rows or more"
    named = re.findall(r"tests/[\w/]+\.py", words)
    if not named:
        yield "names no test that shows a departure to be harmless"
    yield from (f"{name} does not exist" for name in named if not (ROOT / name).exists())


def exercises(chapter: Chapter) -> Iterator[str]:
    pieces = [(kind, piece) for piece in chapter.parts.get("Exercises", ()) for kind in [_kind(piece)] if kind]
    kinds = "".join(kind for kind, _ in pieces)
    count = kinds.count("H")
    if not 3 <= count <= 5:
        yield f"{count} exercises; it takes three to five"
    if kinds != "HTSCL" * count:
        yield (f"the cells come as {kinds}, not as HTSCL for each: heading, task, stub (tag exercise), check, "
               "solution (tag solution)")
        return
    if count != len(chapter.exercises):
        yield f"{count} exercises here, {len(chapter.exercises)} in the package"
    for k, task in enumerate(chapter.exercises[:count]):
        here = [piece for _, piece in pieces[5 * k: 5 * k + 5]]
        yield from (f"exercise {k + 1}: {problem}" for problem in _exercise(chapter, k + 1, task, here))


def own_functions(chapter: Chapter) -> Iterator[str]:
    """What the check says, "from here on the notebook uses ...", is to be true: a cell runs the reader's function."""
    checked = ""
    for piece in [*chapter.parts.get("Exercises", ()), Piece(None, "### Exercise")]:
        kind = "H" if piece.cell is None else _kind(piece)
        if checked and (kind == "H" or not kind and piece.code and re.search(rf"\b{checked}\b", piece.text)):
            if kind == "H":
                yield f"no cell runs {checked} after its check"
            checked = ""
        if kind == "C":
            checked = piece.text.partition(" = ")[0].strip()


def _kind(piece: Piece) -> str:
    """Which of an exercise's five cells a piece is: H, T, S, C, L; "" for another."""
    if not piece.code:
        return "L" if "solution" in piece.tags else "H" if re.search(r"^### Exercise", piece.text, re.M) else ""
    if "exercise" in piece.tags:
        return "S"
    return "C" if ".check(" in piece.text else "T" if re.search(r"\bexercise\(", piece.text) else ""


def _exercise(chapter: Chapter, k: int, task, here: list[Piece]) -> Iterator[str]:
    heading, statement, stub, check, solution = here
    function = task.name.partition(".")[2]
    if not re.search(rf"^### Exercise {chapter.number}\.{k} · {re.escape(task.title)}$", heading.text, re.M):
        yield f"the heading is not '### Exercise {chapter.number}.{k} · {task.title}'"
    said = re.search(r"[●○]{3} · \d+ minutes", heading.text)
    if said and said.group() != f"{task.dots} · {task.minutes} minutes":
        yield f"the heading says {said.group()}, the exercise {task.dots} · {task.minutes} minutes"
    if statement.text.strip() != task.first_cell():
        yield "the statement's cell is not the package's first_cell(), after which stub and check run alone"
    shown = heading.text + "".join(str(output.get("data", "")) for output in statement.cell.outputs)
    if task.dots not in shown or f"{task.minutes} minutes" not in shown:
        yield f"{task.dots} and {task.minutes} minutes are not shown"
    if stub.text.strip() != task.stub_source().strip():
        yield "the stub is not the package's stub_source()"
    if check.text.strip() != f"{function} = task.check({function})":
        yield f"the check is not '{function} = task.check({function})'"
    if not re.search(r"<details>\s*<summary>.*?</summary>.*```python.*</details>", solution.text, re.S):
        yield "the solution is not folded in <details>"
    code = re.search(r"```python\n(.*?)\n```", solution.text, re.S)
    if not code or code.group(1).strip() != task.solution_source().strip():
        yield "the solution is not the package's solution_source()"


def discussion(chapter: Chapter) -> Iterator[str]:
    words = chapter.words("To discuss")
    asked = re.split(r"\*\*[^*\n]+\*\* \(think \d+(?: minutes?)?, talk \d+(?: minutes?)?\)\.? ", words)[1:]
    if len(asked) < 2:
        yield f"{len(asked)} questions like '**Its title** (think 2 minutes, talk 8). ...'; it takes two"
    for k, text in enumerate(asked, 1):
        answer = re.search(r"<details>\s*<summary>A model answer</summary>(.+?)</details>", text, re.S)
        if not answer:
            yield f"question {k}: no folded model answer"
        elif not re.search(r"misconception|usual (?:first answer|mistake)", answer.group(1)):
            yield f"question {k}: the answer does not name the usual misconception"


def next_chapter(chapter: Chapter) -> Iterator[str]:
    words = chapter.words("How Sora uses this")
    if len(words.split()) < 30:
        yield "fewer than 30 words"
    last = words.strip().split("\n\n")[-1]
    later = [int(number) for number in re.findall(r"[Cc]hapter (\d+)", last)]
    onwards = chapter.number == LAST or any(number > chapter.number for number in later)
    if not last.startswith("**Next.**") or not onwards:
        yield "does not end with a paragraph '**Next.** Chapter ...' that names a later chapter"


def slides(chapter: Chapter) -> Iterator[str]:
    from soralab.sessions.slides import SHOWN, slide_type

    shown = [cell for cell in chapter.nb.cells if slide_type(cell) in SHOWN]
    if not SLIDES[0] <= len(shown) <= SLIDES[1]:
        yield f"{len(shown)} cells with a Slide Type; it takes {SLIDES[0]} to {SLIDES[1]}"
        return
    if slide_type(chapter.nb.cells[0]) != "slide":
        yield "the title card is not the first slide"
    if not any(re.search(r"^## The idea$", cell.source, re.M) and slide_type(cell) == "slide" for cell in shown):
        yield "the cell with '## The idea' is no slide"
    if not any("$" in cell.source for cell in shown if cell.cell_type == "markdown"):
        yield "no formula"
    if sum(has_picture(cell.get("outputs", ())) for cell in shown) < 2:
        yield "fewer than two pictures"
    for cell in shown:
        start = cell.source.strip().splitlines()[0][:40]
        if cell.cell_type == "markdown" and len(cell.source.split()) > SLIDE_WORDS:
            yield f"{start!r} has {len(cell.source.split())} words; a slide takes {SLIDE_WORDS}"
        if (cell.cell_type == "code" and len(cell.source.splitlines()) > SLIDE_LINES
                and "hide-input" not in cell.metadata.get("tags", [])):
            yield f"{start!r} has more than {SLIDE_LINES} lines and no tag hide-input"


def functions(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.nb.cells:
        if cell.cell_type != "code" or "exercise" in cell.metadata.get("tags", []):
            continue
        code = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                    yield f"{node.name} is longer than {LONGEST_FUNCTION} lines: it belongs into the package"
                twin = package_functions().get(body_of(node))
                if twin:
                    yield f"{node.name} is a copy of {twin}: import it"


def printed(chapter: Chapter) -> Iterator[str]:
    """What a cell prints fits into the page: a browser breaks a wider line in the middle of a word."""
    for cell in chapter.nb.cells:
        for text in map(plain_text, cell.get("outputs", ())):
            for line in re.split(r"[\r\n]", text):
                if columns(line) > COLUMNS:
                    yield f"the cell {cell.id} prints {columns(line)} columns, it takes {COLUMNS}: {line[:50]!r} ..."


def plain_text(output) -> str:
    """What an output shows in letters of one width: what was printed, a traceback, a value that has no other form."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return output.data["text/plain"] if list(output.data) == ["text/plain"] else ""


def columns(line: str) -> int:
    """How wide a line is: a Chinese letter takes two columns, a sign above or below another none, a colour neither."""
    wide = 0
    for sign in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rstrip()).expandtabs():
        if unicodedata.category(sign) not in ("Mn", "Me", "Cf"):
            wide += 2 if unicodedata.east_asian_width(sign) in "WF" else 1
    return wide


def folds(chapter: Chapter) -> Iterator[str]:
    """Text in the cell of a fold sticks to the closed fold, which has no margin; in a cell of its own it does not."""
    for cell in chapter.nb.cells:
        if cell.cell_type == "markdown":
            for behind in re.findall(r"</details>\s*(\S[^\n]{,40})", cell.source):
                yield f"the cell {cell.id} goes on behind a fold, with {behind!r}: a fold is its cell's end"


def headings(chapter: Chapter) -> Iterator[str]:
    """A reader sees what a cell is about: a run of cells without a heading has lost one."""
    head, run = "the first cell", []
    for cell in chapter.nb.cells:
        found = re.findall(r"^#+ +(.+?) *$", cell.source, flags=re.M) if cell.cell_type == "markdown" else []
        if found:
            head, run = repr(found[-1]), []
        elif cell.cell_type == "code":
            run.append(cell.id)
            if len(run) == UNDER_ONE + 1:
                yield f"more than {UNDER_ONE} cells of code under {head}, {run[0]} to {cell.id} and on"


def body_of(node) -> str:
    """A function's statements without its docstring, as a text to compare; "" for one statement or none."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return "\n".join(ast.dump(statement) for statement in body) if len(body) > 1 else ""


@functools.cache
def package_functions() -> dict[str, str]:
    """{body: "soralab/blocks/patches.py: patchify"} for every function of the package of two statements or more."""
    found = {}
    for path in sorted((ROOT / "soralab").rglob("*.py")):
        if "exercises" not in path.relative_to(ROOT).parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and body_of(node):
                    found[body_of(node)] = f"{path.relative_to(ROOT).as_posix()}: {node.name}"
    return found


RULES = {
    "title card": title_card, "road map": road_map, "order": order, "The idea": idea,
    "The mathematics": mathematics, "Build it": build, "Train it a little": training, "The trained model": results,
    "Ours and the paper's": departures, "Exercises": exercises, "own functions": own_functions,
    "To discuss": discussion,
    "How Sora uses this": next_chapter, "slides": slides, "functions": functions,
    "printed": printed, "folds": folds, "headings": headings,
}


def problems(chapter: Chapter, exempt=()) -> list[str]:
    """Everything wrong with a chapter: ["Build it: ...", ...]; exempt: names of RULES that are not applied."""
    found = []
    for name, rule in RULES.items():
        if name not in exempt:
            if name in PARTS and name not in chapter.parts:
                found.append(f"{name}: no heading '## {name}'")
            else:
                found += [f"{name}: {problem}" for problem in rule(chapter)]
    return found
