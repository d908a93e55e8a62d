"""Ctrl-C and SIGTERM, heard between two steps, so that what is saved is never half a step."""

import signal
import threading


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
