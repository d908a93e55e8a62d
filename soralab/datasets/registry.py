"""The real data sets of the course: what each is, whose, which files it has, where they come from and where they go.

None is part of the course. Each lies in a folder of its own name, in the folder that the environment variable
SORALAB_DATA names, or in data/downloads of the repository. `soralab data get NAME` fetches what may be fetched
(`shelf`); what may not, and a reader's own, is put there by hand. Loaders ask here where to look and what to say.

published.tsv, beside this file, lists every file that is fetched: its set, place, bytes, digest (as its host,
torchvision or TensorFlow Datasets publish it), addresses, and what an archive holds, as PATTERN=COUNT.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from soralab.files.download import downloads

PUBLISHED = Path(__file__).with_name("published.tsv")
SWITCH = "SORALAB_DATASET"  # names the set that a chapter is trained on


@dataclass(frozen=True)
class File:
    """A file that is fetched: its place in the set's folder, its bytes (0: not published), its digest ("md5:...",
    "sha256:...", or "" where none is published) and the addresses that have it, the first one first.

    An archive `holds` files, as {pattern: how many at least}; it is unpacked where it lies, and then removed.
    """

    path: str
    size: int
    digest: str
    urls: tuple[str, ...]
    holds: dict[str, int] = field(default_factory=dict)

    @property
    def needs(self) -> dict[str, int]:
        """What is there when it was fetched, and unpacked: {pattern: how many at least}."""
        return self.holds or {self.path: 1}


@dataclass(frozen=True)
class DataSet:
    """A data set. `licence`: as commonly stated; read it at `home`. `chapters`: that use it.

    `ask` says where a reader gets what cannot be fetched, and `puts` what that is, as {pattern: how many at least}.
    `own`: the reader's own files, of which there is no list.
    """

    name: str
    what: str
    licence: str
    home: str
    chapters: tuple[int, ...]
    ask: str = ""
    puts: dict[str, int] = field(default_factory=dict)
    own: bool = False

    @property
    def files(self) -> tuple[File, ...]:
        """Its files that are fetched."""
        return published().get(self.name, ())

    @property
    def size(self) -> int:
        """The bytes that are fetched; 0 where that is not known."""
        return sum(file.size for file in self.files)

    @property
    def needs(self) -> dict[str, int]:
        """What there is when the set is whole: {pattern: how many at least}."""
        return {pattern: count for file in self.files for pattern, count in file.needs.items()} | self.puts

    def missing(self, folder: Path) -> dict[str, int]:
        """What a folder lacks of it: {pattern: how many}."""
        lacks = {pattern: count - sum(1 for _ in folder.glob(pattern)) for pattern, count in self.needs.items()}
        return {pattern: count for pattern, count in lacks.items() if count > 0}


@cache
def published() -> dict[str, tuple[File, ...]]:
    """The files of each set that are fetched, as published.tsv lists them."""
    found: dict[str, tuple[File, ...]] = {}
    for line in PUBLISHED.read_text(encoding="utf-8").splitlines()[1:]:
        name, path, size, digest, urls, *held = line.split("\t")
        holds = {pattern: int(count) for pattern, _, count in (each.rpartition("=") for each in " ".join(held).split())}
        found[name] = (*found.get(name, ()), File(path, int(size), digest, tuple(urls.split()), holds))
    return found


BY_FORM = "its authors give the photographs to who fills in their form ({})"
DATASETS = {one.name: one for one in (
    DataSet("mnist", "70,000 handwritten digits, grey, 28 x 28", "CC BY-SA 3.0",
            "http://yann.lecun.com/exdb/mnist/", (3, 5, 6, 10)),
    DataSet("fashionmnist", "70,000 pieces of clothing, grey, 28 x 28", "MIT",
            "https://github.com/zalandoresearch/fashion-mnist", (3, 5, 6)),
    DataSet("cifar10", "60,000 pictures of 10 kinds of things, in colour, 32 x 32",
            "none stated; cite Krizhevsky 2009", "https://www.cs.toronto.edu/~kriz/cifar.html", (3, 5)),
    DataSet("isbi2012", "30 slices of a fly's nerve cord with every membrane, grey, 512 x 512",
            "for research, with citation (Cardona 2010, Arganda-Carreras 2015)",
            "https://imagej.net/events/isbi-2012-segmentation-challenge", (1,)),
    DataSet("oxford_pets", "7,390 photographs of cats and dogs, in many sizes, with breeds and outlines",
            "CC BY-SA 4.0", "https://www.robots.ox.ac.uk/~vgg/data/pets/", (7,)),
    DataSet("flickr8k", "8,091 photographs with five sentences each",
            "for non-commercial research; the photographs stay their photographers'",
            "https://hockenmaier.cs.illinois.edu/8k-pictures.html", (4, 12, 13),
            ask=BY_FORM.format("https://forms.illinois.edu/sec/1713398"),
            puts={"Images/*.jpg": 8091, "Flickr8k.token.txt": 1, "Flickr_8k.trainImages.txt": 1,
                  "Flickr_8k.devImages.txt": 1, "Flickr_8k.testImages.txt": 1}),
    DataSet("flickr30k", "31,783 photographs with five sentences each",
            "for non-commercial research; the photographs stay their photographers'",
            "https://shannon.cs.illinois.edu/DenotationGraph/", (4, 12, 13),
            ask=BY_FORM.format("https://shannon.cs.illinois.edu/DenotationGraph/"),
            puts={"flickr30k-images/*.jpg": 31_783, "results_20130124.token": 1}),
    DataSet("multi30k", "31,014 sentences about photographs, in German and English",
            "for research; its repository names no licence for the texts", "https://github.com/multi30k/dataset", (2,)),
    DataSet("tatoeba_hin_eng", "some 3,100 sentences in Hindi and English", "CC BY 2.0 FR, authors on each line",
            "https://www.manythings.org/anki/", (2,)),
    DataSet("ucf101", "13,320 films of 101 things that people do, 320 x 240",
            "for research, with citation (Soomro 2012)", "https://www.crcv.ucf.edu/data/UCF101.php", (8, 15, 16)),
    DataSet("movingmnist", "10,000 films of two digits that move, grey, 20 frames of 64 x 64",
            "none stated; cite Srivastava 2015", "http://www.cs.toronto.edu/~nitish/unsupervised_video/", (8, 15, 16)),
    DataSet("pictures", "a folder of your own pictures, with what each shows in words", "yours", "", (4,),
            ask="your own pictures", puts={"*": 1}, own=True),
    DataSet("films", "a folder of your own films, frame folders or .npz files", "yours", "", (8, 15, 16),
            ask="your own films", puts={"*": 1}, own=True),
)}  # fmt: skip


def dataset(name: str) -> DataSet:
    """A data set of the registry. Raises ValueError for a name that there is none of."""
    if name not in DATASETS:
        raise ValueError(f"NAME is {name!r}; it takes one of {', '.join(DATASETS)}")
    return DATASETS[name]


def root() -> Path:
    """The folder that all sets lie in: SORALAB_DATA, or data/downloads in the repository."""
    return downloads()


def place(name: str, whole: Callable[[Path], bool] = Path.is_dir) -> Path:
    """The folder of a set; NAME_mini, a part of it, where that will do and there is nothing better."""
    full, part = root() / dataset(name).name, root() / f"{name}_mini"
    return part if not whole(full) and whole(part) else full


def mend(name: str) -> str:
    """What to do about a set that is not there, or damaged: a clause for the end of a message, after a colon."""
    one = dataset(name)
    if one.own:
        return f"put {one.ask} into {root() / name}, or set SORALAB_DATA to the folder that holds {name}/"
    way = f"`soralab data get {name}` fetches it" if not one.ask else f"`soralab data get {name}` says where to get it"
    return f"{way}, or set SORALAB_DATA to the folder that holds {name}/"


def chosen() -> DataSet | None:
    """The set that SORALAB_DATASET names, None without. Raises ValueError for a name that there is none of."""
    name = os.environ.get(SWITCH)
    if name and name not in DATASETS:
        raise ValueError(f"{SWITCH} is {name!r}; it takes one of {', '.join(DATASETS)}")
    return DATASETS[name] if name else None
