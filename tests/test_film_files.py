"""Film files as telephones and encoders write them: turned, mirrored, of oblong pixels, damaged, a song's cover."""

import random
import struct

import numpy as np
import pytest
import torch

from soralab.files.films import read_film, save_film

av = pytest.importorskip("av")

# What a player does to a frame, as (a, b, c, d) of the file's matrix: (x, y) is shown at (a x + c y, b x + d y).
TURNS = {
    "a quarter clockwise": ((0, 1, -1, 0), lambda film: film.rot90(-1, (2, 3))),
    "half": ((-1, 0, 0, -1), lambda film: film.rot90(2, (2, 3))),
    "a quarter anticlockwise": ((0, -1, 1, 0), lambda film: film.rot90(1, (2, 3))),
    "mirrored": ((-1, 0, 0, 1), lambda film: film.flip(3)),
    "upside down": ((1, 0, 0, -1), lambda film: film.flip(2)),
    "mirrored and turned": ((0, 1, 1, 0), lambda film: film.transpose(2, 3)),
    "mirrored and turned the other way": ((0, -1, -1, 0), lambda film: film.transpose(2, 3).flip(2).flip(3)),
    "as it is": ((1, 0, 0, 1), lambda film: film),
}


def corners(h=256, w=320):
    """A still film whose four corners differ, so that no turn and no mirror leaves it as it is."""
    film = torch.full((3, 3, h, w), -1.0)
    film[:, 0, : h // 2] = 1
    film[:, 1, :, : w // 4] = 1
    return film


def set_matrix(path, a, b, c, d):
    """Write the matrix into the track's header of an .mp4: 9 numbers, after 4 + 4 + 20 + 8 + 8 bytes (version 0)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4
    assert data[at] == 0
    data[at + 40 : at + 76] = struct.pack(">9i", *(v * 65536 for v in (a, b)), 0, *(v * 65536 for v in (c, d)), 0, 0, 0,
                                          1 << 30)  # fmt: skip
    path.write_bytes(data)


@pytest.mark.parametrize("turn", TURNS)
def test_a_film_is_read_as_it_is_to_be_shown(tmp_path, turn):
    path = save_film(tmp_path / "a.mp4", corners())
    plain = read_film(path)
    matrix, shown = TURNS[turn]
    set_matrix(path, *matrix)
    assert torch.equal(read_film(path), shown(plain))


def video(path, codec="libx264", film=None, aspect=None):
    """A film written by av with the sample aspect ratio `aspect`."""
    pictures = (((corners() if film is None else film).permute(0, 2, 3, 1) + 1) * 127.5).byte().numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        stream.thread_count = 1  # or the file differs by the number of cores
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    "aspect, size", [("2/1", (256, 640)), ("1/2", (512, 320)), ("16/11", (256, 465)), ("1/1", (256, 320))]
)
def test_pixels_that_are_not_square_are_stretched(tmp_path, aspect, size):
    from fractions import Fraction

    film = read_film(video(tmp_path / "a.mp4", aspect=Fraction(aspect)))
    assert tuple(film.shape[2:]) == size
    assert (film[:, 0, 10, 10] > 0.8).all() and (film[:, 1, 10, -10] < -0.8).all()  # the corners are where they were


def ffmpeg_tells(data: bytes) -> bool:
    """Does FFmpeg, left to itself, find damage in this film: an error, or a frame that it marks?"""
    from io import BytesIO

    try:
        with av.open(BytesIO(data)) as container:
            container.streams.video[0].thread_type = "NONE"
            return any(frame.is_corrupt for frame in container.decode(video=0))
    except av.error.FFmpegError:
        return True


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [20, 400])
def test_random_bytes_inside_a_film_are_noticed(tmp_path, codec, size):
    """FFmpeg conceals what it cannot read, by green or by the frame before, and says nothing unless asked.

    A few bytes may also decode to other pixels and break no rule: nobody can notice these. How many do so depends
    on the film that the encoder makes here: of 20 bytes in H.264 some half.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} here")
    noise = torch.rand(12, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    path = video(tmp_path / "a.mp4", codec, noise.repeat_interleave(8, 2).repeat_interleave(8, 3))
    data = path.read_bytes()
    start, rng = data.find(b"mdat") + 1500, random.Random(size)  # behind the encoder's name
    end = data.find(b"moov") if data.find(b"moov") > start else len(data)
    assert len(read_film(path)) == 12
    told = 0
    for _ in range(12):
        at = rng.randrange(start, end - size)
        broken = data[:at] + rng.randbytes(size) + data[at + size :]
        path.write_bytes(broken)
        if ffmpeg_tells(broken):
            told += 1
            with pytest.raises(OSError, match=r"a\.mp4 is damaged|a\.mp4 is not a film"):
                read_film(path)
    assert told >= 2  # the cases are cases


def test_the_cover_of_a_song_is_not_a_film(tmp_path):
    """An mp3 with a picture in its head (ID3v2.3, frame APIC): players show it, but nothing moves."""
    from io import BytesIO

    from PIL import Image

    song, cover = BytesIO(), BytesIO()
    Image.new("RGB", (64, 64), "red").save(cover, "PNG")
    with av.open(song, "w", format="mp3") as container:
        codec = next((c for c in ("libmp3lame", "mp3") if c in av.codecs_available), None)
        if codec is None:
            pytest.skip("no encoder of mp3 here")
        stream = container.add_stream(codec, rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
        frame.rate = 44100
        for _ in range(20):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    picture = b"\0image/png\0\x03\0" + cover.getvalue()
    apic = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(apic) >> shift & 0x7F for shift in (21, 14, 7, 0))
    (tmp_path / "song.mp3").write_bytes(b"ID3\x03\0\0" + size + apic + song.getvalue())
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert container.streams.video  # so FFmpeg takes it for a film
    with pytest.raises(OSError, match="not a film"):
        read_film(tmp_path / "song.mp3")


def test_a_missing_av_is_told_in_one_line_before_a_film_is_made(tmp_path, monkeypatch):
    import sys

    from soralab.files.films import check_film_path

    path = save_film(tmp_path / "a.mp4", corners())
    monkeypatch.setitem(sys.modules, "av", None)
    for what in (read_film, check_film_path):
        with pytest.raises(OSError, match="need the package av"):
            what(path)
    assert len(read_film(save_film(tmp_path / "a.gif", corners()))) == 3  # which need no av
