"""The base of objectives that compare or mix the two networks' features at distillation positions."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from mipkd_sr.archs.loading import Resized
from mipkd_sr.archs.probing import feature_shapes
from mipkd_sr.archs.staged import is_staged
from mipkd_sr.distill.objective import Objective, StepState
from mipkd_sr.distill.positions import unit_indices
from mipkd_sr.runtime.ranks import mean_over_ranks


class SizedPair(NamedTuple):
    """A position's two feature maps, B x C_S x H x W and B x C_T x H x W, each divided by its size; and the sizes."""

    student: Tensor
    teacher: Tensor
    student_size: Tensor | float
    teacher_size: Tensor | float


def size_of(feature: Tensor, power: int = 1) -> Tensor:
    """The size of a feature map, ``(mean |F|^power)^(1 / power)`` over the batch of all ranks: a scalar, not 0.

    It differs between networks by orders of magnitude: EDSR's maps are for images of 0..255, BSRN's for 0..1. A map of
    zeros has size 1. The size has no gradient.
    """
    norm = torch.linalg.vector_norm(feature.detach(), power, dtype=torch.promote_types(feature.dtype, torch.float32))
    size = (mean_over_ranks(norm**power) / feature.numel()) ** (1 / power)
    return torch.where(size == 0, 1.0, size)


class FeatureObjective(Objective):
    """Finds the distillation positions in both networks.

    Args:
        positions: K, or a list; see ``mipkd_sr.distill.positions``.

    Attributes:
        unit_pairs: For each position, the unit index in the student and in the teacher; ascending.
        widths: For each position, the student's and the teacher's width.
    """

    needs_gt = False
    same_size: ClassVar[bool] = True
    """Whether the feature maps must have the same height and width."""

    def __init__(self, positions: int | Sequence[int | float] = 3) -> None:
        super().__init__()
        self.positions = positions
        self.unit_pairs: list[tuple[int, int]] = []
        self.widths: list[tuple[int, int]] = []

    def attach(self, student: nn.Module, teacher: nn.Module | None, lq_size: int, scale: int) -> None:
        """Find the positions; a subclass then creates what depends on the widths.

        Raises:
            ValueError: If a network has no head, body and tail or no such position, or the feature maps differ in size.
        """
        shapes_s = self._shapes('student', student, lq_size)
        shapes_t = self._shapes('teacher', teacher, lq_size)
        self.unit_pairs = list(zip(shapes_s, shapes_t, strict=True))
        for index_s, index_t in self.unit_pairs:
            if self.same_size and shapes_s[index_s][1:] != shapes_t[index_t][1:]:
                raise ValueError(
                    f"the student's feature map is {shapes_s[index_s]} after unit {index_s}, the teacher's "
                    f'{shapes_t[index_t]} after unit {index_t}: they must have the same height and width'
                )
        self.widths = [(shapes_s[index_s][0], shapes_t[index_t][0]) for index_s, index_t in self.unit_pairs]

    def _shapes(self, name: str, net: nn.Module | None, lq_size: int) -> dict[int, tuple[int, ...]]:
        if not is_staged(net):
            reason, method = '', type(self).__name__
            if isinstance(net, Resized):
                reason, net = ': it is of another scale, and only its output is resized', net.net
            network = type(net).__name__
            raise ValueError(f'{network}, the {name}, has no head, body and tail, which {method} needs{reason}')
        return feature_shapes(net, unit_indices(self.positions, net.depth), lq_size)

    @override
    def student_indices(self) -> list[int]:
        return [index for index, _ in self.unit_pairs]

    @override
    def teacher_indices(self) -> list[int]:
        return [index for _, index in self.unit_pairs]

    def features(self, state: StepState) -> list[tuple[Tensor, Tensor]]:
        """For each position the student's and the teacher's feature map, B x C x H x W each, not scaled."""
        student, teacher = state.student['lq'].features, state.teacher['lq'].features
        return [(student[index_s], teacher[index_t]) for index_s, index_t in self.unit_pairs]

    def sized_features(self, state: StepState, power: int = 1) -> list[SizedPair]:
        """As ``features``, each map divided by its ``size_of``, so that the range in which a network works does not
        matter.

        Whoever sends a map into the other network multiplies it by the size of that network's own map.
        """
        return sized(self.features(state), power)


def sized(features: Iterable[tuple[Tensor, Tensor]], power: int = 1) -> list[SizedPair]:
    """See ``FeatureObjective.sized_features``."""
    pairs = []
    for feature_s, feature_t in features:
        size_s, size_t = size_of(feature_s, power), size_of(feature_t, power)
        pairs.append(SizedPair(feature_s / size_s, feature_t / size_t, size_s, size_t))
    return pairs
