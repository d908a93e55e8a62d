"""The leader's guide to a chapter: one Markdown file, `notebooks/sessions/NN_name.md`, with fixed headings.

    # Session 07 · NaViT                  then one to three sentences: what the meeting is about

    ## Read before                        - *Everybody*, 15 minutes: sections 1 and 2; look for ...
                                          - *Leader*, 10 minutes: ...   (the leader's own: 20 minutes at most in all)
                                          Preparation: 10 minutes for a leader who has read the paper, 40 for ...
                                          - *If there is time*, 20 minutes: ...
    ## In 60 minutes                      | minute | what | who |, minute as 0–5, to 60 without a gap
    ## In 90 minutes                      the same to 90
    ## Five questions                     ### 1. Its title (think 2, talk 6)
                                          the question
                                          <details><summary>A model answer</summary> ... </details>
                                          **Usual misconception.** ...
    ## Roles                              **Sceptic.** **Advocate.** **Archaeologist.** **Hacker.**, a paragraph each;
                                          the hacker's names an exercise of the notebook: `navit.pack`
    ## On the board                       a fenced text drawing with sizes: shapes before code
    ## If you have only 30 minutes        a run sheet to 30
    ## Hand-out                           one page, 120 to 350 words

`read` takes such a file apart, `problems` says what is wrong with it, and `show` is what `soralab session 7` prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from soralab.files.counts import so_many
from soralab.sessions import GUIDES, NOTEBOOKS, chosen, numbered
from soralab.sessions.plain import outside_fences, plain, table

PARTS = {
    "read": "Read before",
    "60": "In 60 minutes",
    "90": "In 90 minutes",
    "questions": "Five questions",
    "roles": "Roles",
    "board": "On the board",
    "30": "If you have only 30 minutes",
    "handout": "Hand-out",
}
ROLES = ("Sceptic", "Advocate", "Archaeologist", "Hacker")
READERS = ("Everybody", "Leader", "If there is time")
PREPARATION = 20  # minutes, the leader's own
HANDOUT = (120, 350)  # words on one page
BOARD = (100, 40)  # columns and lines that a drawing may have
SHEETS = {30: 0, 60: 2, 90: 4}  # a run sheet's minutes, and how many questions it plans at least


@dataclass(frozen=True)
class Reading:
    """One thing to read: who reads it ("Everybody"), how long it takes, what and what to look for."""

    who: str
    minutes: int
    text: str


@dataclass(frozen=True)
class Row:
    """One line of a run sheet, from minute `start` to minute `end`."""

    start: int
    end: int
    what: str
    who: str

    @property
    def questions(self) -> set[int]:
        """The numbers of the questions that the line plans: {1, 3} for "Questions 1 and 3"."""
        found = set()
        for match in re.finditer(r"\bquestions?\s+(\d(?:(?:,| and|–|-| to)?\s*\d)*)", self.what, re.I):
            for first, last in re.findall(r"(\d)(?:\s*(?:–|-|to)\s*(\d))?", match.group(1)):
                found |= set(range(int(first), int(last or first) + 1))
        return found


@dataclass(frozen=True)
class Question:
    """A question with its minutes of silence (`think`) and of talk, a model answer, the usual misconception."""

    number: int
    title: str
    think: int
    talk: int
    text: str
    answer: str
    misconception: str


@dataclass(frozen=True)
class Guide:
    """A guide taken apart. sections: {heading: text}; sheets: {60: rows}; roles: {"Sceptic": text}."""

    path: Path
    title: str
    intro: str
    sections: dict[str, str]
    reading: tuple[Reading, ...]
    sheets: dict[int, tuple[Row, ...]]
    questions: tuple[Question, ...]
    roles: dict[str, str]
    board: str
    handout: str

    @property
    def number(self) -> int:
        """The chapter's number."""
        return int(self.path.name[:2])

    @property
    def exercises(self) -> list[str]:
        """What the hacker's paragraph names in backticks like an exercise: ["unet.weight_map"]."""
        return re.findall(r"`([a-z]\w*\.[A-Za-z]\w*)`", self.roles.get("Hacker", ""))


def read(path: str | Path) -> Guide:
    """Take a guide apart. What is missing or misspelt comes out empty: `problems` names it.

    Raises OSError for a file that cannot be read.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    heads = [match for match in re.finditer(r"^## +(.+?) *$", text, re.M) if outside_fences(text, match.start())]
    ends = [match.start() for match in heads[1:]] + [len(text)]
    sections = {head.group(1): text[head.end():end].strip() for head, end in zip(heads, ends, strict=True)}
    top = text[: heads[0].start()] if heads else text
    title = re.match(r"# +(.+)", top)
    board = re.search(r"```text\n(.*?)```", sections.get(PARTS["board"], ""), re.S)
    return Guide(
        path=path,
        title=title.group(1).strip() if title else "",
        intro=(top[title.end():] if title else top).strip(),
        sections=sections,
        reading=tuple(_reading(sections.get(PARTS["read"], ""))),
        sheets={length: tuple(_rows(sections.get(PARTS[str(length)], ""))) for length in SHEETS},
        questions=tuple(_questions(sections.get(PARTS["questions"], ""))),
        roles=_roles(sections.get(PARTS["roles"], "")),
        board=board.group(1).rstrip() if board else "",
        handout=sections.get(PARTS["handout"], ""),
    )


def _reading(text: str) -> Iterator[Reading]:
    for item in re.split(r"^[-*] +", text, flags=re.M)[1:]:
        match = re.match(r"\*(.+?)\*, (\d+) minutes?: *(.+)", item, re.S)
        yield Reading(match[1], int(match[2]), match[3].strip()) if match else Reading("", 0, item.strip())


def _rows(text: str) -> Iterator[Row]:
    for cells in table(text)[1:]:
        minutes = re.fullmatch(r"(\d+) *[–-] *(\d+)", cells[0])
        start, end = (int(minutes[1]), int(minutes[2])) if minutes else (-1, -1)
        yield Row(start, end, *[*cells[1:3], "", ""][:2])


def _questions(text: str) -> Iterator[Question]:
    head = r"^### +(\d)\. +(.+?) \(think (\d+)(?: minutes?)?, talk (\d+)(?: minutes?)?\) *$"
    parts = re.split(head, text, flags=re.M)[1:]
    for number, title, think, talk, body in zip(*[iter(parts)] * 5, strict=True):
        answer = re.search(r"<details>\s*<summary>A model answer</summary>(.*?)</details>", body, re.S)
        after = body[answer.end():] if answer else body
        usual = re.search(r"\*\*Usual misconception\.\*\*(.*)", after, re.S)
        asked = body[: answer.start()] if answer else body
        yield Question(int(number), title, int(think), int(talk), asked.strip(),
                       answer[1].strip() if answer else "", usual[1].strip() if usual else "")


def _roles(text: str) -> dict[str, str]:
    parts = re.split(r"^\*\*(\w+)\.\*\*", text, flags=re.M)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


# --------------------------------------------------------------------------------------------------------- problems


def problems(guide: Guide) -> list[str]:
    """Everything wrong with a guide, in words: ["In 60 minutes: it ends at minute 55, not 60", ...]."""
    found = []
    name = guide.path.stem
    if not re.fullmatch(rf"Session {name[:2]} · .+", guide.title):
        found.append(f"the title is {guide.title!r}; it takes 'Session {name[:2]} · ' and a name")
    if not guide.intro:
        found.append("no sentence below the title says what the meeting is about")
    if list(guide.sections) != list(PARTS.values()):
        found.append(f"the headings are {', '.join(guide.sections) or 'none'}; it takes {', '.join(PARTS.values())}")
    found += _reading_problems(guide)
    for length in SHEETS:
        found += [f"{PARTS[str(length)]}: {problem}" for problem in _sheet_problems(guide, length)]
    found += _question_problems(guide)
    found += _role_problems(guide)
    return [*found, *_page_problems(guide)]


def _reading_problems(guide: Guide) -> Iterator[str]:
    part = PARTS["read"]
    for item in guide.reading:
        if item.who not in READERS or not item.minutes:
            yield f"{part}: {item.text[:40]!r} does not begin like '*Everybody*, 15 minutes: ' ({', '.join(READERS)})"
    if sum(item.who == "Everybody" for item in guide.reading) < 2:
        yield f"{part}: fewer than two things for *Everybody*"
    own = [item.minutes for item in guide.reading if item.who == "Leader"]
    if not own or sum(own) > PREPARATION:
        yield f"{part}: the leader's own reading takes {so_many(sum(own), 'minute')}; it takes 1 to {PREPARATION}"
    everything = sum(own) + sum(item.minutes for item in guide.reading if item.who == "Everybody")
    line = f"Preparation: {sum(own)} minutes for a leader who has read the paper, {everything} for one who has not."
    if line not in guide.sections.get(part, ""):
        yield f"{part}: it does not say {line!r}"


def _sheet_problems(guide: Guide, length: int) -> Iterator[str]:
    rows = guide.sheets[length]
    if not rows:
        yield "no table of minute, what, who"
        return
    clock = 0
    for row in rows:
        if row.start < 0 or row.end <= row.start:
            yield f"the minutes of {row.what[:40]!r} are no range such as 0–5"
        elif row.start != clock:
            yield f"{row.what[:40]!r} begins at minute {row.start}, the line before ends at {clock}"
        clock = row.end
        if not row.what or not row.who:
            yield f"the line at minute {row.start} does not say what and who"
        needed = sum(q.think + q.talk for q in guide.questions if q.number in row.questions)
        if needed > row.end - row.start:
            yield f"{row.what[:40]!r} has {so_many(row.end - row.start, 'minute')}, its questions take {needed}"
    if clock != length:
        yield f"it ends at minute {clock}, not {length}"
    planned = set().union(*(row.questions for row in rows))
    if len(planned) < SHEETS[length]:
        yield f"it plans {so_many(len(planned), 'question')}; it takes at least {SHEETS[length]}"
    if length > 30:
        words = " ".join(f"{row.what} {row.who}" for row in rows).lower()
        absent = [role for role in ROLES if role.lower() not in words]
        if absent:
            yield f"no line for the {', '.join(absent)}"


def _question_problems(guide: Guide) -> Iterator[str]:
    numbers = [question.number for question in guide.questions]
    if numbers != [1, 2, 3, 4, 5]:
        yield (f"{PARTS['questions']}: found {numbers}; it takes five, each headed like "
               "'### 1. Its title (think 2, talk 6)'")
    for question in guide.questions:
        where = f"Question {question.number}"
        if not question.think or not question.talk:
            yield f"{where}: no minutes to think, or none to talk"
        if len(question.text.split()) < 10:
            yield f"{where}: the question has fewer than 10 words"
        if len(question.answer.split()) < 40:
            yield f"{where}: the model answer has fewer than 40 words, or is not folded in <details>"
        if len(question.misconception.split()) < 10:
            yield f"{where}: the usual misconception is missing or has fewer than 10 words"


def _role_problems(guide: Guide) -> Iterator[str]:
    if tuple(guide.roles) != ROLES:
        yield f"Roles: found {', '.join(guide.roles) or 'none'}; it takes {', '.join(ROLES)}"
    for role, text in guide.roles.items():
        if len(text.split()) < 25:
            yield f"Roles: the {role}'s has fewer than 25 words"
    named, known = guide.exercises, _exercises_of(guide)
    if len(named) != 1:
        yield f"Roles: the Hacker's names {len(named)} exercises in backticks; it takes one, such as `unet.weight_map`"
    elif named[0] not in known:
        yield f"Roles: the Hacker's exercise {named[0]} is not in the notebook, which has {', '.join(known) or 'none'}"


def _exercises_of(guide: Guide) -> list[str]:
    """The exercises that the chapter's notebook calls for: `exercise("unet.weight_map")`."""
    path = guide.path.parent.parent / f"{guide.path.stem}.ipynb"
    if not path.exists():
        return []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.findall(r"""\bexercise\(\s*["']([\w.]+)["']""", code)


def _page_problems(guide: Guide) -> Iterator[str]:
    lines = guide.board.splitlines()
    if not lines:
        yield f"{PARTS['board']}: no drawing in a ```text block"
    elif len(lines) > BOARD[1] or max(map(len, lines)) > BOARD[0]:
        yield f"{PARTS['board']}: the drawing is larger than {BOARD[0]} columns by {BOARD[1]} lines"
    elif not re.search(r"\d *[×x] *\d|\[ *\w+ *(?:, *\w+ *)+\]", guide.board):
        yield f"{PARTS['board']}: the drawing has no sizes (572 × 572, or [batch, tokens, dim]): shapes before code"
    words = len(guide.handout.split())
    if not HANDOUT[0] <= words <= HANDOUT[1]:
        yield f"{PARTS['handout']}: {words} words; a page takes {HANDOUT[0]} to {HANDOUT[1]}"
    if re.search(r"<details|!\[", guide.handout):
        yield f"{PARTS['handout']}: paper has no <details> to open, and a picture may not be beside it"


# ------------------------------------------------------------------------------------------------------------- show


def show(number: int, part: str | None = None, notebooks: Path = NOTEBOOKS) -> str:
    """The guide to chapter `number` as text for a terminal, whole or one part of it (the names in PARTS).

    Raises ValueError for a number without a guide and an unknown part, FileNotFoundError where the clone is missing.
    """
    if part is not None and part not in PARTS:
        raise ValueError(f"part is {part!r}; it takes one of {', '.join(PARTS)}")
    guide = read(chosen(numbered(Path(notebooks) / GUIDES, ".md"), number, "number"))
    headings = list(PARTS.values()) if part is None else [PARTS[part]]
    blocks = [f"{heading.upper()}\n\n{plain(guide.sections[heading])}" for heading in headings
              if heading in guide.sections]
    top = f"{guide.title}\n{'=' * len(guide.title)}"
    if part is None:
        top += f"\n\n{plain(guide.intro)}"
    return "\n\n\n".join([top, *blocks])
