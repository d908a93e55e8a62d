"""Which checkpoints there are: what is shipped, what of others is told, and how they are stored."""

SHIPPED = (
    "align_your_latents", "clip", "film_autoencoder", "film_painter", "imagen_base", "imagen_space", "imagen_student",
    "imagen_time", "latent_autoencoder", "latent_diffusion", "llava", "make_a_video", "make_a_video_prior",
    "make_a_video_space", "navit", "recaptioning", "recaptioning_expander", "sora", "sora_autoencoder",
    "temporal_decoder", "transformer", "unet", "unet_denoiser", "vit", "vivit", "vqvae", "vqvae_films", "vqvae_prior",
    "walt", "walt_autoencoder",
)  # fmt: skip
"""The checkpoints that the course ships."""
MEASURED = ("recaptioning_painter", "sora_full_autoencoder", "sora_pixels")
"""Those of which it ships the card alone: what was measured with them is told, and no chapter needs the tensors.

`soralab.recipes` makes all of both, and a test keeps them equal."""
IN_TRAINING = ("sora_full", "sora_full_decoder")
"""Those that are not shipped yet, since a training is not done, their own or that of what they belong to. What there is
lies in data/in_training."""
IN_EIGHT_BITS = (
    "imagen_base", "imagen_space", "imagen_student", "imagen_time", "llava", "make_a_video", "make_a_video_prior",
    "make_a_video_space", "recaptioning", "recaptioning_expander", "sora_full", "sora_full_autoencoder",
    "sora_full_decoder", "transformer", "vivit",
)  # fmt: skip
"""Those whose matrices and kernels are stored in a byte a weight: they are measured as they are stored."""
