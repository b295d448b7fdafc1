#!/usr/bin/env bash
# make check: what a reviewer should not have to look for. Every finding is printed; the exit status says whether there were any.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
status=0
fail() { echo "check: $*" >&2; status=1; }

# Tracked and new files that git does not ignore; those that are gone from the work tree do not count.
files() { git ls-files -z --cached --others --exclude-standard -- "$@" | sort -zu | while IFS= read -r -d '' f; do [ -f "$f" ] && printf '%s\0' "$f"; done; }

format=clang-format-14
command -v $format >/dev/null || format=clang-format
unformatted=$(files 'src/*.[ch]' 'src/*.cpp' 'src/*.cu' 'src/*.cuh' 'include/*.h' 'tests/*.[ch]' 'tests/*.cpp' | xargs -0 -r -n 40 "$format" --dry-run 2>&1 |
    sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: .*/\1/p' | sort -u)
[ -z "$unformatted" ] || fail "not formatted (make format):"$'\n'"$unformatted"

tools/checkdeps.sh || fail "dependency rules"
tools/check_licences.sh || fail "licences"

files '*.sh' '.ci/run' | xargs -0 -r shellcheck || fail "shellcheck"

hits=$(files 'src/*' 'tests/*.[ch]' 'include/*' 'tools/*' 'cmake/*' '*.txt' '*.md' '*.sh' | xargs -0 -r grep -nIE '^(<<<<<<< |>>>>>>> )' --)
[ -z "$hits" ] || fail "a merge left open:"$'\n'"$hits"

# Absolute paths of somebody's machine do not belong into the repository.
hits=$(files . | xargs -0 -r grep -nIE '(^|[^A-Za-z0-9_./-])/(work|home/[a-z]|root|Users)/[A-Za-z]' -- 2>/dev/null | grep -v '^tools/check.sh:')
[ -z "$hits" ] || fail "absolute paths:"$'\n'"$hits"

# Source files say what they own; a file without a leading comment has no owner.
while IFS= read -r -d '' f; do
    grep -vm1 '^#define _[A-Z_0-9]*_SOURCE' "$f" | grep -qE '^(/\*|//)' || fail "$f: does not begin with a comment that says what it owns"
done < <(files 'src/*.[ch]' 'src/*.cpp' 'src/*.cu' 'src/*.cuh' 'include/*.h' 'tests/*.[ch]' 'tests/*.cpp')

bytes=$(files . | xargs -0 -r stat -c %s | awk '{s += $1} END {print s + 0}')
[ "$bytes" -lt 40000000 ] || fail "tracked files add up to $bytes bytes, the limit is 40000000"

[ $status -eq 0 ] && echo "check: ok"
exit $status
