"""A model with a second network and a second optimizer: a discriminator beside the distillation."""

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch.nn import functional as F

from mipkd_sr.archs import build_network
from mipkd_sr.models import DistillModel
from mipkd_sr.options.forms import Key
from mipkd_sr.options.keys import NETWORK


@MODEL_REGISTRY.register()
class AdversarialModel(DistillModel):
    own_options = {
        'network_d': NETWORK,
        'train:lr_d': Key('float', "The discriminator's learning rate.", 1e-4, above=0),
        'train:gan_weight': Key('float', "Weight of the discriminator's view.", 0.005, minimum=0),
    }

    def setup_optimizers(self):
        super().setup_optimizers()
        self.net_d = self.model_to_device(build_network(self.opt['network_d']))
        self.optimizers.append(torch.optim.Adam(self.net_d.parameters(), self.opt['train']['lr_d']))

    def extra_losses(self, sr, gt):
        return {'l_gan': self.opt['train']['gan_weight'] * F.softplus(-self.net_d(sr)).mean()}

    def optimize_parameters(self, current_iter):
        super().optimize_parameters(current_iter)  # the student's step
        self.optimizers[1].zero_grad()  # of what the student's step left there, too
        (F.softplus(-self.net_d(self.gt)).mean() + F.softplus(self.net_d(self.output.detach())).mean()).backward()
        self.optimizers[1].step()

    def extra_state(self):
        return {'net_d': self.net_d.state_dict()}  # all optimizers' states are kept anyway

    def load_extra_state(self, state):
        self.net_d.load_state_dict(state['net_d'])
