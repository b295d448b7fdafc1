#!/usr/bin/env bash
# Makes the packages (or takes those of FFAI_PACKAGES), unpacks them into an empty root and uses only that root: contents, dependencies, the
# program on the carried model, examples/ through pkg-config and through CMake; the archive from a folder of its own; what lintian says.
set -euo pipefail
: "${CC:=cc}"
[ -f "$FFAI_BUILD_DIR/CPackConfig.cmake" ] || { echo "skipped: this build has no packages"; exit 77; }
for tool in cpack dpkg-deb dpkg-shlibdeps pkg-config; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }
# has FILE LINE: the file has this line
has() { grep -qxF -- "$2" "$1" || fail "$2 is not in: $(cat "$1")"; }

out=${FFAI_PACKAGES:-}
if [ -z "$out" ]; then
    out=$work/out
    (cd "$FFAI_BUILD_DIR" && umask 077 && cpack -C Release -B "$out" -D CPACK_DEBIAN_COMPRESSION_TYPE=gzip) >"$work/cpack.log" 2>&1 ||
        fail "cpack: $(cat "$work/cpack.log")"
fi
version=$("$FFAI" version | awk '{print $2}')
arch=$(dpkg --print-architecture)
packages=(ffai libffai0 libffai-dev)
[ ! -f "$FFAI_BUILD_DIR/libffai_cuda.so" ] || packages+=(ffai-cuda)
[ "$(find "$out" -maxdepth 1 -name '*.deb' | wc -l)" = ${#packages[@]} ] || fail "packages: $(ls "$out")"

# ---- what the Debian packages say and hold
root=$work/root
mkdir "$root"
for p in "${packages[@]}"; do
    deb=$out/${p}_$version-1_$arch.deb
    [ -f "$deb" ] || fail "no $deb: $(ls "$out")"
    dpkg-deb -f "$deb" >"$work/control"
    has "$work/control" "Package: $p"
    has "$work/control" "Version: $version-1"
    [ "$(dpkg-deb -f "$deb" Description | wc -l)" -ge 2 ] || fail "$p has no description"
    dpkg-deb -c "$deb" | awk '$2 != "root/root" || $1 ~ /^[^l].....w/ || $1 ~ /^-......--/ {print}' >"$work/odd"
    [ ! -s "$work/odd" ] || fail "$p: owners or modes: $(cat "$work/odd")"
    dpkg-deb -c "$deb" | awk '{print $4 " " $5}' | sort -u >"$work/times"
    [ "$(wc -l <"$work/times")" = 1 ] || fail "$p: times of several moments: $(cat "$work/times")"
    dpkg-deb -x "$deb" "$root"
    for f in copyright changelog.gz changelog.Debian.gz; do [ -s "$root/usr/share/doc/$p/$f" ] || fail "$p has no $f"; done
    gzip -t "$root/usr/share/doc/$p"/*.gz || fail "$p: changelogs"
done
# no file is in two packages
for p in "${packages[@]}"; do dpkg-deb -c "$out/${p}_$version-1_$arch.deb" | awk '$1 !~ /^d/ {print $6}'; done | sort | uniq -d >"$work/twice"
[ ! -s "$work/twice" ] || fail "in two packages: $(cat "$work/twice")"
# every library that is linked has its package among the dependencies
depends=$(dpkg-deb -f "$out/ffai_$version-1_$arch.deb" Depends)
for lib in libc6 libcurl4 libedit2 libpcre2-8-0 libsimdjson libssl3 libutf8proc2 libstdc++6; do
    [[ $depends == *"$lib"* ]] || fail "ffai does not depend on $lib: $depends"
done
[[ $depends == *libffai0* ]] && fail "the program holds the library: $depends"
depends=$(dpkg-deb -f "$out/libffai0_$version-1_$arch.deb" Depends)
[[ $depends == *libcurl4* && $depends != *libedit* ]] || fail "libffai0: $depends"
depends=$(dpkg-deb -f "$out/libffai-dev_$version-1_$arch.deb" Depends)
[[ $depends == "libffai0 (= $version-1), "* && $depends == *libsimdjson-dev* ]] || fail "libffai-dev: $depends"
dpkg-deb --info "$out/libffai0_$version-1_$arch.deb" shlibs | grep -qx "libffai 0 libffai0 (>= $version)" || fail "shlibs of libffai0"
dpkg-deb --info "$out/libffai0_$version-1_$arch.deb" triggers | grep -q ldconfig || fail "triggers of libffai0"

# ---- nothing names the folders of the build, and nothing leads out of the root
grep -rl -e "$FFAI_SOURCE_DIR" -e "$FFAI_BUILD_DIR" "$root" && fail "packaged files name a folder of the build"
find "$root" -type l -lname '/*' | grep . && fail "absolute links"
readelf -d "$root/usr/bin/ffai" | grep -E 'RPATH|RUNPATH' && fail "the program has a search path of its own"

# ---- the program of the root, its page, its completions
model=$FFAI_SOURCE_DIR/models/ffai-demo-6m
"$root/usr/bin/ffai" generate -m "$model" -p 'The sea was' -n 24 --greedy >"$work/said"
"$FFAI" generate -m "$model" -p 'The sea was' -n 24 --greedy | cmp -s - "$work/said" || fail "the packaged program says: $(cat "$work/said")"
gzip -dc "$root/usr/share/man/man1/ffai.1.gz" >"$work/ffai.1"
grep -q '^\.TH FFAI 1' "$work/ffai.1" || fail "man page"
if command -v groff >/dev/null; then
    groff -man -Tutf8 -ww -rLL=100n "$work/ffai.1" >/dev/null 2>"$work/groff"
    [ ! -s "$work/groff" ] || fail "man page: $(head -3 "$work/groff")"
fi
bash -n "$root/usr/share/bash-completion/completions/ffai" || fail "bash completion"

# ---- programs against the root: examples/ by pkg-config, and by CMake
pc=$(dirname "$(find "$root" -name ffai.pc)")
export PKG_CONFIG_PATH=$pc
lib=$(dirname "$(find "$root" -name libffai.so)")
read -ra flags <<<"$(pkg-config --cflags --libs ffai)"
examples=$root/usr/share/doc/libffai-dev/examples
echo '#include <ffai.h>' | "$CC" "${flags[@]}" -E - | grep -F ffai.h | grep -qvF "\"$root/" && fail "another ffai.h: ${flags[*]}"
for f in "$examples"/*.c; do
    "$CC" -std=c11 -Wall -Wextra -Werror "$f" -o "$work/$(basename "$f" .c)" "${flags[@]}" -lm || fail "$f does not build"
done
LD_LIBRARY_PATH=$lib ldd "$work/simple" | grep -qF "$lib/libffai.so.0" || fail "simple does not use the library of the root"
LD_LIBRARY_PATH=$lib "$work/simple" "$model" 'The sea was' >"$work/simple.out" || fail "simple: $(cat "$work/simple.out")"
grep -qF -- "$(head -n 1 "$work/said" | cut -c 1-40)" "$work/simple.out" || fail "simple: $(cat "$work/simple.out")"
mkdir "$work/src"
cat >"$work/src/CMakeLists.txt" <<CM
cmake_minimum_required(VERSION 3.22)
project(examples LANGUAGES C)
set(CMAKE_C_STANDARD 11)
find_package(ffai 0.1 REQUIRED)
file(GLOB all $examples/*.c)
foreach(f \${all})
  get_filename_component(name \${f} NAME_WE)
  add_executable(\${name} \${f})
  target_link_libraries(\${name} PRIVATE ffai::ffai m)
endforeach()
add_executable(simple_static $examples/simple.c)
target_link_libraries(simple_static PRIVATE ffai::ffai_static)
CM
{
    cmake -S "$work/src" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$root/usr" -DCMAKE_C_COMPILER="$CC" && cmake --build "$work/build"
} >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; fail "examples by CMake"; }
grep -q "^ffai_DIR:PATH=$root" "$work/build/CMakeCache.txt" || fail "CMake found another ffai: $(grep ffai_DIR "$work/build/CMakeCache.txt")"
for name in simple simple_static; do
    "$work/build/$name" "$model" 'The sea was' | cmp -s - "$work/simple.out" || fail "$name built by CMake says something else"
done

# ---- the archive: runs where it lies, and after it was moved
tgz=$(find "$out" -maxdepth 1 -name "ffai-$version-*.tar.gz")
tar --numeric-owner -tvzf "$tgz" | awk '$2 != "0/0" || $1 ~ /^[^l].....w/ {print}' >"$work/odd"
[ ! -s "$work/odd" ] || fail "archive: owners or modes: $(cat "$work/odd")"
mkdir "$work/any where"
tar -xzf "$tgz" -C "$work/any where"
mv "$work/any where"/ffai-* "$work/any where/else"
"$work/any where/else/bin/ffai" generate -m "$model" -p 'The sea was' -n 24 --greedy | cmp -s - "$work/said" || fail "the program of the archive"
for f in bin/ffai include/ffai.h share/man/man1/ffai.1 share/doc/ffai/LICENSE share/doc/ffai/examples/simple.c; do
    [ -s "$work/any where/else/$f" ] || fail "the archive has no $f"
done
grep -rl -e "$FFAI_SOURCE_DIR" -e "$FFAI_BUILD_DIR" "$work/any where" && fail "archived files name a folder of the build"

# ---- what Debian's checker says; who packages gives a real address and closes a real bug, and cpack calls ldconfig beside the trigger
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on none --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs,maintscript-calls-ldconfig \
        "$out"/*.deb >"$work/lintian" 2>/dev/null || true
    # in a build for another prefix than /usr the libraries are not in the folder of the architecture
    [ -n "${FFAI_PACKAGES:-}" ] || sed -i -e '/pkg-config-multi-arch-wrong-dir/d' -e '/pkg-config-unavailable-for-cross-compilation/d' "$work/lintian"
    # the GPU module is opened by name, never linked against: it has no soname
    sed -i '/ffai-cuda: sharedobject-in-library-directory-missing-soname .*libffai_cuda.so/d' "$work/lintian"
    [ ! -s "$work/lintian" ] || fail "lintian: $(cat "$work/lintian")"
fi
echo ok
