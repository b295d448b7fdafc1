#!/usr/bin/env bash
# tools/valgrind.sh FFAI: the carried model under valgrind: loading, a few tokens, sampling with a grammar, a conversion. What the sanitizers do not
# see: values that were never set, in the very instructions of a release build. Valgrind knows no AVX-512: the kernels are those of AVX2, and plain C.
set -uo pipefail
ffai=${1:?the program}
top=$(cd "$(dirname "$0")/.." && pwd)
model=$top/models/ffai-demo-6m
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0

# clean NAME COMMAND...: valgrind finds nothing
clean() {
    local name=$1
    shift
    if valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        "$ffai" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null; then
        echo "valgrind, $name: clean"
    else
        echo "valgrind, $name: FAILED"
        head -40 "$tmp/err"
        status=1
    fi
}

for cpu in c avx2; do
    export FFAI_CPU=$cpu
    clean "inspect ($cpu)" inspect -m "$model" --token-ids 1,2,3 --logits "$tmp/l.npy"
    clean "generate ($cpu)" generate -m "$model" -p 'The old house' -n 3 --greedy --threads 2 --ctx 64
done
clean 'exact, f32 cache' generate -m "$model" -p 'a' -n 2 --greedy --precision exact --kv-cache f32 --ctx 64
clean 'grammar and samplers' generate -m "$model" -p 'a' -n 3 --temp 1 --seed 1 --top-k 5 --min-p 0.1 --regex '[a-z ]+' --ctx 64
clean 'conversion' convert -q -m "$model" -o "$tmp/to" --bits 3
clean 'tokenize' tokenize -m "$model" -p 'The old house stood at the end of the road.'
printf '{"messages": [{"role": "user", "content": "hello"}]}' >"$tmp/talk.json"
clean 'template' template -m "$model" --messages "$tmp/talk.json"
exit $status
