"""Chapter 05's exercises: the nearest code, the loss and its stops, a codebook of averages, what a prior may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from soralab.exercises import Exercise, WrongAnswer
from soralab.exercises.vit_inside import numbers, same
from soralab.exercises.vqvae_codebook import AVERAGES, MASK

# --------------------------------------------------------------------------------------------------- the nearest code


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


NEAREST = Exercise(
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

# -------------------------------------------------------------------------------------------- the loss and its stops


def _loss_stub(z_e: Tensor, e: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(z_q, loss) for the encoder's vectors z_e [n, D] and their nearest codes e [n, D], both with gradients.

    z_q has the value of e, and hands the decoder's gradient on to z_e. loss: the second and third term of Eq. (3), the
    squares averaged over all n * D numbers.
    """
    raise NotImplementedError


def _loss(z_e: Tensor, e: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(z_q, loss): straight through, and the codebook's and the commitment's term of Eq. (3)."""
    z_q = z_e + (e - z_e).detach()
    codebook = (z_e.detach() - e).square().mean()
    commitment = (z_e - e.detach()).square().mean()
    return z_q, codebook + beta * commitment


def _loss_of(z_q: Callable, loss: Callable) -> Callable:
    def wrong(z_e: Tensor, e: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        code, commit = (z_e.detach() - e).square().mean(), (z_e - e.detach()).square().mean()
        return z_q(z_e, e), loss(z_e, e, beta, code, commit)

    return wrong


def _right_z(z_e: Tensor, e: Tensor) -> Tensor:
    return z_e + (e - z_e).detach()


def _right_loss(z_e: Tensor, e: Tensor, beta: float, code: Tensor, commit: Tensor) -> Tensor:
    return code + beta * commit


LOSS_WRONG = {
    "beta_on_the_codebook": (_loss_of(_right_z, lambda z, e, b, code, commit: b * code + commit),
                             "beta stands on the codebook's side"),
    "beta_on_both": (_loss_of(_right_z, lambda z, e, b, code, commit: b * (code + commit)), "beta weighs both terms"),
    "no_stops": (_loss_of(_right_z, lambda z, e, b, code, commit: (1 + b) * (z - e).square().mean()),
                 "without a stop"),
    "commitment_forgotten": (_loss_of(_right_z, lambda z, e, b, code, commit: code),
                             "the encoder gets no gradient from"),
    "codebook_forgotten": (_loss_of(_right_z, lambda z, e, b, code, commit: b * commit), "the codes get no gradient"),
    "no_straight_through": (_loss_of(lambda z, e: e.detach(), _right_loss), "the encoder learns nothing from"),
    "plain_codes": (_loss_of(lambda z, e: e, _right_loss), "the decoder's gradient goes to the codes"),
    "stop_round_all": (_loss_of(lambda z, e: z + e - z, _right_loss), "the decoder's gradient goes to the codes"),
    "value_of_z_e": (_loss_of(lambda z, e: e + (z - e).detach(), _right_loss), "z_q has the value of z_e"),
    "sums_over_d": (_loss_of(_right_z, lambda z, e, b, code, commit: (code + b * commit) * z.shape[1]),
                    "summed over D"),
    "sums": (_loss_of(_right_z, lambda z, e, b, code, commit: (code + b * commit) * z.numel()),
             "all squares are summed"),
}  # fmt: skip


def _loss_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for n, dim, beta in ((5, 3, 0.25), (4, 2, 2.0)):
        z, e, weight = (numbers(n, dim, seed=k) for k in (1, 2, 3))
        # Parameters reach the reader's function as they are, not as copies, so that gradients can be asked for.
        z_e, codes = torch.nn.Parameter(z.clone()), torch.nn.Parameter(e.clone())
        back = fn(z_e, codes, beta)
        two = isinstance(back, tuple | list) and len(back) == 2 and all(isinstance(part, Tensor) for part in back)
        yield two, "hand back two tensors: z_q and the loss."
        z_q, loss = back
        yield (
            z_q.shape == z.shape and loss.ndim == 0,
            f"z_q is {list(z_q.shape)} and the loss {list(loss.shape)}; they take {list(z.shape)} and [].",
        )
        yield not same(z_q, z), "z_q has the value of z_e. The decoder must see the code itself."
        yield same(z_q, e), "z_q has not the value of the codes."
        to_z, to_e = (
            torch.autograd.grad((z_q * weight).sum(), t, allow_unused=True, retain_graph=True)[0]
            if z_q.requires_grad else None for t in (z_e, codes)
        )  # fmt: skip
        yield to_e is None or not to_e.any(), "the decoder's gradient goes to the codes. It should go to z_e."
        yield (
            to_z is not None and bool(to_z.any()),
            "the encoder learns nothing from the decoder: z_q hands no gradient on to z_e.",
        )
        yield same(to_z, weight), "the gradient reaches z_e changed. Straight through means: as it is."
        yield from _loss_probes(loss, z_e, codes, beta)


def _loss_probes(loss: Tensor, z_e: Tensor, codes: Tensor, beta: float) -> Iterator[tuple[bool, str]]:
    square = (z_e - codes).detach().square().mean()
    pull = 2 * (z_e - codes).detach() / z_e.numel()  # of the encoder, if beta were 1
    yield loss.requires_grad, "the loss moves nobody: each of its terms has one stop, not two."
    got = [torch.autograd.grad(loss, t, allow_unused=True, retain_graph=True)[0] for t in (z_e, codes)]
    to_z, to_e = (torch.zeros_like(pull) if g is None else g for g in got)
    yield bool(to_e.any()), "the codes get no gradient: the second term, with the stop on z_e, is missing."
    yield bool(to_z.any()), "the encoder gets no gradient from this loss: the commitment, its stop on e, is missing."
    for mistake, says in (
        ((beta * z_e.numel(), z_e.numel()), "all squares are summed; take their mean."),
        ((beta * z_e.shape[1], z_e.shape[1]), "the squares are summed over D, as Eq. (3) writes them. Here they are "
         "averaged over all n * D numbers, as in the official code."),
        ((1 + beta, 1 + beta), "without a stop each term pulls both: z_e and e. detach says which stands still."),
        ((1, beta), "beta stands on the codebook's side. The value of the loss is the same, the gradients are not: the "
         "encoder is pulled 1 / beta times too hard. (A well-known library shipped this.)"),
        ((beta, beta), "beta weighs both terms; it belongs to the commitment alone."),
    ):
        yield not (same(to_z, mistake[0] * pull) and same(to_e, -mistake[1] * pull)), says
    yield same(to_z, beta * pull) and same(to_e, -pull), "the gradients are not Eq. (3)'s."
    yield same(loss.detach(), (1 + beta) * square), "the gradients are right, the value is not."


LOSS = Exercise(
    name="vqvae.quantise",
    title="Three terms and two stops",
    difficulty=2,
    minutes=15,
    statement="""
        The argmin has no gradient. The paper puts two things in its place: the decoder's gradient is copied from z_q to
        z_e, and two squares pull the code and the encoder's vector towards each other, each with its own weight. Write
        both. The check looks at gradients: five of its wrong answers have the right values.
        """,
    hints=(
        "Write down for each of z_e and e which terms may move it, and with which weight. `detach` is sg.",
        "A sum has the gradients of its parts: z_e plus something that has the right value and no gradient.",
        "z_q = z_e + (e - z_e).detach(). One square has z_e.detach(), weight 1; the other e.detach(), weight beta.",
    ),
    stub=_loss_stub,
    solution=_loss,
    check=_loss_check,
    wrong={name: WrongAnswer(fn, says) for name, (fn, says) in LOSS_WRONG.items()},
)

EXERCISES = (NEAREST, LOSS, AVERAGES, MASK)
