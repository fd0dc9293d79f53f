"""RKD: relations between the samples of a batch.

Paper: Relational Knowledge Distillation, https://arxiv.org/abs/1904.05068 (Eq. 5 to 8).
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from mipkd_sr.distill.feature_objective import FeatureObjective
from mipkd_sr.distill.objective import StepState
from mipkd_sr.runtime.ranks import gather_batch


def relations(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Distances and angles between a batch's embeddings, B x ..., a sample's embedding being all of its elements.

    They follow from the inner products of the embeddings, so that no B x B x D tensor is made of D-dimensional feature
    maps; in double precision, for the differences of large numbers.

    Returns:
        Distances over their mean (over different samples), B x B; and the cosines of the angles at j between i and k,
        B (j) x B (i) x B (k), 0 where two of the three are the same sample.
    """
    flat = embedding.flatten(1).double()
    flat = flat - flat.mean(0, keepdim=True)  # relations do not change, rounding errors shrink
    gram = flat @ flat.T
    norms = gram.diagonal()
    different = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    squares = (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(1e-12)
    distances = torch.where(different, squares, 1.0).sqrt() * different
    mean = distances.sum() / different.sum().clamp_min(1)
    # <e_i - e_j, e_k - e_j> = G_ik - G_ij - G_jk + G_jj
    inner = gram[None, :, :] - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
    distinct = different[:, :, None] & different[:, None, :] & different[None, :, :]
    lengths = torch.where(different, squares, 1.0).sqrt()
    cosines = inner / (lengths[:, :, None] * lengths[:, None, :]) * distinct
    return distances / mean, cosines


@LOSS_REGISTRY.register()
class RKDLoss(FeatureObjective):
    """``l_rkd_d = w_d * sum_k H(d_S, d_T)`` and ``l_rkd_a = w_a * sum_k H(a_S, a_T)``, H being the smooth L1 loss.

    d are the distances between the batch's embeddings over their mean, a the cosines of the angles of all triplets; an
    embedding is a sample's feature map, of any width. It needs batches of at least 3 samples for angles, 2 for
    distances; under several processes the samples of all of them are related.

    Args:
        distance_weight: w_d (paper: 25).
        angle_weight: w_a (paper: 50).
        positions: Distillation positions; see ``mipkd_sr.distill.positions``.
    """

    is_pure = True
    same_size = False

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        positions: int | Sequence[int | float] = 1,
    ) -> None:
        super().__init__(positions)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def least_batch(self) -> int:
        """See ``Objective.least_batch``: a distance relates two samples, an angle three."""
        return 3 if self.angle_weight else 2

    @override
    def forward(self, state: StepState) -> dict[str, Tensor]:
        distance_loss = angle_loss = state.lq.new_zeros(())
        for feature_s, feature_t in self.features(state):
            distances_s, angles_s = relations(gather_batch(feature_s))
            distances_t, angles_t = relations(gather_batch(feature_t))
            distance_loss = distance_loss + F.smooth_l1_loss(distances_s, distances_t)
            angle_loss = angle_loss + F.smooth_l1_loss(angles_s, angles_t)
        dtype = state.lq.dtype
        return {
            'l_rkd_d': self.distance_weight * distance_loss.to(dtype),
            'l_rkd_a': self.angle_weight * angle_loss.to(dtype),
        }
