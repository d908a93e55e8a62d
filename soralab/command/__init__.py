"""The command `soralab`: a film from a prompt, answers about films, what stands behind both, exercises and sessions.

One file a verb: `declare(verbs)` names its arguments, `run(options)` does the work and may return an exit code. A
mistake of the caller's (ValueError), of the file system (OSError) or of the arithmetic (FloatingPointError) becomes one
line on stderr that names the mend, and exit code 2; so does a machine without the memory, or with a package that does
not import. A verb imports torch inside `run`, after the arguments have been checked, so a typing error is answered at
once.
"""

from __future__ import annotations

import argparse
import os
import sys

from soralab import __version__
from soralab.command import (
    ask,
    data,
    doctor,
    evaluate,
    film,
    hint,
    patches,
    progress,
    session,
    slides,
    train,
    weights,
    world,
)
from soralab.files.damage import out_of_memory
from soralab.training.memory import peak_gb

VERBS = (  # in the help's order
    film, ask, train, evaluate, data, world, patches, weights, hint, progress, session, slides, doctor,
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a Windows console may not know every letter
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(argv)
    try:
        code = options.run(options) or 0
        if sys.stdout is not None:  # closed, as by `>&-`
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `soralab session 1 | head`: the reader has what was wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
        return 0
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"soralab: {' '.join(_sentence(error).split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"soralab: there is not enough memory, after {peak_gb():.1f} GB: close other programs, or ask for less "
              "at a time", file=sys.stderr)  # fmt: skip
        return 2
    except ImportError as error:
        if (error.name or "").startswith("soralab"):
            raise
        print(f"soralab: a package does not import ({str(error).splitlines()[0]}): `soralab doctor` says which, and "
              "what to do", file=sys.stderr)  # fmt: skip
        return 2


def _sentence(error: Exception) -> str:
    """What an error says, without the number that the system gives it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """One line, as for every other mistake, and not the usage before it."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; {self.prog} --help tells what it takes\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="soralab", description="Road to Sora: film a prompt, train, evaluate.")
    parser.add_argument("--version", action="version", version=f"soralab {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for module in VERBS:
        module.declare(verbs).set_defaults(run=module.run)
    return parser
