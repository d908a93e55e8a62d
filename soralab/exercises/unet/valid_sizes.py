"""Which tiles fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from soralab.workbook.task import Exercise, WrongAnswer


def _sizes_stub(levels: int, up_to: int) -> list[int]:
    """All sides from 1 to `up_to` that a U-Net of `levels` levels takes, smallest first."""
    raise NotImplementedError


def _sizes(levels: int, up_to: int) -> list[int]:
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


def _sizes_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for levels, up_to in ((5, 240), (3, 70), (2, 24), (4, 110)):
        got, right = [int(size) for size in fn(levels, up_to)], _sizes(levels, up_to)
        case = f"valid_sizes({levels}, {up_to})"
        stride = 2 ** (levels - 1)
        first = next((size for size in got if size not in right), None)
        yield got == sorted(set(got)), f"{case}: the list is not in rising order, or names a side twice."
        yield (
            not got or any(size % stride != 0 for size in got) or right[0] % stride == 0,
            f"{case}: you give the multiples of {stride}. They would fit if convolutions padded; each valid pair of "
            "them takes 4 pixels before the pooling asks for an even number.",
        )
        small = [size for size in got if size < right[0]]
        yield (
            not (small and all((size - right[0]) % stride == 0 for size in small)),
            f"{case}: you take {small[0] if small else 0}. All its poolings find even numbers, but no pixel comes out: "
            "follow it down, through the deepest level, and up again.",
        )
        yield (
            first is None,
            f"{case}: you take {first}. On its way down one of the poolings finds an odd number of pixels, and the "
            "last row and column would be dropped without a word.",
        )
        missing = next((size for size in right if size not in got), None)
        yield (
            missing is None,
            f"{case}: {missing} is missing. All its poolings find even numbers, and pixels come out.",
        )
    nothing = fn(5, 187)
    yield len(nothing) == 0, "valid_sizes(5, 187) is empty: 188 is the smallest side of which a pixel comes out."


def _multiples(levels: int, up_to: int) -> list[int]:
    return list(range(2 ** (levels - 1), up_to + 1, 2 ** (levels - 1)))


def _down_only(levels: int, up_to: int) -> list[int]:
    def fits(side: int) -> bool:
        for _ in range(levels - 1):
            if (side - 4) % 2 or side <= 4:
                return False
            side = (side - 4) // 2
        return side > 4

    return [size for size in range(1, up_to + 1) if fits(size)]


def _any_rest(levels: int, up_to: int) -> list[int]:
    return list(range(_sizes(levels, 1000)[0], up_to + 1))


def _without_the_last(levels: int, up_to: int) -> list[int]:
    return _sizes(levels, up_to - 1)


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
    stub=_sizes_stub,
    solution=_sizes,
    check=_sizes_check,
    wrong={
        "multiples_of_the_stride": WrongAnswer(_multiples, "would fit if convolutions padded"),
        "the_way_down_alone": WrongAnswer(_down_only, "no pixel comes out"),
        "odd_poolings": WrongAnswer(_any_rest, "finds an odd number of pixels"),
        "up_to_is_left_out": WrongAnswer(_without_the_last, "is missing"),
    },
)
