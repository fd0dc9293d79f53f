"""Draw a paper's figures from what runs and tests have written; each as PNG and PDF, one column wide.

    python scripts/plot.py parameters results/demo     # quality against parameters, from a test's results
    python scripts/plot.py agreement results/demo      # how close to the teacher; needs the test's `teacher`
    python scripts/plot.py curves experiments/demo_*   # validation over the steps of several runs

The crops of all networks side by side are drawn by the test itself: see `figure` in options/test/demo.yml.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mipkd_sr  # noqa: F401  (repairs BasicSR before anything needs it)
from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.evaluation.figures import agreement_figure, curves_figure, parameters_figure
from mipkd_sr.evaluation.tables import ENSEMBLE

TO = 'psnr_to_'


def read_json(file: Path) -> Any:
    """A file that a run or a test has written.

    Raises:
        SystemExit: With one sentence, if it is not there.
    """
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        sys.exit(f'error: {file} is not there, or is not what a run or a test writes')


def read_results(folder: Path) -> dict[str, Any]:
    """A test's results, without the self-ensembles of networks that are there by themselves too."""
    rows = read_json(folder / 'results.json')
    return {name: row for name, row in rows.items() if name.removesuffix(ENSEMBLE) not in rows.keys() - {name}}


def parameters(folder: Path, metric: str, out: Path) -> list[Path]:
    """Quality against parameters, from ``folder``/results.json."""
    networks = {}
    for name, row in read_results(folder).items():
        means = {test_set: mean_metrics(images) for test_set, images in row['images'].items()}
        if any(metric not in values for values in means.values()):
            sys.exit(f'error: {folder} has no {metric}; it has: {", ".join(next(iter(means.values())))}')
        networks[name] = row['parameters'], {test_set: values[metric] for test_set, values in means.items()}
    return parameters_figure(networks, f'{metric.upper()}{", dB" if metric.startswith("psnr") else ""}', out)


def agreement(folder: Path, out: Path) -> list[Path]:
    """Each network's agreement with the teacher, from ``folder``/results.json."""
    networks: dict[str, dict[str, float]] = {}
    teacher = ''
    for name, row in read_results(folder).items():
        for test_set, images in row['images'].items():
            for metric, value in mean_metrics(images).items():
                if metric.startswith(TO):
                    teacher = metric.removeprefix(TO)
                    networks.setdefault(name, {})[test_set] = value
    if not networks:
        sys.exit(f"error: {folder} has no network's agreement with a teacher; name the teacher in the test's options")
    return agreement_figure(networks, teacher, out)


def curves(folders: Sequence[Path], metric: str, out: Path) -> list[Path]:
    """A metric of the first validation set over the steps, from each folder's validations.json."""
    runs = {}
    for folder in folders:
        entries = read_json(folder / 'validations.json')
        points = [
            (entry['iter'], entry[metric])
            for entry in entries
            if entry['dataset'] == entries[0]['dataset'] and metric in entry
        ]
        if points:
            runs[folder.name] = points
    if not runs:
        sys.exit(f'error: no run has a validation with {metric}')
    return curves_figure(runs, metric.upper() + (', dB' if metric.startswith('psnr') else ''), out)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, count in (('parameters', None), ('agreement', None), ('curves', '+')):
        command = commands.add_parser(name)
        command.add_argument('folder', type=Path, nargs=count, help="folder of a test's results, or of runs")
        command.add_argument('--metric', default='psnr', help='what is drawn')
        command.add_argument('--out', type=Path, help='file without ending; by default beside the results')
    args = parser.parse_args(argv)
    if args.command == 'parameters':
        files = parameters(args.folder, args.metric, args.out or args.folder / 'parameters')
    elif args.command == 'agreement':
        files = agreement(args.folder, args.out or args.folder / 'agreement')
    else:
        files = curves(args.folder, args.metric, args.out or Path('curves'))
    print(' '.join(map(str, files)))


if __name__ == '__main__':
    main()
