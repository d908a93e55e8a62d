"""Checkpoints: NAME.safetensors (the tensors) and NAME.json (its card), always a matching pair.

Two files cannot be renamed in one stroke, so a save goes in three:

    1. the tensors are written whole to NAME.safetensors.new;
    2. the card, which holds their SHA-256, takes the place of the old card: from here on the new pair counts;
    3. NAME.safetensors.new takes the place of NAME.safetensors.

A crash before 2 leaves the old pair. A crash between 2 and 3 leaves the new card with the new tensors under
their waiting name; whoever loads or saves next finds them by the card's SHA-256 and does step 3.
There is no pickle anywhere: a checkpoint from a stranger can be wrong, but it cannot run code.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

from soralab.files.atomic import (
    _create,
    atomic_write,
    explained,
    make_folder,
    sync,
    sync_folder,
)
from soralab.files.catalogue import IN_TRAINING, MEASURED, SHIPPED
from soralab.files.damage import out_of_memory

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "data" / "checkpoints"
"""Where the shipped checkpoints lie; the environment variable SORALAB_CHECKPOINTS names another folder."""
BEGUN = ROOT / "data" / "in_training"
"""What a training that is not done came to, and what it films through: to go on with, and to film with until then."""
FORMAT = 1
"""Of a checkpoint's two files, as its card says it ("format"); a card that says nothing is of format 1."""


class CheckpointError(OSError):
    """A checkpoint that is missing, damaged or without its card; the text names the mend."""


def checkpoints_folder() -> Path:
    """Where checkpoints lie: SORALAB_CHECKPOINTS where it is set, else the repository's data/checkpoints."""
    chosen = os.environ.get("SORALAB_CHECKPOINTS")
    return Path(chosen).expanduser() if chosen else CHECKPOINTS


def checkpoint_paths(name: str | os.PathLike) -> tuple[Path, Path]:
    """(tensors, card) of a checkpoint.

    name: a plain name ("sora") lies in `checkpoints_folder()`; anything with a folder in it ("runs/a/state",
    or a Path) lies there; a suffix .safetensors or .json may be given or not.
    """
    if not str(name):
        raise ValueError("name of a checkpoint is empty: give a name like 'sora' or a path")
    stem = Path(name)
    if stem.suffix in (".safetensors", ".json"):
        stem = stem.with_suffix("")
    if _plain(name):
        stem = checkpoints_folder() / stem
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


def held_paths(name: str | os.PathLike) -> tuple[Path, Path]:
    """`checkpoint_paths` of what is to be read: a plain name that the course's own folder lacks may lie in `BEGUN`."""
    paths = checkpoint_paths(name)
    begun = tuple(BEGUN / path.name for path in paths)
    lacks = _plain(name) and paths[0].parent == CHECKPOINTS and not (paths[0].exists() or _waiting(paths[0]).exists())
    return begun if lacks and begun[0].exists() else paths


def _plain(name: str | os.PathLike) -> bool:
    """Whether a name has no folder in it, not even "./"."""
    return isinstance(name, str) and os.path.basename(name) == name


def save_checkpoint(name: str | os.PathLike, tensors: dict, card: dict, eight_bits: bool = False) -> Path:
    """Save `tensors` and `card` as the checkpoint `name` (see `checkpoint_paths`); return the tensors' path.

    tensors: {name: tensor} of any shapes, on any device; shared storage is written once for each name.
    eight_bits: matrices and kernels in a byte a weight, as `soralab.files.eight_bits` rounds them.
    card: JSON values (config, data seed, steps, seconds, hardware, metrics, command); "format", "sha256", "bytes" and
    "parameters" are added here. Raises OSError (full disk, unwritable folder: an older checkpoint of that
    name stays whole) and ValueError (a card that JSON cannot hold).
    """
    from safetensors.torch import save

    from soralab.files.eight_bits import pack

    weights, card_path = checkpoint_paths(name)
    # clone(): safetensors refuses tensors that share storage, as tied weights do
    stored = pack(tensors) if eight_bits else tensors
    data = save({key: value.detach().cpu().contiguous().clone() for key, value in stored.items()})
    digest = hashlib.sha256(data).hexdigest()
    count = sum(value.numel() for value in tensors.values())
    try:
        text = json.dumps({**card, "format": FORMAT, "parameters": count, "bytes": len(data), "sha256": digest},
                          indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"card of checkpoint {weights.stem} holds what JSON cannot ({error})") from error

    make_folder(weights.parent)
    _finish(weights, card_path)
    waiting = _waiting(weights)
    try:
        with explained(weights):
            with contextlib.suppress(FileNotFoundError):
                waiting.unlink()
            _create(waiting).write_bytes(data)
            sync(waiting)
        with atomic_write(card_path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except BaseException:
        # Also Ctrl-C: the tensors may go only as long as no card on disk speaks of them.
        if _digest_in(card_path) != digest:
            with contextlib.suppress(OSError):
                waiting.unlink()
        raise
    with explained(weights):
        os.replace(waiting, weights)
        sync_folder(weights.parent)
    return weights


def load_checkpoint(name: str | os.PathLike, config: dict | None = None, device="cpu",
                    mend: str | None = None) -> tuple[dict, dict]:
    """Load the checkpoint `name` after verifying it: ({name: tensor}, card).

    config: what the caller's model needs; it must equal the card's "config" (a tuple equals its list).
    mend: what the reader should do about a damaged checkpoint; by default for a shipped one.
    Raises CheckpointError (an OSError) if it is missing, truncated, altered, of a later format, another's under this
    name, or its card is missing or no JSON; ValueError if it is of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from soralab.files.eight_bits import unpack

    weights, card_path = held_paths(name)
    mend = mend or default_mend(weights)
    card = read_card(name, mend)
    data = _verified(weights, card_path, card, mend)
    _same_name(weights, card, mend)
    if config is not None:
        _same_config(weights, card, config)
    try:
        tensors = unpack(load(data))
    except (SafetensorError, KeyError, ValueError, IndexError, RuntimeError) as error:  # and of unknown kinds
        if out_of_memory(error):
            raise
        raise CheckpointError(f"{weights} is not a safetensors file ({error}): {mend}") from error
    return {key: value.to(device) for key, value in tensors.items()}, card


def load_model(name: str | os.PathLike, build: Callable, what: str, entries: tuple[str, ...] = ()) -> tuple:
    """A shipped model in float32, ready to be used, and its card: (model, card).

    build(config) -> the model, from the card's "config"; `what` it is called; `entries` that its card must have too.
    Raises CheckpointError, as `load_checkpoint` does, and for a checkpoint of something else or whose card asks for
    more than its tensors hold.
    """
    tensors, card = load_checkpoint(name)
    try:
        _fits(card["config"], sum(value.numel() for value in tensors.values()))
        model = build(card["config"])
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
        [card[entry] for entry in entries]
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        if out_of_memory(error):
            raise
        # its card was edited, or is of another kind
        raise CheckpointError(f"the checkpoint {name} holds no {what}: name another") from error
    return model.eval(), card


def _fits(config, weights: int) -> None:
    """Raise OverflowError for a size in a card's config larger than the number of all weights: no such model is built,
    which could take the whole memory."""
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            _fits(value, weights)
    elif isinstance(config, int | float) and abs(config) > weights:
        raise OverflowError(f"a size of {config} for {weights} weights")


def config_of(sizes: type, entries: dict):
    """A config (a dataclass, `sizes`) out of a card's JSON: configs inside it are made too, and tuples of lists."""
    kinds = get_type_hints(sizes)
    return sizes(**{
        name: config_of(kinds[name], value) if is_dataclass(kinds[name]) else _tuples(value)
        for name, value in entries.items()
    })  # fmt: skip


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_card(name: str | os.PathLike, mend: str | None = None) -> dict:
    """The card of checkpoint `name`, its tensors neither read nor verified. Raises CheckpointError."""
    weights, card_path = held_paths(name)
    mend = mend or default_mend(weights)
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if weights.exists():
            raise CheckpointError(f"{weights.name} has no card {card_path.name} beside it, so it cannot be "
                                  f"verified: {mend}") from None
        raise CheckpointError(f"there is no checkpoint {weights.stem} in {weights.parent}: {mend}") from None
    except OSError as error:
        raise CheckpointError(f"the card {card_path} cannot be read ({error.strerror}): {mend}") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; lists in lists in lists
        raise CheckpointError(f"the card {card_path} is not JSON ({error}): {mend}") from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256"), str):
        raise CheckpointError(f"the card {card_path} names no sha256 of the tensors: {mend}")
    if card.get("format", 1) != FORMAT:
        raise CheckpointError(f"the card {card_path} is of format {str(card['format'])[:20]}, this soralab reads "
                              f"{FORMAT}: take a newer copy of the course, or {mend}")
    return card


def list_checkpoints(folder: str | os.PathLike | None = None) -> list[dict]:
    """Every checkpoint of `folder`, verified: [{"name", "verified", "bytes", "parameters", "problem"}].

    folder: `checkpoints_folder()` by default; one that does not exist holds none. problem: one line, or "". A card
    that is meant to be alone is no checkpoint.
    """
    folder = Path(folder) if folder is not None else checkpoints_folder()
    found = []
    stems = {path.with_suffix("") for path in folder.glob("*")
             if path.suffix in (".safetensors", ".json") and not path.name.startswith(".")}
    for stem in sorted(stems):
        weights, card_path = checkpoint_paths(stem)
        if stem.name in MEASURED and not weights.exists():
            continue
        entry = {"name": stem.name, "verified": False, "bytes": 0, "parameters": 0, "problem": ""}
        try:
            card = read_card(stem)
            data = _verified(weights, card_path, card, default_mend(weights))
            _same_name(weights, card, default_mend(weights))
            entry.update(verified=True, bytes=len(data), parameters=card.get("parameters", 0))
        except OSError as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


def remove_checkpoint(name: str | os.PathLike) -> None:
    """Remove the checkpoint `name` if it is there; its card first, as a card without tensors is an error."""
    weights, card_path = checkpoint_paths(name)
    for path in (card_path, _waiting(weights), weights):
        with explained(path):
            path.unlink(missing_ok=True)


def _waiting(weights: Path) -> Path:
    return weights.with_name(weights.name + ".new")


def default_mend(weights: Path) -> str:
    """What to do about a checkpoint that is missing or damaged, as far as it can work."""
    if weights.parent == BEGUN and (ROOT / ".git").exists():
        return "bring it back with `git checkout -- data/in_training`"
    if weights.parent != checkpoints_folder():
        return "name another, or train it anew"
    if weights.stem in MEASURED:
        return f"the course ships its card alone; `soralab train {weights.stem} --folder {weights.parent}` makes it"
    if weights.stem in IN_TRAINING:
        return f"the course trains it still; `soralab train {weights.stem} --folder {weights.parent}` makes it"
    if weights.stem not in SHIPPED:
        return f"name one of {', '.join(SHIPPED)}, or the path of your own"
    make = f"or make it with `soralab train {weights.stem} --folder {weights.parent}`"
    if weights.parent != CHECKPOINTS:
        return f"copy it from the course's data/checkpoints, {make}"
    if (ROOT / ".git").exists():
        return f"bring it back with `git checkout -- data/checkpoints`, {make}"
    return f"take data/checkpoints from a fresh copy of the course, {make}"


def _digest_in(card_path: Path) -> str | None:
    """The SHA-256 that the card on disk names, or None if there is no such card."""
    try:
        return json.loads(card_path.read_text(encoding="utf-8")).get("sha256")
    except (OSError, ValueError, AttributeError):
        return None


def _finish(weights: Path, card_path: Path) -> None:
    """Do step 3 of an interrupted save if the waiting tensors are those that the card names."""
    waiting, wanted = _waiting(weights), _digest_in(card_path)
    if waiting.exists() and hashlib.sha256(waiting.read_bytes()).hexdigest() == wanted:
        with explained(weights):
            os.replace(waiting, weights)
            sync_folder(weights.parent)


def _verified(weights: Path, card_path: Path, card: dict, mend: str) -> bytes:
    """The bytes of the tensors, proved to be those that the card names."""
    try:
        data = weights.read_bytes()
    except FileNotFoundError:
        data = None
    except OSError as error:
        raise CheckpointError(f"{weights} cannot be read ({error.strerror}): {mend}") from error
    if data is not None and hashlib.sha256(data).hexdigest() == card["sha256"]:
        return data
    with contextlib.suppress(OSError):  # a save that was cut off before its last rename
        late = _waiting(weights).read_bytes()
        if hashlib.sha256(late).hexdigest() == card["sha256"]:
            with contextlib.suppress(OSError):  # the folder may be read-only; the bytes are right
                os.replace(_waiting(weights), weights)
                sync_folder(weights.parent)
            return late
    if data is None:
        raise CheckpointError(f"{card_path.name} is there but its tensors {weights} are missing: {mend}")
    size = card.get("bytes")
    if isinstance(size, int) and len(data) != size:
        how = "truncated" if len(data) < size else "too long"
        raise CheckpointError(f"{weights} is {how}, {len(data)} bytes where its card says {size}: {mend}")
    raise CheckpointError(f"{weights} was altered, its SHA-256 is not the one on its card: {mend}")


def _same_name(weights: Path, card: dict, mend: str) -> None:
    """Raise CheckpointError if another of the course's checkpoints lies, card and all, where this one should."""
    made = str(card.get("command", "")).removeprefix("soralab train ")
    if weights.parent == checkpoints_folder() and weights.stem in SHIPPED and made in SHIPPED and made != weights.stem:
        raise CheckpointError(f"{weights} is the checkpoint {made} under another name: {mend}")


def _same_config(weights: Path, card: dict, config: dict) -> None:
    """Raise ValueError naming the fields in which the card's config is not `config`."""
    wanted, got = json.loads(json.dumps(config)), card.get("config")
    if not isinstance(got, dict):
        raise ValueError(f"checkpoint {weights.stem}: its card has no config, so the model cannot be told")
    pairs = {key: (got.get(key, "nothing"), wanted.get(key, "nothing"))
             for key in sorted(wanted.keys() | got.keys())}
    wrong = [f"{key} is {there!r} there and {here!r} here"
             for key, (there, here) in pairs.items() if there != here]
    if wrong:
        raise ValueError(f"checkpoint {weights.stem} is of another model: {'; '.join(wrong[:4])}; build the "
                         "model from the card's config, or name another checkpoint")
