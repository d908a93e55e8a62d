"""Film files out (.gif .mp4 .webp .png) and in (whatever Pillow or av reads).

A film is [time, 3, height, width] of float in [-1, 1]. No other program is needed: Pillow writes the animated
pictures, the av library brings its own FFmpeg.
"""

import itertools
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from soralab.files.atomic import atomic_write, check_writable, explain, explained
from soralab.files.counts import so_many
from soralab.files.upright import ORIENTATION, as_held, resized, square_pixels, upright

FILM_SUFFIXES = (".gif", ".mp4", ".webp", ".png")
SHORT_SIDE = 256  # pixels; films below it are enlarged by a whole factor, each pixel a sharp square
GAP = 1  # pixels of the film, before it is enlarged, between films side by side
MAX_FRAMES = 1024
MAX_SIDE_PRODUCT = 4096 * 4096  # pixels of one frame of a file that is read
MAX_VALUES = 2**28  # pixels of the whole film that is returned: 3 GB of float32
PICTURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*")  # how files that Pillow reads begin; .webp too


class Unreadable(OSError):
    """A file that is no film or a damaged one; the text names the mend."""


class TooLarge(ValueError):
    """A film whose frames would not fit into memory."""


def check_film_path(path: str | os.PathLike) -> Path:
    """Return `path` if a film can be written there; decided by trying, before any work is done.

    Raises ValueError (the suffix is none of FILM_SUFFIXES) and OSError (the folder is missing or may not be
    written, or `path` is a folder).
    """
    path = Path(path)
    if path.suffix.lower() not in FILM_SUFFIXES:
        raise ValueError(f"the film {str(path)!r} has the suffix {path.suffix or 'none'!r}, known are "
                         f"{' '.join(FILM_SUFFIXES)}")
    check_writable(path)
    if path.suffix.lower() == ".mp4":
        import_av()
    return path


def save_film(path: str | os.PathLike, film, fps: float = 8) -> Path:
    """Write `film` to `path` as its suffix says (.gif, .mp4, .webp, .png = animated PNG); return `path`.

    film: tensor or array [time, 3, height, width] in [-1, 1] (values outside are clipped), or several of one
    shape, [n, time, 3, height, width], which are laid side by side. Films with a side under SHORT_SIDE are
    enlarged. .webp and .png keep each value to 1/255, .gif up to 256 colours, .mp4 (H.264) is lossy.
    Raises ValueError for another shape, NaN, a bad fps or suffix, OSError if `path` cannot be written.
    """
    path = check_film_path(path)
    if not 0 < fps <= 100:
        raise ValueError(f"fps is {fps!r}, it takes a number of frames a second above 0, up to 100")
    frames = _frames(film)
    with atomic_write(path) as temporary:
        _write(temporary, frames, fps)
    return path


class _Tried(Exception):
    """It can be written; it is not kept."""


def try_film(path: str | os.PathLike, height: int, width: int, n: int = 1) -> None:
    """Encode a frame of n films of this size as `save_film` will, and leave nothing: what cannot be written is known
    before a film is made. Raises as save_film does, and OSError for whatever an encoder finds."""
    path = check_film_path(path)
    frames = _frames(np.zeros((n, 1, 3, height, width)))
    try:
        with atomic_write(path) as temporary:
            _write(temporary, frames, 8)
            raise _Tried
    except _Tried:
        return
    except OSError:
        raise
    except Exception as error:
        others = " ".join(suffix for suffix in FILM_SUFFIXES if suffix != path.suffix.lower())
        raise OSError(f"{path} cannot be written as {path.suffix} on this machine: take {others}") from error


def _write(path: Path, frames: np.ndarray, fps: float) -> None:
    factor = max(1, math.ceil(SHORT_SIDE / min(frames.shape[1:3])))
    write = _write_video if path.suffix.lower() == ".mp4" else _write_animation
    write(path, frames, factor, fps)


def _frames(film) -> np.ndarray:
    """uint8 [time, height, width, 3] of a film or of several side by side."""
    if hasattr(film, "detach"):
        film = film.detach().float().cpu().numpy()
    film = np.asarray(film, dtype=np.float32)
    if film.ndim not in (4, 5) or film.shape[-3] != 3 or 0 in film.shape:
        raise ValueError(f"film has the shape {list(film.shape)}, it takes [time, 3, height, width] or "
                         "[n, time, 3, height, width]")
    if not np.isfinite(film).all():
        raise ValueError("film holds values that are not finite (NaN or inf), it takes values in [-1, 1]")
    films = np.rint((film.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return _tiled(films) if films.ndim == 5 else np.ascontiguousarray(films.transpose(0, 2, 3, 1))


def _tiled(films: np.ndarray) -> np.ndarray:
    """Lay films uint8 [n, time, 3, h, w] out in a grid, a row up to four: uint8 [time, height, width, 3]."""
    n, time, _, h, w = films.shape
    columns = n if n <= 4 else math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    out = np.full((time, rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, dtype=np.uint8)
    for i, film in enumerate(films):
        y, x = i // columns * (h + GAP), i % columns * (w + GAP)
        out[:, y : y + h, x : x + w] = film.transpose(0, 2, 3, 1)
    return out


def _enlarged(frame: np.ndarray, factor: int) -> np.ndarray:
    """`frame` [height, width, ...] with each pixel as a factor×factor square."""
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def _write_animation(path: Path, frames: np.ndarray, factor: int, fps: float) -> None:
    from PIL import Image, PngImagePlugin

    suffix = path.suffix.lower()
    if suffix == ".gif":
        # One palette for the whole film, or still parts would flicker.
        time, h, w, _ = frames.shape
        strip = Image.fromarray(frames.reshape(time * h, w, 3)).quantize(256, dither=Image.Dither.NONE)
        indices = np.asarray(strip).reshape(time, h, w)
        images = [Image.fromarray(_enlarged(frame, factor), mode="P") for frame in indices]
        for image in images:
            image.putpalette(strip.getpalette())
    else:
        images = [Image.fromarray(_enlarged(frame, factor)) for frame in frames]
    # All three formats store a frame that equals the one before as a longer showing of that one; the note
    # lets `read_film` give all frames back.
    note = f"frames={len(frames)} fps={fps:g}"
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", note)
    options = {".gif": {"comment": note.encode(), "optimize": False},
               ".webp": {"lossless": True, "quality": 60, "xmp": note.encode()},
               ".png": {"pnginfo": info}}[suffix]
    images[0].save(path, format=suffix[1:].upper(), save_all=True, append_images=images[1:], loop=0,
                   duration=round(1000 / fps), **options)


def _write_video(path: Path, frames: np.ndarray, factor: int, fps: float) -> None:
    av = import_av()
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"crf": "14", "preset": "medium"} if codec == "libx264" else {"qscale": "2"}
    # yuv420p keeps colour at half the height and width, so both must be even
    height, width = (math.ceil(side * factor / 2) * 2 for side in frames.shape[1:3])
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for frame in frames:
                big = _enlarged(frame, factor)
                missing = ((0, height - big.shape[0]), (0, width - big.shape[1]), (0, 0))
                big = np.pad(big, missing, mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(big, format="rgb24")))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:  # not all of them are an OSError, a full disk is none
        raise explain(OSError(error.errno, error.strerror), path) from error


def read_film(path: str | os.PathLike, frames: int | None = None, height: int | None = None,
              width: int | None = None, start: int = 0, step: int = 1, fewer: bool = False):
    """Read a film file: float tensor [time, 3, height, width] in [-1, 1].

    Takes frames start, start + step, ... of the file, `frames` of them, by default all (at most MAX_FRAMES). A file
    that has not as many is refused or, with `fewer`, read to its end.
    height, width (pixels): of each frame the largest middle part of their shape is averaged down (or
    enlarged) to them; with one of them given the other follows; with none the frames stay as they are.
    Reads .gif, .webp, .png, .jpg and .tif by Pillow, all else (.mp4, .avi, .mov, .webm, ...) by av; a still picture is
    a film of one frame. Raises FileNotFoundError and OSError (no film, damaged), ValueError (bad arguments, too
    few frames, too large).
    """
    import torch

    for name, value, least in (("frames", frames, 1), ("height", height, 1), ("width", width, 1),
                               ("start", start, 0), ("step", step, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is {value!r}, it takes a whole number from {least}")
    if frames is not None and frames > MAX_FRAMES:
        raise ValueError(f"frames is {frames}, it takes at most {MAX_FRAMES}")
    path = Path(path)
    check_readable(path)
    taken, index = [], -1
    for index, frame in enumerate(_decode(path)):
        if index < start or (index - start) % step:
            continue
        if len(taken) == MAX_FRAMES:
            raise ValueError(f"{path.name} has more than {MAX_FRAMES} frames: cut a part of it into a file of its own "
                             "(read_film itself takes `frames`)")
        frame = resized(frame, height, width)
        if (len(taken) + 1) * frame.shape[-2] * frame.shape[-1] > MAX_VALUES:
            size = f"{frame.shape[-1]}x{frame.shape[-2]}"
            raise ValueError(f"{path.name} is too large to be held whole ({size} pixels a frame): take fewer "
                             "frames, or give a height and width")
        taken.append(frame)
        if len(taken) == frames:
            break
    if index < 0:
        raise ValueError(f"{path.name} has no frames: name another film")
    if not taken or len(taken) < (frames or 1) and not fewer:
        wanted = f"{frames or 'any'} from frame {start}" + (f", every {step}" if step > 1 else "")
        raise ValueError(f"{path.name} has {so_many(index + 1, 'frame')}, too few to take {wanted}: take fewer, or "
                         "another film")
    return torch.stack(taken)


def check_readable(path: str | os.PathLike) -> None:
    """Raise OSError of one sentence unless `path` is a regular file that holds something."""
    path = Path(path)
    with explained(path):  # a name that is too long raises here
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder: name a film file")
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}: check the name")
        if not path.is_file():
            raise OSError(f"{path} is not a regular file: name a film file")
        if path.stat().st_size == 0:
            raise OSError(f"{path} is empty: name a film file")


def _decode(path: Path) -> Iterator[np.ndarray]:
    """The frames of the file in order, uint8 [height, width, 3]. Its first bytes, not its name, count."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}): give yourself the right to") from error
    picture = head.startswith(PICTURES) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
    return _decode_picture(path) if picture else _decode_video(path)


@contextmanager
def _unreadable(say: Callable[[], str]) -> Iterator[None]:
    """Whatever a library raises in the block becomes Unreadable with the text say(): each damage has its own error.
    Its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (Unreadable, TooLarge, MemoryError):
            raise
        except Exception as error:
            raise Unreadable(say()) from error


def _check_size(path: Path, height: int, width: int) -> None:
    if height * width > MAX_SIDE_PRODUCT:
        raise TooLarge(f"{path.name} has frames of {width}x{height} pixels, at most {MAX_SIDE_PRODUCT} are "
                         "read: make it smaller first")


def _decode_picture(path: Path) -> Iterator[np.ndarray]:
    from PIL import Image

    with _unreadable(lambda: f"{path} is damaged, not all of it can be read: name another film"), \
         Image.open(path) as image:
        _check_size(path, image.height, image.width)
        left, tick = _note(image)
        # some cameras keep a second, smaller picture in a .jpg
        stored = getattr(image, "n_frames", 1) if image.format in ("GIF", "PNG", "WEBP") else 1
        for index in range(stored):
            image.seek(index)
            frame = as_held(np.asarray(image.convert("RGBA").convert("RGB")), image.getexif().get(ORIENTATION, 1))
            times = round(image.info.get("duration", 0) / tick) if tick else 1
            if left and index == stored - 1:
                times = left
            times = max(1, times)
            yield from itertools.repeat(frame, times)
            left = max(0, left - times)


def _note(image) -> tuple[int, int]:
    """(frames, milliseconds of one frame) from the note that `save_film` leaves; (0, 0) without one."""
    note = image.info.get("comment") or image.info.get("xmp") or b""
    note = note.decode("latin-1") if isinstance(note, bytes) else note
    found = re.fullmatch(r"frames=(\d{1,6}) fps=(\d{1,3}(?:\.\d{1,6})?)\0*", note)
    if found is None or float(found[2]) == 0:
        return 0, 0
    duration = round(1000 / float(found[2]))
    # a GIF counts in hundredths of a second
    return int(found[1]), duration // 10 * 10 if image.format == "GIF" else duration


def _decode_video(path: Path) -> Iterator[np.ndarray]:
    av = import_av()
    no_film = f"{path} is not a film that can be read: name a film file (.mp4, .gif, .webp, .avi, .mov, ...)"
    count = 0

    def said() -> str:
        return f"{path} is damaged after frame {count}: name another film" if count else no_film

    # A title may be in any alphabet: av 19 knows, and no longer has the argument.
    lenient = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    # An open file, not a name, and no protocol: FFmpeg would follow names like http:... and lists of files.
    with open(path, "rb") as file, _unreadable(said), \
         av.open(file, options={"protocol_whitelist": "none"}, **lenient) as container:
        # FFmpeg can render text files as films; nobody who gives one means that. Nor the cover of a song.
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams or container.format.name == "tty":
            raise Unreadable(no_film)
        stream = streams[0]
        stream.codec_context.options = {"err_detect": "explode"}  # rather than green where data are damaged
        stream.thread_type = "NONE"  # with threads H.264 forgets that it was told so
        _check_size(path, stream.codec_context.height, stream.codec_context.width)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise Unreadable(said())
            height, width = square_pixels(frame, stream.sample_aspect_ratio)
            _check_size(path, height, width)
            count += 1
            yield upright(frame.to_ndarray(format="rgb24", width=width, height=height), frame)


def import_av():
    """The av library. Raises OSError of one line where it is missing or does not work."""
    try:
        import av
    except ImportError as error:
        raise OSError(f"film files need the package av, which does not import ({str(error).splitlines()[0]}): "
                      "`python3 course.py lab` installs it; a .gif, .webp or .png can be written without") from error
    return av
