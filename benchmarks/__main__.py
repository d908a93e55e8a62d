"""Run every benchmark and print its lines: `python -m benchmarks`, or some: `python -m benchmarks unet vit`."""

import sys
from importlib import import_module

ALL = ("spine", "unet", "transformer", "vit", "clip", "vqvae", "latent_diffusion", "kernels", "gpu")

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        if name not in ALL:
            sys.exit(f"benchmarks: {name!r} is none; there are {', '.join(ALL)}")
        for line in import_module(f"benchmarks.{name}").run():  # what it needs and no more: gpu runs where little is
            print(line, flush=True)
