"""A training run's state on disk: weights, average, optimizer's moments, step; and its JSON-lines log."""

import errno
import hashlib
import json
import os
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.files.atomic import atomic_write, explained
from soralab.training.config import TrainConfig
from soralab.training.ema import EMA
from soralab.training.muon import MuonAdamW

STRETCH = ("sums", "count", "samples", "spent", "waited")
"""What a run knows of the open stretch of its log."""
SETTINGS = {"muon": False, "scale": 1.0, "weight_decay": 0.0, "betas": (), "eps": 0.0, "amsgrad": False,
            "maximize": False}  # fmt: skip
"""What of a group of the optimizer makes another run, and what a group has that does not say it. Its learning rate is
the loop's, and how it is computed (fused, foreach) the machine's."""


def is_state(card: dict) -> bool:
    """Whether a card is that of a training's state, its entries of the kinds that they should be."""
    kinds = {"config": dict, "step": int, "seconds": (int, float), "loss": (int, float, type(None)), "stretch": dict}
    config = {field.name for field in fields(TrainConfig)}
    return (all(isinstance(card.get(name, object()), kind) for name, kind in kinds.items())
            and isinstance(card.get("trained", []), list) and isinstance(card.get("groups", []), list)
            and all(isinstance(group, dict) for group in card.get("groups", []))
            and set(card["stretch"]) == set(STRETCH) and set(card["config"]) <= config)  # fmt: skip


def trained_as(model: nn.Module, optimizer: MuonAdamW) -> dict[str, list]:
    """What is trained, and how, as a card holds it: {"trained": the parameters' names in the optimizer's order, "" of
    one that is not the model's; "groups": of each group how many parameters it has, and its SETTINGS}."""
    names, groups = {id(value): name for name, value in model.named_parameters()}, []
    for group in optimizer.param_groups:
        said = {name: group.get(name, usual) for name, usual in SETTINGS.items()}
        said |= {"betas": list(said["betas"])} | ({"momentum": optimizer.momentum} if said["muon"] else {})
        groups.append({"parameters": len(group["params"]), **said})
    trained = [names.get(id(value), "") for group in optimizer.param_groups for value in group["params"]]
    return {"trained": trained, "groups": groups}


def same_trained(card: dict, here: dict[str, list]) -> None:
    """Raise ValueError, naming the first, where a state's moments, which are kept by number, are of other parameters
    than those trained here or in another order, or its groups were trained otherwise. Compared is what its card says:
    one of before says nothing."""
    for number, (there, now) in enumerate(zip_longest(*_both("trained", card, here), fillvalue="none"), 1):
        if there != now:
            raise ValueError(f"what is trained differs from the saved state: parameter {number} is {there} there and "
                             f"{now} here; give the same, or begin anew with resume=False")  # fmt: skip
    for number, (there, now) in enumerate(zip_longest(*_both("groups", card, here), fillvalue={"parameters": 0}), 1):
        for name in [name for name in there if there[name] != now.get(name)]:
            raise ValueError(f"how it is trained differs from the saved state: {name} of group {number} is "
                             f"{there[name]} there and {now.get(name)} here; give the same, or begin anew with "
                             "resume=False")  # fmt: skip


def _both(entry: str, card: dict, here: dict[str, list]) -> tuple[list, list]:
    return card.get(entry) or here[entry], here[entry]


def weights_hash(model: nn.Module) -> str:
    """The SHA-256 of all that a model holds, wherever it lies: what was made with it is known by that."""
    weights = torch.cat([value.flatten() for value in model.state_dict().values()])
    return hashlib.sha256(weights.cpu().numpy().tobytes()).hexdigest()


def gather(model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that the next step depends on, by name: model/…, ema/…, optimizer/index/moment."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema/{k}": v for k, v in ema.shadow.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": v for k, v in moments.items()}
    return tensors


def restore(tensors: dict[str, Tensor], model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> None:
    """Put back what `gather` gave. Raises ValueError if it is of a model with other tensors."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = value
    _same_shapes(parts["model"], model.state_dict())
    _same_shapes(parts["ema"], ema.shadow)
    model.load_state_dict(parts["model"])
    for key, value in parts["ema"].items():
        ema.shadow[key].copy_(value)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, key = name.partition("/")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _same_shapes(saved: dict[str, Tensor], here: dict[str, Tensor]) -> None:
    for name in sorted(saved.keys() | here.keys()):
        there, now = (tuple(d[name].shape) if name in d else "missing" for d in (saved, here))
        if there != now:
            raise ValueError(f"model differs from the saved one: {name} is {there} there and {now} here; "
                             "give another folder, or begin anew with resume=False")


def append_log(path: Path, record: dict) -> None:
    """Add one line to the JSON-lines log in one write, so that no reader meets half a line."""
    with explained(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            line = (json.dumps(record) + "\n").encode()
            if os.write(handle, line) < len(line):  # the disk had room for a part only
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


def read_log(path: Path) -> list[dict]:
    """The records of a JSON-lines log in order, none without a file; a line that a crash cut is skipped."""
    records = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        records += [record] if isinstance(record, dict) else []
    return records


def trim_log(path: Path, step: int) -> None:
    """Drop the records after `step`: the run resumes there and will write them again."""
    kept = [record for record in read_log(path) if record.get("step", step + 1) <= step]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
