#!/usr/bin/env bash
# The n-th write, fsync, rename, open, read, mmap or thread of the program fails, for n = 1, 2, ... until the work is done
# without reaching it: loading, generating, saving a session, converting, downloading. Each time there is status 0 or 1, a
# line that says why, and under the name that was asked for a whole result or none.
# shellcheck source=tests/robust/common.sh
. "$(dirname "$0")/common.sh"
tool=${FFAI_BUILD_DIR:-}/hub_tool
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
export HOME=$tmp HF_HUB_CACHE=$tmp/cache FAULT_HIT=$tmp/hit ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0 no_proxy=
unset HF_TOKEN HF_HOME HF_HUB_OFFLINE http_proxy https_proxy all_proxy HTTPS_PROXY ALL_PROXY

"${CC:-cc}" -shared -fPIC -O1 -o shim.so "$top/tests/robust/fault_shim.c" -ldl 2>err || { echo "skipped: $(head -1 err)"; exit 77; }
if ! LD_PRELOAD=$tmp/shim.so FAULT=open:1:5 "$FFAI" inspect -m "$model" >/dev/null 2>err && ! grep -q 'Input/output error' err; then
    echo "skipped: the shim does not load: $(head -c 300 err)" # some sanitizers
    exit 77
fi

# The work of a job.
work() {
    case $1 in
    load) set -- "$FFAI" inspect -m "$model" --token-ids '1,2,3' --logits "$tmp/to.npy" ;;
    generate) set -- "$FFAI" generate -m "$model" -p 'The old house' --greedy -n 3 ;;
    session) set -- "$FFAI_BUILD_DIR/session_tool" "$model" "$tmp/to.session" ;;
    session_load) set -- "$FFAI_BUILD_DIR/session_tool" "$model" "$tmp/to.session" load ;;
    convert) set -- "$FFAI" convert -q -m "$model" -o "$tmp/to" --dequantize --shard-size 8MB ;;
    pull) set -- "$FFAI" pull -q acme/demo ;;
    esac
    timeout 60 ${SHIM:+env "LD_PRELOAD=$SHIM"} "$@" </dev/null
}
pulled() { [ -d "$(cat out)" ] && diff -r -x README.md "$(cat out)" root/acme/demo/main; }
# What must hold after status 0.
done_well() {
    case $1 in
    load) [ "$(wc -c <to.npy)" -gt 40000 ] ;;
    generate) [ -s out ] ;;
    session) [ "$(cat out)" = '6 tokens' ] ;;
    convert) diff -r to ref ;;
    pull) pulled ;;
    esac
}
# After status 1: a file that was named by --logits is written in its place; other results are whole or not there, and
# the next download completes what was left.
left_well() {
    case $1 in
    session) [ ! -e to.session ] || SHIM='' work session_load >/dev/null ;;
    convert) [ ! -e to ] || diff -r to ref ;;
    pull) SHIM='' work pull >out 2>err2 && pulled ;;
    esac
}

work convert || fail 'a conversion without faults'
mv to ref
if [ -x "$tool" ]; then
    mkdir -p root/acme/demo/main
    cp "$model"/* root/acme/demo/main/
    "$tool" root ports log &
    server=$!
    for _ in $(seq 200); do [ ! -f ports ] || break; sleep 0.05; done
    export HF_ENDPOINT
    HF_ENDPOINT=http://127.0.0.1:$(cut -d' ' -f1 ports)
fi

# inject JOB KIND ERRNO[:ever]
inject() {
    local job=$1 n=1 rc reached=0
    while :; do
        rm -rf to to.* cache hit out err
        SHIM=$tmp/shim.so FAULT=$2:$n:$3 work "$job" >out 2>err
        rc=$?
        if [ $rc = 0 ]; then
            done_well "$job" >why 2>&1 || fail "$job with $2 $n failing ($3): status 0, but $(head -c 300 why)"
        elif [ $rc = 1 ]; then
            [ "$(wc -l <err)" = 1 ] || fail "$job with $2 $n failing ($3): $(wc -l <err) lines: $(head -c 600 err)"
            [[ $2:$3 != @(write|size|name):28* ]] || grep -q 'No space left' err || fail "$job with $2 $n failing ($3): $(head -c 300 err)"
            left_well "$job" >why 2>&1 || fail "$job with $2 $n failing ($3): left something half done: $(head -c 300 why)"
        else
            fail "$job with $2 $n failing ($3): status $rc: $(head -c 600 err)"
        fi
        [ -e hit ] || break
        reached=$n
        n=$((n < 12 ? n + 1 : n + n / 2))
    done
    echo "$job, $2 ($3): $reached"
}

for job in load generate session convert pull; do
    case $job in
    pull) [ -n "$server" ] || continue ;;
    session) [ -x "${FFAI_BUILD_DIR:-}/session_tool" ] || continue ;;
    esac
    inject $job write 5
    inject $job write 28:ever
    inject $job sync 5
    inject $job size 28
    inject $job name 28
    inject $job open 24
    inject $job read 5
    inject $job map 12
    inject $job map 12:ever
    inject $job thread 11:ever
done
finish
