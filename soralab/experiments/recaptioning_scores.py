"""How chapter 12's captions and pictures are judged: claim by claim against the world, and by the referee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from torch import Tensor

from soralab import world
from soralab.datasets import recaptions, still_captions, stills
from soralab.experiments.clip_scores import images, texts
from soralab.experiments.latent_diffusion_scores import painted
from soralab.latent_diffusion import Painter
from soralab.recipes import clip as chapter_04
from soralab.recipes.recaptioning import SEED
from soralab.training.profiles import by_profile
from soralab.world import referee
from soralab.world.claims import judge, precision, recall, together
from soralab.world.language import PROMPT_WORDS, words
from soralab.world.reader import read_caption

PIXEL = 1 / 32  # short sides: by so much a thing may stand beyond the third that is told
TEST_SEED = 120
KINDS = ("web", "short", "descriptive")  # of prompts
WALK = {"sampler": "dpm_solver_pp", "guidance": 3.0}

# ---------------------------------------------------------------------------------------------------------- captions


def unseen(split: str, things: int, count: int) -> list[world.Scene]:
    """Pictures that no captioner and no painter of this chapter has seen; in "held_out" a thing has a colour that its
    shape never has in training."""
    return [stills.sample(TEST_SEED, k, split, things) for k in range(count)]


def unseen_films(split: str, count: int) -> list[world.Scene]:
    """Films that no captioner has seen."""
    return [recaptions.film_scene(TEST_SEED, k, split) for k in range(count)]


def placed(text: str, scene: world.Scene) -> tuple[int, int]:
    """(places that are told rightly, places that are told) of a picture's text; a pixel's slack."""
    told = recaptions.told_places(text)
    pairs = [(where, thing) for where, thing in zip(told, scene.objects, strict=False) if where]
    return sum(in_place(where, thing.x, thing.y) for where, thing in pairs), len(pairs)


def in_place(where: str, x: float, y: float, slack: float = PIXEL) -> bool:
    """Whether (x, y), in short sides from the middle, lies in the place `where`, such as "up on the left"."""
    edge = recaptions.SPLIT_AT
    across = -1 if "left" in where else 1 if "right" in where else 0
    along = -1 if "up" in where else 1 if "down" in where else 0
    return all(sign * value > edge - slack if sign else abs(value) < edge + slack
               for sign, value in ((across, x), (along, y)))  # fmt: skip


def claims(found: Sequence[str], scenes: Sequence[world.Scene], film: bool = False) -> dict:
    """A table of texts about scenes: precision, recall, the counts behind them, and of pictures the told places."""
    table = together(judge(text, scene, film) for text, scene in zip(found, scenes, strict=True))
    right, told = (sum(n) for n in zip(*map(placed, found, scenes), strict=True))
    return {
        "texts": len(found), "precision": round(precision(table), 4), "recall": round(recall(table), 4),
        "words": round(sum(len(words(text)) for text in found) / len(found), 1),
        "places": None if film else {"right": right, "told": told},
        "kinds": {kind: row for kind, row in table.items() if any(row.values())},
    }  # fmt: skip


def of_pictures(write: Callable[[Tensor], list[str]], count: int) -> dict[str, dict]:
    """`claims` of what `write` says of pictures, for each split and number of things."""
    rows = {}
    for split in ("test", "held_out"):
        for things in (1, 2):
            scenes = unseen(split, things, count)
            rows[f"{split}, {things}"] = claims(write(stills.pictures(scenes)), scenes)
    return rows


def of_films(write: Callable[[Tensor], list[str]], count: int) -> dict[str, dict]:
    """`claims` of what `write` says of films, for each split."""
    rows = {}
    for split in ("test", "held_out"):
        scenes = unseen_films(split, count)
        rows[split] = claims(write(recaptions.films(scenes)), scenes, film=True)
    return rows


def of_the_web(count: int) -> dict[str, dict]:
    """`claims` of alt texts, the baseline."""
    rows = {}
    for split in ("test", "held_out"):
        for things in (1, 2):
            scenes = unseen(split, things, count)
            rows[f"{split}, {things}"] = claims([alt(k, scene) for k, scene in enumerate(scenes)], scenes)
    return rows


def alt(index: int, scene: world.Scene) -> str:
    """The alt text beside a test picture."""
    return recaptions.web_text(TEST_SEED, index, scene)


# ----------------------------------------------------------------------------------------------------------- painters


def prompts(kind: str, things: int, count: int, split: str = "test") -> tuple[list[str], list[world.Scene]]:
    """`count` prompts of one of KINDS, and the scenes that they were taken from.

    Of alt texts those that name a thing, in words that a prompt may have; they are taken at their word, right or wrong.
    """
    found, index = [], 0
    while len(found) < count:
        scene = stills.sample(TEST_SEED, index, split, things)
        text = {"web": alt(index, scene), "short": recaptions.short(scene),
                "descriptive": recaptions.descriptive(scene)}[kind]  # fmt: skip
        told = read_caption(text)
        if told and all(one["shape"] for one in told) and set(words(text)) <= set(PROMPT_WORDS):
            found.append((text, scene))
        index += 1
    return [text for text, _ in found], [scene for _, scene in found]


def shows(report: referee.Report, text: str) -> bool:
    """Whether every thing of a prompt is seen, with all that is said of it; more may be. What the web calls a picture
    does not tell all of it."""
    result = referee.score_caption(report, read_caption(text))
    return result["shape"] and result["colour"] and result["size"]


def stands(report: referee.Report, text: str) -> bool:
    """Whether each thing of a description is the only one of its colour, and in the place that is told of it."""
    for one, where in zip(read_caption(text), recaptions.told_places(text), strict=True):
        here = [thing for thing in report.objects if thing.colour == one["colour"]]
        if len(here) != 1 or where and not in_place(where, *map(float, here[0].trajectory[0])):
            return False
    return True


def marks(shown: Tensor, asked: Sequence[str]) -> dict[str, float]:
    """Shares of pictures: "shows" all that is said, relations too; the referee's columns, strict; "placed"."""
    rows = []
    for picture, text in zip(shown, asked, strict=True):
        row, report = stills.marks(picture, text), stills.read(picture)
        rows.append(row | {"shows": shows(report, text) and row["relation"], "placed": stands(report, text)})
    return {key: round(sum(row[key] for row in rows) / len(rows), 4) for key in ("shows", *stills.COLUMNS, "placed")}


def scores(painter: Painter, count: int, kinds: Sequence[str] = KINDS, seed: int = 120_000) -> dict[str, dict]:
    """{"kind, things": `marks`, and of descriptions the CLIP score} of what a painter makes of test prompts."""
    table = {}
    for kind in kinds:
        for things in (1, 2):
            asked, scenes = prompts(kind, things, count)
            shown = painted(painter, asked, seed=seed, steps=by_profile(smoke=2, laptop=10, gpu=10), **WALK).cpu()
            table[f"{kind}, {things}"] = marks(shown, asked)
            if kind == "descriptive":
                table[f"{kind}, {things}"]["CLIP"] = clip_score(shown, scenes)
    return table


def clip_score(shown: Tensor, scenes: Sequence[world.Scene]) -> float:
    """The report's measure: the mean cosine, times 100, that chapter 04's CLIP gives pictures and descriptions of what
    they should show."""
    model, tokens = chapter_04.load()
    I_e = images(model, shown.add(1).mul(127.5).round().byte())
    T_e = texts(model, tokens, [still_captions.descriptive(scene) for scene in scenes])
    return round(100 * (I_e * T_e).sum(1).mean().item(), 2)


def drawn(count: int, seed: int = SEED) -> tuple[list[str], list[world.Scene]]:
    """Hurried prompts of test scenes, of one and of two things by turns, and the scenes."""
    scenes = [stills.sample(TEST_SEED, k, "test", 1 + k % 2) for k in range(count)]
    return [recaptions.shortened(scene, Random(f"{seed}/{k}")) for k, scene in enumerate(scenes)], scenes
