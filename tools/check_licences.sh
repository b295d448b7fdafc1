#!/usr/bin/env bash
# Every dependency has a line in docs/licences.md, and every line a dependency: modules that CMake asks pkg-config for, packages and libraries that it
# finds by other means, libraries that the sources open at run time, and the folders of data in the tree.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
page=docs/licences.md
status=0
fail() { echo "licences: $*" >&2; status=1; }
listed() { grep -qF "\`$1\`" "$page" || fail "$1 ($2) has no line in $page"; }

# ffai_package(PREFIX module debian purpose), and its sisters
modules=$(sed -nE 's/^ *ffai_package(_shared|_find)?\([A-Z0-9]+ ([a-z0-9_.+-]+) .*/\2/p' CMakeLists.txt cmake/*.cmake | sort -u)
[ "$(wc -l <<<"$modules")" -ge 7 ] || fail "no modules found in CMakeLists.txt: the pattern is out of date"
for m in $modules; do listed "$m" "a pkg-config module"; done
for f in $(sed -nE 's/^ *find_package\(([A-Za-z0-9]+).*/\1/p' CMakeLists.txt cmake/*.cmake | grep -v '^PkgConfig$'; sed -nE 's/^ *find_library\([A-Z_]+ ([a-z_0-9]+).*/\1/p' CMakeLists.txt cmake/*.cmake); do
    listed "$f" "found by CMake"
done
# what is opened at run time, without versions
for l in $(grep -rhoE '"lib[a-zA-Z0-9_-]+\.so[.0-9]*"' src | tr -d '"' | sed 's/\.so.*//' | sort -u); do
    [ "$l" = libffai_cuda ] || listed "$l" "opened at run time"
done
# data: what git tracks, a folder or file each
for d in $(git ls-files tests/data models bench/shapes | awk -F/ '{print $1 == "models" ? $1 "/" $2 : $1 == "bench" ? "bench/shapes" : $1 "/" $2 "/" $3}' | sort -u); do
    listed "$d" "data"
done
# and the other way round: the names in the second column of the tables of libraries
while IFS= read -r name; do
    case $name in Threads | 'stdc++' | gcov | libcuda.so.1) continue ;; esac
    grep -qwF -- "$name" <<<"$modules" || grep -rqF -- "$name" cmake src/backend/cuda || fail "$name is in $page, but nothing uses it"
done < <(awk -F'|' '/^\| library/ {t = 1} /^$/ {t = 0} t && $3 ~ /`/ {gsub(/[ `]/, "", $3); print $3}' "$page")
# a file that is named must be there
# shellcheck disable=SC2016 # the backquotes are those of the page
while IFS= read -r f; do [ -e "$f" ] || fail "$page names $f, which does not exist"; done < <(grep -oE '`(src|tests|models|bench|tools)/[A-Za-z0-9_./-]+`' "$page" | tr -d '\`')
exit $status
