#!/usr/bin/env bash
# The program under bad circumstances: closed and full outputs, signals, limits, odd paths, two at a time. Looks at exit
# statuses and at what was written.
# shellcheck source=tests/robust/common.sh
. "$(dirname "$0")/common.sh"

run="$FFAI generate -m $model -p 'The old house' --greedy -n 8"

check 'a full disk' 1 'standard output' "$run >/dev/full"
check 'a closed standard output' 1 'standard output' "$run >&-"
check 'a full disk behind inspect' 1 'standard output' "$FFAI inspect -m $model >/dev/full"
check 'a full disk behind --json' 1 'standard output' "$FFAI inspect -m $model --json >/dev/full"
check 'a full disk for logits' 1 '/dev/full' "$FFAI inspect -m $model --token-ids 1,2,3 --logits /dev/full"
check 'a full disk for taps' 1 '/dev/full' "$FFAI inspect -m $model --token-ids 1,2,3 --taps /dev/full"
check 'a folder for logits' 1 'no/such' "$FFAI inspect -m $model --token-ids 1 --logits $tmp/no/such"
check 'a closed standard input' 1 '-' "$FFAI generate -m $model -n 2 -p - <&-"
check 'an empty standard input' 0 '' "$FFAI generate -m $model --greedy -n 2 -p - </dev/null"
check 'a reader that leaves' 0 '' "{ $run -n 400 --ignore-eos || [ \$? = 141 ]; } | head -c 1 >/dev/null"
check 'ids out of range' 1 'token id 4096' "$FFAI inspect -m $model --token-ids 1,4096"
check 'a negative id' 1 'token id -1' "$FFAI inspect -m $model --token-ids=-1"
check 'no ids' 2 '--token-ids' "$FFAI inspect -m $model --token-ids ''"
check 'words as ids' 2 'token-ids' "$FFAI inspect -m $model --token-ids 1,two"
check 'decoding from behind the end' 1 '--decode-from 4' "$FFAI inspect -m $model --token-ids 1,2,3 --decode-from 4"
check 'more ids than context' 1 '--ctx 2' "$FFAI inspect -m $model --token-ids 1,2,3 --ctx 2"
check 'a prompt as long as the context' 1 'context' "$FFAI generate -m $model -p 'The old house' --ctx 4 -n 1"
check 'no context' 2 '--ctx' "$FFAI generate -m $model -p a --ctx 0"
check 'a context without end' 2 '--ctx' "$FFAI generate -m $model -p a --ctx 1000000000"
check 'no threads' 2 '--threads' "$FFAI generate -m $model -p a --threads 0"
check 'too many threads' 2 '--threads' "$FFAI generate -m $model -p a --threads 1000000"
check 'a temperature that is no number' 2 '--temp' "$FFAI generate -m $model -p a --temp nan"
check 'a temperature near zero' 0 '' "$FFAI generate -m $model -p a -n 2 --temp 1e-38 --min-p 0.5 --seed 1"
check 'top-p of nothing is the likeliest token' 0 '' "$FFAI generate -m $model -p a -n 2 --temp 1 --top-p 0"
check 'a seed that overflows' 2 '--seed' "$FFAI generate -m $model -p a --seed 99999999999999999999"
check 'a negative count' 2 '-n' "$FFAI generate -m $model -p a -n -1"
check 'a repo id' 1 'org/repo' "$FFAI generate -m org/repo -p a"
check 'a folder as prompt' 1 'directory' "$FFAI generate -m $model --prompt-file /"

printf 'a\0b\xff\xfe\xc3(' >"$tmp/binary"
check 'a binary prompt' 0 '' "$FFAI generate -m $model --prompt-file $tmp/binary -n 2 --greedy"
odd=$tmp/$'with space\nand newline \xff'
cp -r "$model" "$odd"
check 'an odd path' 0 '' "$(printf '%q generate -m %q -p a -n 2 --greedy' "$FFAI" "$odd")"
head -c 1000 "$model/model.safetensors" >"$odd/model.safetensors"
check 'damage under an odd path' 1 'model.safetensors' "$(printf '%q generate -m %q -p a -n 2' "$FFAI" "$odd")"
cp "$model/model.safetensors" "$odd/"
printf '{"model":' >"$odd/tokenizer.json"
check 'no tokenizer' 1 'tokenizer.json' "$(printf '%q generate -m %q -p a -n 2' "$FFAI" "$odd")"
check 'ids without a tokenizer' 0 '' "$(printf '%q inspect -m %q --token-ids 1,2,3' "$FFAI" "$odd")"

# embeddings: modules of sentence-transformers, a base model's lines
check 'a full disk behind embed' 1 'standard output' "$FFAI embed -m $model -p a >/dev/full"
check 'a text that does not fit' 1 'context' "$FFAI embed -m $model --ctx 3 -p 'The old house'"
check 'more than the model was made for' 1 'context of 512' "printf '%4000s' | tr ' ' a | $FFAI embed -m $model -p -"
modules=$tmp/modules
cp -r "$model" "$modules"
printf '[{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "../../.."}]' >"$modules/modules.json"
check 'modules outside of the folder' 1 'modules.json' "$FFAI embed -m $modules -p a"
check 'modules are no matter of generate' 0 '' "$FFAI generate -m $modules -p a -n 1 --greedy"
printf '[{"type": "Transformer", "path": ""}, {"type": "x.WordWeights", "path": "1"}]' >"$modules/modules.json"
check 'an unknown module' 1 'WordWeights' "$FFAI embed -m $modules -p a"
head -c 100000 /dev/zero | tr '\0' '[' >"$modules/modules.json"
check 'modules in a nest' 1 'modules.json' "$FFAI embed -m $modules -p a"
rm "$modules/modules.json"
mkfifo "$modules/modules.json"
check 'modules in a pipe' 1 'modules.json' "$FFAI embed -m $modules -p a"

# signal NAME: starts an endless text, sends the signal once there is some of it
signal() {
    : >"$tmp/out" # what an earlier command left must not pass for text: the signal would hit the shell before it is the program
    "$FFAI" generate -m "$model" -p 'The old house' -n 0 --ctx 100000 --ignore-eos --greedy >"$tmp/out" 2>"$tmp/err" &
    pid=$!
    for _ in $(seq 300); do
        [ -s "$tmp/out" ] && break
        sleep 0.05
    done
    kill -s "$1" $pid
    wait $pid
}
# what was made so far, and status 0
for s in INT TERM; do
    signal $s || fail "SIG$s: status $?, $(head -c 300 "$tmp/err")"
    [ -s "$tmp/out" ] || fail "SIG$s: no text"
done
# two at a time in one folder give the same text
bash -c "$run" >"$tmp/a" 2>"$tmp/err" &
bash -c "$run" >"$tmp/b"
wait
{ [ -s "$tmp/a" ] && cmp -s "$tmp/a" "$tmp/b"; } || fail 'two at a time'

# little address space: a line, not a crash (sanitizers need terabytes of it)
if [ -z "${FFAI_SANITIZE:-}" ]; then
    for kib in 20000 40000 80000 200000; do
        (ulimit -v $kib && exec timeout 100 "$FFAI" generate -m "$model" -p 'The old house' --greedy -n 4) >"$tmp/out" 2>"$tmp/err"
        rc=$?
        [ "$rc" = 0 ] || [ "$rc" = 1 ] || [ "$rc" = 127 ] || fail "ulimit -v $kib: status $rc"
    done
    # peak <= weights + caches + arena + 64 MB
    bash -c "$run --stats=json" >/dev/null 2>"$tmp/err"
    peak=$(sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p' "$tmp/err") need=$(sed -n 's/.*"device_bytes": \([0-9]*\).*/\1/p' "$tmp/err")
    { [ "${peak:-0}" -gt 0 ] && [ "$peak" -le $((need + (64 << 20))) ]; } || fail "peak memory ${peak:-?}, planned ${need:-?}"
fi
finish
