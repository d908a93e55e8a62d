"""What chapter 13's language model reads before it has ever seen a picture: the teacher's symbols in words.

The paper begins with a language model that has read the web, and can do with a text what LLaVA is to do with a picture:
look up a thing by whatever it is called, and turn round what is said from the other side. Ours learns both here: a
story says things twice, by colour and by shape, and from either side.
"""

from __future__ import annotations

from random import Random

from soralab.datasets.instructions import Symbols, Turn, conversation, description, options, order_of, place

BESIDES = 4  # sentences, at most, in which a story says once more what its caption says of each thing
BACK = {"left of": "right of", "above": "below"}


def story(told: Symbols, rng: Random) -> str:
    """The symbols in words, parts in any order: the caption, places, order, and what follows from the caption."""
    parts = [told.caption.replace(",", ""), *places(told)]
    if told.show == "film" and (order := order_of(told)):
        parts.append(f"the {_thing(told, order[0])} moves first")
    once_more, sides = follows(told), around(told)
    parts += rng.sample(once_more, min(len(once_more), rng.randrange(BESIDES + 1)))
    parts += rng.sample(sides, min(len(sides), 1 + rng.randrange(2)))
    return " ".join(sorted(parts, key=lambda _: rng.random()))


def lesson(told: Symbols, rng: Random) -> list[Turn]:
    """What a story is asked: what a picture would be, twice, and all that asks for a thing by its shape."""
    turns = [*conversation(told, rng), *conversation(told, rng), description(told, rng)]
    if len(told.told.objects) == 2:
        kinds = ("colour", "size", *(("place",) if told.show == "picture" else ("where", "motion")))
        shapes = {o.shape for o in told.told.objects}
        turns += [Turn(kind, *pair) for kind in kinds for pair in options(told, kind)
                  if shapes & set(pair[0].rstrip("?").split())]  # fmt: skip
    return list(dict.fromkeys(turns))


def _thing(told: Symbols, colour: str) -> str:
    return next(f"{o.colour} {o.shape}" for o in told.told.objects if o.colour == colour)


def places(told: Symbols) -> list[str]:
    """"the red circle is at the top", of each thing that has a place; of a film at its start and at its end."""
    frames = {"": 0} if told.show == "picture" else {" at the start": 0, " at the end": -1}
    return [f"the {o.colour} {o.shape} is {where}{when}" for o in told.told.objects for when, frame in frames.items()
            if (where := place(*told.middle(o.colour, frame)))]  # fmt: skip


def follows(told: Symbols) -> list[str]:
    """What the caption of two things says, once more for each: "the circle is red", "the red object slides right"."""
    things, found = told.told.objects, []
    if len(things) != 2:
        return found
    for o in things:
        names = [f"the {o.colour} object"] + [f"the {o.shape}"] * (things[0].shape != things[1].shape)
        found += [f"{name} is {o.size}" for name in names]
        found += [f"{name} {o.motion}" for name in names if told.show == "film"]
        found += [f"{name} is {o.colour}" for name in names[1:]]
    return found


def around(told: Symbols) -> list[str]:
    """How two things stand to each other, told by their colours from either side."""
    relation, things = told.told.relation, told.told.objects
    if relation is None or relation.kind not in BACK:
        return []
    a, b = (f"the {things[k].colour} object" for k in (relation.a, relation.b))
    return [f"{a} is {relation.kind} {b}", f"{b} is {BACK[relation.kind]} {a}"]
