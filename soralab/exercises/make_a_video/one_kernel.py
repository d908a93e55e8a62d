"""A convolution over places and one over frames as a single kernel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(space: Tensor, time: Tensor) -> Tensor:
    """The kernel of the one 3-D convolution that does what two convolutions do, first over places, then over frames.

    space [mid, dim, rows, columns] and time [dim_out, mid, taps] are the kernels of the two, as PyTorch holds them;
    both have no biases. Returns [dim_out, dim, taps, rows, columns], as F.conv3d takes it.
    """
    raise NotImplementedError


def solution(space: Tensor, time: Tensor) -> Tensor:
    """The kernel of the one 3-D convolution that does what two convolutions do, first over places, then over frames."""
    return torch.einsum("omt,mdhw->odthw", time, space)


def _case(dim: int, mid: int, out: int, taps: int, rows: int, columns: int, dtype=torch.float32) -> tuple:
    return torch.randn(mid, dim, rows, columns, dtype=dtype), torch.randn(out, mid, taps, dtype=dtype)


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 1, 3, 1, 1), "numbers over places, three taps over frames")
    yield Case(_case(1, 2, 1, 1, 1, 1), "two channels between, one tap")
    yield Case(_case(2, 2, 2, 3, 3, 3), "all channels alike, all sides alike")
    yield Case((torch.randn(3, 2, 3, 3), torch.eye(3)[:, :, None] * torch.tensor([0.0, 1.0, 0.0])),
               "the start: time is the identity")  # fmt: skip
    yield Case(_case(3, 3, 3, 3, 2, 1), "sides that differ")
    yield Case(_case(2, 3, 4, 5, 3, 1), "everything differs")
    yield Case(_case(3, 2, 4, 2, 1, 3, torch.float64), "float64")
    for _ in range(3):
        yield Case(_case(*torch.randint(1, 5, (6,)).tolist()))


def turned_round(space, time):
    return solution(space, time.flip(-1))


def frames_last(space, time):
    return torch.einsum("omt,mdhw->odhwt", time, space)


def channels_exchanged(space, time):
    return torch.einsum("mot,mdhw->odthw", time, space)


def in_and_out_exchanged(space, time):
    return torch.einsum("omt,mdhw->dothw", time, space)


def time_first(space, time):
    return torch.einsum("mdt,omhw->odthw", time, space)


def its_own_channel(space, time):
    return torch.einsum("mmt,mdhw->mdthw", time, space)


def sums_before_products(space, time):
    return time.sum(1)[:, None, :, None, None] * space[:, :, None]


def sums_of_both(space, time):
    return torch.einsum("ot,dhw->odthw", time.sum(1), space.sum(0))


def mean_over_channels(space, time):
    return solution(space, time) / len(space)


def same_frame_alone(space, time):
    kernel = torch.zeros_like(solution(space, time))
    middle = time.shape[-1] // 2
    kernel[:, :, middle] = torch.einsum("om,mdhw->odhw", time[:, :, middle], space)
    return kernel


def every_tap_the_same(space, time):
    return solution(space, time.mean(-1, keepdim=True).expand_as(time))


def added(space, time):
    return time.sum(1)[:, None, :, None, None] + space.sum(0)[None, :, None]


EXERCISE = Exercise(
    name="make_a_video.one_kernel",
    title="Two kernels, one kernel",
    difficulty=2,
    minutes=10,
    statement="""
        A full 3-D convolution looks at 3 × 3 × 3 neighbours at once. The pseudo-3-D one looks at 3 × 3 places first,
        and then at three frames of what it found (Eq. 2). What it does is a 3-D convolution all the same, though not
        every one can be written so: write down its kernel. Every output channel of the second listens to every channel
        of the first.
        """,
    hints=(
        "Put a single 1 into a single place, frame and channel, and follow it through both. Over which index must you "
        "sum, because it is seen neither going in nor coming out?",
        "The channels between the two are summed over. All else stands free: the output channel and the tap come from "
        "time, the input channel, row and column from space.",
        'torch.einsum with "omt" for time and "mdhw" for space. What is left when m is gone, in F.conv3d\'s order?',
    ),
    compare="Compare: the chapter's layers have biases. In which frames of a film would one kernel with one bias give "
            "something else than the two after each other, with zeros around the film?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "turned_round": Mistake(turned_round, "you turn the taps over frames round. PyTorch's convolutions do not flip "
                                "their kernels: the first tap meets the frame before."),
        "frames_last": Mistake(frames_last, "your frames are the last axis. F.conv3d takes them before rows and "
                               "columns, as films have them."),
        "channels_exchanged": Mistake(channels_exchanged, "you sum over time's first axis. It holds the channels that "
                                      "come out; those that space gives are the second one."),
        "in_and_out_exchanged": Mistake(in_and_out_exchanged, "what goes in and what comes out are exchanged in your "
                                        "kernel: PyTorch has the output channels first."),
        "time_first": Mistake(time_first, "your kernel is that of time first and space after it. Their channels meet "
                              "the other way round: time listens to what space gives."),
        "its_own_channel": Mistake(its_own_channel, "each channel of yours hears only itself over time. The second "
                                   "convolution listens to all channels of the first."),
        "sums_before_products": Mistake(sums_before_products, "you sum time over its channels before you multiply. A "
                                        "sum of products is not a product of sums: multiply, then sum over m."),
        "sums_of_both": Mistake(sums_of_both, "you sum both over the channels between and multiply the sums. Multiply "
                                "channel by channel, and sum then."),
        "mean_over_channels": Mistake(mean_over_channels, "you take the mean over the channels between. A convolution "
                                      "sums."),
        "same_frame_alone": Mistake(same_frame_alone, "you use time's middle tap alone: the frames before and after "
                                    "are never seen. That is the layer at its start, not later."),
        "every_tap_the_same": Mistake(every_tap_the_same, "all your taps over frames are alike: nothing could tell "
                                      "what came before from what came after."),
        "added": Mistake(added, "you add the two kernels. One convolution after the other multiplies them."),
    },
)  # fmt: skip
