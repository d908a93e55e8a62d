"""What chapter 15 measures: data/experiments/tune_a_video.json, which its notebook shows.

`python -m soralab.experiments.tune_a_video` makes it again, film by film, and goes on where it was stopped. Films of
the split "test" are tuned on, one after the other as they come, and each is filmed again twice: in another colour, as
another shape. What an edit is made with (steps, guidance, how far the film is walked back) was tried on other films.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from soralab.diffusion import ddim
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.tune_a_video_scores import KINDS, Edit, counted, edits, marks
from soralab.files.atomic import kept
from soralab.latent_diffusion import PROCESS, Painter, noise
from soralab.recipes import RUNS
from soralab.recipes.tune_a_video import PAINTER, STEPS, Shot, shot, tuned
from soralab.training.profiles import by_profile, device, hardware
from soralab.training.progress import progress
from soralab.tune_a_video import Editor, inflate, latents_of

FILE = EXPERIMENTS / "tune_a_video.json"
FILMS, FEWER = 20, 4  # tuned on; and with attention to all frames
GUIDANCE, WALK = 3.0, 25  # of an edit: the scale, and steps of DDIM, there and back
BACK = 0.4  # the time to which a film is walked back
SWEPT, TUNINGS = range(100, 102), (0, 100, 500)  # films of the sweep over steps, apart from the rest
TRIED = range(200, 210)  # films of the sweep over these settings of an edit, (back, guidance)
SETTINGS = ((1.0, 3.0), (1.0, 1.5), (0.8, 3.0), (0.6, 3.0), (0.5, 3.0), (0.4, 3.0), (0.3, 3.0))
WALKS, SCALES = (5, 10, 25), (1.0, 3.0)  # of the way back
NOISE = 1500  # fresh noise for film k is that of seed NOISE + 100 k

ARMS = {  # what an edit is made with: (steps of tuning, what a frame sees, where it starts, how far back)
    "tuned": ("tuned", "sparse-causal", "inverted", BACK),
    "all the way back": ("tuned", "sparse-causal", "inverted", 1.0),
    "all the way, without a prompt": ("tuned", "sparse-causal", "inverted untold", 1.0),
    "all the way, not tuned": ("painter", "sparse-causal", "inverted", 1.0),
    "walked back without a prompt": ("tuned", "sparse-causal", "inverted untold", BACK),
    "noise added": ("tuned", "sparse-causal", "added", BACK),
    "from fresh noise": ("tuned", "sparse-causal", "fresh", 1.0),
    "not tuned": ("painter", "sparse-causal", "inverted", BACK),
    "frame by frame": ("painter", "own", "inverted", BACK),
    "sees all frames": ("tuned", "all", "inverted", BACK),
}


def start(editor: Editor, kind: str, index: int) -> Tensor:
    """Where an edit of film `index` starts: the film walked back under its prompt, or under none; the film with noise
    added, as SDEdit (2108.01073) does; or fresh noise alone."""
    fresh = noise(NOISE + 100 * index, len(editor.z), editor.z.shape[1:]).to(editor.z)
    if kind == "fresh":
        return fresh
    if kind == "added":
        return PROCESS.add_noise(editor.z, fresh, torch.full((len(fresh),), editor.back).to(fresh))
    return editor.inverted("" if kind == "inverted untold" else None)


def filmed(painter: Painter, editor: Editor, prompt: str, begun: Tensor, guidance: float = GUIDANCE) -> Tensor:
    """An edit as a film [frames, 3, height, width] in [-1, 1], on the CPU."""
    with torch.no_grad():
        return painter.autoencoder.decode(editor.edit(prompt, begun, guidance)).clamp(-1, 1).cpu()


def copy(painter: Painter, film: Tensor) -> Tensor:
    """A film after the first stage, which is the best that an edit can be."""
    with torch.no_grad():
        return painter.autoencoder.decode(latents_of(painter, film.to(device()))).clamp(-1, 1).cpu()


def compare(painter: Painter, index: int, steps: int, walk: int, arms: tuple[str, ...] = tuple(ARMS)) -> dict:
    """{arm: [{"kind", and a mark for each of COLUMNS} for each edit of film `index`]}, and {"seconds", "spread"}.

    spread: the standard deviation of the noise that the film is walked all the way back to; fresh noise has 1.
    """
    source = shot(index)
    asked, table, editors = edits(source, index), {}, {}
    for name in arms:
        trained, sees, begins, back = ARMS[name]
        if (trained, sees) not in editors:
            began = time.process_time()
            editor = tuned(painter, source, steps if trained == "tuned" else 0, sees)
            editors[trained, sees] = replace(editor, steps=walk), time.process_time() - began
        editor, seconds = editors[trained, sees]
        editor = replace(editor, back=back)
        begun = start(editor, begins, index)
        if name == "all the way back":
            table["cost"] = {"seconds": round(seconds, 1), "spread": round(float(begun.std()), 3)}
        table[name] = [row(edit, filmed(painter, editor, edit.wanted.prompt, begun)) for edit in asked]
    table["the film itself"] = [row(edit, copy(painter, source.film)) for edit in asked]
    table["the true edit"] = [row(edit, copy(painter, edit.wanted.film)) for edit in asked]
    return table


def row(edit: Edit, film: Tensor) -> dict:
    """An edit's marks with its kind."""
    return {"kind": edit.kind, **{name: bool(mark) for name, mark in marks(edit, film).items()}}


def sweep(painter: Painter, index: int, walk: int, tunings: tuple[int, ...] = TUNINGS) -> dict[str, list[dict]]:
    """{steps of tuning: marks of film `index`'s edits}, each tuning from the start."""
    source, found = shot(index), {}
    for steps in tunings:
        editor = replace(tuned(painter, source, steps), steps=walk, back=BACK)
        begun = editor.inverted()
        found[str(steps)] = [
            row(edit, filmed(painter, editor, edit.wanted.prompt, begun)) for edit in edits(source, index)
        ]
    return found


def settings(painter: Painter, index: int, steps: int, walk: int) -> dict[str, list[dict]]:
    """{"back, guidance": marks of film `index`'s edits} for each of SETTINGS, by one tuned painter."""
    source, found = shot(index), {}
    editor = replace(tuned(painter, source, steps), steps=walk)
    for back, guidance in SETTINGS:
        editor = replace(editor, back=back)
        begun = editor.inverted()
        found[f"{back:g}, {guidance:g}"] = [
            row(edit, filmed(painter, editor, edit.wanted.prompt, begun, guidance)) for edit in edits(source, index)
        ]
    return found


def way_back(painter: Painter, source: Shot, steps: int, walks: tuple[int, ...] = WALKS) -> list[dict]:
    """How far a film that is walked back and filmed again under its own words is from itself: `there_and_back`."""
    return there_and_back(tuned(painter, source, steps), walks)


def there_and_back(
    editor: Editor, walks: tuple[int, ...] = WALKS, scales: tuple[float, ...] = SCALES
) -> list[dict]:
    """One row for how far back, each number of steps and each scale of guidance, the same both ways: {"back", "walk",
    "guidance", "error"}, the error a share of the latents' own size (root mean squares).
    """
    found = []
    for back, scale, walk in product((1.0, BACK), scales, walks):
        each = replace(editor, steps=walk, back=back)
        again = each.edit(editor.prompt, each.inverted(guidance=scale), scale)
        error = float((again - editor.z).square().mean().sqrt() / editor.z.square().mean().sqrt())
        found.append({"back": back, "walk": walk, "guidance": scale, "error": round(error, 4)})
    return found


@torch.no_grad()
def own_film(painter: Painter, film: Tensor, walk: int = WALK) -> dict[str, Tensor]:
    """A film of the reader's [frames, 3, height, width], its middle 32 x 32 pixels: {"film", "copy" by the first stage,
    "again": walked back by the untuned painter without a prompt, and filmed again}. No edit: the painter has no words
    for what is in it. Raises ValueError for a film that is too short or too small."""
    top, left = ((side - 32) // 2 for side in film.shape[-2:])
    if min(top, left) < 0:
        raise ValueError(f"film is {list(film.shape)}; it takes [frames, 3, height, width], of 32 x 32 pixels or more")
    film = film[..., top : top + 32, left : left + 32]
    z = latents_of(painter, film.to(device()))
    editor = Editor(inflate(painter.model, len(z)).eval(), z, "a circle", walk)  # any prompt: it is not told
    denoise = PROCESS.denoiser(editor.network("", 1.0), "eps")
    again = painter.autoencoder.decode(ddim(denoise, editor.inverted(""), PROCESS, walk)).clamp(-1, 1).cpu()
    return {"film": film, "copy": copy(painter, film), "again": again}


def tables(rows: dict[str, list[dict]]) -> dict[str, dict[str, dict[str, int]]]:
    """{arm: {"colour", "shape", "together": counts}} from {arm: marks}."""
    return {
        arm: {**{kind: counted(r for r in found if r["kind"] == kind) for kind in KINDS}, "together": counted(found)}
        for arm, found in rows.items()
    }


def pairs(ours: list[dict], theirs: list[dict]) -> tuple[int, int]:
    """Of the edits that both arms made: how many ours alone has right in everything, and how many theirs alone."""
    both = list(zip(ours, theirs, strict=False))  # an arm of fewer films has the first ones
    return sum(a["all"] and not b["all"] for a, b in both), sum(b["all"] and not a["all"] for a, b in both)


def gathered(each: list[dict]) -> dict[str, list[dict]]:
    """The rows of several films in one table; an arm that a film lacks is of fewer films."""
    names = dict.fromkeys(name for one in each for name in one if name != "cost")
    return {name: [row for one in each for row in one.get(name, ())] for name in names}


def measure(folder: Path = RUNS / "tune_a_video") -> dict:
    """Everything that the file holds."""
    painter = Painter.load(PAINTER, device())
    plan = by_profile(
        smoke={"films": 2, "fewer": 1, "steps": 1, "walk": 2, "swept": SWEPT[:1], "tunings": (0, 1), "walks": (2,),
               "tried": TRIED[:1]},
        **dict.fromkeys(("laptop", "gpu"), {"films": FILMS, "fewer": FEWER, "steps": STEPS, "walk": WALK,
                                            "swept": SWEPT, "tunings": TUNINGS, "walks": WALKS,
                                            "tried": TRIED}),
    )  # fmt: skip
    steps, walk = plan["steps"], plan["walk"]

    def film(k: int) -> dict:
        arms = tuple(name for name in ARMS if k < plan["fewer"] or ARMS[name][1] != "all")
        return compare(painter, k, steps, walk, arms)

    each = [kept(folder / f"film_{k}.json", partial(film, k)) for k in progress(range(plan["films"]), desc="films")]
    over = [kept(folder / f"sweep_{k}.json", partial(sweep, painter, k, walk, plan["tunings"])) for k in plan["swept"]]
    back = [kept(folder / f"back_{k}.json", partial(way_back, painter, shot(k), steps, plan["walks"]))
            for k in plan["swept"]]  # fmt: skip
    tried = [kept(folder / f"tried_{k}.json", partial(settings, painter, k, steps, walk)) for k in plan["tried"]]
    rows = gathered(each)
    return {
        "films": len(each), "tuning": steps, "walk": walk, "guidance": GUIDANCE, "back": BACK, "arms": tables(rows),
        "pairs": {arm: list(pairs(rows["tuned"], rows[arm])) for arm in ARMS if arm != "tuned"},
        "steps of tuning": tables(gathered(over)), "settings": tables(gathered(tried)), "way back": sum(back, []),
        "seconds": [one["cost"]["seconds"] for one in each], "spread": [one["cost"]["spread"] for one in each],
        "painter": PAINTER, "hardware": hardware(),
    }  # fmt: skip


def load_experiment() -> dict:
    """What the course ships: the file."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main() -> None:
    """Measure, and write the file."""
    for_the_course(FILE)
    found = measure()
    write(FILE, found)
    print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main()
