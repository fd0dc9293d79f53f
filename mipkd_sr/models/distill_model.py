"""The model that trains a student: alone, or under a teacher with any objectives."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mipkd_sr.archs.loading import PROBE_SIZE, load_network
from mipkd_sr.data import lq_patch_size, metrics_of
from mipkd_sr.data.degradations import build_degradation
from mipkd_sr.data.feeding import feed, parts_of
from mipkd_sr.data.stream import samples_an_iteration
from mipkd_sr.distill.log_names import check_losses
from mipkd_sr.distill.objective import Objective
from mipkd_sr.distill.step import DistillStep, StepOutput, total_of
from mipkd_sr.evaluation.evaluate import evaluate, mean_metrics
from mipkd_sr.models.hooks import ModelHooks
from mipkd_sr.models.learning_rate import schedules_of
from mipkd_sr.models.moving_average import decay_at, move_average
from mipkd_sr.models.objectives import build_objectives, second_step
from mipkd_sr.models.skipped_steps import SkippedSteps, Statistics, step_unless_bad
from mipkd_sr.models.teacher_check import check_teacher
from mipkd_sr.models.teachers import PRECISIONS, frozen, slice_student, student_options, teacher_options
from mipkd_sr.models.training_state import restore, what_trains
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.options.hosting import IN_ANOTHER_LOOP, complete_hosted, form_of, is_complete
from mipkd_sr.options.registries import optimizers
from mipkd_sr.runs.run import Run
from mipkd_sr.runs.validation_record import ValidationRecord
from mipkd_sr.runtime.compiling import choose_mode, compiling, prepare
from mipkd_sr.runtime.errors import OptionError, blamed_on, compiler_fault, cut
from mipkd_sr.runtime.long_work import told

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers with a fused implementation on GPUs."""


@MODEL_REGISTRY.register()
class DistillModel(ModelHooks, SRModel):
    """BasicSR's SRModel, with a teacher and objectives. Without a teacher it trains as SRModel does.

    Every key of ``train`` that ends in ``_opt`` is a term of the loss: a loss of BasicSR's between the student's output
    and the HR image, or an ``Objective``. They are summed; there is one backward and one optimizer step an iteration,
    unless ``train:second_step`` says otherwise.

    Attributes:
        net_g: The student.
        teachers: The frozen teachers by name; the only one is called 'teacher'.
        net_t: The only or first of them, or None.
        net_g_ema: Moving average of the student, where ``train:ema_decay`` is set.
        objectives: The objectives by the name of their option.
        second_step: Those of them that have the iteration's second optimizer step.
        gradients: The last step's gradients, if ``logger:gradients`` asks for them; see ``DistillStep.finish``.
        record: Every validation's means so far, and the best.
        step: The module that computes a training step's losses, wrapped for distributed training.
        statistics: The student's and the objectives' statistics of batches, which a skipped step leaves as they were.
        skipped_steps: The steps that were skipped because their numbers were not finite.

    Args:
        opt: Options, as ``mipkd_sr.runs.run_options.load_options`` completes them, or as BasicSR's ``parse_options``
            reads them: they are checked and completed here, in place.

    Raises:
        OptionError: If the options do not fit together: a checkpoint of another network, an objective without a teacher
            or not defined for these networks.
    """

    required_objectives: tuple[type[Objective], ...] = ()
    """Objectives that the options must name; a subclass for one method says which."""

    opt: TrainingOptions

    def __init__(self, opt: TrainingOptions) -> None:
        if not is_complete(opt, form_of(opt)):
            complete_hosted(cast(dict[str, Any], opt))
            if opt['is_train'] and opt['rank'] == 0:
                get_root_logger().warning(IN_ANOTHER_LOOP)
        BaseModel.__init__(self, opt)  # SRModel's own would wrap the bare student for distributed training
        size = lq_patch_size(opt) if self.opt['is_train'] else PROBE_SIZE
        self.net_g = load_network(student_options(opt), opt['scale'], size).to(self.device)
        self.teachers = {
            name: load_network(options, opt['scale'], size).to(self.device)
            for name, options in teacher_options(opt).items()
        }
        self.net_t: nn.Module | None = next(iter(self.teachers.values()), None)
        self.record = ValidationRecord()
        self.degradation = build_degradation(opt.get('degradation')).to(self.device)
        if self.is_train:
            slice_student(self.net_g, self.teachers, self.opt)
            self.init_training_settings()

    def init_training_settings(self) -> None:
        """Create moving average, objectives, step, optimizer and scheduler."""
        self.net_g.train()
        train_opt = self.opt['train']
        self.ema_decay = train_opt['ema_decay']
        if self.ema_decay > 0:
            self.net_g_ema = deepcopy(self.net_g).eval().requires_grad_(False)
        self.objectives = self.build_objectives()
        self.second_step = second_step(self.opt, self.objectives)
        teachers = frozen(self.teachers, self.opt)
        step = DistillStep(self.net_g, teachers, self.objectives, train_opt['total_iter'], self.opt['manual_seed'])
        self._use_speed_switches(step)
        self._finish_step = step.finish
        self.gradients: dict[str, tuple[Tensor, Tensor]] = {}
        self.step = self.model_to_device(step)
        self.statistics = Statistics(step)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=train_opt['precision'] == 'fp16')
        files = {name: str(options.file) for name, options in teacher_options(self.opt).items()}
        self.skipped_steps = SkippedSteps(train_opt['max_skipped_steps'], files)
        self.losses: dict[str, Tensor] = {}
        self.logs: dict[str, Tensor | float] = {}
        self.setup_optimizers()
        self.setup_schedulers()

    def _use_speed_switches(self, step: DistillStep) -> None:
        train_opt = self.opt['train']
        if train_opt['tf32'] is not None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = train_opt['tf32']
        self.memory_format = torch.channels_last if train_opt['channels_last'] else torch.contiguous_format
        step.to(memory_format=self.memory_format)
        for teacher in self.teachers.values():
            teacher.to(memory_format=self.memory_format)
        self.compiled = choose_mode(train_opt['compile'], self.device, train_opt['total_iter'])
        prepare(self.compiled, train_opt['compile_cache'])

    def build_objectives(self) -> dict[str, Objective]:
        """Build and attach every objective that ``train`` names."""
        objectives = build_objectives(self.opt, self.net_g, self.teachers, self.own_options)
        for wanted in self.required_objectives:
            if not any(isinstance(objective, wanted) for objective in objectives.values()):
                raise OptionError(
                    'train', f'{type(self).__name__} needs a {wanted.__name__} under a key ending in _opt.'
                )
        return objectives

    def setup_optimizers(self) -> None:
        """One optimizer, of torch's types or a registered one, for the student and what the objectives learn beside it.

        On a GPU torch's fused implementation is used if there is one and the options do not say otherwise. It is
        faster, and skips a step without making the CPU wait.
        """
        arguments = dict(self.opt['train']['optim_g'])
        optimizer = optimizers()[arguments.pop('type')]
        if self.device.type == 'cuda' and optimizer in FUSED and not arguments.keys() & {'foreach', 'fused'}:
            arguments['fused'] = True
        parameters = [parameter for parameter in self.step.parameters() if parameter.requires_grad]
        with blamed_on('train:optim_g'):
            self.optimizer_g = optimizer(parameters, **arguments)
            trial = nn.Parameter(torch.zeros(2, 2, device=self.device))
            trial.grad = torch.zeros_like(trial)
            optimizer([trial], **arguments).step()  # some arguments are found out here alone
        self.optimizers = [self.optimizer_g]

    def setup_schedulers(self) -> None:
        """The learning rate schedule of the option file, for each optimizer."""
        self.schedulers = schedules_of(self.optimizers, self.opt['train'])

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch of ``lq`` (B x 3 x H x W), ``gt`` (B x 3 x sH x sW), in [0, 1], or both, and files' names."""
        size = self.opt['datasets']['train']['gt_size'] if self.is_train else None
        self.lq, self.gt, self.has_gt, self.names = feed(data, self.degradation, self.opt['scale'], size, self.device)

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one optimizer step on the batch, or none if a loss or the gradient is not finite.

        With ``accumulation_steps`` the batch is computed in as many parts; the gradient is the mean of theirs. The
        objectives of ``second_step`` then take a second step, with the first one's gradient added to their own.
        """
        count, clip = self.opt['train']['accumulation_steps'], self.opt['train']['grad_clip']
        batches = parts_of(self.lq, self.gt, self.has_gt, count)
        self.statistics.note()
        teacher_sums = self._first_backward(batches, current_iter)
        skipped = step_unless_bad(self.optimizer_g, self.scaler, clip)
        if self.second_step:
            losses, logs = self.losses, self.logs
            with compiling(self.compiled):
                teacher_sums += self._backward(batches, current_iter, self.second_step)
            self.losses, self.logs = losses | self.losses, logs | self.logs
            skipped = step_unless_bad(self.optimizer_g, self.scaler, clip)
        self.statistics.put_back_if(skipped)
        self.gradients = self._finish_step(skipped)
        self.skipped_steps.note(current_iter, self.names, self.losses, skipped, self.lq.sum(), teacher_sums)
        if self.ema_decay > 0:
            self.model_ema(decay_at(current_iter, self.ema_decay, self.opt['train']['ema_warmup']))
        for objective in self.objectives.values():
            objective.after_step(self.net_for_testing(), current_iter)
        if self.device.type == 'cpu':  # on a GPU a look makes the CPU wait; get_current_log and save look there
            self.skipped_steps.check()

    def _first_backward(
        self, batches: Sequence[tuple[Tensor, Tensor, Any]], current_iter: int
    ) -> list[dict[str, Tensor]]:
        """The gradient of the step. If the compiler fails in the backward pass, nothing is compiled from here on."""
        only = self.objectives.keys() - self.second_step
        while True:
            self.optimizer_g.zero_grad()
            if self.compiled == 'graphs':
                torch.compiler.cudagraph_mark_step_begin()
            try:
                with compiling(self.compiled):
                    return self._backward(batches, current_iter, only)
            except Exception as error:
                if self.compiled == 'false' or self.opt['dist'] or not (fault := compiler_fault(error)):
                    raise
                get_root_logger().warning(f'The networks are run as they are: torch.compile failed ({cut(fault)}).')
                self.compiled = 'false'
                self.statistics.put_back_if(torch.ones((), dtype=torch.bool, device=self.device))

    def _backward(
        self, batches: Sequence[tuple[Tensor, Tensor, Any]], current_iter: int, only: Set[str]
    ) -> list[dict[str, Tensor]]:
        """Add the gradient of the objectives ``only``; returns the teachers' sums of each part."""
        parts = len(batches)  # fewer than asked for where another loop's batch has not as many samples
        of_parts: list[dict[str, Tensor]] = []
        of_teachers: list[dict[str, Tensor]] = []
        whole, first = (self.lq, self.gt, self.has_gt), 0
        for part, (self.lq, self.gt, self.has_gt) in enumerate(batches):  # extra_losses sees its part's
            place = (first, len(whole[0]))
            first += len(self.lq)
            with self._gradients_averaged_if(part == parts - 1):
                losses, self.logs, self.output, teacher_sums = self._compute_losses(current_iter, place, only)
                total, values = total_of(list(losses.values()), parts)
                self.scaler.scale(total).backward()
            of_parts.append(dict(zip(losses, values.clone().unbind(), strict=True)))  # a CUDA graph's are its own
            of_teachers.append(teacher_sums)
        self.lq, self.gt, self.has_gt = whole
        self.losses = of_parts[0]
        if parts > 1:
            names = dict.fromkeys(name for losses in of_parts for name in losses)  # one part may have more than another
            self.losses = {
                name: torch.stack([own[name] for own in of_parts if name in own]).sum() / parts for name in names
            }
        return of_teachers

    def _compute_losses(self, current_iter: int, place: tuple[int, int], only: Set[str]) -> StepOutput:
        precision = PRECISIONS[self.opt['train']['precision']]
        with torch.autocast(self.device.type, precision, enabled=precision is not torch.float32):
            lq, gt = (images.contiguous(memory_format=self.memory_format) for images in (self.lq, self.gt))
            every = self.opt['logger']['gradients']
            measure = every > 0 and current_iter % every == 0 and not only <= self.second_step
            scale = self.scaler.scale(torch.ones((), device=self.device)) if self.scaler.is_enabled() else 1.0
            output = self.step(lq, gt, current_iter, place, only, measure, scale, self.has_gt)
            extra = {} if only <= self.second_step else self._extra_losses(output.sr, gt)
        check_losses('model', self, extra)
        own = {f'{name}_model' if name in output.losses else name: value for name, value in extra.items()}
        return output._replace(losses=output.losses | own)

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the student's average; BasicSR's hook."""
        move_average(self.net_g_ema, self.net_g, decay)

    def get_current_log(self) -> OrderedDict[str, float]:
        """The last step's losses and further values, averaged over ranks. Every rank must ask; it waits for the GPU.

        Raises:
            RunError: If too many steps in a row were not finite.
        """
        self.skipped_steps.check()
        values = {**self.losses, **self.logs}
        stacked = torch.stack(
            [torch.as_tensor(value, dtype=torch.float32, device=self.device) for value in values.values()]
        )
        if self.opt['dist']:
            torch.distributed.all_reduce(stacked)
            stacked /= self.opt['world_size']
        return OrderedDict(zip(values, stacked.tolist(), strict=True))

    def validation(self, dataloader: DataLoader, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """Measure the student on a validation set, log the means, and keep the record of the best.

        Each rank measures the images of its own ``dataloader``; every rank must call it, and knows all results after.
        ``current_iter`` is the number of the step, or, in BasicSR's program for testing, the run's name.
        """
        step = min(current_iter, self.opt['train']['total_iter']) if self.is_train else 0  # BasicSR counts one too far
        dataset_name = dataloader.dataset.opt['name']  # type: ignore[attr-defined]
        val_opt = self.opt['val']
        metrics = val_opt.get('metrics') or {}
        folder = Path(self.opt['path']['visualization'])

        shown: list[str] = []
        most_shown = self.opt['val']['images_shown'] if self.is_train else 0

        def on_image(network: str, name: str, image: Any) -> None:
            if network == 'student' and save_img:
                images = folder / name if self.is_train else folder / dataset_name
                ending = current_iter if self.is_train else val_opt['suffix'] or self.opt['name']
                imwrite(image, str(images / f'{name}_{ending}.png'))
            if network == 'student' and tb_logger and len(shown) < most_shown:
                shown.append(name)
                tb_logger.add_image(f'{dataset_name}/{name}', image[..., ::-1].transpose(2, 0, 1), step)

        silent = not val_opt['pbar'] or self.opt['rank'] != 0
        bar = told(dataloader, len(dataloader), f'Validating {dataset_name}', silent=silent)
        networks = self.as_validated()
        if not metrics:
            networks = {'student': networks['student']}
        teachers = [name for name in networks if name != 'student']
        rows = evaluate(networks, bar, metrics, self.device, on_image, teachers)
        if not metrics:
            return
        means = mean_metrics(rows['student'])
        better = {name: opt.get('better', 'higher') for name, opt in metrics.items()}
        get_root_logger().info(self.record.note(dataset_name, step, means, better))
        if tb_logger:
            for metric, value in means.items():
                tb_logger.add_scalar(f'metrics/{dataset_name}/{metric}', value, step)
        if self.is_train and self.record.is_best(dataset_name, step) and self.opt['rank'] == 0:
            Run.of(self.opt).save_student(self._networks(), 'best')

    def check_teacher(self, dataloader: DataLoader) -> None:
        """Log how good the teacher is on a validation set; see ``mipkd_sr.models.teacher_check``. Every rank must."""
        metrics = metrics_of(self.opt)
        options, networks = teacher_options(self.opt), self.as_validated()
        for name in self.teachers:
            file = str(options[name].file)
            check_teacher(
                networks[name], networks['student'], dataloader, metrics, self.opt['scale'], self.device, file, name
            )

    def save(self, epoch: int, current_iter: int, samples: int | None = None) -> None:
        """Write the student's file and, after it, the training state, which holds the student too. Rank 0 writes.

        For the step -1 the student's file alone is written, as ``net_g_latest.pth``. ``epoch`` is how often the data
        set has been gone through, ``samples`` are those that all ranks have read; as many as ``current_iter`` steps
        read if None.

        Raises:
            OSError: If a file cannot be written; those that were there before are still there.
            RunError: If too many steps in a row were not finite.
        """
        self.skipped_steps.check()
        if self.opt['rank'] != 0:
            return
        if current_iter == -1:
            Run.of(self.opt).save_student(self._networks(), 'latest')
            return
        Run.of(self.opt).save_student(self._networks(), current_iter)
        read = current_iter * samples_an_iteration(self.opt) if samples is None else samples
        self.save_record(epoch, current_iter, read)

    def save_record(self, epoch: int, current_iter: int, samples: int, with_state: bool = True) -> None:
        """Write the history of validations and, ``with_state``, the training state, which holds it. Rank 0 writes."""
        if self.opt['rank'] != 0:
            return
        Run.of(self.opt).save_validations(self.record.entries)
        if with_state:
            state = {'epoch': epoch, 'iter': current_iter, 'samples': samples, 'networks': self._networks()}
            Run.of(self.opt).save_state(state | what_trains(self), self.opt['logger']['keep_last'])

    def _networks(self) -> dict[str, dict[str, Tensor]]:
        """The student's file."""
        networks = {'params': self.net_g.state_dict()}
        if self.ema_decay > 0:
            networks['params_ema'] = self.net_g_ema.state_dict()
        return networks

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """Go on from a training state."""
        restore(self, resume_state)
