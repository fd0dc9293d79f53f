"""An objective with features and parameters of its own: the student's maps must tell the teacher's mean channels."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn
from torch.nn import functional as F

from mipkd_sr.distill.feature_objective import FeatureObjective


@LOSS_REGISTRY.register()
class ChannelMeanLoss(FeatureObjective):
    def __init__(self, loss_weight: float = 1.0, positions: int | list = 2):
        super().__init__(positions)
        self.loss_weight = loss_weight

    def attach(self, student, teacher, lq_size, scale):
        super().attach(student, teacher, lq_size, scale)  # finds the positions, and the widths there
        self.readers = nn.ModuleList(nn.Linear(width_s, width_t) for width_s, width_t in self.widths)

    def forward(self, state):
        losses = []
        for reader, (feature_s, feature_t) in zip(self.readers, self.features(state), strict=True):
            wanted = feature_t.mean((-2, -1))
            losses.append(F.mse_loss(reader(feature_s.mean((-2, -1))), wanted) / wanted.square().mean())
        return {'l_mean': self.loss_weight * sum(losses)}
