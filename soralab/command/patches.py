"""`soralab patches`: a film of the reader's own, cut into spacetime patches, compressed and rebuilt."""

from __future__ import annotations

from soralab.command.arguments import check_other, check_png, count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    patches = verb(verbs, "patches", "cut a film of your own into spacetime patches, compress and rebuild it")
    patches.add_argument("clip", help="any film file that the av library reads")
    patches.add_argument("-o", "--output", default="patches.png", help="the picture (default: patches.png)")
    patches.add_argument("--frames", type=count(1, 65), help="odd, 1 to 65 (default: 17, or what there is)")
    patches.add_argument("--height", type=count(16, 256), default=64, help="a multiple of 8, to 256 (default: 64)")
    return patches


def run(options) -> None:
    """Print the report and save the picture."""
    from soralab.files.atomic import atomic_write
    from soralab.files.films import check_readable

    check_png(options.output)
    check_other(options.output, [options.clip])
    if (options.frames or 1) % 2 == 0 or options.height % 8:
        raise ValueError(f"--frames {options.frames} --height {options.height}: it takes an odd number of frames and a "
                         "height that 8 divides")
    check_readable(options.clip)
    from soralab.experiments.sora_own_film import own_film

    report, picture = own_film(options.clip, options.frames, options.height)
    with atomic_write(options.output) as path:
        path.write_bytes(picture)
    print(report)
    print(f"{options.output}: its patches, and the film beside its reconstruction")
