"""Chapter 05's VQ-VAE: its equations, its gradients, what its films and its prior may not see."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from soralab.files.checkpoints import CheckpointError, save_checkpoint
from soralab.vqvae import (
    VQVAE,
    GatedLayer,
    PixelCNN,
    PriorConfig,
    VectorQuantizer,
    VQVAEConfig,
    load,
    perplexity,
    vqvae_loss,
)

TINY = VQVAEConfig(codes=11, dim=4, width=8)
FILMS = VQVAEConfig(codes=11, dim=4, width=8, films=True)
PRIOR = PriorConfig(codes=7, classes=3, width=8, depth=5)


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def alive(model):
    """In float64 with nothing at zero: the second convolution of a block in time starts there, and would hide time."""
    with torch.no_grad():
        for seed, parameter in enumerate(model.double().parameters()):
            scale = 0.3 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
            parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.eval()


def quantizer(decay=0.0, revive=0.0, codes=6, dim=3):
    q = VectorQuantizer(codes, dim, beta=0.25, decay=decay, revive=revive).double()
    with torch.no_grad():
        q.codebook.copy_(numbers(codes, dim, seed=1))
        if decay:
            q.total.copy_(q.codebook)
    return q


# -------------------------------------------------------------------------------------------- the paper's arithmetic


def test_imagenets_map_is_42_times_smaller():
    """Section 4.2: 128 x 128 x 3 bytes become 32 x 32 codes of 512, about 42.6 times fewer bits."""
    c = VQVAEConfig.paper()
    assert c.map_size(128, 128) == (32, 32) and c.bits(128, 128) == 32 * 32 * 9
    assert 128 * 128 * 3 * 8 / c.bits(128, 128) == pytest.approx(42.67, abs=0.01)


def test_sizes_of_the_paper_on_the_meta_device():
    """Section 4.1: two strided 4 x 4 convolutions, two blocks of a 3 x 3 and a 1 x 1 one, 256 units; mirrored."""
    with torch.device("meta"):
        model = VQVAE(VQVAEConfig.paper())
    w, d = 256, 64
    block = (9 * w * w + w) + (w * w + w)
    encoder = (16 * 3 * w + w) + (16 * w * w + w) + 2 * block + (w * d + d)
    decoder = (9 * d * w + w) + 2 * block + (16 * w * w + w) + (16 * w * 3 + 3)
    counted = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder, model)]
    assert counted == [encoder, decoder, encoder + decoder + 512 * d]
    pixels = torch.empty(1, 3, 128, 128, device="meta")
    assert model.config.beta == 0.25 and model.encoder(pixels).shape == (1, 32, 32, d)


@pytest.mark.parametrize("frames, places", [(1, (1, 8, 6)), (3, (2, 8, 6)), (9, (5, 8, 6))])
def test_map_of_a_film(frames, places):
    assert FILMS.map_size(32, 24, frames) == places
    assert FILMS.bits(32, 24, frames) == pytest.approx(math.prod(places) * math.log2(11))
    film = torch.zeros(2, frames, 3, 32, 24)
    model = VQVAE(FILMS)
    indices = model.encode(film)
    assert indices.shape == (2, *places) and model.decode(indices).shape == film.shape


# ----------------------------------------------------------------------------------------------------- the equations


def test_equations_1_and_2():
    q, z = quantizer(), numbers(2, 4, 5, 3, seed=2)
    indices = q.nearest(z)
    for place in ((0, 0, 0), (1, 3, 4), (1, 0, 2)):
        distances = [(z[place] - e).square().sum().item() for e in q.codebook]
        assert indices[place] == distances.index(min(distances))
    out = q(z)
    assert torch.equal(out.indices, indices)
    torch.testing.assert_close(out.z_q, q.codebook[indices])
    assert len(indices.unique()) > 3


def test_equation_3_in_value_and_in_gradient():
    """beta = 0.25 stands on the encoder's side. With it on the other side the value is the same: ask the gradients."""
    q, z = quantizer(), numbers(5, 3, seed=3).requires_grad_()
    out = q(z)
    e = q.codebook[out.indices]
    assert out.loss.item() == pytest.approx(1.25 * (z - e).square().mean().item())
    out.loss.backward()
    torch.testing.assert_close(z.grad, 0.25 * 2 * (z - e).detach() / z.numel())
    want = torch.zeros_like(q.codebook).index_add_(0, out.indices, 2 * (e - z).detach() / z.numel())
    torch.testing.assert_close(q.codebook.grad, want)


@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_straight_through(decay):
    """The decoder's gradient reaches z_e unchanged, and never the codebook."""
    q, z, weight = quantizer(decay).eval(), numbers(5, 3, seed=4).requires_grad_(), numbers(5, 3, seed=5)
    (q(z).z_q * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    assert q.codebook.grad is None


def test_a_step_of_appendix_a1():
    """Twelve steps by hand: N, m and e = m / N with N smoothed; a code that nobody chooses stays where it is."""
    q = quantizer(decay=0.9, codes=4).train()
    with torch.no_grad():
        q.codebook[3] = q.total[3] = 100.0
    n, m, e = [1.0] * 4, [row.clone() for row in q.codebook], q.codebook.clone()
    for step in range(12):
        z = numbers(7, 3, seed=10 + step)
        chosen = torch.cdist(z, e).argmin(-1).tolist()
        assert q(z).indices.tolist() == chosen  # it sees the codes of the step before
        for i in range(4):
            mine = [z[j] for j in range(7) if chosen[j] == i]
            n[i] = 0.9 * n[i] + 0.1 * len(mine)
            m[i] = 0.9 * m[i] + 0.1 * sum(mine, torch.zeros(3, dtype=torch.float64))
        total = sum(n)
        smooth = [(count + 1e-5) / (total + 4e-5) * total for count in n]
        e = torch.stack([a / b for a, b in zip(m, smooth, strict=True)])
        torch.testing.assert_close(q.codebook, e)
    assert sum(smooth) == pytest.approx(total)  # Laplace's smoothing moves weight, and makes none
    assert torch.isfinite(q.codebook).all() and q.codebook[3].min() > 99


def test_moving_averages_find_the_means():
    """With the choices held fixed, e_i goes to the mean of the vectors that chose it (the k-means step)."""
    q, z, indices = quantizer(decay=0.9, codes=3), numbers(30, 3, seed=6), torch.arange(30) % 3
    for _ in range(300):
        q.move(z, indices)
    want = torch.stack([z[indices == i].mean(0) for i in range(3)])
    torch.testing.assert_close(q.codebook, want, rtol=1e-5, atol=1e-5)


def test_averages_move_in_training_alone_and_get_no_gradient():
    q, z = quantizer(decay=0.9).eval(), numbers(5, 3, seed=7)
    before = q.codebook.clone()
    q(z)
    assert torch.equal(q.codebook, before)
    q.train()(z)
    assert not torch.equal(q.codebook, before)
    assert not list(q.parameters()) and q(z.requires_grad_()).loss.requires_grad
    assert "codebook" in q.state_dict()


# --------------------------------------------------------------------------------------------- codes that are not used


def test_a_dead_code_is_placed_on_a_vector_of_the_batch():
    torch.manual_seed(0)
    q = quantizer(decay=0.9, revive=0.5, codes=4).train()
    q.codebook[2:] = q.total[2:] = 1000.0
    z = numbers(40, 3, seed=8)
    for _ in range(6):  # 0.9 ** 6 > 0.5: still alive
        q(z)
    assert (q.codebook[2:] > 900).all()
    q(z)
    nearest = torch.cdist(q.codebook[2:], z).min(-1).values
    assert (nearest < 1e-3).all() and len(q(z).indices.unique()) == 4


def test_without_revival_a_dead_code_stays_dead():
    q = quantizer(decay=0.9, codes=4).train()
    q.codebook[3] = q.total[3] = 1000.0
    for step in range(40):
        assert 3 not in q(numbers(40, 3, seed=step)).indices


def test_perplexity_counts_codes_in_use():
    assert perplexity(torch.tensor([[2, 2], [2, 2]]), 5).item() == pytest.approx(1)
    assert perplexity(torch.arange(8), 8).item() == pytest.approx(8)
    assert perplexity(torch.tensor([0, 1, 2, 3]), 100).item() == pytest.approx(4)
    uneven = perplexity(torch.tensor([0, 0, 0, 1]), 2).item()  # entropy of (3/4, 1/4): 0.811 bits
    assert uneven == pytest.approx(2 ** (0.75 * math.log2(4 / 3) + 0.25 * 2), rel=1e-5)


# ---------------------------------------------------------------------------------------------------------- the model


def test_the_residual_block_is_section_41s():
    block, x = alive(VQVAE(TINY)).encoder[3], numbers(2, 8, 5, 5, seed=9)
    h = F.conv2d(x.relu(), block.conv1.weight, block.conv1.bias, padding=1)
    torch.testing.assert_close(block(x), x + F.conv2d(h.relu(), block.conv2.weight, block.conv2.bias))


@pytest.mark.parametrize("config", [TINY, FILMS], ids=["pictures", "films"])
def test_decode_of_encode_is_forward(config):
    model = alive(VQVAE(config))
    x = numbers(*(2, 5, 3, 8, 12) if config.films else (2, 3, 8, 12), seed=11)
    copy, q = model(x)
    torch.testing.assert_close(model.decode(model.encode(x)), copy)
    assert torch.equal(model.encode(x), q.indices)


def test_the_loss_is_equation_3_with_the_error_in_units_of_the_variance():
    model = alive(VQVAE(TINY))
    x = numbers(2, 3, 8, 8, seed=12).clamp(-1, 1)
    copy, q = model(x)
    square = (copy - x).square().mean()
    loss, told = vqvae_loss(model, x, variance=0.1)
    assert loss.item() == pytest.approx((square / 0.1 + q.loss).item())
    assert told["psnr"] == pytest.approx(10 * math.log10(4 / square.item()))
    assert told["perplexity"] == pytest.approx(q.perplexity.item())


def test_every_weight_learns_and_each_from_its_own_term():
    """Encoder: reconstruction and commitment; decoder: reconstruction; codebook: its own term alone."""
    model = alive(VQVAE(VQVAEConfig(codes=11, dim=4, width=8, decay=0.0)))
    x = numbers(2, 3, 8, 8, seed=13)
    (model(x)[0] - x).square().mean().backward()
    assert model.quantizer.codebook.grad is None
    assert all(p.grad is not None and p.grad.any() for p in (*model.encoder.parameters(), *model.decoder.parameters()))
    model.zero_grad()
    model(x)[1].loss.backward()
    assert all(p.grad is None for p in model.decoder.parameters())
    assert model.quantizer.codebook.grad.any() and model.encoder[0].weight.grad.any()


def test_the_nearest_code_is_found_in_full_precision_also_under_autocast():
    """bfloat16 has 8 bits: these two codes are the same number in it."""
    q = VectorQuantizer(2, 1)
    with torch.no_grad():
        q.codebook.copy_(torch.tensor([[1.0], [1.002]]))
    z = torch.tensor([[1.0003], [1.0017]])
    with torch.autocast("cpu", torch.bfloat16):
        assert q.nearest(z).tolist() == [0, 1]


def test_many_codes_are_compared_in_full_precision_too():
    """Above 25 of them torch finds distances by a matrix product, and that is what autocast would round."""
    q = VectorQuantizer(64, 3)
    with torch.no_grad():
        q.codebook.copy_(1 + 0.02 * numbers(64, 3, seed=1))
    z = (1 + 0.02 * numbers(50, 3, seed=2)).float()
    apart = (z.double()[:, None] - q.codebook.double()).square().sum(-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = q.nearest(z)
    assert (apart.gather(1, found[:, None])[:, 0] - apart.amin(1)).max() < 2e-6  # float32's own rounding


# ------------------------------------------------------------------------------------------------------ films in time


@pytest.mark.parametrize("moment", range(9))
def test_no_code_and_no_frame_sees_what_comes_after_its_pair(moment):
    """Places 0 to i are made of frames 0 to 2i, and frames 0 to 2i of places 0 to i."""
    model, film = alive(VQVAE(FILMS)), numbers(1, 9, 3, 8, 8, seed=14)
    other = film.clone()
    other[:, moment] += 1
    place = (moment + 1) // 2
    z, changed = model.z_e(film), model.z_e(other)
    assert torch.equal(z[:, :place], changed[:, :place])
    assert (z - changed)[:, place].abs().max() > 1e-6 and (z - changed)[:, min(place + 1, 4)].abs().max() > 1e-6
    copies = [model.decoder(code) for code in (z, changed)]
    shown = max(2 * place - 1, 0)
    assert torch.equal(copies[0][:, :shown], copies[1][:, :shown])
    assert (copies[0] - copies[1])[:, shown].abs().max() > 1e-6


@torch.no_grad()
def test_a_frame_is_a_film_of_length_one():
    model, film = alive(VQVAE(FILMS)), numbers(2, 7, 3, 8, 8, seed=15)
    for frames in (1, 3, 5):
        torch.testing.assert_close(model.z_e(film[:, :frames]), model.z_e(film)[:, : (frames + 1) // 2])
        indices = model.encode(film)
        torch.testing.assert_close(model.decode(indices[:, : (frames + 1) // 2]), model.decode(indices)[:, :frames])


def test_a_norm_over_time_would_be_caught():
    model, film = alive(VQVAE(FILMS)), numbers(1, 9, 3, 8, 8, seed=16)
    model.encoder.blocks[1].norm2.forward = lambda x: x - x.mean(1, keepdim=True)
    other = film.clone()
    other[:, -1] += 1
    assert (model.z_e(film) - model.z_e(other))[:, 0].abs().max() > 1e-6


# --------------------------------------------------------------------------------------------------------- the prior


def reach(model, size=(5, 6)):
    """Which code's logits depend on which code's embedding: bool [rows, columns, rows, columns], by the Jacobian."""
    z, label = torch.zeros(1, *size, dtype=torch.int64), torch.tensor([1])
    words = numbers(1, *size, model.config.width, seed=17).requires_grad_()
    model.embed.forward = lambda _: words
    logits = model(z, label)[0]
    seen = torch.zeros(*size, *size, dtype=torch.bool)
    for row in range(size[0]):
        for column in range(size[1]):
            weight = numbers(len(logits), seed=18)
            grad = torch.autograd.grad(logits[:, row, column] @ weight, words, retain_graph=True)[0]
            seen[row, column] = (grad[0] != 0).any(-1)
    return seen


def before(rows, columns):
    """True where [row, column] comes after [other row, other column] in reading order."""
    order = torch.arange(rows * columns)
    return (order[:, None] > order[None, :]).reshape(rows, columns, rows, columns)


def test_every_code_sees_all_codes_before_it_and_no_other():
    """Strictly causal, and no blind spot: with enough layers the Jacobian is the full lower triangle."""
    assert torch.equal(reach(alive(PixelCNN(PRIOR))), before(5, 6))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_two_layers_see_a_neighbourhood_and_nothing_after(size):
    seen = reach(alive(PixelCNN(PriorConfig(codes=7, classes=3, width=8, depth=2, size=size))))
    assert not (seen & ~before(5, 6)).any()
    assert seen[4, 3, 4, 2] and seen[4, 3, 3, 3]  # its left neighbour and the one above


def test_masked_convolutions_would_be_blind_and_the_jacobian_shows_it():
    """Stacked masks (1601.06759) never see up and to the right beyond a line: the reason for two stacks."""
    mask = torch.ones(3, 3, dtype=torch.float64)
    mask[1, 1:] = mask[2] = 0
    words = numbers(1, 1, 6, 8, seed=19).requires_grad_()
    h = F.conv2d(words, mask[None, None], padding=1)
    mask = mask.clone()
    mask[1, 1] = 1
    for _ in range(8):
        h = F.conv2d(h, mask[None, None], padding=1)
    grad = torch.autograd.grad(h[0, 0, 5, 3], words)[0][0, 0]
    assert grad[4, 4] != 0 and grad[4, 6] == 0  # (4, 6) comes before (5, 3), and is not seen


@pytest.mark.parametrize("broken", ["own place", "row above", "left"])
def test_each_shift_of_a_layer_is_needed(broken, monkeypatch):
    model, pad = alive(PixelCNN(PRIOR)), F.pad
    if broken == "own place":
        model.layers[0].first = False
    elif broken == "row above":  # h is given v of its own row, which holds what stands to the right
        monkeypatch.setattr(F, "pad", lambda x, p: torch.cat([x, x[:, :, :1]], 2) if p == (0, 0, 1, 0) else pad(x, p))
    else:  # a convolution in the middle, as they are by default
        monkeypatch.setattr(F, "pad", lambda x, p: pad(x, (1, 1)) if p == (2, 0) else pad(x, p))
    assert (reach(model) & ~before(5, 6)).any()


def test_the_gated_unit():
    """1606.05328, Eq. (2): y = tanh(W_f x + V_f h) * sigmoid(W_g x + V_g h), here for one place and no neighbours."""
    layer = alive(nn.ModuleList([GatedLayer(4, 1, 3, first=False)]))[0]
    v, h, label = numbers(1, 4, 1, 1, seed=20), numbers(1, 4, 1, 1, seed=21), torch.tensor([2])
    for_v, for_h = layer.of_class.weight[2].split(8)
    a = layer.horizontal.weight[:, :, 0, 0] @ h.flatten() + layer.horizontal.bias + layer.v_to_h.bias + for_h
    y = torch.tanh(a[:4]) * torch.sigmoid(a[4:])
    b = layer.vertical.weight[:, :, 0, 0] @ v.flatten() + layer.vertical.bias + for_v
    new_v, new_h = layer(v, h, label)
    torch.testing.assert_close(new_v.flatten(), torch.tanh(b[:4]) * torch.sigmoid(b[4:]))
    torch.testing.assert_close(new_h.flatten(), h.flatten() + layer.out.weight[:, :, 0, 0] @ y + layer.out.bias)


def test_the_class_matters():
    model, z = alive(PixelCNN(PRIOR)), torch.zeros(2, 4, 4, dtype=torch.int64)
    first, second = model(z, torch.tensor([0, 1]))
    assert (first - second).abs().min() > 1e-9


def test_bits_are_minus_log2_of_the_probability():
    model = alive(PixelCNN(PRIOR))
    z, label = torch.randint(0, 7, (2, 3, 4), generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    p = model(z, label).softmax(1)
    chances = [p[b, z[b, r, c], r, c].item() for b in range(2) for r in range(3) for c in range(4)]
    assert model.bits(z, label).item() == pytest.approx(-sum(map(math.log2, chances)) / 24)
    for parameter in model.head.parameters():
        nn.init.zeros_(parameter)
    assert model.bits(z, label).item() == pytest.approx(math.log2(7), rel=1e-6)


def test_the_chances_of_all_maps_sum_to_1():
    """81 maps of 2 x 2 codes out of 3: a prior that peeked would not give a distribution."""
    model = alive(PixelCNN(PriorConfig(codes=3, classes=2, width=6, depth=3)))
    maps = torch.cartesian_prod(*[torch.arange(3)] * 4).reshape(-1, 2, 2)
    bits = [4 * model.bits(z[None], torch.tensor([1])).item() for z in maps]
    assert sum(2**-b for b in bits) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("codes, size", [(3, (2, 1)), (3, (1, 2)), (2, (2, 2))])
def test_samples_have_the_priors_chances(codes, size):
    """All maps of a few codes: how often each is drawn, against its probability."""
    model = alive(PixelCNN(PriorConfig(codes=codes, classes=2, width=6, depth=3)))
    count, places, label = 6000, size[0] * size[1], torch.tensor([1])
    drawn = model.sample(label.expand(count), size, torch.Generator().manual_seed(0)).flatten(1)
    for codes_of_map in itertools.product(range(codes), repeat=places):
        one = torch.tensor(codes_of_map)
        chance = 2 ** (-places * model.bits(one.reshape(1, *size), label).item())
        share = (drawn == one).all(-1).double().mean().item()
        assert share == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / count))


def test_a_sample_is_its_generators_alone():
    model, label = alive(PixelCNN(PRIOR)), torch.tensor([0, 1, 2, 1])
    drawn = []
    for seed, elsewhere in ((0, 1), (0, 2), (3, 2)):
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        drawn.append(model.sample(label, (4, 4), torch.Generator().manual_seed(seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


# ------------------------------------------------------------------------------------------- learning, and the errors


def test_it_learns_four_pictures():
    """Eight codes are enough for pictures of two colours each; a gradient that went astray would leave them grey."""
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(codes=8, dim=4, width=16, revive=0.5))
    x = torch.ones(4, 3, 16, 16) * torch.tensor([-0.8, -0.2, 0.3, 0.9])[:, None, None, None]
    x[:, 0, :8] *= -1
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        loss, _ = vqvae_loss(model, x, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert vqvae_loss(model.eval(), x)[1]["psnr"] > 25


def test_load_tells_the_two_kinds_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    for name, model in (("a", VQVAE(FILMS)), ("b", PixelCNN(PRIOR))):
        save_checkpoint(tmp_path / name, model.state_dict(), {"config": vars(model.config)})
    film, z = torch.rand(1, 3, 3, 8, 8), torch.zeros(1, 2, 2, dtype=torch.int64)
    assert load("a").encode(film).shape == (1, 2, 2, 2)
    assert load("b")(z, z[:, 0, 0]).shape == (1, 7, 2, 2)
    save_checkpoint(tmp_path / "c", VQVAE(FILMS).state_dict(), {"config": vars(TINY)})
    with pytest.raises(CheckpointError, match="c holds no VQ-VAE and no prior"):
        load("c")


@pytest.mark.parametrize("make, says", [
    (lambda: VQVAEConfig(decay=1.0), "decay is 1.0; it takes a number from 0 up to but not 1"),
    (lambda: VQVAEConfig(decay=0.0, revive=0.5), "revive is 0.5; with decay 0 nobody counts"),
    (lambda: VQVAE(TINY).encode(torch.zeros(1, 3, 30, 32)), "size is 1x30x32; it takes sides that 4 divides, and one"),
    (lambda: VQVAE(FILMS).encode(torch.zeros(1, 8, 3, 32, 32)), "size is 8x32x32; .* an odd number of frames"),
    (lambda: VQVAE(FILMS).encode(torch.zeros(1, 3, 32, 32)), r"x is \[1, 3, 32, 32\]; it takes \[batch, time, channel"),
    (lambda: VQVAE(TINY).encode(torch.zeros(3, 32, 32)), r"x is \[3, 32, 32\]; it takes \[batch, channel, height"),
    (lambda: TINY.map_size(32, 32, 9), "size is 9x32x32; .* one frame"),
    (lambda: PixelCNN(PriorConfig(size=4)), "size is 4; it takes an odd number"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_map_of_channels_first_is_laid_side_by_side_once():
    """As encoders give it: a view whose vectors lie apart, through which every term of the loss would walk."""
    z = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    quantizer, apart = VectorQuantizer(6, 4), z.movedim(1, -1)
    out, same = quantizer(apart), quantizer(apart.contiguous())
    assert not apart.is_contiguous() and out.z_q.is_contiguous()
    assert torch.equal(out.z_q, same.z_q) and torch.equal(out.loss, same.loss)
