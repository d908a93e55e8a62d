"""The leader's guides: every guide there is passes the rules, each rule refuses a guide broken in its way."""
import json
import re
from pathlib import Path

import pytest

from soralab.command import _parser, main
from soralab.sessions import NOTEBOOKS, guide, numbered
from soralab.sessions.formulas import readable
from soralab.sessions.guide import show
from soralab.sessions.plain import plain, table

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "sessions"
GUIDES = sorted(FOLDER.glob("*.md"))

ANSWER = " ".join(["Because the gap between two cells is a few pixels wide, the loss hardly feels it."] * 3)
ROLE = " ".join(["You look at the paper from your own side and tell the others in two minutes what you see."] * 2)
ASKED = "Why does the loss of Eq. (1) weigh the pixels between two touching cells at all?"
INTRO = "How does a network say where a thing is, and not only what it is?"
QUESTION = f"""### {{0}}. Why weigh gap {{0}}? (think 2 minutes, talk 6)

{ASKED}

<details><summary>A model answer</summary>

{ANSWER}

</details>

**Usual misconception.** People say that it makes the border sharp, but the border is sharp without it.
"""
GOOD = f"""# Session 01 · U-Net

{INTRO}

## Read before

Preparation: 15 minutes for a leader who has read the paper, 40 for one who has not.

- *Everybody*, 15 minutes: sections 1 and 2 and figure 1.
  Look for the crops.
- *Everybody*, 10 minutes: section 3, as far as Eq. (2).
- *Leader*, 15 minutes: notebook 01, the pictures.
- *If there is time*, 20 minutes: the ISBI challenge.

## In 60 minutes

| minute | what | who |
|---|---|---|
| 0–10 | The board sketch | Leader |
| 10–26 | Questions 1 and 3 | Pairs, then everybody |
| 26–50 | Sceptic, advocate, archaeologist | the three |
| 50-60 | The exercise | Hacker |

## In 90 minutes

| minute | what | who |
|---|---|---|
| 0–10 | The board sketch | Leader |
| 10–50 | Questions 1 to 5 | Pairs |
| 50–80 | Sceptic, advocate, archaeologist | the three |
| 80–90 | The exercise | Hacker |

## Five questions

{"".join(QUESTION.format(k) + chr(10) for k in range(1, 6))}
## Roles

**Sceptic.** {ROLE}

**Advocate.** {ROLE}

**Archaeologist.** {ROLE}

**Hacker.** {ROLE} Yours is `unet.weight_map`.

## On the board

Sizes first.

```text
## not a heading: 572 x 572
572 × 572 × 64 -> 570 × 570
```

## If you have only 30 minutes

| minute | what | who |
|---|---|---|
| 0–20 | The board sketch | Leader |
| 20–30 | Question 2 | Everybody |

## Hand-out

{" ".join(["A page of plain words about the net."] * 20)}
"""
NOTEBOOK = {"cells": [{"cell_type": "code", "source": ['task = exercise("unet.weight_map")\n', "task"]}]}


@pytest.fixture
def notebooks(tmp_path):
    """A folder of notebooks with one chapter and its guide."""
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "01_unet.md").write_text(GOOD, encoding="utf-8")
    (tmp_path / "01_unet.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    return tmp_path


def judged(notebooks, text):
    path = notebooks / "sessions" / "01_unet.md"
    path.write_text(text, encoding="utf-8")
    return guide.problems(guide.read(path))


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_guide(path):
    assert guide.problems(guide.read(path)) == []


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_every_part_of_a_guide_is_printed(path):
    for part in guide.PARTS:
        text = guide.show(int(path.name[:2]), part)
        assert len(text.split()) > 20 and "<details" not in text


def test_a_good_guide_passes(notebooks):
    assert judged(notebooks, GOOD) == []


def test_a_guide_is_taken_apart(notebooks):
    parsed = guide.read(notebooks / "sessions" / "01_unet.md")
    assert (parsed.number, parsed.title) == (1, "Session 01 · U-Net")
    assert [(r.who, r.minutes) for r in parsed.reading] == [
        ("Everybody", 15), ("Everybody", 10), ("Leader", 15), ("If there is time", 20)]
    assert parsed.reading[0].text.endswith("crops.")
    assert [(row.start, row.end, row.questions) for row in parsed.sheets[60]] == [
        (0, 10, set()), (10, 26, {1, 3}), (26, 50, set()), (50, 60, set())]
    assert parsed.sheets[90][1].questions == {1, 2, 3, 4, 5}
    first = parsed.questions[0]
    assert (first.number, first.title, first.think, first.talk) == (1, "Why weigh gap 1?", 2, 6)
    assert first.text.startswith("Why does") and "<" not in first.text
    assert first.answer == ANSWER and first.misconception.startswith("People say")
    assert list(parsed.roles) == list(guide.ROLES) and parsed.exercises == ["unet.weight_map"]
    assert parsed.board.startswith("## not a heading") and len(parsed.sections) == 8


@pytest.mark.parametrize("what, numbers", [
    ("Question 2", {2}), ("questions 1, 2 and 5", {1, 2, 5}), ("Questions 2–4", {2, 3, 4}),
    ("Questions 1 and 3: think", {1, 3}), ("The first question", set()), ("Question 1 again, 5 minutes", {1}),
])
def test_questions_of_a_line(what, numbers):
    assert guide.Row(0, 5, what, "Pairs").questions == numbers


def without(heading):
    """GOOD without one of its sections."""
    return re.sub(rf"## {heading}\n.*?(?=\n## |\Z)", "", GOOD, flags=re.S)


BREAK = {
    "the title is": GOOD.replace("Session 01 ·", "Session 1:"),
    "no sentence below the title": GOOD.replace(INTRO, ""),
    "the headings are": without("In 60 minutes"),
    "does not begin like": GOOD.replace("- *Everybody*, 10 minutes:", "- Everybody:"),
    "fewer than two things": GOOD.replace("- *Everybody*, 10 minutes: section 3, as far as Eq. (2).\n", ""),
    "does not say 'Preparation: 15 minutes for a leader who has read the paper, 40":
        GOOD.replace("paper, 40", "paper, 20"),
    "leader's own reading takes 25": GOOD.replace("*Leader*, 15", "*Leader*, 25"),
    "leader's own reading takes 0": GOOD.replace("*Leader*, 15", "*If there is time*, 15"),
    "In 90 minutes: no table": without("In 90 minutes"),
    "no range": GOOD.replace("| 0–10 | The", "| ten | The", 1),
    "begins at minute 27": GOOD.replace("| 26–50", "| 27–50"),
    "begins at minute 25": GOOD.replace("| 26–50", "| 25–50"),
    "does not say what and who": GOOD.replace("| The exercise | Hacker |", "| The exercise | |", 1),
    "its questions take 16": GOOD.replace("| 10–26", "| 10–25").replace("| 26–50", "| 25–50"),
    "ends at minute 55, not 60": GOOD.replace("| 50-60", "| 50-55"),
    "ends at minute 90, not 60": GOOD.replace("| 50-60", "| 50-90"),
    "plans 1 question;": GOOD.replace("Questions 1 and 3", "Question 1"),
    "no line for the Archaeologist": GOOD.replace("Sceptic, advocate, archaeologist", "Sceptic, advocate", 1),
    "found [1, 2, 3, 4]": GOOD.replace("gap 5? (think 2 minutes, talk 6)", "gap 5?"),
    "no minutes to think": GOOD.replace("(think 2", "(think 0", 1),
    "the question has fewer": GOOD.replace(ASKED, "Why?", 1),
    "the model answer has fewer": GOOD.replace(ANSWER, "Because.", 1),
    "not folded": GOOD.replace("<details><summary>A model answer</summary>", "", 1),
    "the usual misconception is missing": GOOD.replace("**Usual misconception.**", "People err.", 1),
    "it takes Sceptic, Advocate": GOOD.replace("**Advocate.**", "**Believer.**"),
    "Sceptic's has fewer": GOOD.replace(f"**Sceptic.** {ROLE}", "**Sceptic.** Doubt."),
    "names 0 exercises": GOOD.replace("`unet.weight_map`", "the weight map"),
    "unet.crop is not in the notebook": GOOD.replace("`unet.weight_map`", "`unet.crop`"),
    "no drawing": GOOD.replace("```text", "```"),
    "larger than": GOOD.replace("572 × 572 × 64 ->", "572 × 572 × 64 " + "-" * 90 + ">"),
    "has no sizes": GOOD.replace("## not a heading: 572 x 572\n572 × 572 × 64 -> 570 × 570", "in -> out"),
    "Hand-out: 480 words": GOOD.replace("A page of plain words about the net.", "A page of words. " * 6),
    "Hand-out: 20 words": GOOD.replace("A page of plain words about the net.", "Words."),
    "no <details>": GOOD + "<details><summary>More</summary></details>\n",
}


@pytest.mark.parametrize("rule", BREAK)
def test_rule_refuses(notebooks, rule):
    assert BREAK[rule] != GOOD
    found = judged(notebooks, BREAK[rule])
    assert any(rule in problem for problem in found), found


def test_an_exercise_must_be_in_the_chapters_own_notebook(notebooks):
    (notebooks / "01_unet.ipynb").unlink()
    assert any("has none" in problem for problem in judged(notebooks, GOOD))


def test_show_prints_all_parts_or_one(notebooks):
    whole = guide.show(1, notebooks=notebooks)
    places = [whole.index(heading.upper()) for heading in guide.PARTS.values()]
    assert places == sorted(places) and "where a thing is" in whole
    assert max(map(len, whole.splitlines())) <= 100
    assert not re.search(r"<\w+>|\*\*|^\|", whole, re.M)
    board = guide.show(1, "board", notebooks)
    assert "    572 × 572 × 64 -> 570 × 570" in board and "READ BEFORE" not in board
    sheet = guide.show(1, "60", notebooks).splitlines()
    head, row = next(line for line in sheet if "minute " in line), next(line for line in sheet if "10–26" in line)
    assert head.index("who") == row.index("Pairs")
    asked = guide.show(1, "questions", notebooks)
    assert asked.index("Why weigh gap 1? (think 2 minutes, talk 6)") < asked.index("A model answer:\n\n    Because")
    assert "\nUsual misconception. People" in asked


def test_show_names_what_there_is(notebooks):
    with pytest.raises(ValueError, match="number is 7; it takes one of 1"):
        guide.show(7, notebooks=notebooks)
    with pytest.raises(ValueError, match="part is 'sixty'; it takes one of read, 60, 90, questions, roles, board, 30"):
        guide.show(1, "sixty", notebooks)
    with pytest.raises(FileNotFoundError, match="sessions is missing: .* clone"):
        guide.show(1, notebooks=notebooks / "elsewhere")


@pytest.mark.parametrize("markdown, text", [
    ("a **bold** word, a *slanted* one, `a*b*c`", "a bold word, a slanted one, a*b*c"),
    ("2 * 3 * 4 and $w_1 * x * y$", "2 * 3 * 4 and w₁ * x * y"),
    ("[U-Net](https://arxiv.org/abs/1505.04597)", "U-Net (https://arxiv.org/abs/1505.04597)"),
    ("- one\n- two\n  lines", "- one\n- two lines"),
    ("### Head\nText.", "Head\n\nText."),
    ("$$\na = b\n$$", "    a = b"),
    ("```text\na  b\n```", "    a  b"),
])
def test_markdown_for_a_terminal(markdown, text):
    assert plain(markdown) == text


def test_wide_tables_are_wrapped():
    rows = "| minute | what |\n|---|---|\n| 0–5 | " + "many words " * 30 + "|"
    assert table(rows)[0] == ["minute", "what"]
    lines = plain(rows, 60).splitlines()
    assert max(map(len, lines)) <= 60 and len(lines) > 5 and lines[2].startswith("0–5      many")
    assert sum(line.count("many") for line in lines) == 30
    assert plain("| one | two |\n|---|---|\n| alone |").splitlines()[0].split() == ["one", "two"]
    crowded = plain("| " + " | ".join(["eleven pens"] * 9) + " |\n" + "|---" * 9 + "|", 40).splitlines()
    assert crowded[0] == "   ".join(["eleven".ljust(8)] * 9).rstrip()  # a column is eight wide at the least


# ------------------------------------------------------------------------------------------ formulas in plain letters


@pytest.mark.parametrize("latex, text", [
    ("x_t", "xₜ"), (r"\gamma = 0.99", "γ = 0.99"), (r"e_i = m_i / N_i", "eᵢ = mᵢ / Nᵢ"),
    (r"\mathrm{softmax}(Q K^\top / \sqrt{d_k})\, V", "softmax(Q Kᵀ / √dₖ) V"),
    (r"\exp\left(-\frac{(d_1(x) + d_2(x))^2}{2\sigma^2}\right)", "exp(-((d₁(x) + d₂(x))²)/(2σ²))"),
    (r"\tfrac12(a + b)", "1/2(a + b)"), (r"E_\text{pos}", "E_pos"), (r"z_{t-1}", "zₜ₋₁"), ("x^{ab}", "x^ab"),
    (r"\mathbb{E}_{\mathcal{E}(x), y} \lVert \epsilon \rVert^2", "𝔼_(ℰ(x), y) ‖ε‖²"),
    (r"dO\,V^\top", "dO Vᵀ"), (r"\sum_c x", "Σ_c x"), (r"a \qquad b", "a   b"),
    (r"z \leftarrow \hat x + s\,\big(f \circ g\big),\ 1", "z ← x\u0302 + s (f ∘ g), 1"),
    (r"\tilde z_{low} \uparrow_F, \bar x", "z\u0303_low ↑_F, x\u0304"),
])  # fmt: skip
def test_a_formula_in_plain_letters(latex, text):
    assert readable(latex) == text


@pytest.mark.parametrize("latex", [r"\unknown x", "{x", "x}", r"\frac{a}", r"\mathbb{Q}", "x^"])
def test_a_formula_that_plain_letters_cannot_write_is_refused(latex):
    with pytest.raises(ValueError, match="the formula"):
        readable(latex)


@pytest.mark.parametrize("number", sorted(numbered(NOTEBOOKS / "sessions", ".md")))
def test_no_guide_shows_raw_latex(number):
    """On paper and in a terminal nobody sets a formula."""
    text = re.sub(r"^    .*$", "", show(number), flags=re.M) + show(number, "handout")
    assert not re.search(r"\\[a-zA-Z]+|\$[^$\n]*[\\_^][^$\n]*\$", text)


# ----------------------------------------------------------------------------- what a guide tells of its chapter's page


def page(name: str) -> str:
    """All that a page says: its text, and what its cells print."""
    (path,) = NOTEBOOKS.glob(f"{name}_*.ipynb")
    said = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        said += cell["source"]
        for output in cell.get("outputs", []):
            said += [*output.get("text", []), "\n", *output.get("data", {}).get("text/plain", []), "\n"]
    return re.sub(r"\s+", " ", "".join(said))


def test_the_command_takes_the_chapters_that_have_a_guide_and_its_help_says_so(capsys):
    there = list(numbered(FOLDER, ".md"))
    for number in range(-1, 20):
        if number in there:
            assert _parser().parse_args(["session", str(number)]).number == number
            continue
        with pytest.raises(SystemExit) as stopped:
            main(["session", str(number)])
        assert stopped.value.code == 2
        line, = capsys.readouterr().err.splitlines()
        assert f"from {there[0]} to {there[-1]}" in line or number < 0
    with pytest.raises(SystemExit):
        main(["session", "--help"])
    told = capsys.readouterr().out
    assert f"of the chapter, {there[0]} to {there[-1]} (0, the road map, has none)" in " ".join(told.split())


@pytest.mark.parametrize("chapter, told, shown", [
    ("01", "pixel error 0.093 against 0.082", ("no skips", "0.093", "0.082")),
    ("04", "fixed at 14.3 does as well as a learned one (78.9 % against 77.9",
     ("fixed at 14.3 14.3 78.9%", "77.9%")),
    ("04", "a factor of 1 gets 16.6 %", ("fixed at 1 1.0 16.6%",)),
    ("04", "gets 52.0 % there, but only 89.6 % at home", ("52.0 %", "89.6 %")),
    ("05", "use all 128 without revival (29.6 dB, against 28.5", ("ever used 128", "29.6", "28.5")),
    ("06", "(12.5 % read right before, 32.5 % after)", ("given 12.5% made 32.5%",)),
    ("07", "cost the shipped model 38 points; 400 steps with dropping win back 12.5 of them, and cost 6.0",
     ("38 points", "12.5", "6.0")),
    ("07", "1.8 ± 0.9 points over a constant one, and no dropping at all is 2.6",
     ("1.8 ± 0.9", "2.6 points behind")),
    ("07", "1.9 times padded rows; squares are quicker still", ("1.89 times padded", "2.69 times padded")),
    ("08", "With tubelets, the paper's tokens, it is not behind: 99.8 % against 98.1",
     ("model 1 99.8%", "model 2 98.1%")),
    ("08", "the reader at least 94 % sure", ("94 % sure",)),
    ("09", "from level 0 to 0.45 the made films that are right fall from 37 to 23 %", ("37", "23")),
    ("09", "25 of 60 made films are right, and 16 for a twin", ("25 of", "16")),
    ("09", "ends 0.095 off", ("9.5e-02",)),
    ("10", "a hundred and fifty films decide four points (72.7 and 76.7 %", ("72.7", "76.7")),
    ("10", "a sixth of the flicker from latents with noise, and three parts in a hundred",
     ("sixth", "three parts in a")),
    ("11", "windows end 4.0 % above full attention, and 1.6 % with one full block", ("+4.0", "+1.6")),
    ("12", "stayed a coin's, 57 of 111", ("heavy noise counts more 111 60 57",)),
    ("12", "218 times", ("218",)), ("12", "91 % precision from it, 94 from", ("91", "94")),
    ("12", "Of 515 shapes", ("515",)),
    ("17", "ours was the fastest with sliding tiles alone", ("sliding",)),
])  # fmt: skip
def test_a_number_that_a_guide_tells_is_its_page_s(chapter, told, shown):
    guide, = FOLDER.glob(f"{chapter}_*.md")
    assert told in guide.read_text(encoding="utf-8"), told
    for number in shown:
        assert number in page(chapter), number
