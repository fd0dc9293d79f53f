"""The library: a student in other people's programs, and distillation in other people's training loops."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mipkd_sr.archs import check_output, check_staged
from mipkd_sr.archs.loading import NetworkOptions, load_trained
from mipkd_sr.deploy import upscaling
from mipkd_sr.deploy.shapes import channels_of
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.evaluation.inference import device_of, prepare_network
from mipkd_sr.options.checking import check_network
from mipkd_sr.options.reading import Options, force_options, read_options
from mipkd_sr.options.recipes import SHIPPED_NETWORKS, STUDENT_RECIPE, STUDENT_SCALES, STUDENT_SIZES, require_recipe
from mipkd_sr.runs.run import Run, find_run
from mipkd_sr.runtime.errors import OptionError

Image = TypeVar('Image', np.ndarray, Tensor)


def load_student(
    student: int | str | os.PathLike[str], options: str | os.PathLike[str] | None = None, size: str = 'fast'
) -> nn.Module:
    """Load a trained student.

    Args:
        student: 2, 3 or 4: the student for this scale that comes with the package. A run, by its folder or its name:
            the student of its last step. Or a checkpoint.
        options: The option file that has a checkpoint's network as ``network_g``; a checkpoint in a run's folder needs
            none.
        size: Which of the package's students for a scale: 'fast', or 'good', which takes more than twice as long.

    Returns:
        The network, on the CPU, in evaluation mode: B x 3 x H x W in [0, 1] -> B x 3 x sH x sW. The weights are the
        moving average where the file has it; convolutions that train as several are the one that they run as.

    Raises:
        OptionError: If there is no such student, or the checkpoint is not of that network.
    """
    if isinstance(student, int):
        if student not in STUDENT_SCALES:
            raise OptionError('scale', f'is {student}; there are students for {", ".join(map(str, STUDENT_SCALES))}.')
        if size not in STUDENT_SIZES:
            raise OptionError('size', f'is {size!r}; the sizes of students are {", ".join(STUDENT_SIZES)}.')
        recipe = read_options(require_recipe(STUDENT_RECIPE))
        width = STUDENT_SIZES[size]
        force_options(recipe, [f'scale={student}', f'network_g:num_feat={width}', 'network_g:fused=true'])
        return _load(recipe, SHIPPED_NETWORKS / f'student_{size}_x{student}.pth')
    file = Path(student)
    if options is None and not file.is_file():
        return load_run(file)
    return _load(Run(file.absolute().parents[1]).kept_options() if options is None else read_options(options), file)


def load_run(name: str | os.PathLike[str]) -> nn.Module:
    """The student of a run's last step; see ``load_student``."""
    run = find_run(Path(name))
    return _load(run.kept_options(), run.last_student())


def _load(options: Options, weights: Path) -> nn.Module:
    with options.explaining():
        network = options.data.get('network_g')
        check_network(network, 'network_g')
        entry = NetworkOptions(network, str(weights), 'params_ema', 'network_g', '--weights')  # type: ignore[arg-type]
        return load_trained(entry, options.data.get('scale'))


def upscale(student: nn.Module, image: Image, tile: int = 0, overlap: int = 64) -> Image:
    """Upscale an image.

    Args:
        student: A network in evaluation mode, on any device.
        image: A numpy image, H x W (grey), H x W x 2 (grey and alpha), x 3 (RGB) or x 4 (RGB and alpha), of 8 or 16
            bits. Or a tensor, C x H x W or B x C x H x W, RGB or grey, values in [0, 1].
        tile: Side, in pixels, of the squares in which a large image is run; 0: whole.
        overlap: Surroundings, in pixels, that a square is given.

    Returns:
        The image, ``s`` times as high and wide, of the same type, and on the same device; a tensor in [0, 1].

    Raises:
        RunError: If the output is not finite.
        TypeError: If it is no such image.
    """
    device = device_of(student)
    net, channels = prepare_network(student, tile=tile, overlap=overlap), channels_of(student)
    if isinstance(image, np.ndarray):
        if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
            raise TypeError(f'a numpy image is H x W x C of 8 or 16 bits, not {image.dtype} of shape {image.shape}')
        return upscaling.upscale(net, image, device, channels)
    if not image.is_floating_point() or image.ndim not in (3, 4):
        raise TypeError(f'a tensor is C x H x W or B x C x H x W in [0, 1], not {image.dtype} of {tuple(image.shape)}')
    found = []
    for one in image.detach().reshape(-1, *image.shape[-3:]).float().cpu().split(1):
        sr = upscaling.run_planes(net, upscaling.mirrored(one), device, channels)
        found.append(upscaling.within(sr, sr.shape[-1] // (one.shape[-1] + 2 * upscaling.MARGIN)))
    sr = torch.cat(found)
    return sr.clamp(0, 1).to(image).reshape(*image.shape[:-3], *sr.shape[1:])


class Distiller(nn.Module):
    """The loss of a batch, for a training loop of your own: plain PyTorch, Lightning, accelerate.

    ``parameters()`` are the student's and what the objectives learn beside it: give them to one optimizer. Call it once
    a step, wrapped in DistributedDataParallel where there are several processes. ``state_dict()`` has all that a
    training needs to go on, but for the optimizer and the teacher. ``to()`` takes the teacher along.

    Args:
        student: The network to train: B x 3 x H x W in [0, 1] -> B x 3 x sH x sW.
        teacher: The teacher, of the same scale; it is frozen here. None for losses that need none.
        objectives: The terms, which are summed: objectives of ``mipkd_sr.losses``, and losses ``criterion(sr, gt)``.
        steps: Steps of the training, which schedules refer to.
        lq_size: Side of the LR patches, in pixels.
        seed: Seed of the objectives' random choices; alike on every process.

    Attributes:
        losses: The weighted losses of the last step by name, without gradient; their sum is what it returned.
        logs: Further values of it.
        iteration: Number of the last step, from 1.

    Raises:
        ValueError: If an objective is not defined for these networks, or needs a teacher, or a network has no
            head, body and tail where an objective takes its features.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        objectives: Iterable[Objective | Callable[[Tensor, Tensor], Tensor]],
        steps: int,
        lq_size: int = 48,
        seed: int = 0,
    ) -> None:
        super().__init__()
        scale = check_output(student, None, lq_size)
        named = _named(objectives)
        for name, objective in named.items():
            if objective.needs_teacher and teacher is None:
                raise ValueError(f'{name} needs a teacher')
            objective.attach(student, teacher, lq_size, scale)
        if teacher is not None:
            check_output(teacher, scale, lq_size)
        if any(objective.student_indices() for objective in named.values()):
            check_staged(student, scale, lq_size)
        if teacher is not None and any(objective.teacher_indices() for objective in named.values()):
            check_staged(teacher, scale, lq_size)
        frozen = None if teacher is None else FrozenTeacher(teacher)
        self.step = DistillStep(student, frozen, named, steps, seed)
        self.losses: dict[str, Tensor] = {}
        self.logs: dict[str, Tensor | float] = {}
        self.iteration = 0
        self.register_state_dict_pre_hook(lambda *_: self._end_step())

    def forward(self, lq: Tensor, gt: Tensor) -> Tensor:
        """The loss of a batch, a scalar to call ``backward()`` on.

        Args:
            lq: LR images, B x 3 x H x W, values in [0, 1].
            gt: HR images, B x 3 x sH x sW, values in [0, 1].
        """
        self._end_step()
        self.iteration += 1
        output = self.step(lq, gt, self.iteration)
        self.losses = {name: loss.detach() for name, loss in output.losses.items()}
        self.logs = output.logs
        return torch.stack(list(output.losses.values())).sum()

    def _end_step(self) -> None:
        """What follows the optimizer's step: done when the next one begins, or the state is asked for."""
        if self.losses:
            self.step.finish()
            for objective in self.step.objectives.values():
                objective.after_step(self.step.student, self.iteration)  # type: ignore[operator]
            self.losses, self.logs = {}, {}

    def get_extra_state(self) -> dict[str, int]:
        """The number of the last step."""
        return {'iteration': self.iteration}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from a step."""
        self.iteration = state['iteration']

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'Distiller':
        for teacher in self.step.teachers.values():
            teacher.net._apply(fn)
        return super()._apply(fn, recurse)


def _named(terms: Iterable[Any]) -> dict[str, Objective]:
    """The terms by name, those that are a criterion as objectives."""
    named: dict[str, Objective] = {}
    for term in terms:
        kind = type(term).__name__.removesuffix('Loss').lower() if isinstance(term, nn.Module) else term.__name__
        name = kind if kind not in named else f'{kind}{len(named)}'
        named[name] = term if isinstance(term, Objective) else ImageObjective(f'l_{name}', term)
    return named
