"""Which frames of a film make a clip of so many frames a second."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(length: int, fps: float, rate: float, count: int, start: int) -> list[int]:
    """Which `count` frames of a film make a clip of `rate` frames a second: their numbers; the first is `start`.

    The film has `length` frames, numbered from 0, `fps` of them in a second. Frame k of the clip is to show what there
    was k / rate seconds after its first: the frame of the film that is nearest to that moment, and of two that are
    equally near the later one. [] where the film does not have that: it ends before the clip, or rate is above fps.
    """
    raise NotImplementedError


def solution(length: int, fps: float, rate: float, count: int, start: int) -> list[int]:
    """Which `count` frames of a film make a clip of `rate` frames a second: their numbers; the first is `start`."""
    numbers = [start + math.floor(k * fps / rate + 0.5) for k in range(count)]
    return [] if rate > fps or numbers[-1] >= length else numbers


def cases() -> Iterator[Case]:
    yield Case((9, 8, 8, 3, 0), "the film's own rate")
    yield Case((9, 8, 4, 3, 2), "every second frame, from the third on")
    yield Case((9, 8, 4, 1, 8), "one frame, the last")
    yield Case((30, 24, 10, 5, 0), "2.4 frames of the film to one of the clip")
    yield Case((40, 24, 10, 16, 2), "2.4 to one, a long clip that ends with the film")
    yield Case((30, 24, 16, 5, 1), "half-way between two frames")
    yield Case((60, 20, 8, 9, 3), "half-way between two frames")
    yield Case((100, 29.97, 6, 16, 5), "a little less than five to one")
    yield Case((80, 30, 8, 6, 10), "3.75 to one")
    yield Case((9, 8, 4, 3, 4), "the last frame is just there")
    yield Case((9, 8, 4, 3, 5), "the film ends too early, by a frame")
    yield Case((2, 24, 16, 2, 0), "the moment lies in the film, its nearest frame does not")
    yield Case((4, 24, 11, 2, 1), "the moment lies behind the last frame, which is its nearest")
    yield Case((9, 8, 9, 3, 0), "more frames a second than there are")
    yield Case((9, 8, 16, 3, 0), "twice as many frames a second as there are")
    for _ in range(4):
        fps, share = 5 + 25 * float(torch.rand(())), 0.2 + 0.8 * float(torch.rand(()))
        count, start = int(torch.randint(2, 9, ())), int(torch.randint(0, 5, ()))
        need = start + math.floor((count - 1) / share + 0.5) + 1
        yield Case((need + int(torch.randint(0, 4, ())), round(fps, 2), round(fps * share, 2), count, start), "")


def _taken(length: int, fps: float, rate: float, numbers: list[int]) -> list[int]:
    """The numbers, or [] where the solution has none."""
    return [] if rate > fps or numbers[-1] >= length else numbers


def step_rounded(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + k * math.floor(fps / rate + 0.5) for k in range(count)])


def step_cut(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + k * int(fps / rate) for k in range(count)])


def always_before(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + int(k * fps / rate) for k in range(count)])


def always_after(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + math.ceil(k * fps / rate) for k in range(count)])


def half_to_even(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + round(k * fps / rate) for k in range(count)])


def half_to_the_earlier(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + math.ceil(k * fps / rate - 0.5) for k in range(count)])


def ratio_turned_round(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + math.floor(k * rate / fps + 0.5) for k in range(count)])


def start_in_clip_frames(length, fps, rate, count, start):
    return _taken(length, fps, rate, [math.floor((start + k) * fps / rate + 0.5) for k in range(count)])


def start_forgotten(length, fps, rate, count, start):
    return _taken(length, fps, rate, [math.floor(k * fps / rate + 0.5) for k in range(count)])


def over_the_whole_film(length, fps, rate, count, start):
    step = (length - 1 - start) / max(count - 1, 1)
    return _taken(length, fps, rate, [start + math.floor(k * step + 0.5) for k in range(count)])


def one_gap_too_many(length, fps, rate, count, start):
    step = count / max(count - 1, 1) * fps / rate
    return _taken(length, fps, rate, [start + math.floor(k * step + 0.5) for k in range(count)])


def last_frame_repeated(length, fps, rate, count, start):
    numbers = [min(start + math.floor(k * fps / rate + 0.5), length - 1) for k in range(count)]
    return _taken(length, fps, rate, numbers)


def beyond_the_end(length, fps, rate, count, start):
    return [] if rate > fps else [start + math.floor(k * fps / rate + 0.5) for k in range(count)]


def cut_off_at_the_end(length, fps, rate, count, start):
    return [number for number in beyond_the_end(length, fps, rate, count, start) if number < length]


def moment_in_the_film(length, fps, rate, count, start):
    late = start + (count - 1) * fps / rate >= length
    return [] if late or rate > fps else beyond_the_end(length, fps, rate, count, start)


def moment_before_the_last_frame(length, fps, rate, count, start):
    late = start + (count - 1) * fps / rate > length - 1
    return [] if late else solution(length, fps, rate, count, start)


def step_to_even(length, fps, rate, count, start):
    return _taken(length, fps, rate, [start + k * round(fps / rate) for k in range(count)])


def own_rate_refused(length, fps, rate, count, start):
    return [] if rate >= fps else solution(length, fps, rate, count, start)


def frames_shown_twice(length, fps, rate, count, start):
    numbers = [start + math.floor(k * fps / rate + 0.5) for k in range(count)]
    return _taken(length, max(fps, rate), rate, numbers)


def refused_too_early(length, fps, rate, count, start):
    return _taken(length - 1, fps, rate, solution(length, fps, rate, count, start))


def a_frame_s_time_more(length, fps, rate, count, start):
    return [] if start + count * fps / rate > length else solution(length, fps, rate, count, start)


EXERCISE = Exercise(
    name="make_a_video.at_rate",
    title="Frames for a rate",
    difficulty=1,
    minutes=10,
    statement="""
        The network is told a frame rate with each film, and believes it. So the frames that are taken from a film must
        have that rate: a clip whose frames lie a little closer than they should, or one that is padded with its last
        frame, teaches it a wrong speed under a right number. Films have their own rates, 24 or 29.97 frames a second,
        and what is asked for seldom divides them.
        """,
    hints=(
        "How many of the film's frames pass between two of the clip's? It need not be a whole number. When may it be "
        "rounded, and when not?",
        "The k-th frame is k * fps / rate frames after the first: round that, not the step. Python's round takes a "
        "half to the even number.",
        "math.floor(k * fps / rate + 0.5), counted from start; the last of them must be below length, and rate at most "
        "fps.",
    ),
    compare="Compare: with 2.4 frames to one the clip's steps are 2, 3, 2, 3, 2. Its rate is right on average, and at "
            "no step. Which films would show it?",
    stub=stub,
    gradients=False,  # it counts frames
    solution=solution,
    cases=cases,
    mistakes={
        "step_rounded": Mistake(step_rounded, "you round the step, and then go k steps. What is lost by rounding once "
                                "is lost k times: round each frame's own place."),
        "step_cut": Mistake(step_cut, "you cut the step down to a whole number, and then go k steps, so the clip falls "
                            "behind further and further. Round each frame's own place."),
        "always_before": Mistake(always_before, "you always take the frame before the moment. Asked for is the "
                                 "nearest, which may come after it."),
        "always_after": Mistake(always_after, "you always take the frame after the moment. Asked for is the nearest, "
                                "which may come before it."),
        "half_to_even": Mistake(half_to_even, "half-way between two frames yours takes now the earlier one, now the "
                                "later: Python's round goes to the even number. It is to be the later."),
        "half_to_the_earlier": Mistake(half_to_the_earlier, "half-way between two frames you take the earlier one. It "
                                       "is to be the later."),
        "ratio_turned_round": Mistake(ratio_turned_round, "your ratio is turned round: a clip of fewer frames a second "
                                      "leaves frames of the film out, so its steps are longer than one."),
        "start_in_clip_frames": Mistake(start_in_clip_frames, "you count start in frames of the clip. It is a frame of "
                                        "the film: the steps are added to it."),
        "start_forgotten": Mistake(start_forgotten, "your clips all begin with the film's first frame."),
        "over_the_whole_film": Mistake(over_the_whole_film, "you spread the frames over the whole film, however long "
                                       "it is. Then every film has another rate, and none the one that is told."),
        "one_gap_too_many": Mistake(one_gap_too_many, "you spread the frames over count / rate seconds, both ends "
                                    "included. Between count frames lie count - 1 gaps, each 1 / rate."),
        "last_frame_repeated": Mistake(last_frame_repeated, "where the film is too short you show its last frame again "
                                       "and again. A film that stops at its end is another film: return []."),
        "beyond_the_end": Mistake(beyond_the_end, "you name frames that are not there: the film ends before the clip. "
                                  "Return [] there."),
        "cut_off_at_the_end": Mistake(cut_off_at_the_end, "where the film is too short your clip has fewer frames than "
                                      "were asked for. Return [] there."),
        "moment_in_the_film": Mistake(moment_in_the_film, "you ask whether the last moment lies before the film's end. "
                                      "Round it first: it is the frame's number that must be below length."),
        "moment_before_the_last_frame": Mistake(moment_before_the_last_frame, "you refuse a last moment that lies "
                                                "behind the last frame. Round it first: where the last frame is its "
                                                "nearest, it is there."),
        "step_to_even": Mistake(step_to_even, "you round the step, and then go k steps. What is lost by rounding once "
                                "is lost k times (and Python's round takes 2.5 to 2): round each frame's own place."),
        "own_rate_refused": Mistake(own_rate_refused, "you refuse the film's own rate. Its frames are all there: only "
                                    "a rate above it shows some twice."),
        "frames_shown_twice": Mistake(frames_shown_twice, "you take a rate above the film's own, and show frames "
                                      "twice: a stutter, told as a rate. Return [] there."),
        "refused_too_early": Mistake(refused_too_early, "you refuse clips that end with the film's last frame. It is "
                                     "there: the last number is length - 1."),
        "a_frame_s_time_more": Mistake(a_frame_s_time_more, "you ask the film to last count / rate seconds. From the "
                                       "first frame to the last it is one gap less."),
    },
)  # fmt: skip
