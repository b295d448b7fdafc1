#!/usr/bin/env bash
# tools/fuzz.sh BUILD SECONDS: runs every libFuzzer target for a while from its seed corpus. New inputs go to the build folder; a crash is
# printed with the path of the input, which belongs into tests/fuzz/corpus/<name> once it is fixed.
set -euo pipefail
build=${1:?build folder} seconds=${2:-10}
top=$(cd "$(dirname "$0")/.." && pwd)
status=0 count=0
for target in "$build"/fuzz/fuzz_*; do
    [ -x "$target" ] || continue
    name=${target##*/fuzz_}
    work=$build/fuzz/corpus-$name
    mkdir -p "$work" "$top/tests/fuzz/corpus/$name"
    log=$build/fuzz/$name.log
    count=$((count + 1))
    if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$build/fuzz/crash-$name-" "$work" "$top/tests/fuzz/corpus/$name" >"$log" 2>&1 </dev/null; then
        echo "fuzz $name: $(sed -n 's/.*number_of_executed_units: *//p' "$log") runs, no failure"
    else
        tail -40 "$log"
        echo "fuzz $name: FAILED, see $log"
        status=1
    fi
done
[ "$count" -gt 0 ] || echo "no fuzz targets in $build/fuzz"
exit $status
