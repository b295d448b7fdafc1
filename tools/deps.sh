#!/usr/bin/env bash
# Makes sure that the Debian packages a task needs are there.
#   tools/deps.sh build     what `make`, `make demo` and `make test` need
#   tools/deps.sh check     also what `make check` needs
#   tools/deps.sh package   also what `make package` needs
#   tools/deps.sh coverage  also what `make coverage` needs
#   tools/deps.sh real      also what `make test-real` needs
#   tools/deps.sh ci        everything that .ci/run uses
# Installs what is missing when it may (apt, and root or sudo without a password); otherwise prints the command to type and fails.
set -euo pipefail

build=(cmake ninja-build pkg-config gcc g++ libsimdjson-dev libcmocka-dev libpcre2-dev libutf8proc-dev libedit-dev libcurl4-openssl-dev libssl-dev)
check=("${build[@]}" git clang-format-14 shellcheck)
coverage=("${build[@]}" gcovr)
package=("${build[@]}" dpkg-dev)
ci=("${check[@]}" dpkg-dev clang-14 clang libclang-rt-14-dev ccache gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user valgrind)

real=("${build[@]}" python3 python3-venv python3-pip unzip)

case "${1:-build}" in
build) want=("${build[@]}") ;;
check) want=("${check[@]}") ;;
package) want=("${package[@]}") ;;
coverage) want=("${coverage[@]}") ;;
real) want=("${real[@]}") ;;
ci) want=("${ci[@]}") ;;
*) echo "usage: tools/deps.sh [build|check|package|coverage|real|ci]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    # Not a Debian system: CMake says by name what it misses.
    for tool in cmake ninja cc c++; do
        command -v "$tool" >/dev/null || { echo "$tool not found; ffai needs the equivalents of these Debian packages: ${build[*]}" >&2; exit 1; }
    done
    exit 0
fi

missing=()
for p in "${want[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "Missing Debian packages. Install them and run make again:" >&2
        echo "    sudo apt-get install -y ${missing[*]}" >&2
        exit 1
    fi
fi
echo "Installing: ${missing[*]}" >&2
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
# The package lists of a fresh machine are empty or old: refresh them once, only when the first try fails.
if ! "${as_root[@]}" "${install[@]}" </dev/null >/dev/null 2>&1; then
    "${as_root[@]}" apt-get update -q </dev/null >&2
    "${as_root[@]}" "${install[@]}" </dev/null >&2
fi
