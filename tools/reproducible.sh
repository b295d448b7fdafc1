#!/usr/bin/env bash
# make reproducible: builds the commit twice, in folders of other names, with another umask, time zone, locale, number of jobs and (as root) another user,
# without ccache, and compares program, libraries, Debian packages and archive byte by byte.
#   tools/reproducible.sh [FOLDER]      FOLDER: where to build, 200 MB (default: a new one, which is removed)
set -euo pipefail
cd "$(dirname "$0")/.."
top=${1:-}
if [ -z "$top" ]; then
    top=$(mktemp -d)
    trap 'rm -rf "$top"' EXIT
fi
mkdir -p "$top"
chmod 755 "$top"
time=$(git log -1 --format=%ct)
jobs=${JOBS:-$(nproc)}
export CCACHE_DISABLE=1 SOURCE_DATE_EPOCH=$time

# shellcheck disable=SC2317 # called through bash -c
# build FOLDER JOBS: the sources of HEAD, built and packed in FOLDER
build() {
    cd "$1"
    cmake --preset package -DFFAI_CUDA=OFF -DFFAI_CCACHE=OFF >configure.log 2>&1
    cmake --build --preset package --target product -j "$2" >build.log 2>&1
    cd build/package
    umask 022 # the members of a .deb get their modes from it
    cpack -C Release -B out >cpack.log 2>&1
}
export -f build

first=$top/a second=$top/another/folder
for dir in "$first" "$second"; do
    rm -rf "$dir"
    mkdir -p "$dir"
    git archive HEAD | tar -x -C "$dir"
done
(umask 022 && TZ=UTC LC_ALL=C bash -ec "build '$first' $jobs") || { tail -5 "$first"/*.log >&2; exit 1; }
other=(env)
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chown -R 65534:65534 "$second"
    other=(setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent)
fi
(umask 077 && "${other[@]}" TZ=Asia/Kathmandu LC_ALL=C.UTF-8 bash -ec "build '$second' 1") || { tail -5 "$second"/*.log >&2; exit 1; }

status=0
a=$first/build/package b=$second/build/package
while IFS= read -r f; do
    if cmp "$a/$f" "$b/$f" >&2; then
        printf 'same  %10d  %s\n' "$(stat -c %s "$a/$f")" "$f"
    else
        printf 'OTHER %10d  %s\n' "$(stat -c %s "$a/$f")" "$f"
        status=1
    fi
done < <(cd "$a" && ls ffai libffai.a libffai.so.*.*.* out/*.deb out/*.tar.gz)
exit $status
