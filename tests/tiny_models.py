"""Models of chapter 16 that are small enough for a test: made in milliseconds, and saved as checkpoints."""

from dataclasses import asdict

import torch
from torch import nn

from soralab.files.checkpoints import save_checkpoint
from soralab.sora import AutoencoderConfig, Filmmaker, Sora, SoraConfig, SpacetimeAutoencoder

SORA = SoraConfig(dim=16, depth=2, heads=2, size=(5, 4, 4))  # in latents: films of 9 x 16 x 16
PIXELS = SoraConfig.pixels(dim=16, depth=1, heads=2, size=(9, 16, 16))
AUTOENCODER = AutoencoderConfig(width=8)
PROMPT = "a small red circle slides right"
OTHER = "a large blue square quickly slides down and left on a black background"


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every weight anew, so that what starts at zero (gates, heads) hides nothing."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.normal_(std=0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5, generator=generator)
    return module.eval()


def tiny_sora(config: SoraConfig = SORA) -> Sora:
    return randomise(Sora(config), 1)


def tiny_autoencoder() -> SpacetimeAutoencoder:
    return randomise(SpacetimeAutoencoder(AUTOENCODER), 2)


def save_autoencoder(folder, name="sora_autoencoder"):
    model = tiny_autoencoder()
    return save_checkpoint(folder / name, model.state_dict(), {"config": asdict(model.config)})


def save_sora(folder, name="sora", config=SORA, autoencoder="sora_autoencoder", kind="v", shift=1.0, level="simple"):
    card = {"config": asdict(config), "autoencoder": autoencoder, "kind": kind, "shift": shift}
    card |= {"level": level} if level else {}
    return save_checkpoint(folder / name, tiny_sora(config).state_dict(), card)


def save_all(folder) -> None:
    """The three checkpoints that the course ships, in small."""
    save_autoencoder(folder)
    save_sora(folder)
    save_sora(folder, "sora_pixels", PIXELS, autoencoder=None, kind="x", shift=2.0)


def tiny_maker() -> Filmmaker:
    return Filmmaker(tiny_sora(), tiny_autoencoder())


def damage(path, how: str) -> None:
    """Do to the checkpoint whose tensors are `path` what readers and disks do."""
    data, card = path.read_bytes(), path.with_suffix(".json")
    text = card.read_text(encoding="utf-8")
    if "missing" in how:
        for file in {"missing": (path, card), "tensors missing": (path,), "card missing": (card,)}[how]:
            file.unlink()
    elif how == "card truncated":
        card.write_text(text[:40], encoding="utf-8")
    elif how == "card of another model":
        card.write_text(text.replace('"config"', '"sizes"'), encoding="utf-8")
    else:
        halves = {"truncated": data[: len(data) // 2], "altered": data[:-1] + bytes([data[-1] ^ 1]), "empty": b""}
        path.write_bytes(halves[how])
