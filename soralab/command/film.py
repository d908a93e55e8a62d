"""`soralab film`: a film from a prompt, a picture or other films, and what the referee sees in it."""

from __future__ import annotations

import argparse
import math
import sys
import time

from soralab.command.arguments import check_other, count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    film = verb(verbs, "film", "film a prompt")
    film.add_argument("prompt", help='such as "a small red circle slides right"; in English or Hindi')
    film.add_argument("-o", "--output", default="film.gif", help=".gif, .mp4, .webp or .png (default: film.gif)")
    film.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="of the noise it starts from (default: 0)")
    film.add_argument("--steps", type=count(1, 1000), default=20, help="of the sampler, 1 to 1000 (default: 20)")
    film.add_argument("--guidance", type=_guidance, default=3.0, help="of the prompt, 0 to 30; 1 is none (default: 3)")
    film.add_argument("--n", type=count(1, 64), default=1, help="films side by side, 1 to 64 (default: 1)")
    film.add_argument("--size", type=_size, metavar="HxW", help="height and width in pixels, such as 48x64 (default: "
                      "32x32, or of those learnt the nearest in shape to the file that is given)")  # fmt: skip
    film.add_argument("--frames", type=count(1, 65), help="of the film, 1 is a picture (default: 9)")
    film.add_argument("--from", dest="picture", metavar="PICTURE", help="bring this picture to life")
    film.add_argument("--extend", metavar="FILM", help="go on with this film, or with --backwards find its beginning")
    film.add_argument("--backwards", action="store_true", help="with --extend: film what came before")
    film.add_argument("--edit", metavar="FILM", help="film this film anew, as the prompt says")
    film.add_argument("--strength", type=_share, help="of an edit, 0 (as it is) to 1 (nothing stays; default: 0.6)")
    film.add_argument("--join", nargs=2, metavar="FILM", help="film what leads from one film to the other")
    film.add_argument("--loop", metavar="FILM", help="film what leads from this film's end to its beginning")
    film.add_argument("--by", type=count(1, 64), help="frames that --extend, --join or --loop adds (default: 8)")
    film.add_argument("--expand", action="store_true", help="let chapter 12's model tell what the prompt leaves open")
    film.add_argument("--checkpoint", help="a shipped name, or the path of your own (default: sora, or sora_full for "
                      "what sora never learnt)")  # fmt: skip
    return film


def _size(text: str) -> tuple[int, int]:
    """Height and width of "48x64"."""
    sides = text.lower().replace("\u00d7", "x").split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 8 <= int(side) <= 256 for side in sides):
        raise argparse.ArgumentTypeError(f"is {text}; it takes HEIGHTxWIDTH in pixels, each from 8 to 256")
    return int(sides[0]), int(sides[1])


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"is {text}; it takes a number from 0 to 1")
    return value


_size.__name__, _share.__name__ = "size", "number"
WAYS = {"picture": "--from", "extend": "--extend", "edit": "--edit", "join": "--join", "loop": "--loop"}
BELONGS = {"by": ("extend", "join", "loop"), "backwards": ("extend",), "strength": ("edit",)}
WHOLE, USUAL_SIZE, USUAL_FRAMES, USUAL_BY = "sora_full", (32, 32), 9, 8
STILL, SMALLEST = 4, 16  # frames and pixels a side that the referee needs; a picture is shown to it as often
TOLD = 3  # things that it names
MOST = 2**23  # pixels of all films of a call: a few gigabytes of memory


def check_options(options) -> str | None:
    """The one way of WAYS that is asked for, None for a film from the prompt alone. Raises ValueError for two ways, and
    for what belongs to another."""
    ways = [way for way in WAYS if getattr(options, way) is not None]
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(WAYS[way] for way in ways)} are two films: give one of them at a time")
    for option, owners in BELONGS.items():
        value = getattr(options, option)
        if value is not None and value is not False and not set(owners) & set(ways):  # a strength of 0 is one
            raise ValueError(f"--{option} goes with {' or '.join(WAYS[way] for way in owners)}: give one of these, too")
    if options.frames and set(ways) - {"picture"}:
        raise ValueError(f"--frames is of a new film, and {WAYS[ways[0]]} takes those that there are: leave it out")
    if options.frames == 1 and ways:
        raise ValueError("--frames is 1, and a picture is no film: --from takes 2 or more")
    return ways[0] if ways else None


def _guidance(text: str) -> float:
    """`soralab.sora.GUIDANCE` is its largest; this file must be read without torch."""
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 30):
        raise argparse.ArgumentTypeError(f"is {text}; it takes a number from 0 to 30")
    return value


_guidance.__name__ = "number"  # what argparse calls it in its message


def run(options) -> None:
    """Film the prompt and save it."""
    from soralab.files.checkpoints import BEGUN, held_paths, read_card
    from soralab.files.films import check_film_path, save_film, try_film
    from soralab.world.hindi_reader import is_hindi
    from soralab.world.language import words
    from soralab.world.prompts import read_prompt

    began = time.perf_counter()
    way = check_options(options)
    check_film_path(options.output)
    check_other(options.output, given_paths(options, way))
    prompt = read_prompt(english(options.prompt))
    if words(prompt.text) != words(options.prompt):
        print(f"{'translated' if is_hindi(options.prompt) else 'read as'}: {prompt.text}")
    there = held_paths(WHOLE)[0].exists()  # where it is not, what `sora` never learnt is filmed by it all the same
    new = way or options.size or options.frames or there and prompt.unlearnt("simple")
    checkpoint = (WHOLE if new else "sora") if options.checkpoint is None else options.checkpoint
    card = read_card(checkpoint)
    given = read_given(options, way)
    size = tuple(given[0].shape[2:]) if given else options.size or USUAL_SIZE
    maker = loaded(checkpoint, card, way, options)
    unlearnt = prompt.unlearnt(card.get("level", "simple"))
    if is_whole(card):
        maker.check(*size)
        clips = clips_of(options, way, [len(film) for film in given])
        unlearnt += beyond(clips, *size)
        if options.n * sum(clips) * size[0] * size[1] > MOST:
            raise ValueError(f"{options.n} of {sum(clips)} frames of {size[0]}x{size[1]} are over {MOST:,} pixels: "
                             "ask for fewer (--n), shorter (--frames) or smaller ones (--size)")
    try_film(options.output, *size, options.n)
    if held_paths(checkpoint)[0].parent == BEGUN:
        print(f"soralab: {checkpoint} is still in training: this is what {card['steps']:,} steps made of it",
              file=sys.stderr)  # fmt: skip
    for what in unlearnt:
        print(f"soralab: the model never learnt {what}; it films this all the same", file=sys.stderr)
    text = expanded(prompt.text, options.seed) if options.expand else prompt.text
    from soralab.training.progress import progress

    with progress(total=options.steps, desc="filming", unit="step") as bar:
        settings = dict(seed=options.seed, steps=options.steps, guidance=options.guidance,
                        callback=lambda *_: bar.update() and None)  # fmt: skip
        films = filmed(maker, way, given, [text] * options.n, options, settings)
    save_film(options.output, films if options.n > 1 else films[0])
    size = "x".join(str(films.shape[k]) for k in (1, 3, 4))
    print(f"{options.output}: {len(films)} of {size} in {time.perf_counter() - began:.1f} s")
    judge(films, prompt.things)


def judge(films, things: list[dict]) -> None:
    """Print what the referee makes of films [n, time, 3, height, width]; of a picture, which does not move, as well."""
    from soralab.world import referee

    if films.shape[1] == 1:
        still = {"motion": "stays still", "speed": None, "turn": None}
        films, things = films.expand(-1, STILL, -1, -1, -1), [{**thing, **still} for thing in things]
    if films.shape[1] < STILL or min(films.shape[3:]) < SMALLEST:
        print(f"the referee reads a picture, or {STILL} frames and more, of {SMALLEST} pixels and more")
        return
    reports = [referee.read(film) for film in films]
    right = [referee.score_caption(report, things)["all"] for report in reports]
    print(f"the referee: {sum(right)} of {len(films)} show what the prompt says")
    for k, (report, fine) in enumerate(zip(reports, right, strict=True)):
        if not fine:
            print(f"the referee saw {seen(report)}" + (f" in film {k + 1}" if len(films) > 1 else ""))


def given_paths(options, way: str | None) -> list[str]:
    """The names of the picture or the films that are given."""
    named = getattr(options, way) if way else []
    return [named] if isinstance(named, str) else named


def read_given(options, way: str | None) -> list:
    """The picture or the films that the options name, [time, 3, height, width] each, at the size that is asked for, or
    at the one of those learnt whose shape is nearest to theirs. Prints what is done to them."""
    from soralab.files.films import read_film
    from soralab.files.upright import middle_part

    paths = given_paths(options, way)
    shown = [tuple(read_film(path, 1).shape[2:]) for path in paths]
    height, width = options.size or (nearest_learnt(shown) if shown else USUAL_SIZE)
    for path, (h, w) in dict(zip(paths, shown, strict=True)).items():
        part = middle_part(h, w, height, width)
        cut = f"the middle {part[0]}x{part[1]} of {h}x{w}" if part != (h, w) else f"{h}x{w}"
        if (h, w) != (height, width):
            print(f"{path}: {cut}" + (f", scaled to {height}x{width}" if part != (height, width) else ""))
    return [read_film(path, 1 if way == "picture" else None, height, width) for path in paths]


def nearest_learnt(shown: list[tuple[int, int]]) -> tuple[int, int]:
    """Of the sizes that the whole model learnt, the one whose shape is nearest to those of files (height, width)."""
    from soralab.recipes.sora_full import KINDS

    def far(size: tuple[int, int]) -> float:
        return sum(abs(math.log(size[0] * w / (size[1] * h))) for h, w in shown)

    return min(sorted({(kind.height, kind.width) for kind in KINDS}), key=far)


def clips_of(options, way: str | None, lengths: list[int]) -> tuple[int, ...]:
    """The clips that the whole model walks, where files of so many frames are given."""
    from soralab.sora_full import clip_for, extension, joint

    by = options.by or USUAL_BY
    if way == "extend":
        return extension(lengths[0], by, options.backwards)
    if way in ("join", "loop"):
        return joint(lengths[0], lengths[-1], by)
    return (clip_for(lengths[0] if way == "edit" else options.frames or USUAL_FRAMES),)


def beyond(clips: tuple[int, ...], height: int, width: int) -> list[str]:
    """What is more of these clips, walked together, than the whole model ever saw, in words."""
    from soralab.recipes.sora_full import KINDS
    from soralab.sora_full import latents

    def tokens(clips: tuple[int, ...], height: int, width: int) -> int:
        return sum(map(latents, clips)) * (height // 8) * (width // 8)

    asked, longest = tokens(clips, height, width), max(max(kind.clips) for kind in KINDS)
    most = max(tokens(kind.clips, kind.height, kind.width) for kind in KINDS)
    told = [f"{max(clips)} frames at once (up to {longest})"] if max(clips) > longest else []
    told += [f"{asked} tokens at once (up to {most})"] if asked > most else []
    return [" or ".join(told)] if told else []


def expanded(text: str, seed: int) -> str:
    """The prompt with what it leaves open told by chapter 12's expander."""
    from soralab.recaptioning import Expander

    longer = Expander.load()([text], seed)[0]
    print(f"expanded: {longer}")
    return longer


def is_whole(card: dict) -> bool:
    """Whether a checkpoint's card is of the whole model, by what only its transformer has."""
    return isinstance(card.get("config"), dict) and "rank" in card["config"]


def loaded(checkpoint, card, way, options):
    """The filmmaker of a checkpoint. Raises ValueError if it cannot do what is asked."""
    from soralab.training.profiles import device

    if is_whole(card):
        from soralab.sora_full import FullFilmmaker

        return FullFilmmaker.load(checkpoint, device())
    from soralab.sora import Filmmaker

    asked = [f"--{name}" for name in ("size", "frames") if getattr(options, name)] + ([WAYS[way]] if way else [])
    if asked:
        raise ValueError(f"{checkpoint} films 9 frames of 32x32 from a prompt alone, and {', '.join(asked)} asks "
                         f"for more: leave --checkpoint out, or give {WHOLE}")  # fmt: skip
    return Filmmaker.load(checkpoint, device())


def filmed(maker, way, given, prompts, options, settings):
    """The films [n, time, 3, height, width]."""
    from soralab.sora import Filmmaker
    from soralab.training.data import beside

    if isinstance(maker, Filmmaker):
        return maker.film(prompts, **settings)
    films = [beside(maker.sora, film[None].expand(len(prompts), -1, -1, -1, -1)) for film in given]
    by, size = options.by or USUAL_BY, options.size or USUAL_SIZE
    if way == "picture":
        return maker.animate(films[0][:, 0], prompts, options.frames or USUAL_FRAMES, **settings)
    if way == "extend":
        return maker.extend(films[0], by, prompts, backwards=options.backwards, **settings)
    if way == "edit":
        strength = 0.6 if options.strength is None else options.strength
        return maker.edit(films[0], prompts, strength, **settings)
    if way == "join":
        return maker.join(*films, by, prompts, **settings)
    if way == "loop":
        return maker.loop(films[0], by, prompts, **settings)
    return maker.film(prompts, size=(options.frames or USUAL_FRAMES, *size), **settings)


def english(prompt: str) -> str:
    """A prompt, in English or Hindi, as the film models take it: an English caption in the world's own words.

    Hindi is translated by chapter 02's model. For notebooks too: `maker.film([english(PROMPT)])`. Raises PromptError, a
    ValueError of one line that a notebook shows alone, for what is not understood, in English or in the translation,
    and CheckpointError without the translator.
    """
    from soralab.world.hindi_reader import is_hindi, read_hindi
    from soralab.world.prompt import PromptError

    if not isinstance(prompt, str) or not is_hindi(prompt):
        return _whole(prompt)
    try:
        read_hindi(prompt)  # an unknown word is told before torch is loaded
        from soralab.transformer import translate

        translated = translate([prompt])[0]
    except ValueError as error:
        raise PromptError(str(error)) from None
    return _whole(translated)


def _whole(prompt: str) -> str:
    """The prompt as `read_prompt` gives it, its ValueError one that a notebook shows as one line."""
    from soralab.world.prompt import PromptError
    from soralab.world.prompts import read_prompt

    try:
        return read_prompt(prompt).text
    except ValueError as error:
        raise PromptError(str(error)) from None


def seen(report) -> str:
    """What the referee saw, in words: "a green square that bounces"."""
    from soralab.world.language import article

    things = []
    for thing in report.objects:
        does = f" that {thing.motion}" if thing.motion else ", whose motion is none of the world's"
        turn = f" {thing.turn}" if thing.motion in ("spins", "orbits") and thing.turn else ""
        shape = thing.shape or "thing of no known shape"
        things.append(f"{article(thing.size)} {thing.size} {thing.colour} {shape}{does}{turn}")
    rest = [f"{len(things) - TOLD} more"] if len(things) > TOLD else []
    return " and ".join(things[:TOLD] + rest) or "nothing"
