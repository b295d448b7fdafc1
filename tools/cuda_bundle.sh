#!/usr/bin/env bash
# tools/cuda_bundle.sh DIR [BUILD]: everything that a GPU machine needs to run the GPU tests, copied into DIR (below 100 MB): the program, the
# module, the test programs, the shared libraries that such a machine may lack, the carried model and the golden values of the families.
# BUILD (default build/release) must be built, with nvcc. On the GPU machine:
#   DIR/run.sh               all GPU tests; prints a table; exit status 0 when all passed
#   DIR/run.sh ops           the operation tests only;  DIR/run.sh parity [GROUP...];  DIR/run.sh laws
#   DIR/run.sh sanitize      the operation tests under compute-sanitizer memcheck and racecheck; SECONDS_EACH limits each (default 120)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n 's/^# \{0,1\}//;2,8p' "$0" >&2; exit 2; }
out=$1 build=${2:-build/release}
for f in ffai parity test_laws libffai_cuda.so; do
    [ -f "$build/$f" ] || { echo "cuda_bundle: $build/$f is missing: build it first (libffai_cuda.so needs nvcc)" >&2; exit 1; }
done
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/lib_old" "$out/tests/data" "$out/models"
tests=()
for f in tests/cuda/test_*.c; do
    t=$(basename "$f" .c)
    [ -x "$build/$t" ] || { echo "cuda_bundle: $build/$t is missing" >&2; exit 1; }
    tests+=("$t")
done
for b in ffai parity test_laws "${tests[@]}"; do
    cp "$build/$b" "$out/bin/$b"
    strip "$out/bin/$b"
done
cp "$build/libffai_cuda.so" "$out/bin/"
cp tools/find_cublaslt.sh "$out/"
cp -r models/ffai-demo-6m "$out/models/"
cp -r tests/data/families "$out/tests/data/"
printf '%s\n' "${tests[@]}" >"$out/tests.txt"
# What Debian's base system and the CUDA images have stays out; the C++ runtime is kept aside for machines without one.
for b in "$out"/bin/*; do ldd "$b"; done | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u | while IFS= read -r lib; do
    case "$(basename "$lib")" in
    libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.*) ;;
    libstdc++.so.* | libgcc_s.so.*) cp -L "$lib" "$out/lib_old/" ;;
    *) cp -L "$lib" "$out/lib/" ;;
    esac
done
cat >"$out/run.sh" <<'RUN'
#!/usr/bin/env bash
# The GPU tests from a folder that tools/cuda_bundle.sh made. See there.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
here=$PWD logs=${LOGS:-$PWD/logs}
mkdir -p "$logs"
export FFAI_CUDA_MODULE=$here/bin/libffai_cuda.so FFAI_SOURCE_DIR=$here FFAI_TEST_CYCLES=${FFAI_TEST_CYCLES:-1000}
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ldd bin/ffai 2>/dev/null | grep -q 'libstdc++.*not found' && LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$here/lib_old
export LD_LIBRARY_PATH
. ./find_cublaslt.sh
bad=0
# one NAME COMMAND...: runs it with a time limit, prints a line, the end of its log when it failed
one() {
    local name=$1 start=$SECONDS rc word
    shift
    timeout "${SECONDS_EACH:-300}" "$@" >"$logs/$name.log" 2>&1
    rc=$?
    case $rc in 0) word=ok ;; 77) word=skipped ;; 124) word=TIMEOUT ;; *) word=FAIL ;; esac
    printf '%-44s %-8s %4d s\n' "$name" "$word" $((SECONDS - start))
    case $rc in
    0 | 77) ;;
    *)
        bad=$((bad + 1))
        grep -E 'ERROR|FAIL|Error|error|========= ' "$logs/$name.log" | head -n 12 | sed 's/^/    /'
        ;;
    esac
}
ops() { while IFS= read -r t; do one "$t" "bin/$t"; done <tests.txt; }
laws() { one laws bin/test_laws cuda:0; }
parity() {
    local groups=("$@") g
    [ ${#groups[@]} -gt 0 ] ||
        mapfile -t groups < <(ls tests/data/families | grep -oE '^((mlx|gguf|hf|lora)_)?[a-z0-9]+' | sort -u)
    for g in "${groups[@]}"; do one "parity_$g" bin/parity bin/ffai tests/data/families "$here/fixtures" "${g}_" cuda:0; done
}
sanitize() {
    local tool t
    SECONDS_EACH=${SECONDS_EACH:-120}
    command -v compute-sanitizer >/dev/null || PATH=$PATH:/usr/local/cuda/bin
    command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; exit 1; }
    # tests that lose the device on purpose, or measure, have nothing to say here
    for tool in memcheck racecheck; do
        while IFS= read -r t; do
            case $t in test_backend | test_engine | test_faults) continue ;; esac
            one "${tool}_$t" compute-sanitizer --tool $tool --error-exitcode 9 --print-limit 5 "bin/$t"
        done < <([ $# -gt 0 ] && printf '%s\n' "$@" || cat tests.txt)
    done
}
bin/ffai devices
what=${1:-all}
shift || true
case $what in
all) ops; laws; parity ;;
ops | laws) $what ;;
parity | sanitize) $what "$@" ;;
*) echo "usage: run.sh [ops|laws|parity [GROUP...]|sanitize [TEST...]]" >&2; exit 2 ;;
esac
echo "$bad failures; logs in $logs"
[ $bad -eq 0 ]
RUN
chmod +x "$out/run.sh"
size=$(du -sb "$out" | cut -f1)
[ "$size" -lt 100000000 ] || { echo "cuda_bundle: $out has $size bytes, the limit is 100000000" >&2; exit 1; }
echo "$out: $((size / 1000000)) MB, $(wc -l <"$out/tests.txt") operation test programs"
