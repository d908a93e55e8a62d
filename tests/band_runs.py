"""Short runs that are wrong on purpose, and right ones with other seeds than the bands': what test_bands.py judges.

    python tests/band_runs.py unet --good 11 12 13 --wrong 21 22 23

makes them (the recipe's own short run; only `loop.train` is wrapped) and adds them to tests/band_runs/NAME.json, each
as the mean of its loss in each stretch of the steps, and its probes. A wrong run stops at the share of the steps that
KINDS gives: what is told by then need not run on. (A run without an average has the loss of a right one; its probe is
0 or 1, see test_probes.py, so none is stored.)
"""

import argparse
import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from soralab.figures.bands import STRETCHES, stretches  # noqa: E402
from soralab.training import loop  # noqa: E402

RUNS = Path(__file__).parent / "band_runs"
PROBES = ("held", "pairing", "lag", "way", "still")
KINDS = {"rate x 10": 0.1, "rate / 10": 0.1, "sign": 0.3, "head": 0.1, "shuffled": 1.0}
HEADS = {"unet": ("head.",), "transformer": ("embedding.",), "vit": ("head.2.",), "vqvae": ("decoder.7.",),
         "clip": ("W_t.", "image.attnpool.c_proj."), "latent_diffusion": ("unet.head.2.",),
         "navit": ("head.",), "vivit": ("head.",), "imagen_video": ("unet.head.2.",),
         "align_your_latents": ("beside.",), "walt": ("head.",), "llava": ("W.",),
         "recaptioning": ("embedding.",),
         "make_a_video": ("picture.unet.head.2.",), "tune_a_video": ("unet.up.",), "sora": ("head.",)}  # fmt: skip
LABELS = {"unet": ("target", "weights"), "transformer": ("source",), "vit": ("label",), "clip": ("ids",),
          "latent_diffusion": ("ids",), "navit": ("label",), "vivit": ("label",), "imagen_video": ("ids",),
          "align_your_latents": ("ids", "words"), "recaptioning": ("target",), "llava": ("Z",),
          "make_a_video": ("seen",),
          "walt": ("ids", "names"), "sora": ("ids",)}  # fmt: skip


class Enough(Exception):
    """The run has gone as far as it should."""


def spoilt(name: str, kind: str, model: nn.Module, loss_fn, batch_fn, config):
    """(loss_fn, batch_fn, config) with one mistake in them, or one in the model."""
    if kind == "rate x 10":
        config = replace(config, lr=config.lr * 10)
    if kind == "rate / 10":
        config = replace(config, lr=config.lr / 10)
    if kind == "sign":
        for p in filter(lambda p: p.requires_grad, model.parameters()):
            p.register_hook(lambda gradient: -gradient)
    if kind == "head":
        for key, p in model.named_parameters():
            p.requires_grad_(p.requires_grad and not key.startswith(HEADS[name]))
    if kind == "codebook":  # chapter 05 has no average but this one, of the codes
        model.quantizer.move = lambda z, indices: None
    if kind == "shuffled" and name != "vqvae":
        plain = batch_fn

        def batch_fn(step):
            batch = plain(step)
            return batch | {key: batch[key].roll(1, 0) for key in LABELS[name]}

    if kind == "shuffled" and name == "vqvae":
        right = loss_fn

        def loss_fn(model, batch, generator):
            if not model.training:
                return right(model, batch, generator)
            copy, q = model(batch["pixels"])
            return (copy - batch["pixels"].roll(1, 0)).square().mean() / 0.15 + q.loss, {}

    return loss_fn, batch_fn, config


def run(name: str, kind: str, seed: int) -> list[dict]:
    """The lines of the log of one run of a chapter."""
    records, upto = [], KINDS.get(kind, 0.3 if kind == "codebook" else 1.0)
    train = loop.train

    def wrong_train(model, loss_fn, batch_fn, config, folder, **options):
        def on_log(record):
            records.append(record)
            if upto < 1 and record["step"] >= upto * config.steps:
                raise Enough

        loss_fn, batch_fn, config = spoilt(name, kind, model, loss_fn, batch_fn, config)
        return train(model, loss_fn, batch_fn, config, folder, on_log=on_log, **options)

    loop.train = wrong_train
    try:
        importlib.import_module(f"soralab.recipes.{name}").short_run(seed)
    except (Enough, FloatingPointError):
        pass
    finally:
        loop.train = train
    return records


def columns(records: list[dict]) -> dict[str, np.ndarray]:
    """Lines of a log as columns, NaN where a line lacks a key."""
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: np.array([record.get(key, np.nan) for record in records]) for key in keys}


def compact(records: list[dict], steps: int) -> dict[str, list]:
    """A log as one line for each stretch that it has finished, and one for each mark: {"step", "loss", "held", ...}."""
    values = stretches(columns(records), steps)
    lines = [{"step": (k + 1) * steps / STRETCHES, "loss": float(np.exp(v))} for k, v in enumerate(values) if v == v]
    probed = [key for key in PROBES if any(key in r for r in records)]
    lines += [{key: r[key] for key in ("step", *probed) if key in r} for r in records if "held" in r]
    lines.sort(key=lambda line: line["step"])
    return {key: [float(f"{line[key]:.4g}") if key in line else None for line in lines]
            for key in ("step", "loss", *probed)}  # fmt: skip


def main() -> None:
    """Make the runs that are asked for, and keep each as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=HEADS)
    parser.add_argument("--good", type=int, nargs="*", default=[])
    parser.add_argument("--wrong", type=int, nargs="*", default=[])
    asked = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(1)
    steps = json.loads((ROOT / "data" / "bands" / f"{asked.name}.json").read_text(encoding="utf-8"))["steps"]
    path = RUNS / f"{asked.name}.json"
    none = {"tune_a_video": "shuffled"}.get(asked.name)  # it has one film, and no other to mix it up with
    kinds = [*(kind for kind in KINDS if kind != none), *["codebook"] * (asked.name == "vqvae")]
    jobs = [("good", seed) for seed in asked.good] + [(kind, seed) for seed in asked.wrong for kind in kinds]
    for kind, seed in jobs:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        kept = [each for each in kept if (each["kind"], each["seed"]) != (kind, seed)]
        kept.append({"kind": kind, "seed": seed, "log": compact(run(asked.name, kind, seed), steps)})
        path.parent.mkdir(exist_ok=True)
        path.write_text("[\n" + ",\n".join(json.dumps(each) for each in kept) + "\n]\n", encoding="utf-8")
        print(asked.name, kind, seed, flush=True)


if __name__ == "__main__":
    main()
