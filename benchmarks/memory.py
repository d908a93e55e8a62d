"""How much memory one side of a row takes: the growth of what a process of its own has held at most.

Counted is what the system gave the process (ru_maxrss), not what torch asked its allocator for: the scratch memory of
the libraries below torch (oneDNN packs weights and unfolds convolutions) is what a laptop runs out of, too. It begins
after everything is imported and small layers have been computed once, forwards and backwards, so that neither Python
nor the libraries' code counts, and holds the model, its batch, activations and gradients. What the system gives comes
in pages and is kept for later, so a few MB mean nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module

import torch
from torch import nn

from soralab.training.memory import peak_gb

STEPS = 3


class Processes:
    """Measures in a fresh process each: `Processes(modules).peak(make, needs)`.

    They are copies of one that has imported `modules`, where the system can copy processes; else each imports anew.
    """

    def __init__(self, modules: Sequence[str] = ()):
        kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.context = multiprocessing.get_context(kind)
        if kind == "forkserver":
            self.context.set_forkserver_preload([__name__, *modules])

    def peak(self, make: Callable, needs: Sequence[str] = (), threads: int = 0) -> float | None:
        """Bytes that making this `Work` and running it takes at most; None if the process was killed for it.

        threads: by default as many as the caller has.
        """
        with ProcessPoolExecutor(1, mp_context=self.context) as pool:
            try:
                return pool.submit(peak, make, needs, threads or torch.get_num_threads()).result()
            except BrokenProcessPool:
                return None


def peak(make: Callable, needs: Sequence[str], threads: int) -> float:
    """The same, in this process, which has to be a fresh one."""
    torch.set_num_threads(threads)
    for name in needs:
        with suppress(ImportError):
            import_module(name)
    warm_up()
    before = peak_gb()
    work = make()
    for _ in range(STEPS):
        work.run()
    return 1e9 * (peak_gb() - before)


def warm_up() -> None:
    """Load the code of the usual layers, forwards and backwards."""
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    picture = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1),
        nn.Upsample(scale_factor=2),
    )  # fmt: skip
    film = nn.Conv3d(8, 8, (3, 3, 3), padding=1)
    tokens = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.GELU("tanh"), nn.Dropout(0.1))
    seen = tokens(film(picture(x)[:, :, None])[:, :, 0].flatten(2))
    q = seen[:, None].expand(-1, 2, -1, -1).contiguous()
    mask = torch.ones(8, 8, dtype=torch.bool)
    mixed = nn.functional.scaled_dot_product_attention(q, q, q)
    mixed = mixed + nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    logits = (mixed @ mixed.mT).softmax(-1).sum((1, 2)) + nn.Embedding(8, 8)(torch.arange(2))
    nn.functional.cross_entropy(logits, torch.arange(2)).backward()
