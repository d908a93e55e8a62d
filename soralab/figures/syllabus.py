"""The syllabus as data: what each chapter is called, where it belongs, which part of Sora it feeds."""

from __future__ import annotations

from dataclasses import dataclass

from soralab.figures import style


@dataclass(frozen=True)
class Chapter:
    """A chapter: number, notebook's name, paper's title as the map shows it, group, and the part of Sora it
    feeds."""

    number: int
    name: str
    title: str
    group: str
    feeds: str = ""


BACKGROUND, VIDEO, LANGUAGE, FINAL = "background papers", "video generation", "language and video", "Sora"
# What Sora consists of, each with its colour; stacked so on the map, which crosses the fewest lines.
PARTS = {
    "denoising network": style.ORANGE,
    "text encoder": style.BLUE,
    "spacetime patches": style.VERMILLION,
    "steps and guidance": "#6F4E9C",
    "compression network": style.GREEN,
    "captions": style.SKY,
    "editing and animating": style.PURPLE,
}
CHAPTERS = (
    Chapter(0, "road_to_sora", "The road to Sora", "the map"),
    Chapter(1, "unet", "U-Net", BACKGROUND, "denoising network"),
    Chapter(2, "transformer", "Transformer", BACKGROUND, "text encoder"),
    Chapter(3, "vit", "ViT", BACKGROUND, "spacetime patches"),
    Chapter(4, "clip", "CLIP", BACKGROUND, "text encoder"),
    Chapter(5, "vqvae", "VQ-VAE", BACKGROUND, "compression network"),
    Chapter(6, "latent_diffusion", "Latent diffusion", BACKGROUND, "steps and guidance"),
    Chapter(7, "navit", "NaViT", BACKGROUND, "spacetime patches"),
    Chapter(8, "vivit", "ViViT", VIDEO, "spacetime patches"),
    Chapter(9, "imagen_video", "Imagen Video", VIDEO, "steps and guidance"),
    Chapter(10, "align_your_latents", "Align your Latents", VIDEO, "compression network"),
    Chapter(11, "walt", "W.A.L.T", VIDEO, "compression network"),
    Chapter(12, "recaptioning", "Recaptioning (DALL·E 3)", LANGUAGE, "captions"),
    Chapter(13, "llava", "LLaVA", LANGUAGE, "captions"),
    Chapter(14, "make_a_video", "Make-A-Video", LANGUAGE, "editing and animating"),
    Chapter(15, "tune_a_video", "Tune-A-Video", LANGUAGE, "editing and animating"),
    Chapter(16, "sora", "Sora (DiT)", FINAL),
    Chapter(17, "triton_attention", "Triton attention", FINAL),
)
