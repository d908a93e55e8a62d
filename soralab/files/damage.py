"""Files that others made: what is wrong with one becomes a sentence that names it."""

import contextlib
import os
import zlib
from collections.abc import Iterator


@contextlib.contextmanager
def damage_named(path: str | os.PathLike, mend: str) -> Iterator[None]:
    """Turn what readers (Pillow, gzip, UTF-8) raise in the block, which reads `path`, into ValueError of one line.

    FileNotFoundError and ValueErrors of one's own that name a mend pass through.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise PermissionError(f"{path} cannot be read ({error.strerror}): give yourself the right to") from error
    except (OSError, EOFError, SyntaxError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}): {mend}") from error
