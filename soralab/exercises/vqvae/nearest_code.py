"""The nearest code, for a whole map at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer

SPARE = 4  # so many tables [places, K] a tensor may be as large as


def stub(z_e: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest code for each place: z_e [batch, D, rows, columns], codebook [K, D] to int64
    [batch, rows, columns]. z_e comes as a convolution gives it: the D numbers of a place lie along axis 1."""
    raise NotImplementedError


def solution(z_e: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest code for each place: [batch, rows, columns]."""
    vectors = z_e.movedim(1, -1)
    apart = vectors.square().sum(-1, keepdim=True) - 2 * vectors @ codebook.T + codebook.square().sum(-1)
    return apart.argmin(-1)


def _codes(count: int, dim: int, **kind) -> Tensor:
    return torch.randn(count, dim, **kind) * (0.2 + 2 * torch.rand(count, 1))  # long ones and short ones


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 2, 1, 1), _codes(3, 2)), "a map of one place")
    yield Case((torch.randn(2, 3, 2, 4), _codes(1, 3)), "one code")
    yield Case((torch.randn(1, 1, 4, 3), _codes(6, 1)), "vectors of one number")
    yield Case((torch.randn(2, 4, 4, 4), _codes(4, 4)), "four of everything")
    for _ in range(5):
        batch, dim, rows, columns = (int(torch.randint(low, 7, ())) for low in (2, 3, 2, 2))
        z_e = torch.randn(batch, dim, rows, columns + rows) - 0.5
        yield Case((z_e, _codes(int(torch.randint(8, 40, ())), dim)), "codes of all lengths")
    yield Case((torch.randn(2, 5, 3, 4, dtype=torch.float64), _codes(9, 5, dtype=torch.float64)), "float64")


def only_reshaped(z_e: Tensor, codebook: Tensor) -> Tensor:
    apart = torch.cdist(z_e.reshape(-1, codebook.shape[1]), codebook)
    return apart.argmin(-1).reshape(len(z_e), *z_e.shape[2:])


def columns_before_rows(z_e: Tensor, codebook: Tensor) -> Tensor:
    return solution(z_e, codebook).mT.reshape(len(z_e), *z_e.shape[2:])


def places_before_pictures(z_e: Tensor, codebook: Tensor) -> Tensor:
    return solution(z_e, codebook).flatten(1).T.reshape(len(z_e), *z_e.shape[2:])


def largest_product(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1) @ codebook.T).argmax(-1)


def cosine(z_e: Tensor, codebook: Tensor) -> Tensor:
    return largest_product(F.normalize(z_e, dim=1), F.normalize(codebook, dim=-1))


def two_forgotten(z_e: Tensor, codebook: Tensor) -> Tensor:
    return solution(z_e / 2, codebook)


def farthest(z_e: Tensor, codebook: Tensor) -> Tensor:
    return torch.cdist(z_e.movedim(1, -1).flatten(1, 2), codebook).argmax(-1).reshape(len(z_e), *z_e.shape[2:])


def street_distance(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1)[..., None, :] - codebook).abs().sum(-1).argmin(-1)


class Sizes(TorchDispatchMode):
    """Notes, while it is on, how many operations are made and how many numbers the largest result holds."""

    def __init__(self):
        super().__init__()
        self.operations, self.numbers = 0, 0

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        made = func(*args, **(kwargs or {}))
        self.operations += 1
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


class Exits(TorchFunctionMode):
    """Notes by which method numbers leave torch for Python or numpy."""

    def __init__(self):
        super().__init__()
        self.by = ""

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        name = getattr(func, "__name__", "")
        self.by = name if name in ("tolist", "numpy", "item", "__array__", "__float__", "__int__") else self.by
        return func(*args, **(kwargs or {}))


def check(fn: Callable) -> Iterator[tuple[bool, str]]:
    """What the statement forbids: loops, and a tensor of all places times all codes times D."""
    counts = []
    for rows, codes in ((4, 32), (16, 128)):
        z_e, codebook = torch.randn(2, 16, rows, rows), torch.randn(codes, 16)
        with Exits() as exits, Sizes() as seen:
            fn(z_e, codebook)
        counts.append(seen.operations)
        yield not exits.by, f"the codes are right, but `{exits.by}` takes the numbers out of torch. Stay in tensors."
    yield counts[1] <= counts[0] + 4, (
        f"the codes are right, but maps of 4 x 4 and 32 codes take {counts[0]:,} operations, maps of 16 x 16 and "
        f"128 codes {counts[1]:,}: there is a loop over places or codes. One table of distances holds them all."
    )
    table = z_e.numel() // 16 * codes
    yield seen.numbers <= SPARE * table, (
        f"the codes are right, but a tensor of {seen.numbers:,} numbers is made for 512 places and 128 codes of 16; "
        f"the table of distances has {table:,}. Write the square of the distance out: no difference z - e is needed."
    )


def in_a_loop(z_e: Tensor, codebook: Tensor) -> Tensor:
    places = [(codebook - vector).square().sum(-1).argmin() for vector in z_e.movedim(1, -1).flatten(0, -2)]
    return torch.stack(places).reshape(len(z_e), *z_e.shape[2:])


def large_table(z_e: Tensor, codebook: Tensor) -> Tensor:
    return (z_e.movedim(1, -1)[..., None, :] - codebook).square().sum(-1).argmin(-1)


def through_numpy(z_e: Tensor, codebook: Tensor) -> Tensor:
    vectors, codes = z_e.movedim(1, -1).numpy(), codebook.numpy()
    return torch.from_numpy(((vectors[..., None, :] - codes) ** 2).sum(-1).argmin(-1))


EXERCISE = Exercise(
    name="vqvae.nearest_code",
    title="The nearest code",
    difficulty=1,
    minutes=10,
    statement="""
        Eq. (1) for a whole batch of maps, as the encoder's last convolution hands them over. "Build it" made a tensor
        of all places times all codes times $D$, and had its vectors in the last axis; neither holds here. Write the
        square of the distance out, so that nothing larger than a table [places, $K$] is made (the check looks), and
        make no loop over places or codes.
        """,
    hints=(
        "Which axis of z_e holds the D numbers of one place? Bring it to the end.",
        "||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2: three terms, of which only the middle one needs both.",
        "vectors = z_e.movedim(1, -1); the middle term is vectors @ codebook.T, the last codebook.square().sum(-1); "
        "then argmin over the codes.",
    ),
    compare="Compare: which of the three terms could be left out without changing a single index?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "only_reshaped": Mistake(only_reshaped, "you reshape without moving an axis: each of your vectors holds one "
                                 "channel of D places, not the D channels of one place. No shape betrays it."),
        "columns_before_rows": Mistake(columns_before_rows, "the right codes in other places: rows and columns were "
                                       "exchanged on the way."),
        "places_before_pictures": Mistake(places_before_pictures, "the right codes in other places: the pictures of "
                                          "the batch were mixed when the map was put together again."),
        "largest_product": Mistake(largest_product, "that is the code of the largest product. In ||z||^2 - 2 z.e + "
                                   "||e||^2 your last term is missing, or one number for all codes."),
        "cosine": Mistake(cosine, "you compare directions. Codes have different lengths, and Eq. (1) asks for the "
                          "distance."),
        "two_forgotten": Mistake(two_forgotten, "the product counts twice in a square: - 2 z.e, and yours once."),
        "farthest": Mistake(farthest, "that is the farthest code: argmin of a distance, not argmax."),
        "street_distance": Mistake(street_distance, "you sum absolute differences. Eq. (1) has the Euclidean "
                                   "distance: sum the squares."),
    },
    check=check,
    wrong={
        "in_a_loop": WrongAnswer(in_a_loop, "there is a loop over places or codes"),
        "large_table": WrongAnswer(large_table, "a tensor of 1,048,576 numbers is made"),
        "through_numpy": WrongAnswer(through_numpy, "`numpy` takes the numbers out of torch"),
    },
)  # fmt: skip
