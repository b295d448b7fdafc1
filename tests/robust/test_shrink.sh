#!/usr/bin/env bash
# Model files that change while the program uses them. One that becomes shorter, or is written in place, ends in status 1
# and one line that names it; one that is removed or replaced by another file of its name does no harm.
# shellcheck source=tests/robust/common.sh
. "$(dirname "$0")/common.sh"

# change HOW FILE
change() {
    case $1 in
    shrink) truncate -s 70000 "$2" ;;
    overwrite) printf 'x' | dd of="$2" bs=1 seek=3000000 conv=notrunc 2>/dev/null ;;
    grow) printf 'x' >>"$2" ;;
    replace) printf 'something else' >"$2.new" && mv "$2.new" "$2" ;;
    drop) rm "$2" ;;
    esac
}

# during HOW END COMMAND...: a fresh copy of the model in $tmp/m; the change comes when there is some text. END: "itself"
# is waited for, "INT" is an interrupt a while later. Leaves the status in rc.
during() {
    local how=$1 end=$2
    shift 2
    rm -rf "$tmp/m"
    cp -r "$model" "$tmp/m"
    : >"$tmp/out"
    timeout 100 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null &
    local pid=$!
    for _ in $(seq 600); do
        [ -s "$tmp/out" ] && break
        sleep 0.02
    done
    change "$how" "$tmp/m/model.safetensors"
    if [ "$end" = INT ]; then
        sleep 0.3
        kill -INT $pid 2>/dev/null
    fi
    wait $pid
    rc=$?
}

# ended NAME WORDS: with status 1 and one line that names the file
ended() {
    if [ $rc != 1 ] || [ "$(wc -l <"$tmp/err")" != 1 ] || ! grep -q "m/model.safetensors.*$2" "$tmp/err"; then
        fail "$1: status $rc, $(head -c 300 "$tmp/err")"
    fi
}

endless=("$FFAI" generate -m "$tmp/m" -p 'The old house' -n 0 --ctx 100000 --ignore-eos --greedy)
during shrink itself "${endless[@]}"
ended 'generate, the file shrinks' 'became shorter'
during overwrite itself "${endless[@]}"
ended 'generate, the file is written' 'was written'
during grow itself "${endless[@]}"
ended 'generate, the file grows' 'was written'
for how in replace drop nothing; do
    during $how INT "${endless[@]}"
    { [ $rc = 0 ] && [ ! -s "$tmp/err" ]; } || fail "generate, $how: status $rc, $(head -c 300 "$tmp/err")"
done
during shrink INT "${endless[@]}" --weights private # nothing is read from the file any more
{ [ $rc = 0 ] && [ ! -s "$tmp/err" ]; } || fail "private weights: status $rc, $(head -c 300 "$tmp/err")"

# A command of a moment: the change comes at some time, so it may be done before. Whole results or none.
ids=$(seq -s , 1 400)
for ms in 001 004 008 012 016 020 030 040 060 090; do
    rm -rf "$tmp/m" "$tmp/logits.npy"
    cp -r "$model" "$tmp/m"
    timeout 100 "$FFAI" inspect -m "$tmp/m" --token-ids "$ids" --logits "$tmp/logits.npy" >/dev/null 2>"$tmp/err" &
    pid=$!
    sleep 0.$ms
    change shrink "$tmp/m/model.safetensors"
    wait $pid
    rc=$?
    [ $rc = 0 ] || ended "inspect, the file shrinks after 0.$ms s" ''
    rm -rf "$tmp/m" "$tmp"/to*
    cp -r "$model" "$tmp/m"
    timeout 100 "$FFAI" convert -q -m "$tmp/m" -o "$tmp/to" --dequantize --dtype f32 >/dev/null 2>"$tmp/err" &
    pid=$!
    sleep 0.$ms
    change shrink "$tmp/m/model.safetensors"
    wait $pid
    rc=$?
    if [ $rc != 0 ]; then
        ended "convert, the file shrinks after 0.$ms s" ''
        [ ! -e "$tmp/to" ] || fail "convert, the file shrinks after 0.$ms s: something was left as the result"
    elif [ "$(wc -c <"$tmp/to/model.safetensors")" -lt 20000000 ]; then
        fail "convert, the file shrinks after 0.$ms s: half a result"
    fi
done
finish
