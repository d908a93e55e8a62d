"""Batches made ahead of time by a background thread, and what the machine's peak is to be held against."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """`batch` with `function` applied to each tensor in its lists, tuples, named tuples and dicts."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def beside(model: nn.Module, batch: Any) -> Any:
    """`batch`, tensors in any nest as in `map_tensors`, on the model's device; what is there already is not copied.

    A function, or a model without weights, takes tensors where they are.
    """
    weight = next(iter(getattr(model, "parameters", tuple)()), None)
    return batch if weight is None else map_tensors(lambda t: t.to(weight.device, non_blocking=True), batch)


def batch_size(batch: Any) -> int:
    """The length of the first tensor of `batch` that has a length; 1 where there is none."""
    sizes: list[int] = []
    map_tensors(lambda t: (sizes.append(len(t)) if t.ndim else None, t)[1], batch)
    return sizes[0] if sizes else 1


class Prefetch:
    """Iterates over batch_fn(start), ..., batch_fn(stop - 1), in that order, made ahead by one thread.

        with Prefetch(batch_fn, 0, 100) as batches:
            for batch in batches: ...

    depth: batches that may wait ready. wait_s: seconds that the consumer has waited so far.
    An error in batch_fn is raised to the consumer at the very step at which it happened.
    """

    def __init__(self, batch_fn: Callable[[int], Any], start: int, stop: int, depth: int = 3,
                 device: torch.device | str = "cpu"):
        self.batch_fn, self.start, self.stop = batch_fn, start, stop
        self.device = torch.device(device)
        self.wait_s = 0.0
        self._ready: queue.Queue = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="soralab-prefetch", daemon=True)

    def __enter__(self) -> "Prefetch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=5)  # one that takes longer dies with the process: it is a daemon

    def _produce(self) -> None:
        pin = self.device.type == "cuda"  # page-locked memory lets the copy to the GPU run beside its work
        for step in range(self.start, self.stop):
            try:
                batch = self.batch_fn(step)
                item = (map_tensors(_pinned, batch) if pin else batch, None)
            except BaseException as error:
                item = (None, error)
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or item[1] is not None:
                return

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.start, self.stop):
            began = time.perf_counter()
            while True:
                try:  # a bounded wait, so that Ctrl-C is heard on Windows too
                    batch, error = self._ready.get(timeout=0.2)
                    break
                except queue.Empty:
                    if not self._thread.is_alive() and self._ready.empty():  # rather than wait for ever
                        raise RuntimeError("the thread that makes the batches ended early") from None
            self.wait_s += time.perf_counter() - began
            if error is not None:
                raise error
            yield map_tensors(lambda t: t.to(self.device, non_blocking=True), batch)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor  # one that lies on the GPU stays there


def peak_gflops(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
                seconds: float = 1.0) -> float:
    """The best rate (10^9 floating-point operations a second) that a square matrix product reaches here.

    Takes about `seconds`. An n×n×n product is 2n³ operations; n = 1024 on a CPU, 8192 on a GPU.
    """
    device = torch.device(device)
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    a @ b  # the first product loads the library and is not counted
    wait()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        began = time.perf_counter()
        a @ b
        wait()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best / 1e9


def model_flops(model: Callable, *args: Any, **kwargs: Any) -> int:
    """Floating-point operations of one call model(*args, **kwargs), matrix products and convolutions counted.

    A training step costs about three times as much: the backward pass is two products for each forward one.
    """
    from torch.utils.flop_counter import FlopCounterMode  # not before: without Triton its import warns

    with torch.device("cpu"):  # until torch 2.8, einops loads a compiler when it is first used; that computes, once
        rearrange(torch.zeros(1), "one -> one")
    # Of attention's fused kernels some releases of torch count nothing; the plain one is two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    return counter.get_total_flops()


def training_flops(hours: float, gpus: int = 8, flops: float = 9.5e12) -> float:
    """Of a whole training, as Table 2 of 1706.03762 estimates it: hours, times devices, times what one of them sustains
    in single precision, operations a second (a P100: 9.5e12)."""
    return hours * 3600 * gpus * flops
