"""Chapter 02: the paper's encoder-decoder, its tables and equations, and how it writes."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tiny_transformer import TINY, some_ids, tiny

from soralab.training.data import training_flops
from soralab.training.ema import average_checkpoints
from soralab.transformer import (
    PAD,
    EncoderLayer,
    MultiHeadAttention,
    Transformer,
    TransformerConfig,
    beam_search,
    causal_mask,
    label_smoothing_loss,
    noam,
    padding_mask,
    sinusoid,
)


@pytest.fixture(scope="module")
def model():
    return tiny()


# ------------------------------------------------------------------------------------------------ the paper's tables


def parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(config).parameters())


def attention_biases(config):
    """How many parameters biases in the projections of attention would add."""
    return 3 * config.N * (2 * config.h * config.d_k + config.h * config.d_v + config.d_model)


def test_table_3_comes_out_right_for_one_vocabulary():
    """And, so that nobody takes the table for a proof that attention has no biases, for another one with them."""
    rows = [(config, parameters(config), printed) for config, printed in TransformerConfig.table3(1000).values()]
    assert len(rows) == 10

    def all_right(vocabulary, biases):
        grown = [(count + (vocabulary - 1000) * c.d_model + biases * attention_biases(c), p) for c, count, p in rows]
        return all(abs(count - printed * 1e6) <= 0.5e6 for count, printed in grown)

    for biases, low, high in ((False, 41_004, 41_208), (True, 40_932, 41_160)):
        assert [all_right(v, biases) for v in (low - 1, low, high, high + 1)] == [False, True, True, False]


def test_big_has_213_million_with_a_smaller_vocabulary():
    count = parameters(TransformerConfig.big(36_000))
    assert [round((count + more * 1024) / 1e6) for more in (-632, 0, 344, 5_106)] == [213, 213, 213, 218]
    assert round(parameters(TransformerConfig.base(37_000)) / 1e6) == 63  # not the 65 of Table 3


@pytest.mark.parametrize("h", [1, 4, 16, 32])
def test_rows_a_of_table_3_have_as_many_parameters_as_base(h):
    row = TransformerConfig(37_000, h=h, d_k=512 // h, d_v=512 // h)
    assert parameters(row) == parameters(TransformerConfig.base()) == 44_101_632 + 37_000 * 512


def test_the_papers_sizes():
    """Section 3 and Table 3 name them; counts of parameters do not tell heads apart."""
    base, big = TransformerConfig.base(), TransformerConfig.big(36_000)
    assert base == TransformerConfig(37_000, N=6, d_model=512, d_ff=2048, h=8, d_k=64, d_v=64, P_drop=0.1)
    assert big == TransformerConfig(36_000, N=6, d_model=1024, d_ff=4096, h=16, d_k=64, d_v=64, P_drop=0.3)
    small = TransformerConfig.small(150, N=2)
    assert small == TransformerConfig(150, N=2, d_model=128, d_ff=512, h=4, d_k=32, d_v=32, P_drop=0.1)
    for name, (config, _) in TransformerConfig.table3(1000).items():
        for said in name.partition(") ")[2].split(", "):
            key, _, value = said.partition(" = ")
            assert not said or getattr(config, key) == int(value), name
        assert config.h == 8 and config.vocabulary == 1000 and config.P_drop == 0.1


def test_table_2s_training_costs():
    assert f"{training_flops(hours=12):.1e}" == "3.3e+18"
    assert f"{training_flops(hours=3.5 * 24):.1e}" == "2.3e+19"


# ----------------------------------------------------------------------------------------------------- the equations


@pytest.mark.parametrize("d_model", [2, 6, 16])
def test_sinusoids_letter_by_letter(d_model):
    table = sinusoid(torch.arange(50), d_model)
    for pos, i in itertools.product((0, 1, 7, 49), range(d_model // 2)):
        angle = pos / 10_000 ** (2 * i / d_model)
        assert table[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[pos, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_shift_of_position_is_one_rotation():
    """Section 3.5: PE(pos + k) is a linear function of PE(pos), the same for every pos."""
    table, k = sinusoid(torch.arange(60), 8).double(), 7
    before, after = table[:40], table[k : 40 + k]
    for i in range(4):  # each pair of channels turns by k times its own frequency
        angle = k / 10_000 ** (2 * i / 8)
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
        pair = [2 * i, 2 * i + 1]
        torch.testing.assert_close(before[:, pair] @ turn, after[:, pair], rtol=0, atol=1e-5)


def test_a_query_sees_itself_and_what_came_before():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_multi_head_attention_head_by_head():
    """Section 3.2.2 with its matrices, one head at a time."""
    torch.manual_seed(0)
    layer, x, memory = MultiHeadAttention(TINY), torch.randn(1, 3, 16), torch.randn(1, 5, 16)
    mask = torch.tensor([True, True, False, True, False])
    heads = []
    for i in range(TINY.h):
        q = x[0] @ layer.W_Q.weight[5 * i : 5 * (i + 1)].T
        k = memory[0] @ layer.W_K.weight[5 * i : 5 * (i + 1)].T
        v = memory[0] @ layer.W_V.weight[4 * i : 4 * (i + 1)].T
        logits = (q @ k.T / math.sqrt(5)).masked_fill(~mask, -math.inf)
        heads.append(logits.softmax(-1) @ v)
    expected = torch.cat(heads, dim=-1) @ layer.W_O.weight.T
    torch.testing.assert_close(layer(x, *layer.keys_values(memory), mask)[0], expected, rtol=1e-5, atol=1e-6)


def test_every_sublayer_is_add_then_norm():
    """Section 3.1, LayerNorm(x + Sublayer(x)): what leaves is normalised, and where nothing is added the norms act."""
    torch.manual_seed(0)
    layer, x = EncoderLayer(TINY), 5 * torch.randn(2, 4, 16) + 3
    mask = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    out = layer.eval()(x, mask)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(-1, unbiased=False), torch.ones(2, 4), rtol=0, atol=1e-3)
    layer.attention.W_O.weight.data.zero_()
    layer.ffn[2].weight.data.zero_()
    layer.ffn[2].bias.data.zero_()
    twice = F.layer_norm(F.layer_norm(x, (16,)), (16,))
    torch.testing.assert_close(layer(x, mask), twice)


def test_the_feed_forward_layer_is_eq_2(model):
    ffn, x = model.encoder[0].ffn, torch.randn(5, 16)
    expected = (x @ ffn[0].weight.T + ffn[0].bias).clamp(min=0) @ ffn[2].weight.T + ffn[2].bias
    torch.testing.assert_close(ffn(x), expected)


def test_one_matrix_embeds_and_makes_the_logits(model):
    """Section 3.4: changed in one place, it changes source, target and logits; embeddings are times sqrt(d_model)."""
    ids = some_ids(2, 5)
    places = sinusoid(torch.arange(5), 16)
    torch.testing.assert_close(model.embed(ids), 4 * model.embedding.weight[ids] + places)
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes.count((12, 16)) == 1
    y, seen = torch.randn(2, 1, 16), []
    handle = model.decoder[-1].register_forward_hook(lambda *args: seen.append(args[2]) or y)
    logits = model(ids, ids[:, :1])
    handle.remove()
    torch.testing.assert_close(logits, y @ model.embedding.weight.T)


def test_dropout_falls_on_sums_of_embeddings_and_on_every_sublayer():
    """Section 5.4. At a rate of 1 nothing of them is left: embeddings are 0, a layer is its norms alone."""
    model = tiny(P_drop=1.0).train()
    ids, x = some_ids(2, 5), torch.randn(2, 5, 16)
    assert not model.embed(ids).any()
    encoder, decoder = model.encoder[0], model.decoder[0]
    torch.testing.assert_close(encoder(x, padding_mask(ids)), encoder.norm2(encoder.norm1(x)))
    own, memory = decoder.attention.keys_values(x), decoder.cross.keys_values(torch.randn(2, 5, 16))
    out = decoder(x, own, memory, causal_mask(5), padding_mask(ids))
    torch.testing.assert_close(out, decoder.norm3(decoder.norm2(decoder.norm1(x))))


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_dropout_has_the_rate_of_the_sizes_and_is_off_in_evaluation(rate):
    model, ids = tiny(P_drop=rate, vocabulary=50, d_model=64), some_ids(40, 30, vocabulary=50)
    torch.manual_seed(0)
    whole = model.embed(ids)
    assert torch.equal(model.embed(ids), whole)  # in evaluation
    kept = model.train().embed(ids)
    assert (kept == 0).float().mean().item() == pytest.approx(rate, abs=0.01)  # of 76,800 numbers
    torch.testing.assert_close(kept[kept != 0], whole[kept != 0] / (1 - rate))
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {rate}


def test_weights_begin_as_xaviers_and_embeddings_with_variance_1():
    """Bounds of the uniform distribution are sqrt(6 / (in + out)); embeddings are times sqrt(d_model) before use."""
    torch.manual_seed(3)
    model = Transformer(TransformerConfig(400, N=1, d_model=64, d_ff=96, h=2, d_k=40, d_v=24))
    for name, weight in model.named_parameters():
        if name == "embedding.weight":
            assert (8 * weight).std().item() == pytest.approx(1, abs=0.02)
        elif weight.ndim == 2:
            bound = math.sqrt(6 / sum(weight.shape))
            assert 0.97 * bound < weight.abs().max() <= bound and weight.std().item() == pytest.approx(
                bound / math.sqrt(3), rel=0.05), name  # fmt: skip
        else:
            assert torch.equal(weight, torch.full_like(weight, float("norm" in name and name.endswith("weight")))), name


# ----------------------------------------------------------------------------------------------------------- training


def test_noam_rises_to_its_peak_and_falls():
    rates = [noam(step, 512) for step in range(1, 20_001)]
    assert max(rates) == rates[3999] == pytest.approx(6.99e-4, rel=1e-3)
    assert rates[999] == pytest.approx(rates[3999] / 4)  # linear before
    assert rates[15_999] == pytest.approx(rates[3999] / 2)  # 1 / sqrt(step) after
    assert noam(7, 64, 10) == pytest.approx(64**-0.5 * 7 * 10**-1.5)
    with pytest.raises(ValueError, match="step is 0; it takes a whole number from 1"):
        noam(0, 512)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_label_smoothing_is_torchs(epsilon):
    torch.manual_seed(1)
    logits, target = 3 * torch.randn(4, 7, 12), some_ids(4, 7)
    target[1:, 4:] = PAD
    theirs = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, label_smoothing=epsilon)
    torch.testing.assert_close(label_smoothing_loss(logits, target, epsilon), theirs)


def test_label_smoothing_of_the_papers_code_is_ours_with_another_epsilon():
    """tensor2tensor spreads e over the V - 1 others: KL to its q is ours at epsilon = e V / (V - 1)."""
    torch.manual_seed(1)
    logits, target, V, e = torch.randn(3, 4, 12).double(), some_ids(3, 4), 12, 0.1
    q = torch.full((3, 4, V), e / (V - 1)).double().scatter_(-1, target[..., None], 1 - e)
    theirs = -(q * logits.log_softmax(-1)).sum(-1).mean()
    ours = label_smoothing_loss(logits, target, e * V / (V - 1))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
    assert abs(label_smoothing_loss(logits, target, e) - theirs) > 1e-3


def test_label_smoothing_is_least_at_the_smoothed_distribution():
    epsilon, V, target = 0.1, 12, torch.tensor([[5]])
    q = torch.full((1, 1, V), epsilon / V)
    q[..., 5] += 1 - epsilon
    best = label_smoothing_loss(q.log(), target, epsilon)
    torch.testing.assert_close(best, -(q * q.log()).sum())
    for sharper in (1.5, 3.0):
        assert label_smoothing_loss(sharper * q.log(), target, epsilon) > best + 1e-3


def test_checkpoint_averaging_is_the_mean_name_by_name():
    states = [tiny(seed).state_dict() for seed in range(3)]
    mean = average_checkpoints(states)
    assert mean.keys() == states[0].keys()
    for name in mean:
        torch.testing.assert_close(mean[name], (states[0][name] + states[1][name] + states[2][name]) / 3)
    with pytest.raises(ValueError, match="states holds 0 checkpoints"):
        average_checkpoints([])
    with pytest.raises(ValueError, match="all of the same names"):
        average_checkpoints([states[0], {}])


# ------------------------------------------------------------------------------------------------- who sees what


def test_the_jacobian_of_the_decoder_is_lower_triangular():
    """Logits at j move with the target's word k if and only if k <= j."""
    model, places = tiny(), torch.randn(1, 6, 16, requires_grad=True)
    source = some_ids(1, 4)
    memory = model.encode(source).detach()
    writing = model.begin(source)
    writing.memory = [layer.cross.keys_values(memory) for layer in model.decoder]
    model.embed = lambda ids, start=0: places
    logits = model.decode(some_ids(1, 6), writing)
    moved = torch.zeros(6, 6, dtype=torch.bool)
    for j in range(6):
        (gradient,) = torch.autograd.grad(logits[0, j].square().sum(), places, retain_graph=True)
        moved[j] = gradient[0].abs().sum(-1) > 0
    assert torch.equal(moved, torch.ones(6, 6, dtype=torch.bool).tril())


def test_the_encoder_looks_both_ways(model):
    source = some_ids(1, 6)
    other = source.clone()
    other[0, 3] = 3 + (other[0, 3] - 2) % 9
    moved = (model.encode(source) - model.encode(other)).abs().amax(-1)[0] > 1e-4
    assert moved.all()


@torch.no_grad()
def test_a_sentence_packed_with_longer_ones_is_translated_the_same(model):
    short, long, target = some_ids(1, 3), some_ids(1, 9, seed=1), some_ids(2, 4, seed=2)
    source = torch.cat([F.pad(short, (0, 6), value=PAD), long])
    alone = model(short, target[:1])
    together = model(source, target)
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-6)
    ours = beam_search(model, source, max_length=8)
    assert ours[0].ids == beam_search(model, short, max_length=8)[0].ids
    assert ours[1].ids == beam_search(model, long, max_length=8)[0].ids


@torch.no_grad()
def test_padding_in_the_target_changes_no_word_before_it(model):
    source, target = some_ids(2, 5), some_ids(2, 6, seed=3)
    padded = target.clone()
    padded[:, 4:] = PAD
    torch.testing.assert_close(model(source, padded)[:, :4], model(source, target)[:, :4])


@torch.no_grad()
def test_attention_maps_are_what_the_layers_used(model):
    source, target = some_ids(2, 5), some_ids(2, 4, seed=1)
    source[0, 3:] = PAD
    seen = []
    hooks = [layer.cross.register_forward_hook(lambda *args: seen.append(args[1:])) for layer in model.decoder]
    model(source, target)
    for hook in hooks:
        hook.remove()
    maps = model.attention_maps(source, target)
    assert maps.shape == (2, 2, 2, 4, 5)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 2, 4))
    assert not maps[:, 0, ..., 3:].any() and maps[:, 1, ..., 3:].all()
    for layer, used, ((_, _, v, _), out) in zip(model.decoder, maps, seen, strict=True):
        mixed = (used @ v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(layer.cross.W_O(mixed), out, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("source, target, message", [
    (torch.zeros(2, 3), some_ids(2, 3), r"source is torch.float32 \[2, 3\]; it takes whole numbers \[batch, words\]"),
    (some_ids(1, 3)[0], some_ids(3, 3), r"source is torch.int64 \[3\]"),
    (some_ids(2, 3), torch.zeros(2, 0, dtype=torch.long), r"target is torch.int64 \[2, 0\]"),
    (some_ids(2, 3), some_ids(2, 3) + 9, r"target holds \d+ to \d+; it takes 0 to 11"),
    (some_ids(2, 3), torch.tensor([[3, 12, 4], [3, 4, 5]]), "target holds 3 to 12; it takes 0 to 11"),
    (some_ids(2, 3), torch.tensor([[3, -1, 4], [3, 4, 5]]), "target holds -1 to 5; it takes 0 to 11"),
    (some_ids(2, 3), some_ids(3, 3), "target has 3 rows; it takes as many as source, which has 2"),
])
def test_mistakes_are_named(model, source, target, message):
    with pytest.raises(ValueError, match=message):
        model(source, target)


def test_other_mistakes_are_named(model):
    with pytest.raises(ValueError, match=r"target is \[2, 4\]; it takes the shape \[2, 3\] of the logits"):
        label_smoothing_loss(torch.zeros(2, 3, 12), some_ids(2, 4))
    with pytest.raises(ValueError, match="beam is 0; it takes a whole number from 1"):
        beam_search(model, some_ids(1, 3), beam=0)
