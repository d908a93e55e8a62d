"""Which tiles fit."""

from __future__ import annotations

from collections.abc import Iterator

from soralab.workbook.task import Case, Exercise, Mistake


def stub(levels: int, up_to: int) -> list[int]:
    """All sides from 1 to `up_to` that a U-Net of `levels` levels takes, smallest first."""
    raise NotImplementedError


def solution(levels: int, up_to: int) -> list[int]:
    """All sides from 1 to `up_to` that a U-Net of `levels` levels takes, smallest first."""
    fitting = []
    for size in range(1, up_to + 1):
        side, fits = size, True
        for _ in range(levels - 1):
            side -= 4  # two valid convolutions
            fits = fits and side % 2 == 0  # the pooling finds pairs
            side //= 2
        side -= 4  # the deepest level
        for _ in range(levels - 1):
            fits = fits and side > 0
            side = 2 * side - 4  # the up-convolution, then two valid convolutions
        if fits and side > 0:
            fitting.append(size)
    return fitting


def cases() -> Iterator[Case]:
    yield Case((1, 4), "no pooling, and no pixel comes out")
    yield Case((1, 12), "one level: no pooling")
    yield Case((2, 18), "the smallest side that fits is left out")
    yield Case((5, 187), "188 is the smallest side of which a pixel comes out")
    yield Case((3, 0), "no side at all")
    for levels, up_to in ((2, 31), (3, 70), (4, 141), (5, 240), (6, 500)):
        fits = solution(levels, up_to)[-1]
        yield Case((levels, up_to))
        yield Case((levels, fits), "the last side fits just so")


def multiples_of_the_stride(levels: int, up_to: int) -> list[int]:
    return list(range(2 ** (levels - 1), up_to + 1, 2 ** (levels - 1)))


def the_way_down_alone(levels: int, up_to: int) -> list[int]:
    def fits(side: int) -> bool:
        for _ in range(levels - 1):
            if (side - 4) % 2 or side <= 4:
                return False
            side = (side - 4) // 2
        return side > 4

    return [size for size in range(1, up_to + 1) if fits(size)]


def odd_poolings(levels: int, up_to: int) -> list[int]:
    return list(range(solution(levels, 2000)[0], up_to + 1))


def up_to_is_left_out(levels: int, up_to: int) -> list[int]:
    return solution(levels, up_to - 1)


def a_pooling_on_each_level(levels: int, up_to: int) -> list[int]:
    return solution(levels + 1, up_to)


EXERCISE = Exercise(
    name="unet.valid_sizes",
    title="Which tiles fit",
    difficulty=1,
    minutes=10,
    statement="""
        A U-Net without padding does not take every size. On each level two convolutions take 4 pixels off height and
        width; the pooling after them halves what is left, **and needs it even**; the deepest level has two convolutions
        and no pooling; on the way up a side is doubled, and two convolutions take 4 pixels off again.

        List all sides up to `up_to` that a network of `levels` levels takes, so that at least one pixel comes out.
        """,
    hints=(
        "Do it by hand for 572 and 5 levels: 568, 284, 280, 140, ... Where could it have gone wrong?",
        "Follow each candidate down and up again. Refuse it where a pooling would find an odd number, or where nothing "
        "is left.",
        "levels - 1 times: side -= 4; refuse if side % 2; side //= 2. Once: side -= 4. levels - 1 times: refuse unless "
        "side > 0; side = 2 * side - 4.",
    ),
    compare="Compare: the sides that fit are 2 ** (levels - 1) apart. Could you say so without trying each?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "multiples_of_the_stride": Mistake(multiples_of_the_stride, "you give the multiples of 2 ** (levels - 1). They "
                                           "would fit if convolutions padded; each valid pair of them takes 4 pixels "
                                           "before the pooling asks for an even number."),
        "the_way_down_alone": Mistake(the_way_down_alone, "you follow a side down, but not up again. All its poolings "
                                      "may find even numbers, and still no pixel comes out: each level on the way up "
                                      "takes 4."),
        "odd_poolings": Mistake(odd_poolings, "you take every side of which a pixel could come out. On its way down a "
                                "pooling finds an odd number of pixels with most of them, and the last row and column "
                                "would be dropped without a word."),
        "up_to_is_left_out": Mistake(up_to_is_left_out, "`up_to` itself is never tried: range ends before its end."),
        "a_pooling_on_each_level": Mistake(a_pooling_on_each_level, "your network has one level more: the deepest has "
                                           "two convolutions and no pooling, so there are levels - 1 poolings."),
    },
)  # fmt: skip
