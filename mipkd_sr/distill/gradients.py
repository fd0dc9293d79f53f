"""The gradients of single terms of the loss on the student. They are logged, and balance a term.

They are taken on all of the student's parameters: every term reaches these, and the optimizer sees them. Adaptive
weights of adversarial losses take the gradient on the last layer (https://arxiv.org/abs/2012.09841, Eq. 7), but a
feature term does not reach that layer. Nor do terms of other positions, or of other inputs, share a feature map. So a
measurement costs a backward pass a term, and is made every ``EVERY`` steps only.
"""

from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor, nn

from mipkd_sr.distill.objective import Objective
from mipkd_sr.runtime.ranks import rank_and_size

EVERY = 50
"""Steps between measurements for balanced terms. Before that, steps 1, 2, 4, ... are measured, as weights begin at
0."""
KEPT = 0.8
"""Decay of the moving averages at each measurement."""
OTHERS = ' others'
"""Name of the gradient of all terms without ``balance``; no loss can have it."""


def is_due(iteration: int) -> bool:
    """Whether a step, from 1, is one that balanced terms are measured at."""
    return iteration % EVERY == 0 or (iteration < EVERY and iteration & (iteration - 1) == 0)


class StudentGradients:
    """Gradients of losses on a student's parameters, summed over the parts of a step and averaged over ranks."""

    def __init__(self, student: nn.Module) -> None:
        self._student = student
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], start: int, scale: Tensor | float) -> None:
        """Add the gradients of a part's losses, scalars by name; their graph is kept.

        ``start`` is the number of the part's first sample in the step; 0 begins anew. ``scale`` multiplies the losses,
        without which half precision loses small gradients.
        """
        parameters = [parameter for parameter in self._student.parameters() if parameter.requires_grad]
        for name, loss in losses.items():
            found: tuple[Tensor | None, ...] = (None,) * len(parameters)
            factor = scale / loss.detach().abs().clamp(min=1)  # a loss of thousands, scaled too, would overflow
            if loss.requires_grad:
                with torch.autocast(loss.device.type, enabled=False):
                    found = torch.autograd.grad(loss * factor, parameters, retain_graph=True, allow_unused=True)
            pairs = zip(parameters, found, strict=True)
            flat = torch.cat([(torch.zeros_like(p) if g is None else g).float().flatten() for p, g in pairs]) / factor
            self._sums[name] = self._sums[name] + flat if start and name in self._sums else flat

    def take(self) -> dict[str, Tensor]:
        """What was added since the last call, the mean over the ranks: a vector a name. Every rank must call it."""
        sums, self._sums = self._sums, {}
        if rank_and_size()[1] > 1:
            for vector in sums.values():
                torch.distributed.all_reduce(vector)
                vector /= rank_and_size()[1]
        return sums


def balanced_weight(objective: Objective) -> Tensor:
    """The factor on a balanced objective's losses, a scalar: 0 until it has been measured."""
    others, own = objective.balance_norms.unbind()
    return torch.where(own > 0, objective.balance * others / own, torch.zeros_like(own))


def note_norms(objective: Objective, others: Tensor, own: Tensor, skipped: Tensor | None) -> None:
    """Move the averages of a balanced objective towards a measurement's norms, unless it is of no use.

    Both averages begin at 0 and are too small at first by the same factor, which cancels in their ratio.
    """
    norms = torch.stack([others, own])
    useless = ~torch.isfinite(norms).all() if skipped is None else ~torch.isfinite(norms).all() | skipped
    before = objective.balance_norms
    before.copy_(torch.where(useless, before, KEPT * before + (1 - KEPT) * norms))


def relative(vectors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """For each loss its gradient's norm over that of ``l_pix`` (else the first loss), and its cosine with that."""
    reference = vectors.get('l_pix', next(iter(vectors.values())))
    return {
        name: (vector.norm() / reference.norm(), torch.cosine_similarity(vector, reference, dim=0))
        for name, vector in vectors.items()
    }
