"""Chapter 13's LLaVA against transformers' LlavaForConditionalGeneration with the same random weights.

transformers puts any language model behind the projector. OPT as its 350M model has it (a norm after each sum, ReLU) is
chapter 02's decoder without its attention to a source, once its positions are sinusoids and its attention's biases are
zero. The tower is a CLIP; the projector is LLaVA-1.5's, or LLaVA's if its second layer and GELU are taken out.
"""

import pytest
import torch

from soralab.clip import CLIPConfig, VisionTransformer
from soralab.llava import ASSISTANT, HUMAN, IMAGE, PROJECTIONS, STOP, LLaVA, LLaVAConfig, expand, grid, projector
from soralab.transformer import TransformerConfig, sinusoid

transformers = pytest.importorskip("transformers")

D, WIDTH, WORDS = 32, 128, 40
TEXT = TransformerConfig(vocabulary=WORDS, N=3, d_model=D, d_ff=48, h=4, d_k=8, d_v=8, P_drop=0.0)
TOWER = CLIPConfig(embed=16, image=32, layers=3, width=WIDTH, patch=8, head=64, text_width=64)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    assert b.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def randomised(model):
    """Every weight, also norms, which start at one or zero."""
    for seed, (name, value) in enumerate(model.named_parameters()):
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        scale = 0.3 if value.ndim < 2 else 1.5 * value[0].numel() ** -0.5
        value.copy_(start + scale * numbers(*value.shape, seed=seed))
    return model.eval()


def theirs_config():
    vision = transformers.CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=2, image_size=32,
        patch_size=8,
    )  # fmt: skip
    text = transformers.OPTConfig(
        vocab_size=WORDS, hidden_size=D, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=100, do_layer_norm_before=False, activation_function="relu", word_embed_proj_dim=D,
        dropout=0.0, attention_dropout=0.0, pad_token_id=0, bos_token_id=3, eos_token_id=STOP,
        initializer_range=0.02,  # some releases ask for it and have no default
    )  # fmt: skip
    return transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-2,
        vision_feature_select_strategy="default", projector_hidden_act="gelu", tie_word_embeddings=False,
    )  # fmt: skip


def tower_in_their_names(theirs, ours):
    """Their CLIP tower's weights in ours."""
    embeddings, state = theirs.embeddings, {}
    state["class_embedding"], state["conv1.weight"] = embeddings.class_embedding, embeddings.patch_embedding.weight
    state["positional_embedding"] = embeddings.position_embedding.weight
    for a, b in (("ln_pre", theirs.pre_layrnorm), ("ln_post", theirs.post_layernorm)):
        state |= {f"{a}.{kind}": getattr(b, kind) for kind in ("weight", "bias")}
    for k, layer in enumerate(theirs.encoder.layers):
        at = layer.self_attn
        for kind in ("weight", "bias"):
            state[f"blocks.{k}.attention.to_q.{kind}"] = getattr(at.q_proj, kind)
            keys_values = [getattr(part, kind) for part in (at.k_proj, at.v_proj)]
            state[f"blocks.{k}.attention.to_kv.{kind}"] = torch.cat(keys_values)
            for a, b in (("attention.to_out", at.out_proj), ("ln_1", layer.layer_norm1), ("ln_2", layer.layer_norm2),
                         ("mlp.0", layer.mlp.fc1), ("mlp.2", layer.mlp.fc2)):  # fmt: skip
                state[f"blocks.{k}.{a}.{kind}"] = getattr(b, kind)
    state["W_i.weight"] = ours.W_i.weight  # they have it elsewhere
    ours.load_state_dict(state)


@torch.no_grad()
def both(projection):
    """(their model, our tower, our model) with the same weights."""
    class Untied(transformers.LlavaForConditionalGeneration):
        _tied_weights_keys = None  # they name what OPT calls otherwise

    theirs = randomised(Untied(theirs_config()))
    ours, tower = LLaVA(LLaVAConfig(TEXT, WIDTH, projection)).eval(), VisionTransformer(TOWER).eval()
    model = theirs.model
    vision = getattr(model.vision_tower, "vision_model", model.vision_tower)
    tower_in_their_names(vision, tower)
    if projection == 1:
        model.multi_modal_projector.act = model.multi_modal_projector.linear_2 = torch.nn.Identity()
        ours.W.load_state_dict(model.multi_modal_projector.linear_1.state_dict())
    else:
        ours.W[0].load_state_dict(model.multi_modal_projector.linear_1.state_dict())
        ours.W[2].load_state_dict(model.multi_modal_projector.linear_2.state_dict())
    decoder = model.language_model.decoder
    ours.embedding.weight.copy_(theirs.lm_head.weight)
    decoder.embed_tokens.weight.copy_(ours.embedding.weight * D**0.5)  # ours multiplies as it embeds (1706.03762, 3.4)
    decoder.embed_positions.weight[2:].copy_(sinusoid(torch.arange(100), D))
    for mine, other in zip(ours.layers, decoder.layers, strict=True):
        at = other.self_attn
        for a, b in (("W_Q", at.q_proj), ("W_K", at.k_proj), ("W_V", at.v_proj), ("W_O", at.out_proj)):
            b.bias.zero_()
            getattr(mine.attention, a).weight.copy_(b.weight)
        for a, b in ((mine.norm1, other.self_attn_layer_norm), (mine.norm2, other.final_layer_norm),
                     (mine.ffn[0], other.fc1), (mine.ffn[2], other.fc2)):  # fmt: skip
            a.load_state_dict(b.state_dict())
    return theirs, tower, ours


IDS = torch.tensor([
    [HUMAN, IMAGE, 9, 17, 30, STOP, ASSISTANT, 31, 12, STOP, HUMAN, 8, STOP, ASSISTANT],
    [HUMAN, 9, 22, 5, 30, 11, IMAGE, STOP, ASSISTANT, 7, 12, STOP, HUMAN, 8],
])  # fmt: skip


@pytest.mark.parametrize("projection", [1, 2], ids=["LLaVA", "LLaVA-1.5"])
@torch.no_grad()
def test_transformers_weights_give_transformers_logits(projection):
    theirs, tower, ours = both(projection)
    pixels = numbers(2, 3, 32, 32, seed=3)
    Z = grid(tower, pixels)
    assert Z.shape == (2, 16, WIDTH)
    want = theirs(input_ids=expand(IDS, 16), pixel_values=pixels).logits
    assert (want[:, -1] - want[:, -1].roll(1, 0)).abs().max() > 0.1
    close(ours(IDS, Z[:, None]), want)
    close(ours.W(Z), torch.stack(list(theirs.get_image_features(pixel_values=pixels).pooler_output)))
    other = theirs(input_ids=expand(IDS, 16), pixel_values=pixels.roll(1, 0)).logits
    assert (other - want)[:, -1].abs().max() > 1e-2  # the picture counts


@torch.no_grad()
def test_the_wrong_layer_the_class_token_and_another_order_would_be_noticed():
    theirs, tower, ours = both(1)
    pixels = numbers(2, 3, 32, 32, seed=3)
    want = theirs(input_ids=expand(IDS, 16), pixel_values=pixels).logits
    Z = grid(tower, pixels)
    with_class = tower.states(pixels)[-2][:, :16]
    for wrong in (grid(tower, pixels, -1), grid(tower, pixels, -3), with_class, Z.flip(1), Z.roll(1, 0)):
        assert (ours(IDS, wrong[:, None]) - want).abs().max() > 1e-2


@torch.no_grad()
def test_two_pictures_in_a_row_are_taken_in_their_order():
    theirs, tower, ours = both(1)
    ids = torch.tensor([[HUMAN, IMAGE, 9, 17, IMAGE, STOP, ASSISTANT], [HUMAN, IMAGE, IMAGE, 7, 30, STOP, ASSISTANT]])
    pixels = numbers(4, 3, 32, 32, seed=4)
    Z = grid(tower, pixels).unflatten(0, (2, 2))
    close(ours(ids, Z), theirs(input_ids=expand(ids, 16), pixel_values=pixels).logits)


@torch.no_grad()
def test_words_come_one_by_one_as_generate_writes_them():
    """No word twice: of random weights the likeliest word is the last one again, for it has its own embedding."""
    theirs, tower, ours = both(2)
    pixels, ids = numbers(2, 3, 32, 32, seed=5), IDS[:, :9].clone()
    ids[0] = torch.tensor([HUMAN, 9, IMAGE, 14, 17, 30, 6, STOP, ASSISTANT])
    whole = expand(ids, 16)
    want = theirs.generate(input_ids=whole, pixel_values=pixels, max_new_tokens=8, do_sample=False, eos_token_id=None,
                           suppress_tokens=[0, IMAGE, STOP, HUMAN, ASSISTANT], no_repeat_ngram_size=1)  # fmt: skip
    answer, words, said = ours.begin(ids[:, :-1], grid(tower, pixels)[:, None]), ids[:, -1], whole
    for _ in range(8):
        log_p = answer.next(words).scatter(1, said, -torch.inf)
        log_p[:, STOP] = -torch.inf
        words = log_p.argmax(-1)
        said = torch.cat([said, words[:, None]], 1)
    assert torch.equal(said, want)


def test_the_published_projectors_and_the_whole_of_llava_15():
    want = {"LLaVA-7B": 4_198_400, "LLaVA-13B": 5_248_000, "LLaVA-1.5-7B": 20_979_712}
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in projector(*sizes).parameters()) for name, sizes in PROJECTIONS.items()}
        assert counts == want
        vision = transformers.CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14, projection_dim=768,
        )  # fmt: skip
        text = transformers.LlamaConfig(vocab_size=32_064, intermediate_size=11_008)
        sizes = transformers.LlavaConfig(vision_config=vision, text_config=text)
        whole = transformers.LlavaForConditionalGeneration(sizes)
        tower = VisionTransformer(CLIPConfig.published("ViT-L/14@336px"))
    assert sum(p.numel() for p in whole.parameters()) == 7_063_427_072
    theirs = sum(p.numel() for p in whole.model.vision_tower.parameters())
    assert theirs == 303_507_456
    assert sum(p.numel() for p in tower.parameters()) - tower.W_i.weight.numel() == theirs
    assert sum(p.numel() for p in whole.model.multi_modal_projector.parameters()) == want["LLaVA-1.5-7B"]
    assert (336 // 14) ** 2 == tower.positional_embedding.shape[0] - 1 == 576
