"""The nearest code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from soralab.workbook.probes import numbers
from soralab.workbook.task import Exercise, WrongAnswer


def _nearest_stub(z_e: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest code for each place: z_e [batch, D, rows, columns], codebook [K, D] to int64
    [batch, rows, columns]. z_e comes as a convolution gives it: its vectors lie along axis 1."""
    raise NotImplementedError


def _nearest(z_e: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest code for each place: [batch, rows, columns]."""
    vectors = z_e.movedim(1, -1)
    apart = vectors.square().sum(-1, keepdim=True) - 2 * vectors @ codebook.T + codebook.square().sum(-1)
    return apart.argmin(-1)


def _largest_product(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1) @ codebook.T).argmax(-1)


def _cosine(z_e: Tensor, codebook: Tensor) -> Tensor:
    return _largest_product(F.normalize(z_e, dim=1), F.normalize(codebook, dim=-1))


def _farthest(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1)[..., None, :] - codebook).square().sum(-1).argmax(-1)


def _street_distance(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1)[..., None, :] - codebook).abs().sum(-1).argmin(-1)


def _only_reshaped(z_e: Tensor, codebook: Tensor) -> Tensor:
    flat = z_e.reshape(-1, codebook.shape[1])
    return torch.cdist(flat, codebook).argmin(-1).reshape(len(z_e), *z_e.shape[2:])


def _large_table(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1)[..., None, :] - codebook).square().sum(-1).argmin(-1)


def _nearest_place_of_a_code(z_e: Tensor, codebook: Tensor) -> Tensor:
    return torch.cdist(z_e.movedim(1, -1).flatten(0, -2), codebook).argmin(0)


NEAREST_MISTAKES = (
    (_only_reshaped, "you reshape without moving an axis: each of your vectors holds one channel of D places, not the "
     "D channels of one place."),
    (_farthest, "that is the farthest code: argmin, not argmax, of a distance."),
    (_largest_product, "you take the largest product. ||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2: the length of e "
     "counts."),
    (_cosine, "you compare directions. Codes may have different lengths, and Eq. (1) asks for the distance."),
    (_street_distance, "you sum absolute differences. Eq. (1) has the Euclidean distance."),
)  # fmt: skip


class _Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor holds that is made while it is on."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numbers = max(self.numbers, made.untyped_storage().nbytes() // made.element_size())
        return made


def _nearest_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for batch, dim, rows, columns, codes in ((2, 3, 4, 5, 7), (1, 8, 3, 3, 16), (3, 4, 4, 4, 4)):
        z_e = numbers(batch, dim, rows, columns, seed=codes)
        codebook = numbers(codes, dim, seed=1) * (0.3 + torch.arange(codes)[:, None] / codes)
        got, want = fn(z_e, codebook), _nearest(z_e, codebook)
        case = f"z_e {list(z_e.shape)}, {codes} codes of {dim}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        yield (
            tuple(got.shape) != (codes,),
            f"{case}: one number for each code. You looked for the place nearest to a code; turn the question round.",
        )
        yield got.shape == want.shape, f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}."
        yield got.dtype == torch.int64, f"{case}: indices are whole numbers (int64), these are {got.dtype}."
        for mistake, says in NEAREST_MISTAKES:
            yield torch.equal(got, want) or not torch.equal(got, mistake(z_e, codebook)), f"{case}: {says}"
        yield torch.equal(got, want), f"{case}: not the nearest. Measure one place by hand against every code."
    z_e, codebook = numbers(2, 16, 8, 8, seed=1), numbers(64, 16, seed=2)
    with _Largest() as seen:
        fn(z_e, codebook)
    yield seen.numbers < 128 * 64 * 16 / 2, (
        f"the codes are right, but a tensor of {seen.numbers:,} numbers is made for 128 places and 64 codes of 16: "
        "all places times all codes times D. Write the square of the distance out."
    )


EXERCISE = Exercise(
    name="vqvae.nearest_code",
    title="The nearest code",
    difficulty=1,
    minutes=10,
    statement="""
        Eq. (1): each place of the encoder's map takes the number of the code that lies nearest to it. No loop over
        places or codes. A picture is quantised with this, so it must not build a [places, K, D] tensor if K is large:
        write the square of the distance out.
        """,
    hints=(
        "Which axis of z_e holds the D numbers of one place? Bring it to the end.",
        "||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2: three terms, of which only the middle one needs both.",
        "vectors = z_e.movedim(1, -1); the middle term is vectors @ codebook.T, the last codebook.square().sum(-1); "
        "then argmin over the codes.",
    ),
    stub=_nearest_stub,
    solution=_nearest,
    check=_nearest_check,
    wrong={
        "only_reshaped": WrongAnswer(_only_reshaped, "without moving an axis"),
        "farthest": WrongAnswer(_farthest, "the farthest code"),
        "largest_product": WrongAnswer(_largest_product, "the length of e counts"),
        "cosine": WrongAnswer(_cosine, "you compare directions"),
        "street_distance": WrongAnswer(_street_distance, "sum absolute differences"),
        "large_table": WrongAnswer(_large_table, "all places times all codes times D"),
        "places_of_codes": WrongAnswer(_nearest_place_of_a_code, "turn the question round"),
    },
)
