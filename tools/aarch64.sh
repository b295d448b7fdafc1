#!/usr/bin/env bash
# Cross-builds everything for aarch64 and runs the suites that reach NEON code under qemu-user. The arm64 development packages are only
# unpacked into the build folder: the machine's own package state stays as it is.
#   tools/aarch64.sh [CTEST-LABEL-REGEX]
set -euo pipefail
cd "$(dirname "$0")/.."
labels=${1:-^(base|tensor|qfmt|kern|ops)$}
root=$PWD/build/aarch64-root
packages=(libsimdjson-dev libsimdjson14 libcmocka-dev libcmocka0 libpcre2-dev libpcre2-8-0 libutf8proc-dev libutf8proc2
    libedit-dev libedit2 libbsd0 libmd0 libtinfo6 libcurl4-openssl-dev libcurl4 libssl-dev libssl3
    # what libcurl4 links
    libnghttp2-14 libidn2-0 libunistring2 librtmp1 libssh2-1 libpsl5 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2
    libkeyutils1 libldap-2.5-0 libsasl2-2 libzstd1 libbrotli1 zlib1g libgnutls30 libhogweed6 libnettle8 libgmp10 libp11-kit0 libtasn1-6 libffi8)

tools/deps.sh ci
if [ "$(cat "$root/.done" 2>/dev/null)" != "${packages[*]}" ]; then
    mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial" "$root/debs"
    apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$root/apt" -o Dir::State::lists="$root/apt/lists"
        -o Dir::Cache="$root/apt" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
    "${apt[@]}" update </dev/null >/dev/null
    (cd "$root/debs" && "${apt[@]}" download "${packages[@]}" </dev/null >/dev/null)
    for deb in "$root"/debs/*.deb; do dpkg -x "$deb" "$root"; done
    # The .pc files name /usr; pkg-config adds the sysroot in front.
    echo "${packages[*]}" >"$root/.done"
fi

export PKG_CONFIG_LIBDIR=$root/usr/lib/aarch64-linux-gnu/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root FFAI_CROSS_ROOT=$root
cmake --preset aarch64 >build/aarch64.configure.log 2>&1 || { cat build/aarch64.configure.log; exit 1; }
cmake --build --preset aarch64
# All that qemu has (dot products, i8mm, bf16); QEMU_CPU=cortex-a72 runs what a machine without them would.
export QEMU_CPU=${QEMU_CPU:-max}
QEMU_LD_PREFIX=/usr/aarch64-linux-gnu QEMU_SET_ENV=LD_LIBRARY_PATH=$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu \
    ctest --preset aarch64 -j "$(nproc)" -L "$labels" --no-tests=error
