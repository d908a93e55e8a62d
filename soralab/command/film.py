"""`soralab film`: a film from a prompt, and what the referee sees in it."""

from __future__ import annotations

import argparse
import math
import sys
import time

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    film = verb(verbs, "film", "film a prompt")
    film.add_argument("prompt", help='such as "a small red circle slides right"; in English or Hindi')
    film.add_argument("-o", "--output", default="film.gif", help=".gif, .mp4, .webp or .png (default: film.gif)")
    film.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="of the noise it starts from (default: 0)")
    film.add_argument("--steps", type=count(1, 1000), default=20, help="of the sampler, 1 to 1000 (default: 20)")
    film.add_argument("--guidance", type=_guidance, default=3.0, help="of the prompt, 0 to 30; 1 is none (default: 3)")
    film.add_argument("--n", type=count(1, 64), default=1, help="films side by side, 1 to 64 (default: 1)")
    film.add_argument("--checkpoint", default="sora", help="a shipped name, or the path of your own")
    return film


def _guidance(text: str) -> float:
    """`soralab.sora.GUIDANCE` is its largest; this file must be read without torch."""
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 30):
        raise argparse.ArgumentTypeError(f"is {text}; it takes a number from 0 to 30")
    return value


_guidance.__name__ = "number"  # what argparse calls it in its message


def run(options) -> None:
    """Film the prompt and save it."""
    from soralab.files.checkpoints import read_card
    from soralab.files.films import check_film_path, save_film
    from soralab.world.hindi_reader import is_hindi
    from soralab.world.language import words
    from soralab.world.prompts import read_prompt

    began = time.perf_counter()
    check_film_path(options.output)
    prompt = read_prompt(english(options.prompt))
    if words(prompt.text) != words(options.prompt):
        print(f"{'translated' if is_hindi(options.prompt) else 'read as'}: {prompt.text}")
    for what in prompt.unlearnt(read_card(options.checkpoint).get("level", "simple")):
        print(f"soralab: the model never learnt {what}; it films this all the same", file=sys.stderr)
    from soralab.sora import Filmmaker
    from soralab.training.profiles import device
    from soralab.training.progress import progress
    from soralab.world import referee

    maker = Filmmaker.load(options.checkpoint, device())
    with progress(total=options.steps, desc="filming", unit="step") as bar:
        films = maker.film(
            [prompt.text] * options.n, options.seed, options.steps, options.guidance,
            callback=lambda *_: bar.update() and None,
        )  # fmt: skip
    save_film(options.output, films if options.n > 1 else films[0])
    reports = [referee.read(film) for film in films]
    right = [referee.score_caption(report, prompt.things)["all"] for report in reports]
    size = "x".join(str(films.shape[k]) for k in (1, 3, 4))
    print(f"{options.output}: {len(films)} of {size} in {time.perf_counter() - began:.1f} s")
    print(f"the referee: {sum(right)} of {len(films)} show what the prompt says")
    for k, (report, fine) in enumerate(zip(reports, right, strict=True)):
        if not fine:
            print(f"the referee saw {seen(report)}" + (f" in film {k + 1}" if len(films) > 1 else ""))


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
    return " and ".join(things) or "nothing"
