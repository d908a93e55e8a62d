"""`soralab world`: a contact sheet of the world."""

from __future__ import annotations

from soralab.command.arguments import check_png, count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    world = verb(verbs, "world", "draw a contact sheet of the world")
    world.add_argument("-o", "--output", default="world.png", help="a .png (default: world.png)")
    world.add_argument("--level", default="full", help="simple or full (default: full)")
    world.add_argument("--split", default="train", help="train, test or held_out (default: train)")
    world.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="of the film library (default: 0)")
    world.add_argument("--n", type=count(1, 400), default=24, help="films, 1 to 400 (default: 24)")
    return world


def run(options) -> None:
    """Draw it and save it."""
    from soralab.files.atomic import atomic_write
    from soralab.files.counts import so_many
    from soralab.world.sheet import contact_sheet

    check_png(options.output)
    sheet = contact_sheet(options.seed, range(options.n), level=options.level, split=options.split)
    with atomic_write(options.output) as path:
        sheet.save(path, format="PNG")
    print(f"{options.output}: {so_many(options.n, 'film')} of the {options.level} world")
