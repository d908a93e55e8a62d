"""Ctrl-C and SIGTERM, heard between two steps, so that what is saved is never half a step."""

import re
import signal
import tempfile
import threading
from pathlib import Path


class StopSignal:
    """While the block runs, the first Ctrl-C or SIGTERM is only noted: `.received` is its number, else None.

    The second Ctrl-C acts at once, as ever. In a thread other than the main one Python gives no signals, and
    the block changes nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            # None: the former handler was not set from Python and cannot be set back by it
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._former = {}

    def _note(self, number: int, _frame: object) -> None:
        self.received = number  # nothing is printed here: the loop may be inside a print of its own
        self._restore()


def goes_on(folder: Path) -> str:
    """How a run that was stopped and saved in `folder` goes on. In a folder of tempfile's, as a notebook's is, it does
    not, for that is removed as its block ends."""
    whole, temporary = folder.resolve(), Path(tempfile.gettempdir()).resolve()
    below = whole.relative_to(temporary).parts if whole.is_relative_to(temporary) else ()
    if below and re.fullmatch(tempfile.gettempprefix() + r"[a-z0-9_]{8}", below[0]):
        return "its folder was a temporary one: run the same again to begin anew"
    return f"state saved in {folder}: run the same again to go on"
