"""Which text did it find? Recall@1, where texts may be equal."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    """(text of picture, picture of text): the shares of right finds, by cosine. I_f, T_f [n, embed], of any length.

    Picture k belongs to text k, and texts[k] says what text k is. Two pictures may have the same text; then either
    text is a right find for either picture.
    """
    raise NotImplementedError


def solution(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    """(text of picture, picture of text): the shares of right finds, by cosine."""
    cosines = F.normalize(I_f, dim=-1) @ F.normalize(T_f, dim=-1).T
    shares = []
    for found in (cosines.argmax(1), cosines.argmax(0)):  # for each picture a text; for each text a picture
        shares.append(sum(texts[k] == texts[j] for k, j in enumerate(found.tolist())) / len(texts))
    return shares[0], shares[1]


def _set(n: int, embed: int, kinds: int, noise: float, dtype: torch.dtype = torch.float32) -> tuple:
    which = torch.randint(kinds, (n,)).tolist()
    centres = torch.randn(kinds, embed, dtype=dtype)[which]
    lengths = [torch.rand(n, 1, dtype=dtype) * 9 + 0.1 for _ in range(2)]
    towers = [centres + noise * torch.randn(n, embed, dtype=dtype) for _ in range(2)]
    I_f, T_f = (length * F.normalize(tower, dim=-1) for length, tower in zip(lengths, towers, strict=True))
    return I_f, T_f, [f"text {k}" for k in which]


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 3), torch.randn(1, 3), ["alone"]), "one pair")
    yield Case(_set(6, 4, 1, 0.5), "all texts equal")
    yield Case(_set(12, 16, 500, 0.7), "hardly any texts equal")
    for _ in range(5):
        n, embed, kinds = (int(torch.randint(4, 20, ())) for _ in range(3))
        yield Case(_set(n, embed, kinds, 0.8), "some texts equal, and vectors of all lengths")
    yield Case(_set(10, 6, 5, 0.6, torch.float64), "float64")


def by_place(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return solution(I_f, T_f, [str(k) for k in range(len(texts))])


def _by_table(table: Tensor, texts: list[str]) -> tuple[float, float]:
    n, finds = len(texts), (table.argmax(1).tolist(), table.argmax(0).tolist())
    return tuple(sum(texts[k] == texts[j] for k, j in enumerate(found)) / n for found in finds)


def the_long_ones_win(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return _by_table(I_f @ T_f.T, texts)


def one_side_alone(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return _by_table(F.normalize(I_f, dim=-1) @ T_f.T, texts)


def the_other_side_alone(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return _by_table(I_f @ F.normalize(T_f, dim=-1).T, texts)


def the_other_way_round(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return solution(I_f, T_f, texts)[::-1]


def the_farthest(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return _by_table(-F.normalize(I_f, dim=-1) @ F.normalize(T_f, dim=-1).T, texts)


def one_way_twice(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return solution(I_f, T_f, texts)[:1] * 2


def counted(I_f: Tensor, T_f: Tensor, texts: list[str]) -> tuple[float, float]:
    return tuple(share * len(texts) for share in solution(I_f, T_f, texts))


ONE_SIDE = "you divide by the length of {} alone. Then a long vector on the other side is near to everything."
EXERCISE = Exercise(
    name="clip.recall_at_1",
    title="Which text did it find?",
    difficulty=1,
    minutes=10,
    statement="""
        The measure of the section above, *recall@1*, in both directions: for each picture, is the nearest of all texts
        a right one? For each text, is the nearest of all pictures? What is found for picture k need not be text number
        k. Two pictures of the same thing have the same text, and a model that finds the other one's has read both
        rightly.
        """,
    hints=(
        "One table of cosines answers both questions. Which axis is which?",
        "argmax over the texts gives each picture the place of a text. Compare the texts that stand at the two places, "
        "not the places.",
        "found = cosines.argmax(1).tolist(); sum(texts[k] == texts[j] for k, j in enumerate(found)) / n; then "
        "argmax(0).",
    ),
    compare="Compare: when may the two shares differ although the table is one?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "by_place": Mistake(by_place, "a find counts for you only at its own place. An equal text elsewhere is the "
                            "same text."),
        "the_long_ones_win": Mistake(the_long_ones_win, "you compare products, not cosines: a long vector is near to "
                                     "everything."),
        "one_side_alone": Mistake(one_side_alone, ONE_SIDE.format("I_f")),
        "the_other_side_alone": Mistake(the_other_side_alone, ONE_SIDE.format("T_f")),
        "the_other_way_round": Mistake(the_other_way_round, "the two directions are exchanged: the first share is over "
                                       "pictures, each with its nearest text."),
        "the_farthest": Mistake(the_farthest, "you take the smallest cosine. Near is large."),
        "one_way_twice": Mistake(one_way_twice, "both shares are those of the pictures' questions. The texts ask too."),
        "counted": Mistake(counted, "these are counts. A share is a count over n."),
    },
)  # fmt: skip
