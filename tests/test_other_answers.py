"""Chapters 04 and 05: right answers that are written otherwise are taken, and one that moves nobody is told so."""

import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def twins_by_shares(I_e, T_e, t, same):
    table = torch.einsum("id,jd->ij", I_e.double(), T_e.double()) * torch.exp(t.double())
    rows, columns = ((table.softmax(k) * same).sum(k).log().mean() for k in (1, 0))
    return -(rows + columns) / 2


def recall_by_ranks(I_f, T_f, texts):
    table = torch.nn.functional.cosine_similarity(I_f[:, None], T_f[None], dim=-1)
    kinds = [texts.index(text) for text in texts]
    right = torch.tensor([[a == b for b in kinds] for a in kinds])
    return [(table.masked_fill(~right, -2).amax(k) >= table.amax(k)).double().mean() for k in (1, 0)]


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


def nearest_by_cdist(z_e, codebook):
    batch, _, rows, columns = z_e.shape
    flat = z_e.permute(0, 2, 3, 1).reshape(-1, codebook.shape[1])
    return torch.cdist(flat, codebook).argmin(1).view(batch, rows, columns)


def nearest_by_einsum(z_e, codebook):
    products = torch.einsum("bdhw,kd->bkhw", z_e.double(), codebook.double())
    return (codebook.square().sum(1)[:, None, None] - 2 * products).min(dim=1).indices


def quantise_in_a_list(z_e, e, beta):
    return [e.detach() + z_e - z_e.detach(), F.mse_loss(e, z_e.detach()) + beta * F.mse_loss(z_e, e.detach())]


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


@pytest.mark.parametrize("name, answer", [
    ("clip.loss_with_twins", twins_by_shares), ("clip.recall_at_1", recall_by_ranks),
    ("clip.batch_in_pieces", pieces_with_a_sum), ("vqvae.nearest_code", nearest_by_cdist),
    ("vqvae.nearest_code", nearest_by_einsum), ("vqvae.quantise", quantise_in_a_list),
    ("vqvae.causal_mask", mask_by_rows),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(name).judge(answer)) == "✓ right"


def both_stopped(z_e, e, beta):
    square = (z_e.detach() - e.detach()).square().mean()
    return z_e + (e - z_e).detach(), square + beta * square


@pytest.mark.parametrize("name, answer, says", [
    ("clip.ensemble", ensemble_in_place, "`T_f` is no longer what was handed in"),
    ("vqvae.move_codebook", codebook_in_place, "`count` is no longer what was handed in"),
    ("vqvae.quantise", both_stopped, "each of its terms has one stop, not two"),
])  # fmt: skip
def test_a_right_value_that_cannot_be_learned_from(name, answer, says):
    assert says in exercise(name).judge(answer).message
