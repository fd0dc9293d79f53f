"""A student with a discriminator besides: BasicSR's SRGANModel and RealESRGANModel, under a teacher or without."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.data.degradations import USMSharp
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.models.teachers import PRECISIONS
from mipkd_sr.options.forms import Key
from mipkd_sr.options.keys import LOSS, NETWORK, OPTIMIZER
from mipkd_sr.options.registries import optimizers
from mipkd_sr.runtime.errors import OptionError, blamed_on


@MODEL_REGISTRY.register()
class GANDistillModel(DistillModel):
    """DistillModel with the adversarial term of BasicSR's SRGANModel: ``train:gan_opt``, ``network_d``.

    The student's step has ``l_g_gan`` among its losses; the discriminator's follows, on the same outputs. It is
    trained on the samples that have HR. Its weights and its optimizer are kept in the training state, not in the
    student's file. One step of each an iteration, as in BasicSR's option files.
    """

    own_options: ClassVar[Mapping[str, Any]] = {
        'network_d': NETWORK,
        'train:gan_opt': LOSS,
        'train:optim_d': OPTIMIZER,
        'train:net_d_iters': Key('int', "BasicSR's; the student has a step each iteration.", 1, minimum=1, maximum=1),
        'train:net_d_init_iters': Key('int', "BasicSR's; it has from the first.", 0, minimum=0, maximum=0),
        'path:pretrain_network_d': Key('str', "Checkpoint of the discriminator's weights to start from."),
        'path:param_key_d': Key('str', 'Which weights of that file.', 'params'),
        'path:strict_load_d': Key('bool', 'Whether that file must fit exactly.', True),
    }

    def setup_optimizers(self) -> None:
        """As DistillModel; then the discriminator, and its optimizer."""
        super().setup_optimizers()
        opt: Any = self.opt
        gan_opt = dict(opt['train'].get('gan_opt') or {})
        if gan_opt.get('type') != 'GANLoss':
            raise OptionError('train:gan_opt', 'must be of type: GANLoss; without one take DistillModel.')
        if opt['train']['precision'] == 'fp16':
            raise OptionError('train:precision', 'fp16 scales losses, which a discriminator is not; take bf16 or fp32.')
        self.usm = USMSharp().to(self.device) if gan_opt.pop('sharpen', False) else None
        with blamed_on('train:gan_opt'):
            self.cri_gan = build_loss(gan_opt)
        size = opt['datasets']['train']['gt_size']
        with blamed_on('network_d'), torch.no_grad():
            self.bare_net_d = build_network(opt['network_d'])
            self.bare_net_d.eval()(torch.zeros(1, 3, size, size))
        if file := opt['path']['pretrain_network_d']:
            with blamed_on('path:pretrain_network_d'):
                load_weights(self.bare_net_d, file, opt['path']['param_key_d'], opt['path']['strict_load_d'])
        self.net_d = self.model_to_device(self.bare_net_d.train())
        arguments = dict(opt['train']['optim_d'])
        with blamed_on('train:optim_d'):
            self.optimizer_d = optimizers()[arguments.pop('type')](self.net_d.parameters(), **arguments)
        self.optimizers.append(self.optimizer_d)

    def extra_losses(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """The student's adversarial loss; the images are kept for the discriminator's step."""
        self._images.append((sr.detach(), self.usm(gt) if self.usm else gt))
        self.bare_net_d.requires_grad_(False).train(len(self._images) == 1)  # spectral norms move once a step
        return {'l_g_gan': self.cri_gan(self.bare_net_d(sr), True, is_disc=False)}

    def _first_backward(self, *arguments: Any) -> list[dict[str, Tensor]]:
        self._images: list[tuple[Tensor, Tensor]] = []
        return super()._first_backward(*arguments)

    def optimize_parameters(self, current_iter: int) -> None:
        """The student's step, and the discriminator's, unless its gradient is not finite."""
        super().optimize_parameters(current_iter)
        self.bare_net_d.requires_grad_(True)
        self.optimizer_d.zero_grad()
        precision = PRECISIONS[self.opt['train']['precision']]
        for kind, is_real in (('real', True), ('fake', False)):
            whole = torch.zeros((), device=self.device)
            for part, (sr, gt) in enumerate(self._images):
                self.net_d.train(part == 0)
                with torch.autocast(self.device.type, precision, enabled=precision is not torch.float32):
                    predicted = self.net_d(gt if is_real else sr)
                    loss = self.cri_gan(predicted, is_real, is_disc=True) * (len(sr) / len(self.lq))
                loss.backward()
                whole = whole + loss.detach()
            self.logs[f'l_d_{kind}'] = whole
        grads = [parameter.grad for parameter in self.bare_net_d.parameters() if parameter.grad is not None]
        if grads and torch.isfinite(torch.nn.utils.get_total_norm(grads)):
            self.optimizer_d.step()

    def extra_state(self) -> dict[str, Any]:
        """The discriminator's weights, and what its spectral norms know."""
        return {'net_d': self.bare_net_d.state_dict()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self.bare_net_d.load_state_dict(state['net_d'])
