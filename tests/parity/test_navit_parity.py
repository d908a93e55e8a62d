"""Chapter 07's NaViT against timm's NaFlexViT with the same weights: positions, normed queries and keys, pooling."""

import pytest
import torch

from soralab.navit import NaViT, NaViTConfig, collate, cut

CONFIG = NaViTConfig(patch=4, dim=48, depth=3, heads=3, classes=7, grid=(6, 6), positions="fractional")
SIZES = ((24, 24), (12, 28), (40, 8), (4, 4), (16, 20))


NAMES = {  # timm's: ours, in the order in which they are replaced
    "embeds.proj": "embed", "attn.proj": "attention.to_out", "attn.q_norm": "attention.norm_q",
    "attn.k_norm": "attention.norm_k", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2", "attn_pool.q.": "pool.attention.to_q.",
    "attn_pool.kv.": "pool.attention.to_kv.", "attn_pool.proj": "pool.attention.to_out", "attn_pool.": "pool.",
    "latent": "query",
}  # fmt: skip


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def timms():
    """timm's, all weights random and its biases zero where the paper has none, and ours with the same weights."""
    naflex = pytest.importorskip("timm.models.naflexvit")
    config = naflex.NaFlexVitCfg(
        patch_size=4, embed_dim=48, depth=3, num_heads=3, qkv_bias=False, qk_norm=True, pos_embed="factorized",
        pos_embed_grid_size=(6, 6), global_pool="map", fc_norm=False,
    )  # fmt: skip
    theirs = naflex.NaFlexVit(config, num_classes=7).eval()
    with torch.no_grad():
        for seed, (name, value) in enumerate(theirs.named_parameters()):
            table = value.ndim < 2 or "pos_embed" in name or "latent" in name
            value.copy_((0.3 if table else value.shape[1] ** -0.5) * numbers(*value.shape, seed=seed))
            if "norm" in name and name.endswith("weight"):
                value.add_(1)
            if name.endswith("bias") and ("norm" in name or "pool.q." in name or "pool.kv." in name):
                value.zero_()
    return theirs, translated(theirs)


def translated(theirs):
    """timm's weights under our names; what is left over would be an error."""
    ours = NaViT(CONFIG).eval()
    state = {}
    for key, value in theirs.state_dict().items():
        if key.endswith("bias") and not value.any():
            continue
        if "pos_embed" in key:
            state[f"positions.tables.{'yx'.index(key[-1])}"] = value[0]
            continue
        if "attn.qkv" in key:
            to = key.replace("attn.qkv", "attention.to_{}")
            state[to.format("q")], state[to.format("kv")] = value.split([48, 96])
            continue
        for old, new in NAMES.items():
            key = key.replace(old, new)
        state[key] = value.flatten() if key.endswith("query") else value
    ours.load_state_dict(state)
    return ours


@torch.no_grad()
def test_timms_weights_give_timms_output():
    """Ours packed, timm's padded: the same logits for pictures of five sizes."""
    theirs, ours = timms()
    pictures = [numbers(3, *size, seed=50 + k) for k, size in enumerate(SIZES)]
    pieces = [cut(picture, 4) for picture in pictures]
    longest = max(len(patches) for patches, _ in pieces)
    patches, places = torch.zeros(5, longest, 48), torch.zeros(5, longest, 2).long()
    valid = torch.zeros(5, longest).bool()
    for k, (values, where) in enumerate(pieces):
        patches[k, : len(values)], places[k, : len(values)], valid[k, : len(values)] = values, where, True
    want = theirs({"patches": patches, "patch_coord": places, "patch_valid": valid})
    assert want.abs().max() > 0.1
    torch.testing.assert_close(ours(**collate(pictures, 4, 64)), want, rtol=1e-5, atol=1e-5)
