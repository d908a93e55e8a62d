"""Chapter 07: packing, and what a packed row computes. timm's network of the same kind is in tests/parity."""

import math
import statistics
from itertools import pairwise
from random import Random

import numpy
import pytest
import torch
from einops import rearrange
from kernel_checks.process import run_apart, triton_is_here
from torch.nn import functional as F

from soralab import navit
from soralab.blocks import patchify
from soralab.blocks.contrastive import chunked_contrastive_loss
from soralab.clip import contrastive_loss
from soralab.kernels import Packed
from soralab.navit import (
    PAD,
    FactorisedPositions,
    NaViT,
    NaViTConfig,
    beta_rate,
    collate,
    cut,
    keep,
    left,
    pack,
    rate_by_size,
    rate_by_time,
    resized,
    sample_side,
    segments,
    truncated_normal,
)

TINY = NaViTConfig(patch=4, dim=32, depth=2, heads=2, classes=5, grid=(7, 9))
SIZES = ((12, 8), (4, 4), (8, 28), (20, 12), (4, 36), (16, 16), (8, 8))  # pixels; 6, 1, 14, 15, 9, 16, 4 tokens


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pictures(sizes=SIZES, seed=70, dtype=torch.float64):
    return [numbers(3, *size, seed=seed + k, dtype=dtype) for k, size in enumerate(sizes)]


def alive(config=TINY, **changes):
    """A model in float64 with nothing at zero or one: the head starts there, and would hide mistakes."""
    model = NaViT(NaViTConfig(**{**vars(config), **changes})).double().eval()
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            table = parameter.ndim < 2 or "tables" in name
            parameter.copy_((0.5 if table else parameter.shape[1] ** -0.5) * numbers(*parameter.shape, seed=seed))
            if "norm" in name:
                parameter.add_(1)
    return model


def close(a, b, scale=1e-12):
    """Equal to `scale` of the largest number there is: these are float64."""
    assert b.abs().max() > 0.05  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=0, atol=scale * b.abs().max().item())


# ------------------------------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize("sizes, length, rows", [
    ([6, 5, 3, 2, 4], 8, [[0, 3], [1, 2], [4]]),  # 2 goes back to the first row, which the last one would not be
    ([4, 6, 2, 2], 8, [[0, 2, 3], [1]]),  # the first row with room, not the one that it fills best
    ([1, 7, 8], 8, [[0, 1], [2]]),  # as they come, not the largest first
    ([5, 5, 1, 3, 3], 8, [[0, 2], [1, 3], [4]]),
    ([8], 8, [[0]]),
    ([(2, 3), (1, 2), (1, 3), (2, 1, 4)], 11, [[0, 1, 2], [3]]),  # pictures, and a film of 2 x 1 x 4
])  # fmt: skip
def test_each_goes_into_the_first_row_with_room(sizes, length, rows):
    assert pack(sizes, length) == rows


def test_a_table_of_sizes_packs_as_its_rows():
    assert pack(numpy.array([6, 5, 3, 2, 4]), 8) == [[0, 3], [1, 2], [4]]
    assert pack(numpy.array([[2, 3], [1, 2], [2, 2]]), 8) == pack(torch.tensor([[2, 3], [1, 2], [2, 2]]), 8)
    assert pack([*numpy.array([[2, 3], [1, 2], [2, 2]])], 8) == [[0, 1], [2]]


@pytest.mark.parametrize("seed", range(8))
def test_packing_is_first_fit_for_any_sizes(seed):
    rng = Random(seed)
    length = rng.randint(3, 40)
    sizes = [rng.randint(1, length) for _ in range(rng.randint(1, 60))]
    rows, free = [], []
    for k, n in enumerate(sizes):
        for row, room in enumerate(free):
            if room >= n:
                rows[row].append(k)
                free[row] -= n
                break
        else:
            rows.append([k])
            free.append(length - n)
    assert pack(sizes, length) == rows


def test_batches_of_rows_pack_to_themselves():
    """Whoever packs an epoch and then some of its rows gets these rows again."""
    rng = Random(1)
    sizes = [rng.randint(1, 20) for _ in range(300)]
    rows = pack(sizes, 32)
    for first in (0, 7, 20):
        some = rows[first : first + 5]
        order = [k for row in some for k in row]
        assert [[order[place] for place in row] for row in pack([sizes[k] for k in order], 32)] == some


# ------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_by_hand():
    """2 x 3 and 1 x 2 patches in a row of ten: six tokens, two tokens, two of padding."""
    a, b = pictures([(8, 12), (4, 8)])
    batch = collate([a, b], 4, 10)
    assert batch["ids"].tolist() == [[0, 0, 0, 0, 0, 0, 1, 1, PAD, PAD]]
    places = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [0, 0], [0, 1], [0, 0], [0, 0]]
    assert batch["places"].tolist() == [places]
    assert batch["sizes"].tolist() == [[2, 3], [1, 2]]
    assert torch.equal(batch["patches"][0, 4], a[:, 4:8, 4:8].permute(1, 2, 0).flatten())  # rows, columns, colours
    assert torch.equal(batch["patches"][0, 7], b[:, :, 4:8].permute(1, 2, 0).flatten())
    assert not batch["patches"][0, 8:].any()
    of = batch["ids"][0]
    may_attend = (of[:, None] == of) & (of[:, None] != PAD)
    assert may_attend.sum() == 6 * 6 + 2 * 2


def test_every_token_lies_once_in_its_picture_s_place():
    some = pictures()
    batch = collate(some, 4, 30)
    for k, picture in enumerate(some):
        here = batch["ids"] == k
        assert here.any(1).sum() == 1  # one row
        height, width = (side // 4 for side in picture.shape[1:])
        back = torch.zeros(height, width, 48, dtype=torch.float64)
        row, column = batch["places"][here].T
        back[row, column] = batch["patches"][here]
        assert torch.equal(back.flatten(0, 1), patchify(picture[None, None], (1, 4, 4))[0])
        assert here.sum() == height * width
    assert ((batch["ids"] >= 0).sum(1) <= 30).all()


def test_what_is_dropped_takes_no_room():
    some = pictures([(8, 12), (8, 8)])
    kept = [torch.tensor([1, 5]), torch.tensor([2])]
    batch = collate(some, 4, 3, kept)
    assert batch["ids"].tolist() == [[0, 0, 1]]
    assert batch["places"].tolist() == [[[0, 1], [1, 2], [1, 0]]]
    assert batch["sizes"].tolist() == [[2, 3], [2, 2]]  # of the whole picture, for fractional positions
    assert torch.equal(batch["patches"][0, 1], cut(some[0], 4)[0][5])
    lists = collate(some, 4, 3, [stay.tolist() for stay in kept])
    assert torch.equal(lists["patches"], batch["patches"])


def test_segments_by_hand():
    ids = torch.tensor([[1, 1, 2, PAD, PAD], [PAD, PAD, PAD, PAD, PAD], [3, 0, 0, 0, 0]])
    tokens, queries, order = segments(ids, 4)
    assert tokens.tolist() == [0, 2, 3, 5, 10, 11, 15]  # padding does not go on in the next row
    assert queries.tolist() == [0, 1, 2, 2, 2, 3, 4]  # nobody asks it
    assert order.tolist() == [3, 0, 1, 2]  # picture 0 is asked last


@pytest.mark.parametrize("seed", range(4))
def test_segments_are_the_block_diagonal_mask(seed):
    rng = Random(seed)
    sizes = [rng.randint(1, 9) for _ in range(20)]
    rows, length = pack(sizes, 12), 12
    ids = torch.full((len(rows), length), PAD)
    for row, members in enumerate(rows):
        each = [k for k in members for _ in range(sizes[k])]
        ids[row, : len(each)] = torch.tensor(each)
    tokens, queries, order = segments(ids, 20)
    flat, mask = ids.flatten(), torch.zeros(ids.numel(), ids.numel(), dtype=torch.bool)
    for a, b in pairwise(tokens.tolist()):
        mask[a:b, a:b] = True
    real = flat != PAD
    assert torch.equal(mask[real], (flat[real][:, None] == flat))  # no token meets another's, nor padding
    bounds = zip(pairwise(tokens.tolist()), pairwise(queries.tolist()), strict=True)
    asked = [flat[a].item() for (a, _), (q, r) in bounds if r > q]
    assert [asked[place] for place in order] == list(range(20))


# ----------------------------------------------------------------------------------------------------------- positions


def test_positions_are_sums_over_the_axes():
    positions = FactorisedPositions((5, 6, 7), 8).double()
    places = torch.tensor([[0, 0, 0], [4, 5, 6], [2, 0, 3]])
    t, h, w = positions.tables
    want = torch.stack([t[a] + h[b] + w[c] for a, b, c in places.tolist()])
    assert torch.equal(positions(places, torch.tensor([[5, 6, 7]]).expand(3, 3)), want)
    assert sum(table.std().item() for table in positions.tables) == pytest.approx(0.06, rel=0.25)


@pytest.mark.parametrize("side", [1, 2, 5, 6, 13])
def test_fractional_positions_stretch_the_table(side):
    """Linear between its entries, cells on cells, as torch and timm resample."""
    positions = FactorisedPositions((6,), 8, "fractional").double()
    table = positions.tables[0]
    got = positions(torch.arange(side)[:, None], torch.full((side, 1), side))
    want = F.interpolate(table.T[None], side, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(got, want)
    with torch.no_grad():
        table.copy_(table.flip(0))
    torch.testing.assert_close(positions(torch.arange(side)[:, None], torch.full((side, 1), side)), want.flip(0))


def test_a_picture_as_large_as_the_tables_has_absolute_positions():
    absolute, fractional = FactorisedPositions((5, 7), 8), FactorisedPositions((5, 7), 8, "fractional")
    fractional.load_state_dict(absolute.state_dict())
    places = torch.cartesian_prod(torch.arange(5), torch.arange(7))
    sizes = torch.tensor([5, 7]).expand(35, 2)
    torch.testing.assert_close(fractional(places, sizes), absolute(places, sizes))
    assert not torch.allclose(fractional(places, sizes + 3), absolute(places, sizes + 3))
    assert torch.equal(absolute(places, sizes + 3), absolute(places, sizes))  # these know no size


def test_the_same_fraction_is_the_same_position_at_every_size():
    """Middles of thirds: 0 of 3 and 1 of 9 stand at the same place, and say the same."""
    positions = FactorisedPositions((11, 11), 8, "fractional")
    three = positions(torch.tensor([[0, 0], [1, 2]]), torch.tensor([[3, 3], [3, 3]]))
    nine = positions(torch.tensor([[1, 1], [4, 7]]), torch.tensor([[9, 9], [9, 9]]))
    torch.testing.assert_close(three, nine)


# -------------------------------------------------------------------------------------------------------- the network


def by_hand(model, picture):
    """The logits of one picture, from the equations at the top of navit.py: no packing, no kernel."""
    patches, places = cut(picture, model.config.patch)
    size = torch.tensor([side // model.config.patch for side in picture.shape[-2:]])
    z = model.embed(patches) + model.positions(places, size.expand_as(places))

    def heads(x, count):
        return rearrange(x, "n (h d) -> h n d", h=count)

    def norm(x, layer):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight

    def attend(layer, x, context, normed):
        count = model.config.heads
        q, k, v = heads(layer.to_q(x), count), *(heads(m, count) for m in layer.to_kv(context).chunk(2, -1))
        if normed:
            q, k = norm(q, layer.norm_q), norm(k, layer.norm_k)
        logits = torch.einsum("h i d, h j d -> h i j", q, k) / math.sqrt(q.shape[-1])
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        return layer.to_out(rearrange(weights @ v, "h n d -> n (h d)"))

    for block in model.blocks:
        x = norm(z, block.norm1)
        z = z + attend(block.attention, x, x, normed=True)
        z = z + block.mlp(norm(z, block.norm2))
    pool = model.pool
    y = attend(pool.attention, pool.query[None], norm(z, model.norm), normed=False)
    return model.head(y + pool.mlp(norm(y, pool.norm)))


@pytest.mark.parametrize("positions", navit.POSITIONS)
def test_a_packed_row_computes_the_equations(positions):
    """The scale of the logits is held too: normalised q and k have length sqrt(d), and are divided by it once."""
    model, some = alive(positions=positions), pictures()
    close(model(**collate(some, 4, 30)), torch.cat([by_hand(model, picture) for picture in some]))


@pytest.mark.parametrize("length", [16, 23, 65, 90])
def test_packed_equals_each_picture_alone(length):
    model, some = alive(), pictures()
    alone = torch.cat([model(**collate([picture], 4, picture[0].numel() // 16)) for picture in some])
    close(model(**collate(some, 4, length)), alone)
    single, batch = alive().float(), [picture.float() for picture in some]
    close(single(**collate(batch, 4, length)), alone.float(), scale=1e-6)


def test_the_gradient_of_a_pack_is_the_sum_of_the_single_ones():
    model, some = alive(), pictures()
    weights = numbers(len(some), 5, seed=99)

    def gradients(batch, weight):
        model.zero_grad()
        (model(**batch) * weight).sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    packed = gradients(collate(some, 4, 30), weights)
    single = [gradients(collate([p], 4, 40), weights[k : k + 1]) for k, p in enumerate(some)]
    for together, *each in zip(packed, *single, strict=True):
        close(together, sum(each), scale=1e-10)


def spoilt(batch, *, but, value=float("nan")):
    """The batch with all tokens but picture `but`'s replaced, padding too."""
    others = batch["ids"] != but
    return batch | {"patches": batch["patches"].masked_fill(others[..., None], value)}


def test_patches_of_another_precision_are_read_in_the_model_s():
    model, batch = alive(), collate(pictures(), 4, 30)
    half = batch | {"patches": batch["patches"].half()}
    assert torch.equal(model(**half), model(**half | {"patches": half["patches"].double()}))


@pytest.mark.parametrize("value", [float("nan"), 1e9])
def test_nothing_leaks(value):
    """With NaN in every neighbour and in the padding this picture's answer is the same to the last bit."""
    model, batch = alive(), collate(pictures(), 4, 30)
    before = model(**batch)
    for k in range(len(SIZES)):
        after = model(**spoilt(batch, but=k, value=value))
        assert torch.equal(after[k], before[k]) and not torch.equal(after, before)


def open_row(tokens, backend, length=30):
    """Attention over the whole row: what a forgotten mask does."""
    return Packed(torch.arange(0, int(tokens[-1]) + 1, length).int(), backend=backend)


WRONG = {
    "no mask": lambda monkeypatch: monkeypatch.setattr(
        navit, "Packed", lambda q, k=None, backend="auto": Packed(q, k, backend=backend) if k is not None
        else open_row(q, backend)),
    "the pool's bounds a token late": lambda monkeypatch: monkeypatch.setattr(
        navit, "segments", lambda ids, n: (s := segments(ids, n))._replace(
            tokens=torch.cat([s.tokens[:1], s.tokens[1:-1] + 1, s.tokens[-1:]]))),
    "answers in the rows' order": lambda monkeypatch: monkeypatch.setattr(
        navit, "segments", lambda ids, n: segments(ids, n)._replace(order=torch.arange(n))),
    "padding is of picture 0": lambda monkeypatch: monkeypatch.setattr(
        navit, "collate", lambda *given: (b := collate(*given)) | {"ids": b["ids"].clamp(min=0)}),
    "places of the row": lambda monkeypatch: monkeypatch.setattr(
        navit, "collate", lambda *given: (b := collate(*given)) | {"places": b["places"].flip(1)}),
    "sizes of the neighbour": lambda monkeypatch: monkeypatch.setattr(
        navit, "collate", lambda *given: (b := collate(*given)) | {"sizes": b["sizes"].roll(1, 0)}),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_versions_are_told_from_the_right_one(wrong, monkeypatch):
    model, some = alive(), pictures()
    want = torch.cat([by_hand(model, picture) for picture in some])
    wrong(monkeypatch)
    try:
        got = model(**navit.collate(some, 4, 30))
    except ValueError as error:
        assert "ids" in str(error) or "places" in str(error)
        return
    assert (got - want).abs().max() > 1e-3 * want.abs().max()


def test_pictures_and_tokens_may_come_in_any_order():
    """A picture is a set of tokens with places, a batch a set of pictures."""
    model, some = alive(), pictures()
    before = model(**collate(some, 4, 30))
    close(model(**collate(some[::-1], 4, 30)), before.flip(0))
    order = [torch.randperm(p[0].numel() // 16, generator=torch.Generator().manual_seed(1)) for p in some]
    close(model(**collate(some, 4, 30, order)), before)
    batch = collate(some, 4, 30)
    batch["places"][batch["ids"] == 3] = batch["places"][batch["ids"] == 3].flip(0)  # patches stay, places go
    assert (model(**batch)[3] - before[3]).abs().max() > 1e-3


def test_only_the_head_starts_at_zero_and_there_are_no_biases_in_norms_and_queries():
    torch.manual_seed(0)
    model = NaViT(TINY)
    batch = collate(pictures(dtype=torch.float32), 4, 30)
    assert not model(**batch).any() and model.features(**batch).std() > 0.1
    biased = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name.endswith("bias")}
    assert {name.rpartition(".")[2] for name in biased} == {"embed", "to_out", "0", "2", "head"}
    zero = {name for name, p in model.named_parameters() if not p.any()}
    assert zero == {name for name, _ in model.named_parameters() if name.endswith("bias") or name.startswith("head")}
    assert not any("norm_" in name for name, _ in model.pool.named_parameters())
    F.cross_entropy(model(**batch), torch.tensor([0, 1, 2, 3, 4, 0, 1])).backward()
    assert model.head.weight.grad.abs().sum() > 0


def test_initial_sizes():
    """Xavier for each of q, k and v by itself: bound sqrt(6 / (D + D)), not sqrt(6 / (D + 2 D)) for keys and values."""
    torch.manual_seed(0)
    model, bound = NaViT(NaViTConfig(dim=192, heads=3)), math.sqrt(6 / (2 * 192))
    for layer in (model.blocks[1].attention, model.pool.attention):
        for weight in (layer.to_q.weight, *layer.to_kv.weight.chunk(2), layer.to_out.weight):
            assert 0.99 * bound < weight.abs().max() <= bound
    assert 0.99 < model.blocks[0].mlp[0].weight.abs().max() / math.sqrt(6 / (5 * 192)) <= 1
    assert model.embed.weight.std().item() == pytest.approx(48**-0.5, rel=0.05)
    assert model.pool.query.std().item() == pytest.approx(192**-0.5, rel=0.2)


@pytest.mark.parametrize("config, dim, depth, heads", [
    (NaViTConfig.b16(), 768, 12, 12), (NaViTConfig.b16(classes=10, dim=1024, depth=24, heads=16), 1024, 24, 16),
])  # fmt: skip
def test_named_sizes(config, dim, depth, heads):
    """All weights accounted for. No count is published; ViT's layers less the biases, two tables, and the pooling."""
    with torch.device("meta"):
        count = sum(p.numel() for p in NaViT(config).parameters())
    mlp = (dim + 1) * 4 * dim + (4 * dim + 1) * dim
    layer = 4 * dim**2 + dim + mlp + 2 * dim + 2 * dim // heads
    pool = dim + 4 * dim**2 + dim + mlp + dim
    rest = (16 * 16 * 3 + 1) * dim + 2 * 64 * dim + dim + (dim + 1) * config.classes
    assert (config.heads, config.patch, count) == (heads, 16, depth * layer + pool + rest)


@triton_is_here
def test_both_backends_agree():
    run_apart("navit.py", TRITON_INTERPRET="1")


# ------------------------------------------------------------------------------------------------ dropping and resizing


@pytest.mark.parametrize("mean, largest", [(0.5, 1.0), (0.2, 0.8), (0.3, 0.4)])
def test_beta_rates_have_the_paper_s_moments(mean, largest):
    rng = Random(2)
    rates = [beta_rate(rng, mean, largest) for _ in range(20_000)]
    u = mean / largest
    variance = largest**2 * 0.3 * u * (1 - u)
    assert 0 <= min(rates) and max(rates) <= largest
    assert statistics.mean(rates) == pytest.approx(mean, abs=4 * math.sqrt(variance / 20_000))
    assert statistics.variance(rates) == pytest.approx(variance, rel=0.04)


def test_rates_by_size_lie_about_a_line():
    rng = Random(3)
    for tokens, mean in ((1, 0.1 + 0.6 / 100), (50, 0.4), (100, 0.7)):
        rates = [rate_by_size(rng, tokens, 100, 0.1, 0.7) for _ in range(4000)]
        assert statistics.mean(rates) == pytest.approx(mean, abs=4 * 0.02 / math.sqrt(4000))
        assert statistics.stdev(rates) == pytest.approx(0.02, rel=0.06)
    assert min(rate_by_size(rng, 1, 100, 0.0, 0.0, std=0.3) for _ in range(300)) >= 0


@pytest.mark.parametrize("first, last", [(0.8, 0.2), (0.2, 0.8), (0.5, 0.5), (1.0, 0.0)])
def test_rates_over_time_are_the_papers_sigmoid(first, last):
    """Equation by equation: the lower rate, plus what is between, times a sigmoid of (n - mu) / tau or of minus it."""
    low, high, sign = min(first, last), max(first, last), 1 if first <= last else -1
    for mu, tau in ((0.5, 0.1), (0.3, 0.02), (0.7, 1.5)):
        for n in (0.0, 0.1, mu, 0.7, 1.0):
            want = low + (high - low) / (1 + math.exp(-sign * (n - mu) / tau))
            assert rate_by_time(n, first, last, mu, tau) == pytest.approx(want, abs=1e-12)
    ends = [rate_by_time(n, first, last) for n in (0.0, 0.5, 1.0)]
    assert ends == pytest.approx([first, (first + last) / 2, last], abs=0.007)
    assert [rate_by_time(n, first, last, width=1e-9) for n in (0.0, 1.0)] == pytest.approx([first, last])


@pytest.mark.parametrize("tokens, rate, stay", [(10, 0.0, 10), (10, 0.25, 8), (7, 0.5, 4), (9, 1.0, 1), (1, 0.9, 1),
                                                (100, 0.333, 67)])  # fmt: skip
def test_how_many_stay(tokens, rate, stay):
    assert left(tokens, rate) == stay == len(keep(tokens, rate))


def test_which_tokens_stay_is_left_to_chance():
    generator = torch.Generator().manual_seed(4)
    counts = torch.zeros(12)
    for _ in range(3000):
        stay = keep(12, 0.75, generator)
        assert (stay.diff() > 0).all()  # in their order, none twice
        counts[stay] += 1
    assert counts.sum() == 9000
    assert (counts - 750).abs().max() < 4 * math.sqrt(3000 * 0.25 * 0.75)


def test_sides_are_the_paper_s():
    """u of N(-0.5, 1) on [-1, 1], laid on [64, 384]."""
    rng = Random(5)
    sides = [sample_side(rng) for _ in range(20_000)]
    assert 64 <= min(sides) < 66 and 380 < max(sides) <= 384
    normal = statistics.NormalDist(-0.5, 1)
    for u in (-0.7, -0.2, 0.4):
        want = (normal.cdf(u) - normal.cdf(-1)) / (normal.cdf(1) - normal.cdf(-1))
        side = 64 + (u + 1) / 2 * 320
        assert sum(s < side for s in sides) / 20_000 == pytest.approx(want, abs=4 * 0.5 / math.sqrt(20_000))
    assert all(16 <= sample_side(rng, 16, 17) <= 17 for _ in range(50))
    assert {truncated_normal(Random(k), 0, 1, -0.01, 0.01) < 0 for k in range(20)} == {True, False}


@pytest.mark.parametrize("size, side, patch, want", [
    ((480, 640), 64, 4, (56, 72)), ((640, 480), 64, 4, (72, 56)), ((100, 100), 224, 16, (224, 224)),
    ((1, 9), 12, 4, (4, 36)), ((9, 1), 3, 4, (8, 4)),
])  # fmt: skip
def test_resizing_keeps_the_proportions_and_the_area(size, side, patch, want):
    assert resized(size, side, patch) == want


# ----------------------------------------------------------------------------------------------------- contrastive loss


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_chunked_loss_is_chapter_04_s(chunk):
    images, texts = (F.normalize(numbers(7, 6, seed=k), dim=-1).requires_grad_() for k in range(2))
    scale = torch.tensor(14.0, dtype=torch.float64, requires_grad=True)
    inputs = (images, texts, scale)
    want = contrastive_loss(*inputs)
    got = chunked_contrastive_loss(*inputs, chunk)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_chunked_loss_keeps_no_table_of_logits():
    images, texts = (F.normalize(numbers(64, 8, seed=k), dim=-1).requires_grad_() for k in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        chunked_contrastive_loss(images, texts, 10.0, 4)
        most = max(kept, default=0)
        kept.clear()
        contrastive_loss(images, texts, 10.0)
    assert most <= 64 * 8 < 64 * 64 <= max(kept)


# -------------------------------------------------------------------------------------------------------------- errors


def ids(*rows):
    return torch.tensor(rows)


def fed(model, **changes):
    return model(**{**collate(pictures(), 4, 30), **changes})


def kept(*each):
    return collate([numbers(3, 8, 8)], 4, 8, [torch.tensor(stay, dtype=torch.long) for stay in each])


@pytest.mark.parametrize("make, says", [
    (lambda: pack([], 8), "sizes is empty"),
    (lambda: pack([3, (3, 3)], 8), r"sizes\[1\] is \(3, 3\), 9 tokens; it takes 1 to length, which is 8"),
    (lambda: pack([3, 0], 8), r"sizes\[1\] is 0"),
    (lambda: pack([(2, 0)], 8), r"sizes\[0\] is \(2, 0\)"),
    (lambda: pack([(-2, -3)], 8), r"sizes\[0\] is \(-2, -3\), 6 tokens; .* whole sides from 1"),
    (lambda: pack([3, (2, 2.5)], 8), r"sizes\[1\] is \(2, 2.5\), 5.0 tokens"),
    (lambda: pack([()], 8), r"sizes\[0\] is \(\), 1 tokens"),
    (lambda: collate([], 4, 8), "pictures is empty"),
    (lambda: collate([numbers(8, 8)], 4, 8), r"picture is \[8, 8\]; it takes \[channel, height, width\]"),
    (lambda: collate(pictures([(8, 10)]), 4, 8), "width is 10; it takes a multiple of the patch's 4"),
    (lambda: cut(numbers(3, 8, 8), 0), r"patch is \(1, 0, 0\); it takes whole numbers from 1"),
    (lambda: cut(numbers(3, 8, 8), 4.0), r"patch is \(1, 4.0, 4.0\)"),
    (lambda: collate([numbers(3, 4, 4), numbers(1, 4, 4)], 4, 8), "pictures are .*1 channels, .*3 channels; it takes"),
    (lambda: collate([numbers(3, 4, 4), numbers(3, 4, 4).half()], 4, 8), "pictures are .*float16 of .*float64 of"),
    (lambda: kept([0], [1]), "kept has indices for 2 pictures; there are 1"),
    (lambda: kept([4]), r"kept\[0\] is \[4\]; it takes indices from 0 to 3, each once"),
    (lambda: kept([0, -1]), r"kept\[0\] is \[0, -1\]"),
    (lambda: kept([1, 1]), r"kept\[0\] is \[1, 1\]"),
    (lambda: kept([]), r"kept\[0\] is \[\]"),
    (lambda: collate(pictures([(8, 16)]), 4, 7), "8 tokens; it takes 1 to length, which is 7"),
    (lambda: segments(ids(0, 1), 2), r"ids is \[2\]; it takes \[rows, length\]"),
    (lambda: segments(ids([0, 1, 0]), 2), r"ids has runs of the pictures \[0, 0, 1\]; it takes each of 0 to 1 in one"),
    (lambda: segments(ids([0, 0], [0, PAD]), 1), r"ids has runs of the pictures \[0, 0\]"),
    (lambda: segments(ids([0, 2]), 2), r"ids has runs of the pictures \[0, 2\]"),
    (lambda: segments(ids([0, -3]), 1), r"ids has runs of the pictures \[-3, 0\]"),
    (lambda: segments(ids([PAD, PAD]), 1), r"ids has runs of the pictures \[\]; it takes each of 0 to 0"),
    (lambda: fed(alive(), patches=numbers(3, 30, 12)), r"patches is \[3, 30, 12\]; with ids .* it takes .* 48\]"),
    (lambda: fed(alive(), sizes=torch.ones(9, 2).long()), "it takes each of 0 to 8 in one run, as many as sizes"),
    (lambda: fed(alive(), places=torch.zeros(3, 30, 3).long()), r"places is \[3, 30, 3\]; with ids .* 30, 2\]"),
    (lambda: fed(alive(), sizes=torch.ones(7, 3).long()), "sizes have 3 axes; there are tables for 2"),
    (lambda: fed(alive(), sizes=torch.ones(7).long()), r"sizes is \[7\]; it takes \[pictures, 2\]"),
    (lambda: fed(alive(), ids=torch.full((3, 30), PAD), sizes=torch.ones(0, 2)), r"sizes is \[0, 2\]; .* one picture"),
    (lambda: fed(alive(), patches=torch.zeros(3, 30, 48, dtype=torch.uint8)), "patches is torch.uint8; it takes"),
    (lambda: FactorisedPositions((3, 3), 8, "fractional")(ids([0, 2]), ids([2, 2])), "places: 1 lie outside"),
    (lambda: FactorisedPositions((3, 3), 8)(ids([-1, 0], [-1, -1]), ids([2, 2])), "places: 3 lie outside"),
    (lambda: FactorisedPositions((3, 3), 8, "relative"), "kind is 'relative'; it takes one of absolute, fractional"),
    (lambda: NaViT(NaViTConfig(positions="none")), "kind is 'none'"),
    (lambda: FactorisedPositions((3, 3), 8)(ids([0, 3]), ids([4, 4])), "places reach 3 on axis 1; absolute .* 0 to 2"),
    (lambda: FactorisedPositions((3, 3), 8)(ids([0, 0, 0]), ids([1, 1, 1])), "places have 3 axes; there are .* for 2"),
    (lambda: beta_rate(Random(0), 0.5, 0.5), "mean, largest: got 0.5, 0.5; takes 0 < mean < largest <= 1"),
    (lambda: beta_rate(Random(0), 0.5, 1.1), "mean, largest"),
    (lambda: rate_by_size(Random(0), 11, 10, 0.1, 0.5), "tokens is 11; it takes 1 to most, which is 10"),
    (lambda: rate_by_size(Random(0), 5, 10, 0.1, 1.0), "low, high: got 0.1, 1.0"),
    (lambda: rate_by_time(0.5, 1.1, 0.2), "first, last, width: got 1.1, 0.2, 0.1; takes rates from 0 to 1"),
    (lambda: rate_by_time(0.5, 0.1, -0.2), "first, last, width"),
    (lambda: rate_by_time(0.5, 0.1, 0.2, width=0.0), "first, last, width: got 0.1, 0.2, 0.0; .* a width above 0"),
    (lambda: left(5, 1.2), "tokens, rate: got 5, 1.2; takes tokens from 1 and a rate from 0 to 1"),
    (lambda: left(5, -0.1), "tokens, rate: got 5, -0.1"),
    (lambda: keep(0, 0.5), "tokens, rate: got 0, 0.5"),
    (lambda: keep(-2, 0.5), "tokens, rate: got -2, 0.5"),
    (lambda: truncated_normal(Random(0), 0, 1, 2, 1), "mean, std, low, high: got 0, 1, 2, 1"),
    (lambda: rate_by_size(Random(0), 5, 10, 0.1, 0.5, std=math.nan), "mean, std, low, high: got .* nan"),
    (lambda: sample_side(Random(0), 96, 32), "low, high: got 96, 32; takes 0 < low <= high"),
    (lambda: sample_side(Random(0), 0, 32), "low, high: got 0, 32"),
    (lambda: resized((0, 5), 32, 4), r"size, side, patch: got \(0, 5\), 32, 4; takes numbers above 0"),
    (lambda: resized((5, 5), 0, 4), "size, side, patch"),
    (lambda: resized((5, 5), math.inf, 4), "size, side, patch"),
    (lambda: resized((5, 5), 32, 0), "size, side, patch"),
    (lambda: chunked_contrastive_loss(numbers(3, 4), numbers(2, 4), 1.0, 2), r"images, texts, chunk: got \[3, 4\]"),
    (lambda: chunked_contrastive_loss(numbers(3, 4), numbers(3, 4), 1.0, 0), "images, texts, chunk"),
    (lambda: chunked_contrastive_loss(numbers(0, 4), numbers(0, 4), 1.0, 2), r"images, texts, chunk: got \[0, 4\]"),
    (lambda: chunked_contrastive_loss(numbers(4), numbers(4), 1.0, 2), r"images, texts, chunk: got \[4\]"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()
