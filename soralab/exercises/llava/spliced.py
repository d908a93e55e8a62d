"""A picture among words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(ids: list[Tensor], embedding: Tensor, pictures: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Rows [batch, longest, dim] that a decoder reads, and a mask [batch, longest], True = a token, no padding.

    ids: one row of ids [n] each; embedding [vocabulary, dim]: the words' vectors. Where the id is `place`, which is no
    word and may be any number that is none, stand all tokens of the next picture of pictures [k, tokens, dim], in its
    stead: the first picture where the first row has the id first, and so on, row by row. A row may have several, or
    none. Rows are filled up on the right, with zeros. Raises ValueError where there are not as many pictures as ids
    `place`.
    """
    raise NotImplementedError


def solution(ids: list[Tensor], embedding: Tensor, pictures: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Rows [batch, longest, dim] that a decoder reads, and a mask [batch, longest], True = a token, no padding."""
    if (places := sum(row.tolist().count(place) for row in ids)) != len(pictures):
        raise ValueError(f"pictures are {len(pictures)}; ids takes {places}")
    rest = iter(pictures)
    parts = [[next(rest) if id == place else embedding[id][None] for id in row.tolist()] for row in ids]
    rows = [torch.cat(part) for part in parts]
    longest = max(len(row) for row in rows)
    mask = torch.stack([torch.arange(longest) < len(row) for row in rows])
    return pad_sequence(rows, batch_first=True), mask


def _case(rows: list[str], tokens: int, dim: int, place: int = -200, vocabulary: int = 9, dtype=torch.float32) -> tuple:
    """rows: such as "ww.w": a w is a word, a dot a picture's place."""
    ids = [torch.tensor([place if sign == "." else int(torch.randint(vocabulary, ())) for sign in row]) for row in rows]
    pictures = torch.randn("".join(rows).count("."), tokens, dim, dtype=dtype)
    return ids, torch.randn(vocabulary, dim, dtype=dtype), pictures, place


def cases() -> Iterator[Case]:
    yield Case(_case([".ww"], 2, 2), "the picture first")
    yield Case(_case(["ww."], 2, 2), "the picture last")
    yield Case(_case(["w.ww", "www.w"], 3, 2), "two rows of one picture each")
    yield Case(_case(["ww.w", "wwww"], 2, 3), "a row without a picture")
    yield Case(_case(["w..w"], 3, 2), "two frames side by side")
    yield Case(_case(["w.w.ww", "ww.", "w", ".w.w."], 2, 4), "as many pictures as a row likes")
    yield Case(_case(["www", "w"], 2, 2), "no picture at all")
    yield Case(_case([".", "ww"], 1, 2), "pictures of one token")
    yield Case(_case(["ww.w", ".w"], 4, 3, place=-1), "the id is -1")
    yield Case(_case(["w.", "ww.w."], 2, 3, place=9), "the id is the first behind the words'")
    yield Case(_case(["w.w.", "ww.ww"], 3, 4, dtype=torch.float64), "float64")
    for _ in range(3):
        rows = ["".join("w." [int(torch.rand(()) < 0.3)] for _ in range(int(torch.randint(1, 8, ()))))
                for _ in range(int(torch.randint(1, 5, ())))]  # fmt: skip
        yield Case(_case(rows, *torch.randint(1, 5, (2,)).tolist(), place=-int(torch.randint(1, 300, ()))))


def check(fn) -> Iterator[tuple[bool, str]]:
    for rows, change, what in (([".w", "w"], 1, "more pictures than places"), (["w.", ".w"], -1, "fewer pictures")):
        ids, embedding, pictures, place = _case(rows, 2, 3)
        pictures = torch.randn(len(pictures) + change, 2, 3)
        try:
            fn(ids, torch.nn.Parameter(embedding), pictures, place)
        except ValueError:
            continue
        except Exception as error:
            yield False, f"given {what}, it raises {type(error).__name__}; asked for is a ValueError."
        yield False, (
            f"given {what}, it says nothing. A question would go to another picture, or to none, and the model would "
            "learn from it all the same: raise a ValueError."
        )
    ids, embedding, pictures, place = _case(["w.w", "w"], 2, 3)
    mask = fn(ids, embedding, pictures, place)[1]
    yield isinstance(mask, Tensor) and mask.dtype == torch.bool, "the mask takes truth values: True = a token."


def _assembled(ids: list[Tensor], embedding: Tensor, pictures: Tensor, place: int, put: Callable) -> tuple:
    """put(words, where, own): the row [n, dim] of the ids' vectors (zeros for `place`), the places, their pictures."""
    rest, rows = iter(pictures), []
    for row in ids:
        words = torch.stack([embedding.new_zeros(embedding.shape[1]) if id == place else embedding[id]
                             for id in row.tolist()])  # fmt: skip
        where = (row == place).nonzero().flatten().tolist()
        rows.append(put(words, where, [next(rest) for _ in where]))
    mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    return pad_sequence(rows, batch_first=True), pad_sequence(mask, batch_first=True)


def _inserted(words: Tensor, where: list[int], own: list[Tensor], keep: bool = False) -> Tensor:
    """own[k] at where[k]; keep: the place's own vector stays in front."""
    parts, start = [], 0
    for k, picture in zip(where, own, strict=True):
        parts += [words[start : k + keep], picture]
        start = k + 1
    return torch.cat([*parts, words[start:]])


def in_front(ids, embedding, pictures, place):
    def put(words, where, own):
        return torch.cat([*own, words[[k for k in range(len(words)) if k not in where]]])

    return _assembled(ids, embedding, pictures, place, put)


def at_the_end(ids, embedding, pictures, place):
    def put(words, where, own):
        return torch.cat([words[[k for k in range(len(words)) if k not in where]], *own])

    return _assembled(ids, embedding, pictures, place, put)


def written_over(ids, embedding, pictures, place):
    def put(words, where, own):
        for k, picture in zip(where, own, strict=True):
            words = torch.cat([words[:k], picture, words[k + len(picture) :]])
        return words

    return _assembled(ids, embedding, pictures, place, put)


def place_kept(ids, embedding, pictures, place):
    return _assembled(ids, embedding, pictures, place, lambda *row: _inserted(*row, keep=True))


def place_empty(ids, embedding, pictures, place):
    rows = [row.tolist() for row in ids]
    vectors = [torch.stack([embedding.new_zeros(embedding.shape[1]) if id == place else embedding[id] for id in row])
               for row in rows]  # fmt: skip
    mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    return pad_sequence(vectors, batch_first=True), pad_sequence(mask, batch_first=True)


def one_vector(ids, embedding, pictures, place):
    return solution(ids, embedding, pictures.mean(1, keepdim=True), place)


def one_token_each(ids, embedding, pictures, place):
    return solution(ids, embedding, pictures[:, :1], place)


def first_picture_everywhere(ids, embedding, pictures, place):
    return solution(ids, embedding, pictures[:1].expand_as(pictures), place)


def picture_of_the_row(ids, embedding, pictures, place):
    number = [k for k, row in enumerate(ids) for _ in range(row.tolist().count(place))]
    return solution(ids, embedding, pictures[[min(k, len(pictures) - 1) for k in number]], place)


def started_again(ids, embedding, pictures, place):
    number = [k for row in ids for k in range(row.tolist().count(place))]
    return solution(ids, embedding, pictures[number], place)


def dealt_by_columns(ids, embedding, pictures, place):
    """The first place of every row, then the second of every row."""
    counts = [row.tolist().count(place) for row in ids]
    order = [(turn, row) for row, count in enumerate(counts) for turn in range(count)]
    number = {key: k for k, key in enumerate(sorted(order))}
    return solution(ids, embedding, pictures[[number[key] for key in order]], place)


def backwards_in_a_row(ids, embedding, pictures, place):
    return _assembled(ids, embedding, pictures, place, lambda words, where, own: _inserted(words, where, own[::-1]))


def tokens_backwards(ids, embedding, pictures, place):
    return solution(ids, embedding, pictures.flip(1), place)


def filled_on_the_left(ids, embedding, pictures, place):
    rows, mask = solution(ids, embedding, pictures, place)
    rows = [row.roll(len(seen) - int(seen.sum()), 0) for row, seen in zip(rows, mask, strict=True)]
    return torch.stack(rows), mask.flip(1)


def mask_turned_round(ids, embedding, pictures, place):
    rows, mask = solution(ids, embedding, pictures, place)
    return rows, ~mask


def words_alone_seen(ids, embedding, pictures, place):
    rows, mask = solution(ids, embedding, pictures, place)
    words = solution(ids, torch.ones_like(embedding), torch.zeros_like(pictures), place)[0][..., 0] > 0
    return rows, mask & words


def all_seen(ids, embedding, pictures, place):
    rows, mask = solution(ids, embedding, pictures, place)
    return rows, torch.ones_like(mask)


def counted_before(ids, embedding, pictures, place):
    rows, mask = solution(ids, embedding, pictures, place)
    return rows, torch.stack([torch.arange(mask.shape[1]) < len(row) for row in ids])


def what_there_is(ids, embedding, pictures, place):
    """Takes what pictures there are: too many, or too few."""
    wanted = sum(row.tolist().count(place) for row in ids)
    return solution(ids, embedding, pictures[[min(k, len(pictures) - 1) for k in range(wanted)]], place)


def another_error(ids, embedding, pictures, place):
    if sum(row.tolist().count(place) for row in ids) != len(pictures):
        raise IndexError("pictures")
    return solution(ids, embedding, pictures, place)


def a_mask_of_numbers(ids, embedding, pictures, place):
    rows, mask = solution(ids, embedding, pictures, place)
    return rows, mask.to(rows)


EXERCISE = Exercise(
    name="llava.spliced",
    title="A picture among words",
    difficulty=2,
    minutes=20,
    statement="""
        A conversation has an id where its picture belongs, first or last in the question (Eq. (2)), and for a film one
        for each frame. The id is no word: the published code uses −200, which `embedding[ids]` takes without complaint
        wherever there are two hundred words. What belongs there is not one vector but all tokens of the picture, so
        rows grow, each by its own amount.
        """,
    hints=(
        "How many vectors does a row have before and after? What keeps count of which picture comes next?",
        "Go through a row's ids: a word gives [1, dim], `place` gives the next picture's [tokens, dim]; join the "
        "parts. One iterator over the pictures serves all rows. Then fill up on the right, and count who is a token.",
        "rest = iter(pictures); parts = [next(rest) if id == place else embedding[id][None] for id in row.tolist()]; "
        "torch.cat, pad_sequence(batch_first=True), arange(longest) < the row's length. Count before you start.",
    ),
    compare="Compare: where a batch has one picture too few, which rows of a version without the count would be wrong?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={
        "what_there_is": WrongAnswer(what_there_is, "it says nothing"),
        "another_error": WrongAnswer(another_error, "asked for is a ValueError"),
        "a_mask_of_numbers": WrongAnswer(a_mask_of_numbers, "bool"),
    },
    mistakes={
        "in_front": Mistake(in_front, "you put a row's pictures in front of its words. They stand where the id stood, "
                            "first or last or between."),
        "at_the_end": Mistake(at_the_end, "you put a row's pictures behind its words. They stand where the id stood."),
        "written_over": Mistake(written_over, "your picture is written over the words that follow the id. Only the id "
                                "itself goes; the words behind it move to the right."),
        "place_kept": Mistake(place_kept, "in front of each picture a vector of the id is left. The picture stands in "
                              "the id's stead."),
        "place_empty": Mistake(place_empty, "no picture comes in: where the id was there is one vector of zeros."),
        "one_vector": Mistake(one_vector, "a picture comes in as one vector, the mean of its tokens. All of them come, "
                              "one after the other."),
        "one_token_each": Mistake(one_token_each, "of each picture the first token alone comes in: the id is one, the "
                                  "tokens are many, and all of them stand in its stead."),
        "first_picture_everywhere": Mistake(first_picture_everywhere, "the first picture stands everywhere. Each id "
                                            "takes the next one."),
        "picture_of_the_row": Mistake(picture_of_the_row, "you take picture k for row k. A row may have several, or "
                                      "none: the pictures are counted by the ids, not by the rows."),
        "started_again": Mistake(started_again, "each row begins with the first picture again. The count goes on from "
                                 "row to row: make the iterator before the rows."),
        "dealt_by_columns": Mistake(dealt_by_columns, "you deal the pictures out to the first id of each row, then to "
                                    "the second of each. They go row by row."),
        "backwards_in_a_row": Mistake(backwards_in_a_row, "within a row your pictures come in the opposite order: its "
                                      "last id has the first. (Who inserts from the back must take from the back.)"),
        "tokens_backwards": Mistake(tokens_backwards, "the tokens of a picture come in the opposite order. (Who "
                                    "inserts one by one at the same index turns them round.)"),
        "filled_on_the_left": Mistake(filled_on_the_left, "your rows are filled up on the left; here they are filled "
                                      "up on the right."),
        "mask_turned_round": Mistake(mask_turned_round, "your mask is True where there is padding. It is True where "
                                     "there is a token."),
        "words_alone_seen": Mistake(words_alone_seen, "your mask is False at the pictures' tokens: nobody would look "
                                    "at them. They are tokens as words are."),
        "all_seen": Mistake(all_seen, "your mask is True in the padding too."),
        "counted_before": Mistake(counted_before, "your mask has the length that a row had before the pictures came "
                                  "in. Count when they are there."),
    },
)  # fmt: skip
