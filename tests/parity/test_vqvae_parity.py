"""Chapter 05's codebook against diffusers' VectorQuantizer, in value and in gradient, and its famous slip."""

import pytest
import torch

from soralab.vqvae import VectorQuantizer


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(legacy):
    """diffusers' quantizer and ours with the same codes. Its vectors lie along axis 1, ours along the last."""
    module = pytest.importorskip("diffusers.models.autoencoders.vae")
    theirs = module.VectorQuantizer(40, 8, beta=0.25, legacy=legacy)
    ours = VectorQuantizer(40, 8, beta=0.25)
    with torch.no_grad():
        theirs.embedding.weight.copy_(numbers(40, 8, seed=1))
        ours.codebook.copy_(theirs.embedding.weight)
    return theirs, ours


def both(legacy):
    """(z_q, loss, indices, d z_e, d codes) of each, the decoder's gradient a given one."""
    theirs, ours = pair(legacy)
    z, weight = numbers(3, 8, 5, 6, seed=2), numbers(3, 8, 5, 6, seed=3)
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    z_q, loss, (_, _, indices) = theirs(a)
    ((z_q * weight).mean() + loss).backward()
    out = ours(b.permute(0, 2, 3, 1))
    mine = out.z_q.permute(0, 3, 1, 2)
    ((mine * weight).mean() + out.loss).backward()
    return ((z_q, loss, indices, a.grad, theirs.embedding.weight.grad),
            (mine, out.loss, out.indices.flatten(), b.grad, ours.codebook.grad))


def test_diffusers_gives_the_same_in_value_and_in_gradient():
    theirs, ours = both(legacy=False)
    assert theirs[2].unique().numel() > 20
    for want, got in zip(theirs, ours, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_its_default_has_beta_on_the_other_side():
    """legacy=True: the same loss, a quarter of the pull on the codes, four times the pull on the encoder."""
    theirs, ours = both(legacy=True)
    torch.testing.assert_close(ours[1], theirs[1])
    torch.testing.assert_close(theirs[4], 0.25 * ours[4], rtol=1e-5, atol=1e-7)
    straight = numbers(3, 8, 5, 6, seed=3) / (3 * 8 * 5 * 6)  # of the encoder's gradient, what comes from the decoder
    torch.testing.assert_close(theirs[3] - straight, 4 * (ours[3] - straight), rtol=1e-4, atol=1e-7)
    assert (ours[3] - straight).abs().max() > 1e-4
