"""Figures: films play as they were, captions keep off them, bands and intervals say the truth, diagrams are
legible."""

import base64
import hashlib
import io
import itertools
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser

import matplotlib.text
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import RendererAgg
from PIL import Image

from soralab import figures
from soralab.figures import curves, diagrams, four_blocks, pictures, strip, style
from soralab.figures.films import _padded
from soralab.figures.grids import GAP, MARGIN, lay_out
from soralab.figures.pictures import RAMP, Board
from soralab.files.counts import so_many


def moving_disc(frames=6, height=32, width=32, colour=(0.9, -0.4, -1.0), speed=3.0):
    """A film [time, 3, height, width]: a hard-edged disc that slides right over black, above the middle."""
    y, x = np.mgrid[:height, :width] + 0.5
    film = np.full((frames, 3, height, width), -1.0, np.float32)
    for time in range(frames):
        inside = np.hypot(x - 6 - speed * time, y - height / 3) < 5
        film[time][:, inside] = np.array(colour, np.float32)[:, None]
    return torch.from_numpy(film)


def decode(picture):
    """All frames of a picture, uint8 [time, height, width, 3], and its durations in milliseconds."""
    image = Image.open(io.BytesIO(picture.data))
    frames, durations = [], []
    first = 1 if image.info.get("default_image") else 0  # what stands there where nothing moves is none of the frames
    for number in range(first, getattr(image, "n_frames", 1)):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
        durations.append(image.info.get("duration"))
    return np.stack(frames), durations, image.info.get("loop")


def to_uint8(film):
    return np.rint((film.numpy() + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def to_rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def test_a_film_plays_at_its_speed_for_ever():
    frames, durations, loop = decode(figures.show_film(moving_disc(6), "a red circle", fps=10))
    assert len(frames) == 6 and loop == 0
    assert durations == [100] * 5 + [1100], "it rests on its last frame for a second"


def test_where_nothing_moves_all_frames_of_a_film_are_seen():
    """The APNG's default image: on paper and in old viewers a slide to the right can still be told."""
    film = moving_disc(9)
    image = Image.open(io.BytesIO(figures.show_film(film, scale=7).data))
    assert image.info["default_image"]
    still = np.asarray(image.convert("RGB"))[MARGIN : MARGIN + 224, MARGIN : MARGIN + 224].astype(int)
    expected = to_uint8(film).repeat(2, 1).repeat(2, 2)  # nine frames at 2 x in a square of 7 x
    for number in range(9):
        top, left = number // 3 * 32 * 7 // 3, number % 3 * 32 * 7 // 3
        assert np.abs(still[top : top + 64, left : left + 64] - expected[number]).max() <= 1, number


def test_a_still_takes_as_many_frames_as_its_room_holds_the_last_among_them():
    film = moving_disc(12)
    image = Image.open(io.BytesIO(figures.show_film(film, scale=2).data))
    still = np.asarray(image.convert("RGB"))[MARGIN : MARGIN + 64, MARGIN : MARGIN + 64].astype(int)
    expected = to_uint8(film)
    for place, number in enumerate((0, 4, 7, 11)):
        top, left = place // 2 * 32, place % 2 * 32
        assert np.abs(still[top : top + 31, left : left + 31] - expected[number][:31, :31]).max() <= 1


def test_every_frame_shows_its_own_pixels_enlarged_without_blur():
    film = moving_disc(5)
    frames, _, _ = decode(figures.show_film(film, "a red circle slides right", scale=3))
    expected = to_uint8(film).repeat(3, 1).repeat(3, 2)
    shown = frames[:, MARGIN : MARGIN + 96, MARGIN : MARGIN + 96]
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_many_colours_are_kept_within_the_palettes_error():
    ramp = torch.linspace(-1, 1, 32)
    film = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)])
    film = torch.stack([film, film.flip(2)])
    frames, _, _ = decode(figures.show_film(film, scale=1))
    error = np.abs(frames[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(float) - to_uint8(film))
    assert error.mean() < 8 and error.max() < 40


def test_a_small_vivid_object_keeps_its_colour_beside_a_noisy_ground():
    generator = torch.Generator().manual_seed(0)
    film = (0.2 * torch.randn(4, 3, 64, 64, generator=generator)).clamp(-1, 1)
    film[:, :, 30:33, 30:33] = torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    frames, _, _ = decode(figures.show_film(film, scale=1))
    spot = frames[:, MARGIN + 30 : MARGIN + 33, MARGIN + 30 : MARGIN + 33].astype(int)
    assert np.abs(spot - [255, 0, 255]).max() < 60


def test_captions_stand_under_films_and_never_on_them():
    films = torch.stack([moving_disc(3)] * 5)
    long = "a caption so long that it must be broken into several lines under a film that is not wide"
    bare, _, _ = decode(figures.show_films(films, scale=4, columns=3))
    told, _, _ = decode(figures.show_films(films, [long] * 5, scale=4, columns=3))
    expected = to_uint8(films[0]).repeat(4, 1).repeat(4, 2)
    pitch = 128 + GAP
    # How far down the second row stands depends on the captions: find the rows by their films' black left edges.
    column = told[0, :, MARGIN]
    starts = [y for y in range(1, len(column)) if column[y].sum() == 0 and column[y - 1].sum() > 0]
    tops = [y for y in starts if (told[0, y : y + 128, MARGIN] == 0).all()]
    assert len(tops) == 2
    for number, (row, place) in enumerate(itertools.product(tops, range(3))):
        left = MARGIN + place * pitch
        shown = told[:, row : row + 128, left : left + 128]
        if number < 5:
            assert np.abs(shown.astype(int) - expected).max() <= 1
    # No line is hidden behind a film either: all the ink of the captions is there.
    face = style.font(13)
    board = Board(128, 400)
    board.write(0, 0, style.wrap(long, face, 128), face)
    alone = (board.index == RAMP - 1).sum()
    black = (told[0] == to_rgb(style.INK)).all(-1).sum() - (bare[0] == to_rgb(style.INK)).all(-1).sum()
    assert alone > 100 and black == 5 * alone


def test_captions_do_not_run_into_each_other():
    tiles = [to_uint8(moving_disc(1, 32, 32))] * 4
    sheet = lay_out(tiles, ["mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm"] * 4, columns=4, scale=4, largest=128)
    for place in range(3):
        left = MARGIN + 128 + place * (128 + GAP)
        assert (sheet.frame(0)[:, left : left + GAP] == 0).all()


def test_wrapped_lines_fit_and_lose_no_word():
    face = style.font(13)
    text = "a small orange triangle slides down and left behind a verylongwordthatfitsnowhere wall"
    lines = style.wrap(text, face, 90)
    assert all(face.getlength(line) <= 90 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_script_without_a_font_is_named_not_drawn_as_empty_boxes(monkeypatch):
    monkeypatch.setattr(style, "OTHER_FONTS", ())
    film, hindi = moving_disc(2), "लाल वृत्त"
    picture = figures.show_film(film, hindi)
    assert hindi in picture.alt
    alike = figures.show_film(film, "picture 1")
    assert picture.data == alike.data


def test_films_of_several_sizes_and_lengths_share_a_board():
    picture = figures.show_films([moving_disc(4, 32, 48), moving_disc(2, 40, 24)], scale=2, columns=2)
    frames, _, _ = decode(picture)
    assert len(frames) == 4
    left = MARGIN + 96 + GAP
    short = to_uint8(moving_disc(2, 40, 24)).repeat(2, 1).repeat(2, 2)
    for time in range(4):
        shown = frames[time, MARGIN : MARGIN + 80, left : left + 48].astype(int)
        assert np.abs(shown - short[min(time, 1)]).max() <= 1


def test_a_dozen_small_films_stay_under_150_kilobytes():
    films = torch.stack([moving_disc(9, speed=1 + 0.2 * i) for i in range(12)])
    picture = figures.show_films(films, ["a small red circle slides right"] * 12)
    assert len(picture.data) < 150_000 and picture.width <= style.MAX_WIDTH


class Page(HTMLParser):
    """The tags of a piece of HTML: [(name, attributes)]."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def __getitem__(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_what_the_notebook_receives():
    picture = figures.image_grid(moving_disc(1), ['a "red" circle & <more>'])
    data = picture._repr_mimebundle_()
    assert set(data) == {"text/html", "text/plain"} and data["text/plain"] == picture.alt
    assert Page(data["text/html"]).tags == [("img", {
        "alt": picture.alt, "width": str(picture.width),
        "src": "data:image/png;base64," + base64.b64encode(picture.data).decode(),
    })]
    assert '"red" circle & <more>' in picture.alt
    assert figures.show_film(moving_disc(2), alt="A disc.").alt == "A disc."
    with pytest.raises(ValueError, match="alt"):
        figures.show_film(moving_disc(2), alt=" ")


def test_a_film_can_be_stopped_without_a_script():
    """Two folds of one name: opening the frames closes the film. Every picture in it has its words."""
    picture = figures.show_films(moving_disc(3)[None], ["a red circle"])
    page = Page(picture.html())
    assert [tag for tag, _ in page.tags] == ["details", "summary", "img"] * 2
    playing, stopped = page["details"]
    assert playing["name"] == stopped["name"] and "open" in playing and "open" not in stopped
    film, strip = page["img"]
    assert film["alt"] == picture.alt and strip["alt"] == f"Frame by frame: {picture.alt}"
    still = Image.open(io.BytesIO(base64.b64decode(strip["src"].partition(",")[2])))
    assert getattr(still, "n_frames", 1) == 1 and still.width > 3 * 32
    other = figures.show_films(moving_disc(4)[None], ["a red circle"])
    assert Page(other.html())["details"][0]["name"] != playing["name"], "another film on the page is not closed"


def test_what_is_shown_twice_on_a_page_has_two_names_and_the_same_ones_in_each_run(monkeypatch):
    """Each film is stopped by its own fold, and each figure's script finds its own box. A first showing is named by
    its bytes alone, as in the notebooks that are there."""
    film = figures.show_films(moving_disc(3)[None], ["a red circle"])
    sliders = figures.explorer(states(2, 1, 1, 3, 4, 4), {"t": (1, 0)}, "Noise.")

    def page():
        monkeypatch.setattr(pictures, "SHOWN", Counter())
        html = [shown._repr_mimebundle_()["text/html"] for shown in (film, sliders, film, sliders, film)]
        films = [Page(text)["details"] for text in html[::2]]
        assert all(playing["name"] == stopped["name"] for playing, stopped in films)
        boxes = [Page(text)["div"][0]["id"] for text in html[1::2]]
        assert all(f'getElementById("{box}")' in text for box, text in zip(boxes, html[1::2], strict=True))
        return [playing["name"] for playing, _ in films], boxes

    first, second = (f"film-{hashlib.sha256(shown.data).hexdigest()[:8]}" for shown in (film, sliders))
    assert page() == page() == ([first, f"{first}_2", f"{first}_3"], [second, f"{second}_2"])


def test_a_stopped_film_of_several_sizes_shows_each_at_its_size():
    films = [to_uint8(moving_disc(4, 32, 48)), to_uint8(moving_disc(2, 40, 24))]
    padded = _padded(films)
    assert padded.shape == (2, 4, 40, 48, 3)
    assert (padded[0, :, :32] == films[0]).all() and (padded[0, :, 32:] == to_rgb(style.PAPER)).all()
    assert (padded[1, 3, :, :24] == films[1][1]).all() and (padded[1, :, :, 24:] == to_rgb(style.PAPER)).all()


def test_a_strip_lays_the_frames_side_by_side():
    film = moving_disc(5)
    frames, _, _ = decode(figures.film_strip(film, "slides"))
    assert len(frames) == 1
    scale, top = 4, None  # 5 frames of 32 pixels, at most 128 wide
    expected = to_uint8(film).repeat(scale, 1).repeat(scale, 2)
    rows = [y for y in range(frames.shape[1]) if (frames[0, y, MARGIN : MARGIN + 128] == 0).all()]
    top = rows[0]
    for number in range(5):
        left = MARGIN + number * (128 + 4)
        shown = frames[0, top : top + 128, left : left + 128].astype(int)
        assert np.abs(shown - expected[number]).max() <= 1


def test_one_is_no_plural(tmp_path):
    film, log = moving_disc(1), tmp_path / "log.jsonl"
    assert figures.show_film(film).alt.startswith("A film of 1 frame")
    assert figures.show_film(moving_disc(2)).alt.startswith("A film of 2 frames")
    assert figures.film_strip(film).alt.startswith("A film as a strip of 1 frame")
    assert figures.pairs_table(film, ["a"], torch.ones(1, 1)).alt.startswith("A table of 1 picture (rows)")
    log.write_text('{"loss": 1.0}\n')
    with pytest.raises(ValueError, match="got 1 line without a step, takes lines like .\"step\": 10, \"loss\": 0.7.$"):
        figures.read_log(log)
    assert [so_many(n, "film") for n in (0, 1, 2)] == ["0 films", "1 film", "2 films"]
    for said in (figures.show_film(film), figures.film_strip(film)):
        assert "1 frames" not in said.alt


def test_a_long_film_is_thinned_to_fit_the_page():
    picture = figures.film_strip(moving_disc(60))
    assert picture.width <= style.MAX_WIDTH and "of 60 frames" in picture.alt


def test_before_after_states_psnr_and_shows_where_it_differs():
    original = moving_disc(3)
    changed = original.clone()
    changed[1] = (changed[1] + 0.02).clamp(-1, 1)
    picture = figures.before_after(original, changed)
    mse = ((original[1] - changed[1]) ** 2).mean().item()
    assert f"exact, {10 * np.log10(4 / mse):.1f} dB, exact" in picture.alt
    with pytest.raises(ValueError, match=r"\[2, 3, 32, 32\].*\[3, 3, 32, 32\]"):
        figures.before_after(original, changed[:2])


def test_before_after_has_a_row_of_each_and_its_brightest_colour_is_the_largest_difference():
    original = moving_disc(2)
    changed = original.clone()
    changed[1, :, 20, 7] += 0.5  # one pixel of the ground
    picture = figures.before_after(original, changed)
    assert "at most 0.5 of a range of 2" in picture.alt
    heat = np.full((2, 32, 32, 3), np.rint(255 * np.array(matplotlib.colormaps["magma"](0.0)[:3])))
    heat[1, 20, 7] = np.rint(255 * np.array(matplotlib.colormaps["magma"](1.0)[:3]))
    sheet = decode(picture)[0][0].astype(int)
    for row, tiles in enumerate((to_uint8(original), to_uint8(changed), heat)):
        for column, tile in enumerate(tiles):
            top, left = MARGIN + row * (96 + 6), MARGIN + 128 + column * (96 + 6)
            assert np.abs(sheet[top : top + 96, left : left + 96] - tile.repeat(3, 0).repeat(3, 1)).max() <= 2


@pytest.mark.parametrize(
    "film, says",
    [
        (moving_disc(2) * 3, r"film: got values from -3 to 2\.7"),
        (moving_disc(2)[0], r"film: got shape \[3, 32, 32\]"),
        (moving_disc(2).permute(0, 2, 3, 1), r"film: got 32 channels in shape \[2, 32, 32, 3\]"),
        (moving_disc(2) * float("nan"), "film: got values from nan"),
        ((moving_disc(2) > 0).to(torch.uint8), "film: got uint8"),
        (moving_disc(2)[:0], r"film: got shape \[0, 3, 32, 32\]"),
    ],
)
def test_a_wrong_film_is_named(film, says):
    with pytest.raises(ValueError, match=says):
        figures.show_film(film)


def test_wrong_arguments_are_named():
    films = moving_disc(2)[None]
    with pytest.raises(ValueError, match=r"films\[0\]: got shape"):
        figures.show_films(films[0])
    with pytest.raises(ValueError, match="captions: got 2 for 1"):
        figures.show_films(films, ["a", "b"])
    with pytest.raises(ValueError, match="fps: got 0"):
        figures.show_films(films, fps=0)
    with pytest.raises(ValueError, match="images"):
        figures.image_grid(films)
    with pytest.raises(ValueError, match="patch: got"):
        figures.patches_diagram(films[0], (3, 8, 8))


def test_a_log_is_read_and_an_interrupted_last_line_passed_over(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": 2.0, "note": "x"}\n{"step": 10, "loss": 1.0, "lr": 0.1}\n{"step": 20, "lo')
    log = figures.read_log(path)
    assert log["step"].tolist() == [0, 10] and log["loss"].tolist() == [2, 1] and set(log) == {"step", "loss", "lr"}
    assert np.isnan(log["lr"][0]) and log["lr"][1] == 0.1
    path.write_text('{"step": 0}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2: got 'nonsense'"):
        figures.read_log(path)
    with pytest.raises(FileNotFoundError, match="no training log at .*none.jsonl"):
        figures.read_log(tmp_path / "none.jsonl")


def test_empty_lines_of_a_log_are_passed_over_and_what_is_no_object_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": 2}\n\n   \n{"step": 1, "loss": 1}\n')
    assert figures.read_log(path)["loss"].tolist() == [2, 1]
    for wrong in ("[1, 2]", "5", "null", '"step"'):
        path.write_text('{"step": 0}\n\n' + wrong + '\n{"step": 2}\n')
        with pytest.raises(ValueError, match=f"line 3: got {re.escape(repr(wrong))}, takes one JSON object"):
            figures.read_log(path)
    path.write_text('{"step": 0}\n5')  # cut off: 50, perhaps
    assert figures.read_log(path)["step"].tolist() == [0]


def test_ema_is_corrected_at_the_start():
    assert figures.ema(np.full(5, 3.0), 0.9) == pytest.approx(np.full(5, 3.0))
    assert figures.ema([1.0, 3.0], 0.5) == pytest.approx([1.0, (0.25 * 1 + 0.5 * 3) / 0.75])
    for smooth in (1, -0.1, 1.5):
        with pytest.raises(ValueError, match=f"smooth: got {smooth}, takes a number from 0 up to, not including, 1"):
            figures.ema([1.0, 3.0], smooth)


def run_of(values, step=10):
    return {"step": np.arange(len(values)) * step, "loss": np.array(values, float)}


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    "successes, n, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    assert figures.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = figures.wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_refuses_what_is_no_proportion():
    for successes, n in ((5, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match=f"got {successes} of {n}"):
            figures.wilson(successes, n)


def test_bars_say_their_intervals():
    table = {"ours": {"colour": (20, 20), "shape": (1, 29)}, "pixels": {"colour": (0, 20)}}
    picture = figures.bars_with_intervals(table, {"colour": 0.125}, "chance")
    for text in (
        "ours colour 100.0 % (83.9–100.0)",
        "ours shape 3.4 % (0.6–17.2)",
        "pixels colour 0.0 % (0.0–16.1)",
    ):
        assert text in picture.alt
    assert "chance colour 12.5 %" in picture.alt
    with pytest.raises(ValueError, match="baseline"):
        figures.bars_with_intervals(table, {"colours": 0.1})


def words_and_boxes(fig):
    """Every visible text of a figure with its extent in pixels."""
    fig.canvas.draw()
    renderer = fig.canvas.get_renderer()
    texts = [t for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in texts]


def assert_legible(fig):
    found = words_and_boxes(fig)
    page = fig.bbox
    for text, box in found:
        assert box.x0 >= 4 and box.y0 >= 4 and box.x1 <= page.x1 - 4 and box.y1 <= page.y1 - 4, (
            f"{text!r} leaves the page"
        )
    for (one, a), (two, b) in itertools.combinations(found, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, f"{one!r} and {two!r} overlap"
    return [text for text, _ in found]


@pytest.mark.parametrize("names", [
    ("ours", "theirs", "nobody's", "all"),
    ("latents, combinations never seen", "pixels, combinations never seen", "latents, like training's", "pixels"),
])
def test_the_names_of_bars_stay_on_the_page(names, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "picture", lambda fig, alt: drawn.append(fig))
    figures.bars_with_intervals({name: {"motion": (19, 20), "shape": (3, 20)} for name in names}, title="Right, of 20")
    assert set(names) <= set(assert_legible(drawn[0]))


def test_bars_of_one_series_without_a_name_need_no_legend(monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "picture", lambda fig, alt: drawn.append(fig))
    figures.bars_with_intervals({"motion": (19, 20)})
    figures.bars_with_intervals({"motion": (19, 20)}, {"motion": (1, 2)}, "chance")
    figures.bars_with_intervals({"ours": {"motion": (19, 20)}})
    shown = [[[text.get_text() for text in legend.get_texts()] for legend in fig.legends] for fig in drawn]
    assert shown == [[], [["chance"]], [["ours"]]]


@pytest.mark.parametrize("here", [None, 0, 7, 12, 16, 17])
def test_the_map_names_every_chapter_and_no_words_overlap(here):
    words = assert_legible(diagrams._draw_map(here, {0, 3, 16}))
    for number in range(18):
        assert words.count(f"{number:02d}") == 1
    for chapter in figures.CHAPTERS:
        assert chapter.title in words
    assert words.count("you are here") == (here is not None)
    assert set(diagrams.PARTS) <= set(words)


@pytest.mark.parametrize("here", range(18))
def test_the_strip_says_where_one_is_and_no_words_overlap(here):
    words = assert_legible(strip._draw(here, {0, here}))
    assert [word for word in words if word.isdigit()] == [f"{number:02d}" for number in range(18)]
    chapter = figures.CHAPTERS[here]
    [says] = [word for word in words if word.startswith("you are here")]
    assert chapter.title in says and chapter.feeds in says


def test_the_strip_is_a_strip_and_draws_what_is_to_come_with_a_broken_edge():
    picture = figures.road_strip(3, [0, 3, 16])
    assert "you are at 03, ViT: it feeds Sora's spacetime patches" in picture.alt
    assert Image.open(io.BytesIO(picture.data)).height / 2 < 100 and picture.width <= style.MAX_WIDTH
    assert broken_edges(strip._draw(3, {0, 3, 16})) == 15
    boxes = [patch for patch in strip._draw(3, {0, 3, 16}).axes[0].patches if hasattr(patch, "get_boxstyle")]
    edges = [matplotlib.colors.to_hex(box.get_edgecolor()).upper() for box in boxes]
    assert (edges[3], edges[4]) == (style.INK, style.FAINT) and boxes[3].get_linewidth() > boxes[0].get_linewidth()
    for wrong in ((18, [0]), (3, [99])):
        with pytest.raises(ValueError, match="takes chapters from 0 to 17"):
            figures.road_strip(*wrong)


def test_the_maps_boxes_are_eighteen_and_apart():
    boxes = diagrams._map_boxes()
    assert sorted(boxes) == list(range(18)) == [chapter.number for chapter in figures.CHAPTERS]
    for a, b in itertools.combinations(boxes.values(), 2):
        assert a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
    fed = {chapter.feeds for chapter in figures.CHAPTERS if 1 <= chapter.number <= 15}
    assert fed == set(diagrams.PARTS)


def broken_edges(fig):
    styles = [patch.get_linestyle() for patch in fig.axes[0].patches if hasattr(patch, "get_boxstyle")]
    return sum(style != "-" and style != "solid" for style in styles)


def test_chapters_to_come_have_broken_edges(monkeypatch):
    assert broken_edges(diagrams._draw_map(None, set())) == 18
    assert broken_edges(diagrams._draw_map(None, set(range(18)))) == 0
    assert broken_edges(diagrams._draw_map(4, {0, 4})) == 16
    with pytest.raises(ValueError, match=r"got \[18\]"):
        figures.road_map(18)
    assert "chapter 07, NaViT" in figures.road_map(7).alt
    monkeypatch.setattr(diagrams, "picture", lambda fig, alt: fig)
    assert broken_edges(figures.road_map(4, iter([0]))) == 16, "where the reader is, there is a chapter"


def test_the_map_knows_which_notebooks_there_are(monkeypatch, tmp_path):
    for name in ("00_road_to_sora", "03_vit", "07_else"):
        (tmp_path / f"{name}.ipynb").touch()
    monkeypatch.setattr(diagrams, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(diagrams, "picture", lambda fig, alt: fig)
    assert broken_edges(figures.road_map()) == broken_edges(figures.road_map(None, [0, 3])) == 16


def test_the_plan_of_sora_is_legible_and_names_its_chapters():
    words = assert_legible(diagrams._draw_parts())
    numbers = {word for word in words if len(word) == 2 and word.isdigit()}
    assert numbers == {"02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "16", "17"}
    assert figures.sora_parts().width == 900


def test_the_four_blocks_are_legible_and_coloured_where_they_are_told():
    words = assert_legible(four_blocks._draw())
    count = {layer: words.count(layer) for layer in (*four_blocks.BLOCKS, "self-attention", "MLP", "layer norm", "+")}
    assert list(count.values()) == [1, 2, 1, 1, 4, 4, 9, 9]  # cross-attention names a block, and is in it
    assert (words.count("scale, shift"), words.count("gate"), words.count("α"), words.count("γ, β")) == (4, 2, 2, 4)
    figure = four_blocks._draw()
    coloured = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_boxstyle")
                and matplotlib.colors.to_hex(patch.get_edgecolor()).upper() == style.VERMILLION
                and patch.get_height() == four_blocks.TALL]  # fmt: skip
    assert len(coloured) == 1 + 4 + 2
    assert figures.dit_blocks().width == 860


def test_the_patches_diagram_counts_tokens_and_numbers():
    picture = figures.patches_diagram(moving_disc(8), (2, 8, 16))
    assert "4 × 4 × 2 = 32 patches" in picture.alt and "= 768 numbers" in picture.alt
    assert picture.alt.startswith("A film ")
    assert figures.patches_diagram(moving_disc(1), (1, 8, 8)).alt.startswith("A picture pulled apart into patches: ")
    frames, _, _ = decode(picture)
    orange = (np.abs(frames[0].astype(int) - to_uint8(moving_disc(1)).max((0, 1, 2))) < 3).all(-1)
    assert orange.sum() > 1000, "the disc is not to be seen"


def test_nothing_to_draw_is_refused_by_name():
    with pytest.raises(ValueError, match="run: got no log"):
        figures.loss_curve({})
    with pytest.raises(ValueError, match="n"):
        figures.bars_with_intervals({"a": (0, 0)})


def test_the_same_input_gives_the_same_bytes():
    film, run = moving_disc(4), run_of(np.geomspace(3, 1, 21))
    assert "Verdict at step 200: right so far" in figures.loss_curve(run, [run, run]).alt
    few = run_of([3, 2, 1])
    assert "step 20: cannot tell; the band's runs were logged in 2 of 20" in figures.loss_curve(few, [few, few]).alt
    for draw in (
        lambda: figures.show_films(film[None], ["a"]),
        lambda: figures.film_strip(film, "a"),
        lambda: figures.image_grid(film, list("abcd")),
        lambda: figures.loss_curve(run, [run, run]),
        lambda: figures.road_map(3),
        lambda: figures.patches_diagram(film),
    ):
        assert draw().data == draw().data


def test_a_plot_of_ones_own_is_twice_as_fine_as_the_page_and_keeps_its_colours(tmp_path):
    fig, axes = figures.figure(4, 2)
    axes.fill_between([0, 1], [1, 1], color=style.VERMILLION)
    picture = figures.picture(fig, "A red area.")
    picture.save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png").convert("RGB")
    assert (picture.width, image.size) == (400, (800, 400))
    counts = dict((colour, n) for n, colour in image.getcolors(10_000))
    assert counts.get((0xD5, 0x5E, 0x00), 0) > 50_000


# ----------------------------------------------------------------------------------------- pictures beside their texts


def test_pairs_stand_beside_their_texts_and_every_cell_has_its_value(monkeypatch):
    drawn = []
    draw = matplotlib.text.Text.draw

    def remember(self, *given, **more):
        drawn.append(self.get_text())
        return draw(self, *given, **more)

    monkeypatch.setattr(matplotlib.text.Text, "draw", remember)
    pictures = torch.stack([torch.full((3, 8, 8), -1.0), torch.full((3, 8, 8), 1.0)])
    values = torch.tensor([[0.9, -0.2], [0.1, 0.7]])
    table = figures.pairs_table(pictures, ["a black frame", "a white frame"], values)
    assert [text for text in drawn if text in ("0.9", "-0.2", "0.1", "0.7")][:4] == ["0.9", "-0.2", "0.1", "0.7"]
    assert {"T1  a black frame", "T2  a white frame"} <= set(drawn)
    assert "a black frame; a white frame" in table.alt
    answers = figures.pairs_table(pictures, ["a", "b"], values, [["yes", "no"], ["no", "yes"]], alt="which is which")
    assert answers.alt == "which is which" and drawn.count("yes") == drawn.count("no") > 0
    image = decode(table)[0][0]
    left = image[:, : image.shape[1] // 5]
    assert (left < 8).all(-1).sum() > 1000 and (left > 250).all(-1).sum() > 500  # both pictures are whole, at the left


@pytest.mark.parametrize("pictures, texts, shape", [(2, 3, (3, 3)), (3, 3, (3, 2))])
def test_pairs_that_do_not_fit_are_named(pictures, texts, shape):
    with pytest.raises(ValueError, match=f"values are .* and pictures {pictures}; {texts} texts take as many"):
        figures.pairs_table(torch.zeros(pictures, 3, 8, 8), ["text"] * texts, torch.zeros(shape))


def test_pairs_may_be_lists_of_numbers_and_of_nothing_else():
    frames, values = states(2, 3, 8, 8), [[0.9, -0.2], [0.1, 0.7]]
    asked = [figures.pairs_table(frames, ["a", "b"], given).data for given in (values, np.array(values), torch.tensor(
        values, dtype=torch.float64, requires_grad=True))]  # fmt: skip
    assert asked[0] == asked[1] == asked[2]
    with pytest.raises(ValueError, match=r"values are \[2, 1\] and pictures 2"):
        figures.pairs_table(frames, ["a", "b"], [[1], [2]])
    with pytest.raises(ValueError, match=r"values: got <U1 of shape \[2, 2\], takes numbers"):
        figures.pairs_table(frames, ["a", "b"], [["1", "2"], ["3", "4"]])


def test_dollars_are_written_and_set_no_mathematics(monkeypatch):
    drawn = {}
    draw = RendererAgg.draw_text

    def remember(self, gc, x, y, text, prop, angle, ismath=False, mtext=None):
        drawn[text] = drawn.get(text, False) or ismath
        return draw(self, gc, x, y, text, prop, angle, ismath, mtext)

    monkeypatch.setattr(RendererAgg, "draw_text", remember)
    run, named = run_of([3, 2, 1]) | {"$k_$": np.ones(3)}, "{}: $5_ and $6^"
    texts = [named.format(where) for where in ("run", "title", "row", "series", "base", "head", "text", "cell")]
    figures.loss_curve({texts[0]: run, "b": run}, title=texts[1])
    figures.loss_curve(run | {"samples": {"$a_$": ["$b_$"]}}, key="$k_$")
    figures.loss_curve(run | {"samples": {"$c_$": -np.ones((1, 3, 8, 8))}})
    figures.bars_with_intervals({texts[3]: {texts[2]: (1, 2)}}, {texts[2]: 0.5}, texts[4], title=texts[5])
    figures.pairs_table(states(1, 3, 8, 8), [texts[6]], [[1]], [[texts[7]]])
    wanted = {*texts, "$k_$", "$a_$: $b_$", "$c_$"} - {texts[6]} | {f"T1  {texts[6]}"}
    assert wanted <= set(drawn), sorted(wanted - set(drawn))
    assert not any(drawn[text] for text in wanted)
    fig, axes = figures.figure()
    axes.set_title("$x$")
    figures.picture(fig, "One's own may.")
    assert drawn["$x$"], "a plot of one's own may set mathematics"


@pytest.mark.parametrize("wrong", [0, -1, 1.5, math.nan, math.inf, "2"])
def test_an_enlargement_is_a_whole_number(wrong):
    film, sliders = moving_disc(2), states(1, 1, 1, 3, 4, 4)
    assert figures.show_film(film, scale=2.0).data == figures.show_film(film, scale=2).data
    assert figures.show_films([film] * 3, columns=2.0).data == figures.show_films([film] * 3, columns=np.int64(2)).data
    html = [figures.explorer(sliders, {"t": (1,)}, "x", scale=scale) for scale in (2, 2.0)]
    assert html[0].options == html[1].options and "2.0" not in str(html[1].options)
    for draw, name in ((lambda: figures.show_film(film, scale=wrong), "scale"),
                       (lambda: figures.image_grid(film, columns=wrong), "columns"),
                       (lambda: figures.explorer(sliders, {"t": (1,)}, "x", scale=wrong), "scale")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}: got {wrong}, takes a whole number from 1"):
            draw()


def test_a_plan_of_no_files_is_refused():
    with pytest.raises(ValueError, match="files: got none, takes {path in the clone: what it is}"):
        figures.made_of({})


# ----------------------------------------------------------------------------------------------- figures with sliders


def states(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def explored(figure):
    """A figure's tags, the options that its script is given, and its picture."""
    html = figure._repr_mimebundle_()["text/html"]
    page = Page(html)
    [image] = page["img"]
    sheet = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    options = json.loads(re.search(r"o = (\{.*\});$", html, re.M).group(1))
    return page, options, np.asarray(sheet.convert("RGB")), html


def test_each_place_of_the_sliders_is_its_state_in_the_picture():
    """What the script shows, `width` x `height` from `at` times these, is the state that was given for the place."""
    films = states(3, 2, 2, 4, 3, 8, 10).round()  # few colours: none is lost
    axes = {"s": (0.5, 1, 2), "seed": (7, 8)}
    figure = figures.explorer(films, axes, "Noise.", rows=("a", "b"), scale=2, start=(1, 0))
    _, options, sheet, _ = explored(figure)
    assert options["axes"] == [["s", ["0.5", "1", "2"], 1], ["seed", ["7", "8"], 0]]
    big = sheet.repeat(2, 0).repeat(2, 1).astype(int)
    assert options["sheet"] == big.shape[1]
    for one, two, row, frame in itertools.product(range(3), range(2), range(2), range(4)):
        part = big[one * options["height"] :, two * options["width"] :][: options["height"], : options["width"]]
        shown = part[row * 18 : row * 18 + 16, frame * 22 : frame * 22 + 20]
        wanted = to_uint8(films[one, two, row, frame][None])[0].repeat(2, 0).repeat(2, 1)
        assert np.abs(shown - wanted).max() <= 1


@pytest.mark.parametrize("count, lines", [(10, 3), (7, 3), (4, 2), (1, 1)])
def test_the_states_of_one_slider_stand_as_one_reads_on_a_sheet_about_twice_as_wide_as_high(count, lines):
    films = states(count, 3, 5, 3, 8, 8).round()
    _, options, sheet, html = explored(figures.explorer(films, {"t": range(count)}, "Noise.", scale=1))
    assert sheet.shape == (lines * 31, options["across"] * 49, 3) and -(-count // options["across"]) == lines
    assert 1.2 < sheet.shape[1] / sheet.shape[0] < 2.8
    for k in range(count):
        part = sheet[k // options["across"] * 31 :, k % options["across"] * 49 :]
        assert np.abs(part[9:17, 18:26].astype(int) - to_uint8(films[k, 1, 2][None])[0]).max() <= 1
    assert ("From left to right: t = 0." if count == 1 else f"In {lines} lines, as one reads: t = 0, 1") in html
    assert "Math.floor(place / o.across)" in html and "place % o.across" in html


def test_a_figure_with_sliders_says_what_it_shows_also_where_no_script_runs():
    figure = figures.explorer(states(2, 1, 1, 3, 4, 4), {"t": (1, 0)}, 'A "film" <and> noise.', says=("far", "near"))
    page, options, _, html = explored(figure)
    assert figure._repr_mimebundle_()["text/plain"] == page["img"][0]["alt"] == 'A "film" <and> noise.'
    assert "From left to right: t = 1, 0." in html and options["says"] == ["far", "near"]
    assert "sliders go through them one by one, once the cell is run or the notebook is trusted" in html
    assert 'querySelectorAll("p").forEach((p) => p.remove())' in html, "with sliders neither sentence is true"
    assert not re.search(r"https?://|@import|\bimport\b", html)
    assert 'input.dataset.lmSuppressShortcuts = "true"' in html, "JupyterLab takes the arrow keys from other inputs"
    [box] = page["div"]
    assert f'getElementById("{box["id"]}")' in html
    hostile = figures.explorer(states(1, 1, 1, 3, 4, 4), {"t": (1,)}, "x", says=("</script><b>",))
    assert hostile.html().count("</script>") == 1, "a sentence cannot end the script"


@pytest.mark.parametrize("count, side, scale, larger", [(3, 33, 6, 6), (3, 33, 2, 2), (3, 400, 3, 1), (1, 100, 9, 4)])
def test_a_small_picture_of_all_states_is_enlarged_and_they_stand_apart(count, side, scale, larger):
    """Where no script runs: to 960 x 480 at most, by whole pixels, and never beyond what the sliders show."""
    films = states(count, 1, 1, 3, side, side).round()
    page, options, sheet, _ = explored(figures.explorer(films, {"s": range(count)}, "Noise.", scale=scale))
    assert int(page["img"][0]["width"]) == larger * sheet.shape[1]
    stride = side + 1 + 4
    assert (options["width"], options["gap"]) == (stride * scale, 4 * scale)
    assert np.abs(sheet[:, side : side + 5].astype(int) - 251).max() <= 1  # paper between the first and the second
    assert np.abs(sheet[side : side + 5].astype(int) - 251).max() <= 1


def test_a_wide_picture_of_all_states_is_enlarged_to_960_pixels_at_most():
    films = states(1, 1, 6, 3, 40, 40).round()
    page, _, sheet, _ = explored(figures.explorer(films, {"s": (0,)}, "Noise.", scale=9))
    assert int(page["img"][0]["width"]) == 3 * sheet.shape[1] and 4 * sheet.shape[1] > 960 > 4 * sheet.shape[0]


@pytest.mark.parametrize("axes, rows, says, alt, complaint", [
    ({"s": (1, 2)}, (), (), "x", "axes: got"), ({"s": (1, 2, 3)}, ("a", "b"), (), "x", "rows"),
    ({"s": (1, 2, 3)}, (), ("one",), "x", "says"), ({"s": (1, 2, 3)}, (), (), " ", "alt"),
])  # fmt: skip
def test_sliders_that_do_not_fit_are_refused(axes, rows, says, alt, complaint):
    with pytest.raises(ValueError, match=complaint):
        figures.explorer(states(3, 1, 1, 3, 4, 4), axes, alt, rows, says)
