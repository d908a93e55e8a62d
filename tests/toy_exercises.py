"""A small exercise on which the framework is tested: cut the middle out of a picture."""

import sys

import torch
from torch import Tensor

from soralab import exercises as package
from soralab.workbook.task import Exercise, WrongAnswer

EDGE = 2  # the solution uses it, and a pasted solution must find it


def stub(x: Tensor, height: int, width: int) -> Tensor:
    """The middle [height, width] of pictures x [..., h, w]; of an odd rest the larger part lies below and right."""
    raise NotImplementedError


def centre_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle of x."""
    top, left = ((have - want) // EDGE for have, want in zip(x.shape[-2:], (height, width), strict=True))
    return x[..., top : top + height, left : left + width]


def mine(x, height, width):
    """A reader's right answer: the course's own would not be taken for one."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def corner(x, height, width):
    return x[..., :height, :width]


def swapped(x, height, width):
    return centre_crop(x, width, height)


def rounded_up(x, height, width):
    top, left = (x.shape[-2] - height + 1) // 2, (x.shape[-1] - width + 1) // 2
    return x[..., top : top + height, left : left + width]


def check(fn):
    """Probes on pictures whose pixels are their own numbers."""
    x = torch.arange(35.0).reshape(1, 5, 7)
    cut = fn(x, 1, 3)
    yield cut.shape != (1, 3, 1), "The cut is 3 high and 1 wide: height and width are swapped."
    yield cut.flatten()[0] != 0, "You keep the upper left corner, not the middle."
    yield torch.equal(cut, x[:, 2:3, 2:5]), "The cut is not the middle."
    yield torch.equal(fn(x, 4, 4), x[:, 0:4, 1:5]), "Of an odd rest you cut more above than below: round down."


CROP = dict(
    name="unet.centre_crop", title="Cut to fit", statement="Cut the **middle** out.", difficulty=2, minutes=10,
    hints=("How much is left over?", "Half of it lies above.", "Count `(h - height) // 2` rows from the top."),
    stub=stub, solution=centre_crop, check=check,
    wrong={
        "corner": WrongAnswer(corner, "upper left corner"),
        "swapped": WrongAnswer(swapped, "height and width are swapped"),
        "rounded_up": WrongAnswer(rounded_up, "round down"),
    },
)  # fmt: skip


def crop(**changes) -> Exercise:
    """The toy, or one with changes."""
    return Exercise(**{**CROP, **changes})


SYLLABUS = {
    "unet": ("centre_crop", "weight_map"),
    "vit": ("pooling",),
}


def install(monkeypatch, folder):
    """For one test, let the course consist of two chapters with three toys, in files in `folder`."""
    monkeypatch.setattr(package, "__path__", [str(folder)])
    toys = {f"{package.__name__}.{toy}" for chapter, names in SYLLABUS.items()
            for toy in (chapter, *(f"{chapter}.{name}" for name in names))}  # fmt: skip
    for name in toys - set(sys.modules):  # a toy that is imported from now on goes with the test
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith(f"{package.__name__}.")]:
        monkeypatch.delitem(sys.modules, name)
    for chapter, names in SYLLABUS.items():
        monkeypatch.setattr(package, chapter, None, raising=False)  # what it was comes back afterwards
        (folder / chapter).mkdir()
        (folder / chapter / "__init__.py").write_text(f"ORDER = {names!r}\n")
        for name in names:
            toy = f"crop(name='{chapter}.{name}', title='Toy {name}')"
            (folder / chapter / f"{name}.py").write_text(f"from toy_exercises import crop\n\nEXERCISE = {toy}\n")
