"""Films of the reader's own in shards: tar archives laid out as WebDataset does, read in an order told by the step.

    FOLDER/000000.tar, 000001.tar, ...    any names that end in .tar, not compressed
        KEY.mp4 (or .avi, .mov, .gif, ...)    a film
        KEY.txt                               what it shows, in UTF-8; without one the film has no words

A sample is what shares a key: the name up to its first dot. What else lies there is passed over. The archives' tables
are read once; then a batch is a pure function of its step, as everywhere in this course: so a training that was stopped
goes on with the very films that would have come next, in any number of processes, and keeps no position but the step.
An epoch goes through the archives in a drawn order, and through one archive before the next, so that a disk or a
network reads near places. Nothing is unpacked by the names that an archive gives.

`python -m soralab.datasets.film_shards FOLDER` writes films of the toy world as such shards.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from soralab.files.atomic import atomic_write, make_folder
from soralab.files.counts import so_many
from soralab.files.films import read_film, save_film

FILMS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".webp", ".png")
LARGEST = 1 << 30  # bytes of a film that is read


class Member(NamedTuple):
    """Where a file lies in its archive: bytes from the beginning, and how many."""

    suffix: str
    start: int
    size: int


class Sample(NamedTuple):
    """A film of an archive, and its words where it has some."""

    shard: Path
    key: str
    film: Member
    text: Member | None


def table(shard: Path) -> list[Sample]:
    """The films of an archive, in its order. Raises ValueError of one line for one that is damaged or compressed."""
    found: dict[str, dict[str, Member]] = {}
    mend = "write it anew, as a tar without compression"
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, dot, rest = name.partition(".")
                kind = "film" if (suffix := f"{dot}{rest}".lower()) in FILMS else "text" if suffix == ".txt" else ""
                if not member.isfile() or not stem or not kind:
                    continue
                if member.offset_data + member.size > shard.stat().st_size:
                    raise ValueError(f"{shard} ends before its {member.name} does: {mend}")
                if member.size > LARGEST:
                    raise ValueError(f"{shard} has a {member.name} of {member.size:,} bytes; it takes {LARGEST:,}")
                place = Member(suffix, member.offset_data, member.size)
                found.setdefault(f"{folder}/{stem}", {})[kind] = place
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard} is damaged or no plain tar ({error}): {mend}") from error
    except OSError as error:
        raise OSError(f"{shard} cannot be read ({error.strerror or error}): give yourself the right to") from error
    return [Sample(shard, key, parts["film"], parts.get("text")) for key, parts in found.items() if "film" in parts]


class FilmShards:
    """Batches of films from a folder's shards, in a new order each epoch.

    Of each film the first `frames` are taken, their middle square averaged to side x side. Raises ValueError for a
    folder that is missing, is without shards or has fewer films than a batch, and for a film or words that cannot be
    read, by their names.
    """

    def __init__(self, folder: str | Path, batch: int, frames: int, side: int, seed: int = 0):
        self.folder, self.batch, self.frames, self.side, self.seed = Path(folder), batch, frames, side, seed
        if not self.folder.is_dir():
            raise ValueError(f"stream is {folder}, and there is no such folder: name one with .tar files of films")
        whole = (path for path in self.folder.glob("*.tar") if not path.name.startswith("."))  # and none half written
        self.shards = [table(path) for path in sorted(whole)]
        self.films = sum(map(len, self.shards))
        if self.films < batch:
            raise ValueError(f"stream is {folder}, whose .tar files hold {so_many(self.films, 'film')}; it "
                             f"takes {batch} or more")
        self._order = lru_cache(maxsize=2)(self.order)

    def order(self, epoch: int) -> list[Sample]:
        """All samples as an epoch shows them: archive after archive."""
        rng = torch.Generator().manual_seed((1_000_003 * self.seed + epoch) % 2**62)
        shards = [self.shards[k] for k in torch.randperm(len(self.shards), generator=rng).tolist()]
        return [shard[k] for shard in shards for k in torch.randperm(len(shard), generator=rng).tolist()]

    def samples(self, step: int) -> list[Sample]:
        """Those of batch `step`. What fills no batch is left out of an epoch."""
        epoch, place = divmod(step, self.films // self.batch)
        return self._order(epoch)[place * self.batch : (place + 1) * self.batch]

    def __call__(self, step: int) -> tuple[Tensor, list[str]]:
        """Batch `step`: films [batch, frames, 3, side, side] in [-1, 1], and their words, "" where there are none."""
        found = [self.read(sample) for sample in self.samples(step)]
        return torch.stack([film for film, _ in found]), [text for _, text in found]

    def read(self, sample: Sample) -> tuple[Tensor, str]:
        """A sample's film [frames, 3, side, side] and its words."""
        text = words(sample)
        with named(sample), TemporaryDirectory() as folder:  # under a name of ours
            path = Path(folder) / f"film{sample.film.suffix}"
            path.write_bytes(contents(sample.shard, sample.film))
            return read_film(path, self.frames, self.side, self.side), text


@contextlib.contextmanager
def named(sample: Sample) -> Iterator[None]:
    """What is wrong with a sample becomes a ValueError of one line that names it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{sample.shard}: {sample.key.lstrip('/')} cannot be taken ({error}): "
                         "mend it or leave it out") from error  # fmt: skip


def words(sample: Sample) -> str:
    """A sample's words, "" where it has none."""
    with named(sample):
        return contents(sample.shard, sample.text).decode().strip() if sample.text else ""


def contents(shard: Path, member: Member) -> bytes:
    """A file of an archive."""
    with open(shard, "rb") as file:
        file.seek(member.start)
        return file.read(member.size)


def write(folder: str | Path, films: Iterable[tuple[Tensor, str]], each: int = 100) -> list[Path]:
    """Write films [time, 3, height, width] in [-1, 1] with their words as shards of `each`; returns their paths.

    As .webp, without loss; the same bytes for the same films.
    """
    folder, paths, waiting = make_folder(folder), [], []
    for number, (film, text) in enumerate(films):
        waiting.append((f"{number:06d}", film, text))
        if len(waiting) == each:
            paths.append(_write_one(folder / f"{len(paths):06d}.tar", waiting))
            waiting = []
    return [*paths, _write_one(folder / f"{len(paths):06d}.tar", waiting)] if waiting else paths


def _write_one(path: Path, samples: list[tuple[str, Tensor, str]]) -> Path:
    with atomic_write(path) as temporary, TemporaryDirectory() as folder, tarfile.open(temporary, "w") as archive:
        for key, film, text in samples:
            shown = save_film(Path(folder) / "film.webp", film)
            for name, data in ((f"{key}.webp", shown.read_bytes()), (f"{key}.txt", text.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def main(argv: list[str] | None = None) -> int:
    """Write the first films of the simple world, with their captions."""
    from soralab import world
    from soralab.world.language import short_caption

    parser = argparse.ArgumentParser(description="Write films of the toy world as shards.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=200, help="how many (default: 200)")
    options = parser.parse_args(argv)

    def films():
        for index in range(options.films):
            scene = world.sample_scene(0, index, "simple")
            yield world.to_film(world.render([scene], 9, 32, 32))[0], short_caption(scene)

    paths = write(options.folder, films())
    print(f"wrote {so_many(options.films, 'film')} in {so_many(len(paths), 'shard')} to {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
