#!/usr/bin/env bash
# Everything that only a GPU can show, in order; nothing else has to be typed on the machine:
#
#   bash scripts/on_gpu.sh OUT [MINUTES]
#
# Each step leaves OUT/STEP.log (and JSON where it measures) and, when it has succeeded, OUT/STEP.done. Started again, the
# script goes on with the first step that is not done; a training that was cut short resumes. With MINUTES nothing runs
# longer than that. A step that fails does not keep the others from running; the exit code is 1 if any is not done.
#
#   MINIATURE=1      tiny networks and a few steps: for trying the script, on a CPU, too
#   HR=FOLDER        photographs to train on (default: those that scikit-image ships)
#   TEST=FOLDER      photographs to validate on (default: the same kind)
#   TEACHER=FILE     BSRN's weights at x4 (xiaom233/BSRN) for the last step; without them it is left out, and said so
#   PYTHON=COMMAND   a Python in which the package can be imported (default: python)
set -uo pipefail
OUT=$(mkdir -p "${1:?usage: bash scripts/on_gpu.sh OUT [MINUTES]}" && cd "$1" && pwd)
DEADLINE=$(awk "BEGIN { print int($SECONDS + 60 * ${2:-1440}) }")
TEACHER=${TEACHER:+$(realpath "$TEACHER")}
HR=${HR:+$(realpath "$HR")}
TEST=${TEST:+$(realpath "$TEST")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1
export OUT TEACHER HR TEST PYTHON=${PYTHON:-python} TINY=${MINIATURE:-}
export MIPKD="$PYTHON -m mipkd_sr"
NOT_DONE=()

# step NAME COMMAND...: run the command once, until it has succeeded; SIGTERM at the deadline, which trainings save at
step() {
    local name=$1 left=$((DEADLINE - SECONDS))
    shift
    if [ -e "$OUT/$name.done" ]; then
        echo "== $name: done before"
    elif [ "$left" -le 5 ]; then
        NOT_DONE+=("$name (no time left)")
    elif echo "== $name" && timeout --signal=TERM --kill-after=60 "$left" bash -c '"$@"' step "$@" >>"$OUT/$name.log" 2>&1
    then
        touch "$OUT/$name.done"
    else
        NOT_DONE+=("$name (see $OUT/$name.log)")
        tail -n 3 "$OUT/$name.log"
    fi
}

environment() {
    nvidia-smi || echo 'no nvidia-smi'
    $PYTHON - "$OUT/environment.json" <<'PY'
import json, os, sys
import torch, torchvision, mipkd_sr
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
found = {'gpu': gpu, 'gpus': torch.cuda.device_count(), 'torch': torch.__version__, 'cuda': torch.version.cuda,
         'torchvision': torchvision.__version__, 'mipkd_sr': mipkd_sr.__version__, 'python': sys.version.split()[0]}
open(sys.argv[1], 'w').write(json.dumps(found, indent=1) + '\n')
print(found)
sys.exit(None if gpu or os.environ['TINY'] else 'there is no GPU: what follows is measured on a CPU')
PY
}

# The option changes that make a pair small enough for a CPU, for MINIATURE
small() {
    case $1 in
        edsr) echo network_g:num_feat=8 network_g:num_block=4 network_t:num_feat=16 network_t:num_block=4 ;;
        rcan) echo network_g:num_feat=16 network_g:num_group=3 network_g:num_block=1 \
            network_t:num_feat=16 network_t:num_group=3 network_t:num_block=2 ;;
        swinir) echo network_g:embed_dim=12 network_g:depths=[2,2,2] network_g:num_heads=[2,2,2] \
            network_t:embed_dim=12 network_t:depths=[2,2,2] network_t:num_heads=[2,2,2] ;;
    esac
}

# cost PAIR ARITHMETIC CHANGES...: time and memory of a step of each method
cost() {
    local pair=$1 arithmetic=$2 size=(--batch 16 --patch 48 --repeats 20) shrink=''
    shift 2
    if [ -n "$TINY" ]; then
        size=(--batch 2 --patch 16 --repeats 2)
        shrink=$(small "$pair")
    fi
    # shellcheck disable=SC2086
    $MIPKD benchmark step -opt "mipkd/${pair}_x4" "${size[@]}" \
        --json "$OUT/step_${pair}_$arithmetic.json" --force scale=2 "$@" $shrink
}

plan() {
    local pair=$1 shrink=''
    [ -z "$TINY" ] || shrink=$(small "$pair")
    # shellcheck disable=SC2086
    $MIPKD benchmark plan -opt "mipkd/${pair}_x4" --gpu H100 --gpus 1 --force scale=2 $shrink
}

prepare() {
    if [ -z "$HR" ]; then
        HR=$OUT/photographs/train TEST=$OUT/photographs/test
        mkdir -p "$HR" "$TEST"
        $PYTHON - "$HR" "$TEST" <<'PY'
import shutil, sys
from pathlib import Path
import skimage
data = Path(skimage.__file__).parent / 'data'
for folder, names in zip(sys.argv[1:], (('coffee.png', 'chelsea.png', 'rocket.jpg'), ('astronaut.png',)), strict=True):
    for name in names:
        shutil.copy(data / name, folder)
PY
    fi
    $MIPKD prepare "$HR" --out "$OUT/datasets/train" --scale 2 4 --store npy &&
        $MIPKD prepare "${TEST:-$HR}" --out "$OUT/datasets/val" --scale 2 4
}

# The loader beside a real step: the log's 'data N%' is the share of the time that the GPU waited for patches
loader() {
    local iterations=300 shrink=''
    if [ -n "$TINY" ]; then
        iterations=20
        shrink="network_g:num_feat=8 network_g:num_block=4 datasets:train:batch_size_per_gpu=2 datasets:train:lq_size=16 datasets:train:num_worker_per_gpu=1"
    fi
    # shellcheck disable=SC2086
    $MIPKD train -opt kd/edsr_x4 --root "$OUT" --auto_resume --force_yml name=loader scale=2 \
        'network_t=~' 'path:pretrain_network_t=~' 'train:kd_opt=~' train:total_iter=$iterations train:tf32=true val:val_freq=1000 \
        datasets:train:type=PairedPatchDataset datasets:train:dataroot_gt="$OUT/datasets/train/HR" \
        datasets:train:dataroot_lq="$OUT/datasets/train/LR_x2" datasets:val:dataroot_gt="$OUT/datasets/val/HR" \
        datasets:val:dataroot_lq="$OUT/datasets/val/LR_x2" logger:print_freq=10 \
        logger:use_tb_logger=false $shrink &&
        grep -ho 'data [0-9]*%' "$OUT"/experiments/loader/*.log | tail -n 20
}

students() {
    local study=experiments/studies/gpu/study.yml
    if [ -n "$TINY" ]; then
        mkdir -p "$OUT/study" && cp "$study" "$OUT/study/study.yml"
        study=$OUT/study/study.yml
        printf '%s\n' "base: $PWD/experiments/studies/gpu/recipe.yml" 'network_g: {num_feat: 8, num_block: 3}' \
            'datasets: {train: {gt_size: 64, batch_size_per_gpu: 1, num_worker_per_gpu: 0}}' \
            'train: {total_iter: 4, scheduler: {periods: [4]}}' 'val: {val_freq: 4}' >"$OUT/study/recipe.yml"
    fi
    mkdir -p "$OUT/experiments/pretrained_models" && cp "$TEACHER" "$OUT/experiments/pretrained_models/bsrn_x4.pth" &&
        $MIPKD compare "$study" --root "$OUT" --devices 0
}

export -f environment small cost plan prepare loader students # for the shell that timeout starts
step environment environment
FILES=(tests/end_to_end/test_gpu.py)
[ -n "$TINY" ] || FILES+=(tests/end_to_end/test_distributed.py tests/costs/test_step_cost.py tests/end_to_end/test_switches.py)
step tests $PYTHON -m pytest "${FILES[@]}" -rs --junitxml "$OUT/tests.xml"
for pair in edsr rcan swinir; do
    step "step_${pair}_tf32" cost $pair tf32 train:tf32=true
    step "step_${pair}_bf16" cost $pair bf16 train:tf32=true train:precision=bf16
    step "step_${pair}_tf32_compiled" cost $pair tf32_compiled train:tf32=true train:compile=true
    step "step_${pair}_bf16_compiled" cost $pair bf16_compiled train:tf32=true train:precision=bf16 train:compile=true
    step "plan_$pair" plan $pair
done
step prepare prepare
step loader loader
if [ -n "$TEACHER" ]; then
    step students students
else
    echo "== students: left out, as TEACHER names no weights of BSRN at x4"
fi
if [ ${#NOT_DONE[@]} -gt 0 ]; then
    printf 'not done: %s\n' "${NOT_DONE[@]}"
    exit 1
fi
echo "everything is done; see $OUT"
