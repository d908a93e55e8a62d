"""`python -m soralab` is the command `soralab`."""

import sys

from soralab.command import main

if __name__ == "__main__":
    sys.exit(main())
