"""A learning rate schedule: half as large every ``period`` steps."""

from torch.optim.lr_scheduler import LRScheduler

from mipkd_sr.options.registries import SCHEDULER_REGISTRY


@SCHEDULER_REGISTRY.register()
class HalvingLR(LRScheduler):
    def __init__(self, optimizer, period: int, last_epoch: int = -1):
        self.period = period
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [lr * 0.5 ** (self.last_epoch // self.period) for lr in self.base_lrs]
