"""One training step, as the one module that DistributedDataParallel and torch.compile wrap."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import torch
from torch import Tensor, nn

from mipkd_sr.distill.gate import through_gate
from mipkd_sr.distill.gradients import OTHERS, StudentGradients, balanced_weight, is_due, note_norms, relative
from mipkd_sr.distill.log_names import LogNames, check_losses
from mipkd_sr.distill.objective import NetworkPass, Objective, StepState, View
from mipkd_sr.distill.teacher import FrozenTeacher, mixed_passes, run_network
from mipkd_sr.runtime.compiling import region
from mipkd_sr.runtime.errors import RunError
from mipkd_sr.runtime.ranks import BatchDraws, rank_and_size
from mipkd_sr.runtime.seeding import mix_seed


class StepOutput(NamedTuple):
    """What a step gives back.

    ``losses`` are the weighted losses by name, scalars; their sum is to be minimised. ``logs`` are further values to
    log. The names are the objectives' own where they differ, see ``mipkd_sr.distill.log_names``. ``sr`` is the
    student's output for the LR images. ``teacher_sums`` is the sum of each teacher's outputs, by its name: a
    scalar that is finite where they are.
    """

    losses: dict[str, Tensor]
    logs: dict[str, Tensor | float]
    sr: Tensor
    teacher_sums: dict[str, Tensor]


class DistillStep(nn.Module):
    """Everything a step computes from student, teacher and objectives, up to the losses.

    All of the student's arithmetic happens in this module's ``forward``, so that DistributedDataParallel averages its
    gradients. The teacher runs once on each distinct input, and so does the student; objectives share the results.

    Args:
        student: The network to train.
        teacher: The frozen teacher, several by name, or None.
        objectives: The objectives by name; already attached to the networks.
        total_iter: Steps of the training.
        seed: Seed of the random choices between branches.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: FrozenTeacher | Mapping[str, FrozenTeacher] | None,
        objectives: Mapping[str, Objective],
        total_iter: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = {'teacher': teacher} if isinstance(teacher, FrozenTeacher) else dict(teacher or {})
        self.objectives = nn.ModuleDict(objectives)
        self.total_iter = total_iter
        self.seed = seed
        self.gradients = StudentGradients(student)
        self._log_names = LogNames()
        self._parameter_names = {name for name, _ in self.objectives.named_parameters()}
        self._student_indices = sorted({i for objective in objectives.values() for i in objective.student_indices()})
        self._teacher_indices = {
            name: sorted({i for o in objectives.values() if name in self._heard(o) for i in o.teacher_indices()})
            for name in self.teachers
        }

    def forward(
        self,
        lq: Tensor,
        gt: Tensor,
        iteration: int,
        place: tuple[int, int | None] = (0, None),
        only: Collection[str] | None = None,
        measure: bool = False,
        scale: Tensor | float = 1.0,
        has_gt: Sequence[bool] | None = None,
    ) -> StepOutput:
        """Compute the losses of one batch.

        Args:
            lq: LR images, B x 3 x H x W, values in [0, 1].
            gt: HR images, B x 3 x sH x sW, values in [0, 1]; of samples without one, anything.
            iteration: Number of the step, from 1.
            place: Where a step's samples are computed in parts: the number of this part's first sample, from 0, and the
                number of samples in the step. Each sample then gets the random numbers that it would get in one part.
            only: The objectives to compute; all if None.
            measure: Whether to measure each loss's gradient, for ``finish``.
            scale: What the losses will be multiplied by before their backward pass (a GradScaler's factor).
            has_gt: Which samples have an HR image; None if all have. A loss is a mean over the samples, to which those
                that it is not defined for add 0.

        Raises:
            RunError: If an objective returns something else than losses, or creates a parameter.
        """
        progress = iteration / self.total_iter
        asked = self.objectives.keys() if only is None else only
        active = {name: o for name, o in self._objectives() if name in asked and o.schedule.factor(progress) != 0}
        rows = _rows(active, has_gt)
        active = {name: active[name] for name in rows}
        of_all = {name: BatchDraws(self._seed(name, iteration, 1), lq.device, *place) for name in active}
        draws = {name: own.of_samples(rows[name]) for name, own in of_all.items()}
        first = {
            name: {'lq': teacher(lq, self._teacher_indices[name])}
            for name, teacher in self.teachers.items()
            if any(objective.needs_teacher_first and name in self._heard(objective) for objective in active.values())
        }
        batch = {name: (lq, gt) if of is None else (lq[of], gt[of]) for name, of in rows.items()}
        views = self._views(lq, batch, rows, progress, active, first, draws)
        student = self._run_student(views)
        teachers = self._run_teachers(views, active, first)
        logs_by_key: dict[str, dict[str, Tensor | float]] = {name: {} for name in active}
        states = {}
        for name, objective in active.items():
            rng = torch.Generator().manual_seed(self._seed(name, iteration))
            both = student, mixed_passes(self._heard(objective), teachers)
            own, wanted = (_own(name, found, rows[name]) for found in both)
            states[name] = StepState(*batch[name], own, wanted, progress, rng, draws[name], logs_by_key[name])
        losses_by_key = self._ask(active, states, rows)
        if is_due(iteration):
            self._measure_balanced(losses_by_key, progress, place[0], scale)
        for name, objective in active.items():
            _weigh(losses_by_key[name], logs_by_key[name], name, objective, progress)
        if measure:
            self.gradients.add(self._log_names.join(losses_by_key, {})[0], place[0], scale)
        outputs = {name: [one.sr for one in passes.values()] for name, passes in teachers.items() if passes}
        return self._output(losses_by_key, logs_by_key, student['lq'].sr, outputs)

    def _views(
        self,
        lq: Tensor,
        batch: Mapping[str, tuple[Tensor, Tensor]],
        rows: Mapping[str, Tensor | None],
        progress: float,
        active: Mapping[str, Objective],
        first: Mapping[str, Mapping[str, NetworkPass]],
        draws: Mapping[str, BatchDraws],
    ) -> dict[str, View]:
        views = {'lq': View(lq, lq)}
        for name, objective in active.items():
            objective.progress = progress
            alone = _own(name, mixed_passes(self._heard(objective), first), rows[name]).get('lq')
            own = objective.views(*batch[name], alone.sr if alone else None, draws[name])
            views.update({_of(name, view_name): view for view_name, view in own.items()})
        return views

    def _measure_balanced(
        self, losses_by_key: Mapping[str, Mapping[str, Tensor]], progress: float, start: int, scale: Tensor | float
    ) -> None:
        """Measure each balanced objective before its schedule, and all others together."""
        sums = {key: torch.stack(list(losses.values())).sum() for key, losses in losses_by_key.items() if losses}
        balanced = {f'{OTHERS}{key}': value for key, value in sums.items() if self._objective(key).balance}
        others = [
            value * self._objective(key).schedule.factor(progress)
            for key, value in sums.items()
            if not self._objective(key).balance
        ]
        if balanced and others:
            self.gradients.add({OTHERS: torch.stack(others).sum()} | balanced, start, scale)

    def finish(self, skipped: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Use what was measured, after all parts of a step and its optimizer step, which was ``skipped`` or not, a
        scalar.

        Every rank must call it. Without this call a term with ``balance`` keeps the weight 0; after a skipped step no
        weight changes.

        Returns:
            If the step was asked to measure: for each loss, by its name in the log, the norm of its gradient on the
            student as a multiple of the pixel term's, and the cosine of the two gradients.
        """
        vectors = self.gradients.take()
        others = vectors.pop(OTHERS, None)
        for key, objective in self._objectives():
            own = vectors.pop(f'{OTHERS}{key}', None)
            if own is not None and others is not None:
                note_norms(objective, others.norm(), own.norm(), skipped)
        return relative(vectors) if vectors else {}

    def _objective(self, key: str) -> Objective:
        return self.objectives[key]  # type: ignore[return-value]

    def _ask(
        self, active: Mapping[str, Objective], states: Mapping[str, StepState], rows: Mapping[str, Tensor | None]
    ) -> dict[str, dict[str, Tensor]]:
        """The losses of each objective; the pure ones of all samples are computed together.

        Those of features communicate with other processes, if there are any, in ``size_of``.
        """
        single = rank_and_size()[1] == 1
        whole = [name for name, o in active.items() if o.is_pure and rows[name] is None]
        pure = [name for name in whole if single or not active[name].student_indices()]
        maps = [(_maps(states[name].student), _maps(states[name].teacher)) for name in pure]
        first = states[pure[0]] if pure else None
        found = _ask_pure(self, pure, first.lq, first.gt, maps) if first else []
        together = dict(zip(pure, found, strict=True))
        losses = {}
        for name, objective in active.items():
            losses[name] = together[name] if name in together else objective(through_gate(states[name], objective.gate))
            check_losses(name, objective, losses[name])
            if (of := rows[name]) is not None:
                share = len(states[name].lq) / len(of)
                losses[name] = {key: share * loss for key, loss in losses[name].items()}
        return losses

    def _output(
        self,
        losses_by_key: dict[str, dict[str, Tensor]],
        logs_by_key: dict[str, dict[str, Tensor | float]],
        sr: Tensor,
        outputs: Mapping[str, list[Tensor]],
    ) -> StepOutput:
        losses, logs = self._log_names.join(losses_by_key, logs_by_key)
        name = next(iter(losses), 'l_none')
        losses[name], sums = _finish(losses.get(name), sr, self._trained_parameters(), list(outputs.values()))
        return StepOutput(losses, logs, sr, dict(zip(outputs, sums, strict=True)))

    def _seed(self, name: str, *numbers: int) -> int:
        """The seed of an objective's random numbers; alike on every rank."""
        return mix_seed(self.seed, *numbers, crc32(name.encode()))

    def _objectives(self) -> Iterable[tuple[str, Objective]]:
        return self.objectives.items()  # type: ignore[return-value]  # what a ModuleDict holds is a Module to mypy

    def _trained_parameters(self) -> list[nn.Parameter]:
        """What the objectives learn; all of it existed when the optimizer was built."""
        parameters = dict(self.objectives.named_parameters())
        for name in parameters.keys() - self._parameter_names:
            key, _, own_name = name.partition('.')
            raise RunError(
                f'train:{key}_opt: {type(self.objectives[key]).__name__} created its parameter {own_name} in a '
                'training step, where no optimizer knows of it; create it in __init__ or attach.'
            )
        return [parameter for parameter in parameters.values() if parameter.requires_grad]

    def _run_student(self, views: Mapping[str, View]) -> dict[str, NetworkPass]:
        inputs = {name: view.student for name, view in views.items()}
        passes = self._run(partial(run_network, self.student), inputs, self._student_indices)
        for name, view in views.items():
            if view.restore:
                passes[name] = replace(passes[name], sr=view.restore(passes[name].sr))
        return passes

    def _heard(self, objective: Objective) -> Mapping[str, float]:
        """The weights of the teachers that an objective learns from."""
        return objective.listens_to or {name: 1 / len(self.teachers) for name in self.teachers}

    def _run_teachers(
        self, views: Mapping[str, View], active: Mapping[str, Objective], first: Mapping[str, Mapping[str, NetworkPass]]
    ) -> dict[str, dict[str, NetworkPass]]:
        """The passes of each teacher, by view. An objective's views go to its own teachers only."""
        asked: dict[str, set[str]] = {'lq': set()}
        for name, objective in active.items():
            heard = set(self._heard(objective))
            asked['lq'] |= heard if objective.needs_teacher else set()
            asked |= {view: heard for view in views if view.startswith(_of(name, ''))}
        found = {}
        for name, teacher in self.teachers.items():
            done = dict(first.get(name, {}))
            inputs = {
                view_name: view.teacher
                for view_name, view in views.items()
                if view.teacher is not None and name in asked[view_name] and view_name not in done
            }
            found[name] = self._run(teacher, inputs, self._teacher_indices[name]) | done
        return found

    def _run(
        self, run: Callable[..., NetworkPass], inputs: Mapping[str, Tensor], indices: list[int]
    ) -> dict[str, NetworkPass]:
        """Run a network on every input, once on all inputs of the same size; features are kept for ``lq`` alone."""
        groups: dict[torch.Size, list[str]] = {}
        for name, images in inputs.items():
            groups.setdefault(images.shape[1:], []).append(name)
        passes = {}
        for names in groups.values():
            wanted = indices if 'lq' in names else []
            if len(names) == 1:
                passes[names[0]] = run(inputs[names[0]], wanted)
                continue
            together = run(torch.cat([inputs[name] for name in names]), wanted)
            lengths = [len(inputs[name]) for name in names]
            starts = [sum(lengths[:i]) for i in range(len(lengths))]
            for name, start, length in zip(names, starts, lengths, strict=True):
                own = slice(start, start + length)
                passes[name] = together.of_samples(own) if name == 'lq' else NetworkPass(together.net, together.sr[own])
        return passes


def _rows(active: Mapping[str, Objective], has_gt: Sequence[bool] | None) -> dict[str, Tensor | None]:
    """For each objective that has a sample, which of the samples are its own, B truth values; None for all."""
    mask, rows = None if has_gt is None else torch.tensor(has_gt), dict[str, Tensor | None]()
    for name, objective in active.items():
        some = objective.needs_gt or objective.gate > 0
        objective.has_gt = None if some else mask
        if not some or mask is None or mask.any():
            rows[name] = mask if some else None
    return rows


def _of(key: str, view: str) -> str:
    """The name, within a step, of a view of the objective ``key``."""
    return f'{key}:{view}'


def _own(key: str, passes: Mapping[str, NetworkPass], rows: Tensor | None) -> dict[str, NetworkPass]:
    """The passes of ``lq`` (of the samples ``rows``) and of the views of the objective ``key``, by its own names."""
    own = {name.removeprefix(_of(key, '')): found for name, found in passes.items() if name.startswith(_of(key, ''))}
    if 'lq' not in passes:
        return own
    return own | {'lq': passes['lq'] if rows is None else passes['lq'].of_samples(rows)}


def _weigh(
    losses: dict[str, Tensor], logs: dict[str, Tensor | float], key: str, objective: Objective, progress: float
) -> None:
    """Multiply an objective's losses by its schedule's factor and its balance, in place, and log both."""
    if objective.schedule.is_constant and not objective.balance:
        return
    factor: Tensor | float = objective.schedule.factor(progress)
    if objective.balance:
        factor = factor * balanced_weight(objective)
    logs[f'weight/{key}'] = factor
    for name in losses:
        losses[name] = losses[name] * factor


Maps = dict[str, tuple[Tensor, Mapping[int, Tensor]]]


def _maps(passes: Mapping[str, NetworkPass]) -> Maps:
    return {view: (one.sr, one.features) for view, one in passes.items()}


@region
def _ask_pure(
    step: DistillStep, names: list[str], lq: Tensor, gt: Tensor, maps: list[tuple[Maps, Maps]]
) -> list[dict[str, Tensor]]:
    """Compute the losses of pure objectives, which use no network, random numbers, progress or logs."""
    nothing: Any = None
    found = []
    for name, of_both in zip(names, maps, strict=True):
        student, teacher = (
            {view: NetworkPass(nothing, sr, features) for view, (sr, features) in own.items()} for own in of_both
        )
        objective = step._objective(name)
        state = StepState(lq, gt, student, teacher, 0.0, nothing, nothing, {})
        found.append(objective(through_gate(state, objective.gate)))
    return found


@region
def _finish(
    first: Tensor | None, sr: Tensor, parameters: list[nn.Parameter], outputs: list[list[Tensor]]
) -> tuple[Tensor, list[Tensor]]:
    """The first loss plus a term that is 0, and the sum of each teacher's outputs.

    DistributedDataParallel does not allow parameters without gradient. A branch that a step does not take, or a step
    without a loss of the student's output, would leave some. The added term gives them the gradient 0, on one process
    as on many. Summing a teacher's outputs is far cheaper than checking in every step whether each value is finite.
    """
    unused = 0 * (sr.sum() + sum(parameter.sum() for parameter in parameters))
    sums = []
    for of_teacher in outputs:
        one, *others = (output.sum(dtype=torch.float32) for output in of_teacher)
        sums.append(sum(others, one))
    return (unused if first is None else first + unused), sums


@region
def total_of(losses: list[Tensor], parts: int) -> tuple[Tensor, Tensor]:
    """The sum of a part's losses over ``parts``, and the losses themselves as one vector, without gradient.

    The sum is multiplied by 1, or by NaN if a loss is not finite: with a NaN image the gradient could otherwise be 0.
    So the gradient, averaged over ranks, shows a bad loss of any rank.
    """
    values = torch.stack(losses)
    total = values.sum() / parts
    return total * (1 + 0 * total.detach()), values.detach()
