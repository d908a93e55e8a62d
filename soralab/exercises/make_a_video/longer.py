"""A film that goes on beyond the window that its network has learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(film: Callable, z: Tensor, keep: int, window: int, total: int) -> Tensor:
    """z [batch, n, c, height, width] and what comes after it: [batch, total, c, height, width], total at least n.

    film(known, given) makes windows [batch, window, c, height, width], and no shorter or longer ones: known of that
    shape holds the frames that are given and zeros elsewhere, given [batch, window] bool says which they are, and they
    come back as they are. Each window is given the last `keep` frames that there are by then, as its first; keep is at
    most n, and below window. What the last window has too many is left off. If total is n, nothing is filmed.
    """
    raise NotImplementedError


def solution(film: Callable, z: Tensor, keep: int, window: int, total: int) -> Tensor:
    """z [batch, n, c, height, width] and what comes after it: [batch, total, c, height, width], total at least n."""
    given = (torch.arange(window) < keep).expand(len(z), -1)
    while z.shape[1] < total:
        known = F.pad(z[:, -keep:], (0, 0, 0, 0, 0, 0, 0, window - keep))
        z = torch.cat([z, film(known, given)[:, keep:]], dim=1)
    return z[:, :total]


def _film(window: int) -> Callable:
    over = torch.randn(window, window, dtype=torch.float64) / window**0.5
    told = torch.randn(window, window, dtype=torch.float64)

    def film(known: Tensor, given: Tensor) -> Tensor:
        """A fixed network, which listens to all that it is handed, each frame to every other."""
        if known.shape[1] != window or given.shape != known.shape[:2]:
            raise ValueError(f"known, given: got {list(known.shape)}, {list(given.shape)}; takes {window} frames")
        heard = torch.einsum("st,btchw->bschw", over.to(known), known)
        where = torch.einsum("st,bt->bs", told.to(known), given.to(known))[:, :, None, None, None]
        return torch.where(given[:, :, None, None, None], known, torch.tanh(heard + 0.3 * where + 0.1))

    return film


def _case(n: int, keep: int, window: int, total: int, batch: int = 1, dtype=torch.float32) -> tuple:
    c, height, width = torch.randint(1, 3, (3,)).tolist()
    return _film(window), torch.randn(batch, n, c, height, width, dtype=dtype), keep, window, total


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 3, 3), "a picture brought to life: one window")
    yield Case(_case(2, 1, 3, 4), "one window, and a frame that is not told")
    yield Case(_case(1, 1, 3, 5), "two windows")
    yield Case(_case(2, 2, 4, 7), "the last window has a frame too many")
    yield Case(_case(4, 2, 3, 6, 2), "one new frame a window, two films")
    yield Case(_case(3, 3, 9, 25), "the chapter's: from three frames to twenty-five")
    yield Case(_case(5, 2, 4, 5), "nothing to film")
    yield Case(_case(9, 3, 5, 11), "a long film before it")
    yield Case(_case(3, 2, 6, 12, 2, torch.float64), "float64")


def _walk(film, z, keep, window, total, last=lambda z, keep: z[:, -keep:], rest=lambda known, z: known,
          mask=lambda given: given, new=lambda made, keep: made[:, keep:]):
    """The solution with other frames for the last ones, another rest of the window, another mask, other new frames."""
    given = mask((torch.arange(window) < keep).expand(len(z), -1))
    while z.shape[1] < total:
        known = F.pad(last(z, keep), (0, 0, 0, 0, 0, 0, 0, window - keep))
        z = torch.cat([z, new(film(rest(known, z), given), keep)], dim=1)
    return z[:, :total]


def first_ones_again(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, last=lambda z, keep: z[:, :keep])


def always_z(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, last=lambda _, keep: z[:, -keep:])


def in_reverse(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, last=lambda z, keep: z[:, -keep:].flip(1))


def shown_twice(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, new=lambda made, keep: made)


def one_frame_a_window(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, new=lambda made, keep: made[:, keep : keep + 1])


def held_instead_of_zeros(film, z, keep, window, total):
    hold = lambda known, z: torch.cat([known[:, :keep], z[:, -1:].expand_as(known[:, keep:])], 1)  # noqa: E731
    return _walk(film, z, keep, window, total, rest=hold)


def nothing_given(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, mask=torch.zeros_like)


def mask_turned_round(film, z, keep, window, total):
    return _walk(film, z, keep, window, total, mask=lambda given: ~given)


def not_cut(film, z, keep, window, total):
    while z.shape[1] < total:
        z = solution(film, z, keep, window, z.shape[1] + window - keep)
    return z


def beginning_lost(film, z, keep, window, total):
    return z if total == z.shape[1] else solution(film, z[:, -keep:], keep, window, total)


def new_ones_alone(film, z, keep, window, total):
    return solution(film, z, keep, window, total)[:, z.shape[1] :]


def so_many_more(film, z, keep, window, total):
    return solution(film, z, keep, window, z.shape[1] + total)


def all_that_there_is(film, z, keep, window, total):
    while z.shape[1] < total:
        told = min(z.shape[1], window - 1)
        z = solution(film, z, told, window, z.shape[1] + window - told)
    return z[:, :total]


def last_window_pulled_back(film, z, keep, window, total):
    while z.shape[1] < total:
        told = min(max(keep, window - (total - z.shape[1])), z.shape[1])
        z = solution(film, z, told, window, z.shape[1] + window - told)
    return z[:, :total]


def last_window_shorter(film, z, keep, window, total):
    while z.shape[1] < total:
        size = min(window, keep + total - z.shape[1])
        z = solution(film, z, keep, size, z.shape[1] + size - keep)
    return z


def at_the_window_s_end(film, z, keep, window, total):
    given = (torch.arange(window) >= window - keep).expand(len(z), -1)
    while z.shape[1] < total:
        known = F.pad(z[:, -keep:], (0, 0, 0, 0, 0, 0, window - keep, 0))
        z = torch.cat([z, film(known, given)[:, : window - keep]], dim=1)
    return z[:, :total]


EXERCISE = Exercise(
    name="make_a_video.longer",
    title="And then?",
    difficulty=2,
    minutes=15,
    statement="""
        A network that fills in masked frames also goes on: mask those after the ones that are known (section 3.3). One
        window after the other makes a film of any length, though it has learnt windows alone. Each window knows of the
        past only what it is given; so which frames it is given, where they stand in it, and which of its frames are
        new decides whether the film goes on or begins again and again.
        """,
    hints=(
        "Draw two windows under each other on one line of time, with their given frames shaded. Where do they overlap?",
        "A window: the last `keep` frames in its first places, zeros behind, the mask True for the first. Of what "
        "comes back, what is behind the given ones is new.",
        "while there are fewer than total: known = F.pad(z[:, -keep:], (0, 0, 0, 0, 0, 0, 0, window - keep)); cat z "
        "and film(known, given)[:, keep:]; at last [:, :total].",
    ),
    compare="Compare: more given frames say more of the past, and make fewer new ones. How many windows does a film of "
            "100 frames take, of nine frames each, with one, three and eight given?",
    stub=stub,
    gradients=False,  # it films; nothing is trained through it
    solution=solution,
    cases=cases,
    mistakes={
        "first_ones_again": Mistake(first_ones_again, "every window is given the film's first frames, so it films the "
                                    "same stretch again. It goes on from the last ones."),
        "always_z": Mistake(always_z, "every window is given the last frames of z, as it came in. After the first "
                            "window there are later ones."),
        "in_reverse": Mistake(in_reverse, "you hand the given frames over in reverse order. They run forwards in the "
                              "window too, or the film goes back where it came from."),
        "shown_twice": Mistake(shown_twice, "the given frames are in your film twice: at the end of what there was, "
                               "and at the window's beginning. What is behind them is new."),
        "one_frame_a_window": Mistake(one_frame_a_window, "you keep one new frame of each window and throw the others "
                                      "away. All that are behind the given ones belong to the film."),
        "held_instead_of_zeros": Mistake(held_instead_of_zeros, "you fill the window's rest with the last frame. Where "
                                         "nothing is known there are zeros, as in the training."),
        "nothing_given": Mistake(nothing_given, "your mask is False everywhere: the frames are in `known`, and nobody "
                                 "says that they are."),
        "mask_turned_round": Mistake(mask_turned_round, "your mask is turned round: True is for a frame that is given. "
                                     "The zeros would be taken for known frames."),
        "not_cut": Mistake(not_cut, "your film is as long as its windows make it. What goes beyond total is left off."),
        "beginning_lost": Mistake(beginning_lost, "your film begins with the first window. It begins with all of z, "
                                  "also with what no window was given."),
        "new_ones_alone": Mistake(new_ones_alone, "you return the new frames alone. The film begins with z."),
        "so_many_more": Mistake(so_many_more, "you film `total` frames more. It is how many there are in all, those "
                                "of z among them."),
        "all_that_there_is": Mistake(all_that_there_is, "you give each window as many frames as fit, so that from the "
                                     "second one on it has one new frame. It is given `keep`."),
        "last_window_pulled_back": Mistake(last_window_pulled_back, "you give the last window more frames, so that it "
                                           "ends with the film. It is given `keep` as all others; cut off the rest."),
        "last_window_shorter": Mistake(last_window_shorter, "your last window is shorter than the others. The network "
                                       "makes windows of one length: cut off what is too much."),
        "at_the_window_s_end": Mistake(at_the_window_s_end, "you lay the given frames at the window's end. So it films "
                                       "what came before them, and you take that for what comes after."),
    },
)  # fmt: skip
