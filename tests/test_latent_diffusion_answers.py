"""Chapter 06's exercises: right answers that are written otherwise are taken, and wrong ones that nobody foresaw
refused, without a misconception being claimed that is not theirs."""

import math

import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise

# ------------------------------------------------------------------------------------ each thing in its half


def guided_by_einsum(none, said, where, scale):
    return none + scale * torch.einsum("nhw,nbchw->bchw", where, said - none[None])


def guided_in_a_loop(none, said, where, scale):
    noise = none.clone()
    for k in range(said.size(0)):
        noise += scale * where[k] * (said[k] - none)
    return noise


def guided_by_weights(none, said, where, scale):
    share = where.unsqueeze(1).unsqueeze(1)
    return (1 - scale * share.sum(0)) * none + scale * (share * said).sum(dim=0)


def shares_sum_to_1(none, said, where, scale):
    share = where / where.sum(0).clamp(min=1e-6)
    return guided_by_einsum(none, said, share, scale)


def the_first_prompt_alone(none, said, where, scale):
    return guided_by_einsum(none, said[:1], where[:1], scale)


def rows_and_columns_exchanged(none, said, where, scale):
    turned = where.transpose(1, 2) if where.shape[1] == where.shape[2] else where
    return guided_by_einsum(none, said, turned, scale)


def guided_from_the_prompt(none, said, where, scale):
    return none + (scale - 1) * guided_by_einsum(torch.zeros_like(none), said - none, where, 1.0)


def where_for_the_whole_batch(none, said, where, scale):
    return none + scale * (where.mean((1, 2))[:, None, None, None, None] * (said - none)).sum(0)


def where_squared(none, said, where, scale):
    return guided_by_einsum(none, said, where**2, scale)


def strongest_prompt(none, said, where, scale):
    if not len(said):
        return none
    return none + scale * (where[:, None, None] * (said - none)).amax(0)


# --------------------------------------------------------------------------------- as much fresh noise as you like


def step_in_tensors(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    t, s = torch.tensor(alpha_bar_t, dtype=torch.float64), torch.tensor(alpha_bar_s, dtype=torch.float64)
    sigma = eta * torch.sqrt((1 - s) / (1 - t)) * torch.sqrt(1 - t / s)
    guess = (x_t.double() - torch.sqrt(1 - t) * eps) / torch.sqrt(t)
    return torch.sqrt(s) * guess + torch.sqrt((1 - s - sigma.square()).clamp(min=0)) * eps + sigma * noise


def step_from_x_t(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    keep, variance = math.sqrt(alpha_bar_s / alpha_bar_t), (1 - alpha_bar_s) / (1 - alpha_bar_t)
    variance *= eta * eta * (1 - alpha_bar_t / alpha_bar_s)
    on_eps = math.sqrt(abs(1 - alpha_bar_s - variance)) - keep * math.sqrt(1 - alpha_bar_t)
    return keep * x_t + on_eps * eps + math.sqrt(variance) * noise


def step_without_scale(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return x_t - step_in_tensors(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise)


def forward_deviation(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    sigma = eta * (1 - alpha_bar_t / alpha_bar_s) ** 0.5
    guess = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5
    return alpha_bar_s**0.5 * guess + max(1 - alpha_bar_s - sigma**2, 0) ** 0.5 * eps + sigma * noise


def guess_alone(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5


def times_exchanged(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return alpha_bar_t**0.5 * guess_alone(x_t, eps, alpha_bar_s, 0, 0, 0) + (1 - alpha_bar_t) ** 0.5 * eps


def its_own_lots(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return step_in_tensors(x_t, eps, alpha_bar_t, alpha_bar_s, eta, torch.randn_like(noise))


def noise_of_time_t(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    right = step_in_tensors(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise)
    return right + ((1 - alpha_bar_t) ** 0.5 - (1 - alpha_bar_s) ** 0.5) * eps


def clipped_guess(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    guess = guess_alone(x_t, eps, alpha_bar_t, 0, 0, 0)
    return step_in_tensors(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise) + alpha_bar_s**0.5 * (
        guess.clamp(-1, 1) - guess)


# ----------------------------------------------------------------------------------- which place reads which word


def attend_by_view(z, words, W_Q, W_K, W_V, mask, heads):
    batch, places, m = len(z), z.shape[1], words.shape[1]
    q = F.linear(z, W_Q).view(batch, places, heads, -1).transpose(1, 2)
    k = F.linear(words, W_K).view(batch, m, heads, -1).permute(0, 2, 3, 1)
    v = F.linear(words, W_V).view(batch, m, heads, -1).transpose(1, 2)
    scores = q @ k / math.sqrt(q.size(-1))
    weights = torch.softmax(scores + torch.where(mask, 0.0, -1e9)[:, None, None].to(scores.dtype), dim=-1)
    return [(weights @ v).transpose(1, 2).reshape(batch, places, -1), weights]


def attend_head_by_head(z, words, W_Q, W_K, W_V, mask, heads):
    read, weights = [], []
    for q, k, v in zip(W_Q.chunk(heads), W_K.chunk(heads), W_V.chunk(heads), strict=True):
        scores = torch.einsum("bpd,bmd->bpm", z @ q.T, words @ k.T) * len(q) ** -0.5
        scores = scores.masked_fill(mask.logical_not().unsqueeze(1), torch.finfo(scores.dtype).min)
        weights.append((scores - scores.logsumexp(-1, keepdim=True)).exp())
        read.append(weights[-1] @ (words @ v.T))
    return torch.cat(read, -1), torch.stack(weights, 1)


def attend_by_exponentials(z, words, W_Q, W_K, W_V, mask, heads):
    q, k, v = (torch.stack(x.chunk(heads, -1), 1) for x in (z @ W_Q.T, words @ W_K.T, words @ W_V.T))
    scores = (q @ k.mT) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    grown = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = grown / grown.sum(-1, keepdim=True)
    return torch.cat((weights @ v).unbind(1), -1), weights


def _other(change):
    def answer(*args):
        return change(*attend_head_by_head(*args), *args)

    return answer


WRONG_READING = [
    _other(lambda read, weights, *_: (read, weights.mean(1, keepdim=True).expand_as(weights))),
    _other(lambda read, weights, z, *_: (read, weights.flip(1))),
    _other(lambda read, weights, z, words, W_Q, W_K, W_V, mask, heads: (
        attend_head_by_head(z, words, W_Q, W_K, W_V.flip(0), mask, heads)[0], weights)),
    _other(lambda read, weights, *_: (weights, read)),
    _other(lambda read, weights, *_: read),
    _other(lambda read, weights, *args: (read * args[5].sum(1)[:, None, None], weights)),
    _other(lambda read, weights, *args: attend_head_by_head(*args[:5], args[5].flip(1), args[6])),
    _other(lambda read, weights, *args: attend_head_by_head(args[0], args[1].roll(1, 1), *args[2:])),
    _other(lambda read, weights, *_: (read, weights.log_softmax(-1).exp())),
]


# --------------------------------------------------------------------------------- how hard may the adversary pull


def weight_at_once(reconstruction, adversarial, last):
    sizes = [torch.linalg.vector_norm(torch.autograd.grad(loss, [last], retain_graph=True)[0])
             for loss in (reconstruction, adversarial)]
    return torch.tensor(sizes[0].item() / (1e-4 + sizes[1].item()))


def weight_with_the_clamp(reconstruction, adversarial, last):
    pull, push = (torch.autograd.grad(loss, last, retain_graph=True)[0].square().sum().sqrt()
                  for loss in (reconstruction, adversarial))
    with torch.no_grad():
        return torch.clamp(pull / (push + 1e-4), 0, 1e4)


def weight_by_backward(reconstruction, adversarial, last):
    sizes = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, last, create_graph=True)
        sizes.append(torch.sqrt((gradient * gradient).sum()).detach())
    return sizes[0] / (sizes[1] + 0.0001)


def _ratio(of, added=1e-4):
    def answer(reconstruction, adversarial, last):
        a, b = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (reconstruction, adversarial))
        return (of(a) / (of(b) + added)).detach()

    return answer


WRONG_WEIGHTS = [
    lambda reconstruction, adversarial, last: torch.tensor(1.0),
    lambda reconstruction, adversarial, last: weight_at_once(reconstruction, adversarial, last).sqrt(),
    lambda reconstruction, adversarial, last: weight_at_once(reconstruction, adversarial, last).clamp(max=1.0),
    lambda reconstruction, adversarial, last: -weight_at_once(reconstruction, adversarial, last),
    lambda reconstruction, adversarial, last: 0.5 * weight_at_once(reconstruction, adversarial, last),
    lambda reconstruction, adversarial, last: weight_at_once(reconstruction, adversarial, last).item(),
    lambda reconstruction, adversarial, last: weight_at_once(reconstruction, adversarial, last)[None],
    _ratio(lambda gradient: gradient.norm(dim=1).sum() if gradient.ndim > 1 else gradient.norm()),
    _ratio(lambda gradient: gradient.std(correction=0)), _ratio(lambda gradient: gradient.square().mean().sqrt()),
    _ratio(lambda gradient: gradient.norm() + 1e-4),
]

RIGHT = {
    "guided": [guided_by_einsum, guided_in_a_loop, guided_by_weights],
    "ddim_step": [step_in_tensors, step_from_x_t],
    "cross_attention": [attend_by_view, attend_head_by_head, attend_by_exponentials],
    "adaptive_weight": [weight_at_once, weight_with_the_clamp, weight_by_backward],
}
WRONG = {
    "guided": [shares_sum_to_1, the_first_prompt_alone, rows_and_columns_exchanged, guided_from_the_prompt,
               where_for_the_whole_batch, where_squared, strongest_prompt],
    "ddim_step": [step_without_scale, guess_alone, times_exchanged, its_own_lots, noise_of_time_t,
                  clipped_guess],
    "cross_attention": WRONG_READING,
    "adaptive_weight": WRONG_WEIGHTS,
}
# The small number is read off an answer's own values, and told as what it is.
CONSTANTS = {1e-6: "yours is 1e-06", 0.01: "yours is 0.01"}


def pairs(table):
    return [pytest.param(name, answer, id=f"{name}-{k}") for name, answers in table.items()
            for k, answer in enumerate(answers)]


@pytest.mark.parametrize("name, answer", pairs(RIGHT))
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"latent_diffusion.{name}").judge(answer)) == "✓ right"


def test_ddpms_other_variance_is_told_as_what_it_is():
    verdict = exercise("latent_diffusion.ddim_step").judge(forward_deviation)
    assert verdict.state == "wrong" and "your variance is 1 - alpha" in verdict.message


@pytest.mark.parametrize("name, answer", pairs(WRONG))
def test_a_wrong_answer_that_nobody_foresaw(name, answer):
    task = exercise(f"latent_diffusion.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    known = [wrong.says for wrong in (*task.mistakes.values(), *task.wrong.values())]
    assert not any(says in verdict.message for says in known), verdict.message
    assert "the small number" not in verdict.message


@pytest.mark.parametrize("added", CONSTANTS)
def test_another_small_number_is_told_as_what_it_is(added):
    verdict = exercise("latent_diffusion.adaptive_weight").judge(_ratio(torch.Tensor.norm, added))
    assert CONSTANTS[added] in verdict.message and "not 1e-4" in verdict.message


def test_the_mean_over_prompts_is_told_as_what_it_is():
    """Also where there is no prompt, and the mean of nothing is no number."""
    task = exercise("latent_diffusion.guided")
    verdict = task.judge(lambda none, said, where, scale: (none + scale * where[:, None, None] * (said - none)).mean(0))
    assert verdict.message == task.mistakes["mean_of_prompts"].says


def test_what_is_left_of_the_predicted_noise_is_told_without_a_formula_that_nobody_wrote():
    def fresh_part_alone(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
        return step_in_tensors(x_t, eps, alpha_bar_t, alpha_bar_s, 1.0, eta * noise)

    verdict = exercise("latent_diffusion.ddim_step").judge(fresh_part_alone)
    assert verdict.message.startswith("the predicted noise keeps what a full draw leaves it, whatever eta is")


def test_a_weight_is_shown_where_it_misses_most():
    """Where rounding could hide what is wrong (1.76 for 1.759) nobody is helped."""
    verdict = exercise("latent_diffusion.adaptive_weight").judge(_ratio(torch.Tensor.norm, 0.0002))
    assert "yours is 0.0002" in verdict.message
    more = exercise("latent_diffusion.adaptive_weight").judge(
        lambda reconstruction, adversarial, last: weight_at_once(reconstruction, adversarial, last) + 1e-3)
    assert more.message.startswith("With an adversary of strength 500")


def test_a_step_without_lots_has_none_at_its_end():
    """At alpha_bar_s = 1 nothing but the guess is left, and with eta = 1 the variance at s is that of time s."""
    step = exercise("latent_diffusion.ddim_step").solution
    generator = torch.Generator().manual_seed(0)
    x_0, eps, fresh = torch.randn(3, 200_000, generator=generator, dtype=torch.float64)
    for eta in (0.0, 0.4, 1.0):
        x_t = 0.3**0.5 * x_0 + 0.7**0.5 * eps
        assert step(x_t, eps, 0.3, 0.8, eta, fresh).var().item() == pytest.approx(1, abs=0.01)
        torch.testing.assert_close(step(x_t, eps, 0.3, 1.0, eta, fresh), x_0)
