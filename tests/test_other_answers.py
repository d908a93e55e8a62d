"""Chapters 03 to 05, and 16: right answers, written otherwise, are taken, and one that moves nobody is told so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from torch.utils.checkpoint import checkpoint

from soralab.exercises import exercise


def kernel_by_numpy(weight, patch):
    pixels = weight.detach().numpy().reshape(len(weight), patch, patch, -1)
    return torch.nn.Parameter(torch.from_numpy(np.moveaxis(pixels, 3, 1).copy()))


def zoomed_as_the_official_code_does(positions, old, new):
    grid = zoom(positions[1:].numpy().reshape(*old, -1), (new[0] / old[0], new[1] / old[1], 1), order=1)
    return torch.cat([positions[:1], torch.from_numpy(grid).flatten(0, 1)])


@torch.no_grad()
def distance_by_the_rest(weights, grid, patch):
    """Divides by 1 less the class token's weight, and keeps no gradient: it is a measurement."""
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    places = torch.stack([rows, columns], -1).reshape(-1, 2) * patch
    apart = (places[:, None] - places).double().norm(dim=-1)
    shares = weights[:, :, 1:, 1:] / (1 - weights[:, :, 1:, :1])
    return torch.einsum("bhqk,qk->bhq", shares.double(), apart).mean((0, 2))


def parameters_as_a_fraction(image, patch, channels, dim, depth, classes):
    return dim * ((image / patch) ** 2 + channels * patch**2 + depth * (12 * dim + 13) + classes + 5) + classes


def twins_by_shares(I_e, T_e, t, same):
    table = torch.einsum("id,jd->ij", I_e.double(), T_e.double()) * torch.exp(t.double())
    rows, columns = ((table.softmax(k) * same).sum(k).log().mean() for k in (1, 0))
    return -(rows + columns) / 2


def recall_by_ranks(I_f, T_f, texts):
    table = torch.nn.functional.cosine_similarity(I_f[:, None], T_f[None], dim=-1)
    kinds = [texts.index(text) for text in texts]
    right = torch.tensor([[a == b for b in kinds] for a in kinds])
    return [(table.masked_fill(~right, -2).amax(k) >= table.amax(k)).double().mean() for k in (1, 0)]


@torch.no_grad()
def ensemble_by_the_sum(T_f):
    rows = (T_f / torch.linalg.vector_norm(T_f, dim=-1, keepdim=True)).sum(-2)
    return rows * rows.square().sum(-1, keepdim=True).rsqrt()


def ensemble_in_place(T_f):
    T_f /= T_f.norm(dim=2, keepdim=True)
    rows = torch.einsum("cte->ce", T_f)
    return rows / rows.norm(dim=1)[:, None]


def pieces_with_a_sum(image, text, pixels, ids, scale, chunk):
    starts = range(0, len(pixels), chunk)
    I_e = torch.cat([image(pixels[k : k + chunk]).detach() for k in starts]).requires_grad_()
    T_e = torch.cat([text(ids[k : k + chunk]).detach() for k in starts]).requires_grad_()
    table = scale * I_e @ T_e.T
    loss = -(table.log_softmax(0).diagonal().mean() + table.log_softmax(1).diagonal().mean()) / 2
    want_i, want_t = torch.autograd.grad(loss, (I_e, T_e))
    for k in starts:
        part = slice(k, k + chunk)
        again = (image(pixels[part]) * want_i[part]).sum() + (text(ids[part]) * want_t[part]).sum()
        again.backward()


def pieces_by_checkpoints(image, text, pixels, ids, scale, chunk):
    I_e, T_e = (torch.cat([checkpoint(tower, part, use_reentrant=False) for part in values.split(chunk)])
                for tower, values in ((image, pixels), (text, ids)))  # fmt: skip
    table, pairs = scale * I_e @ T_e.T, torch.arange(len(I_e))
    ((F.cross_entropy(table, pairs) + F.cross_entropy(table.T, pairs)) / 2).backward()


def nearest_by_cdist(z_e, codebook):
    batch, _, rows, columns = z_e.shape
    flat = z_e.permute(0, 2, 3, 1).reshape(-1, codebook.shape[1])
    return torch.cdist(flat, codebook).argmin(1).view(batch, rows, columns)


def nearest_by_einsum(z_e, codebook):
    products = torch.einsum("bdhw,kd->bkhw", z_e.double(), codebook.double())
    return (codebook.square().sum(1)[:, None, None] - 2 * products).min(dim=1).indices


def nearest_by_vmap(z_e, codebook):
    def of_place(vector):
        return (codebook.square().sum(1) - 2 * codebook @ vector).argmin()

    return torch.vmap(torch.vmap(torch.vmap(of_place)))(z_e.permute(0, 2, 3, 1))


def nearest_by_affinity(z_e, codebook):
    score = torch.nn.functional.conv2d(z_e, 2 * codebook[:, :, None, None], -codebook.square().sum(1))
    return score.max(1)[1]


def gradients_by_a_table(g, z_e, codebook, indices, beta):
    who = F.one_hot(indices, len(codebook)).to(z_e)
    step = 2 / (z_e.shape[0] * z_e.shape[1])
    return [g + step * beta * (z_e - who @ codebook), step * (who.sum(0)[:, None] * codebook - who.T @ z_e)]


def gradients_in_a_loop(g, z_e, codebook, indices, beta):
    n, dim = z_e.shape
    by_z, by_e = g.clone(), torch.zeros(codebook.shape).to(codebook)
    for j, k in enumerate(indices):
        apart = z_e[j] - codebook[k]
        by_z[j] += 2 * beta * apart / (n * dim)
        by_e[k] -= 2 * apart / (n * dim)
    return by_z, by_e


def codebook_by_scatter(count, total, z, indices, gamma, epsilon):
    count = count.lerp(torch.bincount(indices, minlength=len(count)).to(count), 1 - gamma)
    total = torch.lerp(total, torch.zeros_like(total).index_add(0, indices, z), 1 - gamma)
    n = count.sum()
    return [count, total, total * ((n + len(count) * epsilon) / (n * (count + epsilon))).unsqueeze(-1)]


def codebook_in_a_loop(count, total, z, indices, gamma, epsilon):
    new, sums = torch.zeros_like(count), torch.zeros_like(total)
    for j in range(len(z)):
        new[indices[j]] += 1
        sums[indices[j]] += z[j]
    new, sums = gamma * count + (1 - gamma) * new, gamma * total + (1 - gamma) * sums
    smoothed = [(one + epsilon) / (new.sum() + len(new) * epsilon) * new.sum() for one in new]
    return new, sums, torch.stack([a / b for a, b in zip(sums, smoothed, strict=True)])


def codebook_in_place(count, total, z, indices, gamma, epsilon):
    count.mul_(gamma).add_((1 - gamma) * torch.bincount(indices, minlength=len(count)))
    total.mul_(gamma).index_add_(0, indices, z, alpha=1 - gamma)
    n = count.sum()
    return [count, total, total * ((n + len(count) * epsilon) / (n * (count + epsilon))).unsqueeze(-1)]


def mask_by_rows(size, first):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[: size // 2] = True
    mask[size // 2, : size // 2 + (not first)] = True
    return mask


def mask_by_numbers(size, first):
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = size // 2
    return (row < middle) | ((row == middle) & ((column < middle) | ((column == middle) & (not first))))


def film_in_loops(tokens, patch, size):
    """Box by box, into an empty film."""
    (pt, ph, pw), (time, height, width) = patch, size
    channels = tokens.shape[-1] // (pt * ph * pw)
    film = tokens.new_zeros(len(tokens), time, channels, height, width)
    places = [(t, y, x) for t in range(0, time, pt) for y in range(0, height, ph) for x in range(0, width, pw)]
    for k, (t, y, x) in enumerate(places):
        box = tokens[:, k].reshape(-1, pt, ph, pw, channels).permute(0, 1, 4, 2, 3)
        film[:, t : t + pt, :, y : y + ph, x : x + pw] = box
    return film


def put_back_without_a_gradient(x, t, known, noise):
    """Nothing is trained through it."""
    film = x.detach().clone()
    film[:, : known.size(1)] = torch.lerp(known, noise, t)
    return film


def solver_by_the_papers_algorithm(x, x0, t, s, x0_past, t_past):
    """Algorithm 2 of 2211.01095 with D_i, and in numpy."""
    def level(time):
        return np.log1p(-time) - np.log(time)

    x, guess = x.numpy(), x0.numpy()
    if x0_past is not None and 0 < s and t_past < 1:
        r = (level(t) - level(t_past)) / (level(s) - level(t))
        guess = (1 + 1 / (2 * r)) * guess - 1 / (2 * r) * x0_past.numpy()
    shrunk = np.exp(level(t) - level(s)) if 0 < s and t < 1 else 0.0
    return torch.from_numpy(s / t * x - (1 - s) * (shrunk - 1) * guess)


@pytest.mark.parametrize("name, answer", [
    ("sora.uncut", film_in_loops), ("sora.put_back", put_back_without_a_gradient),
    ("sora.solver_step", solver_by_the_papers_algorithm),
    ("vit.as_convolution", kernel_by_numpy), ("vit.interpolate_positions", zoomed_as_the_official_code_does),
    ("vit.attention_distance", distance_by_the_rest), ("vit.count_parameters", parameters_as_a_fraction),
    ("clip.loss_with_twins", twins_by_shares), ("clip.recall_at_1", recall_by_ranks),
    ("clip.ensemble", ensemble_by_the_sum), ("clip.batch_in_pieces", pieces_by_checkpoints),
    ("clip.batch_in_pieces", pieces_with_a_sum), ("vqvae.nearest_code", nearest_by_cdist),
    ("vqvae.nearest_code", nearest_by_einsum), ("vqvae.nearest_code", nearest_by_vmap),
    ("vqvae.nearest_code", nearest_by_affinity), ("vqvae.gradients", gradients_by_a_table),
    ("vqvae.gradients", gradients_in_a_loop), ("vqvae.move_codebook", codebook_by_scatter),
    ("vqvae.move_codebook", codebook_in_a_loop), ("vqvae.causal_mask", mask_by_rows),
    ("vqvae.causal_mask", mask_by_numbers),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(name).judge(answer)) == "✓ right"


def filled_with_100(I_e, T_e, t, same):
    logits = t.exp() * I_e @ T_e.T
    right = logits.masked_fill(~same, -100.0)
    return sum((logits.logsumexp(k) - right.logsumexp(k)).mean() for k in (0, 1)) / 2


def test_a_wall_of_minus_100_is_none_where_logits_reach_it():
    said = exercise("clip.loss_with_twins").judge(filled_with_100).message
    assert "right answers opposite: shares of 0 in float32" in said


def shares_of_exponentials(I_e, T_e, t, same):
    exponentials = (I_e @ T_e.T * t.exp()).exp()
    rows, columns = ((exponentials * same).sum(k) / exponentials.sum(k) for k in (1, 0))
    return -(rows.log().mean() + columns.log().mean()) / 2


def logs_of_exponentials(I_e, T_e, t, same):
    exponentials = (I_e @ T_e.T * t.exp()).exp()
    logs = [exponentials.sum(k).log() - (exponentials * same).sum(k).log() for k in (1, 0)]
    return (logs[0].mean() + logs[1].mean()) / 2


def shares_of_a_softmax(I_e, T_e, t, same):
    logits = I_e @ T_e.T * t.exp()
    return -((logits.softmax(1) * same).sum(1).log().mean() + (logits.softmax(0) * same).sum(0).log().mean()) / 2


def the_copys_channels_shuffled(skip, x):
    return exercise("unet.crop_and_concat").solution(skip.flip(1), x)


def one_pair_too_many(image, text, pixels, ids, scale, chunk):
    return exercise("clip.batch_in_pieces").solution(image, text, pixels, ids, scale, min(chunk + 1, len(pixels)))


@pytest.mark.parametrize("name, answer, says", [
    ("clip.loss_with_twins", shares_of_exponentials, "it returns inf, it should be"),
    ("clip.loss_with_twins", logs_of_exponentials, "it is NaN there"),
    ("clip.loss_with_twins", shares_of_a_softmax, "it returns inf, it should be"),
    ("unet.crop_and_concat", the_copys_channels_shuffled, "numbers differ, most at"),
    ("clip.batch_in_pieces", one_pair_too_many, "a tower was called with 4 pairs and gradients on."),
])  # fmt: skip
def test_a_slip_is_told_as_what_it_is(name, answer, says):
    """Softmaxes that overflow, channels in another order, 4 of 7 pairs: none is another slip's, or nobody's."""
    verdict = exercise(name).judge(answer)
    assert says in verdict.message and verdict.message not in {m.says for m in exercise(name).mistakes.values()}


def test_a_third_term_that_is_one_number_is_not_told_as_a_product_that_was_written():
    """The squares of all codes together: the reader sees a square written out, and is told what is wrong in it."""
    verdict = exercise("vqvae.nearest_code").judge(
        lambda z_e, codebook: (codebook.square().sum() - 2 * _vectors(z_e) @ codebook.T).argmin(-1))
    assert "your last term is missing, or one number for all codes" in verdict.message


def test_one_slip_in_the_count_is_not_taken_for_another():
    """4 D numbers a layer are missing in three ways; the message names all of them."""
    task = exercise("vit.count_parameters")
    for missing in (4, 5, 9):
        says = task.judge(lambda i, p, c, d, n, k, m=missing: task.solution(i, p, c, d, n, k) - m * n * d).message
        assert ("4 D numbers a layer" in says and all(which in says for which in ("four matrices", "two norms", "MLP"))
                ) == (missing == 4)
        assert ("5 D numbers a layer" in says) == (missing == 5)


@pytest.mark.parametrize("name, answer, says", [
    ("clip.ensemble", ensemble_in_place, "`T_f` is no longer what was handed in"),
    ("vqvae.move_codebook", codebook_in_place, "`count` is no longer what was handed in"),
])  # fmt: skip
def test_a_right_value_that_cannot_be_learned_from(name, answer, says):
    assert says in exercise(name).judge(answer).message


# -------------------------------------------------- chapter 05: wrong answers of kinds that no exercise was written for


def _vectors(z_e):
    return z_e.movedim(1, -1)


def _nearest(z_e, codebook):
    return torch.cdist(_vectors(z_e).flatten(0, -2), codebook).argmin(-1).reshape(len(z_e), *z_e.shape[2:])


def code_by_code(z_e, codebook):
    best, index = torch.full(_vectors(z_e).shape[:-1], torch.inf).to(z_e), torch.zeros(*_vectors(z_e).shape[:-1]).long()
    for k in range(len(codebook)):
        apart = (_vectors(z_e) - codebook[k]).square().sum(-1)
        best, index = torch.minimum(apart, best), torch.where(apart < best, k, index)
    return index


def place_by_place(z_e, codebook):
    index = torch.empty(len(z_e), *z_e.shape[2:], dtype=torch.int64)
    for b in range(len(z_e)):
        for row in range(z_e.shape[2]):
            for column in range(z_e.shape[3]):
                index[b, row, column] = (codebook - z_e[b, :, row, column]).norm(dim=1).argmin()
    return index


def in_python(z_e, codebook):
    return torch.tensor([[[min(range(len(codebook)), key=lambda k, v=v: sum((a - b) ** 2 for a, b in zip(
        v, codebook[k].tolist(), strict=True))) for v in row] for row in rows] for rows in _vectors(z_e).tolist()])


def picture_by_picture_in_full(z_e, codebook):
    return torch.stack([(z[None] - codebook[:, :, None, None]).square().sum(1).argmin(0) for z in z_e])


NOT_NEAREST = {
    "plus the square": lambda z, c: (_vectors(z) @ c.T + c.square().sum(1)).argmin(-1),
    "minus the square": lambda z, c: (-2 * _vectors(z) @ c.T - c.square().sum(1)).argmin(-1),
    "the length without its square": lambda z, c: (c.norm(dim=1) - 2 * _vectors(z) @ c.T).argmin(-1),
    "z of length 1": lambda z, c: _nearest(F.normalize(z, dim=1), c),
    "counted from 1": lambda z, c: _nearest(z, c) + 1,
    "the first picture": lambda z, c: _nearest(z[:1], c).expand(len(z), -1, -1),
    "mirrored": lambda z, c: _nearest(z, c).flip(-1),
    "flat": lambda z, c: _nearest(z, c).flatten(),
    "in 32 bits of float": lambda z, c: _nearest(z, c).float(),
    "the codes themselves": lambda z, c: c[_nearest(z, c)],
    "the largest difference": lambda z, c: torch.cdist(_vectors(z).flatten(0, -2), c, p=torch.inf).argmin(-1).reshape(
        len(z), *z.shape[2:]),
}  # fmt: skip
FORBIDDEN = {code_by_code: "a loop over places or codes", place_by_place: "a loop over places or codes",
             in_python: "`tolist` takes the numbers out", picture_by_picture_in_full: "a tensor of 524,288 numbers"}


def _right(g, z, c, k, b):
    return gradients_by_a_table(g, z, c, k, b)


NOT_WHO_MOVES = {
    "g turned": lambda g, z, c, k, b: _right(-g, z, c, k, b),
    "g in the mean as well": lambda g, z, c, k, b: _right(g / g.numel(), z, c, k, b),
    "beta squared": lambda g, z, c, k, b: _right(g, z, c, k, b * b),
    "the two exchanged": lambda g, z, c, k, b: _right(g, z, c, k, b)[::-1],
    "by the encoder alone": lambda g, z, c, k, b: _right(g, z, c, k, b)[0],
    "of unused codes too": lambda g, z, c, k, b: (_right(g, z, c, k, b)[0], 2 * (c - z.mean(0)) / z.numel()),
    "of used codes alone": lambda g, z, c, k, b: (_right(g, z, c, k, b)[0], _right(g, z, c, k, b)[1][k.unique()]),
    "signs, not differences": lambda g, z, c, k, b: (g + b * (z - c[k]).sign() / z.numel(), torch.zeros_like(
        c).index_add(0, k, (c[k] - z).sign() / z.numel())),
    "divided by K": lambda g, z, c, k, b: (_right(g, z, c, k, b)[0], _right(g, z, c, k, b)[1] * len(z) / len(c)),
    "1 + beta": lambda g, z, c, k, b: (_right(g, z, c, k, b)[0], (1 + b) * _right(g, z, c, k, b)[1]),
}  # fmt: skip


def by_backward(g, z_e, codebook, indices, beta):
    z, c = (value.detach().clone().requires_grad_() for value in (z_e, codebook))
    ((z * g).sum() + F.mse_loss(c[indices], z_e) + beta * F.mse_loss(z, codebook[indices])).backward()
    return z.grad, c.grad


def by_jacobian(g, z_e, codebook, indices, beta):
    def loss(z, c):
        return (z * g).sum() + F.mse_loss(c[indices], z_e) + beta * F.mse_loss(z, codebook[indices])

    return torch.func.jacfwd(loss, argnums=(0, 1))(z_e, codebook)  # forwards, so no backward pass gives it away


def _moved(count, total, z, k, gamma, epsilon):
    return codebook_by_scatter(count, total, z, k, gamma, epsilon)


def an_average_of_codes(count, total, z, k, gamma, epsilon):
    new, sums, _ = _moved(count, total, z, k, gamma, epsilon)
    batch = torch.bincount(k, minlength=len(count)).to(z)[:, None]
    means = torch.zeros_like(total).index_add(0, k, z) / batch.clamp(min=1)
    return new, sums, gamma * total / count[:, None].clamp(min=epsilon) + (1 - gamma) * means


def unused_stay(count, total, z, k, gamma, epsilon):
    new, sums, _ = _moved(count, total, z, k, gamma, epsilon)
    used = torch.bincount(k, minlength=len(count)) > 0
    new, sums = torch.where(used, new, count), torch.where(used[:, None], sums, total)
    n = new.sum()
    return new, sums, sums / ((new + epsilon) / (n + len(new) * epsilon) * n)[:, None]


NOT_MOVED = {
    "an average of codes": an_average_of_codes, "unused ones stay": unused_stay,
    "the old count": lambda n, m, z, k, g, e: (n, *_moved(n, m, z, k, g, e)[1:]),
    "the old sum": lambda n, m, z, k, g, e: (_moved(n, m, z, k, g, e)[0], m, _moved(n, m, z, k, g, e)[2]),
    "the codebook alone": lambda n, m, z, k, g, e: _moved(n, m, z, k, g, e)[2],
    "in another order": lambda n, m, z, k, g, e: _moved(n, m, z, k, g, e)[::-1],
    "gamma squared": lambda n, m, z, k, g, e: _moved(n, m, z, k, g * g, e),
    "half of epsilon": lambda n, m, z, k, g, e: _moved(n, m, z, k, g, e / 2),
    "a mean over the batch": lambda n, m, z, k, g, e: _moved(n, m, z / max(len(z), 1), k, g, e),
    "the first vector of a code": lambda n, m, z, k, g, e: _moved(n, m, z * (torch.tril(k[:, None] == k, -1).sum(
        1) == 0)[:, None], k, g, e),
    "no numbers": lambda n, m, z, k, g, e: [part.tolist() for part in _moved(n, m, z, k, g, e)],
}  # fmt: skip
NOT_A_MASK = {
    "whole numbers": lambda size, first: mask_by_rows(size, first).int(),
    "a kernel's weights": lambda size, first: mask_by_rows(size, first).float(),
    "the triangle": lambda size, first: torch.ones(size, size).tril(-int(first)).bool(),
    "flat": lambda size, first: mask_by_rows(size, first).flatten(),
    "with channels": lambda size, first: mask_by_rows(size, first)[None, None],
    "everything": lambda size, first: torch.ones(size, size).bool(),
    "its own row closed": lambda size, first: torch.arange(size)[:, None].expand(size, size) < size // 2,
    "one row alone": lambda size, first: mask_by_rows(size, first) & (torch.arange(size) >= size // 2 - 1)[:, None],
    "of three alone": lambda size, first: torch.tensor([[1, 1, 1], [1, not first, 0], [0, 0, 0]]).bool(),
    "one too many": lambda size, first: torch.arange(size * size).reshape(size, size) <= size * size // 2 + (not first),
}  # fmt: skip


@pytest.mark.parametrize("name, answer", [
    *(("vqvae.nearest_code", answer) for answer in NOT_NEAREST.values()),
    *(("vqvae.gradients", answer) for answer in NOT_WHO_MOVES.values()),
    *(("vqvae.move_codebook", answer) for answer in NOT_MOVED.values()),
    *(("vqvae.causal_mask", answer) for answer in NOT_A_MASK.values()),
])  # fmt: skip
def test_another_wrong_answer_is_told_a_case_and_accused_of_nothing(name, answer):
    verdict = exercise(name).judge(answer)
    assert verdict.state == "wrong" and verdict.message not in {m.says for m in exercise(name).mistakes.values()}
    assert verdict.message.startswith("with ") and "it should be" in verdict.message


@pytest.mark.parametrize("name, answer, says", [
    *(("vqvae.nearest_code", answer, says) for answer, says in FORBIDDEN.items()),
    ("vqvae.gradients", by_backward, "autograd has made them"),
    ("vqvae.gradients", by_jacobian, "autograd has made them"),
])  # fmt: skip
def test_what_the_statement_forbids_is_named(name, answer, says):
    assert says in exercise(name).judge(answer).message
