"""Train variants of a recipe over several seeds, and compare them in one table and one plot.

    mipkd compare experiments/studies/mipkd/study.yml --jobs 2

A study file names the variants, each an option file and changes to it (entries of --force_yml); every run has the same
steps and data. Runs that are finished are not run again, interrupted ones go on where they stopped. The results go
beside the study file: results.json (raw), table.md, table.csv, curves.png.

    recipe: recipe.yml          # beside the study file; a variant may name another
    seeds: [0, 1]
    variants:
      logits KD: {recipe: kd.yml}
      MiPKD: {}
      MiPKD, one position: {force: ['train:mipkd_opt:positions=1']}
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from mipkd_sr.options.reading import force_options, read_options

ROOT = Path(__file__).resolve().parents[2]
STUDY_KEYS = {'recipe', 'seeds', 'variants'}
VARIANT_KEYS = {'recipe', 'force'}


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    variant: str
    seed: int
    recipe: Path
    force: tuple[str, ...]
    name: str

    def command(self, root: Path) -> list[str]:
        """The command that trains it, or goes on with it."""
        force = [f'name={self.name}', f'manual_seed={self.seed}', *self.force]
        train = ['-m', 'mipkd_sr.train', '-opt', str(self.recipe), '--root', str(root), '--auto_resume']
        return [sys.executable, *train, '--force_yml', *force]


def read_study(file: Path) -> list[Run]:
    """The runs of a study file.

    Raises:
        SystemExit: With one sentence, if the file is not as described above.
    """
    try:
        study = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f'error: {file}: cannot be read as YAML ({" ".join(str(error).split())})')
    if not isinstance(study, dict) or not study.keys() <= STUDY_KEYS or not study.get('variants'):
        sys.exit(f'error: {file}: must have the keys {", ".join(sorted(STUDY_KEYS))}, and no others')
    runs = []
    for variant, options in study['variants'].items():
        options = options or {}
        if not options.keys() <= VARIANT_KEYS or not (options.get('recipe') or study.get('recipe')):
            sys.exit(f'error: {file}: variants:{variant}: takes recipe and force, and needs a recipe')
        for seed in study.get('seeds', [0]):
            slug = re.sub(r'\W+', '-', variant).strip('-')
            runs.append(
                Run(
                    variant,
                    seed,
                    file.parent / (options.get('recipe') or study['recipe']),
                    tuple(options.get('force', ())),
                    f'{file.parent.name}_{slug}_seed{seed}',
                )
            )
    return runs


def is_finished(run: Run, root: Path) -> bool:
    """Whether a run has taken all its steps."""
    folder = root / 'experiments' / run.name
    if not (folder / 'timing.json').is_file():
        return False
    options = read_options(run.recipe)
    force_options(options, run.force)
    validations = json.loads((folder / 'validations.json').read_text())
    return bool(validations) and validations[-1]['iter'] >= options.data['train']['total_iter']


def execute(runs: list[Run], root: Path, jobs: int, devices: list[str]) -> None:
    """Train the runs, ``jobs`` at a time, each on a device of its own where devices are given.

    Raises:
        SystemExit: If a run fails; the others are finished first, and what was done is kept.
    """
    places: Queue[str] = Queue()
    for place in devices or [''] * jobs:
        places.put(place)
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def train(run: Run) -> int:
        place = places.get()
        environment = os.environ | {'OMP_NUM_THREADS': str(threads), 'PYTHONWARNINGS': 'ignore'}
        if place:
            environment['CUDA_VISIBLE_DEVICES'] = place
        log = root / 'experiments' / f'{run.name}.log'
        log.parent.mkdir(exist_ok=True)
        print(f'training {run.name}', flush=True)
        try:
            with log.open('a') as stream:
                code = subprocess.run(run.command(root), env=environment, stdout=stream, stderr=stream).returncode
        finally:
            places.put(place)
        print(f'{"done" if code == 0 else f"FAILED (exit code {code}, see {log})"}: {run.name}', flush=True)
        return code

    with ThreadPoolExecutor(len(devices) or jobs) as pool:
        try:
            codes = list(pool.map(train, runs))
        except KeyboardInterrupt:  # the runs under way get it too, save, and stop
            pool.shutdown(cancel_futures=True)
            sys.exit('interrupted; run this again to go on')
    if any(codes):
        sys.exit(f'error: {sum(map(bool, codes))} of {len(runs)} runs failed; run this again to go on with them')


def collect(runs: list[Run], root: Path) -> list[dict[str, Any]]:
    """What each run measured: its validations, and the seconds a step took."""
    results = []
    for run in runs:
        folder = root / 'experiments' / run.name
        validations = json.loads((folder / 'validations.json').read_text())
        timing = json.loads((folder / 'timing.json').read_text())
        results.append({'variant': run.variant, 'seed': run.seed, 'validations': validations, **timing})
    return results


def summarise(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the table: for each variant mean and standard deviation over seeds at the last validation."""
    from mipkd_sr.evaluation.tables import digits_of

    last = results[0]['validations'][-1]
    metrics = [name for name in last if name not in ('iter', 'dataset')]
    header = ['variant', 'seeds', 'steps', *(f'{metric} on {last["dataset"]}' for metric in metrics), 's a step']
    body = []
    for variant in dict.fromkeys(result['variant'] for result in results):
        own = [result for result in results if result['variant'] == variant]
        cells = [variant, str(len(own)), f'{own[0]["validations"][-1]["iter"]:,}']
        for metric in metrics:
            values = [result['validations'][-1][metric] for result in own if metric in result['validations'][-1]]
            cells.append(spread(values, digits_of(metric)))
        body.append([*cells, f'{statistics.mean(result["seconds_per_step"] for result in own):.3f}'])
    return header, body


def spread(values: list[float], digits: int) -> str:
    """Mean and, for more than one value, standard deviation: ``30.24 ± 0.02``."""
    if not values:
        return '-'
    text = f'{statistics.mean(values):.{digits}f}'
    return text if len(values) == 1 else f'{text} ± {statistics.stdev(values):.{digits}f}'


def write_report(results: list[dict[str, Any]], folder: Path) -> str:
    """Write results.json, table.md, table.csv and curves.png to ``folder``; returns the table."""
    import matplotlib

    from mipkd_sr.evaluation.tables import markdown_table

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    header, body = summarise(results)
    table = markdown_table(header, body)
    (folder / 'results.json').write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    (folder / 'table.md').write_text(table + '\n', encoding='utf-8')
    with (folder / 'table.csv').open('w', newline='', encoding='utf-8') as stream:
        csv.writer(stream).writerows([header, *body])
    figure, axes = plt.subplots(figsize=(9, 4.5), layout='constrained')
    metric = header[3].split(' on ')[0]
    for number, variant in enumerate(dict.fromkeys(result['variant'] for result in results)):
        own = [result['validations'] for result in results if result['variant'] == variant]
        steps = [entry['iter'] for entry in own[0]]
        means = [statistics.mean(entry[metric] for entry in row) for row in zip(*own, strict=True)]
        axes.plot(steps, means, label=variant, color=f'C{number % 10}', linestyle=('-', '--', ':')[number // 10 % 3])
    axes.set(xlabel='steps', ylabel=header[3])
    axes.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(folder / 'curves.png', dpi=150)
    plt.close(figure)
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument('study', type=Path, help='the study file')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time on CPUs')
    parser.add_argument('--devices', nargs='+', default=[], help='GPUs to use, a run at a time on each: 0 1 2')
    parser.add_argument('--root', type=Path, default=ROOT, help='folder for experiments and relative paths')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    runs = read_study(args.study.absolute())
    root = args.root.absolute()
    execute([run for run in runs if not is_finished(run, root)], root, args.jobs, args.devices)
    print(write_report(collect(runs, root), args.study.absolute().parent))
    return 0
