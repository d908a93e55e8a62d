"""From key frames to a film, window by window."""

from __future__ import annotations

from collections.abc import Iterator

from soralab.workbook.task import Case, Exercise, Mistake


def stub(keys: int, new: int, window: int) -> list[tuple[list[float], list[bool]]]:
    """How a film of `keys` frames (two or more) is filled with `new` frames between each two: one entry a window.

    Key frame k is at the moment k; the new ones stand between at equal distances. A window holds the frames of
    `window` gaps, from one key frame to another, both included; the next one begins with the key frame that the last
    one ended with. The last window may be shorter. An entry: (the moments of its frames, which of them are given).
    """
    raise NotImplementedError


def solution(keys: int, new: int, window: int) -> list[tuple[list[float], list[bool]]]:
    """How a film of `keys` frames (two or more) is filled with `new` frames between each two: one entry a window."""
    step, plan = new + 1, []
    for start in range(0, keys - 1, window):
        gaps = min(window, keys - 1 - start)
        places = range(gaps * step + 1)
        plan.append(([start + place / step for place in places], [place % step == 0 for place in places]))
    return plan


def cases() -> Iterator[Case]:
    yield Case((2, 1, 1), "two frames, one between them")
    yield Case((3, 1, 1), "a window a gap")
    yield Case((3, 1, 2), "one window")
    yield Case((4, 3, 2), "the last window is shorter")
    yield Case((9, 1, 4), "the chapter's: from 9 to 17")
    yield Case((8, 3, 1), "the paper's: three between each two")
    yield Case((5, 0, 2), "nothing new")
    yield Case((3, 2, 7), "a window longer than the film")
    yield Case((6, 4, 3), "")


def _window(start: int, gaps: int, new: int, more: int = 1) -> tuple[list[float], list[bool]]:
    """A window of so many gaps from a key frame on, and `more` frames behind their new ones."""
    step, places = new + 1, range(gaps * (new + 1) + more)
    return [start + place / step for place in places], [place % step == 0 for place in places]


def _cut(keys: int, new: int, stride: int, length: int) -> list[tuple[list[float], list[bool]]]:
    """The whole film in pieces of `length` frames, each `stride` frames behind the last one."""
    moments, given = _window(0, keys - 1, new)
    return [(moments[k : k + length], given[k : k + length]) for k in range(0, len(moments) - 1, stride)]


def a_new_start_each(keys, new, window):
    return [([m - moments[0] for m in moments], given) for moments, given in solution(keys, new, window)]


def counted_in_new_frames(keys, new, window):
    return [([m * (new + 1) for m in moments], given) for moments, given in solution(keys, new, window)]


def counted_from_one(keys, new, window):
    return [([moment + 1 for moment in moments], given) for moments, given in solution(keys, new, window)]


def counted_in_frames(keys, new, window):
    return _cut(keys, new, window - 1, window)


def counted_in_steps(keys, new, window):
    return _cut(keys, new, window, window + 1)


def counted_in_keys(keys, new, window):
    return solution(keys, new, window - 1)


def keys_shared_out(keys, new, window):
    return [_window(start, min(window, keys - start) - 1, new) for start in range(0, keys, window)]


def after_the_last(keys, new, window):
    return [_window(start, min(window, keys - start), new, 0) for start in range(0, keys, window)]


def always_full(keys, new, window):
    return [_window(start, window, new) for start in range(0, keys - 1, window)]


def pulled_back(keys, new, window):
    gaps = min(window, keys - 1)
    return [_window(min(start, keys - 1 - gaps), gaps, new) for start in range(0, keys - 1, window)]


def no_frame_shared(keys, new, window):
    return [_window(start, min(window, keys - 1 - start), new) for start in range(0, keys, window + 1)]


def first_gap_left_out(keys, new, window):
    return [_window(start, min(window, keys - 1 - start), new) for start in range(1, keys - 1, window)]


def ends_left_off(keys, new, window):
    return [(moments[:-1], given[:-1]) for moments, given in solution(keys, new, window)]


def last_frame_left_off(keys, new, window):
    *others, (moments, given) = solution(keys, new, window)
    return [*others, (moments[:-1], given[:-1])]


def the_rest_forgotten(keys, new, window):
    return [entry for entry in solution(keys, new, window) if sum(entry[1]) == window + 1]


def others_given(keys, new, window):
    return [(moments, [not g for g in given]) for moments, given in solution(keys, new, window)]


def ends_alone_given(keys, new, window):
    return [(moments, [True, *[False] * (len(given) - 2), True]) for moments, given in solution(keys, new, window)]


def every_second(keys, new, window):
    return [(moments, [k % 2 == 0 for k in range(len(given))]) for moments, given in solution(keys, new, window)]


def steps_of_one_over_new(keys, new, window):
    return [([moments[0] + k / max(new, 1) for k in range(len(moments))], given)
            for moments, given in solution(keys, new, window)]  # fmt: skip


EXERCISE = Exercise(
    name="align_your_latents.windows",
    title="From 9 frames to 17",
    difficulty=2,
    minutes=15,
    statement="""
        A film is made longer in time by filling between its frames (section 3.3). The layers over time have learnt
        films of nine frames and no longer ones, so it goes window by window: each has so many gaps, its key frames are
        given, and the windows meet in a frame that both are given. Plan it: for each window the moments of its
        frames, which the sines are told, and which of them are given. Moments are counted in key frames, so that one
        half is half-way.
        """,
    hints=(
        "How many frames does a window of g gaps have, with n new ones in each? Draw it for g = 2, n = 1.",
        "g (n + 1) + 1 frames at steps of 1 / (n + 1), beginning at the window's first key frame; every (n + 1)-th is "
        "given, the first and the last among them.",
        "for start in range(0, keys - 1, window): gaps = min(window, keys - 1 - start); place / (new + 1) from start "
        "on; given where place % (new + 1) == 0.",
    ),
    compare="Compare: how many frames does the whole film have? The paper's: 8 key frames, three between each two, and "
            "once more three between each two of these: 113.",
    stub=stub,
    gradients=False,  # it plans; nothing is computed with tensors
    solution=solution,
    cases=cases,
    mistakes={
        "a_new_start_each": Mistake(a_new_start_each, "every window begins at the moment 0. The layers would take each "
                                    "for the beginning of the film."),
        "counted_in_new_frames": Mistake(counted_in_new_frames, "you count moments in new frames. They are counted in "
                                         "key frames: the network has learnt the speed of things by them."),
        "counted_from_one": Mistake(counted_from_one, "your moments are all one too late: the first key frame is at "
                                    "the moment 0."),
        "counted_in_frames": Mistake(counted_in_frames, "your windows hold `window` frames. That is the number of "
                                     "gaps from key frame to key frame, each with its new frames."),
        "counted_in_steps": Mistake(counted_in_steps, "your windows go `window` steps from frame to frame, new ones "
                                    "among them. A gap goes from one key frame to the next: new + 1 such steps."),
        "counted_in_keys": Mistake(counted_in_keys, "your windows hold `window` key frames, and so one gap too few. So "
                                   "many gaps lie between window + 1 key frames."),
        "keys_shared_out": Mistake(keys_shared_out, "you deal the key frames out, `window` to each window and none to "
                                   "two, so what lies between two windows is never filled. Count the gaps."),
        "after_the_last": Mistake(after_the_last, "you film on after the last key frame, and your windows do not end "
                                  "with a key frame. It is filled between frames alone."),
        "always_full": Mistake(always_full, "your last window is as long as the others and goes on beyond the last key "
                               "frame. It ends there, and is shorter if need be."),
        "pulled_back": Mistake(pulled_back, "you pull the last window back until it is as long as the others, so it "
                               "films gaps a second time. It begins where the one before it ended, and is shorter."),
        "no_frame_shared": Mistake(no_frame_shared, "your windows share no frame, so the gap between two of them is "
                                   "never filled. The next begins with the key frame that the last one ended with."),
        "first_gap_left_out": Mistake(first_gap_left_out, "you begin one key frame late: the first gap, from key frame "
                                      "0 to 1, is never filled."),
        "ends_left_off": Mistake(ends_left_off, "your windows lack their last frame. It is a key frame, given as the "
                                 "first is: g gaps have g (new + 1) + 1 frames."),
        "last_frame_left_off": Mistake(last_frame_left_off, "the film's last key frame is missing: the last window "
                                       "ends before it."),
        "the_rest_forgotten": Mistake(the_rest_forgotten, "a last window that is shorter than the others is left out."),
        "others_given": Mistake(others_given, "you call the new frames given. Given are the key frames."),
        "ends_alone_given": Mistake(ends_alone_given, "you give the ends of a window alone; the key frames in its "
                                    "middle are known too."),
        "every_second": Mistake(every_second, "you give every second frame. That is right for one new frame in a gap "
                                "alone."),
        "steps_of_one_over_new": Mistake(steps_of_one_over_new, "n new frames cut a gap into n + 1 pieces, not "
                                         "into n."),
    },
)  # fmt: skip
