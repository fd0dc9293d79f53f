"""Pictures of results, at the width at which a paper prints them: one column, or the whole text.

Every ``..._figure`` writes its picture as ``stem``.png and ``stem``.pdf, and returns these files. ``ylabel`` is what is
measured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

matplotlib.use('Agg')  # files only; no display is needed
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mipkd_sr.metrics import measure

COLUMN, TEXT = 3.4, 7.0
"""Widths of a column and of the text of a two-column paper, in inches."""
STYLE: dict[Any, float] = {
    'font.size': 7,
    'axes.titlesize': 7,
    'legend.fontsize': 6,
    'lines.linewidth': 1.2,
    'pdf.fonttype': 42,
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a picture as ``stem``.png and ``stem``.pdf; returns the files."""
    files = [stem.with_name(f'{stem.name}.{ending}') for ending in ('png', 'pdf')]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            figure.savefig(file, dpi=300)
    finally:
        plt.close(figure)
    return files


def check_box(shape: Sequence[int], box: Sequence[int]) -> None:
    """Check that a box (top, left and side) is inside an image of this height and width."""
    top, left, side = box
    if min(top, left) < 0 or side < 1 or top + side > shape[0] or left + side > shape[1]:
        raise ValueError(f'the box {list(box)} is not inside an image of {shape[0]} x {shape[1]} pixels')


def telling_box(images: Sequence[np.ndarray], side: int = 64) -> tuple[int, int, int]:
    """Top, left and side of the square where images of one size differ most, by the mean of each pixel's deviation.

    The images are H x W x 3, 8 bits; the square has a side of ``side`` pixels, or that of the image if this is smaller.
    """
    spread = np.std([image.astype(np.float32).mean(2) for image in images], axis=0)
    side = min(side, *spread.shape)
    means = cv2.blur(spread, (side, side), anchor=(0, 0))[: len(spread) - side + 1, : spread.shape[1] - side + 1]
    top, left = np.unravel_index(means.argmax(), means.shape)
    return int(top), int(left), side


def comparison_figure(
    hr: np.ndarray | None,
    crops_of: Mapping[str, np.ndarray],
    captions: Mapping[str, str],
    crop: tuple[int, int, int],
    stem: Path,
) -> list[Path]:
    """Draw the HR image with a box; beside it each network's crop of the box, with its error against HR below.

    ``hr`` and, by name, each network's SR image in ``crops_of`` are H x W x 3, BGR, 8 bits; ``crop`` is the box's top,
    left and side. The error is the mean of ``|SR - HR|`` over the channels, in levels of 255. All panels share one
    scale, which ends at the first network's 99th percentile. Without ``hr`` there are no errors, and the box is in the
    first of ``crops_of``.
    """
    images = {**({} if hr is None else {'HR': hr}), **crops_of}
    boxed = next(iter(images.values()))
    check_box(boxed.shape, crop)
    top, left, side = crop
    panels = {name: _in_box(image, crop) for name, image in images.items()}
    errors = {name: np.abs(panels[name].astype(float) - panels['HR']).mean(2) for name in crops_of if 'HR' in images}
    first = next(iter(errors.values()), np.zeros(1))
    colours = ScalarMappable(Normalize(0, max(1.0, np.percentile(first, 99))), 'magma')
    columns = (len(panels) + 1) // 2
    with plt.rc_context(STYLE):
        height = TEXT / (columns + 2) * (2.5 if hr is None else 4.4)
        figure = plt.figure(figsize=(TEXT, height), layout='constrained')
        grid = figure.add_gridspec(2, columns + 2)
        whole = figure.add_subplot(grid[:, :2])
        whole.imshow(_rgb(boxed))
        whole.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor='red', linewidth=1.2))
        whole.set_axis_off()
        whole.set_anchor('N')
        for number, (name, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(grid[number // columns, 2 + number % columns])
            error = colours.to_rgba(errors[name], bytes=True)[..., :3] if name in errors else np.full_like(panel, 255)
            below = [] if hr is None else [error]
            axes.imshow(np.concatenate([_rgb(panel), *below]), interpolation='nearest')
            axes.set_title(f'{name}\n{captions.get(name, "")}', pad=2)
            axes.set_axis_off()
            if name == 'HR':
                bar = axes.inset_axes((0.05, 0.4, 0.9, 0.04))
                figure.colorbar(colours, cax=bar, orientation='horizontal', label='error against HR,\nlevels of 255')
        return save(figure, stem)


def measure_in_box(
    metrics: Mapping[str, Mapping[str, Any]], sr: np.ndarray, hr: np.ndarray, box: tuple[int, int, int]
) -> dict[str, float]:
    """The metrics of a crop of two images (H x W x 3, BGR, 8 bits) alone, nothing cut off its border."""
    sr, hr = _in_box(sr, box), _in_box(hr, box)
    return {name: measure({**metric, 'crop_border': 0}, sr, hr) for name, metric in metrics.items()}


def _in_box(image: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    top, left, side = box
    return image[top : top + side, left : left + side]


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def parameters_figure(networks: Mapping[str, tuple[int, Mapping[str, float]]], ylabel: str, stem: Path) -> list[Path]:
    """Plot quality against the number of parameters, a panel a test set.

    ``networks`` has each one's parameters, and its mean on each test set.
    """
    sets = list(next(iter(networks.values()))[1])
    ticks = sorted({parameters / 1000 for parameters, _ in networks.values() if parameters})
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(sets), 1, figsize=(COLUMN, 0.5 + 1.6 * len(sets)), sharex=True, layout='constrained', squeeze=False
        )
        for axes, name in zip(grid[:, 0], sets, strict=True):
            for number, (network, (parameters, means)) in enumerate(networks.items()):
                if parameters:
                    axes.scatter(parameters / 1000, means[name], s=18, color=f'C{number % 10}', label=network)
                else:  # bicubic interpolation
                    axes.axhline(means[name], linestyle='--', color=f'C{number % 10}', label=network)
            axes.set(ylabel=ylabel, title=name, xscale='log')
            axes.set_xticks(ticks, [f'{tick:,.0f}' for tick in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        grid[-1, 0].set_xlabel('parameters, thousands')
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
        return save(figure, stem)


def agreement_figure(networks: Mapping[str, Mapping[str, float]], teacher: str, stem: Path) -> list[Path]:
    """Plot how close each network's output is to the teacher's: the mean PSNR between them on each test set, in dB."""
    sets = list(next(iter(networks.values())))
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            1, len(sets), figsize=(COLUMN, 0.7 + 0.18 * len(networks)), sharey=True, layout='constrained', squeeze=False
        )
        for axes, name in zip(grid[0], sets, strict=True):
            for number, means in enumerate(networks.values()):
                axes.plot(means[name], number, 'o', color=f'C{number % 10}', markersize=4)
                above = {'xytext': (0, 4), 'textcoords': 'offset points', 'ha': 'center', 'fontsize': 5}
                axes.annotate(f'{means[name]:.1f}', (means[name], number), **above)
            axes.set(title=name, ylim=(len(networks) - 0.4, -0.9))
            axes.set_yticks(range(len(networks)), list(networks))
            axes.margins(x=0.2)
            axes.grid(alpha=0.3)
        figure.supxlabel(f'PSNR to {teacher}, dB', fontsize=7)
        return save(figure, stem)


def bars_figure(
    panels: Mapping[str, Mapping[str, tuple[float | None, float | None]]], ylabel: str, stem: Path
) -> list[Path]:
    """Draw a bar for each row of some tables, a panel a table; a line across it is the published value.

    ``panels`` has for each title and each row's name our value and the published one, if there are such.
    """
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, len(panels), figsize=(TEXT, 2.6), layout='constrained', squeeze=False)
        for axes, (title, rows) in zip(grid[0], panels.items(), strict=True):
            values = [value for pair in rows.values() for value in pair if value is not None]
            low = min(values) - 0.2 * (max(values) - min(values) or 1)
            for number, (ours, published) in enumerate(rows.values()):
                if ours is not None:
                    axes.bar(number, ours - low, bottom=low, width=0.7, color=f'C{number % 10}')
                if published is not None:
                    axes.hlines(published, number - 0.45, number + 0.45, color='black', linewidth=1.2)
            axes.set_xticks(range(len(rows)), list(rows), rotation=60, ha='right')
            axes.set(title=title, ylim=(low, None), xlim=(-0.6, len(rows) - 0.4))
        grid[0, 0].set_ylabel(ylabel)
        return save(figure, stem)


def curves_figure(
    panels: Mapping[str, Mapping[str, np.ndarray]], ylabel: str, stem: Path, whole: bool = False
) -> list[Path]:
    """Plot curves of several variants, a panel a horizontal axis: means over seeds, and bands from least to greatest.

    One panel is a column wide, several are as wide as the text. The early part of the curves, far below the rest, is
    cut off, so that differences later on can be seen.

    ``panels`` has for each axis's label and each variant an array of 4 x points: where on the axis, and mean, least and
    greatest value there. ``whole`` keeps the early part.
    """
    with plt.rc_context(STYLE):
        size, columns = ((TEXT, 3.0), 4) if len(panels) > 1 else ((COLUMN, 2.4), 3)
        figure, grid = plt.subplots(1, len(panels), figsize=size, sharey=True, layout='constrained', squeeze=False)
        entries: dict[str, Any] = {}
        for axes, (xlabel, curves) in zip(grid[0], panels.items(), strict=True):
            for number, (name, (xs, means, least, greatest)) in enumerate(curves.items()):
                color, style = f'C{number % 10}', ('-', '--', ':')[number // 10 % 3]
                (entries[name],) = axes.plot(xs, means, style, color=color, label=name, marker='.', markersize=3)
                axes.fill_between(xs, least, greatest, color=color, alpha=0.15, linewidth=0)
            axes.set(xlabel=xlabel)
            axes.grid(alpha=0.3)
        means_of_all = np.concatenate([curve[1] for curves in panels.values() for curve in curves.values()])
        low, high = np.percentile(means_of_all, 15), means_of_all.max()
        if high > low and not whole:
            grid[0, 0].set_ylim(low, high + 0.05 * (high - low))
        grid[0, 0].set_ylabel(ylabel)
        figure.legend(entries.values(), entries.keys(), loc='outside lower center', ncols=columns)
        return save(figure, stem)


def gradients_figure(curves: Mapping[str, Sequence[tuple[int, float, float]]], stem: Path) -> list[Path]:
    """Plot the norms of the losses' gradients, as multiples of the pixel term's, and their cosines with it.

    ``curves`` has for each loss (step, norm, cosine).
    """
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(2, 1, figsize=(COLUMN, 3.6), sharex=True, layout='constrained')
        for number, (name, points) in enumerate(curves.items()):
            steps, norms, cosines = zip(*points, strict=True)
            for axes, values in ((above, norms), (below, cosines)):
                axes.plot(steps, values, color=f'C{number % 10}', label=name, marker='.', markersize=3)
        above.set(ylabel='norm, pixel term = 1', yscale='log')
        below.set(xlabel='steps', ylabel='cosine with pixel term')
        for axes in (above, below):
            axes.grid(alpha=0.3)
        figure.legend(*above.get_legend_handles_labels(), loc='outside lower center', ncols=4)
        return save(figure, stem)
