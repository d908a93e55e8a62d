"""`soralab patches`: a film of the reader's own, cut into spacetime patches, compressed and rebuilt."""

from __future__ import annotations

import io

from PIL import Image

from soralab.experiments.sora_autoencoder import psnr, reconstruct
from soralab.figures import before_after, patches_diagram
from soralab.files.films import read_film
from soralab.sora import SoraConfig, load_autoencoder
from soralab.training.profiles import device

SHOWN = 5  # frames of the film that the picture shows
USUAL = 17  # frames of a film that has as many
MOST = 2_000_000  # pixels of all frames together: about 1.5 GB and 20 s on two cores


def own_film(path: str, frames: int | None = None, height: int = 64) -> tuple[str, bytes]:
    """Read `frames` frames (odd) of a film, scaled to `height`; returns (a report, a PNG).

    By default the first USUAL frames or, of a shorter film, as many as it has (an odd number). The picture has the film
    in patches above, and below it the film, its reconstruction and the error. Raises what
    `soralab.files.films.read_film` raises, and ValueError for a film too narrow for a patch or of over MOST pixels.
    """
    film = read_film(path, frames=frames or USUAL, height=height, fewer=frames is None)
    there = len(film)
    short, frames = there < (frames or USUAL), (there - 1) // 2 * 2 + 1
    film = film[:frames, ..., : film.shape[-1] // 8 * 8]
    if not film.numel():
        raise ValueError(f"{path} is too narrow, at {height} pixels of height not one patch fits: give more height")
    pixels = frames * film.shape[-2] * film.shape[-1]
    if pixels > MOST:
        raise ValueError(f"{path} is {frames} frames of {film.shape[-2]}x{film.shape[-1]}, {pixels:,} pixels; it takes "
                         f"at most {MOST:,}: ask for fewer frames or less height")  # fmt: skip
    autoencoder = load_autoencoder().to(device())
    copy = reconstruct(autoencoder, film[None].to(device()))[0].cpu()
    config = SoraConfig()
    t, h, w = (frames + 1) // 2, film.shape[-2] // 4, film.shape[-1] // 4
    pt, ph, pw = config.patch
    tokens = (t // pt) * (h // ph) * (w // pw)
    quality = psnr(film[None], copy[None]).item()
    report = "\n".join([
        f"film                  {frames} frames of {film.shape[-2]}x{film.shape[-1]}: {film.numel():,} numbers"
        + (f" (an odd number of the {there} that it has)" if short else ""),
        f"latents               {t} frames of {h}x{w}x{config.channels}: {t * h * w * config.channels:,} numbers",
        f"spacetime patches     {tokens:,} tokens of {config.channels * pt * ph * pw} numbers; each stands for "
        "2 frames of 8x8 pixels (384 numbers), the first of one",
        f"picture               the {_drawn(film):,} patches of {min(frames - 1, 8) or 1} of its frames",
        f"reconstruction        {quality:.1f} dB PSNR (the autoencoder was trained on the toy world and on clouds)",
    ])  # fmt: skip
    return report, _stack(_patched(film), _pair(film, copy))


def _patched(film) -> bytes:
    """Two frames to a patch of 8 x 8 pixels: what one token of the transformer covers (the first frame is alone)."""
    return patches_diagram(film[1 : 1 + min(film.shape[0] - 1, 8)] if film.shape[0] > 1 else film,
                           patch=(2 if film.shape[0] > 1 else 1, 8, 8)).data  # fmt: skip


def _drawn(film) -> int:
    """How many patches the picture shows."""
    return max(min(len(film) - 1, 8) // 2, 1) * (film.shape[-2] // 8) * (film.shape[-1] // 8)


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
