"""A second device for machines without a GPU: `with Card(monkeypatch):` and `profiles.device()` is `CARD`.

Its tensors say that they lie on CARD, and are computed on the processor behind it. So what runs on it gives numbers,
the processor's own, and what mixes devices is refused by the rules of a GPU: tensors of both in one operation (a CPU
tensor without dimensions may stand beside others, and CPU indices may pick from a tensor of the card), a generator of
the other device, a tensor of the card as NumPy array. CARD is "meta", which every build of torch knows; while a Card is
there, that device holds numbers.

Where it is kinder than a GPU: nothing is slow, nothing rounds otherwise, kernels and torch.compile are not tried.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor
from torch import __future__ as future
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from soralab.training import profiles
from soralab.training.data import Prefetch

CARD, CPU = torch.device("meta"), torch.device("cpu")
MOVES = {"copy_", "_to_copy"}
PICKS = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
RealGenerator, tensor, as_tensor, autocast = torch.Generator, torch.tensor, torch.as_tensor, torch.autocast


class OnCard(Tensor):
    """A tensor of the card; `inner` is the processor's tensor behind it."""

    @staticmethod
    def __new__(cls, inner: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=CARD, requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner: Tensor):
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnCard({self.inner})"

    def tolist(self):  # a subclass is refused it, a GPU's tensor is not
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {}, ())


class Generator(RealGenerator):
    """torch.Generator, on either device."""

    made: list[Generator] = []  # those of the card, kept, so that an address is one generator

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls)
        generator.at = torch.device(device)
        if generator.at == CARD:
            cls.made.append(generator)
        return generator

    @property
    def device(self) -> torch.device:
        return self.at


def run(func, args, kwargs, generators):
    """One operation, on the device that its arguments lie on or that it names."""
    name = func._schema.name.split("::")[-1]
    tensors = [*tensors_in(args), *tensors_in(kwargs.values())]
    there = [isinstance(each, OnCard) for each in tensors]
    named = kwargs.get("device")
    on_card = torch.device(named) == CARD if named is not None else any(there)
    if name in PICKS and any(there) and not there[0]:
        raise RuntimeError(f"{name}: the indices are on {CARD}, the tensor that they pick from on cpu")
    strange = any(not at and each.ndim for at, each in zip(there, tensors, strict=True))
    if any(there) and strange and name not in MOVES | PICKS:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {CARD} and cpu")
    generator = kwargs.get("generator")
    if generator is not None and on_card != any(generator._cdata == each._cdata for each in generators):
        raise RuntimeError(f"{name}: expected a generator of {CARD if on_card else CPU}")
    if name == "_fused_sdp_choice":
        return SDPBackend.MATH.value
    if named is not None and on_card:
        kwargs = {**kwargs, "device": CPU}
    # What is changed in place stays the tensor that it was.
    back = {id(each.inner): each for each, at in zip(tensors, there, strict=True) if at}
    out = func(*each_in(args, behind), **{key: each_in(value, behind) for key, value in kwargs.items()})
    if name == "copy_":
        on_card = there[0]
    if not on_card:
        return out
    return each_in(out, lambda made: back.get(id(made), OnCard(made)) if type(made) is Tensor else made)


# An operation's arguments and results are tensors, numbers and lists of them; torch's own trees, made for more, cost
# more time than the operations.


def each_in(value, function):
    """The function of a value, or of each in a list or tuple of values."""
    return type(value)([each_in(one, function) for one in value]) if type(value) in (list, tuple) else function(value)


def tensors_in(values):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from tensors_in(value)


def behind(value):
    return value.inner if isinstance(value, OnCard) else value


class Thread(TorchDispatchMode):
    """A Card's rules, in another thread."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {}, Generator.made)


class Card(Thread):
    """Inside the block there is a second device, and the course computes on it."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.monkeypatch = monkeypatch

    def __enter__(self):
        self.monkeypatch.setattr(torch, "Generator", Generator)
        for make in (tensor, as_tensor):  # to "meta" these two would go without an operation
            self.monkeypatch.setattr(torch, make.__name__, partial(_moved, make))
        self.monkeypatch.setattr(Prefetch, "_produce", self._everywhere(Prefetch._produce))
        kinds = {CARD.type: CPU.type}
        self.monkeypatch.setattr(torch, "autocast", lambda kind, *given, **options: autocast(
            kinds.get(kind, kind), *given, **options))  # fmt: skip
        # A module keeps its Parameter objects on its way to a GPU and back; so it does here.
        self.monkeypatch.setattr(future, "get_swap_module_params_on_conversion", lambda: True)
        asked = profiles.device
        for name, module in list(sys.modules.items()):
            if name.startswith("soralab") and getattr(module, "device", None) is asked:
                self.monkeypatch.setattr(module, "device", lambda: CARD)
        return super().__enter__()

    def _everywhere(self, produce):
        """A mode holds for its own thread: that of the batches takes another."""
        def in_thread(batches):
            with Thread():
                produce(batches)

        return in_thread

    def __exit__(self, *error):
        Generator.made.clear()
        self.monkeypatch.undo()
        return super().__exit__(*error)


def _moved(make, data, *args, device=None, **options):
    """torch.tensor or torch.as_tensor, made on the processor and then moved."""
    if device is None and isinstance(data, OnCard):
        device = CARD
    return make(data.cpu() if isinstance(data, OnCard) else data, *args, **options).to(device or CPU)


def exact():
    """Attention as the card computes it, for a run on the processor that is to equal one on the card."""
    return sdpa_kernel(SDPBackend.MATH)
