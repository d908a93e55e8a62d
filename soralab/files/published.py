"""Weights that others published: read without running anything in the file, and laid into our models by their names.

A layout says where each published weight lies in a model of ours: {its name: the tensor, or several one under another}.
The tensors are views of the model's own, split, joined, turned or reshaped as the other code has them, so their shapes
are the shapes to expect, and to fill them is to fill the model. On the meta device this asks of names and shapes alone.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.files.download import downloads

Layout = dict[str, "Tensor | tuple[Tensor, ...]"]

MOST_WEIGHTS = 20_000  # in a file; the largest that the course takes, Stable Diffusion's with its averages, has 1,800
MOST_PICKLE = 32 * 2**20  # bytes of a state dict that are not tensors: the names
SAFE = "a .safetensors file, which others often publish beside it,"


# ------------------------------------------------------------------------------------------------- laying them in place


class Mismatch(ValueError):
    """Weights that do not fit, each by its name: `missing` and `strange` with their shapes, `misshapen` with (what it
    is, what it should be); `matched` counts the others."""

    def __init__(self, argument: str, what: str, matched: int, missing: dict, strange: dict, misshapen: dict):
        self.matched, self.missing, self.strange, self.misshapen = matched, missing, strange, misshapen
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"has {', '.join(strange)}, which {what} has not"] if strange else []
        said += [f"{name} is {is_}; it takes {takes}" for name, (is_, takes) in misshapen.items()]
        super().__init__(f"{argument}: {'; '.join(said)}")


def under(stem: str, layers: Mapping[str, nn.Module]) -> Layout:
    """The layout of whole layers, which are called alike inside: {stem + name + ".weight": its weight, ...}."""
    return {f"{stem}{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}


@torch.no_grad()
def fill(layout: Layout, state: Mapping[str, Tensor], what: str, argument: str = "state") -> None:
    """Copy published weights, in whatever precision, to where the layout has them: all of them, or Mismatch.

    what: the model in words, argument: what the caller calls `state`, both for the message.
    """
    places = {name: parts if isinstance(parts, tuple) else (parts,) for name, parts in layout.items()}
    shapes = {name: [sum(map(len, parts)), *parts[0].shape[1:]] if parts[0].ndim else [] for name, parts in
              places.items()}  # fmt: skip
    missing = {name: shape for name, shape in shapes.items() if name not in state}
    strange = {name: list(value.shape) for name, value in state.items() if name not in shapes}
    misshapen = {}
    for name, value in state.items():
        if name in shapes and list(value.shape) != shapes[name]:
            misshapen[name] = (list(value.shape), shapes[name])
        elif name in shapes and not value.is_floating_point():
            misshapen[name] = (str(value.dtype).removeprefix("torch."), "floating point")
    if missing or strange or misshapen:
        matched = len(shapes) - len(missing) - len(misshapen)
        raise Mismatch(argument, what, matched, missing, strange, misshapen)
    for name, parts in places.items():
        pieces = state[name].split([len(part) for part in parts]) if len(parts) > 1 else [state[name]]
        for part, piece in zip(parts, pieces, strict=True):
            part.copy_(piece)


def export(layout: Layout) -> dict[str, Tensor]:
    """What a model's weights would be as the other code publishes them: copies, under its names."""
    contiguous = {"memory_format": torch.contiguous_format}
    return {name: torch.cat(parts).detach() if isinstance(parts, tuple) else parts.detach().clone(**contiguous)
            for name, parts in layout.items()}  # fmt: skip


def shape_of(state: Mapping[str, Tensor], name: str, axes: int, what: str, argument: str = "state") -> torch.Size:
    """The shape of a weight that tells a model's sizes. Raises ValueError if it is not there or tells none."""
    if name not in state:
        raise ValueError(f"{argument} has no {name}; it takes the weights of {what}")
    shape = state[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{name} is {list(shape)}; it takes {axes} axes, none of them empty")
    return shape


def counted(state: Mapping[str, Tensor], stem: str) -> int:
    """How many different numbers follow `stem` in the names: blocks.0.x, blocks.1.x are 2 behind "blocks."."""
    return len({match[1] for match in (re.match(re.escape(stem) + r"(\d+)\.", name) for name in state) if match})


# -------------------------------------------------------------------------------------------------------- reading them


def fetched(*names: str) -> list[Path]:
    """The files of these names in the folder of published weights, where a reader has put them.

    If one of them is not there, none, and two lines that say what to put where.
    """
    files = [downloads() / "weights" / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        print(f"not here: {', '.join(missing)}")
        print("If you have them, put them into data/downloads/weights (with SORALAB_DATA: into weights in that "
              "folder)")  # fmt: skip
    return [] if missing else files


def read_weights(path: str | os.PathLike, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors in a file of weights, by name: a safetensors file, or a state dict that PyTorch (from 1.6) saved.

    They lie in the file until they are read; device "meta" has their names, types and shapes alone. Nothing in a file
    is run: a pickle is read by PyTorch's `weights_only`, in files whose tables claim no more than the file holds.
    Raises FileNotFoundError, and ValueError of one line for whatever is no such file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no plain file"
        raise ValueError(f"{path} is {what}; it takes a file of weights, such as model.safetensors")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04"):  # what PyTorch takes for an archive of its own
        state = _state_dict(path)
    elif head[8:9] == b"{":
        state = _safetensors(path)
    else:
        raise ValueError(f"{path} is {_no_weights(head)}; it takes a safetensors file or a state dict")
    if not 0 < len(state) <= MOST_WEIGHTS:
        raise ValueError(f"{path} holds {len(state) or 'no'} tensors; it takes from 1 to {MOST_WEIGHTS}")
    return {name: torch.empty_like(value, device="meta") if device == "meta" else value for name, value in
            state.items()}  # fmt: skip


def _no_weights(head: bytes) -> str:
    """What a file is that begins like this."""
    text = head.lstrip().lower()
    if not head:
        return "empty"
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page: the download ended at a notice or a login"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer to a file that git-lfs has not fetched (`git lfs pull`)"
    if head.startswith(b"\x80"):
        return "a bare pickle, as PyTorch saved before 1.6, and those can run code when they are read"
    return "no file of weights that the course knows"


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    """One line for whatever a reader stumbles over in a file that may hold anything."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
    return ValueError(f"{path} is damaged ({reason}): fetch it again")


def _state_dict(path: Path) -> dict[str, Tensor]:
    """What `torch.save` wrote: {name: tensor}, or {"state_dict": that} of a training's checkpoint."""
    _check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        held = re.search(r"GLOBAL (\S+)", str(error))
        if not held:
            raise _damaged(path, error) from error
        text = f"{path} holds a {held[1]} beside tensors, and that could run code: take {SAFE} instead"
        raise ValueError(text) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds no state dict ({type(found).__name__}); it takes tensors by their names")
    state = {}
    for name, value in found.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
        if not isinstance(name, str) or not plain:
            kind = type(value).__name__
            raise ValueError(f"{path}: {name!r} names no plain tensor ({kind}); it takes tensors by their names")
        state[name] = value.detach()
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > path.stat().st_size:
        raise ValueError(f"{path} claims {claimed} bytes of tensors, more than it holds: it would fill the memory")
    return state


def _check_archive(path: Path) -> None:
    """Raise ValueError for a zip file that is none of PyTorch's, holds code, or would grow as it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:
        raise _damaged(path, error) from error
    inside = {entry.filename.partition("/")[2]: entry for entry in entries}
    if "data.pkl" not in inside:
        raise ValueError(f"{path} is a zip file without a state dict; it takes a safetensors file or a state dict")
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise ValueError(f"{path} is a TorchScript archive, which holds code beside its weights: take {SAFE} instead")
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or inside["data.pkl"].file_size > MOST_PICKLE or sum(e.file_size for e in entries) > path.stat().st_size:
        raise ValueError(f"{path} would grow as it is unpacked, which a state dict does not: it takes another file")
