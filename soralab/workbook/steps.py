"""What helps a reader on: the next hint, and after a right answer the next exercise."""

from __future__ import annotations

from collections.abc import Sequence

from soralab.workbook import progress
from soralab.workbook.progress import Record


def give_hint(name: str, hints: Sequence[str], tier: int | None = None, everything: bool = False,
              how: str = "soralab hint {name} --tier {tier}") -> tuple[str, str]:
    """The next of the exercise's three hints that was not read yet (or `tier`, or all), and "" or a line for stderr.

    Which were read is recorded. Once all were, the last is given again. how: what the reader types for a tier.
    """
    tiers = [1, 2, 3]
    if not everything:
        read = _own_record().entry(name).hints
        tiers = [tier or next((one for one in (1, 2, 3) if one not in read), 3)]
    problem = progress.note_hint(name, tiers)
    lines = []
    for one in tiers:
        lines += [f"{name} · hint {one} of 3", "", hints[one - 1], ""]
    if tiers[-1] < 3:
        lines.append(f"the next one: {how.format(name=name, tier=tiers[-1] + 1)}")
    else:
        chapter = name.partition(".")[0]
        lines.append(f"the solution is folded below the exercise in notebooks/{_number(chapter):02d}_{chapter}.ipynb")
    return "\n".join(lines), problem


def onward(name: str, order: Sequence[str]) -> str:
    """How much of the chapter is solved with exercise `name`, and which comes next: "2 of 4 in this chapter; ...".

    order: the functions of the chapter's exercises, in the notebook's order.
    """
    chapter, _, function = name.partition(".")
    record = _own_record()
    solved = {other for other in order if record.solved(f"{chapter}.{other}")} | {function}
    k = order.index(function)
    after = [other for other in (*order[k + 1 :], *order[:k]) if other not in solved]
    count = f"{len(solved)} of {len(order)} in this chapter"
    if not after:
        return f"{count}: all of them."
    return f"{count}; next: exercise {_number(chapter)}.{order.index(after[0]) + 1}, `{after[0]}`."


def _own_record() -> Record:
    """The reader's record; an empty one if it cannot be read, whose trouble is told when something is recorded."""
    try:
        return progress.own_record()
    except (OSError, ValueError):
        return Record("")


def _number(chapter: str) -> int:
    from soralab.figures.syllabus import CHAPTERS

    return next(known.number for known in CHAPTERS if known.name == chapter)
