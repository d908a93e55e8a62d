"""An answer, word by word, with what was read kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(decode: Callable, embed: Callable, prompt: Tensor, stop: int, longest: int) -> list[int]:
    """The likeliest words, one after the other: their ids, without the stop, `longest` of them at most.

    prompt [n, dim]: picture tokens and words of the question, in their order. embed(ids [m]) gives words' vectors
    [m, dim]. decode(x [m, dim], first, cache) reads m more vectors, which stand at the places first, first + 1, ... (it
    adds the positions), and gives (logits [m, vocabulary], cache): row k for the word behind x[k], and the keys and
    values of all that was read, to be handed in with what comes next; None where nothing was read yet.
    Every vector is read once.
    """
    raise NotImplementedError


def solution(decode: Callable, embed: Callable, prompt: Tensor, stop: int, longest: int) -> list[int]:
    """The likeliest words, one after the other: their ids, without the stop, `longest` of them at most."""
    logits, cache = decode(prompt, 0, None)
    words: list[int] = []
    while len(words) < longest and (word := int(logits[-1].argmax())) != stop:
        x = embed(torch.tensor([word]))
        logits, cache = decode(x, len(prompt) + len(words), cache)
        words.append(word)
    return words


def _decoder(dim: int, vocabulary: int) -> tuple[Callable, Callable]:
    """A decoder of one layer with a cache, drawn at random; its words depend on all places before."""
    words = torch.randn(vocabulary, dim, dtype=torch.float64)
    q, k, out = torch.randn(3, dim, dim, dtype=torch.float64)
    rates = torch.rand(dim, dtype=torch.float64) * 2

    def embed(ids: Tensor) -> Tensor:
        return words[ids]

    def decode(x: Tensor, first: int, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        places = torch.arange(first, first + len(x), dtype=torch.float64)[:, None]
        x = x.double() + 1.5 * torch.sin(places * rates + 1)
        read = x if cache is None else torch.cat([cache, x])
        seen = torch.ones(len(x), len(read)).tril(len(read) - len(x)).bool()
        shares = ((x @ q) @ (read @ k).T / dim).masked_fill(~seen, -torch.inf).softmax(-1)
        return torch.tanh(shares @ read @ out + x) @ words.T, read

    return decode, embed


def _case(n: int, dim: int, vocabulary: int, longest: int, dtype=torch.float64) -> tuple:
    return *_decoder(dim, vocabulary), torch.randn(n, dim, dtype=dtype), 0, longest


def _with_stop(n: int, at: int, longest: int = 20) -> tuple:
    """A case in which the stop is the word number `at` of the answer, and none before."""
    decode, embed, prompt, _, _ = _case(n, 6, 40, at + 1)
    said = solution(decode, embed, prompt, -1, at + 1)
    return decode, embed, prompt, said[at] if said[at] not in said[:at] else -1, longest


def cases() -> Iterator[Case]:
    yield Case(_case(1, 4, 12, 3), "a prompt of one vector")
    yield Case(_case(5, 6, 30, 1), "one word at most")
    yield Case(_case(5, 6, 30, 0), "no word at most")
    yield Case(_case(17, 8, 50, 12), "a long prompt, mostly a picture")
    yield Case(_with_stop(4, 0), "the answer is empty: the stop comes at once")
    yield Case(_with_stop(6, 1), "an answer of one word")
    yield Case(_with_stop(6, 3), "an answer of three words")
    yield Case(_case(9, 6, 30, 10, torch.float32), "float32")
    for _ in range(5):
        n, longest = torch.randint(2, 20, (2,)).tolist()
        yield Case(_case(n, 6, 40, longest))


def check(fn) -> Iterator[tuple[bool, str]]:
    for case in (_with_stop(6, 3), _case(9, 6, 30, 8)):
        decode, embed, prompt, stop, longest = case
        read = []
        words = fn(lambda x, first, cache: read.append(len(x)) or decode(x, first, cache), embed, prompt, stop, longest)  # noqa: B023
        yield sum(read) <= len(prompt) + len(words), (
            f"the words are right, but {sum(read)} vectors were read for a prompt of {len(prompt)} and {len(words)} "
            "words. The cache holds what was read: hand it in, with the new word alone."
        )
        yield len(read) <= 1 + len(words), "the prompt is read vector by vector. It goes in whole, in one call."


def _walk(decode: Callable, embed: Callable, prompt: Tensor, stop: int, longest: int, place: Callable,
          start: Callable = lambda logits: logits[-1]) -> list[int]:  # fmt: skip
    """place(n, k): where word k stands; start: the row of the prompt's logits that says the first word."""
    logits, cache = decode(prompt, 0, None)
    row, words = start(logits), []
    while len(words) < longest and (word := int(row.argmax())) != stop:
        logits, cache = decode(embed(torch.tensor([word])), place(len(prompt), len(words)), cache)
        row = logits[-1]
        words.append(word)
    return words


def always_at_zero(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: 0)


def words_counted_alone(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: k)


def one_too_far(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: n + k + 1)


def one_too_near(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: n + k - 1)


def place_stands_still(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: n)


def first_row(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: n + k, lambda logits: logits[0])


def last_row_but_one(decode, embed, prompt, stop, longest):
    return _walk(decode, embed, prompt, stop, longest, lambda n, k: n + k, lambda logits: logits[max(-2, -len(logits))])


def _steps(decode: Callable, embed: Callable, prompt: Tensor, stop: int, longest: int, step: Callable) -> list[int]:
    """step(words so far, the cache of the prompt, the newest cache) gives (logits, cache)."""
    logits, kept = decode(prompt, 0, None)
    cache, words = kept, []
    while len(words) < longest and (word := int(logits[-1].argmax())) != stop:
        words.append(word)
        logits, cache = step(words, kept, cache)
    return words


def cache_dropped(decode, embed, prompt, stop, longest):
    def step(words, kept, cache):
        return decode(embed(torch.tensor(words[-1:])), len(prompt) + len(words) - 1, None)

    return _steps(decode, embed, prompt, stop, longest, step)


def prompt_s_cache_alone(decode, embed, prompt, stop, longest):
    def step(words, kept, cache):
        return decode(embed(torch.tensor(words[-1:])), len(prompt) + len(words) - 1, kept)

    return _steps(decode, embed, prompt, stop, longest, step)


def read_again(decode, embed, prompt, stop, longest):
    def step(words, kept, cache):
        return decode(torch.cat([prompt.double(), embed(torch.tensor(words))]), 0, cache)

    return _steps(decode, embed, prompt, stop, longest, step)


def words_read_again(decode, embed, prompt, stop, longest):
    def step(words, kept, cache):
        return decode(embed(torch.tensor(words)), len(prompt), cache)

    return _steps(decode, embed, prompt, stop, longest, step)


def first_word_for_ever(decode, embed, prompt, stop, longest):
    def step(words, kept, cache):
        return decode(embed(torch.tensor(words[:1])), len(prompt) + len(words) - 1, cache)

    return _steps(decode, embed, prompt, stop, longest, step)


def prompt_s_end_read_again(decode, embed, prompt, stop, longest):
    """The last vector of the prompt goes in once more, before the first word is taken."""
    if not longest:
        return []
    _, cache = decode(prompt, 0, None)
    logits, cache = decode(prompt[-1:], len(prompt) - 1, cache)
    words = []
    while len(words) < longest and (word := int(logits[-1].argmax())) != stop:
        logits, cache = decode(embed(torch.tensor([word])), len(prompt) + len(words), cache)
        words.append(word)
    return words


def stop_kept(decode, embed, prompt, stop, longest):
    words = solution(decode, embed, prompt, stop, longest)
    return words + [stop] * (len(words) < longest)


def never_stops(decode, embed, prompt, stop, longest):
    return solution(decode, embed, prompt, -1, longest)


def one_more(decode, embed, prompt, stop, longest):
    return solution(decode, embed, prompt, stop, longest + 1)


def stop_skipped(decode, embed, prompt, stop, longest):
    return [word for word in solution(decode, embed, prompt, -1, longest) if word != stop]


def read_afresh(decode, embed, prompt, stop, longest):
    words = []
    while len(words) < longest:
        whole = torch.cat([prompt.double(), embed(torch.tensor(words, dtype=torch.int64))])
        word = int(decode(whole, 0, None)[0][-1].argmax())
        if word == stop:
            break
        words.append(word)
    return words


def vector_by_vector(decode, embed, prompt, stop, longest):
    cache = None
    for k in range(len(prompt)):
        logits, cache = decode(prompt[k : k + 1], k, cache)
    words = []
    while len(words) < longest and (word := int(logits[-1].argmax())) != stop:
        logits, cache = decode(embed(torch.tensor([word])), len(prompt) + len(words), cache)
        words.append(word)
    return words


EXERCISE = Exercise(
    name="llava.written",
    title="Where the next word stands",
    difficulty=3,
    minutes=20,
    statement="""
        In training the decoder reads question and answer at once, each vector at its own place. When it answers, the
        words come one by one, and what was read stays in a cache. Then three counts must agree: of vectors read, of
        places, of words. A picture of 16 tokens makes them differ at once. If they do not agree, the answer is still
        made of words; only it is another answer than the one that was trained.
        """,
    hints=(
        "How many vectors were read when the second word of the answer goes in, and what place does it stand at?",
        "Read the prompt whole, from place 0; the last row of its logits says the first word. Word k of the answer "
        "goes in alone, at place len(prompt) + k, with the newest cache.",
        "logits, cache = decode(prompt, 0, None); while there is room: word = logits[-1].argmax(), leave at the stop, "
        "decode(embed(word), len(prompt) + len(words), cache), append.",
    ),
    compare="Compare: how many vectors does each of you read for an answer of ten words, with a picture of 256 tokens?",
    stub=stub,
    gradients=False,  # an answer is chosen; nothing is trained through it
    solution=solution,
    cases=cases,
    check=check,
    wrong={
        "read_afresh": WrongAnswer(read_afresh, "hand it in, with the new word alone"),
        "vector_by_vector": WrongAnswer(vector_by_vector, "in one call"),
    },
    mistakes={
        "always_at_zero": Mistake(always_at_zero, "every new word stands at place 0, as if the row began with it. It "
                                  "stands behind all that was read."),
        "words_counted_alone": Mistake(words_counted_alone, "you count the words of the answer and forget the prompt: "
                                       "the first word stands at place len(prompt)."),
        "one_too_far": Mistake(one_too_far, "your words stand one place too far: places count from 0, so the prompt "
                               "ends at len(prompt) - 1 and the first word stands at len(prompt)."),
        "one_too_near": Mistake(one_too_near, "your words stand one place too near: the first word shares its place "
                                "with the prompt's last vector."),
        "place_stands_still": Mistake(place_stands_still, "all words stand at the first word's place. Each stands one "
                                      "further than the one before."),
        "first_row": Mistake(first_row, "you take the first row of the prompt's logits: that says what follows its "
                             "first vector. The last row says what follows the prompt."),
        "last_row_but_one": Mistake(last_row_but_one, "you take the last but one row of the prompt's logits: that says "
                                    "the prompt's last vector. The last row says what follows it."),
        "cache_dropped": Mistake(cache_dropped, "the cache does not go in with the next word, so that word is all that "
                                 "is read: no picture, no question."),
        "prompt_s_cache_alone": Mistake(prompt_s_cache_alone, "each word goes in with the prompt's cache. The words "
                                        "before it are lost: take the cache that came back last."),
        "read_again": Mistake(read_again, "you hand in the whole row again together with the cache, which holds it "
                              "already: everything is read twice."),
        "words_read_again": Mistake(words_read_again, "you hand in all words so far together with the cache, which "
                                    "holds all of them but the newest."),
        "first_word_for_ever": Mistake(first_word_for_ever, "the first word goes in again and again. The newest one "
                                       "does."),
        "prompt_s_end_read_again": Mistake(prompt_s_end_read_again, "you hand in the prompt's last vector a second "
                                           "time, to get the first word. The prompt's logits hold that already, in "
                                           "their last row."),
        "stop_kept": Mistake(stop_kept, "the stop is part of your answer; it ends it and is left out."),
        "never_stops": Mistake(never_stops, "you go on behind the stop, until there is no room."),
        "one_more": Mistake(one_more, "you write a word too many: `longest` words at most."),
        "stop_skipped": Mistake(stop_skipped, "you leave the stop out and write on behind it. The answer ends there."),
    },
)  # fmt: skip
