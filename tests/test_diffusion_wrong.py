"""Diffusion: named wrong versions, each refused by the check that is written beside it.

A wrong version is the module's own source with one piece exchanged, so it is wrong in that one way alone.
The right versions pass the same checks in the two other files.
"""

import inspect

import pytest
from diffusion_checks import (
    check_ancestral,
    check_guidance,
    check_posterior,
    check_round_trip,
    check_second_order,
    check_transport,
    check_unit_variance,
    check_velocity,
)

from soralab.diffusion import (
    Cosine,
    LinearBeta,
    Process,
    RectifiedFlow,
    ddim,
    ddpm,
    dpm_solver_pp,
    euler,
    guide,
    heun,
)


def mutant(thing, old, new):
    """The same function, or an instance of the same class, with one piece of its source replaced."""
    module, source = inspect.getmodule(thing), inspect.getsource(thing)
    if old not in source:  # not an AssertionError: that would look like a refusal
        raise LookupError(f"{old!r} is no longer in {thing}: mend this test")
    scope = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(old, new), scope)
    return scope[thing.__name__]


def mutant_ddpm(old, new):
    """`ddpm` over a process with a wrong posterior."""

    wrong = mutant_process(Cosine, "posterior", old, new)

    def sampler(denoise, x, process, steps, **options):
        return ddpm(denoise, x, wrong, steps, **options)

    return sampler


def mutant_of_method(name, old, new):
    return vars(mutant(Process, old, new))[name]


def mutant_process(base, name, old, new):
    return type("Wrong", (base,), {name: mutant_of_method(name, old, new)})()


WRONG = {
    "variance for standard deviation": (check_unit_variance, lambda: mutant(Cosine, ".sqrt()", "")()),
    "square root of alpha bar forgotten": (
        check_unit_variance,
        lambda: mutant(LinearBeta, "[0].sqrt()", "[0]")(),
    ),
    "v with the sign flipped": (
        check_velocity,
        lambda: mutant(RectifiedFlow, "return -one, one", "return one, -one")(),
    ),
    "v of the flow for a VP process": (
        check_velocity,
        lambda: type(
            "Wrong",
            (Cosine,),
            {"velocity_weights": RectifiedFlow.velocity_weights, "rates": RectifiedFlow.rates},
        )(),
    ),
    "alpha and sigma changed places in x_0": (
        check_round_trip,
        lambda: mutant_process(
            Cosine,
            "to_x0_eps",
            "- expand(sigma, x_t) * prediction\n",
            "- expand(alpha, x_t) * prediction\n",
        ),
    ),
    "eps not divided by alpha": (
        check_round_trip,
        lambda: mutant_process(
            Cosine, "to_x0_eps", "prediction) / expand(alpha, x_t), pred", "prediction), pred"
        ),
    ),
    "posterior mean with the weights changed": (
        check_posterior,
        lambda: mutant_process(Cosine, "posterior", "self.alpha(s) * share", "self.alpha(t) * share"),
    ),
    "posterior variance is beta": (
        check_posterior,
        lambda: mutant_process(LinearBeta, "posterior", "noise * share", "variance"),
    ),
    "ddpm adds variance, not deviation": (
        check_ancestral,
        lambda: mutant(ddpm, "float(var) ** 0.5", "float(var)"),
    ),
    "ddpm adds no noise": (check_ancestral, lambda: mutant(ddpm, "step.s > 0", "step.s > 1")),
    "ddpm with a posterior of too much x_t": (
        check_ancestral,
        lambda: mutant_ddpm("scale * noise / self.sigma(t) ** 2", "scale * noise / self.sigma(t)"),
    ),
    "ddim with sigma squared": (check_transport, lambda: mutant(ddim, "0.0) ** 0.5 * eps", "0.0) * eps")),
    "ddim one level late": (check_transport, lambda: mutant(ddim, "step.alpha_s", "step.alpha_t")),
    "euler runs the wrong way": (
        check_transport,
        lambda: mutant(euler, "step.s - step.t", "step.t - step.s"),
    ),
    "heun predicts and never corrects": (
        check_second_order,
        lambda: mutant(heun, "step.s > 0", "step.s > 1"),
    ),
    "heun adds, does not average": (check_second_order, lambda: mutant(heun, "eps_ahead) / 2", "eps_ahead)")),
    "2M with no extrapolation": (
        check_second_order,
        lambda: mutant(dpm_solver_pp, "step.s > 0", "step.s > 1"),
    ),
    "2M extrapolates backwards": (check_second_order, lambda: mutant(dpm_solver_pp, "x0 + h /", "x0 - h /")),
    "2M without its half": (check_second_order, lambda: mutant(dpm_solver_pp, "(2 * h_past)", "h_past")),
    "guidance with the sign flipped": (
        check_guidance,
        lambda: mutant(guide, "(with_c - without)", "(without - with_c)"),
    ),
    "guidance counted from the condition": (
        check_guidance,
        lambda: mutant(guide, "= without + scale", "= with_c + scale"),
    ),
    "guidance at 0 keeps the condition": (check_guidance, lambda: mutant(guide, "scale == 1", "scale <= 1")),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_version_is_refused(name):
    check, make = WRONG[name]
    wrong = make()
    with pytest.raises(AssertionError):
        check(wrong)
