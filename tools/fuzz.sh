#!/usr/bin/env bash
# tools/fuzz.sh BUILD SECONDS: runs every libFuzzer target for a while from its seed corpus. New inputs go to the build folder; a crash is
# printed with the path of the input, which belongs into tests/fuzz/corpus/<name> once it is fixed.
set -euo pipefail
build=${1:?build folder} seconds=${2:-10}
top=$(cd "$(dirname "$0")/.." && pwd)
count=0
# The sanitizer's memmem looks at the whole text at each call: a search for every match becomes quadratic.
export ASAN_OPTIONS=intercept_memmem=0

run() { # run TARGET: one line that ends in "no failure" or names the log
    local target=$1 name=${1##*/fuzz_}
    local work=$build/fuzz/corpus-$name log=$build/fuzz/$name.log
    mkdir -p "$work" "$top/tests/fuzz/corpus/$name"
    local dict=$top/tests/fuzz/dict/$name.dict
    [ -f "$dict" ] || dict=
    if "$target" ${dict:+-dict="$dict"} -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$build/fuzz/crash-$name-" "$work" "$top/tests/fuzz/corpus/$name" >"$log" 2>&1 </dev/null; then
        echo "fuzz $name: $(sed -n 's/.*number_of_executed_units: *//p' "$log") runs, no failure"
    else
        tail -40 "$log"
        echo "fuzz $name: FAILED, see $log"
        return 1
    fi
}

# As many at once as there are cores.
status=0 running=0
for target in "$build"/fuzz/fuzz_*; do
    [ -x "$target" ] || continue
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || status=1
        running=$((running - 1))
    fi
    run "$target" &
    running=$((running + 1))
    count=$((count + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || status=1
    running=$((running - 1))
done
[ "$count" -gt 0 ] || echo "no fuzz targets in $build/fuzz"
exit $status
