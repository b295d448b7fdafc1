#!/usr/bin/env bash
# make demo: the main job, with the model that the repository carries.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$(find models -mindepth 1 -maxdepth 1 -type d 2>/dev/null | head -1)
if [ -z "$model" ]; then
    echo "demo: no model under models/ yet" >&2
    exit 1
fi
prompt="Once upon a time"
echo "\$ ./ffai generate -m $model -p \"$prompt\" -n 120 --temp 0.7 --seed 7 --echo --stats"
exec ./ffai generate -m "$model" -p "$prompt" -n 120 --temp 0.7 --seed 7 --echo --stats
