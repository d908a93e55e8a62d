"""Run every benchmark and print its lines: `python -m benchmarks`, or some: `python -m benchmarks unet vit`."""

import sys

from benchmarks import clip, gpu, kernels, latent_diffusion, spine, transformer, unet, vit, vqvae

CHAPTERS = (spine, unet, transformer, vit, clip, vqvae, latent_diffusion, kernels, gpu)
ALL = {module.__name__.rpartition(".")[2]: module for module in CHAPTERS}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        if name not in ALL:
            sys.exit(f"benchmarks: {name!r} is none; there are {', '.join(ALL)}")
        for line in ALL[name].run():
            print(line, flush=True)
