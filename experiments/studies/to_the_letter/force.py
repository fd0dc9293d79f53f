"""How large MiPKD's terms are as its paper writes them, and how hard they pull, on the demo's pair; from the root:

python experiments/studies/to_the_letter/force.py [STUDENT.pth ...]

Of a student at its start, and of each file given: the mean of abs(F_T), each loss, and the norm of its gradient with
respect to the student, a mean over 8 batches of the training set. Written to force.json beside this file.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from mipkd_sr.data.paired_patch_dataset import PairedPatchDataset
from mipkd_sr.models import build_model
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.seeding import seed_everything

HERE = Path(__file__).parent
AS_WRITTEN = (
    'latent_width: teacher, teacher_ratio: 0.5, student_probability: 0.5, drop_probability: 0, normalize: false'
)
BATCHES = 8


def measure(weights: str | None) -> dict[str, float]:
    """The sizes and forces for one student; None for one at its start."""
    force = [f'train:mipkd_opt={{type: MiPKDLoss, {AS_WRITTEN}}}']
    opt = load_options(HERE / 'recipe.yml', True, '.', force).data
    opt.update(rank=0, world_size=1, dist=False, num_gpu=0)
    seed_everything(0)
    model = build_model(opt)
    if weights:
        model.net_g.load_state_dict(torch.load(weights, weights_only=True)['params'])
    student = list(model.net_g.parameters())
    dataset = PairedPatchDataset(opt['datasets']['train'])
    mipkd = model.objectives['mipkd']
    found: dict[str, float] = {}
    for batch in range(BATCHES):
        samples = [dataset[(8 * batch + i) % len(dataset)] for i in range(8)]
        lq, gt = (torch.stack([sample[name] for sample in samples]) for name in ('lq', 'gt'))
        features = model.step.teacher(lq, mipkd.teacher_indices()).features
        sizes = {f'mean abs F_T, position {k + 1}': f.abs().mean() for k, f in enumerate(features.values())}
        for name, loss in model.step(lq, gt, 1 + batch).losses.items():
            gradients = torch.autograd.grad(loss, student, retain_graph=True, allow_unused=True)
            sizes[name] = loss.detach()
            sizes[f'gradient of {name}'] = nn.utils.get_total_norm([g for g in gradients if g is not None])
        for name, value in sizes.items():
            found[name] = found.get(name, 0.0) + float(value) / BATCHES
    return found


if __name__ == '__main__':
    table = {file or 'at its start': measure(file) for file in (None, *sys.argv[1:])}
    (HERE / 'force.json').write_text(json.dumps(table, indent=1) + '\n')
    print(json.dumps(table, indent=1))
