# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share: the program and the carried model, a folder of their own, failures. Sourced.
#   FFAI, FFAI_SOURCE_DIR   from CTest; without a program a test is skipped
# Gives $top, $model, $tmp (removed at the end) and $fails, which a script ends with: finish.
set -uo pipefail
[ -n "${FFAI:-}" ] || { echo "FFAI is not set"; exit 77; }
top=${FFAI_SOURCE_DIR:-$(dirname "$0")/../..}
model=$top/models/ffai-demo-6m
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
fails=0
export NO_COLOR=1 FFAI HF_ENDPOINT=http://127.0.0.1:9 # no hub is asked

fail() {
    echo "FAIL $*"
    fails=$((fails + 1))
    [ $fails -lt 20 ] || exit 1
}

# check NAME STATUS WORDS COMMAND...: the command ends with STATUS, its stderr is at most one line and says WORDS; with
# WORDS '' nothing is said, or one line.
check() {
    local name=$1 want=$2 words=$3 rc lines
    shift 3
    timeout 100 bash -c "$*" >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
    lines=$(wc -l <"$tmp/err")
    [ "$rc" = "$want" ] && { [ -z "$words" ] || grep -qF -- "$words" "$tmp/err"; } && [ "$lines" -le 1 ] && return
    fail "$name: status $rc (expected $want), stderr: $(head -c 600 "$tmp/err")"
}

finish() {
    [ $fails = 0 ] && echo "all well"
    exit $((fails > 0))
}
