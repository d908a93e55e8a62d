"""`torchrun --nproc-per-node N -m soralab.training NAME` is `soralab train NAME`, shared by N processes."""

import sys

from soralab.command import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
