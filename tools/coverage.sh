#!/usr/bin/env bash
# make coverage: which lines of the parsers (cmake/FfaiCoverage.cmake) the tests execute, a row a file, and all of them together; fails below 90 %.
#   tools/coverage.sh BUILD [JOBS]
# It runs the suites that parse: base, io, hub, qfmt, text, cli, fuzz (the corpora), robust, and of families and engine what reads configs and templates.
# Of the parity groups those with a container of their own: GGUF and torch files, quantized ones of transformers; more safetensors add nothing to parsers.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/coverage} jobs=${2:-2} limit=90
mkdir -p build
cmake --preset coverage -B "$build" >build/coverage.configure.log 2>&1 || { cat build/coverage.configure.log; exit 1; }
cmake --build "$build" -j "$jobs"
find "$build" -name '*.gcda' -delete
labels='^(base|io|hub|text|cli|fuzz|robust)$'
tests='^(engine\.test_(demo|parser|constrained|convert|lora|generation_defaults)|families\.(test_gen|test_embed|test_known|parity_((gguf|hf)_.*|torch|mlx_llama|lora_llama|gemma3|gptoss|qwen35)))$'
failed=0
ctest --test-dir "$build" -j "$jobs" -L "$labels" --output-on-failure -Q -O build/coverage.tests.log || failed=1
ctest --test-dir "$build" -j "$jobs" -R "$tests" --output-on-failure -Q -O build/coverage.more.log || failed=1
# Counting makes code slow: limits of time that hold elsewhere may not hold here. `make test` is what says whether tests pass.
[ $failed = 0 ] || { echo "tests that failed in this build (build/coverage.tests.log, build/coverage.more.log):"; grep -hE '\*\*\*' build/coverage.*.log || true; }
# A table of Unicode properties has no lines to execute; asserts and macros that cannot fail on purpose are not left out: the limit has room for them.
gcovr --root . --object-directory "$build" -f 'src/(io|text|hub)/' -f 'src/families/config\.c' -j "$jobs" --print-summary --json-summary build/coverage.json \
    --html-details "$build/report.html" --txt build/coverage.txt --fail-under-line $limit || { rc=$?; awk '$1 ~ /^src/ || /TOTAL/' build/coverage.txt; exit $rc; }
cat build/coverage.txt
