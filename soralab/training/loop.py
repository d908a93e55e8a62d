"""The one training loop of the course.

A step is a pure function of the state before it and of its number: batch_fn(step) makes its batch, and all
its randomness comes from (seed, step). So a run that was interrupted and resumed ends at the very same
weights, bit for bit, as one that was not (on the same machine and at the same precision). Several processes
share the work of a step: see `soralab.training.distributed`.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from soralab.files.atomic import make_folder
from soralab.files.checkpoints import (
    CheckpointError,
    load_checkpoint,
    read_card,
    remove_checkpoint,
    save_checkpoint,
)
from soralab.files.lock import alone
from soralab.training.config import TrainConfig, autocast, autocast_dtype, learning_rate, step_seed
from soralab.training.data import Prefetch
from soralab.training.distributed import TEAM, Share
from soralab.training.ema import EMA
from soralab.training.interrupt import StopSignal, goes_on
from soralab.training.muon import MuonAdamW
from soralab.training.probes import Probes
from soralab.training.profiles import device, hardware
from soralab.training.progress import progress
from soralab.training.sharded import Sharded
from soralab.training.state import STRETCH, append_log, gather, is_state, restore, same_trained, trained_as, trim_log

MAY_CHANGE = ("steps", "log_every", "save_every")  # on resuming; all else would make it another run


@dataclass(frozen=True)
class TrainResult:
    """What `train` did. The model holds the last weights; `ema.applied(model)` shows the averaged ones."""

    steps: int
    loss: float  # mean over the last logged stretch
    seconds: float  # of training, the stretches before an interruption included
    wait_s: float  # of them, seconds in which the loop waited for data, since it was last resumed
    ema: EMA
    log: Path  # JSON lines: step, loss, lr, grad_norm, seconds, samples_s, wait_share, loss_fn's numbers
    state: Path


def train(model: nn.Module, loss_fn: Callable, batch_fn: Callable[[int], Any], config: TrainConfig,
          folder: str | Path, resume: bool = True, on_log: Callable[[dict], None] | None = None,
          parameters: Iterable | None = None, probes: Probes | None = None) -> TrainResult:
    """Train `model` for config.steps steps in all; keep its state and log in `folder`.

    It computes on `profiles.device()`: the model is moved there for the run, batches and probes follow it, and at the
    end the model and its average are where the model was. What is saved is the same on any device.

    loss_fn(model, batch, generator) -> scalar tensor, or (scalar tensor, {name: number to log}). generator: a
        torch.Generator on that device, seeded by (seed, step): a GPU's draws are not the CPU's. torch's global
        generator (dropout) is seeded the same way and is given back untouched.
    batch_fn(step) -> tensors in any nest of lists, tuples and dicts; pure in the step (it runs ahead, in a
        thread, and must use no global random state). A method `cut` of it says how its batches are parted
        among processes, where `distributed.cut` cannot.
    resume: go on from the state in `folder` if there is one; False removes it and begins anew. config may
        differ from the saved one in steps, log_every and save_every only. More steps lengthen the run: it
        goes on from where the old learning rate began to fall, as if it had been long at once, where batch_fn does
        not depend on `steps`.
    on_log: called with each record of the log. parameters: what is trained, as tensors or as groups; by default
        all parameters that require gradients. A group trains with AdamW, with `muon=True` with Muon (see
        soralab.training.muon), at the learning rate times its `scale`.
    probes: what else to measure on the way and to write into the log (see soralab.training.probes).

    Ctrl-C or SIGTERM: the step is finished, the state saved, a line says how to go on, then
    KeyboardInterrupt or SystemExit(143). Raises FloatingPointError at a loss or gradient that is not finite
    (the last good state stays), OSError for a full disk or unwritable folder (the same) and while another
    training runs in `folder`, ValueError for a state of another run.
    """
    home = next((p.device for p in model.parameters()), torch.device("cpu"))
    with TEAM.get().together():
        try:  # moved in place: the tensors that `parameters` names stay the model's
            run = _Run(model.to(device()), loss_fn, config, make_folder(folder), on_log, parameters, probes)
            result = _train(run, batch_fn, resume)
        finally:
            model.to(home)
        result.ema.to(home)
    return result


def _train(run: _Run, batch_fn: Callable[[int], Any], resume: bool) -> TrainResult:
    """`train`, on the device where the run's model is."""
    with contextlib.ExitStack() as held:
        with run.team.first_alone():
            if run.team.leads:
                held.enter_context(alone(run.folder, "training"))  # before anything there is read or changed
            run.begin(resume)
        run.set_out()
        return run.result(wait_s=0.0) if run.step >= run.config.steps else _steps(run, batch_fn)


def _steps(run: _Run, batch_fn: Callable[[int], Any]) -> TrainResult:
    """What is left of a run that has begun."""
    model, config, team, stopped = run.model, run.config, run.team, 0
    devices = [run.device] if run.device.type == "cuda" else []
    was_training = model.training
    try:
        model.train()
        with torch.random.fork_rng(devices), StopSignal() as stop, \
             Prefetch(lambda step: team.share(batch_fn(step), run.parts, batch_fn), run.step, config.steps,
                      device=run.device) as batches, \
             progress(total=config.steps, initial=run.step, desc=run.folder.name, unit="step") as bar:
            for share in batches:
                run.advance(share, batches.wait_s, bar)
                stopped = team.most(stop.received or 0)
                if stopped:
                    break
    finally:
        model.train(was_training)
    if stopped:
        if run.saved < run.step:
            run.save()
        if team.leads:
            print(f"stopped at step {run.step} of {config.steps}, {goes_on(run.folder)}", file=sys.stderr)
        raise KeyboardInterrupt if stopped == signal.SIGINT else SystemExit(128 + stopped)
    return run.result(batches.wait_s)


class _Run:
    """One run in progress: the model, its optimizer and average, the step, the open stretch of the log."""

    def __init__(self, model: nn.Module, loss_fn: Callable, config: TrainConfig, folder: Path,
                 on_log: Callable | None, parameters: Iterable | None, probes: Probes | None = None):
        self.model, self.config, self.team = model, config, TEAM.get()
        self.folder, self.on_log, self.probes = folder, on_log, probes
        if probes is not None:
            if self.team.shard:
                raise ValueError("probes look at whole weights: train without shards, or without probes")
            probes.begin(model)
        if parameters is None:
            parameters = (p for p in model.parameters() if p.requires_grad)
        groups = list(parameters)
        if not groups:
            raise ValueError("parameters is empty: the model has none that require gradients")
        self.device = next(model.parameters()).device
        self.dtype = autocast_dtype(config.precision, self.device)
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = MuonAdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay,
                                   fused=fused, dtype=self.dtype)
        self.optimizer.divided = self.team.divided
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.trained_as = trained_as(model, self.optimizer)
        self.module, self.parts = self.team.wrap(model, loss_fn), self.team.parts()
        self.shards: Sharded | None = None
        saved = model.state_dict()
        self.moving = [name for name, b in model.named_buffers() if name in saved and b.is_floating_point()]
        self.ema = EMA(model, config.ema)
        self.generator = torch.Generator(self.device)
        self.log, self.state, self.stable = folder / "log.jsonl", folder / "state", folder / "stable"
        self.mend = f"remove the folder {folder} to begin anew, or bring its files back"
        self.step, self.seconds, self.loss, self.saved = 0, 0.0, math.nan, 0
        self._open_stretch()

    def _open_stretch(self) -> None:
        """Begin the sums that the next line of the log is the mean of."""
        self.sums: dict[str, float] = {}
        self.count = self.samples = 0
        self.spent = self.waited = 0.0  # seconds

    def begin(self, resume: bool) -> None:
        """Load the saved state that this run goes on from, if any, and trim the log to it."""
        if not resume and self.team.leads:
            remove_checkpoint(self.state)
            remove_checkpoint(self.stable)
        source = self._source()
        if source is not None:
            self._restore(*load_checkpoint(source, device=self.device, mend=self.mend))
        if self.team.leads:
            trim_log(self.log, self.step)

    def set_out(self) -> None:
        """Be ready for the next step, now that all processes are where the run was: cut into shards, start a clock."""
        if self.team.shard:
            self.shards = Sharded(self.model, self.module, self.optimizer, self.ema, self.team)
        self._last_wait = 0.0
        self._clock = time.perf_counter()

    def _restore(self, tensors: dict[str, Tensor], card: dict) -> None:
        """Be where a saved state was."""
        same_trained(card, self.trained_as)
        restore(tensors, self.model, self.ema, self.optimizer)
        self.step = self.saved = self.ema.updates = card["step"]
        self.seconds, self.loss = card["seconds"], card["loss"] if card["loss"] is not None else math.nan
        for name in STRETCH:
            setattr(self, name, card["stretch"][name])
        if isinstance(self.probes, Probes):
            self.probes.goes_on(self.step - self.count)
        before = card.get("parts", 1)
        self.parts = self.team.parts(before)
        if self.parts != before and self.team.leads and self.step < self.config.steps:
            print(f"batches of {self.folder} were taken in parts of 1/{before} until step {self.step}, from there on "
                  f"in parts of 1/{self.parts}: the same examples with other noise", file=sys.stderr)

    def _source(self) -> Path | None:
        """The saved state to go on from: of `state` and `stable` the later one that this run comes by."""
        found = [path for path in (self.state, self.stable) if path.with_suffix(".json").exists()
                 or path.with_suffix(".safetensors").exists()]
        usable = {}
        for path in found:
            card = read_card(path, self.mend)
            if not is_state(card):
                raise CheckpointError(f"the card {path}.json is not that of a training state: {self.mend}")
            self._same_config(card["config"])
            steps, old = card["config"]["steps"], TrainConfig(**card["config"])
            if steps == self.config.steps or card["step"] <= min(old.cooldown_start, self.config.cooldown_start):
                usable[path] = card["step"]
        if usable:
            return max(usable, key=usable.get)
        if found:
            raise ValueError(f"steps is {self.config.steps}, but the state in {self.folder} is of a run "
                             f"of {steps} steps, too far on to become that: give {steps} steps, or begin "
                             "anew with resume=False")
        return None

    def _same_config(self, saved: dict) -> None:
        here = self.config.card()
        for name in (f.name for f in fields(TrainConfig) if f.name not in MAY_CHANGE):
            if saved.get(name) != here[name]:
                raise ValueError(f"{name} is {here[name]!r}, but the state in {self.folder} was trained with "
                                 f"{saved.get(name)!r}: give that, or begin anew with resume=False")

    def advance(self, share: Share, wait_s: float, bar: Any) -> None:
        """Do one step, then what is due after it: a line of the log, a saved state."""
        loss, norm, extras = self._update(share)
        self.step += 1
        now = time.perf_counter()
        self.spent += now - self._clock
        self.seconds += now - self._clock
        self._clock = now
        self.waited += wait_s - self._last_wait
        self._last_wait = wait_s
        self.count += 1
        self.samples += share.size
        for name, value in {**extras, "loss": loss, "grad_norm": norm}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        bar.update()
        config = self.config
        if self.step % config.log_every == 0 or self.step == config.steps:
            self._write_log(bar)
        if self.step == config.cooldown_start and 0 < self.step < config.steps:
            self.save(self.stable)
        if self.step % config.save_every == 0 or self.step == config.steps:
            self.save()

    def _update(self, share: Share) -> tuple[float, float, dict[str, float]]:
        """One step of the optimizer and of the average: (loss, norm of the gradient, what loss_fn reports)."""
        rate = learning_rate(self.step, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        with self.team.mean_of_moves(self.model, self.moving):
            loss, extras = self._gradients(share)
        if self.shards:
            self.shards.take_gradients()
        norm = (self.shards or nn.utils).clip_grad_norm_(self.trained, self.config.clip)
        # Both numbers in one transfer, before the step: what is not finite must not reach the weights.
        value, norm = torch.stack([loss, norm.float()]).tolist()
        if self.team.world > 1:
            extras = self.team.total({**extras, "loss": value})
            value = extras.pop("loss")
        for what, number in (("loss", value), ("norm of the gradient", norm)):
            if not math.isfinite(number):
                kept = f"step {self.saved} is kept in {self.folder}" if self.saved else "nothing saved yet"
                raise FloatingPointError(f"the {what} became {number} at step {self.step + 1} ({kept}): "
                                         f"begin anew with a lower learning rate than {self.config.lr:g}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step()
        self.ema.update(self.shards or self.model)
        return value, norm, {name: float(number) for name, number in extras.items()}

    def _gradients(self, share: Share) -> tuple[Tensor, dict[str, Any]]:
        """The gradients of a batch, part by part: (loss, what loss_fn reports), both summed by the parts' shares."""
        loss, extras = torch.zeros((), device=self.device), {}
        for part in share.parts:
            seed = step_seed(self.config.seed, self.step, part.number)
            torch.manual_seed(seed)
            self.generator.manual_seed(seed)
            with self.team.syncing(self.module, last=part is share.parts[-1]):
                with autocast(self.dtype, self.device):
                    value, reported = self.module(part.batch, self.generator)
                # The processes' mean is taken of what each has: so the sum of its parts' shares, times their number.
                value.backward(torch.full_like(value, part.weight * self.team.world))
            loss = loss + part.weight * value.detach().float()
            for name, number in reported.items():
                extras[name] = extras.get(name, 0.0) + part.weight * number
        return loss, extras

    def _write_log(self, bar: Any) -> None:
        means = {name: total / self.count for name, total in self.sums.items()}
        self.loss = means["loss"]
        record = {"step": self.step, "loss": means.pop("loss"),
                  "lr": learning_rate(self.step - 1, self.config),
                  "grad_norm": means.pop("grad_norm"), **means,
                  "seconds": round(self.seconds, 3),
                  "samples_s": round(self.samples / self.spent, 2),
                  "wait_share": round(self.waited / self.spent, 4)}
        if self.probes is not None:
            record |= self.probes(record, self.model, self.ema)
        if self.team.leads:
            append_log(self.log, record)
        bar.set_postfix_str(f"loss {self.loss:.4g}, {record['samples_s']:.3g} samples/s")
        if self.on_log is not None:
            with self.shards.whole_model() if self.shards else contextlib.nullcontext():
                if self.team.leads:
                    self.on_log(record)
        self._open_stretch()

    def save(self, path: Path | None = None) -> None:
        """Save everything that the next step depends on as `path` (by default the folder's state)."""
        stretch = {name: getattr(self, name) for name in STRETCH}
        card = {"config": self.config.card(), "step": self.step, "seconds": self.seconds,
                "loss": self.loss if math.isfinite(self.loss) else None, "stretch": stretch, "parts": self.parts,
                **self.trained_as,
                "precision": str(self.dtype or torch.float32).removeprefix("torch."), "hardware": hardware()}
        tensors = gather(self.model, self.ema, self.optimizer)
        if self.shards:
            tensors = self.shards.collected(tensors)
        if self.team.leads:
            save_checkpoint(path or self.state, tensors, card)
        if path is None:  # what a run goes on from; `stable` is for one that is lengthened
            self.saved = self.step

    def result(self, wait_s: float) -> TrainResult:
        """What `train` returns; the model is whole."""
        if self.shards:
            self.shards.end()
        return TrainResult(self.step, self.loss, self.seconds, wait_s, self.ema, self.log,
                           self.state.with_suffix(".safetensors"))
