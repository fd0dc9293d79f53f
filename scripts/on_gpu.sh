#!/usr/bin/env bash
# Everything that only a GPU can show, also on a bare machine that is lent for minutes: no network, little to be brought
# and little that comes back.
#
#   bash scripts/on_gpu.sh OUT [MINUTES]             tests, and what steps cost
#   bash scripts/on_gpu.sh campaign OUT [MINUTES]    the rows of a study
#   bash scripts/on_gpu.sh prepare OUT               the images of either alone, where not all can be brought at once
#   bash scripts/on_gpu.sh bring [LAST]              at home: put what a bare machine needs into brought/, to be taken
#                                                    along with the checkout; LAST is the OUT of the last machine
#
# Steps come in the order of their value. None takes longer than four minutes, a row of the study neither: that is
# stopped, saved and resumed. OUT gets measured.tar.00, .01, ..., or campaign.tar.00, ... and students.tar.00, ...: the
# first two are what the next machine goes on from (of a row under way its newest training state), the third are the
# students that have been finished. A step that fails keeps no other from running. The exit code is 1 if one has failed,
# 3 if only time was short. At least 20 seconds of MINUTES are kept for saving.
#
#   WORK=FOLDER      where the work is done (default: OUT/work); what is there already is gone on with
#   FROM=FOLDER      where the tars of the last machine are (default: OUT, else brought/last)
#   STUDY=FILE       the study (default: experiments/studies/gpu/study.yml); JOBS=N: that many rows at a time (1)
#   WEIGHTS=FOLDER   the teachers' weights, as the study names them: bsrn_x4.pth, bsrn_x2.pth
#   HR=FOLDER        photographs to train on (default: those that scikit-image ships)
#   TEST=FOLDER      photographs to validate on (default: the same kind)
#   MINIATURE=1      tiny networks and a few steps in what is measured: for trying that, on a CPU, too
#   PYTHON=COMMAND   a Python in which the package can be imported (default: python)
#   TARGET=3.12      for bring: the Python of the bare machine
#   ROOM_MB, FILES, FILE_MB, BRING_MB, STEP_MINUTES   the limits, see below
set -uo pipefail
WHEELS=(basicsr==1.4.2 addict future lmdb yapf platformdirs) # what a machine with PyTorch, OpenCV and scikit-image lacks
ROOM_MB=${ROOM_MB:-40}   # the most that campaign.tar may have, so that it can be brought
FILES=${FILES:-8} FILE_MB=${FILE_MB:-16} # the most files that come back, and the largest
BRING_MB=${BRING_MB:-60} # the most that can be brought, the checkout included
STEP_MINUTES=${STEP_MINUTES:-4}
SAVE_SECONDS=${SAVE_SECONDS:-20} LEAST_SECONDS=${LEAST_SECONDS:-15}

MODE=measure
case ${1:-} in campaign | prepare | bring) MODE=$1 && shift ;; esac
[ "$MODE" = bring ] || [ -n "${1:-}" ] || { sed -n '5,9s/^# *//p' "${BASH_SOURCE[0]}" && exit 2; }
for name in HR TEST WEIGHTS STUDY FROM; do
    [ -n "${!name:-}" ] || continue
    path=$(realpath -e "${!name}") || exit 2
    declare "$name=$path"
done
[ "$MODE" = bring ] || mkdir -p "$1" || exit 2
[ -z "${1:-}" ] || GIVEN=$(realpath -e "$1") || exit 2
# The methods in the order of their value, as the last ones may find no time left
METHODS='DUKD MiPKD scratch FAKD CSD DCKD CrossKD FitNet AT RKD wavelet ECO'
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(realpath -m "${WORK:-${GIVEN:-}/work}")
cd "$HERE"
PYTHON=${PYTHON:-python}

# megabytes_of PATH...: of the files at or below the paths, of WORK; what tar adds included
megabytes_of() {
    [ $# -gt 0 ] || { echo 0 && return; }
    (cd "$WORK" 2>/dev/null && find "$@" -type f -printf '%s\n' | awk '{ sum += $1 + 1024 } END { print int(sum / 1e6 + 0.999) }')
}

bring() {
    mkdir -p brought/wheels && rm -rf brought/last brought/HR brought/TEST brought/weights
    if [ ! -e brought/wheels/complete ]; then
        $PYTHON -m pip wheel -q --no-deps --no-build-isolation -w brought/wheels "${WHEELS[0]}" &&
            $PYTHON -m pip download -q --no-deps --only-binary=:all: --python-version "${TARGET:-3.12}" \
                --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
                -d brought/wheels "${WHEELS[@]:1}" && touch brought/wheels/complete || return 1
    fi
    [ -z "${HR:-}" ] || cp -rL "$HR" brought/HR || return 1
    [ -z "${TEST:-}" ] || cp -rL "$TEST" brought/TEST || return 1
    [ -z "${WEIGHTS:-}" ] || cp -rL "$WEIGHTS" brought/weights || return 1
    if [ -n "${GIVEN:-}" ]; then
        mkdir brought/last && cp "$GIVEN"/{measured,campaign}.tar.* brought/last 2>/dev/null
        ls brought/last | grep -q . || { echo "error: $GIVEN holds no tar of a campaign or of measurements" && return 1; }
    fi
    local files size
    mapfile -d '' files < <(git ls-files -z)
    size=$(WORK=. megabytes_of brought "${files[@]}")
    echo "the checkout with brought/ has $size MB"
    [ "$size" -le "$BRING_MB" ] || { echo "error: at most $BRING_MB MB can be brought; leave some out (prepare)" && return 1; }
}
[ "$MODE" != bring ] || { bring && exit || exit 1; }

OUT=$GIVEN
DEADLINE=$(awk "BEGIN { print int($SECONDS + 60 * ${2:-1440} - $SAVE_SECONDS) }")
FROM=${FROM:-$(ls "$OUT"/*.tar.00 >/dev/null 2>&1 && echo "$OUT" || echo "$HERE/brought/last")}
for pair in HR/HR TEST/TEST WEIGHTS/weights; do
    name=${pair%/*}
    [ -n "${!name:-}" ] || [ ! -d "brought/${pair#*/}" ] || declare "$name=$HERE/brought/${pair#*/}"
done
HR=${HR:-} TEST=${TEST:-} WEIGHTS=${WEIGHTS:-} TINY=${MINIATURE:-}
mkdir -p "$WORK" || exit 2
export PYTHONPATH=$HERE${PYTHONPATH:+:$PYTHONPATH} PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1
if [ -d brought/wheels ]; then
    [ -d "$WORK/site" ] || $PYTHON -m pip install -q --no-index --no-deps --target "$WORK/site" brought/wheels/*.whl ||
        { rm -rf "$WORK/site" && echo 'error: the wheels cannot be installed' && exit 1; }
    PYTHONPATH=$WORK/site:$PYTHONPATH
fi
export METHODS WORK WEIGHTS HR TEST PYTHON TINY MIPKD="$PYTHON -m mipkd_sr"
FAILED=() LATE=() LEFT_OUT=() ROWS=()

# bundle NAME PATH...: what is at the paths below WORK, as OUT/NAME.tar.00, .01, ...
bundle() {
    rm -f "$OUT/$1".tar.*
    [ $# -eq 1 ] || tar -C "$WORK" -cf - -- "${@:2}" | split -b "${FILE_MB}MB" -d - "$OUT/$1.tar."
}

# unbundle NAME: the same back into WORK, if it is not there yet
unbundle() {
    [ ! -e "$WORK/.$1" ] && ls "$FROM/$1".tar.* >/dev/null 2>&1 || return 0
    cat "$FROM/$1".tar.* | tar -C "$WORK" -xf - && touch "$WORK/.$1" && echo "goes on from $FROM"
}

# until SECONDS COMMAND...: SIGTERM after so many seconds, which trainings save at
until_() { timeout --signal=TERM --kill-after=60 "$1" bash -c '"$@"' step "${@:2}"; }

# time_left: the seconds that the next step may take
time_left() { echo $((DEADLINE - SECONDS < 60 * STEP_MINUTES ? DEADLINE - SECONDS : 60 * STEP_MINUTES)); }

# step NAME COMMAND...: run the command once, until it has succeeded, and bundle what has been measured
step() {
    local name=$1 code=0
    shift
    if [ -e "$WORK/$name.done" ]; then
        echo "== $name: done before"
        return
    elif [ "$(time_left)" -le 5 ]; then
        LATE+=("$name (no time left)")
        return 0
    fi
    echo "== $name"
    until_ "$(time_left)" "$@" >>"$WORK/$name.log" 2>&1 || code=$?
    case $code in
        0) touch "$WORK/$name.done" ;;
        124 | 137) LATE+=("$name (stopped in time, see $name.log)") ;;
        *) FAILED+=("$name (see $name.log)") && tail -n 3 "$WORK/$name.log" ;;
    esac
    (cd "$WORK" && ls -- *.log *.json *.xml *.done 2>/dev/null) | {
        mapfile -t files
        bundle measured "${files[@]}"
    }
}

environment() {
    nvidia-smi || echo 'no nvidia-smi'
    $PYTHON - "$WORK/environment.json" <<'PY'
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

# cost NAME PAIR "METHODS" CHANGES...: time, launches and memory of a step of each method
cost() {
    local name=$1 pair=$2 methods=$3 size=(--batch 16 --patch 48 --repeats 20) shrink=''
    shift 3
    if [ -n "$TINY" ]; then
        size=(--batch 2 --patch 16 --repeats 2)
        shrink=$(small "$pair")
    fi
    # shellcheck disable=SC2086
    $MIPKD benchmark step -opt "mipkd/${pair}_x4" "${size[@]}" --minutes 3.5 --methods ${methods:-$METHODS} \
        --json "$WORK/$name.json" --force train:tf32=true train:compile_cache="$WORK/compiled" "$@" $shrink
}

plan() {
    local shrink=''
    [ -z "$TINY" ] || shrink=$(small "$1")
    # shellcheck disable=SC2086
    $MIPKD benchmark plan -opt "mipkd/$1_x4" --gpu H100 --gpus 1 $shrink
}

# Images and weights. Files have the same time on each machine: an image that has changed ends a run.
prepare() {
    [ -z "$WEIGHTS" ] || { mkdir -p "$WORK/experiments/pretrained_models" &&
        cp "$WEIGHTS"/* "$WORK/experiments/pretrained_models/"; } || return 1
    if [ -z "$HR" ]; then
        [ ! -d "$WORK/datasets/val" ] || return 0 # prepared before
        HR=$WORK/photographs/train TEST=$WORK/photographs/test
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
    $MIPKD prepare "$HR" --out "$WORK/datasets/train" --scale 2 4 --store npy &&
        $MIPKD prepare "${TEST:-$HR}" --out "$WORK/datasets/val" --scale 2 4 &&
        find "$WORK/datasets" -type f -exec touch -d '2000-01-01 UTC' {} +
}

# The loader beside a real step: the log's 'data N%' is the share of the time that the GPU waited for patches
loader() {
    local iterations=300 shrink=''
    if [ -n "$TINY" ]; then
        iterations=20
        shrink="network_g:num_feat=8 network_g:num_block=4 datasets:train:batch_size_per_gpu=2 datasets:train:lq_size=16 datasets:train:num_worker_per_gpu=1"
    fi
    # shellcheck disable=SC2086
    prepare && $MIPKD train -opt kd/edsr_x4 --root "$WORK" --auto_resume --force_yml name=loader scale=2 \
        'network_t=~' 'path:pretrain_network_t=~' 'train:kd_opt=~' train:total_iter=$iterations train:tf32=true val:val_freq=1000 \
        datasets:train:type=PairedPatchDataset datasets:train:dataroot_gt="$WORK/datasets/train/HR" \
        datasets:train:dataroot_lq="$WORK/datasets/train/LR_x2" datasets:val:dataroot_gt="$WORK/datasets/val/HR" \
        datasets:val:dataroot_lq="$WORK/datasets/val/LR_x2" logger:print_freq=10 \
        logger:use_tb_logger=false $shrink &&
        grep -ho 'data [0-9]*%' "$WORK"/experiments/loader/*.log | tail -n 20
}

export -f environment small cost plan prepare loader # for the shell that timeout starts

measure() {
    unbundle measured || return 1
    local pair way again
    step environment environment
    step tests $PYTHON -m pytest tests/end_to_end/test_gpu.py -v -rs --junitxml "$WORK/tests.xml"
    local -A ways=([bf16_graphs]='train:precision=bf16 train:compile=graphs' [bf16]='train:precision=bf16 train:compile=false'
        [tf32_graphs]=train:compile=graphs [tf32]=train:compile=false)
    for again in cold warm; do # a second process finds compiled code of the first
        step "warm_up_$again" cost "warm_up_$again" edsr KD ${ways[bf16_graphs]} train:compile_cache="$WORK/warm_up"
    done
    for pair in edsr swinir rcan; do
        for way in bf16_graphs bf16; do
            step "step_${pair}_$way" cost "step_${pair}_$way" $pair '' ${ways[$way]}
        done
    done
    step loader loader
    for way in tf32_graphs tf32; do
        step "step_edsr_$way" cost "step_edsr_$way" edsr '' ${ways[$way]}
    done
    for pair in edsr swinir rcan; do
        step "plan_$pair" plan $pair
    done
    for file in end_to_end/test_distributed costs/test_step_cost end_to_end/test_switches; do
        step "${file##*/}" $PYTHON -m pytest -v "tests/$file.py"
    done
    return 0
}

# Bundle what the next machine goes on from, and the students that have been finished; the rows furthest on come first
pack() {
    local row files state size left bundled=(experiments/studies) students=() rows
    LEFT_OUT=()
    mapfile -t -O 1 bundled < <(cd "$WORK" && ls -d campaign.log experiments/*.log experiments/*.yml 2>/dev/null)
    mapfile -t rows < <(cd "$WORK/experiments" && ls -d -- */training_states/*.state 2>/dev/null |
        sed 's|\(.*\)/training_states/\(.*\)\.state|\2 \1|' | sort -rn | cut -d ' ' -f 2- | awk '!seen[$0]++')
    for row in "${rows[@]}"; do
        mapfile -t files < <(cd "$WORK" && find "experiments/$row" -maxdepth 1 -type f ! -name '.*')
        if [ -e "$WORK/experiments/$row/models/net_g_latest.pth" ]; then
            files+=("experiments/$row/models/net_g_latest.pth")
            [[ " ${ROWS[*]} " == *" $row "* ]] || { students+=("${files[@]}") && continue; } # else its test is left
        else
            state=$(ls "$WORK/experiments/$row"/training_states/*.state | sort -V | tail -n 1)
            files+=("${state#"$WORK"/}")
        fi
        if [ "$(megabytes_of "${bundled[@]}" "${files[@]}")" -le "$ROOM_MB" ]; then
            bundled+=("${files[@]}")
        else
            LEFT_OUT+=("$row: it will begin again, as campaign.tar may have $ROOM_MB MB; lower JOBS")
        fi
    done
    bundle campaign "${bundled[@]}"
    left=$((FILES - $(ls "$OUT"/campaign.tar.* | wc -l)))
    if [ "$(megabytes_of "${students[@]}")" -le $((left * FILE_MB)) ]; then
        bundle students "${students[@]}"
    else
        LEFT_OUT+=("students.tar: more than $FILES files of $FILE_MB MB would come back")
    fi
}

# The names of the rows that are not done, into ROWS
left_to_do() {
    local commands
    commands=$($MIPKD compare "$STUDY" --commands 2>>"$WORK/campaign.log") || return 1
    mapfile -t ROWS < <(sed 's/.* --run //' <<<"$commands" | xargs -r -n 1)
}

campaign() {
    local own at_a_time code before
    STUDY=${STUDY:-$HERE/experiments/studies/gpu/study.yml}
    own=$WORK/experiments/studies/$(basename "$(dirname "$STUDY")")
    unbundle campaign || return 1
    # the study beside options/, as in a checkout; its numbers are those of the last machine, if there was one
    mkdir -p "$own" && cp "$(dirname "$STUDY")"/*.yml "$own" && ln -sfn "$HERE/options" "$WORK/options"
    [ ! -e "$(dirname "$STUDY")/results.json" ] || cp -n "$(dirname "$STUDY")/results.json" "$own"
    STUDY=$own/$(basename "$STUDY")
    { until_ "$(time_left)" prepare && left_to_do; } >>"$WORK/campaign.log" 2>&1 ||
        { tail -n 3 "$WORK/campaign.log" && echo 'the images, or the study, are no good, or there was no time' && return 1; }
    at_a_time=(--jobs "${JOBS:-1}")
    # shellcheck disable=SC2207
    ! nvidia-smi >/dev/null 2>&1 || at_a_time=(--devices $(yes 0 | head -n "${JOBS:-1}"))
    while [ ${#ROWS[@]} -gt 0 ]; do
        if [ "$(time_left)" -le "$LEAST_SECONDS" ]; then
            LATE+=("${ROWS[@]}")
            break
        fi
        echo "== rows left: ${#ROWS[@]}, next: ${ROWS[0]}"
        before=${ROWS[*]}
        until_ "$(time_left)" $MIPKD compare "$STUDY" "${at_a_time[@]}" --run "${ROWS[@]}" >>"$WORK/campaign.log" 2>&1
        code=$?
        { $MIPKD compare "$STUDY" --report && left_to_do; } >>"$WORK/campaign.log" 2>&1 || code=1
        pack
        case $code in
            124 | 137 | 143) continue ;;
            0) [ "${ROWS[*]}" = "$before" ] || continue ;; # another process has them
            *) grep -a 'FAILED\|^error' "$WORK/campaign.log" | tail -n 5 ;;
        esac
        FAILED+=("rows (see campaign.log)") && break
    done
    FAILED+=("${LEFT_OUT[@]}")
}

$MODE || FAILED+=("$MODE")
[ ${#LATE[@]} -eq 0 ] || printf 'not done: %s\n' "${LATE[@]}"
if [ ${#FAILED[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${FAILED[@]}"
    exit 1
fi
[ ${#LATE[@]} -eq 0 ] || exit 3
echo "everything is done; see $OUT"
