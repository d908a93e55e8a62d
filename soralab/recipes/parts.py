"""Libraries that take minutes to make, made and kept part by part: one that was stopped goes on from its last part."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from soralab.files.checkpoints import load_checkpoint, read_card, remove_checkpoint, save_checkpoint


def made(
    path: Path | None, of: dict, films: int, size: int, make: Callable[[int, int], dict[str, Tensor]], told: str
) -> dict[str, Tensor]:
    """A library {name: tensor [films, ...]}: from the checkpoint `path`, if its card says that it is `of` this; else
    made, `size` films at a time, and kept there.

    make(first, end) makes the films of these numbers. Until the library is whole its parts lie beside `path`; None: in
    memory alone. Where it is stopped, `told` says on stderr what was being made, such as "9_32x32 encoded". Raises
    CheckpointError, with the mend, for a file that is damaged.
    """
    parts = {first: path and path.with_name(f"{path.name}_part_{first // size}") for first in range(0, films, size)}
    found = held(path, of)
    if found is None:
        each = [_part(part, {**of, "part": [first, min(first + size, films)]}, make, told)
                for first, part in parts.items()]  # fmt: skip
        found = {name: torch.cat([some[name] for some in each]) for name in each[0]}
        if path:
            save_checkpoint(path, found, {"of": of})
    for part in filter(None, parts.values()):  # also those of a call that was stopped here
        remove_checkpoint(part)
    return found


def held(path: Path | None, of: dict) -> dict[str, Tensor] | None:
    """What the checkpoint `path` holds, if its card says that it is `of` this; else None."""
    mend = f"remove {path}.json, and its films are made again"
    if path and path.with_suffix(".json").exists() and read_card(path, mend).get("of") == of:
        return load_checkpoint(path, mend=mend)[0]
    return None


def _part(path: Path | None, of: dict, make: Callable[[int, int], dict[str, Tensor]], told: str) -> dict[str, Tensor]:
    found = held(path, of)
    if found is None:
        try:
            found = make(*of["part"])
            if path:
                save_checkpoint(path, found, {"of": of})
        except KeyboardInterrupt:
            kept = f"kept in {path.parent}: run the same again to go on" if path else "not kept"
            print(f"stopped with {of['part'][0]:,} of {of['films']:,} films of {told}, {kept}", file=sys.stderr)
            raise
    return found
