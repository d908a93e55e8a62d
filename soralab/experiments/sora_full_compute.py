"""The same prompts from the same noise after more and more of a training: data/experiments/sora_full_compute.

So the report shows what computing buys: one film after a base amount of it, after 4 and after 32 times as much.
`python -m soralab.experiments.sora_full_compute` measures where the training in runs/sora_full stands, and adds a row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from soralab.experiments.shipped import EXPERIMENTS, for_the_course
from soralab.experiments.sora_full_scores import asked, measure, percent
from soralab.figures.curves import wilson
from soralab.files.checkpoints import checkpoint_paths, load_checkpoint, save_checkpoint
from soralab.recipes import sora_full as recipe
from soralab.recipes.sora_full import KINDS, Batches
from soralab.sora_full import Films, FullFilmmaker, FullSora, latents
from soralab.training.data import model_flops
from soralab.training.profiles import by_profile, device

FILE = EXPERIMENTS / "sora_full_compute"
KINDS_ASKED, COUNT, SHOWN, SEED = ("simple", "full, two things"), 100, 3, 0
TOLD = ("colour", "motion", "shape", "size", "background", "everything")
SAMPLED = 8  # batches whose operations are counted
SAMPLER = "dpm_solver_pp"  # at every stage; without fresh noise one and the same noise leads to films that compare


def libraries(words: int = 24) -> list[dict[str, Tensor]]:
    """Films of nothing, of each kind's size, with prompts of so many words: all that a count asks of them."""
    shapes = ((sum(map(latents, kind.clips)), 16, kind.height // 4, kind.width // 4) for kind in KINDS)
    return [{"latents": torch.zeros(1, *shape), "ids": torch.ones(1, 4, words, dtype=torch.long)} for shape in shapes]


def operations(model: FullSora, steps: int) -> float:
    """Of so many steps of the recipe's training: three times what a forward pass takes, on its own mix of sizes."""
    batches, total = Batches(libraries(), early=recipe.EARLY, late=recipe.LATE), 0.0
    early, late = min(steps, recipe.EARLY), max(0, steps - recipe.LATE)
    for first, many in ((0, early), (recipe.EARLY, steps - early - late), (recipe.LATE, late)):
        if many:
            sampled = [_forward(model, batches(first + k)) for k in range(min(many, SAMPLED))]
            total += 3 * many * sum(sampled) / len(sampled)
    return total


def _forward(model: FullSora, batch: Mapping) -> int:
    films = [Films(x, torch.full(x.shape[:2], 0.5), KINDS[number].clips, rate)
             for number, x, rate in zip(batch["kinds"], batch["x0"], batch["rate"], strict=True)]  # fmt: skip
    return model_flops(model, films, batch["ids"])


def shown() -> list[str]:
    """The prompts that are filmed at every stage: the first of each kind."""
    return [text for kind in KINDS_ASKED for text in asked(kind, SHOWN)[0]]


def measured(name: str = recipe.NAME) -> tuple[dict, Tensor]:
    """A row of where the training stands, and its films of `shown` [films, time, 3, height, width], bytes."""
    weights, done = recipe.average(name)
    model = recipe.build()
    model.load_state_dict(weights)
    row = {**done, "operations": operations(model, done["steps"])}
    maker = FullFilmmaker(model.eval().to(device()), recipe.first_stage().to(device()))
    count = by_profile(smoke=2, laptop=COUNT, gpu=COUNT)
    row |= {kind: measure(maker, kind, count, sampler=SAMPLER) for kind in KINDS_ASKED}
    films = maker.film(shown(), seed=SEED, sampler=SAMPLER).cpu()
    return row, ((films + 1) * 127.5).round().to(torch.uint8)


def load_experiment() -> tuple[dict[str, dict], dict[str, Tensor]]:
    """What the course holds: {steps: row} in the order of the steps, and {steps: films}; without files nothing."""
    if not checkpoint_paths(FILE)[1].exists():
        return {}, {}
    films, card = load_checkpoint(FILE)
    return dict(sorted(card["rows"].items(), key=lambda row: int(row[0]))), films


def table(rows: Mapping[str, Mapping]) -> str:
    """Of each stage and kind of prompt what is right, in percent: a line each, the last with its Wilson interval. The
    rate is the learning rate there, of its highest."""
    lines = [f"{'steps':>6s}  rate  operations  {'asked':17s}" + "".join(f"{what:>{len(what) + 2}s}" for what in TOLD)]
    for steps, row in rows.items():
        for kind in KINDS_ASKED:
            found = row[kind]
            low, high = wilson(*found[TOLD[-1]])
            stage = f"{int(steps):6,d}{row.get('rate', 1):6.0%}{row['operations']:12.1e}"
            stage = stage if kind == KINDS_ASKED[0] else " " * len(stage)
            shares = (percent(found.get(what)) for what in TOLD)
            cells = (f"{share:>{len(what) + 2}s}" for what, share in zip(TOLD, shares, strict=True))
            lines.append(f"{stage}  {kind:17s}" + "".join(cells) + f" ({100 * low:.0f}\u2013{100 * high:.0f})")
    return "\n".join(lines)


def main() -> None:
    """Measure where the training stands, and add the row."""
    for_the_course(FILE)
    rows, films = load_experiment()
    row, made = measured()
    key = str(row["steps"])
    save_checkpoint(FILE, films | {key: made}, {"rows": rows | {key: row}, "prompts": shown()})
    print(table(load_experiment()[0]))


if __name__ == "__main__":
    main()
