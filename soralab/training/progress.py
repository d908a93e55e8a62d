"""The one progress bar of the course; the environment variable TQDM_DISABLE=1 silences it."""

import os


def progress(iterable=None, **options):
    """`tqdm.auto.tqdm(iterable, **options)`: a widget in a notebook, a line in a terminal, or nothing."""
    from tqdm.auto import tqdm

    silent = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(iterable, **{"dynamic_ncols": True, "disable": silent, **options})
