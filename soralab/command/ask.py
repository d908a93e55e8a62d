"""`soralab ask`: questions about a picture or a film of the reader's own, answered by chapter 13's model."""

from __future__ import annotations

import sys

from soralab.command.arguments import verb

SIDE = 32  # pixels; what chapter 04's tower takes
WORLD = "flat shapes in its eight colours on a dark ground"


def declare(verbs):
    """Its arguments; returns its parser."""
    ask = verb(verbs, "ask", "ask about a picture or film of the toy world; each answer is a line")
    ask.add_argument(
        "shown", metavar="FILE", help="a picture or film that Pillow or av reads (.png, .jpg, .gif, .webp, .mp4, ...): "
        f"its largest middle square, scaled to {SIDE}x{SIDE}; of a film four frames, evenly from the first one on",
    )  # fmt: skip
    ask.add_argument(
        "questions", metavar="QUESTION", nargs="+", help='such as "What colour is the circle?" or, of a film, "What '
        'moves first?"; one of another form than those that were learnt gets the nearest of these',
    )  # fmt: skip
    ask.add_argument("--checkpoint", default="llava", help="a shipped name, or the path of your own (default: llava)")
    return ask


def run(options) -> None:
    """Read all questions, then the file; print each answer on a line of its own, and warn of a strange one."""
    from soralab.datasets.question_forms import read_question
    from soralab.files.films import MAX_FRAMES, check_readable, read_film

    for question in options.questions:
        read_question(question)  # what is none is told before torch is loaded
    check_readable(options.shown)
    film = read_film(options.shown, frames=MAX_FRAMES, height=SIDE, width=SIDE, fewer=True)
    show = "picture" if len(film) == 1 else "film"
    asked = [read_question(question, show) for question in options.questions]
    if len(film) == MAX_FRAMES:
        print(f"soralab: of this film the first {MAX_FRAMES} frames are looked at", file=sys.stderr)
    from soralab.llava import Assistant, pick_frames
    from soralab.training.profiles import device
    from soralab.world.foreign import is_foreign

    if is_foreign(film if show == "picture" else pick_frames(film)):
        print(f"soralab: {options.shown} does not look like the toy world ({WORLD}), and the model knows nothing else: "
              "its answers mean little", file=sys.stderr)  # fmt: skip
    assistant = Assistant.load(options.checkpoint, device())
    for question in asked:
        print(assistant(film[0] if show == "picture" else film, question))
