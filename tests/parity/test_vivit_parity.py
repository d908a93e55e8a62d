"""Chapter 08's Model 1 against transformers' ViViT with the same weights, and Models 3 and 4 against torch's own
multi-head attention under masks; no library has these two as the paper does."""

import pytest
import torch
from einops import rearrange
from torch import nn

from soralab.vivit import ViViT, ViViTConfig

SIZES = {  # (frames, image, tubelet, dim, depth, heads, classes)
    "B/16x2's proportions": (8, 32, (2, 8, 8), 48, 3, 4, 11),
    "long tubelets": (6, 24, (3, 12, 12), 32, 2, 2, 5),
    "uniform frames": (4, 16, (1, 8, 8), 32, 1, 4, 3),
}


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    assert b.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def randomise(model):
    """Every weight, also the class token, the positions and the head, and the norms, which start at one."""
    for seed, parameter in enumerate(model.parameters()):
        scale = 0.3 if parameter.ndim < 2 or 1 in parameter.shape[:1] else parameter[0].numel() ** -0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.eval()


def theirs(frames, image, tubelet, dim, depth, heads, classes):
    transformers = pytest.importorskip("transformers")
    config = transformers.VivitConfig(
        image_size=image, num_frames=frames, tubelet_size=list(tubelet), hidden_size=dim, num_hidden_layers=depth,
        num_attention_heads=heads, intermediate_size=4 * dim, hidden_act="gelu", num_labels=classes,
    )  # fmt: skip
    return randomise(transformers.VivitForVideoClassification(config))


PARTS = ("weight", "bias")
BEFORE_5 = {  # what transformers 4 calls them, and 5
    "encoder.layer.": "layers.", "attention.attention.query": "attention.q_proj", "attention.attention.key":
    "attention.k_proj", "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
}  # fmt: skip


def renamed(state, config):
    """transformers' weights under our names."""
    for old, new in BEFORE_5.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    kernel = state["vivit.embeddings.patch_embeddings.projection.weight"]
    found = {
        "embed.weight": rearrange(kernel, "d c t h w -> d (t h w c)"),
        "embed.bias": state["vivit.embeddings.patch_embeddings.projection.bias"],
        "class_token": state["vivit.embeddings.cls_token"].flatten(),
        "positions": state["vivit.embeddings.position_embeddings"][0],
    }
    pairs = {"norm": ["vivit.layernorm"], "head": ["classifier"]}
    for k in range(config.depth):
        ours, layer = f"blocks.{k}", f"vivit.layers.{k}"
        pairs |= {
            f"{ours}.norm1": [f"{layer}.layernorm_before"], f"{ours}.norm2": [f"{layer}.layernorm_after"],
            f"{ours}.attention.to_q": [f"{layer}.attention.q_proj"],
            f"{ours}.attention.to_kv": [f"{layer}.attention.k_proj", f"{layer}.attention.v_proj"],
            f"{ours}.attention.to_out": [f"{layer}.attention.o_proj"],
            f"{ours}.mlp.0": [f"{layer}.mlp.fc1"], f"{ours}.mlp.2": [f"{layer}.mlp.fc2"],
        }  # fmt: skip
    for ours, names in pairs.items():
        found |= {f"{ours}.{part}": torch.cat([state[f"{name}.{part}"] for name in names]) for part in PARTS}
    return found


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_model_1_is_transformers_vivit(size):
    model, config = theirs(*size), ViViTConfig(1, *size[:3], 3, *size[3:6], classes=size[6])
    ours = ViViT(config)
    ours.load_state_dict(renamed(model.state_dict(), config))
    films = numbers(3, size[0], 3, size[1], size[1], seed=90)
    close(ours.eval()(films), model(films).logits)


def test_model_1_has_as_many_weights():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.VivitForVideoClassification(transformers.VivitConfig(num_labels=400))
        ours = ViViT(ViViTConfig.b16x2())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in ours.parameters()) == 88_954_000


def torchs(layer, dim, heads):
    """torch's multi-head attention with the weights of ours."""
    made = nn.MultiheadAttention(dim, heads, batch_first=True).double()
    state = {
        "in_proj_weight": torch.cat([layer.to_q.weight, layer.to_kv.weight]),
        "in_proj_bias": torch.cat([layer.to_q.bias, layer.to_kv.bias]),
        "out_proj.weight": layer.to_out.weight, "out_proj.bias": layer.to_out.bias,
    }  # fmt: skip
    made.load_state_dict(state)
    return made


@torch.no_grad()
def test_models_3_and_4_are_masks_on_torchs_attention():
    """Within a moment and along time are masks over all tokens; Model 4 has one for each head."""
    config = ViViTConfig(3, 6, 12, (2, 4, 4), 3, 24, 2, 4, classes=5)
    times, places = torch.arange(27) // 9, torch.arange(27) % 9
    other_time, other_place = times[:, None] != times, places[:, None] != places  # torch: True = may not attend
    per_head = torch.stack([other_time, other_time, other_place, other_place]).repeat(2, 1, 1)  # batch of two
    films = numbers(2, 6, 3, 12, 12, seed=5).double()
    for number in (3, 4):
        model = randomise(ViViT(ViViTConfig(**{**vars(config), "model": number}))).double()
        z = model.tokens(films) + model.positions
        for block in model.blocks:
            x = block.norm1(z)
            mask = other_time if number == 3 else per_head
            z = z + torchs(block.attention, 24, 4)(x, x, x, attn_mask=mask, need_weights=False)[0]
            if number == 3:
                x = block.norm_t(z)
                z = z + torchs(block.attention_t, 24, 4)(x, x, x, attn_mask=other_place, need_weights=False)[0]
            z = z + block.mlp(block.norm2(z))
        close(model(films), model.head(model.norm(z).mean(1)))
