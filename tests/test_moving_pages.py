"""What moves on the notebooks' stored pages: each film has frames that differ, each place of a slider a picture of its
own. test_browser.py sees them move; this needs no browser."""

import base64
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from test_figures import states

from soralab import figures

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
FILM = re.compile(r'<details name="film-\w+" open><summary>film</summary><img alt="([^"]*)"[^>]*?;base64,([^"]+)"')
SLIDERS = re.compile(r'<div id="film-\w+"><img alt="([^"]*)"[^>]*?;base64,([^"]+)">.*?\), o = (\{.*?\});\n', re.S)


def picture(data: str):
    return Image.open(io.BytesIO(base64.b64decode(data)))


def stills(html: str) -> Iterator[str]:
    """The words of films whose frames are all the same."""
    for words, data in FILM.findall(html):
        film = picture(data)
        frames = set()
        for k in range(bool(film.info.get("default_image")), getattr(film, "n_frames", 1)):
            film.seek(k)
            frames.add(film.convert("RGB").tobytes())
        if len(frames) < 2:
            yield words


def alike(html: str) -> Iterator[str]:
    """The words of figures with sliders that show the same at two places."""
    for words, data, told in SLIDERS.findall(html):
        sheet, options = np.asarray(picture(data).convert("RGB")), json.loads(told)
        scale = options["sheet"] // sheet.shape[1]
        height, width, across = options["height"] // scale, options["width"] // scale, options["across"]
        places = itertools.product(*(range(len(values)) for _, values, _ in options["axes"]))
        tops = [(k // across * height, k % across * width) for k, _ in enumerate(places)]
        if len({sheet[top : top + height, left : left + width].tobytes() for top, left in tops}) < len(tops):
            yield words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_films_and_sliders_of_the_stored_pages_move(path):
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", ())]
    html = "\n".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert [*stills(html), *alike(html)] == []
    assert html.count("<summary>film</summary>") == len(FILM.findall(html))
    assert html.count("lmSuppressShortcuts") == len(SLIDERS.findall(html))


def test_a_film_that_stands_still_is_found():
    still = states(1, 3, 8, 8).expand(5, -1, -1, -1)
    assert list(stills(figures.show_film(states(5, 3, 8, 8), alt="A film of noise.").html())) == []
    assert list(stills(figures.show_film(still, alt="One of noise.").html())) == ["One of noise."]
    pages = figures.show_films([still, still], alt="Two films.").html() + figures.show_film(still, alt="Three.").html()
    assert list(stills(pages)) == ["Two films.", "Three."]


@pytest.mark.parametrize("count, axes", [((3,), {"t": (1, 2, 3)}), ((2, 3), {"s": (1, 2), "noise": (1, 2, 3)})])
def test_a_slider_that_changes_nothing_is_found(count, axes):
    films = states(*count, 2, 4, 3, 8, 8).round()
    assert list(alike(figures.explorer(films, axes, "Noise.").html())) == []
    films[-1] = films[0]
    assert list(alike(figures.explorer(films, axes, "Noise.").html())) == ["Noise."]
