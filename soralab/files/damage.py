"""Files that others made: what is wrong with one becomes a sentence that names it. And machines without the memory."""

import contextlib
import os
import warnings
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
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is damaged ({told}): {mend}") from error


@contextlib.contextmanager
def picture(path: str | os.PathLike, mend: str, whole: bool = True) -> Iterator:
    """The picture at `path`, a PIL.Image, its pixels read unless only its head is wanted (whole=False).

    Raises as `damage_named`, for every kind of error that damage makes Pillow raise; its warnings are not shown.
    """
    from PIL import Image

    with contextlib.ExitStack() as stack, damage_named(path, mend), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shown = stack.enter_context(Image.open(path))
            if whole:
                shown.load()
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error
        yield shown


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine, or its GPU, had no room for what was asked. PyTorch says so in several ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("can't allocate memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
