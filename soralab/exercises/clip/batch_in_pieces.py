"""A batch that does not fit."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _pieces_stub(image: nn.Module, text: nn.Module, pixels: Tensor, ids: Tensor, scale: float, chunk: int) -> None:
    """Give every parameter's .grad what one backward pass over all n pairs would, `chunk` pairs at a time.

    image, text: the towers, tensors [k, ...] to unit vectors [k, embed]; no call with gradients on may hold more
    than `chunk` pairs. pixels [n, ...], ids [n, ...]: pair k belongs together. The loss is figure 3's,
    scale its exp(t), which is not learned here.
    """
    raise NotImplementedError


def _pieces(image: nn.Module, text: nn.Module, pixels: Tensor, ids: Tensor, scale: float, chunk: int) -> None:
    """Give every parameter's .grad what one backward pass over all n pairs would, `chunk` pairs at a time."""
    with torch.no_grad():  # 1. all features
        I_e = torch.cat([image(part) for part in pixels.split(chunk)])
        T_e = torch.cat([text(part) for part in ids.split(chunk)])
    I_e.requires_grad_()
    T_e.requires_grad_()
    logits, pairs = scale * I_e @ T_e.T, torch.arange(len(I_e))  # 2. the loss, and its gradient for each feature
    ((F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2).backward()
    for part, gradient in zip(pixels.split(chunk), I_e.grad.split(chunk), strict=True):
        image(part).backward(gradient)  # 3. each piece again, from its features down
    for part, gradient in zip(ids.split(chunk), T_e.grad.split(chunk), strict=True):
        text(part).backward(gradient)


def _loss(I_e: Tensor, T_e: Tensor, scale: float) -> Tensor:
    logits, pairs = scale * I_e @ T_e.T, torch.arange(len(I_e))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _each_for_itself(image, text, pixels, ids, scale, chunk) -> None:
    parts = list(zip(pixels.split(chunk), ids.split(chunk), strict=True))
    for p, i in parts:
        (_loss(image(p), text(i), scale) * len(p) / len(pixels)).backward()


def _each_for_itself_summed(image, text, pixels, ids, scale, chunk) -> None:
    for p, i in zip(pixels.split(chunk), ids.split(chunk), strict=True):
        _loss(image(p), text(i), scale).backward()


def _all_at_once(image, text, pixels, ids, scale, chunk) -> None:
    _loss(image(pixels), text(ids), scale).backward()


def _graphs_kept(image, text, pixels, ids, scale, chunk) -> None:
    I_e = torch.cat([image(part) for part in pixels.split(chunk)])
    T_e = torch.cat([text(part) for part in ids.split(chunk)])
    _loss(I_e, T_e, scale).backward()


def _towers_get_nothing(image, text, pixels, ids, scale, chunk) -> None:
    with torch.no_grad():
        I_e = torch.cat([image(part) for part in pixels.split(chunk)])
        T_e = torch.cat([text(part) for part in ids.split(chunk)])
    _loss(I_e.requires_grad_(), T_e.requires_grad_(), scale).backward()


def _own_questions_only(image, text, pixels, ids, scale, chunk) -> None:
    with torch.no_grad():
        I_e = torch.cat([image(part) for part in pixels.split(chunk)])
        T_e = torch.cat([text(part) for part in ids.split(chunk)])
    n = len(pixels)
    for k in range(0, n, chunk):
        place = torch.arange(k, min(k + chunk, n))
        rows = F.cross_entropy(scale * image(pixels[place]) @ T_e.T, place, reduction="sum")
        columns = F.cross_entropy(scale * text(ids[place]) @ I_e.T, place, reduction="sum")
        ((rows + columns) / (2 * n)).backward()


def _pictures_ask_alone(image, text, pixels, ids, scale, chunk) -> None:
    with torch.no_grad():
        I_e = torch.cat([image(part) for part in pixels.split(chunk)])
        T_e = torch.cat([text(part) for part in ids.split(chunk)])
    F.cross_entropy(scale * I_e.requires_grad_() @ T_e.requires_grad_().T, torch.arange(len(I_e))).backward()
    for tower, parts, grads in ((image, pixels, I_e.grad), (text, ids, T_e.grad)):
        for part, gradient in zip(parts.split(chunk), grads.split(chunk), strict=True):
            tower(part).backward(gradient)


def _pictures_only(image, text, pixels, ids, scale, chunk) -> None:
    kept = [p.grad for p in text.parameters()]
    _pieces(image, text, pixels, ids, scale, chunk)
    for p, grad in zip(text.parameters(), kept, strict=True):
        p.grad = grad


def _last_piece_left_out(image, text, pixels, ids, scale, chunk) -> None:
    with torch.no_grad():
        I_e = torch.cat([image(part) for part in pixels.split(chunk)])
        T_e = torch.cat([text(part) for part in ids.split(chunk)])
    _loss(I_e.requires_grad_(), T_e.requires_grad_(), scale).backward()
    for k in range(0, len(pixels) // chunk * chunk, chunk):
        image(pixels[k : k + chunk]).backward(I_e.grad[k : k + chunk])
        text(ids[k : k + chunk]).backward(T_e.grad[k : k + chunk])


def _mean_of_pieces(image, text, pixels, ids, scale, chunk) -> None:
    _pieces(image, text, pixels, ids, scale, chunk)
    count = -(-len(pixels) // chunk)
    for p in (*image.parameters(), *text.parameters()):
        p.grad /= count


MISTAKES = (
    (_each_for_itself, "each piece asks only within itself: with 3 of 7 pairs in a piece a picture has 2 wrong "
     "texts instead of 6. Compute the features of all pairs first, without gradients."),
    (_each_for_itself_summed, "each piece is a small batch of its own, and their losses are added up. A picture must "
     "be compared with the texts of all pieces: compute the features of all pairs first, without gradients."),
    (_own_questions_only, "a feature has a gradient from its own row only. It is also a wrong answer in all other "
     "rows, and gets a gradient from these: let .backward() on the whole table find the gradient of each feature."),
    (_pictures_ask_alone, "only the pictures ask: your loss is that of the rows. Figure 3's is the mean of rows and "
     "columns."),
    (_pictures_only, "the text tower gets no gradient."),
    (_last_piece_left_out, "the last piece is left out where it is smaller than the others: 7 pairs are three pieces "
     "of 3, the third with one pair in it."),
    (_mean_of_pieces, "the gradients are divided by the number of pieces. The whole loss is a mean over all pairs "
     "already, and every piece's share of it is added."),
)  # fmt: skip


class _Tower(nn.Module):
    """Two small layers; `most` rows in a call with gradients on, and `most_kept` at a time for the backward pass."""

    def __init__(self, seed: int):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)
        for k, p in enumerate(self.parameters()):
            p.data = numbers(*p.shape, seed=seed + k)
        self.most = self.kept = self.most_kept = 0

    def forward(self, x: Tensor) -> Tensor:
        inside = self.first(x)
        if torch.is_grad_enabled():
            self.most = max(self.most, len(x))
            self._keep(len(x))
            weakref.finalize(inside, self._keep, -len(x))
        return F.normalize(self.second(inside.sin()), dim=-1)  # sin keeps its input, as a layer does for going back

    def _keep(self, rows: int) -> None:
        self.kept += rows
        self.most_kept = max(self.most_kept, self.kept)


def _grads(fn: Callable, n: int, chunk: int, scale: float) -> tuple[list[Tensor | None], int, int]:
    """The gradients that `fn` leaves, the most rows of a call with gradients on, the most that were kept at a time."""
    image, text = _Tower(10), _Tower(20)
    with torch.enable_grad():
        fn(image, text, numbers(n, 5, seed=1), numbers(n, 5, seed=2), scale, chunk)
    grads = [p.grad for tower in (image, text) for p in tower.parameters()]
    return grads, max(image.most, text.most), max(image.most_kept, text.most_kept)


def _alike(a: list, b: list) -> bool:
    return all((x is None and y is None) or (x is not None and y is not None and same(x, y))
               for x, y in zip(a, b, strict=True))  # fmt: skip


def _pieces_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    asked = ((7, 3, 3.0), (7, 7, 3.0), (5, 1, 14.3), (8, 4, 1.0), (6, 4, 100.0))
    found = [(*numbers_, *_grads(fn, *numbers_), _grads(_pieces, *numbers_)[0]) for numbers_ in asked]
    if any(not _alike(got, want) for *_, got, _, _, want in found):
        for mistake, says in MISTAKES:  # claimed only by an answer that makes it every time
            yield any(not _alike(got, _grads(mistake, n, chunk, scale)[0]) for n, chunk, scale, got, *_ in found), (
                says[0].upper() + says[1:]
            )
    for n, chunk, scale, got, most, kept, want in found:
        case = f"{n} pairs, {chunk} at a time, exp(t) = {scale:g}"
        yield any(g is not None for g in got), (
            f"{case}: no parameter has a gradient. The features' gradients must be handed down to the towers: call "
            "each tower once more and give .backward(...) what the features have."
        )
        yield _alike(got, want), f"{case}: the gradients differ from those of one batch of {n}."
        yield most <= chunk, (
            f"{case}: a tower was called with {most} pairs and gradients on"
            + (", which is the whole batch." if most == n else ".")
        )
        yield kept <= chunk, (
            f"{case}: what the backward pass needs is kept for {kept} pairs at a time, so the memory is that of more "
            "than one piece. The first pass takes torch.no_grad(); later each piece goes forward and back before the "
            "next."
        )


EXERCISE = Exercise(
    name="clip.batch_in_pieces",
    title="A batch that does not fit",
    difficulty=3,
    minutes=25,
    statement="""
        The paper's batch has 32,768 pairs. In most trainings a batch that does not fit is cut up, and the gradients of
        the pieces are added. Not here: the loss of a pair depends on all others. But it depends on them through their
        features alone, and these are small. Compute them all, without gradients; find what the loss wants of each
        feature; and then hand that down to the towers, piece by piece.
        """,
    hints=(
        "The chain rule: the gradient of a weight is that of the features, times how they depend on the weight. Which "
        "of the two factors needs all pairs?",
        "Three passes: features under torch.no_grad(); the loss on these features, which require gradients; each piece "
        "through its tower again. tensor.backward(gradient) starts from a gradient that you give.",
        "I_e = cat of pieces without gradients, I_e.requires_grad_(), the same for T_e; loss.backward(); then for each "
        "piece image(part).backward(I_e.grad of that piece), and the same for the texts.",
    ),
    compare="Compare: where in the course's own does the loss of one pair reach another pair?",
    stub=_pieces_stub,
    solution=_pieces,
    check=_pieces_check,
    wrong={
        "each_for_itself": WrongAnswer(_each_for_itself, "asks only within itself"),
        "small_batches_added": WrongAnswer(_each_for_itself_summed, "a small batch of its own"),
        "graphs_kept": WrongAnswer(_graphs_kept, "is kept for 7 pairs at a time"),
        "all_at_once": WrongAnswer(_all_at_once, "which is the whole batch"),
        "towers_get_nothing": WrongAnswer(_towers_get_nothing, "no parameter has a gradient"),
        "own_row_only": WrongAnswer(_own_questions_only, "from its own row only"),
        "pictures_ask_alone": WrongAnswer(_pictures_ask_alone, "your loss is that of the rows"),
        "pictures_only": WrongAnswer(_pictures_only, "text tower gets no gradient"),
        "last_piece_left_out": WrongAnswer(_last_piece_left_out, "the third with one pair in it"),
        "divided": WrongAnswer(_mean_of_pieces, "divided by the number of pieces"),
    },
)
