"""Draw what each method adds, by the student's images, its teacher and its steps: map.png.

python experiments/studies/map/figure.py
"""

import json
from pathlib import Path
from statistics import mean

import matplotlib
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent
METHODS = ('KD', 'DUKD', 'MiPKD', 'FitNet')
STEPS = 4000

Curves = dict[int, dict[int, float]]
"""PSNR on the DIV2K crops, by seed and step."""


def curves(study: str) -> dict[str, Curves]:
    """Those of a study, by variant."""
    found: dict[str, Curves] = {}
    for run in json.loads((FOLDER / study / 'results.json').read_text()):
        points = {point['iter']: point['psnr'] for point in run['validations']}
        found.setdefault(run['variant'], {})[run['seed']] = points
    return found


def gain(own: Curves, baseline: Curves, step: int) -> float:
    """The mean difference over the seeds that both have."""
    return mean(own[seed][step] - baseline[seed][step] for seed in own if seed in baseline)


def main() -> None:
    """Draw."""
    matplotlib.use('Agg')
    figure, ((few, other, legend), (rcan, long, wide)) = plt.subplots(2, 3, figsize=(12, 6.5))
    edsr = curves('edsr')
    for panel, found in ((few, edsr | {'FitNet, 489': curves('choices')['FitNet, r 0.3']}), (other, curves('bsrn'))):
        for method in METHODS:
            counts = sorted(int(name.split(', ')[1]) for name in found if name.startswith(f'{method}, '))
            gains = [gain(found[f'{method}, {count}'], edsr[f'plain, {count}'], STEPS) for count in counts]
            panel.plot(counts, gains, marker='o', label=method)
        panel.set(xlabel=f"the student's images ({STEPS:,} steps)", ylabel='PSNR over plain training, dB')
        panel.set_ylim(-0.35, 0.5)
    for panel, study, stride in ((rcan, 'rcan', 1000), (long, 'length', 2000), (wide, 'wide', 1000)):
        found = curves(study)
        steps = [step for step in sorted(found['plain'][0]) if step % stride == 0]
        for number, method in enumerate(METHODS):
            if method in found:
                gains = [gain(found[method], found['plain'], step) for step in steps]
                panel.plot(steps, gains, color=f'C{number}')
        panel.set(xlabel='steps (489 images)', ylabel='PSNR over plain training, dB')
    few.set_title('EDSR 16/4 under EDSR 32/10')
    other.set_title('EDSR 16/4 under BSRN')
    rcan.set_title('RCAN under RCAN')
    long.set_title('EDSR 16/4 under EDSR 32/10, longer')
    wide.set_title('EDSR 32/8 under BSRN')
    for panel in (few, other, rcan, long, wide):
        panel.axhline(0, color='grey', linewidth=0.8)
        panel.grid(alpha=0.3)
    legend.axis('off')
    legend.legend(*few.get_legend_handles_labels(), loc='center', fontsize=12)
    figure.tight_layout()
    figure.savefig(FOLDER / 'map.png', dpi=110)


if __name__ == '__main__':
    main()
