"""Whether gradients flow through an answer as they flow through the course's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from soralab.workbook import words
from soralab.workbook.compare import difference
from soralab.workbook.watch import copied

CUT = ("the numbers are right, but no gradient reaches `{}`. What this function returns is trained through: `detach`, "
       "`no_grad`, `.data`, `.item()` and a detour through numpy cut it off.")


def trouble(fn: Callable, solution: Callable, args: Sequence, names: Sequence[str], tolerance: float) -> str:
    """"" if `fn` gives the tensors in `args` the gradients that `solution` gives them, else what is wrong with them.

    The gradients are those of a random sum of all that is returned. Nothing is asked where `solution` has none, or
    where they are not finite. names: the arguments' names.
    """
    try:
        want = _gradients(solution, args)
    except Exception:
        return ""  # a check may ask for a refusal
    if not want:
        return ""
    try:
        got = _gradients(fn, args)
    except Exception as error:
        stop = f"{words.error(error)}{words.place(error, fn)}"
        return (f"the numbers are right, but with gradients it stops with {stop}. Changes in place and `.numpy()` are "
                "not for what is trained through.")
    for k, wanted in want.items():
        if not torch.isfinite(wanted).all():
            continue
        name, found = names[k], got.get(k)
        if found is None or not found.any():
            if wanted.any():
                return CUT.format(name)
        elif found := difference(found, wanted, 10 * tolerance, "it is"):
            return f"the numbers are right, but the gradient that `{name}` gets is not: {found}"
    return ""


def _gradients(fn: Callable, args: Sequence) -> dict[int, Tensor]:
    """{number of the argument: its gradient} for the floating point tensors among `args` that get one."""
    leaves = {k: value.detach().clone().requires_grad_() for k, value in enumerate(args)
              if isinstance(value, Tensor) and value.is_floating_point()}
    if not leaves:
        return {}
    # copies, which may be changed in place
    results = _tensors(fn(*(leaves[k].clone() if k in leaves else copied(value) for k, value in enumerate(args))))
    generator = torch.Generator().manual_seed(0)
    total = [(result * torch.randn(result.shape, generator=generator).to(result)).sum() for result in results]
    total = [part for part in total if part.requires_grad]
    if not total:
        return {}
    found = torch.autograd.grad(sum(total), list(leaves.values()), allow_unused=True)
    return {k: gradient for k, gradient in zip(leaves, found, strict=True) if gradient is not None}


def _tensors(value) -> list[Tensor]:
    """The floating point tensors in a result, in their order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]
