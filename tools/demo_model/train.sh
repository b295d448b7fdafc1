#!/bin/sh
# The recipe of the demo model: teachers side by side, then students that learn from them.
#
#   train.sh DATA OUT      (DATA from prepare.py; a GPU with 40 GB, 8 minutes on an H100)
#
# TINY=1 shrinks everything, to test the scripts on a CPU. Each run writes its output to OUT/NAME.log.
set -eu
data=$1 out=$2 here=$(dirname "$0")
python=${PYTHON:-python3}
teacher="--teacher --dim 384 --heads 6 --kv-heads 6 --hidden 1024 --lr 1.2e-3 --steps 4500 --seconds 165"
student="--steps 7000 --seconds 200"
teachers=$out/teachers
if [ "${TINY:-0}" = 1 ]; then
    teacher="--teacher --dim 64 --layers 1 --heads 2 --kv-heads 2 --hidden 64 --steps 3 --rows 2"
    student="--dim 64 --layers 1 --heads 2 --kv-heads 1 --hidden 64 --steps 6 --rows 2 --sample 5"
fi
mkdir -p "$teachers"

run() { # NAME FOLDER OPTIONS...: one training in the background
    name=$1 folder=$2
    shift 2
    PYTHONUNBUFFERED=1 "$python" "$here/train.py" "$data" "$folder" "$name" "$@" >"$out/$name.log" 2>&1 &
}

# shellcheck disable=SC2086 # the option lists are meant to be split
{
    run t0 "$teachers" $teacher --seed 100 --dropout 0.30
    run t1 "$teachers" $teacher --seed 101 --dropout 0.35
    run t2 "$teachers" $teacher --seed 102 --dropout 0.40
    run t3 "$teachers" $teacher --seed 103 --dropout 0.35 --decay 0.5
    run plain "$out" $student --seed 7 --dropout 0.25
    wait
    all="$teachers/t0.pt $teachers/t1.pt $teachers/t2.pt $teachers/t3.pt"
    run s90 "$out" $student --seed 7 --dropout 0.10 --alpha 0.9 --learn-from $all
    run s70 "$out" $student --seed 7 --dropout 0.15 --alpha 0.7 --learn-from $all
    wait
}
