"""Chapter 04's CLIP against open_clip's and transformers' with the same random weights, and the tokenizers."""

import re

import pytest
import torch

from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP, contrastive_loss

TEXT = {"context_length": 12, "vocab_size": 96, "width": 128, "heads": 2, "layers": 2}
VISION = {  # open_clip's description of the image tower
    "ViT": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
    "ViT, one head": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
    "ResNet": {"image_size": 64, "layers": [2, 1, 3, 1], "width": 8},
}
TEXTS = (
    "a photo of a cat", "The CAT's 2 mats, 12 o'clock!", "naïve café — 你好 १२ ½ 🙂", "a &amp;amp; b &lt;3", "",
    "don't WE'LL i'd", "snake_case  and\tmore\n(brackets)?!'s", "x" * 70, "v²x ⅷ",
)  # fmt: skip


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    assert b.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def randomise(model):
    """Every weight, also norms, which start at one or zero, and the running statistics of batch norms."""
    for seed, (name, value) in enumerate([*model.named_parameters(), *model.named_buffers()]):
        if not value.is_floating_point() or "mask" in name:
            continue
        if "running_var" in name:
            value.copy_(0.5 + numbers(*value.shape, seed=seed).abs())
        elif name.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            value.copy_(1 + 0.3 * numbers(*value.shape, seed=seed))
        else:
            gain = 1.4 if value.ndim == 4 else 0.9  # convolutions behind a ReLU: else the picture is lost on the way
            scale = 0.3 if value.ndim < 2 else gain * value[0].numel() ** -0.5
            value.copy_(scale * numbers(*value.shape, seed=seed))
    model.logit_scale.fill_(2.0)
    return model.eval()


def open_clips(kind):
    open_clip = pytest.importorskip("open_clip.model")
    return randomise(open_clip.CLIP(64, VISION[kind], TEXT, quick_gelu=True))


def inputs(kind, seed=90):
    side = VISION[kind]["image_size"]
    ids = torch.randint(1, 90, (3, 12), generator=torch.Generator().manual_seed(seed))
    for row, place in enumerate((5, 11, 2)):  # the end of text, and something behind it
        ids[row, place] = 95
    return numbers(3, 3, side, side, seed=seed), ids


@pytest.mark.parametrize("kind", VISION)
@torch.no_grad()
def test_open_clips_weights_give_open_clips_output(kind):
    theirs = open_clips(kind)
    ours = CLIP.from_openai(theirs.state_dict()).eval()
    pixels, ids = inputs(kind)
    features = theirs.encode_image(pixels)
    assert (features - features.roll(1, 0)).abs().max() > 0.03 * features.abs().max()  # the picture counts
    close(ours.encode_image(pixels), theirs.encode_image(pixels, normalize=True))
    close(ours.encode_text(ids), theirs.encode_text(ids, normalize=True))
    close(ours.image(pixels), theirs.encode_image(pixels))
    close(ours(pixels, ids), theirs.get_logits(pixels, ids)[0])


@torch.no_grad()
def test_plain_gelu_would_be_noticed():
    theirs = open_clips("ViT")
    other = pytest.importorskip("open_clip.model").CLIP(64, VISION["ViT"], TEXT, quick_gelu=False).eval()
    other.load_state_dict(theirs.state_dict())
    pixels, _ = inputs("ViT")
    ours = CLIP.from_openai(theirs.state_dict()).image(pixels)
    assert (ours - other.encode_image(pixels)).abs().max() > 1e-3


@torch.no_grad()
def test_a_published_archive_is_in_half_precision_and_holds_three_numbers_more():
    theirs = open_clips("ViT")
    state = {key: value.half() for key, value in theirs.state_dict().items() if value.is_floating_point()}
    extra = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(12), "vocab_size": torch.tensor(96)}
    ours = CLIP.from_openai({**state, **extra})
    assert ours.t.dtype == torch.float32 and ours.image.conv1.weight.dtype == torch.float32
    pixels, ids = inputs("ViT")
    torch.testing.assert_close(ours(pixels, ids), theirs.get_logits(pixels, ids)[0], rtol=0.02, atol=0.02)


@torch.no_grad()
def test_the_weights_are_copies():
    theirs = open_clips("ViT")
    ours = CLIP.from_openai(theirs.state_dict())
    pixels, ids = inputs("ViT")
    before = ours(pixels, ids)
    for parameter in theirs.parameters():
        parameter.zero_()
    assert torch.equal(ours(pixels, ids), before)


@pytest.mark.parametrize("spoil, says", [
    (lambda s: s.pop("text_projection"), "state has no text_projection; it takes the weights of a CLIP"),
    (lambda s: s.pop("ln_final.bias"), "^state: lacks ln_final.bias$"),
    (lambda s: s.update({"visual.ln_post.weight": torch.zeros(7)}), r"^state: visual.ln_post.weight is \[7\]; .*128"),
    (lambda s: s.update({"visual.extra": torch.zeros(7)}), "^state: has visual.extra, which a CLIP has not$"),
])  # fmt: skip
def test_other_weights_are_refused_by_name(spoil, says):
    state = dict(open_clips("ViT").state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=says):
        CLIP.from_openai(state)


def in_openais_names(state):
    """transformers' weights under the published names."""
    rules = (
        (r"^text_model\.embeddings\.(token_embedding)\.", r"\1."),
        (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
        (r"^vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
        (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
        (r"^vision_model\.pre_layrnorm", "visual.ln_pre"),
        (r"^vision_model\.post_layernorm", "visual.ln_post"), (r"^text_model\.final_layer_norm", "ln_final"),
        (r"^vision_model\.encoder\.layers", "visual.transformer.resblocks"),
        (r"^text_model\.encoder\.layers", "transformer.resblocks"), (r"layer_norm(\d)", r"ln_\1"),
        (r"self_attn\.out_proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
        (r"^visual_projection\.weight", "visual.proj"), (r"^text_projection\.weight", "text_projection"),
    )  # fmt: skip
    found = {}
    for key, value in state.items():
        if "position_ids" in key or ".k_proj." in key or ".v_proj." in key:
            continue
        name = key
        for pattern, by in rules:
            name = re.sub(pattern, by, name)
        if ".q_proj." in key:
            name = name.replace("self_attn.q_proj.", "attn.in_proj_")
            value = torch.cat([state[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
        found[name] = value.T if key in ("visual_projection.weight", "text_projection.weight") else value
    return found


@torch.no_grad()
def test_transformers_weights_give_transformers_output():
    transformers = pytest.importorskip("transformers")
    text = {"vocab_size": 96, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 95, "bos_token_id": 94,
            "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    theirs = randomise(transformers.CLIPModel(transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=64,
    )))  # fmt: skip
    ours = CLIP.from_openai(in_openais_names(theirs.state_dict())).eval()
    pixels, ids = inputs("ViT")
    want = theirs(input_ids=ids, pixel_values=pixels)
    close(ours.encode_image(pixels), want.image_embeds)
    close(ours.encode_text(ids), want.text_embeds)
    close(ours(pixels, ids), want.logits_per_image)
    close(ours.text(ids)[0], want.text_model_output.last_hidden_state)  # every token's vector, not the last alone


def test_the_loss_is_open_clips():
    loss = pytest.importorskip("open_clip.loss").ClipLoss()
    I_e, T_e = (torch.nn.functional.normalize(numbers(9, 16, seed=seed), dim=-1) for seed in (1, 2))
    scale = torch.tensor(14.0)
    close(contrastive_loss(I_e, T_e, scale), loss(I_e, T_e, scale))


def test_the_published_vocabulary_cuts_as_open_clip_does():
    tokenizer = pytest.importorskip("open_clip.tokenizer")
    ours, theirs = Tokenizer.published(tokenizer.default_bpe()), tokenizer.SimpleTokenizer()
    assert len(ours) == 49_408 and (ours.start, ours.end) == (49_406, 49_407)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(tokenizer.get_clean_fn("lower")(text)), text
    short = [text for text in TEXTS if len(ours.encode(text)) <= 75]
    assert len(short) >= 8 and torch.equal(ours(short), theirs(short))
