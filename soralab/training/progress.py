"""The one progress bar of the course; the environment variable TQDM_DISABLE=1 silences it."""

from __future__ import annotations

import functools
import io
import os
import sys
from html import escape


def progress(iterable=None, **options):
    """`tqdm(iterable, **options)`: a line in a terminal, a bar of HTML in a notebook, or nothing.

    A finished bar is a line of text. tqdm's own notebook bar is a widget, which a saved notebook shows dead.
    """
    from tqdm import tqdm

    silent = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    bar = _page_bar() if in_notebook() else tqdm
    return bar(iterable, **{"dynamic_ncols": True, "disable": silent, **options})


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


@functools.cache
def _page_bar():
    from tqdm import tqdm

    class PageBar(tqdm):
        """A bar that draws itself into one output of the cell, again and again."""

        handle = None

        def __init__(self, iterable=None, **options):
            form = "{desc}: {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
            shape = {"bar_format": form} if options.get("total") or hasattr(iterable, "__len__") else {}
            super().__init__(iterable, **{"file": io.StringIO(), **shape, **options})

        def display(self, msg=None, pos=None, **_):
            from IPython.display import HTML, display

            text = str(self) if msg is None else msg
            ended = not self.total or self.n >= self.total
            bar = "" if ended else f'<progress max="{self.total}" value="{self.n}"></progress> '
            shown = HTML(f"{bar}{escape(text)}")
            if self.handle is None:
                self.handle = display(shown, display_id=True)
            else:
                self.handle.update(shown)

    return PageBar
