#!/usr/bin/env bash
# Installs the build into a scratch tree (staged with DESTDIR, then moved) and builds consumers against it: C and C++, shared and static,
# through pkg-config and through CMake; builds and runs the installed examples with the carried model. Also: what the shared library exports (held
# against ffai.symbols), its soname, and that the header compiles alone.
set -euo pipefail
if [ -n "${FFAI_SANITIZE:-}" ]; then
    echo "skipped: a sanitizer build is not installed"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }

DESTDIR=$work/stage cmake --install "$FFAI_BUILD_DIR" --prefix /opt/ffai >"$work/install.log" || { cat "$work/install.log"; exit 1; }
[ "$(find "$work/stage" -mindepth 1 -maxdepth 1 -printf '%f\n')" = opt ] || fail "install left the staging tree"
prefix=$work/moved
mv "$work/stage/opt/ffai" "$prefix"
lib=$(dirname "$(find "$prefix" -name libffai.a)")

# Shared library: soname, links, exports.
[ "$(readlink "$lib/libffai.so")" = libffai.so.0 ] || fail "libffai.so does not point to libffai.so.0"
readelf -d "$lib/libffai.so" | grep -q 'SONAME.*\[libffai.so.0\]' || fail "soname is not libffai.so.0"
nm -D --defined-only "$lib/libffai.so" | awk '{print $3}' | sed 's/@.*//' >"$work/exports"
grep -v '^ffai_' "$work/exports" && fail "symbols outside ffai_ are exported"
grep -qx ffai_version "$work/exports" || fail "ffai_version is not exported"
# The ABI: what was there stays, what is new is meant.
LC_ALL=C sort "$work/exports" | diff -u "$FFAI_SOURCE_DIR/tests/package/ffai.symbols" - ||
    fail "the exported symbols changed: when that is meant, put the new list into tests/package/ffai.symbols"
# Every function that the header declares is there, and nothing else.
grep -oE '\bffai_[a-z0-9_]+\(' "$prefix/include/ffai.h" | tr -d '(' | sort -u >"$work/declared"
while read -r f; do
    grep -qE "FFAI_API .*\b$f\(" "$prefix/include/ffai.h" || continue
    grep -qx "$f" "$work/exports" || fail "$f is declared in ffai.h but not exported"
done <"$work/declared"
while read -r f; do grep -qx "$f" "$work/declared" || fail "$f is exported but not declared in ffai.h"; done <"$work/exports"

# The header alone, in every language it promises.
for std in c99 c11 c17; do
    echo '#include <ffai.h>' | "$CC" -x c -std=$std -pedantic -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only - || fail "header in $std"
done
for std in c++11 c++17 c++20; do
    echo '#include <ffai.h>' | "$CXX" -x c++ -std=$std -pedantic -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only - || fail "header in $std"
done

mkdir "$work/src"
cat >"$work/src/consumer.c" <<'C'
#include <ffai.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    char want[32];
    snprintf(want, sizeof want, "%d.%d.%d", FFAI_VERSION_MAJOR, FFAI_VERSION_MINOR, FFAI_VERSION_PATCH);
    return strcmp(ffai_version(), want) != 0 || ffai_version_number() != FFAI_VERSION || !*ffai_code_text(FFAI_ENOMEM);
}
C
cp "$work/src/consumer.c" "$work/src/consumer.cpp"

export PKG_CONFIG_PATH=$lib/pkgconfig
[ "$(pkg-config --modversion ffai)" = "$("$FFAI" version | awk '{print $2}')" ] || fail "ffai.pc and the program disagree about the version"
read -ra shared <<<"$(pkg-config --cflags --libs ffai)"
read -ra cflags <<<"$(pkg-config --cflags ffai)"
read -ra static <<<"$(pkg-config --static --libs ffai | sed 's/-lffai *//')" # named below, as an archive
for kind in c cpp; do
    compiler=$CC
    [ $kind = cpp ] && compiler=$CXX
    "$compiler" "$work/src/consumer.$kind" -o "$work/shared-$kind" "${shared[@]}"
    LD_LIBRARY_PATH=$lib "$work/shared-$kind" || fail "shared $kind consumer"
    "$compiler" "$work/src/consumer.$kind" -o "$work/static-$kind" "${cflags[@]}" -L"$lib" -Wl,-Bstatic -lffai -Wl,-Bdynamic "${static[@]}" ||
        fail "static $kind consumer does not link"
    "$work/static-$kind" || fail "static $kind consumer"
    ldd "$work/static-$kind" | grep -q libffai && fail "the static consumer loads libffai.so"
done

cat >"$work/src/CMakeLists.txt" <<'CM'
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C)
find_package(ffai 0.1 REQUIRED)
add_executable(shared consumer.c)
target_link_libraries(shared PRIVATE ffai::ffai)
add_executable(static consumer.c)
target_link_libraries(static PRIVATE ffai::ffai_static)
enable_language(CXX)
add_executable(shared_cpp consumer.cpp)
target_link_libraries(shared_cpp PRIVATE ffai::ffai)
add_executable(static_cpp consumer.cpp)
target_link_libraries(static_cpp PRIVATE ffai::ffai_static)
CM
{
    cmake -S "$work/src" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$CC" -DCMAKE_CXX_COMPILER="$CXX" &&
        cmake --build "$work/build"
} >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; fail "CMake consumer"; }
for p in shared static shared_cpp static_cpp; do "$work/build/$p" || fail "CMake consumer $p"; done

# The examples as somebody finds them after the installation, with nothing but the package: shared, and one of them static.
model=$FFAI_SOURCE_DIR/models/ffai-demo-6m
mkdir "$work/examples"
for f in "$prefix"/share/doc/ffai/examples/*.c; do
    name=$(basename "$f" .c)
    "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "$f" -o "$work/examples/$name" "${shared[@]}" -lm || fail "examples/$name.c does not build"
done
"$CC" -std=c11 "$prefix/share/doc/ffai/examples/simple.c" -o "$work/examples/simple-static" "${cflags[@]}" -L"$lib" -Wl,-Bstatic -lffai -Wl,-Bdynamic "${static[@]}"
# example NAME WORDS ARGUMENTS...: runs it; its output holds WORDS
example() {
    local name=$1 words=$2
    shift 2
    LD_LIBRARY_PATH=$lib timeout 120 "$work/examples/$name" "$@" >"$work/example.out" 2>&1 || fail "examples/$name: $(cat "$work/example.out")"
    grep -qF -- "$words" "$work/example.out" || fail "examples/$name does not say \"$words\": $(cat "$work/example.out")"
}
said=$("$FFAI" generate -m "$model" -p 'The sea was' -n 40 --greedy)
example simple "$(head -n 1 <<<"$said")" "$model" 'The sea was'
example simple-static "$(head -n 1 <<<"$said")" "$model" 'The sea was'
example logits ' was"' "$model" 'The sea was'
example embeddings '1.0000  The sea was calm.' "$model" 'The sea was calm.' 'The ocean was quiet.' 'He ate an apple.'
example two_models 'The sea was' "$model" "$model" 'The sea was'
[ "$(sed -n 1p "$work/example.out")" = "$(sed -n 2p "$work/example.out")" ] || fail "examples/two_models: two engines, two answers"
cp -r "$model" "$work/chat-model"
printf '%s' '{% for m in messages %}{{ m.role }}: {{ m.content }}{{ "\n" }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}' >"$work/chat-model/chat_template.jinja"
printf 'Good morning.\nWhere is the "old" house?\n' >"$work/talk"
example chat '' "$work/chat-model" <"$work/talk"
[ "$(wc -l <"$work/example.out")" -ge 2 ] || fail "examples/chat: two questions, fewer answers"
for name in simple logits embeddings two_models chat; do
    LD_LIBRARY_PATH=$lib "$work/examples/$name" >"$work/example.out" 2>&1 && fail "examples/$name without arguments succeeds"
    grep -q '^usage: ' "$work/example.out" || fail "examples/$name without arguments: $(cat "$work/example.out")"
done
LD_LIBRARY_PATH=$lib "$work/examples/simple" /none a >"$work/example.out" 2>&1 && fail "examples/simple without a model succeeds"
grep -q '^simple: /none: ' "$work/example.out" || fail "examples/simple without a model: $(cat "$work/example.out")"

# The installed program, its page and its completions.
"$prefix/bin/ffai" version >/dev/null || fail "installed program"
for f in share/man/man1/ffai.1 share/bash-completion/completions/ffai share/zsh/site-functions/_ffai share/fish/vendor_completions.d/ffai.fish; do
    [ -s "$prefix/$f" ] || fail "$f is missing"
done
grep -rIl "$FFAI_SOURCE_DIR" "$prefix" && fail "installed files name the source folder"
echo ok
