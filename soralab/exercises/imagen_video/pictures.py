"""Layers over time that leave pictures alone: training on films and pictures together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(x: Tensor, layer: Callable, alone: Tensor) -> Tensor:
    """What `layer` makes of the films in a batch, and the pictures as they are: of x's shape.

    x [batch * frames, dim, height, width]: row after row, its frames one after the other. alone [batch], True where the
    frames of a row are pictures that have nothing to do with each other. layer takes [rows, dim, frames, places] and
    gives the same shape; it is called once, with all rows. Pictures come back bit for bit, whatever layer gives for
    them, even nan, and no gradient reaches the layer from them.
    """
    raise NotImplementedError


def solution(x: Tensor, layer: Callable, alone: Tensor) -> Tensor:
    """What `layer` makes of the films in a batch, and the pictures as they are: of x's shape."""
    frames = len(x) // len(alone)
    h = layer(rearrange(x, "(b t) c h w -> b c t (h w)", t=frames))
    h = rearrange(h, "b c t (h w) -> (b t) c h w", h=x.shape[2])
    return torch.where(alone.repeat_interleave(frames)[:, None, None, None], x, h)


class _Layer:
    """A layer that hears frames in order, places, and channels; `spoilt` of its rows come out as nan."""

    def __init__(self, dim: int, spoilt: Tensor | None = None, dtype=torch.float32):
        self.mix, self.spoilt, self.strength = torch.randn(dim, dim, dtype=dtype) / dim**0.5, spoilt, 1.0

    def __call__(self, x: Tensor) -> Tensor:
        if self.spoilt is not None and len(x) != len(self.spoilt):
            raise ValueError(f"the layer is to be called once, with all {len(self.spoilt)} rows; it was given {len(x)}")
        before = torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], 2)
        place = 0.05 * torch.arange(x.shape[3]).to(x)
        made = self.strength * torch.tanh(torch.einsum("dc,bctp->bdtp", self.mix.to(x), x + 0.5 * before) + place)
        return made if self.spoilt is None else made.masked_fill(self.spoilt[:, None, None, None], float("nan"))


def _case(alone: list[bool], frames: int, dim: int, height: int, width: int, spoilt=False, dtype=torch.float32):
    x, mask = torch.randn(len(alone) * frames, dim, height, width, dtype=dtype), torch.tensor(alone)
    return x, _Layer(dim, mask if spoilt else None, dtype), mask


def cases() -> Iterator[Case]:
    yield Case(_case([True], 3, 2, 1, 1), "three pictures")
    yield Case(_case([False], 3, 2, 1, 2), "one film")
    yield Case(_case([True, False], 3, 2, 2, 2), "pictures, then a film")
    yield Case(_case([False, True], 2, 3, 2, 3), "a film, then pictures")
    yield Case(_case([False, True, True, False, True], 4, 2, 1, 3), "five rows of four frames")
    yield Case(_case([True, False, False], 3, 2, 3, 1), "as many rows as frames")
    yield Case(_case([False, True], 1, 2, 2, 2), "rows of one frame")
    yield Case(_case([True, False], 3, 2, 2, 2, spoilt=True), "nan where the pictures are")
    yield Case(_case([True, False], 2, 2, 2, 2, dtype=torch.float64), "float64")


def check(fn) -> Iterator[tuple[bool, str]]:
    x, layer, alone = _case([True, False, True], 3, 4, 2, 2)
    layer.mix, layer.strength = layer.mix.requires_grad_(), 1e8
    out = fn(x, layer, alone)
    rows = out.unflatten(0, (3, 3))
    yield torch.equal(rows[0].detach(), x[:3]) and torch.equal(rows[2].detach(), x[6:]), (
        "the pictures do not come back bit for bit. x + (h - x) is x on paper only, and 0 times a number is 0 for "
        "finite numbers only: choose between x and h."
    )
    reached = None
    if out.requires_grad:
        reached = torch.autograd.grad(rows[1].sum(), layer.mix, allow_unused=True, retain_graph=True)[0]
    yield reached is not None and bool(reached.any()), (
        "no gradient comes back through the layer from the film: it is what is trained, so nothing may be detached."
    )
    others = rows[0].sum() + rows[2].sum()
    found = torch.autograd.grad(others, layer.mix, allow_unused=True)[0] if others.requires_grad else None
    yield found is None or not found.any(), (
        "a gradient reaches the layer from rows of pictures, which have nothing to teach it."
    )


def _walk(x, layer, alone, mask=None, there="(b t) c h w -> b c t (h w)", back="b c t (h w) -> (b t) c h w",
          mix=torch.where):
    frames = len(x) // len(alone)
    h = rearrange(layer(rearrange(x, there, t=frames)), back, h=x.shape[2])
    which = alone.repeat_interleave(frames) if mask is None else mask(alone, frames)
    return mix(which[:, None, None, None], x, h)


def films_left_alone(x, layer, alone):
    return _walk(x, layer, alone, lambda alone, frames: ~alone.repeat_interleave(frames))


def mask_repeated_as_a_whole(x, layer, alone):
    return _walk(x, layer, alone, lambda alone, frames: alone.repeat(frames))


def nobody_alone(x, layer, alone):
    return _walk(x, layer, alone, lambda alone, frames: torch.zeros_like(alone).repeat_interleave(frames))


def frame_by_frame(x, layer, alone):
    """Pictures as films of one frame: the layer still changes them."""
    frames = len(x) // len(alone)
    h = layer(rearrange(x, "(b t) c h w -> b c t (h w)", t=frames))
    single = layer(rearrange(x, "n c h w -> n c 1 (h w)"))
    h, single = (rearrange(h, "b c t (h w) -> (b t) c h w", h=x.shape[2]),
                 rearrange(single, "n c 1 (h w) -> n c h w", h=x.shape[2]))  # fmt: skip
    return torch.where(alone.repeat_interleave(frames)[:, None, None, None], single, h)


def first_frame_alone(x, layer, alone):
    def first(alone, frames):
        return (alone[:, None] & (torch.arange(frames) == 0)).flatten()

    return _walk(x, layer, alone, first)


def emptied(x, layer, alone):
    return _walk(x, layer, alone, mix=lambda which, x, h: torch.where(which, torch.zeros_like(x), h))


def added(x, layer, alone):
    return _walk(x, layer, alone, mix=lambda which, x, h: torch.where(which, x, x + h))


def frames_first(x, layer, alone):
    return _walk(x, layer, alone, there="(t b) c h w -> b c t (h w)", back="b c t (h w) -> (t b) c h w")


def by_shares(x, layer, alone):
    return _walk(x, layer, alone, mix=lambda which, x, h: which * x + ~which * h)


def by_difference(x, layer, alone):
    return _walk(x, layer, alone, mix=lambda which, x, h: x + ~which * (h - x))


def cut_off(x, layer, alone):
    return solution(x, lambda rows: layer(rows).detach(), alone)


EXERCISE = Exercise(
    name="imagen_video.pictures",
    title="Pictures among films",
    difficulty=1,
    minutes=10,
    statement="""
        There are far more captioned pictures than films, so both train the network (section 2.6): a row of the batch
        holds the frames of a film, or as many pictures that have nothing to do with each other. The layers of space see
        no difference. Those of time must be left out where pictures are, so that no picture hears of another, and
        nothing that is learnt about time comes from them.
        """,
    hints=(
        "alone has one entry a row, x has one picture a frame. In which order do the frames of a row lie?",
        "Run the layer on all rows as usual, then choose: x where the row is alone, else what the layer gave. "
        "repeat_interleave, or repeat?",
        "alone.repeat_interleave(frames)[:, None, None, None] chooses with torch.where between x and the layer's "
        "answer, folded back.",
    ),
    compare="Compare: a mask of attention would serve as well. What would it take for a convolution over time?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={
        "by_shares": WrongAnswer(by_shares, "nan"),
        "by_difference": WrongAnswer(by_difference, "nan"),
        "cut_off": WrongAnswer(cut_off, "no gradient comes back through the layer from the film"),
    },
    mistakes={
        "films_left_alone": Mistake(films_left_alone, "the mask is turned round: alone is True for pictures, and you "
                                    "leave the films as they are."),
        "mask_repeated_as_a_whole": Mistake(mask_repeated_as_a_whole, "alone.repeat lays the whole mask down again and "
                                            "again. The frames of a row lie together: repeat_interleave."),
        "nobody_alone": Mistake(nobody_alone, "the layer's answer comes back for pictures too: alone is not asked."),
        "frame_by_frame": Mistake(frame_by_frame, "you give the layer each picture as a film of one frame. So it "
                                  "changes pictures, and learns from them: leave them as they are."),
        "first_frame_alone": Mistake(first_frame_alone, "you leave the first picture of a row as it is, and the others "
                                     "hear of each other."),
        "emptied": Mistake(emptied, "you put zeros in the place of pictures. It is what the layer adds that should be "
                           "nothing: they come back as they are."),
        "added": Mistake(added, "you add x to what the layer gives for films. The layer has added it already, if it "
                         "wants to: return its answer."),
        "frames_first": Mistake(frames_first, "you take the batch for (t b): frame after frame. It is row after row, "
                                "so your films are made of frames of several."),
    },
)  # fmt: skip
