"""The results of a training run's validations: all of them, and the best of each metric."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

VALIDATIONS = [{'iter': int, 'dataset': str, str: float}]
"""The form of ``ValidationRecord.entries``; see ``mipkd_sr.runtime.files.fits``."""


@dataclass
class ValidationRecord:
    """The history of a run's validations.

    Attributes:
        entries: Every validation so far, in order: ``iter``, ``dataset``, and the mean of each metric.
        best: BasicSR's record, by data set and metric: ``better`` ('higher' or 'lower'), ``val`` and ``iter``. Metrics
            that are no metric of the option file (agreement with the teacher) have no best.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, dict[str, Any]] = field(default_factory=dict)

    def note(self, dataset: str, iteration: int, means: Mapping[str, float], better: Mapping[str, str]) -> str:
        """Add a validation: each metric's mean over the set ``dataset`` after a step; returns a line for the log.

        ``better`` says of the metrics that have a best whether 'higher' or 'lower' is better.
        """
        self.entries.append({'iter': iteration, 'dataset': dataset, **means})
        best = self.best.setdefault(dataset, {})
        parts = []
        for metric, value in means.items():
            text = f'{metric} {value:.4f}'
            if metric in better:
                _update(best, metric, value, iteration, better[metric])
                text += f' (best {best[metric]["val"]:.4f} at {best[metric]["iter"]:,})'
            parts.append(text)
        return f'Validation on {dataset}: {", ".join(parts)}'

    def forget(self, sets: Collection[str], metrics: Collection[str]) -> None:
        """Forget the best of validation sets, or of metrics, that are measured differently from here on."""
        self.best = {
            dataset: {metric: value for metric, value in best.items() if metric not in metrics}
            for dataset, best in self.best.items()
            if dataset not in sets
        }

    def copy(self) -> 'ValidationRecord':
        """Another record of the same validations, which does not change with this one."""
        return ValidationRecord(list(self.entries), deepcopy(self.best))

    def has(self, iteration: int) -> bool:
        """Whether step ``iteration`` has been validated."""
        return any(entry['iter'] == iteration for entry in self.entries)

    def is_best(self, dataset: str, iteration: int) -> bool:
        """Whether step ``iteration`` is the best so far: by the first metric, on the first validation set.

        ``DistillModel.validation`` then keeps the student as net_g_best.pth.
        """
        return self.entries[0]['dataset'] == dataset and self.best_iteration() == iteration

    def best_iteration(self) -> int | None:
        """The step that is the best so far, as ``is_best`` understands it; None without validations."""
        if not self.entries:
            return None
        first = self.entries[0]
        metric = next(name for name in first if name not in ('iter', 'dataset'))
        return self.best.get(first['dataset'], {}).get(metric, {}).get('iter')


def _update(best: dict[str, Any], metric: str, value: float, iteration: int, better: str) -> None:
    """Keep the better value; of equal ones the later, as BasicSR does."""
    old = best.get(metric)
    improves = old is None or (value >= old['val'] if better == 'higher' else value <= old['val'])
    if improves:
        best[metric] = {'better': better, 'val': value, 'iter': iteration}
