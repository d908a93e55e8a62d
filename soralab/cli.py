"""The command `soralab`: a film from a prompt, what stands behind it, and the course's exercises and sessions.

A mistake of the caller's (ValueError), of the file system (OSError) or of the arithmetic (FloatingPointError) becomes
one line on stderr that names the mend, and exit code 2. Torch is imported by the verbs that need it, after the
arguments have been checked, so a typing error is answered at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a Windows console may not know every letter
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(argv)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"soralab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soralab", description="Road to Sora: film a prompt, train, evaluate.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name, run, text):
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    _model_verbs(verb)
    _course_verbs(verb)
    return parser


def _model_verbs(verb) -> None:
    """Films, and the models and data behind them."""
    film = verb("film", _film, "film a prompt")
    film.add_argument("prompt", help='such as "a small red circle slides right"; in English or Hindi')
    film.add_argument("-o", "--output", default="film.gif", help=".gif, .mp4, .webp or .png (default: film.gif)")
    film.add_argument("--seed", type=_count(0, 2**32 - 1), default=0, help="of the noise it starts from (default: 0)")
    film.add_argument("--steps", type=_count(1, 1000), default=20, help="of the sampler, 1 to 1000 (default: 20)")
    film.add_argument("--guidance", type=float, default=3.0, help="of the prompt; 1 is none (default: 3)")
    film.add_argument("--n", type=_count(1, 64), default=1, help="films side by side, 1 to 64 (default: 1)")
    film.add_argument("--checkpoint", default="sora", help="a shipped name, or the path of your own")

    train = verb("train", _train, "train a model of the course (resumes where it was stopped)")
    train.add_argument("name", help="such as unet or sora; a wrong one lists them all")
    train.add_argument("--steps", type=_count(1, 10**7), help="in all (default: the recipe's)")
    train.add_argument("--folder", type=Path, help="where the checkpoint goes (default: runs/NAME)")

    evaluate = verb("evaluate", _evaluate, "measure a shipped model on what it never saw")
    evaluate.add_argument("name", help="such as sora or referee; a wrong one lists them all")
    evaluate.add_argument("--checkpoint", help="the path of your own instead")

    world = verb("world", _world, "draw a contact sheet of the world")
    world.add_argument("-o", "--output", default="world.png", help="a .png (default: world.png)")
    world.add_argument("--level", default="full", help="simple or full (default: full)")
    world.add_argument("--split", default="train", help="train, test or held_out (default: train)")
    world.add_argument("--seed", type=_count(0, 2**32 - 1), default=0, help="of the film library (default: 0)")
    world.add_argument("--n", type=_count(1, 400), default=24, help="films, 1 to 400 (default: 24)")

    patches = verb("patches", _patches, "cut a film of your own into spacetime patches, compress and rebuild it")
    patches.add_argument("clip", help="any film file that the av library reads")
    patches.add_argument("-o", "--output", default="patches.png", help="the picture (default: patches.png)")
    patches.add_argument("--frames", type=_count(1, 65), default=17, help="odd, 1 to 65 (default: 17)")
    patches.add_argument("--height", type=_count(16, 256), default=64, help="a multiple of 8, to 256 (default: 64)")


def _course_verbs(verb) -> None:
    """Working through the course, alone or in a group."""
    hint = verb("hint", _hint, "give the next hint of an exercise; without a name list all exercises")
    hint.add_argument("name", nargs="?", help="such as unet.weight_map")
    which = hint.add_mutually_exclusive_group()
    which.add_argument("--tier", type=_count(1, 3), help="1 a nudge, 2 the idea, 3 nearly the code (default: the next)")
    which.add_argument("--all", action="store_true", help="all three")

    progress = verb("progress", _progress, "show which exercises are solved: yours, or a group's from its records")
    progress.add_argument("records", nargs="*", help="files that --export wrote; they are merged into a group's board")
    progress.add_argument("--export", metavar="FILE", help="write your record, for a group's board")
    progress.add_argument("--name", help="what the board calls you (default: your login name)")

    session = verb("session", _session, "print the leader's guide to a chapter")
    session.add_argument("number", type=_count(0, 17), help="of the chapter, 0 to 17")
    session.add_argument("--part", help="only that: read, 60, 90, questions, roles, board, 30 or handout")

    slides = verb("slides", _slides, "turn notebooks into slides that need no network")
    slides.add_argument("numbers", nargs="*", type=_count(0, 17), help="of chapters, 0 to 17 (default: all)")
    slides.add_argument("-o", "--output", type=Path, default=Path("slides"), help="a folder (default: slides)")

    verb("doctor", _doctor, "print versions, device, profile and checkpoints, and what to do about each problem")


def _count(low: int, high: int):
    def whole(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"is {value}; it takes a whole number from {low} to {high}")
        return value

    whole.__name__ = "whole number"  # what argparse calls it in its message
    return whole


# ------------------------------------------------------------------------------------------------------------ verbs


def _film(options) -> None:
    from soralab.files.films import check_film_path, save_film
    from soralab.world.language import DESCRIPTIVE_LENGTH, PROMPT_WORDS, encode, read_caption

    began = time.perf_counter()
    check_film_path(options.output)
    prompt = _english(options.prompt)
    encode(prompt, DESCRIPTIVE_LENGTH, PROMPT_WORDS)  # a typing error is told before the model is loaded
    from soralab.sora import Filmmaker
    from soralab.training.progress import progress
    from soralab.world import referee

    maker = Filmmaker.load(options.checkpoint)
    with progress(total=options.steps, desc="filming", unit="step") as bar:
        films = maker.film(
            [prompt] * options.n, options.seed, options.steps, options.guidance,
            callback=lambda *_: bar.update() and None,
        )  # fmt: skip
    save_film(options.output, films if options.n > 1 else films[0])
    wanted = read_caption(prompt)
    right = sum(referee.score_caption(referee.read(film), wanted)["all"] for film in films)
    size = "x".join(str(films.shape[k]) for k in (1, 3, 4))
    print(f"{options.output}: {len(films)} of {size} in {time.perf_counter() - began:.1f} s")
    print(f"the referee: {right} of {len(films)} show what the prompt says")


def _english(prompt: str) -> str:
    """The prompt in English: a Hindi one is translated (chapter 02), and the translation shown."""
    from soralab.world.hindi_reader import is_hindi, read_hindi

    if not is_hindi(prompt):
        return prompt
    read_hindi(prompt)  # an unknown word is told before torch is loaded
    from soralab.transformer import translate

    english = translate([prompt])[0]
    print(f"translated: {english}")
    return english


def _train(options) -> None:
    from soralab.files.atomic import check_writable, make_folder
    from soralab.recipes import recipe

    module = recipe(options.name)
    if not hasattr(module, "train"):
        raise ValueError(f"NAME is {options.name!r}, which has nothing to train: it is code alone")
    if options.folder:
        check_writable(make_folder(options.folder) / options.name)  # told now, not after hours of training
    path = module.train(options.name, options.folder, options.steps)
    print(f"saved {path}")


def _evaluate(options) -> None:
    from soralab.recipes import recipe

    print(recipe(options.name).evaluate(options.name, options.checkpoint))


def _world(options) -> None:
    from soralab.files.atomic import atomic_write
    from soralab.world.sheet import contact_sheet

    _check_png(options.output)
    sheet = contact_sheet(options.seed, range(options.n), level=options.level, split=options.split)
    with atomic_write(options.output) as path:
        sheet.save(path, format="PNG")
    print(f"{options.output}: {options.n} films of the {options.level} world")


def _patches(options) -> None:
    from soralab.files.atomic import atomic_write

    _check_png(options.output)
    if options.frames % 2 == 0 or options.height % 8:
        raise ValueError(f"--frames {options.frames} --height {options.height}: it takes an odd number of frames and a "
                         "height that 8 divides")
    from soralab.recipes.own_film import own_film

    report, picture = own_film(options.clip, options.frames, options.height)
    with atomic_write(options.output) as path:
        path.write_bytes(picture)
    print(report)
    print(f"{options.output}: its patches, and the film beside its reconstruction")


def _hint(options) -> None:
    from soralab.exercises import course, exercise
    from soralab.workbook import board

    if options.name is None:
        if options.tier or options.all:
            raise ValueError("NAME is missing: --tier and --all take the name of an exercise before them")
        print(board.list_exercises(course()))
        return
    text, problem = board.give_hint(exercise(options.name), options.tier, options.all)
    print(text)
    if problem:
        print(f"soralab: {problem}", file=sys.stderr)


def _progress(options) -> None:
    from soralab.exercises import course
    from soralab.workbook import board, progress

    if options.records:
        if options.export or options.name:
            raise ValueError("--export and --name are about your own record: give them without other records")
        people = progress.merge([progress.read(path) for path in options.records])
        print(board.group_board(people, course()))
        return
    if options.name is not None:
        problem = progress.rename(options.name)
        if problem:
            print(f"soralab: {problem}", file=sys.stderr)
    if options.export is not None:
        record = progress.export(options.export)
        print(f"{options.export}: the record of {record.name}")
        return
    record = progress.own_record()
    print(board.own_table(record, course()))


def _session(options) -> None:
    from soralab.sessions.guide import show

    print(show(options.number, options.part))


def _slides(options) -> None:
    from soralab.sessions.slides import build

    for path in build(options.numbers, options.output):
        print(path)


def _doctor(options) -> int:
    from soralab.recipes.doctor import report

    text, healthy = report()
    print(text)
    return 0 if healthy else 2


def _check_png(path: str) -> None:
    from soralab.files.atomic import check_writable

    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"--output is {path!r}; it takes a name that ends in .png")
    check_writable(path)


if __name__ == "__main__":
    sys.exit(main())
