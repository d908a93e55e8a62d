"""A picture's kernel in a film's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(kernel: Tensor, taps: int) -> Tensor:
    """The kernel of a causal convolution over `taps` frames that does what kernel [out, in, rows, columns] does to each
    frame: [out, in, taps, rows, columns].

    The convolution is given taps - 1 empty frames before the first, and no frame after the last.
    """
    raise NotImplementedError


def solution(kernel: Tensor, taps: int) -> Tensor:
    """The kernel of a causal convolution over `taps` frames that does what kernel does to each frame."""
    before = kernel.new_zeros(*kernel.shape[:2], taps - 1, *kernel.shape[2:])
    return torch.cat([before, kernel[:, :, None]], dim=2)


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 1, 1, 1), 3), "one number")
    yield Case((torch.randn(3, 3, 3, 3), 3), "three of everything")
    yield Case((torch.randn(2, 3, 3, 3), 1), "a kernel of one frame")
    for taps in (2, 3, 4, 5):
        out, into, rows, columns = torch.randint(1, 6, (4,)).tolist()
        yield Case((torch.randn(out, into, rows, columns), taps), f"{taps} frames")
    yield Case((torch.randn(4, 2, 3, 3, dtype=torch.float64), 3), "float64")


def _at(kernel: Tensor, taps: int, place: int) -> Tensor:
    return torch.stack([kernel if k == place else torch.zeros_like(kernel) for k in range(taps)], dim=2)


def in_the_middle(kernel: Tensor, taps: int) -> Tensor:
    return _at(kernel, taps, taps // 2)


def before_the_middle(kernel: Tensor, taps: int) -> Tensor:
    return _at(kernel, taps, (taps - 1) // 2)


def in_the_first(kernel: Tensor, taps: int) -> Tensor:
    return _at(kernel, taps, 0)


def averaged(kernel: Tensor, taps: int) -> Tensor:
    return kernel[:, :, None].repeat(1, 1, taps, 1, 1) / taps


def everywhere(kernel: Tensor, taps: int) -> Tensor:
    return kernel[:, :, None].repeat(1, 1, taps, 1, 1)


def turned_over(kernel: Tensor, taps: int) -> Tensor:
    return solution(kernel.flip(-1, -2), taps)


def time_at_the_end(kernel: Tensor, taps: int) -> Tensor:
    return solution(kernel, taps).movedim(2, -1)


MIDDLE = ("you put it in the middle. That is right where a frame sees as much of the future as of the past; here the "
          "middle meets a frame *before* (of three slots, the last one), so that films come out late and begin with "
          "nothing.")

EXERCISE = Exercise(
    name="walt.inflate_kernel",
    title="A picture's kernel in a film's",
    difficulty=1,
    minutes=10,
    statement="""
        A model of films is cheaper to begin with a model of pictures: at its start it should do to each frame what the
        picture model did. So each kernel over rows and columns goes into a kernel over frames, rows and columns. Into
        which of its slots? The convolution is causal: it is padded in the past alone, and its kernels are, as always
        in these libraries, *not* turned over.
        """,
    hints=(
        "For the first frame of a film all slots but one meet frames that are not there. Which one meets the frame?",
        "A convolution that is padded in the past: the last slot meets the present, the others what came before.",
        "torch.cat of taps - 1 slots of zeros and of kernel[:, :, None], along axis 2.",
    ),
    compare="Compare: the course's kernels over time have three slots. In a model that sees the future the picture's "
            "kernel goes to the middle, and there it is right.",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "in_the_middle": Mistake(in_the_middle, MIDDLE),
        "before_the_middle": Mistake(before_the_middle, MIDDLE),
        "in_the_first": Mistake(in_the_first, "you put it in the first slot. That one meets the frame furthest back; "
                                "the present is met by the last."),
        "averaged": Mistake(averaged, "you spread it over all slots. On a film that stands still that is the same, but "
                            "for its first frames; what moves is smeared over time."),
        "everywhere": Mistake(everywhere, "you put it into every slot: frames are added up, and a film that stands "
                              "still comes out several times as strong."),
        "turned_over": Mistake(turned_over, "you turn the kernel over. torch's convolutions do not, over pictures as "
                               "over films, so it goes in as it is."),
        "time_at_the_end": Mistake(time_at_the_end, "your slots of time are the last axis; in a film's kernel they "
                                   "come before rows and columns."),
    },
)  # fmt: skip
