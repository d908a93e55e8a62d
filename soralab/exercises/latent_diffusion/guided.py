"""Each thing in its half of the picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    """Guidance by n prompts, each for its own places: the noise [batch, channel, height, width].

    none [batch, channel, height, width] is the noise that the network predicts without a prompt, said [n, batch,
    channel, height, width] what it predicts with each of the prompts. where [n, height, width], from 0 to 1: how much
    prompt k counts at a place. Where only prompt k counts, and wholly, it is guidance by k; where none, no prompt.
    """
    raise NotImplementedError


def solution(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    """Guidance by n prompts, each for its own places: the noise [batch, channel, height, width]."""
    pulls = where[:, None, None] * (said - none)  # [n, batch, channel, height, width]
    return none + scale * pulls.sum(0)


def _draw(n: int, batch: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> tuple:
    return (torch.randn(batch, c, h, w, dtype=dtype), torch.randn(n, batch, c, h, w, dtype=dtype),
            torch.rand(n, h, w, dtype=dtype).round(decimals=2))


def cases() -> Iterator[Case]:
    none, said, _ = _draw(1, 1, 1, 2, 1)
    yield Case((none, said, torch.ones(1, 2, 1), 3.0), "one prompt everywhere: the guidance of the page")
    none, said, _ = _draw(2, 1, 2, 1, 2)
    yield Case((none, said, torch.eye(2)[:, None], 3.0), "two halves")
    yield Case((none, said, torch.zeros(2, 1, 2), 3.0), "nobody speaks for any place")
    yield Case((none, said, torch.ones(2, 1, 2), 3.0), "two prompts for the same places")
    yield Case((*_draw(0, 1, 1, 2, 2), 3.0), "no prompt at all")
    yield Case((*_draw(2, 2, 2, 2, 2), 1.0), "all sides alike")
    for scale in (0.0, 2.5, 7.5, -1.0):
        yield Case((*_draw(*torch.randint(2, 6, (5,)).tolist()), scale), "shares between 0 and 1")
    yield Case((*_draw(3, 2, 4, 3, 2, torch.float64), 3.0), "float64")


def pull_alone(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return solution(none, said, where, scale) - none


def each_guided_then_cut(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return (where[:, None, None] * (none + scale * (said - none))).sum(0)


def mixed_then_guided(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return none + scale * ((where[:, None, None] * said).sum(0) - none)


def everywhere(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return none + scale * (said - none).sum(0)


def mean_of_prompts(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return none + scale * (where[:, None, None] * (said - none)).mean(0)


def weight_w(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return solution(none, said, where, 1 + scale)


def all_or_nothing(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return solution(none, said, (where > 0.5).to(where.dtype), scale)


def last_one_wins(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    noise = none
    for answer, share in zip(said, where, strict=True):
        noise = noise + share * (none + scale * (answer - none) - noise)
    return noise


def away(none: Tensor, said: Tensor, where: Tensor, scale: float) -> Tensor:
    return solution(none, said, where, -scale)


EXERCISE = Exercise(
    name="latent_diffusion.guided",
    title="Each thing in its half",
    difficulty=1,
    minutes=10,
    statement="""
        The painter puts two things anywhere. But guidance is an arrow at every place of the latent, and nobody says
        that all places must follow the same prompt. So ask the network three times, without a prompt and with each
        thing alone, and let every place follow its own. Shares may overlap, and they need not sum to 1: arrows add up,
        and each of them starts from the answer without a prompt.
        """,
    hints=(
        "What should come out at a place for which no prompt speaks? And where two of them do, how often does the "
        "answer without a prompt count?",
        "One arrow a prompt, said[k] - none, times the prompt's share at each place. Add the arrows first, then start "
        "from `none`, once.",
        "where[:, None, None] has the axes of `said`: none + scale * (its product with said - none).sum(0)",
    ),
    compare="Compare: with one prompt everywhere it is the chapter's guidance. How often does each of you add `none`?",
    stub=stub,
    solution=solution,
    gradients=False,  # it samples; nothing is trained through it
    cases=cases,
    mistakes={
        "pull_alone": Mistake(pull_alone, "you return the arrows alone. They have to start somewhere: at the "
                              "prediction without a prompt."),
        "each_guided_then_cut": Mistake(each_guided_then_cut, "you guide each prompt for itself, then cut the results "
                                        "out and add them. Where nobody speaks nothing is left, and where two do, "
                                        "`none` counts twice. Cut the differences."),
        "mixed_then_guided": Mistake(mixed_then_guided, "right where the shares sum to 1. Elsewhere your mixture of "
                                     "prompts is too weak or too strong a prediction, and guidance walks away from "
                                     "nothing: take each prompt's difference first."),
        "everywhere": Mistake(everywhere, "every prompt counts everywhere: `where` changes nothing."),
        "mean_of_prompts": Mistake(mean_of_prompts, "you take the mean over the prompts, so that each of two things in "
                                   "halves of their own gets half the guidance."),
        "weight_w": Mistake(weight_w, "your scale is one too large: at 0 it still obeys. Ho and Salimans write 1 + w; "
                            "here, as in the paper's code, the scale is that sum."),
        "all_or_nothing": Mistake(all_or_nothing, "a share of 0.4 is none for you, and one of 0.6 the whole. It is to "
                                  "count as much as it says."),
        "last_one_wins": Mistake(last_one_wins, "where two prompts speak for a place, the later one takes it from the "
                                 "earlier. Arrows add up."),
        "away": Mistake(away, "you walk the wrong way: away from what the prompts say."),
    },
)  # fmt: skip
