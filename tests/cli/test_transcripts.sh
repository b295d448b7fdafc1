#!/usr/bin/env bash
# Replays tests/cli/*.txt: a line `$ COMMAND` is run by bash, the lines after it are what it prints (stdout and stderr together), and `[N]` at
# the end is its exit status when it is not 0. `...` as a whole line stands for any lines, inside a line for any text.
#   FFAI=./ffai tests/cli/test_transcripts.sh [--update] [FILE...]     --update writes what really came into the files
set -uo pipefail
FFAI=$(realpath "${FFAI:-$(dirname "$0")/../../ffai}") || exit 1
cd "$(dirname "$0")" || exit 1
export NO_COLOR=1 FFAI_MODELS HF_ENDPOINT=http://127.0.0.1:9 HF_HUB_CACHE=/nonexistent/models # no hub is asked
FFAI_MODELS=$(realpath ../../models 2>/dev/null || echo none)
# shellcheck disable=SC2317 # the transcripts call it
ffai() { "$FFAI" "$@"; }
export FFAI
export -f ffai
update=0
[ "${1:-}" = --update ] && { update=1; shift; }
[ $# -gt 0 ] || set -- *.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "$scratch.new"' EXIT
status=0 count=0

# One command from a transcript; prints it with its output as a transcript has it.
run() {
    local out rc
    out=$(cd "$scratch" && timeout 60 bash -c "$1" 2>&1 </dev/null; echo "x$?")
    rc=${out##*x}
    out=${out%x*}
    printf '$ %s\n%s' "$1" "$out"
    [ -z "$out" ] || [ "${out: -1}" = $'\n' ] || echo
    [ "$rc" = 0 ] || echo "[$rc]"
}

# Does the text match the expectation, with its dots as wildcards?
matches() {
    local pattern
    pattern=$(printf '%s\n' "$2" | sed 's/[][\\*?(|)@!+]/\\&/g')
    pattern=${pattern//$'\n...\n'/$'\n*'}
    pattern=${pattern//.../*}
    # shellcheck disable=SC2053 # the right side is a pattern
    [[ "$1" == $pattern ]]
}

check() {
    local file=$1 cmd=$2 want=$3 got
    got=$(run "$cmd")
    count=$((count + 1))
    matches "$got" "$want" && return
    printf 'FAIL %s\n--- expected\n%s\n--- got\n%s\n' "$file" "$want" "$got"
    status=1
}

# check, or with --update the block as it should stand: what still matches stays, with its dots.
block() {
    [ -n "$2" ] || return 0
    if [ $update = 0 ]; then
        check "$@"
        return
    fi
    local got
    got=$(run "$2")
    if matches "$got" "$3"; then got=$3; fi
    printf '%s\n' "$got" >>"$scratch.new"
}

# shellcheck disable=SC2094 # block only names the file
for file in "$@"; do
    cmd='' want=''
    : >"$scratch.new"
    while IFS= read -r line || [ -n "$line" ]; do
        case "$line" in
        '$ '*)
            block "$file" "$cmd" "$want"
            cmd=${line#\$ } want=$line
            ;;
        '# '*)
            block "$file" "$cmd" "$want"
            cmd='' want=''
            printf '%s\n' "$line" >>"$scratch.new"
            ;;
        *) want+=$'\n'$line ;;
        esac
    done <"$file"
    block "$file" "$cmd" "$want"
    [ $update = 0 ] || cp "$scratch.new" "$file"
done
[ $update = 1 ] || echo "$count commands replayed"
exit $status
