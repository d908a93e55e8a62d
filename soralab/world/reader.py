"""The reader of English captions: what a caption or a prompt says of which things, their relation and the setting.

Its grammar stands at the head of `soralab.world.language`, which writes what is read here.
"""

from __future__ import annotations

from soralab.world.language import ADVERBS, short_caption, words
from soralab.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Object,
    Relation,
    Scene,
)

_ADVERB_SPEED = {adverb: speed for speed, adverb in ADVERBS.items() if adverb}
_MOTION_WORDS = sorted((tuple(motion.split()) for motion in MOTIONS), key=len, reverse=True)  # longest first
_RELATION_WORDS = [tuple(kind.split()) for kind in RELATIONS]


def read_caption(text: str) -> list[dict[str, str | None]]:
    """The objects of an English caption or prompt, in the order in which it names them.

    Each is a dict of size, colour, shape, motion, speed, turn; None is what the text does not say. "the red
    circle" is the red circle named before, if there is one. Words it does not know are passed over.
    """
    return _read(words(text))[0]


def read_setting(text: str) -> dict:
    """The rest of a caption: background, camera, relation = (kind, a, b); None is what the text does not say.

    a and b are indices into `read_caption(text)`.
    """
    said = words(text)
    pairs = list(zip(said, said[1:], strict=False))
    background = next((a for a, b in pairs if b == "background" and a in BACKGROUNDS), None)
    after = " ".join(said[said.index("camera") + 1 :][:2]) if "camera" in said else ""
    camera = "still" if after in ("is still", "stays still") else after if after in CAMERAS else None
    return {"background": background, "camera": camera, "relation": _read(said)[1]}


def is_caption(text: str) -> bool:
    """Whether a text is a short caption, or a prompt that says less: what is read of it, told again, is the same."""
    said = words(text)
    things, relation = _read(said)
    if not things or any(thing["shape"] is None for thing in things):
        return False
    objects = (Object(**{key: thing[key] or "" for key in ("shape", "colour", "size", "motion")}) for thing in things)
    scene = Scene(tuple(objects), relation=relation and Relation(*relation))
    return words(short_caption(scene)) == said


def _read(said: list[str]) -> tuple[list[dict], tuple[str, int, int] | None]:
    """Cut the words at the nouns: what stands before a noun describes it, what follows says what it does."""
    objects: list[dict] = []
    relation, last = None, None
    nouns = [position for position, word in enumerate(said) if word in (*SHAPES, "object")]
    for start, noun, end in zip([0, *(at + 1 for at in nouns)], nouns, [*nouns[1:], len(said)], strict=False):
        begin = _first_adjective(said, noun, start)
        found = {
            "size": _last_of(said[begin:noun], SIZES),
            "colour": _last_of(said[begin:noun], COLOURS),
            "shape": said[noun] if said[noun] in SHAPES else None,
            **_read_motion(said[noun + 1 : end]),
        }
        the = begin > 0 and said[begin - 1] == "the"
        same = (i for i, other in enumerate(objects) if the and _same_thing(found, other))
        index = next(same, len(objects))
        if index == len(objects):
            objects.append(found)
        else:
            objects[index].update({key: found[key] for key in found if objects[index][key] is None})
        kind = _relation_in(said[start:noun]) if last not in (None, index) else None
        if kind and relation is None:
            relation = (kind, last, index)
        last = index
    if not nouns:  # "red slides right": something red
        found = {"size": _last_of(said, SIZES), "colour": _last_of(said, COLOURS), "shape": None}
        found |= _read_motion(said)
        objects = [found] if any(found.values()) else []
    return objects, relation


def _first_adjective(said: list[str], noun: int, start: int) -> int:
    begin = noun
    while begin > start and said[begin - 1] in (*SIZES, *COLOURS):
        begin -= 1
    return begin


def _last_of(said: list[str], known: tuple[str, ...]) -> str | None:
    return next((word for word in reversed(said) if word in known), None)


def _same_thing(found: dict, other: dict) -> bool:
    return all(found[key] in (None, other[key]) for key in ("size", "colour", "shape"))


def _relation_in(said: list[str]) -> str | None:
    for at in range(len(said)):
        for kind in _RELATION_WORDS:
            if tuple(said[at : at + len(kind)]) == kind:
                return " ".join(kind)
    return None


def _read_motion(said: list[str]) -> dict[str, str | None]:
    """Motion, speed and turn of the object whose noun these words follow."""
    motion = turn = None
    for at in range(len(said)):
        for phrase in _MOTION_WORDS if motion is None else ():
            end = at + len(phrase)
            if tuple(said[at:end]) == phrase and said[end : end + 1] != ["of"]:  # not "slides left of"
                motion = " ".join(phrase)
                break
        sideways = said[at] in ("left", "right") and said[at - 1 : at] == ["moving"]
        if turn is None and (sideways or said[at] in ("clockwise", "anticlockwise")):
            turn = said[at]
    speed = next((_ADVERB_SPEED[word] for word in said if word in _ADVERB_SPEED), None)
    return {"motion": motion, "speed": speed, "turn": turn}
