"""`soralab film`: a film from a prompt, and what the referee sees in it."""

from __future__ import annotations

import time

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    film = verb(verbs, "film", "film a prompt")
    film.add_argument("prompt", help='such as "a small red circle slides right"; in English or Hindi')
    film.add_argument("-o", "--output", default="film.gif", help=".gif, .mp4, .webp or .png (default: film.gif)")
    film.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="of the noise it starts from (default: 0)")
    film.add_argument("--steps", type=count(1, 1000), default=20, help="of the sampler, 1 to 1000 (default: 20)")
    film.add_argument("--guidance", type=float, default=3.0, help="of the prompt; 1 is none (default: 3)")
    film.add_argument("--n", type=count(1, 64), default=1, help="films side by side, 1 to 64 (default: 1)")
    film.add_argument("--checkpoint", default="sora", help="a shipped name, or the path of your own")
    return film


def run(options) -> None:
    """Film the prompt and save it."""
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
