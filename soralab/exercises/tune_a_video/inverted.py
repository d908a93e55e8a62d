"""DDIM inversion: a film is walked back to the noise that it would be made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(
    z: Tensor, network: Callable[[Tensor, int], Tensor], alpha: list[float], sigma: list[float]
) -> Tensor:  # fmt: skip
    """z walked up to the last level of noise, of z's shape: DDIM's step turned round, with e looked for once a step.

    alpha, sigma: of the levels of noise, 0 (the film: alpha 1, sigma 0) to the last (noise). network(z_k, k) finds the
    noise in z_k, which is at level k; it knows the levels from 1 on. DDIM goes down from level k to k - 1 by

        e = network(z_k, k),    z_(k-1) = alpha[k-1] (z_k - sigma[k] e) / alpha[k] + sigma[k-1] e
    """
    raise NotImplementedError


def solution(
    z: Tensor, network: Callable[[Tensor, int], Tensor], alpha: list[float], sigma: list[float]
) -> Tensor:  # fmt: skip
    """z walked up to the last level of noise, of z's shape: DDIM's step turned round, with e looked for once a step."""
    for k in range(1, len(alpha)):
        e = network(z, k)  # z is still at level k - 1: the network is told where it goes
        z = alpha[k] * (z - sigma[k - 1] * e) / alpha[k - 1] + sigma[k] * e
    return z


@dataclass(frozen=True)
class Finds:
    """A network for the cases: what it finds depends on the level and bends with z. `bend` 0: always the same."""

    seed: int
    bend: float = 1.0

    def __call__(self, z: Tensor, k: int) -> Tensor:
        if int(k) < 1:
            raise ValueError(f"k is {k}; the network knows the levels from 1 on")
        generator = torch.Generator().manual_seed(1000 * self.seed + (int(k) if self.bend else 0))
        turn, shift = (torch.randn(z.shape[-1], generator=generator, dtype=torch.float64).to(z) for _ in range(2))
        return shift + self.bend * torch.tanh(z * turn)


def _case(seed: int, levels: int, shape: tuple[int, ...], bend: float = 1.0, dtype=torch.float32) -> tuple:
    steps = torch.rand(levels, dtype=torch.float64).add(0.3)
    angle = torch.cat([torch.zeros(1), steps.cumsum(0) / steps.sum() * 1.45])
    return torch.randn(shape, dtype=dtype), Finds(seed, bend), angle.cos().tolist(), angle.sin().tolist()


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, (1, 3)), "one step")
    yield Case(_case(2, 2, (2, 3)), "two steps")
    yield Case(_case(3, 3, (2, 2), bend=0.0), "a network that always finds the same")
    yield Case(_case(4, 5, (2, 3, 4)))
    yield Case(_case(5, 8, (9, 4)), "eight steps")
    yield Case(_case(6, 4, (2, 5), bend=3.0), "a network that finds much")
    yield Case(_case(7, 6, (3, 3), dtype=torch.float64), "float64")
    yield Case((*_case(8, 1, (2, 2))[:2], [1.0], [0.0]), "no step")
    for seed in range(9, 12):
        yield Case(_case(seed, int(torch.randint(3, 12, ())), (2, int(torch.randint(2, 6, ())))))


def asked_where_it_is(z, network, alpha, sigma):
    for k in range(1, len(alpha)):
        e = network(z, max(k - 1, 1))
        z = alpha[k] * (z - sigma[k - 1] * e) / alpha[k - 1] + sigma[k] * e
    return z


def from_the_noise_down(z, network, alpha, sigma):
    for k in range(len(alpha) - 1, 0, -1):
        e = network(z, k)
        z = alpha[k - 1] * (z - sigma[k] * e) / alpha[k] + sigma[k - 1] * e
    return z


def levels_turned_round(z, network, alpha, sigma):
    for k in range(len(alpha) - 1, 0, -1):
        e = network(z, k)
        z = alpha[k] * (z - sigma[k - 1] * e) / alpha[k - 1] + sigma[k] * e
    return z


def noise_of_the_target(z, network, alpha, sigma):
    for k in range(1, len(alpha)):
        e = network(z, k)
        z = alpha[k] * (z - sigma[k] * e) / alpha[k - 1] + sigma[k] * e
    return z


def never_undone(z, network, alpha, sigma):
    for k in range(1, len(alpha)):
        z = alpha[k] * z + sigma[k] * network(z, k)
    return z


def in_one_step(z, network, alpha, sigma):
    return alpha[-1] * z + sigma[-1] * network(z, len(alpha) - 1) if len(alpha) > 1 else z


def found_once(z, network, alpha, sigma):
    film = z
    for k in range(1, len(alpha)):
        e = network(film, k)
        z = alpha[k] * (z - sigma[k - 1] * e) / alpha[k - 1] + sigma[k] * e
    return z


def no_noise_added(z, network, alpha, sigma):
    for k in range(1, len(alpha)):
        e = network(z, k)
        z = alpha[k] * (z - sigma[k - 1] * e) / alpha[k - 1]
    return z


def looked_again(z, network, alpha, sigma):
    for k in range(1, len(alpha)):
        there = z
        for _ in range(3):
            e = network(there, k)
            there = alpha[k] * (z - sigma[k - 1] * e) / alpha[k - 1] + sigma[k] * e
        z = there
    return z


def one_step_short(z, network, alpha, sigma):
    return solution(z, network, alpha[:-1], sigma[:-1]) if len(alpha) > 1 else z


EXERCISE = Exercise(
    name="tune_a_video.inverted",
    title="The way back to noise",
    difficulty=3,
    minutes=20,
    statement="""
        Section 3.3 does not start an edit from fresh noise: it walks the film back, and starts where that ends. Turn a
        DDIM step round. From z at level k - 1, which you have, find z at level k. The noise e would have to be looked
        for in z at level k, which you do not have yet; so look for it in what you have, *as if it were at level k
        already*, as the official code does. That is an approximation; the cell below measures what it costs.
        """,
    hints=(
        "Solve DDIM's line for z_k, as if e were known.",
        "z_k = alpha[k] (z_(k-1) - sigma[k-1] e) / alpha[k-1] + sigma[k] e. Which way does k run, and what is the "
        "network told?",
        "for k in range(1, len(alpha)): e = network(z, k), and then hint 2's line.",
    ),
    compare="Compare: for which network is your answer exactly the noise that DDIM started from?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "asked_where_it_is": Mistake(asked_where_it_is, "you tell the network the level where z is. The step of DDIM "
                                     "that is to be undone told it k, and so does the official code: tell it k. What "
                                     "either costs, the cell below measures."),
        "from_the_noise_down": Mistake(from_the_noise_down, "that is DDIM itself, which goes down. Your z is the film, "
                                       "and it has to go up to noise."),
        "levels_turned_round": Mistake(levels_turned_round, "the step is right, and the levels come in the order of "
                                       "sampling. The film is at level 0: the first step goes to level 1."),
        "noise_of_the_target": Mistake(noise_of_the_target, "you take away sigma[k] e from z, which is at level "
                                       "k - 1 and holds sigma[k-1] e."),
        "never_undone": Mistake(never_undone, "you add noise to z as if it were clean each time. At level k - 1 it "
                                "holds noise already: take that away first."),
        "in_one_step": Mistake(in_one_step, "you go to the last level in one step. The network's answers change on "
                               "the way, so each level has its turn."),
        "found_once": Mistake(found_once, "the network is shown the film at every level. Show it the z that you have "
                              "come to."),
        "no_noise_added": Mistake(no_noise_added, "z is brought to the next level's alpha, and the noise is left out: "
                                  "+ sigma[k] e."),
        "looked_again": Mistake(looked_again, "you look more than once a step, and come closer to the exact inverse. "
                                "The exercise asks for the official code's one look; the cell below measures what more "
                                "looks gain."),
        "one_step_short": Mistake(one_step_short, "you stop one level short of the noise."),
    },
)  # fmt: skip
