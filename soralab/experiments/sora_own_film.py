"""`soralab patches`: a film of the reader's own, cut into spacetime patches, compressed and rebuilt."""

from __future__ import annotations

import io

from PIL import Image

from soralab.experiments.sora_autoencoder import psnr, reconstruct
from soralab.figures import before_after, patches_diagram
from soralab.files.films import read_film
from soralab.sora import SoraConfig, load_autoencoder

SHOWN = 5  # frames of the film that the picture shows


def own_film(path: str, frames: int = 17, height: int = 64) -> tuple[str, bytes]:
    """Read `frames` frames (odd) of a film, scaled to `height`; returns (a report, a PNG).

    The picture has the film in patches above, and below it the film, its reconstruction and the error. Raises what
    `soralab.files.films.read_film` raises.
    """
    film = read_film(path, frames=frames, height=height)
    film = film[..., : film.shape[-1] // 8 * 8]
    if not film.numel():
        raise ValueError(f"{path} is too narrow, at {height} pixels of height not one patch fits: give more height")
    autoencoder = load_autoencoder()
    copy = reconstruct(autoencoder, film[None])[0]
    config = SoraConfig()
    t, h, w = (frames + 1) // 2, film.shape[-2] // 4, film.shape[-1] // 4
    pt, ph, pw = config.patch
    tokens = (t // pt) * (h // ph) * (w // pw)
    quality = psnr(film[None], copy[None]).item()
    report = "\n".join([
        f"film                  {frames} frames of {film.shape[-2]}x{film.shape[-1]}: {film.numel():,} numbers",
        f"latents               {t} frames of {h}x{w}x{config.channels}: {t * h * w * config.channels:,} numbers",
        f"spacetime patches     {tokens:,} tokens of {config.channels * pt * ph * pw} numbers",
        f"reconstruction        {quality:.1f} dB PSNR (the autoencoder was trained on the toy world and on clouds)",
    ])  # fmt: skip
    return report, _stack(_patched(film), _pair(film, copy))


def _patched(film) -> bytes:
    """Two frames to a patch of 8 x 8 pixels: what one token of the transformer covers (the first frame is alone)."""
    return patches_diagram(film[1 : 1 + min(film.shape[0] - 1, 8)] if film.shape[0] > 1 else film,
                           patch=(2 if film.shape[0] > 1 else 1, 8, 8)).data  # fmt: skip


def _pair(film, copy) -> bytes:
    step = max(1, len(film) // SHOWN)
    return before_after(film[::step][:SHOWN], copy[::step][:SHOWN]).data


def _stack(*pictures: bytes) -> bytes:
    """Pictures one below the other, the narrow ones enlarged, on the paper of the first."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures]
    width = max(image.width for image in images)
    images = [i.resize((i.width * (width // i.width), i.height * (width // i.width)), Image.NEAREST) for i in images]
    sheet = Image.new("RGB", (width, sum(image.height for image in images)), images[0].getpixel((0, 0)))
    top = 0
    for image in images:
        sheet.paste(image, ((width - image.width) // 2, top))
        top += image.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
