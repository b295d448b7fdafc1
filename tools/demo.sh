#!/usr/bin/env bash
# make demo: the main job, with the model that the repository carries.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$(find models -mindepth 1 -maxdepth 1 -type d 2>/dev/null | head -1)
if [ -z "$model" ]; then
    echo "demo: no model under models/ yet" >&2
    exit 1
fi
run() { # prints the command as one would type it, and runs it
    printf '\n$'
    local word
    for word in "$@"; do
        case "$word" in
        *' '*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}
run ./ffai generate -m "$model" -p "Once upon a time" -n 120 --temp 0.7 --seed 7 --echo --stats
run ./ffai generate -m "$model" --chat -p "Good evening, Miss Bennet. Shall we dance?" --seed 1 -n 60
printf '\n\nTalk with it: ./ffai chat -m %s\n' "$model"
