"""The model that trains a student: alone, or under a teacher with any objectives."""

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mipkd_sr.archs import build_network
from mipkd_sr.archs.slicing import slice_teacher
from mipkd_sr.data import lq_patch_size
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.engine.checkpoint import load_weights, save_atomically, write_json
from mipkd_sr.engine.errors import OptionError, sentence
from mipkd_sr.engine.evaluate import evaluate, mean_metrics
from mipkd_sr.engine.schema import SCHEDULERS

LOSS_NAMES = {'pixel_opt': 'l_pix'}
"""BasicSR's log names that do not follow from the option's key; ``x_opt`` is otherwise logged as ``l_x``."""


@MODEL_REGISTRY.register()
class DistillModel(SRModel):
    """BasicSR's SRModel, with a teacher and objectives. Without a teacher it trains as SRModel does.

    Every key of ``train`` that ends in ``_opt`` is a term of the loss: a loss of BasicSR's between the student's output
    and the HR image, or an ``Objective``. They are summed; there is one backward and one optimizer step an iteration.

    Attributes:
        net_g: The student.
        net_t: The frozen teacher, or None.
        net_g_ema: Moving average of the student, where ``train:ema_decay`` is set.
        objectives: The objectives by the name of their option.
        validations: Every validation's means so far: ``iter``, ``dataset``, and each metric.
        step: The module that computes a training step's losses, wrapped for distributed training.

    Args:
        opt: Options, as ``mipkd_sr.engine.options.load_options`` completes them.

    Raises:
        OptionError: If the options do not fit together: a checkpoint of another network, an objective without a teacher
            or not defined for these networks.
    """

    required_objectives: tuple[type[Objective], ...] = ()
    """Objectives that the options must name; a subclass for one method says which."""

    def __init__(self, opt: dict[str, Any]) -> None:
        BaseModel.__init__(self, opt)  # SRModel's own would wrap the bare student for distributed training
        self.net_g = self._build('network_g', 'g')
        self.net_t: nn.Module | None = None
        if opt.get('network_t'):
            self.net_t = self._build('network_t', 't')
        if self.is_train:
            self._init_student()
            self.init_training_settings()

    def _build(self, key: str, letter: str) -> nn.Module:
        try:
            net = build_network(self.opt[key])
        except (ValueError, AssertionError, TypeError) as error:
            raise OptionError(key, sentence(error)) from error
        if (scale := getattr(net, 'upscale', self.opt[key].get('upscale'))) not in (None, self.opt['scale']):
            raise OptionError(f'{key}:upscale', f'is {scale}, but scale is {self.opt["scale"]}; make them the same.')
        path = self.opt['path']
        if file := path.get(f'pretrain_network_{letter}'):
            try:
                load_weights(net, file, path[f'param_key_{letter}'], path.get(f'strict_load_{letter}', True))
            except ValueError as error:
                raise OptionError(f'path:pretrain_network_{letter}', f'{error}; give the file of this {key}.') from None
        return net.to(self.device)

    def _init_student(self) -> None:
        """Start the student from the teacher's channels, where ``path:init_network_g`` says so."""
        if self.opt['path']['init_network_g'] is None:
            return
        if self.net_t is None:
            raise OptionError('path:init_network_g', 'needs a teacher; add network_t.')
        try:
            slice_teacher(self.net_t.state_dict(), self.net_g)
        except ValueError as error:
            raise OptionError('path:init_network_g', sentence(error)) from None

    def init_training_settings(self) -> None:
        """Create moving average, objectives, step, optimizer and scheduler."""
        self.net_g.train()
        train_opt = self.opt['train']
        self.ema_decay = train_opt['ema_decay']
        if self.ema_decay > 0:
            self.net_g_ema = deepcopy(self.net_g).eval().requires_grad_(False)
        self.objectives = self.build_objectives()
        teacher = FrozenTeacher(self.net_t) if self.net_t is not None else None
        step = DistillStep(self.net_g, teacher, self.objectives, train_opt['total_iter'], self.opt['manual_seed'])
        self.step = self.model_to_device(step)
        self.losses: dict[str, Tensor] = {}
        self.logs: dict[str, Tensor | float] = {}
        self.validations: list[dict[str, Any]] = []
        self.setup_optimizers()
        self.setup_schedulers()

    def build_objectives(self) -> dict[str, Objective]:
        """Build and attach every objective that ``train`` names."""
        objectives: dict[str, Objective] = {}
        for key, loss_opt in self.opt['train'].items():
            if key.endswith('_opt') and loss_opt:
                objectives[key.removesuffix('_opt')] = self._build_objective(key, loss_opt)
        if not objectives:
            raise OptionError('train', 'names no loss; add pixel_opt.')
        for wanted in self.required_objectives:
            if not any(isinstance(objective, wanted) for objective in objectives.values()):
                raise OptionError(
                    'train', f'{type(self).__name__} needs a {wanted.__name__} under a key ending in _opt.'
                )
        return objectives

    def _build_objective(self, key: str, loss_opt: Mapping[str, Any]) -> Objective:
        name = f'train:{key}'
        try:
            loss = build_loss(loss_opt)
            if not isinstance(loss, Objective):
                return ImageObjective(LOSS_NAMES.get(key, f'l_{key.removesuffix("_opt")}'), loss).to(self.device)
            if loss.needs_teacher and self.net_t is None:
                raise ValueError(f'{type(loss).__name__} needs a teacher; add network_t and path:pretrain_network_t')
            loss.attach(self.net_g, self.net_t, lq_patch_size(self.opt), self.opt['scale'])
        except (ValueError, TypeError) as error:
            raise OptionError(name, sentence(error)) from error
        return loss.to(self.device)

    def setup_optimizers(self) -> None:
        """One optimizer, of any of torch's types, for the student and what the objectives learn beside it."""
        arguments = dict(self.opt['train']['optim_g'])
        optimizer = getattr(torch.optim, arguments.pop('type'))
        parameters = [parameter for parameter in self.step.parameters() if parameter.requires_grad]
        self.optimizer_g = optimizer(parameters, **arguments)
        self.optimizers = [self.optimizer_g]

    def setup_schedulers(self) -> None:
        """BasicSR's scheduler of the option file, for each optimizer."""
        arguments = dict(self.opt['train']['scheduler'])
        scheduler = SCHEDULERS[arguments.pop('type')]
        self.schedulers = [scheduler(optimizer, **arguments) for optimizer in self.optimizers]

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: ``lq`` (B x 3 x H x W) and ``gt`` (B x 3 x sH x sW), values in [0, 1]."""
        self.lq = data['lq'].to(self.device, non_blocking=True)
        if 'gt' in data:
            self.gt = data['gt'].to(self.device, non_blocking=True)

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one optimizer step on the batch."""
        self.optimizer_g.zero_grad()
        losses, logs, self.output = self.step(self.lq, self.gt, current_iter)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer_g.step()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        self.logs = logs

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the average: ``ema = decay * ema + (1 - decay) * student``."""
        for average, parameter in zip(self.net_g_ema.parameters(), self.net_g.parameters(), strict=True):
            average.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    def get_current_log(self) -> OrderedDict[str, float]:
        """The last step's losses and further values, averaged over ranks. Every rank must ask; it waits for the GPU."""
        values = {**self.losses, **self.logs}
        stacked = torch.stack(
            [torch.as_tensor(value, dtype=torch.float32, device=self.device) for value in values.values()]
        )
        if self.opt['dist']:
            torch.distributed.all_reduce(stacked)
            stacked /= self.opt['world_size']
        return OrderedDict(zip(values, stacked.tolist(), strict=True))

    def net_for_testing(self) -> nn.Module:
        """The moving average of the student where there is one, else the student."""
        return getattr(self, 'net_g_ema', self.net_g)

    def test(self) -> None:
        """Run the student on the batch that was fed; BasicSR's hook."""
        net = self.net_for_testing().eval()
        with torch.no_grad():
            self.output = net(self.lq)
        self.net_g.train(self.is_train)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """Measure the student on a validation set, log the means, and keep the record of the best."""
        dataset_name = dataloader.dataset.opt['name']  # type: ignore[attr-defined]
        val_opt = self.opt['val']
        metrics = val_opt.get('metrics') or {}
        folder = Path(self.opt['path']['visualization'])

        def save(name: str, image: Any) -> None:
            imwrite(image, str(folder / name / f'{name}_{current_iter}.png'))

        silent = None if val_opt['pbar'] else True  # None: silent where there is no terminal
        bar = tqdm(dataloader, desc=f'Validating {dataset_name}', unit='image', disable=silent)
        on_image = save if save_img else None
        rows = evaluate(self.net_for_testing(), bar, metrics, self.device, on_image, self.net_t)
        if metrics:
            self._note_validation(dataset_name, current_iter, mean_metrics(rows), tb_logger)

    def _note_validation(self, dataset_name: str, current_iter: int, means: dict[str, float], tb_logger: Any) -> None:
        """Keep a validation's means in the history and the record of the best, and log them."""
        self.validations.append({'iter': current_iter, 'dataset': dataset_name, **means})
        self._initialize_best_metric_results(dataset_name)
        best = self.best_metric_results[dataset_name]
        parts = []
        for metric, value in means.items():
            text = f'{metric} {value:.4f}'
            if metric in best:
                self._update_best_metric_result(dataset_name, metric, value, current_iter)
                text += f' (best {best[metric]["val"]:.4f} at {best[metric]["iter"]:,})'
            parts.append(text)
            if tb_logger:
                tb_logger.add_scalar(f'metrics/{dataset_name}/{metric}', value, current_iter)
        get_root_logger().info(f'Validation on {dataset_name}: {", ".join(parts)}')

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the student's file and, with it, the training state. Only the first rank writes.

        Args:
            epoch: Times that the data set has been gone through.
            current_iter: Step number; -1 writes the student's file alone, as ``net_g_latest.pth``.
        """
        if self.opt['rank'] != 0:
            return
        label = 'latest' if current_iter == -1 else current_iter
        networks = {'params': self.net_g.state_dict()}
        if self.ema_decay > 0:
            networks['params_ema'] = self.net_g_ema.state_dict()
        path = self.opt['path']
        save_atomically(networks, Path(path['models'], f'net_g_{label}.pth'))
        write_json(self.validations, Path(path['experiments_root'], 'validations.json'))
        if current_iter != -1:
            state = {'epoch': epoch, 'iter': current_iter, 'networks': networks, **self._training_state()}
            save_atomically(state, Path(path['training_states'], f'{current_iter}.state'))

    def _training_state(self) -> dict[str, Any]:
        plain = (bool, int, float, list, tuple)
        return {
            'objectives': nn.ModuleDict(self.objectives).state_dict(),
            'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
            # what a scheduler was built with is in the options; what changes are plain numbers and lists
            'schedulers': [
                {name: value for name, value in scheduler.state_dict().items() if isinstance(value, plain)}
                for scheduler in self.schedulers
            ],
            'best_metric_results': getattr(self, 'best_metric_results', {}),
            'validations': self.validations,
        }

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """Go on from a training state.

        Raises:
            ValueError: If it is the state of a run with other networks, objectives or optimizers.
        """
        try:
            self.net_g.load_state_dict(resume_state['networks']['params'])
            if self.ema_decay > 0:
                self.net_g_ema.load_state_dict(resume_state['networks']['params_ema'])
            nn.ModuleDict(self.objectives).load_state_dict(resume_state['objectives'])
            super().resume_training(resume_state)
        except (KeyError, RuntimeError, AssertionError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise ValueError(f'the training state is of a run with other options ({reason})') from None
        if resume_state['best_metric_results']:
            self.best_metric_results = resume_state['best_metric_results']
        self.validations = resume_state['validations']
