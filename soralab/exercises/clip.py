"""Chapter 04's exercises: the loss, where a text's feature stands, a classifier made of texts, a batch in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer
from soralab.exercises.clip_pieces import PIECES
from soralab.exercises.vit_inside import numbers, same

# ------------------------------------------------------------------------------------------------------------ the loss


def _loss_stub(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    """Figure 3's loss of n pairs: I_f, T_f [n, embed], not yet of length 1, and the learned t; returns a scalar.

    Row k of I_f and row k of T_f belong together. The cosines are multiplied by exp(t).
    """
    raise NotImplementedError


def _loss(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    """Figure 3's loss of n pairs: I_f, T_f [n, embed], not yet of length 1, and the learned t; returns a scalar."""
    I_e, T_e = F.normalize(I_f, dim=-1), F.normalize(T_f, dim=-1)
    logits = I_e @ T_e.T * t.exp()
    pairs = torch.arange(len(logits))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _logits(I_f: Tensor, T_f: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return F.normalize(I_f, dim=-1) @ F.normalize(T_f, dim=-1).T * t.exp(), torch.arange(len(I_f))


def _lengths_kept(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    logits, pairs = I_f @ T_f.T * t.exp(), torch.arange(len(I_f))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _over_the_batch(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _lengths_kept(F.normalize(I_f, dim=0), F.normalize(T_f, dim=0), t)


def _t_itself(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _loss(I_f, T_f, t.log())


def _divided(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _loss(I_f, T_f, -t)


def _pictures_only(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(*_logits(I_f, T_f, t))


def _texts_only(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(*_logits(T_f, I_f, t))


def _not_halved(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return 2 * _loss(I_f, T_f, t)


def _yes_or_no(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    logits, _ = _logits(I_f, T_f, t)
    return F.binary_cross_entropy_with_logits(logits, torch.eye(len(logits), dtype=logits.dtype))


def _t_held_fixed(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _loss(I_f, T_f, t.detach())


def _lengths_held_fixed(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _lengths_kept(I_f / I_f.norm(dim=-1, keepdim=True).detach(), F.normalize(T_f, dim=-1), t)


LOSS_MISTAKES = (
    (_lengths_kept, "the features keep their lengths. Only cosines are compared: a long vector would be near to all."),
    (_over_the_batch, "each channel is made length 1 over the batch. It is each vector, over its channels: dim=-1."),
    (_t_itself, "the cosines are multiplied by t. It is exp(t): learned as a logarithm, it stays positive."),
    (_divided, "the cosines are divided by exp(t). It is the temperature's inverse: it multiplies."),
    (_pictures_only, "only the pictures choose among texts. The texts choose among pictures too: the columns."),
    (_texts_only, "only the texts choose among pictures. The pictures choose among texts too: the rows."),
    (_not_halved, "you add up both directions. The loss is their mean."),
    (_yes_or_no, "you ask of every cell alone whether it is a pair (that is SigLIP, 2023). Here each row is one "
     "question with n answers, and so is each column: softmax, not sigmoid."),
)  # fmt: skip


def _loss_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for n, embed, t in ((5, 4, 1.2), (3, 8, 2.0)):
        args = 3 * numbers(n, embed, seed=n), numbers(n, embed, seed=n + 1) + 0.5, torch.tensor(t)
        got, want = fn(*args), _loss(*args)
        yield isinstance(got, Tensor) and got.ndim == 0, f"{n} pairs: the result is not one number in a tensor."
        for mistake, says in LOSS_MISTAKES:
            yield same(got, want) or not same(got, mistake(*args)), f"{n} pairs: {says}"
        yield same(got, want), f"{n} pairs: the loss is {got.item():.4f}; it takes {want.item():.4f}."
    inputs = [numbers(4, 4, seed=9), numbers(4, 4, seed=8), torch.tensor(1.0)]
    got, want = fn(*(x.requires_grad_() for x in inputs)), torch.autograd.grad(_loss(*inputs), inputs)
    yield got.requires_grad, "no gradient leaves the loss: no .item(), no no_grad on its way."
    try:
        grads = torch.autograd.grad(got, inputs, allow_unused=True)
    except RuntimeError:
        grads = None
    yield grads is not None, (
        "the loss is right, but cannot be learned from: x /= y and other changes in place overwrite what the backward "
        "pass needs. Write x = x / y."
    )
    for name, a, b in zip(("I_f", "T_f", "t"), grads, want, strict=True):
        yield a is not None, f"no gradient reaches {name}. It is learned from: no .item(), no float(), no .detach()."
        yield same(a, b), f"the loss is right, the gradient of {name} is not: something on its way is held fixed."


LOSS = Exercise(
    name="clip.symmetric_loss",
    title="Which text, which picture",
    difficulty=1,
    minutes=10,
    statement="""
        Figure 3 of the paper in five lines: make all features unit vectors, multiply each picture with each text, and
        ask two questions of the table. Each row: which text belongs to this picture? Each column: which picture
        belongs to this text? The right answers stand on the diagonal.
        """,
    hints=(
        "A table [n, n] of cosines. What class is row k's right answer?",
        "F.normalize(x, dim=-1) makes unit vectors; F.cross_entropy(logits, torch.arange(n)) asks the rows. For the "
        "columns, turn the table.",
        "logits = normalised I_f @ normalised T_f.T * t.exp(); the mean of cross_entropy(logits, pairs) and "
        "cross_entropy(logits.T, pairs).",
    ),
    stub=_loss_stub,
    solution=_loss,
    check=_loss_check,
    wrong={
        "lengths_kept": WrongAnswer(_lengths_kept, "keep their lengths"),
        "over_the_batch": WrongAnswer(_over_the_batch, "It is each vector"),
        "t_itself": WrongAnswer(_t_itself, "It is exp(t)"),
        "divided": WrongAnswer(_divided, "it multiplies"),
        "pictures_only": WrongAnswer(_pictures_only, "only the pictures choose"),
        "texts_only": WrongAnswer(_texts_only, "only the texts choose"),
        "not_halved": WrongAnswer(_not_halved, "The loss is their mean"),
        "sigmoid": WrongAnswer(_yes_or_no, "softmax, not sigmoid"),
        "t_held_fixed": WrongAnswer(_t_held_fixed, "no gradient reaches t"),
        "lengths_held_fixed": WrongAnswer(_lengths_held_fixed, "the gradient of I_f is not"),
    },
)

# --------------------------------------------------------------------------------------------------- a text's feature


def _feature_stub(states: Tensor, ids: Tensor, end: int) -> Tensor:
    """The feature of each text: states [batch, tokens, dim] and ids [batch, tokens] to [batch, dim].

    Attention was causal. A text is: start, its pieces, `end`, and then zeros; but zero is also the id of "!".
    """
    raise NotImplementedError


def _feature(states: Tensor, ids: Tensor, end: int) -> Tensor:
    """The feature of each text: states [batch, tokens, dim] and ids [batch, tokens] to [batch, dim]."""
    first = (ids == end).int().argmax(dim=1)  # argmax gives the first of equals
    return states[torch.arange(len(ids)), first]


def _last_of_all(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[:, -1]


def _first_token(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[:, 0]


def _mean_of_all(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states.mean(1)


def _mean_of_text(states: Tensor, ids: Tensor, end: int) -> Tensor:
    inside = torch.arange(ids.shape[1]) <= (ids == end).int().argmax(1, keepdim=True)
    return (states * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)


def _by_counting(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[torch.arange(len(ids)), (ids != 0).sum(1) - 1]


def _before_the_end(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[torch.arange(len(ids)), (ids == end).int().argmax(1) - 1]


def _first_rows(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[0, (ids == end).int().argmax(1)]


FEATURE_MISTAKES = (
    (_last_of_all, "you take the last place, which is padding for all but the longest texts. Take the place of `end`."),
    (_first_token, "you take the first place, as a ViT does. Attention is causal here: the first token has seen "
     "nothing but itself, and is the same for all texts."),
    (_mean_of_all, "you average over all places, the padding too. A text would change with what stands behind it."),
    (_mean_of_text, "you average over the text. CLIP reads one place: `end`, the only one that has seen all of it."),
    (_by_counting, "you count the ids that are not zero. Zero is a piece as well (\"!\"): find `end` itself."),
    (_before_the_end, "you are one place early: the state at `end` itself is the feature."),
    (_first_rows, "every text reads from the first row of the batch. Index both axes: states[torch.arange(n), place]."),
)  # fmt: skip


def _feature_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    end = 30
    ids = torch.tensor(
        [[29, 4, 5, 30, 0, 0, 0], [29, 7, 0, 8, 9, 30, 0], [29, 0, 0, 30, 0, 0, 0], [29, 30, 0, 0, 0, 0, 0]]
    )
    states = numbers(4, 7, 6, seed=5)
    got, want = fn(states, ids, end), _feature(states, ids, end)
    yield isinstance(got, Tensor), "the result is no tensor."
    yield got.shape == want.shape, f"the result is {list(got.shape)}; it takes {list(want.shape)}, one row a text."
    for mistake, says in FEATURE_MISTAKES:
        yield same(got, want) or not same(got, mistake(states, ids, end)), says
    yield same(got, want), "the numbers are not those of the state at each text's `end`."


FEATURE = Exercise(
    name="clip.text_feature",
    title="Where a text has been read",
    difficulty=1,
    minutes=10,
    statement="""
        A ViT reads its answer at the class token, which stands in front and sees all patches. CLIP's text tower is
        causal, so a token in front sees nothing. The token at the end has seen everything: its state is the feature.
        The texts of a batch end at different places.
        """,
    hints=(
        "Which single place has seen the whole text, and nothing behind it?",
        "(ids == end) is True there. argmax of a row of zeros and ones gives the first one's place; torch cannot take "
        "the argmax of booleans.",
        "first = (ids == end).int().argmax(dim=1), and then one index for the row, one for the place: "
        "torch.arange(len(ids)) and first.",
    ),
    stub=_feature_stub,
    solution=_feature,
    check=_feature_check,
    wrong={
        "last_place": WrongAnswer(_last_of_all, "the last place"),
        "first_place": WrongAnswer(_first_token, "as a ViT does"),
        "mean_of_all": WrongAnswer(_mean_of_all, "the padding too"),
        "mean_of_text": WrongAnswer(_mean_of_text, "CLIP reads one place"),
        "by_counting": WrongAnswer(_by_counting, "Zero is a piece as well"),
        "one_early": WrongAnswer(_before_the_end, "one place early"),
        "first_row": WrongAnswer(_first_rows, "the first row of the batch"),
    },
)

# -------------------------------------------------------------------------------------------- a classifier out of texts


def _ensemble_stub(T_f: Tensor) -> Tensor:
    """A classifier made of texts: T_f [classes, templates, embed], not yet of length 1, to unit rows [classes, embed].

    Section 3.1.4: the templates of a class are averaged in the space of embeddings, as unit vectors.
    """
    raise NotImplementedError


def _ensemble(T_f: Tensor) -> Tensor:
    """A classifier made of texts: T_f [classes, templates, embed], not yet of length 1, to unit rows."""
    T_e = F.normalize(T_f, dim=-1)
    return F.normalize(T_e.mean(dim=1), dim=-1)


def _mean_left_short(T_f: Tensor) -> Tensor:
    return F.normalize(T_f, dim=-1).mean(1)


def _long_ones_count_more(T_f: Tensor) -> Tensor:
    return F.normalize(T_f.mean(1), dim=-1)


def _first_template(T_f: Tensor) -> Tensor:
    return F.normalize(T_f[:, 0], dim=-1)


def _over_classes(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=-1).mean(0), dim=-1)


def _largest(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=-1).amax(1), dim=-1)


ENSEMBLE_MISTAKES = (
    (_mean_left_short, "the means are shorter than 1, and not equally: a class whose texts agree would win more often. "
     "Normalise once more at the end."),
    (_long_ones_count_more, "you average first: a text whose vector is long counts more. Unit vectors first."),
    (_first_template, "you use the first template alone."),
    (_over_classes, "you average over the classes, the first axis. Templates are the second."),
    (_largest, "you take the largest value of each channel. An ensemble here is a mean."),
)  # fmt: skip


def _ensemble_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for classes, templates, embed in ((4, 4, 6), (3, 5, 8), (2, 1, 3)):
        lengths = 0.2 + 3 * numbers(classes, templates, 1, seed=7).abs()
        T_f = numbers(classes, templates, embed, seed=classes) * lengths
        got, want = fn(T_f), _ensemble(T_f)
        case = f"{classes} classes, {templates} template{'s' * (templates > 1)}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        for mistake, says in ENSEMBLE_MISTAKES:
            yield same(got, want) or not same(got, mistake(T_f)), f"{case}: {says}"
        yield got.shape == want.shape, f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}."
        yield same(got, want), f"{case}: the rows are not the unit means of unit vectors."


ENSEMBLE = Exercise(
    name="clip.ensemble",
    title="Several ways to say a class",
    difficulty=2,
    minutes=10,
    statement="""
        "a photo of a red circle", "a drawing of a red circle", and so on: several texts name one class. The paper makes
        one vector of them, once and for all, so that an ensemble of eighty costs no more than a single text when
        pictures come. Two normalisations are in it, and both are needed.
        """,
    hints=(
        "Which vectors are compared by their direction alone, and at which moment does a length come in again?",
        "The mean of unit vectors is shorter than 1: the more they disagree, the shorter.",
        "Normalise over the last axis, take the mean over the templates (axis 1), normalise over the last axis.",
    ),
    stub=_ensemble_stub,
    solution=_ensemble,
    check=_ensemble_check,
    wrong={
        "mean_left_short": WrongAnswer(_mean_left_short, "Normalise once more"),
        "long_ones_count_more": WrongAnswer(_long_ones_count_more, "Unit vectors first"),
        "first_template": WrongAnswer(_first_template, "the first template alone"),
        "over_classes": WrongAnswer(_over_classes, "Templates are the second"),
        "largest": WrongAnswer(_largest, "is a mean"),
    },
)

EXERCISES = (LOSS, FEATURE, ENSEMBLE, PIECES)
