"""Run every benchmark and print its lines: `python -m benchmarks`, or some: `python -m benchmarks unet vit`."""

import sys
from importlib import import_module

ALL = ("spine", "unet", "transformer", "vit", "clip", "vqvae", "latent_diffusion", "navit", "walt", "kernels", "gpu")

if __name__ == "__main__":
    cut = next((k for k, word in enumerate(sys.argv) if word.startswith("--")), len(sys.argv))
    names, options = sys.argv[1:cut], sys.argv[cut:]  # options are for the one benchmark that is named
    for name in names or ALL:
        if name not in ALL:
            sys.exit(f"benchmarks: {name!r} is none; there are {', '.join(ALL)}")
        for line in import_module(f"benchmarks.{name}").run(*options):  # what it needs, no more
            print(line, flush=True)
