"""Muon: the step of a matrix has all its singular values near 1 (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

AdamW makes the step of a matrix from each of its entries alone. Muon takes the momentum as a whole and replaces it by
the nearest matrix with orthonormal rows or columns, so that directions in which the gradient is small are learnt as
fast as the others. Embeddings, biases, norms and modulations stay with AdamW. The step is scaled as in Liu et al. 2025
(2502.16982, Eq. 4), so that both parts take the same learning rates.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: fast for small singular values, within 0.7 .. 1.2 after 5 rounds
ROUNDS = 5


class MuonAdamW(torch.optim.AdamW):
    """Muon for the groups that say `muon=True` (no biases, no gains), AdamW for all others.

    A convolution's kernel [out, in, ...] is taken as the matrix [out, in * ...]. `momentum` is Muon's; `dtype` is that
    of its products: torch.bfloat16 where the machine multiplies it fast. Raises ValueError for a bias or a gain in a
    group of Muon's.
    """

    def __init__(self, groups, lr: float, momentum: float = 0.95, dtype: torch.dtype | None = None, **adamw):
        super().__init__(groups, lr=lr, **adamw)
        self.momentum, self.dtype = momentum, dtype or torch.float32
        self.cut = None  # soralab.training.sharded, where a process has some rows of each weight alone
        self.divided = lambda work, stack: work(stack)  # the loop's: several processes share the matrices of a stack
        for group in self.param_groups:
            for p in group["params"] if group.get("muon") else ():
                if p.ndim < 2:
                    raise ValueError(
                        f"parameters have a tensor of shape {tuple(p.shape)} for Muon; it takes matrices and kernels"
                    )

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both; returns what `closure` returns, or None."""
        groups = self.param_groups
        try:  # AdamW's own step goes over self.param_groups
            self.param_groups = [group for group in groups if not group.get("muon")]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get("muon"):
                self._muon_step(group)
        return loss

    def _muon_step(self, group: dict) -> None:
        """W <- W - lr (0.2 sqrt(max(rows, columns)) orthogonal(g + momentum m) + weight_decay W).

        All matrices of a group, or all of one shape, go through an operation together, so that a GPU is not kept
        waiting for launches. A matrix comes out as it would alone.
        """
        weights = [p for p in group["params"] if p.grad is not None]
        for p in weights:
            if not self.state[p]:  # AdamW's loader wants a step
                self.state[p] |= {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}
        if not weights:
            return
        gradients, momenta = [p.grad for p in weights], [self.state[p]["momentum"] for p in weights]
        torch._foreach_mul_(momenta, self.momentum)
        torch._foreach_add_(momenta, gradients)
        ahead = torch._foreach_mul(momenta, self.momentum)
        torch._foreach_add_(ahead, gradients)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        alike = defaultdict(list)
        for p, step in zip(weights, ahead, strict=True):
            alike[self.cut.shape(p) if self.cut else p.shape].append((p, step))
        for shape, pairs in alike.items():
            stack, steps = zip(*pairs, strict=True)
            matrices = torch.stack(steps)
            matrices = self.cut.matrices(matrices, stack[0]) if self.cut else matrices
            matrices = matrices.flatten(2)  # a kernel [out, in, ...] is the matrix [out, in * ...]
            found = self.divided(orthogonal, matrices.to(self.dtype)).to(stack[0].dtype).reshape(len(stack), *shape)
            found = (self.cut.rows_of(found) if self.cut else found).unbind()
            torch._foreach_add_(stack, found, alpha=-0.2 * max(matrices.shape[1:]) ** 0.5 * group["lr"])


def orthogonal(matrices: Tensor) -> Tensor:
    """U V^T of each matrix U S V^T in [n, rows, columns], nearly: its singular values come out between 0.7 and 1.2.

    Newton-Schulz: five times X <- a X + b X X^T X + c (X X^T)^2 X, from X = M / |M|.
    """
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the smaller side outside: fewer operations
    for _ in range(ROUNDS):
        x = fused_round(x) if x.is_cuda else plain_round(x)
    return x.mT if tall else x


def plain_round(x: Tensor) -> Tensor:
    """One round, as the formula has it: what the CPU does, where every recorded run was made."""
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    return a * x + (b * gram + c * gram @ gram) @ x


def fused_round(x: Tensor) -> Tensor:
    """The same round in three launches instead of seven; it rounds otherwise."""
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    return torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)


def muon_groups(model: torch.nn.Module, inside: str, outside: tuple[str, ...] = (), scale: float = 1.0) -> list[dict]:
    """The groups of a model: Muon's are the matrices whose name contains `inside` and none of `outside`.

    `scale` multiplies the learning rate of AdamW's group.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    chosen = {name for name, p in named if p.ndim == 2 and inside in name and not any(o in name for o in outside)}
    return [
        {"params": [p for name, p in named if name in chosen], "muon": True},
        {"params": [p for name, p in named if name not in chosen], "scale": scale},
    ]


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW: decay for all weights that are not gains or biases (CLIP, section 2.5)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for _, p in named if p.ndim < 2]  # gains, biases, the class token and t
    return [{"params": [p for _, p in named if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0}]  # fmt: skip
