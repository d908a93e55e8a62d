"""Eight bits a weight: half the room of half precision, for the matrices and kernels of a checkpoint.

A row (what makes one output) is stored as whole numbers from -127 to 127, and beside it the number that they are
multiples of: the row's largest weight / 127. So no weight moves by more than 1/254 of the largest in its row. Gains,
biases and whatever is not float stay as they are. This is the usual "absmax" rounding, as in LLM.int8() (2208.07339,
section 2.1), a row at a time.
"""

import torch
from torch import Tensor

STEP = ".step"
"""What follows a tensor's name in the name of its steps."""


def pack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """{name: [rows, ...]} with each float tensor of two axes or more in eight bits, and its steps [rows] beside it.

    Raises ValueError for a weight that is not finite, and for a tensor that bears the name of another's steps.
    """
    packed = {}
    for name, value in tensors.items():
        if name.endswith(STEP) and name.removesuffix(STEP) in tensors:
            raise ValueError(f"the tensor {name} bears the name of the steps of {name.removesuffix(STEP)}: rename it")
        if not value.is_floating_point() or value.ndim < 2:
            packed[name] = value
            continue
        rows = value.detach().float().flatten(1)
        if not rows.isfinite().all():
            raise ValueError(f"the tensor {name} holds a number that is not finite, and no eight bits stand for it")
        step = rows.abs().amax(1) / 127
        whole = (rows / step.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
        packed[name], packed[name + STEP] = whole.to(torch.int8).reshape(value.shape), step
    return packed


def unpack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` packed, in float32; whatever has no steps beside it is returned as it is."""
    steps = {name for name in tensors if name.endswith(STEP) and name.removesuffix(STEP) in tensors}
    return {
        name: (value.flatten(1) * tensors[name + STEP][:, None]).reshape(value.shape) if name + STEP in steps else value
        for name, value in tensors.items()
        if name not in steps
    }
